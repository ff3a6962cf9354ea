#include "octet/quant/backend/placement.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/ops/unary.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

const std::set<std::string>& weighted() {
  static const std::set<std::string> ops{
      "conv1d",           "conv2d",           "conv3d", "conv_transpose1d",
      "conv_transpose2d", "conv_transpose3d", "linear"};
  return ops;
}
// Keep their operand's qparams.
const std::set<std::string>& keepers() {
  static const std::set<std::string> ops{"relu",
                                         "relu6",
                                         "clamp",
                                         "max_pool1d",
                                         "max_pool2d",
                                         "max_pool3d",
                                         "avg_pool1d",
                                         "avg_pool2d",
                                         "avg_pool3d",
                                         "mean",
                                         "amax",
                                         "amin",
                                         "adaptive_avg_pool1d",
                                         "adaptive_avg_pool2d",
                                         "adaptive_avg_pool3d",
                                         "adaptive_max_pool1d",
                                         "adaptive_max_pool2d",
                                         "adaptive_max_pool3d",
                                         "interpolate",
                                         "pixel_shuffle",
                                         "pixel_unshuffle",
                                         "channel_shuffle",
                                         "tril",
                                         "triu",
                                         "reshape",
                                         "flatten",
                                         "permute",
                                         "unsqueeze",
                                         "squeeze",
                                         "slice",
                                         "split",
                                         "pad",
                                         "expand",
                                         "tile",
                                         "identity",
                                         "dropout",
                                         "clone",
                                         "index_select"};
  return ops;
}
const std::set<std::string>& activations() {
  static const std::set<std::string> ops{"hardswish",   "gelu",  "leaky_relu", "elu",
                                         "celu",        "prelu", "sigmoid",    "tanh",
                                         "hardsigmoid", "selu",  "softplus",   "softsign"};
  return ops;
}
const std::set<std::string>& binaries() {
  static const std::set<std::string> ops{"add", "sub", "mul"};
  return ops;
}

// Results so large, so small or so many-sized that one scale with 256 codes does not hold them.
const std::set<std::string>& wide() {
  static const std::set<std::string> ops{
      "exp",  "log",  "sqrt",      "rsqrt",   "reciprocal",  "pow",        "div",
      "fmod", "prod", "remainder", "log_sum", "log_sum_exp", "sum_square", "cumsum"};
  return ops;
}

class Placer {
 public:
  // With `codes_in` the graph's inputs are quantized first, and operators run on their codes.
  Placer(const Graph& g, const std::vector<std::string>& skip, DType dtype, bool codes_in)
      : g_(g), dtype_(dtype), codes_in_(codes_in) {
    p_.group.assign(g.values().size(), -1);
    p_.quantized.assign(g.nodes().size(), false);
    p_.reason.assign(g.nodes().size(), "");
    parent_.resize(g.values().size());
    std::iota(parent_.begin(), parent_.end(), 0);
    coded_.assign(g.values().size(), false);
    uses_.assign(g.values().size(), 0);
    skipped_ = skipped_nodes(g_, skip);
    wanted_by_all_users();
  }

  Placement run() {
    for (size_t i = 0; i < g_.nodes().size(); ++i)
      if (g_.nodes()[i].kind == NodeKind::call) decide(i);
    take_back();
    form_groups();
    return std::move(p_);
  }

 private:
  bool float_activation(ValueId v) const {
    return v != kNone && g_.type(v).dtype == DType::float32 && !g_.is_constant(v);
  }

  bool weight_fits(const Node& node, std::string* why) const {
    if (!g_.is_constant(node.inputs[1]) || g_.type(node.inputs[1]).dtype != DType::float32)
      return *why = "its weight is not a float32 constant", false;
    if (node.inputs.size() > 2 && node.inputs[2] != kNone && !g_.is_constant(node.inputs[2]))
      return *why = "its bias is not constant", false;
    return float_activation(node.inputs[0]) ||
           (*why = "its input is not a float32 activation", false);
  }

  // Backwards: values whose every use is a quantized weighted layer, directly or through keepers.
  void wanted_by_all_users() {
    wanted_.assign(g_.values().size(), true);
    for (ValueId v : g_.outputs()) wanted_[v] = false;
    for (size_t i = g_.nodes().size(); i-- > 0;) {
      const Node& node = g_.nodes()[i];
      std::string why;
      bool takes_codes = skipped_[i].empty() && node.kind == NodeKind::call &&
                         ((weighted().count(node.op) && weight_fits(node, &why)) ||
                          (keepers().count(node.op) && all_wanted(node)));
      for (size_t k = 0; k < node.inputs.size(); ++k) {
        if (node.inputs[k] == kNone) continue;
        ++uses_[node.inputs[k]];
        if (!takes_codes || k > 0) wanted_[node.inputs[k]] = false;
      }
    }
    for (size_t v = 0; v < wanted_.size(); ++v) wanted_[v] = wanted_[v] && uses_[v] > 0;
  }

  // Whether some result is used, and all that are go to where codes are wanted.
  bool all_wanted(const Node& node) const {
    bool any = false;
    for (ValueId y : node.outputs) {
      if (!wanted_[y] && uses_[y] > 0) return false;
      any = any || uses_[y] > 0;
    }
    return any;
  }

  void decide(size_t i) {
    const Node& node = g_.nodes()[i];
    std::string& why = p_.reason[i];
    if (!skipped_[i].empty()) {
      why = fmt::format("skipped by '{}'", skipped_[i]);
      return;
    }
    if (g_.type(node.outputs[0]).dtype != DType::float32) {
      why = "its result is not float32";
      return;
    }
    if (why = why_not_placed(node.op); !why.empty()) return;
    ValueId x = node.inputs.empty() ? kNone : node.inputs[0], y = node.outputs[0];
    if (weighted().count(node.op)) {
      if (weight_fits(node, &why)) accept(i, {x});
    } else if (binaries().count(node.op)) {
      ValueId b = node.inputs[1];
      if (!float_activation(x) || !float_activation(b))
        why = "an operand is constant, and 8 bits would cost its precision";
      else if (!has_codes(x) && !has_codes(b))
        why = "no operand is quantized";
      else
        accept(i, {x, b});
    } else if (node.op == "cat") {
      bool all = true, some = false;
      for (ValueId v : node.inputs) {
        all &= float_activation(v) && (coded_[v] || g_.producer(v).kind == NodeKind::input);
        some |= float_activation(v) && has_codes(v);
      }
      if (!all || !some)
        why = "an operand is float";
      else {
        accept(i, node.inputs);
        for (ValueId v : node.inputs) unite(v, y);
      }
    } else if (activations().count(node.op)) {
      bool plain = true;  // prelu's slopes
      for (size_t k = 1; k < node.inputs.size(); ++k)
        plain &= node.inputs[k] == kNone || g_.is_constant(node.inputs[k]);
      if (!float_activation(x) || !has_codes(x))
        why = "its operand is float";
      else if (!plain)
        why = "its weight is not constant";
      else
        accept(i, {x});
    } else if (keepers().count(node.op)) {
      bool plain = true;  // further operands must be constant (an index)
      for (size_t k = 1; k < node.inputs.size(); ++k)
        plain &= node.inputs[k] == kNone || g_.is_constant(node.inputs[k]);
      if (!plain || !float_activation(x))
        why = "its operand is not a float32 activation";
      else if (!has_codes(x) && !all_wanted(node))
        why = "its operand is float";
      else {
        accept(i, {x});
        for (ValueId part : node.outputs) unite(x, part);
      }
    }
  }

  // prelu on codes is computed in float, between a dequantize and a quantize; where nobody takes
  // its codes, the quantize would only cost precision, of the negative side above all.
  void take_back() {
    std::vector<bool> read(g_.values().size(), false);
    for (ValueId v : g_.outputs()) read[v] = true;
    for (size_t i = 0; i < g_.nodes().size(); ++i)
      for (ValueId v : g_.nodes()[i].inputs)
        if (v != kNone && p_.quantized[i]) read[v] = true;
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.nodes()[i];
      if (!p_.quantized[i] || node.op != "prelu" || read[node.outputs[0]]) continue;
      p_.quantized[i] = coded_[node.outputs[0]] = false;
      p_.reason[i] = "nothing that reads its result takes codes";
    }
  }

  void accept(size_t i, const std::vector<ValueId>& operands) {
    p_.quantized[i] = true;
    for (ValueId v : operands) coded_[v] = true;
    for (ValueId v : g_.nodes()[i].outputs) coded_[v] = true;
  }
  bool has_codes(ValueId v) const {
    return coded_[v] ||
           (codes_in_ && float_activation(v) && g_.producer(v).kind == NodeKind::input);
  }

  int find(int v) { return parent_[v] == v ? v : parent_[v] = find(parent_[v]); }
  void unite(int a, int b) { parent_[find(a)] = find(b); }

  void form_groups() {
    std::vector<int> index(g_.values().size(), -1);
    for (size_t v = 0; v < coded_.size(); ++v) {
      if (!coded_[v]) continue;
      int root = find(static_cast<int>(v));
      if (index[root] < 0) {
        index[root] = p_.groups++;
        p_.watch.emplace_back();
        p_.fixed.emplace_back();
      }
      p_.group[v] = index[root];
      NodeId producer = g_.values()[v].producer;
      const Node& node = g_.node(producer);
      bool rearranges = p_.quantized[producer] &&
                        ((keepers().count(node.op) && !widens(node)) || node.op == "cat");
      if (!rearranges) p_.watch[index[root]].push_back(static_cast<ValueId>(v));
    }
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.nodes()[i];
      if (!p_.quantized[i]) continue;
      auto fixed = ops::fixed_qtype(node.op, dtype_);
      int group = p_.group[node.outputs[0]];
      // A group of a fixed result and others (a cat of two sigmoids and a conv) is observed like
      // any other.
      if (fixed && p_.watch[group].size() == 1) {
        p_.fixed[group] = fixed;
        p_.watch[group].clear();
      }
    }
  }

  const Graph& g_;
  DType dtype_;
  bool codes_in_;
  Placement p_;
  std::vector<int> parent_, uses_;
  std::vector<bool> coded_, wanted_;
  std::vector<std::string> skipped_;
};

}  // namespace

Placeable placeable(const std::string& op) {
  for (const auto* placed : {&weighted(), &keepers(), &activations(), &binaries()})
    if (placed->count(op)) return Placeable::yes;
  if (op == "cat") return Placeable::yes;
  switch (ops::get(op).rule()) {
    case ops::QRule::float_only:
      return Placeable::no;
    case ops::QRule::weights:
      return Placeable::weights_only;
    default:
      return wide().count(op) ? Placeable::wide_range : Placeable::not_yet;
  }
}

std::string why_not_placed(const std::string& op) {
  switch (placeable(op)) {
    case Placeable::yes:
      return "";
    case Placeable::not_yet:
      return fmt::format(
          "{} could run on codes, but networks that come as graphs (ONNX) do not "
          "place it there yet",
          op);
    case Placeable::wide_range:
      return fmt::format("{} could run on codes, but its results range too widely for 8 bits", op);
    case Placeable::weights_only:
      return fmt::format("{} takes codes for its weights only (--mode dynamic, weight-only)", op);
    case Placeable::no:
      return fmt::format("{} has no integer form", op);
  }
  return "";
}

bool has_weight(const Node& node) { return weighted().count(node.op) != 0; }

bool widens(const Node& node) {
  if (node.op == "add_scalar" || node.op == "mul_scalar") return true;
  if (node.op == "interpolate")
    return node.attrs.get_string("mode") == "cubic" ||
           node.attrs.get_string("coordinates") == "tf_crop_and_resize";
  if (node.op.starts_with("avg_pool"))
    return node.attrs.has("divisor_override") && node.attrs.get_int("divisor_override") != 0;
  if (node.op == "pad") return node.attrs.get_double("value") != 0;
  return node.op == "clamp" &&
         (node.attrs.get_double("min") > 0 || node.attrs.get_double("max") < 0);
}

std::vector<std::string> skipped_nodes(const Graph& graph, const std::vector<std::string>& skip) {
  std::vector<std::string> skipped(graph.nodes().size());
  for (const std::string& pattern : skip) {
    bool any = false;
    std::vector<std::string> names;
    const NamePattern compiled(pattern);
    for (size_t i = 0; i < graph.nodes().size(); ++i) {
      const Node& node = graph.nodes()[i];
      if (node.kind != NodeKind::call) continue;
      names.push_back(node_name(graph, node));
      bool hit =
          compiled.matches(names.back()) || compiled.matches(graph.value(node.outputs[0]).name);
      if (hit) skipped[i] = pattern;
      any |= hit;
    }
    OCTET_CHECK(any, not_found,
                "skip '{}' matches no node of {}{}; `octet inspect` lists the nodes", pattern,
                graph.name, did_you_mean(pattern, names));
  }
  return skipped;
}

Placement place(const Graph& graph, const std::vector<std::string>& skip, DType dtype) {
  Placement placement = Placer(graph, skip, dtype, false).run();
  const std::vector<bool>& q = placement.quantized;
  if (std::find(q.begin(), q.end(), true) != q.end()) return placement;
  return Placer(graph, skip, dtype, true).run();
}

std::string node_name(const Graph& graph, const Node& node) {
  return node.scope.empty() ? graph.value(node.outputs[0]).name : node.scope;
}

}  // namespace octet::quant
