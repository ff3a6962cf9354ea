#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

TEST(Triangles, KeepTheirSideOfTheDiagonal) {
  Random random(1);
  for (int trial = 0; trial < 100; ++trial) {
    Tensor x = Tensor::randn(random_shape(random, 2, 4), random.next());
    int64_t diagonal = random.integer(-4, 4);
    Tensor upper = ops::call("triu", {random_layout(random, x)}, {{"diagonal", diagonal}});
    Tensor lower = ops::call("tril", {random_layout(random, x)}, {{"diagonal", diagonal}});
    for_each_index(x.shape(), [&](const std::vector<int64_t>& i) {
      int64_t offset = i[i.size() - 1] - i[i.size() - 2];
      ASSERT_EQ(upper.at(i), offset >= diagonal ? x.at(i) : 0);
      ASSERT_EQ(lower.at(i), offset <= diagonal ? x.at(i) : 0);
    });
  }
}

TEST(Triangles, QuantizedZeroIsTheZeroPoint) {
  Random random(2);
  for (const char* op : {"triu", "tril"}) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, {2, 4, 5}, t);
    expect_equal(ops::call(op, {x}), by_float(op, {x}, {}, t));
    Tensor channels =
        quantize_per_channel(Tensor::randn({2, 3}, 3), {0.1, 0.2}, {3, 5}, 0, DType::qint8);
    expect_equal(ops::call(op, {channels}).dequantize(), ops::call(op, {channels.dequantize()}));
  }
  EXPECT_EQ(infer_text("triu", {"Float(N, T, T)"}), "Float(N, T, T)");
  expect_error(ErrorCode::invalid_argument, {"triu", "(3)"},
               [] { infer_text("triu", {"Float(3)"}); });
}

TEST(Topk, SortsAndKeepsTheFirstOfEquals) {
  Tensor x = longs({3, 1, 3, 5, 1, 2}, {1, 6});
  auto top = [&](int64_t k, bool largest) {
    return ops::call_all("topk", {x}, {{"k", k}, {"largest", largest}});
  };
  expect_equal(top(4, true)[0], longs({5, 3, 3, 2}, {1, 4}));
  expect_equal(top(4, true)[1], longs({3, 0, 2, 5}, {1, 4}));
  expect_equal(top(3, false)[0], longs({1, 1, 2}, {1, 3}));
  expect_equal(top(3, false)[1], longs({1, 4, 5}, {1, 3}));
  EXPECT_EQ(top(0, true)[0].shape(), (Shape{1, 0}));
}

TEST(Topk, AnyDimensionAndLayout) {
  Random random(4);
  for (int trial = 0; trial < 150; ++trial) {
    Tensor x = Tensor::randn(random_shape(random), random.next());
    int64_t dim = random.integer(0, x.dim() - 1), k = random.integer(1, x.size(dim));
    auto top = ops::call_all("topk", {random_layout(random, x)},
                             {{"k", k}, {"dim", dim - (trial % 2) * x.dim()}});
    for_each_index(top[0].shape(), [&](const std::vector<int64_t>& i) {
      auto at = i;
      std::vector<double> row;
      for (at[dim] = 0; at[dim] < x.size(dim); ++at[dim]) row.push_back(x.at(at));
      std::sort(row.rbegin(), row.rend());
      ASSERT_EQ(top[0].at(i), row[i[dim]]);
      at[dim] = static_cast<int64_t>(top[1].at(i));
      ASSERT_EQ(x.at(at), top[0].at(i));
    });
  }
}

TEST(Topk, NanIsTheLargest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  auto top = ops::call_all("topk", {floats({1, nan, 3})}, {{"k", int64_t{2}}});
  EXPECT_TRUE(std::isnan(top[0].at({0})));
  expect_equal(top[1], longs({1, 2}));
  expect_equal(
      ops::call_all("topk", {floats({1, nan, 3})}, {{"k", int64_t{2}}, {"largest", false}})[0],
      floats({1, 3}));
}

TEST(Topk, QuantizedValuesAreCodes) {
  Random random(5);
  for (int trial = 0; trial < 100; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, {3, 7}, t);
    auto codes = ops::call_all("topk", {x}, {{"k", int64_t{3}}}),
         real = ops::call_all("topk", {x.dequantize()}, {{"k", int64_t{3}}});
    expect_equal(codes[0], quantize(real[0], t.quantizer, t.dtype));
    expect_equal(codes[1], real[1]);
  }
  Tensor channels =
      quantize_per_channel(Tensor::randn({2, 3}, 3), {0.1, 0.2}, {3, 5}, 0, DType::qint8);
  expect_equal(ops::call_all("topk", {channels}, {{"k", int64_t{2}}})[0].dequantize(),
               ops::call_all("topk", {channels.dequantize()}, {{"k", int64_t{2}}})[0]);
  expect_error(ErrorCode::invalid_argument, {"topk", "per channel", "dimension 0"}, [&] {
    ops::call_all("topk", {channels}, {{"k", int64_t{1}}, {"dim", int64_t{0}}});
  });
}

TEST(Topk, TypesAndErrors) {
  auto types = infer_types("topk", {"Float(N, 10)"}, {{"k", int64_t{3}}});
  EXPECT_EQ(to_string(types.at(0)), "Float(N, 3)");
  EXPECT_EQ(to_string(types.at(1)), "Long(N, 3)");
  expect_error(ErrorCode::invalid_argument, {"topk", "k=11", "(N, 10)"}, [] {
    infer_types("topk", {"Float(N, 10)"}, {{"k", int64_t{11}}});
  });
  Tensor half = Tensor::randn({9}, 6).to(DType::float16);
  EXPECT_EQ(ops::call_all("topk", {half}, {{"k", int64_t{2}}})[0].dtype(), DType::float16);
}

TEST(PixelShuffle, MovesChannelsIntoPlanes) {
  Random random(7);
  Attrs attrs{{"upscale_factor", int64_t{2}}};
  Tensor x = Tensor::randn({2, 12, 3, 2}, 8);
  Tensor y = ops::call("pixel_shuffle", {random_layout(random, x)}, attrs);
  ASSERT_EQ(y.shape(), (Shape{2, 3, 6, 4}));
  for_each_index(y.shape(), [&](const std::vector<int64_t>& i) {
    ASSERT_EQ(y.at(i), x.at({i[0], i[1] * 4 + i[2] % 2 * 2 + i[3] % 2, i[2] / 2, i[3] / 2}));
  });
  QType t = random_qtype(random, DType::quint8);
  Tensor q = random_codes(random, {1, 4, 2, 2}, t);
  expect_equal(ops::call("pixel_shuffle", {q}, attrs), by_float("pixel_shuffle", {q}, attrs, t));
  EXPECT_EQ(infer_text("pixel_shuffle", {"Float(N, 12, H, 5)"}, attrs), "Float(N, 3, H*2, 10)");
  expect_error(ErrorCode::invalid_argument, {"pixel_shuffle", "(1, 6, 2, 2)", "C*4"},
               [&] { infer_text("pixel_shuffle", {"Float(1, 6, 2, 2)"}, attrs); });
}

}  // namespace
}  // namespace octet::testing
