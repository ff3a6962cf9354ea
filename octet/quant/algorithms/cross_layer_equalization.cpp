#include "octet/quant/algorithms/cross_layer_equalization.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/quant/decide/decide.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;
using SampleBatches = std::vector<std::vector<Tensor>>;

namespace {

constexpr float kNoLimit = std::numeric_limits<float>::infinity();

// Batch norms and constants folded into layers.
Graph with_folded_norms(const Graph& g, const char* who) {
  for (const graph::Value& value : g.values())
    OCTET_CHECK(!value.type.is_quantized(), invalid_argument, "{}: {} is quantized already", who,
                g.name);
  return graph::remove_dead(graph::fold_batch_norm(graph::fold_biases(graph::constants_second(g))));
}

// A layer whose weight and bias are constants, which nothing else reads.
struct GraphLayer {
  NodeId node = -1;
  ValueId x = kNone, y = kNone;
  std::vector<double> w, b;
  Shape shape;
  int64_t groups = 1;
  bool transposed = false;

  int64_t in() const { return transposed ? shape[0] : shape[1] * groups; }
  int64_t out() const { return transposed ? shape[1] * groups : shape[0]; }

  // fn(input channel, output channel, weight) for each of the weights.
  template <typename Fn>
  void for_each(Fn&& fn) {
    const int64_t rows = shape[0], columns = shape[1],
                  inner = std::ssize(w) / std::max<int64_t>(1, rows * columns);
    double* p = w.data();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t other = r / (rows / groups) * columns + c;
        for (int64_t i = 0; i < inner; ++i, ++p) transposed ? fn(r, other, *p) : fn(other, r, *p);
      }
  }
};

std::vector<double> doubles(const Tensor& t) {
  const std::vector<float> values = t.to_vector<float>();
  return {values.begin(), values.end()};
}

bool is_layer_op(const std::string& op) {
  return op == "linear" || op == "conv1d" || op == "conv2d" || op == "conv3d" ||
         op.starts_with("conv_transpose");
}

// nullopt unless the node is such a layer.
std::optional<GraphLayer> layer_of(const Graph& g, const std::vector<int>& uses, NodeId n) {
  const Node& node = g.node(n);
  if (node.kind != NodeKind::call || !is_layer_op(node.op)) return std::nullopt;
  const ValueId w = node.inputs[1], b = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  if (!g.is_constant(w) || uses[static_cast<size_t>(w)] != 1) return std::nullopt;
  if (b != kNone && !g.is_constant(b)) return std::nullopt;
  GraphLayer layer{n,  node.inputs[0],       node.outputs[0], doubles(g.constant(w)),
                   {}, g.constant(w).shape()};
  if (b != kNone) layer.b = doubles(g.constant(b));
  layer.groups = node.op == "linear" ? 1 : node.attrs.get_int("groups");
  layer.transposed = ops::get(node.op).traits().transposed;
  return layer;
}

// The graph with these layers' weights and biases.
Graph with_layers(Graph g, const std::vector<GraphLayer>& layers) {
  const std::vector<int> uses = g.use_counts();
  const auto set = [&](ValueId constant, const std::vector<double>& values) {
    Node& holder = g.node(g.value(constant).producer);
    holder.value = Tensor::from(values, holder.value.shape()).to(DType::float32);
  };
  std::map<NodeId, const GraphLayer*> get_biases;  // of their own
  for (const GraphLayer& layer : layers) {
    const Node& node = g.node(layer.node);
    set(node.inputs[1], layer.w);
    const ValueId b = node.inputs.size() > 2 ? node.inputs[2] : kNone;
    if (b != kNone && uses[static_cast<size_t>(b)] == 1)
      set(b, layer.b);
    else if (!layer.b.empty())
      get_biases[layer.node] = &layer;
  }
  if (get_biases.empty()) return g;
  graph::Rewriter rewriter(g);
  NodeId at = -1;
  Graph result = rewriter.run([&](graph::Rewriter& r, const Node& node) {
    ++at;
    const auto it = get_biases.find(at);
    if (it == get_biases.end()) return false;
    const GraphLayer& layer = *it->second;
    const std::string& name = g.value(node.outputs[0]).name;
    std::vector<ValueId> operands = r.operands(node);
    operands.resize(3, kNone);
    operands[2] = r.out().add_constant(name + ".bias",
                                       Tensor::from(layer.b, {layer.out()}).to(DType::float32));
    r.map(node.outputs[0],
          r.out().add_call(name, node.op, operands, node.attrs, std::nullopt, node.scope));
    return true;
  });
  return graph::remove_dead(result);
}

// -- which values have the same factors -----------------------------------------------------------

bool passes_factors(const Graph& g, const Node& node) {
  static const std::set<std::string> ops{"relu",
                                         "leaky_relu",
                                         "prelu",
                                         "identity",
                                         "dropout",
                                         "clone",
                                         "max_pool1d",
                                         "max_pool2d",
                                         "max_pool3d",
                                         "avg_pool1d",
                                         "avg_pool2d",
                                         "avg_pool3d",
                                         "adaptive_avg_pool1d",
                                         "adaptive_avg_pool2d",
                                         "adaptive_avg_pool3d",
                                         "adaptive_max_pool1d",
                                         "adaptive_max_pool2d",
                                         "adaptive_max_pool3d",
                                         "interpolate"};
  if (node.op == "pad")
    return node.attrs.get_string("mode") != "constant" || node.attrs.get_double("value") == 0;
  if (node.op == "clamp")  // a relu by another name
    return node.attrs.get_double("min") == 0 && std::isinf(node.attrs.get_double("max"));
  for (size_t i = 1; i < node.inputs.size(); ++i)
    if (node.inputs[i] != kNone && !g.is_constant(node.inputs[i])) return false;
  return ops.count(node.op) > 0;
}

class FactorGroups {
 public:
  explicit FactorGroups(const Graph& g)
      : g_(g), parent_(g.values().size()), spread_(g.values().size(), 1) {
    std::iota(parent_.begin(), parent_.end(), 0);
    fixed_.assign(g.values().size(), false);
    const std::vector<int> uses = g.use_counts();
    for (ValueId v : g.inputs()) fix(v);
    for (size_t n = 0; n < g.nodes().size(); ++n) add(static_cast<NodeId>(n), uses);
    for (ValueId v : g.outputs()) fix(v);
  }

  std::vector<GraphLayer> layers;

  size_t find(ValueId v) const {
    auto i = static_cast<size_t>(v);
    while (parent_[i] != i) i = parent_[i];
    return i;
  }
  bool is_fixed(ValueId v) const { return fixed_[find(v)]; }
  // Features of the value for each channel of its group.
  int64_t spread(ValueId v) const { return spread_[static_cast<size_t>(v)]; }

 private:
  void fix(ValueId v) {
    if (v != kNone) fixed_[find(v)] = true;
  }
  int64_t channels(ValueId v) const {
    const TensorType& type = g_.type(v);
    return type.dim() >= 2 && type.dims[1].known() ? type.dims[1].size() : -1;
  }
  void unite(ValueId a, ValueId b) {
    if (channels(a) < 0 || channels(a) != channels(b) || spread(a) != spread(b))
      return fix(a), fix(b);
    const size_t i = find(a), j = find(b);
    parent_[j] = i;
    fixed_[i] = fixed_[i] || fixed_[j];
  }

  void add(NodeId n, const std::vector<int>& uses) {
    const Node& node = g_.node(n);
    if (node.kind == NodeKind::constant || node.kind == NodeKind::input) return;
    const ValueId y = node.outputs[0];
    const std::string activation =
        node.attrs.has("activation") ? node.attrs.get_string("activation") : "none";
    const bool homogeneous = activation == "none" || activation == "relu";
    if (auto layer = layer_of(g_, uses, n)) {
      // Channels of a linear layer are dimension 1 of two.
      const bool flat = node.op != "linear" || (g_.type(y).dim() == 2);
      if (flat && channels(y) == layer->out() && channels(layer->x) == layer->in()) {
        if (!homogeneous) fix(y);
        layers.push_back(std::move(*layer));
        return;
      }
    } else if (node.kind == NodeKind::call && node.outputs.size() == 1) {
      const ValueId x = node.inputs.empty() ? kNone : node.inputs[0];
      if (x != kNone && passes_factors(g_, node)) return unite(x, y);
      if (over_positions(node)) return unite(x, y);
      if ((node.op == "add" || node.op == "sub" || node.op == "maximum") && homogeneous &&
          !g_.is_constant(x) && !g_.is_constant(node.inputs[1])) {
        unite(x, y);
        return unite(node.inputs[1], y);
      }
      if (node.op == "mul" && homogeneous) {
        const ValueId other = node.inputs[1];
        if (g_.is_constant(other)) return unite(x, y);
        if (!g_.is_constant(x)) {
          // The factors go through the operand that is not broadcast.
          const bool second = channels(x) == channels(y) && !(g_.type(x).dims == g_.type(y).dims);
          fix(second ? x : other);
          return unite(second ? other : x, y);
        }
      }
      if (node.op == "flatten" || node.op == "reshape" || node.op == "squeeze")
        return keep_channels(x, y);
    }
    for (ValueId v : node.inputs)
      if (v != kNone && !g_.is_constant(v)) fix(v);
    for (ValueId v : node.outputs) fix(v);
  }

  bool over_positions(const Node& node) const {
    if ((node.op != "mean" && node.op != "amax" && node.op != "sum") || node.inputs.size() != 1 ||
        !node.attrs.has("dim"))
      return false;
    const auto& dims = node.attrs.get_ints("dim");
    return !dims.empty() && std::all_of(dims.begin(), dims.end(), [&](int64_t d) {
      return (d < 0 ? d + g_.type(node.inputs[0]).dim() : d) >= 2;
    });
  }

  // (N, C, ...) to (N, C * ...).
  void keep_channels(ValueId x, ValueId y) {
    const TensorType &from = g_.type(x), &to = g_.type(y);
    int64_t positions = 1;
    for (size_t d = 2; d < from.dims.size(); ++d)
      positions *= from.dims[d].known() ? from.dims[d].size() : 0;
    const bool kept = channels(x) > 0 && to.dim() == 2 && from.dims[0] == to.dims[0] &&
                      positions > 0 && channels(y) == channels(x) * positions;
    if (!kept) return fix(x), fix(y);
    const size_t i = find(x), j = find(y);
    parent_[j] = i;
    fixed_[i] = fixed_[i] || fixed_[j];
    spread_[static_cast<size_t>(y)] = spread(x) * positions;
  }

  const Graph& g_;
  std::vector<size_t> parent_;
  std::vector<int64_t> spread_;
  std::vector<bool> fixed_;
};

// -- relu6 ----------------------------------------------------------------------------------------

// The upper limit of a node that cuts its operand to 0 and that; infinity for others.
double upper_limit(const Node& node) {
  if (node.kind != NodeKind::call) return kNoLimit;
  if (node.op == "relu6") return 6;
  if (node.op == "clamp" && node.attrs.get_double("min") == 0) return node.attrs.get_double("max");
  if (node.attrs.has("activation") && node.attrs.get_string("activation") == "relu6") return 6;
  return kNoLimit;
}

struct LimitedValue {
  ValueId value;
  double limit;
  std::vector<double> largest;  // of each channel over all samples
};

// Runs the graph and finds the largest values of each channel (dimension 1).
void find_largest(const Graph& g, const SampleBatches& samples, std::vector<LimitedValue>& values,
                  bool least = false) {
  const runtime::Program program = runtime::compile(g, {.every_value = true});
  std::vector<ValueId> ids;
  for (const LimitedValue& v : values) ids.push_back(v.value);
  for (const auto& batch : samples)
    program.run_watched(batch, ids, [&](ValueId id, const Tensor& t) {
      for (LimitedValue& v : values) {
        if (v.value != id || t.dim() < 2) continue;
        const Tensor x = t.contiguous();
        const int64_t channels = x.size(1), inner = x.numel() / (x.size(0) * channels);
        v.largest.resize(static_cast<size_t>(channels),
                         least ? static_cast<double>(kNoLimit) : -static_cast<double>(kNoLimit));
        const float* p = x.data<float>();
        for (int64_t i = 0; i < x.numel(); ++i) {
          double& most = v.largest[static_cast<size_t>(i / inner % channels)];
          most = least ? std::min<double>(most, p[i]) : std::max<double>(most, p[i]);
        }
      }
    });
}

// Every relu6 (and clamp from 0 on) as relu, and where samples reach the limit a minimum with a
// constant behind it. `limits`: those, by the constants' names.
Graph without_relu6(const Graph& g, const SampleBatches& samples, std::vector<std::string>& names,
                    std::map<std::string, LimitedValue>& limits) {
  std::vector<LimitedValue> values;
  for (const Node& node : g.nodes())
    if (!std::isinf(upper_limit(node)) && g.type(node.outputs[0]).dim() >= 2)
      values.push_back({node.outputs[0], upper_limit(node), {}});
  if (values.empty()) return g;
  find_largest(g, samples, values);
  graph::Rewriter rewriter(g);
  return rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::call) return false;
    const auto it = std::find_if(values.begin(), values.end(),
                                 [&](const LimitedValue& v) { return v.value == node.outputs[0]; });
    if (it == values.end()) return false;
    const std::string name = g.value(node.outputs[0]).name;
    names.push_back(name);
    const bool reached = std::any_of(it->largest.begin(), it->largest.end(),
                                     [&](double most) { return most >= it->limit; });
    Attrs attrs = node.attrs;
    const bool fused = node.op != "relu6" && node.op != "clamp";
    if (fused)
      attrs.set("activation", "relu");
    else
      attrs = {};
    ValueId y = r.out().add_call(reached ? name + ".relu" : name, fused ? node.op : "relu",
                                 r.operands(node), attrs, std::nullopt, node.scope);
    if (reached) {
      Shape shape(static_cast<size_t>(g.type(node.outputs[0]).dim()), 1);
      shape[1] = std::ssize(it->largest);
      const std::string limit = name + ".limit";
      y = r.out().add_call(name, "minimum",
                           {y, r.out().add_constant(limit, Tensor::full(shape, it->limit))}, {},
                           std::nullopt, node.scope);
      limits[limit] = *it;
    }
    r.map(node.outputs[0], y);
    return true;
  });
}

// -- factors --------------------------------------------------------------------------------------

struct FactorGroup {
  std::vector<std::pair<GraphLayer*, int64_t>> consumers;  // and features for each channel
  std::vector<GraphLayer*> producers;
  std::vector<double> factors;
  double moved = 0;
};

// The ranges of the weights on one side of a group, by channel.
struct SideRanges {
  std::vector<double> low, high;
  explicit SideRanges(size_t channels) : low(channels, 0.0), high(channels, 0.0) {}
  void add(size_t channel, double w) {
    low[channel] = std::min(low[channel], w);
    high[channel] = std::max(high[channel], w);
  }
  void merge_into(std::vector<double>& ranges) const {
    for (size_t c = 0; c < ranges.size(); ++c) ranges[c] = std::max(ranges[c], high[c] - low[c]);
  }
};

void equalize_group(FactorGroup& group) {
  const size_t channels = group.factors.size();
  std::vector<double> before(channels, 0.0), behind(channels, 0.0);
  for (GraphLayer* layer : group.producers) {
    SideRanges side(channels);
    layer->for_each([&](int64_t, int64_t out, double w) { side.add(static_cast<size_t>(out), w); });
    side.merge_into(before);
  }
  for (auto& [layer, spread] : group.consumers) {
    SideRanges side(channels);
    layer->for_each([&, s = spread](int64_t in, int64_t, double w) {
      side.add(static_cast<size_t>(in / s), w);
    });
    side.merge_into(behind);
  }
  const double most_before = *std::max_element(before.begin(), before.end()),
               most_behind = *std::max_element(behind.begin(), behind.end());
  std::vector<double> factor(channels, 1.0);
  group.moved = 0;
  for (size_t c = 0; c < channels; ++c) {
    // What is smaller than the others' rounding does nothing, and would be blown up.
    if (before[c] <= 0x1p-23 * most_before || behind[c] <= 0x1p-23 * most_behind) continue;
    factor[c] = std::sqrt(behind[c] / before[c]);
    group.factors[c] *= factor[c];
    group.moved = std::max(group.moved, std::abs(factor[c] - 1));
  }
  for (GraphLayer* layer : group.producers) {
    layer->for_each(
        [&](int64_t, int64_t out, double& w) { w *= factor[static_cast<size_t>(out)]; });
    for (size_t c = 0; c < layer->b.size(); ++c) layer->b[c] *= factor[c];
  }
  for (auto& [layer, spread] : group.consumers)
    layer->for_each([&, s = spread](int64_t in, int64_t, double& w) {
      w /= factor[static_cast<size_t>(in / s)];
    });
}

}  // namespace

Graph cross_layer_equalization(const Graph& source, const SampleBatches& samples,
                               const CrossLayerEqualizationOptions& options,
                               CrossLayerEqualizationReport* report) {
  CrossLayerEqualizationReport local;
  CrossLayerEqualizationReport& result = report ? *report : local;
  result = {};
  Graph g = with_folded_norms(source, "cross_layer_equalization");
  std::map<std::string, LimitedValue> limits;
  if (options.replace_relu6 && !samples.empty())
    g = without_relu6(g, samples, result.replaced_relu6, limits);
  // minimum with a constant lets factors pass if the constant has them.
  Graph followed = g;
  for (size_t n = 0; n < followed.nodes().size(); ++n) {
    Node& node = followed.node(static_cast<NodeId>(n));
    if (node.kind == NodeKind::call && node.op == "minimum" && node.inputs[1] != kNone &&
        limits.count(g.value(node.inputs[1]).name))
      node.op = "identity", node.inputs.resize(1);
  }
  FactorGroups found(followed);
  std::map<size_t, FactorGroup> groups;
  for (GraphLayer& layer : found.layers) {
    if (!found.is_fixed(layer.y)) {
      FactorGroup& group = groups[found.find(layer.y)];
      group.producers.push_back(&layer);
      group.factors.assign(static_cast<size_t>(layer.out()), 1.0);
    }
    if (!found.is_fixed(layer.x))
      groups[found.find(layer.x)].consumers.emplace_back(&layer, found.spread(layer.x));
  }
  std::erase_if(groups, [](const auto& g) {
    return g.second.producers.empty() || g.second.consumers.empty();
  });
  for (int turn = 0; turn < options.turns; ++turn) {
    double moved = 0;
    for (auto& [root, group] : groups) {
      equalize_group(group);
      moved = std::max(moved, group.moved);
    }
    if (moved < 1e-4) break;
  }
  for (const auto& [root, group] : groups) {
    CrossLayerEqualizationReport::Group entry{{}, {}, group.factors};
    for (const GraphLayer* layer : group.producers)
      entry.producers.push_back(node_name(g, g.node(layer->node)));
    for (const auto& [layer, spread] : group.consumers)
      entry.consumers.push_back(node_name(g, g.node(layer->node)));
    result.groups.push_back(std::move(entry));
  }
  // Limits have their channels' factors; none lies above all that was seen of the tensor, so that
  // limits do not widen its range.
  for (auto& [name, limited] : limits) {
    const ValueId constant = *g.find(name);
    const Node& node = g.node(g.users(constant)[0]);
    const auto group = groups.find(found.find(node.outputs[0]));
    std::vector<double> scaled(limited.largest.size(), limited.limit);
    double most = 0;
    for (size_t c = 0; c < scaled.size(); ++c) {
      const double factor = group == groups.end() ? 1 : group->second.factors[c];
      scaled[c] *= factor;
      most = std::max(most, std::min(limited.limit, limited.largest[c]) * factor);
    }
    for (double& limit : scaled) limit = std::min(limit, most);
    Node& holder = g.node(g.value(constant).producer);
    holder.value = Tensor::from(scaled, holder.value.shape()).to(DType::float32);
  }
  return with_layers(g, found.layers);
}

// -- biases ---------------------------------------------------------------------------------------

Graph absorb_high_biases(const Graph& source, const SampleBatches& samples) {
  OCTET_CHECK(!samples.empty(), invalid_argument, "absorb_high_biases: no samples");
  const Graph g = with_folded_norms(source, "absorb_high_biases");
  const std::vector<int> uses = g.use_counts();
  std::map<NodeId, GraphLayer> layers;
  for (size_t n = 0; n < g.nodes().size(); ++n)
    if (auto layer = layer_of(g, uses, static_cast<NodeId>(n)))
      layers.emplace(static_cast<NodeId>(n), std::move(*layer));
  // The relu's result behind a layer, and its readers, all of them layers without padding.
  struct Place {
    NodeId layer;
    std::vector<NodeId> readers;
  };
  std::vector<Place> places;
  std::vector<LimitedValue> values;
  for (auto& [n, layer] : layers) {
    const Node& node = g.node(n);
    ValueId y = layer.y;
    if (g.type(y).dim() < 2 || (node.op == "linear" && g.type(y).dim() != 2)) continue;
    if (node.attrs.get_string("activation") == "none") {
      const Node* next = only_reader(g, y);
      if (!next || next->op != "relu") continue;
      y = next->outputs[0];
    } else if (node.attrs.get_string("activation") != "relu") {
      continue;
    }
    Place place{n, {}};
    bool all = std::count(g.outputs().begin(), g.outputs().end(), y) == 0;
    for (NodeId user : g.users(y)) {
      const Node& reader = g.node(user);
      const auto it = layers.find(user);
      all = all && it != layers.end() && reader.inputs[0] == y && it->second.in() == layer.out() &&
            !it->second.transposed;
      if (!all) break;
      if (reader.op != "linear")
        for (int64_t p : reader.attrs.get_ints("padding")) all = all && p == 0;
      place.readers.push_back(user);
    }
    if (!all || place.readers.empty()) continue;
    places.push_back(std::move(place));
    values.push_back({y, kNoLimit, {}});
  }
  if (places.empty()) return g;
  find_largest(g, samples, values, true);
  for (size_t i = 0; i < places.size(); ++i) {
    GraphLayer& layer = layers.at(places[i].layer);
    const std::vector<double>& least = values[i].largest;
    if (std::none_of(least.begin(), least.end(), [](double v) { return v > 0; })) continue;
    layer.b.resize(static_cast<size_t>(layer.out()), 0.0);
    for (size_t c = 0; c < least.size(); ++c) layer.b[c] -= std::max(0.0, least[c]);
    for (NodeId n : places[i].readers) {
      GraphLayer& reader = layers.at(n);
      reader.b.resize(static_cast<size_t>(reader.out()), 0.0);
      reader.for_each([&](int64_t in, int64_t out, double w) {
        reader.b[static_cast<size_t>(out)] += w * std::max(0.0, least[static_cast<size_t>(in)]);
      });
    }
  }
  std::vector<GraphLayer> all;
  for (auto& [n, layer] : layers) all.push_back(std::move(layer));
  return with_layers(g, all);
}

}  // namespace octet::quant
