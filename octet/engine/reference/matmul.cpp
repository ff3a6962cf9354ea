// Batched products of two matrices, of floats or codes.
#include <cmath>

#include "octet/engine/reference/reference_impl.h"
#include "octet/tensor/affine.h"

namespace octet::reference {

namespace {
std::unique_ptr<Kernel> float_matmul(const OpSpec& spec) {
  if (!is_float_call(spec) || spec.inputs[0].dim() < 2 || spec.inputs[1].dim() < 2) return nullptr;
  const FloatOperand b(spec, 1);
  return std::make_unique<ReferenceKernel>(
      "matmul", [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        const engine_detail::MatmulGeometry g(in[0], in[1], out[0]);
        return [=](auto inputs, auto outputs) {
          auto* y = static_cast<float*>(outputs[0]);
          for (size_t product = 0; product < g.a.size(); ++product) {
            const float* a = static_cast<const float*>(inputs[0]) + g.a[product] * g.m * g.k;
            const float* w = b.data(inputs) + g.b[product] * g.k * g.n;
            for (int64_t i = 0; i < g.m; ++i)
              for (int64_t j = 0; j < g.n; ++j) {
                float acc = 0;
                for (int64_t k = 0; k < g.k; ++k)
                  acc = std::fma(a[i * g.k + k], w[k * g.n + j], acc);
                *y++ = float_result(acc, "none");
              }
          }
        };
      });
}
}  // namespace

std::unique_ptr<Kernel> make_matmul(const OpSpec& spec) {
  if (!engine_detail::is_integer_matmul(spec)) return float_matmul(spec);
  const TensorType &ta = spec.inputs[0], &tb = spec.inputs[1], &ty = spec.outputs[0];
  const float multiplier = engine_detail::matmul_multiplier(spec);
  return std::make_unique<ReferenceKernel>(
      "matmul",
      [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        const engine_detail::MatmulGeometry g(in[0], in[1], out[0]);
        return [=](auto inputs, auto outputs) {
          const auto za = static_cast<int32_t>(ta.quantizer->zero_point()),
                     zb = static_cast<int32_t>(tb.quantizer->zero_point());
          for (size_t product = 0; product < g.a.size(); ++product)
            for (int64_t i = 0; i < g.m; ++i)
              for (int64_t j = 0; j < g.n; ++j) {
                int64_t acc = 0;
                for (int64_t k = 0; k < g.k; ++k) {
                  const int64_t at_a = (g.a[product] * g.m + i) * g.k + k;
                  const int64_t at_b = (g.b[product] * g.k + k) * g.n + j;
                  acc += int64_t{code(inputs[0], at_a, ta.dtype) - za} *
                         (code(inputs[1], at_b, tb.dtype) - zb);
                }
                const int32_t y = affine::round_and_clamp(
                    static_cast<float>(acc) * multiplier,
                    static_cast<int32_t>(ty.quantizer->zero_point()),
                    static_cast<int32_t>(qmin(ty.dtype)), static_cast<int32_t>(qmax(ty.dtype)));
                store_code(outputs[0], (static_cast<int64_t>(product) * g.m + i) * g.n + j,
                           ty.dtype, y);
              }
        };
      },
      std::vector<std::string>(), sums_in_64_bits());
}

}  // namespace octet::reference
