// Study tables: which runs they describe, what the runs are called, and what is wrong with bad
// ones.
#include <doctest/doctest.h>

#include <set>

#include "study/names.h"
#include "study/study.h"

using namespace focus;

namespace {

Study study_of(const std::string& text) {
  return parse_study(text, "t.csv");
}

std::vector<std::string> names_of(const Study& study) {
  std::vector<std::string> names;
  for (const StudyVariant& variant : study.variants) names.push_back(variant.name);
  return names;
}

// The whole message: it must name line and column.
void refuses(const std::string& text, const std::string& message) {
  CAPTURE(text);
  try {
    study_of(text);
    FAIL_CHECK("was accepted");
  } catch (const InputError& error) {
    const std::string said = error.what();
    CAPTURE(said);
    CHECK(said.find(message) != std::string::npos);
    CHECK(said.starts_with("t.csv"));
  }
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("study table: a row for each variant, defaults in empty cells") {
  const Study study = study_of(
      "# a comment\n"
      "task, attention, k, global-tokens, lr, seeds, target\r\n"
      "\n"
      "even-pairs, full, , , , 2, 99%\n"
      " even-pairs,block,5,1,\"0.5\",,0.25\n");
  REQUIRE(study.variants.size() == 2);
  const StudyVariant &full = study.variants[0], &block = study.variants[1];
  CHECK(to_text(full.settings) == to_text(RunSettings::defaults_for(find_task("even-pairs"))));
  CHECK(full.seeds == choose_seeds(2, nullptr));
  CHECK(full.line == 4);
  CHECK(full.target.is_accuracy);
  CHECK(full.target.value == 99);
  CHECK(block.settings.attention == Pattern::block);
  CHECK(block.settings.k == 5);
  CHECK(block.settings.global_tokens == 1);
  CHECK(block.settings.lr == 0.5);
  CHECK(block.seeds == choose_seeds(3, nullptr));
  CHECK(!block.target.is_accuracy);
  CHECK(target_text(block.target) == "0.25");
  CHECK(names_of(study) == Names{"full lr=0.1", "block(5)+1 lr=0.5"});
  CHECK(study.runs.size() == 5);
  CHECK(study.runs[2].variant == 1);
  CHECK(study.runs[2].seed == 153476998);
}

TEST_CASE("study table: a factor on the scores belongs to the mechanism") {
  const Study study = study_of(
      "task,attention,k,score-scale,seeds\n"
      "parity,full|topk,5,1|4 0.5,1\n");
  CHECK(names_of(study) ==
        Names{"full", "full*4", "full*0.5", "topk(5)", "topk(5)*4", "topk(5)*0.5"});
  CHECK(study.variants[1].mechanism == "full*4");
  CHECK(study.variants[1].rest.empty());
  // A table of before names the same runs as one that says 1.
  CHECK(study.runs[0].folder == study_of("task,attention,seeds\nparity,full,1\n").runs[0].folder);
  CHECK(study.runs[1].folder.starts_with("parity-full-score-scale4-s153476998-"));
  refuses("task,score-scale\nparity,0\n", "line 2, column 'score-scale'");
  refuses("task,score-scale\nparity,nan\n", "line 2, column 'score-scale'");
}

TEST_CASE("study table: what only some experiments vary is named where it is not as usual") {
  const Study study = study_of(
      "task,qk-scale,qk-rate,freeze-qk,clip,seeds\n"
      "parity,1|2,1|4,no,0,1\n"
      "parity,1,1,yes,0,1\n");
  CHECK(names_of(study) == Names{"full", "full qk-rate=4", "full qk-scale=2",
                                 "full qk-scale=2 qk-rate=4", "full freeze-qk=yes"});
  CHECK(study.variants[0].settings.clip == 0);
  CHECK(study.runs[4].folder.starts_with("parity-full-clip0-freeze-qk-s153476998-"));
  refuses("task,freeze-qk\nparity,maybe\n", "line 2, column 'freeze-qk'");
  refuses("task,qk-scale\nparity,-1\n", "line 2, column 'qk-scale'");
  refuses("task,qk-rate,freeze-qk\nparity,2,yes\n", "line 2");
}

TEST_CASE("study table: several values in a cell make every combination") {
  const Study study = study_of(
      "task,attention,k,heads,blocks,seed\n"
      "parity,full|topk, 5 9,2 | 4,3,7 11\n");
  // Full attention has no k: one of its combinations is enough.
  CHECK(names_of(study) == Names{"full heads=2", "full heads=4", "topk(5) heads=2",
                                 "topk(5) heads=4", "topk(9) heads=2", "topk(9) heads=4"});
  CHECK(study.runs.size() == 12);
  CHECK(study.variants[3].mechanism == "topk(5)");
  CHECK(study.variants[3].rest == "heads=4");
  CHECK(study.variants[3].settings.blocks == 3);
  CHECK(study.variants[3].seeds == std::vector<uint64_t>{7, 11});
  std::set<std::string> folders;
  for (const StudyRun& run : study.runs) folders.insert(run.folder);
  CHECK(folders.size() == 12);
}

TEST_CASE("study table: every task has its own defaults") {
  const Study study = study_of("task,attention,k\nlist-operations parity,full topk,5\n");
  REQUIRE(study.variants.size() == 4);
  CHECK(names_of(study) ==
        Names{"full list-operations", "topk(5) list-operations", "full parity", "topk(5) parity"});
  CHECK(study.variants[0].settings.blocks == 10);
  CHECK(study.variants[3].settings.blocks == 5);
}

TEST_CASE("study table: names need as few columns as tell the variants apart") {
  CHECK(names_of(study_of("task,length,epochs,attention,k\n"
                          "parity,10,50,full,\nparity,10,20,topk,5\n"
                          "even-pairs,20,9,full,\neven-pairs,20,9,topk,5\n")) ==
        Names{"full parity", "topk(5) parity", "full even-pairs", "topk(5) even-pairs"});
  // Another rate for each mechanism is no fair comparison, and the names show it.
  CHECK(names_of(study_of("attention,k,lr\nfull,,0.1\ntopk,5,0.2\n")) ==
        Names{"full lr=0.1", "topk(5) lr=0.2"});
  CHECK(names_of(study_of("attention,k\ntopk,5\n")) == Names{"topk(5)"});
  CHECK(names_of(study_of("activation,optimizer,attention\ngelu relu,adam sgd,full\n")) ==
        Names{"full gelu adam", "full gelu sgd", "full relu adam", "full relu sgd"});
}

TEST_CASE("study table: a run's folder depends on its settings and seed alone, but not on epochs") {
  const auto folder = [](const std::string& table) { return study_of(table).runs.at(0).folder; };
  const std::string one = folder("attention,k,seed\ntopk,5,3\n");
  CHECK(one.starts_with("even-pairs-topk5-s3-"));
  CHECK(folder("epochs,attention,seed,k\n7,topk,3,5|9\n") == one);
  CHECK(folder("attention,k,seed,dropout\ntopk,5,3,0.02\n") != one);
  CHECK(folder("attention,k,seed\ntopk,5,4\n") != one);
  CHECK(folder("attention,k,seed,lr\ntopk,5,3,0.1\n") == one);  // the default
  // The name of a run is part of old results: it must not change by accident.
  CHECK(one == "even-pairs-topk5-s3-0567b67f42f7");
}

TEST_CASE("study table: other seeds for all variants") {
  const Study study = with_seeds(study_of("attention,k,seed\nfull topk,5,1\n"), 2);
  REQUIRE(study.runs.size() == 4);
  CHECK(study.runs[1].seed == 235510766);
  CHECK(study.runs[3].folder == run_folder_name(study.variants[1].settings, 235510766));
}

TEST_CASE("study table: bad tables are refused with line and column") {
  refuses("", "no header");
  refuses("# nothing\n\n", "no header");
  refuses("task,attention\n", "no rows");
  refuses("task,atention\nparity,full\n",
          "line 1: unknown column 'atention': did you mean attention?");
  refuses("\ntask,,k\nparity,full,\n", "line 2: column 2 has no name");
  refuses("task,k,task\nparity,5,parity\n", "line 1: column 3: 'task' is there a second time");
  refuses("task,attention\nparity\n", "line 2: 1 cells, but the header (line 1) has 2 columns");
  refuses("task,attention\nparity,full,\n", "line 2: 3 cells");
  refuses("task,attention\n#\nparitty,full\n", "line 3, column 'task': ");
  refuses("attention\nfoll\n", "line 2, column 'attention': ");
  refuses("attention,blocks\nfull,0\n", "line 2, column 'blocks': 0 is not between 1 and 1000");
  refuses("attention,blocks\nfull,two\n", "line 2, column 'blocks': 'two' is not a whole number");
  refuses("attention,lr\nfull,nan\n", "line 2, column 'lr': ");
  refuses("attention,lr\nfull,0\n", "line 2, column 'lr': ");
  refuses("attention\ntopk\n", "line 2, column 'attention': topk needs --k");
  refuses("attention,k,length\ntopk,9,8\n", "line 2, column 'k': 9 is not between 1 and 8");
  refuses("attention,k,global-tokens\ntopk,5,0|1\n", "line 2, column 'global-tokens': ");
  refuses("attention,k\ntopk,5|5\n", "line 2, column 'k': '5' is there a second time");
  refuses("attention,seeds\nfull,11\n", "line 2, column 'seeds': the paper has only 10 seeds");
  refuses("attention,seeds\nfull,0\n", "line 2, column 'seeds': 0 is not between 1 and 1000");
  refuses("attention,seeds\nfull,1 2\n", "line 2, column 'seeds': ");
  refuses("attention,seeds,seed\nfull,2,1 2\n", "line 2, column 'seed': ");
  refuses("attention,seed\nfull,1 01\n", "line 2, column 'seed': 1 is there a second time");
  refuses("attention,seed\nfull,-1\n", "line 2, column 'seed': -1 is not between");
  refuses("attention,seeds,seed\nfull,2,9223372036854775807\n", "line 2, column 'seed': ");
  refuses("attention,target\nfull,101%\n", "line 2, column 'target': ");
  refuses("attention,target\nfull,-0.1\n", "line 2, column 'target': ");
  refuses("attention,target\nfull,90% 95%\n", "line 2, column 'target': one value");
  refuses("attention,k\nfull|topk,5\ntopk,5\n", "line 3: describes the same run as line 2");
  refuses("attention,lr\nfull,0.1\nfull,\n", "line 3: describes the same run as line 2");
  refuses("attention,epochs\nfull,10|20\n", "line 2, column 'epochs': two values");
  std::string many = "attention";
  for (const char* column : {"blocks", "heads", "d-model", "d-mlp", "batch", "epochs"})
    many += str(",", column);
  std::string values;
  for (int i = 1; i <= 30; ++i) values += str(i, " ");
  refuses(str(many, "\nfull,", values, ",", values, ",", values, ",", values, ",", values, ",9\n"),
          "line 2: describes more than 100000 runs");
  refuses("attention;blocks\nfull;1\n", "line 1: unknown column");
}
