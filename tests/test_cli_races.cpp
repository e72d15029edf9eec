// Two processes at any point of each other's start: one of them trains, and nothing that it has
// made is lost. One process stands still at each of its system calls that touch folders and files,
// while another one runs from beginning to end.
#ifdef __linux__
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <set>

#include "cli.h"

using namespace focus;
using namespace focus::cli;

namespace {

int trace(int request, pid_t process, void* address = nullptr, void* data = nullptr) {
  return int(::ptrace(static_cast<__ptrace_request>(request), process, address, data));
}

// A process that stands still before its n-th system call on files, counted from the first folder
// that it makes, until finish().
class Halted {
 public:
  Halted(const Words& arguments, const fs::path& folder, int calls, long largest_file = 0) {
    const std::string name = program().string(), where = folder.string();
    std::vector<char*> argv{const_cast<char*>(name.c_str())};
    for (const std::string& word : arguments) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    process_ = ::fork();
    if (process_ == 0) {
      const rlimit limit{rlim_t(largest_file), rlim_t(largest_file)};
      if (largest_file > 0) ::setrlimit(RLIMIT_FSIZE, &limit);
      for (int stream : {1, 2}) ::dup2(::open("/dev/null", O_WRONLY), stream);
      ::setenv("LSAN_OPTIONS", "detect_leaks=0", 1);  // it cannot look for leaks while it is traced
      if (::chdir(where.c_str()) != 0 || trace(PTRACE_TRACEME, 0) != 0) ::_exit(126);
      ::execv(name.c_str(), argv.data());
      ::_exit(127);
    }
    ::waitpid(process_, &status_, 0);
    trace(PTRACE_SETOPTIONS, process_, nullptr,
          reinterpret_cast<void*>(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    while (calls > 0 && !is_over() && trace(PTRACE_SYSCALL, process_) == 0) {
      ::waitpid(process_, &status_, 0);
      calls -= !is_over() && is_before_call_on_files();
    }
  }
  ~Halted() { finish(); }
  Halted(const Halted&) = delete;
  Halted& operator=(const Halted&) = delete;

  bool is_over() const { return WIFEXITED(status_) || WIFSIGNALED(status_); }
  // The exit status; 126: this system lets nobody trace.
  int finish() {
    if (!is_over()) {
      trace(PTRACE_DETACH, process_);
      ::waitpid(process_, &status_, 0);
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }

 private:
  bool is_before_call_on_files() {
#ifdef SYS_mkdir
    static const std::set<uint64_t> first = {SYS_mkdir, SYS_mkdirat};
    static const std::set<uint64_t> old = {SYS_rmdir,  SYS_open,   SYS_stat,  SYS_lstat,
                                           SYS_unlink, SYS_rename, SYS_access};
#else
    static const std::set<uint64_t> first = {SYS_mkdirat}, old;
#endif
    static const std::set<uint64_t> later = {SYS_openat,   SYS_flock,      SYS_unlinkat,
                                             SYS_renameat, SYS_newfstatat, SYS_fsync};
    __ptrace_syscall_info info{};
    if (trace(PTRACE_GET_SYSCALL_INFO, process_, reinterpret_cast<void*>(sizeof info), &info) <= 0)
      return false;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return false;
    const bool makes_a_folder = first.contains(info.entry.nr);
    has_begun_ = has_begun_ || makes_a_folder;
    return makes_a_folder ||
           (has_begun_ && (later.contains(info.entry.nr) || old.contains(info.entry.nr)));
  }

  pid_t process_ = -1;
  int status_ = 0;
  bool has_begun_ = false;
};

Words one_epoch(const std::string& out) {
  return small_run(out, 1) + "--threads 1";
}

constexpr long too_small = 2000;  // bytes in a file: enough for the texts, not for the weights

// Is there a run that can be gone on with?
void check_run(const Place& place, const std::string& folder) {
  CAPTURE(folder);
  CHECK(place.run({"resume", folder}).status == 0);
  CHECK(fs::exists(place / folder / first_seed / "best.safetensors"));
}

// Calls f(process halted at its n-th call, n) until the process ends before that many.
template <class F>
void at_every_call(const Words& arguments, const Place& place, long largest_file, const F& f) {
  int n = 1, over = 0;
  for (; over == 0 && n < 2000; ++n) {
    const fs::path folder = place / str("n", n);
    fs::create_directories(folder);
    Halted halted(arguments, folder, n, largest_file);
    over = halted.is_over();
    if (over && halted.finish() == 126) {
      MESSAGE("not tested: no process may be traced here");
      return;
    }
    f(halted, str("n", n, "/"));
    fs::remove_all(folder);
  }
  CHECK(n > 10);
}

}  // namespace

TEST_CASE("cli: of two that begin in one folder one trains, whenever the other comes") {
  const Place place;
  at_every_call(one_epoch("p/run"), place, 0, [&](Halted& first, const std::string& folder) {
    const int second = place.run(one_epoch(folder + "p/run")).status;
    const int status = first.finish();
    CAPTURE(folder);
    CHECK(((status == 0 && second == 2) || (status == 2 && second == 0)));
    check_run(place, folder + "p/run");
  });
}

TEST_CASE("cli: one that fails removes nothing of another, whenever that comes") {
  const Place place;
  // In the same folder, and beside it in a parent that only one of them can have made.
  for (const char* other : {"p/run", "p/other"})
    at_every_call(one_epoch("p/run"), place, too_small,
                  [&](Halted& failing, const std::string& folder) {
                    const int status = place.run(one_epoch(folder + other)).status;
                    CHECK(failing.finish() == 2);
                    CAPTURE(folder);
                    CAPTURE(other);
                    if (status == 0) check_run(place, folder + other);
                    if (std::string(other) == "p/other") CHECK(status == 0);
                    CHECK((status == 0 || !fs::exists(place / folder / "p")));
                  });
}

TEST_CASE("cli: one that trains is not disturbed by others that fail, whenever they come") {
  const Place place;
  at_every_call(one_epoch("p/run"), place, 0, [&](Halted& first, const std::string& folder) {
    CHECK(place.run(one_epoch(folder + "p/other"), too_small).status == 2);
    const int same = place.run(one_epoch(folder + "p/run"), too_small).status;
    CHECK(same == 2);
    CHECK(first.finish() == 0);
    check_run(place, folder + "p/run");
    CHECK(!fs::exists(place / folder / "p/other"));
  });
}
#endif
