#include "attention/attention.h"

#include <cmath>

//@ from 05
#include "attention/choose.h"
//@ end
#include "attention/full.h"
//@ from 04
#include "attention/sparse.h"
//@ end

namespace focus {

namespace {

// One call's sizes and memory, shared by forward and backward. A unit is one head of one sequence.
template <class T>
struct Call {
  Tensor<T> q, k, v, o;
  AttentionSettings settings;
  int B, N, H, D;
  ptrdiff_t stride;
  int nnz;  // kept scores of one unit: N·N for full
  T* p;     // probabilities, `p_stride` numbers a unit
  size_t p_stride;
  const int* begin;  // sparse: the lists
  int* keys;         // sparse: (nnz) if positional, else (units,nnz)
  uint8_t* keep;     // dropout's mask (units,nnz), or nullptr
  T keep_scale;

  int units() const { return B * H; }
  // Where the rows of a unit begin in q, k, v, o and their gradients.
  ptrdiff_t offset(int unit) const {
    //@ gap 11 head-offset
    const int sequence = unit / H, head = unit % H;
    const ptrdiff_t row = ptrdiff_t{sequence} * N;
    return row * stride + ptrdiff_t{head} * D;
    //@ end
  }
  Head<T> head(int unit) const {
    const ptrdiff_t at = offset(unit);
    Head<T> head{N, D, stride, q.data + at, k.data + at, v.data + at, T(1)};
    //@ gap 17 score-scale
    // It acts after the choice of keys, which a positive factor would not change.
    const T root = std::sqrt(T(D));
    head.scale = T(settings.score_scale) / root;
    //@ end
    return head;
  }
  T* p_of(int unit) const { return p + size_t(unit) * p_stride; }
  int* keys_of(int unit) const {
    return is_positional(settings.pattern) ? keys : keys + size_t(unit) * size_t(nnz);
  }
  uint8_t* keep_of(int unit) const { return keep ? keep + size_t(unit) * size_t(nnz) : nullptr; }
};

template <class T>
void check(Tape<T>& tape, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
           const AttentionSettings& settings) {
  if (q.shape.rank() != 3)
    fail_input("attention: q has shape ", q.shape.text(), ", expected (B,T,H·D)");
  require_shape("attention", "k", k.shape, q.shape);
  require_shape("attention", "v", v.shape, q.shape);
  if (tape.recording() && !(q.gradient && k.gradient && v.gradient))
    fail_input("attention: q, k and v must all want a gradient while the tape records");
  check_settings(settings, q.shape[1]);
  if (q.channels() % settings.heads != 0)
    fail_input("attention: ", q.channels(), " channels cannot be split among ", settings.heads,
               " heads");
}

// Takes the call's memory: the probabilities of all units, which backward reads, and the lists of
// keys.
template <class T>
Call<T> plan(Tape<T>& tape, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
             const AttentionSettings& settings) {
  Call<T> c{};
  c.q = q, c.k = k, c.v = v, c.settings = settings;
  c.B = q.shape[0], c.N = q.shape[1], c.H = settings.heads, c.stride = q.shape[2];
  c.D = int(c.stride) / c.H;
  c.o = tape.make(q.shape);
  const size_t N = size_t(c.N);
  c.nnz = count_nnz(settings, c.N);
  const bool full = settings.pattern == Pattern::full;
  c.p_stride = full ? N * size_t(round_up_to_lanes<T>(c.N)) : size_t(c.nnz);
  const size_t units = size_t(c.units());
  c.p = tape.template memory<T>(units * c.p_stride);
  if (!full) {
    const size_t lists = is_positional(settings.pattern) ? 1 : units;
    int* begin = tape.template memory<int>(N + 1);
    c.keys = tape.template memory<int>(lists * size_t(c.nnz));
    fill_key_lists(settings, c.N, begin, c.keys);
    c.begin = begin;
  }
  return c;
}

template <class T>
void zero_rows(T* x, int rows, int width, ptrdiff_t stride) {
  for (int i = 0; i < rows; ++i) std::fill(x + i * stride, x + i * stride + width, T(0));
}

}  // namespace

template <class T>
Tensor<T> attention(Tape<T>& tape, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                    const AttentionSettings& settings) {
  check(tape, q, k, v, settings);
  Call<T> c = plan(tape, q, k, v, settings);
  const Pattern pattern = settings.pattern;
  const Noise noise = tape.noise();
  //@ from 05
  const uint32_t draw_site = pattern == Pattern::random ? tape.noise().next_site++ : 0;
  //@ end
  DropoutMask mask;
  if (dropout_active(tape, settings.dropout)) {
    mask = next_dropout_mask(tape, settings.dropout);
    c.keep = tape.template memory<uint8_t>(size_t(c.units()) * size_t(c.nnz));
  }
  c.keep_scale = T(mask.scale());

  const size_t threads = size_t(tape.workers().threads());
  size_t numbers = full::scratch_size<T>(c.N, c.D);  // enough for every pattern but those by score
  //@ from 05
  const sparse::Scratch by_score = sparse::scratch_size<T>(c.N, c.D);
  numbers = std::max(numbers, by_score.numbers);
  int* order = tape.template memory<int>(threads * by_score.ints);
  //@ end
  T* scratch = tape.template memory<T>(threads * numbers);

  tape.workers().run(c.units(), [=](int unit, int thread) {
    const Head<T> head = c.head(unit);
    T *p = c.p_of(unit), *o = c.o.data + c.offset(unit);
    uint8_t* keep = c.keep_of(unit);
    T* own_scratch = scratch + size_t(thread) * numbers;
    if (keep) mask.draw(keep, uint64_t(unit) * uint64_t(c.nnz), size_t(c.nnz));
    if (pattern == Pattern::full) return full::forward(head, p, keep, c.keep_scale, o, own_scratch);

    //@ from 04
    int* keys = c.keys_of(unit);
    //@ from 05
    if (pattern == Pattern::topk || pattern == Pattern::bottomk)
      sparse::choose_by_score(head, settings.k, pattern == Pattern::bottomk, keys, p, own_scratch,
                              order + size_t(thread) * by_score.ints);
    if (pattern == Pattern::random)
      sparse::choose_at_random(head, noise, draw_site, unit, settings.k, c.begin, keys, p);
    //@ end
    if (is_positional(pattern)) sparse::score_listed_keys(head, c.begin, keys, p);
    sparse::forward(head, c.begin, keys, p, keep, c.keep_scale, o);
    //@ end
  });

  tape.record(c.o, [=, &tape] {
    const T* d_o = tape.gradient(c.o);
    const auto dq = tape.gradient_target(c.q), dk = tape.gradient_target(c.k),
               dv = tape.gradient_target(c.v);
    tape.workers().run(c.units(), [=](int unit, int thread) {
      const ptrdiff_t at = c.offset(unit);
      // None of the three holds a gradient yet: full attention can set them.
      const bool set =
          c.settings.pattern == Pattern::full && !dq.accumulate && !dk.accumulate && !dv.accumulate;
      const HeadGradients<T> d{dq.data + at, dk.data + at, dv.data + at, !set};
      // Zeroed by the thread that is about to add, so that the rows are in its cache.
      for (const auto& target : {dq, dk, dv})
        if (!target.accumulate && !set) zero_rows(target.data + at, c.N, c.D, c.stride);
      T* own_scratch = scratch + size_t(thread) * numbers;
      if (c.settings.pattern == Pattern::full)
        return full::backward(c.head(unit), d, c.p_of(unit), c.keep_of(unit), c.keep_scale,
                              d_o + at, own_scratch);
      //@ from 04
      sparse::backward(c.head(unit), d, c.begin, c.keys_of(unit), c.p_of(unit), c.keep_of(unit),
                       c.keep_scale, d_o + at, own_scratch);
      //@ end
    });
  });
  return c.o;
}

template Tensor<float> attention(Tape<float>&, const Tensor<float>&, const Tensor<float>&,
                                 const Tensor<float>&, const AttentionSettings&);
template Tensor<double> attention(Tape<double>&, const Tensor<double>&, const Tensor<double>&,
                                  const Tensor<double>&, const AttentionSettings&);

}  // namespace focus
