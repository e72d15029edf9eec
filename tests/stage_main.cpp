// The entry point of the lessons' stage tests. Its report is made to learn from: what came, what
// was wanted, which gap is still empty, which known mistake looks alike, and what to do next.
//
// A known mistake is recognised by the test cases that it fails. lessons/NN-*/mistakes.tsv, written
// by tests/check_mistakes.sh, has them: GAP<TAB>MISTAKE<TAB>WORDS<TAB>TEST CASE<TAB>TEST CASE… With
// the environment variable FOCUS_FAILED=FILE the failing test cases of this run are written there.
// Where no mistake is recognised, the gap with the mistake that is most alike is the likely one.
//
// A test case that has run for 60 seconds (FOCUS_SECONDS) ends the program, with the same report;
// so does one that loses the GPU (make gpu-NN), and one that calls exit(). Memory is limited, so
// that a list that grows without end fails its test and not the machine.
//
// With FOCUS_VERDICT=FD the program reads a secret from that file descriptor at its start, and at
// the end writes there the secret, the numbers of test cases and of failed ones, and their names:
// the grader believes only this. It has a limit of its own.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::string lesson;  // "05"

int verdict_to = -1;
char secret[32];

using Names = std::set<std::string>;

struct Mistake {
  std::string gap, words;
  Names cases;
};

std::vector<Mistake> known_mistakes() {
  std::vector<Mistake> all;
  for (const auto& entry : std::filesystem::directory_iterator("lessons")) {
    if (!entry.path().filename().string().starts_with(lesson + "-")) continue;
    std::ifstream file(entry.path() / "mistakes.tsv");
    for (std::string line, field; std::getline(file, line);) {
      std::istringstream fields(line);
      Mistake mistake;
      std::getline(fields, mistake.gap, '\t');
      std::getline(fields, field, '\t');  // its name
      std::getline(fields, mistake.words, '\t');
      while (std::getline(fields, field, '\t')) mistake.cases.insert(field);
      all.push_back(mistake);
    }
  }
  return all;
}

// The known mistakes that fail the test cases `failed`. Those in `stopped`, which ended in an empty
// gap, may be among a mistake's or not; it cannot be in an empty gap itself.
std::vector<Mistake> mistakes_like(const Names& failed, const Names& stopped, const Names& empty) {
  std::vector<Mistake> alike;
  for (Mistake& mistake : known_mistakes()) {
    for (const std::string& name : stopped) mistake.cases.erase(name);
    if (!failed.empty() && mistake.cases == failed && !empty.count(mistake.gap))
      alike.push_back(mistake);
  }
  return alike;
}

// The gap with the known mistake that is most like `failed` among the test cases that ran: |both| /
// |either|; "" if none is.
std::string likely_gap(const Names& failed, const Names& ran) {
  std::string gap;
  double best = 0;
  for (const Mistake& mistake : known_mistakes()) {
    double both = 0, fails = 0;
    for (const std::string& name : mistake.cases)
      both += double(failed.count(name)), fails += double(ran.count(name));
    const double alike = both / (fails + double(failed.size()) - both);
    if (alike > best) best = alike, gap = mistake.gap;
  }
  return gap;
}

struct StageReporter : doctest::IReporter {
  static constexpr int shown_a_test = 3;

  std::ostream& out;
  const doctest::TestCaseData* test = nullptr;
  int failures = 0;                           // of this test
  bool in_a_gap = false;                      // this test met an empty gap
  std::map<std::string, int> gaps;            // message of an empty gap → tests that met it
  std::string next_gap;                       // the first of them
  Names all_failed, all_stopped, empty_gaps;  // stopped: by an empty gap
  Names ran;
  int ended = 0;      // test cases
  bool whole = true;  // all of them run

  explicit StageReporter(const doctest::ContextOptions& options) : out(*options.cout) {}

  void failed(const std::string& message, const char* file, int line) {
    const std::string name = test ? test->m_name : "?";
    if (message.find(": the gap '") != std::string::npos) {
      if (!in_a_gap) ++gaps[message];
      in_a_gap = true;
      const size_t name_at = message.find('\'') + 1;
      const std::string gap = message.substr(name_at, message.find('\'', name_at) - name_at);
      empty_gaps.insert(gap);
      if (next_gap.empty()) next_gap = gap;
    }
    // What fails after an empty gap in the same test fails because of it.
    if (in_a_gap) {
      all_stopped.insert(name);
      all_failed.erase(name);
      return;
    }
    all_failed.insert(name);
    std::string notes;
    for (int i = 0; i < doctest::IReporter::get_num_active_contexts(); ++i) {
      std::ostringstream note;
      doctest::IReporter::get_active_contexts()[i]->stringify(&note);
      notes += note.str() + "\n";
    }
    if (failures == 0) out << "  FAIL  " << name << "\n";
    if (failures++ < shown_a_test) {
      print_lines(message, "        ");
      print_lines(notes, "        note: ");
      out << "        at " << file << ":" << line << "\n";
    }
    if (message.find("CUDA: ") != std::string::npos && verdict_to < 0) {
      out << "        CUDA refuses every later call: the tests after it were not run. If a kernel\n"
             "        failed, `make test-"
          << lesson << "` finds its line, block and thread on the CPU\n";
      whole = false;
      end_here();
    }
  }

  void print_lines(const std::string& text, const char* before) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) out << before << line << "\n";
  }

  void log_assert(const doctest::AssertData& a) override {
    if (!a.m_failed) return;
    std::string message = a.m_decomp.c_str();
    if (a.m_threw) message = a.m_exception.c_str();
    if (message.starts_with("\"") && message.ends_with("\"") && message.size() > 1)
      message = message.substr(1, message.size() - 2);
    // doctest prints neither what a container holds nor what find() gives where nothing is.
    if (message.find("{?}") != std::string::npos ||
        message.find(std::to_string(std::string::npos)) != std::string::npos)
      message = "this does not hold";
    // CHECK(difference(…) == ""): the text itself says what is wrong.
    for (const char* end : {" ==  ", " == "})
      if (message.ends_with(end)) message.erase(message.size() - std::string(end).size());
    const bool plain = message.find("got") != std::string::npos || a.m_threw;
    if (!plain) message = std::string(a.m_expr) + ":  " + message;
    failed(message, a.m_file, a.m_line);
  }
  void log_message(const doctest::MessageData& m) override {
    if (m.m_severity != doctest::assertType::is_warn)
      failed(m.m_string.c_str(), m.m_file, m.m_line);
  }
  void test_case_exception(const doctest::TestCaseException& e) override {
    if (!e.is_crash) return failed(e.error_string.c_str(), test->m_file.c_str(), int(test->m_line));
    // At once: what follows asks for memory, which may be what was destroyed.
    out << "  CRASH " << test->m_name << "\n        " << e.error_string << std::endl;
    all_failed.insert(test->m_name);
  }
  void test_case_start(const doctest::TestCaseData& data) override {
    test = &data;
    ran.insert(data.m_name);
    failures = 0, in_a_gap = false;
    begin_limit();
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {
    alarm(0);
    ++ended;
    if (failures > shown_a_test)
      out << "        and " << failures - shown_a_test << " more like these\n";
  }
  void test_run_start() override {
    running = this;
    std::atexit([] {
      if (!running || verdict_to >= 0) return;
      running->out << "  EXIT  " << running->test->m_name << "\n        exit() was called\n";
      running->all_failed.insert(running->test->m_name);
      running->end_here();
    });
  }
  void test_run_end(const doctest::TestRunStats& run) override {
    alarm(0);
    running = nullptr;
    report(int(run.numTestCasesPassingFilters), int(run.numTestCasesFailed));
  }

  // The test case that is running takes too long. It may be stopped anywhere, even while it asks
  // for memory: what is printed here is as far as it gets.
  [[noreturn]] void stop(int seconds) {
    out << "  ENDLESS " << test->m_name << "\n        not at its end after " << seconds
        << " s; the tests after it were not run" << std::endl;
    all_failed.insert(test->m_name);
    end_here();
  }
  [[noreturn]] void end_here() {
    const int failed_cases = int(all_failed.size() + all_stopped.size());
    report(std::max(ended + 1, failed_cases), failed_cases);
    _exit(1);
  }

  void report(int test_cases, int failed_cases) {
    for (const auto& [message, tests] : gaps)
      out << "  EMPTY " << message << "\n        " << tests << " test" << (tests == 1 ? "" : "s")
          << " stopped there\n";
    if (failed_cases > 0) {
      std::vector<Mistake> alike;
      if (whole) alike = mistakes_like(all_failed, all_stopped, empty_gaps);
      if (!alike.empty())
        out << "  Known mistake" << (alike.size() == 1 ? " that fails" : "s that fail")
            << " the same tests:\n";
      for (const Mistake& mistake : alike)
        out << "    in " << mistake.gap << ": " << mistake.words << "\n";
      if (next_gap.empty()) next_gap = alike.empty() ? likely_gap(all_failed, ran) : alike[0].gap;
      out << "  next: make hint-" << lesson << (next_gap.empty() ? "" : " GAP=") << next_gap
          << "\n";
    }
    if (const char* path = std::getenv("FOCUS_FAILED")) {
      std::ofstream file(path);
      for (const std::string& name : all_failed) file << name << "\n";
    }
    if (verdict_to >= 0) {
      std::ostringstream verdict;
      verdict << std::string(secret, sizeof secret) << " " << test_cases << " " << failed_cases
              << "\n";
      for (const std::string& name : all_failed) verdict << name << "\n";
      for (const std::string& name : all_stopped) verdict << name << "\n";
      const std::string text = verdict.str();
      if (write(verdict_to, text.data(), text.size()) != ssize_t(text.size())) std::abort();
    }
    out << "[doctest] test cases: " << test_cases << " | " << test_cases - failed_cases
        << " passed | " << failed_cases << " failed | 0 skipped\n"
        << std::flush;  // after a crash nobody else does
  }
  // The limit is one of the processor's time; a test that waits without end uses none, and is
  // stopped after ten times as much of the clock's.
  static inline StageReporter* running = nullptr;
  static inline double begin_seconds = 0;
  static inline int limit = 60, waited = 0;

  static double processor_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }
  void begin_limit() {
    if (verdict_to >= 0) return;
    if (const char* seconds = std::getenv("FOCUS_SECONDS")) limit = std::max(1, std::atoi(seconds));
    begin_seconds = processor_seconds(), waited = 0;
    signal(SIGALRM, [](int) {
      waited += limit;
      if (processor_seconds() - begin_seconds > 0.7 * limit || waited >= 10 * limit)
        running->stop(waited);
      alarm(unsigned(limit));
    });
    alarm(unsigned(limit));
  }

  void report_query(const doctest::QueryData&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

DOCTEST_REGISTER_REPORTER("stage", 1, StageReporter);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool memory_is_limited = false;  // sanitizers and CUDA reserve much that they never use
#elif defined(__has_feature)
constexpr bool memory_is_limited =
    !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool memory_is_limited = true;
#endif

}  // namespace

int main(int argc, char** argv) {
  const std::string program = std::filesystem::path(argv[0]).filename().string();
  lesson = program.substr(program.rfind('-') + 1);  // stage-05
  const rlimit four_gb{rlim_t{4} << 30, rlim_t{4} << 30};
  if (memory_is_limited && program.starts_with("stage-")) setrlimit(RLIMIT_AS, &four_gb);
  if (const char* fd = std::getenv("FOCUS_VERDICT")) {
    verdict_to = std::atoi(fd);
    if (read(verdict_to, secret, sizeof secret) != ssize_t(sizeof secret)) return 2;
  }
  doctest::Context context;
  context.setOption("reporters", "stage");
  context.applyCommandLine(argc, argv);
  return context.run();
}
