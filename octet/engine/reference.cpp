// The reference engine: the definitions of docs/numerics.md in the plainest loops, row-major, one thread. It is the oracle
// of every other engine, so nothing here is clever.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/engines_impl.h"
#include "octet/engine/geometry_impl.h"
#include "octet/tensor/affine.h"

namespace octet {
namespace {

using engine_detail::IntegerWeights;
using engine_detail::Window;

// The code at index i of 8-bit data.
int32_t code(const void* data, int64_t i, bool is_signed) {
  return is_signed ? static_cast<const int8_t*>(data)[i] : static_cast<const uint8_t*>(data)[i];
}

int32_t add_wrapping(int32_t a, int64_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

float activate(float v, const std::string& activation) {
  if (activation == "relu") return v > 0 ? v : 0;
  if (activation == "relu6") return v > 6 ? 6 : v > 0 ? v : 0;
  return v;
}

using RunFn = std::function<void(std::span<const void* const>, std::span<void* const>)>;

class ReferencePlan final : public KernelPlan {
 public:
  explicit ReferencePlan(RunFn fn) : fn_(std::move(fn)) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override { fn_(inputs, outputs); }

 private:
  RunFn fn_;
};

// A kernel whose plan is a function of the shapes.
class ReferenceKernel final : public Kernel {
 public:
  using PlanFn = std::function<RunFn(const std::vector<Shape>&, const std::vector<Shape>&)>;
  ReferenceKernel(std::string name, PlanFn fn, std::vector<std::string> warnings = {})
      : name_(std::move(name)), fn_(std::move(fn)), warnings_(std::move(warnings)) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "reference"; }
  bool packs(size_t i) const override { return i > 0; }
  std::vector<std::string> warnings() const override { return warnings_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in, const std::vector<Shape>& out) const override {
    return std::make_unique<ReferencePlan>(fn_(in, out));
  }

 private:
  std::string name_;
  PlanFn fn_;
  std::vector<std::string> warnings_;
};

bool is_float_call(const OpSpec& spec) {
  for (const TensorType& t : {spec.inputs[0], spec.inputs[1], spec.has(2) ? spec.inputs[2] : spec.inputs[1], spec.outputs[0]})
    if (t.dtype != DType::float32) return false;
  return true;
}

// One output element: the integer sum, then the requantization.
void store_requantized(const IntegerWeights& w, int64_t channel, int32_t acc, void* y, int64_t i) {
  int32_t q = affine::requantize(add_wrapping(acc, w.bias[channel]), w.multiplier[channel], w.y_zero_point, w.lo, w.hi);
  static_cast<uint8_t*>(y)[i] = static_cast<uint8_t>(q);
}

std::unique_ptr<Kernel> linear(const OpSpec& spec) {
  Shape weight = spec.inputs[1].shape();
  int64_t n_out = weight[0], k_in = weight[1];
  if (engine_detail::is_integer_call(spec)) {
    auto w = std::make_shared<IntegerWeights>(engine_detail::integer_weights(spec));
    return std::make_unique<ReferenceKernel>("linear", [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
      int64_t m = k_in ? numel(in[0]) / k_in : 0;
      return [=](auto inputs, auto outputs) {
        for (int64_t i = 0; i < m; ++i)
          for (int64_t n = 0; n < n_out; ++n) {
            int32_t acc = 0;
            for (int64_t k = 0; k < k_in; ++k)
              acc = add_wrapping(acc, int64_t{code(inputs[0], i * k_in + k, w->x_signed) - w->x_zero_point} *
                                          (w->codes[n * k_in + k] - w->zero_points[n]));
            store_requantized(*w, n, acc, outputs[0], i * n_out + n);
          }
      };
    }, w->warnings);
  }
  if (!is_float_call(spec)) return nullptr;
  Tensor w = spec.constants[1].defined() ? spec.constants[1].contiguous() : Tensor();
  Tensor b = spec.has(2) && spec.constants[2].defined() ? spec.constants[2].contiguous() : Tensor();
  std::string activation = spec.attrs.get_string("activation");
  bool has_bias = spec.has(2);
  return std::make_unique<ReferenceKernel>("linear", [=](const std::vector<Shape>& in, const std::vector<Shape>&) -> RunFn {
    int64_t m = k_in ? numel(in[0]) / k_in : 0;
    return [=](auto inputs, auto outputs) {
      const auto* x = static_cast<const float*>(inputs[0]);
      const float* weights = w.defined() ? w.template data<float>() : static_cast<const float*>(inputs[1]);
      const float* bias = !has_bias ? nullptr : b.defined() ? b.template data<float>() : static_cast<const float*>(inputs[2]);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t n = 0; n < n_out; ++n) {
          double acc = bias ? bias[n] : 0;
          for (int64_t k = 0; k < k_in; ++k) acc += static_cast<double>(x[i * k_in + k]) * weights[n * k_in + k];
          static_cast<float*>(outputs[0])[i * n_out + n] = activate(static_cast<float>(acc), activation);
        }
    };
  });
}

// Calls fn(output index, batch, group, channel, oy, ox) for every output of a conv, row-major.
template <typename Fn>
void for_each_output(const Shape& y, int64_t groups, Fn&& fn) {
  int64_t i = 0, per_group = y[1] / groups;
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t c = 0; c < y[1]; ++c)
      for (int64_t oy = 0; oy < y[2]; ++oy)
        for (int64_t ox = 0; ox < y[3]; ++ox) fn(i++, n, c / per_group, c, oy, ox);
}

// Calls fn(index in x, index in weight) for every product of one output; taps outside the image are skipped (their value
// is the real number 0).
template <typename Fn>
void for_each_product(const Window& w, const Shape& x, int64_t in_per_group, int64_t n, int64_t group, int64_t channel,
                      int64_t oy, int64_t ox, Fn&& fn) {
  for (int64_t i = 0; i < in_per_group; ++i)
    for (int64_t ky = 0; ky < w.kh; ++ky)
      for (int64_t kx = 0; kx < w.kw; ++kx) {
        int64_t iy = oy * w.sh - w.ph + ky * w.dh, ix = ox * w.sw - w.pw + kx * w.dw;
        if (iy < 0 || iy >= x[2] || ix < 0 || ix >= x[3]) continue;
        int64_t c = group * in_per_group + i;
        fn(((n * x[1] + c) * x[2] + iy) * x[3] + ix, ((channel * in_per_group + i) * w.kh + ky) * w.kw + kx);
      }
}

std::unique_ptr<Kernel> conv(const OpSpec& spec) {
  Window window = engine_detail::conv_window(spec);
  int64_t groups = spec.attrs.get_int("groups"), in_per_group = spec.inputs[1].shape()[1];
  if (engine_detail::is_integer_call(spec)) {
    auto w = std::make_shared<IntegerWeights>(engine_detail::integer_weights(spec));
    return std::make_unique<ReferenceKernel>("conv2d", [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
      return [=, x = in[0], y = out[0]](auto inputs, auto outputs) {
        for_each_output(y, groups, [&](int64_t i, int64_t n, int64_t g, int64_t c, int64_t oy, int64_t ox) {
          int32_t acc = 0;
          for_each_product(window, x, in_per_group, n, g, c, oy, ox, [&](int64_t xi, int64_t wi) {
            acc = add_wrapping(acc, int64_t{code(inputs[0], xi, w->x_signed) - w->x_zero_point} *
                                        (w->codes[wi] - w->zero_points[c]));
          });
          store_requantized(*w, c, acc, outputs[0], i);
        });
      };
    }, w->warnings);
  }
  if (!is_float_call(spec)) return nullptr;
  Tensor w = spec.constants[1].defined() ? spec.constants[1].contiguous() : Tensor();
  Tensor b = spec.has(2) && spec.constants[2].defined() ? spec.constants[2].contiguous() : Tensor();
  std::string activation = spec.attrs.get_string("activation");
  bool has_bias = spec.has(2);
  return std::make_unique<ReferenceKernel>("conv2d", [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
    return [=, xs = in[0], ys = out[0]](auto inputs, auto outputs) {
      const auto* x = static_cast<const float*>(inputs[0]);
      const float* weights = w.defined() ? w.template data<float>() : static_cast<const float*>(inputs[1]);
      const float* bias = !has_bias ? nullptr : b.defined() ? b.template data<float>() : static_cast<const float*>(inputs[2]);
      for_each_output(ys, groups, [&](int64_t i, int64_t n, int64_t g, int64_t c, int64_t oy, int64_t ox) {
        double acc = bias ? bias[c] : 0;
        for_each_product(window, xs, in_per_group, n, g, c, oy, ox,
                         [&](int64_t xi, int64_t wi) { acc += static_cast<double>(x[xi]) * weights[wi]; });
        static_cast<float*>(outputs[0])[i] = activate(static_cast<float>(acc), activation);
      });
    };
  });
}

// Pools, on codes or floats. A window is rows y0..y1 and columns x0..x1 of step dh, dw, plus the count it divides by.
struct Cell {
  std::vector<int64_t> rows, columns;
  int64_t count = 0;
};

using CellFn = std::function<Cell(int64_t oy, int64_t ox, const Shape& x, const Shape& y)>;

CellFn window_cells(const OpSpec& spec) {
  Window w = engine_detail::pool_window(spec);
  bool include_pad = spec.attrs.has("count_include_pad") && spec.attrs.get_bool("count_include_pad");
  return [=](int64_t oy, int64_t ox, const Shape& x, const Shape&) {
    Cell cell;
    int64_t padded_rows = 0, padded_columns = 0;
    for (int64_t i = 0; i < w.kh; ++i) {
      int64_t iy = oy * w.sh - w.ph + i * w.dh;
      if (iy >= 0 && iy < x[2]) cell.rows.push_back(iy);
      if (iy < x[2] + w.ph_end) ++padded_rows;
    }
    for (int64_t j = 0; j < w.kw; ++j) {
      int64_t ix = ox * w.sw - w.pw + j * w.dw;
      if (ix >= 0 && ix < x[3]) cell.columns.push_back(ix);
      if (ix < x[3] + w.pw_end) ++padded_columns;
    }
    cell.count = include_pad ? padded_rows * padded_columns : static_cast<int64_t>(cell.rows.size() * cell.columns.size());
    return cell;
  };
}

CellFn adaptive_cells() {
  return [](int64_t oy, int64_t ox, const Shape& x, const Shape& y) {
    Cell cell;
    for (int64_t i = oy * x[2] / y[2]; i < ((oy + 1) * x[2] + y[2] - 1) / y[2]; ++i) cell.rows.push_back(i);
    for (int64_t j = ox * x[3] / y[3]; j < ((ox + 1) * x[3] + y[3] - 1) / y[3]; ++j) cell.columns.push_back(j);
    cell.count = static_cast<int64_t>(cell.rows.size() * cell.columns.size());
    return cell;
  };
}

// Calls fn(output index, cell, offset of the plane in x).
template <typename Fn>
void for_each_cell(const Shape& x, const Shape& y, const CellFn& cells, Fn&& fn) {
  int64_t i = 0;
  for (int64_t plane = 0; plane < y[0] * y[1]; ++plane)
    for (int64_t oy = 0; oy < y[2]; ++oy)
      for (int64_t ox = 0; ox < y[3]; ++ox) fn(i++, cells(oy, ox, x, y), plane * x[2] * x[3]);
}

std::unique_ptr<Kernel> pool(const OpSpec& spec) {
  const TensorType &tx = spec.inputs[0], &ty = spec.outputs[0];
  bool max = spec.op == "max_pool2d";
  CellFn cells = spec.op == "adaptive_avg_pool2d" ? adaptive_cells() : window_cells(spec);
  if (tx.dtype == DType::float32 && ty.dtype == DType::float32) {
    return std::make_unique<ReferenceKernel>(spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
      return [=, x = in[0], y = out[0]](auto inputs, auto outputs) {
        const auto* data = static_cast<const float*>(inputs[0]);
        for_each_cell(x, y, cells, [&](int64_t i, const Cell& cell, int64_t plane) {
          double sum = 0;
          float best = -std::numeric_limits<float>::infinity();
          for (int64_t r : cell.rows)
            for (int64_t c : cell.columns) {
              float v = data[plane + r * x[3] + c];
              best = std::max(best, v);
              sum += v;
            }
          static_cast<float*>(outputs[0])[i] = max ? best : static_cast<float>(sum / static_cast<double>(cell.count));
        });
      };
    });
  }
  if (!tx.is_quantized() || tx.dtype != ty.dtype || element_size(tx.dtype) != 1 || tx.quantizer->is_per_channel()) return nullptr;
  if (max && *tx.quantizer != *ty.quantizer) return nullptr;
  bool is_signed = tx.dtype == DType::qint8, same = *tx.quantizer == *ty.quantizer;
  float sx = static_cast<float>(tx.quantizer->scale()), sy = static_cast<float>(ty.quantizer->scale());
  auto zx = static_cast<int32_t>(tx.quantizer->zero_point()), zy = static_cast<int32_t>(ty.quantizer->zero_point());
  auto lo = static_cast<int32_t>(qmin(ty.dtype)), hi = static_cast<int32_t>(qmax(ty.dtype));
  return std::make_unique<ReferenceKernel>(spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
    return [=, x = in[0], y = out[0]](auto inputs, auto outputs) {
      for_each_cell(x, y, cells, [&](int64_t i, const Cell& cell, int64_t plane) {
        int32_t sum = 0, best = INT32_MIN;
        for (int64_t r : cell.rows)
          for (int64_t c : cell.columns) {
            int32_t q = code(inputs[0], plane + r * x[3] + c, is_signed);
            best = std::max(best, q);
            sum += q - zx;
          }
        float inverse = 1.0f / static_cast<float>(cell.count);
        int32_t q = max ? best : affine::requantize(sum, same ? inverse : sx * inverse / sy, zy, lo, hi);
        static_cast<uint8_t*>(outputs[0])[i] = static_cast<uint8_t>(q);
      });
    };
  });
}

class ReferenceEngine final : public Engine {
 public:
  std::string name() const override { return "reference"; }
  std::unique_ptr<Kernel> make(const OpSpec& spec) const override {
    if (spec.op == "linear") return linear(spec);
    if (spec.op == "conv2d") return conv(spec);
    if (spec.op == "max_pool2d" || spec.op == "avg_pool2d" || spec.op == "adaptive_avg_pool2d") return pool(spec);
    return nullptr;
  }
};

}  // namespace

const Engine& reference_engine() {
  static const ReferenceEngine engine;
  return engine;
}

}  // namespace octet
