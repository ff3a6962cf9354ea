#include "octet/quant/algorithms/split_outliers.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/quant/decide/decide.h"

namespace octet::quant {

using graph::Graph;
using graph::Node;
using graph::NodeKind;

namespace {

bool may_be_split(const Graph& g, const Node& node) {
  const bool conv = node.op == "conv1d" || node.op == "conv2d" || node.op == "conv3d";
  return node.kind == NodeKind::call && (conv || node.op == "linear") &&
         (!conv || node.attrs.get_int("groups") == 1) && g.is_constant(node.inputs[1]) &&
         g.constant(node.inputs[1]).dtype() == DType::float32;
}

// The largest magnitude of each channel of a weight (outputs, channels, ...).
std::vector<float> largest_of_channels(const Tensor& weight) {
  const int64_t channels = weight.size(1), taps = weight.numel() / (weight.size(0) * channels);
  std::vector<float> largest(static_cast<size_t>(channels));
  const float* w = weight.data<float>();
  for (int64_t o = 0; o < weight.size(0); ++o)
    for (float& most : largest)
      for (int64_t t = 0; t < taps; ++t) most = std::max(most, std::abs(*w++));
  return largest;
}

float median_of(std::vector<float> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A weight with more channels: where each comes from, and how often that was halved.
struct SplitPlan {
  std::vector<int64_t> source, halvings;
  std::vector<int64_t> split;  // in the order of splits
  float before = 0, after = 0;
};

SplitPlan split_plan(const Tensor& weight, const SplitOutliersOptions& options) {
  SplitPlan plan;
  std::vector<float> largest = largest_of_channels(weight);
  const auto channels = std::ssize(largest);
  const double threshold = options.outlier * static_cast<double>(median_of(largest));
  for (int64_t c = 0; c < channels; ++c) plan.source.push_back(c);
  plan.halvings.assign(largest.size(), 0);
  plan.before = *std::max_element(largest.begin(), largest.end());
  const auto most =
      std::max<int64_t>(1, static_cast<int64_t>(options.ratio * static_cast<double>(channels)));
  while (std::ssize(plan.split) < most) {
    const auto k =
        static_cast<size_t>(std::max_element(largest.begin(), largest.end()) - largest.begin());
    if (!(static_cast<double>(largest[k]) > threshold) || threshold == 0) break;
    largest[k] /= 2;
    ++plan.halvings[k];
    largest.push_back(largest[k]);
    plan.source.push_back(plan.source[k]);
    plan.halvings.push_back(plan.halvings[k]);
    plan.split.push_back(plan.source[k]);
  }
  plan.after = *std::max_element(largest.begin(), largest.end());
  return plan;
}

Tensor split_weight(const Tensor& weight, const SplitPlan& plan) {
  Shape shape = weight.shape();
  const int64_t channels = shape[1], taps = weight.numel() / (shape[0] * channels);
  shape[1] = std::ssize(plan.source);
  Tensor result = Tensor::empty(shape);
  const float* w = weight.data<float>();
  float* out = result.data<float>();
  for (int64_t o = 0; o < shape[0]; ++o)
    for (size_t c = 0; c < plan.source.size(); ++c) {
      const float* from = w + (o * channels + plan.source[c]) * taps;
      for (int64_t t = 0; t < taps; ++t)
        *out++ = std::ldexp(from[t], -static_cast<int>(plan.halvings[c]));
    }
  return result;
}

}  // namespace

Graph split_outliers(const Graph& graph, const SplitOutliersOptions& options,
                     SplitOutliersReport* report) {
  OCTET_CHECK(options.ratio > 0 && options.outlier >= 1, invalid_argument,
              "split_outliers: ratio {}, outlier {}; expected a ratio above 0, and 1 or more",
              options.ratio, options.outlier);
  if (report) *report = {};
  const Graph source = graph::fold_batch_norm(graph);
  graph::Rewriter rewriter(source);
  return graph::remove_dead(rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (!may_be_split(source, node)) return false;
    const Tensor weight = source.constant(node.inputs[1]).contiguous();
    if (weight.numel() == 0) return false;
    const SplitPlan plan = split_plan(weight, options);
    if (plan.split.empty()) return false;
    Graph& g = r.out();
    const std::string& name = source.value(node.outputs[0]).name;
    const int64_t dim = node.op == "linear" ? source.type(node.inputs[0]).dim() - 1 : 1;
    std::vector<graph::ValueId> operands = r.operands(node);
    const Tensor index = Tensor::from(plan.source, {std::ssize(plan.source)});
    operands[0] = g.add_call(name + ".channels", "index_select",
                             {operands[0], g.add_constant(name + ".split", index)}, {{"dim", dim}});
    operands[1] =
        g.add_constant(source.value(node.inputs[1]).name + ".split", split_weight(weight, plan));
    const auto results = g.add_calls(name, node.op, operands, node.attrs, std::nullopt, node.scope);
    r.map(node.outputs[0], results[0]);
    if (report)
      report->layers.push_back({node_name(source, node), plan.split,
                                static_cast<double>(plan.before), static_cast<double>(plan.after)});
    return true;
  }));
}

}  // namespace octet::quant
