#include "octet/nn/conv.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn {

[[maybe_unused]] const bool g_conv_registered = [] {
  register_module<Conv1d>("octet::nn::Conv1d");
  register_module<Conv2d>("octet::nn::Conv2d");
  register_module<Conv3d>("octet::nn::Conv3d");
  register_module<ConvTranspose1d>("octet::nn::ConvTranspose1d");
  register_module<ConvTranspose2d>("octet::nn::ConvTranspose2d");
  register_module<ConvTranspose3d>("octet::nn::ConvTranspose3d");
  return true;
}();

namespace {

template <size_t N, bool transposed>
Shape weight_shape(int64_t in, int64_t out, const Sizes<N>& kernel, const ConvOptions<N>& o) {
  OCTET_CHECK(in >= 1 && out >= 1 && o.groups >= 1 && in % o.groups == 0 && out % o.groups == 0,
              invalid_argument,
              "Conv{}{}d: {} input and {} output channels in {} groups; expected 1 or more of "
              "each, and groups to divide both",
              transposed ? "Transpose" : "", N, in, out, o.groups);
  const std::string who = fmt::format("Conv{}{}d", transposed ? "Transpose" : "", N);
  for (size_t i = 0; i < N; ++i)
    OCTET_CHECK(
        kernel[i] >= 1 && o.stride[i] >= 1 && o.dilation[i] >= 1 && o.padding.sizes()[i] >= 0 &&
            o.output_padding[i] >= 0,
        invalid_argument,
        "{}: kernel_size={}, stride={}, padding={}, dilation={}; expected 1 or more, padding 0 "
        "or more",
        who, kernel.text(), o.stride.text(), o.padding.text(), o.dilation.text());
  functional::detail::check_same(o.padding, o.stride, who);
  functional::detail::conv_pads<N>(o.padding_mode, o.padding.both_ends(kernel, o.dilation), who);
  OCTET_CHECK(!transposed || (o.padding.name().empty() && o.padding_mode == "zeros"),
              invalid_argument, "{}: padding={}, padding_mode={}; expected sizes and \"zeros\"",
              who, o.padding.text(), o.padding_mode);
  Shape shape = transposed ? Shape{in, out / o.groups} : Shape{out, in / o.groups};
  for (size_t i = 0; i < N; ++i) shape.push_back(kernel[i]);
  return shape;
}

int64_t fan_in(const Shape& weight) { return numel(weight) / weight[0]; }

}  // namespace

template <size_t N, bool transposed>
const char* ConvNd<N, transposed>::op_name() {
  static const std::string name = fmt::format("conv{}{}d", transposed ? "_transpose" : "", N);
  return name.c_str();
}

template <size_t N, bool transposed>
ConvNd<N, transposed>::ConvNd(int64_t in, int64_t out, Sizes<N> kernel, ConvOptions<N> o)
    : in_channels(in),
      out_channels(out),
      kernel_size(kernel),
      options(o),
      weight(parameter("weight",
                       [&] {
                         Shape shape = weight_shape<N, transposed>(in, out, kernel, o);
                         return init::uniform_fan_in(shape, fan_in(shape));
                       }())),
      bias(parameter("bias",
                     o.bias ? init::uniform_fan_in({out}, fan_in(weight.shape())) : Tensor())) {}

template <size_t N, bool transposed>
Attrs ConvNd<N, transposed>::op_attrs() const {
  const std::vector<int64_t> padding =
      options.padding_mode == "zeros" ? options.padding.both_ends(kernel_size, options.dilation)
                                      : std::vector<int64_t>(2 * N, 0);
  Attrs attrs =
      functional::detail::conv_attrs(options.stride, padding, options.dilation, options.groups);
  if (transposed) attrs.set("output_padding", options.output_padding.list());
  return attrs;
}

template <size_t N, bool transposed>
Attrs ConvNd<N, transposed>::pad_attrs() const {
  return functional::detail::conv_pads<N>(
      options.padding_mode, options.padding.both_ends(kernel_size, options.dilation), op_name());
}

template <size_t N, bool transposed>
Tensor ConvNd<N, transposed>::conv_forward(const Tensor& x, const Tensor& w,
                                           const Tensor& b) const {
  return functional::detail::call_conv(op_name(), N, x, w, b, op_attrs(), pad_attrs());
}

template <size_t N, bool transposed>
Tensor ConvNd<N, transposed>::forward(Tensor x) {
  return conv_forward(x, weight, bias);
}

template <size_t N, bool transposed>
std::string ConvNd<N, transposed>::extra_repr() const {
  std::string s = fmt::format("{}, {}, kernel_size={}, stride={}", in_channels, out_channels,
                              kernel_size.text(), options.stride.text());
  if (options.padding != ConvPadding<N>(0)) s += ", padding=" + options.padding.text();
  if (options.dilation != Sizes<N>(1)) s += ", dilation=" + options.dilation.text();
  if (options.output_padding != Sizes<N>(0))
    s += ", output_padding=" + options.output_padding.text();
  if (options.groups != 1) s += fmt::format(", groups={}", options.groups);
  if (!bias.defined()) s += ", bias=False";
  if (options.padding_mode != "zeros") s += ", padding_mode=" + options.padding_mode;
  return s;
}

template <size_t N, bool transposed>
Attrs ConvNd<N, transposed>::config() const {
  Attrs c{{"in_channels", in_channels},
          {"out_channels", out_channels},
          {"kernel_size", kernel_size.list()},
          {"stride", options.stride.list()},
          {"padding", options.padding.sizes().list()},
          {"dilation", options.dilation.list()},
          {"groups", options.groups},
          {"bias", bias.defined()},
          {"output_padding", options.output_padding.list()}};
  if (!options.padding.name().empty()) c.set("padding", options.padding.name());
  if (options.padding_mode != "zeros") c.set("padding_mode", options.padding_mode);
  return c;
}

template <size_t N, bool transposed>
std::shared_ptr<ConvNd<N, transposed>> ConvNd<N, transposed>::from_config(const Attrs& c) {
  const auto* name = std::get_if<std::string>(&c.get("padding"));
  return make<ConvNd>(
      c.get_int("in_channels"), c.get_int("out_channels"), Sizes<N>(c.get_ints("kernel_size")),
      ConvOptions<N>{
          .stride = c.get_ints("stride"),
          .padding = name ? ConvPadding<N>(*name) : ConvPadding<N>(c.get_ints("padding")),
          .dilation = c.get_ints("dilation"),
          .groups = c.get_int("groups"),
          .bias = c.get_bool("bias"),
          .output_padding = c.get_ints("output_padding"),
          .padding_mode = c.has("padding_mode") ? c.get_string("padding_mode") : "zeros"});
}

template class ConvNd<1, false>;
template class ConvNd<2, false>;
template class ConvNd<3, false>;
template class ConvNd<1, true>;
template class ConvNd<2, true>;
template class ConvNd<3, true>;

}  // namespace octet::nn
