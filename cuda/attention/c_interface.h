// attention() for callers in other languages, such as tests/pytorch/attention_ratio.py: contiguous
// (B,H,T,D) tensors as plain pointers into device memory, errors as text.
//
// In c_interface.cpp.
#pragma once

#include <cstddef>

// As in tests/pytorch/attention_ratio.py. The fields are those of focus::gpu::Call.
struct FocusAttentionCall {
  const char* pattern;
  int backward, B, H, T, D, kept, global_tokens, rung;
  float *q, *k, *v, *o, *lse, *p, *d_o, *dq, *dk, *dv;
  int* keys;
  void* workspace;
  size_t workspace_size;
  void* stream;
};

extern "C" {
// The rung that runs; or -1, and a message of at most `size` characters, its final 0 included.
long long focus_attention(const FocusAttentionCall* call, char* message, size_t size);
// The bytes of workspace that it needs; or the same.
long long focus_attention_workspace(const FocusAttentionCall* call, char* message, size_t size);
}
