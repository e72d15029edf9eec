#include "cuda/stepper/model_pass.h"

#include <algorithm>

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

namespace {

// Rows of N logits that are there at once, of a run's `rows`: 16 MiB, but no fewer than keep a GPU
// busy. It depends on one run's sizes alone, as its sums over rows must.
int rows_of_piece(int rows, int N) {
  constexpr int most_numbers = 1 << 22;
  return std::min(rows, std::max(512, most_numbers / N));
}

}  // namespace

ModelPass::ModelPass(const ModelOnDevice& model, int batch, bool training, Layout& layout)
    : B(batch), model_(model), training_(training) {
  const ModelSettings& s = model.settings;
  const int R = model.runs.count, T = s.length, C = s.d_model, N = s.classes;
  const size_t sequences = size_t(R) * size_t(B), rows = sequences * size_t(T);
  const size_t said = sequences * size_t(s.targets());
  embedding_ = {B, T, s.vocabulary, C};
  classifier_ = {B * s.targets(), C, N};
  piece_ = rows_of_piece(classifier_.rows, N);
  const size_t in_piece = piece_ < classifier_.rows ? size_t(piece_) : said;
  uint32_t site = 0;
  if (training && s.dropout > 0) dropout_ = model.draw(site, s.dropout);

  tokens = layout.take<int>(rows), labels = layout.take<int>(said);
  x_ = layout.take<float>(rows * size_t(C));
  mean_ = layout.take<float>(sequences * size_t(C));
  logits_ = layout.take<float>(in_piece * size_t(N));
  loss = layout.take<float>(size_t(R));
  losses_ = layout.take<double>(said), right_ = layout.take<uint8_t>(said);
  if (training) {
    d_mean_ = layout.take<float>(sequences * size_t(C));
    d_y_ = layout.take<float>(rows * size_t(C));
    for_pieces([&](const Piece& p) {
      scratch_.need(linear_part_floats(p.runs, {p.rows, C, N}) * sizeof(float));
    });
    scratch_.need(embedding_part_floats(model.runs, embedding_) * sizeof(float));
  }
  blocks_ = (model.fused ? fused_blocks : plain_blocks)(model, B, training, site, scratch_, layout);
  scratch_.memory = layout.take<char>(scratch_.bytes);
}

void ModelPass::for_pieces(const std::function<void(const Piece&)>& use) const {
  const Runs& all = model_.runs;
  const int M = classifier_.rows;
  if (piece_ == M) return use({all, 0, M, 0});
  for (int r = 0; r < all.count; ++r)
    for (int first = 0; first < M; first += piece_)
      use({{1, all.stride},
           size_t(r) * size_t(M) + size_t(first),
           std::min(piece_, M - first),
           size_t(r) * all.stride});
}

void ModelPass::make_logits(const Piece& p, Streams& streams) {
  const LinearLayer layer = model_.layer(model_.at.classifier);
  linear_forward(p.runs, {p.rows, classifier_.in, classifier_.out},
                 features_ + p.first * size_t(classifier_.in),
                 {layer.weight + p.own, layer.bias + p.own}, logits_, streams.main());
}

void ModelPass::for_logits(Streams& streams,
                           const std::function<void(size_t, size_t, float*)>& use) {
  for_pieces([&](const Piece& p) {
    make_logits(p, streams);
    use(p.first, size_t(p.rows) * size_t(p.runs.count), logits_);
  });
}

void ModelPass::forward(Streams& streams, const VisitAttention& visit) {
  const int sequences = model_.runs.count * B, T = embedding_.T, C = embedding_.C;
  if (training_) streams.fork();  // masks are drawn there
  embedding_forward(model_.runs, embedding_, tokens, model_.weights + model_.at.embedding,
                    model_.positions, x_, streams.main());
  if (dropout_.last_dropped >= 0)
    add_dropout(model_.runs, size_t(B) * size_t(T) * size_t(C), nullptr, x_, dropout_, x_,
                streams.main());
  y_ = features_ = blocks_->forward(x_, streams, visit);
  if (model_.settings.objective == Objective::causal) return;
  features_ = mean_;
  mean_tokens_forward(sequences, T, C, y_, mean_, streams.main());
}

void ModelPass::evaluate(Streams& streams, const BatchSource& source, const Counters* counters,
                         double* row_loss, int* row_right) {
  for_logits(streams, [&](size_t first, size_t rows, float* logits) {
    judge_logits(rows, classifier_.out, logits, labels + first, losses_ + first, right_ + first,
                 streams.main());
  });
  collect_rows(model_.runs, source, B, counters, losses_, right_, row_loss, row_right,
               streams.main());
}

void ModelPass::backward(Streams& streams) {
  const int sequences = model_.runs.count * B, T = embedding_.T, C = embedding_.C;
  const bool causal = model_.settings.objective == Objective::causal;
  float* const d_features = causal ? d_y_ : d_mean_;
  const LinearLayer layer = model_.layer(model_.at.classifier);
  const LinearGradient gradient = model_.gradient(model_.at.classifier);
  for_pieces([&](const Piece& p) {
    make_logits(p, streams);
    cross_entropy(size_t(p.rows) * size_t(p.runs.count), classifier_.out, logits_, labels + p.first,
                  1 / float(classifier_.rows), losses_ + p.first, streams.main());
    linear_backward(p.runs, {p.rows, C, classifier_.out}, features_ + p.first * size_t(C),
                    layer.weight + p.own, logits_, d_features + p.first * size_t(C), false,
                    {gradient.weight + p.own, gradient.bias + p.own}, scratch_.floats(),
                    streams.main());
  });
  mean_loss(model_.runs, classifier_.rows, losses_, loss, streams.main());
  if (!causal) mean_tokens_backward(sequences, T, C, d_mean_, d_y_, streams.main());
  float* dx = blocks_->backward(d_y_, streams);
  if (dropout_.last_dropped >= 0)
    add_dropout(model_.runs, size_t(B) * size_t(T) * size_t(C), nullptr, dx, dropout_, dx,
                streams.main());
  embedding_backward(model_.runs, embedding_, tokens, dx, model_.gradients + model_.at.embedding,
                     scratch_.floats(), streams.main());
}

}  // namespace focus::gpu
