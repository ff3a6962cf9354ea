#pragma once
// What the tests of graph mode against PyTorch share (scripts/oracle/fx_graphs.py, fx_outputs.py):
// the cases, what their configs say, graphs as lists of nodes.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/observer.h"
#include "octet/quant/workflow/fx.h"
#include "tests/golden.h"
#include "tests/quant/fx_models.h"

namespace octet::testing {

using fx_models::Maker;
using nlohmann::json;

inline const json& cases() {
  static const json loaded = load_golden("fx_graphs.json");
  return loaded;
}

inline const json& golden(const std::string& name) {
  for (const json& c : cases())
    if (c["name"] == name) return c;
  throw std::out_of_range("fx_graphs.json has no " + name);
}

// A node as the golden file has it. Operands: a node and which of its results, -1 if it has one.
struct FlatNode {
  std::string kind, target, class_name, dtype, activation;
  std::vector<std::pair<int, int>> inputs;
};

inline FlatNode flat_of(const json& node) {
  FlatNode n{node["kind"],
             node.value("target", ""),
             node.value("class", ""),
             node.value("dtype", ""),
             node.value("activation", ""),
             {}};
  const json inputs = node.value("inputs", json::array());
  for (const json& i : inputs)
    n.inputs.push_back(i.is_array() ? std::pair<int, int>(i[0], i[1]) : std::pair<int, int>(i, -1));
  return n;
}

inline std::string class_of(nn::Module& module) {
  const std::string name = module.type_name();
  if (dynamic_cast<graph::GraphModule*>(&module)) return "Standalone";
  if (dynamic_cast<quant::FakeQuantizeBase*>(&module)) return name;
  if (nn::class_name(module.class_type()) == name &&
      std::string(module.class_type().name()).find("3qat") != std::string::npos)
    return "qat." + name;
  if (module.has_submodule("0") &&
      module.submodule("0")->type_name().starts_with("QuantizedReference"))
    return "QuantizedReference" + name;
  return name;
}

// octet's graph; `root` holds the modules that it calls.
inline std::vector<FlatNode> flat_of(const graph::Graph& g, nn::Module& root) {
  std::vector<FlatNode> nodes;
  std::map<graph::ValueId, std::pair<int, int>> where;
  std::map<nn::Module*, int> observers;
  for (const graph::Node& node : g.nodes()) {
    FlatNode n{.target = node.op};
    for (graph::ValueId id : node.inputs)
      if (id != graph::kNone) n.inputs.push_back(where.at(id));
    if (!node.outputs.empty()) {
      const DType dtype = g.type(node.outputs[0]).dtype;
      if (is_quantized(dtype)) n.dtype = to_string(dtype);
    }
    if (node.kind == graph::NodeKind::input) {
      n.kind = "input";
      n.target = std::to_string(std::find(g.inputs().begin(), g.inputs().end(), node.outputs[0]) -
                                g.inputs().begin());
    } else if (node.kind == graph::NodeKind::constant) {
      n.kind = "constant";
      n.target = g.value(node.outputs[0]).name;
      // PyTorch's packed weights have numbers for names; octet's may have one behind the
      // parameter's name.
      if (!n.dtype.empty() && n.target.ends_with("_1")) n.target.resize(n.target.size() - 2);
    } else if (node.kind == graph::NodeKind::call) {
      n.kind = "call";
      const graph::ValueId last = node.inputs.back();
      // x + 2
      if ((node.op == "add" || node.op == "mul") && g.is_constant(last) &&
          g.constant(last).dim() == 0) {
        n.target += "_scalar";
        n.inputs.pop_back();
      }
      if (node.attrs.has("activation") && node.attrs.get_string("activation") != "none")
        n.activation = node.attrs.get_string("activation");
    } else {
      n.kind = "module";
      n.target = node.scope;
      nn::ModulePtr module = root.submodule(node.scope);
      n.class_name = class_of(*module);
      if (std::dynamic_pointer_cast<quant::Observer>(module) ||
          std::dynamic_pointer_cast<quant::FakeQuantizeBase>(module))
        n.target = fmt::format("observer {}",
                               observers.emplace(module.get(), observers.size()).first->second);
    }
    nodes.push_back(n);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      where[node.outputs[i]] = {static_cast<int>(nodes.size()) - 1,
                                node.outputs.size() > 1 ? static_cast<int>(i) : -1};
  }
  FlatNode output{.kind = "output"};
  for (graph::ValueId id : g.outputs()) output.inputs.push_back(where.at(id));
  nodes.push_back(output);
  return nodes;
}

// -- models, their inputs and configs -------------------------------------------------------------

// Inputs as a case lists them: shapes of floats, or ["index", shape, n].
inline std::vector<Tensor> inputs_of(const json& c) {
  std::vector<Tensor> inputs;
  for (const json& shape : c["inputs"]) {
    if (shape[0].is_string()) {
      const Shape of = shape[1].get<Shape>();
      std::vector<int64_t> index;
      for (int64_t i = 0; i < numel(of); ++i) index.push_back(i % shape[2].get<int64_t>());
      inputs.push_back(Tensor::from(index, of));
    } else {
      inputs.push_back(Tensor::randn(shape.get<Shape>(), 7 + inputs.size()));
    }
  }
  return inputs;
}

inline nn::ModulePtr model_of(const Maker& maker) {
  nn::ModulePtr model = maker.make();
  model->train(golden(maker.name)["config"].value("qat", false));
  return model;
}

inline std::optional<quant::QConfig> qconfig_of(const std::string& name, bool qat) {
  if (name == "none") return std::nullopt;
  if (name == "dynamic") return quant::default_dynamic_qconfig();
  if (name == "float_qparams") return quant::float_qparams_weight_only_qconfig();
  if (name == "per_channel") return quant::get_default_qconfig("onednn");
  return qat ? quant::get_default_qat_qconfig("qnnpack") : quant::get_default_qconfig("qnnpack");
}

// mapping() of the oracle.
inline quant::QConfigMapping mapping_of(const json& config) {
  const bool qat = config.value("qat", false);
  quant::QConfigMapping m = qat ? quant::get_default_qat_qconfig_mapping("qnnpack")
                                : quant::get_default_qconfig_mapping("qnnpack");
  for (const auto& [key, value] : config.items()) {
    if (key == "global") m = quant::QConfigMapping().set_global(qconfig_of(value, qat));
    if (key == "object_type")
      for (const auto& [type, q] : value.items())
        m.set_object_type(quant::ObjectType(type), qconfig_of(q, qat));
    if (key == "module_name_regex")
      for (const auto& [pattern, q] : value.items())
        m.set_module_name_regex(pattern, qconfig_of(q, qat));
    if (key == "module_name")
      for (const auto& [path, q] : value.items()) m.set_module_name(path, qconfig_of(q, qat));
    if (key == "module_name_object_type_order")
      for (const json& e : value)
        m.set_module_name_object_type_order(e[0], quant::ObjectType(e[1].get<std::string>()), e[2],
                                            qconfig_of(e[3], qat));
  }
  return m;
}

// prepare_custom() of the oracle.
inline quant::PrepareCustomConfig custom_of(const json& config) {
  quant::PrepareCustomConfig c;
  for (const auto& [key, value] : config.items()) {
    if (key == "input_quantized_idxs") c.set_input_quantized_indexes(value);
    if (key == "output_quantized_idxs") c.set_output_quantized_indexes(value);
    if (key == "preserved_attributes") c.set_preserved_attributes(value);
    if (key == "non_traceable_module_name") c.set_non_traceable_module_names(value);
    if (key == "non_traceable_module_class")
      c.set_non_traceable_module_classes<fx_models::DependsOnData>();
    if (key == "custom")
      c.set_float_to_observed_mapping<fx_models::CustomModule, fx_models::ObservedCustomModule>();
    if (key == "standalone_module_name")
      for (const auto& [path, inner] : value.items())
        c.set_standalone_module_name(
            path, {.prepare_custom_config =
                       std::make_shared<quant::PrepareCustomConfig>(custom_of(inner))});
  }
  return c;
}

inline quant::ConvertCustomConfig convert_custom_of(const json& config) {
  quant::ConvertCustomConfig c;
  if (config.contains("custom"))
    c.set_observed_to_quantized_mapping<fx_models::ObservedCustomModule,
                                        fx_models::StaticQuantCustomModule>();
  return c;
}

inline std::shared_ptr<quant::ObservedGraphModule> prepared_of(const Maker& maker,
                                                               const nn::ModulePtr& model) {
  const json& c = golden(maker.name);
  auto prepare = [&](auto function) {
    // PyTorch leaves no islands float and joins nothing.
    return function(model, mapping_of(c["config"]), inputs_of(c),
                    custom_of(c["config"]).set_leave_islands_float(false).set_join_tables(false),
                    quant::get_native_backend_config());
  };
  using Function = std::shared_ptr<quant::ObservedGraphModule> (*)(
      const nn::ModulePtr&, const quant::QConfigMapping&, const std::vector<Tensor>&,
      const quant::PrepareCustomConfig&, const quant::BackendConfig&);
  return prepare(c["config"].value("qat", false) ? Function(quant::prepare_qat_fx)
                                                 : Function(quant::prepare_fx));
}

}  // namespace octet::testing
