// One block of the model, backward (block.cuh has the forward and what the memory holds).
#pragma once

#include "cuda/one_launch/block.cuh"

namespace focus::gpu::one_launch {

// What the backward of a block needs first, as soon as the memory for it is free: s.array(0) holds
// the gradient of the MLP's output and stays.
template <class H, int R>
__device__ __forceinline__ void fetch_for_backward(Sequence<H, R>& s, int block,
                                                   bool with_weights) {
  copy_rows(s.array(1), s.kept(block, Kept::hidden), s.p.length);
  copy_rows(s.array(3), s.kept(block, Kept::second_normed), s.p.length);
  if (!with_weights) return;
  s.fetch(block, mlp_out), s.fetch(block, out);
}

// Through one linear layer: to = dY W in registers, and the gradients of weight and bias.
template <class H, int R>
__device__ __forceinline__ void linear_backward(const Sequence<H, R>& s, Tile<R>& dx, int block,
                                                int which, const float* dy, const float* x) {
  add_ab<H, width>(dx, dy, row_stride, s.slot(which % 3));
  float* to = s.gradient + s.p.layer(block, which);
  weight_gradients<H, 8 * R, 1>({to}, {dy}, x);
  bias_gradient<8 * R>(to + matrix, dy);
}

// On entry s.x() is the gradient of the block's output, s.array(0) that after the MLP's dropout,
// and fetch_for_backward is under way; on leaving s.x() is the gradient of the block's input,
// s.array(0) that after the dropout before it, and the next block's is under way.
template <class H, int R>
__device__ __forceinline__ void block_backward(Sequence<H, R>& s, int block) {
  const Plan& p = s.p;
  const Place<H> at = s.at;
  const float* kept = p.kept_of(block);

  wait_for_copies();
  s.fetch(block, mlp_in);
  {  // hidden = activation(…), in s.array(1)
    float2 slope[R];
#pragma unroll
    for (int i = 0; i < R; ++i)
      if (at.row + 8 * i < p.length)
        slope[i] = load2(s.kept(block, Kept::slope) + (at.row + 8 * i) * width + at.column);
    Tile<R> c;
    linear_backward(s, c, block, mlp_out, s.array(0), s.array(1));
#pragma unroll
    for (int i = 0; i < R; ++i) c.at[i][0] *= slope[i].x, c.at[i][1] *= slope[i].y;
    s.write(s.array(2), c);
  }
  wait_for_copies();
  copy_rows(s.array(1), s.kept(block, Kept::attended), p.length);
  {  // norm(y), in s.array(3)
    Tile<R> c;
    linear_backward(s, c, block, mlp_in, s.array(2), s.array(3));
    s.write(s.array(0), c);
  }
  __syncthreads();
  layer_norm_backward<R>(s.x(), s.array(0), s.array(0), s.array(3),
                         kept + p.kept_layout.second_rstd, p.length,
                         s.masks + p.mask_of(1 + 3 * block), p.dropout);
  wait_for_copies();
  s.fetch(block, key);
  copy_rows(s.array(3), s.kept(block, Kept::v), p.length);
  float* d_o = s.array(2);
  {
    Tile<R> c;
    linear_backward(s, c, block, out, s.array(0), s.array(1));
    s.write(d_o, c);
  }
  wait_for_copies();
  copy_rows(s.array(0), s.kept(block, Kept::q), p.length);
  copy_rows(s.array(1), s.kept(block, Kept::k), p.length);
  float *ds = s.slot(0), *ds_transposed = ds + scores_size<R>, *weights_transposed = s.slot(2);
  token_products<H, R>(ds, d_o, s.array(3), p.length);
  __syncthreads();
  weights_backward<R>(p, ds, ds_transposed, weights_transposed, kept,
                      p.attention_dropout.on() ? s.masks + p.attention_mask_of(block) : nullptr,
                      s.attention_first_bit());
  wait_for_copies();
  {
    constexpr int stride = score_stride<R>;
    Tile<R> dq, dk, dv;
    add_ab<H, 8 * R>(dv, weights_transposed, stride, d_o);
    add_ab<H, 8 * R>(dq, ds, stride, s.array(1));
    add_ab<H, 8 * R>(dk, ds_transposed, stride, s.array(0));
    __syncthreads();  // q, k, v and d_o are used
    s.fetch(block, query);
    s.fetch(block, value);
    copy_rows(s.array(2), s.kept(block, Kept::normed), p.length);
    s.write(s.array(0), dq);
    s.write(s.array(1), dk);
    s.write(s.array(3), dv);
  }
  __syncthreads();
  {
    Tile<R> c;
    add_ab<H, width>(c, s.array(1), row_stride, s.slot(key));
    wait_for_copies();
    add_ab<H, width>(c, s.array(0), row_stride, s.slot(query));
    add_ab<H, width>(c, s.array(3), row_stride, s.slot(value));
    s.write(s.slot(key), c);  // whose weights are used
    float* to = s.gradient + p.layer(block, query);
    weight_gradients<H, 8 * R, 3>({to, to + linear, to + 2 * linear},
                                  {s.array(0), s.array(1), s.array(3)}, s.array(2));
    bias_gradient<8 * R>(to + matrix, s.array(0));
    bias_gradient<8 * R>(to + linear + matrix, s.array(1));
    bias_gradient<8 * R>(to + 2 * linear + matrix, s.array(3));
  }
  __syncthreads();
  if (block > 0) fetch_for_backward(s, block - 1, true);
  // The dropout that made the block's input: after the MLP of the one before, or the embedding's.
  layer_norm_backward<R>(s.x(), s.array(0), s.slot(key), s.array(2), kept + p.kept_layout.rstd,
                         p.length, s.masks + p.mask_of(3 * block), p.dropout);
}

}  // namespace focus::gpu::one_launch
