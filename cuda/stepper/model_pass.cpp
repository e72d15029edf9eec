#include "cuda/stepper/model_pass.h"

namespace focus::gpu {

ParameterPlaces::ParameterPlaces(const ModelSettings& s) {
  const int C = s.d_model, HC = s.attention.heads * C, F = s.d_mlp;
  size_t next = size_t(s.vocabulary) * size_t(C);
  const auto layer = [&](int in, int out) {
    const size_t weight = next, bias = weight + size_t(in) * size_t(out);
    next = bias + size_t(out);
    return Layer{weight, bias, in, out};
  };
  for (int i = 0; i < s.blocks; ++i) {
    const Layer q = layer(C, HC), k = layer(C, HC), v = layer(C, HC), o = layer(HC, C);
    const Layer mlp_in = layer(C, F), mlp_out = layer(F, C);
    blocks.push_back({q, k, v, o, mlp_in, mlp_out});
  }
  classifier = layer(C, s.classes);
}

BlockNoise::BlockNoise(const ModelOnDevice& model, bool training, uint32_t& site) {
  const ModelSettings& s = model.settings;
  if (s.attention.pattern == Pattern::random) random_keys = model.draw(site, 0);
  if (!training) return;
  if (s.attention.dropout > 0) attention = model.draw(site, s.attention.dropout);
  if (s.dropout > 0)
    for (DropoutDraw* draw : {&out, &hidden, &mlp_out}) *draw = model.draw(site, s.dropout);
}

ModelPass::ModelPass(const ModelOnDevice& model, int batch, bool training, Layout& layout)
    : B(batch), model_(model), training_(training) {
  const ModelSettings& s = model.settings;
  const int R = model.runs.count, T = s.length, C = s.d_model, N = s.classes;
  const size_t sequences = size_t(R) * size_t(B), rows = sequences * size_t(T);
  embedding_ = {B, T, s.vocabulary, C};
  classifier_ = {B, C, N};
  uint32_t site = 0;
  if (training && s.dropout > 0) dropout_ = model.draw(site, s.dropout);

  tokens = layout.take<int>(rows), labels = layout.take<int>(sequences);
  x_ = layout.take<float>(rows * size_t(C));
  mean_ = layout.take<float>(sequences * size_t(C));
  logits = layout.take<float>(sequences * size_t(N));
  loss = layout.take<float>(size_t(R));
  row_losses_ = layout.take<double>(sequences);
  if (training) {
    d_logits_ = layout.take<float>(sequences * size_t(N));
    d_mean_ = layout.take<float>(sequences * size_t(C));
    d_y_ = layout.take<float>(rows * size_t(C));
    scratch_.need(linear_part_floats(model.runs, classifier_) * sizeof(float));
    scratch_.need(embedding_part_floats(model.runs, embedding_) * sizeof(float));
  }
  blocks_ = (model.fused ? fused_blocks : plain_blocks)(model, B, training, site, scratch_, layout);
  scratch_.memory = layout.take<char>(scratch_.bytes);
}

void ModelPass::forward(Streams& streams, const VisitAttention& visit) {
  const int sequences = model_.runs.count * B, T = embedding_.T, C = embedding_.C;
  if (training_) streams.fork();  // masks are drawn there
  embedding_forward(model_.runs, embedding_, tokens, model_.weights + model_.at.embedding,
                    model_.positions, x_, streams.main());
  if (dropout_.last_dropped >= 0)
    add_dropout(model_.runs, size_t(B) * size_t(T) * size_t(C), nullptr, x_, dropout_, x_,
                streams.main());
  y_ = blocks_->forward(x_, streams, visit);
  mean_tokens_forward(sequences, T, C, y_, mean_, streams.main());
  linear_forward(model_.runs, classifier_, mean_, model_.layer(model_.at.classifier), logits,
                 streams.main());
  if (training_)
    cross_entropy_forward(model_.runs, B, classifier_.out, logits, labels, row_losses_, loss,
                          streams.main());
}

void ModelPass::backward(Streams& streams) {
  const int sequences = model_.runs.count * B, T = embedding_.T, C = embedding_.C;
  cross_entropy_backward(model_.runs, B, classifier_.out, logits, labels, d_logits_,
                         streams.main());
  linear_backward(model_.runs, classifier_, mean_, model_.layer(model_.at.classifier).weight,
                  d_logits_, d_mean_, false, model_.gradient(model_.at.classifier),
                  scratch_.floats(), streams.main());
  mean_tokens_backward(sequences, T, C, d_mean_, d_y_, streams.main());
  float* dx = blocks_->backward(d_y_, streams);
  if (dropout_.last_dropped >= 0)
    add_dropout(model_.runs, size_t(B) * size_t(T) * size_t(C), nullptr, dx, dropout_, dx,
                streams.main());
  embedding_backward(model_.runs, embedding_, tokens, dx, model_.gradients + model_.at.embedding,
                     scratch_.floats(), streams.main());
}

}  // namespace focus::gpu
