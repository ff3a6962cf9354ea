#include "octet/base/check_impl.h"
#include "octet/engine/xnnpack/xnnpack_impl.h"

namespace octet::xnnpack {

class XnnPlan final : public KernelPlan {
 public:
  XnnPlan(const XnnKernel& kernel, const std::vector<Shape>& in, const std::vector<Shape>& out)
      : kernel_(kernel),
        setup_(kernel.setup_(in, out)),
        x_bytes_(numel(in[0])),
        y_bytes_(numel(out[0])) {}
  size_t scratch_bytes() const override {
    return kernel_.traits_.flip_x ? static_cast<size_t>(x_bytes_) + kBufferSlack : 0;
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    if (y_bytes_ == 0) return;
    operands_.assign(inputs.begin(), inputs.end());
    if (kernel_.traits_.flip_x) {
      flip(inputs[0], scratch, x_bytes_);
      operands_[0] = scratch;
    }
    {
      const std::lock_guard lock(kernel_.mutex_);
      xnn_operator_t op = kernel_.operator_.get();
      OCTET_CHECK(setup_(op, operands_, outputs[0]) == xnn_status_success &&
                      xnn_run_operator(op, nullptr) == xnn_status_success,
                  unsupported, "XNNPACK cannot run {} of {} bytes; choose another engine",
                  kernel_.traits_.name, x_bytes_);
    }
    if (kernel_.traits_.flip_y) flip(outputs[0], outputs[0], y_bytes_);
  }

 private:
  // Codes of quint8 as those of qint8, or the reverse: 128 less or more.
  static void flip(const void* from, void* to, int64_t n) {
    const auto* x = static_cast<const uint8_t*>(from);
    auto* y = static_cast<uint8_t*>(to);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] ^ 0x80;
  }

  const XnnKernel& kernel_;
  XnnKernel::Setup setup_;
  int64_t x_bytes_, y_bytes_;
  std::vector<const void*> operands_;
};

std::unique_ptr<KernelPlan> XnnKernel::plan(const std::vector<Shape>& in,
                                            const std::vector<Shape>& out) const {
  return std::make_unique<XnnPlan>(*this, in, out);
}

}  // namespace octet::xnnpack
