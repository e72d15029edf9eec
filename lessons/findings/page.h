// What the page of findings is made of: recorded runs, comparisons of them, numbers as text,
// claims.
#pragma once

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "error.h"
#include "report/statistics.h"
#include "study/paper_scale.h"
#include "study/recording.h"

namespace focus::findings {

namespace fs = std::filesystem;

inline const std::vector<std::string> tasks = {"even-pairs",
                                               "missing-duplicate",
                                               "stack-manipulation",
                                               "modular-arithmetic",
                                               "solve-equation",
                                               "cycle-navigation",
                                               "parity"};
// The rules of lessons/17-sharpness/RULES.md.
inline constexpr double alike = 1.25;
inline constexpr int of_ten = 9;

// --- the recordings ------------------------------------------------------------------------------

// All variants of several recordings, found by their settings.
class Records {
 public:
  void add(const std::string& folder);  // in lessons/; one that is not there adds nothing
  // `settings`: those that differ from the task's paper settings, but for epochs. nullptr: not run.
  const RecordedVariant* find(const std::string& task, const std::string& attention, int k = 0,
                              const TextMap& settings = {}) const;
  const std::string& sources() const { return sources_; }  // a line for each, for the page

 private:
  std::vector<Recording> recordings_;
  std::string sources_;
};

const RecordedVariant* at_scale(const Records& r, const std::string& task,
                                const std::string& attention, int k, double c);

// --- numbers as text -----------------------------------------------------------------------------

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[200];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

std::string c_text(double c);
double median_of(const RecordedVariant& v);
// "53 [36.8, 70.5]": median and quartiles of the epochs; "none" where they are infinite.
std::string epochs_of(const RecordedVariant* v);

// A against B, as the rules say it.
struct Against {
  Comparison c;
  int seeds = 0;
  bool faster = false, slower = false;

  Against(const RecordedVariant& a, const RecordedVariant& b);
  double factor() const { return c.speedup.value; }
  bool is_alike() const { return !faster && !slower && factor() <= alike && factor() >= 1 / alike; }
  std::string text() const;  // "11.8 (8.1 to 15.9), 10/0, p = 0.002"
};

std::string compared(const RecordedVariant* a, const RecordedVariant* b);

// "+48.1 [44, 50] 10/0": points of held-out accuracy that a has more than b, the median over seeds.
template <class F>
std::string gain(const RecordedVariant& a, const RecordedVariant& b, const F& of) {
  const std::vector<double> x = a.values(of), y = b.values(of);
  const Estimate e = median_gain(x, y);
  const SignTest s = sign_test(x, y);
  return format("%+.1f [%+.1f, %+.1f] %d/%d", e.value, e.low, e.high, s.greater, s.less);
}

double held_out(const RecordedVariant& v);
// Ten points above what guessing among equally frequent answers reaches (modular arithmetic's
// commonest answer has 29 %).
bool generalises(const std::string& task, const RecordedVariant& v);  // by the median seed
// Recorded at C = 1, and does not generalise.
bool by_heart(const Records& r, const std::string& task, const std::string& attention, int k);
int seeds_that_generalise(const std::string& task, const RecordedVariant& v);
// "none" if there are none.
std::string list(const std::vector<std::string>& words, const char* between = ", ");

// The verdict at the paper's scale; if there is none, the word of the lesson's.
std::string verdict_of(const fs::path& lesson, const std::string& number);

// --- the page ------------------------------------------------------------------------------------

struct Claim {
  std::string finding, claim, figures, measured;
};

struct Page {
  std::vector<Claim> claims;
  std::string body;
};

// Each adds its claims and its part of the page.
void figure_one(const Records& r, Page& page);
void figure_seven(const Records& r, Page& page);
void figure_two(const Records& r, Page& page);
void figure_three(const Records& r, Page& page);
void theory(Page& page);
void sharpness(const Records& r, const fs::path& folder, Page& page);
void controls(const Records& r, Page& page);
void more_controls(const Records& r, Page& page);
// Control 8 in words, task by task.
std::string flat_softmax(const Records& r);

// --- what was not run ----------------------------------------------------------------------------

double gpu_minutes(const RunSettings& s, size_t seeds);

// Rows of a table that nobody has run yet.
struct NotRun {
  std::string name, rows;
  int variants = 0;
  double minutes = 0;
};

std::vector<NotRun> not_run(const Records& r);
std::string in_short(const std::vector<NotRun>& groups);
std::string in_full(const std::vector<NotRun>& groups);

}  // namespace focus::findings
