// focus curves: what it draws, and when it refuses.
#include <algorithm>
#include <fstream>

#include "cli.h"

using namespace focus;
using namespace focus::cli;

namespace {

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("cli: curves of two runs, as text and as a picture") {
  const Place place;
  place.done(small_run("a", 3) + "--seeds 2");
  Words full = small_run("b", 2);
  std::replace(full.begin(), full.end(), std::string("topk"), std::string("full"));
  place.done(full);
  place.done(small_run("c", 2) + "--seed 9");
  const std::string text = place.done("curves a b c");
  CHECK(holds(text, "training loss"));
  CHECK(holds(text, "topk(3)"));
  CHECK(holds(text, "full"));
  CHECK(holds(text, "topk(3) (c)"));  // two of a name
  CHECK(holds(place.done("curves b --metric val-accuracy"), "held-out accuracy"));

  const Outcome drawn = place.run("curves a b --out curves.svg");
  if (drawn.status == 0)
    CHECK(holds(read_all(place / "curves.svg"), "even-pairs"));
  else  // no gnuplot here
    CHECK(holds(drawn.err, "gnuplot"));
}

TEST_CASE("cli: curves that cannot be drawn") {
  const Place place;
  place.refuses("curves", "DIR");
  place.refuses("curves none", "'none' holds no run");
  place.done(small_run("a", 3));
  place.refuses("curves a --metric loss", "--metric: 'loss' is not a metric: use train-loss");
  place.refuses("curves a --out a.pdf", "a.pdf");
  write_all(place / "there.svg", "a picture");
  place.refuses("curves a --out there.svg", "there.svg is there already");
  std::string rows = read_all(place / "a/metrics.csv");
  const size_t second = rows.find("\n2,") + 1;
  std::ofstream(place / "a/metrics.csv") << rows.erase(second, rows.find("\n3,") + 1 - second);
  place.refuses("curves a", "lacks an epoch");
  std::ofstream(place / "a/metrics.csv") << rows.substr(0, rows.find('\n') + 1);
  place.refuses("curves a", "no whole epoch yet");
}
