// What a model reads: a rectangle of token ids, and labels.
#pragma once

#include <cstdint>
#include <vector>

namespace focus {

using TokenId = uint16_t;

// Examples as a rectangle of rows × length token ids, row after row.
struct PaddedData {
  int rows = 0, length = 0;     // length includes PAD and global tokens
  int vocabulary = 0;           // token ids are below it: the task's, PAD, global tokens
  std::vector<uint8_t> tokens;  // [rows, length]
  std::vector<int> labels;      // [rows]
};

}  // namespace focus
