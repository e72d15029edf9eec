// A program's output, recorded with the time of each line, and its replay.
#pragma once

#include <chrono>
#include <filesystem>
#include <ostream>
#include <streambuf>
#include <string>

namespace focus {

// Records everything that goes to `stream` during its lifetime.
class Transcript : std::streambuf {
 public:
  explicit Transcript(std::ostream& stream);
  ~Transcript() override;

  // One line each: seconds since the beginning, tab, the printed text.
  const std::string& text() const { return text_; }

 private:
  std::ostream& stream_;
  std::streambuf* behind_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool at_line_start_ = true;
  std::string text_;

  int_type overflow(int_type c) override;
  int sync() override { return behind_->pubsync(); }
};

// Prints a transcript's lines to stdout, its pauses shortened so that all takes at most `seconds`.
// InputError if there is no such file.
void play_transcript(const std::filesystem::path& path, double seconds);

}  // namespace focus
