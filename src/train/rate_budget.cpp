#include "train/rate_budget.h"

#include <cmath>

namespace focus {

double sum_of_rates(double lr, double decay, double epochs) {
  //@ gap 12 rate-budget
  if (decay == 1) return lr * epochs;
  const double part = 1 - std::pow(decay, epochs);
  return lr * part / (1 - decay);
  //@ end
}

}  // namespace focus
