// The command line: help, unknown words, values that are no values.
#include "cli.h"

using namespace focus;
using namespace focus::cli;

TEST_CASE("cli: help and version on every level") {
  const Place place;
  const std::vector<Words> commands = {{},
                                       {"train"},
                                       {"resume"},
                                       {"predict"},
                                       {"show"},
                                       {"eval"},
                                       {"check"},
                                       {"data"},
                                       {"bench"},
                                       {"data", "generate"},
                                       {"data", "verify"},
                                       {"bench", "step"}};
  for (const Words& command : commands) {
    const std::string text = place.done(command + "--help");
    for (const std::string& word : command) CHECK(text.find(word) != std::string::npos);
    CHECK(text.size() > 200);
    if (command.size() != 1 || (command[0] != "data" && command[0] != "bench"))
      CHECK(text.find("Example: focus") != std::string::npos);
  }
  const std::string train = place.done("train --help");
  for (const char* word : {"list-operations", "--seeds", "--first-layer-norm-epsilon", "0.9995"})
    CHECK(train.find(word) != std::string::npos);
  const std::string version = place.done("--version");
  CHECK(version.starts_with("focus "));
  const bool no_cuda = place.run({"train", "--task", "even-pairs", "--device", "cuda"})
                           .err.find("this build has no CUDA") != std::string::npos;
  CHECK((version.find("CPU only") != std::string::npos) == no_cuda);
}

TEST_CASE("cli: unknown commands, flags and names suggest the nearest") {
  const Place place;
  place.refuses({}, "needs a command");
  place.refuses("data", "generate verify");
  place.refuses("trian", "did you mean train?");
  place.refuses("data generat", "did you mean generate?");
  place.refuses("xyzzy", "unknown command 'xyzzy'");
  place.refuses("a\xc2\x9bm", "unknown command 'a?m'");  // nothing that a terminal obeys
  place.refuses("--versoin", "did you mean --version?");
  place.refuses("train --task parity --lenght 4", "did you mean --length?");
  place.refuses("train --task parity -k 4", "did you mean --k?");
  place.refuses({"predict", "--chekpoint=f", "0 1"}, "did you mean --checkpoint?");
  place.refuses("train --task parrity", "did you mean parity?");
  place.refuses("train --task parity --attention tokp", "use full, banded, block");
  place.refuses("train --task parity --activation tanh", "use relu");
  place.refuses("train --task parity --optimizer lion", "use sgd or adam");
  place.refuses("train --task parity again", "'again' is one argument too many");
  place.refuses("train", "--task");
  place.refuses("resume", "DIR");
  place.refuses("check", "FILE");
  place.refuses("eval --checkpoint f", "--data");
  place.refuses("train --task parity --k", "--k");
  place.refuses("train --task parity --k 1 --k 2", "--k");
  place.refuses("train --task parity --device tpu", "'tpu' is not a device");
}

TEST_CASE("cli: values out of their range are refused, by name") {
  const Place place;
  const Words topk = "train --task parity --attention topk";
  const auto bad = [&](const std::string& flag, const std::string& value, const char* says = "") {
    Words words = topk + "--k 5";
    if (flag == "k") words = topk;
    place.refuses(words + Words{"--" + flag, value}, "--" + flag);
    place.refuses(words + Words{"--" + flag + "=" + value}, says);
  };
  place.refuses(topk, "needs --k");
  bad("k", "0", "--k");
  bad("k", "41", "between 1 and 40");
  bad("k", "-1", "-1 is not between");
  bad("k", "abc", "'abc' is not a whole number");
  bad("k", "5.5", "'5.5' is not a whole number");
  bad("k", "5x", "not a whole number");
  place.refuses(topk + Words{"--k", ""}, "--k: '' is not a whole number");
  bad("k", "99999999999", "out of range");
  bad("k", "99999999999999999999999", "out of range");
  bad("global-tokens", "1", "banded or block, not topk");
  for (const char* flag : {"epochs", "batch", "blocks", "heads", "d-model", "d-mlp", "train-size",
                           "val-size", "length", "seeds", "threads"})
    for (const char* value : {"0", "-3", "1000000000", "many"}) bad(flag, value);
  for (const char* value : {"inf", "nan", "1e999", "-1", "0", "fast"}) bad("lr", value);
  for (const char* value : {"1", "-0.1", "nan"}) bad("dropout", value);
  bad("lr-decay", "0", "(0, 2]");
  bad("lr-decay", "-inf", "not a finite number");
  bad("clip", "-1");
  bad("layer-norm-epsilon", "-1");
  bad("seed", "-1", "--seed: -1");
  bad("seed", "9223372036854775808", "out of range");
  place.refuses(topk + "--k 5 --seeds 11", "the paper has only 10");
  place.refuses(topk + "--k 5 --seed 9223372036854775807 --seeds 2", "--seed");
  const Words huge = "--blocks 1000 --d-model 4096 --d-mlp 16384";
  place.refuses(topk + huge + "--k 5 --heads 256", "GB of memory");
  place.refuses("train --task parity --k -1", "--k -1 is negative");
  place.refuses({"train", "--task", "parity", "--train-data", ""},
                "--train-data: the name is empty");
  place.refuses({"train", "--task", "parity", "--out", ""}, "--out: the name is empty");
}

TEST_CASE("cli: standard output that cannot be written") {
  const Place place;
  if (fs::exists("/dev/full")) {
    const Outcome outcome = place.run("--help", 0, "/dev/full");
    CHECK(outcome.status == 2);
    CHECK(outcome.err.starts_with("focus: cannot write to standard output"));
  }
  // A reader that has gone away is no error: focus … | head.
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  const Outcome outcome = place.run("--help", 0, str("/dev/fd/", ends[1]));
  ::close(ends[1]);
  CHECK(outcome.status == 0);
  CHECK(outcome.err.empty());
}

TEST_CASE("cli: bench step ends with its time, and refuses as the others do") {
  const Place place;
  const Words small =
      "bench step --length 7 --blocks 1 --d-model 8 --d-mlp 8 --batch 3 --repeats 3";
  for (const Words& more : std::vector<Words>{
           {},
           {"--attention", "topk", "--k", "3", "--threads", "2"},
           {"--attention", "block", "--k", "3", "--global-tokens", "2", "--activation", "mish"},
           {"--attention", "random", "--k", "2", "--optimizer", "adam", "--heads", "2"},
           {"--score-scale", "4"},
           {"--seeds", "3", "--threads", "2"}}) {
    const std::string text = place.done(small + more);
    const std::string last = text.substr(text.rfind('\n', text.size() - 2) + 1);
    CHECK(last.starts_with("ms_per_step "));
    CHECK(std::atof(last.substr(12).c_str()) > 0);
    CHECK((text.find("scaling") != std::string::npos) == (more.size() > 0 && more[0] == "--seeds"));
  }
  place.refuses("bench step --attention topk", "needs --k");
  place.refuses("bench step --attention topk --k 41", "--k: 41");
  place.refuses("bench step --batch 0", "--batch: 0");
  place.refuses("bench step --dropout 1", "--dropout: 1");
  for (const char* bad : {"0", "-1", "nan", "inf"})
    place.refuses({"bench", "step", "--score-scale", bad}, "--score-scale");
  place.refuses("bench step --global-tokens 1", "global tokens go with");
  place.refuses("bench step --device gpu", "'gpu' is not a device");
  place.refuses("bench step --launch two", "use operations, graph, fused or one");
  place.refuses("bench step --precision fp8", "--precision: precision 'fp8' is unknown");
  place.refuses("bench step --precision tf32", "--precision tf32 is for --device cuda");
  place.refuses("bench step --launch graph", "--launch is for --device cuda");
  place.refuses("bench step --kernels", "--kernels is for --device cuda");
  place.refuses("bench step --batch 100000 --length 16384", "GB of memory");
}
