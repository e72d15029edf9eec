// What the lesson programs share: their options, the folder they write to, and how a result is
// told.
//
//   lesson-NN [--scale laptop|paper] [--seeds N] [--threads N] [--out DIR]
//
// DIR (default out/lesson-NN) receives results.csv, which begins with '#' lines on hardware,
// settings, seeds and date, figure.svg if gnuplot is there, and verdict.txt.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "report/figure.h"

namespace focus {

struct LessonOptions {
  bool paper_scale = false;
  int seeds = 3;
  int threads = 1;
  std::filesystem::path out;
};

class Lesson {
 public:
  // `name` as "lesson-05", `question` in one line. Reads the command line; on --help or a bad
  // argument it prints and ends the program.
  Lesson(int argc, char** argv, std::string name, std::string question, int default_seeds = 3);

  const LessonOptions& options() const { return options_; }
  // Set by Ctrl-C; long work looks at it, and main then returns interrupted().
  const std::atomic<bool>& stop() const;
  int interrupted() const;

  // A '#' line of results.csv: settings that the columns do not tell.
  void note(const std::string& key, const std::string& value);
  // results.csv: the notes, the columns, the rows.
  void table(const std::string& columns, const std::vector<std::string>& rows);
  // All panels as DIR/figure.svg, and each as text where nothing like it has been shown yet.
  void figure(const Figure& figure, bool as_text = true);
  // The last words: "verdict: reproduced — …". Returns main's exit status: 0 in both cases.
  int verdict(bool reproduced, const std::string& reason);

 private:
  std::string name_, question_;
  LessonOptions options_;
  std::vector<std::string> notes_;
};

// One line about the processor, for result files: model, cores, instruction set.
std::string hardware_text();

// Runs a lesson's main function; errors become one line on stderr and the contract's exit status.
int run_lesson(const std::function<int()>& body);

}  // namespace focus
