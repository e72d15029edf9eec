// The learning kit: everything that is made from the sources and the lessons' gaps. `make` calls
// it; its own
// --help says what it can do.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <new>

#include "error.h"
#include "files/atomic_file.h"
#include "grade.h"
#include "manifest.h"
#include "suggest.h"
#include "tables.h"
#include "tree.h"

using namespace focus;
using namespace focus::kit;
namespace fs = std::filesystem;

namespace {

Gap find_gap_named(const Manifest& manifest, const std::string& name) {
  std::string known;
  for (const Gap& gap : all_gaps(manifest)) {
    if (gap.name == name) return gap;
    known += " " + gap.name;
  }
  fail_input("there is no gap '", name, "'; there are:", known);
}

void print_excerpt(const Gap& gap) {
  std::cout << gap.file << ":" << gap.line << "\n" << code_text(gap);
}

void print_solution(const Manifest& manifest, const std::string& lesson, const std::string& name) {
  int shown = 0;
  for (const Gap& gap : gaps_of_lesson(manifest, lesson)) {
    if (!name.empty() && gap.name != name) continue;
    std::cout << (shown++ ? "\n" : "") << "--- " << gap.name << ", " << gap.file << " ---\n"
              << code_text(gap);
    for (const std::string& line : gap.notice) std::cout << "  notice: " << line << "\n";
  }
  if (!shown) fail_input("lesson ", lesson, " has no gap '", name, "'");
}

void list_mistakes(const Manifest& manifest) {
  for (const Gap& gap : all_gaps(manifest))
    for (const Mistake& m : gap.mistakes)
      std::cout << gap.lesson << "\t" << gap.name << "\t" << m.name << "\t" << gap.page << ":"
                << m.line << "\t" << m.words << "\n";
}

// Puts our code into one gap of a student's tree; for walking through a lesson as a check.
void fill(const Manifest& manifest, const fs::path& tree, const std::string& name) {
  const Gap gap = find_gap_named(manifest, name);
  const fs::path path = tree / gap.file;
  const std::string text = read_file(path, 1 << 20);
  if (!is_empty(text, gap)) fail_input(path.string(), ": the gap '", name, "' is not empty");
  write_file_atomically(path, with_solution(text, gap).value());
}

struct GradeFiles {
  std::string json, csv;
};

int grade(const Manifest& manifest, const fs::path& folder, const GradeOptions& options,
          const GradeFiles& files) {
  if (const std::string missing = missing_protection(); !missing.empty()) fail_input(missing);
  // Before hours of work and not after them.
  for (const fs::path file : {files.json, files.csv})
    if (!file.empty() &&
        (fs::is_directory(file) || !fs::is_directory(fs::absolute(file).parent_path())))
      fail_input(file.string(),
                 " cannot be written: it is a folder, or in a folder that is not there");
  Grader grader(manifest, options);
  std::vector<Grade> grades;
  int not_graded = 0;
  for (const fs::path& upload : find_uploads(all_gaps(manifest), folder)) {
    grades.push_back(grader.grade(upload));
    not_graded += !grades.back().problem.empty();
    std::cout << grade_table(grades.back()) << std::flush;
    // After each, so that nothing is lost if the next one takes the machine down.
    mark_copies(grades);
    if (!files.json.empty()) write_file_atomically(files.json, grades_json(grades));
    if (!files.csv.empty()) write_file_atomically(files.csv, grades_csv(grades));
  }
  for (const Grade& grade : grades)
    if (!grade.same_as.empty()) {
      std::cout << grade.name() << ": every gap is the same as of";
      for (const std::string& other : grade.same_as) std::cout << " " << other;
      std::cout << "\n";
    }
  for (const std::string& file : {files.json, files.csv})
    if (!file.empty()) std::cout << "written: " << file << "\n";
  std::cout << grades.size() - size_t(not_graded) << " graded, " << not_graded << " not\n";
  return not_graded ? 2 : 0;
}

int run(int argc, char** argv) {
  CLI::App app(
      "What is made from the sources and the lessons' gaps: students' trees, solutions, grades");
  app.require_subcommand(1);
  std::string root = ".", lesson, name, path;
  GradeFiles files;
  bool stubs = false, check = false;
  GradeOptions options;
  app.add_option("--root", root, "the full checkout")->capture_default_str();

  CLI::App* start = app.add_subcommand("start", "make a student's tree with the gaps of a lesson");
  start->add_option("LESSON", lesson)->required();
  start->add_option("FOLDER", path)->required();
  CLI::App* snapshot = app.add_subcommand("snapshot", "make the complete tree after a lesson");
  snapshot->add_option("LESSON", lesson)->required();
  snapshot->add_option("FOLDER", path)->required();
  snapshot->add_flag("--stubs", stubs, "with the lesson's gaps empty");
  CLI::App* hints = app.add_subcommand("hints", "a lesson's gaps and hints, tab-separated");
  hints->add_option("LESSON", lesson)->required();
  CLI::App* solution = app.add_subcommand("solution", "our code for a lesson's gaps");
  solution->add_option("LESSON", lesson)->required();
  solution->add_option("GAP", name);
  CLI::App* excerpt = app.add_subcommand("excerpt", "FILE:LINE of a gap, then our code");
  excerpt->add_option("GAP", name)->required();
  CLI::App* mistakes = app.add_subcommand(
      "mistakes", "all mistakes: lesson, gap, name, place, words, tab-separated");
  CLI::App* with_mistakes =
      app.add_subcommand("with-mistakes", "make a tree of sources that can make all mistakes");
  with_mistakes->add_option("FOLDER", path)->required();
  CLI::App* fill_gap = app.add_subcommand("fill", "put our code into one gap of a student's tree");
  fill_gap->add_option("TREE", path)->required();
  fill_gap->add_option("GAP", name)->required();
  CLI::App* tables = app.add_subcommand("tables", "write README's table of lessons");
  tables->add_flag("--check", check, "only say whether it is current");
  CLI::App* grading = app.add_subcommand("grade", "points for submissions");
  grading->add_option("FOLDER", path, "a submission, or a folder of them")->required();
  grading->add_option("--lesson", options.lesson, "where a submission does not say it");
  grading->add_option("--json", files.json, "also write this file");
  grading->add_option("--csv", files.csv, "also write this file");
  grading->add_option("--seconds", options.test.seconds, "for one run of the tests")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  grading->add_option("--total", options.seconds, "seconds for a submission's builds and tests")
      ->check(CLI::Range(1, 36000))
      ->capture_default_str();
  grading->add_option("--memory", options.test.memory_mb, "MB for one run of the tests")
      ->check(CLI::Range(256, 1 << 20))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::Error& error) {
    fail_input(error.what(), " (see --help)");
  }

  const Manifest manifest = read_manifest(root);
  if (*start) {
    write_student_tree(manifest, lesson, path);
    std::cout << "Lesson " << manifest.lesson(lesson).folder << " is in " << path << "\n  cd "
              << shell_word(path) << "\n  less README.md\n  make test-" << lesson
              << "     # red until the gaps are filled\n";
  }
  if (*snapshot) write_snapshot(manifest, lesson, stubs, path);
  if (*hints) std::cout << gap_table(gaps_of_lesson(manifest, lesson));
  if (*solution) print_solution(manifest, lesson, name);
  if (*excerpt) print_excerpt(find_gap_named(manifest, name));
  if (*mistakes) list_mistakes(manifest);
  if (*with_mistakes) write_with_mistakes(manifest, path);
  if (*fill_gap) fill(manifest, path, name);
  if (*tables) return write_tables(manifest, check);
  if (*grading) return grade(manifest, path, options, files);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const RunError& error) {
    std::cerr << error.what() << "\n";
    return 1;
  } catch (const std::filesystem::filesystem_error& error) {
    std::cerr << file_problem("cannot use", error.path1(), error.code().value()) << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
