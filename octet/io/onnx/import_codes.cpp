// The forms in which octet writes operators on codes for ONNX Runtime's integer kernels
// (export_codes.cpp), made one operator again.
#include "octet/io/onnx/export_codes_impl.h"
#include "octet/io/onnx/import_fuser_impl.h"

namespace octet::io::onnx_impl {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::Rewriter;

class CodeForms : PatternFuser {
 public:
  explicit CodeForms(const Graph& g) : PatternFuser(g) {}

  Graph run() {
    return rewritten([&](Rewriter& r, const Node& node) {
      return hardsigmoid(r, node) || hardswish(r, node) || relu(r, node);
    });
  }

 private:
  // The codes behind a dequantize, or kNone.
  ValueId codes_of(ValueId v) const {
    const Node* p = made_by(v, "dequantize");
    return p ? p->inputs[0] : kNone;
  }

  // The quantize that is all that uses v; null if there is none.
  const Node* only_quantize(ValueId v) const {
    if (uses_[v] != 1 || g_.users(v).size() != 1) return nullptr;
    const Node& q = g_.node(g_.users(v)[0]);
    return q.op == "quantize" && !g_.type(q.outputs[0]).quantizer->is_per_channel() ? &q : nullptr;
  }

  // What a quantize that only one node reads makes codes of.
  const Node* only_made_by(ValueId codes) const {
    const Node* q = codes == kNone ? nullptr : made_by(codes, "quantize");
    return q && uses_[codes] == 1 ? &g_.producer(q->inputs[0]) : nullptr;
  }

  std::optional<double> number(ValueId v) const {
    if (v == kNone || !g_.is_constant(v)) return std::nullopt;
    const Tensor& t = g_.constant(v);
    if (t.numel() != 1 || t.dtype() != DType::float32) return std::nullopt;
    return t.item();
  }

  bool is_plain(const Node& node, const char* op) const {
    return node.kind == NodeKind::call && node.op == op && node.inputs.size() == 2 &&
           node.attrs.get_string("activation") == "none";
  }

  bool per_tensor(ValueId codes) const {
    return codes != kNone && g_.type(codes).is_quantized() &&
           !g_.type(codes).quantizer->is_per_channel();
  }

  bool hardsigmoid(Rewriter& r, const Node& add) {
    if (!is_plain(add, "add")) return false;
    const auto beta = number(add.inputs[1]);
    const Node* y = only_quantize(add.outputs[0]);
    const ValueId scaled = codes_of(add.inputs[0]);
    const Node* mul = only_made_by(scaled);
    if (!beta || !y || !mul || !is_plain(*mul, "mul") || uses_[mul->outputs[0]] != 1) return false;
    const auto alpha = number(mul->inputs[1]);
    const ValueId x = codes_of(mul->inputs[0]);
    if (!alpha || !(*alpha > 0) || !per_tensor(x) || !clips_to_one(g_.type(y->outputs[0])) ||
        !same_qparams(g_.type(scaled), scaled_type(g_.type(x), *alpha)))
      return false;
    return replace(r, add, "hardsigmoid", {r(mul->inputs[0])},
                   {{"alpha", shortest(static_cast<float>(*alpha))},
                    {"beta", shortest(static_cast<float>(*beta))}});
  }

  bool hardswish(Rewriter& r, const Node& mul) {
    if (!is_plain(mul, "mul") || !only_quantize(mul.outputs[0])) return false;
    const ValueId x = codes_of(mul.inputs[0]), read = codes_of(mul.inputs[1]);
    const Node* again = read == kNone ? nullptr : made_by(read, "make_quantized");
    const Node* codes = again ? made_by(again->inputs[0], "int_repr") : nullptr;
    const ValueId gate = codes ? codes->inputs[0] : kNone;
    const Node* add = only_made_by(gate);
    if (!add || !is_plain(*add, "add") || !per_tensor(x) || codes_of(add->inputs[0]) != x)
      return false;
    const TensorType& type = g_.type(x);
    if (number(add->inputs[1]) != 3.0 ||
        !same_qparams(g_.type(gate), gate_type(type.dtype, type.dims, 6)) ||
        !same_qparams(g_.type(read), gate_type(type.dtype, type.dims, 1)))
      return false;
    return replace(r, mul, "hardswish", {r(mul.inputs[0])}, {});
  }

  // A relu of codes that become the same codes again stands before them: a layer's last part.
  bool relu(Rewriter& r, const Node& quantize) {
    if (quantize.op != "quantize") return false;
    const Node* relu = made_by(quantize.inputs[0], "relu");
    const ValueId codes = relu ? codes_of(relu->inputs[0]) : kNone;
    const Node* layer = only_made_by(codes);
    if (!layer || uses_[quantize.inputs[0]] != 1 || uses_[relu->inputs[0]] != 1 ||
        layer->kind != NodeKind::call || !layer->attrs.has("activation") ||
        layer->attrs.get_string("activation") != "none" || uses_[layer->outputs[0]] != 1 ||
        !same_qparams(g_.type(codes), g_.type(quantize.outputs[0])))
      return false;
    const TensorType& type = g_.type(codes);
    const ValueId y = r.out().add_call(g_.value(relu->outputs[0]).name + ".plain", "relu",
                                       {r(layer->outputs[0])}, {}, std::nullopt, relu->scope);
    r.map(quantize.outputs[0],
          r.out().add_call(g_.value(quantize.outputs[0]).name, "quantize", {y}, {},
                           ops::QType{type.dtype, type.quantizer}, quantize.scope));
    return true;
  }
};

}  // namespace

Graph join_code_forms(const Graph& g) { return CodeForms(g).run(); }

}  // namespace octet::io::onnx_impl
