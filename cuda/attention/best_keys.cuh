// The list of the K best keys of one query, in one thread's registers.
#pragma once

#include <cmath>

#include "cuda/simt/simt.h"

namespace focus::gpu {

inline constexpr int no_key = 0x7FFFFFFF;

// Scores from largest to smallest, each beside its key. Offered keys must come in ascending order:
// then "strictly larger goes in front" is the tie rule, the lower index wins.
//
// An empty place holds NaN, and the comparison is "not (s <= place)", so that any score, minus
// infinity too, takes an empty place, and a NaN score never goes unseen. Every index is known to
// the compiler: an array indexed at run time would leave the registers.
template <int K>
struct BestKeys {
  float score[K];
  int key[K];
  bool has_nan = false;

  __device__ BestKeys() {
#pragma unroll
    for (int e = 0; e < K; ++e) score[e] = NAN, key[e] = no_key;
  }

  // A score at or below the gate cannot enter.
  __device__ float gate() const {
    return score[K - 1];
  }
  static __device__ bool passes(float s, float gate) {
    return !(s <= gate);
  }

  __device__ void offer(float s, int j) {
    has_nan |= s != s;
    //@ gap 10 offer
    bool found = false;
#pragma unroll
    for (int e = 0; e < K; ++e) {
      found = found || passes(s, score[e]);
      const float old_score = score[e];
      const int old_key = key[e];
      score[e] = found ? s : old_score, key[e] = found ? j : old_key;
      s = found ? old_score : s, j = found ? old_key : j;
    }
    //@ end
  }

  // When all keys have been offered: drops all but the first k, puts those in ascending order of
  // their keys, and their scores become probabilities (NaN if a score was). to_log2: scale·log2 e.
  __device__ void finish(int k, float to_log2) {
    const float top = score[0];
    float sum = 0;
#pragma unroll
    for (int e = 0; e < K; ++e) {
      if (e >= k) key[e] = no_key;
      score[e] = e >= k ? 0.f : has_nan ? NAN : fast_exp2((score[e] - top) * to_log2);
      sum += score[e];
    }
    const float inverse = 1 / sum;
#pragma unroll
    for (int e = 0; e < K; ++e) score[e] *= inverse;
#pragma unroll
    for (int a = 1; a < K; ++a)
#pragma unroll
      for (int b = a; b > 0; --b) {
        const bool swap = key[b] < key[b - 1];
        const float lower_score = swap ? score[b] : score[b - 1];
        const int lower_key = swap ? key[b] : key[b - 1];
        score[b] = swap ? score[b - 1] : score[b], key[b] = swap ? key[b - 1] : key[b];
        score[b - 1] = lower_score, key[b - 1] = lower_key;
      }
  }
};

}  // namespace focus::gpu
