// Steps that run together, some rows at a time: the same bits as one by one.
#include <gtest/gtest.h>

#include "octet/base/parallel.h"
#include "octet/runtime/program.h"

namespace octet::runtime {
namespace {

// A normalization and an attention's softmax, spelled out, with codes on the way and a value that
// leaves in the middle.
constexpr const char* kRows = R"(graph rows {
  %x: QUInt8(N, 33, 96) scale=0.02 zero_point=131 = input
  %row: Float(N, 33, 1) = input
  %bias: Float(96) = input
  %eps: Float() = constant 1e-05
  %two: Float() = constant 2
  %half: QUInt8(1) scale=0.01 zero_point=0 = constant 50
  %f: Float(N, 33, 96) = dequantize(%x)
  %moved: Float(N, 33, 96) = add(%f, %bias)
  %mean: Float(N, 33, 1) = mean(%moved, dim=[-1])
  %centred: Float(N, 33, 96) = sub(%moved, %mean)
  %squares: Float(N, 33, 96) = pow(%centred, %two)
  %var: Float(N, 33, 1) = mean(%squares, dim=[2])
  %safe: Float(N, 33, 1) = add(%var, %eps)
  %root: Float(N, 33, 1) = sqrt(%safe)
  %norm: Float(N, 33, 96) = div(%centred, %root)
  %scaled: Float(N, 33, 96) = mul(%row, %norm)
  %q: QUInt8(N, 33, 96) scale=0.03 zero_point=128 = quantize(%scaled)
  %more: QUInt8(N, 33, 96) scale=0.04 zero_point=120 = add(%half, %q)
  %sum: QUInt8(N, 33, 96) scale=0.05 zero_point=110 = add(%more, %q)
  %d: Float(N, 33, 96) = dequantize(%sum)
  %soft: Float(N, 33, 96) = softmax(%d, dim=-1)
  %from: Float(N, 33, 96) = sub(%bias, %soft)
  %y: QUInt8(N, 33, 96) scale=0.02 zero_point=100 = quantize(%from)
  return (%norm, %y)
}
)";

std::vector<Tensor> operands(int64_t n) {
  std::vector<uint8_t> codes(static_cast<size_t>(n * 33 * 96));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 31 + i / 96 * 17);
  return {make_quantized(Tensor::from(codes, {n, 33, 96}), graph::parse(kRows).type(0).quantizer),
          Tensor::randn({n, 33, 1}, 3), Tensor::randn({96}, 4)};
}

TEST(RowGroups, AreTheBitsOfTheReferenceEngineForEveryBatchAndNumberOfThreads) {
  const graph::Graph g = graph::parse(kRows);
  const Program native = compile(g), reference = compile(g, {.engine = "reference"});
  const int threads = num_threads();
  for (int t : {1, 3}) {
    set_num_threads(t);
    for (int64_t n : {1, 7, 40}) {
      const auto x = operands(n);
      const auto expected = reference.run(x);
      for (int again = 0; again < 2; ++again) {
        const auto got = native.run(x);
        for (size_t i = 0; i < 2; ++i)
          EXPECT_TRUE(equal(got[i], expected[i]))
              << "result " << i << ", batch " << n << ", " << t << " threads";
      }
    }
  }
  set_num_threads(threads);
}

TEST(RowGroups, AllStepsButTheFirstSayThatTheyRunWithIt) {
  const Program program = compile(graph::parse(kRows));
  ASSERT_GT(program.steps().size(), 10u);
  EXPECT_FALSE(program.steps()[0].with_previous);
  for (size_t i = 1; i < program.steps().size(); ++i)
    EXPECT_TRUE(program.steps()[i].with_previous) << program.steps()[i].kernel;
  const auto seconds = program.profile(operands(2));
  EXPECT_GT(seconds[0], 0);
  EXPECT_EQ(seconds[3], 0);
}

// Rows of 997 codes that are written over: ThreadSanitizer sees whether the last vector of a row
// reads what another thread writes.
TEST(RowGroups, RowsOfOddWidthThatAreWrittenOver) {
  const graph::Graph g = graph::parse(R"(graph rows {
  %x: QUInt8(997, 300) scale=0.0625 zero_point=131 = input
  %t: QUInt8(300, 997) scale=0.0625 zero_point=131 = permute(%x, dims=[1, 0])
  %half: QUInt8(997) scale=0.0625 zero_point=0 = input
  %a: QUInt8(300, 997) scale=0.125 zero_point=110 = add(%t, %half)
  %b: QUInt8(300, 997) scale=0.125 zero_point=100 = mul(%a, %half)
  return (%b)
})");
  std::vector<uint8_t> codes(300 * 997), half(997);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 31 + i / 96 * 17);
  for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint8_t>(i * 7);
  const auto type_of = [&](size_t input) { return g.type(g.inputs()[input]).quantizer; };
  const std::vector<Tensor> x = {make_quantized(Tensor::from(codes, {997, 300}), type_of(0)),
                                 make_quantized(Tensor::from(half, {997}), type_of(1))};
  const Program program = compile(g);
  ASSERT_EQ(program.steps().size(), 3u);
  EXPECT_TRUE(program.steps()[2].with_previous);
  const int threads = num_threads();
  set_num_threads(4);
  EXPECT_TRUE(equal(program.run(x)[0], compile(g, {.engine = "reference"}).run(x)[0]));
  set_num_threads(threads);
}

TEST(RowGroups, ValuesInsideCanBeWatchedAndNeedMemoryOnlyThen) {
  const graph::Graph g = graph::parse(kRows);
  const Program program = compile(g), reference = compile(g, {.engine = "reference"});
  const auto x = operands(5);
  const graph::ValueId centred = *program.graph().find("centred");
  Tensor seen, expected;
  program.run_watched(x, {centred}, [&](graph::ValueId, const Tensor& t) { seen = t.clone(); });
  reference.run_watched(x, {*reference.graph().find("centred")},
                        [&](graph::ValueId, const Tensor& t) { expected = t.clone(); });
  EXPECT_TRUE(equal(seen, expected));
  // A few rows of each value in place of 40 * 33.
  EXPECT_LT(program.arena_bytes(operands(40)), size_t{40 * 33 * 96 * 4});
}

TEST(RowGroups, LayerNormAndGeluAreTheBitsOfTheirOperators) {
  const graph::Graph g = graph::parse(R"(graph g {
  %x: Float(5, 9, 40) = input
  %w: Float(40) = input
  %b: Float(40) = input
  %n: Float(5, 9, 40) = layer_norm(%x, %w, %b)
  %p: Float(5, 9, 40) = layer_norm(%n, eps=0.001)
  %y: Float(5, 9, 40) = gelu(%p)
  return (%n, %y)
})");
  const std::vector<Tensor> x{Tensor::randn({5, 9, 40}, 1), Tensor::randn({40}, 2),
                              Tensor::randn({40}, 3)};
  const Program native = compile(g);
  EXPECT_EQ(native.steps()[0].engine, "native");
  EXPECT_EQ(native.steps()[2].engine, "native");
  const auto got = native.run(x), expected = compile(g, {.engine = "reference"}).run(x);
  EXPECT_TRUE(equal(got[0], expected[0]));
  EXPECT_TRUE(equal(got[1], expected[1]));
}

TEST(RowGroups, AValueReadWholeEndsAGroup) {
  const graph::Graph g = graph::parse(R"(graph g {
  %x: Float(64, 40) = input
  %a: Float(64, 40) = neg(%x)
  %b: Float(64, 40) = abs(%a)
  %m: Float(1, 40) = mean(%b, dim=[0])
  %c: Float(64, 40) = sub(%x, %m)
  %d: Float(64, 40) = neg(%c)
  return (%d)
})");
  const Tensor x = Tensor::randn({64, 40}, 1);
  EXPECT_TRUE(equal(compile(g).run({x})[0], compile(g, {.engine = "reference"}).run({x})[0]));
}

}  // namespace
}  // namespace octet::runtime
