#include "tensor/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "digits.h"

namespace focus {

namespace {

// "attention.W_q.weight[3, 1]"
std::string element_name(const Parameter<double>& p, size_t index) {
  std::string coordinates;
  for (int i = p.shape.rank() - 1; i >= 0; --i) {
    const size_t n = size_t(p.shape[i]);
    coordinates = std::to_string(index % n) + (coordinates.empty() ? "" : ", ") + coordinates;
    index /= n;
  }
  return p.name + "[" + coordinates + "]";
}

class Checker {
 public:
  Checker(const std::function<double()>& value, const GradientCheck& settings)
      : value_(value), settings_(settings), centre_(evaluate()), centre_choice_(last_choice_) {}

  void check(Parameter<double>& p, size_t i) {
    ++report_.elements;
    const double h = settings_.step * std::max(1.0, std::abs(p.value[i])),
                 got = p.gradient_value[i];
    bool moved = false;
    const Difference whole = difference(p.value[i], h, moved);
    const double limit = settings_.tolerance * (1 + std::abs(whole.slope));
    const double error = std::abs(got - whole.slope);
    if (!(error <= limit) && !moved) {
      const Difference half = difference(p.value[i], h / 2, moved);
      // A kink of height J at distance c < h from x spoils the slope by J(h-c)/2h. Then the two
      // slopes, or the two bends (as slopes: both 0 for a smooth f), differ by a quarter of that or
      // more, wherever c is.
      if (!moved && (std::abs(whole.slope - half.slope) > limit / 4 ||
                     std::abs(whole.bend - 4 * half.bend) / h > limit / 4)) {
        ++report_.kinks;
        return;
      }
    }
    if (moved) {
      ++report_.moved;
      return;
    }
    // NaN on either side is an error without bound, never a kink.
    const double share =
        error <= limit || error > limit ? error / limit : std::numeric_limits<double>::infinity();
    if (share >= report_.worst) {
      report_.worst = share;
      worst_ = str(element_name(p, i), ": ", got_wanted(got, whole.slope), " (differs by ", error,
                   ", limit ", limit, ")");
    }
  }

  GradientReport report() {
    const int skipped = report_.kinks + report_.moved;
    const bool too_many = skipped > settings_.most_skipped * report_.elements;
    report_.ok = report_.worst <= 1 && !too_many && report_.elements > 0;
    report_.text =
        str(report_.ok ? "gradients agree" : "GRADIENTS WRONG OR UNCHECKED", ": ", report_.elements,
            " elements, ", report_.kinks, " skipped at kinks, ", report_.moved, " at moved choices",
            too_many ? " (too many)" : "", "; worst ", worst_.empty() ? "none" : worst_);
    return report_;
  }

 private:
  struct Difference {
    double slope;  // (f(x+h) - f(x-h)) / 2h
    double bend;   // f(x+h) - 2f(x) + f(x-h)
  };

  double evaluate() {
    const double f = value_();
    last_choice_ = settings_.choice ? settings_.choice() : 0;
    return f;
  }

  Difference difference(double& x, double h, bool& moved) {
    const double saved = x, right = saved + h, left = saved - h;
    x = right;
    const double f_right = evaluate();
    moved |= last_choice_ != centre_choice_;
    x = left;
    const double f_left = evaluate();
    moved |= last_choice_ != centre_choice_;
    x = saved;
    // right - left is the step as rounded, which is exact; 2h is not.
    return {(f_right - f_left) / (right - left), f_right - 2 * centre_ + f_left};
  }

  const std::function<double()>& value_;
  const GradientCheck& settings_;
  uint64_t last_choice_ = 0;
  double centre_;
  uint64_t centre_choice_;
  GradientReport report_;
  std::string worst_;
};

}  // namespace

GradientReport check_gradients(const std::function<double()>& value,
                               const std::vector<Parameter<double>*>& inputs,
                               const GradientCheck& settings) {
  Checker checker(value, settings);
  for (Parameter<double>* p : inputs)
    for (size_t i = 0; i < p->value.size(); ++i) checker.check(*p, i);
  return checker.report();
}

GradientReport check_gradients(const std::function<Tensor<double>(Tape<double>&)>& loss,
                               const std::vector<Parameter<double>*>& inputs,
                               const GradientCheck& settings) {
  Workers workers;
  Tape<double> tape(workers);
  for (Parameter<double>* p : inputs)
    std::fill(p->gradient_value.begin(), p->gradient_value.end(), 0.0);
  tape.reset(true, settings.noise);
  tape.backward(loss(tape));
  const auto value = [&] {
    tape.reset(false, settings.noise);
    return loss(tape).data[0];
  };
  return check_gradients(std::function<double()>(value), inputs, settings);
}

}  // namespace focus
