// Measured statistics against those of tests/golden/theory.json.
#pragma once

#include <cmath>
#include <string>

#include "analysis/stability.h"
#include "error.h"
#include "theory_golden.h"

namespace focus::test {

// What is measured on a golden model's rows, in double.
inline Stability measured(const std::string& name, int threads = 1) {
  GoldenModel<double> golden(name);
  Workers workers(threads);
  const std::atomic<bool> stop{false};
  return measure_stability(golden.model, golden.data, golden.data.rows, workers, stop).value();
}

// How far numbers may be off: a share of the wanted one, and so much beside it.
struct Limits {
  double share, beside;  // of percentiles
  double norm;           // share, of the norms
};
// The reference computes in double as we do, so what is left is the float32 in which values are
// kept.
inline constexpr Limits in_double{1e-6, 1e-6, 1e-7};

// "" or the first percentile that is off.
inline std::string off(const std::string& what, const nlohmann::json& wanted,
                       const std::optional<Percentiles>& got, const Limits& limits) {
  if (wanted.is_null() != !got) return what + (got ? " is there" : " is missing");
  if (!got) return "";
  for (int point : percentile_points) {
    const double w = wanted.at(std::to_string(point)), g = percentile(*got, point);
    if (!(std::abs(g - w) <= limits.share * std::abs(w) + limits.beside))
      return str(what, ", percentile ", point, ": ", g, ", wanted ", w);
  }
  return "";
}

inline std::string difference(const nlohmann::json& wanted, const Statistics& got,
                              const Limits& limits) {
  const auto maybe = [&](const char* name) {
    return wanted.contains(name) ? wanted[name] : nlohmann::json();
  };
  std::string text = off("delta_s", maybe("delta_s"), got.dispersion, limits) +
                     off("sensitivity", maybe("sensitivity"), got.sensitivity, limits) +
                     off("delta_h", maybe("delta_h"), got.kept_dispersion, limits) +
                     off("Delta_h", maybe("Delta_h"), got.separation, limits) +
                     off("beta", maybe("beta"), got.key_count, {1e-12, 0, 0});
  const auto number = [&](const char* name, double g) {
    const double w = wanted.at(name);
    if (!(std::abs(g - w) <= limits.norm * w)) text += str(" ", name, ": ", g, ", wanted ", w);
  };
  number("Upsilon", got.value_norm), number("Gamma", got.score_norm);
  number("B", got.mlp_norm), number("Xi", got.largest_token);
  return text;
}

}  // namespace focus::test
