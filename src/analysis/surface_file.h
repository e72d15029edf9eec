// Surfaces as files: the JSON that is the result, and the partial file beside it from which a run
// that was stopped or killed goes on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/surface.h"

namespace focus {

// One line a point that is done: so a reader sees at once where it stands.
//
//   focus surface, partial 1
//   WHAT                           settings, data and fingerprints: one line
//   0 1234 0.6931471805599453 50   surface, point, loss, accuracy
//   end 1
//
// The file is replaced as a whole (files/atomic_file.h), so a kill leaves the old or the new one.
void save_partial(const std::filesystem::path& path, const std::string& what,
                  const std::vector<Surface>& surfaces);
// Puts the points of the file into the surfaces. InputError when it is of something else than
// `what`, is cut short, or holds anything that save_partial does not write.
void load_partial(const std::filesystem::path& path, const std::string& what,
                  std::vector<Surface>& surfaces);

// The weights that a surface lies around.
struct Centre {
  std::string checkpoint, attention;  // a file; "topk(5)"
  double norm = 0;  // ‖θ‖₂: a step on the axis is this times as long in weights
};

// The contract's JSON: {"checkpoint", "attention", "norm", "grid", "range", "samples", "axis",
// "losses", "accuracies"}, losses[a][b] with a along X; of several surfaces a list of these. A loss
// that is not a number is null.
std::string surface_json(const std::vector<Surface>& surfaces, const std::vector<Centre>& centres,
                         int samples);

// Hashes of what decides a surface's points: weights and directions, rows, settings.
std::string fingerprint(const Model<float>& model, const Direction& X, const Direction& Y);
std::string fingerprint(const PaddedData& data);
std::string fingerprint(const ModelSettings& settings);

}  // namespace focus
