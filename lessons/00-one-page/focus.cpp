// Semantic focus on one page: a transformer learns faster when each token attends only to the five
// tokens that score highest. Everything is here, and it needs nothing but the standard library:
//
//   g++ -std=c++20 -O3 -march=native lessons/00-one-page/focus.cpp -o build/one-page
//   build/one-page
//
// Read it from top to bottom: random numbers, data, layers (each backward below its forward), the
// model, training, the two curves. Left out, and where it comes: vector instructions (lesson 01),
// autograd (02), threads, dropout and files (03), masks (04), held-out data (06), GPUs (08),
// several heads (11), Adam (12). Data, order and initial weights are those of src/, bit for bit.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

// A matrix is an array of numbers, row after row. Comments give its shape: B sequences in a batch,
// T tokens in a sequence, a vector of D numbers for each token.
using Numbers = std::vector<float>;

// The paper's, but for length 40, 5000 examples and 100 epochs.
struct Settings {
  int length = 20, examples = 2500, epochs = 20;
  uint64_t seed = 235510766;
  int vocabulary = 3, classes = 2;  // the tokens 0, 1 and PAD
  int blocks = 5, width = 32, mlp = 32;
  int k = 0;  // attend to the k highest scores; 0: to all
  size_t batch = 25;
  double rate = 0.1, decay = 0.9995, clip = 0.5;
  std::string name() const { return k > 0 ? "top-" + std::to_string(k) : "full"; }
};

// --- random numbers ------------------------------------------------------------------------------
// Philox (Salmon et al., SC 2011) scrambles a seed and a counter into four numbers. It has no other
// state, so each purpose has random numbers of its own, whatever the others have used.
enum Purpose : uint32_t { for_data = 1, for_weights = 2, for_order = 3 };

struct Random {
  std::array<uint32_t, 2> seed;
  std::array<uint32_t, 4> counter, numbers = {};
  int used = 4;
  Random(uint64_t s, Purpose purpose, uint32_t index, uint32_t sub_index = 0)
      : seed{uint32_t(s), uint32_t(s >> 32)}, counter{0, index, sub_index, purpose} {}
  uint32_t next() {
    if (used == 4) {
      std::array<uint32_t, 2> key = seed;
      std::array<uint32_t, 4> c = counter;
      for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
        c = {uint32_t(b >> 32) ^ c[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ key[1],
             uint32_t(a)};
        key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
      }
      numbers = c, used = 0, ++counter[0];
    }
    return numbers[used++];
  }
  // Uniform in 0 … n-1; the redraws are for n that do not divide 2³².
  uint32_t below(uint32_t n) {
    uint64_t product = uint64_t{next()} * n;
    while (uint32_t(product) < -n % n) product = uint64_t{next()} * n;
    return uint32_t(product >> 32);
  }
  // Uniform in [0, 1), with the 53 bits of a double.
  double uniform() {
    const uint64_t high = next() >> 5, low = next() >> 6;
    return double((high << 26) | low) * 0x1p-53;
  }
};

// --- data ----------------------------------------------------------------------------------------
struct Example {
  std::vector<int> tokens;
  int label;
};
using Batch = std::span<const Example>;

// Even pairs: is the number of unequal neighbours even (label 0) or odd (1)? Each of them flips the
// bit, so the label says whether the first and the last token differ. Nobody tells the model.
std::vector<Example> even_pairs(const Settings& s) {
  std::vector<Example> examples(s.examples);
  for (int i = 0; i < s.examples; ++i) {
    auto& [tokens, label] = examples[i];
    Random random(s.seed, for_data, 0, i);
    for (int t = 0; t < s.length; ++t) tokens.push_back(random.below(2));
    label = tokens.front() != tokens.back();
    // The paper pads to a multiple of k, with a token (2) that attention sees like any other.
    while (s.k > 0 && tokens.size() % s.k != 0) tokens.push_back(2);
  }
  return examples;
}

// The order of an epoch (Fisher-Yates).
std::vector<Example> shuffled(std::vector<Example> deck, uint64_t seed, int epoch) {
  Random random(seed, for_order, epoch);
  for (size_t n = deck.size(); n > 1; --n) std::swap(deck[n - 1], deck[random.below(n)]);
  return deck;
}

// --- layers --------------------------------------------------------------------------------------
// dx stands for the gradient of the loss with respect to x. forward(x) keeps what backward(dy)
// needs; backward(dy) adds to the gradients of the layer's parameters and returns dx.

// c (M,N) += a (M,K) · b (K,N): the only product on this page. The innermost loop runs along rows
// of b and c (which do not overlap), so that the compiler makes vector instructions of it.
void add_product(float* __restrict c, const float* a, const float* b, int M, int K, int N) {
  for (int m = 0; m < M; ++m, a += K, c += N) {
    int k = 0;
    for (; k + 4 <= K; k += 4) {  // four rows of b at a time: c goes through memory less often
      const float *x = a + k, *y = b + k * N;
      for (int n = 0; n < N; ++n)
        c[n] += x[0] * y[n] + x[1] * y[N + n] + x[2] * y[2 * N + n] + x[3] * y[3 * N + n];
    }
    for (; k < K; ++k)
      for (int n = 0; n < N; ++n) c[n] += a[k] * b[k * N + n];
  }
}

Numbers transposed(const float* a, int rows, int columns) {
  Numbers result(rows * columns);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) result[c * rows + r] = a[r * columns + c];
  return result;
}

void add(Numbers& sum, const Numbers& x) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
}

struct Parameter {
  int size;
  double bound;  // the initial values are uniform in ±bound
  Numbers value = Numbers(size), gradient = Numbers(size);
};

// y = x Wᵀ + b for every row of x (rows,in).
struct Linear {
  int in, out;
  Parameter weight{out * in, 1 / std::sqrt(in)}, bias{out, 1 / std::sqrt(in)};  // W (out,in), b
  Numbers x = {};
  Numbers forward(Numbers input) {
    x = std::move(input);
    const int rows = x.size() / in;
    Numbers y;
    for (int r = 0; r < rows; ++r) y.insert(y.end(), bias.value.begin(), bias.value.end());
    add_product(y.data(), x.data(), transposed(weight.value.data(), out, in).data(), rows, in, out);
    return y;
  }
  // dx = dy W, dW = dyᵀ x, and db is the sum of dy's rows.
  Numbers backward(const Numbers& dy) {
    const int rows = dy.size() / out;
    Numbers dx(x.size());
    add_product(dx.data(), dy.data(), weight.value.data(), rows, out, in);
    add_product(weight.gradient.data(), transposed(dy.data(), rows, out).data(), x.data(), out,
                rows, in);
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < out; ++c) bias.gradient[c] += dy[r * out + c];
    return dx;
  }
};

// y = (x - mean) / √(variance + ε) for every row of x; no parameters.
struct LayerNorm {
  int width;
  float epsilon = 1e-5f;
  Numbers y = {}, scale = {};  // scale of a row: 1 / √(variance + ε)
  Numbers forward(const Numbers& x) {
    y = x, scale.clear();
    for (float* row = y.data(); row < y.data() + y.size(); row += width) {
      const float mean = std::accumulate(row, row + width, 0.f) / width;
      for (int c = 0; c < width; ++c) row[c] -= mean;
      const float variance = std::inner_product(row, row + width, row, 0.f) / width;
      scale.push_back(1 / std::sqrt(variance + epsilon));
      for (int c = 0; c < width; ++c) row[c] *= scale.back();
    }
    return y;
  }
  // x reaches y directly, through the mean and through the variance. The three together:
  // dx = (dy - mean(dy) - y · mean(y · dy)) / √(variance + ε).
  Numbers backward(const Numbers& dy) {
    Numbers dx = dy;
    for (size_t r = 0; r < scale.size(); ++r) {
      float *g = &dx[r * width], *row = &y[r * width];
      const float mean = std::accumulate(g, g + width, 0.f) / width;
      const float mean_of_product = std::inner_product(g, g + width, row, 0.f) / width;
      for (int c = 0; c < width; ++c) g[c] = scale[r] * (g[c] - mean - row[c] * mean_of_product);
    }
    return dx;
  }
};

// Leaves the k largest of n scores. The others become -∞, so that softmax gives them the weight 0.
// Of equal scores the one with the lower index comes first.
void keep_largest(float* scores, int n, int k) {
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](int j) { return std::pair(-scores[j], j); });
  for (int i = k; i < n; ++i) scores[order[i]] = -INFINITY;
}

// x_j becomes e^x_j / Σ e^x_i. Subtracting the largest changes nothing, except that no exponential
// overflows. Returns ln Σ e^x_i.
float softmax(float* x, int n) {
  const float largest = *std::max_element(x, x + n);
  for (int j = 0; j < n; ++j) x[j] = std::exp(x[j] - largest);
  const float sum = std::accumulate(x, x + n, 0.f);
  for (int j = 0; j < n; ++j) x[j] /= sum;
  return largest + std::log(sum);
}

// The only place where tokens meet. For each sequence P = softmax(Q Kᵀ / √D), row by row, and
// O = P V: row i of P says how much token i takes of the value of every token.
struct Attention {
  int T, D, kept;                          // kept: how many scores of a row count; 0: all
  Numbers q = {}, k = {}, v = {}, p = {};  // (B,T,D), and p (B,T,T)
  Numbers forward(Numbers queries, Numbers keys, Numbers values) {
    q = std::move(queries), k = std::move(keys), v = std::move(values);
    const int B = q.size() / (T * D);
    p.assign(B * T * T, 0);
    Numbers o(q.size());
    for (int b = 0; b < B; ++b) {
      const int at = b * T * D;
      float* P = &p[b * T * T];
      add_product(P, &q[at], transposed(&k[at], T, D).data(), T, D, T);
      for (float* row = P; row < P + T * T; row += T) {
        for (int j = 0; j < T; ++j) row[j] /= std::sqrt(float(D));
        if (kept > 0) keep_largest(row, T, kept);  // <- the whole difference: semantic focus
        softmax(row, T);
      }
      add_product(&o[at], P, &v[at], T, T, D);
    }
    return o;
  }
  // dV = Pᵀ dO, dP = dO Vᵀ, then with the scores S through the softmax and their scale:
  // dS_ij = P_ij (dP_ij - Σ_j P_ij dP_ij) / √D, dQ = dS K, dK = dSᵀ Q.
  // Where a score was dropped P_ij is 0, and so is dS_ij: top-k needs no backward of its own.
  std::array<Numbers, 3> backward(const Numbers& d_o) {
    Numbers dq(q.size()), dk(q.size()), dv(q.size());
    for (size_t b = 0; b < q.size() / (T * D); ++b) {
      const int at = b * T * D;
      const float* P = &p[b * T * T];
      Numbers ds(T * T);  // dP first
      add_product(&dv[at], transposed(P, T, T).data(), &d_o[at], T, T, D);
      add_product(ds.data(), &d_o[at], transposed(&v[at], T, D).data(), T, D, T);
      for (int i = 0; i < T; ++i) {
        const float* row = P + i * T;
        const float mean = std::inner_product(row, row + T, &ds[i * T], 0.f);
        for (int j = 0; j < T; ++j)
          ds[i * T + j] = row[j] * (ds[i * T + j] - mean) / std::sqrt(float(D));
      }
      add_product(&dq[at], ds.data(), &k[at], T, T, D);
      add_product(&dk[at], transposed(ds.data(), T, T).data(), &q[at], T, T, D);
    }
    return {dq, dk, dv};
  }
};

// Two halves that add to x: attention carries numbers between tokens, the MLP works on each alone.
struct Block {
  int T, D, hidden, kept;
  LayerNorm norm{D}, mlp_norm{D};
  Linear q{D, D}, k{D, D}, v{D, D}, o{D, D}, mlp_in{D, hidden}, mlp_out{hidden, D};
  Attention attention{T, D, kept};
  Block(int T, int D, int hidden, int kept) : T(T), D(D), hidden(hidden), kept(kept) {}
  Numbers forward(Numbers x) {
    const Numbers n = norm.forward(x);
    add(x, o.forward(attention.forward(q.forward(n), k.forward(n), v.forward(n))));
    Numbers h = mlp_in.forward(mlp_norm.forward(x));
    for (float& number : h) number = std::max(number, 0.f);  // ReLU
    add(x, mlp_out.forward(h));
    return x;
  }
  // The gradient of x + f(x) passes the branch f unchanged; what comes through the branch is added.
  Numbers backward(Numbers dx) {
    Numbers dh = mlp_out.backward(dx);
    for (size_t i = 0; i < dh.size(); ++i) dh[i] *= mlp_out.x[i] > 0;
    add(dx, mlp_norm.backward(mlp_in.backward(dh)));
    const auto [dq, dk, dv] = attention.backward(o.backward(dx));
    Numbers dn = q.backward(dq);
    add(dn, k.backward(dk)), add(dn, v.backward(dv));
    add(dx, norm.backward(dn));
    return dx;
  }
};

// --- the model -----------------------------------------------------------------------------------
struct Model {
  Settings s;
  int T, D = s.width;
  Parameter embedding{s.vocabulary * D, 0.1};  // (vocabulary,D)
  Numbers positions = Numbers(T * D);          // (T,D)
  std::vector<Block> blocks;
  Linear classifier{D, s.classes};
  std::vector<int> tokens;  // (B,T), kept by forward()
  Model(const Settings& settings, int length) : s(settings), T(length) {
    // Attention sees no order: sines and cosines of many wavelengths tell the positions apart.
    for (int t = 0; t < T; ++t)
      for (int c = 0; c < D; ++c) {
        const double angle = t * std::exp(-std::log(10000.0) * (c / 2 * 2) / D);
        positions[t * D + c] = c % 2 == 0 ? std::sin(angle) : std::cos(angle);
      }
    for (int i = 0; i < s.blocks; ++i) blocks.emplace_back(T, D, s.mlp, s.k);
    classifier.weight.bound = 0.1, classifier.bias.bound = 0;
    const std::vector<Parameter*> all = parameters();
    for (size_t i = 0; i < all.size(); ++i) {
      Random random(s.seed, for_weights, i);
      for (float& w : all[i]->value) w = (2 * random.uniform() - 1) * all[i]->bound;
    }
  }

  // In the order in which they act.
  std::vector<Parameter*> parameters() {
    std::vector<Parameter*> all = {&embedding};
    const auto append = [&](Linear& layer) { all.insert(all.end(), {&layer.weight, &layer.bias}); };
    for (Block& b : blocks)
      for (Linear* layer : {&b.q, &b.k, &b.v, &b.o, &b.mlp_in, &b.mlp_out}) append(*layer);
    append(classifier);
    return all;
  }

  // A batch to its logits (B,classes): embed, go through the blocks, take the mean, classify.
  Numbers forward(Batch input) {
    tokens.clear();
    for (const Example& e : input) tokens.insert(tokens.end(), e.tokens.begin(), e.tokens.end());
    Numbers x(tokens.size() * D), mean(input.size() * D);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] =
          std::sqrt(float(D)) * embedding.value[tokens[i / D] * D + i % D] + positions[i % (T * D)];
    for (Block& block : blocks) x = block.forward(x);
    for (size_t i = 0; i < x.size(); ++i) mean[i / (T * D) * D + i % D] += x[i] / T;
    return classifier.forward(mean);
  }
  void backward(const Numbers& d_logits) {
    const Numbers d_mean = classifier.backward(d_logits);
    Numbers dx(tokens.size() * D);
    for (size_t i = 0; i < dx.size(); ++i) dx[i] = d_mean[i / (T * D) * D + i % D] / T;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) dx = block->backward(dx);
    for (size_t i = 0; i < dx.size(); ++i)
      embedding.gradient[tokens[i / D] * D + i % D] += std::sqrt(float(D)) * dx[i];
  }
};

// --- training ------------------------------------------------------------------------------------
struct Score {
  double loss = 0;  // the sum of -ln softmax(logits)[label] over the examples
  int right = 0;    // how many have their largest logit at the label
};

// The logits become the gradient of the batch's mean loss: (softmax - [right class]) / B.
Score cross_entropy(Numbers& logits, Batch batch) {
  const int classes = logits.size() / batch.size();
  Score score;
  for (size_t b = 0; b < batch.size(); ++b) {
    float *row = &logits[b * classes], *wanted = row + batch[b].label;
    const double logit = *wanted;
    score.right += std::max_element(row, row + classes) == wanted;
    score.loss += softmax(row, classes) - logit;
    *wanted -= 1;
    for (int c = 0; c < classes; ++c) row[c] /= batch.size();
  }
  return score;
}

// One step of SGD, against the gradient. If that is longer than `clip` it is shortened, or one bad
// batch could throw the weights far away. Returns the score before the step.
Score train_step(Model& model, Batch batch, double rate) {
  for (Parameter* p : model.parameters()) std::fill(p->gradient.begin(), p->gradient.end(), 0.f);
  Numbers logits = model.forward(batch);
  const Score score = cross_entropy(logits, batch);
  model.backward(logits);  // which are their gradient by now
  double squares = 0;
  for (Parameter* p : model.parameters())
    for (float g : p->gradient) squares += double(g) * g;
  const float factor = std::min(1.0, model.s.clip / (std::sqrt(squares) + 1e-6));
  for (Parameter* p : model.parameters())
    for (size_t i = 0; i < p->value.size(); ++i)
      p->value[i] -= float(rate) * (factor * p->gradient[i]);
  return score;
}

// Trains a model and draws its learning curve: mean loss and accuracy of each epoch's batches.
// Returns the first epoch with an accuracy of 95 % or more, 0 if there was none.
int learning_curve(const Settings& s) {
  const std::vector<Example> examples = even_pairs(s);
  Model model(s, examples[0].tokens.size());
  int learned = 0;
  for (int epoch = 1; epoch <= s.epochs; ++epoch) {
    const std::vector<Example> order = shuffled(examples, s.seed, epoch - 1);
    Score sum;
    for (size_t i = 0; i < order.size(); i += s.batch) {
      const Batch batch = Batch(order).subspan(i, std::min(s.batch, order.size() - i));
      const Score score = train_step(model, batch, s.rate * std::pow(s.decay, epoch - 1));
      sum.loss += score.loss, sum.right += score.right;
    }
    const double accuracy = 100.0 * sum.right / s.examples;
    const std::string bar(std::max(0., accuracy - 50), '#');  // one for each percent above chance
    std::printf("%s  epoch %d  loss %.4f  accuracy %.2f\t%s\n", s.name().c_str(), epoch,
                sum.loss / s.examples, accuracy, bar.c_str());
    std::fflush(stdout);
    if (learned == 0 && accuracy >= 95) learned = epoch;
  }
  return learned;
}

// --- the command line ----------------------------------------------------------------------------
const char* const help = R"(Learns even pairs: with attention to the k highest scores, then to all.
  --attention full|topk   only one of the two
  --k K                   how many scores count, from 1 to the length (5)
  --length L              tokens in a sequence, from 2 to 500 (20)
  --seed S                of data, initial weights and order (235510766)
  --epochs N              passes over the 2500 examples, from 1 to 1000 (20))";

int main(int argc, char** argv) {
  Settings s;
  int k = 5;
  std::string attention, summary;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    const auto number = [&](const char* name, auto low, auto high, auto& result) {
      if (flag != name) return false;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
      return error == std::errc() && *end == 0 && result >= low && result <= high;
    };
    if (flag == "--help") return std::puts(help), 0;
    if (flag == "--attention" && (value == "full" || value == "topk")) {
      attention = value;
    } else if (!number("--k", 1, 500, k) && !number("--length", 2, 500, s.length) &&
               !number("--seed", 0u, UINT64_MAX, s.seed) &&
               !number("--epochs", 1, 1000, s.epochs)) {
      std::fprintf(stderr, "%s %s: no such flag or value, see --help\n", argv[i], value.c_str());
      return 2;
    }
  }
  if (k > s.length && attention != "full")
    return std::fprintf(stderr, "--k %d is more than --length %d\n", k, s.length), 2;
  for (const int kept : {k, 0}) {
    if (attention == (kept > 0 ? "full" : "topk")) continue;
    s.k = kept;
    const int learned = learning_curve(s);
    summary += ", " + s.name() + (learned ? " at epoch " + std::to_string(learned) : " not yet");
  }
  std::printf("95 %% accuracy: %s\n", summary.c_str() + 2);
  return 0;
}
