// The program `focus`: see `focus --help`.
//
// Every error ends here, as one line on standard error and an exit status: 1 when a check or a run
// failed, 2 for bad input or environment.
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>

#include "cli/parser.h"
#include "error.h"
#include "files/atomic_file.h"
#ifdef FOCUS_KERNELS
namespace focus::gpu {
void register_device();  // cuda/stepper
}
#endif

namespace {

#ifdef NDEBUG
constexpr const char* version = "focus 0.1.0 (CPU only, compiler " __VERSION__ ")";
#else
constexpr const char* version = "focus 0.1.0 (CPU only, with assertions, compiler " __VERSION__ ")";
#endif

int complain(int status, std::string message) {
  // Names from files and command lines may hold anything; a terminal must not obey it.
  for (char& c : message)
    if (uint8_t(c) < ' ' || c == 127) c = '?';
  std::fprintf(stderr, "focus: %s\n", message.c_str());
  return status;
}

int run(int argc, char** argv) {
  using namespace focus;
  std::vector<Command> commands;
  for (const auto& part : {train_commands(), study_commands(), curve_commands(), model_commands(),
                           data_commands(), bench_commands()})
    commands.insert(commands.end(), part.begin(), part.end());
#ifdef FOCUS_KERNELS
  commands.push_back(bench_attention_commands().front());
  commands.push_back(bench_one_launch_commands().front());
  commands.push_back(bench_device_commands().front());
  gpu::register_device();
#endif
  const ParsedLine line = parse_command_line(argc, argv, commands, version);
  if (line.command) return line.command->run(line.arguments);
  print(line.text);
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
  } catch (const std::bad_alloc&) {
    return complain(2, "out of memory: choose a smaller model, batch or data set");
  } catch (const std::exception& error) {  // of the file system, the threads, …
    return complain(2, error.what());
  }
}
