// Lesson 02: does a more sensitive softmax make larger gradients? README.md has the mathematics and
// the rule of the verdict; what is measured is in measurements.h.
#include "report/lesson.h"

#include <algorithm>
#include <iostream>

#include "measurements.h"
#include "train/settings.h"

using namespace focus;

namespace {

// Medians over all queries of max - min of the scores, before any mask.
const std::vector<double> dispersions = {0.1, 0.25, 0.5, 1,  1.5, 2,  3,  4, 5,
                                         6,   8,    10,  12, 14,  17, 20, 25};
constexpr double judged_up_to = 6;

// Spearman's rank correlation: 1 if the two always rise together, -1 if one falls where the other
// rises. For values without ties.
double rank_correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double n = double(x.size());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double difference = 0;  // of the ranks of point i
    for (size_t j = 0; j < x.size(); ++j) difference += (x[j] < x[i]) - (y[j] < y[i]);
    sum += difference * difference;
  }
  return 1 - 6 * sum / (n * (n * n - 1));
}

struct Curves {  // one for each seed, over the dispersions
  std::string name;
  std::vector<std::vector<double>> sensitivity, gradient, per_scale;
};

Series band_of(const std::string& name, const std::vector<std::vector<double>>& curves) {
  const Band band = quartile_band(curves);
  return {name, dispersions, band.middle, band.low, band.high};
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "02", "does a more sensitive softmax make larger gradients?", 5);
  const LessonOptions& o = out.options();
  const int examples = o.paper_scale ? 1000 : 100;
  const std::vector<uint64_t> seeds = choose_seeds(o.seeds, nullptr);
  std::string seed_text;
  for (uint64_t seed : seeds) seed_text += (seed_text.empty() ? "" : " ") + std::to_string(seed);
  out.note("seeds", seed_text);
  out.note("settings", str("even pairs, length ", length, ", ", examples,
                           " examples; 1 block, d = ", "mlp = 64, 1 head, untrained; k = ", k));
  std::cout << "gradient check: " << check_the_gradients() << "\n" << std::endl;

  Workers workers(o.threads);
  std::vector<Curves> all;
  std::vector<std::string> table;
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::topk}) {
    Curves& curves = all.emplace_back();
    curves.name = name_of(pattern) + (pattern == Pattern::full ? "" : str("(", k, ")"));
    for (uint64_t seed : seeds) {
      const Batch batch = even_pairs(examples, length, seed);
      const double unscaled = measure(pattern, 1, seed, batch, workers).dispersion;
      auto& sensitivity = curves.sensitivity.emplace_back();
      auto& gradient = curves.gradient.emplace_back();
      auto& per_scale = curves.per_scale.emplace_back();
      for (double dispersion : dispersions) {
        if (out.stop()) return out.interrupted();
        const double c = dispersion / unscaled;
        const Point p = measure(pattern, c, seed, batch, workers);
        sensitivity.push_back(p.sensitivity);
        gradient.push_back(p.gradient);
        per_scale.push_back(p.per_scale);
        table.push_back(str(curves.name, ",", seed, ",", c, ",", p.dispersion, ",",
                            p.kept_dispersion, ",", p.sensitivity, ",", p.loss, ",", p.gradient,
                            ",", p.per_scale));
      }
    }
  }
  out.table(
      "attention,seed,score_scale,dispersion,kept_dispersion,sensitivity,loss,gradient,"
      "gradient_per_scale",
      table);

  const char* x = "dispersion of the scores";
  Panel sensitivity{"1. Sensitivity of the softmax", x, "mean of max 2p(1-p)"};
  Panel per_scale{"2. Gradient per unit of scale", x, "gradient / root of scale"};
  Panel together{"3. One against the other", "sensitivity", "gradient / root of scale"};
  Panel gradient{"4. Gradient as it is", x, "gradient of W_q and W_k"};
  for (const Curves& c : all) {
    sensitivity.series.push_back(band_of(c.name, c.sensitivity));
    per_scale.series.push_back(band_of(c.name, c.per_scale));
    gradient.series.push_back(band_of(c.name, c.gradient));
    together.series.push_back({c.name, sensitivity.series.back().y, per_scale.series.back().y});
  }
  Figure figure{"Sensitivity and gradients of a one-block model",
                {sensitivity, per_scale, together, gradient}};
  figure.caption =
      str("Untrained models, scores scaled to each dispersion. Medians and quartiles "
          "of ",
          seeds.size(), " seeds.");
  out.figure(figure);

  // The rule: full attention, dispersions up to 6, every seed. The others are told, not judged.
  const auto judged = size_t(std::count_if(dispersions.begin(), dispersions.end(),
                                           [](double d) { return d <= judged_up_to; }));
  std::string correlations;
  bool reproduced = true;
  for (const Curves& c : all) {
    correlations += str(correlations.empty() ? "" : "; ", c.name);
    for (size_t s = 0; s < seeds.size(); ++s) {
      const double rho =
          rank_correlation({c.sensitivity[s].begin(), c.sensitivity[s].begin() + long(judged)},
                           {c.per_scale[s].begin(), c.per_scale[s].begin() + long(judged)});
      correlations += str(" ", std::round(100 * rho) / 100);
      if (&c == &all[0] && !(rho >= 0.9)) reproduced = false;
    }
  }
  return out.verdict(reproduced,
                     str("rank correlation of sensitivity and gradient per unit of score scale, "
                         "dispersions up to ",
                         judged_up_to,
                         ", one number a seed (full must reach "
                         "0.9 in each, the others are not judged): ",
                         correlations));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
