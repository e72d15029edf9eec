// What the forward and backward of rung 13 share: rows of lanes, a token each, and runs of rows.
#pragma once

#include "cuda/attention/local.cuh"
#include "cuda/attention/row_lanes.cuh"
#include "cuda/attention/rungs.h"
#include "cuda/device/launch.h"

namespace focus::gpu {

inline constexpr int row_threads = 256;
inline constexpr int span = 4;  // tokens that a row of lanes does one after another

template <int W>
struct Rows {
  static constexpr int lanes = W / 4, number = row_threads / lanes;  // of a block
  static constexpr int tokens = number * span;                       // of a block
  static __device__ int own() { return int(threadIdx.x) / lanes; }
  static __device__ int channel() { return int(threadIdx.x) % lanes * 4; }
};

// What a lane reads of a head: its 4 channels of any row; 0 beyond D.
struct Channels {
  const float* at;
  ptrdiff_t stride;
  bool exist;

  __device__ Channels(const Heads& x, int batch_head, int d)
      : at(x.of(batch_head) + d), stride(x.row_stride), exist(d < x.D) {}
  __device__ float4 operator[](int row) const { return row_if(row, true); }
  __device__ float4 row_if(int row, bool wanted) const {
    return exist && wanted ? load4(at + row * stride) : make_float4(0, 0, 0, 0);
  }
};

// Every `step`th of the rows first … end-1. All lanes of a warp make the same number of steps.
struct Run {
  int first, end, step, steps;
  int slot = 0;  // of the first one, as a key in the query's list (Visible)
};

// Dropout on the weights of one query, by the keys' slots. Without dropout nothing is read.
template <bool Drops>
struct Factors {
  const KeepBits& bits;
  size_t row;  // of all (B,H,T)

  __device__ float operator()(int slot, bool exists) const {
    if constexpr (!Drops) return 1.f;
    return exists ? bits.factor(row, slot) : 0.f;
  }
};

}  // namespace focus::gpu
