// Attention for the trainer: plans a call and starts its kernels.
#include <algorithm>
#include <cmath>

#include "cuda/attention/attention.h"
#include "cuda/device/launch.h"
#include "cuda/ops/attention.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {
constexpr int longest_short = 64;
// Do K and V of a head fit into shared memory three times?
bool small_head(int T, int D) {
  return 2 * size_t(T) * size_t(D + 1) * sizeof(float) <= 64 * 1024;
}
}  // namespace

DeviceLists::DeviceLists(const AttentionSettings& a, int T) : nnz(count_nnz(a, T)) {
  std::vector<int> first(static_cast<size_t>(T) + 1), all(static_cast<size_t>(nnz));
  fill_key_lists(a, T, first.data(), all.data());
  for (size_t i = 0; i < size_t(T); ++i) longest = std::max(longest, first[i + 1] - first[i]);
  begin = DeviceArray<int>(first);
  if (is_positional(a.pattern)) keys = DeviceArray<int>(all);
}

AttentionPlan::AttentionPlan(const AttentionSettings& settings, const Runs& runs, int B, int T,
                             int D, Precision precision, bool training, const DeviceLists& lists)
    : settings_(settings),
      runs_(runs),
      B_(B),
      T_(T),
      D_(D),
      precision_(precision),
      training_(training),
      lists_(lists) {}

// Short sequences: one kernel for all patterns, which holds a head in shared memory. Longer ones:
// the fastest kernels of cuda/attention; where those of top-k do not know dropout, another one
// makes the values. What those do not support goes the first way, slowly.
AttentionPlan::Way AttentionPlan::way() const {
  const Pattern pattern = settings_.pattern;
  const bool width = D_ >= 16 && D_ <= 128 && D_ % 4 == 0;
  if (T_ <= longest_short && small_head(T_, D_)) return Way::rows;
  const bool has_rungs = pattern == Pattern::full || (is_positional(pattern) && !settings_.causal);
  if (has_rungs && width) return Way::ladder;
  if (pattern == Pattern::topk && width && settings_.k <= 16) return Way::chosen;
  return Way::rows;
}

AttentionPlan::Kept AttentionPlan::take_kept(Layout& layout) const {
  Kept kept;
  const Pattern pattern = settings_.pattern;
  // The ladder's lists of keys all have k places.
  const bool ladder = way() == Way::chosen;
  const size_t nnz = batch_heads() * size_t(ladder ? T_ * settings_.k : lists_.nnz);
  const bool chosen = !is_positional(pattern) && pattern != Pattern::full;
  if (way() != Way::ladder) kept.p = layout.take<float>(nnz);
  if (chosen) kept.keys = layout.take<int>(nnz);
  if (drops())
    kept.keep =
        layout.take<unsigned>(batch_heads() * size_t(T_) * size_t((lists_.longest + 31) / 32));
  Call call;
  call.q = heads_bthd(nullptr, runs_.count * B_, T_, settings_.heads, D_);
  call.precision = precision_, call.causal = settings_.causal;
  if (way() == Way::ladder) {
    kept.lse = layout.take<float>(batch_heads() * size_t(T_));
    if (training_ && on_tensor_cores(rung_for(pattern, Pass::backward, call)))
      kept.copies = layout.take<unsigned>(copy_words(call));
    else if (training_ && pattern == Pattern::full && !settings_.causal && D_ <= 64 &&
             score_floats(call.q) / size_t(runs_.count) <= most_kept_scores)
      kept.scores = layout.take<float>(score_floats(call.q));
  } else if (way() == Way::chosen && training_) {
    call.kept = settings_.k;
    kept.index = layout.take<char>(topk_index_bytes(call));
  }
  return kept;
}

AttentionCall AttentionPlan::call_of(const Kept& kept, const float* q, const float* k,
                                     const float* v, float* o) const {
  AttentionCall c{};
  c.pattern = settings_.pattern, c.k = settings_.k;
  c.B = runs_.count * B_, c.T = T_, c.H = settings_.heads, c.D = D_;
  c.batch_heads = B_ * c.H;
  c.q = q, c.k_rows = k, c.v = v, c.o = o, c.causal = settings_.causal;
  c.score_scale = float(settings_.score_scale), c.scale = c.score_scale / std::sqrt(float(D_));
  c.keep_scale = 1;
  c.begin = lists_.begin.data(), c.nnz = lists_.nnz;
  c.keys = is_positional(c.pattern) ? lists_.keys.data() : kept.keys;
  c.p = kept.p, c.lse = kept.lse, c.k_places = way() == Way::chosen;
  if (drops()) {
    c.keep = kept.keep, c.words = (lists_.longest + 31) / 32;
    c.keep_scale = dropout_draw(nullptr, nullptr, 0, settings_.dropout).scale;
  }
  return c;
}

// The call as cuda/attention takes it.
Call AttentionPlan::ladder_call(const AttentionCall& c, const Kept& kept) const {
  const auto heads = [&](const float* x) {
    return heads_bthd(const_cast<float*>(x), c.B, c.T, c.H, c.D);
  };
  Call call;
  call.q = heads(c.q), call.k = heads(c.k_rows), call.v = heads(c.v), call.o = heads(c.o);
  call.lse = kept.lse, call.scores = kept.scores, call.copies = kept.copies;
  call.causal = c.causal, call.kept = c.k, call.global_tokens = settings_.global_tokens,
  call.keys = c.keys, call.p = c.p, call.score_scale = c.score_scale;
  call.parts = runs_.count, call.precision = precision_;
  return call;
}

namespace {
// Where the GPU is too small for the rungs that know dropout, top-k's choice is made without.
bool add_mask(Call& call, const AttentionCall& c, Pass pass) {
  const bool dropped = c.pattern == Pattern::full || drops(rung_for(c.pattern, pass, call));
  if (dropped) call.keep = {c.keep, c.words, c.keep_scale};
  return dropped;
}
}  // namespace

size_t AttentionPlan::scratch_bytes(const Kept& kept) const {
  const AttentionCall c = call_of(kept, nullptr, nullptr, nullptr, nullptr);
  size_t bytes = 0;
  if (training_ && way() == Way::rows) bytes = batch_heads() * size_t(lists_.nnz) * sizeof(float);
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    if (way() == Way::rows || (pass == Pass::backward && !training_)) continue;
    Call call = ladder_call(c, kept);
    add_mask(call, c, pass);
    call.index = pass == Pass::backward ? kept.index : nullptr;
    bytes = std::max(bytes, workspace_bytes(c.pattern, pass, call));
  }
  return bytes;
}

// Is the result complete, dropout applied?
bool AttentionPlan::run_ladder(const AttentionCall& c, const Kept& kept, Streams& streams,
                               void* scratch) const {
  Call call = ladder_call(c, kept);
  call.stream = streams.main();
  bool dropped = true;
  // On tensor cores, and where scores are kept, the backward wants more of the forward.
  const bool is_short =
      fits_attention_short(c.pattern, c.k, T_, D_) && !kept.scores && precision_ == Precision::fp32;
  if (is_short) {
    attention_short(c, streams.main());
  } else {
    dropped = add_mask(call, c, Pass::forward);
    call.workspace_size = workspace_bytes(c.pattern, Pass::forward, call);
    if (call.workspace_size > 0) call.workspace = scratch;
    gpu::attention(c.pattern, Pass::forward, call);
  }
  if (kept.index) {  // while other operations go on
    call.index = kept.index, call.stream = streams.beside(Streams::Side::forward);
    make_topk_index(call);
  }
  return dropped || !c.keep;
}

void AttentionPlan::forward(const Kept& kept, const float* q, const float* k, const float* v,
                            float* o, const DropoutDraw& random, const DropoutDraw& mask,
                            Streams& streams, void* scratch) const {
  const AttentionCall c = call_of(kept, q, k, v, o);
  if (drops()) {
    draw_attention_mask(c, mask, streams.ahead(Streams::Side::forward));
    streams.wait_for(Streams::Side::forward);
  }
  if (!training_ && fits_attention_short(c.pattern, c.k, T_, D_)) {
    AttentionCall o_alone = c;
    o_alone.keys = nullptr, o_alone.p = o_alone.lse = nullptr;
    return attention_short(o_alone, streams.main());
  }
  const bool chosen = c.pattern == Pattern::topk || c.pattern == Pattern::bottomk;
  if (way() == Way::rows && chosen && fits_attention_short(c.pattern, c.k, T_, D_))
    return attention_short(c, streams.main());
  if (way() == Way::rows) return attention_rows(c, random, training_, streams.main());
  if (!run_ladder(c, kept, streams, scratch)) attention_lists(c, streams.main());
}

void AttentionPlan::backward(const Kept& kept, const float* q, const float* k, const float* v,
                             const float* o, const float* d_o, float* dq, float* dk, float* dv,
                             Streams& streams, void* scratch) const {
  const AttentionCall c = call_of(kept, q, k, v, const_cast<float*>(o));
  if (way() != Way::rows) {
    if (kept.index) streams.wait_for(Streams::Side::forward);
    const auto heads = [&](const float* x) {
      return heads_bthd(const_cast<float*>(x), c.B, c.T, c.H, c.D);
    };
    Call call = ladder_call(c, kept);
    call.stream = streams.main();
    call.d_o = heads(d_o), call.dq = heads(dq), call.dk = heads(dk), call.dv = heads(dv);
    add_mask(call, c, Pass::backward);
    call.workspace_size = workspace_bytes(c.pattern, Pass::backward, call);
    if (call.workspace_size > 0) call.workspace = scratch;
    call.index = kept.index;
    gpu::attention(c.pattern, Pass::backward, call);
    return;
  }
  const AttentionGradients g{d_o, dq, dk, dv, static_cast<float*>(scratch)};
  attention_rows_backward(c, g, streams.main());
  attention_keys_backward(c, g, streams.main());
}

}  // namespace focus::gpu
