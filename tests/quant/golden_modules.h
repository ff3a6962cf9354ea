#pragma once
// What the tests of modules and models against PyTorch share
// (scripts/oracle/{modules,eager,qat,fold}.py).

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"
#include "tests/golden.h"

namespace octet::testing {

using nlohmann::json;

inline std::vector<uint8_t> from_base64(const std::string& text) {
  static const std::string digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0, count = 0;
  for (char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    if ((count += 6) >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (count -= 8)));
  }
  return bytes;
}

// float32 values stored as base64 of their bytes.
inline Tensor floats_from_base64(const std::string& text, const Shape& shape) {
  std::vector<uint8_t> bytes = from_base64(text);
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return Tensor::from(values, shape);
}

inline DType dtype_or(const json& c, const char* key, DType otherwise) {
  return c.contains(key) ? parse_dtype(c[key].get<std::string>()) : otherwise;
}

// quantized_input() of scripts/oracle/modules.py. qparams: [scale, zero point].
inline Tensor golden_codes_of(uint64_t seed, const Shape& shape, const json& qparams, DType dtype) {
  std::vector<int8_t> codes = golden_codes(seed, numel(shape));
  QuantizerPtr quantizer = Quantizer::per_tensor(qparams[0], qparams[1], dtype);
  if (dtype == DType::qint8) return make_quantized(Tensor::from(codes, shape), quantizer);
  std::vector<uint8_t> shifted(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) shifted[i] = static_cast<uint8_t>(codes[i] + 128);
  return make_quantized(Tensor::from(shifted, shape), quantizer);
}

inline Attrs attrs_of(const json& object) {
  Attrs attrs;
  for (const auto& [name, value] : object.items()) {
    if (value.is_boolean())
      attrs.set(name, value.get<bool>());
    else if (value.is_number_integer())
      attrs.set(name, value.get<int64_t>());
    else if (value.is_number())
      attrs.set(name, value.get<double>());
    else if (value.is_string())
      attrs.set(name, value.get<std::string>());
    else
      attrs.set(name, value.get<std::vector<int64_t>>());
  }
  return attrs;
}

// The codes of y, in row-major order, against base64 of PyTorch's.
inline void expect_codes(const Tensor& y, const json& base64, int steps, const std::string& what) {
  std::vector<uint8_t> expected = from_base64(base64);
  const bool is_signed = y.dtype() == DType::qint8;
  std::vector<uint8_t> unsigned_codes = is_signed ? std::vector<uint8_t>() : y.to_vector<uint8_t>();
  std::vector<int8_t> signed_codes = is_signed ? y.to_vector<int8_t>() : std::vector<int8_t>();
  ASSERT_EQ(static_cast<size_t>(y.numel()), expected.size()) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    int got = is_signed ? signed_codes[i] : unsigned_codes[i];
    int wanted = is_signed ? static_cast<int8_t>(expected[i]) : expected[i];
    ASSERT_LE(std::abs(got - wanted), steps)
        << "at " << i << ": " << got << ", PyTorch " << wanted << "\n"
        << what;
  }
}

}  // namespace octet::testing
