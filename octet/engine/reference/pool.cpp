// Pools over two or three spatial dimensions, of floats or codes.
#include <algorithm>
#include <limits>

#include "octet/engine/reference/reference_impl.h"
#include "octet/tensor/affine.h"

namespace octet::reference {
namespace {

// One output's window along one dimension: the places inside the image, and how many places with
// the padding.
struct Span {
  std::vector<int64_t> inside;
  int64_t padded = 0;
};

using Spans = std::array<std::vector<Span>, 3>;  // by dimension and output

Spans window_spans(const engine_detail::Window3& w, const Shape& x, const Shape& y) {
  Spans spans;
  for (size_t d = 0; d < 3; ++d)
    for (int64_t o = 0; o < y[d + 2]; ++o) {
      Span s;
      for (int64_t k = 0; k < w.kernel[d]; ++k) {
        const int64_t i = o * w.stride[d] - w.begin[d] + k * w.dilation[d];
        if (i >= 0 && i < x[d + 2]) s.inside.push_back(i);
        if (i < x[d + 2] + w.end[d]) ++s.padded;  // ceil_mode can reach beyond the padding
      }
      spans[d].push_back(std::move(s));
    }
  return spans;
}

// Cell i of n covers floor(i*size/n) to ceil((i+1)*size/n).
Spans adaptive_spans(const Shape& x, const Shape& y) {
  Spans spans;
  for (size_t d = 0; d < 3; ++d)
    for (int64_t o = 0, n = y[d + 2], size = x[d + 2]; o < n; ++o) {
      Span s;
      for (int64_t i = o * size / n; i < ((o + 1) * size + n - 1) / n; ++i) s.inside.push_back(i);
      s.padded = static_cast<int64_t>(s.inside.size());
      spans[d].push_back(std::move(s));
    }
  return spans;
}

// Calls start(), then value(index in x) for every element of a window, then finish(output index,
// count) for every output, where count is what an average divides by.
template <typename Start, typename Value, typename Finish>
void for_each_window(const Shape& x, const Shape& y, const Spans& spans, bool include_pad,
                     int64_t divisor, Start&& start, Value&& value, Finish&& finish) {
  int64_t i = 0;
  for (int64_t plane = 0; plane < y[0] * y[1]; ++plane)
    for (const Span& z : spans[0])
      for (const Span& r : spans[1])
        for (const Span& c : spans[2]) {
          start();
          for (int64_t iz : z.inside)
            for (int64_t iy : r.inside)
              for (int64_t ix : c.inside) value(((plane * x[2] + iz) * x[3] + iy) * x[4] + ix);
          auto size = static_cast<int64_t>(z.inside.size() * r.inside.size() * c.inside.size());
          finish(i++, divisor > 0 ? divisor : include_pad ? z.padded * r.padded * c.padded : size);
        }
}

}  // namespace

std::unique_ptr<Kernel> make_pool(const OpSpec& spec) {
  const TensorType &tx = spec.inputs[0], &ty = spec.outputs[0];
  const bool max = spec.selects, adaptive = spec.attrs.has("output_size");
  const bool include_pad =
      spec.attrs.has("count_include_pad") && spec.attrs.get_bool("count_include_pad");
  const int64_t divisor =
      spec.attrs.has("divisor_override") ? spec.attrs.get_int("divisor_override") : 0;
  const auto window = adaptive ? engine_detail::Window3() : engine_detail::pool_window3(spec);
  auto spans = [=](const Shape& x, const Shape& y) {
    return adaptive ? adaptive_spans(x, y) : window_spans(window, x, y);
  };
  if (tx.dtype == DType::float32 && ty.dtype == DType::float32) {
    return std::make_unique<ReferenceKernel>(
        spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
          Shape x = engine_detail::with_3_spatial(in[0]), y = engine_detail::with_3_spatial(out[0]);
          return [=, all = spans(x, y)](auto inputs, auto outputs) {
            const auto* data = static_cast<const float*>(inputs[0]);
            float sum = 0, best = 0;
            for_each_window(
                x, y, all, include_pad, divisor,
                [&] {
                  sum = 0;
                  best = -std::numeric_limits<float>::infinity();
                },
                [&](int64_t i) {
                  best = std::max(best, data[i]);
                  sum += data[i];
                },
                [&](int64_t i, int64_t count) {
                  static_cast<float*>(outputs[0])[i] = max ? best : sum / static_cast<float>(count);
                });
          };
        });
  }
  if (!is_activation_dtype(tx.dtype) || tx.dtype != ty.dtype || tx.quantizer->is_per_channel())
    return nullptr;
  if (max && *tx.quantizer != *ty.quantizer) return nullptr;
  const DType dtype = tx.dtype;
  const bool same = *tx.quantizer == *ty.quantizer;
  float sx = static_cast<float>(tx.quantizer->scale()),
        sy = static_cast<float>(ty.quantizer->scale());
  auto zx = static_cast<int32_t>(tx.quantizer->zero_point()),
       zy = static_cast<int32_t>(ty.quantizer->zero_point());
  auto lo = static_cast<int32_t>(qmin(ty.dtype)), hi = static_cast<int32_t>(qmax(ty.dtype));
  return std::make_unique<ReferenceKernel>(
      spec.op, [=](const std::vector<Shape>& in, const std::vector<Shape>& out) -> RunFn {
        Shape x = engine_detail::with_3_spatial(in[0]), y = engine_detail::with_3_spatial(out[0]);
        return [=, all = spans(x, y)](auto inputs, auto outputs) {
          int64_t sum = 0;
          int32_t best = 0;
          for_each_window(
              x, y, all, include_pad, divisor,
              [&] {
                sum = 0;
                best = INT32_MIN;
              },
              [&](int64_t i) {
                int32_t q = code(inputs[0], i, dtype);
                best = std::max(best, q);
                sum += q - zx;
              },
              [&](int64_t i, int64_t count) {
                float inverse = 1.0f / static_cast<float>(count);
                int32_t q =
                    max ? best
                        : affine::requantize(sum, same ? inverse : sx * inverse / sy, zy, lo, hi);
                store_code(outputs[0], i, dtype, q);
              });
        };
      });
}

}  // namespace octet::reference
