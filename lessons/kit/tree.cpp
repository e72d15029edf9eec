#include "tree.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

// The instructor's page, what is said about gaps, and the comparison of lesson 00's page with the
// whole engine stay behind.
bool is_for_authors(const std::string& path) {
  return path.ends_with("/NOTES.md") || path.find("/gaps/") != std::string::npos ||
         path.starts_with("tests/stage_00_");
}

const char* const gap_header = R"(// What stands where code is missing.
#pragma once

#include "error.h"

namespace focus {

[[noreturn]] inline void empty_gap(const char* lesson, const char* name, const char* file,
                                   int line) {
  fail_run("lesson ", lesson, ": the gap '", name, "' is empty; write it at ", file, ":", line);
}

}  // namespace focus

#ifdef __CUDA_ARCH__  // on a GPU there is nobody to tell
#define GAP(lesson, name) __trap()
#else
#define GAP(lesson, name) ::focus::empty_gap(lesson, name, __FILE__, __LINE__)
#endif
)";

const char* const mistake_header = R"(#pragma once
#include <cstdlib>
#include <string>

#include "gap.h"
// Is this word in the environment variable?
inline bool focus_chosen(const char* variable, const std::string& word) {
  const char* words = std::getenv(variable);
  return words && (" " + std::string(words) + " ").find(" " + word + " ") != std::string::npos;
}
)";

std::string student_readme(const Lesson& lesson, const std::vector<Gap>& gaps) {
  int points = 0;
  std::string list;
  for (const Gap& gap : gaps) {
    list +=
        str("| ", gap.name, " | `", gap.file, "` | ", gap.points, " | ", gap.code.size(), " |\n");
    points += gap.points;
  }
  return str(
      "# Lesson ", lesson.number, ": ", lesson.title, "\n\n",
      "Your tree. Everything before this lesson is complete, nothing after it is here, and in\n",
      "these places code is missing (search for `GAP(`):\n\n",
      "| gap | file | points | lines in ours |\n|---|---|---|---|\n", list, "\n", "Together ",
      points, " points and about ", lesson.minutes,
      " minutes. What you write in the gaps counts, and\n",
      "`#include <…>` of the standard library; a helper function is a lambda in its gap.\n\n",
      "1. Read [lessons/", lesson.folder, "/README.md](lessons/", lesson.folder, "/README.md).\n",
      "2. `make test-", lesson.number,
      "` builds and tests your files. It is red until the last gap\n",
      "   is filled; fill them one at a time. `make watch` does it at each save.\n",
      "3. `make hint-", lesson.number,
      "` helps, a step at a time. `make progress` shows where you are.\n",
      "4. When it is green: `make solution-", lesson.number, "` shows ours, `make lesson-",
      lesson.number, "` runs the experiment.\n");
}

std::map<std::string, std::string> contents(const Manifest& manifest, const std::string& lesson,
                                            bool stubs) {
  std::map<std::string, std::string> files;
  const auto gap_text = [&](const Gap& gap) {
    return stubs && gap.lesson == lesson ? stub_text(gap) : code_text(gap);
  };
  for (const std::string& path : files_at(manifest, lesson)) {
    if (is_for_authors(path)) continue;
    std::string text;
    const bool can_have_markers = path.ends_with(".h") || path.ends_with(".cpp") ||
                                  path.ends_with(".cuh") || path.ends_with(".cu") ||
                                  path.ends_with(".sh") || path == "Makefile";
    if (can_have_markers) {
      const Source source = read_source(manifest.root, path);
      text = render(source, std::stoi(lesson), gap_text);
      for (const Gap& gap : gaps_of(source))
        if (stubs && gap.lesson == lesson && !text.starts_with("#include \"gap.h\"\n"))
          text = "#include \"gap.h\"\n" + text;
    } else {
      text = read_file(manifest.root / path, 64 << 20);
    }
    files[path] = text;
  }
  return files;
}

// Not synced to the disk, file by file: a tree can be made again, and waiting would take seconds.
void write(const fs::path& root, const std::string& path, const std::string& text,
           const fs::path& like) {
  fs::create_directories((root / path).parent_path());
  std::ofstream file(root / path, std::ios::binary);
  if (!(file << text).flush()) fail_file("cannot write", root / path, errno);
  if (fs::exists(like)) fs::permissions(root / path, fs::status(like).permissions());
}

// Brings `folder` to `files`: what is as it should be is left alone, what is in `parts` of it and
// not in `files` is removed.
void update(const fs::path& root, const fs::path& folder, std::initializer_list<const char*> parts,
            const std::map<std::string, std::string>& files) {
  for (const auto& [path, text] : files) {
    const fs::path target = folder / path;
    std::error_code none;
    if (fs::file_size(target, none) == text.size() && read_file(target, 64 << 20) == text) continue;
    write(folder, path, text, root / path);
  }
  for (const char* part : parts) {
    if (!fs::is_directory(folder / part)) continue;
    std::vector<fs::path> gone;
    for (const auto& entry : fs::recursive_directory_iterator(folder / part))
      if (entry.is_regular_file() &&
          !files.count(fs::relative(entry.path(), folder).generic_string()))
        gone.push_back(entry.path());
    for (const fs::path& path : gone) {
      fs::remove(path);
      // An empty folder of a later lesson would count as that lesson.
      for (fs::path above = path.parent_path(); fs::is_empty(above); above = above.parent_path())
        fs::remove(above);
    }
  }
}

}  // namespace

std::string gap_table(const std::vector<Gap>& gaps) {
  std::string table;
  const auto add = [&](const Gap& gap, const std::string& kind, const std::string& text) {
    table += gap.name + "\t" + kind + "\t" + text + "\n";
  };
  for (const Gap& gap : gaps) {
    add(gap, "place", gap.file);
    add(gap, "points", std::to_string(gap.points));
    add(gap, "lines", std::to_string(gap.code.size()));
    for (size_t step = 0; step < gap.hints.size(); ++step)
      for (const std::string& line : gap.hints[step]) add(gap, std::to_string(step + 1), line);
    for (const std::string& line : gap.notice) add(gap, "notice", line);
  }
  return table;
}

void write_snapshot(const Manifest& manifest, const std::string& lesson, bool stubs,
                    const fs::path& folder) {
  std::map<std::string, std::string> files = contents(manifest, lesson, stubs);
  files["lesson.txt"] = "lesson " + manifest.lesson(lesson).folder + "\n";
  if (stubs) files["src/gap.h"] = gap_header;
  update(manifest.root, folder, {"src", "tests", "lessons", "cuda"}, files);
}

void write_with_mistakes(const Manifest& manifest, const fs::path& folder) {
  std::map<std::string, std::string> files = {{"src/focus_mistake.h", mistake_header},
                                              {"src/gap.h", gap_header}};
  for (const std::string& path : source_files(manifest)) {
    const Source source = read_source(manifest.root, path);
    files[path] = gaps_of(source).empty() ? read_file(manifest.root / path, 64 << 20)
                                          : render_mistakes(source);
  }
  update(manifest.root, folder, {"src", "cuda"}, files);
}

void write_student_tree(const Manifest& manifest, const std::string& number,
                        const fs::path& folder) {
  const Lesson& lesson = manifest.lesson(number);
  const std::vector<Gap> gaps = gaps_of_lesson(manifest, number);
  if (gaps.empty()) fail_input("lesson ", number, " has no gaps to fill");
  std::error_code none;
  if (fs::exists(folder) && (!fs::is_directory(folder) || !fs::is_empty(folder)))
    fail_input(folder.string(),
               " exists already and nothing in it was touched: go on there, or give another "
               "folder: make start-",
               number, " DIR=…");
  const fs::path parent = fs::absolute(folder).parent_path();
  fs::create_directories(parent);
  // Written beside the folder under a name of our own, then renamed: whole or not at all.
  const fs::path unfinished =
      parent / str(".", folder.filename().string(), ".unfinished-", ::getpid());
  fs::remove_all(unfinished);
  try {
    std::map<std::string, std::string> files = contents(manifest, number, true);
    files["src/gap.h"] = gap_header;
    files["README.md"] = student_readme(lesson, gaps);
    files["lessons/" + lesson.folder + "/gaps.tsv"] = gap_table(gaps);
    // The first line says what this tree is for, the second where the solutions are.
    files["lesson.txt"] = str("lesson ", lesson.folder, "\ncheckout ",
                              fs::absolute(manifest.root).lexically_normal().string(), "\n");
    for (const auto& [path, text] : files) write(unfinished, path, text, manifest.root / path);
    fs::remove(folder, none);  // an empty one
    fs::rename(unfinished, folder);
  } catch (...) {
    fs::remove_all(unfinished, none);
    throw;
  }
}

}  // namespace focus::kit
