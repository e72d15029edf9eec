#include "train/store.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "files/atomic_file.h"
#include "files/printable.h"
#include "train/inputs.h"

namespace focus {

namespace {

constexpr const char* format_version = "1";
constexpr size_t most_bytes = 1 << 20;

namespace fs = std::filesystem;

std::vector<uint64_t> parse_seeds(const std::string& text, const std::string& name) {
  std::vector<uint64_t> seeds;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');) {
    const int64_t seed = parse_integer(item);
    if (seed < 0) fail_input(name, ": seed ", seed, " is negative");
    for (uint64_t other : seeds)
      if (other == uint64_t(seed)) fail_input(name, ": seed ", seed, " occurs twice");
    seeds.push_back(uint64_t(seed));
  }
  if (seeds.empty() || seeds.size() > 1000)
    fail_input(name, ": setting 'seeds': '", text, "' is no list of 1 to 1000 seeds");
  return seeds;
}

// A nested document has no place here, and a deep one would exhaust the parser's stack.
TextMap parse_flat_object(std::string_view bytes, const std::string& name) {
  // The JSON library would stop at a NUL; a file that a crash has left may hold nothing else.
  if (bytes.find('\0') != bytes.npos)
    fail_input(name, ": is not valid JSON: it holds NUL bytes; is it damaged?");
  TextMap text;
  int depth = 0;
  const auto shallow = [&](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (depth > 1) fail_input(name, ": is not a flat object of texts");
    return true;
  };
  try {
    const nlohmann::json json = nlohmann::json::parse(bytes, shallow);
    if (!json.is_object()) fail_input(name, ": is not a JSON object");
    for (const auto& [key, value] : json.items()) {
      if (!value.is_string()) fail_input(name, ": the setting '", key, "' is not a text in quotes");
      text[key] = value.get<std::string>();
    }
  } catch (const nlohmann::json::parse_error& error) {
    const std::string_view before = bytes.substr(0, std::min(error.byte, bytes.size()));
    fail_input(name, ", line ", 1 + std::count(before.begin(), before.end(), '\n'),
               ": is not valid JSON; is the file cut short?");
  } catch (const nlohmann::json::exception&) {
    fail_input(name, ": is not valid JSON");
  }
  return text;
}

std::string take(TextMap& text, const char* key, const std::string& name) {
  const auto found = text.find(key);
  if (found == text.end()) fail_input(name, ": the setting '", key, "' is missing");
  std::string value = std::move(found->second);
  text.erase(found);
  return value;
}

}  // namespace

std::string plan_text(const TrainPlan& plan) {
  nlohmann::ordered_json json;
  json["format_version"] = format_version;
  for (const SettingField& field : setting_fields())
    if (field.in_files(plan.settings)) json[field.name] = field.get(plan.settings);
  std::string seeds;
  for (uint64_t seed : plan.seeds) {
    if (!seeds.empty()) seeds += ',';
    seeds += std::to_string(seed);
  }
  json["seeds"] = seeds;
  json["threads"] = std::to_string(plan.threads);
  if (plan.device != "cpu") json["device"] = plan.device;
  if (plan.step_kernel != "auto") json["step_kernel"] = plan.step_kernel;
  if (plan.keep_at_loss > 0) json["keep_at_loss"] = number_text(plan.keep_at_loss);
  if (!plan.program.empty()) json["program"] = plan.program;
  try {
    return json.dump(2) + "\n";
  } catch (const nlohmann::json::exception&) {
    fail_input("the name of a data file is not UTF-8 and does not fit into settings.json");
  }
}

TrainPlan parse_plan(std::string_view bytes, const std::string& name) {
  TextMap text = parse_flat_object(bytes, name);
  TrainPlan plan;
  if (const std::string version = take(text, "format_version", name); version != format_version)
    fail_input(name, ": format version '", version, "', this program reads ", format_version);
  try {
    plan.seeds = parse_seeds(take(text, "seeds", name), name);
    if (text.count("device")) plan.device = take(text, "device", name);
    if (text.count("step_kernel")) plan.step_kernel = take(text, "step_kernel", name);
    if (text.count("keep_at_loss"))
      plan.keep_at_loss = parse_number(take(text, "keep_at_loss", name));
    if (text.count("program")) plan.program = take(text, "program", name);
    plan.threads = int(std::clamp<int64_t>(parse_integer(take(text, "threads", name)), 1, 1024));
  } catch (const InputError& error) {
    const std::string message = error.what();
    fail_input(message.starts_with(name) ? message : name + ": " + message);
  }
  plan.settings = settings_from_text(text, name);
  return plan;
}

TrainPlan read_plan(const fs::path& dir) {
  const fs::path path = dir / "settings.json";
  if (kind_of(path) == PathKind::missing)
    fail_input(
        "'", dir.string(), "' holds no run: ",
        kind_of(dir) == PathKind::missing ? "there is no such folder" : "it has no settings.json");
  TrainPlan plan = parse_plan(read_file(path, most_bytes), path.string());
  plan.out = dir;
  return plan;
}

fs::path RunFolder::checkpoint(uint64_t seed, const char* name) const {
  return path(str("seed-", seed)) / str(name, ".safetensors");
}

std::optional<std::string> RunFolder::outcome() const {
  if (kind_of(path("outcome.txt")) == PathKind::missing) return std::nullopt;
  std::string line = read_file(path("outcome.txt"), most_bytes);
  line.resize(std::min(line.find('\n'), line.size()));
  return without_control(line);
}

std::vector<EpochMetrics> RunFolder::rows(uint64_t seed) const {
  std::vector<EpochMetrics> rows = metrics_.rows();
  std::erase_if(rows, [&](const EpochMetrics& row) { return row.seed != seed; });
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i].epoch != int(i) + 1)
      fail_input(path("metrics.csv").string(), ": epoch ", i + 1, " of seed ", seed, " is missing");
  return rows;
}

// A checkpoint knows what it was trained with. A data file's name may change: what is in it was
// compared.
static void check_same_settings(const RunSettings& now, const Safetensors& checkpoint,
                                const std::string& settings_file) {
  if (!checkpoint.metadata.contains("run.task")) return;  // of an older program
  RunSettings then = now;
  for (const SettingField& field : setting_fields()) {
    const auto found = checkpoint.metadata.find(str("run.", field.name));
    const bool is_there = found != checkpoint.metadata.end();
    if (!is_there && !field.may_be_missing) continue;
    try {
      field.set(then, is_there ? found->second : field.get(RunSettings()));
    } catch (const InputError& error) {
      fail_input(checkpoint.file_name(), ": metadata: run.", field.name, ": ", error.what());
    }
  }
  then.epochs = now.epochs;
  then.train_data = now.train_data, then.val_data = now.val_data, then.text_data = now.text_data;
  take_sizes_of_files(then, now);
  for (const SettingField& field : setting_fields())
    if (field.is_flag && field.get(then) != field.get(now))
      fail_input(checkpoint.file_name(), ": was trained with --", field.name, " ", field.get(then),
                 ", but ", settings_file, " says ", field.get(now),
                 "; begin another run for other settings");
}

void RunFolder::restore(Run& run) {
  const Safetensors file = Safetensors::read(checkpoint(run.seed()));
  const auto recorded = [&](const char* field) {
    const auto found = file.metadata.find(str("run.", field));
    return found == file.metadata.end() ? std::string() : found->second;
  };
  const RunSettings& s = run.settings();
  check_same_data(s.train_data, recorded("train-data-record"), s.train_data_record);
  check_same_data(s.val_data, recorded("val-data-record"), s.val_data_record);
  check_same_data(s.text_data, recorded("text-data-record"), s.text_data_record);
  check_same_settings(s, file, path("settings.json").string());
  run.restore(file);
  const size_t done = size_t(run.epochs_done()), there = rows(run.seed()).size();
  if (there < done)
    fail_input(path("metrics.csv").string(), ": has ", there, " epochs of seed ", run.seed(),
               ", the checkpoint ", done, "; delete the run's folder to make it again");
  metrics_.drop_after(run.seed(), run.epochs_done());
}

void RunFolder::begin() const {
  make_folder(plan_.out);
  remove_leftovers(plan_.out);
  ::unlink(path("outcome.txt").c_str());
  // First: a folder without it is no run, and nobody may begin in one that is not empty.
  write_file_atomically(path("settings.json"), plan_text(plan_));
  for (const uint64_t seed : plan_.seeds) {
    make_folder(path(str("seed-", seed)));
    remove_leftovers(path(str("seed-", seed)));
  }
}

void RunFolder::announce(FolderLock& lock) const {
  for (const char* file : {"settings.json", "metrics.csv"}) lock.will_make(path(file));
  for (const uint64_t seed : plan_.seeds) {
    lock.will_make(path(str("seed-", seed)));
    for (const char* name : {"last", "best", "at-loss"}) lock.will_make(checkpoint(seed, name));
  }
}

void RunFolder::save(uint64_t seed, Safetensors state,
                     const std::vector<const char*>& copies) const {
  state.metadata.erase("run.epochs");  // how far a run goes is no part of what it is
  for (const char* name : copies) state.write(checkpoint(seed, name));
  state.write(checkpoint(seed));
}

void RunFolder::end(const std::string& outcome) const {
  write_file_atomically(path("outcome.txt"), outcome + "\n");
}

}  // namespace focus
