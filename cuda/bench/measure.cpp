#include "cuda/bench/measure.h"

#include <algorithm>
#include <cmath>

#include "attention/attention.h"
#include "error.h"
#include "report/statistics.h"
#include "rng.h"
#include "tensor/tape.h"

namespace focus::gpu {

namespace {

size_t numbers_of(const BenchSize& s) {
  return size_t(s.B) * size_t(s.H) * size_t(s.T) * size_t(s.D);
}

// `exact`: quarters, whose products sum without rounding in float32, so that the choice of keys
// does not depend on the order of summation.
std::vector<float> random_floats(size_t n, uint32_t which, bool exact) {
  Rng rng(4242, Stream::analysis, which);
  std::vector<float> x(n);
  // Repeating a long stretch saves the host's time; heads still differ.
  const size_t stretch = std::min(n, size_t{1000003});
  for (size_t i = 0; i < stretch; ++i)
    x[i] = exact ? float(rng.between(-4, 4)) / 4.f : float(rng.normal());
  for (size_t i = stretch; i < n; ++i) x[i] = x[i - stretch];
  return x;
}

AttentionSettings settings_of(Pattern pattern, const BenchSize& s) {
  return {.pattern = pattern,
          .k = pattern == Pattern::full ? 0 : s.kept,
          .global_tokens = is_positional(pattern) ? s.global_tokens : 0};
}

// ‖got − wanted‖ / ‖wanted‖ of the first head.
double relative_error(const DeviceArray<float>& got, const std::vector<double>& wanted) {
  std::vector<float> head(wanted.size());
  copy_to_host(head.data(), got.data(), head.size() * sizeof(float));
  double error = 0, size = 0;
  for (size_t i = 0; i < head.size(); ++i) {
    error += (double(head[i]) - wanted[i]) * (double(head[i]) - wanted[i]);
    size += wanted[i] * wanted[i];
  }
  return std::sqrt(error / (size > 0 ? size : 1));
}

}  // namespace

void need_device(const char* command) {
  if (emulated())
    fail_input(command,
               " times a GPU, and this program was built without nvcc: the kernels run on ",
               "the CPU in make test");
  if (const std::string problem = device_problem(); !problem.empty())
    fail_input(command, " needs a GPU: ", problem);
}

std::string device_text() {
  const DeviceInfo& d = device();
  return str(d.name, ", ", d.multiprocessors, " multiprocessors, compute ", d.compute / 10, ".",
             d.compute % 10, ", clock up to ", d.clock_khz / 1000, " MHz, driver ", d.driver / 1000,
             ".", d.driver % 1000 / 10, ", CUDA ", d.runtime / 1000, ".", d.runtime % 1000 / 10);
}

Work work_of(Pattern pattern, Pass pass, const BenchSize& s) {
  const double batch_heads = double(s.B) * s.H, D = s.D, T = s.T;
  const double dense = batch_heads * T * T * D * (pass == Pass::forward ? 4 : 10);
  const double nnz =
      pattern == Pattern::full ? T * T : double(count_nnz(settings_of(pattern, s), s.T));
  const double tensor = 4 * double(numbers_of(s));
  Work w{batch_heads * nnz * D * (pass == Pass::forward ? 4 : 10), dense,
         tensor * (pass == Pass::forward ? 4 : 8)};
  if (pattern == Pattern::topk) {  // all scores forward; nothing is recomputed backward
    const double lists = batch_heads * nnz * 8;
    w.useful = batch_heads * D * (pass == Pass::forward ? 2 * T * T + 2 * nnz : 8 * nnz);
    w.bytes = tensor * (pass == Pass::forward ? 4 : 7) + lists;
  }
  return w;
}

Roof measure_roof() {
  DeviceArray<float> from(size_t{1} << 28), to(size_t{1} << 28);
  fill_bytes(from.data(), 1, from.size() * sizeof(float));
  Timer timer;
  double best = HUGE_VAL;
  for (int i = 0; i < 10; ++i) {
    timer.start();
    copy_on_device(to.data(), from.data(), from.size() * sizeof(float));
    best = std::min(best, timer.stop());
  }
  return {2 * device().multiply_adds, 2e3 * double(from.size() * sizeof(float)) / best};
}

AttentionBench::AttentionBench(Pattern pattern, const BenchSize& s)
    : pattern_(pattern),
      size_(s),
      q_(numbers_of(s)),
      k_(q_.size()),
      v_(q_.size()),
      d_o_(q_.size()),
      o_(q_.size()),
      dq_(q_.size()),
      dk_(q_.size()),
      dv_(q_.size()),
      lse_(size_t(s.B) * size_t(s.H) * size_t(s.T)),
      p_(lse_.size() * size_t(s.kept)),
      flush_(device().l2 / 2),  // floats: twice the cache
      keys_(p_.size()) {
  const auto view = [&](const DeviceArray<float>& x) {
    return heads_bhtd(x.data(), s.B, s.H, s.T, s.D);
  };
  call_.q = view(q_), call_.k = view(k_), call_.v = view(v_), call_.o = view(o_);
  call_.d_o = view(d_o_), call_.dq = view(dq_), call_.dk = view(dk_), call_.dv = view(dv_);
  call_.lse = lse_.data(), call_.p = p_.data(), call_.keys = keys_.data();
  call_.kept = pattern == Pattern::full ? 0 : s.kept;
  call_.global_tokens = is_positional(pattern) ? s.global_tokens : 0;
  call_.precision = s.precision;
  if (pattern != Pattern::full) return;
  // For the rungs that keep weights, where a training run would let them.
  if (const size_t size = score_floats(call_.q); size <= most_kept_scores) {
    scores_ = DeviceArray<float>(size);
    call_.scores = scores_.data();
  }
  if (s.precision != Precision::fp32 && s.D <= 64) {
    copies_ = DeviceArray<unsigned>(copy_words(call_));
    call_.copies = copies_.data();
  }
  if (s.dropout > 0) {
    const int words = (s.T + 31) / 32;
    std::vector<unsigned> bits(lse_.size() * size_t(words));
    Rng rng(4242, Stream::analysis, 99);
    for (unsigned& word : bits)
      for (int i = 0; i < 32; ++i) word |= unsigned(rng.uniform() >= s.dropout) << i;
    keep_ = DeviceArray<unsigned>(bits);
    kept_ = {keep_.data(), words, float(1 / (1 - s.dropout))};
  }
}

void AttentionBench::set_inputs(uint32_t which, bool exact_scores) {
  DeviceArray<float>* inputs[] = {&q_, &k_, &v_, &d_o_};
  for (uint32_t i = 0; i < 4; ++i)
    inputs[i]->set(random_floats(q_.size(), 10 * which + i, exact_scores && i < 2));
  run(Pass::forward, rung_for(pattern_, Pass::forward, call_));  // what a backward starts from
}

// Reruns the forward if this backward needs another one than the front chose: rung 15 needs rung
// 14's scores, and float32 rungs need float32's sums.
void AttentionBench::forward_for(const Rung& rung) {
  if (!rung.features.after_rung && !kept_.words && size_.precision == Precision::fp32) return;
  Call call = call_;
  call.rung = rung.features.after_rung;
  if (!rung.features.tensor_cores) call.precision = Precision::fp32;
  run(Pass::forward, rung_for(pattern_, Pass::forward, call));
}

void AttentionBench::run(Pass pass, const Rung& rung) {
  call_.rung = rung.number;
  const size_t bytes = rung.workspace(call_);
  if (workspace_.size() * sizeof(float) < bytes) workspace_ = DeviceArray<float>((bytes + 3) / 4);
  call_.workspace = workspace_.data(), call_.workspace_size = workspace_.size() * sizeof(float);
  attention(pattern_, pass, call_);
  call_.rung = 0;
}

// Against the engine in double, on the first head.
double AttentionBench::check(Pass pass, const Rung& rung, uint32_t which) {
  set_inputs(which, true);
  forward_for(rung);
  for (DeviceArray<float>* x : {&dq_, &dk_, &dv_}) x->poison();
  if (pass == Pass::forward) o_.poison();
  run(pass, rung);
  const Shape shape{1, size_.T, size_.D};
  Parameter<double> q("q", shape), k("k", shape), v("v", shape);
  std::vector<float> d_o(shape.size());
  Parameter<double>* parameters[] = {&q, &k, &v};
  const DeviceArray<float>* inputs[] = {&q_, &k_, &v_};
  std::vector<float> head(shape.size());
  for (int i = 0; i < 3; ++i) {
    copy_to_host(head.data(), inputs[i]->data(), head.size() * sizeof(float));
    std::copy(head.begin(), head.end(), parameters[i]->value.begin());
  }
  copy_to_host(d_o.data(), d_o_.data(), d_o.size() * sizeof(float));
  Workers workers(1);
  Tape<double> tape(workers);
  tape.reset(true);
  const Tensor<double> o =
      focus::attention(tape, q.tensor(), k.tensor(), v.tensor(), settings_of(pattern_, size_));
  const std::vector<double> wanted(o.data, o.data + o.size());
  const Tensor<double> sum = tape.make({1});
  *sum.data = 0;
  const float* weights = d_o.data();
  tape.record(sum, [=, &tape] {
    double* to = tape.gradient(o);
    for (size_t i = 0; i < o.size(); ++i) to[i] += double(weights[i]);
  });
  double error = 0;
  if (pass == Pass::forward) {
    error = relative_error(o_, wanted);
  } else {
    tape.backward(sum);
    error = std::max({relative_error(dq_, q.gradient_value), relative_error(dk_, k.gradient_value),
                      relative_error(dv_, v.gradient_value)});
  }
  const double limit = !rung.features.tensor_cores            ? 1e-5
                       : size_.precision == Precision::tf32x3 ? 1e-5
                       : size_.precision == Precision::tf32   ? 1e-3
                                                              : 1e-2;
  if (!(error <= limit))
    fail_run("rung ", rung.number, " (", rung.name, "): relative error ", error, ", limit ", limit);
  return error;
}

double AttentionBench::warm_ms(Pass pass, const Rung& rung, int runs) {
  Timer timer;
  std::vector<double> warm;
  for (int i = 0; i < runs; ++i) {
    timer.start();
    run(pass, rung);
    warm.push_back(timer.stop());
  }
  return median(warm);
}

double AttentionBench::selection_ms(const Rung& rung, int runs) {
  set_inputs(2, false);
  run(Pass::forward, rung);
  const double any_order = warm_ms(Pass::forward, rung, runs);
  // All queries point along the first channel, and so do the first keys, alone and far.
  std::vector<float> q = q_.host(), k = k_.host();
  const size_t D = size_t(size_.D), T = size_t(size_.T);
  for (size_t row = 0; row * D < q.size(); ++row)
    q[row * D] = 4, k[row * D] = row % T < size_t(size_.kept) ? 100.f : 0.f;
  q_.set(q), k_.set(k);
  run(Pass::forward, rung);
  return any_order - warm_ms(Pass::forward, rung, runs);
}

Measurement AttentionBench::measure(Pass pass, const Rung& rung, int runs) {
  Measurement m{};
  m.rung = rung.number;
  m.error = check(pass, rung, 1);
  set_inputs(2, false);
  if (rung.features.dropout) call_.keep = kept_;
  forward_for(rung);
  Timer timer;
  const auto once = [&](bool cold) {
    if (cold) fill_bytes(flush_.data(), 0, flush_.size() * sizeof(float));
    timer.start();
    run(pass, rung);
    return timer.stop();
  };
  for (int i = 0; i < 2; ++i) once(false);
  m.runs = once(false) > 50 ? std::min(runs, 5) : runs;
  std::vector<double> cold;
  for (int i = 0; i < m.runs; ++i) cold.push_back(once(true));
  m.cold = median(cold), m.quartile1 = quantile(cold, 0.25), m.quartile3 = quantile(cold, 0.75);
  m.warm = warm_ms(pass, rung, m.runs);
  call_.keep = {};
  m.error = std::max(m.error, check(pass, rung, 3));
  return m;
}

}  // namespace focus::gpu
