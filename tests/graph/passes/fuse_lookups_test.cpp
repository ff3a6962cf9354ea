#include "octet/graph/passes/fuse_lookups.h"

#include <gtest/gtest.h>

#include "octet/runtime/program.h"

namespace octet::graph {
namespace {

constexpr const char* kGelu = R"(graph gelu {
  %x: QUInt8(2, 300) scale=0.02 zero_point=131 = input
  %root: Float() = constant 1.4142135
  %one: Float() = constant 1
  %half: Float() = constant 0.5
  %f: Float(2, 300) = dequantize(%x)
  %d: Float(2, 300) = div(%f, %root)
  %e: Float(2, 300) = erf(%d)
  %eq: QUInt8(2, 300) scale=0.0078 zero_point=128 = quantize(%e)
  %ed: Float(2, 300) = dequantize(%eq)
  %a: Float(2, 300) = add(%ed, %one)
  %m: Float(2, 300) = mul(%f, %a)
  %h: Float(2, 300) = mul(%m, %half)
  %y: QUInt8(2, 300) scale=0.01 zero_point=17 = quantize(%h)
  return (%y)
}
)";

TEST(FuseLookups, AFunctionOfOneCodeBecomesATable) {
  Graph fused = fuse_lookups(parse(kGelu));
  std::string ops;
  for (const Node& node : fused.nodes())
    if (node.kind == NodeKind::call) ops += node.op + " ";
  EXPECT_EQ(ops, "lookup ");
  EXPECT_NO_THROW(fused.check());
  EXPECT_EQ(fused.value(fused.outputs()[0]).name, "y");
}

TEST(FuseLookups, TheTableHoldsWhatTheOperatorsCompute) {
  Graph g = parse(kGelu);
  std::vector<uint8_t> codes(600);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7);
  Tensor x = make_quantized(Tensor::from(codes, {2, 300}), g.type(g.inputs()[0]).quantizer);
  std::vector<Tensor> values(g.values().size());  // operator by operator
  values[static_cast<size_t>(g.inputs()[0])] = x;
  for (const Node& node : g.nodes()) {
    if (node.kind == NodeKind::constant) values[static_cast<size_t>(node.outputs[0])] = node.value;
    if (node.kind != NodeKind::call) continue;
    std::vector<Tensor> operands;
    for (ValueId v : node.inputs) operands.push_back(values[static_cast<size_t>(v)]);
    values[static_cast<size_t>(node.outputs[0])] =
        ops::call(node.op, operands, node.attrs, want_of(g, node));
  }
  for (const char* engine : {"native", "reference"})
    EXPECT_TRUE(equal(runtime::compile(g, {engine}).run({x})[0],
                      values[static_cast<size_t>(g.outputs()[0])]))
        << engine;
}

TEST(FuseLookups, OtherOperandsAndSingleOperatorsStay) {
  for (const char* text : {R"(graph g {
  %x: QUInt8(2, 3) scale=0.02 zero_point=131 = input
  %f: Float(2, 3) = dequantize(%x)
  %y: QUInt8(2, 3) axis=0 scale=[0.01, 0.03] zero_point=[17, 3] = quantize(%f)
  return (%y)
}
)",
                           R"(graph g {
  %x: QUInt8(3) scale=0.02 zero_point=131 = input
  %z: QUInt8(3) scale=0.02 zero_point=131 = input
  %f: Float(3) = dequantize(%x)
  %h: Float(3) = dequantize(%z)
  %m: Float(3) = mul(%f, %h)
  %y: QUInt8(3) scale=0.01 zero_point=17 = quantize(%m)
  return (%y)
}
)",
                           R"(graph g {
  %x: QUInt8(3) scale=0.02 zero_point=131 = input
  %b: Float(3) = constant [1, 2, 3]
  %f: Float(3) = dequantize(%x)
  %m: Float(3) = add(%f, %b)
  %y: QUInt8(3) scale=0.01 zero_point=17 = quantize(%m)
  return (%y)
}
)",
                           R"(graph g {
  %x: QUInt8(3) scale=0.02 zero_point=131 = input
  %y: QUInt8(3) scale=0.01 zero_point=17 = sigmoid(%x)
  return (%y)
}
)"})
    EXPECT_EQ(print(fuse_lookups(parse(text))), print(parse(text)));
}

}  // namespace
}  // namespace octet::graph
