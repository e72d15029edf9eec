// Runs gnuplot; gnuplot_script.cpp writes what it reads.
#include "report/svg_plot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "error.h"
#include "files/atomic_file.h"

extern char** environ;

namespace focus {
namespace {

namespace fs = std::filesystem;

// A folder that disappears with everything in it at the end of the scope.
struct TemporaryFolder {
  fs::path path;

  TemporaryFolder() {
    const char* advice = "; set TMPDIR to a folder you may write";
    std::error_code error;
    const fs::path place = fs::temp_directory_path(error);
    if (error) fail_input("no folder for temporary files: ", error.message(), advice);
    std::string name = (place / "focus-figure-XXXXXX").string();
    if (!::mkdtemp(name.data()))
      fail_input("cannot make a folder in ", place.string(), ": ",
                 std::generic_category().message(errno), advice);
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

// The exit status, or -1 when the program could not be started. No shell is involved.
int run_gnuplot(const fs::path& script, const fs::path& output, const fs::path& errors) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const auto redirect = [&](int fd, const char* file, int flags) {
    posix_spawn_file_actions_addopen(&actions, fd, file, flags, 0600);
  };
  redirect(STDIN_FILENO, "/dev/null", O_RDONLY);
  redirect(STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC);
  redirect(STDERR_FILENO, errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC);
  std::string name = "gnuplot", defaults = "--default-settings", file = script.string();
  char* arguments[] = {name.data(), defaults.data(), file.data(), nullptr};
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, "gnuplot", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return -1;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string first_line(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
  return std::string(text.substr(0, std::min(text.find('\n'), size_t{200})));
}

}  // namespace

bool write_figure(const Figure& figure, const fs::path& path, std::string* why_not) {
  const fs::path extension = path.extension();
  if (extension != ".svg" && extension != ".png") {
    fail_input("cannot draw ", path.string(), ": the name must end in .svg or .png");
  }
  const TemporaryFolder folder;
  const fs::path script = folder.path / "figure.gp", output = folder.path / "figure",
                 errors = folder.path / "errors";
  const ImageKind kind = extension == ".svg" ? ImageKind::svg : ImageKind::png;
  write_file_atomically(script, gnuplot_script(figure, kind));

  const auto give_up = [&](const std::string& sentence) {
    if (why_not) *why_not = sentence;
    return false;
  };
  constexpr size_t most = size_t{1} << 28;
  const int status = run_gnuplot(script, output, errors);
  if (status < 0 || status == 127) {
    return give_up(str("gnuplot is not installed, so ", path.string(),
                       " was not drawn; to have it: sudo apt install gnuplot-nox"));
  }
  const std::string image = read_file(output, most);
  if (status != 0 || image.empty()) {
    return give_up(str("gnuplot could not draw ", path.string(), " (status ", status,
                       "): ", first_line(read_file(errors, most))));
  }
  write_file_atomically(path, image);
  return true;
}

}  // namespace focus
