// Which keys a query may attend to (paper, section 2), and the settings of one attention operation.
#pragma once

#include <string_view>

namespace focus {

enum class Pattern {
  full,     // every key
  banded,   // k consecutive keys around the query
  block,    // the query's own block of k consecutive keys
  topk,     // the k keys with the largest scores: the paper's semantic focus
  bottomk,  // control: the k smallest
  random,   // control: k keys drawn with replacement, doubles counted once
};

struct AttentionSettings {
  Pattern pattern = Pattern::full;
  int k = 0;              // kept keys, for every pattern but full
  int global_tokens = 0;  // banded and block: the last tokens, which see and are seen by all
  int heads = 1;
  double dropout = 0;  // on the attention weights
  // A factor on the scores beside 1/√D, above 0: softmax(score_scale · Q Kᵀ / √D). Above 1 it makes
  // the softmax sharper. It changes no choice of keys, only the weights of the chosen.
  double score_scale = 1;
  // A query sees no key after its own. Then top-k keeps its k best of those that it sees, banded
  // its k nearest ones, and both all of them where they are fewer. With full, top-k and banded
  // attention.
  bool causal = false;
};

// Names as on the command line, in checkpoints and tables. Unknown: InputError.
Pattern pattern_of(std::string_view name);
const char* name_of(Pattern pattern);

inline bool uses_k(Pattern p) {
  return p != Pattern::full;
}
inline bool may_be_causal(Pattern p) {
  return p == Pattern::full || p == Pattern::banded || p == Pattern::topk;
}
inline bool is_positional(Pattern p) {
  return p == Pattern::banded || p == Pattern::block;
}

// Throws InputError, naming the setting, unless the settings make sense for sequences of `length`
// tokens (global tokens included).
void check_settings(const AttentionSettings& settings, int length);

// Keys as lists: query i keeps keys[begin[i]], …, keys[begin[i+1]-1], ascending. `begin` has T+1
// numbers; nnz = begin[T] is the length of `keys`.

// The number of kept scores, nnz, over all T queries: T·k, and with g global tokens g more for
// each ordinary query and T for each global one; the last block may be short, and with a causal
// mask the first k-1 lists are.
int count_nnz(const AttentionSettings& settings, int T);

// Writes `begin` (T+1) and, for banded and block, `keys` (nnz). Full: k = T.
void fill_key_lists(const AttentionSettings& settings, int T, int* begin, int* keys);

}  // namespace focus
