#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace focus {

OptimizerKind optimizer_of(std::string_view name) {
  if (name == "sgd") return OptimizerKind::sgd;
  if (name == "adam") return OptimizerKind::adam;
  fail_input("optimizer '", name, "' is unknown: use sgd or adam");
}

const char* name_of(OptimizerKind kind) {
  return kind == OptimizerKind::sgd ? "sgd" : "adam";
}

template <class T>
double gradient_norm(const std::deque<Parameter<T>>& parameters) {
  double total = 0;
  for (const Parameter<T>& p : parameters) {
    // Eight sums side by side: one alone would wait for each addition. Their order is fixed.
    double part[8] = {};
    const size_t n = p.gradient_value.size();
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
      for (size_t l = 0; l < 8; ++l) {
        const double g = double(p.gradient_value[i + l]);
        part[l] += g * g;
      }
    for (; i < n; ++i) part[0] += double(p.gradient_value[i]) * double(p.gradient_value[i]);
    for (double x : part) total += x;
  }
  return std::sqrt(total);
}

double clip_factor(double norm, double clip) {
  return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
}

double decayed_rate(double lr, double decay, int epochs_done) {
  return lr * std::pow(decay, epochs_done);
}

//@ from 12
double sum_of_rates(double lr, double decay, double epochs) {
  //@ begin 12 rate-budget points=5
  //@ plan The geometric series lr (1 + decay + … + decay^(epochs-1)) in closed form. At decay = 1
  //@ plan the closed form is 0/0: there it is lr times epochs.
  //@ hint 1 Multiply the sum by (1 - decay): what is left of it?
  //@ hint 2 README, "How far a decaying rate can go".
  //@ hint 3 if decay is 1: return lr times epochs
  //@ hint 3 part = 1 - decay^epochs
  //@ hint 3 return lr times part, divided by 1 - decay
  //@ notice However long one trains, a decay of 0.95 never goes further than 20 epochs at the first
  //@ notice rate. What needs more than that is not reached, only approached.
  //@ mutant budget-no-decay: at a decay of 1 the closed form, which is 0/0
  if (decay == 1) return lr * epochs;
  //@ mutant budget-one-more: one epoch too many
  //~ const double part = 1 - std::pow(decay, epochs + 1);
  const double part = 1 - std::pow(decay, epochs);
  //@ mutant budget-last-rate: the share that is gone, not the sum
  //~ return lr * part;
  return lr * part / (1 - decay);
  //@ end
}

namespace {

constexpr double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

// A gradient, times `factor`, enters the running means m of gradients and v of their squares.
template <class T>
void update_moments(const std::vector<T>& gradient, T factor, std::vector<T>& m,
                    std::vector<T>& v) {
  //@ begin 12 adam-moments points=7
  //@ plan For each number: g is the gradient times the factor (the clip's). Then
  //@ plan m = β₁ m + (1 - β₁) g  and  v = β₂ v + (1 - β₂) g². Write T(1 - beta1), so that the
  //@ plan subtraction is made in double.
  //@ hint 1 If g were the same at each step, where would m and v go?
  //@ hint 2 README, "Adam": the first two formulas.
  //@ hint 3 for each i:
  //@ hint 3   g = factor times gradient[i]
  //@ hint 3   m[i] = beta1 times m[i] plus (1 - beta1) times g
  //@ hint 3   v[i] = beta2 times v[i] plus (1 - beta2) times g squared
  //@ notice m remembers about ten steps, 1/(1 - β₁); v about a thousand.
  for (size_t i = 0; i < gradient.size(); ++i) {
    //@ mutant adam-unclipped: the gradient as it is, without the clip's factor
    //~ const T g = T(0) * factor + gradient[i];
    const T g = factor * gradient[i];
    //@ mutant adam-no-memory: m is the last gradient, no mean
    //~ m[i] = g;
    m[i] = T(beta1) * m[i] + T(1 - beta1) * g;
    //@ mutant adam-same-beta: both means with the same β
    //~ v[i] = T(beta1) * v[i] + T(1 - beta1) * g * g;
    //@ mutant adam-not-squared: the mean of |g|, not of g²
    //~ v[i] = T(beta2) * v[i] + T(1 - beta2) * std::abs(g);
    v[i] = T(beta2) * v[i] + T(1 - beta2) * g * g;
  }
  //@ end
}

// w -= lr · m̂ / (√v̂ + ε), at the step that is number t from 1.
template <class T>
void step_by_moments(std::vector<T>& w, const std::vector<T>& m, const std::vector<T>& v, double lr,
                     long t) {
  //@ begin 12 adam-step points=8
  //@ plan m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ): what both lack because they began at 0. Work the
  //@ plan two factors out in double, once: lr · m̂ / (√v̂ + ε) = rate · m / (√v · root + ε).
  //@ hint 1 After the first step m is a tenth of g, and v a thousandth of what? What should m̂ / √v̂
  //@ hint 1 be, then?
  //@ hint 2 README, "Adam": the last formula. t is the third power's exponent at the third step.
  //@ hint 3 rate = lr / (1 - beta1^t)
  //@ hint 3 root = 1 / sqrt(1 - beta2^t)
  //@ hint 3 for each i: w[i] -= rate times m[i], divided by (sqrt(v[i]) times root plus epsilon)
  //@ notice The size of the gradient cancels: ten times the loss gives the same step. So Adam walks
  //@ notice about lr in each direction, however flat it is there.
  //@ mutant adam-no-correction: m as it is, although it began at 0
  //~ const T rate = T(lr);
  //@ mutant adam-counts-from-zero: the first step is number 0
  //~ const T rate = T(lr / (1 - std::pow(beta1, double(t - 1))));
  const T rate = T(lr / (1 - std::pow(beta1, double(t))));
  //@ mutant adam-second-by-first: v corrected as m is
  //~ const T root = T(1 / std::sqrt(1 - std::pow(beta1, double(t))));
  const T root = T(1 / std::sqrt(1 - std::pow(beta2, double(t))));
  for (size_t i = 0; i < w.size(); ++i) {
    //@ mutant adam-epsilon-inside: ε under the root
    //~ const T size = std::sqrt(v[i] * root * root + T(epsilon));
    //@ mutant adam-no-root: divided by v̂ where it should be by its root
    //~ const T size = v[i] * root * root + T(epsilon);
    const T size = std::sqrt(v[i]) * root + T(epsilon);
    w[i] -= rate * m[i] / size;
  }
  //@ end
}

}  // namespace

//@ end
template <class T>
Optimizer<T>::Optimizer(OptimizerKind kind, const std::deque<Parameter<T>>& parameters)
    : kind_(kind) {
  if (kind == OptimizerKind::sgd) return;
  //@ from 12
  if (kind == OptimizerKind::adam) {
    for (const Parameter<T>& p : parameters) {
      m_.emplace_back(p.value.size());
      v_.emplace_back(p.value.size());
    }
    return;
  }
  //@ end
  fail_input("optimizer '", name_of(kind), "' comes with a later lesson");
}

template <class T>
void Optimizer<T>::step(std::deque<Parameter<T>>& parameters, double lr, double gradient_factor) {
  ++steps_;
  const T factor = T(gradient_factor);
  //@ from 12
  if (kind_ == OptimizerKind::adam) {
    for (size_t p = 0; p < parameters.size(); ++p) {
      update_moments(parameters[p].gradient_value, factor, m_[p], v_[p]);
      step_by_moments(parameters[p].value, m_[p], v_[p], lr, steps_);
    }
    return;
  }
  //@ end
  for (Parameter<T>& p : parameters)
    for (size_t i = 0; i < p.value.size(); ++i)
      p.value[i] -= T(lr) * (factor * p.gradient_value[i]);
}

#define FOCUS_INSTANTIATE(T)                                      \
  template double gradient_norm(const std::deque<Parameter<T>>&); \
  template class Optimizer<T>;
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(double)
#undef FOCUS_INSTANTIATE

}  // namespace focus
