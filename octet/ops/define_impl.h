#pragma once
// Parts that many operator definitions share: conversions around an evaluation.

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/ops/iterate_impl.h"
#include "octet/ops/op.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::ops {

// A new handle on the same data. Results never share a handle with an operand: autograd and tracing
// hang on handles.
inline Tensor fresh(const Tensor& x) {
  std::vector<int64_t> dims(x.dim());
  for (size_t d = 0; d < dims.size(); ++d) dims[d] = static_cast<int64_t>(d);
  return x.permute(dims);
}

using octet::same_qparams;
// Whether the codes of x mean the same as those of `type`.
inline bool same_qparams(const Tensor& x, const TensorType& type) {
  return x.is_quantized() && x.dtype() == type.dtype && *x.quantizer() == *type.quantizer;
}

// Whether a type has codes of 8 bits, or of 8 or 16 bits, with one scale and zero point.
inline bool is_byte_affine(const TensorType& t) {
  return is_8_bit(t.dtype) && !t.quantizer->is_per_channel();
}
inline bool is_affine(const TensorType& t) {
  return is_activation_dtype(t.dtype) && !t.quantizer->is_per_channel();
}

// y as the wanted type: quantized, requantized or dequantized where that differs.
inline Tensor as_result(const Tensor& y, const TensorType& type) {
  if (!type.is_quantized()) return y.is_quantized() ? y.dequantize().to(type.dtype) : y;
  return same_qparams(y, type) ? y : quantize(y.dequantize(), type.quantizer, type.dtype);
}

// Dequantize, evaluate in float32, quantize: the contract of operators without integer arithmetic
// of their own.
inline std::vector<Tensor> through_float_all(const Call& c) {
  std::vector<Tensor> inputs;
  for (const Tensor& t : c.inputs())
    inputs.push_back(t.defined() && t.is_quantized() ? t.dequantize() : t);
  std::vector<TensorType> types = c.outputs();
  for (TensorType& t : types)
    if (t.is_quantized()) t = TensorType(DType::float32, t.dims);
  std::vector<Tensor> results =
      c.op().eval()(Call(c.op(), std::move(inputs), c.attrs(), std::move(types)));
  for (size_t i = 0; i < results.size(); ++i) results[i] = as_result(results[i], c.outputs()[i]);
  return results;
}
inline Tensor through_float(const Call& c) { return through_float_all(c)[0]; }

// x as `dtype`; int64 becomes narrower integers by its low bits, as integers wrap.
inline Tensor wrapped(const Tensor& x, DType dtype) {
  const auto low_bits = [&](auto zero) {
    using T = decltype(zero);
    Tensor y = Tensor::empty(x.shape(), dtype, nullptr, format_of(x));
    map_into<int64_t, T>(x, y, [](int64_t v) { return static_cast<T>(v); });
    return y;
  };
  if (x.dtype() == DType::int64) switch (dtype) {
      case DType::int8:
        return low_bits(int8_t{});
      case DType::uint8:
        return low_bits(uint8_t{});
      case DType::int16:
        return low_bits(int16_t{});
      case DType::uint16:
        return low_bits(uint16_t{});
      default:
        break;
    }
  return x.to(dtype);
}

// An evaluation on operands in the dtypes that arithmetic is done in: float16 and bfloat16 as
// float32; bool and integers of 8 and 16 bits as int64, whose results wrap. The result is converted
// to the dtype that was inferred for it.
inline Eval widened(std::function<Tensor(const Call&)> fn) {
  auto wide = [](DType d) {
    switch (d) {
      case DType::float16:
      case DType::bfloat16:
        return DType::float32;
      case DType::int16:
      case DType::uint16:
      case DType::int8:
      case DType::uint8:
      case DType::bool_:
        return DType::int64;
      default:
        return d;
    }
  };
  return eval([fn = std::move(fn), wide](const Call& c) {
    bool any = false;
    for (const Tensor& t : c.inputs()) any |= t.defined() && wide(t.dtype()) != t.dtype();
    if (!any) return fn(c);
    std::vector<Tensor> inputs;
    for (const Tensor& t : c.inputs()) inputs.push_back(t.defined() ? t.to(wide(t.dtype())) : t);
    const TensorType& type = c.outputs()[0];
    Tensor y =
        fn(Call(c.op(), std::move(inputs), c.attrs(), {TensorType(wide(type.dtype), type.dims)}));
    return wrapped(y, type.dtype);
  });
}

// The dtype of a plain result: that of x, or float32 for what is quantized.
inline DType plain_dtype(const TensorType& x) {
  return x.is_quantized() ? DType::float32 : x.dtype;
}

// Error unless x is floating (or quantized, which computes in float32).
inline void need_floating(const Types& t, size_t i = 0) {
  OCTET_CHECK(t[i].is_quantized() || is_floating(t[i].dtype), invalid_argument,
              "{}: operand '{}' is {}; expected a floating dtype: convert it with to()",
              t.op().name(), t.op().params()[i].name, to_string(t[i]));
}

// Error unless the first two operands are float32: of the operators that compute gradients of
// layers, whose kernels know no other dtype.
inline void need_float32(const Types& t) {
  for (size_t i = 0; i < 2; ++i)
    OCTET_CHECK(t[i].dtype == DType::float32, invalid_argument,
                "{}: operand '{}' is {}; expected float32: convert it with to()", t.op().name(),
                t.op().params()[i].name, to_string(t[i]));
}

// Error if an operand but the first is quantized, the first is not, and no qparams were given for
// the result.
inline void need_want(const Types& t) {
  for (size_t i = 1; i < t.size() && !t.want() && !t[0].is_quantized(); ++i)
    OCTET_CHECK(!t.has(i) || !t[i].is_quantized(), invalid_argument,
                "{}: an operand is {} but no scale and zero point were given for the result: "
                "dequantize the operand or "
                "ask for a quantized result",
                t.op().name(), to_string(t[i]));
}

// "(2, N, 8)": dims in messages.
inline std::string dims_text(const std::vector<Dim>& dims) {
  std::vector<std::string> parts;
  for (const Dim& d : dims) parts.push_back(octet::to_string(d));
  return fmt::format("({})", fmt::join(parts, ", "));
}

// The result type of an operator that moves elements. `axis_of` tells where a channel axis goes, -1
// if it is lost.
inline TensorType moved(const Types& t, std::vector<Dim> dims,
                        const std::function<int64_t(int64_t)>& axis_of) {
  TensorType type = t.result(std::move(dims), t[0].dtype);
  if (t.want() || !type.is_quantized() || !type.quantizer->is_per_channel()) return type;
  int64_t axis = axis_of(type.quantizer->axis());
  OCTET_CHECK(axis >= 0, invalid_argument,
              "{}: the operand is quantized per channel along dimension {} of {}, whose channels "
              "do not keep "
              "their places: dequantize it first, or quantize it per tensor",
              t.op().name(), type.quantizer->axis(), dims_text(t[0].dims));
  type.quantizer = type.quantizer->with_axis(axis);
  return type;
}

}  // namespace octet::ops
