// If, and values in unusual places of a graph.
#include <gtest/gtest.h>

#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

// Branches that read a value of the model around them, both with the same names inside.
Message branch(const std::string& op, const std::string& with = "c") {
  OnnxModel b;
  return b.constant("one", Tensor::scalar(1))
      .node("Add", {with, "one"}, {"inner"})
      .node(op, {"inner"}, {"out"})
      .output("out")
      .graph();
}

OnnxModel with_if(const Message& then_branch, const Message& else_branch) {
  OnnxModel m;
  m.input("x", {"N", 2}).node("Neg", {"x"}, {"c"});
  return m
      .node("If", {"condition"}, {"y"},
            {{"then_branch", then_branch}, {"else_branch", else_branch}}, "if")
      .output("y");
}

Tensor x() { return Tensor::from(std::vector<float>{-4, 3}, {1, 2}); }

TEST(OnnxIf, AKnownConditionTakesOneBranch) {
  for (bool value : {true, false}) {
    OnnxModel m = with_if(branch("Relu"), branch("Abs"));
    graph::Graph g = m.constant("condition", Tensor::scalar(value, DType::bool_)).import();
    EXPECT_EQ(ops_of(g), value ? "neg add relu" : "neg add abs");
    EXPECT_EQ(run_one(g, {x()}).to_vector<float>(),
              value ? (std::vector<float>{5, 0}) : (std::vector<float>{5, 2}));
  }
}

TEST(OnnxIf, AnUnknownConditionChoosesAtRunTime) {
  for (bool vector : {false, true}) {
    OnnxModel m = with_if(branch("Relu"), branch("Abs"));
    m.input("condition", vector ? std::vector<OnnxDim>{1} : std::vector<OnnxDim>{}, kBool);
    graph::Graph g = m.import();
    for (bool value : {true, false}) {
      Tensor condition = Tensor::scalar(value, DType::bool_);
      if (vector) condition = condition.reshape({1});
      EXPECT_EQ(runtime::compile(g).run({x(), condition})[0].to_vector<float>(),
                value ? (std::vector<float>{5, 0}) : (std::vector<float>{5, 2}));
    }
  }
}

TEST(OnnxIf, BranchesInBranches) {
  OnnxModel inner;
  inner
      .node("If", {"condition"}, {"deep"},
            {{"then_branch", branch("Neg")}, {"else_branch", branch("Abs")}})
      .output("deep");
  OnnxModel m = with_if(inner.graph(), branch("Relu"));
  graph::Graph g = m.constant("condition", Tensor::scalar(true, DType::bool_)).import();
  EXPECT_EQ(run_one(g, {x()}).to_vector<float>(), (std::vector<float>{-5, 2}));
}

TEST(OnnxIf, ABranchOfConstantsOrOfAValueAround) {
  OnnxModel constant, around;
  constant.constant("k", Tensor::from(std::vector<float>{7, 8}, {1, 2})).output("k");
  around.output("c");
  OnnxModel m = with_if(constant.graph(), around.graph());
  m.constant("condition", Tensor::scalar(true, DType::bool_));
  EXPECT_EQ(runtime::compile(m.import()).run({x()})[0].to_vector<float>(),
            (std::vector<float>{7, 8}));
  OnnxModel other = with_if(constant.graph(), around.graph());
  other.constant("condition", Tensor::scalar(false, DType::bool_));
  EXPECT_EQ(runtime::compile(other.import()).run({x()})[0].to_vector<float>(),
            (std::vector<float>{4, -3}));
}

TEST(OnnxIf, WhatCannotBeIsNamed) {
  OnnxModel scalar;
  scalar.constant("k", Tensor::scalar(7)).output("k");
  OnnxModel shapes = with_if(scalar.graph(), branch("Relu"));
  expect_error(
      ErrorCode::unsupported,
      {"If with a condition known only at run time and branches that give Float() and Float(N, 2)",
       "\"if\""},
      [&] { shapes.input("condition", {}, kBool).import(); });
  OnnxModel inside = with_if(branch("MaxRoiPool"), branch("Relu"));
  expect_error(ErrorCode::unsupported, {"1 operator is not supported: MaxRoiPool (node \"out\")"},
               [&] { inside.input("condition", {}, kBool).import(); });
  OnnxModel many = with_if(branch("Relu"), branch("Relu"));
  expect_error(ErrorCode::corrupt, {"'if' (If)", "its condition is Bool(2); expected one bool"},
               [&] { many.input("condition", {2}, kBool).import(); });
  OnnxModel missing;
  missing.input("condition", {}, kBool).node("If", {"condition"}, {"y"}, {}, "if").output("y");
  expect_error(ErrorCode::corrupt, {"'then_branch' is missing"}, [&] { missing.import(); });
}

TEST(OnnxGraphs, InputsConstantsAndTheSameValueAsOutputs) {
  OnnxModel m;
  m.input("x", {"N", 2})
      .constant("k", floats({1, 2}))
      .node("Relu", {"x"}, {"y"})
      .node("Identity", {"y"}, {"y2"});
  graph::Graph g = m.output("x").output("y").output("y2").output("k").import();
  auto check = [](const graph::Graph& graph) {
    std::map<std::string, Tensor> got = runtime::compile(graph).run({{"x", x()}});
    EXPECT_EQ(got.at("x").to_vector<float>(), (std::vector<float>{-4, 3}));
    EXPECT_EQ(got.at("y").to_vector<float>(), (std::vector<float>{0, 3}));
    EXPECT_EQ(got.at("y2").to_vector<float>(), (std::vector<float>{0, 3}));
  };
  check(g);
  check(io::import_onnx_bytes(io::to_onnx_bytes(g)));
}

}  // namespace
}  // namespace octet::testing
