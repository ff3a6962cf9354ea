// cat on codes: blocks are copied, through a table where an operand's qparams differ from the
// result's.
#include <array>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {
namespace {

struct Operand {
  bool same = true;  // qparams equal the result's
  std::array<uint8_t, 256> table{};
};

class CatPlan final : public KernelPlan {
 public:
  // The result is `outer` rows; operand i gives `inner[i]` consecutive bytes of each.
  CatPlan(const std::vector<Operand>& operands, int64_t outer, std::vector<int64_t> inner)
      : operands_(operands), outer_(outer), inner_(std::move(inner)) {
    for (int64_t n : inner_) row_ += n;
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    auto* out = static_cast<uint8_t*>(outputs[0]);
    auto lookup = kernels::table().lookup;
    parallel_ranges(outer_, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, row_)),
                    [&](int64_t r0, int64_t r1) {
                      int64_t at = 0;
                      for (size_t i = 0; i < operands_.size(); at += inner_[i++]) {
                        const auto* in = static_cast<const uint8_t*>(inputs[i]);
                        for (int64_t r = r0; r < r1; ++r) {
                          uint8_t* target = out + r * row_ + at;
                          if (operands_[i].same)
                            std::memcpy(target, in + r * inner_[i], inner_[i]);
                          else
                            lookup(in + r * inner_[i], target, inner_[i],
                                   operands_[i].table.data());
                        }
                      }
                    });
  }

 private:
  const std::vector<Operand>& operands_;
  int64_t outer_, row_ = 0;
  std::vector<int64_t> inner_;
};

class CatKernel final : public Kernel {
 public:
  CatKernel(std::vector<Operand> operands, int64_t dim, int64_t rank)
      : operands_(std::move(operands)), dim_(dim), channels_last_(rank == 4 && dim == 1) {}
  std::string name() const override { return "cat"; }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override {
    return channels_last_ ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override {
    return channels_last_ ? Layout::channels_last : Layout::row_major;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    int64_t outer = 1;
    std::vector<int64_t> inner;
    const Shape& s = out[0];
    if (channels_last_) {
      outer = s[0] * s[2] * s[3];
      for (const Shape& x : in) inner.push_back(x[1]);
    } else {
      for (int64_t d = 0; d < dim_; ++d) outer *= s[d];
      for (const Shape& x : in) inner.push_back(outer ? numel(x) / outer : 0);
    }
    return std::make_unique<CatPlan>(operands_, outer, std::move(inner));
  }

 private:
  std::vector<Operand> operands_;
  int64_t dim_;
  bool channels_last_;
};

}  // namespace

std::unique_ptr<Kernel> make_cat(const OpSpec& spec) {
  const TensorType& y = spec.outputs[0];
  if (!y.is_quantized() || element_size(y.dtype) != 1 || y.quantizer->is_per_channel())
    return nullptr;
  auto lo = static_cast<int32_t>(qmin(y.dtype)), hi = static_cast<int32_t>(qmax(y.dtype));
  std::vector<Operand> operands;
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    const TensorType& x = spec.inputs[i];
    if (!x.is_quantized() || element_size(x.dtype) != 1 || x.quantizer->is_per_channel())
      return nullptr;
    Operand operand;
    operand.same = x.dtype == y.dtype && *x.quantizer == *y.quantizer;
    for (int b = 0; b < 256; ++b) {
      int32_t q = x.dtype == DType::qint8 ? static_cast<int8_t>(b) : b;
      float v = affine::dequantize(q, static_cast<float>(x.quantizer->scale()),
                                   static_cast<int32_t>(x.quantizer->zero_point()));
      operand.table[b] = static_cast<uint8_t>(
          affine::quantize(v, static_cast<float>(y.quantizer->scale()),
                           static_cast<int32_t>(y.quantizer->zero_point()), lo, hi));
    }
    operands.push_back(operand);
  }
  int64_t dim = spec.attrs.get_int("dim");
  return std::make_unique<CatKernel>(std::move(operands), dim < 0 ? dim + y.dim() : dim, y.dim());
}

}  // namespace octet::native
