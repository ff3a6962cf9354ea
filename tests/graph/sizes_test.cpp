// What a graph knows of sizes before it runs, and attributes that operands give.
#include <gtest/gtest.h>

#include "octet/graph/graph.h"
#include "tests/expect_error.h"

namespace octet::graph {
namespace {

using testing::expect_error;

std::string dims_of(const Graph& g, const char* name) { return to_string(g.type(*g.find(name))); }

TEST(GraphSizes, ArithmeticOnShapesGivesTheTypeOfAReshape) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), 4, Dim("H"), 6}));
  const auto number = [&](int64_t v) {
    return g.add_constant("c", Tensor::from(std::vector<int64_t>{v}, {1}));
  };
  const ValueId n = g.add_call("n", "shape", {x}, {{"end", int64_t{1}}}),
                h = g.add_call("h", "shape", {x}, {{"start", int64_t{2}}, {"end", int64_t{3}}}),
                half = g.add_call("half", "div", {h, number(2)}),
                twice = g.add_call("twice", "mul", {n, number(8)}),
                list = g.add_call("list", "cat", {twice, half, number(6)}, {{"dim", int64_t{0}}});
  g.add_call("y", "reshape", {x, list}, {{"shape", FromOperand{1}}});
  EXPECT_EQ(dims_of(g, "y"), "Float(N*8, [H/2], 6)");
  g.set_outputs({*g.find("y")});
  g.check();
}

TEST(GraphSizes, WhatIsNotKnownHasANameOfItsOwn) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, Shape{2, 3})),
                s = g.add_input("s", TensorType(DType::int64, Shape{2}));
  g.add_call("y", "reshape", {x, s}, {{"shape", FromOperand{1}}});
  g.add_call("z", "reshape", {x, s}, {{"shape", FromOperand{1}}});
  EXPECT_EQ(dims_of(g, "y"), "Float(y.0, y.1)");
  EXPECT_EQ(dims_of(g, "z"), "Float(z.0, z.1)");
}

TEST(GraphSizes, TextKeepsAttributesThatOperandsGive) {
  const std::string text =
      "graph g {\n  %x: Float(N, 8) = input\n  %a: Long() = input\n  %b: Long() = input\n"
      "  %y: Float(N, y.1) = slice(%x, dim=1, end=%b, start=%a)\n  return (%y)\n}\n";
  const Graph g = parse(text, {});
  EXPECT_EQ(print(g, {.full = true}), text);
  EXPECT_EQ(g.producer(*g.find("y")).inputs.size(), 3u);
}

TEST(GraphSizes, ARewrittenGraphIsTheSame) {
  const std::string text =
      "graph g {\n  %x: Float(N, 3, H, W) = input\n  %s: Long(2) = input\n"
      "  %y: Float(N, 3, y.2, y.3) = interpolate(%x, size=%s)\n  return (%y)\n}\n";
  const Graph g = parse(text, {});
  EXPECT_EQ(print(Rewriter(g).run([](Rewriter&, const Node&) { return false; }), {.full = true}),
            text);
}

TEST(GraphSizes, OnlySomeAttributesCanBeGiven) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1, 2, 4, 4})),
                s = g.add_input("s", TensorType(DType::int64, Shape{2})),
                f = g.add_input("f", TensorType(DType::float32, Shape{2}));
  expect_error(ErrorCode::invalid_argument, {"max_pool2d", "'kernel' must be known before it runs"},
               [&] {
                 g.add_call("y", "max_pool2d", {x, s}, {{"kernel", FromOperand{1}}});
               });
  expect_error(ErrorCode::invalid_argument, {"'shape' is Float(2)", "expected integers"}, [&] {
    g.add_call("y", "reshape", {x, f}, {{"shape", FromOperand{1}}});
  });
  expect_error(ErrorCode::invalid_argument, {"'shape' is operand 1, which is missing"}, [&] {
    g.add_call("y", "reshape", {x}, {{"shape", FromOperand{1}}});
  });
}

TEST(GraphSizes, WindowsOverSymbolicSizesComposeToOneDivision) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {1, 2, Dim("H"), 9})),
                w = g.add_constant("w", Tensor::zeros({2, 2, 3, 3}));
  const std::vector<int64_t> ones{1, 1, 1, 1}, two{2, 2};
  ValueId y = x;
  for (int i = 0; i < 3; ++i)
    y = g.add_call("y", "conv2d", {y, w}, {{"padding", ones}, {"stride", two}});
  EXPECT_EQ(to_string(g.type(y)), "Float(1, 2, [[H+7]/8], 2)");
}

}  // namespace
}  // namespace octet::graph
