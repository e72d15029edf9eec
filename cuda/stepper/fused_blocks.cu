// The transformer's blocks with all but attention in a few fused kernels
// (cuda/fast/blocks/block.cuh): one for the first block's norm and q, k, v; one for the rest of a
// block together with the next one's norm and q, k, v; one for the rest of the last. Below float32
// the evaluation of short sequences takes one kernel for everything.
#include <cmath>

#include "cuda/fast/blocks/block.cuh"
#include "cuda/stepper/model_pass.h"

namespace focus::gpu {

namespace {

FusedLayer fused(const ModelOnDevice& model, const ParameterPlaces::Layer& l) {
  return {model.weights + l.weight, model.weights + l.bias};
}

class FusedBlocks final : public Blocks {
 public:
  FusedBlocks(const ModelOnDevice& model, int B, bool training, uint32_t& site, Scratch& scratch,
              Layout& layout)
      : model_(model),
        attention_(model.settings.attention, model.runs, B, model.settings.length,
                   model.settings.d_model, model.precision, training, *model.lists),
        M_(B * model.settings.length),
        scratch_(scratch) {
    const ModelSettings& s = model.settings;
    const size_t N = size_t(M_) * size_t(model.runs.count), numbers = N * size_t(s.d_model);
    for (size_t i = 0; i < model.at.blocks.size(); ++i) {
      const ParameterPlaces::Block& at = model.at.blocks[i];
      noise_.emplace_back(model, training, site);
      Block b = i > 0 && !training ? blocks_.back() : Block{};
      if (i == 0 || training) {  // in evaluation all blocks use the first one's memory
        b.norm_qkv.stats = layout.take<float2>(N);
        for (float*& y : b.norm_qkv.y) y = layout.take<float>(numbers);
        b.attended = layout.take<float>(numbers);
        b.kept = attention_.take_kept(layout);
      }
      if (i < 2 || training) b.rest.y = layout.take<float>(numbers);  // in evaluation two in turns
      if (i >= 2 && !training) b.rest.y = blocks_[i - 2].rest.y;
      b.norm_qkv.precision = b.rest.precision = model.precision;
      b.norm_qkv.M = b.rest.M = M_;
      b.norm_qkv.stride = b.rest.stride = model.runs.stride;
      b.norm_qkv.epsilon = float(i == 0 ? s.first_layer_norm_epsilon : s.layer_norm_epsilon);
      b.rest.epsilon = float(s.layer_norm_epsilon), b.rest.activation = s.activation;
      b.rest.attended = b.attended, b.rest.scale = 1;
      const ParameterPlaces::Layer* first[] = {&at.q, &at.k, &at.v};
      const ParameterPlaces::Layer* second[] = {&at.o, &at.mlp_in, &at.mlp_out};
      for (size_t l = 0; l < 3; ++l) {
        b.norm_qkv.layers[l] = fused(model, *first[l]);
        b.rest.layers[l] = fused(model, *second[l]);
      }
      if (training) {
        b.rest.stats = layout.take<float2>(N);
        b.rest.middle = layout.take<float>(numbers), b.rest.hidden = layout.take<float>(numbers);
      }
      if (training && s.dropout > 0) {
        const DropoutDraw draws[] = {noise_[i].out, noise_[i].hidden, noise_[i].mlp_out};
        for (size_t m = 0; m < 3; ++m)
          b.rest.draws[m] = draws[m], b.rest.kept[m] = layout.take<unsigned char>(N * 8);
        b.rest.scale = draws[0].scale;
      }
      blocks_.push_back(b);
      scratch.need(attention_.scratch_bytes(b.kept));
    }
    if (!training) {
      const AttentionSettings& attention = s.attention;
      short_ = fits_short_sequences(model.precision, attention.pattern, attention.causal, s.length);
      all_.B = B, all_.T = s.length, all_.blocks = s.blocks;
      all_.k = attention.pattern == Pattern::full ? 0 : attention.k;
      all_.sign = attention.pattern == Pattern::bottomk ? -1 : 1;
      all_.scale = float(attention.score_scale) / std::sqrt(float(s.d_model));
      all_.activation = s.activation, all_.epsilon = float(s.layer_norm_epsilon);
      all_.first_epsilon = float(s.first_layer_norm_epsilon);
      all_.stride = model.runs.stride;
      all_.parameters = model.weights + model.at.blocks[0].q.weight;
      return;
    }
    other_d_ = layout.take<float>(numbers), d_attended_ = layout.take<float>(numbers);
    for (float*& d : d_qkv_) d = layout.take<float>(numbers);
    parts_ = layout.take<float>(part_floats_of(M_, blocks_.size() > 1 ? 6 : 3, model.runs.count));
  }

  float* forward(float* x, Streams& streams, const VisitAttention& visit) override {
    const int R = model_.runs.count;
    if (short_ && !visit) {
      ShortSequences a = all_;
      a.x = x, a.y = blocks_[0].rest.y;
      short_sequences(a, model_.precision, R, streams.main());
      return a.y;
    }
    blocks_[0].norm_qkv.x = x;
    norm_qkv_forward(blocks_[0].norm_qkv, R, streams.main());
    for (size_t i = 0; i < blocks_.size(); ++i) {
      Block& b = blocks_[i];
      if (visit) visit(int(i), x, b.norm_qkv.y[0], b.norm_qkv.y[1]);
      attention_.forward(b.kept, b.norm_qkv.y[0], b.norm_qkv.y[1], b.norm_qkv.y[2], b.attended,
                         noise_[i].random_keys, noise_[i].attention, streams, scratch_.memory);
      b.rest.x = x;
      if (b.rest.kept[0]) {
        draw_kept(b.rest, R, streams.ahead(Streams::Side::backward));
        streams.wait_for(Streams::Side::backward);
      }
      NormQkv* next = nullptr;
      if (i + 1 < blocks_.size()) next = &blocks_[i + 1].norm_qkv, next->x = b.rest.y;
      output_and_mlp_forward(b.rest, next, R, streams.main());
      x = b.rest.y;
    }
    return x;
  }

  float* backward(float* d, Streams& streams) override {
    const int R = model_.runs.count;
    float* dx = other_d_;
    for (size_t i = blocks_.size(); i-- > 0; std::swap(d, dx)) {
      Block& b = blocks_[i];
      const bool last = i + 1 == blocks_.size();
      NormQkv* next = last ? nullptr : &blocks_[i + 1].norm_qkv;
      b.rest.dy = d, b.rest.dx = dx, b.rest.d_attended = d_attended_;
      b.rest.parts = start_parts(streams);
      if (next) next->parts = b.rest.parts;
      output_and_mlp_backward(b.rest, next, R, streams.main());
      const ParameterPlaces::Block& at = model_.at.blocks[i];
      if (next) {
        const ParameterPlaces::Block& after = model_.at.blocks[i + 1];
        sum({&after.q, &after.k, &after.v, &at.o, &at.mlp_in, &at.mlp_out}, streams);
      } else {
        sum({&at.o, &at.mlp_in, &at.mlp_out}, streams);
      }
      attention_.backward(b.kept, b.norm_qkv.y[0], b.norm_qkv.y[1], b.norm_qkv.y[2], b.attended,
                          d_attended_, d_qkv_[0], d_qkv_[1], d_qkv_[2], streams, scratch_.memory);
      for (size_t l = 0; l < 3; ++l) b.norm_qkv.dy[l] = d_qkv_[l];
    }
    NormQkv& first = blocks_[0].norm_qkv;
    first.dx = d, first.add_dx = true;  // to the gradient that came around attention
    first.parts = start_parts(streams);
    norm_qkv_backward(first, R, streams.main());
    const ParameterPlaces::Block& at = model_.at.blocks[0];
    sum({&at.q, &at.k, &at.v}, streams);
    return d;
  }

 private:
  struct Block {
    NormQkv norm_qkv{};
    OutputAndMlp rest{};  // attention's output, the MLP and both residuals
    float* attended = nullptr;
    AttentionPlan::Kept kept;
  };

  // The layers' gradients in parts: the sums of the parts before these must be done.
  float* start_parts(Streams& streams) const {
    streams.wait_for(Streams::Side::backward);
    return parts_;
  }
  // Sums them, in the parts' order, beside what follows.
  void sum(std::initializer_list<const ParameterPlaces::Layer*> layers, Streams& streams) const {
    LayerGradients to{};
    for (const ParameterPlaces::Layer* layer : layers) {
      const LinearGradient gradient = model_.gradient(*layer);
      to.weight[to.layers] = gradient.weight, to.bias[to.layers++] = gradient.bias;
    }
    sum_parts(to, model_.precision, parts_, M_, model_.runs.stride, model_.runs.count,
              streams.beside(Streams::Side::backward));
  }

  const ModelOnDevice& model_;
  AttentionPlan attention_;
  bool short_ = false;  // one kernel makes all blocks:
  ShortSequences all_{};
  int M_;  // rows of each run
  Scratch& scratch_;
  std::vector<Block> blocks_;
  std::vector<BlockNoise> noise_;
  float *other_d_ = nullptr, *d_attended_ = nullptr, *d_qkv_[3] = {}, *parts_ = nullptr;
};

}  // namespace

bool fits_fused_blocks(const ModelSettings& s) {
  return s.d_model == 64 && s.d_mlp == 64 && s.attention.heads == 1 &&
         block_shared_bytes() <= device().shared_memory;
}

std::unique_ptr<Blocks> fused_blocks(const ModelOnDevice& model, int B, bool training,
                                     uint32_t& site, Scratch& scratch, Layout& layout) {
  return std::make_unique<FusedBlocks>(model, B, training, site, scratch, layout);
}

}  // namespace focus::gpu
