// Every differentiable operator's gradient against difference quotients.
#include <algorithm>

#include "octet/ops/functional.h"
#include "tests/ops/gradient_check.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

Tensor normal(const Shape& shape, uint64_t seed = 1) { return Tensor::randn(shape, seed); }
// Values 0.1 apart in random order, so that no step changes which is the largest.
Tensor distinct(const Shape& shape, uint64_t seed = 1) {
  Random random(seed);
  std::vector<float> v(numel(shape));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = 0.1f * static_cast<float>(i) - 0.05f * static_cast<float>(v.size()) + 0.03f;
  for (size_t i = v.size(); i > 1; --i)
    std::swap(v[i - 1], v[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
  return Tensor::from(v, shape);
}
Tensor positive(const Shape& shape, uint64_t seed = 1) { return Tensor::rand(shape, seed, 0.5, 2); }
Tensor doubles(const Tensor& x) { return x.to(DType::float64); }
Tensor nhwc(const Tensor& x) { return x.clone(MemoryFormat::channels_last); }

// With doubles the quotients are sharp.
const GradientCheck kSharp{.step = 1e-4, .tolerance = 1e-6};

TEST(Gradient, OfUnaryOperators) {
  struct Case {
    const char* op;
    Attrs attrs;
  };
  const Case cases[] = {{"relu", {}},
                        {"relu6", {}},
                        {"clamp", {{"min", -0.5}, {"max", 0.7}}},
                        {"sigmoid", {}},
                        {"tanh", {}},
                        {"hardsigmoid", {}},
                        {"hardswish", {}},
                        {"gelu", {}},
                        {"gelu", {{"approximate", "tanh"}}},
                        {"leaky_relu", {{"negative_slope", 0.2}}},
                        {"elu", {{"alpha", 1.5}}},
                        {"celu", {{"alpha", 1.5}}},
                        {"selu", {}},
                        {"softplus", {{"beta", 2.0}, {"threshold", 3.0}}},
                        {"softsign", {}},
                        {"mish", {}},
                        {"silu", {}},
                        {"threshold", {{"threshold", 0.2}, {"value", 5.0}}},
                        {"exp", {}},
                        {"erf", {}},
                        {"sin", {}},
                        {"cos", {}},
                        {"atan", {}},
                        {"sinh", {}},
                        {"cosh", {}},
                        {"asinh", {}},
                        {"neg", {}},
                        {"abs", {}},
                        {"sign", {}},
                        {"floor", {}},
                        {"ceil", {}},
                        {"round", {}},
                        {"identity", {}},
                        {"clone", {}},
                        {"dropout", {}}};
  for (const Case& c : cases)
    check_op_gradient(c.op, {doubles(normal({3, 17}, 5) * 3)}, c.attrs, kSharp);
  for (const char* op : {"log", "sqrt", "rsqrt", "reciprocal"})
    check_op_gradient(op, {doubles(positive({3, 17}))}, {},
                      GradientCheck{.step = 1e-4, .tolerance = 1e-5});
}

TEST(Gradient, OfAnglesWithinTheirRange) {
  const Tensor x = doubles(positive({3, 17})), small = x / (x + 1) - 0.5;
  for (const char* op : {"tan", "asin", "acos", "atanh"})
    check_op_gradient(op, {small}, {}, GradientCheck{.step = 1e-4, .tolerance = 1e-5});
  check_op_gradient("acosh", {x + 1.5}, {}, GradientCheck{.step = 1e-4, .tolerance = 1e-5});
}

TEST(Gradient, OfUnaryOperatorsInFloat32AndAnyLayout) {
  Tensor x = nhwc(distinct({2, 3, 4, 5}));
  for (const char* op : {"relu", "sigmoid", "gelu"}) check_op_gradient(op, {x});
  check_op_gradient("relu", {x.transpose(1, 3)});
  check_op_gradient("tanh", {x.slice(3, 0, 5, 2)});
}

TEST(Gradient, OfRelusIsZeroAtTheirCorners) {
  for (auto [op, at] : {std::pair{"relu", 0.0f}, {"relu6", 0.0f}, {"relu6", 6.0f}}) {
    Tensor x = floats({at});
    autograd::set_requires_grad(x);
    autograd::backward(ops::call(op, {x}));
    EXPECT_EQ(autograd::grad(x).item(), 0) << op << " at " << at;
  }
}

TEST(Gradient, KeepsTheMemoryOrderOfTheOperand) {
  for (bool last : {true, false}) {
    Tensor x = normal({2, 3, 4, 5});
    if (last) x = nhwc(x);
    autograd::set_requires_grad(x);
    autograd::backward(ops::call("relu", {x}),
                       last ? normal({2, 3, 4, 5}) : nhwc(normal({2, 3, 4, 5})));
    EXPECT_EQ(autograd::grad(x).is_contiguous(), !last);
  }
}

TEST(Gradient, OfArithmeticSumsOverBroadcastDimensions) {
  const std::pair<Shape, Shape> shapes[] = {
      {{2, 3}, {2, 3}}, {{2, 3}, {3}}, {{2, 1, 3}, {4, 1}}, {{}, {2, 2}}, {{1, 3}, {2, 1}}};
  for (const auto& [a, b] : shapes) {
    for (const char* op : {"add", "sub", "mul", "div", "pow"})
      check_op_gradient(op, {doubles(positive(a, 1)), doubles(positive(b, 2))}, {}, kSharp);
    for (const char* op : {"maximum", "minimum"})
      check_op_gradient(op, {doubles(normal(a, 1)), doubles(normal(b, 2))}, {}, kSharp);
  }
}

TEST(Gradient, OfFusedActivations) {
  for (const char* activation : {"relu", "relu6"}) {
    check_op_gradient("add", {doubles(normal({3, 20}, 1) * 4), doubles(normal({20}, 2) * 4)},
                      {{"activation", activation}}, kSharp);
    check_op_gradient("mul", {doubles(normal({3, 20}, 1) * 2), doubles(normal({20}, 2) * 3)},
                      {{"activation", activation}}, kSharp);
    check_op_gradient("linear", {normal({2, 5}), normal({4, 5}, 2), normal({4}, 3)},
                      {{"activation", activation}});
    check_op_gradient("conv2d", {normal({1, 2, 3, 3}), normal({2, 2, 2, 2}, 2), normal({2}, 3)},
                      {{"activation", activation}}, {.step = 3e-3, .tolerance = 3e-2});
  }
}

TEST(Gradient, OfEqualOperandsOfMaximumIsShared) {
  Tensor a = floats({1, 2}), b = floats({1, 3});
  autograd::set_requires_grad(a);
  autograd::set_requires_grad(b);
  autograd::backward(ops::call("maximum", {a, b}), floats({4, 8}));
  EXPECT_EQ(autograd::grad(a).to_vector<float>(), (std::vector<float>{2, 0}));
  EXPECT_EQ(autograd::grad(b).to_vector<float>(), (std::vector<float>{2, 8}));
}

TEST(Gradient, OfRemaindersWherePrelu) {
  check_op_gradient(
      "where",
      {Tensor::from({true, false, true}), doubles(normal({2, 3})), doubles(normal({3}, 2))}, {},
      kSharp);
  check_op_gradient("prelu", {doubles(normal({2, 3, 4})), doubles(normal({3}, 2))}, {}, kSharp);
  check_op_gradient("prelu", {doubles(normal({2, 3, 4})), doubles(normal({1}, 2))}, {}, kSharp);
  check_op_gradient("prelu", {doubles(normal({2, 3, 4})), doubles(normal({3, 1}, 2))}, {}, kSharp);
}

TEST(Gradient, OfReductions) {
  for (const char* op : {"mean", "sum", "prod", "amax", "amin", "reduce_l1", "reduce_l2",
                         "sum_square", "log_sum", "log_sum_exp"})
    for (const Ints& dims : {Ints{}, Ints{1}, Ints{0, -1}})
      for (bool keep : {true, false}) {
        Tensor x = std::string(op) == "log_sum" ? positive({2, 3, 4}) : distinct({2, 3, 4});
        check_op_gradient(op, {doubles(x)}, {{"dim", dims}, {"keepdim", keep}},
                          {.step = 1e-4, .tolerance = 1e-5});
      }
  check_op_gradient("cumsum", {doubles(normal({2, 3, 4}))}, {{"dim", 1}}, kSharp);
  Tensor zeros = doubles(floats({2, 0, 3, 0, 0, 5}, {2, 3}));
  check_op_gradient("prod", {zeros}, {{"dim", Ints{1}}}, kSharp);
}

TEST(Gradient, OfSoftmaxes) {
  for (const char* op : {"softmax", "log_softmax"})
    for (int64_t dim : {0, 1, -1})
      check_op_gradient(op, {doubles(normal({2, 3, 4}))}, {{"dim", dim}}, kSharp);
}

TEST(Gradient, OfOperatorsThatMoveElements) {
  Tensor x = doubles(normal({2, 3, 4}));
  check_op_gradient("reshape", {x}, {{"shape", Ints{4, -1}}}, kSharp);
  check_op_gradient("flatten", {x}, {}, kSharp);
  check_op_gradient("permute", {x}, {{"dims", Ints{2, 0, -2}}}, kSharp);
  check_op_gradient("unsqueeze", {x}, {{"dim", -1}}, kSharp);
  check_op_gradient("squeeze", {doubles(normal({2, 1, 4}))}, {{"dim", 1}}, kSharp);
  check_op_gradient("expand", {doubles(normal({3, 1}))}, {{"shape", Ints{2, 3, 4}}}, kSharp);
  check_op_gradient("slice", {x}, {{"dim", 2}, {"start", 1}, {"end", 4}, {"step", 2}}, kSharp);
  check_op_gradient("slice", {x}, {{"dim", 2}, {"start", -1}, {"end", -10}, {"step", -2}}, kSharp);
  check_op_gradient("slice", {x}, {{"dim", 0}, {"start", 2}, {"end", 2}}, kSharp);
  check_op_gradient("split", {x}, {{"dim", -1}, {"sizes", Ints{1, 3}}}, kSharp);
  check_op_gradient("cat", {x, doubles(normal({2, 1, 4}, 2)), doubles(normal({2, 2, 4}, 3))},
                    {{"dim", 1}}, kSharp);
  check_op_gradient("tile", {x}, {{"repeats", Ints{2, 1, 3}}}, kSharp);
  check_op_gradient("index_select", {x, longs({2, 0, 2, -1}, {2, 2})}, {{"dim", 1}}, kSharp);
  check_op_gradient("embedding", {doubles(normal({5, 3})), longs({4, 0, 4, 1}, {2, 2})}, {},
                    kSharp);
  check_op_gradient("triu", {x}, {{"diagonal", 1}}, kSharp);
  check_op_gradient("tril", {x}, {{"diagonal", -1}}, kSharp);
  check_op_gradient("topk", {doubles(distinct({2, 5, 3}))}, {{"k", 2}, {"dim", 1}}, kSharp);
  check_op_gradient("pixel_shuffle", {doubles(normal({1, 8, 2, 3}))}, {{"upscale_factor", 2}},
                    kSharp);
  check_op_gradient("to", {x}, {{"dtype", "float32"}}, {});
}

TEST(Gradient, OfOneResultOfASplitCountsTheOthersAsZero) {
  Tensor x = normal({5});
  autograd::set_requires_grad(x);
  autograd::backward(ops::call_all("split", {x}, {{"sizes", Ints{2, 3}}})[1], floats({1, 2, 3}));
  EXPECT_EQ(autograd::grad(x).to_vector<float>(), (std::vector<float>{0, 0, 1, 2, 3}));
}

TEST(Gradient, OfPads) {
  Tensor x = doubles(normal({2, 4, 5}));
  for (const char* mode : {"constant", "reflect", "edge", "wrap"})
    check_op_gradient("pad", {x}, {{"pads", Ints{0, 1, 2, 0, 3, 1}}, {"mode", mode}}, kSharp);
  check_op_gradient("pad", {x}, {{"pads", Ints{1, -1, 0, 0, -1, 2}}, {"value", 3.0}}, kSharp);
}

TEST(Gradient, OfInterpolation) {
  Tensor x = doubles(normal({1, 2, 4, 5}));
  for (const char* mode : {"nearest", "linear", "cubic"})
    for (const char* coordinates : {"half_pixel", "align_corners", "asymmetric"})
      for (const Ints& size : {Ints{7, 3}, Ints{4, 10}})
        check_op_gradient("interpolate", {x},
                          {{"size", size}, {"mode", mode}, {"coordinates", coordinates}}, kSharp);
  check_op_gradient("interpolate", {x},
                    {{"scales", std::vector<double>{1.6, 0.5}}, {"mode", "linear"}}, kSharp);
}

TEST(Gradient, OfNormalizations) {
  for (const Shape& shape : {Shape{3, 4}, Shape{2, 4, 3}, Shape{2, 4, 2, 3}, Shape{2, 4, 1, 2, 2}})
    for (bool last : {false, true}) {
      Tensor x = doubles(normal(shape) * 2);
      if (last && shape.size() > 2) x = nhwc(x);
      Tensor w = doubles(positive({4}, 2)), b = doubles(normal({4}, 3));
      const GradientCheck sharp{.step = 1e-4, .tolerance = 1e-5};
      check_op_gradient("batch_norm", {x, w, b, doubles(normal({4}, 4)), doubles(positive({4}, 5))},
                        {}, {.step = 1e-4, .tolerance = 1e-5, .fixed = {3, 4}});
      check_op_gradient("batch_norm_training", {x, w, b}, {},
                        {.step = 1e-4, .tolerance = 1e-5, .outputs_without = {1, 2}});
      if (shape.size() < 3) continue;
      check_op_gradient("instance_norm", {x, w, b}, {}, sharp);
      check_op_gradient("group_norm", {x, w, b}, {{"groups", 2}}, sharp);
      check_op_gradient("group_norm", {x}, {{"groups", 4}}, sharp);
    }
  Tensor x = doubles(normal({2, 3, 4}));
  check_op_gradient("layer_norm", {x, doubles(positive({4}, 2)), doubles(normal({4}, 3))}, {},
                    kSharp);
  check_op_gradient("layer_norm", {x, doubles(positive({3, 4}, 2))}, {{"axis", 1}}, kSharp);
}

TEST(BatchNormTraining, GivesTheBatchsMeanAndBiasedVariance) {
  for (const Tensor& x : {normal({5, 3, 2, 7}), nhwc(normal({5, 3, 2, 7})), normal({40, 3})}) {
    std::vector<Tensor> r =
        ops::call_all("batch_norm_training", {x * 3.0 + 5.0, positive({3}, 2), normal({3}, 3)});
    Tensor y =
        ops::call("batch_norm", {x * 3.0 + 5.0, positive({3}, 2), normal({3}, 3), r[1], r[2]});
    EXPECT_TRUE(allclose(r[0], y, 1e-5, 1e-5));
    for (int64_t c = 0; c < 3; ++c) {
      std::vector<float> v = (x * 3.0 + 5.0).slice(1, c, c + 1).contiguous().to_vector<float>();
      double mean = 0, var = 0;
      for (float e : v) mean += e / static_cast<double>(v.size());
      for (float e : v) var += (e - mean) * (e - mean) / static_cast<double>(v.size());
      EXPECT_NEAR(r[1].at({c}), mean, 1e-6 * std::abs(mean));
      EXPECT_NEAR(r[2].at({c}), var, 1e-5 * var);
    }
  }
}

TEST(Gradient, OfLinearAndMatmul) {
  check_op_gradient("linear", {normal({2, 3, 5}), normal({4, 5}, 2), normal({4}, 3)});
  check_op_gradient("linear", {normal({5}), normal({4, 5}, 2)});
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 4}, {4, 2}}, {{2, 3, 4}, {4, 2}}, {{3, 4}, {2, 4, 3}},      {{4}, {4}},
      {{4}, {2, 4, 3}}, {{2, 3, 4}, {4}},    {{2, 1, 3, 4}, {5, 4, 2}}};
  for (const auto& [a, b] : shapes) {
    check_op_gradient("matmul", {normal(a, 1), normal(b, 2)});
    check_op_gradient("matmul", {doubles(normal(a, 1)), doubles(normal(b, 2))}, {}, kSharp);
  }
}

TEST(Gradient, OfConvolutions) {
  struct Case {
    Shape x, w;
    Attrs attrs;
  };
  const Case plain[] = {
      {{2, 3, 5, 6}, {4, 3, 3, 3}, {}},
      {{2, 3, 6, 5}, {4, 3, 3, 2}, {{"stride", Ints{2, 1}}, {"padding", Ints{1, 0, 2, 1}}}},
      {{1, 4, 5, 5}, {6, 2, 3, 3}, {{"groups", 2}, {"padding", Ints{1, 1, 1, 1}}}},
      {{2, 4, 6, 6},
       {4, 1, 3, 3},
       {{"groups", 4}, {"stride", Ints{2, 2}}, {"padding", Ints{1, 1, 1, 1}}}},
      {{1, 2, 7, 6}, {3, 2, 3, 2}, {{"dilation", Ints{2, 3}}}},
      {{2, 3, 5, 5}, {4, 3, 1, 1}, {{"stride", Ints{2, 2}}}},
  };
  for (const Case& c : plain) {
    check_op_gradient("conv2d", {normal(c.x), normal(c.w, 2), normal({c.w[0]}, 3)}, c.attrs);
    check_op_gradient("conv2d", {nhwc(normal(c.x)), normal(c.w, 2)}, c.attrs);
  }
  check_op_gradient("conv1d", {normal({2, 3, 8}), normal({4, 3, 3}, 2), normal({4}, 3)},
                    {{"stride", Ints{2}}, {"padding", Ints{1, 2}}, {"activation", "none"}});
  check_op_gradient("conv3d", {normal({1, 2, 3, 4, 4}), normal({3, 2, 2, 3, 2}, 2), normal({3}, 3)},
                    {{"stride", Ints{1, 2, 1}}, {"padding", Ints{1, 0, 1, 0, 1, 1}}});
}

TEST(Gradient, OfTransposedConvolutions) {
  check_op_gradient("conv_transpose1d", {normal({2, 4, 5}), normal({4, 3, 3}, 2), normal({3}, 3)},
                    {{"stride", Ints{2}}, {"padding", Ints{1, 1}}, {"output_padding", Ints{1}}});
  check_op_gradient("conv_transpose2d",
                    {normal({1, 4, 3, 4}), normal({4, 3, 3, 2}, 2), normal({6}, 3)},
                    {{"stride", Ints{2, 1}}, {"padding", Ints{1, 0, 1, 0}}, {"groups", 2}});
  check_op_gradient("conv_transpose2d",
                    {normal({1, 2, 3, 3}), normal({2, 3, 2, 2}, 2), normal({3}, 3)},
                    {{"dilation", Ints{3, 3}}, {"output_padding", Ints{2, 1}}});
  check_op_gradient("conv_transpose3d",
                    {normal({1, 2, 2, 3, 2}), normal({2, 3, 2, 2, 2}, 2), normal({3}, 3)},
                    {{"stride", Ints{2, 2, 2}}});
}

TEST(Gradient, OfPools) {
  for (const char* op : {"max_pool2d", "avg_pool2d"})
    for (const Shape& shape : {Shape{2, 3, 7, 6}, Shape{1, 20, 5, 5}}) {
      Tensor x = distinct(shape);
      check_op_gradient(op, {x}, {{"kernel", Ints{3, 2}}, {"stride", Ints{2, 2}}});
      check_op_gradient(
          op, {nhwc(x)},
          {{"kernel", Ints{3, 3}}, {"stride", Ints{2, 1}}, {"padding", Ints{1, 1, 1, 1}}});
      check_op_gradient(op, {x},
                        {{"kernel", Ints{2, 3}}, {"stride", Ints{2, 2}}, {"ceil_mode", true}});
    }
  check_op_gradient("max_pool2d", {distinct({1, 2, 6, 6})},
                    {{"kernel", Ints{2, 2}}, {"stride", Ints{1, 1}}, {"dilation", Ints{2, 2}}});
  check_op_gradient("avg_pool2d", {distinct({1, 2, 6, 6})},
                    {{"kernel", Ints{3, 3}},
                     {"stride", Ints{2, 2}},
                     {"padding", Ints{1, 1, 1, 1}},
                     {"count_include_pad", false}});
  for (const char* op : {"adaptive_avg_pool2d", "adaptive_max_pool2d"})
    for (const Ints& size : {Ints{1, 1}, Ints{2, 3}, Ints{4, 5}})
      check_op_gradient(op, {distinct({2, 2, 4, 5})}, {{"output_size", size}});
  check_op_gradient("max_pool1d", {distinct({2, 3, 9})},
                    {{"kernel", Ints{3}}, {"stride", Ints{2}}, {"padding", Ints{1, 1}}});
  check_op_gradient("avg_pool1d", {distinct({2, 3, 9})},
                    {{"kernel", Ints{3}}, {"stride", Ints{2}}, {"padding", Ints{1, 1}}});
  check_op_gradient("adaptive_avg_pool1d", {distinct({2, 3, 7})}, {{"output_size", Ints{3}}});
  check_op_gradient("max_pool3d", {distinct({1, 2, 4, 4, 3})},
                    {{"kernel", Ints{2, 2, 2}}, {"stride", Ints{2, 1, 1}}});
  check_op_gradient(
      "avg_pool3d", {distinct({1, 2, 4, 4, 3})},
      {{"kernel", Ints{2, 2, 2}}, {"stride", Ints{2, 1, 1}}, {"divisor_override", 3}});
  check_op_gradient("adaptive_max_pool3d", {distinct({1, 2, 4, 5, 3})},
                    {{"output_size", Ints{2, 3, 1}}});
}

// The forward pass takes the first of equal elements; so must the gradient.
TEST(Gradient, OfAMaximumGoesToTheFirstOfEquals) {
  Tensor x = Tensor::zeros({1, 1, 2, 2});
  autograd::set_requires_grad(x);
  autograd::backward(ops::call("max_pool2d", {x}, {{"kernel", Ints{2, 2}}, {"stride", Ints{2, 2}}}),
                     floats({3}, {1, 1, 1, 1}));
  EXPECT_EQ(autograd::grad(x).to_vector<float>(), (std::vector<float>{3, 0, 0, 0}));
}

// oneDNN's training kernels against the plain loops.
TEST(TrainingKernels, AgreeWithTheReferenceEngine) {
  Random random(3);
  for (int round = 0; round < 60; ++round) {
    int64_t groups = random.integer(1, 3), in = random.integer(1, 4), out = random.integer(1, 4),
            spatial = random.integer(2, 3);
    Shape x{random.integer(1, 3), groups * in}, w{groups * out, in};
    Ints stride, dilation, padding;
    for (int64_t d = 0; d < spatial; ++d) {
      x.push_back(random.integer(5, 9));
      w.push_back(random.integer(1, 3));
      stride.push_back(random.integer(1, 2));
      dilation.push_back(random.integer(1, 2));
    }
    for (int64_t d = 0; d < 2 * spatial; ++d) padding.push_back(random.integer(0, 1));
    Attrs attrs{
        {"stride", stride}, {"dilation", dilation}, {"padding", padding}, {"groups", groups}};
    Tensor tx = random_layout(random, normal(x)), tw = random_layout(random, normal(w, 2));
    Tensor y = ops::call(spatial == 2 ? "conv2d" : "conv3d", {tx, tw}, attrs),
           dy = random_layout(random, normal(y.shape(), 3));
    auto both = [&](const char* op, const std::vector<Tensor>& inputs, const Attrs& a) {
      std::vector<Tensor> fast = ops::call_all(op, inputs, a);
      set_engine("reference");
      std::vector<Tensor> plain = ops::call_all(op, inputs, a);
      set_engine("native");
      for (size_t i = 0; i < fast.size(); ++i)
        EXPECT_TRUE(allclose(fast[i], plain[i], 1e-4, 1e-4))
            << op << " " << to_string(fast[i]) << to_string(plain[i]);
    };
    both("conv_backward_data", {dy, tw}, Attrs(attrs).set("input_shape", x));
    both("conv_backward_weight", {tx, dy},
         Attrs(attrs).set("kernel", Ints(w.begin() + 2, w.end())).set("bias", round % 2 == 0));
    Tensor a = random_layout(random, normal({x[0], x[1], w[0]})),
           b = random_layout(random, normal({w[0], x[2]}));
    both("linear_backward_data", {a, b}, {});
    both("linear_backward_weight", {a, random_layout(random, normal({x[0], x[1], 4}))},
         {{"bias", round % 2 == 1}});
  }
}

// oneDNN's own kernel writes beyond its scratch memory there, and the heap is broken.
TEST(TrainingKernels, StridedPointwiseConvolutionsOfFewChannelsStayInTheirMemory) {
  Tensor x = normal({1, 4, 16, 16}), dy = normal({1, 8, 8, 8});
  Attrs attrs{{"stride", Ints{2, 2}}, {"kernel", Ints{1, 1}}};
  set_engine("reference");
  auto plain = ops::call_all("conv_backward_weight", {x, dy}, attrs);
  set_engine("native");
  for (int round = 0; round < 5; ++round)
    EXPECT_TRUE(
        allclose(ops::call_all("conv_backward_weight", {x, dy}, attrs)[0], plain[0], 1e-4, 1e-4));
}

TEST(TrainingKernels, RefuseShapesThatDoNotBelongTogether) {
  expect_error(ErrorCode::invalid_argument, {"conv_backward_data", "(1, 4, 3, 3)"}, [] {
    ops::call("conv_backward_data", {normal({1, 4, 3, 3}), normal({4, 2, 3, 3})},
              {{"input_shape", Ints{1, 2, 6, 5}}});
  });
  expect_error(ErrorCode::invalid_argument, {"conv_backward_weight"}, [] {
    ops::call_all("conv_backward_weight", {normal({1, 2, 5, 5}), normal({2, 4, 3, 3})},
                  {{"kernel", Ints{3, 3}}});
  });
  expect_error(ErrorCode::invalid_argument, {"linear_backward_data"}, [] {
    ops::call("linear_backward_data", {normal({2, 3}), normal({4, 3})});
  });
}

}  // namespace
}  // namespace octet::testing
