#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;
using nn::Module;

Module* module_of(const GraphModule& model, const Node& node) {
  return node.kind == NodeKind::module ? model.submodule(node.scope).get() : nullptr;
}

bool is_observer_call(const GraphModule& model, const Node& node) {
  const Module* module = module_of(model, node);
  return module && is_activation_post_process(*module);
}

std::type_index mapped_type(const Module& module) {
  auto* fused = dynamic_cast<const nn::intrinsic::FusedModule*>(&module);
  const Module& m = fused && fused->size() > 0 ? (*fused)[0] : module;
  return std::type_index(m.class_type());
}

std::vector<QConfigMapping::Target> targets_of(
    const GraphModule& model, const std::map<std::string, const std::type_info*>& classes) {
  std::vector<QConfigMapping::Target> targets(model.graph().nodes().size());
  std::map<std::pair<std::string, std::string>, int> seen;  // parent and object type
  for (size_t i = 0; i < targets.size(); ++i) {
    const Node& node = model.graph().nodes()[i];
    QConfigMapping::Target& t = targets[i];
    t.module_path = node.scope;
    if (Module* module = module_of(model, node)) {
      t.module_type = mapped_type(*module);
      size_t dot = node.scope.rfind('.');
      t.parent_path = dot == std::string::npos ? "" : node.scope.substr(0, dot);
      t.index = seen[{t.parent_path, t.module_type->name()}]++;
    } else if (node.kind == NodeKind::call) {
      t.op = node.op;
      if (auto it = classes.find(node.scope); it != classes.end() && !node.scope.empty())
        t.module_type = std::type_index(*it->second);
      t.parent_path = node.scope;
      t.index = seen[{node.scope, node.op}]++;
    }
  }
  return targets;
}

Traced trace_copy(const nn::ModulePtr& model, const std::vector<std::optional<TensorType>>& inputs,
                  const PrepareCustomConfig& custom, const BackendConfig& backend,
                  const std::vector<Tensor>& examples) {
  nn::ModulePtr copy = model->clone();
  graph::TraceOptions options;
  std::set<std::type_index> present;
  std::vector<std::string> paths;
  std::map<std::string, const std::type_info*> classes;
  for (auto& [path, module] : copy->named_modules()) {
    classes.emplace(path, &module->class_type());
    present.insert(std::type_index(module->class_type()));
    paths.push_back(path);
  }
  for (const BackendPatternConfig& config : backend.configs())
    for (const ObjectType& item : config.pattern)
      if (item.is_module() && present.count(*item.type()) &&
          *item.type() != std::type_index(typeid(nn::Sequential)))
        options.leaf_classes.insert(*item.type());
  auto leaf_class = [&](std::type_index type, const char* what) {
    OCTET_CHECK(present.count(type), not_found,
                "{}: {} has no module of the class that the custom config names as {}",
                "prepare_fx", model->type_name(), what);
    options.leaf_classes.insert(type);
  };
  auto leaf_path = [&](const std::string& path, const char* what) {
    OCTET_CHECK(std::find(paths.begin(), paths.end(), path) != paths.end(), not_found,
                "prepare_fx: {} '{}': {} has no such submodule{}", what, path, model->type_name(),
                did_you_mean(path, paths));
    options.leaf_modules.push_back(path);
  };
  for (const auto& type : custom.non_traceable_classes) leaf_class(type, "non-traceable");
  for (const auto& [type, config] : custom.standalone_classes) leaf_class(type, "standalone");
  for (const auto& [mode, mapping] : custom.float_to_observed)
    for (const auto& [type, make] : mapping) leaf_class(type, "custom");
  for (const std::string& path : custom.non_traceable_names)
    leaf_path(path, "non-traceable module");
  for (const auto& [path, config] : custom.standalone_names) leaf_path(path, "standalone module");
  auto traced = examples.empty() ? graph::trace(*copy, inputs, options)
                                 : graph::trace(*copy, examples, options);
  for (const std::string& path : custom.preserved_attributes)
    if (!traced->has_submodule(path)) traced->put_module(path, copy->submodule(path));
  return {traced, std::move(classes)};
}

namespace {

class Fuser {
 public:
  Fuser(GraphModule& model, const BackendConfig& backend)
      : model_(model), g_(model.graph()), uses_(g_.use_counts()) {
    for (const BackendPatternConfig* config : backend.by_length())
      if (config->pattern.size() > 1 &&
          (config->fuser_method || config->quantized_op(QuantMode::statically)))
        patterns_.push_back(config);
    users_.resize(g_.values().size());
    for (size_t n = 0; n < g_.nodes().size(); ++n) {
      for (ValueId v : g_.nodes()[n].inputs)
        if (v != kNone) users_[v].push_back(static_cast<NodeId>(n));
      if (g_.nodes()[n].kind == NodeKind::module)
        ++calls_[model.submodule(g_.nodes()[n].scope).get()];
    }
  }

  void run() {
    std::vector<const Match*> last_of(g_.nodes().size(), nullptr);
    std::vector<bool> taken(g_.nodes().size(), false);
    std::vector<std::unique_ptr<Match>> matches;
    for (size_t n = 0; n < g_.nodes().size(); ++n) {
      if (taken[n]) continue;
      auto match = find(static_cast<NodeId>(n), taken);
      if (!match) continue;
      for (NodeId id : match->nodes) taken[id] = true;
      last_of[match->nodes.back()] = match.get();
      matches.push_back(std::move(match));
    }
    if (matches.empty()) return;
    graph::Rewriter rewriter(g_);
    // The fused call stands where the last of its parts stood.
    Graph fused = rewriter.run([&](graph::Rewriter& r, const Node& node) {
      auto id = static_cast<size_t>(&node - g_.nodes().data());
      if (last_of[id]) emit(r, *last_of[id]);
      return taken[id];
    });
    model_.set_graph(std::move(fused), false);
    for (const std::string& path : absorbed_) drop(path);
  }

 private:
  struct Match {
    const BackendPatternConfig* config;
    std::vector<NodeId> nodes;
  };

  bool is(const Node& node, const ObjectType& type) const {
    if (!type.is_module()) return node.kind == NodeKind::call && node.op == type.op();
    const Module* module = module_of(model_, node);
    return module && std::type_index(module->class_type()) == *type.type() &&
           (calls_.at(module) == 1 || is_stateless(*module));
  }

  // Called in several places, as torchvision calls one ReLU, each may have its own.
  static bool is_stateless(const Module& module) {
    return module.children().empty() && const_cast<Module&>(module).own_tensors().empty();
  }

  std::unique_ptr<Match> find(NodeId first, const std::vector<bool>& taken) const {
    for (const BackendPatternConfig* config : patterns_) {
      Match match{config, {first}};
      if (!is(g_.node(first), config->pattern[0])) continue;
      while (match.nodes.size() < config->pattern.size()) {
        const NodeId next = only_user(g_.node(match.nodes.back()));
        if (next < 0 || taken[next] || !is(g_.node(next), config->pattern[match.nodes.size()]))
          break;
        match.nodes.push_back(next);
      }
      if (match.nodes.size() == config->pattern.size() && fits(match))
        return std::make_unique<Match>(std::move(match));
    }
    return nullptr;
  }

  // The node whose operands are this one's results, all of them (a value of several tensors) in
  // their order, and nobody else's; -1 if there is none.
  NodeId only_user(const Node& node) const {
    if (users_[node.outputs[0]].empty()) return -1;
    const NodeId next = users_[node.outputs[0]][0];
    if (node.outputs.size() > 1 && g_.node(next).inputs != node.outputs) return -1;
    if (g_.node(next).inputs[0] != node.outputs[0]) return -1;
    for (ValueId v : node.outputs)
      if (uses_[v] != 1) return -1;
    return next;
  }

  // Parts in one mode; operators without an activation of their own yet.
  bool fits(const Match& match) const {
    for (NodeId id : match.nodes) {
      const Module* module = module_of(model_, g_.node(id));
      if (module && module->training() != model_.training()) return false;
    }
    const Node& root = g_.node(match.nodes[0]);
    return !root.attrs.has("activation") || root.attrs.get_string("activation") == "none";
  }

  void emit(graph::Rewriter& r, const Match& match) {
    const Node &root = g_.node(match.nodes.front()), &last = g_.node(match.nodes.back());
    const std::string& name = g_.value(root.outputs[0]).name;
    if (!match.config->fuser_method) {
      const LoweredOp& op = *match.config->quantized_op(QuantMode::statically);
      Attrs attrs = root.attrs;
      for (const auto& [key, value] : op.attrs) attrs.set(key, value);
      r.map(last.outputs[0],
            r.out().add_call(name, op.op, r.operands(root), attrs, std::nullopt, root.scope));
      return;
    }
    std::vector<nn::ModulePtr> parts;
    for (NodeId id : match.nodes) {
      const Node& node = g_.node(id);
      const Module* module = module_of(model_, node);
      parts.push_back(!module                  ? activation(node)
                      : calls_.at(module) == 1 ? model_.submodule(node.scope)
                                               : module->clone());
    }
    // Where the sequence starts with an operator there is no place of a module: the fuser method's
    // is put beside its caller.
    std::string path = root.kind == NodeKind::module ? root.scope : name;
    nn::ModulePtr fused = (*match.config->fuser_method)(model_.training(), parts);
    OCTET_CHECK(fused, invalid_argument, "fuse_fx: the fuser method of {} gave nothing for '{}'",
                to_string(match.config->pattern), path);
    fused->qconfig = parts[0]->qconfig;
    fused->take_hooks(*parts.front(), *parts.back());
    for (size_t i = 1; i < match.nodes.size(); ++i)
      if (g_.node(match.nodes[i]).kind == NodeKind::module)
        absorbed_.push_back(g_.node(match.nodes[i]).scope);
    model_.put_module(path, fused);
    std::vector<TensorType> types;
    for (ValueId v : last.outputs) types.push_back(g_.type(v));
    std::vector<ValueId> results =
        r.out().add_module(name, path, fused->type_name(), r.operands(root), types);
    for (size_t i = 0; i < results.size(); ++i) {
      if (i > 0) r.out().rename(results[i], g_.value(root.outputs[i]).name);
      r.map(last.outputs[i], results[i]);
    }
  }

  nn::ModulePtr activation(const Node& node) const {
    nn::ModulePtr relu = nn::make<nn::ReLU>();
    OCTET_CHECK(node.op == "relu", unsupported,
                "fuse_fx: the operator {} in '{}' has no module for a fuser method", node.op,
                node.scope);
    relu->train(model_.training());
    return relu;
  }

  // What was fused into another module is no longer there, unless it is called elsewhere too.
  void drop(const std::string& path) {
    const auto& nodes = model_.graph().nodes();
    auto calls_it = [&](const Node& node) {
      return node.kind == NodeKind::module && node.scope == path;
    };
    if (std::any_of(nodes.begin(), nodes.end(), calls_it)) return;
    size_t dot = path.rfind('.');
    Module* parent =
        dot == std::string::npos ? &model_ : model_.submodule(path.substr(0, dot)).get();
    parent->remove_child(dot == std::string::npos ? path : path.substr(dot + 1));
  }

  GraphModule& model_;
  const Graph g_;
  std::vector<int> uses_;
  std::vector<std::vector<NodeId>> users_;
  std::map<const Module*, int> calls_;
  std::vector<const BackendPatternConfig*> patterns_;
  std::vector<std::string> absorbed_;
};

}  // namespace

void fuse_patterns(GraphModule& model, const BackendConfig& backend) {
  Fuser(model, backend).run();
}

std::shared_ptr<GraphModule> fuse_fx(const nn::ModulePtr& model,
                                     const std::vector<Tensor>& example_inputs,
                                     const BackendConfig& backend,
                                     const PrepareCustomConfig& custom) {
  auto traced = trace_copy(model, {}, custom, backend, example_inputs).model;
  fuse_patterns(*traced, backend);
  return traced;
}

}  // namespace octet::quant
