#pragma once
// The operators of one number: relu, sigmoid, gelu ... For the engines, which make 256-entry tables
// of them:
//
//  table[q] = quantize(f(dequantize(q)))      with f = unary_function("gelu", attrs)

#include <functional>
#include <optional>
#include <string_view>

#include "octet/ops/op.h"
#include "octet/tensor/attrs.h"

namespace octet::ops {

// Whether `op` maps each number of its only operand to one number: y[i] = f(x[i]).
bool is_unary(std::string_view op);

// The f of a unary operator with the given (complete) attributes, in float32: exactly what the
// operator's float evaluation computes. Error if the operator is not unary.
std::function<float(float)> unary_function(std::string_view op, const Attrs& attrs);

// f(x), for a single number.
float apply_unary(std::string_view op, const Attrs& attrs, float x);

// The qparams of operators whose range is bounded (QRule::fixed): sigmoid, hardsigmoid and softmax
// have scale 1/256 and zero point 0 (qint8: -128), tanh has scale 1/128 and zero point 128 (qint8:
// 0). None for other operators and dtypes.
std::optional<QType> fixed_qtype(std::string_view op, DType dtype);

}  // namespace octet::ops
