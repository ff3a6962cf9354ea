// Linear layers: float, integer, dynamic and weight-only ones, and gradients.
#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/engine/reference/reference_impl.h"
#include "octet/tensor/affine.h"

namespace octet::reference {

using engine_detail::IntegerWeights;

bool is_float_call(const OpSpec& spec) {
  for (const TensorType& t : {spec.inputs[0], spec.inputs[1],
                              spec.has(2) ? spec.inputs[2] : spec.inputs[1], spec.outputs[0]})
    if (t.dtype != DType::float32) return false;
  return true;
}

void store_requantized(const IntegerWeights& w, int64_t channel, int64_t acc, void* y, int64_t i) {
  const int64_t sum = acc + w.bias[channel];
  store_code(y, i, w.y_dtype,
             affine::requantize(sum, w.multiplier[channel], w.y_zero_point, w.lo, w.hi));
}

DynamicCodes::DynamicCodes(const float* x, int64_t n, const engine_detail::RunTimeRule& rule,
                           const std::string& label)
    : codes(n) {
  float min = 0, max = 0;
  int64_t not_finite = 0;
  for (int64_t i = 0; i < n; ++i) {
    not_finite += !std::isfinite(x[i]);
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
  }
  const affine::RunTimeQParams chosen = rule.qparams(min, max, not_finite, label);
  scale = static_cast<float>(chosen.scale);
  zero_point = chosen.zero_point;
  for (int64_t i = 0; i < n; ++i) codes[i] = rule.code(x[i], chosen);
}

DynamicCodes::DynamicCodes(const TensorType& type, const void* x, int64_t n,
                           const engine_detail::RunTimeRule& rule, const std::string& label) {
  if (!type.is_quantized()) {
    *this = DynamicCodes(static_cast<const float*>(x), n, rule, label);
    return;
  }
  scale = static_cast<float>(type.quantizer->scale());
  zero_point = static_cast<int32_t>(type.quantizer->zero_point());
  for (int64_t i = 0; i < n; ++i) codes.push_back(code(x, i, type.dtype));
}

// The gradients of linear: dx = dy * w, dw = dy^T * x, and db = the sum of dy.
std::unique_ptr<Kernel> make_linear_gradient(const OpSpec& spec) {
  bool data = spec.op == "linear_backward_data";
  const FloatOperand first(spec, 0), second(spec, 1);
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        const Shape& w = data ? in[1] : out[0];
        int64_t n_out = w[0], k_in = w[1], m = n_out ? numel(data ? in[0] : in[1]) / n_out : 0;
        bool bias = !data && numel(out[1]) > 0;
        return [=](auto inputs, auto outputs) {
          Sums sums(numel(out[0])), bias_sums(n_out);
          const float *a = first.data(inputs), *b = second.data(inputs);  // dy, w; or x, dy
          for (int64_t i = 0; i < m; ++i)
            for (int64_t n = 0; n < n_out; ++n) {
              if (bias) bias_sums[n] += b[i * n_out + n];
              for (int64_t k = 0; k < k_in; ++k) {
                if (data)
                  sums[i * k_in + k] += static_cast<double>(a[i * n_out + n]) * b[n * k_in + k];
                else
                  sums[n * k_in + k] += static_cast<double>(b[i * n_out + n]) * a[i * k_in + k];
              }
            }
          sums.store(outputs[0]);
          if (bias) bias_sums.store(outputs[1]);
        };
      });
}

namespace {

// Every row in fixed point, its products with the codes summed exactly.
std::unique_ptr<Kernel> weight_only_linear(const OpSpec& spec) {
  auto w = std::make_shared<engine_detail::WeightCodes>(engine_detail::weight_codes(spec));
  const FloatOperand b(spec, 2);
  const int64_t n_out = w->out_channels, k_in = spec.inputs[1].shape()[1];
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
        const int64_t m = numel(in[0]) / k_in;
        return [=](auto inputs, auto outputs) {
          const float* bias = b.data(inputs);
          for (int64_t i = 0; i < m; ++i) {
            const float* x = static_cast<const float*>(inputs[0]) + i * k_in;
            float* y = static_cast<float*>(outputs[0]) + i * n_out;
            float most = 0;
            bool finite = true;
            for (int64_t k = 0; k < k_in; ++k) {
              finite = finite && std::isfinite(x[k]);
              most = std::max(most, std::abs(x[k]));
            }
            if (!finite) {
              std::fill(y, y + n_out, std::numeric_limits<float>::quiet_NaN());
              continue;
            }
            const int e = engine_detail::fixed_point_exponent(most);
            for (int64_t n = 0; n < n_out; ++n) {
              int64_t exact = 0;
              for (int64_t k = 0; k < k_in; ++k) {
                const auto fixed = std::min<int64_t>(
                    std::llrint(std::ldexp(static_cast<double>(x[k]), e)), (1 << 23) - 1);
                exact += fixed * (w->codes[n * k_in + k] - w->zero_points[n]);
              }
              const double v = static_cast<double>(exact) * static_cast<double>(w->scales[n]) *
                               std::ldexp(1.0, -e);
              y[n] = activate(static_cast<float>(bias ? v + static_cast<double>(bias[n]) : v),
                              activation);
            }
          }
        };
      });
}

}  // namespace

std::unique_ptr<Kernel> make_linear(const OpSpec& spec) {
  Shape weight = spec.inputs[1].shape();
  int64_t n_out = weight[0], k_in = weight[1];
  if (spec.form == WeightForm::dynamic) {
    if (!engine_detail::is_dynamic_call(spec)) return nullptr;
    auto w = std::make_shared<engine_detail::WeightCodes>(engine_detail::weight_codes(spec));
    FloatOperand b(spec, 2);
    std::string activation = spec.attrs.get_string("activation"), label = spec.label;
    const engine_detail::RunTimeRule rule(spec.attrs);
    const TensorType type = spec.inputs[0];
    return std::make_unique<ReferenceKernel>(
        "linear_dynamic",
        [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
          int64_t m = k_in ? numel(in[0]) / k_in : 0;
          return [=](auto inputs, auto outputs) {
            const DynamicCodes x(type, inputs[0], m * k_in, rule, label);
            const float* bias = b.data(inputs);
            for (int64_t i = 0; i < m; ++i)
              for (int64_t n = 0; n < n_out; ++n) {
                int64_t acc = 0;
                for (int64_t k = 0; k < k_in; ++k)
                  acc += int64_t{x.codes[i * k_in + k] - x.zero_point} *
                         (w->codes[n * k_in + k] - w->zero_points[n]);
                static_cast<float*>(outputs[0])[i * n_out + n] =
                    dynamic_result(acc, x.scale * w->scales[n], bias, n, activation);
              }
          };
        },
        std::vector<std::string>(), sums_in_64_bits(true));
  }
  if (spec.form == WeightForm::weight_only)
    return engine_detail::is_weight_only_call(spec) ? weight_only_linear(spec) : nullptr;
  if (engine_detail::is_integer_call(spec)) {
    auto w = std::make_shared<IntegerWeights>(engine_detail::integer_weights(spec));
    return std::make_unique<ReferenceKernel>(
        "linear",
        [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
          int64_t m = k_in ? numel(in[0]) / k_in : 0;
          return [=](auto inputs, auto outputs) {
            for (int64_t i = 0; i < m; ++i)
              for (int64_t n = 0; n < n_out; ++n) {
                int64_t acc = 0;
                for (int64_t k = 0; k < k_in; ++k)
                  acc += int64_t{code(inputs[0], i * k_in + k, w->x_dtype) - w->x_zero_point} *
                         (w->code(n * k_in + k) - w->zero_points[n]);
                store_requantized(*w, n, acc, outputs[0], i * n_out + n);
              }
          };
        },
        w->warnings, sums_in_64_bits());
  }
  if (!is_float_call(spec)) return nullptr;
  FloatOperand w(spec, 1), b(spec, 2);
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<ReferenceKernel>(
      "linear", [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
        int64_t m = k_in ? numel(in[0]) / k_in : 0;
        return [=](auto inputs, auto outputs) {
          const auto* x = static_cast<const float*>(inputs[0]);
          const float *weights = w.data(inputs), *bias = b.data(inputs);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t n = 0; n < n_out; ++n) {
              float acc = bias ? bias[n] : 0;
              for (int64_t k = 0; k < k_in; ++k)
                acc = std::fma(x[i * k_in + k], weights[n * k_in + k], acc);
              static_cast<float*>(outputs[0])[i * n_out + n] = float_result(acc, activation);
            }
        };
      });
}

}  // namespace octet::reference
