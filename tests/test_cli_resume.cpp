// A run that is stopped again and again, by Ctrl-C or by a kill, ends with the same bytes as one
// that never was.
#include "cli.h"
#include "rng.h"

using namespace focus;
using namespace focus::cli;

namespace {

struct Case {
  const char* name;
  Words more;
  std::vector<std::string> seeds;
};

// What must be equal: metrics.csv without the seconds, and the checkpoints' bytes.
std::string result_of(const fs::path& run, const Case& c) {
  std::stringstream lines(read_all(run / "metrics.csv"));
  std::string text;
  for (std::string line; std::getline(lines, line);) text += line.substr(0, line.rfind(',')) + "\n";
  for (const std::string& seed : c.seeds)
    for (const char* file : {"last.safetensors", "best.safetensors"})
      text += read_all(run / ("seed-" + seed) / file);
  return text;
}

void wait_ms(uint32_t milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

// Starts or resumes the run and sends `signal` at a random moment, mostly after one more epoch.
// Returns what the process said of itself.
int run_and_stop(const Place& place, const Words& train, int signal, Rng& rng) {
  const auto metrics_size = [&] { return read_all(place / "stopped/metrics.csv").size(); };
  const bool exists = fs::exists(place / "stopped/settings.json");
  const size_t before = metrics_size();
  Process process(exists ? Words("resume stopped") : train, place.path());
  const bool at_once = rng.below(4) == 0;
  for (int i = 0; !at_once && i < 500 && metrics_size() <= before; ++i) wait_ms(1);
  wait_ms(rng.below(12));
  process.send(signal);
  const int status = process.wait();
  INFO(process.err());
  const bool expected = status == 0 || status == -signal || (signal == SIGINT && status == 130);
  CHECK(expected);
  return status;
}

}  // namespace

TEST_CASE("cli: a stopped run goes on to the same bytes") {
  const Words adam = "--optimizer adam --lr 0.003";
  const std::vector<Case> cases = {
      {"SGD, one seed, one thread", {"--threads", "1"}, {"153476998"}},
      {"Adam, one seed, two threads", adam + "--threads 2", {"153476998"}},
      {"SGD, three seeds, two threads",
       {"--seeds", "3", "--threads", "2", "--attention", "random"},
       {"153476998", "235510766", "205084180"}},
      {"Adam, three seeds, one thread",
       adam + "--seeds 3 --threads 1",
       {"153476998", "235510766", "205084180"}},
  };
  Rng rng(1, Stream::analysis);
  for (const Case& c : cases)
    for (const int signal : {SIGINT, SIGKILL}) {
      CAPTURE(c.name);
      CAPTURE(signal);
      const Place place;
      const auto words = [&](const char* out) {
        Words train = small_run(out, 10) + c.more;
        if (std::count(train.begin(), train.end(), "--attention") == 2)
          train.erase(train.begin() + 3, train.begin() + 5);  // the case has its own
        return train;
      };
      place.done(words("whole"));
      int stops = 0;
      for (int i = 0; i < 6; ++i) stops += run_and_stop(place, words("stopped"), signal, rng) != 0;
      CHECK(stops > 0);
      place.done(fs::exists(place / "stopped/settings.json") ? Words("resume stopped")
                                                             : words("stopped"));
      CHECK(result_of(place / "stopped", c) == result_of(place / "whole", c));
      CHECK(contents(place / "stopped").size() == contents(place / "whole").size());
    }
}

TEST_CASE("cli: a run that was killed before its first checkpoint begins anew") {
  const Place place;
  place.done(small_run("whole", 3) + "--seeds 2");
  const Case c{"", {}, {"153476998", "235510766"}};
  // What a kill may leave: settings alone, or with metrics and some of the first checkpoints.
  for (int files = 1; files <= 3; ++files) {
    const fs::path run = place / str("run", files);
    place.done(small_run(run.string(), 3) + "--seeds 2");
    const std::string header = read_all(run / "metrics.csv");
    write_all(run / "metrics.csv", header.substr(0, header.find('\n') + 1));
    for (const std::string& seed : c.seeds) fs::remove_all(run / ("seed-" + seed));
    if (files == 1) fs::remove(run / "metrics.csv");
    if (files == 3) write_all(run / "metrics.csv.tmp-1-1", "half a li");
    place.done({"resume", run.string()});
    CHECK(result_of(run, c) == result_of(place / "whole", c));
    CHECK(!fs::exists(run / "metrics.csv.tmp-1-1"));
  }
}
