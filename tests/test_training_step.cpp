// Whole training steps: the same bytes for any number of threads, no memory from the system after
// the first step, and a loss that falls.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "model_run.h"
#include "train/optimizer.h"

// Counts every allocation of the test program. malloc'ed memory of the arena is counted by the
// arena itself (system_requests).
static std::atomic<long> allocations{0};

void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t size) {
  return operator new(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  const size_t a = size_t(alignment);
  if (void* p = std::aligned_alloc(a, (size + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return operator new(size, alignment);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}

using namespace focus;
using namespace focus::test;

namespace {

// A model in training, one batch.
template <class T>
struct Training {
  Model<T> model;
  Optimizer<T> optimizer;
  Workers workers;
  Tape<T> tape{workers};
  Batch batch;
  uint32_t steps = 0;

  Training(const ModelSettings& s, OptimizerKind kind, int threads, int B = 5)
      : model(s), optimizer(kind, model.parameters()), workers(threads), batch(random_batch(s, B)) {
    model.initialise(3);
  }

  double step(double lr) {
    tape.reset(true, {.on = true, .seed = 7, .step = steps++});
    model.zero_gradients();
    const Tensor<T> logits = model.forward(tape, batch.tokens.data(), int(batch.labels.size()));
    const Tensor<T> loss = cross_entropy(tape, logits, batch.labels.data());
    tape.backward(loss);
    const double norm = gradient_norm(model.parameters());
    optimizer.step(model.parameters(), lr, clip_factor(norm, 0.5));
    return double(loss.data[0]);
  }
};

// Larger than the pieces that operations are cut into.
ModelSettings medium_model(Pattern pattern, double dropout) {
  ModelSettings s = small_model(pattern, dropout);
  s.length = 23, s.d_model = 20, s.d_mlp = 33;
  return s;
}

}  // namespace

TEST_CASE_TEMPLATE("training: the same bytes for 1, 2 and 3 threads, with dropout", T, float,
                   double) {
  for (Pattern pattern : all_patterns) {
    const auto train = [&](int threads) {
      Training<T> t(medium_model(pattern, 0.1), OptimizerKind::sgd, threads);
      std::vector<T> result;
      for (int i = 0; i < 3; ++i) result.push_back(T(t.step(0.5)));
      for (const Parameter<T>& p : t.model.parameters())
        result.insert(result.end(), p.value.begin(), p.value.end());
      return result;
    };
    const std::vector<T> one = train(1);
    CHECK(train(2) == one);
    CHECK(train(3) == one);
  }
}

TEST_CASE("training: a step allocates nothing after the first") {
  for (Pattern pattern : all_patterns)
    for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam})
      for (int threads : {1, 2}) {
        Training<float> t(medium_model(pattern, 0.1), kind, threads, 13);
        t.step(0.1);
        t.tape.reset(true);  // joins the arena's blocks: the last time it asks for memory
        const size_t requests = t.tape.arena().system_requests();
        const long before = allocations.load();
        double loss = 0;
        for (int i = 0; i < 4; ++i) loss = t.step(0.1);
        const long after = allocations.load();
        CHECK(after == before);
        CHECK(t.tape.arena().system_requests() == requests);
        CHECK(std::isfinite(loss));
      }
  const long before = allocations.load();
  delete new int(1);
  CHECK(allocations.load() >= before);  // the counter is connected (the pair may be optimised away)
  std::vector<int> grows(size_t(before % 7 + 10));
  CHECK(allocations.load() > before);
}

TEST_CASE("training: gradients do not depend on what the memory held before") {
  for (Pattern pattern : all_patterns) {
    Training<float> fresh(medium_model(pattern, 0.1), OptimizerKind::sgd, 2);
    Training<float> poisoned(medium_model(pattern, 0.1), OptimizerKind::sgd, 2);
    const size_t plenty = 1 << 21;
    float* memory = poisoned.tape.memory<float>(plenty);
    std::fill(memory, memory + plenty, std::nanf(""));
    CHECK(fresh.step(0.1) == poisoned.step(0.1));
    for (size_t p = 0; p < fresh.model.parameters().size(); ++p)
      CHECK(fresh.model.parameters()[p].value == poisoned.model.parameters()[p].value);
  }
}

TEST_CASE("training: SGD and Adam bring the loss of one batch down, for every pattern") {
  for (Pattern pattern : all_patterns)
    for (OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
      Training<float> t(small_model(pattern), kind, 1);
      const double first = t.step(kind == OptimizerKind::sgd ? 0.5 : 0.01);
      double last = 0;
      for (int i = 0; i < 60; ++i) last = t.step(kind == OptimizerKind::sgd ? 0.5 : 0.01);
      CHECK_MESSAGE(last < 0.5 * first, name_of(pattern), " ", first, " to ", last);
    }
}

TEST_CASE("training in float follows training in double") {
  // No dropout, smooth activation, no choice by score: rounding is the only difference, and five
  // steps magnify it a little. Measured 2e-7.
  for (Pattern pattern : {Pattern::full, Pattern::banded, Pattern::block}) {
    ModelSettings s = medium_model(pattern, 0);
    s.activation = Activation::gelu;
    Training<float> a(s, OptimizerKind::sgd, 1);
    Training<double> b(s, OptimizerKind::sgd, 1);
    for (int i = 0; i < 5; ++i) CHECK(std::abs(a.step(0.3) - b.step(0.3)) < 3e-6);
  }
}
