// The largest singular value of a matrix: how much longer it can make a vector (‖A‖₂).
#pragma once

#include <span>

namespace focus {

// ‖A‖₂ of A (rows,columns), row-major, in double; accurate to about 1e-12 of itself.
//
// Lanczos (Golub, Van Loan: Matrix Computations, chapter 10): in a basis built from a first vector
// by multiplying with AᵀA again and again, made orthogonal each time, AᵀA is tridiagonal, and the
// largest eigenvalue of that small matrix comes close to ‖A‖₂² long before the basis is complete.
double spectral_norm(std::span<const double> a, int rows, int columns);

}  // namespace focus
