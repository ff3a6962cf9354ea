#include "octet/quant/workflow/findings.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/observe/scan_impl.h"
#include "octet/runtime/program.h"
#include "octet/tensor/affine.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

// -- signal to noise
// -----------------------------------------------------------------------------------

void SignalToNoise::add(const Tensor& expected, const Tensor& actual) {
  auto numbers = [](const Tensor& t) {
    return (t.is_quantized() ? t.dequantize() : t.to(DType::float32)).contiguous();
  };
  Tensor x = numbers(expected), y = numbers(actual);
  OCTET_CHECK(x.shape() == y.shape(), invalid_argument, "signal to noise of shapes {} and {}",
              octet::to_string(x.shape()), octet::to_string(y.shape()));
  const float *px = x.data<float>(), *py = y.data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (!std::isfinite(px[i])) continue;
    double v = px[i], e = v - py[i];
    signal += v * v;
    noise += e * e;
  }
}

double SignalToNoise::db() const { return noise == 0 ? INFINITY : 10 * std::log10(signal / noise); }

// -- ranges of samples
// ---------------------------------------------------------------------------------

void SampleRanges::Range::add(const Range& other) {
  if (other.empty()) return;
  *this = empty() ? other : Range{std::min(min, other.min), std::max(max, other.max)};
}

SampleRanges::Range SampleRanges::Ranges::all() const {
  Range r = rest;
  r.add(largest);
  r.add(outliers);
  return r;
}

namespace {

constexpr float kOutlier = 256;  // times the largest of all other elements of its sample
constexpr int64_t kOneOutlierIn = 1000;

using Range = SampleRanges::Range;

// The range of the elements that are less than 1/256 of the largest, and how many are not; nullopt
// if these are more than few.
std::optional<std::pair<Range, int64_t>> without_outliers(const float* x, int64_t n,
                                                          float magnitude) {
  const float limit = magnitude / kOutlier;
  Range small{INFINITY, -INFINITY};
  int64_t large = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool is_small = std::abs(x[i]) < limit;
    large += !is_small;
    small.min = is_small ? std::min(small.min, x[i]) : small.min;
    small.max = is_small ? std::max(small.max, x[i]) : small.max;
  }
  if (large == n || large > std::max<int64_t>(1, n / kOneOutlierIn)) return std::nullopt;
  return std::pair(small, large);
}

void add_sample(SampleRanges::Ranges& r, const float* x, int64_t n, int64_t sample) {
  const detail::Extent e = detail::scan(x, n);
  if (!e.finite) return;  // the observers say so
  Range range{e.min, e.max};
  r.values += n;
  const float magnitude = range.magnitude(),
              before = std::max(r.rest.magnitude(), r.largest.magnitude());
  if (n > 1 && magnitude > kOutlier / 4 * before) {
    if (auto small = without_outliers(x, n, magnitude)) {
      const float outlier = -e.min > e.max ? e.min : e.max;
      if (std::abs(outlier) > std::abs(r.outlier)) {
        r.outlier = outlier;
        r.outlier_sample = sample;
      }
      r.outliers.add(range);
      r.outlier_count += small->second;
      range = small->first;
    }
  }
  if (r.largest.empty() || range.magnitude() > r.largest.magnitude()) {
    std::swap(r.largest, range);
    r.largest_sample = sample;
  }
  r.rest.add(range);
}

}  // namespace

void SampleRanges::add(ValueId value, const Tensor& x, int64_t first, int64_t batch) {
  if (x.numel() == 0 || !is_floating(x.dtype())) return;
  const Tensor d = detail::dense(x);
  const int64_t samples = x.dim() > 0 && x.size(0) == batch ? batch : 1, n = x.numel() / samples;
  for (int64_t i = 0; i < samples; ++i)
    add_sample(ranges_[value], d.data<float>() + i * n, n, first + i);
}

const SampleRanges::Ranges* SampleRanges::find(ValueId value) const {
  auto it = ranges_.find(value);
  return it == ranges_.end() ? nullptr : &it->second;
}

// -- ranges and scales
// ---------------------------------------------------------------------------------

namespace {

bool compares_operands(const Node& node) {
  return node.kind == NodeKind::call && (node.op == "cat" || node.op == "add" || node.op == "sub");
}

std::string to_string(const Range& r) { return fmt::format("[{:.4g}, {:.4g}]", r.min, r.max); }

std::string skip_options(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names)
    text += fmt::format("{}--skip '{}'", text.empty() ? "" : " ", name);
  return text;
}

using QTypeOf = std::function<std::optional<ops::QType>(ValueId)>;

// Who reads a value as codes: the nodes, of those that use it, whose results are codes.
std::vector<std::string> readers(const Graph& g, ValueId v, const QTypeOf& qtype_of) {
  std::vector<std::string> names;
  for (graph::NodeId user : g.users(v))
    if (const Node& node = g.node(user); !node.outputs.empty() && qtype_of(node.outputs[0]))
      names.push_back(node_name(g, node));
  return names;
}

void erased_operands(const Graph& g, const SampleRanges& ranges, const QTypeOf& qtype_of,
                     std::vector<std::string>& lines) {
  for (const Node& node : g.nodes()) {
    if (!compares_operands(node)) continue;
    const std::optional<ops::QType> q = qtype_of(node.outputs[0]);
    if (!q) continue;
    // What has to stay float for the result to keep its precision.
    std::vector<std::string> skip = readers(g, node.outputs[0], qtype_of);
    skip.insert(skip.begin(), node_name(g, node));
    std::vector<Range> all;
    size_t largest = 0;
    for (ValueId v : node.inputs) {
      const SampleRanges::Ranges* r = v == kNone ? nullptr : ranges.find(v);
      all.push_back(r ? r->all() : Range{});
      if (all.back().magnitude() > all[largest].magnitude()) largest = all.size() - 1;
    }
    const auto scale = static_cast<float>(q->quantizer->scale());
    for (size_t i = 0; i < all.size(); ++i) {
      if (i == largest || all[i].empty() || all[i].min == all[i].max ||
          all[i].max - all[i].min >= scale)
        continue;
      lines.push_back(fmt::format(
          "{} ({}): all values of operand %{}, range {}, lie within one step ({:.4g}) of the {} "
          "scale, "
          "which %{}, range {}, asks for: they "
          "are lost; leave these nodes float ({}), or bring the two ranges together in the network",
          node_name(g, node), node.op, g.value(node.inputs[i]).name, to_string(all[i]), scale,
          node.op == "cat" ? "common" : "result's", g.value(node.inputs[largest]).name,
          to_string(all[largest]), skip_options(skip)));
    }
  }
}

// Whether the codes tell no two values of the range apart though they differ.
bool is_one_code(const Range& r, const ops::QType& q) {
  if (r.empty() || r.min == r.max) return false;
  const auto scale = static_cast<float>(q.quantizer->scale());
  const auto zero = static_cast<int32_t>(q.quantizer->zero_point()),
             lo = static_cast<int32_t>(qmin(q.dtype)), hi = static_cast<int32_t>(qmax(q.dtype));
  return affine::quantize(r.min, scale, zero, lo, hi) ==
         affine::quantize(r.max, scale, zero, lo, hi);
}

// Whether PercentileObserver's default range leaves the outliers out: they are few enough, and its
// histogram tells the other values apart from 0.
bool percentile_helps(const SampleRanges::Ranges& r, const Range& inside) {
  const Range all = r.all();
  constexpr double kCutAtEachEnd = 0.00005, kBins = 8192, kBinsEnough = 4;
  return static_cast<double>(r.outlier_count) < kCutAtEachEnd * static_cast<double>(r.values) &&
         (static_cast<double>(inside.max) - inside.min) * kBins >
             kBinsEnough * (static_cast<double>(all.max) - all.min);
}

void outliers(const Graph& g, const SampleRanges& ranges, const QTypeOf& qtype_of,
              std::vector<std::string>& lines) {
  std::string first, cure;
  int more = 0;
  for (size_t i = 0; i < g.values().size(); ++i) {
    const auto v = static_cast<ValueId>(i);
    const SampleRanges::Ranges* r = ranges.find(v);
    const std::optional<ops::QType> q = r ? qtype_of(v) : std::nullopt;
    if (!q) continue;
    Range inside = r->rest;
    inside.add(r->largest);
    std::string cause;
    bool percentile = false;
    if (r->outlier_sample >= 0 && is_one_code(inside, *q)) {
      const std::string more_of_them =
          r->outlier_count > 1 ? fmt::format(" ({} such values in all)", r->outlier_count) : "";
      cause = fmt::format("sample {} holds {:.4g}{}, and all other values, range {}",
                          r->outlier_sample, r->outlier, more_of_them, to_string(inside));
      percentile = percentile_helps(*r, inside);
    } else if (is_one_code(r->rest, *q) &&
               r->largest.magnitude() > kOutlier / 4 * r->rest.magnitude()) {
      cause = fmt::format("sample {} has the range {}, and all values of the others, range {}",
                          r->largest_sample, to_string(r->largest), to_string(r->rest));
    }
    if (cause.empty()) continue;
    if (!first.empty()) {
      ++more;
      continue;
    }
    first = fmt::format("%{}: {}, have one code (scale {:.4g})", g.value(v).name, cause,
                        q->quantizer->scale());
    std::vector<std::string> skip = readers(g, v, qtype_of);
    if (const Node& producer = g.producer(v); producer.kind == NodeKind::call)
      skip.insert(skip.begin(), node_name(g, producer));
    cure = fmt::format(
        "take the sample out if it is wrong{}; or leave float what gives and reads such values "
        "({})",
        percentile ? ", or cut outliers off with --observer percentile" : "", skip_options(skip));
  }
  if (first.empty()) return;
  if (more > 0)
    first += fmt::format(", and so in {} tensor{} behind it", more, more == 1 ? "" : "s");
  lines.push_back(first + ": " + cure);
}

}  // namespace

std::vector<ValueId> compared_operands(const Graph& graph) {
  std::vector<ValueId> values;
  for (const Node& node : graph.nodes())
    if (compares_operands(node))
      for (ValueId v : node.inputs)
        if (v != kNone && !graph.is_constant(v) && graph.type(v).dtype == DType::float32)
          values.push_back(v);
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

std::vector<std::string> lost_ranges(
    const Graph& graph, const SampleRanges& ranges,
    const std::function<std::optional<ops::QType>(ValueId)>& qtype_of) {
  std::vector<std::string> lines;
  erased_operands(graph, ranges, qtype_of, lines);
  outliers(graph, ranges, qtype_of, lines);
  return lines;
}

// -- results
// -------------------------------------------------------------------------------------------

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
  std::map<ValueId, ValueId> other;  // of after -> of before
  std::vector<ValueId> wanted, others;
  for (const Node& node : before.nodes()) {
    if (node.kind != NodeKind::call) continue;
    for (ValueId v : node.outputs) {
      auto id = before.type(v).dtype == DType::float32 ? counterpart(after, before.value(v).name)
                                                       : std::nullopt;
      if (!id || after.is_constant(*id) || after.producer(*id).kind == NodeKind::input) continue;
      if (!is_floating(after.type(*id).dtype) && !after.type(*id).is_quantized()) continue;
      if (!other.emplace(*id, v).second) continue;
      wanted.push_back(v);
      others.push_back(*id);
    }
  }
  std::map<ValueId, Tensor> floats;
  runtime::compile(before, {.every_value = true})
      .run_watched(inputs, wanted, [&](ValueId v, const Tensor& x) { floats[v] = x.clone(); });
  std::vector<double> result(before.values().size(), NAN);
  runtime::compile(after, {.every_value = true})
      .run_watched(inputs, others, [&](ValueId v, const Tensor& x) {
        SignalToNoise s;
        const Tensor& expected = floats.at(other.at(v));
        if (expected.shape() != x.shape()) return;
        s.add(expected, x);
        result[other.at(v)] = std::isnan(s.db()) ? -INFINITY : s.db();
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
                                      const std::vector<SignalToNoise>& outputs,
                                      const std::vector<Tensor>& inputs) {
  std::vector<std::string> lines;
  std::vector<double> sqnr;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].db() >= kPoorSqnr || outputs[i].noise == 0) continue;
    if (sqnr.empty()) sqnr = sqnr_of_values(before, after, inputs);
    const ValueId v = before.outputs()[i];
    std::string place = worst_place(before, sqnr, v),
                db = fmt::format("{:.1f} dB", outputs[i].db());
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
  std::vector<ValueId> watched = compared_operands(before);
  for (size_t v = 0; v < before.values().size(); ++v)
    if (!before.is_constant(static_cast<ValueId>(v)) && qtype_of(static_cast<ValueId>(v)))
      watched.push_back(static_cast<ValueId>(v));
  std::sort(watched.begin(), watched.end());
  watched.erase(std::unique(watched.begin(), watched.end()), watched.end());
  runtime::Program a = runtime::compile(before, {.every_value = true}), b = runtime::compile(after);
  std::vector<SignalToNoise> noise(before.outputs().size());
  SampleRanges ranges;
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
  for (std::string& line : lost_ranges(before, ranges, qtype_of)) lines.push_back(std::move(line));
  return lines;
}

}  // namespace octet::quant
