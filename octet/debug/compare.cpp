#include "octet/debug/compare.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/debug/compare_impl.h"
#include "octet/graph/passes/input_shapes.h"
#include "octet/runtime/program.h"

namespace octet::debug {

using detail::GridSums;
using detail::Match;
using detail::PairSums;
using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

const char* to_string(Fault fault) {
  switch (fault) {
    case Fault::none:
      return "rounding only";
    case Fault::scale_too_large:
      return "scale too large";
    case Fault::outlier:
      return "range stretched by an outlier";
    case Fault::clipped:
      return "values clipped";
    case Fault::unlike_scales:
      return "operands of unlike scale";
    case Fault::per_tensor_weights:
      return "per-tensor weights";
    case Fault::dead_channel:
      return "dead channel";
    case Fault::left_float:
      return "left float";
  }
  return "";
}

namespace {

constexpr size_t kKeptChannels = 8, kKeptDead = 64;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_numbers(const TensorType& type) { return type.is_quantized() || is_floating(type.dtype); }

// What is known of one layer while samples stream past.
struct Track {
  size_t layer = 0;
  NodeId node = -1;                                             // of the float graph
  size_t result = 0;                                            // of the node
  ValueId value = kNone;                                        // likewise
  ValueId within = kNone, codes = kNone;                        // of the quantized graph
  ValueId of_float = kNone, of_within = kNone, of_own = kNone;  // of the program
  int64_t axis = -1;
  PairSums total, own;
  GridSums grid;
  detail::SeenRanges ranges;
  bool on_grid = false;
  // During a batch.
  Tensor x, y, alone;
  int parts = 0, waits_for = 0;  // pairs with x: all of them, and those to come
};

// Copies of values that are freed at once when all has been read: their memory is used again, for
// new memory comes as pages of zeros, which takes longer than the copy.
class Copies {
 public:
  Tensor copy(const Tensor& x, MemoryFormat format) {
    const auto bytes = static_cast<size_t>(x.nbytes());
    std::vector<Tensor>& free = free_[bytes];
    Tensor flat;
    if (free.empty()) {
      flat = Tensor::empty({x.numel()}, x.dtype());
    } else {
      flat = free.back();
      free.pop_back();
    }
    Tensor view =
        Tensor::wrap(flat.buffer(), x.shape(), x.dtype(), nullptr,
                     format == MemoryFormat::channels_last ? channels_last_strides(x.shape())
                                                           : std::vector<int64_t>{});
    if (x.is_contiguous(format))
      parallel_ranges(static_cast<int64_t>(bytes), int64_t{1} << 16,
                      [&](int64_t begin, int64_t end) {
                        std::memcpy(static_cast<std::byte*>(view.raw_data()) + begin,
                                    static_cast<const std::byte*>(x.raw_data()) + begin,
                                    static_cast<size_t>(end - begin));
                      });
    else
      view.copy_from(x);
    used_.emplace(view.id(), flat);
    return view;
  }
  void give_back(Tensor& view) {
    if (auto it = used_.find(view.id()); it != used_.end()) {
      free_[static_cast<size_t>(view.nbytes())].push_back(it->second);
      used_.erase(it);
    }
    view = Tensor();
  }

 private:
  std::map<size_t, std::vector<Tensor>> free_;
  std::map<const void*, Tensor> used_;
};

// Both graphs and the layers alone, in one.
class Joined {
 public:
  Joined(const Graph& f, const Graph& q, const Match& match)
      : f_(f),
        q_(q),
        match_(match),
        of_f_(f.values().size(), kNone),
        of_q_(q.values().size(), kNone),
        own_(f.values().size(), kNone) {
    for (size_t i = 0; i < f.inputs().size(); ++i) {
      const ValueId v = out_.add_input(f.value(f.inputs()[i]).name, f.type(f.inputs()[i]));
      of_f_[f.inputs()[i]] = v;
      of_q_[q.inputs()[i]] = v;
    }
    // The order of the float graph, each quantized node soon after its counterpart.
    std::vector<NodeId> until(f.nodes().size(), -1);
    for (size_t n = 0; n < q.nodes().size(); ++n)
      for (ValueId v : q.nodes()[n].outputs)
        if (match.of[v] != kNone) until[f.value(match.of[v]).producer] = static_cast<NodeId>(n);
    size_t next = 0;
    const auto copy_until = [&](NodeId last) {
      for (; static_cast<int64_t>(next) <= last; ++next) copy(q_, q_.nodes()[next], of_q_);
    };
    for (size_t n = 0; n < f.nodes().size(); ++n) {
      copy(f_, f_.nodes()[n], of_f_);
      if (match.node[n] >= 0 && !match.bias_apart[n]) add_alone(static_cast<NodeId>(n));
      copy_until(until[n]);
    }
    copy_until(static_cast<NodeId>(q.nodes().size()) - 1);
    std::vector<ValueId> outputs;
    for (ValueId v : f.outputs()) outputs.push_back(of_f_[v]);
    for (ValueId v : q.outputs()) outputs.push_back(of_q_[v]);
    out_.set_outputs(std::move(outputs));
  }

  const Graph& graph() const { return out_; }
  ValueId of_float(ValueId v) const { return of_f_[v]; }
  ValueId of_quantized(ValueId v) const { return of_q_[v]; }
  // What the quantized counterpart of the node that makes a value of the float graph gives on the
  // float network's values.
  ValueId alone(ValueId v) const { return own_[v]; }

 private:
  void copy(const Graph& g, const Node& node, std::vector<ValueId>& of) {
    if (node.kind == NodeKind::input) return;
    if (node.kind == NodeKind::constant) {
      of[node.outputs[0]] = out_.add_constant(g.value(node.outputs[0]).name, node.value);
      return;
    }
    std::vector<ValueId> operands;
    for (ValueId v : node.inputs) operands.push_back(v == kNone ? kNone : of[v]);
    const std::vector<ValueId> results =
        out_.add_calls(g.value(node.outputs[0]).name, node.op, std::move(operands), node.attrs,
                       graph::want_of(g, node), node.scope);
    out_.node(out_.value(results.at(0)).producer).stays_float = node.stays_float;
    for (size_t i = 0; i < results.size(); ++i) of[node.outputs[i]] = results[i];
  }

  void add_alone(NodeId n) {
    const Node& node = q_.node(match_.node[n]);
    std::vector<ValueId> operands;
    bool on_codes = q_.type(node.outputs[0]).is_quantized();
    for (ValueId v : node.inputs) {
      if (v == kNone) {
        operands.push_back(kNone);
      } else if (q_.is_constant(v)) {
        on_codes |= q_.type(v).is_quantized();
        if (of_q_[v] == kNone) of_q_[v] = out_.add_constant(q_.value(v).name, q_.constant(v));
        operands.push_back(of_q_[v]);
      } else {
        const ValueId x = match_.of[v] == kNone ? kNone : of_f_[match_.of[v]];
        if (x == kNone) return;
        on_codes |= q_.type(v).is_quantized();
        operands.push_back(q_.type(v).is_quantized() ? codes(x, v) : x);
      }
    }
    if (!on_codes) return;  // it does what the float layer does
    const std::vector<ValueId> results =
        out_.add_calls(q_.value(node.outputs[0]).name + ".alone", node.op, std::move(operands),
                       node.attrs, graph::want_of(q_, node), node.scope);
    out_.node(out_.value(results.at(0)).producer).stays_float = node.stays_float;
    const std::vector<ValueId>& of_float = f_.node(n).outputs;
    for (size_t i = 0; i < std::min(results.size(), of_float.size()); ++i)
      own_[of_float[i]] = results[i];
  }

  // The float value on the codes of a value of the quantized graph.
  ValueId codes(ValueId x, ValueId like) {
    const auto key = std::pair(x, like);
    if (auto it = codes_.find(key); it != codes_.end()) return it->second;
    if (out_.type(x).is_quantized()) return codes_[key] = x;  // an input that is codes
    const TensorType& type = q_.type(like);
    return codes_[key] = out_.add_call(q_.value(like).name + ".given", "quantize", {x}, {},
                                       ops::QType{type.dtype, type.quantizer});
  }

  const Graph &f_, &q_;
  const Match& match_;
  Graph out_;
  std::vector<ValueId> of_f_, of_q_, own_;
  std::map<std::pair<ValueId, ValueId>, ValueId> codes_;
};

// -- what each layer is ---------------------------------------------------------------------------

// Whether a call gives its result qparams of its own.
bool has_own_scale(const Graph& q, const Node& node) {
  if (node.op == "quantize") return true;
  const ops::Op* op = ops::find(node.op);
  return op && op->rule() == ops::QRule::own && q.type(node.outputs[0]).is_quantized();
}

bool computes_on_codes(const Graph& q, const Node& node) {
  for (const auto& list : {node.inputs, node.outputs})
    for (ValueId v : list)
      if (v != kNone && q.type(v).is_quantized()) return true;
  return false;
}

struct WeightErrors {
  double sqnr = NAN;
  std::vector<double> by_channel;  // of the codes that there are
  std::vector<double> could_be;    // of a scale per channel
  std::vector<int64_t> dead;       // no code but that of 0
  bool per_channel = false;
  int64_t most = 0;  // the largest code, less the zero point; likewise the dtype's
  int64_t possible = 0;
  size_t channels() const { return by_channel.size(); }
  // Means over the channels of noise over signal.
  double relative_noise(const std::vector<double>& sqnr) const {
    double all = 0;
    int64_t n = 0;
    for (double db : sqnr)
      if (!std::isnan(db)) all += std::pow(10.0, -std::min(db, 200.0) / 10), ++n;
    return n ? all / static_cast<double>(n) : 0;
  }
};

std::vector<double> sqnr_by_channel(const Tensor& w, const Tensor& q, int64_t axis) {
  PairSums sums;
  detail::add_pair(sums, w, q, axis, 1);
  std::vector<double> result;
  for (size_t c = 0; c < sums.xx.size(); ++c) result.push_back(decibels(sums.xx[c], sums.dd[c]));
  return result;
}

int64_t largest_code(const Tensor& qint8) {
  int64_t most = 0;
  for (int8_t code : qint8.int_repr().contiguous().to_vector<int8_t>())
    most = std::max<int64_t>(most, std::abs(static_cast<int>(code)));
  return most;
}

std::optional<WeightErrors> weight_errors(const Graph& f, const Node& node, const Graph& q,
                                          const Node& quantized) {
  const auto i = detail::weight_operand(f, node), j = detail::weight_operand(q, quantized);
  if (!i || !j) return std::nullopt;
  const Tensor &w = f.constant(node.inputs[*i]), &codes = q.constant(quantized.inputs[*j]);
  if (!codes.is_quantized() || w.is_quantized() || w.shape() != codes.shape()) return std::nullopt;
  WeightErrors e;
  const int64_t axis = detail::weight_axis(node, w);
  PairSums all;
  detail::add_pair(all, w, codes, axis, 1);
  e.sqnr = all.sqnr();
  double mean = 0;
  for (double xx : all.xx) mean += xx / static_cast<double>(all.xx.size());
  for (size_t c = 0; c < all.xx.size(); ++c) {
    e.by_channel.push_back(decibels(all.xx[c], all.dd[c]));
    if (all.yy[c] == 0 && all.xx[c] > 1e-4 * mean) e.dead.push_back(static_cast<int64_t>(c));
  }
  e.per_channel = codes.quantizer()->is_per_channel();
  if (codes.dtype() == DType::qint8) {
    e.most = largest_code(codes);
    e.possible = 127;
  }
  if (!e.per_channel)
    e.could_be = sqnr_by_channel(w, detail::per_channel_weight(w, axis, DType::qint8), axis);
  return e;
}

std::string range_text(double a, double b) { return fmt::format("[{:.4g}, {:.4g}]", a, b); }

// -- what is wrong --------------------------------------------------------------------------------

// Where codes have been counted: how wide all values lie, and all but a few, in codes.
struct Spans {
  int64_t all = 0, most = 0;
  double low = 0, high = 0;  // of most, as codes
};
Spans spans_of(const LayerComparison& l) {
  Spans s;
  uint64_t total = 0;
  for (uint64_t n : l.histogram) total += n;
  if (total == 0) return s;
  // 1 in 2000 at each end.
  const uint64_t cut = total < 100 ? 0 : std::max<uint64_t>(1, total / 2000);
  int64_t first = 0, last = 511, a = 0, b = 511;
  while (first < 511 && l.histogram[static_cast<size_t>(first)] == 0) ++first;
  while (last > 0 && l.histogram[static_cast<size_t>(last)] == 0) --last;
  for (uint64_t n = 0; a < 511 && (n += l.histogram[static_cast<size_t>(a)]) <= cut;) ++a;
  for (uint64_t n = 0; b > 0 && (n += l.histogram[static_cast<size_t>(b)]) <= cut;) --b;
  // Ranges hold 0.
  const int64_t zero = l.zero_point - l.quant_min + 128;
  first = std::min(first, zero), last = std::max(last, zero);
  s.low = static_cast<double>(a + l.quant_min - 128),
  s.high = static_cast<double>(b + l.quant_min - 128);
  a = std::min(a, zero), b = std::max(b, zero);
  s.all = last - first + 1;
  s.most = b - a + 1;
  return s;
}

class Diagnosis {
 public:
  Diagnosis(const Graph& f, const Graph& q, const Match& match, Comparison& c,
            const std::vector<Track>& tracks)
      : f_(f), q_(q), match_(match), c_(c), tracks_(tracks) {}

  void run() {
    for (size_t n = 0; n < q_.nodes().size(); ++n)
      if (const Node& node = q_.nodes()[n]; detail::weight_operand(q_, node) || node.op == "matmul")
        some_quantized_ |= computes_on_codes(q_, node);
    for (const Track& t : tracks_) {
      LayerComparison& l = c_.layers[t.layer];
      if (!l.matched) continue;
      if (t.node >= 0 && t.result == 0 && f_.node(t.node).kind == NodeKind::call &&
          match_.node[t.node] >= 0) {
        const Node &node = f_.node(t.node), &quantized = q_.node(match_.node[t.node]);
        left_float(l, node);
        weights(l, node, quantized);
        if (l.fault == Fault::none && node.op == "cat") operands(l, node);
      }
      if (l.fault == Fault::none) grid(l);
      if (l.fault == Fault::none) dead_result(l, t);
    }
    for (LayerComparison& l : c_.layers) {
      if (l.fault == Fault::outlier) first_outlier(l);
      if (l.fault == Fault::unlike_scales) excuse_operands(l);
    }
  }

 private:
  void set(LayerComparison& l, Fault fault, std::string sentence) {
    l.fault = fault;
    l.sentence = std::move(sentence);
  }

  void left_float(LayerComparison& l, const Node& node) {
    if (!some_quantized_ || l.quantized || l.op == "input") return;
    if (!detail::weight_operand(f_, node) && node.op != "matmul") return;
    set(l, Fault::left_float,
        fmt::format("it is left float among quantized layers{}: quantize it, or keep it float if "
                    "it loses too much",
                    l.note.empty() ? "" : " (" + l.note + ")"));
  }

  void weights(LayerComparison& l, const Node& node, const Node& quantized) {
    const auto e = weight_errors(f_, node, q_, quantized);
    if (!e) return;
    l.weight_sqnr = e->sqnr;
    l.per_channel_weights = e->per_channel;
    for (ChannelError& channel : l.worst_channels)
      if (static_cast<size_t>(channel.channel) < e->channels())
        channel.weight_sqnr = e->by_channel[static_cast<size_t>(channel.channel)];
    if (l.fault != Fault::none) return;
    const double now = e->relative_noise(e->by_channel);
    if (!e->could_be.empty()) {
      constexpr double kTimes = 10, kPoor = 0.003;  // 10 dB, and worse than 25 dB
      const double could_be = e->relative_noise(e->could_be);
      if (now > kPoor && now > kTimes * could_be) {
        size_t worst = 0;
        for (size_t c = 1; c < e->channels(); ++c)
          if (e->by_channel[c] < e->by_channel[worst]) worst = c;
        set(l, Fault::per_tensor_weights,
            fmt::format("its weights have one scale for {} channels of unlike size: channel {} has "
                        "{:.1f} dB, and would have {:.1f} dB with its own; take scales per channel",
                        e->channels(), worst, e->by_channel[worst], e->could_be[worst]));
        return;
      }
    }
    if (!e->dead.empty()) {
      l.dead_channels = e->dead;
      set(l, Fault::dead_channel, dead_text(e->dead, "its weights are all code 0"));
      return;
    }
    if (e->possible > 0 && e->most * 4 < std::min(e->possible, usual_reach()) && e->most > 0) {
      l.of_weight = true;
      const int bits = std::bit_width(static_cast<uint64_t>(e->most - 1)) + 1;
      set(l, Fault::scale_too_large,
          fmt::format("the codes of its weights only reach {} of {}: unless they are meant to have "
                      "{} bits, their scale is about {:.0f} times too large; quantize the weights "
                      "from their own range",
                      e->most, e->possible, bits,
                      static_cast<double>(e->possible) / static_cast<double>(e->most)));
    }
  }

  // The median of the largest codes of weights stored as qint8: weights of 3 bits are small codes
  // on purpose. Of two weights or fewer nothing can be told: all codes.
  int64_t usual_reach() {
    if (usual_reach_) return *usual_reach_;
    std::vector<int64_t> reach;
    for (const Node& node : q_.nodes())
      if (const auto place = detail::weight_operand(q_, node);
          place && q_.type(node.inputs[*place]).dtype == DType::qint8)
        reach.push_back(largest_code(q_.constant(node.inputs[*place])));
    usual_reach_ = 127;
    if (reach.size() > 2) {
      const auto middle = reach.begin() + static_cast<std::ptrdiff_t>(reach.size() / 2);
      std::nth_element(reach.begin(), middle, reach.end());
      usual_reach_ = *middle;
    }
    return *usual_reach_;
  }

  static std::string dead_text(const std::vector<int64_t>& dead, const std::string& why) {
    return fmt::format(
        "channel {}{} is dead in 8 bits and not in float: {}; quantize it with a "
        "scale of its own (per-channel weights)",
        dead[0], dead.size() > 1 ? fmt::format(" (and {} more)", dead.size() - 1) : "", why);
  }

  // Operands of a cat, which share its result's scale.
  void operands(LayerComparison& l, const Node& node) {
    if (l.scale == 0) return;
    constexpr double kFew = 16, kMany = 100;
    double least = INFINITY, most = 0;
    std::string name_of_least, name_of_most;
    for (ValueId v : node.inputs) {
      const auto track = std::find_if(tracks_.begin(), tracks_.end(),
                                      [&](const Track& other) { return other.value == v; });
      if (track == tracks_.end()) continue;
      const LayerComparison& operand = c_.layers[track->layer];
      const double span = (std::max(operand.max, 0.F) - std::min(operand.min, 0.F)) / l.scale;
      if (span < least && span > 0) least = span, name_of_least = operand.value;
      if (span > most) most = span, name_of_most = operand.value;
    }
    if (!(least < kFew && most > kMany)) return;
    set(l, Fault::unlike_scales,
        fmt::format("its operands have ranges of unlike size but one scale: %{} has {:.0f} codes, "
                    "%{} {:.0f}; bring their ranges together in the network, or leave this layer "
                    "and its readers float",
                    name_of_least, std::max(1.0, std::ceil(least)), name_of_most,
                    std::min(most, 256.0)));
  }

  void grid(LayerComparison& l) {
    if (l.scale == 0 || !l.own_scale || l.histogram.empty()) return;
    const Spans s = spans_of(l);
    const auto codes = static_cast<double>(l.quant_max - l.quant_min + 1);
    if (s.all == 0 || l.min == l.max) return;
    if (static_cast<double>(s.all) < 0.28 * codes) {
      const double span = std::max(l.max, 0.F) - std::min(l.min, 0.F);
      set(l, Fault::scale_too_large,
          fmt::format(
              "its scale is about {:.0f} times too large for values in {}: only {} of {:.0f} "
              "codes are used; choose another observer, or calibrate on samples like these",
              (codes - 1) * l.scale / span, range_text(l.min, l.max), l.codes_used, codes));
      return;
    }
    const double reach = std::max(-l.min, l.max);
    const double inside = l.scale * std::max(std::abs(s.low - static_cast<double>(l.zero_point)),
                                             std::abs(s.high - static_cast<double>(l.zero_point)));
    if (static_cast<double>(s.most) < 0.2 * codes && reach > 4 * (inside + l.scale / 2)) {
      set(l, Fault::outlier,
          fmt::format("its range is stretched by an outlier: sample {} holds {:.4g}, and 99.9% of "
                      "all values lie in {}, which have {} of {:.0f} codes; take the sample out if "
                      "it is wrong, or choose observer percentile",
                      l.stretched_by, l.max >= -l.min ? l.max : l.min,
                      range_text(l.scale * (s.low - static_cast<double>(l.zero_point)),
                                 l.scale * (s.high - static_cast<double>(l.zero_point))),
                      s.most, codes));
      return;
    }
    if (l.clipping_share > 0.9 && l.activation_sqnr < 25)
      set(l, Fault::clipped,
          fmt::format("its range is too small: {:.2g}% of the values, up to {:.4g}, are cut off to "
                      "{}, which is {:.0f}% of the error; choose observer minmax, or calibrate on "
                      "samples like these",
                      100 * l.clipped, l.max >= -l.min ? l.max : l.min,
                      range_text(l.scale * static_cast<double>(l.quant_min - l.zero_point),
                                 l.scale * static_cast<double>(l.quant_max - l.zero_point)),
                      100 * l.clipping_share));
  }

  // Channels that the layer alone gives as one number.
  void dead_result(LayerComparison& l, const Track& t) {
    const PairSums& own = t.own;
    if (own.xx.size() < 2 || own.xx.size() != t.total.xx.size() || !l.own_scale) return;
    // The layer alone is fed its operand's codes: what those lack is not its fault.
    for (int i : l.operands)
      if (c_.layers[static_cast<size_t>(i)].fault != Fault::none) return;
    std::vector<double> spread;
    double mean = 0;
    for (size_t c = 0; c < own.xx.size(); ++c) {
      spread.push_back(static_cast<double>(t.total.x_max[c]) - t.total.x_min[c]);
      mean += spread.back() / static_cast<double>(own.xx.size());
    }
    for (size_t c = 0; c < spread.size() && l.dead_channels.size() < kKeptDead; ++c)
      if (own.y_min[c] == own.y_max[c] && spread[c] > 0.1 * mean && spread[c] > 3 * l.scale)
        l.dead_channels.push_back(static_cast<int64_t>(c));
    if (!l.dead_channels.empty())
      set(l, Fault::dead_channel, dead_text(l.dead_channels, "its result never changes"));
  }

  // An operand that has the scale of the cat, as it was told to: that is the cat's fault.
  void excuse_operands(const LayerComparison& cat) {
    for (int i : cat.operands) {
      LayerComparison& l = c_.layers[static_cast<size_t>(i)];
      if (l.fault == Fault::scale_too_large && l.scale == cat.scale)
        withdraw(l, fmt::format("its scale is that of {}, which reads it", cat.name));
    }
  }

  static void withdraw(LayerComparison& l, const std::string& why) {
    l.fault = Fault::none;
    l.sentence.clear();
    l.note += (l.note.empty() ? "" : "; ") + why;
  }

  // An outlier passes on to the layers behind: the first one is to blame.
  void first_outlier(LayerComparison& l) {
    std::vector<int> todo = l.operands;
    std::vector<bool> seen(c_.layers.size(), false);
    while (!todo.empty()) {
      const auto i = static_cast<size_t>(todo.back());
      todo.pop_back();
      if (seen[i]) continue;
      seen[i] = true;
      const LayerComparison& before = c_.layers[i];
      if (before.fault == Fault::outlier && before.stretched_by == l.stretched_by) {
        withdraw(l, fmt::format("the outlier of {} stretches its range too", before.name));
        return;
      }
      todo.insert(todo.end(), before.operands.begin(), before.operands.end());
    }
  }

  const Graph &f_, &q_;
  const Match& match_;
  Comparison& c_;
  const std::vector<Track>& tracks_;
  std::optional<int64_t> usual_reach_;
  bool some_quantized_ = false;
};

// -- what a layer costs the output ----------------------------------------------------------------

// The float graph in which each of some layers can be replaced by itself with its quantized weight
// and its result rounded to its codes: y + m (y' - y), where m is an input, 0 or 1. So each error
// is that of one layer: rounding a value is charged to the layer that makes it.
class Probe {
 public:
  Probe(const Graph& f, const Graph& q, const Match& match, const std::vector<Track>& tracks,
        const std::vector<size_t>& layers)
      : f_(f) {
    std::map<ValueId, const Track*> wanted;
    for (size_t i : layers) wanted[tracks[i].value] = &tracks[i];
    std::vector<ValueId> of(f.values().size(), kNone);
    for (ValueId v : f.inputs()) of[v] = out_.add_input(f.value(v).name, f.type(v));
    for (ValueId v : f.inputs())
      if (auto it = wanted.find(v); it != wanted.end())
        of[v] = replace(q, match, *it->second, of[v], of[v]);
    for (const Node& node : f.nodes()) {
      if (node.kind == NodeKind::input) continue;
      if (node.kind == NodeKind::constant) {
        of[node.outputs[0]] = out_.add_constant(f.value(node.outputs[0]).name, node.value);
        continue;
      }
      std::vector<ValueId> operands;
      for (ValueId v : node.inputs) operands.push_back(v == kNone ? kNone : of[v]);
      const auto results = call(node, operands);
      for (size_t i = 0; i < results.size(); ++i) of[node.outputs[i]] = results[i];
      for (size_t k = 1; k < results.size(); ++k)
        if (const auto it = wanted.find(node.outputs[k]); it != wanted.end())
          of[node.outputs[k]] = replace(q, match, *it->second, results[k], results[k]);
      const auto it = wanted.find(node.outputs[0]);
      if (it == wanted.end()) continue;
      const Track& t = *it->second;
      ValueId changed = results[0];
      if (match.node[t.node] >= 0) {
        const Node& other = q.node(match.node[t.node]);
        const auto i = detail::weight_operand(f, node), j = detail::weight_operand(q, other);
        if (i && j && q.type(other.inputs[*j]).is_quantized() &&
            q.constant(other.inputs[*j]).shape() == f.constant(node.inputs[*i]).shape()) {
          operands[*i] = out_.add_constant(f.value(node.inputs[*i]).name + ".codes",
                                           q.constant(other.inputs[*j]).dequantize());
          changed = call(node, operands)[0];
          weighted_[t.layer] = {results[0], changed};
        }
      }
      of[node.outputs[0]] = replace(q, match, t, results[0], changed);
    }
    // Of a classifier its scores: a softmax hides errors where it is near 0 or 1.
    ValueId result = f.outputs()[0];
    if (const Node& last = f.producer(result); last.op == "softmax" || last.op == "log_softmax")
      result = last.inputs[0];
    out_.set_outputs({of[result]});
  }

  // Measures the layers in this order, as long as there is time.
  void run(Comparison& c, const Samples& samples, int64_t batch_size, double seconds_a_sample,
           const CompareOptions& options) {
    const double start = seconds_now();
    const runtime::Program program = runtime::compile(out_, {.engine = {}, .every_value = true});
    struct Batch {
      std::vector<Tensor> inputs;
      Tensor y;
    };
    std::vector<Batch> batches;
    double signal = 0;
    std::map<size_t, PairSums> of_weights;
    // Fewer samples where all layers on all of them would take too long.
    const int64_t most = std::min(samples.count, options.probe_samples),
                  count = static_cast<int64_t>(std::clamp(options.probe_seconds / seconds_a_sample /
                                                              static_cast<double>(masked_.size()),
                                                          1.0, static_cast<double>(most)));
    for (int64_t i = 0; i < count;) {
      const int64_t size = std::min(batch_size, count - i);
      Batch batch{samples.get(i, size).inputs, {}};
      std::vector<ValueId> watched;
      std::map<ValueId, Tensor> seen;
      for (const auto& [layer, pair] : weighted_)
        watched.insert(watched.end(), {pair.first, pair.second});
      batch.y = program
                    .run_watched(with_masks(batch.inputs, -1), watched,
                                 [&](ValueId v, const Tensor& x) { seen[v] = x.clone(); })
                    .at(0);
      for (const auto& [layer, pair] : weighted_)
        detail::add_pair(of_weights[layer], seen.at(pair.first), seen.at(pair.second), -1, size);
      PairSums sums;
      detail::add_pair(sums, batch.y, batch.y, -1, size);
      signal += sums.signal();
      batches.push_back(std::move(batch));
      i += size;
    }
    for (const auto& [layer, sums] : of_weights) c.layers[layer].weight_error_sqnr = sums.sqnr();
    std::map<size_t, double> noise;
    double all = 0;
    for (size_t m = 0; m < masked_.size(); ++m) {
      if (seconds_now() - start > options.probe_seconds && m > 0) break;
      PairSums sums;
      for (const Batch& batch : batches)
        detail::add_pair(sums, batch.y,
                         program.run(with_masks(batch.inputs, static_cast<int>(m))).at(0), -1,
                         batch.y.dim() ? batch.y.size(0) : 1);
      const double n = std::isfinite(sums.noise()) ? sums.noise() : signal;
      noise[masked_[m]] = n;
      all += n;
    }
    for (const auto& [layer, n] : noise) {
      c.layers[layer].noise_share = all > 0 ? n / all : 0;
      c.layers[layer].alone_sqnr = decibels(signal, n);
    }
  }

 private:
  std::vector<ValueId> call(const Node& node, const std::vector<ValueId>& operands) {
    return out_.add_calls(f_.value(node.outputs[0]).name, node.op, operands, node.attrs,
                          std::nullopt, node.scope);
  }

  ValueId replace(const Graph& q, const Match& match, const Track& t, ValueId y, ValueId changed) {
    if (const ValueId codes = match.codes[t.value]; codes != kNone) {
      const TensorType& type = q.type(codes);
      changed =
          out_.add_call("codes", "quantize", {changed}, {}, ops::QType{type.dtype, type.quantizer});
      changed = out_.add_call("rounded", "dequantize", {changed});
    }
    if (changed == y) return y;
    const ValueId mask = out_.add_input("mask", TensorType(DType::float32, Shape{1}));
    masked_.push_back(t.layer);
    const ValueId error = out_.add_call("error", "sub", {changed, y});
    return out_.add_call("probed", "add", {y, out_.add_call("masked", "mul", {error, mask})});
  }

  std::vector<Tensor> with_masks(std::vector<Tensor> inputs, int which) const {
    for (size_t m = 0; m < masked_.size(); ++m)
      inputs.push_back(Tensor::full({1}, static_cast<int>(m) == which ? 1 : 0));
    return inputs;
  }

  const Graph& f_;
  Graph out_;
  std::vector<size_t> masked_;  // the layers, in the order of the masks
  std::map<size_t, std::pair<ValueId, ValueId>> weighted_;
};

// -- all of it ------------------------------------------------------------------------------------

void check_same_interface(const Graph& f, const Graph& q) {
  f.require_operators("compare");
  q.require_operators("compare");
  OCTET_CHECK(f.inputs().size() == q.inputs().size(), invalid_argument,
              "compare: {} has {} inputs and {} has {}; give a network and what was made of it",
              f.name, f.inputs().size(), q.name, q.inputs().size());
  OCTET_CHECK(f.outputs().size() == q.outputs().size(), invalid_argument,
              "compare: {} has {} outputs and {} has {}; give a network and what was made of it",
              f.name, f.outputs().size(), q.name, q.outputs().size());
  for (size_t i = 0; i < f.inputs().size(); ++i) {
    const TensorType &a = f.type(f.inputs()[i]), &b = q.type(q.inputs()[i]);
    bool same = a.dtype == b.dtype && a.dim() == b.dim();
    for (size_t d = 0; same && d < a.dims.size(); ++d)
      same = !a.dims[d].known() || !b.dims[d].known() || a.dims[d] == b.dims[d];
    OCTET_CHECK(same, invalid_argument, "compare: input %{} is {} in one model and {} in the other",
                f.value(f.inputs()[i]).name, to_string(a), to_string(b));
  }
}

class Comparer {
 public:
  Comparer(const Graph& f, const Graph& q, const Samples& samples, const CompareOptions& options)
      : f_(f), q_(q), samples_(samples), options_(options), match_(detail::match(f, q)) {}

  Comparison run() {
    make_layers();
    OCTET_CHECK(
        std::any_of(tracks_.begin(), tracks_.end(),
                    [&](const Track& t) { return t.node >= 0 && c_.layers[t.layer].matched; }),
        invalid_argument,
        "compare: no layer of {} has a counterpart in {}; give a network and what was made "
        "of it",
        f_.name, q_.name);
    stream();
    if (options_.shared && !options_.shared->is_first) return std::move(c_);
    for (Track& t : tracks_) finish(t);
    Diagnosis(f_, q_, match_, c_, tracks_).run();
    probe();
    time_shares();
    rank(c_);
    return std::move(c_);
  }

 private:
  void make_layers() {
    std::vector<int> layer_of(f_.values().size(), -1);
    const auto add = [&](NodeId n, size_t result, const std::string& name, const std::string& op) {
      const ValueId v = f_.node(n).outputs[result];
      LayerComparison l;
      l.name = name;
      l.value = f_.value(v).name;
      l.op = op;
      std::string dims;
      for (const Dim& d : f_.type(v).dims) dims += (dims.empty() ? "" : ", ") + to_string(d);
      l.shape = "(" + dims + ")";
      Track t;
      t.layer = c_.layers.size();
      t.node = op == "input" ? -1 : n;
      t.result = result;
      t.value = v;
      t.codes = match_.codes[v];
      t.within = t.codes != kNone ? t.codes : match_.floats[v];
      l.matched = t.within != kNone && is_numbers(f_.type(v));
      const Node& node = f_.node(n);
      for (ValueId operand : node.inputs)
        if (operand != kNone && layer_of[operand] >= 0) l.operands.push_back(layer_of[operand]);
      l.sqnr = l.own_sqnr = l.inherited_sqnr = l.activation_sqnr = l.weight_sqnr =
          l.weight_error_sqnr = l.cosine = l.noise_share = l.alone_sqnr = l.time_share = NAN;
      t.axis = detail::channel_axis(node, f_.type(v).dim());
      if (t.codes != kNone && !q_.type(t.codes).quantizer->is_per_channel() && l.matched) {
        const TensorType& type = q_.type(t.codes);
        l.scale = type.quantizer->scale();
        l.zero_point = type.quantizer->zero_point();
        l.quant_min = qmin(type.dtype);
        l.quant_max = qmax(type.dtype);
        l.own_scale = has_own_scale(q_, q_.producer(t.codes));
        l.own_scale &= !has_scale_of_operand(l);
        const ops::Op* made_by = ops::find(q_.producer(t.codes).op);
        l.fixed_scale = made_by && made_by->rule() == ops::QRule::fixed;
        t.on_grid = l.quant_max - l.quant_min < 256;
        if (!t.on_grid) l.scale = 0;
      }
      if (t.node >= 0 && match_.node[n] >= 0) {
        const Node& other = q_.node(match_.node[n]);
        l.quantized = computes_on_codes(q_, other);
        l.note = l.quantized ? "" : other.note;
      } else if (op == "input") {
        l.quantized = t.codes != kNone;
      }
      layer_of[v] = static_cast<int>(c_.layers.size());
      c_.unmatched += op != "input" && !l.matched && is_numbers(f_.type(v));
      c_.layers.push_back(std::move(l));
      tracks_.push_back(std::move(t));
    };
    for (ValueId v : f_.inputs())
      if (match_.codes[v] != kNone) add(f_.value(v).producer, 0, f_.value(v).name, "input");
    for (size_t n = 0; n < f_.nodes().size(); ++n) {
      const Node& node = f_.nodes()[n];
      if (node.kind != NodeKind::call || node.outputs.empty()) continue;
      const std::string name = node.scope.empty() ? f_.value(node.outputs[0]).name : node.scope;
      add(static_cast<NodeId>(n), 0, name, node.op);
      for (size_t k = 1; k < node.outputs.size(); ++k)
        if (is_numbers(f_.type(node.outputs[k])))
          add(static_cast<NodeId>(n), k, fmt::format("{}:{}", name, k), node.op);
        else  // indices, as topk gives: read from the same layer
          layer_of[node.outputs[k]] = layer_of[node.outputs[0]];
    }
  }

  // Elements that only moved, perhaps several times: their codes are those that they came from.
  bool has_scale_of_operand(const LayerComparison& layer) const {
    for (const LayerComparison* l = &layer; l->operands.size() == 1;) {
      const ops::Op* op = ops::find(l->op);
      if (!op || !op->traits().moves) return false;
      l = &c_.layers[static_cast<size_t>(l->operands[0])];
      if (l->scale > 0) return l->scale == layer.scale;
    }
    return false;
  }

  void stream() {
    const Joined joined(f_, q_, match_);
    const runtime::Program program =
        runtime::compile(joined.graph(), {.engine = {}, .every_value = true});
    std::vector<ValueId> watched;
    enum class Part { x, y, alone };
    std::map<ValueId, std::vector<std::pair<Track*, Part>>> users;
    const auto watch = [&](ValueId v, Track& t, Part part) {
      if (users[v].empty()) watched.push_back(v);
      users[v].emplace_back(&t, part);
      t.parts += part != Part::x;
    };
    for (Track& t : tracks_) {
      if (!c_.layers[t.layer].matched) continue;
      watch(joined.of_float(t.value), t, Part::x);
      if (joined.of_quantized(t.within) != joined.of_float(t.value))
        watch(joined.of_quantized(t.within), t, Part::y);
      if (t.node >= 0 && joined.alone(t.value) != kNone)
        watch(t.of_own = joined.alone(t.value), t, Part::alone);
    }
    const size_t outputs = f_.outputs().size();
    std::vector<PairSums> of_outputs(outputs);
    Counts counts;
    const int64_t step = batch_size();
    const double start = seconds_now();
    int64_t alone = 0;  // the next batch of a process that shares with none
    const auto next = [&] { return options_.shared ? options_.shared->next() : alone++; };
    for (int64_t begin = next() * step; begin < samples_.count; begin = next() * step) {
      const int64_t size = std::min(step, samples_.count - begin);
      const SampleBatch batch = samples_.get(begin, size);
      const std::vector<Tensor> y =
          program.run_watched(batch.inputs, watched, [&](ValueId v, const Tensor& value) {
            for (auto& [t, part] : users.at(v)) {
              if (part == Part::x) {
                t->x = copies_.copy(value, layout(value));
                t->waits_for = t->parts;
              }
              if (part == Part::y) add_total(*t, value, begin, size);
              if (part == Part::alone) add_own(*t, value, size);
            }
          });
      for (Track& t : tracks_) {
        if (t.y.defined()) add_total(t, t.y, begin, size);
        if (t.alone.defined()) add_own(t, t.alone, size);
        copies_.give_back(t.x);
      }
      for (size_t i = 0; i < outputs; ++i)
        if (is_numbers(f_.type(f_.outputs()[i])) && is_numbers(q_.type(q_.outputs()[i])))
          detail::add_pair(of_outputs[i], y[i].dequantize(), y[outputs + i], -1, size);
      if (y[0].dim() == 2 && is_numbers(f_.type(f_.outputs()[0])) &&
          y[0].shape() == y[outputs].shape()) {
        const std::vector<int64_t> a = first_classes(y[0]), b = first_classes(y[outputs]);
        std::vector<int64_t> labels;
        if (batch.labels.defined()) labels = batch.labels.to_vector<int64_t>();
        const bool labelled = labels.size() == a.size();
        for (size_t i = 0; i < a.size(); ++i) {
          ++counts.classified;
          counts.agree += a[i] == b[i];
          if (!labelled) continue;
          ++counts.labelled;
          counts.right += a[i] == labels[i];
          counts.right_quantized += b[i] == labels[i];
        }
      }
      counts.samples += size;
      if (options_.progress) options_.progress(size);
    }
    seconds_a_sample_ = (seconds_now() - start) / static_cast<double>(samples_.count);
    if (options_.shared)
      options_.shared->reduce([&] { return packed(of_outputs, counts); },
                              [&](const std::string& theirs) { add(theirs, of_outputs, counts); });
    c_.samples = counts.samples;
    const double n = counts.classified ? static_cast<double>(counts.classified) : NAN;
    c_.agreement = static_cast<double>(counts.agree) / n;
    c_.has_top1 = counts.classified > 0 && counts.labelled == counts.classified;
    if (c_.has_top1) {
      c_.float_top1 = static_cast<double>(counts.right) / n;
      c_.quantized_top1 = static_cast<double>(counts.right_quantized) / n;
    }
    for (size_t i = 0; i < outputs; ++i)
      c_.outputs.push_back({f_.value(f_.outputs()[i]).name, of_outputs[i].sqnr(),
                            of_outputs[i].max_error, of_outputs[i].cosine()});
  }

  // What a process has seen, for another one that shares the samples; both have the same tracks.
  struct Counts {
    int64_t samples = 0, classified = 0, labelled = 0, right = 0, right_quantized = 0, agree = 0;
  };
  std::string packed(const std::vector<PairSums>& of_outputs, const Counts& counts) const {
    detail::Packer out;
    for (const Track& t : tracks_) out.put(t.total).put(t.own).put(t.grid).put(t.ranges);
    for (const PairSums& sums : of_outputs) out.put(sums);
    return out.put(counts).bytes();
  }
  void add(const std::string& theirs, std::vector<PairSums>& of_outputs, Counts& counts) {
    detail::Unpacker in(theirs);
    for (Track& t : tracks_) {
      t.total.merge(in.take_sums());
      t.own.merge(in.take_sums());
      t.grid.merge(in.take_grid());
      t.ranges.merge(in.take_ranges());
    }
    for (PairSums& sums : of_outputs) sums.merge(in.take_sums());
    const auto other = in.take<Counts>();
    counts.samples += other.samples, counts.classified += other.classified;
    counts.labelled += other.labelled, counts.agree += other.agree;
    counts.right += other.right, counts.right_quantized += other.right_quantized;
  }

  bool has_fixed_batch() const {
    return std::any_of(f_.inputs().begin(), f_.inputs().end(), [&](ValueId v) {
      return f_.type(v).dim() == 0 || f_.type(v).dims[0].known();
    });
  }

  // Where the float graph leaves more than the batch open, that has the sizes of the first sample.
  Graph with_sizes_of_a_sample() const {
    const bool open = std::any_of(f_.inputs().begin(), f_.inputs().end(), [&](ValueId v) {
      const auto& dims = f_.type(v).dims;
      return std::any_of(dims.begin() + 1, dims.end(), [](const Dim& d) { return !d.known(); });
    });
    if (!open) return f_;
    graph::InputShapes shapes;
    const std::vector<Tensor> sample = samples_.get(0, 1).inputs;
    for (size_t i = 0; i < sample.size(); ++i)
      shapes[f_.value(f_.inputs()[i]).name] = sample[i].shape();
    return graph::with_input_shapes(f_, shapes);
  }

  // As many samples at once as leave all values together in some memory; what is fixed stays.
  int64_t batch_size() const {
    constexpr int64_t kBytes = int64_t{128} << 20;
    if (has_fixed_batch() || samples_.batch == 1) return samples_.batch;
    const graph::Graph sized = with_sizes_of_a_sample();
    int64_t bytes = 1;
    for (const graph::Value& v : sized.values()) {
      if (sized.node(v.producer).kind == NodeKind::constant) continue;
      int64_t n = 4;
      for (const Dim& d : v.type.dims) n *= d.known() ? d.size() : 1;
      bytes += n;
    }
    return std::clamp<int64_t>(kBytes / bytes, 1, samples_.batch);
  }

  static MemoryFormat layout(const Tensor& x) {
    return x.dim() >= 3 && x.dim() <= 5 && !x.is_contiguous() &&
                   x.is_contiguous(MemoryFormat::channels_last)
               ? MemoryFormat::channels_last
               : MemoryFormat::contiguous;
  }

  static std::vector<int64_t> first_classes(const Tensor& scores) {
    const Tensor s = scores.dequantize().contiguous();
    std::vector<int64_t> result;
    for (int64_t i = 0; i < s.size(0); ++i) {
      const float* row = s.data<float>() + i * s.size(1);
      result.push_back(std::max_element(row, row + s.size(1)) - row);
    }
    return result;
  }

  void add_total(Track& t, const Tensor& y, int64_t begin, int64_t size) {
    if (!t.x.defined()) {  // it comes later
      if (!t.y.defined()) t.y = y.clone(layout(y));
      return;
    }
    const LayerComparison& l = c_.layers[t.layer];
    const std::vector<detail::SampleRange> ranges = detail::add_pair(t.total, t.x, y, t.axis, size);
    if (t.on_grid)
      detail::add_grid(t.grid, t.x, l.scale, l.zero_point, l.quant_min, l.quant_max, size);
    for (size_t i = 0; i < ranges.size(); ++i) {
      const detail::SampleRange& r = ranges[i];
      const int64_t sample = begin + static_cast<int64_t>(i),
                    seen = ranges.size() == 1 ? begin + size : sample + 1;
      if (r.min <= r.max) t.ranges.add(sample, seen, r);
    }
    t.y = Tensor();
    done(t);
  }

  void add_own(Track& t, const Tensor& y, int64_t size) {
    if (!t.x.defined()) {
      t.alone = y.clone(layout(y));
      return;
    }
    t.own.only_noise = true;
    detail::add_pair(t.own, t.x, y, t.axis, size);
    t.alone = Tensor();
    done(t);
  }

  void done(Track& t) {
    if (--t.waits_for == 0) copies_.give_back(t.x);
  }

  void finish(Track& t) {
    LayerComparison& l = c_.layers[t.layer];
    if (!l.matched || t.total.count == 0) return;
    const double signal = t.total.signal();
    l.sqnr = t.total.sqnr();
    l.cosine = t.total.cosine();
    l.max_error = t.total.max_error;
    l.calibration = t.ranges.after();
    if (!l.calibration.empty()) {
      l.min = l.calibration.back().min;
      l.max = l.calibration.back().max;
    }
    for (const auto& [magnitude, sample] : t.ranges.largest) {
      l.largest.push_back(magnitude);
      l.largest_samples.push_back(sample);
    }
    if (!l.largest_samples.empty()) l.stretched_by = l.largest_samples[0];
    if (t.on_grid) {
      l.histogram = t.grid.counts;
      l.activation_sqnr = decibels(signal, t.grid.error);
      l.clipping_share = t.grid.error > 0 ? t.grid.clipping / t.grid.error : 0;
      const auto end = static_cast<size_t>(128 + l.quant_max - l.quant_min + 1);
      uint64_t inside = 0, total = 0;
      for (size_t i = 0; i < l.histogram.size(); ++i) {
        total += l.histogram[i];
        if (i >= 128 && i < end) inside += l.histogram[i], l.codes_used += l.histogram[i] > 0;
      }
      l.clipped = total ? 1 - static_cast<double>(inside) / static_cast<double>(total) : 0;
    }
    if (l.op == "input") l.own_sqnr = l.activation_sqnr;
    double own = l.op == "input" ? t.grid.error : 0;
    if (t.own.count > 0) {
      l.own_sqnr = decibels(signal, t.own.noise());
      own = t.own.noise();
    } else if (l.op != "input") {  // it computes in float: only what its result's codes do
      own = t.on_grid ? t.grid.error : 0;
      l.own_sqnr = decibels(signal, own);
    }
    l.inherited_sqnr = decibels(signal, std::max(0.0, t.total.noise() - own));
    if (t.total.xx.size() < 2 || t.total.xx.size() > 65536) return;
    widest(l, t.total);
    std::vector<ChannelError> channels;
    for (size_t c = 0; c < t.total.xx.size(); ++c) {
      const double db = decibels(t.total.xx[c], t.total.dd[c]);
      if (!std::isnan(db)) channels.push_back({static_cast<int64_t>(c), db, NAN});
    }
    const size_t kept = std::min(kKeptChannels, channels.size());
    std::partial_sort(channels.begin(), channels.begin() + static_cast<int64_t>(kept),
                      channels.end(), [](const auto& a, const auto& b) { return a.sqnr < b.sqnr; });
    channels.resize(kept);
    l.worst_channels = std::move(channels);
  }

  static void widest(LayerComparison& l, const PairSums& sums) {
    std::vector<float> reach;
    for (size_t c = 0; c < sums.xx.size(); ++c)
      reach.push_back(std::max({0.F, -sums.x_min[c], sums.x_max[c]}));
    l.widest_channel = std::max_element(reach.begin(), reach.end()) - reach.begin();
    const float most = reach[static_cast<size_t>(l.widest_channel)];
    const auto middle = reach.begin() + static_cast<int64_t>(reach.size() / 2);
    std::nth_element(reach.begin(), middle, reach.end());
    if (most > 0) l.widest_ratio = static_cast<double>(most) / *middle;
  }

  void probe() {
    if (options_.probe_layers <= 0 || !is_numbers(f_.type(f_.outputs()[0]))) return;
    std::vector<size_t> layers;
    for (size_t i = 0; i < tracks_.size(); ++i) {
      const LayerComparison& l = c_.layers[tracks_[i].layer];
      if (l.matched && (l.own_scale || l.fixed_scale || !std::isnan(l.weight_sqnr)) &&
          std::isfinite(l.own_sqnr))
        layers.push_back(i);
    }
    const auto of = [&](size_t i) -> const LayerComparison& { return c_.layers[tracks_[i].layer]; };
    std::stable_sort(layers.begin(), layers.end(), [&](size_t a, size_t b) {
      const bool x = of(a).fault != Fault::none, y = of(b).fault != Fault::none;
      return x != y ? x : of(a).own_sqnr < of(b).own_sqnr;
    });
    if (static_cast<int64_t>(layers.size()) > options_.probe_layers)
      layers.resize(static_cast<size_t>(options_.probe_layers));
    if (!layers.empty())
      Probe(f_, q_, match_, tracks_, layers)
          .run(c_, samples_, batch_size(), seconds_a_sample_, options_);
  }

  void time_shares() {
    const runtime::Program program = runtime::compile(q_);
    const std::vector<Tensor> inputs =
        samples_.get(0, has_fixed_batch() ? samples_.batch : 1).inputs;
    std::map<std::string, size_t> by_name;
    for (const Track& t : tracks_)
      if (t.node >= 0 && t.result == 0 && match_.node[t.node] >= 0)
        by_name[q_.value(q_.node(match_.node[t.node]).outputs[0]).name] = t.layer;
    detail::share_time(program, inputs, [&](const Node& node, double part) {
      const auto it = by_name.find(program.graph().value(node.outputs[0]).name);
      if (it == by_name.end()) return;
      double& share = c_.layers[it->second].time_share;
      share = (std::isnan(share) ? 0 : share) + part;
    });
    c_.quantized_memory_bytes = static_cast<int64_t>(program.arena_bytes(inputs));
  }

  const Graph &f_, &q_;
  const Samples& samples_;
  const CompareOptions& options_;
  const Match match_;
  Comparison c_;
  std::vector<Track> tracks_;
  Copies copies_;
  double seconds_a_sample_ = 0;
};

}  // namespace

void detail::share_time(const runtime::Program& program, const std::vector<Tensor>& inputs,
                        const std::function<void(const Node&, double)>& add) {
  std::vector<double> seconds = program.profile(inputs);
  for (int i = 0; i < 4; ++i) {
    const std::vector<double> again = program.profile(inputs);
    for (size_t s = 0; s < seconds.size(); ++s) seconds[s] = std::min(seconds[s], again[s]);
  }
  double all = 0;
  for (double s : seconds) all += s;
  if (!(all > 0)) return;
  for (size_t s = 0; s < seconds.size(); ++s)
    add(program.graph().node(program.steps()[s].node), seconds[s] / all);
}

int detail::rank_of(Fault fault) {
  return fault == Fault::none ? 2 : fault == Fault::left_float ? 1 : 0;
}

void rank(Comparison& c) {
  c.ranking.clear();
  for (size_t i = 0; i < c.layers.size(); ++i)
    if (c.layers[i].matched) c.ranking.push_back(i);
  const auto kind = [&](size_t i) { return detail::rank_of(c.layers[i].fault); };
  const auto number = [](double x, double otherwise) { return std::isnan(x) ? otherwise : x; };
  std::stable_sort(c.ranking.begin(), c.ranking.end(), [&](size_t i, size_t j) {
    const LayerComparison &a = c.layers[i], &b = c.layers[j];
    if (kind(i) != kind(j)) return kind(i) < kind(j);
    if (kind(i) == 1) return number(a.time_share, 0) > number(b.time_share, 0);
    const double x = number(a.noise_share, -1), y = number(b.noise_share, -1);
    if (x != y) return x > y;
    return number(a.own_sqnr, INFINITY) < number(b.own_sqnr, INFINITY);
  });
}

Comparison compare(const Graph& float_graph, const Graph& quantized, const Samples& samples,
                   const CompareOptions& options) {
  check_same_interface(float_graph, quantized);
  OCTET_CHECK(samples.count >= 1 && samples.batch >= 1 && samples.get, invalid_argument,
              "compare: {} samples in batches of {}; expected 1 or more", samples.count,
              samples.batch);
  return Comparer(float_graph, quantized, samples, options).run();
}

}  // namespace octet::debug
