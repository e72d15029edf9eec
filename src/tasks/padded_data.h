// What a model reads: rows of token ids, all of one length, and what it is to say about each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace focus {

using TokenId = uint16_t;
inline constexpr int most_token_ids = 65536;

// Rows of `length` tokens. Of a classification task they lie one after the other and each has a
// label. Of a text they are windows of one stream, which overlap where row_stride < length: then
// there are no labels, because what follows a token in the stream is what a model is to say.
struct PaddedData {
  int rows = 0, length = 0;          // length includes PAD and global tokens
  int vocabulary = 0;                // token ids are below it: the task's, PAD, global tokens
  std::vector<TokenId> tokens = {};  // [rows, length], or a stream that goes on after the last row
  std::vector<int> labels = {};      // [rows], or none
  int row_stride = 0;                // tokens between the beginnings of two rows; 0: length
  // The same for the numbers in an epoch's order; 0: row_stride. 1: windows are drawn that begin at
  // any token.
  int order_stride = 0;

  bool is_stream() const { return labels.empty(); }
  int stride() const { return row_stride > 0 ? row_stride : length; }
  int drawn_stride() const { return order_stride > 0 ? order_stride : stride(); }
  const TokenId* row(int r) const { return tokens.data() + ptrdiff_t{r} * stride(); }
  // The number of tokens that `rows` rows need.
  size_t needed_tokens() const {
    return rows == 0 ? 0 : size_t(rows - 1) * size_t(stride()) + size_t(length) + is_stream();
  }
};

// Appends the tokens of the row that begins at `begin`, and its `targets` labels: its own, or the
// tokens that follow its last `targets` tokens in the stream. So 1 is for a model that says one
// thing about a row, `length` for one that predicts the next token at every position.
inline void append_row_at(const PaddedData& data, size_t begin, int targets,
                          std::vector<int>& tokens, std::vector<int>& labels) {
  const TokenId *const first = data.tokens.data() + begin, *const end = first + data.length;
  tokens.insert(tokens.end(), first, end);
  if (data.is_stream())
    labels.insert(labels.end(), end + 1 - targets, end + 1);
  else
    labels.push_back(data.labels[begin / size_t(data.stride())]);
}
// Row number `row`.
inline void append_row(const PaddedData& data, int row, int targets, std::vector<int>& tokens,
                       std::vector<int>& labels) {
  append_row_at(data, size_t(row) * size_t(data.stride()), targets, tokens, labels);
}
// The row that an epoch's order calls `drawn`.
inline void append_drawn(const PaddedData& data, int drawn, int targets, std::vector<int>& tokens,
                         std::vector<int>& labels) {
  append_row_at(data, size_t(drawn) * size_t(data.drawn_stride()), targets, tokens, labels);
}

}  // namespace focus
