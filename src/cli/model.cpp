// focus predict, show, eval, check: what one can do with weights in a file.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/command.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/data_file.h"
#include "files/safetensors.h"
#include "tasks/dataset.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/golden.h"
#include "train/run.h"

namespace focus {

namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

// A model with the weights of a checkpoint, and the task it was trained on.
struct Loaded {
  const Task& task;
  Model<float> model;
  // Tokens of an example that the model has room for.
  int room() const {
    const ModelSettings& s = model.settings();
    return s.length - s.attention.global_tokens;
  }
};

Loaded load(const std::string& name) {
  const Safetensors file = Safetensors::read(name);
  const auto task = [&]() -> const Task& {
    try {
      return find_task(file.setting("task"));
    } catch (const InputError& error) {
      const std::string message = error.what();
      fail_input(message.starts_with(name) ? message : name + ": metadata: " + message);
    }
  };
  Loaded loaded{task(), Model<float>(read_model_settings(file))};
  read_weights(file, loaded.model);
  const ModelSettings& s = loaded.model.settings();
  const int ids = int(loaded.task.tokens.size()) + 1 + s.attention.global_tokens;
  if (s.vocabulary != ids || s.classes != loaded.task.classes)
    fail_input(name, ": its vocabulary of ", s.vocabulary, " and ", s.classes,
               " classes are not those of ", loaded.task.name, ", ", ids, " and ",
               loaded.task.classes);
  return loaded;
}

PaddedData pad(const Loaded& loaded, const std::vector<Example>& examples) {
  return pad_examples(examples, loaded.task, 0, loaded.model.settings().attention.global_tokens,
                      loaded.room());
}

int predict_command(const Arguments& arguments) {
  Loaded loaded = load(arguments.file("checkpoint"));
  Example example{parse_tokens(loaded.task, arguments.words.at(0)), 0};
  if (example.tokens.empty()) fail_input("the sequence is empty");
  if (int(example.tokens.size()) > loaded.room())
    fail_input("the sequence has ", example.tokens.size(), " tokens, and the model has room for ",
               loaded.room());
  std::string rule;
  try {
    rule = str("the rule says ", loaded.task.evaluate(example.tokens));
  } catch (const InputError& error) {
    rule = str("no complete string of the task: ", error.what());
  }
  Workers workers;
  Tape<float> tape(workers);
  std::vector<float> logits;
  evaluate(loaded.model, tape, pad(loaded, {example}), nullptr, &logits);

  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double(logit) - double(*best));
  if (!std::isfinite(sum)) fail_run("the logits are not finite numbers");
  std::string text =
      str(loaded.task.name, ", ", example.tokens.size(), " tokens\n") + "class  probability\n";
  for (size_t c = 0; c < logits.size(); ++c)
    text += format("%5zu  %.6f\n", c, std::exp(double(logits[c]) - double(*best)) / sum);
  print(text + str("predicted ", best - logits.begin(), " (", rule, ")\n"));
  return 0;
}

// Settings and names may hold bytes that a terminal would obey.
std::string printable(std::string text) {
  for (char& c : text)
    if (uint8_t(c) < ' ' || c == 127) c = '?';
  return text.size() > 200 ? text.substr(0, 200) + "…" : text;
}

int show_command(const Arguments& arguments) {
  const Safetensors file = Safetensors::read(arguments.words.at(0));
  std::string text = "settings\n";
  for (const auto& [key, value] : file.metadata)
    text += format("  %-28s ", printable(key).c_str()) + printable(value) + "\n";
  text += "tensors\n";
  size_t elements = 0, parameters = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    text += format("  %-44s %-5s %-14s %9zu\n", printable(tensor.name).c_str(),
                   name_of(tensor.dtype), shape_text(tensor.shape).c_str(), tensor.count());
    elements += tensor.count();
    for (const char* part : {"embedding.", "encoder.", "linear."})
      if (tensor.name.starts_with(part)) parameters += tensor.count();
  }
  print(text + str(file.tensors().size(), " tensors, ", elements, " numbers, of them ", parameters,
                   " parameters of the model\n"));
  return 0;
}

std::string logits_csv(const std::vector<Example>& examples, const std::vector<float>& logits) {
  const size_t classes = logits.size() / examples.size();
  std::string text = "row,label";
  for (size_t c = 0; c < classes; ++c) text += str(",logit_", c);
  text += "\n";
  for (size_t row = 0; row < examples.size(); ++row) {
    text += str(row + 1, ",", examples[row].label);
    for (size_t c = 0; c < classes; ++c) text += format(",%.9g", double(logits[row * classes + c]));
    text += "\n";
  }
  return text;
}

int eval_command(const Arguments& arguments) {
  Loaded loaded = load(arguments.file("checkpoint"));
  const std::string& data = arguments.file("data");
  const std::string& out = arguments.file("logits");
  const std::vector<Example> examples = read_data_file(loaded.task, data);
  for (size_t i = 0; i < examples.size(); ++i)
    if (int(examples[i].tokens.size()) > loaded.room())
      fail_input(data, ", line ", i + 2, ": ", examples[i].tokens.size(),
                 " tokens, and the model has room for ", loaded.room());
  Workers workers(threads_of(arguments));
  Tape<float> tape(workers);
  std::vector<float> logits;
  const auto result = evaluate(loaded.model, tape, pad(loaded, examples), nullptr, &logits);
  if (!std::isfinite(result->loss)) fail_run("the loss is ", result->loss);
  if (!out.empty()) write_file_atomically(out, logits_csv(examples, logits));
  print(str(loaded.task.name, ", ", examples.size(), " examples\n",
            format("loss %.6f\naccuracy %.2f %%\n", result->loss, result->accuracy)));
  return 0;
}

int check_command(const Arguments& arguments) {
  const std::unique_ptr<Device> device = open_device(arguments.text("device"));
  const int threads = threads_of(arguments);
  size_t compared = 0, failed = 0;
  double largest = 0;
  for (const std::string& name : arguments.words) {
    const std::vector<GoldenError> errors =
        check_golden(Safetensors::read(name), threads, device.get());
    std::string text =
        name + "\n" +
        format("  %-48s %13s %10s %10s\n", "quantity", "largest error", "limit", "share");
    for (const GoldenError& e : errors) {
      const double share = e.error == 0 ? 0 : 100 * e.error / e.limit;
      text += format("  %-48s %13.2e %10.2e %8.2f %%%s\n", e.name.c_str(), e.error, e.limit, share,
                     e.ok() ? "" : "  FAILED");
      if (!(share <= largest)) largest = share;
      failed += e.ok() ? 0 : 1;
    }
    compared += errors.size();
    print(text);
  }
  const size_t files = arguments.words.size();
  if (failed > 0) {
    print(str("FAILED: ", failed, " of ", compared, " quantities in ", files,
              " file(s) exceed their limits\n"));
    fail_run("the check failed: ", failed, " of ", compared, " quantities exceed their limits");
  }
  print(str("passed: all ", compared, " quantities in ", files, " file(s) are within their limits",
            format(" (the largest error is %.2f %% of its limit)\n", largest)));
  return 0;
}

}  // namespace

std::vector<Command> model_commands() {
  Command predict{"predict", "the class probabilities of one sequence"};
  predict.flags = {{"checkpoint", "FILE", "weights: DIR/seed-S/best.safetensors, say", "", true}};
  predict.positionals = {{"SEQUENCE", "its tokens with blanks between them, as one argument"}};
  predict.more = "Example: focus predict --checkpoint out/run/seed-1/best.safetensors \"0 1 1 0\"";
  predict.run = predict_command;

  Command show{"show", "a file's settings and tensors"};
  show.positionals = {{"FILE", "a checkpoint, or any .safetensors file"}};
  show.more = "Example: focus show out/run/seed-1/last.safetensors";
  show.run = show_command;

  Command eval{"eval", "a checkpoint's loss and accuracy on a data file"};
  eval.flags = {{"checkpoint", "FILE", "weights, of a run on the same task", "", true},
                {"data", "FILE", "a data file, as 'focus data generate' writes it", "", true},
                {"logits", "FILE", "also write row,label,logit_0,… (rows count from 1)"},
                threads_flag()};
  eval.more = "Example: focus eval --checkpoint out/run/seed-1/best.safetensors --data parity.tsv";
  eval.run = eval_command;

  Command check{"check", "recompute what golden files expect, and compare"};
  check.flags = {device_flag(), threads_flag()};
  check.positionals = {{"FILE", "golden files: weights, input, and what follows from them", true}};
  check.more =
      "Compares logits, loss, gradients and one optimiser step. Exit status 0 only if all "
      "are within their limits.\nExample: focus check tests/golden/topk.safetensors";
  check.run = check_command;
  return {predict, show, eval, check};
}

}  // namespace focus
