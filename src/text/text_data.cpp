#include "text/text_data.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "files/atomic_file.h"
#include "files/folder.h"
#include "files/safetensors.h"
#include "text/utf8.h"

namespace focus {

namespace {

namespace fs = std::filesystem;

constexpr const char *tokenizer_name = "tokenizer.txt", *tokens_name = "tokens.safetensors";
constexpr size_t most_tokenizer_bytes = size_t{2} << 20, most_token_bytes = size_t{1} << 31;
constexpr int longest_window = 16384;

// FNV-1a.
uint64_t hash_of(std::string_view bytes, uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : bytes) hash = (hash ^ uint8_t(c)) * 0x100000001b3u;
  return hash;
}

std::string_view as_bytes(const std::vector<TokenId>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId)};
}

std::string hex(uint64_t hash) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

void add_tokens(Safetensors& file, const char* name, const std::vector<TokenId>& tokens) {
  StoredTensor tensor{name, DType::U16, {int64_t(tokens.size())}, {}};
  for (const TokenId token : tokens)
    tensor.bytes.push_back(std::byte(token & 0xff)), tensor.bytes.push_back(std::byte(token >> 8));
  file.add(std::move(tensor));
}

TextPart read_part(const Safetensors& file, const char* name, const Tokenizer& tokenizer,
                   int window) {
  TextPart part;
  const StoredTensor& tensor = file.require(name);
  if (tensor.dtype != DType::U16 || tensor.shape.size() != 1)
    fail_input(file.file_name(), ": tensor '", name, "' is not U16 in one dimension");
  part.tokens.resize(tensor.count());
  int64_t bytes = 0;
  for (size_t i = 0; i < part.tokens.size(); ++i) {
    const int64_t token = *integer_at(tensor.dtype, tensor.bytes.data() + 2 * i);
    if (token >= tokenizer.vocabulary())
      fail_input(file.file_name(), ": tensor '", name, "', element ", i, ": token ", token,
                 " is not below the vocabulary of ", tokenizer.vocabulary());
    part.tokens[i] = TokenId(token);
    bytes += int64_t(tokenizer.bytes_of(TokenId(token)).size());
  }
  part.bytes = file.integer_setting(str(name, "_bytes"), 1, int64_t{1} << 40);
  if (part.bytes != bytes)
    fail_input(file.file_name(), ": its ", name, " tokens stand for ", bytes, " bytes, not for ",
               part.bytes, " as it says");
  if (int64_t(part.tokens.size()) <= window)
    fail_input(file.file_name(), ": its ", part.tokens.size(), " ", name,
               " tokens are too few for a window of ", window, " and the token after it");
  return part;
}

void check_window(const TextPart& part, const char* name, int window) {
  if (int64_t(part.tokens.size()) > window) return;
  fail_input("--window ", window, ": the ", name, " part has ", part.tokens.size(),
             " tokens, too few for a window and the token after it; take a shorter window or a "
             "longer text");
}

}  // namespace

double TextPart::bits_per_byte(double nats_per_token) const {
  return nats_per_token * double(tokens.size()) / double(bytes) / std::log(2.0);
}

uint64_t TextData::hash() const {
  const uint64_t hash = hash_of(as_bytes(train.tokens), hash_of(tokenizer.file_text()));
  return hash_of(as_bytes(held_out.tokens), hash);
}

std::string text_of_file(std::string bytes, const std::string& name, TokenizerKind kind,
                         std::vector<std::string>& notes) {
  if (bytes.empty()) fail_input(name, " is empty");
  if (kind == TokenizerKind::bytes) return bytes;
  if (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff"))
    fail_input(name, " is UTF-16; convert it: iconv -f UTF-16 -t UTF-8");
  if (const auto wrong = first_invalid_utf8(bytes))
    fail_input(name, ": byte ", *wrong, ", 0x", hex(uint8_t(bytes[*wrong])).substr(14),
               ", is not UTF-8; convert the file (iconv -f LATIN1 -t UTF-8, say), or take "
               "--tokenizer bytes");
  if (const size_t nul = bytes.find('\0'); nul != bytes.npos)
    fail_input(name, ": byte ", nul, " is NUL: this is no text; --tokenizer bytes takes any file");
  if (bytes.starts_with("\xef\xbb\xbf")) {
    bytes = bytes.substr(3);
    notes.push_back(str(name, ": without its byte order mark"));
    if (bytes.empty()) fail_input(name, " holds nothing but a byte order mark");
  }
  if (const size_t first = bytes.find("\r\n"); first != bytes.npos) {
    size_t kept = first;
    for (size_t i = first; i < bytes.size(); ++i)
      if (!(bytes[i] == '\r' && i + 1 < bytes.size() && bytes[i + 1] == '\n'))
        bytes[kept++] = bytes[i];
    bytes.resize(kept);
    notes.push_back(str(name, ": line ends CR LF became LF"));
  }
  return bytes;
}

std::pair<std::string_view, std::string_view> split_text(std::string_view text,
                                                         double held_out_share) {
  size_t cut = text.size() - size_t(double(text.size()) * held_out_share);
  const size_t line = text.rfind('\n', cut);
  constexpr size_t near = 1000;
  if (line != text.npos && cut - line < near) cut = line + 1;
  // Not within a character.
  while (cut > 0 && cut < text.size() && continues_character(text[cut])) --cut;
  return {text.substr(0, cut), text.substr(cut)};
}

TextData prepare_text(std::string_view train, std::string_view held_out, TokenizerKind kind,
                      int vocabulary, int window) {
  TextData data{Tokenizer::learn(kind, train, vocabulary), {}, {}, window};
  data.train = {data.tokenizer.encode(train), int64_t(train.size())};
  data.held_out = {data.tokenizer.encode(held_out), int64_t(held_out.size())};
  check_window(data.train, "training", window);
  check_window(data.held_out, "held-out", window);
  return data;
}

void write_text_data(const TextData& data, const fs::path& dir) {
  Safetensors file;
  add_tokens(file, "train", data.train.tokens);
  add_tokens(file, "held_out", data.held_out.tokens);
  const std::string tokenizer = data.tokenizer.file_text();
  file.metadata["format"] = "semantic-focus tokens";
  file.metadata.emplace("format_version", "1");
  file.metadata["vocabulary"] = std::to_string(data.tokenizer.vocabulary());
  file.metadata["tokenizer_hash"] = hex(hash_of(tokenizer));
  file.metadata["window"] = std::to_string(data.window);
  file.metadata["train_bytes"] = std::to_string(data.train.bytes);
  file.metadata["held_out_bytes"] = std::to_string(data.held_out.bytes);
  FolderLock lock = FolderLock::make(dir);
  for (const char* name : {tokenizer_name, tokens_name}) lock.will_make(dir / name);
  write_file_atomically(dir / tokenizer_name, tokenizer, IfThere::refuse);
  write_file_atomically(dir / tokens_name, file.serialize(), IfThere::refuse);
  lock.keep();
}

TextData parse_text_data(std::string_view tokens_file, std::string_view tokenizer_file,
                         const std::string& dir) {
  const fs::path folder(dir);
  TextData data;
  data.tokenizer = Tokenizer::parse(tokenizer_file, (folder / tokenizer_name).string());
  Safetensors::Limits limits;
  limits.file_bytes = most_token_bytes;
  const Safetensors file = Safetensors::parse(tokens_file, (folder / tokens_name).string(), limits);
  if (file.setting("format") != "semantic-focus tokens" || file.setting("format_version") != "1")
    fail_input(file.file_name(), ": is no file of tokens in format 1; make it anew with 'focus ",
               "text prepare'");
  if (file.setting("tokenizer_hash") != hex(hash_of(tokenizer_file)))
    fail_input(file.file_name(), ": was made with another tokenizer than ", tokenizer_name,
               " beside it");
  data.window = int(file.integer_setting("window", 1, longest_window));
  data.train = read_part(file, "train", data.tokenizer, data.window);
  data.held_out = read_part(file, "held_out", data.tokenizer, data.window);
  return data;
}

namespace {
std::string read_one(const fs::path& dir, const char* name, size_t most_bytes) {
  if (kind_of(dir / name) == PathKind::missing)
    fail_input(
        "'", dir.string(), "' holds no prepared text: ",
        kind_of(dir) == PathKind::missing ? "there is no such folder" : str("it has no ", name),
        "; make it with 'focus text prepare'");
  return read_file(dir / name, most_bytes);
}
}  // namespace

TextData read_text_data(const fs::path& dir) {
  const std::string tokenizer = read_one(dir, tokenizer_name, most_tokenizer_bytes);
  return parse_text_data(read_one(dir, tokens_name, most_token_bytes), tokenizer, dir.string());
}

Tokenizer read_tokenizer(const fs::path& dir) {
  return Tokenizer::parse(read_one(dir, tokenizer_name, most_tokenizer_bytes),
                          (dir / tokenizer_name).string());
}

}  // namespace focus
