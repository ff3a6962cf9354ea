// The sparse modules against dense ones, and the 8-bit kernel against sums of integers.
#include "sparse_conv.h"

#include <gtest/gtest.h>
#include <octet/graph/trace.h>
#include <octet/octet.h>

#include <cmath>
#include <regex>

#include "backend.h"
#include "mnist.h"
#include "quantized.h"
#include "tests/data.h"

namespace sparse {
namespace {

using octet::DType;
using octet::Shape;
namespace ops = octet::ops;
namespace quant = octet::quant;
namespace functional = octet::functional;

// An image with about `share` of its sites active.
Tensor image(const Shape& shape, double share, uint64_t seed) {
  Tensor x = Tensor::randn(shape, seed);
  octet::Random random(seed + 1);
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t at = 0; at < shape[2] * shape[3]; ++at)
      if (random.uniform() >= share)
        for (int64_t c = 0; c < shape[1]; ++c)
          x.data<float>()[(n * shape[1] + c) * shape[2] * shape[3] + at] = 0;
  return x;
}

// 1 where a site is active, (batch, 1, height, width).
Tensor mask(const SparseConvTensor& x) {
  return dense(x.replace_feature(Tensor::ones({x.indices.size(0), 1})));
}

// The convolution on the whole image, and 0 where the sparse one has no result.
Tensor dense_conv(const SparseConv2d& conv, const Tensor& x, const Tensor& weight,
                  const Tensor& active) {
  const Tensor y = functional::conv2d(x, weight.permute({0, 3, 1, 2}), conv.bias,
                                      conv.options.stride, conv.options.padding);
  if (conv.options.submanifold) return y * active;
  const Tensor reach =
      functional::conv2d(active, Tensor::ones({1, 1, conv.kernel_size[0], conv.kernel_size[1]}), {},
                         conv.options.stride, conv.options.padding);
  return y * functional::clamp(reach, 0, 1);
}

struct Case {
  std::string name;
  SparseConv2d conv;
  Shape image;
  double share;
};
std::vector<Case> cases() {
  return {{"submanifold", SubMConv2d(3, 5, 3), {2, 3, 9, 8}, 0.3},
          {"submanifold without bias", SubMConv2d(2, 4, 5, false), {1, 2, 6, 7}, 0.5},
          {"one pixel", SubMConv2d(4, 4, 1), {3, 4, 5, 5}, 0.4},
          {"spreading", {3, 4, 3, {.padding = 1}}, {2, 3, 7, 7}, 0.1},
          {"halving", {4, 6, 2, {.stride = 2}}, {2, 4, 8, 8}, 0.2},
          {"odd size halved", {2, 3, 3, {.stride = 2, .padding = 1}}, {2, 2, 7, 7}, 0.3},
          {"to one site", {8, 10, 4, {.stride = 4}}, {3, 8, 4, 4}, 0.6},
          {"strips", {2, 3, {1, 3}, {.stride = {2, 1}, .padding = {0, 2}}}, {1, 2, 6, 5}, 0.4},
          {"every site", {2, 3, 3, {.padding = 1}}, {2, 2, 5, 5}, 1},
          {"no site", {2, 3, 3, {.padding = 1}}, {2, 2, 5, 5}, 0}};
}

TEST(SparseConvTensor, DenseAndBack) {
  const Tensor x = image({2, 3, 6, 5}, 0.4, 1);
  const SparseConvTensor s = from_dense(x);
  EXPECT_LT(s.features.size(0), 2 * 6 * 5);
  EXPECT_GT(s.features.size(0), 0);
  EXPECT_TRUE(equal(dense(s), x));
  // Codes too; what is not active is the code of 0.
  const Tensor q = dense(s.replace_feature(quantize_per_tensor(s.features, 0.02, 3, DType::qint8)));
  EXPECT_TRUE(equal(q, quantize_per_tensor(x, 0.02, 3, DType::qint8)));
}

TEST(SparseConvTensor, WhatIsWrongWithItIsSaid) {
  const SparseConvTensor x = from_dense(image({1, 2, 4, 4}, 1, 1));
  auto expect = [](const SparseConvTensor& bad, const std::string& part) {
    try {
      dense(bad);
      ADD_FAILURE() << "no error for: " << part;
    } catch (const octet::Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  SparseConvTensor bad = x;
  bad.indices = x.indices.to(DType::int64);
  expect(bad, "indices is Long(16, 3); expected int32 (rows, 3)");
  bad = x;
  bad.spatial_shape = Tensor::from<int64_t>({4, 3});
  expect(bad, "the site (0, 0, 3) is outside of 1 images of 4 x 3");
  bad = x;
  bad.indices = x.indices.clone();
  bad.indices.data<int32_t>()[5] = 0;
  expect(bad, "the site (0, 0, 0) is there twice");
}

TEST(SparseConv, IsTheDenseConvolutionAtItsSitesForwardAndBackward) {
  for (Case& c : cases()) {
    SCOPED_TRACE(c.name);
    if (c.conv.bias.defined()) c.conv.bias.copy_from(Tensor::randn({c.conv.out_channels}, 3));
    SparseConvTensor s = from_dense(image(c.image, c.share, 2));
    const Tensor active = mask(s);
    const Tensor x = dense(s);
    octet::autograd::set_requires_grad(s.features);
    octet::autograd::set_requires_grad(x);

    const SparseConvTensor y = c.conv.forward_value(s);
    const Tensor got = dense(y), expected = dense_conv(c.conv, x, c.conv.weight, active);
    ASSERT_EQ(got.shape(), expected.shape());
    EXPECT_TRUE(allclose(got, expected, 1e-5, 1e-5));

    auto gradients = [&](const Tensor& result, const Tensor& features) {
      for (const Tensor& t : {Tensor(c.conv.weight), Tensor(c.conv.bias), features})
        if (t.defined()) octet::autograd::zero_grad(t);
      octet::autograd::backward(functional::sum(result * Tensor::randn(result.shape(), 4)));
      return std::vector{octet::autograd::grad(c.conv.weight),
                         c.conv.bias.defined() ? octet::autograd::grad(c.conv.bias) : Tensor(),
                         octet::autograd::grad(features)};
    };
    const std::vector<Tensor> sparse = gradients(got, s.features), full = gradients(expected, x);
    EXPECT_TRUE(allclose(sparse[0], full[0], 1e-4, 1e-4));
    if (sparse[1].defined()) {
      EXPECT_TRUE(allclose(sparse[1], full[1], 1e-4, 1e-4));
    }
    EXPECT_TRUE(allclose(dense(s.replace_feature(sparse[2])), full[2] * active, 1e-4, 1e-4));
  }
}

TEST(SparseConv, FusedReluIsReluBehindIt) {
  SparseConv2d conv = SubMConv2d(3, 6, 3);
  const SparseConvTensor s = from_dense(image({1, 3, 6, 6}, 0.5, 7));
  const Tensor rows = make_rules(s, 3, conv.options).rows;
  octet::autograd::set_requires_grad(s.features);
  auto run = [&](bool fused) {
    for (const Tensor& t : {Tensor(conv.weight), Tensor(conv.bias), s.features})
      octet::autograd::zero_grad(t);
    Tensor y = ops::call(kSparseConv2d, {s.features, rows, conv.weight, conv.bias},
                         {{"activation", std::string(fused ? "relu" : "none")}});
    if (!fused) y = functional::relu(y);
    octet::autograd::backward(functional::sum(y * y));
    return std::vector{y, octet::autograd::grad(conv.weight), octet::autograd::grad(conv.bias),
                       octet::autograd::grad(s.features)};
  };
  const std::vector<Tensor> a = run(true), b = run(false);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(allclose(a[i], b[i], 1e-5, 1e-5)) << i;
}

TEST(SparseConv, TypesAreKnownBeforeTheData) {
  for (Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const SparseConvTensor s = from_dense(image(c.image, c.share, 2)), y = c.conv.forward_value(s);
    std::vector<TensorType> in;
    for (const Tensor& t : nn::Value<SparseConvTensor>::tensors(s)) in.push_back(t.type());
    in[0].dims[0] = in[1].dims[0] = octet::Dim("sites");
    const auto types = c.conv.infer(in);
    const std::vector<Tensor> out = nn::Value<SparseConvTensor>::tensors(y);
    ASSERT_TRUE(types);
    ASSERT_EQ(types->size(), out.size());
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(types->at(i).dtype, out[i].dtype());
      ASSERT_EQ(types->at(i).dim(), out[i].dim());
      for (int64_t d = 0; d < out[i].dim(); ++d) {
        const octet::Dim& dim = types->at(i).dims[d];
        EXPECT_TRUE(!dim.known() || dim.size() == out[i].size(d)) << i << ", " << d;
      }
    }
    EXPECT_EQ(types->at(0).dims[0] == octet::Dim("sites"), c.conv.options.submanifold);
  }
}

TEST(SparseConv, SubmanifoldOnesHaveNoStride) {
  EXPECT_THROW(SparseConv2d(1, 1, 3, {.stride = 2, .padding = 1, .submanifold = true}),
               octet::Error);
  EXPECT_THROW(SparseConv2d(1, 1, 2, {.padding = 1, .submanifold = true}), octet::Error);
}

// -- the 8-bit kernel -----------------------------------------------------------------------------

struct CodesCase {
  DType dtype;  // of features and result
  int64_t zx, zy;
  bool per_channel, bias;
  std::string activation;
  double bias_size = 1;
};

TEST(SparseConvCodes, AreExact) {
  const std::vector<CodesCase> codes_cases = {
      {DType::quint8, 0, 0, true, true, "relu"},     {DType::quint8, 131, 77, true, true, "none"},
      {DType::quint8, 3, 200, false, true, "relu"},  {DType::qint8, 0, 0, true, true, "relu"},
      {DType::qint8, -128, 5, true, false, "none"},  {DType::qint8, 17, -100, false, false, "relu"},
      {DType::qint8, 0, 0, true, true, "none", 1e9},  // a bias that does not fit
  };
  for (const CodesCase& q : codes_cases)
    for (Case& c : cases()) {
      SCOPED_TRACE(c.name + ", zx " + std::to_string(q.zx) + ", " + q.activation);
      const int64_t out = c.conv.out_channels, channels = c.conv.in_channels;
      const SparseConvTensor s = from_dense(image(c.image, c.share, 5));
      const Tensor x = quantize_per_tensor(s.features, 0.023, q.zx, q.dtype);
      std::vector<double> scales;
      for (int64_t o = 0; o < (q.per_channel ? out : 1); ++o)
        scales.push_back(0.004 + 0.001 * static_cast<double>(o));
      const Tensor weight =
          q.per_channel
              ? quantize_per_channel(c.conv.weight.detach(), scales,
                                     std::vector<int64_t>(scales.size(), 0), 0, DType::qint8)
              : quantize_per_tensor(c.conv.weight.detach(), scales[0], 2, DType::qint8);
      const Tensor bias = q.bias ? Tensor::randn({out}, 6) * q.bias_size : Tensor();
      const float sy = 0.031f;
      const ops::QType want{q.dtype, octet::Quantizer::per_tensor(sy, q.zy, q.dtype)};
      const Tensor rows = make_rules(s, c.conv.kernel_size, c.conv.options).rows;
      const Tensor y =
          ops::call(kSparseConv2d, {x, rows, weight, bias}, {{"activation", q.activation}}, want);
      ASSERT_EQ(y.dtype(), q.dtype);
      ASSERT_EQ(y.shape(), (Shape{rows.size(0), out}));

      const int32_t bottom = q.dtype == DType::quint8 ? 0 : -128, top = bottom + 255;
      const auto zy = static_cast<int32_t>(q.zy);
      const int32_t lo = q.activation == "relu" ? zy : bottom;
      const Tensor xq = x.int_repr(), wq = weight.int_repr().reshape({out, -1}), yq = y.int_repr();
      const Tensor xd = x.dequantize(), wd = weight.dequantize().reshape({out, -1});
      for (int64_t r = 0; r < y.size(0); ++r)
        for (int64_t o = 0; o < out; ++o) {
          int64_t sum = 0;
          double real = q.bias ? bias.at({o}) : 0;
          for (int64_t k = 0; k < rows.size(1); ++k) {
            const auto row = static_cast<int64_t>(rows.at({r, k}));
            if (row < 0) continue;
            for (int64_t ch = 0; ch < channels; ++ch) {
              sum += (static_cast<int64_t>(xq.at({row, ch})) - q.zx) *
                     (static_cast<int64_t>(wq.at({o, k * channels + ch})) -
                      weight.quantizer()->zero_point(o));
              real += xd.at({row, ch}) * wd.at({o, k * channels + ch});
            }
          }
          const float sx = 0.023f, sw = static_cast<float>(weight.quantizer()->scale(o));
          const int64_t b =
              q.bias ? octet::affine::quantize_bias(static_cast<float>(bias.at({o})), sx, sw) : 0;
          const auto acc = static_cast<int32_t>(sum + b);  // wraps
          ASSERT_EQ(yq.at({r, o}), octet::affine::requantize(acc, sx * sw / sy, zy, lo, top))
              << r << ", " << o;
          if (q.bias_size == 1) {
            const double step = std::clamp(std::nearbyint(real / sy) + zy, double(lo), double(top));
            ASSERT_NEAR(yq.at({r, o}), step, 1) << r << ", " << o;
          }
        }
    }
}

TEST(SparseConvCodes, DoNotDependOnThreads) {
  const SparseConvTensor s = from_dense(image({2, 3, 20, 20}, 0.5, 5));
  SparseConv2d conv = SubMConv2d(3, 8, 3);
  const Tensor x = quantize_per_tensor(s.features, 0.02, 0, DType::qint8),
               w = quantize_per_tensor(conv.weight.detach(), 0.01, 0, DType::qint8);
  const Tensor rows = make_rules(s, 3, conv.options).rows;
  const ops::QType want{DType::qint8, octet::Quantizer::per_tensor(0.05, 0, DType::qint8)};
  const int before = octet::num_threads();
  octet::set_num_threads(1);
  const Tensor one = ops::call(kSparseConv2d, {x, rows, w}, {}, want);
  octet::set_num_threads(2);
  EXPECT_TRUE(equal(ops::call(kSparseConv2d, {x, rows, w}, {}, want), one));
  octet::set_num_threads(before);
}

TEST(SparseConvCodes, WithoutAResultTypeTheResultIsFloat) {
  const SparseConvTensor s = from_dense(image({1, 2, 6, 6}, 0.5, 5));
  SparseConv2d conv = SubMConv2d(2, 3, 3);
  const Tensor x = quantize_per_tensor(s.features, 0.02, 0, DType::qint8);
  const Tensor rows = make_rules(s, 3, conv.options).rows;
  EXPECT_TRUE(equal(ops::call(kSparseConv2d, {x, rows, conv.weight.detach()}),
                    ops::call(kSparseConv2d, {x.dequantize(), rows, conv.weight.detach()})));
}

// -- modules on codes -----------------------------------------------------------------------------

TEST(SparseConvQuantized, FoldedBatchNormComputesTheSame) {
  SparseConv2d conv(3, 4, 2, {.stride = 2, .bias = false});
  SparseBatchNorm bn(4);
  bn.running_mean.copy_from(Tensor::randn({4}, 1));
  bn.running_var.copy_from(Tensor::rand({4}, 2, 0.5, 2));
  bn.weight.copy_from(Tensor::randn({4}, 3));
  bn.bias.copy_from(Tensor::randn({4}, 4));
  bn.eval();
  const SparseConvTensor x = from_dense(image({2, 3, 6, 6}, 0.4, 5));
  EXPECT_TRUE(allclose(fold_batch_norm(conv, bn)->forward_value(x).features,
                       static_cast<nn::BatchNorm1d&>(bn).forward(conv.forward_value(x).features),
                       1e-4, 1e-5));
}

TEST(SparseConvQuantized, IsTheReferenceOneWithinAStepAndIsSaved) {
  for (bool relu : {false, true})
    for (DType dtype : {DType::quint8, DType::qint8}) {
      SCOPED_TRACE(std::string(relu ? "relu, " : "") + octet::to_string(dtype));
      nn::ModulePtr layer =
          nn::make<SparseConv2d>(6, 8, 3, SparseConvOptions{.stride = 2, .padding = 1});
      layer->as<SparseConv2d>().bias.copy_from(Tensor::randn({8}, 9));
      if (relu) layer = nn::make<SparseConvReLU>(layer, nn::make<SparseReLU>());
      layer->qconfig = dtype == DType::quint8
                           ? quant::get_default_qconfig()
                           : quant::default_per_channel_symmetric_qnnpack_qconfig();
      layer->eval();

      SparseConvTensor x = from_dense(image({2, 6, 9, 9}, 0.3, 5));
      x.features = quantize_per_tensor(x.features, 0.03, dtype == DType::quint8 ? 128 : 0, dtype);
      const SparseConvTensor xf = x.replace_feature(x.features.dequantize());
      auto reference = relu ? ReferenceSparseConvReLU::from_float(*layer)
                            : ReferenceSparseConv::from_float(*layer);
      EXPECT_TRUE(reference->weight().quantizer()->is_per_channel());
      auto run = [](nn::Module& m, const SparseConvTensor& in) {
        return nn::Value<SparseConvTensor>::from(
            m.forward(nn::Value<SparseConvTensor>::tensors(in)));
      };
      const SparseConvTensor expected = run(*reference, xf);
      EXPECT_TRUE(allclose(expected.features, run(*layer, xf).features, 0.05, 0.1));

      auto observer = std::any_cast<quant::QConfig>(layer->qconfig).activation.make("y");
      observer->observe(expected.features);
      reference->add_child("activation_post_process", observer);
      nn::ModulePtr quantized = relu
                                    ? nn::ModulePtr(QuantizedSparseConvReLU::from_float(*reference))
                                    : QuantizedSparseConv::from_float(*reference);
      const SparseConvTensor y = run(*quantized, x);
      EXPECT_EQ(y.features.dtype(), dtype);
      EXPECT_TRUE(equal(y.indices, expected.indices));
      const Tensor q = quantize(expected.features, y.features.quantizer(), dtype);
      EXPECT_TRUE(allclose(y.features, q, 0, 1.001 * y.features.q_scale()));
      std::vector<TensorType> in;
      for (const Tensor& t : nn::Value<SparseConvTensor>::tensors(x)) in.push_back(t.type());
      const TensorType said = quantized->infer(in)->at(0);
      EXPECT_EQ(said.dtype, dtype);
      EXPECT_TRUE(*said.quantizer == *y.features.quantizer());

      const auto path =
          std::filesystem::temp_directory_path() /
          ("sparse_conv_" + std::to_string(relu) + octet::to_string(dtype) + ".octet");
      octet::save_model(path, *quantized);
      nn::ModulePtr loaded = octet::load_model(path);
      EXPECT_EQ(nn::to_string(*loaded), nn::to_string(*quantized));
      EXPECT_TRUE(equal(run(*loaded, x).features, y.features));
      std::filesystem::remove(path);
      EXPECT_THROW(run(*quantized, xf), octet::Error);
    }
}

// -- the network ----------------------------------------------------------------------------------

// The network on dense images, masked after each stage.
Tensor dense_network(SparseMnist& net, const Tensor& images) {
  SparseConvTensor sites = from_dense(images);
  Tensor x = images;
  for (size_t i = 0; i < 6; ++i) {
    nn::Module& stage = *net.submodule("net." + std::to_string(i));
    auto& conv = i < 5 ? stage.submodule("0")->as<SparseConv2d>() : stage.as<SparseConv2d>();
    x = dense_conv(conv, x, conv.weight, mask(sites));
    if (i == 5) break;
    sites = conv.forward_value(
        sites.replace_feature(Tensor::ones({sites.indices.size(0), conv.in_channels})));
    auto& bn = stage.submodule("1")->as<nn::BatchNorm>();
    x = ops::call("batch_norm", {x, bn.weight, bn.bias, bn.running_mean, bn.running_var},
                  {{"eps", bn.options.eps}});
    x = functional::relu(x) * mask(sites);
  }
  return functional::log_softmax(functional::flatten(x, 1), 1);
}

TEST(SparseMnist, IsTheDenseNetworkMasked) {
  auto net = nn::make<SparseMnist>(4);
  const Digits digits = made_up_digits(32, 1);
  net->train();
  for (int i = 0; i < 3; ++i) net->forward(digits.inputs(0, 32));  // statistics
  net->eval();
  EXPECT_TRUE(allclose(net->forward(digits.inputs(0, 8)).at(0),
                       dense_network(*net, digits.first(8).images), 1e-3, 1e-4));
}

TEST(SparseMnist, AnImageWithoutASiteHasOnlyTheBiases) {
  auto net = nn::make<SparseMnist>(4);
  net->eval();
  Digits digits = made_up_digits(2, 1);
  digits.images.slice(0, 0, 1).copy_from(Tensor::zeros({1, 1, 28, 28}));
  const Tensor y = net->forward(digits.inputs(0, 2)).at(0);
  ASSERT_EQ(y.shape(), (Shape{2, 10}));
  for (int64_t c = 0; c < 10; ++c) EXPECT_NEAR(y.at({0, c}), -std::log(10), 1e-6);
  // no site in the batch
  EXPECT_EQ(net->forward(digits.inputs(0, 1)).at(0).shape(), (Shape{1, 10}));
}

TEST(SparseMnist, IsSavedAndLoaded) {
  auto net = nn::make<SparseMnist>(4);
  net->eval();
  const auto path = std::filesystem::temp_directory_path() / "sparse_mnist_test.octet";
  octet::save_model(path, *net);
  auto loaded = octet::load_model<SparseMnist>(path);
  loaded->eval();
  const Digits digits = made_up_digits(4, 1);
  EXPECT_TRUE(
      equal(net->forward(digits.inputs(0, 4)).at(0), loaded->forward(digits.inputs(0, 4)).at(0)));
  std::filesystem::remove(path);
}

TEST(SparseMnist, IsTracedWithItsTensorType) {
  auto net = nn::make<SparseMnist>(4);
  net->eval();
  octet::graph::TraceOptions options;
  options.leaf_classes = {typeid(SparseConv2d), typeid(SparseBatchNorm), typeid(SparseReLU),
                          typeid(ToDense)};
  const std::vector<TensorType> types = input_types();
  auto traced = octet::graph::trace(
      *net, std::vector<std::optional<TensorType>>(types.begin(), types.end()), options);
  const std::string text = print(traced->graph());
  // What is not known before the data has a name.
  for (const char* part :
       {"%net.0.0.features: Float(rows, 4), %net.0.0.indices: Int(rows, 3), "
        "%net.0.0.spatial_shape: Long(2), ",
        "%net.2.0.features: Float(net.2.0.rows, 8), %net.2.0.indices: Int(net.2.0.rows, 3)",
        "%dense: Float(dense.batch, 10, 1, 1) = module ToDense(%net.5.features, "})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  for (int64_t n : {1, 5}) {
    const std::vector<Tensor> x = made_up_digits(n, 3).inputs(0, n);
    EXPECT_TRUE(equal(traced->forward(x).at(0), net->forward(x).at(0)));
  }
}

TEST(SparseMnist, LearnsWhatWasMadeUp) {
  octet::manual_seed(1);
  auto net = nn::make<SparseMnist>(4);
  train(*net, made_up_digits(1000, 1), {.epochs = 3, .batch_size = 32, .lr = 1e-2});
  EXPECT_GT(accuracy(*net, made_up_digits(200, 2)), 0.9);
}

// -- graph mode -----------------------------------------------------------------------------------

// A network whose batch norms have seen something, observed and calibrated.
template <typename Net>
std::pair<std::shared_ptr<Net>, std::shared_ptr<quant::ObservedGraphModule>> calibrated(
    DType activation) {
  octet::manual_seed(3);
  auto net = nn::make<Net>(4);
  const Digits digits = made_up_digits(64, 1);
  net->train();
  for (int i = 0; i < 20; ++i) net->forward(digits.inputs(0, 64));
  net->eval();
  auto prepared = quant::prepare_fx(net, sparse_qconfig_mapping(activation), input_types(), {},
                                    sparse_backend());
  for (int64_t i = 0; i < 64; i += 16) prepared->forward(digits.inputs(i, i + 16));
  return {net, prepared};
}

// The text of a graph, the numbers of its types left out.
std::string skeleton(const octet::graph::Graph& g) {
  return std::regex_replace(print(g, {.constants = false}),
                            std::regex(" scale=[^ ,]* zero_point=[-0-9]*"), "");
}
size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SparseMnistInt8, EveryStageIsTheUsersKernelAndIndicesPassThrough) {
  for (auto [dtype, name] :
       {std::pair(DType::quint8, "QUInt8"), std::pair(DType::qint8, "QInt8")}) {
    SCOPED_TRACE(name);
    auto [net, prepared] = calibrated<SparseMnist>(dtype);
    quant::ConversionReport report;
    auto int8 = quant::convert_fx(prepared, {}, sparse_backend(), &report);
    const std::string text = skeleton(int8->graph());
    // One value after another is codes, indices are integers as they were.
    std::string expected = R"(graph SparseMnist {
  %x0: Float(rows, 1) = input
  %x1: Int(rows, 3) = input
  %x2: Long(1) = input
  %x0.quantized: Q(rows, 1) = quantize(%x0)
)";
    std::string x = "%x0.quantized, %x1, %spatial_shape, %x2", rows = "rows";
    for (int i = 0; i < 6; ++i) {
      const std::string path = "net." + std::to_string(i) + (i < 5 ? ".0" : "");
      if (i >= 2) rows = path + ".rows";
      const char* channels = i == 0 ? "4" : i < 5 ? "8" : "10";
      expected += "  %" + path + ".features: Q(" + rows + ", " + channels + "), %" + path +
                  ".indices: Int(" + rows + ", 3), %" + path + ".spatial_shape: Long(2), %" + path +
                  ".batch_size: Long(1) = module QuantizedSparseConv" + (i < 5 ? "ReLU" : "") +
                  "(" + x + ")  @ " + path + "\n";
      x = "%" + path + ".features, %" + path + ".indices, %" + path + ".spatial_shape, %" + path +
          ".batch_size";
    }
    expected += "  %dense: Q(dense.batch, 10, 1, 1) = module ToDense(" + x +
                R"()  @ dense
  %flatten: Q(dense.batch, 10) = flatten(%dense)
  %flatten.dequantized: Float(dense.batch, 10) = dequantize(%flatten)
  %log_softmax: Float(dense.batch, 10) = log_softmax(%flatten.dequantized, dim=1))"
                R"( stays float  # it has no qconfig
  return (%log_softmax)
}
)";
    EXPECT_EQ(text, std::regex_replace(expected, std::regex("Q\\("), std::string(name) + "("));
    ASSERT_EQ(report.left_float().size(), 1u);
    EXPECT_EQ(report.left_float()[0].op, "log_softmax");
    // Nothing happened to the float network.
    EXPECT_EQ(net->submodule("net.0.0")->type_name(), "SparseConv2d");
    const std::vector<Tensor> in = made_up_digits(8, 9).inputs(0, 8);
    EXPECT_TRUE(allclose(int8->forward(in).at(0), net->forward(in).at(0), 0.05, 0.15));
  }
}

TEST(SparseMnistInt8, IsTheReferenceGraphWithinSteps) {
  auto [net, prepared] = calibrated<SparseMnist>(DType::qint8);
  auto reference = quant::convert_to_reference_fx(prepared, {}, sparse_backend());
  auto int8 = quant::lower(reference, sparse_backend());
  const std::string text = print(reference->graph());
  EXPECT_EQ(count(text, "module ReferenceSparseConvReLU(%"), 5u);
  EXPECT_EQ(count(text, "module ReferenceSparseConv(%"), 1u);
  EXPECT_EQ(count(text, "module Quantized"), 0u);
  const std::vector<Tensor> in = made_up_digits(8, 9).inputs(0, 8);
  const double step = int8->submodule("net.5")->as<QuantizedSparseConv>().scale();
  EXPECT_TRUE(allclose(int8->forward(in).at(0), reference->forward(in).at(0), 0, 3 * step));
}

TEST(SparseMnistInt8, APredicateKeepsOneStageAsReference) {
  auto [net, prepared] = calibrated<SparseMnist>(DType::qint8);
  auto reference = quant::convert_to_reference_fx(prepared, {}, sparse_backend());
  auto int8 = quant::lower(reference, sparse_backend(),
                           [](const octet::graph::Graph&, const octet::graph::Node& node) {
                             return node.scope != "net.5";
                           });
  const std::string text = skeleton(int8->graph());
  // As in the report that the example follows: only stages with a relu are the user's kernels.
  EXPECT_EQ(count(text, "module QuantizedSparseConvReLU(%"), 5u);
  EXPECT_NE(text.find("%net.4.0.features.dequantized: Float(net.4.0.rows, 8) = "
                      "dequantize(%net.4.0.features)\n  %net.5.features.float: "
                      "Float(net.5.rows, 10), "),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("%net.5.features: QInt8(net.5.rows, 10) = quantize(%net.5.features.float)"),
            std::string::npos)
      << text;
}

TEST(SparseMnistInt8, LinearAndConvStayBetweenQuantizeAndDequantize) {
  auto [net, prepared] = calibrated<MixedMnist>(DType::qint8);
  const quant::BackendConfig backend = sparse_backend_for_explicit_qdq();
  auto qdq = quant::convert_fx(prepared, {}, backend);
  const std::string text = skeleton(qdq->graph());
  EXPECT_EQ(count(text, "module QuantizedSparseConvReLU(%"), 5u);
  EXPECT_NE(text.find(R"(%dense.dequantized: Float(dense.batch, 8, 4, 4) = dequantize(%dense)
  %conv.float: Float(dense.batch, 16, 4, 4) = module )"
                      R"(QuantizedReferenceConvReLU2d(%dense.dequantized)  @ conv
  %conv: QInt8(dense.batch, 16, 4, 4) = quantize(%conv.float)
  %flatten: QInt8(dense.batch, 256) = flatten(%conv)
  %flatten.dequantized: Float(dense.batch, 256) = dequantize(%flatten)
  %fc.float: Float(dense.batch, 10) = module QuantizedReferenceLinear(%flatten.dequantized)  @ fc
  %fc: QInt8(dense.batch, 10) = quantize(%fc.float)
)"),
            std::string::npos)
      << text;
  // For the engine: operators between quantize and dequantize, weights as codes, the sparse layers
  // as they were.
  const octet::graph::Graph exported = export_qdq(*qdq);
  const std::string out = skeleton(exported);
  EXPECT_EQ(count(out, "module QuantizedSparseConvReLU(%"), 5u);
  EXPECT_NE(
      out.find(R"(  %conv.weight.dequantized: Float(16, 8, 3, 3) = dequantize(%conv.weight)  @ conv
  %conv.conv2d: Float(dense.batch, 16, 4, 4) = conv2d()"
               R"(%dequantize, %conv.weight.dequantized, %conv.bias, )"
               R"(activation="relu", padding=[1, 1, 1, 1])  @ conv
  %quantize_1: QInt8(dense.batch, 16, 4, 4) = quantize(%conv.conv2d)
)"),
      std::string::npos)
      << out;
  EXPECT_NE(out.find(R"(  %fc.weight.dequantized: Float(10, 256) = dequantize(%fc.weight)  @ fc
  %fc.linear: Float(dense.batch, 10) = linear(%dequantize_1, %fc.weight.dequantized, %fc.bias)  @ fc
  %quantize_2: QInt8(dense.batch, 10) = quantize(%fc.linear)
)"),
            std::string::npos)
      << out;
  // It computes the same.
  octet::graph::GraphModule same(exported, *qdq);
  same.eval();
  EXPECT_TRUE(allclose(same.forward(made_up_digits(8, 9).inputs(0, 8)).at(0),
                       qdq->forward(made_up_digits(8, 9).inputs(0, 8)).at(0), 0, 1e-5));
  // All of it runs, and in 8 bits throughout where the backend lowers those layers too.
  auto int8 = quant::convert_fx(prepared, {}, sparse_backend());
  EXPECT_EQ(count(skeleton(int8->graph()), "dequantize("), 1u);
  const std::vector<Tensor> in = made_up_digits(8, 9).inputs(0, 8);
  const double step = int8->submodule("fc")->as<nn::quantized::Linear>().scale;
  EXPECT_TRUE(allclose(int8->forward(in).at(0), qdq->forward(in).at(0), 0, 3 * step));
}

TEST(SparseMnistInt8, EveryStageOfTheWorkIsSavedAndLoaded) {
  auto [net, prepared] = calibrated<SparseMnist>(DType::quint8);
  auto reference = quant::convert_to_reference_fx(prepared, {}, sparse_backend());
  auto int8 = quant::lower(reference, sparse_backend());
  const std::vector<Tensor> in = made_up_digits(8, 9).inputs(0, 8);
  const auto path = std::filesystem::temp_directory_path() / "sparse_mnist_int8_test.octet";
  for (const std::shared_ptr<octet::graph::GraphModule>& model : {reference, int8}) {
    octet::save_model(path, *model);
    auto loaded = octet::load_model<octet::graph::GraphModule>(path);
    EXPECT_EQ(print(loaded->graph(), {.full = true}), print(model->graph(), {.full = true}));
    EXPECT_TRUE(equal(loaded->forward(in).at(0), model->forward(in).at(0)));
  }
  octet::save_model(path, *prepared);
  auto loaded = octet::load_model<quant::ObservedGraphModule>(path);
  EXPECT_TRUE(equal(quant::convert_fx(loaded, {}, sparse_backend())->forward(in).at(0),
                    int8->forward(in).at(0)));
  std::filesystem::remove(path);
}

TEST(SparseMnistInt8, TheBackendIsKeptAsJson) {
  for (const quant::BackendConfig& backend : {sparse_backend(), sparse_backend_for_explicit_qdq()})
    EXPECT_TRUE(quant::BackendConfig::from_json(backend.to_json()) == backend);
  EXPECT_FALSE(sparse_backend() == sparse_backend_for_explicit_qdq());
}

TEST(DataSparseMnist, LearnsDigitsAndKeepsThemIn8Bits) {
  OCTET_NEED_DATA("mnist");
  octet::manual_seed(1);
  auto net = nn::make<SparseMnist>(32);
  const Digits digits = load_mnist(mnist_dir() / "train20000.npz").first(3000),
               test = load_mnist(mnist_dir() / "test5000.npz").first(2000);
  train(*net, digits, {});
  const double right = accuracy(*net, test);
  EXPECT_GT(right, 0.95);
  for (DType dtype : {DType::quint8, DType::qint8}) {
    auto prepared =
        quant::prepare_fx(net, sparse_qconfig_mapping(dtype), input_types(), {}, sparse_backend());
    for (int64_t i = 0; i < 200; i += 50) prepared->forward(digits.inputs(i, i + 50));
    EXPECT_NEAR(accuracy(*quant::convert_fx(prepared, {}, sparse_backend()), test), right, 0.005)
        << octet::to_string(dtype);
  }
}

}  // namespace
}  // namespace sparse
