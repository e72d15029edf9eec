// What the commands of the program share. Each file of commands adds its own to CLI11's `App`, with
// options that write into a struct of the command's, and says what to do once the line is read.
//
// Values are read by the project's own functions, as those of files and tables are: they say what
// is wrong in the same words, and no version of the library takes 010 for eight.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace focus {

// One for each file of commands.
void add_train_commands(CLI::App& focus);
void add_study_commands(CLI::App& focus);
void add_curve_commands(CLI::App& focus);
void add_model_commands(CLI::App& focus);  // predict, show, eval, check
void add_data_commands(CLI::App& focus);
void add_text_commands(CLI::App& focus);
void add_generate_command(CLI::App& focus);
void add_surface_command(CLI::App& focus);
void add_stability_command(CLI::App& focus);
void add_bench_step(CLI::App& bench);
void add_bench_attention(CLI::App& bench);   // in cuda/bench
void add_bench_one_launch(CLI::App& bench);  // likewise
void add_bench_device(CLI::App& bench);      // likewise

// A command and its options, which `work` gets once the line has been read; it returns the exit
// status.
CLI::App* add_work(CLI::App& parent, const std::string& name, const std::string& help,
                   std::function<int()> work);
template <class Options>
std::pair<CLI::App&, Options&> add_command(CLI::App& parent, const std::string& name,
                                           const std::string& help, int (*work)(const Options&)) {
  const auto options = std::make_shared<Options>();
  CLI::App* app = add_work(parent, name, help, [=] { return work(*options); });
  return {*app, *options};
}
// A command that only has others below it.
CLI::App* add_group(CLI::App& parent, const std::string& name, const std::string& help);
// InputError that lists the commands below, if the line has none of them.
void need_command(const CLI::App& app);

std::string path_of(const CLI::App& app);  // "focus data generate"
std::vector<std::string> names_below(const CLI::App& app);

// An option, "--k", or what stands without a flag, "FILE"; the help shows the kind of its value: N,
// X, NAME, FILE. An InputError of `read` is led by the name.
CLI::Option* add_value(CLI::App& app, const std::string& name, const std::string& kind,
                       const std::string& help, std::function<void(const std::string&)> read);

// Numbers from low to high. The default is what `value` holds, unless it is a std::optional.
int64_t read_whole(const std::string& text, int64_t low, int64_t high);
double read_number(const std::string& text, double low, double high);
template <class T>
CLI::Option* add_whole(CLI::App& app, const std::string& name, T& value, int64_t low, int64_t high,
                       const std::string& help) {
  CLI::Option* option = add_value(app, name, "N", help, [=, &value](const std::string& text) {
    value = T(read_whole(text, low, high));
  });
  if constexpr (std::is_arithmetic_v<T>) option->default_str(std::to_string(value));
  return option;
}
CLI::Option* add_number(CLI::App& app, const std::string& name, double& value, double low,
                        double high, const std::string& help);

// One of a few names, as `named` knows them: pattern_of, say. name_of() tells the default.
template <class E, class F>
CLI::Option* add_name(CLI::App& app, const std::string& name, E& value, const F& named,
                      const std::string& help) {
  return add_value(app, name, "NAME", help,
                   [=, &value](const std::string& text) { value = named(text); })
      ->default_str(name_of(value));
}

// The name of a file or folder: not empty when it is given.
CLI::Option* add_file(CLI::App& app, const std::string& name, const std::string& kind,
                      std::string& value, const std::string& help);

// Options of several commands, and their limits.
CLI::Option* add_device(CLI::App& app, std::string& device);
CLI::Option* add_gpus(CLI::App& app, int& gpus);  // 0: all
CLI::Option* add_threads(CLI::App& app, int& threads);
int default_threads();
constexpr int most_threads = 1024;
constexpr int64_t largest_seed = INT64_MAX;  // what settings.json can hold

// Standard output, at once. InputError when it cannot be written, except that a reader who has
// gone away (focus … | head) is no error.
void print(const std::string& text);

}  // namespace focus
