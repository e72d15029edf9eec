// Which keys a query sees under banded and block attention with global tokens, and which queries
// see a key (paper, section 2; src/attention/pattern.cpp is the reference).
//
// The last g of T tokens are global: they see all tokens and are seen by all. The first n = T − g
// are ordinary: they see `width` consecutive ordinary tokens, shifted at the ends so that there are
// always as many (banded), or their own block of `width` tokens, the last of which may be short
// (block). So the ordinary queries that see an ordinary key are consecutive too.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/simt/simt.h"

namespace focus::gpu {

// Consecutive ordinary tokens and then all global ones, as one list.
struct Visible {
  int begin, own;  // ordinary tokens begin … begin+own-1
  int n, count;    // slots 0 … count-1

  __device__ int token(int slot) const { return slot < own ? begin + slot : n + slot - own; }
};

struct Window {
  bool banded;
  int width, n, T;

  __device__ Visible keys_of(int query) const {
    if (query >= n) return {0, n, n, T};
    int begin, end;
    if (banded) {
      begin = min(max(query - (width - 1) / 2, 0), n - width), end = begin + width;
    } else {
      begin = query / width * width, end = min(begin + width, n);
    }
    return {begin, end - begin, n, end - begin + T - n};
  }

  __device__ Visible queries_of(int key) const {
    if (key >= n) return {0, n, n, T};
    int begin = 0, end = 0;
    //@ gap 09 queries-of
    if (banded) {
      // A band begins at query − left, or at an end of the sequence, where several begin.
      const int left = (width - 1) / 2;
      begin = key < width ? 0 : key - width + 1 + left;
      end = key >= n - width ? n : key + left + 1;
    } else {
      begin = key / width * width, end = min(begin + width, n);
    }
    //@ end
    return {begin, end - begin, n, end - begin + T - n};
  }
};

inline Window window_of(Pattern pattern, const Call& c) {
  return {pattern == Pattern::banded, c.kept, c.q.T - c.global_tokens, c.q.T};
}

}  // namespace focus::gpu
