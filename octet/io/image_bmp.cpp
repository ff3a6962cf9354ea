// BMP: uncompressed pixels behind a header of many versions
// (https://learn.microsoft.com/windows/win32/gdi/bitmap-storage). Read by ourselves: no maintained
// library does little else.
#include <algorithm>
#include <bit>

#include "octet/base/check_impl.h"
#include "octet/io/image_impl.h"

namespace octet::image_impl {
namespace {

constexpr size_t kFileHeader = 14, kCoreHeader = 12, kInfoHeader = 40;
constexpr uint32_t kPlain = 0, kMasks = 3, kAlphaMasks = 6;  // values of `compression`

// Numbers of the file, little-endian, each checked against its end.
class Bytes {
 public:
  explicit Bytes(const File& file) : file_(file) {}
  uint32_t get(size_t at, size_t bytes) const {
    OCTET_CHECK(at <= file_.bytes && bytes <= file_.bytes - at, corrupt,
                "{}: the BMP picture is truncated: its header ends early", file_.name);
    uint32_t value = 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | file_.data[at + i];
    return value;
  }
  uint32_t u8(size_t at) const { return get(at, 1); }
  uint32_t u16(size_t at) const { return get(at, 2); }
  uint32_t u32(size_t at) const { return get(at, 4); }
  int64_t i32(size_t at) const { return static_cast<int32_t>(u32(at)); }

 private:
  const File& file_;
};

// Where one colour's bits lie in a pixel of 16 or 32 bits.
struct Mask {
  uint32_t bits = 0;
  int shift = 0, width = 0;

  explicit Mask(uint32_t bits)
      : bits(bits), shift(std::countr_zero(bits)), width(std::popcount(bits)) {}
  // One run of ones.
  bool valid() const { return bits != 0 && std::popcount((bits >> shift) + 1) <= 1; }
  uint8_t value(uint32_t pixel) const {
    uint32_t v = (pixel & bits) >> shift;
    if (width >= 8) return static_cast<uint8_t>(v >> (width - 8));
    uint32_t filled = 0;  // the bits repeated: 0 stays 0 and all ones become 255
    for (int at = 8 - width; at > -width; at -= width) filled |= at >= 0 ? v << at : v >> -at;
    return static_cast<uint8_t>(filled);
  }
};

struct Header {
  int64_t width, height;
  bool top_down = false;
  uint32_t bits = 0, compression = kPlain;
  size_t pixels = 0;   // where they begin
  size_t palette = 0;  // where it begins
  size_t colours = 0, colour_bytes = 4;
  std::vector<Mask> masks;  // red, green, blue; of 16 and 32 bits
};

Header read_header(const File& file) {
  const Bytes in(file);
  Header h;
  h.pixels = in.u32(10);
  const size_t size = in.u32(kFileHeader);
  const bool core = size == kCoreHeader;
  OCTET_CHECK(core || (size >= kInfoHeader && size <= 124), corrupt,
              "{}: a BMP header of {} bytes; expected 12 or 40 to 124", file.name, size);
  const size_t at = kFileHeader + 4;
  h.width = core ? in.u16(at) : in.i32(at);
  h.height = core ? in.u16(at + 2) : in.i32(at + 4);
  h.top_down = h.height < 0;
  if (h.top_down) h.height = -h.height;
  h.bits = in.u16(core ? at + 6 : at + 10);
  if (!core) h.compression = in.u32(at + 12);
  OCTET_CHECK(h.compression == kPlain || h.compression == kMasks || h.compression == kAlphaMasks,
              unsupported, "{}: a compressed BMP picture (kind {}); convert it", file.name,
              h.compression);
  const bool indexed = h.bits == 1 || h.bits == 2 || h.bits == 4 || h.bits == 8,
             masked = h.bits == 16 || h.bits == 32;
  OCTET_CHECK(indexed || masked || h.bits == 24, corrupt,
              "{}: a BMP picture of {} bits a pixel; expected 1, 2, 4, 8, 16, 24 or 32", file.name,
              h.bits);
  h.palette = kFileHeader + size;
  if (masked) {
    std::vector<uint32_t> masks = h.bits == 16 ? std::vector<uint32_t>{0x7c00, 0x3e0, 0x1f}
                                               : std::vector<uint32_t>{0xff0000, 0xff00, 0xff};
    if (h.compression != kPlain)  // in the header, or right behind the shortest one
      for (size_t c = 0; c < 3; ++c) masks[c] = in.u32(kFileHeader + kInfoHeader + 4 * c);
    for (uint32_t bits : masks) {
      h.masks.emplace_back(bits);
      OCTET_CHECK(h.masks.back().valid(), corrupt, "{}: the BMP picture has a colour mask of {:#x}",
                  file.name, bits);
    }
  }
  if (indexed) {
    h.colour_bytes = core ? 3 : 4;
    const size_t used = core ? 0 : in.u32(at + 28), most = size_t{1} << h.bits;
    OCTET_CHECK(used <= most, corrupt, "{}: a BMP palette of {} colours for pixels of {} bits",
                file.name, used, h.bits);
    h.colours = used ? used : most;
  }
  OCTET_CHECK(h.pixels >= h.palette, corrupt,
              "{}: the pixels of the BMP picture begin at byte {}, inside its header", file.name,
              h.pixels);
  // Some files hold fewer colours than they say.
  h.colours = std::min(h.colours, (h.pixels - h.palette) / h.colour_bytes);
  return h;
}

}  // namespace

Pixels decode_bmp(const File& file) {
  const Header h = read_header(file);
  OCTET_CHECK(h.width > 0 && h.height > 0, corrupt, "{}: a BMP picture of {}x{} pixels", file.name,
              h.width, h.height);
  // Sides are below 2^31, so a row has less than 2^36 bytes. The last row's padding may be missing.
  const auto row = static_cast<uint64_t>((h.width * h.bits + 31) / 32 * 4),
             last = static_cast<uint64_t>((h.width * h.bits + 7) / 8);
  const uint64_t room = file.bytes > h.pixels ? file.bytes - h.pixels : 0;
  OCTET_CHECK(
      last <= room && static_cast<uint64_t>(h.height - 1) <= (room - last) / row, corrupt,
      "{}: the BMP picture is truncated: {}x{} pixels of {} bits do not fit in a file of {} bytes",
      file.name, h.width, h.height, h.bits, file.bytes);
  Pixels pixels = make_pixels(file, h.width, h.height, 3);
  const uint8_t* palette = file.data + h.palette;
  for (int64_t y = 0; y < h.height; ++y) {
    const uint8_t* in =
        file.data + h.pixels + row * static_cast<uint64_t>(h.top_down ? y : h.height - 1 - y);
    uint8_t* out = pixels.data.data() + static_cast<size_t>(y * h.width) * 3;
    for (int64_t x = 0; x < h.width; ++x, out += 3) {
      const uint8_t* bgr = nullptr;
      if (h.bits == 16 || h.bits == 32) {
        const uint8_t* p = in + x * (h.bits / 8);
        uint32_t pixel = p[0] | p[1] << 8;
        if (h.bits == 32) pixel |= p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
        for (size_t c = 0; c < 3; ++c) out[c] = h.masks[c].value(pixel);
        continue;
      }
      if (h.bits == 24) {
        bgr = in + x * 3;
      } else {
        const int64_t bit = x * h.bits;
        const size_t index = in[bit / 8] >> (8 - h.bits - bit % 8) & ((1u << h.bits) - 1);
        OCTET_CHECK(index < h.colours, corrupt,
                    "{}: a pixel of the BMP picture has colour {} of {}", file.name, index,
                    h.colours);
        bgr = palette + index * h.colour_bytes;
      }
      for (size_t c = 0; c < 3; ++c) out[c] = bgr[2 - c];
    }
  }
  return pixels;
}

}  // namespace octet::image_impl
