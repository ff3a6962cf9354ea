#include "octet/quant/tune/tune.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/base/file.h"
#include "octet/base/random.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/graph/trace.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::tune_test {

namespace F = functional;
using namespace quant;

struct TunedNet : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot conv3 = slot("conv3", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot fc = slot("fc", nn::Linear(8 * 16, 5));
  Tensor forward(Tensor x) override {
    const Tensor a = F::relu(conv1(x)), b = F::relu(conv2(a)), c = F::relu(conv3(b));
    return fc(F::flatten(F::max_pool2d(c, 3), 1));
  }
};

Batches batches(uint64_t seed) {
  Batches all;
  for (uint64_t i = 0; i < 3; ++i) all.push_back({Tensor::randn({4, 3, 12, 12}, seed + i)});
  return all;
}

graph::Graph network() {
  manual_seed(3);
  auto model = nn::make<TunedNet>();
  model->eval();
  return graph::trace(*model, std::vector<Tensor>{batches(1)[0][0]})->to_graph();
}

// The layer `coarse` has weights of three codes, and so makes most of the noise.
QConfigMapping planted(const std::string& coarse) {
  QConfig q = get_default_qconfig(), bad = q;
  bad.weight = bad.weight.with_quant_range(-1, 1);
  return QConfigMapping(q).set_module_name(coarse, bad);
}

double operators_in_float(const graph::Graph& g) {
  double cost = 0;
  const std::vector<bool> on_codes = graph::calls_on_codes(g);
  for (size_t n = 0; n < on_codes.size(); ++n)
    cost += g.nodes()[n].kind == graph::NodeKind::call ? (on_codes[n] ? 1 : 1.2) : 0;
  return cost;
}

TuneOptions options_for(const std::string& coarse) {
  TuneOptions o{.metric = tune_metric("sqnr"), .target = 30, .slowest = 2, .most_distillation = 0};
  o.mapping = planted(coarse);
  o.cost = operators_in_float;
  return o;
}

const TuneData& data() {
  static const TuneData d{.fit = batches(1), .judge = batches(11)};
  return d;
}

TEST(Tune, FindsTheLayerThatLosesTheAccuracy) {
  for (const std::string coarse : {"conv1", "conv2", "conv3", "fc"}) {
    SCOPED_TRACE(coarse);
    const TuneResult r = tune(network(), data(), options_for(coarse));
    EXPECT_LT(r.trials[0].score, 20);
    EXPECT_GE(r.best().score, 30);
    EXPECT_TRUE(r.best().above);
    EXPECT_EQ(r.best().left_float, std::vector<std::string>{coarse});
    EXPECT_EQ(r.recipe.skip, std::vector<std::string>{coarse});
  }
}

TEST(Tune, StopsWhereTheBarIsReached) {
  TuneOptions o = options_for("conv2");
  o.target = 1;
  const TuneResult r = tune(network(), data(), o);
  EXPECT_EQ(r.trials.size(), 2u) << "calibrated, ranges";
  EXPECT_TRUE(r.best().left_float.empty());
}

TEST(Tune, WithoutATrialAboveTheBarTheHighestScoreIsBest) {
  TuneOptions o = options_for("conv2");
  o.target = 1000;
  o.slowest = 1.01;  // no layer may be left float
  const TuneResult r = tune(network(), data(), o);
  EXPECT_FALSE(r.best().above);
  for (const TuneTrial& t : r.trials) {
    EXPECT_LE(t.score, r.best().score);
    EXPECT_TRUE(t.left_float.empty());
  }
}

// Before and after the rungs that cost time; these begin with networks that were not distilled.
TEST(Tune, WhatIsBestIsDistilledForLongerAndLonger) {
  TuneOptions o{.metric = tune_metric("sqnr"), .target = 1000, .slowest = 2};
  o.cost = operators_in_float;
  o.mapping = get_default_qconfig();
  const TuneResult r = tune(network(), data(), o);
  std::vector<std::string> distilled;
  for (const TuneTrial& t : r.trials)
    if (const size_t at = t.name.find(", distill of "); at != std::string::npos) {
      distilled.push_back(t.name.substr(at + 2));
      EXPECT_EQ(t.name.find("distill", at + 12), std::string::npos) << t.name;
    }
  ASSERT_GE(distilled.size(), 3u);
  distilled.resize(3);
  EXPECT_EQ(distilled,
            (std::vector<std::string>{"distill of 50", "distill of 200", "distill of 800"}));
}

TEST(Tune, TheResultIsWhatItsRecipeMakesAndWhatTheScoreWasMeasuredOn) {
  const graph::Graph g = network();
  const TuneResult r = tune(g, data(), options_for("conv3"));
  const graph::Graph again = apply(g, Recipe::from_json(r.recipe.to_json()), data().fit);
  EXPECT_EQ(graph::print(again, {.full = true}), graph::print(r.graph, {.full = true}));
  const auto before = runtime::compile(g), after = runtime::compile(again);
  Batches expected, got;
  for (const auto& batch : data().judge) {
    expected.push_back(before.run(batch));
    got.push_back(after.run(batch));
  }
  EXPECT_EQ(tune_metric("sqnr").score(expected, got), r.best().score);
}

// The samples that judge are among those: its score is that of the trial that it repeats.
TEST(Tune, TheBestIsMadeOnceMoreOfAllSamples) {
  const graph::Graph g = network();
  Batches all = data().fit;
  all.insert(all.end(), data().judge.begin(), data().judge.end());
  TuneData with_all = data();
  with_all.all = [&] { return all; };
  TuneOptions o = options_for("conv3");
  const TuneResult apart = tune(g, data(), o), r = tune(g, with_all, o);
  ASSERT_EQ(r.trials.size(), apart.trials.size() + 1);
  EXPECT_EQ(r.best_index, apart.trials.size());
  EXPECT_EQ(r.best().name, apart.best().name + ", all samples");
  EXPECT_EQ(r.best().score, apart.best().score);
  EXPECT_EQ(r.best().left_float, apart.best().left_float);
  EXPECT_EQ(r.recipe.samples.digest, digest_of(all));
  EXPECT_NE(r.recipe.ranges, apart.recipe.ranges);
  EXPECT_EQ(graph::print(r.graph, {.full = true}),
            graph::print(apply(g, Recipe::from_json(r.recipe.to_json()), all), {.full = true}));
}

// What the samples that judge bring is of another kind, and harms: it is not the result.
TEST(Tune, TheBestStaysAsItWasJudgedWhereMoreSamplesHarmIt) {
  TuneData strange = data();
  strange.all = [] {
    Batches far = batches(1);
    for (std::vector<Tensor>& batch : far) batch[0] = batch[0] * 1000.0;
    return far;
  };
  const TuneResult r = tune(network(), strange, options_for("conv3"));
  EXPECT_TRUE(r.best().name.find("all samples") == std::string::npos) << r.best().name;
  ASSERT_FALSE(r.notes.empty());
  EXPECT_NE(r.notes.back().find("less than without them"), std::string::npos) << r.notes.back();
}

// What is sent between processes is all that another one needs.
TEST(Tune, WhatIsSharedIsWhatOneProcessFinds) {
  struct Sent : TuneTeam {
    std::map<std::string, graph::Graph> graphs;
    size_t jobs = 0;
    bool is_first() const override { return true; }
    std::vector<std::string> share(size_t n,
                                   const std::function<std::string(size_t)>& job) override {
      std::vector<std::string> results(n);
      for (size_t i = n; i-- > 0; ++jobs) results[i] = job(i);  // in any order
      return results;
    }
    std::string broadcast(const std::string& text) override { return text; }
    std::string bytes_of(const graph::Graph& graph) override {
      const std::string key = std::to_string(graphs.size()) + std::string(1, '\0');
      graphs.emplace(key, graph);
      return key;
    }
    graph::Graph graph_of(const std::string& bytes) override { return graphs.at(bytes); }
  } team;
  TuneOptions o = options_for("conv2");
  const TuneResult one = tune(network(), data(), o);
  o.team = &team;
  const TuneResult shared = tune(network(), data(), o);
  EXPECT_GT(team.jobs, 3u);
  ASSERT_EQ(shared.trials.size(), one.trials.size());
  for (size_t i = 0; i < one.trials.size(); ++i) {
    EXPECT_EQ(shared.trials[i].name, one.trials[i].name);
    EXPECT_EQ(shared.trials[i].score, one.trials[i].score);
  }
  EXPECT_EQ(shared.recipe, one.recipe);
  EXPECT_EQ(graph::print(shared.graph, {.full = true}), graph::print(one.graph, {.full = true}));
}

TEST(Tune, KeepsAStepThatHelpsAndDropsOneThatDoesNot) {
  static bool on = false, registered = false;  // other tests do without
  if (!registered) {
    // Puts the good ranges of a calibration back, or makes all values coarse.
    const auto scaled = [](double factor) {
      return [factor](ObservedGraphModule& p, const Batches&, const Attrs&, const graph::Graph&,
                      StepTeam*) {
        if (!on) return;
        for (const auto& [path, module] : p.named_modules()) {
          auto* observer = dynamic_cast<Observer*>(module);
          if (!observer || !observer->options().scale) continue;
          ObserverOptions o = observer->options();
          o.scale = *o.scale * factor;
          p.put_module(path, make_observer("fixed", o, observer->label()));
        }
      };
    };
    register_recipe_step({.name = "test coarser", .on_prepared = scaled(8)});
    register_recipe_step({.name = "test finer", .on_prepared = scaled(1.0 / 4)});
  }
  registered = on = true;
  const graph::Graph g = network();
  TuneOptions o{
      .metric = tune_metric("sqnr"), .target = 1000, .slowest = 1.01, .most_distillation = 0};
  o.cost = operators_in_float;
  // Ranges that are 16 times too wide, as an outlier would make them.
  Batches wide = batches(1);
  wide[0][0] = wide[0][0] * 16.0;
  QConfig q = get_default_qconfig();
  q.activation = ObserverFactory("minmax").with_args(q.activation.options());
  o.mapping = q;
  const TuneData outlier{.fit = wide, .judge = batches(11)};
  const TuneResult r = tune(g, outlier, o);
  on = false;
  // Cures, which come last, choose all ranges anew.
  const TuneTrial* best = nullptr;
  for (const TuneTrial& t : r.trials)
    if (t.name.find("cures") == std::string::npos && (!best || t.score > best->score)) best = &t;
  ASSERT_TRUE(best);
  EXPECT_NE(best->name.find("test finer"), std::string::npos) << best->name;
  EXPECT_EQ(best->name.find("test coarser"), std::string::npos) << best->name;
}

TEST(Tune, WithinTheBytesThatAreAllowedLayersGet4Bits) {
  const graph::Graph g = network();
  TuneOptions o{
      .metric = tune_metric("sqnr"), .target = 60, .slowest = 1.01, .most_distillation = 0};
  o.cost = operators_in_float;
  const TuneResult eight = tune(g, data(), o);
  o.max_size = 0.8 * eight.trials[0].size;
  const TuneResult r = tune(g, data(), o);
  for (const TuneTrial& t : r.trials)
    if (t.left_float.empty()) {
      EXPECT_LE(t.size, o.max_size) << t.name;
    }
  EXPECT_LE(r.best().size, o.max_size);
  const auto& narrow = r.recipe.mapping.module_name_qconfigs();
  EXPECT_GT(narrow.size(), 0u);
  EXPECT_LT(narrow.size(), 4u) << "some keep 8 bits";
  EXPECT_TRUE(std::any_of(r.trials.begin(), r.trials.end(), [](const auto& t) {
    return t.name.ends_with("adaround");
  })) << "rounding of the few bits is learned";
  o.max_size = 100;
  testing::expect_error(ErrorCode::invalid_argument, {"max_size is 100", "with 4 bits"},
                        [&] { tune(g, data(), o); });
}

TEST(Tune, NoNetworkThatCostsMoreThanAllowedIsGoodEnough) {
  TuneOptions o = options_for("conv2");
  const double all =
      operators_in_float(apply(network(), Recipe{.mapping = get_default_qconfig()}, data().fit));
  o.max_cost = all - 1;
  const TuneResult r = tune(network(), data(), o);
  for (const TuneTrial& t : r.trials) {
    EXPECT_FALSE(t.above);
    EXPECT_TRUE(t.left_float.empty()) << "there is no budget for any";
  }
  o.max_cost = 2 * all;
  EXPECT_TRUE(tune(network(), data(), o).best().above);
}

TEST(Tune, WhatTurnsOutToCostMoreThanExpectedIsNotBest) {
  TuneOptions o = options_for("conv2");
  o.target = 1000;  // out of reach, so that the highest score is best
  o.slowest = 1.5;  // enough for all four layers, if they cost no more together than one by one
  o.cost = [](const graph::Graph& g) {
    const std::vector<bool> on_codes = graph::calls_on_codes(g);
    int in_float = 0;
    for (size_t n = 0; n < on_codes.size(); ++n)
      in_float += !on_codes[n] && (g.nodes()[n].op == "conv2d" || g.nodes()[n].op == "linear");
    return in_float < 2 ? 10.0 + in_float : 10.0 * (1 + in_float);
  };
  const TuneResult r = tune(network(), data(), o);
  EXPECT_TRUE(std::ranges::any_of(r.trials, [](const TuneTrial& t) { return t.cost > 15; }));
  EXPECT_LE(r.best().cost, 15);
  EXPECT_EQ(r.best().left_float.size(), 1u);
}

TEST(Tune, ResultsOf16BitsAreTriedWhereTheyCostLess) {
  // What is lost is lost by results: one of them has 3 bits.
  const graph::Graph g = network();
  QConfig q = get_default_qconfig(), bad = q;
  bad.activation = ObserverFactory("minmax").with_args(q.activation.options());
  bad.activation = bad.activation.with_quant_range(0, 7);
  TuneOptions o{.metric = tune_metric("sqnr"), .target = 30, .slowest = 2, .most_distillation = 0};
  o.mapping = QConfigMapping(q).set_module_name("conv2", bad);
  o.cost = [](const graph::Graph& made) {  // in 16 bits it costs half of what it does in float
    double cost = operators_in_float(made);
    for (const graph::Node& node : made.nodes())
      if (node.kind == graph::NodeKind::call && made.type(node.outputs[0]).dtype == DType::quint16)
        cost += 0.05;
    return cost;
  };
  const TuneResult r = tune(g, data(), o);
  EXPECT_TRUE(r.best().above);
  EXPECT_EQ(r.best().in_16_bits, std::vector<std::string>{"conv2"}) << r.best().name;
  EXPECT_TRUE(r.best().left_float.empty());
}

TEST(Tune, GoesOnFromWhatIsOnDiskToTheSameResult) {
  const graph::Graph g = network();
  testing::TempDir dir;
  TuneOptions whole = options_for("conv3");
  whole.state = dir / "whole";
  const TuneResult expected = tune(g, data(), whole);
  for (size_t cut = 1; cut <= expected.trials.size(); ++cut) {
    SCOPED_TRACE(cut);
    TuneOptions o = options_for("conv3");
    o.state = dir / fmt::format("cut{}", cut);
    size_t made = 0;
    o.on_trial = [&](const TuneTrial&) {
      if (++made == cut) fail(ErrorCode::internal, "cut off");
    };
    EXPECT_THROW(tune(g, data(), o), Error);
    o.resume = true;
    made = SIZE_MAX / 2;
    const TuneResult r = tune(g, data(), o);
    EXPECT_EQ(r.recipe.to_json(), expected.recipe.to_json());
    EXPECT_EQ(graph::print(r.graph, {.full = true}), graph::print(expected.graph, {.full = true}));
    ASSERT_EQ(r.trials.size(), expected.trials.size());
    for (size_t i = 0; i < r.trials.size(); ++i) {
      EXPECT_EQ(r.trials[i].name, expected.trials[i].name);
      EXPECT_EQ(r.trials[i].score, expected.trials[i].score);
    }
  }
}

TEST(Tune, EveryTrialOnDiskIsARecipe) {
  const graph::Graph g = network();
  testing::TempDir dir;
  TuneOptions o = options_for("conv1");
  o.state = dir / "work";
  const TuneResult r = tune(g, data(), o);
  for (size_t i = 0; i < r.trials.size(); ++i) {
    const Recipe recipe = Recipe::from_json(read_file(o.state / fmt::format("{:03}.json", i)));
    EXPECT_NO_THROW(apply(g, recipe, data().fit));
  }
}

TEST(Tune, WorkOnSomethingElseIsNotGoneOnWith) {
  testing::TempDir dir;
  TuneOptions o = options_for("conv1");
  o.state = dir / "work";
  tune(network(), data(), o);
  o.resume = true;
  o.target = 31;
  testing::expect_error(ErrorCode::invalid_argument, {"other samples or options"},
                        [&] { tune(network(), data(), o); });
}

TEST(Tune, TheParetoCurveHasTheTrialsThatNoOtherBeats) {
  TuneResult r;
  r.trials = {{.name = "a", .score = 0.9, .cost = 0.3},
              {.name = "worse", .score = 0.8, .cost = 0.3},
              {.name = "slower", .score = 0.9, .cost = 0.5},
              {.name = "fast", .score = 0.5, .cost = 0.2},
              {.name = "good", .score = 0.95, .cost = 0.6}};
  EXPECT_EQ(r.pareto(), (std::vector<size_t>{3, 0, 4}));
}

TEST(Tune, MetricsWithoutLabelsAreOneForTheFloatNetwork) {
  const Batches y = {{Tensor::rand({2, 3, 4}, 1, -1, 1)}};
  for (const char* name : {"cosine", "agreement", "sequence", "characters", "words", "iou"})
    EXPECT_NEAR(tune_metric(name).score(y, y), 1, 1e-12) << name;
  EXPECT_TRUE(std::isinf(tune_metric("sqnr").score(y, y)));
  testing::expect_error(ErrorCode::invalid_argument, {"'cosin'", "did you mean 'cosine'"},
                        [] { tune_metric("cosin"); });
  testing::expect_error(ErrorCode::invalid_argument, {"sqnr", "give a target"},
                        [] { tune(network(), data(), {.metric = tune_metric("sqnr")}); });
}

TEST(Tune, PerplexityIsOfTheLabelsOfEachPlace) {
  // Two places of four classes: alike, and two of them e times as likely as the others.
  const Batches scores = {{Tensor::from<float>({0, 0, 0, 0, 1, 1, 0, 0}, {1, 2, 4})}};
  const auto perplexity = [&](const std::vector<int64_t>& labels) {
    return -perplexity_metric({Tensor::from(labels, {1, 2})}).score(scores, scores);
  };
  const double e = std::exp(1.0), all = 2 * e + 2;
  EXPECT_NEAR(perplexity({3, 0}), std::sqrt(4 * all / e), 1e-5);
  EXPECT_NEAR(perplexity({3, 2}), std::sqrt(4 * all), 1e-5);
  EXPECT_NEAR(perplexity({-100, 2}), all, 1e-5) << "a place without a label does not count";
  testing::expect_error(ErrorCode::invalid_argument, {"3 labels", "2 places"}, [&] {
    perplexity_metric({Tensor::from<int64_t>({1, 2, 3}, {1, 3})}).score(scores, scores);
  });
}

TEST(Tune, WordsEndAtTheClassThatIsNamed) {
  const auto reading = [](const std::vector<int64_t>& classes) {
    Tensor scores = Tensor::zeros({1, std::ssize(classes), 4});
    for (size_t i = 0; i < classes.size(); ++i)
      scores.data<float>()[4 * i + static_cast<size_t>(classes[i])] = 1;
    return Batches{{scores}};
  };
  const Batches x = reading({1, 3, 2, 1}), y = reading({1, 3, 2, 2});  // "1 21" and "1 2"
  EXPECT_DOUBLE_EQ(tune_metric("words").score(x, y), 0.5) << "the last class is the space";
  EXPECT_DOUBLE_EQ(words_metric(2).score(x, y), 0.5) << "13 and 1; 13 and none";
  EXPECT_DOUBLE_EQ(words_metric(1).score(x, y), 1) << "32 in both: repetitions count once";
}

TEST(Tune, MetricsOfDetectorsCompareWhatIsFound) {
  // Two boxes apart; the scores of a box sum to 1, so that the first is the background's.
  const Tensor corners = Tensor::from<float>({0, 0, 1, 1, 4, 4, 5, 5}, {1, 2, 4});
  const auto results = [&](float a, float b) {
    return Batches{{corners, Tensor::from<float>({1 - a, a, 1 - b, b}, {1, 2, 2})}};
  };
  const Batches both = results(0.9F, 0.7F), one = results(0.9F, 0.4F);
  const TuneMetric shared = tune_metric("detections"), precision = tune_metric("map");
  EXPECT_DOUBLE_EQ(shared.score(both, both), 1);
  EXPECT_DOUBLE_EQ(shared.score(both, one), 0.5) << "one is lost";
  EXPECT_DOUBLE_EQ(shared.score(one, both), 0.5) << "one is invented";
  EXPECT_DOUBLE_EQ(precision.score(both, one), 1) << "it is found, with a lower score";
  EXPECT_DOUBLE_EQ(precision.score(both, results(0.9F, 0.01F)), 0.5);
  EXPECT_DOUBLE_EQ(precision.score(one, results(0.8F, 0.9F)), 0.5) << "something else comes first";
  testing::expect_error(ErrorCode::invalid_argument, {"corners", "--metric-command"},
                        [&] { shared.score({{corners}}, {{corners}}); });
}

}  // namespace octet::tune_test
