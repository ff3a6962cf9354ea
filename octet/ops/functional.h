#pragma once
// Operators as functions, under PyTorch's names (torch.*, torch.nn.functional.*) and with its order
// of arguments, and the arithmetic of tensors; losses are in nn/loss.h, interpolate in
// nn/upsample.h. They call operators: recorded by autograd, seen by tracing. On quantized operands
// those that keep or fix their qparams work directly; those that need qparams for the result (add,
// cat, matmul ...) are an error that says so: use quant::FloatFunctional (quant::QFunctional once
// converted), or ops::call with the qparams wanted.

#include <optional>
#include <string>
#include <vector>

#include "octet/ops/sizes.h"
#include "octet/tensor/tensor.h"

namespace octet {

Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& x);

namespace functional {

namespace detail {
Tensor unary(const char* op, const Tensor& x);  // an operator of one operand, without attributes
}

// -- activations ------------------------------------------------------------------------------
inline Tensor relu(const Tensor& x) { return detail::unary("relu", x); }
inline Tensor relu6(const Tensor& x) { return detail::unary("relu6", x); }
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
// weight: one slope, or one per channel (dimension 1).
Tensor prelu(const Tensor& x, const Tensor& weight);
Tensor elu(const Tensor& x, double alpha = 1);
Tensor celu(const Tensor& x, double alpha = 1);
inline Tensor selu(const Tensor& x) { return detail::unary("selu", x); }
Tensor gelu(const Tensor& x, const std::string& approximate = "none");
inline Tensor sigmoid(const Tensor& x) { return detail::unary("sigmoid", x); }
Tensor logsigmoid(const Tensor& x);
inline Tensor tanh(const Tensor& x) { return detail::unary("tanh", x); }
Tensor tanhshrink(const Tensor& x);  // x - tanh(x)
Tensor softplus(const Tensor& x, double beta = 1, double threshold = 20);
inline Tensor mish(const Tensor& x) { return detail::unary("mish", x); }
inline Tensor silu(const Tensor& x) { return detail::unary("silu", x); }
inline Tensor softsign(const Tensor& x) { return detail::unary("softsign", x); }
Tensor softshrink(const Tensor& x, double lambda = 0.5);  // x moved by lambda towards 0, not beyond
Tensor hardshrink(const Tensor& x, double lambda = 0.5);  // x where |x| > lambda, else 0
inline Tensor hardsigmoid(const Tensor& x) { return detail::unary("hardsigmoid", x); }
inline Tensor hardswish(const Tensor& x) { return detail::unary("hardswish", x); }
Tensor hardtanh(const Tensor& x, double min_val = -1, double max_val = 1);
// x where x > threshold, else value
Tensor threshold(const Tensor& x, double threshold, double value);
Tensor glu(const Tensor& x, int64_t dim = -1);  // the first half along dim * sigmoid(the second)
Tensor softmax(const Tensor& x, int64_t dim);
Tensor softmin(const Tensor& x, int64_t dim);
Tensor log_softmax(const Tensor& x, int64_t dim);
// Zeroes each element with probability p and scales the others by 1/(1-p); x itself unless
// training. In a traced graph it does so while the graph is in training mode.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);
// The same for whole channels: x (N, C, spatial...), or without N. In training they cannot be
// traced.
Tensor dropout1d(const Tensor& x, double p = 0.5, bool training = true);
Tensor dropout2d(const Tensor& x, double p = 0.5, bool training = true);
Tensor dropout3d(const Tensor& x, double p = 0.5, bool training = true);

// -- arithmetic -------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& a, double exponent);
inline Tensor sqrt(const Tensor& x) { return detail::unary("sqrt", x); }
inline Tensor exp(const Tensor& x) { return detail::unary("exp", x); }
inline Tensor log(const Tensor& x) { return detail::unary("log", x); }
inline Tensor abs(const Tensor& x) { return detail::unary("abs", x); }
inline Tensor neg(const Tensor& x) { return detail::unary("neg", x); }
Tensor clamp(const Tensor& x, double min, double max);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor matmul(const Tensor& a, const Tensor& b);
Tensor bmm(const Tensor& a, const Tensor& b);  // (B, N, K) and (B, K, M); Error for other ranks
// dims empty: all of them.
Tensor sum(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor amax(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor amin(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim = false);
// x / max(norm, eps), the norm being (sum of |x|^p along dim)^(1/p).
Tensor normalize(const Tensor& x, double p = 2, int64_t dim = 1, double eps = 1e-12);
// int64 (..., num_classes): 1 at the index, else 0. num_classes -1: one more than the largest
// index. Error for an index that is no class, but while tracing: then such a row is 0.
Tensor one_hot(const Tensor& index, int64_t num_classes = -1);

// -- shapes -----------------------------------------------------------------------------------
Tensor cat(const std::vector<Tensor>& xs, int64_t dim = 0);
Tensor stack(const std::vector<Tensor>& xs, int64_t dim = 0);
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
std::vector<Tensor> chunk(const Tensor& x, int64_t chunks, int64_t dim = 0);
Tensor flatten(const Tensor& x, int64_t start_dim = 0, int64_t end_dim = -1);
// Dimension dim as several; one of the sizes may be -1.
Tensor unflatten(const Tensor& x, int64_t dim, const std::vector<int64_t>& sizes);
// pads: PyTorch's order, last dimension first: {left, right, top, bottom, ...}; negative: taken
// off. mode: "constant", "reflect", "replicate" or "circular".
Tensor pad(const Tensor& x, const std::vector<int64_t>& pads, const std::string& mode = "constant",
           double value = 0);
Tensor pixel_shuffle(const Tensor& x, int64_t upscale_factor);
Tensor pixel_unshuffle(const Tensor& x, int64_t downscale_factor);
Tensor channel_shuffle(const Tensor& x, int64_t groups);

// -- layers: x (N, C, spatial...); convolutions and pools take one without N too ----------------
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
Tensor bilinear(const Tensor& x1, const Tensor& x2, const Tensor& weight, const Tensor& bias = {});
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Sizes<1> stride = 1,
              ConvPadding<1> padding = 0, Sizes<1> dilation = 1, int64_t groups = 1);
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Sizes<2> stride = 1,
              ConvPadding<2> padding = 0, Sizes<2> dilation = 1, int64_t groups = 1);
Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Sizes<3> stride = 1,
              ConvPadding<3> padding = 0, Sizes<3> dilation = 1, int64_t groups = 1);
Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        Sizes<1> stride = 1, Sizes<1> padding = 0, Sizes<1> output_padding = 0,
                        int64_t groups = 1, Sizes<1> dilation = 1);
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        Sizes<2> stride = 1, Sizes<2> padding = 0, Sizes<2> output_padding = 0,
                        int64_t groups = 1, Sizes<2> dilation = 1);
Tensor conv_transpose3d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        Sizes<3> stride = 1, Sizes<3> padding = 0, Sizes<3> output_padding = 0,
                        int64_t groups = 1, Sizes<3> dilation = 1);
// stride: the kernel's size if not given. divisor_override 0: the number of elements.
Tensor max_pool1d(const Tensor& x, Sizes<1> kernel_size, OptionalSizes<1> stride = {},
                  Sizes<1> padding = 0, Sizes<1> dilation = 1, bool ceil_mode = false);
Tensor max_pool2d(const Tensor& x, Sizes<2> kernel_size, OptionalSizes<2> stride = {},
                  Sizes<2> padding = 0, Sizes<2> dilation = 1, bool ceil_mode = false);
Tensor max_pool3d(const Tensor& x, Sizes<3> kernel_size, OptionalSizes<3> stride = {},
                  Sizes<3> padding = 0, Sizes<3> dilation = 1, bool ceil_mode = false);
Tensor avg_pool1d(const Tensor& x, Sizes<1> kernel_size, OptionalSizes<1> stride = {},
                  Sizes<1> padding = 0, bool ceil_mode = false, bool count_include_pad = true);
Tensor avg_pool2d(const Tensor& x, Sizes<2> kernel_size, OptionalSizes<2> stride = {},
                  Sizes<2> padding = 0, bool ceil_mode = false, bool count_include_pad = true,
                  int64_t divisor_override = 0);
Tensor avg_pool3d(const Tensor& x, Sizes<3> kernel_size, OptionalSizes<3> stride = {},
                  Sizes<3> padding = 0, bool ceil_mode = false, bool count_include_pad = true,
                  int64_t divisor_override = 0);
// A size of -1 (PyTorch's None) keeps x's.
Tensor adaptive_avg_pool1d(const Tensor& x, Sizes<1> output_size);
Tensor adaptive_avg_pool2d(const Tensor& x, Sizes<2> output_size);
Tensor adaptive_avg_pool3d(const Tensor& x, Sizes<3> output_size);
Tensor adaptive_max_pool1d(const Tensor& x, Sizes<1> output_size);
Tensor adaptive_max_pool2d(const Tensor& x, Sizes<2> output_size);
Tensor adaptive_max_pool3d(const Tensor& x, Sizes<3> output_size);
// With the statistics given; in training with the batch's own, towards which the given ones (which
// may be undefined then) move by momentum, in place. weight and bias (C).
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight = {}, const Tensor& bias = {}, bool training = false,
                  double momentum = 0.1, double eps = 1e-5);
// The same for each sample; the statistics given are used unless use_input_stats, or else moved
// towards the mean of the samples'.
Tensor instance_norm(const Tensor& x, const Tensor& running_mean = {},
                     const Tensor& running_var = {}, const Tensor& weight = {},
                     const Tensor& bias = {}, bool use_input_stats = true, double momentum = 0.1,
                     double eps = 1e-5);
// normalized_shape: x's last dimensions; weight and bias have that shape.
Tensor layer_norm(const Tensor& x, const Shape& normalized_shape, const Tensor& weight = {},
                  const Tensor& bias = {}, double eps = 1e-5);
Tensor group_norm(const Tensor& x, int64_t num_groups, const Tensor& weight = {},
                  const Tensor& bias = {}, double eps = 1e-5);
// The rows of weight at index; row padding_idx (negative: from the end) gets no gradient.
Tensor embedding(const Tensor& index, const Tensor& weight,
                 std::optional<int64_t> padding_idx = {});
// The sum, mean or maximum of the rows of each bag. index (bags, per bag), or index (n) and offsets
// (bags). per_sample_weights have index's shape; mode "sum" only. Rows padding_idx count for
// nothing.
Tensor embedding_bag(const Tensor& index, const Tensor& weight, const Tensor& offsets = {},
                     const std::string& mode = "mean", const Tensor& per_sample_weights = {},
                     bool include_last_offset = false, std::optional<int64_t> padding_idx = {});

}  // namespace functional
}  // namespace octet
