#include "analysis/surface.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "analysis/only_rows.h"
#include "rng.h"
#include "train/checkpoint.h"
#include "train/cpu_stepper.h"

namespace focus {

Direction draw_direction(const Model<float>& model, uint64_t seed, uint32_t which) {
  Direction direction;
  for (const Parameter<float>& p : model.parameters()) {
    Rng rng(seed, Stream::analysis, uint32_t(direction.size()), which);
    std::vector<double>& tensor = direction.emplace_back(p.value.size());
    for (double& x : tensor) x = rng.normal();
  }
  return direction;
}

void rescale(Direction& direction, const Model<float>& model) {
  for (size_t p = 0; p < direction.size(); ++p) {
    const std::vector<float>& weights = model.parameters()[p].value;
    //@ gap 13 rescale
    double own = 0, wanted = 0;
    for (double x : direction[p]) own += x * x;
    for (float w : weights) wanted += double(w) * double(w);
    for (double& x : direction[p]) x *= std::sqrt(wanted / own);
    //@ end
  }
}

Direction read_direction(const Safetensors& file, const Model<float>& model) {
  Direction direction;
  std::set<std::string> known;
  for (const Parameter<float>& p : model.parameters()) {
    file.require(p.name, shape64(p.shape), {DType::F32, DType::F64});
    file.require_finite(p.name, "a direction is finite");
    direction.push_back(file.values<double>(p.name));
    known.insert(p.name);
  }
  for (const StoredTensor& tensor : file.tensors())
    if (!known.contains(tensor.name))
      fail_input(file.file_name(), ": tensor '", tensor.name,
                 "' is no parameter of the checkpoint; a direction holds its parameters only");
  return direction;
}

double norm_of(const Model<float>& model) {
  double squares = 0;
  for (const Parameter<float>& p : model.parameters())
    for (const float w : p.value) squares += double(w) * double(w);
  return std::sqrt(squares);
}

double axis_coordinate(int grid, double range, int a) {
  double coordinate = range;
  //@ gap 13 axis
  const int last = grid - 1;
  coordinate = -range + 2 * range * a / last;
  if (a == last) coordinate = range;  // whatever rounding did
  //@ end
  return coordinate;
}

size_t Surface::done() const {
  return size_t(std::count_if(points.begin(), points.end(), [](const auto& p) { return bool(p); }));
}

Evaluators Evaluators::on_cpu(const ModelSettings& model, const PaddedData& data, int threads) {
  Evaluators e;
  const std::shared_ptr<const RunData> rows = only_rows(data);
  for (int t = 0; t < threads; ++t) {
    Tape<float>& tape = e.tapes_.emplace_back(e.workers_.emplace_back(1));
    const std::vector<StepRun> run{{0, rows}};
    e.steppers_.push_back(std::make_unique<CpuStepper>(tape, StepSettings{.model = model}, run));
  }
  return e;
}

Evaluators Evaluators::on_device(Device& device, const ModelSettings& model, const PaddedData& data,
                                 int points, Precision precision) {
  Evaluators e;
  e.points_ = points;
  const std::vector<StepRun> runs(size_t(points), {0, only_rows(data)});
  const StepSettings settings{.model = model,
                              .batch = 1,  // nothing is trained
                              .precision = precision,
                              .form = "off"};  // the list of kernels, recorded
  if (const std::string problem = device.problem(settings); !problem.empty())
    fail_input("precision ", name_of(precision), ": ", problem);
  e.steppers_.push_back(device.make_stepper(settings, runs));
  return e;
}

bool fill_surface(Surface& surface, const Model<float>& centre, const Direction& X,
                  const Direction& Y, const Evaluators& evaluators, const std::atomic<bool>& stop,
                  const std::function<void()>& after) {
  std::vector<size_t> missing;
  for (size_t i = 0; i < surface.points.size(); ++i)
    if (!surface.points[i]) missing.push_back(i);

  std::mutex mutex;  // guards what follows, and the surface
  size_t next = 0;
  std::exception_ptr error;
  const auto work = [&](Stepper& stepper) {
    stepper.set_plane(centre, X, Y);
    while (true) {
      std::vector<size_t> taken;
      {
        const std::lock_guard lock(mutex);
        while (!error && next < missing.size() && int(taken.size()) < evaluators.points_at_once())
          taken.push_back(missing[next++]);
      }
      if (taken.empty() || stop) return;
      std::vector<PlanePoint> points;
      for (const size_t i : taken) {
        const auto coordinate = [&](size_t a) {
          return axis_coordinate(surface.grid, surface.range, int(a));
        };
        points.push_back(
            {coordinate(i / size_t(surface.grid)), coordinate(i % size_t(surface.grid))});
      }
      // A last call with fewer points than runs evaluates its last point several times.
      points.resize(size_t(evaluators.points_at_once()), points.back());
      stepper.move_to(points);
      const auto results = stepper.evaluate(Split::train, stop);
      if (!results) return;
      const std::lock_guard lock(mutex);
      for (size_t t = 0; t < taken.size(); ++t) surface.points[taken[t]] = (*results)[t];
      after();
    }
  };
  const auto guarded = [&](Stepper& stepper) {
    try {
      work(stepper);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (size_t s = 1; s < evaluators.steppers().size(); ++s)
    threads.emplace_back(guarded, std::ref(*evaluators.steppers()[s]));
  guarded(*evaluators.steppers()[0]);
  for (std::thread& t : threads) t.join();
  if (error) std::rethrow_exception(error);
  return surface.done() == surface.points.size();
}

}  // namespace focus
