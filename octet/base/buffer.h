#pragma once
// Blocks of bytes behind tensors and packed weights.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace octet {

// Every buffer starts on a 64-byte boundary and has at least this many readable bytes after its
// end, so that kernels may load a whole vector at the last element. What those bytes hold is never
// used.
inline constexpr size_t kBufferSlack = 64;

// A shared, sized block of memory. Copies share the block.
class Buffer {
 public:
  Buffer() = default;

  // Uninitialised memory of `bytes` (+ slack, zeroed).
  static Buffer allocate(size_t bytes);

  // Wraps memory that `owner` keeps alive (a mapped file, a user's array). The slack rule is the
  // caller's to keep.
  static Buffer wrap(void* data, size_t bytes, std::shared_ptr<void> owner);

  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  explicit operator bool() const { return data_ != nullptr; }
  // Whether no copy shares the block, so that nobody else can read or write it. False of none.
  bool is_only_one() const {
    const bool only = data_.use_count() == 1;
    std::atomic_thread_fence(std::memory_order_acquire);  // after what the last copy's owner did
    return only;
  }

 private:
  std::shared_ptr<std::byte> data_;
  size_t bytes_ = 0;
};

// While one lives, large blocks that are freed are kept for the next allocation of their size: the
// steps of a training allocate the same blocks over and over, and getting fresh pages from the
// system costs more than using them. At most 512 MiB are kept; the last one that dies gives them
// back. Copies count as further ones.
class KeepFreedBlocks {
 public:
  KeepFreedBlocks();
  KeepFreedBlocks(const KeepFreedBlocks&) : KeepFreedBlocks() {}
  KeepFreedBlocks& operator=(const KeepFreedBlocks&) = default;
  ~KeepFreedBlocks();
};

}  // namespace octet
