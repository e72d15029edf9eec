// Rows to look at, as a stepper takes them.
#pragma once

#include <memory>

#include "train/stepper.h"

namespace focus {

// The rows as training data; a stepper wants held-out ones, too: the first of them.
inline std::shared_ptr<const RunData> only_rows(const PaddedData& data) {
  PaddedData one = data;
  one.rows = 1, one.tokens.resize(one.needed_tokens());
  if (!data.is_stream()) one.labels.resize(1);
  return std::make_shared<const RunData>(RunData{data, std::move(one)});
}

}  // namespace focus
