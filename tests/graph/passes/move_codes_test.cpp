#include "octet/graph/passes/move_codes.h"

#include <gtest/gtest.h>

#include "octet/graph/passes/fuse_lookups.h"
#include "octet/runtime/program.h"

namespace octet::graph {
namespace {

std::string calls(const Graph& g) {
  std::string ops;
  for (const Node& node : g.nodes())
    if (node.kind == NodeKind::call) ops += node.op + " ";
  return ops;
}

constexpr const char* kHeads = R"(graph heads {
  %x: QUInt8(2, 6, 20) scale=0.02 zero_point=131 = input
  %f: Float(2, 6, 20) = dequantize(%x)
  %r: Float(2, 6, 4, 5) = reshape(%f, shape=[0, 0, 4, 5])
  %p: Float(2, 4, 5, 6) = permute(%r, dims=[0, 2, 3, 1])
  %q: QUInt8(2, 4, 5, 6) scale=0.02 zero_point=131 = quantize(%p)
  %other: QUInt8(2, 4, 5, 6) scale=0.03 zero_point=100 = quantize(%p)
  return (%p, %q, %other)
}
)";

TEST(MoveCodes, MovesComeBeforeDequantize) {
  const Graph moved = move_codes(parse(kHeads));
  EXPECT_NO_THROW(moved.check());
  EXPECT_EQ(calls(moved), "reshape permute dequantize quantize quantize ");
  for (ValueId v : moved.outputs()) EXPECT_NE(moved.value(v).name, "");
}

TEST(MoveCodes, ResultsAreTheSameBitsAndKeepTheirNames) {
  const Graph g = parse(kHeads), moved = fuse_lookups(move_codes(g));
  std::vector<uint8_t> codes(240);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7);
  const Tensor x = make_quantized(Tensor::from(codes, {2, 6, 20}), g.type(g.inputs()[0]).quantizer);
  const auto expected = runtime::compile(g, {.engine = "reference", .every_value = true}).run({x}),
             got = runtime::compile(moved).run({x});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(equal(got[i], expected[i])) << i;
    EXPECT_EQ(moved.value(moved.outputs()[i]).name, g.value(g.outputs()[i]).name);
  }
}

TEST(MoveCodes, OtherOperandsStay) {
  const char* text = R"(graph g {
  %x: Float(3, 4) = input
  %c: QInt8(3, 4) scale=[0.1, 0.2, 0.3] zero_point=[0, 0, 0] axis=0 = input
  %p: Float(4, 3) = permute(%x, dims=[1, 0])
  %d: Float(3, 4) = dequantize(%c)
  %r: Float(4, 3) = permute(%d, dims=[1, 0])
  return (%p, %r)
})";
  EXPECT_EQ(calls(move_codes(parse(text))), "permute dequantize permute ");
}

}  // namespace
}  // namespace octet::graph
