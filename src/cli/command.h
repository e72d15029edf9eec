// A command of the program as data: its flags, its help, and the function that does it.
//
// Everything on a command line is text here. parser.cpp turns these descriptions into the parser
// and the help pages, and the command's function reads its arguments through `Arguments`, which
// names the flag in every complaint.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace focus {

struct Flag {
  std::string name;   // without dashes
  std::string value;  // what stands after it, for the help: N, X, NAME, FILE, DIR; empty: nothing
  std::string help;
  std::string fallback = {};  // the value when it is not given
  bool required = false;
};

struct Positional {
  std::string name, help;
  bool many = false;  // one or more, otherwise exactly one
};

class Arguments {
 public:
  std::map<std::string, std::string> flags;  // those given
  std::map<std::string, std::string> fallbacks;
  std::vector<std::string> words;  // the positional ones, at least one if the command has any

  bool given(const std::string& flag) const { return flags.count(flag) > 0; }
  // The value given, or the fallback (empty if there is none).
  const std::string& text(const std::string& flag) const;
  // InputError "--flag: …" unless the value is a whole number (any number) from low to high.
  int64_t whole(const std::string& flag, int64_t low, int64_t high) const;
  double number(const std::string& flag, double low, double high) const;
  // A seed: 0 … 2^63 - 1, what settings.json can hold.
  uint64_t seed(const std::string& flag) const;
  // The name of a file: InputError when it is given and empty.
  const std::string& file(const std::string& flag) const;
};

struct Command {
  std::string name;  // "train", "data generate"
  std::string help;  // one line
  std::vector<Flag> flags = {};
  std::vector<Positional> positionals = {};
  std::string more = {};                        // after the list of flags: an example, notes
  int (*run)(const Arguments& arguments) = {};  // returns the exit status
};

// One for each file of commands.
std::vector<Command> train_commands();
std::vector<Command> curve_commands();
std::vector<Command> model_commands();  // predict, show, eval, check
std::vector<Command> data_commands();
std::vector<Command> bench_commands();
std::vector<Command> bench_attention_commands();   // in cuda/bench
std::vector<Command> bench_one_launch_commands();  // likewise
std::vector<Command> bench_device_commands();      // likewise
std::vector<Command> study_commands();

// Flags that several commands have, and what they mean.
Flag device_flag();
Flag threads_flag();
int threads_of(const Arguments& arguments);

// Standard output, at once. InputError when it cannot be written, except that a reader who has
// gone away (focus … | head) is no error.
void print(const std::string& text);

}  // namespace focus
