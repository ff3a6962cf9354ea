#include "octet/io/image.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <memory>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"

// The decoder is compiled into this file alone and its symbols stay here.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace octet {
namespace {

constexpr int64_t kMaxPixels = int64_t{1} << 28;

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
void resize_plane(const T* in, int64_t in_w, T* out, const std::vector<Tap>& rows, const std::vector<Tap>& columns) {
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

Tensor decode_image(const void* data, size_t bytes, int64_t channels, const std::string& name) {
  OCTET_CHECK(channels == 1 || channels == 3, invalid_argument, "{}: {} channels; expected 3 (RGB) or 1 (gray)", name,
              channels);
  OCTET_CHECK(bytes <= INT_MAX, unsupported, "{}: {} bytes; pictures of 2 GiB or more are not read", name, bytes);
  const auto* file = static_cast<const stbi_uc*>(data);
  int size = static_cast<int>(bytes), w = 0, h = 0, in_file = 0;
  auto why = [] {
    const char* reason = stbi_failure_reason();
    return reason ? reason : "unknown reason";
  };
  OCTET_CHECK(stbi_info_from_memory(file, size, &w, &h, &in_file), corrupt,
              "{}: not a JPEG, PNG or BMP picture, or damaged ({}); convert or remove it", name, why());
  OCTET_CHECK(w > 0 && h > 0 && int64_t{w} * h <= kMaxPixels, unsupported,
              "{}: a picture of {}x{} pixels; expected at most 2^28 pixels; make it smaller", name, w, h);
  std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(file, size, &w, &h, &in_file, static_cast<int>(channels)), stbi_image_free);
  OCTET_CHECK(pixels, corrupt, "{}: the picture cannot be decoded ({}); convert or remove it", name, why());
  Tensor image = Tensor::empty({channels, h, w}, DType::uint8);
  auto* out = image.data<uint8_t>();
  const stbi_uc* in = pixels.get();
  int64_t area = int64_t{h} * w;
  for (int64_t i = 0; i < area; ++i)
    for (int64_t c = 0; c < channels; ++c) out[c * area + i] = *in++;
  return image;
}

Tensor read_image(const std::filesystem::path& path, int64_t channels) {
  auto file = MappedFile::open(path);
  return decode_image(file->data(), file->size(), channels, path.string());
}

Tensor resize_bilinear(const Tensor& image, int64_t height, int64_t width) {
  OCTET_CHECK(image.dtype() == DType::uint8 || image.dtype() == DType::float32, invalid_argument,
              "resize_bilinear: the image is {}; expected uint8 or float32", to_string(image.dtype()));
  OCTET_CHECK(image.dim() >= 2 && image.size(-1) > 0 && image.size(-2) > 0, invalid_argument,
              "resize_bilinear: the image has shape {}; expected (..., H, W) with H and W of 1 or more",
              to_string(image.shape()));
  OCTET_CHECK(height >= 1 && width >= 1, invalid_argument, "resize_bilinear to {}x{}: expected sizes of 1 or more",
              height, width);
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
      resize_plane(source.data<uint8_t>() + p * h * w, w, result.data<uint8_t>() + p * height * width, rows, columns);
    else
      resize_plane(source.data<float>() + p * h * w, w, result.data<float>() + p * height * width, rows, columns);
  }
  return result;
}

}  // namespace octet
