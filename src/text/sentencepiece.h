// What the library SentencePiece learns from a text: the pieces of its unigram model (Kudo 2018),
// the paper's smaller tokenizer, or of its byte-pair encoding. The library is needed for nothing
// else: the tokens are made of its pieces here (text/unigram.h, text/bpe.h).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace focus {

// Whether the program was built with the library.
bool has_sentencepiece();

struct Piece {
  std::string bytes;
  float score = 0;  // unigram: the logarithm of its probability
};

// `count` pieces for a text of UTF-8, of its first 8 MiB, in the library's order: the likeliest
// first. InputError with the library's words where the text has not that many, and where there is
// no library.
std::vector<Piece> learn_unigram_pieces(std::string_view text, int count);

// Pieces of two or more characters, each made of two earlier ones or characters, in the order in
// which they are made: as many as a vocabulary of `vocabulary` pieces and characters has.
std::vector<Piece> learn_bpe_pieces(std::string_view text, int vocabulary);

}  // namespace focus
