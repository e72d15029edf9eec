#include "train/stepper.h"

#include "error.h"

namespace focus {

std::vector<KnownDevice>& known_devices() {
  static std::vector<KnownDevice> devices;
  return devices;
}

namespace {
const KnownDevice& find_device(const std::string& name) {
  for (const KnownDevice& device : known_devices())
    if (device.name == name && device.compiled) return device;
  if (name == "cuda") fail_input("--device cuda: this build has no CUDA; use --device cpu");
  fail_input("--device: '", name, "' is not a device: use cpu or cuda");
}
}  // namespace

void check_device_name(const std::string& name) {
  if (name != "cpu") find_device(name);
}

std::unique_ptr<Device> open_device(const std::string& name) {
  if (name == "cpu") return nullptr;
  const KnownDevice& device = find_device(name);
  if (const std::string problem = device.problem(); !problem.empty())
    fail_input("--device ", name, ": ", problem, "; use --device cpu");
  return device.make();
}

}  // namespace focus
