// Lesson 02: does a more sensitive softmax allow larger gradients? README.md has the mathematics
// and the rule of the verdict; what is measured is in measurements.h.
#include "report/lesson.h"

#include <algorithm>
#include <iostream>

#include "files/rows.h"
#include "measurements.h"
#include "train/seeds.h"

using namespace focus;

namespace {

// Medians over all queries of max - min of the scores, before any mask.
const std::vector<double> dispersions = {0.1, 0.25, 0.5, 1,  1.5, 2,  3,  4, 5,
                                         6,   8,    10,  12, 14,  17, 20, 25};
constexpr double judged_up_to = 6;

using Curve = std::vector<double>;  // over the dispersions

struct Curves {  // one for each seed
  std::string name;
  std::vector<Curve> sensitivity, dense_gain, gradient, per_scale, largest;
};

// Medians and quartiles over the seeds, each seed's curve divided by its own unit.
Series band_of(const std::string& name, std::vector<Curve> curves, const Curve& units) {
  for (size_t seed = 0; seed < curves.size(); ++seed)
    for (double& y : curves[seed]) y /= units[seed];
  const Band band = quartile_band(curves);
  return {name, dispersions, band.middle, band.low, band.high};
}

Curve column(const std::vector<Curve>& curves, size_t i) {
  Curve values;
  for (const Curve& curve : curves) values.push_back(curve[i]);
  return values;
}

// The correlations over the judged dispersions, one for each seed.
Curve correlations(const std::vector<Curve>& x, const std::vector<Curve>& y) {
  const auto judged = std::count_if(dispersions.begin(), dispersions.end(),
                                    [](double d) { return d <= judged_up_to; });
  Curve rho;
  for (size_t seed = 0; seed < x.size(); ++seed)
    rho.push_back(rank_correlation({x[seed].begin(), x[seed].begin() + judged},
                                   {y[seed].begin(), y[seed].begin() + judged}));
  return rho;
}

std::string text_of(const Curve& values) {
  std::string text;
  for (double value : values) text += str(text.empty() ? "" : " ", std::round(100 * value) / 100);
  return text;
}

constexpr const char* columns =
    "attention,seed,score_scale,dispersion,kept_dispersion,sensitivity,dense_gain,loss,gradient,"
    "gradient_per_scale,largest_per_scale";

void add(Curves& curves, size_t seed, const Point& p) {
  for (auto* kind : {&curves.sensitivity, &curves.dense_gain, &curves.gradient, &curves.per_scale,
                     &curves.largest})
    kind->resize(seed + 1);
  curves.sensitivity[seed].push_back(p.sensitivity);
  curves.dense_gain[seed].push_back(p.dense_gain);
  curves.gradient[seed].push_back(p.gradient);
  curves.per_scale[seed].push_back(p.per_scale);
  curves.largest[seed].push_back(p.largest);
}

// false if stopped.
bool measure_all(const LessonOptions& o, const std::vector<uint64_t>& seeds, int examples,
                 const std::atomic<bool>& stop, std::vector<Curves>& all,
                 std::vector<std::string>& table) {
  std::cout << "gradient check: " << check_the_gradients() << "\n" << std::endl;
  Workers workers(o.threads);
  for (Mechanism mechanism : {full, banded, topk}) {
    Curves& curves = all.emplace_back();
    curves.name = mechanism == full ? "full" : mechanism == banded ? "banded" : "topk";
    if (mechanism != full) curves.name += str("(", k, ")");
    for (size_t s = 0; s < seeds.size(); ++s) {
      const Batch batch = even_pairs(examples, length, seeds[s]);
      const double unscaled = measure(mechanism, 1, seeds[s], batch, workers).dispersion;
      for (double dispersion : dispersions) {
        if (stop) return false;
        const double c = dispersion / unscaled;
        const Point p = measure(mechanism, c, seeds[s], batch, workers);
        add(curves, s, p);
        table.push_back(str(curves.name, ",", seeds[s], ",", c, ",", p.dispersion, ",",
                            p.kept_dispersion, ",", p.sensitivity, ",", p.dense_gain, ",", p.loss,
                            ",", p.gradient, ",", p.per_scale, ",", p.largest));
      }
    }
  }
  return true;
}

std::vector<Curves> recorded_curves(const std::filesystem::path& file,
                                    const std::vector<uint64_t>& seeds) {
  std::vector<Curves> all;
  for (const std::vector<std::string>& row : read_rows(file, columns)) {
    if (all.empty() || all.back().name != row[0]) all.push_back({row[0], {}, {}, {}, {}, {}});
    std::vector<double> cells;
    for (size_t i = 1; i < row.size(); ++i) cells.push_back(std::stod(row[i]));
    const auto seed = std::find(seeds.begin(), seeds.end(), uint64_t(cells.at(0)));
    if (seed == seeds.end()) fail_input(file.string(), ": seed ", row[1], " is not one of the run");
    add(all.back(), size_t(seed - seeds.begin()),
        {cells[2], cells[3], cells[4], cells[5], cells[6], cells[7], cells[8], cells[9]});
  }
  return all;
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-02", "does a more sensitive softmax make larger gradients?", 5, 5);
  const LessonOptions& o = out.options();
  const int examples = o.paper_scale ? 1000 : 100;
  const std::vector<uint64_t> seeds = choose_seeds(o.seeds, nullptr);
  std::string seed_text;
  for (uint64_t seed : seeds) seed_text += (seed_text.empty() ? "" : " ") + std::to_string(seed);
  out.note("seeds", seed_text);
  out.note("settings", str("even pairs, length ", length, ", ", examples,
                           " examples; 1 block, d = ", "mlp = 64, 1 head, untrained; k = ", k));
  std::vector<Curves> all;
  if (o.redraw) {
    all = recorded_curves(out.recorded() / "results.csv", seeds);
  } else {
    std::vector<std::string> table;
    if (!measure_all(o, seeds, examples, out.stop(), all, table)) return out.interrupted();
    out.table(columns, table);
  }

  // Seeds differ tenfold in their gradients: each is shown relative to its own full attention.
  const Curves& whole = all[0];
  const char* x = "dispersion of the scores";
  const Curve one(seeds.size(), 1.0), start = column(whole.per_scale, 0),
                                      at_one = column(whole.gradient, 3);
  Panel sensitivity{"1. Sensitivity of the softmax", x, "mean of max 2p(1-p)"};
  Panel per_scale{"2. Gradient per unit of scale", x, "relative to full at 0.1"};
  Panel gradient{"3. Gradient as it is", x, "relative to full at 1"};
  Panel why{"4. Why: full attention", x, "relative to 0.1"};
  for (const Curves& c : all) {
    sensitivity.series.push_back(band_of(c.name, c.sensitivity, one));
    per_scale.series.push_back(band_of(c.name, c.per_scale, start));
    gradient.series.push_back(band_of(c.name, c.gradient, at_one));
  }
  why.log_y = true;
  why.series = {band_of("sensitivity", whole.sensitivity, column(whole.sensitivity, 0)),
                band_of("gain of dense gradients", whole.dense_gain, column(whole.dense_gain, 0)),
                band_of("gradient", whole.per_scale, start),
                band_of("largest gradient", whole.largest, column(whole.largest, 0))};
  Figure figure{"Sensitivity and gradients of a one-block model",
                {sensitivity, per_scale, gradient, why}};
  figure.caption =
      str("Untrained models, scores scaled to each dispersion. Medians and quartiles "
          "of ",
          seeds.size(), " seeds.");
  out.figure(figure);

  // The rule: full attention, dispersions up to 6, every seed. The rest is told, not judged; the
  // gradient of the model's own loss is what the first rule judged.
  const Curve judged = correlations(whole.sensitivity, whole.largest),
              own_loss = correlations(whole.sensitivity, whole.per_scale);
  const bool reproduced = *std::min_element(judged.begin(), judged.end()) >= 0.9;
  std::string rest;
  for (const Curves& c : all)
    rest += str(&c == &whole ? "" : "; ", c.name, " ",
                text_of(correlations(c.sensitivity, c.gradient)));
  return out.verdict(
      reproduced,
      str("rank correlation of the softmax's sensitivity with the largest gradient that a loss can "
          "send, per unit of score scale, full attention, dispersions up to ",
          judged_up_to, ": ", text_of(judged),
          " (one number a seed; each must be at least 0.9); not judged: with the gradient of the "
          "model's own loss, which the first rule judged and found not reproduced: ",
          text_of(own_loss), "; with that gradient as it is: ", rest));
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
