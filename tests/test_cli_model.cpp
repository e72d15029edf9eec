// focus predict, show, eval, check, and weights that are not what they should be.
#include <cmath>
#include <cstring>

#include "cli.h"
#include "files/safetensors.h"

using namespace focus;
using namespace focus::cli;

namespace {

std::string trained(const Place& place) {
  place.done(small_run("run", 2));
  return "run/" + first_seed + "/last.safetensors";
}

// The number after a word in a text.
double number_after(const std::string& text, const std::string& word) {
  const size_t at = text.find(word);
  REQUIRE(at != std::string::npos);
  return std::atof(text.c_str() + at + word.size());
}

}  // namespace

TEST_CASE("cli: predict, show and eval agree with the run") {
  const Place place;
  const std::string file = trained(place);
  const std::string text = place.done({"predict", "--checkpoint", file, "0 1 1 0 1"});
  const double zero = number_after(text, "\n    0 "), one = number_after(text, "\n    1 ");
  CHECK(std::abs(zero + one - 1) < 2e-6);
  CHECK(number_after(text, "predicted ") == (one > zero ? 1 : 0));
  CHECK(text.find("(the rule says 1)") != std::string::npos);  // 0≠1, 1≠0, 0≠1: odd

  const std::string shown = place.done({"show", file});
  // 3 ids, one block of 4 attention and 2 MLP layers, 2 classes; all of width 8.
  CHECK(number_after(shown, "of them ") == 3 * 8 + 6 * (8 * 8 + 8) + 2 * 8 + 2);
  CHECK(shown.find("[1, 12, 8]") != std::string::npos);  // positions of 10 tokens, padded to 12

  // The held-out set of that seed, as a file: the loss in metrics.csv comes out again.
  place.done("data generate --task even-pairs --count 50 --length 10 --split held-out --out v.tsv");
  const std::string result =
      place.done({"eval", "--checkpoint", file, "--data", "v.tsv", "--logits", "logits.csv"});
  std::string metrics = read_all(place / "run/metrics.csv");
  metrics = metrics.substr(metrics.rfind("\n2,") + 1);
  std::vector<double> columns;
  std::stringstream line(metrics);
  for (std::string cell; std::getline(line, cell, ',');) columns.push_back(std::stod(cell));
  CHECK(std::abs(number_after(result, "loss ") - columns[4]) < 1e-6);
  CHECK(number_after(result, "accuracy ") == columns[5]);
  const std::string logits = read_all(place / "logits.csv");
  CHECK(logits.starts_with("row,label,logit_0,logit_1\n1,"));
  CHECK(std::count(logits.begin(), logits.end(), '\n') == 51);
}

TEST_CASE("cli: predict takes tokens with brackets as they are") {
  const Place place;
  place.done(
      "train --task list-operations --length 30 --d-model 4 --d-mlp 4 --blocks 1 --train-size 20 "
      "--epochs 1 --out run --val-size 10");
  const std::string file = "run/" + first_seed + "/last.safetensors";
  const std::string text = place.done({"predict", "--checkpoint", file, "[MAX 3 ( 4 ) ]"});
  CHECK(text.starts_with("list-operations, 4 tokens\n"));
  CHECK(text.find("(the rule says 4)") != std::string::npos);
}

TEST_CASE("cli: predict and eval refuse") {
  const Place place;
  const std::string file = trained(place);
  place.refuses({"predict", "--checkpoint", file, "0 1 2"}, "unknown token '2'");
  place.refuses({"predict", "--checkpoint", file, ""}, "empty");
  place.refuses({"predict", "--checkpoint", file, "0 0 0 0 0 0 0 0 0 0 0 0 0"}, "room for 12");
  place.refuses({"predict", "--checkpoint", file, "0", "1"}, "'1' is one argument too many");
  place.refuses("predict --checkpoint none 0", "cannot read none");
  place.refuses("predict --checkpoint run 0", "it is a folder");
  place.refuses({"predict", "--checkpoint", (golden_folder() / "topk.safetensors").string(), "0"},
                "task");
  write_all(place / "mine", "mine");
  place.refuses({"eval", "--checkpoint", file, "--data", "none", "--logits", "mine"},
                "there already");
  write_all(place / "long.tsv", "Source\tTarget\n0 1\t1\n0 0 0 0 0 0 0 0 0 0 0 0 0\t0\n");
  place.refuses({"eval", "--checkpoint", file, "--data", "long.tsv"}, "line 3: 13 tokens");
  write_all(place / "good.tsv", "Source\tTarget\n0 1\t1\n");
  place.refuses({"eval", "--checkpoint", file, "--data", "good.tsv", "--logits", "none/l"}, "none");
}

TEST_CASE("cli: check passes on every golden file, and notices one changed value") {
  const Place place;
  Words files;
  for (const auto& entry : fs::directory_iterator(golden_folder()))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  REQUIRE(files.size() >= 6);
  const std::string text = place.done(Words("check") + files);
  CHECK(text.substr(text.rfind('\n', text.size() - 2) + 1).starts_with("passed: all "));

  const fs::path golden = golden_folder() / "topk.safetensors";
  for (const char* name : {"linear.weight", "expected.logits", "expected.loss",
                           "grad.encoder.transformer.0.attention.W_k.bias",
                           "step.encoder.transformer.1.ffn.0.weight"}) {
    const Safetensors original = Safetensors::read(golden);
    Safetensors changed;
    changed.metadata = original.metadata;
    for (StoredTensor tensor : original.tensors()) {
      if (tensor.name == name) {
        std::vector<double> values = original.values<double>(name);
        values.back() += 1e-3;
        changed.add(tensor.name, tensor.shape, std::span<const double>(values));
      } else {
        changed.add(tensor);
      }
    }
    changed.write(place / "changed.safetensors");
    const Outcome outcome = place.run("check --threads 1 changed.safetensors");
    CHECK(outcome.status == 1);
    CHECK(outcome.err.starts_with("focus: the check failed"));
    CHECK(outcome.out.find("\nFAILED: ") != std::string::npos);
  }
}

namespace {

std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

}  // namespace

TEST_CASE("cli: safetensors files that lie, wherever one is read") {
  const Place place;
  const std::string good = read_all(place / trained(place));
  const auto bad = [&](const std::string& bytes, const std::string& says) {
    write_all(place / "bad", bytes);
    place.refuses("show bad", says);
    place.refuses("check bad", says);
    place.refuses({"predict", "--checkpoint", "bad", "0 1"}, says);
  };
  bad("", "it has only 0 bytes");
  bad(good.substr(0, good.size() / 2), "bad: ");
  bad(good + "x", "belong to no tensor");
  bad("\xff\xff\xff\xff\xff\xff\xff\x7f" + good.substr(8), "the header claims");
  const auto entry = [](const char* type, const char* shape, const char* offsets) {
    return str("\"w\":{\"dtype\":\"", type, "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
               "}");
  };
  const std::string data(8, 'x');
  bad(with_header("{" + entry("F32", "[2]", "[0,8]"), data), "not JSON");
  bad(with_header("{" + entry("F32", "[2]", "[0,16]") + "}", data), "tensor w: data_offsets");
  bad(with_header("{" + entry("F32", "[3]", "[0,8]") + "}", data), "tensor w: shape [3]");
  bad(with_header("{" + entry("F32", "[-2]", "[0,8]") + "}", data), "tensor w: sizes");
  bad(with_header("{" + entry("F32", "[4611686018427387904,4]", "[0,8]") + "}", data), "too large");
  bad(with_header("{" + entry("F7", "[2]", "[0,8]") + "}", data), "the type F7 is not known");
  bad(with_header("{" + entry("F32", "[1]", "[0,4]") + "," +
                      replaced(entry("F32", "[2]", "[0,8]"), "w", "v") + "}",
                  data),
      "begins at byte");
  bad(with_header(std::string(10000, '[') + std::string(10000, ']'), data), "nested too deeply");
}

TEST_CASE("cli: weights that do not fit their settings") {
  const Place place;
  const Safetensors good = Safetensors::read(place / trained(place));
  const auto bad = [&](auto change, const std::string& says) {
    Safetensors file;
    file.metadata = good.metadata;
    change(file);
    file.write(place / "bad");
    place.refuses({"predict", "--checkpoint", "bad", "0 1"}, says);
    fs::copy(place / "run", place / "copy", fs::copy_options::recursive);
    fs::copy(place / "bad", (place / "copy") / first_seed / "last.safetensors",
             fs::copy_options::overwrite_existing);
    place.refuses("resume copy --epochs 3", "tensor");
    fs::remove_all(place / "copy");
  };
  const std::string name = "encoder.transformer.0.ffn.0.weight";
  bad(
      [&](Safetensors& file) {
        for (const StoredTensor& tensor : good.tensors())
          if (tensor.name != name) file.add(tensor);
      },
      "tensor " + name + " is missing");
  bad(
      [&](Safetensors& file) {
        for (StoredTensor tensor : good.tensors()) {
          if (tensor.name == name) tensor.shape = {4, 16};
          file.add(tensor);
        }
      },
      "tensor " + name + " has shape [4, 16]");
  bad(
      [&](Safetensors& file) {
        for (StoredTensor tensor : good.tensors()) {
          if (tensor.name == name) std::memset(&tensor.bytes[16], 0xff, 4);
          file.add(tensor);
        }
      },
      "tensor " + name + " holds NaN at element 4");

  // Settings that claim a model far larger than the file: nothing of that size is allocated.
  Safetensors file = good;
  file.metadata["d_model"] = "4096", file.metadata["heads"] = "256";
  file.metadata["blocks"] = "1000";
  file.write(place / "huge");
  place.refuses({"predict", "--checkpoint", "huge", "0 1"}, "tensor embedding.weight has shape");
  for (const char* key : {"k", "blocks", "attention", "seq_len", "task"}) {
    file = good;
    file.metadata.erase(key);
    file.write(place / "missing");
    place.refuses({"predict", "--checkpoint", "missing", "0 1"}, key);
  }
}
