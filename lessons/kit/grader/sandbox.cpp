#include "sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>

#include "error.h"

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define FOCUS_CAN_FILTER 1
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

#if defined(FOCUS_CAN_FILTER)
// What a computing program with threads needs: its own memory, files that are shown to it, clocks.
// Not here, so that the limit of memory holds: other processes, memfd_create, shared memory. execve
// and wait4 are for bubblewrap, which starts the program behind this filter.
// clang-format off
const long computing[] = {
    SYS_openat, SYS_close, SYS_read, SYS_readv, SYS_pread64, SYS_write, SYS_writev, SYS_pwrite64,
    SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_faccessat, SYS_faccessat2, SYS_readlinkat,
    SYS_getdents64, SYS_getcwd, SYS_fcntl, SYS_ioctl, SYS_dup, SYS_ppoll, SYS_pipe2, SYS_uname,
    SYS_sysinfo, SYS_brk, SYS_mmap, SYS_mprotect, SYS_munmap, SYS_mremap, SYS_madvise,
    SYS_membarrier, SYS_execve, SYS_wait4, SYS_exit, SYS_exit_group, SYS_futex, SYS_rseq,
    SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_getpid, SYS_gettid,
    SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_tgkill, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_getrandom,
    SYS_prlimit64, SYS_getrusage, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity,
    SYS_restart_syscall, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_gettimeofday, SYS_setitimer, SYS_timer_create, SYS_timer_settime, SYS_timer_delete,
#if defined(__x86_64__)
    SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_poll, SYS_getdents, SYS_pipe,
    SYS_arch_prctl, SYS_time, SYS_alarm, SYS_getrlimit,
#endif
};
// clang-format on

// A program for the kernel that lets through the calls above and new threads, and refuses all else
// with EPERM.
std::vector<sock_filter> only_computing() {
#if defined(__x86_64__)
  const uint32_t processor = AUDIT_ARCH_X86_64;
#else
  const uint32_t processor = AUDIT_ARCH_AARCH64;
#endif
  std::vector<sock_filter> filter;
  const auto add = [&](uint16_t code, uint32_t k, uint8_t jt = 0, uint8_t jf = 0) {
    filter.push_back({code, jt, jf, k});
  };
  const uint16_t load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K,
                 end = BPF_RET | BPF_K;
  add(load, offsetof(seccomp_data, arch));
  add(equal, processor, 1, 0);
  add(end, SECCOMP_RET_KILL_PROCESS);
  add(load, offsetof(seccomp_data, nr));
  for (long call : computing) {
    add(equal, uint32_t(call), 0, 1);
    add(end, SECCOMP_RET_ALLOW);
  }
  // The C library tries clone3 first, whose flags cannot be seen, and then uses clone.
  add(equal, SYS_clone3, 0, 1);
  add(end, SECCOMP_RET_ERRNO | ENOSYS);
  add(equal, SYS_clone, 0, 3);
  add(load, offsetof(seccomp_data, args));
  add(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
  add(end, SECCOMP_RET_ALLOW);
  add(end, SECCOMP_RET_ERRNO | EPERM);
  return filter;
}
#endif

struct Pair {
  int ours = -1, theirs = -1;
  ~Pair() {
    close_ours();
    close_theirs();
  }
  void close_ours() { close_one(ours); }
  void close_theirs() { close_one(theirs); }

 private:
  static void close_one(int& fd) {
    if (fd >= 0) close(fd);
    fd = -1;
  }
};

void open_pair(Pair& pair) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    fail_input("cannot make a socket: ", std::strerror(errno));
  pair.ours = ends[0], pair.theirs = ends[1];
}

// The fresh root: /usr and the names that stand beside it for parts of it, the files that compilers
// look into, and what is shown.
std::vector<std::string> bubblewrap(const Sandbox& sandbox) {
  std::vector<std::string> words;
  std::istringstream options(
      "bwrap --unshare-user --uid 65534 --gid 65534 --unshare-ipc --unshare-pid --unshare-net "
      "--unshare-uts --hostname grading --unshare-cgroup-try --cap-drop ALL --die-with-parent "
      "--new-session --ro-bind /usr /usr --dev-bind /dev/null /dev/null");
  for (std::string word; options >> word;) words.push_back(word);
  const auto add = [&](std::initializer_list<std::string> more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    std::error_code none;
    if (fs::is_symlink(name, none))
      add({"--symlink", fs::read_symlink(name).string(), name});
    else
      add({"--ro-bind-try", name, name});
  }
  for (const char* name : {"/etc/alternatives", "/etc/ld.so.cache", "/proc/cpuinfo"})
    add({"--ro-bind-try", name, name});
  for (const auto& [host, inside] : sandbox.readable) add({"--ro-bind", host.string(), inside});
  for (const auto& [host, inside] : sandbox.writable) add({"--bind", host.string(), inside});
  add({"--remount-ro", "/", "--chdir", sandbox.folder});
  return words;
}

void limit(int resource, uint64_t most) {
  const rlimit both{rlim_t(most), rlim_t(most)};
  setrlimit(resource, &both);
}

// The processes below `process`, itself included: bubblewrap's own two and what they run.
int threads_below(pid_t process, int depth = 0) {
  const std::string folder = str("/proc/", process);
  int count = 0;
  std::ifstream status(folder + "/status");
  for (std::string word; status >> word;)
    if (word == "Threads:") {
      status >> count;
      break;
    }
  std::ifstream children(str(folder, "/task/", process, "/children"));
  for (pid_t child; depth < 4 && children >> child;) count += threads_below(child, depth + 1);
  return count;
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> all;
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));
  all.push_back(nullptr);
  return all;
}

// Appends what can be read; false at the end.
bool take(int fd, std::string& to) {
  std::array<char, 65536> bytes;
  const ssize_t count = read(fd, bytes.data(), bytes.size());
  if (count > 0) to.append(bytes.data(), size_t(count));
  return count > 0 || (count < 0 && errno == EINTR);
}

}  // namespace

std::string missing_protection() {
#if defined(FOCUS_CAN_FILTER)
  Sandbox sandbox;
  sandbox.environment = {"PATH=/usr/bin:/bin"};
  const Outcome outcome = run_sandboxed({"true"}, sandbox, {});
  if (outcome.ok()) return "";
  const std::string said =
      outcome.output.substr(0, std::min<size_t>(200, outcome.output.find('\n')));
  if (outcome.status == 127)
    return "bubblewrap (bwrap) is missing, in which student code is run: apt-get install "
           "bubblewrap";
  return str("bubblewrap, in which student code is run, is not allowed here (", said,
             "): lessons/kit/GRADING.md, \"Where it runs\", says what to allow");
#else
  return "student code can be run on Linux only, on x86-64 or arm64";
#endif
}

std::string Outcome::text(const Limits& limits) const {
  if (end == too_long) return str("does not end within ", limits.seconds, " s");
  if (end == too_much_output) return str("prints more than ", limits.output_mb, " MB");
  if (end == too_many_threads) return str("starts more than ", limits.threads, " threads");
  if (end == crashed && status == SIGXFSZ)
    return str("writes a file of more than ", limits.file_mb, " MB");
  if (end == crashed) return str("crashes (", strsignal(status), ")");
  return status == 0 ? "passes" : str("fails (exit status ", status, ")");
}

Outcome run_sandboxed(const std::vector<std::string>& command, const Sandbox& sandbox,
                      const Limits& limits, const std::string& secret) {
  Pair output, channel, filter;
  open_pair(output), open_pair(channel), open_pair(filter);
  if (!secret.empty() &&
      send(channel.ours, secret.data(), secret.size(), MSG_NOSIGNAL) != ssize_t(secret.size()))
    fail_input("cannot write to a socket: ", std::strerror(errno));
  shutdown(channel.ours, SHUT_WR);  // whoever reads a second time does not wait

  // Everything that needs memory is made before the fork. In the child 3 is the channel, 4 the
  // filter.
  std::vector<std::string> words = bubblewrap(sandbox);
#if defined(FOCUS_CAN_FILTER)
  if (sandbox.only_computes) {
    words.insert(words.end(), {"--seccomp", "4"});
    const std::vector<sock_filter> program = only_computing();
    const size_t bytes = program.size() * sizeof program[0];
    if (send(filter.ours, program.data(), bytes, MSG_NOSIGNAL) != ssize_t(bytes))
      fail_input("cannot write to a socket: ", std::strerror(errno));
  }
#endif
  filter.close_ours();
  words.push_back("--");
  words.insert(words.end(), command.begin(), command.end());
  const std::vector<char*> arguments = pointers(words), variables = pointers(sandbox.environment);

  const pid_t child = fork();
  if (child < 0) fail_input("cannot start a process: ", std::strerror(errno));
  if (child == 0) {
    setsid();
    // First out of the way, so that no dup2 closes what the next one needs.
    const int said = fcntl(output.theirs, F_DUPFD, 10), told = fcntl(channel.theirs, F_DUPFD, 10),
              rules = fcntl(filter.theirs, F_DUPFD, 10), nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, 0), dup2(said, 1), dup2(said, 2);
    for (int fd = 3; fd < 1024; ++fd)
      if (fd != told && fd != rules) close(fd);
    if (!secret.empty()) dup2(told, 3);
    if (sandbox.only_computes) dup2(rules, 4);
    close(told), close(rules);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, 128);
    limit(RLIMIT_CPU, uint64_t(limits.seconds) * 4 + 1);  // several threads; the clock comes first
    limit(RLIMIT_AS, uint64_t(limits.memory_mb) << 20);
    limit(RLIMIT_FSIZE, uint64_t(limits.file_mb) << 20);
    signal(SIGPIPE, SIG_DFL);
    execvpe(arguments[0], arguments.data(), variables.data());
    dprintf(2, "%s: %s\n", arguments[0], std::strerror(errno));
    _exit(127);
  }
  output.close_theirs(), channel.close_theirs(), filter.close_theirs();

  Outcome outcome;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(limits.seconds);
  const auto stop = [&](Outcome::End end) {
    kill(-child, SIGKILL);
    kill(child, SIGKILL);  // bubblewrap takes all that it runs with it
    waitpid(child, nullptr, 0);
    outcome.end = end;
    return outcome;
  };
  for (bool said = true, told = true;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return stop(Outcome::too_long);
    if (sandbox.only_computes && threads_below(child) > limits.threads)
      return stop(Outcome::too_many_threads);
    pollfd waiting[] = {{said ? output.ours : -1, POLLIN, 0},
                        {told ? channel.ours : -1, POLLIN, 0}};
    poll(waiting, 2, int(std::min<long>(left.count(), 20)));
    if (waiting[0].revents) said = take(output.ours, outcome.output);
    if (waiting[1].revents) told = take(channel.ours, outcome.told) && outcome.told.size() < 65536;
    if (outcome.output.size() > size_t(limits.output_mb) << 20)
      return stop(Outcome::too_much_output);
    if (waiting[0].revents || waiting[1].revents) continue;  // all it said comes before its end
    int status = 0;
    if (waitpid(child, &status, WNOHANG) != child) continue;
    kill(-child, SIGKILL);
    // bubblewrap tells a signal as a shell does.
    const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    outcome.end = code > 128 && code < 128 + 65 ? Outcome::crashed : Outcome::exited;
    outcome.status = outcome.end == Outcome::crashed ? code - 128 : code;
    return outcome;
  }
}

}  // namespace focus::kit
