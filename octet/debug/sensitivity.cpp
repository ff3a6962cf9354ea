#include "octet/debug/sensitivity.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/digest.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/debug/compare_impl.h"
#include "octet/debug/metrics.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/quant/algorithms/output_gradients_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/observer.h"
#include "octet/runtime/program.h"

namespace octet::debug {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using quant::NodeDecision;
using quant::OperandRole;
using Batches = std::vector<std::vector<Tensor>>;

const char* to_string(SensitivityMethod method) {
  constexpr const char* names[] = {"alone", "without", "estimate"};
  return names[static_cast<size_t>(method)];
}

SensitivityMethod parse_sensitivity_method(std::string_view name) {
  for (auto method :
       {SensitivityMethod::alone, SensitivityMethod::without, SensitivityMethod::estimate})
    if (name == to_string(method)) return method;
  OCTET_FAIL(invalid_argument,
             "unknown method of sensitivity '{}'; expected alone, without or estimate", name);
}

namespace {

// A prepared and calibrated graph, of which any layers may run on codes.
class Network {
 public:
  explicit Network(const quant::ObservedGraphModule& prepared)
      : backend_(prepared.preparation().backend), watched_(prepared.watched()) {
    const Graph& g = float_graph();
    decisions_.resize(g.nodes().size());
    for (size_t n = 0; n < g.nodes().size(); ++n) {
      const Node& node = g.nodes()[n];
      if (node.kind != NodeKind::call) continue;
      const ValueId source = watched_.source[static_cast<size_t>(node.outputs[0])];
      const auto d = prepared.decisions().find(prepared.graph().value(source).name);
      if (d != prepared.decisions().end() && d->second.mode == quant::QuantMode::statically)
        decisions_[n] = &d->second;
    }
    choose_qparams(prepared);
    find_layers();
    find_sources(prepared);
    OCTET_CHECK(!layers_.empty(), invalid_argument,
                "sensitivity: no operator of {} is quantized statically; prepare it with a static "
                "qconfig",
                g.name);
  }

  struct Layer {
    std::string name, op;
    std::vector<size_t> nodes;
    int64_t weight_bytes = 0;
  };
  const std::vector<Layer>& layers() const { return layers_; }
  // Values that no layer makes and layers read as codes, and operators that stay float and could
  // have been layers.
  struct Source {
    std::string name, op, reason;
    ValueId value = kNone;
    std::set<ValueId> rounded;  // it, or what only moves it, where layers read that
    int64_t weight_bytes = 0;
  };
  const std::vector<Source>& sources() const { return sources_; }
  const Graph& float_graph() const { return watched_.graph; }

  // The graph in which the layers that `on_codes` names by number run on codes, with integers.
  Graph partial(const std::vector<bool>& on_codes) const {
    std::vector<bool> nodes(decisions_.size(), false);
    for (size_t i = 0; i < layers_.size(); ++i)
      for (size_t n : layers_[i].nodes) nodes[n] = on_codes[i];
    move_codes(nodes);
    return graph::merge_qdq(rounded(nodes));
  }

  // The float graph with one layer's weights and result rounded.
  Graph alone(const Layer& layer) const {
    graph::Rewriter rewriter(float_graph());
    Rounded known;
    return rewriter.run([&](graph::Rewriter& r, const Node& node) {
      const size_t n = number(node);
      if (std::find(layer.nodes.begin(), layer.nodes.end(), n) == layer.nodes.end()) return false;
      const auto results = call_alone(r, node, known, {}, n == layer.nodes.back());
      for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
      return true;
    });
  }
  // The float graph whose layers read these values rounded.
  Graph alone(const Source& source) const {
    graph::Rewriter rewriter(float_graph());
    Rounded known;
    return rewriter.run([&](graph::Rewriter& r, const Node& node) {
      if (!decisions_[number(node)] || moves(number(node))) return false;
      std::vector<ValueId> operands;
      for (const ValueId v : node.inputs)
        operands.push_back(v == kNone                ? kNone
                           : source.rounded.count(v) ? round(r, v, r(v), known)
                                                     : r(v));
      const auto results = r.out().add_calls(float_graph().value(node.outputs[0]).name, node.op,
                                             operands, node.attrs, std::nullopt, node.scope);
      for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
      return true;
    });
  }

  // The float graph and, as further outputs, two values for each of watched_values(): in float, and
  // as alone() makes it.
  Graph shadowed() const {
    std::vector<std::pair<ValueId, ValueId>> pairs;
    std::map<size_t, const Layer*> last;
    for (const Layer& layer : layers_) last[layer.nodes.back()] = &layer;
    graph::Rewriter rewriter(float_graph());
    Rounded known;
    Graph g = rewriter.run([&](graph::Rewriter& r, const Node& node) {
      const auto layer = last.find(number(node));
      if (layer == last.end()) return false;
      r.copy(node);
      std::map<ValueId, ValueId> inner;
      for (const size_t m : layer->second->nodes) {
        const Node& part = float_graph().nodes()[m];
        const auto results = call_alone(r, part, known, inner, m == layer->first);
        for (size_t i = 0; i < results.size(); ++i) inner[part.outputs[i]] = results[i];
      }
      pairs.emplace_back(r(node.outputs[0]), inner.at(node.outputs[0]));
      return true;
    });
    for (const Source& source : sources_)
      for (const ValueId v : source.rounded) {
        const ValueId now = *g.find(float_graph().value(v).name);
        const quant::QParams& q = qparams_.at(v);
        const std::string& name = float_graph().value(v).name;
        const ValueId codes =
            g.add_call(name + ".codes", "quantize", {now}, {}, ops::QType{q.dtype, q.quantizer});
        pairs.emplace_back(now, g.add_call(name + ".rounded", "dequantize", {codes}));
      }
    std::vector<ValueId> outputs = g.outputs();
    for (const auto& [x, y] : pairs) {
      outputs.push_back(x);
      outputs.push_back(y);
    }
    g.set_outputs(std::move(outputs));
    return g;
  }

  // The results of all layers, then what of all sources is rounded.
  std::vector<ValueId> watched_values() const {
    std::vector<ValueId> values;
    for (const Layer& layer : layers_)
      values.push_back(float_graph().nodes()[layer.nodes.back()].outputs[0]);
    for (const Source& source : sources_)
      values.insert(values.end(), source.rounded.begin(), source.rounded.end());
    return values;
  }

  // What else a saved measurement depends on.
  std::string description() const {
    std::string text = "2 " + graph::print(float_graph());  // 2: what `alone` is
    for (const auto& [v, q] : qparams_)
      for (double scale : q.scales) text += fmt::format(" {}:{}", v, scale);
    return text;
  }

 private:
  using Rounded = std::map<ValueId, ValueId>;

  size_t number(const Node& node) const {
    return static_cast<size_t>(&node - float_graph().nodes().data());
  }
  bool moves(size_t n) const { return graph::only_moves(float_graph().nodes()[n]); }

  // What only moves codes is on codes between layers that are, so that it rounds nothing that no
  // layer rounds: where one of its readers is, or whatever makes its operands.
  void move_codes(std::vector<bool>& nodes) const {
    const Graph& g = float_graph();
    const auto is_on = [&](graph::NodeId n) { return bool(nodes[static_cast<size_t>(n)]); };
    for (size_t n = nodes.size(); n-- > 0;) {
      if (!decisions_[n] || !moves(n)) continue;
      const auto users = g.users(g.nodes()[n].outputs[0]);
      nodes[n] = std::any_of(users.begin(), users.end(), is_on);
    }
    for (size_t n = 0; n < nodes.size(); ++n) {
      if (!decisions_[n] || !moves(n) || nodes[n]) continue;
      const auto& operands = g.nodes()[n].inputs;
      nodes[n] = std::all_of(operands.begin(), operands.end(),
                             [&](ValueId v) { return v == kNone || is_on(g.value(v).producer); });
    }
  }

  void choose_qparams(const quant::ObservedGraphModule& prepared) {
    for (size_t v = 0; v < watched_.observer.size(); ++v) {
      const std::string& path = watched_.observer[v];
      if (path.empty()) continue;
      const auto id = static_cast<ValueId>(v);
      const nn::ModulePtr observer = prepared.submodule(path)->clone();
      auto* plain = dynamic_cast<quant::Observer*>(observer.get());
      if (plain && plain->empty() && float_graph().is_constant(id))
        plain->observe(float_graph().constant(id));
      qparams_[id] = quant::qparams_of(*observer);
    }
  }

  void find_layers() {
    const Graph& g = float_graph();
    std::vector<size_t> joined;  // to the next
    for (size_t n = 0; n < decisions_.size(); ++n) {
      if (!decisions_[n] || moves(n)) continue;
      joined.push_back(n);
      const Node& node = g.nodes()[n];
      if (decisions_[n]->joins_next) continue;
      Layer layer{quant::node_name(g, node), node.op, joined};
      for (size_t m : joined)
        for (ValueId v : g.nodes()[m].inputs)
          if (v != kNone && g.is_constant(v)) layer.weight_bytes += g.constant(v).nbytes();
      layers_.push_back(std::move(layer));
      joined.clear();
    }
  }

  // What only moved values stand for.
  ValueId before_moves(ValueId v) const {
    for (const Node* node = &float_graph().producer(v);
         node->kind == NodeKind::call && graph::only_moves(*node) && node->inputs.size() == 1;
         node = &float_graph().producer(v))
      v = node->inputs[0];
    return v;
  }

  void find_sources(const quant::ObservedGraphModule& prepared) {
    const Graph& g = float_graph();
    std::map<ValueId, Source> sources;  // in the graph's order
    for (size_t n = 0; n < decisions_.size(); ++n) {
      const Node& node = g.nodes()[n];
      if (node.kind != NodeKind::call) continue;
      if (!decisions_[n]) {
        if (detail::weight_operand(g, node) || node.op == "matmul") sources[node.outputs[0]];
        continue;
      }
      if (moves(n)) continue;
      const quant::BackendPatternConfig* config = backend_.find_op(node.op);
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const ValueId v = node.inputs[i];
        if (v == kNone || g.type(v).dtype != DType::float32 || !qparams_.count(v) ||
            quant::operand_role(g, node, i, config) != OperandRole::activation)
          continue;
        const ValueId source = before_moves(v);
        const Node& maker = g.producer(source);
        const bool is_layer = maker.kind == NodeKind::call && decisions_[number(maker)];
        if (maker.kind != NodeKind::constant && !is_layer) sources[source].rounded.insert(v);
      }
    }
    for (auto& [v, source] : sources) {
      const Node& maker = g.producer(v);
      const bool call = maker.kind == NodeKind::call;
      source.value = v;
      source.name = call ? quant::node_name(g, maker) : g.value(v).name;
      source.op = call ? maker.op : "input";
      if (call) {
        const ValueId original = watched_.source[static_cast<size_t>(v)];
        const auto d = prepared.decisions().find(prepared.graph().value(original).name);
        if (d != prepared.decisions().end()) source.reason = d->second.reason;
        for (const ValueId w : maker.inputs)
          if (w != kNone && g.is_constant(w)) source.weight_bytes += g.constant(w).nbytes();
      }
      sources_.push_back(std::move(source));
    }
  }

  // A value rounded to its codes: dequantize(quantize(x)), or the value itself if it has none.
  ValueId round(graph::Rewriter& r, ValueId source, ValueId now, Rounded& rounded) const {
    const auto q = qparams_.find(source);
    if (q == qparams_.end() || float_graph().type(source).dtype != DType::float32) return now;
    if (const auto known = rounded.find(now); known != rounded.end()) return known->second;
    const std::string& name = float_graph().value(source).name;
    const ValueId codes =
        float_graph().is_constant(source)
            ? r.out().add_constant(name + ".codes",
                                   quant::quantize_to(float_graph().constant(source), q->second))
            : r.out().add_call(name + ".codes", "quantize", {now}, {},
                               ops::QType{q->second.dtype, q->second.quantizer});
    return rounded[now] = r.out().add_call(name + ".rounded", "dequantize", {codes});
  }

  // A constant rounded to its codes, as a constant in float: engines pack the weights of operators
  // in float once if they are constants.
  ValueId rounded_constant(graph::Rewriter& r, ValueId source, ValueId now,
                           Rounded& rounded) const {
    const auto q = qparams_.find(source);
    if (q == qparams_.end() || float_graph().type(source).dtype != DType::float32) return now;
    if (const auto known = rounded.find(now); known != rounded.end()) return known->second;
    return rounded[now] = r.out().add_constant(
               float_graph().value(source).name + ".rounded",
               quant::quantize_to(float_graph().constant(source), q->second).dequantize());
  }

  // Adds the node on rounded operands, and rounds its results.
  std::vector<ValueId> call_rounded(graph::Rewriter& r, const Node& node, Rounded& known) const {
    return add_call(r, node, known, {}, true, true);
  }
  // Adds the node with rounded weights, on operands in float; `inner` stands for some of them.
  std::vector<ValueId> call_alone(graph::Rewriter& r, const Node& node, Rounded& known,
                                  const std::map<ValueId, ValueId>& inner, bool is_last) const {
    return add_call(r, node, known, inner, false, is_last);
  }
  std::vector<ValueId> add_call(graph::Rewriter& r, const Node& node, Rounded& known,
                                const std::map<ValueId, ValueId>& inner, bool activations,
                                bool results_too) const {
    const quant::BackendPatternConfig* config = backend_.find_op(node.op);
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId v = node.inputs[i];
      const OperandRole role = quant::operand_role(float_graph(), node, i, config);
      const auto own = inner.find(v);
      const ValueId now = v == kNone ? kNone : own != inner.end() ? own->second : r(v);
      // A constant that is added or multiplied is the call's own, too.
      const bool codes =
          role == OperandRole::weight ||
          (role == OperandRole::activation && (activations || float_graph().is_constant(v)));
      if (codes && !activations && float_graph().is_constant(v))
        operands.push_back(rounded_constant(r, v, now, known));
      else
        operands.push_back(codes ? round(r, v, now, known) : now);
    }
    std::vector<ValueId> results =
        r.out().add_calls(float_graph().value(node.outputs[0]).name + ".alone", node.op, operands,
                          node.attrs, std::nullopt, quant::node_name(float_graph(), node));
    for (size_t i = 0; i < results.size() && results_too; ++i)
      results[i] = round(r, node.outputs[i], results[i], known);
    return results;
  }

  // The graph with these nodes on rounded values.
  Graph rounded(const std::vector<bool>& nodes) const {
    graph::Rewriter rewriter(float_graph());
    Rounded known;
    return rewriter.run([&](graph::Rewriter& r, const Node& node) {
      if (!nodes[number(node)]) return false;
      const auto results = call_rounded(r, node, known);
      for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
      return true;
    });
  }

  const quant::BackendConfig backend_;
  quant::ObservedGraphModule::Watched watched_;
  std::vector<const NodeDecision*> decisions_;  // by node; null: it is not quantized statically
  std::map<ValueId, quant::QParams> qparams_;   // of the values that have an observer
  std::vector<Layer> layers_;
  std::vector<Source> sources_;
};

// The error of a graph's float outputs over all samples.
ErrorStatistics error_of(const Graph& g, const Batches& samples,
                         const std::vector<std::vector<Tensor>>& expected) {
  const runtime::Program program = runtime::compile(g);
  ErrorStatistics error;
  for (size_t b = 0; b < samples.size(); ++b) {
    const std::vector<Tensor> outputs = program.run(samples[b]);
    for (size_t i = 0; i < outputs.size(); ++i)
      if (is_floating(expected[b][i].dtype())) error.add(expected[b][i], outputs[i]);
  }
  return error;
}

// -- what is on disk ------------------------------------------------------------------------------

// The measurements so far, by the layer's name.
class State {
 public:
  State(const std::filesystem::path& path, std::string of) : path_(path), of_(std::move(of)) {
    if (path_.empty() || !std::filesystem::exists(path_)) return;
    const JsonDocument json_document = read_json(path_);
    const Json& json = *json_document;
    OCTET_CHECK(json.is_object() && json.contains("of") && json["of"] == of_ &&
                    json.contains("noise") && json["noise"].is_object(),
                invalid_argument,
                "{}: it holds the sensitivity of another network, calibration or method; name "
                "another file, or remove it",
                path_.string());
    for (const auto& [name, noise] : json["noise"].items())
      if (noise.is_number()) noise_[name] = noise.get<double>();
  }

  const double* find(const std::string& name) const {
    const auto it = noise_.find(name);
    return it == noise_.end() ? nullptr : &it->second;
  }
  void set(const std::string& name, double noise) {
    noise_[name] = noise;
    if (path_.empty()) return;
    write_file_atomically(path_, OrderedJson{{"of", of_}, {"noise", noise_}}.dump(1) + "\n");
  }

 private:
  const std::filesystem::path path_;
  const std::string of_;
  std::map<std::string, double> noise_;
};

// -- the estimate ---------------------------------------------------------------------------------

// By layer, then by source: the estimate of |J e|^2, summed over all samples.
std::vector<double> estimate_noise(const Network& network, const Batches& samples, int probes) {
  const Graph& g = network.float_graph();
  const runtime::Program shadows = runtime::compile(network.shadowed());
  const size_t outputs = g.outputs().size(), layers = network.layers().size();
  const std::vector<ValueId> values = network.watched_values();
  std::vector<size_t> entry;  // by value
  for (size_t i = 0; i < layers; ++i) entry.push_back(i);
  for (size_t i = 0; i < network.sources().size(); ++i)
    entry.insert(entry.end(), network.sources()[i].rounded.size(), layers + i);
  nn::Module root;
  quant::OutputGradients gradients(g, root, {values.begin(), values.end()});
  std::vector<double> noise(layers + network.sources().size(), 0);
  for (const std::vector<Tensor>& batch : samples) {
    std::vector<Tensor> errors;  // by value
    {
      const std::vector<Tensor> shown = shadows.run(batch);
      for (size_t k = 0; k < values.size(); ++k)
        errors.push_back((shown[outputs + 2 * k + 1] - shown[outputs + 2 * k]).contiguous());
    }
    for (int p = 0; p < probes; ++p) {
      OCTET_CHECK(gradients.run(batch), invalid_argument,
                  "sensitivity: no output of {} is float and depends on a quantized layer", g.name);
      std::vector<double> sums(noise.size(), 0);
      for (size_t k = 0; k < values.size(); ++k) {
        const Tensor gradient = gradients.gradient(values[k]);
        if (!gradient.defined()) continue;
        const float *es = errors[k].data<float>(), *ds = gradient.data<float>();
        double sum = 0;
        for (int64_t e = 0, n = gradient.numel(); e < n; ++e)
          sum += static_cast<double>(es[e]) * ds[e];
        sums[entry[k]] += sum;
      }
      for (size_t i = 0; i < noise.size(); ++i) noise[i] += sums[i] * sums[i] / probes;
    }
  }
  return noise;
}

// -- all of it ------------------------------------------------------------------------------------

// By layer, then by source.
std::vector<double> measure_noise(const Network& network, const Batches& samples,
                                  const Batches& expected, const ErrorStatistics& all,
                                  const SensitivityOptions& options, State& state) {
  const auto& layers = network.layers();
  const auto& sources = network.sources();
  const bool alone = options.method == SensitivityMethod::alone;
  const size_t count = layers.size() + (alone ? sources.size() : 0);
  const auto without = [&](size_t i) {
    std::vector<bool> on_codes(layers.size(), true);
    on_codes[i] = false;
    return network.partial(on_codes);
  };
  std::vector<double> noise;
  for (size_t i = 0; i < count; ++i) {
    const bool is_layer = i < layers.size();
    const std::string& name = is_layer ? layers[i].name : sources[i - layers.size()].name;
    if (const double* known = state.find(name)) {
      noise.push_back(*known);
    } else {
      const Graph g = !alone     ? without(i)
                      : is_layer ? network.alone(layers[i])
                                 : network.alone(sources[i - layers.size()]);
      noise.push_back(error_of(g, samples, expected).noise());
      state.set(name, noise.back());
    }
    if (options.progress) options.progress(i + 1, count);
  }
  noise.resize(layers.size() + sources.size(), all.noise());  // without what is float: no other
  return noise;
}

// Samples [begin, begin + size) of an input, from the batches that have them.
Tensor samples_of(const Batches& batches, size_t input, int64_t begin, int64_t size) {
  std::vector<Tensor> parts;
  int64_t first = 0;  // of the batch
  for (const std::vector<Tensor>& batch : batches) {
    const Tensor& x = batch[input];
    const int64_t from = std::max<int64_t>(begin - first, 0),
                  to = std::min(begin + size - first, x.size(0));
    first += x.size(0);
    if (from >= to) continue;
    if (from == 0 && to == x.size(0) && to == size) return x;
    parts.push_back(x.slice(0, from, to).contiguous());
  }
  return parts.size() == 1 ? parts[0] : ops::call("cat", parts, {{"dim", int64_t{0}}});
}

// What is wrong with the layers when all are on codes, by name. Nothing is found where an input's
// first dimension does not count the samples.
std::map<std::string, LayerComparison> find_faults(const Graph& before, const Graph& after,
                                                   const Batches& batches) {
  Samples samples{.count = 0, .batch = 0, .get = {}};
  for (const std::vector<Tensor>& batch : batches) {
    for (const Tensor& x : batch)
      if (x.dim() == 0 || x.size(0) != batch[0].size(0) || x.size(0) == 0) return {};
    if (batch.empty()) return {};
    samples.count += batch[0].size(0);
    samples.batch = std::max(samples.batch, batch[0].size(0));
  }
  samples.get = [&](int64_t begin, int64_t size) {
    SampleBatch result;
    for (size_t i = 0; i < batches[0].size(); ++i)
      result.inputs.push_back(samples_of(batches, i, begin, size));
    return result;
  };
  std::map<std::string, LayerComparison> faults;
  for (LayerComparison& l : compare(before, after, samples, {.probe_layers = 0}).layers)
    if (l.fault != Fault::none) faults.emplace(l.name, std::move(l));
  return faults;
}

// By the scope of the calls; of tables, which have none, by the name of the codes.
std::map<std::string, double> time_shares(const runtime::Program& program,
                                          const std::vector<Tensor>& inputs) {
  std::map<std::string, double> shares;
  const Graph& g = program.graph();
  detail::share_time(program, inputs, [&](const Node& node, double share) {
    shares[quant::node_name(g, node)] += share;
  });
  return shares;
}

}  // namespace

Sensitivity sensitivity(const quant::ObservedGraphModule& prepared, const Batches& samples,
                        const SensitivityOptions& options) {
  OCTET_CHECK(!samples.empty(), invalid_argument,
              "sensitivity: there are no samples; give at least one batch");
  const Network network(prepared);
  const auto& layers = network.layers();
  const runtime::Program program = runtime::compile(network.float_graph());
  Batches expected;
  for (const std::vector<Tensor>& batch : samples) expected.push_back(program.run(batch));
  const Graph on_codes = network.partial(std::vector<bool>(layers.size(), true));
  const ErrorStatistics all = error_of(on_codes, samples, expected);
  State state(options.state, Digest()
                                 .add(fmt::format("{} {} {}", to_string(options.method),
                                                  samples.size(), network.description()))
                                 .text());
  std::vector<double> noise;
  if (options.method == SensitivityMethod::estimate)
    noise = estimate_noise(network, samples, options.probes);
  else
    noise = measure_noise(network, samples, expected, all, options, state);
  Sensitivity result{options.method, all.sqnr(), {}};
  const double sum = std::accumulate(noise.begin(), noise.end(), 0.0);
  const bool without = options.method == SensitivityMethod::without;
  const std::map<std::string, double> times = time_shares(runtime::compile(on_codes), samples[0]);
  const std::map<std::string, LayerComparison> faults =
      find_faults(network.float_graph(), on_codes, samples);
  const auto add = [&](LayerSensitivity layer, double layer_noise) {
    if (const auto fault = faults.find(layer.name); fault != faults.end()) {
      layer.fault = fault->second.fault;
      layer.sentence = fault->second.sentence;
    }
    layer.sqnr = decibels(all.signal(), layer_noise);
    layer.share = without ? layer.sqnr - all.sqnr() : sum > 0 ? layer_noise / sum : 0;
    if (without && layer.left_float) layer.share = 0;  // where both are infinite, too
    result.layers.push_back(std::move(layer));
  };
  const auto time_of = [&](const std::string& name) {
    const auto time = times.find(name);
    return time == times.end() ? 0 : time->second;
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    const Node& last = network.float_graph().nodes()[layers[i].nodes.back()];
    const std::string codes = network.float_graph().value(last.outputs[0]).name + ".codes";
    add({.name = layers[i].name,
         .op = layers[i].op,
         .weight_bytes = layers[i].weight_bytes,
         .time_share = time_of(layers[i].name) + time_of(codes)},
        noise[i]);
  }
  for (size_t i = 0; i < network.sources().size(); ++i) {
    const auto& source = network.sources()[i];
    const bool is_input = source.op == "input";
    if (is_input && without) continue;
    add({.name = source.name,
         .op = source.op,
         .weight_bytes = source.weight_bytes,
         .left_float = !is_input,
         .reason = source.reason,
         .time_share = is_input ? 0 : time_of(source.name)},
        noise[layers.size() + i]);
  }
  std::stable_sort(result.layers.begin(), result.layers.end(),
                   [](const LayerSensitivity& a, const LayerSensitivity& b) {
                     const int x = detail::rank_of(a.fault), y = detail::rank_of(b.fault);
                     if (x != y) return x < y;
                     if (a.fault == Fault::left_float) return a.time_share > b.time_share;
                     return a.share > b.share;
                   });
  return result;
}

graph::Graph leaving_float(const quant::ObservedGraphModule& prepared,
                           const std::vector<std::string>& names) {
  const Network network(prepared);
  std::vector<bool> on_codes(network.layers().size(), true);
  std::vector<std::string> known;
  for (const auto& layer : network.layers()) known.push_back(layer.name);
  for (const std::string& name : names) {
    const auto at = std::find(known.begin(), known.end(), name);
    OCTET_CHECK(at != known.end(), not_found, "leaving_float: no quantized layer is called '{}'{}",
                name, did_you_mean(name, known));
    on_codes[static_cast<size_t>(at - known.begin())] = false;
  }
  return network.partial(on_codes);
}

}  // namespace octet::debug
