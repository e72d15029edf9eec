#include "grade.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <ctime>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>

#include "../tree.h"
#include "error.h"
#include "files/atomic_file.h"
#include "gap_text.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
using Texts = std::map<std::string, std::string>;  // path → text
using Written = std::map<std::string, GapText>;    // gap → what the student wrote

struct Verdict {
  std::string result, feedback;
  bool final = true;  // false: another time it may be another one
};

std::string first_line_with(const std::string& output, const std::string& word) {
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (line.find(word) != std::string::npos) return printable(line.substr(0, 200));
  return "";
}

// The first failure that the tests print, and the known mistake that they recognise, in one line.
std::string first_failure(const std::string& output) {
  std::string text;
  std::istringstream lines(output);
  bool taking = false, failure_taken = false;
  for (std::string line; std::getline(lines, line) && text.size() < 600;) {
    const bool begins = line.starts_with("  FAIL  ") || line.starts_with("  CRASH ");
    const bool mistake = line.starts_with("  Known mistake");
    if (begins || mistake || !line.starts_with("    "))
      taking = mistake || (begins && !failure_taken);
    failure_taken |= begins;
    const size_t first = line.find_first_not_of(' ');
    if (taking && first != std::string::npos)
      text += (text.empty() ? "" : " / ") + line.substr(first, 300);
  }
  return printable(text.substr(0, 800));
}

std::string new_secret() {
  std::random_device random;
  std::string secret;
  for (int i = 0; i < 32; ++i) secret += char('a' + random() % 26);
  return secret;
}

// What the stage test's own main wrote to the channel: the secret, the counts of test cases, and
// the names of those that failed. Nothing if it is not all there.
struct Told {
  int cases = 0, failed = 0;
  std::string first;  // name of a failed case
};
std::optional<Told> read_verdict(const std::string& told, const std::string& secret) {
  Told verdict;
  if (!told.starts_with(secret + " ")) return {};
  const char *at = told.data() + secret.size() + 1, *const end = told.data() + told.size();
  const auto cases = std::from_chars(at, end, verdict.cases);
  if (cases.ec != std::errc() || cases.ptr == end || *cases.ptr != ' ') return {};
  const auto failed = std::from_chars(cases.ptr + 1, end, verdict.failed);
  if (failed.ec != std::errc() || failed.ptr == end || *failed.ptr != '\n') return {};
  verdict.first = std::string(failed.ptr + 1, std::find(failed.ptr + 1, end, '\n'));
  return verdict;
}

// Our tree of one lesson, and a copy of it with its objects for each build of a student's code: no
// file that a submission had a part in is there when the next one is built.
class Bench {
 public:
  Bench(const Manifest& manifest, const std::string& lesson, const GradeOptions& options)
      : manifest_(manifest), lesson_(lesson), options_(options) {
    ours_ = fs::absolute(options.work / lesson / "ours");
    theirs_ = fs::absolute(options.work / lesson / "theirs");
    fs::create_directories(ours_);
    write_snapshot(manifest, lesson, false, ours_);
    options_.build.seconds = 3600;  // from nothing; afterwards only what a submission changes
    const Verdict own = build_and_test(ours_, 7200);
    options_.build.seconds = options.build.seconds;
    if (own.result != "passes")
      fail_run("grading needs our own lesson ", lesson, " to pass its test here; it ", own.result,
               own.feedback.empty() ? "" : ": ", own.feedback);
  }

  // Our tree with what a student wrote in these gaps; `seconds` are left for it.
  Verdict test(const std::vector<Gap>& gaps, const Written& written, const Texts& files,
               int seconds) {
    const auto gap_text = [&](const Gap& gap) {
      const auto theirs = written.find(gap.name);
      if (theirs == written.end() || gap.lesson != lesson_) return code_text(gap);
      const auto& [text, line] = std::pair(theirs->second.text, theirs->second.line);
      const auto lines = std::count(text.begin(), text.end(), '\n');
      // The compiler speaks of the student's line numbers.
      return str("#line ", line, " \"", gap.file, "\"\n", text, "#line ", line + lines + 1, " \"",
                 gap.file, "\"\n");
    };
    Texts changed;
    for (const Gap& gap : gaps)
      if (written.count(gap.name) && !changed.count(gap.file))
        changed[gap.file] =
            str(standard_includes(files.at(gap.file)), "#line 1 \"", gap.file, "\"\n",
                render(read_source(manifest_.root, gap.file), std::stoi(lesson_), gap_text));
    std::string key;
    for (const auto& [path, text] : changed) key += path + "\n" + text;
    // The same for equal copies.
    if (const auto before = verdicts_.find(key); before != verdicts_.end()) return before->second;
    copy_ours();
    for (const auto& [path, text] : changed) write_file_atomically(theirs_ / path, text);
    const Verdict verdict = build_and_test(theirs_, seconds);
    fs::remove_all(theirs_);
    if (verdict.final) verdicts_[key] = verdict;
    return verdict;
  }

 private:
  const Manifest& manifest_;
  std::string lesson_;
  GradeOptions options_;
  fs::path ours_, theirs_;
  int cases_ = 0;
  std::map<std::string, Verdict> verdicts_;

  // With their times, which make looks at.
  void copy_ours() {
    fs::remove_all(theirs_);
    for (const auto& entry : fs::recursive_directory_iterator(ours_)) {
      const fs::path to = theirs_ / fs::relative(entry.path(), ours_);
      if (entry.is_directory()) fs::create_directories(to);
      if (!entry.is_regular_file()) continue;
      fs::copy_file(entry.path(), to);
      fs::last_write_time(to, entry.last_write_time());
    }
  }

  Verdict build_and_test(const fs::path& tree, int seconds) {
    const auto deadline = Clock::now() + std::chrono::seconds(seconds);
    const auto within = [&](Limits limits) {
      const auto left = std::chrono::duration_cast<std::chrono::seconds>(deadline - Clock::now());
      limits.seconds = std::clamp(int(left.count()), 1, limits.seconds);
      return limits;
    };
    const auto ended = [](const Outcome& outcome, const Limits& limits, const Limits& full) {
      const bool final = outcome.end != Outcome::too_long || limits.seconds == full.seconds;
      return Verdict{final ? outcome.text(limits)
                           : "does not end within what is left of the submission's time",
                     "", final};
    };
    const std::string stage = "build/stage-" + lesson_;
    fs::create_directories(tree / "build/tmp");
    fs::remove(tree / stage);

    Sandbox compiling;
    compiling.writable = {{tree, "/tree"}};
    compiling.folder = "/tree";
    // Where g++ is ccache, it only compiles: a cache is one more thing that submissions could
    // share.
    compiling.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=/tree/build/tmp",
                             "HOME=/tree/build/tmp", "LC_ALL=C", "CCACHE_DISABLE=1"};
    const char *jobs = std::getenv("JOBS"), *compiler = std::getenv("CXX");
    std::vector<std::string> make = {
        "make",  "--no-print-directory",      str("JOBS=", jobs && *jobs ? jobs : "2"), "WERROR=",
        "NVCC=", "FLAGS_release=-O1 -DNDEBUG"};
    if (compiler && *compiler) make.push_back(str("CXX=", compiler));
    make.push_back(stage);
    const Limits build_limits = within(options_.build);
    const Outcome build = run_sandboxed(make, compiling, build_limits);
    if (build.end != Outcome::exited) {
      Verdict verdict = ended(build, build_limits, options_.build);
      verdict.result = "cannot be built: it " + verdict.result;
      return verdict;
    }
    if (build.status != 0 || !fs::is_regular_file(fs::symlink_status(tree / stage))) {
      const std::string error = first_line_with(build.output, "error");
      return {"does not compile: " + (error.empty() ? "see make" : error), error};
    }

    Sandbox testing;
    testing.folder = "/tree";
    testing.only_computes = true;
    testing.environment = {"LC_ALL=C", "FOCUS_VERDICT=3"};
    const std::string mistakes = lesson_folder(ours_, lesson_) + "/mistakes.tsv";
    testing.readable = {{tree / stage, "/tree/" + stage}};
    for (const std::string& path : {mistakes, std::string("tests/golden")})
      if (fs::exists(ours_ / path)) testing.readable.push_back({ours_ / path, "/tree/" + path});
    const Limits limits = within(options_.test);
    const std::string secret = new_secret();
    const Outcome run = run_sandboxed({"/tree/" + stage, "--no-colors"}, testing, limits, secret);
    const std::optional<Told> told = read_verdict(run.told, secret);
    const std::string feedback = first_failure(run.output);
    if (run.end != Outcome::exited) {
      Verdict verdict = ended(run, limits, options_.test);
      verdict.feedback = feedback;
      return verdict;
    }
    if (!told) return {"ends before its tests do", feedback};
    if (cases_ == 0) cases_ = told->cases;
    if (told->cases != cases_) return {str("runs ", told->cases, " tests of ", cases_), feedback};
    if (told->failed == 0 && run.status == 0) return {"passes", ""};
    return {str(told->failed, " of ", cases_, " tests fail: ", printable(told->first)), feedback};
  }
};

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

struct Grader::Parts {
  const Manifest& manifest;
  GradeOptions options;
  std::vector<Gap> gaps;  // of all lessons
  std::set<std::string> reserved;
  std::map<std::string, Bench> benches;  // one a lesson: its build serves all submissions
  int lock = -1;
  ~Parts() {
    if (lock >= 0) close(lock);
  }
};

Grader::Grader(const Manifest& manifest, const GradeOptions& options)
    : parts_(new Parts{manifest, options, all_gaps(manifest), {}, {}}) {
  if (!options.lesson.empty() && gaps_of_lesson(manifest, options.lesson).empty())
    fail_input("lesson ", options.lesson, " has no gaps: there is nothing to grade");
  std::vector<std::string> kernels;
  for (const std::string& path : source_files(manifest))
    if (path.starts_with("cuda/")) kernels.push_back(read_file(manifest.root / path, 64 << 20));
  parts_->reserved = reserved_names(kernels);
  fs::create_directories(options.work);
  const fs::path lock = options.work / "lock";
  parts_->lock = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (parts_->lock < 0) fail_file("cannot make", lock, errno);
  if (flock(parts_->lock, LOCK_EX | LOCK_NB) != 0)
    fail_run("another grading works in ", options.work.string(), "; wait until it has ended");
}

Grader::~Grader() = default;

Grade Grader::grade(const fs::path& path) {
  const Manifest& manifest = parts_->manifest;
  const GradeOptions& options = parts_->options;
  const Upload upload = read_upload(manifest, parts_->gaps, path, options.lesson);
  Grade grade;
  grade.student = upload.student, grade.id = upload.id, grade.tree = printable(upload.tree);
  grade.lesson = upload.lesson, grade.problem = upload.problem, grade.time = now();
  if (!grade.problem.empty()) return grade;
  try {
    const std::vector<Gap> gaps = gaps_of_lesson(manifest, grade.lesson);
    Written accepted;
    for (const Gap& gap : gaps) {
      GapGrade& result = grade.gaps.emplace_back();
      result.gap = gap.name, result.of = gap.points;
      if (const auto missing = upload.missing.find(gap.file); missing != upload.missing.end()) {
        result.result = printable(missing->second);
        continue;
      }
      const GapText written = written_in(upload.files.at(gap.file), gap);
      if (!written.problem.empty()) {
        result.result = written.problem;
      } else if (written.empty) {
        result.result = "empty";
      } else {
        result.code = tokens(written.text);
        result.unusual = unusual(written.text);
        if (result.code == tokens(code_text(gap))) result.same_as.push_back("the solution");
        if (const std::string why = refusal(written, parts_->reserved); !why.empty())
          result.result = "is not taken: " + printable(why);
        else
          accepted[gap.name] = written;
      }
    }
    if (accepted.empty()) return grade;
    auto bench = parts_->benches.find(grade.lesson);
    if (bench == parts_->benches.end())
      bench = parts_->benches
                  .emplace(std::piecewise_construct, std::forward_as_tuple(grade.lesson),
                           std::forward_as_tuple(manifest, grade.lesson, options))
                  .first;
    // Our own build is not the submission's time.
    const auto begin = Clock::now();
    const auto left = [&] {
      const auto used = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - begin);
      return options.seconds - int(used.count());
    };
    const bool all_pass =
        accepted.size() == gaps.size() &&
        bench->second.test(gaps, accepted, upload.files, left()).result == "passes";
    for (GapGrade& result : grade.gaps) {
      const auto written = accepted.find(result.gap);
      if (written == accepted.end()) continue;
      if (all_pass) {
        result.result = "passes";
      } else if (left() <= 0) {
        result.result = str("is not tested: the ", options.seconds,
                            " s for a submission are used up (--total)");
      } else {
        const Verdict verdict = bench->second.test(gaps, {*written}, upload.files, left());
        result.result = verdict.result, result.feedback = verdict.feedback;
      }
      if (result.result == "passes") result.points = result.of;
    }
  } catch (const std::exception& error) {
    grade.gaps.clear();
    grade.problem = printable(error.what());
  }
  return grade;
}

}  // namespace focus::kit
