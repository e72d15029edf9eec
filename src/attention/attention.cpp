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

// One call's sizes and memory, shared by forward and backward. A batch_head is one head of one
// sequence.
template <class T>
struct Call {
  Tensor<T> q, k, v, o;
  AttentionSettings settings;
  int B, N, H, D;
  ptrdiff_t stride;
  int nnz;      // kept scores of one batch_head: N·N for full without a causal mask
  T* p;         // probabilities, `p_stride` numbers a batch_head,
  bool strips;  // or a thread: strips of full.h
  size_t p_stride;
  const int* begin;  // sparse: the lists
  int* keys;         // sparse: (nnz) if positional, else (batch_heads,nnz)
  uint8_t* keep;     // dropout's mask (batch_heads,nnz), or nullptr
  T keep_scale;

  int batch_heads() const { return B * H; }
  // Where the rows of a batch_head begin in q, k, v, o and their gradients.
  ptrdiff_t offset(int batch_head) const {
    //@ gap 11 head-offset
    const int sequence = batch_head / H, head = batch_head % H;
    const ptrdiff_t row = ptrdiff_t{sequence} * N;
    return row * stride + ptrdiff_t{head} * D;
    //@ end
  }
  Head<T> head(int batch_head) const {
    const ptrdiff_t at = offset(batch_head);
    Head<T> head{N, D, stride, q.data + at, k.data + at, v.data + at, T(1), settings.causal};
    //@ gap 17 score-scale
    // It acts after the choice of keys, which a positive factor would not change.
    const T root = std::sqrt(T(D));
    head.scale = T(settings.score_scale) / root;
    //@ end
    return head;
  }
  T* p_of(int batch_head) const { return p + size_t(batch_head) * p_stride; }
  int* keys_of(int batch_head) const {
    return is_positional(settings.pattern) ? keys : keys + size_t(batch_head) * size_t(nnz);
  }
  uint8_t* keep_of(int batch_head) const {
    return keep ? keep + size_t(batch_head) * size_t(nnz) : nullptr;
  }
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

// Takes the call's memory: the probabilities of all batch_heads, which backward reads, and the
// lists of keys.
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
  const size_t batch_heads = size_t(c.batch_heads());
  // Nothing is read again: each thread has a strip.
  c.strips = full && !settings.causal && !tape.recording();
  if (c.strips)
    c.p_stride = std::min(N, size_t(full::strip_rows)) * size_t(round_up_to_lanes<T>(c.N));
  const size_t parts = c.strips ? size_t(tape.workers().threads()) : batch_heads;
  c.p = tape.template memory<T>(parts * c.p_stride);
  if (!full) {
    const size_t lists = is_positional(settings.pattern) ? 1 : batch_heads;
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
    c.keep = tape.template memory<uint8_t>(size_t(c.batch_heads()) * size_t(c.nnz));
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

  tape.workers().run(c.batch_heads(), [=](int batch_head, int thread) {
    const Head<T> head = c.head(batch_head);
    T *p = c.p_of(c.strips ? thread : batch_head), *o = c.o.data + c.offset(batch_head);
    uint8_t* keep = c.keep_of(batch_head);
    T* own_scratch = scratch + size_t(thread) * numbers;
    if (keep) mask.draw(keep, uint64_t(batch_head) * uint64_t(c.nnz), size_t(c.nnz));
    if (pattern == Pattern::full) {
      const int strip = c.strips ? full::strip_rows : c.N;
      for (int i0 = 0; i0 < c.N; i0 += strip) {
        Head<T> some = head;
        some.q += i0 * c.stride, some.queries = std::min(strip, c.N - i0);
        full::forward(some, p, keep ? keep + head.seen_before(i0) : nullptr, c.keep_scale,
                      o + i0 * c.stride, own_scratch);
      }
      return;
    }

    //@ from 04
    int* keys = c.keys_of(batch_head);
    //@ from 05
    if (pattern == Pattern::topk || pattern == Pattern::bottomk)
      sparse::choose_by_score(head, c.begin, settings.k, pattern == Pattern::bottomk, keys, p,
                              own_scratch, order + size_t(thread) * by_score.ints);
    if (pattern == Pattern::random)
      sparse::choose_at_random(head, noise, draw_site, batch_head, settings.k, c.begin, keys, p);
    //@ end
    if (is_positional(pattern)) sparse::score_listed_keys(head, c.begin, keys, p);
    sparse::forward(head, c.begin, keys, p, keep, c.keep_scale, o);
    //@ end
  });

  tape.record(c.o, [=, &tape] {
    const T* d_o = tape.gradient(c.o);
    const auto dq = tape.gradient_target(c.q), dk = tape.gradient_target(c.k),
               dv = tape.gradient_target(c.v);
    tape.workers().run(c.batch_heads(), [=](int batch_head, int thread) {
      const ptrdiff_t at = c.offset(batch_head);
      // None of the three holds a gradient yet: full attention can set them, if its first queries
      // see all keys.
      const bool set = c.settings.pattern == Pattern::full && !c.settings.causal &&
                       !dq.accumulate && !dk.accumulate && !dv.accumulate;
      const HeadGradients<T> d{dq.data + at, dk.data + at, dv.data + at, !set};
      // Zeroed by the thread that is about to add, so that the rows are in its cache.
      for (const auto& target : {dq, dk, dv})
        if (!target.accumulate && !set) zero_rows(target.data + at, c.N, c.D, c.stride);
      T* own_scratch = scratch + size_t(thread) * numbers;
      if (c.settings.pattern == Pattern::full)
        return full::backward(c.head(batch_head), d, c.p_of(batch_head), c.keep_of(batch_head),
                              c.keep_scale, d_o + at, own_scratch);
      //@ from 04
      sparse::backward(c.head(batch_head), d, c.begin, c.keys_of(batch_head), c.p_of(batch_head),
                       c.keep_of(batch_head), c.keep_scale, d_o + at, own_scratch);
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
