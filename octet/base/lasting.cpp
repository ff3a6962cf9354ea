#include "octet/base/lasting.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr size_t kHugePage = size_t{2} << 20, kBlock = 4 * kHugePage, kSmall = size_t{32} << 10;

// The block that parts are cut from now.
struct Block {
  std::mutex mutex;
  std::weak_ptr<std::byte> memory;
  size_t used = 0, size = 0;
};
Block& block() {
  static Block& b = *new Block;
  return b;
}

}  // namespace

Buffer allocate_lasting(size_t bytes) {
  if (bytes < kSmall || bytes >= (size_t{1} << 47)) return Buffer::allocate(bytes);
  const size_t total = (bytes + kBufferSlack + 63) / 64 * 64;
  Block& b = block();
  std::lock_guard lock(b.mutex);
  std::shared_ptr<std::byte> memory = b.memory.lock();
  if (!memory || b.size - b.used < total) {
    const size_t size = std::max(kBlock, (total + kHugePage - 1) / kHugePage * kHugePage);
    memory = std::shared_ptr<std::byte>(static_cast<std::byte*>(std::aligned_alloc(kHugePage, size)), std::free);
    OCTET_CHECK(memory, io, "out of memory: {} bytes", size);
    ::madvise(memory.get(), size, MADV_HUGEPAGE);  // may refuse: the pages are small then
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
