// A text made ready for training: a folder with its tokenizer and its tokens.
//
//   DIR/tokenizer.txt         text/tokenizer.h
//   DIR/tokens.safetensors    tensors `train` and `held_out`, U16 [tokens]; in the metadata how
//   many
//                             bytes of text each stands for, the window, and a hash of the
//                             tokenizer
//
// The held-out part is the end of the text, so nothing of it is trained on: windows are taken from
// one part or the other, and the tokenizer learns from the first alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace focus {

struct TextPart {
  std::vector<TokenId> tokens;
  int64_t bytes = 0;  // of the text that they encode

  // Cross-entropy in nats a token → bits a byte, which tokenizers can be compared by.
  double bits_per_byte(double nats_per_token) const;
};

struct TextData {
  Tokenizer tokenizer;
  TextPart train, held_out;
  int window = 0;  // tokens of context before the one to predict

  // Of the tokenizer and all tokens, FNV-1a: runs keep it, so as never to go on with another text.
  uint64_t hash() const;
};

// What a file's bytes are as text for a tokenizer. bpe reads UTF-8: InputError with the offset of
// the first byte that is none, or that is NUL; a byte order mark is dropped and CR LF becomes LF,
// which `notes` says. bytes takes them as they are. InputError if nothing is left.
std::string text_of_file(std::string bytes, const std::string& name, TokenizerKind kind,
                         std::vector<std::string>& notes);

// Cuts the text, after a line break if there is one near: the last `held_out_share` of it.
std::pair<std::string_view, std::string_view> split_text(std::string_view text,
                                                         double held_out_share);

// Learns the tokenizer and encodes both parts. InputError unless each is longer than the window.
TextData prepare_text(std::string_view train, std::string_view held_out, TokenizerKind kind,
                      int vocabulary, int window);

// Writes both files into a folder, which is made where it is missing; it must have neither. Reading
// throws InputError for anything that is wrong with them.
void write_text_data(const TextData& data, const std::filesystem::path& dir);
TextData read_text_data(const std::filesystem::path& dir);
Tokenizer read_tokenizer(const std::filesystem::path& dir);

// One part alone, from the tokens' file as bytes.
TextData parse_text_data(std::string_view tokens_file, std::string_view tokenizer_file,
                         const std::string& dir);

}  // namespace focus
