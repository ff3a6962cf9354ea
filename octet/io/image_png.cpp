// PNG through libpng. Its errors come by longjmp: between setjmp and the library's calls nothing
// may have a destructor.
#include <png.h>

#include <csetjmp>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/io/image_impl.h"

namespace octet::image_impl {
namespace {

struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  jmp_buf back{};
  char message[200] = "";
  const uint8_t* at;
  size_t left;

  explicit Decoder(const File& file);
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& d = *static_cast<Decoder*>(png_get_error_ptr(png));
  std::strncpy(d.message, message, sizeof d.message - 1);
  longjmp(d.back, 1);
}

void on_warning(png_structp, png_const_charp) {}  // of parts that say nothing about the pixels

void read_bytes(png_structp png, png_bytep to, size_t bytes) {
  auto& d = *static_cast<Decoder*>(png_get_io_ptr(png));
  if (bytes > d.left) png_error(png, "the file ends early");
  std::memcpy(to, d.at, bytes);
  d.at += bytes;
  d.left -= bytes;
}

Decoder::Decoder(const File& file) : at(file.data), left(file.bytes) {
  png = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
  if (png) info = png_create_info_struct(png);
  OCTET_CHECK(png && info, internal, "{}: libpng does not start", file.name);
}

// False after an error, which is in `message`. Whatever the file has, pixels come as gray, RGB or
// numbers of palette colours in 8 bits.
bool read_header(Decoder& d) {
  if (setjmp(d.back)) return false;
  png_set_read_fn(d.png, &d, read_bytes);
  // Only what makes the pixels is read: no profiles, texts, gamma or transparency.
  png_set_keep_unknown_chunks(d.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(d.png, d.info);
  png_set_strip_16(d.png);
  png_set_strip_alpha(d.png);
  if (png_get_color_type(d.png, d.info) == PNG_COLOR_TYPE_GRAY)
    png_set_expand_gray_1_2_4_to_8(d.png);
  else
    png_set_packing(d.png);
  return true;
}

bool read_rows(Decoder& d, uint8_t* out, size_t stride, int64_t height) {
  if (setjmp(d.back)) return false;
  const int passes = png_set_interlace_handling(d.png);
  png_read_update_info(d.png, d.info);
  if (png_get_rowbytes(d.png, d.info) != stride)
    png_error(d.png, "rows of another length than its header says");
  for (int pass = 0; pass < passes; ++pass)
    for (int64_t y = 0; y < height; ++y)
      png_read_row(d.png, out + static_cast<size_t>(y) * stride, nullptr);
  png_read_end(d.png, nullptr);
  return true;
}

}  // namespace

Pixels decode_png(const File& file) {
  Decoder d(file);
  constexpr const char* kDamaged =
      "{}: the PNG picture cannot be decoded: {}; convert or remove it";
  OCTET_CHECK(read_header(d), corrupt, kDamaged, file.name, d.message);
  const int64_t width = png_get_image_width(d.png, d.info),
                height = png_get_image_height(d.png, d.info);
  const int type = png_get_color_type(d.png, d.info);
  const bool palette = type == PNG_COLOR_TYPE_PALETTE;
  Pixels pixels =
      make_pixels(file, width, height, palette || !(type & PNG_COLOR_MASK_COLOR) ? 1 : 3);
  OCTET_CHECK(
      read_rows(d, pixels.data.data(), static_cast<size_t>(width) * pixels.channels, height),
      corrupt, kDamaged, file.name, d.message);
  if (!palette) return pixels;
  png_colorp colours = nullptr;
  int count = 0;
  png_get_PLTE(d.png, d.info, &colours, &count);
  Pixels rgb = make_pixels(file, width, height, 3);
  uint8_t* out = rgb.data.data();
  for (uint8_t index : pixels.data) {
    OCTET_CHECK(index < count, corrupt, kDamaged, file.name,
                fmt::format("a pixel has colour {} of {}", index, count));
    *out++ = colours[index].red;
    *out++ = colours[index].green;
    *out++ = colours[index].blue;
  }
  return rgb;
}

}  // namespace octet::image_impl
