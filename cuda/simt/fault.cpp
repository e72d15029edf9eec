// A kernel that touches memory where there is none is stopped by the processor. Here its thread
// ends like one that threw, and what it did becomes a message.
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define FOCUS_REGISTERS 1
#include <execinfo.h>
#include <link.h>
#include <ucontext.h>
#endif
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "cuda/simt/machine.h"
#include "error.h"

namespace focus::simt {

namespace {

constexpr int most_frames = 24;

struct Fault {
  const char* address = nullptr;  // what was touched
  bool known = false, write = false;
  const Thread* thread = nullptr;  // nullptr: there was no fault
  void* frames[most_frames];       // who called whom
  int depth = 0;
} fault;

struct sigaction outer[2];  // what others had set up
constexpr int signals[] = {SIGSEGV, SIGBUS};
int handlers = 0;

// Called in place of the thread's next instruction. Nothing here may need memory.
[[maybe_unused]] void on_fault(int, siginfo_t* info, [[maybe_unused]] void* context) {
  if (!block || !block->running) {  // not a kernel's: it happens again, for whoever else listens
    for (size_t i = 0; i < 2; ++i) sigaction(signals[i], &outer[i], nullptr);
    return;
  }
  Thread* self = block->running;
  fault.thread = self;
  fault.address = static_cast<const char*>(info->si_addr);
#ifdef FOCUS_REGISTERS
  fault.depth = backtrace(fault.frames, most_frames);
#ifdef __x86_64__
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault.known = true, fault.write = registers[REG_ERR] & 2;
#endif
#endif
  self->state = Thread::ended;
  self->fiber.leave();  // for ever
}

// Where in the program the fault was: the innermost lines that are not the emulator's. Needs
// addr2line, which comes with the compiler.
std::string place_of_fault() {
  std::string places;
#ifdef FOCUS_REGISTERS
  std::string command = "addr2line -i -e /proc/" + std::to_string(getpid()) + "/exe";
  ElfW(Addr) base = 0;  // where the program lies
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* to) {
        *static_cast<ElfW(Addr)*>(to) = info->dlpi_addr;
        return 1;  // it is the first
      },
      &base);
  // Each frame but the faulting one is where a call comes back to.
  for (int i = 0; i < fault.depth; ++i)
    command += str(" ", std::hex, ElfW(Addr)(fault.frames[i]) - base - 1);
  std::FILE* lines = popen((command + " 2> /dev/null").c_str(), "r");
  if (!lines) return "";
  int found = 0;
  for (char text[1024]; std::fgets(text, sizeof text, lines);) {
    std::string line = text;
    size_t begin = std::string::npos;
    for (const char* folder : {"/cuda/", "/tests/"})
      if (const size_t at = line.rfind(folder); begin == std::string::npos) begin = at;
    if (begin == std::string::npos || line.find("cuda/simt/") != std::string::npos) continue;
    line = line.substr(begin + 1, line.find_first_of(" \n", begin) - begin - 1);
    if (line.ends_with("?") || line.find("/launch.h:") != std::string::npos) continue;
    if (++found <= 2) places += (found == 1 ? ", " : ", called at ") + line;
  }
  pclose(lines);
#endif
  return places;
}

}  // namespace

FaultHandler::FaultHandler() {
#if !defined(FOCUS_ASAN) && !defined(FOCUS_TSAN)
  if (handlers++) return;
  // The stack of a thread may be what it has used up.
  static char stack[64 * 1024];
  stack_t now{};
  if (sigaltstack(nullptr, &now) == 0 && now.ss_flags & SS_DISABLE) {
    now.ss_sp = stack, now.ss_size = sizeof stack, now.ss_flags = 0;
    sigaltstack(&now, nullptr);
  }
#ifdef FOCUS_REGISTERS
  static const int first =
      backtrace(fault.frames, 1);  // may load a library, which a handler must not
  (void)first;
#endif
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < 2; ++i) sigaction(signals[i], &action, &outer[i]);
#endif
}

FaultHandler::~FaultHandler() {
#if !defined(FOCUS_ASAN) && !defined(FOCUS_TSAN)
  if (--handlers) return;
  for (size_t i = 0; i < 2; ++i) sigaction(signals[i], &outer[i], nullptr);
#endif
}

void throw_fault() {
  if (!fault.thread) return;
  const Thread& thread = *std::exchange(fault.thread, nullptr);
  const dim3 b = block->index;
  std::string what = index_of(fault.address);
  if (what.empty() && thread.fiber.is_below_stack(fault.address))
    fail_run("kernel ", block->launch->kernel, place_of_fault(), ", ", place(thread),
             ": its variables need more than a thread's stack");
  if (what.empty())
    what = reinterpret_cast<uintptr_t>(fault.address) < 65536
               ? std::string("memory through a pointer that is null")
               : str("address ", static_cast<const void*>(fault.address), ", where no array is");
  fail_run("kernel ", block->launch->kernel, place_of_fault(), ": block (", b.x, ",", b.y, ",", b.z,
           "), ", place(thread), fault.known ? fault.write ? " writes " : " reads " : " touches ",
           what);
}

}  // namespace focus::simt
