// The only file that knows the library for command lines, CLI11 (slow to compile).
#include "cli/parser.h"

#include <CLI/CLI.hpp>
#include <deque>

#include "error.h"
#include "suggest.h"

namespace focus {

namespace {

const std::map<std::string, std::string> groups = {
    {"data", "write data files, or check their labels"},
    {"bench", "measure speed"},
};

// One command in CLI11's terms, and the places that its values go to.
struct Entry {
  const Command* command;
  CLI::App* app;
  std::deque<std::pair<const Flag*, std::string>> values = {};  // a deque: CLI11 keeps pointers
  std::vector<CLI::Option*> options = {};                       // in the same order
  CLI::Option* positional = nullptr;
  std::string word = {};
  std::vector<std::string> words = {};
};

// What is not understood is collected, so that this file can say it in its own words.
CLI::App* add_app(CLI::App& parent, const std::string& help, const std::string& name) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->allow_extras();
  app->require_subcommand(0, 1);
  return app;
}

void add_command(Entry& entry) {
  const Command& command = *entry.command;
  for (const Flag& flag : command.flags) {
    auto& value = entry.values.emplace_back(&flag, "").second;
    std::string help = flag.help;
    if (!flag.fallback.empty()) help += " (default " + flag.fallback + ")";
    if (flag.required) help += " (required)";
    const std::string name = "--" + flag.name, text = help;
    entry.options.push_back(flag.value.empty()
                                ? entry.app->add_flag(name, text)
                                : entry.app->add_option(name, value, text)->type_name(flag.value));
  }
  for (const Positional& positional : command.positionals) {  // one at most
    // A vector takes several words. It would also take "[MAX 3 4 ]" for a list in brackets.
    CLI::Option* option = positional.many
                              ? entry.app->add_option(positional.name, entry.words, positional.help)
                              : entry.app->add_option(positional.name, entry.word, positional.help);
    option->type_name("");
    entry.positional = option;
  }
  entry.app->footer(command.more);
}

std::vector<std::string> names_below(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

std::string path_of(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent ? path_of(*parent) + " " + app.get_name() : app.get_name();
}

[[noreturn]] void fail_unknown(const CLI::App& app, std::string word) {
  const std::string see = "; see '" + path_of(app) + " --help'";
  std::vector<std::string> known = names_below(app);
  if (word.starts_with("-") && word.size() > 1) {
    word = word.substr(0, word.find('='));
    known = {"help"};
    for (const CLI::Option* option : app.get_options())
      if (!option->get_lnames().empty()) known.push_back(option->get_lnames().front());
    const std::string near = nearest_name(word.substr(word.starts_with("--") ? 2 : 1), known);
    fail_input("unknown flag ", word, near.empty() ? "" : ": did you mean --" + near + "?", see);
  }
  if (known.empty()) fail_input("'", word, "' is one argument too many", see);
  const std::string near = nearest_name(word, known);
  fail_input("unknown command '", word, "'", near.empty() ? "" : ": did you mean " + near + "?",
             see);
}

}  // namespace

ParsedLine parse_command_line(int argc, const char* const* argv,
                              const std::vector<Command>& commands, const std::string& version) {
  CLI::App root(
      "Semantic Focus, from scratch: trains transformers with full and with sparse attention.");
  root.name("focus");
  root.set_version_flag("--version", version, "print the version and exit");
  root.set_help_flag("-h,--help", "print this text and exit");
  root.allow_extras();
  root.require_subcommand(0, 1);
  root.get_formatter()->column_width(34);
  root.get_formatter()->label("OPTIONS", "FLAGS");
  root.get_formatter()->label("SUBCOMMAND", "COMMAND");
  root.footer(
      "Example: focus train --task even-pairs --attention topk --k 5\n"
      "'focus COMMAND --help' says more about each command.\n"
      "Exit status: 0 done; 1 a check or a run failed; 2 bad input or environment; 130 "
      "interrupted,\n"
      "after saving.");

  std::map<std::string, CLI::App*> group_apps;
  std::deque<Entry> entries;
  for (const Command& command : commands) {
    const size_t blank = command.name.find(' ');
    CLI::App* parent = &root;
    if (blank != std::string::npos) {
      const std::string group = command.name.substr(0, blank);
      CLI::App*& app = group_apps[group];
      if (!app) {
        app = add_app(root, groups.at(group), group);
        app->footer("'focus " + group + " COMMAND --help' says more about each command.");
      }
      parent = app;
    }
    const std::string name =
        blank == std::string::npos ? command.name : command.name.substr(blank + 1);
    add_command(entries.emplace_back(Entry{&command, add_app(*parent, command.help, name)}));
    // A command may have others below it, as 'study' has 'study merge'.
    if (blank == std::string::npos) group_apps[name] = entries.back().app;
  }

  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForVersion&) {
    return {.text = version + "\n"};
  } catch (const CLI::CallForHelp&) {
    return {.text = root.help()};
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string message = error.what(), flag = message.substr(0, message.find(':'));
    if (message.ends_with("missing")) fail_input(flag, ": its value is missing");
    fail_input(flag, " is given more than once");
  } catch (const CLI::ParseError& error) {
    fail_input(error.what());
  }

  const CLI::App* chosen = &root;
  while (!chosen->get_subcommands().empty()) chosen = chosen->get_subcommands().front();
  std::vector<std::string> extra = root.remaining(true);
  std::erase(extra, "--");  // only says that no flags follow
  if (!extra.empty()) fail_unknown(*chosen, extra.front());
  for (Entry& entry : entries) {
    if (entry.app != chosen) continue;
    ParsedLine line{.command = entry.command};
    for (size_t i = 0; i < entry.values.size(); ++i) {
      const auto& [flag, value] = entry.values[i];
      line.arguments.fallbacks[flag->name] = flag->fallback;
      if (entry.options[i]->count() > 0)
        line.arguments.flags[flag->name] = value;
      else if (flag->required)
        fail_input("--", flag->name, " is missing; see '", path_of(*chosen), " --help'");
    }
    if (!entry.positional) return line;
    line.arguments.words =
        entry.command->positionals[0].many ? entry.words : std::vector{entry.word};
    if (entry.positional->count() == 0)
      fail_input(entry.command->positionals[0].name, " is missing; see '", path_of(*chosen),
                 " --help'");
    return line;
  }
  std::string known;
  for (const std::string& name : names_below(*chosen)) known += " " + name;
  fail_input("'", path_of(*chosen), "' needs a command, one of", known, "; see '", path_of(*chosen),
             " --help'");
}

}  // namespace focus
