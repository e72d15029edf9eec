// A unigram tokenizer (Kudo 2018), the paper's smaller one: each piece of text has a probability of
// its own, and a word is cut into the pieces whose probabilities have the largest product. Token
// ids 0 … 255 are the bytes, for what no piece matches; piece number i is token 256 + i.
//
// Words begin with their blank, as in text/bpe.h, and no piece crosses the end of one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tasks/padded_data.h"

namespace focus {

inline constexpr size_t longest_word = 4096;  // bytes: what cutting a word needs is bounded

// The word that begins at `begin` ends here: before the next blank, or after a line break.
size_t word_end(std::string_view text, size_t begin);

class UnigramPieces {
 public:
  // Of at least one byte. The score is the logarithm of its probability.
  void add(std::string_view piece, float score, TokenId token);
  bool contains(std::string_view piece) const { return pieces_.find(piece) != pieces_.end(); }

  // The best cut of a word: over all cuts into pieces and single characters the one with the
  // largest sum of scores, where a character that is no piece counts as 10 below the unlikeliest
  // one, and becomes its bytes (as in SentencePiece). Of equal ones that whose last pieces begin
  // earlier.
  void encode(std::string_view word, std::vector<TokenId>& tokens) const;

 private:
  struct Entry {
    float score = 0;
    TokenId token = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> pieces_;
  size_t longest_ = 0;
  float lowest_ = 0;
};

}  // namespace focus
