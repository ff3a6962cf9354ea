#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/workflow/weight_scales_impl.h"
#include "octet/tensor/affine.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {

// The largest code that a bias may have beside `products` products with codes of the weight's dtype
// less z.
int64_t largest_bias_code(int64_t products, DType dtype, int64_t z) {
  const int64_t most = std::numeric_limits<int32_t>::max();
  return std::max(most / 2 + 1, most - products * 255 * std::max(qmax(dtype) - z, z - qmin(dtype)));
}

// The smallest scale, `scale` at least, at which the bias is no more than `most` steps of x_scale *
// scale. Where that is no float it stays: octet's sums are exact all the same.
float raised(float scale, float x_scale, float bias, int64_t most) {
  const auto fits = [&](float s) {
    return std::abs(affine::quantize_bias(bias, x_scale, s)) <= most;
  };
  if (fits(scale)) return scale;
  const double step = std::max(std::abs(static_cast<double>(bias)) / static_cast<double>(most),
                               static_cast<double>(std::numeric_limits<float>::min()));
  auto larger = static_cast<float>(step / static_cast<double>(x_scale));
  while (!fits(larger)) larger = std::nextafter(larger, std::numeric_limits<float>::infinity());
  return std::isfinite(larger) ? larger : scale;
}

// The same numbers in steps of `scales`, each a channel's or the tensor's; none is smaller than the
// weight's own.
Tensor with_scales(const Tensor& weight, const std::vector<double>& scales) {
  const Quantizer& q = *weight.quantizer();
  QuantizerPtr larger =
      q.is_per_channel() ? Quantizer::per_channel(scales, q.zero_points(), q.axis(), weight.dtype())
                         : Quantizer::per_tensor(scales[0], q.zero_point(), weight.dtype());
  Tensor result = make_quantized(weight.contiguous().int_repr(), larger);
  const Shape& shape = weight.shape();
  const int64_t inner =
      q.is_per_channel() ? numel({shape.begin() + q.axis() + 1, shape.end()}) : result.numel();
  auto* codes = static_cast<uint8_t*>(result.raw_data());
  for (int64_t i = 0; i < result.numel(); ++i) {
    const int64_t n = i / std::max<int64_t>(1, inner) % static_cast<int64_t>(scales.size()),
                  z = q.zero_point(n);
    const int64_t code = weight.dtype() == DType::qint8 ? static_cast<int8_t>(codes[i]) : codes[i];
    const double ratio = q.scale(n) / scales[static_cast<size_t>(n)];
    codes[i] = static_cast<uint8_t>(z + std::llrint(static_cast<double>(code - z) * ratio));
  }
  return result;
}

bool is_layer(const std::string& op) {
  return ops::find_form(op, WeightForm::weight_only) != nullptr;
}

}  // namespace

Tensor raise_weight_scales(const Tensor& weight, const Tensor& bias, double x_scale,
                           const std::string& label, ConversionReport& report) {
  if (!bias.defined() || bias.dtype() != DType::float32 || bias.numel() == 0) return weight;
  if (!is_8_bit(weight.dtype())) return weight;
  const Quantizer& q = *weight.quantizer();
  if (q.has_float_zero_points()) return weight;
  const std::vector<float> biases = bias.to_vector<float>();
  const int64_t channels = bias.numel(), products = weight.numel() / channels;
  std::vector<double> scales = q.scales();
  std::vector<int64_t> changed;
  double largest = 0;
  for (int64_t n = 0; n < channels; ++n) {
    const size_t i = static_cast<size_t>(n) % scales.size();
    const auto scale = static_cast<float>(scales[i]);
    const float larger =
        raised(scale, static_cast<float>(x_scale), biases[static_cast<size_t>(n)],
               largest_bias_code(products, weight.dtype(), q.zero_point(static_cast<int64_t>(i))));
    if (larger == scale) continue;
    scales[i] = larger;
    largest = std::max(largest, scales[i]);
    changed.push_back(n);
  }
  if (changed.empty()) return weight;
  std::vector<int64_t> shown(changed.begin(),
                             changed.begin() + std::min<std::ptrdiff_t>(8, std::ssize(changed)));
  report.warnings.push_back(fmt::format(
      "{}: the weights of channel{} {}{} of {} are next to nothing beside the bias, which int32 "
      "cannot hold at scale "
      "s_x*s_w: their scale was raised, to {:.3g} at most",
      label, changed.size() == 1 ? "" : "s", fmt::join(shown, ", "),
      changed.size() > shown.size() ? fmt::format(" and {} more", changed.size() - shown.size())
                                    : "",
      channels, largest));
  return with_scales(weight, scales);
}

void raise_weight_scales(nn::Module& module, double x_scale, const std::string& label,
                         ConversionReport& report) {
  auto* layer = dynamic_cast<nn::quantized::WeightedModule*>(&module);
  if (!layer || !layer->weight().is_quantized()) return;
  const Tensor weight = raise_weight_scales(layer->weight(), layer->bias(), x_scale, label, report);
  if (weight.quantizer() != layer->weight().quantizer())
    layer->set_weight_bias(weight, layer->bias());
}

Graph raise_weight_scales(const Graph& reference, ConversionReport& report) {
  // What a dequantize node reads; kNone if v is not one's result.
  const auto codes_of = [&](ValueId v) {
    const Node* node = v == kNone ? nullptr : &reference.producer(v);
    return node && node->kind == NodeKind::call && node->op == "dequantize" ? node->inputs[0]
                                                                            : kNone;
  };
  std::map<ValueId, Tensor> changed;
  for (const Node& node : reference.nodes()) {
    if (node.kind != NodeKind::call || !is_layer(node.op) || node.inputs.size() < 3) continue;
    const ValueId x = codes_of(node.inputs[0]), w = codes_of(node.inputs[1]), bias = node.inputs[2];
    if (x == kNone || w == kNone || bias == kNone || !reference.is_constant(w) ||
        !reference.is_constant(bias))
      continue;
    // (A step of 16-bit codes is so small that weights would lose what their results can show.)
    if (reference.type(x).quantizer->is_per_channel() || is_16_bit(reference.type(x).dtype))
      continue;
    const Tensor before = changed.count(w) ? changed[w] : reference.constant(w);
    std::string label = node.scope.empty() ? reference.value(node.outputs[0]).name : node.scope;
    if (label.ends_with(".float"))
      label.resize(label.size() - 6);  // the float result of what will be codes
    Tensor after = raise_weight_scales(before, reference.constant(bias),
                                       reference.type(x).quantizer->scale(), label, report);
    if (after.quantizer() != before.quantizer()) changed[w] = after;
  }
  if (changed.empty()) return reference;
  graph::Rewriter rewriter(reference);
  return rewriter.run([&](graph::Rewriter& r, const Node& node) {
    const auto it = node.kind == NodeKind::constant ? changed.find(node.outputs[0]) : changed.end();
    if (it == changed.end()) return false;
    r.map(node.outputs[0], r.out().add_constant(reference.value(node.outputs[0]).name, it->second));
    return true;
  });
}

}  // namespace octet::quant
