// The transformer's blocks, operation by operation: for every model.
#include "cuda/stepper/model_pass.h"

namespace focus::gpu {

namespace {

// N rows of all runs, of C channels; HC: of all heads; F: of the MLP.
class PlainBlocks final : public Blocks {
 public:
  PlainBlocks(const ModelOnDevice& model, int B, bool training, uint32_t& site, Scratch& scratch,
              Layout& layout)
      : model_(model),
        settings_(model.settings),
        attention_(settings_.attention, model.runs, B, settings_.length, settings_.d_model,
                   model.precision, training, *model.lists),
        training_(training),
        per_run_(B * settings_.length),
        rows_(per_run_ * model.runs.count),
        scratch_(scratch) {
    const size_t N = size_t(rows_), C = size_t(settings_.d_model), F = size_t(settings_.d_mlp);
    const size_t HC = size_t(settings_.attention.heads) * C;
    for (const ParameterPlaces::Block& at : model.at.blocks) {
      BlockMemory b = blocks_.empty() || training ? BlockMemory{} : blocks_.back();
      if (blocks_.empty() || training) {  // in evaluation all blocks use the first one's memory
        b.normed = layout.take<float>(N * C), b.rstd = layout.take<float>(N);
        b.q = layout.take<float>(N * HC), b.k = layout.take<float>(N * HC);
        b.v = layout.take<float>(N * HC), b.attended = layout.take<float>(N * HC);
        b.kept = attention_.take_kept(layout);
        b.middle = layout.take<float>(N * C);
        b.middle_normed = layout.take<float>(N * C), b.middle_rstd = layout.take<float>(N);
        b.hidden = layout.take<float>(N * F), b.active = layout.take<float>(N * F);
        if (training) b.y = layout.take<float>(N * C);
      }
      blocks_.push_back(b);
      noise_.emplace_back(model, training, site);
      scratch.need(attention_.scratch_bytes(b.kept));
      if (training)
        for (const ParameterPlaces::Layer& l : {at.q, at.o, at.mlp_in, at.mlp_out})
          scratch.need(linear_part_floats(model.runs, size(l)) * sizeof(float));
    }
    branch_ = layout.take<float>(N * C);
    if (!training) return;
    d_normed_ = layout.take<float>(N * C), d_hidden_ = layout.take<float>(N * F);
    d_attended_ = layout.take<float>(N * HC), dq_ = layout.take<float>(N * HC);
    dk_ = layout.take<float>(N * HC), dv_ = layout.take<float>(N * HC);
  }

  float* forward(float* x, Streams& streams, const VisitAttention& visit) override {
    const int C = settings_.d_model;
    void* const stream = streams.main();
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const ParameterPlaces::Block& at = model_.at.blocks[i];
      const BlockNoise& noise = noise_[i];
      BlockMemory& b = blocks_[i];
      b.x = x;
      if (!training_) b.y = x;
      layer_norm_forward(rows_, C, epsilon(i), x, b.normed, b.rstd, stream);
      linear(at.q, b.normed, b.q, stream);
      linear(at.k, b.normed, b.k, stream);
      linear(at.v, b.normed, b.v, stream);
      if (visit) visit(int(i), x, b.q, b.k);
      attention_.forward(b.kept, b.q, b.k, b.v, b.attended, noise.random_keys, noise.attention,
                         streams, scratch_.memory);
      linear(at.o, b.attended, branch_, stream);
      dropout(x, branch_, noise.out, C, b.middle, stream);

      layer_norm_forward(rows_, C, settings_.layer_norm_epsilon, b.middle, b.middle_normed,
                         b.middle_rstd, stream);
      linear(at.mlp_in, b.middle_normed, b.hidden, stream);
      if (drops(noise.hidden))
        dropout(nullptr, b.hidden, noise.hidden, settings_.d_mlp, b.hidden, stream);
      activation_forward(settings_.activation, hidden_numbers(), b.hidden, b.active, stream);
      linear(at.mlp_out, b.active, branch_, stream);
      dropout(b.middle, branch_, noise.mlp_out, C, b.y, stream);
      x = b.y;
    }
    return x;
  }

  // d is the gradient of a block's output, then, as both branches' gradients are added to it, that
  // of its middle and of its input.
  float* backward(float* d, Streams& streams) override {
    const int C = settings_.d_model;
    void* const stream = streams.main();
    for (size_t i = blocks_.size(); i-- > 0;) {
      const ParameterPlaces::Block& at = model_.at.blocks[i];
      const BlockNoise& noise = noise_[i];
      const BlockMemory& b = blocks_[i];
      linear_back(at.mlp_out, b.active, of_branch(d, noise.mlp_out, stream), d_hidden_, false,
                  stream);
      activation_backward(settings_.activation, hidden_numbers(), b.hidden, d_hidden_, d_hidden_,
                          stream);
      if (drops(noise.hidden))
        dropout(nullptr, d_hidden_, noise.hidden, settings_.d_mlp, d_hidden_, stream);
      linear_back(at.mlp_in, b.middle_normed, d_hidden_, d_normed_, false, stream);
      layer_norm_backward(rows_, C, b.middle_normed, b.middle_rstd, d_normed_, d, true, stream);

      linear_back(at.o, b.attended, of_branch(d, noise.out, stream), d_attended_, false, stream);
      attention_.backward(b.kept, b.q, b.k, b.v, b.attended, d_attended_, dq_, dk_, dv_, streams,
                          scratch_.memory);
      linear_back(at.q, b.normed, dq_, d_normed_, false, stream);
      linear_back(at.k, b.normed, dk_, d_normed_, true, stream);
      linear_back(at.v, b.normed, dv_, d_normed_, true, stream);
      layer_norm_backward(rows_, C, b.normed, b.rstd, d_normed_, d, true, stream);
    }
    return d;
  }

 private:
  struct BlockMemory {
    float *x, *y;  // input and output
    float *normed, *rstd, *q, *k, *v, *attended;
    AttentionPlan::Kept kept;
    float *middle, *middle_normed, *middle_rstd, *hidden, *active;
  };

  double epsilon(size_t block) const {
    return block == 0 ? settings_.first_layer_norm_epsilon : settings_.layer_norm_epsilon;
  }
  size_t hidden_numbers() const { return size_t(rows_) * size_t(settings_.d_mlp); }
  static bool drops(const DropoutDraw& draw) { return draw.last_dropped >= 0; }
  LinearSize size(const ParameterPlaces::Layer& l) const { return {per_run_, l.in, l.out}; }
  void linear(const ParameterPlaces::Layer& l, const float* x, float* y, void* stream) const {
    linear_forward(model_.runs, size(l), x, model_.layer(l), y, stream);
  }
  void linear_back(const ParameterPlaces::Layer& l, const float* x, const float* dy, float* dx,
                   bool accumulate, void* stream) const {
    linear_backward(model_.runs, size(l), x, model_.layer(l).weight, dy, dx, accumulate,
                    model_.gradient(l), scratch_.floats(), stream);
  }
  void dropout(const float* base, const float* x, const DropoutDraw& draw, int channels, float* y,
               void* stream) const {
    add_dropout(model_.runs, size_t(per_run_) * size_t(channels), base, x, draw, y, stream);
  }
  // The gradient of a branch before its dropout, from that of the sum that it was added to.
  const float* of_branch(const float* d, const DropoutDraw& draw, void* stream) const {
    if (!drops(draw)) return d;
    dropout(nullptr, d, draw, settings_.d_model, branch_, stream);
    return branch_;
  }

  const ModelOnDevice& model_;
  const ModelSettings& settings_;
  AttentionPlan attention_;
  bool training_;
  int per_run_, rows_;
  Scratch& scratch_;
  std::vector<BlockMemory> blocks_;
  std::vector<BlockNoise> noise_;
  float *branch_ = nullptr, *d_normed_ = nullptr, *d_hidden_ = nullptr, *d_attended_ = nullptr;
  float *dq_ = nullptr, *dk_ = nullptr, *dv_ = nullptr;
};

}  // namespace

std::unique_ptr<Blocks> plain_blocks(const ModelOnDevice& model, int B, bool training,
                                     uint32_t& site, Scratch& scratch, Layout& layout) {
  return std::make_unique<PlainBlocks>(model, B, training, site, scratch, layout);
}

}  // namespace focus::gpu
