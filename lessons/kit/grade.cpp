#include "grade.h"

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <sstream>

#include "error.h"
#include "files/atomic_file.h"
#include "tree.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

using Files = std::map<std::string, std::string>;  // path → text

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// "[doctest] test cases: 15 | 14 passed | 1 failed | 0 skipped" → {15, 1}
std::optional<std::pair<int, int>> counts(const std::string& output) {
  static const std::regex summary(R"(test cases: *(\d+) *\| *(\d+) passed *\| *(\d+) failed)");
  std::optional<std::pair<int, int>> found;
  for (std::sregex_iterator at(output.begin(), output.end(), summary), end; at != end; ++at)
    found = {std::stoi((*at)[1]), std::stoi((*at)[3])};
  return found;
}

std::string first_line_with(const std::string& output, const std::string& word) {
  for (const std::string& line : lines_of(output))
    if (line.find(word) != std::string::npos) return line.substr(0, 200);
  return "";
}

// Our tree of one lesson, in which submissions are built and tested.
class Bench {
 public:
  Bench(const Manifest& manifest, const std::string& lesson, const GradeOptions& options)
      : manifest_(manifest), lesson_(lesson), options_(options) {
    folder_ = fs::absolute(options.work / lesson);
    scratch_ = folder_ / "scratch";
    fs::create_directories(scratch_);
    options_.build.writable = {folder_};
    options_.test.writable = {scratch_};
    const std::string own = test({});
    if (own != "passes")
      fail_run("grading needs our own lesson ", lesson, " to pass its test here; it ", own);
  }

  // What becomes of our tree with these files of a student's in it.
  std::string test(const Files& files) {
    write_snapshot(manifest_, lesson_, false, folder_, files);
    const std::string stage = "build/stage-" + lesson_;
    std::error_code none;
    fs::remove(folder_ / stage, none);
    fs::remove_all(scratch_, none);
    fs::create_directories(scratch_);
    const char* jobs = std::getenv("JOBS");
    const Outcome build =
        run_limited({"/bin/sh", "-c",
                     str("exec make --no-print-directory JOBS=", jobs ? jobs : "2",
                         " WERROR= FLAGS_release='-O1 -DNDEBUG' ", stage)},
                    folder_, environment(), options_.build);
    if (!build.ok()) {
      if (build.end != Outcome::exited) return "cannot be built: it " + build.text(options_.build);
      const std::string error = first_line_with(build.output, "error");
      return "does not compile: " + (error.empty() ? "see make" : error);
    }
    const Outcome run = run_limited({(folder_ / stage).string(), "--no-colors"}, folder_,
                                    environment(), options_.test);
    const auto told = counts(run.output);
    if (run.end != Outcome::exited) return run.text(options_.test);
    if (!told) return "ends before its tests do";
    if (cases_ == 0) cases_ = told->first;
    if (told->first != cases_) return str("runs ", told->first, " tests of ", cases_);
    if (told->second == 0 && run.status == 0) return "passes";
    std::string first = first_line_with(run.output, "FAIL");
    first.erase(0, std::min(first.size(), first.find_first_not_of(" ", first.find("FAIL") + 4)));
    return str(told->second, " of ", cases_, " tests fail", first.empty() ? "" : ": ", first);
  }

 private:
  const Manifest& manifest_;
  std::string lesson_;
  GradeOptions options_;
  fs::path folder_, scratch_;
  int cases_ = 0;

  // A compiler cache under the compiler's name would want the instructor's folder, which a
  // submission may not see.
  std::vector<std::string> environment() const {
    const char* path = std::getenv("PATH");
    return {str("PATH=", path ? path : "/usr/bin:/bin"), str("TMPDIR=", scratch_.string()),
            "LC_ALL=C", "CCACHE_DISABLE=1"};
  }
};

}  // namespace

int Grade::points() const {
  int sum = 0;
  for (const GapGrade& gap : gaps) sum += gap.points;
  return sum;
}

int Grade::of() const {
  int sum = 0;
  for (const GapGrade& gap : gaps) sum += gap.of;
  return sum;
}

Grade grade_submission(const Manifest& manifest, const fs::path& submission,
                       const GradeOptions& options) {
  Grade grade;
  grade.submission = submission.string();
  grade.lesson = options.lesson;
  std::error_code none;
  if (grade.lesson.empty() && fs::is_regular_file(fs::symlink_status(submission / "lesson.txt"))) {
    std::istringstream text(read_file(submission / "lesson.txt", 1 << 16));
    std::string word, folder;
    text >> word >> folder;
    // By its name, so that renumbered lessons are found.
    for (const Lesson& lesson : manifest.lessons)
      if (folder.size() > 3 && lesson.folder.substr(3) == folder.substr(3))
        grade.lesson = lesson.number;
  }
  if (grade.lesson.empty()) {
    grade.problem = "it has no lesson.txt that names a lesson; give LESSON=NN";
    return grade;
  }

  const std::vector<Gap> gaps = gaps_of_lesson(manifest, grade.lesson);
  Files theirs, missing;
  for (const Gap& gap : gaps) {
    const fs::path path = submission / gap.file;
    const auto status = fs::symlink_status(path, none);
    if (theirs.count(gap.file) || missing.count(gap.file)) continue;
    if (!fs::is_regular_file(status))
      missing[gap.file] = fs::exists(status) ? "is no regular file" : "is missing";
    else if (fs::file_size(path, none) > (1u << 20))
      missing[gap.file] = "is larger than 1 MB";
    else
      theirs[gap.file] = read_file(path, 1 << 20);
  }
  static std::map<std::string, Bench> benches;  // one a lesson: its build serves all submissions
  auto bench = benches.find(grade.lesson);
  if (bench == benches.end())
    bench = benches
                .emplace(std::piecewise_construct, std::forward_as_tuple(grade.lesson),
                         std::forward_as_tuple(manifest, grade.lesson, options))
                .first;

  bool any_empty = !missing.empty();
  for (const Gap& gap : gaps)
    if (theirs.count(gap.file)) any_empty |= is_empty(theirs.at(gap.file), gap);
  const bool all_pass = !any_empty && bench->second.test(theirs) == "passes";
  for (const Gap& gap : gaps) {
    GapGrade& result = grade.gaps.emplace_back(GapGrade{gap.name, "", 0, gap.points});
    if (missing.count(gap.file)) {
      result.result = gap.file + " " + missing.at(gap.file);
    } else if (all_pass) {
      result.result = "passes";
    } else if (is_empty(theirs.at(gap.file), gap)) {
      result.result = "empty";
    } else {
      std::optional<std::string> text = theirs.at(gap.file);
      for (const Gap& other : gaps)
        if (text && other.file == gap.file && other.name != gap.name)
          text = with_solution(*text, other);
      result.result =
          text ? bench->second.test({{gap.file, *text}})
               : "cannot be tested apart: marker lines of another gap are gone from " + gap.file;
    }
    if (result.result == "passes") result.points = gap.points;
  }
  return grade;
}

std::vector<fs::path> find_submissions(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail_input(folder.string(), " is no folder");
  if (fs::exists(folder / "lesson.txt") || fs::exists(folder / "src")) return {folder};
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_directory() && !entry.path().filename().string().starts_with("."))
      found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  if (found.empty())
    fail_input(folder.string(), " holds no submission: neither lesson.txt nor folders");
  return found;
}

std::string grade_table(const Grade& grade) {
  std::ostringstream out;
  out << grade.submission;
  if (!grade.problem.empty()) {
    out << ": 0 points: " << grade.problem << "\n";
    return out.str();
  }
  out << ": lesson " << grade.lesson << ", " << grade.points() << " of " << grade.of()
      << " points\n";
  for (const GapGrade& gap : grade.gaps)
    out << "  " << std::left << std::setw(24) << gap.gap << std::right << std::setw(3) << gap.points
        << " / " << std::setw(2) << gap.of << "  " << gap.result << "\n";
  return out.str();
}

std::string grades_json(const std::vector<Grade>& grades) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Grade& grade : grades) {
    nlohmann::ordered_json one = {
        {"submission", grade.submission}, {"lesson", grade.lesson},
        {"points", grade.points()},       {"of", grade.of()},
        {"problem", grade.problem},       {"gaps", nlohmann::json::array()}};
    for (const GapGrade& gap : grade.gaps)
      one["gaps"].push_back(
          {{"gap", gap.gap}, {"points", gap.points}, {"of", gap.of}, {"result", gap.result}});
    all.push_back(one);
  }
  return nlohmann::ordered_json{{"graded", all}}.dump(
             2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace focus::kit
