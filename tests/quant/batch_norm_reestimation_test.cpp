#include "octet/quant/algorithms/batch_norm_reestimation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// Two convolutions with batch norms behind, whose statistics are wrong.
Graph norms() {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(5), Dim(5)}));
  const auto norm = [&](const std::string& name, ValueId in, const char* op, const Shape& w) {
    const ValueId c =
        g.add_call(name + ".conv", op, {in, g.add_constant(name + ".weight", Tensor::randn(w, 1))});
    return g.add_call(name, "batch_norm",
                      {c, g.add_constant(name + ".gamma", Tensor::ones({w[0]})),
                       g.add_constant(name + ".beta", Tensor::zeros({w[0]})),
                       g.add_constant(name + ".mean", Tensor::full({w[0]}, 3)),
                       g.add_constant(name + ".var", Tensor::full({w[0]}, 9))},
                      {{"eps", 1e-9}});
  };
  const ValueId a = norm("a", x, "conv2d", {4, 3, 3, 3});
  g.set_outputs({norm("b", g.add_call("r", "relu", {a}), "conv2d", {6, 4, 1, 1})});
  return g;
}

// With gamma 1 and beta 0 each norm gives mean 0 and variance 1 over the samples.
TEST(BatchNormReestimation, NormsNormalizeTheSamples) {
  const std::vector<std::vector<Tensor>> samples{{Tensor::randn({7, 3, 5, 5}, 3)},
                                                 {Tensor::rand({2, 3, 5, 5}, 4, 1, 2)}};
  std::vector<std::string> names;
  const Graph g = quant::reestimate_batch_norms(norms(), samples, &names);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b"}));
  const auto program = runtime::compile(g, {.every_value = true});
  for (const char* name : {"a", "b"}) {
    std::vector<double> sum(6, 0.0), square(6, 0.0);
    double count = 0;
    for (const auto& batch : samples)
      program.run_watched(batch, {*g.find(name)}, [&](ValueId, const Tensor& t) {
        const auto v = t.contiguous().to_vector<float>();
        const auto channels = static_cast<size_t>(t.size(1));
        for (size_t i = 0; i < v.size(); ++i) {
          sum[i / 9 % channels] += v[i];
          square[i / 9 % channels] += double(v[i]) * v[i];
        }
        count += static_cast<double>(t.size(0) * 9);
      });
    for (size_t c = 0; c < (name[0] == 'a' ? 4u : 6u); ++c) {
      EXPECT_NEAR(sum[c] / count, 0, 1e-5) << name << c;
      EXPECT_NEAR(square[c] / count, 1, 1e-4) << name << c;
    }
  }
  expect_error(ErrorCode::invalid_argument, {"no samples"},
               [&] { quant::reestimate_batch_norms(norms(), {}); });
}

}  // namespace
}  // namespace octet::testing
