#pragma once
// A short text that differs where data does: for telling whether two runs were given the same
// network, samples or options. Not for files, whose checksums are stronger (docs/file-format.md).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace octet {

// FNV-1a over words of 8 bytes, with a shift between them.
class Digest {
 public:
  // A block of bytes; the last word of each is filled up with zeros.
  Digest& add(const void* data, size_t bytes);
  Digest& add(std::string_view text) { return add(text.data(), text.size()); }
  // 16 hexadecimal digits.
  std::string text() const;

 private:
  uint64_t hash_ = 14695981039346656037u;
};

}  // namespace octet
