// Convolutions whose padding is not zeros, and those padded "same" or "valid".
#include <gtest/gtest.h>

#include <filesystem>

#include "octet/autograd/autograd.h"
#include "octet/io/module_file.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::nn {
namespace {

namespace F = functional;
using testing::expect_error;

// Which of n elements a place shows that is outside, PyTorch's padding_mode; -1: a zero.
int64_t source(int64_t i, int64_t n, const std::string& mode) {
  if (i >= 0 && i < n) return i;
  if (mode == "reflect") return i < 0 ? -i : 2 * n - 2 - i;
  if (mode == "replicate") return i < 0 ? 0 : n - 1;
  if (mode == "circular") return (i + n) % n;
  return -1;
}

// One output channel of one image (C, H, W) by loops, with `before` rows and columns in front.
double conv_at(const Tensor& x, const Tensor& w, int64_t o, int64_t row, int64_t column,
               const Shape& before, int64_t stride, int64_t dilation, const std::string& mode) {
  double sum = 0;
  for (int64_t c = 0; c < w.size(1); ++c)
    for (int64_t i = 0; i < w.size(2); ++i)
      for (int64_t j = 0; j < w.size(3); ++j) {
        const int64_t r = source(row * stride + i * dilation - before[0], x.size(1), mode),
                      s = source(column * stride + j * dilation - before[1], x.size(2), mode);
        if (r >= 0 && s >= 0) sum += double(x.at({c, r, s})) * double(w.at({o, c, i, j}));
      }
  return sum;
}

void expect_conv(const Conv2d& conv, const Tensor& x, const Tensor& y, const Shape& before) {
  for (int64_t o = 0; o < y.size(1); ++o)
    for (int64_t i = 0; i < y.size(2); ++i)
      for (int64_t j = 0; j < y.size(3); ++j)
        ASSERT_NEAR(
            y.at({1, o, i, j}),
            conv_at(x.select(0, 1), conv.weight.detach(), o, i, j, before, conv.options.stride[0],
                    conv.options.dilation[0], conv.options.padding_mode),
            1e-5)
            << to_string(conv) << " at " << o << ", " << i << ", " << j;
}

TEST(PaddingMode, EveryModeByLoops) {
  const Tensor x = Tensor::randn({2, 3, 6, 7}, 1);
  for (const char* mode : {"zeros", "reflect", "replicate", "circular"}) {
    auto conv = make<Conv2d>(
        3, 4, Sizes<2>{3, 2},
        ConvOptions<2>{
            .stride = 2, .padding = {2, 1}, .dilation = 2, .bias = false, .padding_mode = mode});
    const Tensor y = (*conv)(x).detach();
    ASSERT_EQ(y.shape(), (Shape{2, 4, 3, 4})) << mode;
    expect_conv(*conv, x, y, {2, 1});
    EXPECT_TRUE(equal((*conv)(x.select(0, 1)).detach(), y.select(0, 1)))
        << "without the batch dimension";
  }
}

// As pads before a convolution without padding: over 1 and 3 dimensions, gradients too.
template <typename Conv, size_t N>
void expect_pad_before(const Shape& image, const Sizes<N>& padding) {
  std::vector<int64_t> pads;
  for (size_t i = N; i-- > 0;) pads.insert(pads.end(), {padding[i], padding[i]});
  for (const char* mode : {"reflect", "replicate", "circular"}) {
    auto conv = make<Conv>(3, 4, 3, ConvOptions<N>{.padding = padding, .padding_mode = mode});
    auto plain = make<Conv>(3, 4, 3);
    plain->weight = conv->weight;
    plain->bias = conv->bias;
    Tensor a = Tensor::randn(image, 2), b = a.clone();
    autograd::set_requires_grad(a);
    autograd::set_requires_grad(b);
    Tensor y = (*conv)(a), z = (*plain)(F::pad(b, pads, mode));
    EXPECT_TRUE(equal(y.detach(), z.detach())) << mode;
    const Tensor dy = Tensor::randn(y.shape(), 3);
    autograd::backward(y, dy);
    autograd::backward(z, dy);
    EXPECT_TRUE(equal(autograd::grad(a), autograd::grad(b))) << mode;
  }
}

TEST(PaddingMode, OneAndThreeDimensions) {
  expect_pad_before<Conv1d, 1>({2, 3, 9}, 2);
  expect_pad_before<Conv2d, 2>({2, 3, 5, 4}, {2, 1});
  expect_pad_before<Conv3d, 3>({2, 3, 4, 5, 3}, {1, 0, 2});
}

TEST(PaddingMode, SameKeepsTheSizeAndPadsTheOddElementBehind) {
  const Tensor x = Tensor::randn({2, 3, 6, 7}, 1);
  for (const char* mode : {"zeros", "reflect", "replicate", "circular"}) {
    auto conv =
        make<Conv2d>(3, 4, Sizes<2>{4, 2},
                     ConvOptions<2>{.padding = "same", .bias = false, .padding_mode = mode});
    const Tensor y = (*conv)(x).detach();
    ASSERT_EQ(y.shape(), (Shape{2, 4, 6, 7})) << mode;
    expect_conv(*conv, x, y, {1, 0});
  }
  auto even = make<Conv1d>(3, 4, 3, ConvOptions<1>{.padding = "same", .dilation = 2});
  const Tensor line = Tensor::randn({2, 3, 9}, 2);
  EXPECT_TRUE(
      equal((*even)(line).detach(), F::conv1d(line, even->weight, even->bias, 1, 2, 2).detach()));
  EXPECT_TRUE(equal((*even)(line).detach(),
                    F::conv1d(line, even->weight, even->bias, 1, "same", 2).detach()));
  auto valid = make<Conv3d>(3, 4, 2, ConvOptions<3>{.stride = 2, .padding = "valid"});
  const Tensor volume = Tensor::randn({1, 3, 4, 4, 5}, 3);
  EXPECT_TRUE(
      equal((*valid)(volume).detach(), F::conv3d(volume, valid->weight, valid->bias, 2).detach()));
}

TEST(PaddingMode, IsPrintedAsPyTorchDoes) {
  EXPECT_EQ(to_string(Conv2d(3, 4, 3, {.padding = 1, .bias = false, .padding_mode = "circular"})),
            "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, "
            "padding_mode=circular)");
  EXPECT_EQ(to_string(Conv1d(3, 4, 3, {.padding = "same", .padding_mode = "reflect"})),
            "Conv1d(3, 4, kernel_size=(3,), stride=(1,), padding=same, padding_mode=reflect)");
  EXPECT_EQ(to_string(Conv3d(3, 4, 1, {.padding = "valid"})),
            "Conv3d(3, 4, kernel_size=(1, 1, 1), stride=(1, 1, 1), padding=valid)");
  EXPECT_EQ(to_string(Conv2d(3, 4, 3, {.padding = 1})),
            "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))");
}

TEST(PaddingMode, IsSavedWithTheModule) {
  testing::TempDir dir;
  auto model = make<Sequential>(Conv2d(3, 4, 3, {.padding = "same", .padding_mode = "circular"}),
                                Conv2d(4, 4, 3, {.padding = "valid"}),
                                Conv2d(4, 2, 3, {.padding = {1, 2}, .padding_mode = "replicate"}));
  save_model(dir / "model.octet", *model);
  auto loaded = load_model(dir / "model.octet");
  EXPECT_EQ(to_string(*loaded), to_string(*model));
  const Tensor x = Tensor::randn({1, 3, 6, 6}, 1);
  EXPECT_TRUE(equal((*loaded)(x).detach(), (*model)(x).detach()));
  // Files of before: without the name.
  Attrs config = Conv2d(3, 4, 3, {.padding = 1}).config();
  EXPECT_FALSE(config.has("padding_mode"));
  EXPECT_EQ(Conv2d::from_config(config)->options.padding_mode, "zeros");
}

TEST(PaddingMode, Errors) {
  expect_error(ErrorCode::invalid_argument, {"Conv2d", "mirror", "circular"},
               [] { Conv2d(3, 4, 3, {.padding_mode = "mirror"}); });
  expect_error(ErrorCode::invalid_argument, {"Conv2d", "\"constant\""},
               [] { Conv2d(3, 4, 3, {.padding_mode = "constant"}); });
  expect_error(ErrorCode::invalid_argument, {"padding=\"full\"", "\"same\""},
               [] { Conv2d(3, 4, 3, {.padding = "full"}); });
  expect_error(ErrorCode::invalid_argument, {"Conv1d", "\"same\"", "stride 1"},
               [] { Conv1d(3, 4, 3, {.stride = 2, .padding = "same"}); });
  expect_error(ErrorCode::invalid_argument, {"ConvTranspose2d", "padding_mode=circular"},
               [] { ConvTranspose2d(3, 4, 3, {.padding_mode = "circular"}); });
  expect_error(ErrorCode::invalid_argument, {"ConvTranspose1d", "padding=same"},
               [] { ConvTranspose1d(3, 4, 3, {.padding = "same"}); });
  expect_error(ErrorCode::invalid_argument, {"Conv2d", "padding=(-1, -1)"},
               [] { Conv2d(3, 4, 3, {.padding = -1}); });
  expect_error(ErrorCode::invalid_argument, {"conv2d", "\"same\"", "stride=(2, 2)"}, [] {
    F::conv2d(Tensor::zeros({1, 3, 5, 5}), Tensor::zeros({4, 3, 3, 3}), {}, 2, "same");
  });
  // Too small an image: reflect needs one element more than it shows, circular as many.
  auto forward = [](const char* mode, int64_t size) {
    Conv1d(3, 4, 3, {.padding = 3, .padding_mode = mode}).forward(Tensor::zeros({1, 3, size}));
  };
  expect_error(ErrorCode::invalid_argument, {"pad", "reflect", "3"},
               [&] { forward("reflect", 3); });
  expect_error(ErrorCode::invalid_argument, {"pad", "wrap", "3"}, [&] { forward("circular", 2); });
  forward("reflect", 4);
  forward("circular", 3);
}

}  // namespace
}  // namespace octet::nn
