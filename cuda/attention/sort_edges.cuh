// The inverted index of top-k attention: from each query's keys to each key's queries.
#pragma once

#include "cuda/attention/topk_queries.cuh"

namespace focus::gpu {

inline constexpr int sort_warps = query_threads / 32;

struct alignas(8) Edge {
  int query, at;  // at: in p and dS
};

// Edges from one start to the next go to one block of the keys' half: a start is the first edge of
// a key, the first at or after a multiple of so many.
inline constexpr int edges_of_block = 128;

// begin: (T+1): key j's queries are edges begin[j] … begin[j+1]-1 of the head. starts: one more
// than there are multiples of edges_of_block below T·kept. Done by one block. The head's edges are
// cut into `parts` runs, one for a warp; places: (parts,T) first counts each key's edges in each
// run, then says where the next one goes.
__device__ __forceinline__ void sort_head(const int* keys, Edge* edges, int* begin, int* starts,
                                          int T, int kept, int parts, int* places, int* warp_sums) {
  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32, count = T * kept;
  // Runs of whole steps of 32.
  const int run = (count + 32 * parts - 1) / (32 * parts) * 32;
  const int first = min(warp * run, count), last = warp < parts ? min(first + run, count) : first;

  for (int e = t; e < parts * T; e += query_threads) places[e] = 0;
  __syncthreads();  // all counts are 0
#pragma unroll 4
  for (int e = first + lane; e < last; e += 32) atomicAdd(places + warp * T + __ldg(keys + e), 1);
  __syncthreads();  // all is counted

  // Running totals, by key and then by run. Each thread sums its keys; then the sums of the threads
  // before it are its start.
  const int own = (T + query_threads - 1) / query_threads;
  const int j0 = min(t * own, T), j1 = min(j0 + own, T);
  int sum = 0;
  for (int j = j0; j < j1; ++j)
    for (int part = 0; part < parts; ++part) sum += places[part * T + j];
  int before = sum;  // of the threads up to this one, in the warp
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const int other = __shfl_up_sync(all_lanes, before, lanes);
    if (lane >= lanes) before += other;
  }
  if (lane == 31) warp_sums[warp] = before;
  __syncthreads();  // the warps' sums are written
  before -= sum;
  for (int w = 0; w < warp; ++w) before += warp_sums[w];
  for (int j = j0; j < j1; ++j) {
    const int start = before;
    begin[j] = start;
    for (int part = 0; part < parts; ++part) {
      const int n = places[part * T + j];
      places[part * T + j] = before;
      before += n;
    }
    for (int b = start / edges_of_block + 1; b * edges_of_block <= before; ++b) starts[b] = before;
  }
  if (t == 0) {
    begin[T] = count;
    starts[0] = 0, starts[(count + edges_of_block - 1) / edges_of_block] = count;
  }
  __syncthreads();  // all places are known

  // Each warp places its run in order, 32 edges at a time; equal keys among them in lane order.
  int next = first + lane < last ? __ldg(keys + first + lane) : -1;
  for (int e0 = first; e0 < last; e0 += 32) {
    const int e = e0 + lane, key = next;
    next = e + 32 < last ? __ldg(keys + e + 32) : -1;
    //@ gap 10 place-edges
    const unsigned same = __match_any_sync(all_lanes, key);
    int place = 0;
    if (key >= 0) {
      place = places[warp * T + key] + __popc(same & ((1u << lane) - 1));
      edges[place] = {e / kept, e};
    }
    __syncwarp();  // all have read their places
    if (key >= 0 && (same >> lane) == 1) places[warp * T + key] = place + 1;  // the last of them
    __syncwarp();  // the places are ready for the next 32
    //@ end
  }
}

}  // namespace focus::gpu
