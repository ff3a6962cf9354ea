#include "octet/quant/algorithms/batch_norm_reestimation.h"

#include <algorithm>

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

struct ChannelStatistics {
  std::vector<double> mean, variance;
};

// Of dimension 1, in two passes.
ChannelStatistics statistics_of(const GraphRun& run, ValueId x, size_t channels) {
  ChannelStatistics s{std::vector<double>(channels, 0.0), std::vector<double>(channels, 0.0)};
  double count = 0;
  for (const bool second : {false, true}) {
    count = 0;
    for (size_t b = 0; b < run.batches(); ++b) {
      const Tensor t = run.value(x, b).contiguous();
      const int64_t images = t.size(0),
                    inner = t.numel() / std::max<int64_t>(1, images * t.size(1));
      const float* p = t.data<float>();
      for (int64_t i = 0; i < images; ++i)
        for (size_t c = 0; c < channels; ++c) {
          double sum = 0;
          for (int64_t j = 0; j < inner; ++j) {
            const double v = static_cast<double>(*p++);
            sum += second ? (v - s.mean[c]) * (v - s.mean[c]) : v;
          }
          (second ? s.variance : s.mean)[c] += sum;
        }
      count += static_cast<double>(images * inner);
    }
    for (double& v : second ? s.variance : s.mean) v /= std::max(count, 1.0);
  }
  return s;
}

}  // namespace

Graph reestimate_batch_norms(const Graph& graph, const Samples& samples,
                             std::vector<std::string>* names) {
  OCTET_CHECK(!samples.empty(), invalid_argument, "reestimate_batch_norms: no samples");
  autograd::NoGrad no_grad;
  if (names) names->clear();
  GraphRun run(graph, samples);
  Graph result = graph;
  const std::vector<int> uses = graph.use_counts();
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const auto n = static_cast<NodeId>(i);
    const Node& node = graph.node(n);
    const bool norm = node.kind == NodeKind::call && node.op == "batch_norm" &&
                      std::all_of(node.inputs.begin() + 1, node.inputs.end(),
                                  [&](ValueId v) { return v != kNone && graph.is_constant(v); });
    if (!norm || uses[static_cast<size_t>(node.inputs[3])] != 1 ||
        uses[static_cast<size_t>(node.inputs[4])] != 1) {
      run.compute(n);
      continue;
    }
    const Shape shape = graph.constant(node.inputs[3]).shape();
    const ChannelStatistics s =
        statistics_of(run, node.inputs[0], static_cast<size_t>(numel(shape)));
    const Tensor mean = Tensor::from(s.mean, shape).to(DType::float32),
                 variance = Tensor::from(s.variance, shape).to(DType::float32);
    result.node(result.value(node.inputs[3]).producer).value = mean;
    result.node(result.value(node.inputs[4]).producer).value = variance;
    std::vector<Tensor> y;
    for (size_t b = 0; b < run.batches(); ++b)
      y.push_back(ops::call("batch_norm",
                            {run.value(node.inputs[0], b), run.value(node.inputs[1], b),
                             run.value(node.inputs[2], b), mean, variance},
                            node.attrs));
    run.set(n, std::move(y));
    if (names) names->push_back(graph.value(node.outputs[0]).name);
  }
  return result;
}

}  // namespace octet::quant
