#include "report/transcript.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {

Transcript::Transcript(std::ostream& stream) : stream_(stream), behind_(stream.rdbuf(this)) {}

Transcript::~Transcript() {
  stream_.rdbuf(behind_);
}

Transcript::int_type Transcript::overflow(int_type c) {
  if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
  if (at_line_start_) {
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start_;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.1f\t", time.count());
    text_ += seconds;
  }
  text_ += char(c);
  at_line_start_ = c == '\n';
  return behind_->sputc(char(c));
}

void play_transcript(const std::filesystem::path& path, double seconds) {
  struct Line {
    double time;
    std::string text;
  };
  std::vector<Line> lines;
  std::istringstream in(read_file(path, 16 << 20));
  for (std::string line; std::getline(in, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos)
      fail_input(path.string(), ": line ", lines.size() + 1, " has no time before a tab");
    lines.push_back({std::atof(line.c_str()), line.substr(tab + 1)});
  }
  const double whole = lines.empty() ? 0 : lines.back().time;
  const double speed = whole > seconds ? seconds / whole : 1;
  double before = 0;
  for (const Line& line : lines) {
    const double pause = std::clamp((line.time - before) * speed, 0.0, 3.0);
    before = line.time;
    std::cout << std::flush;
    std::this_thread::sleep_for(std::chrono::duration<double>(pause));
    std::cout << line.text << "\n";
  }
  std::cout << std::flush;
}

}  // namespace focus
