#pragma once
// Multi-head attention whose projections are quantized. The products of queries, keys and values
// and the softmax between them stay in float32, as in PyTorch: their operands are dequantized, what
// comes out is quantized again.
//
//  nn::quantizable::MultiheadAttention          as prepare() observes it: the projections are
//                                               Linear modules of their own
//  nn::quantized::MultiheadAttention            what convert() makes of it: quantized tensors in
//                                               and out
//  nn::quantized::dynamic::MultiheadAttention   float32 in and out, the projections dynamic Linears
//
// Inputs, results and options are nn::MultiheadAttention's, masks float or bool.

#include <memory>
#include <string>

#include "octet/nn/attention.h"

namespace octet::nn {

namespace quantizable {

class MultiheadAttention : public nn::MultiheadAttention {
 public:
  // The projections' weights are copies of the float module's, and trained (or not) from there.
  explicit MultiheadAttention(const nn::MultiheadAttention& attention);
  // With the module's qconfig and mode.
  static std::shared_ptr<MultiheadAttention> from_float(nn::MultiheadAttention& attention);
  static std::shared_ptr<MultiheadAttention> from_config(const Attrs& config);
  std::string type_name() const override;  // "QuantizableMultiheadAttention"

  // Children: linear_Q, linear_K, linear_V, q_scaling_product, quant_attn_output,
  // quant_attn_output_weights (if need_weights), dequant_q, dequant_k, dequant_v.

 protected:
  Tensor project(const Tensor& x, int64_t part) override;
  Tensor joined_heads(const Tensor& heads) override;
  Tensor result_weights(const Tensor& weights) override;
};

}  // namespace quantizable

namespace quantized {

class MultiheadAttention : public quantizable::MultiheadAttention {
 public:
  using quantizable::MultiheadAttention::MultiheadAttention;
  // Takes over the observed module's children, which were converted before.
  static std::shared_ptr<MultiheadAttention> from_observed(
      quantizable::MultiheadAttention& observed);
  static std::shared_ptr<MultiheadAttention> from_config(const Attrs& config);
  std::string type_name() const override;  // "QuantizedMultiheadAttention"
};

namespace dynamic {

class MultiheadAttention : public nn::MultiheadAttention {
 public:
  MultiheadAttention(const nn::MultiheadAttention& attention, std::vector<ModulePtr> projections);
  // Takes the float module with a qconfig for dynamic layers.
  static std::shared_ptr<MultiheadAttention> from_float(Module& module);
  static std::shared_ptr<MultiheadAttention> from_config(const Attrs& config);
  std::string type_name() const override;  // "DynamicQuantizedMultiheadAttention"

  // Children: linear_Q, linear_K, linear_V, and out_proj.

 protected:
  Tensor project(const Tensor& x, int64_t part) override;
};

}  // namespace dynamic
}  // namespace quantized
}  // namespace octet::nn
