// A folder that a run writes to, and a file that takes long to make.
#pragma once

#include <filesystem>
#include <vector>

namespace focus {

// The kind of thing at a path. InputError when the system does not say (a name that is too long, a
// folder without permission to search).
enum class PathKind { missing, folder, file };
PathKind kind_of(const std::filesystem::path& path);

// A folder that is this process's alone until the end of the scope. The lock is the system's: it
// ends with the process, however that ends, and leaves nothing behind.
//
// Everything that this process made is removed again unless it calls keep(): only empty folders
// that its own mkdir made and that it has locked, and files that it announced by will_make().
class FolderLock {
 public:
  // InputError when another process holds it, or it cannot be opened. Where the file system has no
  // locks, the folder is shared.
  static FolderLock of(const std::filesystem::path& folder);
  // The same for a folder that is made, with those above it, where it is missing.
  static FolderLock make(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Announces a file or a folder that this process is about to make in the locked one. Anything
  // that is there already is never removed.
  void will_make(const std::filesystem::path& path);
  void keep();

 private:
  FolderLock() = default;
  FolderLock(const std::filesystem::path& folder, bool make);

  int descriptor_ = -1;
  std::filesystem::path folder_;
  std::vector<std::filesystem::path> above_;  // folders that mkdir made here, the topmost first
  std::vector<std::filesystem::path> made_;   // in the order of their making
};

// A file that only this process makes, until the end of the scope. The lock is the system's, on an
// empty FILE.lock, which is removed at the end; one that a kill has left means nothing.
class FileLock {
 public:
  // InputError when another process makes the file, or FILE.lock holds something.
  explicit FileLock(const std::filesystem::path& file);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// Makes a folder in one that is locked; nothing happens if it is there. InputError.
void make_folder(const std::filesystem::path& folder);

// Is this the temporary file of a write that a kill cut short? (See atomic_file.h.)
bool is_leftover(const std::filesystem::path& file);
// Removes such files from a folder that is locked, if it exists.
void remove_leftovers(const std::filesystem::path& folder);

}  // namespace focus
