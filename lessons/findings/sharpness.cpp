// Lesson 17 by its RULES.md: S1 to S6 and control 4.
#include <algorithm>
#include <cmath>
#include <iostream>

#include "files/atomic_file.h"
#include "files/rows.h"
#include "page.h"
#include "report/svg_plot.h"

namespace focus::findings {

namespace {

const std::vector<double> scales = {0.5, 1, 2, 4, 8, 16},
                          all_scales = {0.125, 0.25, 0.5, 1, 2, 4, 8, 16};  // control 8's too

void draw_sharpness(const Records& r, const fs::path& file) {
  Figure figure{"Epochs to 95 % against the factor C on the scores"};
  figure.columns = 4;
  for (const std::string& task : tasks) {
    Panel panel{task, "C", "epochs"};
    panel.log_x = panel.log_y = true;
    panel.x_ticks = all_scales, panel.x_range = Interval{0.11, 18};
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}, {"banded", 5}}) {
      Series series{k ? str(attention, "(", k, ")") : attention};
      for (const double c : all_scales) {
        const RecordedVariant* v = at_scale(r, task, attention, k, c);
        if (!v || !std::isfinite(median_of(*v))) continue;
        const std::vector<double> e = v->outcomes().epochs;
        series.x.push_back(c), series.y.push_back(median(e));
        const double high = quantile(e, 0.75);
        series.low.push_back(quantile(e, 0.25));
        series.high.push_back(std::isfinite(high) ? high : v->settings.epochs);
      }
      if (!series.x.empty()) panel.series.push_back(series);
    }
    figure.panels.push_back(panel);
  }
  Panel held_out{"held-out, full attention", "C", "%"};
  held_out.log_x = true;
  held_out.x_ticks = all_scales, held_out.x_range = Interval{0.11, 18};
  for (const std::string& task : tasks) {
    if (!by_heart(r, task, "full", 0)) continue;
    Series series{task};
    for (const double c : all_scales) {
      const RecordedVariant* v = at_scale(r, task, "full", 0, c);
      if (!v) continue;
      const auto last = v->values([](const SeedOutcome& s) { return s.last.val_accuracy; });
      series.x.push_back(c), series.y.push_back(median(last));
      series.low.push_back(quantile(last, 0.25)), series.high.push_back(quantile(last, 0.75));
    }
    held_out.series.push_back(series);
  }
  figure.panels.push_back(held_out);
  figure.caption =
      "The paper's scale, ten seeds: medians and quartiles. No point: not run, or learnt by fewer "
      "than half of the seeds. Last panel: accuracy on held-out examples after the last epoch, of "
      "the tasks that are learnt by heart at C = 1.";
  std::string why_not;
  if (!write_figure(figure, file, &why_not)) std::cout << why_not << "\n";
}

// One line of lessons/17-sharpness/results/entropy.csv: before training, in nats.
struct Arm {
  std::string task, attention;
  int k = 0;
  double c = 1, entropy = 0;
  const RecordedVariant* run = nullptr;  // nullptr: not run
};

std::vector<Arm> arms(const Records& r, const fs::path& file) {
  std::vector<Arm> all;
  for (const auto& cells : read_rows(file, "task,attention,k,score_scale,entropy")) {
    Arm arm{cells[0], cells[1], int(parse_integer(cells[2])), parse_number(cells[3]),
            parse_number(cells[4])};
    arm.run = at_scale(r, arm.task, arm.attention, arm.k, arm.c);
    all.push_back(arm);
  }
  return all;
}

std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<double> all;
  for (const double v : values) {
    double below = 0, equal = 0;
    for (const double w : values) below += w < v, equal += w == v;
    all.push_back(below + (equal - 1) / 2);
  }
  return all;
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double mx = mean(x), my = mean(y);
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i)
    xy += (x[i] - mx) * (y[i] - my), xx += (x[i] - mx) * (x[i] - mx),
        yy += (y[i] - my) * (y[i] - my);
  return xy / std::sqrt(xx * yy);
}

std::string in_words(const Against& c, const char* faster, const char* slower) {
  if (c.faster && c.factor() >= alike) return faster;
  if (c.slower && c.factor() <= 1 / alike) return slower;
  if (c.faster || c.slower) return str("undecided (a factor below ", number_text(alike), ")");
  return c.is_alike() ? "alike" : "undecided";
}

// S4: topk(5) at C = 1 against full attention at the C whose entropy comes nearest. `words` is what
// the claim says of it.
std::string at_equal_entropy(const std::vector<Arm>& all, std::string& words) {
  std::string text;
  std::vector<std::string> adds, takes;
  int asked = 0;
  for (const std::string& task : tasks) {
    const Arm *five = nullptr, *full = nullptr;
    for (const Arm& a : all)
      if (a.task == task && a.attention == "topk" && a.k == 5 && a.c == 1) five = &a;
    if (!five || !five->run) continue;
    for (const Arm& a : all)
      if (a.task == task && a.attention == "full" &&
          (!full || std::abs(a.entropy - five->entropy) < std::abs(full->entropy - five->entropy)))
        full = &a;
    if (!full->run) continue;
    const Against c(*five->run, *full->run);
    const std::string what = in_words(c, "adds", "takes away");
    ++asked;
    if (what == "adds") adds.push_back(task);
    if (what == "takes away") takes.push_back(task);
    text += str("| ", task, " | ", format("%.2f", five->entropy), " | C = ", c_text(full->c), ", ",
                format("%.2f", full->entropy), " | ", c.text(), " | sparsity ", what, " |\n");
  }
  words = str("At equal entropy before training topk(5) is faster by as much on ", adds.size(),
              " of ", asked, " tasks (", list(adds), "; S4), slower by as much on ", takes.size(),
              " (", list(takes), ")");
  return text;
}

// Of the tasks that are learnt by heart at C = 1: at which C held-out examples are answered. The
// lesson shows the table too.
std::string by_seed(const Records& r, const fs::path& file) {
  std::string table = "| task | mechanism |", rule = "|---|---|";
  for (const double c : all_scales) table += " C = " + c_text(c) + " |", rule += "---|";
  table += "\n" + rule + "\n";
  for (const std::string& task : tasks)
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}}) {
      if (!by_heart(r, task, attention, k)) continue;
      table += str("| ", task, " | ", attention, k ? "(5)" : "", " |");
      for (const double c : all_scales) {
        const RecordedVariant* v = at_scale(r, task, attention, k, c);
        table += v ? str(" ", epochs_text(median_of(*v)), " / ", format("%.1f", held_out(*v)),
                         " / ", seeds_that_generalise(task, *v), " |")
                   : std::string(" not run |");
      }
      table += "\n";
    }
  fs::create_directories(file.parent_path());
  write_file_atomically(file, table);
  return str(
      "\nLearnt by heart, or not? The tasks on which the median seed at C = 1 ends within ten "
      "points of guessing: epochs to 95 % of the training set / held-out accuracy at the end, %, "
      "both medians / how many of ten seeds end ten points above guessing (told, not judged; for C "
      "below ½ control 8).\n\n",
      table);
}

// Told, not judged: the fewer keys, the faster?
std::string by_keys(const Records& r) {
  std::string rows;
  for (const std::string& task : tasks) {
    const RecordedVariant *full = r.find(task, "full"), *two = r.find(task, "topk", 2);
    if (!full || !two) continue;
    rows += str("| ", task, " | ", epochs_of(full));
    for (const int k : {9, 5, 2}) rows += " | " + epochs_of(r.find(task, "topk", k));
    rows += " | " + compared(two, full) + " |\n";
  }
  if (rows.empty()) return "";
  return "\nFewer keys, all at C = 1 (told, not judged):\n\n| task | full | topk(9) | topk(5) | "
         "topk(2) | "
         "topk(2) against full |\n|---|---|---|---|---|---|\n" +
         rows;
}

// Control 4: do epochs follow the entropy at the start, whatever makes it?
std::string one_curve(const std::vector<Arm>& all) {
  std::vector<double> entropies, epochs;
  double worst = 1;
  std::string pair;
  std::vector<const Arm*> here;
  for (const Arm& a : all)
    if (a.task == "even-pairs" && a.run) here.push_back(&a);
  for (const Arm* a : here) {
    entropies.push_back(a->entropy), epochs.push_back(median_of(*a->run));
    for (const Arm* b : here) {
      const double ratio = median_of(*a->run) / median_of(*b->run);
      if (std::abs(a->entropy - b->entropy) > std::log(1.2) || !(ratio > worst)) continue;
      worst = ratio;
      pair = str(a->run->mechanism, format(" (%.2f nats, ", a->entropy),
                 epochs_text(median_of(*a->run)), " epochs) and ", b->run->mechanism,
                 format(" (%.2f nats, ", b->entropy), epochs_text(median_of(*b->run)), " epochs)");
    }
  }
  const double rho = correlation(ranks(entropies), ranks(epochs));
  return str(rho >= 0.8 && worst <= 1.5 ? "one curve" : "**not one curve**", ": over ", here.size(),
             " arms the rank correlation of entropy and epochs is ", format("%.2f", rho),
             " (0.8 asked); of arms whose effective numbers of keys are within 20 % the farthest "
             "apart are ",
             pair, " (a factor of 1.5 allowed)");
}

}  // namespace

void sharpness(const Records& r, const fs::path& folder, Page& page) {
  std::string grid = "| task | mechanism |";
  for (const double c : scales) grid += " C = " + c_text(c) + " |";
  grid += "\n|---|---|---|---|---|---|---|---|\n";
  std::string judged =
      "| task | S1: full at 4 against full at 1 | S2: full at 4 against topk(5) at 1 | S3: topk(5) "
      "against full, both "
      "at 4 | held-out, full at 4 minus full at 1 |\n|---|---|---|---|---|\n";
  std::vector<std::string> asked, s1, suffices, needed, adds, takes, hurts, little, bands,
      bands_run;
  for (const std::string& task : tasks) {
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}, {"banded", 5}}) {
      const RecordedVariant* one = at_scale(r, task, attention, k, 1);
      std::string row = str("| ", task, " | ", attention, k ? "(5)" : "", " |");
      int others = 0;
      for (const double c : scales) {
        const RecordedVariant* v = at_scale(r, task, attention, k, c);
        row += " " + epochs_of(v) + " |";
        if (!v || !one || c == 1) continue;
        ++others;
        if (std::string(attention) == "banded") {
          if (bands_run.empty() || bands_run.back() != task) bands_run.push_back(task);
          if (c > 1 && Against(*v, *one).faster)
            bands.push_back(str(task, " at C = ", number_text(c)));
        } else if (c > 1) {
          int lost = 0;
          for (size_t s = 0; s < v->seeds.size(); ++s)
            lost += one->seeds[s].epochs && !v->seeds[s].epochs;
          const auto last = [](const SeedOutcome& s) { return s.last.val_accuracy; };
          const SignTest lower = sign_test(v->values(last), one->values(last));
          const double points = median_gain(v->values(last), one->values(last)).value;
          if (lost > 0)
            hurts.push_back(str(v->mechanism, " on ", task, " loses ", lost, " of ten seeds"));
          if (points >= -1 && points < 0 && lower.less >= of_ten)
            little.push_back(
                str(v->mechanism, " on ", task, format(" ends %.1f points lower", -points)));
          if (points < -1 && lower.less >= of_ten)
            hurts.push_back(
                str(v->mechanism, " on ", task, format(" ends %.1f points lower", -points)));
        }
      }
      if (others > 0) grid += row + "\n";
    }
    const RecordedVariant *full1 = at_scale(r, task, "full", 0, 1),
                          *full4 = at_scale(r, task, "full", 0, 4),
                          *five1 = at_scale(r, task, "topk", 5, 1),
                          *five4 = at_scale(r, task, "topk", 5, 4);
    if (!full1 || !full4 || !five1 || !five4) continue;
    const Against first(*full4, *full1), second(*full4, *five1), third(*five4, *full4);
    const std::string what = in_words(third, "adds", "takes away");
    const bool enough = second.faster || second.is_alike();
    const bool sparse = second.slower && second.factor() < 1 / alike;
    judged +=
        str("| ", task, " | ", first.text(), ": ", first.faster ? "**yes**" : "no", " | ",
            second.text(), ": ",
            enough   ? "**suffices**"
            : sparse ? "sparsity is needed"
                     : "undecided",
            " | ", third.text(), ": ", what, " | ",
            gain(*full4, *full1, [](const SeedOutcome& s) { return s.last.val_accuracy; }), " |\n");
    if (!Against(*five1, *full1).faster) continue;
    asked.push_back(task);
    if (first.faster) s1.push_back(task);
    if (enough) suffices.push_back(task);
    if (sparse) needed.push_back(task);
    if (what == "adds") adds.push_back(task);
    if (what == "takes away") takes.push_back(task);
  }
  const std::vector<Arm> measured = arms(r, folder.parent_path() / "entropy.csv");
  const size_t n = asked.size();
  const bool sharper = s1.size() + 1 >= n;
  const std::string verdict = sharper && suffices.size() + 1 >= n && adds.size() <= 1
                                  ? "concentration, not sparsity"
                              : sharper && adds.size() > 1 ? "both"
                              : 2 * needed.size() > n      ? "sparsity"
                                                           : "undecided";
  std::string equal_entropy;
  const std::string s4 = at_equal_entropy(measured, equal_entropy);
  const std::string words =
      n == 0 ? "not run"
             : str(verdict, ". Of the ", n,
                   " tasks on which topk(5) is faster than full attention, a softmax four times "
                   "as sharp makes full attention faster on ",
                   s1.size(),
                   " (S1); it then needs no more epochs than topk(5) at "
                   "C = 1 on ",
                   suffices.size(),
                   " (S2); at C = 4 topk(5) is still faster by a factor of 1.25 or more on ",
                   adds.size(), " (", list(adds), "; S3). ", equal_entropy,
                   ". Does a flat softmax generalise where C = 1 learns by heart (control 8)? ",
                   flat_softmax(r));
  page.body += str(
      "## Sparsity, or sharpness? (lesson 17; the paper does not ask)\n\n"
      "![Epochs against C](17-sharpness/results/paper/figure.svg)\n\n"
      "softmax(C · Q Kᵀ / √d). Epochs to 95 % training accuracy, median and [quartiles] of ten "
      "seeds.\n\n",
      grid,
      "\nBy the [rules](17-sharpness/RULES.md) that were written before the runs (factor above "
      "1: the first named needs "
      "fewer epochs):\n\n",
      judged, "\n**", words,
      ".**\n\nS4, at equal entropy: topk(5) at C = 1 against full attention at the C whose mean "
      "entropy before training comes nearest, in nats (a query that attends to n keys alike has "
      "ln n).\n\n| task | topk(5) | full | epochs, topk(5) against full | |\n"
      "|---|---|---|---|---|\n",
      s4, by_keys(r), by_seed(r, folder.parent_path() / "more-controls/table.md"),
      "\n- Control 4, ", one_curve(measured),
      ".\n- S5, where "
      "it hurts: ",
      hurts.empty() ? "nowhere among the runs made" : list(hurts),
      "; by a point or less, with nine or ten seeds: ", list(little),
      ".\n- S6, a sharper softmax makes banded(5) faster on: ", list(bands), " (run on ",
      list(bands_run), ").\n\n");
  page.claims.push_back(
      {"—", "what helps is sparsity (the paper's reading)", "—", "lesson 17: " + words});
  draw_sharpness(r, folder / "figure.svg");
  write_file_atomically(folder / "verdict.txt", "verdict: " + words + "\n");
}

}  // namespace focus::findings
