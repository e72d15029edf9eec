// UTF-8, tokenizers, prepared texts and the baselines that count.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "error.h"
#include "files/atomic_file.h"
#include "rng.h"
#include "tasks/text.h"
#include "text/ngrams.h"
#include "text/sentencepiece.h"
#include "text/text_data.h"
#include "text/text_model.h"
#include "text/utf8.h"
#include "train/run.h"

using namespace focus;
using doctest::Contains;

TEST_CASE("utf-8: the first byte that is none") {
  for (const char* valid : {"", "abc", "\xc3\xa9", "\xe2\x82\xac x", "\xf0\x9f\x98\x80",
                            "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(!first_invalid_utf8(valid));
  const std::pair<const char*, size_t> invalid[] = {{"\x80", 0},
                                                    {"ab\xff", 2},
                                                    {"a\xc3", 1},
                                                    {"a\xc3z", 1},
                                                    {"\xc0\xaf", 0},
                                                    {"\xe0\x9f\xbf", 0},
                                                    {"\xed\xa0\x80", 0},
                                                    {"\xf0\x8f\xbf\xbf", 0},
                                                    {"\xf4\x90\x80\x80", 0},
                                                    {"\xf5\x80\x80\x80", 0},
                                                    {"xy\xe2\x82", 2},
                                                    {"\xe2\x82\x41", 0}};
  for (const auto& text : invalid) {
    CAPTURE(std::string(text.first).size());
    CHECK(first_invalid_utf8(text.first) == text.second);
  }
}

static std::vector<std::string> chunks(const std::string& text) {
  std::vector<std::string> all;
  for (size_t at = 0; at < text.size(); at += all.back().size())
    all.push_back(text.substr(at, chunk_end(text, at) - at));
  return all;
}

TEST_CASE("chunks: words with the blank before them") {
  using List = std::vector<std::string>;
  CHECK(chunks("It is, 1813!") == List{"It", " is", ",", " 1813", "!"});
  CHECK(chunks("a  b\n\nc \n") == List{"a", " ", " b", "\n\n", "c", " \n"});
  CHECK(chunks("  ") == List{"  "});
  CHECK(chunks("caf\xc3\xa9 x2") == List{"caf\xc3\xa9", " x", "2"});
  for (const std::string& chunk : chunks(std::string(1000, 'a'))) CHECK(chunk.size() <= 64);
}

TEST_CASE("a merge replaces pairs from the left") {
  const auto merged = [](std::vector<TokenId> tokens) {
    apply_merge(tokens, {1, 1}, 300);
    return tokens;
  };
  CHECK(merged({1, 1, 1}) == std::vector<TokenId>{300, 1});
  CHECK(merged({2, 1, 1, 1, 1, 2}) == std::vector<TokenId>{2, 300, 300, 2});
  CHECK(merged({1}) == std::vector<TokenId>{1});
  CHECK(merged({}).empty());
}

// Counts anew after every merge, as the definition says.
static std::vector<Merge> merges_by_definition(const std::string& text, int count) {
  std::vector<std::vector<TokenId>> words;
  for (const std::string& chunk : chunks(text)) {
    words.emplace_back();
    for (const char c : chunk) words.back().push_back(uint8_t(c));
  }
  std::vector<Merge> merges;
  while (int(merges.size()) < count) {
    std::map<std::pair<int, int>, int> times;
    for (const auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) ++times[{word[i], word[i + 1]}];
    std::pair<int, int> best;
    int most = 1;
    for (const auto& [pair, n] : times)
      if (n > most) most = n, best = pair;  // the map's order: the lowest ids of equal ones
    if (most < 2) break;
    merges.push_back({TokenId(best.first), TokenId(best.second)});
    for (auto& word : words) apply_merge(word, merges.back(), TokenId(255 + int(merges.size())));
  }
  return merges;
}

TEST_CASE("merges are those of the definition") {
  CHECK(learn_merges("aaaa aaaa", 5) == merges_by_definition("aaaa aaaa", 5));
  Rng rng(3, Stream::analysis);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "abc \nd"[rng.below(6)];
  const std::vector<Merge> merges = learn_merges(text, 120);
  CHECK(merges.size() == 120);
  CHECK(merges == merges_by_definition(text, 120));
  CHECK(learn_merges("abc", 10).empty());
}

static std::string any_bytes(int count, uint32_t seed) {
  Rng rng(seed, Stream::analysis);
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes += char(rng.below(256));
  return bytes;
}

static const std::string& story() {
  static const std::string text = [] {
    Rng rng(5, Stream::analysis);
    const char* words[] = {"the ", "king ", "of ", "was, ", "old.\n", "Emma ", "truth ", "and "};
    std::string all;
    for (int i = 0; i < 4000; ++i) all += words[rng.below(8)];
    return all;
  }();
  return text;
}

TEST_CASE("decoding gives back whatever bytes were encoded") {
  const Tokenizer bytes, bpe = Tokenizer::learn(TokenizerKind::bpe, story(), 280);
  CHECK(bpe.encode(story()).size() * 2 < story().size());
  std::vector<std::string> texts = {
      "", "a", "the king", std::string(300, ' '), std::string("\0\0a\0", 4), "\xff\xfe", story()};
  for (uint32_t seed = 1; seed <= 5; ++seed) texts.push_back(any_bytes(3000, seed));
  for (const Tokenizer* tokenizer : {&bytes, &bpe})
    for (const std::string& text : texts) {
      const std::vector<TokenId> tokens = tokenizer->encode(text);
      for (const TokenId token : tokens) REQUIRE(token < tokenizer->vocabulary());
      CHECK(tokenizer->decode(tokens) == text);
    }
}

TEST_CASE("a tokenizer's file makes the same tokenizer") {
  const Tokenizer bpe = Tokenizer::learn(TokenizerKind::bpe, story(), 280);
  const Tokenizer again = Tokenizer::parse(bpe.file_text(), "F");
  CHECK(again.file_text() == bpe.file_text());
  CHECK(again.encode(story()) == bpe.encode(story()));
  CHECK(Tokenizer::parse(Tokenizer().file_text(), "F").vocabulary() == 256);
}

TEST_CASE("a tokenizer's file that is wrong is refused with its line") {
  const std::string head = "semantic-focus tokenizer 1\nkind bpe\nvocabulary ";
  const auto refused = [](const std::string& text, const char* reason) {
    CAPTURE(text.substr(0, 100));
    CHECK_THROWS_WITH_AS(Tokenizer::parse(text, "F"), Contains(reason), InputError);
  };
  refused("", "is no tokenizer's file");
  refused("semantic-focus tokenizer 2\n", "is no tokenizer's file");
  refused("semantic-focus tokenizer 1\nkind words\n", "F, line 2");
  refused(head + "255\n", "does not go with bpe");
  refused(head + "65537\n", "F, line 3");
  refused(head + "0300\n", "no whole number");
  refused(head + "257\n-0 1\n", "no whole number");
  refused(head + "258\n1 2\n", "ends after line 4");
  refused(head + "257\n1 256\n", "F, line 4: '256'");
  refused(head + "257\n1 2", "cut short");
  refused(head + "257\n12\n", "two ids");
  refused(head + "258\n1 2\n1 2\n", "merged twice");
  refused(head + "257\n1 2\n3 4\n", "nothing should follow");
  std::string doubling = head + "300\n";
  for (int i = 0; i < 44; ++i) doubling += i == 0 ? "1 1\n" : str(255 + i, " ", 255 + i, "\n");
  refused(doubling, "more than 64 bytes");
  refused(std::string(3 << 20, 'x'), "at most");
}

// A unigram tokenizer's file, of pieces and their scores.
static std::string unigram_file(const std::vector<std::pair<std::string, std::string>>& pieces) {
  std::string text =
      str("semantic-focus tokenizer 1\nkind unigram\nvocabulary ", 256 + pieces.size(), "\n");
  for (const auto& [bytes, score] : pieces) {
    text += score + " ";
    char hex[3];
    for (const char c : bytes) std::snprintf(hex, sizeof hex, "%02x", uint8_t(c)), text += hex;
    text += "\n";
  }
  return text;
}

TEST_CASE("unigram: the cut with the largest sum of scores") {
  const std::vector<std::pair<std::string, std::string>> pieces = {
      {" ", "-2.5"},   {"a", "-1.25"},  {"b", "-3"},        {"ab", "-3.5"}, {" a", "-3.25"},
      {"ba", "-4.75"}, {"aba", "-4.5"}, {"\xc3\xa9", "-6"}, {"bb", "-5.5"}, {" ab", "-4"}};
  const Tokenizer tokenizer = Tokenizer::parse(unigram_file(pieces), "F");
  CHECK(tokenizer.file_text() == unigram_file(pieces));
  // What it makes of a word, as the sum of its scores; -16: a character that is no piece.
  const auto score_of = [&](const std::vector<TokenId>& tokens) {
    double sum = 0;
    for (const TokenId t : tokens) sum += t < 256 ? -16 : std::stod(pieces[t - 256u].second);
    return sum;
  };
  // The best of all cuts, from the right.
  const auto best_of = [&](const std::string& word) {
    std::vector<double> best(word.size() + 1, -HUGE_VAL);
    best[0] = 0;
    for (size_t end = 1; end <= word.size(); ++end) {
      best[end] = best[end - 1] - 16;
      for (const auto& [bytes, score] : pieces)
        if (word.substr(0, end).ends_with(bytes))
          best[end] = std::max(best[end], best[end - bytes.size()] + std::stod(score));
    }
    return best.back();
  };
  Rng rng(8, Stream::analysis);
  for (int i = 0; i < 200; ++i) {
    std::string word(1 + rng.below(12), 'a');
    for (char& c : word) c = "aabbc"[rng.below(5)];
    if (rng.below(2) == 1) word[0] = ' ';
    CAPTURE(word);
    const std::vector<TokenId> tokens = tokenizer.encode(word);
    CHECK(score_of(tokens) == doctest::Approx(best_of(word)));
    CHECK(tokenizer.decode(tokens) == word);
  }
  // A piece of several bytes; a character that is no piece, whole or cut short.
  CHECK(tokenizer.encode("\xc3\xa9") == std::vector<TokenId>{256 + 7});
  CHECK(tokenizer.encode("\xc3\xa8") == std::vector<TokenId>{0xc3, 0xa8});
  CHECK(tokenizer.encode("a\xe2\x82") == std::vector<TokenId>{257, 0xe2, 0x82});
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    const std::string any = any_bytes(6000, seed) + std::string(5000, 'a');
    CHECK(tokenizer.decode(tokenizer.encode(any)) == any);
  }
}

TEST_CASE("a unigram tokenizer's file that is wrong is refused with its line") {
  const auto refused = [](const std::string& line, const char* reason) {
    CAPTURE(line);
    const std::string head = "semantic-focus tokenizer 1\nkind unigram\nvocabulary 258\n-1 61\n";
    CHECK_THROWS_WITH_AS(Tokenizer::parse(head + line, "F"), Contains(reason), InputError);
  };
  for (const char* number : {"", "x", "nan", "inf", "-1.0", "1e99", "-1.", "0x1", "-0.10"})
    refused(str(number, " 62\n"), "F, line 5: should be a piece: a number");
  refused("-1\n", "should be a piece");
  for (const char* hex : {"6", "6g", "6A", "626", " 62", "62 ", "-1"})
    refused(str("-1 ", hex, "\n"), "not in hexadecimal");
  refused("-1 \n", "1 to 64 bytes, not 0");
  refused(str("-1 ", std::string(130, '6'), "\n"), "1 to 64 bytes, not 65");
  refused("-2 61\n", "stands there twice");
  refused("-1 62", "cut short");
  refused("-1 62\n-1 63\n", "nothing should follow");
}

TEST_CASE("sentencepiece: what it learns makes every byte come back") {
  const auto learn = [](TokenizerKind kind, int vocabulary, const std::string& text) {
    return Tokenizer::learn(kind, text, vocabulary);
  };
  if (!has_sentencepiece()) {
    CHECK_THROWS_WITH_AS(learn(TokenizerKind::unigram, 300, story()),
                         Contains("install libsentencepiece-dev"), InputError);
    return;
  }
  Rng rng(9, Stream::analysis);
  std::vector<std::string> words(100);
  for (std::string& word : words)
    for (uint32_t left = 3 + rng.below(6); left > 0; --left) word += char('a' + rng.below(26));
  // Signs of two and three bytes, the library's own for a blank, a line longer than it takes.
  std::string text = "caf\xc3\xa9 \xe2\x82\xac 5\n\xe2\x96\x81 x  y\n" + std::string(9000, 'a');
  for (int i = 0; i < 4000; ++i) text += (i % 12 ? " " : "\n") + words[rng.below(100)];
  for (const TokenizerKind kind : {TokenizerKind::unigram, TokenizerKind::sentencepiece_bpe}) {
    CAPTURE(name_of(kind));
    const Tokenizer tokenizer = learn(kind, 400, text);
    CHECK(tokenizer.vocabulary() == 400);
    CHECK(tokenizer.encode(text).size() * 2 < text.size());
    CHECK(Tokenizer::parse(tokenizer.file_text(), "F").file_text() == tokenizer.file_text());
    CHECK(learn(kind, 400, text).file_text() == tokenizer.file_text());
    for (const std::string& any : {text, any_bytes(3000, 3), std::string("\0 \xe2\x96", 4)})
      CHECK(tokenizer.decode(tokenizer.encode(any)) == any);
    CHECK_THROWS_WITH_AS(learn(kind, 5000, text), Contains("is more than this text allows"),
                         InputError);
  }
  CHECK_THROWS_WITH_AS(learn(TokenizerKind::unigram, 256, text), Contains("is too small"),
                       InputError);
}

TEST_CASE("a vocabulary that a text does not allow") {
  CHECK_THROWS_WITH_AS(Tokenizer::learn(TokenizerKind::bpe, "abab", 300),
                       Contains("after 257 no pair of neighbours occurs twice"), InputError);
  CHECK_THROWS_WITH_AS(Tokenizer::learn(TokenizerKind::bpe, story(), 255),
                       Contains("is not between 256"), InputError);
  CHECK_THROWS_WITH_AS(Tokenizer::learn(TokenizerKind::bytes, story(), 300),
                       Contains("has a vocabulary of 256"), InputError);
}

TEST_CASE("what a file holds as text") {
  std::vector<std::string> notes;
  const auto text = [&](const std::string& bytes, TokenizerKind kind = TokenizerKind::bpe) {
    return text_of_file(bytes, "F", kind, notes);
  };
  CHECK(text("\xef\xbb\xbf"
             "a\r\nb\r\n\rc") == "a\nb\n\rc");
  CHECK(notes.size() == 2);
  CHECK(text("\xef\xbb\xbf"
             "a\r\n\xff",
             TokenizerKind::bytes) ==
        "\xef\xbb\xbf"
        "a\r\n\xff");
  CHECK(notes.size() == 2);
  CHECK_THROWS_WITH_AS(text(""), Contains("F is empty"), InputError);
  CHECK_THROWS_WITH_AS(text("\xef\xbb\xbf"), Contains("byte order mark"), InputError);
  CHECK_THROWS_WITH_AS(text("abc\xe9t"), Contains("byte 3, 0xe9, is not UTF-8"), InputError);
  CHECK_THROWS_WITH_AS(text(std::string("ab\0c", 4)), Contains("byte 2 is NUL"), InputError);
  CHECK_THROWS_WITH_AS(text("\xff\xfe"
                            "a"),
                       Contains("UTF-16"), InputError);
}

TEST_CASE("a text is cut by position, at a line's end and never in a character") {
  const auto [train, held_out] = split_text(story(), 0.25);
  CHECK(std::string(train) + std::string(held_out) == story());
  CHECK(train.ends_with("\n"));
  CHECK(double(held_out.size()) == doctest::Approx(0.25 * double(story().size())).epsilon(0.05));
  std::string accents;
  for (int i = 0; i < 1000; ++i) accents += "\xe2\x82\xac";
  for (const double share : {0.1, 0.1003, 0.1007})
    CHECK(!first_invalid_utf8(split_text(accents, share).first));
}

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / str("focus-text-", uintptr_t(this));
  Folder() { std::filesystem::create_directory(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

TEST_CASE("a prepared text is read as it was written, and other files are refused") {
  const auto [train, held_out] = split_text(story(), 0.1);
  const TextData data = prepare_text(train, held_out, TokenizerKind::bpe, 270, 8);
  const Folder folder;
  write_text_data(data, folder.path);
  const TextData again = read_text_data(folder.path);
  CHECK(again.train.tokens == data.train.tokens);
  CHECK(again.held_out.tokens == data.held_out.tokens);
  CHECK(again.train.bytes == int64_t(train.size()));
  CHECK(again.window == 8);
  CHECK(again.hash() == data.hash());
  CHECK(again.tokenizer.decode(again.held_out.tokens) == held_out);
  CHECK_THROWS_AS(write_text_data(data, folder.path), InputError);  // nothing is overwritten

  const std::string tokens = read_file(folder.path / "tokens.safetensors", 1 << 20);
  const std::string tokenizer = data.tokenizer.file_text();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = tokens;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  const auto refused = [&](const std::string& file, const char* reason) {
    CHECK_THROWS_WITH_AS(parse_text_data(file, tokenizer, "D"), Contains(reason), InputError);
  };
  refused("", "D/tokens.safetensors");
  refused(with("semantic-focus tokens", "semantic-focus tokenS"), "is no file of tokens");
  refused(with(R"("window":"8")", R"("window":"0")"), "window");
  const std::string bytes = std::to_string(train.size());
  refused(with(str("\"train_bytes\":\"", bytes), str("\"train_bytes\":\"9", bytes.substr(1))),
          "stand for");
  std::string beyond = tokens;
  beyond[beyond.size() - 1] = '\x7f';
  refused(beyond, "is not below the vocabulary of 270");
  CHECK_THROWS_WITH_AS(parse_text_data(tokens, Tokenizer().file_text(), "D"),
                       Contains("another tokenizer"), InputError);
  CHECK_THROWS_WITH_AS(read_text_data(folder.path / "no"), Contains("there is no such folder"),
                       InputError);
  CHECK_THROWS_WITH_AS(prepare_text(train, "ab", TokenizerKind::bpe, 270, 8),
                       Contains("--window 8: the held-out part has"), InputError);
}

TEST_CASE("baselines that count") {
  // a a b a a b …: after a comes a or b, half each; after b always a.
  std::vector<TokenId> tokens;
  for (int i = 0; i < 3000; ++i) tokens.push_back(TokenId(i % 3 == 2));
  const double ln2 = std::log(2.0), ln3 = std::log(3.0);
  const CountedLoss one = unigram_loss(tokens, tokens, 2), two = bigram_loss(tokens, tokens, 2);
  CHECK(one.train == doctest::Approx(ln3 - 2 * ln2 / 3));
  CHECK(one.held_out == doctest::Approx(one.train).epsilon(0.001));
  CHECK(two.train == doctest::Approx(2 * ln2 / 3).epsilon(0.001));
  CHECK(two.held_out == doctest::Approx(two.train).epsilon(0.01));
  // A token that training has never shown costs something finite.
  const std::vector<TokenId> other = {2, 2, 2};
  CHECK(std::isfinite(bigram_loss(tokens, other, 3).held_out));
  CHECK(unigram_loss(tokens, other, 3).held_out == doctest::Approx(std::log(3003.0)));
}

TEST_CASE("windows of a stream: spread for evaluation, drawn anywhere for training") {
  std::vector<TokenId> stream;
  for (int i = 0; i < 100; ++i) stream.push_back(TokenId(i));
  const PaddedData data = windows_of(stream, 100, 7, 13, "train-size");
  CHECK(data.rows == 13);
  CHECK(window_places(data) == 93);
  CHECK(data.stride() == 7);
  CHECK(data.is_stream());
  CHECK(windows_of(stream, 100, 7, 93, "train-size").stride() == 1);
  CHECK_THROWS_WITH_AS(windows_of(stream, 100, 7, 94, "train-size"),
                       Contains("--train-size 94: the text has 93 windows of 7 tokens"),
                       InputError);
  CHECK_THROWS_WITH_AS(windows_of(stream, 100, 100, 1, "train-size"), Contains("--length 100"),
                       InputError);

  RunSettings s = RunSettings::defaults_for(text_task());
  s.blocks = 1, s.d_model = s.d_mlp = 4, s.length = 7, s.batch = 5, s.train_size = 13;
  const auto both = std::make_shared<const RunData>(RunData{data, data});
  Run run(s, 1, both);
  CHECK(run.steps_per_epoch() == 3);
  std::vector<bool> begun(93);
  std::set<std::vector<int>> orders;
  for (int epoch = 0; epoch < 100; ++epoch) {
    const std::vector<int> order = run.epoch().order;
    REQUIRE(order.size() == 13);
    for (const int begin : order) {
      REQUIRE(begin >= 0);
      REQUIRE(begin < 93);
      begun[size_t(begin)] = true;
    }
    orders.insert(order);
    run.finish_epoch({}, {});
  }
  CHECK(orders.size() == 100);
  CHECK(std::count(begun.begin(), begun.end(), true) == 93);
  CHECK(Run(s, 1, both).epoch().order == Run(s, 1, both).epoch().order);
  CHECK(Run(s, 2, both).epoch().order != Run(s, 1, both).epoch().order);
}

TEST_CASE("a text model: what it sees of a short context") {
  ModelSettings s;
  s.vocabulary = s.classes = 256, s.length = 5;
  s.blocks = 1, s.d_model = s.d_mlp = 4, s.dropout = 0;
  s.objective = Objective::pooled;
  TextModel pooled{"P", Tokenizer(), Model<float>(s)};
  CHECK(pooled.window_of({1, 2}) == std::vector<int>{2, 1, 2, 1, 2});
  CHECK(pooled.window_of({1, 2, 3}) == std::vector<int>{2, 3, 1, 2, 3});
  CHECK(pooled.window_of({1, 2, 3, 4, 5, 6}) == std::vector<int>{2, 3, 4, 5, 6});
  s.objective = Objective::causal, s.attention.causal = true;
  TextModel causal{"C", Tokenizer(), Model<float>(s)};
  CHECK(causal.window_of({1, 2}) == std::vector<int>{1, 2, 0, 0, 0});
  causal.model.initialise(1);
  Workers workers(1);
  Tape<float> tape(workers);
  // The logits after two tokens are those of the window's second position.
  const std::vector<float> logits = causal.next_logits(tape, {7, 9});
  CHECK(logits.size() == 256);
  const int window[] = {7, 9, 200, 201, 202};
  tape.reset(false);
  const Tensor<float> all = causal.model.forward(tape, window, 1);
  CHECK(std::equal(logits.begin(), logits.end(), all.data + 256));
}
