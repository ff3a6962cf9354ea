// Dynamically quantized layers, as ONNX writes them in many nodes: codes of x by its own range, an
// integer product, and the scales and the bias in float32. Here they become octet's dynamic layers
// by ONNX's rule, which compute the same numbers.
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/import_fuser_impl.h"

namespace octet::io::onnx_impl {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::Rewriter;

// Results of quantize_dynamic.
enum Part : size_t { kCodes, kScale, kZeroPoint };

class DynamicFuser : PatternFuser {
 public:
  explicit DynamicFuser(const Graph& g) : PatternFuser(g) {}

  Graph run() {
    return rewritten([&](Rewriter& r, const Node& node) {
      return with_bias(r, node) || without_bias(r, node) || on_dequantized(r, node);
    });
  }

 private:
  // The quantize_dynamic whose result `part` v is.
  const Node* quantizer(ValueId v, Part part) const {
    const Node* q = made_by(v, "quantize_dynamic");
    return q && q->outputs[part] == v ? q : nullptr;
  }

  ValueId operand(const Node& node, size_t i) const {
    return i < node.inputs.size() ? node.inputs[i] : kNone;
  }

  // A product of integers scaled to float32: to(sums) * (s_x * s_w).
  struct Scaled {
    const Node* product = nullptr;  // conv_integer or matmul_integer
    const Node* x = nullptr;        // its quantize_dynamic; null: codes of one constant zero point
    int64_t x_zero = 0;             // then
    Tensor weight_scale;            // undefined: 1. Times s_x where x is null
  };

  // s_x * a constant, or s_x alone.
  bool scales(ValueId v, Scaled& s) const {
    if (v == s.x->outputs[kScale]) return true;
    const Node* mul = made_by(v, "mul");
    if (!mul) return false;
    for (size_t i : {0, 1})
      if (mul->inputs[i] == s.x->outputs[kScale] && g_.is_constant(mul->inputs[1 - i])) {
        s.weight_scale = g_.constant(mul->inputs[1 - i]);
        return s.weight_scale.dtype() == DType::float32;
      }
    return false;
  }

  std::optional<Scaled> scaled(const Node& mul) const {
    if (mul.op != "mul" || mul.attrs.get_string("activation") != "none") return std::nullopt;
    for (size_t i : {0, 1}) {
      const Node* to = made_by(mul.inputs[i], "to");
      if (!to || g_.type(to->outputs[0]).dtype != DType::float32) continue;
      Scaled s;
      s.product = made_by(to->inputs[0], "conv_integer");
      if (!s.product) s.product = made_by(to->inputs[0], "matmul_integer");
      if (!s.product) continue;
      const ValueId zero = operand(*s.product, 3);
      if (!g_.is_constant(s.product->inputs[1]) || (zero != kNone && !g_.is_constant(zero)))
        continue;
      s.x = quantizer(s.product->inputs[0], kCodes);
      const ValueId x_zero = operand(*s.product, 2), scale = mul.inputs[1 - i];
      if (s.x && x_zero == s.x->outputs[kZeroPoint] && scales(scale, s)) return s;
      s.x = nullptr;
      if (!g_.is_constant(scale) || g_.type(scale).dtype != DType::float32) continue;
      if (x_zero != kNone && (!g_.is_constant(x_zero) || g_.constant(x_zero).numel() != 1))
        continue;
      if (x_zero != kNone) s.x_zero = static_cast<int64_t>(g_.constant(x_zero).item());
      s.weight_scale = g_.constant(scale);
      return s;
    }
    return std::nullopt;
  }

  // One number for all, or `channels` of them in a tensor that has them along dimension `axis`
  // counted from the end.
  static bool per_channel(const Tensor& t, int64_t channels, int64_t axis) {
    return t.numel() == 1 ||
           (t.numel() == channels && t.dim() >= axis && t.size(-axis) == channels);
  }

  // The product's weight as codes of its scale and zero point, output channels first; undefined if
  // octet has no such layer.
  Tensor weight_of(const Scaled& s) const {
    const bool conv = s.product->op == "conv_integer";
    Tensor codes = g_.constant(s.product->inputs[1]);
    if (!conv && codes.dim() != 2) return {};
    if (!conv) codes = codes.transpose(0, 1).contiguous();
    const int64_t channels = codes.size(0), after = conv ? codes.dim() - 1 : 1;
    std::vector<float> of_scale{1};
    if (s.weight_scale.defined()) {
      if (!per_channel(s.weight_scale, channels, after)) return {};
      of_scale = s.weight_scale.reshape({-1}).to_vector<float>();
    }
    std::vector<int64_t> zeros{0};
    if (const ValueId zero = operand(*s.product, 3); zero != kNone)
      zeros = g_.constant(zero).to(DType::int64).reshape({-1}).to_vector<int64_t>();
    if (zeros.size() != 1 && std::ssize(zeros) != channels) return {};
    for (float v : of_scale)
      if (!(v > 0) || !std::isfinite(v)) return {};
    const DType dtype = codes.dtype() == DType::uint8 ? DType::quint8 : DType::qint8;
    if (of_scale.size() == 1 && zeros.size() == 1)
      return make_quantized(codes, Quantizer::per_tensor(of_scale[0], zeros[0], dtype));
    std::vector<double> all(static_cast<size_t>(channels), of_scale[0]);
    if (of_scale.size() > 1) all.assign(of_scale.begin(), of_scale.end());
    if (zeros.size() == 1) zeros.resize(all.size(), zeros[0]);
    return make_quantized(codes, Quantizer::per_channel(all, zeros, 0, dtype));
  }

  // The same, and undefined where the bias (or kNone) is none of the layer's.
  Tensor weight_with(const Scaled& s, ValueId bias) const {
    const Tensor weight = weight_of(s);
    const bool conv = s.product->op == "conv_integer";
    if (!weight.defined() || (!conv && g_.type(s.product->inputs[0]).dim() < 2)) return {};
    if (bias != kNone &&
        !per_channel(g_.constant(bias), weight.size(0), conv ? weight.dim() - 1 : 1))
      return {};
    return weight;
  }

  // The dynamic layer for `mul` in place of `root`; `bias` may be kNone.
  bool layer(Rewriter& r, const Node& mul, ValueId bias, const Node& root) {
    const std::optional<Scaled> s = scaled(mul);
    const Tensor weight = s ? weight_with(*s, bias) : Tensor();
    if (!weight.defined()) return false;
    const bool conv = s->product->op == "conv_integer";
    ValueId vector = kNone;
    if (bias != kNone) {
      Tensor t = g_.constant(bias).reshape({-1});
      if (t.numel() != weight.size(0)) t = t.expand({weight.size(0)}).contiguous();
      // Under its name, which the constant as it was gives up where nothing else reads it.
      const std::string& name = g_.value(bias).name;
      if (g_.constant(bias).shape() == t.shape()) {
        vector = r(bias);
      } else {
        if (uses_[bias] == 1) r.out().rename(r(bias), free_name(r, name + ".shaped"));
        vector = r.out().add_constant(free_name(r, name), t);
      }
    }
    // What export called NAME.codes was NAME.
    std::string name = g_.value(s->product->inputs[1]).name;
    if (name.ends_with(kCodesSuffix))
      name.resize(name.size() - std::string_view(kCodesSuffix).size());
    else
      name += ".q";
    const ValueId w = r.out().add_constant(free_name(r, name), weight);
    Attrs attrs = conv ? s->product->attrs : Attrs();
    attrs.set("rule", std::string("onnx"));
    const std::string op =
        conv ? fmt::format("conv{}d_dynamic", weight.dim() - 2) : std::string("linear_dynamic");
    // Export calls the parts after the layer.
    const std::string& scope = s->product->scope;
    const bool part =
        scope == root.scope + ".MatMulInteger" || scope == root.scope + ".ConvInteger";
    const ValueId x = with_size(r, operand_of(r, *s), conv ? 1 : -1, weight, attrs);
    return replace(r, root, op, {x, w, vector}, attrs, part ? root.scope : scope);
  }

  // x with as many channels or features as the weight wants: a reshape says so where the number is
  // open.
  static ValueId with_size(Rewriter& r, ValueId x, int64_t dim, const Tensor& weight,
                           const Attrs& attrs) {
    const TensorType type = r.out().type(x);
    std::vector<int64_t> shape(type.dims.size(), 0);
    const auto at = static_cast<size_t>(dim < 0 ? dim + type.dim() : dim);
    if (type.dims[at].known()) return x;
    shape[at] = weight.size(1) * (dim == 1 ? attrs.get_int("groups") : 1);
    return r.out().add_call(r.out().value(x).name + ".reshape", "reshape", {x}, {{"shape", shape}});
  }

  std::string free_name(Rewriter& r, std::string name) const {
    while (r.out().find(name)) name += "_1";
    return name;
  }

  // x, or its codes with the scale 1.
  ValueId operand_of(Rewriter& r, const Scaled& s) const {
    if (s.x) return r(s.x->inputs[0]);
    const ValueId codes = s.product->inputs[0];
    const DType dtype = g_.type(codes).dtype == DType::uint8 ? DType::quint8 : DType::qint8;
    return r.out().add_call(g_.value(codes).name + ".codes", "make_quantized", {r(codes)}, {},
                            ops::QType{dtype, Quantizer::per_tensor(1, s.x_zero, dtype)},
                            s.product->scope);
  }

  // The operand of `add` that is a scaled product, if the other one can be its bias.
  std::optional<size_t> product_of(const Node& add) const {
    if (add.kind != NodeKind::call || add.op != "add" ||
        add.attrs.get_string("activation") != "none")
      return std::nullopt;
    for (size_t i : {0, 1}) {
      const Node* mul = made_by(add.inputs[i], "mul");
      const ValueId bias = add.inputs[1 - i];
      // It must not give the result more dimensions.
      if (!mul || uses_[add.inputs[i]] != 1 || !g_.is_constant(bias) ||
          g_.type(bias).dtype != DType::float32 ||
          g_.type(add.outputs[0]).dim() != g_.type(add.inputs[i]).dim())
        continue;
      const std::optional<Scaled> s = scaled(*mul);
      if (s && weight_with(*s, bias).defined()) return i;
    }
    return std::nullopt;
  }

  bool with_bias(Rewriter& r, const Node& add) {
    const std::optional<size_t> i = product_of(add);
    return i && layer(r, g_.producer(add.inputs[*i]), add.inputs[1 - *i], add);
  }

  bool without_bias(Rewriter& r, const Node& mul) {
    if (mul.op != "mul") return false;
    if (uses_[mul.outputs[0]] == 1 && g_.users(mul.outputs[0]).size() == 1)
      if (product_of(g_.node(g_.users(mul.outputs[0])[0]))) return false;  // it comes with a bias
    return layer(r, mul, kNone, mul);
  }

  // A float layer with a weight of codes on what quantize_dynamic's codes stand for.
  bool on_dequantized(Rewriter& r, const Node& node) {
    const ops::Op* dynamic = ops::find_form(node.op, WeightForm::dynamic);
    if (!dynamic) return false;
    const Node* weight = made_by(node.inputs[1], "dequantize");
    const Node* mul = made_by(node.inputs[0], "mul");
    const ValueId bias = operand(node, 2);
    if (!weight || !g_.is_constant(weight->inputs[0]) || !mul ||
        (bias != kNone && !g_.is_constant(bias)))
      return false;
    const DType dtype = g_.type(weight->inputs[0]).dtype;
    if (dtype != DType::qint8 && dtype != DType::quint8) return false;
    for (size_t i : {0, 1}) {
      const Node* x = quantizer(mul->inputs[1 - i], kScale);
      const Node* sub = made_by(mul->inputs[i], "sub");
      if (!x || !sub) continue;
      const Node *codes = made_by(sub->inputs[0], "to"), *zero = made_by(sub->inputs[1], "to");
      if (!codes || !zero || codes->inputs[0] != x->outputs[kCodes] ||
          zero->inputs[0] != x->outputs[kZeroPoint])
        continue;
      Attrs attrs = node.attrs;
      attrs.set("rule", std::string("onnx"));
      return replace(r, node, dynamic->name(),
                     {r(x->inputs[0]), r(weight->inputs[0]), bias == kNone ? kNone : r(bias)},
                     attrs);
    }
    return false;
  }
};

}  // namespace

Graph fuse_dynamic(const Graph& g) { return DynamicFuser(g).run(); }

}  // namespace octet::io::onnx_impl
