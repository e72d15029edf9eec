#include "files/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "error.h"

namespace focus {
namespace {

// Closes at the end of the scope, whichever way it is left.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string reason(int error) {
  return std::generic_category().message(error);
}

const char* advice_for_writing(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return "free some space or choose another folder";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder that you may write to";
    case ENOENT:
      return "create the folder first";
    case ENOTDIR:
      return "a part of the path is a file: choose another one";
    case ENAMETOOLONG:
      return "choose a shorter name";
    case EMFILE:
    case ENFILE:
      return "allow more open files (ulimit -n 256)";
    default:
      return "choose another folder";
  }
}

[[noreturn]] void fail_writing(const std::filesystem::path& path, int error) {
  fail_file("cannot write", path, error);
}

// 0, or the errno of the first failure. write(2) may take fewer bytes than it was given.
int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t taken = ::write(fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (taken < 0 && errno == EINTR) continue;
    if (taken < 0) return errno;
    bytes.remove_prefix(size_t(taken));
  }
  return 0;
}

// Creates a file beside `path` under a name that no other process or call uses.
std::string create_temporary(const std::filesystem::path& path, Descriptor& file) {
  static std::atomic<unsigned> calls{0};
  for (;;) {
    const std::string name = str(path.string(), ".tmp-", ::getpid(), "-", calls++);
    file.fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file.fd >= 0) return name;
    // A killed process that had our number may have left the name behind: take the next one.
    if (errno != EEXIST) fail_writing(path, errno);
  }
}

}  // namespace

std::string file_problem(const char* what, const std::filesystem::path& path, int error) {
  return str(what, " ", path.string(), ": ", reason(error), "; ", advice_for_writing(error));
}

void fail_file(const char* what, const std::filesystem::path& path, int error) {
  throw InputError(file_problem(what, path, error));
}

namespace {

// Gives a file a name that nothing has yet: 0, or EEXIST, or another errno.
int name_new_file(const std::string& temporary, const std::filesystem::path& path) {
  if (::link(temporary.c_str(), path.c_str()) == 0) {
    ::unlink(temporary.c_str());
    return 0;
  }
  if (errno == EEXIST) return EEXIST;
  // A file system without links: the name is taken first, and the file moved onto it.
  const Descriptor claim{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)};
  if (claim.fd < 0) return errno;
  return ::rename(temporary.c_str(), path.c_str()) == 0 ? 0 : errno;
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes,
                           IfThere if_there) {
  // rename(2) would also replace a device such as /dev/null.
  struct stat old {};
  if (::stat(path.c_str(), &old) == 0 && !S_ISREG(old.st_mode)) {
    fail_input("cannot write ", path.string(), ": it is ",
               S_ISDIR(old.st_mode) ? "a folder" : "not a regular file", "; choose another name");
  }

  Descriptor file;
  const std::string temporary = create_temporary(path, file);
  int error = write_all(file.fd, bytes);
  if (error == 0 && ::fsync(file.fd) != 0) error = errno;
  // Some file systems report a full disk only when the file is closed.
  if (::close(file.fd) != 0 && error == 0) error = errno;
  file.fd = -1;
  if (error == 0 && if_there == IfThere::refuse)
    error = name_new_file(temporary, path);
  else if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0)
    error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    if (error == EEXIST) fail_input(path.string(), " exists already: choose another name");
    fail_writing(path, error);
  }

  // The new name is an entry of the folder, which has to reach the disk as well. The file itself is
  // complete by now, and not every file system can sync a folder, so a failure here is no error.
  const std::filesystem::path parent = path.parent_path();
  const Descriptor folder{::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_CLOEXEC)};
  if (folder.fd >= 0) ::fsync(folder.fd);
}

std::string read_file(const std::filesystem::path& path, size_t max_bytes) {
  // A pipe would wait for somebody who writes, and a device may never end.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat info {};
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) {
    const int error = errno;
    fail_input("cannot read ", path.string(), ": ", reason(error), "; ",
               error == EACCES                      ? "check its permissions"
               : error == EMFILE || error == ENFILE ? advice_for_writing(error)
                                                    : "check the name");
  }
  if (S_ISDIR(info.st_mode))
    fail_input("cannot read ", path.string(), ": it is a folder; name a file in it");
  if (!S_ISREG(info.st_mode))
    fail_input("cannot read ", path.string(), ": it is no regular file, but ",
               S_ISFIFO(info.st_mode)   ? "a pipe"
               : S_ISSOCK(info.st_mode) ? "a socket"
                                        : "a device",
               "; name a file");
  const auto fail_size = [&] {
    fail_input("cannot read ", path.string(), ": it holds more than ", max_bytes,
               " bytes, the most that is read; is it the right file?");
  };
  const size_t expected = size_t(info.st_size);
  if (expected > max_bytes) fail_size();

  // A file may grow while it is read: read until the end.
  std::string bytes;
  size_t filled = 0;
  for (;;) {
    if (filled == bytes.size()) bytes.resize(std::max(expected + 1, filled + filled / 2 + 4096));
    const ssize_t got = ::read(file.fd, bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_input("cannot read ", path.string(), ": ", reason(errno), "; read it again");
    if (got == 0) break;
    filled += size_t(got);
    if (filled > max_bytes) fail_size();
  }
  bytes.resize(filled);
  return bytes;
}

}  // namespace focus
