// focus text prepare, encode, decode: text for --task text.
#include <cstdio>
#include <optional>
#include <utility>

#include "cli/command.h"
#include "error.h"
#include "files/atomic_file.h"
#include "files/folder.h"
#include "text/ngrams.h"
#include "text/text_data.h"

namespace focus {

namespace {

namespace fs = std::filesystem;

constexpr size_t most_text_bytes = size_t{1} << 30;

struct Prepare {
  std::vector<std::string> files, held_out_files;
  TokenizerKind tokenizer = TokenizerKind::bpe;
  std::optional<int> vocabulary;
  int window = 64;
  double held_out = 0.1;
  std::string out;
};

std::string read_texts(const std::vector<std::string>& files, TokenizerKind kind,
                       std::vector<std::string>& notes) {
  std::string text;
  for (const std::string& file : files) {
    text += text_of_file(read_file(file, most_text_bytes), file, kind, notes);
    if (text.size() > most_text_bytes)
      fail_input("the files hold more than ", most_text_bytes, " bytes together");
  }
  return text;
}

std::string line_of(const char* name, const CountedLoss& loss, const TextData& data) {
  char line[200];
  std::snprintf(line, sizeof line, "%-8s %10.4f %15.4f %10.4f %15.4f\n", name, loss.train,
                data.train.bits_per_byte(loss.train), loss.held_out,
                data.held_out.bits_per_byte(loss.held_out));
  return line;
}

std::string part_of(const char* name, const TextPart& part) {
  char line[200];
  std::snprintf(line, sizeof line, "%-8s %10lld bytes %10zu tokens, %.3f bytes a token\n", name,
                static_cast<long long>(part.bytes), part.tokens.size(),
                double(part.bytes) / double(part.tokens.size()));
  return line;
}

int prepare(const Prepare& o) {
  const fs::path out(o.out);
  // Before the work: nothing is overwritten.
  if (kind_of(out) == PathKind::file) fail_input("--out ", o.out, " is a file, not a folder");
  if (kind_of(out) == PathKind::folder && !fs::is_empty(out))
    fail_input("--out ", o.out, " exists already and is not empty: choose another name");
  if (!o.vocabulary && o.tokenizer != TokenizerKind::bytes)
    fail_input(
        "--vocabulary is missing: how many different tokens, 256 of them the bytes? "
        "512 or 4096, say");
  std::vector<std::string> notes;
  const std::string text = read_texts(o.files, o.tokenizer, notes);
  const std::string other = read_texts(o.held_out_files, o.tokenizer, notes);
  const auto [train, held_out] = other.empty()
                                     ? split_text(text, o.held_out)
                                     : std::pair<std::string_view, std::string_view>(text, other);
  const TextData data =
      prepare_text(train, held_out, o.tokenizer, o.vocabulary.value_or(byte_values), o.window);

  write_text_data(data, out);

  std::string said;
  for (const std::string& note : notes) said += note + "\n";
  const int vocabulary = data.tokenizer.vocabulary();
  said += part_of("training", data.train) + part_of("held-out", data.held_out);
  said +=
      "\nto beat       training                   held-out\n"
      "         nats a token     bits a byte       nats     bits a byte\n";
  said +=
      line_of("unigram", unigram_loss(data.train.tokens, data.held_out.tokens, vocabulary), data);
  said += line_of("bigram", bigram_loss(data.train.tokens, data.held_out.tokens, vocabulary), data);
  print(said + str("\nwritten to ", o.out, ": tokenizer.txt, tokens.safetensors; vocabulary ",
                   vocabulary, ", window ", data.window, "\n"));
  return 0;
}

struct Coding {
  std::string tokenizer, file = "-";
};

// A file, or everything on standard input.
std::string read_input(const std::string& file) {
  if (file != "-") return read_file(file, most_text_bytes);
  std::string bytes;
  char buffer[1 << 16];
  while (const size_t read = std::fread(buffer, 1, sizeof buffer, stdin)) {
    bytes.append(buffer, read);
    if (bytes.size() > most_text_bytes)
      fail_input("standard input holds more than ", most_text_bytes, " bytes");
  }
  return bytes;
}

int encode(const Coding& o) {
  const Tokenizer tokenizer = read_tokenizer(o.tokenizer);
  const std::string bytes = read_input(o.file);
  constexpr size_t ids_a_line = 20;
  std::string text;
  size_t on_line = 0;
  for (const TokenId token : tokenizer.encode(bytes)) {
    if (on_line > 0) text += on_line % ids_a_line == 0 ? '\n' : ' ';
    text += std::to_string(token);
    ++on_line;
  }
  print(text.empty() ? text : text + "\n");
  return 0;
}

int decode(const Coding& o) {
  const Tokenizer tokenizer = read_tokenizer(o.tokenizer);
  const std::string text = read_input(o.file);
  std::vector<TokenId> tokens;
  constexpr std::string_view blanks = " \t\r\n";
  for (size_t at = text.find_first_not_of(blanks); at != text.npos;) {
    const size_t end = std::min(text.find_first_of(blanks, at), text.size());
    const std::string word = text.substr(at, std::min<size_t>(end - at, 40));
    try {
      tokens.push_back(TokenId(read_whole(word, 0, tokenizer.vocabulary() - 1)));
    } catch (const InputError& error) {
      fail_input(o.file == "-" ? "standard input" : o.file, ", id ", tokens.size() + 1, ": ",
                 error.what());
    }
    at = text.find_first_not_of(blanks, end);
  }
  print(tokenizer.decode(tokens));
  return 0;
}

void add_coding(CLI::App& app, Coding& coding, const std::string& what) {
  add_file(app, "--tokenizer", "DIR", coding.tokenizer,
           "the folder that 'focus text prepare' wrote")
      ->required();
  add_file(app, "FILE", "", coding.file, what + " (default: standard input)");
}

}  // namespace

void add_text_commands(CLI::App& focus) {
  CLI::App& text = *add_group(focus, "text", "make a text ready for --task text");

  const auto [preparing, p] = add_command(
      text, "prepare", "learn a tokenizer from a text and encode the text with it", prepare);
  add_texts(preparing, "--text", "FILE…", p.files, "the text, in one file or several, UTF-8")
      ->required();
  add_texts(preparing, "--held-out-text", "FILE…", p.held_out_files,
            "held-out text in files of its own (default: the end of --text)");
  add_name(
      preparing, "--tokenizer", p.tokenizer, tokenizer_kind_of,
      "bytes, bpe (byte-pair encoding of bytes), or learnt by the library SentencePiece: unigram, "
      "sentencepiece-bpe");
  add_whole(preparing, "--vocabulary", p.vocabulary, byte_values, largest_vocabulary,
            "how many different tokens; 256 of them are the bytes");
  add_whole(preparing, "--window", p.window, 1, 16384,
            "tokens of context from which the next one is predicted");
  add_number(preparing, "--held-out", p.held_out, 0.001, 0.9,
             "share of the text, at its end, that is held out");
  add_file(preparing, "--out", "DIR", p.out, "where it goes: a new folder or an empty one")
      ->required();
  add_footer(
      preparing,
      "Writes DIR/tokenizer.txt and DIR/tokens.safetensors, and prints what a model has to beat: "
      "the\ncross-entropy of counting single tokens (unigram) and pairs (bigram).\n"
      "bytes takes any file as it is; the others drop a byte order mark and turn CR LF into LF.\n"
      "Example: focus text prepare --text data/text/*.txt --vocabulary 512 --out out/austen");

  const auto [encoding, e] = add_command(text, "encode", "print the token ids of a file", encode);
  add_coding(encoding, e, "any file");
  add_footer(encoding, "Example: focus text encode --tokenizer out/austen letter.txt");

  const auto [decoding, d] =
      add_command(text, "decode", "write the bytes that token ids stand for", decode);
  add_coding(decoding, d, "token ids with blanks between them");
  add_footer(decoding, "Example: echo 265 110 | focus text decode --tokenizer out/austen");
}

}  // namespace focus
