// A folder that a run writes to.
#pragma once

#include <filesystem>

namespace focus {

// Holds a folder for this process until the end of the scope. The lock is the system's: it ends
// with the process, however that ends, and leaves nothing behind.
class FolderLock {
 public:
  // InputError when another process holds it. Does nothing where the file system has no locks.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

// Creates a folder and those above it. If commit() is not called, the destructor removes what was
// created, with all that is in it by then.
class NewFolder {
 public:
  // InputError when it cannot be created.
  explicit NewFolder(const std::filesystem::path& folder);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  void commit() { created_.clear(); }

 private:
  std::filesystem::path created_;  // the topmost one that was not there; empty: all were
};

// Is this the temporary file of a write that a kill cut short? (See atomic_file.h.)
bool is_leftover(const std::filesystem::path& file);
// Removes such files from a folder, if it exists.
void remove_leftovers(const std::filesystem::path& folder);

}  // namespace focus
