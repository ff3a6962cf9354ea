#include "octet/io/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/io/image_impl.h"

namespace octet {
namespace {

// One output coordinate: between inputs `low` and `high`, `weight` of the way.
struct Tap {
  int64_t low, high;
  float weight;
};

std::vector<Tap> taps(int64_t in, int64_t out) {
  std::vector<Tap> result(static_cast<size_t>(out));
  double scale = static_cast<double>(in) / static_cast<double>(out);
  for (int64_t i = 0; i < out; ++i) {
    double x = std::max(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
    auto low = std::min(static_cast<int64_t>(x), in - 1);
    result[i] = {low, std::min(low + 1, in - 1), static_cast<float>(x - static_cast<double>(low))};
  }
  return result;
}

template <typename T>
void resize_plane(const T* in, int64_t in_w, T* out, const std::vector<Tap>& rows,
                  const std::vector<Tap>& columns) {
  for (const Tap& r : rows) {
    const T *top = in + r.low * in_w, *bottom = in + r.high * in_w;
    for (const Tap& c : columns) {
      float a = static_cast<float>(top[c.low]), b = static_cast<float>(top[c.high]);
      float d = static_cast<float>(bottom[c.low]), e = static_cast<float>(bottom[c.high]);
      float upper = a + (b - a) * c.weight, lower = d + (e - d) * c.weight;
      float v = upper + (lower - upper) * r.weight;
      if constexpr (std::is_same_v<T, uint8_t>)
        *out++ = static_cast<uint8_t>(std::nearbyint(v));
      else
        *out++ = v;
    }
  }
}

}  // namespace

namespace image_impl {

Pixels make_pixels(const File& file, int64_t width, int64_t height, int channels) {
  OCTET_CHECK(width > 0 && height > 0, corrupt, "{}: a picture of {}x{} pixels", file.name, width,
              height);
  OCTET_CHECK(width <= kMaxPixels / height, unsupported,
              "{}: a picture of {}x{} pixels; expected at most {} in all; make it smaller",
              file.name, width, height, kMaxPixels);
  const int64_t area = width * height;
  OCTET_CHECK(area <= kFreePixels || area / kMaxPixelsPerByte <= static_cast<int64_t>(file.bytes),
              corrupt, "{}: the picture is damaged: {}x{} pixels in a file of {} bytes", file.name,
              width, height, file.bytes);
  return {width, height, channels, std::vector<uint8_t>(static_cast<size_t>(area * channels))};
}

}  // namespace image_impl

namespace {

image_impl::Pixels decode(const image_impl::File& file) {
  auto begins = [&](std::string_view magic) {
    return file.bytes >= magic.size() && std::memcmp(file.data, magic.data(), magic.size()) == 0;
  };
  if (begins("\xff\xd8\xff")) return image_impl::decode_jpeg(file);
  if (begins("\x89PNG\r\n\x1a\n")) return image_impl::decode_png(file);
  if (begins("BM")) return image_impl::decode_bmp(file);
  OCTET_FAIL(corrupt, "{}: not a JPEG, PNG or BMP picture, or damaged; convert or remove it",
             file.name);
}

}  // namespace

Tensor decode_image(const void* data, size_t bytes, int64_t channels, const std::string& name) {
  OCTET_CHECK(channels == 1 || channels == 3, invalid_argument,
              "{}: {} channels; expected 3 (RGB) or 1 (gray)", name, channels);
  const image_impl::Pixels pixels = decode({static_cast<const uint8_t*>(data), bytes, name});
  Tensor image = Tensor::empty({channels, pixels.height, pixels.width}, DType::uint8);
  auto* out = image.data<uint8_t>();
  const uint8_t* in = pixels.data.data();
  const int64_t area = pixels.height * pixels.width;
  if (pixels.channels == 1) {
    for (int64_t c = 0; c < channels; ++c)
      std::memcpy(out + c * area, in, static_cast<size_t>(area));
  } else if (channels == 1) {
    for (int64_t i = 0; i < area; ++i, in += 3)
      out[i] = static_cast<uint8_t>((77 * in[0] + 150 * in[1] + 29 * in[2]) >> 8);
  } else {
    for (int64_t i = 0; i < area; ++i)
      for (int64_t c = 0; c < 3; ++c) out[c * area + i] = *in++;
  }
  return image;
}

Tensor read_image(const std::filesystem::path& path, int64_t channels) {
  auto file = MappedFile::open(path);
  return decode_image(file->data(), file->size(), channels, path.string());
}

Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width) {
  OCTET_CHECK(image.dtype() == DType::uint8 || image.dtype() == DType::float32, invalid_argument,
              "resize_bilinear: the image is {}; expected uint8 or float32",
              to_string(image.dtype()));
  OCTET_CHECK(
      image.dim() >= 2 && image.size(-1) > 0 && image.size(-2) > 0, invalid_argument,
      "resize_bilinear: the image has shape {}; expected (..., H, W) with H and W of 1 or more",
      to_string(image.shape()));
  OCTET_CHECK(height >= 1 && width >= 1, invalid_argument,
              "resize_bilinear to {}x{}: expected sizes of 1 or more", height, width);
  int64_t h = image.size(-2), w = image.size(-1);
  if (h == height && w == width) return image;
  Tensor source = image.contiguous();
  Shape shape = image.shape();
  shape[shape.size() - 2] = height;
  shape[shape.size() - 1] = width;
  Tensor result = Tensor::empty(shape, image.dtype());
  auto rows = taps(h, height), columns = taps(w, width);
  int64_t planes = image.numel() / (h * w);
  for (int64_t p = 0; p < planes; ++p) {
    if (image.dtype() == DType::uint8)
      resize_plane(source.data<uint8_t>() + p * h * w, w,
                   result.data<uint8_t>() + p * height * width, rows, columns);
    else
      resize_plane(source.data<float>() + p * h * w, w, result.data<float>() + p * height * width,
                   rows, columns);
  }
  return result;
}

}  // namespace octet
