// One block of the model, forward and backward, for one sequence in one block of threads.
//
//   y = x + dropout(attention(norm(x)) W_o + b_o)
//   z = y + dropout(activation(dropout(norm(y) W_1 + b_1)) W_2 + b_2)
//
// Shared memory holds five arrays of (length,64), three matrices of weights and dropout's masks.
// What the backward needs of the forward goes to device memory as it is made, and is fetched while
// other work goes on; weights are fetched likewise, one or more products ahead. Rows beyond the
// length are zero in all five arrays, from the kernel's start on.
#pragma once

#include "cuda/one_launch/activation.cuh"
#include "cuda/one_launch/attention.cuh"

namespace focus::gpu::one_launch {

template <int R>
inline constexpr int array_size = 8 * R* row_stride;
template <int R>
inline constexpr int slot_size = width* row_stride;
// The first slot also holds two matrices of scores.
template <int R>
inline constexpr int first_slot_size =
    2 * scores_size<R> > slot_size<R> ? 2 * scores_size<R> : slot_size<R>;
// The last one, a matrix of scores and what the backward of attention fetches.
template <int R>
inline constexpr int fetched_weights_size = 64 * R* R + 4 * longest;
template <int R>
inline constexpr int last_slot_size = scores_size<R> + fetched_weights_size<R> > slot_size<R>
                                          ? scores_size<R> + fetched_weights_size<R>
                                          : slot_size<R>;

// One block of threads at work on one sequence.
template <class H, int R>
struct Sequence {
  const Plan& p;
  const RunOnDevice& run;
  float *arrays, *slots;  // x and four more; three
  float* rstd;            // of the rows of a block's first norm, for its backward
  uint8_t* masks;
  const uint8_t* drawn;  // the masks in device memory, where other blocks have drawn them
  StepNoise noise;
  int place;        // in the batch
  float* gradient;  // this sequence's part; nullptr in evaluation
  FirstElement<H> at;

  __device__ float* x() const { return arrays; }
  __device__ float* array(int n) const { return arrays + (n + 1) * array_size<R>; }
  __device__ float* slot(int n) const {
    return n == 0 ? slots : slots + first_slot_size<R> + (n - 1) * slot_size<R>;
  }
  __device__ const float* weights(int block, int which) const {
    return run.parameters + p.layer(block, which);
  }
  __device__ const float* bias(int block, int which) const {
    return weights(block, which) + matrix;
  }
  __device__ void fetch(int block, int which) {
    copy_matrix<H>(slot(which % 3), weights(block, which));
  }
  __device__ const float* kept(int block, Kept what) const {
    return p.kept_of(block) + int(what) * p.kept_layout.rows;
  }
  // What of a block's forward weights_backward and both norms' backwards need.
  __device__ float* fetched_weights() const { return slot(2) + scores_size<R>; }
  __device__ void fetch_weights(int block) {
    copy_floats<H>(fetched_weights(), p.kept_of(block) + p.kept_layout.p,
                   p.kept_layout.weights_and_keys());
    copy_floats<H>(rstd, p.kept_of(block) + p.kept_layout.rstd, longest);
  }
  __device__ int attention_first_bit() const { return int(unsigned(place) * unsigned(p.nnz) % 8); }
  // The two bits of a dropout mask for the thread's columns in a row.
  __device__ unsigned bits(int use, int row) const {
    return !p.dropout.on() || !gradient
               ? 0u
               : unsigned(masks[p.mask_of(use) + row * 8 + at.column / 8]) >> at.column % 8;
  }
  __device__ Dropout dropout() const { return gradient ? p.dropout : Dropout{0, 0}; }

  // f(row, sums): for each of the thread's rows of a result, with its two numbers.
  template <class F>
  __device__ void for_rows(const Accumulators<R>& c, const F& f) const {
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (at.row + 8 * i < p.length) f(at.row + 8 * i, make_float2(c.at[i][0], c.at[i][1]));
  }
  __device__ void write(float* to, const Accumulators<R>& c) const {
    for_rows(c, [&](int row, float2 sum) { store2(to + row * row_stride + at.column, sum); });
  }
  __device__ void write_operand(float* to, const Accumulators<R>& c) const {
    for_rows(c, [&](int row, float2 sum) {
      store2(to + row * row_stride + at.column, operand<H::precision>(sum));
    });
  }
  __device__ float2 own_bias(int block, int which) const {
    return __ldcg(reinterpret_cast<const float2*>(bias(block, which) + at.column));
  }
};

// The masks of a block: most by the threads that token_products leaves idle, the MLP's last by the
// others once they have multiplied.
template <class H, int R>
__device__ __forceinline__ void draw_masks(const Sequence<H, R>& s, int block) {
  const Plan& p = s.p;
  if (!s.gradient || s.drawn) return;
  const int busy = (p.length + 7) / 8 * 32, t = this_thread<H>() - busy;
  const bool idle = t >= 0;
  const Sites sites(p);
  const int count = p.length * width;
  if (p.dropout.on()) {
#pragma unroll 1
    for (int which = idle ? 0 : 2; which < (idle ? 2 : 3); ++which)
      draw_mask(s.masks + p.mask_of(1 + 3 * block + which), s.noise, sites.of(block, which),
                unsigned(s.place * count), count, p.dropout.last_dropped,
                idle ? t : this_thread<H>(), idle ? threads - busy : busy);
  }
  if (p.attention_dropout.on() && idle)
    draw_mask(s.masks + p.attention_mask_of(block), s.noise, sites.of_attention(block),
              unsigned(s.place) * unsigned(p.nnz), p.nnz, p.attention_dropout.last_dropped, t,
              threads - busy);
}

// x → z in place. On entry x is there for all, and W_q, W_k, W_v are on their way; on leaving those
// of the next block are.
template <class H, int R>
__device__ __forceinline__ void block_forward(Sequence<H, R>& s, int block) {
  const Plan& p = s.p;
  const FirstElement<H> at = s.at;
  float *normed = s.array(0), *q = s.array(1), *k = s.array(2), *v = s.array(3);
  float* scores = s.slot(2);
  float* kept = s.gradient ? p.kept_of(block) : nullptr;
  const auto keep = [&](Kept what, int row, float2 x) {
    if (kept) store2(kept + int(what) * p.kept_layout.rows + row * width + at.column, x);
  };
  const uint8_t* attention_mask =
      kept && p.attention_dropout.on() ? s.masks + p.attention_mask_of(block) : nullptr;
  const bool last = block + 1 == p.blocks;

  layer_norm<H, R>(normed, s.x(), p.length, block == 0 ? p.first_epsilon : p.epsilon, kept,
                   kept ? kept + p.kept_layout.rstd : nullptr);
  wait_for_copies();
  {
    const float2 bias[3] = {s.own_bias(block, query), s.own_bias(block, key),
                            s.own_bias(block, value)};
    Accumulators<R> c[3] = {};
    add_abt<H>(c, normed, {s.slot(0), s.slot(1), s.slot(2)});
    float* const to[3] = {q, k, v};
#pragma unroll
    for (int n = 0; n < 3; ++n)
      s.for_rows(c[n], [&](int i, float2 sum) {
        float2 y = make_float2(sum.x + bias[n].x, sum.y + bias[n].y);
        if (n == 2) y = operand<H::precision>(y);  // queries and keys decide near-ties
        store2(to[n] + i * row_stride + at.column, y);
        keep(Kept(int(Kept::q) + n), i, y);
      });
  }
  __syncthreads();  // q, k and v are there, their weights are used
  s.fetch(block, out);
  s.fetch(block, mlp_in);
  if (p.pattern == Pattern::topk || p.pattern == Pattern::bottomk)
    token_products<ForChoice<H>, R, Numbers::any>(scores, q, k, p.length);
  else
    token_products<H, R, Numbers::any>(scores, q, k, p.length);
  draw_masks(s, block);
  __syncthreads();
  scores_to_weights<R, H>(p, scores, kept, attention_mask, s.attention_first_bit());
  __syncthreads();
  float* attended = normed;
  {
    Accumulators<R> c;
    add_ab<H, 8 * R, Numbers::any, Numbers::rounded>(c, scores, score_stride<R>, v);
    s.for_rows(c, [&](int i, float2 sum) {
      const float2 y = operand<H::precision>(sum);
      store2(attended + i * row_stride + at.column, y);
      keep(Kept::attended, i, y);
    });
  }
  wait_for_copies();  // the weights fetched above; and the scores are used
  s.fetch(block, mlp_out);
  // x += dropout(A W + b)
  const auto add_branch = [&](const float* a, const float* weights, int which) {
    const float2 bias = s.own_bias(block, which);
    Accumulators<R> c[1] = {};
    add_abt<H>(c, a, {weights});
    s.for_rows(c[0], [&](int i, float2 sum) {
      const unsigned bits = s.bits(1 + 3 * block + (which == out ? 0 : 2), i);
      float* to = s.x() + i * row_stride + at.column;
      const float2 x = load2(to);
      store2(to, make_float2(x.x + s.dropout().factor(bits) * (sum.x + bias.x),
                             x.y + s.dropout().factor(bits >> 1) * (sum.y + bias.y)));
    });
  };
  add_branch(attended, s.slot(0), out);
  __syncthreads();
  if (!last) s.fetch(block + 1, query);
  float *second = q, *hidden = k;
  layer_norm<H, R>(second, s.x(), p.length, p.epsilon,
                   kept ? kept + int(Kept::second_normed) * p.kept_layout.rows : nullptr,
                   kept ? kept + p.kept_layout.second_rstd : nullptr);
  __syncthreads();
  {
    const float2 bias = s.own_bias(block, mlp_in);
    Accumulators<R> c[1] = {};
    add_abt<H>(c, second, {s.slot(1)});
    const auto through = [&](Activation activation, int i, float2 x) {
      const unsigned bits = s.bits(2 + 3 * block, i);
      const float factor[2] = {s.dropout().factor(bits), s.dropout().factor(bits >> 1)};
      const Activated a = activate(activation, factor[0] * x.x);
      const Activated b = activate(activation, factor[1] * x.y);
      const float2 value = operand<H::precision>(make_float2(a.value, b.value));
      store2(hidden + i * row_stride + at.column, value);
      keep(Kept::hidden, i, value);
      if (activation != Activation::relu)
        keep(Kept::slope, i, make_float2(factor[0] * a.slope, factor[1] * b.slope));
    };
    const auto with_bias = [&](float2 sum) { return make_float2(sum.x + bias.x, sum.y + bias.y); };
    if (p.activation == Activation::relu) {
      s.for_rows(c[0], [&](int i, float2 sum) { through(Activation::relu, i, with_bias(sum)); });
    } else {
      s.for_rows(c[0], [&](int i, float2 sum) {
        store2(hidden + i * row_stride + at.column, with_bias(sum));
      });
      // Not unrolled: so many copies of the other activations would crowd the instruction cache.
#pragma unroll 1
      for (int i = at.row; i < p.length; i += 8)
        through(p.activation, i, load2(hidden + i * row_stride + at.column));
    }
  }
  wait_for_copies();
  if (!last) s.fetch(block + 1, key);
  add_branch(hidden, s.slot(2), mlp_out);
  __syncthreads();
  if (!last) s.fetch(block + 1, value);
}

}  // namespace focus::gpu::one_launch
