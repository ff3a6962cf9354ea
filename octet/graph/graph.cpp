#include "octet/graph/graph.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/graph/sizes_impl.h"

namespace octet::graph {

std::string describe(const Graph& g, const Node& node) {
  std::string out = node.outputs.empty() ? "?" : g.value(node.outputs[0]).name;
  switch (node.kind) {
    case NodeKind::input:
      return fmt::format("%{} = input", out);
    case NodeKind::constant:
      return fmt::format("%{} = constant", out);
    case NodeKind::call:
      return fmt::format("%{} = {}", out, node.op);
    default:
      return fmt::format("%{} = module {}", out, node.op);
  }
}

namespace {

// The names the text format can print.
std::string printable(std::string name) {
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && !std::strchr("_./:-", c)) c = '_';
  return name.empty() ? "v" : name;
}

// Names of sizes, likewise: a type must be readable from its text.
TensorType printable(TensorType type) {
  for (Dim& d : type.dims) {
    if (d.known()) continue;
    std::string name = d.name();
    for (char& c : name)
      if (static_cast<unsigned char>(c) <= ' ' || std::strchr("(),%=\"\x7f", c)) c = '_';
    if (name.find_first_not_of("0123456789") == std::string::npos) name.insert(0, "size");
    if (name != d.name()) d = Dim(name);
  }
  return type;
}

std::vector<std::optional<TensorType>> operand_types(const Graph& g,
                                                     const std::vector<ValueId>& inputs) {
  std::vector<std::optional<TensorType>> types;
  for (ValueId id : inputs) types.push_back(id == kNone ? std::nullopt : std::optional(g.type(id)));
  return types;
}

// A dimension that is not known before the graph runs has a name of its own: %y's second is "y.1".
void name_unknown_dims(Value& value) {
  for (size_t d = 0; d < value.type.dims.size(); ++d)
    if (value.type.dims[d] == ops::unknown())
      value.type.dims[d] = Dim(fmt::format("{}.{}", value.name, d));
}

}  // namespace

Graph::Graph() = default;
Graph::Graph(const Graph& other) = default;
Graph::Graph(Graph&& other) noexcept = default;
Graph& Graph::operator=(const Graph& other) = default;
Graph& Graph::operator=(Graph&& other) noexcept = default;
Graph::~Graph() = default;

std::optional<ValueId> Graph::find(std::string_view name) const {
  auto it = by_name_.find(name);
  return it == by_name_.end() ? std::nullopt : std::optional(it->second);
}

const Tensor& Graph::constant(ValueId id) const {
  OCTET_CHECK(id >= 0 && is_constant(id), invalid_argument, "%{} is not a constant",
              id >= 0 ? value(id).name : "none");
  return producer(id).value;
}

std::string Graph::unique_name(const std::string& wanted) {
  std::string base = printable(wanted), name = base;
  for (int i = 1; by_name_.count(name); ++i) name = base + "_" + std::to_string(i);
  return name;
}

ValueId Graph::new_value(const std::string& name, TensorType type, NodeId producer) {
  auto id = static_cast<ValueId>(values_.size());
  values_.push_back({unique_name(name), printable(std::move(type)), producer});
  by_name_[values_.back().name] = id;
  return id;
}

ValueId Graph::add_input(const std::string& name, TensorType type) {
  auto node = static_cast<NodeId>(nodes_.size());
  ValueId id = new_value(name, std::move(type), node);
  nodes_.push_back({NodeKind::input, "", "", "", {}, {id}, {}, {}});
  inputs_.push_back(id);
  return id;
}

ValueId Graph::add_constant(const std::string& name, Tensor value) {
  auto node = static_cast<NodeId>(nodes_.size());
  ValueId id = new_value(name, value.type(), node);
  nodes_.push_back({NodeKind::constant, "", "", "", {}, {id}, {}, std::move(value)});
  return id;
}

std::vector<ValueId> Graph::add_calls(const std::string& name, const std::string& op_name,
                                      std::vector<ValueId> inputs, const Attrs& attrs,
                                      const std::optional<ops::QType>& want,
                                      const std::string& scope) {
  const ops::Op& op = ops::get(op_name);
  while (!inputs.empty() && inputs.back() == kNone) inputs.pop_back();
  for (ValueId id : inputs)
    OCTET_CHECK(id == kNone || (id >= 0 && id < static_cast<ValueId>(values_.size())),
                invalid_argument, "{}: operand {} is not a value of the graph", name, id);
  Attrs complete = op.complete(attrs);
  const ops::OperandSizes sizes = sizes_of_operands(*this, inputs, complete);
  auto types =
      op.infer(operand_types(*this, inputs), complete, want, scope.empty() ? name : scope, &sizes);
  auto node = static_cast<NodeId>(nodes_.size());
  std::vector<ValueId> outputs;
  for (TensorType& type : types) {
    outputs.push_back(new_value(name, std::move(type), node));
    name_unknown_dims(values_.back());
  }
  nodes_.push_back(
      {NodeKind::call, op_name, scope, "", std::move(inputs), outputs, std::move(complete), {}});
  return outputs;
}

ValueId Graph::add_call(const std::string& name, const std::string& op, std::vector<ValueId> inputs,
                        const Attrs& attrs, const std::optional<ops::QType>& want,
                        const std::string& scope) {
  auto outputs = add_calls(name, op, std::move(inputs), attrs, want, scope);
  OCTET_CHECK(outputs.size() == 1, invalid_argument, "{}: {} has {} results; use add_calls", name,
              op, outputs.size());
  return outputs[0];
}

std::vector<ValueId> Graph::add_module(const std::string& name, const std::string& path,
                                       const std::string& class_name, std::vector<ValueId> inputs,
                                       const std::vector<TensorType>& types,
                                       const std::vector<std::string>& result_names) {
  OCTET_CHECK(!types.empty(), invalid_argument, "{}: a module call has one result or more", name);
  while (!inputs.empty() && inputs.back() == kNone) inputs.pop_back();
  for (ValueId id : inputs)
    OCTET_CHECK(id == kNone || (id >= 0 && id < static_cast<ValueId>(values_.size())),
                invalid_argument, "{}: operand {} is not a value of the graph", name, id);
  auto node = static_cast<NodeId>(nodes_.size());
  std::vector<ValueId> outputs;
  for (size_t i = 0; i < types.size(); ++i)
    outputs.push_back(
        new_value(i < result_names.size() ? name + "." + result_names[i] : name, types[i], node));
  nodes_.push_back({NodeKind::module, class_name, path, "", std::move(inputs), outputs, {}, {}});
  return outputs;
}

bool Graph::has_modules() const {
  return std::any_of(nodes_.begin(), nodes_.end(),
                     [](const Node& node) { return node.kind == NodeKind::module; });
}

void Graph::require_operators(std::string_view who) const {
  for (const Node& node : nodes_)
    OCTET_CHECK(node.kind != NodeKind::module, unsupported,
                "{}: {} calls the module '{}' ({}), but a graph of operators is needed: "
                "give GraphModule::to_graph()",
                who, name, node.scope, node.op);
}

NodeId Graph::add_raw(Node node, const std::vector<Value>& outputs) {
  auto id = static_cast<NodeId>(nodes_.size());
  node.outputs.clear();
  for (const Value& v : outputs) {
    OCTET_CHECK(!v.name.empty() && v.name == printable(v.name), corrupt,
                "value name '{}' is empty or has odd characters", v.name);
    OCTET_CHECK(!by_name_.count(v.name), corrupt, "two values are named %{}", v.name);
    node.outputs.push_back(new_value(v.name, v.type, id));
  }
  if (node.kind == NodeKind::input)
    inputs_.insert(inputs_.end(), node.outputs.begin(), node.outputs.end());
  nodes_.push_back(std::move(node));
  return id;
}

void Graph::rename(ValueId id, const std::string& name) {
  if (value(id).name == name) return;
  OCTET_CHECK(name == printable(name), invalid_argument,
              "rename: value name '{}' is empty or has odd characters", name);
  OCTET_CHECK(!by_name_.count(name), invalid_argument, "rename: there is a value %{} already",
              name);
  by_name_.erase(value(id).name);
  values_[id].name = name;
  by_name_[name] = id;
}

void Graph::set_quantizer(ValueId id, QuantizerPtr quantizer) {
  OCTET_CHECK(type(id).is_quantized() && quantizer, invalid_argument, "set_quantizer: %{} is {}",
              value(id).name, to_string(type(id)));
  values_[id].type.quantizer = std::move(quantizer);
}

void Graph::check_node(NodeId id) const {
  const Node& node = nodes_.at(id);
  auto size = static_cast<ValueId>(values_.size());
  OCTET_CHECK(!node.outputs.empty(), corrupt, "node {} has no results", id);
  for (ValueId v : node.outputs)
    OCTET_CHECK(v >= 0 && v < size && values_[v].producer == id, corrupt,
                "node {}: result {} is not a value it makes", id, v);
  std::string what = describe(*this, node);
  for (ValueId v : node.inputs)
    OCTET_CHECK(v == kNone || (v >= 0 && v < size && values_[v].producer < id), corrupt,
                "{}: an operand is not defined before its use", what);
  for (ValueId v : node.outputs) {
    const TensorType& t = type(v);
    OCTET_CHECK(t.is_quantized() == (t.quantizer != nullptr), corrupt,
                "{}: the type of %{} is {} {} qparams", what, value(v).name, to_string(t.dtype),
                t.quantizer ? "with" : "without");
    if (!t.quantizer || !t.quantizer->is_per_channel()) continue;
    int64_t axis = t.quantizer->axis();
    OCTET_CHECK(axis < t.dim() &&
                    (!t.dims[axis].known() ||
                     t.dims[axis].size() == static_cast<int64_t>(t.quantizer->scales().size())),
                corrupt, "{}: the type of %{} has {} channels along dimension {} of {}", what,
                value(v).name, t.quantizer->scales().size(), axis, to_string(t));
  }
  if (node.kind == NodeKind::module) {
    OCTET_CHECK(!node.op.empty() && !node.scope.empty(), corrupt,
                "{}: a module call needs a class and a path", what);
    return;  // only the module knows its types
  }
  if (node.kind != NodeKind::call) {
    OCTET_CHECK(node.inputs.empty() && node.outputs.size() == 1, corrupt,
                "{}: it must have one result and no operands", what);
    if (node.kind == NodeKind::input) return;
    OCTET_CHECK(node.value.defined() && node.value.type() == type(node.outputs[0]), corrupt,
                "{}: the data is {}, the recorded type {}", what,
                node.value.defined() ? to_string(node.value.type()) : "missing",
                to_string(type(node.outputs[0])));
    return;
  }
  const ops::Op* op = ops::find(node.op);
  OCTET_CHECK(op, corrupt, "{}: unknown operator '{}'", what, node.op);
  std::vector<TensorType> types;
  try {
    OCTET_CHECK(op->complete(node.attrs) == node.attrs, corrupt, "attributes are incomplete");
    const ops::OperandSizes sizes = sizes_of_operands(*this, node.inputs, node.attrs);
    types =
        op->infer(operand_types(*this, node.inputs), node.attrs, want_of(*this, node), "", &sizes);
  } catch (const Error& e) {
    OCTET_FAIL(corrupt, "{}: {}", what, e.what());
  }
  OCTET_CHECK(types.size() == node.outputs.size(), corrupt, "{}: {} results; {} gives {}", what,
              node.outputs.size(), node.op, types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    for (size_t d = 0; d < types[i].dims.size() && d < type(node.outputs[i]).dims.size(); ++d)
      if (types[i].dims[d] == ops::unknown()) types[i].dims[d] = type(node.outputs[i]).dims[d];
    OCTET_CHECK(types[i] == type(node.outputs[i]), corrupt, "{}: recorded type {}; {} gives {}",
                what, to_string(type(node.outputs[i])), node.op, to_string(types[i]));
  }
}

void Graph::check() const {
  std::vector<int> made(values_.size(), 0);
  std::vector<ValueId> inputs;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    check_node(static_cast<NodeId>(i));
    for (ValueId v : nodes_[i].outputs)
      OCTET_CHECK(++made[v] == 1, corrupt, "{}: %{} is made twice", describe(*this, nodes_[i]),
                  value(v).name);
    if (nodes_[i].kind == NodeKind::input) inputs.push_back(nodes_[i].outputs[0]);
  }
  for (size_t v = 0; v < values_.size(); ++v)
    OCTET_CHECK(made[v] == 1, corrupt, "no node makes %{}", values_[v].name);
  OCTET_CHECK(inputs == inputs_, corrupt,
              "the graph's list of inputs does not match its input nodes");
  for (ValueId v : outputs_)
    OCTET_CHECK(v >= 0 && v < static_cast<ValueId>(values_.size()), corrupt,
                "an output of the graph is not defined");
}

std::vector<int> Graph::use_counts() const {
  std::vector<int> counts(values_.size(), 0);
  for (const Node& node : nodes_)
    for (ValueId id : node.inputs)
      if (id != kNone) ++counts[id];
  for (ValueId id : outputs_) ++counts[id];
  return counts;
}

std::vector<NodeId> Graph::users(ValueId id) const {
  std::vector<NodeId> result;
  for (size_t n = 0; n < nodes_.size(); ++n)
    if (std::find(nodes_[n].inputs.begin(), nodes_[n].inputs.end(), id) != nodes_[n].inputs.end())
      result.push_back(static_cast<NodeId>(n));
  return result;
}

std::optional<ops::QType> want_of(const Graph& graph, const Node& node) {
  for (ValueId id : node.outputs)
    if (graph.type(id).is_quantized())
      return ops::QType{graph.type(id).dtype, graph.type(id).quantizer};
  return std::nullopt;
}

OpSpec spec_of(const Graph& graph, const Node& node) {
  std::vector<std::optional<TensorType>> types;
  std::vector<Tensor> constants;
  for (ValueId id : node.inputs) {
    types.push_back(id == kNone ? std::nullopt : std::optional(graph.type(id)));
    constants.push_back(id != kNone && graph.is_constant(id) ? graph.constant(id) : Tensor());
  }
  std::vector<TensorType> outputs;
  for (ValueId id : node.outputs) outputs.push_back(graph.type(id));
  const std::string label =
      node.scope.empty() ? "%" + graph.value(node.outputs[0]).name : node.scope;
  return ops::make_spec(ops::get(node.op), node.attrs, types, std::move(constants),
                        std::move(outputs), label);
}

// -- rewriting ------------------------------------------------------------------------------------

ValueId Rewriter::operator()(ValueId old) const {
  if (old == kNone) return kNone;
  OCTET_CHECK(map_[old] != kUnmapped, internal, "rewrite: %{} was dropped but is still used",
              source_.value(old).name);
  return map_[old];
}

std::vector<ValueId> Rewriter::operands(const Node& node) const {
  std::vector<ValueId> ids;
  for (ValueId id : node.inputs) ids.push_back((*this)(id));
  return ids;
}

void Rewriter::copy(const Node& node) {
  const std::string& name = source_.value(node.outputs[0]).name;
  switch (node.kind) {
    case NodeKind::input:
      map_[node.outputs[0]] = out_.add_input(name, source_.type(node.outputs[0]));
      break;
    case NodeKind::constant:
      map_[node.outputs[0]] = out_.add_constant(name, node.value);
      break;
    case NodeKind::call: {
      auto results = out_.add_calls(name, node.op, operands(node), node.attrs,
                                    want_of(source_, node), node.scope);
      for (size_t i = 0; i < results.size(); ++i) {
        map_[node.outputs[i]] = results[i];
        // Results of one node keep their own names.
        const std::string& own = source_.value(node.outputs[i]).name;
        if (i > 0 && !out_.find(own)) out_.rename(results[i], own);
      }
      break;
    }
    case NodeKind::module: {
      std::vector<TensorType> types;
      for (ValueId v : node.outputs) types.push_back(source_.type(v));
      auto results = out_.add_module(name, node.scope, node.op, operands(node), types);
      for (size_t i = 0; i < results.size(); ++i) {
        map_[node.outputs[i]] = results[i];
        const std::string& own = source_.value(node.outputs[i]).name;
        if (i > 0 && !out_.find(own)) out_.rename(results[i], own);
      }
      break;
    }
  }
  Node& copy = out_.node(static_cast<NodeId>(out_.nodes().size()) - 1);
  copy.note = node.note;
  copy.stays_float = node.stays_float;
  copy.scope = node.scope;
}

Graph Rewriter::run(const std::function<bool(Rewriter&, const Node&)>& visit) {
  out_ = Graph();
  out_.name = source_.name;
  out_.metadata = source_.metadata;
  for (const Node& node : source_.nodes())
    if (!visit(*this, node)) copy(node);
  std::vector<ValueId> outputs;
  for (ValueId id : source_.outputs()) outputs.push_back((*this)(id));
  out_.set_outputs(std::move(outputs));
  return std::move(out_);
}

}  // namespace octet::graph
