// focus text, training on a text, focus generate.
#include "cli.h"

using namespace focus;
using namespace focus::cli;

static std::string story() {
  const char* words[] = {"spring", "morning", "carriage", "letter",  "sister", "gentleman",
                         "garden", "window",  "honour",   "fortune", "ball",   "winter"};
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += str("It was the ", words[i % 12], " of the ", words[i * i % 11], ", and the king ",
                i % 3 ? "slept" : "rode", ".\n");
  return text;
}

static Words prepare(const Words& more) {
  return Words("text prepare --text story.txt --out prepared") + more;
}

// A run of a second at most; `more` replaces flags.
static Words train_text(const std::string& out, const Words& more) {
  Words words = Words("train --task text --text-data prepared --d-model 8 --d-mlp 8 --blocks 1") +
                Words{"--out", out};
  const Words usual = "--length 8 --train-size 40 --val-size 10 --batch 10 --epochs 2 --seed 3";
  for (size_t i = 0; i < usual.size(); i += 2)
    if (std::find(more.begin(), more.end(), usual[i]) == more.end())
      words = words + Words{usual[i], usual[i + 1]};
  return words + more;
}

TEST_CASE("cli: text prepare, encode, decode") {
  const Place place;
  write_all(place / "story.txt", story());
  const std::string said = place.done(prepare("--vocabulary 300 --window 8"));
  for (const char* word : {"bytes a token", "unigram", "bigram", "vocabulary 300, window 8"})
    CHECK(said.find(word) != std::string::npos);
  write_all(place / "ids", place.done("text encode --tokenizer prepared story.txt"));
  CHECK(place.done("text decode --tokenizer prepared ids") == story());
  const std::string any("\0\xff\r\n\xe2", 5);
  write_all(place / "any", any);
  write_all(place / "ids", place.done("text encode --tokenizer prepared any"));
  CHECK(place.done("text decode --tokenizer prepared ids") == any);
  // The same text, the same bytes.
  place.done("text prepare --text story.txt --vocabulary 300 --window 8 --out again");
  CHECK(read_all(place / "again/tokens.safetensors") ==
        read_all(place / "prepared/tokens.safetensors"));

  place.refuses(prepare("--vocabulary 300"), "is not empty");
  write_all(place / "ids", "1 2 300");
  place.refuses("text decode --tokenizer prepared ids", "ids, id 3: 300 is not between 0 and 299");
  write_all(place / "ids", "1 x");
  place.refuses("text decode --tokenizer prepared ids", "'x' is not a whole number");
  place.refuses("text encode --tokenizer story.txt story.txt", "holds no prepared text");
  write_all(place / "prepared/tokenizer.txt", "semantic-focus tokenizer 1\nkind bpe\n");
  place.refuses("text encode --tokenizer prepared story.txt", "tokenizer.txt");
}

TEST_CASE("cli: texts that cannot be prepared") {
  const Place place;
  const auto refuses = [&](const std::string& text, const Words& more, const char* says) {
    write_all(place / "story.txt", text);
    place.refuses(prepare(more), says);
  };
  refuses("", "--vocabulary 300", "story.txt is empty");
  refuses(story() + "\xe9", "--vocabulary 300", "is not UTF-8");
  refuses(story() + std::string(1, '\0'), "--vocabulary 300", "is NUL");
  refuses(story(), "--vocabulary 5000", "is more than this text allows");
  refuses(story(), "--vocabulary 255", "--vocabulary: 255 is not between 256");
  refuses(story(), "", "--vocabulary is missing");
  refuses(story(), "--tokenizer bytes --vocabulary 300", "has a vocabulary of 256");
  refuses(story(), "--tokenizer words --vocabulary 300",
          "use bytes, bpe, unigram or sentencepiece-bpe");
  refuses(story(), "--vocabulary 300 --window 5000", "--window 5000: the held-out part has");
  refuses("short", "--tokenizer bytes --window 8", "--window 8");
  place.refuses("text prepare --text no.txt --vocabulary 300 --out prepared", "no.txt");
  // Held-out text of its own is looked at like the other.
  write_all(place / "story.txt", story());
  write_all(place / "valid.txt", "the king\n\xe9");
  refuses(story(), "--vocabulary 300 --held-out-text valid.txt", "valid.txt: byte 9, 0xe9");
  write_all(place / "valid.txt", "the king\n");
  refuses(story(), "--vocabulary 300 --held-out-text valid.txt", "the held-out part has");
  const std::string all = place.done(
      "text prepare --text story.txt --held-out-text valid.txt --vocabulary 300 --window 1 --out "
      "all");
  CHECK(all.find(str("training ", std::string(10 - std::to_string(story().size()).size(), ' '),
                     story().size(), " bytes")) != std::string::npos);

  // The byte tokenizer takes what is no text; the other one drops what is no part of it.
  write_all(place / "story.txt", "\xff" + story());
  place.done(prepare("--tokenizer bytes"));
  write_all(place / "crlf.txt",
            "\xef\xbb\xbf"
            "a\r\n" +
                story());
  const std::string said =
      place.done("text prepare --text crlf.txt --vocabulary 300 --window 8 --out crlf");
  CHECK(said.find("byte order mark") != std::string::npos);
  CHECK(said.find("CR LF became LF") != std::string::npos);
}

TEST_CASE("cli: training on a text, resuming, generating") {
  const Place place;
  write_all(place / "story.txt", story());
  place.done(prepare("--vocabulary 300 --window 12"));
  for (const std::string objective : {"pooled", "causal"}) {
    CAPTURE(objective);
    const Words more = Words("--attention topk --k 3 --objective") + Words{objective};
    place.done(train_text(objective, more));
    const std::string last = read_all(place / (objective + "/seed-3/last.safetensors"));
    // Two epochs at once are one epoch and one more, to the byte.
    place.done(train_text("parts-" + objective, more + Words("--epochs 1")));
    place.done("resume parts-" + objective + " --epochs 2");
    CHECK(read_all(place / ("parts-" + objective + "/seed-3/last.safetensors")) == last);
    place.done(train_text("threads-" + objective, more + Words("--threads 1")));
    CHECK(read_all(place / ("threads-" + objective + "/seed-3/last.safetensors")) == last);

    const std::string file = objective + "/seed-3/last.safetensors";
    const Words generate = Words("generate --checkpoint") + Words{file, "--prompt", "It was \xff"};
    const std::string text = place.done(generate + Words("--tokens 12 --seed 5"));
    CHECK(text.starts_with("It was \xff"));
    CHECK(place.done(generate + Words("--tokens 12 --seed 5 --threads 1")) == text);
    CHECK(place.done(generate + Words("--tokens 12 --seed 6")) != text);
    const std::string longer = place.done(generate + Words("--tokens 20 --seed 5"));
    CHECK(longer.starts_with(text.substr(0, text.size() - 1)));
    CHECK(place.done(generate + Words("--temperature 0 --seed 1")) ==
          place.done(generate + Words("--temperature 0 --seed 2")));
    const std::string loss = place.done("eval --data story.txt --checkpoint " + file);
    CHECK(loss.find("nats a token") != std::string::npos);
    CHECK(place.done("show " + file).find("tokenizer") != std::string::npos);

    place.refuses(Words("generate --checkpoint") + Words{file, "--prompt", ""},
                  "--prompt is empty");
    place.refuses(Words("predict --checkpoint") + Words{file, "1 2 3"}, "focus generate");
    write_all(place / "short", "It");
    place.refuses("eval --data short --checkpoint " + file, "too few for a window");
  }
}

TEST_CASE("cli: what does not go with a text is refused") {
  const Place place;
  write_all(place / "story.txt", story());
  place.done(prepare("--vocabulary 300 --window 12"));
  place.refuses("train --task text", "--text-data DIR");
  place.refuses("train --task text --text-data none", "there is no such folder");
  place.refuses("train --task parity --text-data prepared", "--text-data goes with --task text");
  place.refuses("train --task parity --objective causal", "--objective causal does not go with");
  place.refuses(train_text("run", "--objective classify"), "--objective classify does not go with");
  place.refuses(train_text("run", "--objective causal --attention block --k 3"), "full, topk or");
  place.refuses(train_text("run", "--attention banded --k 3 --global-tokens 1"), "--global-tokens");
  place.refuses(train_text("run", "--train-data story.txt"), "--train-data does not go with");
  place.refuses(train_text("run", "--length 16000"), "--length 16000");
  place.refuses(train_text("run", "--train-size 1000000"), "--train-size 1000000: the text has");
  place.refuses("data generate --task text --count 3 --seed 1 --out x.tsv", "focus text prepare");
  place.done(small_run("parity", 1));
  place.refuses(Words("generate --prompt a --checkpoint") +
                    Words{"parity/" + first_seed + "/last.safetensors"},
                "is no model of a text");

  // Another text under the same name.
  place.done(train_text("run", ""));
  fs::rename(place / "prepared", place / "old");
  write_all(place / "story.txt", story() + story());
  place.done(prepare("--vocabulary 300 --window 12"));
  place.refuses("resume run --epochs 3", "holds other data than when the run began");
  fs::remove_all(place / "prepared");
  place.refuses("resume run --epochs 3", "there is no such folder");
}

TEST_CASE("cli: a study of texts") {
  const Place place;
  write_all(place / "story.txt", story());
  place.done(prepare("--vocabulary 300 --window 8"));
  write_all(place / "table.csv",
            "task, text-data, objective, attention, k, blocks, d-model, d-mlp, train-size, "
            "val-size, batch, epochs, seeds\n"
            "text, prepared, pooled|causal, full|topk, 3, 1, 8, 8, 20, 10, 10, 1, 1\n");
  place.done("study table.csv --out study");
  const std::string results = read_all(place / "study/results.csv");
  for (const char* name : {"full pooled", "full causal", "topk(3) pooled", "topk(3) causal"})
    CHECK(results.find(name) != std::string::npos);
  CHECK(place.done("study table.csv --out study").find("4") != std::string::npos);
}
