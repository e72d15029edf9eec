#include "report/lesson.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <iostream>
#include <new>
#include <thread>

#include "error.h"
#include "files/atomic_file.h"
#include "report/svg_plot.h"
#include "report/terminal.h"
#include "report/text_plot.h"
#include "report/transcript.h"
#include "tensor/simd.h"
#include "train/interrupt.h"

namespace focus {

namespace {

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

std::string verdict_text(bool reproduced, const std::string& reason) {
  return str("verdict: ", reproduced ? "reproduced" : "not reproduced", ": ", reason, "\n");
}

}  // namespace

std::filesystem::path Lesson::folder() const {
  const std::string number = name_.substr(name_.rfind('-') + 1) + "-";
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("lessons", none))
    if (entry.path().filename().string().starts_with(number)) return entry.path();
  fail_input(name_, ": there is no lessons/", number, "* here; start it in the project's folder");
}

std::string hardware_text() {
  std::string model = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) {
      model = line.substr(line.find(": ") + 2);
      break;
    }
  return str(model, ", ", std::thread::hardware_concurrency(), " cores, ", simd_bytes * 8,
             "-bit vectors");
}

Lesson::Lesson(int argc, char** argv, std::string name, std::string question, int default_seeds,
               int demo_seeds)
    : name_(std::move(name)), question_(std::move(question)) {
  options_.seeds = default_seeds;
  options_.threads = std::max(1, int(std::thread::hardware_concurrency()));
  options_.out = "out/" + name_;
  CLI::App app(name_ + ": " + question_);
  std::string scale = "laptop", out = options_.out.string();
  app.add_option("--scale", scale, "demo: at most a minute, laptop: three, paper: the paper's size")
      ->check(CLI::IsMember({"demo", "laptop", "paper"}))
      ->capture_default_str();
  CLI::Option* seeds =
      app.add_option("--seeds", options_.seeds, "runs of each variant")->check(CLI::Range(1, 1000));
  if (default_seeds > 0) seeds->capture_default_str();
  app.add_option("--threads", options_.threads, "threads to use")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  bool replay = false, redraw = false;
  app.add_flag("--replay", replay, "play the recorded run, in half a minute");
  app.add_flag("--redraw", redraw, "figure and verdict of the recorded results, without a run");
  app.add_option("--out", out, "folder for results.csv, figure.svg and verdict.txt")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    std::exit(app.exit(help));
  } catch (const CLI::Error& error) {
    fail_input(error.what(), " (see --help)");
  }
  if (replay) {
    play_transcript(recorded() / "output.txt", 25);
    std::cout << "(This was the recorded run.)" << std::endl;
    std::exit(0);
  }
  options_.redraw = redraw;
  if (redraw && app.count("--out") == 0) out = recorded().string();
  options_.demo_scale = scale == "demo";
  options_.paper_scale = scale == "paper";
  smaller_than_its_rule_ =
      options_.demo_scale && (default_seeds == 0 || demo_seeds != default_seeds);
  if (options_.demo_scale && app.count("--seeds") == 0) options_.seeds = demo_seeds;
  options_.out = out;
  std::filesystem::create_directories(options_.out);
  catch_interrupts();
  transcript_ = std::make_unique<Transcript>(std::cout);
  std::cout << name_ << ": " << question_ << "\n" << std::endl;
  note("from", name_);
  note("date", today());
  note("hardware", hardware_text());
  note("scale", scale);
}

Lesson::~Lesson() = default;

const std::atomic<bool>& Lesson::stop() const {
  return catch_interrupts();
}

int Lesson::interrupted() const {
  std::cerr << "interrupted: no verdict; a lesson starts from the beginning next time\n";
  return 130;
}

void Lesson::note(const std::string& key, const std::string& value) {
  notes_.push_back("# " + key + ": " + value);
}

void Lesson::write_into(const std::string& folder) {
  if (options_.out.filename() != folder) options_.out /= folder;
  std::filesystem::create_directories(options_.out);
}

void Lesson::table_of(const std::filesystem::path& folder, const std::string& by,
                      const std::string& columns, const std::vector<std::string>& rows,
                      const std::string& file) {
  const std::filesystem::path made_on = folder / "made-on.txt";
  std::vector<std::pair<std::string, std::string>> facts{{"from", by}};
  std::istringstream lines(read_file(made_on, 1 << 16));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(": ");
    if (colon == line.npos) fail_input(made_on.string(), ": not KEY: VALUE: ", line);
    const std::string key = line.substr(0, colon), value = line.substr(colon + 2);
    const auto known = std::find_if(facts.begin(), facts.end(),
                                    [&](const auto& fact) { return fact.first == key; });
    if (known == facts.end())
      facts.push_back({key, value});
    else
      known->second += "; " + value;
  }
  std::vector<std::string> notes{"# scale: paper"};
  for (const auto& [key, value] : facts) notes.push_back("# " + key + ": " + value);
  std::swap(notes_, notes);
  table(columns, rows, file);
  std::swap(notes_, notes);
}

void Lesson::table(const std::string& columns, const std::vector<std::string>& rows,
                   const std::string& file) {
  std::string text = columns + "\n";
  for (const std::string& row : rows) text += row + "\n";
  write(file, text);
}

void Lesson::write(const std::string& file, const std::string& text) {
  if (options_.redraw) return;
  std::string all;
  for (const std::string& line : notes_) all += line + "\n";
  write_file_atomically(options_.out / file, all + text);
}

void Lesson::page_table(const std::string& file, const std::string& markdown) {
  write_file_atomically(options_.out / file, markdown);
}

void Lesson::figure(const Figure& figure, bool as_text) {
  if (as_text && !options_.redraw)
    for (const Panel& panel : figure.panels)
      std::cout << text_plot(panel, std::min(terminal_width(stdout), 100), 18, wants_colour(stdout))
                << "\n";
  std::string why_not;
  if (!write_figure(figure, options_.out / "figure.svg", &why_not)) std::cout << why_not << "\n";
  std::cout << "Results: " << options_.out.string() << "\n" << std::endl;
}

void Lesson::paper_scale(const Figure& figure, const std::string& table, bool reproduced,
                         const std::string& reason) {
  const std::filesystem::path to = options_.out / "paper";
  std::filesystem::create_directories(to);
  std::string why_not;
  if (!write_figure(figure, to / "figure.svg", &why_not)) std::cout << why_not << "\n";
  if (!table.empty()) write_file_atomically(to / "table.md", table);
  const std::string text = verdict_text(reproduced, reason);
  write_file_atomically(to / "verdict.txt", text);
  if (options_.paper_scale) std::cout << "Results: " << to.string() << "\n\n";
  std::cout << "at the paper's scale, " << text << std::flush;
}

int Lesson::verdict(bool reproduced, const std::string& reason) {
  const std::string text = verdict_text(reproduced, reason);
  write_file_atomically(options_.out / "verdict.txt", text);
  if (smaller_than_its_rule_) std::cout << "(at demo scale, smaller than the rule was made for)\n";
  std::cout << text << std::flush;
  if (!options_.redraw) write_file_atomically(options_.out / "output.txt", transcript_->text());
  return 0;
}

int run_lesson(const std::function<int()>& body) {
  try {
    return body();
  } catch (const RunError& error) {
    std::cerr << error.what() << "\n";
    return 1;
  } catch (const std::bad_alloc&) {
    std::cerr << "out of memory\n";
  } catch (const std::filesystem::filesystem_error& error) {
    std::cerr << file_problem("cannot use", error.path1(), error.code().value()) << "\n";
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
  }
  return 2;
}

}  // namespace focus
