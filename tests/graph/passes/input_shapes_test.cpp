#include "octet/graph/passes/input_shapes.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::kOpenSize;

// Two inputs that share N.
graph::Graph two_inputs() {
  return graph::parse(
      "graph net {\n"
      "  %x: Float(N, T, 4) = input\n"
      "  %y: Float(N, 4) = input\n"
      "  %a: Float(N, T, 4) = relu(%x)\n"
      "  %b: Float(N, 4) = relu(%y)\n"
      "  return (%a, %b)\n"
      "}\n");
}

std::string type_of(const graph::Graph& g, const std::string& value) {
  return to_string(g.type(*g.find(value)));
}

TEST(InputShapes, ANameGetsItsSizeEverywhereAndTypesFollow) {
  const graph::Graph g = graph::with_input_shapes(two_inputs(), {{"x", {2, 7, 4}}});
  g.check();
  EXPECT_EQ(type_of(g, "a"), "Float(2, 7, 4)");
  EXPECT_EQ(type_of(g, "y"), "Float(2, 4)");
  EXPECT_EQ(type_of(g, "b"), "Float(2, 4)");
  EXPECT_EQ(g.name, "net");
}

TEST(InputShapes, AnOpenSizeStaysOpen) {
  const graph::Graph g = graph::with_input_shapes(two_inputs(), {{"x", {kOpenSize, 7, 4}}});
  EXPECT_EQ(type_of(g, "a"), "Float(N, 7, 4)");
  EXPECT_EQ(type_of(g, "b"), "Float(N, 4)");
  EXPECT_EQ(graph::print(graph::with_input_shapes(two_inputs(), {})), graph::print(two_inputs()));
}

TEST(InputShapes, TheOnlyInputNeedsNoName) {
  const graph::Graph one = graph::parse(
      "graph net {\n  %x: Float(N, 4) = input\n  %a: Float(N, 4) = relu(%x)\n  return (%a)\n}\n");
  EXPECT_EQ(type_of(graph::with_input_shapes(one, {{"", {3, 4}}}), "a"), "Float(3, 4)");
  expect_error(ErrorCode::invalid_argument, {"models with one input", "2: x, y"}, [&] {
    graph::with_input_shapes(two_inputs(), {{"", {3, 4}}});
  });
}

TEST(InputShapes, WhatDoesNotFitIsNamed) {
  const auto expect = [&](ErrorCode code, const graph::InputShapes& shapes,
                          const std::vector<std::string>& parts) {
    expect_error(code, parts, [&] { graph::with_input_shapes(two_inputs(), shapes); });
  };
  expect(ErrorCode::invalid_argument, {{"x", {2, 7, 5}}},
         {"input 'x'", "expected (N, T, 4), got (2, 7, 5)", "dimension 2 is fixed at 4"});
  expect(ErrorCode::invalid_argument, {{"x", {2, 4}}},
         {"input 'x'", "expected (N, T, 4), got (2, 4)", "3 dimensions, the shape has 2"});
  expect(ErrorCode::invalid_argument, {{"x", {2, kOpenSize, 4}}, {"y", {3, 4}}},
         {"input 'y'", "got (3, 4)", "N is 2 elsewhere"});
  expect(ErrorCode::invalid_argument, {{"x", {0, 7, 4}}}, {"got (0, 7, 4)", "1 or more"});
  expect(ErrorCode::not_found, {{"z", {2, 4}}}, {"z", "the inputs are: x, y"});
}

}  // namespace
}  // namespace octet::testing
