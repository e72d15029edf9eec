// The smallest transformer in which lesson 02's question can be asked: one block, one head,
// untrained, put together from this lesson's operations. Its attention is plain: every query by
// itself, through lesson 01's row_attention.h. (Lesson 03 builds the fast one.)
#pragma once

#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "../01-softmax/row_attention.h"
#include "ops/activation.h"
#include "ops/cross_entropy.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/mean_tokens.h"
#include "rng.h"
#include "tasks/dataset.h"

namespace focus {

struct Batch {
  std::vector<int> tokens, labels;  // (B,T), (B)
};

inline Batch even_pairs(int count, int length, uint64_t seed) {
  Batch batch;
  for (const Example& e :
       generate_examples(find_task("even-pairs"), count, length, seed, train_split)) {
    batch.tokens.insert(batch.tokens.end(), e.tokens.begin(), e.tokens.end());
    batch.labels.push_back(e.label);
  }
  return batch;
}

// What one query saw and did in the forward pass.
struct Query {
  Row scores;   // of all keys, before the mask
  Keys kept;    // ascending
  Row weights;  // of all keys; 0 where dropped
};

template <class T>
Tensor<T> add(Tape<T>& tape, const Tensor<T>& a, const Tensor<T>& b) {
  const Tensor<T> y = tape.make(a.shape);
  for (size_t i = 0; i < y.size(); ++i) y.data[i] = a.data[i] + b.data[i];
  tape.record(y, [=, &tape] {
    const T* dy = tape.gradient(y);
    for (const Tensor<T>& x : {a, b}) {
      T* dx = tape.gradient(x);
      for (size_t i = 0; i < y.size(); ++i) dx[i] += dy[i];
    }
  });
  return y;
}

// o_i = Σ_j p_ij v_j with p_i the softmax of q_i·k_j / √D over the keys that query i keeps.
// q, k, v: (B,T,D) → (B,T,D). `queries` receives the B·T queries and must live until backward.
template <class T>
Tensor<T> plain_attention(Tape<T>& tape, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
                          Mechanism mechanism, int kept_count, std::vector<Query>& queries) {
  const int N = q.shape[1], D = q.shape[2];
  const auto row_of = [D](T* x, int row) { return x + ptrdiff_t{row} * D; };
  const double scale = 1 / std::sqrt(double(D));
  const Tensor<T> o = tape.make(q.shape);
  std::fill(o.data, o.data + o.size(), T(0));
  queries.assign(size_t(q.rows()), {});
  for (int row = 0; row < q.rows(); ++row) {
    const int i = row % N, first = row - i;  // the sequence's first row
    Query& query = queries[size_t(row)];
    for (int j = 0; j < N; ++j) {
      double s = 0;
      for (int c = 0; c < D; ++c)
        s += double(row_of(q.data, row)[c]) * double(row_of(k.data, first + j)[c]);
      query.scores.push_back(scale * s);
    }
    // The band of query i lies around it, shifted at the ends.
    const int place = std::clamp(i - (kept_count - 1) / 2, 0, N - kept_count);
    query.kept = kept_keys(mechanism, query.scores, kept_count, place);
    query.weights = attend(query.scores, query.kept);
    for (int j : query.kept)
      for (int c = 0; c < D; ++c)
        row_of(o.data, row)[c] += T(query.weights[size_t(j)]) * row_of(v.data, first + j)[c];
  }
  tape.record(o, [=, &tape, &queries] {
    T *d_o = tape.gradient(o), *dq = tape.gradient(q), *dk = tape.gradient(k),
      *dv = tape.gradient(v);
    Row p, dp;  // of the kept keys
    for (int row = 0; row < q.rows(); ++row) {
      const Query& query = queries[size_t(row)];
      const int first = row - row % N;
      p.clear(), dp.clear();
      for (int j : query.kept) {
        p.push_back(query.weights[size_t(j)]);
        double sum = 0;
        for (int c = 0; c < D; ++c) {
          sum += double(row_of(d_o, row)[c]) * double(row_of(v.data, first + j)[c]);
          row_of(dv, first + j)[c] += T(p.back()) * row_of(d_o, row)[c];
        }
        dp.push_back(sum);
      }
      softmax_row_backward(dp.data(), dp.data(), p.data(), int(p.size()), scale);
      for (size_t e = 0; e < p.size(); ++e)
        for (int c = 0, key = first + query.kept[e]; c < D; ++c) {
          row_of(dq, row)[c] += T(dp[e]) * row_of(k.data, key)[c];
          row_of(dk, key)[c] += T(dp[e]) * row_of(q.data, row)[c];
        }
    }
  });
  return o;
}

// The paper's encoder with one block and no dropout. Names and initial values are those of the
// model in lesson 03.
template <class T>
class OneBlock {
 public:
  std::deque<Parameter<T>> parameters;
  // Of the last forward pass:
  std::vector<Query> queries;
  Tensor<T> normed, q, k;  // (B,T,D): what attention reads, and its queries and keys

  OneBlock(Mechanism mechanism, int kept_count, int length, int width, uint64_t seed)
      : mechanism_(mechanism), kept_count_(kept_count), length_(length), width_(width) {
    const int classes = 2, vocabulary = 2;
    parameters.emplace_back("embedding.weight", Shape{vocabulary, width});
    for (const char* name : {"W_q", "W_k", "W_v", "W_o", "ffn.0", "ffn.3"}) add_linear(name, width);
    add_linear("linear", classes);
    positions_.resize(size_t(length) * size_t(width));
    fill_positions(positions_.data(), length, width);
    for (size_t p = 0; p < parameters.size(); ++p) {
      // ±0.1 for embedding and classifier, ±1/√fan_in for the rest, biases too; all fan-ins are
      // the width.
      const bool outer = p == 0 || parameters[p].name == "linear.weight";
      const bool zero = parameters[p].name == "linear.bias";
      const double bound = zero ? 0 : outer ? 0.1 : 1 / std::sqrt(double(width));
      Rng rng(seed, Stream::init, uint32_t(p));
      for (T& w : parameters[p].value) w = T((2 * rng.uniform() - 1) * bound);
    }
  }

  // The mean cross-entropy of a batch, one number.
  Tensor<T> loss(Tape<T>& tape, const Batch& batch) {
    size_t next = 1;  // layers are taken in the order in which they act
    const auto layer = [&](const Tensor<T>& x) {
      const Tensor<T> weight = parameters[next++].tensor(), bias = parameters[next++].tensor();
      return linear(tape, x, weight, bias);
    };
    const Tensor<T> positions{{length_, width_}, positions_.data(), nullptr};
    Tensor<T> x = embedding(tape, batch.tokens.data(), int(batch.labels.size()),
                            parameters[0].tensor(), positions);
    normed = layer_norm(tape, x, 1e-5);
    q = layer(normed), k = layer(normed);
    const Tensor<T> v = layer(normed);
    x = add(tape, x, layer(plain_attention(tape, q, k, v, mechanism_, kept_count_, queries)));
    const Tensor<T> hidden = layer(layer_norm(tape, x, 1e-5));
    x = add(tape, x, layer(activate(tape, hidden, Activation::relu)));
    return cross_entropy(tape, layer(mean_tokens(tape, x)), batch.labels.data());
  }

 private:
  Mechanism mechanism_;
  int kept_count_, length_, width_;
  std::vector<T> positions_;

  void add_linear(const std::string& name, int out) {
    parameters.emplace_back(name + ".weight", Shape{out, width_});
    parameters.emplace_back(name + ".bias", Shape{out});
  }
};

}  // namespace focus
