// The loss around trained weights θ: on the plane through θ that two directions span (paper,
// section on the loss surface, Figures 5 and 23-27), and how steep it is there.
//
//   L(x, y) = mean loss at θ + x X + y Y, on the data's rows, without dropout
//
// The paper draws X and Y from a Gaussian and rescales each parameter tensor of them, biases and
// embedding included, to the 2-norm of that tensor in θ (after Li et al. 2018, who rescale each
// filter).
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "files/safetensors.h"
#include "train/stepper.h"

namespace focus {

// Standard normal numbers, for models of one shape the same ones: Rng(seed, Stream::analysis,
// parameter, which).
Direction draw_direction(const Model<float>& model, uint64_t seed, uint32_t which);
// Rescales each tensor to its parameter's 2-norm.
void rescale(Direction& direction, const Model<float>& model);
// Used as it stands. InputError unless it holds a finite F32 or F64 tensor of every parameter's
// name and shape, and nothing else.
Direction read_direction(const Safetensors& file, const Model<float>& model);

// ‖θ‖₂, over all tensors.
double norm_of(const Model<float>& model);

// The a-th of `grid` ≥ 2 equidistant coordinates from −range to range; both ends are exact.
double axis_coordinate(int grid, double range, int a);

struct Surface {
  int grid = 0;
  double range = 1;
  std::vector<std::optional<Evaluation>> points;  // [a * grid + b], a along X; empty: to be done

  Surface(int grid_, double range_)
      : grid(grid_), range(range_), points(size_t(grid_) * size_t(grid_)) {}
  size_t done() const;
};

// What evaluates points: steppers whose runs are points, a thread here for each stepper.
class Evaluators {
 public:
  // One point at a time on each of `threads` threads.
  static Evaluators on_cpu(const ModelSettings& model, const PaddedData& data, int threads);
  // `points` of them at a time.
  static Evaluators on_device(Device& device, const ModelSettings& model, const PaddedData& data,
                              int points, Precision precision);

  const std::vector<std::unique_ptr<Stepper>>& steppers() const { return steppers_; }
  int points_at_once() const { return points_; }

 private:
  std::deque<Workers> workers_;
  std::deque<Tape<float>> tapes_;
  std::vector<std::unique_ptr<Stepper>> steppers_;
  int points_ = 1;
};

// Fills the points that are missing. After each evaluation `after` is called, from one thread at a
// time, while the surface rests. False: `stop` was set on the way.
bool fill_surface(Surface& surface, const Model<float>& centre, const Direction& X,
                  const Direction& Y, const Evaluators& evaluators, const std::atomic<bool>& stop,
                  const std::function<void()>& after);

}  // namespace focus
