#pragma once
// Operations between tensors as modules, so that each has a place for its observer
// (torch.nn.quantized.FloatFunctional).
//
//   struct Block : nn::Module {
//     nn::Slot conv = slot("conv", nn::Conv2d(8, 8, 1));
//     nn::Slot skip = slot("skip", quant::FloatFunctional());
//     Tensor forward(Tensor x) override { return skip.add(x, conv(x)); }
//   };
//
// prepare() observes the results; convert() puts a QFunctional in the place, which is a
// FloatFunctional too: the same forward then computes on quantized tensors.

#include <vector>

#include "octet/quant/modules/qparams.h"

namespace octet::nn::quantized {

class FloatFunctional : public Module {
 public:
  Tensor add(const Tensor& x, const Tensor& y) { return apply("add", {x, y}); }
  Tensor add_scalar(const Tensor& x, double y) { return apply_scalar("add_scalar", x, y); }
  Tensor sub(const Tensor& x, const Tensor& y) { return apply("sub", {x, y}); }
  Tensor mul(const Tensor& x, const Tensor& y) { return apply("mul", {x, y}); }
  Tensor mul_scalar(const Tensor& x, double y) { return apply_scalar("mul_scalar", x, y); }
  Tensor cat(const std::vector<Tensor>& xs, int64_t dim = 0) {
    return apply("cat", xs, {{"dim", dim}});
  }
  Tensor add_relu(const Tensor& x, const Tensor& y) {
    return apply("add", {x, y}, {{"activation", std::string("relu")}});
  }
  Tensor matmul(const Tensor& x, const Tensor& y) { return apply("matmul", {x, y}); }
  // Error: it has several operations, so there is no one forward.
  Tensor forward(Tensor x) override;
  // What Slot::add and its like call.
  Tensor operation(const char* op, const std::vector<Tensor>& operands,
                   const Attrs& attrs) override;

  Attrs config() const override;
  static std::shared_ptr<FloatFunctional> from_config(const Attrs& config);
  // Was it only used with numbers so far? Those need no observer.
  bool only_scalars() const { return scalars_ && !tensors_; }
  // For prepare(): called with the operands before each operation, which it may replace, and with
  // its result.
  void set_follow(std::function<void(const char* op, std::vector<Tensor>& operands)> before,
                  std::function<void(Tensor& result)> after) {
    before_ = std::move(before);
    after_ = std::move(after);
  }

 protected:
  // The operation, and then the observer if there is one.
  virtual Tensor apply(const char* op, const std::vector<Tensor>& operands,
                       const Attrs& attrs = {});
  // The same with a number. A quantized result has qparams that follow from x's and the number, not
  // the observer's.
  virtual Tensor apply_scalar(const char* op, const Tensor& x, double y);

 private:
  bool scalars_ = false, tensors_ = false;
  std::function<void(const char*, std::vector<Tensor>&)> before_;
  std::function<void(Tensor&)> after_;
};

class QFunctional : public FloatFunctional {
 public:
  explicit QFunctional(double scale = 1, int64_t zero_point = 0, DType dtype = DType::quint8)
      : scale(scale), zero_point(zero_point), dtype(dtype) {}
  // From a calibrated FloatFunctional.
  static std::shared_ptr<QFunctional> from_float(Module& module);
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;
  static std::shared_ptr<QFunctional> from_config(const Attrs& config);

  double scale;
  int64_t zero_point;
  DType dtype;

 protected:
  Tensor apply(const char* op, const std::vector<Tensor>& operands,
               const Attrs& attrs = {}) override;
};

}  // namespace octet::nn::quantized

namespace octet::quant {
using nn::quantized::FloatFunctional;
using nn::quantized::QFunctional;
}  // namespace octet::quant
