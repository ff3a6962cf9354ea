#pragma once
// What the reference engine's kernels share.

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"

namespace octet::reference {

// The makers, which engine.cpp lists by operator. Each returns null when the call is not one it
// takes.
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);           // linear.cpp
std::unique_ptr<Kernel> make_linear_gradient(const OpSpec& spec);  // linear.cpp
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);           // matmul.cpp
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);             // conv.cpp
std::unique_ptr<Kernel> make_conv_gradient(const OpSpec& spec);    // conv.cpp
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);             // pool.cpp

using RunFn = std::function<void(std::span<const void* const>, std::span<void* const>)>;

class ReferencePlan final : public KernelPlan {
 public:
  explicit ReferencePlan(RunFn fn) : fn_(std::move(fn)) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    fn_(inputs, outputs);
  }

 private:
  RunFn fn_;
};

// A kernel whose plan is a function of the shapes.
class ReferenceKernel final : public Kernel {
 public:
  using PlanFn = std::function<RunFn(const std::vector<Shape>&, const std::vector<Shape>&)>;
  ReferenceKernel(std::string name, PlanFn fn, std::vector<std::string> warnings = {},
                  KernelDescription description = {})
      : name_(std::move(name)),
        fn_(std::move(fn)),
        warnings_(std::move(warnings)),
        description_(std::move(description)) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "reference"; }
  bool packs(size_t i) const override { return i > 0; }
  std::vector<std::string> warnings() const override { return warnings_; }
  KernelDescription description() const override { return description_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<ReferencePlan>(fn_(in, out));
  }

 private:
  std::string name_;
  PlanFn fn_;
  std::vector<std::string> warnings_;
  KernelDescription description_;
};

// Of layers and products on codes, whose sums are exact whatever their size.
inline KernelDescription sums_in_64_bits(bool dynamic = false) {
  KernelDescription d;
  d.arithmetic = KernelDescription::Arithmetic::integers;
  d.loop = "plain loops";
  d.accumulator = "int64";
  if (dynamic)
    d.at_run_time = "x: float32 to codes of quint8, one scale for the tensor, from its own range";
  return d;
}

// The code at index i of data of 8 or 16 bits.
inline int32_t code(const void* data, int64_t i, DType dtype) {
  switch (dtype) {
    case DType::quint8:
      return static_cast<const uint8_t*>(data)[i];
    case DType::qint8:
      return static_cast<const int8_t*>(data)[i];
    case DType::quint16:
      return static_cast<const uint16_t*>(data)[i];
    default:
      return static_cast<const int16_t*>(data)[i];
  }
}
inline void store_code(void* data, int64_t i, DType dtype, int32_t code) {
  if (is_8_bit(dtype))
    static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(code);
  else
    static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(code);
}

inline float activate(float v, const std::string& activation) {
  if (activation == "relu") return v > 0 ? v : 0;
  if (activation == "relu6") return v > 6 ? 6 : v > 0 ? v : 0;
  return v;
}

// The end of a chain of float multiply-adds: -0 becomes 0, then the activation, which NaN passes.
inline float float_result(float sum, const std::string& activation) {
  float v = sum + 0.0f;
  if (activation == "none") return v;
  v = 0 > v ? 0 : v;
  return activation == "relu6" && 6 < v ? 6 : v;
}

bool is_float_call(const OpSpec& spec);  // x, weight, bias and y are float32

// The float32 data of operand i: the constant, if it is one; null if there is no such operand.
struct FloatOperand {
  FloatOperand(const OpSpec& spec, size_t i)
      : present(spec.has(i)),
        index(i),
        constant(present && spec.constants[i].defined() ? spec.constants[i].contiguous()
                                                        : Tensor()) {}
  const float* data(std::span<const void* const> inputs) const {
    if (!present) return nullptr;
    return constant.defined() ? static_cast<const float*>(constant.raw_data())
                              : static_cast<const float*>(inputs[index]);
  }
  bool present;
  size_t index;
  Tensor constant;
};

// One output element: the exact sum of products, then the bias and the requantization.
void store_requantized(const engine_detail::IntegerWeights& w, int64_t channel, int64_t acc,
                       void* y, int64_t i);

// Float values as the quint8 codes that dynamic quantization gives them. Error naming the layer if
// some are not finite.
struct DynamicCodes {
  DynamicCodes(const float* x, int64_t n, const engine_detail::RunTimeRule& rule,
               const std::string& label);
  // Of an operand of this type, `x`.
  DynamicCodes(const TensorType& type, const void* x, int64_t n,
               const engine_detail::RunTimeRule& rule, const std::string& label);
  std::vector<int32_t> codes;
  float scale = 1;
  int32_t zero_point = 0;
};

// f(f(f(acc) * f(s_x*s_w)) + bias), activated.
inline float dynamic_result(int64_t acc, float multiplier, const float* bias, int64_t channel,
                            const std::string& activation) {
  float v = static_cast<float>(acc) * multiplier;
  return activate(bias ? v + bias[channel] : v, activation);
}

// Sums in double, rounded once.
class Sums {
 public:
  explicit Sums(int64_t n) : sums_(n, 0.0) {}
  double& operator[](int64_t i) { return sums_[i]; }
  void store(void* out) const {
    std::transform(sums_.begin(), sums_.end(), static_cast<float*>(out),
                   [](double v) { return static_cast<float>(v); });
  }

 private:
  std::vector<double> sums_;
};

}  // namespace octet::reference
