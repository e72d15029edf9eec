// The frame of a lesson's program: its options, its output folder, and the form of its result.
//
//   lesson-NN [--scale demo|laptop|paper] [--seeds N] [--threads N] [--out DIR]
//   lesson-NN --replay      plays the recorded run: what it printed, in half a minute at most
//   lesson-NN --redraw      from the recorded results (lessons/NN-*/results/*.csv) alone, without
//                           any training: figure.svg and verdict.txt beside them, or in DIR
//
// DIR (default out/lesson-NN) receives results.csv, which begins with '#' lines on hardware,
// settings, seeds and date, figure.svg if gnuplot is there, verdict.txt, and output.txt: what was
// printed, each line after its second and a tab.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "report/figure.h"

namespace focus {

class Transcript;

struct LessonOptions {
  bool redraw = false;       // measure nothing: read the tables from recorded()
  bool demo_scale = false;   // at most a minute on two cores, for showing
  bool paper_scale = false;  // neither: laptop scale, at most three minutes
  int seeds = 0;             // 0: as the lesson's tables say
  int threads = 1;
  std::filesystem::path out;
};

class Lesson {
 public:
  // `name` as "lesson-05", `question` in one line. Reads the command line; on --help or a bad
  // argument, and after a replay, it prints and ends the program. A lesson whose seeds stand in a
  // table (study/lesson_study.h) gives no numbers here.
  Lesson(int argc, char** argv, std::string name, std::string question, int default_seeds = 0,
         int demo_seeds = 0);
  ~Lesson();
  Lesson(const Lesson&) = delete;
  Lesson& operator=(const Lesson&) = delete;

  const LessonOptions& options() const { return options_; }
  // lessons/NN-*; InputError unless the program was started in the project's folder.
  std::filesystem::path folder() const;
  std::string number() const { return folder().filename().string().substr(0, 2); }  // "05"
  std::filesystem::path recorded() const { return folder() / "results"; }
  // Set by Ctrl-C; long work looks at it, and main then returns interrupted().
  const std::atomic<bool>& stop() const;
  int interrupted() const;

  // A '#' line of results.csv: settings that the columns do not tell.
  void note(const std::string& key, const std::string& value);
  // DIR/`file`: the notes, then `text`. Nothing at --redraw, when that file is what is read.
  void write(const std::string& file, const std::string& text);
  void table(const std::string& columns, const std::vector<std::string>& rows,
             const std::string& file = "results.csv");
  // From now on DIR is DIR/folder, if that is not its name already: where several lessons are given
  // one folder to read from.
  void write_into(const std::string& folder);
  // A table of what a script, `by`, measured in `folder`, perhaps on another machine: in place of
  // this one's hardware and date stand those of folder/made-on.txt (lessons/paper_runs.sh).
  void table_of(const std::filesystem::path& folder, const std::string& by,
                const std::string& columns, const std::vector<std::string>& rows,
                const std::string& file);
  // DIR/`file` (results/X.md of the lesson): a table in Markdown for the README, which `make
  // tables` puts between its marker lines. At --redraw too.
  void page_table(const std::string& file, const std::string& markdown);
  // All panels as DIR/figure.svg, and each as text (but not at --redraw).
  void figure(const Figure& figure, bool as_text = true);
  // The same for the recorded runs at the paper's scale: DIR/paper/figure.svg, table.md (a
  // page_table) and verdict.txt.
  void paper_scale(const Figure& figure, const std::string& table, bool reproduced,
                   const std::string& reason);
  // The last line: "verdict: reproduced — …". Returns main's exit status: 0 in both cases.
  int verdict(bool reproduced, const std::string& reason);

 private:
  std::string name_, question_;
  LessonOptions options_;
  bool smaller_than_its_rule_ = false;
  std::vector<std::string> notes_;
  std::unique_ptr<Transcript> transcript_;  // of what goes to std::cout
};

// One line about the processor, for result files: model, cores, instruction set.
std::string hardware_text();

// Runs a lesson's main function; errors become one line on stderr and the contract's exit status.
int run_lesson(const std::function<int()>& body);

}  // namespace focus
