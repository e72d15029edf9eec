#include "cuda/stepper/cuda_device.h"

#include "cuda/device/device.h"
#include "cuda/one_launch/one_launch.h"
#include "cuda/stepper/graph_stepper.h"
#include "error.h"

namespace focus::gpu {

namespace {

enum class Form { operations, graph, fused, one };

struct Choice {
  Form form;
  std::string why_not;  // something faster; "" if there is nothing faster
};

Choice choose(const StepSettings& s) {
  const std::string fused_problem =
      fits_fused_blocks(s.model) ? ""
                                 : str("d-model ", s.model.d_model, ", d-mlp ", s.model.d_mlp, ", ",
                                       s.model.attention.heads, " head(s) on ", device().name);
  if (s.form == "operations" || s.form == "graph")
    return {s.form == "graph" ? Form::graph : Form::operations, "--launch " + s.form};
  if (s.form == "fused") {
    if (!fused_problem.empty()) fail_input("--launch fused: not for this model: ", fused_problem);
    return {Form::fused, "--launch fused"};
  }
  const std::string one_problem = one_launch_problem(s.model, s.batch);
  if (s.form == "one") {
    if (!one_problem.empty()) fail_input("--launch one: not for this model: ", one_problem);
    return {Form::one, ""};
  }
  if (s.form == "auto" && one_problem.empty()) return {Form::one, ""};
  if (s.form != "auto" && s.form != "off")
    fail_input("--launch ", s.form, ": use operations, graph, fused or one");
  return {fused_problem.empty() ? Form::fused : Form::graph,
          s.form == "off" ? "--step-kernel off" : one_problem};
}

// The GPUs that are like the first: others would round differently, and which of them makes a run
// must not matter.
std::vector<int> alike() {
  std::vector<int> numbers;
  for (int number = 0; number < device_count(); ++number)
    if (device(number).name == device(0).name && device(number).compute == device(0).compute &&
        device(number).multiprocessors == device(0).multiprocessors)
      numbers.push_back(number);
  return numbers;
}

int count_devices() {
  return int(alike().size());
}

std::unique_ptr<Device> make_device(int number) {
  return std::make_unique<CudaDevice>(alike().at(size_t(number)));
}

}  // namespace

CudaDevice::CudaDevice(int number) : number_(number) {
  device();  // says so if there is none
}

std::string CudaDevice::hardware() const {
  use_device(number_);
  const DeviceInfo& d = device();
  return emulated() ? d.name : str(d.name, ", CUDA ", d.runtime / 1000, ".", d.runtime % 1000 / 10);
}

// Only the precision can be one: for every model there is a list of kernels.
std::string CudaDevice::problem(const StepSettings& s) const {
  use_device(number_);
  const Choice choice = choose(s);
  if (s.precision == Precision::fp32) return "";
  if (choice.form != Form::one && choice.form != Form::fused)
    return s.form == "operations" || s.form == "graph"
               ? choice.why_not
               : str("d-model ", s.model.d_model, ", d-mlp ", s.model.d_mlp, ", ",
                     s.model.attention.heads, " head(s) on ", device().name);
  return tensor_core_problem();
}

std::string CudaDevice::explain(const StepSettings& s) const {
  use_device(number_);
  const Choice choice = choose(s);
  const char* how =
      choice.form == Form::one          ? "one launch makes many of them"
      : choice.form == Form::operations ? "a list of kernels, each started by the host"
      : choice.form == Form::graph      ? "a list of kernels, recorded once"
                                   : "a list of kernels, most of a block in two, recorded once";
  return str("steps: ", how, choice.why_not.empty() ? "" : " (" + choice.why_not + ")",
             s.precision == Precision::fp32 ? "" : str(", products in ", name_of(s.precision)));
}

std::unique_ptr<Stepper> CudaDevice::make_stepper(const StepSettings& settings,
                                                  std::vector<StepRun> runs) {
  use_device(number_);
  const Form form = choose(settings).form;
  if (form == Form::one) return std::make_unique<OneLaunch>(settings, std::move(runs));
  return std::make_unique<GraphStepper>(settings, std::move(runs), form == Form::fused,
                                        form != Form::operations);
}

Device::Facts CudaDevice::facts() const {
  use_device(number_);
  uint64_t started = 0;
  for (const LaunchCount& kernel : launches_so_far()) started += kernel.launches;
  return {device().multiply_adds, started, double(device().memory)};
}

std::vector<Device::KernelTime> CudaDevice::time_kernels(const std::function<void()>& work) {
  use_device(number_);
  std::vector<KernelTime> all;
  for (const LaunchCount& k : time_launches(work)) all.push_back({k.kernel, k.launches, k.ms});
  return all;
}

void register_device() {
  known_devices().push_back({"cuda", device_problem, count_devices, make_device, !emulated()});
}

}  // namespace focus::gpu
