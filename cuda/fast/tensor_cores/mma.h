// The tensor core's instructions as kernels see them: a warp multiplies two small matrices that lie
// spread over the registers of its 32 lanes ("fragments"), and adds to a third, in float32.
//
// Who holds what, for lane = 4·g + t (g from 0 to 7, t from 0 to 3); a number is at (row, column):
//
//   A (16 × 8, tf32)    a[0] (g, t)  a[1] (g+8, t)  a[2] (g, t+4)  a[3] (g+8, t+4)
//   B (8 × 8, tf32)     b[0] (t, g)  b[1] (t+4, g)
//   C (16 × 8)          c[0] (g, 2t)  c[1] (g, 2t+1)  c[2] (g+8, 2t)  c[3] (g+8, 2t+1)
//   A (16 × 8, bf16)    two numbers a register, the first in the low half:
//                       a[0] (g, 2t and 2t+1)  a[1] (g+8, …)
//   A (16 × 16, bf16)   the same, then a[2] (g, 2t+8 and 2t+9)  a[3] (g+8, …)
//   B (8 × 8, bf16)     b[0] (2t and 2t+1, g)
//   B (16 × 8, bf16)    the same, then b[1] (2t+8 and 2t+9, g)
//
// load_matrices() reads four matrices of 8 × 8 numbers of 16 bits, each row 16 bytes of shared
// memory wherever lane 8·i + row says for matrix i. A lane gets of each the numbers (g, 2t and
// 2t+1), or, transposed, (2t and 2t+1, g): a factor's rows, or its columns, as B wants them.
//
// tf32 has float32's exponent and 10 bits of fraction, in the upper 19 bits of a register; bf16 has
// 7, in 16. Products are exact, sums are in float32, whose order and rounding are the hardware's
// own: the emulation adds in double and rounds once.
//
// For GPUs from compute capability 8.0 on; compiled for an older one they trap.
#pragma once

#include "cuda/simt/simt.h"

namespace focus::gpu {

#ifdef __CUDACC__

// Rounded to the nearest, of two equally near the larger magnitude.
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned result = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
#endif
  return result;
}

// Rounded to the nearest, of two equally near the even one.
__device__ __forceinline__ unsigned to_bf16s(float low, float high) {
  unsigned result = 0;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#endif
  return result;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define FOCUS_MMA(...) asm volatile(__VA_ARGS__)
#else
#define FOCUS_MMA(...) __trap()
#endif

// c += A B, all lanes of a warp together.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
  FOCUS_MMA(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void multiply_bf16(float (&c)[4], const unsigned (&a)[4],
                                              const unsigned (&b)[2]) {
  FOCUS_MMA(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same with 8 inner numbers.
__device__ __forceinline__ void multiply_bf16(float (&c)[4], const unsigned (&a)[2],
                                              const unsigned (&b)[1]) {
  FOCUS_MMA(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

#undef FOCUS_MMA

__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const unsigned* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void load_transposed(unsigned (&to)[4], const unsigned* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

#else

unsigned to_tf32(float x);
unsigned to_bf16s(float low, float high);

#define FOCUS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
void multiply_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], FOCUS_HERE);
void multiply_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], FOCUS_HERE);
void multiply_bf16(float (&c)[4], const unsigned (&a)[2], const unsigned (&b)[1], FOCUS_HERE);
void load_matrices(unsigned (&to)[4], const unsigned* row, FOCUS_HERE);
void load_transposed(unsigned (&to)[4], const unsigned* row, FOCUS_HERE);
#undef FOCUS_HERE

#endif

}  // namespace focus::gpu
