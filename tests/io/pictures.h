#pragma once
// Small pictures for tests, encoded without the code under test.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/io/crc.h"

namespace octet::testing {

inline std::string big(uint32_t v, int bytes = 4) {
  std::string s;
  for (int i = bytes; i-- > 0;) s += static_cast<char>(v >> 8 * i & 255);
  return s;
}
inline std::string little(uint32_t v, int bytes = 4) {
  std::string s;
  for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> 8 * i & 255);
  return s;
}

inline std::string png_chunk(const std::string& tagged) {
  return big(static_cast<uint32_t>(tagged.size() - 4)) + tagged + big(crc32(tagged));
}

// A PNG of these rows, each with its filter byte before it. `more`: chunks between IHDR and IDAT.
inline std::string png_of_rows(int w, int h, int depth, int colour_type, const std::string& rows,
                               bool interlaced = false, const std::string& more = "") {
  // A zlib stream of one stored block (so of at most 65,535 bytes), and its Adler-32.
  uint32_t low = 1, high = 0;
  for (unsigned char byte : rows) {
    low = (low + byte) % 65521;
    high = (high + low) % 65521;
  }
  auto length = static_cast<uint32_t>(rows.size());
  std::string packed =
      "\x78\x01\x01" + little(length, 2) + little(~length, 2) + rows + big(high << 16 | low);
  return std::string("\x89PNG\r\n\x1a\n") +
         png_chunk("IHDR" + big(static_cast<uint32_t>(w)) + big(static_cast<uint32_t>(h)) +
                   static_cast<char>(depth) + static_cast<char>(colour_type) +
                   std::string(2, '\0') + static_cast<char>(interlaced)) +
         more + png_chunk("IDAT" + packed) + png_chunk("IEND");
}

// An 8-bit PNG of w x h pixels with 1 (gray), 3 (RGB) or 4 (RGBA) interleaved channels, row by row.
inline std::string png(int w, int h, int channels, const std::vector<uint8_t>& pixels) {
  std::string rows;
  auto stride = static_cast<size_t>(w * channels);
  for (size_t y = 0; y < static_cast<size_t>(h); ++y) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(pixels.data()) + y * stride, stride);
  }
  return png_of_rows(w, h, 8, channels == 1 ? 0 : channels == 3 ? 2 : 6, rows);
}

// A baseline JPEG of blocks of 8 x 8 equal pixels. levels[b][c] is component c of block b, row by
// row: 0, 8, 16 ... 248. Components: 1 (gray), 3 (Y, Cb, Cr) or 4 (inks, as Adobe stores them: 255
// is none).
class JpegOfBlocks {
 public:
  std::string extra;           // segments before the picture
  std::string huffman_counts;  // of the DC table; empty: right ones
  bool arithmetic = false;

  JpegOfBlocks(int blocks_wide, int blocks_high, std::vector<std::vector<int>> levels)
      : w_(blocks_wide), h_(blocks_high), levels_(std::move(levels)) {}

  std::string bytes() const {
    auto segment = [](char marker, const std::string& body) {
      return std::string("\xff") + marker + big(static_cast<uint32_t>(body.size() + 2), 2) + body;
    };
    const size_t n = levels_[0].size();
    std::string frame = std::string("\x08") + big(static_cast<uint32_t>(8 * h_), 2) +
                        big(static_cast<uint32_t>(8 * w_), 2) + static_cast<char>(n);
    std::string scan(1, static_cast<char>(n));
    for (size_t c = 1; c <= n; ++c) {
      frame += std::string{static_cast<char>(c), 0x11, 0};
      scan += std::string{static_cast<char>(c), 0};
    }
    scan += std::string("\0\x3f\0", 3);
    // DC: the codes of 4 bits 0000..1000 stand for differences of 0 to 8 bits. AC: the code 0 ends
    // the block.
    std::string counts = huffman_counts.empty()
                             ? std::string("\0\0\0\x09", 4) + std::string(12, '\0')
                             : huffman_counts;
    std::string symbols("\0\1\2\3\4\5\6\7\x08", 9);
    std::string out = "\xff\xd8";
    if (n == 4) out += segment('\xee', std::string("Adobe\0\x64\0\0\0\0\0", 12));
    out += extra +
           segment('\xdb', std::string(1, '\0') +
                               std::string(64, '\x40'));  // quantized by 64: a DC step is 8 levels
    out += segment(arithmetic ? '\xc9' : '\xc0', frame);
    out += segment('\xc4', std::string(1, '\0') + counts + symbols);
    out += segment('\xc4',
                   std::string(1, '\x10') + "\x01" + std::string(15, '\0') + std::string(1, '\0'));
    out += segment('\xda', scan);
    return out + entropy() + "\xff\xd9";
  }

 private:
  std::string entropy() const {
    std::string bits;
    auto put = [&](int value, int count) {
      for (int i = count; i-- > 0;) bits += static_cast<char>('0' + (value >> i & 1));
    };
    std::vector<int> before(levels_[0].size());
    for (const auto& block : levels_)
      for (size_t c = 0; c < block.size(); ++c) {
        const int dc = (block[c] - 128) / 8, difference = dc - before[c];
        before[c] = dc;
        int size = 0;
        while (std::abs(difference) >> size) ++size;
        put(size, 4);
        put(difference >= 0 ? difference : difference - 1, size);
        put(0, 1);  // no AC
      }
    while (bits.size() % 8) bits += '1';
    std::string out;
    for (size_t i = 0; i < bits.size(); i += 8) {
      out += static_cast<char>(std::stoi(bits.substr(i, 8), nullptr, 2));
      if (out.back() == '\xff') out += '\0';
    }
    return out;
  }
  int w_, h_;
  std::vector<std::vector<int>> levels_;
};

// A 24-bit BMP of the same pixels as png() with 3 channels.
inline std::string bmp(int w, int h, const std::vector<uint8_t>& pixels) {
  std::string rows;
  for (int y = h; y-- > 0;) {  // bottom to top, blue first, padded to 4 bytes
    for (int x = 0; x < w; ++x)
      for (int c = 2; c >= 0; --c)
        rows += static_cast<char>(pixels[static_cast<size_t>((y * w + x) * 3 + c)]);
    rows.resize((rows.size() + 3) / 4 * 4);
  }
  auto u = [](int v) { return static_cast<uint32_t>(v); };
  return "BM" + little(static_cast<uint32_t>(54 + rows.size()), 4) + little(0, 4) + little(54, 4) +
         little(40, 4) + little(u(w), 4) + little(u(h), 4) + little(1, 2) + little(24, 2) +
         std::string(24, '\0') + rows;
}

// w x h pixels of one colour.
inline std::vector<uint8_t> plain(int w, int h, std::vector<uint8_t> colour) {
  std::vector<uint8_t> pixels;
  for (int i = 0; i < w * h; ++i) pixels.insert(pixels.end(), colour.begin(), colour.end());
  return pixels;
}

}  // namespace octet::testing
