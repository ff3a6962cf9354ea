#pragma once
// What native kernels share, and their makers.

#include <memory>
#include <string>
#include <utility>

#include "octet/engine/engine.h"
#include "octet/engine/scratch_impl.h"

namespace octet::native {

using engine_detail::ScratchParts;

// 8-bit codes with one scale and zero point.
inline bool eight_bit_per_tensor(const TensorType& t) {
  return (t.dtype == DType::quint8 || t.dtype == DType::qint8) && !t.quantizer->is_per_channel();
}

// What the inner loops need to know of such a type.
struct CodesOf {
  explicit CodesOf(const TensorType& t)
      : scale(static_cast<float>(t.quantizer->scale())),
        inv_scale(1.0f / scale),
        zero_point(static_cast<int32_t>(t.quantizer->zero_point())),
        lo(static_cast<int32_t>(qmin(t.dtype))),
        hi(static_cast<int32_t>(qmax(t.dtype))),
        is_signed(t.dtype == DType::qint8) {}
  float scale, inv_scale;
  int32_t zero_point, lo, hi;
  bool is_signed;
};

// What kernels say of themselves (KernelDescription).
inline constexpr const char* kToCodes = "f(f(sum) * multiplier) to the nearest code, ties to even";
inline constexpr const char* kOneToCodes = "f(value / scale) to the nearest code, ties to even";
inline KernelDescription described(KernelDescription::Arithmetic arithmetic,
                                   std::string rounding = "") {
  KernelDescription d;
  d.arithmetic = arithmetic;
  d.rounding = std::move(rounding);
  return d;
}

// The makers, which engine.cpp lists by operator. Each returns null when the call is not one it
// takes: the types are others, say.
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);           // conv.cpp
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);         // linear.cpp
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);         // matmul.cpp
std::unique_ptr<Kernel> make_dynamic(const OpSpec& spec);        // dynamic.cpp
std::unique_ptr<Kernel> make_weight_only(const OpSpec& spec);    // weight_only.cpp
std::unique_ptr<Kernel> make_linear_blocks(const OpSpec& spec);  // linear_blocks.cpp
std::unique_ptr<Kernel> make_lstm(const OpSpec& spec);           // lstm.cpp
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);           // pool.cpp
std::unique_ptr<Kernel> make_binary(const OpSpec& spec);         // elementwise.cpp
std::unique_ptr<Kernel> make_quantize(const OpSpec& spec);       // elementwise.cpp
std::unique_ptr<Kernel> make_dequantize(const OpSpec& spec);     // elementwise.cpp
std::unique_ptr<Kernel> make_lookup(const OpSpec& spec);         // elementwise.cpp
std::unique_ptr<Kernel> make_cat(const OpSpec& spec);            // cat.cpp
std::unique_ptr<Kernel> make_permute(const OpSpec& spec);        // permute.cpp
std::unique_ptr<Kernel> make_move(const OpSpec& spec);           // move.cpp
std::unique_ptr<Kernel> make_resize(const OpSpec& spec);         // resize.cpp
std::unique_ptr<Kernel> make_reduce(const OpSpec& spec);         // reduce.cpp
std::unique_ptr<Kernel> make_float_conv(const OpSpec& spec);     // float_conv.cpp
std::unique_ptr<Kernel> make_float_product(const OpSpec& spec);  // float_product.cpp
std::unique_ptr<Kernel> make_float_pool(const OpSpec& spec);     // float_pool.cpp
std::unique_ptr<Kernel> make_float_binary(const OpSpec& spec);   // rows.cpp
std::unique_ptr<Kernel> make_float_clamp(const OpSpec& spec);    // rows.cpp
std::unique_ptr<Kernel> make_float_unary(const OpSpec& spec);    // rows.cpp
std::unique_ptr<Kernel> make_float_rows(const OpSpec& spec);     // rows.cpp
std::unique_ptr<Kernel> make_float_norm(const OpSpec& spec);     // norms.cpp

}  // namespace octet::native
