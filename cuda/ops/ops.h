// The GPU as a device of the tape (src/tensor/device.h): the same operations as src/ops, file by
// file, with kernels. Where the numbers of several runs lie in one tensor, each kernel treats a run
// as if it were alone: how work is cut into blocks depends on the sizes of one run, so a run's bits
// are the same whatever else is trained beside it.
//
// Plain C++: without nvcc the same kernels run on the CPU (simt/emulator.h).
#pragma once

#include <map>

#include "attention/pattern.h"
#include "cuda/device/device.h"
#include "ops/activation.h"
#include "tensor/tape.h"

namespace focus::gpu {

// What kernels need to draw one use of dropout: see src/ops/dropout.h.
struct DropoutDraw {
  const uint64_t* seeds = nullptr;        // (R), device memory
  uint64_t seed = 0;                      // of the tape's noise
  const uint32_t* steps_later = nullptr;  // counter, added to `step`
  uint32_t step = 0, site = 0;
  int last_dropped = -1;  // a 16-bit number above it is kept; -1: no dropout
  float scale = 1;        // of what is kept
};

// The lists of one pattern (attention/pattern.h) in device memory.
struct DeviceLists {
  DeviceArray<int> begin, keys;  // keys: empty unless positional
  int entries = 0, longest = 0;
};

class CudaOps final : public Device<float> {
 public:
  CudaOps();
  ~CudaOps() override;

  std::string name() const override { return "cuda"; }
  std::string hardware() const override;
  MemorySource memory() const override;
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  void fill(float* x, size_t n, float value) override;
  void set_runs(const std::vector<uint64_t>& seeds, size_t stride) override;
  int runs() const override { return runs_; }
  void set_precision(Precision precision) override { precision_ = precision; }
  std::string precision_problem(Precision, const ModelSettings&) const override;

  using F = Tensor<float>;
  using Tp = Tape<float>;
  F linear(Tp&, const F& x, const F& weight, const F& bias) override;
  F layer_norm(Tp&, const F& x, double epsilon) override;
  F activate(Tp&, const F& x, Activation) override;
  F masked(Tp&, const F& residual, const F& x, double p) override;
  F embedding(Tp&, const int* tokens, int B, const F& table, const F& positions) override;
  F mean_tokens(Tp&, const F& x) override;
  F cross_entropy(Tp&, const F& logits, const int* labels) override;
  F attention(Tp&, const F& q, const F& k, const F& v, const AttentionSettings&) override;

  bool fuses_blocks(const ModelSettings&) const override;
  void fuse_blocks(bool wanted) override { fuse_blocks_ = wanted; }
  std::array<F, 3> normed_projections(Tp&, const F& x, double epsilon,
                                      const std::array<Layer<float>, 3>&) override;
  F second_half(Tp&, const F& x, const F& attended, const std::array<Layer<float>, 3>&,
                const ModelSettings&) override;
  std::array<F, 4> second_half_and_projections(Tp&, const F& x, const F& attended,
                                               const std::array<Layer<float>, 3>&,
                                               const std::array<Layer<float>, 3>& next,
                                               const ModelSettings&) override;

  void set_counters(const Counters&) override;
  void finish_step() override;
  void gather(const Source&, int B, int* tokens, int* labels) override;
  void row_losses(const F& logits, const int* labels, const Source&, double* loss,
                  uint8_t* right) override;
  void update(Tp&, const DeviceUpdate&) override;
  std::vector<BadStep> take_bad_steps() override;
  std::unique_ptr<Recorded> new_record() override;
  Facts facts() const override;
  std::string step_kernel_problem(const ModelSettings&, int batch) const override;
  std::unique_ptr<StepKernel> step_kernel(const ModelSettings&, OptimizerKind, int batch,
                                          int runs) override;

  // For the operations' files.
  void* stream() const { return stream_; }
  size_t stride() const { return stride_; }
  Precision precision() const { return precision_; }
  const uint32_t* step_counter() const { return &counters_.data()->step; }
  DropoutDraw draw(const Noise& noise, uint32_t site, double p) const;
  const DeviceLists& lists(const AttentionSettings&, int length);
  // More streams: what is started there may run beside what follows on stream(), but not before
  // what is on stream() by now. wait_for() makes stream() wait for one, join() for all.
  enum class Side { forward, backward };  // attention's masks and indices; blocks' masks and sums
  void* beside(Side);
  void wait_for(Side);
  void join();
  // The same for what depends on nothing that stream() has done since the pass began (its
  // embedding, which calls beside()).
  void* ahead(Side s) { return sides_[size_t(s)].used ? sides_[size_t(s)].stream : beside(s); }
  // Memory for what the kernels of one call on stream() pass to each other; the next call's
  // overwrites it. Recorded steps rely on its place, so it must have been asked for before.
  void* scratch(size_t bytes) { return scratch_.at_least(bytes); }
  // The same for what is summed on Side::backward: stream() waits for the sums before.
  float* parts(size_t floats) {
    wait_for(Side::backward);
    return static_cast<float*>(parts_.at_least(floats * sizeof(float)));
  }

 private:
  void* stream_;
  struct SideStream {
    void *stream = nullptr, *forked = nullptr, *joined = nullptr;  // and two events
    bool used = false;                                             // since the last join()
  };
  std::array<SideStream, 2> sides_;
  struct Scratch {
    std::vector<DeviceArray<char>> memory;  // the last one is in use
    void* at_least(size_t bytes) {
      if (memory.empty() || memory.back().size() < bytes) memory.emplace_back(bytes);
      return memory.back().data();
    }
  };
  Scratch scratch_, parts_;
  bool fuse_blocks_ = true;
  int runs_ = 1;
  Precision precision_ = Precision::fp32;
  size_t stride_ = 0;
  DeviceArray<uint64_t> seeds_;
  DeviceArray<Counters> counters_;
  DeviceArray<BadStep> bad_steps_;
  std::map<std::vector<int>, DeviceLists> lists_;
};

// Makes `--device cuda` known.
void register_device();

}  // namespace focus::gpu
