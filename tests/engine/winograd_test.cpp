// When 3x3 convolutions go by Winograd's algorithms. That their results are right then is shown by
// exactness_test.cpp and float_exactness_test.cpp.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/engine/engine.h"
#include "octet/engine/winograd_tiles_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/op.h"
#include "tests/engine/defaults.h"

namespace octet {
namespace {

// Of N images of so many channels, whose sizes may be open.
std::vector<Dim> image_dims(int64_t channels, int64_t side, bool known) {
  const std::string n = "N", h = "H", w = "W";
  return known ? std::vector<Dim>{n, channels, side, side} : std::vector<Dim>{n, channels, h, w};
}

bool is_winograd(const Kernel& kernel) {
  const bool by_name = kernel.name().find("winograd") != std::string::npos;
  EXPECT_EQ(kernel.description().loop.find("winograd") != std::string::npos, by_name);
  return by_name;
}

// A kernel of a constant weight of that shape, without a bias, on x into y.
void run(const Kernel& kernel, const Tensor& x, const Shape& weight, Tensor& y) {
  const auto plan = kernel.plan({x.shape(), weight, {}}, {y.shape()});
  Buffer scratch = Buffer::allocate(plan->scratch_bytes());
  const void* inputs[] = {x.raw_data(), nullptr, nullptr};
  void* outputs[] = {y.raw_data()};
  plan->run(inputs, outputs, scratch.data());
}

struct Conv {
  int64_t c = 64, oc = 64, side = 56, stride = 1, groups = 1;
  int code = 3;  // of all weights
  int64_t weight_zero_point = 0;
  bool known_size = true;
};

std::unique_ptr<Kernel> kernel_of(const Conv& v) {
  const auto codes = [](int64_t zero_point, DType dtype) {
    return Quantizer::per_tensor(0.05, zero_point, dtype);
  };
  Tensor w = Tensor::empty({v.oc, v.c / v.groups, 3, 3}, DType::qint8,
                           codes(v.weight_zero_point, DType::qint8));
  std::fill_n(w.data<int8_t>(), w.numel(), static_cast<int8_t>(v.code));
  const auto dims = [&](int64_t channels, int64_t side) {
    return image_dims(channels, side, v.known_size);
  };
  const ops::Op& op = ops::get("conv2d");
  const Attrs given{{"padding", std::vector<int64_t>{1, 1, 1, 1}},
                    {"stride", std::vector<int64_t>{v.stride, v.stride}},
                    {"groups", v.groups}};
  return make_kernel(
      ops::make_spec(op, op.complete(given),
                     {TensorType(DType::quint8, dims(v.c, v.side), codes(7, DType::quint8)),
                      w.type(), std::nullopt},
                     {Tensor(), w, Tensor()},
                     {TensorType(DType::quint8, dims(v.oc, (v.side + v.stride - 1) / v.stride),
                                 codes(100, DType::quint8))},
                     "conv"));
}

bool is_winograd(const Conv& v) { return is_winograd(*kernel_of(v)); }

class Winograd : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::table().winograd) GTEST_SKIP() << to_string(current_isa()) << " has none";
  }
};

TEST_F(Winograd, LargeImagesOfManyChannelsTakeIt) {
  EXPECT_TRUE(is_winograd({}));
  EXPECT_TRUE(is_winograd({.c = 128, .oc = 128, .side = 28}));
  EXPECT_TRUE(is_winograd({.known_size = false}));
}

TEST_F(Winograd, FewChannelsAndTinyImagesDoNot) {
  EXPECT_FALSE(is_winograd({.c = 3}));
  EXPECT_FALSE(is_winograd({.c = 8, .oc = 8}));
  EXPECT_FALSE(is_winograd({.c = 512, .oc = 512, .side = 3}));
}

TEST_F(Winograd, OtherConvolutionsDoNot) {
  EXPECT_FALSE(is_winograd({.stride = 2}));
  EXPECT_FALSE(is_winograd({.groups = 2}));
  EXPECT_FALSE(is_winograd({.weight_zero_point = 1}));
}

// The sum of 9 * 128 weights of 127 times 128 is below 2^25, of 9 * 256 it is not.
TEST_F(Winograd, SumsThatItsExactFormCannotHoldDoNot) {
  EXPECT_TRUE(is_winograd({.c = 128, .code = 127}));
  EXPECT_FALSE(is_winograd({.c = 256, .code = 127}));
  EXPECT_TRUE(is_winograd({.c = 256, .code = 100}));
  EXPECT_FALSE(is_winograd({.c = 256, .code = -128}));
  // In two parts.
  EXPECT_TRUE(is_winograd({.c = 1024, .code = 50}));
  EXPECT_FALSE(is_winograd({.c = 1024, .code = 60}));
}

TEST_F(Winograd, MatricesOfTheProductStayWhereImagesMayBeSmall) {
  const auto known = kernel_of({}), unknown = kernel_of({.known_size = false});
  const size_t winograd = kernels::table().winograd_packed_bytes(64, 64);
  EXPECT_EQ(known->packed_bytes(), winograd);
  EXPECT_GE(unknown->packed_bytes(), winograd + 64 * 64 * 9);
}

// One kernel for all sizes: large images by Winograd's algorithm, small ones by a matrix product.
TEST_F(Winograd, ImagesOfEverySizeAreExactWithOneKernel) {
  testing::Defaults defaults;
  const auto kernel = kernel_of({.c = 16, .oc = 32, .known_size = false});
  for (const int64_t side : {1, 2, 3, 4, 5, 9, 17, 40}) {
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      const Shape in{2, 16, side, side}, out{2, 32, side, side};
      const Tensor x = quantize_per_tensor(Tensor::rand(in, 5, -1, 10), 0.05, 7, DType::quint8)
                           .contiguous(MemoryFormat::channels_last);
      Tensor w =
          Tensor::empty({32, 16, 3, 3}, DType::qint8, Quantizer::per_tensor(0.05, 0, DType::qint8));
      std::fill_n(w.data<int8_t>(), w.numel(), int8_t{3});
      Tensor y = Tensor::empty(out, DType::quint8, Quantizer::per_tensor(0.05, 100, DType::quint8),
                               MemoryFormat::channels_last);
      run(*kernel, x, w.shape(), y);
      set_engine("reference");
      const Tensor expected =
          ops::call("conv2d", {x, w, Tensor()}, {{"padding", std::vector<int64_t>{1, 1, 1, 1}}},
                    ops::QType{DType::quint8, Quantizer::per_tensor(0.05, 100, DType::quint8)});
      set_engine("native");
      EXPECT_TRUE(equal(y, expected)) << side << ", " << threads << " threads";
    }
  }
}

struct FloatConv {
  int64_t c = 16, oc = 16, side = 14;
  std::vector<int64_t> kernel{3, 3}, stride{1, 1}, dilation{1, 1};
  int64_t groups = 1;
  bool known_size = true;
  bool constant = true;
};

std::unique_ptr<Kernel> kernel_of(const FloatConv& v) {
  const Tensor w = Tensor::rand({v.oc, v.c / v.groups, v.kernel[0], v.kernel[1]}, 3, -1, 1);
  const auto dims = [&](int64_t channels, int64_t side) {
    return image_dims(channels, side, v.known_size);
  };
  const ops::Op& op = ops::get("conv2d");
  const std::vector<int64_t>& d = v.dilation;
  const std::vector<int64_t> padding{d[0], d[1], d[0], d[1]};
  return make_kernel(ops::make_spec(
      op,
      op.complete(
          {{"padding", padding}, {"dilation", d}, {"stride", v.stride}, {"groups", v.groups}}),
      {TensorType(DType::float32, dims(v.c, v.side)), w.type(), std::nullopt},
      {Tensor(), v.constant ? w : Tensor(), Tensor()},
      {TensorType(DType::float32, dims(v.oc, (v.side + v.stride[0] - 1) / v.stride[0]))}, "conv"));
}

bool is_winograd(const FloatConv& v) { return is_winograd(*kernel_of(v)); }

TEST(FloatWinograd, LayersOf16ChannelsTakeIt) {
  EXPECT_TRUE(is_winograd(FloatConv{}));
  EXPECT_FALSE(is_winograd(FloatConv{.c = 15}));
  EXPECT_FALSE(is_winograd(FloatConv{.oc = 15}));
}

TEST(FloatWinograd, OtherWindowsDoNot) {
  EXPECT_FALSE(is_winograd(FloatConv{.kernel = {3, 1}}));
  EXPECT_FALSE(is_winograd(FloatConv{.kernel = {5, 5}}));
  EXPECT_FALSE(is_winograd(FloatConv{.stride = {1, 2}}));
  EXPECT_FALSE(is_winograd(FloatConv{.c = 32, .oc = 32, .groups = 2}));
  EXPECT_FALSE(is_winograd(FloatConv{.constant = false}));
}

// Three quarters of the multiplications may be left: 3x3 results are 4 tiles of 16 products in
// place of 81, 5x5 are 9 in place of 225; a dilation as large as the image makes each result a
// tile.
TEST(FloatWinograd, ImagesThatFillFewOfTheirTilesDoNot) {
  EXPECT_FALSE(is_winograd(FloatConv{.side = 1}));
  EXPECT_FALSE(is_winograd(FloatConv{.side = 3}));
  EXPECT_TRUE(is_winograd(FloatConv{.side = 2}));
  EXPECT_TRUE(is_winograd(FloatConv{.side = 5}));
  EXPECT_TRUE(is_winograd(FloatConv{.dilation = {7, 7}}));
  EXPECT_FALSE(is_winograd(FloatConv{.dilation = {14, 1}}));
  EXPECT_FALSE(is_winograd(FloatConv{.dilation = {1, 14}}));
}

TEST(FloatWinograd, OneValueThatIsNotFiniteIsFoundWhereverItIs) {
  for (const int64_t n : {1, 15, 16, 33})
    for (int64_t i = 0; i < n; ++i)
      for (const float value : {INFINITY, -INFINITY, NAN, 3e38f}) {
        Tensor t = Tensor::ones({n});
        t.data<float>()[i] = value;
        EXPECT_EQ(engine_detail::all_finite(t), value == 3e38f) << i << " of " << n;
      }
  EXPECT_TRUE(engine_detail::all_finite(Tensor::ones({0})));
}

TEST(FloatWinograd, MatricesOfTheProductAreKeptOnlyWhereSizesAreOpen) {
  const size_t winograd = kernels::table().float_winograd_packed_bytes(16, 16);
  EXPECT_EQ(kernel_of(FloatConv{})->packed_bytes(), winograd);
  EXPECT_GE(kernel_of(FloatConv{.known_size = false})->packed_bytes(),
            winograd + 16 * 16 * 9 * sizeof(float));
}

TEST(FloatWinograd, ImagesOfEverySizeHaveTheReferenceEnginesBitsWithOneKernel) {
  testing::Defaults defaults;
  const auto kernel = kernel_of(FloatConv{.oc = 40, .known_size = false});
  const Tensor w = Tensor::rand({40, 16, 3, 3}, 3, -1, 1);
  for (const int64_t side : {1, 2, 3, 4, 5, 9, 17, 40}) {
    const Tensor x =
        Tensor::rand({2, 16, side, side}, 5, -1, 10).contiguous(MemoryFormat::channels_last);
    set_engine("reference");
    const Tensor expected =
        ops::call("conv2d", {x, w, Tensor()}, {{"padding", std::vector<int64_t>(4, 1)}});
    set_engine("native");
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      Tensor y =
          Tensor::empty({2, 40, side, side}, DType::float32, nullptr, MemoryFormat::channels_last);
      run(*kernel, x, w.shape(), y);
      EXPECT_TRUE(equal(y, expected)) << side << ", " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace octet
