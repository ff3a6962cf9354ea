#include "octet/quant/workflow/findings.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/observe/scan_impl.h"
#include "octet/tensor/affine.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

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
  constexpr int64_t kBlock = 4096;  // most values turn out to have none soon
  const float limit = magnitude / kOutlier;
  const int64_t most = std::max<int64_t>(1, n / kOneOutlierIn);
  Range small{INFINITY, -INFINITY};
  int64_t large = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    for (int64_t i = begin; i < std::min(n, begin + kBlock); ++i) {
      const bool is_small = std::abs(x[i]) < limit;
      large += !is_small;
      small.min = is_small ? std::min(small.min, x[i]) : small.min;
      small.max = is_small ? std::max(small.max, x[i]) : small.max;
    }
    if (large > most) return std::nullopt;
  }
  if (large == n) return std::nullopt;
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

void SampleRanges::merge(const SampleRanges& other) {
  for (const auto& [value, theirs] : other.ranges_) {
    Ranges& r = ranges_[value];
    // The larger of the two largest samples; of equal ones the first.
    Range smaller = theirs.largest;
    const float a = r.largest.magnitude(), b = theirs.largest.magnitude();
    if (r.largest.empty() || b > a || (b == a && theirs.largest_sample < r.largest_sample)) {
      std::swap(r.largest, smaller);
      r.largest_sample = theirs.largest_sample;
    }
    r.rest.add(theirs.rest);
    r.rest.add(smaller);
    const float c = std::abs(r.outlier), d = std::abs(theirs.outlier);
    if (d > c || (d == c && d > 0 && theirs.outlier_sample < r.outlier_sample)) {
      r.outlier = theirs.outlier;
      r.outlier_sample = theirs.outlier_sample;
    }
    r.outliers.add(theirs.outliers);
    r.values += theirs.values;
    r.outlier_count += theirs.outlier_count;
  }
}

void SampleRanges::renumber(const std::map<ValueId, ValueId>& numbers) {
  std::map<ValueId, Ranges> renumbered;
  for (auto& [value, ranges] : ranges_)
    if (const auto it = numbers.find(value); it != numbers.end())
      renumbered.emplace(it->second, std::move(ranges));
  ranges_ = std::move(renumbered);
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

}  // namespace octet::quant
