// What was printed, kept with its times and played again.
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "error.h"
#include "report/transcript.h"

using namespace focus;

TEST_CASE("what is printed goes on and is kept, a time before each line") {
  std::ostringstream out;
  std::string kept;
  {
    Transcript transcript(out);
    out << "one\n" << 2 << " and a half" << std::flush << "\n\n";
    kept = transcript.text();
  }
  out << "after\n";
  CHECK(out.str() == "one\n2 and a half\n\nafter\n");
  std::istringstream lines(kept);
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    const size_t tab = line.find('\t');
    REQUIRE(tab != std::string::npos);
    CHECK(std::stod(line.substr(0, tab)) < 60);
    all += line.substr(tab + 1) + "\n";
  }
  CHECK(all == "one\n2 and a half\n\n");
}

TEST_CASE("a played transcript prints its lines without their times") {
  const auto path = std::filesystem::temp_directory_path() / str("focus-played-", ::getpid());
  std::ofstream(path) << "0.0\tfirst\n3000.5\tlater\n3001.0\t\n";
  std::ostringstream out;
  std::streambuf* before = std::cout.rdbuf(out.rdbuf());
  play_transcript(path, 0.05);
  std::cout.rdbuf(before);
  CHECK(out.str() == "first\nlater\n\n");
  std::ofstream(path) << "no time\n";
  CHECK_THROWS_AS(play_transcript(path, 1), InputError);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(play_transcript(path, 1), InputError);
}
