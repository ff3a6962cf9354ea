// Causes that were planted are named, with the layer, and cured.
#include "octet/quant/tune/doctor.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "octet/debug/metrics.h"
#include "octet/graph/graph_module.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/runtime/program.h"
#include "tests/debug/compare_networks.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using quant::Cause;
using quant::DoctorFinding;
using quant::DoctorReport;

quant::Batches batches_of(const Tensor& data) {
  quant::Batches batches;
  for (int64_t i = 0; i < data.size(0); i += kFaultBatch)
    batches.push_back({data.slice(0, i, std::min(i + kFaultBatch, data.size(0))).contiguous()});
  return batches;
}

double sqnr_between(const graph::Graph& f, const graph::Graph& q, const Tensor& data,
                    const std::string& engine = "") {
  const runtime::Program a = runtime::compile(f), b = runtime::compile(q, {.engine = engine});
  debug::ErrorStatistics error;
  for (const auto& batch : batches_of(data)) error.add(a.run(batch)[0], b.run(batch)[0]);
  return error.sqnr();
}

const graph::Node& layer_named(const graph::Graph& g, const std::string& name) {
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call && node.scope == name) return node;
  ADD_FAILURE() << "no layer " << name;
  return g.nodes()[0];
}

// The same graph with other constants, activations and calls behind layers.
struct Edit {
  std::map<std::string, std::function<void(Tensor&)>> constants = {};
  std::string plain;                    // a layer that loses its activation
  std::string behind, op;               // an operator behind a layer
  std::vector<Tensor> parameters = {};  // further operands of that
};
graph::Graph edited(const graph::Graph& g, const Edit& edit) {
  graph::Rewriter rewriter(g);
  return rewriter.run([&](graph::Rewriter& r, const graph::Node& node) {
    const std::string& name = g.value(node.outputs[0]).name;
    if (node.kind == graph::NodeKind::constant && edit.constants.count(name)) {
      Tensor value = node.value.clone();
      edit.constants.at(name)(value);
      r.map(node.outputs[0], r.out().add_constant(name, value));
      return true;
    }
    if (node.kind != graph::NodeKind::call ||
        (node.scope != edit.plain && node.scope != edit.behind))
      return false;
    Attrs attrs = node.attrs;
    if (node.scope == edit.plain) attrs.set("activation", "none");
    graph::ValueId y =
        r.out().add_call(name, node.op, r.operands(node), attrs, std::nullopt, node.scope);
    if (node.scope == edit.behind) {
      std::vector<graph::ValueId> operands{y};
      for (size_t i = 0; i < edit.parameters.size(); ++i)
        operands.push_back(
            r.out().add_constant(fmt::format("{}.{}", edit.op, i), edit.parameters[i]));
      y = r.out().add_call(edit.op, edit.op, operands, {}, std::nullopt, edit.op);
    }
    r.map(node.outputs[0], y);
    return true;
  });
}

std::function<void(Tensor&)> times(double factor) {
  return [factor](Tensor& t) { t = t * factor; };
}
// Element [.., c, ..] along a dimension.
std::function<void(Tensor&)> channel_times(int64_t dim, int64_t channel, double factor) {
  return [=](Tensor& t) {
    const int64_t n = t.size(dim);
    int64_t inner = 1;
    for (int64_t d = dim + 1; d < t.dim(); ++d) inner *= t.size(d);
    for (int64_t i = 0; i < t.numel(); ++i)
      if (i / inner % n == channel) t.data<float>()[i] *= static_cast<float>(factor);
  };
}

// The name of the weight of the layer that reads a layer's result.
std::string weight_behind(const graph::Graph& g, const std::string& layer) {
  const graph::ValueId v = layer_named(g, layer).outputs[0];
  for (graph::NodeId n : g.users(v))
    if (g.node(n).inputs.size() > 1 && g.is_constant(g.node(n).inputs[1]))
      return g.value(g.node(n).inputs[1]).name;
  ADD_FAILURE() << "no layer reads " << layer;
  return "";
}
// The first layer.
const graph::Node& first_layer(const graph::Graph& g) {
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call && node.inputs.size() > 1 &&
        g.is_constant(node.inputs[1]))
      return node;
  ADD_FAILURE() << "no layer";
  return g.nodes()[0];
}

// A batch norm behind the first layer, with the statistics of these data, which changes nothing but
// scale and offset by channel.
graph::Graph with_norm(const graph::Graph& g, const Tensor& data) {
  const graph::Node& layer = first_layer(g);
  const runtime::Program program = runtime::compile(g, {.engine = {}, .every_value = true});
  std::vector<double> sum, squares;
  double count = 0;
  program.run_watched({data}, {layer.outputs[0]}, [&](graph::ValueId, const Tensor& value) {
    const Tensor x = value.contiguous();
    const int64_t n = x.size(0), c = x.size(1), inner = x.numel() / (n * c);
    sum.resize(static_cast<size_t>(c)), squares.resize(static_cast<size_t>(c));
    for (int64_t i = 0; i < x.numel(); ++i) {
      const auto channel = static_cast<size_t>(i / inner % c);
      sum[channel] += x.data<float>()[i];
      squares[channel] += x.data<float>()[i] * static_cast<double>(x.data<float>()[i]);
    }
    count = static_cast<double>(n * inner);
  });
  std::vector<float> mean, var, one(sum.size(), 1), zero(sum.size(), 0);
  for (size_t c = 0; c < sum.size(); ++c) {
    mean.push_back(static_cast<float>(sum[c] / count));
    var.push_back(static_cast<float>(squares[c] / count - sum[c] / count * (sum[c] / count)));
  }
  const auto tensor = [](const std::vector<float>& v) {
    return Tensor::from(v, {static_cast<int64_t>(v.size())});
  };
  return edited(g, {.behind = layer.scope,
                    .op = "batch_norm",
                    .parameters = {tensor(one), tensor(zero), tensor(mean), tensor(var)}});
}

// The observer of a value has this range times a factor.
void scale_range(quant::ObservedGraphModule& prepared, const std::string& value, double factor) {
  const auto watched = prepared.watched();
  const std::string& path = watched.observer.at(static_cast<size_t>(*watched.graph.find(value)));
  auto& observer = dynamic_cast<quant::Observer&>(*prepared.submodule(path));
  const quant::QParams q = observer.calculate_qparams();
  quant::ObserverOptions options = observer.options();
  options.scale = q.scales[0] * factor;
  options.zero_point = static_cast<int64_t>(q.zero_points[0]);
  prepared.put_module(path, quant::make_observer("fixed", options, observer.label()));
}

struct Plant {
  FaultQuantized quantized;
  graph::Graph float_graph;
  Tensor data;
  Cause cause = Cause::rounding;
  std::string layer;   // "": none is to be named
  double healthy = 0;  // dB, without the plant
};

// A cause in a network; variants differ in how or where.
Plant plant(const std::string& kind, Cause cause, int variant) {
  FaultNet net = make_fault_net(kind, {.branches = cause == Cause::unlike_operands,
                                       .channels = cause == Cause::per_tensor_weights});
  const FaultNet sound = make_fault_net(kind, {.channels = cause == Cause::per_tensor_weights});
  Plant p;
  p.cause = cause;
  p.layer = net.victim;
  p.data = fault_samples(net);
  const std::string minmax = "MinMaxObserver", weight = net.victim + ".weight";
  const auto quantized = [&](const Tensor& calibration) {
    p.quantized = quantize_fault_net(net, calibration);
  };
  switch (cause) {
    case Cause::outlier_channel: {
      const double factor = variant == 0 ? 40 : 100;
      net.graph = edited(
          net.graph, {.constants = {{weight, channel_times(0, 3 + variant, factor)},
                                    {net.victim + ".bias", channel_times(0, 3 + variant, factor)},
                                    {weight_behind(net.graph, net.victim),
                                     channel_times(1, 3 + variant, 1 / factor)}}});
      quantized(p.data);
      break;
    }
    case Cause::clipped_tail:
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, "", [&](auto& prepared) {
        scale_range(prepared, net.victim, variant == 0 ? 0.15 : 0.3);
      });
      break;
    case Cause::stretched_range:
      if (variant == 0) {
        p.layer = "x";
        p.data.data<float>()[17 * (p.data.numel() / p.data.size(0)) + 5] = 200;
        quantized(p.data);
      } else {
        p.quantized = quantize_fault_net(net, p.data, minmax, {}, "", [&](auto& prepared) {
          scale_range(prepared, net.victim, 30);
        });
      }
      break;
    case Cause::dead_channel:
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, "", [&](auto& prepared) {
        Tensor w = prepared.watched().graph.constant(*net.graph.find(weight)).clone();
        quant::Observer& observer = observer_of(prepared, weight);
        observer.observe(w);
        channel_times(0, 3 + variant, 1000)(w);
        observer.observe(w);
      });
      break;
    case Cause::unlike_operands:
      p.layer = net.cat;
      quantized(p.data);
      break;
    case Cause::per_tensor_weights:
      p.layer = net.depthwise;
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, net.depthwise);
      break;
    case Cause::saturating_target: {
      const graph::Node layer = first_layer(net.graph);  // the graph is replaced
      p.layer = layer.scope;
      float* x = p.data.data<float>();
      for (int64_t i = 0; i < p.data.numel(); ++i)
        x[i] = 0.8F + 0.05F * std::clamp(x[i], -4.F, 4.F);
      const std::string name = net.graph.value(layer.inputs[1]).name;
      net.graph = edited(net.graph, {.constants = {{name, [](Tensor& w) {
                                                      const float fan =
                                                          static_cast<float>(w.numel() / w.size(0));
                                                      for (int64_t i = 0; i < w.numel(); ++i) {
                                                        float& e = w.data<float>()[i];
                                                        e = (1 + 0.2F * std::clamp(e, -1.F, 1.F)) *
                                                            20 / std::sqrt(fan);
                                                      }
                                                    }}}});
      // As behind a batch norm, results are about 0.
      const Tensor w = net.graph.constant(*net.graph.find(name));
      const int64_t row = w.numel() / w.size(0);
      net.graph = edited(net.graph, {.constants = {{layer.scope + ".bias", [&](Tensor& b) {
                                                      for (int64_t c = 0; c < b.numel(); ++c)
                                                        for (int64_t i = 0; i < row; ++i)
                                                          b.data<float>()[c] -=
                                                              0.8F * w.data<float>()[c * row + i];
                                                    }}}});
      quantized(p.data);
      break;
    }
    case Cause::fixed_range: {
      // Results far below 1, which the next layer makes large again.
      const bool tanh = variant == 1;
      const std::string behind = weight_behind(net.graph, net.victim);
      net.graph = edited(net.graph, {.constants = {{weight, times(tanh ? 0.01 : 0.3)},
                                                   {net.victim + ".bias",
                                                    [tanh](Tensor& b) {
                                                      b = b * (tanh ? 0.01 : 0.3);
                                                      if (tanh) return;
                                                      for (int64_t i = 0; i < b.numel(); ++i)
                                                        b.data<float>()[i] -= 5;
                                                    }},
                                                   {behind, times(tanh ? 100 : 150)}},
                                     .plain = net.victim,
                                     .behind = net.victim,
                                     .op = tanh ? "tanh" : "sigmoid"});
      p.layer = tanh ? "tanh" : "sigmoid";
      quantized(p.data);
      break;
    }
    case Cause::few_samples: {
      p.layer = "";
      const int64_t size = p.data.numel() / p.data.size(0);
      for (int64_t i = 0; i < p.data.numel(); ++i)
        p.data.data<float>()[i] *= i / size < 2 ? 0.5F : 0.5F + 0.1F * static_cast<float>(i / size);
      quantized(p.data.slice(0, 0, 1 + variant).contiguous());
      if (variant == 0) p.quantized.after.metadata["calibration"] = "1 samples of first.npz";
      break;
    }
    case Cause::preprocessing: {
      const bool wrong_data = variant == 0 && kind != "mixer" && kind != "transformer";
      if (wrong_data) net.graph = with_norm(net.graph, p.data);
      p.layer = wrong_data ? "batch_norm" : "x";
      quantized(variant == 0 ? p.data : p.data * (1 / 255.0));
      if (variant == 0) {
        p.healthy = sqnr_between(net.graph, p.quantized.after, p.data);
        p.data = p.data * 255.0;
      }
      break;
    }
    default:
      ADD_FAILURE() << "not planted";
  }
  p.float_graph = net.graph;
  if (p.healthy == 0) {
    const FaultNet& other = cause == Cause::unlike_operands ? sound : net;
    const Tensor data = cause == Cause::stretched_range ? fault_samples(net) : p.data;
    const graph::Graph& plain = cause == Cause::outlier_channel ? sound.graph : other.graph;
    std::vector<std::string> skip;
    if (cause == Cause::fixed_range) skip = {p.layer};
    p.healthy = sqnr_between(
        plain,
        quantize_fault_net({.kind = kind, .graph = plain}, data, "MinMaxObserver", skip).after,
        data);
  }
  return p;
}

const std::vector<Cause>& planted_causes() {
  static const std::vector<Cause> causes{Cause::outlier_channel,   Cause::clipped_tail,
                                         Cause::stretched_range,   Cause::dead_channel,
                                         Cause::unlike_operands,   Cause::per_tensor_weights,
                                         Cause::saturating_target, Cause::fixed_range,
                                         Cause::few_samples,       Cause::preprocessing};
  return causes;
}

std::string describe(const DoctorReport& r) {
  std::string text = fmt::format("  {:.1f} dB, then {:.1f} dB\n", r.before, r.after);
  for (const DoctorFinding& f : r.findings) {
    text += fmt::format("  {} {}: {:.1f} dB{}: {}\n", to_string(f.cause), f.layer, f.before,
                        f.kept ? ", kept" : "", f.sentence);
    for (const quant::DoctorCure& c : f.cures)
      text += fmt::format("    {}: {:.1f} dB {}\n", c.what, c.score, c.failed);
  }
  for (const std::string& note : r.notes) text += "  note: " + note + "\n";
  return text;
}

using Planted = std::tuple<std::string, Cause>;
class DoctorPlants : public ::testing::TestWithParam<Planted> {};
INSTANTIATE_TEST_SUITE_P(Networks, DoctorPlants,
                         ::testing::Combine(::testing::ValuesIn(fault_net_kinds()),
                                            ::testing::ValuesIn(planted_causes())),
                         [](const auto& info) {
                           std::string name = std::get<0>(info.param) + "_" +
                                              quant::to_string(std::get<1>(info.param));
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

// Of causes with two variants, the networks take turns: one plant for each network and cause.
// OCTET_DOCTOR_ALL=1 plants all 204 and prints a table.
TEST_P(DoctorPlants, AreNamedFirstAndCured) {
  const auto& [kind, cause] = GetParam();
  if (kind == "densenet" && cause == Cause::per_tensor_weights)
    GTEST_SKIP() << "one scale for the densenet's depthwise weights costs it nothing: the noise of "
                    "its last layer hides it";
  const bool all = std::getenv("OCTET_DOCTOR_ALL") != nullptr,
             one = cause == Cause::unlike_operands || cause == Cause::per_tensor_weights ||
                   cause == Cause::saturating_target;
  const auto& kinds = fault_net_kinds();
  const int64_t turn = std::find(kinds.begin(), kinds.end(), kind) - kinds.begin();
  for (int variant = 0; variant < (one ? 1 : 2); ++variant) {
    if (!one && !all && variant != turn % 2) continue;
    SCOPED_TRACE(fmt::format("variant {}", variant));
    const Plant p = plant(kind, cause, variant);
    const DoctorReport r =
        quant::doctor(p.float_graph, p.quantized.after, batches_of(p.data), {},
                      {.seconds = INFINITY, .saturating = cause == Cause::saturating_target});
    ASSERT_FALSE(r.findings.empty());
    const DoctorFinding& first = r.findings[0];
    if (all && p.healthy - first.before < 0.9) {
      fmt::print("{} {}, {}: takes less than 0.9 dB\n", kind, variant, to_string(cause));
      continue;
    }
    EXPECT_STREQ(to_string(first.cause), to_string(cause)) << describe(r);
    EXPECT_EQ(first.layer, p.layer) << describe(r);
    EXPECT_TRUE(first.kept) << describe(r);
    EXPECT_GE(p.healthy - first.before, 0.9) << "nothing was lost\n" << describe(r);
    // 85% of the decibels that the plant took are regained.
    EXPECT_GE(first.gain(), 0.85 * (p.healthy - first.before)) << p.healthy << "\n" << describe(r);
    if (all)
      fmt::print("{} {}, {}: {} {} {:.1f} -> {:.1f} dB, {:.1f} without the plant\n", kind, variant,
                 to_string(cause), to_string(first.cause), first.layer, first.before, first.after(),
                 p.healthy);
  }
}

// -- what holds of every report -------------------------------------------------------------------

class DoctorSound : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, DoctorSound, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

// Nothing but rounding, and what other libraries would do with it, which changes nothing here.
TEST_P(DoctorSound, NoCauseIsNamed) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor data = fault_samples(net);
  const DoctorReport r =
      quant::doctor(net.graph, quantize_fault_net(net, data).after, batches_of(data));
  for (const DoctorFinding& f : r.findings)
    EXPECT_TRUE(f.cause == Cause::rounding || (f.cause == Cause::saturating_target && !f.kept))
        << describe(r);
}

TEST(Doctor, ANetworkThatIsRightIsLeftAsItIs) {
  const FaultNet net = make_fault_net("glu");
  const Tensor data = fault_samples(net);
  const graph::Graph int8 = quantize_fault_net(net, data).after;
  const DoctorReport r = quant::doctor(net.graph, int8, batches_of(data));
  EXPECT_GT(r.before, 30);
  for (const DoctorFinding& f : r.findings) EXPECT_EQ(f.cause, Cause::saturating_target);
  EXPECT_FALSE(r.cured);
  EXPECT_EQ(r.before, r.after);
  EXPECT_EQ(graph::print(r.graph), graph::print(int8));
}

TEST(Doctor, TheRecipeMakesTheCuredNetwork) {
  const Plant p = plant("residual", Cause::clipped_tail, 0);
  const quant::Batches samples = batches_of(p.data);
  const DoctorReport r = quant::doctor(p.float_graph, p.quantized.after, samples);
  ASSERT_TRUE(r.cured) << describe(r);
  const quant::Recipe read = quant::Recipe::from_json(r.recipe.to_json());
  EXPECT_EQ(read, r.recipe);
  const graph::Graph again = quant::apply(p.float_graph, read, samples);
  const runtime::Program a = runtime::compile(again), b = runtime::compile(r.graph);
  for (const auto& batch : samples)
    EXPECT_EQ(a.run(batch)[0].to_vector<float>(), b.run(batch)[0].to_vector<float>());
  EXPECT_NEAR(sqnr_between(p.float_graph, again, p.data), r.after, 0.01);
  EXPECT_NEAR(sqnr_between(p.float_graph, p.quantized.after, p.data), r.before, 0.01);
}

TEST(Doctor, ACureChangesNothingElse) {
  const Plant p = plant("plain", Cause::clipped_tail, 0);
  const DoctorReport r = quant::doctor(p.float_graph, p.quantized.after, batches_of(p.data));
  ASSERT_TRUE(r.cured);
  int64_t anew = 0;
  for (const auto& [value, range] : r.recipe.ranges) {
    const auto& type = p.quantized.after.type(*p.quantized.after.find(
        p.quantized.after.find(value + ".quantized") ? value + ".quantized" : value));
    const bool same = type.is_quantized() && type.quantizer->scale() == range.scale;
    anew += !same;
    EXPECT_EQ(same, range.from == "the given network") << value << " " << range.from;
  }
  EXPECT_EQ(anew, 1);
}

TEST(Doctor, HeldOutSamplesJudgeAndFitNothing) {
  const Plant p = plant("residual", Cause::few_samples, 0);
  const DoctorReport r =
      quant::doctor(p.float_graph, p.quantized.after, batches_of(p.data), {}, {.hold_out = 4});
  ASSERT_TRUE(r.cured) << describe(r);
  quant::Batches fit;
  debug::ErrorStatistics error;
  const runtime::Program a = runtime::compile(p.float_graph), b = runtime::compile(r.graph);
  for (int64_t i = 0; i < p.data.size(0); ++i) {
    const Tensor x = p.data.slice(0, i, i + 1).contiguous();
    if (i % 4 == 3)
      error.add(a.run({x})[0], b.run({x})[0]);
    else
      fit.push_back({x});
  }
  EXPECT_NEAR(r.after, error.sqnr(), 0.01);
  EXPECT_EQ(r.recipe.samples.count, 18);
  EXPECT_EQ(r.recipe.samples.without_every, 4);
  EXPECT_EQ(r.recipe.samples.digest, quant::digest_of(fit));
  // The cured ranges are those that calibration on the others gives.
  quant::Recipe anew = r.recipe;
  anew.ranges.clear();
  quant::calibrate(p.float_graph, anew, fit);
  for (const auto& [value, range] : r.recipe.ranges)
    EXPECT_EQ(anew.ranges.at(value).scale, range.scale) << value << " " << range.from;
}

TEST(Doctor, TellsTheOptionsThatTheDataNeed) {
  const Plant p = plant("plain", Cause::preprocessing, 0);
  const DoctorReport r = quant::doctor(p.float_graph, p.quantized.after, batches_of(p.data));
  ASSERT_TRUE(r.data);
  EXPECT_DOUBLE_EQ(r.data->scale, 1 / 255.0);
  EXPECT_EQ(r.data->mean, std::vector<double>{0});
}

TEST(Doctor, DataAreChangedByChannel) {
  const Tensor x = Tensor::full({2, 3, 2, 2}, 10);
  const quant::Batches y =
      quant::changed({{x}}, {.what = "", .scale = 0.5, .mean = {1, 2, 3}, .std = {1, 2, 4}});
  const std::vector<float> v = y[0][0].to_vector<float>();
  for (size_t i = 0; i < v.size(); ++i)
    EXPECT_FLOAT_EQ(v[i], i / 4 % 3 == 0 ? 4 : i / 4 % 3 == 1 ? 1.5F : 0.5F) << i;
}

TEST(Doctor, CountsLabels) {
  const Plant p = plant("recurrent", Cause::few_samples, 0);
  const quant::Batches samples = batches_of(p.data);
  const runtime::Program program = runtime::compile(p.float_graph);
  std::vector<Tensor> labels;  // the float network is right
  for (const auto& batch : samples) {
    const Tensor y = program.run(batch)[0].contiguous();
    std::vector<int64_t> classes;
    for (int64_t i = 0; i < y.size(0); ++i) {
      const float* row = y.data<float>() + i * y.size(1);
      classes.push_back(std::max_element(row, row + y.size(1)) - row);
    }
    labels.push_back(Tensor::from(classes, {y.size(0)}));
  }
  const DoctorReport r = quant::doctor(p.float_graph, p.quantized.after, samples, labels);
  EXPECT_EQ(r.float_top1, 1);
  EXPECT_LT(r.before_top1, 1);
  EXPECT_GT(r.after_top1, r.before_top1);
}

TEST(Doctor, NoTrialBeginsWhenTheTimeIsUp) {
  const Plant p = plant("plain", Cause::clipped_tail, 0);
  const DoctorReport r =
      quant::doctor(p.float_graph, p.quantized.after, batches_of(p.data), {}, {.seconds = 1e-9});
  EXPECT_FALSE(r.cured);
  ASSERT_FALSE(r.findings.empty());
  EXPECT_EQ(r.findings[0].cause, Cause::clipped_tail);
  EXPECT_TRUE(r.findings[0].cures.empty());
  EXPECT_FALSE(r.notes.empty());
}

TEST(Doctor, NeedsSamplesAndNetworksThatBelongTogether) {
  const Plant p = plant("plain", Cause::clipped_tail, 0),
              q = plant("mixer", Cause::clipped_tail, 0);
  expect_error(ErrorCode::invalid_argument, {"there are no samples"},
               [&] { quant::doctor(p.float_graph, p.quantized.after, {}); });
  expect_error(ErrorCode::unsupported, {"no value of", "statically"}, [&] {
    quant::doctor(p.float_graph,
                  quant::quantize_dynamic_fx(p.float_graph, quant::per_channel_dynamic_qconfig()),
                  batches_of(p.data));
  });
  expect_error(ErrorCode::invalid_argument, {"input"},
               [&] { quant::doctor(q.float_graph, p.quantized.after, batches_of(q.data)); });
}

}  // namespace
}  // namespace octet::testing
