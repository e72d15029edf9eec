// A small fuzzer for file readers: take a valid file, break it in some way, and read it.
//
// A reader may accept the bytes or refuse them with InputError. Anything else (another exception, a
// crash, a sanitizer's report) is a bug. Case i of seed s is always the same, so a failure is
// repeated by running again with the seed that is printed.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "error.h"
#include "rng.h"

namespace focus {

// Numbers that readers get wrong: around 0, at the edges of 8 to 64 bits and beyond, not finite.
inline const std::vector<std::string>& awkward_numbers() {
  static const std::vector<std::string> numbers = {
      "0",          "-0",          "-1",         "1",
      "127",        "128",         "255",        "256",
      "65536",      "2147483647",  "2147483648", "-2147483649",
      "4294967295", "4294967296",  "1e308",      "9223372036854775807",
      "nan",        "inf",         "",           "9223372036854775808",
      "0x10",       "00000000001", "1.5",        "18446744073709551615",
      "1e999",      "+1",          "1 1",        "99999999999999999999999999999999"};
  return numbers;
}

// Breaks `bytes` in one way, chosen by `rng`. The result is at most about twice as long.
inline std::string mutate_once(std::string bytes, Rng& rng) {
  const auto position = [&] { return size_t(rng.below(uint32_t(bytes.size()) + 1)); };
  const auto slice = [&] {
    const size_t from = position();
    return bytes.substr(from, 1 + rng.below(rng.below(4) == 0 ? 4096 : 16));
  };
  const size_t at = position();
  switch (rng.below(11)) {
    case 0:  // flip one bit
      if (at < bytes.size()) bytes[at] = char(uint8_t(bytes[at]) ^ (1u << rng.below(8)));
      break;
    case 1:  // overwrite one byte
      if (at < bytes.size()) bytes[at] = char(rng.below(256));
      break;
    case 2:  // a byte that means something to text and JSON readers
      bytes.insert(at, 1, "\0\t\n\r \"\\{}[](),:-.0\xff"[rng.below(19)]);
      break;
    case 3:  // cut the end off
      bytes.resize(at);
      break;
    case 4:  // delete a slice
      if (at < bytes.size()) bytes.erase(at, 1 + rng.below(16));
      break;
    case 5:  // copy a slice to another place
      bytes.insert(at, slice());
      break;
    case 6: {  // overwrite a slice with another one
      const std::string piece = slice();
      bytes.replace(at, piece.size(), piece);
      break;
    }
    case 7: {  // repeat a slice many times: deep nesting, long lines, many columns
      const std::string piece = slice();
      const size_t room = bytes.size() + 64;
      std::string repeated;
      while (!piece.empty() && repeated.size() + piece.size() <= room) repeated += piece;
      bytes.insert(at, repeated);
      break;
    }
    case 8: {  // replace a decimal number by an awkward one
      size_t from = at;
      const auto digit = [&](size_t i) { return bytes[i] >= '0' && bytes[i] <= '9'; };
      while (from < bytes.size() && !digit(from)) ++from;
      size_t to = from;
      while (to < bytes.size() && digit(to)) ++to;
      bytes.replace(from, to - from, awkward_numbers()[rng.below(awkward_numbers().size())]);
      break;
    }
    case 9: {  // overwrite a binary little-endian integer of 1, 2, 4 or 8 bytes, at the start often
      const uint64_t values[] = {0, 1, 0x7f, 0xff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
      const uint64_t value = values[rng.below(8)] - rng.below(2);
      const size_t width = size_t{1} << rng.below(4), start = rng.below(2) == 0 ? 0 : at;
      for (size_t i = 0; i < width && start + i < bytes.size(); ++i)
        bytes[start + i] = char(value >> (8 * i));
      break;
    }
    default:  // random bytes
      for (uint32_t i = 1 + rng.below(8); i > 0; --i) bytes.insert(at, 1, char(rng.below(256)));
  }
  return bytes;
}

// Breaks `bytes` in one to four ways.
inline std::string mutate(std::string bytes, Rng& rng) {
  for (uint32_t times = 1 + rng.below(4); times > 0; --times)
    bytes = mutate_once(std::move(bytes), rng);
  return bytes;
}

// The case that is running, for the message of a crash.
struct FuzzProgress {
  const char* name = "";
  unsigned long long seed = 0, number = 0;
};
inline FuzzProgress fuzz_progress;

// Does `read` accept the bytes? If it throws InputError, it refuses them.
template <class Read>
bool accepts(const Read& read) {
  try {
    read();
    return true;
  } catch (const InputError&) {
    return false;
  }
}

extern "C" inline void report_fuzz_crash(int signal) {
  std::fprintf(stderr, "%s: signal %d at case %llu of seed %llu\n", fuzz_progress.name, signal,
               fuzz_progress.number, fuzz_progress.seed);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// Calls read(bytes) with broken copies of the corpus (which must not be empty) for `seconds`; it
// returns whether they were accepted. Returns the exit status: 0 if each case was accepted or
// refused, else 1.
template <class Read>
int run_fuzz(const char* name, const std::vector<std::string>& corpus, double seconds,
             uint64_t seed, Read read) {
  fuzz_progress = {name, seed, 0};
  for (int signal : {SIGABRT, SIGFPE, SIGSEGV}) std::signal(signal, report_fuzz_crash);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  unsigned long long accepted = 0, refused = 0;
  uint32_t number = 0;
  for (; std::chrono::duration<double>(Clock::now() - start).count() < seconds; ++number) {
    fuzz_progress.number = number;
    Rng rng(seed, Stream::analysis, number);
    const std::string bytes = mutate(corpus[rng.below(uint32_t(corpus.size()))], rng);
    try {
      ++(read(bytes) ? accepted : refused);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: case %u of seed %llu: %s\n", name, number,
                   static_cast<unsigned long long>(seed), error.what());
      return 1;
    }
  }
  std::printf("%s: %u cases, %llu accepted, %llu refused, seed %llu\n", name, number, accepted,
              refused, static_cast<unsigned long long>(seed));
  return 0;
}

// The main function of a fuzz target: `TARGET SECONDS [SEED]`.
template <class Read>
int fuzz_main(int argc, char** argv, const char* name, const std::vector<std::string>& corpus,
              Read read) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s SECONDS [SEED]\n", name);
    return 2;
  }
  const double seconds = std::atof(argv[1]);
  const uint64_t seed = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 1;
  return run_fuzz(name, corpus, seconds, seed, read);
}

}  // namespace focus
