// The device itself: its stream, its small buffers, recording steps as CUDA graphs.
#include "cuda/device/launch.h"
#include "cuda/one_launch/one_launch.h"
#include "cuda/ops/ops.h"

namespace focus::gpu {

namespace {

// For the emulation only: no fill may come between a recorded step's kernels.
void poison(void* to, int byte, size_t bytes) {
  if (emulated()) fill_bytes(to, byte, bytes);
}

#ifdef __CUDACC__
cudaStream_t as_stream(void* stream) {
  return static_cast<cudaStream_t>(stream);
}

// Records the work's launches as a graph the first time; a replay starts them all at once.
class Graph final : public Device<float>::Recorded {
 public:
  explicit Graph(void* stream) : stream_(as_stream(stream)) {}
  ~Graph() override {
    if (graph_) cudaGraphExecDestroy(graph_);
  }
  void run(const std::function<void()>& work) override {
    if (!graph_) record(work);
    CUDA_CHECK(cudaGraphLaunch(graph_, stream_));
  }

 private:
  void record(const std::function<void()>& work) {
    cudaGraph_t recorded = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &recorded);
      if (recorded) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream_, &recorded));
    const cudaError_t made = cudaGraphInstantiate(&graph_, recorded, 0);
    cudaGraphDestroy(recorded);
    CUDA_CHECK(made);
  }

  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};
#else
class Graph final : public Device<float>::Recorded {
 public:
  explicit Graph(void*) {}
  void run(const std::function<void()>& work) override { work(); }
};
#endif

}  // namespace

CudaOps::CudaOps() : stream_(nullptr), counters_(1) {
  device();  // says so if there is none
#ifdef __CUDACC__
  for (void** stream : {&stream_, &sides_[0].stream, &sides_[1].stream}) {
    cudaStream_t made;
    CUDA_CHECK(cudaStreamCreate(&made));
    *stream = made;
  }
  for (SideStream& side : sides_)
    for (void** event : {&side.forked, &side.joined}) {
      cudaEvent_t made;
      CUDA_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
      *event = made;
    }
#endif
  set_runs({0}, 0);
  set_counters({});
}

CudaOps::~CudaOps() {
#ifdef __CUDACC__
  for (const SideStream& side : sides_) {
    for (void* event : {side.forked, side.joined})
      cudaEventDestroy(static_cast<cudaEvent_t>(event));
    cudaStreamDestroy(as_stream(side.stream));
  }
  cudaStreamDestroy(as_stream(stream_));
#endif
}

std::string CudaOps::hardware() const {
  const DeviceInfo& d = device();
  return emulated() ? d.name : str(d.name, ", CUDA ", d.runtime / 1000, ".", d.runtime % 1000 / 10);
}

void* CudaOps::beside(Side which) {
  SideStream& side = sides_[size_t(which)];
#ifdef __CUDACC__
  const auto forked = static_cast<cudaEvent_t>(side.forked);
  CUDA_CHECK(cudaEventRecord(forked, as_stream(stream_)));
  CUDA_CHECK(cudaStreamWaitEvent(as_stream(side.stream), forked, 0));
#endif
  side.used = true;
  return side.stream;
}

void CudaOps::wait_for([[maybe_unused]] Side which) {
#ifdef __CUDACC__
  const SideStream& side = sides_[size_t(which)];
  if (!side.used) return;
  const auto joined = static_cast<cudaEvent_t>(side.joined);
  CUDA_CHECK(cudaEventRecord(joined, as_stream(side.stream)));
  CUDA_CHECK(cudaStreamWaitEvent(as_stream(stream_), joined, 0));
#endif
}

void CudaOps::join() {
  for (const Side which : {Side::forward, Side::backward}) {
    wait_for(which);
    sides_[size_t(which)].used = false;
  }
}

MemorySource CudaOps::memory() const {
  return {allocate, release, poison};
}

void CudaOps::upload(void* to, const void* from, size_t bytes) {
#ifdef __CUDACC__
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(stream_)));
#else
  copy_to_device(to, from, bytes);
#endif
}

void CudaOps::download(void* to, const void* from, size_t bytes) {
  join();
#ifdef __CUDACC__
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(stream_)));
  CUDA_CHECK(cudaStreamSynchronize(as_stream(stream_)));
#else
  copy_to_host(to, from, bytes);
#endif
}

void CudaOps::set_runs(const std::vector<uint64_t>& seeds, size_t stride) {
  runs_ = int(seeds.size()), stride_ = stride;
  if (seeds_.size() != seeds.size()) {
    seeds_ = DeviceArray<uint64_t>(seeds.size());
    bad_steps_ = DeviceArray<BadStep>(seeds.size());
  }
  upload(seeds_.data(), seeds.data(), seeds.size() * sizeof(uint64_t));
  const std::vector<BadStep> none(seeds.size());
  upload(bad_steps_.data(), none.data(), none.size() * sizeof(BadStep));
}

void CudaOps::set_counters(const Counters& counters) {
  upload(counters_.data(), &counters, sizeof counters);
}

std::vector<BadStep> CudaOps::take_bad_steps() {
  std::vector<BadStep> seen(bad_steps_.size());
  download(seen.data(), bad_steps_.data(), seen.size() * sizeof(BadStep));
  const std::vector<BadStep> none(seen.size());
  upload(bad_steps_.data(), none.data(), none.size() * sizeof(BadStep));
  return seen;
}

std::unique_ptr<Device<float>::Recorded> CudaOps::new_record() {
  return std::make_unique<Graph>(stream_);
}

Device<float>::Facts CudaOps::facts() const {
  uint64_t started = 0;
  for (const LaunchCount& kernel : launches_so_far()) started += kernel.launches;
  return {device().multiply_adds, started};
}

std::string CudaOps::precision_problem(Precision precision, const ModelSettings& model) const {
  if (precision == Precision::fp32) return "";
  if (!fuses_blocks(model))
    return str("d-model ", model.d_model, ", d-mlp ", model.d_mlp, ", ", model.attention.heads,
               " head(s) on ", device().name);
  return tensor_core_problem();
}

std::string CudaOps::step_kernel_problem(const ModelSettings& model, int batch) const {
  return one_launch_problem(model, batch);
}

std::unique_ptr<StepKernel> CudaOps::step_kernel(const ModelSettings& model,
                                                 OptimizerKind optimizer, int batch, int runs) {
  return std::make_unique<OneLaunch>(model, optimizer, batch, runs);
}

const DeviceLists& CudaOps::lists(const AttentionSettings& a, int length) {
  DeviceLists& lists = lists_[{int(a.pattern), a.k, a.global_tokens, length}];
  if (lists.entries > 0) return lists;
  lists.entries = count_entries(a, length);
  std::vector<int> begin(size_t(length) + 1), keys(size_t(lists.entries));
  if (a.pattern == Pattern::full) {
    for (int i = 0; i <= length; ++i) begin[size_t(i)] = i * length;
  } else {
    fill_key_lists(a, length, begin.data(), keys.data());
  }
  for (int i = 0; i < length; ++i)
    lists.longest = std::max(lists.longest, begin[size_t(i) + 1] - begin[size_t(i)]);
  lists.begin = DeviceArray<int>(begin);
  if (is_positional(a.pattern)) lists.keys = DeviceArray<int>(keys);
  return lists;
}

namespace {
std::unique_ptr<Device<float>> make_device() {
  return std::make_unique<CudaOps>();
}
}  // namespace

void register_device() {
  known_devices().push_back({"cuda", device_problem, make_device, !emulated()});
}

}  // namespace focus::gpu
