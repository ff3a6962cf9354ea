#include "tests/ops/gradient_check.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

TEST(PixelUnshuffle, UndoesPixelShuffle) {
  for (int64_t r : {1, 2, 3}) {
    Tensor x = Tensor::randn({2, 2 * r * r, 3, 4}, 1);
    Tensor big = ops::call("pixel_shuffle", {x}, {{"upscale_factor", r}});
    expect_equal(ops::call("pixel_unshuffle", {big}, {{"downscale_factor", r}}), x);
  }
  expect_equal(ops::call("pixel_unshuffle", {floats({0, 1, 2, 3}, {1, 1, 2, 2})},
                         {{"downscale_factor", int64_t{2}}}),
               floats({0, 1, 2, 3}, {1, 4, 1, 1}));
}

TEST(ChannelShuffle, InterleavesGroups) {
  expect_equal(ops::call("channel_shuffle", {floats({0, 1, 2, 3, 4, 5}, {1, 6, 1})},
                         {{"groups", int64_t{2}}}),
               floats({0, 3, 1, 4, 2, 5}, {1, 6, 1}));
  expect_equal(
      ops::call("channel_shuffle", {floats({0, 1, 2, 3, 4, 5}, {1, 6})}, {{"groups", int64_t{3}}}),
      floats({0, 2, 4, 1, 3, 5}, {1, 6}));
}

TEST(RearrangeQuantized, CodesAreMoved) {
  Random random(3);
  for (int trial = 0; trial < 40; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random)),
          other = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, {2, 6, 4, 2}, t);
    for (auto [name, attrs] :
         {std::pair{"pixel_unshuffle", Attrs{{"downscale_factor", int64_t{2}}}},
          std::pair{"channel_shuffle", Attrs{{"groups", int64_t{3}}}}}) {
      Tensor y = ops::call(name, {random_layout(random, x)}, attrs);
      EXPECT_EQ(*y.quantizer(), *t.quantizer);
      expect_equal(y.int_repr(), ops::call(name, {x.int_repr()}, attrs), name);
      expect_equal(ops::call(name, {x}, attrs, other), by_float(name, {x}, attrs, other), name);
    }
  }
}

TEST(Bilinear, EqualsTheDefinition) {
  for (const Shape& batch : {Shape{5}, Shape{2, 3}, Shape{0}}) {
    Shape s1 = batch, s2 = batch;
    s1.push_back(3);
    s2.push_back(4);
    Tensor a = Tensor::randn(s1, 1), b = Tensor::randn(s2, 2), w = Tensor::randn({6, 3, 4}, 3),
           bias = Tensor::randn({6}, 4);
    Tensor y = ops::call("bilinear", {a, b, w, bias});
    for_each_index(y.shape(), [&](const Ints& at) {
      double sum = bias.at({at.back()});
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < 4; ++j) {
          Ints p = at, q = at;
          p.back() = i;
          q.back() = j;
          sum += a.at(p) * w.at({at.back(), i, j}) * b.at(q);
        }
      ASSERT_NEAR(y.at(at), sum, 1e-5);
    });
  }
}

TEST(Rearrange, GradientsEqualDifferenceQuotients) {
  check_op_gradient("pixel_unshuffle", {Tensor::randn({2, 3, 4, 6}, 1)},
                    {{"downscale_factor", int64_t{2}}});
  check_op_gradient("channel_shuffle", {Tensor::randn({2, 6, 2}, 1)}, {{"groups", int64_t{2}}});
  check_op_gradient("bilinear", {Tensor::randn({2, 3, 4}, 1), Tensor::randn({2, 3, 2}, 2),
                                 Tensor::randn({5, 4, 2}, 3), Tensor::randn({5}, 4)});
}

TEST(RearrangeTypes, SymbolicDimsPassAndErrorsSayWhatIsExpected) {
  EXPECT_EQ(
      infer_text("pixel_unshuffle", {"Float(N, 3, H, 8)"}, {{"downscale_factor", int64_t{2}}}),
      "Float(N, 12, [H/2], 4)");
  EXPECT_EQ(infer_text("channel_shuffle", {"Float(N, 6, H)"}, {{"groups", int64_t{2}}}),
            "Float(N, 6, H)");
  EXPECT_EQ(infer_text("bilinear", {"Float(N, 3)", "Float(N, 4)", "Float(6, 3, 4)"}),
            "Float(N, 6)");
  auto fails = [](const std::string& op, const std::vector<std::string>& in, const Attrs& attrs,
                  const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { infer_text(op, in, attrs); });
  };
  fails("pixel_unshuffle", {"Float(1, 3, 5, 8)"}, {{"downscale_factor", int64_t{2}}},
        {"(1, 3, 5, 8)", "H*2"});
  fails("channel_shuffle", {"Float(1, 5, 2)"}, {{"groups", int64_t{2}}},
        {"(1, 5, 2)", "multiple of 2"});
  fails("channel_shuffle", {"Float(1, 5, 2)"}, {{"groups", int64_t{0}}}, {"groups=0"});
  fails("bilinear", {"Float(2, 3)", "Float(2, 5)", "Float(6, 3, 4)"}, {},
        {"3 and 5 features", "3 and 4"});
  fails("bilinear", {"Float(2, 3)", "Float(1, 4)", "Float(6, 3, 4)"}, {}, {"differ"});
}

}  // namespace
}  // namespace octet::testing
