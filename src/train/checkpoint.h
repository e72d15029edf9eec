// Models in safetensors files, under the names of the authors' PyTorch model, so that either side
// loads the other's weights. The settings are strings in the metadata.
#pragma once

#include "files/safetensors.h"
#include "model/model.h"

namespace focus {

inline constexpr const char* checkpoint_format = "1";

// A parameter's shape as files hold it.
Shape64 shape64(const Shape& shape);

// The model's settings in the metadata, under the keys of the authors' golden files (attention, k,
// global_tokens, heads, activation, d_model, d_mlp, blocks, seq_len, vocab, classes, dropout,
// layer_norm_eps, first_layer_norm_eps; score_scale and objective where they are not the usual
// ones). Reading throws InputError unless the file's weights have
// the shapes that these settings say.
void write_model_settings(Safetensors& file, const ModelSettings& settings);
ModelSettings read_model_settings(const Safetensors& file);

// All parameters, and pos_encoder.pe [1,length,d].
void write_weights(Safetensors& file, const Model<float>& model);
// Reads every parameter; pos_encoder.pe and all other tensors are ignored. InputError for a missing
// tensor, another shape, or a number that is not finite.
template <class T>
void read_weights(const Safetensors& file, Model<T>& model);

}  // namespace focus
