#pragma once
// Small pictures for tests, encoded without the code under test.

#include <cstdint>
#include <string>
#include <vector>

#include "tests/io/crc.h"

namespace octet::testing {

// An 8-bit PNG of w x h pixels with 1 (gray), 3 (RGB) or 4 (RGBA) interleaved channels, row by row.
inline std::string png(int w, int h, int channels, const std::vector<uint8_t>& pixels) {
  auto big = [](uint32_t v) {
    std::string s;
    for (int i = 24; i >= 0; i -= 8) s += static_cast<char>(v >> i & 255);
    return s;
  };
  auto chunk = [&](const std::string& tagged) {
    return big(static_cast<uint32_t>(tagged.size() - 4)) + tagged + big(crc32(tagged));
  };
  std::string rows;
  auto stride = static_cast<size_t>(w * channels);
  for (size_t y = 0; y < static_cast<size_t>(h); ++y) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(pixels.data()) + y * stride, stride);
  }
  // A zlib stream of one stored block (so of at most 65,535 bytes), and its Adler-32.
  uint32_t low = 1, high = 0;
  for (unsigned char byte : rows) {
    low = (low + byte) % 65521;
    high = (high + low) % 65521;
  }
  auto length = static_cast<uint32_t>(rows.size());
  std::string packed = "\x78\x01\x01";
  for (uint32_t v : {length, ~length})
    for (int shift : {0, 8}) packed += static_cast<char>(v >> shift & 255);
  packed += rows + big(high << 16 | low);
  char colour = channels == 1 ? 0 : channels == 3 ? 2 : 6;
  return std::string("\x89PNG\r\n\x1a\n") +
         chunk("IHDR" + big(static_cast<uint32_t>(w)) + big(static_cast<uint32_t>(h)) + '\x08' + colour +
               std::string(3, '\0')) +
         chunk("IDAT" + packed) + chunk("IEND");
}

// A 24-bit BMP of the same pixels as png() with 3 channels.
inline std::string bmp(int w, int h, const std::vector<uint8_t>& pixels) {
  auto little = [](uint32_t v, int n) {
    std::string s;
    for (int i = 0; i < n; ++i, v >>= 8) s += static_cast<char>(v & 255);
    return s;
  };
  std::string rows;
  for (int y = h; y-- > 0;) {  // bottom to top, blue first, padded to 4 bytes
    for (int x = 0; x < w; ++x)
      for (int c = 2; c >= 0; --c) rows += static_cast<char>(pixels[static_cast<size_t>((y * w + x) * 3 + c)]);
    rows.resize((rows.size() + 3) / 4 * 4);
  }
  auto u = [](int v) { return static_cast<uint32_t>(v); };
  return "BM" + little(static_cast<uint32_t>(54 + rows.size()), 4) + little(0, 4) + little(54, 4) + little(40, 4) +
         little(u(w), 4) + little(u(h), 4) + little(1, 2) + little(24, 2) + little(0, 24) + rows;
}

// w x h pixels of one colour.
inline std::vector<uint8_t> plain(int w, int h, std::vector<uint8_t> colour) {
  std::vector<uint8_t> pixels;
  for (int i = 0; i < w * h; ++i) pixels.insert(pixels.end(), colour.begin(), colour.end());
  return pixels;
}

}  // namespace octet::testing
