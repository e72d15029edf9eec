#include "study/names.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

namespace focus {

namespace {

bool is_mechanism(std::string_view field) {
  return field == "attention" || field == "k" || field == "global-tokens" || field == "score-scale";
}

// FNV-1a, 64 bits: two runs of a study with the same hash are as good as impossible, and a folder
// says in its settings.json whose it is.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ uint8_t(c)) * 0x100000001b3u;
  return hash;
}

bool is_word(std::string_view field) {
  return field == "task" || field == "activation" || field == "optimizer" || field == "precision" ||
         field == "objective";
}

// A setting in a name: "heads=2", but "gelu" and "even-pairs" speak for themselves.
std::string value_text(const std::string& field, const std::string& value) {
  std::string text = is_word(field) ? value : field + "=" + value;
  // The absolute name of a data file may hold what separates columns and words.
  for (char& c : text)
    if (c == ',' || c == ' ' || uint8_t(c) < ' ') c = '_';
  return text;
}

// The usual value of a setting that only some experiments vary: "full" beside "full qk-scale=2".
bool goes_without_saying(const std::string& column, const std::string& value) {
  for (const SettingField& field : setting_fields())
    if (field.name == column)
      return field.may_be_missing && !is_word(column) && value == field.get({});
  return false;
}

// All but mechanism and epochs.
TextMap rest_of(const RunSettings& settings) {
  TextMap text;
  for (const SettingField& field : setting_fields())
    if (!is_mechanism(field.name) && std::string_view(field.name) != "epochs")
      text[field.name] = field.get(settings);
  return text;
}

}  // namespace

std::string identity_text(const RunSettings& settings) {
  const RunSettings plain;
  std::string text;
  for (const SettingField& field : setting_fields()) {
    const std::string value = field.get(settings);
    if (field.is_flag && std::string_view(field.name) != "epochs" && value != field.get(plain))
      text += str(field.name, "=", value, "\n");
  }
  return text;
}

std::string run_folder_name(const RunSettings& settings, uint64_t seed) {
  const RunSettings usual = RunSettings::defaults_for(find_task(settings.task));
  std::string name = settings.task + "-" + name_of(settings.attention);
  if (uses_k(settings.attention)) name += std::to_string(settings.k);
  if (settings.global_tokens > 0) name += str("-g", settings.global_tokens);
  for (const SettingField& field : setting_fields()) {
    const std::string_view key = field.name;
    if ((is_mechanism(key) && key != "score-scale") || key == "task" || key == "epochs" ||
        key.ends_with("-data") || !field.is_flag)
      continue;
    const std::string value = field.get(settings);
    if (value == field.get(usual)) continue;
    name += is_word(key) ? str("-", value) : str("-", key, value == "yes" ? "" : value);
  }
  if (name.size() > 100) name.resize(100);
  char hash[24];
  std::snprintf(
      hash, sizeof hash, "%012llx",
      static_cast<unsigned long long>(hash_of(str(identity_text(settings), "seed=", seed)) >> 16));
  return str(name, "-s", seed, "-", hash);
}

void name_variants(std::span<StudyVariant> variants, const std::vector<std::string>& columns) {
  std::vector<TextMap> rests;
  for (const StudyVariant& variant : variants) rests.push_back(rest_of(variant.settings));
  // Which variants the chosen columns leave together: they have the same text here.
  std::vector<std::string> label(variants.size());
  const auto classes = [&](const auto& of) { return std::set(of.begin(), of.end()).size(); };
  for (const std::string& column : columns) {
    if (classes(label) == classes(rests)) break;
    if (!rests[0].contains(column)) continue;
    std::vector<std::string> longer = label;
    for (size_t v = 0; v < variants.size(); ++v) {
      const std::string& value = rests[v].at(column);
      if (goes_without_saying(column, value)) continue;
      if (!longer[v].empty()) longer[v] += ' ';
      longer[v] += value_text(column, value);
    }
    if (classes(longer) > classes(label)) label = std::move(longer);
  }
  for (size_t v = 0; v < variants.size(); ++v) {
    StudyVariant& variant = variants[v];
    variant.mechanism = attention_text(variant.settings);
    variant.rest = label[v];
    variant.name = variant.mechanism + (label[v].empty() ? "" : " " + label[v]);
  }
}

}  // namespace focus
