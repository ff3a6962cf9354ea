// A tensor and a number. On codes these change the qparams and not the values' relation, as
// PyTorch's quantized add_scalar and mul_scalar do.
#include <cmath>

#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

const Quantizer& affine_operand(const Types& t) {
  OCTET_CHECK(!t[0].quantizer->is_per_channel(), invalid_argument,
              "{}: the operand is {}; expected one scale per tensor", t.op().name(),
              to_string(t[0]));
  return *t[0].quantizer;
}

// x + c is the same codes with the zero point moved by c in steps; if that leaves the codes, the
// zero point goes to the nearest code and the scale grows so that all values fit.
TensorType added(const Types& t) {
  double c = t.attrs().get_double("value");
  OCTET_CHECK(std::isfinite(c), invalid_argument, "add_scalar: value {}; expected a finite number",
              c);
  if (!t[0].is_quantized()) return t[0];
  const Quantizer& q = affine_operand(t);
  double lo = static_cast<double>(qmin(t[0].dtype)), hi = static_cast<double>(qmax(t[0].dtype));
  double zero = static_cast<double>(q.zero_point()) - std::nearbyint(c / q.scale()),
         scale = q.scale();
  if (zero < lo) {
    scale *= (hi - zero) / (hi - lo);
    zero = lo;
  } else if (zero > hi) {
    scale *= (zero - lo) / (hi - lo);
    zero = hi;
  }
  return TensorType(t[0].dtype, t[0].dims,
                    Quantizer::per_tensor(scale, static_cast<int64_t>(zero), t[0].dtype));
}

// x * c is the same codes with the scale times |c|, mirrored for a negative c.
TensorType multiplied(const Types& t) {
  double c = t.attrs().get_double("value");
  OCTET_CHECK(std::isfinite(c), invalid_argument, "mul_scalar: value {}; expected a finite number",
              c);
  if (!t[0].is_quantized()) return t[0];
  const Quantizer& q = affine_operand(t);
  int64_t lo = qmin(t[0].dtype), hi = qmax(t[0].dtype);
  if (c == 0)
    return TensorType(t[0].dtype, t[0].dims,
                      Quantizer::per_tensor(1, std::clamp<int64_t>(0, lo, hi), t[0].dtype));
  return TensorType(
      t[0].dtype, t[0].dims,
      Quantizer::per_tensor(q.scale() * std::abs(c),
                            c > 0 ? q.zero_point() : hi + lo - q.zero_point(), t[0].dtype));
}

// The result's codes, each from one of x.
template <typename Fn>
Tensor map_codes(const Tensor& x, const TensorType& type, Fn&& fn) {
  Tensor y = x.clone().int_repr();
  auto each = [&](auto* p) {
    for (int64_t i = 0; i < y.numel(); ++i)
      p[i] = static_cast<std::decay_t<decltype(*p)>>(fn(static_cast<int64_t>(p[i])));
  };
  visit_any(y.dtype(), "codes", [&](auto zero) { each(y.data<decltype(zero)>()); });
  return make_quantized(y, type.quantizer);
}

}  // namespace

OCTET_OP(add_scalar, "add_scalar(x, *, value) -> y", QRule::same, infer(added),
         eval([](const Call& c) {
           Tensor number = Tensor::scalar(c.attrs().get_double("value"), c[0].dtype());
           return call("add", {c[0], number});
         }),
         quantized([](const Call& c) {
           const TensorType& type = c.outputs()[0];
           double steps = std::nearbyint(c.attrs().get_double("value") / c[0].q_scale());
           if (type.quantizer->scale() == c[0].q_scale())
             return make_quantized(c[0].int_repr(), type.quantizer);
           auto zero = static_cast<float>(static_cast<double>(c[0].q_zero_point()) - steps);
           auto scale = static_cast<float>(c[0].q_scale());
           return map_codes(c[0], type, [&](int64_t q) {
             float value = scale * (static_cast<float>(q) - zero);
             return affine::quantize(value, static_cast<float>(type.quantizer->scale()),
                                     static_cast<int32_t>(type.quantizer->zero_point()),
                                     static_cast<int32_t>(qmin(type.dtype)),
                                     static_cast<int32_t>(qmax(type.dtype)));
           });
         }),
         gradient([](const Grad& g) { return g.dy(); }),
         Doc{"x + value; on codes the zero point moves (and the scale grows where it must)"})

OCTET_OP(
    mul_scalar, "mul_scalar(x, *, value) -> y", QRule::same, infer(multiplied),
    eval([](const Call& c) {
      Tensor number = Tensor::scalar(c.attrs().get_double("value"), c[0].dtype());
      return call("mul", {c[0], number});
    }),
    quantized([](const Call& c) {
      const TensorType& type = c.outputs()[0];
      double value = c.attrs().get_double("value");
      if (value > 0) return make_quantized(c[0].int_repr(), type.quantizer);
      int64_t mirror = qmin(type.dtype) + qmax(type.dtype), zero = type.quantizer->zero_point();
      return map_codes(c[0], type, [&](int64_t q) { return value == 0 ? zero : mirror - q; });
    }),
    gradient([](const Grad& g) {
      return call("mul_scalar", {g.dy()}, {{"value", g.attrs().get_double("value")}});
    }),
    Doc{"x * value; on codes the scale changes (and the codes are mirrored for a negative value)"})

}  // namespace octet::ops
