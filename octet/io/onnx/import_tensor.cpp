// TensorProtos, element types and files: everything that is read from protobuf before there is a
// graph.
#include <onnx/onnx_pb.h>

#include <google/protobuf/stubs/logging.h>

#include <cctype>
#include <charconv>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "octet/base/file.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

using onnx::TensorProto;

constexpr int64_t kMaxElements = int64_t{1} << 40;

// Bytes of one element in raw_data; 0 for types octet does not read.
size_t raw_size(int32_t type) {
  switch (type) {
    case TensorProto::FLOAT:
    case TensorProto::INT32:
    case TensorProto::UINT32:
      return 4;
    case TensorProto::DOUBLE:
    case TensorProto::INT64:
    case TensorProto::UINT64:
      return 8;
    case TensorProto::INT16:
    case TensorProto::UINT16:
    case TensorProto::FLOAT16:
    case TensorProto::BFLOAT16:
      return 2;
    case TensorProto::INT8:
    case TensorProto::UINT8:
    case TensorProto::BOOL:
      return 1;
    default:
      return 0;
  }
}

// Unsigned types octet lacks are widened in constants, where values are known to fit.
DType constant_dtype(int32_t type, const std::string& what) {
  if (type == kUint4) return DType::uint8;
  if (type == kInt4) return DType::int8;
  return is_wide_unsigned(type) ? DType::int64 : dtype_of(type, what);
}

template <typename Out, typename In>
void widen(Tensor& out, const char* raw, int64_t n, const std::string& what) {
  Out* to = out.data<Out>();
  for (int64_t i = 0; i < n; ++i) {
    In v;
    std::memcpy(&v, raw + i * sizeof(In), sizeof(In));
    little_endian(&v, sizeof v, sizeof v);
    OCTET_CHECK(static_cast<uint64_t>(v) <= static_cast<uint64_t>(std::numeric_limits<Out>::max()),
                unsupported, "{}: value {} does not fit into {}", what, v, to_string(out.dtype()));
    to[i] = static_cast<Out>(v);
  }
}

void read_raw(Tensor& out, std::string_view raw, int32_t type, const std::string& what) {
  int64_t n = out.numel();
  OCTET_CHECK(raw.size() == static_cast<size_t>(n) * raw_size(type), corrupt,
              "{}: {} bytes of data for {} elements of {}", what, raw.size(), n,
              onnx_type_name(type));
  if (type == TensorProto::UINT32) return widen<int64_t, uint32_t>(out, raw.data(), n, what);
  if (type == TensorProto::UINT64) return widen<int64_t, uint64_t>(out, raw.data(), n, what);
  if (n > 0) std::memcpy(out.raw_data(), raw.data(), raw.size());
  little_endian(out.raw_data(), raw.size(), raw_size(type));
  if (type == TensorProto::BOOL) {  // any byte but 0 and 1 would be undefined behaviour in C++
    auto* bytes = static_cast<uint8_t*>(out.raw_data());
    for (int64_t i = 0; i < n; ++i) bytes[i] = bytes[i] != 0;
  }
}

template <typename T, typename Field>
void read_field(Tensor& out, const Field& field, const std::string& what) {
  OCTET_CHECK(field.size() == out.numel(), corrupt, "{}: {} values for {} elements", what,
              field.size(), out.numel());
  auto* to = static_cast<T*>(out.raw_data());
  for (int i = 0; i < field.size(); ++i) to[i] = static_cast<T>(field.Get(i));
}

void read_typed(Tensor& out, const TensorProto& t, const std::string& what) {
  switch (t.data_type()) {
    case TensorProto::FLOAT:
      return read_field<float>(out, t.float_data(), what);
    case TensorProto::DOUBLE:
      return read_field<double>(out, t.double_data(), what);
    case TensorProto::INT64:
      return read_field<int64_t>(out, t.int64_data(), what);
    case TensorProto::UINT32:
    case TensorProto::UINT64:
      return read_field<int64_t>(out, t.uint64_data(), what);
    case TensorProto::INT32:
      return read_field<int32_t>(out, t.int32_data(), what);
    case TensorProto::INT16:
      return read_field<int16_t>(out, t.int32_data(), what);
    case TensorProto::INT8:
      return read_field<int8_t>(out, t.int32_data(), what);
    case TensorProto::UINT8:
      return read_field<uint8_t>(out, t.int32_data(), what);
    case TensorProto::UINT16:
    case TensorProto::FLOAT16:
    case TensorProto::BFLOAT16:
      return read_field<uint16_t>(out, t.int32_data(), what);
    case TensorProto::BOOL:
      return read_field<bool>(out, t.int32_data(), what);
    default:
      OCTET_FAIL(unsupported, "{}: element type {} is not supported", what,
                 onnx_type_name(t.data_type()));
  }
}

// Two to a byte, the first in the low four bits; in int32_data as in raw_data.
Tensor read_nibbles(const TensorProto& t, const Shape& shape, DType dtype,
                    const std::optional<std::string_view>& raw, const std::string& what) {
  const int64_t n = numel(shape);
  OCTET_CHECK(n < int64_t{1} << 32, corrupt, "{}: {} elements of 4 bits", what, n);
  const int64_t given = raw ? static_cast<int64_t>(raw->size()) : t.int32_data_size();
  OCTET_CHECK(given == (n + 1) / 2, corrupt, "{}: {} bytes of data for {} elements of 4 bits", what,
              given, n);
  Tensor out = Tensor::empty(shape, dtype);
  auto* to = static_cast<uint8_t*>(out.raw_data());
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<int>(i / 2);
    const auto byte = static_cast<uint32_t>(
        raw ? static_cast<unsigned char>((*raw)[static_cast<size_t>(at)]) : t.int32_data(at));
    uint32_t q = byte >> (i % 2 * 4) & 15;
    if (t.data_type() == kInt4 && q > 7) q += 240;  // the sign
    to[i] = static_cast<uint8_t>(q);
  }
  return out;
}

// A count of bytes as external data gives it: decimal digits, nothing else.
size_t byte_count(const std::string& text, const std::string& key, const std::string& what) {
  size_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  OCTET_CHECK(error == std::errc() && end == text.data() + text.size(), corrupt,
              "{}: the {} of its data is '{}'; expected a number of bytes", what, key,
              one_line(text.substr(0, 60)));
  return value;
}

// Data in a file beside the model, mapped.
Buffer external_bytes(const TensorProto& t, const std::string& what,
                      const std::filesystem::path& dir) {
  std::map<std::string, std::string> entries;
  for (const auto& entry : t.external_data())
    OCTET_CHECK(entries.emplace(entry.key(), entry.value()).second, corrupt,
                "{}: external data: '{}' is there twice", what, one_line(entry.key()));
  const std::string& location = entries["location"];
  OCTET_CHECK(!dir.empty(), unsupported,
              "{}: its data is in the file '{}', which a model in memory cannot name", what,
              one_line(location));
  std::filesystem::path path(location);
  bool inside = !location.empty() && path.is_relative() && location.find('\0') == location.npos;
  for (const auto& part : path) inside &= part != "..";
  OCTET_CHECK(inside, corrupt,
              "{}: its data is in the file '{}'; expected a file in the model's own directory",
              what, one_line(location));
  std::filesystem::path place = dir;
  for (const auto& part : path) {
    std::error_code ignored;
    place /= part;
    OCTET_CHECK(!std::filesystem::is_symlink(place, ignored), corrupt,
                "{}: its data is in the file '{}'; {} is a link, which may lead anywhere: put the "
                "file itself there",
                what, one_line(location), one_line(place.string()));
  }
  std::shared_ptr<MappedFile> file;
  try {
    file = MappedFile::open(place);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: its data is in another file: {}", what, e.what()));
  }
  const size_t offset = entries.count("offset") ? byte_count(entries["offset"], "offset", what) : 0;
  OCTET_CHECK(offset <= file->size(), corrupt,
              "{}: its data begins at byte {} of '{}', which has {}", what, offset,
              one_line(location), file->size());
  const size_t length = entries.count("length") ? byte_count(entries["length"], "length", what)
                                                : file->size() - offset;
  OCTET_CHECK(length <= file->size() - offset, corrupt, "{}: bytes {}+{} of '{}', which has {}",
              what, offset, length, one_line(location), file->size());
  return file->range(offset, length);
}

}  // namespace

DType dtype_of(int32_t type, const std::string& what) {
  switch (type) {
    case TensorProto::FLOAT:
      return DType::float32;
    case TensorProto::DOUBLE:
      return DType::float64;
    case TensorProto::FLOAT16:
      return DType::float16;
    case TensorProto::BFLOAT16:
      return DType::bfloat16;
    case TensorProto::INT64:
      return DType::int64;
    case TensorProto::INT32:
      return DType::int32;
    case TensorProto::INT16:
      return DType::int16;
    case TensorProto::INT8:
      return DType::int8;
    case TensorProto::UINT8:
      return DType::uint8;
    case TensorProto::UINT16:
      return DType::uint16;
    case TensorProto::BOOL:
      return DType::bool_;
    default:
      OCTET_FAIL(unsupported, "{}: element type {} is not supported", what, onnx_type_name(type));
  }
}

int32_t onnx_type_of(DType dtype) {
  switch (is_quantized(dtype) ? code_dtype(dtype) : dtype) {
    case DType::float64:
      return TensorProto::DOUBLE;
    case DType::float16:
      return TensorProto::FLOAT16;
    case DType::bfloat16:
      return TensorProto::BFLOAT16;
    case DType::int64:
      return TensorProto::INT64;
    case DType::int32:
      return TensorProto::INT32;
    case DType::int16:
      return TensorProto::INT16;
    case DType::int8:
      return TensorProto::INT8;
    case DType::uint8:
      return TensorProto::UINT8;
    case DType::uint16:
      return TensorProto::UINT16;
    case DType::bool_:
      return TensorProto::BOOL;
    default:
      return TensorProto::FLOAT;
  }
}

std::string onnx_type_name(int32_t type) {
  if (!TensorProto::DataType_IsValid(type)) return fmt::format("number {}", type);
  return TensorProto::DataType_Name(static_cast<TensorProto::DataType>(type));
}

Tensor read_tensor(const TensorProto& t, const std::string& what,
                   const std::filesystem::path& dir) {
  Shape shape;
  int64_t n = 1;
  for (int64_t d : t.dims()) {
    OCTET_CHECK(d >= 0 && (d == 0 || n <= kMaxElements / d), corrupt, "{}: shape ({})", what,
                fmt::join(t.dims().begin(), t.dims().end(), ", "));
    n *= d;
    shape.push_back(d);
  }
  DType dtype = constant_dtype(t.data_type(), what);
  OCTET_CHECK(!t.has_segment(), unsupported, "{}: data in segments is not supported", what);
  // Sizes are compared before memory is asked for: a damaged shape must not.
  Buffer external;
  std::optional<std::string_view> raw;
  if (t.data_location() == TensorProto::EXTERNAL) {
    external = external_bytes(t, what, dir);
    raw = {reinterpret_cast<const char*>(external.data()), external.bytes()};
  } else if (t.has_raw_data()) {
    raw = t.raw_data();
  }
  if (is_narrow(t.data_type())) return read_nibbles(t, shape, dtype, raw, what);
  int64_t given = raw ? static_cast<int64_t>(raw->size() / raw_size(t.data_type()))
                      : int64_t{t.float_data_size()} + t.int32_data_size() + t.int64_data_size() +
                            t.double_data_size() + t.uint64_data_size();
  OCTET_CHECK(given == n, corrupt, "{}: data of {} elements for shape {}", what, given,
              to_string(shape));
  Tensor out = Tensor::empty(shape, dtype);
  if (raw)
    read_raw(out, *raw, t.data_type(), what);
  else
    read_typed(out, t, what);
  return out;
}

bool is_narrow(int32_t type) { return type == kUint4 || type == kInt4; }

bool is_wide_unsigned(int32_t type) {
  return type == TensorProto::UINT32 || type == TensorProto::UINT64;
}

DType compute_type(DType dtype) { return is_floating(dtype) ? DType::float32 : dtype; }

Tensor to_compute_type(const Tensor& t) {
  return is_floating(t.dtype()) && t.dtype() != DType::float32 ? t.to(DType::float32) : t;
}

bool parse(google::protobuf::MessageLite& message, std::string_view bytes) {
  google::protobuf::LogSilencer silence;
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return false;
  // From an array protobuf knows how much is left, and takes no memory for a string that cannot be
  // there; from a stream it takes up to 50 MB.
  return message.ParsePartialFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return text;
}

std::string sanitize(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && !std::strchr("_./:-", c)) c = '_';
  return name.empty() ? "v" : name;
}

}  // namespace octet::io::onnx_impl

namespace octet::io {

Tensor read_onnx_tensor(const std::filesystem::path& path) {
  onnx::TensorProto proto;
  OCTET_CHECK(onnx_impl::parse(proto, read_file(path)), corrupt, "{}: is not an ONNX tensor",
              path.string());
  return onnx_impl::read_tensor(proto, path.string(), path.parent_path());
}

}  // namespace octet::io
