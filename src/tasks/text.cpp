#include "tasks/text.h"

#include "error.h"

namespace focus {

namespace {

[[noreturn]] void no_examples() {
  fail_input(
      "the task text has no examples in a data file: its data are a text that 'focus text prepare' "
      "has made ready, --text-data DIR");
}

}  // namespace

const Task& text_task() {
  static const Task task = [] {
    Task text;
    text.name = "text";
    text.defaults = {.train_size = 12800,
                     .val_size = 1000,
                     .length = 64,
                     .blocks = 8,
                     .d_model = 32,
                     .d_mlp = 128,
                     .epochs = 50,
                     .lr = 1.0,
                     .lr_decay = 0.99,
                     .batch = 128};
    text.longest_length = 16384;
    text.generate = [](Rng&, int) -> Example { no_examples(); };
    text.evaluate = [](std::span<const uint8_t>) -> int { no_examples(); };
    return text;
  }();
  return task;
}

PaddedData windows_of(std::vector<TokenId> tokens, int vocabulary, int length, int rows,
                      const char* flag) {
  PaddedData data;
  data.rows = rows, data.length = length, data.vocabulary = vocabulary;
  data.tokens = std::move(tokens);
  if (int64_t(data.tokens.size()) <= length)
    fail_input("--length ", length, ": the text has ", data.tokens.size(),
               " tokens, too few for a window and the token after it");
  const int places = window_places(data);
  if (rows > places)
    fail_input("--", flag, " ", rows, ": the text has ", places, " windows of ", length, " tokens");
  data.row_stride = places / rows, data.order_stride = 1;
  return data;
}

}  // namespace focus
