// The products of matmul.cuh on tensor cores: who multiplies what. tensor_cores/mma_operands.h has
// how factors are rounded.
//
// A warp multiplies tiles of 16 × 8 by 8 × 8 numbers (cuda/fast/tensor_cores/mma.h has the layout).
// A thread with lane 4·g + t then holds of a result, in each of its tiles, the rows g and g + 8 and
// the columns 2t and 2t + 1: with the warp's 8 columns and tile below tile that is Accumulators as
// in matmul.cuh, of every eighth row and two neighbouring columns, so what comes before and after a
// product is the same code at every precision.
//
// Fragments are read from the matrices where they lie, number by number. With rows 68 floats apart,
// the 32 numbers (g, t) of a fragment lie in different banks if the inner numbers run along the
// rows (4·g + t), and also if they run down the columns and t stands for every second inner number
// (8·t + g): the order of the inner numbers is free, as long as both factors agree. Only a product
// whose factors differ in this costs a second turn of the banks, for B's numbers, the fewer.
#pragma once

#include "cuda/fast/tensor_cores/mma_operands.h"
#include "cuda/simt/simt.h"

namespace focus::gpu::one_launch {

// Adds to MT × NT tiles, in steps of 16 inner numbers and a last one of 8: a(m, n) and b(m, n) load
// the factors of tile m for the n-th 8 inner numbers, of which OF_A and OF_B tell. AHEAD: those of
// a step before the products of the step before it.
template <Precision P, Numbers OF_A, Numbers OF_B, int STEPS, bool AHEAD, int MT, int NT,
          class LoadA, class LoadB>
__device__ __forceinline__ void add_tiles(float (&c)[MT][NT][4], const LoadA& a, const LoadB& b) {
  using F = Factors<P>;
  struct Step {
    RawA a[MT][2];
    RawB b[NT][2];
  };
  const auto load = [&](Step& to, int n, int count) {
#pragma unroll
    for (int h = 0; h < count; ++h) {
#pragma unroll
      for (int m = 0; m < MT; ++m) to.a[m][h] = a(m, n + h);
#pragma unroll
      for (int j = 0; j < NT; ++j) to.b[j][h] = b(j, n + h);
    }
  };
  const auto multiply = [&](const Step& x) {
    typename F::B y[NT][2];
#pragma unroll
    for (int j = 0; j < NT; ++j) {
      y[j][0] = F::template of<OF_B>(x.b[j][0]);
      y[j][1] = F::template of<OF_B>(x.b[j][1]);
    }
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const typename F::A both[2] = {F::template of<OF_A>(x.a[m][0]),
                                     F::template of<OF_A>(x.a[m][1])};
#pragma unroll
      for (int j = 0; j < NT; ++j) F::add(c[m][j], both, y[j]);
    }
  };
  constexpr int pairs = STEPS / 2;
  Step now, next;
  if constexpr (AHEAD && pairs % 2 == 0) {
    load(now, 0, 2);
#pragma unroll 1
    for (int n = 0; n < 2 * pairs; n += 4) {
      load(next, n + 2, 2);
      multiply(now);
      load(now, (n + 4) % (2 * pairs), 2);
      multiply(next);
    }
  } else {
    // Unrolled, the loads of many tiles would need more registers than there are.
#pragma unroll(MT* NT > 6 ? 1 : 2)
    for (int n = 0; n < 2 * pairs; n += 2) {
      load(now, n, 2);
      multiply(now);
    }
  }
  if constexpr (STEPS % 2 == 1) {
    load(now, STEPS - 1, 1);
    typename F::B y[NT];
#pragma unroll
    for (int j = 0; j < NT; ++j) y[j] = F::template of<OF_B>(now.b[j][0]);
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const typename F::A x = F::template of<OF_A>(now.a[m][0]);
#pragma unroll
      for (int j = 0; j < NT; ++j) F::add(c[m][j], x, y[j]);
    }
  }
}

}  // namespace focus::gpu::one_launch
