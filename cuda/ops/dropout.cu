// residual + dropout(x): a thread for eight numbers, which share one block of random bits. Nothing
// of the mask is stored; backward draws it again.
#include <algorithm>
#include <cmath>

#include "cuda/device/launch.h"
#include "cuda/ops/philox.cuh"
#include "ops/dropout.h"

namespace focus::gpu {

namespace {

// out = base + dropout(x), base may be nullptr. `per_run` numbers of each run.
__global__ void add_dropout_kernel(float* out, const float* base, const float* x, DropoutDraw draw,
                                   size_t per_run, int blocks_of_run) {
  wait_for_previous();
  const size_t run = blockIdx.x / unsigned(blocks_of_run),
               block = blockIdx.x % unsigned(blocks_of_run);
  const size_t group = block * blockDim.x + threadIdx.x;
  if (group * 8 >= per_run) return;
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
      const auto dropped = [&](int at, float value, float below) {
        const float m = (kept >> (j + at) & 1) ? draw.scale * value : 0.f * value;
        return base ? below + m : m;
      };
      v = make_float4(dropped(0, v.x, b.x), dropped(1, v.y, b.y), dropped(2, v.z, b.z),
                      dropped(3, v.w, b.w));
      store4(out + first + j, v);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < 8; ++j)
    if (j < count) {
      const float dropped =
          (kept >> j & 1) ? draw.scale * x[first + size_t(j)] : 0.f * x[first + size_t(j)];
      out[first + size_t(j)] = base ? base[first + size_t(j)] + dropped : dropped;
    }
}

}  // namespace

DropoutDraw dropout_draw(const uint64_t* seeds, const uint32_t* step, uint32_t site, double p) {
  const int last_dropped = int(std::max(1l, std::lround(p * 0x1p16)) - 1);
  return {seeds, step, site, last_dropped, float(DropoutMask{{}, site, p}.scale())};
}

void add_dropout(const Runs& runs, size_t n, const float* base, const float* x,
                 const DropoutDraw& draw, float* y, void* stream) {
  const size_t blocks = (n + 8 * 128 - 1) / (8 * 128);  // of a run
  launch(early({"add_dropout", blocks * size_t(runs.count), 128}), stream, add_dropout_kernel, y,
         base, x, draw, n, int(blocks));
}

}  // namespace focus::gpu
