#include "octet/ops/functional.h"

#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/base/random.h"
#include "octet/ops/functional_impl.h"

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
Tensor operator-(const Tensor& x) { return functional::neg(x); }

namespace functional {

Tensor detail::unary(const char* op, const Tensor& x) { return call(op, {x}); }

Tensor leaky_relu(const Tensor& x, double slope) {
  return call("leaky_relu", {x}, {{"negative_slope", slope}});
}
Tensor prelu(const Tensor& x, const Tensor& weight) { return call("prelu", {x, weight}); }
Tensor elu(const Tensor& x, double alpha) { return call("elu", {x}, {{"alpha", alpha}}); }
Tensor celu(const Tensor& x, double alpha) { return call("celu", {x}, {{"alpha", alpha}}); }
Tensor gelu(const Tensor& x, const std::string& approximate) {
  return call("gelu", {x}, {{"approximate", approximate}});
}
Tensor logsigmoid(const Tensor& x) { return -softplus(-x); }
Tensor tanhshrink(const Tensor& x) { return x - tanh(x); }
Tensor softplus(const Tensor& x, double beta, double threshold) {
  return call("softplus", {x}, {{"beta", beta}, {"threshold", threshold}});
}
Tensor softshrink(const Tensor& x, double lambda) {
  OCTET_CHECK(lambda >= 0, invalid_argument, "softshrink: lambda={}; expected 0 or more", lambda);
  return x - clamp(x, -lambda, lambda);
}
Tensor hardshrink(const Tensor& x, double lambda) {
  return call("where", {call("greater", {abs(x), number(lambda, x)}), x, number(0, x)});
}
Tensor hardtanh(const Tensor& x, double lo, double hi) { return clamp(x, lo, hi); }
Tensor threshold(const Tensor& x, double limit, double value) {
  return call("threshold", {x}, {{"threshold", limit}, {"value", value}});
}
Tensor glu(const Tensor& x, int64_t dim) {
  OCTET_CHECK(x.dim() > 0 && x.size(dim) % 2 == 0, invalid_argument,
              "glu: the input is {}; expected an even size along dimension {}", to_string(x.type()),
              dim);
  const std::vector<Tensor> halves = chunk(x, 2, dim);
  return halves.at(0) * sigmoid(halves.at(1));
}
Tensor softmax(const Tensor& x, int64_t dim) { return call("softmax", {x}, {{"dim", dim}}); }
Tensor softmin(const Tensor& x, int64_t dim) { return softmax(-x, dim); }
Tensor log_softmax(const Tensor& x, int64_t dim) {
  return call("log_softmax", {x}, {{"dim", dim}});
}

Tensor dropout(const Tensor& x, double p, bool training) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "dropout: p={}; expected a probability, 0 to 1",
              p);
  if (!training || p == 0) return x;
  if (x.is_symbolic()) return call("dropout", {x}, {{"p", p}});  // a graph draws when it runs
  if (p == 1) return x * 0.0;
  Tensor mask = Tensor::empty(x.shape());
  Random random(next_seed());
  float keep = static_cast<float>(1 / (1 - p));
  float* m = mask.data<float>();
  for (int64_t i = 0; i < mask.numel(); ++i) m[i] = random.uniform() < p ? 0.f : keep;
  return x * mask;
}
Tensor dropout1d(const Tensor& x, double p, bool training) {
  return detail::channel_dropout(x, 1, p, training, "dropout1d");
}
Tensor dropout2d(const Tensor& x, double p, bool training) {
  return detail::channel_dropout(x, 2, p, training, "dropout2d");
}
Tensor dropout3d(const Tensor& x, double p, bool training) {
  return detail::channel_dropout(x, 3, p, training, "dropout3d");
}

Tensor add(const Tensor& a, const Tensor& b) { return a + b; }
Tensor sub(const Tensor& a, const Tensor& b) { return a - b; }
Tensor mul(const Tensor& a, const Tensor& b) { return a * b; }
Tensor div(const Tensor& a, const Tensor& b) { return a / b; }
Tensor pow(const Tensor& a, double exponent) { return call("pow", {a, number(exponent, a)}); }
Tensor clamp(const Tensor& x, double lo, double hi) {
  return call("clamp", {x}, {{"min", lo}, {"max", hi}});
}
Tensor maximum(const Tensor& a, const Tensor& b) { return call("maximum", {a, b}); }
Tensor minimum(const Tensor& a, const Tensor& b) { return call("minimum", {a, b}); }
Tensor matmul(const Tensor& a, const Tensor& b) { return call("matmul", {a, b}); }
Tensor bmm(const Tensor& a, const Tensor& b) {
  OCTET_CHECK(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0), invalid_argument,
              "bmm: {} and {}; expected (B, N, K) and (B, K, M)", to_string(a.type()),
              to_string(b.type()));
  return matmul(a, b);
}
Tensor sum(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("sum", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor mean(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("mean", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor amax(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("amax", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor amin(const Tensor& x, const std::vector<int64_t>& dims, bool keepdim) {
  return call("amin", {x}, {{"dim", dims}, {"keepdim", keepdim}});
}
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim) {
  return call("argmax", {x}, {{"dim", dim}, {"keepdim", keepdim}});
}

Tensor normalize(const Tensor& x, double p, int64_t dim, double eps) {
  OCTET_CHECK(p > 0, invalid_argument, "normalize: p={}; expected more than 0", p);
  const Attrs along{{"dim", std::vector<int64_t>{dim}}, {"keepdim", true}};
  Tensor norm = p == 1          ? call("reduce_l1", {x}, along)
                : p == 2        ? call("reduce_l2", {x}, along)
                : std::isinf(p) ? amax(abs(x), {dim}, true)
                                : pow(sum(pow(abs(x), p), {dim}, true), 1 / p);
  return x / clamp(norm, eps, std::numeric_limits<double>::infinity());
}
Tensor one_hot(const Tensor& index, int64_t num_classes) {
  OCTET_CHECK(index.dtype() == DType::int64 && num_classes >= -1, invalid_argument,
              "one_hot: index {}, num_classes={}; expected int64, and -1 or more",
              to_string(index.type()), num_classes);
  if (num_classes < 0 || !index.is_symbolic()) {
    int64_t most = -1;
    for (int64_t i : index.to_vector<int64_t>()) {
      OCTET_CHECK(i >= 0 && (num_classes < 0 || i < num_classes), invalid_argument,
                  "one_hot: index {} with num_classes={}", i, num_classes);
      most = std::max(most, i);
    }
    OCTET_CHECK(num_classes >= 0 || most >= 0, invalid_argument,
                "one_hot: no index, and num_classes is not given");
    if (num_classes < 0) num_classes = most + 1;
  }
  return call("to", {call("equal", {index.unsqueeze(-1), Tensor::arange(num_classes)})},
              {{"dtype", std::string("int64")}});
}

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
Tensor flatten(const Tensor& x, int64_t start, int64_t end) {
  return call("flatten", {x}, {{"start_dim", start}, {"end_dim", end}});
}
Tensor unflatten(const Tensor& x, int64_t dim, const std::vector<int64_t>& sizes) {
  const int64_t at = ops::normalize_dim(dim, x.dim(), "unflatten");
  std::vector<int64_t> shape = x.shape();
  shape.erase(shape.begin() + at);
  shape.insert(shape.begin() + at, sizes.begin(), sizes.end());
  return call("reshape", {x}, {{"shape", shape}});
}
Tensor pad(const Tensor& x, const std::vector<int64_t>& pads, const std::string& mode,
           double value) {
  OCTET_CHECK(pads.size() % 2 == 0 && static_cast<int64_t>(pads.size()) <= 2 * x.dim(),
              invalid_argument,
              "pad: {} sizes for a {}-d tensor; expected a pair for each of the last dimensions",
              pads.size(), x.dim());
  // the operator's order: all beginnings, then all ends
  std::vector<int64_t> all(2 * static_cast<size_t>(x.dim()), 0);
  for (size_t i = 0; i < pads.size() / 2; ++i) {
    size_t d = static_cast<size_t>(x.dim()) - 1 - i;
    all[d] = pads[2 * i];
    all[d + static_cast<size_t>(x.dim())] = pads[2 * i + 1];
  }
  return call(
      "pad", {x},
      {{"pads", all}, {"mode", std::string(detail::pad_mode(mode, "pad"))}, {"value", value}});
}
Tensor pixel_shuffle(const Tensor& x, int64_t factor) {
  return call("pixel_shuffle", {x}, {{"upscale_factor", factor}});
}
Tensor pixel_unshuffle(const Tensor& x, int64_t factor) {
  return call("pixel_unshuffle", {x}, {{"downscale_factor", factor}});
}
Tensor channel_shuffle(const Tensor& x, int64_t groups) {
  return call("channel_shuffle", {x}, {{"groups", groups}});
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return call("linear", {x, weight, bias});
}
Tensor bilinear(const Tensor& x1, const Tensor& x2, const Tensor& weight, const Tensor& bias) {
  return call("bilinear", {x1, x2, weight, bias});
}

// -- convolutions and pools -----------------------------------------------------------------------

namespace {

template <size_t N>
Tensor conv(const Tensor& x, const Tensor& weight, const Tensor& bias, const Sizes<N>& stride,
            const ConvPadding<N>& padding, const Sizes<N>& dilation, int64_t groups) {
  const std::string op = detail::name_of<N>("conv");
  std::vector<int64_t> ends = padding.sizes().both_ends();
  if (padding.name() == "same") {
    detail::check_same(padding, stride, op);
    OCTET_CHECK(weight.dim() == static_cast<int64_t>(N) + 2, invalid_argument,
                "{}: weight is {}; expected {} dimensions", op, to_string(weight.type()), N + 2);
    ends = padding.both_ends(std::vector<int64_t>(weight.shape().begin() + 2, weight.shape().end()),
                             dilation);
  }
  return detail::call_conv(op, N, x, weight, bias,
                           detail::conv_attrs(stride, ends, dilation, groups));
}

template <size_t N>
Tensor conv_transpose(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Sizes<N>& stride, const Sizes<N>& padding,
                      const Sizes<N>& output_padding, int64_t groups, const Sizes<N>& dilation) {
  Attrs attrs = detail::conv_attrs(stride, padding.both_ends(), dilation, groups);
  return detail::call_conv(detail::name_of<N>("conv_transpose"), N, x, weight, bias,
                           attrs.set("output_padding", output_padding.list()));
}

template <size_t N>
Tensor max_pool(const Tensor& x, const Sizes<N>& kernel, const OptionalSizes<N>& stride,
                const Sizes<N>& padding, const Sizes<N>& dilation, bool ceil_mode) {
  return detail::call_pool<N>(
      "max_pool", x,
      detail::max_pool_attrs<N>(kernel, stride.value_or(kernel), padding, dilation, ceil_mode));
}

}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<1> stride,
              ConvPadding<1> padding, Sizes<1> dilation, int64_t groups) {
  return conv<1>(x, weight, bias, stride, padding, dilation, groups);
}
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<2> stride,
              ConvPadding<2> padding, Sizes<2> dilation, int64_t groups) {
  return conv<2>(x, weight, bias, stride, padding, dilation, groups);
}
Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<3> stride,
              ConvPadding<3> padding, Sizes<3> dilation, int64_t groups) {
  return conv<3>(x, weight, bias, stride, padding, dilation, groups);
}
Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<1> stride,
                        Sizes<1> padding, Sizes<1> output_padding, int64_t groups,
                        Sizes<1> dilation) {
  return conv_transpose<1>(x, weight, bias, stride, padding, output_padding, groups, dilation);
}
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<2> stride,
                        Sizes<2> padding, Sizes<2> output_padding, int64_t groups,
                        Sizes<2> dilation) {
  return conv_transpose<2>(x, weight, bias, stride, padding, output_padding, groups, dilation);
}
Tensor conv_transpose3d(const Tensor& x, const Tensor& weight, const Tensor& bias, Sizes<3> stride,
                        Sizes<3> padding, Sizes<3> output_padding, int64_t groups,
                        Sizes<3> dilation) {
  return conv_transpose<3>(x, weight, bias, stride, padding, output_padding, groups, dilation);
}

Tensor max_pool1d(const Tensor& x, Sizes<1> kernel, OptionalSizes<1> stride, Sizes<1> padding,
                  Sizes<1> dilation, bool ceil_mode) {
  return max_pool<1>(x, kernel, stride, padding, dilation, ceil_mode);
}
Tensor max_pool2d(const Tensor& x, Sizes<2> kernel, OptionalSizes<2> stride, Sizes<2> padding,
                  Sizes<2> dilation, bool ceil_mode) {
  return max_pool<2>(x, kernel, stride, padding, dilation, ceil_mode);
}
Tensor max_pool3d(const Tensor& x, Sizes<3> kernel, OptionalSizes<3> stride, Sizes<3> padding,
                  Sizes<3> dilation, bool ceil_mode) {
  return max_pool<3>(x, kernel, stride, padding, dilation, ceil_mode);
}

Tensor adaptive_avg_pool1d(const Tensor& x, Sizes<1> size) {
  return detail::adaptive_pool<1>("adaptive_avg_pool", x, size);
}
Tensor adaptive_avg_pool2d(const Tensor& x, Sizes<2> size) {
  return detail::adaptive_pool<2>("adaptive_avg_pool", x, size);
}
Tensor adaptive_avg_pool3d(const Tensor& x, Sizes<3> size) {
  return detail::adaptive_pool<3>("adaptive_avg_pool", x, size);
}
Tensor adaptive_max_pool1d(const Tensor& x, Sizes<1> size) {
  return detail::adaptive_pool<1>("adaptive_max_pool", x, size);
}
Tensor adaptive_max_pool2d(const Tensor& x, Sizes<2> size) {
  return detail::adaptive_pool<2>("adaptive_max_pool", x, size);
}
Tensor adaptive_max_pool3d(const Tensor& x, Sizes<3> size) {
  return detail::adaptive_pool<3>("adaptive_max_pool", x, size);
}

namespace {
template <size_t N>
Tensor avg_pool(const Tensor& x, const Sizes<N>& kernel, const OptionalSizes<N>& stride,
                const Sizes<N>& padding, bool ceil_mode, bool count_include_pad,
                int64_t divisor_override) {
  return detail::call_pool<N>(
      "avg_pool", x,
      detail::avg_pool_attrs<N>(kernel, stride.value_or(kernel), padding, ceil_mode,
                                count_include_pad, divisor_override));
}
}  // namespace

Tensor avg_pool1d(const Tensor& x, Sizes<1> kernel, OptionalSizes<1> stride, Sizes<1> padding,
                  bool ceil_mode, bool count_include_pad) {
  return avg_pool<1>(x, kernel, stride, padding, ceil_mode, count_include_pad, 0);
}
Tensor avg_pool2d(const Tensor& x, Sizes<2> kernel, OptionalSizes<2> stride, Sizes<2> padding,
                  bool ceil_mode, bool count_include_pad, int64_t divisor_override) {
  return avg_pool<2>(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override);
}
Tensor avg_pool3d(const Tensor& x, Sizes<3> kernel, OptionalSizes<3> stride, Sizes<3> padding,
                  bool ceil_mode, bool count_include_pad, int64_t divisor_override) {
  return avg_pool<3>(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override);
}

// -- normalizations -------------------------------------------------------------------------------

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, bool training, double momentum,
                  double eps) {
  return detail::batch_norm(x, running_mean, running_var, weight, bias, training, training,
                            momentum, eps, "batch_norm");
}
Tensor instance_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                     const Tensor& weight, const Tensor& bias, bool use_input_stats,
                     double momentum, double eps) {
  return detail::instance_norm(x, running_mean, running_var, weight, bias, use_input_stats,
                               momentum, eps, "instance_norm");
}
Tensor layer_norm(const Tensor& x, const Shape& normalized_shape, const Tensor& weight,
                  const Tensor& bias, double eps) {
  const auto rank = static_cast<int64_t>(normalized_shape.size());
  OCTET_CHECK(
      rank >= 1 && x.dim() >= rank &&
          std::equal(normalized_shape.begin(), normalized_shape.end(), x.shape().end() - rank),
      invalid_argument, "layer_norm: the input is {}; expected its last dimensions to be {}",
      to_string(x.type()), to_string(normalized_shape));
  return call("layer_norm", {x, weight, bias}, {{"axis", -rank}, {"eps", eps}});
}
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias,
                  double eps) {
  return call("group_norm", {x, weight, bias}, {{"groups", groups}, {"eps", eps}});
}

// -- tables ---------------------------------------------------------------------------------------

namespace {
// -1: none. Negative rows count from the end.
int64_t padding_row(const Tensor& weight, std::optional<int64_t> padding, const char* who) {
  if (!padding) return -1;
  OCTET_CHECK(weight.dim() == 2 && *padding >= -weight.size(0) && *padding < weight.size(0),
              invalid_argument, "{}: padding_idx={} of weight {}", who, *padding,
              to_string(weight.type()));
  return *padding < 0 ? *padding + weight.size(0) : *padding;
}
}  // namespace

Tensor embedding(const Tensor& index, const Tensor& weight, std::optional<int64_t> padding) {
  return call("embedding", {weight, index},
              {{"padding_idx", padding_row(weight, padding, "embedding")}});
}
Tensor embedding_bag(const Tensor& index, const Tensor& weight, const Tensor& offsets,
                     const std::string& mode, const Tensor& per_sample_weights,
                     bool include_last_offset, std::optional<int64_t> padding) {
  return call("embedding_bag", {weight, index, offsets, per_sample_weights},
              {{"mode", mode},
               {"include_last_offset", include_last_offset},
               {"padding_idx", padding_row(weight, padding, "embedding_bag")}});
}

// -- what modules share ---------------------------------------------------------------------------

namespace detail {

const char* pad_mode(const std::string& mode, std::string_view who) {
  const bool border = who == "pad";  // of constants; those of convolutions are "zeros"
  if (mode == "constant" && border) return "constant";
  if (mode == "reflect") return "reflect";
  if (mode == "replicate") return "edge";
  if (mode == "circular") return "wrap";
  OCTET_FAIL(invalid_argument, "{}: mode \"{}\"; expected {}, reflect, replicate or circular", who,
             mode, border ? "constant" : "zeros");
}

Tensor channel_dropout(const Tensor& x, int64_t spatial, double p, bool training,
                       std::string_view who) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "{}: p={}; expected a probability, 0 to 1", who,
              p);
  if (!training || p == 0) return x;
  OCTET_CHECK(x.dim() == spatial + 1 || x.dim() == spatial + 2, invalid_argument,
              "{}: the input is {}; expected {} or {} "
              "dimensions",
              who, to_string(x.type()), spatial + 1, spatial + 2);
  OCTET_CHECK(!x.is_symbolic(), unsupported,
              "{}: in training it cannot be traced, the channels it drops would stay the "
              "same: use nn::Dropout{}d, which stays a module",
              who, spatial);
  Shape channels(x.shape().begin(), x.shape().end() - spatial);
  channels.insert(channels.end(), static_cast<size_t>(spatial), 1);
  return x * dropout(Tensor::ones(channels), p, true);
}

namespace {

// running += momentum * (value - running)
void move_towards(Tensor& running, const float* value, double scale, double momentum, int64_t n) {
  auto m = static_cast<float>(momentum), s = static_cast<float>(scale);
  float* r = running.data<float>();
  for (int64_t c = 0; c < n; ++c) r[c] += m * (value[c] * s - r[c]);
}

// The channels of x, each with a value in every tensor that is given.
int64_t checked_channels(const Tensor& x, const std::vector<std::pair<const char*, Tensor>>& each,
                         std::string_view who) {
  OCTET_CHECK(x.dim() >= 2, invalid_argument, "{}: the input is {}; expected (N, C, ...)", who,
              to_string(x.type()));
  const int64_t channels = x.size(1);
  for (const auto& [name, t] : each)
    OCTET_CHECK(!t.defined() || t.shape() == Shape{channels}, invalid_argument,
                "{}: the input {} has {} channels; {} has shape {}", who, to_string(x.type()),
                channels, name, to_string(t.shape()));
  return channels;
}

// weight and bias, or ones and zeros; and the statistics.
std::vector<Tensor> with_statistics(const Tensor& x, const Tensor& mean, const Tensor& var,
                                    const Tensor& weight, const Tensor& bias,
                                    std::string_view who) {
  OCTET_CHECK(mean.defined() && var.defined(), invalid_argument,
              "{}: running_mean and running_var are not given; expected "
              "both, or training",
              who);
  const Shape channels{x.size(1)};
  return {x, weight.defined() ? weight : Tensor::ones(channels),
          bias.defined() ? bias : Tensor::zeros(channels), mean, var};
}

}  // namespace

Tensor batch_norm(const Tensor& x, Tensor mean, Tensor var, const Tensor& weight,
                  const Tensor& bias, bool batch_statistics, bool move, double momentum, double eps,
                  std::string_view who) {
  const int64_t channels = checked_channels(
      x, {{"running_mean", mean}, {"running_var", var}, {"weight", weight}, {"bias", bias}}, who);
  if (!batch_statistics)
    return call("batch_norm", with_statistics(x, mean, var, weight, bias, who), {{"eps", eps}});
  const int64_t count = channels ? x.numel() / channels : 0;
  OCTET_CHECK(count > 1, invalid_argument,
              "{}: training needs more than one value per channel, got shape {}", who,
              to_string(x.shape()));
  const std::vector<Tensor> results =
      ops::call_all("batch_norm_training", {x, weight, bias}, {{"eps", eps}});
  if (move) {
    const double unbias = static_cast<double>(count) / static_cast<double>(count - 1);
    if (mean.defined()) move_towards(mean, results[1].data<float>(), 1, momentum, channels);
    if (var.defined()) move_towards(var, results[2].data<float>(), unbias, momentum, channels);
  }
  return results[0];
}

Tensor instance_norm(const Tensor& x, Tensor mean, Tensor var, const Tensor& weight,
                     const Tensor& bias, bool input_statistics, double momentum, double eps,
                     std::string_view who) {
  const int64_t channels = checked_channels(
      x, {{"running_mean", mean}, {"running_var", var}, {"weight", weight}, {"bias", bias}}, who);
  if (!input_statistics)
    return call("batch_norm", with_statistics(x, mean, var, weight, bias, who), {{"eps", eps}});
  const int64_t samples = x.size(0), rows = samples * channels;
  OCTET_CHECK(x.numel() > rows, invalid_argument,
              "{}: needs more than one value per channel, got shape {}", who, to_string(x.shape()));
  if (mean.defined() || var.defined()) {
    // The samples' statistics are those of a batch norm over samples times channels.
    const int64_t count = x.numel() / rows;
    const std::vector<Tensor> results = ops::call_all(
        "batch_norm_training", {x.detach().reshape({1, rows, count})}, {{"eps", eps}});
    std::vector<float> means(static_cast<size_t>(channels)), vars(means);
    for (int64_t i = 0; i < rows; ++i) {
      means[static_cast<size_t>(i % channels)] +=
          results[1].data<float>()[i] / static_cast<float>(samples);
      vars[static_cast<size_t>(i % channels)] +=
          results[2].data<float>()[i] / static_cast<float>(samples);
    }
    if (mean.defined()) move_towards(mean, means.data(), 1, momentum, channels);
    if (var.defined())
      move_towards(var, vars.data(), static_cast<double>(count) / static_cast<double>(count - 1),
                   momentum, channels);
  }
  return call("instance_norm", {x, weight, bias}, {{"eps", eps}});
}

}  // namespace detail
}  // namespace functional
}  // namespace octet
