#include "octet/quant/tune/precision.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "octet/io/onnx/import.h"
#include "tests/expect_error.h"

namespace octet::precision_test {

using namespace quant;

const std::string kStemConv = "/stem/stem.0/Conv";

graph::Graph glyphs() { return io::import_onnx("examples/glyphs/glyphs.onnx"); }

// The call of that name in the network that the recipe makes.
struct Made {
  graph::Graph graph;
  const graph::Node* node = nullptr;
};
Made made_by(const Recipe& recipe, const std::string& name) {
  Made made{apply(glyphs(), recipe, {{Tensor::rand({8, 1, 28, 28}, 1, 0, 1)}})};
  for (const graph::Node& node : made.graph.nodes())
    if (node.kind == graph::NodeKind::call && node_name(made.graph, node) == name)
      made.node = &node;
  EXPECT_TRUE(made.node) << name;
  return made;
}

Recipe with(Precision precision) {
  Recipe recipe{.mapping = get_default_qconfig()};
  set_precision(recipe, kStemConv, precision);
  return recipe;
}

TEST(Precision, FourBitsAreOfTheWeightAndOfThatLayerOnly) {
  const Made made = made_by(with(Precision::bits4), kStemConv);
  for (const graph::Node& node : made.graph.nodes()) {
    if (node.op != "conv2d") continue;
    const std::vector<int8_t> codes =
        made.graph.constant(node.inputs[1]).int_repr().to_vector<int8_t>();
    const auto [least, most] = std::minmax_element(codes.begin(), codes.end());
    EXPECT_EQ(*most <= 7 && *least >= -8, &node == made.node) << node.scope;
  }
}

TEST(Precision, SixteenBitsAreOfTheResult) {
  const Made made = made_by(with(Precision::bits16), kStemConv);
  EXPECT_EQ(made.graph.type(made.node->outputs[0]).dtype, DType::quint16);
  EXPECT_EQ(made.graph.constant(made.node->inputs[1]).dtype(), DType::qint8);
}

TEST(Precision, InFloatNeitherIsQuantized) {
  const Made made = made_by(with(Precision::float32), kStemConv);
  EXPECT_EQ(made.graph.constant(made.node->inputs[1]).dtype(), DType::float32);
  Recipe twice = with(Precision::float32);
  set_precision(twice, kStemConv, Precision::float32);
  EXPECT_EQ(twice.skip.size(), 1u);
}

TEST(Precision, ALayersOwnEntryIsWhatIsChanged) {
  QConfigMapping mapping = get_default_qconfig();
  change_qconfig(mapping, "a", [](QConfig& q) { q = with_weight_bits(q, 3); });
  change_qconfig(mapping, "a", [](QConfig& q) { q.activation = ObserverFactory("minmax"); });
  ASSERT_EQ(mapping.module_name_qconfigs().size(), 1u);
  const QConfig made = *mapping.module_name_qconfigs()[0].qconfig;
  EXPECT_EQ(made.activation, ObserverFactory("minmax"));
  EXPECT_EQ(made.weight, with_weight_bits(get_default_qconfig(), 3).weight);
  QConfigMapping none;
  testing::expect_error(ErrorCode::not_found, {"no qconfig for a"},
                        [&] { change_qconfig(none, "a", [](QConfig&) {}); });
}

TEST(Precision, BitsOutOfRangeAreAnError) {
  for (const int64_t bits : {1, 9})
    testing::expect_error(ErrorCode::invalid_argument, {"2 to 8"},
                          [&] { with_weight_bits(get_default_qconfig(), bits); });
}

double sum(const std::vector<PrecisionChange>& changes, const std::vector<size_t>& chosen,
           double PrecisionChange::*what) {
  double total = 0;
  for (const size_t i : chosen) total += changes[i].*what;
  return total;
}

TEST(Precision, ChoiceExchangesWhatGreedChose) {
  // By gain for cost a is the first, and leaves no room for b, which alone is better.
  const std::vector<PrecisionChange> changes{{"a", Precision::float32, 3, 2},
                                             {"b", Precision::float32, 10, 9},
                                             {"c", Precision::float32, 1, 1}};
  EXPECT_EQ(greedy_changes(changes, 9), (std::vector<size_t>{0, 2}));
  EXPECT_EQ(choose_changes(changes, 9), (std::vector<size_t>{1}));
  EXPECT_EQ(choose_changes(changes, 10), (std::vector<size_t>{1, 2}));
  EXPECT_EQ(choose_changes(changes, 12).size(), 3u);
  EXPECT_TRUE(choose_changes(changes, 0.5).empty());
}

TEST(Precision, ALayerIsChangedOnce) {
  const std::vector<PrecisionChange> changes{{"a", Precision::bits16, 3, 1},
                                             {"a", Precision::float32, 4, 3},
                                             {"b", Precision::bits16, 0, 1}};
  EXPECT_EQ(choose_changes(changes, 2), (std::vector<size_t>{0}));
  EXPECT_EQ(choose_changes(changes, 9), (std::vector<size_t>{1})) << "float for 16 bits";
  const std::vector<size_t> order = greedy_changes(changes, 9);
  EXPECT_EQ(order, (std::vector<size_t>{0, 1})) << "16 bits first, for they are worth more";
  EXPECT_EQ(changes_after(changes, order, 1), (std::vector<size_t>{0}));
  EXPECT_EQ(changes_after(changes, order, 2), (std::vector<size_t>{1}));
  testing::expect_error(ErrorCode::invalid_argument, {"float for a", "more than 0"}, [] {
    greedy_changes({{"a", Precision::float32, 1, 0}}, 1);
  });
}

TEST(Precision, ChoiceIsWithinTheBudgetAndNearTheBest) {
  const Tensor random = Tensor::rand({20, 10, 2}, 7, 0, 1);
  double shares = 0;
  for (int64_t round = 0; round < 20; ++round) {
    std::vector<PrecisionChange> changes;
    for (int64_t i = 0; i < 10; ++i)
      changes.push_back({"layer" + std::to_string(i / 2),
                         i % 2 ? Precision::float32 : Precision::bits16, random.at({round, i, 0}),
                         0.1 + random.at({round, i, 1})});
    const double budget = 1.2;
    double best = 0;  // of all choices
    for (unsigned set = 0; set < 1024; ++set) {
      std::vector<size_t> chosen;
      bool once = true;
      for (size_t i = 0; i < 10; ++i)
        if (set >> i & 1) chosen.push_back(i), once = once && (i % 2 == 0 || !(set >> (i - 1) & 1));
      if (once && sum(changes, chosen, &PrecisionChange::cost) <= budget)
        best = std::max(best, sum(changes, chosen, &PrecisionChange::gain));
    }
    const std::vector<size_t> chosen = choose_changes(changes, budget);
    EXPECT_LE(sum(changes, chosen, &PrecisionChange::cost), budget);
    const double share = sum(changes, chosen, &PrecisionChange::gain) / best;
    EXPECT_GT(share, 0.7) << round;
    shares += share / 20;
  }
  EXPECT_GT(shares, 0.97);
}

}  // namespace octet::precision_test
