// attention() for callers in other languages, such as tests/pytorch/attention_ratio.py: contiguous
// (B,H,T,D) tensors as plain pointers, errors as text.
#include <cstring>
#include <exception>

#include "cuda/attention/attention.h"

namespace {

using namespace focus;
using namespace focus::gpu;

// As in tests/pytorch/attention_ratio.py.
struct PlainCall {
  const char* pattern;
  int backward, B, H, T, D, kept, global_tokens, rung;
  float *q, *k, *v, *o, *lse, *p, *d_o, *dq, *dk, *dv;
  int* keys;
  void* workspace;
  size_t workspace_size;
  void* stream;
};

Call call_of(const PlainCall& c) {
  const auto view = [&](float* data) { return heads_bhtd(data, c.B, c.H, c.T, c.D); };
  Call call{};
  call.q = view(c.q), call.k = view(c.k), call.v = view(c.v), call.o = view(c.o);
  call.lse = c.lse, call.kept = c.kept, call.global_tokens = c.global_tokens;
  call.keys = c.keys, call.p = c.p;
  call.d_o = view(c.d_o), call.dq = view(c.dq), call.dk = view(c.dk), call.dv = view(c.dv);
  call.workspace = c.workspace, call.workspace_size = c.workspace_size;
  call.stream = c.stream, call.rung = c.rung;
  return call;
}

template <class F>
long long guarded(char* message, size_t size, const F& f) {
  try {
    return f();
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), size - 1);
    message[size - 1] = 0;
    return -1;
  }
}

}  // namespace

// The rung that runs, or -1 and a message.
extern "C" long long focus_attention(const PlainCall* c, char* message, size_t size) {
  return guarded(message, size, [&]() -> long long {
    return attention(pattern_of(c->pattern), c->backward ? Pass::backward : Pass::forward,
                     call_of(*c));
  });
}

// The bytes of workspace, or -1 and a message.
extern "C" long long focus_attention_workspace(const PlainCall* c, char* message, size_t size) {
  return guarded(message, size, [&]() -> long long {
    return static_cast<long long>(workspace_bytes(
        pattern_of(c->pattern), c->backward ? Pass::backward : Pass::forward, call_of(*c)));
  });
}
