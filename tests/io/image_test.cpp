#include "octet/io/image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "octet/base/random.h"
#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/io/pictures.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::bmp;
using testing::expect_error;
using testing::plain;
using testing::png;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using Bytes = std::vector<uint8_t>;

// 3 x 2 pixels: R = 1..6, G = 11..16, B = 21..26.
const Bytes kPixels = {1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24, 5, 15, 25, 6, 16, 26};
const Bytes kPlanes = {1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16, 21, 22, 23, 24, 25, 26};

TEST(Image, DecodesToPlanes) {
  TempDir dir;
  for (const std::string& file : {png(3, 2, 3, kPixels), bmp(3, 2, kPixels)}) {
    spill(dir / "a", file);
    Tensor t = read_image(dir / "a");
    EXPECT_EQ(t.shape(), (Shape{3, 2, 3}));
    EXPECT_EQ(t.to_vector<uint8_t>(), kPlanes);
  }
}

TEST(Image, GrayAndColour) {
  std::string gray = png(2, 1, 1, {10, 200}), colour = png(1, 1, 3, {255, 0, 0});
  EXPECT_EQ(decode_image(gray.data(), gray.size(), 1, "g").to_vector<uint8_t>(), (Bytes{10, 200}));
  EXPECT_EQ(decode_image(gray.data(), gray.size(), 3, "g").to_vector<uint8_t>(), (Bytes{10, 200, 10, 200, 10, 200}));
  EXPECT_EQ(decode_image(colour.data(), colour.size(), 1, "c").to_vector<uint8_t>(), (Bytes{255 * 77 / 256}));
}

TEST(Image, AlphaIsDropped) {
  std::string file = png(1, 1, 4, {9, 8, 7, 0});
  EXPECT_EQ(decode_image(file.data(), file.size(), 3, "a").to_vector<uint8_t>(), (Bytes{9, 8, 7}));
}

TEST(Image, WhatCannotBeDecodedIsNamed) {
  TempDir dir;
  std::string whole = png(3, 2, 3, kPixels);
  for (const std::string& bytes :
       {std::string(), std::string("hello"), whole.substr(0, 20), whole.substr(0, whole.size() - 30)}) {
    spill(dir / "bad.png", bytes);
    expect_error(ErrorCode::corrupt, {"bad.png"}, [&] { read_image(dir / "bad.png"); });
  }
  expect_error(ErrorCode::not_found, {"none.png"}, [&] { read_image(dir / "none.png"); });
  expect_error(ErrorCode::invalid_argument, {"2 channels"}, [&] { decode_image(whole.data(), whole.size(), 2, "a"); });
  // A header that claims 20000 x 17000 pixels must not make us allocate them.
  std::string huge = whole;
  huge.replace(16, 8, std::string("\0\0\x4e\x20\0\0\x42\x68", 8));
  expect_error(ErrorCode::unsupported, {"big.png", "20000x17000"},
               [&] { decode_image(huge.data(), huge.size(), 3, "big.png"); });
}

// Half-pixel centres, repeated border, no antialiasing: straight from the definition, in double.
double bilinear(const Tensor& t, int64_t plane, double y, double x) {
  int64_t h = t.size(1), w = t.size(2);
  auto at = [&](int64_t i, int64_t j) {
    return t.at({plane, std::clamp<int64_t>(i, 0, h - 1), std::clamp<int64_t>(j, 0, w - 1)});
  };
  auto i = static_cast<int64_t>(std::floor(y)), j = static_cast<int64_t>(std::floor(x));
  double u = y - static_cast<double>(i), v = x - static_cast<double>(j);
  return (1 - u) * ((1 - v) * at(i, j) + v * at(i, j + 1)) + u * ((1 - v) * at(i + 1, j) + v * at(i + 1, j + 1));
}

TEST(Resize, FollowsTheDefinition) {
  for (auto [h, w, height, width] : {std::array<int64_t, 4>{5, 7, 10, 14},
                                     {5, 7, 3, 4},
                                     {8, 8, 4, 4},
                                     {1, 1, 3, 5},
                                     {6, 9, 1, 1},
                                     {31, 17, 240, 3},
                                     {480, 640, 24, 32},
                                     {3, 3, 3, 7}}) {
    Tensor x = Tensor::rand({2, h, w}, 1, 0, 255);
    for (const Tensor& in : {x, x.to(DType::uint8)}) {
      Tensor y = resize_bilinear(in, height, width);
      EXPECT_EQ(y.shape(), (Shape{2, height, width}));
      EXPECT_EQ(y.dtype(), in.dtype());
      double tolerance = in.dtype() == DType::uint8 ? 0.5 + 1e-3 : 1e-3;
      for (int64_t c = 0; c < 2; ++c)
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = 0; j < width; ++j) {
            double sy = (static_cast<double>(i) + 0.5) * static_cast<double>(h) / static_cast<double>(height) - 0.5;
            double sx = (static_cast<double>(j) + 0.5) * static_cast<double>(w) / static_cast<double>(width) - 0.5;
            ASSERT_NEAR(y.at({c, i, j}), bilinear(in, c, sy, sx), tolerance);
          }
    }
  }
}

TEST(Resize, KnownValues) {
  // torch.nn.functional.interpolate(torch.tensor([[[[0., 1.]]]]), size=(1, 4), mode="bilinear")
  EXPECT_EQ(resize_bilinear(Tensor::from(std::vector<float>{0, 1}, {1, 2}), 1, 4).to_vector<float>(),
            (std::vector<float>{0, 0.25f, 0.75f, 1}));
  // Halving is the mean of 2 x 2; rounding is half to even.
  EXPECT_EQ(resize_bilinear(Tensor::from(Bytes{1, 2, 3, 4, 1, 1, 2, 3}, {2, 4}), 1, 2).to_vector<uint8_t>(),
            (Bytes{1, 3}));
  EXPECT_EQ(resize_bilinear(Tensor::from(Bytes{0, 1, 1, 2}, {1, 4}), 1, 2).to_vector<uint8_t>(), (Bytes{0, 2}));
}

TEST(Resize, TheSameSizeIsTheSameImage) {
  Tensor x = Tensor::rand({3, 4, 5}, 1);
  EXPECT_TRUE(equal(resize_bilinear(x, 4, 5), x));
  EXPECT_TRUE(equal(resize_bilinear(x.transpose(1, 2), 2, 2), resize_bilinear(x.transpose(1, 2).contiguous(), 2, 2)));
}

TEST(Resize, ImpossibleSizesAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"0x5"}, [] { resize_bilinear(Tensor::zeros({2, 2}), 0, 5); });
  expect_error(ErrorCode::invalid_argument, {"(2)"}, [] { resize_bilinear(Tensor::zeros({2}), 1, 5); });
  expect_error(ErrorCode::invalid_argument, {"(2, 0)"}, [] { resize_bilinear(Tensor::zeros({2, 0}), 1, 5); });
  expect_error(ErrorCode::invalid_argument, {"int64"}, [] {
    resize_bilinear(Tensor::zeros({2, 2}, DType::int64), 1, 5);
  });
}

TEST(DataImage, DecodesPhotos) {
  OCTET_NEED_DATA("images/face-1.jpg");
  // Size and mean of each plane as Pillow decodes them (libjpeg); decoders differ by about one step.
  const struct {
    const char* name;
    int64_t w, h;
    double mean[3];
  } rows[] = {{"face-1.jpg", 720, 478, {89.04, 83.62, 83.82}},
              {"face-2.jpg", 1024, 484, {185.45, 174.52, 172.08}},
              {"face-10.jpg", 1024, 715, {122.07, 112.59, 98.98}}};
  for (const auto& row : rows) {
    Tensor t = read_image(testing::data_dir() / "images" / row.name);
    ASSERT_EQ(t.shape(), (Shape{3, row.h, row.w})) << row.name;
    for (int64_t c = 0; c < 3; ++c) {
      Bytes plane = t.select(0, c).to_vector<uint8_t>();
      double mean = std::accumulate(plane.begin(), plane.end(), 0.0) / static_cast<double>(plane.size());
      EXPECT_NEAR(mean, row.mean[c], 0.6) << row.name << " plane " << c;
    }
    EXPECT_EQ(resize_bilinear(t, 240, 320).shape(), (Shape{3, 240, 320}));
  }
}

TEST(FuzzImage, AnyBytesDecodeOrAreAnError) {
  Random random(1);
  std::vector<std::string> seeds = {png(3, 2, 3, kPixels), bmp(3, 2, kPixels), png(40, 30, 1, Bytes(1200, 7))};
  for (int i = 0; i < 3000; ++i) {
    std::string s = seeds[static_cast<size_t>(i) % seeds.size()];
    for (int64_t n = random.integer(1, 4); n > 0; --n)
      s[static_cast<size_t>(random.integer(0, static_cast<int64_t>(s.size()) - 1))] = static_cast<char>(random.next());
    if (i % 5 == 0) s.resize(static_cast<size_t>(random.integer(0, static_cast<int64_t>(s.size()))));
    try {
      decode_image(s.data(), s.size(), i % 2 ? 1 : 3, "fuzz");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace octet
