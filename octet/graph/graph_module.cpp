#include "octet/graph/graph_module.h"

#include <algorithm>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/merge_qdq.h"
#include "octet/ops/functional.h"

namespace octet::graph {
namespace {

enum class Role { fixed, parameter, buffer };

// What an operator does with its operand i.
Role role_of(const Node& node, size_t i, const TensorType& type) {
  if (type.dtype != DType::float32) return Role::fixed;
  const ops::Op& op = ops::get(node.op);
  if (i >= op.params().size()) return Role::fixed;
  const std::string& name = op.params()[i].name;
  if (node.op == "batch_norm" && (name == "running_mean" || name == "running_var")) return Role::buffer;
  if (name.find("weight") != std::string::npos || name.find("bias") != std::string::npos || name.rfind("w_", 0) == 0 ||
      name.rfind("b_", 0) == 0)
    return Role::parameter;
  return node.op == "matmul" && type.dim() >= 2 ? Role::parameter : Role::fixed;
}

}  // namespace

GraphModule::GraphModule(Graph graph) : graph_(std::move(graph)) {
  for (const Node& node : graph_.nodes()) {
    for (ValueId v : node.outputs)
      OCTET_CHECK(!graph_.type(v).is_quantized(), invalid_argument, "{}: %{} is {}: a quantized graph cannot be trained: give the "
                  "float one", graph_.name, graph_.value(v).name, to_string(graph_.type(v)));
    if (node.kind != NodeKind::call) continue;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (v == kNone || !graph_.is_constant(v) || trained_.count(v)) continue;
      Role role = role_of(node, i, graph_.type(v));
      if (role == Role::fixed) continue;
      const std::string& name = graph_.value(v).name;
      trained_[v] = name;
      Tensor own = graph_.constant(v).clone();
      if (role == Role::parameter) register_parameter(name, own);
      else register_buffer(name, own);
    }
  }
}

std::vector<Tensor> GraphModule::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == graph_.inputs().size(), invalid_argument, "{}: {} inputs given; expected {}", graph_.name,
              inputs.size(), graph_.inputs().size());
  std::vector<Tensor> values(graph_.values().size());
  for (size_t i = 0; i < inputs.size(); ++i) values[graph_.inputs()[i]] = result(graph_.inputs()[i], inputs[i]);
  for (const Node& node : graph_.nodes()) {
    if (node.kind == NodeKind::constant) {
      auto it = trained_.find(node.outputs[0]);
      values[node.outputs[0]] = it == trained_.end() ? node.value : tensor(it->second);
    }
    if (node.kind != NodeKind::call) continue;
    std::vector<Tensor> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i)
      operands.push_back(node.inputs[i] == kNone ? Tensor() : operand(node, i, values));
    std::vector<Tensor> results = evaluate(node, std::move(operands));
    for (size_t i = 0; i < results.size(); ++i) values[node.outputs[i]] = result(node.outputs[i], results[i]);
  }
  std::vector<Tensor> outputs;
  for (ValueId v : graph_.outputs()) outputs.push_back(values[v]);
  return outputs;
}

Tensor GraphModule::forward(Tensor x) { return forward(std::vector<Tensor>{std::move(x)}).at(0); }

Tensor GraphModule::operand(const Node& node, size_t i, const std::vector<Tensor>& values) { return values[node.inputs[i]]; }

std::vector<Tensor> GraphModule::evaluate(const Node& node, std::vector<Tensor> operands) {
  if (training() && node.op == "dropout") return {functional::dropout(operands[0], node.attrs.get_double("p"), true)};
  if (!training() || node.op != "batch_norm") return ops::call_all(node.op, std::move(operands), node.attrs);
  auto y = ops::call_all("batch_norm_training", {operands[0], operands[1], operands[2]}, {{"eps", node.attrs.get_double("eps")}});
  // The running statistics follow with PyTorch's default momentum.
  int64_t channels = operands[1].numel(), count = operands[0].numel() / channels;
  auto unbias = static_cast<float>(static_cast<double>(count) / static_cast<double>(std::max<int64_t>(count - 1, 1)));
  float *mean = operands[3].data<float>(), *var = operands[4].data<float>();
  for (int64_t c = 0; c < channels; ++c) {
    mean[c] += 0.1f * (y[1].data<float>()[c] - mean[c]);
    var[c] += 0.1f * (y[2].data<float>()[c] * unbias - var[c]);
  }
  return {y[0]};
}

Graph GraphModule::to_graph() const { return with_values(graph_); }

Graph GraphModule::with_values(const Graph& other) const {
  Graph result = other;
  auto& self = const_cast<GraphModule&>(*this);
  for (const auto& [id, name] : trained_) {
    auto at = result.find(name);
    OCTET_CHECK(at && result.is_constant(*at) && result.type(*at) == graph_.type(id), invalid_argument,
                "{} has no constant %{}: {}", result.name, name, to_string(graph_.type(id)));
    result.node(result.value(*at).producer).value = self.tensor(name).detach().clone();
  }
  return result;
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
