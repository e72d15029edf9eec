// Attention for the trainer: plans a call, runs its kernels, records their backward.
#include <cmath>

#include "cuda/ops/attention_steps.h"
#include "ops/dropout.h"

namespace focus::gpu {

Tensor<float> CudaOps::attention(Tape<float>& tape, const Tensor<float>& q, const Tensor<float>& k,
                                 const Tensor<float>& v, const AttentionSettings& settings) {
  AttentionCall c{};
  c.pattern = settings.pattern, c.k = settings.k;
  c.B = q.shape[0], c.T = q.shape[1], c.H = settings.heads, c.D = q.channels() / c.H;
  c.units = c.B / runs() * c.H;
  c.q = q.data, c.k_rows = k.data, c.v = v.data;
  c.scale = 1 / std::sqrt(float(c.D)), c.keep_scale = 1;
  const Tensor<float> o = tape.make(q.shape);
  c.o = o.data;
  const DeviceLists& all = lists(settings, c.T);
  c.begin = all.begin.data(), c.entries = all.entries;
  const size_t units = size_t(c.B) * size_t(c.H), entries = size_t(c.entries);
  c.p = tape.memory<float>(units * entries);
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
    draw_attention_mask(c, mask, stream());
  }
  attention_rows(c, random, tape.noise().on, stream());

  tape.record(o, [=, this, &tape] {
    const auto dq = tape.gradient_target(q), dk = tape.gradient_target(k),
               dv = tape.gradient_target(v);
    const AttentionGradients g{
        tape.gradient(o), dq.data,   dk.data,  dv.data, tape.memory<float>(units * entries),
        !dq.fresh,        !dk.fresh, !dv.fresh};
    attention_rows_backward(c, g, stream());
    attention_keys_backward(c, g, stream());
  });
  return o;
}

}  // namespace focus::gpu
