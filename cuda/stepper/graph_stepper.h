// Training steps as a list of kernels, recorded once as a graph and then repeated without the host.
//
// One batch of each run goes through every kernel. The data, the weights and the optimiser's state
// are on the device; an epoch's orders and rates go there when it begins.
#pragma once

#include <deque>

#include "cuda/stepper/model_pass.h"
#include "cuda/stepper/placed_runs.h"

namespace focus::gpu {

class GraphStepper final : public Stepper {
 public:
  // fused: with fused kernels for the blocks, which must fit (fits_fused_blocks). recorded: false
  // starts every kernel by itself, at every step.
  GraphStepper(const StepSettings& settings, std::vector<StepRun> runs, bool fused, bool recorded);

  void load(int run, const Model<float>& model, const Optimizer<float>& optimizer) override;
  void store(int run, Model<float>& model, Optimizer<float>& optimizer) const override;
  void set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) override;
  void move_to(const std::vector<PlanePoint>& points) override;
  std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                               const std::atomic<bool>& stop) override;
  void take_snapshot() override;
  std::optional<std::vector<Evaluation>> evaluate_snapshot(Split split,
                                                           const std::atomic<bool>& stop) override;
  std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) override;
  std::vector<AttentionInputs> attention_inputs(int run, Split split, int first,
                                                int count) override;

 private:
  // Passes over one split, so many sequences of each run at a time.
  struct Part {
    const PlacedRuns::Part* data;
    int batch;
    std::unique_ptr<ModelPass> full,
        last;  // a whole batch, and what is left over; either may be empty
    Record full_record, last_record;
    BatchSource source;

    int batches() const { return (data->rows + batch - 1) / batch; }
    bool is_full(int step) const { return (step + 1) * batch <= data->rows; }
    ModelPass& pass(int step) { return is_full(step) ? *full : *last; }
    Record& record(int step) { return is_full(step) ? full_record : last_record; }
  };
  // What the passes of one thread share.
  struct Desk {
    Streams streams;
    DeviceArray<Counters> counters;
    DeviceArray<char> memory;  // of one pass at a time
    ModelOnDevice model;

    Desk(Streams::Priority priority, const ModelOnDevice& of)
        : streams(priority), counters(1), model(of) {
      model.counters = counters.data();
    }
  };
  ModelOnDevice model_of(float* weights, bool fused) const;
  void place_passes(Desk& desk, std::initializer_list<Part*> parts, bool training);
  void begin(const std::vector<Epoch>& epochs, int first);
  void compute_gradients(ModelPass& pass);
  void train_step(ModelPass& pass);
  void evaluate_step(Part& part, ModelPass& pass);
  void run(Desk& desk, Part& part, int step, const std::function<void()>& work);
  std::vector<BadStep> bad_steps();

  StepSettings settings_;
  PlacedRuns runs_;
  bool recorded_;
  const int device_number_ = device_in_use();
  DeviceLists lists_;
  DeviceArray<uint64_t> seeds_;
  Desk training_, evaluation_;  // of the runs; of their snapshot
  DeviceArray<BadStep> bad_steps_;
  DeviceArray<double> squares_, row_loss_;
  DeviceArray<int> row_right_;
  DeviceArray<float> losses_;           // (R,steps of an epoch)
  Part train_, train_rows_, val_rows_;  // to train on; to evaluate
};

}  // namespace focus::gpu
