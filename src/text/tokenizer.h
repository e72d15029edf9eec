// From bytes to token ids and back.
//
//   bytes    each byte is a token; takes anything
//   bpe      byte-level byte-pair encoding, learnt from a text (text/bpe.h); takes anything, too
//   unigram  pieces with probabilities (text/unigram.h), learnt by the library SentencePiece;
//            bytes for what no piece matches
//
// decode(encode(bytes)) == bytes, whatever the bytes are.
//
// A tokenizer's file, DIR/tokenizer.txt, also in the metadata of checkpoints:
//
//   semantic-focus tokenizer 1
//   kind bpe
//   vocabulary 512
//   32 116                 for bpe one line for each merge: token 256 is made of 32 and 116,
//   …                      token 257 of the two ids on the next line, and so on
//   -7.25 206f66           for unigram one line for each piece: the logarithm of its
//                          probability, and its bytes in hexadecimal
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tasks/padded_data.h"
#include "text/bpe.h"
#include "text/unigram.h"

namespace focus {

// sentencepiece_bpe: merges that SentencePiece learns (on characters, not on bytes); what is learnt
// is a tokenizer of the kind bpe.
enum class TokenizerKind { bytes, bpe, unigram, sentencepiece_bpe };
const char* name_of(TokenizerKind kind);
TokenizerKind tokenizer_kind_of(const std::string& name);  // InputError lists the names

inline constexpr int largest_vocabulary = 65536;  // what a TokenId can tell apart

class Tokenizer {
 public:
  Tokenizer();  // bytes

  // Learns from a text. InputError unless 256 <= vocabulary <= 65536 and the text allows so many:
  // for bpe, has that many pairs that occur twice or more; for bytes, unless it is 256.
  static Tokenizer learn(TokenizerKind kind, std::string_view text, int vocabulary);

  // The file's contents, and a tokenizer from them: InputError names `where` and the line. At most
  // 2 MiB are taken, no token is longer than 64 bytes.
  std::string file_text() const;
  static Tokenizer parse(std::string_view file_text, const std::string& where);

  TokenizerKind kind() const { return kind_; }
  int vocabulary() const { return int(token_bytes_.size()); }
  // The bytes that a token stands for.
  std::string_view bytes_of(TokenId token) const { return token_bytes_[token]; }

  std::vector<TokenId> encode(std::string_view bytes) const;
  // Every id must be below vocabulary().
  std::string decode(std::span<const TokenId> tokens) const;

 private:
  void add_merge(const Merge& merge);
  void add_piece(std::string_view bytes, float score);
  void add_merges_of(std::string_view piece, int vocabulary);
  void encode_chunk(std::string_view chunk, std::vector<TokenId>& tokens) const;

  TokenizerKind kind_ = TokenizerKind::bytes;
  std::vector<Merge> merges_;
  std::unordered_map<uint32_t, TokenId> made_;  // of a pair, left << 16 | right
  UnigramPieces pieces_;
  std::vector<float> scores_;  // of the pieces
  std::vector<std::string> token_bytes_;
};

}  // namespace focus
