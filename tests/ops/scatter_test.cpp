// gather_elements, gather_nd, scatter_elements and scatter_nd.
#include <gtest/gtest.h>

#include "octet/ops/op.h"
#include "tests/expect_error.h"
#include "tests/ops/gradient_check.h"

namespace octet::testing {
namespace {

Tensor places(const std::vector<int64_t>& values, const Shape& shape) {
  return Tensor::from(values, shape);
}

TEST(Scatter, EveryDtypeMoves) {
  for (DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int64,
                      DType::int32, DType::int16, DType::int8, DType::uint8}) {
    const Tensor x = Tensor::arange(6).to(dtype).reshape({2, 3});
    const Tensor y = ops::call("gather_elements", {x, places({2, 0}, {2, 1})}, {{"dim", 1}});
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_EQ(y.to(DType::int64).to_vector<int64_t>(), (std::vector<int64_t>{2, 3}));
    const Tensor added =
        ops::call("scatter_nd", {x, places({1}, {1, 1}), x.slice(0, 0, 1)}, {{"reduction", "add"}});
    EXPECT_EQ(added.to(DType::int64).to_vector<int64_t>(),
              (std::vector<int64_t>{0, 1, 2, 3, 5, 7}));
  }
}

TEST(Scatter, CodesAreGatheredAsTheyAre) {
  const Tensor x =
      quantize_per_tensor(Tensor::arange(6, DType::float32).reshape({2, 3}), 0.5, 3, DType::quint8);
  const Tensor y = ops::call("gather_nd", {x, places({1, 2, 0, 1}, {2, 2})});
  EXPECT_EQ(y.dtype(), DType::quint8);
  EXPECT_EQ(*y.quantizer(), *x.quantizer());
  EXPECT_EQ(y.dequantize().to_vector<float>(), (std::vector<float>{5, 1}));
}

TEST(Scatter, OfSeveralUpdatesOfOnePlaceTheLastStays) {
  const Tensor x = Tensor::zeros({3});
  const Tensor u = Tensor::from(std::vector<float>{1, 2, 3}, {3});
  EXPECT_EQ(ops::call("scatter_elements", {x, places({1, 1, 1}, {3}), u}).to_vector<float>(),
            (std::vector<float>{0, 3, 0}));
}

TEST(Scatter, WrongOperandsAreNamed) {
  const Tensor x = Tensor::zeros({2, 3});
  expect_error(ErrorCode::invalid_argument, {"gather_elements", "as many dimensions"}, [&] {
    ops::call("gather_elements", {x, places({0}, {1})});
  });
  expect_error(ErrorCode::invalid_argument, {"scatter_nd", "updates have shape (2)", "(1, 3)"},
               [&] {
                 ops::call("scatter_nd", {x, places({0}, {1, 1}), Tensor::zeros({2})});
               });
  expect_error(ErrorCode::invalid_argument, {"reduction=\"most\""}, [&] {
    ops::call("scatter_nd", {x, places({0}, {1, 1}), Tensor::zeros({1, 3})},
              {{"reduction", "most"}});
  });
}

TEST(Scatter, Gradients) {
  const Tensor x = Tensor::randn({3, 4}, 1), index = places({2, 0, 1, 1, 3, 0}, {3, 2}),
               u = Tensor::randn({3, 2}, 2);
  check_op_gradient("gather_elements", {x, index}, {{"dim", 1}});
  check_op_gradient("gather_nd", {x, index.slice(0, 0, 2)});
  check_op_gradient("gather_nd", {x, places({3, 0, 3}, {3, 1})}, {{"batch_dims", 1}});
  for (const char* reduction : {"none", "add"})
    check_op_gradient("scatter_elements", {x, places({2, 0, 1, 2, 3, 0}, {3, 2}), u},
                      {{"dim", 1}, {"reduction", reduction}});
  check_op_gradient("scatter_nd", {x, places({2, 0}, {2, 1}), Tensor::randn({2, 4}, 3)});
}

}  // namespace
}  // namespace octet::testing
