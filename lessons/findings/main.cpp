// lessons/FINDINGS.md: the paper's claims beside what is recorded at its scale, made from the
// recordings in the lessons' results/paper alone. `make report` runs it.
#include <algorithm>
#include <iostream>
#include <map>

#include "files/atomic_file.h"
#include "files/rows.h"
#include "lessons/findings/findings.h"
#include "report/svg_plot.h"

namespace focus::findings {

namespace {

// --- Figures 1 and 7 to 12 -----------------------------------------------------------------------

void figure_one(const Records& r, Page& page) {
  std::string speed =
      "| task | epochs | full | topk(5) | topk(5) against full | topk(9) | topk(9) against full | "
      "F3 |\n"
      "|---|---|---|---|---|---|---|---|\n";
  std::string accuracy =
      "| task | after 10 % of the epochs | 25 % | 50 % | all | best epoch | F4 "
      "|\n|---|---|---|---|---|---|---|\n";
  std::string masks =
      "| task | banded(5) | block(5) | banded(5)+1 | block(5)+1 | banded(5)+3 | block(5)+3 | "
      "faster than full |\n"
      "|---|---|---|---|---|---|---|---|\n";
  std::vector<std::string> learns, f3, not_f3, general, better, worse, memorised, exceptions;
  for (const std::string& task : tasks) {
    const RecordedVariant *full = r.find(task, "full"), *five = r.find(task, "topk", 5),
                          *nine = r.find(task, "topk", 9);
    if (!full || !five) fail_input(task, ": full and topk(5) are not recorded in lesson 06");
    const Against c(*five, *full);
    int arrived = 0;
    for (const SeedOutcome& s : full->seeds) arrived += s.epochs.has_value();
    if (arrived == int(full->seeds.size())) learns.push_back(task);
    (c.faster ? f3 : not_f3).push_back(task);
    speed += str("| ", task, " | ", full->settings.epochs, " | ", epochs_of(full), " | ",
                 epochs_of(five), " | ", c.text(), " | ", epochs_of(nine), " | ",
                 compared(nine, full), " | ",
                 c.faster   ? "reproduced"
                 : c.slower ? "**refuted**"
                            : "**not reproduced**",
                 " |\n");
    const bool any = generalises(task, *full) || generalises(task, *five);
    const bool ahead = c.c.val_accuracy.greater >= of_ten;
    (any ? general : memorised).push_back(task);
    if (any && ahead) better.push_back(task);
    if (any && c.c.val_accuracy.less >= of_ten) worse.push_back(task);
    accuracy += str("| ", task, " |");
    for (size_t i = 0; i < recorded_shares.size(); ++i)
      accuracy += " " +
                  gain(*five, *full, [&](const SeedOutcome& s) { return s.val_accuracy_at[i]; }) +
                  " |";
    accuracy += str(
        " ", gain(*five, *full, [](const SeedOutcome& s) { return s.last.val_accuracy; }), " | ",
        gain(*five, *full, [](const SeedOutcome& s) { return s.best_val_accuracy; }), " | ",
        !any    ? "nothing generalises"
        : ahead ? "reproduced"
                : "**not at the end**",
        " |\n");
    masks += str("| ", task, " |");
    std::vector<std::string> faster;
    for (const char* tokens : {"0", "1", "3"})
      for (const char* mask : {"banded", "block"}) {
        const RecordedVariant* v = r.find(task, mask, 5, {{"global-tokens", tokens}});
        masks += str(" ", v ? epochs_text(median_of(*v)) : "not run", " |");
        if (v && Against(*v, *full).faster) faster.push_back(v->mechanism);
      }
    masks += " " + list(faster) + " |\n";
    for (const std::string& mask : faster) exceptions.push_back(mask + " on " + task);
  }
  page.body +=
      str("## Full, top-k and fixed masks (the paper's figures 1 and 8 to 12)\n\n"
          "![Seven tasks](06-generalisation/results/paper/figure.svg)\n\n",
          "Epochs to 95 % training accuracy, median and [quartiles] of ten seeds. *Against*: how "
          "many times fewer "
          "epochs by the medians, with a 95 % bootstrap interval over seeds, in how many seeds "
          "fewer / more, and "
          "the sign test's p. *Reproduced* if at least nine of ten seeds need fewer and the median "
          "is lower.\n\n",
          speed,
          "\nHeld-out accuracy, topk(5) minus full, in points: the median over the seeds [95 % "
          "interval] and in how many "
          "seeds higher / lower, at equal epochs.\n\n",
          accuracy,
          "\nFixed masks: the median of the epochs to 95 %. +1 and +3 have global tokens.\n\n",
          masks, "\n");
  page.claims.push_back({"F1", "full attention learns the tasks, slowly", "1, 8–12",
                         str(learns.size() == tasks.size() ? "reproduced" : "partly",
                             ": with all ten seeds on ", learns.size(), " of 7 tasks")});
  page.claims.push_back(
      {"F2", "fixed masks bring no benefit", "1, 8–12",
       exceptions.empty() ? "reproduced" : "partly; faster than full: " + list(exceptions)});
  page.claims.push_back({"F3", "top-k converges faster", "1, 8–12",
                         str("reproduced on ", f3.size(), " of 7 tasks; not on ", list(not_f3))});
  page.claims.push_back(
      {"F4", "top-k generalises better", "1, 8–12",
       str(better.empty() ? "**not reproduced** at the end of training" : "partly", ": of the ",
           general.size(), " tasks that generalise at all it ends higher on ", list(better),
           " and lower on ", list(worse),
           "; it is ahead on the way, where it has learnt and full attention has not. ",
           list(memorised), " are learnt by heart, with every mechanism")});
}

void figure_two(const Records& r, Page& page) {
  std::string table =
      "| task | activation | full | topk(5) | topk(5) against full | held-out at the end | F5 |\n"
      "|---|---|---|---|---|---|---|\n";
  std::map<std::string, int> run, reproduced;
  for (const char* activation : {"relu", "gelu", "mish"})
    for (const std::string& task : tasks) {
      const RecordedVariant *full = r.find(task, "full", 0, {{"activation", activation}}),
                            *five = r.find(task, "topk", 5, {{"activation", activation}});
      if (!full || !five) continue;
      const Against c(*five, *full);
      run[activation]++, reproduced[activation] += c.faster;
      table += str("| ", task, " | ", activation, " | ", epochs_of(full), " | ", epochs_of(five),
                   " | ", c.text(), " | ",
                   gain(*five, *full, [](const SeedOutcome& s) { return s.last.val_accuracy; }),
                   " | ", c.faster ? "reproduced" : "**not reproduced**", " |\n");
    }
  std::string measured;
  for (const auto& [activation, n] : run)
    measured += str(measured.empty() ? "" : "; ", activation, ": F3 on ", reproduced[activation],
                    " of ", n, " tasks run");
  page.body += "## Other activations (figures 2 and 13 to 18)\n\n" + table + "\n";
  page.claims.push_back({"F5", "so with GELU and Mish", "2, 13–18", measured});
}

// --- what was not run, and how long it takes -----------------------------------------------------

// One GPU (an H200), ten seeds: of the seven tasks an epoch takes an eighth of a second whatever
// the mechanism; of list operations full attention 9 s, the others about 4.
double gpu_minutes(const RunSettings& s, size_t seeds) {
  const double epoch = s.task != "list-operations" ? 0.125 : s.attention == Pattern::full ? 9 : 4;
  return s.epochs * epoch * std::max(1.0, double(seeds) / 10) / 60;
}

std::string command_of(const RunSettings& s, size_t seeds) {
  const RunSettings usual = RunSettings::defaults_for(find_task(s.task));
  std::string command =
      str("build/focus train --task ", s.task, " --attention ", name_of(s.attention));
  for (const SettingField& field : setting_fields()) {
    const std::string name = field.name, value = field.get(s);
    if (name != "task" && name != "attention" && value != field.get(usual))
      command += str(" --", name, " ", value);
  }
  return str(command, " --seeds ", seeds, " --device cuda --out DIR");
}

void not_run(const std::vector<fs::path>& tables, const Records& r, Page& page) {
  std::string rows;
  double total = 0;
  std::map<std::string, bool> seen;
  for (const fs::path& table : tables)
    for (const StudyVariant& v : read_study(table).variants) {
      TextMap settings = to_text(v.settings);
      for (const char* key : {"task", "attention", "k", "epochs"}) settings.erase(key);
      if (r.find(v.settings.task, name_of(v.settings.attention), v.settings.k, settings)) continue;
      const std::string command = command_of(v.settings, v.seeds.size());
      if (seen[command]) continue;
      seen[command] = true;
      const double minutes = gpu_minutes(v.settings, v.seeds.size());
      total += minutes;
      rows += str("| ", v.settings.task, ", ", v.name, " | `", command, "` | ",
                  format("%.1f", minutes), " |\n");
    }
  page.body += str(
      "## Not run\n\nRows of the lessons' `paper.csv` that nobody has run yet, each with its "
      "command and an "
      "estimate in minutes of one H200 (ten seeds together): ",
      format("%.0f", total),
      " minutes in all. `build/focus study TABLE --device cuda --out DIR` runs a whole table.\n\n"
      "| variant | command | minutes |\n|---|---|---|\n",
      rows, "\n");
}

// The paper's own code on one H200, ms a training step of one seed (measured with its published
// scripts at length 40: full and top-k), against ours.
void gpu_hours(const Records& r, Page& page) {
  double steps = 0, runs = 0, epochs = 0;
  for (const std::string& task : tasks) {
    const RecordedVariant* v = r.find(task, "full");
    steps +=
        double(v->seeds.size()) * v->settings.epochs * v->settings.train_size / v->settings.batch;
    epochs += v->settings.epochs, runs += double(v->seeds.size());
  }
  page.body +=
      str("## GPU-hours\n\nSeven tasks with one mechanism are ", runs, " runs, ",
          format("%.1f", steps / 1e6),
          " million training steps. The authors' published code takes 10.3 ms a step with full "
          "attention and 21.4 ms with "
          "top-k on an H200, one seed at a time: ",
          format("%.0f and %.0f", steps * 10.3e-3 / 3600, steps * 21.4e-3 / 3600),
          " GPU-hours for the steps alone. Ours took ", format("%.2f", epochs * 0.125 / 3600),
          " GPU-hours with either, evaluation after each epoch and checkpoints included (an eighth "
          "of a second an epoch for "
          "ten seeds together). All of figures 1 and 8 to 12, 630 runs, took 79 GPU-minutes.\n\n");
}

std::string table_of_claims(const std::vector<Claim>& claims) {
  std::string table =
      "| | the paper's claim | its figures | at its scale, here |\n|---|---|---|---|\n";
  for (const Claim& c : claims)
    table += str("| ", c.finding, " | ", c.claim, " | ", c.figures, " | ", c.measured, " |\n");
  return table;
}

int run() {
  const fs::path lessons = "lessons";
  Records r;
  for (const char* folder : {"06-generalisation/results/paper", "07-activations/results/paper",
                             "17-sharpness/results/paper", "17-sharpness/results/controls"})
    r.add(folder);
  Page page;
  figure_one(r, page);
  figure_two(r, page);
  page.claims.push_back(
      {"F6", "so with other depths and heads", "3a, 3b", "not run; smaller models: lesson 11"});
  page.claims.push_back({"F7", "so with other rates, decays and Adam", "3c–e",
                         "not run on list operations; rates on even pairs are among lesson 17's "
                         "controls; smaller models: lesson 12"});
  page.claims.push_back({"F8", "a smoother loss surface around a top-k solution", "5, 23–27",
                         "not run; smaller models: lesson 13"});
  page.claims.push_back(
      {"F9, F10", "a less stable softmax, a worse bound; fixed masks do not shrink the dispersion",
       "text", "lessons 01, 02 and 04, at laptop scale"});
  page.claims.push_back({"F11, F12", "conditions under which top-k improves the bounds",
                         "21–22, table 6", "not run; smaller models: lesson 14"});
  page.claims.push_back({"F13", "next-token prediction", "19–20", "not run"});
  sharpness(r, lessons / "17-sharpness/results/paper", page);
  controls(r, page);
  gpu_hours(r, page);
  not_run(
      {lessons / "07-activations/paper.csv", lessons / "17-sharpness/paper.csv",
       lessons / "17-sharpness/controls.csv", lessons / "06-generalisation/list-operations.csv"},
      r, page);
  const std::string text = str(
      "# Findings at the paper's scale\n\nThe paper's claims beside our measurements at its own "
      "scale: its tasks, "
      "lengths, models, epochs and "
      "ten seeds. This page is made from the recordings in the lessons' `results/paper` by "
      "`make report`; nothing in it "
      "is typed by hand. Lessons judge smaller models too, by rules of their own (README has "
      "both).\n\n",
      table_of_claims(page.claims), "\nRecorded runs, float32:\n\n", r.sources(), "\n", page.body);
  const fs::path file = lessons / "FINDINGS.md";
  write_file_atomically(file, text);
  std::cout << "written: " << file.string() << "\n";
  return 0;
}

}  // namespace

}  // namespace focus::findings

int main() {
  return focus::run_lesson(focus::findings::run);
}
