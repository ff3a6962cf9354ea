// permute of dense tensors: runs of bytes where the last dimension stays, transposes of two
// dimensions where it does not.
#include <algorithm>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/engine/reorder.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

// One dimension of the result: its size, and the step in elements along it in the operand and the
// result.
struct Axis {
  int64_t size = 1, from = 0, to = 0;
};

class PermutePlan final : public KernelPlan {
 public:
  PermutePlan(const std::vector<int64_t>& order, const Shape& x, int64_t element_bytes)
      : bytes_(element_bytes) {
    std::vector<int64_t> steps(x.size(), 1);
    for (size_t d = x.size(); d-- > 1;) steps[d - 1] = steps[d] * x[d];
    int64_t to = 1;
    for (size_t i = order.size(); i-- > 0;) {
      const auto d = static_cast<size_t>(order[i]);
      const int64_t size = x[d], from = steps[d];
      // Neighbours that stay neighbours are one dimension.
      if (!axes_.empty() && axes_.back().from * axes_.back().size == from)
        axes_.back().size *= size;
      else if (size != 1)
        axes_.push_back({size, from, to});
      to *= size;
    }
    if (axes_.empty()) axes_.push_back({1, 1, 1});
    // axes_[0] is the result's last dimension.
    if (axes_[0].from != 1) {
      auto contiguous =
          std::find_if(axes_.begin() + 1, axes_.end(), [](const Axis& a) { return a.from == 1; });
      columns_ = *contiguous;
      axes_.erase(contiguous);
    }
    rows_ = axes_[0];
    axes_.erase(axes_.begin());
    if (!axes_.empty()) inner_ = axes_[0], axes_.erase(axes_.begin());
    for (const Axis& a : axes_) outer_ *= a.size;
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    const int64_t elements = inner_.size * rows_.size * columns_.size;
    if (elements == 0) return;
    const int64_t grain = std::max<int64_t>(1, (1 << 16) / (elements * bytes_));
    parallel_ranges(outer_, grain, [&](int64_t i0, int64_t i1) {
      for (int64_t i = i0; i < i1; ++i) {
        int64_t from = 0, to = 0, rest = i;
        for (const Axis& a : axes_) {
          from += rest % a.size * a.from;
          to += rest % a.size * a.to;
          rest /= a.size;
        }
        for (int64_t j = 0; j < inner_.size; ++j)
          move(static_cast<const std::byte*>(inputs[0]) + (from + j * inner_.from) * bytes_,
               static_cast<std::byte*>(outputs[0]) + (to + j * inner_.to) * bytes_);
      }
    });
  }

 private:
  void move(const std::byte* x, std::byte* y) const {
    if (rows_.from == 1) {
      std::memcpy(y, x, static_cast<size_t>(rows_.size * bytes_));
    } else if (bytes_ == 1) {
      kernels::table().transpose(reinterpret_cast<const uint8_t*>(x), rows_.from,
                                 reinterpret_cast<uint8_t*>(y), columns_.to, rows_.size,
                                 columns_.size);
    } else if (bytes_ == 2) {
      transpose(reinterpret_cast<const uint16_t*>(x), reinterpret_cast<uint16_t*>(y));
    } else if (bytes_ == 4) {
      transpose(reinterpret_cast<const uint32_t*>(x), reinterpret_cast<uint32_t*>(y));
    } else {
      transpose(reinterpret_cast<const uint64_t*>(x), reinterpret_cast<uint64_t*>(y));
    }
  }
  template <typename T>
  void transpose(const T* x, T* y) const {
    constexpr int64_t kTile = 16;
    for (int64_t r = 0; r < rows_.size; r += kTile)
      for (int64_t c = 0; c < columns_.size; c += kTile)
        for (int64_t j = c; j < std::min(columns_.size, c + kTile); ++j)
          for (int64_t i = r; i < std::min(rows_.size, r + kTile); ++i)
            y[j * columns_.to + i] = x[i * rows_.from + j];
  }

  std::vector<Axis> axes_;  // all but the three below, the innermost of the result first
  Axis inner_;              // the innermost of those
  Axis rows_;               // the result's last dimension
  Axis columns_;            // the operand's, where that is another
  int64_t bytes_, outer_ = 1;
};

class PermuteKernel final : public Kernel {
 public:
  PermuteKernel(std::vector<int64_t> order, int64_t bytes)
      : order_(std::move(order)), bytes_(bytes) {}
  std::string name() const override { return "permute"; }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::moves);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<PermutePlan>(order_, in[0], bytes_);
  }

 private:
  std::vector<int64_t> order_;
  int64_t bytes_;
};

}  // namespace

std::unique_ptr<Kernel> make_permute(const OpSpec& spec) {
  if (spec.inputs[0].dim() == 0) return nullptr;
  const TensorType& x = spec.inputs[0];
  if (!is_activation_dtype(x.dtype) && x.dtype != DType::float32) return nullptr;
  std::vector<int64_t> order = spec.attrs.get_ints("dims");
  for (int64_t& d : order) d += d < 0 ? x.dim() : 0;
  return std::make_unique<PermuteKernel>(std::move(order),
                                         static_cast<int64_t>(element_size(x.dtype)));
}

}  // namespace octet::native

namespace octet {

std::unique_ptr<KernelPlan> plan_reorder(const Shape& shape, size_t element_bytes,
                                         bool to_channels_last) {
  const auto bytes = static_cast<int64_t>(element_bytes);
  if (to_channels_last)
    return std::make_unique<native::PermutePlan>(std::vector<int64_t>{0, 2, 3, 1}, shape, bytes);
  return std::make_unique<native::PermutePlan>(
      std::vector<int64_t>{0, 3, 1, 2}, Shape{shape[0], shape[2], shape[3], shape[1]}, bytes);
}

}  // namespace octet
