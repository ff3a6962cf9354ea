#pragma once
// What native kernels share, and their makers.

#include <memory>
#include <string>
#include <utility>

#include "octet/engine/engine.h"
#include "octet/engine/scratch_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {

using engine_detail::ScratchParts;

// Codes of 8 bits, or of 8 or 16 bits, with one scale and zero point.
inline bool eight_bit_per_tensor(const TensorType& t) {
  return is_8_bit(t.dtype) && !t.quantizer->is_per_channel();
}
inline bool codes_per_tensor(const TensorType& t) {
  return is_activation_dtype(t.dtype) && !t.quantizer->is_per_channel();
}

// What the inner loops need to know of such a type.
struct CodesOf {
  explicit CodesOf(const TensorType& t)
      : scale(static_cast<float>(t.quantizer->scale())),
        inv_scale(1.0f / scale),
        zero_point(static_cast<int32_t>(t.quantizer->zero_point())),
        lo(static_cast<int32_t>(qmin(t.dtype))),
        hi(static_cast<int32_t>(qmax(t.dtype))),
        is_signed(qmin(t.dtype) < 0),
        bytes(static_cast<int64_t>(element_size(t.dtype))) {}
  // Element i of data of such codes.
  const void* at(const void* x, int64_t i) const {
    return static_cast<const std::byte*>(x) + i * bytes;
  }
  void* at(void* x, int64_t i) const { return static_cast<std::byte*>(x) + i * bytes; }
  float scale, inv_scale;
  int32_t zero_point, lo, hi;
  bool is_signed;
  int64_t bytes;  // of a code
};

// n of them to floats, and floats to them.
inline void dequantize(const kernels::KernelTable& table, const CodesOf& c, const void* x, float* y,
                       int64_t n) {
  (c.bytes == 1 ? table.dequantize : table.dequantize16)(x, y, n, c.scale, c.zero_point,
                                                         c.is_signed);
}
inline void quantize(const kernels::KernelTable& table, const CodesOf& c, const float* x, void* y,
                     int64_t n) {
  (c.bytes == 1 ? table.quantize : table.quantize16)(x, y, n, c.inv_scale, c.zero_point, c.lo,
                                                     c.hi);
}

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
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);            // conv.cpp
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);          // linear.cpp
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);          // matmul.cpp
std::unique_ptr<Kernel> make_codes16_conv(const OpSpec& spec);    // codes16.cpp
std::unique_ptr<Kernel> make_codes16_linear(const OpSpec& spec);  // codes16.cpp
std::unique_ptr<Kernel> make_dynamic(const OpSpec& spec);         // dynamic.cpp
std::unique_ptr<Kernel> make_weight_only(const OpSpec& spec);     // weight_only.cpp
std::unique_ptr<Kernel> make_linear_blocks(const OpSpec& spec);   // linear_blocks.cpp
std::unique_ptr<Kernel> make_lstm(const OpSpec& spec);            // lstm.cpp
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);            // pool.cpp
std::unique_ptr<Kernel> make_binary(const OpSpec& spec);          // elementwise.cpp
std::unique_ptr<Kernel> make_add_floats(const OpSpec& spec);      // elementwise.cpp
std::unique_ptr<Kernel> make_quantize(const OpSpec& spec);        // elementwise.cpp
std::unique_ptr<Kernel> make_dequantize(const OpSpec& spec);      // elementwise.cpp
std::unique_ptr<Kernel> make_requantize(const OpSpec& spec);      // elementwise.cpp
std::unique_ptr<Kernel> make_lookup(const OpSpec& spec);          // elementwise.cpp
std::unique_ptr<Kernel> make_cat(const OpSpec& spec);             // cat.cpp
std::unique_ptr<Kernel> make_permute(const OpSpec& spec);         // permute.cpp
std::unique_ptr<Kernel> make_move(const OpSpec& spec);            // move.cpp
std::unique_ptr<Kernel> make_resize(const OpSpec& spec);          // resize.cpp
std::unique_ptr<Kernel> make_reduce(const OpSpec& spec);          // reduce.cpp
std::unique_ptr<Kernel> make_float_conv(const OpSpec& spec);      // float_conv.cpp
std::unique_ptr<Kernel> make_float_product(const OpSpec& spec);   // float_product.cpp
std::unique_ptr<Kernel> make_float_pool(const OpSpec& spec);      // float_pool.cpp
std::unique_ptr<Kernel> make_float_binary(const OpSpec& spec);    // rows.cpp
std::unique_ptr<Kernel> make_float_clamp(const OpSpec& spec);     // rows.cpp
std::unique_ptr<Kernel> make_float_unary(const OpSpec& spec);     // rows.cpp
std::unique_ptr<Kernel> make_float_rows(const OpSpec& spec);      // rows.cpp
std::unique_ptr<Kernel> make_float_norm(const OpSpec& spec);      // norms.cpp

}  // namespace octet::native
