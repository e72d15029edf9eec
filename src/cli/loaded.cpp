#include "cli/loaded.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <map>

#include "files/atomic_file.h"
#include "files/data_file.h"
#include "tasks/text.h"
#include "train/checkpoint.h"
#include "train/settings.h"

namespace focus {

namespace {

// `ids`: with PAD and global tokens.
const Task& task_of_sizes(int tokens, int ids, int classes) {
  static std::map<std::array<int, 3>, Task> known;
  const auto [at, is_new] = known.try_emplace({tokens, ids, classes});
  Task& task = at->second;
  if (!is_new) return task;
  for (int id = 0; id < tokens; ++id) task.tokens.push_back(std::to_string(id));
  for (int id = tokens; id < ids; ++id) task.spellings.push_back({std::to_string(id), id});
  for (const Task& t : all_tasks())
    if (int(t.tokens.size()) == tokens && t.classes == classes && t.tokens != task.tokens)
      task.tokens = t.tokens, task.spellings = t.spellings;
  task.name = "a model without a task";
  task.classes = classes;
  task.evaluate = [](std::span<const uint8_t>) { return 0; };  // any string, any label
  return task;
}

}  // namespace

template <class T>
Loaded<T> load_checkpoint(const std::string& name, WithoutTask without_task) {
  const Safetensors file = Safetensors::read(name);
  const auto task = [&]() -> const Task& {
    if (!file.metadata.contains("task") && without_task == WithoutTask::accepted) {
      const ModelSettings s = read_model_settings(file);
      const int tokens = s.vocabulary - 1 - s.attention.global_tokens;
      if (tokens < 1 || s.vocabulary > 256)
        fail_input(name, ": metadata: vocab ", s.vocabulary, ": that of a model without a task is ",
                   s.attention.global_tokens + 2, " to 256");
      return task_of_sizes(tokens, s.vocabulary, s.classes);
    }
    try {
      return find_task(file.setting("task"));
    } catch (const InputError& error) {
      const std::string message = error.what();
      fail_input(message.starts_with(name) ? message : name + ": metadata: " + message);
    }
  };
  if (is_text(task()))
    fail_input(name, ": is a model of the next token of a text: 'focus generate' and 'focus eval' ",
               "take it, this command takes models that classify");
  const ModelSettings settings = read_model_settings(file);
  if (settings.objective == Objective::causal)
    fail_input(name,
               ": predicts a token at each position, and this command takes models that classify");
  Loaded<T> loaded{name, task(), Model<T>(settings)};
  read_weights(file, loaded.model);
  const ModelSettings& s = loaded.model.settings();
  const int ids = int(loaded.task.tokens.size()) + 1 + s.attention.global_tokens;
  if (s.vocabulary != ids || s.classes != loaded.task.classes)
    fail_input(name, ": its vocabulary of ", s.vocabulary, " and ", s.classes,
               " classes are not those of ", loaded.task.name, ", ", ids, " and ",
               loaded.task.classes);
  return loaded;
}

template <class T>
std::string attention_of(const Loaded<T>& loaded) {
  const AttentionSettings& a = loaded.model.settings().attention;
  RunSettings s;
  s.attention = a.pattern, s.k = a.k;
  s.global_tokens = a.global_tokens, s.score_scale = a.score_scale;
  return attention_text(s);
}

template <class T>
PaddedData pad_for(const Loaded<T>& loaded, const std::vector<Example>& examples) {
  return pad_examples(examples, loaded.task, 0, loaded.model.settings().attention.global_tokens,
                      loaded.room());
}

template <class T>
PaddedData read_rows(const Loaded<T>& loaded, const std::string& file, std::optional<int> samples) {
  std::vector<Example> examples = read_data_file(loaded.task, file);
  if (samples && *samples > int(examples.size()))
    fail_input("--samples ", *samples, ": ", file, " has ", examples.size(), " rows");
  if (samples) examples.resize(size_t(*samples));
  for (size_t i = 0; i < examples.size(); ++i)
    if (int(examples[i].tokens.size()) > loaded.room())
      fail_input(file, ", line ", i + 2, ": ", examples[i].tokens.size(),
                 " tokens, and the model of ", loaded.name, " has room for ", loaded.room());
  return pad_for(loaded, examples);
}

#define FOCUS_INSTANTIATE(T)                                                  \
  template Loaded<T> load_checkpoint(const std::string&, WithoutTask);        \
  template std::string attention_of(const Loaded<T>&);                        \
  template PaddedData pad_for(const Loaded<T>&, const std::vector<Example>&); \
  template PaddedData read_rows(const Loaded<T>&, const std::string&, std::optional<int>);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

void check_new_file(const std::string& file) {
  if (file.empty()) return;
  const std::filesystem::path path(file);
  if (std::filesystem::exists(std::filesystem::symlink_status(path)))
    fail_input(file, " is there already, and nothing is overwritten; give another name");
  if (path.has_parent_path() && !std::filesystem::is_directory(path.parent_path()))
    fail_input("cannot write ", file, ": there is no folder ", path.parent_path().string());
  if (access(path.has_parent_path() ? path.parent_path().c_str() : ".", W_OK) != 0)
    fail_file("cannot write", path, errno);
}

}  // namespace focus
