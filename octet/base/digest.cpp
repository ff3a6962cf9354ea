#include "octet/base/digest.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace octet {

Digest& Digest::add(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, p + i, std::min<size_t>(8, bytes - i));
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    hash_ = (hash_ ^ word) * 1099511628211u;
    hash_ ^= hash_ >> 29;
  }
  return *this;
}

std::string Digest::text() const { return fmt::format("{:016x}", hash_); }

}  // namespace octet
