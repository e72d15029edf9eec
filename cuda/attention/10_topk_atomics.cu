// Rung 10, top-k backward: O(T·k·D), no score is recomputed. Each query adds its share to the dK
// and dV of its keys with atomic additions. Simple, but the order of additions changes from run to
// run, and so do the last bits; popular keys make many queries wait for one address.
//
// D a multiple of 4 from 16 to 128, any k. Predicted at (16,16,2048,64), k = 5: 0.5 ms to zero and
// gather, 3.4e8 additions of one float each 2 ms (of four at once, on sm_90, 0.7 ms): 1.2 ms.
// Measured: 0.65 ms.
#include "cuda/attention/topk_queries.cuh"

namespace focus::gpu {

namespace {

__device__ __forceinline__ void atomic_add4(float* at, float w, float4 x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(at), make_float4(w * x.x, w * x.y, w * x.z, w * x.w));
#else
  atomicAdd(at, w * x.x);
  atomicAdd(at + 1, w * x.y);
  atomicAdd(at + 2, w * x.z);
  atomicAdd(at + 3, w * x.w);
#endif
}

// Sets dk and dv to 0. A thread for 4 channels.
__global__ void topk_zero_10(Heads dk, Heads dv) {
  const size_t e = size_t(blockIdx.x) * blockDim.x + threadIdx.x, vectors = size_t(dk.D) / 4;
  const size_t row = e / vectors;
  if (row >= size_t(dk.B) * dk.H * dk.T) return;
  const int batch_head = int(row / size_t(dk.T)), i = int(row % size_t(dk.T)),
            d = int(e % vectors) * 4;
  store4(dk.of(batch_head) + i * dk.row_stride + d, make_float4(0, 0, 0, 0));
  store4(dv.of(batch_head) + i * dv.row_stride + d, make_float4(0, 0, 0, 0));
}

template <int W, int K>
__global__ void __launch_bounds__(query_threads)
    topk_bwd_10(Heads q, Heads k, Heads v, Heads d_o, Heads dq, Heads dk, Heads dv, const int* keys,
                const float* p, Weights* weights, int kept, float scale) {
  backward_of_query<W, K>(
      int(blockIdx.x), q, k, v, d_o, dq, keys, p, weights, KeepBits{}, kept, scale,
      [&](int d, int key, float ds_e, float p_e, float4 q4, float4 g4, int batch_head) {
        if (d >= q.D) return;
        atomic_add4(dk.of(batch_head) + key * dk.row_stride + d, ds_e, q4);
        atomic_add4(dv.of(batch_head) + key * dv.row_stride + d, p_e, g4);
      });
}

}  // namespace

const Rung topk_10_backward{
    10,
    "top-k: atomic additions",
    Pass::backward,
    is_topk,
    false,
    unsupported_width,
    [](const Call& c) { return c.kept > longest_list ? sizeof(Weights) * topk_edges(c) : 0; },
    [](Pattern, const Call& c) {
      const size_t vectors = size_t(c.q.B) * size_t(c.q.H) * size_t(c.q.T) * size_t(c.q.D) / 4;
      launch({"topk_zero_10", (vectors + 255) / 256, 256}, c.stream, topk_zero_10, c.dk, c.dv);
      for_width(c.q.D, [&](auto width) {
        for_any_list(c.kept, [&](auto list) {
          constexpr int W = decltype(width)::value, K = decltype(list)::value;
          launch({"topk_bwd_10", query_blocks<W>(c), query_threads}, c.stream, topk_bwd_10<W, K>,
                 c.q, c.k, c.v, c.d_o, c.dq, c.dk, c.dv, c.keys, c.p,
                 c.kept > longest_list ? static_cast<Weights*>(c.workspace) : nullptr, c.kept,
                 c.scale());
        });
      });
    }};

}  // namespace focus::gpu
