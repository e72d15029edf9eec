// What commands load: a checkpoint with its task, and data for it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/model.h"
#include "tasks/dataset.h"

namespace focus {

template <class T>
struct Loaded {
  std::string name;  // of the file
  const Task& task;
  Model<T> model;

  // Tokens of an example that the model has room for.
  int room() const {
    const ModelSettings& s = model.settings();
    return s.length - s.attention.global_tokens;
  }
};

// InputError unless it is a checkpoint with its task's vocabulary and classes. A file that names no
// task, as golden files are, is for commands that need no rule for labels. It gets a task without
// one: its tokens are written as in the task with as many tokens and classes, where there is one,
// else as their ids, and then PAD and global tokens may stand among them.
enum class WithoutTask { refused, accepted };
template <class T>
Loaded<T> load_checkpoint(const std::string& name, WithoutTask = WithoutTask::refused);

// What its queries attend to, as tables have it: "topk(5)" (train/settings.h).
template <class T>
std::string attention_of(const Loaded<T>& loaded);

template <class T>
PaddedData pad_for(const Loaded<T>& loaded, const std::vector<Example>& examples);

// The first `samples` rows of a data file (default: all), padded for the model. InputError for a
// row that is too long, and for more samples than rows.
template <class T>
PaddedData read_rows(const Loaded<T>& loaded, const std::string& file,
                     std::optional<int> samples = {});

// InputError if a result that is to be written there cannot be: there is a file already, or no
// folder that one may write to. Asked before the work.
void check_new_file(const std::string& file);

}  // namespace focus
