// The classifier and its loss in one operation, against the two one after the other.
#include <doctest/doctest.h>

#include "gradient_check.h"
#include "ops/classifier_loss.h"
#include "ops/cross_entropy.h"
#include "reference.h"

using namespace focus;
using namespace focus::test;

namespace {

std::vector<int> labels_for(int rows, int N) {
  Rng rng(3, Stream::analysis);
  std::vector<int> labels;
  for (int m = 0; m < rows; ++m) labels.push_back(int(rng.below(uint32_t(N))));
  return labels;
}

// Loss, gradients and logits of `rows` × C → N.
template <class T>
struct Run {
  T loss;
  std::vector<T> dx, dw, db, logits;

  Run(int rows, int C, int N, int threads, double size_of_logits = 1) {
    Input<T> x("x", {rows, C}, 1), w("w", {N, C}, 2), b("b", {N}, 3);
    for (T& value : w.value) value *= T(size_of_logits);
    const std::vector<int> labels = labels_for(rows, N);
    logits.resize(size_t(rows) * size_t(N));
    Workers workers(threads);
    Tape<T> tape(workers);
    reset_poisoned(tape, {}, 100'000);
    const Tensor<T> x_copy = copied(tape, x.tensor());
    const Tensor<T> result =
        classifier_loss(tape, x_copy, w.tensor(), b.tensor(), labels.data(), logits.data());
    loss = result.data[0];
    tape.backward(weighted_sum(tape, result, {2}));  // not the gradient that the forward assumes
    dx = x.gradient_value, dw = w.gradient_value, db = b.gradient_value;

    // The same without a record.
    tape.reset(false);
    const Tensor<T> again =
        classifier_loss(tape, x.tensor(), w.tensor(), b.tensor(), labels.data());
    CHECK(again.data[0] == loss);
    std::vector<T> streamed;
    for_logits(tape, x.tensor(), w.tensor(), b.tensor(), [&](int first, int count, const T* out) {
      CHECK(streamed.size() == size_t(first) * size_t(N));
      streamed.insert(streamed.end(), out, out + ptrdiff_t{count} * N);
    });
    CHECK(streamed == logits);
  }
};

// (rows, C, N): one row; one class; more than 256; a chunk and a bit of a vocabulary.
constexpr int sizes[][3] = {{1, 1, 1},     {2, 3, 2},    {25, 64, 10},
                            {97, 20, 256}, {50, 9, 300}, {101, 4, 20000}};

}  // namespace

TEST_CASE_TEMPLATE("classifier and loss: against linear, then cross-entropy, in double", T, float,
                   double) {
  for (const auto& size : sizes) {
    const int rows = size[0], C = size[1], N = size[2];
    CAPTURE(N);
    const Run<T> run(rows, C, N, 1);
    Input<double> x("x", {rows, C}, rounded<T>(random_numbers(size_t(rows * C), 1))),
        w("w", {N, C}, rounded<T>(random_numbers(size_t(N * C), 2))),
        b("b", {N}, rounded<T>(random_numbers(size_t(N), 3)));
    const std::vector<int> labels = labels_for(rows, N);
    Workers workers;
    Tape<double> tape(workers);
    tape.reset(true);
    Numbers logits = reference_linear(x.value, w.value, b.value, C, N);
    CHECK(difference("logits", {rows, N}, run.logits.data(), logits, 10) == "");
    const double wanted = reference_cross_entropy(logits, labels, N);
    CHECK(std::abs(double(run.loss) - wanted) <= 4e-7 * std::max(1.0, wanted));
    double by_rows = 0;  // the loss of evaluation
    for (int m = 0; m < rows; ++m)
      by_rows += row_cross_entropy(run.logits.data() + ptrdiff_t{m} * N, N, labels[size_t(m)]);
    CHECK(std::abs(by_rows / rows - wanted) <= 4e-7 * std::max(1.0, wanted));
    // d logits = 2 (softmax - [label]) / rows
    Numbers dx(x.value.size()), dw(w.value.size()), db((size_t(N)));
    for (int m = 0; m < rows; ++m) {
      const double* row = logits.data() + ptrdiff_t{m} * N;
      const double top = *std::max_element(row, row + N);
      double sum = 0;
      for (int n = 0; n < N; ++n) sum += std::exp(row[n] - top);
      for (int n = 0; n < N; ++n) {
        const double d = 2.0 / rows * (std::exp(row[n] - top) / sum - (n == labels[size_t(m)]));
        db[size_t(n)] += d;
        for (int c = 0; c < C; ++c) {
          dx[size_t(m * C + c)] += d * w.value[size_t(n * C + c)];
          dw[size_t(n * C + c)] += d * x.value[size_t(m * C + c)];
        }
      }
    }
    // Sums of up to 20,000 terms with probabilities that are good to some 4 units.
    CHECK(difference("dx", {rows, C}, run.dx.data(), dx, 40) == "");
    CHECK(difference("dw", {N, C}, run.dw.data(), dw, 20) == "");
    CHECK(difference("db", {N}, run.db.data(), db, 20) == "");
  }
}

TEST_CASE_TEMPLATE("classifier and loss: the same bytes for 1, 2 and 3 threads", T, float, double) {
  for (const auto& [rows, C, N] : sizes) {
    const Run<T> one(rows, C, N, 1);
    for (int threads : {2, 3}) {
      const Run<T> more(rows, C, N, threads);
      CHECK(one.loss == more.loss);
      CHECK(one.dx == more.dx);
      CHECK(one.dw == more.dw);
      CHECK(one.db == more.db);
    }
  }
}

TEST_CASE("classifier and loss: gradient check, beyond the end of a chunk") {
  for (const auto& [rows, C, N] : {std::array{3, 2, 4}, {4, 2, 300}, {100, 1, 2}}) {
    Input<double> x("x", {rows, C}, 1), w("w", {N, C}, 2), b("b", {N}, 3);
    const std::vector<int> labels = labels_for(rows, N);
    check_operation(
        [&](Tape<double>& tape) {
          return classifier_loss(tape, x.tensor(), copied(tape, w.tensor()), b.tensor(),
                                 labels.data());
        },
        {&x, &w, &b});
  }
}

TEST_CASE("classifier and loss: logits of thousands neither overflow nor lose the loss") {
  for (const int N : {7, 300}) {
    const Run<float> run(5, 3, N, 1, 1e4);
    const std::vector<int> labels = labels_for(5, N);
    double wanted = 0;
    for (size_t m = 0; m < 5; ++m)
      wanted += row_cross_entropy(run.logits.data() + m * size_t(N), N, labels[m]) / 5;
    CHECK(wanted > 1000);
    CHECK(std::abs(double(run.loss) - wanted) <= 1e-6 * wanted);
    for (const float d : run.dw) CHECK(std::isfinite(d));
  }
}

TEST_CASE("classifier and loss: the logits of all rows are never there at once") {
  const int rows = 2000, C = 4, N = 5000;
  Input<float> x("x", {rows, C}, 1), w("w", {N, C}, 2), b("b", {N}, 3);
  const std::vector<int> labels = labels_for(rows, N);
  Workers workers(2);
  Tape<float> tape(workers);
  for (int step = 0; step < 2; ++step) {
    tape.reset(true);
    tape.backward(classifier_loss(tape, x.tensor(), w.tensor(), b.tensor(), labels.data()));
  }
  tape.reset(true);
  CHECK(tape.arena().capacity() < rows * N * sizeof(float) / 4);
}

TEST_CASE("classifier and loss: what does not fit is refused") {
  Workers workers;
  Tape<float> tape(workers);
  tape.reset(true);
  Input<float> x("x", {2, 3}, 1), w("w", {4, 3}, 2), narrow("w", {4, 2}, 2), b("b", {4}, 3),
      none("x", {0, 3}, 1);
  const auto run = [&](Input<float>& rows, Input<float>& weight, int label) {
    const int labels[] = {0, label};
    classifier_loss(tape, rows.tensor(), weight.tensor(), b.tensor(), labels);
  };
  CHECK_NOTHROW(run(x, w, 3));
  for (int label : {-1, 4})
    CHECK_THROWS_WITH_AS(run(x, w, label),
                         str("classifier_loss: label ", label, " of row 1 is not below 4").c_str(),
                         InputError);
  CHECK_THROWS_AS(run(x, narrow, 0), InputError);
  CHECK_THROWS_WITH_AS(run(none, w, 0), "classifier_loss: 0 rows, 4 classes", InputError);
}
