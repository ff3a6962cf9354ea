#include "octet/graph/trace.h"

#include <gtest/gtest.h>

#include "octet/io/module_file.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::trace_test {

using graph::GraphModule;
using graph::NodeKind;
using graph::print;
using graph::trace;
using graph::TraceOptions;
using testing::expect_error;
namespace F = functional;

TensorType images() { return {DType::float32, {Dim("N"), 3, 8, 8}}; }

// One line per call: what, of what.
std::string calls(const graph::Graph& g) {
  std::string text;
  for (const auto& node : g.nodes()) {
    if (node.kind == NodeKind::input || node.kind == NodeKind::constant) continue;
    text += (text.empty() ? "" : " ") +
            std::string(node.kind == NodeKind::module ? "module " : "") + node.op;
    if (!node.scope.empty()) text += "@" + node.scope;
  }
  return text;
}

struct Block : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 3, 3, {.padding = 1}));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return F::relu(x + relu(conv(x))); }
};
OCTET_MODULE(Block)

struct Net : nn::Module {
  nn::Slot block = slot("block", Block());
  nn::Slot pool = slot("pool", nn::Sequential(nn::MaxPool2d(2), nn::ReLU()));
  nn::Slot fc = slot("fc", nn::Linear(3 * 16, 5));
  nn::Parameter scale = parameter("scale", Tensor::full({5}, 0.5));
  Tensor forward(Tensor x) override { return fc(pool(block(x)).flatten(1)) * scale; }
};

TEST(Trace, LayersStayModuleCallsAndOperatorsAndUsersModulesAreFollowed) {
  auto model = nn::make<Net>();
  auto traced = trace(*model, {images()});
  EXPECT_EQ(calls(traced->graph()),
            "module Conv2d@block.conv module ReLU@block.relu add@block relu@block module "
            "MaxPool2d@pool.0 module ReLU@pool.1 flatten "
            "module Linear@fc mul");
  EXPECT_EQ(to_string(traced->graph().type(traced->graph().outputs()[0])), "Float(N, 5)");
}

TEST(Trace, ATracedModelComputesWhatTheModelDoesForAnyBatch) {
  auto model = nn::make<Net>();
  model->eval();
  auto traced = trace(*model, {images()});
  for (int64_t n : {1, 2, 5}) {
    Tensor x = Tensor::randn({n, 3, 8, 8}, 3);
    EXPECT_TRUE(equal((*traced)(x), (*model)(x)));
  }
}

TEST(Trace, ModulesAndParametersAreSharedAndKeepTheirPaths) {
  auto model = nn::make<Net>();
  auto traced = trace(*model, {images()});
  EXPECT_EQ(traced->submodule("block.conv"), model->submodule("block.conv"));
  std::vector<std::string> names, expected;
  for (auto& [name, tensor] : traced->state_dict()) names.push_back(name);
  for (auto& [name, tensor] : model->state_dict()) expected.push_back(name);
  EXPECT_EQ(names, expected);
  EXPECT_EQ(traced->tensor("scale").id(), model->scale.id());
}

TEST(Trace, IntoLayersGivesAGraphOfOperatorsThatCompiles) {
  auto model = nn::make<Net>();
  model->eval();
  graph::Graph g = trace(*model, {images()})->to_graph();
  EXPECT_FALSE(g.has_modules());
  EXPECT_NO_THROW(g.check());
  EXPECT_TRUE(g.find("block.conv.weight").has_value());
  Tensor x = Tensor::randn({3, 3, 8, 8}, 4);
  EXPECT_TRUE(allclose(runtime::compile(g).run({x})[0], (*model)(x).detach(), 1e-5, 1e-6));
}

TEST(Trace, TextOfATracedGraphReadsBack) {
  auto model = nn::make<Net>();
  std::string text = print(trace(*model, {images()})->graph(), {.full = true});
  EXPECT_NE(text.find("%block.conv: Float(N, 3, 8, 8) = module Conv2d(%x)  @ block.conv"),
            std::string::npos)
      << text;
  EXPECT_EQ(print(graph::parse(text), {.full = true}), text);
}

TEST(Trace, ASavedTracedModelLoadsWithItsModulesAndTypes) {
  auto model = nn::make<Net>();
  model->eval();
  auto traced = trace(*model, {images()});
  testing::TempDir dir;
  save_model(dir / "traced.octet", *traced);
  auto loaded = load_model(dir / "traced.octet");
  auto& module = loaded->as<GraphModule>();
  EXPECT_EQ(print(module.graph()), print(traced->graph()));
  Tensor x = Tensor::randn({2, 3, 8, 8}, 5);
  EXPECT_TRUE(equal((*loaded)(x), (*traced)(x)));
}

struct Reads : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 3, 1));
  Tensor forward(Tensor x) override {
    Tensor y = F::relu(conv(x));
    return F::sum(y).item() > 0 ? y : x;
  }
};
struct Outer : nn::Module {
  nn::Slot inner = slot("inner", Reads());
  Tensor forward(Tensor x) override { return inner(x); }
};

TEST(Trace, ControlFlowOnATracedValueNamesTheOperatorThePathTheLineAndTheWaysOut) {
  auto model = nn::make<Outer>();
  expect_error(ErrorCode::invalid_argument,
               {"'inner' (Reads)", "trace_test.cpp:", "the result of sum in 'inner'", "leaf",
                "set_non_traceable"},
               [&] { trace(*model, {images()}); });
}

TEST(Trace, ALeafIsNotFollowedAndItsTypesAreFoundByRunningIt) {
  auto model = nn::make<Outer>();
  TraceOptions options;
  options.leaf_modules = {"inner"};
  auto traced = trace(*model, {images()}, options);
  EXPECT_EQ(calls(traced->graph()), "module Reads@inner");
  EXPECT_EQ(to_string(traced->graph().type(traced->graph().outputs()[0])), "Float(N, 3, 8, 8)");
  TraceOptions by_class;
  by_class.leaf_classes.insert(typeid(Reads));
  EXPECT_EQ(calls(trace(*model, {images()}, by_class)->graph()), "module Reads@inner");
  TraceOptions wrong;
  wrong.leaf_modules = {"iner"};
  expect_error(ErrorCode::not_found, {"'iner'", "inner"},
               [&] { trace(*model, {images()}, wrong); });
}

struct BySize : nn::Module {
  std::function<Tensor(Tensor)> fn;
  Tensor forward(Tensor x) override { return fn(x); }
};

TEST(Trace, SizesThatTheModelReadsStayOpenWhereTheGraphCanSayThem) {
  auto model = nn::make<BySize>();
  TensorType type(DType::float32, {Dim("N"), 4, 6});
  auto type_of = [&](std::function<Tensor(Tensor)> fn) {
    model->fn = std::move(fn);
    auto traced = trace(*model, {type});
    Tensor x = Tensor::randn({5, 4, 6}, 1);
    EXPECT_TRUE(equal((*traced)(x), model->fn(x)));
    return to_string(traced->graph().type(traced->graph().outputs()[0]));
  };
  EXPECT_EQ(type_of([](Tensor x) { return x.reshape({x.size(0), -1}); }), "Float(N, 24)");
  EXPECT_EQ(type_of([](Tensor x) { return x.reshape({x.size(0) * 4, 6}); }), "Float(N*4, 6)");
  EXPECT_EQ(type_of([](Tensor x) { return x.slice(0, 0, x.size(0)); }), "Float(N, 4, 6)");
  EXPECT_EQ(type_of([](Tensor x) { return x.select(0, -1); }), "Float(4, 6)");
  EXPECT_EQ(type_of([](Tensor x) {
              return x.slice(1, 0, 1).expand({x.size(0), 4, 6}) + x;
            }),
            "Float(N, 4, 6)");
}

TEST(Trace, WhatDependsOnASizeOtherwiseIsAnErrorThatSaysSo) {
  auto model = nn::make<BySize>();
  TensorType type(DType::float32, {Dim("N"), 4});
  model->fn = [](Tensor x) { return x / static_cast<double>(x.size(0)); };
  expect_error(ErrorCode::unsupported, {"depends on a size", "N=2", "N=3"},
               [&] { trace(*model, {type}); });
  model->fn = [](Tensor x) {
    for (int64_t i = 0; i < x.size(0); ++i) x = F::relu(x);
    return x;
  };
  expect_error(ErrorCode::unsupported, {"depends on a size", "N=2"},
               [&] { trace(*model, {type}); });
  // With example inputs such a model is traced for their size.
  auto fixed = trace(*model, std::vector<Tensor>{Tensor::ones({4, 4})});
  EXPECT_EQ(calls(fixed->graph()), "relu relu relu relu");
  EXPECT_EQ(to_string(fixed->graph().type(fixed->graph().outputs()[0])), "Float(4, 4)");
}

struct TwoByTwo : nn::Module {
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    Tensor sum = in[0] + in[1];
    return {sum, in.size() > 2 && in[2].defined() ? sum * in[2] : sum};
  }
};

TEST(Trace, SeveralInputsAndOutputsAndOptionalOnes) {
  auto model = nn::make<TwoByTwo>();
  TensorType type(DType::float32, {Dim("N"), 4});
  auto two = trace(*model, {type, type});
  EXPECT_EQ(calls(two->graph()), "add");
  EXPECT_EQ(two->graph().outputs().size(), 2u);
  auto three = trace(*model, {type, type, type});
  EXPECT_EQ(calls(three->graph()), "add mul");
}

TEST(Trace, AModuleCalledTwiceIsOneModuleAndTwoCalls) {
  struct Twice : nn::Module {
    nn::Slot fc = slot("fc", nn::Linear(4, 4));
    Tensor forward(Tensor x) override { return fc(fc(x)); }
  };
  auto traced = trace(*nn::make<Twice>(), {TensorType(DType::float32, {Dim("N"), 4})});
  EXPECT_EQ(calls(traced->graph()), "module Linear@fc module Linear@fc");
}

TEST(Trace, RecurrentLayersAndAttentionAreCallsWithSeveralResults) {
  struct Tagger : nn::Module {
    nn::Slot lstm = slot("lstm", nn::LSTM(4, 3, {.bidirectional = true}));
    nn::Slot fc = slot("fc", nn::Linear(6, 2));
    Tensor forward(Tensor x) override { return fc(lstm(std::vector<Tensor>{x}).at(0)); }
  };
  auto traced = trace(*nn::make<Tagger>(), {TensorType(DType::float32, {Dim("T"), Dim("N"), 4})});
  EXPECT_EQ(to_string(traced->graph().type(traced->graph().outputs()[0])), "Float(T, N, 2)");
}

TEST(Trace, TrainingModeIsTracedWithoutMovingStatistics) {
  struct Normed : nn::Module {
    nn::Slot bn = slot("bn", nn::BatchNorm2d(3));
    nn::Slot drop = slot("drop", nn::Dropout(0.5));
    Tensor forward(Tensor x) override { return drop(bn(x)); }
  };
  auto model = nn::make<Normed>();
  Tensor before = model->state_dict().at("bn.running_var").clone();
  auto traced = trace(*model, {images()});
  EXPECT_EQ(calls(traced->graph()), "module BatchNorm2d@bn module Dropout@drop");
  EXPECT_TRUE(equal(model->state_dict().at("bn.running_var"), before));
  EXPECT_TRUE(traced->training());
}

// -- users' own value types -----------------------------------------------------------------------

struct Points {
  Tensor features, indices;
};

}  // namespace octet::trace_test

template <>
struct octet::nn::Value<octet::trace_test::Points> {
  static std::vector<Tensor> tensors(const trace_test::Points& p) {
    return {p.features, p.indices};
  }
  static trace_test::Points from(const std::vector<Tensor>& t) { return {t.at(0), t.at(1)}; }
  static std::vector<std::string> names() { return {"features", "indices"}; }
};

namespace octet::trace_test {

// Keeps the points whose first feature is positive: how many depends on the numbers.
struct Keep : nn::ValueModule<Points> {
  Points forward_value(Points p) override {
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < p.features.size(0); ++i)
      if (p.features.at({i, 0}) > 0) kept.push_back(i);
    Tensor index = Tensor::from(kept, {static_cast<int64_t>(kept.size())});
    return {ops::call("index_select", {p.features, index}, {{"dim", 0}}),
            ops::call("index_select", {p.indices, index}, {{"dim", 0}})};
  }
  std::optional<std::vector<TensorType>> infer(const std::vector<TensorType>& in) const override {
    return std::vector<TensorType>{{in[0].dtype, {Dim("kept"), in[0].dims[1]}},
                                   {in[1].dtype, {Dim("kept"), in[1].dims[1]}}};
  }
};
struct Cloud : nn::Module {
  nn::Slot keep = slot("keep", Keep());
  nn::Slot fc = slot("fc", nn::Linear(3, 2));
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    Points p = keep.call<Points>(Points{in[0], in[1]});
    return {fc(p.features), p.indices};
  }
};

TEST(Trace, UsersValueTypesAreTakenApartAndSizesThatDependOnNumbersHaveNames) {
  auto model = nn::make<Cloud>();
  TraceOptions options;
  options.leaf_classes.insert(typeid(Keep));
  auto traced = trace(
      *model, {TensorType(DType::float32, {Dim("P"), 3}), TensorType(DType::int64, {Dim("P"), 2})},
      options);
  std::string text = print(traced->graph());
  EXPECT_NE(text.find("%keep.features: Float(keep.kept, 3), %keep.indices: Long(keep.kept, 2) = "
                      "module Keep(%x0, %x1)  @ keep"),
            std::string::npos)
      << text;
  EXPECT_EQ(to_string(traced->graph().type(traced->graph().outputs()[0])), "Float(keep.kept, 2)");
  std::vector<Tensor> in{Tensor::randn({7, 3}, 2), Tensor::arange(14).reshape({7, 2})};
  auto a = (*model)(in), b = (*traced)(in);
  EXPECT_TRUE(equal(a[0], b[0]) && equal(a[1], b[1]));
}

TEST(Trace, AModuleThatSaysItsTypesIsNotFollowed) {
  auto model = nn::make<Cloud>();
  model->eval();
  auto traced = trace(
      *model, {TensorType(DType::float32, {Dim("P"), 3}), TensorType(DType::int64, {Dim("P"), 2})});
  EXPECT_NE(print(traced->graph()).find("= module Keep(%x0, %x1)  @ keep"), std::string::npos)
      << print(traced->graph());
  // Nor in the graph of operators.
  const std::string text = print(traced->to_graph());
  EXPECT_NE(text.find("= module Keep(%x0, %x1)  @ keep"), std::string::npos) << text;
  EXPECT_NE(text.find(" = linear(%keep.features, "), std::string::npos) << text;
}

}  // namespace octet::trace_test
