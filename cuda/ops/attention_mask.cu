// Dropout on attention's weights: the same bits as the CPU draws, a thread for each word of 32.
#include "cuda/device/launch.h"
#include "cuda/ops/attention_steps.h"

namespace focus::gpu {

namespace {

__global__ void draw_mask(AttentionCall c, DropoutDraw draw) {
  // Divisions of 64 bits only where all threads of the block share them.
  const size_t start = size_t(blockIdx.x) * blockDim.x;
  const unsigned from = unsigned(start % size_t(c.words)) + threadIdx.x;
  const unsigned row = unsigned(start / size_t(c.words)) + from / unsigned(c.words);
  const int word = int(from % unsigned(c.words)), batch_head = int(row / unsigned(c.T));
  if (batch_head >= c.B * c.H) return;
  const int i = int(row % unsigned(c.T)), count = min(32, c.begin[i + 1] - c.begin[i] - 32 * word);
  // Numbers are counted through all lists of a run.
  const uint64_t first = uint64_t(batch_head % c.batch_heads) * uint64_t(c.nnz) +
                         uint64_t(c.begin[i]) + uint64_t(32 * word);
  unsigned bits = 0;
  for (int done = 0; done < count;) {
    const uint64_t element = first + uint64_t(done);
    const int skip = int(element % 8);
    bits |= kept_bits(draw, batch_head / c.batch_heads, element / 8) >> skip << done;
    done += 8 - skip;
  }
  if (count < 32) bits &= count > 0 ? (1u << count) - 1 : 0;
  c.keep[size_t(row) * size_t(c.words) + size_t(word)] = bits;
}

}  // namespace

void draw_attention_mask(const AttentionCall& c, const DropoutDraw& draw, void* stream) {
  const size_t words = size_t(c.B) * size_t(c.H) * size_t(c.T) * size_t(c.words);
  launch({"draw_mask", (words + 127) / 128, 128}, stream, draw_mask, c, draw);
}

}  // namespace focus::gpu
