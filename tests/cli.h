// Runs the program and keeps what it says. The program is that of the environment variable FOCUS,
// or build/focus.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "error.h"

namespace focus::cli {

namespace fs = std::filesystem;

// A command line's words: a list of them, or one text that blanks part.
struct Words : std::vector<std::string> {
  using vector::vector;
  Words(const std::string& line) {
    std::istringstream words(line);
    for (std::string word; words >> word;) push_back(word);
  }
  Words(const char* line) : Words(std::string(line)) {}
};

inline std::string read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

inline void write_all(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Every file below a folder, by its path.
inline std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    files[entry.path().string()] = entry.is_directory() ? "folder" : read_all(entry.path());
  return files;
}

inline fs::path program() {
  const char* given = std::getenv("FOCUS");
  return fs::absolute(given && *given ? given : "build/focus");
}

inline fs::path golden_folder() {
  return fs::absolute("tests/golden");
}

// A process that runs in a folder, with limits of its own.
class Process {
 public:
  Process(const Words& arguments, const fs::path& folder, long largest_file = 0,
          const std::string& out = {}) {
    static std::atomic<int> number{0};
    const std::string base =
        (fs::temp_directory_path() / str("focus-cli-", ::getpid(), "-", number++)).string();
    out_ = out.empty() ? base + ".out" : out;
    err_ = base + ".err";
    const std::string name = program().string(), where = folder.string();
    std::vector<char*> argv{const_cast<char*>(name.c_str())};
    for (const std::string& word : arguments) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    // A signal must not find the child while it still has this program's handlers.
    sigset_t all, before;
    ::sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, &before);
    pid_ = ::fork();
    if (pid_ != 0) {
      ::sigprocmask(SIG_SETMASK, &before, nullptr);
      return;
    }
    // The child: only calls that are safe after a fork.
    for (int signal : {SIGINT, SIGTERM}) ::signal(signal, SIG_DFL);
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    const rlimit limit{rlim_t(largest_file), rlim_t(largest_file)};
    if (::chdir(where.c_str()) != 0) ::_exit(127);
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT, 0600), 1);
    ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    if (largest_file > 0) ::setrlimit(RLIMIT_FSIZE, &limit);
    ::execv(name.c_str(), argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (!done_) {
      send(SIGKILL);
      wait();
    }
    if (!out_.starts_with("/dev/")) fs::remove(out_);
    fs::remove(err_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void send(int signal) { ::kill(pid_, signal); }
  // The exit status, or minus the signal that ended it.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    done_ = true;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  std::string out() const { return out_.starts_with("/dev/") ? "" : read_all(out_); }
  std::string err() const { return read_all(err_); }

 private:
  pid_t pid_ = -1;
  bool done_ = false;
  std::string out_, err_;
};

struct Outcome {
  int status = 0;
  std::string out, err;
};

// A folder of its own for each test, in which the program runs.
class Place {
 public:
  Place() {
    static std::atomic<int> number{0};
    path_ = fs::temp_directory_path() / str("focus-cli-place-", ::getpid(), "-", number++);
    fs::create_directories(path_);
    REQUIRE_MESSAGE(fs::exists(program()), program().string(), " is missing: run make first");
  }
  ~Place() { fs::remove_all(path_); }
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

  Outcome run(const Words& arguments, long largest_file = 0, const std::string& out = {}) const {
    Process process(arguments, path_, largest_file, out);
    const int status = process.wait();
    return {status, process.out(), process.err()};
  }

  // Runs what must be done without complaint and returns its standard output.
  std::string done(const Words& arguments) const {
    const Outcome outcome = run(arguments);
    INFO(outcome.err);
    REQUIRE(outcome.status == 0);
    return outcome.out;
  }

  // Bad input: status 2 (or the one given), one line on standard error that holds `says`, nothing
  // on standard output, and not a byte of the folder has changed.
  void refuses(const Words& arguments, const std::string& says, int status = 2) const {
    const auto before = contents(path_);
    const Outcome outcome = run(arguments);
    std::string line;
    for (const std::string& word : arguments) line += word.substr(0, 60) + " ";
    CAPTURE(line);
    CAPTURE(outcome.err);
    CHECK(outcome.status == status);
    CHECK(outcome.err.starts_with("focus: "));
    CHECK(outcome.err.ends_with("\n"));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK(outcome.err.find(says) != std::string::npos);
    CHECK(outcome.out.empty());
    CHECK(contents(path_) == before);
  }

 private:
  fs::path path_;
};

inline Words operator+(Words first, const Words& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// A run so small that it takes a fraction of a second.
inline Words small_run(const std::string& out, int epochs) {
  return Words(
             "train --task even-pairs --attention topk --k 3 --length 10 --d-model 8 --d-mlp 8 "
             "--blocks 1 --dropout 0.1 --train-size 200 --batch 10 --val-size 50") +
         Words{"--out", out, "--epochs", std::to_string(epochs)};
}
inline const std::string first_seed = "seed-153476998";  // of the paper's ten

}  // namespace focus::cli
