// Operators that exporters write as many: layer norm, GELU, SiLU, hard swish, a matrix product with
// bias, a padded convolution.
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/import_fuser_impl.h"

namespace octet::io::onnx_impl {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::Rewriter;

bool near(double a, double b) { return std::abs(a - b) <= 1e-4 * std::abs(b); }

class Fuser : PatternFuser {
 public:
  explicit Fuser(const Graph& g) : PatternFuser(g) {}

  Graph run() {
    return rewritten([&](Rewriter& r, const Node& node) {
      return layer_norm(r, node) || gated(r, node) || bias(r, node) || conv_bias(r, node) ||
             padded(r, node) || triangle(r, node);
    });
  }

 private:
  std::optional<double> scalar(ValueId v) const {
    if (v == kNone || !g_.is_constant(v)) return std::nullopt;
    const Tensor& t = g_.constant(v);
    if (t.numel() != 1 || !is_floating(t.dtype())) return std::nullopt;
    return t.item();
  }

  // For a commutative node: the operand that is a scalar constant, and the other one.
  std::optional<std::pair<double, ValueId>> with_scalar(const Node& node) const {
    if (auto s = scalar(node.inputs[1])) return std::pair{*s, node.inputs[0]};
    if (auto s = scalar(node.inputs[0])) return std::pair{*s, node.inputs[1]};
    return std::nullopt;
  }

  // -- layer norm: (x - mean) / sqrt(mean((x - mean)^2) + eps) [* weight] [+ bias] ----------------

  struct Norm {
    ValueId x = kNone;
    int64_t axis = 0;
    double eps = 0;
    ValueId weight = kNone;
  };

  // x of sub(x, mean(x, dims)), with those dims.
  std::optional<std::pair<ValueId, std::vector<int64_t>>> centered(ValueId v) const {
    const Node* sub = made_by(v, "sub");
    if (!sub) return std::nullopt;
    const Node* mean = made_by(sub->inputs[1], "mean");
    if (!mean || mean->inputs[0] != sub->inputs[0] || !mean->attrs.get_bool("keepdim"))
      return std::nullopt;
    return std::pair{sub->inputs[0], mean->attrs.get_ints("dim")};
  }

  std::optional<Norm> plain_norm(ValueId v) const {
    const Node* div = made_by(v, "div");
    if (!div) return std::nullopt;
    auto top = centered(div->inputs[0]);
    const Node* root = made_by(div->inputs[1], "sqrt");
    const Node* sum = root ? made_by(root->inputs[0], "add") : nullptr;
    auto with_eps = sum ? with_scalar(*sum) : std::nullopt;
    const Node* mean = with_eps ? made_by(with_eps->second, "mean") : nullptr;
    if (!top || !mean || !mean->attrs.get_bool("keepdim")) return std::nullopt;
    const Node* square = made_by(mean->inputs[0], "pow");
    if (square && scalar(square->inputs[1]) != 2.0) return std::nullopt;
    if (!square) square = made_by(mean->inputs[0], "mul");
    if (!square || (square->op == "mul" && square->inputs[0] != square->inputs[1]))
      return std::nullopt;
    auto below = centered(square->inputs[0]);  // the same difference, perhaps computed twice
    if (!below || *below != *top || mean->attrs.get_ints("dim") != top->second) return std::nullopt;
    int64_t rank = g_.type(top->first).dim();
    std::vector<int64_t> dims = top->second;
    for (int64_t& d : dims) d = d < 0 ? d + rank : d;
    std::sort(dims.begin(), dims.end());
    for (size_t i = 0; i < dims.size(); ++i)  // the last dimensions, all of them from the first on
      if (dims[i] != rank - static_cast<int64_t>(dims.size() - i)) return std::nullopt;
    if (dims.empty()) return std::nullopt;
    return Norm{top->first, dims[0], shortest(static_cast<float>(with_eps->first))};
  }

  bool fits(const Norm& norm, ValueId v) const {
    if (!g_.is_constant(v) || g_.type(v).dtype != DType::float32) return false;
    const auto& dims = g_.type(norm.x).dims;
    return g_.type(v).dims == std::vector<Dim>(dims.begin() + norm.axis, dims.end());
  }

  std::optional<Norm> scaled_norm(ValueId v) const {
    if (const Node* mul = made_by(v, "mul"))
      for (size_t i : {0, 1})
        if (auto norm = plain_norm(mul->inputs[i]); norm && fits(*norm, mul->inputs[1 - i])) {
          norm->weight = mul->inputs[1 - i];
          return norm;
        }
    return plain_norm(v);
  }

  bool layer_norm(Rewriter& r, const Node& node) {
    if (node.op != "div" && node.op != "mul" && node.op != "add") return false;
    std::optional<Norm> norm;
    ValueId shift = kNone;
    if (node.op != "add") {
      norm = scaled_norm(node.outputs[0]);
    } else {
      for (size_t i : {0, 1}) {
        if (norm) break;
        norm = scaled_norm(node.inputs[i]);
        shift = node.inputs[1 - i];
        if (norm && !fits(*norm, shift)) norm.reset();
      }
    }
    if (!norm) return false;
    return replace(r, node, "layer_norm",
                   {r(norm->x), r(norm->weight), r(node.op == "add" ? shift : kNone)},
                   {{"axis", norm->axis}, {"eps", norm->eps}});
  }

  // -- x * gate(x) * c: GELU, SiLU and hard swish -------------------------------------------------

  struct Gate {
    ValueId value = kNone, x = kNone;
    double c = 1;
    const char* op = "";
    Attrs attrs;
  };

  struct Product {
    double c = 1;
    int xs = 0, gates = 0;
  };

  // v as c * x^xs * gate^gates; false if it is anything else.
  bool factor(ValueId v, ValueId x, ValueId gate, Product& p, int depth = 0) const {
    if (v == x) return ++p.xs, true;
    if (v == gate) return ++p.gates, true;
    if (auto s = scalar(v)) return p.c *= *s, true;
    if (depth > 4) return false;
    if (const Node* mul = made_by(v, "mul"))
      return factor(mul->inputs[0], x, gate, p, depth + 1) &&
             factor(mul->inputs[1], x, gate, p, depth + 1);
    if (const Node* div = made_by(v, "div")) {
      auto s = scalar(div->inputs[1]);
      if (!s || *s == 0) return false;
      p.c /= *s;
      return factor(div->inputs[0], x, gate, p, depth + 1);
    }
    if (const Node* pow = made_by(v, "pow"); pow && pow->inputs[0] == x) {
      auto s = scalar(pow->inputs[1]);
      if (!s || (*s != 2 && *s != 3)) return false;
      p.xs += static_cast<int>(*s);
      return true;
    }
    return false;
  }

  // The only operand of v's products with scalars.
  ValueId stripped(ValueId v) const {
    for (int depth = 0; depth < 4; ++depth) {
      const Node* mul = made_by(v, "mul");
      auto m = mul ? with_scalar(*mul) : std::nullopt;
      const Node* div = made_by(v, "div");
      if (m)
        v = m->second;
      else if (div && scalar(div->inputs[1]))
        v = div->inputs[0];
      else
        break;
    }
    return v;
  }

  // u = sqrt(2/pi) * (x + 0.044715 x^3)
  ValueId tanh_argument(ValueId u) const {
    ValueId inner = stripped(u);
    const Node* add = made_by(inner, "add");
    if (!add) return kNone;
    Product outer;
    if (!factor(u, kNone - 1, inner, outer) || !near(outer.c, 0.7978845608)) return kNone;
    for (size_t i : {0, 1}) {
      Product cube;
      ValueId x = add->inputs[i];
      if (factor(add->inputs[1 - i], x, kNone - 1, cube) && cube.xs == 3 && near(cube.c, 0.044715))
        return x;
    }
    return kNone;
  }

  // x of erf(x / sqrt(2))
  ValueId erf_argument(ValueId y) const {
    Product p;
    ValueId x = stripped(y);
    return factor(y, x, kNone - 1, p) && p.xs == 1 && near(p.c, 0.70710678) ? x : kNone;
  }

  std::optional<Gate> gate_of(ValueId v) const {
    if (const Node* add = made_by(v, "add")) {
      auto one = with_scalar(*add);
      if (!one || one->first != 1.0) return std::nullopt;
      if (const Node* erf = made_by(one->second, "erf"))
        if (ValueId x = erf_argument(erf->inputs[0]); x != kNone)
          return Gate{v, x, 0.5, "gelu", {}};
      if (const Node* tanh = made_by(one->second, "tanh"))
        if (ValueId x = tanh_argument(tanh->inputs[0]); x != kNone)
          return Gate{v, x, 0.5, "gelu", {{"approximate", std::string("tanh")}}};
      return std::nullopt;
    }
    if (const Node* sigmoid = made_by(v, "sigmoid"))
      return Gate{v, sigmoid->inputs[0], 1, "silu", {}};
    const Node* clip = made_by(v, "relu6");
    if (const Node* add = clip ? made_by(clip->inputs[0], "add") : nullptr)
      if (auto three = with_scalar(*add); three && three->first == 3.0)
        return Gate{v, three->second, 1.0 / 6, "hardswish", {}};
    if (const Node* hard = made_by(v, "hardsigmoid"))
      if (near(hard->attrs.get_double("alpha"), 1.0 / 6) && hard->attrs.get_double("beta") == 0.5)
        return Gate{v, hard->inputs[0], 1, "hardswish", {}};
    return std::nullopt;
  }

  void find_gates(ValueId v, std::vector<Gate>& gates, int depth) const {
    if (auto gate = gate_of(v)) gates.push_back(*gate);
    if (depth == 0) return;
    if (const Node* mul = made_by(v, "mul"))
      for (ValueId in : mul->inputs) find_gates(in, gates, depth - 1);
    if (const Node* div = made_by(v, "div")) find_gates(div->inputs[0], gates, depth - 1);
  }

  bool gated(Rewriter& r, const Node& node) {
    if (node.op != "mul" && node.op != "div") return false;
    std::vector<Gate> gates;
    find_gates(node.outputs[0], gates, 3);
    for (const Gate& gate : gates) {
      Product p;
      if (factor(node.outputs[0], gate.x, gate.value, p) && p.xs == 1 && p.gates == 1 &&
          near(p.c, gate.c))
        return replace(r, node, gate.op, {r(gate.x)}, gate.attrs);
    }
    return false;
  }

  // -- linear without bias + constant vector ------------------------------------------------------

  bool bias(Rewriter& r, const Node& node) {
    if (node.op != "add" || node.attrs.get_string("activation") != "none") return false;
    for (size_t i : {0, 1}) {
      const Node* linear = made_by(node.inputs[i], "linear");
      ValueId b = node.inputs[1 - i];
      if (!linear || linear->inputs.size() > 2 || uses_[node.inputs[i]] != 1) continue;
      if (linear->attrs.get_string("activation") != "none") continue;
      int64_t features = g_.type(linear->inputs[1]).dims[0].size();
      // The int32 codes of a QDQ model's bias.
      if (const Node* codes = made_by(b, "dequantize");
          codes && g_.is_constant(codes->inputs[0]) &&
          g_.type(b).dims == std::vector<Dim>{features})
        return replace(r, node, "linear", {r(linear->inputs[0]), r(linear->inputs[1]), r(b)},
                       linear->attrs);
      if (!g_.is_constant(b)) continue;
      const Tensor& t = g_.constant(b);
      // (1, 1, features) too, but it must not give the result more dimensions.
      bool row = t.dtype() == DType::float32 && t.numel() == features && t.dim() >= 1 &&
                 t.size(-1) == features && t.dim() <= g_.type(node.inputs[i]).dim();
      if (!row) continue;
      ValueId vector =
          t.dim() == 1 ? r(b) : r.out().add_constant(g_.value(b).name, t.reshape({features}));
      return replace(r, node, "linear", {r(linear->inputs[0]), r(linear->inputs[1]), vector},
                     linear->attrs);
    }
    return false;
  }

  // -- convolution without bias + one constant for each channel -----------------------------------

  bool conv_bias(Rewriter& r, const Node& node) {
    if (node.op != "add" || node.attrs.get_string("activation") != "none") return false;
    for (size_t i : {0, 1}) {
      const ValueId y = node.inputs[i], b = node.inputs[1 - i];
      const Node* conv = made_by(y, "conv2d");
      if (!conv || conv->inputs.size() > 2 || uses_[y] != 1 || !g_.is_constant(b) ||
          conv->attrs.get_string("activation") != "none" || g_.type(y).is_quantized())
        continue;
      const Tensor& t = g_.constant(b);
      const Dim& channels = g_.type(y).dims[1];
      // (C, 1, 1) or (1, C, 1, 1).
      const bool fits = t.dtype() == DType::float32 && (t.dim() == 3 || t.dim() == 4) &&
                        Dim(t.numel()) == channels && Dim(t.size(-3)) == channels;
      if (!fits) continue;
      const ValueId vector =
          r.out().add_constant(g_.value(b).name, t.reshape({t.numel()}).contiguous());
      return replace(r, node, "conv2d", {r(conv->inputs[0]), r(conv->inputs[1]), vector},
                     conv->attrs);
    }
    return false;
  }

  // -- zero padding before a convolution, which Keras writes apart --------------------------------

  bool padded(Rewriter& r, const Node& node) {
    if (node.op != "conv2d") return false;
    const Node* pad = made_by(node.inputs[0], "pad");
    if (!pad || pad->attrs.get_string("mode") != "constant" || pad->attrs.get_double("value") != 0)
      return false;
    const auto& p = pad->attrs.get_ints("pads");
    if (p.size() != 8 || p[0] || p[1] || p[4] || p[5]) return false;
    Attrs attrs = node.attrs;
    std::vector<int64_t> padding = attrs.get_ints("padding");
    const int64_t more[] = {p[2], p[3], p[6], p[7]};
    for (size_t i = 0; i < 4; ++i) padding[i] += more[i];
    attrs.set("padding", padding);
    std::vector<ValueId> operands = r.operands(node);
    operands[0] = r(pad->inputs[0]);
    return replace(r, node, "conv2d", operands, attrs);
  }

  // -- a constant triangle of x, and 0 for the rest, as export writes triu and tril ---------------

  bool triangle(Rewriter& r, const Node& node) {
    if (node.op != "where" || !g_.is_constant(node.inputs[0]) || scalar(node.inputs[2]) != 0.0)
      return false;
    const Tensor mask = g_.constant(node.inputs[0]).contiguous();
    const auto& dims = g_.type(node.inputs[1]).dims;
    if (mask.dtype() != DType::bool_ || mask.dim() != 2 || mask.numel() == 0 || dims.size() < 2 ||
        dims[dims.size() - 2] != Dim(mask.size(0)) || dims.back() != Dim(mask.size(1)))
      return false;
    const int64_t rows = mask.size(0), columns = mask.size(1);
    const bool* kept = mask.data<bool>();
    // Where the diagonal meets the first row, or where that is all kept (or all not), the first
    // column: what is kept there begins, or ends.
    int64_t first = 0, last = columns - 1, row = 0;
    while (first < columns && !kept[first]) ++first;
    while (last >= 0 && !kept[last]) --last;
    while (row < rows && kept[row * columns] == kept[0]) ++row;
    if (kept[0])
      first = 1 - row;
    else
      last = -row;
    for (const bool upper : {true, false}) {
      const int64_t k = upper ? first : last;
      bool all = true;
      for (int64_t i = 0; i < rows && all; ++i)
        for (int64_t j = 0; j < columns && all; ++j)
          all = kept[i * columns + j] == (upper ? j - i >= k : j - i <= k);
      if (all)
        return replace(r, node, upper ? "triu" : "tril", {r(node.inputs[1])}, {{"diagonal", k}});
    }
    return false;
  }
};

}  // namespace

Graph fuse_patterns(const Graph& g) { return Fuser(g).run(); }

}  // namespace octet::io::onnx_impl
