#include "octet/quant/algorithms/distill.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numbers>
#include <utility>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/random.h"
#include "octet/base/text.h"
#include "octet/nn/loss.h"
#include "octet/nn/optim.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/blocks_impl.h"
#include "octet/quant/algorithms/codes_impl.h"
#include "octet/quant/algorithms/layerwise_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::Node;
using graph::ValueId;

namespace {

constexpr int64_t kMostBytes = int64_t{256} << 20;    // of layers' results, of one step
constexpr int64_t kMostOfASample = int64_t{1} << 30;  // training takes several times as much
constexpr double kBiasUnit = 0.1;
constexpr int64_t kJudgeEach = 8;    // batches: each eighth judges
constexpr int64_t kJudgements = 10;  // in all
constexpr double kMuchWorse = 2, kSlower = 0.25;

// A layer that is trained: its parameters are what they were plus `unit` times what is learned.
struct Trained {
  const PreparedLayer* layer = nullptr;
  Tensor old_weight, old_bias;    // old_bias: undefined without one
  Tensor weight_move, bias_move;  // leaves
  double weight_unit = 0, bias_unit = 0;
  Tensor scale, zero_point;  // of the weight
  Attrs codes;
  bool per_channel = false;

  Tensor weight() const { return old_weight + weight_move * weight_unit; }
  Tensor bias() const {
    return old_bias.defined() ? old_bias + bias_move * bias_unit : bias_move * bias_unit;
  }
  Tensor fake_quantized_weight() const {
    return ops::call(per_channel ? "fake_quantize_per_channel" : "fake_quantize_per_tensor",
                     {weight(), scale, zero_point}, codes);
  }
};

Trained trained_layer(ObservedGraphModule& prepared, const PreparedLayer& layer) {
  keep_range(prepared, layer);
  const QParams q = prepared.weight_qparams(layer.name);
  const Shape shape{std::ssize(q.scales)};
  Trained t{.layer = &layer,
            .old_weight = constant_now(prepared, layer.weight).contiguous().clone(),
            .old_bias = bias_now(prepared, layer),
            .scale = Tensor::from(q.scales, shape).to(DType::float32),
            .zero_point = Tensor::from(q.zero_points, shape).to(DType::int32),
            .codes = {{"quant_min", q.quant_min}, {"quant_max", q.quant_max}},
            .per_channel = q.scales.size() > 1};
  if (t.per_channel) t.codes.set("axis", q.quantizer->axis());
  t.weight_move = Tensor::zeros(t.old_weight.shape());
  t.bias_move = Tensor::zeros({layer.channels});
  const Tensor square = functional::mean(t.old_weight * t.old_weight);
  t.weight_unit = std::sqrt(square.item());
  autograd::set_requires_grad(t.weight_move);
  autograd::set_requires_grad(t.bias_move);
  return t;
}

// An output of the network, as the loss takes it.
struct Output {
  ValueId value, float_value;  // of a softmax what it reads, where `scores`
  bool scores = false;
};

class Distillation {
 public:
  Distillation(ObservedGraphModule& prepared, const Samples& samples, const DistillOptions& options)
      : prepared_(prepared),
        options_(options),
        run_(prepared, samples, {options.float_graph, {}}, "distill"),
        graph_(run_.codes.graph()) {
    for (size_t i = 0; i < run_.layers.size(); ++i) nodes_[run_.code_nodes[i]] = &run_.layers[i];
    for (const PreparedLayer& layer : run_.layers)
      if (!layer.shared) trained_[&layer] = trained_layer(prepared, layer);
    find_outputs();
    split(samples);
  }

  DistillReport train() {
    DistillReport report;
    report.before = report.error = mean_loss();
    if (options_.iterations == 0 || trained_.empty() || !(report.before > 0)) return report;
    Moves best = moves();
    learn([&](double& rate) {
      const double now = mean_loss();
      if (now < report.error) {
        report.error = now;
        best = moves();
      } else if (!(now < kMuchWorse * report.error)) {
        set_moves(best);
        rate *= kSlower;
        return false;
      }
      return true;
    });
    set_moves(best);
    if (!(report.error < report.before)) return report;
    for (auto& [layer, t] : trained_) {
      set_weight_only(prepared_, *layer, t.weight().detach());
      prepared_.set_bias(layer->name, t.bias().detach());
    }
    return report;
  }

 private:
  using Moves = std::vector<Tensor>;  // of weight and bias by turns
  Moves moves() const {
    Moves all;
    for (const auto& [layer, t] : trained_)
      for (const Tensor& move : {t.weight_move, t.bias_move}) all.push_back(move.detach().clone());
    return all;
  }
  void set_moves(const Moves& all) {
    size_t i = 0;
    for (auto& [layer, t] : trained_)
      for (Tensor* move : {&t.weight_move, &t.bias_move}) move->detach().copy_from(all[i++]);
  }

  void find_outputs() {
    Graph teacher = run_.floats.graph();
    std::vector<ValueId> taught;
    for (const ValueId v : graph_.outputs()) {
      const Node& node = graph_.producer(v);
      if (node.kind == graph::NodeKind::constant || node.kind == graph::NodeKind::input) continue;
      const int64_t rank = std::ssize(graph_.type(v).dims);
      const bool scores =
          node.kind == graph::NodeKind::call && node.op == "softmax" && rank > 0 &&
          (node.attrs.get_int("dim") == -1 || node.attrs.get_int("dim") == rank - 1);
      const ValueId value = root_of(graph_, scores ? node.inputs[0] : v);
      // Of codes, what they are made from has the float network's name.
      const Node& maker = graph_.producer(value);
      const bool codes = maker.kind == graph::NodeKind::call && maker.op == "quantize";
      outputs_.push_back(
          {value, run_.float_value(codes ? maker.inputs[0] : value, "distill"), scores});
      wanted_.push_back(value);
      taught.push_back(outputs_.back().float_value);
    }
    OCTET_CHECK(!outputs_.empty(), invalid_argument, "distill: the network has no outputs");
    teacher.set_outputs(taught);
    teacher_ = std::move(teacher);
  }

  // Into batches, with the teacher's outputs on them.
  void split(const Samples& samples) {
    batches_ = in_batches(graph_, samples, 1);
    const autograd::NoGrad no_grad;
    int64_t bytes = 0;
    run(batches_[0], [&](const PreparedLayer& layer, const Tensor& x) {
      const Tensor y = result_now(layer, x);
      bytes += y.nbytes();
      if (const auto t = trained_.find(&layer); t != trained_.end())
        t->second.bias_unit = kBiasUnit * spread_of(y);
      return y;
    });
    OCTET_CHECK(bytes <= kMostOfASample, unsupported,
                "distill: the layers' results on one sample take {}, and training several times "
                "that; expected {} at most: give smaller samples",
                human_bytes(static_cast<double>(bytes)),
                human_bytes(static_cast<double>(kMostOfASample)));
    const int64_t fit = std::max<int64_t>(1, kMostBytes / std::max<int64_t>(1, bytes));
    const int64_t of_part = std::max<int64_t>(1, options_.batch / parts());
    batches_ = in_batches(graph_, samples, std::min(of_part, fit));
    const runtime::Program program = runtime::compile(teacher_);
    for (const std::vector<Tensor>& batch : batches_) targets_.push_back(program.run(batch));
    const bool few = std::ssize(batches_) < kJudgeEach;
    for (size_t b = 0; b < batches_.size(); ++b) {
      const bool judges = (b + 1) % kJudgeEach == 0;
      if (judges || few) judging_.push_back(b);
      if (!judges || few) teaching_.push_back(b);
    }
  }

  std::vector<Tensor> run(const std::vector<Tensor>& inputs, const LayerFunction& layer) const {
    const GraphFunction function(graph_, 0, std::ssize(graph_.nodes()) - 1, nodes_);
    std::vector<Tensor> read;
    for (const ValueId v : function.reads()) {
      const auto at = std::find(graph_.inputs().begin(), graph_.inputs().end(), v);
      read.push_back(inputs.at(static_cast<size_t>(at - graph_.inputs().begin())));
    }
    return function(read, layer, wanted_);
  }

  Tensor result_now(const PreparedLayer& layer, const Tensor& x) const {
    const auto t = trained_.find(&layer);
    if (t == trained_.end())
      return layer_result(layer, x, rounded_weight(prepared_, layer), bias_now(prepared_, layer));
    return layer_result(layer, x, t->second.fake_quantized_weight(), t->second.bias());
  }

  Tensor loss(size_t batch) const {
    const std::vector<Tensor> got =
        run(batches_[batch],
            [&](const PreparedLayer& layer, const Tensor& x) { return result_now(layer, x); });
    Tensor sum;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const Tensor& want = targets_[batch][i];
      Tensor part;
      if (outputs_[i].scores) {
        const int64_t classes = want.size(want.dim() - 1);
        part = functional::distillation_loss(got[i].reshape({-1, classes}),
                                             want.reshape({-1, classes}), 1);
      } else {
        const double power = functional::mean(want * want).item();
        if (!(power > 0)) continue;
        part = functional::mse_loss(got[i], want) * (1 / power);
      }
      sum = sum.defined() ? sum + part : part;
    }
    return sum.defined() ? sum : Tensor::scalar(0.0);
  }

  double mean_loss() const {
    const autograd::NoGrad no_grad;
    double sum = 0, count = 0;
    for (const size_t b : judging_) {
      sum += loss(b).item() * samples_of(b);
      count += samples_of(b);
    }
    return sum / std::max(1.0, count);
  }

  int64_t parts() const { return options_.team ? options_.team->parts() : 1; }
  double samples_of(size_t batch) const {
    const Tensor& first = batches_[batch].at(0);
    return first.dim() == 0 ? 1 : static_cast<double>(first.size(0));
  }

  size_t next_batch(Random& random) {
    if (order_.empty()) {
      order_ = teaching_;
      for (size_t i = order_.size(); i > 1; --i)
        std::swap(order_[i - 1],
                  order_[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
    }
    const size_t batch = order_.back();
    order_.pop_back();
    return batch;
  }

  // `judge` is called after each tenth of the steps. Where it gives false, the parameters are back
  // where they were best, and Adam begins anew with the rate that it has set.
  void learn(const std::function<bool(double& rate)>& judge) {
    const autograd::GradMode recording(true);
    std::vector<Tensor> leaves;
    for (auto& [layer, t] : trained_)
      for (const Tensor& leaf : {t.weight_move, t.bias_move}) leaves.push_back(leaf);
    const auto fresh = [&] {
      return std::make_unique<nn::optim::Adam>(leaves, nn::optim::AdamOptions{});
    };
    auto optimizer = fresh();
    double rate = options_.lr;
    Random random(options_.seed);
    const int64_t steps = options_.iterations;
    for (int64_t step = 0; step < steps; ++step) {
      const double done = static_cast<double>(step) / static_cast<double>(steps);
      optimizer->param_groups()[0].options["lr"] =
          rate * 0.5 * (1 + std::cos(std::numbers::pi * done));
      optimizer->zero_grad();
      if (options_.team) {
        std::vector<size_t> batches;
        double count = 0;
        for (int64_t i = 0; i < parts(); ++i) {
          batches.push_back(next_batch(random));
          count += samples_of(batches.back());
        }
        backward_together(*options_.team, leaves, [&](int64_t part) {
          const size_t batch = batches[static_cast<size_t>(part)];
          return loss(batch) * (samples_of(batch) / count);
        });
      } else {
        autograd::backward(loss(next_batch(random)));
      }
      optimizer->step();
      if ((step + 1) * kJudgements / steps != step * kJudgements / steps && !judge(rate))
        optimizer = fresh();
      if (options_.progress) options_.progress(step + 1, steps);
    }
  }

  ObservedGraphModule& prepared_;
  const DistillOptions& options_;
  LayerwiseRun run_;
  const Graph& graph_;  // the reference graph
  Graph teacher_;
  GraphFunction::Layers nodes_;
  std::map<const PreparedLayer*, Trained> trained_;
  std::vector<Output> outputs_;
  std::vector<ValueId> wanted_;
  Samples batches_, targets_;
  std::vector<size_t> teaching_, judging_;  // batches
  std::vector<size_t> order_;               // of those that still teach in this round
};

}  // namespace

DistillReport distill(ObservedGraphModule& prepared, const Samples& samples,
                      const DistillOptions& options) {
  OCTET_CHECK(options.iterations >= 0 && options.lr > 0 && options.batch > 0, invalid_argument,
              "distill: iterations {}, lr {}, batch {}; expected 0 or more, above 0, 1 or more",
              options.iterations, options.lr, options.batch);
  return Distillation(prepared, samples, options).train();
}

}  // namespace octet::quant
