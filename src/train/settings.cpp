#include "train/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "tasks/text.h"
#include "train/inputs.h"

namespace focus {

namespace {

int parse_int(const std::string& text) {
  const int64_t value = parse_integer(text);
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max())
    fail_input("'", text, "' is out of range");
  return int(value);
}

#define FOCUS_INT(flag, member, help)                                          \
  {                                                                            \
    flag, help, [](const RunSettings& s) { return std::to_string(s.member); }, \
        [](RunSettings& s, const std::string& t) { s.member = parse_int(t); }  \
  }
#define FOCUS_NUMBER(flag, member, help)                                         \
  {                                                                              \
    flag, help, [](const RunSettings& s) { return number_text(s.member); },      \
        [](RunSettings& s, const std::string& t) { s.member = parse_number(t); } \
  }
#define FOCUS_NAME(flag, member, parse, help)                                        \
  {                                                                                  \
    flag, help, [](const RunSettings& s) { return std::string(name_of(s.member)); }, \
        [](RunSettings& s, const std::string& t) { s.member = parse(t); }            \
  }
#define FOCUS_TEXT(flag, member, help)                             \
  {                                                                \
    flag, help, [](const RunSettings& s) { return s.member; },     \
        [](RunSettings& s, const std::string& t) { s.member = t; } \
  }

const SettingField fields[] = {
    {"task", "what to learn", [](const RunSettings& s) { return s.task; },
     [](RunSettings& s, const std::string& t) { s.task = find_task(t).name; }},
    FOCUS_NAME("attention", attention, pattern_of, "full, banded, block, topk, bottomk or random"),
    FOCUS_INT("k", k, "keys each query keeps (every attention but full)"),
    FOCUS_INT("global-tokens", global_tokens,
              "extra tokens that see and are seen by all (banded, block)"),
    {"score-scale",
     "a factor on the scores beside 1/sqrt(d), above 0: 4 makes a sharper softmax, 0.5 a flatter "
     "one",
     [](const RunSettings& s) { return number_text(s.score_scale); },
     [](RunSettings& s, const std::string& t) { s.score_scale = parse_number(t); }, true},
    FOCUS_INT("blocks", blocks, "transformer blocks"),
    FOCUS_INT("heads", heads, "attention heads, each d-model wide"),
    FOCUS_INT("d-model", d_model, "channels of a token"),
    FOCUS_INT("d-mlp", d_mlp, "hidden units of the feed-forward half"),
    FOCUS_NAME("activation", activation, activation_of, "relu, gelu or mish"),
    FOCUS_NUMBER("dropout", dropout, "probability that a number is dropped"),
    FOCUS_NUMBER("layer-norm-epsilon", layer_norm_epsilon, "added to the variance in layer norm"),
    FOCUS_NUMBER("first-layer-norm-epsilon", first_layer_norm_epsilon,
                 "the same in the first block's attention norm (the authors use 0)"),
    FOCUS_NAME("optimizer", optimizer, optimizer_of, "sgd or adam"),
    FOCUS_NUMBER("lr", lr, "learning rate"),
    FOCUS_NUMBER("lr-decay", lr_decay, "factor on the rate after each epoch"),
    FOCUS_NUMBER("clip", clip, "largest norm of the gradient, 0 for no limit"),
    {"qk-scale",
     "how many times larger W_q, W_k and their biases start; S makes scores S^2 times larger",
     [](const RunSettings& s) { return number_text(s.qk_scale); },
     [](RunSettings& s, const std::string& t) { s.qk_scale = parse_number(t); }, true},
    {"qk-rate", "the learning rate of W_q, W_k and their biases, in times that of all others",
     [](const RunSettings& s) { return number_text(s.qk_rate); },
     [](RunSettings& s, const std::string& t) { s.qk_rate = parse_number(t); }, true},
    {"freeze-qk", "W_q, W_k and their biases stay as they start",
     [](const RunSettings& s) { return std::string(s.freeze_qk ? "yes" : "no"); },
     [](RunSettings& s, const std::string& t) {
       if (t != "yes" && t != "no") fail_input("'", t, "' is neither yes nor no");
       s.freeze_qk = t == "yes";
     },
     true},
    FOCUS_INT("batch", batch, "sequences a step"),
    FOCUS_INT("epochs", epochs, "passes over the training set"),
    {"precision",
     "of the step kernel's products (--device cuda, short models): fp32, 3xtf32, tf32 or bf16",
     [](const RunSettings& s) { return std::string(name_of(s.precision)); },
     [](RunSettings& s, const std::string& t) { s.precision = precision_of(t); }, true},
    {"objective",
     "classify; of a text: pooled predicts the token after a window from the mean of its tokens, "
     "causal the next token at every position",
     [](const RunSettings& s) { return std::string(name_of(s.objective)); },
     [](RunSettings& s, const std::string& t) { s.objective = objective_of(t); }, true},
    {"text-data", "the folder of a text's tokens ('focus text prepare --out')",
     [](const RunSettings& s) { return s.text_data; },
     [](RunSettings& s, const std::string& t) { s.text_data = t; }, true},
    FOCUS_INT("train-size", train_size, "training examples to generate"),
    FOCUS_INT("val-size", val_size, "held-out examples to generate"),
    FOCUS_INT("length", length, "tokens a sequence (list operations: the largest size)"),
    FOCUS_TEXT("train-data", train_data, "a data file to train on instead of generated examples"),
    FOCUS_TEXT("val-data", val_data, "a data file of held-out examples"),
    {"train-data-record", "", [](const RunSettings& s) { return s.train_data_record; },
     [](RunSettings& s, const std::string& t) { s.train_data_record = t; }, true, false},
    {"val-data-record", "", [](const RunSettings& s) { return s.val_data_record; },
     [](RunSettings& s, const std::string& t) { s.val_data_record = t; }, true, false},
    {"text-data-record", "", [](const RunSettings& s) { return s.text_data_record; },
     [](RunSettings& s, const std::string& t) { s.text_data_record = t; }, true, false},
};

}  // namespace

std::string attention_text(const RunSettings& s) {
  std::string text = name_of(s.attention);
  if (uses_k(s.attention)) text += str("(", s.k, ")");
  if (s.global_tokens > 0) text += str("+", s.global_tokens);
  if (s.score_scale != 1) text += str("*", number_text(s.score_scale));
  return text;
}

int64_t parse_integer(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) fail_input("'", text, "' is out of range");
  if (error != std::errc() || stop != end) fail_input("'", text, "' is not a whole number");
  return value;
}

double parse_number(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) fail_input("'", text, "' is out of range");
  if (error != std::errc() || stop != end) fail_input("'", text, "' is not a number");
  if (!std::isfinite(value)) fail_input("'", text, "' is not a finite number");
  return value;
}

RunSettings RunSettings::defaults_for(const Task& task) {
  RunSettings s;
  const TaskDefaults& d = task.defaults;
  s.task = task.name;
  s.train_size = d.train_size, s.val_size = d.val_size, s.length = d.length;
  s.blocks = d.blocks, s.d_model = d.d_model, s.d_mlp = d.d_mlp;
  s.epochs = d.epochs, s.lr = d.lr, s.lr_decay = d.lr_decay, s.batch = d.batch;
  if (is_text(task)) s.objective = Objective::pooled;
  return s;
}

int RunSettings::vocabulary() const {
  if (text_data.empty()) return int(find_task(task).tokens.size());
  if (text_data_record.empty()) return 256;  // not read yet: at least the bytes
  return parse_record(text_data_record, text_data).vocabulary;
}

ModelSettings RunSettings::model_settings(int vocabulary, int padded_length) const {
  ModelSettings m;
  m.attention = {
      attention, k, global_tokens, heads, dropout, score_scale, objective == Objective::causal};
  m.objective = objective;
  m.activation = activation;
  m.vocabulary = vocabulary;
  m.classes = objective == Objective::classify ? find_task(task).classes : vocabulary;
  m.length = padded_length;
  m.blocks = blocks, m.d_model = d_model, m.d_mlp = d_mlp;
  m.dropout = dropout;
  m.layer_norm_epsilon = layer_norm_epsilon;
  m.first_layer_norm_epsilon = first_layer_norm_epsilon;
  return m;
}

std::span<const SettingField> setting_fields() {
  return fields;
}

bool SettingField::in_files(const RunSettings& settings) const {
  return !may_be_missing || get(settings) != get(RunSettings());
}

TextMap to_text(const RunSettings& settings) {
  TextMap text;
  for (const SettingField& field : fields)
    if (field.in_files(settings)) text[field.name] = field.get(settings);
  return text;
}

RunSettings settings_from_text(const TextMap& text, const std::string& where) {
  RunSettings settings;
  for (const SettingField& field : fields) {
    const auto found = text.find(field.name);
    if (found == text.end() && field.may_be_missing) continue;
    if (found == text.end()) fail_input(where, ": the setting '", field.name, "' is missing");
    try {
      field.set(settings, found->second);
    } catch (const InputError& error) {
      fail_input(where, ": setting '", field.name, "': ", error.what());
    }
  }
  for (const auto& entry : text)
    if (std::none_of(std::begin(fields), std::end(fields),
                     [&](const SettingField& field) { return entry.first == field.name; }))
      fail_input(where, ": the setting '", entry.first, "' is unknown");
  try {
    check_settings(settings);
  } catch (const InputError& error) {
    fail_input(where, ": ", error.what());
  }
  return settings;
}

void check_precision(const RunSettings& s, const std::string& problem) {
  if (s.precision == Precision::fp32 || problem.empty()) return;
  fail_input("--precision ", name_of(s.precision),
             " is for --device cuda and models with d-model and ",
             "d-mlp 64 and one head; here: ", problem);
}

void check_settings(const RunSettings& s) {
  const Task& task = find_task(s.task);
  const auto in_range = [](const char* flag, double value, double low, double high) {
    const auto plain = [](double number) {  // a million as 1000000
      return number == std::floor(number) ? std::to_string(int64_t(number)) : number_text(number);
    };
    if (!(value >= low && value <= high))
      fail_input("--", flag, " ", plain(value), " is not between ", plain(low), " and ",
                 plain(high));
  };
  // float32 has to hold such factors.
  if (!(s.score_scale >= 1e-30 && s.score_scale <= 1e30))
    fail_input("--score-scale ", number_text(s.score_scale),
               " is not a positive factor from 1e-30 to 1e30");
  in_range("blocks", s.blocks, 1, 1000);
  in_range("heads", s.heads, 1, 256);
  in_range("d-model", s.d_model, 1, 4096);
  in_range("d-mlp", s.d_mlp, 1, 16384);
  in_range("batch", s.batch, 1, 100000);
  in_range("epochs", s.epochs, 1, 1000000);
  in_range("train-size", s.train_size, 1, 10000000);
  in_range("val-size", s.val_size, 1, 10000000);
  if (s.train_data.empty() || s.val_data.empty())  // what is generated has this length
    in_range("length", s.length, task.shortest_length, std::min(task.longest_length, 16384));
  if (!(s.dropout >= 0 && s.dropout < 1)) fail_input("--dropout ", s.dropout, " is not in [0, 1)");
  in_range("layer-norm-epsilon", s.layer_norm_epsilon, 0, 1);
  in_range("first-layer-norm-epsilon", s.first_layer_norm_epsilon, 0, 1);
  if (!(s.lr > 0 && s.lr <= 1e6)) fail_input("--lr ", s.lr, " is not a positive rate up to 1e6");
  if (!(s.lr_decay > 0 && s.lr_decay <= 2))
    fail_input("--lr-decay ", s.lr_decay, " is not in (0, 2]");
  in_range("clip", s.clip, 0, 1e9);
  for (const auto& [flag, factor] : {std::pair("qk-scale", s.qk_scale), {"qk-rate", s.qk_rate}})
    if (!(factor >= 1e-30 && factor <= 1e6))
      fail_input("--", flag, " ", number_text(factor),
                 " is not a positive factor from 1e-30 to 1e6");
  if (s.freeze_qk && s.qk_rate != 1)
    fail_input("--freeze-qk leaves nothing for --qk-rate ", number_text(s.qk_rate), " to act on");
  in_range("global-tokens", s.global_tokens, 0, 64);
  if (s.global_tokens > 0 && !is_positional(s.attention))
    fail_input("--global-tokens ", s.global_tokens, " goes with --attention banded or block, not ",
               name_of(s.attention));
  if (is_text(task) != (s.objective != Objective::classify))
    fail_input("--objective ", name_of(s.objective), " does not go with --task ", s.task,
               ": text has pooled and causal, every other task classify");
  if (is_text(task) && s.text_data.empty())
    fail_input("--task text needs --text-data DIR, which 'focus text prepare' makes");
  if (!is_text(task) && !s.text_data.empty())
    fail_input("--text-data goes with --task text, not with --task ", s.task);
  if (is_text(task) && !(s.train_data.empty() && s.val_data.empty()))
    fail_input("--", s.train_data.empty() ? "val" : "train",
               "-data does not go with --task text, whose data are --text-data");
  if (is_text(task) && s.global_tokens > 0)
    fail_input("--global-tokens does not go with --task text");
  if (s.objective == Objective::causal && !may_be_causal(s.attention))
    fail_input("--objective causal goes with --attention full, topk or banded, not ",
               name_of(s.attention));
  if (!uses_k(s.attention)) return;  // full attention keeps every key, whatever k says
  if (s.k == 0) {
    fail_input("--attention ", name_of(s.attention), " needs --k, at least 1");
  } else if (s.train_data.empty()) {
    in_range("k", s.k, 1, s.length);
  } else {
    in_range("k", s.k, 1, 16384);  // the file's length is checked once it is read
  }
}

}  // namespace focus
