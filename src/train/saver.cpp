#include "train/saver.h"

#include <algorithm>

namespace focus {

Saver::Saver(std::function<void(const std::vector<Item>&)> write)
    : write_(std::move(write)), thread_([this] { work(); }) {}

Saver::~Saver() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool Saver::on_its_way(size_t run) const {
  const auto is = [run](const Item& item) { return item.run == run; };
  return std::any_of(waiting_.begin(), waiting_.end(), is) ||
         std::any_of(writing_.begin(), writing_.end(), is);
}

void Saver::put(Item item) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || !on_its_way(item.run); });
  if (error_) std::rethrow_exception(error_);
  waiting_.push_back(std::move(item));
  changed_.notify_all();
}

void Saver::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || (waiting_.empty() && writing_.empty()); });
  if (error_) std::rethrow_exception(error_);
}

void Saver::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return over_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    writing_.swap(waiting_);
    lock.unlock();
    std::exception_ptr error;
    try {
      write_(writing_);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    writing_.clear();
    error_ = error;
    changed_.notify_all();
    if (error_) return;
  }
}

}  // namespace focus
