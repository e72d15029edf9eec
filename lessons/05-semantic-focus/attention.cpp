// `make attention`: what a query attends to while the model learns, full against top-k attention.
//
// Two models with the same seed, data and order of examples learn even pairs. At each recorded
// epoch a few held-out sequences go through both, and the attention weights of every block are
// written down. The result is one HTML page that needs nothing else: attention.html beside this
// file is its template, and the recorded numbers take the place of @DATA@.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <ctime>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "analysis/largest.h"
#include "analysis/scores.h"
#include "files/atomic_file.h"
#include "report/curves.h"
#include "report/lesson.h"
#include "tensor/softmax.h"
#include "train/evaluate.h"
#include "train/interrupt.h"
#include "train/scheduler.h"

using namespace focus;
using Json = nlohmann::ordered_json;

namespace {

struct Options {
  uint64_t seed = paper_seeds()[0];
  int epochs = 34, length = 30, k = 5, sequences = 3, train_size = 2500;
  int threads = std::max(1, int(std::thread::hardware_concurrency()));
  std::string out = "out/attention.html";
  std::string page = "lessons/05-semantic-focus/attention.html";
};

// A number from 0 to 89 as one printable character that needs no escape in JSON or HTML: '#' and
// what follows it, without '<' and '\'. The page reads them back.
constexpr int levels = 90;
char digit(int value) {
  int code = '#' + value;
  if (code >= '<') ++code;
  if (code >= '\\') ++code;
  return char(code);
}

// The square root spreads small weights over more levels: a weight p is off by at most √p / 89.
char weight_digit(double p) {
  return digit(int(std::lround(std::sqrt(p) * (levels - 1))));
}

// Of the second half of a long run every other epoch would look like its neighbour.
bool is_recorded(int epoch, int epochs) {
  return epoch <= 12 || epoch % 2 == 0 || epoch == epochs;
}

// The first held-out rows, except that the last of them has the label that the others lack.
std::vector<int> choose_rows(const PaddedData& data, int count) {
  std::vector<int> rows;
  for (int row = 0; row < data.rows && int(rows.size()) < count; ++row) {
    const bool last = int(rows.size()) + 1 == count;
    const bool all_alike = std::all_of(rows.begin(), rows.end(), [&](int r) {
      return data.labels[size_t(r)] == data.labels[size_t(row)];
    });
    if (rows.empty() || !last || !all_alike) rows.push_back(row);
  }
  return rows;
}

// One query's weights as text: all T under full attention; under top-k the k kept keys, each
// followed by its weight.
std::string row_text(std::span<const double> scores, const AttentionSettings& attention) {
  const bool full = attention.pattern == Pattern::full;
  const int T = int(scores.size()), kept = full ? T : attention.k;
  const std::vector<int> keys = largest_keys(scores, kept);
  std::vector<double> kept_scores, p(keys.size());
  for (int key : keys) kept_scores.push_back(scores[size_t(key)]);
  softmax_row(p.data(), kept_scores.data(), kept, 1.0);
  std::string text;
  for (int e = 0; e < kept; ++e) {
    if (!full) text += digit(keys[size_t(e)]);
    text += weight_digit(p[size_t(e)]);
  }
  return text;
}

// What one model does with the sequences, over the epochs.
class Recorder {
 public:
  Recorder(const std::string& name, const AttentionSettings& attention,
           const std::vector<int>& tokens, int sequences)
      : attention_(attention), tokens_(tokens), sequences_(sequences) {
    json_["name"] = name;
    json_["kept"] = attention.pattern == Pattern::full ? 0 : attention.k;
    for (const char* list : {"train", "heldOut", "odd", "weights"}) json_[list] = Json::array();
  }

  // The accuracies, in percent, of each epoch.
  void add_accuracy(double train, double held_out) {
    const auto rounded = [](double percent) { return std::round(percent * 100) / 100; };
    json_["train"].push_back(rounded(train));
    json_["heldOut"].push_back(rounded(held_out));
  }

  // The probability of "odd" for each sequence, and for each sequence the weights of its blocks,
  // of each block's queries, as row_text() writes them.
  void add_weights(Model<float>& model) {
    std::vector<std::string> weights(static_cast<size_t>(sequences_));
    const std::vector<float> logits = visit_attention_scores<float>(
        model, tokens_.data(), sequences_, workers_, [&](const HeadScores& head) {
          for (int b = 0; b < head.B; ++b)
            for (int i = 0; i < head.T; ++i)
              weights[size_t(b)] += row_text(head.row(b, i), attention_);
        });
    Json odd = Json::array();
    for (size_t b = 0; b < weights.size(); ++b) {
      const double difference = double(logits[2 * b]) - double(logits[2 * b + 1]);
      odd.push_back(std::round(1000 / (1 + std::exp(difference))) / 1000);
    }
    json_["odd"].push_back(odd);
    json_["weights"].push_back(weights);
  }

  const Json& json() const { return json_; }

 private:
  AttentionSettings attention_;
  std::vector<int> tokens_;  // (sequences, length)
  int sequences_;
  Workers workers_{1};
  Json json_;
};

Options parse(int argc, char** argv) {
  Options o;
  CLI::App app(
      "attention: trains full and top-k attention on even pairs, and writes a page that "
      "shows what each query attends to, epoch by epoch (about a minute on two cores)");
  app.option_defaults()->always_capture_default();
  app.add_option("--seed", o.seed, "of data, weights, order and dropout");
  app.add_option("--epochs", o.epochs, "for both models")->check(CLI::Range(1, 1000));
  app.add_option("--length", o.length, "tokens of a sequence, a multiple of k")
      ->check(CLI::Range(2, levels));
  app.add_option("--k", o.k, "keys that top-k keeps")->check(CLI::Range(1, levels));
  app.add_option("--sequences", o.sequences, "held-out sequences to look at")
      ->check(CLI::Range(1, 20));
  app.add_option("--train-size", o.train_size, "examples to learn from")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--threads", o.threads, "threads to use")->check(CLI::Range(1, 1024));
  app.add_option("--out", o.out, "the page to write");
  app.add_option("--page", o.page, "its template");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    std::exit(app.exit(help));
  } catch (const CLI::Error& error) {
    fail_input(error.what(), " (see --help)");
  }
  // Otherwise top-k would pad its sequences, and the two models would not see the same tokens.
  if (o.length % o.k != 0)
    fail_input("--length ", o.length, " is no multiple of --k ", o.k, ": choose one that is");
  return o;
}

struct Variant {
  std::string name;
  RunSettings settings;
};

std::vector<Variant> make_variants(const Options& o) {
  RunSettings s = RunSettings::defaults_for(find_task("even-pairs"));
  s.length = o.length, s.epochs = o.epochs;
  s.train_size = o.train_size, s.val_size = 500;
  RunSettings topk = s;
  topk.attention = Pattern::topk, topk.k = o.k;
  return {{attention_text(s), s}, {attention_text(topk), topk}};
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

Json describe(const Options& o, const RunSettings& s, const PaddedData& data,
              const std::vector<int>& rows) {
  Json json;
  json["date"] = today();
  json["hardware"] = hardware_text();
  json["seed"] = std::to_string(o.seed);  // as text: it may exceed a JavaScript number
  json["settings"] = str("even pairs, length ", s.length, ", ", s.train_size, " / ", s.val_size,
                         " examples, ", s.blocks, " blocks, d = ", s.d_model, ", mlp ", s.d_mlp,
                         ", ", s.heads, " head, batch ", s.batch, ", SGD, lr ", s.lr, ", dropout ",
                         s.dropout, ", the same data in the same order for both");
  json["length"] = s.length;
  json["blocks"] = s.blocks;
  json["epochs"] = Json::array();
  for (int epoch = 0; epoch <= o.epochs; ++epoch)
    if (is_recorded(epoch, o.epochs)) json["epochs"].push_back(epoch);
  for (int row : rows) {
    std::string tokens;
    for (int t = 0; t < data.length; ++t)
      tokens += char('0' + data.tokens[size_t(row) * size_t(data.length) + size_t(t)]);
    json["sequences"].push_back({{"tokens", tokens}, {"label", data.labels[size_t(row)]}});
  }
  return json;
}

int attention_page(int argc, char** argv) {
  const Options o = parse(argc, argv);
  // What could fail, fails before a minute of training.
  std::string page = read_file(o.page, 1 << 20);
  const std::string mark = "@DATA@";
  const size_t place = page.find(mark);
  if (place == std::string::npos) fail_input(o.page, ": holds no ", mark, " to put the data at");
  const std::filesystem::path folder = std::filesystem::path(o.out).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  const std::atomic<bool>& stop = catch_interrupts();

  const std::vector<Variant> variants = make_variants(o);
  const auto data = make_run_data(variants[1].settings, o.seed);
  const std::vector<int> rows = choose_rows(data->val, o.sequences);
  std::vector<int> tokens;
  for (int row : rows) {
    const auto first = data->val.tokens.begin() + ptrdiff_t{row} * data->val.length;
    tokens.insert(tokens.end(), first, first + data->val.length);
  }

  std::deque<Run> runs;
  std::deque<Recorder> recorders;
  std::vector<VariantResult> curves;
  Workers workers(o.threads);
  Tape<float> tape(workers);
  for (const Variant& v : variants) {
    Run& run = runs.emplace_back(v.settings, o.seed, data);
    Recorder& recorder =
        recorders.emplace_back(v.name, run.model().settings().attention, tokens, int(rows.size()));
    recorder.add_accuracy(evaluate(run.model(), tape, data->train)->accuracy,
                          evaluate(run.model(), tape, data->val)->accuracy);
    recorder.add_weights(run.model());
    curves.push_back({v.name, {{}}});
  }

  LiveCurves live("training accuracy", o.epochs);
  int epochs_done = 0;
  std::mutex mutex;  // guards the curves; each recorder belongs to one run
  const auto after = [&](size_t i, Run& run, std::optional<EpochMetrics> row) {
    if (!row) return;
    recorders[i].add_accuracy(row->train_accuracy, row->val_accuracy);
    if (is_recorded(row->epoch, o.epochs)) recorders[i].add_weights(run.model());
    const std::lock_guard lock(mutex);
    curves[i].curves[0].push_back(*row);
    live.show(curves, double(++epochs_done) / (double(runs.size()) * o.epochs));
  };
  run_side_by_side(jobs_of(runs, o.epochs), o.threads, int(runs.size()), stop, {after});
  if (stop) {
    std::cerr << "interrupted: no page is written\n";
    return 130;
  }

  Json json = describe(o, variants[0].settings, data->val, rows);
  for (const Recorder& recorder : recorders) json["variants"].push_back(recorder.json());
  page.replace(place, mark.size(), json.dump());
  write_file_atomically(o.out, page);
  std::cout << epochs_table(curves, 95) << "\nopen in a browser: " << o.out << " ("
            << page.size() / 1000 << " kB)\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_lesson([&] { return attention_page(argc, argv); });
}
