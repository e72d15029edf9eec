// focus train and focus resume: the folder they leave, and when they refuse.
#include <sys/stat.h>

#include <cstring>
#include <regex>

#include "cli.h"
#include "files/metrics.h"
#include "files/safetensors.h"
#include "train/store.h"

using namespace focus;
using namespace focus::cli;

namespace {

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    names.push_back(fs::relative(entry.path(), folder).string());
  std::sort(names.begin(), names.end());
  return names;
}

// After the lines on the epochs.
std::string last_line(const std::string& text) {
  const size_t end = text.rfind('\n');
  return text.substr(text.rfind('\n', end - 1) + 1);
}

// metrics.csv without its last column, the seconds.
std::string six_columns(const fs::path& run) {
  std::stringstream lines(read_all(run / "metrics.csv"));
  std::string text;
  for (std::string line; std::getline(lines, line);) text += line.substr(0, line.rfind(',')) + "\n";
  return text;
}

}  // namespace

TEST_CASE("cli: train leaves settings, metrics and checkpoints") {
  const Place place;
  const std::string text = place.done(small_run("a/run", 2) + "--seeds 2");
  CHECK(text.find("153476998") != std::string::npos);
  CHECK(names_in(place / "a/run") ==
        std::vector<std::string>{"metrics.csv", "seed-153476998", "seed-153476998/best.safetensors",
                                 "seed-153476998/last.safetensors", "seed-235510766",
                                 "seed-235510766/best.safetensors",
                                 "seed-235510766/last.safetensors", "settings.json"});
  const std::vector<EpochMetrics> rows = read_metrics(place / "a/run/metrics.csv");
  REQUIRE(rows.size() == 4);
  CHECK(rows[2].epoch == 2);
  CHECK(rows[3].seed == 235510766);
  const TrainPlan plan = read_plan(place / "a/run");
  CHECK(plan.settings.k == 3);
  CHECK(plan.settings.lr == 0.1);  // the paper's for the task

  // Seeds of one's own, and a folder named after the settings.
  place.done(
      "train --task parity --attention block --k 2 --global-tokens 1 --length 5 --d-model 4 "
      "--d-mlp 4 --blocks 1 --train-size 20 --val-size 10 --epochs 1 --seed 5 --seeds 2");
  CHECK(fs::exists(place / "out/train-parity-block-k2-g1/seed-6/last.safetensors"));
}

TEST_CASE("cli: threads change nothing, and one seed does not depend on the others") {
  const Place place;
  place.done(small_run("a", 2) + "--seeds 3 --threads 1");
  place.done(small_run("b", 2) + "--seeds 3 --threads 2");
  place.done(small_run("c", 2) + "--seed 235510766 --threads 3");
  CHECK(six_columns(place / "a") == six_columns(place / "b"));
  const std::string file = "seed-235510766/last.safetensors";
  CHECK(read_all(place / "a" / file) == read_all(place / "b" / file));
  CHECK(read_all(place / "a" / file) == read_all(place / "c" / file));
}

TEST_CASE("cli: --keep-at-loss keeps the first weights at that loss, also across a resume") {
  const Place place;
  place.done(small_run("whole", 4) + "--seeds 2");
  // A loss that both reach, one after its third epoch.
  const std::vector<EpochMetrics> rows = read_metrics(place / "whole/metrics.csv");
  double loss = 0;
  for (const EpochMetrics& row : rows)
    if (row.epoch == 3) loss = std::max(loss, row.train_loss);
  place.done(small_run("a", 4) + "--seeds 2 --keep-at-loss" + Words{number_text(loss)});
  place.done(small_run("b", 2) + "--seeds 2 --keep-at-loss" + Words{number_text(loss)});
  place.done("resume b --epochs 4");
  for (const uint64_t seed : {153476998u, 235510766u}) {
    const auto first = std::find_if(rows.begin(), rows.end(), [&](const EpochMetrics& row) {
      return row.seed == seed && row.train_loss <= loss;
    });
    REQUIRE(first != rows.end());
    place.done(small_run(str("short-", seed), first->epoch) + "--seed" + Words{str(seed)});
    const std::string kept = str("seed-", seed, "/at-loss.safetensors");
    const std::string wanted =
        read_all(place / str("short-", seed, "/seed-", seed, "/last.safetensors"));
    CHECK(read_all(place / "a" / kept) == wanted);
    CHECK(read_all(place / "b" / kept) == wanted);
  }
  place.done(small_run("never", 1) + "--keep-at-loss 1e-9");
  CHECK(!fs::exists(place / "never/seed-153476998/at-loss.safetensors"));
  place.refuses(small_run("none", 1) + "--keep-at-loss 0", "--keep-at-loss");
}

TEST_CASE("cli: full attention ignores k") {
  const Place place;
  const Words full = "--attention full";
  const Words small =
      "train --task parity --length 6 --d-model 4 --d-mlp 4 --blocks 1 --epochs 1 --train-size 20 "
      "--val-size 10 --out";
  place.done(small + "a" + full);
  place.done(small + "b --k 100" + full);
  CHECK(read_plan(place / "b").settings.k == 0);
  CHECK(six_columns(place / "a") == six_columns(place / "b"));
}

TEST_CASE("cli: data from files equals the same data generated, and is found from anywhere") {
  const Place place;
  place.done(small_run("generated", 2));
  for (const char* split : {"train", "held-out"})
    place.done({"data", "generate", "--task", "even-pairs", "--length", "10", "--count",
                std::string(split) == "train" ? "200" : "50", "--split", split, "--out", split});
  place.done(small_run("read", 1) + "--train-data train --val-data held-out");
  const Place elsewhere;
  elsewhere.done({"resume", (place / "read").string(), "--epochs", "2"});
  CHECK(six_columns(place / "generated") == six_columns(place / "read"));
}

TEST_CASE("cli: an existing run, a folder in use, a file in the way") {
  const Place place;
  place.done(small_run("run", 2));
  place.refuses(small_run("run", 2), "already holds a run");
  fs::create_directories(place / "full");
  write_all(place / "full/mine", "kept");
  place.refuses(small_run("full", 2), "is not empty");
  place.refuses(small_run("full/mine", 2), "is a file, not a folder");
  place.refuses(small_run("full/mine/run", 2), "full/mine/run");
  fs::create_directories(place / "empty");
  place.done(small_run("empty", 1));
  if (::getuid() == 0) {
    MESSAGE("a folder without write permission is not tested: root may write anywhere");
  } else {
    fs::permissions(place / "full", fs::perms::owner_read | fs::perms::owner_exec);
    place.refuses(small_run("full/run", 2), "full/run");
    place.refuses("data generate --task parity --count 1 --out full/d.tsv", "ermission");
    fs::permissions(place / "full", fs::perms::owner_all);
  }
}

TEST_CASE("cli: resume of a finished, a missing and a damaged run") {
  const Place place;
  place.done(small_run("run", 2));
  const auto before = contents(place.path());
  CHECK(place.done("resume run").find("is finished") != std::string::npos);
  CHECK(place.done("resume run --epochs 2").find("is finished") != std::string::npos);
  CHECK(contents(place.path()) == before);
  place.refuses("resume run --epochs 1", "has 2 already");
  place.refuses("resume run --epochs 0", "--epochs: 0");
  place.refuses("resume run --threads 0", "--threads: 0");
  place.refuses("resume none", "'none' holds no run");
  place.refuses("resume run/metrics.csv", "holds no run");

  const auto damaged = [&](const std::string& file, const auto& change, const std::string& says) {
    const std::string bytes = read_all(place / file);
    write_all(place / file, change(bytes));
    place.refuses("resume run --epochs 3", says);
    write_all(place / file, bytes);
  };
  const auto half = [](const std::string& s) { return s.substr(0, s.size() / 2); };
  const auto nothing = [](const std::string&) { return std::string(); };
  const auto other = [](const char* what, const char* by) {
    return [=](std::string s) { return s.replace(s.find(what), std::strlen(what), by); };
  };
  const std::string last = "run/" + first_seed + "/last.safetensors";
  damaged("run/settings.json", half, "run/settings.json");
  damaged("run/settings.json", nothing, "run/settings.json");
  damaged("run/settings.json", other("\"k\": \"3\"", "\"k\": \"30\""), "--k 30");
  damaged("run/settings.json", other("even-pairs", "odd-pairs"), "unknown task 'odd-pairs'");
  damaged("run/settings.json", other("\"lr\"", "\"rl\""), "'lr' is missing");
  damaged("run/settings.json", other("\"lr\": \"0.1\"", "\"lr\": \"0.5\""),
          last + ": was trained with --lr 0.1, but run/settings.json says 0.5");
  // Another run's settings, or its checkpoint, that would fit.
  place.done(small_run("sharp", 2) + "--score-scale 2");
  const auto of_sharp = [&](const std::string& file) {
    return [bytes = read_all(place / file)](const std::string&) { return bytes; };
  };
  damaged("run/settings.json", of_sharp("sharp/settings.json"), "--score-scale 1, but run/sett");
  damaged(last, of_sharp("sharp/" + first_seed + "/last.safetensors"), "--score-scale 2, but run");
  damaged("run/metrics.csv", half, "run/metrics.csv, line");
  damaged("run/metrics.csv", nothing, "run/metrics.csv, line 1");
  damaged(last, half, last);
  damaged(last, nothing, last);
  damaged(last, other("\"epochs_done\":\"2\"", "\"epochs_done\":\"x\""), "epochs_done");
  damaged(last, other("\"run.lr\":\"0.1\"", "\"run.lr\":\"0,1\""),
          last + ": metadata: run.lr: '0,1'");
  fs::remove(place / last);
  place.refuses("resume run --epochs 3", "cannot read " + last);
}

TEST_CASE("cli: a full disk leaves nothing at the start, and later the last checkpoint") {
  const Place place;
  constexpr long limit = 2000;  // bytes in a file: enough for the texts, not for the weights
  const Outcome outcome = place.run(small_run("deep/er/run", 2), limit);
  CHECK(outcome.status == 2);
  CHECK(outcome.err.starts_with("focus: cannot write deep/er/run/"));
  CHECK(contents(place.path()).empty());

  place.done(small_run("run", 2));
  place.done(small_run("reference", 4));
  const std::string last = "run/" + first_seed + "/last.safetensors";
  const std::string before = read_all(place / last);
  const Outcome later = place.run("resume run --epochs 4", limit);
  CHECK(later.status == 2);
  CHECK(last_line(later.err).starts_with("focus: cannot write run/"));
  CHECK(read_all(place / last) == before);
  place.done("resume run");
  CHECK(six_columns(place / "run") == six_columns(place / "reference"));
  CHECK(names_in(place / "run") == names_in(place / "reference"));
}

TEST_CASE("cli: a precision that the CPU has not") {
  const Place place;
  place.refuses(small_run("run", 2) + "--precision tf32", "--precision tf32 is for --device cuda");
  place.refuses(small_run("run", 2) + "--precision fp16", "precision 'fp16' is unknown");
  CHECK(!fs::exists(place / "run"));
  place.done(small_run("run", 2) + "--precision fp32");
  // What older programs wrote, and what they can read.
  CHECK(read_all(place / "run/settings.json").find("precision") == std::string::npos);
}

TEST_CASE("cli: a factor on the scores is kept in every file, and refused where it is none") {
  const Place place;
  for (const char* bad : {"0", "-1", "nan", "inf", "1e400", "1e31", "1e-320", "4x"})
    place.refuses(small_run("run", 2) + Words{"--score-scale", bad}, "--score-scale");
  CHECK(!fs::exists(place / "run"));
  place.done(small_run("plain", 4));
  CHECK(read_all(place / "plain/settings.json").find("scale") == std::string::npos);
  CHECK(read_all(place / "plain" / first_seed / "last.safetensors").find("scale") ==
        std::string::npos);
  place.done(small_run("whole", 4) + "--score-scale 4");
  CHECK(six_columns(place / "plain") != six_columns(place / "whole"));
  place.done(small_run("run", 2) + "--score-scale 4");
  CHECK(read_plan(place / "run").settings.score_scale == 4);
  place.done("resume run --epochs 4");
  CHECK(six_columns(place / "run") == six_columns(place / "whole"));
  const std::string file = "run/" + std::string(first_seed) + "/last.safetensors";
  const std::string shown = place.done({"show", file});
  CHECK(std::regex_search(shown, std::regex("score_scale +4\n")));
  CHECK(std::regex_search(shown, std::regex("score-scale +4\n")));

  // Evaluating takes it from the file.
  place.done("data generate --task even-pairs --length 10 --count 20 --out d.tsv");
  const std::string with = place.done({"eval", "--checkpoint", file, "--data", "d.tsv"});
  Safetensors changed = Safetensors::read(place / file);
  for (const char* wrong : {"0", "-2", "nan", "1e-320", "1e300", "many"}) {
    changed.metadata["score_scale"] = wrong;
    changed.write(place / "changed.safetensors");
    place.refuses("eval --checkpoint changed.safetensors --data d.tsv", "score");
  }
  changed.metadata.erase("score_scale");
  changed.write(place / "changed.safetensors");
  CHECK(place.done("eval --checkpoint changed.safetensors --data d.tsv") != with);
}

TEST_CASE("cli: queries and keys of their own size and rate, and frozen") {
  const Place place;
  for (const char* flag : {"--qk-scale", "--qk-rate"})
    for (const char* bad : {"0", "-1", "nan", "inf", "1e-320", "x"})
      place.refuses(small_run("run", 2) + Words{flag, bad}, flag);
  place.refuses(small_run("run", 2) + "--freeze-qk --qk-rate 2", "--freeze-qk");
  place.refuses(small_run("run", 2) + "--freeze-qk=3", "freeze-qk was given");
  CHECK(!fs::exists(place / "run"));
  place.done(small_run("plain", 2));
  CHECK(read_all(place / "plain/settings.json").find("qk") == std::string::npos);
  for (const Words& flags : {Words("--qk-scale 2 --qk-rate 0.5"), Words("--freeze-qk")}) {
    const std::string name = flags[0].substr(2);
    place.done(small_run(name + "-whole", 4) + flags);
    place.done(small_run(name, 2) + flags);
    place.done({"resume", name, "--epochs", "4"});
    CHECK(six_columns(place / name) == six_columns(place / (name + "-whole")));
    const std::string shown = place.done({"show", name + "/" + first_seed + "/last.safetensors"});
    CHECK(shown.find("run." + name + " ") != std::string::npos);
  }
}

TEST_CASE("cli: a loss that is not finite ends the run with status 1") {
  const Place place;
  const Outcome outcome = place.run(small_run("run", 2) + "--lr 1e6 --clip 0");
  CHECK(outcome.status == 1);
  CHECK(outcome.err.starts_with("focus: seed 153476998, epoch 1, step "));
  CHECK(outcome.err.find("--lr") != std::string::npos);
  CHECK(fs::exists((place / "run") / first_seed / "last.safetensors"));
}

TEST_CASE("cli: two processes on one folder") {
  const Place place;
  Process first(small_run("run", 1000000), place.path());
  while (read_all(place / "run/metrics.csv").find("\n1,") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const Outcome second = place.run("resume run");
  CHECK(second.status == 2);
  CHECK(second.err ==
        "focus: run: another process is training there; wait for it or stop it first\n");
  CHECK(place.run(small_run("run", 1)).status == 2);
  first.send(SIGTERM);
  CHECK(first.wait() == 130);
  CHECK(first.out().find("focus resume run") != std::string::npos);
}

TEST_CASE("cli: other data of the same name is refused, with both counts") {
  const Place place;
  const auto write_rows = [&](const char* file, int rows, const std::string& row) {
    std::string text = "Source\tTarget\n";
    for (int i = 0; i < rows; ++i) text += row;
    write_all(place / file, text);
  };
  write_rows("t.tsv", 30, "0 1 1 0 1 1\t0\n");
  write_rows("v.tsv", 10, "0 1 1 0\t1\n");
  const Words files = "--train-data t.tsv --val-data v.tsv";
  Words run = small_run("run", 1) + files;
  for (const char* flag :
       {"--length", "--train-size", "--val-size"}) {  // they follow from the files
    const auto at = std::find(run.begin(), run.end(), flag);
    const std::string value = *(at + 1);
    place.refuses(run, str("contradicts "));
    CAPTURE(value);
    run.erase(at, at + 2);
  }
  place.done(run);
  const RunSettings s = read_plan(place / "run").settings;
  CHECK(s.train_size == 30);
  CHECK(s.val_size == 10);
  CHECK(s.length == 6);
  CHECK(s.train_data_record.starts_with("rows=30 longest=6 hash="));
  const std::string last = read_all(place / "run" / first_seed / "last.safetensors");
  CHECK(last.find(s.train_data_record) != std::string::npos);

  const Words resume = "resume run --epochs 2";
  write_rows("t.tsv", 40, "0 1 1 0\t1\n");
  place.refuses(resume,
                "t.tsv holds other data than when the run began: 40 rows, the longest of 4 "
                "tokens; then 30 rows, the longest of 6 tokens");
  write_rows("t.tsv", 30, "0 1 1 0 1 0\t1\n");  // as many, as long
  place.refuses(resume, "but other ones");
  write_rows("t.tsv", 30, "0 1 1 0 1 1\t0\n");
  write_rows("v.tsv", 9, "0 1 1 0\t1\n");
  place.refuses(resume, "v.tsv holds other data");
  write_rows("v.tsv", 10, "0 1 1 0\t1\r\n");  // the same, written otherwise
  CHECK(place.done(resume).find("did not note") == std::string::npos);

  // A folder of before goes on, with one line.
  std::string settings = read_all(place / "run/settings.json");
  for (const char* key : {"\"train-data-record\"", "\"val-data-record\""}) {
    const size_t at = settings.find(key);
    REQUIRE(at != std::string::npos);
    settings.erase(at, settings.find('\n', at) + 1 - at);
  }
  write_all(place / "run/settings.json", settings);
  CHECK(place.done("resume run --epochs 3").find("did not note") != std::string::npos);
  write_rows("t.tsv", 40, "0 1 1 0\t1\n");
  place.refuses("resume run --epochs 4", "t.tsv holds other data");

  // A file to train on alone: the held-out strings drawn are as long as its rows.
  Words half = small_run("half", 1) + "--train-data t.tsv";
  for (const char* flag : {"--length", "--train-size"}) {
    const auto at = std::find(half.begin(), half.end(), flag);
    half.erase(at, at + 2);
  }
  place.done(half);
  CHECK(read_plan(place / "half").settings.length == 4);
  CHECK(place.done({"show", "half/" + first_seed + "/last.safetensors"}).find("[1, 6, 8]") !=
        std::string::npos);  // padded to a multiple of k
}

TEST_CASE("cli: a program that computes other numbers does not go on with a run") {
  const Place place;
  place.done(small_run("run", 1));
  const fs::path file = place / "run/settings.json";
  const std::string before = read_all(file);
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string text = before;
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    write_all(file, text);
  };
  const auto resume = [&](int epochs) {
    return place.done({"resume", "run", "--epochs", std::to_string(epochs)});
  };
  CHECK(resume(1).find("program") == std::string::npos);
  change(", probe 0.", ", probe 1.");
  place.refuses("resume run --epochs 2",
                "made by a program that computes other numbers (a tiny run of even-pairs topk relu "
                "sgd ends with the loss 1.");
  change(", probe 0.", ", probe x");
  place.refuses("resume run --epochs 2", "is no record of a program");
  change(", probe ", "");
  place.refuses("resume run --epochs 2", "is no record of a program");
  // Another compiler that rounds alike: a line. It is this program's run then.
  change("compiler ", "compiler 5 or ");
  CHECK(resume(2).find("run was begun by results-version 1, compiler 5 or ") != std::string::npos);
  CHECK(resume(3).find("begun by") == std::string::npos);
  // A folder of before goes on with a line.
  const std::string now = read_all(file);
  const size_t at = now.find(",\n  \"program\"");
  REQUIRE(at != std::string::npos);
  write_all(file, now.substr(0, at) + "\n}\n");
  CHECK(resume(4).find("older than the record of the program") != std::string::npos);
  CHECK(resume(5).find("older than") == std::string::npos);
}

TEST_CASE("cli: one seed that diverges ends alone") {
  const Place place;
  const Words train =
      "train --task even-pairs --length 12 --train-size 100 --blocks 2 --val-size 50 --d-model 16 "
      "--d-mlp 16 --epochs 40 --lr 0.5 --clip 0 --seeds 10 --out r --lr-decay 1";
  const auto check = [&](const Outcome& outcome) {
    CHECK(outcome.status == 1);
    CHECK(last_line(outcome.err).starts_with("focus: seed "));
    CHECK(outcome.err.find("-nan") == std::string::npos);
    std::map<uint64_t, int> epochs;
    for (const EpochMetrics& row : read_metrics(place / "r/metrics.csv")) ++epochs[row.seed];
    size_t whole = 0;
    for (const auto& [seed, count] : epochs) whole += count == 40;
    CHECK(whole >= 1);
    CHECK(whole <= 9);
    CHECK(outcome.err.find(str("; ", whole, " run")) != std::string::npos);
    CHECK(outcome.err.find("went on to the end") != std::string::npos);
  };
  check(place.run(train));
  const std::string metrics = read_all(place / "r/metrics.csv");
  check(place.run("resume r"));
  CHECK(read_all(place / "r/metrics.csv") == metrics);
}

TEST_CASE("cli: a run that goes further than planned leaves the same files") {
  const Place place;
  place.done(small_run("far", 9));
  place.done(small_run("near", 3));
  place.done("resume near --epochs 9");
  for (const char* file : {"last", "best"}) {
    const std::string name = first_seed + "/" + file + ".safetensors";
    CHECK(read_all(place / "far" / name) == read_all(place / "near" / name));
  }
}

TEST_CASE("cli: what is no regular file is refused at once") {
  const Place place;
  place.done(small_run("run", 1));
  const std::string last = "run/" + first_seed + "/last.safetensors";
  const auto refused = [&](const std::string& file, const Words& arguments) {
    const fs::path path = place / file;
    fs::rename(path, place / "kept");
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    Outcome outcome = place.run(arguments);
    CHECK(outcome.status == 2);
    CHECK(outcome.err.find(file + ": it is no regular file, but a pipe") != std::string::npos);
    fs::remove(path);
    fs::create_symlink("/dev/zero", path);
    outcome = place.run(arguments);
    CHECK(outcome.status == 2);
    CHECK(outcome.err.find(file + ": it is no regular file, but a device") != std::string::npos);
    fs::remove(path);
    fs::rename(place / "kept", path);
  };
  const Words resume = "resume run --epochs 2";
  for (const std::string& file :
       {std::string("run/settings.json"), std::string("run/metrics.csv"), last})
    refused(file, resume);
  refused(last, {"show", last});
  write_all(place / "run/settings.json", std::string(300, '\0'));
  place.refuses(resume, "settings.json: is not valid JSON: it holds NUL bytes");
}

TEST_CASE("cli: names that are hard to write") {
  const Place place;
  const std::string text = place.done(small_run("my run", 1));
  CHECK(text.find("focus resume 'my run' --epochs") != std::string::npos);
  place.done({"resume", "my run", "--epochs", "2"});
  place.done(small_run("ü/é", 1));
  place.refuses(small_run(std::string(300, 'n'), 1), "File name too long");
  place.refuses(
      {"data", "generate", "--task", "parity", "--count", "1", "--out", std::string(300, 'n')},
      "File name too long");
}
