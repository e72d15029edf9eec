#include "ops/activation.h"

#include <cmath>

#include "enum_names.h"

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
    //@ gap 07 gelu-value
    const T z = x * T(0.70710678118654752);
    const T below = T(0.5) * (T(1) + std::erf(z));
    return x * below;
    //@ end
  }
  static T slope(T x) {
    //@ gap 07 gelu-slope
    const T below = T(0.5) * (T(1) + std::erf(x * T(0.70710678118654752)));
    const T density = T(0.39894228040143268) * std::exp(T(-0.5) * x * x);
    return below + x * density;
    //@ end
  }
};

template <class T>
struct Mish {
  // tanh(ln(1 + eˣ)), the factor beside x.
  static T gate(T x) {
    //@ gap 07 mish-gate
    if (x > T(20)) return T(1);
    const T e = std::exp(x), n = e * (e + T(2));
    return n / (n + T(2));
    //@ end
  }
  static T value(T x) { return x * gate(x); }
  static T slope(T x) {
    //@ gap 07 mish-slope
    const T g = gate(x);
    const T sigmoid = T(1) / (T(1) + std::exp(-x));
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
      if (dx.accumulate)
        for (int i = begin; i < end; ++i) dx.data[i] += dy[i] * F::slope(x.data[i]);
      else
        for (int i = begin; i < end; ++i) dx.data[i] = dy[i] * F::slope(x.data[i]);
    });
  });
  return y;
}

}  // namespace

static constexpr const char* activation_names[] = {"relu", "gelu", "mish"};

Activation activation_of(std::string_view name) {
  return value_named<Activation>(name, activation_names, "activation");
}

const char* name_of(Activation activation) {
  return name_among(activation_names, activation);
}

template <class T>
Tensor<T> activate(Tape<T>& tape, const Tensor<T>& x, Activation activation) {
  switch (activation) {
    //@ from 07
    case Activation::gelu:
      return apply<Gelu<T>>(tape, x);
    case Activation::mish:
      return apply<Mish<T>>(tape, x);
    //@ end
    case Activation::relu:
      return apply<Relu<T>>(tape, x);
    default:
      fail_input("activation '", name_of(activation), "' comes with a later lesson");
  }
}

template Tensor<float> activate(Tape<float>&, const Tensor<float>&, Activation);
template Tensor<double> activate(Tape<double>&, const Tensor<double>&, Activation);

}  // namespace focus
