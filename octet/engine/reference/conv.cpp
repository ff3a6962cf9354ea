// Convolutions of one to three spatial dimensions, plain and transposed.
#include <cmath>

#include "octet/engine/reference/reference_impl.h"
#include "octet/engine/winograd_tiles_impl.h"

namespace octet::reference {
namespace {

using engine_detail::Window;
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

// Winograd's F(2x2, 3x3), a tile and a channel at a time, step by step as docs/numerics.md has it.
class FloatTiles {
 public:
  using Tile = std::array<std::array<float, 4>, 4>;

  FloatTiles(const OpSpec& spec, const Shape& x, const Shape& y)
      : window_(engine_detail::conv_window(spec)),
        x_(x),
        y_(y),
        activation_(spec.attrs.get_string("activation")) {}

  void run(const float* x, const float* weight, const float* bias, float* y) const {
    const int64_t channels = x_[1];
    std::vector<Tile> d(channels), weights(y_[1] * channels);
    for (size_t i = 0; i < weights.size(); ++i)
      weights[i] = both_ways(taps(weight + i * 9), of_weight);
    for (int64_t n = 0; n < y_[0]; ++n)
      for (const int32_t top : starts(y_[2], window_.dh))
        for (const int32_t left : starts(y_[3], window_.dw)) {
          for (int64_t c = 0; c < channels; ++c)
            d[c] = both_ways(pixels(x + (n * channels + c) * x_[2] * x_[3], top, left), of_x);
          for (int64_t oc = 0; oc < y_[1]; ++oc) {
            const Tile* u = &weights[oc * channels];
            Tile m{};
            if (bias) m[1][1] = bias[oc];
            for (int64_t c = 0; c < channels; ++c)
              for (size_t i = 0; i < 4; ++i)
                for (size_t j = 0; j < 4; ++j) m[i][j] = std::fma(d[c][i][j], u[c][i][j], m[i][j]);
            store(both_ways(m, of_y), y + (n * y_[1] + oc) * y_[2] * y_[3], top, left);
          }
        }
  }

 private:
  using Line = std::array<float, 4>;  // the first few are used

  static Line of_x(const Line& d) { return {d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]}; }
  static Line of_weight(const Line& g) {
    const float ends = g[0] + g[2];
    return {g[0], (ends + g[1]) / 2, (ends - g[1]) / 2, g[2]};
  }
  static Line of_y(const Line& m) { return {m[0] + m[1] + m[2], m[1] - m[2] - m[3]}; }
  // The columns, then the rows of what comes out.
  static Tile both_ways(const Tile& from, Line (*transform)(const Line&)) {
    Tile half{}, to{};
    for (size_t j = 0; j < 4; ++j) {
      const Line column = transform({from[0][j], from[1][j], from[2][j], from[3][j]});
      for (size_t i = 0; i < 4; ++i) half[i][j] = column[i];
    }
    for (size_t i = 0; i < 4; ++i) to[i] = transform(half[i]);
    return to;
  }

  static std::vector<int32_t> starts(int64_t size, int64_t dilation) {
    return engine_detail::tile_starts(size, dilation, engine_detail::kFloatTile);
  }
  static Tile taps(const float* w) {
    Tile g{};
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j) g[i][j] = w[3 * i + j];
    return g;
  }
  Tile pixels(const float* x, int64_t top, int64_t left) const {
    Tile d{};
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) {
        const int64_t row = top - window_.ph + static_cast<int64_t>(i) * window_.dh,
                      column = left - window_.pw + static_cast<int64_t>(j) * window_.dw;
        if (row >= 0 && row < x_[2] && column >= 0 && column < x_[3])
          d[i][j] = x[row * x_[3] + column];
      }
    return d;
  }
  void store(const Tile& results, float* y, int64_t top, int64_t left) const {
    for (size_t i = 0; i < 2; ++i)
      for (size_t j = 0; j < 2; ++j) {
        const int64_t row = top + static_cast<int64_t>(i) * window_.dh,
                      column = left + static_cast<int64_t>(j) * window_.dw;
        if (row < y_[2] && column < y_[3])
          y[row * y_[3] + column] = float_result(results[i][j], activation_);
      }
  }

  Window window_;
  Shape x_, y_;
  std::string activation_;
};

std::unique_ptr<Kernel> float_conv(const OpSpec& spec, const Geometry& g) {
  FloatOperand w(spec, 1), b(spec, 2);
  std::string activation = spec.attrs.get_string("activation");
  const bool may_take_tiles = engine_detail::may_take_float_winograd(spec) &&
                              engine_detail::all_finite(spec.constants[1].contiguous());
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        if (may_take_tiles && engine_detail::float_winograd_pays(engine_detail::conv_window(spec),
                                                                 out[0][2], out[0][3]))
          return [=, tiles = FloatTiles(spec, in[0], out[0])](auto inputs, auto outputs) {
            tiles.run(static_cast<const float*>(inputs[0]), w.data(inputs), b.data(inputs),
                      static_cast<float*>(outputs[0]));
          };
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
