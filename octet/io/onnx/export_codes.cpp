// Operators on codes in the forms that ONNX Runtime has integer kernels for. What they become in
// octet again is import_codes.cpp's.
//   relu         LeakyRelu with alpha 0 (QLinearLeakyRelu)
//   sub, div     add of the negative, mul by the inverse of a number
//   hardsigmoid  x * alpha, which changes the scale only, plus beta; the ends of the codes clip
//   hardswish    x * clip((x + 3) / 6, 0, 1): the codes of x + 3 in 0..6, read as those of 0..1
// Layers with a relu whose codes go below zero, and numbers beside codes: write_activated and
// Exporter::with_exact_codes.
#include "octet/io/onnx/export_codes_impl.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/io/onnx/exporter_impl.h"

namespace octet::io::onnx_impl {

bool clips_to_one(const TensorType& type) {
  const Quantizer& q = *type.quantizer;
  return q.zero_point() == qmin(type.dtype) &&
         std::nearbyint(1.0 / static_cast<float>(q.scale())) >=
             static_cast<double>(qmax(type.dtype) - qmin(type.dtype));
}

TensorType gate_type(DType dtype, const std::vector<Dim>& dims, double top) {
  return TensorType(dtype, dims,
                    Quantizer::per_tensor(static_cast<float>(top / 255), qmin(dtype), dtype));
}

TensorType scaled_type(const TensorType& x, double by) {
  const Quantizer& q = *x.quantizer;
  const float scale = static_cast<float>(q.scale()) * static_cast<float>(by);
  return TensorType(x.dtype, x.dims, Quantizer::per_tensor(scale, q.zero_point(), x.dtype));
}

namespace {

// Whether the gate's rounding to 8 bits moves no result by more than a code from hardswish's table.
bool hardswish_within_one(const TensorType& x, const TensorType& y) {
  const Quantizer &qx = *x.quantizer, &qy = *y.quantizer;
  const auto code = [&](double value) {
    const double q = std::nearbyint(value / qy.scale()) + static_cast<double>(qy.zero_point());
    return std::clamp(q, static_cast<double>(qmin(y.dtype)), static_cast<double>(qmax(y.dtype)));
  };
  for (int64_t q = qmin(x.dtype); q <= qmax(x.dtype); ++q) {
    const double value = qx.scale() * static_cast<double>(q - qx.zero_point());
    const double gate = std::clamp((value + 3) / 6, 0.0, 1.0);
    const double coarse = std::nearbyint(gate * 255) / 255;
    if (std::abs(code(value * gate) - code(value * coarse)) > 1) return false;
  }
  return true;
}

std::string number(Exporter& ex, const CallView& c, const char* name, double value) {
  return ex.exact_codes(ex.fresh(c, name), Tensor::scalar(static_cast<float>(value)),
                        c.type(0).dtype);
}

bool write_hardsigmoid_codes(Exporter& ex, const CallView& c) {
  const auto alpha = static_cast<float>(c.attrs().get_double("alpha"));
  if (!(alpha > 0) || !clips_to_one(c.result())) return false;
  const TensorType scaled = scaled_type(c.type(0), alpha);
  if (!(scaled.quantizer->scale() > 0) || !std::isfinite(scaled.quantizer->scale())) return false;
  const std::string m = ex.step(c, "Mul", {c.in[0], number(ex, c, "alpha", alpha)});
  ex.add(c, "Add",
         {ex.through_codes(c, m, scaled), number(ex, c, "beta", c.attrs().get_double("beta"))},
         c.out[0]);
  return true;
}

bool write_hardswish_codes(Exporter& ex, const CallView& c) {
  const TensorType& x = c.type(0);
  if (!hardswish_within_one(x, c.result())) return false;
  const TensorType made = gate_type(x.dtype, x.dims, 6), read = gate_type(x.dtype, x.dims, 1);
  const std::string sum = ex.step(c, "Add", {c.in[0], number(ex, c, "three", 3)});
  ex.add(c, "Mul", {c.in[0], ex.through_codes(c, sum, made, &read)}, c.out[0]);
  return true;
}

bool write_sub_codes(Exporter& ex, const CallView& c) {
  const auto in = ex.with_exact_codes(c, [](float value) { return -value; });
  if (in) ex.add(c, "Add", *in, c.out[0]);
  return in.has_value();
}

bool write_div_codes(Exporter& ex, const CallView& c) {
  const auto in = ex.with_exact_codes(c, [](float value) {
    const float inverse = 1 / value;
    return std::isnormal(inverse) ? inverse : std::numeric_limits<float>::infinity();
  });
  if (in) ex.add(c, "Mul", *in, c.out[0]);
  return in.has_value();
}

bool write_relu_codes(Exporter& ex, const CallView& c) {
  ex.add(c, "LeakyRelu", c.in, c.out[0], {{"alpha", 0.0}});
  return true;
}

}  // namespace

void add_code_writers(std::unordered_map<std::string, Writer>& w) {
  const std::pair<const char*, bool (*)(Exporter&, const CallView&)> forms[] = {
      {"hardsigmoid", write_hardsigmoid_codes},
      {"hardswish", write_hardswish_codes},
      {"sub", write_sub_codes},
      {"div", write_div_codes},
      {"relu", write_relu_codes}};
  for (const auto& [op, form] : forms) {
    Writer plain = w.at(op);
    w[op] = [plain, form = form](Exporter& ex, const CallView& c) {
      if (!ex.for_onnx_runtime() || !c.on_codes() || !form(ex, c)) plain(ex, c);
    };
  }
}

}  // namespace octet::io::onnx_impl
