#include "ops/dropout.h"

#include <algorithm>
#include <cmath>

#include "rng.h"
#include "tensor/simd.h"

namespace focus {

namespace {

constexpr int elements_per_piece = 4096;
constexpr int blocks = lanes<uint64_t>;  // Philox blocks computed side by side in one vector
constexpr int numbers = 8 * blocks;      // 16-bit numbers in them

// `numbers` consecutive 16-bit random numbers from `first_block` on: Philox::block, line for line,
// with one block in each lane of 64-bit vectors whose upper halves are zero between rounds.
void philox_blocks(uint16_t (&out)[numbers], uint64_t first_block, const DropoutMask& mask) {
  using Words = Vec<uint64_t>;
  const uint64_t low_half = 0xffffffffu;
  Words c0, c1 = Words{} + mask.noise.step, c2 = Words{} + mask.site, c3;
  for (int b = 0; b < blocks; ++b) {
    const uint64_t block = first_block + uint64_t(b);
    c0[b] = block & low_half;
    // A use of more than 2^35 elements would repeat c0; its high bits go beside the stream's name.
    c3[b] = uint32_t(Stream::dropout) | uint32_t(block >> 32 << 8);
  }
  Philox::Key key = Philox::key_of(mask.noise.seed);
  for (int round = 0; round < 10; ++round) {
    const Words m0 = c0 * uint64_t{0xD2511F53u}, m1 = c2 * uint64_t{0xCD9E8D57u};
    c0 = (m1 >> 32) ^ c1 ^ uint64_t { key[0] };
    c1 = m1 & low_half;
    c2 = (m0 >> 32) ^ c3 ^ uint64_t { key[1] };
    c3 = m0 & low_half;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  const Words low = c0 | c1 << 32, high = c2 | c3 << 32;
  for (int b = 0; b < blocks; ++b) {
    const uint64_t words[2] = {low[b], high[b]};
    std::memcpy(out + 8 * b, words, sizeof words);
  }
}

}  // namespace

void DropoutMask::draw(uint8_t* keep, uint64_t begin, size_t count) const {
  // Kept: bits ≥ threshold. As "bits > threshold - 1" the comparison fits 16 bits for every p > 0.
  const uint16_t last_dropped = uint16_t(std::max(1l, std::lround(p * 0x1p16)) - 1);
  uint16_t bits[numbers];
  for (size_t done = 0; done < count;) {
    const uint64_t element = begin + done;
    philox_blocks(bits, element / 8, *this);
    const size_t skip = element % 8, n = std::min(count - done, numbers - skip);
    if (n == numbers)
      for (size_t j = 0; j < numbers; ++j) keep[done + j] = bits[j] > last_dropped;
    else
      for (size_t j = 0; j < n; ++j) keep[done + j] = bits[skip + j] > last_dropped;
    done += n;
  }
}

template <class T>
DropoutMask next_dropout_mask(Tape<T>& tape, double p) {
  return {tape.noise(), tape.noise().next_site++, p};
}

// out_i = base_i + scale · keep_i · x_i; without base or keep those terms fall away. Branches are
// outside the loops, so that each loop is vectorised.
template <class T>
static void add_dropped(T* out, const T* base, const T* x, const uint8_t* keep, T scale, int n) {
  if (base && keep)
    for (int i = 0; i < n; ++i) out[i] = base[i] + T(keep[i]) * scale * x[i];
  else if (base)
    for (int i = 0; i < n; ++i) out[i] = base[i] + x[i];
  else if (keep)
    for (int i = 0; i < n; ++i) out[i] = T(keep[i]) * scale * x[i];
  else
    std::copy(x, x + n, out);
}

// y = residual + dropout(x), without residual if it is an empty tensor.
template <class T>
static Tensor<T> residual_dropout(Tape<T>& tape, const Tensor<T>& residual, const Tensor<T>& x,
                                  double p) {
  const Tensor<T> y = tape.make(x.shape);
  const int n = int(x.size());
  const bool active = dropout_active(tape, p);
  const DropoutMask mask = active ? next_dropout_mask(tape, p) : DropoutMask{};
  uint8_t* keep = active ? tape.template memory<uint8_t>(size_t(n)) : nullptr;
  const T scale = T(mask.scale());

  tape.workers().run_ranges(n, elements_per_piece, [=](int begin, int end) {
    const int count = end - begin;
    if (keep) mask.draw(keep + begin, uint64_t(begin), size_t(count));
    add_dropped(y.data + begin, residual.data ? residual.data + begin : nullptr, x.data + begin,
                keep ? keep + begin : nullptr, scale, count);
  });

  tape.record(y, [=, &tape] {
    const T* dy = tape.gradient(y);
    const auto dx = tape.gradient_target(x), dr = tape.gradient_target(residual);
    tape.workers().run_ranges(n, elements_per_piece, [=](int begin, int end) {
      const auto add = [=](const auto& to, const uint8_t* mask) {
        if (!to.data) return;
        T* out = to.data + begin;
        add_dropped(out, to.accumulate ? out : nullptr, dy + begin, mask, scale, end - begin);
      };
      // In the order in which the targets were taken: where both are one tensor, the first may set
      // it, and the second accumulates.
      add(dx, keep ? keep + begin : nullptr);
      add(dr, nullptr);
    });
  });
  return y;
}

template <class T>
Tensor<T> dropout(Tape<T>& tape, const Tensor<T>& x, double p) {
  return dropout_active(tape, p) ? residual_dropout(tape, {}, x, p) : x;
}

template <class T>
Tensor<T> add_dropout(Tape<T>& tape, const Tensor<T>& residual, const Tensor<T>& x, double p) {
  require_shape("add_dropout", "x", x.shape, residual.shape);
  return residual_dropout(tape, residual, x, p);
}

#define FOCUS_INSTANTIATE(T)                                      \
  template DropoutMask next_dropout_mask(Tape<T>&, double);       \
  template Tensor<T> dropout(Tape<T>&, const Tensor<T>&, double); \
  template Tensor<T> add_dropout(Tape<T>&, const Tensor<T>&, const Tensor<T>&, double);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
