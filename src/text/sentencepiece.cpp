#include "text/sentencepiece.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "error.h"
#include "text/utf8.h"

// The Makefile says whether pkg-config has found the library.
#ifdef FOCUS_SENTENCEPIECE
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#endif

namespace focus {

#ifdef FOCUS_SENTENCEPIECE

namespace {

constexpr size_t most_text_bytes = size_t{8} << 20, most_line_bytes = 4000;
// The library writes a blank as this sign, so that pieces can be told apart on a page.
constexpr std::string_view written_blank = "\xe2\x96\x81";

// Lines of a text, cut where they are longer than what the library takes, but in no character.
class LinesOf : public sentencepiece::SentenceIterator {
 public:
  explicit LinesOf(std::string_view text) : rest_(text) { Next(); }
  bool done() const override { return at_end_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override {
    at_end_ = rest_.empty();
    size_t end = std::min({rest_.find('\n'), rest_.size(), most_line_bytes});
    while (end > 0 && end < rest_.size() && continues_character(rest_[end])) --end;
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(std::min(rest_.size(), end + (end < rest_.size() && rest_[end] == '\n')));
  }

 private:
  std::string_view rest_;
  std::string line_;
  bool at_end_ = false;
};

std::string with_blanks(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool blank = piece.starts_with(written_blank);
    text += blank ? ' ' : piece[0];
    piece.remove_prefix(blank ? written_blank.size() : 1);
  }
  return text;
}

std::vector<Piece> learn(std::string_view text, const char* kind, int pieces, bool with_bytes) {
  // Nothing is made of the text before it is cut, so that every byte of it comes back; the bytes
  // are tokens of their own. One thread: sums in the same order give the same pieces everywhere.
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", kind},
      {"vocab_size", std::to_string(pieces)},
      {"byte_fallback", with_bytes ? "true" : "false"},
      {"character_coverage", "1.0"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"max_sentence_length", "4192"},
      {"unk_id", "0"},
      {"bos_id", "-1"},
      {"eos_id", "-1"},
      {"num_threads", "1"},
      {"minloglevel", "2"}};
  LinesOf lines(text.substr(0, most_text_bytes));
  std::string file;
  sentencepiece::util::Status status =
      sentencepiece::SentencePieceTrainer::Train(settings, &lines, &file);
  sentencepiece::SentencePieceProcessor model;
  if (status.ok()) status = model.LoadFromSerializedProto(file);
  if (!status.ok()) {
    std::string why = status.ToString();
    std::replace(why.begin(), why.end(), '\n', ' ');
    // "Please set it to a value <= 10544", "is smaller than required_chars. 257 vs 340": with the
    // unknown piece, which is none of ours.
    const auto number_after = [&](const char* words) {
      const size_t at = why.find(words);
      return at == why.npos ? 0 : std::atoi(why.c_str() + at + std::strlen(words)) - 1;
    };
    if (const int most = number_after("<= "); most > 0)
      fail_input("a vocabulary of ", pieces - 1,
                 " is more than this text allows: SentencePiece finds ", most);
    if (const int least = number_after(" vs "); least > 0)
      fail_input("a vocabulary of ", pieces - 1, " is too small: SentencePiece needs ", least,
                 ", with one for each character of the text");
    fail_input("SentencePiece finds no ", kind, " vocabulary of that size in this text: ", why);
  }
  std::vector<Piece> learnt;
  for (int id = 0; id < model.GetPieceSize(); ++id) {
    if (model.IsUnknown(id) || model.IsControl(id) || model.IsByte(id)) continue;
    learnt.push_back({with_blanks(model.IdToPiece(id)), model.GetScore(id)});
  }
  return learnt;
}

}  // namespace

bool has_sentencepiece() {
  return true;
}

std::vector<Piece> learn_unigram_pieces(std::string_view text, int count) {
  constexpr int bytes_and_unknown = 256 + 1;
  return learn(text, "unigram", count + bytes_and_unknown, true);
}

std::vector<Piece> learn_bpe_pieces(std::string_view text, int vocabulary) {
  std::vector<Piece> pieces = learn(text, "bpe", vocabulary + 1, false);
  std::erase_if(pieces, [](const Piece& piece) {
    return piece.bytes.size() - size_t(std::ranges::count_if(piece.bytes, continues_character)) < 2;
  });
  return pieces;
}

#else

namespace {
[[noreturn]] void no_library() {
  fail_input(
      "this tokenizer is learnt by the library SentencePiece, which this program was built "
      "without: "
      "install libsentencepiece-dev and pkg-config ('make setup') and run make again, or take "
      "--tokenizer bpe");
}
}  // namespace

bool has_sentencepiece() {
  return false;
}
std::vector<Piece> learn_unigram_pieces(std::string_view, int) {
  no_library();
}
std::vector<Piece> learn_bpe_pieces(std::string_view, int) {
  no_library();
}

#endif

}  // namespace focus
