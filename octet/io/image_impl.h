#pragma once
// The decoders behind read_image, one per format. Each is the only file that knows its library.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace octet::image_impl {

// What a picture may be. A small file must not cost much memory: a picture larger than kFreePixels
// has at least one byte in the file for kMaxPixelsPerByte pixels (JPEG needs one for 256, PNG in 8
// bits for 1,032).
constexpr int64_t kMaxPixels = int64_t{1} << 27;
constexpr int64_t kFreePixels = int64_t{1} << 24;
constexpr int64_t kMaxPixelsPerByte = 512;

struct File {
  const uint8_t* data;
  size_t bytes;
  const std::string& name;  // what errors call it
};

// Row by row from the top, `channels` bytes to a pixel: 1 (gray) or 3 (RGB).
struct Pixels {
  int64_t width = 0, height = 0;
  int channels = 3;
  std::vector<uint8_t> data;
};

// Memory for a picture of this size, after the limits were checked. Error unsupported beyond
// kMaxPixels, corrupt if the file is too small for the picture or a side is 0.
Pixels make_pixels(const File& file, int64_t width, int64_t height, int channels);

// Errors, naming the file: corrupt for anything damaged or truncated, unsupported for kinds that
// are not read.
Pixels decode_jpeg(const File& file);
Pixels decode_png(const File& file);
Pixels decode_bmp(const File& file);

}  // namespace octet::image_impl
