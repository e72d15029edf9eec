// Grades submissions; `make grade` calls it (../GRADING.md).
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "../tool.h"
#include "grade.h"

using namespace focus;
using namespace focus::kit;
namespace fs = std::filesystem;

namespace {

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
  CLI::App app("Points for submissions");
  std::string root = ".", path;
  GradeFiles files;
  GradeOptions options;
  app.add_option("--root", root, "the full checkout")->capture_default_str();
  app.add_option("FOLDER", path, "a submission, or a folder of them")->required();
  app.add_option("--lesson", options.lesson, "where a submission does not say it");
  app.add_option("--json", files.json, "also write this file");
  app.add_option("--csv", files.csv, "also write this file");
  app.add_option("--seconds", options.test.seconds, "for one run of the tests")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--total", options.seconds, "seconds for a submission's builds and tests")
      ->check(CLI::Range(1, 36000))
      ->capture_default_str();
  app.add_option("--memory", options.test.memory_mb, "MB for one run of the tests")
      ->check(CLI::Range(256, 1 << 20))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::Error& error) {
    fail_input(error.what(), " (see --help)");
  }
  return grade(read_manifest(root), path, options, files);
}

}  // namespace

int main(int argc, char** argv) {
  return run_tool([&] { return run(argc, argv); });
}
