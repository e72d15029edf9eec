#include <algorithm>
#include <cmath>

#include "attention/pattern.h"
#include "cuda/device/device.h"
#include "cuda/one_launch/arguments.cuh"
#include "cuda/one_launch/kernels.h"
#include "cuda/one_launch/one_launch.h"
#include "error.h"
#include "ops/embedding.h"

namespace focus::gpu {

namespace {

using namespace one_launch;

size_t parameter_floats(const ModelSettings& m) {
  return size_t(m.vocabulary) * width + 6 * size_t(m.blocks) * linear +
         size_t(m.classes) * (width + 1);
}

int attention_mask_bytes(const ModelSettings& m) {
  return (count_entries(m.attention, m.length) + 7) / 8 + 1;  // may start within a byte
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
  std::vector<int> keys(size_t(count_entries(a, length)));
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

size_t padded_parameters(const ModelSettings& m) {
  return (parameter_floats(m) + 3) / 4 * 4;
}

struct OneLaunch::State {
  ModelSettings model;
  OptimizerKind optimizer;
  Precision precision;
  int most_runs, room, given_blocks = 0;
  Plan plan{};
  DeviceArray<float> positions, kept, partials, losses;
  DeviceArray<int> begin, made, gave_up, row_right;
  DeviceArray<unsigned long long> keys;
  DeviceArray<double> chunk_sums, sequence_losses, norms, row_losses;
  DeviceArray<unsigned> arrived;
  DeviceArray<uint8_t> masks;
  DeviceArray<RunOnDevice> run;

  // One for each sequence if there is room; more, which only help to sum and to update, where
  // multiprocessors would be idle.
  int blocks_a_run(int runs) const {
    const int most = std::max(1, room / runs);
    if (given_blocks > 0) return std::min(given_blocks, most);
    const int idle = std::min(device().multiprocessors / runs, plan.chunks);
    return std::min(std::max(plan.batch, idle), most);
  }

  void set_runs(const std::vector<OneLaunchRun>& runs) {
    if (runs.empty() || int(runs.size()) > most_runs)
      fail_input("one launch: ", runs.size(), " runs, made for 1 to ", most_runs);
    std::vector<RunOnDevice> to;
    for (const OneLaunchRun& r : runs) {
      if (r.rows != runs[0].rows || r.rows < 1)
        fail_input("one launch: runs with ", r.rows, " and ", runs[0].rows, " rows");
      to.push_back({r.parameters, r.gradients, r.m, r.v, r.rate_factors, r.tokens, r.labels,
                    r.order, r.seed, r.steps_before, float(r.lr), r.lr, r.clip});
    }
    copy_to_device(run.data(), to.data(), to.size() * sizeof(RunOnDevice));
    plan.runs = int(runs.size()), plan.rows = runs[0].rows, plan.run = run.data();
  }
};

OneLaunch::OneLaunch(const ModelSettings& m, OptimizerKind optimizer, int batch, int runs,
                     Precision precision)
    : state_(std::make_unique<State>()) {
  check_settings(m);
  if (batch < 1 || runs < 1) fail_input("one launch: batch ", batch, ", ", runs, " runs");
  if (const std::string problem = one_launch_problem(m, batch); !problem.empty())
    fail_input("one launch: not for this model: ", problem);
  if (const std::string problem = tensor_core_problem();
      precision != Precision::fp32 && !problem.empty())
    fail_input("--precision ", name_of(precision), ": ", problem);
  State& s = *state_;
  s.model = m, s.optimizer = optimizer, s.precision = precision;
  s.room = with_step(
      precision, [&](auto step) { return step.training_blocks_at_once(m.length, mask_bytes(m)); });
  s.most_runs = runs;
  Plan& p = s.plan;
  p.length = m.length, p.vocabulary = m.vocabulary, p.classes = m.classes, p.blocks = m.blocks;
  p.batch = batch, p.pattern = m.attention.pattern, p.k = m.attention.k;
  p.entries = count_entries(m.attention, m.length);
  p.entries_a_row = is_positional(m.attention.pattern) ? 0 : p.entries / m.length;
  p.activation = m.activation, p.optimizer = optimizer;
  p.dropout = dropout_of(m.dropout), p.attention_dropout = dropout_of(m.attention.dropout);
  p.first_epsilon = float(m.first_layer_norm_epsilon), p.epsilon = float(m.layer_norm_epsilon);
  p.score_scale = float(m.attention.score_scale) / std::sqrt(float(width));
  p.classifier = m.vocabulary * width + 6 * m.blocks * linear;
  p.parameters = int(parameter_floats(m)), p.padded = int(padded_parameters(m));
  p.chunks = (p.padded + chunk - 1) / chunk;
  p.mask_stride = (mask_bytes(m) + 15) / 16 * 16;
  p.attention_mask_bytes = attention_mask_bytes(m);
  p.kept_layout = layout_of(m.length);
  p.patience = 30'000'000'000, p.absent = -1;

  std::vector<int> begin;
  s.keys = DeviceArray<unsigned long long>(key_bits(m.attention, m.length, begin));
  s.begin = DeviceArray<int>(begin);
  std::vector<float> positions(size_t(m.length) * width);
  fill_positions(positions.data(), m.length, width);
  s.positions = DeviceArray<float>(positions);
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
  s.run = DeviceArray<RunOnDevice>(R);
  p.positions = s.positions.data(), p.entry_begin = s.begin.data();
  p.positional_keys = s.keys.data(), p.kept = s.kept.data(), p.partials = s.partials.data();
  p.chunk_sums = s.chunk_sums.data(), p.sequence_losses = s.sequence_losses.data();
  p.arrived = s.arrived.data(), p.made = s.made.data(), p.gave_up = s.gave_up.data();
}

OneLaunch::~OneLaunch() = default;

void OneLaunch::set_precision(Precision precision) {
  const State& s = *state_;
  if (precision != s.precision)
    state_ =
        std::move(OneLaunch(s.model, s.optimizer, s.plan.batch, s.most_runs, precision).state_);
}

std::vector<OneLaunchSteps> OneLaunch::train(const std::vector<OneLaunchRun>& runs, int first_step,
                                             int steps) {
  State& s = *state_;
  s.set_runs(runs);
  Plan& p = s.plan;
  if (first_step < 0 || steps < 1 || (first_step + steps - 1) * p.batch >= p.rows)
    fail_input("one launch: steps ", first_step, " to ", first_step + steps - 1, " of ", p.rows,
               " rows in batches of ", p.batch);
  // More runs than the device has room for take turns.
  std::vector<OneLaunchSteps> results;
  if (int(runs.size()) > s.room) {
    for (size_t first = 0; first < runs.size(); first += size_t(s.room)) {
      const size_t end = std::min(runs.size(), first + size_t(s.room));
      for (OneLaunchSteps& one : train(
               {runs.begin() + ptrdiff_t(first), runs.begin() + ptrdiff_t(end)}, first_step, steps))
        results.push_back(std::move(one));
    }
    return results;
  }
  const size_t R = runs.size();
  p.first_step = first_step, p.steps = steps, p.blocks_a_run = s.blocks_a_run(p.runs);
  if (s.losses.size() < R * size_t(steps)) {
    s.losses = DeviceArray<float>(R * size_t(steps));
    s.norms = DeviceArray<double>(R * size_t(steps));
  }
  p.losses = s.losses.data(), p.norms = s.norms.data();
  const size_t masks = R * 2 * size_t(p.batch) * size_t(p.mask_stride);
  if (p.blocks_a_run > p.batch && s.masks.size() < masks) s.masks = DeviceArray<uint8_t>(masks);
  p.masks = s.masks.data();
  fill_bytes(s.arrived.data(), 0, R * sizeof(unsigned));
  fill_bytes(s.made.data(), 0, R * sizeof(int));
  fill_bytes(s.gave_up.data(), 0, sizeof(int));
  with_step(s.precision, [&](auto step) { step.train(p, mask_bytes(s.model)); });
  synchronize();
  if (s.gave_up.host()[0])
    fail_run("one launch: blocks of the kernel waited for each other longer than ",
             double(p.patience) / 1e9, " s; is the GPU shared with another program?");
  const std::vector<int> made = s.made.host();
  const std::vector<float> losses = s.losses.host();
  const std::vector<double> norms = s.norms.host();
  for (size_t r = 0; r < R; ++r) {
    const ptrdiff_t first = ptrdiff_t(r) * steps, end = first + std::abs(made[r]);
    results.push_back({{losses.begin() + first, losses.begin() + end},
                       {norms.begin() + first, norms.begin() + end},
                       made[r] < 0});
  }
  return results;
}

std::vector<Evaluation> OneLaunch::evaluate(const std::vector<OneLaunchRun>& runs) {
  State& s = *state_;
  s.set_runs(runs);
  const size_t n = runs.size() * size_t(s.plan.rows);
  if (s.row_losses.size() < n) {
    s.row_losses = DeviceArray<double>(n);
    s.row_right = DeviceArray<int>(n);
  }
  s.plan.row_losses = s.row_losses.data(), s.plan.row_right = s.row_right.data();
  with_step(s.precision, [&](auto step) { step.evaluate(s.plan); });
  const std::vector<double> losses = s.row_losses.host();
  const std::vector<int> right = s.row_right.host();
  std::vector<Evaluation> results;
  for (size_t e = 0; e < n;) {
    double loss = 0;
    int count = 0;
    for (const size_t end = e + size_t(s.plan.rows); e < end; ++e)
      loss += losses[e], count += right[e];
    results.push_back({loss / s.plan.rows, 100.0 * count / s.plan.rows});
  }
  return results;
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
int OneLaunch::blocks_a_run(int runs) const {
  return state_->blocks_a_run(runs);
}

}  // namespace focus::gpu
