// Whole files: after a failed or killed write, the old file is there and nothing else.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "error.h"
#include "files/atomic_file.h"

using namespace focus;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / str("focus-test-files-", ::getpid());
  Folder() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
  auto files() const { return std::distance(fs::directory_iterator(path), {}); }
};

}  // namespace

TEST_CASE("atomic file: replaces, and any bytes come back") {
  const Folder folder;
  const fs::path path = folder.path / "a file";
  const std::string bytes("zero \0 and \xff", 12);
  write_file_atomically(path, "an older and longer text");
  write_file_atomically(path, bytes);
  CHECK(read_file(path, bytes.size()) == bytes);
  CHECK_THROWS_AS(read_file(path, bytes.size() - 1), InputError);
  write_file_atomically(path, "");
  CHECK(read_file(path, 0).empty());
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: a disk that fills up leaves the old file") {
  const Folder folder;
  const fs::path path = folder.path / "f";
  write_file_atomically(path, "old");
  // A limit on the size of files makes write(2) fail after some bytes, as a full disk does.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{10000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  std::string message;
  try {
    write_file_atomically(path, std::string(20000, 'x'));
  } catch (const InputError& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(message == "cannot write " + path.string() +
                       ": File too large; free some space or choose another folder");
  CHECK(read_file(path, 100) == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("atomic file: folders that cannot be written") {
  const Folder folder;
  CHECK_THROWS_AS(write_file_atomically(folder.path / "none" / "f", ""), InputError);
  CHECK_THROWS_AS(write_file_atomically(folder.path / std::string(300, 'n'), ""), InputError);
  write_file_atomically(folder.path / "f", "");
  CHECK_THROWS_AS(write_file_atomically(folder.path / "f" / "g", ""), InputError);
  if (::geteuid() != 0) {  // the superuser may write everywhere
    fs::permissions(folder.path, fs::perms::owner_read | fs::perms::owner_exec);
    CHECK_THROWS_AS(write_file_atomically(folder.path / "f", "x"), InputError);
    fs::permissions(folder.path, fs::perms::owner_all);
  }
}

TEST_CASE("atomic file: a kill leaves the old text or the new one") {
  const Folder folder;
  const fs::path path = folder.path / "f";
  const std::string texts[] = {std::string(300000, 'a'), std::string(200000, 'b')};
  write_file_atomically(path, texts[0]);
  for (int attempt = 0; attempt < 8; ++attempt) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 1;; ++i) write_file_atomically(path, texts[i % 2]);
    }
    ::usleep(useconds_t(700 * attempt));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string found = read_file(path, 1000000);
    CHECK((found == texts[0] || found == texts[1]));
  }
}
