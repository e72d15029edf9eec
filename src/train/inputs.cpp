#include "train/inputs.h"

#include <cstdio>

#include "files/data_file.h"
#include "tasks/dataset.h"
#include "tasks/text.h"
//@ from 15
#include "text/text_data.h"
//@ end

namespace focus {

std::string record_text(const DataRecord& record) {
  char text[120];
  std::snprintf(text, sizeof text, "rows=%lld longest=%d hash=%016llx",
                static_cast<long long>(record.rows), record.longest,
                static_cast<unsigned long long>(record.hash));
  return record.vocabulary > 0 ? str(text, " vocabulary=", record.vocabulary) : text;
}

DataRecord parse_record(const std::string& text, const std::string& where) {
  DataRecord record;
  long long rows = 0;
  unsigned long long hash = 0;
  const int read = std::sscanf(text.c_str(), "rows=%lld longest=%d hash=%llx vocabulary=%d", &rows,
                               &record.longest, &hash, &record.vocabulary);
  record.rows = rows, record.hash = hash;
  if (read < 3 || record_text(record) != text)
    fail_input(where, ": '", text, "' is no record of a data file: rows=N longest=N hash=H");
  return record;
}

DataRecord record_of_file(const Task& task, const std::string& file) {
  //@ from 15
  if (is_text(task)) {
    const TextData text = read_text_data(file);
    return {int64_t(text.train.tokens.size() + text.held_out.tokens.size()), text.window,
            text.hash(), text.tokenizer.vocabulary()};
  }
  //@ end
  const std::vector<Example> examples = read_data_file(task, file);
  DataRecord record{int64_t(examples.size()), longest_example(examples), 0xcbf29ce484222325u};
  const auto add = [&](uint8_t byte) { record.hash = (record.hash ^ byte) * 0x100000001b3u; };
  for (const Example& example : examples) {
    for (const uint8_t token : example.tokens) add(token);
    add(0xff);  // no token: the end of a row
    add(uint8_t(example.label));
  }
  return record;
}

void check_same_data(const std::string& file, const std::string& recorded, const std::string& now) {
  if (recorded.empty() || recorded == now) return;
  const DataRecord then = parse_record(recorded, file), here = parse_record(now, file);
  const auto tell = [](const DataRecord& r) {
    return r.vocabulary > 0 ? str(r.rows, " tokens of a vocabulary of ", r.vocabulary)
                            : str(r.rows, " rows, the longest of ", r.longest, " tokens");
  };
  fail_input(file, " holds other data than when the run began: ", tell(here), "; then ", tell(then),
             tell(here) == tell(then) ? ", but other ones" : "",
             "; put the old file back, or begin in another folder");
}

bool check_same_data(RunSettings& s) {
  bool all_known = true;
  const auto check = [&](const std::string& file, std::string& record) {
    if (file.empty()) return;
    const std::string now = record_text(record_of_file(find_task(s.task), file));
    check_same_data(file, record, now);
    all_known = all_known && !record.empty();
    record = now;
  };
  check(s.train_data, s.train_data_record);
  check(s.val_data, s.val_data_record);
  check(s.text_data, s.text_data_record);
  return all_known;
}

void read_records(const RunSettings& s, DataRecords& records) {
  const Task& task = find_task(s.task);
  const std::vector<std::string> files =
      is_text(task) ? std::vector{s.text_data} : std::vector{s.train_data, s.val_data};
  for (const std::string& file : files)
    if (!file.empty() && !records.contains(file)) records[file] = record_of_file(task, file);
}

void take_sizes_of_files(RunSettings& s, const RunSettings& from) {
  if (!s.train_data.empty()) s.train_size = from.train_size, s.length = from.length;
  if (!s.val_data.empty()) s.val_size = from.val_size;
  if (!s.text_data.empty()) s.length = from.length;
}

void take_sizes_of_files(RunSettings& s, const DataRecords& records,
                         const std::set<std::string>& given) {
  const auto take = [&](const char* flag, int& setting, int64_t held, const std::string& file,
                        const char* what) {
    if (given.contains(flag) && setting != held)
      fail_input("--", flag, " ", setting, " contradicts ", file, ", ", what, " ", held,
                 "; leave it out");
    setting = int(held);
  };
  if (const auto train = records.find(s.train_data); train != records.end()) {
    s.train_data_record = record_text(train->second);
    take("train-size", s.train_size, train->second.rows, s.train_data, "whose rows are");
    take("length", s.length, train->second.longest, s.train_data,
         "whose longest row has this many tokens:");
  }
  if (const auto text = records.find(s.text_data); text != records.end()) {
    s.text_data_record = record_text(text->second);
    if (!given.contains("length")) s.length = text->second.longest;
  }
  if (const auto val = records.find(s.val_data); val != records.end()) {
    s.val_data_record = record_text(val->second);
    take("val-size", s.val_size, val->second.rows, s.val_data, "whose rows are");
  }
}

}  // namespace focus
