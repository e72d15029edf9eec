#include "cuda/attention/c_interface.h"

#include <cstring>
#include <exception>

#include "cuda/attention/attention.h"

namespace {

using namespace focus;
using namespace focus::gpu;

Call call_of(const FocusAttentionCall& c) {
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

long long focus_attention(const FocusAttentionCall* c, char* message, size_t size) {
  return guarded(message, size, [&]() -> long long {
    return attention(pattern_of(c->pattern), c->backward ? Pass::backward : Pass::forward,
                     call_of(*c));
  });
}

long long focus_attention_workspace(const FocusAttentionCall* c, char* message, size_t size) {
  return guarded(message, size, [&]() -> long long {
    return static_cast<long long>(workspace_bytes(
        pattern_of(c->pattern), c->backward ? Pass::backward : Pass::forward, call_of(*c)));
  });
}
