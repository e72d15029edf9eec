// A lesson that is a study: which table it runs, what it writes, and what --redraw reads instead.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "error.h"
#include "study/engine.h"
#include "study/lesson_study.h"
#include "study/paper_scale.h"

using namespace focus;
namespace fs = std::filesystem;

namespace {

constexpr const char* table =
    "attention, k, length, d-model, d-mlp, blocks, train-size, val-size, batch, epochs, seeds\n"
    "full|topk, 3, 10,     8,       8,     1,      60,         20,       10,    ";

void put(const fs::path& file, const std::string& text) {
  std::ofstream(file) << text;
}

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

// A project's folder with one lesson, entered, and what is printed meanwhile kept away.
struct Project {
  fs::path before = fs::current_path();
  fs::path path = fs::temp_directory_path() / str("focus-lesson-", ::getpid());
  fs::path lesson = path / "lessons/98-trial";
  std::ostringstream printed;
  std::streambuf* out = std::cout.rdbuf(printed.rdbuf());

  Project() {
    fs::remove_all(path);
    fs::create_directories(lesson / "results");
    fs::current_path(path);
    put(lesson / "study.csv", str(table, "3, 2\n"));
    put(lesson / "demo.csv", str(table, "2, 1\n"));
    put(lesson / "paper.csv", str(table, "4, 3\n"));
  }
  ~Project() {
    std::cout.rdbuf(out);
    fs::current_path(before);
    fs::remove_all(path);
  }
};

// The lesson's program with these words behind its name.
struct Program {
  std::vector<std::string> words;
  std::vector<char*> argv;
  Lesson lesson;

  explicit Program(std::vector<std::string> arguments)
      : words(std::move(arguments)),
        argv(pointers()),
        lesson(int(argv.size()), argv.data(), "lesson-98", "does it run?") {}

 private:
  std::vector<char*> pointers() {
    words.insert(words.begin(), "lesson-98");
    std::vector<char*> all;
    for (std::string& word : words) all.push_back(word.data());
    return all;
  }
};

}  // namespace

TEST_CASE("lesson study: the scale names the table, the command line the seeds") {
  Project project;
  const auto study = [](const std::vector<std::string>& words) {
    return lesson_study(Program(words).lesson);
  };
  const Study laptop = study({}), demo = study({"--scale", "demo"}),
              paper = study({"--scale", "paper"}), more = study({"--seeds", "5"});
  CHECK(laptop.variants.size() == 2);
  CHECK(laptop.runs.size() == 4);
  CHECK(laptop.variants[0].settings.epochs == 3);
  CHECK(demo.runs.size() == 2);
  CHECK(demo.variants[0].settings.epochs == 2);
  CHECK(paper.runs.size() == 6);
  CHECK(paper.variants[0].settings.epochs == 4);
  CHECK(more.runs.size() == 10);
  CHECK(more.variants[0].settings.epochs == 3);
  fs::remove(project.lesson / "demo.csv");
  CHECK_THROWS_AS(study({"--scale", "demo"}), InputError);
}

TEST_CASE("lesson study: runs show their models before and after, and leave results to redraw") {
  Project project;
  std::string written;
  {
    Program program({"--threads", "2"});
    std::atomic<int> before = 0, after = 0, other = 0;
    const auto read =
        study_results(program.lesson, lesson_study(program.lesson), [&](const StudyRun&, Run& run) {
          (run.epochs_done() == 0 ? before : run.epochs_done() == 3 ? after : other)++;
        });
    REQUIRE(read);
    CHECK(before == 4);
    CHECK(after == 4);
    CHECK(other == 0);
    CHECK(read->variants.size() == 2);
    CHECK(program.lesson.verdict(true, "it ran") == 0);
    written = text_of("out/lesson-98/results.csv");
    CHECK(written.find("# from: lesson-98\n") == 0);
    CHECK(fs::exists("out/lesson-98/output.txt"));
  }

  fs::copy_file("out/lesson-98/results.csv", project.lesson / "results/results.csv");
  put(project.lesson / "study.csv", str(table, "9, 2\n"));  // of no concern to a redraw
  Program program({"--redraw"});
  int models = 0;
  const auto read = study_results(program.lesson, lesson_study(program.lesson),
                                  [&](const StudyRun&, Run&) { ++models; });
  REQUIRE(read);
  CHECK(models == 0);
  CHECK(read->variants.size() == 2);
  for (const StudiedVariant& v : read->variants) {
    CHECK(v.curves.size() == 2);
    for (const auto& curve : v.curves) {
      CHECK(curve.size() == 3);
      for (const EpochMetrics& epoch : curve) CHECK(std::isfinite(epoch.train_loss));
    }
  }
  program.lesson.verdict(false, "drawn anew");
  CHECK(text_of(project.lesson / "results/verdict.txt") == "verdict: not reproduced: drawn anew\n");
  CHECK(text_of(project.lesson / "results/results.csv") == written);
  CHECK_FALSE(fs::exists(project.lesson / "results/output.txt"));
}

TEST_CASE("lesson study: a redraw of results that are cut short or missing says which file") {
  Project project;
  put(project.lesson / "results/results.csv", "# date: 2026-11-24\nvariant,epoch\nfull,1\n");
  const auto message = [] {
    try {
      Program program({"--redraw"});
      study_results(program.lesson, lesson_study(program.lesson));
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(message().find("results.csv") != std::string::npos);
  fs::remove(project.lesson / "results/results.csv");
  CHECK(message().find("results.csv") != std::string::npos);
}

TEST_CASE("lesson study: the paper's scale shows the runs that focus study made, all of them") {
  Project project;
  const auto read = [] { return paper_recording(Program({"--scale", "paper"}).lesson); };
  const auto problem = [&] {
    try {
      read();
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  CHECK(problem().find("make lesson-98 SCALE=paper") != std::string::npos);

  const fs::path made = "out/lesson-98/study";
  const Study paper = read_study(project.lesson / "paper.csv");
  StudyOptions part;
  part.out = made, part.shards = 2;
  run_study(paper, part);
  report_study(paper, made);
  CHECK(problem().find("3 of 6 runs are not over") != std::string::npos);

  part.shard = 2;
  run_study(paper, part);
  const std::optional<Recording> whole = read();
  REQUIRE(whole);
  CHECK(whole->variants.size() == 2);
  CHECK(whole->variants[0].seeds.size() == 3);
  CHECK(whole->variants[0].seeds[2].last.epoch == 4);

  project.printed.str("");
  CHECK_FALSE(paper_recording(Program({"--redraw"}).lesson));
  CHECK(project.printed.str().find("not run; make lesson-98 SCALE=paper") != std::string::npos);
}

TEST_CASE("lesson study: a folder for several lessons has one for each") {
  Project project;
  Program own({}), shared({"--out", "all"});
  own.lesson.write_into("lesson-98"), shared.lesson.write_into("lesson-98");
  CHECK(own.lesson.options().out == "out/lesson-98");
  CHECK(shared.lesson.options().out == "all/lesson-98");
  CHECK(fs::is_directory("all/lesson-98"));
}
