// octet diff A B
#include <fmt/format.h>

#include <map>
#include <memory>
#include <set>

#include "cli/common.h"
#include "octet/base/text.h"
#include "octet/debug/metrics.h"

namespace octet::cli {
namespace {

using graph::Graph;
using graph::Node;
using graph::NodeKind;

// What differs at one place of the two models: a node that one of them lacks, or what changed.
struct Difference {
  std::string what;  // "operator", "weight", "input", "output"
  std::string name, op;
  char sign;                         // '-': only in A; '+': only in B; '~': in both
  std::vector<std::string> changes;  // of '~', else the type

  std::string line() const {
    return fmt::format("{} {} {}{}: {}", sign, op.empty() ? what : op, name,
                       op.empty() || what == "operator" ? "" : " (" + what + ")",
                       fmt::join(changes, "; "));
  }
  JsonValue json() const {
    JsonValue json = JsonValue::object({{"what", what}, {"name", name}});
    if (!op.empty()) json.set("op", op);
    json.set("in", sign == '-' ? "A" : sign == '+' ? "B" : "both");
    json.set("changes", changes);
    return json;
  }
};

// Nodes by the name that users know them by, in the graph's order; more of one name (a layer's
// convolution and its activation) are told apart by their operator and number.
struct NamedNodes {
  NamedNodes(const Graph& g, NodeKind kind) {
    for (const Node& node : g.nodes()) {
      if (node.kind != kind) continue;
      std::string name = kind == NodeKind::call && !node.scope.empty()
                             ? node.scope
                             : g.value(node.outputs[0]).name;
      if (by_name.count(name)) name += ":" + node.op;
      for (int i = 1; by_name.count(name); ++i) name = fmt::format("{}_{}", name, i);
      by_name[name] = &node;
      in_order.emplace_back(name, &node);
    }
  }
  std::vector<std::pair<std::string, const Node*>> in_order;
  std::map<std::string, const Node*> by_name;
};

std::string arrow(const std::string& a, const std::string& b) { return a + " -> " + b; }

// What changed from `a` to `b`, the values of a weight.
void compare_values(const Tensor& a, const Tensor& b, std::vector<std::string>& changes) {
  const auto has_numbers = [](const Tensor& t) {
    return is_quantized(t.dtype()) || is_floating(t.dtype());
  };
  if (a.shape() != b.shape()) return;
  if (has_numbers(a) && has_numbers(b)) {
    debug::ErrorStatistics noise;
    noise.add(a, b);
    if (noise.noise() > 0) changes.push_back(fmt::format("SQNR {:.1f} dB", noise.sqnr()));
  } else if (a.dtype() == b.dtype() && !equal(a, b)) {
    changes.push_back("other values");
  }
}

std::vector<std::string> changes_of(const Graph& a, const Node& x, const Graph& b, const Node& y) {
  std::vector<std::string> changes;
  if (x.op != y.op) changes.push_back(arrow(x.op, y.op));
  const TensorType &before = a.type(x.outputs[0]), &after = b.type(y.outputs[0]);
  if (to_string(before, false) != to_string(after, false))
    changes.push_back(arrow(to_string(before), to_string(after)));
  std::set<std::string> names;
  for (const Attrs* attrs : {&x.attrs, &y.attrs})
    for (const auto& [name, value] : *attrs) names.insert(name);
  for (const std::string& name : names) {
    const auto text = [&](const Attrs& attrs) {
      return attrs.has(name) ? to_string(attrs.get(name)) : std::string("none");
    };
    if (text(x.attrs) != text(y.attrs))
      changes.push_back(name + " " + arrow(text(x.attrs), text(y.attrs)));
  }
  if (x.kind == NodeKind::constant) compare_values(x.value, y.value, changes);
  return changes;
}

void compare_nodes(const Graph& a, const Graph& b, NodeKind kind, const std::string& what,
                   std::vector<Difference>& differences) {
  const NamedNodes of_a(a, kind), of_b(b, kind);
  const auto only = [&](const Graph& g, const std::string& name, const Node& node, char sign) {
    differences.push_back({what, name, node.op, sign, {to_string(g.type(node.outputs[0]))}});
  };
  for (const auto& [name, node] : of_a.in_order) {
    const auto other = of_b.by_name.find(name);
    if (other == of_b.by_name.end()) {
      only(a, name, *node, '-');
      continue;
    }
    auto changes = changes_of(a, *node, b, *other->second);
    if (!changes.empty()) differences.push_back({what, name, node->op, '~', std::move(changes)});
  }
  for (const auto& [name, node] : of_b.in_order)
    if (!of_a.by_name.count(name)) only(b, name, *node, '+');
}

void compare_outputs(const Graph& a, const Graph& b, std::vector<Difference>& differences) {
  const size_t n = std::max(a.outputs().size(), b.outputs().size());
  for (size_t i = 0; i < n; ++i) {
    const auto text = [i](const Graph& g) {
      if (i >= g.outputs().size()) return std::string("none");
      const graph::ValueId v = g.outputs()[i];
      return g.value(v).name + " " + to_string(g.type(v));
    };
    if (text(a) != text(b))
      differences.push_back({"output", std::to_string(i), "", '~', {arrow(text(a), text(b))}});
  }
}

std::string summary(const std::string& path, const Graph& g) {
  const NodeCount n = count_nodes(g);
  return fmt::format("{}: {} operators, {} in {}, weights {}", path, n.total, n.quantized,
                     code_widths(g, CodesOf::values),
                     human_bytes(static_cast<double>(weight_bytes(g))));
}

void add_diff(CommandLine& program) {
  struct Options {
    std::string a, b;
    bool json = false;
    ShapeOptions shape;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command("diff", "what differs between two models");
  command.add_option("A", o->a, ".onnx or .octet").type_name("").required();
  command.add_option("B", o->b, ".onnx or .octet").type_name("").required();
  command.add_flag("--json", o->json, "print one JSON object");
  o->shape.add_to(command);
  command.footer(
      "Operators are matched by the name behind `@` in `octet inspect`, weights, inputs and\n"
      "other values by theirs. `-` is only in A, `+` only in B, `~` changed from A to B; SQNR\n"
      "is that of B's weight against A's.\n"
      "Example: octet diff net.onnx net.octet");
  command.callback([o] {
    const graph::InputShapes shapes = o->shape.shapes();
    const Graph a = load_model(o->a, shapes), b = load_model(o->b, shapes);
    std::vector<Difference> differences;
    compare_nodes(a, b, NodeKind::input, "input", differences);
    compare_nodes(a, b, NodeKind::call, "operator", differences);
    compare_nodes(a, b, NodeKind::constant, "weight", differences);
    compare_outputs(a, b, differences);
    if (o->json) {
      JsonValue list = JsonValue::array();
      for (const Difference& d : differences) list.push_back(d.json());
      print_json(JsonValue::object({{"same", differences.empty()}, {"differences", list}}));
      return;
    }
    fmt::print("A {}\nB {}\n", summary(o->a, a), summary(o->b, b));
    for (const Difference& d : differences) fmt::print("{}\n", d.line());
    fmt::print("# {}\n", differences.empty() ? "no difference"
                         : differences.size() == 1
                             ? "1 difference"
                             : fmt::format("{} differences", differences.size()));
  });
}

const RegisteredCommand g_diff("diff", add_diff);

}  // namespace
}  // namespace octet::cli
