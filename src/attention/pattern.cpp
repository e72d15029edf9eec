#include "attention/pattern.h"

#include <algorithm>
#include <cmath>

#include "enum_names.h"
#include "error.h"

namespace focus {

namespace {

//@ from 04
struct Range {
  int begin, end;
};

// The keys of an ordinary query among the n positions before the global tokens.
Range ordinary_keys(const AttentionSettings& a, int query, int n) {
  if (a.causal) return {std::max(0, query + 1 - a.k), query + 1};
  //@ gap 04 ordinary-keys
  if (a.pattern == Pattern::banded) {
    // (k-1)/2 keys on the left, the rest on the right, shifted at the ends: always exactly k.
    const int begin = std::clamp(query - (a.k - 1) / 2, 0, n - a.k);
    return {begin, begin + a.k};
  }
  const int begin = query / a.k * a.k;
  return {begin, std::min(begin + a.k, n)};
  //@ end
}
//@ end

constexpr const char* pattern_names[] = {"full", "banded", "block", "topk", "bottomk", "random"};

}  // namespace

Pattern pattern_of(std::string_view name) {
  return value_named<Pattern>(name, pattern_names, "attention");
}

const char* name_of(Pattern pattern) {
  return name_among(pattern_names, pattern);
}

void check_settings(const AttentionSettings& a, int length) {
  if (length < 1) fail_input("length ", length, ": a sequence needs at least one token");
  if (a.heads < 1) fail_input("heads ", a.heads, ": at least 1 is needed");
  if (!(a.dropout >= 0 && a.dropout < 1)) fail_input("dropout ", a.dropout, " is not in [0, 1)");
  if (const float scale = float(a.score_scale); !(scale > 0 && std::isfinite(scale)))
    fail_input("score scale ", a.score_scale, ": must be positive and finite as a float32");
  if (a.global_tokens < 0) fail_input("global tokens ", a.global_tokens, ": must not be negative");
  if (a.global_tokens > 0 && !is_positional(a.pattern))
    fail_input("global tokens go with banded and block attention, not with ", name_of(a.pattern));
  if (a.causal && (!may_be_causal(a.pattern) || a.global_tokens > 0))
    fail_input("causal attention is full, topk or banded, without global tokens; here: ",
               name_of(a.pattern), a.global_tokens > 0 ? " with global tokens" : "");
  const int ordinary = length - a.global_tokens;
  if (ordinary < 1)
    fail_input("length ", length, " leaves no token beside ", a.global_tokens, " global tokens");
  if (uses_k(a.pattern) && (a.k < 1 || a.k > ordinary))
    fail_input("k = ", a.k, " for ", name_of(a.pattern), " attention must be between 1 and ",
               ordinary, ", the number of tokens");
}

int count_nnz(const AttentionSettings& a, int T) {
  if (a.causal) {  // the first queries see fewer than k keys
    const int k = uses_k(a.pattern) ? a.k : T;
    return k * T - k * (k - 1) / 2;
  }
  if (a.pattern == Pattern::full) return T * T;
  //@ from 04
  if (is_positional(a.pattern)) {
    const int g = a.global_tokens, n = T - g;
    int nnz = g * T;
    for (int i = 0; i < n; ++i) {
      const Range own = ordinary_keys(a, i, n);
      nnz += own.end - own.begin + g;
    }
    return nnz;
  }
  //@ end
  //@ from 05
  if (uses_k(a.pattern)) return T * a.k;
  //@ end
  fail_input(name_of(a.pattern), " attention comes with a later lesson");
}

void fill_key_lists(const AttentionSettings& a, int T, int* begin, int* keys) {
  //@ from 04
  if (!is_positional(a.pattern)) {
    const int k = uses_k(a.pattern) ? a.k : T;
    begin[0] = 0;
    for (int i = 0; i < T; ++i) begin[i + 1] = begin[i] + (a.causal ? std::min(k, i + 1) : k);
    return;
  }
  const int n = T - a.global_tokens;
  int e = 0;
  //@ gap 04 key-lists
  for (int i = 0; i < T; ++i) {
    begin[i] = e;
    const Range own = i < n ? ordinary_keys(a, i, n) : Range{0, n};
    for (int j = own.begin; j < own.end; ++j) keys[e++] = j;
    for (int j = n; j < T; ++j) keys[e++] = j;
  }
  //@ end
  begin[T] = e;
  //@ end
}

}  // namespace focus
