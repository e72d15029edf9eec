// lessons/FINDINGS.md: the paper's claims beside what is recorded at its scale, made from the
// recordings in the lessons' results/paper alone. `make report` runs it.
#include <iostream>

#include "files/atomic_file.h"
#include "page.h"
#include "report/lesson.h"

namespace focus::findings {

namespace {

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
  for (const char* folder :
       {"06-generalisation/results/paper", "07-activations/results/paper",
        "17-sharpness/results/paper", "17-sharpness/results/controls",
        "17-sharpness/results/more-controls", "14-conditions/results/paper",
        "11-architecture/results/even-pairs", "12-optimisers/results/even-pairs",
        "06-generalisation/results/list-operations"})
    r.add(folder);
  Page page;
  figure_one(r, page);
  figure_seven(r, page);
  figure_two(r, page);
  figure_three(r, page);
  theory(page);
  page.claims.push_back(
      {"F13", "next-token prediction", "19–20", verdict_of(lessons / "15-next-token", "15")});
  sharpness(r, lessons / "17-sharpness/results/paper", page);
  controls(r, page);
  more_controls(r, page);
  gpu_hours(r, page);
  const std::vector<NotRun> missing = not_run(r);
  std::string text = str(
      "# Findings at the paper's scale\n\nThe paper's claims beside our measurements at its own "
      "scale: its tasks, lengths, models, epochs and ten seeds. This page is made from the "
      "recordings in the lessons' `results/paper` by `make report`; nothing in it is typed by "
      "hand. Lessons judge smaller models too, by rules of their own (README has both).\n\n",
      table_of_claims(page.claims), "\n");
  if (!missing.empty())
    text += str("**Not run**, with minutes of one H200: ", in_short(missing),
                ". The commands are at the end of the page.\n\n");
  text += str(
      "**To read the tables.** topk(5) is top-k attention with five keys a query, C a factor on "
      "the scores (1 in the paper). Epochs are those until 95 % of the "
      "training set are answered right; a seed that does not get there counts as infinitely many, "
      "and \"none\" is the median of such (∞ times fewer: the other median is none). Two "
      "mechanisms are compared seed by seed: the same data, order and first weights.\n\n"
      "Recorded runs, float32:\n\n",
      r.sources(), "\n", page.body, in_full(missing));
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
