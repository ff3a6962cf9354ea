// Operators as functions, under PyTorch's names and with its order of arguments; and any operator
// of the registry by its name.
#include <algorithm>
#include <optional>
#include <string>

#include "octet/base/error.h"
#include "octet/nn/loss.h"
#include "octet/nn/upsample.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

using Optional = std::optional<Tensor>;
using Dims = std::vector<int64_t>;

Tensor given(const Optional& x) { return x.value_or(Tensor()); }

// A number for all dimensions, or one for each.
template <size_t N>
Sizes<N> sizes(const py::object& x) {
  if (py::isinstance<py::int_>(x)) return x.cast<int64_t>();
  auto each = x.cast<Dims>();
  return each.size() == 1 ? Sizes<N>(each[0]) : Sizes<N>(each);
}
template <size_t N>
OptionalSizes<N> optional_sizes(const py::object& x) {
  if (x.is_none() || (py::isinstance<py::sequence>(x) && py::len(x) == 0)) return {};
  return sizes<N>(x);
}
template <size_t N>
ConvPadding<N> padding(const py::object& x) {
  if (py::isinstance<py::str>(x)) return x.cast<std::string>();
  return sizes<N>(x);
}
// PyTorch's None in the output size of an adaptive pool keeps a size: -1.
template <size_t N>
Sizes<N> output_size(const py::object& x) {
  if (!py::isinstance<py::sequence>(x)) return x.is_none() ? Sizes<N>(-1) : sizes<N>(x);
  Dims each;
  for (const py::handle s : x) each.push_back(s.is_none() ? -1 : s.cast<int64_t>());
  return each.size() == 1 ? Sizes<N>(each[0]) : Sizes<N>(each);
}

void bind_activations(py::module_& f) {
  for (const char* op : {"relu", "relu6", "selu", "hardswish", "hardsigmoid", "mish"})
    f.def(
        op, [op](const Tensor& x, bool) { return ops::call(op, {x}); }, py::arg("input"),
        py::arg("inplace") = false, Release());
  for (const char* op :
       {"sigmoid", "tanh", "softsign", "exp",  "log",   "sqrt",  "abs",   "neg",       "round",
        "floor",   "ceil", "sign",     "sin",  "cos",   "erf",   "rsqrt", "tan",       "asin",
        "acos",    "atan", "sinh",     "cosh", "asinh", "acosh", "atanh", "reciprocal"})
    f.def(
        op, [op](const Tensor& x) { return ops::call(op, {x}); }, py::arg("input"), Release());
  f.def(
      "silu", [](const Tensor& x, bool) { return functional::silu(x); }, py::arg("input"),
      py::arg("inplace") = false, Release());
  f.def("logsigmoid", &functional::logsigmoid, py::arg("input"), Release());
  f.def("tanhshrink", &functional::tanhshrink, py::arg("input"), Release());
  f.def(
      "leaky_relu",
      [](const Tensor& x, double slope, bool) { return functional::leaky_relu(x, slope); },
      py::arg("input"), py::arg("negative_slope") = 0.01, py::arg("inplace") = false, Release());
  f.def("prelu", &functional::prelu, py::arg("input"), py::arg("weight"), Release());
  f.def(
      "elu", [](const Tensor& x, double alpha, bool) { return functional::elu(x, alpha); },
      py::arg("input"), py::arg("alpha") = 1.0, py::arg("inplace") = false, Release());
  f.def(
      "celu", [](const Tensor& x, double alpha, bool) { return functional::celu(x, alpha); },
      py::arg("input"), py::arg("alpha") = 1.0, py::arg("inplace") = false, Release());
  f.def("gelu", &functional::gelu, py::arg("input"), py::arg("approximate") = "none", Release());
  f.def("softplus", &functional::softplus, py::arg("input"), py::arg("beta") = 1.0,
        py::arg("threshold") = 20.0, Release());
  f.def("softshrink", &functional::softshrink, py::arg("input"), py::arg("lambd") = 0.5, Release());
  f.def("hardshrink", &functional::hardshrink, py::arg("input"), py::arg("lambd") = 0.5, Release());
  f.def(
      "hardtanh",
      [](const Tensor& x, double low, double high, bool) {
        return functional::hardtanh(x, low, high);
      },
      py::arg("input"), py::arg("min_val") = -1.0, py::arg("max_val") = 1.0,
      py::arg("inplace") = false, Release());
  f.def(
      "threshold",
      [](const Tensor& x, double at, double value, bool) {
        return functional::threshold(x, at, value);
      },
      py::arg("input"), py::arg("threshold"), py::arg("value"), py::arg("inplace") = false,
      Release());
  f.def("glu", &functional::glu, py::arg("input"), py::arg("dim") = -1, Release());
  f.def("softmax", &functional::softmax, py::arg("input"), py::arg("dim"), Release());
  f.def("softmin", &functional::softmin, py::arg("input"), py::arg("dim"), Release());
  f.def("log_softmax", &functional::log_softmax, py::arg("input"), py::arg("dim"), Release());
  const auto drop = [&f](const char* name, Tensor (*fn)(const Tensor&, double, bool)) {
    f.def(
        name, [fn](const Tensor& x, double p, bool training, bool) { return fn(x, p, training); },
        py::arg("input"), py::arg("p") = 0.5, py::arg("training") = true,
        py::arg("inplace") = false, Release());
  };
  drop("dropout", &functional::dropout);
  drop("dropout1d", &functional::dropout1d);
  drop("dropout2d", &functional::dropout2d);
  drop("dropout3d", &functional::dropout3d);
}

void bind_shapes(py::module_& f) {
  f.def("bmm", &functional::bmm, py::arg("input"), py::arg("mat2"), Release());
  f.def("normalize", &functional::normalize, py::arg("input"), py::arg("p") = 2.0,
        py::arg("dim") = 1, py::arg("eps") = 1e-12, Release());
  f.def("one_hot", &functional::one_hot, py::arg("input"), py::arg("num_classes") = -1, Release());
  f.def("cat", &functional::cat, py::arg("tensors"), py::arg("dim") = 0, Release());
  f.def("stack", &functional::stack, py::arg("tensors"), py::arg("dim") = 0, Release());
  f.def("unflatten", &functional::unflatten, py::arg("input"), py::arg("dim"), py::arg("sizes"),
        Release());
  f.def("pad", &functional::pad, py::arg("input"), py::arg("pad"), py::arg("mode") = "constant",
        py::arg("value") = 0.0, Release());
  f.def("pixel_shuffle", &functional::pixel_shuffle, py::arg("input"), py::arg("upscale_factor"),
        Release());
  f.def("pixel_unshuffle", &functional::pixel_unshuffle, py::arg("input"),
        py::arg("downscale_factor"), Release());
  f.def("channel_shuffle", &functional::channel_shuffle, py::arg("input"), py::arg("groups"),
        Release());
  f.def(
      "interpolate",
      [](const Tensor& x, const py::object& size, const py::object& scale, const std::string& mode,
         const std::optional<bool>& align_corners) {
        functional::InterpolateOptions options{.mode = mode,
                                               .align_corners = align_corners.value_or(false)};
        if (!size.is_none())
          options.size =
              py::isinstance<py::int_>(size) ? Dims{size.cast<int64_t>()} : size.cast<Dims>();
        if (!scale.is_none())
          options.scale_factor = py::isinstance<py::sequence>(scale)
                                     ? scale.cast<std::vector<double>>()
                                     : std::vector<double>{scale.cast<double>()};
        return without_gil([&] { return functional::interpolate(x, options); });
      },
      py::arg("input"), py::arg("size") = py::none(), py::arg("scale_factor") = py::none(),
      py::arg("mode") = "nearest", py::arg("align_corners") = py::none());
}

template <size_t N>
void bind_spatial(py::module_& f) {
  const std::string d = std::to_string(N) + "d";
  f.def(("conv" + d).c_str(),
        [](const Tensor& x, const Tensor& weight, const Optional& bias, const py::object& stride,
           const py::object& pad, const py::object& dilation, int64_t groups) {
          const Sizes<N> s = sizes<N>(stride), by = sizes<N>(dilation);
          const ConvPadding<N> p = padding<N>(pad);
          return without_gil([&] {
            if constexpr (N == 1)
              return functional::conv1d(x, weight, given(bias), s, p, by, groups);
            else if constexpr (N == 2)
              return functional::conv2d(x, weight, given(bias), s, p, by, groups);
            else
              return functional::conv3d(x, weight, given(bias), s, p, by, groups);
          });
        },
        py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(), py::arg("stride") = 1,
        py::arg("padding") = 0, py::arg("dilation") = 1, py::arg("groups") = 1);
  f.def(("conv_transpose" + d).c_str(),
        [](const Tensor& x, const Tensor& weight, const Optional& bias, const py::object& stride,
           const py::object& pad, const py::object& output_pad, int64_t groups,
           const py::object& dilation) {
          const Sizes<N> s = sizes<N>(stride), p = sizes<N>(pad), o = sizes<N>(output_pad),
                         by = sizes<N>(dilation);
          return without_gil([&] {
            if constexpr (N == 1)
              return functional::conv_transpose1d(x, weight, given(bias), s, p, o, groups, by);
            else if constexpr (N == 2)
              return functional::conv_transpose2d(x, weight, given(bias), s, p, o, groups, by);
            else
              return functional::conv_transpose3d(x, weight, given(bias), s, p, o, groups, by);
          });
        },
        py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(), py::arg("stride") = 1,
        py::arg("padding") = 0, py::arg("output_padding") = 0, py::arg("groups") = 1,
        py::arg("dilation") = 1);
  f.def(("max_pool" + d).c_str(),
        [](const Tensor& x, const py::object& kernel, const py::object& stride,
           const py::object& pad, const py::object& dilation, bool ceil_mode) {
          const Sizes<N> k = sizes<N>(kernel), p = sizes<N>(pad), by = sizes<N>(dilation);
          const OptionalSizes<N> s = optional_sizes<N>(stride);
          return without_gil([&] {
            if constexpr (N == 1)
              return functional::max_pool1d(x, k, s, p, by, ceil_mode);
            else if constexpr (N == 2)
              return functional::max_pool2d(x, k, s, p, by, ceil_mode);
            else
              return functional::max_pool3d(x, k, s, p, by, ceil_mode);
          });
        },
        py::arg("input"), py::arg("kernel_size"), py::arg("stride") = py::none(),
        py::arg("padding") = 0, py::arg("dilation") = 1, py::arg("ceil_mode") = false);
  f.def(
      ("avg_pool" + d).c_str(),
      [](const Tensor& x, const py::object& kernel, const py::object& stride, const py::object& pad,
         bool ceil_mode, bool count_include_pad, const std::optional<int64_t>& divisor) {
        const Sizes<N> k = sizes<N>(kernel), p = sizes<N>(pad);
        const OptionalSizes<N> s = optional_sizes<N>(stride);
        return without_gil([&] {
          if constexpr (N == 1)
            return functional::avg_pool1d(x, k, s, p, ceil_mode, count_include_pad);
          else if constexpr (N == 2)
            return functional::avg_pool2d(x, k, s, p, ceil_mode, count_include_pad,
                                          divisor.value_or(0));
          else
            return functional::avg_pool3d(x, k, s, p, ceil_mode, count_include_pad,
                                          divisor.value_or(0));
        });
      },
      py::arg("input"), py::arg("kernel_size"), py::arg("stride") = py::none(),
      py::arg("padding") = 0, py::arg("ceil_mode") = false, py::arg("count_include_pad") = true,
      py::arg("divisor_override") = py::none());
  const auto adaptive = [&f](const std::string& name, Tensor (*fn)(const Tensor&, Sizes<N>)) {
    f.def(
        name.c_str(),
        [fn](const Tensor& x, const py::object& size) {
          const Sizes<N> s = output_size<N>(size);
          return without_gil([&] { return fn(x, s); });
        },
        py::arg("input"), py::arg("output_size"));
  };
  if constexpr (N == 1) {
    adaptive("adaptive_avg_pool1d", &functional::adaptive_avg_pool1d);
    adaptive("adaptive_max_pool1d", &functional::adaptive_max_pool1d);
  } else if constexpr (N == 2) {
    adaptive("adaptive_avg_pool2d", &functional::adaptive_avg_pool2d);
    adaptive("adaptive_max_pool2d", &functional::adaptive_max_pool2d);
  } else {
    adaptive("adaptive_avg_pool3d", &functional::adaptive_avg_pool3d);
    adaptive("adaptive_max_pool3d", &functional::adaptive_max_pool3d);
  }
}

void bind_layers(py::module_& f) {
  f.def(
      "linear",
      [](const Tensor& x, const Tensor& weight, const Optional& bias) {
        return functional::linear(x, weight, given(bias));
      },
      py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(), Release());
  f.def(
      "bilinear",
      [](const Tensor& a, const Tensor& b, const Tensor& weight, const Optional& bias) {
        return functional::bilinear(a, b, weight, given(bias));
      },
      py::arg("input1"), py::arg("input2"), py::arg("weight"), py::arg("bias") = py::none(),
      Release());
  bind_spatial<1>(f);
  bind_spatial<2>(f);
  bind_spatial<3>(f);
  f.def(
      "batch_norm",
      [](const Tensor& x, const Optional& mean, const Optional& var, const Optional& weight,
         const Optional& bias, bool training, double momentum, double eps) {
        return functional::batch_norm(x, given(mean), given(var), given(weight), given(bias),
                                      training, momentum, eps);
      },
      py::arg("input"), py::arg("running_mean"), py::arg("running_var"),
      py::arg("weight") = py::none(), py::arg("bias") = py::none(), py::arg("training") = false,
      py::arg("momentum") = 0.1, py::arg("eps") = 1e-5, Release());
  f.def(
      "instance_norm",
      [](const Tensor& x, const Optional& mean, const Optional& var, const Optional& weight,
         const Optional& bias, bool use_input_stats, double momentum, double eps) {
        return functional::instance_norm(x, given(mean), given(var), given(weight), given(bias),
                                         use_input_stats, momentum, eps);
      },
      py::arg("input"), py::arg("running_mean") = py::none(), py::arg("running_var") = py::none(),
      py::arg("weight") = py::none(), py::arg("bias") = py::none(),
      py::arg("use_input_stats") = true, py::arg("momentum") = 0.1, py::arg("eps") = 1e-5,
      Release());
  f.def(
      "layer_norm",
      [](const Tensor& x, const Shape& shape, const Optional& weight, const Optional& bias,
         double eps) { return functional::layer_norm(x, shape, given(weight), given(bias), eps); },
      py::arg("input"), py::arg("normalized_shape"), py::arg("weight") = py::none(),
      py::arg("bias") = py::none(), py::arg("eps") = 1e-5, Release());
  f.def(
      "group_norm",
      [](const Tensor& x, int64_t groups, const Optional& weight, const Optional& bias,
         double eps) { return functional::group_norm(x, groups, given(weight), given(bias), eps); },
      py::arg("input"), py::arg("num_groups"), py::arg("weight") = py::none(),
      py::arg("bias") = py::none(), py::arg("eps") = 1e-5, Release());
  f.def("embedding", &functional::embedding, py::arg("input"), py::arg("weight"),
        py::arg("padding_idx") = py::none(), Release());
}

void bind_losses(py::module_& f) {
  f.def(
      "cross_entropy",
      [](const Tensor& x, const Tensor& target, const Optional& weight, int64_t ignore_index,
         const std::string& reduction, double label_smoothing) {
        return functional::cross_entropy(x, target,
                                         {given(weight), ignore_index, reduction, label_smoothing});
      },
      py::arg("input"), py::arg("target"), py::arg("weight") = py::none(),
      py::arg("ignore_index") = -100, py::arg("reduction") = "mean",
      py::arg("label_smoothing") = 0.0, Release());
  f.def(
      "nll_loss",
      [](const Tensor& x, const Tensor& target, const Optional& weight, int64_t ignore_index,
         const std::string& reduction) {
        return functional::nll_loss(x, target, given(weight), ignore_index, reduction);
      },
      py::arg("input"), py::arg("target"), py::arg("weight") = py::none(),
      py::arg("ignore_index") = -100, py::arg("reduction") = "mean", Release());
  f.def("mse_loss", &functional::mse_loss, py::arg("input"), py::arg("target"),
        py::arg("reduction") = "mean", Release());
  f.def("l1_loss", &functional::l1_loss, py::arg("input"), py::arg("target"),
        py::arg("reduction") = "mean", Release());
  f.def("smooth_l1_loss", &functional::smooth_l1_loss, py::arg("input"), py::arg("target"),
        py::arg("reduction") = "mean", py::arg("beta") = 1.0, Release());
  f.def("huber_loss", &functional::huber_loss, py::arg("input"), py::arg("target"),
        py::arg("reduction") = "mean", py::arg("delta") = 1.0, Release());
  f.def(
      "binary_cross_entropy_with_logits",
      [](const Tensor& x, const Tensor& target, const Optional& weight,
         const std::string& reduction, const Optional& pos_weight) {
        return functional::binary_cross_entropy_with_logits(x, target, given(weight), reduction,
                                                            given(pos_weight));
      },
      py::arg("input"), py::arg("target"), py::arg("weight") = py::none(),
      py::arg("reduction") = "mean", py::arg("pos_weight") = py::none(), Release());
  f.def("kl_div", &functional::kl_div, py::arg("input"), py::arg("target"),
        py::arg("reduction") = "mean", py::arg("log_target") = false, Release());
  f.def("distillation_loss", &functional::distillation_loss, py::arg("student"), py::arg("teacher"),
        py::arg("temperature") = 1.0, Release());
}

}  // namespace

Attr attr_of(const py::handle& value) {
  if (py::isinstance<py::bool_>(value)) return value.cast<bool>();
  if (py::isinstance<py::int_>(value)) return value.cast<int64_t>();
  if (py::isinstance<py::float_>(value)) return value.cast<double>();
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  if (py::isinstance<DType>(value)) return std::string(to_string(value.cast<DType>()));
  if (py::isinstance<py::sequence>(value)) {
    bool whole = true;
    for (const py::handle each : value) whole = whole && py::isinstance<py::int_>(each);
    if (whole) return value.cast<std::vector<int64_t>>();
    return value.cast<std::vector<double>>();
  }
  if (PyIndex_Check(value.ptr()))
    return py::int_(py::reinterpret_borrow<py::object>(value)).cast<int64_t>();
  if (PyNumber_Check(value.ptr())) return value.cast<double>();
  fail(ErrorCode::invalid_argument,
       "a " + py::str(py::type::handle_of(value).attr("__name__")).cast<std::string>() +
           " is no attribute; expected a number, a text, or a list of numbers");
}

Attrs attrs_of(const py::dict& values) {
  Attrs attrs;
  for (const auto& [name, value] : values)
    if (!value.is_none()) attrs.set(name.cast<std::string>(), attr_of(value));
  return attrs;
}

py::dict dict_of(const Attrs& attrs) {
  py::dict all;
  for (const auto& [name, value] : attrs)
    std::visit(
        [&, key = py::str(name)](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, FromOperand>)
            all[key] = py::cast(v);
        },
        value);
  return all;
}

void bind_functional(py::module_& m) {
  m.def(
      "call",
      [](const std::string& op, const py::args& operands, const std::optional<double>& scale,
         const std::optional<int64_t>& zero_point, const std::optional<DType>& dtype,
         const py::kwargs& attributes) {
        std::vector<Tensor> inputs;
        for (const py::handle x : operands)
          inputs.push_back(x.is_none() ? Tensor()
                                       : tensor_of(py::reinterpret_borrow<py::object>(x)));
        Attrs attrs = attrs_of(attributes);
        const auto& known = ops::get(op).attrs();
        std::optional<ops::QType> want;
        if (dtype && std::any_of(known.begin(), known.end(),
                                 [](const auto& attr) { return attr.first == "dtype"; })) {
          attrs.set("dtype", std::string(to_string(*dtype)));
        } else if (scale || zero_point || dtype) {
          const DType d = dtype.value_or(DType::quint8);
          want = {d, Quantizer::per_tensor(scale.value_or(1), zero_point.value_or(0), d)};
        }
        return results(
            without_gil([&] { return ops::call_all(op, std::move(inputs), attrs, want); }));
      },
      py::arg("op"), py::kw_only(), py::arg("scale") = py::none(),
      py::arg("zero_point") = py::none(), py::arg("dtype") = py::none(),
      "Calls an operator of docs/operators.md by its name. None stands for an operand that is left "
      "out; scale, zero_point and dtype ask for a quantized result; the rest are attributes.");
  m.def(
      "operators",
      [] {
        py::dict all;
        for (const ops::Op* op : ops::all()) all[py::str(op->name())] = op->schema();
        return all;
      },
      "The schema of each operator, by its name.");
  py::module_ f = m.def_submodule("_functional", "Operators as functions, with PyTorch's names.");
  bind_activations(f);
  bind_shapes(f);
  bind_layers(f);
  bind_losses(f);
}

}  // namespace octet::python
