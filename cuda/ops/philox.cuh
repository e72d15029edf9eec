// src/rng.h's generator, word for word, for kernels.
#pragma once

#include "cuda/ops/ops.h"
#include "cuda/simt/simt.h"
#include "rng.h"

namespace focus::gpu {

struct Words {
  uint32_t w[4];
};

// Philox::block.
__device__ __forceinline__ Words philox(Words c, uint32_t key0, uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t m0 = uint64_t{0xD2511F53u} * c.w[0], m1 = uint64_t{0xCD9E8D57u} * c.w[2];
    c = {{uint32_t(m1 >> 32) ^ c.w[1] ^ key0, uint32_t(m1), uint32_t(m0 >> 32) ^ c.w[3] ^ key1,
          uint32_t(m0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

// Bit j says whether the j-th of eight 16-bit numbers keeps its element.
__device__ __forceinline__ uint32_t bits_above(const Words& random, int last_dropped) {
  uint32_t bits = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j)
    bits |= uint32_t(int(random.w[j / 2] >> (j % 2 * 16) & 0xffff) > last_dropped) << j;
  return bits;
}

// Those of the elements 8·block … 8·block+7 of one use of dropout by one run.
__device__ __forceinline__ uint32_t kept_bits(const DropoutDraw& draw, int run, uint64_t block) {
  const uint64_t seed = draw.seeds[run];
  const uint32_t stream = uint32_t(Stream::dropout) | uint32_t(block >> 32 << 8);
  return bits_above(philox({{uint32_t(block), *draw.step, draw.site, stream}}, uint32_t(seed),
                           uint32_t(seed >> 32)),
                    draw.last_dropped);
}

}  // namespace focus::gpu
