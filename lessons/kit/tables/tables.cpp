#include "tables.h"

#include <iostream>
#include <vector>

#include "error.h"
#include "files/atomic_file.h"
#include "speed_tables.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

// The manifest says it in a reader's words; whether it was reproduced is not up to it. (Lesson 17's
// verdict at the paper's scale names what did it instead.)
void check_words(const Manifest& manifest, const Lesson& lesson, const std::string& words,
                 const std::string& file) {
  const std::string path = str("lessons/", lesson.folder, "/results/", file);
  const std::string verdict = read_file(manifest.root / path, 1 << 16);
  const bool says_not = words.find("not reproduced") != std::string::npos;
  if (says_not ? verdict.starts_with("verdict: reproduced")
               : verdict.starts_with("verdict: not reproduced"))
    fail_input("lessons/manifest.json, lesson ", lesson.number, ": '", words, "' disagrees with ",
               path);
}

std::string table_of_lessons(const Manifest& manifest) {
  std::string table =
      "| lesson | builds | finding | measured here, laptop scale | at the paper's scale |\n"
      "|---|---|---|---|---|\n";
  for (const Lesson& lesson : manifest.lessons) {
    check_words(manifest, lesson, lesson.measured, "verdict.txt");
    if (!lesson.paper_scale.empty() && !lesson.paper_scale.starts_with("not run"))
      check_words(manifest, lesson, lesson.paper_scale, "paper/verdict.txt");
    table += str("| [", lesson.number, " ", lesson.title, "](lessons/", lesson.folder,
                 "/README.md) | ", lesson.builds, " | ", lesson.finding, ": ", lesson.claim, " | ",
                 lesson.measured, " | ", lesson.paper_scale, " |\n");
  }
  return table;
}

std::string table_of_minutes(const Manifest& manifest) {
  std::string table = "| lesson | minutes | builds on |\n|---|---|---|\n";
  for (const Lesson& lesson : manifest.lessons) {
    std::string before;
    for (const std::string& number : lesson.prerequisites)
      before += str(before.empty() ? "" : ", ", number);
    table += str("| [", lesson.number, " ", lesson.title, "](", lesson.folder, "/README.md) | ",
                 lesson.minutes, " | ", before.empty() ? "–" : before, " |\n");
  }
  return table;
}

std::string table_named(const Manifest& manifest, const fs::path& page, const std::string& name) {
  const fs::path measured = manifest.root / "tests/pytorch/results";
  if (name == "lessons") return table_of_lessons(manifest);
  if (name == "plan") return table_of_minutes(manifest);
  if (name == "step speed") return step_speed_table(measured / "cpu_step.csv");
  if (name == "gpu step speed") return gpu_step_table(measured / "gpu_step.csv");
  if (name == "kernel speed") return kernel_speed_table(measured / "attention_h200.csv", true);
  if (name == "ladder") return ladder_table(manifest.root / "cuda/results");
  if (name == "kernel ratios") return kernel_speed_table(measured / "attention_h200.csv", false);
  if (name.starts_with("results/")) return read_file(page.parent_path() / name, 1 << 20);
  fail_input(page.string(), ": there is no table named '", name, "'");
}

// The page with all of its tables current.
std::string with_tables(const Manifest& manifest, const fs::path& page, const std::string& text) {
  const std::string open = "<!-- table: ", close = " -->\n", end = "<!-- end of table -->\n";
  std::string result;
  size_t at = 0;
  for (size_t begin; (begin = text.find(open, at)) != std::string::npos;) {
    const size_t line_end = text.find(close, begin);
    const size_t last = line_end == std::string::npos ? line_end : text.find(end, line_end);
    if (last == std::string::npos) fail_input(page.string(), ": a table without its end line");
    const size_t name = begin + open.size();
    result += text.substr(at, line_end + close.size() - at);
    result += table_named(manifest, page, text.substr(name, line_end - name));
    at = last;
  }
  return result + text.substr(at);
}

}  // namespace

int write_tables(const Manifest& manifest, bool check) {
  std::vector<fs::path> pages = {manifest.root / "README.md", manifest.root / "cuda/README.md",
                                 manifest.root / "tests/pytorch/README.md",
                                 manifest.root / "lessons/TEACHING.md"};
  for (const Lesson& lesson : manifest.lessons)
    pages.push_back(manifest.root / "lessons" / lesson.folder / "README.md");
  int status = 0;
  for (const fs::path& page : pages) {
    const std::string before = read_file(page, 1 << 20);
    const std::string after = with_tables(manifest, page, before);
    if (after == before) continue;
    if (!check) {
      write_file_atomically(page, after);
    } else {
      std::cerr << page.string() << ": a table is not current; run make tables\n";
      status = 1;
    }
  }
  return status;
}

}  // namespace focus::kit
