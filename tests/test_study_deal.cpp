// Dealing groups of runs to devices.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "error.h"
#include "study/shards.h"
#include "tasks/task.h"
#include "train/memory.h"

using namespace focus;

namespace {

// "GROUP:FIRST+COUNT@DEVICE …", in the order in which they begin.
std::string text_of(const std::vector<DealtPiece>& pieces) {
  std::string text;
  for (const DealtPiece& p : pieces)
    text += str(text.empty() ? "" : " ", p.group, ":", p.first, "+", p.count, "@", p.device);
  return text;
}

}  // namespace

TEST_CASE("deal: the longest first, each to the device that is free first") {
  const std::vector<DealtGroup> groups{{1, 2}, {1, 7}, {1, 3}, {1, 5}, {1, 4}};
  const auto pieces = deal(groups, 2);
  // 7 and 5 begin; 4 follows 5, 3 follows 7, 2 follows 9 on the device that ends first.
  CHECK(text_of(pieces) == "1:0+1@0 3:0+1@1 4:0+1@1 2:0+1@0 0:0+1@1");
  CHECK(end_of(pieces) == 11);
  CHECK(end_of(deal(groups, 1)) == 21);
  CHECK(end_of({}) == 0);
  CHECK(deal(std::vector<DealtGroup>(), 3).empty());
}

TEST_CASE("deal: of equal ones the earlier group and the lower device come first") {
  CHECK(text_of(deal({{1, 3}, {1, 3}, {1, 3}, {1, 3}}, 3)) == "0:0+1@0 1:0+1@1 2:0+1@2 3:0+1@0");
  CHECK(text_of(deal({{4, 1, 0.25}, {1, 1.75}}, 2)) == "0:0+4@0 1:0+1@1");
}

TEST_CASE("deal: a group that is longer than its share is split by runs, others stay whole") {
  // Ten runs that take ten times as long as one: half on each device.
  CHECK(text_of(deal({{10, 1, 1}}, 2)) == "0:0+5@0 0:5+5@1");
  CHECK(text_of(deal({{10, 1, 1}}, 3)) == "0:6+4@0 0:0+3@1 0:3+3@2");
  // Never into more pieces than runs, and not where pieces take as long as the whole.
  CHECK(text_of(deal({{2, 1, 1}}, 8)) == "0:0+1@0 0:1+1@1");
  CHECK(text_of(deal({{10, 1, 0}}, 4)) == "0:0+10@0");
  // Groups within their share are not split, though that would balance the devices.
  CHECK(text_of(deal({{4, 1, 1}, {4, 1, 1}, {4, 1, 1}}, 2)) == "0:0+4@0 1:0+4@1 2:0+4@0");
  // The long one shares the devices with short ones.
  const auto pieces = deal({{1, 1}, {8, 1, 1}, {1, 1}}, 2);
  CHECK(end_of(pieces) == 5);
  CHECK(std::count_if(pieces.begin(), pieces.end(), [](const auto& p) { return p.group == 1; }) ==
        2);
}

TEST_CASE("deal: a group that exceeds the memory is split on one device too") {
  DealtGroup large{10, 1, 0.5};
  large.most = 4;
  CHECK(text_of(deal({large}, 1)) == "0:6+4@0 0:0+3@0 0:3+3@0");
  large.most = 0;  // not even one is said to fit: the device has the last word
  CHECK(deal({large}, 1).size() == 10);
}

TEST_CASE("deal: small groups go side by side, and add what they fill") {
  // A tenth of a device each: eight on one take what the longest takes, and a tenth of each other.
  std::vector<DealtGroup> groups(8, {1, 10});
  for (DealtGroup& group : groups) group.fill = 0.1;
  CHECK(end_of(deal(groups, 1)) == doctest::Approx(17));
  CHECK(end_of(deal(groups, 8)) == doctest::Approx(10));
  // One that fills all comes beside none of them: it adds all its time.
  groups.push_back({1, 4});
  CHECK(end_of(deal(groups, 1)) == doctest::Approx(21));
  // Runs of one group fill as many parts, up to the whole.
  groups = {{3, 1}};
  groups[0].fill = 0.25;
  CHECK(deal(groups, 1)[0].fill == 0.75);
  groups[0].runs = 5;
  CHECK(deal(groups, 1)[0].fill == 1);
}

TEST_CASE("deal: every run once, on a device that is there, one piece after another") {
  std::vector<DealtGroup> groups;
  for (int g = 0; g < 23; ++g) {
    groups.push_back({1 + g * 7 % 11, 0.5 + g * 5 % 7, 0.1 * (g % 4)});
    if (g % 5 == 0) groups.back().most = 3;
  }
  for (int devices = 1; devices <= 9; ++devices) {
    const auto pieces = deal(groups, devices);
    std::vector<int> made(groups.size(), 0);
    std::vector<double> free_at(size_t(devices), 0.0);
    double before = 0;
    for (const DealtPiece& p : pieces) {
      CHECK(p.count >= 1);
      CHECK(p.count <= groups[p.group].most);
      made[p.group] += p.count;
      CHECK(p.begin >= before);
      REQUIRE(p.device < devices);
      CHECK(p.begin == free_at[size_t(p.device)]);
      free_at[size_t(p.device)] = p.end;
      before = p.begin;
    }
    for (size_t g = 0; g < groups.size(); ++g) CHECK(made[g] == groups[g].runs);
  }
}

TEST_CASE("deal: parties have the share of a device that they fill, or that there is for each") {
  const Study study = parse_study(
      "attention,k,lr,seeds,length,d-model,d-mlp,blocks,train-size,val-size,batch,epochs\n"
      "full|topk,3,0.1|0.5,1,10,8,8,1,60,20,10,6\n"
      "bottomk,3,0.1,4,10,8,8,1,60,20,10,6\n",
      "t");
  const std::vector<size_t> runs{1, 2, 3, 4, 5, 6, 7};
  const std::vector<EpochCost> costs(study.variants.size(), {10, 2});
  const auto parties = parties_of(study, runs, std::vector<int>(runs.size(), 6), costs, 1, 0, 8);
  REQUIRE(parties.size() == 3);
  CHECK(parties[0].jobs == std::vector<size_t>{3, 4, 5, 6});
  CHECK(parties[0].share == doctest::Approx(0.8));
  CHECK(parties[1].jobs == std::vector<size_t>{1, 2});
  CHECK(parties[1].share == doctest::Approx(0.4));
  CHECK(parties[2].jobs == std::vector<size_t>{0});
  CHECK(parties[2].share == doctest::Approx(1. / 3));
  for (const Party& party :
       parties_of(study, runs, std::vector<int>(runs.size(), 6), costs, 8, 0, 8))
    CHECK(party.share == 1);
  for (const Party& party :
       parties_of(study, runs, std::vector<int>(runs.size(), 6), costs, 1, 0, 1))
    CHECK(party.share == 1);
}

TEST_CASE("deal: the groups of a study, what they cost, and how many runs the memory holds") {
  const Study study = parse_study(
      "attention,k,lr,seeds,length,d-model,d-mlp,blocks,train-size,val-size,batch,epochs\n"
      "full|topk,3,0.1|0.5,2,10,8,8,1,60,20,10,6\n",
      "t");
  REQUIRE(study.runs.size() == 8);
  // The second rate's second run of full attention is over; others have begun.
  const std::vector<size_t> runs{0, 1, 2, 4, 5, 6, 7};
  const std::vector<int> left{6, 2, 4, 1, 1, 1, 3};
  const auto groups = groups_of(study, runs, left, {{2, 1}, {2, 1}, {5, 4}, {5, 4}}, 0);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].runs == std::vector<size_t>{0, 1, 2});
  CHECK(groups[1].runs == std::vector<size_t>{4, 5, 6, 7});
  CHECK(groups[0].cost.runs == 3);
  CHECK(groups[0].cost.alone == 12);  // the run with six epochs left
  CHECK(groups[0].cost.each_more == 6);
  CHECK(groups[1].cost.alone == 15);
  CHECK(groups[1].cost.each_more == 12);

  const RunSettings& s = study.variants[0].settings;
  const double each = least_bytes(s.model_settings(int(find_task(s.task).tokens.size()), s.length),
                                  s.optimizer, s.batch, 1, 1);
  for (const auto& [memory, most] : {std::pair(2.9, 2), std::pair(0.3, 1)}) {
    const auto few = groups_of(study, runs, left, {}, memory * each);
    CHECK(few[0].cost.most == most);
    for (const DealtPiece& piece : deal(few, 1)) CHECK(piece.count <= most);
  }
  // Not measured: what more products take counts as longer, and short runs share a GPU well.
  const auto rough = groups_of(study, runs, std::vector<int>(7, 1), {}, 0);
  CHECK(rough[0].cost.alone > 0);
  CHECK(rough[0].cost.each_more < 0.2 * rough[0].cost.alone);
  CHECK(rough[0].cost.fill == doctest::Approx(rough[0].cost.each_more / rough[0].cost.alone));
}
