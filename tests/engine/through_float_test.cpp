// Operators on codes that run as dequantize, a float kernel, quantize.
#include <gtest/gtest.h>

#include "octet/ops/op.h"

namespace octet {
namespace {

TEST(ThroughFloat, IsDequantizeFloatOperatorQuantize) {
  for (DType dtype : {DType::quint8, DType::qint8})
    for (const char* op : {"sub", "div"})
      for (auto [a_shape, b_shape] :
           {std::pair<Shape, Shape>{{2, 3}, {2, 3}}, {{2, 5, 3}, {2, 5, 1}}, {{3, 17, 33}, {33}}}) {
        const int64_t zero = dtype == DType::quint8 ? 120 : -3;
        Tensor a = quantize_per_tensor(Tensor::randn(a_shape, 1), 0.05, zero, dtype),
               b = quantize_per_tensor(Tensor::randn(b_shape, 2), 0.04, zero, dtype);
        ops::QType want{dtype, Quantizer::per_tensor(0.1, zero, dtype)};
        Tensor expected =
            quantize(ops::call(op, {a.dequantize(), b.dequantize()}), want.quantizer, dtype);
        EXPECT_TRUE(equal(ops::call(op, {a, b}, {}, want), expected)) << op << to_string(a_shape);
      }
}

// Its product of codes is rounded once, that of dequantized numbers three times.
TEST(ThroughFloat, IsNotForMul) {
  const TensorType a(DType::quint8, Shape{2, 8}, Quantizer::per_tensor(0.1, 3, DType::quint8)),
      b(DType::qint8, Shape{2, 8}, Quantizer::per_tensor(0.1, 3, DType::qint8));
  EXPECT_EQ(make_kernel(ops::make_spec(ops::get("mul"), ops::get("mul").complete({}), {a, b}, {},
                                       {a}, "product"),
                        "native"),
            nullptr);
}

TEST(ThroughFloat, ItsKernelSaysSo) {
  const TensorType codes(DType::quint8, Shape{2, 8, 8},
                         Quantizer::per_tensor(0.1, 3, DType::quint8));
  const OpSpec spec = ops::make_spec(ops::get("div"), {}, {codes, codes}, {}, {codes}, "quotient");
  auto kernel = make_kernel(spec, "native");
  ASSERT_TRUE(kernel);
  EXPECT_EQ(kernel->name().rfind("div in float", 0), 0u) << kernel->name();
  EXPECT_EQ(make_kernel(spec, "reference"), nullptr);
}

}  // namespace
}  // namespace octet
