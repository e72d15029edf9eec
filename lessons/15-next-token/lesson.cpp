// Lesson 15: does focus help where transformers are used most, in predicting the next token of a
// text? README.md has the mathematics and the rule of the verdict.
#include "report/lesson.h"

#include <cmath>
#include <cstdio>
#include <iostream>

#include "files/atomic_file.h"
#include "files/folder.h"
#include "files/rows.h"
#include "report/curves.h"
#include "rng.h"
#include "study/lesson_study.h"
#include "study/summary.h"
#include "text/ngrams.h"
#include "text/text_data.h"
#include "text/text_model.h"

using namespace focus;

namespace {

// The rule's: topk(5) reaches full's last training loss in at most this share of the epochs.
constexpr double most_of_epochs = 0.75;

// --- the text ------------------------------------------------------------------------------------

constexpr const char* novels[] = {"data/text/sense-and-sensibility.txt",
                                  "data/text/pride-and-prejudice.txt"};

// The novels made ready, under the names that the tables have for them.
struct Prepared {
  const char* folder;
  int vocabulary, window;
};
constexpr Prepared laptop = {"out/text-austen", 512, 32};             // study.csv, demo.csv
constexpr Prepared paper_scale = {"out/text-austen-4096", 4096, 64};  // paper.csv

TextData prepared_text(const Prepared& p) {
  if (kind_of(p.folder) != PathKind::missing) return read_text_data(p.folder);
  std::string text;
  for (const char* novel : novels) text += read_file(novel, size_t{1} << 24);
  const auto [train, held_out] = split_text(text, 0.1);
  const TextData data = prepare_text(train, held_out, TokenizerKind::bpe, p.vocabulary, p.window);
  write_text_data(data, p.folder);
  return data;
}

// Nats a token and bits a byte, of training and held-out text.
struct Loss {
  std::string model;
  double train, held_out, train_bits, held_out_bits;
};
constexpr const char* baseline_columns = "model,train_nats,held_out_nats,train_bits,held_out_bits";

std::vector<Loss> baselines_of(const TextData& data) {
  std::vector<Loss> all;
  // As the table has them, so that --redraw draws the same figure.
  const auto rounded = [](double loss) { return std::round(loss * 1e4) / 1e4; };
  const auto add = [&](const char* name, const CountedLoss& loss) {
    all.push_back({name, rounded(loss.train), rounded(loss.held_out),
                   rounded(data.train.bits_per_byte(loss.train)),
                   rounded(data.held_out.bits_per_byte(loss.held_out))});
  };
  const int vocabulary = data.tokenizer.vocabulary();
  add("unigram", unigram_loss(data.train.tokens, data.held_out.tokens, vocabulary));
  add("bigram", bigram_loss(data.train.tokens, data.held_out.tokens, vocabulary));
  return all;
}

std::vector<Loss> read_baselines(const std::filesystem::path& file) {
  std::vector<Loss> all;
  for (const std::vector<std::string>& c : read_rows(file, baseline_columns))
    all.push_back(
        {c[0], parse_number(c[1]), parse_number(c[2]), parse_number(c[3]), parse_number(c[4])});
  return all;
}

std::string row_of(const Loss& l) {
  char row[200];
  std::snprintf(row, sizeof row, "%s,%.4f,%.4f,%.4f,%.4f", l.model.c_str(), l.train, l.held_out,
                l.train_bits, l.held_out_bits);
  return row;
}

// --- samples -------------------------------------------------------------------------------------

constexpr const char* prompt =
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a";

// What a trained model makes of the prompt; line breaks as blanks, so that it fits into a table.
std::string sample_of(Run& run) {
  TextModel model = text_model(run.checkpoint(), "the trained model");
  constexpr int tokens = 60;
  constexpr double temperature = 0.7;
  Workers workers(1);
  Tape<float> tape(workers);
  std::vector<TokenId> text = model.tokenizer.encode(prompt);
  std::string added;
  for (int i = 0; i < tokens; ++i) {
    const double uniform = Rng(1, Stream::analysis, uint32_t(i)).uniform();
    text.push_back(draw_token(model.next_logits(tape, text), temperature, uniform));
    added += model.tokenizer.bytes_of(text.back());
  }
  for (char& c : added)
    if (uint8_t(c) < ' ' || uint8_t(c) > 126 || c == '|') c = ' ';
  return added;
}

// --- figure and tables ---------------------------------------------------------------------------

Panel panel_of(const StudyResults& results, const std::vector<Loss>& baselines,
               const std::string& setting, bool held_out) {
  Panel panel = curve_panel(
      results.with_rest(setting), held_out ? &EpochMetrics::val_loss : &EpochMetrics::train_loss,
      str(setting, held_out ? ": held-out text" : ": training text"), "nats a token");
  const std::vector<double> x = panel.series[0].x;
  for (const Loss& b : baselines) {
    Series line{b.model};
    line.x = x;
    line.y.assign(x.size(), held_out ? b.held_out : b.train);
    panel.series.push_back(std::move(line));
  }
  return panel;
}

// A row for each setting that the table has beside the attention.
Figure figure_of(const StudyResults& results, const std::vector<Loss>& baselines,
                 const Prepared& text) {
  Figure figure{"Predicting the next token: all keys and the best ones"};
  for (const std::string& setting : results.rests())
    for (const bool held_out : {false, true})
      figure.panels.push_back(panel_of(results, baselines, setting, held_out));
  figure.columns = 2;
  figure.caption =
      str("Two novels by Jane Austen, vocabulary ", text.vocabulary, ", windows of ", text.window,
          " tokens; medians and quartiles of ", results.variants[0].seeds.size(), " seeds.");
  return figure;
}

double last_of(const StudiedVariant& v, double EpochMetrics::*metric) {
  return median(final_values(v, metric));
}

std::string table_of(const StudyResults& results, const std::vector<Loss>& baselines) {
  std::string text =
      "| model | training, nats a token | bits a byte | held-out, nats a token | bits a byte | "
      "held-out accuracy % |\n|---|---|---|---|---|---|\n";
  char row[300];
  for (const Loss& b : baselines) {
    std::snprintf(row, sizeof row, "| %s | %.3f | %.3f | %.3f | %.3f | |\n", b.model.c_str(),
                  b.train, b.train_bits, b.held_out, b.held_out_bits);
    text += row;
  }
  // Bits a byte are proportional to nats a token.
  const double train_bits = baselines[0].train_bits / baselines[0].train,
               held_out_bits = baselines[0].held_out_bits / baselines[0].held_out;
  for (const StudiedVariant& v : results.variants) {
    const double train = last_of(v, &EpochMetrics::train_loss),
                 held_out = last_of(v, &EpochMetrics::val_loss);
    std::snprintf(row, sizeof row, "| %s, %s | %.3f | %.3f | %.3f | %.3f | %.1f |\n",
                  v.rest.c_str(), v.mechanism.c_str(), train, train * train_bits, held_out,
                  held_out * held_out_bits, last_of(v, &EpochMetrics::val_accuracy));
    text += row;
  }
  return text;
}

// --- the rule ------------------------------------------------------------------------------------

// The first epoch at which a curve is as low as `loss`; one more than there are: never.
int epochs_to_loss(const std::vector<EpochMetrics>& curve, double loss) {
  for (const EpochMetrics& row : curve)
    if (row.train_loss <= loss) return row.epoch;
  return int(curve.size()) + 1;
}

struct Judgement {
  bool reproduced = true;
  std::string words;
};

// README, "The rule of the verdict": topk(5) against full attention in one setting.
Judgement judge(const StudyResults& results, const std::string& setting) {
  const StudiedVariant &full = results.variant("full " + setting),
                       &topk = results.variant("topk(5) " + setting);
  Judgement j;
  std::string epochs;
  int all = 0;
  for (size_t s = 0; s < full.curves.size(); ++s) {
    all = int(full.curves[s].size());
    const int needed = epochs_to_loss(topk.curves[s], full.curves[s].back().train_loss);
    j.reproduced = j.reproduced && needed <= most_of_epochs * all;
    epochs += str(" ", needed > all ? "none" : std::to_string(needed));
  }
  j.words =
      str(setting, ": topk(5) is at full's training loss of epoch ", all, " at epochs", epochs);
  return j;
}

// Runs of paper.csv: figure, table and verdict, by README's second rule.
void tell_paper_scale(Lesson& out, const StudyResults& results,
                      const std::vector<Loss>& baselines) {
  int judged = 0, reproduced = 0;
  std::string words;
  for (const std::string& setting : results.rests()) {
    bool has_learnt = false;
    for (const char* mechanism : {"full ", "topk(5) "})
      has_learnt |= last_of(results.variant(mechanism + setting), &EpochMetrics::train_loss) <
                    baselines[0].train;
    const bool counts = setting.starts_with("pooled") && has_learnt;
    const Judgement j = judge(results, setting);
    judged += counts, reproduced += counts && j.reproduced;
    words += j.words + (counts ? "; " : " (not judged); ");
  }
  words += str("sooner by a quarter in ", reproduced, " of the ", judged, " models judged");
  out.paper_scale(figure_of(results, baselines, paper_scale), table_of(results, baselines),
                  judged > 0 && reproduced == judged, words);
}

int lesson(int argc, char** argv) {
  Lesson out(argc, argv, "lesson-15", "does focus help to predict the next token of a text?");
  const bool redraw = out.options().redraw, at_paper_scale = out.options().paper_scale;
  std::vector<Loss> baselines;
  if (redraw) {
    baselines = read_baselines(out.recorded() / "baselines.csv");
  } else {
    // Before the table is read: it names the folder.
    baselines = baselines_of(prepared_text(at_paper_scale ? paper_scale : laptop));
    std::vector<std::string> rows;
    for (const Loss& b : baselines) rows.push_back(row_of(b));
    out.table(baseline_columns, rows, "baselines.csv");
  }
  Study study = lesson_study(out);
  // As the table has it, without this machine's folders.
  for (StudyVariant& v : study.variants) v.settings.text_data = laptop.folder;
  if (at_paper_scale) {
    if (std::filesystem::exists(out.options().out / "study/results.csv"))
      tell_paper_scale(out, results_at_paper_scale(out), baselines);
    else
      std::cout << "The text is ready in " << paper_scale.folder
                << "; make lesson-15 SCALE=paper makes the " << study.runs.size() << " runs.\n";
    return 0;
  }

  std::vector<std::string> samples(study.variants.size());
  const auto results = study_results(out, study, [&](const StudyRun& run, Run& model) {
    const bool trained = model.epochs_done() >= study.variants[run.variant].settings.epochs;
    if (run.seed_index == 0 && trained) samples[run.variant] = sample_of(model);
  });
  if (!results) return out.interrupted();

  out.figure(figure_of(*results, baselines, laptop));

  const std::string table = table_of(*results, baselines);
  out.page_table("losses.md", table);
  std::cout << table << "\n";
  if (redraw) {
    out.page_table("samples.md", read_file(out.recorded() / "samples.md", 1 << 20));
  } else {
    std::string text = str("\"", prompt, " …\"\n\n| model | goes on |\n|---|---|\n");
    for (size_t v = 0; v < study.variants.size(); ++v)
      text += str("| ", study.variants[v].rest, ", ", study.variants[v].mechanism, " | …",
                  samples[v], " |\n");
    out.page_table("samples.md", text);
    std::cout << text << "\n";
  }

  const std::filesystem::path recorded = out.recorded() / "paper";
  if (redraw && std::filesystem::exists(recorded / "results.csv"))
    tell_paper_scale(out, read_results(recorded / "results.csv"),
                     read_baselines(recorded / "baselines.csv"));
  // The paper's own setting is the first; the others are told.
  const std::vector<std::string> settings = results->rests();
  const Judgement judged = judge(*results, settings[0]);
  std::string words = judged.words + "; not judged";
  for (size_t i = 1; i < settings.size(); ++i) {
    const Judgement other = judge(*results, settings[i]);
    words += str(", ", other.words, other.reproduced ? " (would count)" : " (would not count)");
  }
  return out.verdict(judged.reproduced, words);
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return lesson(argc, argv); });
}
