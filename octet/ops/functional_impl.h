#pragma once
// What functional:: and the modules share: layers for 1, 2 and 3 spatial dimensions as templates,
// and the normalizations with running statistics. `who` names the caller in errors.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/ops/op.h"
#include "octet/ops/sizes.h"

namespace octet::functional::detail {

// fn of images (N, C, spatial...), of which x may lack the batch dimension.
template <typename Fn>
Tensor on_images(const Tensor& x, size_t spatial, Fn&& fn) {
  if (x.dim() != static_cast<int64_t>(spatial) + 1) return fn(x);
  return fn(x.unsqueeze(0)).squeeze(0);
}

// An operator for N spatial dimensions: "conv" -> "conv2d".
template <size_t N>
std::string name_of(std::string_view kind) {
  return std::string(kind) + std::to_string(N) + "d";
}

// -- convolutions ---------------------------------------------------------------------------------

template <size_t N>
Attrs conv_attrs(const Sizes<N>& stride, const std::vector<int64_t>& padding,
                 const Sizes<N>& dilation, int64_t groups) {
  return {{"stride", stride.list()},
          {"padding", padding},
          {"dilation", dilation.list()},
          {"groups", groups}};
}

// Error if `padding` is "same" and there is a stride.
template <size_t N>
void check_same(const ConvPadding<N>& padding, const Sizes<N>& stride, std::string_view who) {
  if (padding.name() != "same" || stride == Sizes<N>(1)) return;
  throw Error(ErrorCode::invalid_argument,
              std::string(who) + ": padding=\"same\" goes with stride 1 only, got stride=" +
                  stride.text() + ": give the sizes of the padding");
}

// The pad operator's "mode" for PyTorch's padding_mode: "constant", "reflect", "replicate",
// "circular".
const char* pad_mode(const std::string& padding_mode, std::string_view who);

// The attributes of the pad operator in front of a convolution whose padding is not zeros; empty:
// there is none.
template <size_t N>
Attrs conv_pads(const std::string& padding_mode, const std::vector<int64_t>& both_ends,
                std::string_view who) {
  if (padding_mode == "zeros") return {};
  const std::string mode = pad_mode(padding_mode, who);
  if (std::all_of(both_ends.begin(), both_ends.end(), [](int64_t p) { return p == 0; })) return {};
  std::vector<int64_t> pads(2 * (N + 2), 0);
  for (size_t i = 0; i < N; ++i) {
    pads[2 + i] = both_ends[i];
    pads[N + 4 + i] = both_ends[N + i];
  }
  return {{"pads", pads}, {"mode", mode}};
}

// The operator `op`, a convolution, of x with `pads` around it (those of conv_pads).
inline Tensor call_conv(std::string_view op, size_t spatial, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Attrs& attrs, const Attrs& pads = {},
                        const std::optional<ops::QType>& want = {}) {
  return on_images(x, spatial, [&](const Tensor& images) {
    return ops::call(op, {pads.size() ? ops::call("pad", {images}, pads) : images, weight, bias},
                     attrs, want);
  });
}

// -- pools ----------------------------------------------------------------------------------------

template <size_t N>
Attrs max_pool_attrs(const Sizes<N>& kernel, const Sizes<N>& stride, const Sizes<N>& padding,
                     const Sizes<N>& dilation, bool ceil_mode) {
  return {{"kernel", kernel.list()},
          {"stride", stride.list()},
          {"padding", padding.both_ends()},
          {"dilation", dilation.list()},
          {"ceil_mode", ceil_mode}};
}

template <size_t N>
Attrs avg_pool_attrs(const Sizes<N>& kernel, const Sizes<N>& stride, const Sizes<N>& padding,
                     bool ceil_mode, bool count_include_pad, int64_t divisor_override) {
  Attrs attrs{{"kernel", kernel.list()},
              {"stride", stride.list()},
              {"padding", padding.both_ends()},
              {"ceil_mode", ceil_mode},
              {"count_include_pad", count_include_pad}};
  if (divisor_override != 0) attrs.set("divisor_override", divisor_override);
  return attrs;
}

template <size_t N>
Tensor call_pool(std::string_view kind, const Tensor& x, const Attrs& attrs,
                 const std::optional<ops::QType>& result = {}) {
  return on_images(x, N, [&](const Tensor& images) {
    return ops::call(name_of<N>(kind), {images}, attrs, result);
  });
}

// kind: "adaptive_avg_pool" or "adaptive_max_pool". A size of -1 keeps x's.
template <size_t N>
Tensor adaptive_pool(std::string_view kind, const Tensor& x, const Sizes<N>& output_size,
                     const std::optional<ops::QType>& result = {}) {
  std::vector<int64_t> size = output_size.list();
  if (x.dim() < static_cast<int64_t>(N))
    throw Error(ErrorCode::invalid_argument, name_of<N>(kind) + ": the input is " +
                                                 to_string(x.type()) + "; expected " +
                                                 std::to_string(N) + " spatial dimensions");
  for (size_t i = 0; i < N; ++i)
    if (size[i] == -1) size[i] = x.size(static_cast<int64_t>(i) - static_cast<int64_t>(N));
  return call_pool<N>(kind, x, {{"output_size", size}}, result);
}

// -- others ---------------------------------------------------------------------------------------

Tensor channel_dropout(const Tensor& x, int64_t spatial, double p, bool training,
                       std::string_view who);

// x (N, C, ...). Statistics of the batch itself unless `batch_statistics` is false; the running
// ones, where they are defined, move towards them if `move`.
Tensor batch_norm(const Tensor& x, Tensor running_mean, Tensor running_var, const Tensor& weight,
                  const Tensor& bias, bool batch_statistics, bool move, double momentum, double eps,
                  std::string_view who);
// The same for each sample, the running statistics being means of the samples'.
Tensor instance_norm(const Tensor& x, Tensor running_mean, Tensor running_var, const Tensor& weight,
                     const Tensor& bias, bool input_statistics, double momentum, double eps,
                     std::string_view who);

}  // namespace octet::functional::detail
