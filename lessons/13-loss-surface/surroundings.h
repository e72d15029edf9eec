// What lesson 13 measures around a trained model, and its table.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "analysis/lipschitz.h"
#include "analysis/surface.h"
#include "files/rows.h"
#include "ops/cross_entropy.h"
#include "train/cpu_stepper.h"
#include "train/run.h"

namespace focus {

// A number of measured.csv. `state` is "last" or, for the pairs of equal training loss, "matched".
struct Measured {
  std::string what, mechanism, state;
  uint64_t seed = 0;
  int direction = 0;  // counted from 1; 0: none
  double x = 0, value = 0;
};
inline constexpr const char* measured_columns = "what,mechanism,state,seed,direction,x,value";

inline std::string six_digits(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

class Measurements {
 public:
  void add(const Measured& m) {
    const std::lock_guard lock(mutex_);
    all_.push_back(m);
  }
  // In an order that does not depend on the threads.
  std::vector<std::string> rows() {
    const auto key = [](const Measured& m) {
      return std::tie(m.what, m.mechanism, m.state, m.seed, m.direction, m.x);
    };
    std::sort(all_.begin(), all_.end(),
              [&](const Measured& a, const Measured& b) { return key(a) < key(b); });
    std::vector<std::string> rows;
    for (const Measured& m : all_)
      rows.push_back(str(m.what, ",", m.mechanism, ",", m.state, ",", m.seed, ",", m.direction, ",",
                         six_digits(m.x), ",", six_digits(m.value)));
    return rows;
  }

 private:
  std::mutex mutex_;
  std::vector<Measured> all_;
};

// Of the seven cells of a row, from `first` on.
inline Measured measured_of(const std::vector<std::string>& cells, size_t first = 0) {
  const auto cell = [&](size_t i) { return cells[first + i]; };
  return {cell(0),
          cell(1),
          cell(2),
          uint64_t(parse_integer(cell(3))),
          int(parse_integer(cell(4))),
          parse_number(cell(5)),
          parse_number(cell(6))};
}

inline std::vector<Measured> read_measured(const std::filesystem::path& file) {
  std::vector<Measured> all;
  for (const auto& cells : read_rows(file, std::string(measured_columns)))
    all.push_back(measured_of(cells));
  return all;
}

// A model as it was after one of its epochs (0: not known which).
struct Snapshot {
  std::string mechanism, state;
  uint64_t seed;
  int epoch = 0;
  double train_loss = 0;
  ModelSettings settings;
  std::vector<std::vector<float>> weights;

  Snapshot(const std::string& mechanism_, const std::string& state_, Run& run, double loss)
      : mechanism(mechanism_),
        state(state_),
        seed(run.seed()),
        epoch(run.epochs_done()),
        train_loss(loss),
        settings(run.model().settings()) {
    for (const Parameter<float>& p : run.model().parameters()) weights.push_back(p.value);
  }
  Snapshot(const std::string& mechanism_, const std::string& state_, uint64_t seed_,
           const Model<float>& model)
      : mechanism(mechanism_), state(state_), seed(seed_), settings(model.settings()) {
    for (const Parameter<float>& p : model.parameters()) weights.push_back(p.value);
  }
  Model<float> model() const {
    Model<float> model(settings);
    for (size_t p = 0; p < weights.size(); ++p) model.parameters()[p].value = weights[p];
    return model;
  }
  Measured measured(const char* what, int direction, double x, double value) const {
    return {what, mechanism, state, seed, direction, x, value};
  }
};

inline PaddedData first_rows(const PaddedData& data, int rows) {
  PaddedData part = data;
  part.rows = std::min(rows, data.rows);
  part.tokens.resize(size_t(part.rows) * size_t(data.length));
  part.labels.resize(size_t(part.rows));
  return part;
}

// The gradient's 2-norm before the clip, of the mean loss of these rows, without dropout.
inline double gradient_norm_on(Model<float>& model, const PaddedData& rows) {
  Workers workers;
  Tape<float> tape(workers);
  const std::vector<int> tokens(rows.tokens.begin(), rows.tokens.end());
  compute_gradients(model, tape, tokens.data(), rows.labels.data(), rows.rows, Noise{});
  return gradient_norm(model.parameters());
}

// The loss along a line through the model, in double: a jump is none of rounding's.
class Line {
 public:
  Line(const Snapshot& at, const Direction& X, const PaddedData& rows)
      : at_(at),
        X_(X),
        rows_(rows),
        tokens_(rows.tokens.begin(), rows.tokens.end()),
        model_(at.settings) {}

  double loss(double x) {
    for (size_t p = 0; p < X_.size(); ++p)
      for (size_t i = 0; i < X_[p].size(); ++i)
        model_.parameters()[p].value[i] = double(at_.weights[p][i]) + x * X_[p][i];
    tape_.reset(false);
    const Tensor<double> logits = model_.forward(tape_, tokens_.data(), rows_.rows);
    double sum = 0;
    for (int b = 0; b < rows_.rows; ++b)
      sum += row_cross_entropy(logits.data + ptrdiff_t{b} * logits.channels(), logits.channels(),
                               rows_.labels[size_t(b)]);
    return sum / rows_.rows;
  }

 private:
  const Snapshot& at_;
  const Direction& X_;
  const PaddedData& rows_;
  std::vector<int> tokens_;
  Model<double> model_;
  Workers workers_;
  Tape<double> tape_{workers_};
};

// The steepest of the steps into which [low, high] is divided; then that step is divided into ten,
// and so on. Where the loss is continuous with a bounded slope the numbers settle; at a jump each
// is ten times the one before.
inline std::vector<std::pair<double, double>> zoom(Line& line, double low, double high, int pieces,
                                                   int levels) {
  std::vector<std::pair<double, double>> step_and_slope;
  for (int level = 0; level < levels; ++level) {
    const double step = (high - low) / pieces;
    double before = line.loss(low), steepest = -1, at = low;
    for (int i = 0; i < pieces; ++i) {
      const double after = line.loss(i + 1 == pieces ? high : low + (i + 1) * step);
      const double slope = std::abs(after - before) / step;
      if (slope > steepest) steepest = slope, at = low + i * step;
      before = after;
    }
    step_and_slope.push_back({step, steepest});
    low = at, high = at + step, pieces = 10;
  }
  return step_and_slope;
}

}  // namespace focus
