#pragma once
// Quantized 3x3 convolutions by Winograd's algorithm (kernels/winograd_impl.h): when they may be,
// when they are worth it, and what runs them.

#include <memory>

#include "octet/engine/native/matrix_impl.h"

namespace octet::native {

// A convolution's weights in Winograd's form. Immutable.
class Winograd {
 public:
  virtual ~Winograd() = default;
  // Whether images of that shape gain by it.
  virtual bool worthwhile(const ConvShape& s) const = 0;
  virtual std::unique_ptr<KernelPlan> plan(const ConvShape& s) const = 0;
  virtual size_t packed_bytes() const = 0;
  virtual KernelDescription description() const = 0;
};

// Null if the convolution is not of 3x3 with a stride of 1, if its sums may be too large for the
// exact form, if the instruction set has no kernel for it, or if one image, as large as the spec
// says (large where it does not), would not gain. `packed` is the convolution's and outlives it.
std::unique_ptr<const Winograd> make_winograd(const OpSpec& spec,
                                              const engine_detail::IntegerWeights& weights,
                                              const PackedWeights& packed);

}  // namespace octet::native
