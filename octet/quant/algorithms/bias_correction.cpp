#include "octet/quant/algorithms/bias_correction.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/quant/algorithms/layerwise_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

namespace {

// The layer's results, of each batch of a run of its network, before the activation.
std::vector<Tensor> results_of(const PreparedLayer& layer, const GraphRun& run, NodeId node,
                               const Tensor& weight, const Tensor& bias) {
  std::vector<Tensor> results;
  for (size_t b = 0; b < run.batches(); ++b)
    results.push_back(
        layer_result(layer, run.value(run.graph().node(node).inputs[0], b), weight, bias));
  return results;
}

std::vector<Tensor> activated(const PreparedLayer& layer, std::vector<Tensor> results) {
  if (layer.activation != "none")
    for (Tensor& y : results) y = ops::call(layer.activation, {y});
  return results;
}

}  // namespace

void correct_bias(ObservedGraphModule& prepared, const Samples& samples,
                  const BiasCorrectionOptions& options) {
  autograd::NoGrad no_grad;
  LayerwiseRun run(prepared, samples, {options.float_graph}, "correct_bias");
  NodeId f = 0, q = 0;
  for (size_t i = 0; i < run.layers.size(); ++i, ++f, ++q) {
    const PreparedLayer& layer = run.layers[i];
    for (; f < run.float_nodes[i]; ++f) run.floats.compute(f);
    for (; q < run.code_nodes[i]; ++q) run.codes.compute(q);
    const Node& node = run.floats.graph().node(f);
    const Tensor weight = run.floats.value(node.inputs[1], 0),
                 bias = run.floats.value(node.inputs.size() > 2 ? node.inputs[2] : kNone, 0);
    LayerResults results{
        .floats = results_of(layer, run.floats, f, weight, bias),
        .rounded = results_of(layer, run.codes, q, rounded_weight(prepared, layer), bias),
        .kept = run.kept_range(i)};
    results.channel_dim = channel_dim(layer, results.floats.at(0));
    const std::vector<float> shift = bias_shift(results);
    set_corrected_bias(prepared, layer, bias, shift);
    if (options.progress) options.progress(i + 1, run.layers.size());
    if (i + 1 == run.layers.size()) return;
    // What follows is computed from here: no result is computed twice.
    for (Tensor& y : results.rounded) add_to_channels(y, results.channel_dim, shift);
    run.floats.set(f, activated(layer, std::move(results.floats)));
    run.codes.set(q, activated(layer, std::move(results.rounded)));
  }
}

// -- without data ---------------------------------------------------------------------------------

ClippedNormal clipped_normal(double mean, double deviation, double low, double high) {
  if (deviation <= 0) return {std::clamp(mean, low, high), 0};
  const auto cdf = [](double z) { return std::erfc(-z / std::sqrt(2.0)) / 2; };
  const auto pdf = [](double z) {
    return std::isinf(z) ? 0 : std::exp(-z * z / 2) / std::sqrt(2 * 3.141592653589793);
  };
  // z times its density, which is 0 at infinity.
  const auto z_pdf = [&](double z) { return std::isinf(z) ? 0 : z * pdf(z); };
  const double a = (low - mean) / deviation, b = (high - mean) / deviation;
  const double below = cdf(a), above = cdf(-b), inside = std::max(0.0, 1 - below - above);
  const double first = mean * inside + deviation * (pdf(a) - pdf(b));
  const double second = (mean * mean + deviation * deviation) * inside +
                        2 * mean * deviation * (pdf(a) - pdf(b)) +
                        deviation * deviation * (z_pdf(a) - z_pdf(b));
  const auto at = [](double chance, double value) { return chance > 0 ? chance * value : 0; };
  const double m = first + at(below, low) + at(above, high);
  const double square = second + at(below, low * low) + at(above, high * high);
  return {m, std::max(0.0, square - m * m)};
}

namespace {

struct ChannelMoments {
  std::vector<double> mean, variance;  // by channel; empty: not known
};

bool keeps_channel_means(const std::string& op) {
  return op == "identity" || op == "dropout" || op == "clone" || op.starts_with("avg_pool") ||
         op.starts_with("adaptive_avg_pool");
}

class MomentFinder {
 public:
  explicit MomentFinder(const Graph& g) : g_(g), moments_(g.values().size()) {
    for (const Node& node : g.nodes())
      if (node.kind == NodeKind::call) moments_[static_cast<size_t>(node.outputs[0])] = of(node);
  }
  const ChannelMoments& operator()(ValueId v) const { return moments_[static_cast<size_t>(v)]; }

 private:
  ChannelMoments operand(const Node& node, size_t i) const {
    return node.inputs[i] == kNone ? ChannelMoments{}
                                   : moments_[static_cast<size_t>(node.inputs[i])];
  }

  static ChannelMoments clipped(ChannelMoments m, double low, double high) {
    for (size_t c = 0; c < m.mean.size(); ++c) {
      const auto cut = clipped_normal(m.mean[c], std::sqrt(m.variance[c]), low, high);
      m.mean[c] = cut.mean;
      m.variance[c] = cut.variance;
    }
    return m;
  }

  static ChannelMoments activated(ChannelMoments m, const std::string& activation) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    if (activation == "none") return m;
    return clipped(std::move(m), 0, activation == "relu6" ? 6 : kInf);
  }

  ChannelMoments of(const Node& node) const {
    if (node.inputs.empty()) return {};
    const std::string& op = node.op;
    if (op == "batch_norm") {
      ChannelMoments m;
      for (size_t i : {1, 2})
        if (!g_.is_constant(node.inputs[i])) return {};
      for (float v : g_.constant(node.inputs[2]).to_vector<float>()) m.mean.push_back(v);
      for (float v : g_.constant(node.inputs[1]).to_vector<float>())
        m.variance.push_back(static_cast<double>(v) * static_cast<double>(v));
      return m;
    }
    if (op == "relu" || op == "relu6") return activated(operand(node, 0), op);
    if (op == "clamp")
      return clipped(operand(node, 0), node.attrs.get_double("min"), node.attrs.get_double("max"));
    if (keeps_channel_means(op)) return operand(node, 0);
    // Over positions only.
    if (op == "mean" && node.inputs.size() == 1) {
      if (!node.attrs.has("dim")) return {};
      for (int64_t d : node.attrs.get_ints("dim"))
        if ((d < 0 ? d + g_.type(node.inputs[0]).dim() : d) < 2) return {};
      return operand(node, 0);
    }
    if (op == "add") {
      ChannelMoments a = operand(node, 0), b = operand(node, 1);
      if (a.mean.empty() || a.mean.size() != b.mean.size()) return {};
      for (size_t c = 0; c < a.mean.size(); ++c) {
        a.mean[c] += b.mean[c];
        a.variance[c] += b.variance[c];
      }
      return activated(std::move(a), node.attrs.get_string("activation"));
    }
    if (op == "cat" && node.attrs.get_int("dim") == 1) {
      ChannelMoments all;
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const ChannelMoments part = operand(node, i);
        if (part.mean.empty()) return {};
        all.mean.insert(all.mean.end(), part.mean.begin(), part.mean.end());
        all.variance.insert(all.variance.end(), part.variance.begin(), part.variance.end());
      }
      return all;
    }
    if (op == "flatten" || op == "reshape" || op == "squeeze") {
      ChannelMoments m = operand(node, 0);
      const TensorType& type = g_.type(node.outputs[0]);
      if (m.mean.empty() || type.dim() < 2 || !type.dims[1].known()) return {};
      const int64_t features = type.dims[1].size(), channels = std::ssize(m.mean);
      if (features % channels != 0) return {};
      ChannelMoments spread;
      for (int64_t i = 0; i < features; ++i) {
        const auto c = static_cast<size_t>(i / (features / channels));
        spread.mean.push_back(m.mean[c]);
        spread.variance.push_back(m.variance[c]);
      }
      return spread;
    }
    return {};
  }

  const Graph& g_;
  std::vector<ChannelMoments> moments_;
};

// (Q(W) - W) E[x] by channel of the result.
std::vector<double> expected_shift(const PreparedLayer& layer, const Tensor& error,
                                   const std::vector<double>& mean) {
  const Tensor e = error.contiguous();
  const int64_t rows = e.size(0), columns = e.size(1),
                inner = e.numel() / std::max<int64_t>(1, rows * columns);
  std::vector<double> shift(static_cast<size_t>(layer.channels), 0.0);
  const float* p = e.data<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < inner; ++i) sum += static_cast<double>(*p++);
      // A group's rows meet its own columns only.
      const int64_t other = r / (rows / layer.groups) * columns + c;
      const int64_t out = layer.transposed ? other : r, in = layer.transposed ? r : other;
      shift[static_cast<size_t>(out)] += sum * mean[static_cast<size_t>(in)];
    }
  return shift;
}

}  // namespace

AnalyticBiasCorrectionReport correct_bias_analytically(ObservedGraphModule& prepared,
                                                       const Graph& float_graph) {
  constexpr const char* kWho = "correct_bias_analytically";
  autograd::NoGrad no_grad;
  const MomentFinder moments(float_graph);
  AnalyticBiasCorrectionReport report;
  for (const PreparedLayer& layer : static_layers(prepared, kWho)) {
    const Graph& now = prepared.graph();
    const Node& node = now.producer(*now.find(layer.name));
    // The operand behind its observer has its name in the float graph.
    const Node& observer = now.producer(node.inputs[0]);
    const ValueId x = observer.kind == NodeKind::module ? observer.inputs[0] : node.inputs[0];
    const auto v = float_graph.find(now.value(x).name);
    const std::vector<double> mean = v ? moments(*v).mean : std::vector<double>();
    const Tensor weight = constant_now(prepared, layer.weight);
    const int64_t inputs = layer.transposed ? weight.size(0) : weight.size(1) * layer.groups;
    if (std::ssize(mean) != inputs) {
      report.unknown.push_back(layer.label);
      continue;
    }
    const auto shift =
        expected_shift(layer, ops::call("sub", {rounded_weight(prepared, layer), weight}), mean);
    std::vector<float> bias = layer.bias.empty()
                                  ? std::vector<float>(shift.size(), 0.F)
                                  : constant_now(prepared, layer.bias).to_vector<float>();
    for (size_t c = 0; c < bias.size(); ++c)
      bias[c] = static_cast<float>(static_cast<double>(bias[c]) - shift[c]);
    prepared.set_bias(layer.name, Tensor::from(bias, {layer.channels}));
    report.corrected.push_back(layer.label);
  }
  return report;
}

}  // namespace octet::quant
