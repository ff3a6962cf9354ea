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
  EXPECT_EQ(decode_image(gray.data(), gray.size(), 3, "g").to_vector<uint8_t>(),
            (Bytes{10, 200, 10, 200, 10, 200}));
  EXPECT_EQ(decode_image(colour.data(), colour.size(), 1, "c").to_vector<uint8_t>(),
            (Bytes{255 * 77 / 256}));
}

TEST(Image, AlphaIsDropped) {
  std::string file = png(1, 1, 4, {9, 8, 7, 0});
  EXPECT_EQ(decode_image(file.data(), file.size(), 3, "a").to_vector<uint8_t>(), (Bytes{9, 8, 7}));
}

TEST(Image, WhatCannotBeDecodedIsNamed) {
  TempDir dir;
  std::string whole = png(3, 2, 3, kPixels);
  for (const std::string& bytes : {std::string(), std::string("hello"), whole.substr(0, 20),
                                   whole.substr(0, whole.size() - 30)}) {
    spill(dir / "bad.png", bytes);
    expect_error(ErrorCode::corrupt, {"bad.png"}, [&] { read_image(dir / "bad.png"); });
  }
  expect_error(ErrorCode::not_found, {"none.png"}, [&] { read_image(dir / "none.png"); });
  expect_error(ErrorCode::invalid_argument, {"2 channels"},
               [&] { decode_image(whole.data(), whole.size(), 2, "a"); });
  // A header that claims 20000 x 17000 pixels must not make us allocate them.
  std::string huge = whole;
  huge.replace(8, 25,
               testing::png_chunk("IHDR" + testing::big(20000) + testing::big(17000) +
                                  std::string("\x08\x02\0\0\0", 5)));
  expect_error(ErrorCode::unsupported, {"big.png", "20000x17000"},
               [&] { decode_image(huge.data(), huge.size(), 3, "big.png"); });
}

// -- what each format has
// --------------------------------------------------------------------------------

Tensor decode(const std::string& file, int64_t channels = 3) {
  return decode_image(file.data(), file.size(), channels, "p");
}

void expect_corrupt(const std::string& file, const std::vector<std::string>& parts) {
  expect_error(ErrorCode::corrupt, parts, [&] { decode(file); });
}

TEST(Image, PngOfEveryDepth) {
  using testing::png_of_rows;
  // Two rows of two gray pixels: black, white; white, black.
  EXPECT_EQ(decode(png_of_rows(2, 2, 1, 0, {0, 0x40, 0, static_cast<char>(0x80)}), 1)
                .to_vector<uint8_t>(),
            (Bytes{0, 255, 255, 0}));
  EXPECT_EQ(decode(png_of_rows(2, 1, 2, 0, {0, 0x60}), 1).to_vector<uint8_t>(), (Bytes{85, 170}));
  EXPECT_EQ(decode(png_of_rows(2, 1, 4, 0, {0, 0x1f}), 1).to_vector<uint8_t>(), (Bytes{17, 255}));
  EXPECT_EQ(decode(png_of_rows(1, 1, 16, 0, {0, 7, 99}), 1).to_vector<uint8_t>(), (Bytes{7}))
      << "upper 8 bits";
  EXPECT_EQ(decode(png_of_rows(1, 1, 16, 2, {0, 1, 9, 2, 9, 3, 9})).to_vector<uint8_t>(),
            (Bytes{1, 2, 3}));
  EXPECT_EQ(decode(png_of_rows(1, 1, 8, 4, {0, 5, 0})).to_vector<uint8_t>(), (Bytes{5, 5, 5}))
      << "transparency is dropped";
}

TEST(Image, PngPalettes) {
  const std::string palette = testing::png_chunk(std::string("PLTE") + "\x0a\x0b\x0c\x14\x15\x16");
  const std::string clear = testing::png_chunk(std::string("tRNS\0", 5));
  for (const auto& [depth, byte] : {std::pair<int, int>{1, 0x40}, {2, 0x10}, {4, 0x01}}) {
    const std::string rows{0, static_cast<char>(byte)};
    EXPECT_EQ(decode(testing::png_of_rows(2, 1, depth, 3, rows, false, palette + clear))
                  .to_vector<uint8_t>(),
              (Bytes{10, 20, 11, 21, 12, 22}));
  }
  expect_corrupt(testing::png_of_rows(2, 1, 8, 3, {0, 1, 2}, false, palette), {"colour 2 of 2"});
  expect_corrupt(testing::png_of_rows(2, 1, 8, 3, {0, 1, 2}),
                 {"p: the PNG picture cannot be decoded"});
}

// Adam7 of 2 x 2: pixel (0, 0) is pass 1, (0, 1) pass 6, the second row pass 7.
TEST(Image, PngInterlaced) {
  EXPECT_EQ(
      decode(testing::png_of_rows(2, 2, 8, 0, {0, 1, 0, 2, 0, 3, 4}, true), 1).to_vector<uint8_t>(),
      (Bytes{1, 2, 3, 4}));
}

TEST(Image, JpegGrayAndColour) {
  using testing::JpegOfBlocks;
  Tensor gray = decode(JpegOfBlocks(2, 1, {{0}, {248}}).bytes(), 1);
  EXPECT_EQ(gray.shape(), (Shape{1, 8, 16}));
  EXPECT_EQ(gray.at({0, 3, 7}), 0);
  EXPECT_EQ(gray.at({0, 3, 8}), 248);
  Tensor colour = decode(JpegOfBlocks(1, 2, {{128, 128, 128}, {80, 128, 200}}).bytes());
  EXPECT_EQ(colour.shape(), (Shape{3, 16, 8}));
  EXPECT_EQ(colour.at({1, 0, 0}), 128);
  // R = Y + 1.402 (Cr - 128), G = Y - 0.344 (Cb - 128) - 0.714 (Cr - 128), B = Y + 1.772 (Cb - 128)
  EXPECT_EQ(colour.at({0, 15, 7}), 181);
  EXPECT_EQ(colour.at({1, 15, 7}), 29);
  EXPECT_EQ(colour.at({2, 15, 7}), 80);
}

TEST(Image, JpegInks) {
  Tensor t = decode(testing::JpegOfBlocks(1, 1, {{248, 128, 0, 128}}).bytes());
  EXPECT_EQ(t.at({0, 0, 0}), (248 * 128 + 127) / 255);
  EXPECT_EQ(t.at({1, 0, 0}), (128 * 128 + 127) / 255);
  EXPECT_EQ(t.at({2, 0, 0}), 0);
}

TEST(Image, JpegRotationsAreNotApplied) {
  testing::JpegOfBlocks turned(2, 1, {{0}, {248}});
  const std::string orientation =
      testing::little(0x0112, 2) + testing::little(3, 2) + testing::little(1) + testing::little(6);
  const std::string exif = std::string("Exif\0\0II*\0", 10) + testing::little(8) +
                           testing::little(1, 2) + orientation + testing::little(0);
  turned.extra = "\xff\xe1" + testing::big(static_cast<uint32_t>(exif.size() + 2), 2) + exif;
  EXPECT_EQ(decode(turned.bytes()).shape(), (Shape{3, 8, 16}));
}

TEST(Image, JpegKindsThatAreNotRead) {
  testing::JpegOfBlocks arithmetic(1, 1, {{128}});
  arithmetic.arithmetic = true;
  expect_error(ErrorCode::unsupported, {"arithmetic coding"}, [&] { decode(arithmetic.bytes()); });
}

// More codes than their lengths allow: what made the decoder before this one write outside its
// table.
TEST(Image, JpegHuffmanTablesAreChecked) {
  testing::JpegOfBlocks bad(1, 1, {{128}});
  for (int length = 1; length <= 16; ++length)
    for (int count : {3, 200, 255}) {
      bad.huffman_counts = std::string(16, '\0');
      bad.huffman_counts[static_cast<size_t>(length - 1)] = static_cast<char>(count);
      if (length > 7 && count <= 1 << length) continue;
      expect_corrupt(bad.bytes(), {"p: the JPEG picture cannot be decoded"});
    }
}

TEST(Image, BmpOfEveryDepth) {
  auto file = [](int w, int h, int bits, uint32_t compression, const std::string& between,
                 const std::string& rows, uint32_t colours = 0) {
    using testing::little;
    return "BM" + little(0) + little(0) + little(static_cast<uint32_t>(54 + between.size())) +
           little(40) + little(static_cast<uint32_t>(w)) + little(static_cast<uint32_t>(h)) +
           little(1, 2) + little(static_cast<uint32_t>(bits), 2) + little(compression) + little(0) +
           little(0) + little(0) + little(colours) + little(0) + between + rows;
  };
  const std::string two = "\x0c\x0b\x0a" + std::string(1, '\0') + "\x16\x15\x14" +
                          std::string(1, '\0');  // 10 11 12, 20 21 22
  const Bytes expected{10, 20, 11, 21, 12, 22};
  for (const auto& [bits, row] : {std::pair<int, std::string>{1, std::string("\x40\0\0\0", 4)},
                                  {4, std::string("\x01\0\0\0", 4)},
                                  {8, std::string("\0\1\0\0", 4)}})
    EXPECT_EQ(decode(file(2, 1, bits, 0, two, row, 2)).to_vector<uint8_t>(), expected) << bits;
  expect_corrupt(file(2, 1, 8, 0, two, std::string("\0\2\0\0", 4), 2), {"colour 2 of 2"});
  expect_corrupt(file(2, 1, 4, 0, two, std::string("\0\0\0\0", 4), 17), {"palette of 17"});
  EXPECT_EQ(decode(file(1, 1, 16, 0, "", std::string("\x1f\x7c\0\0", 4))).to_vector<uint8_t>(),
            (Bytes{255, 0, 255}))
      << "5 bits each";
  const std::string masks565 =
      testing::little(0xf800) + testing::little(0x7e0) + testing::little(0x1f);
  EXPECT_EQ(
      decode(file(1, 1, 16, 3, masks565, std::string("\x00\x84\0\0", 4))).to_vector<uint8_t>(),
      (Bytes{132, 130, 0}));
  EXPECT_EQ(decode(file(1, 1, 32, 0, "", "\3\2\1\x7f")).to_vector<uint8_t>(), (Bytes{1, 2, 3}));
  const std::string reversed =
      testing::little(0xff) + testing::little(0xff00) + testing::little(0xff0000);
  EXPECT_EQ(decode(file(1, 1, 32, 3, reversed, "\1\2\3\x7f")).to_vector<uint8_t>(),
            (Bytes{1, 2, 3}));
  expect_corrupt(
      file(1, 1, 32, 3, testing::little(0) + testing::little(0xff00) + testing::little(0xff0000),
           "\1\2\3\x7f"),
      {"mask"});
  expect_corrupt(
      file(1, 1, 32, 3, testing::little(0xf0f) + testing::little(0xff0000) + testing::little(0xf0),
           "\1\2\3\x7f"),
      {"mask"});
  EXPECT_EQ(decode(file(1, -2, 24, 0, "", std::string("\3\2\1\0\6\5\4\0", 8))).to_vector<uint8_t>(),
            (Bytes{1, 4, 2, 5, 3, 6}))
      << "top down";
  expect_error(ErrorCode::unsupported, {"compressed BMP"},
               [&] { decode(file(2, 1, 8, 1, two, "\2\1\0\1", 2)); });
  for (uint32_t side : {0u, 0x80000000u})
    expect_corrupt(file(static_cast<int>(side), 1, 24, 0, "", "abcd"), {"BMP picture"});
  for (int bits : {0, 3, 64}) expect_corrupt(file(1, 1, bits, 0, "", "abcd"), {"bits a pixel"});
}

// -- hostile files
// ---------------------------------------------------------------------------------------

std::vector<std::string> one_of_each() {
  return {png(3, 2, 3, kPixels), bmp(3, 2, kPixels),
          testing::JpegOfBlocks(1, 1, {{80, 128, 200}}).bytes(),
          testing::JpegOfBlocks(2, 1, {{0, 128, 255, 64}, {8, 16, 24, 32}}).bytes(),
          testing::png_of_rows(2, 2, 8, 0, {0, 1, 0, 2, 0, 3, 4}, true)};
}

TEST(Image, CutAnywhereIsAnError) {
  for (const std::string& whole : one_of_each()) {
    EXPECT_NO_THROW(decode(whole));
    // A BMP row may lack its padding.
    for (size_t size = 0; size < whole.size() - (whole[0] == 'B' ? 3 : 0); ++size)
      expect_corrupt(whole.substr(0, size), {"p: "});
  }
}

TEST(Image, FlippedBitsNeverCrash) {
  Random random(7);
  for (const std::string& whole : one_of_each())
    for (int i = 0; i < 600; ++i) {
      std::string bad = whole;
      for (uint64_t flips = 1 + random.next() % 3; flips-- > 0;)
        bad[random.next() % bad.size()] ^= static_cast<char>(1 << random.next() % 8);
      try {
        EXPECT_EQ(decode(bad).size(0), 3);
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      }
    }
}

// Sizes that no file of this length can have: an error before memory is taken.
TEST(Image, SizesThatTheFileCannotHold) {
  std::string file = bmp(3, 2, kPixels);
  file.replace(18, 8, testing::little(30000) + testing::little(4000));
  expect_corrupt(file, {"truncated", "30000x4000"});
  file = png(3, 2, 3, kPixels);
  std::string header =
      "IHDR" + testing::big(11000) + testing::big(12000) + std::string("\x08\x02\0\0\0", 5);
  file.replace(8, 25, testing::png_chunk(header));
  expect_corrupt(file, {"11000x12000", "damaged"});
  file = testing::JpegOfBlocks(1, 1, {{128}}).bytes();
  file.replace(file.find("\xff\xc0") + 5, 4, std::string("\x40\0\x1f\x40", 4));
  expect_corrupt(file, {"8000x16384", "damaged"});
}

// Half-pixel centres, repeated border, no antialiasing: straight from the definition, in double.
double bilinear(const Tensor& t, int64_t plane, double y, double x) {
  int64_t h = t.size(1), w = t.size(2);
  auto at = [&](int64_t i, int64_t j) {
    return t.at({plane, std::clamp<int64_t>(i, 0, h - 1), std::clamp<int64_t>(j, 0, w - 1)});
  };
  auto i = static_cast<int64_t>(std::floor(y)), j = static_cast<int64_t>(std::floor(x));
  double u = y - static_cast<double>(i), v = x - static_cast<double>(j);
  return (1 - u) * ((1 - v) * at(i, j) + v * at(i, j + 1)) +
         u * ((1 - v) * at(i + 1, j) + v * at(i + 1, j + 1));
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
            double sy = (static_cast<double>(i) + 0.5) * static_cast<double>(h) /
                            static_cast<double>(height) -
                        0.5;
            double sx = (static_cast<double>(j) + 0.5) * static_cast<double>(w) /
                            static_cast<double>(width) -
                        0.5;
            ASSERT_NEAR(y.at({c, i, j}), bilinear(in, c, sy, sx), tolerance);
          }
    }
  }
}

TEST(Resize, KnownValues) {
  // torch.nn.functional.interpolate(torch.tensor([[[[0., 1.]]]]), size=(1, 4), mode="bilinear")
  EXPECT_EQ(
      resize_bilinear(Tensor::from(std::vector<float>{0, 1}, {1, 2}), 1, 4).to_vector<float>(),
      (std::vector<float>{0, 0.25f, 0.75f, 1}));
  // Halving is the mean of 2 x 2; rounding is half to even.
  EXPECT_EQ(resize_bilinear(Tensor::from(Bytes{1, 2, 3, 4, 1, 1, 2, 3}, {2, 4}), 1, 2)
                .to_vector<uint8_t>(),
            (Bytes{1, 3}));
  EXPECT_EQ(resize_bilinear(Tensor::from(Bytes{0, 1, 1, 2}, {1, 4}), 1, 2).to_vector<uint8_t>(),
            (Bytes{0, 2}));
}

TEST(Resize, TheSameSizeIsTheSameImage) {
  Tensor x = Tensor::rand({3, 4, 5}, 1);
  EXPECT_TRUE(equal(resize_bilinear(x, 4, 5), x));
  EXPECT_TRUE(equal(resize_bilinear(x.transpose(1, 2), 2, 2),
                    resize_bilinear(x.transpose(1, 2).contiguous(), 2, 2)));
}

TEST(Resize, ImpossibleSizesAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"0x5"}, [] {
    resize_bilinear(Tensor::zeros({2, 2}), 0, 5);
  });
  expect_error(ErrorCode::invalid_argument, {"(2)"},
               [] { resize_bilinear(Tensor::zeros({2}), 1, 5); });
  expect_error(ErrorCode::invalid_argument, {"(2, 0)"}, [] {
    resize_bilinear(Tensor::zeros({2, 0}), 1, 5);
  });
  expect_error(ErrorCode::invalid_argument, {"int64"}, [] {
    resize_bilinear(Tensor::zeros({2, 2}, DType::int64), 1, 5);
  });
}

TEST(DataImage, DecodesPhotos) {
  OCTET_NEED_DATA("images/face-1.jpg");
  // Size and mean of each plane as Pillow decodes them (libjpeg); decoders differ by about one
  // step.
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
      double mean =
          std::accumulate(plane.begin(), plane.end(), 0.0) / static_cast<double>(plane.size());
      EXPECT_NEAR(mean, row.mean[c], 0.6) << row.name << " plane " << c;
    }
    EXPECT_EQ(resize_bilinear(t, 240, 320).shape(), (Shape{3, 240, 320}));
  }
}

TEST(FuzzImage, AnyBytesDecodeOrAreAnError) {
  Random random(1);
  std::vector<std::string> seeds = {png(3, 2, 3, kPixels), bmp(3, 2, kPixels),
                                    png(40, 30, 1, Bytes(1200, 7))};
  for (int i = 0; i < 3000; ++i) {
    std::string s = seeds[static_cast<size_t>(i) % seeds.size()];
    for (int64_t n = random.integer(1, 4); n > 0; --n)
      s[static_cast<size_t>(random.integer(0, static_cast<int64_t>(s.size()) - 1))] =
          static_cast<char>(random.next());
    if (i % 5 == 0)
      s.resize(static_cast<size_t>(random.integer(0, static_cast<int64_t>(s.size()))));
    try {
      decode_image(s.data(), s.size(), i % 2 ? 1 : 3, "fuzz");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace octet
