// Everything that describes a training run, once: the same list of settings makes the command
// line's flags, settings.json in the output folder, and the metadata of checkpoints.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "digits.h"
#include "model/model.h"
#include "tasks/task.h"
#include "tensor/precision.h"
#include "train/optimizer.h"
#include "train/seeds.h"

namespace focus {

struct RunSettings {
  std::string task = "even-pairs";
  Pattern attention = Pattern::full;
  int k = 0;  // required by every attention but full
  int global_tokens = 0;
  double score_scale = 1;  // attention/pattern.h
  int blocks = 5, heads = 1, d_model = 64, d_mlp = 64;
  Activation activation = Activation::relu;
  double dropout = 0.01;
  double layer_norm_epsilon = 1e-5, first_layer_norm_epsilon = 1e-5;
  OptimizerKind optimizer = OptimizerKind::sgd;
  double lr = 0.1, lr_decay = 0.9995, clip = 0.5;  // clip 0: none
  // Of W_q, W_k and their biases: how much larger than usual they start, and their rate beside the
  // others'. Frozen, they are not trained at all.
  double qk_scale = 1, qk_rate = 1;
  bool freeze_qk = false;
  int batch = 25, epochs = 100;
  Precision precision = Precision::fp32;  // another one needs a device
  int train_size = 5000, val_size = 2000, length = 40;
  std::string train_data, val_data;  // files; empty: generated
  // What the model says: a class, or of a text the next token (model/model.h, tasks/padded_data.h).
  Objective objective = Objective::classify;
  std::string text_data;  // the folder of the text's tokens; empty: a classification task
  // What they held when the run began (train/inputs.h); empty: an older run, which did not say.
  std::string train_data_record, val_data_record, text_data_record;

  // Token ids that the data have before padding and global tokens.
  int vocabulary() const;

  // The paper's settings for the task (full attention).
  static RunSettings defaults_for(const Task& task);
  // The settings of the model for padded sequences of this length and vocabulary.
  ModelSettings model_settings(int vocabulary, int padded_length) const;
};

// One setting as text. `set` throws InputError when the text is no value of that kind.
struct SettingField {
  const char* name;  // "lr-decay"
  const char* help;
  std::string (*get)(const RunSettings&);
  void (*set)(RunSettings&, const std::string& text);
  // A setting that older files do not know: left out of files where it has its usual value, and
  // missing there it means that.
  bool may_be_missing = false;
  bool is_flag = true;  // false: the program sets it itself
  bool in_files(const RunSettings& settings) const;
};
std::span<const SettingField> setting_fields();

using TextMap = std::map<std::string, std::string>;
TextMap to_text(const RunSettings& settings);
// Every setting must be there that may not be missing; unknown keys are refused. `where` names the
// source in messages.
RunSettings settings_from_text(const TextMap& text, const std::string& where);

// Checks each value's range and their combination. Throws InputError naming the flag.
void check_settings(const RunSettings& settings);

// Precisions that only a device's kernels know. InputError that names --precision and says why
// there is none here: `problem`.
void check_precision(const RunSettings& settings, const std::string& problem);

// "full", "topk(5)", "banded(5)+1": the short name of what a query attends to; "full*4" with scores
// multiplied by 4.
std::string attention_text(const RunSettings& settings);

// Whole text → number; InputError "'abc' is not a whole number" and the like.
int64_t parse_integer(const std::string& text);
double parse_number(const std::string& text);  // finite

}  // namespace focus
