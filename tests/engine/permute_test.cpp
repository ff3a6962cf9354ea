// The native permute against the view it stands for.
#include <gtest/gtest.h>

#include <algorithm>

#include "octet/ops/op.h"

namespace octet {
namespace {

TEST(Permute, EveryOrderOfSizesSmallAndLargeIsTheViewsCopy) {
  for (DType dtype : {DType::float32, DType::quint8, DType::qint8})
    for (const Shape& shape : {Shape{2, 17, 3, 40}, Shape{1, 16, 2, 32}, Shape{3, 1, 33, 1}}) {
      Tensor x = Tensor::randn(shape, 5);
      if (dtype != DType::float32) x = quantize_per_tensor(x, 0.03, 3, dtype);
      std::vector<int64_t> order{0, 1, 2, 3};
      do {
        Shape result;
        for (int64_t d : order) result.push_back(shape[static_cast<size_t>(d)]);
        const OpSpec spec =
            ops::make_spec(ops::get("permute"), {{"dims", order}}, {x.type()}, {},
                           {TensorType(x.type().dtype, result, x.quantizer())}, "p");
        auto kernel = make_kernel(spec, "native");
        ASSERT_TRUE(kernel);
        EXPECT_TRUE(equal(run_kernel(*kernel, spec, {x})[0], x.permute(order).contiguous()))
            << to_string(dtype) << to_string(shape) << to_string(Shape(order));
      } while (std::next_permutation(order.begin(), order.end()));
    }
}

}  // namespace
}  // namespace octet
