#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "error.h"
#include "train/settings.h"

namespace focus {

CLI::App* add_work(CLI::App& parent, const std::string& name, const std::string& help,
                   std::function<int()> work) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->final_callback([app, work] {
    if (!app->get_subcommands().empty()) return;  // 'study merge' has done it, not 'study'
    if (const int status = work()) throw CLI::RuntimeError(status);
  });
  return app;
}

CLI::App* add_group(CLI::App& parent, const std::string& name, const std::string& help) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->footer("'" + path_of(*app) + " COMMAND --help' says more about each command.");
  app->final_callback([app] { need_command(*app); });
  return app;
}

void need_command(const CLI::App& app) {
  if (!app.get_subcommands().empty()) return;
  std::string known;
  for (const std::string& name : names_below(app)) known += " " + name;
  fail_input("'", path_of(app), "' needs a command, one of", known, "; see '", path_of(app),
             " --help'");
}

std::string path_of(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent ? path_of(*parent) + " " + app.get_name() : app.get_name();
}

std::vector<std::string> names_below(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

void add_footer(CLI::App& app, const std::string& text) {
  app.footer(text);
}

Option Option::required(bool is) const {
  return option_->required(is);
}

Option Option::default_str(const std::string& text) const {
  return option_->default_str(text);
}

Option Option::description(const std::string& text) const {
  return option_->description(text);
}

Option Option::expected(int values) const {
  return option_->expected(values);
}

Option Option::expected(int least, int most) const {
  return option_->expected(least, most);
}

Option add_value(CLI::App& app, const std::string& name, const std::string& kind,
                 const std::string& help, std::function<void(const std::string&)> read) {
  const auto named = [name, read](const std::string& text) {
    try {
      read(text);
    } catch (const InputError& error) {
      fail_input(name, ": ", error.what());
    }
  };
  return app.add_option_function<std::string>(name, named, help)->type_name(kind);
}

template <class T>
static T within(T value, T low, T high) {
  if (!(value >= low && value <= high)) fail_input(value, " is not between ", low, " and ", high);
  return value;
}

int64_t read_whole(const std::string& text, int64_t low, int64_t high) {
  return within(parse_integer(text), low, high);
}

double read_number(const std::string& text, double low, double high) {
  return within(parse_number(text), low, high);
}

Option add_number(CLI::App& app, const std::string& name, double& value, double low, double high,
                  const std::string& help) {
  const auto read = [=, &value](const std::string& text) { value = read_number(text, low, high); };
  return add_value(app, name, "X", help, read)->default_str(number_text(value));
}

Option add_file(CLI::App& app, const std::string& name, const std::string& kind, std::string& value,
                const std::string& help) {
  return add_value(app, name, kind, help, [&value](const std::string& text) {
    if (text.empty()) fail_input("the name is empty");
    value = text;
  });
}

Option add_text(CLI::App& app, const std::string& name, const std::string& kind, std::string& value,
                const std::string& help) {
  return app.add_option(name, value, help)->type_name(kind)->default_str(value);
}

Option add_texts(CLI::App& app, const std::string& name, const std::string& kind,
                 std::vector<std::string>& values, const std::string& help) {
  return app.add_option(name, values, help)->type_name(kind);
}

void add_flag(CLI::App& app, const std::string& name, bool& value, const std::string& help) {
  app.add_flag(name, value, help)->disable_flag_override();
}

void add_flag(CLI::App& app, const std::string& name, std::function<void()> when_given,
              const std::string& help) {
  app.add_flag_callback(name, when_given, help)->disable_flag_override();
}

Option add_device(CLI::App& app, std::string& device) {
  return add_text(app, "--device", "NAME", device, "where to compute: cpu or cuda");
}

int default_threads() {
  return int(std::clamp(std::thread::hardware_concurrency(), 1u, unsigned(most_threads)));
}

Option add_gpus(CLI::App& app, int& gpus) {
  return add_whole(app, "--gpus", gpus, 1, 1024,
                   "on cuda: use the first N GPUs (default: all that are like the first)")
      ->default_str("");
}

Option add_threads(CLI::App& app, int& threads) {
  return add_whole(app, "--threads", threads, 1, most_threads,
                   "threads to compute with; they change the speed, never the result");
}

void print(const std::string& text) {
  static bool reader_gone = false;
  if (reader_gone) return;
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  reader_gone = errno == EPIPE;
  if (!reader_gone) fail_input("cannot write to standard output: ", std::strerror(errno));
}

}  // namespace focus
