// What the pages of FINDINGS.md share: the recordings, and how their numbers are compared and
// written.
#pragma once

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "error.h"
#include "study/paper_scale.h"

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
  void add(const std::string& folder) {
    const fs::path path = fs::path("lessons") / folder;
    if (!fs::exists(path / "seeds.csv")) return;
    const Recording& added = recordings_.emplace_back(read_recording(path));
    sources_ += str("- [", folder, "](", folder, "/seeds.csv): ", added.variants.size(),
                    " variants; ", paper_source(added), "\n");
  }
  // `settings`: those that differ from the task's paper settings, but for epochs.
  const RecordedVariant* find(const std::string& task, const std::string& attention, int k = 0,
                              const TextMap& settings = {}) const {
    TextMap wanted = to_text(RunSettings::defaults_for(find_task(task)));
    wanted["attention"] = attention, wanted["k"] = std::to_string(k);
    for (const auto& [key, value] : settings) wanted[key] = value;
    wanted.erase("epochs");
    const RecordedVariant* longest = nullptr;
    for (const Recording& r : recordings_)
      for (const RecordedVariant& v : r.variants) {
        TextMap has = to_text(v.settings);
        has.erase("epochs");
        if (has == wanted && (!longest || v.settings.epochs > longest->settings.epochs))
          longest = &v;
      }
    return longest;
  }
  const std::string& sources() const { return sources_; }

 private:
  std::vector<Recording> recordings_;
  std::string sources_;
};

inline std::string c_text(double c) {
  return c == 0.5 ? "½" : number_text(c);
}

inline const RecordedVariant* at_scale(const Records& r, const std::string& task,
                                       const std::string& attention, int k, double c) {
  TextMap settings;
  if (c != 1) settings["score-scale"] = number_text(c);
  return r.find(task, attention, k, settings);
}

// --- numbers as text -----------------------------------------------------------------------------

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[200];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

inline double median_of(const RecordedVariant& v) {
  return median(v.outcomes().epochs);
}

// "53 [36.8, 70.5]": median and quartiles of the epochs; "none" where they are infinite.
inline std::string epochs_of(const RecordedVariant* v) {
  if (!v) return "not run";
  const std::vector<double> e = v->outcomes().epochs;
  const auto round = [](double x) { return std::isfinite(x) ? format("%.4g", x) : "none"; };
  if (!std::isfinite(quantile(e, 0.25))) {
    int arrived = 0;
    for (const double x : e) arrived += std::isfinite(x);
    return arrived == 0 ? str("none of ", e.size(), " in ", v->settings.epochs)
                        : str("none (", arrived, " of ", e.size(), " seeds)");
  }
  return round(quantile(e, 0.5)) + " [" + round(quantile(e, 0.25)) + ", " +
         round(quantile(e, 0.75)) + "]";
}

// A against B, as the rules say it.
struct Against {
  Comparison c;
  int seeds = 0;
  bool faster = false, slower = false;

  Against(const RecordedVariant& a, const RecordedVariant& b)
      : c(compare(a.outcomes(), b.outcomes()).value()), seeds(int(a.seeds.size())) {
    const double ma = median_of(a), mb = median_of(b);
    faster = 10 * c.epochs.less >= of_ten * seeds && ma < mb;
    slower = 10 * c.epochs.greater >= of_ten * seeds && ma > mb;
  }
  double factor() const { return c.speedup.value; }
  bool is_alike() const { return !faster && !slower && factor() <= alike && factor() >= 1 / alike; }
  // "11.8 (8.1 to 15.9), 10/0, p = 0.002"
  std::string text() const {
    const std::string f = std::isfinite(factor()) ? format("%.2f", factor())
                          : faster                ? std::string("never against sometimes")
                                                  : std::string("?");
    return str(f, " (", interval_text(c.speedup), "), ", c.epochs.less, "/", c.epochs.greater,
               format(", p = %.3f", c.epochs.p));
  }
};

inline std::string compared(const RecordedVariant* a, const RecordedVariant* b) {
  return a && b ? Against(*a, *b).text() : "not run";
}

// "+48.1 [44, 50] 10/0": points of held-out accuracy that a has more than b, the median over seeds.
template <class F>
std::string gain(const RecordedVariant& a, const RecordedVariant& b, const F& of) {
  const std::vector<double> x = a.values(of), y = b.values(of);
  const Estimate e = median_gain(x, y);
  const SignTest s = sign_test(x, y);
  return format("%+.1f [%+.1f, %+.1f] %d/%d", e.value, e.low, e.high, s.greater, s.less);
}

inline double held_out(const RecordedVariant& v) {
  return median(v.values([](const SeedOutcome& s) { return s.last.val_accuracy; }));
}

// Ten points above what guessing among equally frequent answers reaches (modular arithmetic's
// commonest answer has 29 %).
inline bool generalises(const std::string& task, const RecordedVariant& v) {
  const double guess = task == "modular-arithmetic" ? 29 : 100.0 / find_task(task).classes;
  return held_out(v) >= guess + 10;
}

inline std::string list(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : ", ") + w;
  return text.empty() ? "none" : text;
}

// --- the page ------------------------------------------------------------------------------------

struct Claim {
  std::string finding, claim, figures, measured;
};

struct Page {
  std::vector<Claim> claims;
  std::string body;
};

// Lesson 17 (sharpness.cpp). sharpness() returns the verdict's text.
std::string sharpness(const Records& r, const fs::path& folder, Page& page);
void controls(const Records& r, Page& page);

}  // namespace focus::findings
