// focus predict, show, eval, check: what one can do with weights in a file.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/command.h"
#include "cli/loaded.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/data_file.h"
#include "files/printable.h"
#include "files/safetensors.h"
#include "tasks/text.h"
//@ from 15
#include "text/text_data.h"
#include "text/text_model.h"
//@ end
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

struct Predict {
  std::string checkpoint, sequence;
};

int predict(const Predict& o) {
  Loaded<float> loaded = load_checkpoint<float>(o.checkpoint);
  Example example{parse_tokens(loaded.task, o.sequence), 0};
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
  evaluate(loaded.model, tape, pad_for(loaded, {example}), nullptr, &logits);

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

std::string printable(const std::string& foreign) {
  const std::string text = without_control(foreign);
  return text.size() > 200 ? text.substr(0, 200) + "…" : text;
}

int show(const std::string& name) {
  const Safetensors file = Safetensors::read(name);
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

std::string logits_csv(const std::vector<int>& labels, const std::vector<float>& logits) {
  const size_t classes = logits.size() / labels.size();
  std::string text = "row,label";
  for (size_t c = 0; c < classes; ++c) text += str(",logit_", c);
  text += "\n";
  for (size_t row = 0; row < labels.size(); ++row) {
    text += str(row + 1, ",", labels[row]);
    for (size_t c = 0; c < classes; ++c) text += format(",%.9g", double(logits[row * classes + c]));
    text += "\n";
  }
  return text;
}

struct Eval {
  std::string checkpoint, data, logits;
  int threads = default_threads();
};

//@ from 15
// Any text, in windows: a causal model's lie side by side, a pooled one's begin at every token, or
// at 10,000 places spread evenly.
int eval_text(const Eval& o, const Safetensors& file) {
  if (!o.logits.empty()) fail_input("--logits: a model of a text has too many to write");
  TextModel text = text_model(file, o.checkpoint);
  const std::string bytes = read_file(o.data, size_t{1} << 30);
  const std::vector<TokenId> tokens = text.tokenizer.encode(bytes);
  const ModelSettings& s = text.model.settings();
  const int64_t places = int64_t(tokens.size()) - s.length;
  if (places < 1)
    fail_input(o.data, ": has ", tokens.size(), " tokens, too few for a window of ", s.length,
               " and the token after it");
  const bool causal = s.objective == Objective::causal;
  const int rows =
      int(causal ? (places + s.length - 1) / s.length : std::min<int64_t>(places, 10000));
  PaddedData data = windows_of(tokens, s.vocabulary, s.length, rows, "data");
  if (causal) data.row_stride = s.length;
  Workers workers(o.threads);
  Tape<float> tape(workers);
  const auto result = evaluate(text.model, tape, data);
  if (!std::isfinite(result->loss)) fail_run("the loss is ", result->loss);
  const TextPart part{tokens, int64_t(bytes.size())};
  print(str("text, ", name_of(s.objective), ", ", tokens.size(), " tokens, ", rows, " windows of ",
            s.length, "\n",
            format("loss %.6f nats a token\nbits a byte %.6f\naccuracy %.2f %%\n", result->loss,
                   part.bits_per_byte(result->loss), result->accuracy)));
  return 0;
}
//@ end

int eval(const Eval& o) {
  //@ from 15
  if (const Safetensors file = Safetensors::read(o.checkpoint); is_text_model(file))
    return eval_text(o, file);
  //@ end
  check_new_file(o.logits);
  Loaded<float> loaded = load_checkpoint<float>(o.checkpoint);
  const PaddedData data = read_rows(loaded, o.data);
  Workers workers(o.threads);
  Tape<float> tape(workers);
  std::vector<float> logits;
  const auto result = evaluate(loaded.model, tape, data, nullptr, &logits);
  if (!std::isfinite(result->loss)) fail_run("the loss is ", result->loss);
  if (!o.logits.empty())
    write_file_atomically(o.logits, logits_csv(data.labels, logits), IfThere::refuse);
  print(str(loaded.task.name, ", ", data.rows, " examples\n",
            format("loss %.6f\naccuracy %.2f %%\n", result->loss, result->accuracy)));
  return 0;
}

struct Check {
  std::vector<std::string> files;
  std::string device = "cpu";
  int threads = default_threads();
};

int check(const Check& o) {
  const std::unique_ptr<Device> device = open_device(o.device);
  size_t compared = 0, failed = 0;
  double largest = 0;
  for (const std::string& name : o.files) {
    const std::vector<GoldenError> errors =
        check_golden(Safetensors::read(name), o.threads, device.get());
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
  const size_t files = o.files.size();
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

void add_model_commands(CLI::App& focus) {
  const auto [predicting, p] =
      add_command(focus, "predict", "the class probabilities of one sequence", predict);
  add_file(predicting, "--checkpoint", "FILE", p.checkpoint,
           "weights: DIR/seed-S/best.safetensors, say")
      ->required();
  add_text(predicting, "SEQUENCE", "", p.sequence,
           "its tokens with blanks between them, as one argument")
      ->required();
  add_footer(predicting,
             "Example: focus predict --checkpoint out/run/seed-1/best.safetensors \"0 1 1 0\"");

  const auto [showing, file] = add_command(focus, "show", "a file's settings and tensors", show);
  add_file(showing, "FILE", "", file, "a checkpoint, or any .safetensors file")->required();
  add_footer(showing, "Example: focus show out/run/seed-1/last.safetensors");

  const auto [evaluating, e] =
      add_command(focus, "eval", "a checkpoint's loss and accuracy on a data file", eval);
  add_file(evaluating, "--checkpoint", "FILE", e.checkpoint, "weights, of a run on the same task")
      ->required();
  add_file(evaluating, "--data", "FILE", e.data,
           "a data file, as 'focus data generate' writes it; any text for a model of --task text")
      ->required();
  add_file(evaluating, "--logits", "FILE", e.logits,
           "also write row,label,logit_0,… (rows count from 1)");
  add_threads(evaluating, e.threads);
  add_footer(evaluating,
             "Example: focus eval --checkpoint out/run/seed-1/best.safetensors --data parity.tsv");

  const auto [checking, c] =
      add_command(focus, "check", "recompute what golden files expect, and compare", check);
  add_device(checking, c.device);
  add_threads(checking, c.threads);
  add_texts(checking, "FILE", "", c.files,
            "golden files: weights, input, and what follows from them")
      ->required();
  add_footer(checking,
             "Compares logits, loss, gradients and one optimiser step. Exit status 0 only if all "
             "are within their limits.\nExample: focus check tests/golden/topk.safetensors");
}

}  // namespace focus
