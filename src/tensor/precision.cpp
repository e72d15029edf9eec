#include "tensor/precision.h"

#include "error.h"

namespace focus {

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::fp32:
      return "fp32";
    case Precision::tf32x3:
      return "3xtf32";
    case Precision::tf32:
      return "tf32";
    case Precision::bf16:
      return "bf16";
  }
  return "?";
}

double times_float32(Precision precision) {
  switch (precision) {
    case Precision::fp32:
      break;
    case Precision::tf32x3:
      return 8 / 3.;
    case Precision::tf32:
      return 8;
    case Precision::bf16:
      return 16;
  }
  return 1;
}

Precision precision_of(const std::string& name) {
  for (const Precision p : {Precision::fp32, Precision::tf32x3, Precision::tf32, Precision::bf16})
    if (name == name_of(p)) return p;
  fail_input("'", name, "' is no precision: use fp32, 3xtf32, tf32 or bf16");
}

}  // namespace focus
