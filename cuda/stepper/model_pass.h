// The model as a list of kernels: one pass over B sequences of each run, forward and backward.
//
// What a pass does to the transformer's blocks has two forms: operation by operation, for every
// model (plain_blocks.cpp), and with most of a block in two kernels, for those that fit
// (fused_blocks.cu). What stands before and after the blocks is the same (model_pass.cpp).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cuda/device/layout.h"
#include "cuda/device/streams.h"
#include "cuda/ops/attention.h"
#include "cuda/ops/ops.h"
#include "model/model.h"

namespace focus::gpu {

// Where each layer's parameters lie in a run's piece, in floats from its start.
struct ParameterPlaces {
  struct Layer {
    size_t weight, bias;
    int in, out;
  };
  struct Block {
    Layer q, k, v, o, mlp_in, mlp_out;
  };
  size_t embedding = 0;
  std::vector<Block> blocks;
  Layer classifier;

  explicit ParameterPlaces(const ModelSettings&);
};

// What all passes of a model share. Pointers are to device memory.
struct ModelOnDevice {
  ModelSettings settings;
  Runs runs;
  Precision precision = Precision::fp32;           // of products, where there are kernels for it
  bool fused = false;                              // in the blocks; fits_fused_blocks() must hold
  float *weights = nullptr, *gradients = nullptr;  // (R,stride)
  const float* positions = nullptr;                // (T,C)
  const uint64_t* seeds = nullptr;                 // (R)
  const Counters* counters = nullptr;
  const DeviceLists* lists = nullptr;
  ParameterPlaces at;

  LinearLayer layer(const ParameterPlaces::Layer& l) const {
    return {weights + l.weight, weights + l.bias};
  }
  LinearGradient gradient(const ParameterPlaces::Layer& l) const {
    return {gradients + l.weight, gradients + l.bias};
  }
  // Uses of noise take consecutive sites, as on the CPU's tape.
  DropoutDraw draw(uint32_t& next_site, double p) const {
    return dropout_draw(seeds, &counters->noise_step, next_site++, p);
  }
};

// The noise of one block, in the order in which the CPU draws it. Off: the default, no dropout.
struct BlockNoise {
  DropoutDraw random_keys, attention, out, hidden, mlp_out;

  BlockNoise(const ModelOnDevice&, bool training, uint32_t& next_site);
};

// Called when a block's queries and keys have been started, with its input (R·B,T,C) and them.
using VisitAttention =
    std::function<void(int block, const float* x, const float* q, const float* k)>;

// All blocks of the model.
class Blocks {
 public:
  virtual ~Blocks() = default;
  // x (R·B,T,C), which may be overwritten where nothing is kept for a backward. Returns the output.
  virtual float* forward(float* x, Streams&, const VisitAttention& visit) = 0;
  // dy, which is overwritten. Returns dx; the parameters' gradients are added to.
  virtual float* backward(float* dy, Streams&) = 0;
};
// scratch is shared with what else runs on the main stream, sized by the largest need.
struct Scratch {
  size_t bytes = 0;
  void* memory = nullptr;
  void need(size_t n) { bytes = n > bytes ? n : bytes; }
  float* floats() const { return static_cast<float*>(memory); }
};
std::unique_ptr<Blocks> plain_blocks(const ModelOnDevice&, int B, bool training,
                                     uint32_t& next_site, Scratch&, Layout&);
std::unique_ptr<Blocks> fused_blocks(const ModelOnDevice&, int B, bool training,
                                     uint32_t& next_site, Scratch&, Layout&);
// Are there fused kernels for blocks of this model, here?
bool fits_fused_blocks(const ModelSettings&);

class ModelPass {
 public:
  ModelPass(const ModelOnDevice&, int B, bool training, Layout&);

  // tokens (R·B,T) → what the classifier reads: (R·B,C), or (R·B,T,C) with the causal objective.
  void forward(Streams&, const VisitAttention& visit = {});
  // With labels (R·B,targets), after forward(): sets loss (R), the mean of each run's, and adds to
  // the gradients of all parameters.
  void backward(Streams&);
  // After forward(), without training: see collect_rows().
  void evaluate(Streams&, const BatchSource&, const Counters*, double* row_loss, int* row_right);
  // After forward() or backward(): all logits, in pieces, each run's rows one after the other.
  // use(first of all R·M rows, rows, their logits), before the next piece takes their memory.
  void for_logits(Streams&, const std::function<void(size_t, size_t, float*)>& use);

  int B;  // sequences of each run
  int *tokens, *labels;
  float* loss;

 private:
  // Some rows of one run, or all rows of all runs: as many as have their logits at once.
  struct Piece {
    Runs runs;
    size_t first;  // of all R·M rows
    int rows;      // of each of the runs
    size_t own;    // where the first run's parameters begin
  };
  void for_pieces(const std::function<void(const Piece&)>& use) const;
  void make_logits(const Piece&, Streams&);

  const ModelOnDevice& model_;
  bool training_;
  EmbeddingSize embedding_;
  LinearSize classifier_;  // of all rows of a run: M, what the model says about its sequences
  int piece_;              // of these have their logits at once
  DropoutDraw dropout_;    // after the embedding
  Scratch scratch_;
  float *x_, *y_, *mean_, *features_;
  float* logits_;  // of a piece, then their gradient
  double* losses_;
  uint8_t* right_;
  float *d_mean_ = nullptr, *d_y_ = nullptr;
  std::unique_ptr<Blocks> blocks_;
};

}  // namespace focus::gpu
