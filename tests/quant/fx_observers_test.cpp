// Which values of a prepared graph share an observer, and which of them it is shown.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "octet/quant/workflow/fx.h"
#include "tests/graph/random_net.h"
#include "tests/graph_text.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;
using testing::image;
using testing::kConvBody;
using testing::parse_body;
using Names = std::set<std::string>;

struct Prepared {
  std::shared_ptr<ObservedGraphModule> model;
  ObservedGraphModule::Watched w;
  explicit Prepared(const std::string& body, DType dtype = DType::quint8)
      : Prepared(body, QConfig{default_observer().with_dtype(dtype), default_weight_observer()}) {}
  Prepared(const std::string& body, const QConfigMapping& mapping)
      : model(prepare_fx(parse_body(body), mapping)), w(model->watched()) {}

  // "" if it has none.
  std::string observer(const std::string& name) const { return w.observer[*w.graph.find(name)]; }
  Names shown(const std::string& name) const {
    Names names;
    for (size_t v = 0; v < w.observer.size(); ++v)
      if (w.observer[v] == observer(name) && w.shown[v])
        names.insert(w.graph.value(static_cast<ValueId>(v)).name);
    return names;
  }
  const Observer& module(const std::string& name) const {
    return model->submodule(observer(name))->as<Observer>();
  }
  bool is_fixed(const std::string& name) const { return module(name).options().scale.has_value(); }
  bool quantized(const std::string& name) const {
    return model->decisions().at(name).mode.has_value();
  }
};

TEST(FxObservers, OperatorsThatKeepQparamsShareOne) {
  Prepared p(kConvBody + image("e", "hardswish(%y)") + image("r", "relu(%e)") +
             image("m", "max_pool2d(%r, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])") +
             "%f: Float(1, 32) = reshape(%m, shape=[1, 32])\n%v: Float(3, 32) = constant\n%z: "
             "Float(1, 3) = linear(%f, %v)\nreturn (%z)");
  for (const char* name : {"r", "m", "f"}) EXPECT_EQ(p.observer(name), p.observer("e")) << name;
  EXPECT_NE(p.observer("x"), p.observer("e"));
  EXPECT_NE(p.observer("z"), p.observer("e"));
  EXPECT_EQ(p.shown("e"), Names{"r"})
      << "what a relu cuts off and what only rearranges are not shown";
}

TEST(FxObservers, CatSharesOneWithItsOperands) {
  Prepared p(kConvBody + image("z", "conv2d(%y, %w)") +
             "%c: Float(1, 4, 4, 4) = cat(%y, %z, dim=1)\nreturn (%c)");
  EXPECT_EQ(p.observer("c"), p.observer("y"));
  EXPECT_EQ(p.observer("c"), p.observer("z"));
  EXPECT_EQ(p.shown("c"), (Names{"y", "z"}));
}

TEST(FxObservers, ResultsThatLeaveTheOperandsRangeAreShownToo) {
  EXPECT_EQ(
      Prepared(
          kConvBody +
          "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=9.)\nreturn (%p)")
          .shown("p"),
      (Names{"y", "p"}));
  EXPECT_EQ(Prepared(kConvBody +
                     "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1])\nreturn (%p)")
                .shown("p"),
            Names{"y"});
  for (const char* range : {"max=3., min=1.", "max=3., min=-1."})
    EXPECT_EQ(Prepared(kConvBody + image("e", "hardswish(%y)") +
                       image("c", std::string("clamp(%e, ") + range + ")") + "return (%c)")
                  .shown("c"),
              Names{"c"})
        << "what the clamp cuts off needs no codes";
}

TEST(FxObservers, BoundedOperatorsHaveFixedQparams) {
  for (DType dtype : {DType::quint8, DType::qint8}) {
    Prepared p(kConvBody + image("s", "sigmoid(%y)") + image("t", "tanh(%y)") + "return (%s, %t)",
               dtype);
    EXPECT_EQ(*p.module("s").calculate_qparams().quantizer,
              *Quantizer::per_tensor(1.0 / 256, dtype == DType::qint8 ? -128 : 0, dtype));
    EXPECT_EQ(*p.module("t").calculate_qparams().quantizer,
              *Quantizer::per_tensor(1.0 / 128, dtype == DType::qint8 ? 0 : 128, dtype));
  }
}

// PyTorch gives all of them the fixed qparams of the first operand, and so clips the others.
TEST(FxObservers, FixedQparamsDoNotSpreadToOtherOperandsOfACat) {
  const std::string sigmoid = image("s", "sigmoid(%y)");
  for (const char* order : {"%y, %s", "%s, %y"}) {
    Prepared p(kConvBody + sigmoid + "%c: Float(1, 4, 4, 4) = cat(" + order +
               ", dim=1)\nreturn (%c)");
    EXPECT_FALSE(p.is_fixed("c")) << order;
    EXPECT_EQ(p.shown("c"), (Names{"s", "y"})) << order;
  }
  Prepared two(kConvBody + sigmoid + image("t", "tanh(%y)") +
               "%c: Float(1, 4, 4, 4) = cat(%s, %t, dim=1)\nreturn (%c)");
  EXPECT_FALSE(two.is_fixed("c")) << "two that differ";
  EXPECT_EQ(two.shown("c"), (Names{"s", "t"}));
  Prepared same(kConvBody + sigmoid + image("h", "hardsigmoid(%y)") +
                "%c: Float(1, 4, 4, 4) = cat(%s, %h, dim=1)\nreturn (%c)");
  EXPECT_TRUE(same.is_fixed("c"));
}

// The default mapping's qconfig of a softmax is of the fixed range of its result, 0..1.
TEST(FxObservers, AFloatOperandOfASoftmaxHasARangeOfItsOwn) {
  Prepared p(kConvBody + image("e", "exp(%y)") + image("s", "softmax(%e, dim=1)") +
                 image("z", "conv2d(%s, %w)") + "return (%z)",
             get_default_qconfig_mapping());
  EXPECT_FALSE(p.is_fixed("e"));
  EXPECT_EQ(p.module("e").type_name(), get_default_qconfig().activation.name());
  EXPECT_TRUE(p.is_fixed("s"));
}

TEST(FxObservers, ConstantsOfAMulStayFloat) {
  Prepared p(kConvBody + "%c: Float(2, 1, 1) = constant [2, -300]\n" + image("z", "mul(%y, %c)") +
             "return (%z)");
  EXPECT_TRUE(p.quantized("z"));
  EXPECT_EQ(p.observer("c"), "");
  EXPECT_NE(p.observer("w"), "");
}

TEST(FxObservers, AConstantOfACatSharesTheScaleOfAllAndIsShown) {
  Prepared p(kConvBody +
             "%c: Float(1, 2, 4, 4) = constant\n%z: Float(1, 4, 4, 4) = cat(%y, %c, "
             "dim=1)\nreturn (%z)");
  EXPECT_EQ(p.observer("c"), p.observer("y"));
  EXPECT_EQ(p.observer("z"), p.observer("y"));
  EXPECT_TRUE(p.shown("z").count("c"));
}

TEST(FxObservers, FunctionsThatJoinHaveNoneBetweenThem) {
  Prepared p(kConvBody + "%a: Float(1) = constant [0.5]\n" + image("m", "mul(%y, %a)") +
             image("h", "hardswish(%m)") + image("z", "conv2d(%h, %w)") + "return (%z)");
  EXPECT_EQ(p.observer("m"), "") << "it is not rounded to codes";
  EXPECT_NE(p.observer("h"), "");
}

TEST(FxObservers, ThePartsOfASplitAreCodesAndWhatFollowsRunsOnThem) {
  Prepared p(
      kConvBody +
      "%a: Float(1, 1, 4, 4), %b: Float(1, 1, 4, 4) = split(%y, dim=1, sizes=[1, 1])\n"
      "%s: Float(1, 1, 4, 4) = sigmoid(%b)\n%z: Float(1, 1, 4, 4) = mul(%a, %s)\nreturn (%z)");
  for (const char* name : {"a", "s", "z"}) EXPECT_TRUE(p.quantized(name)) << name;
  EXPECT_EQ(p.observer("a"), p.observer("y"));
  EXPECT_EQ(p.observer("b"), p.observer("y"));
  EXPECT_EQ(p.shown("y"), Names{"y"});
}

TEST(FxObservers, ResizingAndMaximaKeepTheirOperandsCodes) {
  Prepared p(kConvBody +
             "%u: Float(1, 2, 8, 8) = interpolate(%y, scales=[2., 2.])\n%m: Float(1, 1, 8, 8) = "
             "amax(%u, dim=[1])\nreturn (%m)");
  for (const char* name : {"u", "m"}) EXPECT_EQ(p.observer(name), p.observer("y")) << name;
}

TEST(FxObservers, WithoutALayerTheInputsAreCodes) {
  Prepared p(
      "%x: Float(1, 2) = input\n%z: Float(1, 2) = input\n%c: Float(1, 4) = cat(%x, %z, dim=1)\n%r: "
      "Float(1, 4) = relu(%c)\n%e: Float(1, 4) = exp(%r)\nreturn (%e)");
  EXPECT_TRUE(p.quantized("c"));
  EXPECT_TRUE(p.quantized("r"));
  EXPECT_FALSE(p.quantized("e"));
  EXPECT_EQ(p.observer("x"), p.observer("c"));
}

TEST(FxObservers, KeepersBeforeAQuantizedLayerShareTheInputs) {
  Prepared p(
      "%x: Float(1, 2, 4, 4) = input\n%m: Float(1, 2, 2, 2) = max_pool2d(%x, kernel=[2, 2], "
      "stride=[2, 2])\n%w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
      "%y: Float(1, 2, 2, 2) = conv2d(%m, %w)\nreturn (%y)");
  EXPECT_TRUE(p.quantized("m"));
  EXPECT_EQ(p.observer("m"), p.observer("x"));
}

TEST(FxObservers, AValueThatIsReadAsCodesOfTwoDtypesHasTwo) {
  const Graph g = parse_body(kConvBody + image("z", "conv2d(%x, %w)") + "return (%y, %z)");
  const QConfig is_signed{default_observer().with_dtype(DType::qint8), default_weight_observer()};
  auto prepared =
      prepare_fx(g, QConfigMapping(QConfig{default_observer(), default_weight_observer()})
                        .set_module_name("z", is_signed));
  prepared->forward(Tensor::randn({1, 2, 4, 4}, 1));
  const Graph int8 = convert_fx(prepared)->graph();
  std::set<DType> dtypes;
  for (const Node& node : int8.nodes())
    if (node.op == "quantize" && int8.value(node.inputs[0]).name == "x")
      dtypes.insert(int8.type(node.outputs[0]).dtype);
  EXPECT_EQ(dtypes, (std::set<DType>{DType::quint8, DType::qint8}));
}

TEST(FxObservers, ConstantsAreThoseOfNowOrThoseThatWerePrepared) {
  Prepared p(kConvBody + "return (%y)");
  const ValueId w = *p.w.graph.find("w");
  const Tensor before = p.w.graph.constant(w).clone(), after = Tensor::full({2, 2, 1, 1}, 7);
  for (const auto& [name, parameter] : p.model->named_parameters())
    if (name == "w") std::fill_n(parameter->data<float>(), 4, 7.0F);
  const ObservedGraphModule::Watched now = p.model->watched(),
                                     prepared = p.model->watched_as_prepared();
  EXPECT_TRUE(equal(now.graph.constant(w), after));
  EXPECT_TRUE(equal(prepared.graph.constant(w), before));
  EXPECT_EQ(prepared.observer, now.observer);
  EXPECT_EQ(prepared.shown, now.shown);
  EXPECT_EQ(prepared.source, now.source);
}

TEST(FxObservers, WhatIsQuantizedReadsAndGivesObservedValues) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::shared_ptr<ObservedGraphModule> model;
    try {
      model = prepare_fx(testing::random_net(seed, true, 14), get_default_qconfig());
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("nothing in"), std::string::npos) << e.what();
      continue;
    }
    const ObservedGraphModule::Watched w = model->watched();
    for (const Node& node : w.graph.nodes()) {
      auto at = model->decisions().find(w.graph.value(node.outputs[0]).name);
      if (at == model->decisions().end()) continue;
      const NodeDecision& d = at->second;
      EXPECT_EQ(d.mode.has_value(), d.reason.empty()) << seed;
      if (!d.mode) continue;
      EXPECT_EQ(w.observer[node.outputs[0]].empty(), d.joins_next) << seed;
      const auto made = model->decisions().find(w.graph.value(node.inputs[0]).name);
      const bool joined = made != model->decisions().end() && made->second.joins_next;
      EXPECT_TRUE(!w.observer[node.inputs[0]].empty() || joined) << seed;
    }
  }
}

// The largest value of %y, which is the first one's weights times ones.
double largest(const Prepared& p) { return p.module("y").max_val().item(); }

TEST(FxObservers, AWeightThatIsWrittenIntoCountsFromTheNextCallOn) {
  Prepared p(kConvBody + "return (%y)");
  const Tensor x = Tensor::ones({1, 2, 4, 4});
  p.model->forward({x});
  EXPECT_EQ(largest(p), 3 + 4);
  p.model->tensor("w").data<float>()[3] = 10;
  p.model->forward({x});
  EXPECT_EQ(largest(p), 3 + 10);
}

TEST(FxObservers, FixedWeightsAreLookedAtOnceAndAgainAfterwards) {
  Prepared p(kConvBody + "return (%y)");
  const Tensor x = Tensor::ones({1, 2, 4, 4});
  p.model->forward({x});
  {
    p.model->tensor("w").data<float>()[3] = 10;
    const FixedWeights fixed(*p.model);
    p.model->forward({x});  // what was written before counts
    EXPECT_EQ(largest(p), 3 + 10);
    p.model->tensor("w").data<float>()[3] = 20;  // against the promise
    p.model->forward({x});
    EXPECT_EQ(largest(p), 3 + 10);
  }
  p.model->forward({x});
  EXPECT_EQ(largest(p), 3 + 20);
}

}  // namespace
}  // namespace octet::quant
