#pragma once
// Sparse convolutions on SparseConvTensors: the float modules, and the operator that both they and
// the 8-bit ones call.

#include <octet/nn/activation.h>
#include <octet/nn/norm.h>
#include <octet/ops/sizes.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sparse_conv_tensor.h"

namespace sparse {

namespace nn = octet::nn;
using octet::Attrs;
using octet::Sizes;
using octet::TensorType;

struct SparseConvOptions {
  Sizes<2> stride = 1;
  Sizes<2> padding = 0;
  // Results at the sites of the input only, so that they do not spread (Graham, van der Maaten
  // 2017); stride 1, odd kernel, padding kernel/2. Otherwise there is a result wherever the kernel
  // reaches an active site.
  bool submanifold = false;
  bool bias = true;
};

// What stays the same for all channels: which rows each row of the result is made of.
struct Rules {
  // (rows of the result, kernel height * width) int64: rows of the operand, -1: not active
  Tensor rows;
  Tensor indices;        // of the result
  Tensor spatial_shape;  // of the result
};
Rules make_rules(const SparseConvTensor& x, Sizes<2> kernel_size, const SparseConvOptions& options);

// The operator, registered with octet by sparse_conv.cpp:
//   sparse_conv2d(features, rows, weight, bias?, *, activation="none") -> y
// features (R, C), rows as in Rules, weight (out, kernel height, kernel width, C), bias (out), y
// (rows of `rows`, out):
//   y[r, o] = bias[o] + sum over k, c of features[rows[r, k], c] * weight[o, k, c].
// On codes it computes in int32 and requantizes exactly as octet's conv2d does (docs/numerics.md).
inline constexpr const char* kSparseConv2d = "sparse_conv2d";

class SparseConv2d : public nn::ValueModule<SparseConvTensor> {
 public:
  // Error for a submanifold convolution with a stride or an even kernel.
  SparseConv2d(int64_t in_channels, int64_t out_channels, Sizes<2> kernel_size,
               SparseConvOptions options = {});
  SparseConvTensor forward_value(SparseConvTensor x) override;
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<SparseConv2d> from_config(const Attrs& config);

  int64_t in_channels, out_channels;
  Sizes<2> kernel_size;
  SparseConvOptions options;
  nn::Parameter weight;  // (out, kernel height, kernel width, in): output channels are axis 0
  nn::Parameter bias;    // (out); undefined without one
};

// A submanifold convolution: stride 1, padding kernel/2.
SparseConv2d SubMConv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size,
                        bool bias = true);

// A module of rows of features, on a SparseConvTensor's features.
template <typename M>
class OnFeatures : public M {
 public:
  using M::forward;
  using M::M;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    inputs.at(0) = M::forward(inputs[0]);
    return inputs;
  }
  std::vector<std::string> result_names() const override {
    return nn::Value<SparseConvTensor>::names();
  }
};

class SparseBatchNorm : public OnFeatures<nn::BatchNorm1d> {
 public:
  using OnFeatures::OnFeatures;
  static std::shared_ptr<SparseBatchNorm> from_config(const Attrs& config);
};
class SparseReLU : public OnFeatures<nn::ReLU> {};

// A SparseConvTensor of that height and width as an image, as dense(). Error for another height or
// width.
class ToDense : public nn::ValueModule<SparseConvTensor, Tensor> {
 public:
  explicit ToDense(Sizes<2> spatial_shape) : spatial_shape(spatial_shape) {}
  Tensor forward_value(SparseConvTensor x) override;
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string extra_repr() const override { return spatial_shape.text(); }
  Attrs config() const override { return {{"spatial_shape", spatial_shape.list()}}; }
  static std::shared_ptr<ToDense> from_config(const Attrs& config);
  Sizes<2> spatial_shape;
};

}  // namespace sparse
