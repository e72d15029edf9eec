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
  int rows = 0, length = 0;  // length includes PAD and global tokens
  int vocabulary = 0;        // token ids are below it: the task's, PAD, global tokens
  std::vector<TokenId>
      tokens;               // [rows, length], or a stream that ends one token after the last row
  std::vector<int> labels;  // [rows], or none
  int row_stride = 0;       // tokens between the beginnings of two rows; 0: length

  bool is_stream() const { return labels.empty(); }
  int stride() const { return row_stride > 0 ? row_stride : length; }
  const TokenId* row(int r) const { return tokens.data() + ptrdiff_t{r} * stride(); }
  // The number of tokens that `rows` rows need.
  size_t needed_tokens() const {
    return rows == 0 ? 0 : size_t(rows - 1) * size_t(stride()) + size_t(length) + is_stream();
  }
};

// Where a row begins that an epoch's order names: in a classification task by its number. Windows
// of a text are drawn anywhere, so there the order holds the offsets of their first tokens.
inline size_t begin_of_drawn(const PaddedData& data, int named) {
  return size_t(named) * size_t(data.is_stream() ? 1 : data.stride());
}

// Appends the tokens of the row that begins at `begin`, and its `targets` labels: its own, or the
// tokens that follow its last `targets` tokens in the stream. So 1 is for a model that says one
// thing about a row, `length` for one that predicts the next token at every position.
inline void append_row(const PaddedData& data, size_t begin, int targets, std::vector<int>& tokens,
                       std::vector<int>& labels) {
  const TokenId *const first = data.tokens.data() + begin, *const end = first + data.length;
  tokens.insert(tokens.end(), first, end);
  if (data.is_stream())
    labels.insert(labels.end(), end + 1 - targets, end + 1);
  else
    labels.push_back(data.labels[begin / size_t(data.stride())]);
}
inline void append_tokens(const PaddedData& data, int row, std::vector<int>& tokens) {
  tokens.insert(tokens.end(), data.row(row), data.row(row) + data.length);
}

}  // namespace focus
