// A linear layer whose weight has codes of a few bits, and a scale for each block of inputs.
#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/ops/define_impl.h"

namespace octet::ops {
namespace {

TensorType infer_linear_blocks(const Types& t) {
  const std::string& who = t.op().name();
  const TensorType& x = t[0];
  OCTET_CHECK(x.dtype == DType::float32 && x.dim() >= 1, invalid_argument,
              "{}: x is {}; expected float32 (..., in)", who, to_string(x));
  for (size_t i = 1; i < 5; ++i)
    OCTET_CHECK(!t.has(i) || t[i].is_static(), invalid_argument,
                "{}: {} is {}; expected known sizes", who, t.op().params()[i].name,
                to_string(t[i]));
  const engine_detail::BlockShape s(t.attrs(), t[1], t[2], who);
  OCTET_CHECK(x.dims.back() == Dim(s.k), invalid_argument, "{}: x {} has {} features; expected {}",
              who, to_string(x), to_string(x.dims.back()), s.k);
  OCTET_CHECK(!t.has(3) || (t[3].dtype == DType::float32 && t[3].dims == t[2].dims),
              invalid_argument, "{}: zero_points is {}; expected the type of scales, {}", who,
              t.has(3) ? to_string(t[3]) : "", to_string(t[2]));
  OCTET_CHECK(!t.has(4) || (t[4].dtype == DType::float32 && t[4].dims == std::vector<Dim>{s.n}),
              invalid_argument, "{}: bias is {}; expected Float({})", who,
              t.has(4) ? to_string(t[4]) : "", s.n);
  std::vector<Dim> dims = x.dims;
  dims.back() = Dim(s.n);
  return TensorType(DType::float32, dims);
}

// A row of x in the fixed point of its largest magnitude, as linear_weight_only has it.
struct FixedRow {
  std::vector<int64_t> values;
  double step = 1;  // what 1 is worth
  bool finite = true;

  FixedRow(const float* x, int64_t k) {
    float most = 0;
    for (int64_t i = 0; i < k; ++i) {
      finite = finite && std::isfinite(x[i]);
      most = std::max(most, std::abs(x[i]));
    }
    if (!finite) return;
    const int e = engine_detail::fixed_point_exponent(most);
    step = std::ldexp(1.0, -e);
    for (int64_t i = 0; i < k; ++i)
      values.push_back(std::min<int64_t>(
          static_cast<int64_t>(std::nearbyint(std::ldexp(static_cast<double>(x[i]), e))),
          (int64_t{1} << 23) - 1));
  }
};

Tensor eval_linear_blocks(const Call& c) {
  if (auto results = try_engine(c)) return (*results)[0];
  const Tensor x = c[0].contiguous();
  const engine_detail::BlockWeights w(c.attrs(), c[1], c[2], c.has(3) ? c[3] : Tensor());
  Tensor y = Tensor::empty(c.outputs()[0].shape());
  const float* bias = c.has(4) ? c[4].data<float>() : nullptr;
  parallel_for(w.k ? x.numel() / w.k : 0, [&](int64_t m) {
    const FixedRow row(x.data<float>() + m * w.k, w.k);
    for (int64_t n = 0; n < w.n; ++n) {
      double total = 0;
      for (int64_t b = 0; b < w.blocks && row.finite; ++b) {
        const int64_t first = b * w.block, count = std::min(w.block, w.k - first);
        const int8_t* codes = w.codes.data() + (b * w.n + n) * w.block;
        int64_t sum = 0, of_x = 0;
        for (int64_t i = 0; i < count; ++i) {
          sum += row.values[first + i] * codes[i];
          of_x += row.values[first + i];
        }
        total += (static_cast<double>(sum) -
                  static_cast<double>(w.zero_points[b * w.n + n]) * static_cast<double>(of_x)) *
                 static_cast<double>(w.scales[b * w.n + n]);
      }
      total *= row.step;
      if (bias) total += static_cast<double>(bias[n]);
      y.data<float>()[m * w.n + n] =
          row.finite ? static_cast<float>(total) : std::numeric_limits<float>::quiet_NaN();
    }
  });
  return y;
}

}  // namespace

// y = x * weight^T + bias with weight[n][i] = (code - zero_points[n][i / block_size]) *
// scales[n][i / block_size]. codes: bytes (out, blocks, block_size * bits / 8), the first code in
// the low bits; the last block may have codes beyond in_features, which do not count. scales and
// zero_points are (out, blocks); a zero point is 2^(bits - 1) where none is given. Sums are those
// of linear_weight_only, block by block (docs/numerics.md).
OCTET_OP(
    linear_blocks,
    "linear_blocks(x, codes, scales, zero_points?, bias?, *, in_features, block_size, bits=4) "
    "-> y",
    QRule::float_only,
    Doc{"linear with a weight of 2, 4 or 8 bits and a scale, and perhaps a zero point, for each "
        "block of inputs; as exact as in float32"},
    infer(infer_linear_blocks), eval(eval_linear_blocks))

}  // namespace octet::ops
