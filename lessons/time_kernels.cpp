// `make gpu-NN`: how long the kernels of this tree take on this machine's GPU, beside what was
// recorded on an H200.
//
//   time-kernels [NN]     lesson NN's rungs of attention (none: all); 16: steps in one launch
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/bench/measure.h"
#include "error.h"
//@ from 16
#include "cuda/lesson/random_run.h"
#include "report/statistics.h"
//@ end

using namespace focus;
using namespace focus::gpu;

namespace {

// Recorded ms by "RUNG,PASS,PATTERN".
std::map<std::string, std::string> recorded_times() {
  std::map<std::string, std::string> times;
  std::ifstream file("cuda/results/ladder_h200.csv");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string rung, kernel, pass, pattern, skipped, ms;
    if (!std::getline(fields, rung, ',') || rung.starts_with("#")) continue;
    std::getline(fields, skipped, '"'), std::getline(fields, kernel, '"');
    std::getline(fields, skipped, ','), std::getline(fields, pass, ',');
    std::getline(fields, pattern, ',');
    for (int i = 0; i < 6; ++i) std::getline(fields, skipped, ',');
    std::getline(fields, ms, ',');
    times[rung + "," + pass + "," + pattern] = ms;
  }
  return times;
}

bool is_of_lesson(int rung, const std::string& lesson) {
  if (lesson == "08") return rung == 1;
  if (lesson == "10") return rung >= 6 && rung <= 11;
  return lesson != "09" || (rung >= 2 && rung <= 5) || rung == 12 || rung == 13;
}

// size: the recorded one, or one that fits a smaller GPU.
void time_ladder(const BenchSize& size, const std::string& lesson) {
  std::map<std::string, std::string> recorded;
  if (size.B == BenchSize{}.B) recorded = recorded_times();
  std::printf("%d sequences, %d heads, %d tokens, width %d; TFLOP/s of what the result needs\n",
              size.B, size.H, size.T, size.D);
  std::printf("%-4s %-44s %-9s %-8s %10s %9s %12s\n", "rung", "kernel", "pass", "pattern", "ms",
              "TFLOP/s", "an H200: ms");
  for (const Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block, Pattern::topk}) {
    std::unique_ptr<AttentionBench> bench;
    for (const Rung& rung : ladder()) {
      if (!rung.has_pattern(pattern) || !is_of_lesson(rung.number, lesson)) continue;
      if (!bench) bench = std::make_unique<AttentionBench>(pattern, size);
      if (!rung.unsupported(bench->call()).empty()) continue;
      const Measurement m = bench->measure(rung.pass, rung, 5);
      const char* pass = rung.pass == Pass::forward ? "forward" : "backward";
      const auto there = recorded.find(str(m.rung, ",", pass, ",", name_of(pattern)));
      std::printf("%-4d %-44s %-9s %-8s %10.3f %9.2f %12s\n", m.rung, rung.name, pass,
                  name_of(pattern), m.cold, work_of(pattern, rung.pass, size).useful / m.cold / 1e9,
                  there == recorded.end() ? "" : there->second.c_str());
      std::fflush(stdout);
    }
  }
}

//@ from 16
void time_steps() {
  std::printf(
      "ms a step in one launch; length 40, 5 blocks, width 64, batch 25, dropout 0.01, SGD\n");
  std::printf("%-10s %5s %10s\n", "attention", "runs", "ms");
  for (const Pattern pattern : {Pattern::full, Pattern::topk})
    for (const int runs : {1, 10}) {
      RandomLaunch launch(Precision::fp32, pattern, pattern == Pattern::topk ? 5 : 0, 40, runs);
      std::vector<double> ms;
      for (int i = -2; i < 10; ++i) {  // two to warm up
        const double once = launch.time_step();
        if (i >= 0) ms.push_back(once);
      }
      std::printf("%-10s %5d %10.4f\n", name_of(pattern), runs, median(ms));
      std::fflush(stdout);
    }
}
//@ end

}  // namespace

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
  try {
    need_device("time-kernels");
    std::printf("%s\n", device_text().c_str());
    //@ from 16
    if (argc > 1 && std::string(argv[1]) == "16") {
      time_steps();
      return 0;
    }
    //@ end
    for (BenchSize size;; size.B /= 2) try {
        time_ladder(size, argc > 1 ? argv[1] : "");
        return 0;
      } catch (const OutOfMemory& error) {
        if (size.B == 1) throw;
        std::printf("out of memory: once more, with half as many sequences\n");
      }
  } catch (const InputError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
