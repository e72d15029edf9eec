// Dropout's bits on their way into shared memory.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

// Starts copying dropout's bits of ROWS rows and 64 keys, two words a row; j0: a multiple of 32.
template <int ROWS, int THREADS>
__device__ __forceinline__ void copy_keep_bits(unsigned* to, const KeepBits& keep, int unit, int T,
                                               int i0, int j0) {
  if (!keep.words) return;
  const unsigned* from =
      keep.words + (size_t(unit) * size_t(T) + size_t(i0)) * size_t(keep.per_row);
  for (int e = int(threadIdx.x); e < 2 * ROWS; e += THREADS) {
    const int row = e / 2, word = j0 / 32 + e % 2;
    if (i0 + row < T && 32 * word < T)
      __pipeline_memcpy_async(to + e, from + row * keep.per_row + word, 4);
  }
}

}  // namespace focus::gpu
