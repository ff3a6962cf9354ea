#include "octet/io/npz.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/text.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/zip_impl.h"

namespace octet {
namespace {

using zip::Source;

// -- .npy -----------------------------------------------------------------------------------------

struct NpyHeader {
  DType dtype = DType::float32;
  size_t item = 4;      // bytes of an element in the file
  bool widens = false;  // unsigned integers that octet holds in a wider dtype
  bool fortran = false;
  Shape shape;
  uint64_t bytes = 0;  // of the data
};

struct NpyType {
  const char* descr;
  DType dtype;
};
// Unsigned integers of more than 16 bits are read into signed ones.
constexpr NpyType kUnsigned[] = {{"u4", DType::int64}, {"u8", DType::int64}};
constexpr NpyType kTypes[] = {
    {"f4", DType::float32}, {"f8", DType::float64}, {"f2", DType::float16}, {"i8", DType::int64},
    {"i4", DType::int32},   {"i2", DType::int16},   {"i1", DType::int8},    {"u1", DType::uint8},
    {"u2", DType::uint16},  {"b1", DType::bool_}};

void parse_descr(const std::string& descr, const std::string& where, NpyHeader& header) {
  constexpr const char* kKnown =
      "float32, float64, float16, int64, int32, int16, int8, uint8, uint16, uint32, uint64 or bool";
  OCTET_CHECK(descr.size() < 2 || descr[0] != '>', unsupported,
              "{}: dtype '{}' is big endian; save it as a.astype(a.dtype.newbyteorder('<'))", where,
              descr);
  const bool little = descr.size() == 3 && (descr[0] == '<' || descr[0] == '|' || descr[0] == '=');
  const auto is = [&](const NpyType& type) { return little && descr.substr(1) == type.descr; };
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), is);
  if (type != std::end(kTypes)) {
    header.dtype = type->dtype;
    header.item = element_size(type->dtype);
    return;
  }
  type = std::find_if(std::begin(kUnsigned), std::end(kUnsigned), is);
  if (type != std::end(kUnsigned)) {
    header.dtype = type->dtype;
    header.item = static_cast<size_t>(descr[2] - '0');
    header.widens = true;
    return;
  }
  OCTET_CHECK(descr.find('O') == std::string::npos, unsupported,
              "{}: dtype '{}' is Python objects (perhaps arrays of different shapes); expected {}",
              where, descr, kKnown);
  OCTET_FAIL(unsupported, "{}: dtype '{}' is not supported; expected {}; convert it with .astype()",
             where, descr, kKnown);
}

// The header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(const std::string& text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader parse() {
    NpyHeader header;
    std::set<std::string> seen;
    expect('{');
    while (!take('}')) {
      std::string key = quoted();
      expect(':');
      if (!seen.insert(key).second) damaged("'" + key + "' is there twice");
      if (key == "descr") {
        if (peek() == '[')
          OCTET_FAIL(unsupported, "{}: the array is of structures; save its fields as arrays",
                     where_);
        parse_descr(quoted(), where_, header);
      } else if (key == "fortran_order") {
        header.fortran = word() == "True";
      } else if (key == "shape") {
        header.shape = tuple();
      } else {
        damaged("unknown key '" + key + "'");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    if (peek() != 0) damaged("text after the closing brace");
    if (seen.size() != 3) damaged("expected the keys descr, fortran_order and shape");
    return header;
  }

 private:
  [[noreturn]] void damaged(const std::string& what) {
    OCTET_FAIL(corrupt, "{}: the .npy header is damaged: {}", where_, what);
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) damaged(fmt::format("expected '{}' at offset {}", c, at_));
  }
  std::string quoted() {
    char quote = peek();
    if (quote != '\'' && quote != '"') damaged(fmt::format("expected a string at offset {}", at_));
    size_t end = text_.find(quote, at_ + 1);
    if (end == std::string::npos) damaged("unterminated string");
    std::string result = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return result;
  }
  std::string word() {
    peek();
    size_t begin = at_;
    while (at_ < text_.size() && ((text_[at_] | 32) >= 'a' && (text_[at_] | 32) <= 'z')) ++at_;
    std::string result = text_.substr(begin, at_ - begin);
    if (result != "True" && result != "False") damaged("fortran_order: expected True or False");
    return result;
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!take(')')) {
      char c = peek();
      if (c < '0' || c > '9') damaged("shape: expected whole numbers >= 0");
      int64_t size = 0;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
        size = size * 10 + (text_[at_] - '0');
        if (size > int64_t{1} << 48) damaged("shape: a size is too large");
      }
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote 3L
      shape.push_back(size);
      if (shape.size() > 64) damaged("shape: more than 64 dimensions");
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }

  const std::string& text_;
  const std::string& where_;
  size_t at_ = 0;
};

NpyHeader read_npy_header(Source& source) {
  std::byte start[12];
  OCTET_CHECK(source.left() >= 10, corrupt, "{}: not a .npy file: {} bytes", source.where(),
              source.left());
  source.read(start, 8);
  OCTET_CHECK(std::memcmp(start, "\x93NUMPY", 6) == 0, corrupt,
              "{}: not a .npy file (it does not start with \\x93NUMPY)", source.where());
  auto version = static_cast<int>(start[6]);
  OCTET_CHECK(version >= 1 && version <= 3, unsupported, "{}: .npy version {}; expected 1, 2 or 3",
              source.where(), version);
  int digits = version == 1 ? 2 : 4;
  source.read(start, digits);
  uint64_t length = 0;
  for (int i = digits; i-- > 0;) length = length << 8 | static_cast<uint64_t>(start[i]);
  OCTET_CHECK(length <= source.left() && length <= (1u << 20), corrupt,
              "{}: the .npy header has {} bytes, {} are left", source.where(), length,
              source.left());
  std::string text(length, '\0');
  source.read(text.data(), length);
  NpyHeader header = HeaderParser(text, source.where()).parse();

  // Products are checked one by one, so that a shape with a 0 in it cannot hide an overflow.
  uint64_t bytes = header.item;
  bool empty = false;
  for (int64_t size : header.shape) {
    if (size == 0)
      empty = true;
    else
      OCTET_CHECK(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) &&
                      bytes < (uint64_t{1} << 47),
                  corrupt, "{}: shape {} is too large", source.where(), to_string(header.shape));
  }
  header.bytes = empty ? 0 : bytes;
  OCTET_CHECK(header.bytes == source.left(), corrupt,
              "{}: {} {} needs {} bytes of data, there are {}", source.where(),
              to_string(header.dtype), to_string(header.shape), header.bytes, source.left());
  return header;
}

// Unsigned integers of `item` bytes into a signed tensor. Error if one does not fit.
void read_unsigned(Source& source, Tensor& out, size_t item) {
  std::vector<std::byte> raw(static_cast<size_t>(out.numel()) * item);
  source.read(raw.data(), raw.size());
  for (int64_t i = 0; i < out.numel(); ++i) {
    uint64_t v = 0;
    for (size_t b = item; b-- > 0;)
      v = v << 8 | static_cast<uint64_t>(raw[static_cast<size_t>(i) * item + b]);
    OCTET_CHECK(v <= uint64_t{std::numeric_limits<int64_t>::max()}, unsupported,
                "{}: {} is more than int64 can hold", source.where(), v);
    if (out.dtype() == DType::int32)
      out.data<int32_t>()[i] = static_cast<int32_t>(v);
    else
      out.data<int64_t>()[i] = static_cast<int64_t>(v);
  }
}

Tensor read_npy_from(Source& source) {
  NpyHeader header = read_npy_header(source);
  Shape shape = header.shape;
  if (header.fortran) std::reverse(shape.begin(), shape.end());
  Tensor tensor = Tensor::empty(shape, header.dtype);
  if (header.widens)
    read_unsigned(source, tensor, header.item);
  else
    source.read(tensor.raw_data(), header.bytes);
  if (!header.widens) io::little_endian(tensor.raw_data(), header.bytes, header.item);
  // a C++ bool must be 0 or 1; NumPy takes any byte but 0 for true
  if (header.dtype == DType::bool_) {
    auto* p = static_cast<uint8_t*>(tensor.raw_data());
    for (uint64_t i = 0; i < header.bytes; ++i) p[i] = p[i] != 0;
  }
  if (!header.fortran || shape.size() < 2) return tensor;
  std::vector<int64_t> reversed(shape.size());
  for (size_t d = 0; d < reversed.size(); ++d)
    reversed[d] = static_cast<int64_t>(reversed.size() - 1 - d);
  return tensor.permute(reversed).contiguous();
}

std::string npy_header(const Tensor& tensor, const std::string& what) {
  const NpyType* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](auto& t) { return t.dtype == tensor.dtype(); });
  OCTET_CHECK(type != std::end(kTypes), invalid_argument, "{}: NumPy has no {}; write {}", what,
              to_string(tensor.dtype()),
              tensor.is_quantized() ? "int_repr() or dequantize()" : "to(DType::float32)");
  bool byte = element_size(tensor.dtype()) == 1;
  const Shape& s = tensor.shape();
  std::string dict =
      fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}",
                  byte ? '|' : '<', type->descr, fmt::join(s, ", "), s.size() == 1 ? "," : "");
  size_t total = (10 + dict.size() + 1 + 63) / 64 * 64;  // the data starts on a multiple of 64
  OCTET_CHECK(total - 10 <= 65535, invalid_argument, "{}: shape {} has too many dimensions", what,
              to_string(s));
  dict.append(total - 10 - dict.size() - 1, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dict.size() & 255);
  header += static_cast<char>(dict.size() >> 8);
  return header + dict;
}

// The arrays of an archive: "images.npy" is "images".
std::map<std::string, const zip::Member*> arrays(const zip::Archive& archive,
                                                 const std::string& path) {
  std::map<std::string, const zip::Member*> result;
  for (const zip::Member& m : archive.members())
    if (m.name.size() > 4 && m.name.ends_with(".npy"))
      result[m.name.substr(0, m.name.size() - 4)] = &m;
  OCTET_CHECK(!result.empty(), corrupt,
              "{}: the zip archive holds no .npy array ({} other files); expected an .npz file",
              path, archive.members().size());
  return result;
}

std::string place(const std::filesystem::path& path, const std::string& name) {
  return fmt::format("{}: array '{}'", path.string(), name);
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  Source source(path.string(), file->data(), file->size(), file->size(), false);
  return read_npy_from(source);
}

NpzEntry describe_npy(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  Source source(path.string(), file->data(), file->size(), file->size(), false);
  const NpyHeader header = read_npy_header(source);
  return {"", header.dtype, header.shape};
}

std::map<std::string, Tensor> read_npz(const std::filesystem::path& path,
                                       const std::vector<std::string>& wanted) {
  zip::Archive archive(path, "an .npz file");
  auto members = arrays(archive, path.string());
  for (const std::string& name : wanted) {
    if (members.count(name)) continue;
    std::vector<std::string> known;
    for (const auto& [key, member] : members) known.push_back(key);
    OCTET_FAIL(not_found, "{}: no array '{}'{}; there are: {}", path.string(), name,
               did_you_mean(name, known), fmt::join(known, ", "));
  }
  std::map<std::string, Tensor> result;
  uint64_t bytes = 0;
  for (const auto& [name, member] : members) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), name) == wanted.end()) continue;
    auto source = archive.open(*member, place(path, name));
    bytes += member->size;
    OCTET_CHECK(bytes <= zip::max_inflated(archive.file_bytes()), corrupt,
                "{}: arrays of {} bytes and more in a file of {}: it is damaged or made to fill "
                "the memory; save it with np.savez",
                path.string(), bytes, archive.file_bytes());
    Tensor tensor = read_npy_from(*source);
    OCTET_CHECK(
        source->crc() == member->crc, corrupt,
        "{}: damaged: its CRC is {:08x}, the archive says {:08x}; copy or save the file again",
        source->where(), source->crc(), member->crc);
    result.emplace(name, std::move(tensor));
  }
  return result;
}

std::vector<NpzEntry> list_npz(const std::filesystem::path& path) {
  zip::Archive archive(path, "an .npz file");
  auto members = arrays(archive, path.string());
  std::vector<NpzEntry> result;
  for (const zip::Member& m : archive.members()) {
    if (m.name.size() <= 4 || !m.name.ends_with(".npy")) continue;
    std::string name = m.name.substr(0, m.name.size() - 4);
    auto source = archive.open(m, place(path, name));
    NpyHeader header = read_npy_header(*source);
    result.push_back({name, header.dtype, header.shape});
  }
  return result;
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  Tensor rows = io::in_file_order(tensor);
  std::string header = npy_header(rows, path.string());
  write_file_atomically(path, [&](FileWriter& file) {
    file.write(header);
    file.write(rows.raw_data(), static_cast<size_t>(rows.nbytes()));
  });
}

void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
               bool compress) {
  // fails before the file is touched
  for (const auto& [name, tensor] : tensors) npy_header(tensor, place(path, name));
  write_file_atomically(path, [&](FileWriter& file) {
    zip::Writer archive(file, path.string());
    for (const auto& [name, tensor] : tensors) {
      Tensor rows = io::in_file_order(tensor);
      std::string header = npy_header(rows, place(path, name));
      archive.add(
          name + ".npy",
          {{header.data(), header.size()}, {rows.raw_data(), static_cast<size_t>(rows.nbytes())}},
          compress);
    }
    archive.finish();
  });
}

}  // namespace octet
