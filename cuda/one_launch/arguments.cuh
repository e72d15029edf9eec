// The arguments of the one launch's kernels: the model's shape, and where everything lies in device
// memory.
#pragma once

#include "cuda/one_launch/matmul.cuh"
#include "model/model.h"
#include "train/optimizer.h"

namespace focus::gpu::one_launch {

inline constexpr int longest = 48;  // tokens
inline constexpr int most_classes = 32;
inline constexpr int matrix = width * width, linear = matrix + width;  // floats of a layer
inline constexpr int chunk = 4 * threads;  // parameters that a block sums and updates at a time

// Dropout with one probability: element i of a use is kept if its 16-bit random number is above
// last_dropped. Off: scale 0.
struct Dropout {
  unsigned last_dropped;
  float scale;
  __device__ bool on() const { return scale != 0; }
  // The factor of a number from its bit in a mask.
  __device__ float factor(unsigned bit) const { return !on() ? 1.f : bit & 1 ? scale : 0.f; }
};

// The layout of what a transformer block keeps from its forward for its backward, in floats:
// eight arrays of (length,64), of which slopes are kept for some activations only; then the weights
// of attention (length,length) and three of a number or two a token, which its backward fetches.
enum class Kept { normed, q, k, v, attended, second_normed, hidden, slope };
struct KeptLayout {
  int rows;  // floats of one of the eight
  int p, rstd, second_rstd, keys, floats;
  __device__ int weights_and_keys() const { return floats - p; }  // with what lies between them
};

struct RunOnDevice {
  float *parameters, *gradients, *m, *v;
  const float* rate_factors;  // for each number, the same for each four; nullptr: all 1
  const int *tokens, *labels, *order;
  unsigned long long seed;
  unsigned steps_before;
  float lr;
  double rate_of_lr, clip;  // the rate in double, for Adam
  __device__ float rate_factor(int e) const { return rate_factors ? rate_factors[e] : 1.f; }
};

struct Plan {
  // The model.
  int length, vocabulary, classes, blocks, batch;
  Pattern pattern;
  int k, nnz;     // nnz: kept scores of a sequence
  int nnz_a_row;  // 0 for positional patterns
  Activation activation;
  OptimizerKind optimizer;
  Dropout dropout, attention_dropout;
  float first_epsilon, epsilon, score_scale;
  // (length,64); and of positional patterns where each query's entries start (length+1) and its
  // keys as bits (length).
  const float* positions;
  const int* entry_begin;
  const unsigned long long* positional_keys;

  // Offsets in a run's parameters.
  int classifier, parameters, padded, chunks;
  __device__ int layer(int block, int which) const {
    return vocabulary * width + (6 * block + which) * linear;
  }

  // Bytes of dropout's masks in shared memory: the embedding's, then three for each block, then
  // attention's.
  int attention_mask_bytes;
  __device__ int mask_of(int use) const { return use * length * (width / 8); }
  __device__ int attention_mask_of(int block) const {
    return mask_of(1 + 3 * blocks) + block * attention_mask_bytes;
  }

  // This launch. A run's sequences are dealt to its `blocks_a_run` blocks.
  int runs, blocks_a_run, rows, first_step, steps;
  int multiprocessors;  // that are this stepper's
  const RunOnDevice* run;
  KeptLayout kept_layout;
  float* kept;              // (runs, blocks_a_run, blocks) layouts
  float* partials;          // (runs, batch, padded): each sequence's part of the gradient
  double* chunk_sums;       // (runs, chunks) of squares of the gradient
  double* sequence_losses;  // (runs, batch)
  // (runs, 2, batch, mask_stride): dropout's masks of every second step. Blocks without a sequence
  // draw them in the step before.
  uint8_t* masks;
  int mask_stride;
  unsigned* arrived;   // (runs): blocks that came to the run's barriers
  float* losses;       // (runs, steps)
  double* norms;       // (runs, steps)
  int* made;           // (runs): steps made; minus that if the last of them failed
  int* gave_up;        // a block that waited too long sets it
  long long patience;  // nanoseconds
  int absent;          // for tests: this block does not come, -1: all come

  // Evaluation.
  double* row_losses;  // (runs, rows)
  int* row_right;      // (runs, rows)

  __device__ bool drawn_ahead() const { return blocks_a_run > batch; }
  __device__ uint8_t* masks_of(int run, int step, int place) const {
    return masks + ((ptrdiff_t(run) * 2 + step % 2) * batch + place) * mask_stride;
  }
  __device__ float* kept_of(int block) const {
    return kept + (ptrdiff_t(blockIdx.x) * blocks + block) * kept_layout.floats;
  }
};

// The order of a block's layers among the parameters.
enum Layer { query, key, value, out, mlp_in, mlp_out };

}  // namespace focus::gpu::one_launch
