// The progress bar's line, and the plain lines of a log.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "report/progress.h"

using namespace focus;

namespace {

// What was printed to a file, which is no terminal.
std::string contents(std::FILE* file) {
  std::string text;
  std::rewind(file);
  for (int c; (c = std::fgetc(file)) != EOF;) text += char(c);
  return text;
}

}  // namespace

TEST_CASE("progress: durations") {
  CHECK(duration_text(0) == "0:00");
  CHECK(duration_text(7.4) == "0:07");
  CHECK(duration_text(754) == "12:34");
  CHECK(duration_text(3599.6) == "1:00:00");
  CHECK(duration_text(36125) == "10:02:05");
  CHECK(duration_text(359999) == "99:59:59");
  CHECK(duration_text(360000) == "4 days");
  CHECK(duration_text(6.6e6) == "76 days");
  CHECK(duration_text(-1) == "?");
  CHECK(duration_text(1e300) == "?");
}

TEST_CASE("progress: the bar") {
  std::FILE* file = std::tmpfile();
  Progress one({.label = "topk(5)", .epochs = 30, .out = file});
  CHECK(one.bar_line(0, 80) == "topk(5)  [--------------------]  epoch 0/30  0:00");
  one.report(0, {7, 1, 0.75, 50});
  one.report(0, {7, 12, 0.5, 75});
  const std::string line =
      "topk(5)  [########------------]  epoch 12/30  loss 0.5000  accuracy 75.00 %  0:24, 0:36 "
      "left";
  CHECK(one.bar_line(24, 100) == line);
  CHECK(one.bar_line(24, 80) ==
        "topk(5)  [###-----]  epoch 12/30  loss 0.5000  accuracy 75.00 %  0:24, 0:36 left");
  CHECK(one.bar_line(24, 40) == "topk(5)  [#--]  epoch 12/30  loss 0.5000");
  CHECK(one.bar_line(24, 36) == "[###-----]  epoch 12/30  loss 0.5000");
  one.report(0, {7, 30, 0.25, 100});
  CHECK(one.bar_line(60, 100) ==
        "topk(5)  [####################]  epoch 30/30  loss 0.2500  accuracy 100.00 %  1:00");

  // Two runs that go on after epochs 4 and 1: 5 epochs took 5 seconds, 10 are left.
  Progress two({.runs = 2, .epochs = 10, .first_epoch = 4, .out = file});
  CHECK(two.bar_line(0, 80) == "[########------------]  epoch 4/10  0:00");
  two.report(0, {7, 5, 0.9, 70});
  two.report(1, {8, 2, 1.9, 50});
  two.report(0, {7, 6, 0.5, 80});
  two.report(1, {8, 4, 1.5, 60});
  CHECK(two.bar_line(5, 100) ==
        "[##########----------]  epoch 5/10  loss 1.0000  accuracy 70.00 %  0:05, 0:10 "
        "left");
  std::fclose(file);
}

TEST_CASE("progress: a log gets plain lines, from several threads") {
  std::FILE* file = std::tmpfile();
  {
    Progress progress({.label = "full", .runs = 3, .epochs = 4, .out = file});
    std::vector<std::thread> threads;
    for (int run = 0; run < 3; ++run) {
      threads.emplace_back([&progress, run] {
        for (int epoch = 1; epoch <= 4; ++epoch) {
          progress.report(run, {unsigned(run), epoch, 0.125, 50});
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    progress.say("saved");
  }
  const std::string text = contents(file);
  CHECK(std::count(text.begin(), text.end(), '\n') == 13);
  CHECK(text.find("full  seed 2  epoch 3/4  loss 0.1250  accuracy 50.00 %") != std::string::npos);
  CHECK(text.ends_with("saved\n"));
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  std::fclose(file);
}

TEST_CASE("progress: plain lines can be rare, but a run's last one comes") {
  std::FILE* file = std::tmpfile();
  {
    Progress progress({.epochs = 50, .out = file, .plain_seconds = 1e6});
    for (int epoch = 1; epoch <= 50; ++epoch) progress.report(0, {1, epoch, 0.5, 50});
  }
  const std::string text = contents(file);
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  CHECK(text.find("epoch 1/50") != std::string::npos);
  CHECK(text.find("epoch 50/50") != std::string::npos);
  std::fclose(file);
}
