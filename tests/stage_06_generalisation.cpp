// Stage 06: two sets that share nothing, the loss of a row however unlikely its label is, and the
// loss and accuracy of a whole set.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "digits.h"
#include "error.h"
#include "ops/cross_entropy.h"
#include "tasks/dataset.h"
#include "train/evaluate.h"
#include "train/run.h"

using namespace focus;

namespace {

std::set<std::string> trees(int count, int length, uint32_t split) {
  std::set<std::string> all;
  for (const Example& e : generate_examples(find_task("list-operations"), count, length, 1, split))
    all.emplace(e.tokens.begin(), e.tokens.end());
  return all;
}

// A model that has learnt nothing, and a set with lengths that no batch divides.
struct Untrained {
  RunSettings settings = RunSettings::defaults_for(find_task("modular-arithmetic"));
  Workers workers{1};
  Tape<float> tape{workers};
  std::unique_ptr<Run> run;

  Untrained() {
    settings.length = 31, settings.train_size = 7, settings.val_size = 401;
    settings.blocks = 1, settings.d_model = settings.d_mlp = 6;
    run = std::make_unique<Run>(settings, 5, make_run_data(settings, 5));
  }
};

double worked_out(const std::vector<float>& logits, size_t from, int classes, int label) {
  long double sum = 0;
  for (int n = 0; n < classes; ++n) sum += std::exp((long double)(logits[from + size_t(n)]));
  return double(std::log(sum) - (long double)(logits[from + size_t(label)]));
}

}  // namespace

TEST_CASE("trees are distinct within a set") {
  for (uint32_t split : {train_split, held_out_split})
    CHECK_MESSAGE(trees(150, 4, split).size() == 150, "distinct trees among 150 of set ", split,
                  ": ", trees(150, 4, split).size());
}

TEST_CASE("no tree stands in both sets, whatever their sizes") {
  struct Sizes {
    int train, held_out;
  };
  for (const Sizes& n : {Sizes{150, 140}, Sizes{40, 150}, Sizes{150, 3}}) {
    const std::set<std::string> a = trees(n.train, 4, train_split);
    int shared = 0;
    for (const std::string& tree : trees(n.held_out, 4, held_out_split))
      shared += a.count(tree) > 0;
    CHECK_MESSAGE(shared == 0, "of ", n.held_out, " held-out trees, ", shared,
                  " are among the training set's ", n.train);
  }
}

TEST_CASE("more distinct trees than there are is bad input") {
  CHECK_THROWS_AS(trees(100, 1, train_split), InputError);
}

TEST_CASE("the loss of a row, worked out in another way") {
  const double logits[] = {0.3, -1.2, 2.5, 2.4999, -7};
  for (int label = 0; label < 5; ++label) {
    double others = 0;  // 1 / probability = Σ exp(z_n - z_label)
    for (double z : logits) others += std::exp(z - logits[label]);
    const double got = row_cross_entropy(logits, 5, label);
    CHECK_MESSAGE(std::abs(got - std::log(others)) <= 1e-14, "label ", label, ": ",
                  got_wanted(got, std::log(others)));
  }
}

TEST_CASE("the loss is a number for logits of any size") {
  const float large[] = {0, 1000, -1000}, small[] = {-2000, -2001, -2000};
  const double ln = std::log(2 + std::exp(-1.0));
  CHECK(std::abs(row_cross_entropy(large, 3, 1) - 0) <= 1e-12);
  CHECK(std::abs(row_cross_entropy(large, 3, 2) - 2000) <= 1e-9);
  CHECK(std::abs(row_cross_entropy(small, 3, 0) - ln) <= 1e-12);
  CHECK(std::abs(row_cross_entropy(small, 3, 1) - ln - 1) <= 1e-12);
}

TEST_CASE("loss and accuracy of a set that no batch divides") {
  Untrained u;
  const PaddedData& set = u.run->data().val;
  std::vector<float> logits;
  const auto got = evaluate(u.run->model(), u.tape, set, nullptr, &logits);
  REQUIRE(got);
  const int classes = u.run->model().settings().classes;
  REQUIRE(logits.size() == size_t(set.rows) * size_t(classes));
  double loss = 0;
  int right = 0;
  for (int row = 0; row < set.rows; ++row) {
    const size_t from = size_t(row) * size_t(classes);
    const int label = set.labels[size_t(row)];
    loss += worked_out(logits, from, classes, label) / set.rows;
    int best = 0;
    for (int n = 1; n < classes; ++n)
      if (logits[from + size_t(n)] > logits[from + size_t(best)]) best = n;
    right += best == label;
  }
  CHECK_MESSAGE(std::abs(got->loss - loss) <= 1e-10, "loss: ", got_wanted(got->loss, loss));
  CHECK_MESSAGE(std::abs(got->accuracy - 100.0 * right / set.rows) <= 1e-10, "accuracy: got ",
                got->accuracy, ", wanted ", 100.0 * right / set.rows);
}

TEST_CASE("of equal logits the first class is the prediction") {
  Untrained u;
  for (Parameter<float>& p : u.run->model().parameters())
    std::fill(p.value.begin(), p.value.end(), 0.0f);
  const PaddedData& set = u.run->data().val;
  const auto got = evaluate(u.run->model(), u.tape, set);
  REQUIRE(got);
  const auto zeros = std::count(set.labels.begin(), set.labels.end(), 0);
  const double wanted = 100.0 * double(zeros) / set.rows;
  CHECK_MESSAGE(std::abs(got->accuracy - wanted) <= 1e-10, "accuracy: got ", got->accuracy,
                ", wanted ", wanted, ", the share of label 0");
  const double ln = std::log(double(u.run->model().settings().classes));
  CHECK_MESSAGE(std::abs(got->loss - ln) <= 1e-10, "loss: ", got_wanted(got->loss, ln));
}
