// Programs whose sizes are known when they run: symbolic dimensions, and attributes that operands
// give.
#include <gtest/gtest.h>

#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/graph_text.h"

namespace octet::runtime {
namespace {

using graph::Graph;
using testing::expect_error;
using testing::parse_body;

Tensor ints(std::vector<int64_t> values) {
  const auto n = static_cast<int64_t>(values.size());
  return Tensor::from(values, {n});
}

std::vector<std::string> ops_of_steps(const Program& p) {
  std::vector<std::string> names;
  for (const StepInfo& s : p.steps())
    if (s.node >= 0) names.push_back(p.graph().node(s.node).op);
  return names;
}

TEST(RunTimeSizes, AnInputGivesTheShapeOfAReshape) {
  const Program p =
      compile(parse_body("%x: Float(2, 3, 4) = input\n%s: Long(2) = input\n"
                         "%y: Float(y.0, y.1) = reshape(%x, shape=%s)\nreturn (%y)"));
  const Tensor x = Tensor::randn({2, 3, 4}, 1);
  // The shapes of the inputs are the same each time; what they hold is not.
  EXPECT_TRUE(equal(p.run({x, ints({6, 4})})[0], x.reshape({6, 4})));
  EXPECT_TRUE(equal(p.run({x, ints({-1, 12})})[0], x.reshape({2, 12})));
  EXPECT_TRUE(equal(p.run({x, ints({0, -1})})[0], x.reshape({2, 12})));
  EXPECT_TRUE(equal(p.run({x, ints({6, 4})})[0], x.reshape({6, 4})));
}

TEST(RunTimeSizes, AShapeThatDoesNotFitIsAnErrorOfThatRunOnly) {
  const Program p =
      compile(parse_body("%x: Float(2, 3) = input\n%s: Long(1) = input\n"
                         "%y: Float(y.0) = reshape(%x, shape=%s)  @ flat\nreturn (%y)"));
  const Tensor x = Tensor::randn({2, 3}, 1);
  expect_error(ErrorCode::invalid_argument, {"flat", "(2, 3)", "6 elements", "(5)"}, [&] {
    p.run({x, ints({5})});
  });
  EXPECT_TRUE(equal(p.run({x, ints({6})})[0], x.reshape({6})));
}

TEST(RunTimeSizes, WhatDecidesOnSizesIsNoStep) {
  const Program p =
      compile(parse_body("%x: Float(N, 6) = input\n%n: Long(1) = shape(%x, end=1)\n"
                         "%two: Long(1) = constant [2]\n%three: Long(1) = constant [3]\n"
                         "%m: Long(1) = mul(%n, %two)\n%s: Long(2) = cat(%m, %three, dim=0)\n"
                         "%y: Float(N*2, 3) = reshape(%x, shape=%s)\n%z: Float(N*2, 3) = relu(%y)\n"
                         "return (%z)"));
  EXPECT_EQ(ops_of_steps(p), (std::vector<std::string>{"relu"}));
  for (int64_t n : {1, 4, 2})
    EXPECT_EQ(p.run({Tensor::randn({n, 6}, 1)})[0].shape(), (Shape{2 * n, 3}));
}

TEST(RunTimeSizes, SizesThatAreResultsTooAreComputedInTheRun) {
  const Program p =
      compile(parse_body("%x: Float(N, 6) = input\n%s: Long(2) = shape(%x)\n"
                         "%y: Float(N, 6) = reshape(%x, shape=%s)\nreturn (%y, %s)"));
  const auto results = p.run({Tensor::randn({3, 6}, 1)});
  EXPECT_EQ(results[1].to_vector<int64_t>(), (std::vector<int64_t>{3, 6}));
}

TEST(RunTimeSizes, TheDataDecideHowLargeAResultIs) {
  const Program p = compile(
      parse_body("%x: Float(4) = input\n%i: Long(1, i.1) = nonzero(%x)\n%s: Long(2) = shape(%i)\n"
                 "%one: Float() = constant 1\n%y: Float(1, i.1) = expand(%one, shape=%s)\n"
                 "return (%i, %y)"));
  const auto two = p.run({Tensor::from<float>({0, 3, 0, -1})});
  EXPECT_EQ(two[0].to_vector<int64_t>(), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(two[1].shape(), (Shape{1, 2}));
  const auto three = p.run({Tensor::from<float>({1, 1, 0, 1})});
  EXPECT_EQ(three[0].to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(three[1].shape(), (Shape{1, 3}));
}

// A small U-Net: what was halved is brought back to the size that it had.
const char* const kUNet =
    "%x: Float(N, 3, H, W) = input\n%v: Float(4, 3, 3, 3) = constant\n"
    "%w: Float(4, 4, 3, 3) = constant\n%u: Float(2, 8, 1, 1) = constant\n"
    "%a: Float(N, 4, H, W) = conv2d(%x, %v, padding=[1, 1, 1, 1])\n"
    "%b: Float(N, 4, [[H+1]/2], [[W+1]/2]) = conv2d(%a, %w, padding=[1, 1, 1, 1], stride=[2, 2])\n"
    "%s: Long(2) = shape(%a, start=2)\n"
    "%c: Float(N, 4, H, W) = interpolate(%b, coordinates=\"half_pixel\", mode=\"linear\", "
    "size=%s)\n"
    "%d: Float(N, 8, H, W) = cat(%a, %c, dim=1)\n%y: Float(N, 2, H, W) = conv2d(%d, %u)\n"
    "return (%y)";

Graph u_net() {
  return graph::parse(std::string("graph u {\n") + kUNet + "\n}\n",
                      {{"v", Tensor::randn({4, 3, 3, 3}, 1)},
                       {"w", Tensor::randn({4, 4, 3, 3}, 2)},
                       {"u", Tensor::randn({2, 8, 1, 1}, 3)}});
}

// The same graph for one size: every dimension is a number.
Graph at_size(const Graph& g, const Shape& shape) {
  return graph::Rewriter(g).run([&](graph::Rewriter& r, const graph::Node& node) {
    if (node.kind != graph::NodeKind::input) return false;
    r.map(node.outputs[0], r.out().add_input("x", TensorType(DType::float32, shape)));
    return true;
  });
}

TEST(RunTimeSizes, ImagesOfAnySizeGiveTheBitsOfAProgramForThatSize) {
  const Graph g = u_net();
  const Program open = compile(g);
  for (const Shape& shape : {Shape{1, 3, 8, 8}, Shape{2, 3, 7, 12}, Shape{1, 3, 5, 5}}) {
    const Tensor x = Tensor::randn(shape, 5);
    EXPECT_TRUE(equal(open.run({x})[0], compile(at_size(g, shape)).run({x})[0]))
        << to_string(shape);
  }
}

TEST(RunTimeSizes, QuantizedNetworksTakeAnySizeToo) {
  auto prepared = quant::prepare_fx(u_net(), quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 8, 8}, 7)});
  prepared->forward({Tensor::randn({1, 3, 10, 6}, 8)});
  const Graph int8 = quant::convert_fx(prepared)->graph();
  int quantized = 0;
  for (const graph::Node& node : int8.nodes())
    quantized += node.op == "conv2d" && int8.type(node.outputs[0]).is_quantized();
  EXPECT_EQ(quantized, 3);
  const Program native = compile(int8), reference = compile(int8, {.engine = "reference"});
  for (const Shape& shape : {Shape{1, 3, 8, 8}, Shape{2, 3, 7, 12}, Shape{1, 3, 5, 5}}) {
    const Tensor x = Tensor::randn(shape, 5);
    EXPECT_TRUE(equal(native.run({x})[0], reference.run({x})[0])) << to_string(shape);
  }
}

TEST(RunTimeSizes, ASymbolThatTurnsOutToBeOneBroadcasts) {
  const Program p = compile(
      parse_body("%x: Float(A, 8) = input\n%y: Float(B, 8) = input\n%r: Float(A, 8) = relu(%x)\n"
                 "%z: Float([A|B], 8) = add(%r, %y)\n%e: Float([A|B], 8) = exp(%z)\nreturn (%e)"));
  const Tensor one = Tensor::randn({1, 8}, 1), five = Tensor::randn({5, 8}, 2);
  const auto expected = [](const Tensor& x, const Tensor& y) {
    return ops::call("exp", {ops::call("add", {ops::call("relu", {x}), y})});
  };
  EXPECT_TRUE(equal(p.run({one, five})[0], expected(one, five)));
  EXPECT_TRUE(equal(p.run({five, one})[0], expected(five, one)));
  EXPECT_TRUE(equal(p.run({five, five})[0], expected(five, five)));
}

}  // namespace
}  // namespace octet::runtime
