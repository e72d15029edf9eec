// Feeds broken safetensors files to the reader. Run with `fuzz_safetensors SECONDS [SEED]`.
#include <cstring>

#include "files/safetensors.h"
#include "fuzz.h"

using namespace focus;

namespace {

// Whatever is accepted must be usable: read every tensor, write it all, read that again.
void read(const std::string& bytes) {
  const Safetensors file = Safetensors::parse(bytes, "fuzzed");
  for (const StoredTensor& tensor : file.tensors()) {
    accepts([&] { file.require_finite(tensor.name); });
    accepts([&] {
      if (is_float(tensor.dtype)) {
        file.values<float>(tensor.name, tensor.shape);
      } else {
        file.values<int32_t>(tensor.name, tensor.shape);
      }
    });
  }
  const std::string written = file.serialize();
  if (Safetensors::parse(written, "copy").serialize() != written) {
    throw std::logic_error("a file that was written and read is no longer the same");
  }
}

// Most mutations only make the header's length wrong. Correct it, so that they reach the JSON.
std::string with_true_length(std::string bytes) {
  const size_t brace = bytes.rfind("}}");
  if (bytes.size() < 8 || brace == std::string::npos || brace < 8) return bytes;
  const uint64_t length = brace + 2 - 8;
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  Safetensors small, mixed;
  small.add("w", {2}, std::vector<float>{1, 2});
  mixed.metadata = {{"k", "5"}, {"attention", "topk"}};
  mixed.add("embedding.weight", {3, 2}, std::vector<float>{1, -2, 3e38f, 0, 5, 6});
  mixed.add("input.tokens", {1, 3}, std::vector<int32_t>{0, 1, 2});
  mixed.add("expected.loss", {}, std::vector<double>{0.7});
  mixed.add("empty", {0}, std::vector<uint8_t>{});
  const std::vector<std::string> corpus = {small.serialize(), mixed.serialize()};
  return fuzz_main(argc, argv, "fuzz_safetensors", corpus, [](const std::string& bytes) {
    const std::string corrected = with_true_length(bytes);
    const bool accepted = corrected != bytes && accepts([&] { read(corrected); });
    return accepts([&] { read(bytes); }) || accepted;
  });
}
