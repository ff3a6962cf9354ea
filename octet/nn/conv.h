#pragma once
// Convolutions over 1, 2 and 3 spatial dimensions, and transposed ones. Names, arguments and
// initial weights are torch.nn's.

#include <string>

#include "octet/nn/module.h"
#include "octet/ops/sizes.h"

namespace octet::nn {

// The arguments of a convolution after its channels and kernel size.
template <size_t N>
struct ConvOptions {
  Sizes<N> stride = 1;
  ConvPadding<N> padding = 0;  // or "same", "valid"; transposed: sizes
  Sizes<N> dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  Sizes<N> output_padding = 0;  // transposed only
  // What the padding is filled with: "zeros", or of x: "reflect", "replicate", "circular" (not
  // transposed).
  std::string padding_mode = "zeros";
};

// What all convolutions share. x (N, in_channels, spatial...); weight (out_channels,
// in_channels/groups, kernel...), of a transposed one (in_channels, out_channels/groups,
// kernel...); bias (out_channels).
template <size_t N, bool transposed>
class ConvNd : public Module {
 public:
  static constexpr size_t spatial_dims = N;
  static constexpr bool is_transposed = transposed;
  // The operator: "conv2d", "conv_transpose2d".
  static const char* op_name();

  // Error if groups does not divide the channels, a size is out of range, or a padding does not go
  // with the other options.
  ConvNd(int64_t in_channels, int64_t out_channels, Sizes<N> kernel_size,
         ConvOptions<N> options = {});
  // The constructor arguments that config() gave.
  static std::shared_ptr<ConvNd> from_config(const Attrs& config);
  // x without the batch dimension is taken as a batch of one.
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;

  // The convolution with other weights, as fake-quantized ones.
  Tensor conv_forward(const Tensor& x, const Tensor& weight, const Tensor& bias) const;
  // The attributes of the operator, and of the pad operator before it; empty: there is none
  // (padding_mode "zeros").
  Attrs op_attrs() const;
  Attrs pad_attrs() const;
  // The dimension of `weight` that holds output channels (within a group, for a transposed one).
  static constexpr int64_t output_channel_axis() { return transposed ? 1 : 0; }

  int64_t in_channels, out_channels;
  Sizes<N> kernel_size;
  ConvOptions<N> options;
  Parameter weight;
  Parameter bias;  // undefined without one
};

using Conv1d = ConvNd<1, false>;
using Conv2d = ConvNd<2, false>;
using Conv3d = ConvNd<3, false>;
using ConvTranspose1d = ConvNd<1, true>;
using ConvTranspose2d = ConvNd<2, true>;
using ConvTranspose3d = ConvNd<3, true>;

}  // namespace octet::nn
