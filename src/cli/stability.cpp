// focus stability: dispersion, separation and sharing of keys in a trained model, and the paper's
// two conditions.
#include <cmath>
#include <nlohmann/json.hpp>

#include "analysis/conditions.h"
#include "cli/command.h"
#include "cli/loaded.h"
#include "error.h"
#include "files/atomic_file.h"
#include "report/share_progress.h"
#include "train/interrupt.h"

namespace focus {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string checkpoint, data, full, out, device = "cpu";
  std::optional<int> samples;
  int threads = default_threads();
};

Json json_of(const Percentiles& all) {
  Json map;
  for (int point : percentile_points) map[std::to_string(point)] = percentile(all, point);
  return map;
}

Json json_of(const Statistics& s) {
  Json map;
  map["delta_s"] = json_of(s.dispersion);
  if (s.kept_dispersion) map["delta_h"] = json_of(*s.kept_dispersion);
  if (s.separation) map["Delta_h"] = json_of(*s.separation);
  if (s.key_count) map["beta"] = json_of(*s.key_count);
  map["sensitivity"] = json_of(s.sensitivity);
  map["Upsilon"] = s.value_norm, map["Gamma"] = s.score_norm;
  map["B"] = s.mlp_norm, map["Xi"] = s.largest_token;
  return map;
}

Json json_of(const std::vector<Condition>& conditions) {
  Json list = Json::array();
  for (const Condition& c : conditions)
    list.push_back({{"percentile", c.percentile},
                    {"delta_s", c.delta_s},
                    {"delta_h", c.delta_h},
                    {"Delta_h", c.separation},
                    {"beta", c.beta},
                    {"weights_lhs", c.weights},
                    {"inputs_lhs", c.inputs}});
  return list;
}

// For people: all layers together.
std::string table_of(const Statistics& s, const std::vector<Condition>& conditions) {
  char cell[200];
  std::string text = "percentile  ";
  const auto add = [&](const char* pattern, auto value) {
    std::snprintf(cell, sizeof cell, pattern, value);
    text += cell;
  };
  for (int point : percentile_points) add(" %9d", point);
  const auto row = [&](const char* name, const std::optional<Percentiles>& values) {
    if (!values) return;
    add("\n%-12s", name);
    for (double value : *values) add(" %9.4g", value);
  };
  row("delta_s", s.dispersion), row("delta_h", s.kept_dispersion), row("Delta_h", s.separation);
  row("beta", s.key_count), row("sensitivity", s.sensitivity);
  std::snprintf(cell, sizeof cell, "\nUpsilon %.6g  Gamma %.6g  B %.6g  Xi %.6g\n", s.value_norm,
                s.score_norm, s.mlp_norm, s.largest_token);
  text += cell;
  if (conditions.empty()) return text;
  text += "conditions of the better guarantee (hold below 1)\npercentile  weights   inputs\n";
  for (const Condition& c : conditions) {
    std::snprintf(cell, sizeof cell, "%10d %8.3f %8.3f\n", c.percentile, c.weights, c.inputs);
    text += cell;
  }
  return text;
}

// A mask is there, but it drops nothing.
bool keeps_all_keys(const Loaded<double>& loaded) {
  const ModelSettings& s = loaded.model.settings();
  if (s.attention.pattern == Pattern::full) return false;
  return is_positional(s.attention.pattern)
             ? count_nnz(s.attention, s.length) == s.length * s.length
             : s.attention.k == s.length;
}

// The inequalities compare a model with full attention and one that drops keys, otherwise alike.
void check_pair(const Loaded<double>& sparse, const Loaded<double>& full) {
  const ModelSettings &s = sparse.model.settings(), &f = full.model.settings();
  if (f.attention.pattern != Pattern::full)
    fail_input("--full ", full.name, ": has ", name_of(f.attention.pattern),
               " attention, and a model with full attention is needed");
  if (s.attention.pattern == Pattern::full)
    fail_input("--checkpoint ", sparse.name,
               ": has full attention, and with --full it must be one that drops keys");
  if (sparse.task.name != full.task.name)
    fail_input("--full ", full.name, ": learnt ", full.task.name, ", ", sparse.name, " ",
               sparse.task.name);
  const auto alike = [&](const char* what, auto own, auto other) {
    if (own != other)
      fail_input("--full ", full.name, ": its ", what, " is ", other, ", that of ", sparse.name,
                 " is ", own);
  };
  alike("vocabulary, without global tokens,", s.vocabulary - s.attention.global_tokens,
        f.vocabulary);
  alike("number of classes", s.classes, f.classes);
  alike("number of blocks", s.blocks, f.blocks);
  alike("number of heads", s.attention.heads, f.attention.heads);
  alike("score scale", s.attention.score_scale, f.attention.score_scale);
  alike("d-model", s.d_model, f.d_model);
  alike("d-mlp", s.d_mlp, f.d_mlp);
  alike("activation", std::string(name_of(s.activation)), std::string(name_of(f.activation)));
  // A sparse model's sequences are padded to a multiple of k.
  const int k = s.attention.k, padded = (f.length + k - 1) / k * k;
  if (sparse.room() != f.length) alike("length, padded to a multiple of k,", sparse.room(), padded);
  if (keeps_all_keys(sparse))
    fail_input(sparse.name, ": keeps all of its ", s.length,
               " keys, so that nothing is separated (Delta_h) and the conditions have no meaning");
}

std::optional<Stability> measure(Loaded<double>& loaded, const Options& o, Device* device,
                                 const std::atomic<bool>& stop) {
  const PaddedData data = read_rows(loaded, o.data, o.samples);
  Workers workers(o.threads);
  ShareProgress progress("stability of " + loaded.name);
  const auto show = [&](double share) { progress.show(share); };
  try {
    std::optional<Stability> result =
        device ? measure_stability(*device, loaded.model, data, data.rows, workers, stop, show)
               : measure_stability(loaded.model, data, data.rows, workers, stop, show);
    if (!result) std::fprintf(stderr, "interrupted: nothing is written\n");
    return result;
  } catch (const RunError& error) {
    fail_run(loaded.name, ": ", error.what());
  } catch (const InputError& error) {
    fail_input(loaded.name, ": ", error.what());
  }
}

int stability(const Options& o) {
  check_new_file(o.out);
  const std::unique_ptr<Device> device = open_device(o.device);
  Loaded<double> loaded = load_checkpoint<double>(o.checkpoint, WithoutTask::accepted);
  const AttentionSettings& attention = loaded.model.settings().attention;
  std::optional<Loaded<double>> full;
  if (!o.full.empty()) {
    full.emplace(load_checkpoint<double>(o.full, WithoutTask::accepted));
    check_pair(loaded, *full);
    read_rows(*full, o.data, o.samples);  // what is wrong shows before the work
  }
  const std::atomic<bool>& stop = catch_interrupts();
  const std::optional<Stability> own = measure(loaded, o, device.get(), stop);
  if (!own) return 130;
  Json json{{"checkpoint", o.checkpoint},
            {"attention", attention_of(loaded)},
            {"length", loaded.model.settings().length},
            {"layers", Json::array()}};
  for (const Statistics& layer : own->layers) json["layers"].push_back(json_of(layer));
  json["all"] = json_of(own->all);
  std::vector<Condition> conditions;
  if (full) {
    const std::optional<Stability> of_full = measure(*full, o, device.get(), stop);
    if (!of_full) return 130;
    conditions = table_6(of_full->all, own->all, attention.k);
    json["inequalities"] = json_of(conditions);
  }
  if (keeps_all_keys(loaded))
    std::fprintf(stderr,
                 "%s keeps all of its %d keys: nothing is separated, so there is no Delta_h\n",
                 o.checkpoint.c_str(), loaded.model.settings().length);
  const std::string text =
      json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (o.out.empty()) {
    print(text);
    return 0;
  }
  write_file_atomically(o.out, text, IfThere::refuse);
  print(table_of(own->all, conditions) + o.out + "\n");
  return 0;
}

}  // namespace

void add_stability_command(CLI::App& focus) {
  const auto [app, o] =
      add_command(focus, "stability",
                  "how spread, separated and shared a trained model's scores are", stability);
  add_file(app, "--checkpoint", "FILE", o.checkpoint, "weights: DIR/seed-S/last.safetensors, say")
      ->required();
  add_file(app, "--data", "FILE", o.data, "a data file of the same task")->required();
  add_file(app, "--full", "FILE", o.full,
           "the same model with full attention: also the paper's two conditions");
  add_whole(app, "--samples", o.samples, 1, 10'000'000, "its first N rows (default: all)");
  add_file(app, "--out", "FILE", o.out,
           "write JSON there and print a table (default: print the JSON)");
  add_device(app, o.device);
  add_threads(app, o.threads);
  add_footer(
      app,
      "Percentiles over rows, heads and queries, for each layer and for all layers together:\n"
      "delta_s, the dispersion of all scores; delta_h, that of the kept ones; Delta_h, the "
      "smallest\n"
      "kept minus the largest dropped score; beta, how many queries keep a key; sensitivity, the\n"
      "largest 2p(1-p) of a query's weights. Delta_h is left out where no key is dropped. "
      "attention\n"
      "and length are the checkpoint's, padding and global tokens included. With "
      "--device cuda the\n"
      "model's forward is there, in float32.\n"
      "Example: focus stability --checkpoint out/topk/seed-1/last.safetensors --data train.tsv \\\n"
      "           --full out/full/seed-1/last.safetensors --samples 1000 --out stability.json");
}

}  // namespace focus
