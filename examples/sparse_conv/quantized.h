#pragma once
// What the sparse convolutions become on the way to 8 bits: fused with batch norm and relu;
// reference ones, float arithmetic on the dequantized weight; and quantized ones, which take and
// give codes and run the user's kernel. Only features are ever quantized: indices, shape and batch
// size pass through.

#include <octet/ops/op.h>
#include <octet/quant/modules/intrinsic.h>

#include <map>
#include <memory>
#include <string>

#include "sparse_conv.h"

namespace sparse {

using octet::DType;

// A convolution and its relu as one layer. Its parts are "0" and "1".
class SparseConvReLU : public nn::intrinsic::FusedModule {
 public:
  SparseConvReLU() = default;  // for loading
  SparseConvReLU(nn::ModulePtr conv, nn::ModulePtr relu);
  std::vector<std::string> result_names() const override {
    return nn::Value<SparseConvTensor>::names();
  }
};

// The convolution with a batch norm folded into its weight and bias: a copy. For eval mode.
std::shared_ptr<SparseConv2d> fold_batch_norm(const SparseConv2d& conv, const SparseBatchNorm& bn);

// A sparse convolution with a weight of codes.
class CodedSparseConv : public nn::ValueModule<SparseConvTensor> {
 public:
  SparseConvTensor forward_value(SparseConvTensor x) override;
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string extra_repr() const override { return shape_.extra_repr(); }
  Attrs config() const override { return shape_.config(); }

  const Tensor& weight() const { return weight_; }  // qint8, per tensor or along axis 0
  const Tensor& bias() const { return bias_; }      // float32 or undefined
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  // `conv` for its arguments; its own weight is not kept.
  CodedSparseConv(const SparseConv2d& conv, Tensor weight, Tensor bias, bool relu);
  virtual Tensor compute(const Tensor& features, const Tensor& rows) const = 0;
  const SparseConv2d& shape() const { return shape_; }
  Attrs activation() const { return {{"activation", std::string(relu_ ? "relu" : "none")}}; }

 private:
  SparseConv2d shape_;  // no child: it is not called, and has no weight
  Tensor weight_, bias_;
  bool relu_;
};

// Float features in and out: what a graph with explicit quantize and dequantize calls. from_float
// takes a SparseConv2d or a SparseConvReLU with a qconfig.
class ReferenceSparseConv : public CodedSparseConv {
 public:
  ReferenceSparseConv(const SparseConv2d& conv, Tensor weight, Tensor bias, bool relu = false)
      : CodedSparseConv(conv, std::move(weight), std::move(bias), relu) {}
  static std::shared_ptr<ReferenceSparseConv> from_float(nn::Module& module);
  static std::shared_ptr<ReferenceSparseConv> from_config(const Attrs& config);

 protected:
  Tensor compute(const Tensor& features, const Tensor& rows) const override;
};
class ReferenceSparseConvReLU : public ReferenceSparseConv {
 public:
  ReferenceSparseConvReLU(const SparseConv2d& conv, Tensor weight, Tensor bias)
      : ReferenceSparseConv(conv, std::move(weight), std::move(bias), true) {}
  static std::shared_ptr<ReferenceSparseConvReLU> from_float(nn::Module& module);
  static std::shared_ptr<ReferenceSparseConvReLU> from_config(const Attrs& config);
};

// Codes in and out. from_float takes a reference module, or what that takes, with the calibrated
// observer of its result (activation_post_process).
class QuantizedSparseConv : public CodedSparseConv {
 public:
  QuantizedSparseConv(const SparseConv2d& conv, Tensor weight, Tensor bias,
                      octet::ops::QType result, bool relu = false)
      : CodedSparseConv(conv, std::move(weight), std::move(bias), relu),
        result_(std::move(result)) {}
  static std::shared_ptr<QuantizedSparseConv> from_float(nn::Module& module);
  static std::shared_ptr<QuantizedSparseConv> from_config(const Attrs& config);
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string extra_repr() const override;
  Attrs config() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  double scale() const { return result_.quantizer->scale(); }
  int64_t zero_point() const { return result_.quantizer->zero_point(); }

 protected:
  Tensor compute(const Tensor& features, const Tensor& rows) const override;

 private:
  octet::ops::QType result_;
};
class QuantizedSparseConvReLU : public QuantizedSparseConv {
 public:
  QuantizedSparseConvReLU(const SparseConv2d& conv, Tensor weight, Tensor bias,
                          octet::ops::QType result)
      : QuantizedSparseConv(conv, std::move(weight), std::move(bias), std::move(result), true) {}
  static std::shared_ptr<QuantizedSparseConvReLU> from_float(nn::Module& module);
  static std::shared_ptr<QuantizedSparseConvReLU> from_config(const Attrs& config);
};

}  // namespace sparse
