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
#include "cuda/attention/topk_queries.cuh"

namespace focus::gpu {

namespace {

constexpr int sort_threads = 256, sort_warps = sort_threads / 32, key_threads = 256;
constexpr int long_list = 64;              // longer ones are shared out
constexpr size_t most_shared = 64 * 1024;  // of a sorting block

struct Edge {
  int query;
  float p, ds;
};

template <int W, int K>
__global__ void __launch_bounds__(query_threads)
    topk_queries_11(Heads q, Heads k, Heads v, Heads d_o, Heads dq, const int* keys, const float* p,
                    float* ds, int kept, float scale) {
  backward_of_query<W, K>(q, k, v, d_o, dq, keys, p, ds, kept, scale,
                          [](int, int, float, float, float4, float4, int) {});
}

// begin: (units,T+1): key j's queries are edges begin[j] … begin[j+1]-1 of its head. A block a
// head. The head's edges are cut into `parts` runs, one for a warp; places: (parts,T) first counts
// each key's edges in each run, then says where the next one goes. In shared memory if it fits.
__global__ void __launch_bounds__(sort_threads)
    topk_sort_11(const int* keys, const float* p, const float* ds, Edge* edges, int* begin, int T,
                 int kept, int parts, int* global_places) {
  SharedMemory shared;
  int* warp_sums = shared.array<int>(sort_warps);
  int* places =
      global_places ? global_places + ptrdiff_t(blockIdx.x) * T : shared.array<int>(parts * T);
  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32, count = T * kept;
  const ptrdiff_t base = ptrdiff_t(blockIdx.x) * count;
  keys += base, p += base, ds += base, edges += base;
  begin += ptrdiff_t(blockIdx.x) * (T + 1);
  // Runs of whole steps of 32.
  const int run = (count + 32 * parts - 1) / (32 * parts) * 32;
  const int first = min(warp * run, count), last = warp < parts ? min(first + run, count) : first;

  for (int e = t; e < parts * T; e += sort_threads) places[e] = 0;
  __syncthreads();  // all counts are 0
  for (int e = first + lane; e < last; e += 32) atomicAdd(places + warp * T + keys[e], 1);
  __syncthreads();  // all is counted

  // Running totals, by key and then by run. Each thread sums its keys; then the sums of the threads
  // before it are its start.
  const int own = (T + sort_threads - 1) / sort_threads;
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
    begin[j] = before;
    for (int part = 0; part < parts; ++part) {
      const int n = places[part * T + j];
      places[part * T + j] = before;
      before += n;
    }
  }
  if (t == 0) begin[T] = count;
  __syncthreads();  // all places are known

  // Each warp places its run in order, 32 edges at a time; equal keys among them in lane order.
  for (int e0 = first; e0 < last; e0 += 32) {
    const int e = e0 + lane, key = e < last ? keys[e] : -1;
    const unsigned same = __match_any_sync(all_lanes, key);
    int place = 0;
    if (key >= 0) {
      place = places[warp * T + key] + __popc(same & ((1u << lane) - 1));
      edges[place] = {e / kept, p[e], ds[e]};
    }
    __syncwarp();  // all have read their places
    if (key >= 0 && (same >> lane) == 1) places[warp * T + key] = place + 1;  // the last of them
    __syncwarp();  // the places are ready for the next 32
  }
}

// dk = Σ dS q, dv = Σ p dO over edges first … last-1, four at a time, in order.
template <int W>
__device__ __forceinline__ void gather_edges(const Edge* edges, int first, int last, const Heads& q,
                                             const float* q_head, const Heads& d_o,
                                             const float* g_head, int d, float4& dk, float4& dv) {
  for (int e = first; e < last; e += 4) {
    Edge edge[4];
    float4 q4[4], g4[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) edge[n] = edges[min(e + n, last - 1)];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      q4[n] = channels(q, q_head, edge[n].query, d);
      g4[n] = channels(d_o, g_head, edge[n].query, d);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n)
      if (e + n < last) {
        add_scaled(dk, edge[n].ds, q4[n]);
        add_scaled(dv, edge[n].p, g4[n]);
      }
  }
}

template <int W>
struct KeyBlock {
  static constexpr int row_lanes = W / 4, rows = key_threads / row_lanes;
  static constexpr size_t shared_bytes = shared_bytes_for(rows * 2 * W);
};

template <int W>
__global__ void __launch_bounds__(key_threads)
    topk_keys_11(const Edge* edges, const int* begin, Heads q, Heads d_o, Heads dk, Heads dv,
                 int kept) {
  using X = KeyBlock<W>;
  SharedMemory shared;
  float* pieces = shared.array<float>(X::rows * 2 * W);  // (rows,2,W)
  const int T = q.T, blocks = (T + X::rows - 1) / X::rows;
  const int unit = int(blockIdx.x) / blocks, j0 = int(blockIdx.x) % blocks * X::rows;
  const int row = int(threadIdx.x) / X::row_lanes, d = int(threadIdx.x) % X::row_lanes * 4;
  const float *q_head = q.of(unit), *g_head = d_o.of(unit);
  edges += ptrdiff_t{unit} * T * kept, begin += ptrdiff_t{unit} * (T + 1);
  const auto write = [&](int j, float4 dk_sum, float4 dv_sum) {
    if (d >= q.D) return;
    store4(dk.of(unit) + j * dk.row_stride + d, dk_sum);
    store4(dv.of(unit) + j * dv.row_stride + d, dv_sum);
  };

  const int j = j0 + row, own_first = j < T ? begin[j] : 0, own_last = j < T ? begin[j + 1] : 0;
  if (j < T && own_last - own_first <= long_list) {
    float4 dk_sum = make_float4(0, 0, 0, 0), dv_sum = dk_sum;
    gather_edges<W>(edges, own_first, own_last, q, q_head, d_o, g_head, d, dk_sum, dv_sum);
    write(j, dk_sum, dv_sum);
  }
  for (int l = j0; l < min(j0 + X::rows, T); ++l) {
    const int first = begin[l], last = begin[l + 1];
    if (last - first <= long_list) continue;  // the same for the whole block
    const int piece = (last - first + X::rows - 1) / X::rows;
    float4 dk_sum = make_float4(0, 0, 0, 0), dv_sum = dk_sum;
    gather_edges<W>(edges, min(first + row * piece, last), min(first + (row + 1) * piece, last), q,
                    q_head, d_o, g_head, d, dk_sum, dv_sum);
    store4(pieces + row * 2 * W + d, dk_sum);
    store4(pieces + (row * 2 + 1) * W + d, dv_sum);
    __syncthreads();  // all pieces are there
    if (row == 0) {
      for (int r = 1; r < X::rows; ++r) {
        add_scaled(dk_sum, 1, load4(pieces + r * 2 * W + d));
        add_scaled(dv_sum, 1, load4(pieces + (r * 2 + 1) * W + d));
      }
      write(l, dk_sum, dv_sum);
    }
    __syncthreads();  // before the pieces are written again
  }
}

// The workspace: dS, the sorted edges, where each key's begin, and, for long sequences, places.
struct Layout {
  size_t units, T, edges;
  int parts;  // 0: the places do not fit shared memory
  explicit Layout(const Call& c)
      : units(size_t(c.q.B) * size_t(c.q.H)), T(size_t(c.q.T)), edges(topk_edges(c)) {
    const size_t fit = most_shared / (4 * T);
    parts = int(fit < sort_warps ? fit : sort_warps);
  }
  size_t begin_at() const { return edges * 16; }
  size_t places_at() const { return begin_at() + units * (T + 1) * 4; }
  size_t bytes() const { return places_at() + (parts == 0 ? units * T * 4 : 0); }
};

template <int W>
void run(const Call& c) {
  const Layout at(c);
  char* memory = static_cast<char*>(c.workspace);
  float* ds = reinterpret_cast<float*>(memory);
  Edge* edges = reinterpret_cast<Edge*>(memory + at.edges * 4);
  int* begin = reinterpret_cast<int*>(memory + at.begin_at());
  int* places = at.parts == 0 ? reinterpret_cast<int*>(memory + at.places_at()) : nullptr;
  for_any_list(c.kept, [&](auto list) {
    launch({"topk_queries_11", query_blocks<W>(c), query_threads}, c.stream,
           topk_queries_11<W, decltype(list)::value>, c.q, c.k, c.v, c.d_o, c.dq, c.keys, c.p, ds,
           c.kept, 1 / std::sqrt(float(c.q.D)));
  });
  const int parts = places ? 1 : at.parts;
  launch({"topk_sort_11", at.units, sort_threads,
          places ? shared_bytes_for(sort_warps) : shared_bytes_for(sort_warps, parts * c.q.T)},
         c.stream, topk_sort_11, c.keys, c.p, ds, edges, begin, c.q.T, c.kept, parts, places);
  using X = KeyBlock<W>;
  launch(
      {"topk_keys_11", at.units * size_t(tiles_of(c.q.T, X::rows)), key_threads, X::shared_bytes},
      c.stream, topk_keys_11<W>, edges, begin, c.q, c.d_o, c.dk, c.dv, c.kept);
}

}  // namespace

const Rung topk_11_backward{11,
                            "top-k: inverted index",
                            Pass::backward,
                            is_topk,
                            true,
                            [](const Call& c) {
                              // A head's edges are counted in 32 bits.
                              const std::string why =
                                  double(c.q.T) * c.kept > 2e9 ? "more than 2e9 edges a head" : "";
                              return why.empty() ? unsupported_width(c) : why;
                            },
                            [](const Call& c) { return Layout(c).bytes(); },
                            [](Pattern, const Call& c) {
                              for_width(c.q.D, [&](auto width) { run<decltype(width)::value>(c); });
                            }};

}  // namespace focus::gpu
