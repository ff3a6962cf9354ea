#include "octet/io/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/zip_impl.h"

namespace octet {
namespace {

// The bytes of a file front to back, decompressed on the way if gzip made it.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : path_(path.string()), file_(MappedFile::open(path)) {
    left_ = file_->size();
    next_ = reinterpret_cast<const Bytef*>(file_->data());
    packed_ = is_gzip();
    if (packed_)
      OCTET_CHECK(inflateInit2(&stream_, MAX_WBITS + 16) == Z_OK, io, "{}: zlib does not start",
                  path_);
  }
  ~Reader() {
    if (packed_) inflateEnd(&stream_);
  }
  Reader(const Reader&) = delete;
  const std::string& path() const { return path_; }
  bool is_packed() const { return packed_; }
  // The most bytes that may follow: all that are left, or what decompressing is allowed to give.
  uint64_t most() const { return packed_ ? zip::max_inflated(file_->size()) : left_; }
  // As many bytes as there are, at most `bytes`.
  size_t some(void* out, size_t bytes) {
    auto* to = static_cast<Bytef*>(out);
    if (packed_) return inflated(to, bytes);
    bytes = std::min(bytes, left_);
    std::memcpy(to, next_, bytes);
    next_ += bytes;
    left_ -= bytes;
    return bytes;
  }
  void all(void* out, size_t bytes, const char* what) {
    size_t n = some(out, bytes);
    OCTET_CHECK(n == bytes, corrupt, "{}: ends in {}: {} bytes of {}", path_, what, n, bytes);
  }

 private:
  bool is_gzip() const { return left_ >= 2 && next_[0] == 0x1f && next_[1] == 0x8b; }

  size_t inflated(Bytef* to, size_t bytes) {
    constexpr size_t kPiece = size_t{1} << 30;  // zlib counts in 32 bits
    size_t done = 0;
    while (done < bytes && !ended_) {
      const size_t room = std::min(bytes - done, kPiece), given = std::min(left_, kPiece);
      stream_.next_out = to + done;
      stream_.avail_out = static_cast<uInt>(room);
      stream_.next_in = const_cast<Bytef*>(next_);
      stream_.avail_in = static_cast<uInt>(given);
      const int status = inflate(&stream_, Z_NO_FLUSH);
      next_ += given - stream_.avail_in;
      left_ -= given - stream_.avail_in;
      done += room - stream_.avail_out;
      if (status == Z_STREAM_END) {  // gzip's files may be joined
        ended_ = !is_gzip();
        inflateReset(&stream_);
        continue;
      }
      OCTET_CHECK(status == Z_OK, corrupt, "{}: cannot be decompressed: {}", path_,
                  stream_.msg ? stream_.msg : "it ends early");
    }
    return done;
  }

  std::string path_;
  std::shared_ptr<MappedFile> file_;
  const Bytef* next_;  // not yet read
  size_t left_;
  bool packed_ = false, ended_ = false;
  z_stream stream_{};
};

bool dtype_of_code(uint8_t code, DType& dtype) {
  switch (code) {
    case 0x08:
      dtype = DType::uint8;
      return true;
    case 0x09:
      dtype = DType::int8;
      return true;
    case 0x0B:
      dtype = DType::int16;
      return true;
    case 0x0C:
      dtype = DType::int32;
      return true;
    case 0x0D:
      dtype = DType::float32;
      return true;
    case 0x0E:
      dtype = DType::float64;
      return true;
    default:
      return false;
  }
}

}  // namespace

bool is_idx(const std::filesystem::path& path) {
  try {
    uint8_t magic[4];
    DType dtype = DType::uint8;
    return Reader(path).some(magic, 4) == 4 && magic[0] == 0 && magic[1] == 0 &&
           dtype_of_code(magic[2], dtype) && magic[3] > 0;
  } catch (const Error&) {
    return false;
  }
}

Tensor read_idx(const std::filesystem::path& path) {
  Reader in(path);
  uint8_t magic[4];
  in.all(magic, 4, "its first bytes");
  DType dtype = DType::uint8;
  OCTET_CHECK(magic[0] == 0 && magic[1] == 0 && dtype_of_code(magic[2], dtype), corrupt,
              "{}: is not an IDX file: it begins with {:02x} {:02x} {:02x} {:02x}", in.path(),
              magic[0], magic[1], magic[2], magic[3]);
  Shape shape;
  for (int d = 0; d < magic[3]; ++d) {
    uint8_t b[4];
    in.all(b, 4, "its sizes");
    shape.push_back(int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | int64_t{b[3]});
  }
  // The sizes are not believed before memory is taken, nor a 0 among them that would hide the
  // others.
  double total = static_cast<double>(element_size(dtype));
  for (int64_t d : shape) total *= static_cast<double>(std::max<int64_t>(d, 1));
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  OCTET_CHECK(shape.size() <= 64 && total <= (empty ? 1e12 : static_cast<double>(in.most())),
              corrupt, "{}: there are {}{} bytes of {:.0f} for {} of shape {}", in.path(),
              in.is_packed() ? "at most " : "", in.most(), total, octet::to_string(dtype),
              octet::to_string(shape));
  Tensor t = Tensor::empty(shape, dtype);
  auto* out = static_cast<std::byte*>(t.raw_data());
  const auto bytes = static_cast<size_t>(t.nbytes()), size = element_size(dtype);
  in.all(out, bytes, "its elements");
  std::byte more{};
  OCTET_CHECK(in.some(&more, 1) == 0, corrupt, "{}: is longer than an array of {} of shape {}",
              in.path(), octet::to_string(dtype), octet::to_string(shape));
  if (!io::kBigEndian && size > 1) io::reverse_elements(out, bytes, size);
  return t;
}

}  // namespace octet
