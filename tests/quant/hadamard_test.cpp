#include "octet/quant/algorithms/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// Three linear layers, in a chain for the first two; a relu is behind the second. One feature of
// the first one's result is large.
Graph chain_of(int64_t features) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(16)}));
  Tensor large = Tensor::randn({features, 16}, 1), small = Tensor::randn({12, features}, 2);
  for (int64_t j = 0; j < 16; ++j) large.data<float>()[16 + j] *= 200;
  for (int64_t o = 0; o < 12; ++o) small.data<float>()[o * features + 1] *= 0.005F;
  ValueId y = g.add_call("a", "linear",
                         {x, g.add_constant("a.weight", large),
                          g.add_constant("a.bias", Tensor::randn({features}, 3))});
  y = g.add_call("b", "linear", {y, g.add_constant("b.weight", small)});
  y = g.add_call("r", "relu", {y});
  g.set_outputs(
      {g.add_call("c", "linear", {y, g.add_constant("c.weight", Tensor::randn({4, 12}, 4))})});
  return g;
}

TEST(Hadamard, RowsAreTimesSylvestersMatrix) {
  const Tensor x = Tensor::randn({3, 24}, 1), y = quant::hadamard_rows(x, 8);
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t j = 0; j < 24; ++j) {
      double sum = 0;  // (-1)^(number of bits that both have)
      for (int64_t i = 0; i < 8; ++i)
        sum += (std::popcount(static_cast<uint64_t>(i & (j % 8))) % 2 ? -1 : 1) *
               x.at({r, j / 8 * 8 + i});
      EXPECT_NEAR(y.at({r, j}), sum / std::sqrt(8.0), 1e-6);
    }
  expect_error(ErrorCode::invalid_argument, {"power of two"}, [&] { quant::hadamard_rows(x, 6); });
}

TEST(Hadamard, RotatesChainsAndKeepsTheFunction) {
  const Tensor x = Tensor::randn({40, 16}, 5);
  for (const int64_t features : {32, 24, 7}) {
    const Graph g = chain_of(features);
    std::vector<std::string> rotated;
    const Graph r = quant::hadamard_rotation(g, &rotated);
    EXPECT_EQ(rotated, features == 7 ? std::vector<std::string>{} : std::vector<std::string>{"a"});
    EXPECT_TRUE(
        allclose(runtime::compile(r).run({x})[0], runtime::compile(g).run({x})[0], 1e-4, 1e-3));
  }
}

TEST(Hadamard, WinsBackWhatALargeFeatureCosts) {
  const Graph g = chain_of(32);
  const Tensor x = Tensor::randn({200, 16}, 6);
  const auto want = runtime::compile(g).run({x})[0].to_vector<float>();
  const auto noise = [&](const Graph& network) {
    auto prepared = quant::prepare_fx(network, quant::get_default_qconfig_mapping());
    prepared->forward(std::vector<Tensor>{x});
    const auto got = runtime::compile(quant::convert_fx(prepared)->graph())
                         .run({x})[0]
                         .dequantize()
                         .to_vector<float>();
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) sum += std::pow(double(got[i]) - double(want[i]), 2);
    return sum;
  };
  EXPECT_LT(noise(quant::hadamard_rotation(g)), 0.2 * noise(g));
}

}  // namespace
}  // namespace octet::testing
