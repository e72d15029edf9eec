#include "text/bpe.h"

#include <algorithm>
#include <map>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace focus {

namespace {

enum class Kind { space, letter, digit, sign };

Kind kind_of(char c) {
  if (c == ' ' || (c >= '\t' && c <= '\r')) return Kind::space;
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || uint8_t(c) >= 128) return Kind::letter;
  return c >= '0' && c <= '9' ? Kind::digit : Kind::sign;
}

// A chunk that occurs `times` times, as tokens.
struct Word {
  std::vector<TokenId> tokens;
  int64_t times = 0;
};

uint32_t key_of(TokenId left, TokenId right) {
  return uint32_t{left} << 16 | right;
}

std::vector<Word> different_chunks(std::string_view text) {
  constexpr size_t most_bytes = size_t{1} << 20;
  std::unordered_map<std::string_view, size_t> index;
  std::vector<Word> words;
  size_t held = 0;
  for_chunks(text, chunk_end, [&](std::string_view chunk) {
    const auto known = index.find(chunk);
    if (known != index.end()) {
      ++words[known->second].times;
    } else if (held < most_bytes) {
      index.emplace(chunk, words.size());
      Word& word = words.emplace_back();
      for (const char c : chunk) word.tokens.push_back(uint8_t(c));
      word.times = 1;
      held += chunk.size();
    }
  });
  return words;
}

// How often each pair of neighbours occurs, and in which words: kept up to date from merge to
// merge, which changes few words, instead of counted anew.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) count(w, +1);
    for (const auto& [pair, times] : times_) candidates_.push({times, pair});
  }

  // The most frequent pair, of equal ones that with the lowest ids; false: none occurs twice.
  bool best(uint32_t& pair) {
    while (!candidates_.empty()) {
      const Candidate top = candidates_.top();
      const auto now = times_.find(top.pair);
      if (now != times_.end() && now->second == top.times) {
        pair = top.pair;
        return top.times >= 2;
      }
      candidates_.pop();  // an older count; the present one has an entry of its own
    }
    return false;
  }

  void merge(uint32_t pair, TokenId made) {
    changed_.clear();
    const std::unordered_set<uint32_t> inside = std::move(places_[pair]);
    for (const uint32_t w : inside) {
      count(w, -1);
      apply_merge(words_[w].tokens, {TokenId(pair >> 16), TokenId(pair)}, made);
      count(w, +1);
    }
    places_.erase(pair);
    times_.erase(pair);
    for (const uint32_t other : changed_)
      if (const auto now = times_.find(other); now != times_.end())
        candidates_.push({now->second, other});
  }

 private:
  struct Candidate {
    int64_t times;
    uint32_t pair;
    bool operator<(const Candidate& other) const {  // the queue's top is the largest
      return times != other.times ? times < other.times : pair > other.pair;
    }
  };

  void count(size_t w, int sign) {
    const Word& word = words_[w];
    for (size_t i = 0; i + 1 < word.tokens.size(); ++i) {
      const uint32_t pair = key_of(word.tokens[i], word.tokens[i + 1]);
      times_[pair] += sign * word.times;
      changed_.insert(pair);
      if (sign > 0) places_[pair].insert(uint32_t(w));
    }
  }

  std::vector<Word> words_;
  std::unordered_map<uint32_t, int64_t> times_;
  // Words that held the pair when it was last counted there; some may have lost it since.
  std::unordered_map<uint32_t, std::unordered_set<uint32_t>> places_;
  std::unordered_set<uint32_t> changed_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

size_t chunk_end(std::string_view text, size_t begin) {
  const size_t limit = std::min(text.size(), begin + longest_chunk);
  size_t at = begin;
  if (text[at] == ' ' && at + 1 < limit && kind_of(text[at + 1]) != Kind::space) ++at;
  const Kind kind = kind_of(text[at]);
  for (++at; at < limit && kind_of(text[at]) == kind;) ++at;
  // A run of white space leaves a last blank to the word that follows.
  const bool word_follows = at < text.size() && kind_of(text[at]) != Kind::space;
  if (kind == Kind::space && word_follows && at - begin > 1 && text[at - 1] == ' ') --at;
  return at;
}

void apply_merge(std::vector<TokenId>& tokens, const Merge& merge, TokenId made) {
  //@ gap 15 apply-merge
  size_t kept = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool here =
        i + 1 < tokens.size() && tokens[i] == merge.left && tokens[i + 1] == merge.right;
    tokens[kept++] = here ? made : tokens[i];
    if (here) ++i;
  }
  tokens.resize(kept);
  //@ end
}

std::vector<Merge> learn_merges(std::string_view text, int count) {
  PairCounts pairs(different_chunks(text));
  std::vector<Merge> merges;
  for (uint32_t pair = 0; int(merges.size()) < count && pairs.best(pair);) {
    pairs.merge(pair, TokenId(byte_values + int(merges.size())));
    merges.push_back({TokenId(pair >> 16), TokenId(pair)});
  }
  return merges;
}

}  // namespace focus
