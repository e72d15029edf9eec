#include "train/stepper.h"

#include "error.h"

namespace focus {

void check_rows(int rows, int first, int count) {
  if (first < 0 || count < 1 || first > rows - count)
    fail_input("rows ", first, " to ", first + count - 1, " of ", rows);
}

void check_points(size_t points, size_t runs) {
  if (points != runs) fail_input(points, " points for ", runs, " runs");
}

std::vector<Device*> pointers(const Devices& devices) {
  std::vector<Device*> all;
  for (const auto& device : devices) all.push_back(device.get());
  return all;
}

std::string hardware_text(const std::vector<Device*>& devices) {
  const std::string one = devices[0]->hardware();
  return devices.size() == 1 ? one : str(devices.size(), " × ", one);
}

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

Devices open_devices(const std::string& name, int most) {
  Devices all;
  if (name == "cpu") {
    if (most > 0) fail_input("--gpus is for --device cuda; on the CPU there is --threads");
    return all;
  }
  const KnownDevice& device = find_device(name);
  if (const std::string problem = device.problem(); !problem.empty())
    fail_input("--device ", name, ": ", problem, "; use --device cpu");
  const int there = device.count();
  if (most > there)
    fail_input("--gpus ", most, ": this machine has ", there,
               " (CUDA_VISIBLE_DEVICES can hide some from a program)");
  for (int i = 0; i < (most > 0 ? most : there); ++i) all.push_back(device.make(i));
  return all;
}

std::unique_ptr<Device> open_device(const std::string& name) {
  return name == "cpu" ? nullptr : std::move(open_devices(name, 1).front());
}

}  // namespace focus
