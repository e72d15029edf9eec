// focus surface: the loss on a plane through trained weights.
#include <cmath>
#include <deque>
#include <filesystem>
#include <set>

#include "analysis/surface_file.h"
#include "cli/command.h"
#include "cli/loaded.h"
#include "clock.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/folder.h"
#include "report/share_progress.h"
#include "train/interrupt.h"
#include "train/settings.h"

namespace focus {

namespace {

constexpr double seconds_between_saves = 5;
constexpr int points_at_once = 16;  // on a device

struct Options {
  std::vector<std::string> checkpoints, directions;
  std::string data, out, device = "cpu";
  int grid = 0;
  double range = 1;
  uint64_t seed = 11111;  // the authors'; their generator's numbers are others
  bool seed_given = false;
  std::optional<int> samples;
  Precision precision = Precision::fp32;
  int threads = default_threads();
};

// A checkpoint and the plane through it.
struct Plane {
  Loaded<float> centre;
  Direction X, Y;
};

// All checkpoints have the first one's task and shapes, so that directions mean the same in each.
void check_alike(const Loaded<float>& first, const Loaded<float>& other) {
  if (first.task.name != other.task.name)
    fail_input(other.name, ": learnt ", other.task.name, ", ", first.name, " ", first.task.name);
  const auto &p = first.model.parameters(), &q = other.model.parameters();
  if (p.size() != q.size())
    fail_input(other.name, ": has ", q.size(), " tensors, ", first.name, " ", p.size());
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i].shape != q[i].shape)
      fail_input(other.name, ": tensor '", q[i].name, "' is ", q[i].shape.text(), ", in ",
                 first.name, " ", p[i].shape.text());
}

std::deque<Plane> load_planes(const Options& o) {
  std::deque<Plane> planes;
  for (const std::string& name : o.checkpoints) {
    planes.push_back({load_checkpoint<float>(name, WithoutTask::accepted), {}, {}});
    Plane& plane = planes.back();
    check_alike(planes[0].centre, plane.centre);
    const Model<float>& model = plane.centre.model;
    for (const auto& [direction, which] : {std::pair(&plane.X, 0u), std::pair(&plane.Y, 1u)}) {
      if (o.directions.empty()) {
        *direction = draw_direction(model, o.seed, which);
        rescale(*direction, model);
      } else {
        *direction = read_direction(Safetensors::read(o.directions[which]), model);
      }
    }
  }
  return planes;
}

// What decides every point, for the partial file.
std::string description(const Options& o, const std::deque<Plane>& planes, const PaddedData& data) {
  std::string text =
      str("grid=", o.grid, " range=", number_text(o.range), " samples=", data.rows,
          " data=", fingerprint(data), " device=", o.device, " precision=", name_of(o.precision));
  for (const Plane& p : planes)
    text += " weights=" + fingerprint(p.centre.model, p.X, p.Y) + "/" +
            fingerprint(p.centre.model.settings());
  return text;
}

// 5 x 5 points spread over the grid; an odd grid's middle is one of them.
std::vector<size_t> sample_of(int grid) {
  std::set<size_t> points;
  for (int a = 0; a < 5; ++a)
    for (int b = 0; b < 5; ++b)
      points.insert(size_t((2 * a + 1) * grid / 10 * grid + (2 * b + 1) * grid / 10));
  return {points.begin(), points.end()};
}

// In a faster precision: the largest difference of the losses from float32's at some points. Top-k
// may choose other keys.
std::string compared_with_float32(const Plane& plane, const Surface& fast, const PaddedData& data,
                                  Device& device, const std::atomic<bool>& stop) {
  const std::vector<size_t> sample = sample_of(fast.grid);
  Surface exact = fast;
  for (const size_t i : sample) exact.points[i].reset();
  const Evaluators evaluators = Evaluators::on_device(device, plane.centre.model.settings(), data,
                                                      points_at_once, Precision::fp32);
  if (!fill_surface(exact, plane.centre.model, plane.X, plane.Y, evaluators, stop, [] {}))
    return "";
  double absolute = 0, relative = 0;
  for (const size_t i : sample) {
    const double error = std::abs(fast.points[i]->loss - exact.points[i]->loss);
    if (!(error <= absolute)) absolute = error;
    if (!(error / exact.points[i]->loss <= relative)) relative = error / exact.points[i]->loss;
  }
  char numbers[80];
  std::snprintf(numbers, sizeof numbers, "%.1e nats, %.1e of the loss", absolute, relative);
  return str(plane.centre.name, ": at ", sample.size(), " points float32 differs by at most ",
             numbers, "\n");
}

int surface(const Options& o) {
  if (!o.directions.empty() && o.seed_given)
    fail_input("--seed draws directions, and --directions gives them: leave one out");
  check_new_file(o.out);
  std::optional<FileLock> lock;
  if (!o.out.empty()) lock.emplace(o.out);
  const std::unique_ptr<Device> device = open_device(o.device);
  if (!device && o.precision != Precision::fp32)
    fail_input("--precision ", name_of(o.precision), ": only a device has it; add --device cuda");
  const std::deque<Plane> planes = load_planes(o);
  // Rows as long as each model's: a sparse one's are padded to a multiple of k.
  std::vector<PaddedData> data;
  for (const Plane& p : planes) data.push_back(read_rows(p.centre, o.data, o.samples));

  std::vector<Surface> surfaces(planes.size(), Surface(o.grid, o.range));
  const std::string what = description(o, planes, data[0]), partial = o.out + ".partial";
  if (!o.out.empty() && std::filesystem::exists(partial)) load_partial(partial, what, surfaces);
  const auto done = [&] {
    size_t points = 0;
    for (const Surface& s : surfaces) points += s.done();
    return points;
  };
  const size_t all = planes.size() * surfaces[0].points.size(), before = done();
  const std::string per = str(" of ", all, " points");
  if (before > 0) print(str("going on from ", partial, ": ", before, per, " are done\n"));

  const std::atomic<bool>& stop = catch_interrupts();
  const double start = seconds_now();
  {
    ShareProgress progress("surface");
    double saved = seconds_now();
    for (size_t p = 0; p < planes.size(); ++p) {
      const ModelSettings& model = planes[p].centre.model.settings();
      const Evaluators evaluators =
          device ? Evaluators::on_device(*device, model, data[p], points_at_once, o.precision)
                 : Evaluators::on_cpu(model, data[p], o.threads);
      const bool whole = fill_surface(surfaces[p], planes[p].centre.model, planes[p].X, planes[p].Y,
                                      evaluators, stop, [&] {
                                        const double now = seconds_now();
                                        progress.show(double(done()) / double(all));
                                        if (o.out.empty() || now - saved < seconds_between_saves)
                                          return;
                                        save_partial(partial, what, surfaces);
                                        saved = now;
                                      });
      if (whole) continue;
      if (!o.out.empty()) save_partial(partial, what, surfaces);
      std::fprintf(stderr, "interrupted: %zu%s are done%s\n", done(), per.c_str(),
                   o.out.empty() ? "" : "; the same command goes on from there");
      return 130;
    }
  }
  const double seconds = seconds_now() - start;
  std::vector<Centre> centres;
  for (const Plane& p : planes)
    centres.push_back({p.centre.name, attention_of(p.centre), norm_of(p.centre.model)});
  const std::string json = surface_json(surfaces, centres, data[0].rows);
  size_t bad = 0;
  for (const Surface& s : surfaces)
    for (const auto& point : s.points) bad += !std::isfinite(point->loss);
  if (o.out.empty()) {
    print(json);
  } else {
    write_file_atomically(o.out, json, IfThere::refuse);
    std::filesystem::remove(partial);
    char time[40];
    std::snprintf(time, sizeof time, "%.1f", seconds);
    std::string agreement;
    for (size_t p = 0; p < planes.size() && o.precision != Precision::fp32; ++p)
      agreement += compared_with_float32(planes[p], surfaces[p], data[p], *device, stop);
    print(str(agreement, all - before, " points on ", data[0].rows, " rows in ", time, " s, ",
              name_of(o.precision), "\n", o.out, "\n"));
  }
  if (bad > 0) fail_run("the loss is not a finite number at ", bad, per, ": null in the result");
  return 0;
}

}  // namespace

void add_surface_command(CLI::App& focus) {
  const auto [app, o] =
      add_command(focus, "surface", "the loss on a plane through a checkpoint's weights", surface);
  add_texts(app, "--checkpoint", "FILE", o.checkpoints,
            "weights; several of one shape share their directions")
      ->required()
      ->expected(1, 1000);
  add_file(app, "--data", "FILE", o.data, "a data file of the same task")->required();
  add_whole(app, "--grid", o.grid, 2, 4000, "points along each axis")->required()->default_str("");
  add_number(app, "--range", o.range, 1e-6, 1e6, "the axes go from -X to X");
  add_value(app, "--seed", "N", "draws the directions, each tensor as long as the checkpoint's",
            [&o = o](const std::string& text) {
              o.seed = uint64_t(read_whole(text, 0, largest_seed)), o.seed_given = true;
            })
      ->default_str(std::to_string(o.seed));
  add_texts(app, "--directions", "FILE FILE", o.directions,
            "two .safetensors files in place of drawn directions, used as they are")
      ->expected(2);
  add_whole(app, "--samples", o.samples, 1, 10'000'000, "its first N rows (default: all)");
  add_file(app, "--out", "FILE", o.out, "write JSON there (default: print it)");
  add_device(app, o.device);
  add_name(app, "--precision", o.precision, precision_of,
           "of matrix products on a device: fp32, 3xtf32, tf32, bf16");
  add_threads(app, o.threads);
  add_footer(
      app,
      "JSON: losses[a][b] is the mean loss of the rows at weights + x_a X + y_b Y, without "
      "dropout,\n"
      "accuracies[a][b] the percentage that is right, axis the coordinates; beside them "
      "checkpoint, "
      "attention,\n"
      "norm (the weights' 2-norm, all tensors), grid, range and samples. Of several checkpoints a "
      "list.\n"
      "FILE.partial is kept beside --out until the end: after Ctrl-C or a kill the same command\n"
      "goes on from there.\n"
      "Example: focus surface --checkpoint out/full/seed-1/last.safetensors \\\n"
      "           out/topk/seed-1/last.safetensors --data train.tsv --grid 41 --out surface.json");
}

}  // namespace focus
