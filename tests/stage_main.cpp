// The entry point of the lessons' stage tests. Its report is made to learn from: what came, what
// was wanted, which gap is still empty, which known mistake looks alike, and what to do next.
//
// Known mistakes are those tagged in the sources. lessons/NN-*/mistakes.tsv holds, for each, the
// marks (hashes) of the failures it causes: NAME<TAB>WORDS<TAB>MARKS. With the environment variable
// FOCUS_MARKS=FILE the marks of this run are written there, which is how that file is made.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
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

// Numbers to two digits, so that another processor's rounding leaves the text as it is.
std::string coarse(const std::string& text) {
  std::string result;
  for (const char* at = text.c_str(); *at;) {
    char* end = nullptr;
    const bool starts = std::isdigit(static_cast<unsigned char>(*at)) || *at == '-' || *at == '.';
    const double x = starts ? std::strtod(at, &end) : 0;
    if (starts && end != at) {
      char number[32];
      std::snprintf(number, sizeof number, "%.2g", x);
      result += number;
      at = end;
    } else {
      result += *at++;
    }
  }
  return result;
}

std::string mark_of(const std::string& test, const std::string& message) {
  // What stands in brackets at the end is the size of an error, which says little.
  const size_t size = std::min(message.find(" (err "), message.find(" (differs "));
  const std::string text = test + "|" + coarse(message.substr(0, size));
  uint32_t hash = 2166136261u;  // FNV-1a
  for (unsigned char c : text) hash = (hash ^ c) * 16777619u;
  char hex[9];
  std::snprintf(hex, sizeof hex, "%08x", hash);
  return hex;
}

using Marks = std::set<std::string>;

double alikeness(const Marks& a, const Marks& b) {
  size_t common = 0;
  for (const std::string& mark : a) common += b.count(mark);
  return a.empty() ? 0 : double(common) / double(a.size() + b.size() - common);
}

// The words of the known mistakes whose failures look most like these; at least half of the marks
// must agree.
std::vector<std::string> nearest_mistakes(const Marks& marks) {
  std::vector<std::string> best;
  double most = 0.5;
  for (const auto& entry : std::filesystem::directory_iterator("lessons")) {
    if (!entry.path().filename().string().starts_with(lesson + "-")) continue;
    std::ifstream file(entry.path() / "mistakes.tsv");
    for (std::string line; std::getline(file, line);) {
      std::istringstream fields(line);
      std::string name, words, mark;
      std::getline(fields, name, '\t');
      std::getline(fields, words, '\t');
      Marks known;
      while (fields >> mark) known.insert(mark);
      const double alike = alikeness(marks, known);
      if (alike > most) best.clear(), most = alike;
      if (alike >= most && alike > 0.5) best.push_back(words);
    }
  }
  return best;
}

struct StageReporter : doctest::IReporter {
  static constexpr int shown_a_test = 3;

  std::ostream& out;
  const doctest::TestCaseData* test = nullptr;
  int failures = 0;                 // of this test
  bool in_a_gap = false;            // this test met an empty gap
  std::map<std::string, int> gaps;  // message of an empty gap → tests that met it
  Marks marks;

  explicit StageReporter(const doctest::ContextOptions& options) : out(*options.cout) {}

  void failed(const std::string& message, const char* file, int line) {
    const std::string name = test ? test->m_name : "?";
    if (message.find(": the gap '") != std::string::npos) {
      if (!in_a_gap) ++gaps[message];
      in_a_gap = true;
    }
    if (in_a_gap) return;  // what fails after an empty gap in the same test fails because of it
    std::string notes;
    for (int i = 0; i < doctest::IReporter::get_num_active_contexts(); ++i) {
      std::ostringstream note;
      doctest::IReporter::get_active_contexts()[i]->stringify(&note);
      notes += note.str() + "\n";
    }
    if (marks.size() < 40) marks.insert(mark_of(name, message + "\n" + notes));
    if (failures == 0) out << "  FAIL  " << name << "\n";
    if (failures++ < shown_a_test) {
      print_lines(message, "        ");
      print_lines(notes, "        note: ");
      out << "        at " << file << ":" << line << "\n";
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
    // CHECK(difference(…) == ""): the text itself says what is wrong.
    for (const char* end : {" ==  ", " == "})
      if (message.ends_with(end)) message.erase(message.size() - std::string(end).size());
    const bool plain = message.find("got") != std::string::npos || a.m_threw;
    if (!plain) message = std::string(a.m_expr) + "  with  " + message;
    failed(message, a.m_file, a.m_line);
  }
  void log_message(const doctest::MessageData& m) override {
    if (m.m_severity != doctest::assertType::is_warn)
      failed(m.m_string.c_str(), m.m_file, m.m_line);
  }
  void test_case_exception(const doctest::TestCaseException& e) override {
    failed(e.error_string.c_str(), test->m_file.c_str(), int(test->m_line));
  }
  void test_case_start(const doctest::TestCaseData& data) override {
    test = &data;
    failures = 0, in_a_gap = false;
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {
    if (failures > shown_a_test)
      out << "        and " << failures - shown_a_test << " more like these\n";
  }
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& run) override {
    for (const auto& [message, tests] : gaps)
      out << "  EMPTY " << message << "\n        " << tests << " test" << (tests == 1 ? "" : "s")
          << " stopped there\n";
    if (run.numTestCasesFailed > 0) {
      std::vector<std::string> known = nearest_mistakes(marks);
      for (size_t i = 0; i < known.size() && i < 3; ++i)
        out << (i == 0 ? "  This looks like a known mistake: " : "  or: ") << known[i] << ".\n";
      out << "  next: make hint-" << lesson << "\n";
    }
    if (const char* path = std::getenv("FOCUS_MARKS")) {
      std::ofstream file(path);
      for (const std::string& mark : marks) file << mark << "\n";
    }
    const int passed = int(run.numTestCasesPassingFilters - run.numTestCasesFailed);
    out << "[doctest] test cases: " << run.numTestCasesPassingFilters << " | " << passed
        << " passed | " << run.numTestCasesFailed << " failed | 0 skipped\n";
  }
  void report_query(const doctest::QueryData&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

DOCTEST_REGISTER_REPORTER("stage", 1, StageReporter);

}  // namespace

int main(int argc, char** argv) {
  const std::string program = std::filesystem::path(argv[0]).filename().string();
  lesson = program.substr(program.rfind('-') + 1);  // stage-05
  doctest::Context context;
  context.setOption("reporters", "stage");
  context.applyCommandLine(argc, argv);
  return context.run();
}
