#include "octet/quant/algorithms/adaround.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/random.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/blocks_impl.h"
#include "octet/quant/algorithms/codes_impl.h"
#include "octet/quant/algorithms/soft_codes_impl.h"
#include "octet/quant/algorithms/weight_ranges_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::ValueId;

namespace {

SoftTraining training_of(const AdaRoundOptions& o) {
  return {o.iterations, o.lr, o.regularization.value_or(o.blocks ? 10 : 0.5),
          o.blocks ? 0 : o.warm_up, o.first_power};
}

// -- layer by layer -------------------------------------------------------------------------------

// The groups' tensors behind one another: (groups, rows, columns).
Tensor stacked(const std::vector<GroupCodes>& groups, Tensor LayerProblem::*part) {
  std::vector<Tensor> parts;
  for (const GroupCodes& g : groups) parts.push_back(g.problem.*part);
  return functional::stack(parts, 0);
}

void learn_layer(std::vector<GroupCodes>& groups, const Grids& grids,
                 const AdaRoundOptions& options) {
  const auto count = std::ssize(groups);
  const int64_t outputs = groups[0].problem.outputs, k = groups[0].problem.k;
  const Shape each{count, outputs, 1};
  const Tensor w = stacked(groups, &LayerProblem::w), h = stacked(groups, &LayerProblem::h);
  const Tensor scale = Tensor::from(grids.scale, each);
  SoftCodes soft(w, scale, Tensor::from(grids.lo, each), Tensor::from(grids.hi, each), false);
  // One row's error is as large as its number of weights if it is rounded to the nearest code.
  std::vector<float> unit;
  for (GroupCodes& g : groups) {
    g.round_to_nearest(grids);
    const Tensor e = g.error(grids), eh = functional::matmul(e, g.problem.h);
    for (int64_t o = 0; o < outputs; ++o) {
      double sum = 0;
      for (int64_t j = o * k; j < (o + 1) * k; ++j)
        sum += static_cast<double>(e.data<float>()[j]) * static_cast<double>(eh.data<float>()[j]);
      unit.push_back(sum > 0 ? static_cast<float>(static_cast<double>(k) / sum) : 1.F);
    }
  }
  const Tensor weight_of_rows = Tensor::from(unit, each);
  learn({&soft}, {}, training_of(options), [&](int, int64_t) {
    const Tensor e = w - soft.weight();
    return functional::sum(functional::matmul(e, h) * e * weight_of_rows);
  });
  const Tensor codes = soft.codes();
  for (int64_t i = 0; i < count; ++i)
    groups[static_cast<size_t>(i)].codes = codes.slice(0, i, i + 1).to_vector<float>();
}

void round_layer(ObservedGraphModule& prepared, const LayerStep& step,
                 const AdaRoundOptions& options, AdaRoundReport& report) {
  constexpr int64_t kRows = 16384;
  constexpr double kDamping = 0.01;
  constexpr int kSweeps = 20, kScaleTurns = 3;
  const PreparedLayer& layer = step.layer;
  auto groups = make_groups(step, kRows, kDamping);
  keep_range(prepared, layer);
  const int64_t k = groups[0].problem.k;
  Grids grids(prepared.weight_qparams(layer.name), layer.channels, k);
  AdaRoundReport::Entry entry{{layer.label}};
  for (GroupCodes& g : groups) {
    g.round_to_nearest(grids);
    entry.before += g.squared_error(grids);
  }
  if (options.iterations > 0) {
    learn_layer(groups, grids, options);
    for (GroupCodes& g : groups) g.descend(grids, kSweeps);
    for (int turn = 0; turn < (options.learn_scales ? kScaleTurns : 0); ++turn) {
      fit_scales(prepared, layer, grids, groups);
      grids = Grids(prepared.weight_qparams(layer.name), layer.channels, k);
      for (GroupCodes& g : groups) g.descend(grids, kSweeps);
    }
  }
  for (const GroupCodes& g : groups) entry.error += g.squared_error(grids);
  set_codes(prepared, step, grids, groups);
  report.entries.push_back(std::move(entry));
}

// -- block by block -------------------------------------------------------------------------------

// A layer whose weight is learned with its block.
struct SoftLayer {
  const PreparedLayer* layer;
  SoftCodes codes;
  Tensor bias;        // from which it starts, or undefined
  Tensor shift = {};  // is added to it, times unit; undefined: it is not learned
  double unit = 0;

  Tensor learned_bias() const {
    if (!shift.defined()) return bias;
    return bias.defined() ? bias + shift * unit : shift * unit;
  }
};

SoftLayer soft_layer(const ObservedGraphModule& prepared, const PreparedLayer& layer,
                     const Tensor& weight, bool learn_scales) {
  const QParams q = prepared.weight_qparams(layer.name);
  Shape shape(static_cast<size_t>(weight.dim()), 1);
  if (q.scales.size() > 1) shape[static_cast<size_t>(q.quantizer->axis())] = std::ssize(q.scales);
  std::vector<float> scales(q.scales.begin(), q.scales.end()), lo, hi;
  for (const double zero : q.zero_points) {
    lo.push_back(static_cast<float>(static_cast<double>(q.quant_min) - zero));
    hi.push_back(static_cast<float>(static_cast<double>(q.quant_max) - zero));
  }
  const Tensor scale = Tensor::from(scales, shape);
  Tensor codes = (rounded_weight(prepared, layer) / scale).contiguous();
  for (int64_t i = 0; i < codes.numel(); ++i)
    codes.data<float>()[i] = std::nearbyintf(codes.data<float>()[i]);
  return {&layer,
          SoftCodes(codes, weight, scale, Tensor::from(lo, shape), Tensor::from(hi, shape),
                    learn_scales),
          bias_now(prepared, layer)};
}

class BlockRounding {
 public:
  BlockRounding(ObservedGraphModule& prepared, const BlockStep& step,
                const AdaRoundOptions& options)
      : prepared_(prepared), step_(step), options_(options) {
    for (size_t i = 0; i < step.layers.size(); ++i) {
      const PreparedLayer& layer = *step.layers[i];
      if (layer.shared) continue;
      keep_range(prepared, layer);
      const Tensor weight = step.parameters[i].first.contiguous();
      soft_.push_back(soft_layer(prepared, layer, weight, options.learn_scales));
      entry_.layers.push_back(layer.label);
      weights_ += static_cast<double>(weight.numel());
    }
    for (SoftLayer& s : soft_) by_layer_[s.layer] = &s;
  }

  bool empty() const { return soft_.empty(); }

  AdaRoundReport::Entry round() {
    entry_.before = entry_.error = error_now();
    if (options_.iterations == 0 || !(entry_.before > 0)) return entry_;
    if (options_.correct_bias) add_shifts();
    std::vector<SoftCodes*> codes;
    std::vector<Tensor> shifts;
    for (SoftLayer& s : soft_) {
      codes.push_back(&s.codes);
      if (s.shift.defined()) shifts.push_back(s.shift);
    }
    Random random(options_.seed);
    Draw drawn;
    int drawn_for = -1;
    learn(
        codes, shifts, training_of(options_),
        [&](int step, int64_t part) {
          if (step != drawn_for) drawn = draw(random);
          drawn_for = step;
          return soft_error(drawn, part);
        },
        options_.team);
    std::vector<LayerState> old;
    for (SoftLayer& s : soft_) old.push_back(set_learned(s));
    entry_.error = error_now();
    if (entry_.error <= entry_.before) return entry_;
    for (size_t i = 0; i < soft_.size(); ++i) set(*soft_[i].layer, old[i]);
    entry_.error = entry_.before;
    return entry_;
  }

 private:
  // A unit of a bias is a tenth of how its layer's results spread.
  void add_shifts() {
    step_.run(step_.inputs[0], [&](const PreparedLayer& layer, const Tensor& x) {
      Tensor y = result_now(layer, x);
      if (const auto soft = by_layer_.find(&layer); soft != by_layer_.end()) {
        soft->second->unit = 0.1 * spread_of(y);
        soft->second->shift = Tensor::zeros({layer.channels});
        autograd::set_requires_grad(soft->second->shift);
      }
      return y;
    });
  }

  Tensor result_now(const PreparedLayer& layer, const Tensor& x) const {
    return layer_result(layer, x, rounded_weight(prepared_, layer), bias_now(prepared_, layer));
  }

  // The mean squared error of the result on all samples, with weights as they are set.
  double error_now() const {
    double sum = 0, count = 0;
    for (size_t b = 0; b < step_.inputs.size(); ++b) {
      const Tensor y = step_.run(step_.inputs[b], [&](const PreparedLayer& layer, const Tensor& x) {
        return result_now(layer, x);
      });
      const Tensor d = y - step_.targets[b];
      sum += functional::sum(d * d).item();
      count += static_cast<double>(d.numel());
    }
    return sum / std::max(1.0, count);
  }

  // The batches of a step, and the elements of their results.
  struct Draw {
    std::vector<size_t> batches;
    double elements = 0;
  };
  Draw draw(Random& random) const {
    Draw drawn;
    for (int64_t samples = 0; samples < options_.batch;) {
      const auto b = static_cast<size_t>(random.integer(0, std::ssize(step_.inputs) - 1));
      const Tensor& target = step_.targets[b];
      drawn.batches.push_back(b);
      drawn.elements += static_cast<double>(target.numel());
      samples += std::max<int64_t>(1, target.dim() > 0 ? target.size(0) : 1);
    }
    return drawn;
  }

  // Of a part of a step, with soft weights, undefined if no batch is left for it; of all of the
  // step the number of weights where it is as at the beginning.
  Tensor soft_error(const Draw& drawn, int64_t part) const {
    const int64_t parts = options_.team ? options_.team->parts() : 1,
                  all = std::ssize(drawn.batches);
    Tensor sum;
    for (int64_t i = all * part / parts; i < all * (part + 1) / parts; ++i) {
      const size_t b = drawn.batches[static_cast<size_t>(i)];
      const Tensor y = step_.run(step_.inputs[b], [&](const PreparedLayer& layer, const Tensor& x) {
        const auto soft = by_layer_.find(&layer);
        if (soft == by_layer_.end()) return result_now(layer, x);
        return layer_result(layer, x, soft->second->codes.weight(), soft->second->learned_bias());
      });
      const Tensor d = y - step_.targets[b];
      const Tensor square = functional::sum(d * d);
      sum = sum.defined() ? sum + square : square;
    }
    return sum.defined() ? sum * (weights_ / (entry_.before * drawn.elements)) : sum;
  }

  struct LayerState {
    std::vector<double> scales;
    Tensor weight, bias;
  };
  void set(const PreparedLayer& layer, const LayerState& state) {
    set_scales(prepared_, layer, state.scales);
    set_weight_only(prepared_, layer, state.weight);
    prepared_.set_bias(layer.name,
                       state.bias.defined() ? state.bias : Tensor::zeros({layer.channels}));
  }

  // What there was before.
  LayerState set_learned(SoftLayer& s) {
    const PreparedLayer& layer = *s.layer;
    const LayerState old{prepared_.weight_qparams(layer.name).scales,
                         constant_now(prepared_, layer.weight), s.bias};
    if (options_.learn_scales) {
      const auto scales = s.codes.scales().to_vector<float>();
      set_scales(prepared_, layer, {scales.begin(), scales.end()});
    }
    const QParams q = prepared_.weight_qparams(layer.name);
    const std::vector<float> scale(q.scales.begin(), q.scales.end());
    set_weight_only(prepared_, layer,
                    s.codes.codes() * Tensor::from(scale, s.codes.scales().shape()));
    if (s.shift.defined()) prepared_.set_bias(layer.name, s.learned_bias().detach());
    return old;
  }

  ObservedGraphModule& prepared_;
  const BlockStep& step_;
  const AdaRoundOptions& options_;
  std::vector<SoftLayer> soft_;
  std::map<const PreparedLayer*, SoftLayer*> by_layer_;
  double weights_ = 0;
  AdaRoundReport::Entry entry_;
};

}  // namespace

AdaRoundReport adaround(ObservedGraphModule& prepared, const Samples& samples,
                        const AdaRoundOptions& options) {
  OCTET_CHECK(options.iterations >= 0 && options.lr > 0 && options.batch > 0 &&
                  options.regularization.value_or(0) >= 0 && options.warm_up >= 0 &&
                  options.warm_up < 1,
              invalid_argument,
              "adaround: iterations {}, lr {}, batch {}, regularization {}, warm_up {}; expected "
              "0 or more, above 0, 1 or more, 0 or more, 0 to below 1",
              options.iterations, options.lr, options.batch, options.regularization.value_or(0.5),
              options.warm_up);
  AdaRoundReport report;
  const LayerwiseOptions run{options.float_graph, options.progress};
  if (!options.blocks) {
    for_each_layer(prepared, samples, run, "adaround", [&](const LayerStep& step) {
      if (has_rows(step.layer) && !step.layer.shared)
        round_layer(prepared, step, options, report);
      else
        report.skipped.push_back(step.layer.label);
      if (options.correct_bias) correct_bias_of(prepared, step);
    });
    return report;
  }
  const int64_t parts = options.team ? options.team->parts() : 1;
  for_each_block(prepared,
                 in_batches(prepared.graph(), samples, std::max<int64_t>(1, options.batch / parts)),
                 options.most_layers, run, "adaround", [&](const BlockStep& step) {
                   for (const PreparedLayer* layer : step.layers)
                     if (layer->shared) report.skipped.push_back(layer->label);
                   BlockRounding block(prepared, step, options);
                   if (!block.empty()) report.entries.push_back(block.round());
                 });
  return report;
}

}  // namespace octet::quant
