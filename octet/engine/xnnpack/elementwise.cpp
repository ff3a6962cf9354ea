// mul, and unary operators that clamp codes.
#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/xnnpack/xnnpack_impl.h"

namespace octet::xnnpack {
namespace {

bool eight_bit_per_tensor(const TensorType& t) {
  return (t.dtype == DType::quint8 || t.dtype == DType::qint8) && !t.quantizer->is_per_channel();
}

}  // namespace

// XNNPACK's multiplier is f(f(s_a*s_b)/s_y), octet's f(f(s_a*s_b)*f(1/s_y)): it is given octet's
// product as the scale of a, and scales of 1 beside it.
std::unique_ptr<Kernel> make_mul(const OpSpec& spec) {
  if (kOnArm) return nullptr;
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  for (const TensorType* t : {&a, &b, &y})
    if (!eight_bit_per_tensor(*t) || t->dtype != y.dtype || t->dims != y.dims) return nullptr;
  auto scale = [](const TensorType& t) { return static_cast<float>(t.quantizer->scale()); };
  auto zero = [](const TensorType& t) { return static_cast<int32_t>(t.quantizer->zero_point()); };
  const float multiplier = scale(a) * scale(b) * (1.0f / scale(y));
  if (!(multiplier >= 0x1p-16f && multiplier < 256)) return nullptr;  // which XNNPACK refuses
  const engine_detail::CodeRange range =
      engine_detail::activation_range(spec.attrs.get_string("activation"), y);
  const bool is_signed = y.dtype == DType::qint8;
  auto make = [&]<typename T>(auto create_operator, T) {
    auto code = [](int32_t v) { return static_cast<T>(v); };
    return create(create_operator, code(zero(a)), multiplier, code(zero(b)), 1.0f, code(zero(y)),
                  1.0f, code(range.lo), code(range.hi), 0);
  };
  Operator op = is_signed ? make(xnn_create_multiply_nd_qs8, int8_t{})
                          : make(xnn_create_multiply_nd_qu8, uint8_t{});
  if (!op) return nullptr;
  return std::make_unique<XnnKernel>(
      XnnKernel::Traits{
          .name = "mul",
          .input = Layout::any,
          .output = Layout::any,
          .description = {.arithmetic = KernelDescription::Arithmetic::codes_in_float}},
      std::move(op),
      [is_signed](const std::vector<Shape>&, const std::vector<Shape>& out) -> XnnKernel::Setup {
        return [=, n = static_cast<size_t>(numel(out[0]))](
                   xnn_operator_t o, const std::vector<const void*>& x, void* result) {
          return is_signed
                     ? xnn_setup_multiply_nd_qs8(o, 1, &n, 1, &n, static_cast<const int8_t*>(x[0]),
                                                 static_cast<const int8_t*>(x[1]),
                                                 static_cast<int8_t*>(result), nullptr)
                     : xnn_setup_multiply_nd_qu8(o, 1, &n, 1, &n, static_cast<const uint8_t*>(x[0]),
                                                 static_cast<const uint8_t*>(x[1]),
                                                 static_cast<uint8_t*>(result), nullptr);
        };
      });
}

// relu, relu6 and clamp keep qparams, so that their table is a clamp of codes.
std::unique_ptr<Kernel> make_clamp(const OpSpec& spec) {
  if (spec.table.size() != 256 || spec.inputs[0].dtype != spec.outputs[0].dtype) return nullptr;
  const bool is_signed = spec.inputs[0].dtype == DType::qint8;
  auto result = [&](int32_t code) -> int32_t {
    const uint8_t q = spec.table[static_cast<uint8_t>(code)];
    return is_signed ? static_cast<int8_t>(q) : q;
  };
  const int32_t first = is_signed ? -128 : 0, last = first + 255;
  const int32_t lo = result(first), hi = result(last);
  for (int32_t code = first; code <= last; ++code)
    if (lo >= hi || result(code) != std::clamp(code, lo, hi)) return nullptr;
  Operator op = is_signed ? create(xnn_create_clamp_nc_s8, 1, 1, 1, static_cast<int8_t>(lo),
                                   static_cast<int8_t>(hi), 0)
                          : create(xnn_create_clamp_nc_u8, 1, 1, 1, static_cast<uint8_t>(lo),
                                   static_cast<uint8_t>(hi), 0);
  if (!op) return nullptr;
  return std::make_unique<XnnKernel>(
      XnnKernel::Traits{.name = spec.op + " of codes",
                        .input = Layout::any,
                        .output = Layout::any,
                        .description = {.arithmetic = KernelDescription::Arithmetic::moves}},
      std::move(op),
      [is_signed](const std::vector<Shape>&, const std::vector<Shape>& out) -> XnnKernel::Setup {
        return [=, n = static_cast<size_t>(numel(out[0]))](
                   xnn_operator_t o, const std::vector<const void*>& x, void* y) {
          return is_signed ? xnn_setup_clamp_nc_s8(o, n, static_cast<const int8_t*>(x[0]),
                                                   static_cast<int8_t*>(y), nullptr)
                           : xnn_setup_clamp_nc_u8(o, n, static_cast<const uint8_t*>(x[0]),
                                                   static_cast<uint8_t*>(y), nullptr);
        };
      });
}

}  // namespace octet::xnnpack
