// Einsum as permutations, matrix products and sums.
#include <gtest/gtest.h>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;

OnnxModel einsum(const std::string& equation, const std::vector<std::vector<OnnxDim>>& shapes) {
  OnnxModel m;
  std::vector<std::string> names;
  for (size_t i = 0; i < shapes.size(); ++i) {
    names.push_back("x" + std::to_string(i));
    m.input(names.back(), shapes[i]);
  }
  m.node("Einsum", names, {"y"}, {{"equation", equation}}, "sum").output("y");
  return m;
}

Tensor numbers(const Shape& shape) {
  return Tensor::arange(numel(shape), DType::float32).reshape(shape);
}

TEST(OnnxEinsum, OfOneOperand) {
  const Tensor x = numbers({2, 3});
  EXPECT_EQ(run_one(einsum("ij->ji", {{2, 3}}).import(), {x}).to_vector<float>(),
            (F{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(run_one(einsum("ij->j", {{2, 3}}).import(), {x}).to_vector<float>(), (F{3, 5, 7}));
  EXPECT_EQ(run_one(einsum("ij->", {{2, 3}}).import(), {x}).item(), 15);
  const Tensor square = numbers({2, 2, 2});
  EXPECT_EQ(run_one(einsum("ii", {{2, 2}}).import(), {square.select(0, 1)}).item(), 4 + 7);
  EXPECT_EQ(run_one(einsum("...ii->...i", {{2, 2, 2}}).import(), {square}).to_vector<float>(),
            (F{0, 3, 4, 7}));
}

TEST(OnnxEinsum, ProductsAreMatrixProducts) {
  const Tensor a = numbers({2, 3}), b = numbers({3, 2});
  graph::Graph g = einsum("ij,jk->ik", {{2, 3}, {3, 2}}).import();
  EXPECT_EQ(ops_of(g), "matmul");
  EXPECT_EQ(run_one(g, {a, b}).to_vector<float>(), (F{10, 13, 28, 40}));
  // Without "->" the labels that are there once, by the alphabet.
  EXPECT_EQ(run_one(einsum("ij,jk", {{2, 3}, {3, 2}}).import(), {a, b}).to_vector<float>(),
            (F{10, 13, 28, 40}));
  EXPECT_EQ(run_one(einsum("ij, ij -> i", {{2, 3}, {2, 3}}).import(), {a, a}).to_vector<float>(),
            (F{5, 50}));
  EXPECT_EQ(run_one(einsum("i,j->ij", {{2}, {2}}).import(), {floats({2, 3}), floats({4, 5})})
                .to_vector<float>(),
            (F{8, 10, 12, 15}));
}

TEST(OnnxEinsum, AConstantMatrixMakesALinearLayer) {
  OnnxModel m;
  m.input("x", {"N", "T", 3}).constant("w", numbers({3, 4}));
  m.node("Einsum", {"x", "w"}, {"y"}, {{"equation", std::string("btv,vw->btw")}}).output("y");
  EXPECT_EQ(ops_of(m.import()), "linear");
}

// Attention's products, with sizes known only at run time, against loops.
TEST(OnnxEinsum, BatchesAndSeveralSummedLabels) {
  const Tensor a = Tensor::randn({2, 3, 4, 5}, 1), b = Tensor::randn({2, 4, 5, 6}, 2);
  graph::Graph g = einsum("bqhd,bhdk->kbq", {{"N", "Q", 4, 5}, {"N", 4, 5, "K"}}).import();
  const Tensor y = runtime::compile(g).run({a, b})[0];
  ASSERT_EQ(y.shape(), (Shape{6, 2, 3}));
  for (int64_t k = 0; k < 6; ++k)
    for (int64_t n = 0; n < 2; ++n)
      for (int64_t q = 0; q < 3; ++q) {
        double want = 0;
        for (int64_t h = 0; h < 4; ++h)
          for (int64_t d = 0; d < 5; ++d) want += a.at({n, q, h, d}) * b.at({n, h, d, k});
        EXPECT_NEAR(y.at({k, n, q}), want, 1e-4);
      }
}

TEST(OnnxEinsum, WrongEquationsAreNamed) {
  expect_error(ErrorCode::corrupt, {"sum", "'ijk'"}, [] { einsum("ijk->i", {{2, 3}}).import(); });
  expect_error(ErrorCode::corrupt, {"sum", "'ij,j->i' for 1 inputs"}, [] {
    einsum("ij,j->i", {{2, 3}}).import();
  });
  expect_error(ErrorCode::corrupt, {"sum", "'i?->i'"}, [] { einsum("i?->i", {{2, 3}}).import(); });
  expect_error(ErrorCode::corrupt, {"sum", "'ij->ik'"}, [] {
    einsum("ij->ik", {{2, 3}}).import();
  });
}

}  // namespace
}  // namespace octet::testing
