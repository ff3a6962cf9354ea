#include "octet/quant/algorithms/input_weight_equalization.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/activation.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/visit_impl.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

namespace {

constexpr const char* kEqualizationPrefix = "input_equalization_observer_";

[[maybe_unused]] const bool g_input_weight_equalization_registered = [] {
  nn::register_module(typeid(InputEqualizationObserver), [](const Attrs& config) -> nn::ModulePtr {
    Attrs options = config;
    options.erase("label");
    return nn::make<InputEqualizationObserver>(
        options_from(options), config.has("label") ? config.get_string("label") : std::string());
  });
  return true;
}();

// The weight of a call, (out, in / groups, ...), where it can be changed.
struct Weights {
  Tensor *weight = nullptr, *bias = nullptr;  // bias: null or undefined without one
  int64_t groups = 1;
  bool linear = false;
  std::string observer;  // operators: the path of the weight's observer

  int64_t rows() const { return weight->size(0); }
  int64_t columns() const { return weight->size(1); }
  int64_t inputs() const { return columns() * groups; }

  // fn(output channel, input channel, weight)
  template <typename Fn>
  void for_each(std::vector<float>& w, Fn&& fn) const {
    const int64_t inner = weight->numel() / (rows() * columns());
    float* p = w.data();
    for (int64_t r = 0; r < rows(); ++r)
      for (int64_t c = 0; c < columns(); ++c)
        for (int64_t i = 0; i < inner; ++i) fn(r, r / (rows() / groups) * columns() + c, *p++);
  }
};

// The dimension of the input, or of the result, that holds channels.
int64_t channel_axis(const Weights& w, const TensorType& type) {
  return w.linear ? type.dim() - 1 : 1;
}

std::optional<Weights> weights_of(nn::Module& layer) {
  std::optional<Weights> result;
  visit_layer(layer, [&](auto& typed) {
    using Layer = std::decay_t<decltype(typed)>;
    if constexpr (!is_conv<Layer>)
      result = Weights{&typed.weight, &typed.bias, 1, true};
    else if constexpr (!Layer::is_transposed)
      result = Weights{&typed.weight, &typed.bias, typed.options.groups};
  });
  return result;
}

// The same for a call of a module or operator; nullopt and the reason if it has none that may be
// scaled.
std::optional<Weights> weights_of(GraphModule& model, const Node& node, std::string& why) {
  const Graph& g = model.graph();
  if (nn::Module* module = module_of(model, node)) {
    const int64_t calls = std::count_if(g.nodes().begin(), g.nodes().end(), [&](const Node& n) {
      return module_of(model, n) == module;
    });
    nn::Module* layer = module;
    if (auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(module);
        fused && fused->size() == 2 && dynamic_cast<nn::ReLU*>(&(*fused)[1]))
      layer = &(*fused)[0];
    auto result = weights_of(*layer);
    if (!result || !nn::is_own_class(*layer))
      why = fmt::format("{} cannot be equalized", module->type_name());
    else if (module->has_submodule("weight_fake_quant"))
      why = "it is being trained: equalize the float model, or after training";
    else if (calls > 1)
      why = "it is called in several places";
    return why.empty() ? result : std::nullopt;
  }
  static const std::set<std::string> ops{"linear", "conv1d", "conv2d", "conv3d"};
  if (node.kind != NodeKind::call || !ops.count(node.op)) {
    why = fmt::format("{} cannot be equalized", node.op);
    return std::nullopt;
  }
  Weights w{.linear = node.op == "linear"};
  if (!w.linear) w.groups = node.attrs.get_int("groups");
  if (node.attrs.has("activation") && node.attrs.get_string("activation") != "none" &&
      node.attrs.get_string("activation") != "relu")
    why = "it has another activation than relu";
  auto parameter = [&](ValueId v) -> Tensor* {
    if (g.users(v).size() > 1 || !g.is_constant(v)) return nullptr;
    for (auto& [name, tensor] : model.own_tensors())
      if (name == g.value(v).name) return tensor;
    return nullptr;
  };
  ValueId weight = node.inputs.at(1);
  if (const Node& observer = g.producer(weight);
      is_observer_call(model, observer) && g.users(weight).size() == 1) {
    w.observer = observer.scope;
    weight = observer.inputs[0];
  }
  w.weight = parameter(weight);
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  if (bias != kNone) w.bias = parameter(bias);
  if (!w.weight || (bias != kNone && !w.bias))
    why = "its weight or bias is no parameter, or has other users";
  return why.empty() ? std::optional(w) : std::nullopt;
}

// A new tensor: others may share the old one.
void store(Tensor& parameter, const std::vector<float>& values) {
  const bool trained = autograd::requires_grad(parameter);
  parameter = Tensor::from(values, parameter.shape());
  if (trained) autograd::set_requires_grad(parameter, true);
}

WeightColumns columns_of(const Weights& w) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const auto n = static_cast<size_t>(w.inputs());
  WeightColumns result{std::vector<float>(n, inf), std::vector<float>(n, -inf)};
  std::vector<float> values = w.weight->detach().to_vector<float>();
  w.for_each(values, [&](int64_t, int64_t in, float v) {
    auto c = static_cast<size_t>(in);
    result.min[c] = std::min(result.min[c], v);
    result.max[c] = std::max(result.max[c], v);
  });
  return result;
}

std::string name_of(const Graph& g, const Node& node) { return g.value(node.outputs[0]).name; }
std::string path_of(const Graph& g, const Node& node) {
  return node.kind == NodeKind::module ? node.scope : name_of(g, node);
}

InputEqualizationObserver* watcher(const GraphModule& model, const Node& node) {
  return dynamic_cast<InputEqualizationObserver*>(module_of(model, node));
}

// The calls that use a value, without observers beside the graph, whose result nobody takes.
std::vector<NodeId> true_users(const Graph& g, ValueId v) {
  std::vector<NodeId> users;
  for (NodeId user : g.users(v)) {
    const Node& node = g.node(user);
    bool taken = node.kind != NodeKind::module;
    for (ValueId y : node.outputs)
      taken =
          taken || !g.users(y).empty() || std::count(g.outputs().begin(), g.outputs().end(), y) > 0;
    if (taken) users.push_back(user);
  }
  return users;
}

bool only_user(const Graph& g, ValueId v, NodeId user) {
  return true_users(g, v) == std::vector<NodeId>{user} &&
         std::count(g.outputs().begin(), g.outputs().end(), v) == 0;
}

// -- convert --------------------------------------------------------------------------------------

class InputWeightEqualizer {
 public:
  explicit InputWeightEqualizer(const ObservedGraphModule& prepared)
      : prepared_(prepared),
        root_(std::static_pointer_cast<ObservedGraphModule>(prepared.clone())),
        g_(root_->graph()),
        decisions_(prepared.decisions()) {}

  std::shared_ptr<ObservedGraphModule> run(EqualizationReport& report) {
    for (const Node& node : g_.nodes())
      if (auto* seen = watcher(*root_, node)) choose(*seen);
    OCTET_CHECK(!layers_.empty(), invalid_argument,
                "convert_equalization_fx: the model has no observers of inputs' channels: call "
                "prepare_equalization_fx before calibration");
    for (auto& [id, layer] : layers_) place(id, layer);
    for (auto& [id, layer] : layers_) scale_weights(layer);
    graph::Rewriter rewriter(g_);
    Graph equalized =
        rewriter.run([&](graph::Rewriter& r, const Node& node) { return visit(r, node); });
    for (const auto& [id, layer] : layers_)
      report.entries.push_back({path_of(g_, g_.node(id)), layer.scale,
                                layer.before ? path_of(g_, g_.node(layer.producer)) : ""});
    ObservedGraphModule::Preparation made = prepared_.preparation();
    made.decisions = std::move(decisions_);
    return nn::make<ObservedGraphModule>(std::move(equalized), *root_, std::move(made));
  }

 private:
  struct Layer {
    Weights weights;
    std::vector<float> scale;
    float min = 0, max = 0;  // of the scaled input
    // The observer of the input, if there is one, between these values; otherwise they are one.
    NodeId observer = -1;
    ValueId plain = kNone, observed = kNone;
    // The layer that makes the input, if it takes the scale.
    std::optional<Weights> before = {};
    NodeId producer = -1;
  };

  void choose(const InputEqualizationObserver& seen) {
    const auto id = g_.value(*g_.find(seen.label())).producer;
    const Node& node = g_.node(id);
    OCTET_CHECK(!seen.empty(), not_calibrated,
                "convert_equalization_fx: the input of '{}' was not seen: run the prepared model "
                "on calibration "
                "data first",
                path_of(g_, node));
    std::string why;
    auto weights = weights_of(*root_, node, why);
    OCTET_CHECK(weights, invalid_argument, "convert_equalization_fx: '{}': {}", path_of(g_, node),
                why);
    Layer layer{.weights = *weights};
    const WeightColumns columns = columns_of(*weights);
    const std::vector<float> low = seen.min_val().to_vector<float>(),
                             high = seen.max_val().to_vector<float>();
    OCTET_CHECK(low.size() == columns.min.size(), invalid_argument,
                "convert_equalization_fx: '{}' takes {} channels, its input had {}",
                path_of(g_, node), columns.min.size(), low.size());
    layer.min = std::numeric_limits<float>::infinity(), layer.max = -layer.min;
    for (size_t c = 0; c < low.size(); ++c) {
      float s = std::sqrt((columns.max[c] - columns.min[c]) / (high[c] - low[c]));
      if (s == 0 || !std::isfinite(s)) s = 1;
      layer.scale.push_back(s);
      layer.min = std::min(layer.min, low[c] * s);
      layer.max = std::max(layer.max, high[c] * s);
    }
    layers_.emplace(id, std::move(layer));
  }

  // Which layer before takes the scale, if one does.
  void place(NodeId id, Layer& layer) {
    layer.plain = layer.observed = g_.node(id).inputs[0];
    const Node& in = g_.producer(layer.observed);
    if (is_observer_call(*root_, in)) {
      layer.observer = g_.value(layer.observed).producer;
      layer.plain = in.inputs[0];
      if (calls(in.scope) > 1 || !only_user(g_, layer.plain, layer.observer)) return;
    }
    if (!only_user(g_, layer.observed, id)) return;
    const Node& producer = g_.producer(layer.plain);
    std::string why;
    if (producer.kind != NodeKind::module && producer.kind != NodeKind::call) return;
    auto before = weights_of(*root_, producer, why);
    if (!before || before->linear != layer.weights.linear ||
        before->rows() != layer.weights.inputs())
      return;
    layer.before = before;
    layer.producer = g_.value(layer.plain).producer;
  }

  int64_t calls(const std::string& path) const {
    return std::count_if(g_.nodes().begin(), g_.nodes().end(), [&](const Node& n) {
      return n.kind == NodeKind::module && n.scope == path;
    });
  }

  void scale_weights(const Layer& layer) {
    change(layer.weights,
           [&](int64_t, int64_t in, float& w) { w *= 1 / layer.scale[static_cast<size_t>(in)]; });
    if (!layer.before) return;
    change(*layer.before,
           [&](int64_t out, int64_t, float& w) { w *= layer.scale[static_cast<size_t>(out)]; });
    if (!layer.before->bias || !layer.before->bias->defined()) return;
    std::vector<float> bias = layer.before->bias->detach().to_vector<float>();
    for (size_t c = 0; c < bias.size(); ++c) bias[c] *= layer.scale[c];
    store(*layer.before->bias, bias);
  }

  template <typename Fn>
  void change(const Weights& w, Fn&& fn) {
    std::vector<float> values = w.weight->detach().to_vector<float>();
    w.for_each(values, fn);
    store(*w.weight, values);
    // An operator's weight was observed as it was; convert shows it to an observer that has seen
    // nothing.
    if (!w.observer.empty()) root_->submodule(w.observer)->as<Observer>().reset();
  }

  // An observer like that at `path`, of the scaled range.
  nn::ModulePtr scaled_observer(const std::string& path, const Layer& layer) const {
    nn::ModulePtr module = root_->submodule(path);
    if (!chooses_qparams(*module)) return module->clone();
    const ObserverOptions& o = module->as<Observer>().options();
    auto observer = nn::make<MinMaxObserver>(ObserverOptions{.dtype = o.dtype,
                                                             .qscheme = o.qscheme,
                                                             .quant_min = o.quant_min,
                                                             .quant_max = o.quant_max,
                                                             .reduce_range = o.reduce_range,
                                                             .eps = o.eps},
                                             module->as<Observer>().label());
    observer->set_extra_state(
        {{"min_val", Tensor::scalar(layer.min)}, {"max_val", Tensor::scalar(layer.max)}});
    observer->train(module->training());
    return observer;
  }

  bool visit(graph::Rewriter& r, const Node& node) {
    const auto id = static_cast<NodeId>(&node - g_.nodes().data());
    if (watcher(*root_, node)) return true;  // it has said what it was asked
    if (node.kind == NodeKind::constant) {   // parameters as they are now
      for (auto& [name, tensor] : root_->own_tensors())
        if (name == name_of(g_, node)) {
          r.map(node.outputs[0], r.out().add_constant(name, tensor->detach()));
          return true;
        }
      return false;
    }
    for (const auto& [user, layer] : layers_) {
      if (layer.observer != id) continue;
      if (layer.before) {
        put(r, node, node.scope, scaled_observer(node.scope, layer), r(layer.plain));
        return true;
      }
      // What only layers behind a mul used is observed there.
      auto users = true_users(g_, layer.observed);
      bool stays = std::count(g_.outputs().begin(), g_.outputs().end(), layer.observed) > 0;
      for (NodeId u : users) stays = stays || !layers_.count(u);
      if (!stays) {
        r.map(layer.observed, r(layer.plain));  // for observers beside the graph
        return true;
      }
    }
    auto it = layers_.find(id);
    if (it == layers_.end() || it->second.before) return false;
    multiply(r, node, it->second);
    return true;
  }

  // A call of an observer in place of `node`.
  void put(graph::Rewriter& r, const Node& node, const std::string& path,
           const nn::ModulePtr& module, ValueId x) {
    root_->put_module(path, module);
    r.map(node.outputs[0], r.out().add_module(name_of(g_, node), path, module->type_name(), {x},
                                              {r.out().type(x)})[0]);
  }

  void multiply(graph::Rewriter& r, const Node& node, const Layer& layer) {
    const TensorType& type = g_.type(layer.plain);
    Shape shape(static_cast<size_t>(type.dim()), 1);
    shape[static_cast<size_t>(channel_axis(layer.weights, type))] = layer.weights.inputs();
    const std::string name = name_of(g_, node) + ".input";
    ValueId scale =
        r.out().add_constant(name + "_equalization_scale", Tensor::from(layer.scale, shape));
    ValueId x = r.out().add_call(name + "_equalized", "mul", {r(layer.plain), scale}, {},
                                 std::nullopt, node.scope);
    decisions_[r.out().value(x).name].reason =
        "it multiplies by the scale of input-weight equalization";
    if (layer.observer >= 0) {
      const std::string path =
          fmt::format("equalized_activation_post_process_{}", next_observer_++);
      nn::ModulePtr observer = scaled_observer(g_.node(layer.observer).scope, layer);
      root_->put_module(path, observer);
      x = r.out().add_module(path, path, observer->type_name(), {x}, {r.out().type(x)})[0];
    }
    // The call itself, on the new operand.
    const ValueId before = r(layer.observed);
    r.map(layer.observed, x);
    r.copy(node);
    r.map(layer.observed, before);
  }

  const ObservedGraphModule& prepared_;
  std::shared_ptr<ObservedGraphModule> root_;
  const Graph g_;
  std::map<std::string, NodeDecision> decisions_;
  std::map<NodeId, Layer> layers_;
  int next_observer_ = 0;
};

}  // namespace

WeightColumns weight_columns(nn::Module& layer) {
  auto weights = weights_of(layer);
  OCTET_CHECK(weights, invalid_argument,
              "weight_columns: {}; expected Linear, Conv1d, Conv2d or Conv3d", layer.type_name());
  return columns_of(*weights);
}

QConfig default_equalization_qconfig() {
  return {ObserverFactory("PerChannelMinMaxObserver"),
          ObserverFactory("PerChannelMinMaxObserver").with_dtype(DType::qint8)};
}

std::shared_ptr<ObservedGraphModule> prepare_equalization_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, const QConfigMapping& which) {
  const char* who = "prepare_equalization_fx";
  OCTET_CHECK(prepared, invalid_argument, "{}: no model", who);
  auto model = std::static_pointer_cast<ObservedGraphModule>(prepared->clone());
  const Graph g = model->graph();
  const auto targets = targets_of(*model);
  which.require_matched(targets);
  std::vector<std::string> reasons;
  std::map<NodeId, int64_t> axes;  // of the layers to be equalized
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    const Node& node = g.nodes()[n];
    OCTET_CHECK(!watcher(*model, node), invalid_argument,
                "{}: the model has such observers already", who);
    if ((node.kind != NodeKind::call && node.kind != NodeKind::module) ||
        is_observer_call(*model, node) || !which.find(targets[n]))
      continue;
    std::string why;
    auto it = model->decisions().find(name_of(g, node));
    const NodeDecision* d = it == model->decisions().end() ? nullptr : &it->second;
    auto weights = weights_of(*model, node, why);
    if (weights) {
      const ValueId x = node.inputs[0];
      const Node* source = &g.producer(x);
      const Node* observer = is_observer_call(*model, *source) ? source : nullptr;
      if (observer) source = &g.producer(observer->inputs[0]);
      auto made_by = model->decisions().find(name_of(g, *source));
      const auto& codes = model->preparation().input_quantized_indexes;
      const auto index =
          std::find(g.inputs().begin(), g.inputs().end(), source->outputs[0]) - g.inputs().begin();
      if (!d || !d->mode || d->custom || d->standalone)
        why = "it stays float";
      else if (g.type(x).dtype != DType::float32)
        why = "its input is not float32";
      else if (std::find(codes.begin(), codes.end(), static_cast<int>(index)) != codes.end() ||
               (made_by != model->decisions().end() &&
                (made_by->second.standalone || made_by->second.custom)))
        why = "its input comes as codes";
      else if (observer &&
               (!dynamic_cast<Observer*>(module_of(*model, *observer)) ||
                is_per_channel(module_of(*model, *observer)->as<Observer>().options().qscheme)))
        why = "its input is fake-quantized: equalize before prepare_qat_fx";
    }
    if (why.empty())
      axes[static_cast<NodeId>(n)] = channel_axis(*weights, g.type(node.inputs[0]));
    else
      reasons.push_back(fmt::format("{}: {}", path_of(g, node), why));
  }
  OCTET_CHECK(
      !axes.empty(), invalid_argument, "{}: there is nothing to equalize: {}", who,
      reasons.empty() ? "the mapping names nothing" : fmt::format("{}", fmt::join(reasons, "; ")));
  int next = 0;
  graph::Rewriter rewriter(g);
  Graph watched = rewriter.run([&](graph::Rewriter& r, const Node& node) {
    auto it = axes.find(static_cast<NodeId>(&node - g.nodes().data()));
    if (it == axes.end()) return false;
    const std::string path = kEqualizationPrefix + std::to_string(next++);
    ObserverOptions options = InputEqualizationObserver::default_options();
    options.ch_axis = it->second;
    model->put_module(path, nn::make<InputEqualizationObserver>(options, name_of(g, node)));
    const ValueId x = r(node.inputs[0]);
    r.out().add_module(path, path, "InputEqualizationObserver", {x},
                       {r.out().type(x)});  // beside the graph: nothing takes its result
    return false;
  });
  model->set_graph(std::move(watched), false);
  return model;
}

std::shared_ptr<ObservedGraphModule> convert_equalization_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, EqualizationReport* report) {
  OCTET_CHECK(prepared, invalid_argument, "convert_equalization_fx: no model");
  EqualizationReport ignored;
  return InputWeightEqualizer(*prepared).run(report ? *report : ignored);
}

}  // namespace octet::quant
