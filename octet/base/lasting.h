#pragma once
// Memory that lasts as long as a model.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "octet/base/buffer.h"

namespace octet {

// As Buffer::allocate, for what is read again and again (packed weights, the memory of a program's runs): parts of larger blocks
// that the system may back with huge pages, which costs hundreds of times fewer page faults and fewer TLB misses. A larger block
// lives as long as one of its parts. Thread-safe.
Buffer allocate_lasting(size_t bytes);

// While one exists, allocate_lasting takes its larger blocks from it, as far as they go. The system clears memory when it is first
// touched, which takes as long as filling it: a thread with nothing better to do may have that done before.
class LastingRoom {
 public:
  // For about as many bytes, or somewhat less.
  explicit LastingRoom(size_t bytes);
  ~LastingRoom();
  LastingRoom(const LastingRoom&) = delete;

  int64_t pages() const;
  // Has page 0 <= i < pages() cleared, whatever is there by now. Thread-safe.
  void touch(int64_t page) const;

 private:
  std::vector<std::shared_ptr<std::byte>> blocks_;
};

}  // namespace octet
