#include "analysis/sharpness.h"

#include <algorithm>
#include <cmath>

#include "ops/cross_entropy.h"
#include "report/statistics.h"

namespace focus {

Sharpness measure_sharpness(Model<float>& model, const int* tokens, const int* labels, int B,
                            Workers& workers) {
  std::vector<double> dispersions, entropies, sensitivities;
  visit_attention_scores<float>(model, tokens, B, workers, [&](const HeadScores& head) {
    for (const QueryStatistics& q : query_statistics(head, model.settings().attention)) {
      dispersions.push_back(q.dispersion);
      entropies.push_back(q.entropy), sensitivities.push_back(q.sensitivity);
    }
  });
  Sharpness s{};
  s.dispersion = median(std::move(dispersions));
  s.entropy = mean(entropies), s.sensitivity = mean(sensitivities);

  Tape<float> tape(workers);
  tape.reset(true);
  model.zero_gradients();
  const Tensor<float> loss = cross_entropy(tape, model.forward(tape, tokens, B), labels);
  s.loss = double(loss.data[0]);
  tape.backward(loss);
  const auto squares = [](const Parameter<float>& p) {
    double sum = 0;
    for (float g : p.gradient_value) sum += double(g) * double(g);
    return sum;
  };
  double all = 0, qk = 0;
  for (const Parameter<float>& p : model.parameters()) all += squares(p);
  for (const Parameter<float>* p : model.queries_and_keys()) qk += squares(*p);
  s.qk_gradient = std::sqrt(qk), s.other_gradient = std::sqrt(all - qk);
  return s;
}

}  // namespace focus
