// One block of the model, backward (block.cuh has the forward and what the memory holds).
#pragma once

#include "cuda/one_launch/block.cuh"

namespace focus::gpu::one_launch {

// What the backward of a block needs first, as soon as the memory for it is free: array[0] holds
// the gradient of the MLP's output and stays.
template <int R>
__device__ __forceinline__ void fetch_for_backward(Sequence<R>& s, int block, bool with_weights) {
  copy_rows(s.array[1], s.kept(block, Kept::hidden), s.p.length);
  copy_rows(s.array[3], s.kept(block, Kept::second_normed), s.p.length);
  if (!with_weights) return;
  for (const int which : {mlp_out, mlp_in, out}) s.fetch(block, which);
}

// Through one linear layer: to = dY W in registers, and the gradients of weight and bias.
template <int R>
__device__ __forceinline__ void linear_backward(const Sequence<R>& s, Tile<R>& dx, int block,
                                                int which, const float* dy, const float* x) {
  add_ab<width>(dx, dy + s.at.row * row_stride, row_stride, s.slot[which % 3] + s.at.column);
  float* to = s.gradient + s.p.layer(block, which);
  weight_gradients<8 * R, 1>({to}, {dy}, x);
  bias_gradient<8 * R>(to + matrix, dy);
}

// On entry s.x is the gradient of the block's output, array[0] that after the MLP's dropout, and
// fetch_for_backward is under way; on leaving s.x is the gradient of the block's input, array[0]
// that after the dropout before it, and the next block's is under way.
template <int R>
__device__ __forceinline__ void block_backward(Sequence<R>& s, int block) {
  const Plan& p = s.p;
  const Place at = s.at;
  float* const* array = s.array;
  const float* kept = p.kept_of(block);

  wait_for_copies();
  {  // hidden = activation(…), in array[1]
    float2 slope[R];
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (at.row + 8 * i < p.length)
        slope[i] = load2(s.kept(block, Kept::slope) + (at.row + 8 * i) * width + at.column);
    Tile<R> c;
    linear_backward(s, c, block, mlp_out, array[0], array[1]);
#pragma unroll
    for (int i = 0; i < R; ++i) c.at[i][0] *= slope[i].x, c.at[i][1] *= slope[i].y;
    s.write(array[2], c);
  }
  __syncthreads();
  copy_rows(array[1], s.kept(block, Kept::attended), p.length);
  {  // norm(y), in array[3]
    Tile<R> c;
    linear_backward(s, c, block, mlp_in, array[2], array[3]);
    s.write(array[0], c);
  }
  __syncthreads();
  layer_norm_backward<R>(s.x, array[0], array[0], array[3], kept + p.kept_layout.second_rstd,
                         p.length, s.masks + p.mask_of(1 + 3 * block), p.dropout);
  wait_for_copies();
  s.fetch(block, key);
  copy_rows(array[3], s.kept(block, Kept::v), p.length);
  float* d_o = array[2];
  {
    Tile<R> c;
    linear_backward(s, c, block, out, array[0], array[1]);
    s.write(d_o, c);
  }
  wait_for_copies();
  copy_rows(array[0], s.kept(block, Kept::q), p.length);
  copy_rows(array[1], s.kept(block, Kept::k), p.length);
  float *ds = s.slot[0], *ds_transposed = ds + scores_size<R>, *weights_transposed = s.slot[2];
  token_products<R>(ds, d_o, array[3], p.length);
  __syncthreads();
  weights_backward<R>(p, ds, ds_transposed, weights_transposed, kept,
                      p.attention_dropout.on() ? s.masks + p.attention_mask_of(block) : nullptr,
                      s.attention_first_bit());
  wait_for_copies();
  {
    constexpr int stride = score_stride<R>;
    Tile<R> dq, dk, dv;
    add_ab<8 * R>(dv, weights_transposed + at.row * stride, stride, d_o + at.column);
    add_ab<8 * R>(dq, ds + at.row * stride, stride, array[1] + at.column);
    add_ab<8 * R>(dk, ds_transposed + at.row * stride, stride, array[0] + at.column);
    __syncthreads();  // q, k, v and d_o are used
    s.fetch(block, query);
    s.fetch(block, value);
    copy_rows(array[2], s.kept(block, Kept::normed), p.length);
    s.write(array[0], dq);
    s.write(array[1], dk);
    s.write(array[3], dv);
  }
  __syncthreads();
  {
    Tile<R> c;
    add_ab<width>(c, array[1] + at.row * row_stride, row_stride, s.slot[key] + at.column);
    wait_for_copies();
    add_ab<width>(c, array[0] + at.row * row_stride, row_stride, s.slot[query] + at.column);
    add_ab<width>(c, array[3] + at.row * row_stride, row_stride, s.slot[value] + at.column);
    float* to = s.gradient + p.layer(block, query);
    weight_gradients<8 * R, 3>({to, to + linear, to + 2 * linear}, {array[0], array[1], array[3]},
                               array[2]);
    bias_gradient<8 * R>(to + matrix, array[0]);
    bias_gradient<8 * R>(to + linear + matrix, array[1]);
    bias_gradient<8 * R>(to + 2 * linear + matrix, array[3]);
    __syncthreads();  // dq, dk and dv are used
    if (block > 0) fetch_for_backward(s, block - 1, true);
    s.write(array[0], c);
  }
  __syncthreads();
  // The dropout that made the block's input: after the MLP of the one before, or the embedding's.
  layer_norm_backward<R>(s.x, array[0], array[0], array[2], kept + p.kept_layout.rstd, p.length,
                         s.masks + p.mask_of(3 * block), p.dropout);
}

}  // namespace focus::gpu::one_launch
