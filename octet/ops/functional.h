#pragma once
// Operators as functions, under PyTorch's names (torch.*, torch.nn.functional.*), and the arithmetic of tensors.
// Each is one ops::call: recorded by autograd, seen by tracing. On quantized operands those that keep or fix their qparams
// work directly; those that need qparams for the result (add, cat, matmul ...) are an error that says so: use
// quant::FloatFunctional (quant::QFunctional once converted), or ops::call with the qparams wanted.

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

// -- activations ------------------------------------------------------------------------------
Tensor relu(const Tensor& x);
Tensor relu6(const Tensor& x);
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
Tensor prelu(const Tensor& x, const Tensor& weight);
Tensor elu(const Tensor& x, double alpha = 1);
Tensor celu(const Tensor& x, double alpha = 1);
Tensor selu(const Tensor& x);
Tensor gelu(const Tensor& x, const std::string& approximate = "none");
Tensor silu(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor softplus(const Tensor& x, double beta = 1, double threshold = 20);
Tensor hardsigmoid(const Tensor& x);
Tensor hardswish(const Tensor& x);
Tensor hardtanh(const Tensor& x, double min_val = -1, double max_val = 1);
Tensor softmax(const Tensor& x, int64_t dim);
Tensor log_softmax(const Tensor& x, int64_t dim);
// Zeroes each element with probability p and scales the others by 1/(1-p); x itself unless training.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);

// -- arithmetic -------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& a, double exponent);
Tensor sqrt(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor clamp(const Tensor& x, double min, double max);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor matmul(const Tensor& a, const Tensor& b);
// dims empty: all of them.
Tensor sum(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int64_t>& dims = {}, bool keepdim = false);
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim = false);

// -- shapes -----------------------------------------------------------------------------------
Tensor cat(const std::vector<Tensor>& xs, int64_t dim = 0);
Tensor stack(const std::vector<Tensor>& xs, int64_t dim = 0);
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
std::vector<Tensor> chunk(const Tensor& x, int64_t chunks, int64_t dim = 0);
Tensor flatten(const Tensor& x, int64_t start_dim = 0, int64_t end_dim = -1);
// pads: PyTorch's order, last dimension first: {left, right, top, bottom, ...}. mode: constant, reflect, replicate.
Tensor pad(const Tensor& x, const std::vector<int64_t>& pads, const std::string& mode = "constant", double value = 0);
Tensor pixel_shuffle(const Tensor& x, int64_t upscale_factor);

// -- layers -----------------------------------------------------------------------------------
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Sizes<1> stride = 1, Sizes<1> padding = 0,
              Sizes<1> dilation = 1, int64_t groups = 1);
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Sizes<2> stride = 1, Sizes<2> padding = 0,
              Sizes<2> dilation = 1, int64_t groups = 1);
Tensor max_pool2d(const Tensor& x, Sizes<2> kernel_size, std::optional<Sizes<2>> stride = {}, Sizes<2> padding = 0,
                  Sizes<2> dilation = 1, bool ceil_mode = false);
Tensor avg_pool2d(const Tensor& x, Sizes<2> kernel_size, std::optional<Sizes<2>> stride = {}, Sizes<2> padding = 0,
                  bool ceil_mode = false, bool count_include_pad = true);
Tensor adaptive_avg_pool2d(const Tensor& x, Sizes<2> output_size);
Tensor embedding(const Tensor& index, const Tensor& weight);
Tensor layer_norm(const Tensor& x, const Tensor& weight = {}, const Tensor& bias = {}, int64_t axis = -1, double eps = 1e-5);

}  // namespace functional
}  // namespace octet
