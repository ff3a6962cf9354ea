#include "octet/graph/graph_module.h"

#include <algorithm>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/trace.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"

namespace octet::graph {

OCTET_MODULE(GraphModule)
OCTET_MODULE(nn::Module)

namespace {

enum class Role { fixed, parameter, buffer };

// What an operator does with its operand i.
Role role_of(const Node& node, size_t i, const TensorType& type) {
  if (type.dtype != DType::float32) return Role::fixed;
  const ops::Op& op = ops::get(node.op);
  if (i >= op.params().size()) return Role::fixed;
  const std::string& name = op.params()[i].name;
  if (node.op == "batch_norm" && (name == "running_mean" || name == "running_var"))
    return Role::buffer;
  if (name.find("weight") != std::string::npos || name.find("bias") != std::string::npos ||
      name.rfind("w_", 0) == 0 || name.rfind("b_", 0) == 0)
    return Role::parameter;
  return node.op == "matmul" && type.dim() >= 2 ? Role::parameter : Role::fixed;
}

}  // namespace

GraphModule::GraphModule(Graph graph) : graph_(std::move(graph)) {
  graph_.require_operators("GraphModule");
  for (const Node& node : graph_.nodes()) {
    for (ValueId v : node.outputs)
      OCTET_CHECK(!graph_.type(v).is_quantized(), invalid_argument,
                  "{}: %{} is {}: a quantized graph cannot be trained: give the "
                  "float one",
                  graph_.name, graph_.value(v).name, to_string(graph_.type(v)));
    if (node.kind != NodeKind::call) continue;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (v == kNone || !graph_.is_constant(v) || trained_.count(v)) continue;
      Role role = role_of(node, i, graph_.type(v));
      if (role != Role::fixed) own_constant(v, graph_.constant(v).clone(), role == Role::buffer);
    }
  }
}

GraphModule::GraphModule(Graph graph, nn::Module& root) {
  train(root.training());
  for (const Node& node : graph.nodes())
    if (node.kind == NodeKind::module && !has_submodule(node.scope))
      put_module(node.scope, root.submodule(node.scope));
  if (auto* other = dynamic_cast<GraphModule*>(&root))
    for (const std::string& path : other->preserved_) {
      if (!has_submodule(path)) put_module(path, other->submodule(path));
      preserved_.push_back(path);
    }
  std::map<std::string, std::pair<Tensor*, bool>> named;
  for (auto& [name, tensor] : root.named_parameters()) named[name] = {tensor, false};
  for (auto& [name, tensor] : root.named_buffers()) named[name] = {tensor, true};
  graph_ = std::move(graph);
  for (size_t v = 0; v < graph_.values().size(); ++v) {
    auto id = static_cast<ValueId>(v);
    if (!graph_.is_constant(id)) continue;
    if (auto it = named.find(graph_.value(id).name);
        it != named.end() && it->second.first->type() == graph_.type(id))
      own_constant(id, *it->second.first, it->second.second);
  }
}

void GraphModule::own_constant(ValueId id, const Tensor& value, bool buffer) {
  const std::string& name = graph_.value(id).name;
  trained_[id] = name;
  if (buffer)
    register_buffer(name, value);
  else
    register_parameter(name, value);
}

void GraphModule::preserve(const std::string& path) {
  (void)submodule(path);  // Error if it is not there
  preserved_.push_back(path);
}

void GraphModule::put_module(const std::string& path, nn::ModulePtr module) {
  nn::Module* at = this;
  size_t begin = 0;
  for (size_t dot = 0; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1) {
    std::string name = path.substr(begin, dot - begin);
    if (!at->has_submodule(name)) {
      auto place = nn::make<nn::Module>();
      place->train(training());
      at->add_child(name, place);
    }
    at = at->submodule(name).get();
  }
  std::string name = path.substr(begin);
  if (at->has_submodule(name))
    at->set_submodule(name, std::move(module));
  else
    at->add_child(name, std::move(module));
}

namespace {
// Removes what is neither at one of the paths, nor in something that is, nor on the way to one.
void drop_others(nn::Module& module, const std::string& prefix,
                 const std::set<std::string>& paths) {
  std::vector<std::string> names;
  for (const auto& [name, child] : module.children()) names.push_back(name);
  for (const std::string& name : names) {
    std::string path = prefix + name;
    if (paths.count(path)) continue;
    auto next = paths.lower_bound(path + ".");
    if (next != paths.end() && next->starts_with(path + "."))
      drop_others(*module.submodule(name), path + ".", paths);
    else
      module.remove_child(name);
  }
}
}  // namespace

void GraphModule::set_graph(Graph graph, bool drop_unused) {
  std::set<std::string> paths(preserved_.begin(), preserved_.end());
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::module) continue;
    OCTET_CHECK(has_submodule(node.scope), not_found,
                "set_graph: {} calls '{}', which {} does not hold: put_module() it first",
                graph.name, node.scope, graph_.name);
    paths.insert(node.scope);
  }
  std::map<ValueId, std::string> trained;
  for (const auto& [id, name] : trained_)
    if (auto at = graph.find(name); at && graph.is_constant(*at)) trained[*at] = name;
  graph_ = std::move(graph);
  trained_ = std::move(trained);
  if (drop_unused) drop_others(*this, "", paths);
  graph_changed();
}

std::vector<Tensor> GraphModule::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == graph_.inputs().size(), invalid_argument,
              "{}: {} inputs given; expected {}", graph_.name, inputs.size(),
              graph_.inputs().size());
  std::vector<Tensor> values(graph_.values().size());
  for (size_t i = 0; i < inputs.size(); ++i)
    values[graph_.inputs()[i]] = result(graph_.inputs()[i], inputs[i]);
  for (const Node& node : graph_.nodes()) {
    if (node.kind == NodeKind::constant) {
      auto it = trained_.find(node.outputs[0]);
      values[node.outputs[0]] = it == trained_.end() ? node.value : tensor(it->second);
    }
    if (node.kind == NodeKind::constant || node.kind == NodeKind::input) continue;
    std::vector<Tensor> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i)
      operands.push_back(node.inputs[i] == kNone ? Tensor() : operand(node, i, values));
    std::vector<Tensor> results = node.kind == NodeKind::module
                                      ? call_module(node, operands)
                                      : evaluate(node, std::move(operands));
    OCTET_CHECK(results.size() >= node.outputs.size(), invalid_argument,
                "{}: {} gave {} results; expected {}", graph_.name, describe(graph_, node),
                results.size(), node.outputs.size());
    for (size_t i = 0; i < node.outputs.size(); ++i)
      values[node.outputs[i]] = result(node.outputs[i], results[i]);
  }
  std::vector<Tensor> outputs;
  for (ValueId v : graph_.outputs()) outputs.push_back(values[v]);
  return outputs;
}

Tensor GraphModule::forward(Tensor x) { return forward(std::vector<Tensor>{std::move(x)}).at(0); }

Tensor GraphModule::operand(const Node& node, size_t i, const std::vector<Tensor>& values) {
  return values[node.inputs[i]];
}

std::vector<Tensor> GraphModule::evaluate(const Node& node, std::vector<Tensor> operands) {
  if (training() && node.op == "dropout")
    return {functional::dropout(operands[0], node.attrs.get_double("p"), true)};
  if (!training() || node.op != "batch_norm")
    return ops::call_all(node.op, std::move(operands), node.attrs, want_of(graph_, node));
  auto y = ops::call_all("batch_norm_training", {operands[0], operands[1], operands[2]},
                         {{"eps", node.attrs.get_double("eps")}});
  // The running statistics follow with PyTorch's default momentum.
  int64_t channels = operands[1].numel(), count = operands[0].numel() / channels;
  auto unbias = static_cast<float>(static_cast<double>(count) /
                                   static_cast<double>(std::max<int64_t>(count - 1, 1)));
  float *mean = operands[3].data<float>(), *var = operands[4].data<float>();
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] += 0.1f * (y[1].data<float>()[c] - mean[c]);
    var[c] += 0.1f * (y[2].data<float>()[c] * unbias - var[c]);
  }
  return {y[0]};
}

Graph GraphModule::to_graph() const {
  check_state();
  auto& self = const_cast<GraphModule&>(*this);  // tracing changes nothing
  bool quiet = true;
  for (auto& [path, module] : self.named_modules()) quiet = quiet && !module->training();
  if (!graph_.has_modules()) return with_values(graph_);
  nn::ModulePtr copy;
  if (!quiet) {
    copy = clone();
    copy->eval();
  }
  std::vector<std::optional<TensorType>> types;
  TraceOptions options;
  options.into_layers = true;
  for (ValueId v : graph_.inputs()) {
    types.emplace_back(graph_.type(v));
    options.input_names.push_back(graph_.value(v).name);
  }
  Graph result = trace(copy ? *copy : self, types, options)->graph();
  result.name = graph_.name;
  result.metadata = graph_.metadata;
  return result;
}

// -- saving ---------------------------------------------------------------------------------------

Attrs GraphModule::config() const {
  check_state();
  std::vector<std::string> parameters, buffers;
  std::set<std::string> is_buffer;
  for (const auto& [name, tensor] : const_cast<GraphModule&>(*this).named_buffers())
    is_buffer.insert(name);
  for (const auto& [id, name] : trained_)
    (is_buffer.count(name) ? buffers : parameters).push_back(name);
  return {{"graph", print(graph_, {.full = true})},
          {"parameters", fmt::format("{}", fmt::join(parameters, "\n"))},
          {"buffers", fmt::format("{}", fmt::join(buffers, "\n"))},
          {"preserved", fmt::format("{}", fmt::join(preserved_, "\n"))}};
}

std::shared_ptr<GraphModule> GraphModule::from_config(const Attrs& config) {
  auto module = nn::make<GraphModule>(Graph());
  module->load_config(config);
  return module;
}

namespace {
std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find('\n', begin), text.size());
    result.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return result;
}
}  // namespace

void GraphModule::load_config(const Attrs& config) {
  graph_ = parse(config.get_string("graph"));
  for (const char* kind : {"parameters", "buffers"})
    for (const std::string& name : lines(config.get_string(kind))) {
      auto id = graph_.find(name);
      OCTET_CHECK(id && graph_.is_constant(*id), corrupt,
                  "GraphModule: '{}' of its {} is no constant of the graph", name, kind);
      own_constant(*id, graph_.constant(*id), std::string(kind) == "buffers");
    }
  preserved_ = lines(config.get_string("preserved"));
  graph_changed();
}

namespace {
// The key of a quantized value's scale and zero point in the state.
std::string qparams_key(const Graph& g, ValueId id) { return "_qparams." + g.value(id).name; }
bool has_qparams(const Graph& g, ValueId id) {
  return !g.is_constant(id) && g.type(id).is_quantized() && !g.type(id).quantizer->is_per_channel();
}
}  // namespace

std::map<std::string, Tensor> GraphModule::extra_state() const {
  std::map<std::string, Tensor> state;
  for (size_t v = 0; v < graph_.values().size(); ++v) {
    auto id = static_cast<ValueId>(v);
    if (graph_.is_constant(id) && !trained_.count(id))
      state[graph_.value(id).name] = graph_.constant(id);
    if (!has_qparams(graph_, id)) continue;
    const Quantizer& q = *graph_.type(id).quantizer;
    state[qparams_key(graph_, id)] =
        Tensor::from<double>({q.scale(), static_cast<double>(q.zero_point())});
  }
  return state;
}

void GraphModule::set_extra_state(const std::map<std::string, Tensor>& state) {
  Graph changed = graph_;
  for (size_t v = 0; v < graph_.values().size(); ++v) {
    auto id = static_cast<ValueId>(v);
    const std::string& name = graph_.value(id).name;
    if (graph_.is_constant(id) && !trained_.count(id)) {
      const Tensor& value = state.at(name);
      OCTET_CHECK(
          value.dtype() == graph_.type(id).dtype && value.shape() == graph_.constant(id).shape(),
          invalid_argument, "{}: the constant '{}' is {}; expected {}", graph_.name, name,
          to_string(value.type()), to_string(graph_.type(id)));
      changed.node(changed.value(id).producer).value = value;
      if (value.is_quantized()) changed.set_quantizer(id, value.quantizer());
    }
    if (!has_qparams(graph_, id)) continue;
    const Tensor& q = state.at(qparams_key(graph_, id));
    OCTET_CHECK(q.dtype() == DType::float64 && q.shape() == Shape{2}, invalid_argument,
                "{}: '{}' is {}; expected a scale and a zero point", graph_.name,
                qparams_key(graph_, id), to_string(q.type()));
    changed.set_quantizer(id, Quantizer::per_tensor(q.at({0}), static_cast<int64_t>(q.at({1})),
                                                    graph_.type(id).dtype));
  }
  changed.check();
  graph_ = std::move(changed);
  graph_changed();
}

Graph GraphModule::with_values(const Graph& other) const {
  Graph result = other;
  auto& self = const_cast<GraphModule&>(*this);
  for (const auto& [id, name] : trained_) {
    auto at = result.find(name);
    OCTET_CHECK(at && result.is_constant(*at) && result.type(*at) == graph_.type(id),
                invalid_argument, "{} has no constant %{}: {}", result.name, name,
                to_string(graph_.type(id)));
    result.node(result.value(*at).producer).value = self.tensor(name).detach().clone();
  }
  return result;
}

bool GraphModule::has_values_of(const Graph& other) const {
  auto& self = const_cast<GraphModule&>(*this);
  return std::all_of(trained_.begin(), trained_.end(), [&](const auto& trained) {
    const auto at = other.find(trained.second);
    return at && other.is_constant(*at) &&
           equal(other.constant(*at), self.tensor(trained.second).detach());
  });
}

Graph without_final_softmax(const Graph& graph) {
  if (graph.outputs().size() != 1) return graph;
  const Node& last = graph.producer(graph.outputs()[0]);
  if (last.kind != NodeKind::call || last.op != "softmax") return graph;
  Graph cut = graph;
  cut.set_outputs({last.inputs[0]});
  return remove_dead(cut);
}

}  // namespace octet::graph
