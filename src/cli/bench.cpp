// focus bench step: how long a whole training step takes.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <numeric>

#include "cli/command.h"
#include "clock.h"
#include "error.h"
#include "report/statistics.h"
#include "rng.h"
#include "train/cpu_stepper.h"
#include "train/memory.h"

namespace focus {

namespace {

// Random data, so many rows.
std::shared_ptr<const RunData> random_data(const ModelSettings& s, int rows, uint64_t seed) {
  RunData data;
  const bool text = s.objective != Objective::classify;
  data.train = {rows, s.length, s.vocabulary, {}, {}};
  Rng rng(seed, Stream::data);
  for (int i = 0; i < rows * s.length + text; ++i)
    data.train.tokens.push_back(TokenId(rng.below(uint32_t(s.vocabulary))));
  for (int b = 0; b < rows && !text; ++b)
    data.train.labels.push_back(int(rng.below(uint32_t(s.classes))));
  return std::make_shared<const RunData>(std::move(data));
}

std::vector<StepRun> random_runs(const StepSettings& s, int batches, uint64_t first_seed,
                                 int count) {
  std::vector<StepRun> runs;
  for (uint64_t seed = first_seed; seed < first_seed + uint64_t(count); ++seed)
    runs.push_back({seed, random_data(s.model, batches * s.batch, seed)});
  return runs;
}

// Models that a stepper trains on the same few batches again and again, or evaluates.
class Trainees {
 public:
  Trainees(std::unique_ptr<Stepper> stepper, const StepSettings& settings,
           const std::vector<StepRun>& runs, bool evaluates)
      : stepper_(std::move(stepper)),
        steps_(runs[0].data->train.rows / settings.batch),
        evaluates_(evaluates) {
    Model<float> model(settings.model);
    const Optimizer<float> optimizer(settings.optimizer, model.parameters());
    for (size_t r = 0; r < runs.size(); ++r) {
      model.initialise(runs[r].seed);
      stepper_->load(int(r), model, optimizer);
      Epoch& epoch = epochs_.emplace_back();
      epoch.order.resize(size_t(runs[r].data->train.rows));
      std::iota(epoch.order.begin(), epoch.order.end(), 0);
    }
    parameters_ = model.parameter_count();
  }

  // One step with each batch, or one pass over them all; returns the seconds.
  double run() {
    const double start = seconds_now();
    if (evaluates_) {
      stepper_->evaluate(Split::train, never_);
      return seconds_now() - start;
    }
    for (const StepsMade& made : stepper_->train(epochs_, 0, steps_, never_))
      if (made.failed) fail_run("bench step: a loss that is no number");
    const double seconds = seconds_now() - start;
    for (Epoch& epoch : epochs_) epoch.steps_before += uint32_t(steps_);
    return seconds;
  }
  int steps() const { return steps_; }
  size_t parameters() const { return parameters_; }

 private:
  std::unique_ptr<Stepper> stepper_;
  int steps_;
  bool evaluates_;
  std::vector<Epoch> epochs_;
  size_t parameters_ = 0;
  const std::atomic<bool> never_{false};
};

// One model on the CPU, with threads of its own.
struct CpuTrainee {
  Workers workers;
  Tape<float> tape{workers};
  Trainees model;

  CpuTrainee(const StepSettings& s, uint64_t seed, int threads, bool evaluates)
      : CpuTrainee(s, random_runs(s, 1, seed, 1), threads, evaluates) {}
  CpuTrainee(const StepSettings& s, const std::vector<StepRun>& runs, int threads, bool evaluates)
      : workers(threads), model(std::make_unique<CpuStepper>(tape, s, runs), s, runs, evaluates) {}
  void step() { model.run(); }
};

// Floating-point operations of a step: two for each multiply-add of the linear layers (forward
// once, backward twice) and of attention: the scores that the pattern computes, then the kept ones
// weigh values, and each kept one is used four more times in the backward. Evaluation is a forward.
double operations(const ModelSettings& s, int batch, bool evaluates) {
  const double d = s.d_model, hd = d * s.attention.heads, L = s.length;
  const double linear = L * s.blocks * (4 * d * hd + 2 * d * s.d_mlp) + d * s.classes * s.targets();
  const Pattern p = s.attention.pattern;
  const double kept = count_nnz(s.attention, s.length);
  const double all = s.attention.causal ? L * (L + 1) / 2 : L * L;
  const double scores = p == Pattern::topk || p == Pattern::bottomk ? all : kept;
  if (evaluates) return 2 * batch * (linear + s.blocks * hd * (scores + kept));
  return 2 * batch * (3 * linear + s.blocks * hd * (scores + kept + 4 * kept));
}

void warm_up(CpuTrainee& trainee) {
  for (int i = 0; i < 3; ++i) trainee.step();  // the first two also set up the arena's memory
}

// Calls measure() `repeats` times, or, if that is 0, for about two seconds and at least so often.
template <class F>
void repeat(int64_t repeats, int at_least, const F& measure) {
  const double start = seconds_now();
  for (int64_t i = 0; repeats > 0 ? i < repeats : i < at_least || seconds_now() - start < 2; ++i)
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
void bench_seeds(std::deque<CpuTrainee>& trainees, int threads, int64_t repeats,
                 double operations) {
  constexpr int steps = 5;
  const int runs = int(trainees.size());
  for (CpuTrainee& trainee : trainees) warm_up(trainee);
  Workers workers(std::min(threads, runs));
  std::vector<double> together, alone;
  repeat(repeats, 10, [&] {
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

// The last lines: against the time that the multiply-adds alone take if no lane ever waits.
void print_floor(const Device::Facts& facts, double operations, double ms) {
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

// Where the time of a step goes.
void print_kernels(std::vector<Device::KernelTime> kernels, int steps) {
  double all = 0;
  for (const Device::KernelTime& k : kernels) all += k.ms;
  std::sort(kernels.begin(), kernels.end(),
            [](const auto& a, const auto& b) { return a.ms > b.ms; });
  print(
      "each kernel alone, one after another:\n  launches a step        us     % of all  kernel\n");
  for (const Device::KernelTime& k : kernels) {
    char text[300];
    std::snprintf(text, sizeof text, "  %15.4g %9.1f %12.1f  %s\n", double(k.launches) / steps,
                  1e3 * k.ms / steps, 100 * k.ms / all, k.kernel.c_str());
    print(text);
  }
}

// Steps are timed many at once, as training makes them.
void bench_on_device(Device& device, const StepSettings& settings, int models, int64_t repeats,
                     double operations, bool evaluates, bool kernels) {
  constexpr int steps = 64;
  const std::vector<StepRun> runs = random_runs(settings, steps, 1, models);
  Trainees trainees(device.make_stepper(settings, runs), settings, runs, evaluates);
  const auto launches_of_a_run = [&] {
    const uint64_t before = device.facts().kernels_launched;
    trainees.run();
    return double(device.facts().kernels_launched - before);
  };
  // A record is made in the first run, of one step, and starts no kernel one by one later.
  const double first = launches_of_a_run(), later = launches_of_a_run();
  char text[120];
  std::snprintf(text, sizeof text, "kernels: %.4g a step\n", later > 0 ? later / steps : first);
  print(str(device.explain(settings), "\n", text));
  if (kernels) print_kernels(device.time_kernels([&] { trainees.run(); }), steps);
  std::vector<double> ms;
  repeat(repeats, 5, [&] { ms.push_back(1e3 * trainees.run() / steps); });
  print(spread(ms, operations));
  Device::Facts facts = device.facts();
  facts.multiply_adds *= times_float32(settings.precision);
  print_floor(facts, operations, median(ms));
  print_last(median(ms));
}

struct BenchStep {
  StepSettings settings;
  std::string device = "cpu";
  std::optional<std::string> launch;
  std::optional<int> k;
  int seeds = 1, threads = default_threads(), repeats = 0;
  bool evaluates = false, kernels = false;

  BenchStep() {
    settings.model.length = 40, settings.model.vocabulary = 17, settings.model.classes = 10;
  }
};

int bench_step(const BenchStep& o) {
  const std::unique_ptr<Device> device = open_device(o.device);
  StepSettings settings = o.settings;
  settings.form = o.launch.value_or("auto");
  if (!device && settings.precision != Precision::fp32)
    fail_input("--precision ", name_of(settings.precision), " is for --device cuda");
  if (const std::string& form = settings.form;
      o.launch && form != "operations" && form != "graph" && form != "fused" && form != "one")
    fail_input("--launch ", form, ": use operations, graph, fused or one");
  if (!device && o.launch)
    fail_input("--launch is for --device cuda; on the CPU nothing is launched");
  ModelSettings& s = settings.model;
  const int length = s.length;
  if (uses_k(s.attention.pattern)) {
    if (!o.k) fail_input("--attention ", name_of(s.attention.pattern), " needs --k, at least 1");
    if (*o.k > length) fail_input("--k: ", *o.k, " is not between 1 and ", length);
    s.attention.k = *o.k;
  }
  s.length += s.attention.global_tokens;
  if (s.attention.score_scale == 0) fail_input("--score-scale 0 is not a positive factor");
  s.attention.dropout = s.dropout;
  s.attention.causal = s.objective == Objective::causal;
  if (s.objective != Objective::classify) s.classes = s.vocabulary;
  check_settings(s);
  if (!device && o.kernels) fail_input("--kernels is for --device cuda; on the CPU there are none");
  const double flop = operations(s, settings.batch, o.evaluates);
  const auto print_what = [&](const std::string& where, size_t parameters) {
    char text[200];
    std::snprintf(text, sizeof text, "%zu parameters, %.3f GFLOP a step\n", parameters, flop / 1e9);
    print(str(where, ", ", o.seeds, " model(s): attention ",
              s.objective == Objective::classify ? "" : str(name_of(s.objective), " "),
              name_of(s.attention.pattern), ", k ", s.attention.k, ", ", s.attention.global_tokens,
              " global tokens, score scale ", s.attention.score_scale, ", length ", length,
              ", batch ", settings.batch, ", ", s.blocks, " blocks, ", s.attention.heads,
              " head(s), d ", s.d_model, ", mlp ", s.d_mlp, ", ", name_of(s.activation),
              ", dropout ", s.dropout, ", ", name_of(settings.optimizer), "\n", text));
  };
  if (device) {
    if (const std::string problem = device->problem(settings); !problem.empty())
      fail_input("--precision ", name_of(settings.precision),
                 " is for --launch one and fused; here: ", problem);
    print_what(str(o.device, " (", device->hardware(), ")"), Model<float>(s).parameter_count());
    bench_on_device(*device, settings, o.seeds, o.repeats, flop * o.seeds, o.evaluates, o.kernels);
    return 0;
  }
  check_memory(s, settings.optimizer, settings.batch, o.seeds, o.seeds);

  std::deque<CpuTrainee> trainees;
  for (int i = 0; i < o.seeds; ++i)
    trainees.emplace_back(settings, uint64_t(i) + 1, o.seeds > 1 ? 1 : o.threads, o.evaluates);
  print_what(str("cpu, ", o.threads, " thread(s)"), trainees[0].model.parameters());
  if (o.seeds > 1) {
    bench_seeds(trainees, o.threads, o.repeats, flop);
    return 0;
  }
  warm_up(trainees[0]);
  std::vector<double> ms;
  repeat(o.repeats, 10, [&] {
    const double start = seconds_now();
    trainees[0].step();
    ms.push_back(1e3 * (seconds_now() - start));
  });
  print(spread(ms, flop));
  print_last(median(ms));
  return 0;
}

}  // namespace

void add_bench_step(CLI::App& bench) {
  const auto [app, o] =
      add_command(bench, "step", "time a whole training step on random data", bench_step);
  ModelSettings& s = o.settings.model;
  add_device(app, o.device);
  add_name(app, "--attention", s.attention.pattern, pattern_of,
           "full, banded, block, topk, bottomk or random");
  add_whole(app, "--k", o.k, 1, 16384, "keys each query keeps (every attention but full)");
  add_whole(app, "--global-tokens", s.attention.global_tokens, 0, 64,
            "extra tokens, beside those of --length");
  add_number(app, "--score-scale", s.attention.score_scale, 0, 1e30,
             "a factor on the scores beside 1/sqrt(d)");
  add_whole(app, "--length", s.length, 1, 16384, "tokens a sequence");
  add_whole(app, "--blocks", s.blocks, 1, 1000, "transformer blocks");
  add_whole(app, "--heads", s.attention.heads, 1, 256, "attention heads, each d-model wide");
  add_whole(app, "--d-model", s.d_model, 1, 4096, "channels of a token");
  add_whole(app, "--d-mlp", s.d_mlp, 1, 16384, "hidden units of the feed-forward half");
  add_name(app, "--activation", s.activation, activation_of, "relu, gelu or mish");
  add_number(app, "--dropout", s.dropout, 0, 0.999, "probability that a number is dropped");
  add_whole(app, "--vocab", s.vocabulary, 1, most_token_ids, "token ids");
  add_whole(app, "--classes", s.classes, 1, 1 << 20, "classes, for the objective classify");
  add_name(app, "--objective", s.objective, objective_of,
           "classify; pooled and causal predict the next token, as of a text");
  add_whole(app, "--batch", o.settings.batch, 1, 100000, "sequences a step");
  add_name(app, "--optimizer", o.settings.optimizer, optimizer_of, "sgd or adam");
  add_whole(app, "--seeds", o.seeds, 1, 1000, "N models at once, one thread each");
  add_value(app, "--launch", "HOW",
            "on cuda: operations (each issued by the host), graph (recorded once and "
            "repeated), fused (recorded, a block's operations in fewer kernels) or one (a "
            "kernel makes whole steps); default: as training would",
            [&launch = o.launch](const std::string& text) { launch = text; });
  add_name(app, "--precision", o.settings.precision, precision_of,
           "on cuda, of products, in one and fused: fp32, 3xtf32, tf32 or bf16");
  add_flag(app, "--evaluate", o.evaluates, "time the evaluation of a batch instead of a step");
  add_flag(app, "--kernels", o.kernels,
           "on cuda: list each kernel of a step and how long it takes alone");
  add_whole(app, "--repeats", o.repeats, 0, 1'000'000'000,
            "steps to time (default: for two seconds, at least 10)")
      ->default_str("");
  add_threads(app, o.threads);
  add_footer(
      app,
      "A step is forward, backward, clipping and the optimiser. The last line is 'ms_per_step X',\n"
      "the median; with --seeds N it is the time for one step of all N models, and the scaling\n"
      "compares it with one model on one thread. Operations count two for each multiply-add of\n"
      "the linear layers and of attention, forward and backward, and nothing else.\n"
      "On cuda, 'floor' is how long these take where every lane of the GPU does one a cycle (on\n"
      "tensor cores, where those do as many as they can), and --repeats counts series of 64 "
      "steps.\n"
      "Example: focus bench step --attention topk --k 5 --length 40 --blocks 5 --threads 2");
}

}  // namespace focus
