#include "octet/base/lasting.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr size_t kHugePage = size_t{2} << 20, kBlock = 4 * kHugePage, kSmall = size_t{32} << 10;

// The block that parts are cut from now.
struct Block {
  std::mutex mutex;
  std::weak_ptr<std::byte> memory;
  size_t used = 0, size = 0;
  std::vector<std::shared_ptr<std::byte>> ready;  // of kBlock bytes, to be the next
};
Block& block() {
  static Block& b = *new Block;
  return b;
}

std::shared_ptr<std::byte> allocate_block(size_t size) {
  std::shared_ptr<std::byte> memory(static_cast<std::byte*>(std::aligned_alloc(kHugePage, size)),
                                    std::free);
  OCTET_CHECK(memory, io, "out of memory: {} bytes", size);
  ::madvise(memory.get(), size, MADV_HUGEPAGE);  // may refuse: the pages are small then
  return memory;
}

}  // namespace

LastingRoom::LastingRoom(size_t bytes) {
  for (size_t i = 0; i < bytes / kBlock; ++i) blocks_.push_back(allocate_block(kBlock));
  Block& b = block();
  std::lock_guard lock(b.mutex);
  b.ready.insert(b.ready.end(), blocks_.begin(), blocks_.end());
}

LastingRoom::~LastingRoom() {
  Block& b = block();
  std::lock_guard lock(b.mutex);
  std::erase_if(b.ready, [&](const auto& memory) {
    return std::find(blocks_.begin(), blocks_.end(), memory) != blocks_.end();
  });
}

int64_t LastingRoom::pages() const {
  return static_cast<int64_t>(blocks_.size() * (kBlock / kHugePage));
}

void LastingRoom::touch(int64_t page) const {
  constexpr int64_t kPages = kBlock / kHugePage;
#ifdef MADV_POPULATE_WRITE
  ::madvise(blocks_[static_cast<size_t>(page / kPages)].get() +
                static_cast<size_t>(page % kPages) * kHugePage,
            kHugePage, MADV_POPULATE_WRITE);
#endif
}

Buffer allocate_lasting(size_t bytes) {
  if (bytes < kSmall || bytes >= (size_t{1} << 47)) return Buffer::allocate(bytes);
  const size_t total = (bytes + kBufferSlack + 63) / 64 * 64;
  Block& b = block();
  std::lock_guard lock(b.mutex);
  std::shared_ptr<std::byte> memory = b.memory.lock();
  if (!memory || b.size - b.used < total) {
    const size_t size = std::max(kBlock, (total + kHugePage - 1) / kHugePage * kHugePage);
    if (size == kBlock && !b.ready.empty()) {
      memory = std::move(b.ready.back());
      b.ready.pop_back();
    } else {
      memory = allocate_block(size);
    }
    b.memory = memory;
    b.used = 0;
    b.size = size;
  }
  Buffer result = Buffer::wrap(memory.get() + b.used, bytes, memory);
  std::memset(result.data() + bytes, 0, total - bytes);
  b.used += total;
  return result;
}

}  // namespace octet
