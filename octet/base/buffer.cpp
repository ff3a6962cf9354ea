#include "octet/base/buffer.h"

#include <cstdlib>
#include <cstring>

#include "octet/base/check_impl.h"

namespace octet {

Buffer Buffer::allocate(size_t bytes) {
  OCTET_CHECK(bytes < (size_t{1} << 47), invalid_argument, "cannot allocate {} bytes", bytes);
  size_t total = (bytes + kBufferSlack + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, total);
  OCTET_CHECK(memory, io, "out of memory: {} bytes", bytes);
  std::memset(static_cast<char*>(memory) + bytes, 0, total - bytes);
  Buffer result;
  result.data_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); });
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
