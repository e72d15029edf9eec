// metrics.csv: fixed bytes, sorted rows, resuming, and clear refusals.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <thread>

#include "error.h"
#include "files/atomic_file.h"
#include "files/metrics.h"

using namespace focus;
using doctest::Contains;
namespace fs = std::filesystem;

namespace {

const std::string header = "epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n";

EpochMetrics row(int epoch, uint64_t seed, double loss = 0.5) {
  return {epoch, seed, loss, 98.76, 0.6, 97, 1.5 * epoch};
}

doctest::String refusal(const std::string& text) {
  try {
    parse_metrics(text, "m.csv");
  } catch (const InputError& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "nothing was wrong";
}

doctest::String line(const std::string& text) {
  return refusal(header + text);
}

struct File {
  fs::path path = fs::temp_directory_path() / str("focus-test-metrics-", ::getpid(), ".csv");
  File() { fs::remove(path); }
  ~File() { fs::remove(path); }
  std::string text() const { return read_file(path, 1 << 20); }
};

}  // namespace

TEST_CASE("metrics: the text, and that it survives reading") {
  std::vector<EpochMetrics> rows = {{1, 7, 0.693147180559945, 50.02, 1e-12, 100, 0.0004},
                                    {1, 18446744073709551615u, 2.0 / 3, 1.0 / 3, 1e30, 0, 12.3456},
                                    {2, 7, 0.1, 0, std::nan(""), -std::nan(""), 1e6}};
  const std::string expected = header +
                               "1,7,0.693147181,50.0200,1e-12,100.0000,0.000\n"
                               "1,18446744073709551615,0.666666667,0.3333,1e+30,0.0000,12.346\n"
                               "2,7,0.1,0.0000,nan,nan,1000000.000\n";
  CHECK(metrics_text(rows) == expected);
  CHECK(metrics_text(parse_metrics(expected, "m.csv")) == expected);
  CHECK(parse_metrics(header, "m.csv").empty());
  CHECK(parse_metrics(header.substr(0, header.size() - 1), "m.csv").empty());
  // CRLF, no newline at the end, and rows in another order
  const std::string crlf = header.substr(0, header.size() - 1) + "\r\n";
  const auto back =
      parse_metrics(crlf + "2,3,1,2,3,4,5\r\n1,9,1,2,3,4,5\r\n1,8,1,2,3,4,5", "m.csv");
  CHECK(metrics_text(back) ==
        metrics_text({{1, 8, 1, 2, 3, 4, 5}, {1, 9, 1, 2, 3, 4, 5}, {2, 3, 1, 2, 3, 4, 5}}));
}

TEST_CASE("metrics: bad files are refused with the line") {
  CHECK(refusal("") == Contains("m.csv, line 1: the header"));
  CHECK(refusal("\n" + header) == Contains("line 1"));
  CHECK(refusal(std::string("\0\xff\x7f", 3)) == Contains("line 1"));
  CHECK(line("1,2,3,4,5,6\n") == Contains("line 2: 6 columns"));
  CHECK(line("1,2,3,4,5,6,7,8\n") == Contains("line 2: 8 columns"));
  CHECK(line("1,2,3,4,5,6,7\n\n2,2,3,4,5,6,7\n") == Contains("line 3: 1 columns"));
  CHECK(line("1,2,3,4,5,6,7\n1,2,3,4,5,6,7\n") == Contains("line 3: epoch 1 of seed 2"));
  for (const char* epoch : {"0", "-1", "1.5", "", "x", "1 ", "2147483648", "nan"}) {
    CHECK(line(str(epoch, ",2,3,4,5,6,7\n")) == Contains("line 2: epoch"));
  }
  CHECK(line("1,-2,3,4,5,6,7\n") == Contains("seed '-2'"));
  CHECK(line("1,18446744073709551616,3,4,5,6,7\n") == Contains("seed"));
  for (const char* number : {"", "x", "1x", "nan", "inf", "1e999", "-0.5", "101"}) {
    CHECK(line(str("1,2,3,", number, ",5,6,7\n")) == Contains("train_accuracy"));
  }
  CHECK(line("1,2,inf,4,5,6,7\n") == Contains("train_loss 'inf' must be a finite number from 0"));
  CHECK(line("1,2,3,4,nan,nan,7\n") == "nothing was wrong");
  CHECK(line("1,2,3,4,5,100.01,7\n") == Contains("val_accuracy '100.01'"));
  CHECK(line("1,2,3,4,5,6,nan\n") == Contains("seconds"));
}

TEST_CASE("metrics: a run that goes on drops what came after its checkpoint") {
  const File file;
  MetricsFile metrics(file.path);
  for (int epoch : {1, 2, 3}) {
    metrics.add(row(epoch, 20));
    metrics.add(row(epoch, 5));
  }
  const std::string complete = file.text();
  CHECK(complete ==
        metrics_text({row(1, 5), row(1, 20), row(2, 5), row(2, 20), row(3, 5), row(3, 20)}));

  MetricsFile resumed(file.path);
  resumed.load();
  resumed.drop_after(20, 1);
  resumed.drop_after(5, 3);
  CHECK(metrics_text(resumed.rows()) ==
        metrics_text({row(1, 5), row(1, 20), row(2, 5), row(3, 5)}));
  CHECK(file.text() == complete);  // nothing is lost before the first new row
  resumed.add(row(2, 20));
  resumed.add(row(3, 20, 9));
  resumed.add(row(3, 20));  // in place of the row before
  CHECK(file.text() == complete);
}

TEST_CASE("metrics: seeds report from several threads") {
  const File file;
  MetricsFile metrics(file.path);
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      for (int epoch = 1; epoch <= 5; ++epoch) metrics.add(row(epoch, seed));
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(metrics.rows().size() == 20);
  CHECK(file.text() == metrics_text(metrics.rows()));
}

TEST_CASE("metrics: files that cannot be read or written") {
  CHECK_THROWS_AS(read_metrics("/nonexistent/metrics.csv"), InputError);
  CHECK_THROWS_AS(MetricsFile("/nonexistent/metrics.csv").add(row(1, 1)), InputError);
  CHECK_THROWS_AS(read_metrics(fs::temp_directory_path()), InputError);
}
