#pragma once
// Memory that lasts as long as a model.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "octet/base/buffer.h"

namespace octet {

// As Buffer::allocate, for what is read again and again (packed weights, the memory of a program's
// runs): parts of larger blocks that the system may back with huge pages, which costs hundreds of
// times fewer page faults and fewer TLB misses. A larger block lives as long as one of its parts.
// Thread-safe.
Buffer allocate_lasting(size_t bytes);

// While one exists, allocate_lasting takes its larger blocks from it, as far as they go. The system
// clears memory when it is first touched, which takes as long as filling it: a thread with nothing
// better to do may have that done before.
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

// For vectors of such memory: of numbers, which are not set to 0 first.
template <typename T>
struct LastingAllocator {
  using value_type = T;
  LastingAllocator() = default;
  template <typename U>
  LastingAllocator(const LastingAllocator<U>&) {}
  bool operator==(const LastingAllocator&) const { return true; }

  // The buffer that holds the elements lies in front of them.
  static constexpr size_t kFront = 64;
  T* allocate(size_t n) {
    if (n > (size_t{1} << 47) / sizeof(T)) throw std::bad_array_new_length();
    Buffer memory = allocate_lasting(kFront + n * sizeof(T));
    std::byte* front = memory.data();
    new (front) Buffer(std::move(memory));
    return reinterpret_cast<T*>(front + kFront);
  }
  void deallocate(T* data, size_t) {
    auto* front = reinterpret_cast<Buffer*>(reinterpret_cast<std::byte*>(data) - kFront);
    const Buffer memory = std::move(*front);
    front->~Buffer();
  }
  template <typename U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
  template <typename U, typename... Args>
  void construct(U* at, Args&&... args) {
    ::new (static_cast<void*>(at)) U(std::forward<Args>(args)...);
  }
};

}  // namespace octet
