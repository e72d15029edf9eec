#include "files/folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "error.h"

namespace focus {

namespace fs = std::filesystem;

FolderLock::FolderLock(const fs::path& folder)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0 || ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
    return;
  ::close(descriptor_);
  fail_input(folder.string(), ": another process is training there; wait for it or stop it first");
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

NewFolder::NewFolder(const fs::path& folder) {
  std::error_code error;
  fs::path missing;
  for (fs::path p = folder; !p.empty() && !fs::exists(p, error); p = p.parent_path()) missing = p;
  fs::create_directories(folder, error);
  // A name that ends in a slash counts as an error where nothing had to be created.
  if (!fs::is_directory(folder)) {
    created_ = missing;
    if (!missing.empty()) fs::remove_all(missing, error);
    fail_input("cannot make the folder ", folder.string(), ": ", error.message(),
               "; choose another one");
  }
  created_ = missing;
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!created_.empty()) fs::remove_all(created_, ignored);
}

bool is_leftover(const fs::path& file) {
  return file.filename().string().find(".tmp-") != std::string::npos;
}

void remove_leftovers(const fs::path& folder) {
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (is_leftover(entry.path())) found.push_back(entry.path());
  for (const fs::path& file : found) fs::remove(file, ignored);
}

}  // namespace focus
