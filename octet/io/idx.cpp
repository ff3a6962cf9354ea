#include "octet/io/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

// zlib's gzip reader passes files that are not compressed through.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path.string()), file_(gzopen(path.c_str(), "rb"), gzclose) {
    std::error_code ignored;
    OCTET_CHECK(file_ && !std::filesystem::is_directory(path, ignored), not_found, "{}: no such file", path_);
  }
  const std::string& path() const { return path_; }
  // As many bytes as there are, at most `bytes`.
  size_t some(void* out, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
      auto piece = static_cast<unsigned>(std::min<size_t>(bytes - done, 1u << 30));
      int n = gzread(file_.get(), static_cast<char*>(out) + done, piece);
      if (n < 0) {
        int code = 0;
        OCTET_FAIL(corrupt, "{}: cannot be decompressed: {}", path_, gzerror(file_.get(), &code));
      }
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }
  void all(void* out, size_t bytes, const char* what) {
    size_t n = some(out, bytes);
    OCTET_CHECK(n == bytes, corrupt, "{}: ends in {}: {} bytes of {}", path_, what, n, bytes);
  }

 private:
  std::string path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
};

bool dtype_of_code(uint8_t code, DType& dtype) {
  switch (code) {
    case 0x08: dtype = DType::uint8; return true;
    case 0x09: dtype = DType::int8; return true;
    case 0x0B: dtype = DType::int16; return true;
    case 0x0C: dtype = DType::int32; return true;
    case 0x0D: dtype = DType::float32; return true;
    case 0x0E: dtype = DType::float64; return true;
    default: return false;
  }
}

}  // namespace

bool is_idx(const std::filesystem::path& path) {
  try {
    uint8_t magic[4];
    DType dtype;
    return Reader(path).some(magic, 4) == 4 && magic[0] == 0 && magic[1] == 0 && dtype_of_code(magic[2], dtype) && magic[3] > 0;
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
              "{}: is not an IDX file: it begins with {:02x} {:02x} {:02x} {:02x}", in.path(), magic[0], magic[1], magic[2], magic[3]);
  Shape shape;
  for (int d = 0; d < magic[3]; ++d) {
    uint8_t b[4];
    in.all(b, 4, "its sizes");
    shape.push_back(int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | int64_t{b[3]});
  }
  // The sizes are not believed before the bytes are there: memory is taken in pieces.
  double total = static_cast<double>(element_size(dtype));
  for (int64_t d : shape) total *= static_cast<double>(d);
  OCTET_CHECK(total < 1e12, corrupt, "{}: says it holds {} of shape {}", in.path(), octet::to_string(dtype), octet::to_string(shape));
  const auto bytes = static_cast<size_t>(total);
  std::vector<std::byte> data;
  while (data.size() < bytes) {
    const size_t piece = std::min<size_t>(bytes - data.size(), size_t{64} << 20), at = data.size();
    data.resize(at + piece);
    in.all(data.data() + at, piece, "its elements");
  }
  std::byte more;
  OCTET_CHECK(in.some(&more, 1) == 0, corrupt, "{}: is longer than an array of {} of shape {}", in.path(), octet::to_string(dtype),
              octet::to_string(shape));
  Tensor t = Tensor::empty(shape, dtype);
  auto* out = static_cast<std::byte*>(t.raw_data());
  const size_t size = element_size(dtype);
  for (size_t i = 0; i < bytes; i += size) std::reverse_copy(data.begin() + static_cast<ptrdiff_t>(i), data.begin() + static_cast<ptrdiff_t>(i + size), out + i);
  return t;
}

}  // namespace octet
