// The arguments of the fused kernels of a transformer block. All tensors are (R·M,64): M rows in
// each of R runs, whose parameters lie `stride` numbers apart.
#pragma once

#include "attention/pattern.h"
#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"
#include "tensor/precision.h"

namespace focus::gpu {

struct FusedLayer {
  const float *weight, *bias;  // (64,64), (64)
};

// stats: (R·M) mean and 1/σ of each row of the norm's input.
struct NormQkv {
  Precision precision;  // of the products
  int M;
  size_t stride;
  const float* x;
  float epsilon;
  float2* stats;
  FusedLayer layers[3];  // q, k, v
  float* y[3];           // forward writes
  const float* dy[3];    // backward reads
  float* dx;             // backward: added to, or set
  bool add_dx;
  float* parts;  // (R·tiles,layers,64·64 + 64): the layers' gradients from each tile
};

// kept: (R·M,8) bits of what dropout keeps, after W_o, after the MLP's first layer, after its
// second; nullptr without dropout.
struct OutputAndMlp {
  Precision precision;
  int M;
  size_t stride;
  const float *x, *attended;
  float epsilon;
  float2* stats;         // of the middle's norm
  FusedLayer layers[3];  // W_o, the MLP's first and second
  Activation activation;
  DropoutDraw draws[3];
  unsigned char* kept[3];  // from draw_kept()
  float scale;             // of what dropout keeps
  float* middle;           // x + dropout(W_o attended)
  float* hidden;           // dropout(W_1 norm(middle))
  float* y;                // middle + dropout(W_2 activation(hidden))
  const float* dy;
  float *dx, *d_attended;
  bool add_dx, add_attended;
  float* parts;
};

void draw_kept(const OutputAndMlp&, int runs, void* stream);
// Each `next` may be nullptr; else the kernel makes the next block's projections of what it has
// just made (next->x is not read), or comes from their backward (next->dx is not written, and dy is
// added to it).
void norm_qkv_forward(const NormQkv&, int runs, void* stream);
void norm_qkv_backward(const NormQkv&, int runs, void* stream);
void output_and_mlp_forward(const OutputAndMlp&, const NormQkv* next, int runs, void* stream);
void output_and_mlp_backward(const OutputAndMlp&, const NormQkv* next, int runs, void* stream);

// The same where the precision is not fp32, which those call then (block_…_mma.cu).
namespace tensor_cores {
int parts_for(int M);  // of each layer's gradient, from M rows; at most the others'
void norm_qkv_forward(const NormQkv&, int runs, void* stream);
void norm_qkv_backward(const NormQkv&, int runs, void* stream);
void output_and_mlp_forward(const OutputAndMlp&, const NormQkv* next, int runs, void* stream);
void output_and_mlp_backward(const OutputAndMlp&, const NormQkv* next, int runs, void* stream);
}  // namespace tensor_cores

// All blocks of a model, in evaluation, for short sequences: x (R·B,T,64) to y.
struct ShortSequences {
  int B, T, blocks, k;  // k: keys of a query, 0 for all
  float sign;           // 1: those with the largest scores; -1: with the smallest
  float scale;          // of the scores in the softmax
  Activation activation;
  float first_epsilon, epsilon;
  size_t stride;
  const float* parameters;  // the first run's: each block's q, k, v, W_o and the MLP's two layers
  const float* x;
  float* y;
};
bool fits_short_sequences(Precision, Pattern, bool causal, int T);
void short_sequences(const ShortSequences&, Precision, int runs, void* stream);

// Of shared memory, for a block of the kernel that needs most.
size_t block_shared_bytes();

// The numbers in the parts of so many layers' gradients.
size_t part_floats_of(int M, int layers, int runs);

// The layers' gradients += their parts, in the tiles' order.
struct LayerGradients {
  int layers;
  float *weight[6], *bias[6];
};
void sum_parts(const LayerGradients&, Precision, const float* parts, int M, size_t stride, int runs,
               void* stream);

}  // namespace focus::gpu
