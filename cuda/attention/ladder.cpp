// The front: checks a call, finds the rung, runs it.
#include <cstdint>

#include "cuda/attention/rungs.h"
#include "cuda/device/device.h"
//@ authors
#include "cuda/fast/attention/rungs.h"
//@ end

namespace focus::gpu {

namespace {

bool same_shape(const Heads& a, const Heads& b) {
  return a.B == b.B && a.H == b.H && a.T == b.T && a.D == b.D;
}

std::string shape(const Heads& x) {
  return str("(", x.B, ",", x.H, ",", x.T, ",", x.D, ")");
}

void check_tensor(const char* name, const Heads& x, const Heads& q) {
  if (!same_shape(x, q))
    fail_input("attention: ", name, " has shape ", shape(x), ", q has ", shape(q));
  if (!x.data) fail_input("attention: ", name, " has no memory");
  if (reinterpret_cast<uintptr_t>(x.data) % sizeof(float) != 0)
    fail_input("attention: ", name, " is at address ", static_cast<const void*>(x.data),
               ", not a multiple of 4");
}

void check_memory(const char* name, const void* data) {
  if (!data) fail_input("attention: ", name, " has no memory");
  if (reinterpret_cast<uintptr_t>(data) % 4 != 0)
    fail_input("attention: ", name, " is at address ", data, ", not a multiple of 4");
}

void check(Pattern pattern, Pass pass, const Call& c) {
  if (!is_dense(pattern) && !is_topk(pattern) && !is_local(pattern))
    fail_input("attention ", name_of(pattern),
               " has no GPU kernels: use full, banded, block, topk");
  if (c.q.B < 1 || c.q.H < 1 || c.q.T < 1 || c.q.D < 1)
    fail_input("attention: q has shape ", shape(c.q), ", each number must be at least 1");
  // Rows are counted in 32 bits.
  if (double(c.q.B) * c.q.H * c.q.T > 2e9)
    fail_input("attention: q has shape ", shape(c.q), ", more than 2e9 rows");
  check_settings({.pattern = pattern,
                  .k = is_dense(pattern) ? 0 : c.kept,
                  .global_tokens = is_local(pattern) ? c.global_tokens : 0,
                  .score_scale = c.score_scale,
                  .causal = c.causal},
                 c.q.T);
  check_tensor("q", c.q, c.q);
  check_tensor("k", c.k, c.q);
  check_tensor("v", c.v, c.q);
  if (pass == Pass::forward || !is_topk(pattern)) check_tensor("o", c.o, c.q);
  if (pass == Pass::backward) {
    check_tensor("d_o", c.d_o, c.q);
    check_tensor("dq", c.dq, c.q);
    check_tensor("dk", c.dk, c.q);
    check_tensor("dv", c.dv, c.q);
  }
  if (is_topk(pattern)) {
    check_memory("keys", c.keys);
    check_memory("p", c.p);
  } else {
    check_memory("lse", c.lse);
  }
}

bool aligned(const Heads& x) {
  return !x.data || (reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.batch_stride % 4 == 0 &&
                     x.head_stride % 4 == 0 && x.row_stride % 4 == 0);
}

}  // namespace

Heads heads_bhtd(float* data, int B, int H, int T, int D) {
  return {data, B, H, T, D, ptrdiff_t{H} * T * D, ptrdiff_t{T} * D, D};
}

Heads heads_bthd(float* data, int B, int T, int H, int D) {
  return {data, B, H, T, D, ptrdiff_t{T} * H * D, D, ptrdiff_t{H} * D};
}

size_t score_floats(const Heads& q) {
  return size_t(q.B) * size_t(q.H) * size_t(q.T) * size_t(Scores{nullptr, q.T}.pitch());
}

size_t copy_words(const Call& c) {
  const size_t words = (c.q.D <= 32 ? 32 : 64) / (c.precision == Precision::bf16 ? 2 : 1);
  return 3 * size_t(c.q.B) * size_t(c.q.H) * size_t(padded_rows(c.q.T)) * words;
}

std::string unaligned(const Call& c) {
  for (const Heads* x : {&c.q, &c.k, &c.v, &c.o, &c.d_o, &c.dq, &c.dk, &c.dv})
    if (!aligned(*x)) return "a tensor's address or strides are not multiples of 16 bytes";
  if (reinterpret_cast<uintptr_t>(c.copies) % 16 != 0)
    return str("the copies are at address ", c.copies, ", not a multiple of 16");
  return "";
}

std::string unsupported_width(const Call& c) {
  if (c.q.D < 16 || c.q.D > 128 || c.q.D % 4 != 0)
    return str("width ", c.q.D, ", not a multiple of 4 from 16 to 128");
  return unaligned(c);
}

std::string wider_than_64(const Call& c) {
  return c.q.D > 64 ? str("width ", c.q.D, ", more than 64") : "";
}

std::string too_little_shared_memory(size_t bytes) {
  if (bytes <= device().shared_memory) return "";
  return str("a block needs ", bytes, " bytes of shared memory, ", device().name, " has ",
             device().shared_memory);
}

bool few_tiles(const Call& c, int rows) {
  if (c.q.T <= rows / 2) return true;  // half empty: smaller ones
  return int64_t{c.q.B / c.parts} * c.q.H * tiles_of(c.q.T, rows) < 2 * device().multiprocessors;
}

const std::vector<Rung>& ladder() {
  static const std::vector<Rung> rungs{
      dense_01_forward, dense_01_backward,
      //@ from 09
      dense_02_forward, dense_02_backward, dense_03_forward, dense_04_forward, dense_05_backward,
      //@ end
      //@ from 10
      topk_06_forward, topk_07_forward, topk_08_forward, topk_09_forward, topk_10_backward,
      topk_11_backward,
      //@ end
      //@ from 09
      local_12_forward, local_12_backward, local_13_forward, local_13_backward,
      //@ end
      //@ authors
      dense_14_forward, dense_15_backward, topk_16_forward, topk_17_forward, dense_18_forward,
      dense_19_backward,
      //@ end
  };
  return rungs;
}

// The last rung that supports the call: the ladders go from slow to fast.
const Rung& rung_for(Pattern pattern, Pass pass, const Call& c) {
  const Rung* best = nullptr;
  std::string refused;
  for (const Rung& rung : ladder()) {
    if (rung.pass != pass || !rung.has_pattern(pattern)) continue;
    if (c.rung != 0 && rung.number != c.rung) continue;
    const std::string why = c.keep.words && !rung.features.dropout ? "no dropout"
                            : c.causal && !rung.features.causal    ? "no causal mask"
                                                                   : rung.unsupported(c);
    if (why.empty())
      best = &rung;
    else
      refused = str("rung ", rung.number, " (", rung.name, ") does not support this: ", why);
  }
  if (best) return *best;
  if (!refused.empty()) fail_input("attention ", name_of(pattern), ": ", refused);
  fail_input("attention ", name_of(pattern), " has no rung ", c.rung, " for this pass");
}

size_t workspace_bytes(Pattern pattern, Pass pass, const Call& c) {
  return rung_for(pattern, pass, c).workspace(c);
}

int attention(Pattern pattern, Pass pass, const Call& c) {
  check(pattern, pass, c);
  const Rung& rung = rung_for(pattern, pass, c);
  const size_t needed = rung.workspace(c);
  if (needed > 0 && (!c.workspace || c.workspace_size < needed))
    fail_input("attention: rung ", rung.number, " needs a workspace of ", needed, " bytes, got ",
               c.workspace ? c.workspace_size : 0);
  if (reinterpret_cast<uintptr_t>(c.workspace) % 16 != 0)
    fail_input("attention: the workspace is at address ", c.workspace, ", not a multiple of 16");
  rung.run(pattern, c);
  return rung.number;
}

}  // namespace focus::gpu
