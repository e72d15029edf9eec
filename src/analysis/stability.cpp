#include "analysis/stability.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "analysis/kept_keys.h"
#include "analysis/only_rows.h"
#include "analysis/spectral_norm.h"
#include "tensor/gemm.h"
#include "tensor/simd.h"
#include "tensor/softmax.h"

namespace focus {

namespace {

// What a query sees: its scores before any mask, the kept keys (ascending) and their weights.
struct Query {
  std::span<const double> scores;   // (T)
  std::span<const int> kept;        // (K)
  std::span<const double> weights;  // (K)
};

// The queries of one head of one sequence, 48 at a time: a thread never holds more of the T × T
// scores. Shows every query to visit(position, query). q, k: rows of `width` numbers, `stride`
// apart.
template <class Visit>
void look_at_queries(const double* q, const double* k, ptrdiff_t stride, int width, double scale,
                     int N, const KeptKeys& keys, const Visit& visit) {
  constexpr int block_rows = 48;
  const int padded = round_up_to_lanes<double>(N);
  std::vector<double> kt(size_t(width) * size_t(padded)), block(block_rows * size_t(padded));
  std::vector<double> weights;
  KeptKeys::Scratch scratch;
  transpose(N, width, k, stride, kt.data(), padded);
  for (int i0 = 0; i0 < N; i0 += block_rows) {
    const int rows = std::min(block_rows, N - i0);
    gemm(rows, padded, width, row_major(q + i0 * stride, stride), kt.data(), padded, block.data(),
         padded, GemmStart::zero);
    for (int i = i0; i < i0 + rows; ++i) {
      double* row = block.data() + ptrdiff_t{i - i0} * padded;
      const std::span<const int> kept = keys.of(i, {row, size_t(N)}, scratch);
      for (int j = 0; j < N; ++j) row[j] *= scale;
      weights.clear();
      for (int j : kept) weights.push_back(row[j]);
      softmax_row(weights.data(), weights.data(), int(weights.size()), 1.0);
      visit(i, Query{{row, size_t(N)}, kept, weights});
    }
  }
}

// The values of one layer, one for each query (of `shared`: for each key) of each head of each row.
// float32 holds them to 6e-8, at half the memory.
struct Values {
  std::vector<float> dispersion, sensitivity, kept_dispersion, separation, key_count;
  double largest_token = 0;

  Values(size_t queries, bool masked) : dispersion(queries), sensitivity(queries) {
    if (masked)
      for (auto* values : {&kept_dispersion, &separation, &key_count}) values->resize(queries);
  }
  void add(size_t first, int position, const Query& query) {
    const size_t at = first + size_t(position);
    const RowStatistics row = row_statistics(query.scores, query.kept);
    dispersion[at] = float(row.dispersion);
    double largest = 0;
    for (double p : query.weights) largest = std::max(largest, 2 * p * (1 - p));
    sensitivity[at] = float(largest);
    if (key_count.empty()) return;
    kept_dispersion[at] = float(row.kept_dispersion), separation[at] = float(row.separation);
    for (int j : query.kept) ++key_count[first + size_t(j)];
  }
  void append(const Values& other) {
    const auto join = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    join(dispersion, other.dispersion), join(sensitivity, other.sensitivity);
    join(kept_dispersion, other.kept_dispersion), join(separation, other.separation);
    join(key_count, other.key_count);
    largest_token = std::max(largest_token, other.largest_token);
  }
};

Percentiles percentiles_of(std::vector<float>& values) {
  std::sort(values.begin(), values.end());
  Percentiles all;
  for (size_t p = 0; p < all.size(); ++p) {
    const double position = percentile_points[p] / 100.0 * double(values.size() - 1);
    const size_t below = std::min(size_t(position), values.size() - 1);
    const double low = double(values[below]), share = position - double(below);
    all[p] = share == 0 ? low : (1 - share) * low + share * double(values[below + 1]);
  }
  return all;
}

// A query that keeps every key has no separation: it does not count there.
std::optional<Percentiles> percentiles_of_known(std::vector<float>& values) {
  std::erase_if(values, [](float value) { return std::isnan(value); });
  if (values.empty()) return std::nullopt;
  return percentiles_of(values);
}

// A matrix with its bias as the last column.
struct Augmented {
  int rows, columns;
  std::vector<double> data;
  double norm() const { return spectral_norm(data, rows, columns); }
};

Augmented augmented(const Model<double>& model, const std::string& layer) {
  const auto find = [&](const std::string& name) -> const Parameter<double>& {
    for (const Parameter<double>& p : model.parameters())
      if (p.name == name) return p;
    throw std::logic_error("no parameter " + name);
  };
  const Parameter<double>&w = find(layer + ".weight"), &b = find(layer + ".bias");
  const int rows = w.shape[0], columns = w.shape[1];
  Augmented m{rows, columns + 1, {}};
  for (int i = 0; i < rows; ++i) {
    const auto row = w.value.begin() + ptrdiff_t{i} * columns;
    m.data.insert(m.data.end(), row, row + columns);
    m.data.push_back(b.value[size_t(i)]);
  }
  return m;
}

// ‖AᵀB‖₂ for A and B with as many rows.
double norm_of_product(const Augmented& a, const Augmented& b) {
  std::vector<double> product(size_t(a.columns) * size_t(b.columns));
  gemm(a.columns, b.columns, a.rows, transposed(a.data.data(), a.columns), b.data.data(), b.columns,
       product.data(), b.columns, GemmStart::zero);
  return spectral_norm(product, a.columns, b.columns);
}

Statistics norms_of(const Model<double>& model, int block) {
  const ModelSettings& s = model.settings();
  const std::string layer = "encoder.transformer." + std::to_string(block);
  Statistics n{};
  n.value_norm = augmented(model, layer + ".attention.W_v").norm();
  n.score_norm = norm_of_product(augmented(model, layer + ".attention.W_q"),
                                 augmented(model, layer + ".attention.W_k")) *
                 s.attention.score_scale / std::sqrt(double(s.d_model));
  n.mlp_norm = std::max(augmented(model, layer + ".ffn.0").norm(),
                        augmented(model, layer + ".ffn.3").norm());
  return n;
}

void fill(Statistics& statistics, Values& values) {
  statistics.dispersion = percentiles_of(values.dispersion);
  statistics.sensitivity = percentiles_of(values.sensitivity);
  statistics.largest_token = values.largest_token;
  if (values.key_count.empty()) return;
  statistics.kept_dispersion = percentiles_of(values.kept_dispersion);
  statistics.separation = percentiles_of_known(values.separation);
  statistics.key_count = percentiles_of(values.key_count);
}

}  // namespace

double percentile(const Percentiles& all, int point) {
  const auto at = std::find(std::begin(percentile_points), std::end(percentile_points), point);
  return all.at(size_t(at - std::begin(percentile_points)));
}

RowStatistics row_statistics(std::span<const double> scores, std::span<const int> kept) {
  double lowest_kept = HUGE_VAL, highest_kept = -HUGE_VAL, highest_dropped = -HUGE_VAL;
  //@ gap 14 separation
  size_t next = 0;  // the kept keys ascend
  for (size_t j = 0; j < scores.size(); ++j) {
    if (next < kept.size() && size_t(kept[next]) == j) {
      lowest_kept = std::min(lowest_kept, scores[j]);
      highest_kept = std::max(highest_kept, scores[j]);
      ++next;
    } else {
      highest_dropped = std::max(highest_dropped, scores[j]);
    }
  }
  //@ end
  const bool drops = kept.size() < scores.size();
  return {dispersion(scores), highest_kept - lowest_kept,
          drops ? lowest_kept - highest_dropped : std::numeric_limits<double>::quiet_NaN()};
}

namespace {

// The statistics of `rows` rows, gathered some rows and one layer at a time.
class Gathered {
 public:
  Gathered(const ModelSettings& s, int rows, Workers& workers)
      : settings_(s),
        workers_(workers),
        keys_(s.attention, s.length),
        masked_(s.attention.pattern != Pattern::full),
        layers_(size_t(s.blocks),
                Values(size_t(rows) * size_t(s.attention.heads * s.length), masked_)) {}

  // What attention compares in rows first … first+B-1: x (B,T,C), q and k (B,T,H·C).
  void add(int block, int first, int B, const double* x, const double* q, const double* k) {
    const int H = settings_.attention.heads, N = settings_.length, C = settings_.d_model;
    const ptrdiff_t stride = ptrdiff_t{H} * C;
    const double scale = settings_.attention.score_scale / std::sqrt(double(C));
    Values& values = layers_[size_t(block)];
    for (ptrdiff_t i = 0; i < ptrdiff_t{B} * N; ++i)
      values.largest_token =
          std::max(values.largest_token, std::sqrt(dot(x + i * C, x + i * C, C)));
    // A piece is one head of one sequence: its counts of keys belong to one thread.
    workers_.run(B * H, [&](int batch_head, int) {
      const int sequence = batch_head / H, head = batch_head % H;
      const ptrdiff_t at = sequence * N * stride + head * C;
      const size_t own = (size_t(first + sequence) * size_t(H) + size_t(head)) * size_t(N);
      look_at_queries(q + at, k + at, stride, C, scale, N, keys_,
                      [&](int position, const Query& query) { values.add(own, position, query); });
    });
  }

  // Ends it.
  Stability with_norms_of(const Model<double>& model) {
    Stability result;
    Values pooled(0, masked_);
    for (int block = 0; block < settings_.blocks; ++block) {
      const std::vector<float>& dispersion = layers_[size_t(block)].dispersion;
      if (!std::all_of(dispersion.begin(), dispersion.end(),
                       [](float d) { return std::isfinite(d); }))
        fail_run("the scores of block ", block, " are not finite numbers, and have no statistics");
      Statistics& layer = result.layers.emplace_back(norms_of(model, block));
      pooled.append(layers_[size_t(block)]);
      fill(layer, layers_[size_t(block)]);
      layers_[size_t(block)] = Values(0, masked_);
      result.all.value_norm = std::max(result.all.value_norm, layer.value_norm);
      result.all.score_norm = std::max(result.all.score_norm, layer.score_norm);
      result.all.mlp_norm = std::max(result.all.mlp_norm, layer.mlp_norm);
    }
    fill(result.all, pooled);
    return result;
  }

 private:
  const ModelSettings settings_;
  Workers& workers_;
  const KeptKeys keys_;
  const bool masked_;
  std::vector<Values> layers_;
};

// Calls compare(first, count) for all rows, some at a time. False: `stop` was set on the way.
template <class Compare>
bool in_batches(int rows, int length, const std::atomic<bool>& stop,
                const std::function<void(double)>& progress, const Compare& compare) {
  const int batch = std::max(1, 4096 / length);
  for (int first = 0; first < rows; first += batch) {
    if (stop) return false;
    const int B = std::min(batch, rows - first);
    compare(first, B);
    if (progress) progress(double(first + B) / rows);
  }
  return true;
}

}  // namespace

std::optional<Stability> measure_stability(Model<double>& model, const PaddedData& data, int rows,
                                           Workers& workers, const std::atomic<bool>& stop,
                                           const std::function<void(double)>& progress) {
  const int N = model.settings().length;
  Gathered gathered(model.settings(), rows, workers);
  Tape<double> tape(workers);
  const bool whole = in_batches(rows, N, stop, progress, [&](int first, int B) {
    const auto begin = data.tokens.begin() + ptrdiff_t{first} * N;
    const std::vector<int> tokens(begin, begin + ptrdiff_t{B} * N);
    tape.reset(false);
    model.visit_attention(
        tape, tokens.data(), B,
        [&](int block, const Tensor<double>& x, const Tensor<double>& q, const Tensor<double>& k) {
          gathered.add(block, first, B, x.data, q.data, k.data);
        });
  });
  if (!whole) return std::nullopt;
  return gathered.with_norms_of(model);
}

std::optional<Stability> measure_stability(Device& device, const Model<double>& model,
                                           const PaddedData& data, int rows, Workers& workers,
                                           const std::atomic<bool>& stop,
                                           const std::function<void(double)>& progress) {
  Gathered gathered(model.settings(), rows, workers);
  Model<float> own(model.settings());
  for (size_t p = 0; p < own.parameters().size(); ++p) {
    const std::vector<double>& from = model.parameters()[p].value;
    own.parameters()[p].value.assign(from.begin(), from.end());
  }
  const StepSettings settings{.model = model.settings(),
                              .batch = 1,      // nothing is trained
                              .form = "off"};  // the list of kernels
  const auto stepper = device.make_stepper(settings, {{0, only_rows(data)}});
  stepper->load(0, own, Optimizer<float>(OptimizerKind::sgd, own.parameters()));
  const bool whole =
      in_batches(rows, model.settings().length, stop, progress, [&](int first, int B) {
        const std::vector<AttentionInputs> layers =
            stepper->attention_inputs(0, Split::train, first, B);
        for (size_t block = 0; block < layers.size(); ++block) {
          const AttentionInputs& in = layers[block];
          const std::vector<double> x(in.x.begin(), in.x.end()), q(in.q.begin(), in.q.end()),
              k(in.k.begin(), in.k.end());
          gathered.add(int(block), first, B, x.data(), q.data(), k.data());
        }
      });
  if (!whole) return std::nullopt;
  return gathered.with_norms_of(model);
}

}  // namespace focus
