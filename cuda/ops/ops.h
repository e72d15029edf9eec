// The model's operations as functions that start kernels: the same as src/ops, file by file, each a
// forward and a backward. cuda/stepper makes a training step of them.
//
// Several runs (seeds) go through one pass together: every tensor holds as many parts of equal size
// along its first dimension, one for each run, and a run's parameters lie `stride` numbers after
// those of the run before it. So ten small models are one batch that is ten times as large. Each
// kernel treats a run as if it were alone: how work is cut into blocks depends on the sizes of one
// run, so a run's bits are the same whatever else is trained beside it.
//
// Weights' gradients are added to; an input's gradient (dx) is set, or added to if `accumulate`.
// Nothing here allocates or waits, so that a CUDA graph can record it.
// Plain C++: without nvcc the same kernels run on the CPU (simt/emulator.h).
#pragma once

#include "cuda/device/device.h"
#include "ops/activation.h"

namespace focus::gpu {

struct Runs {
  int count = 1;
  size_t stride = 0;
};

// Where the first run's parameters of a layer are.
struct LinearLayer {
  const float *weight, *bias;  // (out,in), (out)
};
struct LinearGradient {
  float *weight, *bias;
};

// What kernels need to draw one use of dropout: see src/ops/dropout.h.
struct DropoutDraw {
  const uint64_t* seeds = nullptr;  // (R), device memory
  const uint32_t* step = nullptr;   // likewise: the run's steps so far
  uint32_t site = 0;
  int last_dropped = -1;  // a 16-bit number above it is kept; -1: no dropout
  float scale = 1;        // of what is kept
};
DropoutDraw dropout_draw(const uint64_t* seeds, const uint32_t* step, uint32_t site, double p);

// Rows of each run: tokens, or sequences at the end.
struct LinearSize {
  int rows, in, out;
};
void linear_forward(const Runs&, const LinearSize&, const float* x, const LinearLayer&, float* y,
                    void* stream);
size_t linear_part_floats(const Runs&, const LinearSize&);  // of `parts`, which is scratch
void linear_backward(const Runs&, const LinearSize&, const float* x, const float* weight,
                     const float* dy, float* dx, bool accumulate, const LinearGradient&,
                     float* parts, void* stream);

// x, y (rows,C), rows of all runs; rstd (rows): 1/σ, for the backward.
void layer_norm_forward(int rows, int C, double epsilon, const float* x, float* y, float* rstd,
                        void* stream);
void layer_norm_backward(int rows, int C, const float* y, const float* rstd, const float* dy,
                         float* dx, bool accumulate, void* stream);

// n numbers. The backward may set dx where dy is.
void activation_forward(Activation, size_t n, const float* x, float* y, void* stream);
void activation_backward(Activation, size_t n, const float* x, const float* dy, float* dx,
                         void* stream);

// y = base + dropout(x), without base if it is nullptr; n numbers of each run. y may be x or base.
// Its backward is itself: the mask is drawn again.
void add_dropout(const Runs&, size_t n, const float* base, const float* x, const DropoutDraw&,
                 float* y, void* stream);

// B sequences of each run; tokens (R·B,T), table (V,C), positions (T,C), y (R·B,T,C).
struct EmbeddingSize {
  int B, T, V, C;
};
void embedding_forward(const Runs&, const EmbeddingSize&, const int* tokens, const float* table,
                       const float* positions, float* y, void* stream);
size_t embedding_part_floats(const Runs&, const EmbeddingSize&);
void embedding_backward(const Runs&, const EmbeddingSize&, const int* tokens, const float* dy,
                        float* d_table, float* parts, void* stream);

// The mean over T tokens: x (B,T,C), y (B,C), B of all runs.
void mean_tokens_forward(int B, int T, int C, const float* x, float* y, void* stream);
void mean_tokens_backward(int B, int T, int C, const float* dy, float* dx, void* stream);

// logits (rows,N) become the gradient of factor · Σ loss; labels (rows), loss (rows) in nats.
void cross_entropy(size_t rows, int N, float* logits, const int* labels, float factor, double* loss,
                   void* stream);
// loss (R): the mean of each run's M rows (R,M).
void mean_loss(const Runs&, int M, const double* rows, float* loss, void* stream);

// --- training.cu: what a step does beside the model ---

// Counters that kernels read, so that a recorded step needs no host. finish_step() adds one to
// each.
struct Counters {
  uint64_t optimizer_steps = 0;
  uint32_t noise_step = 0, step = 0;  // step: in the epoch
};

// tokens (R,B,length) and labels (R,B,targets) := the rows of `order` (R,rows) from step · per_step
// on, of run r's tokens[r] and labels[r]: see tasks/padded_data.h.
struct BatchSource {
  const int* const* tokens;  // (R) arrays in device memory
  const int* const* labels;  // or nullptr: the tokens that follow
  const int* order;          // or nullptr: rows in their own order
  int rows, length, row_stride, order_stride, targets, per_step;
};
void gather_batch(const Runs&, const BatchSource&, int B, const Counters*, int* tokens, int* labels,
                  void* stream);

// loss (rows): cross-entropy in nats; right: the largest logit is the label's. logits (rows,N).
void judge_logits(size_t rows, int N, const float* logits, const int* labels, double* loss,
                  uint8_t* right, void* stream);
// Of run r's sequence b, at [r · rows + step · per_step + b]: the mean of its targets' loss
// (R·B,targets), and how many were right.
void collect_rows(const Runs&, const BatchSource&, int B, const Counters*, const double* loss,
                  const uint8_t* right, double* row_loss, int* row_right, void* stream);

void fill_numbers(float* x, size_t n, float value, void* stream);

// Run r's values (R,stride) := centre + x X + y Y, summed in double. plane (3,parameters): centre,
// X and Y; points (R,2): x and y of each run.
void place_on_plane(const Runs&, size_t parameters, const double* plane, const double* points,
                    float* values, void* stream);

// The first step of a run whose loss or gradient was not finite.
struct BadStep {
  int step = -1;  // in the epoch, from 0; -1: none
  float loss = 0, norm = 0;
};

// Norm, clip, SGD or Adam for every run. A loss or norm that is not finite leaves the run as it is.
struct Update {
  bool adam = false;
  double clip = 0;
  const float* loss = nullptr;  // (R)
  float* value = nullptr;       // (R,stride) parameters
  const float* gradient = nullptr;
  float *m = nullptr, *v = nullptr;  // Adam's moments, or nullptr
  const float* rate = nullptr;       // (R) learning rates
  size_t parameters = 0;             // of one run; the rest of its stride is padding
  // (R,stride) Parameter::rate_factor for each number, or nullptr: all 1
  const float* rate_factor = nullptr;
};
size_t update_squares(const Runs&, size_t parameters);  // numbers in `squares`, which is scratch
void update_parameters(const Runs&, const Update&, const Counters*, double* squares, BadStep* bad,
                       void* stream);

// losses[r · steps + step] = loss[r], where losses is not nullptr; then counts the step.
void finish_step(const Runs&, Counters*, const float* loss, float* losses, int steps, void* stream);

}  // namespace focus::gpu
