#include "files/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string>

#include "error.h"
#include "files/atomic_file.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

// The files that this program writes into folders of runs.
constexpr const char* own_files[] = {
    "settings.json", "metrics.csv", "last.safetensors", "best.safetensors", "at-loss.safetensors",
    "study.csv",     "study.txt",   "results.csv",      "summary.csv",      "outcome.txt"};

// Does a descriptor still belong to what stands at the path?
bool is_open_at(int descriptor, const fs::path& path) {
  struct stat here {
  }, there{};
  return ::fstat(descriptor, &here) == 0 && ::stat(path.c_str(), &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

}  // namespace

PathKind kind_of(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0)
    return S_ISDIR(info.st_mode) ? PathKind::folder : PathKind::file;
  if (errno == ENOENT || errno == ENOTDIR) return PathKind::missing;
  fail_file("cannot look at", path, errno);
}

FolderLock FolderLock::of(const fs::path& folder) {
  return FolderLock(folder, false);
}

FolderLock FolderLock::make(const fs::path& folder) {
  return FolderLock(folder, true);
}

namespace {

// The system's lock on an open folder. False while another process has it; a file system without
// locks has nothing to wait for.
bool lock_at_once(int descriptor) {
  return ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

int open_folder(const fs::path& folder) {
  return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

// Makes the folders that are missing and remembers those. False: one that was there has vanished.
bool make_missing(const fs::path& folder, std::vector<fs::path>& made) {
  std::vector<fs::path> missing;
  for (fs::path p = folder; !p.empty() && kind_of(p) == PathKind::missing; p = p.parent_path())
    missing.push_back(p);
  for (; !missing.empty(); missing.pop_back()) {
    if (::mkdir(missing.back().c_str(), 0777) == 0)
      made.push_back(missing.back());
    else if (errno == ENOENT)
      return false;
    else if (errno != EEXIST)
      fail_file("cannot make the folder", folder, errno);
  }
  return true;
}

}  // namespace

// Between any two of these calls a folder can vanish that another process had made and failed in:
// then everything begins again.
FolderLock::FolderLock(const fs::path& folder, bool make) : FolderLock() {
  folder_ = folder;
  for (int tries = 0; tries < 1000; ++tries) {
    if (make && !make_missing(folder, above_)) continue;
    const int descriptor = open_folder(folder);
    if (descriptor < 0 && errno == ENOENT && make) continue;
    if (descriptor < 0) fail_file("cannot open the folder", folder, errno);
    if (!lock_at_once(descriptor)) {
      ::close(descriptor);
      fail_input(folder.string(),
                 ": another process is training there; wait for it or stop it first");
    }
    descriptor_ = descriptor;
    if (is_open_at(descriptor, folder)) return;
    ::close(descriptor_);
    descriptor_ = -1;
  }
  fail_file("cannot make the folder", folder, ENOENT);
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0)
    for (; !made_.empty(); made_.pop_back()) std::remove(made_.back().c_str());
  for (bool removed = true; removed && !above_.empty(); above_.pop_back()) {
    const bool is_this = descriptor_ >= 0 && above_.back() == folder_;
    const int descriptor = is_this ? descriptor_ : open_folder(above_.back());
    removed = descriptor >= 0 && (is_this || lock_at_once(descriptor)) &&
              is_open_at(descriptor, above_.back()) && ::rmdir(above_.back().c_str()) == 0;
    if (descriptor >= 0 && !is_this) ::close(descriptor);
  }
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FolderLock::will_make(const fs::path& path) {
  if (kind_of(path) == PathKind::missing) made_.push_back(path);
}

void FolderLock::keep() {
  made_.clear();
  above_.clear();
}

FileLock::FileLock(const fs::path& file) : path_(file.string() + ".lock") {
  // Whoever holds the lock removes the file: what was opened before is then a file of no name.
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_file("cannot make", path_, errno);
    struct stat info {};
    const bool strange =
        ::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > 0;
    if (!strange && lock_at_once(descriptor_)) continue;
    ::close(descriptor_);
    if (strange) fail_input(path_.string(), ": is no lock of this program; move it away");
    fail_input(file.string(), ": another process is making it; wait for it, or take another name");
  } while (!is_open_at(descriptor_, path_));
}

FileLock::~FileLock() {
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

void make_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    fail_file("cannot make the folder", folder, errno);
}

bool is_leftover(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const char* own : own_files) {
    int characters = 0;
    unsigned process = 0, call = 0;
    if (name.starts_with(own) &&
        std::sscanf(name.c_str() + std::string_view(own).size(), ".tmp-%u-%u%n", &process, &call,
                    &characters) == 2 &&
        std::string_view(own).size() + size_t(characters) == name.size())
      return true;
  }
  return false;
}

void remove_leftovers(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (is_leftover(entry.path()) && entry.is_regular_file(ignored)) found.push_back(entry.path());
  for (const fs::path& file : found) ::unlink(file.c_str());
}

}  // namespace focus
