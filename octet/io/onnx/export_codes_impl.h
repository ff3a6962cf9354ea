#pragma once
// What the forms that ONNX Runtime has integer kernels for mean in qparams; shared by export and
// import. Not public.

#include <vector>

#include "octet/tensor/type.h"

namespace octet::io::onnx_impl {

// Whether codes of this type hold nothing below 0 or above 1, so that quantizing clips to 0..1 (up
// to half a step).
bool clips_to_one(const TensorType& type);

// 8-bit codes of 0..top, the least code for 0.
TensorType gate_type(DType dtype, const std::vector<Dim>& dims, double top);

// The codes of x times a number: the same ones, of another scale.
TensorType scaled_type(const TensorType& x, double by);

}  // namespace octet::io::onnx_impl
