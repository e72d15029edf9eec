// Top-k with the T × T scores in memory, for rungs 06 and 07, which differ only in how they find
// the k-th largest score of a row. A warp a row; any k, any T.
#pragma once

#include <cmath>

#include "cuda/attention/rungs.h"
#include "cuda/attention/scores_in_memory.cuh"

namespace focus::gpu {

// What to take of a row: every score above the threshold, and the first `equals` that equal it.
struct Cut {
  float threshold;
  int equals;
  float top;   // the largest score
  bool valid;  // false: there is a NaN
};

// Writes the row's keys (k), ascending, and their probabilities. All lanes have the same cut.
__device__ inline void take_row(const float* s, int T, int k, const Cut& cut, float scale,
                                int* keys, float* p) {
  const int lane = int(threadIdx.x) % 32;
  const unsigned below = (1u << lane) - 1;
  int taken = 0, equals = 0;
  float sum = 0;
  for (int j0 = 0; j0 < T && taken < k; j0 += 32) {
    const int j = j0 + lane;
    const float x = j < T ? s[j] : -INFINITY;
    const bool equal = j < T && x == cut.threshold;
    const unsigned equal_lanes = __ballot_sync(all_lanes, equal);
    bool take = j < T &&
                (x > cut.threshold || (equal && equals + __popc(equal_lanes & below) < cut.equals));
    if (!cut.valid) take = j < k;
    const unsigned taking = __ballot_sync(all_lanes, take);
    if (take) {
      const int e = taken + __popc(taking & below);
      keys[e] = j;
      p[e] = cut.valid ? expf(scale * (x - cut.top)) : NAN;
      sum += p[e];
    }
    taken += __popc(taking);
    equals += __popc(equal_lanes);
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(all_lanes, sum, lanes);
  __syncwarp();  // other lanes have written p
  for (int e = lane; e < k; e += 32) p[e] /= sum;
}

// o = Σ p_e · v[key_e]. A warp a row.
[[maybe_unused]] static __global__ void gather_values(Heads v, Heads o, const int* keys,
                                                      const float* p, int k, int first_row,
                                                      int rows) {
  const int r = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  if (r >= rows) return;
  const int row = first_row + r, batch_head = row / v.T, i = row % v.T;
  const int* row_keys = keys + ptrdiff_t{row} * k;
  const float *row_p = p + ptrdiff_t{row} * k, *v_head = v.of(batch_head);
  for (int d = int(threadIdx.x) % 32; d < v.D; d += 32) {
    float sum = 0;
    for (int e = 0; e < k; ++e) sum += row_p[e] * v_head[row_keys[e] * v.row_stride + d];
    o.of(batch_head)[i * o.row_stride + d] = sum;
  }
}

using SelectKernel = void (*)(const float* scores, int* keys, float* p, int k, int T, int rows,
                              float scale);

inline void topk_forward_in_memory(const Call& c, const char* name, SelectKernel select) {
  const int T = c.q.T, k = c.kept;
  for_parts(c, 1, [&](int first, int batch_heads) {
    float* memory = static_cast<float*>(c.workspace);
    // Unscaled, as on the CPU: scaling could round two scores to one.
    multiply_02(c.stream, first, batch_heads, rows_of(c.q), rows_of(c.k).transposed(),
                scores_at(memory, c.q, first), T, T, c.q.D, 1.f);
    const int rows = batch_heads * T;
    int* keys = c.keys + ptrdiff_t{first} * T * k;
    float* p = c.p + ptrdiff_t{first} * T * k;
    launch({name, size_t(rows + 7) / 8, 256}, c.stream, select, memory, keys, p, k, T, rows,
           c.scale());
    launch({"gather_values", size_t(rows + 7) / 8, 256}, c.stream, gather_values, c.v, c.o, c.keys,
           c.p, k, first * T, rows);
  });
}

}  // namespace focus::gpu
