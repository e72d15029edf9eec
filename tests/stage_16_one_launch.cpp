// Stage 16: a barrier for a whole grid, sums in one order, the end of a step, and what rows of
// threads do in the backward pass: each alone first, then whole steps against the CPU's.
#include <doctest/doctest.h>

#include <cstring>
#include <deque>

#include "close.h"
#include "cuda/device/launch.h"
#include "cuda/lesson/random_run.h"
#include "cuda/one_launch/attention.cuh"
#include "cuda/one_launch/update.cuh"
#include "report/statistics.h"

using namespace focus;
using namespace focus::gpu;
using namespace focus::gpu::one_launch;
using focus::test::difference;
using focus::test::other_bits;
using focus::test::random_numbers;

namespace {

// "" if the kernel ends, else what the emulator found. An empty gap is passed on, for the report to
// name.
template <class F>
std::string trouble_of(const F& run) {
  try {
    run();
    return "";
  } catch (const RunError& error) {
    const std::string text = error.what();
    if (text.find(": the gap '") != std::string::npos) throw;
    return "got stuck: " + text;
  }
}

// `runs` runs of `blocks` blocks each.
struct Grid {
  Plan plan{};
  DeviceArray<unsigned> arrived;
  DeviceArray<int> gave_up{std::vector<int>{0}};

  Grid(int runs, int blocks) : arrived(std::vector<unsigned>(size_t(runs))) {
    plan.runs = runs, plan.blocks_a_run = blocks, plan.absent = -1, plan.patience = 1'000'000;
    plan.arrived = arrived.data(), plan.gave_up = gave_up.data();
  }
  LaunchSize size(int threads, size_t shared = 0) const {
    return {"test", size_t(plan.runs * plan.blocks_a_run), threads, shared, true};
  }
};

// In every round each block writes a number, waits, and takes down what the run's others wrote.
__global__ void meet(Plan p, int rounds, int* written, int* seen) {
  const int me = int(blockIdx.x), run = me / p.blocks_a_run, t = int(threadIdx.x);
  if (me == p.absent) return;
  unsigned barriers = 0;
  for (int round = 0; round < rounds; ++round) {
    if (t == int(blockDim.x) - 1) written[me] = 10 * round + me;
    if (!wait_for_run(p, run, ++barriers)) return;
    if (t < p.blocks_a_run)
      seen[(round * int(gridDim.x) + me) * p.blocks_a_run + t] = written[run * p.blocks_a_run + t];
    if (!wait_for_run(p, run, ++barriers)) return;  // all have read
  }
}

std::string meeting(int runs, int blocks, uint64_t seed) {
  constexpr int rounds = 3;
  Grid grid(runs, blocks);
  const int all = runs * blocks;
  DeviceArray<int> written(std::vector<int>(size_t(all), -1));
  DeviceArray<int> seen(std::vector<int>(size_t(rounds * all * blocks), -1));
  shuffle_threads(seed);
  const std::string trouble = trouble_of([&] {
    launch(grid.size(40), nullptr, meet, grid.plan, rounds, written.data(), seen.data());
  });
  shuffle_threads(0);
  if (!trouble.empty()) return trouble;
  const std::vector<int> got = seen.host();
  for (int round = 0, at = 0; round < rounds; ++round)
    for (int block = 0; block < all; ++block)
      for (int other = 0; other < blocks; ++other, ++at)
        if (const int wanted = 10 * round + block / blocks * blocks + other;
            got[size_t(at)] != wanted)
          return str("round ", round, ": of block ", other, " of its run, block ", block, " got ",
                     got[size_t(at)], ", wanted ", wanted);
  return "";
}

// Blocks 0 and 2 wait for block 1, which does not come; 1 where wait_for_run returned false.
__global__ void wait_in_vain(Plan p, int* refused) {
  if (int(blockIdx.x) == p.absent) return;
  const bool came = wait_for_run(p, 0, 1);
  refused[blockIdx.x * blockDim.x + threadIdx.x] = !came;
}

// Two runs whose sequences have written their parts of the gradient, in a batch of 15 that may hold
// fewer: what was not written is NaN.
struct Parts {
  static constexpr int runs = 2, batch = 15, padded = 1300, chunks = 2;
  int count;
  std::vector<float> numbers;  // (runs,batch,padded)

  explicit Parts(int sequences) : count(sequences), numbers(size_t(runs * batch * padded), NAN) {
    const std::vector<double> random = random_numbers(numbers.size(), 5);
    for (int run = 0; run < runs; ++run)
      for (int b = 0; b < count; ++b)
        for (int e = 0; e < padded; ++e) numbers[at(run, b, e)] = float(random[at(run, b, e)]);
  }
  static size_t at(int run, int b, int e) { return size_t((run * batch + b) * padded + e); }

  // The number that a sum from the first sequence to the last gives.
  float sum(int run, int e) const {
    float sum = 0;
    for (int b = 0; b < count; ++b) sum += numbers[at(run, b, e)];
    return sum;
  }
};

__global__ void sum_parts(Plan p, int count) {
  SharedMemory shared;
  double* scratch = shared.array<double>(warps);
  const int run = int(blockIdx.x) / p.blocks_a_run, part = int(blockIdx.x) % p.blocks_a_run;
  sum_gradients(p, run, part, count, scratch);
}

// "" if sums and squares are right, the sums to the bit.
std::string compare_sums(const Parts& parts, int blocks) {
  Grid grid(Parts::runs, blocks);
  Plan& p = grid.plan;
  DeviceArray<float> partials(parts.numbers);
  std::vector<DeviceArray<float>> gradients;
  std::vector<RunOnDevice> runs(Parts::runs);
  for (RunOnDevice& r : runs) {
    gradients.emplace_back(size_t(Parts::padded)).poison();
    r.gradients = gradients.back().data();
  }
  DeviceArray<RunOnDevice> on_device(runs);
  DeviceArray<double> squares(size_t(Parts::runs * Parts::chunks));
  squares.poison();
  p.batch = Parts::batch, p.padded = Parts::padded, p.chunks = Parts::chunks;
  p.partials = partials.data(), p.chunk_sums = squares.data(), p.run = on_device.data();
  launch(grid.size(threads, shared_bytes_for(2 * warps)), nullptr, sum_parts, p, parts.count);
  for (int run = 0; run < Parts::runs; ++run) {
    const std::vector<float> got = gradients[size_t(run)].host();
    double wanted_squares[Parts::chunks] = {};
    std::vector<double> wanted;
    for (int e = 0; e < Parts::padded; ++e) {
      wanted.push_back(double(parts.sum(run, e)));
      wanted_squares[e / chunk] += wanted.back() * wanted.back();
    }
    const std::string far =
        difference(str("run ", run, ", sum"), {Parts::padded}, got.data(), wanted, 8);
    if (!far.empty()) return far;
    for (size_t e = 0; e < got.size(); ++e)
      if (double(got[e]) != wanted[e])
        return str("run ", run, ", sum [", e,
                   "]: got other last digits than those of a sum from "
                   "the first sequence to the last");
    for (int n = 0; n < Parts::chunks; ++n)
      if (const double square = squares.host()[size_t(run * Parts::chunks + n)];
          !(std::abs(square / wanted_squares[n] - 1) < 1e-12))
        return str("run ", run, ", squares of chunk ", n, ": ",
                   got_wanted(square, wanted_squares[n]));
  }
  return "";
}

__global__ void take_result(Plan p, int count, StepResult* results) {
  SharedMemory shared;
  double* scratch = shared.array<double>(warps);
  const int run = int(blockIdx.x) / p.blocks_a_run;
  results[blockIdx.x * blockDim.x + threadIdx.x] = step_result(p, run, count, scratch);
}

// Rows of 64 numbers as they lie in shared memory, NaN between and after them.
struct Rows {
  int rows;
  std::vector<float> numbers;
  Rows(int count, uint32_t which) : rows(count), numbers(size_t(40 * row_stride), NAN) {
    const std::vector<double> random = random_numbers(size_t(rows * width), which);
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < width; ++c) numbers[at(r, c)] = float(random[size_t(r * width + c)]);
  }
  static size_t at(int r, int c) { return size_t(r * row_stride + c); }
  double operator()(int r, int c) const { return double(numbers[at(r, c)]); }
};

__global__ void norm_backward(float* dx, float* branch, const float* y, const float* rstd,
                              int length, const uint8_t* mask, Dropout dropout) {
  layer_norm_backward<5>(dx, branch, branch, y, rstd, length, mask, dropout);
}

// "" if a norm's backward is right: dy is where the branch's gradient comes to stand.
std::string compare_norm_gradient(int length, Dropout dropout) {
  const Rows dy(length, 1), y(length, 2), before(length, 3);
  std::vector<float> rstd(size_t(length), 0.f);
  std::vector<uint8_t> mask;
  for (int r = 0; r < length; ++r) rstd[size_t(r)] = 0.5f + float(r) / 16;
  for (int n = 0; n < length * 8; ++n) mask.push_back(uint8_t(n * 37 + 11));
  DeviceArray<float> dx(before.numbers), branch(dy.numbers), d_y(y.numbers), d_rstd(rstd);
  DeviceArray<uint8_t> d_mask(mask);
  shuffle_threads(uint64_t(length));
  const std::string trouble = trouble_of([&] {
    launch({"test", 1, threads}, nullptr, norm_backward, dx.data(), branch.data(), d_y.data(),
           d_rstd.data(), length, d_mask.data(), dropout);
  });
  shuffle_threads(0);
  if (!trouble.empty()) return trouble;
  std::vector<double> wanted_dx(before.numbers.size(), NAN), wanted_branch = wanted_dx;
  for (int r = 0; r < length; ++r) {
    double mean = 0, mean_y = 0;
    for (int c = 0; c < width; ++c) mean += dy(r, c) / width, mean_y += dy(r, c) * y(r, c) / width;
    for (int c = 0; c < width; ++c) {
      const double g =
          before(r, c) + double(rstd[size_t(r)]) * (dy(r, c) - mean - y(r, c) * mean_y);
      wanted_dx[Rows::at(r, c)] = g;
      const bool kept = mask[size_t(r * 8 + c / 8)] >> c % 8 & 1;
      wanted_branch[Rows::at(r, c)] = g * (dropout.scale == 0 ? 1
                                           : kept             ? double(dropout.scale)
                                                              : 0);
    }
  }
  const Shape shape{40, row_stride};
  const std::string far = difference("dx", shape, dx.host().data(), wanted_dx, 16);
  return far.empty() ? difference("branch", shape, branch.host().data(), wanted_branch, 16) : far;
}

__global__ void scores_backward(Plan p, float* dp, float* ds_transposed, float* weights_transposed,
                                const float* kept, const uint8_t* mask, int first_bit) {
  weights_backward<5>(p, dp, ds_transposed, weights_transposed, kept + p.kept_layout.p,
                      reinterpret_cast<const unsigned long long*>(kept + p.kept_layout.keys), mask,
                      first_bit);
}

// "" if the gradient of the scores is right where each query keeps its own `kept` keys.
std::string compare_scores_gradient(int length, int kept_keys, bool with_dropout) {
  constexpr int side = 40, stride = score_stride<5>, first_bit = 3;
  Plan p{};
  p.length = length, p.pattern = Pattern::topk, p.k = kept_keys, p.score_scale = 0.125f;
  p.kept_layout.keys = side * side;
  p.attention_dropout = {0, with_dropout ? 1.25f : 0.f};
  std::vector<int> begin;
  for (int i = 0; i <= length; ++i) begin.push_back(i * kept_keys);
  DeviceArray<int> entry_begin(begin);
  p.entry_begin = entry_begin.data();
  const std::vector<double> random = random_numbers(size_t(3 * side * side), 7);
  std::vector<float> kept(size_t(side * side + 2 * side), 0.f), dp(size_t(side * stride), NAN);
  std::vector<uint8_t> mask;
  for (int n = 0; n < length * kept_keys / 8 + 2; ++n) mask.push_back(uint8_t(n * 59 + 77));
  std::vector<double> ds(dp.size(), 0), turned(dp.size(), 0), weights(dp.size(), 0);
  for (int i = 0; i < length; ++i) {
    unsigned long long keys = 0;
    for (int e = 0; e < kept_keys; ++e) keys |= 1ull << (i * 3 + e * e) % length;
    std::memcpy(&kept[size_t(p.kept_layout.keys + 2 * i)], &keys, sizeof keys);
    int entry = 0;
    double mean = 0;
    std::vector<double> weight(size_t(length), 0), d = weight, factor(size_t(length), 1);
    for (int j = 0; j < length; ++j) {
      if (!(keys >> j & 1)) continue;
      const int bit = first_bit + i * kept_keys + entry++;
      const size_t at = size_t(i * length + j), place = size_t(i * stride + j), J = size_t(j);
      kept[at] = float(0.6 + random[at] / 2), dp[place] = float(random[at + side * side]);
      if (with_dropout) factor[J] = mask[size_t(bit / 8)] >> bit % 8 & 1 ? 1.25 : 0;
      weight[J] = double(kept[at]), d[J] = factor[J] * double(dp[place]);
      mean += weight[J] * d[J];
    }
    for (int j = 0; j < length; ++j) {
      const size_t J = size_t(j), place = size_t(i * stride + j), across = size_t(j * stride + i);
      ds[place] = turned[across] = 0.125 * weight[J] * (d[J] - mean);
      weights[across] = factor[J] * weight[J];
    }
  }
  for (int i = 0; i < side; ++i)
    for (int j = side; j < stride; ++j)  // between the rows nobody writes
      ds[size_t(i * stride + j)] = turned[size_t(i * stride + j)] =
          weights[size_t(i * stride + j)] = NAN;
  DeviceArray<float> d_dp(dp), d_kept(kept), d_turned(dp.size()), d_weights(dp.size());
  DeviceArray<uint8_t> d_mask(mask);
  d_turned.poison(), d_weights.poison();
  launch({"test", 1, threads}, nullptr, scores_backward, p, d_dp.data(), d_turned.data(),
         d_weights.data(), d_kept.data(), with_dropout ? d_mask.data() : nullptr, first_bit);
  const Shape shape{side, stride};
  std::string far = difference("dS", shape, d_dp.host().data(), ds, 16);
  if (far.empty()) far = difference("dS, transposed", shape, d_turned.host().data(), turned, 16);
  if (far.empty())
    far = difference("weights after dropout, transposed", shape, d_weights.host().data(), weights,
                     16);
  return far;
}

ModelSettings model_of(Pattern pattern, int k, int length, int blocks, double dropout) {
  ModelSettings s;
  s.attention = {pattern, k, is_positional(pattern) ? 1 : 0, 1, dropout};
  s.vocabulary = 7, s.classes = 5, s.length = length, s.blocks = blocks, s.dropout = dropout;
  return s;
}

// Every step from the CPU's weights, so that differences do not add up.
void check_steps(const std::string& name, const ModelSettings& s, OptimizerKind kind, int batch,
                 int rows) {
  // A clip that shortens the gradient.
  const StepSettings settings{.model = s, .optimizer = kind, .clip = 0.1, .batch = batch};
  RandomRun run(settings, rows, 11);
  OneLaunch kernel(settings, {run.step_run});
  Workers workers;
  Tape<float> tape(workers);
  CpuStepper cpu(tape, settings, {run.step_run});
  std::vector<double> loss, gradient, move;
  for (int n = 0; n * batch < rows; ++n) {
    const std::vector<float> before = run.weights();
    RandomRun same(settings, rows, 11);
    same.set_weights(before), same.optimizer = run.optimizer;
    shuffle_threads(uint64_t(n));
    const StepMade got = step_of(kernel, same, n);
    shuffle_threads(0);
    REQUIRE_MESSAGE(!std::isnan(got.loss), str(name, ": got no step, wanted 1"));
    const StepMade wanted = step_of(cpu, run, n);
    loss.push_back(std::abs(got.loss / wanted.loss - 1));
    gradient.push_back(relative_distance(got.gradients, wanted.gradients));
    std::vector<float> got_move = got.weights, wanted_move = wanted.weights;
    for (size_t i = 0; i < before.size(); ++i)
      got_move[i] -= before[i], wanted_move[i] -= before[i];
    move.push_back(relative_distance(got_move, wanted_move));
  }
  const auto within = [&](const char* what, double error, double limit) {
    return error <= limit ? ""
                          : str(name, ": ", what, ": got a relative error of ", error,
                                ", wanted at most ", limit);
  };
  CHECK(within("loss", median(loss), 2e-6) == "");
  CHECK(within("gradient", median(gradient), 5e-6) == "");
  // Weights are a thousand times as large as a step: their last digits count.
  CHECK(within("step", median(move), 1e-3) == "");
}

}  // namespace

TEST_CASE("barrier: what the run's other blocks wrote is there, round after round") {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    CHECK(meeting(1, 3, seed) == "");
    CHECK(meeting(1, 1, seed) == "");
  }
}

TEST_CASE("barrier: runs do not wait for each other") {
  for (uint64_t seed = 0; seed < 3; ++seed) CHECK(meeting(3, 2, seed) == "");
}

TEST_CASE("barrier: a fence before the announcement, and one after the wait") {
  if (!emulated()) return;
  record_acts();
  CHECK(meeting(1, 3, 5) == "");
  for (unsigned block = 0; block < 3; ++block) {
    const std::string acts = acts_of(block, 0);  // f: a fence, a: atomic, s: a turn of waiting
    int before = 0, after = 0, barriers = 0;
    for (size_t i = 0; i < acts.size(); ++i) {
      if (acts[i] != 'a' || (i > 0 && acts[i - 1] == 's')) continue;
      ++barriers, before += i > 0 && acts[i - 1] == 'f';
      const size_t end = acts.find_first_not_of("as", i);
      after += end != std::string::npos && acts[end] == 'f';
    }
    CHECK(barriers > 0);
    CHECK_MESSAGE(before == barriers, "of ", barriers, " barriers got ", before,
                  " with a fence before the announcement: others may see it before the writes");
    CHECK_MESSAGE(after == barriers, "of ", barriers, " barriers got ", after,
                  " with a fence after the wait: reads may be of before it");
  }
}

TEST_CASE("barrier: a block that does not come, and patience that ends") {
  Grid grid(1, 3);
  grid.plan.absent = 1, grid.plan.patience = -1;  // under emulation the clock stands still
  DeviceArray<int> refused(std::vector<int>(120, -1));
  const std::string trouble =
      trouble_of([&] { launch(grid.size(40), nullptr, wait_in_vain, grid.plan, refused.data()); });
  CHECK(trouble == "");
  if (!trouble.empty()) return;
  int threads_told = 0;
  for (int told : refused.host()) threads_told += told == 1;
  CHECK_MESSAGE(threads_told == 80,
                str("got ", threads_told, " threads that were told, wanted 80"));
  CHECK_MESSAGE(grid.gave_up.host()[0] == 1, "got a plan in which nobody gave up");
}

TEST_CASE("barrier: who waits leaves when another block has given up") {
  Grid grid(1, 3);
  grid.plan.absent = 1, grid.gave_up.set({1});
  DeviceArray<int> refused(std::vector<int>(120, -1));
  CHECK(trouble_of([&] {
          launch(grid.size(40), nullptr, wait_in_vain, grid.plan, refused.data());
        }) == "");
}

TEST_CASE("sums: from the first sequence to the last, whatever the number of blocks") {
  for (int count : {1, 4, 13, 15})
    for (int blocks : {1, 2, 3}) {
      CAPTURE(count);
      CHECK(compare_sums(Parts(count), blocks) == "");
    }
}

TEST_CASE("sums: what other blocks wrote is read past the first-level cache") {
  if (!emulated()) return;
  record_acts();
  CHECK(compare_sums(Parts(4), 1) == "");
  const std::string acts = acts_of(0, 0);
  const auto loads = std::count(acts.begin(), acts.end(), 'c');
  CHECK_MESSAGE(loads >= 4, "got ", loads,
                " such loads of a thread, wanted 4 and more: load4 may find what was there before");
}

TEST_CASE("loss and norm: of the run's own numbers, the same in every thread") {
  constexpr int runs = 2, batch = 300, chunks = 300;
  for (int count : {300, 4}) {
    Grid grid(runs, 2);
    Plan& p = grid.plan;
    std::vector<double> squares(size_t(runs * chunks)), losses(size_t(runs * batch), NAN);
    const std::vector<double> random = random_numbers(squares.size(), 3);
    double norm[runs] = {}, loss[runs] = {};
    for (size_t run = 0; run < runs; ++run) {
      for (size_t n = 0; n < chunks; ++n)
        norm[run] += squares[run * chunks + n] = 1.5 + random[run * chunks + n];
      for (size_t b = 0; b < size_t(count); ++b)
        loss[run] += losses[run * batch + b] = 2 + random[run * batch + b];
      norm[run] = std::sqrt(norm[run]), loss[run] /= count;
    }
    DeviceArray<double> d_squares(squares), d_losses(losses);
    DeviceArray<StepResult> results(size_t(runs * 2 * threads));
    results.poison();
    p.chunks = chunks, p.batch = batch;
    p.chunk_sums = d_squares.data(), p.sequence_losses = d_losses.data();
    record_acts();
    launch(grid.size(threads, shared_bytes_for(2 * warps)), nullptr, take_result, p, count,
           results.data());
    const std::string acts = acts_of(0, 0);
    CHECK_MESSAGE((!emulated() || std::count(acts.begin(), acts.end(), 'c') >= 2),
                  "got loads through the first-level cache, which may hold what was there before");
    const std::vector<StepResult> got = results.host();
    for (size_t i : {size_t{0}, size_t{77}, size_t(2 * threads), got.size() - 1}) {
      const size_t run = i / size_t(2 * threads);
      const auto compare = [&](const char* what, double value, double wanted) {
        return std::abs(value / wanted - 1) < 1e-12
                   ? ""
                   : str("batch of ", count, ", run ", run, ", thread ", i % size_t(threads), ", ",
                         what, ": ", got_wanted(value, wanted));
      };
      CHECK(compare("loss", got[i].loss, loss[run]) == "");
      CHECK(compare("norm", got[i].norm, norm[run]) == "");
    }
  }
}

TEST_CASE("norm, backward: with dropout's bits and without") {
  for (int length : {1, 7, 17, 40})
    for (float scale : {0.f, 1.25f}) {
      CAPTURE(length);
      CHECK(compare_norm_gradient(length, {0, scale}) == "");
    }
}

TEST_CASE("scores, backward: dS, its transpose, and the weights' transpose") {
  for (bool with_dropout : {false, true})
    for (int length : {5, 11, 39}) {
      CAPTURE(length);
      CHECK(compare_scores_gradient(length, 3, with_dropout) == "");
    }
}

TEST_CASE("a step: loss, gradient and weights as the CPU's") {
  check_steps("full, length 7, two blocks", model_of(Pattern::full, 0, 7, 2, 0.2),
              OptimizerKind::sgd, 2, 5);
  check_steps("topk(3), length 11", model_of(Pattern::topk, 3, 11, 1, 0.2), OptimizerKind::sgd, 3,
              6);
  check_steps("banded(3), length 9", model_of(Pattern::banded, 3, 9, 1, 0), OptimizerKind::sgd, 2,
              4);
  check_steps("Adam", model_of(Pattern::full, 0, 5, 1, 0), OptimizerKind::adam, 2, 4);
}

TEST_CASE("steps: the same bits in one launch or several, alone or beside another run") {
  const StepSettings settings{.model = model_of(Pattern::topk, 3, 7, 1, 0.1), .batch = 3};
  const auto weights_after = [&](int runs, int blocks, std::vector<int> launches) {
    std::deque<RandomRun> all;
    std::vector<StepRun> step_runs;
    std::vector<Epoch> epochs;
    for (int r = 0; r < runs; ++r) {
      const RandomRun& run = all.emplace_back(settings, 8, uint64_t(5 + r));
      step_runs.push_back(run.step_run), epochs.push_back(run.epoch);
    }
    OneLaunch kernel(settings, step_runs);
    for (int r = 0; r < runs; ++r) kernel.load(r, all[size_t(r)].model, all[size_t(r)].optimizer);
    kernel.set_blocks_a_run(blocks);
    int first = 0;
    for (int steps : launches) {
      shuffle_threads(uint64_t(first + blocks));
      const auto made = kernel.train(epochs, first, steps, never_stop);
      REQUIRE(made[0].losses.size() == size_t(steps));
      first += steps;
    }
    shuffle_threads(0);
    kernel.store(0, all[0].model, all[0].optimizer);
    return all[0].weights();
  };
  const std::vector<float> wanted = weights_after(1, 1, {1, 1, 1});
  const auto check = [&](const char* what, const std::vector<float>& got) {
    const std::string other = other_bits(got, wanted);
    CHECK_MESSAGE(other == "", what, ", weights: ", other);
  };
  check("three steps in one launch", weights_after(1, 1, {3}));
  check("three blocks", weights_after(1, 3, {3}));
  check("beside another run", weights_after(2, 2, {3}));
}

TEST_CASE("steps: a run that meets a NaN stops as it was, the one beside it goes on") {
  const StepSettings settings{.model = model_of(Pattern::full, 0, 5, 1, 0), .batch = 2};
  RandomRun bad(settings, 6, 1), good(settings, 6, 2);
  std::vector<float> weights = bad.weights();
  for (size_t i = 100; i < 448; ++i) weights[i] = NAN;  // words that surely occur
  bad.set_weights(weights);
  OneLaunch kernel(settings, {bad.step_run, good.step_run});
  kernel.load(0, bad.model, bad.optimizer), kernel.load(1, good.model, good.optimizer);
  const auto made = kernel.train({bad.epoch, good.epoch}, 0, 3, never_stop);
  CHECK_MESSAGE(made[0].failed, "got no failure from a loss that is not a number");
  CHECK_MESSAGE(made[0].losses.size() == 1,
                str("got ", made[0].losses.size(), " steps of the run that fails, wanted 1"));
  CHECK_MESSAGE(!made[1].failed, "got a failure of the run beside it");
  CHECK_MESSAGE(made[1].losses.size() == 3,
                str("got ", made[1].losses.size(), " steps of the run beside it, wanted 3"));
  kernel.store(0, bad.model, bad.optimizer);
  const std::vector<float> after = bad.weights();
  CHECK_MESSAGE(std::equal(after.begin(), after.begin() + 100, weights.begin()),
                "got changed weights after a loss that is not a number");
}

TEST_CASE("steps: so does one whose loss is a number and whose gradient is none") {
  const StepSettings settings{.model = model_of(Pattern::full, 0, 5, 1, 0), .batch = 2};
  RandomRun good(settings, 6, 2), bad(settings, 6, 1);
  // W_v gives 0, which W_o makes nothing of; but on the way back W_o's size is met by a number.
  for (Parameter<float>& p : bad.model.parameters())
    for (float& w : p.value) {
      if (p.name.find("W_v") != std::string::npos) w = 0;
      if (p.name.ends_with("W_o.weight")) w = 3e38f;
      if (p.name == "linear.weight") w *= 500;
    }
  const auto made_by = [&](std::vector<RandomRun*> runs) {
    std::vector<StepRun> step_runs;
    std::vector<Epoch> epochs;
    for (const RandomRun* run : runs)
      step_runs.push_back(run->step_run), epochs.push_back(run->epoch);
    OneLaunch kernel(settings, step_runs);
    for (size_t r = 0; r < runs.size(); ++r)
      kernel.load(int(r), runs[r]->model, runs[r]->optimizer);
    return kernel.train(epochs, 0, 3, never_stop);
  };
  const auto made = made_by({&good, &bad});
  CHECK_MESSAGE(made[1].failed, "got no failure from a gradient that is not a number");
  REQUIRE_MESSAGE(made[1].losses.size() == 1,
                  str("got ", made[1].losses.size(), " steps of the run that fails, wanted 1"));
  CHECK_MESSAGE(std::isfinite(made[1].losses[0]), "got the loss ", made[1].losses[0]);
  CHECK_MESSAGE(!std::isfinite(made[1].norm), "got the norm ", made[1].norm, ", wanted inf or nan");
  CHECK_MESSAGE(made[0].losses == made_by({&good})[0].losses,
                "got other losses beside another run");
  CHECK_MESSAGE(made[1].losses == made_by({&bad})[0].losses, "got another loss beside another run");
}

TEST_CASE("steps: a block that does not come is an error, not a hang") {
  const StepSettings settings{.model = model_of(Pattern::full, 0, 5, 1, 0), .batch = 2};
  RandomRun run(settings, 4, 1);
  OneLaunch kernel(settings, {run.step_run});
  kernel.load(0, run.model, run.optimizer);
  kernel.leave_out_a_block(true);
  kernel.set_patience(-1);
  const std::vector<float> before = run.weights();
  const std::string trouble = trouble_of([&] { kernel.train({run.epoch}, 0, 2, never_stop); });
  CHECK_MESSAGE(trouble.find("waited for each other longer than") != std::string::npos,
                str("got '", trouble, "', wanted the error that names the patience"));
  kernel.store(0, run.model, run.optimizer);
  const std::string changed = other_bits(run.weights(), before);
  CHECK_MESSAGE(changed == "", "a step without one block's part changed the weights: ", changed);
  kernel.load(0, run.model, run.optimizer);
  kernel.leave_out_a_block(false), kernel.set_patience(30);
  CHECK(kernel.train({run.epoch}, 0, 2, never_stop)[0].losses.size() == 2);
}
