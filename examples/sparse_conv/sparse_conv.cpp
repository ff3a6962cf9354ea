#include "sparse_conv.h"

#include <octet/base/parallel.h>
#include <octet/nn/init.h>
#include <octet/nn/registry.h>
#include <octet/ops/op.h>
#include <octet/tensor/affine.h>

#include <algorithm>

namespace sparse {

using octet::DType;
using octet::ErrorCode;
using octet::Shape;
namespace affine = octet::affine;
namespace ops = octet::ops;

namespace {

[[noreturn]] void invalid(const std::string& message) {
  octet::fail(ErrorCode::invalid_argument, message);
}

// -- the operator ---------------------------------------------------------------------------------

// (rows of the result, kernel * channels): zeros where a site is not active.
Tensor gather(const Tensor& features, const Tensor& rows) {
  // A row of zeros behind the others: -1 counts from the end.
  const Tensor padded = ops::call("pad", {features}, {{"pads", std::vector<int64_t>{0, 0, 1, 0}}});
  return ops::call("index_select", {padded, rows}, {{"dim", int64_t{0}}})
      .reshape({rows.size(0), rows.size(1) * features.size(1)});
}

Tensor matrix(const Tensor& weight) {
  return weight.reshape({weight.size(0), weight.numel() / weight.size(0)});
}

TensorType infer(const ops::Types& t) {
  const TensorType &x = t["features"], &rows = t["rows"], &w = t["weight"];
  if (x.dim() != 2 || rows.dim() != 2 || w.dim() != 4)
    invalid("sparse_conv2d: features " + to_string(x) + ", rows " + to_string(rows) + ", weight " +
            to_string(w) + "; expected 2, 2 and 4 dimensions");
  if (rows.dtype != DType::int64)
    invalid("sparse_conv2d: rows is " + to_string(rows) + "; expected int64");
  if (x.dims[1] != w.dims[3] || rows.dims[1] != multiply(w.dims[1], w.dims[2]))
    invalid("sparse_conv2d: the weight " + to_string(w) + " does not fit the features " +
            to_string(x) + " and the rows " + to_string(rows) +
            "; it is (out, kernel height, kernel width, channels)");
  const std::string& activation = t.attrs().get_string("activation");
  if (activation != "none" && activation != "relu")
    invalid("sparse_conv2d: activation is '" + activation + "'; expected 'none' or 'relu'");
  const std::vector<octet::Dim> dims{rows.dims[0], w.dims[0]};
  return x.is_quantized() && !t.want() ? TensorType(DType::float32, dims) : t.result(dims);
}

Tensor eval_float(const ops::Call& c) {
  return ops::call(
      "linear",
      {gather(c["features"], c["rows"]), matrix(c["weight"]), c.has("bias") ? c["bias"] : Tensor()},
      {{"activation", c.attrs().get("activation")}});
}

// sum over k, c of (q_x - z_x)(q_w - z_w) in int32, then bias and requantization as
// docs/numerics.md says. What is not quantized throughout is computed in float and quantized.
Tensor eval_codes(const ops::Call& c) {
  const Tensor &x = c["features"], &weight = c["weight"];
  const Tensor bias = c.has("bias") ? c["bias"] : Tensor();
  const TensorType& type = c.outputs()[0];
  if (!x.is_quantized() || !weight.is_quantized() || !type.is_quantized()) {
    Tensor y =
        ops::call(kSparseConv2d, {x.dequantize(), c["rows"], weight.dequantize(), bias}, c.attrs());
    return type.is_quantized() ? quantize(y, type.quantizer, type.dtype) : y;
  }
  const int64_t out = weight.size(0), channels = x.size(1), kernel = c["rows"].size(1),
                count = c["rows"].size(0);
  const auto zx = static_cast<int32_t>(x.q_zero_point());
  const octet::Quantizer& wq = *weight.quantizer();
  if (x.quantizer()->is_per_channel() || wq.axis() > 0 || type.quantizer->is_per_channel())
    invalid("sparse_conv2d: features " + to_string(x.type()) + ", weight " +
            to_string(weight.type()) + ", result " + to_string(type) +
            "; expected features and result quantized per tensor and the weight per tensor or "
            "along axis 0");

  // Codes less their zero points fit 16 bits; weights as (kernel, channels, out), so that the inner
  // loop runs along memory.
  auto plain = [](const Tensor& codes) {
    return codes.int_repr().to(DType::int32).to_vector<int32_t>();
  };
  const std::vector<int32_t> x_codes = plain(x), w_codes = plain(weight),
                             rows32 = c["rows"].to(DType::int32).to_vector<int32_t>();
  std::vector<int16_t> xs(x_codes.size()), ws(w_codes.size());
  std::transform(x_codes.begin(), x_codes.end(), xs.begin(),
                 [zx](int32_t q) { return static_cast<int16_t>(q - zx); });
  const int64_t depth = kernel * channels;
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < depth; ++i)
      ws[i * out + o] =
          static_cast<int16_t>(w_codes[o * depth + i] - static_cast<int32_t>(wq.zero_point(o)));

  const octet::Quantizer& yq = *type.quantizer;
  const auto sx = static_cast<float>(x.q_scale()), sy = static_cast<float>(yq.scale());
  const auto zy = static_cast<int32_t>(yq.zero_point());
  const bool is_unsigned = type.dtype == DType::quint8;
  const int32_t hi = is_unsigned ? 255 : 127;
  const int32_t lo = c.attrs().get_string("activation") == "relu" ? zy : is_unsigned ? 0 : -128;
  std::vector<uint32_t> b(out, 0);  // unsigned: sums wrap
  std::vector<float> m(out);
  for (int64_t o = 0; o < out; ++o) {
    const auto sw = static_cast<float>(wq.scale(o));
    if (bias.defined())
      b[o] = static_cast<uint32_t>(affine::quantize_bias(static_cast<float>(bias.at({o})), sx, sw));
    m[o] = sx * sw / sy;
  }

  Tensor y = Tensor::empty({count, out}, type.dtype, type.quantizer);
  auto* codes = static_cast<uint8_t*>(y.raw_data());  // of signed ones the same bits
  octet::parallel_ranges(count, 16, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> acc(out);
    for (int64_t r = begin; r < end; ++r) {
      acc = b;
      for (int64_t k = 0; k < kernel; ++k) {
        const int32_t row = rows32[r * kernel + k];
        if (row < 0) continue;
        for (int64_t ch = 0; ch < channels; ++ch) {
          const int16_t v = xs[row * channels + ch];
          if (v == 0) continue;  // half of them behind a relu
          const int16_t* w = &ws[(k * channels + ch) * out];
          for (int64_t o = 0; o < out; ++o) acc[o] += static_cast<uint32_t>(v * w[o]);
        }
      }
      for (int64_t o = 0; o < out; ++o)
        codes[r * out + o] = static_cast<uint8_t>(
            affine::requantize(static_cast<int32_t>(acc[o]), m[o], zy, lo, hi));
    }
  });
  return y;
}

std::vector<Tensor> gradients_of(const ops::Grad& g) {
  const Tensor &x = g["features"], &rows = g["rows"], &weight = g["weight"];
  Tensor dy = g.dy(), dx, dw, db;
  if (g.attrs().get_string("activation") == "relu")
    dy = ops::call("where",
                   {ops::call("greater", {g.y(), Tensor::scalar(0)}), dy, Tensor::scalar(0)});
  if (g.needs(0)) {
    const Tensor d = ops::call("linear_backward_data", {dy, matrix(weight)}).contiguous();
    dx = Tensor::zeros(x.shape());
    const std::vector<int64_t> to = rows.to_vector<int64_t>();
    const int64_t channels = x.size(1);
    const float* from = d.data<float>();
    for (int64_t row : to) {
      if (row >= 0) {
        float* p = dx.data<float>() + row * channels;
        for (int64_t c = 0; c < channels; ++c) p[c] += from[c];
      }
      from += channels;
    }
  }
  if (g.needs(2) || g.needs(3)) {
    std::vector<Tensor> d =
        ops::call_all("linear_backward_weight", {gather(x, rows), dy}, {{"bias", g.has("bias")}});
    dw = d[0].reshape(weight.shape());
    if (g.has("bias")) db = d[1];
  }
  return {dx, Tensor(), dw, db};
}

OCTET_OP(sparse_conv2d, "sparse_conv2d(features, rows, weight, bias?, *, activation=\"none\") -> y",
         ops::QRule::own, ops::infer(infer), ops::eval(eval_float), ops::quantized(eval_codes),
         ops::gradients(gradients_of),
         ops::Doc{"convolution of the active sites of an image: y[r] = sum over k of "
                  "features[rows[r, k]] * weight[:, k]"})

}  // namespace

// -- rules ----------------------------------------------------------------------------------------

Rules make_rules(const SparseConvTensor& x, Sizes<2> kernel_size,
                 const SparseConvOptions& options) {
  const Extent e = extent(x);
  const std::vector<int64_t> grid = site_grid(x);
  auto result_size = [&](int64_t size, int i) {
    return (size + 2 * options.padding[i] - kernel_size[i]) / options.stride[i] + 1;
  };
  const int64_t height = result_size(e.height, 0), width = result_size(e.width, 1);
  if (height < 1 || width < 1)
    invalid("sparse convolution: the kernel " + kernel_size.text() +
            " is larger than the image of " + std::to_string(e.height) + " x " +
            std::to_string(e.width) + " and its padding");
  Rules rules{Tensor(), x.indices, Tensor::from<int64_t>({height, width})};

  std::vector<int64_t> rows;
  std::vector<int32_t> indices;
  const int64_t kernel = kernel_size[0] * kernel_size[1];
  // Appends the rows that the result at (n, oy, ox) is made of; false if there are none.
  auto add = [&](int64_t n, int64_t oy, int64_t ox) {
    bool any = false;
    for (int64_t ky = 0; ky < kernel_size[0]; ++ky)
      for (int64_t kx = 0; kx < kernel_size[1]; ++kx) {
        const int64_t iy = oy * options.stride[0] - options.padding[0] + ky,
                      ix = ox * options.stride[1] - options.padding[1] + kx;
        const bool inside = iy >= 0 && iy < e.height && ix >= 0 && ix < e.width;
        rows.push_back(inside ? grid[(n * e.height + iy) * e.width + ix] : -1);
        any = any || rows.back() >= 0;
      }
    return any;
  };
  if (options.submanifold) {
    const std::vector<int32_t> at = x.indices.to_vector<int32_t>();
    for (size_t i = 0; i < at.size(); i += 3) add(at[i], at[i + 1], at[i + 2]);
  } else {
    for (int64_t n = 0; n < e.batch; ++n)
      for (int64_t oy = 0; oy < height; ++oy)
        for (int64_t ox = 0; ox < width; ++ox) {
          if (add(n, oy, ox))
            for (int64_t i : {n, oy, ox}) indices.push_back(static_cast<int32_t>(i));
          else
            rows.resize(rows.size() - kernel);
        }
    rules.indices = Tensor::from(indices, {static_cast<int64_t>(indices.size() / 3), 3});
  }
  rules.rows = Tensor::from(rows, {static_cast<int64_t>(rows.size()) / kernel, kernel});
  return rules;
}

// -- modules --------------------------------------------------------------------------------------

SparseConv2d::SparseConv2d(int64_t in_channels, int64_t out_channels, Sizes<2> kernel_size,
                           SparseConvOptions options)
    : in_channels(in_channels),
      out_channels(out_channels),
      kernel_size(kernel_size),
      options(options),
      weight(parameter("weight", nn::init::kaiming_normal(
                                     {out_channels, kernel_size[0], kernel_size[1], in_channels},
                                     kernel_size[0] * kernel_size[1] * in_channels))),
      bias(parameter("bias", options.bias ? Tensor::zeros({out_channels}) : Tensor())) {
  if (!options.submanifold) return;
  for (int i : {0, 1})
    if (options.stride[i] != 1 || kernel_size[i] % 2 == 0 ||
        options.padding[i] != kernel_size[i] / 2)
      invalid(
          "SparseConv2d: a submanifold convolution has stride 1, an odd kernel and padding "
          "kernel/2; got stride " +
          options.stride.text() + ", kernel " + kernel_size.text() + ", padding " +
          options.padding.text());
}

SparseConvTensor SparseConv2d::forward_value(SparseConvTensor x) {
  const Rules rules = make_rules(x, kernel_size, options);
  return {ops::call(kSparseConv2d, {x.features, rules.rows, weight, bias}), rules.indices,
          rules.spatial_shape, x.batch_size};
}

// How many sites are active behind a convolution depends on where they are: it gets a name.
std::optional<std::vector<TensorType>> SparseConv2d::infer(
    const std::vector<TensorType>& inputs) const {
  std::vector<TensorType> results = inputs;
  const octet::Dim rows = options.submanifold ? inputs.at(0).dims.at(0) : octet::Dim("rows");
  results[0] = TensorType(DType::float32, std::vector<octet::Dim>{rows, out_channels});
  results.at(1).dims.at(0) = rows;
  return results;
}

std::string SparseConv2d::extra_repr() const {
  return std::to_string(in_channels) + ", " + std::to_string(out_channels) +
         ", kernel_size=" + kernel_size.text() + ", stride=" + options.stride.text() +
         ", padding=" + options.padding.text() + (options.submanifold ? ", submanifold=True" : "") +
         (options.bias ? "" : ", bias=False");
}

Attrs SparseConv2d::config() const {
  return {{"in_channels", in_channels},
          {"out_channels", out_channels},
          {"kernel_size", kernel_size.list()},
          {"stride", options.stride.list()},
          {"padding", options.padding.list()},
          {"submanifold", options.submanifold},
          {"bias", options.bias}};
}

std::shared_ptr<SparseConv2d> SparseConv2d::from_config(const Attrs& c) {
  return nn::make<SparseConv2d>(c.get_int("in_channels"), c.get_int("out_channels"),
                                c.get_ints("kernel_size"),
                                SparseConvOptions{.stride = c.get_ints("stride"),
                                                  .padding = c.get_ints("padding"),
                                                  .submanifold = c.get_bool("submanifold"),
                                                  .bias = c.get_bool("bias")});
}

SparseConv2d SubMConv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size, bool bias) {
  return {in_channels,
          out_channels,
          kernel_size,
          {.padding = kernel_size / 2, .submanifold = true, .bias = bias}};
}

std::shared_ptr<SparseBatchNorm> SparseBatchNorm::from_config(const Attrs& c) {
  return nn::make<SparseBatchNorm>(
      c.get_int("num_features"),
      nn::BatchNormOptions{c.get_double("eps"), c.get_double("momentum"), c.get_bool("affine"),
                           c.get_bool("track_running_stats")});
}

Tensor ToDense::forward_value(SparseConvTensor x) {
  const Extent e = extent(x);
  if (e.height != spatial_shape[0] || e.width != spatial_shape[1])
    invalid("ToDense: got an image of " + std::to_string(e.height) + " x " +
            std::to_string(e.width) + "; expected " + spatial_shape.text());
  return dense(x);
}

std::optional<std::vector<TensorType>> ToDense::infer(const std::vector<TensorType>& inputs) const {
  TensorType y = inputs.at(0);
  y.dims = {octet::Dim("batch"), y.dims.at(1), spatial_shape[0], spatial_shape[1]};
  return std::vector<TensorType>{y};
}

std::shared_ptr<ToDense> ToDense::from_config(const Attrs& c) {
  return nn::make<ToDense>(Sizes<2>(c.get_ints("spatial_shape")));
}

OCTET_MODULE(SparseConv2d)
OCTET_MODULE(SparseBatchNorm)
OCTET_MODULE(SparseReLU)
OCTET_MODULE(ToDense)

}  // namespace sparse
