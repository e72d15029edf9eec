// Dropout's masks, from the CPU's random numbers (src/rng.h, src/ops/dropout.cpp).
#pragma once

#include "cuda/one_launch/arguments.cuh"
#include "cuda/ops/philox.cuh"

namespace focus::gpu::one_launch {

// A run's seed and step: together they fix every random number that the step draws.
struct StepNoise {
  unsigned long long seed;
  unsigned step;
};

// Elements 8·n … 8·n+7 of the use of dropout at `site`: bit e is set if element e is kept.
__device__ inline unsigned kept_bits(const StepNoise& noise, unsigned site, unsigned n,
                                     unsigned last_dropped) {
  return bits_above(philox({{n, noise.step, site, unsigned(Stream::dropout)}}, unsigned(noise.seed),
                           unsigned(noise.seed >> 32)),
                    int(last_dropped));
}

// Writes the mask of elements first … first+count-1 of a use, by threads t, t+step, …: bit
// (first % 8 + i) of the bytes is element first + i.
__device__ inline void draw_mask(uint8_t* mask, const StepNoise& noise, unsigned site,
                                 unsigned first, int count, unsigned last_dropped, int t,
                                 int step) {
  const int bytes = (int(first % 8) + count + 7) / 8;
  for (int n = t; n < bytes; n += step)
    mask[n] = uint8_t(kept_bits(noise, site, first / 8 + unsigned(n), last_dropped));
}

// The places where dropout draws, numbered in the order in which the CPU's model meets them.
struct Sites {
  int each, attention;  // 1 if that dropout is on
  __device__ explicit Sites(const Plan& p)
      : each(p.dropout.on()), attention(p.attention_dropout.on()) {}
  __device__ unsigned of_attention(int block) const {
    return unsigned(each + block * (attention + 3 * each));
  }
  // which: 0 after attention, 1 hidden, 2 after the MLP.
  __device__ unsigned of(int block, int which) const {
    return of_attention(block) + unsigned(attention + which);
  }
};

// All masks of a sequence, by a block of threads.
__device__ inline void draw_all_masks(const Plan& p, uint8_t* masks, const StepNoise& noise,
                                      int place) {
  const Sites sites(p);
  const int t = int(threadIdx.x), count = p.length * width;
  const auto draw = [&](uint8_t* mask, unsigned site) {
    draw_mask(mask, noise, site, unsigned(place * count), count, p.dropout.last_dropped, t,
              threads);
  };
  if (p.dropout.on()) {
    draw(masks, 0);
    for (int use = 0; use < 3 * p.blocks; ++use)
      draw(masks + p.mask_of(1 + use), sites.of(use / 3, use % 3));
  }
  if (!p.attention_dropout.on()) return;
  for (int block = 0; block < p.blocks; ++block)
    draw_mask(masks + p.attention_mask_of(block), noise, sites.of_attention(block),
              unsigned(place) * unsigned(p.nnz), p.nnz, p.attention_dropout.last_dropped, t,
              threads);
}

}  // namespace focus::gpu::one_launch
