// What a recording keeps of a study's results, and what it refuses.
#include <doctest/doctest.h>

#include <filesystem>

#include "error.h"
#include "files/atomic_file.h"
#include "study/make_recording.h"
#include "study/paper_scale.h"

using namespace focus;

namespace {

const char* const table =
    "task,attention,k,seed,epochs\n"
    "even-pairs,full,,1 2 3,100\n"
    "even-pairs,topk,5,1 2 3,100\n";

// Seed s of variant v reaches 95 % at epoch 10 s (v + 1); held-out accuracy falls after epoch 60.
StudyResults results_of(const char* of, int epochs = 100) {
  const Study study = parse_study(of, "t.csv");
  std::vector<StudiedVariant> variants = empty_variants(study);
  for (size_t v = 0; v < variants.size(); ++v)
    for (size_t s = 0; s < variants[v].seeds.size(); ++s)
      for (int e = 1; e <= epochs; ++e) {
        const int arrival = 10 * int(s + 1) * int(v + 1);
        variants[v].curves[s].push_back({e, variants[v].seeds[s], 1.0 / (e + double(s)),
                                         e >= arrival ? 96.0 : 50.0, 0.5,
                                         e <= 60 ? double(e) : 120.0 - e, 0});
      }
  return parse_results(
      results_text(study, {{"hardware", "a GPU"}, {"date", "2026-01-02"}}, variants),
      "results.csv");
}

std::string refusal(const char* of, const std::vector<StudyResults>& results) {
  try {
    make_recording(parse_study(of, "t.csv"), results, false);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("recording: what is kept of each seed and epoch, through its files") {
  const auto folder = std::filesystem::temp_directory_path() / "focus-test-recording";
  std::filesystem::remove_all(folder);
  write_recording(make_recording(parse_study(table, "t.csv"), {results_of(table)}, false), folder);
  const Recording r = read_recording(folder);
  write_recording(r, folder);  // anew
  write_file_atomically(folder / "curves.csv", "mine");
  CHECK_THROWS_AS(write_recording(r, folder), InputError);
  CHECK(read_file(folder / "curves.csv", 100) == "mine");
  std::filesystem::remove_all(folder);
  REQUIRE(r.variants.size() == 2);
  CHECK(r.not_run.empty());
  const RecordedVariant& topk = *r.find("topk(5)");
  CHECK(topk.settings.k == 5);
  CHECK(topk.settings.epochs == 100);
  REQUIRE(topk.seeds.size() == 3);
  CHECK(topk.seeds[1].seed == 2);
  CHECK(topk.seeds[1].epochs == 40);
  CHECK(topk.seeds[1].last.epoch == 100);
  CHECK(topk.seeds[1].last.val_accuracy == doctest::Approx(20));
  CHECK(topk.seeds[1].best_val_accuracy == doctest::Approx(60));
  CHECK(topk.seeds[1].best_epoch == 60);
  CHECK(topk.seeds[1].val_accuracy_at[0] == doctest::Approx(10));
  CHECK(topk.seeds[1].val_accuracy_at[2] == doctest::Approx(50));
  // The first ten epochs, then 50 of the other 90, with the last.
  REQUIRE(topk.epochs.size() == 60);
  CHECK(topk.epochs[9] == 10);
  CHECK(topk.epochs[10] == 11);
  CHECK(topk.epochs.back() == 100);
  CHECK(topk.train_loss.middle[0] == doctest::Approx(0.5));
  CHECK(topk.train_loss.low[0] == doctest::Approx(5.0 / 12).epsilon(1e-3));
  CHECK(topk.train_loss.high[0] == doctest::Approx(0.75));
  // The comparison of seeds is that of the whole curves.
  const Comparison c = compare(topk.outcomes(), r.find("full")->outcomes()).value();
  CHECK(c.epochs.greater == 3);
  CHECK(c.speedup.value == doctest::Approx(0.5));
}

TEST_CASE("recording: variants are found by their settings, in any results and under any name") {
  const StudyResults one =
      results_of("task,attention,k,seed,epochs\neven-pairs,topk,5,1 2 3,100\n");
  const StudyResults two =
      results_of("task,attention,heads,seed,epochs\neven-pairs|parity,full,1|2,3 2 1 4,100\n");
  const Recording r = make_recording(parse_study(table, "t.csv"), {one, two}, false);
  CHECK(r.variants[0].name == "full");
  // A data file decides sizes, and its name may hold blanks.
  const char* const of_file =
      "task,attention,train-data,seed,epochs\neven-pairs,full,\"a b.tsv\",1,100\n";
  StudyResults filed = results_of(of_file);
  std::string& note = filed.variants[0].settings_note;
  note.replace(note.find("train-size=5000"), 15, "train-size=20");
  const Recording f = make_recording(parse_study(of_file, "t.csv"), {filed}, false);
  CHECK(f.variants[0].settings.train_size == 20);
  CHECK(f.variants[0].settings.train_data.ends_with("a b.tsv"));
  // The table's seeds, in its order.
  CHECK(r.variants[0].seeds[0].seed == 1);
  CHECK(r.variants[0].seeds[0].epochs == 30);
}

TEST_CASE("recording: what is missing is named") {
  const char* const full = "task,attention,seed,epochs\neven-pairs,full,1 2 3,100\n";
  CHECK(says(refusal(table, {results_of(full)}), "'topk(5)' of t.csv is in none of the results"));
  CHECK(says(
      refusal("task,attention,lr,seed,epochs\neven-pairs,full,0.2,1 2 3,100\n", {results_of(full)}),
      "the nearest is 'full': lr is 0.1 there, 0.2 here"));
  CHECK(
      says(refusal("task,attention,seed,epochs\neven-pairs,full,1 2 3 4,100\n", {results_of(full)}),
           "'full': seed 4 is missing"));
  CHECK(says(refusal("task,attention,seed,epochs\neven-pairs,full,1 2 3,90\n", {results_of(full)}),
             "epochs is 100 in the results, 90 in t.csv"));
  CHECK(says(refusal(full, {results_of(full, 50)}), "'full', seed 1: only 50 of 100 epochs"));
  CHECK(says(refusal(full, {results_of(full), results_of(full)}), "recorded more than once"));
  // A run that ended with NaN is no gap: its notes say so.
  StudyResults failed = results_of(full, 50);
  for (int seed = 1; seed <= 3; ++seed)
    failed.notes.emplace_back("failed",
                              str("full, seed ", seed, ", epoch 51, step 9: the loss is nan"));
  const Recording lost = make_recording(parse_study(full, "t.csv"), {failed}, false);
  CHECK(lost.variants[0].seeds[2].last.epoch == 50);
  CHECK(lost.variants[0].epochs.back() <= 50);
  CHECK(lost.notes.back().second == "full, seed 3, epoch 51, step 9: the loss is nan");
  const Recording part = make_recording(parse_study(table, "t.csv"), {results_of(full)}, true);
  REQUIRE(part.not_run.size() == 1);
  CHECK(part.not_run[0] == "topk(5)");
}

TEST_CASE("recording: one that is not whole, or of other settings than its table, is named") {
  const auto lesson = std::filesystem::temp_directory_path() / "focus-test-recording-whole";
  const auto folder = lesson / "results/paper";
  std::filesystem::remove_all(lesson);
  std::filesystem::create_directories(lesson);
  Recording made = make_recording(parse_study(table, "t.csv"), {results_of(table)}, false);
  made.notes.emplace_back("table", "paper.csv");
  write_recording(made, folder);
  write_file_atomically(lesson / "paper.csv", table);
  CHECK(read_recording(folder).variants.size() == 2);

  const std::string seeds = read_file(folder / "seeds.csv", 1 << 20),
                    curves = read_file(folder / "curves.csv", 1 << 20);
  const auto changed = [](std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  const auto problem = [&](const std::string& with_seeds, const std::string& with_curves) {
    write_file_atomically(folder / "seeds.csv", with_seeds);
    write_file_atomically(folder / "curves.csv", with_curves);
    try {
      read_recording(folder);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  const size_t line = seeds.find("\ntopk(5),2,") + 1, end = seeds.find('\n', line) + 1;
  const std::string second = seeds.substr(line, end - line);
  CHECK(says(problem(changed(seeds, second, ""), curves), "'topk(5)': seed 2 is missing"));
  CHECK(says(problem(changed(seeds, second, changed(second, ",2,", ",1,")), curves),
             "'topk(5)': seed 1 is there twice"));
  CHECK(says(problem(changed(seeds, second, changed(second, ",20,", ",nan,")), curves),
             "'topk(5)': not all of its 100 epochs are recorded, as numbers"));
  CHECK(says(problem(changed(seeds, "k=5", "k=6"), curves), "k is 6 there, 5 here"));
  // The epoch of the target, and those of the curves, are whole numbers or "none".
  const size_t epochs = second.find(',', std::string("topk(5),2,").size());
  for (const std::string wrong : {"nan", "1e300", "2.5", "-3", "0", ""})
    CHECK(problem(changed(seeds, second, "topk(5),2," + wrong + second.substr(epochs)), curves)
              .ends_with("'" + wrong + "' is not an epoch"));
  CHECK(says(problem(seeds, changed(curves, "\ntopk(5),1,", "\ntopk(5),nan,")),
             "'nan' is not an epoch"));
  // Cut after a whole line.
  CHECK(says(problem(seeds, curves.substr(0, curves.rfind('\n', curves.size() - 2) + 1)),
             "'topk(5)': not all of its 100 epochs"));
  // A run that ended with NaN.
  CHECK(problem(changed(changed(seeds, "# table", "# failed: topk(5), seed 2, epoch 3\n# table"),
                        second, changed(second, ",20,", ",nan,")),
                curves) == "none");
  std::filesystem::remove_all(lesson);
}

TEST_CASE("recording: a figure names the curves that were not run") {
  Recording r = make_recording(parse_study(table, "t.csv"), {results_of(table)}, false);
  CHECK_FALSE(says(paper_figure(r, {"full", "topk(5)"}, "").caption, "Not run"));
  r.variants.erase(r.variants.begin());
  CHECK(says(paper_figure(r, {"full", "topk(5)"}, "").caption, " Not run: full."));
  CHECK(&r.at("topk(5)") == &r.variants[0]);
  CHECK_THROWS_WITH_AS(r.at("full"), doctest::Contains("not run"), InputError);
}
