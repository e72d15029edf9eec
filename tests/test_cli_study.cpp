// focus study: killed at any moment, split into shards, on a full disk, it ends with the same bytes
// as if it had been left alone.
#include "cli.h"
#include "rng.h"
#include "study/provenance.h"
#include "study/slurm.h"

using namespace focus;
using namespace focus::cli;

namespace {

const char* table =
    "# tiny\n"
    "task,attention,k,heads,seeds,epochs,length,train-size,val-size,d-model,d-mlp,blocks,batch\n"
    "even-pairs,full|topk,3,1|2,2,8,10,200,50,8,8,1,10\n";

Words study(const std::string& out, const Words& more = {}) {
  return Words{"study", "t.csv", "--out", out, "--threads", "2"} + more;
}

// Every file of a study, by its path below the folder: metrics.csv without the seconds, the rest
// as it is.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& [path, bytes] : contents(folder)) {
    std::string text = bytes;
    if (path.ends_with("metrics.csv")) {
      std::stringstream lines(bytes);
      text.clear();
      for (std::string line; std::getline(lines, line);)
        text += line.substr(0, line.rfind(',')) + "\n";
    }
    files[fs::relative(path, folder).string()] = text;
  }
  return files;
}

void same_files(const fs::path& a, const fs::path& b) {
  const auto one = files_of(a), other = files_of(b);
  CHECK(one.size() == other.size());
  for (const auto& file : one) {
    CAPTURE(file.first);
    REQUIRE(other.contains(file.first));
    CHECK((other.at(file.first) == file.second));
  }
}

}  // namespace

TEST_CASE("cli: a study is planned, made, and not made again") {
  const Place place;
  write_all(place / "t.csv", table);
  const std::string plan = place.done(study("o", "--dry-run"));
  CHECK(plan.find("4 variants, 8 runs; 8 to do, about ") != std::string::npos);
  CHECK(plan.find("to do  even-pairs-topk3-blocks1-heads2-") != std::string::npos);
  CHECK(!fs::exists(place / "o"));
  const std::string report = place.done(study("o"));
  CHECK(report.find("topk(3) heads=2") != std::string::npos);
  const auto before = files_of(place / "o");
  CHECK(before.contains("results.csv"));
  CHECK(before.contains("summary.csv"));
  CHECK(std::count(before.at("results.csv").begin(), before.at("results.csv").end(), '\n') ==
        8 * 8 + 1 + 4 + 4);
  CHECK(place.done(study("o", "--dry-run")).find("; 8 are over") != std::string::npos);
  CHECK(place.done(study("o")).find("to do") == std::string::npos);
  CHECK(files_of(place / "o") == before);
  // A run's folder holds a checkpoint like any other.
  for (const auto& [name, bytes] : before)
    if (name.ends_with("last.safetensors")) place.done({"show", "o/" + name});
}

TEST_CASE("cli: a study that is stopped or killed at any moment ends with the same bytes") {
  const Place place;
  write_all(place / "t.csv", table);
  place.done(study("whole"));
  Rng rng(3, Stream::analysis);
  for (const int signal : {SIGINT, SIGKILL}) {
    CAPTURE(signal);
    const std::string out = str("stopped", signal);
    int stops = 0;
    for (int i = 0; i < 12; ++i) {
      Process process(study(out), place.path());
      std::this_thread::sleep_for(std::chrono::milliseconds(20 + rng.below(150)));
      process.send(signal);
      const int status = process.wait();
      INFO(process.err());
      const bool expected = status == 0 || status == -signal || (signal == SIGINT && status == 130);
      CHECK(expected);
      stops += status != 0;
    }
    CHECK(stops > 0);
    place.done(study(out));
    same_files(place / "whole", place / out);
  }
}

TEST_CASE("cli: shards joined are what one machine makes") {
  const Place place;
  write_all(place / "t.csv", table);
  place.done(study("whole"));
  for (const char* shard : {"1/3", "2/3", "3/3"})
    place.done(study(str("part", shard[0]), {"--shard", shard}));
  CHECK(!fs::exists(place / "part1/results.csv"));
  place.refuses("study merge --out m part1 part3",
                "(run 2 of 8) is in none of these folders: a shard is missing");
  place.refuses("study merge --out m part1 nowhere", "nowhere: holds no study");
  place.done("study merge --out m part1 part2 part3");
  same_files(place / "whole", place / "m");
  CHECK(place.done(study("m")).find("8 are over") != std::string::npos);
  same_files(place / "whole", place / "m");

  // Killed at any moment, it is made by the same command.
  Rng rng(4, Stream::analysis);
  const Words merge = "study merge --out killed part1 part2 part3";
  for (int i = 0; i < 12; ++i) {
    fs::remove_all(place / "killed");
    Process process(merge, place.path());
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + rng.below(60)));
    process.send(SIGKILL);
    process.wait();
    place.done(merge);
    same_files(place / "whole", place / "killed");
  }

  // A part that is cut short, or of another study.
  fs::path cut;
  for (const auto& entry : fs::directory_iterator(place / "part2/runs")) {
    cut = entry.path();
    fs::remove(entry.path() / "outcome.txt");
    const std::string metrics = read_all(entry.path() / "metrics.csv");
    write_all(entry.path() / "metrics.csv", metrics.substr(0, metrics.rfind("\n8,") + 1));
    break;
  }
  place.refuses("study merge --out n part1 part2 part3",
                "has 7 of 8 epochs: run this shard to its end first");
  // The checkpoint knows better: nothing is made up, and the advice helps.
  const Outcome damaged = place.run(study("part2", "--shard 2/3"));
  CHECK(damaged.status == 2);
  CHECK(damaged.err.find("delete the run's folder") != std::string::npos);
  fs::remove_all(cut);
  place.done(study("part2", "--shard 2/3"));
  place.done("study merge --out n part3 part2 part1");
  same_files(place / "whole", place / "n");
  write_all(place / "t.csv", std::string(table) + "even-pairs,banded,3,,2,8,10,200,50,8,8,1,10\n");
  place.done(study("other", "--shard 2/9"));
  place.refuses("study merge --out x part1 other", "parts of different studies");
}

TEST_CASE("cli: a full disk in the middle of a study loses nothing") {
  const Place place;
  write_all(place / "t.csv", table);
  place.done(study("whole"));
  size_t largest = 0;
  for (const auto& [name, bytes] : files_of(place / "whole"))
    largest = std::max(largest, bytes.size());
  // Everything fits but the larger checkpoints: the study fails with the two-headed runs.
  const Outcome full = place.run(study("o"), long(largest) - 1000);
  CHECK(full.status == 2);
  CHECK(full.err.find("cannot write ") != std::string::npos);
  CHECK(full.err.find("free some space") != std::string::npos);
  CHECK(place.done(study("o", "--dry-run")).find(" are over") != std::string::npos);
  place.done(study("o"));
  same_files(place / "whole", place / "o");
}

TEST_CASE("cli: a shard's script asks for what it computes on") {
  const std::string cpu = shard_script({"/p", "/o", 3, 2}),
                    gpu = shard_script({"/p", "/o", 3, 2, "cuda"});
  CHECK(cpu.find("--threads 2\n") != std::string::npos);
  CHECK(cpu.find("gpu") == std::string::npos);
  CHECK(gpu.find("#SBATCH --gres=gpu:1\n") != std::string::npos);
  CHECK(gpu.find("--threads 2 --device cuda --gpus 1\n") != std::string::npos);
  const std::string gpus = shard_script({"/p", "/o", 3, 2, "cuda", 4});
  CHECK(gpus.find("#SBATCH --gres=gpu:4\n") != std::string::npos);
  CHECK(gpus.find("--device cuda --gpus 4\n") != std::string::npos);
}

TEST_CASE("cli: studies refuse what does not fit") {
  const Place place;
  write_all(place / "t.csv", table);
  write_all(place / "bad.csv", "task,attention\nparity,foll\n");
  place.refuses("study bad.csv --out o", "bad.csv, line 2, column 'attention': ");
  place.refuses("study none.csv --out o", "cannot read none.csv");
  place.refuses("study t.csv", "--out");
  place.refuses("study --out o", "FILE");
  place.refuses("study t.csv more --out o", "unknown command 'more'");
  place.refuses("study merge --out o", "PART");
  for (const char* shard : {"0/2", "3/2", "1", "a/b", "1/2/3", "/", "1/999999999"})
    place.refuses(study("o", {"--shard", shard}), "--shard: '");
  place.refuses(study("o", "--shards 2"), "--shards goes with --slurm");
  place.refuses(study("o", "--slurm --shard 1/2"), "leave --shard out");
  place.refuses(study("o", "--slurm --shards 9"), "--shards: 9 is not between 1 and 8");
  place.refuses(study("o", "--slurm --device tpu"), "'tpu' is not a device");
  place.refuses(study("o", "--slurm --gpus 2"), "--gpus is for --device cuda");
  for (const char* two : {"--slurm --dry-run", "--slurm --report", "--report --dry-run"})
    place.refuses(study("o", two), "give one of them");
  for (const char* gpus : {"0", "-1", "all", "1.5"})
    place.refuses(study("o", {"--gpus", gpus}), "--gpus");
  place.refuses(study("o", "--gpus 2"), "--gpus is for --device cuda");
  fs::create_directories(place / "full");
  write_all(place / "full/file", "mine");
  place.refuses(study("full"), "holds other files and no study");
  fs::create_directories(place / "noted");
  write_all(place / "noted/study.csv", "mine");  // a name that the study would take
  place.refuses(study("noted"), "holds other files and no study");
  place.refuses(study("t.csv"), "is a file, not a folder");

  // A folder in which another process works.
  write_all(place / "long.csv", "attention,epochs\nfull,50\n");
  Process other("study long.csv --out busy --threads 1", place.path());
  for (int i = 0; i < 2000 && !fs::exists(place / "busy/runs"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const Outcome second = place.run("study long.csv --out busy --threads 1");
  CHECK(second.status == 2);
  CHECK(second.err.find("another process") != std::string::npos);
  other.send(SIGKILL);
  other.wait();
}

TEST_CASE("cli: a study's data files: names in quotes, records, true sizes") {
  const Place place;
  const auto write_rows = [&](const char* file, int rows) {
    std::string text = "Source\tTarget\n";
    for (int i = 0; i < rows; ++i) text += "0 1 1 0 1 1\t0\n";
    write_all(place / file, text);
  };
  const std::string columns = "attention,train-data,val-size,epochs,seeds,d-model,d-mlp,blocks\n";
  for (const char* name : {"my data, v2|x.tsv", "plain.tsv"}) {
    write_rows(name, 30);
    write_all(place / "d.csv", columns + "full,\"" + name + "\",20,2,2,8,8,1\n");
    const std::string out = str("o", name[0]);
    place.done({"study", "d.csv", "--out", out, "--threads", "1"});
    const std::string results = read_all(place / out / "results.csv");
    CHECK(results.find(" train-size=30 val-size=20 length=6 ") != std::string::npos);
    CHECK(read_all(place / out / "study.txt").find(str(name, ": rows=30 longest=6 hash=")) !=
          std::string::npos);
    place.done({"study", "compact", "d.csv", out, "--out", out + "-short"});
  }
  Provenance two_lines;
  two_lines.data["two\nlines.tsv"] = {};
  CHECK_THROWS_WITH_AS(provenance_text(two_lines), doctest::Contains("holds a line break"),
                       InputError);
  place.refuses("study d.csv --out op --length 3", "unknown flag");
  write_all(place / "e.csv", "length," + columns + "7,full,plain.tsv,20,2,2,8,8,1\n");
  place.refuses("study e.csv --out e", "e.csv, line 2: --length 7 contradicts ");

  // Other data: refused when it goes on, and when parts are joined.
  const Words study_p = "study d.csv --out op --threads 1";
  place.done("study d.csv --out p1 --threads 1 --shard 1/2");
  write_rows("plain.tsv", 31);
  place.refuses(study_p, "plain.tsv holds other data than when the run began: 31 rows");
  place.done("study d.csv --out p2 --threads 1 --shard 2/2");
  place.refuses("study merge --out m p1 p2", "plain.tsv holds other data");

  // A study of before goes on with a line, whatever the file holds.
  std::string text;
  std::stringstream lines(read_all(place / "op/study.txt"));
  for (std::string line; std::getline(lines, line);)
    if (!line.starts_with("data")) text += line + "\n";
  write_all(place / "op/study.txt", text);
  for (const auto& entry : fs::directory_iterator(place / "op/runs")) {
    std::string settings = read_all(entry.path() / "settings.json");
    const size_t at = settings.find("\"train-data-record\"");
    REQUIRE(at != std::string::npos);
    settings.erase(at, settings.find('\n', at) + 1 - at);
    write_all(entry.path() / "settings.json", settings);
  }
  CHECK(place.done(study_p).find("did not note") != std::string::npos);
}

TEST_CASE("cli: results of what is there at any time") {
  const Place place;
  write_all(place / "t.csv", table);
  place.refuses(study("o", "--report"), "o holds no study");
  place.done(study("o", "--shard 1/2"));
  CHECK(!fs::exists(place / "o/results.csv"));
  const std::string report = place.done(study("o", "--report"));
  CHECK(report.find("not over: 4 of 8 runs") != std::string::npos);
  const std::string results = read_all(place / "o/results.csv");
  CHECK(std::count(results.begin(), results.end(), '\n') == 4 * 8 + 1 + 4 + 5);
  CHECK(fs::exists(place / "o/summary.csv"));
  place.done(study("o"));
  place.done(study("whole"));
  same_files(place / "whole", place / "o");
  // What a folder says goes to a terminal.
  for (const auto& entry : fs::directory_iterator(place / "o/runs")) {
    const std::string metrics = read_all(entry.path() / "metrics.csv");
    write_all(entry.path() / "metrics.csv", metrics.substr(0, metrics.rfind("\n8,") + 1));
    write_all(entry.path() / "outcome.txt", "ended\x1b[31m red\xc2\x9bm\n");
  }
  CHECK(place.done(study("o", "--report")).find("ended?[31m red?m\n") != std::string::npos);
}

TEST_CASE("cli: what sbatch prints is understood, and never called a refusal when it is none") {
  const Place place;
  write_all(place / "t.csv", table);
  fs::create_directories(place / "bin");
  const std::string before = std::getenv("PATH");
  ::setenv("PATH", ((place / "bin").string() + ":" + before).c_str(), 1);
  const auto submit = [&](const std::string& script) {
    write_all(place / "bin/sbatch", "#!/bin/sh\n" + script + "\n");
    fs::permissions(place / "bin/sbatch", fs::perms::owner_all);
    return place.run(study("o", "--slurm --shards 2"));
  };
  for (const char* script :
       {"echo 17", "echo 17; echo 'sbatch: warning: 93 % of the budget is used' >&2",
        "echo 'sbatch: no partition specified' >&2; echo 17", "echo '17;cluster'",
        "echo Welcome; echo '--> OK'; echo 17"}) {
    CAPTURE(script);
    const Outcome outcome = submit(script);
    CHECK(outcome.status == 0);
    CHECK(outcome.out.find("submitted job 17, ") != std::string::npos);
  }
  const Outcome strange = submit("echo Hello");
  CHECK(strange.status == 2);
  CHECK(strange.err.find("printed no job number: 'Hello'") != std::string::npos);
  const Outcome refused = submit("echo 'invalid array' >&2; exit 1");
  CHECK(refused.status == 2);
  CHECK(refused.err.starts_with("focus: sbatch refused "));
  CHECK(refused.err.find("o/slurm/shards.sh: invalid array") != std::string::npos);
  ::setenv("PATH", before.c_str(), 1);
}
