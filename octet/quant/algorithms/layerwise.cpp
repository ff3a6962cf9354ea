#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/layerwise_impl.h"
#include "octet/quant/algorithms/weight_ranges_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

std::vector<PreparedLayer> static_layers(const ObservedGraphModule& prepared, const char* who) {
  const Graph& g = prepared.graph();
  std::vector<PreparedLayer> layers;
  std::map<std::string, int> readers;  // of weights
  for (const Node& node : g.nodes()) {
    if (node.kind == NodeKind::module)
      OCTET_CHECK(is_observer_call(prepared, node), unsupported,
                  "{}: '{}' is a module; expected a prepared graph of operators: prepare "
                  "to_graph() of the traced model",
                  who, node.scope);
    if (node.kind != NodeKind::call || node.inputs.size() < 2 || node.inputs[1] == kNone) continue;
    const auto decision = prepared.decisions().find(g.value(node.outputs[0]).name);
    if (decision == prepared.decisions().end() || !decision->second.has_weights ||
        decision->second.mode != QuantMode::statically)
      continue;
    const bool linear = node.op == "linear", conv = node.op.starts_with("conv");
    const Node& observer = g.producer(node.inputs[1]);
    if ((!linear && !conv) || observer.kind != NodeKind::module ||
        !g.is_constant(observer.inputs[0]))
      continue;
    PreparedLayer layer{.name = g.value(node.outputs[0]).name,
                        .label = node_name(g, node),
                        .op = node.op,
                        .attrs = node.attrs,
                        .activation = node.attrs.get_string("activation"),
                        .weight = g.value(observer.inputs[0]).name};
    layer.attrs.set("activation", "none");
    if (node.inputs.size() > 2 && node.inputs[2] != kNone)
      layer.bias = g.value(node.inputs[2]).name;
    layer.transposed = ops::get(node.op).traits().transposed;
    layer.groups = conv ? node.attrs.get_int("groups") : 1;
    const Shape& w = g.constant(observer.inputs[0]).shape();
    layer.channels = layer.transposed ? w[1] * layer.groups : w[0];
    ++readers[layer.weight];
    layers.push_back(std::move(layer));
  }
  for (PreparedLayer& layer : layers) layer.shared = readers[layer.weight] > 1;
  return layers;
}

Tensor layer_result(const PreparedLayer& layer, const Tensor& x, const Tensor& weight,
                    const Tensor& bias) {
  return ops::call(layer.op, {x, weight, bias}, layer.attrs);
}

int64_t channel_dim(const PreparedLayer& layer, const Tensor& result) {
  return layer.op == "linear" ? result.dim() - 1 : 1;
}

Tensor constant_now(const ObservedGraphModule& prepared, const std::string& name) {
  auto& module = const_cast<ObservedGraphModule&>(prepared);  // nothing is changed
  for (const auto& [own, value] : module.named_parameters())
    if (own == name) return value->detach();
  return prepared.graph().constant(prepared.graph().find(name).value());
}

Tensor bias_now(const ObservedGraphModule& prepared, const PreparedLayer& layer) {
  const Graph& now = prepared.graph();
  const Node& call = now.producer(*now.find(layer.name));
  return call.inputs.size() > 2 && call.inputs[2] != kNone
             ? constant_now(prepared, now.value(call.inputs[2]).name)
             : Tensor();
}

Tensor rounded_weight(const ObservedGraphModule& prepared, const PreparedLayer& layer) {
  return quantize_to(constant_now(prepared, layer.weight), prepared.weight_qparams(layer.name))
      .dequantize();
}

const ObserverOptions& weight_observer_options(const ObservedGraphModule& prepared,
                                               const PreparedLayer& layer) {
  const Graph& g = prepared.graph();
  const Node& node = g.producer(*g.find(layer.name));
  return prepared.submodule(g.producer(node.inputs[1]).scope)->as<Observer>().options();
}

bool has_weight_range(const ObservedGraphModule& prepared, const PreparedLayer& layer) {
  const Graph& g = prepared.graph();
  const Node& node = g.producer(*g.find(layer.name));
  return !prepared.submodule(g.producer(node.inputs[1]).scope)->as<Observer>().empty();
}

Samples in_batches(const Graph& g, const Samples& samples, int64_t size) {
  for (const ValueId v : g.inputs())
    if (g.type(v).dims.empty() || g.type(v).dims[0].known()) return samples;
  Samples parts, result;
  for (const std::vector<Tensor>& batch : samples)
    for (int64_t i = 0; i < batch[0].size(0); ++i) {
      auto& part = parts.emplace_back();
      for (const Tensor& t : batch) part.push_back(t.slice(0, i, i + 1));
    }
  const auto fits = [](const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i].shape() != b[i].shape()) return false;
    return true;
  };
  for (size_t begin = 0; begin < parts.size();) {
    size_t end = begin + 1;
    while (end < parts.size() && end - begin < static_cast<size_t>(size) &&
           fits(parts[begin], parts[end]))
      ++end;
    auto& batch = result.emplace_back();
    for (size_t i = 0; i < parts[begin].size(); ++i) {
      std::vector<Tensor> values;
      for (size_t p = begin; p < end; ++p) values.push_back(parts[p][i]);
      batch.push_back(functional::cat(values, 0));
    }
    begin = end;
  }
  return result;
}

double spread_of(const Tensor& x) {
  const std::vector<float> values = x.to_vector<float>();
  double sum = 0, square = 0;
  for (const float v : values) {
    sum += static_cast<double>(v);
    square += static_cast<double>(v) * static_cast<double>(v);
  }
  const double n = std::max(1.0, static_cast<double>(values.size())), mean = sum / n;
  return std::sqrt(std::max(0.0, square / n - mean * mean));
}

// -- a graph on all batches -----------------------------------------------------------------------

GraphRun::GraphRun(Graph graph, const Samples& samples)
    : graph_(std::move(graph)),
      batches_(samples.size()),
      values_(graph_.values().size()),
      uses_(graph_.use_counts()) {
  for (size_t i = 0; i < graph_.inputs().size(); ++i)
    for (const std::vector<Tensor>& batch : samples)
      if (i < batch.size()) values_[static_cast<size_t>(graph_.inputs()[i])].push_back(batch[i]);
  for (const Node& node : graph_.nodes())
    if (node.kind == NodeKind::constant)
      values_[static_cast<size_t>(node.outputs[0])] = {node.value};
}

bool GraphRun::is_view(const Node& node) const {
  return node.kind == NodeKind::call && node.op == "dequantize";
}

Tensor GraphRun::value(ValueId v, size_t batch) const {
  if (v == kNone) return {};
  const Node& node = graph_.producer(v);
  if (is_view(node)) return value(node.inputs[0], batch).dequantize();
  const auto& of_batches = values_[static_cast<size_t>(v)];
  return of_batches.at(node.kind == NodeKind::constant ? 0 : batch);
}

void GraphRun::release(ValueId v) {
  if (v == kNone || --uses_[static_cast<size_t>(v)] > 0) return;
  const Node& node = graph_.producer(v);
  if (is_view(node)) return release(node.inputs[0]);
  if (node.kind != NodeKind::constant) values_[static_cast<size_t>(v)].clear();
}

void GraphRun::finish(NodeId n) {
  const Node& node = graph_.node(n);
  for (ValueId v : node.inputs) release(v);
  for (ValueId v : node.outputs)
    if (uses_[static_cast<size_t>(v)] == 0) values_[static_cast<size_t>(v)].clear();
}

void GraphRun::compute(NodeId n) {
  const Node& node = graph_.node(n);
  if (node.kind != NodeKind::call || is_view(node)) return;
  for (size_t b = 0; b < batches_; ++b) {
    std::vector<Tensor> operands;
    for (ValueId v : node.inputs) operands.push_back(value(v, b));
    const auto results = ops::call_all(node.op, operands, node.attrs, graph::want_of(graph_, node));
    for (size_t i = 0; i < node.outputs.size(); ++i)
      values_[static_cast<size_t>(node.outputs[i])].push_back(results.at(i));
  }
  finish(n);
}

void GraphRun::set(NodeId n, std::vector<Tensor> result) {
  values_[static_cast<size_t>(graph_.node(n).outputs[0])] = std::move(result);
  finish(n);
}

// -- layer by layer -------------------------------------------------------------------------------

namespace {

// The value of that name, or that with ".float" behind.
std::optional<ValueId> value_of(const Graph& g, const std::string& name) {
  const auto v = g.find(name + ".float");
  return v ? v : g.find(name);
}

// By layer: the node of a graph whose result has its name.
std::vector<NodeId> nodes_of(const Graph& g, const std::vector<PreparedLayer>& layers,
                             const char* who, const char* what) {
  std::vector<NodeId> nodes;
  for (const PreparedLayer& layer : layers) {
    const auto v = value_of(g, layer.name);
    OCTET_CHECK(v && g.producer(*v).op == layer.op, invalid_argument,
                "{}: {} has no {} '{}': it is another network's", who, what, layer.op, layer.name);
    nodes.push_back(g.value(*v).producer);
  }
  return nodes;
}

void check_samples(const ObservedGraphModule& prepared, const Samples& samples, const char* who) {
  OCTET_CHECK(!samples.empty(), invalid_argument, "{}: no samples", who);
  for (const std::vector<Tensor>& batch : samples)
    OCTET_CHECK(batch.size() == prepared.graph().inputs().size(), invalid_argument,
                "{}: a batch of {} inputs; expected {}", who, batch.size(),
                prepared.graph().inputs().size());
}

// A copy, because visits change the graph.
Graph reference_of(const ObservedGraphModule& prepared) {
  return convert_to_reference_fx(std::static_pointer_cast<ObservedGraphModule>(prepared.clone()))
      ->graph();
}

}  // namespace

LayerwiseRun::LayerwiseRun(const ObservedGraphModule& prepared, const Samples& samples,
                           const LayerwiseOptions& options, const char* who)
    : layers((check_samples(prepared, samples, who), static_layers(prepared, who))),
      floats(options.float_graph ? *options.float_graph : prepared.watched().graph, samples),
      codes(reference_of(prepared), samples),
      float_nodes(nodes_of(floats.graph(), layers, who, "float_graph")),
      code_nodes(nodes_of(codes.graph(), layers, who, "the quantized graph")) {}

void LayerwiseRun::compute_layer(const ObservedGraphModule& prepared, NodeId node,
                                 const PreparedLayer& layer) {
  const Tensor weight = rounded_weight(prepared, layer), bias = bias_now(prepared, layer);
  std::vector<Tensor> results;
  for (size_t b = 0; b < codes.batches(); ++b) {
    Tensor y =
        layer_result(layer, codes.value(codes.graph().node(node).inputs[0], b), weight, bias);
    if (layer.activation != "none") y = ops::call(layer.activation, {y});
    results.push_back(std::move(y));
  }
  codes.set(node, std::move(results));
}

std::pair<float, float> LayerwiseRun::kept_range(size_t i) const {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const PreparedLayer& layer = layers[i];
  float low = layer.activation == "none" ? -kInf : 0.F;
  float high = layer.activation == "relu6" ? 6.F : kInf;
  const Graph& g = codes.graph();
  const std::vector<NodeId> users = g.users(g.node(code_nodes[i]).outputs[0]);
  const bool read_as_codes = std::all_of(
      users.begin(), users.end(), [&](NodeId user) { return g.node(user).op == "quantize"; });
  if (!read_as_codes) return {low, high};
  for (const NodeId user : users) {
    const TensorType& type = g.type(g.node(user).outputs[0]);
    const double scale = type.quantizer->scale();
    const int64_t zero = type.quantizer->zero_point();
    low = std::max(low, static_cast<float>(scale * static_cast<double>(qmin(type.dtype) - zero)));
    high = std::min(high, static_cast<float>(scale * static_cast<double>(qmax(type.dtype) - zero)));
  }
  return {low, high};
}

ValueId LayerwiseRun::float_value(ValueId v, const char* who) const {
  std::string name = codes.graph().value(v).name;
  if (name.ends_with(".float")) name.resize(name.size() - 6);
  const auto found = floats.graph().find(name);
  OCTET_CHECK(found, invalid_argument, "{}: float_graph has no value '{}': it is another network's",
              who, name);
  return *found;
}

void for_each_layer(ObservedGraphModule& prepared, const Samples& samples,
                    const LayerwiseOptions& options, const char* who,
                    const std::function<void(const LayerStep&)>& visit) {
  autograd::NoGrad no_grad;
  LayerwiseRun run(prepared, samples, options, who);
  NodeId f = 0, q = 0;
  for (size_t i = 0; i < run.layers.size(); ++i) {
    for (; f < run.float_nodes[i]; ++f) run.floats.compute(f);
    for (; q < run.code_nodes[i]; ++q) run.codes.compute(q);
    const Node &float_node = run.floats.graph().node(f), &code_node = run.codes.graph().node(q);
    const ValueId b = float_node.inputs.size() > 2 ? float_node.inputs[2] : kNone;
    const LayerStep step{
        run.layers[i],
        i,
        run.layers.size(),
        run.floats.value(float_node.inputs[1], 0),
        run.floats.value(b, 0),
        samples.size(),
        [&](size_t batch) { return run.floats.value(float_node.inputs[0], batch); },
        [&](size_t batch) { return run.codes.value(code_node.inputs[0], batch); },
        run.kept_range(i)};
    visit(step);
    if (options.progress) options.progress(i + 1, run.layers.size());
    if (i + 1 == run.layers.size()) break;
    run.compute_layer(prepared, q, run.layers[i]);
    run.floats.compute(f);
    ++f, ++q;
  }
}

namespace {

// A dense tensor as rows of channels, each of `inner` elements that follow one another.
struct ChannelRows {
  Tensor dense;
  int64_t rows = 0, inner = 1;
};

bool is_pixels(const Tensor& y, int64_t channel_dim) {
  return channel_dim == 1 && y.dim() >= 3 && y.dim() <= 5 && !y.is_contiguous() &&
         y.is_contiguous(MemoryFormat::channels_last);
}

// `pixels`: the channels of a position follow one another, as they do in y.
ChannelRows channel_rows(const Tensor& y, int64_t channel_dim, bool pixels) {
  ChannelRows r{.dense = pixels ? y : y.contiguous()};
  for (int64_t d = channel_dim + 1; d < y.dim() && !pixels; ++d) r.inner *= y.size(d);
  r.rows = y.numel() / std::max<int64_t>(1, y.size(channel_dim) * r.inner);
  return r;
}

// What a bias makes of one channel of the results.
struct ChannelError {
  double sum = 0, before = 0, after = 0;  // of differences; of their squares
  int64_t live = 0;                       // elements that the bias moves
};

// Calls fn(channel, float's element, the other one) for all elements of all batches.
template <typename Fn>
void for_each_pair(const LayerResults& r, Fn&& fn) {
  for (size_t b = 0; b < r.floats.size(); ++b) {
    const bool pixels =
        is_pixels(r.floats[b], r.channel_dim) && is_pixels(r.rounded[b], r.channel_dim);
    const ChannelRows floats = channel_rows(r.floats[b], r.channel_dim, pixels),
                      rounded = channel_rows(r.rounded[b], r.channel_dim, pixels);
    const float* f = floats.dense.data<float>();
    const float* q = rounded.dense.data<float>();
    const auto channels = static_cast<size_t>(r.floats[b].size(r.channel_dim));
    for (int64_t row = 0; row < floats.rows; ++row)
      for (size_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < floats.inner; ++i) fn(c, *f++, *q++);
  }
}

}  // namespace

std::vector<float> bias_shift(const LayerResults& r) {
  std::vector<ChannelError> errors(static_cast<size_t>(r.floats.at(0).size(r.channel_dim)));
  const auto [low, high] = r.kept;
  for_each_pair(r, [&](size_t c, float f, float q) {
    const float e = std::clamp(f, low, high) - std::clamp(q, low, high);
    ChannelError& error = errors[c];
    error.sum += static_cast<double>(e);
    error.before += static_cast<double>(e * e);
    error.live += e != 0 || (q > low && q < high);
  });
  std::vector<float> shift;
  for (const ChannelError& e : errors)
    shift.push_back(e.live ? static_cast<float>(e.sum / static_cast<double>(e.live)) : 0.F);
  for_each_pair(r, [&](size_t c, float f, float q) {
    const float e = std::clamp(f, low, high) - std::clamp(q + shift[c], low, high);
    errors[c].after += static_cast<double>(e * e);
  });
  for (size_t c = 0; c < errors.size(); ++c)
    if (!(errors[c].after < errors[c].before)) shift[c] = 0;
  return shift;
}

void add_to_channels(Tensor& y, int64_t channel_dim, const std::vector<float>& added) {
  ChannelRows r = channel_rows(y, channel_dim, is_pixels(y, channel_dim));
  float* x = r.dense.data<float>();
  for (int64_t row = 0; row < r.rows; ++row)
    for (const float v : added)
      for (const float* end = x + r.inner; x < end; ++x) *x += v;
  y = std::move(r.dense);
}

void set_corrected_bias(ObservedGraphModule& prepared, const PreparedLayer& layer,
                        const Tensor& bias, const std::vector<float>& shift) {
  std::vector<float> corrected =
      bias.defined() ? bias.to_vector<float>() : std::vector<float>(shift.size(), 0.F);
  for (size_t c = 0; c < corrected.size(); ++c) corrected[c] += shift[c];
  prepared.set_bias(layer.name, Tensor::from(corrected, {layer.channels}));
}

void correct_bias_of(ObservedGraphModule& prepared, const LayerStep& step) {
  const Tensor weight = rounded_weight(prepared, step.layer);
  LayerResults results{.kept = step.kept};
  for (size_t b = 0; b < step.batches; ++b) {
    results.floats.push_back(layer_result(step.layer, step.float_input(b), step.weight, step.bias));
    results.rounded.push_back(layer_result(step.layer, step.quantized_input(b), weight, step.bias));
  }
  results.channel_dim = channel_dim(step.layer, results.floats.at(0));
  set_corrected_bias(prepared, step.layer, step.bias, bias_shift(results));
}

}  // namespace octet::quant
