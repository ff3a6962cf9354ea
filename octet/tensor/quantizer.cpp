#include "octet/tensor/quantizer.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

void check_scale(double scale) {
  float s = static_cast<float>(scale);
  OCTET_CHECK(std::isfinite(s) && s > 0, invalid_argument,
              "scale {}: expected a finite number > 0 that float32 can hold", scale);
}

void check_one(double scale, int64_t zero_point, DType dtype) {
  check_scale(scale);
  OCTET_CHECK(zero_point >= qmin(dtype) && zero_point <= qmax(dtype), invalid_argument,
              "zero_point {}: {} holds {}..{}", zero_point, to_string(dtype), qmin(dtype),
              qmax(dtype));
}

// float32 values print as short as float32 allows. Others print as short as double allows when
// brief, and with all 17 digits otherwise: so that "0.1" in a full print always means the float32
// (see parse_type).
std::string number(double value, bool brief) {
  float f = static_cast<float>(value);
  if (static_cast<double>(f) == value) return fmt::format("{}", f);
  if (brief) return fmt::format("{}", value);
  std::string text = fmt::format("{:.17g}", value);
  return text == fmt::format("{}", f) ? text + ".0" : text;  // whole numbers beyond 2^24
}

}  // namespace

const char* to_string(QScheme scheme) {
  switch (scheme) {
    case QScheme::per_tensor_affine:
      return "per_tensor_affine";
    case QScheme::per_channel_affine:
      return "per_channel_affine";
    default:
      return "per_channel_affine_float_qparams";
  }
}

QuantizerPtr Quantizer::per_tensor(double scale, int64_t zero_point, DType dtype) {
  check_one(scale, zero_point, dtype);
  auto q = std::make_shared<Quantizer>();
  q->scales_ = {scale};
  q->zero_points_ = {zero_point};
  return q;
}

QuantizerPtr Quantizer::per_channel(std::vector<double> scales, std::vector<int64_t> zero_points,
                                    int64_t axis, DType dtype) {
  OCTET_CHECK(!scales.empty() && scales.size() == zero_points.size(), invalid_argument,
              "per-channel qparams: {} scales and {} zero points; expected one of each per channel",
              scales.size(), zero_points.size());
  OCTET_CHECK(axis >= 0, invalid_argument, "per-channel qparams: axis {}; expected 0 or more",
              axis);
  const bool codes = is_quantized(dtype);
  const int64_t least = codes ? qmin(dtype) : 1, most = codes ? qmax(dtype) : 0;
  auto fine = [&](size_t i) {
    const float scale = static_cast<float>(scales[i]);
    return scale > 0 && std::isfinite(scale) && zero_points[i] >= least && zero_points[i] <= most;
  };
  for (size_t i = 0; i < scales.size(); ++i) try {
      if (!fine(i)) check_one(scales[i], zero_points[i], dtype);
    } catch (const Error& e) {
      OCTET_FAIL(invalid_argument, "channel {}: {}", i, e.what());
    }
  auto q = std::make_shared<Quantizer>();
  q->scheme_ = QScheme::per_channel_affine;
  q->scales_ = std::move(scales);
  q->zero_points_ = std::move(zero_points);
  q->axis_ = axis;
  return q;
}

QuantizerPtr Quantizer::per_channel_float(std::vector<double> scales,
                                          std::vector<double> zero_points, int64_t axis,
                                          DType dtype) {
  OCTET_CHECK(is_quantized(dtype), invalid_argument, "{} is not a quantized dtype",
              to_string(dtype));
  OCTET_CHECK(!scales.empty() && scales.size() == zero_points.size(), invalid_argument,
              "per-channel qparams: {} scales and {} zero points; expected one of each per channel",
              scales.size(), zero_points.size());
  OCTET_CHECK(axis >= 0, invalid_argument, "per-channel qparams: axis {}; expected 0 or more",
              axis);
  for (size_t i = 0; i < scales.size(); ++i) try {
      check_scale(scales[i]);
      OCTET_CHECK(std::isfinite(static_cast<float>(zero_points[i])), invalid_argument,
                  "zero_point {}: expected a finite number", zero_points[i]);
    } catch (const Error& e) {
      OCTET_FAIL(invalid_argument, "channel {}: {}", i, e.what());
    }
  auto q = std::make_shared<Quantizer>();
  q->scheme_ = QScheme::per_channel_affine_float_qparams;
  q->scales_ = std::move(scales);
  q->float_zero_points_ = std::move(zero_points);
  q->axis_ = axis;
  return q;
}

void Quantizer::fail_float() {
  OCTET_FAIL(unsupported,
             "zero points that are not whole (float qparams) are for embeddings only: dequantize "
             "the tensor, or "
             "quantize it with whole ones");
}

QuantizerPtr Quantizer::with_axis(int64_t axis) const {
  auto q = std::make_shared<Quantizer>(*this);
  if (is_per_channel()) q->axis_ = axis;
  return q;
}

std::string to_string(const Quantizer& q, bool brief) {
  if (!q.is_per_channel())
    return fmt::format("scale={} zero_point={}", number(q.scale(), brief), q.zero_point());
  const auto& s = q.scales();
  std::vector<std::string> texts;
  if (q.has_float_zero_points()) {
    const auto& z = q.float_zero_points();
    if (brief && s.size() > 4) {
      auto [lo, hi] = std::minmax_element(s.begin(), s.end());
      auto [zl, zh] = std::minmax_element(z.begin(), z.end());
      return fmt::format("axis={} scale=[{}: {}..{}] float_zero_point=[{}: {}..{}]", q.axis(),
                         s.size(), number(*lo, brief), number(*hi, brief), z.size(),
                         number(*zl, brief), number(*zh, brief));
    }
    std::vector<std::string> zeros;
    for (double v : s) texts.push_back(number(v, brief));
    for (double v : z) zeros.push_back(number(v, brief));
    return fmt::format("axis={} scale=[{}] float_zero_point=[{}]", q.axis(), fmt::join(texts, ", "),
                       fmt::join(zeros, ", "));
  }
  const auto& z = q.zero_points();
  bool same_zero = std::all_of(z.begin(), z.end(), [&](int64_t v) { return v == z[0]; });
  std::string zero = same_zero ? std::to_string(z[0]) : fmt::format("[{}]", fmt::join(z, ", "));
  if (brief && s.size() > 4) {
    auto [lo, hi] = std::minmax_element(s.begin(), s.end());
    if (!same_zero) {
      auto [zl, zh] = std::minmax_element(z.begin(), z.end());
      zero = fmt::format("[{}: {}..{}]", z.size(), *zl, *zh);
    }
    return fmt::format("axis={} scale=[{}: {}..{}] zero_point={}", q.axis(), s.size(),
                       number(*lo, brief), number(*hi, brief), zero);
  }
  for (double v : s) texts.push_back(number(v, brief));
  return fmt::format("axis={} scale=[{}] zero_point={}", q.axis(), fmt::join(texts, ", "), zero);
}

}  // namespace octet
