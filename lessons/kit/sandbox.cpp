#include "sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>

#include "error.h"

#if defined(__linux__)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#if __has_include(<linux/landlock.h>)
#include <linux/landlock.h>
#define FOCUS_LANDLOCK 1
#endif
#endif

namespace focus::kit {

namespace {

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define FOCUS_SECCOMP 1

// A filter of system calls: no sockets, no leaving of the process group (by which everything is
// ended at last), and unless programs may be started, no new processes; threads stay possible.
bool filter_system_calls(bool may_start_programs) {
#if defined(__x86_64__)
  const uint32_t processor = AUDIT_ARCH_X86_64;
#else
  const uint32_t processor = AUDIT_ARCH_AARCH64;
#endif
  std::vector<sock_filter> filter;
  const auto add = [&](uint16_t code, uint32_t k, uint8_t jt = 0, uint8_t jf = 0) {
    filter.push_back({code, jt, jf, k});
  };
  const auto refuse = [&](long call, uint32_t error) {
    add(BPF_JMP | BPF_JEQ | BPF_K, uint32_t(call), 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
  };
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
  add(BPF_JMP | BPF_JEQ | BPF_K, processor, 1, 0);
  add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  add(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);  // the same calls under other numbers (x32)
  add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
#endif
  for (long call : {long(SYS_socket), long(SYS_socketpair), long(SYS_setsid), long(SYS_setpgid),
                    long(SYS_ptrace), long(SYS_kill), long(SYS_io_uring_setup)})
    refuse(call, EPERM);
  if (!may_start_programs) {
#if defined(__x86_64__)
    refuse(SYS_fork, EPERM);
    refuse(SYS_vfork, EPERM);
#endif
    refuse(SYS_clone3, ENOSYS);  // the C library then uses clone, whose flags can be seen
    add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3);
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args));
    add(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
    add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  }
  add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
#endif

#if defined(FOCUS_LANDLOCK)
int landlock_version() {
  return int(syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION));
}

// From here on files can be changed, made and removed below the writable folders only.
bool protect_files(const std::vector<std::filesystem::path>& writable) {
  const int version = landlock_version();
  if (version < 1) return false;
  uint64_t changes = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
  if (version >= 2) changes |= 1u << 13;  // moving files between folders
  if (version >= 3) changes |= 1u << 14;  // cutting files short
  landlock_ruleset_attr rules{};
  rules.handled_access_fs = changes;
  const int ruleset = int(syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0));
  if (ruleset < 0) return false;
  bool ok = true;
  const auto allow = [&](const char* path, uint64_t access) {
    landlock_path_beneath_attr beneath{};
    beneath.allowed_access = access;
    beneath.parent_fd = open(path, O_PATH | O_CLOEXEC);
    ok &= beneath.parent_fd >= 0 &&
          syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0;
    if (beneath.parent_fd >= 0) close(beneath.parent_fd);
  };
  for (const auto& folder : writable) allow(folder.c_str(), changes);
  allow("/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE | (version >= 3 ? 1u << 14 : 0));
  ok &= syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  close(ruleset);
  return ok;
}
#endif

void limit(int resource, uint64_t most) {
  const rlimit both{rlim_t(most), rlim_t(most)};
  setrlimit(resource, &both);
}

// In the child, between fork and exec.
void give_up_powers(const Limits& limits) {
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, uint64_t(limits.seconds) * 4 + 1);  // several threads; the clock ends it first
  limit(RLIMIT_AS, uint64_t(limits.memory_mb) << 20);
  limit(RLIMIT_FSIZE, uint64_t(limits.file_mb) << 20);
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#if defined(FOCUS_LANDLOCK)
  protect_files(limits.writable);
#endif
#if defined(FOCUS_SECCOMP)
  filter_system_calls(limits.may_start_programs);
#endif
#endif
}

}  // namespace

std::string missing_protection() {
  std::string missing;
#if defined(FOCUS_LANDLOCK)
  if (landlock_version() < 1) missing = "change your files (this kernel has no Landlock)";
#else
  missing = "change your files (this system has no Landlock)";
#endif
#if !defined(FOCUS_SECCOMP)
  missing += str(missing.empty() ? "" : " and ", "use the network (no filter of system calls)");
#endif
  return missing;
}

std::string Outcome::text(const Limits& limits) const {
  if (end == too_long) return str("does not end within ", limits.seconds, " s");
  if (end == too_much_output) return str("prints more than ", limits.output_mb, " MB");
  if (end == crashed && status == SIGXFSZ)
    return str("writes a file of more than ", limits.file_mb, " MB");
  if (end == crashed) return str("crashes (", strsignal(status), ")");
  return status == 0 ? "passes" : str("fails (exit status ", status, ")");
}

Outcome run_limited(const std::vector<std::string>& command, const std::filesystem::path& folder,
                    const std::vector<std::string>& environment, const Limits& limits) {
  // Everything that needs memory is made before the fork.
  std::vector<char*> arguments, variables;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  for (const std::string& word : environment) variables.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr), variables.push_back(nullptr);
  int ends[2];
  if (pipe(ends) != 0) fail_input("cannot make a pipe: ", std::strerror(errno));
  const pid_t child = fork();
  if (child < 0) fail_input("cannot start a process: ", std::strerror(errno));
  if (child == 0) {
    setsid();
    const int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, 0), dup2(ends[1], 1), dup2(ends[1], 2);
    for (int fd = 3; fd < 64; ++fd) close(fd);
    if (chdir(folder.c_str()) != 0) _exit(126);
    give_up_powers(limits);
    execve(arguments[0], arguments.data(), variables.data());
    dprintf(2, "%s: %s\n", arguments[0], std::strerror(errno));
    _exit(127);
  }
  close(ends[1]);

  Outcome outcome;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(limits.seconds);
  size_t total = 0;
  bool open_end = true;
  for (int status = 0;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      outcome.end = Outcome::too_long;
      break;
    }
    pollfd waiting{ends[0], POLLIN, 0};
    poll(&waiting, open_end ? 1 : 0, int(std::min<long>(left.count(), 50)));
    if (open_end && (waiting.revents & (POLLIN | POLLHUP))) {
      std::array<char, 65536> bytes;
      const ssize_t count = read(ends[0], bytes.data(), bytes.size());
      if (count <= 0) open_end = false;
      if (count > 0) {
        total += size_t(count);
        outcome.output.append(bytes.data(), size_t(count));
        if (outcome.output.size() > (512 << 10))
          outcome.output.erase(0, outcome.output.size() - (256 << 10));
      }
      if (total > size_t(limits.output_mb) << 20) {
        outcome.end = Outcome::too_much_output;
        break;
      }
      continue;  // the rest of what it said comes before its end
    }
    if (waitpid(child, &status, WNOHANG) == child) {
      kill(-child, SIGKILL);  // what it may have left behind
      outcome.end = WIFSIGNALED(status) ? Outcome::crashed : Outcome::exited;
      outcome.status = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
      close(ends[0]);
      return outcome;
    }
  }
  kill(-child, SIGKILL);
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return outcome;
}

}  // namespace focus::kit
