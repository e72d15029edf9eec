// Who made a study's results: which version of the code, on what hardware, when. Results of
// programs that compute other numbers are never mixed.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "study/results.h"
#include "study/study.h"
#include "train/inputs.h"
#include "train/stepper.h"

namespace focus {

struct Provenance {
  int version = 0;                            // results_version
  std::string device = "cpu";                 // runs on different devices round differently
  std::map<std::string, double> probes = {};  // by name: see train/probe.h
  std::vector<std::string> hardware = {};     // different ones, sorted
  std::string first_date = {}, last_date = {};
  // What the data files held when the study began. Older studies have no such records, and get
  // none.
  bool has_data_records = true;
  DataRecords data = {};
};

// Runs the probes that the study's variants need, some milliseconds each, on the CPU. devices:
// where the study's runs are made, which are alike; none: on the CPU.
Provenance provenance_here(const Study& study, const std::vector<Device*>& devices = {});

// Of a study whose runs other machines will make, on a device of this name.
Provenance provenance_elsewhere(const Study& study, const std::string& device);

// Adds what another provenance holds. InputError, which names `folder`, when it is of a program
// that computes other numbers, or of other data.
void join(Provenance& all, const Provenance& other, const std::string& folder);

// As in study.txt. Reading throws InputError with the line.
std::string provenance_text(const Provenance& provenance);
Provenance parse_provenance(std::string_view text, const std::string& name);
Provenance read_provenance(const std::filesystem::path& file);

// The head of results.csv.
Notes notes_of(const Study& study, const Provenance& provenance);

}  // namespace focus
