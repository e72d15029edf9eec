#include "ops/activation.h"

#include <cmath>

namespace focus {

namespace {

constexpr int elements_per_piece = 4096;

template <class T>
struct Relu {
  static T value(T x) { return x > T(0) || x != x ? x : T(0); }  // NaN must stay visible
  static T slope(T x) { return x > T(0) ? T(1) : T(0); }
};

//@ from 07
template <class T>
struct Gelu {
  static T value(T x) {
    //@ begin 07 gelu-value points=4
    //@ plan x Φ(x), with Φ(x) = (1 + erf(x/√2)) / 2. √2 as a number: 1/√2 = 0.70710678118654752
    //@ hint 1 Φ is the share of a normal distribution that lies below x. What is it at 0, and far
    //@ hint 1 to either side? What, then, is GELU there?
    //@ hint 2 README, "Three activations": the definition of GELU. std::erf is in <cmath>.
    //@ hint 3 z = x / √2
    //@ hint 3 below = (1 + erf(z)) / 2
    //@ hint 3 return x times below
    //@ notice Below 0 GELU is not 0: it dips to -0.17 at x = -0.75 and comes back. A neuron that is
    //@ notice slightly negative still has a slope, so it can come to life again.
    //@ mutant gelu-no-root: erf of x where it should be of x/√2
    //~ const T z = x;
    const T z = x * T(0.70710678118654752);
    //@ mutant gelu-tanh: the approximation with tanh
    //~ const T below = T(0.5) * (T(1) + std::tanh(T(0.79788456080286536) *
    //~                                            (x + T(0.044715) * x * x * x)));
    const T below = T(0.5) * (T(1) + std::erf(z));
    return x * below;
    //@ end
  }
  static T slope(T x) {
    //@ begin 07 gelu-slope points=5
    //@ plan The product rule on x Φ(x): Φ(x) + x φ(x), with the density φ = Φ', that is
    //@ plan φ(x) = exp(-x²/2) / √(2π). As a number: 1/√(2π) = 0.39894228040143268
    //@ hint 1 GELU is a product of two functions of x. Which of its two terms does ReLU lack?
    //@ hint 2 README, "Three activations": the derivative of GELU.
    //@ hint 3 below = Φ(x), as in the value
    //@ hint 3 density = exp(-x²/2) / √(2π)
    //@ hint 3 return below plus x times density
    //@ notice The slope exceeds 1 (1.13 at x = √2) and is negative below -0.75: GELU is not
    //@ notice monotone.
    const T below = T(0.5) * (T(1) + std::erf(x * T(0.70710678118654752)));
    //@ mutant gelu-density-scale: the density without its 1/√(2π)
    //~ const T density = std::exp(T(-0.5) * x * x);
    const T density = T(0.39894228040143268) * std::exp(T(-0.5) * x * x);
    //@ mutant gelu-gate-is-constant: the gate Φ(x) is treated as if it did not depend on x
    //~ return below;
    return below + x * density;
    //@ end
  }
};

template <class T>
struct Mish {
  // tanh(ln(1 + eˣ)), the factor beside x.
  static T gate(T x) {
    //@ begin 07 mish-gate points=6
    //@ plan tanh(ln u) = (u² - 1) / (u² + 1), here with u = 1 + eˣ. With n = u² - 1 = eˣ (eˣ + 2)
    //@ plan it is n / (n + 2): one exponential, and no difference of nearly equal numbers.
    //@ plan Beyond 20 it is 1 to all digits; return that before eˣ overflows.
    //@ hint 1 Suppose x = -20. How many digits of 1 + eˣ are left in float? And of u² - 1?
    //@ hint 2 README, "Mish without logarithms".
    //@ hint 3 if x > 20: return 1
    //@ hint 3 e = exp(x); n = e (e + 2)
    //@ hint 3 return n / (n + 2)
    //@ notice The formula is good on both sides: for large negative x it becomes eˣ, digit by
    //@ notice digit.
    //@ mutant mish-overflows: eˣ becomes infinite, and infinity divided by infinity is NaN
    if (x > T(20)) return T(1);
    //@ mutant mish-cancels: (1 + eˣ)² - 1 as it stands, which loses eˣ beside 1
    //~ const T e = std::exp(x), n = (T(1) + e) * (T(1) + e) - T(1);
    const T e = std::exp(x), n = e * (e + T(2));
    //@ mutant mish-sigmoid: the sigmoid where tanh(ln(1 + eˣ)) should be
    //~ return e / (T(1) + e) + T(0) * n;
    return n / (n + T(2));
    //@ end
  }
  static T value(T x) { return x * gate(x); }
  static T slope(T x) {
    //@ begin 07 mish-slope points=5
    //@ plan With the gate g(x): g + x g'. By the chain rule g' = (1 - g²) · sigmoid(x), because
    //@ plan tanh' is 1 - tanh² and the derivative of ln(1 + eˣ) is sigmoid(x) = 1 / (1 + e⁻ˣ).
    //@ hint 1 Which two functions stand one inside the other in the gate? What is each one's slope?
    //@ hint 2 README, "Three activations": the derivative of Mish.
    //@ hint 3 g = gate(x)
    //@ hint 3 sigmoid = 1 / (1 + exp(-x))
    //@ hint 3 return g + x times (1 - g²) times sigmoid
    //@ notice At 0 the slope is 0.6 = tanh(ln 2); that of GELU is 0.5 there, and that of ReLU
    //@ notice jumps.
    const T g = gate(x);
    //@ mutant mish-no-chain: tanh' without the slope of what stands inside
    //~ const T sigmoid = T(1);
    const T sigmoid = T(1) / (T(1) + std::exp(-x));
    //@ mutant mish-gate-is-constant: the gate is treated as if it did not depend on x
    //~ return g + T(0) * sigmoid;
    return g + x * (T(1) - g * g) * sigmoid;
    //@ end
  }
};
//@ end

template <class F, class T>
Tensor<T> apply(Tape<T>& tape, const Tensor<T>& x) {
  const Tensor<T> y = tape.make(x.shape);
  const int n = int(x.size());
  tape.workers().run_ranges(n, elements_per_piece, [=](int begin, int end) {
    for (int i = begin; i < end; ++i) y.data[i] = F::value(x.data[i]);
  });
  tape.record(y, [=, &tape] {
    const auto dx = tape.gradient_target(x);
    const T* dy = tape.gradient(y);
    if (!dx.data) return;
    tape.workers().run_ranges(n, elements_per_piece, [=](int begin, int end) {
      if (dx.fresh)
        for (int i = begin; i < end; ++i) dx.data[i] = dy[i] * F::slope(x.data[i]);
      else
        for (int i = begin; i < end; ++i) dx.data[i] += dy[i] * F::slope(x.data[i]);
    });
  });
  return y;
}

}  // namespace

Activation activation_of(std::string_view name) {
  for (Activation a : {Activation::relu, Activation::gelu, Activation::mish})
    if (name == name_of(a)) return a;
  fail_input("activation '", name, "' is unknown: use relu, gelu or mish");
}

const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return "relu";
    case Activation::gelu:
      return "gelu";
    case Activation::mish:
      return "mish";
  }
  return "?";
}

template <class T>
Tensor<T> activate(Tape<T>& tape, const Tensor<T>& x, Activation activation) {
  switch (activation) {
    //@ from 07
    case Activation::gelu:
      return apply<Gelu<T>>(tape, x);
    case Activation::mish:
      return apply<Mish<T>>(tape, x);
    //@ before
    //~ case Activation::gelu:
    //~ case Activation::mish:
    //~   fail_input("activation '", name_of(activation), "' comes with lesson 07: use relu");
    //@ end
    case Activation::relu:
      break;
  }
  return apply<Relu<T>>(tape, x);
}

template Tensor<float> activate(Tape<float>&, const Tensor<float>&, Activation);
template Tensor<double> activate(Tape<double>&, const Tensor<double>&, Activation);

}  // namespace focus
