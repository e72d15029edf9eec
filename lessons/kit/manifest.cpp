#include "manifest.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

namespace {

// Every file that git would see below `folder`, ascending. Build folders are not looked into.
void list_files(const std::filesystem::path& root, const std::string& folder,
                std::vector<std::string>& all) {
  for (const auto& entry : std::filesystem::directory_iterator(root / folder)) {
    const std::string path = folder + entry.path().filename().string();
    if (entry.is_directory() && !entry.is_symlink())
      list_files(root, path + "/", all);
    else if (entry.is_regular_file())
      all.push_back(path);
  }
}

bool fits(const std::string& entry, const std::string& path) {
  return entry.ends_with("/") ? path.starts_with(entry) : path == entry;
}

}  // namespace

Manifest read_manifest(const std::filesystem::path& root) {
  const std::filesystem::path path = root / "lessons/manifest.json";
  Manifest manifest{root, {}};
  try {
    const auto json = nlohmann::json::parse(read_file(path, 1 << 20));
    for (const auto& entry : json.at("lessons")) {
      Lesson lesson;
      const auto text = [&](const char* key) { return entry.at(key).get<std::string>(); };
      lesson.folder = text("folder");
      lesson.number = lesson.folder.substr(0, 2);
      lesson.title = text("title"), lesson.builds = text("builds");
      lesson.finding = text("finding"), lesson.claim = text("claim");
      lesson.measured = text("measured");
      lesson.paper_scale = entry.value("paper_scale", "");
      lesson.minutes = entry.at("minutes").get<int>();
      lesson.prerequisites = entry.at("prerequisites").get<std::vector<std::string>>();
      lesson.files = entry.at("files").get<std::vector<std::string>>();
      manifest.lessons.push_back(lesson);
    }
  } catch (const nlohmann::json::exception& error) {
    fail_input(path.string(), ": ", error.what());
  }
  for (const Lesson& lesson : manifest.lessons) {
    if (!std::filesystem::is_directory(root / "lessons" / lesson.folder))
      fail_input(path.string(), ": there is no folder lessons/", lesson.folder);
    for (const std::string& file : lesson.files)
      if (!std::filesystem::exists(root / file))
        fail_input(path.string(), ": lesson ", lesson.number, " names ", file,
                   ", which does not exist: the checkout is not whole (cp -r with * leaves out "
                   "names that begin with a dot)");
  }
  return manifest;
}

const Lesson& Manifest::lesson(const std::string& number) const {
  std::string known;
  for (const Lesson& lesson : lessons) {
    if (lesson.number == number) return lesson;
    known += " " + lesson.number;
  }
  fail_input("there is no lesson '", number, "'; there are:", known);
}

std::vector<std::string> files_at(const Manifest& manifest, const std::string& lesson) {
  manifest.lesson(lesson);
  std::vector<std::string> kept;
  std::vector<std::string> all = {"Makefile", "LICENSE", ".clang-format", ".gitignore",
                                  ".gitattributes"};
  for (const char* folder : {"src/", "tests/", "lessons/", "cuda/", "data/"})
    if (std::filesystem::is_directory(manifest.root / folder))
      list_files(manifest.root, folder, all);
  for (const std::string& path : all) {
    size_t best = 0;
    std::string owner;
    for (const Lesson& l : manifest.lessons) {
      std::vector<std::string> entries = l.files;
      entries.push_back("lessons/" + l.folder + "/");
      if (path.starts_with("tests/stage_" + l.number + "_")) entries.push_back(path);
      for (const std::string& entry : entries)
        if (fits(entry, path) && entry.size() > best) best = entry.size(), owner = l.number;
    }
    if (!owner.empty() && owner <= lesson) kept.push_back(path);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

std::vector<std::string> source_files(const Manifest& manifest) {
  std::vector<std::string> all;
  for (const char* folder : {"src/", "cuda/"})
    if (std::filesystem::is_directory(manifest.root / folder))
      list_files(manifest.root, folder, all);
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<Gap> all_gaps(const Manifest& manifest) {
  std::vector<Gap> all;
  for (const std::string& path : source_files(manifest))
    for (Gap& gap : gaps_of(read_source(manifest.root, path))) all.push_back(std::move(gap));
  return all;
}

std::vector<std::string> gap_problems(const Manifest& manifest) {
  std::vector<std::string> problems;
  std::map<std::string, std::string> places;  // of names, mistakes and pages
  const auto claim = [&](const std::string& what, const std::string& place) {
    const auto [other, first] = places.try_emplace(what, place);
    if (!first) problems.push_back(str(place, ": ", what, " is there already: ", other->second));
  };
  for (const Gap& gap : all_gaps(manifest)) {
    claim("the gap '" + gap.name + "'", str(gap.file, ":", gap.line));
    places.emplace(gap.page, gap.file);
    for (const Mistake& mistake : gap.mistakes) {
      claim("the mistake '" + mistake.name + "'", str(gap.page, ":", mistake.line));
      try {
        with_mistake(gap, mistake);
      } catch (const InputError& error) {
        problems.push_back(error.what());
      }
    }
  }
  for (const Lesson& lesson : manifest.lessons) {
    const std::string pages = "lessons/" + lesson.folder + "/gaps/";
    if (!std::filesystem::is_directory(manifest.root / pages)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(manifest.root / pages))
      if (const std::string page = pages + entry.path().filename().string(); !places.count(page))
        problems.push_back(page + ":1: no source has a gap of this name");
  }
  return problems;
}

std::vector<Gap> gaps_of_lesson(const Manifest& manifest, const std::string& lesson) {
  manifest.lesson(lesson);
  std::vector<Gap> gaps = all_gaps(manifest);
  std::erase_if(gaps, [&](const Gap& gap) { return gap.lesson != lesson; });
  // Files of earlier lessons come first, then the lesson's own as the manifest lists them.
  const std::vector<std::string>& own = manifest.lesson(lesson).files;
  const auto place = [&](const Gap& gap) {
    size_t best = 0, at = 0;
    for (size_t i = 0; i < own.size(); ++i)
      if (fits(own[i], gap.file) && own[i].size() > best) best = own[i].size(), at = i + 1;
    return at;
  };
  std::ranges::sort(gaps, {},
                    [&](const Gap& gap) { return std::tuple(place(gap), gap.file, gap.line); });
  return gaps;
}

}  // namespace focus::kit
