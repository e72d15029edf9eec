#include "upload.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <set>
#include <sstream>

#include "error.h"
#include "files/printable.h"
#include "gap_text.h"
#include "sandbox.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

constexpr size_t most_bytes = 1 << 20, most_files = 50'000;
constexpr uintmax_t most_archive_bytes = 64 << 20;

struct Found {
  std::string text, problem;
};

// A file below `root`, where no component of its path is a link: what is listed may have been made
// to point to other students' files, or to ours.
Found read_below(const fs::path& root, const std::string& path) {
  int folder = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  Found found;
  std::string so_far;
  std::istringstream parts(path);
  for (std::string part; folder >= 0 && std::getline(parts, part, '/');) {
    so_far += (so_far.empty() ? "" : "/") + part;
    const bool last = so_far.size() == path.size();
    const int next =
        openat(folder, part.c_str(),
               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (last ? 0 : O_DIRECTORY));
    struct stat status {};
    if (next < 0) {
      const int error = errno;
      const bool link = fstatat(folder, part.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                        S_ISLNK(status.st_mode);
      found.problem = error == ENOENT ? so_far + " is missing"
                      : link          ? so_far + " is a symbolic link"
                                      : so_far + ": " + std::strerror(error);
    }
    close(folder);
    folder = next;
    if (!last || folder < 0) continue;
    if (fstat(folder, &status) != 0 || !S_ISREG(status.st_mode))
      found.problem = path + " is no regular file";
    else if (status.st_nlink != 1)
      found.problem = path + " is a hard link: it has a second name";
    else if (size_t(status.st_size) > most_bytes)
      found.problem = path + " is larger than 1 MB";
    while (found.problem.empty()) {
      char bytes[65536];
      const ssize_t count = read(folder, bytes, sizeof bytes);
      if (count == 0) break;
      if (count < 0) found.problem = path + ": " + std::strerror(errno);
      if (count > 0) found.text.append(bytes, size_t(count));
      if (found.text.size() > most_bytes) found.problem = path + " is larger than 1 MB";
    }
  }
  if (folder >= 0) close(folder);
  return found;
}

bool is_archive(const std::string& name) {
  for (const char* end : {".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z"})
    if (name.size() > std::strlen(end) &&
        std::equal(name.end() - ptrdiff_t(std::strlen(end)), name.end(), end,
                   [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; }))
      return true;
  return false;
}

// Where the files of an upload can be had from: a folder or an archive.
struct Files {
  std::vector<std::string> paths;  // links are among them
  std::function<Found(const std::string&)> read;
  std::string problem;
};

Files in_folder(const fs::path& root) {
  Files files;
  const std::function<void(const std::string&, int)> walk = [&](const std::string& below,
                                                                int depth) {
    std::error_code error;
    for (fs::directory_iterator at(root / below, error), end; !error && at != end;
         at.increment(error)) {
      if (files.paths.size() >= most_files) {
        files.problem = str("it holds more than ", most_files, " files");
        return;
      }
      const std::string path = below + at->path().filename().string();
      if (at->symlink_status(error).type() == fs::file_type::directory) {
        if (depth < 16) walk(path + "/", depth + 1);
      } else {
        files.paths.push_back(path);
      }
    }
  };
  walk("", 0);
  files.read = [root](const std::string& path) { return read_below(root, path); };
  return files;
}

Outcome run_bsdtar(const fs::path& archive, const std::string& what, const std::string& name) {
  Sandbox sandbox;
  sandbox.readable = {{archive, "/upload"}};
  sandbox.environment = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"};
  const Limits limits{.seconds = 20, .memory_mb = 1024, .file_mb = 0, .output_mb = 4, .threads = 0};
  // Errors are not to be mixed with the file.
  return run_sandboxed(
      {"/bin/sh", "-c", "exec bsdtar " + what + " /upload ${1:+\"$1\"} 2> /dev/null", "sh", name},
      sandbox, limits);
}

Files in_archive(const fs::path& root, const std::string& path) {
  Files files;
  const fs::path archive = root / path;
  std::error_code error;
  if (fs::symlink_status(archive, error).type() != fs::file_type::regular ||
      fs::hard_link_count(archive, error) != 1 ||
      fs::file_size(archive, error) > most_archive_bytes) {
    files.problem = path + " is no regular file of at most 64 MB";
    return files;
  }
  const Outcome list = run_bsdtar(archive, "-tf", "");
  if (!list.ok()) {
    files.problem = list.end == Outcome::exited && list.status == 127
                        ? "to look into " + path + " needs bsdtar: apt-get install libarchive-tools"
                        : path + " cannot be read as an archive";
    return files;
  }
  std::istringstream lines(list.output);
  for (std::string line; std::getline(lines, line) && files.paths.size() < most_files;)
    if (!line.ends_with("/")) files.paths.push_back(line);
  files.read = [archive](const std::string& name) {
    std::string pattern;
    for (char c : name) pattern += (std::strchr("*?[]\\", c) ? "\\" : "") + std::string(1, c);
    const Outcome one = run_bsdtar(archive, "-xOqf", pattern);
    if (!one.ok() || one.output.size() > most_bytes)
      return Found{"", name + " cannot be read from the archive, or is larger than 1 MB"};
    return Found{one.output, ""};
  };
  return files;
}

bool ends_with_path(const std::string& path, const std::string& end) {
  return path == end || path.ends_with("/" + end);
}

bool is_apples(const std::string& path) {
  return path.starts_with("__MACOSX/") || path.find("/__MACOSX/") != std::string::npos ||
         path.find("/._") != std::string::npos || path.starts_with("._");
}

// Takes the files with gaps from the tree at `tree`. false: none of them has a gap's marker lines.
bool take_tree_at(const std::string& tree, const std::vector<Gap>& gaps, const Manifest& manifest,
                  const Files& files, const std::set<std::string>& there, Upload& upload) {
  std::map<std::string, Found> seen;
  const auto look = [&](const std::string& file) -> const Found& {
    const auto [at, first] = seen.try_emplace(file);
    if (first) at->second = files.read(tree + file);
    return at->second;
  };
  std::string lesson;
  if (there.count(tree + "lesson.txt")) {
    std::istringstream text(look("lesson.txt").text);
    std::string word, folder;
    text >> word >> folder;
    // By its name, so that renumbered lessons are found.
    for (const Lesson& one : manifest.lessons)
      if (folder.size() > 3 && one.folder.substr(3) == folder.substr(3)) lesson = one.number;
  }
  const auto has_gap = [&](const Gap& gap) {
    return there.count(tree + gap.file) && written_in(look(gap.file).text, gap).problem.empty();
  };
  if (std::none_of(gaps.begin(), gaps.end(),
                   [&](const Gap& gap) { return gap.lesson == lesson; })) {
    const auto gap = std::find_if(gaps.begin(), gaps.end(), has_gap);
    if (gap != gaps.end()) lesson = gap->lesson;
  }
  for (const auto& [file, found] : seen)
    if (!found.problem.empty()) upload.problem = found.problem;
  bool any = false;
  upload.tree = tree, upload.lesson = lesson;
  upload.files.clear(), upload.missing.clear();
  for (const Gap& gap : gaps) {
    if (gap.lesson != lesson) continue;
    const Found& found = look(gap.file);
    if (found.problem.empty())
      upload.files[gap.file] = found.text;
    else
      upload.missing[gap.file] = found.problem;
    any |= has_gap(gap);
  }
  if (any) upload.problem.clear();
  return any;
}

// The tree with the shortest path that has gaps; the shortest of all, if its lesson.txt says that
// it is one and no tree has gaps. false: there is none.
bool take_tree(const std::vector<Gap>& gaps, const Manifest& manifest, const Files& files,
               Upload& upload) {
  std::set<std::pair<size_t, std::string>> trees;
  const auto offer = [&](const std::string& path, const std::string& end) {
    if (ends_with_path(path, end))
      trees.emplace(path.size() - end.size(), path.substr(0, path.size() - end.size()));
  };
  for (const std::string& path : files.paths) {
    if (is_apples(path)) continue;
    offer(path, "lesson.txt");
    for (const Gap& gap : gaps) offer(path, gap.file);
  }
  const std::set<std::string> there(files.paths.begin(), files.paths.end());
  std::optional<Upload> without_gaps;
  int tried = 0;
  for (const auto& [length, tree] : trees) {
    if (++tried > 8) break;
    if (take_tree_at(tree, gaps, manifest, files, there, upload)) return true;
    if (!without_gaps && !upload.lesson.empty()) without_gaps = upload;
  }
  if (without_gaps) upload = *without_gaps, upload.problem.clear();
  return without_gaps.has_value();
}

// "Ada Lovelace_12345_assignsubmission_file_" → "Ada Lovelace", "12345"
void read_identity(std::string name, Upload& upload) {
  if (const size_t end = name.find("_assignsubmission_"); end != std::string::npos) {
    name.resize(end);
    const size_t number = name.rfind('_');
    if (number != std::string::npos && number + 1 < name.size() &&
        name.find_first_not_of("0123456789", number + 1) == std::string::npos) {
      upload.id = name.substr(number + 1);
      name.resize(number);
    }
  }
  upload.student = printable(name);
}

}  // namespace

std::vector<fs::path> find_uploads(const std::vector<Gap>& gaps, const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) fail_input(folder.string(), " is no folder");
  const auto is_there = [&](const std::string& path) {
    return fs::symlink_status(folder / path, error).type() == fs::file_type::regular;
  };
  bool is_tree = is_there("lesson.txt");
  for (const Gap& gap : gaps) is_tree |= is_there(gap.file);
  if (is_tree) return {fs::absolute(folder).lexically_normal()};
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (!entry.path().filename().string().starts_with(".")) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  if (found.empty()) fail_input(folder.string(), " is empty: there is nothing to grade");
  return found;
}

Upload read_upload(const Manifest& manifest, const std::vector<Gap>& all, const fs::path& path,
                   const std::string& lesson) {
  Upload upload;
  try {
    const fs::path whole = path.has_filename() ? path : path.parent_path();
    const std::string name = whole.filename().string();
    const fs::file_type type = fs::symlink_status(whole).type();
    read_identity(
        is_archive(name) && type == fs::file_type::regular ? name.substr(0, name.find('.')) : name,
        upload);
    std::vector<Gap> gaps = all;
    if (!lesson.empty()) std::erase_if(gaps, [&](const Gap& gap) { return gap.lesson != lesson; });
    std::string problem;
    if (type == fs::file_type::directory) {
      const Files files = in_folder(whole);
      if (!files.problem.empty()) problem = files.problem;
      if (problem.empty() && take_tree(gaps, manifest, files, upload)) return upload;
      int archives = 0;
      for (const std::string& file : files.paths) {
        if (!problem.empty() || archives == 3) break;
        if (!is_archive(file) || is_apples(file)) continue;
        ++archives;
        const Files packed = in_archive(whole, file);
        if (packed.problem.empty() && take_tree(gaps, manifest, packed, upload)) {
          upload.tree = file + ": " + upload.tree;
          return upload;
        }
        if (!packed.problem.empty()) problem = packed.problem;
      }
    } else if (type == fs::file_type::regular && is_archive(name)) {
      const Files packed = in_archive(whole.parent_path(), name);
      if (packed.problem.empty() && take_tree(gaps, manifest, packed, upload)) return upload;
      problem = packed.problem;
    } else {
      problem = type == fs::file_type::symlink ? "it is a symbolic link"
                                               : "it is neither a folder nor an archive";
    }
    if (!problem.empty()) upload.problem = problem;
    if (upload.problem.empty())
      upload.problem = "it holds no file with " +
                       (lesson.empty() ? "a lesson's gaps" : "gaps of lesson " + lesson);
  } catch (const std::exception& error) {
    upload.problem = error.what();
  }
  upload.problem = printable(upload.problem);
  return upload;
}

std::string printable(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    size_t length = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    uint32_t code = length <= 1 ? c : c & (0xff >> (length + 1));
    for (size_t k = 1; k < length; ++k) {
      const unsigned char next = i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0;
      if (next >> 6 != 2) length = 0;
      code = code << 6 | (next & 63);
    }
    const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool turns = code == 0x61c || (code >= 0x200b && code <= 0x200f) ||
                       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
                       code == 0xfeff;
    const bool shown = length > 0 && code >= 0x20 && !(code >= 0x7f && code < 0xa0) && !turns &&
                       code >= least[length] && code <= 0x10ffff && !(code >> 11 == 27);
    if (shown)
      out.append(text, i, length);
    else
      for (size_t k = 0; k < std::max<size_t>(length, 1); ++k)
        out += "\\x" + hex_text(text.substr(i + k, 1));
    i += std::max<size_t>(length, 1);
  }
  return out;
}

}  // namespace focus::kit
