#include "octet/graph/passes/mixed_operands.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "octet/runtime/program.h"
#include "tests/graph_text.h"

namespace octet::graph {
namespace {

using octet::testing::parse_body;

Tensor bytes(const Shape& shape, DType dtype, double scale, int64_t zero_point) {
  Tensor t = Tensor::empty(shape, dtype, Quantizer::per_tensor(scale, zero_point, dtype));
  for (int64_t i = 0; i < t.numel(); ++i)
    static_cast<uint8_t*>(t.raw_data())[i] = static_cast<uint8_t>(i * 37);
  return t;
}

// The codes of an activation with `op` and a constant of the other signedness, broadcast over it.
Graph network(const std::string& op, bool constant_first) {
  return parse_body(
      fmt::format("%x: QUInt8(64, 40) scale=0.0625 zero_point=120 = input\n"
                  "%c: QInt8(40) scale=0.25 zero_point=-3 = constant\n"
                  "%y: QUInt8(64, 40) scale=0.07 zero_point=100 = {}({})\nreturn (%y)",
                  op, constant_first ? "%c, %x" : "%x, %c"),
      {{"c", bytes({40}, DType::qint8, 0.25, -3)}});
}

TEST(MixedOperands, TheConstantTakesTheActivationsDtypeAndTheResultItsBits) {
  const Tensor x = bytes({64, 40}, DType::quint8, 0.0625, 120);
  for (const char* op : {"add", "sub", "mul"})
    for (bool constant_first : {false, true}) {
      const Graph g = network(op, constant_first), matched = settle_mixed_operands(g);
      EXPECT_NO_THROW(matched.check());
      const Node& node = matched.producer(matched.outputs()[0]);
      const ValueId constant = node.inputs[constant_first ? 0 : 1];
      EXPECT_EQ(matched.type(constant).dtype, DType::quint8);
      EXPECT_EQ(matched.type(constant).quantizer->zero_point(), 125);
      EXPECT_TRUE(equal(
          matched.constant(constant).dequantize(),
          g.constant(g.producer(g.outputs()[0]).inputs[constant_first ? 0 : 1]).dequantize()));
      EXPECT_EQ(matched.value(matched.outputs()[0]).name, "y");
      const Tensor expected = runtime::compile(g, {.engine = "reference", .every_value = true})
                                  .run({x})[0],
                   got = runtime::compile(matched, {.every_value = true}).run({x})[0];
      EXPECT_TRUE(equal(got, expected)) << op << constant_first;
    }
}

TEST(MixedOperands, CompiledProgramsComputeOnCodes) {
  const runtime::Program program = runtime::compile(network("add", false));
  EXPECT_EQ(program.steps().back().kernel.find("in float"), std::string::npos)
      << program.steps().back().kernel;
}

// Floats that are broadcast over codes in several ways, as either operand.
TEST(MixedOperands, CodesAndFloatsAreAddedAtOnce) {
  const Tensor x = bytes({3, 8, 5, 7}, DType::quint8, 0.0625, 120);
  for (const Shape& floats : {Shape{3, 8, 5, 7}, Shape{7}, Shape{8, 1, 1}, Shape{3, 1, 5, 1}})
    for (bool floats_first : {false, true}) {
      const Graph g =
          parse_body(fmt::format("%x: QUInt8(3, 8, 5, 7) scale=0.0625 zero_point=120 = input\n"
                                 "%c: Float({}) = constant\n"
                                 "%f: Float(3, 8, 5, 7) = dequantize(%x)\n"
                                 "%s: Float(3, 8, 5, 7) = add({})\n"
                                 "%y: QUInt8(3, 8, 5, 7) scale=0.07 zero_point=100 = quantize(%s)\n"
                                 "return (%y)",
                                 fmt::join(floats, ", "), floats_first ? "%c, %f" : "%f, %c"),
                     {{"c", Tensor::randn(floats, 1)}});
      const Graph settled = settle_mixed_operands(g);
      EXPECT_NO_THROW(settled.check());
      const Node& node = settled.producer(settled.outputs()[0]);
      EXPECT_EQ(node.op, "add");
      EXPECT_EQ(settled.type(node.inputs[floats_first ? 1 : 0]).dtype, DType::quint8);
      EXPECT_EQ(settled.value(settled.outputs()[0]).name, "y");
      const runtime::Program program = runtime::compile(g);
      EXPECT_EQ(program.steps().size(), 1u);
      EXPECT_EQ(program.steps()[0].kernel.find("add floats to codes"), 0u)
          << program.steps()[0].kernel;
      EXPECT_TRUE(
          equal(program.run({x})[0],
                runtime::compile(g, {.engine = "reference", .every_value = true}).run({x})[0]))
          << to_string(floats) << floats_first;
    }
}

TEST(MixedOperands, ASumThatIsReadAsFloatsTooStays) {
  const Graph g = parse_body(
      "%x: QUInt8(64, 40) scale=0.0625 zero_point=120 = input\n%c: Float(40) = constant\n"
      "%f: Float(64, 40) = dequantize(%x)\n%s: Float(64, 40) = add(%f, %c)\n"
      "%y: QUInt8(64, 40) scale=0.07 zero_point=100 = quantize(%s)\nreturn (%y, %s)",
      {{"c", Tensor::randn({40}, 1)}});
  EXPECT_EQ(print(settle_mixed_operands(g)), print(g));
}

TEST(MixedOperands, WhatHasOneDtypeAlreadyStays) {
  const std::string body =
      "%x: QInt8(64, 40) scale=0.0625 zero_point=0 = input\n"
      "%c: QInt8(40) scale=0.25 zero_point=-3 = constant\n"
      "%y: QInt8(64, 40) scale=0.07 zero_point=0 = add(%x, %c)\nreturn (%y)";
  const Graph g = parse_body(body, {{"c", bytes({40}, DType::qint8, 0.25, -3)}});
  EXPECT_EQ(print(settle_mixed_operands(g)), print(g));
}

}  // namespace
}  // namespace octet::graph
