// The model before and after its blocks, for one sequence: embedding and its gradient; mean over
// tokens, classifier, cross-entropy and their gradients.
#pragma once

#include "cuda/one_launch/block.cuh"

namespace focus::gpu::one_launch {

// Shared memory of the mean over tokens and the classifier.
struct ClassifierMemory {
  float* parts;   // (4,64)
  float* mean;    // (64)
  float* logits;  // (most_classes); then their gradient
};

// x = dropout(embedding · √64 + positions).
template <class H, int R>
__device__ __forceinline__ void embed(Sequence<H, R>& s, const int* tokens) {
  const Plan& p = s.p;
  const bool drops = s.gradient && p.dropout.on();
  if (drops && !s.drawn) {
    const int count = p.length * width;
    draw_mask(s.masks, s.noise, 0, unsigned(s.place * count), count, p.dropout.last_dropped,
              this_thread<H>(), threads);
    __syncthreads();
  }
  // A warp owns every eighth token. A kernel with registers to spare loads all before it needs the
  // first.
  constexpr int at_once = H::ahead ? R : 1;
  const int c = this_thread<H>() % 32 * 2;
#pragma unroll 1
  for (int first = this_thread<H>() / 32; first < p.length; first += warps * at_once) {
    float2 word[at_once], position[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const int t = first + warps * i;
      if (t >= p.length) break;
      word[i] = __ldcg(
          reinterpret_cast<const float2*>(s.run.parameters + ptrdiff_t(tokens[t]) * width + c));
      position[i] = load2(p.positions + t * width + c);
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const int t = first + warps * i;
      if (t >= p.length) break;
      const unsigned bits = drops ? unsigned(s.masks[t * 8 + c / 8]) >> c % 8 : 0u;
      store2(s.x() + t * row_stride + c,
             make_float2(s.dropout().factor(bits) * (8 * word[i].x + position[i].x),
                         s.dropout().factor(bits >> 1) * (8 * word[i].y + position[i].y)));
    }
  }
}

// d_embedded: the gradient after the embedding's dropout. A thread owns a column of every fourth
// word, eight of them at a time, and adds each word's tokens in order.
template <class H, int R>
__device__ __forceinline__ void embedding_gradient(const Sequence<H, R>& s, const int* tokens,
                                                   const float* d_embedded) {
  constexpr int apart = threads / width, at_once = 8;
  const int c = this_thread<H>() % width;
  for (int word = this_thread<H>() / width; word < s.p.vocabulary; word += at_once * apart) {
    float sum[at_once] = {};
#pragma unroll 4
    for (int t = 0; t < s.p.length; ++t) {
      const int token = tokens[t];
      const float d = d_embedded[t * row_stride + c];
#pragma unroll
      for (int i = 0; i < at_once; ++i)
        if (token == word + i * apart) sum[i] += d;
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i)
      if (word + i * apart < s.p.vocabulary)
        s.gradient[(word + i * apart) * width + c] = 8 * sum[i];
  }
}

// logits = linear(mean of x over the tokens).
template <class H, int R>
__device__ __forceinline__ void classify(const Sequence<H, R>& s,
                                         const ClassifierMemory& classifier) {
  const Plan& p = s.p;
  const int c = this_thread<H>() % width, part = this_thread<H>() / width;
  float sum = 0;
  for (int t = part; t < p.length; t += 4) sum += s.x()[t * row_stride + c];
  classifier.parts[part * width + c] = sum;
  __syncthreads();
  if (part == 0)
    classifier.mean[c] = ((classifier.parts[c] + classifier.parts[width + c]) +
                          (classifier.parts[2 * width + c] + classifier.parts[3 * width + c])) /
                         float(p.length);
  __syncthreads();
  const int lane = this_thread<H>() % 32;
  const float* weight = s.run.parameters + p.classifier;
  for (int n = this_thread<H>() / 32; n < p.classes; n += warps) {
    const float2 w = __ldcg(reinterpret_cast<const float2*>(weight + n * width + 2 * lane));
    float logit = classifier.mean[2 * lane] * w.x + classifier.mean[2 * lane + 1] * w.y;
    for (int lanes = 16; lanes > 0; lanes /= 2) logit += __shfl_xor_sync(all_lanes, logit, lanes);
    if (lane == 0) classifier.logits[n] = logit + __ldcg(weight + p.classes * width + n);
  }
  __syncthreads();
}

// One warp: the cross-entropy, in double as on the CPU, and, for scale > 0, the logits' gradient in
// their place, scale · (probability − [right class]).
__device__ inline double cross_entropy(float* logits, int classes, int label, float scale) {
  const int lane = int(threadIdx.x) % 32;
  const float logit = lane < classes ? logits[lane] : -INFINITY;
  float top = logit;
  for (int lanes = 16; lanes > 0; lanes /= 2)
    top = fmaxf(top, __shfl_xor_sync(all_lanes, top, lanes));
  const double e = lane < classes ? exp(double(logit) - double(top)) : 0.0;
  double sum = e;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(all_lanes, sum, lanes);
  const float right = __shfl_sync(all_lanes, logit, label);
  if (scale > 0 && lane < classes)
    logits[lane] = scale * (float(e / sum) - (lane == label ? 1.f : 0.f));
  return log(sum) - (double(right) - double(top));
}

// From the logits' gradient to the classifier's, to s.x() (every token has a share) and to
// array[0], s.x() after the last block's dropout.
template <class H, int R>
__device__ __forceinline__ void classifier_backward(Sequence<H, R>& s,
                                                    const ClassifierMemory& classifier) {
  const Plan& p = s.p;
  const int c = this_thread<H>() % width, part = this_thread<H>() / width;
  const float* weight = s.run.parameters + p.classifier;
  float* to = s.gradient + p.classifier;
  for (int n = part; n < p.classes; n += 4)
    to[n * width + c] = classifier.logits[n] * classifier.mean[c];
  // The padding after the last parameter takes part in sums and must be a number.
  for (int n = this_thread<H>(); n < p.padded - p.classifier - p.classes * width; n += threads)
    to[p.classes * width + n] = n < p.classes ? classifier.logits[n] : 0.f;
  float dx = 0;
  for (int n = 0; n < p.classes; ++n) dx += classifier.logits[n] * __ldcg(weight + n * width + c);
  dx /= float(p.length);
  const uint8_t* mask = s.masks + p.mask_of(3 * p.blocks);
  for (int t = part; t < p.length; t += 4) {
    s.x()[t * row_stride + c] = dx;
    const unsigned bit = p.dropout.on() ? unsigned(mask[t * 8 + c / 8]) >> c % 8 : 0u;
    s.array(0)[t * row_stride + c] = operand<H::precision>(p.dropout.factor(bit) * dx);
  }
}

}  // namespace focus::gpu::one_launch
