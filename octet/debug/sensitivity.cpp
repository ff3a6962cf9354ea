#include "octet/debug/sensitivity.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/debug/metrics.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
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
  const Graph& float_graph() const { return watched_.graph; }

  // The graph in which the layers that `on_codes` names by number run on codes, with integers.
  Graph partial(const std::vector<bool>& on_codes) const {
    std::vector<bool> nodes(decisions_.size(), false);
    for (size_t i = 0; i < layers_.size(); ++i)
      for (size_t n : layers_[i].nodes) nodes[n] = on_codes[i];
    move_codes(nodes);
    return graph::merge_qdq(rounded(nodes, nullptr));
  }

  // The float graph with each layer's result on codes beside it, as further outputs: two for each
  // layer, its result in float and as the layer by itself makes it.
  Graph shadowed() const {
    std::vector<std::pair<ValueId, ValueId>> pairs;
    Graph g = rounded(std::vector<bool>(decisions_.size(), false), &pairs);
    std::vector<ValueId> outputs = g.outputs();
    for (const auto& [x, y] : pairs) {
      outputs.push_back(x);
      outputs.push_back(y);
    }
    g.set_outputs(std::move(outputs));
    return graph::merge_qdq(g);
  }

  // What else a saved measurement depends on.
  std::string description() const {
    std::string text = graph::print(float_graph());
    for (const auto& [v, q] : qparams_)
      for (double scale : q.scales) text += fmt::format(" {}:{}", v, scale);
    return text;
  }

 private:
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

  // A value rounded to its codes: dequantize(quantize(x)), or the value itself if it has none.
  ValueId round(graph::Rewriter& r, ValueId source, ValueId now,
                std::map<ValueId, ValueId>& rounded) const {
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

  // Adds the node on rounded operands, and rounds its results.
  std::vector<ValueId> call_rounded(graph::Rewriter& r, const Node& node,
                                    std::map<ValueId, ValueId>& known,
                                    const std::map<ValueId, ValueId>& inner) const {
    const quant::BackendPatternConfig* config = backend_.find_op(node.op);
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId v = node.inputs[i];
      const OperandRole role = quant::operand_role(float_graph(), node, i, config);
      const auto own = inner.find(v);
      const ValueId now = v == kNone ? kNone : own != inner.end() ? own->second : r(v);
      const bool codes = role == OperandRole::activation || role == OperandRole::weight;
      operands.push_back(codes && own == inner.end() ? round(r, v, now, known) : now);
    }
    std::vector<ValueId> results =
        r.out().add_calls(float_graph().value(node.outputs[0]).name + ".alone", node.op, operands,
                          node.attrs, std::nullopt, node.scope);
    for (size_t i = 0; i < results.size(); ++i)
      results[i] = round(r, node.outputs[i], results[i], known);
    return results;
  }

  // The graph with these nodes on rounded values. With `pairs`: the float graph, and beside it each
  // layer by itself.
  Graph rounded(const std::vector<bool>& nodes,
                std::vector<std::pair<ValueId, ValueId>>* pairs) const {
    graph::Rewriter rewriter(float_graph());
    std::map<ValueId, ValueId> known;
    std::map<size_t, const Layer*> last;
    if (pairs)
      for (const Layer& layer : layers_) last[layer.nodes.back()] = &layer;
    return rewriter.run([&](graph::Rewriter& r, const Node& node) {
      const auto n = static_cast<size_t>(&node - float_graph().nodes().data());
      if (nodes[n]) {
        const auto results = call_rounded(r, node, known, {});
        for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
        return true;
      }
      const auto layer = last.find(n);
      if (layer == last.end()) return false;
      r.copy(node);
      std::map<ValueId, ValueId> inner;
      for (size_t m : layer->second->nodes) {
        const Node& part = float_graph().nodes()[m];
        const auto results = call_rounded(r, part, known, inner);
        for (size_t i = 0; i < results.size(); ++i) inner[part.outputs[i]] = results[i];
      }
      pairs->emplace_back(r(node.outputs[0]), inner.at(node.outputs[0]));
      return true;
    });
  }

  const quant::BackendConfig backend_;
  quant::ObservedGraphModule::Watched watched_;
  std::vector<const NodeDecision*> decisions_;  // by node; null: it is not quantized statically
  std::map<ValueId, quant::QParams> qparams_;   // of the values that have an observer
  std::vector<Layer> layers_;
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
    const Json json = read_json(path_);
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

// A short text that differs where `text` does (FNV-1a; xxhash is the file readers' alone).
std::string digest(const std::string& text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return fmt::format("{:016x}", hash);
}

// -- the estimate ---------------------------------------------------------------------------------

// The float network, run call by call, with a zero added to some values, whose gradients are those
// of the values.
class Probed : public graph::GraphModule {
 public:
  Probed(Graph graph, nn::Module& root, std::set<ValueId> values)
      : GraphModule(std::move(graph), root), values_(std::move(values)) {}
  using GraphModule::forward;
  std::map<ValueId, Tensor> zeros;  // of the last run

 protected:
  Tensor result(ValueId id, Tensor value) override {
    if (!values_.count(id)) return value;
    Tensor zero = Tensor::zeros(value.shape());
    autograd::set_requires_grad(zero);
    zeros[id] = zero;
    return ops::call("add", {value, zero});
  }

 private:
  std::set<ValueId> values_;
};

// By layer: the estimate of |J e|^2, summed over all samples.
std::vector<double> estimate_noise(const Network& network, const Batches& samples, int probes) {
  const Graph& g = network.float_graph();
  const runtime::Program shadows = runtime::compile(network.shadowed());
  const size_t outputs = g.outputs().size();
  std::set<ValueId> values;
  for (const auto& layer : network.layers())
    values.insert(g.nodes()[layer.nodes.back()].outputs[0]);
  nn::Module root;
  Probed probed(g, root, values);
  probed.eval();
  std::vector<double> noise(network.layers().size(), 0);
  uint64_t seed = 1;
  for (const std::vector<Tensor>& batch : samples) {
    const std::vector<Tensor> shown = shadows.run(batch);
    for (int p = 0; p < probes; ++p) {
      probed.zeros.clear();
      const std::vector<Tensor> y = probed.forward(batch);
      Tensor projected;
      for (const Tensor& output : y) {
        if (!is_floating(output.dtype()) || !autograd::requires_grad(output)) continue;
        const Tensor part = (output * Tensor::randn(output.shape(), seed++)).sum();
        projected = projected.defined() ? projected + part : part;
      }
      OCTET_CHECK(projected.defined(), invalid_argument,
                  "sensitivity: no output of {} is float and depends on a quantized layer", g.name);
      autograd::backward(projected);
      for (size_t i = 0; i < noise.size(); ++i) {
        const auto at = network.layers()[i].nodes.back();
        const Tensor gradient = autograd::grad(probed.zeros.at(g.nodes()[at].outputs[0]));
        if (!gradient.defined()) continue;
        const Tensor x = shown[outputs + 2 * i].contiguous(),
                     q = shown[outputs + 2 * i + 1].contiguous(), d = gradient.contiguous();
        double sum = 0;
        for (int64_t k = 0; k < x.numel(); ++k)
          sum +=
              (static_cast<double>(q.data<float>()[k]) - x.data<float>()[k]) * d.data<float>()[k];
        noise[i] += sum * sum / probes;
      }
    }
  }
  return noise;
}

// -- all of it ------------------------------------------------------------------------------------

std::vector<double> measure_noise(const Network& network, const Batches& samples,
                                  const Batches& expected, const SensitivityOptions& options,
                                  State& state) {
  const auto& layers = network.layers();
  const bool alone = options.method == SensitivityMethod::alone;
  std::vector<double> noise;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (const double* known = state.find(layers[i].name)) {
      noise.push_back(*known);
    } else {
      std::vector<bool> on_codes(layers.size(), !alone);
      on_codes[i] = alone;
      noise.push_back(error_of(network.partial(on_codes), samples, expected).noise());
      state.set(layers[i].name, noise.back());
    }
    if (options.progress) options.progress(i + 1, layers.size());
  }
  return noise;
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
  const ErrorStatistics all =
      error_of(network.partial(std::vector<bool>(layers.size(), true)), samples, expected);
  State state(options.state, digest(fmt::format("{} {} {}", to_string(options.method),
                                                samples.size(), network.description())));
  std::vector<double> noise;
  if (options.method == SensitivityMethod::estimate)
    noise = estimate_noise(network, samples, options.probes);
  else
    noise = measure_noise(network, samples, expected, options, state);
  Sensitivity result{options.method, all.sqnr(), {}};
  const double sum = std::accumulate(noise.begin(), noise.end(), 0.0);
  const bool without = options.method == SensitivityMethod::without;
  for (size_t i = 0; i < layers.size(); ++i) {
    const double sqnr = decibels(all.signal(), noise[i]);
    const double share = without ? sqnr - all.sqnr() : sum > 0 ? noise[i] / sum : 0;
    result.layers.push_back({layers[i].name, layers[i].op, sqnr, share, layers[i].weight_bytes});
  }
  std::stable_sort(result.layers.begin(), result.layers.end(),
                   [](const auto& a, const auto& b) { return a.share > b.share; });
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
