// What makes training steps: the only thing between the trainer and a machine.
//
// A stepper holds the states of one or several runs (weights, the optimiser's moments), makes their
// steps, evaluates them and gives the states back. There are three: the tape on the CPU
// (cpu_stepper.h), the model as a list of kernels on a GPU, and the one launch there. What a run
// computes depends neither on the runs beside it nor on how its steps are divided among calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/model.h"
#include "tasks/padded_data.h"
#include "tensor/precision.h"
#include "train/optimizer.h"

namespace focus {

// Training and held-out data, padded for the model; shared by the runs that use the same.
struct RunData {
  PaddedData train, val;
  std::string tokenizer = {};  // of a text: its file (text/tokenizer.h), for checkpoints
};

// What all runs of a stepper have in common.
struct StepSettings {
  ModelSettings model = {};
  OptimizerKind optimizer = OptimizerKind::sgd;
  double clip = 0.5;  // 0: none
  int batch = 25;     // sequences in a step
  Precision precision = Precision::fp32;
  // Which of a device's forms of a step: "auto" is the fastest one for the model. The CPU has one.
  std::string form = "auto";
  double share = 1;  // of a device, for kernels that would else take as much as there is
};

// What is a run's own and does not change. The runs of a stepper have data of the same sizes.
struct StepRun {
  uint64_t seed = 0;  // of dropout and random attention
  std::shared_ptr<const RunData> data = {};
};

// What the steps of one epoch need of a run.
struct Epoch {
  std::vector<int> order = {};  // of all its training rows (see order_stride)
  double rate = 0.1;            // learning rate
  uint32_t steps_before = 0;    // that the run has made up to this epoch; dropout and Adam count on
};

// What became of the steps of one run.
struct StepsMade {
  std::vector<float> losses;  // of each step
  // The last of these steps met a NaN or an infinity, in its loss or in its gradient's norm. It
  // changed no weight, and the run made no step after it.
  bool failed = false;
  double norm = 0;  // of the last step's gradient, before the clip; only where `failed`
};

struct Evaluation {
  double loss = 0, accuracy = 0;  // mean cross-entropy in nats; percent
};
enum class Split { train, held_out };

// One step's gradients, before the clip.
struct Gradients {
  float loss = 0;
  std::vector<float>
      logits;  // as of Model::forward; empty where a stepper keeps none (the one launch)
  std::vector<std::vector<float>> parameters;  // in the order of Model::parameters()
};

// What one layer's attention compares, without dropout.
struct AttentionInputs {
  std::vector<float> x;     // (rows,T,C) what enters the layer, after its norm
  std::vector<float> q, k;  // (rows,T,H·C)
};

// A direction in the space of weights: a tensor for each parameter, in the order of
// Model::parameters().
using Direction = std::vector<std::vector<double>>;
struct PlanePoint {
  double x = 0, y = 0;
};

// InputError unless `count` rows from row `first` on are among `rows`.
void check_rows(int rows, int first, int count);
// InputError unless each run has one point.
void check_points(size_t points, size_t runs);

// Used by one thread, the one that made it, but for evaluate_snapshot().
class Stepper {
 public:
  virtual ~Stepper() = default;

  // A run's state, into the stepper and back. Runs are counted from 0; the model's gradients are
  // not part of the state, nor is the count of the optimiser's steps (Epoch has it). Each
  // parameter's factor on the rate goes in with its values.
  virtual void load(int run, const Model<float>& model, const Optimizer<float>& optimizer) = 0;
  virtual void store(int run, Model<float>& model, Optimizer<float>& optimizer) const = 0;

  // Other weights, without a way through the caller: after set_plane, move_to gives run r those of
  // centre + points[r].x X + points[r].y Y, summed in double.
  virtual void set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) = 0;
  virtual void move_to(const std::vector<PlanePoint>& points) = 0;

  // Steps number first … first+count-1 of an epoch of ⌈rows / batch⌉ steps, the last of which may
  // be smaller, for all runs: epochs[r] is run r's. Once `stop` is set, fewer: all runs that have
  // not failed have made the same number.
  virtual std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                                       const std::atomic<bool>& stop) = 0;

  // Loss and accuracy of each run on all its rows, without dropout. The predicted class is the one
  // with the largest logit, the lowest of equal ones. nullopt: `stop` was set on the way.
  std::optional<std::vector<Evaluation>> evaluate(Split split, const std::atomic<bool>& stop) {
    take_snapshot();
    return evaluate_snapshot(split, stop);
  }
  // The same in two: the states as they stand are copied; then another thread may evaluate the
  // copies while this one trains on, with a device's stepper. (The CPU's copies nothing.)
  virtual void take_snapshot() = 0;
  virtual std::optional<std::vector<Evaluation>> evaluate_snapshot(
      Split split, const std::atomic<bool>& stop) = 0;

  // What step number `step` would compute before its clip, for each run. Changes no state.
  virtual std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) = 0;

  // Of each layer, for `count` rows of a run's data from row `first` on. The one launch has none,
  // and throws InputError; every model has another form of a step.
  virtual std::vector<AttentionInputs> attention_inputs(int run, Split split, int first,
                                                        int count) = 0;
};

// A machine beside the CPU that has steppers of its own. It chooses the fastest form of a step. A
// thread uses one device at a time: it drops its steppers before it calls another one.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;      // as of --device: "cuda"
  virtual std::string hardware() const = 0;  // "NVIDIA H200, CUDA 13.0"
  // "" if it can make such steps, else why not.
  virtual std::string problem(const StepSettings& settings) const = 0;
  // How it makes such steps, and why so: one line for the user.
  virtual std::string explain(const StepSettings& settings) const = 0;
  // OutOfMemory if the runs do not fit into its memory together. It and its steppers throw
  // DeviceLost when the device has failed.
  virtual std::unique_ptr<Stepper> make_stepper(const StepSettings& settings,
                                                std::vector<StepRun> runs) = 0;

  struct Facts {
    double multiply_adds = 0;       // of float32 that it can do in a second; 0: not known
    uint64_t kernels_launched = 0;  // so far, one by one; a record's repeats do not count
    double memory = 0;              // bytes
  };
  virtual Facts facts() const = 0;
  // The kernels that `work` starts, in the order of their first starts, and how long each takes by
  // itself.
  struct KernelTime {
    std::string kernel;
    uint64_t launches = 0;
    double ms = 0;  // of all launches
  };
  virtual std::vector<KernelTime> time_kernels(const std::function<void()>& work) = 0;
};
using Devices = std::vector<std::unique_ptr<Device>>;
std::vector<Device*> pointers(const Devices& devices);
// "NVIDIA H200, CUDA 13.0", "4 × NVIDIA H200, CUDA 13.0"
std::string hardware_text(const std::vector<Device*>& devices);

// Devices by name. A program that has kernels makes them known before it reads its command line.
struct KnownDevice {
  std::string name;                                  // "cuda"
  std::string (*problem)() = {};                     // "" if it can be used, else why not
  int (*count)() = {};                               // how many there are that are alike
  std::unique_ptr<Device> (*make)(int number) = {};  // from 0
  bool compiled = true;  // false: this build has none, on whatever machine
};
std::vector<KnownDevice>& known_devices();

// InputError when the name is unknown, or the build has no such device.
void check_device_name(const std::string& name);

// All of that name, or the first `most` of them, if that is not 0; none for "cpu". InputError when
// the name is unknown, the build or machine has none, or `most` is more than there are.
Devices open_devices(const std::string& name, int most = 0);
// The first of them; nullptr for "cpu".
std::unique_ptr<Device> open_device(const std::string& name);

}  // namespace focus
