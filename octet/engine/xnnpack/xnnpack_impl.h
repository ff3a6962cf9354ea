#pragma once
// What the XNNPACK kernels share.

#include <xnnpack.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::xnnpack {

// The makers, which engine.cpp lists by operator. Each returns null when the call is not one it
// takes.
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);    // conv.cpp
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);  // conv.cpp
std::unique_ptr<Kernel> make_mul(const OpSpec& spec);     // elementwise.cpp
std::unique_ptr<Kernel> make_clamp(const OpSpec& spec);   // elementwise.cpp
std::unique_ptr<Kernel> make_max_pool(const OpSpec& spec);

struct DeleteOperator {
  void operator()(xnn_operator_t op) const { xnn_delete_operator(op); }
};
using Operator = std::unique_ptr<xnn_operator, DeleteOperator>;

// Calls one of xnn_create_*. Null if XNNPACK does not take these arguments.
template <typename Create, typename... Args>
Operator create(Create create_operator, Args... args) {
  static const bool ready = xnn_initialize(nullptr) == xnn_status_success;
  xnn_operator_t op = nullptr;
  if (!ready || create_operator(args..., &op) != xnn_status_success) return nullptr;
  return Operator(op);
}

// On Arm it gives octet's bits in its operators with a scale for each channel (qc8) and weights
// other than -128, and not in others: random calls show which (tests/engine/xnnpack_test.cpp).
// The likely reasons are requantization by products of integers, and two products of int8 that are
// added in int16, which does not hold -128 * -128 twice.
#if defined(__aarch64__)
inline constexpr bool kOnArm = true;
#else
inline constexpr bool kOnArm = false;
#endif

// An operator of XNNPACK's as a kernel. It runs on the calling thread: XNNPACK's own threads would
// be a third pool beside ours and OpenMP's.
class XnnKernel final : public Kernel {
 public:
  struct Traits {
    std::string name;
    Layout input = Layout::row_major, output = Layout::row_major;  // of the operands not packed
    bool packs = false;                                            // all operands but the first
    size_t packed_bytes = 0;
    bool flip_x = false,
         flip_y = false;  // XNNPACK is given, or gives, codes of the other signedness
    KernelDescription description = {};
  };
  // Tells the operator the shapes and where the operands lie (xnn_setup_*).
  using Setup = std::function<xnn_status(xnn_operator_t op, const std::vector<const void*>& inputs,
                                         void* output)>;
  using SetupOf = std::function<Setup(const std::vector<Shape>& in, const std::vector<Shape>& out)>;

  XnnKernel(Traits traits, Operator op, SetupOf setup)
      : traits_(std::move(traits)), operator_(std::move(op)), setup_(std::move(setup)) {}
  std::string name() const override { return traits_.name; }
  std::string engine() const override { return "xnnpack"; }
  Layout input_layout(size_t i) const override {
    return i == 0 || !traits_.packs ? traits_.input : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return traits_.output; }
  bool packs(size_t i) const override { return traits_.packs && i > 0; }
  size_t packed_bytes() const override { return traits_.packed_bytes; }
  KernelDescription description() const override { return traits_.description; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override;

 private:
  friend class XnnPlan;
  Traits traits_;
  Operator operator_;
  SetupOf setup_;
  mutable std::mutex mutex_;  // an operator has one setup at a time
};

}  // namespace octet::xnnpack
