#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/nn/activation.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"
#include "octet/quant/workflow/weight_scales_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using nn::Module;

namespace {

// -- to the reference graph -----------------------------------------------------------------------

class Referencer {
 public:
  Referencer(const ObservedGraphModule& prepared, const ConvertCustomConfig& custom,
             const BackendConfig& backend, ConversionReport& report)
      : source_(prepared),
        g_(prepared.with_values(prepared.graph())),
        custom_(custom),
        backend_(backend),
        report_(report),
        root_(std::static_pointer_cast<GraphModule>(prepared.clone())),
        results_(results_that_are_float(prepared)) {
    root_->eval();
  }

  std::shared_ptr<GraphModule> run() {
    choose_qparams();
    graph::Rewriter rewriter(g_);
    Graph reference =
        rewriter.run([&](graph::Rewriter& r, const Node& node) { return visit(r, node); });
    std::vector<ValueId> outputs = reference.outputs();
    for (size_t i = 0; i < outputs.size(); ++i) {
      const bool stays = is_in(made().output_quantized_indexes, i);
      const Node& producer = reference.producer(outputs[i]);
      if (stays && producer.kind == NodeKind::call && producer.op == "dequantize")
        outputs[i] = producer.inputs[0];
      else if (!stays && reference.type(outputs[i]).is_quantized())
        outputs[i] = reference.add_call(reference.value(outputs[i]).name + ".dequantized",
                                        "dequantize", {outputs[i]});
    }
    reference.set_outputs(std::move(outputs));
    // Where nothing becomes codes, as in dynamic and weight-only quantization, nobody asks why the
    // rest does not.
    bool any = std::any_of(reference.nodes().begin(), reference.nodes().end(),
                           [](const Node& n) { return n.op == "quantize"; });
    for (size_t n = 0; !any && n < reference.nodes().size(); ++n) {
      Node& node = reference.node(static_cast<graph::NodeId>(n));
      if (node.stays_float) node.note.clear();
      node.stays_float = false;
    }
    warn_of_lost_ranges();
    reference = raise_weight_scales(graph::remove_dead(reference), report_);
    auto result = nn::make<GraphModule>(std::move(reference), *root_);
    for (auto& [path, module] : result->named_modules()) module->qconfig.reset();
    if (!unset_.empty())
      result->await_state(fmt::format(
          "convert_fx was told for_loading, so scale and zero_point of {} are unset: call "
          "load_state_dict first",
          fmt::join(unset_, ", ")));
    return result;
  }

 private:
  const ObservedGraphModule::Preparation& made() const { return source_.preparation(); }
  static bool is_in(const std::vector<int>& indexes, size_t i) {
    return std::find(indexes.begin(), indexes.end(), static_cast<int>(i)) != indexes.end();
  }

  // The observed values that are results of the graph as numbers.
  static std::set<ValueId> results_that_are_float(const ObservedGraphModule& prepared) {
    const Graph& g = prepared.graph();
    std::set<ValueId> results;
    for (size_t i = 0; i < g.outputs().size(); ++i) {
      if (is_in(prepared.preparation().output_quantized_indexes, i)) continue;
      const Node& producer = g.producer(g.outputs()[i]);
      results.insert(is_observer_call(prepared, producer) ? producer.inputs[0] : g.outputs()[i]);
    }
    return results;
  }

  void warn_of_lost_ranges() const {
    const ObservedGraphModule::Watched w = source_.watched();
    const auto qtype_of = [&](ValueId v) -> std::optional<ops::QType> {
      auto it = qparams_.find(w.observer[static_cast<size_t>(v)]);
      return it == qparams_.end() || it->second.quantizer->is_per_channel()
                 ? std::nullopt
                 : std::optional(qtype(it->second));
    };
    for (std::string& line : lost_ranges(w.graph, source_.ranges(), qtype_of))
      report_.warnings.push_back(std::move(line));
  }

  // Asks every observer. Error naming all that saw no data.
  void choose_qparams() {
    std::vector<std::string> missing;
    int64_t count = 0;
    std::set<std::string> asked;
    for (const Node& node : g_.nodes()) {
      if (!is_observer_call(source_, node) || !asked.insert(node.scope).second) continue;
      Module& module = *root_->submodule(node.scope);  // a copy: it may be shown something
      if (!chooses_qparams(module)) continue;
      ValueId x = node.inputs[0];
      if (!g_.is_constant(x)) ++count;
      if (g_.is_constant(x) && saw_nothing(module)) {
        show(module, g_.constant(x));  // a weight, as it is now
      } else if (custom_.for_loading && saw_nothing(module)) {
        unset_.push_back("%" + g_.value(x).name);
        // no two have the same qparams
        show(module, Tensor::from<float>({0, static_cast<float>(unset_.size())}));
      }
      try {
        qparams_[node.scope] = octet::quant::qparams_of(module);
        for (const std::string& w : qparams_[node.scope].warnings) report_.warnings.push_back(w);
      } catch (const Error& e) {
        if (e.code() != ErrorCode::not_calibrated) throw;
        missing.push_back(fmt::format("{} of %{}", node.scope, g_.value(x).name));
      }
    }
    OCTET_CHECK(missing.empty(), not_calibrated,
                "convert_fx: {} of {} observers saw no data: {}: run the prepared model on "
                "calibration data "
                "first; to load a state dict instead: {{.for_loading = true}}",
                missing.size(), count, fmt::join(missing, ", "));
  }

  // Of an observer, or of a fake-quantize module, which has one.
  static bool saw_nothing(Module& module) {
    auto* fake_quantize = dynamic_cast<FakeQuantizeBase*>(&module);
    return fake_quantize ? fake_quantize->observer().empty() && !has_qparams(*fake_quantize)
                         : module.as<Observer>().empty();
  }
  static bool has_qparams(const FakeQuantizeBase& module) {
    try {
      module.calculate_qparams();
      return true;
    } catch (const Error&) {
      return false;
    }
  }
  static void show(Module& module, const Tensor& x) {
    auto* fake_quantize = dynamic_cast<FakeQuantizeBase*>(&module);
    if (!fake_quantize) return module.as<Observer>().observe(x);
    fake_quantize->enable_observer();
    fake_quantize->forward(x);
  }

  const NodeDecision* decision(const Node& node) const {
    auto it = source_.decisions().find(g_.value(node.outputs[0]).name);
    return it == source_.decisions().end() ? nullptr : &it->second;
  }

  // What the observer behind this value chose; null if there is none.
  const QParams* qparams_behind(ValueId v) const {
    for (graph::NodeId user : g_.users(v)) {
      const Node& node = g_.node(user);
      if (!is_observer_call(source_, node)) continue;
      if (auto it = qparams_.find(node.scope); it != qparams_.end()) return &it->second;
    }
    return nullptr;
  }

  static ops::QType qtype(const QParams& q) { return {q.dtype, q.quantizer}; }

  bool visit(graph::Rewriter& r, const Node& node) {
    // made where it is needed, as float or as codes
    if (node.kind == NodeKind::constant) return true;
    if (node.kind == NodeKind::input) return input(r, node);
    if (is_observer_call(source_, node)) return observer(r, node);
    const NodeDecision* d = decision(node);
    bool quantized = d && d->mode;
    const std::string label = node_name(g_, node);
    report_.entries.push_back({label, node.op, quantized, quantized ? "" : d ? d->reason : ""});
    if (!quantized) {
      emit(r, node, node.op, floats(r, node), g_.value(node.outputs[0]).name);
      if (d && !d->reason.empty()) {
        Node& made = r.out().node(r.out().value(r(node.outputs[0])).producer);
        made.note = d->reason;
        made.stays_float = true;
      }
      return true;
    }
    if (d->custom || d->standalone) {
      unit(r, node, *d);
      return true;
    }
    std::string op = node.op;
    if (node.kind == NodeKind::module) op = swap(node, *d)->type_name();
    if (*d->mode != QuantMode::statically && node.kind == NodeKind::call) {
      weights_only(r, node, *d);
      return true;
    }
    // The float result of what will be codes stands behind them: these have its name.
    bool codes = *d->mode == QuantMode::statically && qparams_behind(node.outputs[0]);
    const std::vector<ValueId> operands = floats(r, node);
    if (node.kind == NodeKind::module && codes && !operands.empty() && operands[0] != kNone) {
      const Node& x = r.out().producer(operands[0]);
      if (x.kind == NodeKind::call && x.op == "dequantize") {
        const double x_scale = r.out().type(x.inputs[0]).quantizer->scale();
        raise_weight_scales(*root_->submodule(node.scope), x_scale, label, report_);
      }
    }
    emit(r, node, op, operands, g_.value(node.outputs[0]).name + (codes ? ".float" : ""));
    return true;
  }

  // Inputs that are codes have their type from the observer that watched them.
  bool input(graph::Rewriter& r, const Node& node) {
    auto index = static_cast<int>(
        std::find(g_.inputs().begin(), g_.inputs().end(), node.outputs[0]) - g_.inputs().begin());
    if (!is_in(made().input_quantized_indexes, static_cast<size_t>(index))) return false;
    const QParams* q = qparams_behind(node.outputs[0]);
    OCTET_CHECK(q, internal, "convert_fx: input {} has no observer", index);
    TensorType type = g_.type(node.outputs[0]);
    r.map(node.outputs[0], r.out().add_input(g_.value(node.outputs[0]).name,
                                             TensorType(q->dtype, type.dims, q->quantizer)));
    return true;
  }

  bool observer(graph::Rewriter& r, const Node& node) {
    ValueId x = node.inputs[0], y = node.outputs[0], now = g_.is_constant(x) ? kNone : r(x);
    auto it = qparams_.find(node.scope);
    // it chooses nothing: a placeholder for what a dynamic layer does itself
    if (it == qparams_.end()) {
      r.map(y, value(r, x));
      return true;
    }
    // Of a result of the graph the numbers have the name, of other values the codes.
    const std::string& name = g_.value(x).name;
    const bool is_result = results_.count(x) && !r.out().find(name);
    const std::string of_codes = is_result || r.out().find(name) ? name + ".quantized" : name;
    ValueId codes = now;
    if (g_.is_constant(x))
      codes = r.out().add_constant(name, codes_of(x, node, it->second));
    else if (!r.out().type(now).is_quantized())
      codes = r.out().add_call(of_codes, "quantize", {now}, {}, qtype(it->second));
    r.map(y, r.out().add_call(is_result ? name : name + ".dequantized", "dequantize", {codes}));
    return true;
  }

  // The codes of a constant. Those of a linear layer's weight that is used with float arithmetic
  // are kept two to a byte if they are of 4 bits.
  Tensor codes_of(ValueId constant, const Node& observer, const QParams& q) const {
    Tensor codes = quantize_to(g_.constant(constant), q);
    const auto users = g_.users(observer.outputs[0]);
    const bool in_float = std::all_of(users.begin(), users.end(), [&](graph::NodeId user) {
      const NodeDecision* d = decision(g_.node(user));
      return g_.node(user).op == "linear" && d && d->mode && *d->mode != QuantMode::statically;
    });
    if (!in_float) return codes;
    for (const auto& [wide, four] :
         {std::pair{DType::qint8, DType::qint4x2}, std::pair{DType::quint8, DType::quint4x2}})
      if (codes.dtype() == wide && q.quant_min >= qmin(four) && q.quant_max <= qmax(four))
        return make_quantized(codes.int_repr(), q.quantizer, four);
    return codes;
  }

  // The value in the new graph.
  ValueId value(graph::Rewriter& r, ValueId v) {
    if (v != kNone && g_.is_constant(v) && !r.mapped(v))
      r.map(v, r.out().add_constant(g_.value(v).name, g_.constant(v)));
    return r(v);
  }

  // Operands as float.
  std::vector<ValueId> floats(graph::Rewriter& r, const Node& node) {
    const NodeDecision* d = decision(node);
    const bool at_run_time = d && d->mode && *d->mode != QuantMode::statically;
    std::vector<ValueId> operands;
    for (ValueId v : node.inputs)
      operands.push_back(v == kNone ? kNone
                                    : as_float(r, value(r, at_run_time ? unobserved(v) : v)));
    return operands;
  }

  // What a layer reads that quantizes at run time, or not at all: the value itself and not what
  // training made of it, whose range is that of the last batch. Results of static layers are codes
  // all the same.
  ValueId unobserved(ValueId v) const {
    const Node& node = g_.producer(v);
    if (!is_observer_call(source_, node) || g_.is_constant(node.inputs[0])) return v;
    const NodeDecision* d = decision(g_.producer(node.inputs[0]));
    return d && d->mode == QuantMode::statically ? v : node.inputs[0];
  }
  ValueId as_float(graph::Rewriter& r, ValueId v) {
    if (!r.out().type(v).is_quantized()) return v;
    return r.out().add_call(r.out().value(v).name + ".dequantized", "dequantize", {v});
  }

  void emit(graph::Rewriter& r, const Node& node, const std::string& op,
            const std::vector<ValueId>& operands, const std::string& name) {
    std::vector<ValueId> results;
    if (node.kind == NodeKind::module) {
      std::vector<TensorType> types;
      for (ValueId v : node.outputs) types.push_back(g_.type(v));
      results = r.out().add_module(name, node.scope, op, operands, types);
    } else {
      results = r.out().add_calls(name, op, operands, node.attrs, std::nullopt, node.scope);
    }
    for (size_t i = 0; i < results.size(); ++i) {
      r.map(node.outputs[i], results[i]);
      const std::string own =
          g_.value(node.outputs[i]).name + (qparams_behind(node.outputs[i]) ? ".float" : "");
      if (i > 0 && !r.out().find(own)) r.out().rename(results[i], own);
    }
    if (const NodeDecision* d = decision(node); d && d->joins_next)
      r.out().node(r.out().value(results[0]).producer).note =
          "one table of codes with the next operator";
  }

  // The reference, dynamic or weight-only form of a layer with weights; the module itself if it has
  // none.
  nn::ModulePtr swap(const Node& node, const NodeDecision& d) {
    nn::ModulePtr module = root_->submodule(node.scope);
    if (done_.count(module.get())) return module;
    const BackendPatternConfig* config =
        backend_.find_module(std::type_index(module->class_type()));
    nn::ModulePtr made;
    if (config && *d.mode == QuantMode::statically) {
      if (config->reference_quantized_module) made = (*config->reference_quantized_module)(*module);
    } else if (config) {
      if (const Replacement* replacement = config->quantized_module(*d.mode))
        made = (*replacement)(*module);
      else if (config->reference_quantized_module)
        made = (*config->reference_quantized_module)(*module);
    }
    if (!made) return module;
    made->take_hooks(*module, *module);
    made->eval();
    kept_.push_back(module);
    root_->put_module(node.scope, made);
    done_.insert(made.get());
    return made;
  }

  // Dynamic and weight-only operators: the form of the same name on the quantized weight.
  void weights_only(graph::Rewriter& r, const Node& node, const NodeDecision& d) {
    const BackendPatternConfig* config = backend_.find_op(node.op);
    const LoweredOp* lowered = config ? config->quantized_op(*d.mode) : nullptr;
    std::vector<ValueId> operands;
    const bool half =
        lowered && d.qconfig->weight && d.qconfig->weight.options().dtype == DType::float16;
    for (ValueId v : node.inputs) {
      const Node* observer = v == kNone ? nullptr : &g_.producer(v);
      // the weight
      if (half && observer && is_observer_call(source_, *observer) &&
          g_.is_constant(observer->inputs[0])) {
        ValueId w = observer->inputs[0];
        std::string name = g_.value(w).name;
        if (r.out().find(name)) name += ".float16";
        operands.push_back(r.out().add_constant(name, g_.constant(w).to(DType::float16)));
        continue;
      }
      ValueId now = v == kNone ? kNone : value(r, unobserved(v));
      const Node* producer = now == kNone ? nullptr : &r.out().producer(now);
      bool weight = lowered && producer && producer->kind == NodeKind::call &&
                    producer->op == "dequantize" && r.out().is_constant(producer->inputs[0]);
      operands.push_back(weight ? producer->inputs[0] : now);
    }
    Attrs attrs = node.attrs;
    if (lowered)
      for (const auto& [key, value] : lowered->attrs) attrs.set(key, value);
    const auto results =
        r.out().add_calls(g_.value(node.outputs[0]).name, lowered ? lowered->op : node.op, operands,
                          attrs, std::nullopt, node.scope);
    for (size_t i = 0; i < results.size(); ++i) {
      r.map(node.outputs[i], results[i]);
      const std::string& own = g_.value(node.outputs[i]).name;
      if (i > 0 && !r.out().find(own)) r.out().rename(results[i], own);
    }
  }

  // Custom and standalone modules take and give codes; they say what types that makes.
  void unit(graph::Rewriter& r, const Node& node, const NodeDecision& d) {
    nn::ModulePtr module = root_->submodule(node.scope);
    if (!done_.count(module.get())) {
      nn::ModulePtr made = d.standalone ? standalone(module) : custom(node, module, d);
      kept_.push_back(module);
      root_->put_module(node.scope, made);
      module = made;
      done_.insert(module.get());
    }
    std::vector<int> takes_codes;
    if (auto* inner = dynamic_cast<GraphModule*>(module.get()))
      for (size_t i = 0; i < inner->graph().inputs().size(); ++i)
        if (inner->graph().type(inner->graph().inputs()[i]).is_quantized())
          takes_codes.push_back(static_cast<int>(i));
    std::vector<ValueId> operands;
    std::vector<std::optional<TensorType>> types;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (v != kNone) v = value(r, d.mode == QuantMode::statically ? v : unobserved(v));
      bool codes = d.standalone
                       ? std::count(takes_codes.begin(), takes_codes.end(), static_cast<int>(i)) > 0
                       : *d.mode == QuantMode::statically;
      if (v != kNone && codes) {
        const Node& producer = r.out().producer(v);
        if (producer.kind == NodeKind::call && producer.op == "dequantize") v = producer.inputs[0];
      }
      operands.push_back(v);
      types.push_back(v == kNone ? std::nullopt : std::optional(r.out().type(v)));
    }
    std::vector<TensorType> results = graph::infer_types(*module, types);
    std::vector<ValueId> ids = r.out().add_module(g_.value(node.outputs[0]).name, node.scope,
                                                  module->type_name(), operands, results);
    OCTET_CHECK(ids.size() >= node.outputs.size(), invalid_argument,
                "convert_fx: '{}' ({}) gives {} results; its float form gave {}", node.scope,
                module->type_name(), ids.size(), node.outputs.size());
    for (size_t i = 0; i < node.outputs.size(); ++i) r.map(node.outputs[i], ids[i]);
  }

  nn::ModulePtr standalone(const nn::ModulePtr& module) {
    auto prepared = std::dynamic_pointer_cast<ObservedGraphModule>(module);
    OCTET_CHECK(prepared, internal, "convert_fx: a standalone module was not prepared");
    ConversionReport inner;
    auto made = convert_to_reference_fx(prepared, custom_, backend_, &inner);
    for (auto& entry : inner.entries) report_.entries.push_back(std::move(entry));
    for (auto& warning : inner.warnings) report_.warnings.push_back(std::move(warning));
    return made;
  }

  nn::ModulePtr custom(const Node& node, const nn::ModulePtr& module, const NodeDecision& d) {
    auto of_mode = custom_.observed_to_quantized.find(*d.mode);
    const ConvertCustomConfig::Make* make = nullptr;
    if (of_mode != custom_.observed_to_quantized.end())
      if (auto it = of_mode->second.find(std::type_index(module->class_type()));
          it != of_mode->second.end())
        make = &it->second;
    OCTET_CHECK(
        make, invalid_argument,
        "convert_fx: '{}' is the observed custom module {}, for which no quantized class is given: "
        "ConvertCustomConfig::set_observed_to_quantized_mapping",
        node.scope, module->type_name());
    // Its results' observers: the first is what the module knows as its own.
    for (size_t i = 0; i < node.outputs.size(); ++i)
      for (graph::NodeId user : g_.users(node.outputs[i])) {
        if (!is_observer_call(source_, g_.node(user))) continue;
        std::string name =
            std::string(kActivationPostProcess) + (i == 0 ? "" : "_" + std::to_string(i));
        if (!module->has_submodule(name))
          module->add_child(name, root_->submodule(g_.node(user).scope)->clone());
      }
    nn::ModulePtr made = (*make)(*module);
    OCTET_CHECK(
        made, invalid_argument,
        "convert_fx: from_observed of the quantized custom module of '{}' ({}) gave nothing",
        node.scope, module->type_name());
    made->eval();
    return made;
  }

  const ObservedGraphModule& source_;
  const Graph g_;
  const ConvertCustomConfig& custom_;
  const BackendConfig& backend_;
  ConversionReport& report_;
  std::shared_ptr<GraphModule> root_;
  const std::set<ValueId> results_;
  std::map<std::string, QParams> qparams_;  // by the observer's path
  std::vector<std::string> unset_;          // the values that nothing was seen of, to be loaded
  std::set<const Module*> done_;
  std::vector<nn::ModulePtr> kept_;
};

// -- lowering -------------------------------------------------------------------------------------

// dequantize -> module -> quantize to modules on codes.
class ModuleLowerer {
 public:
  ModuleLowerer(const GraphModule& reference, const BackendConfig& backend,
                const graph::MergePredicate& merge)
      : backend_(backend), merge_(merge), root_(without_awaiting(reference)), g_(root_->graph()) {}

  std::shared_ptr<GraphModule> run() {
    graph::Rewriter rewriter(g_);
    std::vector<bool> absorbed(g_.nodes().size(), false);
    Graph lowered = rewriter.run([&](graph::Rewriter& r, const Node& node) {
      if (absorbed[static_cast<size_t>(&node - g_.nodes().data())]) return true;
      return node.kind == NodeKind::module && module(r, node, absorbed);
    });
    return nn::make<GraphModule>(graph::remove_dead(lowered), *root_);
  }

 private:
  // A copy that can be read though values are unset.
  static std::shared_ptr<GraphModule> without_awaiting(const GraphModule& reference) {
    auto copy = std::static_pointer_cast<GraphModule>(reference.clone());
    copy->await_state("");
    return copy;
  }

  static bool is(const Node& node, const char* op) {
    return node.kind == NodeKind::call && node.op == op;
  }

  // The quantize nodes that all a value's uses are, if they have the same qparams.
  std::vector<graph::NodeId> only_quantizes(ValueId v) const {
    if (std::count(g_.outputs().begin(), g_.outputs().end(), v)) return {};
    std::vector<graph::NodeId> users = g_.users(v);
    for (graph::NodeId user : users)
      if (!is(g_.node(user), "quantize") ||
          !same_qparams(g_.type(g_.node(user).outputs[0]), g_.type(g_.node(users[0]).outputs[0])))
        return {};
    return users;
  }

  // The operands as codes; nullopt if one is float.
  std::optional<std::vector<ValueId>> operands_on_codes(graph::Rewriter& r,
                                                        const Node& node) const {
    std::vector<ValueId> operands;
    for (ValueId v : node.inputs) {
      if (v == kNone || !is_floating(g_.type(v).dtype))
        operands.push_back(v == kNone ? kNone : r(v));
      else if (is(g_.producer(v), "dequantize"))
        operands.push_back(r(g_.producer(v).inputs[0]));
      else
        return std::nullopt;
    }
    const bool codes = !operands.empty() && operands[0] != kNone;
    if (!codes || !r.out().type(operands[0]).is_quantized()) return std::nullopt;
    return operands;
  }

  // What quantizes each result: nothing where it is no float; empty if a float one, or the first,
  // is used otherwise.
  std::vector<std::vector<graph::NodeId>> quantizes_of_results(const Node& node) const {
    std::vector<std::vector<graph::NodeId>> quantizes;
    for (ValueId v : node.outputs) {
      const bool floating = is_floating(g_.type(v).dtype);
      quantizes.push_back(floating ? only_quantizes(v) : std::vector<graph::NodeId>{});
      if (quantizes.back().empty() && (floating || quantizes.size() == 1)) return {};
    }
    return quantizes;
  }

  bool module(graph::Rewriter& r, const Node& node, std::vector<bool>& absorbed) {
    // a standalone module
    if (auto inner = std::dynamic_pointer_cast<GraphModule>(root_->submodule(node.scope))) {
      root_->put_module(node.scope, lower(inner, backend_, merge_));
      return false;
    }
    if (!merge_(g_, node)) return false;
    const auto operands = operands_on_codes(r, node);
    const auto quantizes = quantizes_of_results(node);
    if (!operands || quantizes.empty()) return false;
    const ValueId codes = g_.node(quantizes[0][0]).outputs[0];
    const TensorType& want = g_.type(codes);
    const std::string& name = g_.value(codes).name;
    // of a module that another call has swapped already
    auto original = originals_.find(node.scope);
    const nn::ModulePtr module =
        original != originals_.end() ? original->second : root_->submodule(node.scope);
    std::vector<ValueId> results;
    // An average that shares its operand's qparams is no quantized module.
    const bool shares = is_average(*module) && same_qparams(r.out().type((*operands)[0]), want);
    if (const Replacement* replacement = shares ? nullptr : rule_for(*module))
      results = call(r, node, swap(node, module, *replacement, want), *operands, name, want);
    else if (keeps_qparams(*module))
      results = call_on_codes(r, node, *module, *operands, name, want);
    if (results.empty()) return false;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      r.map(node.outputs[i], results[i]);
      const std::string& own = g_.value(node.outputs[i]).name;
      if (i > 0 && quantizes[i].empty() && !r.out().find(own)) r.out().rename(results[i], own);
      for (graph::NodeId q : quantizes[i]) {
        r.map(g_.node(q).outputs[0], results[i]);
        absorbed[static_cast<size_t>(q)] = true;
      }
    }
    return true;
  }

  // Puts the quantized module in the module's place, and says where it is. One module that is
  // called twice, with results of two scales, becomes two modules.
  std::string swap(const Node& node, nn::ModulePtr module, const Replacement& replacement,
                   const TensorType& want) {
    std::string path = node.scope;
    if (auto it = results_of_.find(node.scope); it == results_of_.end()) {
      originals_[node.scope] = module;
      results_of_[node.scope] = want;
    } else if (same_qparams(it->second, want)) {
      return path;
    } else {
      path += "_" + std::to_string(++copies_[node.scope]);
      module = module->clone();
    }
    QParams result{.quantizer = want.quantizer,
                   .dtype = want.dtype,
                   .quant_min = qmin(want.dtype),
                   .quant_max = qmax(want.dtype),
                   .scales = want.quantizer->scales()};
    for (int64_t z : want.quantizer->zero_points())
      result.zero_points.push_back(static_cast<double>(z));
    nn::ModulePtr made = replacement(*module, &result);
    OCTET_CHECK(made, invalid_argument, "lower: the quantized module of '{}' ({}) was not made",
                node.scope, module->type_name());
    made->take_hooks(*module, *module);
    made->eval();
    root_->put_module(path, made);
    return path;
  }

  // The call of a module that runs on codes as it is; nothing if it does not.
  std::vector<ValueId> call_on_codes(graph::Rewriter& r, const Node& node, Module& module,
                                     const std::vector<ValueId>& operands, const std::string& name,
                                     const TensorType& want) const {
    std::vector<std::optional<TensorType>> types;
    for (ValueId v : operands)
      types.push_back(v == kNone ? std::nullopt : std::optional(r.out().type(v)));
    std::vector<TensorType> made;
    try {
      made = graph::infer_types(module, types);
    } catch (const Error&) {
      return {};  // it does not take codes
    }
    if (made.size() < node.outputs.size() || !made[0].is_quantized()) return {};
    for (size_t i = 0; i < node.outputs.size(); ++i)
      // by their names here
      if (made[i].dim() == g_.type(node.outputs[i]).dim())
        made[i].dims = g_.type(node.outputs[i]).dims;
    const bool same = same_qparams(made[0], want);
    std::vector<ValueId> results =
        r.out().add_module(same ? name : name + ".codes", node.scope, node.op, operands, made);
    if (!same)
      results[0] = r.out().add_call(name, "requantize", {results[0]}, {},
                                    ops::QType{want.dtype, want.quantizer}, node.scope);
    return results;
  }

  std::vector<ValueId> call(graph::Rewriter& r, const Node& node, const std::string& path,
                            const std::vector<ValueId>& operands, const std::string& name,
                            const TensorType& want) {
    std::vector<TensorType> types;
    for (ValueId v : node.outputs) {
      TensorType type = g_.type(v);
      types.push_back(is_floating(type.dtype) ? TensorType(want.dtype, type.dims, want.quantizer)
                                              : type);
    }
    return r.out().add_module(name, path, root_->submodule(path)->type_name(), operands, types);
  }

  // What the backend makes of a reference (or float) module in static quantization; null if
  // nothing.
  const Replacement* rule_for(const Module& module) const {
    std::type_index type(module.class_type());
    for (const BackendPatternConfig* config : backend_.by_length()) {
      if (config->pattern.size() != 1) continue;
      bool reference =
          config->reference_quantized_module && config->reference_quantized_module->type() == type;
      bool itself = config->pattern[0].is_module() && *config->pattern[0].type() == type &&
                    !config->reference_quantized_module;
      if (!reference && !itself) continue;
      if (const Replacement* replacement = config->quantized_module(QuantMode::statically))
        return replacement;
    }
    return nullptr;
  }

  bool keeps_qparams(const Module& module) const {
    const BackendPatternConfig* config = backend_.find_module(std::type_index(module.class_type()));
    return config && config->observation_type == ObservationType::output_share_observer_with_input;
  }

  const BackendConfig& backend_;
  const graph::MergePredicate& merge_;
  std::shared_ptr<GraphModule> root_;
  const Graph g_;
  std::map<std::string, TensorType> results_of_;
  std::map<std::string, nn::ModulePtr> originals_;
  std::map<std::string, int> copies_;
};

}  // namespace

std::shared_ptr<GraphModule> convert_to_reference_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, const ConvertCustomConfig& custom,
    const std::optional<BackendConfig>& backend, ConversionReport* report) {
  OCTET_CHECK(prepared, invalid_argument, "convert_to_reference_fx: no model");
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  return Referencer(*prepared, custom, backend ? *backend : prepared->preparation().backend, r)
      .run();
}

std::shared_ptr<GraphModule> lower(const std::shared_ptr<GraphModule>& reference,
                                   const BackendConfig& backend,
                                   const graph::MergePredicate& merge) {
  OCTET_CHECK(reference, invalid_argument, "lower: no model");
  const graph::MergePredicate allowed = [&](const Graph& g, const Node& node) {
    return !node.stays_float && (!merge || merge(g, node));
  };
  auto lowered = ModuleLowerer(*reference, backend, allowed).run();
  Graph merged = graph::merge_qdq(lowered->graph(), allowed);
  auto result = nn::make<GraphModule>(std::move(merged), *lowered);
  result->await_state(reference->awaited_state());
  return result;
}

namespace {

// The graph with the modules that are one function of a number as calls of it.
Graph with_functions(const GraphModule& module) {
  return graph::Rewriter(module.graph()).run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::module || !nn::is_scalar_function(node.op)) return false;
    const auto* f = dynamic_cast<const nn::Activation*>(module.submodule(node.scope).get());
    if (!f) return false;
    r.map(node.outputs[0], r.out().add_call(module.graph().value(node.outputs[0]).name,
                                            f->op_name(), {r(node.inputs[0])}, f->op_attrs()));
    return true;
  });
}

// A function of codes that becomes codes again runs as a table, whatever was decided.
void report_tables(GraphModule& lowered, ConversionReport& report) {
  Graph g = lowered.graph();
  const Graph with_tables = graph::fuse_lookups(with_functions(lowered));
  bool any = false;
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    Node& node = g.node(static_cast<graph::NodeId>(n));
    if (!node.stays_float || with_tables.find(g.value(node.outputs[0]).name)) continue;
    node.stays_float = false;
    node.note = "one table of codes with its neighbours";
    any = true;
    for (ConversionReport::Entry& e : report.entries)
      if (e.node == node_name(g, node)) e.quantized = true, e.reason.clear();
  }
  if (any) lowered.set_graph(std::move(g), false);
}

}  // namespace

std::shared_ptr<GraphModule> convert_fx(const std::shared_ptr<ObservedGraphModule>& prepared,
                                        const ConvertCustomConfig& custom,
                                        const std::optional<BackendConfig>& backend,
                                        ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  auto reference = convert_to_reference_fx(prepared, custom, backend, &r);
  auto lowered = lower(reference, backend ? *backend : prepared->preparation().backend);
  if (lowered->awaited_state().empty()) report_tables(*lowered, r);
  if (strict) require_nothing_left_float(r);
  return lowered;
}

// -- weights alone --------------------------------------------------------------------------------

namespace {

// One qconfig for every call. What has no weight stays float as it is, and is not reported.
Graph quantize_weights(const Graph& source, const QConfig& qconfig, const PrepareOptions& options,
                       ConversionReport* report, const char* who) {
  OCTET_CHECK(qconfig.weight, invalid_argument, "{}: the qconfig has no observer for weights", who);
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  auto prepared = prepare_graph(source, qconfig, options, false, who);
  Graph result = convert_to_reference_fx(prepared, {}, {}, &r)->graph();
  std::erase_if(r.entries, [&](const ConversionReport::Entry& e) {
    const BackendPatternConfig* config = options.backend.find_op(e.op);
    return !config || (!config->quantized_op(QuantMode::dynamically) &&
                       !config->quantized_op(QuantMode::weight_only));
  });
  return result;
}

}  // namespace

Graph quantize_dynamic_fx(const Graph& graph, const QConfig& qconfig, const PrepareOptions& options,
                          ConversionReport* report) {
  return quantize_weights(
      graph, {default_dynamic_qconfig().activation, qconfig.weight.without_fake_quantize()},
      options, report, "quantize_dynamic_fx");
}

Graph quantize_weight_only_fx(const Graph& graph, const ObserverFactory& weight,
                              const PrepareOptions& options, ConversionReport* report) {
  return quantize_weights(graph, {ObserverFactory(), weight.without_fake_quantize()}, options,
                          report, "quantize_weight_only_fx");
}

}  // namespace octet::quant
