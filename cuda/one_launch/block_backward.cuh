// One block of the model, backward (block.cuh has the forward and what the memory holds).
#pragma once

#include "cuda/one_launch/block.cuh"
#include "cuda/one_launch/linear_backward.cuh"

namespace focus::gpu::one_launch {

// What the backward of a block needs first, as soon as the memory for it is free: s.array(0) holds
// the gradient of the MLP's output and stays.
template <class H, int R>
__device__ __forceinline__ void fetch_for_backward(Sequence<H, R>& s, int block,
                                                   bool with_weights) {
  copy_rows<H>(s.array(1), s.kept(block, Kept::hidden), s.p.length);
  copy_rows<H>(s.array(3), s.kept(block, Kept::second_normed), s.p.length);
  if (!with_weights) return;
  s.fetch(block, mlp_out), s.fetch(block, out);
}

// The activation's slopes, times dropout's factors before it: relu's are told by its values.
struct Slopes {
  const float *values, *kept;  // in shared memory; in device memory, nullptr for relu
  float factor;                // dropout's, of numbers that are kept
  __device__ float of(float value) const { return value > 0 ? factor : 0.f; }
  __device__ float2 two(int row, int column) const {
    if (kept) return load2(kept + row * width + column);
    const float2 x = load2(values + row * row_stride + column);
    return make_float2(of(x.x), of(x.y));
  }
  __device__ float4 four(int row, int column) const {
    if (kept) return load4(kept + row * width + column);
    const float4 x = load4(values + row * row_stride + column);
    return make_float4(of(x.x), of(x.y), of(x.z), of(x.w));
  }
};

// Through one linear layer: to = dY W, times `slopes` if there are some, and the gradients of
// weight and bias. `to` is none of the other matrices. OPERAND: products read it.
template <Numbers OF_X, bool OPERAND, class H, int R>
__device__ __forceinline__ void linear_backward(const Sequence<H, R>& s, float* to, int block,
                                                int which, const float* dy, const float* x,
                                                const Slopes* slopes = nullptr) {
  const float* weights = s.slot(which % 3);
  float* gradient = s.gradient + s.p.layer(block, which);
  if constexpr (H::tensor_cores) {
    float2 factor[R];
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (slopes && s.at.row + 8 * i < s.p.length)
        factor[i] = slopes->two(s.at.row + 8 * i, s.at.column);
    Accumulators<R> dx;
    add_ab<H, width, Numbers::rounded, Numbers::weights>(dx, dy, row_stride, weights);
    weight_gradients<H, 8 * R, OF_X>({gradient}, {dy}, x);
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (slopes) dx.at[i][0] *= factor[i].x, dx.at[i][1] *= factor[i].y;
    if (OPERAND)
      s.write_operand(to, dx);
    else
      s.write(to, dx);
  } else if (in_first_half<H>()) {
    const WideFirstElement<H> at;
    float4 factor[R];
    const auto load_factors = [&] {
#pragma unroll
      for (int i = 0; i < R; ++i)
        if (slopes && at.row + 8 * i < s.p.length)
          factor[i] = slopes->four(at.row + 8 * i, at.column);
    };
    WideAccumulators<R> dx;
    if (H::ahead) load_factors();
    add_ab_wide<H, width>(dx, dy, row_stride, weights);
    if (!H::ahead) load_factors();
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (slopes) {
        dx.at[i][0] *= factor[i].x, dx.at[i][1] *= factor[i].y;
        dx.at[i][2] *= factor[i].z, dx.at[i][3] *= factor[i].w;
      }
    write_wide<H>(to, dx, s.p.length);
    bias_gradient<H, 8 * R>(gradient + matrix, dy);
  } else {
    weight_gradient_wide<H, 8 * R>(gradient, dy, x);
  }
  if constexpr (H::tensor_cores) bias_gradient<H, 8 * R>(gradient + matrix, dy);
}

// The same for queries, keys and values, of one input, whose gradient goes to s.slot(key). Weights
// of keys are there, the others and the input (s.array(2)) on their way.
template <class H, int R>
__device__ __forceinline__ void inputs_backward(const Sequence<H, R>& s, int block) {
  float* const to = s.gradient + s.p.layer(block, query);
  const float *dq = s.array(0), *dk = s.array(1), *dv = s.array(3), *x = s.array(2);
  const auto bias_gradients = [&] {
    bias_gradient<H, 8 * R>(to + matrix, dq);
    bias_gradient<H, 8 * R>(to + linear + matrix, dk);
    bias_gradient<H, 8 * R>(to + 2 * linear + matrix, dv);
  };
  if constexpr (H::tensor_cores) {
    Accumulators<R> c;
    add_ab<H, width, Numbers::rounded, Numbers::weights>(c, dk, row_stride, s.slot(key));
    wait_for_copies();
    add_ab<H, width, Numbers::rounded, Numbers::weights>(c, dq, row_stride, s.slot(query));
    add_ab<H, width, Numbers::rounded, Numbers::weights>(c, dv, row_stride, s.slot(value));
    s.write(s.slot(key), c);  // whose weights are used
    weight_gradients<H, 8 * R, Numbers::any>({to, to + linear, to + 2 * linear}, {dq, dk, dv}, x);
    bias_gradients();
  } else {
    WideAccumulators<R> c;
    if (in_first_half<H>())
      add_ab_wide<H, width>(c, dk, row_stride, s.slot(key));
    else
      bias_gradients();
    wait_for_copies();
    if (in_first_half<H>()) {
      add_ab_wide<H, width>(c, dq, row_stride, s.slot(query));
      add_ab_wide<H, width>(c, dv, row_stride, s.slot(value));
      write_wide<H>(s.slot(key), c, s.p.length);
    } else {
      weight_gradient_wide<H, 8 * R>(to, dq, x);
      weight_gradient_wide<H, 8 * R>(to + linear, dk, x);
    }
    // The second half has waited for x, so the last one is everyone's.
    weight_gradient_by_all<H, 8 * R>(to + 2 * linear, dv, x);
  }
}

// On entry s.x() is the gradient of the block's output, s.array(0) that after the MLP's dropout,
// and fetch_for_backward is under way; on leaving s.x() is the gradient of the block's input,
// s.array(0) that after the dropout before it, and the next block's is under way.
template <class H, int R>
__device__ __forceinline__ void block_backward(Sequence<H, R>& s, int block) {
  const Plan& p = s.p;
  const float* weights = s.fetched_weights();

  wait_for_copies();
  s.fetch(block, mlp_in);
  // hidden = activation(…), in s.array(1)
  const Slopes slopes{s.array(1),
                      p.activation == Activation::relu ? nullptr : s.kept(block, Kept::slope),
                      p.dropout.factor(1)};
  linear_backward<Numbers::rounded, true>(s, s.array(2), block, mlp_out, s.array(0), s.array(1),
                                          &slopes);
  wait_for_copies();
  s.fetch_weights(block);
  copy_rows<H>(s.array(1), s.kept(block, Kept::attended), p.length);
  // norm(y), in s.array(3)
  linear_backward<Numbers::any, false>(s, s.array(0), block, mlp_in, s.array(2), s.array(3));
  wait_for_copies();
  layer_norm_backward<R, H>(s.x(), s.array(0), s.array(0), s.array(3),
                            weights + p.kept_layout.second_rstd - p.kept_layout.p, p.length,
                            s.masks + p.mask_of(1 + 3 * block), p.dropout);
  __syncthreads();
  s.fetch(block, key);
  copy_rows<H>(s.array(3), s.kept(block, Kept::v), p.length);
  float* d_o = s.array(2);
  linear_backward<Numbers::rounded, true>(s, d_o, block, out, s.array(0), s.array(1));
  wait_for_copies();
  copy_rows<H>(s.array(0), s.kept(block, Kept::q), p.length);
  copy_rows<H>(s.array(1), s.kept(block, Kept::k), p.length);
  float *ds = s.slot(0), *ds_transposed = ds + scores_size<R>, *weights_transposed = s.slot(2);
  token_products<H, R, Numbers::rounded>(ds, d_o, s.array(3), p.length);
  __syncthreads();
  weights_backward<R, H>(
      p, ds, ds_transposed, weights_transposed, weights,
      reinterpret_cast<const unsigned long long*>(weights + p.kept_layout.keys - p.kept_layout.p),
      p.attention_dropout.on() ? s.masks + p.attention_mask_of(block) : nullptr,
      s.attention_first_bit());
  wait_for_copies();
  // dQ = dS K, dK = dSᵀ Q, dV = Wᵀ dO; in float32 the first two of them at the same time.
  constexpr int stride = score_stride<R>;
  const auto fetch_inputs = [&] {
    __syncthreads();  // q, k, v and d_o are used
    s.fetch(block, query);
    s.fetch(block, value);
    copy_rows<H>(s.array(2), s.kept(block, Kept::normed), p.length);
  };
  if constexpr (H::tensor_cores) {
    Accumulators<R> dq, dk, dv;
    add_ab<H, 8 * R, Numbers::any, Numbers::rounded>(dv, weights_transposed, stride, d_o);
    add_ab<H, 8 * R, Numbers::any, Numbers::any>(dq, ds, stride, s.array(1));
    add_ab<H, 8 * R, Numbers::any, Numbers::any>(dk, ds_transposed, stride, s.array(0));
    fetch_inputs();
    s.write_operand(s.array(0), dq);
    s.write_operand(s.array(1), dk);
    s.write_operand(s.array(3), dv);
  } else {
    const bool first = in_first_half<H>();
    WideAccumulators<R> dq_or_dk;
    add_ab_wide<H, 8 * R>(dq_or_dk, first ? ds : ds_transposed, stride, s.array(first ? 1 : 0));
    Accumulators<R> dv;
    add_ab<H, 8 * R, Numbers::any, Numbers::any>(dv, weights_transposed, stride, d_o);
    fetch_inputs();
    write_wide<H>(s.array(first ? 0 : 1), dq_or_dk, p.length);
    s.write(s.array(3), dv);
  }
  __syncthreads();
  inputs_backward(s, block);
  __syncthreads();
  if (block > 0) fetch_for_backward(s, block - 1, true);
  // The dropout that made the block's input: after the MLP of the one before, or the embedding's.
  // Only the former is an operand; precisions that know none need one copy of this.
  const auto through_norm = [&](auto operands) {
    layer_norm_backward<R, decltype(operands)>(s.x(), s.array(0), s.slot(key), s.array(2), s.rstd,
                                               p.length, s.masks + p.mask_of(3 * block), p.dropout);
  };
  if (H::precision == Precision::tf32 && block > 0)
    through_norm(H());
  else
    through_norm(How<Precision::fp32, H::ahead>());
}

}  // namespace focus::gpu::one_launch
