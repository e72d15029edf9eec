#include <algorithm>
#include <cmath>

#include "attention/pattern.h"
#include "cuda/device/streams.h"
#include "cuda/one_launch/arguments.cuh"
#include "cuda/one_launch/kernels.h"
#include "cuda/one_launch/one_launch.h"
#include "cuda/stepper/placed_runs.h"
#include "error.h"

namespace focus::gpu {

namespace {

using namespace one_launch;

constexpr int steps_a_launch = 64;  // a stop waits for the end of a launch

size_t parameter_floats(const ModelSettings& m) {
  return size_t(m.vocabulary) * width + 6 * size_t(m.blocks) * linear +
         size_t(m.classes) * (width + 1);
}

int attention_mask_bytes(const ModelSettings& m) {
  return (count_nnz(m.attention, m.length) + 7) / 8 + 1;  // may start within a byte
}
int mask_bytes(const ModelSettings& m) {
  return (1 + 3 * m.blocks) * m.length * (width / 8) + m.blocks * attention_mask_bytes(m);
}

Dropout dropout_of(double p) {
  if (!(p > 0)) return {0, 0};
  return {unsigned(std::max(1l, std::lround(p * 0x1p16)) - 1), float(1 / (1 - p))};
}

KeptLayout layout_of(int length) {
  KeptLayout k{};
  k.rows = length * width;
  k.p = 8 * k.rows;
  k.rstd = k.p + (length * length + 3) / 4 * 4;
  k.second_rstd = k.rstd + longest;
  k.keys = k.second_rstd + longest;
  k.floats = k.keys + 2 * longest;
  return k;
}

// Bit j of query i: does it keep key j? All keys, unless the pattern goes by position.
std::vector<unsigned long long> key_bits(const AttentionSettings& a, int length,
                                         std::vector<int>& begin) {
  begin.resize(size_t(length) + 1);
  std::vector<unsigned long long> bits(size_t(length), (1ull << length) - 1);
  if (a.pattern == Pattern::full) {
    for (int i = 0; i <= length; ++i) begin[size_t(i)] = i * length;
    return bits;
  }
  std::vector<int> keys(size_t(count_nnz(a, length)));
  fill_key_lists(a, length, begin.data(), keys.data());
  if (!is_positional(a.pattern)) return bits;
  for (size_t i = 0; i < size_t(length); ++i) {
    bits[i] = 0;
    for (int e = begin[i]; e < begin[i + 1]; ++e) bits[i] |= 1ull << keys[size_t(e)];
  }
  return bits;
}

}  // namespace

std::string one_launch_problem(const ModelSettings& m, int batch) {
  const AttentionSettings& a = m.attention;
  if (m.objective != Objective::classify) return str("the objective ", name_of(m.objective));
  if (m.d_model != width || m.d_mlp != width)
    return str("d-model ", m.d_model, " and d-mlp ", m.d_mlp, ", not both ", width);
  if (a.heads != 1) return str(a.heads, " heads, not 1");
  if (m.length > longest) return str(m.length, " tokens, more than ", longest);
  if (m.classes > most_classes) return str(m.classes, " classes, more than ", most_classes);
  if (m.vocabulary > 256) return str(m.vocabulary, " words, more than 256");
  if (a.pattern == Pattern::random) return "random attention";
  if (!is_positional(a.pattern) && a.pattern != Pattern::full && a.k > 16)
    return str("k = ", a.k, ", more than 16");
  if (batch > 1024) return str("batches of ", batch, ", more than 1024");
  using Fp32 = Step<Precision::fp32>;  // the others take as much memory
  if (const size_t bytes = Fp32::shared_bytes(m.length, mask_bytes(m));
      bytes > device().shared_memory)
    return str(m.blocks, " blocks need ", bytes, " bytes of shared memory, ", device().name,
               " has ", device().shared_memory);
  if (Fp32::training_blocks_at_once(m.length, mask_bytes(m)) < 1) return "no room on this device";
  return "";
}

struct OneLaunch::State {
  StepSettings settings;
  PlacedRuns placed;
  Streams streams, beside{Streams::Priority::low};  // to train; to evaluate the snapshot
  const int device_number = device_in_use();
  int room = 0, given_blocks = 0;
  Plan plan{}, evaluation{};
  DeviceArray<float> kept, partials, losses;
  DeviceArray<int> begin, made, gave_up, row_right;
  DeviceArray<unsigned long long> keys;
  DeviceArray<double> chunk_sums, sequence_losses, norms, row_losses;
  DeviceArray<unsigned> arrived;
  DeviceArray<uint8_t> masks;
  DeviceArray<RunOnDevice> run, evaluated;

  State(const StepSettings& s, std::vector<StepRun> runs)
      : settings(s), placed(s, std::move(runs)) {}

  // One for each sequence if there is room; more, which only help to sum and to update, where
  // multiprocessors would be idle.
  int blocks_a_run(int runs) const {
    const int most = std::max(1, room / runs);
    if (given_blocks > 0) return std::min(given_blocks, most);
    const int idle = std::min(plan.multiprocessors / runs, plan.chunks);
    return std::min(std::max(plan.batch, idle), most);
  }

  // The runs first … last-1 of this launch, to train.
  void set_runs(int first, int last, const std::vector<Epoch>& epochs) {
    const PlacedRuns::Part& data = placed.part(Split::train);
    std::vector<RunOnDevice> to;
    for (int r = first; r < last; ++r) {
      const size_t at = size_t(r) * placed.stride(), i = size_t(r);
      const auto piece = [&](float* of_all) { return of_all ? of_all + at : nullptr; };
      const Epoch& epoch = epochs[i];
      to.push_back({piece(placed.values()), piece(placed.gradients()), piece(placed.m()),
                    piece(placed.v()), piece(placed.rate_factors()), data.tokens[i], data.labels[i],
                    placed.order() + i * size_t(data.rows), placed.seed(r), epoch.steps_before,
                    float(epoch.rate), epoch.rate, settings.clip});
    }
    streams.upload(run.data(), to.data(), to.size() * sizeof(RunOnDevice));
    plan.runs = last - first, plan.rows = data.rows, plan.run = run.data();
  }
  // All runs as the snapshot has them, to evaluate.
  void set_snapshot(Split split) {
    const PlacedRuns::Part& data = placed.part(split);
    std::vector<RunOnDevice> to;
    for (size_t r = 0; r < size_t(placed.count()); ++r) {
      RunOnDevice& one = to.emplace_back();
      one.parameters = placed.snapshot() + r * placed.stride();
      one.tokens = data.tokens[r], one.labels = data.labels[r];
    }
    beside.upload(evaluated.data(), to.data(), to.size() * sizeof(RunOnDevice));
    evaluation.runs = placed.count(), evaluation.rows = data.rows;
    evaluation.run = evaluated.data();
  }

  void launch_steps(int first_run, int last_run, const std::vector<Epoch>& epochs, int first_step,
                    int steps, std::vector<StepsMade>& made_steps);
};

// Steps of the runs first_run … last_run-1, for which there is room; adds to what they have made.
void OneLaunch::State::launch_steps(int first_run, int last_run, const std::vector<Epoch>& epochs,
                                    int first_step, int steps, std::vector<StepsMade>& made_steps) {
  set_runs(first_run, last_run, epochs);
  Plan& p = plan;
  const size_t R = size_t(p.runs);
  p.first_step = first_step, p.steps = steps, p.blocks_a_run = blocks_a_run(p.runs);
  if (losses.size() < R * size_t(steps)) {
    losses = DeviceArray<float>(R * size_t(steps));
    norms = DeviceArray<double>(R * size_t(steps));
  }
  p.losses = losses.data(), p.norms = norms.data();
  const size_t mask_bytes_of_all = R * 2 * size_t(p.batch) * size_t(p.mask_stride);
  if (p.blocks_a_run > p.batch && masks.size() < mask_bytes_of_all)
    masks = DeviceArray<uint8_t>(mask_bytes_of_all);
  p.masks = masks.data();
  const std::vector<int> zero(R);
  streams.upload(arrived.data(), zero.data(), R * sizeof(unsigned));
  streams.upload(made.data(), zero.data(), R * sizeof(int));
  streams.upload(gave_up.data(), zero.data(), sizeof(int));
  with_step(settings.precision,
            [&](auto step) { step.train(p, mask_bytes(settings.model), streams.main()); });
  streams.wait();
  if (gave_up.host()[0])
    throw DeviceLost(str("one launch: blocks of the kernel waited for each other longer than ",
                         double(p.patience) / 1e9, " s; is the GPU shared with another program?"));
  const std::vector<int> steps_made = made.host();
  const std::vector<float> all_losses = losses.host();
  const std::vector<double> all_norms = norms.host();
  for (size_t r = 0; r < R; ++r) {
    StepsMade& of_run = made_steps[size_t(first_run) + r];
    const size_t first = r * size_t(steps), count = size_t(std::abs(steps_made[r]));
    of_run.losses.insert(of_run.losses.end(), all_losses.begin() + ptrdiff_t(first),
                         all_losses.begin() + ptrdiff_t(first + count));
    of_run.failed = steps_made[r] < 0;
    if (of_run.failed) of_run.norm = all_norms[first + count - 1];
  }
}

OneLaunch::OneLaunch(const StepSettings& settings, std::vector<StepRun> all) {
  const ModelSettings& m = settings.model;
  const int batch = settings.batch, runs = int(all.size());
  check_settings(m);
  if (batch < 1 || runs < 1) fail_input("one launch: batch ", batch, ", ", runs, " runs");
  if (const std::string problem = one_launch_problem(m, batch); !problem.empty())
    fail_input("one launch: not for this model: ", problem);
  if (const std::string problem = tensor_core_problem();
      settings.precision != Precision::fp32 && !problem.empty())
    fail_input("--precision ", name_of(settings.precision), ": ", problem);
  state_ = std::make_unique<State>(settings, std::move(all));
  State& s = *state_;
  const auto own = [&](int of_device) { return std::max(1, int(of_device * settings.share)); };
  s.room = own(with_step(settings.precision, [&](auto step) {
    return step.training_blocks_at_once(m.length, mask_bytes(m));
  }));
  Plan& p = s.plan;
  p.multiprocessors = own(device().multiprocessors);
  p.length = m.length, p.vocabulary = m.vocabulary, p.classes = m.classes, p.blocks = m.blocks;
  p.batch = batch, p.pattern = m.attention.pattern, p.k = m.attention.k;
  p.nnz = count_nnz(m.attention, m.length);
  p.nnz_a_row = is_positional(m.attention.pattern) ? 0 : p.nnz / m.length;
  p.activation = m.activation, p.optimizer = settings.optimizer;
  p.dropout = dropout_of(m.dropout), p.attention_dropout = dropout_of(m.attention.dropout);
  p.first_epsilon = float(m.first_layer_norm_epsilon), p.epsilon = float(m.layer_norm_epsilon);
  p.score_scale = float(m.attention.score_scale) / std::sqrt(float(width));
  p.classifier = m.vocabulary * width + 6 * m.blocks * linear;
  p.parameters = int(parameter_floats(m)), p.padded = int(s.placed.stride());
  p.chunks = (p.padded + chunk - 1) / chunk;
  p.mask_stride = (mask_bytes(m) + 15) / 16 * 16;
  p.attention_mask_bytes = attention_mask_bytes(m);
  p.kept_layout = layout_of(m.length);
  p.patience = 30'000'000'000, p.absent = -1;

  std::vector<int> begin;
  s.keys = DeviceArray<unsigned long long>(key_bits(m.attention, m.length, begin));
  s.begin = DeviceArray<int>(begin);
  const size_t R = size_t(runs), B = size_t(batch);
  // A block keeps the activations of the sequence it is at.
  s.kept = DeviceArray<float>(size_t(std::max(s.room, runs)) * size_t(m.blocks) *
                              size_t(p.kept_layout.floats));
  s.partials = DeviceArray<float>(R * B * size_t(p.padded));
  s.chunk_sums = DeviceArray<double>(R * size_t(p.chunks));
  s.sequence_losses = DeviceArray<double>(R * B);
  s.arrived = DeviceArray<unsigned>(R);
  s.made = DeviceArray<int>(R);
  s.gave_up = DeviceArray<int>(1);
  s.run = DeviceArray<RunOnDevice>(R), s.evaluated = DeviceArray<RunOnDevice>(R);
  p.positions = s.placed.positions(), p.entry_begin = s.begin.data();
  p.positional_keys = s.keys.data(), p.kept = s.kept.data(), p.partials = s.partials.data();
  p.chunk_sums = s.chunk_sums.data(), p.sequence_losses = s.sequence_losses.data();
  p.arrived = s.arrived.data(), p.made = s.made.data(), p.gave_up = s.gave_up.data();

  const int rows = std::max(s.placed.part(Split::train).rows, s.placed.part(Split::held_out).rows);
  s.row_losses = DeviceArray<double>(R * size_t(rows));
  s.row_right = DeviceArray<int>(R * size_t(rows));
  s.evaluation = p;
  s.evaluation.row_losses = s.row_losses.data(), s.evaluation.row_right = s.row_right.data();
}

OneLaunch::~OneLaunch() = default;

void OneLaunch::load(int run, const Model<float>& model, const Optimizer<float>& optimizer) {
  state_->placed.load(run, model, optimizer);
}

void OneLaunch::store(int run, Model<float>& model, Optimizer<float>& optimizer) const {
  state_->placed.store(run, model, optimizer);
}

void OneLaunch::set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) {
  state_->placed.set_plane(centre, X, Y);
}
void OneLaunch::move_to(const std::vector<PlanePoint>& points) {
  state_->placed.move_to(points);
}

std::vector<StepsMade> OneLaunch::train(const std::vector<Epoch>& epochs, int first, int count,
                                        const std::atomic<bool>& stop) {
  State& s = *state_;
  const int runs = s.placed.count(), rows = s.placed.part(Split::train).rows;
  if (first < 0 || count < 1 || (first + count - 1) * s.plan.batch >= rows)
    fail_input("one launch: steps ", first, " to ", first + count - 1, " of ", rows,
               " rows in batches of ", s.plan.batch);
  if (epochs.size() != size_t(runs)) fail_input(epochs.size(), " epochs for ", runs, " runs");
  s.placed.send(epochs);
  std::vector<StepsMade> made(epochs.size());
  for (int step = first; step < first + count && !stop.load(); step += steps_a_launch) {
    const int steps = std::min(steps_a_launch, first + count - step);
    // Runs that have failed make no more; those that the device has room for go together.
    for (int r = 0; r < runs;) {
      int last = r;
      while (last < runs && last - r < s.room && !made[size_t(last)].failed) ++last;
      if (last > r) s.launch_steps(r, last, epochs, step, steps, made);
      r = std::max(last, r + 1);
    }
  }
  return made;
}

void OneLaunch::take_snapshot() {
  State& s = *state_;
  s.streams.copy(s.placed.snapshot(), s.placed.values(), s.placed.value_bytes());
  s.streams.wait();
}

std::optional<std::vector<Evaluation>> OneLaunch::evaluate_snapshot(Split split,
                                                                    const std::atomic<bool>& stop) {
  if (stop.load()) return std::nullopt;
  State& s = *state_;
  use_device(s.device_number);
  s.set_snapshot(split);
  const Plan& p = s.evaluation;
  with_step(s.settings.precision, [&](auto step) { step.evaluate(p, s.beside.main()); });
  const size_t rows = size_t(p.rows), n = rows * size_t(p.runs);
  std::vector<double> losses(n);
  std::vector<int> right(n);
  s.beside.download(losses.data(), p.row_losses, n * sizeof(double));
  s.beside.download(right.data(), p.row_right, n * sizeof(int));
  std::vector<Evaluation> results;
  for (size_t e = 0; e < n;) {
    double loss = 0;
    int count = 0;
    for (const size_t end = e + rows; e < end; ++e) loss += losses[e], count += right[e];
    results.push_back({loss / double(rows), 100.0 * count / double(rows)});
  }
  return results;
}

// A step of SGD at rate 0, which leaves the gradient and changes no weight.
std::vector<Gradients> OneLaunch::gradients(const std::vector<Epoch>& epochs, int step) {
  State& s = *state_;
  std::vector<Epoch> still = epochs;
  for (Epoch& epoch : still) epoch.rate = 0;
  s.plan.optimizer = OptimizerKind::sgd;
  const std::vector<StepsMade> made = train(still, step, 1, std::atomic<bool>{false});
  s.plan.optimizer = s.settings.optimizer;
  std::vector<Gradients> all;
  for (int r = 0; r < s.placed.count(); ++r) {
    const std::vector<float>& losses = made[size_t(r)].losses;
    all.push_back({losses.empty() ? NAN : losses.back(), {}, s.placed.gradients_of(r)});
  }
  return all;
}

std::vector<AttentionInputs> OneLaunch::attention_inputs(int, Split, int, int) {
  fail_input("one launch: queries and keys stay in the kernel; use the form 'off' of a step");
}

void OneLaunch::set_patience(double seconds) {
  state_->plan.patience = static_cast<long long>(seconds * 1e9);
}
void OneLaunch::set_blocks_a_run(int blocks) {
  state_->given_blocks = blocks;
}
void OneLaunch::leave_out_a_block(bool out) {
  state_->plan.absent = out ? 0 : -1;
}
int OneLaunch::blocks_a_run() const {
  return state_->blocks_a_run(std::min(state_->placed.count(), state_->room));
}

}  // namespace focus::gpu
