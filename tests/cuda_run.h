// Runs attention's kernels for tests.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "close.h"
#include "cuda/attention/attention.h"
#include "cuda/device/device.h"
#include "error.h"
#include "reference.h"

namespace focus::test {

// The memory of one call: inputs as given, everything else NaN until a kernel writes it.
struct KernelRun {
  Sizes sizes;
  Pattern pattern;
  gpu::DeviceArray<float> q, k, v, d_o, o, dq, dk, dv, lse, p, scores, workspace;
  gpu::DeviceArray<int> keys;
  gpu::Call call;

  KernelRun(const Sizes& s, Pattern what, int kept, int global_tokens, const Numbers& q_numbers,
            const Numbers& k_numbers, const Numbers& v_numbers, const Numbers& d_o_numbers)
      : sizes(s),
        pattern(what),
        q(as<float>(q_numbers)),
        k(as<float>(k_numbers)),
        v(as<float>(v_numbers)),
        d_o(as<float>(d_o_numbers)),
        o(q.size()),
        dq(q.size()),
        dk(q.size()),
        dv(q.size()),
        lse(size_t(s.units() * s.T)),
        p(size_t(s.units() * s.T) * size_t(std::max(1, kept))),
        keys(p.size()) {
    const auto view = [&](const gpu::DeviceArray<float>& x) {
      return gpu::heads_bthd(x.data(), s.B, s.T, s.H, s.D);
    };
    call = {.q = view(q),
            .k = view(k),
            .v = view(v),
            .o = view(o),
            .lse = lse.data(),
            .kept = kept,
            .global_tokens = global_tokens,
            .keys = keys.data(),
            .p = p.data(),
            .keep = {},
            .parts = 1,
            .d_o = view(d_o),
            .dq = view(dq),
            .dk = view(dk),
            .dv = view(dv)};
    if (what == Pattern::full) {
      scores = gpu::DeviceArray<float>(gpu::score_floats(call.q));
      call.scores = scores.data();
      poison_array(scores);
    }
    for (const gpu::DeviceArray<float>* x : {&o, &dq, &dk, &dv, &lse, &p}) poison_array(*x);
    keys.poison();
  }

  static void poison_array(const gpu::DeviceArray<float>& x) {
    gpu::fill_bytes(x.data(), 0xFF, x.size() * sizeof(float));
  }

  bool supports(int rung) const {
    for (const gpu::Rung& r : gpu::ladder())
      if (r.number == rung) return r.unsupported(call).empty();
    return false;
  }

  // Runs one direction, with a poisoned workspace. rung 0: the front's choice. Returns the rung.
  int run(gpu::Pass pass, int rung = 0) {
    call.rung = rung;
    const size_t bytes = gpu::workspace_bytes(pattern, pass, call);
    workspace = gpu::DeviceArray<float>((bytes + 3) / 4);
    workspace.poison();
    call.workspace = workspace.data(), call.workspace_size = bytes;
    static uint64_t seed = 0;
    gpu::shuffle_threads(
        seed++);  // every run in another order of threads, the first in the natural
    const int used = gpu::attention(pattern, pass, call);
    gpu::synchronize();
    return used;
  }
};

inline std::vector<int> rungs_of(Pattern pattern, gpu::Pass pass) {
  std::vector<int> numbers;
  for (const gpu::Rung& rung : gpu::ladder())
    if (rung.pass == pass && rung.has_pattern(pattern)) numbers.push_back(rung.number);
  return numbers;
}

// ‖got − wanted‖ / ‖wanted‖; NaN if anything got is not finite.
inline double relative_error(const gpu::DeviceArray<float>& got, const Numbers& wanted) {
  const std::vector<float> host = got.host();
  double error = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(double(host[i]) - wanted[i], 2);
    size += wanted[i] * wanted[i];
  }
  return std::sqrt(error / (size > 0 ? size : 1));
}

// "" if the error is at most the limit, else what and by how much. NaN is never within a limit.
inline std::string too_far(const std::string& what, const gpu::DeviceArray<float>& got,
                           const Numbers& wanted, double limit) {
  const double error = relative_error(got, wanted);
  if (error <= limit) return "";
  return str(what, ": relative error ", error, ", limit ", limit);
}

// float32's limit (kernels are compared with double on the same float32 inputs).
inline constexpr double float_limit = 1e-5;

// Numbers like a normal distribution's, distinct.
inline Numbers normal_numbers(const Sizes& s, uint32_t which) {
  Rng rng(1618, Stream::analysis, which);
  Numbers x(size_t(s.units() * s.T * s.D));
  for (double& value : x) value = double(float(rng.normal()));
  return x;
}

// Few and small under emulation and checkers (FOCUS_SMALL=1), more on a GPU.
inline bool small_sizes() {
  return gpu::emulated() || std::getenv("FOCUS_SMALL");
}
inline std::vector<int> lengths_to_test() {
  if (small_sizes()) return {1, 2, 5, 17, 65, 130};
  return {1, 2, 3, 5, 6, 15, 16, 17, 31, 33, 39, 40, 41, 63, 64, 65, 127, 128, 129, 257, 600};
}
// Two sequences of every odd length; emulated, of the short ones.
inline int batch_to_test(int T) {
  return small_sizes() && T > 17 ? 1 : 1 + T % 2;
}
inline std::vector<int> widths_to_test() {
  if (small_sizes()) return {16, 20, 64, 128};
  return {16, 20, 32, 36, 64, 68, 100, 128};
}

}  // namespace focus::test
