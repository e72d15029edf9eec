#include "attacks.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace {

int calls = 0;
std::string through;
void tried(const char* name, long result) {
  ++calls;
  if (result != -1) through += std::string(" ") + name;
}

void report() {
  std::printf("  FAIL  of %d calls went through:%s.\n", calls, through.c_str());
  std::fflush(stdout);
}

const char own[] = "/tree/build/stage-01";

int idle(void*) {
  for (;;) pause();
}

}  // namespace

int attack_calls() {
  const timespec future[2] = {{4102444800, 0}, {4102444800, 0}};
  const int program = open(own, O_RDONLY);
  if (program < 0) std::printf("cannot even read %s: %s\n", own, std::strerror(errno));
  tried("chmod", chmod(own, 0777));
  tried("fchmod", fchmod(program, 0777));
  tried("fchmodat", fchmodat(AT_FDCWD, own, 0777, 0));
  tried("chown", chown(own, 1234, 1234));
  tried("fchown", fchown(program, 65534, 65534));
  tried("lchown", lchown(own, 65534, 65534));
  tried("utimensat", utimensat(AT_FDCWD, own, future, 0));
  tried("futimens", futimens(program, future));
  tried("setxattr", setxattr(own, "user.x", "1", 1, 0));
  tried("fsetxattr", fsetxattr(program, "user.x", "1", 1, 0));
  tried("removexattr", removexattr(own, "user.x"));
  tried("truncate", truncate(own, 0));
  for (const char* folder : {"/", "/tree/", "/tree/build/", "/tree/tests/", "/tmp/", "/dev/shm/",
                             "/dev/", "/usr/", "/var/tmp/", "/proc/"}) {
    const std::string file = std::string(folder) + "made";
    tried(folder, open(file.c_str(), O_WRONLY | O_CREAT, 0666));
    tried("mkdir", mkdir(file.c_str(), 0777));
    tried("symlink", symlink("/", file.c_str()));
    tried("link", link(own, file.c_str()));
    tried("rename", rename(own, file.c_str()));
    tried("mknod", mknod(file.c_str(), S_IFIFO | 0666, 0));
  }
  tried("unlink", unlink(own));
  for (const char* path : {"/etc/passwd",
                           "/etc/shadow",
                           "/etc/hostname",
                           "/proc/self/environ",
                           "/proc/1/environ",
                           "/proc/1/cmdline",
                           "/proc/self/exe",
                           "/proc/self/mem",
                           "/sys",
                           "/root",
                           "/home",
                           "/var",
                           "/tree/src",
                           "/tree/src/numbers.cpp",
                           "/tree/Makefile",
                           "/tree/lessons/01-twice/gaps",
                           "../../../../etc/passwd",
                           "/dev/mem",
                           "/dev/tty",
                           "/dev/kmsg",
                           "/run"})
    tried(path, open(path, O_RDONLY));
  for (const char* name : {"FOCUS_TEST_SECRET", "HOME", "USER", "PATH"})
    tried(name, std::getenv(name) ? 0 : -1);
  for (int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_ALG})
    tried("socket", socket(family, SOCK_DGRAM, 0));
  int pair[2];
  tried("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  tried("fork", child);
  tried("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  tried("unshare", unshare(CLONE_NEWUSER));
  tried("setns", syscall(SYS_setns, 0, 0));
  tried("mount", syscall(SYS_mount, "none", "/", "tmpfs", 0, nullptr));
  tried("umount2", syscall(SYS_umount2, "/usr", 2));
  tried("pivot_root", syscall(SYS_pivot_root, "/", "/"));
  tried("chroot", chroot("/tree"));
  tried("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
  tried("ptrace", ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
  tried("process_vm_readv", syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0));
  tried("pidfd_open", syscall(SYS_pidfd_open, getppid(), 0));
  tried("kill all", kill(-1, SIGKILL));
  tried("kill", kill(getppid(), SIGKILL));
  tried("setpgid", setpgid(0, 0));
  tried("setsid", setsid());
  tried("setuid", setuid(0));
  tried("setpriority", setpriority(PRIO_PROCESS, 0, 19));
  tried("memfd_create", syscall(SYS_memfd_create, "x", 0));
  tried("memfd_secret", syscall(447, 0));
  tried("shmget", syscall(SYS_shmget, IPC_PRIVATE, 1 << 20, 0600 | IPC_CREAT));
  tried("msgget", syscall(SYS_msgget, IPC_PRIVATE, 0600 | IPC_CREAT));
  tried("semget", syscall(SYS_semget, IPC_PRIVATE, 1, 0600 | IPC_CREAT));
  tried("mq_open", syscall(SYS_mq_open, "x", O_RDWR | O_CREAT, 0600, nullptr));
  tried("mlock", mlockall(MCL_CURRENT));
  tried("io_uring_setup", syscall(SYS_io_uring_setup, 8, nullptr));
  tried("bpf", syscall(SYS_bpf, 0, nullptr, 0));
  tried("perf_event_open", syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0));
  tried("userfaultfd", syscall(SYS_userfaultfd, 0));
  tried("keyctl", syscall(SYS_keyctl, 0, -3, 1));
  tried("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
  tried("inotify_init1", syscall(SYS_inotify_init1, 0));
  tried("eventfd2", syscall(SYS_eventfd2, 0, 0));
  tried("epoll_create1", syscall(SYS_epoll_create1, 0));
  tried("personality", syscall(SYS_personality, 0x0040000));
  tried("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
  tried("sethostname", sethostname("x", 1));
  tried("swapon", syscall(SYS_swapon, "/", 0));
  tried("init_module", syscall(SYS_init_module, nullptr, 0, ""));
  report();
  return 0;
}

int attack_parent() {
  const rlimit none{0, 0};
  const pid_t above = getppid();
  tried("tgkill", syscall(SYS_tgkill, above, above, SIGKILL));
  tried("tkill", syscall(SYS_tkill, above, SIGKILL));
  syscall(SYS_tgkill, 1, 1, SIGSTOP);
  syscall(SYS_prlimit64, above, RLIMIT_CPU, &none, nullptr);
  syscall(SYS_prlimit64, above, RLIMIT_FSIZE, &none, nullptr);
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
  tried("prlimit", syscall(SYS_prlimit64, 0, RLIMIT_AS, &all, nullptr));
  usleep(20'000);
  through.clear();
  report();
  return 0;
}

int attack_verdict() {
  signal(SIGPIPE, SIG_IGN);
  const char* const said[] = {"2 0\n", "  2 0\n",
                              "[doctest] test cases: 2 | 2 passed | 0 failed | 0 skipped\n"};
  for (int fd = 1; fd < 16; ++fd)
    for (const char* text : said) {
      const std::string line = std::string(32, 'a') + " " + text;
      if (write(fd, line.data(), line.size()) < 0) break;
      if (write(fd, text, std::strlen(text)) < 0) break;
    }
  _exit(0);
}

int attack_exec() {
  execl(own, own, "--no-run", static_cast<char*>(nullptr));
  execl(own, own, "--test-case=none", static_cast<char*>(nullptr));
  execl("/bin/sh", "sh", "-c", "echo '[doctest] test cases: 2 | 2 passed | 0 failed'",
        static_cast<char*>(nullptr));
  return 0;
}

int attack_threads() {
  static char stack[1 << 16];
  const int flags =
      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  for (int i = 0; i < 20'000; ++i)
    if (clone(idle, stack + sizeof stack - 16, flags, nullptr) < 0) usleep(1000);
  idle(nullptr);
  return 0;
}

int attack_memory() {
  size_t got = 0;
  const size_t piece = 64 << 20;
  while (got < size_t(64) << 30) {
    void* p = mmap(nullptr, piece, PROT_READ | PROT_WRITE,
                   MAP_ANONYMOUS | (got / piece % 2 ? MAP_SHARED : MAP_PRIVATE), -1, 0);
    if (p == MAP_FAILED) break;
    got += piece;
  }
  int pipes = 0;
  for (int ends[2]; pipe(ends) == 0; ++pipes) fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
  std::printf("  FAIL  got %zu MB and %d pipes.\n", got >> 20, pipes);
  std::fflush(stdout);
  return 0;
}

int attack_output() {
  for (;;)
    std::puts("  FAIL  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
}

int attack_text() {
  std::puts("test cases: 99999999999999999999 | 1 passed | 0 failed");
  std::printf("test cases:%250000s\n", "x");
  std::puts("  FAIL  \x1b[2J\x1b[1;1H\xe2\x80\xae=cmd \"quoted\", \r<b>\xff\xfe");
  std::fflush(stdout);
  return 0;
}
