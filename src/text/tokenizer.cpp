#include "text/tokenizer.h"

#include <algorithm>
#include <charconv>

#include "enum_names.h"
#include "error.h"

namespace focus {

namespace {

constexpr std::string_view title = "semantic-focus tokenizer 1";
constexpr size_t most_file_bytes = size_t{2} << 20;

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
  [[noreturn]] void fail(const std::string& what) const {
    fail_input(where_, ", line ", number_, ": ", what);
  }

 private:
  std::string_view rest_;
  const std::string& where_;
  size_t number_ = 0;
};

constexpr const char* kind_names[] = {"bytes", "bpe"};

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
  for (const Merge& merge : learn_merges(text, vocabulary - byte_values))
    tokenizer.add_merge(merge);
  if (tokenizer.vocabulary() < vocabulary)
    fail_input("a vocabulary of ", vocabulary, " is more than this text allows: after ",
               tokenizer.vocabulary(), " no pair of neighbours occurs twice");
  return tokenizer;
}

std::string Tokenizer::file_text() const {
  std::string text = str(title, "\nkind ", name_of(kind_), "\nvocabulary ", vocabulary(), "\n");
  for (const Merge& merge : merges_)
    text += std::to_string(merge.left) + " " + std::to_string(merge.right) + "\n";
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
  if (kind != "bytes" && kind != "bpe") lines.fail("the kind is neither bytes nor bpe");
  if (kind == "bpe") tokenizer.kind_ = TokenizerKind::bpe;
  const int vocabulary = lines.whole(lines.value("vocabulary"), largest_vocabulary + 1);
  if (vocabulary < byte_values || (kind == "bytes" && vocabulary != byte_values))
    lines.fail(str("a vocabulary of ", vocabulary, " does not go with ", kind));
  while (tokenizer.vocabulary() < vocabulary) {
    const std::string_view line = lines.next();
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
  if (!lines.at_end()) lines.next(), lines.fail("nothing should follow the last merge");
  return tokenizer;
}

// Applies the merges in the order in which they were learnt: the earliest whose pair is there, as
// long as there is one.
void Tokenizer::encode_chunk(std::string_view chunk, std::vector<TokenId>& tokens) const {
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
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = chunk_end(bytes, begin);
    const std::string_view chunk = bytes.substr(begin, end - begin);
    begin = end;
    const auto found = known.find(chunk);
    if (found != known.end()) {
      tokens.insert(tokens.end(), found->second.begin(), found->second.end());
      continue;
    }
    encode_chunk(chunk, chunk_tokens);
    tokens.insert(tokens.end(), chunk_tokens.begin(), chunk_tokens.end());
    if (known.size() < most_remembered) known.emplace(chunk, chunk_tokens);
  }
  return tokens;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens) const {
  std::string bytes;
  for (const TokenId token : tokens) bytes += bytes_of(token);
  return bytes;
}

}  // namespace focus
