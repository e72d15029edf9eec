#include "tensor/device.h"

#include "error.h"

namespace focus {

std::vector<KnownDevice>& known_devices() {
  static std::vector<KnownDevice> devices;
  return devices;
}

std::unique_ptr<Device<float>> open_device(const std::string& name) {
  if (name == "cpu") return nullptr;
  for (const KnownDevice& device : known_devices()) {
    if (device.name != name) continue;
    if (const std::string problem = device.problem(); !problem.empty())
      fail_input("--device ", name, ": ", problem, "; use --device cpu");
    return device.make();
  }
  if (name == "cuda") fail_input("--device cuda: this build has no CUDA; use --device cpu");
  fail_input("--device: '", name, "' is not a device: use cpu or cuda");
}

}  // namespace focus
