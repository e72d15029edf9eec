#include <utility>

#include "cuda/device/device.h"
#include "cuda/device/streams.h"
#ifdef __CUDACC__
#include "cuda/device/check.h"
#endif

namespace focus::gpu {

#ifdef __CUDACC__

namespace {
cudaStream_t as_stream(void* stream) {
  return static_cast<cudaStream_t>(stream);
}
cudaEvent_t as_event(void* event) {
  return static_cast<cudaEvent_t>(event);
}
void* new_stream(Streams::Priority priority) {
  int low = 0, high = 0;
  CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&low, &high));
  cudaStream_t made;
  CUDA_CHECK(cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking,
                                          priority == Streams::Priority::high ? high : low));
  return made;
}
void* new_event() {
  cudaEvent_t made;
  CUDA_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  return made;
}
}  // namespace

Streams::Streams(Priority priority) : main_(new_stream(priority)) {
  for (SideStream& side : sides_)
    side.stream = new_stream(priority), side.forked = new_event(), side.joined = new_event();
}

Streams::~Streams() {
  for (const SideStream& side : sides_) {
    for (void* event : {side.forked, side.joined}) cudaEventDestroy(as_event(event));
    cudaStreamDestroy(as_stream(side.stream));
  }
  cudaStreamDestroy(as_stream(main_));
}

void* Streams::beside(Side which) {
  SideStream& side = sides_[size_t(which)];
  CUDA_CHECK(cudaEventRecord(as_event(side.forked), as_stream(main_)));
  CUDA_CHECK(cudaStreamWaitEvent(as_stream(side.stream), as_event(side.forked), 0));
  side.used = true;
  return side.stream;
}

void Streams::wait_for(Side which) {
  const SideStream& side = sides_[size_t(which)];
  if (!side.used) return;
  CUDA_CHECK(cudaEventRecord(as_event(side.joined), as_stream(side.stream)));
  CUDA_CHECK(cudaStreamWaitEvent(as_stream(main_), as_event(side.joined), 0));
}

void Streams::upload(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(main_)));
}

void Streams::download(void* to, const void* from, size_t bytes) {
  join();
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(main_)));
  wait();
}

void Streams::copy(void* to, const void* from, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, as_stream(main_)));
}

void Streams::wait() {
  join();
  CUDA_CHECK(cudaStreamSynchronize(as_stream(main_)));
}

void Record::forget() {
  if (graph_) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(std::exchange(graph_, nullptr)));
}

void Record::run(Streams& streams, const std::function<void()>& work) {
  if (times_launches()) return work();
  const cudaStream_t stream = as_stream(streams.main());
  if (!graph_) {
    cudaGraph_t recorded = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &recorded);
      if (recorded) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    CUDA_CHECK(cudaStreamEndCapture(stream, &recorded));
    cudaGraphExec_t made = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&made, recorded, 0);
    cudaGraphDestroy(recorded);
    CUDA_CHECK(error);
    graph_ = made;
  }
  CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_), stream));
}

#else

Streams::Streams(Priority) {}
Streams::~Streams() = default;

void* Streams::beside(Side which) {
  sides_[size_t(which)].used = true;
  return nullptr;
}
void Streams::wait_for(Side) {}
void Streams::upload(void* to, const void* from, size_t bytes) {
  copy_to_device(to, from, bytes);
}
void Streams::download(void* to, const void* from, size_t bytes) {
  join();
  copy_to_host(to, from, bytes);
}

void Streams::copy(void* to, const void* from, size_t bytes) {
  copy_on_device(to, from, bytes);
}
void Streams::wait() {
  join();
  synchronize();
}

void Record::forget() {}
void Record::run(Streams&, const std::function<void()>& work) {
  work();
}

#endif

Record::~Record() {
  forget();
}

Record::Record(Record&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}

void Streams::join() {
  for (const Side which : {Side::forward, Side::backward}) {
    wait_for(which);
    sides_[size_t(which)].used = false;
  }
}

}  // namespace focus::gpu
