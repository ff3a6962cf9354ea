#include <algorithm>
#include <chrono>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/debug/compare_impl.h"
#include "octet/debug/metrics.h"
#include "octet/graph/graph_module.h"
#include "octet/quant/observe/factory.h"
#include "octet/runtime/program.h"

namespace octet::debug {
namespace {

using detail::Match;
using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

// Beyond that the observers of all layers, each with a histogram, would take too much memory.
constexpr size_t kMostLayers = 500;

class Adviser {
 public:
  Adviser(Comparison& c, const Graph& f, const Graph& q, const Samples& samples,
          const AdviceOptions& options)
      : c_(c),
        f_(f),
        q_(q),
        options_(options),
        match_(detail::match(f, q)),
        start_(std::chrono::steady_clock::now()) {
    const int64_t count = std::min(samples.count, options.samples);
    // Few at a time: all values of a batch may be in memory at once.
    const int64_t step = std::min<int64_t>(samples.batch, 4);
    const bool fixed = f.type(f.inputs().at(0)).dim() == 0 || f.type(f.inputs()[0]).dims[0].known();
    for (int64_t i = 0; i < count;) {
      const int64_t size = std::min(fixed ? samples.batch : step, count - i);
      begins_.push_back(i);
      inputs_.push_back(samples.get(i, size).inputs);
      i += size;
    }
  }

  void run() {
    std::vector<size_t> worst;
    for (size_t i : c_.ranking) {
      if (static_cast<int64_t>(worst.size()) >= options_.layers) break;
      const LayerComparison& l = c_.layers[i];
      if (!(l.noise_share > 0 || l.fault != Fault::none)) continue;
      worst.push_back(i);
    }
    if (worst.empty()) return;
    observe(worst);
    now_ = measure(q_);
    if (std::isnan(now_)) return;
    try_all();
    const double with_all = now_;
    for (size_t i : worst) {
      LayerComparison& l = c_.layers[i];
      // What one sample spoils for the others is measured on those: its own error is large anyway.
      left_out_ = l.fault == Fault::outlier ? l.stretched_by : -1;
      now_ = left_out_ >= 0 ? measure(q_) : with_all;
      if (std::isnan(now_)) continue;
      if (l.fault == Fault::left_float) {
        try_codes(l);
        continue;
      }
      if (!std::isfinite(now_)) continue;  // nothing to gain
      try_weights(l);
      try_observers(l);
      if (left_out_ >= 0) try_without(l);
      try_float(l);
      std::stable_sort(l.trials.begin(), l.trials.end(),
                       [](const Trial& a, const Trial& b) { return a.gain > b.gain; });
    }
  }

 private:
  bool is_late() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() >
           options_.seconds;
  }

  std::optional<ValueId> value_of(const LayerComparison& l) const { return f_.find(l.value); }
  // The node of the float graph; -1 of an input.
  NodeId node_of(const LayerComparison& l) const {
    const auto v = value_of(l);
    return v && l.op != "input" ? f_.value(*v).producer : -1;
  }

  // Shows the float values of these layers to observers, and keeps the float results.
  void observe(const std::vector<size_t>& layers) {
    std::vector<ValueId> watched;
    int64_t outlier = -1;  // the first such sample
    for (size_t i : layers)
      if (outlier < 0 && c_.layers[i].fault == Fault::outlier) outlier = c_.layers[i].stretched_by;
    for (size_t i = 0; i < c_.layers.size(); ++i) {
      const LayerComparison& l = c_.layers[i];
      const bool is_worst = std::find(layers.begin(), layers.end(), i) != layers.end();
      const auto v = value_of(l);
      if (v && is_worst && l.fault == Fault::left_float && l.scale == 0) {
        // Its result has no codes yet.
        watched.push_back(*v);
        results_[*v] = quant::make_observer("mse");
      }
      if (!v || !l.own_scale || l.scale == 0 || (!is_worst && c_.layers.size() > kMostLayers))
        continue;
      watched.push_back(*v);
      const TensorType& type = q_.type(match_.codes[*v]);
      const bool symmetric = type.dtype == DType::qint8 && type.quantizer->zero_point() == 0;
      const quant::ObserverOptions options{
          .dtype = type.dtype,
          .qscheme = symmetric ? quant::ObserverScheme::per_tensor_symmetric
                               : quant::ObserverScheme::per_tensor_affine};
      if (outlier >= 0) without_[*v] = quant::make_observer("minmax", options);
      for (const char* name :
           is_worst ? std::vector<const char*>{"minmax", "mse", "percentile", "histogram"}
                    : std::vector<const char*>{"minmax", "mse"})
        observers_[*v].emplace_back(name, quant::make_observer(name, options));
    }
    Graph scores = f_;  // of the same values
    if (const Node& last = f_.producer(f_.outputs()[0]);
        f_.outputs().size() == 1 && last.op == "softmax")
      scores.set_outputs({last.inputs[0]});
    const runtime::Program program = runtime::compile(scores, {.engine = {}, .every_value = true});
    for (size_t b = 0; b < inputs_.size(); ++b) {
      const auto show = [&](ValueId v, const Tensor& value) {
        if (results_.count(v)) results_.at(v)->observe(value);
        if (!observers_.count(v)) return;
        for (auto& [name, observer] : observers_.at(v)) observer->observe(value);
        if (outlier >= 0)
          for (const Tensor& part : without_sample(b, value, outlier))
            without_.at(v)->observe(part);
      };
      expected_.push_back(program.run_watched(inputs_[b], watched, show).at(0));
    }
  }

  // A value of the batch without that sample: the part before it, and the part behind.
  std::vector<Tensor> without_sample(size_t batch, const Tensor& value, int64_t sample) const {
    const int64_t at = sample - begins_[batch], size = inputs_[batch].at(0).size(0);
    if (at < 0 || at >= size || value.dim() == 0 || value.size(0) != size) return {value};
    std::vector<Tensor> parts;
    if (at > 0) parts.push_back(value.slice(0, 0, at).contiguous());
    if (at + 1 < size) parts.push_back(value.slice(0, at + 1, size).contiguous());
    return parts;
  }

  // The first output's SQNR of a graph, without the sample that is left out; of a classifier that
  // of its scores, for a softmax makes more of some samples than of others.
  double measure(const Graph& g) const {
    const runtime::Program program = runtime::compile(graph::without_final_softmax(g));
    ErrorStatistics error;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const std::vector<Tensor> x = without_sample(i, expected_[i], left_out_),
                                y = without_sample(i, program.run(inputs_[i]).at(0), left_out_);
      for (size_t k = 0; k < x.size(); ++k) error.add(x[k], y[k]);
    }
    return error.sqnr();
  }

  void add(LayerComparison& l, const std::string& what, const std::optional<Graph>& g) {
    if (!g || is_late()) return;
    const double sqnr = measure(*g);
    if (std::isnan(sqnr)) return;
    l.trials.push_back({what, sqnr, sqnr - now_});
  }

  // One observer for all layers.
  void try_all() {
    if (c_.layers.size() > kMostLayers || !std::isfinite(now_)) return;
    for (size_t k = 0; k < 2; ++k) {
      detail::Quantizers all;
      std::string name;
      for (const auto& [v, observers] : observers_) {
        if (observers.at(k).second->empty()) continue;
        all.emplace_back(match_.codes[v], observers[k].second->calculate_qparams().quantizer);
        name = observers[k].first;
      }
      if (all.empty() || is_late()) return;
      const std::optional<Graph> g = detail::with_quantizers(q_, all);
      const double sqnr = g ? measure(*g) : NAN;
      if (!std::isnan(sqnr))
        c_.trials.push_back(
            {fmt::format("observer {} for all {} layers", name, all.size()), sqnr, sqnr - now_});
    }
    std::stable_sort(c_.trials.begin(), c_.trials.end(),
                     [](const Trial& a, const Trial& b) { return a.gain > b.gain; });
  }

  void try_weights(LayerComparison& l) {
    const NodeId n = node_of(l);
    if (n < 0 || match_.node[n] < 0 || std::isnan(l.weight_sqnr)) return;
    const auto place = detail::weight_operand(f_, f_.node(n));
    // What is quantized per channel from its own range would become what it is.
    if (!place || (l.per_channel_weights && l.fault != Fault::dead_channel &&
                   l.fault != Fault::scale_too_large))
      return;
    add(l, "per-channel weights",
        detail::with_weight(q_, match_.node[n], f_.constant(f_.node(n).inputs[*place])));
  }

  // Milliseconds of both, in turns: the least of some runs.
  static std::pair<double, double> times(const runtime::Program& a, const runtime::Program& b,
                                         const std::vector<Tensor>& x) {
    std::pair<double, double> best{INFINITY, INFINITY};
    for (int turn = 0; turn < 12; ++turn)
      for (const bool first : {true, false}) {
        const auto start = std::chrono::steady_clock::now();
        (void)(first ? a : b).run(x);
        const double ms =
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                .count();
        double& least = first ? best.first : best.second;
        if (turn > 1) least = std::min(least, ms);
      }
    return best;
  }

  void try_codes(LayerComparison& l) {
    const NodeId n = node_of(l);
    const auto v = value_of(l);
    if (n < 0 || match_.node[n] < 0 || is_late()) return;
    ops::QType result;
    if (match_.codes[*v] != kNone) {
      const TensorType& type = q_.type(match_.codes[*v]);
      result = {type.dtype, type.quantizer};
    } else if (results_.count(*v) && !results_.at(*v)->empty()) {
      result.quantizer = results_.at(*v)->calculate_qparams().quantizer;
    } else {
      return;
    }
    const std::optional<Graph> g = detail::with_codes(q_, match_.node[n], result);
    if (!g) return;
    const double sqnr = measure(*g);
    const auto [now, then] = times(runtime::compile(q_), runtime::compile(*g), inputs_.at(0));
    if (!std::isnan(sqnr)) l.trials.push_back({"quantize it", sqnr, sqnr - now_, now / then});
  }

  void try_observers(LayerComparison& l) {
    const auto v = value_of(l);
    if (!v || !observers_.count(*v)) return;
    const ValueId codes = match_.codes[*v];
    std::vector<QuantizerPtr> tried{q_.type(codes).quantizer};
    for (const auto& [name, observer] : observers_.at(*v)) {
      if (is_late() || observer->empty()) return;
      const QuantizerPtr quantizer = observer->calculate_qparams().quantizer;
      if (std::any_of(tried.begin(), tried.end(),
                      [&](const QuantizerPtr& other) { return *other == *quantizer; }))
        continue;
      tried.push_back(quantizer);
      add(l, "observer " + name, detail::with_quantizers(q_, {{codes, quantizer}}));
    }
  }

  // The range of every layer without the sample that stretches this one.
  void try_without(LayerComparison& l) {
    detail::Quantizers all;
    for (const auto& [v, observer] : without_)
      if (!observer->empty())
        all.emplace_back(match_.codes[v], observer->calculate_qparams().quantizer);
    add(l, fmt::format("all ranges without sample {}", left_out_),
        detail::with_quantizers(q_, all));
  }

  void try_float(LayerComparison& l) {
    const NodeId n = node_of(l);
    if (n < 0 || match_.node[n] < 0 || !l.quantized) return;
    if (l.fault != Fault::unlike_scales) {
      add(l, "leave float", detail::with_float(f_, q_, match_, {n}));
      return;
    }
    // Its readers have to take the floats, too.
    std::set<NodeId> nodes{n};
    for (ValueId v : f_.node(n).outputs)
      for (NodeId user : f_.users(v)) nodes.insert(user);
    for (ValueId v : f_.node(n).inputs)
      if (v != kNone && f_.producer(v).kind == NodeKind::call) nodes.insert(f_.value(v).producer);
    add(l, "leave it, its operands and its readers float",
        detail::with_float(f_, q_, match_, nodes));
  }

  Comparison& c_;
  const Graph &f_, &q_;
  const AdviceOptions& options_;
  const Match match_;
  const std::chrono::steady_clock::time_point start_;
  std::vector<std::vector<Tensor>> inputs_;
  std::vector<int64_t> begins_;  // by batch: its first sample
  int64_t left_out_ = -1;        // the sample that is not measured; -1: none
  std::vector<Tensor> expected_;
  std::map<ValueId, std::vector<std::pair<std::string, quant::ObserverPtr>>> observers_;
  std::map<ValueId, quant::ObserverPtr> without_;  // the sample with the outlier, if there is one
  std::map<ValueId, quant::ObserverPtr> results_;  // of layers that were left float
  double now_ = 0;
};

}  // namespace

void advise(Comparison& comparison, const Graph& float_graph, const Graph& quantized,
            const Samples& samples, const AdviceOptions& options) {
  Adviser(comparison, float_graph, quantized, samples, options).run();
}

}  // namespace octet::debug
