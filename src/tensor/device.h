// What a tape needs of another processor than the CPU: memory, and a kernel for each operation.
//
// The operations in src/ops compute on the CPU. When a tape has a device, the numbers of its
// tensors are in that device's memory, and each operation, after checking its shapes, hands the
// rest to the member of the same name here, which computes the same and records the backward on the
// same tape. cuda/ops implements it; without that folder there is no device, and all of this
// compiles to nothing.
//
// Several runs (seeds) go through one pass together: every tensor holds R parts of equal size along
// its first dimension, one for each run, and run r uses parameters that lie r · stride numbers
// after those of run 0. So ten small models are one batch that is ten times as large.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace focus {

template <class T>
class Tape;
struct AttentionSettings;
struct ModelSettings;
class StepKernel;
enum class Activation;
enum class OptimizerKind;

// Where an arena's memory comes from.
struct MemorySource {
  void* (*allocate)(size_t bytes);  // throws when there is none left
  void (*release)(void*) noexcept;
  void (*fill)(void* memory, int byte, size_t bytes);
};

// What a training step tells the optimiser. All arrays are in device memory.
struct DeviceUpdate {
  bool adam = false;
  double clip = 0;
  float* loss = nullptr;   // (R): a loss or gradient that is not finite stops that run's updates
  float* value = nullptr;  // (R,stride) parameters
  float* gradient = nullptr;
  float *m = nullptr, *v = nullptr;  // Adam's moments, or nullptr
  float* rate = nullptr;             // (R) learning rates
  size_t parameters = 0;             // of one run; the rest of its stride is padding
  // (R,stride) Parameter::rate_factor for each number, or nullptr: all 1
  const float* rate_factor = nullptr;
};

// The first step of a run whose loss or gradient was not finite.
struct BadStep {
  int step = -1;  // in the epoch, from 0; -1: none
  float loss = 0, norm = 0;
};

// A linear layer's parameters.
template <class T>
struct Layer {
  Tensor<T> weight, bias;
};

template <class T>
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;      // as of --device: "cuda"
  virtual std::string hardware() const = 0;  // "NVIDIA H200, CUDA 13.0"
  virtual MemorySource memory() const = 0;
  // Copies between host and device, in order with the operations; download waits.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void fill(T* x, size_t n, T value) = 0;

  // The runs of the passes that follow: their seeds, and how far apart their parameters are.
  virtual void set_runs(const std::vector<uint64_t>& seeds, size_t stride) = 0;
  virtual int runs() const = 0;

  // In which numbers the passes that follow multiply, where there are kernels for it: the fused
  // layers of a block, and full attention of long sequences. The rest is float32.
  virtual void set_precision(Precision) = 0;
  // "" if steps of such a model can be made in this precision, else why not.
  virtual std::string precision_problem(Precision, const ModelSettings&) const = 0;

  // src/ops and src/attention, one for one; the documentation is there. Tokens and labels are in
  // device memory and have been checked.
  virtual Tensor<T> linear(Tape<T>&, const Tensor<T>& x, const Tensor<T>& weight,
                           const Tensor<T>& bias) = 0;
  virtual Tensor<T> layer_norm(Tape<T>&, const Tensor<T>& x, double epsilon) = 0;
  virtual Tensor<T> activate(Tape<T>&, const Tensor<T>& x, Activation) = 0;
  // residual (may be empty) + dropout(x)
  virtual Tensor<T> masked(Tape<T>&, const Tensor<T>& residual, const Tensor<T>& x, double p) = 0;
  virtual Tensor<T> embedding(Tape<T>&, const int* tokens, int B, const Tensor<T>& table,
                              const Tensor<T>& positions) = 0;
  virtual Tensor<T> mean_tokens(Tape<T>&, const Tensor<T>& x) = 0;
  // (R): a loss for each run
  virtual Tensor<T> cross_entropy(Tape<T>&, const Tensor<T>& logits, const int* labels) = 0;
  virtual Tensor<T> attention(Tape<T>&, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                              const AttentionSettings&) = 0;

  // Most of a transformer block in two steps, for the models that a device has kernels for: the
  // same operations, in fewer passes over the memory. With attention between them they are a block
  // (src/model). From one block to the next they are one step.
  virtual bool fuses_blocks(const ModelSettings&) const = 0;
  virtual void fuse_blocks(bool wanted) = 0;  // false: operation by operation, to compare with
  // q, k, v = the three layers of norm(x)
  virtual std::array<Tensor<T>, 3> normed_projections(Tape<T>&, const Tensor<T>& x, double epsilon,
                                                      const std::array<Layer<T>, 3>&) = 0;
  // middle + dropout(W_2 activation(dropout(W_1 norm(middle)))), middle = x + dropout(W_o
  // attended); the layers: W_o, W_1, W_2
  virtual Tensor<T> second_half(Tape<T>&, const Tensor<T>& x, const Tensor<T>& attended,
                                const std::array<Layer<T>, 3>&, const ModelSettings&) = 0;
  // y = the second half, and normed_projections of y through the layers `next`, with the same ε as
  // the norm in the second half; returns y, q, k, v
  virtual std::array<Tensor<T>, 4> second_half_and_projections(Tape<T>&, const Tensor<T>& x,
                                                               const Tensor<T>& attended,
                                                               const std::array<Layer<T>, 3>&,
                                                               const std::array<Layer<T>, 3>& next,
                                                               const ModelSettings&) = 0;

  // --- training ---

  // Counters that kernels read, so that a captured step needs no host: the optimiser's and the
  // noise's steps so far, and the step in the epoch. finish_step() adds one to each. While they are
  // 0, as at first, a pass draws the noise that its tape says; else that many steps later.
  struct Counters {
    uint64_t optimizer_steps = 0;
    uint32_t noise_step = 0, step = 0;
  };
  virtual void set_counters(const Counters&) = 0;
  virtual void finish_step() = 0;

  // tokens (R,B,length) and labels (R,B) := the rows of `order` (R,rows) from step · per_step on,
  // of data[r] (rows,length) and its labels.
  struct Source {
    const int* const* tokens;  // (R) arrays in device memory
    const int* const* labels;
    const int* order;  // (R,rows), or nullptr: rows in their own order
    int rows, length, per_step;
  };
  virtual void gather(const Source&, int B, int* tokens, int* labels) = 0;
  // loss[r · rows + step · per_step + b] = cross-entropy in nats of run r's row b; right: its
  // largest logit is the label's. logits (R·B,classes).
  virtual void row_losses(const Tensor<T>& logits, const int* labels, const Source&, double* loss,
                          uint8_t* right) = 0;
  // Norm, clip, SGD or Adam for every run.
  virtual void update(Tape<T>&, const DeviceUpdate&) = 0;
  // What update() has seen since the last call; waits for the device.
  virtual std::vector<BadStep> take_bad_steps() = 0;

  // Runs `work`, which must issue the same operations on the same memory every time: a device may
  // record it the first time and repeat the record later.
  class Recorded {
   public:
    virtual ~Recorded() = default;
    virtual void run(const std::function<void()>& work) = 0;
  };
  virtual std::unique_ptr<Recorded> new_record() = 0;

  // For benchmarks.
  struct Facts {
    double multiply_adds = 0;         // of float32 that it can do in a second; 0: not known
    uint64_t operations_started = 0;  // kernels so far, one by one; a record's repeats do not count
  };
  virtual Facts facts() const = 0;

  // A kernel that makes whole steps by itself (train/step_kernel.h), for models it is made for:
  // "" if this is one, else why not.
  virtual std::string step_kernel_problem(const ModelSettings&, int batch) const = 0;
  virtual std::unique_ptr<StepKernel> step_kernel(const ModelSettings&, OptimizerKind, int batch,
                                                  int runs) = 0;
};

// Devices by name. A program that has kernels makes them known before it reads its command line.
using MakeDevice = std::unique_ptr<Device<float>> (*)();
struct KnownDevice {
  std::string name;               // "cuda"
  std::string (*problem)() = {};  // "" if it can be used, else why not
  MakeDevice make = {};
  bool compiled = true;  // false: this build has none, on whatever machine
};
std::vector<KnownDevice>& known_devices();

// InputError when the name is unknown, or the build has no such device.
void check_device_name(const std::string& name);

// nullptr for "cpu". InputError when the name is unknown, or the build or machine has none.
std::unique_ptr<Device<float>> open_device(const std::string& name);

}  // namespace focus
