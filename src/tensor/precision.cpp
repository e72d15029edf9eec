#include "tensor/precision.h"

#include "enum_names.h"

namespace focus {

static constexpr const char* precision_names[] = {"fp32", "3xtf32", "tf32", "bf16"};

Precision precision_of(const std::string& name) {
  return value_named<Precision>(name, precision_names, "precision");
}

const char* name_of(Precision precision) {
  return name_among(precision_names, precision);
}

double times_float32(Precision precision) {
  constexpr double times[] = {1, 8 / 3., 8, 16};
  return times[int(precision)];
}

}  // namespace focus
