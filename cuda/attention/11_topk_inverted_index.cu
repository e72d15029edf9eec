// Rung 11, top-k backward without atomics: the lists of keys of all queries are turned over into
// lists of queries of all keys, in ascending order of the queries (a stable counting sort for each
// head), and then each key gathers from its queries and writes its dK and dV once. The order of
// additions is fixed: the same bits every time.
//
// Lists are uneven: in a model at its start half of 600 keys have none, some 100 of 3000 edges. So
// blocks own about as many edges each, not as many keys, and cut them into equal pieces.
//
// D a multiple of 4 from 16 to 128, any k. Predicted at (16,16,2048,64), k = 5: queries 0.35 ms,
// sort 0.05 ms, keys 0.45 ms: 0.85 ms, with nothing to zero.
// Measured: 0.61 ms on an H200, when a block owned 16 keys and shared out lists longer than 64.
// At (25,1,600,64), k = 5, in a training step on an H100, where reading the rows takes 7 µs in each
// half, that was 18.5 and 28 µs. Predicted for dropout's bits in a register, which had been read
// and multiplied in memory one by one, shorter addresses and blocks of edges: 15 and 18.
// Measured: 9.3 and 13; at (16,16,2048,64) 0.61 ms instead of 0.69 on this card.
#include "cuda/attention/sort_edges.cuh"
#include "cuda/attention/topk_queries.cuh"

namespace focus::gpu {

namespace {

constexpr int key_threads = 256;
// Blocks on a multiprocessor for which the compiler saves registers. Measured at (25,1,600,64),
// k = 5 on an H100: 15 µs with four, 13 with five.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FOCUS_KEY_BLOCKS 4  // no more fit
#else
#define FOCUS_KEY_BLOCKS 5
#endif
constexpr size_t most_shared = 32 * 1024;  // of a sorting block: the other blocks get as much

// How many blocks gather the gradients of a head's keys.
FOCUS_HD constexpr int key_blocks(int T, int kept) {
  return (T * kept + edges_of_block - 1) / edges_of_block;
}

// The first blocks sort a head each, which keeps them waiting for memory most of the time; the
// others meanwhile do the queries. first_block: 0, or the number of heads if they are sorted
// already.
template <int W, int K>
__global__ void __launch_bounds__(query_threads)
    topk_queries_11(Heads q, Heads k, Heads v, Heads d_o, Heads dq, const int* keys, const float* p,
                    Weights* weights, KeepBits keep, int kept, float scale, Edge* edges, int* begin,
                    int* starts, int parts, int* global_places, int first_block) {
  const int batch_heads = q.B * q.H, batch_head = int(blockIdx.x) + first_block, T = q.T;
  if (batch_head >= batch_heads) {
    backward_of_query<W, K>(batch_head - batch_heads, q, k, v, d_o, dq, keys, p, weights, keep,
                            kept, scale, [](int, int, float, float, float4, float4, int) {});
    return;
  }
  SharedMemory shared;
  int* warp_sums = shared.array<int>(sort_warps);
  const ptrdiff_t base = ptrdiff_t{batch_head} * T * kept;
  keys += base, edges += base, begin += ptrdiff_t{batch_head} * (T + 1);
  starts += ptrdiff_t{batch_head} * (key_blocks(T, kept) + 1);
  if (global_places)
    sort_head(keys, edges, begin, starts, T, kept, parts, global_places + ptrdiff_t{batch_head} * T,
              warp_sums);
  else
    sort_head(keys, edges, begin, starts, T, kept, parts, shared.array<int>(parts * T), warp_sums);
}

template <int W>
struct KeyBlock {
  static constexpr int row_lanes = W / 4, rows = key_threads / row_lanes, pieces = rows / 2;
  static constexpr size_t shared_bytes =
      shared_bytes_for(4 * key_threads, 2 * pieces, 2 * pieces * 2 * W);
};

// An edge on its way to its key.
struct alignas(16) Part {
  ptrdiff_t at;  // where its query's row starts
  int key;
  float weight;
};

// dK = Σ dS q, dV = Σ p dO over each key's edges. The block's edges lie side by side and are cut
// into equal pieces, wherever keys begin and end. Of each two rows of lanes one sums dK over a
// piece, the other dV. They write the sums of the keys within the piece; those of its first and its
// last key, which may lie in several pieces, are added up in the end, in order.
// Each lane of a row loads one edge with its weight; then the row reads the queries, four at once.
template <int W>
__global__ void __launch_bounds__(key_threads, FOCUS_KEY_BLOCKS)
    topk_keys_11(const Edge* edges, const int* begin, const int* starts, const int* keys,
                 const Weights* weights, Heads q, Heads d_o, Heads dk, Heads dv, int kept) {
  using X = KeyBlock<W>;
  constexpr int lanes = X::row_lanes, at_once = 4;
  SharedMemory shared;
  Part* loaded = shared.array<Part>(key_threads);                 // (rows,lanes)
  int* part_keys = shared.array<int>(2 * X::pieces);              // (pieces,2): first and last key
  float* part_sums = shared.array<float>(2 * X::pieces * 2 * W);  // (pieces,2,2,W)
  const int T = q.T, blocks = key_blocks(T, kept), t = int(threadIdx.x);
  const int batch_head = int(blockIdx.x) / blocks, block = int(blockIdx.x) % blocks;
  const int row = t / lanes, own_piece = row / 2, own_lane = t % lanes, d = own_lane * 4;
  const bool is_v = row % 2 == 1;
  const ptrdiff_t base = ptrdiff_t{batch_head} * T * kept;
  edges += base, keys += base, weights += base, begin += ptrdiff_t{batch_head} * (T + 1);
  starts += ptrdiff_t{batch_head} * (blocks + 1) + block;
  const int first = starts[0], last = starts[1];
  const int b = batch_head / q.H, h = batch_head % q.H;
  // Lanes beyond D repeat another lane's loads and write nothing.
  const float* in_head = (is_v ? d_o.of(b, h) : q.of(b, h)) + min(d, q.D - 4);
  float* out_head = (is_v ? dv.of(b, h) : dk.of(b, h)) + d;
  const ptrdiff_t in_stride = is_v ? d_o.row_stride : q.row_stride,
                  out_stride = is_v ? dv.row_stride : dk.row_stride;

  const int piece = (last - first + X::pieces - 1) / X::pieces;
  const int from = min(first + own_piece * piece, last), to = min(from + piece, last);
  float* own_sums = part_sums + (own_piece * 4 + is_v) * W + d;
  float4 sum = make_float4(0, 0, 0, 0);
  float* target = own_sums;      // where the sum goes
  int key = -1, first_key = -1;  // whose it is
  const Part* parts = loaded + row * lanes;
  for (int e0 = from; __any_sync(all_lanes, e0 < to); e0 += lanes) {
    if (e0 < to) {  // beyond the end the last edge is repeated
      const Edge edge = edges[min(e0 + own_lane, to - 1)];
      const Weights weight = weights[edge.at];
      loaded[t] = {edge.query * in_stride, keys[edge.at], is_v ? weight.p : weight.ds};
    }
    __syncwarp();  // the row's parts are there
    if (e0 == from && e0 < to) key = first_key = parts[0].key;
#pragma unroll 1
    for (int n0 = 0; n0 < lanes && e0 + n0 < to; n0 += at_once) {
      float4 x[at_once];
#pragma unroll
      for (int n = 0; n < at_once; ++n) x[n] = load4(in_head + parts[n0 + n].at);
#pragma unroll
      for (int n = 0; n < at_once; ++n) {
        const Part part = parts[n0 + n];
        if (part.key != key) {
          store4(target, sum);
          key = part.key, sum = make_float4(0, 0, 0, 0);
          if (d < q.D) target = out_head + key * out_stride;
        }
        if (e0 + n0 + n < to) add_scaled(sum, part.weight, x[n]);
      }
    }
    __syncwarp();  // before the parts are written again
  }
  store4(own_sums + (key == first_key ? 0 : 2 * W), sum);
  part_keys[own_piece * 2] = first_key;
  part_keys[own_piece * 2 + 1] = key == first_key ? -1 : key;
  __syncthreads();  // all parts are there
  const auto write = [&](ptrdiff_t j) {
    if (d < q.D) store4(out_head + j * out_stride, sum);
  };
  // Where the parts of a key begin, they are added up.
  for (int i = own_piece * 2; i < own_piece * 2 + 2; ++i) {
    key = part_keys[i];
    if (key < 0) continue;
    const int before = i == 0 ? -1 : part_keys[i - 1] < 0 ? part_keys[i - 2] : part_keys[i - 1];
    if (before == key) continue;
    sum = make_float4(0, 0, 0, 0);
    for (int n = i; n < 2 * X::pieces && (part_keys[n] == key || part_keys[n] < 0); ++n)
      if (part_keys[n] >= 0) add_scaled(sum, 1, load4(part_sums + (n * 2 + is_v) * W + d));
    write(key);
  }
  // Keys without edges are shared out evenly.
  sum = make_float4(0, 0, 0, 0);
  const int share = (T + blocks - 1) / blocks;
  for (int j = block * share + own_piece; j < min((block + 1) * share, T); j += X::pieces)
    if (begin[j] == begin[j + 1]) write(j);
}

// The index: the sorted edges, where each key's and each block's begin, and, for long sequences,
// places.
struct Index {
  size_t batch_heads, T, edges;
  int parts;       // 0: the places do not fit shared memory
  int key_blocks;  // of a head
  explicit Index(const Call& c)
      : batch_heads(size_t(c.q.B) * size_t(c.q.H)), T(size_t(c.q.T)), edges(topk_edges(c)) {
    key_blocks = gpu::key_blocks(c.q.T, c.kept);
    const size_t fit = most_shared / (4 * T);
    parts = int(fit < sort_warps ? fit : sort_warps);
  }
  size_t begin_at() const { return edges * sizeof(Edge); }
  size_t starts_at() const { return begin_at() + batch_heads * (T + 1) * 4; }
  size_t places_at() const { return starts_at() + batch_heads * size_t(key_blocks + 1) * 4; }
  size_t bytes() const { return places_at() + (parts == 0 ? batch_heads * T * 4 : 0); }
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
    launch({"topk_queries_11", (sort ? at.batch_heads : 0) + (queries ? query_blocks<W>(c) : 0),
            query_threads,
            places ? shared_bytes_for(sort_warps) : shared_bytes_for(sort_warps, parts * c.q.T)},
           c.stream, topk_queries_11<W, decltype(list)::value>, c.q, c.k, c.v, c.d_o, c.dq, c.keys,
           c.p, weights, c.keep, c.kept, c.scale(), reinterpret_cast<Edge*>(memory),
           reinterpret_cast<int*>(memory + at.begin_at()),
           reinterpret_cast<int*>(memory + at.starts_at()), parts, places,
           sort ? 0 : int(at.batch_heads));
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
  launch({"topk_keys_11", at.batch_heads * size_t(at.key_blocks), key_threads, X::shared_bytes},
         c.stream, topk_keys_11<W>, reinterpret_cast<const Edge*>(index),
         reinterpret_cast<const int*>(index + at.begin_at()),
         reinterpret_cast<const int*>(index + at.starts_at()), c.keys, weights, c.q, c.d_o, c.dk,
         c.dv, c.kept);
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
    },
    {.dropout = true, .causal = true}};

}  // namespace focus::gpu
