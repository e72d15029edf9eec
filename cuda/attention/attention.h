// Attention on the GPU, in float32: softmax(C · Q Kᵀ / √D over the kept keys) V and its gradients,
// for every head of every sequence (paper, section 2). The CPU's src/attention is the reference.
//
// One function for each pattern and direction. Each is a ladder of kernels ("rungs"), from the
// plainest to the fastest; by default the fastest that supports the call runs. The rungs are
// numbered through all ladders, and the number is the same in file names, kernel names, tables.
// Plain C++: this header needs no CUDA. Built without nvcc, the same functions run the same kernels
// on the CPU (simt/emulator.h), in host memory.
//
// In ladder.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "attention/pattern.h"
#include "tensor/precision.h"

#ifdef __CUDACC__
#define FOCUS_HD __host__ __device__
#else
#define FOCUS_HD
#endif

namespace focus::gpu {

// A tensor of B sequences, H heads, T tokens, D channels in device memory. The channels of a token
// lie side by side; the rest may lie anywhere, so that (B,H,T,D) and (B,T,H·D) both fit.
struct Heads {
  float* data = nullptr;
  int B = 0, H = 0, T = 0, D = 0;
  ptrdiff_t batch_stride = 0, head_stride = 0, row_stride = 0;

  FOCUS_HD float* of(int sequence, int head) const {
    return data + sequence * batch_stride + head * head_stride;
  }
  // Where head `batch_head` % H of sequence `batch_head` / H starts: batch_head counts the B·H
  // heads of all sequences.
  FOCUS_HD float* of(int batch_head) const { return of(batch_head / H, batch_head % H); }
};

Heads heads_bhtd(float* data, int B, int H, int T, int D);  // a contiguous (B,H,T,D)
Heads heads_bthd(float* data, int B, int T, int H, int D);  // (B,T,H·D), as the CPU engine has it

// Which weights dropout keeps: bit j % 32 of word j / 32 of a row says whether key j is kept
// (top-k: the j-th of the row's keys). Kept weights are scaled. No words: no dropout.
struct KeepBits {
  const unsigned* words = nullptr;  // (B,H,T,per_row)
  int per_row = 0;
  float scale = 1;

  // What the weight of `key` is multiplied by, in row `row` of all (B,H,T).
  FOCUS_HD float factor(size_t row, int key) const {
    const unsigned word = words[row * size_t(per_row) + size_t(key / 32)];
    return (word >> (key % 32) & 1) ? scale : 0.f;
  }
};

// (B·H,T,T) numbers in rows that start at multiples of 16 bytes: the scores of a call.
struct Scores {
  float* data = nullptr;
  int T = 0;

  FOCUS_HD int pitch() const { return (T + 3) / 4 * 4; }
  FOCUS_HD float* of(int batch_head, int row) const {
    return data + (ptrdiff_t{batch_head} * T + row) * pitch();
  }
};
size_t score_floats(const Heads& q);  // how many numbers that are
// In training scores are kept for the backward up to this size: 166 sequences of 600 tokens of a
// run, for each of the model's blocks.
inline constexpr size_t most_kept_scores = size_t{60} * 1000000;

// A call's arguments. Fields not listed for a pattern or pass are ignored.
struct Call {
  Heads q, k, v, o;            // o: forward writes, backward of dense, banded and block reads
  float* lse = nullptr;        // (B,H,T) logarithm of the sum of exp(scaled score); forward writes,
                               // backward reads; not top-k
  float score_scale = 1;       // C, a factor on the scores beside 1/√D
  int kept = 0;                // top-k: k; banded, block: the width
  int global_tokens = 0;       // banded, block: the last tokens, which see and are seen by all
  bool causal = false;         // full, top-k: query i sees keys 0 … i only; by rungs with
                               // features.causal. Top-k's lists of fewer than k keys are filled up
                               // with keys that are not seen, of probability 0
  int* keys = nullptr;         // top-k: (B,H,T,k) ascending; forward writes, backward reads
  float* p = nullptr;          // top-k: (B,H,T,k) their probabilities, likewise
  void* index = nullptr;       // top-k backward: from make_topk_index(), or nullptr
  float* scores = nullptr;     // full: score_floats() numbers, or nullptr; rung 14 forward leaves
                               // them there, rung 15 backward reads them
  unsigned* copies = nullptr;  // full, on tensor cores: copy_words() words at a multiple of 16
                               // bytes, or nullptr; rung 18 forward leaves q, k and v there, as
                               // products want them, rung 19 backward reads them
  KeepBits keep;  // full, top-k: dropout on the weights; by rungs with features.dropout only
  Precision precision = Precision::fp32;  // full: of the products, for rungs on tensor cores
  int parts = 1;              // the batch is so many equal parts: work is cut up as for one of them
  Heads d_o, dq, dk, dv;      // backward: dq, dk, dv are set, not added to
  void* workspace = nullptr;  // device memory, at least workspace_bytes(…), at a multiple of 16
  size_t workspace_size = 0;
  void* stream = nullptr;  // a cudaStream_t
  int rung = 0;            // 0: the fastest that supports the call

  // What a product of rows of q and k is multiplied by: C/√D.
  float scale() const { return score_scale / std::sqrt(float(q.D)); }
};

// How many words the copies of q, k and v take at the call's precision, for D up to 64.
size_t copy_words(const Call& call);

enum class Pass { forward, backward };

// Starts the kernels and returns the rung that runs; does not wait for them. Allocates nothing, so
// a CUDA graph can capture it. Throws InputError, before anything is started, where shapes
// disagree, a setting makes no sense, a pointer is misaligned or the rung asked for does not
// support the call; RunError where CUDA refuses a launch.
//
// Ties: the lower index wins. A row with a NaN score becomes a NaN row, as on the CPU.
// `pattern`: full, banded, block or topk.
int attention(Pattern pattern, Pass pass, const Call& call);

// The workspace that attention() needs for the call (its rung included).
size_t workspace_bytes(Pattern pattern, Pass pass, const Call& call);

// Each key's queries, sorted: rung 11 needs them in the backward. It can be started as soon as the
// keys are known, beside other work. c.index: topk_index_bytes() at a multiple of 16.
size_t topk_index_bytes(const Call& call);
void make_topk_index(const Call& call);

// The ladder, for tables and tests.
struct Rung {
  int number;
  const char* name;
  Pass pass;
  bool (*has_pattern)(Pattern);
  bool deterministic;
  // "" or why the call is not supported here, as in "width 20: 16, 32, 64 or 128".
  std::string (*unsupported)(const Call&);
  size_t (*workspace)(const Call&);
  void (*run)(Pattern, const Call&);
  struct Features {
    bool dropout = false;       // applies Call.keep
    bool causal = false;        // applies Call.causal
    bool screening = false;     // makes most scores on tensor cores, in bf16
    bool tensor_cores = false;  // makes all products there, at Call.precision
    int after_rung = 0;         // backward: needs what this forward rung left; 0: any rung
  } features = {};
};
const std::vector<Rung>& ladder();
inline bool drops(const Rung& rung) {
  return rung.features.dropout;
}
inline bool on_tensor_cores(const Rung& rung) {
  return rung.features.tensor_cores;
}
const Rung& rung_for(Pattern pattern, Pass pass, const Call& call);

}  // namespace focus::gpu
