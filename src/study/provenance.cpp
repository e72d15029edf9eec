#include "study/provenance.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "files/atomic_file.h"
#include "report/lesson.h"
#include "train/probe.h"

namespace focus {

namespace {

constexpr size_t most_bytes = 1 << 20;

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

}  // namespace

Provenance provenance_here(const Study& study, const std::vector<Device*>& devices) {
  Provenance provenance{results_version, "cpu", {}, {hardware_text()}, today(), today()};
  if (!devices.empty())
    provenance.device = devices[0]->name(), provenance.hardware = {devices[0]->hardware()};
  for (const StudyVariant& variant : study.variants) {
    const std::string name = probe_name(variant.settings);
    if (!provenance.probes.contains(name)) provenance.probes[name] = probe_loss(variant.settings);
  }
  return provenance;
}

Provenance provenance_elsewhere(const Study& study, const std::string& device) {
  Provenance provenance = provenance_here(study);
  provenance.device = device, provenance.hardware.clear();
  return provenance;
}

void join(Provenance& all, const Provenance& other, const std::string& folder) {
  if (all.version != other.version)
    fail_input(folder, ": its results are of version ", other.version,
               " of the code, this one makes version ", all.version,
               ", with other numbers; choose another folder");
  if (all.device != other.device)
    fail_input(folder, ": its runs were made with --device ", other.device, ", not ", all.device,
               ", which rounds differently; use the same device or choose another folder");
  for (const auto& [name, loss] : other.probes) {
    const auto [mine, is_new] = all.probes.emplace(name, loss);
    if (!is_new && !same_probe(mine->second, loss))
      fail_input(folder,
                 ": its results were made by a program that computes other numbers (a tiny "
                 "run of ",
                 name, " ends with the loss ", loss, ", here with ", mine->second,
                 "); the code has changed: choose another folder");
  }
  for (const auto& [file, record] : other.data) {
    const auto [mine, is_new] = all.data.emplace(file, record);
    try {
      check_same_data(file, record_text(record), record_text(mine->second));
    } catch (const InputError& error) {
      fail_input(folder, ": ", error.what());
    }
  }
  all.has_data_records = all.has_data_records && other.has_data_records;
  for (const std::string& hardware : other.hardware)
    if (std::find(all.hardware.begin(), all.hardware.end(), hardware) == all.hardware.end())
      all.hardware.push_back(hardware);
  std::sort(all.hardware.begin(), all.hardware.end());
  all.first_date = std::min(all.first_date, other.first_date);
  all.last_date = std::max(all.last_date, other.last_date);
}

std::string provenance_text(const Provenance& provenance) {
  std::string text = str("results-version: ", provenance.version, "\n");
  if (provenance.device != "cpu") text += str("device: ", provenance.device, "\n");
  text += str("first-date: ", provenance.first_date, "\nlast-date: ", provenance.last_date, "\n");
  for (const std::string& hardware : provenance.hardware) text += str("hardware: ", hardware, "\n");
  if (provenance.has_data_records) text += "data-records: yes\n";
  for (const auto& [file, record] : provenance.data) {
    if (file.find('\n') != std::string::npos)
      fail_input(file, ": the name holds a line break, which study.txt cannot; rename it");
    text += str("data ", file, ": ", record_text(record), "\n");
  }
  for (const auto& [name, loss] : provenance.probes)
    text += str("probe ", name, ": ", number_text(loss), "\n");
  return text;
}

Provenance parse_provenance(std::string_view text, const std::string& name) {
  Provenance provenance;
  provenance.has_data_records = false;
  for (int line = 1; !text.empty(); ++line) {
    const size_t length = std::min(text.find('\n'), text.size());
    const std::string_view content = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    // The name of a data file may hold a colon, its record none.
    const size_t colon = content.starts_with("data ") ? content.rfind(": ") : content.find(": ");
    const auto fail = [&](const std::string& what) {
      fail_input(name, ", line ", line, ": ", what);
    };
    if (colon == std::string_view::npos) fail("is not 'key: value'");
    const std::string key(content.substr(0, colon)), value(content.substr(colon + 2));
    try {
      if (key == "results-version")
        provenance.version = int(std::clamp<int64_t>(parse_integer(value), 0, 1000000));
      else if (key == "device")
        provenance.device = value;
      else if (key == "data-records")
        provenance.has_data_records = true;
      else if (key.starts_with("data "))
        provenance.data[key.substr(5)] = parse_record(value, key.substr(5));
      else if (key == "first-date")
        provenance.first_date = value;
      else if (key == "last-date")
        provenance.last_date = value;
      else if (key == "hardware")
        provenance.hardware.push_back(value);
      else if (key.starts_with("probe "))
        provenance.probes[key.substr(6)] = value == "nan" ? std::nan("") : parse_number(value);
      else
        fail("unknown key '" + key + "'");
    } catch (const InputError& error) {
      const std::string message = error.what();
      fail(message.starts_with(name) ? message.substr(message.rfind(": ") + 2) : message);
    }
  }
  if (provenance.version == 0) fail_input(name, ": has no results-version; is it cut short?");
  return provenance;
}

Provenance read_provenance(const std::filesystem::path& file) {
  return parse_provenance(read_file(file, most_bytes), file.string());
}

Notes notes_of(const Study& study, const Provenance& provenance) {
  Notes notes;
  const bool one_day = provenance.first_date == provenance.last_date;
  notes.emplace_back("date",
                     provenance.first_date + (one_day ? "" : " to " + provenance.last_date));
  for (const std::string& hardware : provenance.hardware) notes.emplace_back("hardware", hardware);
  notes.emplace_back("results-version", std::to_string(provenance.version));
  std::vector<uint64_t> seeds;
  std::string text;
  for (const StudyRun& run : study.runs)
    if (std::find(seeds.begin(), seeds.end(), run.seed) == seeds.end()) {
      seeds.push_back(run.seed);
      text += str(text.empty() ? "" : " ", run.seed);
    }
  notes.emplace_back("seeds", text);
  return notes;
}

}  // namespace focus
