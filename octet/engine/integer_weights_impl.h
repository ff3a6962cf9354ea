#pragma once
// The integer form of weights, biases and multipliers that docs/numerics.md prescribes: what conv,
// linear and matmul calls on codes mean in numbers, whichever engine runs them.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::engine_detail {

// A weight's codes, and what they mean for each output channel.
struct WeightCodes {
  int64_t out_channels = 0;
  // in the weight's own order, quint8 shifted to int8, 4 bits to 0..15; they lie in `owner`
  std::span<const int8_t> codes;
  // of a weight of 16 bits, quint16 shifted to int16; `codes` is empty then
  std::span<const int16_t> codes16;
  Buffer owner;
  std::vector<int32_t> zero_points;  // per output channel (shifted likewise)
  std::vector<float> scales;         // per output channel
  bool any_zero_point = false;
  bool four_bit = false;  // all codes are 0..15

  int32_t code(int64_t i) const { return codes16.empty() ? codes[i] : codes16[i]; }
  int64_t count() const { return std::ssize(codes) + std::ssize(codes16); }

  // Codes that span no more than 16 values (8-bit types with a smaller quant_min..quant_max) are
  // moved to 0..15, their zero points with them: the same numbers, in half the bytes once packed.
  void narrow();
};

// The integer form of a quantized convolution or linear call.
struct IntegerWeights : WeightCodes {
  // rne(bias / (s_x*s_w)), and f(f(s_x*s_w)/s_y). A bias that is kLargestBiasCode such steps or
  // more is that code, and the multiplier the one that makes it the bias: what the products add to
  // it is below the result's precision.
  std::vector<int64_t> bias;
  std::vector<float> multiplier;
  std::vector<int64_t> wide;  // wide_channels, of 8-bit calls
  int32_t x_zero_point = 0;
  bool x_signed = false, y_signed = false;
  DType x_dtype = DType::quint8, y_dtype = DType::quint8;
  int32_t y_zero_point = 0, lo = 0, hi = 255;
  std::vector<std::string> warnings;

  // x's zero point where its codes count from 0.
  int32_t unsigned_zero_point() const { return x_zero_point - static_cast<int32_t>(qmin(x_dtype)); }
};

// True if the call is quantized throughout: x and y of 8 or 16 bits per tensor, a constant weight
// of 8 or 16 bits (per tensor, or per channel along its output channels: axis 0, or 1 if
// transposed), bias absent, float32 or qint32 and constant.
bool is_integer_call(const OpSpec& spec);
// The same with 8 bits throughout.
bool is_8_bit_call(const OpSpec& spec);
IntegerWeights integer_weights(const OpSpec& spec);

// True for a dynamic layer that multiplies codes: x float32, or codes of 8 bits per tensor, which
// are taken as they are; float32 y, a constant weight as above (of linear layers of 4 bits too),
// bias absent or float32 and constant.
bool is_dynamic_call(const OpSpec& spec);
// True for a weight-only linear layer on fixed-point numbers: float32 x (..., K) and y, weight and
// bias as for linear_dynamic, K <= kMaxWeightOnlyInputs, so that sums of the products of bytes fit
// int32.
bool is_weight_only_call(const OpSpec& spec);
inline constexpr int64_t kMaxWeightOnlyInputs = 65536;
// The fixed point of a row whose largest magnitude is `most` (finite): e = 22 - floor(log2(most)),
// 0 for a row of zeros. A value v of it is 2^-e * X with X = min(rne(v * 2^e), 2^23 - 1), a whole
// number of 24 bits.
int fixed_point_exponent(float most);
// Of the constant operand 1. Of transposed per-channel weights, channel j of every group has the
// scale j.
WeightCodes weight_codes(const OpSpec& spec);

// The output channels, ascending, whose sum of (q_x - z_x)*(q_w - z_w) plus bias can leave int32
// for some codes of x with a zero point z_least..z_most (of unsigned codes). All others' sums are
// exact in wrapping int32. `bias` may be empty.
std::vector<int64_t> wide_channels(const WeightCodes& weights, const OpSpec& spec, int32_t z_least,
                                   int32_t z_most, std::span<const int64_t> bias);

// The largest magnitude that the sum of (q_x - z_x)*(q_w - z_w) plus bias of any channel can have,
// for all codes of x and a zero point z_least..z_most (of unsigned codes); found in the weights.
int64_t largest_sum(const WeightCodes& weights, const OpSpec& spec, int32_t z_least, int32_t z_most,
                    std::span<const int64_t> bias);

// How dynamic quantization makes quint8 codes: the attributes `rule` ("pytorch" or "onnx") and
// reduce_range, which is PyTorch's (docs/numerics.md, "Run-time choice").
struct RunTimeRule {
  bool onnx = false, reduce_range = false;

  RunTimeRule() = default;
  explicit RunTimeRule(const Attrs& attrs);
  // The qparams for values min..max. Error naming the layer if `not_finite` of its values were NaN
  // or infinite.
  affine::RunTimeQParams qparams(float min, float max, int64_t not_finite,
                                 const std::string& label) const;
  uint8_t code(float x, const affine::RunTimeQParams& q) const;
  void codes(const kernels::KernelTable& table, const float* x, uint8_t* y, int64_t n,
             const affine::RunTimeQParams& q) const;
  std::string describe() const;  // "256 codes of quint8"
};

// The sizes of linear_blocks (ops/linear_blocks.cpp) by its attributes and the types of codes and
// scales. Error invalid_argument naming `who` if they do not fit each other.
struct BlockShape {
  int64_t n = 0, k = 0, block = 0, bits = 0, blocks = 0;
  BlockShape(const Attrs& attrs, const TensorType& codes, const TensorType& scales,
             const std::string& who);
};
// Its weight with a byte for each code, [block][n][block size]: of 2 and 4 bits as they are, of 8
// less 128, and their zero points with them. Beyond the last input codes are 0. Scales and zero
// points are [block][n].
struct BlockWeights : BlockShape {
  std::vector<int8_t> codes;
  std::vector<float> scales, zero_points;
  // `zeros` may be undefined.
  BlockWeights(const Attrs& attrs, const Tensor& packed, const Tensor& scales, const Tensor& zeros);
};

// The codes a fused activation ("none", "relu", "relu6") clamps the result to.
struct CodeRange {
  int32_t lo, hi;
};
CodeRange activation_range(const std::string& activation, const TensorType& y);

// A batched matrix product of codes, (..., M, K) x (..., K, N) with operands and result of 8 or 16
// bits per tensor; and with 8 bits throughout.
bool is_integer_matmul(const OpSpec& spec);
bool is_8_bit_matmul(const OpSpec& spec);

// y = clamp(rne(f(f(acc) * multiplier)) + zero_point), lo..hi being all codes: f(f(s_a*s_b)/s_y),
// as in linear.
float matmul_multiplier(const OpSpec& spec);

}  // namespace octet::engine_detail
