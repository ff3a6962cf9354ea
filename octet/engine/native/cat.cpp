// cat of codes and of floats: blocks are copied; codes go through a table where an operand's
// qparams differ from the result's.
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {
namespace {

using Table = std::array<uint8_t, 256>;
using Operands = std::vector<std::optional<Table>>;  // null: bytes are copied

class CatPlan final : public KernelPlan {
 public:
  // The result is `outer` rows; operand i gives `inner[i]` consecutive bytes of each.
  CatPlan(const Operands& operands, int64_t outer, std::vector<int64_t> inner)
      : operands_(operands), outer_(outer), inner_(std::move(inner)) {
    for (int64_t n : inner_) row_ += n;
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    auto* out = static_cast<uint8_t*>(outputs[0]);
    auto each_operand = [&](auto&& part) {
      int64_t at = 0;
      for (size_t i = 0; i < operands_.size(); at += inner_[i++])
        if (inner_[i] > 0) part(i, static_cast<const uint8_t*>(inputs[i]), out + at);
    };
    // Few rows are long ones: the threads share each.
    if (outer_ < 2 * num_threads()) {
      each_operand([&](size_t i, const uint8_t* in, uint8_t* target) {
        parallel_ranges(inner_[i], kGrain, [&](int64_t b0, int64_t b1) {
          for (int64_t r = 0; r < outer_; ++r)
            move(i, in + r * inner_[i] + b0, target + r * row_ + b0, b1 - b0);
        });
      });
      return;
    }
    parallel_ranges(outer_, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_)),
                    [&](int64_t r0, int64_t r1) {
                      each_operand([&](size_t i, const uint8_t* in, uint8_t* target) {
                        rows(i, in, target, r0, r1);
                      });
                    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 16;  // bytes
  static constexpr int64_t kTile = 8192;

  void move(size_t i, const uint8_t* in, uint8_t* target, int64_t n) const {
    if (operands_[i])
      kernels::table().lookup(in, target, n, operands_[i]->data());
    else
      std::memcpy(target, in, static_cast<size_t>(n));
  }

  void rows(size_t i, const uint8_t* in, uint8_t* target, int64_t r0, int64_t r1) const {
    const int64_t n = inner_[i];
    if (!operands_[i] || 2 * n > kTile) {
      for (int64_t r = r0; r < r1; ++r) move(i, in + r * n, target + r * row_, n);
      return;
    }
    // A call of `lookup` prepares its table: many short rows, which lie behind one another in the
    // operand, go through it at once.
    alignas(64) uint8_t tile[kTile + kBufferSlack];
    for (int64_t r = r0; r < r1;) {
      const int64_t count = std::min(r1 - r, kTile / n);
      move(i, in + r * n, tile, count * n);
      for (int64_t k = 0; k < count; ++k, ++r)
        std::memcpy(target + r * row_, tile + k * n, static_cast<size_t>(n));
    }
  }

  const Operands& operands_;
  int64_t outer_, row_ = 0;
  std::vector<int64_t> inner_;
};

class CatKernel final : public Kernel {
 public:
  CatKernel(Operands operands, int64_t dim, int64_t element_bytes, bool channels_last)
      : operands_(std::move(operands)),
        dim_(dim),
        element_bytes_(element_bytes),
        channels_last_(channels_last) {}
  std::string name() const override { return "cat"; }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::moves);
    if (std::any_of(operands_.begin(), operands_.end(), [](const auto& t) { return t; })) {
      d.at_run_time = "operands of other qparams than the result's: through a table of 256 codes";
      d.rounding = kOneToCodes;
    }
    return d;
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    return std::make_unique<CatKernel>(operands_, dim_, element_bytes_, true);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    std::vector<size_t> order(out[0].size());
    for (size_t d = 0; d < order.size(); ++d) order[d] = d;
    if (channels_last_ && order.size() == 4) order = {0, 2, 3, 1};
    size_t at = 0;
    int64_t outer = 1;
    for (; static_cast<int64_t>(order[at]) != dim_; ++at) outer *= out[0][order[at]];
    std::vector<int64_t> inner;
    for (const Shape& x : in) {
      int64_t bytes = element_bytes_;
      for (size_t d = at; d < order.size(); ++d) bytes *= x[order[d]];
      inner.push_back(bytes);
    }
    return std::make_unique<CatPlan>(operands_, outer, std::move(inner));
  }

 private:
  Layout layout() const { return channels_last_ ? Layout::channels_last : Layout::row_major; }
  Operands operands_;
  int64_t dim_, element_bytes_;
  bool channels_last_;
};

// The result's code for each byte of an operand.
Table requantizing_table(const CodesOf& x, const CodesOf& y) {
  Table table;
  for (int b = 0; b < 256; ++b) {
    const int32_t q = x.is_signed ? static_cast<int8_t>(b) : b;
    table[static_cast<size_t>(b)] = static_cast<uint8_t>(affine::quantize(
        affine::dequantize(q, x.scale, x.zero_point), y.scale, y.zero_point, y.lo, y.hi));
  }
  return table;
}

}  // namespace

std::unique_ptr<Kernel> make_cat(const OpSpec& spec) {
  const TensorType& y = spec.outputs[0];
  const bool codes = y.is_quantized();
  if (codes ? !codes_per_tensor(y) : y.dtype != DType::float32) return nullptr;
  Operands operands;
  for (const TensorType& x : spec.inputs) {
    if (codes ? !codes_per_tensor(x) : x.dtype != DType::float32) return nullptr;
    const bool same = !codes || (x.dtype == y.dtype && *x.quantizer == *y.quantizer);
    if (!same && !(is_8_bit(x.dtype) && is_8_bit(y.dtype))) return nullptr;
    operands.push_back(same ? std::nullopt
                            : std::optional(requantizing_table(CodesOf(x), CodesOf(y))));
  }
  int64_t dim = spec.attrs.get_int("dim");
  if (dim < 0) dim += y.dim();
  return std::make_unique<CatKernel>(std::move(operands), dim,
                                     static_cast<int64_t>(element_size(y.dtype)), false);
}

}  // namespace octet::native
