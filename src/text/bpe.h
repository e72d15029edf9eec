// Byte-pair encoding (Gage 1994; for language models Sennrich et al. 2016), on bytes, so that it
// takes any input: token ids 0 … 255 are the bytes, and merge number i makes token 256 + i from two
// earlier ones that often stand side by side.
//
// The text is first cut into chunks, about a word each with the blank before it. No token crosses
// the end of a chunk. So " king" is one token wherever it stands, "king, and" is none, and both
// training and encoding look at each different chunk once.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/padded_data.h"

namespace focus {

inline constexpr int byte_values = 256;
inline constexpr size_t longest_chunk = 64;  // bytes: what encoding a chunk costs is bounded

// The chunk that begins at `begin` ends here: a run of letters (bytes from 128 on are letters), of
// digits or of other signs, each with one blank before it; or a run of white space, whose last
// blank belongs to the word after it.
size_t chunk_end(std::string_view text, size_t begin);

// Calls f with one chunk of the text after the other; `end` says where one ends.
template <class F>
void for_chunks(std::string_view text, size_t (*end)(std::string_view, size_t), const F& f) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t stop = end(text, begin);
    f(text.substr(begin, stop - begin));
    begin = stop;
  }
}

struct Merge {
  TokenId left = 0, right = 0;
  bool operator==(const Merge&) const = default;
};

// Replaces every occurrence of `merge` in `tokens` by `made`, from the left: in a a a the first two
// are replaced.
void apply_merge(std::vector<TokenId>& tokens, const Merge& merge, TokenId made);

// The first `count` merges for a text: each joins the pair that occurs most often at that moment,
// the one with the lowest ids of equally frequent ones. Fewer, when no pair occurs twice any more.
// Once the different chunks hold 1 MiB, new ones are no longer looked at: the memory is bounded.
std::vector<Merge> learn_merges(std::string_view text, int count);

}  // namespace focus
