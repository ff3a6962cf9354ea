#pragma once
// Element types. Names are PyTorch's; the type names in printed graphs ("Float", "QUInt8") are
// TorchScript's.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace octet {

enum class DType : uint8_t {
  float32,
  float64,
  float16,   // storage: converted to float32 to compute
  bfloat16,  // storage: converted to float32 to compute
  int64,
  int32,
  int16,
  int8,
  uint8,
  uint16,
  bool_,
  quint8,    // quantized: codes 0..255 with a Quantizer
  qint8,     // codes -128..127
  qint32,    // codes over the whole int32 range (biases)
  quint4x2,  // codes 0..15, two to a byte: the first in the low four bits (PyTorch's order)
  qint4x2,   // codes -8..7, two to a byte
  quint16,   // codes 0..65535
  qint16,    // codes -32768..32767
};

// Bytes of one element; 1 for packed dtypes, of which two elements share a byte.
size_t element_size(DType dtype);
// quint4x2 and qint4x2.
bool is_packed(DType dtype);
// Bytes of n elements lying together.
size_t storage_bytes(DType dtype, int64_t n);
// Code i of packed data.
inline int32_t packed_code(const void* data, DType dtype, int64_t i) {
  int32_t q = static_cast<const uint8_t*>(data)[i / 2] >> (i % 2 * 4) & 15;
  return dtype == DType::qint4x2 && q > 7 ? q - 16 : q;
}
// "float32", "quint8", ... and back; an unknown name is an Error listing the known ones.
std::string to_string(DType dtype);
DType parse_dtype(std::string_view name);
// "Float", "QUInt8", "Long", ...: the type's name in a printed graph, and back.
std::string type_name(DType dtype);
DType parse_type_name(std::string_view name);

bool is_quantized(DType dtype);
bool is_floating(DType dtype);  // float32, float64, float16, bfloat16

// The codes a quantized dtype can hold, inclusive; Error for other dtypes.
int64_t qmin(DType dtype);
int64_t qmax(DType dtype);
// The plain integer type of a quantized dtype's codes: quint8 and quint4x2 -> uint8, qint8 and
// qint4x2 -> int8, quint16 -> uint16, qint16 -> int16, qint32 -> int32.
DType code_dtype(DType dtype);
// The quantized dtype that has all of a plain integer type's numbers as codes: uint8 -> quint8,
// int8 -> qint8, uint16 -> quint16, int16 -> qint16, int32 -> qint32. Error for other dtypes.
DType quantized_dtype(DType code);

// quint8 and qint8; quint16 and qint16.
inline bool is_8_bit(DType dtype) { return dtype == DType::quint8 || dtype == DType::qint8; }
inline bool is_16_bit(DType dtype) { return dtype == DType::quint16 || dtype == DType::qint16; }
// What values between layers may be quantized to: 8 or 16 bits.
inline bool is_activation_dtype(DType dtype) { return is_8_bit(dtype) || is_16_bit(dtype); }

// IEEE half and bfloat16, both rounded half to even from float32.
float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);
float bfloat16_to_float(uint16_t bits);
uint16_t float_to_bfloat16(float value);

// The DType of a C++ type, for Tensor::data<T>() and friends.
template <typename T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::float32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::float64;
};
template <>
struct dtype_of<int64_t> {
  static constexpr DType value = DType::int64;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::int32;
};
template <>
struct dtype_of<int16_t> {
  static constexpr DType value = DType::int16;
};
template <>
struct dtype_of<uint16_t> {
  static constexpr DType value = DType::uint16;
};
template <>
struct dtype_of<int8_t> {
  static constexpr DType value = DType::int8;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::uint8;
};
template <>
struct dtype_of<bool> {
  static constexpr DType value = DType::bool_;
};

}  // namespace octet
