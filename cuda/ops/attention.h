// Attention in a training step: which kernels make it, what the forward leaves for the backward.
#pragma once

#include <vector>

#include "attention/pattern.h"
#include "cuda/device/layout.h"
#include "cuda/device/streams.h"
#include "cuda/ops/ops.h"
#include "tensor/precision.h"

namespace focus::gpu {

struct AttentionCall;
struct Call;

// The lists of one pattern (attention/pattern.h) in device memory.
struct DeviceLists {
  DeviceArray<int> begin, keys;  // keys: empty unless positional
  int nnz = 0, longest = 0;

  DeviceLists(const AttentionSettings&, int T);
};

// One attention of B sequences of each run: q, k, v, o and their gradients are (R·B,T,H·D).
class AttentionPlan {
 public:
  AttentionPlan(const AttentionSettings&, const Runs&, int B, int T, int D, Precision,
                bool training, const DeviceLists&);

  // What the forward leaves for the backward.
  struct Kept {
    float* p = nullptr;        // (R·B·H,nnz) probabilities
    int* keys = nullptr;       // (R·B·H,nnz) if chosen
    unsigned* keep = nullptr;  // bits of dropout
    float *lse = nullptr, *scores = nullptr;
    unsigned* copies = nullptr;
    void* index = nullptr;
  };
  Kept take_kept(Layout&) const;
  // Memory for what the kernels of one call pass to each other: the next call may use the same.
  size_t scratch_bytes(const Kept&) const;

  // `random`: the noise of the random pattern; `mask`: of dropout on the weights, where it is on.
  void forward(const Kept&, const float* q, const float* k, const float* v, float* o,
               const DropoutDraw& random, const DropoutDraw& mask, Streams&, void* scratch) const;
  void backward(const Kept&, const float* q, const float* k, const float* v, const float* o,
                const float* d_o, float* dq, float* dk, float* dv, Streams&, void* scratch) const;

  bool drops() const { return training_ && settings_.dropout > 0; }

 private:
  enum class Way { rows, chosen, ladder };
  Way way() const;
  AttentionCall call_of(const Kept&, const float* q, const float* k, const float* v,
                        float* o) const;
  Call ladder_call(const AttentionCall&, const Kept&) const;
  bool run_ladder(const AttentionCall&, const Kept&, Streams&, void* scratch) const;
  size_t batch_heads() const { return size_t(runs_.count) * size_t(B_) * size_t(settings_.heads); }

  AttentionSettings settings_;
  Runs runs_;
  int B_, T_, D_;
  Precision precision_;
  bool training_;
  const DeviceLists& lists_;
};

}  // namespace focus::gpu
