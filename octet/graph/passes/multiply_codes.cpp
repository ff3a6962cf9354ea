#include "octet/graph/passes/multiply_codes.h"

#include "octet/base/check_impl.h"
#include "octet/graph/passes/merge_qdq.h"

namespace octet::graph {
namespace {

// The codes behind a dequantize, or kNone.
ValueId codes_of(const Graph& g, ValueId value) {
  if (value == kNone) return kNone;
  const Node& p = g.producer(value);
  return p.kind == NodeKind::call && p.op == "dequantize" ? p.inputs[0] : kNone;
}

bool on_codes(Rewriter& r, const Node& node) {
  const Graph& g = r.source();
  const ops::Op* form = ops::find_form(node.op, WeightForm::dynamic);
  if (!form) return false;
  const ValueId x = codes_of(g, node.inputs[0]), w = codes_of(g, node.inputs[1]);
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  const ValueId bias_codes = codes_of(g, bias);
  const bool constant_bias =
      bias == kNone || g.is_constant(bias) || (bias_codes != kNone && g.is_constant(bias_codes));
  if (x == kNone || g.is_constant(x) || w == kNone || !g.is_constant(w) || !constant_bias)
    return false;
  std::vector<std::optional<TensorType>> types{g.type(x), g.type(w)};
  if (bias != kNone) types.push_back(g.type(bias));
  const Attrs attrs = form->complete(node.attrs);
  try {
    form->infer(types, attrs, std::nullopt, "");
  } catch (const Error&) {
    return false;
  }
  std::vector<ValueId> operands{r(x), r(w)};
  if (bias_codes != kNone)
    operands.push_back(
        r.out().add_constant(g.value(bias).name, g.constant(bias_codes).dequantize()));
  else if (bias != kNone)
    operands.push_back(r(bias));
  r.map(node.outputs[0], r.out().add_call(g.value(node.outputs[0]).name, form->name(), operands,
                                          attrs, std::nullopt, node.scope));
  return true;
}

// 8-bit codes that 4 bits hold, as such, which linear layers read faster; others as they are.
Tensor in_four_bits(const Tensor& codes) {
  const bool is_signed = codes.dtype() == DType::qint8;
  if (!is_signed && codes.dtype() != DType::quint8) return codes;
  const DType dtype = is_signed ? DType::qint4x2 : DType::quint4x2;
  const Tensor plain = codes.int_repr().contiguous();
  const auto fits = [&](int64_t code) { return qmin(dtype) <= code && code <= qmax(dtype); };
  for (int64_t i = 0; i < plain.numel(); ++i)
    if (!fits(is_signed ? plain.data<int8_t>()[i] : plain.data<uint8_t>()[i])) return codes;
  const Quantizer& q = *codes.quantizer();
  for (int64_t z : q.zero_points())
    if (!fits(z)) return codes;
  return make_quantized(plain,
                        q.is_per_channel()
                            ? Quantizer::per_channel(q.scales(), q.zero_points(), q.axis(), dtype)
                            : Quantizer::per_tensor(q.scale(), q.zero_point(), dtype),
                        dtype);
}

// What a layer with a float operand and a dequantized constant weight is as a weight-only layer.
struct WeightOnly {
  const ops::Op* form = nullptr;
  ValueId weight = kNone;  // its codes
  Tensor codes;            // of 4 bits where these hold them and nothing else reads them
  Attrs attrs;
};

std::optional<WeightOnly> as_weight_only(const Graph& g, const std::vector<int>& uses,
                                         const Node& node) {
  const ops::Op* form =
      node.kind == NodeKind::call ? ops::find_form(node.op, WeightForm::weight_only) : nullptr;
  if (!form || g.type(node.inputs[0]).dtype != DType::float32) return std::nullopt;
  const ValueId w = codes_of(g, node.inputs[1]);
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  const ValueId bias_codes = codes_of(g, bias);
  if (w == kNone || !g.is_constant(w) || (bias_codes != kNone && !g.is_constant(bias_codes)))
    return std::nullopt;
  Tensor codes = g.constant(w);
  if (node.op == "linear" && uses[w] == 1 && uses[node.inputs[1]] == 1) codes = in_four_bits(codes);
  std::vector<std::optional<TensorType>> types{g.type(node.inputs[0]), codes.type()};
  if (bias != kNone) types.push_back(g.type(bias));
  Attrs attrs = form->complete(node.attrs);
  try {
    form->infer(types, attrs, std::nullopt, "");
  } catch (const Error&) {
    return std::nullopt;
  }
  return WeightOnly{form, w, codes, attrs};
}

bool weight_only(Rewriter& r, const std::vector<int>& uses, const Node& node) {
  const Graph& g = r.source();
  const auto layer = as_weight_only(g, uses, node);
  if (!layer) return false;
  std::vector<ValueId> operands{r(node.inputs[0]), r(layer->weight)};
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  if (const ValueId codes = codes_of(g, bias); codes != kNone)
    operands.push_back(r.out().add_constant(g.value(bias).name, g.constant(codes).dequantize()));
  else if (bias != kNone)
    operands.push_back(r(bias));
  r.map(node.outputs[0], r.out().add_call(g.value(node.outputs[0]).name, layer->form->name(),
                                          operands, layer->attrs, std::nullopt, node.scope));
  return true;
}

}  // namespace

Graph multiply_codes(const Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  std::unordered_map<ValueId, Tensor> narrow;
  for (const Node& node : graph.nodes())
    if (const auto layer = as_weight_only(graph, uses, node);
        layer && layer->codes.dtype() != graph.type(layer->weight).dtype)
      narrow.emplace(layer->weight, layer->codes);
  Rewriter rewriter(graph);
  return remove_dead(rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.kind == NodeKind::constant)
      if (const auto codes = narrow.find(node.outputs[0]); codes != narrow.end()) {
        const std::string& name = graph.value(codes->first).name;
        r.map(codes->first, r.out().add_constant(name, codes->second));
        return true;
      }
    return node.kind == NodeKind::call && (on_codes(r, node) || weight_only(r, uses, node));
  }));
}

}  // namespace octet::graph
