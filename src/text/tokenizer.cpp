#include "text/tokenizer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "enum_names.h"
#include "error.h"
#include "files/printable.h"
#include "text/sentencepiece.h"
#include "text/utf8.h"

namespace focus {

namespace {

constexpr std::string_view title = "semantic-focus tokenizer 1";
constexpr size_t most_file_bytes = size_t{2} << 20;

// The shortest text that reads back as the same number.
std::string score_text(float score) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, score).ptr};
}

// Lines of a file, one after the other.
class Lines {
 public:
  Lines(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

  bool at_end() const { return rest_.empty(); }
  std::string_view next() {
    if (at_end()) fail_input(where_, ": ends after line ", number_, "; is it cut short?");
    ++number_;
    const size_t end = rest_.find('\n');
    if (end == rest_.npos) fail("does not end in a line break; is the file cut short?");
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return line;
  }
  std::string_view value(std::string_view key) {
    const std::string_view line = next();
    if (!line.starts_with(key) || line.substr(key.size(), 1) != " ")
      fail(str("should begin with '", key, " '"));
    return line.substr(key.size() + 1);
  }
  // A whole number below `limit`, in plain digits.
  int whole(std::string_view text, int limit) const {
    int value = -1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    const bool plain = text == "0" || (!text.starts_with('0') && !text.starts_with('-'));
    if (error != std::errc() || stop != end || value < 0 || value >= limit || !plain)
      fail(str("'", text.substr(0, 20), "' is no whole number from 0 to ", limit - 1));
    return value;
  }
  // A finite number in its shortest form, and bytes in hexadecimal.
  Piece piece(std::string_view line) const {
    const size_t blank = std::min(line.find(' '), line.size());
    const std::string_view number = line.substr(0, blank);
    Piece piece;
    std::from_chars(number.data(), number.data() + number.size(), piece.score);
    if (blank == line.size() || score_text(piece.score) != number || !std::isfinite(piece.score))
      fail("should be a piece: a number, a blank, bytes in hexadecimal");
    for (size_t i = blank + 1; i < line.size(); i += 2) {
      int byte = -1;
      std::from_chars(line.data() + i, line.data() + std::min(i + 2, line.size()), byte, 16);
      piece.bytes += char(byte);
    }
    if (hex_text(piece.bytes) != line.substr(blank + 1)) fail("its bytes are not in hexadecimal");
    if (piece.bytes.empty() || piece.bytes.size() > longest_chunk)
      fail(str("a piece has 1 to ", longest_chunk, " bytes, not ", piece.bytes.size()));
    return piece;
  }
  [[noreturn]] void fail(const std::string& what) const {
    fail_input(where_, ", line ", number_, ": ", what);
  }

 private:
  std::string_view rest_;
  const std::string& where_;
  size_t number_ = 0;
};

constexpr const char* kind_names[] = {"bytes", "bpe", "unigram", "sentencepiece-bpe"};

}  // namespace

const char* name_of(TokenizerKind kind) {
  return name_among(kind_names, kind);
}

TokenizerKind tokenizer_kind_of(const std::string& name) {
  return value_named<TokenizerKind>(name, kind_names, "tokenizer");
}

Tokenizer::Tokenizer() {
  for (int byte = 0; byte < byte_values; ++byte) token_bytes_.emplace_back(1, char(byte));
}

void Tokenizer::add_merge(const Merge& merge) {
  made_.emplace(uint32_t{merge.left} << 16 | merge.right, TokenId(vocabulary()));
  token_bytes_.push_back(token_bytes_[merge.left] + token_bytes_[merge.right]);
  merges_.push_back(merge);
}

void Tokenizer::add_piece(std::string_view bytes, float score) {
  pieces_.add(bytes, score, TokenId(vocabulary()));
  scores_.push_back(score);
  token_bytes_.emplace_back(bytes);
}

// The merges that make a piece of the tokens that there are, as long as the vocabulary is not full:
// those of its characters, whose bytes are merged from the left, and the piece's own. A piece that
// is made of more than two tokens has lost its parts to another one.
void Tokenizer::add_merges_of(std::string_view piece, int full) {
  std::vector<TokenId> tokens;
  const auto add = [&](TokenId left, TokenId right) {
    const size_t bytes = token_bytes_[left].size() + token_bytes_[right].size();
    if (vocabulary() < full && bytes <= longest_chunk &&
        !made_.contains(uint32_t{left} << 16 | right))
      add_merge({left, right});
  };
  for (size_t at = 0; at < piece.size();) {
    size_t end = at + 1;
    while (end < piece.size() && continues_character(piece[end])) ++end;
    for (size_t stop = at + 2; stop <= end; ++stop) {
      encode_chunk(piece.substr(at, stop - at), tokens);
      if (tokens.size() == 2) add(tokens[0], tokens[1]);
    }
    at = end;
  }
  encode_chunk(piece, tokens);
  if (tokens.size() == 2) add(tokens[0], tokens[1]);
}

Tokenizer Tokenizer::learn(TokenizerKind kind, std::string_view text, int vocabulary) {
  if (vocabulary < byte_values || vocabulary > largest_vocabulary)
    fail_input("a vocabulary of ", vocabulary, " is not between ", byte_values,
               ", one token for each byte, and ", largest_vocabulary);
  Tokenizer tokenizer;
  tokenizer.kind_ = kind;
  if (kind == TokenizerKind::bytes) {
    if (vocabulary != byte_values)
      fail_input("the tokenizer 'bytes' has a vocabulary of ", byte_values, ", not ", vocabulary);
    return tokenizer;
  }
  if (kind == TokenizerKind::unigram) {
    for (const Piece& piece : learn_unigram_pieces(text, vocabulary - byte_values))
      tokenizer.add_piece(piece.bytes, piece.score);
    return tokenizer;
  }
  if (kind == TokenizerKind::sentencepiece_bpe) {
    tokenizer.kind_ = TokenizerKind::bpe;
    for (const Piece& piece : learn_bpe_pieces(text, vocabulary))
      tokenizer.add_merges_of(piece.bytes, vocabulary);
  } else {
    for (const Merge& merge : learn_merges(text, vocabulary - byte_values))
      tokenizer.add_merge(merge);
  }
  if (tokenizer.vocabulary() < vocabulary)
    fail_input("a vocabulary of ", vocabulary, " is more than this text allows: after ",
               tokenizer.vocabulary(), " no pair of neighbours occurs twice");
  return tokenizer;
}

std::string Tokenizer::file_text() const {
  std::string text = str(title, "\nkind ", name_of(kind_), "\nvocabulary ", vocabulary(), "\n");
  for (const Merge& merge : merges_)
    text += std::to_string(merge.left) + " " + std::to_string(merge.right) + "\n";
  for (size_t i = 0; i < scores_.size(); ++i)
    text += score_text(scores_[i]) + " " + hex_text(token_bytes_[byte_values + i]) + "\n";
  return text;
}

Tokenizer Tokenizer::parse(std::string_view text, const std::string& where) {
  if (text.size() > most_file_bytes)
    fail_input(where, ": has ", text.size(), " bytes; a tokenizer's file has at most ",
               most_file_bytes);
  Lines lines(text, where);
  if (lines.at_end() || lines.next() != title)
    fail_input(where, ": is no tokenizer's file: it does not begin with '", title, "'");
  Tokenizer tokenizer;
  const std::string_view kind = lines.value("kind");
  for (const TokenizerKind known : {TokenizerKind::bpe, TokenizerKind::unigram})
    if (kind == name_of(known)) tokenizer.kind_ = known;
  if (kind != name_of(tokenizer.kind_)) lines.fail("the kind is none of bytes, bpe and unigram");
  const int vocabulary = lines.whole(lines.value("vocabulary"), largest_vocabulary + 1);
  if (vocabulary < byte_values || (kind == "bytes" && vocabulary != byte_values))
    lines.fail(str("a vocabulary of ", vocabulary, " does not go with ", kind));
  while (tokenizer.vocabulary() < vocabulary) {
    const std::string_view line = lines.next();
    if (tokenizer.kind_ == TokenizerKind::unigram) {
      const Piece piece = lines.piece(line);
      if (tokenizer.pieces_.contains(piece.bytes)) lines.fail("the same piece stands there twice");
      tokenizer.add_piece(piece.bytes, piece.score);
      continue;
    }
    const size_t blank = std::min(line.find(' '), line.size());
    const int ids = tokenizer.vocabulary();
    if (blank == line.size()) lines.fail("should be the two ids of a merge");
    const Merge merge{TokenId(lines.whole(line.substr(0, blank), ids)),
                      TokenId(lines.whole(line.substr(blank + 1), ids))};
    if (tokenizer.made_.contains(uint32_t{merge.left} << 16 | merge.right))
      lines.fail("the same two ids are merged twice");
    if (tokenizer.token_bytes_[merge.left].size() + tokenizer.token_bytes_[merge.right].size() >
        longest_chunk)
      lines.fail(str("makes a token of more than ", longest_chunk, " bytes"));
    tokenizer.add_merge(merge);
  }
  if (!lines.at_end()) lines.next(), lines.fail("nothing should follow the last token");
  return tokenizer;
}

// Applies the merges in the order in which they were learnt: the earliest whose pair is there, as
// long as there is one.
void Tokenizer::encode_chunk(std::string_view chunk, std::vector<TokenId>& tokens) const {
  if (kind_ == TokenizerKind::unigram) return pieces_.encode(chunk, tokens);
  tokens.clear();
  for (const char c : chunk) tokens.push_back(uint8_t(c));
  while (true) {
    int earliest = largest_vocabulary;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = made_.find(uint32_t{tokens[i]} << 16 | tokens[i + 1]);
      if (found != made_.end()) earliest = std::min(earliest, int(found->second));
    }
    if (earliest == largest_vocabulary) return;
    apply_merge(tokens, merges_[size_t(earliest - byte_values)], TokenId(earliest));
  }
}

std::vector<TokenId> Tokenizer::encode(std::string_view bytes) const {
  constexpr size_t most_remembered = 1 << 18;
  std::vector<TokenId> tokens, chunk_tokens;
  if (kind_ == TokenizerKind::bytes) {
    for (const char c : bytes) tokens.push_back(uint8_t(c));
    return tokens;
  }
  // A text repeats its words: each is encoded once.
  std::unordered_map<std::string_view, std::vector<TokenId>> known;
  const auto end = kind_ == TokenizerKind::unigram ? word_end : chunk_end;
  for_chunks(bytes, end, [&](std::string_view chunk) {
    const auto found = known.find(chunk);
    if (found == known.end()) {
      encode_chunk(chunk, chunk_tokens);
      if (known.size() < most_remembered) known.emplace(chunk, chunk_tokens);
    }
    const std::vector<TokenId>& made = found == known.end() ? chunk_tokens : found->second;
    tokens.insert(tokens.end(), made.begin(), made.end());
  });
  return tokens;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens) const {
  std::string bytes;
  for (const TokenId token : tokens) bytes += bytes_of(token);
  return bytes;
}

}  // namespace focus
