#include "octet/nn/conv.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(Conv1d)
OCTET_MODULE(Conv2d)
OCTET_MODULE(Conv3d)
OCTET_MODULE(ConvTranspose1d)
OCTET_MODULE(ConvTranspose2d)
OCTET_MODULE(ConvTranspose3d)

namespace {

template <size_t N, bool transposed>
Shape weight_shape(int64_t in, int64_t out, const Sizes<N>& kernel, const ConvOptions<N>& o) {
  OCTET_CHECK(in >= 1 && out >= 1 && o.groups >= 1 && in % o.groups == 0 && out % o.groups == 0, invalid_argument,
              "Conv{}{}d: {} input and {} output channels in {} groups; expected 1 or more of each, and groups to divide both",
              transposed ? "Transpose" : "", N, in, out, o.groups);
  for (size_t i = 0; i < N; ++i)
    OCTET_CHECK(kernel[i] >= 1 && o.stride[i] >= 1 && o.dilation[i] >= 1 && o.padding[i] >= 0 && o.output_padding[i] >= 0,
                invalid_argument, "Conv{}{}d: kernel_size={}, stride={}, padding={}, dilation={}; expected 1 or more, padding 0 "
                "or more", transposed ? "Transpose" : "", N, kernel.text(), o.stride.text(), o.padding.text(), o.dilation.text());
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
    : in_channels(in), out_channels(out), kernel_size(kernel), options(o),
      weight(parameter("weight", [&] {
        Shape shape = weight_shape<N, transposed>(in, out, kernel, o);
        return init::uniform_fan_in(shape, fan_in(shape));
      }())),
      bias(parameter("bias", o.bias ? init::uniform_fan_in({out}, fan_in(weight.shape())) : Tensor())) {}

template <size_t N, bool transposed>
Attrs ConvNd<N, transposed>::op_attrs() const {
  Attrs attrs{{"stride", options.stride.list()},
              {"padding", options.padding.both_ends()},
              {"dilation", options.dilation.list()},
              {"groups", options.groups}};
  if (transposed) attrs.set("output_padding", options.output_padding.list());
  return attrs;
}

template <size_t N, bool transposed>
Tensor ConvNd<N, transposed>::conv_forward(const Tensor& x, const Tensor& w, const Tensor& b) const {
  bool unbatched = x.dim() == static_cast<int64_t>(N) + 1;
  Tensor y = ops::call(op_name(), {unbatched ? x.unsqueeze(0) : x, w, b}, op_attrs());
  return unbatched ? y.squeeze(0) : y;
}

template <size_t N, bool transposed>
Tensor ConvNd<N, transposed>::forward(Tensor x) {
  return conv_forward(x, weight, bias);
}

template <size_t N, bool transposed>
std::string ConvNd<N, transposed>::extra_repr() const {
  std::string s = fmt::format("{}, {}, kernel_size={}, stride={}", in_channels, out_channels, kernel_size.text(),
                              options.stride.text());
  if (options.padding != Sizes<N>(0)) s += ", padding=" + options.padding.text();
  if (options.dilation != Sizes<N>(1)) s += ", dilation=" + options.dilation.text();
  if (options.output_padding != Sizes<N>(0)) s += ", output_padding=" + options.output_padding.text();
  if (options.groups != 1) s += fmt::format(", groups={}", options.groups);
  if (!bias.defined()) s += ", bias=False";
  return s;
}

template <size_t N, bool transposed>
Attrs ConvNd<N, transposed>::config() const {
  return {{"in_channels", in_channels},
          {"out_channels", out_channels},
          {"kernel_size", kernel_size.list()},
          {"stride", options.stride.list()},
          {"padding", options.padding.list()},
          {"dilation", options.dilation.list()},
          {"groups", options.groups},
          {"bias", bias.defined()},
          {"output_padding", options.output_padding.list()}};
}

template <typename Conv>
std::shared_ptr<Conv> conv_from_config(const Attrs& c) {
  constexpr size_t N = Conv::spatial_dims;
  return make<Conv>(c.get_int("in_channels"), c.get_int("out_channels"), Sizes<N>(c.get_ints("kernel_size")),
                    ConvOptions<N>{.stride = c.get_ints("stride"),
                                   .padding = c.get_ints("padding"),
                                   .dilation = c.get_ints("dilation"),
                                   .groups = c.get_int("groups"),
                                   .bias = c.get_bool("bias"),
                                   .output_padding = c.get_ints("output_padding")});
}

template class ConvNd<1, false>;
template class ConvNd<2, false>;
template class ConvNd<3, false>;
template class ConvNd<1, true>;
template class ConvNd<2, true>;
template class ConvNd<3, true>;
template std::shared_ptr<Conv1d> conv_from_config(const Attrs&);
template std::shared_ptr<Conv2d> conv_from_config(const Attrs&);
template std::shared_ptr<Conv3d> conv_from_config(const Attrs&);
template std::shared_ptr<ConvTranspose1d> conv_from_config(const Attrs&);
template std::shared_ptr<ConvTranspose2d> conv_from_config(const Attrs&);
template std::shared_ptr<ConvTranspose3d> conv_from_config(const Attrs&);

}  // namespace octet::nn
