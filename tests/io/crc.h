#pragma once
// CRC-32 as zip and PNG use it, from its definition (no zlib in the tests).

#include <cstdint>
#include <string>

namespace octet::testing {

inline uint32_t crc32(const std::string& bytes) {
  uint32_t crc = 0xffffffff;
  for (unsigned char byte : bytes) {
    crc ^= byte;
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

}  // namespace octet::testing
