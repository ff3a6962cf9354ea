#pragma once
// .npy and .npz files as bytes, built without the code under test.

#include <cstdint>
#include <initializer_list>
#include <string>

#include "octet/io/byte_order_impl.h"
#include "tests/io/crc.h"

namespace octet::testing {

// A .npy file.
inline std::string npy(const std::string& dict, const std::string& data, int version = 1) {
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i)
    out += static_cast<char>(dict.size() >> 8 * i & 255);
  return out + dict + data;
}
inline std::string npy_header_dict(const std::string& descr, const std::string& shape,
                                   const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
}
template <typename T>
std::string bytes(std::initializer_list<T> values) {
  std::string all(reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T));
  io::little_endian(all.data(), all.size(), sizeof(T));
  return all;
}

// A zip archive of one stored member, with every number that a test may want to bend.
struct Zip {
  std::string name = "a.npy", contents = npy(npy_header_dict("|u1", "(3,)"), "abc"), local_extra,
              central_extra, comment;
  uint32_t crc = 0, packed = 0, size = 0, offset = 0, count = 1;
  uint16_t method = 0, flags = 0;
  bool zip64 = false;

  Zip() { update(); }
  void update() {
    crc = crc32(contents);
    packed = size = static_cast<uint32_t>(contents.size());
  }
  static std::string n(uint64_t v, int width) {
    std::string s;
    for (int i = 0; i < width; ++i, v >>= 8) s += static_cast<char>(v & 255);
    return s;
  }
  std::string str() const {
    std::string sizes = n(crc, 4) + n(packed, 4) + n(size, 4);
    std::string out = "PK\3\4" + n(20, 2) + n(flags, 2) + n(method, 2) + n(0, 4) + sizes +
                      n(name.size(), 2) + n(local_extra.size(), 2) + name + local_extra + contents;
    size_t start = out.size();
    out += "PK\1\2" + n(20, 2) + n(20, 2) + n(flags, 2) + n(method, 2) + n(0, 4) + sizes +
           n(name.size(), 2) + n(central_extra.size(), 2) + n(0, 10) + n(offset, 4) + name +
           central_extra;
    size_t length = out.size() - start;
    if (zip64) {
      size_t end64 = out.size();
      out += "PK\6\6" + n(44, 8) + n(45, 2) + n(45, 2) + n(0, 8) + n(count, 8) + n(count, 8) +
             n(length, 8) + n(start, 8);
      out += "PK\6\7" + n(0, 4) + n(end64, 8) + n(1, 4);
      return out + "PK\5\6" + n(0, 4) + n(0xffff, 2) + n(0xffff, 2) + n(0xffffffff, 4) +
             n(0xffffffff, 4) + n(0, 2);
    }
    return out + "PK\5\6" + n(0, 4) + n(count, 2) + n(count, 2) + n(length, 4) + n(start, 4) +
           n(comment.size(), 2) + comment;
  }
};

}  // namespace octet::testing
