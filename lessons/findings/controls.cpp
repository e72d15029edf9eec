// Lesson 17's controls by its RULES.md.
#include <algorithm>
#include <cmath>
#include <map>

#include "page.h"

namespace focus::findings {

namespace {

TextMap control(double c, const char* key = nullptr, const std::string& value = "",
                const char* key2 = nullptr, const std::string& value2 = "") {
  TextMap settings;
  if (c != 1) settings["score-scale"] = number_text(c);
  if (key) settings[key] = value;
  if (key2) settings[key2] = value2;
  return settings;
}

// What the rules say of the controls of one task; nothing of what was not run.
std::string judge_controls(const Records& r, const std::string& task) {
  std::string text;
  const auto full = [&](const TextMap& settings) { return r.find(task, "full", 0, settings); };
  const RecordedVariant *one = full({}), *four = full(control(4));
  if (!one || !four) return "Not judged: full attention at C = 1 or 4 is not recorded.\n";
  const auto as_four = [&](const RecordedVariant* v) {
    const Against c(*v, *four);
    return c.faster || c.is_alike();
  };
  const auto much_slower = [&](const RecordedVariant* v) {
    return Against(*v, *four).factor() < 1 / alike || !std::isfinite(median_of(*v));
  };
  const RecordedVariant *start = full(control(1, "qk-scale", "2")),
                        *rate = full(control(1, "qk-rate", "4"));
  if (start && rate) {
    const bool s = as_four(start), f = as_four(rate);
    text += str("- **1, start or rate: ",
                s && f                    ? "either will do"
                : s && much_slower(rate)  ? "it is the start"
                : f && much_slower(start) ? "it is the rate"
                                          : "both are needed",
                "**, by the rule. Against full at C = 1, C = 4 is faster by ",
                format("%.1f", Against(*four, *one).factor()), ", the start alone by ",
                format("%.1f", Against(*start, *one).factor()), ", the rate alone by ",
                format("%.1f", Against(*rate, *one).factor()), ".\n");
  }
  const auto best = [&](const char* attention, int k, double c) {
    const RecordedVariant* found = nullptr;
    for (const char* lr : {"0.025", "0.05", "0.1", "0.2", "0.4", "0.8"}) {
      const RecordedVariant* v = r.find(task, attention, k, control(c, "lr", lr));
      if (v && (!found || median_of(*v) < median_of(*found))) found = v;
    }
    return found;
  };
  if (full(control(1, "lr", "0.2")) && full(control(4, "lr", "0.2"))) {
    const RecordedVariant *b1 = best("full", 0, 1), *b4 = best("full", 0, 4),
                          *t1 = best("topk", 5, 1);
    const auto at_rate = [](const RecordedVariant* v) {
      return str(epochs_text(median_of(*v)), " at ", number_text(v->settings.lr));
    };
    text += str("- **2, each at its best rate: ",
                Against(*b4, *b1).faster ? "the rate does not replace sharpness" : "undecided",
                "**: full at C = 1 ", at_rate(b1), ", full at C = 4 ", at_rate(b4),
                ", topk(5) at C = 1 ", at_rate(t1), "; full at C = 4 against full at C = 1 ",
                compared(b4, b1), ", against topk(5) ", compared(b4, t1), ".\n");
  }
  const RecordedVariant *frozen = full(control(4, "freeze-qk", "yes")),
                        *five = r.find(task, "topk", 5),
                        *frozen_five = r.find(task, "topk", 5, control(1, "freeze-qk", "yes"));
  if (frozen && frozen_five) {
    const Against a(*frozen, *four), b(*frozen_five, *five);
    const auto fine = [](const Against& c) { return c.faster || c.is_alike(); };
    const auto learnt = [](const RecordedVariant* v) {
      return std::count_if(v->seeds.begin(), v->seeds.end(),
                           [](const SeedOutcome& s) { return s.epochs.has_value(); });
    };
    const bool needed =
        a.factor() < 0.5 || b.factor() < 0.5 || learnt(frozen) < 8 || learnt(frozen_five) < 8;
    text += str("- **3, Q and K frozen: ",
                fine(a) && fine(b) ? "attention need not be learnt"
                : needed           ? "attention has to be learnt"
                                   : "between the two",
                "**: frozen against trained, full at C = 4 ", a.text(), "; topk(5) at C = 1 ",
                b.text(), ".\n");
  }
  const RecordedVariant *loose1 = full(control(1, "clip", "0")),
                        *loose4 = full(control(4, "clip", "0"));
  if (loose1 && loose4) {
    const Against c(*loose4, *loose1);
    const bool not_clip = c.faster && !(c.factor() < Against(*four, *one).factor() / 2);
    size_t runs = 0, broken = 0;
    for (const RecordedVariant* v : {loose1, loose4})
      for (const SeedOutcome& outcome : v->seeds)
        ++runs, broken += outcome.last.epoch < v->settings.epochs;
    text += str("- **5, without the clip: ", not_clip ? "not the clip" : "undecided",
                "**: full at C = 4 ", epochs_of(loose4), ", at C = 1 ", epochs_of(loose1), "; ",
                c.text(), ". Of these ", runs, " runs ", broken, " end early, with NaN.\n");
  }
  return text;
}

// Which of the controls an arm of controls.csv belongs to.
int control_of(const RunSettings& s) {
  if (s.clip == 0) return 5;
  if (s.attention == Pattern::bottomk || s.attention == Pattern::random) return 4;
  if (s.attention == Pattern::topk && s.k != 5) return 4;
  if (s.freeze_qk) return 3;
  return s.qk_scale != 1 || s.qk_rate != 1 ? 1 : 2;
}

// How many of the arms that the rules ask for were run.
std::string arms_run(const Records& r) {
  std::map<std::pair<int, std::string>, std::pair<int, int>> count;
  for (const StudyVariant& v : read_study("lessons/17-sharpness/controls.csv").variants) {
    TextMap settings = to_text(v.settings);
    for (const char* key : {"task", "attention", "k", "epochs"}) settings.erase(key);
    auto& [run, all] = count[{control_of(v.settings), v.settings.task}];
    ++all;
    run +=
        r.find(v.settings.task, name_of(v.settings.attention), v.settings.k, settings) != nullptr;
  }
  const char* asks[] = {"a sharp start, or a fast rate of Q and K?", "a larger rate instead?",
                        "is attention learnt?", "few keys, whatever they are?", "the clip?"};
  std::string table =
      "| control | arms run on even-pairs | on missing-duplicate |\n|---|---|---|\n";
  for (int i = 1; i <= 5; ++i) {
    table += str("| ", i, ", ", asks[i - 1], " |");
    for (const std::string& task : {tasks[0], tasks[1]}) {
      const auto& [run, all] = count[{i, task}];
      table += str(" ", run, " of ", all, " |");
    }
    table += "\n";
  }
  return table;
}

}  // namespace

void controls(const Records& r, Page& page) {
  std::string text =
      "### Controls\n\nWhat the factor could be, other than a sharper softmax. An arm differs from "
      "full or top-k attention as it is in what is named.\n\n" +
      arms_run(r) + "\n";
  for (const std::string& task : {tasks[0], tasks[1]}) {
    const RecordedVariant* full4 = at_scale(r, task, "full", 0, 4);
    std::string rows;
    const auto row = [&](const std::string& what, const RecordedVariant* v) {
      if (v)
        rows += str("| ", what, " | ", epochs_of(v), " | ", v == full4 ? "" : compared(v, full4),
                    format(" | %.1f |\n", held_out(*v)));
    };
    row("full, C = 1", r.find(task, "full"));
    row("full, C = 4", full4);
    row("full, C = 16", at_scale(r, task, "full", 0, 16));
    row("topk(5), C = 1", r.find(task, "topk", 5));
    if (!rows.empty())
      text += str("**", task,
                  ".** Against full at C = 4.\n\n| arm | epochs | against full at C = 4 | "
                  "held-out, % |\n|---|---|---|---|\n");
    row("1. Q and K start twice as large (scores 4 times)",
        r.find(task, "full", 0, control(1, "qk-scale", "2")));
    row("1. Q and K learn 4 times as fast", r.find(task, "full", 0, control(1, "qk-rate", "4")));
    row("1. both", r.find(task, "full", 0, control(1, "qk-scale", "2", "qk-rate", "4")));
    row("1. Q and K start 4 times as large (scores 16 times)",
        r.find(task, "full", 0, control(1, "qk-scale", "4")));
    row("1. Q and K learn 16 times as fast", r.find(task, "full", 0, control(1, "qk-rate", "16")));
    row("1. both", r.find(task, "full", 0, control(1, "qk-scale", "4", "qk-rate", "16")));
    row("1. topk(5), Q and K start twice as large",
        r.find(task, "topk", 5, control(1, "qk-scale", "2")));
    row("1. topk(5), Q and K learn 4 times as fast",
        r.find(task, "topk", 5, control(1, "qk-rate", "4")));
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}})
      for (const double c : {1., 4., 16.})
        for (const char* rate : {"0.025", "0.05", "0.2", "0.4", "0.8"})
          row(str("2. ", attention, k ? "(5)" : "", ", C = ", c, ", rate ", rate),
              r.find(task, attention, k, control(c, "lr", rate)));
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}})
      for (const double c : {1., 4., 16.})
        row(str("3. ", attention, k ? "(5)" : "", ", C = ", c, ", Q and K frozen"),
            r.find(task, attention, k, control(c, "freeze-qk", "yes")));
    for (const int k : {1, 2, 10})
      for (const double c : {1., 2., 4., 8.})
        row(str("4. topk(", k, "), C = ", c), at_scale(r, task, "topk", k, c));
    for (const char* attention : {"bottomk", "random"})
      for (const double c : {1., 4., 16.})
        row(str("4. ", attention, "(5), C = ", c), at_scale(r, task, attention, 5, c));
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}})
      for (const double c : {1., 4., 16.})
        row(str("5. ", attention, k ? "(5)" : "", ", C = ", c, ", no clip"),
            r.find(task, attention, k, control(c, "clip", "0")));
    row("5. Q and K twice as large and 4 times as fast, no clip (C = 4 in other words)", [&] {
      TextMap s = control(1, "qk-scale", "2", "qk-rate", "4");
      s["clip"] = "0";
      return r.find(task, "full", 0, s);
    }());
    text += str(rows, "\n", judge_controls(r, task), "\n");
  }
  page.body += text;
}

// Controls 6 to 8.
void more_controls(const Records& r, Page& page) {
  std::string text, rows;
  const auto row = [&](const std::string& what, const RecordedVariant* v,
                       const RecordedVariant* at_one) {
    if (v)
      rows += str("| ", what, " | ", epochs_of(v), " | ",
                  at_one && v != at_one ? compared(v, at_one) : "",
                  format(" | %.1f |\n", held_out(*v)));
  };
  const auto arm = [](const char* attention, int k, double c) {
    return str(attention, k ? str("(", k, ")") : "", ", C = ", c_text(c));
  };
  const auto table = [&](const std::string& what, const std::string& verdict) {
    if (!rows.empty())
      text += str("**", what,
                  "**\n\n| arm | epochs | against C = 1 | held-out, % |\n|---|---|---|---|\n", rows,
                  "\n", verdict, "\n");
    rows.clear();
  };

  const auto adam = [&](const std::string& task, const char* attention, int k, double c,
                        const char* lr) {
    TextMap settings = control(c, "optimizer", "adam", "lr-decay", "0.99999");
    settings["lr"] = lr;
    return r.find(task, attention, k, settings);
  };
  std::vector<std::string> faster, asked;
  for (const std::string& task : {tasks[0], tasks[1]}) {
    const auto best = [&](const char* attention, int k, double c) {
      const RecordedVariant *low = adam(task, attention, k, c, "1e-04"),
                            *high = adam(task, attention, k, c, "0.001");
      return low && (!high || median_of(*low) < median_of(*high)) ? low : high;
    };
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}})
      for (const double c : {1., 4.})
        for (const char* lr : {"1e-04", "0.001"})
          row(str(task, ", ", arm(attention, k, c), ", rate ", parse_number(lr)),
              adam(task, attention, k, c, lr), adam(task, attention, k, 1, lr));
    const RecordedVariant *one = best("full", 0, 1), *four = best("full", 0, 4),
                          *five = best("topk", 5, 1);
    if (!one || !four) continue;
    if (Against(*four, *one).faster) faster.push_back(task);
    asked.push_back(str(task, ": full at C = 4 against full at C = 1 ", compared(four, one),
                        five ? ", against topk(5) at C = 1 " + compared(four, five) : ""));
  }
  table("Adam.", str("- **6, ",
                     asked.size() < 2     ? "not judged: one task alone was run"
                     : faster.size() == 2 ? "with Adam too"
                     : faster.empty()     ? "not with Adam"
                                          : "on one task: " + faster[0],
                     "**, each at its better rate: ", list(asked, "; "), ".\n"));

  asked.clear();
  size_t shown = 0, sharper = 0;
  for (const char* length : {"20", "40", "80"}) {
    const auto at = [&](const char* attention, int k, double c) {
      TextMap settings = control(c);
      if (length != std::string("40")) settings["length"] = length;
      return r.find(tasks[0], attention, k, settings);
    };
    if (!at("full", 0, 1) || !at("full", 0, 4)) continue;
    double best = 1;
    for (const double c : {4., 16.})
      if (const auto* v = at("full", 0, c); v && median_of(*v) < median_of(*at("full", 0, best)))
        best = c;
    ++shown, sharper += Against(*at("full", 0, 4), *at("full", 0, 1)).faster;
    asked.push_back(str("length ", length, ": C = ", c_text(best)));
    for (const auto& [attention, k] : {std::pair("full", 0), {"topk", 5}})
      for (const double c : {1., 4., 16.})
        row(str("length ", length, ", ", arm(attention, k, c)), at(attention, k, c),
            at(attention, k, 1));
  }
  if (shown < 2) rows.clear();  // length 40 alone is in the tables above
  table("Even pairs, other lengths.",
        str("- **7, ", sharper == shown ? "at every length: " : "",
            "full attention at C = 4 is faster than at C = 1 at ", sharper, " of ", shown,
            " lengths.** The best of 1, 4 and 16 for it: ", list(asked), ".\n"));

  asked.clear();
  for (const std::string& task : tasks) {
    if (!by_heart(r, task, "full", 0)) continue;
    const RecordedVariant* one = at_scale(r, task, "full", 0, 1);
    for (const double c : {0.125, 0.25})
      if (const RecordedVariant* v = at_scale(r, task, "full", 0, c)) {
        row(str(task, ", ", arm("full", 0, c)), v, one);
        if (std::isfinite(median_of(*v)))
          asked.push_back(str(task, " at C = ", c_text(c), ": ",
                              compared(v, at_scale(r, task, "full", 0, 4)), " and ",
                              compared(v, r.find(task, "topk", 5))));
      }
  }
  table("A flatter softmax.",
        str("- **8, does a flat softmax generalise?** ", flat_softmax(r),
            ".\n- Its epochs, told: against full at C = 4 and topk(5) at C = 1, ",
            list(asked, "; "), ".\n"));
  page.body += text;
}

std::string flat_softmax(const Records& r) {
  std::vector<std::string> words;
  for (const std::string& task : tasks) {
    if (!by_heart(r, task, "full", 0)) continue;
    int run = 0, most = 0;
    std::vector<std::string> counts;
    for (const double c : {0.125, 0.25, 0.5}) {
      const RecordedVariant* v = at_scale(r, task, "full", 0, c);
      if (!v) continue;
      const int seeds = seeds_that_generalise(task, *v);
      counts.push_back(str(seeds, " of ", v->seeds.size(), " seeds at C = ", c_text(c)));
      if (c < 0.5) ++run, most = std::max(most, seeds);
    }
    words.push_back(str(task, ": ",
                        most >= 5  ? "it does"
                        : run < 2  ? "not run"
                        : most > 0 ? "by luck of the seed"
                                   : "it does not",
                        " (", list(counts), ")"));
  }
  return list(words, "; ");
}

}  // namespace focus::findings
