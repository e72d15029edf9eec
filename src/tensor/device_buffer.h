// An array in a device's memory, for as long as the object lives.
#pragma once

#include <memory>
#include <vector>

#include "tensor/device.h"

namespace focus {

template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device<float>& device, size_t n)
      : device_(&device),
        n_(n),
        data_(static_cast<T*>(device.memory().allocate(n * sizeof(T))), device.memory().release) {}
  DeviceBuffer(Device<float>& device, const std::vector<T>& from)
      : DeviceBuffer(device, from.size()) {
    set(0, from.data(), from.size());
  }

  T* data() const { return data_.get(); }
  size_t size() const { return n_; }
  void set(size_t at, const T* from, size_t n) {
    if (n > 0) device_->upload(data() + at, from, n * sizeof(T));
  }
  void get(size_t at, T* to, size_t n) const {
    if (n > 0) device_->download(to, data() + at, n * sizeof(T));
  }
  std::vector<T> host() const {
    std::vector<T> numbers(n_);
    get(0, numbers.data(), n_);
    return numbers;
  }

 private:
  Device<float>* device_ = nullptr;
  size_t n_ = 0;
  std::unique_ptr<T, void (*)(void*) noexcept> data_{nullptr, [](void*) noexcept {}};
};

}  // namespace focus
