// Rung 11, top-k backward without atomics: the lists of keys of all queries are turned over into
// lists of queries of all keys, in ascending order of the queries (a stable counting sort for each
// head), and then each key gathers from its queries and writes its dK and dV once. The order of
// additions is fixed: the same bits every time.
//
// A popular key has a long list: the block that owns it shares it out among all its rows of lanes
// in fixed pieces, and adds the pieces up in order.
//
// D a multiple of 4 from 16 to 128, any k. Predicted at (16,16,2048,64), k = 5: queries 0.35 ms,
// sort 0.05 ms, keys 0.45 ms: 0.85 ms, with nothing to zero.
// Measured: 0.61 ms.
#include "cuda/attention/sort_edges.cuh"
#include "cuda/attention/topk_queries.cuh"

namespace focus::gpu {

namespace {

constexpr int key_threads = 256;
// Blocks on a multiprocessor for which the compiler saves registers. Measured at (16,16,2048,64),
// k = 5 on an H200: 0.39 ms with two, 0.32 with four, 0.30 with five, 0.32 with six.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FOCUS_KEY_BLOCKS 4  // no more fit
#else
#define FOCUS_KEY_BLOCKS 5
#endif
constexpr int long_list = 64;              // longer ones are shared out
constexpr size_t most_shared = 32 * 1024;  // of a sorting block: the other blocks get as much

// The first blocks sort a head each, which keeps them waiting for memory most of the time; the
// others meanwhile do the queries. first_block: 0, or the number of heads if they are sorted
// already.
template <int W, int K>
__global__ void __launch_bounds__(query_threads)
    topk_queries_11(Heads q, Heads k, Heads v, Heads d_o, Heads dq, const int* keys, const float* p,
                    Weights* weights, KeepBits keep, int kept, float scale, Edge* edges, int* begin,
                    int parts, int* global_places, int first_block) {
  const int units = q.B * q.H, unit = int(blockIdx.x) + first_block, T = q.T;
  if (unit >= units) {
    backward_of_query<W, K>(unit - units, q, k, v, d_o, dq, keys, p, weights, keep, kept, scale,
                            [](int, int, float, float, float4, float4, int) {});
    return;
  }
  SharedMemory shared;
  int* warp_sums = shared.array<int>(sort_warps);
  const ptrdiff_t base = ptrdiff_t{unit} * T * kept;
  keys += base, edges += base, begin += ptrdiff_t{unit} * (T + 1);
  if (global_places)
    sort_head(keys, edges, begin, T, kept, parts, global_places + ptrdiff_t{unit} * T, warp_sums);
  else
    sort_head(keys, edges, begin, T, kept, parts, shared.array<int>(parts * T), warp_sums);
}

// What a key gathers: dk = Σ dS q, dv = Σ p dO over edges first … last-1, in order. Each lane of
// the key's row loads one edge with its weights; then the row reads the queries, four at a time.
template <int W>
struct Gather {
  const Edge* edges;  // these two: of the head
  const Weights* weights;
  Heads q, d_o;
  const float *q_head, *g_head;
  int d;
  float4 dk, dv;

  // All lanes of a warp call it together.
  __device__ void add(int first, int last) {
    constexpr int lanes = W / 4;
    const int lane = int(threadIdx.x) % 32, row_start = lane / lanes * lanes;
    dk = make_float4(0, 0, 0, 0), dv = dk;
    for (int e0 = first; __any_sync(all_lanes, e0 < last); e0 += lanes) {
      const int own = e0 + lane - row_start;
      const Edge edge = own < last ? edges[own] : Edge{0, 0};
      const Weights weight = own < last ? weights[edge.at] : Weights{0, 0};
      for (int n0 = 0; n0 < lanes && __any_sync(all_lanes, e0 + n0 < last); n0 += 4) {
        float4 q4[4], g4[4];
        Weights w[4];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const int from = row_start + n0 + n;
          const int query = __shfl_sync(all_lanes, edge.query, from);
          w[n] = {__shfl_sync(all_lanes, weight.p, from), __shfl_sync(all_lanes, weight.ds, from)};
          const bool in = e0 + n0 + n < last;  // beyond the end everything is 0
          q4[n] = in ? channels(q, q_head, query, d) : make_float4(0, 0, 0, 0);
          g4[n] = in ? channels(d_o, g_head, query, d) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          add_scaled(dk, w[n].ds, q4[n]);
          add_scaled(dv, w[n].p, g4[n]);
        }
      }
    }
  }
};

template <int W>
struct KeyBlock {
  static constexpr int row_lanes = W / 4, rows = key_threads / row_lanes;
  static constexpr size_t shared_bytes = shared_bytes_for(rows * 2 * W);
};

template <int W>
__global__ void __launch_bounds__(key_threads, FOCUS_KEY_BLOCKS)
    topk_keys_11(const Edge* edges, const int* begin, const Weights* weights, Heads q, Heads d_o,
                 Heads dk, Heads dv, int kept) {
  using X = KeyBlock<W>;
  SharedMemory shared;
  float* pieces = shared.array<float>(X::rows * 2 * W);  // (rows,2,W)
  const int T = q.T, blocks = (T + X::rows - 1) / X::rows;
  const int unit = int(blockIdx.x) / blocks, j0 = int(blockIdx.x) % blocks * X::rows;
  const int row = int(threadIdx.x) / X::row_lanes, d = int(threadIdx.x) % X::row_lanes * 4;
  const ptrdiff_t base = ptrdiff_t{unit} * T * kept;
  begin += ptrdiff_t{unit} * (T + 1);
  Gather<W> sum{edges + base, weights + base, q, d_o, q.of(unit), d_o.of(unit), d, {}, {}};
  const auto write = [&](int j) {
    set_channels(dk, unit, j, d, sum.dk);
    set_channels(dv, unit, j, d, sum.dv);
  };

  const int j = j0 + row, own_first = j < T ? begin[j] : 0, own_last = j < T ? begin[j + 1] : 0;
  const bool is_long = own_last - own_first > long_list;
  sum.add(own_first, is_long ? own_first : own_last);
  if (j < T && !is_long) write(j);
  if (!__syncthreads_or(is_long)) return;
  for (int l = j0; l < min(j0 + X::rows, T); ++l) {
    const int first = begin[l], last = begin[l + 1];
    if (last - first <= long_list) continue;  // the same for the whole block
    const int piece = (last - first + X::rows - 1) / X::rows;
    sum.add(min(first + row * piece, last), min(first + (row + 1) * piece, last));
    store4(pieces + row * 2 * W + d, sum.dk);
    store4(pieces + (row * 2 + 1) * W + d, sum.dv);
    __syncthreads();  // all pieces are there
    if (row == 0) {
      for (int r = 1; r < X::rows; ++r) {
        add_scaled(sum.dk, 1, load4(pieces + r * 2 * W + d));
        add_scaled(sum.dv, 1, load4(pieces + (r * 2 + 1) * W + d));
      }
      write(l);
    }
    __syncthreads();  // before the pieces are written again
  }
}

// The index: the sorted edges, where each key's begin, and, for long sequences, places.
struct Index {
  size_t units, T, edges;
  int parts;  // 0: the places do not fit shared memory
  explicit Index(const Call& c)
      : units(size_t(c.q.B) * size_t(c.q.H)), T(size_t(c.q.T)), edges(topk_edges(c)) {
    const size_t fit = most_shared / (4 * T);
    parts = int(fit < sort_warps ? fit : sort_warps);
  }
  size_t begin_at() const { return edges * sizeof(Edge); }
  size_t places_at() const { return begin_at() + units * (T + 1) * 4; }
  size_t bytes() const { return places_at() + (parts == 0 ? units * T * 4 : 0); }
};
// The workspace: the weights, and the index unless the call brings it.
size_t weight_bytes(const Call& c) {
  return topk_edges(c) * sizeof(Weights);
}

// Sorts the heads, does the queries, or both.
template <int W>
void run_queries(const Call& c, void* index, Weights* weights, bool sort, bool queries) {
  const Index at(c);
  char* memory = static_cast<char*>(index);
  int* places = at.parts == 0 ? reinterpret_cast<int*>(memory + at.places_at()) : nullptr;
  const int parts = places ? 1 : at.parts;
  for_any_list(c.kept, [&](auto list) {
    launch({"topk_queries_11", (sort ? at.units : 0) + (queries ? query_blocks<W>(c) : 0),
            query_threads,
            places ? shared_bytes_for(sort_warps) : shared_bytes_for(sort_warps, parts * c.q.T)},
           c.stream, topk_queries_11<W, decltype(list)::value>, c.q, c.k, c.v, c.d_o, c.dq, c.keys,
           c.p, weights, c.keep, c.kept, 1 / std::sqrt(float(c.q.D)),
           reinterpret_cast<Edge*>(memory), reinterpret_cast<int*>(memory + at.begin_at()), parts,
           places, sort ? 0 : int(at.units));
  });
}

template <int W>
void run(const Call& c) {
  const Index at(c);
  char* memory = static_cast<char*>(c.workspace);
  char* index = c.index ? static_cast<char*>(c.index) : memory + weight_bytes(c);
  Weights* weights = reinterpret_cast<Weights*>(memory);
  run_queries<W>(c, index, weights, !c.index, true);
  using X = KeyBlock<W>;
  launch(
      {"topk_keys_11", at.units * size_t(tiles_of(c.q.T, X::rows)), key_threads, X::shared_bytes},
      c.stream, topk_keys_11<W>, reinterpret_cast<const Edge*>(index),
      reinterpret_cast<const int*>(index + at.begin_at()), weights, c.q, c.d_o, c.dk, c.dv, c.kept);
}

}  // namespace

size_t topk_index_bytes(const Call& c) {
  return Index(c).bytes();
}

void make_topk_index(const Call& c) {
  for_width(c.q.D, [&](auto width) {
    run_queries<decltype(width)::value>(c, c.index, nullptr, true, false);
  });
}

const Rung topk_11_backward{
    11,
    "top-k: inverted index",
    Pass::backward,
    is_topk,
    true,
    [](const Call& c) {
      // A head's edges are counted in 32 bits.
      const std::string why = double(c.q.T) * c.kept > 2e9 ? "more than 2e9 edges a head" : "";
      return why.empty() ? unsupported_width(c) : why;
    },
    [](const Call& c) { return weight_bytes(c) + (c.index ? 0 : Index(c).bytes()); },
    [](Pattern, const Call& c) {
      for_width(c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
    }};

}  // namespace focus::gpu
