// The program `focus`: see `focus --help`.
//
// Every error ends here, as one line on standard error and an exit status: 1 when a check or a run
// failed, 2 for bad input or environment.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>

#include "cli/command.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/printable.h"
#include "suggest.h"
#include "train/stepper.h"

namespace {

std::string version() {
  using namespace focus;
  const bool kernels = std::any_of(known_devices().begin(), known_devices().end(),
                                   [](const KnownDevice& device) { return device.compiled; });
#ifdef NDEBUG
  const char* assertions = "";
#else
  const char* assertions = "with assertions, ";
#endif
  return str("focus 0.1.0 (", kernels ? "CUDA" : "CPU only", ", ", assertions,
             "compiler " __VERSION__ ")");
}

int complain(int status, std::string_view message) {
  std::fprintf(stderr, "focus: %s\n", focus::without_control(message).c_str());
  return status;
}

// A word that CLI11 could not place: a flag or a command that does not exist, or one too many.
[[noreturn]] void fail_unknown(const CLI::App& app, std::string word) {
  using namespace focus;
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

int run(int argc, char** argv) {
  using namespace focus;
  CLI::App root(
      "Semantic Focus, from scratch: trains transformers with full and with sparse attention.");
  root.name("focus");
  root.set_version_flag("--version", version(), "print the version and exit");
  root.set_help_flag("-h,--help", "print this text and exit");
  root.require_subcommand(0, 1);
  root.final_callback([&root] { need_command(root); });
  root.get_formatter()->column_width(34);
  root.get_formatter()->label("OPTIONS", "FLAGS");
  root.get_formatter()->label("SUBCOMMAND", "COMMAND");
  root.footer(
      "Example: focus train --task even-pairs --attention topk --k 5\n"
      "'focus COMMAND --help' says more about each command.\n"
      "Exit status: 0 done; 1 a check or a run failed; 2 bad input or environment; 130 "
      "interrupted,\n"
      "after saving.");
  add_train_commands(root);
  add_study_commands(root);
  add_curve_commands(root);
  add_model_commands(root);
  add_data_commands(root);
  //@ from 13
  add_surface_command(root);
  //@ end
  //@ from 14
  add_stability_command(root);
  //@ end
  //@ from 15
  add_text_commands(root);
  add_generate_command(root);
  //@ end
  add_bench_commands(root);
  const auto chosen = [&root] {
    const CLI::App* app = &root;
    while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
    return app;
  };
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForVersion&) {
    print(version() + "\n");
  } catch (const CLI::CallForHelp&) {
    print(root.help());
  } catch (const CLI::RuntimeError& ended) {
    return ended.get_exit_code();
  } catch (const CLI::ParseError& error) {
    std::vector<std::string> unknown = root.remaining(true);
    std::erase(unknown, "--");  // only says that no flags follow
    if (!unknown.empty()) fail_unknown(*chosen(), unknown.front());
    fail_input(error.what(), "; see '", path_of(*chosen()), " --help'");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // Then write(2) fails and is reported, instead of ending the program: a reader that has gone
  // away, a file that grew beyond the limit for files.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const focus::InputError& error) {
    return complain(2, error.what());
  } catch (const focus::RunError& error) {
    return complain(1, error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return complain(2, focus::file_problem("cannot use", error.path1(), error.code().value()));
  } catch (const std::system_error& error) {
    return complain(2, "cannot start a thread: " + error.code().message() +
                           "; use fewer --threads, or allow more (ulimit -u, ulimit -v)");
  } catch (const std::bad_alloc&) {
    return complain(2, "out of memory: choose a smaller model, batch or data set");
  } catch (const std::exception& error) {
    return complain(2, error.what());
  }
}
