#include "octet/base/buffer.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr size_t kLarge = size_t{64} << 10, kMostKept = size_t{512} << 20;

// Freed blocks by size. Never destroyed: buffers of static objects may outlive it otherwise.
struct Freed {
  std::atomic<int> keepers{0};
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> blocks;
  size_t bytes = 0;
};
Freed& freed() {
  static Freed& f = *new Freed;
  return f;
}

void* allocate_block(size_t total) {
  Freed& f = freed();
  if (total >= kLarge && f.keepers > 0) {
    std::lock_guard lock(f.mutex);
    auto it = f.blocks.find(total);
    if (it != f.blocks.end() && !it->second.empty()) {
      void* p = it->second.back();
      it->second.pop_back();
      f.bytes -= total;
      return p;
    }
  }
  return std::aligned_alloc(64, total);
}

void free_block(void* p, size_t total) {
  Freed& f = freed();
  if (total >= kLarge && f.keepers > 0) {
    std::lock_guard lock(f.mutex);
    if (f.keepers > 0 && f.bytes + total <= kMostKept) {
      f.blocks[total].push_back(p);
      f.bytes += total;
      return;
    }
  }
  std::free(p);
}

}  // namespace

KeepFreedBlocks::KeepFreedBlocks() { ++freed().keepers; }
KeepFreedBlocks::~KeepFreedBlocks() {
  Freed& f = freed();
  std::lock_guard lock(f.mutex);
  if (--f.keepers > 0) return;
  for (auto& [size, list] : f.blocks)
    for (void* p : list) std::free(p);
  f.blocks.clear();
  f.bytes = 0;
}

Buffer Buffer::allocate(size_t bytes) {
  OCTET_CHECK(bytes < (size_t{1} << 47), invalid_argument, "cannot allocate {} bytes", bytes);
  size_t total = (bytes + kBufferSlack + 63) / 64 * 64;
  void* memory = allocate_block(total);
  OCTET_CHECK(memory, io, "out of memory: {} bytes", bytes);
  std::memset(static_cast<char*>(memory) + bytes, 0, total - bytes);
  Buffer result;
  result.data_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                            [total](std::byte* p) { free_block(p, total); });
  result.bytes_ = bytes;
  return result;
}

Buffer Buffer::wrap(void* data, size_t bytes, std::shared_ptr<void> owner) {
  Buffer result;
  result.data_ = std::shared_ptr<std::byte>(std::move(owner), static_cast<std::byte*>(data));
  result.bytes_ = bytes;
  return result;
}

}  // namespace octet
