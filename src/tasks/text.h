// The text task (F13 of the paper: its Figures 19 and 20): which token comes next?
//
// Its data are no examples that somebody draws, but windows of one long stream of tokens
// (text/text_data.h).
//
//   pooled   as in the paper: from a window of T tokens, the mean of what the encoder makes of them
//            predicts the one token after it
//   causal   as language models do: at each of the T positions the next token is predicted from the
//            tokens up to there
#pragma once

#include "tasks/padded_data.h"
#include "tasks/task.h"

namespace focus {

// The settings of the paper's smaller model: 8 blocks, d 32, mlp 128, batch 128, learning rate 1.
const Task& text_task();
inline bool is_text(const Task& task) {
  return &task == &text_task();
}

// The stream with `rows` windows of `length` tokens: so many are drawn in an epoch, and so many,
// spread evenly over the stream, are evaluated. InputError, which names `flag`, unless the stream
// has that many different ones.
PaddedData windows_of(std::vector<TokenId> tokens, int vocabulary, int length, int rows,
                      const char* flag);

// The number of tokens at which a window can begin: one must follow it.
inline int window_places(const PaddedData& data) {
  return int(data.tokens.size()) - data.length;
}

}  // namespace focus
