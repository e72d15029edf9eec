// Does this program compute the same numbers as the one that made some results?
//
// A name or a date of the program cannot say: a changed README is no reason to refuse old results,
// and a student's changed attention is one. So the program is asked what it computes: a run so
// small that it takes milliseconds, with the same kind of attention, activation and optimiser.
#pragma once

#include <string>

#include "train/settings.h"

namespace focus {

// To be raised whenever the same settings begin to give other results: a test compares probes of
// every kind with recorded ones, and fails until this is done.
inline constexpr int results_version = 1;

// What kind of run it is, as far as different code computes it: "even-pairs topk relu sgd".
std::string probe_name(const RunSettings& settings);

// The training loss of a tiny run of that kind after its only epoch. Processors and compilers round
// differently; that moves it by less than probe_tolerance, relatively. NaN if the run fails.
double probe_loss(const RunSettings& settings);
inline constexpr double probe_tolerance = 1e-4;

// Are two probes the same number but for rounding? (NaN equals NaN.)
bool same_probe(double a, double b);

// "results-version 1, compiler 12.2.0, probe 0.693…": the program that makes a run, as
// settings.json holds it.
std::string program_text(const RunSettings& settings);

// InputError that names `folder` if its runs were made by a program that computes other numbers.
// Returns what is to be told of another one that computes the same, or of a folder that is older
// than this record; else nothing.
std::string check_same_program(const std::string& folder, const std::string& recorded,
                               const RunSettings& settings);

}  // namespace focus
