// JPEG through libjpeg-turbo. Its errors come by longjmp: between setjmp and the library's calls
// nothing may have a destructor.
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it

#include <jerror.h>
#include <jpeglib.h>

#include "octet/base/check_impl.h"
#include "octet/io/image_impl.h"

namespace octet::image_impl {
namespace {

constexpr int kMaxScans = 100;  // each goes over the whole picture; encoders write about 10
// Of the library itself: progressive pictures are kept as coefficients.
constexpr long kMaxMemory = 1L << 30;

struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  jmp_buf back{};
  char message[JMSG_LENGTH_MAX] = "";

  Decoder() { info.err = jpeg_std_error(&errors); }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
};

Decoder& decoder_of(j_common_ptr info) { return *static_cast<Decoder*>(info->client_data); }

void on_error(j_common_ptr info) {
  Decoder& d = decoder_of(info);
  info->err->format_message(info, d.message);
  longjmp(d.back, 1);
}

// Warnings say that data is missing or contradicts itself and that something was made up instead.
// The two exceptions: bytes that were passed over between segments, which many encoders leave, and
// a newer version number.
void on_message(j_common_ptr info, int level) {
  int code = info->err->msg_code;
  if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_JFIF_MAJOR) on_error(info);
}

void on_progress(j_common_ptr info) {
  Decoder& d = decoder_of(info);
  if (d.info.input_scan_number <= kMaxScans) return;
  std::snprintf(d.message, sizeof d.message, "more than %d scans", kMaxScans);
  longjmp(d.back, 1);
}

// False after an error, which is in `message`.
bool read_header(Decoder& d, const File& file) {
  if (setjmp(d.back)) return false;
  d.info.client_data = &d;
  d.errors.error_exit = on_error;
  d.errors.emit_message = on_message;
  d.progress.progress_monitor = on_progress;
  jpeg_create_decompress(&d.info);
  d.info.progress = &d.progress;
  d.info.mem->max_memory_to_use = kMaxMemory;
  jpeg_mem_src(&d.info, file.data, static_cast<unsigned long>(file.bytes));
  jpeg_read_header(&d.info, TRUE);
  return true;
}

// Rows of d.info.output_components bytes a pixel, `stride` apart.
bool read_rows(Decoder& d, uint8_t* out, size_t stride) {
  if (setjmp(d.back)) return false;
  jpeg_start_decompress(&d.info);
  while (d.info.output_scanline < d.info.output_height) {
    JSAMPROW row = out + d.info.output_scanline * stride;
    jpeg_read_scanlines(&d.info, &row, 1);
  }
  jpeg_finish_decompress(&d.info);  // reads on to the end of the picture
  return true;
}

}  // namespace

Pixels decode_jpeg(const File& file) {
  Decoder d;
  OCTET_CHECK(read_header(d, file), corrupt,
              "{}: the JPEG picture cannot be decoded: {}; convert or remove it", file.name,
              d.message);
  OCTET_CHECK(!d.info.arith_code, unsupported,
              "{}: a JPEG picture with arithmetic coding; convert it", file.name);
  const bool gray = d.info.jpeg_color_space == JCS_GRAYSCALE;
  const bool inks = d.info.jpeg_color_space == JCS_CMYK || d.info.jpeg_color_space == JCS_YCCK;
  d.info.out_color_space = gray ? JCS_GRAYSCALE : inks ? JCS_CMYK : JCS_RGB;
  const auto width = static_cast<int64_t>(d.info.image_width),
             height = static_cast<int64_t>(d.info.image_height);
  Pixels pixels = make_pixels(file, width, height, gray ? 1 : 3);
  std::vector<uint8_t> four;
  if (inks) four.resize(static_cast<size_t>(width * height * 4));
  OCTET_CHECK(inks ? read_rows(d, four.data(), static_cast<size_t>(width * 4))
                   : read_rows(d, pixels.data.data(), static_cast<size_t>(width * pixels.channels)),
              corrupt, "{}: the JPEG picture cannot be decoded: {}; convert or remove it",
              file.name, d.message);
  if (inks) {
    // Adobe's programs, which make nearly all such files and mark them, store how much light
    // passes, not how much ink there is.
    const int flip = d.info.saw_Adobe_marker ? 0 : 255;
    for (size_t i = 0; i < four.size() / 4; ++i)
      for (size_t c = 0; c < 3; ++c)
        pixels.data[i * 3 + c] =
            static_cast<uint8_t>(((four[i * 4 + c] ^ flip) * (four[i * 4 + 3] ^ flip) + 127) / 255);
  }
  return pixels;
}

}  // namespace octet::image_impl
