#include "octet/debug/losses.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/workflow/findings.h"
#include "octet/runtime/program.h"

namespace octet::debug {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using quant::node_name;

namespace {

// The value of the quantized graph that stands for the float graph's: of its name, or its codes.
std::optional<ValueId> counterpart(const Graph& after, const std::string& name) {
  if (auto codes = after.find(name + ".quantized"); codes && after.type(*codes).is_quantized())
    return codes;
  return after.find(name);
}

// By value of `before`: its SQNR in `after`; NaN where it has no counterpart there.
std::vector<double> sqnr_of_values(const Graph& before, const Graph& after,
                                   const std::vector<Tensor>& inputs) {
  std::map<ValueId, ValueId> other;  // of before -> of after
  std::vector<ValueId> wanted, others;
  std::set<ValueId> taken;  // of after
  for (const Node& node : before.nodes()) {
    if (node.kind != NodeKind::call) continue;
    for (ValueId v : node.outputs) {
      auto id = before.type(v).dtype == DType::float32 ? counterpart(after, before.value(v).name)
                                                       : std::nullopt;
      if (!id || after.is_constant(*id) || after.producer(*id).kind == NodeKind::input) continue;
      if (!is_floating(after.type(*id).dtype) && !after.type(*id).is_quantized()) continue;
      if (!taken.insert(*id).second) continue;
      other[v] = *id;
      wanted.push_back(v);
      others.push_back(*id);
    }
  }
  // The quantized network's values are kept: they are a quarter as large.
  std::map<ValueId, Tensor> quantized;
  runtime::compile(after, {.every_value = true})
      .run_watched(inputs, others, [&](ValueId v, const Tensor& x) { quantized[v] = x.clone(); });
  std::vector<double> result(before.values().size(), NAN);
  runtime::compile(before, {.every_value = true})
      .run_watched(inputs, wanted, [&](ValueId v, const Tensor& expected) {
        ErrorStatistics s;
        const auto x = quantized.extract(other.at(v));
        if (expected.shape() != x.mapped().shape()) return;
        s.add(expected, x.mapped());
        result[static_cast<size_t>(v)] = std::isnan(s.sqnr()) ? -INFINITY : s.sqnr();
      });
  return result;
}

// The node, of those that lead to the output, where the error grows most; "" if none is known.
std::string worst_place(const Graph& g, const std::vector<double>& sqnr, ValueId output) {
  constexpr double kGood = 40;  // what is better than that is as good as any
  std::vector<bool> leads(g.values().size(), false);
  leads[output] = true;
  for (size_t n = g.nodes().size(); n-- > 0;) {
    const Node& node = g.nodes()[n];
    if (std::none_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return leads[v]; }))
      continue;
    for (ValueId v : node.inputs)
      if (v != kNone) leads[v] = true;
  }
  std::vector<double> known(g.values().size(), kGood);
  double most = 0;
  std::string place;
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::call) continue;
    double in = kGood;
    for (ValueId v : node.inputs)
      if (v != kNone) in = std::min(in, known[v]);
    for (ValueId v : node.outputs) {
      known[v] = std::isnan(sqnr[v]) ? in : std::clamp(sqnr[v], -kGood, kGood);
      if (!leads[v] || in - known[v] <= most) continue;
      most = in - known[v];
      place = fmt::format("{} ({}), from {} to {:.1f} dB", node_name(g, node), node.op,
                          in == kGood ? "40 dB or more" : fmt::format("{:.1f}", in), sqnr[v]);
      place = fmt::format("the error grows most at {}; leave that float (--skip '{}')", place,
                          node_name(g, node));
    }
  }
  return place;
}

}  // namespace

std::vector<std::string> poor_outputs(const Graph& before, const Graph& after,
                                      const std::vector<ErrorStatistics>& outputs,
                                      const std::vector<Tensor>& inputs) {
  std::vector<std::string> lines;
  std::vector<double> sqnr;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].sqnr() >= kPoorSqnr || outputs[i].noise() == 0) continue;
    if (sqnr.empty()) sqnr = sqnr_of_values(before, after, inputs);
    const ValueId v = before.outputs()[i];
    std::string place = worst_place(before, sqnr, v),
                db = fmt::format("{:.1f} dB", outputs[i].sqnr());
    lines.push_back(
        fmt::format("output %{} has an SQNR of {}, under {:.0f} dB: {}, or try another --observer "
                    "(mse, minmax, percentile), more "
                    "samples, or `octet qat`",
                    before.value(v).name, db, kPoorSqnr,
                    place.empty() ? "leave some nodes float (--skip NODE)" : place));
  }
  return lines;
}

std::vector<std::string> find_losses(const Graph& before, const Graph& after,
                                     const std::vector<std::vector<Tensor>>& samples) {
  OCTET_CHECK(!samples.empty(), invalid_argument, "find_losses: no samples");
  OCTET_CHECK(before.outputs().size() == after.outputs().size(), invalid_argument,
              "find_losses: {} has {} outputs, {} has {}", before.name, before.outputs().size(),
              after.name, after.outputs().size());
  const auto qtype_of = [&](ValueId v) -> std::optional<ops::QType> {
    auto id = counterpart(after, before.value(v).name);
    if (!id || !after.type(*id).is_quantized() || after.type(*id).quantizer->is_per_channel())
      return std::nullopt;
    return ops::QType{after.type(*id).dtype, after.type(*id).quantizer};
  };
  std::vector<ValueId> watched = quant::compared_operands(before);
  for (size_t v = 0; v < before.values().size(); ++v)
    if (!before.is_constant(static_cast<ValueId>(v)) && qtype_of(static_cast<ValueId>(v)))
      watched.push_back(static_cast<ValueId>(v));
  std::sort(watched.begin(), watched.end());
  watched.erase(std::unique(watched.begin(), watched.end()), watched.end());
  runtime::Program a = runtime::compile(before, {.every_value = true}), b = runtime::compile(after);
  std::vector<ErrorStatistics> noise(before.outputs().size());
  quant::SampleRanges ranges;
  int64_t first = 0;
  for (const std::vector<Tensor>& inputs : samples) {
    const int64_t batch = inputs.empty() || inputs[0].dim() == 0 ? 1 : inputs[0].size(0);
    auto p = a.run_watched(inputs, watched,
                           [&](ValueId v, const Tensor& x) { ranges.add(v, x, first, batch); });
    auto q = b.run(inputs);
    for (size_t i = 0; i < noise.size(); ++i)
      if (is_floating(p[i].dtype())) noise[i].add(p[i], q[i]);
    first += batch;
  }
  std::vector<std::string> lines = poor_outputs(before, after, noise, samples[0]);
  for (std::string& line : quant::lost_ranges(before, ranges, qtype_of))
    lines.push_back(std::move(line));
  return lines;
}

}  // namespace octet::debug
