// Statistics over seeds, with numbers worked out by hand.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "report/statistics.h"

using namespace focus;

namespace {
const double inf = std::numeric_limits<double>::infinity();
}

TEST_CASE("statistics: mean, median and quantiles") {
  CHECK(mean({1, 2, 6}) == 3);
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(median({7}) == 7);
  // position 0.25 × 3 = 0.75 between 1 and 2, and 0.75 × 3 = 2.25 between 4 and 8
  CHECK(quantile({8, 1, 4, 2}, 0.25) == 1.75);
  CHECK(quantile({8, 1, 4, 2}, 0.75) == 5);
  CHECK(quantile({8, 1, 4, 2}, 0) == 1);
  CHECK(quantile({8, 1, 4, 2}, 1) == 8);
  for (int percent = 0; percent <= 100; ++percent) {
    CHECK(quantile({99.98, 99.98, 99.98}, percent / 100.0) == 99.98);
  }
  CHECK(std::isnan(mean({})));
  CHECK(std::isnan(median({})));
  CHECK(std::isnan(median({1, std::nan(""), 2})));
}

TEST_CASE("statistics: infinities are values") {
  CHECK(median({inf, 3, inf}) == inf);
  CHECK(median({3, inf, 1}) == 3);
  CHECK(median({3, inf}) == inf);
  CHECK(median({3, 4, inf, inf}) == inf);
  CHECK(median({inf, inf}) == inf);
  CHECK(median({-inf, 3}) == -inf);
  CHECK(quantile({1, 2, 3, 4, inf}, 0.75) == 4);
}

TEST_CASE("statistics: epochs to a target") {
  CHECK(epochs_to({50, 94.9, 95, 90, 99}, 95) == 3);
  CHECK(epochs_to({95}, 95) == 1);
  CHECK(epochs_to({std::nan(""), 96}, 95) == 2);
  CHECK(!epochs_to({50, 60}, 95));
  CHECK(!epochs_to({}, 95));
  CHECK(epochs_down_to({2.3, 2.1, 2.0, 1.9}, 2.0) == 3);
  CHECK(!epochs_down_to({2.3}, 2.0));

  // The ten seeds of top-k and of full attention that the even-pairs lesson is compared with.
  CHECK(median_epochs({6, 6, 5, 3, 5, 6, 6, 2, 11, 4}) == 5.5);
  CHECK(median_epochs({64, 56, 51, 53, 53, 57, 55, 43, 83, 51}) == 54);
  CHECK(median_epochs({5, std::nullopt, 3}) == 5);
  CHECK(median_epochs({5, std::nullopt}) == inf);
  CHECK(epochs_text(5.5) == "5.5");
  CHECK(epochs_text(54.0) == "54");
  CHECK(epochs_text(inf) == "none");
  CHECK(epochs_text(std::optional<int>{}) == "none");
  CHECK(epochs_text(std::optional<int>{12}) == "12");
}

TEST_CASE("statistics: an interval in words never says inf") {
  const double nan = std::nan("");
  CHECK(interval_text({3, 1.885, 4.2}) == "1.89 to 4.20");
  CHECK(interval_text({3, 1.885, inf}) == "1.89 or more");
  CHECK(interval_text({3, -inf, 4.2}) == "4.20 or less");
  CHECK(interval_text({inf, inf, inf}) == "unknown");
  CHECK(interval_text({nan, nan, nan}) == "unknown");
}

TEST_CASE("statistics: what three seeds give is called a range") {
  CHECK(interval_name(3) == std::string("range"));
  CHECK(interval_name(4) == std::string("95 % interval"));
}

TEST_CASE("statistics: the band of several curves") {
  const Band band = quartile_band({{1, 10, 7}, {5, 20}, {3, 60, 7}});
  CHECK(band.low == std::vector<double>{2, 15});
  CHECK(band.middle == std::vector<double>{3, 20});
  CHECK(band.high == std::vector<double>{4, 40});
  CHECK(quartile_band({}).middle.empty());
}
