// In which numbers a device's matrix products are made. Everything else is float32 at each of them:
// weights, sums, norms, softmax, loss, clip and update.
//
//   fp32     float32
//   3xtf32   each factor as the sum of two tf32 numbers, three products: nearly float32
//   tf32     each factor rounded to 10 bits of fraction
//   bf16     each factor rounded to 7 bits of fraction
#pragma once

#include <string>

namespace focus {

enum class Precision { fp32, tf32x3, tf32, bf16 };
const char* name_of(Precision precision);
Precision precision_of(const std::string& name);  // throws InputError

// How many times as many multiply-adds as in float32 a GPU makes at most: tensor cores of compute
// capability 8.0 and 9.0 against the other lanes.
double times_float32(Precision precision);

}  // namespace focus
