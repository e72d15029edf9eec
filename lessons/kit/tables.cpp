#include "tables.h"

#include <iostream>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

namespace {

std::string table_of_lessons(const Manifest& manifest) {
  std::string table =
      "| lesson | builds | finding | measured here, laptop scale |\n|---|---|---|---|\n";
  for (const Lesson& lesson : manifest.lessons) {
    const std::string path = "lessons/" + lesson.folder + "/results/verdict.txt";
    const std::string verdict = read_file(manifest.root / path, 1 << 16);
    const bool reproduced = verdict.starts_with("verdict: reproduced");
    // The manifest says it in a reader's words; whether it was reproduced is not up to it.
    const bool says_not = lesson.measured.find("not reproduced") != std::string::npos;
    if (reproduced == says_not)
      fail_input("lessons/manifest.json, lesson ", lesson.number, ": 'measured' disagrees with ",
                 path);
    table += str("| [", lesson.number, " ", lesson.title, "](lessons/", lesson.folder,
                 "/README.md) | ", lesson.builds, " | ", lesson.finding, ": ", lesson.claim, " | ",
                 lesson.measured, " |\n");
  }
  return table;
}

}  // namespace

int write_tables(const Manifest& manifest, bool check) {
  const std::filesystem::path path = manifest.root / "README.md";
  const std::string begin = "<!-- lessons -->\n", end = "<!-- end of lessons -->\n";
  std::string text = read_file(path, 1 << 20);
  const size_t from = text.find(begin), to = text.find(end);
  if (from == std::string::npos || to == std::string::npos || to < from)
    fail_input("README.md: the marker lines <!-- lessons --> and <!-- end of lessons --> are gone");
  const std::string before = text;
  text.replace(from + begin.size(), to - from - begin.size(), table_of_lessons(manifest));
  if (text == before) return 0;
  if (check) {
    std::cerr << "README.md: the table of lessons is not current; run make tables\n";
    return 1;
  }
  write_file_atomically(path, text);
  return 0;
}

}  // namespace focus::kit
