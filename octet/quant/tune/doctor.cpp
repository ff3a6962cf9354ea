#include "octet/quant/tune/doctor.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/debug/compare_impl.h"
#include "octet/debug/saturation.h"
#include "octet/graph/graph_module.h"
#include "octet/quant/algorithms/choose_ranges.h"
#include "octet/quant/tune/doctor_impl.h"
#include "octet/quant/tune/precision.h"
#include "octet/quant/tune/tune.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;
using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

const char* to_string(Cause cause) {
  switch (cause) {
    case Cause::outlier_channel:
      return "outlier channel";
    case Cause::clipped_tail:
      return "clipped tail";
    case Cause::stretched_range:
      return "stretched range";
    case Cause::dead_channel:
      return "dead channel";
    case Cause::unlike_operands:
      return "unlike operands";
    case Cause::per_tensor_weights:
      return "per-tensor weights";
    case Cause::saturating_target:
      return "saturating target";
    case Cause::fixed_range:
      return "fixed range";
    case Cause::few_samples:
      return "too few samples";
    case Cause::preprocessing:
      return "unlike preprocessing";
    case Cause::weights:
      return "weights";
    case Cause::rounding:
      return "rounding";
  }
  return "";
}

namespace {

constexpr double kSameScore = 1;   // dB: of cures this near to the best the cheapest is taken
constexpr size_t kMostTried = 6;   // cures of one finding
constexpr double kWide = 8;        // an outlier channel is so many times the median one
constexpr double kExceeds = 0.1;   // of a range: values that far beyond are not of its samples
constexpr double kPoorFixed = 22;  // dB: of rounding to a fixed range
constexpr int64_t kFewSamples = 16;
constexpr double kCostly = 2;     // dB: what layers in float or with 16 bits have to gain
constexpr double kSound = 30;     // dB: what rounding to 8 bits leaves
constexpr double kOtherUnit = 8;  // samples so many times the range are not merely larger ones

// The recipe is changed in place.
struct Cure {
  std::string what;
  std::function<void(Recipe&)> change;
  bool choose = false;  // ranges by the noise at the outputs
};

struct Plan {
  DoctorFinding finding;
  std::vector<Cure> cures;
  int64_t left_out = -1;  // the sample that the score leaves out
  std::string engine;     // that the score is taken with
  bool of_range = false;  // may follow from ranges that calibration got wrong
  bool of_all = false;    // a cure chooses all ranges anew
  double least_gain = 0;  // in dB, if more than DoctorOptions'
};

debug::Samples as_samples(const Batches& batches, const std::vector<Tensor>& labels) {
  const auto size_of = [](const std::vector<Tensor>& b) {
    return b[0].dim() == 0 ? int64_t{1} : b[0].size(0);
  };
  debug::Samples samples{.count = 0, .batch = size_of(batches.at(0)), .get = {}};
  for (const auto& batch : batches) samples.count += size_of(batch);
  samples.get = [&batches, &labels, size_of](int64_t begin, int64_t size) {
    std::vector<std::vector<Tensor>> parts;  // by input
    std::vector<Tensor> of_labels;
    int64_t at = 0;
    for (size_t b = 0; b < batches.size(); ++b) {
      const int64_t n = size_of(batches[b]), from = std::max(begin, at),
                    to = std::min(begin + size, at + n);
      if (from < to) {
        const auto cut = [&](const Tensor& t) {
          return to - from == n ? t : t.slice(0, from - at, to - at).contiguous();
        };
        parts.resize(batches[b].size());
        for (size_t i = 0; i < batches[b].size(); ++i) parts[i].push_back(cut(batches[b][i]));
        if (b < labels.size()) of_labels.push_back(cut(labels[b]));
      }
      at += n;
    }
    debug::SampleBatch result;
    const auto join = [](const std::vector<Tensor>& list) {
      return list.size() == 1 ? list[0] : ops::call("cat", list, {{"dim", int64_t{0}}});
    };
    for (const auto& list : parts) result.inputs.push_back(join(list));
    if (!of_labels.empty()) result.labels = join(of_labels);
    return result;
  };
  return samples;
}

// Gain in dB if so much of the noise goes.
double gain_of(double share) {
  return std::isnan(share) ? 0 : -10 * std::log10(1 - std::clamp(share, 0.0, 0.999));
}

std::string names_text(const std::vector<std::string>& names) {
  return names.size() == 1 ? names[0] : fmt::format("{} and {} more", names[0], names.size() - 1);
}

// Samples with their numbers; batches are runs of one of the given ones.
struct Part {
  Batches batches;
  std::vector<Tensor> labels;
  std::vector<int64_t> first;  // by batch: the number of its first sample
};

// The samples of `all` for which `is_in` holds. Networks whose batch is fixed are given whole
// batches: those whose last sample is in.
Part part_of(const Batches& all, const std::vector<Tensor>& labels, bool whole,
             const std::function<bool(int64_t)>& is_in) {
  Part part;
  int64_t first = 0;
  for (size_t b = 0; b < all.size(); ++b) {
    const int64_t size = all[b][0].dim() ? all[b][0].size(0) : 1;
    const auto add = [&](int64_t from, int64_t to) {
      const auto cut = [&](const Tensor& t) {
        return to - from == size ? t : t.slice(0, from, to).contiguous();
      };
      part.batches.emplace_back();
      for (const Tensor& t : all[b]) part.batches.back().push_back(cut(t));
      if (b < labels.size()) part.labels.push_back(cut(labels[b]));
      part.first.push_back(first + from);
    };
    if (whole) {
      if (is_in(first + size - 1)) add(0, size);
    } else {
      for (int64_t i = 0; i < size;) {
        int64_t end = i;
        while (end < size && is_in(first + end)) ++end;
        if (end > i) add(i, end);
        i = std::max(end, i + 1);
      }
    }
    first += size;
  }
  return part;
}

class Doctor {
 public:
  Doctor(const Graph& f, const Graph& q, const Batches& samples, const std::vector<Tensor>& labels,
         const DoctorOptions& options)
      : f_(f),
        q_(q),
        labels_(labels),
        options_(options),
        start_(std::chrono::steady_clock::now()),
        data_(samples) {
    const TensorType& type = f.type(f.inputs().at(0));
    fixed_batch_ = type.dim() == 0 || type.dims[0].known();
    divide();
  }

  DoctorReport run() {
    say("the given network");
    expect();
    report_.before = current_score_ = score(q_);
    if (!labels_.empty()) report_.float_top1 = report_.float_top1_after = top1(f_);
    if (!labels_.empty()) report_.before_top1 = top1(q_);
    const runtime::Program given = runtime::compile(q_);
    for (const std::string& line : given.warnings()) report_.notes.push_back(line);
    look_at_data();
    say("layers");
    base_ = doctor_detail::recipe_of(f_, q_, report_.notes);
    const auto prepared = prepare_fx(
        f_, base_.mapping, {.skip = base_.skip, .backend = get_backend_config(base_.backend)});
    before_ = prepared->watched().graph;
    watched_ = doctor_detail::labels_of(*prepared);
    comparison_ = debug::compare(before_, q_, as_samples(data_, labels_));
    current_ = base_;
    find();
    std::stable_sort(plans_.begin(), plans_.end(), [](const Plan& a, const Plan& b) {
      if (a.of_all != b.of_all) return a.of_all;
      return a.finding.suspected > b.finding.suspected;
    });
    for (Plan& plan : plans_) treat(plan);
    look_at_saturation();
    if (current_score_ < kSound) treat_rounding();
    std::stable_partition(report_.findings.begin(), report_.findings.end(),
                          [](const DoctorFinding& f) { return f.kept; });
    report_.recipe = current_recipe_ ? *current_recipe_ : base_;
    report_.graph = current_graph_ ? std::move(*current_graph_) : q_;
    report_.cured = kept_any_ || report_.data;
    report_.after = score(report_.graph);
    if (!labels_.empty()) report_.after_top1 = top1(report_.graph);
    return std::move(report_);
  }

 private:
  void say(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }
  bool is_late() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count() >
           options_.seconds;
  }

  // What ranges are fitted to, and what scores are taken on.
  void divide() {
    const int64_t n = options_.hold_out;
    fit_ = part_of(data_, labels_, fixed_batch_, [n](int64_t i) { return n == 0 || (i + 1) % n; });
    judge_ = part_of(data_, labels_, fixed_batch_,
                     [n](int64_t i) { return n == 0 || (i + 1) % n == 0; });
    OCTET_CHECK(!fit_.batches.empty() && !judge_.batches.empty(), invalid_argument,
                "doctor: of so few samples each {}-th cannot be held out; give more", n);
  }

  // -- scores -------------------------------------------------------------------------------------

  void expect() {
    expected_.clear();
    const runtime::Program program = runtime::compile(graph::without_final_softmax(f_));
    for (const auto& batch : judge_.batches) expected_.push_back(program.run(batch));
  }

  // `most`: batches with so many samples, or a few more, are enough. With an engine that is slow
  // all would take long.
  static constexpr int64_t kAll = INT64_MAX, kSlow = 8;
  double score(const Graph& g, const std::string& engine = "", int64_t left_out = -1,
               int64_t most = kAll) const {
    const runtime::Program program =
        runtime::compile(graph::without_final_softmax(g), {.engine = engine});
    std::vector<debug::ErrorStatistics> errors(expected_.at(0).size());
    if (!engine.empty()) most = kSlow;
    int64_t seen = 0;
    for (size_t b = 0; b < judge_.batches.size() && seen < most; ++b) {
      const std::vector<Tensor>& inputs = judge_.batches[b];
      const std::vector<Tensor> y = program.run(inputs);
      const int64_t size = inputs[0].dim() ? inputs[0].size(0) : 1;
      seen += size;
      for (size_t i = 0; i < y.size(); ++i) {
        const Tensor& x = expected_[b][i];
        if (!is_floating(x.dtype())) continue;
        const int64_t out = left_out < 0 ? -1 : left_out - judge_.first[b];
        if (out < 0 || out >= size || x.dim() == 0 || x.size(0) != size) {
          errors[i].add(x, y[i]);
          continue;
        }
        for (const auto& [from, to] : {std::pair{int64_t{0}, out}, {out + 1, size}})
          if (from < to)
            errors[i].add(x.slice(0, from, to).contiguous(), y[i].slice(0, from, to).contiguous());
      }
    }
    double ratio = 0;
    int64_t outputs = 0;
    for (const debug::ErrorStatistics& e : errors) {
      if (e.count() == 0 || e.signal() == 0) continue;
      ratio += std::isfinite(e.noise()) ? e.noise() / e.signal() : 1e10;
      ++outputs;
    }
    return outputs == 0 ? NAN
                        : -10 * std::log10(std::max(ratio / static_cast<double>(outputs), 1e-20));
  }

  double top1(const Graph& g) const {
    const runtime::Program program = runtime::compile(g);
    Batches got;
    for (const auto& batch : judge_.batches) got.push_back(program.run(batch));
    return top_k_metric(1, judge_.labels).score(got, got);
  }

  // -- trials -------------------------------------------------------------------------------------

  struct Made {
    Recipe recipe;
    Graph graph;
  };
  Made make(const Cure& cure) const {
    Recipe r = current_;
    cure.change(r);
    if (!(r.mapping == current_.mapping) || r.skip != current_.skip) {
      Recipe from = current_;
      from.ranges = r.ranges;
      keep_ranges(f_, r, from);
    }
    r.samples.without_every = options_.hold_out;
    calibrate(f_, r, fit_.batches, cure.choose);
    Graph g = apply(f_, r, fit_.batches);
    return {std::move(r), std::move(g)};
  }

  // With `keep`, a cure that gains enough is a part of what follows.
  void treat(Plan& plan, bool keep = true) {
    DoctorFinding& finding = plan.finding;
    // What ranges from other data did is mended with them.
    if (plan.of_range && ranges_are_new_) return;
    finding.before = plan.engine.empty() && plan.left_out < 0
                         ? current_score_
                         : score(current_graph_ ? *current_graph_ : q_, plan.engine, plan.left_out);
    ranges_tried_ |= plan.of_all;
    std::vector<std::optional<Made>> made;
    for (const Cure& cure : plan.cures) {
      if (finding.cures.size() >= kMostTried) break;
      if (is_late()) {
        report_.notes.push_back(
            fmt::format("{}: no time was left to try {}", to_string(finding.cause), cure.what));
        continue;
      }
      say(fmt::format("{}: {}", to_string(finding.cause), cure.what));
      DoctorCure tried{.what = cure.what};
      made.emplace_back();
      try {
        made.back() = make(cure);
        tried.score = score(made.back()->graph, plan.engine, plan.left_out);
      } catch (const Error& e) {
        tried.failed = e.what();
      }
      finding.cures.push_back(std::move(tried));
    }
    double best = -INFINITY;
    for (const DoctorCure& c : finding.cures)
      if (c.score > best) best = c.score;
    for (size_t i = 0; i < finding.cures.size() && finding.best < 0; ++i)
      if (finding.cures[i].score >= best - kSameScore) finding.best = static_cast<int>(i);
    const double least_gain = std::max(options_.least_gain, plan.least_gain);
    if (finding.best >= 0 && finding.gain() < least_gain) {
      // A cheaper one that gains too little does not hide one that gains enough.
      for (size_t i = 0; i < finding.cures.size(); ++i)
        if (finding.cures[i].score == best) finding.best = static_cast<int>(i);
    }
    finding.kept = keep && finding.best >= 0 && finding.gain() >= least_gain;
    if (finding.kept) {
      Made& m = *made[static_cast<size_t>(finding.best)];
      kept_any_ = true;
      ranges_are_new_ |= plan.of_all;
      current_ = m.recipe;
      current_recipe_ = std::move(m.recipe);
      current_graph_ = std::move(m.graph);
      current_score_ =
          plan.engine.empty() && plan.left_out < 0 ? finding.after() : score(*current_graph_);
    }
    report_.findings.push_back(finding);
  }

  // -- ranges -------------------------------------------------------------------------------------

  const doctor_detail::Ranges& fresh(const Recipe& recipe, int64_t left_out = -1) const {
    std::string key = std::to_string(left_out);
    for (const Recipe::Step& step : recipe.steps) key += " " + step.name;
    const auto at = fresh_.find(key);
    if (at != fresh_.end()) return at->second;
    const int64_t n = options_.hold_out;
    const Part data = part_of(data_, {}, fixed_batch_, [n, left_out](int64_t i) {
      return i != left_out && (n == 0 || (i + 1) % n);
    });
    return fresh_[key] = doctor_detail::fresh_ranges(f_, recipe, data.batches);
  }

  void set_range(Recipe& r, const LayerComparison& l, const std::string& policy) const {
    const auto label = watched_.find(l.value);
    OCTET_CHECK(label != watched_.end(), not_found, "no observer watches {}", l.value);
    const auto& ranges = fresh(r).at(policy);
    const auto range = ranges.find(label->second);
    OCTET_CHECK(range != ranges.end(), not_found, "the range of {} is not chosen from data",
                l.value);
    r.ranges[label->second] = range->second;
  }

  Cure all_ranges(const std::string& policy, int64_t left_out = -1) const {
    return {fmt::format("all ranges anew ({}){}", policy,
                        left_out >= 0 ? fmt::format(", without sample {}", left_out) : ""),
            [this, policy, left_out](Recipe& r) {
              for (const auto& [label, range] : fresh(r, left_out).at(policy)) {
                r.ranges[label] = range;
                if (left_out >= 0)
                  r.ranges[label].from += fmt::format(" without sample {}", left_out);
              }
            }};
  }

  // The way of choosing ranges that explains those of the network best.
  std::string likely_policy() const {
    std::string best = "percentile";
    double least = INFINITY;
    for (const auto& [policy, ranges] : fresh(base_)) {
      std::vector<double> distances;
      for (const auto& [label, range] : base_.ranges)
        if (const auto at = ranges.find(label); at != ranges.end())
          distances.push_back(std::abs(std::log(range.scale / at->second.scale)));
      if (distances.empty()) continue;
      const auto middle = distances.begin() + static_cast<int64_t>(distances.size() / 2);
      std::nth_element(distances.begin(), middle, distances.end());
      if (*middle < least) least = *middle, best = policy;
    }
    return best;
  }

  // -- causes -------------------------------------------------------------------------------------

  const Node* node_of(const LayerComparison& l) const {
    const auto v = before_.find(l.value);
    return v && l.op != "input" ? &before_.producer(*v) : nullptr;
  }

  std::vector<std::string> readers_of(const LayerComparison& l) const {
    std::vector<std::string> names;
    const auto v = before_.find(l.value);
    for (NodeId user : before_.users(*v)) names.push_back(node_name(before_, before_.node(user)));
    return names;
  }

  static void add_skip(Recipe& r, const std::vector<std::string>& names) {
    for (const std::string& name : names)
      if (std::find(r.skip.begin(), r.skip.end(), name) == r.skip.end()) r.skip.push_back(name);
  }

  using Layers = std::vector<const LayerComparison*>;
  using Change = std::function<void(Recipe&, const LayerComparison&)>;

  // Weights with a scale for each channel.
  static void own_scales(Recipe& r, const LayerComparison& l) {
    change_qconfig(r.mapping, l.name, [](QConfig& q) { q.weight = get_default_qconfig().weight; });
  }

  Cure equalized() const {
    return {"the step equalization (all ranges anew)", [this](Recipe& r) {
              r.steps.insert(r.steps.begin(), Recipe::Step{"equalization"});
              r.ranges = fresh(r).at(likely_policy());
            }};
  }

  // A cure of the worst layer, and of all.
  static void add_cures(Plan& plan, const Layers& layers, const std::string& what,
                        const Change& change) {
    plan.cures.push_back({fmt::format("{} for {}", what, layers[0]->name),
                          [change, l = layers[0]](Recipe& r) { change(r, *l); }});
    if (layers.size() > 1)
      plan.cures.push_back({fmt::format("{} for all {} such layers", what, layers.size()),
                            [change, layers](Recipe& r) {
                              for (const LayerComparison* l : layers) change(r, *l);
                            }});
  }

  static Plan plan_of(Cause cause, const Layers& layers, const std::string& sentence = "") {
    Plan plan;
    plan.finding.cause = cause;
    plan.finding.layer = layers[0]->name;
    plan.finding.sentence = sentence.empty() ? layers[0]->sentence : sentence;
    double share = 0;
    for (const LayerComparison* l : layers)
      if (!std::isnan(l->noise_share)) share += l->noise_share;
    plan.finding.suspected = gain_of(share);
    if (layers.size() > 1)
      plan.finding.sentence +=
          fmt::format(" ({} more layer{} alike)", layers.size() - 1, layers.size() == 2 ? "" : "s");
    return plan;
  }

  void find() {
    std::map<Fault, Layers> faults;
    Layers fixed, wide, weights, one_scale;
    for (size_t i : comparison_.ranking) {
      const LayerComparison& l = comparison_.layers[i];
      const Node* node = node_of(l);
      if (fills_little(l))
        fixed.push_back(&l);
      else if (l.fault == Fault::scale_too_large && l.of_weight)
        weights.push_back(&l);
      else if (l.fault == Fault::none && l.quantized && !l.per_channel_weights &&
               l.noise_share > 0.1 && l.weight_error_sqnr < l.activation_sqnr + 6)
        one_scale.push_back(&l);
      else if (l.fault == Fault::none && node && is_wide(l, *node))
        wide.push_back(&l);
      else if (l.fault == Fault::outlier && node && is_wide(l, *node))
        wide.push_back(&l);
      else
        faults[l.fault].push_back(&l);
    }
    find_ranges(faults);
    if (const Layers& l = faults[Fault::unlike_scales]; !l.empty()) add_unlike(l);
    // Where that is not a fault by itself, it may still be what costs most.
    Layers per_tensor = faults[Fault::per_tensor_weights];
    per_tensor.insert(per_tensor.end(), one_scale.begin(), one_scale.end());
    if (const Layers& l = per_tensor; !l.empty()) {
      Plan plan = plan_of(
          Cause::per_tensor_weights, l,
          l[0]->fault == Fault::none
              ? fmt::format("its weights have one scale for all channels: {:.1f} dB, and it makes "
                            "{:.0f}% of the output's noise",
                            l[0]->weight_sqnr, 100 * l[0]->noise_share)
              : "");
      add_cures(plan, l, "weights with a scale for each channel", own_scales);
      plans_.push_back(std::move(plan));
    }
    if (const Layers& l = faults[Fault::dead_channel]; !l.empty()) add_dead(l);
    if (!weights.empty()) {
      Plan plan = plan_of(Cause::weights, weights);
      plan.cures.push_back({"all weights quantized anew from the float ones", [](Recipe&) {}});
      plans_.push_back(std::move(plan));
    }
    if (!fixed.empty()) add_fixed(fixed);
    if (!wide.empty()) add_wide(wide);
  }

  // Its result has a fixed range, and rounding to that costs the output.
  bool fills_little(const LayerComparison& l) const {
    if (!l.fixed_scale || l.scale <= 0 || is_output(l)) return false;
    const double filled = (std::max(l.max, 0.F) - std::min(l.min, 0.F)) /
                          (l.scale * static_cast<double>(l.quant_max - l.quant_min + 1));
    return (l.noise_share > 0.05 && l.activation_sqnr < kPoorFixed) ||
           (l.noise_share > 0.3 && filled < 0.5) || l.noise_share > 0.5;
  }

  bool is_output(const LayerComparison& l) const {
    const auto v = before_.find(l.value);
    return v && std::find(before_.outputs().begin(), before_.outputs().end(), *v) !=
                    before_.outputs().end();
  }

  // One channel of the weight is far larger than the others and so is the result's.
  bool is_wide(const LayerComparison& l, const Node& node) const {
    if (!l.own_scale || !l.per_channel_weights || l.widest_ratio < kWide || l.widest_channel < 0)
      return false;
    if (!(l.noise_share > 0.05)) return false;
    const auto place = debug::detail::weight_operand(before_, node);
    return place && ratio_of_weight(l, node, *place) >= kWide / 2;
  }

  double ratio_of_weight(const LayerComparison& l, const Node& node, size_t place) const {
    const Tensor& w = before_.constant(node.inputs[place]);
    debug::detail::PairSums sums;
    debug::detail::add_pair(sums, w, w, debug::detail::weight_axis(node, w), 1);
    if (static_cast<size_t>(l.widest_channel) >= sums.xx.size()) return 0;
    std::vector<float> reach;
    for (size_t c = 0; c < sums.xx.size(); ++c)
      reach.push_back(std::max(-sums.x_min[c], sums.x_max[c]));
    const float most = reach[static_cast<size_t>(l.widest_channel)];
    std::nth_element(reach.begin(), reach.begin() + static_cast<int64_t>(reach.size() / 2),
                     reach.end());
    return static_cast<double>(most) / reach[reach.size() / 2];
  }

  void add_wide(const Layers& layers) {
    const LayerComparison& l = *layers[0];
    const Node& node = *node_of(l);
    Plan plan = plan_of(
        Cause::outlier_channel, layers,
        fmt::format("channel {} of its weight is {:.0f} times as large as the median channel, and "
                    "of its result {:.0f} times: it alone sets the range [{:.4g}, {:.4g}], and the "
                    "median channel has {:.0f} of {} codes",
                    l.widest_channel,
                    ratio_of_weight(l, node, *debug::detail::weight_operand(before_, node)),
                    l.widest_ratio, l.min, l.max,
                    std::ceil(static_cast<double>(l.quant_max - l.quant_min + 1) / l.widest_ratio),
                    l.quant_max - l.quant_min + 1));
    plan.cures.push_back(equalized());
    add_float_cures(plan, layers);
    plans_.push_back(std::move(plan));
  }

  void add_float_cure(Plan& plan, const Layers& layers) const {
    add_cures(plan, layers, "float, with its readers,",
              [this](Recipe& r, const LayerComparison& l) {
                add_skip(r, {l.name});
                add_skip(r, readers_of(l));
              });
  }

  // 16 bits for the result, then no codes at all.
  void add_float_cures(Plan& plan, const Layers& layers) const {
    add_cures(plan, layers, "16 bits", [](Recipe& r, const LayerComparison& l) {
      set_precision(r, l.name, Precision::bits16);
    });
    add_float_cure(plan, layers);
  }

  void add_fixed(const Layers& layers) {
    const LayerComparison& l = *layers[0];
    Plan plan = plan_of(
        Cause::fixed_range, layers,
        fmt::format("results of {} have the fixed range [{:.4g}, {:.4g}], of which the data fill "
                    "[{:.4g}, {:.4g}]: {} of {} codes, {:.1f} dB, {:.0f}% of the output's noise",
                    l.op, l.scale * static_cast<double>(l.quant_min - l.zero_point),
                    l.scale * static_cast<double>(l.quant_max - l.zero_point), l.min, l.max,
                    l.codes_used, l.quant_max - l.quant_min + 1, l.activation_sqnr,
                    100 * l.noise_share));
    add_cures(plan, layers, "a range from the data", [](Recipe& r, const LayerComparison& layer) {
      change_qconfig(r.mapping, layer.name, [&](QConfig& q) {
        ObserverOptions options;
        options.dtype = q.activation.options().dtype;
        const ScaleZeroPoint s = choose_qparams(layer.min, layer.max, options);
        q.activation = ObserverFactory(
            "fixed", {.dtype = options.dtype, .scale = s.scale, .zero_point = s.zero_point});
      });
    });
    add_float_cures(plan, layers);
    plans_.push_back(std::move(plan));
  }

  void add_unlike(const Layers& layers) {
    Plan plan = plan_of(Cause::unlike_operands, layers);
    const auto operands = [this](const LayerComparison& l) {
      std::vector<std::string> names;
      for (ValueId v : node_of(l)->inputs)
        if (v != kNone && before_.producer(v).kind == NodeKind::call)
          names.push_back(node_name(before_, before_.producer(v)));
      return names;
    };
    add_cures(plan, layers, "16 bits, with its operands,",
              [operands](Recipe& r, const LayerComparison& l) {
                set_precision(r, l.name, Precision::bits16);
                for (const std::string& name : operands(l))
                  set_precision(r, name, Precision::bits16);
              });
    add_float_cure(plan, layers);
    add_cures(plan, layers, "float, with its operands and readers,",
              [this, operands](Recipe& r, const LayerComparison& l) {
                add_skip(r, {l.name});
                add_skip(r, readers_of(l));
                add_skip(r, operands(l));
              });
    plans_.push_back(std::move(plan));
  }

  void add_dead(const Layers& layers) {
    Plan plan = plan_of(Cause::dead_channel, layers);
    add_cures(plan, layers, "weights quantized anew, with a scale for each channel,", own_scales);
    plan.cures.push_back(equalized());
    add_float_cures(plan, layers);
    plans_.push_back(std::move(plan));
  }

  // -- ranges that are too small or too large -----------------------------------------------------

  struct Reach {
    int64_t layers = 0, exceed = 0, half_used = 0;
  };
  // Of values with a range of their own: how many the data exceed, and how many they do not fill
  // to half.
  Reach reach_of_data() const {
    Reach r;
    for (const LayerComparison& l : comparison_.layers) {
      if (!l.matched || !l.own_scale || l.scale <= 0 || l.min == l.max) continue;
      const double low = l.scale * static_cast<double>(l.quant_min - l.zero_point),
                   high = l.scale * static_cast<double>(l.quant_max - l.zero_point);
      ++r.layers;
      r.exceed += std::max(l.max - high, low - l.min) > kExceeds * (high - low);
      r.half_used += std::max(l.max, 0.F) - std::min(l.min, 0.F) < 0.5 * (high - low);
    }
    return r;
  }

  // How many samples calibrated the network, if it says so; 0: it does not.
  int64_t calibrated_on() const {
    if (base_.samples.count > 0) return base_.samples.count;
    const auto text = q_.metadata.find("calibration_samples");
    int64_t n = 0;
    if (text != q_.metadata.end())
      std::from_chars(text->second.data(), text->second.data() + text->second.size(), n);
    return n;
  }

  // An input whose values as a whole are not those that its range was made for.
  struct Unlike {
    bool beyond = false, within = false;  // most samples leave the range; all fill little of it
    bool by_far = false;                  // so far that no choice of samples explains it
    std::string text;
  };
  Unlike unlike_input(const LayerComparison& l) const {
    const double low = l.scale * static_cast<double>(l.quant_min - l.zero_point),
                 high = l.scale * static_cast<double>(l.quant_max - l.zero_point);
    size_t at = 0;
    for (size_t i = 0; i < before_.inputs().size(); ++i)
      if (before_.value(before_.inputs()[i]).name == l.value) at = i;
    int64_t samples = 0, beyond = 0, far = 0;
    for (const auto& batch : data_) {
      const Tensor& x = batch.at(at);
      const int64_t n = x.dim() ? x.size(0) : 1;
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<float> v =
            (x.dim() ? x.slice(0, i, i + 1) : x).contiguous().to_vector<float>();
        if (v.empty()) continue;
        const auto [least, most] = std::minmax_element(v.begin(), v.end());
        const double span = std::max(*most, 0.F) - std::min(*least, 0.F);
        const auto out =
            std::count_if(v.begin(), v.end(), [&](float e) { return e < low || e > high; });
        beyond += span > 2 * (high - low) || static_cast<double>(out) > 0.2 * std::ssize(v);
        far += span > kOtherUnit * (high - low);
        ++samples;
      }
    }
    const double span = std::max(l.max, 0.F) - std::min(l.min, 0.F);
    Unlike u{.beyond = beyond * 5 > samples * 4,
             .within = span * 4 < high - low,
             .by_far = far * 5 > samples * 4};
    u.text = fmt::format("its range is [{:.4g}, {:.4g}], and the samples lie in [{:.4g}, {:.4g}]",
                         low, high, l.min, l.max);
    return u;
  }

  void find_ranges(std::map<Fault, Layers>& faults) {
    const std::string policy = likely_policy();
    double ranged = 0;  // the share of noise that clipping and unused codes make
    for (const Fault fault : {Fault::clipped, Fault::scale_too_large})
      for (const LayerComparison* l : faults[fault])
        if (!std::isnan(l->noise_share)) ranged += l->noise_share;
    find_wrong_samples(reach_of_data(), policy, ranged);
    find_wrong_ranges(faults, policy);
  }

  // What calibrated the network was of another kind, too little, or read by a rule that cuts tails
  // off. `ranged`: the share of the noise that ranges make.
  void find_wrong_samples(const Reach& reach, const std::string& policy, double ranged) {
    // Inputs are of another kind than those that calibrated.
    for (const LayerComparison& l : comparison_.layers) {
      if (l.op != "input" || l.scale <= 0 || l.fault == Fault::outlier) continue;
      const Unlike u = unlike_input(l);
      // Of one sample that stretched the input most other ranges would be right.
      const bool others = 2 * (reach.half_used + reach.exceed) > reach.layers;
      const bool small = u.within && others, large = u.beyond && others && (u.by_far || !is_few());
      if (!small && !large) continue;
      Plan plan;
      plan.finding.cause = Cause::preprocessing;
      plan.finding.layer = l.name;
      plan.finding.sentence = fmt::format(
          "the data are scaled or shifted otherwise than what calibrated the network: "
          "{}{}",
          u.text,
          norms_agree_ ? "; batch norms agree with the data, so calibration was unlike"
                       : "; prepare both alike (--scale, --mean, --std), as in training");
      plan.finding.suspected = gain_of(std::max(ranged, 0.99));
      plan.of_all = true;
      plan.cures = {all_ranges("percentile"), all_ranges("minmax")};
      plans_.push_back(std::move(plan));
      break;
    }
    const bool is_unlike =
        std::any_of(plans_.begin(), plans_.end(), [](const Plan& p) { return p.of_all; });
    if (!is_unlike && is_few() && reach.exceed * 5 >= reach.layers * 2 && reach.exceed > 1) {
      Plan plan;
      plan.finding.cause = Cause::few_samples;
      const int64_t n = calibrated_on();
      plan.finding.sentence = fmt::format(
          "calibration saw too little{}: on {} of {} values the data go more than {:.0f}% of the "
          "range beyond it; calibrate on more samples",
          n > 0 ? fmt::format(" ({} sample{})", n, n == 1 ? "" : "s") : "", reach.exceed,
          reach.layers, 100 * kExceeds);
      plan.finding.suspected = gain_of(std::max(ranged, 0.5));
      plan.of_all = true;
      plan.cures = {all_ranges("percentile"), all_ranges("minmax"), all_ranges("mse")};
      plans_.push_back(std::move(plan));
    }
    const bool is_global =
        std::any_of(plans_.begin(), plans_.end(), [](const Plan& p) { return p.of_all; });
    if (!is_global && reach.exceed * 4 >= reach.layers && reach.exceed > 1) {
      Plan plan;
      plan.finding.cause = Cause::clipped_tail;
      plan.finding.sentence = fmt::format(
          "its ranges (most like those of {}) cut off tails: on {} of {} values the data go more "
          "than {:.0f}% of the range beyond it",
          policy, reach.exceed, reach.layers, 100 * kExceeds);
      plan.finding.suspected = gain_of(std::max(ranged, 0.5));
      plan.of_all = true;
      for (const char* p : {"percentile", "minmax", "mse"}) plan.cures.push_back(all_ranges(p));
      plans_.push_back(std::move(plan));
    }
  }

  // Values whose own range is too small or too large.
  void find_wrong_ranges(std::map<Fault, Layers>& faults, const std::string& policy) {
    if (const Layers& l = faults[Fault::clipped]; !l.empty()) {
      Plan plan = plan_of(Cause::clipped_tail, l);
      plan.of_range = true;
      for (const char* p : {"minmax", "mse"})
        add_cures(plan, l, fmt::format("a range anew ({})", p),
                  [this, p](Recipe& r, const LayerComparison& layer) { set_range(r, layer, p); });
      plan.cures.push_back(all_ranges("minmax"));
      plans_.push_back(std::move(plan));
    }
    if (const Layers& l = faults[Fault::outlier]; !l.empty()) {
      Plan plan = plan_of(Cause::stretched_range, l);
      plan.left_out = l[0]->stretched_by;
      plan.of_range = true;
      add_cures(
          plan, l, "a range anew (percentile)",
          [this](Recipe& r, const LayerComparison& layer) { set_range(r, layer, "percentile"); });
      if (comparison_.samples > 1) plan.cures.push_back(all_ranges("minmax", l[0]->stretched_by));
      plan.cures.push_back(all_ranges("percentile"));
      plan.cures.push_back(all_ranges("mse"));
      plans_.push_back(std::move(plan));
    }
    if (const Layers& l = faults[Fault::scale_too_large]; !l.empty()) {
      Plan plan = plan_of(
          Cause::stretched_range, l,
          "a sample that calibrated, not among these, stretched its range: " + l[0]->sentence);
      plan.of_range = true;
      add_cures(
          plan, l, fmt::format("a range anew ({})", policy),
          [this, policy](Recipe& r, const LayerComparison& layer) { set_range(r, layer, policy); });
      plan.cures.push_back(all_ranges(policy));
      plans_.push_back(std::move(plan));
    }
  }

  // Whether few samples calibrated, as far as the network says; of one that does not say how many,
  // where the data exceed most ranges.
  bool is_few() const {
    if (const int64_t n = calibrated_on(); n > 0)
      return n <= kFewSamples && n < comparison_.samples;
    const Reach reach = reach_of_data();
    return reach.exceed * 5 >= reach.layers * 3;
  }

  // -- data that are unlike those of training -----------------------------------------------------

  // The first batch norm with statistics, and how far its operand is from them: factors of two of
  // the standard deviation, and standard deviations of the mean; medians over channels.
  struct Norm {
    std::string name;
    double distance = 0, spread = 1, offset = 0;
  };
  std::optional<Norm> norm_on(const Batches& data) const {
    for (const Node& node : f_.nodes()) {
      if (node.kind != NodeKind::call || node.op != "batch_norm") continue;
      const ops::Op& op = ops::get("batch_norm");
      const ValueId mean = node.inputs.at(*op.param_index("running_mean")),
                    var = node.inputs.at(*op.param_index("running_var"));
      if (mean == kNone || var == kNone || !f_.is_constant(mean) || !f_.is_constant(var)) continue;
      return doctor_norm(node, f_.constant(mean).to_vector<float>(),
                         f_.constant(var).to_vector<float>(), data);
    }
    return std::nullopt;
  }
  Norm doctor_norm(const Node& node, const std::vector<float>& mean, const std::vector<float>& var,
                   const Batches& data) const {
    const runtime::Program program = runtime::compile(f_, {.engine = {}, .every_value = true});
    const size_t channels = mean.size();
    std::vector<double> sum(channels), squares(channels);
    int64_t count = 0;
    for (const auto& batch : data)
      program.run_watched(batch, {node.inputs[0]}, [&](ValueId, const Tensor& value) {
        const Tensor x = value.contiguous();
        const int64_t n = x.size(0), c = x.size(1), inner = x.numel() / (n * c);
        const float* p = x.data<float>();
        for (int64_t i = 0; i < n * c; ++i)
          for (int64_t k = 0; k < inner; ++k) {
            const double v = p[i * inner + k];
            sum[static_cast<size_t>(i % c)] += v;
            squares[static_cast<size_t>(i % c)] += v * v;
          }
        count += n * inner;
      });
    std::vector<double> spread, offset;
    for (size_t c = 0; c < channels; ++c) {
      const double m = sum[c] / static_cast<double>(count),
                   v = squares[c] / static_cast<double>(count) - m * m,
                   expected = std::sqrt(std::max(1e-12, static_cast<double>(var[c])));
      spread.push_back(std::sqrt(std::max(v, 1e-12)) / expected);
      offset.push_back(std::abs(m - mean[c]) / expected);
    }
    const auto median = [](std::vector<double> v) {
      std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size() / 2), v.end());
      return v[v.size() / 2];
    };
    Norm norm{.name = node_name(f_, node), .spread = median(spread), .offset = median(offset)};
    norm.distance = std::abs(std::log2(norm.spread)) + norm.offset;
    return norm;
  }

  static const std::vector<DataChange>& known_changes() {
    const std::vector<double> mean{0.485, 0.456, 0.406}, std{0.229, 0.224, 0.225};
    static const std::vector<DataChange> all = {
        {.what = "divided by 255", .scale = 1 / 255.0},
        {.what = "multiplied by 255", .scale = 255},
        {.what = "mapped from 0..255 to -1..1", .scale = 1 / 127.5, .mean = {1}},
        {.what = "mapped from -1..1 to 0..255", .scale = 127.5, .mean = {-127.5}},
        {.what = "mapped from 0..1 to -1..1", .scale = 2, .mean = {1}},
        {.what = "mapped from -1..1 to 0..1", .scale = 0.5, .mean = {-0.5}},
        {.what = "divided by 255 and normalized as ImageNet's images",
         .scale = 1 / 255.0,
         .mean = mean,
         .std = std},
        {.what = "normalized as ImageNet's images", .mean = mean, .std = std},
    };
    return all;
  }

  void look_at_data() {
    constexpr double kOff = 2;
    const std::optional<Norm> norm = norm_on(data_);
    norms_agree_ = norm && norm->distance <= kOff;
    if (!norm || norms_agree_) return;
    double least = norm->distance;
    const DataChange* best = nullptr;
    for (const DataChange& change : known_changes()) {
      const Tensor& x = data_[0][0];
      if (data_[0].size() != 1 || x.dtype() != DType::float32) break;
      if (change.mean.size() > 1 && (x.dim() < 3 || x.size(1) != 3)) continue;
      const std::optional<Norm> then = norm_on(changed(data_, change));
      if (then->distance < least) least = then->distance, best = &change;
    }
    Plan plan;
    DoctorFinding& finding = plan.finding;
    finding.cause = Cause::preprocessing;
    finding.layer = norm->name;
    finding.sentence = fmt::format(
        "the data are not prepared as in training: what this batch norm reads has {:.3g} times the "
        "standard deviation of its statistics, and its mean is {:.3g} standard deviations off",
        norm->spread, norm->offset);
    finding.suspected = gain_of(0.999);
    finding.before = report_.before;
    if (best && least <= kOff && least < norm->distance / 2) {
      data_ = changed(data_, *best);
      divide();
      expect();
      current_score_ = score(q_);
      finding.cures.push_back({.what = "data " + best->what, .score = current_score_});
      finding.best = 0;
      finding.kept = true;
      report_.data = *best;
      norms_agree_ = true;
      if (!labels_.empty()) report_.float_top1_after = top1(f_);
    }
    report_.findings.push_back(finding);
  }

  // -- targets that saturate ----------------------------------------------------------------------

  void look_at_saturation() {
    if (is_late()) return;
    const Graph& now = current_graph_ ? *current_graph_ : q_;
    const runtime::Program program = runtime::compile(now);
    const debug::SaturationReport by_weights = debug::forecast_saturation(program, {});
    if (std::none_of(by_weights.layers.begin(), by_weights.layers.end(),
                     [](const auto& l) { return l.saturates(); }))
      return;
    say("saturating target");
    const auto begin = std::chrono::steady_clock::now();
    const debug::SaturationReport report = debug::forecast_saturation(program, {judge_.batches[0]});
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (seconds > options_.seconds / 8) {
      report_.notes.push_back(
          "whether sums of pairs saturate at 16 bits was not measured: it takes too long; `octet "
          "explain` forecasts it");
      return;
    }
    const double there = score(now, "saturating16"), exact_there = score(now, "", -1, kSlow);
    if (there > exact_there - 3) return;
    Plan plan;
    DoctorFinding& finding = plan.finding;
    finding.cause = Cause::saturating_target;
    plan.engine = "saturating16";
    std::vector<std::string> layers;
    const debug::SaturationForecast* worst = nullptr;
    const auto share_of = [](const debug::SaturationForecast& l) {
      return static_cast<double>(l.saturated) / static_cast<double>(std::max<int64_t>(1, l.sums));
    };
    for (const debug::SaturationForecast& l : report.layers) {
      if (!l.saturates()) continue;
      layers.push_back(l.name);
      if (!worst || share_of(l) > share_of(*worst)) worst = &l;
    }
    if (!worst) return;
    finding.layer = worst->name;
    finding.sentence = fmt::format(
        "it is right in exact arithmetic ({:.1f} dB) and not where pairs of products saturate at "
        "16 bits, as in other libraries on CPUs without VNNI ({:.1f} dB): {:.2g}% of this layer's "
        "sums saturate, and so do those of {} of {} layers",
        exact_there, there, 100 * share_of(*worst), layers.size(), report.layers.size());
    finding.suspected = exact_there - there;
    plan.cures.push_back(
        {fmt::format("weights of 7 bits for {}", names_text(layers)), [layers](Recipe& r) {
           for (const std::string& name : layers)
             change_qconfig(r.mapping, name,
                            [](QConfig& q) { q.weight = q.weight.with_quant_range(-63, 63); });
         }});
    plan.cures.push_back({"activations of 7 bits (reduce_range)", [](Recipe& r) {
                            std::optional<QConfig> all = r.mapping.global_qconfig();
                            OCTET_CHECK(all, not_found, "the recipe has no global qconfig");
                            all->activation = all->activation.with_reduce_range(true);
                            r.mapping.set_global(all);
                            for (auto& [label, range] : r.ranges) {
                              range.scale *= 255.0 / 127;
                              range.zero_point = range.zero_point * 127 / 255;
                            }
                          }});
    plan.cures.push_back(
        {fmt::format("float for {}{}", worst->name,
                     layers.size() > 1 ? ", and weights of 7 bits for the other such layers" : ""),
         [layers, name = worst->name](Recipe& r) {
           add_skip(r, {name});
           for (const std::string& other : layers)
             if (other != name)
               change_qconfig(r.mapping, other,
                              [](QConfig& q) { q.weight = q.weight.with_quant_range(-63, 63); });
         }});
    const double exact = current_score_;
    treat(plan, options_.saturating);
    DoctorFinding& treated = report_.findings.back();
    if (treated.kept)
      treated.sentence += fmt::format("; the cure costs {:.1f} dB in exact arithmetic",
                                      std::max(0.0, exact - current_score_));
  }

  // -- none by itself -----------------------------------------------------------------------------

  void treat_rounding() {
    Layers worst;
    double share = 0;
    for (size_t i : comparison_.ranking) {
      const LayerComparison& l = comparison_.layers[i];
      if (worst.size() < 4 && l.noise_share > 0 && l.op != "input" && l.quantized) {
        worst.push_back(&l);
        share += l.noise_share;
      }
    }
    if (worst.empty()) return;
    Plan plan;
    plan.finding.cause = Cause::rounding;
    plan.finding.layer = worst[0]->name;
    plan.finding.sentence = fmt::format(
        "no layer is wrong by itself: rounding costs a little everywhere; {} layer{} make{} "
        "{:.0f}% "
        "of the noise",
        worst.size(), worst.size() == 1 ? "" : "s", worst.size() == 1 ? "s" : "", 100 * share);
    plan.finding.suspected = gain_of(share);
    plan.least_gain = kCostly;
    if (!ranges_tried_)
      for (const char* policy : {"percentile", "mse", "minmax"})
        plan.cures.push_back(all_ranges(policy));
    plan.cures.push_back({.what = "all ranges anew (by the noise at the outputs)",
                          .change = [](Recipe& r) { r.ranges.clear(); },
                          .choose = true});
    plan.cures.push_back({fmt::format("16 bits for {}", worst[0]->name), [l = worst[0]](Recipe& r) {
                            set_precision(r, l->name, Precision::bits16);
                          }});
    plan.cures.push_back({fmt::format("float for {} layers", worst.size()), [worst](Recipe& r) {
                            for (const LayerComparison* l : worst) add_skip(r, {l->name});
                          }});
    treat(plan);
  }

  const Graph &f_, &q_;
  const std::vector<Tensor>& labels_;
  const DoctorOptions& options_;
  const std::chrono::steady_clock::time_point start_;
  Batches data_;  // as they are now
  bool fixed_batch_ = false;
  Part fit_, judge_;
  Batches expected_;  // of the float network, by batch of judge_
  bool norms_agree_ = false;
  Recipe base_, current_;
  Graph before_;                                // the float graph as it is prepared
  std::map<std::string, std::string> watched_;  // by value: the label of its observer
  Comparison comparison_;
  mutable std::map<std::string, doctor_detail::Ranges> fresh_;
  std::vector<Plan> plans_;
  double current_score_ = NAN;
  bool kept_any_ = false, ranges_are_new_ = false, ranges_tried_ = false;
  std::optional<Graph> current_graph_;    // unset: the given one
  std::optional<Recipe> current_recipe_;  // likewise
  DoctorReport report_;
};

}  // namespace

Batches changed(const Batches& samples, const DataChange& change) {
  Batches result;
  for (const std::vector<Tensor>& batch : samples) {
    result.emplace_back();
    for (const Tensor& given : batch) {
      OCTET_CHECK(given.dtype() == DType::float32, invalid_argument,
                  "doctor: samples are {}; expected float32", to_string(given.dtype()));
      Tensor x = given.contiguous().clone();
      const bool by_channel = change.mean.size() > 1;
      OCTET_CHECK(change.mean.size() == change.std.size() || change.std.size() == 1 || !by_channel,
                  invalid_argument, "doctor: {} means and {} deviations", change.mean.size(),
                  change.std.size());
      const int64_t channels = by_channel ? x.size(1) : 1,
                    inner = by_channel ? x.numel() / (x.size(0) * channels) : x.numel();
      float* p = x.data<float>();
      for (int64_t i = 0; i < x.numel(); ++i) {
        const auto c = static_cast<size_t>(inner > 0 ? i / inner % channels : 0);
        const double mean = change.mean[by_channel ? c : 0],
                     deviation = change.std[change.std.size() > 1 ? c : 0];
        p[i] = static_cast<float>((p[i] * change.scale - mean) / deviation);
      }
      result.back().push_back(x);
    }
  }
  return result;
}

DoctorReport doctor(const Graph& float_graph, const Graph& quantized, const Batches& samples,
                    const std::vector<Tensor>& labels, const DoctorOptions& options) {
  OCTET_CHECK(!samples.empty() && !samples[0].empty(), invalid_argument,
              "doctor: there are no samples; give at least one batch");
  OCTET_CHECK(labels.empty() || labels.size() == samples.size(), invalid_argument,
              "doctor: labels of {} batches, samples of {}", labels.size(), samples.size());
  OCTET_CHECK(std::any_of(quantized.nodes().begin(), quantized.nodes().end(),
                          [&](const Node& node) {
                            return node.kind == NodeKind::call && !node.outputs.empty() &&
                                   quantized.type(node.outputs[0]).is_quantized();
                          }),
              unsupported,
              "doctor: no value of {} is codes; it reads networks quantized statically, not "
              "dynamically or in their weights alone",
              quantized.name);
  return Doctor(float_graph, quantized, samples, labels, options).run();
}

}  // namespace octet::quant
