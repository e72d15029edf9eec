// focus stability and focus surface, as a user meets them.
#include <sys/stat.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "files/folder.h"
#include "files/safetensors.h"
#include "theory_golden.h"

using namespace focus;
using namespace focus::cli;
using nlohmann::json;

namespace {

// A model of two blocks in a fraction of a second: its last checkpoint.
std::string trained(const Place& place, const std::string& name, const Words& attention) {
  const Words run{"train", "--task",     "even-pairs", "--length", "11", "--d-model",
                  "8",     "--d-mlp",    "8",          "--blocks", "2",  "--train-size",
                  "60",    "--val-size", "20",         "--epochs", "1",  "--seed",
                  "3",     "--threads",  "1",          "--out",    name};
  place.done(run + attention);
  return name + "/seed-3/last.safetensors";
}

struct Models : Place {
  std::string full = trained(*this, "full", {"--attention", "full"}),
              topk = trained(*this, "topk", {"--attention", "topk", "--k", "3"});
  Models() {
    done({"data", "generate", "--task", "even-pairs", "--count", "30", "--length", "11", "--seed",
          "3", "--out", "d.tsv"});
  }
  json read(const std::string& name) const { return json::parse(read_all(*this / name)); }
};

// The file with one tensor changed, left out or added.
void change(const fs::path& from, const fs::path& to, const std::string& name,
            const std::function<void(Safetensors&, const StoredTensor&)>& other) {
  const Safetensors original = Safetensors::read(from);
  Safetensors changed;
  changed.metadata = original.metadata;
  for (const StoredTensor& tensor : original.tensors())
    if (tensor.name == name)
      other(changed, tensor);
    else
      changed.add(tensor);
  changed.write(to);
}

}  // namespace

TEST_CASE("cli: stability prints the contract's JSON, and with --out a table") {
  const Models m;
  const json alone = json::parse(m.done({"stability", "--checkpoint", m.full, "--data", "d.tsv"}));
  CHECK(alone.at("layers").size() == 2);
  CHECK(!alone.at("all").contains("delta_h"));
  CHECK(!alone.at("all").contains("Delta_h"));
  CHECK(!alone.at("all").contains("beta"));
  CHECK(!alone.contains("inequalities"));
  CHECK(alone["all"]["delta_s"].size() == 11);

  const std::string text = m.done({"stability", "--checkpoint", m.topk, "--data", "d.tsv", "--full",
                                   m.full, "--out", "s.json", "--samples", "30"});
  CHECK(text.find("delta_h") != std::string::npos);
  const json both = m.read("s.json");
  for (const char* name : {"delta_s", "delta_h", "Delta_h", "beta", "sensitivity"})
    for (const json& part : {both["all"], both["layers"][1]}) {
      double before = -1e300;
      for (const char* p : {"0", "1", "5", "10", "25", "50", "75", "90", "95", "99", "100"}) {
        CHECK(part.at(name).at(p).get<double>() >= before);
        before = part[name][p];
      }
    }
  for (const char* name : {"Upsilon", "Gamma", "B", "Xi"})
    CHECK(both["all"].at(name) == std::max(both["layers"][0].at(name).get<double>(),
                                           both["layers"][1].at(name).get<double>()));
  CHECK(alone.at("attention") == "full");
  CHECK(alone.at("length") == 11);
  CHECK(both.at("attention") == "topk(3)");
  CHECK(both.at("length") == 12);  // padded to a multiple of k
  REQUIRE(both.at("inequalities").size() == 4);
  const json& row = both["inequalities"][1];
  CHECK(row.at("percentile") == 90);
  CHECK(row.at("delta_s") == alone["all"]["delta_s"]["90"]);
  CHECK(row.at("Delta_h") == both["all"]["Delta_h"]["10"]);
  CHECK(row.at("weights_lhs").get<double>() ==
        doctest::Approx((row.at("delta_h").get<double>() +
                         std::log(2 * (1 + 1 / row.at("Delta_h").get<double>()))) /
                        row.at("delta_s").get<double>()));
  // Eleven tokens are padded to twelve: each of them is kept by some queries, three by each.
  const json few = json::parse(
      m.done({"stability", "--checkpoint", m.topk, "--data", "d.tsv", "--samples", "2"}));
  CHECK(few != both);
}

TEST_CASE("cli: stability where every key is kept has no separation, and no inequalities") {
  const Models m;
  const std::string all = trained(m, "all", {"--attention", "topk", "--k", "11"});
  const json j = json::parse(m.done({"stability", "--checkpoint", all, "--data", "d.tsv"}));
  CHECK(!j["all"].contains("Delta_h"));
  CHECK(j["all"]["delta_h"] == j["all"]["delta_s"]);
  CHECK(j["all"]["beta"]["0"] == 11);
  m.refuses({"stability", "--checkpoint", all, "--data", "d.tsv", "--full", m.full},
            "keeps all of its 11 keys");
}

TEST_CASE(
    "cli: golden files name no task: their tokens are ids, and the numbers those of another "
    "program") {
  const Place place;
  for (const char* name : {"full", "full_gelu_4heads_d32", "topk_gelu_2heads", "topk_k1",
                           "topk_k_is_length", "bottomk_k5"}) {
    const test::GoldenModel<double> golden(name);
    std::string rows = "Source\tTarget\n";
    for (int r = 0; r < golden.data.rows; ++r) {
      for (int t = 0; t < golden.data.length; ++t)
        rows += str(t > 0 ? " " : "", int(golden.data.tokens[size_t(r * golden.data.length + t)]));
      rows += str("\t", golden.data.labels[size_t(r)], "\n");
    }
    write_all(place / "d.tsv", rows);
    const std::string file = (golden_folder() / str(name, ".safetensors")).string();
    const Outcome outcome = place.run({"stability", "--checkpoint", file, "--data", "d.tsv"});
    REQUIRE_MESSAGE(outcome.status == 0, outcome.err);
    const json got = json::parse(outcome.out)["all"].flatten(),
               wanted = test::theory()["stability"][name]["all"].flatten();
    CHECK(got.size() == wanted.size());
    for (const auto& item : wanted.items()) {
      const std::string what = item.key();
      const double g = got.at(what), w = item.value();
      CHECK_MESSAGE(std::abs(g - w) <= 1e-6 * std::abs(w) + 1e-6, std::string(name), " ", what);
    }
    // Where every key is kept, that is said: the result has no Delta_h.
    CHECK((outcome.err.find("there is no Delta_h") != std::string::npos) ==
          (std::string(name) == "topk_k_is_length"));
  }
  // PAD behind a row, and global tokens behind that: the room is what they leave.
  write_all(place / "d.tsv", "Source\tTarget\n0 1 2 0 1\t3\n2 2\t0\n");
  const std::string file = (golden_folder() / "banded_even_3heads_global3.safetensors").string();
  const json got = json::parse(place.done({"stability", "--checkpoint", file, "--data", "d.tsv"}));
  CHECK(got["all"].contains("Delta_h"));
  place.done({"surface", "--checkpoint", file, "--data", "d.tsv", "--grid", "2"});
  write_all(place / "d.tsv", "Source\tTarget\n0 1 7\t3\n");
  place.refuses({"stability", "--checkpoint", file, "--data", "d.tsv"}, "unknown token '7'");
  const std::string causal = (golden_folder() / "causal_full_2heads.safetensors").string();
  for (const Words& command : {Words{"stability"}, Words{"surface", "--grid", "2"}})
    place.refuses(command + Words{"--checkpoint", causal, "--data", "d.tsv"},
                  "models that classify");
}

TEST_CASE("cli: stability refuses, and writes nothing") {
  const Models m;
  const Words base{"stability", "--data", "d.tsv", "--checkpoint"};
  m.refuses(base + Words{m.topk, "--samples", "31"}, "d.tsv has 30 rows");
  m.refuses(base + Words{m.topk, "--samples", "0"}, "--samples");
  m.refuses(base + Words{m.topk, "--full", m.topk}, "full attention is needed");
  m.refuses(base + Words{m.full, "--full", m.full}, "must be one that drops keys");
  m.refuses(base + Words{m.topk, "--out", "d.tsv"}, "nothing is overwritten");
  m.refuses(base + Words{m.topk, "--out", "none/s.json"}, "no folder none");
  m.refuses(base + "none", "cannot read none");
  const std::string wide = trained(m, "wide", {"--attention", "full", "--heads", "2"});
  m.refuses(base + Words{m.topk, "--full", wide}, "number of heads is 2");
  const std::string sharp = trained(m, "sharp", {"--attention", "full", "--score-scale", "2"});
  m.refuses(base + Words{m.topk, "--full", sharp}, "score scale is 2");
  const std::string random = trained(m, "random", {"--attention", "random", "--k", "3"});
  m.refuses(base + Words{random}, "random");
  change(m / m.topk, m / "nan.safetensors", "linear.weight",
         [](Safetensors& file, const StoredTensor& t) {
           std::vector<float> values(t.count(), 0.5f);
           values[3] = std::nanf("");
           file.add(t.name, t.shape, std::span<const float>(values));
         });
  m.refuses(base + "nan.safetensors", "linear.weight");
  change(m / m.topk, m / "huge.safetensors", "encoder.transformer.1.attention.W_q.weight",
         [](Safetensors& file, const StoredTensor& t) {
           std::vector<float> values(t.count(), 3e38f);
           for (size_t i = 0; i < values.size(); i += 3) values[i] = -3e38f;
           file.add(t.name, t.shape, std::span<const float>(values));
         });
  const Outcome outcome = m.run(base + Words{"huge.safetensors", "--out", "huge.json"});
  CHECK(outcome.status == 1);
  CHECK(outcome.err.find("huge.safetensors: the scores of block 1 are not") != std::string::npos);
  CHECK(!fs::exists(m / "huge.json"));
  write_all(m / "long.tsv", "Source\tTarget\n0 1\t1\n0 0 0 0 0 0 0 0 0 0 0 0 0\t0\n");
  m.refuses({"stability", "--data", "long.tsv", "--checkpoint", m.topk}, "line 3: 13 tokens");
}

TEST_CASE("cli: surface, of two checkpoints, agrees with eval at its centre") {
  const Models m;
  m.done({"surface", "--checkpoint", m.full, m.topk, "--data", "d.tsv", "--grid", "3", "--range",
          "0.5", "--seed", "5", "--out", "s.json"});
  CHECK(!fs::exists(m / "s.json.partial"));
  const json both = m.read("s.json");
  REQUIRE(both.size() == 2);
  CHECK(both[0].at("axis") == std::vector<double>{-0.5, 0, 0.5});
  CHECK(both[0].at("samples") == 30);
  CHECK(both[0].at("attention") == "full");
  CHECK(both[1].at("attention") == "topk(3)");
  double squares = 0;
  const Safetensors weights = Safetensors::read(m / m.topk);
  for (const StoredTensor& t : weights.tensors())
    if (t.name.starts_with("e") || t.name.starts_with("l"))  // the parameters
      for (const float w : weights.values<float>(t.name)) squares += double(w) * double(w);
  CHECK(both[1].at("norm").get<double>() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
  const std::string eval = m.done({"eval", "--checkpoint", m.topk, "--data", "d.tsv"});
  CHECK(std::abs(std::atof(eval.c_str() + eval.find("loss ") + 5) -
                 both[1].at("losses")[1][1].get<double>()) < 1e-6);
  CHECK(both[0]["losses"] != both[1]["losses"]);
  // One of them alone is an object, with the same directions; another seed has others.
  const Words one{"surface", "--checkpoint", m.topk, "--data",    "d.tsv", "--grid",
                  "3",       "--range",      "0.5",  "--threads", "1",     "--seed"};
  CHECK(json::parse(m.done(one + "5"))["losses"] == both[1]["losses"]);
  CHECK(json::parse(m.done(one + "6"))["losses"] != both[1]["losses"]);
}

TEST_CASE("cli: surface along directions from files, X down the rows") {
  const Models m;
  // Only the classifier's bias moves: along X for class 0, along Y for class 1.
  const Safetensors weights = Safetensors::read(m / m.full);
  for (const int which : {0, 1}) {
    Safetensors file;
    for (const StoredTensor& t : weights.tensors()) {
      if (!t.name.starts_with("e") && !t.name.starts_with("l")) continue;  // no parameter
      std::vector<double> values(t.count(), 0.0);
      if (t.name == "linear.bias") values[size_t(which)] = 1;
      file.add(t.name, t.shape, std::span<const double>(values));
    }
    file.write(m / (which ? "y.safetensors" : "x.safetensors"));
  }
  const json j =
      json::parse(m.done({"surface", "--checkpoint", m.full, "--data", "d.tsv", "--grid", "2",
                          "--range", "9", "--directions", "x.safetensors", "y.safetensors"}));
  // At (9, -9) every row is of class 0, at (-9, 9) of class 1; together they are right everywhere.
  const double zeros = j.at("accuracies")[1][0], ones = j.at("accuracies")[0][1];
  CHECK(zeros + ones == doctest::Approx(100));
  int label_0 = 0;
  const std::string data = read_all(m / "d.tsv");
  for (size_t at = 0; (at = data.find("\t0\n", at)) != std::string::npos; ++at) ++label_0;
  CHECK(zeros == doctest::Approx(100.0 * label_0 / 30));

  const Words line{"surface", "--checkpoint", m.full, "--data", "d.tsv", "--grid", "2"};
  const auto refuses = [&](const std::string& says,
                           const std::function<void(Safetensors&, const StoredTensor&)>& other) {
    change(m / "x.safetensors", m / "z.safetensors", "linear.bias", other);
    m.refuses(line + "--directions z.safetensors y.safetensors", says);
    fs::remove(m / "z.safetensors");
  };
  refuses("linear.bias", [](Safetensors&, const StoredTensor&) {});
  refuses("'stray'", [](Safetensors& f, const StoredTensor& t) {
    f.add(t);
    f.add("stray", {2}, std::span<const double>(std::vector<double>{1, 2}));
  });
  refuses("linear.bias", [](Safetensors& f, const StoredTensor& t) {
    f.add(t.name, {1}, std::span<const double>(std::vector<double>{1}));
  });
  refuses("linear.bias", [](Safetensors& f, const StoredTensor& t) {
    f.add(t.name, {2}, std::span<const double>(std::vector<double>{1, HUGE_VAL}));
  });
}

TEST_CASE("cli: surface refuses, and writes nothing") {
  const Models m;
  const Words base{"surface", "--data", "d.tsv", "--checkpoint"};
  m.refuses(base + Words{m.full, "--grid", "1"}, "--grid");
  m.refuses(base + Words{m.full}, "--grid");
  m.refuses(base + Words{m.full, "--grid", "3", "--samples", "31"}, "d.tsv has 30 rows");
  m.refuses(base + Words{m.full, "--grid", "3", "--range", "0"}, "--range");
  m.refuses(base + Words{m.full, "--grid", "3", "--out", "d.tsv"}, "nothing is overwritten");
  const std::string wide = trained(m, "wide", {"--attention", "full", "--heads", "2"});
  m.refuses(base + Words{m.full, wide, "--grid", "3"}, "W_q.weight' is [16, 8]");
}

TEST_CASE("cli: a surface that another process is computing is refused at the start") {
  const Models m;
  const Words line{"surface", "--checkpoint", m.full,  "--data", "d.tsv", "--grid",
                   "3",       "--out",        "s.json"};
  {
    const FileLock other(m / "s.json");
    m.refuses(line, "s.json: another process is making it");
  }
  write_all(m / "s.json.lock", "mine");
  m.refuses(line, "s.json.lock: is no lock");
  CHECK(read_all(m / "s.json.lock") == "mine");
  // refuses() would read a pipe, and wait for ever.
  REQUIRE((fs::remove(m / "s.json.lock") && ::mkfifo((m / "s.json.lock").c_str(), 0600) == 0));
  const Outcome pipe = m.run(line);
  CHECK(pipe.status == 2);
  CHECK(pipe.err.find("s.json.lock: is no lock") != std::string::npos);
  REQUIRE((fs::is_fifo(m / "s.json.lock") && fs::remove(m / "s.json.lock")));
  write_all(m / "s.json.lock", "");  // left by a kill
  m.done(line);
  CHECK(!fs::exists(m / "s.json.lock"));
}

TEST_CASE("cli: a surface that is killed or stopped goes on, to the same bytes") {
  const Models m;
  const auto line = [&](const std::string& out) {
    return Words{"surface", "--checkpoint", m.full,      m.topk, "--data", "d.tsv",
                 "--grid",  "40",           "--threads", "1",    "--out",  out};
  };
  {
    Process process(line("s.json"), m.path());
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    process.send(SIGINT);
    const int status = process.wait();
    CHECK((status == 130 || status == 0 || status == -SIGINT));
    if (status == 130) {
      CHECK(fs::exists(m / "s.json.partial"));
      CHECK(!fs::exists(m / "s.json"));
      // Other settings do not touch it, nor does a damaged one go unnoticed.
      Words other = line("s.json");
      other[7] = "41";
      m.refuses(other, "s.json.partial");
      const std::string partial = read_all(m / "s.json.partial");
      write_all(m / "s.json.partial", partial.substr(0, partial.size() / 2));
      m.refuses(line("s.json"), "s.json.partial");
      write_all(m / "s.json.partial", partial);
    }
  }
  if (!fs::exists(m / "s.json")) m.done(line("s.json"));
  m.done(line("whole.json"));
  CHECK(read_all(m / "s.json") == read_all(m / "whole.json"));
  CHECK(!fs::exists(m / "s.json.partial"));
}
