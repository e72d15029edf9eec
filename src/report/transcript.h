// What a program prints, kept with the time of each line, and played again.
#pragma once

#include <chrono>
#include <filesystem>
#include <ostream>
#include <streambuf>
#include <string>

namespace focus {

// From its construction to its end, what goes to `stream` is also kept.
class Transcript : std::streambuf {
 public:
  explicit Transcript(std::ostream& stream);
  ~Transcript() override;

  // A line each: seconds since the beginning, tab, what was printed.
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
