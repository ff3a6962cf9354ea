#pragma once
// A Quantizer says what the codes of a quantized tensor mean, and affine.h's formulas turn numbers
// into codes and back. The arithmetic is docs/numerics.md's, which is PyTorch's bit for bit where
// that is well defined.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "octet/tensor/dtype.h"

namespace octet {

enum class QScheme { per_tensor_affine, per_channel_affine, per_channel_affine_float_qparams };

const char* to_string(QScheme scheme);

// Immutable qparams. Per tensor: one scale and zero point. Per channel: one of each per slice along
// `axis`. A code q stands for scale * (q - zero_point); scales are kept in double, as PyTorch does,
// and used as float32. With float qparams (embeddings' rows) the zero points need not be whole.
class Quantizer {
 public:
  // Errors unless scale is finite and > 0 (also as float32) and zero_point lies within dtype's
  // codes.
  static std::shared_ptr<const Quantizer> per_tensor(double scale, int64_t zero_point, DType dtype);
  static std::shared_ptr<const Quantizer> per_channel(std::vector<double> scales,
                                                      std::vector<int64_t> zero_points,
                                                      int64_t axis, DType dtype);
  // Zero points of any finite value.
  static std::shared_ptr<const Quantizer> per_channel_float(std::vector<double> scales,
                                                            std::vector<double> zero_points,
                                                            int64_t axis, DType dtype);

  QScheme scheme() const { return scheme_; }
  bool is_per_channel() const { return scheme_ != QScheme::per_tensor_affine; }
  bool has_float_zero_points() const {
    return scheme_ == QScheme::per_channel_affine_float_qparams;
  }
  double scale(int64_t channel = 0) const { return scales_[is_per_channel() ? channel : 0]; }
  // Error with float qparams.
  int64_t zero_point(int64_t channel = 0) const {
    return zero_points()[is_per_channel() ? channel : 0];
  }
  const std::vector<double>& scales() const { return scales_; }
  const std::vector<int64_t>& zero_points() const {
    if (has_float_zero_points()) fail_float();
    return zero_points_;
  }
  // with float qparams; else empty
  const std::vector<double>& float_zero_points() const { return float_zero_points_; }
  int64_t axis() const { return axis_; }  // -1 per tensor
  bool operator==(const Quantizer&) const = default;

  // The same qparams with another channel axis (a transposed tensor).
  std::shared_ptr<const Quantizer> with_axis(int64_t axis) const;

 private:
  QScheme scheme_ = QScheme::per_tensor_affine;
  std::vector<double> scales_;
  std::vector<int64_t> zero_points_;
  std::vector<double> float_zero_points_;
  int64_t axis_ = -1;
  [[noreturn]] static void fail_float();
};

using QuantizerPtr = std::shared_ptr<const Quantizer>;

// "scale=0.031 zero_point=128", or "axis=0 scale=[0.001, 0.0021] zero_point=[0, 0]"; with `brief`,
// long per-channel lists become "axis=0 scale=[64: 0.0012..0.031] zero_point=0". Float zero points
// are called float_zero_point.
std::string to_string(const Quantizer& quantizer, bool brief = true);

}  // namespace octet
