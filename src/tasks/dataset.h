// Data sets: many examples of a task, and the padded matrix of token ids that a model reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tasks/padded_data.h"
#include "tasks/task.h"

namespace focus {

// Splits of generated data: for training, and held out for evaluation.
inline constexpr uint32_t train_split = 0, held_out_split = 1;

// `count` examples. Example i of a split depends on (seed, split, i) alone, so asking for more
// keeps the first ones. Where the task asks for distinct examples, a repetition within the split is
// drawn again, and a hash of the tokens assigns half of all trees to split 0 and the other half to
// split 1: the splits share none, whatever their sizes. Then an example also depends on those
// before it in its split, and only splits 0 and 1 exist.
//
// Throws InputError when count, length or their product is out of range, or when fewer distinct
// examples of that length exist.
std::vector<Example> generate_examples(const Task& task, int count, int length, uint64_t seed,
                                       uint32_t split);

// The seed of the data of a run: the run's own, except for list operations, which use one data set
// for all runs (as in the paper).
uint64_t data_seed(const Task& task, uint64_t run_seed);

// The number of tokens of the longest example (0 for none).
int longest_example(std::span<const Example> examples);

// Fills every row at its end with PAD (the first id after the task's tokens): up to the longest
// row, at least to `at_least_length`, and on to a multiple of k (k <= 0: to no multiple). Then
// appends `global_tokens` tokens with ids PAD+1, PAD+2, ... to each row. For train and held-out
// data to get the same length, pass the longest of both as `at_least_length`.
//
// Throws InputError when there are no rows, when the ids exceed a byte, or when the rectangle would
// hold more than 2^31 - 1 tokens.
PaddedData pad_examples(std::span<const Example> examples, const Task& task, int k,
                        int global_tokens, int at_least_length);

}  // namespace focus
