#include "text/unigram.h"

#include <algorithm>
#include <cmath>

namespace focus {

namespace {

constexpr float below_the_lowest = 10;  // the score of a character that is no piece

// Bytes of the character that begins with this one; 1 where none does.
size_t character_bytes(char lead) {
  const uint8_t byte = uint8_t(lead);
  return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

}  // namespace

size_t word_end(std::string_view text, size_t begin) {
  if (text[begin] == '\n') return begin + 1;
  const size_t end = text.find_first_of(" \n", begin + 1);
  return std::min({end, text.size(), begin + longest_word});
}

void UnigramPieces::add(std::string_view piece, float score, TokenId token) {
  lowest_ = pieces_.empty() ? score : std::min(lowest_, score);
  longest_ = std::max(longest_, piece.size());
  pieces_.emplace(piece, Entry{score, token});
}

void UnigramPieces::encode(std::string_view word, std::vector<TokenId>& tokens) const {
  // best[i]: of the first i bytes, the sum of the best cut's scores, and its last part: where it
  // begins, and its token, or none for a character that is no piece.
  struct Best {
    float score = -HUGE_VALF;
    uint32_t begin = 0;
    int token = -1;
  };
  std::vector<Best> best(word.size() + 1);
  best[0].score = 0;
  for (size_t begin = 0; begin < word.size(); ++begin) {
    const float before = best[begin].score;
    if (before == -HUGE_VALF) continue;  // within a character
    const auto part = [&](size_t bytes, float score, int token) {
      Best& end = best[begin + bytes];
      if (before + score > end.score) end = {before + score, uint32_t(begin), token};
    };
    const size_t left = word.size() - begin;
    part(std::min(character_bytes(word[begin]), left), lowest_ - below_the_lowest, -1);
    for (size_t bytes = 1; bytes <= std::min(longest_, left); ++bytes) {
      const auto found = pieces_.find(word.substr(begin, bytes));
      if (found != pieces_.end()) part(bytes, found->second.score, found->second.token);
    }
  }
  tokens.clear();
  for (size_t end = word.size(); end > 0; end = best[end].begin) {
    if (best[end].token >= 0) {
      tokens.push_back(TokenId(best[end].token));
      continue;
    }
    for (size_t i = end; i > best[end].begin; --i) tokens.push_back(uint8_t(word[i - 1]));
  }
  std::reverse(tokens.begin(), tokens.end());
}

}  // namespace focus
