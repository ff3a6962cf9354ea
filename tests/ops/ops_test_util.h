#pragma once
// What the tests of operators share: inference on types, random quantized operands, plain
// references.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "octet/base/random.h"
#include "octet/ops/op.h"
#include "octet/tensor/affine.h"
#include "tests/expect_error.h"

namespace octet::testing {

using ops::QType;

// The result types of a call on operands of these types, which are given as text: "Float(N, 3)".
inline std::vector<TensorType> infer_types(const std::string& op,
                                           const std::vector<std::string>& inputs,
                                           const Attrs& attrs = {},
                                           const std::optional<QType>& want = std::nullopt) {
  std::vector<std::optional<TensorType>> types;
  for (const std::string& text : inputs) types.push_back(parse_type(text));
  return ops::get(op).infer(types, ops::get(op).complete(attrs), want, "");
}

// The first result's type as text.
inline std::string infer_text(const std::string& op, const std::vector<std::string>& inputs,
                              const Attrs& attrs = {},
                              const std::optional<QType>& want = std::nullopt) {
  return to_string(infer_types(op, inputs, attrs, want).at(0));
}

inline Tensor floats(std::vector<float> values, Shape shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  return Tensor::from(values, shape);
}
inline Tensor longs(std::vector<int64_t> values, Shape shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  return Tensor::from(values, shape);
}

inline Shape random_shape(Random& random, int64_t min_rank = 1, int64_t max_rank = 4,
                          int64_t max_size = 6) {
  Shape shape(random.integer(min_rank, max_rank));
  for (int64_t& d : shape) d = random.integer(1, max_size);
  return shape;
}

// A scale from 2^-10 to 2^3 and any zero point.
inline QType random_qtype(Random& random, DType dtype) {
  double scale = std::exp2(random.uniform(-10, 3));
  return {dtype, Quantizer::per_tensor(static_cast<float>(scale),
                                       random.integer(qmin(dtype), qmax(dtype)), dtype)};
}
inline DType random_byte_dtype(Random& random) {
  return random.integer(0, 1) ? DType::quint8 : DType::qint8;
}

inline Tensor random_codes(Random& random, const Shape& shape, const QType& type) {
  Tensor t = Tensor::empty(shape, type.dtype, type.quantizer);
  for (int64_t i = 0; i < t.numel(); ++i) {
    if (type.dtype == DType::quint8)
      t.data<uint8_t>()[i] = static_cast<uint8_t>(random.integer(0, 255));
    else if (type.dtype == DType::qint8)
      t.data<int8_t>()[i] = static_cast<int8_t>(random.integer(-128, 127));
    else
      t.data<int32_t>()[i] = static_cast<int32_t>(random.integer(-100000, 100000));
  }
  return t;
}

// The same values in another place in memory: row-major, channels_last, transposed or every other
// element.
inline Tensor random_layout(Random& random, const Tensor& x) {
  switch (random.integer(0, 3)) {
    case 0:
      return x;
    case 1:
      return x.dim() >= 3 && x.dim() <= 5 ? x.clone(MemoryFormat::channels_last) : x;
    case 2:
      return x.dim() >= 2 ? x.transpose(0, x.dim() - 1).clone().transpose(0, x.dim() - 1) : x;
    default: {
      Shape wide = x.shape();
      if (wide.empty() || (x.is_quantized() && x.quantizer()->is_per_channel())) return x;
      wide.back() *= 2;
      Tensor base = Tensor::empty(wide, x.dtype(), x.quantizer());
      Tensor view = base.slice(-1, 0, wide.back(), 2);
      view.copy_from(x);
      return view;
    }
  }
}

// What the contract says for operators without integers of their own: dequantize, compute in
// float32, quantize.
inline Tensor by_float(const std::string& op, const std::vector<Tensor>& inputs, const Attrs& attrs,
                       const QType& want) {
  std::vector<Tensor> plain;
  for (const Tensor& t : inputs) plain.push_back(t.is_quantized() ? t.dequantize() : t);
  return quantize(ops::call(op, plain, attrs), want.quantizer, want.dtype);
}

inline void expect_equal(const Tensor& got, const Tensor& expected, const std::string& what = "") {
  EXPECT_TRUE(equal(got, expected))
      << what << "\n got " << to_string(got.type()) << " " << to_string(got) << "\n expected "
      << to_string(expected.type()) << " " << to_string(expected);
}

// Calls fn(index) for every index of a shape, in row-major order.
inline void for_each_index(const Shape& shape,
                           const std::function<void(const std::vector<int64_t>&)>& fn) {
  std::vector<int64_t> index(shape.size(), 0);
  for (int64_t i = 0, n = numel(shape); i < n; ++i) {
    fn(index);
    for (size_t d = shape.size(); d-- > 0;) {
      if (++index[d] < shape[d]) break;
      index[d] = 0;
    }
  }
}

}  // namespace octet::testing
