#include "study/rule.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "study/summary.h"

namespace focus {

namespace {

std::string two_digits(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

// One of the two sides: how many of its seeds arrived, and how long it had.
struct Side {
  std::string name;
  double median = 0;
  int seeds = 0, arrived = 0;
  int epochs = 0;

  explicit Side(const Outcomes& o)
      : name(o.mechanism),
        median(focus::median(o.epochs)),
        seeds(int(o.seeds.size())),
        epochs(o.longest) {
    for (const double e : o.epochs) arrived += std::isfinite(e);
  }
  std::string words() const {
    if (std::isfinite(median)) return str(name, ": median ", epochs_text(median), " epochs");
    if (arrived == 0) return str(name, " did not get there within ", epochs, " epochs");
    return str(name, " got there within ", epochs, " epochs with ", arrived, " of ", seeds,
               " seeds only");
  }
};

std::string epochs_words(const Side& variant, const Side& baseline, const Estimate& speedup) {
  if (!std::isfinite(variant.median) || !std::isfinite(baseline.median))
    return str(variant.words(), ", ", baseline.words());
  return str("medians ", epochs_text(variant.median), " against ", epochs_text(baseline.median),
             " epochs, ", two_digits(speedup.value), " times fewer (",
             interval_name(size_t(variant.seeds)), ": ", interval_text(speedup), ")");
}

}  // namespace

Judgement judge_epochs(const StudiedVariant& variant, const StudiedVariant& baseline,
                       double share) {
  return judge_epochs(outcomes_of(variant), outcomes_of(baseline), share);
}

Judgement judge_epochs(const Outcomes& variant, const Outcomes& baseline, double share) {
  const Side a(variant), b(baseline);
  const Comparison c = compare(variant, baseline).value();
  const bool each_faster = c.epochs.less == a.seeds;
  Judgement j;
  j.reproduced = each_faster && std::isfinite(a.median) && a.median <= share * b.median;
  j.words = str(j.reproduced ? "reproduced" : "NOT reproduced", "; ", epochs_words(a, b, c.speedup),
                "; faster in ", c.epochs.less, " of ", a.seeds,
                " seeds (sign test p = ", two_digits(c.epochs.p), ")");
  return j;
}

Judgements judge_each_setting(const StudyResults& results, double share) {
  Judgements all;
  for (const std::string& rest : results.rests()) {
    const Judgement j =
        judge_epochs(results.variant("topk(5) " + rest), results.variant("full " + rest), share);
    all.reproduced += j.reproduced;
    all.words += str(all.words.empty() ? "" : ". ", rest, ": ", j.words);
  }
  return all;
}

}  // namespace focus
