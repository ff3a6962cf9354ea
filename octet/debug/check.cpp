#include "octet/debug/check.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/debug/explain.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/observe/observer.h"
#include "octet/runtime/program.h"

namespace octet::debug {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

int64_t Check::nodes() const {
  int64_t n = 0;
  for (const CheckedKind& kind : kinds) n += kind.nodes;
  return n;
}

int64_t Check::quantized() const {
  int64_t n = 0;
  for (const CheckedKind& kind : kinds) n += kind.quantized;
  return n;
}

void Check::collect(const std::function<void()>& what) {
  try {
    what();
  } catch (const Error& e) {
    add_problem(e);
  }
}

void Check::require_ok() const {
  if (problems.empty()) return;
  if (problems.size() == 1) fail(problems[0].code, problems[0].message);
  std::string text = fmt::format("{} problems:", problems.size());
  for (size_t i = 0; i < problems.size(); ++i)
    text += fmt::format("{} ({}) {}", i ? ";" : "", i + 1, problems[i].message);
  fail(problems[0].code, text);
}

namespace {

// -- weights --------------------------------------------------------------------------------------

// "3, 17, 20 and 9 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const size_t shown = std::min(names.size(), kShown);
  std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

struct NotFinite {
  int64_t nans = 0, infinities = 0, first = -1;
};

NotFinite count_not_finite(const Tensor& t) {
  NotFinite found;
  const float* p = t.data<float>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    if (std::isfinite(p[i])) continue;
    if (found.first < 0) found.first = i;
    ++(std::isnan(p[i]) ? found.nans : found.infinities);
  }
  return found;
}

// The largest magnitude in each channel.
std::vector<double> channel_magnitudes(const Tensor& weight, int64_t axis) {
  const auto d = static_cast<size_t>(axis);
  const Shape& shape = weight.shape();
  int64_t inner = 1;
  for (size_t i = d + 1; i < shape.size(); ++i) inner *= shape[i];
  std::vector<double> magnitudes(static_cast<size_t>(shape[d]), 0);
  const float* p = weight.data<float>();
  for (int64_t i = 0; i < weight.numel(); ++i) {
    double& m = magnitudes[static_cast<size_t>(i / inner % shape[d])];
    m = std::max(m, std::abs(static_cast<double>(p[i])));
  }
  return magnitudes;
}

class WeightCheck {
 public:
  WeightCheck(Check& check, const Graph& graph, const CheckOptions& options)
      : check_(check), g_(graph), options_(options) {}

  // By value: whether it is a weight that is not finite.
  std::vector<bool> run() {
    std::vector<bool> broken(g_.values().size(), false);
    for (const Node& node : g_.nodes()) {
      if (node.kind != NodeKind::call) continue;
      const quant::BackendPatternConfig* config = options_.prepare.backend.find_op(node.op);
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const ValueId v = node.inputs[i];
        if (v == kNone || !g_.is_constant(v) || g_.type(v).dtype != DType::float32) continue;
        if (!seen_.insert(v).second) continue;
        const bool weight =
            config && quant::operand_role(g_, node, i, config) == quant::OperandRole::weight;
        const bool finite = is_finite(node, v, weight);
        if (!weight) continue;
        broken[static_cast<size_t>(v)] = !finite;
        if (finite) look_at_channels(node, v);
      }
    }
    return broken;
  }

 private:
  std::string name(const Node& node, ValueId v) const {
    return fmt::format("{} of {} ({})", g_.value(v).name, quant::node_name(g_, node), node.op);
  }

  // An infinity in another constant than a weight has a meaning (a mask, a bound).
  bool is_finite(const Node& node, ValueId v, bool weight) {
    const Tensor value = g_.constant(v).contiguous();
    const NotFinite found = count_not_finite(value);
    if (found.nans == 0 && (found.infinities == 0 || !weight)) return true;
    std::vector<std::string> counts;
    if (found.nans) counts.push_back(fmt::format("{} NaN", found.nans));
    if (found.infinities) counts.push_back(fmt::format("{} infinite", found.infinities));
    const std::string message = fmt::format("{}: {} of {} values, the first at {}", name(node, v),
                                            fmt::join(counts, " and "), value.numel(), found.first);
    if (weight)
      check_.problems.push_back({ErrorCode::invalid_argument,
                                 message + "; a weight must be finite: train or save it again"});
    else
      check_.warnings.push_back(message + "; what is computed with it is NaN");
    return false;
  }

  void look_at_channels(const Node& node, ValueId v) {
    const Tensor weight = g_.constant(v).contiguous();
    if (weight.dim() == 0 || weight.numel() == 0) return;
    const auto factory =
        quant::weight_observer(g_, v, quant::default_per_channel_weight_observer());
    const int64_t axis = std::min(factory.options().ch_axis, weight.dim() - 1);
    const std::vector<double> magnitudes = channel_magnitudes(weight, axis);
    std::vector<std::string> dead;
    for (size_t c = 0; c < magnitudes.size(); ++c)
      if (magnitudes[c] == 0) dead.push_back(std::to_string(c));
    if (dead.size() == magnitudes.size()) {
      check_.warnings.push_back(fmt::format("{}: all {} values are zero; the layer says nothing",
                                            name(node, v), weight.numel()));
      return;
    }
    if (!dead.empty())
      check_.warnings.push_back(fmt::format("{}: {} of {} output channels {} all zero: {}",
                                            name(node, v), dead.size(), magnitudes.size(),
                                            dead.size() == 1 ? "is" : "are", some_of(dead)));
    look_for_outliers(node, v, magnitudes);
  }

  void look_for_outliers(const Node& node, ValueId v, const std::vector<double>& magnitudes) {
    std::vector<double> alive;
    for (double m : magnitudes)
      if (m > 0) alive.push_back(m);
    if (alive.size() < 3) return;
    const auto middle = alive.begin() + std::ssize(alive) / 2;
    std::nth_element(alive.begin(), middle, alive.end());
    const double median = *middle;
    std::vector<std::string> large;
    double largest = 0;
    for (size_t c = 0; c < magnitudes.size(); ++c) {
      if (magnitudes[c] < kOutlierChannel * median) continue;
      large.push_back(std::to_string(c));
      largest = std::max(largest, magnitudes[c]);
    }
    if (large.empty()) return;
    const auto& global = options_.mapping.global_qconfig();
    const bool per_channel = global && quant::is_per_channel(global->weight.options().qscheme);
    check_.warnings.push_back(fmt::format(
        "{}: output channel{} {} {} up to {:.0f} times as large as the median channel; {}",
        name(node, v), large.size() == 1 ? "" : "s", some_of(large),
        large.size() == 1 ? "is" : "are", largest / median,
        per_channel
            ? "each channel has its own scale, but what it computes has one for all channels"
            : "with one scale for all, the others keep few codes: quantize it per channel"));
  }

  Check& check_;
  const Graph& g_;
  const CheckOptions& options_;
  std::set<ValueId> seen_;
};

// With zeros in place of weights that are broken, so that all else can be asked. Such a graph is
// never quantized: that there is such a weight is a problem.
Graph without_broken(const Graph& graph, const std::vector<bool>& broken) {
  if (std::find(broken.begin(), broken.end(), true) == broken.end()) return graph;
  graph::Rewriter rewriter(graph);
  return rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::constant || !broken[static_cast<size_t>(node.outputs[0])])
      return false;
    r.map(node.outputs[0], r.out().add_constant(graph.value(node.outputs[0]).name,
                                                Tensor::zeros(node.value.shape())));
    return true;
  });
}

// -- operators ------------------------------------------------------------------------------------

// The calls of a graph by operator; `reason_of` gives why a call stays float, or null where it will
// be 8 bits.
void add_kinds(Check& check, const Graph& g,
               const std::function<const std::string*(const Node&)>& reason_of) {
  std::map<std::string, CheckedKind> kinds;
  std::set<ValueId> counted;
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::call) continue;
    CheckedKind& kind = kinds[node.op];
    kind.op = node.op;
    ++kind.nodes;
    for (ValueId v : node.inputs) {
      if (v == kNone) continue;
      // The weight itself, not its observer's result.
      const Node& from = g.producer(v);
      const ValueId w = from.kind == NodeKind::module && !from.inputs.empty() ? from.inputs[0] : v;
      if (w == kNone || !g.is_constant(w) || !counted.insert(w).second) continue;
      kind.weight_bytes += g.constant(w).nbytes();
    }
    const std::string* reason = reason_of(node);
    if (!reason) {
      ++kind.quantized;
      continue;
    }
    auto& left = kind.left_float;
    auto at = std::find_if(left.begin(), left.end(),
                           [&](const LeftFloat& l) { return l.reason == *reason; });
    if (at == left.end()) at = left.insert(left.end(), {*reason, {}});
    at->nodes.push_back(quant::node_name(g, node));
  }
  for (auto& [op, kind] : kinds) check.kinds.push_back(std::move(kind));
  std::stable_sort(check.kinds.begin(), check.kinds.end(),
                   [](const CheckedKind& a, const CheckedKind& b) {
                     return std::pair(a.weight_bytes, a.nodes) > std::pair(b.weight_bytes, b.nodes);
                   });
}

void decide_from(Check& check, const quant::ObservedGraphModule& prepared) {
  const Graph& g = prepared.graph();
  check.decided = true;
  add_kinds(check, g, [&](const Node& node) -> const std::string* {
    const auto d = prepared.decisions().find(g.value(node.outputs[0]).name);
    static const std::string unknown = "nothing was decided about it";
    if (d == prepared.decisions().end()) return &unknown;
    return d->second.mode ? nullptr : &d->second.reason;
  });
}

// Where prepare_fx refused: what decide() says of the graph as it is, or only the operators.
void decide_without(Check& check, const Graph& g, const CheckOptions& options) {
  std::vector<quant::NodeDecision> decisions;
  try {
    decisions =
        quant::decide(g, options.mapping, options.prepare.backend, {.skip = options.prepare.skip});
    check.decided = std::none_of(g.values().begin(), g.values().end(),
                                 [](const graph::Value& v) { return v.type.is_quantized(); });
  } catch (const Error&) {  // said by prepare_fx: a pattern or a mapping that fits nothing
  }
  const std::string none;
  add_kinds(check, g, [&](const Node& node) -> const std::string* {
    if (!check.decided) return &none;
    const auto n = static_cast<size_t>(g.value(node.outputs[0]).producer);
    return decisions[n].mode ? nullptr : &decisions[n].reason;
  });
  if (!check.decided)
    for (CheckedKind& kind : check.kinds) kind.left_float.clear();
}

// Bytes of constants, those that an observer stands behind as its codes.
int64_t quantized_bytes(const quant::ObservedGraphModule& prepared) {
  const Graph& g = prepared.graph();
  std::vector<int64_t> bytes(g.values().size(), 0);
  for (const Node& node : g.nodes())
    if (node.kind == NodeKind::constant)
      bytes[static_cast<size_t>(node.outputs[0])] = node.value.nbytes();
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::module || node.inputs.empty() || !g.is_constant(node.inputs[0]))
      continue;
    const nn::ModulePtr module = prepared.submodule(node.scope);
    const auto* observer = dynamic_cast<const quant::Observer*>(module.get());
    if (!observer || !is_quantized(observer->options().dtype)) continue;
    bytes[static_cast<size_t>(node.inputs[0])] = static_cast<int64_t>(
        storage_bytes(observer->options().dtype, g.constant(node.inputs[0]).numel()));
  }
  int64_t sum = 0;
  for (int64_t n : bytes) sum += n;
  return sum;
}

double median_ms(const runtime::Program& program, const std::vector<Tensor>& inputs,
                 double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto run = [&] {
    const auto start = Clock::now();
    program.run(inputs);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  if (run() > 10 * seconds) return NAN;  // warms up
  std::vector<double> times;
  double sum = 0;
  while (times.size() < 3 || (sum < seconds && times.size() < 1000)) {
    times.push_back(run());
    sum += times.back();
  }
  std::sort(times.begin(), times.end());
  return 1e3 * times[times.size() / 2];
}

}  // namespace

Check check(const Graph& graph, const CheckOptions& options) {
  Check result;
  for (const Node& node : graph.nodes())
    if (node.kind == NodeKind::constant) result.float_weight_bytes += node.value.nbytes();
  const Graph whole = without_broken(graph, WeightCheck(result, graph, options).run());
  try {
    result.prepared = quant::prepare_fx(whole, options.mapping, options.prepare);
    decide_from(result, *result.prepared);
    result.quantized_weight_bytes = quantized_bytes(*result.prepared);
  } catch (const Error& e) {
    result.add_problem(e);
    result.prepared.reset();
    result.kinds.clear();
    decide_without(result, graph, options);
  }
  result.collect([&] { runtime::compile(whole); });
  return result;
}

void check_run(Check& check, const Graph& graph, const std::vector<Tensor>& inputs, bool made_up,
               double seconds) {
  if (!check.prepared) return;
  try {
    const runtime::Program before = runtime::compile(graph);
    const Explanation products = explain(before, {inputs}, {.seconds = 0});
    check.multiply_adds = 0;
    for (const ExplainedStep& step : products.steps) check.multiply_adds += step.multiply_adds;
    const auto trial =
        std::static_pointer_cast<quant::ObservedGraphModule>(check.prepared->clone());
    trial->forward(inputs);
    const runtime::Program after = runtime::compile(quant::convert_fx(trial)->graph());
    check.float_ms = median_ms(before, inputs, seconds);
    check.int8_ms = median_ms(after, inputs, seconds);
    check.float_memory_bytes = static_cast<int64_t>(before.arena_bytes(inputs));
    check.int8_memory_bytes = static_cast<int64_t>(after.arena_bytes(inputs));
  } catch (const Error& e) {
    check.not_run = e.what();
    if (!made_up) check.add_problem(e);
  }
}

}  // namespace octet::debug
