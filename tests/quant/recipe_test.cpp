#include "octet/quant/tune/recipe.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "octet/io/npz.h"
#include "octet/io/onnx/import.h"
#include "octet/quant/algorithms/cross_layer_equalization.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

graph::Graph glyphs() { return io::import_onnx("examples/glyphs/glyphs.onnx"); }

Batches samples(int64_t count = 32) {
  auto arrays = read_npz("examples/glyphs/calibrate.npz");
  const Tensor images = arrays["images"].to(DType::float32);
  Batches batches;
  for (int64_t i = 0; i < count; i += 8)
    batches.push_back({images.slice(0, i, i + 8).contiguous()});
  return batches;
}

Recipe percentile() {
  QConfig q = get_default_qconfig();
  q.activation = ObserverFactory("percentile").with_args(q.activation.options());
  return {.mapping = q};
}

std::string text_of(const graph::Graph& g) { return graph::print(g, {.full = true}); }

// The same types, qparams and constants.
void expect_same(const graph::Graph& a, const graph::Graph& b) {
  EXPECT_EQ(text_of(a), text_of(b));
  ASSERT_EQ(a.nodes().size(), b.nodes().size());
  for (size_t n = 0; n < a.nodes().size(); ++n)
    if (a.nodes()[n].kind == graph::NodeKind::constant) {
      EXPECT_TRUE(equal(a.nodes()[n].value, b.nodes()[n].value)) << n;
    }
  EXPECT_EQ(a.metadata, b.metadata);
}

}  // namespace

TEST(Recipe, OfAllKindsOfEntriesIsReadAsItWasWritten) {
  static bool registered = false;
  if (!registered)
    register_recipe_step({.name = "test nothing",
                          .on_prepared = [](ObservedGraphModule&, const Batches&, const Attrs&,
                                            const graph::Graph&, StepTeam*) {}});
  registered = true;
  Recipe recipe = percentile();
  QConfig four = get_default_qconfig();
  four.weight = four.weight.with_quant_range(-8, 7);
  recipe.mapping.set_module_name("conv1", four).set_module_name("fc", std::nullopt);
  recipe.backend = "qnnpack";
  recipe.skip = {"head*", "re:^a$"};
  recipe.steps = {{"test nothing", {{"rounds", int64_t{3}}, {"rate", 0.5}, {"deep", true}}}};
  recipe.samples = {48, 4, 4, "00ff"};
  recipe.ranges["a/b.c"] = {0.1f, -3, "PercentileObserver()"};
  recipe.ranges["d"] = {1.0 / 3, 255, ""};
  const Recipe back = Recipe::from_json(recipe.to_json());
  EXPECT_TRUE(back == recipe) << back.to_json();
  EXPECT_EQ(back.to_json(), recipe.to_json());
}

TEST(Recipe, AppliedAgainGivesTheSameNetworkWithoutSamples) {
  const graph::Graph g = glyphs();
  for (const bool choose : {false, true}) {
    Recipe recipe = percentile();
    calibrate(g, recipe, samples(), choose);
    EXPECT_FALSE(recipe.ranges.empty());
    const graph::Graph first = apply(g, recipe, samples());
    expect_same(first, apply(g, Recipe::from_json(recipe.to_json())));
  }
}

TEST(Recipe, HasTheRangesThatCalibrationChooses) {
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  calibrate(g, recipe, samples());
  auto prepared = prepare_fx(g, recipe.mapping);
  for (const auto& batch : samples()) prepared->forward(batch);
  EXPECT_EQ(text_of(apply(g, recipe)), text_of(convert_fx(prepared)->graph()));
}

TEST(Recipe, ChoosesOnlyTheRangesThatItDoesNotHave) {
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  calibrate(g, recipe, samples());
  const std::string kept = recipe.ranges.begin()->first, lost = recipe.ranges.rbegin()->first;
  ASSERT_NE(kept, lost);
  const Recipe::Range before = recipe.ranges[lost];
  recipe.ranges[kept].scale *= 2;
  const double doubled = recipe.ranges[kept].scale;
  recipe.ranges.erase(lost);
  calibrate(g, recipe, samples());
  EXPECT_EQ(recipe.ranges[kept].scale, doubled);
  EXPECT_EQ(recipe.ranges[lost].scale, before.scale);
}

TEST(Recipe, KeepsTheRangesOfValuesThatAreStillObservedWithTheSameCodes) {
  const graph::Graph g = glyphs();
  Recipe from = percentile();
  calibrate(g, from, samples());
  const std::string layer = "/stem/stem.0/Conv";
  // A layer with 16 bits: the ranges of its operand and its result are for other codes.
  Recipe wide = from;
  QConfig q = *from.mapping.global_qconfig();
  q.activation = q.activation.with_dtype(DType::quint16);
  wide.mapping.set_module_name(layer, q);
  keep_ranges(g, wide, from);
  EXPECT_EQ(wide.ranges.size(), from.ranges.size() - 2);
  for (const auto& [value, range] : wide.ranges) EXPECT_TRUE(range == from.ranges.at(value));
  // All layers float but the last: the values between have no observer.
  Recipe few = from;
  few.skip = {"/stem/*", "/block*"};
  keep_ranges(g, few, from);
  EXPECT_LT(few.ranges.size(), from.ranges.size());
  calibrate(g, few, samples());
  apply(g, few, samples());  // no range is of a value that is not observed
}

TEST(Recipe, SaysWhichSamplesItWasMadeWith) {
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  recipe.samples.without_every = 4;
  calibrate(g, recipe, samples());
  EXPECT_EQ(recipe.samples.count, 32);
  EXPECT_EQ(recipe.samples.batch, 8);
  EXPECT_EQ(recipe.samples.without_every, 4);
  Batches one = samples();
  EXPECT_EQ(recipe.samples.digest, digest_of(one));
  one[1][0] = one[1][0].clone();
  one[1][0].data<float>()[5] += 1;
  EXPECT_NE(recipe.samples.digest, digest_of(one));
}

TEST(Recipe, StepsAreRunInTheirOrderOnGraphAndPreparedModule) {
  static std::vector<std::string> ran;
  static bool registered = false;
  if (!registered) {
    register_recipe_step(
        {.name = "test graph", .on_graph = [](const graph::Graph& g, const Batches&, const Attrs&) {
           ran.push_back("graph");
           return g;
         }});
    register_recipe_step({.name = "test prepared",
                          .on_prepared = [](ObservedGraphModule&, const Batches& given,
                                            const Attrs& options, const graph::Graph&, StepTeam*) {
                            ran.push_back(
                                fmt::format("prepared {} {}", given.size(), options.get_int("n")));
                          }});
  }
  registered = true;
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  calibrate(g, recipe, samples());
  recipe.steps = {{"test prepared", {{"n", int64_t{7}}}}, {"test graph"}};
  ran.clear();
  apply(g, recipe, samples());
  EXPECT_EQ(ran, (std::vector<std::string>{"graph", "prepared 4 7"}));
  testing::expect_error(ErrorCode::invalid_argument, {"'test prepared' needs samples"},
                        [&] { apply(g, recipe); });
}

// Equalized weights are those that were quantized; the float network's own are another's.
TEST(Recipe, LayersAreComparedWithThoseOfTheFloatNetworkAfterItsSteps) {
  const graph::Graph g = glyphs();
  Recipe plain = percentile(), equalized = plain;
  calibrate(g, plain, samples());
  const graph::Graph q = apply(g, plain, samples());
  EXPECT_FALSE(has_float_counterpart(q));
  expect_same(float_counterpart(g, q, samples()), g);
  equalized.steps = {{"equalization"}, {"bias_correction"}};
  calibrate(g, equalized, samples());
  const graph::Graph e = apply(g, equalized, samples());
  ASSERT_TRUE(has_float_counterpart(e));
  const graph::Graph counterpart = float_counterpart(g, e, samples());
  const auto weight = [](const graph::Graph& of) { return of.constant(*of.find("stem.0.weight")); };
  EXPECT_FALSE(equal(weight(counterpart), weight(g)));
  expect_same(counterpart, cross_layer_equalization(g, samples()));
  graph::Graph damaged = e;
  damaged.metadata["recipe"] = "{}";
  EXPECT_FALSE(has_float_counterpart(damaged));
}

TEST(Recipe, ThatDoesNotFitIsAnError) {
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  testing::expect_error(ErrorCode::not_calibrated, {"saw no data"}, [&] { apply(g, recipe); });
  calibrate(g, recipe, samples());
  recipe.ranges["nowhere"] = {1, 0, ""};
  testing::expect_error(ErrorCode::not_found, {"'nowhere'"}, [&] { apply(g, recipe); });
}

TEST(Recipe, OfAnotherFormIsAnErrorThatNamesTheField) {
  const std::string good = percentile().to_json();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  struct Case {
    std::string text;
    ErrorCode code;
    std::string part;
  };
  const std::vector<Case> cases = {
      {"[1]", ErrorCode::invalid_argument, "expected an object"},
      {"{", ErrorCode::corrupt, "recipe"},
      {with("octet.recipe", "cake"), ErrorCode::invalid_argument, "'format'"},
      {with("\"version\": 1", "\"version\": 9"), ErrorCode::unsupported, "version 9"},
      {with("\"skip\"", "\"skp\""), ErrorCode::not_found, "did you mean 'skip'"},
      {with("\"backend\": \"native\"", "\"backend\": \"nativ\""), ErrorCode::not_found,
       "did you mean 'native'"},
      {with("\"steps\": []", "\"steps\": [{\"name\": \"magic\"}]"), ErrorCode::not_found,
       "unknown step 'magic'"},
      {with("\"ranges\": {}", "\"ranges\": {\"x\": {\"scale\": 1}}"), ErrorCode::invalid_argument,
       "the range of 'x'"},
      {with("\"ranges\": {}", "\"ranges\": {\"x\": {\"scale\": \"a\", \"zero_point\": 0}}"),
       ErrorCode::invalid_argument, "expected a number"},
      {with("\"count\": 0", "\"count\": -1"), ErrorCode::invalid_argument, "'count'"}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    testing::expect_error(c.code, {c.part}, [&] { Recipe::from_json(c.text); });
  }
}

TEST(Recipe, LearnedRoundingIsReplayedToTheSameNetwork) {
  const graph::Graph g = glyphs();
  Recipe recipe = percentile();
  recipe.steps = {{"adaround", {{"iterations", int64_t{20}}}},
                  {"brecq", {{"iterations", int64_t{5}}}}};
  calibrate(g, recipe, samples());
  expect_same(apply(g, recipe, samples()),
              apply(g, Recipe::from_json(recipe.to_json()), samples()));
}

TEST(Recipe, BlockWeightsAreTheLastStep) {
  const graph::Graph g = glyphs();
  Recipe recipe;
  recipe.steps = {{"block_weights", {{"bits", int64_t{4}}, {"block_size", int64_t{32}}}}};
  calibrate(g, recipe, samples());
  EXPECT_TRUE(recipe.ranges.empty());
  const graph::Graph made = apply(g, Recipe::from_json(recipe.to_json()), samples());
  int blocks = 0;
  for (const graph::Node& node : made.nodes()) blocks += node.op == "linear_blocks" ? 1 : 0;
  EXPECT_GT(blocks, 0);
  EXPECT_EQ(made.metadata.at("quantization"), "weight-only");
  recipe.steps.push_back({"bias_correction"});
  testing::expect_error(ErrorCode::invalid_argument, {"expected it to be the last"},
                        [&] { apply(g, recipe, samples()); });
  recipe.steps = {{"block_weights", {{"bit", int64_t{4}}}}};
  testing::expect_error(ErrorCode::invalid_argument, {"no option 'bit'", "block_size"},
                        [&] { apply(g, recipe, samples()); });
}

}  // namespace octet::quant
