#include "octet/quant/algorithms/smooth_quant.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"
#include "octet/quant/decide/decide.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

namespace {

// A value whose features can be scaled, what computes it and what reads it.
struct SmoothPlace {
  ValueId value;
  NodeId source;  // a layer_norm or linear
  std::vector<NodeId> readers;
  int64_t features = 0;
  // Of all samples, by feature; h: the sum of x x^T, if it is wanted.
  std::vector<double> largest, sum, h;
  double rows = 0;
};

bool is_own_constant(const Graph& g, const std::vector<int>& uses, ValueId v) {
  return v != kNone && g.is_constant(v) && uses[static_cast<size_t>(v)] == 1;
}

// The layer_norm or linear that computes a value, with a relu behind it or without; -1: neither.
NodeId source_of(const Graph& g, const std::vector<int>& uses, ValueId v) {
  const Node* node = &g.producer(v);
  if (node->kind == NodeKind::call && node->op == "relu") {
    v = node->inputs[0];
    if (uses[static_cast<size_t>(v)] != 1) return -1;
    node = &g.producer(v);
  }
  if (node->kind != NodeKind::call || node->inputs.size() < 2) return -1;
  const NodeId id = g.value(v).producer;
  if (node->op == "linear") {
    const std::string& activation = node->attrs.get_string("activation");
    return (activation == "none" || activation == "relu") &&
                   is_own_constant(g, uses, node->inputs[1])
               ? id
               : -1;
  }
  if (node->op != "layer_norm" || !is_own_constant(g, uses, node->inputs[1])) return -1;
  const int64_t axis = node->attrs.get_int("axis");
  return axis == -1 || axis == g.type(v).dim() - 1 ? id : -1;
}

std::vector<SmoothPlace> find_places(const Graph& g) {
  const std::vector<int> uses = g.use_counts();
  std::vector<SmoothPlace> places;
  for (size_t i = 0; i < g.values().size(); ++i) {
    const auto v = static_cast<ValueId>(i);
    if (g.is_constant(v) || uses[i] == 0) continue;
    const NodeId source = source_of(g, uses, v);
    if (source < 0) continue;
    SmoothPlace place{v, source, g.users(v), 0, {}, {}, {}};
    bool fits = std::ssize(place.readers) == uses[i];  // it is no output of the graph
    for (NodeId n : place.readers) {
      const Node& reader = g.node(n);
      fits = fits && reader.kind == NodeKind::call && reader.op == "linear" &&
             reader.inputs[0] == v && is_own_constant(g, uses, reader.inputs[1]);
    }
    if (!fits || place.readers.empty()) continue;
    place.features = g.constant(g.node(place.readers[0]).inputs[1]).size(1);
    // A bias that others read cannot be scaled.
    const Node& maker = g.node(source);
    const ValueId bias = maker.inputs.size() > 2 ? maker.inputs[2] : kNone;
    if (bias != kNone && !is_own_constant(g, uses, bias)) continue;
    places.push_back(std::move(place));
  }
  return places;
}

void measure(const Graph& g, const std::vector<std::vector<Tensor>>& samples,
             std::vector<SmoothPlace>& places, bool moments) {
  if (places.empty()) return;
  std::vector<ValueId> ids;
  for (SmoothPlace& place : places) {
    ids.push_back(place.value);
    place.largest.assign(static_cast<size_t>(place.features), 0.0);
    place.sum = place.largest;
    if (moments) place.h.assign(static_cast<size_t>(place.features * place.features), 0.0);
  }
  const runtime::Program program = runtime::compile(g, {.every_value = true});
  for (const auto& batch : samples)
    program.run_watched(batch, ids, [&](ValueId id, const Tensor& t) {
      for (SmoothPlace& place : places) {
        if (place.value != id) continue;
        const Tensor x = t.contiguous().reshape({-1, place.features});
        const float* p = x.data<float>();
        for (int64_t r = 0; r < x.size(0); ++r)
          for (size_t j = 0; j < place.largest.size(); ++j) {
            const double magnitude = std::abs(static_cast<double>(*p++));
            place.largest[j] = std::max(place.largest[j], magnitude);
            place.sum[j] += magnitude;
          }
        place.rows += static_cast<double>(x.size(0));
        if (!moments) continue;
        const Tensor h = ops::call_all("linear_backward_weight", {x, x}, {{"bias", false}})[0];
        for (size_t i = 0; i < place.h.size(); ++i)
          place.h[i] += static_cast<double>(h.data<float>()[i]);
      }
    });
}

// Row-major weights of a reader.
Tensor& held(Graph& g, ValueId constant) { return g.node(g.value(constant).producer).value; }

void apply_factors(Graph& g, const SmoothPlace& place, const std::vector<double>& factors) {
  const auto features = static_cast<int64_t>(factors.size());
  for (NodeId n : place.readers) {
    Tensor& holder = held(g, g.node(n).inputs[1]);
    Tensor w = holder.clone();
    for (int64_t i = 0; i < w.numel(); ++i) {
      float& v = w.data<float>()[i];
      v = static_cast<float>(static_cast<double>(v) * factors[static_cast<size_t>(i % features)]);
    }
    holder = w;
  }
  const Node& source = g.node(place.source);
  for (size_t operand = 1; operand < source.inputs.size() && operand < 3; ++operand) {
    if (source.inputs[operand] == kNone) continue;
    Tensor& holder = held(g, source.inputs[operand]);
    Tensor t = holder.clone();
    const int64_t inner = t.numel() / features;  // of a linear's weight
    for (int64_t i = 0; i < t.numel(); ++i) {
      float& v = t.data<float>()[i];
      v = static_cast<float>(static_cast<double>(v) / factors[static_cast<size_t>(i / inner)]);
    }
    holder = t;
  }
}

// Moves scales of the places; `choose` gives a place's factors from the graph as it is by then, and
// is asked before the first of them changes anything.
Graph move_scales(
    const Graph& source, const std::vector<std::vector<Tensor>>& samples, bool moments,
    const char* who, SmoothQuantReport* report,
    const std::function<std::vector<double>(const Graph&, const SmoothPlace&)>& choose) {
  OCTET_CHECK(!samples.empty(), invalid_argument, "{}: no samples", who);
  Graph g = graph::fold_batch_norm(graph::fold_biases(graph::constants_second(source)));
  std::vector<SmoothPlace> places = find_places(g);
  measure(g, samples, places, moments);
  SmoothQuantReport local;
  SmoothQuantReport& result = report ? *report : local;
  result = {};
  for (const SmoothPlace& place : places) {
    const std::vector<double> factors = choose(g, place);
    apply_factors(g, place, factors);
    SmoothQuantReport::Entry entry{g.value(place.value).name, {}, {}};
    for (NodeId n : place.readers) entry.layers.push_back(node_name(g, g.node(n)));
    entry.factors.assign(factors.begin(), factors.end());
    result.entries.push_back(std::move(entry));
  }
  return g;
}

// Each weight as its nearest code's value: symmetric codes, a scale for `group` inputs of a row.
void round_rows(Tensor& w, int bits, int64_t group) {
  const int64_t k = w.size(1);
  const auto most = static_cast<float>((1 << (bits - 1)) - 1);
  for (int64_t o = 0; o < w.size(0); ++o)
    for (int64_t begin = 0; begin < k; begin += group) {
      float* p = w.data<float>() + o * k + begin;
      const int64_t n = std::min(group, k - begin);
      float largest = 0;
      for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(p[i]));
      const float scale = largest > 0 ? largest / most : 1;
      for (int64_t i = 0; i < n; ++i) p[i] = std::nearbyintf(p[i] / scale) * scale;
    }
}

}  // namespace

Graph smooth_quant(const Graph& graph, const std::vector<std::vector<Tensor>>& samples,
                   const SmoothQuantOptions& options, SmoothQuantReport* report) {
  OCTET_CHECK(options.alpha >= 0 && options.alpha <= 1, invalid_argument,
              "smooth_quant: expected alpha within 0..1, got {}", options.alpha);
  return move_scales(graph, samples, false, "smooth_quant", report,
                     [&](const Graph& g, const SmoothPlace& place) {
                       std::vector<double> of_weights(place.largest.size(), 0.0),
                           factors(place.largest.size(), 1.0);
                       for (NodeId n : place.readers) {
                         const Tensor w = g.constant(g.node(n).inputs[1]).contiguous();
                         for (int64_t i = 0; i < w.numel(); ++i) {
                           double& most = of_weights[static_cast<size_t>(i % place.features)];
                           most = std::max(most, std::abs(static_cast<double>(w.data<float>()[i])));
                         }
                       }
                       for (size_t j = 0; j < factors.size(); ++j)
                         if (place.largest[j] > 0 && of_weights[j] > 0)
                           factors[j] = std::pow(place.largest[j], options.alpha) /
                                        std::pow(of_weights[j], 1 - options.alpha);
                       return factors;
                     });
}

Graph awq(const Graph& graph, const std::vector<std::vector<Tensor>>& samples,
          const AWQOptions& options, SmoothQuantReport* report) {
  OCTET_CHECK(
      options.bits >= 2 && options.bits <= 8 && options.group_size >= 0 && options.steps >= 1,
      invalid_argument, "awq: bits {}, group_size {}, steps {}; expected 2..8, 0.., 1..",
      options.bits, options.group_size, options.steps);
  return move_scales(
      graph, samples, true, "awq", report, [&](const Graph& g, const SmoothPlace& place) {
        const int64_t k = place.features;
        const Tensor h = Tensor::from(place.h, {k, k}).to(DType::float32);
        std::vector<double> best(static_cast<size_t>(k), 1.0);
        double least = std::numeric_limits<double>::infinity();
        for (int step = 0; step < options.steps; ++step) {
          const double alpha = static_cast<double>(step) / options.steps;
          std::vector<double> factors(static_cast<size_t>(k), 1.0);
          for (size_t j = 0; j < factors.size(); ++j)
            factors[j] = std::max(1e-4, std::pow(place.sum[j] / std::max(place.rows, 1.0), alpha));
          const auto [low, high] = std::minmax_element(factors.begin(), factors.end());
          const double middle = std::sqrt(*low * *high);
          for (double& f : factors) f /= middle;
          double error = 0;
          for (NodeId n : place.readers) {
            const Tensor w = g.constant(g.node(n).inputs[1]).contiguous();
            Tensor rounded = w.clone();
            float* p = rounded.data<float>();
            for (int64_t i = 0; i < w.numel(); ++i)
              p[i] *= static_cast<float>(factors[static_cast<size_t>(i % k)]);
            round_rows(rounded, options.bits, options.group_size > 0 ? options.group_size : k);
            for (int64_t i = 0; i < w.numel(); ++i)
              p[i] = p[i] / static_cast<float>(factors[static_cast<size_t>(i % k)]) -
                     w.data<float>()[i];
            const Tensor eh = ops::call("matmul", {rounded, h});
            for (int64_t i = 0; i < w.numel(); ++i)
              error += static_cast<double>(p[i]) * static_cast<double>(eh.data<float>()[i]);
          }
          if (error < least) least = error, best = factors;
        }
        return best;
      });
}

}  // namespace octet::quant
