// residual + dropout(x): a thread for eight numbers, which share one block of random bits. Nothing
// of the mask is stored; backward draws it again.
#include <algorithm>
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/ops/philox.cuh"
#include "ops/dropout.h"

namespace focus::gpu {

namespace {

// out = base + mask(x), base may be nullptr. `per_run` numbers of each run, `groups` of eight.
__global__ void add_masked(float* out, const float* base, const float* x, DropoutDraw draw,
                           size_t per_run, size_t groups, int runs) {
  const size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t run = thread / groups, group = thread % groups;
  if (run >= size_t(runs)) return;
  const uint32_t kept = draw.last_dropped < 0 ? 0xff : kept_bits(draw, int(run), group);
  const size_t first = run * per_run + group * 8;
  const int count = int(per_run - group * 8 < 8 ? per_run - group * 8 : 8);
  const bool vectors = count == 8 && (reinterpret_cast<uintptr_t>(out + first) |
                                      reinterpret_cast<uintptr_t>(x + first) |
                                      reinterpret_cast<uintptr_t>(base ? base + first : x)) %
                                             16 ==
                                         0;
  if (vectors) {
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
      float4 v = load4(x + first + j), b = make_float4(0, 0, 0, 0);
      if (base) b = load4(base + first + j);
      const auto masked = [&](int at, float value, float below) {
        const float m = (kept >> (j + at) & 1) ? draw.scale * value : 0.f * value;
        return base ? below + m : m;
      };
      v = make_float4(masked(0, v.x, b.x), masked(1, v.y, b.y), masked(2, v.z, b.z),
                      masked(3, v.w, b.w));
      store4(out + first + j, v);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (j < count) {
      const float masked =
          (kept >> j & 1) ? draw.scale * x[first + size_t(j)] : 0.f * x[first + size_t(j)];
      out[first + size_t(j)] = base ? base[first + size_t(j)] + masked : masked;
    }
}

}  // namespace

DropoutDraw CudaOps::draw(const Noise& noise, uint32_t site, double p) const {
  const int last_dropped = int(std::max(1l, std::lround(p * 0x1p16)) - 1);
  return {seeds_.data(),
          noise.seed,
          &counters_.data()->noise_step,
          noise.step,
          site,
          last_dropped,
          float(DropoutMask{noise, site, p}.scale())};
}

Tensor<float> CudaOps::masked(Tape<float>& tape, const Tensor<float>& residual,
                              const Tensor<float>& x, double p) {
  const Tensor<float> y = tape.make(x.shape);
  const bool active = dropout_active(tape, p);
  const DropoutDraw mask = active ? draw(tape.noise(), tape.noise().next_site++, p) : DropoutDraw{};
  const size_t per_run = x.size() / size_t(runs()), groups = (per_run + 7) / 8;
  const auto run_masked = [=, this](float* out, const float* base, const float* from,
                                    const DropoutDraw& how) {
    launch({"add_masked", (groups * size_t(runs()) + 127) / 128, 128}, stream(), add_masked, out,
           base, from, how, per_run, groups, runs());
  };
  run_masked(y.data, residual.data, x.data, mask);
  tape.record(y, [=, &tape] {
    const float* dy = tape.gradient(y);
    const auto dx = tape.gradient_target(x), dr = tape.gradient_target(residual);
    if (dx.data) run_masked(dx.data, dx.fresh ? nullptr : dx.data, dy, mask);
    if (dr.data) run_masked(dr.data, dr.fresh ? nullptr : dr.data, dy, DropoutDraw{});
  });
  return y;
}

}  // namespace focus::gpu
