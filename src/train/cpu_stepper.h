// Training steps on the CPU: the model's operations, recorded on a tape.
#pragma once

#include <deque>

#include "train/stepper.h"

namespace focus {

// Forward and backward of one batch: tokens (rows,length), labels (rows,targets). Returns the loss;
// the gradients are in the model's parameters, the logits, where wanted, in *logits.
template <class T>
T compute_gradients(Model<T>& model, Tape<T>& tape, const int* tokens, const int* labels, int rows,
                    const Noise& noise, std::vector<T>* logits = nullptr);

// A whole training step: forward, backward, clip, update. Where loss or norm is not finite, there
// is no update.
template <class T>
struct CpuStep {
  T loss;
  double norm;  // of the gradient, before the clip
  bool finite() const;
};
template <class T>
CpuStep<T> train_step(Model<T>& model, Optimizer<T>& optimizer, Tape<T>& tape, const int* tokens,
                      const int* labels, int rows, const Noise& noise, double rate, double clip);

class CpuStepper final : public Stepper {
 public:
  // The tape is used by one stepper at a time; its memory serves the next one.
  CpuStepper(Tape<float>& tape, const StepSettings& settings, std::vector<StepRun> runs);

  void load(int run, const Model<float>& model, const Optimizer<float>& optimizer) override;
  void store(int run, Model<float>& model, Optimizer<float>& optimizer) const override;
  void set_plane(const Model<float>& centre, const Direction& X, const Direction& Y) override;
  void move_to(const std::vector<PlanePoint>& points) override;
  std::vector<StepsMade> train(const std::vector<Epoch>& epochs, int first, int count,
                               const std::atomic<bool>& stop) override;
  void take_snapshot() override {}
  std::optional<std::vector<Evaluation>> evaluate_snapshot(Split split,
                                                           const std::atomic<bool>& stop) override;
  std::vector<Gradients> gradients(const std::vector<Epoch>& epochs, int step) override;
  std::vector<AttentionInputs> attention_inputs(int run, Split split, int first,
                                                int count) override;

 private:
  struct State {
    Model<float> model;
    Optimizer<float> optimizer;
    explicit State(const StepSettings& s)
        : model(s.model), optimizer(s.optimizer, model.parameters()) {}
  };
  int gather(const PaddedData& data, const std::vector<int>& order, int step);
  Noise noise(size_t run, const Epoch& epoch, int step) const;

  Tape<float>& tape_;
  StepSettings settings_;
  std::vector<StepRun> runs_;
  std::deque<State> states_;
  struct {
    std::vector<std::vector<float>> centre;
    Direction X, Y;
  } plane_;
  std::vector<int> tokens_, labels_;  // one batch
};

}  // namespace focus
