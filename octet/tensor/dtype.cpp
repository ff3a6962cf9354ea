#include "octet/tensor/dtype.h"

#include <bit>
#include <limits>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

struct Info {
  DType dtype;
  const char* name;
  const char* type_name;
  size_t size;
};

constexpr Info kInfo[] = {
    {DType::float32, "float32", "Float", 4},
    {DType::float64, "float64", "Double", 8},
    {DType::float16, "float16", "Half", 2},
    {DType::bfloat16, "bfloat16", "BFloat16", 2},
    {DType::int64, "int64", "Long", 8},
    {DType::int32, "int32", "Int", 4},
    {DType::int16, "int16", "Short", 2},
    {DType::int8, "int8", "Char", 1},
    {DType::uint8, "uint8", "Byte", 1},
    {DType::uint16, "uint16", "UInt16", 2},
    {DType::bool_, "bool", "Bool", 1},
    {DType::quint8, "quint8", "QUInt8", 1},
    {DType::qint8, "qint8", "QInt8", 1},
    {DType::qint32, "qint32", "QInt32", 4},
    {DType::quint4x2, "quint4x2", "QUInt4x2", 1},
    {DType::qint4x2, "qint4x2", "QInt4x2", 1},
    {DType::quint16, "quint16", "QUInt16", 2},
    {DType::qint16, "qint16", "QInt16", 2},
};

const Info& info(DType dtype) { return kInfo[static_cast<size_t>(dtype)]; }

template <typename Get>
DType find(std::string_view name, Get get) {
  std::string known;
  for (const Info& i : kInfo) {
    if (name == get(i)) return i.dtype;
    known += (known.empty() ? "" : ", ") + std::string(get(i));
  }
  OCTET_FAIL(invalid_argument, "unknown dtype '{}': expected one of {}", name, known);
}

}  // namespace

size_t element_size(DType dtype) { return info(dtype).size; }
std::string to_string(DType dtype) { return info(dtype).name; }
std::string type_name(DType dtype) { return info(dtype).type_name; }
DType parse_dtype(std::string_view name) {
  return find(name, [](const Info& i) { return i.name; });
}
DType parse_type_name(std::string_view name) {
  return find(name, [](const Info& i) { return i.type_name; });
}

bool is_packed(DType dtype) { return dtype == DType::quint4x2 || dtype == DType::qint4x2; }
size_t storage_bytes(DType dtype, int64_t n) {
  return is_packed(dtype) ? static_cast<size_t>(n + 1) / 2
                          : static_cast<size_t>(n) * element_size(dtype);
}

bool is_quantized(DType dtype) { return dtype >= DType::quint8; }
bool is_floating(DType dtype) { return dtype <= DType::bfloat16; }

int64_t qmin(DType dtype) {
  switch (dtype) {
    case DType::quint8:
      return 0;
    case DType::qint8:
      return -128;
    case DType::qint32:
      return std::numeric_limits<int32_t>::min();
    case DType::quint4x2:
      return 0;
    case DType::qint4x2:
      return -8;
    case DType::quint16:
      return 0;
    case DType::qint16:
      return std::numeric_limits<int16_t>::min();
    default:
      OCTET_FAIL(invalid_argument, "{} is not a quantized dtype", to_string(dtype));
  }
}

int64_t qmax(DType dtype) {
  switch (dtype) {
    case DType::quint8:
      return 255;
    case DType::qint8:
      return 127;
    case DType::qint32:
      return std::numeric_limits<int32_t>::max();
    case DType::quint4x2:
      return 15;
    case DType::qint4x2:
      return 7;
    case DType::quint16:
      return std::numeric_limits<uint16_t>::max();
    case DType::qint16:
      return std::numeric_limits<int16_t>::max();
    default:
      OCTET_FAIL(invalid_argument, "{} is not a quantized dtype", to_string(dtype));
  }
}

DType code_dtype(DType dtype) {
  switch (dtype) {
    case DType::quint8:
    case DType::quint4x2:
      return DType::uint8;
    case DType::qint8:
    case DType::qint4x2:
      return DType::int8;
    case DType::quint16:
      return DType::uint16;
    case DType::qint16:
      return DType::int16;
    case DType::qint32:
      return DType::int32;
    default:
      OCTET_FAIL(invalid_argument, "{} is not a quantized dtype", to_string(dtype));
  }
}

DType quantized_dtype(DType code) {
  for (DType dtype : {DType::quint8, DType::qint8, DType::quint16, DType::qint16, DType::qint32})
    if (code_dtype(dtype) == code) return dtype;
  OCTET_FAIL(invalid_argument, "codes are {}; expected uint8, int8, uint16, int16 or int32",
             to_string(code));
}

float half_to_float(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31,
           mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t float_to_half(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds to 65536 or more: infinity
  // below 2^-14: subnormal, round by adding a power of two
  if (magnitude < 0x38800000) {
    float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000u;
  return sign | static_cast<uint16_t>(rounded >> 13);
}

float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t float_to_bfloat16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace octet
