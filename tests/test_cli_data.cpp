// focus data, and files of data that are not what they should be.
#include "cli.h"
#include "files/data_file.h"
#include "tasks/dataset.h"

using namespace focus;
using namespace focus::cli;

TEST_CASE("cli: data generate writes what a run would use, and overwrites nothing") {
  const Place place;
  for (const Task& task : all_tasks()) {
    const std::string length = task.name == "list-operations" ? "60" : "15", out = task.name;
    const Words words = {"data",     "generate", "--task", task.name, "--count", "20",
                         "--length", length,     "--seed", "7",       "--out",   out};
    CHECK(place.done(words).find("20 examples") != std::string::npos);
    CHECK(read_data_file(task, place / out) ==
          generate_examples(task, 20, std::stoi(length), 7, train_split));
    CHECK(place.done({"data", "verify", "--task", task.name, out}).find("20 examples") !=
          std::string::npos);
    place.refuses(words, "exists already");
  }
  place.done("data generate --task parity --count 20 --seed 7 --split held-out --out held-out.tsv");
  const Task& parity = find_task("parity");
  CHECK(read_data_file(parity, place / "held-out.tsv") ==
        generate_examples(parity, 20, 40, 7, held_out_split));
}

TEST_CASE("cli: data generate refuses") {
  const Place place;
  const auto with = [](const std::string& flag, const std::string& value) {
    Words words = "data generate --task parity --seed 7";
    if (flag != "count") words = words + "--count 20";
    if (flag != "out") words = words + "--out new.tsv";
    return words + Words{"--" + flag, value};
  };
  for (const char* value : {"0", "-1", "10000001", "x", "99999999999999999999"})
    place.refuses(with("count", value), "--count");
  for (const char* value : {"0", "-1", "10001", "x"})
    place.refuses(with("length", value), "--length");
  place.refuses(with("split", "test"), "use train or held-out");
  place.refuses(with("out", ""), "--out: the name is empty");
  place.refuses(with("out", "no-such-folder/new.tsv"), "no-such-folder/new.tsv");
  place.refuses(with("out", place.path().string()), "exists already");
  place.refuses("data generate --task parity --count 1", "--out");
  place.refuses("data generate --task list-operations --count 1000 --length 3 --out new.tsv",
                "distinct examples");
}

TEST_CASE("cli: data verify names the first wrong line") {
  const Place place;
  write_all(place / "f.tsv", "Source\tTarget\n0 1\t1\n1 1\t1\n0 0\t1\n");
  place.refuses("data verify --task parity f.tsv", "f.tsv, line 3: ", 1);
  // Malformed after a wrong label: bad input all the same.
  write_all(place / "f.tsv", "Source\tTarget\n0 1\t0\n1 1 1\n");
  place.refuses("data verify --task parity f.tsv", "f.tsv, line 3: ");
}

TEST_CASE("cli: bad data files, wherever one is read") {
  const Place place;
  place.done(small_run("run", 1));
  const std::string checkpoint = "run/" + first_seed + "/last.safetensors";
  write_all(place / "good.tsv", "Source\tTarget\r\n0 1 1 0 1 1\t1\r\n0 1 1 1 0\t0");
  const auto bad = [&](const std::string& bytes, const std::string& says) {
    if (!bytes.empty() || says.find("empty") != std::string::npos)
      write_all(place / "bad.tsv", bytes);
    place.refuses("data verify --task even-pairs bad.tsv", says);
    place.refuses({"eval", "--checkpoint", checkpoint, "--data", "bad.tsv", "--logits", "l"}, says);
    place.refuses("train --task even-pairs --train-data bad.tsv", says);
    place.refuses({"train", "--task", "even-pairs", "--train-data", "good.tsv", "--val-data",
                   (place / "bad.tsv").string()},
                  says);
  };
  bad("", "line 1: the file is empty");
  fs::remove(place / "bad.tsv");
  bad("", "No such file");
  bad("Source\tTarget\n", "no examples");
  bad("Source,Target\n0 1\t1\n", "line 1: expected the header");
  bad("Source\tTarget\n0 1\t1\n0 1 1\t", "line 3: the label '' is not a number");
  bad("Source\tTarget\n0 1\t1\n0 1 ", "line 3: expected two columns");
  bad("Source\tTarget\n0 1\t1\t1\n", "line 2: expected two columns");
  bad("Source\tTarget\n0 1\t1\n0 7\t1\n", "line 3: unknown token '7'");
  bad("Source\tTarget\n0 1\t2\n", "line 2: the label '2' is out of range");
  bad("Source\tTarget\n0 1\t-1\n", "out of range");
  bad("Source\tTarget\n0 1\tx\n", "not a number");
  bad("Source\tTarget\n\t1\n", "line 2: the first column holds no token");
  bad(std::string("Source\tTarget\n0 \0 1\t1\n", 21), "NUL byte");
  bad(read_all(program()).substr(0, 5000), "line 1");
}

TEST_CASE("cli: list operations nested ten thousand deep") {
  const Place place;
  std::string deep = "Source\tTarget\n";
  for (int i = 0; i < 10000; ++i) deep += "( [MAX ";
  write_all(place / "open.tsv", deep + "\t1\n");
  for (int i = 0; i < 10000; ++i) deep += i == 0 ? "3 ] )" : " ] )";
  write_all(place / "deep.tsv", deep + "\t3\n");
  for (const char* file : {"deep.tsv", "open.tsv"}) {
    place.refuses({"data", "verify", "--task", "list-operations", file}, "line 2: token 101");
    place.refuses({"train", "--task", "list-operations", "--train-data", file}, "line 2");
  }
}
