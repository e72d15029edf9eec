// focus bench step: how long a whole training step takes.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <optional>

#include "cli/bench_device.h"
#include "cli/command.h"
#include "clock.h"
#include "error.h"
#include "model/model.h"
#include "ops/cross_entropy.h"
#include "report/statistics.h"
#include "rng.h"
#include "train/memory.h"
#include "train/optimizer.h"
#include "train/settings.h"

namespace focus {

namespace {

// A model and one batch of random data, which it trains on again and again.
class Trainee {
 public:
  Trainee(const ModelSettings& settings, OptimizerKind optimizer, int batch, uint64_t seed,
          int threads)
      : batch_(batch),
        seed_(seed),
        model_(settings),
        optimizer_(optimizer, model_.parameters()),
        workers_(threads),
        tape_(workers_) {
    model_.initialise(seed);
    Rng rng(seed, Stream::data);
    for (int i = 0; i < batch * settings.length; ++i)
      tokens_.push_back(int(rng.below(uint32_t(settings.vocabulary))));
    for (int b = 0; b < batch; ++b) labels_.push_back(int(rng.below(uint32_t(settings.classes))));
  }

  // As Run::train_step: forward, backward, clip, optimiser.
  void step() {
    tape_.reset(true, Noise{true, seed_, step_++, 0});
    model_.zero_gradients();
    tape_.backward(
        cross_entropy(tape_, model_.forward(tape_, tokens_.data(), batch_), labels_.data()));
    const double norm = gradient_norm(model_.parameters());
    optimizer_.step(model_.parameters(), 0.1, clip_factor(norm, 0.5));
  }

  size_t parameters() const { return model_.parameter_count(); }

 private:
  int batch_;
  uint64_t seed_;
  uint32_t step_ = 0;
  Model<float> model_;
  Optimizer<float> optimizer_;
  Workers workers_;
  Tape<float> tape_;
  std::vector<int> tokens_, labels_;
};

// Floating-point operations of a step: two for each multiply-add of the linear layers (forward
// once, backward twice) and of attention: the scores that the pattern computes, then the kept ones
// weigh values, and each kept one is used four more times in the backward.
double operations(const ModelSettings& s, int batch) {
  const double d = s.d_model, hd = d * s.attention.heads, L = s.length;
  const double linear = L * s.blocks * (4 * d * hd + 2 * d * s.d_mlp) + d * s.classes;
  const Pattern p = s.attention.pattern;
  const double kept = count_entries(s.attention, s.length);
  const double scores = p == Pattern::topk || p == Pattern::bottomk ? L * L : kept;
  return 2 * batch * (3 * linear + s.blocks * hd * (scores + kept + 4 * kept));
}

void warm_up(Trainee& trainee) {
  for (int i = 0; i < 3; ++i) trainee.step();  // the first two also set up the arena's memory
}

// Calls measure() `repeats` times, or, if that is 0, for about two seconds and at least ten times.
template <class F>
void repeat(int64_t repeats, const F& measure) {
  const double start = seconds_now();
  for (int64_t i = 0; repeats > 0 ? i < repeats : i < 10 || seconds_now() - start < 2; ++i)
    measure();
}

std::string spread(const std::vector<double>& ms, double operations) {
  char text[200];
  std::snprintf(text, sizeof text,
                "ms: min %.3f  quartile %.3f  median %.3f  quartile %.3f  (%zu timed)\n"
                "GFLOP/s: %.1f at the median\n",
                quantile(ms, 0), quantile(ms, 0.25), median(ms), quantile(ms, 0.75), ms.size(),
                operations / median(ms) / 1e6);
  return text;
}

void print_last(double ms) {
  char text[60];
  std::snprintf(text, sizeof text, "ms_per_step %.4f\n", ms);
  print(text);
}

// Several models at once, each on one thread, in turns with one model alone on one thread: so a
// busy moment of the machine hits both. Steps are timed a few at once, as a trainer's threads do
// not wait for each other at each step.
void bench_seeds(std::deque<Trainee>& trainees, int threads, int64_t repeats, double operations) {
  constexpr int steps = 5;
  const int runs = int(trainees.size());
  for (Trainee& trainee : trainees) warm_up(trainee);
  Workers workers(std::min(threads, runs));
  std::vector<double> together, alone;
  repeat(repeats, [&] {
    double start = seconds_now();
    for (int i = 0; i < steps; ++i) trainees[0].step();
    alone.push_back(1e3 * (seconds_now() - start) / steps);
    start = seconds_now();
    workers.run(runs, [&](int piece, int) {
      for (int i = 0; i < steps; ++i) trainees[size_t(piece)].step();
    });
    together.push_back(1e3 * (seconds_now() - start) / steps);
  });
  print(spread(together, operations * runs));
  char text[160];
  std::snprintf(text, sizeof text,
                "scaling: %d models take %.3f ms a step, one alone %.3f ms on one thread: %.2fx\n",
                runs, median(together), median(alone), runs * median(alone) / median(together));
  print(text);
  print_last(median(together));
}

template <class F>
auto parsed(const Arguments& arguments, const char* flag, const F& parse) {
  try {
    return parse(arguments.text(flag));
  } catch (const InputError& error) {
    fail_input("--", flag, ": ", error.what());
  }
}

// What --launch asks for, if it is given.
std::optional<StepLaunch> wanted_launch(const Arguments& arguments) {
  if (!arguments.given("launch")) return {};
  const std::string& text = arguments.text("launch");
  if (text == "operations") return StepLaunch::operations;
  if (text == "graph") return StepLaunch::graph;
  if (text == "fused") return StepLaunch::fused;
  if (text == "one") return StepLaunch::one;
  fail_input("--launch ", text, ": use operations, graph, fused or one");
}

const char* name_of(StepLaunch how) {
  switch (how) {
    case StepLaunch::operations:
      return "operations";
    case StepLaunch::graph:
      return "graph";
    case StepLaunch::fused:
      return "fused";
    case StepLaunch::one:
      break;
  }
  return "one";
}

// What is wanted, else what training would take: one kernel if there is one for this model.
StepLaunch choose_launch(std::optional<StepLaunch> wanted, const Device<float>& device,
                         const ModelSettings& s, int batch, std::string& said) {
  const std::string problem = device.step_kernel_problem(s, batch);
  if (wanted == StepLaunch::one && !problem.empty())
    fail_input("--launch one: not for this model: ", problem);
  const StepLaunch how = wanted ? *wanted : problem.empty() ? StepLaunch::one : StepLaunch::fused;
  said = name_of(how);
  if (!wanted) said += str(", as training would", problem.empty() ? "" : ": ", problem);
  return how;
}

// The last lines: against the time that the multiply-adds alone take if no lane ever waits.
void print_floor(const Device<float>::Facts& facts, double operations, double ms) {
  char text[300];
  if (facts.multiply_adds > 0) {
    const double floor = 1e3 * operations / 2 / facts.multiply_adds;
    std::snprintf(text, sizeof text,
                  "floor      %.4f ms: %.1f million multiply-adds, %.1f in a nanosecond\n"
                  "measured   %.4f ms\n"
                  "ratio      %.1f\n",
                  floor, operations / 2e6, facts.multiply_adds / 1e9, ms, ms / floor);
    print(text);
  }
}

void bench_on_device(DeviceTrainees& trainees, const Device<float>::Facts& facts,
                     const std::string& launch, int64_t repeats, double operations) {
  char text[120];
  std::snprintf(text, sizeof text, "kernels: %.4g a step\n", trainees.kernels_a_step());
  print(str("launch: ", launch, "\n", text));
  std::vector<double> ms;
  trainees.run();
  repeat(repeats, [&] { ms.push_back(1e3 * trainees.run() / trainees.steps_a_time()); });
  print(spread(ms, operations));
  print_floor(facts, operations, median(ms));
  print_last(median(ms));
}

int bench_step_command(const Arguments& arguments) {
  const std::optional<StepLaunch> wanted = wanted_launch(arguments);
  const std::unique_ptr<Device<float>> device = open_device(arguments.text("device"));
  const Precision precision = parsed(arguments, "precision", precision_of);
  if (!device && precision != Precision::fp32)
    fail_input("--precision ", name_of(precision), " is for --device cuda");
  if (!device && wanted)
    fail_input("--launch is for --device cuda; on the CPU nothing is launched");
  const auto whole = [&](const char* flag, int64_t high) {
    return int(arguments.whole(flag, 1, high));
  };
  ModelSettings s;
  s.attention.pattern = parsed(arguments, "attention", pattern_of);
  const int length = whole("length", 16384);
  s.attention.global_tokens = int(arguments.whole("global-tokens", 0, 64));
  s.length = length + s.attention.global_tokens;
  if (uses_k(s.attention.pattern)) {
    if (!arguments.given("k"))
      fail_input("--attention ", name_of(s.attention.pattern), " needs --k, at least 1");
    s.attention.k = whole("k", length);
  }
  s.attention.heads = whole("heads", 256);
  s.attention.score_scale = arguments.number("score-scale", 0, 1e30);
  if (s.attention.score_scale == 0) fail_input("--score-scale 0 is not a positive factor");
  s.activation = parsed(arguments, "activation", activation_of);
  s.vocabulary = whole("vocab", 1 << 20), s.classes = whole("classes", 1 << 20);
  s.blocks = whole("blocks", 1000), s.d_model = whole("d-model", 4096);
  s.d_mlp = whole("d-mlp", 16384);
  s.dropout = s.attention.dropout = arguments.number("dropout", 0, 0.999);
  check_settings(s);
  const OptimizerKind optimizer = parsed(arguments, "optimizer", optimizer_of);
  const int batch = whole("batch", 100000), seeds = whole("seeds", 1000);
  const int threads = threads_of(arguments);
  const int64_t repeats = arguments.whole("repeats", 0, 1'000'000'000);
  const double flop = operations(s, batch);
  const auto print_what = [&](const std::string& where, size_t parameters) {
    char text[200];
    std::snprintf(text, sizeof text, "%zu parameters, %.3f GFLOP a step\n", parameters, flop / 1e9);
    print(str(where, ", ", seeds, " model(s): attention ", name_of(s.attention.pattern), ", k ",
              s.attention.k, ", ", s.attention.global_tokens, " global tokens, score scale ",
              s.attention.score_scale, ", length ", length, ", batch ", batch, ", ", s.blocks,
              " blocks, ", s.attention.heads, " head(s), d ", s.d_model, ", mlp ", s.d_mlp, ", ",
              name_of(s.activation), ", dropout ", s.dropout, ", ", name_of(optimizer), "\n",
              text));
  };
  if (device) {
    std::string said;
    const StepLaunch how = choose_launch(wanted, *device, s, batch, said);
    const bool plain = how == StepLaunch::operations || how == StepLaunch::graph;
    if (const std::string problem = device->precision_problem(precision, s);
        precision != Precision::fp32 && (plain || !problem.empty()))
      fail_input("--precision ", name_of(precision),
                 " is for --launch one and fused; here: ", plain ? said : problem);
    said += str(", products in ", name_of(precision));
    DeviceTrainees trainees(*device, s, optimizer, batch, seeds, how, precision);
    Device<float>::Facts facts = device->facts();
    facts.multiply_adds *= times_float32(precision);
    print_what(str(arguments.text("device"), " (", device->hardware(), ")"), trainees.parameters());
    bench_on_device(trainees, facts, said, repeats, flop * seeds);
    return 0;
  }
  check_memory(s, optimizer, batch, seeds, seeds);

  std::deque<Trainee> trainees;
  for (int i = 0; i < seeds; ++i)
    trainees.emplace_back(s, optimizer, batch, uint64_t(i) + 1, seeds > 1 ? 1 : threads);
  print_what(str("cpu, ", threads, " thread(s)"), trainees[0].parameters());
  if (seeds > 1) {
    bench_seeds(trainees, threads, repeats, flop);
    return 0;
  }
  warm_up(trainees[0]);
  std::vector<double> ms;
  repeat(repeats, [&] {
    const double start = seconds_now();
    trainees[0].step();
    ms.push_back(1e3 * (seconds_now() - start));
  });
  print(spread(ms, flop));
  print_last(median(ms));
  return 0;
}

}  // namespace

std::vector<Command> bench_commands() {
  Command step{"bench step", "time a whole training step on random data"};
  step.flags = {device_flag(),
                {"attention", "NAME", "full, banded, block, topk, bottomk or random", "full"},
                {"k", "N", "keys each query keeps (every attention but full)"},
                {"global-tokens", "N", "extra tokens, beside those of --length", "0"},
                {"score-scale", "X", "a factor on the scores beside 1/sqrt(d)", "1"},
                {"length", "N", "tokens a sequence", "40"},
                {"blocks", "N", "transformer blocks", "5"},
                {"heads", "N", "attention heads, each d-model wide", "1"},
                {"d-model", "N", "channels of a token", "64"},
                {"d-mlp", "N", "hidden units of the feed-forward half", "64"},
                {"activation", "NAME", "relu, gelu or mish", "relu"},
                {"dropout", "X", "probability that a number is dropped", "0.01"},
                {"vocab", "N", "token ids", "17"},
                {"classes", "N", "classes", "10"},
                {"batch", "N", "sequences a step", "25"},
                {"optimizer", "NAME", "sgd or adam", "sgd"},
                {"seeds", "N", "N models at once, one thread each", "1"},
                {"launch", "HOW",
                 "on cuda: operations (each issued by the host), graph (recorded once and "
                 "repeated), fused (recorded, a block's operations in fewer kernels) or one (a "
                 "kernel makes whole steps); default: as training would"},
                {"precision", "NAME",
                 "on cuda, of products, in one and fused: fp32, 3xtf32, tf32 or bf16", "fp32"},
                {"repeats", "N", "steps to time (default: for two seconds, at least 10)", "0"},
                threads_flag()};
  step.more =
      "A step is forward, backward, clipping and the optimiser. The last line is 'ms_per_step X',\n"
      "the median; with --seeds N it is the time for one step of all N models, and the scaling\n"
      "compares it with one model on one thread. Operations count two for each multiply-add of\n"
      "the linear layers and of attention, forward and backward, and nothing else.\n"
      "On cuda, 'floor' is how long these take where every lane of the GPU does one a cycle (on\n"
      "tensor cores, where those do as many as they can), and --repeats counts launches of 64 "
      "steps\n"
      "(one) or series of 20.\n"
      "Example: focus bench step --attention topk --k 5 --length 40 --blocks 5 --threads 2";
  step.run = bench_step_command;
  return {step};
}

}  // namespace focus
