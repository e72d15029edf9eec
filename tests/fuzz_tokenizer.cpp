// Fuzz target for the files of a prepared text: `fuzz_tokenizer SECONDS [SEED]`.
//
// A tokenizer that is accepted encodes and decodes any bytes without loss and writes the file it
// was read from; a file of tokens that is accepted holds none beyond its vocabulary. fuzz.h has the
// rest.
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "files/atomic_file.h"
#include "files/folder.h"
#include "fuzz.h"
#include "text/text_data.h"

using namespace focus;

static void require(bool sound, const char* what) {
  if (!sound) throw std::logic_error(what);
}

static void read_tokenizer_from(const std::string& bytes) {
  const Tokenizer tokenizer = Tokenizer::parse(bytes, "fuzz");
  require(tokenizer.file_text() == bytes, "the file is written otherwise than it was read");
  const std::string sample = bytes.substr(0, 2000) + std::string("\0\xff\x80 the the", 11);
  const std::vector<TokenId> tokens = tokenizer.encode(sample);
  for (const TokenId token : tokens) require(token < tokenizer.vocabulary(), "token out of range");
  require(tokenizer.decode(tokens) == sample, "decoding loses bytes");
}

static std::string tokens_file(const TextData& data) {
  const std::filesystem::path dir =
      std::filesystem::temp_directory_path() / str("focus-fuzz-", ::getpid());
  make_folder(dir);
  write_text_data(data, dir);
  const std::string bytes = read_file(dir / "tokens.safetensors", 1 << 20);
  std::filesystem::remove_all(dir);
  return bytes;
}

int main(int argc, char** argv) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += i % 3 == 0 ? "the king, " : "the old\nking ";
  const TextData data = prepare_text(text, text, TokenizerKind::bpe, 262, 4);
  const std::string tokenizer = data.tokenizer.file_text();
  const std::string unigram =
      "semantic-focus tokenizer 1\nkind unigram\nvocabulary 259\n-1.5 20746865\n-3 61\n-9.25 "
      "c3a9\n";
  const std::vector<std::string> corpus = {tokenizer, Tokenizer().file_text(), unigram,
                                           tokens_file(data)};
  return fuzz_main(argc, argv, "fuzz_tokenizer", corpus, [&](const std::string& bytes) {
    bool accepted = accepts([&] { read_tokenizer_from(bytes); });
    accepted |= accepts([&] {
      const TextData read = parse_text_data(bytes, tokenizer, "fuzz");
      for (const TextPart* part : {&read.train, &read.held_out})
        for (const TokenId token : part->tokens)
          require(token < read.tokenizer.vocabulary(), "token out of range");
    });
    return accepted;
  });
}
