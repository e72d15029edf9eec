#include "page.h"

#include <algorithm>

#include "files/atomic_file.h"
#include "joined.h"

namespace focus::findings {

void Records::add(const std::string& folder) {
  const fs::path path = fs::path("lessons") / folder;
  if (!fs::exists(path / "seeds.csv")) return;
  const Recording& added = recordings_.emplace_back(read_recording(path));
  sources_ += str("- [", folder, "](", folder, "/seeds.csv): ", added.variants.size(),
                  " variants; ", paper_source(added), "\n");
}

const RecordedVariant* Records::find(const std::string& task, const std::string& attention, int k,
                                     const TextMap& settings) const {
  TextMap wanted = to_text(RunSettings::defaults_for(find_task(task)));
  wanted["attention"] = attention, wanted["k"] = std::to_string(k);
  for (const auto& [key, value] : settings) wanted[key] = value;
  wanted.erase("epochs");
  const RecordedVariant* longest = nullptr;
  for (const Recording& r : recordings_)
    for (const RecordedVariant& v : r.variants) {
      TextMap has = to_text(v.settings);
      has.erase("epochs");
      if (has == wanted && (!longest || v.settings.epochs > longest->settings.epochs)) longest = &v;
    }
  return longest;
}

std::string c_text(double c) {
  return c == 0.5 ? "½" : c == 0.25 ? "¼" : c == 0.125 ? "⅛" : number_text(c);
}

const RecordedVariant* at_scale(const Records& r, const std::string& task,
                                const std::string& attention, int k, double c) {
  TextMap settings;
  if (c != 1) settings["score-scale"] = number_text(c);
  return r.find(task, attention, k, settings);
}

double median_of(const RecordedVariant& v) {
  return median(v.outcomes().epochs);
}

std::string epochs_of(const RecordedVariant* v) {
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

Against::Against(const RecordedVariant& a, const RecordedVariant& b)
    : c(compare(a.outcomes(), b.outcomes()).value()), seeds(int(a.seeds.size())) {
  const double ma = median_of(a), mb = median_of(b);
  faster = 10 * c.epochs.less >= of_ten * seeds && ma < mb;
  slower = 10 * c.epochs.greater >= of_ten * seeds && ma > mb;
}

std::string Against::text() const {
  const std::string f = std::isfinite(factor()) ? format("%.2f", factor())
                        : std::isinf(factor())  ? std::string("∞")
                                                : std::string("?");
  return str(f, " (", interval_text(c.speedup), "), ", c.epochs.less, "/", c.epochs.greater,
             format(", p = %.3f", c.epochs.p));
}

std::string compared(const RecordedVariant* a, const RecordedVariant* b) {
  return a && b ? Against(*a, *b).text() : "not run";
}

double held_out(const RecordedVariant& v) {
  return median(v.values([](const SeedOutcome& s) { return s.last.val_accuracy; }));
}

namespace {

double more_than_guessed(const std::string& task) {
  return (task == "modular-arithmetic" ? 29 : 100.0 / find_task(task).classes) + 10;
}

}  // namespace

bool generalises(const std::string& task, const RecordedVariant& v) {
  return held_out(v) >= more_than_guessed(task);
}

bool by_heart(const Records& r, const std::string& task, const std::string& attention, int k) {
  const RecordedVariant* one = at_scale(r, task, attention, k, 1);
  return one && !generalises(task, *one);
}

int seeds_that_generalise(const std::string& task, const RecordedVariant& v) {
  return int(std::count_if(v.seeds.begin(), v.seeds.end(), [&](const SeedOutcome& s) {
    return s.last.val_accuracy >= more_than_guessed(task);
  }));
}

std::string list(const std::vector<std::string>& words, const char* between) {
  return words.empty() ? "none" : joined(words, between);
}

namespace {

// The text of a verdict, without what `end` begins.
std::string words_of(const fs::path& file, char end) {
  const std::string text = read_file(file, 1 << 16).substr(std::string("verdict: ").size());
  return text.substr(0, text.find(end));
}

}  // namespace

std::string verdict_of(const fs::path& lesson, const std::string& number) {
  const fs::path file = lesson / "results/paper/verdict.txt";
  if (fs::exists(file)) return words_of(file, '\n');
  return str("not run; smaller models, lesson ", number, ": ",
             words_of(lesson / "results/verdict.txt", ':'));
}

}  // namespace focus::findings
