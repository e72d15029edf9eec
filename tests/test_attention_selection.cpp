// Choosing the k largest scores, against a full stable sort: the lower index wins a tie.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "attention/selection.h"
#include "close.h"

using namespace focus;
using namespace focus::test;

namespace {

template <class T>
struct Selected {
  bool valid;
  std::vector<int> keys;
};

template <class T>
Selected<T> select_plain(const std::vector<T>& s, int k) {
  const int n = int(s.size());
  std::vector<int> keys(size_t(k) + 1, -7), order(size_t(n) + 1, -7);
  const bool valid = select_largest(s.data(), n, k, keys.data(), order.data());
  if (keys.back() != -7 || order.back() != -7) FAIL_CHECK("wrote too far");
  keys.pop_back();
  return {valid, keys};
}

// The row in one lane; the other lanes hold other rows, which must not matter.
template <class T>
Selected<T> select_in_lane(const std::vector<T>& s, int k, int lane) {
  const int n = int(s.size()), stride = lanes<T> + 3;
  std::vector<T> columns = as<T>(random_numbers(size_t(n * stride), 50));
  for (int l = 0; l < lanes<T>; l += 2)  // NaN, rising, falling neighbours
    for (int j = 0; j < n; ++j)
      columns[size_t(j * stride + l)] = l % 4 == 0 ? T(l) * T(j) : l % 6 == 0 ? T(NAN) : T(-j);
  for (int j = 0; j < n; ++j) columns[size_t(j * stride + lane)] = s[size_t(j)];
  FastLists<T> lists;
  std::memset(static_cast<void*>(&lists), 0x7f, sizeof lists);
  select_largest_of_lanes(columns.data(), stride, n, k, lists);
  Selected<T> result{lists.has_nan[lane] == 0, {}};
  for (int l = 0; l < k; ++l) {
    const int key = int(lists.key[l][lane]);
    result.keys.push_back(key);
    if (result.valid && lists.best[l][lane] != s[size_t(key)]) FAIL_CHECK("score of another key");
  }
  // Largest first; of equal scores the lower index.
  for (size_t l = 1; result.valid && l < size_t(k); ++l) {
    const T before = s[size_t(result.keys[l - 1])], here = s[size_t(result.keys[l])];
    if (!(before > here || (before == here && result.keys[l - 1] < result.keys[l])))
      FAIL_CHECK("list out of order at ", l);
  }
  std::sort(result.keys.begin(), result.keys.end());
  return result;
}

template <class T>
std::vector<int> sorted_selection(const std::vector<T>& s, int k) {
  std::vector<int> keys(s.size());
  std::iota(keys.begin(), keys.end(), 0);
  std::ranges::sort(keys, {}, [&](int j) { return std::pair(-s[size_t(j)], j); });
  keys.resize(size_t(k));
  std::sort(keys.begin(), keys.end());
  return keys;
}

std::vector<int> interesting_k(int n) {
  std::vector<int> ks;
  for (int k : {1, 2, 3, 5, 9, 31, 32, 33, 34, 63, 64, n / 2, n - 1, n})
    if (k >= 1 && k <= n) ks.push_back(k);
  return ks;
}

}  // namespace

TEST_CASE_TEMPLATE("selection equals a stable sort on all kinds of rows", T, float, double) {
  struct Row {
    const char* name;
    std::function<double(int j, int n, double random)> score;
  };
  const double infinite = HUGE_VAL;
  const Row rows[] = {
      {"random", [](int, int, double r) { return r; }},
      {"rising", [](int j, int, double) { return j; }},
      {"falling", [](int j, int, double) { return -j; }},
      {"constant", [](int, int, double) { return 0.25; }},
      {"two values", [](int, int, double r) { return r > 0.5; }},
      {"three values", [](int, int, double r) { return std::floor(3 * r); }},
      {"zeros of both signs", [](int, int, double r) { return r > 0 ? 0.0 : -0.0; }},
      {"a peak late", [](int j, int n, double r) { return j == n - 1 ? 9 : r; }},
      {"a peak early", [](int j, int, double r) { return j == 0 ? 9 : r; }},
      {"equal but one low", [](int j, int n, double) { return j == n / 2 ? -1 : 1; }},
      {"waves", [](int j, int, double) { return j % 7; }},
      {"minus infinity", [=](int j, int, double r) { return j % 3 ? -infinite : r; }},
      {"all minus infinity", [=](int, int, double) { return -infinite; }},
      {"infinities", [=](int j, int, double r) { return j % 5 ? r : infinite; }},
  };
  for (const Row& row : rows)
    for (int n : {1, 2, 3, 5, 8, 31, 32, 33, 40, 63, 64, 65, 97, 200}) {
      const std::vector<double> random = random_numbers(size_t(n), uint32_t(n));
      std::vector<T> s;
      for (int j = 0; j < n; ++j) s.push_back(T(row.score(j, n, random[size_t(j)])));
      for (int k : interesting_k(n)) {
        const std::vector<int> wanted = sorted_selection(s, k);
        const Selected<T> plain = select_plain(s, k);
        CHECK_MESSAGE((plain.valid && plain.keys == wanted), row.name, " n ", n, " k ", k);
        if (k > longest_fast_list) continue;
        for (int lane : {0, 1, lanes<T> - 1}) {
          const Selected<T> fast = select_in_lane(s, k, lane);
          CHECK_MESSAGE((fast.valid && fast.keys == wanted), row.name, " n ", n, " k ", k);
        }
      }
    }
}

TEST_CASE_TEMPLATE("selection tells of NaN wherever it is", T, float, double) {
  int wrong = 0;
  const auto look = [&](const Selected<T>& got, int n) {
    wrong += got.valid;
    // The keys must be valid all the same: they are used as addresses.
    for (size_t e = 0; e < got.keys.size(); ++e)
      wrong += got.keys[e] < (e ? got.keys[e - 1] + 1 : 0) || got.keys[e] >= n;
  };
  for (int n : {1, 2, 5, 33, 40, 97})
    for (int k : interesting_k(n))
      for (int at = 0; at < n; ++at)
        for (bool falling : {false, true}) {  // NaN late in a falling row is easily passed over
          std::vector<T> s = as<T>(random_numbers(size_t(n), uint32_t(n)));
          if (falling) std::sort(s.begin(), s.end(), std::greater<T>());
          s[size_t(at)] = T(NAN);
          look(select_plain(s, k), n);
          if (k <= longest_fast_list) look(select_in_lane(s, k, at % lanes<T>), n);
        }
  CHECK(wrong == 0);
}
