// Attention for the trainer: plans a call, runs its kernels, records their backward.
#include <cmath>

#include "cuda/attention/attention.h"
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"
#include "ops/dropout.h"

namespace focus::gpu {

namespace {

// Short sequences: one kernel for all patterns, which holds a head in shared memory. Longer ones:
// the fastest kernels of cuda/attention for full attention and for top-k's choice, and kernels for
// short lists. What those do not support goes the first way, slowly.
enum class Way { rows, lists, ladder };
constexpr int longest_short = 64;

Way way_of(const AttentionCall& c) {
  const bool width = c.D >= 16 && c.D <= 128 && c.D % 4 == 0;
  if (c.T <= longest_short) return Way::rows;
  if (c.pattern == Pattern::full && width) return Way::ladder;
  if (c.pattern == Pattern::topk && width && c.k <= 16) return Way::lists;
  if (is_positional(c.pattern) && c.D <= most_list_width) return Way::lists;
  return Way::rows;
}

__global__ void add_numbers(float* to, const float* from, size_t n) {
  const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] += from[i];
}

// The call as cuda/attention takes it; with gradients, its backward. Is the
// result complete, dropout applied?
bool run_ladder(CudaOps& device, const AttentionCall& c, float* lse, float* scores,
                unsigned* copies, void* index, const AttentionGradients* g) {
  const auto heads = [&](const float* x) {
    return heads_bthd(const_cast<float*>(x), c.B, c.T, c.H, c.D);
  };
  Call call;
  call.q = heads(c.q), call.k = heads(c.k_rows), call.v = heads(c.v), call.o = heads(c.o);
  call.lse = lse, call.scores = scores, call.copies = copies, call.kept = c.k, call.keys = c.keys,
  call.p = c.p, call.score_scale = c.score_scale;
  call.parts = device.runs(), call.stream = device.stream();
  call.precision = device.precision();
  if (g)
    call.d_o = heads(g->d_o), call.dq = heads(g->dq), call.dk = heads(g->dk),
    call.dv = heads(g->dv);
  const Pass pass = g ? Pass::backward : Pass::forward;
  // Where the GPU is too small for the rungs that know dropout, top-k's choice is made without.
  const bool dropped = c.pattern == Pattern::full || drops(rung_for(c.pattern, pass, call));
  if (dropped) call.keep = {c.keep, c.words, c.keep_scale};
  call.workspace_size = workspace_bytes(c.pattern, pass, call);
  if (call.workspace_size > 0) call.workspace = device.scratch(call.workspace_size);
  call.index = g ? index : nullptr;
  gpu::attention(c.pattern, pass, call);
  if (!g && index) {  // while other operations go on
    call.index = index, call.stream = device.beside(CudaOps::Side::forward);
    make_topk_index(call);
  }
  return dropped || !c.keep;
}

}  // namespace

Tensor<float> CudaOps::attention(Tape<float>& tape, const Tensor<float>& q, const Tensor<float>& k,
                                 const Tensor<float>& v, const AttentionSettings& settings) {
  AttentionCall c{};
  c.pattern = settings.pattern, c.k = settings.k;
  c.B = q.shape[0], c.T = q.shape[1], c.H = settings.heads, c.D = q.channels() / c.H;
  c.units = c.B / runs() * c.H;
  c.q = q.data, c.k_rows = k.data, c.v = v.data;
  c.score_scale = float(settings.score_scale), c.scale = c.score_scale / std::sqrt(float(c.D));
  c.keep_scale = 1;
  const Tensor<float> o = tape.make(q.shape);
  c.o = o.data;
  const DeviceLists& all = lists(settings, c.T);
  c.begin = all.begin.data(), c.entries = all.entries;
  const size_t units = size_t(c.B) * size_t(c.H), entries = size_t(c.entries);
  const Way way = way_of(c);
  if (way != Way::ladder) c.p = tape.memory<float>(units * entries);
  if (is_positional(c.pattern))
    c.keys = all.keys.data();
  else if (c.pattern != Pattern::full)
    c.keys = tape.memory<int>(units * entries);

  // The places in the noise are taken in the CPU's order.
  DropoutDraw random{};
  if (c.pattern == Pattern::random) random = draw(tape.noise(), tape.noise().next_site++, 0);
  if (dropout_active(tape, settings.dropout)) {
    const DropoutDraw mask = draw(tape.noise(), tape.noise().next_site++, settings.dropout);
    c.words = (all.longest + 31) / 32, c.keep_scale = mask.scale;
    c.keep = tape.memory<unsigned>(units * size_t(c.T) * size_t(c.words));
    draw_attention_mask(c, mask, ahead(Side::forward));
    wait_for(Side::forward);
  }
  float *lse = nullptr, *scores = nullptr;
  unsigned* copies = nullptr;
  void* index = nullptr;
  if (way == Way::ladder) {
    lse = tape.memory<float>(units * size_t(c.T));
    Call call;
    call.q = heads_bthd(nullptr, c.B, c.T, c.H, c.D), call.precision = precision();
    // What the forward leaves for the backward.
    if (tape.recording() && on_tensor_cores(rung_for(c.pattern, Pass::backward, call)))
      copies = tape.memory<unsigned>(copy_words(call));
    else if (tape.recording() && c.D <= 64 &&
             score_floats(call.q) / size_t(runs()) <= most_kept_scores)
      scores = tape.memory<float>(score_floats(call.q));
    run_ladder(*this, c, lse, scores, copies, nullptr, nullptr);
  } else if (way == Way::lists) {
    const bool chosen = c.pattern == Pattern::topk;
    if (chosen && tape.recording()) {
      Call call;
      call.q = heads_bthd(nullptr, c.B, c.T, c.H, c.D), call.kept = c.k;
      index = tape.memory<char>(topk_index_bytes(call));
    }
    const bool done = chosen && run_ladder(*this, c, nullptr, nullptr, nullptr, index, nullptr);
    if (!done) attention_lists(c, !chosen, stream());
  } else {
    attention_rows(c, random, tape.noise().on, stream());
  }

  tape.record(o, [=, this, &tape] {
    const float* d_o = tape.gradient(o);
    const auto dq = tape.gradient_target(q), dk = tape.gradient_target(k),
               dv = tape.gradient_target(v);
    AttentionGradients g{d_o, dq.data, dk.data, dv.data, nullptr, !dq.fresh, !dk.fresh, !dv.fresh};
    if (way == Way::ladder || (way == Way::lists && c.pattern == Pattern::topk)) {
      // Its kernels set their results; where there is something already, they go elsewhere first.
      if (index) wait_for(Side::forward);
      const size_t n = q.size();
      AttentionGradients own = g;
      for (auto [add, to] : {std::pair(g.add_q, &own.dq), {g.add_k, &own.dk}, {g.add_v, &own.dv}})
        if (add) *to = tape.memory<float>(n);
      run_ladder(*this, c, lse, scores, copies, index, &own);
      for (auto [to, from] : {std::pair(g.dq, own.dq), {g.dk, own.dk}, {g.dv, own.dv}})
        if (to != from)
          launch({"add_numbers", (n + 255) / 256, 256}, stream(), add_numbers, to, from, n);
      return;
    }
    g.ds = tape.memory<float>(units * entries);
    if (way == Way::lists)
      attention_lists_backward(c, g, stream());
    else
      attention_rows_backward(c, g, stream());
    attention_keys_backward(c, g, stream());
  });
  return o;
}

}  // namespace focus::gpu
