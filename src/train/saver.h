// Writes what finished epochs leave behind while the next ones are computed.
//
// A device makes an epoch in less time than a disk may need to keep ten checkpoints. Whoever
// computes hands over copies and goes on; at most one epoch of each run is on its way to the disk.
// A kill loses that one and what is not evaluated yet: the epoch under way, and on a device perhaps
// the one before it (scheduler.h).
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "files/metrics.h"
#include "files/safetensors.h"

namespace focus {

class Saver {
 public:
  struct Item {
    size_t run = 0;
    std::vector<EpochMetrics> rows = {};  // of whole epochs, since the last item
    std::optional<Safetensors> checkpoint = {};
    std::vector<const char*> copies = {};  // of the checkpoint, by other names: "best"
    std::string outcome = {};              // how the run ended; empty: it has not, or nobody asks
  };

  // `write` is called by another thread, with all that has come since the last call; never twice at
  // the same time.
  explicit Saver(std::function<void(const std::vector<Item>&)> write);
  ~Saver();  // waits until all is written; call finish() first to hear of errors
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Waits until what came before of the same run is written. Throws what `write` has thrown.
  void put(Item item);
  // Waits until all is written, or throws likewise.
  void finish();

 private:
  void work();
  bool on_its_way(size_t run) const;

  std::function<void(const std::vector<Item>&)> write_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Item> waiting_, writing_;
  std::exception_ptr error_;
  bool over_ = false;
  std::thread thread_;  // the last member: it needs the others
};

}  // namespace focus
