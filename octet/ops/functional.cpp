#include "octet/ops/functional.h"

#include "octet/base/check_impl.h"
#include "octet/base/random.h"
#include "octet/ops/op.h"

namespace octet {

using ops::call;

Tensor operator+(const Tensor& a, const Tensor& b) { return call("add", {a, b}); }
Tensor operator-(const Tensor& a, const Tensor& b) { return call("sub", {a, b}); }
Tensor operator*(const Tensor& a, const Tensor& b) { return call("mul", {a, b}); }
Tensor operator/(const Tensor& a, const Tensor& b) { return call("div", {a, b}); }

namespace {
Tensor number(double value, const Tensor& like) {
  return Tensor::scalar(value, like.is_quantized() ? DType::float32 : like.dtype());
}
}  // namespace

Tensor operator+(const Tensor& a, double b) { return a + number(b, a); }
Tensor operator-(const Tensor& a, double b) { return a - number(b, a); }
Tensor operator*(const Tensor& a, double b) { return a * number(b, a); }
Tensor operator/(const Tensor& a, double b) { return a / number(b, a); }
Tensor operator+(double a, const Tensor& b) { return number(a, b) + b; }
Tensor operator-(double a, const Tensor& b) { return number(a, b) - b; }
Tensor operator*(double a, const Tensor& b) { return number(a, b) * b; }
Tensor operator/(double a, const Tensor& b) { return number(a, b) / b; }
Tensor operator-(const Tensor& x) { return call("neg", {x}); }

namespace functional {

Tensor relu(const Tensor& x) { return call("relu", {x}); }
Tensor relu6(const Tensor& x) { return call("relu6", {x}); }
Tensor leaky_relu(const Tensor& x, double slope) { return call("leaky_relu", {x}, {{"negative_slope", slope}}); }
Tensor prelu(const Tensor& x, const Tensor& weight) { return call("prelu", {x, weight}); }
Tensor elu(const Tensor& x, double alpha) { return call("elu", {x}, {{"alpha", alpha}}); }
Tensor celu(const Tensor& x, double alpha) { return call("celu", {x}, {{"alpha", alpha}}); }
Tensor selu(const Tensor& x) { return call("selu", {x}); }
Tensor gelu(const Tensor& x, const std::string& approximate) { return call("gelu", {x}, {{"approximate", approximate}}); }
Tensor silu(const Tensor& x) { return x * sigmoid(x); }
Tensor sigmoid(const Tensor& x) { return call("sigmoid", {x}); }
Tensor tanh(const Tensor& x) { return call("tanh", {x}); }
Tensor softplus(const Tensor& x, double beta, double threshold) {
  return call("softplus", {x}, {{"beta", beta}, {"threshold", threshold}});
}
Tensor hardsigmoid(const Tensor& x) { return call("hardsigmoid", {x}); }
Tensor hardswish(const Tensor& x) { return call("hardswish", {x}); }
Tensor hardtanh(const Tensor& x, double lo, double hi) { return clamp(x, lo, hi); }
Tensor softmax(const Tensor& x, int64_t dim) { return call("softmax", {x}, {{"dim", dim}}); }
Tensor log_softmax(const Tensor& x, int64_t dim) { return call("log_softmax", {x}, {{"dim", dim}}); }

Tensor dropout(const Tensor& x, double p, bool training) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "dropout: p={}; expected a probability, 0 to 1", p);
  if (!training || p == 0) return x;
  if (p == 1) return x * 0.0;
  Tensor mask = Tensor::empty(x.shape());
  Random random(next_seed());
  float keep = static_cast<float>(1 / (1 - p));
  float* m = mask.data<float>();
  for (int64_t i = 0; i < mask.numel(); ++i) m[i] = random.uniform() < p ? 0.f : keep;
  return x * mask;
}

Tensor add(const Tensor& a, const Tensor& b) { return a + b; }
Tensor sub(const Tensor& a, const Tensor& b) { return a - b; }
Tensor mul(const Tensor& a, const Tensor& b) { return a * b; }
Tensor div(const Tensor& a, const Tensor& b) { return a / b; }
Tensor pow(const Tensor& a, double exponent) { return call("pow", {a, number(exponent, a)}); }
Tensor sqrt(const Tensor& x) { return call("sqrt", {x}); }
Tensor exp(const Tensor& x) { return call("exp", {x}); }
Tensor log(const Tensor& x) { return call("log", {x}); }
Tensor abs(const Tensor& x) { return call("abs", {x}); }
Tensor clamp(const Tensor& x, double lo, double hi) { return call("clamp", {x}, {{"min", lo}, {"max", hi}}); }
Tensor maximum(const Tensor& a, const Tensor& b) { return call("maximum", {a, b}); }
Tensor minimum(const Tensor& a, const Tensor& b) { return call("minimum", {a, b}); }
Tensor matmul(const Tensor& a, const Tensor& b) { return call("matmul", {a, b}); }
Tensor sum(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("sum", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor mean(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("mean", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim) { return call("argmax", {x}, {{"dim", dim}, {"keepdim", keepdim}}); }

Tensor cat(const std::vector<Tensor>& xs, int64_t dim) { return call("cat", xs, {{"dim", dim}}); }
Tensor stack(const std::vector<Tensor>& xs, int64_t dim) {
  std::vector<Tensor> wide;
  for (const Tensor& x : xs) wide.push_back(x.unsqueeze(dim < 0 ? dim + x.dim() + 1 : dim));
  return cat(wide, dim);
}
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int64_t dim) {
  return ops::call_all("split", {x}, {{"sizes", sizes}, {"dim", dim}});
}
std::vector<Tensor> chunk(const Tensor& x, int64_t chunks, int64_t dim) {
  OCTET_CHECK(chunks >= 1, invalid_argument, "chunk: {} chunks; expected 1 or more", chunks);
  int64_t n = x.size(dim), each = (n + chunks - 1) / chunks;
  std::vector<int64_t> sizes;
  for (int64_t at = 0; at < n; at += each) sizes.push_back(std::min(each, n - at));
  return split(x, sizes, dim);
}
Tensor flatten(const Tensor& x, int64_t start, int64_t end) { return call("flatten", {x}, {{"start_dim", start}, {"end_dim", end}}); }
Tensor pad(const Tensor& x, const std::vector<int64_t>& pads, const std::string& mode, double value) {
  OCTET_CHECK(pads.size() % 2 == 0 && static_cast<int64_t>(pads.size()) <= 2 * x.dim(), invalid_argument,
              "pad: {} sizes for a {}-d tensor; expected a pair for each of the last dimensions", pads.size(), x.dim());
  std::vector<int64_t> all(2 * static_cast<size_t>(x.dim()), 0);  // the operator's order: all beginnings, then all ends
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    size_t d = static_cast<size_t>(x.dim()) - 1 - i;
    all[d] = pads[2 * i];
    all[d + static_cast<size_t>(x.dim())] = pads[2 * i + 1];
  }
  return call("pad", {x}, {{"pads", all}, {"mode", mode}, {"value", value}});
}
Tensor pixel_shuffle(const Tensor& x, int64_t factor) { return call("pixel_shuffle", {x}, {{"upscale_factor", factor}}); }

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) { return call("linear", {x, weight, bias}); }

namespace {
template <size_t N>
Tensor conv(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, const Sizes<N>& stride,
            const Sizes<N>& padding, const Sizes<N>& dilation, int64_t groups) {
  return call(op, {x, weight, bias}, {{"stride", stride.list()}, {"padding", padding.both_ends()},
                                      {"dilation", dilation.list()}, {"groups", groups}});
}
}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<1> stride, Sizes<1> padding, Sizes<1> dilation,
              int64_t groups) {
  return conv("conv1d", x, weight, bias, stride, padding, dilation, groups);
}
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<2> stride, Sizes<2> padding, Sizes<2> dilation,
              int64_t groups) {
  return conv("conv2d", x, weight, bias, stride, padding, dilation, groups);
}
Tensor max_pool2d(const Tensor& x, Sizes<2> kernel, std::optional<Sizes<2>> stride, Sizes<2> padding, Sizes<2> dilation,
                  bool ceil_mode) {
  return call("max_pool2d", {x}, {{"kernel", kernel.list()}, {"stride", stride.value_or(kernel).list()},
                                  {"padding", padding.both_ends()}, {"dilation", dilation.list()}, {"ceil_mode", ceil_mode}});
}
Tensor avg_pool2d(const Tensor& x, Sizes<2> kernel, std::optional<Sizes<2>> stride, Sizes<2> padding, bool ceil_mode,
                  bool count_include_pad) {
  return call("avg_pool2d", {x}, {{"kernel", kernel.list()}, {"stride", stride.value_or(kernel).list()},
                                  {"padding", padding.both_ends()}, {"ceil_mode", ceil_mode},
                                  {"count_include_pad", count_include_pad}});
}
Tensor adaptive_avg_pool2d(const Tensor& x, Sizes<2> size) {
  return call("adaptive_avg_pool2d", {x}, {{"output_size", size.list()}});
}
Tensor embedding(const Tensor& index, const Tensor& weight) { return call("embedding", {weight, index}); }
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t axis, double eps) {
  return call("layer_norm", {x, weight, bias}, {{"axis", axis}, {"eps", eps}});
}

}  // namespace functional
}  // namespace octet
