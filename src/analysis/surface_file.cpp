#include "analysis/surface_file.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "files/atomic_file.h"
#include "train/checkpoint.h"

namespace focus {

namespace {

constexpr const char* first_line = "focus surface, partial 1";

std::string line_of(size_t surface, size_t point, const Evaluation& e) {
  char line[120];
  std::snprintf(line, sizeof line, "%zu %zu %.17g %.17g\n", surface, point, e.loss, e.accuracy);
  return line;
}

class Hash {  // FNV-1a
 public:
  template <class Numbers>
  void add(const Numbers& numbers) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(numbers.data());
    for (size_t i = 0; i < numbers.size() * sizeof numbers[0]; ++i)
      hash_ = (hash_ ^ bytes[i]) * 0x100000001b3u;
  }
  std::string text() const {
    char text[20];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_));
    return text;
  }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace

void save_partial(const std::filesystem::path& path, const std::string& what,
                  const std::vector<Surface>& surfaces) {
  std::string text = str(first_line, "\n", what, "\n");
  size_t lines = 0;
  for (size_t s = 0; s < surfaces.size(); ++s)
    for (size_t p = 0; p < surfaces[s].points.size(); ++p)
      if (const auto& point = surfaces[s].points[p]) text += line_of(s, p, *point), ++lines;
  write_file_atomically(path, text + str("end ", lines, "\n"));
}

void load_partial(const std::filesystem::path& path, const std::string& what,
                  std::vector<Surface>& surfaces) {
  const std::string advice = "; remove it to begin anew";
  std::istringstream lines(read_file(path, size_t{1} << 32));
  std::string line;
  if (!std::getline(lines, line) || line != first_line)
    fail_input(path.string(), ": not the partial file of a surface", advice);
  if (!std::getline(lines, line) || line != what)
    fail_input(path.string(),
               ": begun with other checkpoints, data, directions or settings; give those again "
               "to go on, or another --out",
               advice);
  for (size_t read = 0; std::getline(lines, line); ++read) {
    if (line == str("end ", read)) {
      if (std::getline(lines, line)) break;
      return;
    }
    size_t surface = 0, point = 0;
    Evaluation e;
    if (std::sscanf(line.c_str(), "%zu %zu %lf %lf", &surface, &point, &e.loss, &e.accuracy) != 4 ||
        surface >= surfaces.size() || point >= surfaces[surface].points.size() ||
        surfaces[surface].points[point] || line_of(surface, point, e) != line + "\n")
      fail_input(path.string(), ", line ", read + 3, ": no point of this surface", advice);
    surfaces[surface].points[point] = e;
  }
  fail_input(path.string(), ": cut short, its last line is missing", advice);
}

std::string surface_json(const std::vector<Surface>& surfaces, const std::vector<Centre>& centres,
                         int samples) {
  using Json = nlohmann::ordered_json;
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(); };
  Json all = Json::array();
  for (size_t s = 0; s < surfaces.size(); ++s) {
    const Surface& surface = surfaces[s];
    Json axis = Json::array(), losses = Json::array(), accuracies = Json::array();
    for (int a = 0; a < surface.grid; ++a) {
      axis.push_back(axis_coordinate(surface.grid, surface.range, a));
      Json loss_row = Json::array(), accuracy_row = Json::array();
      for (int b = 0; b < surface.grid; ++b) {
        const auto& point = surface.points[size_t(a) * size_t(surface.grid) + size_t(b)];
        loss_row.push_back(number(point->loss)), accuracy_row.push_back(number(point->accuracy));
      }
      losses.push_back(loss_row), accuracies.push_back(accuracy_row);
    }
    all.push_back({{"checkpoint", centres[s].checkpoint},
                   {"attention", centres[s].attention},
                   {"norm", centres[s].norm},
                   {"grid", surface.grid},
                   {"range", surface.range},
                   {"samples", samples},
                   {"axis", axis},
                   {"losses", losses},
                   {"accuracies", accuracies}});
  }
  return (all.size() == 1 ? all[0] : all)
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

std::string fingerprint(const Model<float>& model, const Direction& X, const Direction& Y) {
  Hash hash;
  for (size_t p = 0; p < X.size(); ++p) {
    hash.add(model.parameters()[p].value);
    hash.add(X[p]), hash.add(Y[p]);
  }
  return hash.text();
}

std::string fingerprint(const PaddedData& data) {
  Hash hash;
  hash.add(std::vector<uint8_t>(data.tokens.begin(), data.tokens.end()));  // tasks' ids are bytes
  hash.add(data.labels);
  return hash.text();
}

std::string fingerprint(const ModelSettings& settings) {
  Safetensors file;
  write_model_settings(file, settings);
  Hash hash;
  for (const auto& [key, text] : file.metadata) hash.add(key + "=" + text + "\n");
  return hash.text();
}

}  // namespace focus
