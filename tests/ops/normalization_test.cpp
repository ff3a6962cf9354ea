#include <cmath>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

Tensor variances(const Shape& shape, uint64_t seed) { return Tensor::rand(shape, seed, 0.2, 2); }

TEST(BatchNorm, FollowsTheFormulaInAnyLayout) {
  Random random(1);
  for (int trial = 0; trial < 100; ++trial) {
    Tensor x = Tensor::randn(random_shape(random, 2, 5), random.next());
    int64_t channels = x.size(1);
    Tensor w = Tensor::randn({channels}, random.next()),
           b = Tensor::randn({channels}, random.next()),
           mean = Tensor::randn({channels}, random.next()),
           var = variances({channels}, random.next());
    Tensor y =
        ops::call("batch_norm", {random_layout(random, x), w, b, mean, var}, {{"eps", 1e-3}});
    for_each_index(x.shape(), [&](const std::vector<int64_t>& i) {
      std::vector<int64_t> k{i[1]};
      double expected = (x.at(i) - mean.at(k)) / std::sqrt(var.at(k) + 1e-3) * w.at(k) + b.at(k);
      ASSERT_NEAR(y.at(i), expected, 1e-5 * (1 + std::fabs(expected)));
    });
  }
}

TEST(BatchNorm, ChannelsLastGivesTheSameBits) {
  Tensor x = Tensor::randn({2, 5, 4, 3}, 2);
  std::vector<Tensor> rest{Tensor::randn({5}, 3), Tensor::randn({5}, 4), Tensor::randn({5}, 5),
                           variances({5}, 6)};
  auto run = [&](const Tensor& t) {
    return ops::call("batch_norm", {t, rest[0], rest[1], rest[2], rest[3]});
  };
  Tensor y = run(x.clone(MemoryFormat::channels_last));
  EXPECT_TRUE(y.is_contiguous(MemoryFormat::channels_last));
  expect_equal(y, run(x));
}

// (x - mean) / sqrt(var + eps) over the elements for which same(i, j) holds.
Tensor normalized(
    const Tensor& x, double eps,
    const std::function<bool(const std::vector<int64_t>&, const std::vector<int64_t>&)>& same) {
  Tensor y = Tensor::empty(x.shape());
  int64_t at = 0;
  for_each_index(x.shape(), [&](const std::vector<int64_t>& i) {
    double sum = 0, squares = 0, n = 0;
    for_each_index(x.shape(), [&](const std::vector<int64_t>& j) {
      if (same(i, j)) sum += x.at(j), ++n;
    });
    for_each_index(x.shape(), [&](const std::vector<int64_t>& j) {
      if (same(i, j)) squares += (x.at(j) - sum / n) * (x.at(j) - sum / n);
    });
    y.data<float>()[at++] = static_cast<float>((x.at(i) - sum / n) / std::sqrt(squares / n + eps));
  });
  return y;
}

void expect_close(const Tensor& got, const Tensor& expected) {
  EXPECT_TRUE(allclose(got, expected, 1e-5, 1e-5)) << to_string(got) << to_string(expected);
}

TEST(LayerNorm, NormalizesTheLastDimensions) {
  Random random(2);
  for (int trial = 0; trial < 60; ++trial) {
    Tensor x = Tensor::randn(random_shape(random, 1, 4, 4), random.next());
    int64_t axis = random.integer(-x.dim(), x.dim() - 1), from = axis < 0 ? axis + x.dim() : axis;
    Tensor expected = normalized(x, 1e-2, [from](const auto& i, const auto& j) {
      return std::equal(i.begin(), i.begin() + from, j.begin());
    });
    Attrs attrs{{"axis", axis}, {"eps", 1e-2}};
    expect_close(ops::call("layer_norm", {random_layout(random, x)}, attrs), expected);
    Shape inner(x.shape().begin() + from, x.shape().end());
    Tensor w = Tensor::randn(inner, random.next()), b = Tensor::randn(inner, random.next());
    Tensor scaled = ops::call("add", {ops::call("mul", {expected, w}), b});
    expect_close(ops::call("layer_norm", {random_layout(random, x), w, b}, attrs), scaled);
    expect_close(ops::call("layer_norm", {x, w}, attrs), ops::call("mul", {expected, w}));
  }
}

TEST(InstanceNorm, NormalizesEachPlane) {
  Tensor x = Tensor::randn({2, 3, 4, 5}, 3), w = Tensor::randn({3}, 4), b = Tensor::randn({3}, 5);
  Tensor expected = normalized(
      x, 1e-5, [](const auto& i, const auto& j) { return i[0] == j[0] && i[1] == j[1]; });
  expect_close(ops::call("instance_norm", {x}), expected);
  Tensor scaled =
      ops::call("add", {ops::call("mul", {expected, w.reshape({3, 1, 1})}), b.reshape({3, 1, 1})});
  expect_close(ops::call("instance_norm", {x.clone(MemoryFormat::channels_last), w, b}), scaled);
}

TEST(GroupNorm, NormalizesGroupsOfChannels) {
  Tensor x = Tensor::randn({2, 6, 5}, 6), w = Tensor::randn({6}, 7), b = Tensor::randn({6}, 8);
  for (int64_t groups : {1, 2, 3, 6}) {
    Tensor expected = normalized(x, 1e-5, [&](const auto& i, const auto& j) {
      return i[0] == j[0] && i[1] / (6 / groups) == j[1] / (6 / groups);
    });
    Tensor scaled =
        ops::call("add", {ops::call("mul", {expected, w.reshape({6, 1})}), b.reshape({6, 1})});
    expect_close(ops::call("group_norm", {x, w, b}, {{"groups", groups}}), scaled);
  }
}

TEST(Normalization, LargeMeansDoNotCancel) {
  Tensor x = floats({10000.0f, 10001.0f, 10002.0f, 10003.0f}, {1, 4});
  expect_close(ops::call("layer_norm", {x}, {{"eps", 0.0}}),
               floats({-1.3416408f, -0.4472136f, 0.4472136f, 1.3416408f}, {1, 4}));
}

TEST(Normalization, ThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({200, 1001}, 9);
  set_num_threads(1);
  Tensor one = ops::call("layer_norm", {x});
  set_num_threads(3);
  expect_equal(ops::call("layer_norm", {x}), one);
  set_num_threads(before);
}

TEST(NormalizationQuantized, IsFloatArithmetic) {
  Random random(10);
  for (int trial = 0; trial < 200; ++trial) {
    QType ty = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random, 2, 4),
                            random_qtype(random, random_byte_dtype(random)));
    Tensor w = variances({x.size(1)}, random.next()), b = Tensor::randn({x.size(1)}, random.next());
    expect_equal(ops::call("batch_norm", {x, w, b, b, w}, {}, ty),
                 by_float("batch_norm", {x, w, b, b, w}, {}, ty));
    expect_equal(ops::call("instance_norm", {x, w, b}, {}, ty),
                 by_float("instance_norm", {x, w, b}, {}, ty));
    expect_equal(ops::call("layer_norm", {x}, {}, ty), by_float("layer_norm", {x}, {}, ty));
  }
}

TEST(NormalizationTypes, SymbolicDimsPass) {
  std::string v = "Float(3)";
  EXPECT_EQ(infer_text("batch_norm", {"Float(N, 3, H, W)", v, v, v, v}), "Float(N, 3, H, W)");
  EXPECT_EQ(infer_text("layer_norm", {"Float(N, T, 3)", v, v}), "Float(N, T, 3)");
  EXPECT_EQ(infer_text("instance_norm", {"Float(N, 3, W)", v, v}), "Float(N, 3, W)");
  EXPECT_EQ(infer_text("group_norm", {"Float(N, C, W)", v, v}, {{"groups", int64_t{3}}}),
            "Float(N, C, W)");
}

TEST(NormalizationTypes, ErrorsNameTheOperatorAndTheOperand) {
  std::string v = "Float(3)";
  expect_error(ErrorCode::invalid_argument, {"batch_norm", "running_var", "(4)", "(N, 3, 8)"}, [&] {
    infer_text("batch_norm", {"Float(N, 3, 8)", v, v, v, "Float(4)"});
  });
  expect_error(ErrorCode::invalid_argument, {"batch_norm", "(3)", "(N, C, ...)"}, [&] {
    infer_text("batch_norm", {v, v, v, v, v});
  });
  expect_error(ErrorCode::invalid_argument, {"group_norm", "groups=4", "6"}, [&] {
    infer_text("group_norm", {"Float(1, 6, 2)"}, {{"groups", int64_t{4}}});
  });
  expect_error(ErrorCode::invalid_argument, {"layer_norm", "weight", "(3)", "(3, 4)"}, [&] {
    infer_text("layer_norm", {"Float(2, 3, 4)", v}, {{"axis", int64_t{1}}});
  });
}

}  // namespace
}  // namespace octet::testing
