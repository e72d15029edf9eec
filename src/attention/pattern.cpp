#include "attention/pattern.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace focus {

namespace {

//@ from 04
struct Range {
  int begin, end;
};

// The keys of an ordinary query among the n positions before the global tokens.
Range ordinary_keys(const AttentionSettings& a, int query, int n) {
  //@ begin 04 ordinary-keys points=6
  //@ plan Return {first key, one past the last key} of `query`, for a.k = k and n positions.
  //@ plan 1. Pattern::banded: k consecutive keys, (k-1)/2 (rounded down) of them on the left; near
  //@ plan    both ends the window is shifted, so that it always holds k.
  //@ plan 2. Block: the query's own block of k. The last block may be shorter.
  //@ hint 1 For n = 7 and k = 3: which keys do queries 0, 3 and 6 keep under banded, and under
  //@ hint 1 block? Write the six lists down before you write code.
  //@ hint 2 README, "The mathematics": banded(k) and block(k). std::clamp(x, low, high) shifts a
  //@ hint 2 window: what are the lowest and the highest key at which a window of k may start?
  //@ hint 3 if the pattern is banded:
  //@ hint 3   begin = query - (k - 1) / 2, but at least 0 and at most n - k
  //@ hint 3   return {begin, begin + k}
  //@ hint 3 begin = (query / k, rounded down) times k
  //@ hint 3 return {begin, the smaller of begin + k and n}
  //@ notice Neither line looks at a score. Queries in the middle see to both sides, queries at an
  //@ notice end to one side only, but all of a band see k keys: no softmax runs over fewer.
  if (a.pattern == Pattern::banded) {
    // (k-1)/2 keys on the left, the rest on the right, shifted at the ends: always exactly k.
    //@ mutant(2) band-not-shifted: cut off at the ends, so that they keep fewer than k keys
    //~ const int begin = query - (a.k - 1) / 2;
    //~ return {std::max(begin, 0), std::min(begin + a.k, n)};
    //@ mutant band-leans-left: for even k one key more on the left
    //~ const int begin = std::clamp(query - a.k / 2, 0, n - a.k);
    const int begin = std::clamp(query - (a.k - 1) / 2, 0, n - a.k);
    return {begin, begin + a.k};
  }
  //@ mutant block-from-query: a block that starts at the query
  //~ const int begin = query;
  const int begin = query / a.k * a.k;
  //@ mutant block-moved-tail: the last block moved inwards to be full
  //~ return {std::min(begin, n - a.k), std::min(begin + a.k, n)};
  //@ mutant block-tail-off-by-one: the last key of a short block is lost
  //~ return {begin, begin + a.k <= n ? begin + a.k : n - 1};
  return {begin, std::min(begin + a.k, n)};
  //@ end
}
//@ end

//@ from 05
//@ before
//~ [[noreturn]] void comes_later(Pattern p) {
//~   fail_input(name_of(p), " attention comes with a later lesson");
//~ }
//~
//@ end
constexpr Pattern all_patterns[] = {Pattern::full, Pattern::banded,  Pattern::block,
                                    Pattern::topk, Pattern::bottomk, Pattern::random};

}  // namespace

Pattern pattern_of(std::string_view name) {
  for (Pattern p : all_patterns)
    if (name == name_of(p)) return p;
  fail_input("attention '", name, "' is unknown: use full, banded, block, topk, bottomk or random");
}

const char* name_of(Pattern pattern) {
  switch (pattern) {
    case Pattern::full:
      return "full";
    case Pattern::banded:
      return "banded";
    case Pattern::block:
      return "block";
    case Pattern::topk:
      return "topk";
    case Pattern::bottomk:
      return "bottomk";
    case Pattern::random:
      return "random";
  }
  return "?";
}

void check_settings(const AttentionSettings& a, int length) {
  if (length < 1) fail_input("length ", length, ": a sequence needs at least one token");
  if (a.heads < 1) fail_input("heads ", a.heads, ": at least 1 is needed");
  if (!(a.dropout >= 0 && a.dropout < 1)) fail_input("dropout ", a.dropout, " is not in [0, 1)");
  if (!(a.score_scale > 0 && std::isfinite(a.score_scale)))
    fail_input("score scale ", a.score_scale, ": must be positive and finite");
  if (a.global_tokens < 0) fail_input("global tokens ", a.global_tokens, ": must not be negative");
  if (a.global_tokens > 0 && !is_positional(a.pattern))
    fail_input("global tokens go with banded and block attention, not with ", name_of(a.pattern));
  const int ordinary = length - a.global_tokens;
  if (ordinary < 1)
    fail_input("length ", length, " leaves no token beside ", a.global_tokens, " global tokens");
  if (uses_k(a.pattern) && (a.k < 1 || a.k > ordinary))
    fail_input("k = ", a.k, " for ", name_of(a.pattern), " attention must be between 1 and ",
               ordinary, ", the number of tokens");
}

int count_entries(const AttentionSettings& a, int T) {
  const int g = a.global_tokens, n = T - g;
  if (a.pattern == Pattern::full) return T * T;
  //@ from 05
  if (!is_positional(a.pattern)) return T * a.k;
  //@ before
  //~ if (!is_positional(a.pattern)) comes_later(a.pattern);
  //@ end
  //@ from 04
  int entries = g * T;
  for (int i = 0; i < n; ++i) {
    const Range own = ordinary_keys(a, i, n);
    entries += own.end - own.begin + g;
  }
  return entries;
  //@ before
  //~ comes_later(a.pattern);
  //@ end
}

void fill_key_lists(const AttentionSettings& a, int T, int* begin, int* keys) {
  //@ from 04
  if (!is_positional(a.pattern)) {
    for (int i = 0; i <= T; ++i) begin[i] = i * a.k;
    return;
  }
  const int n = T - a.global_tokens;
  int e = 0;
  //@ begin 04 key-lists points=4
  //@ plan The T tokens are n ordinary ones, then the global ones. `e` counts the entries so far.
  //@ plan For each token i: begin[i] = where its list starts; then append to keys, ascending,
  //@ plan 1. its ordinary keys: those of ordinary_keys(a, i, n), or all n for a global token;
  //@ plan 2. all global tokens, n to T-1.
  //@ hint 1 A global token sees all and is seen by all. In whose lists does that make it appear?
  //@ hint 1 And how long is its own list?
  //@ hint 2 README, "The mathematics": +g, and "Lists instead of masks" for `begin`. count_entries
  //@ hint 2 above counts the same lists; the two must agree.
  //@ hint 3 for i from 0 to T - 1:
  //@ hint 3   begin[i] = e
  //@ hint 3   own = ordinary_keys(a, i, n) if i < n, else {0, n}
  //@ hint 3   for j from own.begin to own.end - 1: keys[e] = j, then add 1 to e
  //@ hint 3   for j from n to T - 1: keys[e] = j, then add 1 to e
  //@ notice A global token costs one entry in every list and one long list: about 2T entries,
  //@ notice where full attention has T². Through it any two tokens are two blocks apart.
  for (int i = 0; i < T; ++i) {
    begin[i] = e;
    //@ mutant globals-see-nothing: global tokens are seen but see only each other
    //~ const Range own = i < n ? ordinary_keys(a, i, n) : Range{n, n};
    const Range own = i < n ? ordinary_keys(a, i, n) : Range{0, n};
    for (int j = own.begin; j < own.end; ++j) keys[e++] = j;
    //@ mutant globals-unseen: global tokens see all but are not seen
    //~ for (int j = n; i >= n && j < T; ++j) keys[e++] = j;
    //@ mutant one-global-seen: only the first global token is seen
    //~ for (int j = n; j < (i < n ? std::min(n + 1, T) : T); ++j) keys[e++] = j;
    for (int j = n; j < T; ++j) keys[e++] = j;
  }
  //@ end
  begin[T] = e;
  //@ end
}

}  // namespace focus
