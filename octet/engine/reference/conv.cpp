// Convolutions of one to three spatial dimensions, plain and transposed.
#include <cmath>

#include "octet/engine/reference/reference_impl.h"

namespace octet::reference {
namespace {

using engine_detail::Window3;

// What is summed for each output: where the operands of its products lie.
struct Geometry {
  Window3 window;
  bool transposed = false;
  int64_t groups = 1;
  int64_t in_channels = 1, out_channels = 1;  // of one group
};

Geometry geometry(const OpSpec& spec, const Shape& weight) {
  Geometry g;
  g.window = engine_detail::conv_window3(spec, weight);
  g.transposed = spec.transposed;
  g.groups = spec.attrs.get_int("groups");
  g.in_channels = g.transposed ? weight[0] / g.groups : weight[1];
  g.out_channels = g.transposed ? weight[1] : weight[0] / g.groups;
  return g;
}

// Calls product(index in x, index in weight) for every product of an output of channel c of image
// n, taps outside and input channels inside; those outside the image are skipped, their x being the
// number 0.
template <typename Fn>
void for_each_product(const Geometry& g, const Shape& x, int64_t n, int64_t c,
                      const std::array<int64_t, 3>& at, Fn&& product) {
  const auto& kernel = g.window.kernel;
  const int64_t group = c / g.out_channels;
  for (int64_t kz = 0; kz < kernel[0]; ++kz) {
    const int64_t z = input_place(g.window, g.transposed, 0, at[0], kz, x[2]);
    if (z < 0) continue;
    for (int64_t ky = 0; ky < kernel[1]; ++ky) {
      const int64_t y = input_place(g.window, g.transposed, 1, at[1], ky, x[3]);
      if (y < 0) continue;
      for (int64_t kx = 0; kx < kernel[2]; ++kx) {
        const int64_t column = input_place(g.window, g.transposed, 2, at[2], kx, x[4]);
        if (column < 0) continue;
        for (int64_t i = 0; i < g.in_channels; ++i) {
          const int64_t channel = group * g.in_channels + i;
          const int64_t row =
              g.transposed ? channel * g.out_channels + c % g.out_channels : c * g.in_channels + i;
          product((((n * x[1] + channel) * x[2] + z) * x[3] + y) * x[4] + column,
                  ((row * kernel[0] + kz) * kernel[1] + ky) * kernel[2] + kx);
        }
      }
    }
  }
}

// Calls fn(output index, image, channel, place) for every output, row-major.
template <typename Fn>
void for_each_output(const Shape& y, Fn&& fn) {
  int64_t i = 0;
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t c = 0; c < y[1]; ++c)
      for (int64_t oz = 0; oz < y[2]; ++oz)
        for (int64_t oy = 0; oy < y[3]; ++oy)
          for (int64_t ox = 0; ox < y[4]; ++ox) fn(i++, n, c, std::array<int64_t, 3>{oz, oy, ox});
}

std::unique_ptr<Kernel> integer_conv(const OpSpec& spec, const Geometry& g) {
  auto w = std::make_shared<engine_detail::IntegerWeights>(engine_detail::integer_weights(spec));
  return std::make_unique<ReferenceKernel>(
      spec.op,
      [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        return [=, x = engine_detail::with_3_spatial(in[0]),
                y = engine_detail::with_3_spatial(out[0])](auto inputs, auto outputs) {
          for_each_output(y, [&](int64_t i, int64_t n, int64_t c, const auto& at) {
            int64_t acc = 0;
            for_each_product(g, x, n, c, at, [&](int64_t xi, int64_t wi) {
              acc += int64_t{code(inputs[0], xi, w->x_dtype) - w->x_zero_point} *
                     (w->code(wi) - w->zero_points[c]);
            });
            store_requantized(*w, c, acc, outputs[0], i);
          });
        };
      },
      w->warnings, sums_in_64_bits());
}

std::unique_ptr<Kernel> dynamic_conv(const OpSpec& spec, const Geometry& g) {
  auto w = std::make_shared<engine_detail::WeightCodes>(engine_detail::weight_codes(spec));
  FloatOperand b(spec, 2);
  std::string activation = spec.attrs.get_string("activation"), label = spec.label;
  const engine_detail::RunTimeRule rule(spec.attrs);
  const TensorType type = spec.inputs[0];
  return std::make_unique<ReferenceKernel>(
      spec.op,
      [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        return [=, x = engine_detail::with_3_spatial(in[0]),
                y = engine_detail::with_3_spatial(out[0])](auto inputs, auto outputs) {
          const DynamicCodes q(type, inputs[0], numel(x), rule, label);
          const float* bias = b.data(inputs);
          for_each_output(y, [&](int64_t i, int64_t n, int64_t c, const auto& at) {
            int64_t acc = 0;
            for_each_product(g, x, n, c, at, [&](int64_t xi, int64_t wi) {
              acc += int64_t{q.codes[xi] - q.zero_point} * (w->codes[wi] - w->zero_points[c]);
            });
            static_cast<float*>(outputs[0])[i] =
                dynamic_result(acc, q.scale * w->scales[c], bias, c, activation);
          });
        };
      },
      std::vector<std::string>(), sums_in_64_bits(true));
}

std::unique_ptr<Kernel> float_conv(const OpSpec& spec, const Geometry& g) {
  FloatOperand w(spec, 1), b(spec, 2);
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        return [=, xs = engine_detail::with_3_spatial(in[0]),
                ys = engine_detail::with_3_spatial(out[0])](auto inputs, auto outputs) {
          const auto* x = static_cast<const float*>(inputs[0]);
          const float *weights = w.data(inputs), *bias = b.data(inputs);
          for_each_output(ys, [&](int64_t i, int64_t n, int64_t c, const auto& at) {
            float acc = bias ? bias[c] : 0;
            for_each_product(g, xs, n, c, at, [&](int64_t xi, int64_t wi) {
              acc = std::fma(x[xi], weights[wi], acc);
            });
            static_cast<float*>(outputs[0])[i] = float_result(acc, activation);
          });
        };
      });
}

}  // namespace

// Gradients: dx[xi] += dy[i] * w[wi], or dw[wi] += dy[i] * x[xi], for every product of the
// convolution.
std::unique_ptr<Kernel> make_conv_gradient(const OpSpec& spec) {
  const bool data = spec.op == "conv_backward_data";
  const FloatOperand first(spec, 0), second(spec, 1);
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        const Geometry g = geometry(spec, data ? in[1] : out[0]);
        const Shape x = engine_detail::with_3_spatial(data ? out[0] : in[0]),
                    y = engine_detail::with_3_spatial(in[data ? 0 : 1]);
        const bool bias = !data && numel(out[1]) > 0;
        return [=, size = numel(out[0])](auto inputs, auto outputs) {
          Sums sums(size), bias_sums(y[1]);
          const float *a = first.data(inputs), *b = second.data(inputs);  // dy, w; or x, dy
          for_each_output(y, [&](int64_t i, int64_t n, int64_t c, const auto& at) {
            if (bias) bias_sums[c] += b[i];
            for_each_product(g, x, n, c, at, [&](int64_t xi, int64_t wi) {
              if (data)
                sums[xi] += static_cast<double>(a[i]) * b[wi];
              else
                sums[wi] += static_cast<double>(b[i]) * a[xi];
            });
          });
          sums.store(outputs[0]);
          if (bias) bias_sums.store(outputs[1]);
        };
      });
}

std::unique_ptr<Kernel> make_conv(const OpSpec& spec) {
  if (spec.form == WeightForm::dynamic)
    return engine_detail::is_dynamic_call(spec)
               ? dynamic_conv(spec, geometry(spec, spec.inputs[1].shape()))
               : nullptr;
  if (engine_detail::is_integer_call(spec))
    return integer_conv(spec, geometry(spec, spec.inputs[1].shape()));
  return is_float_call(spec) ? float_conv(spec, geometry(spec, spec.inputs[1].shape())) : nullptr;
}

}  // namespace octet::reference
