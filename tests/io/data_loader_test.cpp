#include "octet/io/data_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "octet/io/idx.h"
#include "octet/io/npz.h"
#include "tests/expect_error.h"
#include "tests/io/crc.h"
#include "tests/io/pictures.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;
using testing::TempDir;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

// An IDX file's bytes.
std::string idx(uint8_t code, const std::vector<uint32_t>& sizes, const std::string& elements) {
  std::string s{0, 0, static_cast<char>(code), static_cast<char>(sizes.size())};
  for (uint32_t n : sizes)
    for (int shift : {24, 16, 8, 0}) s += static_cast<char>(n >> shift);
  return s + elements;
}
std::string little(uint32_t v, int bytes) {
  std::string s;
  for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> (8 * i));
  return s;
}

// A gzip file of one stored block.
std::string gzip(const std::string& bytes) {
  auto n = static_cast<uint32_t>(bytes.size());
  return std::string("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10) + "\x01" + little(n, 2) + little(~n, 2) +
         bytes + little(testing::crc32(bytes), 4) + little(n, 4);
}

void spit(const std::filesystem::path& path, const std::string& bytes, bool compressed = false) {
  std::ofstream(path, std::ios::binary) << (compressed ? gzip(bytes) : bytes);
}

TEST(Idx, ReadsEveryDtypeBigEndian) {
  TempDir dir;
  spit(dir / "a", idx(0x08, {2, 2}, {1, 2, 3, static_cast<char>(250)}));
  EXPECT_EQ(read_idx(dir / "a").to_vector<uint8_t>(), (std::vector<uint8_t>{1, 2, 3, 250}));
  spit(dir / "b", idx(0x0B, {2}, {1, 2, static_cast<char>(255), static_cast<char>(254)}));
  EXPECT_EQ(read_idx(dir / "b").to_vector<int16_t>(), (std::vector<int16_t>{258, -2}));
  spit(dir / "c", idx(0x0D, {1}, {0x3f, static_cast<char>(0xc0), 0, 0}));
  EXPECT_EQ(read_idx(dir / "c").to_vector<float>(), (Floats{1.5}));
  spit(dir / "d", idx(0x0C, {1}, {0, 0, 1, 0}), true);
  EXPECT_EQ(read_idx(dir / "d").to_vector<int32_t>(), (std::vector<int32_t>{256})) << "compressed";
  for (const char* name : {"a", "b", "c", "d"}) EXPECT_TRUE(is_idx(dir / name));
  EXPECT_FALSE(is_idx(dir / "none"));
}

TEST(Idx, DamagedFilesAreErrors) {
  TempDir dir;
  spit(dir / "short", idx(0x08, {2, 2}, {1, 2, 3}));
  expect_error(ErrorCode::corrupt, {"short", "3 bytes of 4"}, [&] { read_idx(dir / "short"); });
  spit(dir / "long", idx(0x08, {1}, {1, 2}));
  expect_error(ErrorCode::corrupt, {"longer"}, [&] { read_idx(dir / "long"); });
  spit(dir / "huge", idx(0x08, {0xffffffff, 0xffffffff}, {1, 2}));
  expect_error(ErrorCode::corrupt, {"huge", "shape"}, [&] { read_idx(dir / "huge"); });
  spit(dir / "other", "PK\x03\x04");
  expect_error(ErrorCode::corrupt, {"not an IDX file", "50 4b 03 04"},
               [&] { read_idx(dir / "other"); });
  spit(dir / "cut", idx(0x08, {2, 2}, "abcd"), true);
  std::filesystem::resize_file(dir / "cut", 20);
  expect_error(ErrorCode::corrupt, {"cut"}, [&] { read_idx(dir / "cut"); });
  expect_error(ErrorCode::not_found, {"nowhere"}, [&] { read_idx(dir / "nowhere"); });
}

// A small compressed file that would fill the memory; sizes whose product overflows, or hides
// behind a 0.
TEST(Idx, InflatedSizesAreLimited) {
  TempDir dir;
  spit(dir / "bomb", idx(0x08, {300'000'000}, "abc"), true);
  expect_error(ErrorCode::corrupt, {"bomb", "at most 268435456 bytes of 300000000"},
               [&] { read_idx(dir / "bomb"); });
  spit(dir / "zero", idx(0x0E, {0xffffffff, 0xffffffff, 0xffffffff, 0}, ""));
  expect_error(ErrorCode::corrupt, {"zero", "of shape"}, [&] { read_idx(dir / "zero"); });
  spit(dir / "ranks", idx(0x08, std::vector<uint32_t>(255, 1), "a"));
  expect_error(ErrorCode::corrupt, {"ranks", "of shape"}, [&] { read_idx(dir / "ranks"); });
}

TEST(Idx, CompressedFilesMayBeJoined) {
  TempDir dir;
  const std::string whole = idx(0x08, {4}, "abcd");
  std::ofstream(dir / "a", std::ios::binary) << gzip(whole.substr(0, 9)) << gzip(whole.substr(9));
  EXPECT_EQ(read_idx(dir / "a").to_vector<uint8_t>(), (std::vector<uint8_t>{'a', 'b', 'c', 'd'}));
}

TEST(Idx, DamagedCompressionIsAnError) {
  TempDir dir;
  std::string whole = gzip(idx(0x08, {4}, "abcd"));
  for (size_t size = 2; size < whole.size(); ++size) {
    std::ofstream(dir / "a", std::ios::binary) << whole.substr(0, size);
    expect_error(ErrorCode::corrupt, {"a: "}, [&] { read_idx(dir / "a"); });
  }
  whole[whole.size() - 6] ^= 1;  // its CRC
  spit(dir / "a", whole);
  expect_error(ErrorCode::corrupt, {"a: cannot be decompressed"}, [&] { read_idx(dir / "a"); });
}

TEST(Dataset, IdxPicturesHaveTheLabelsBesideThem) {
  TempDir dir;
  spit(dir / "train-images-idx3-ubyte.gz", idx(0x08, {3, 1, 2}, {1, 2, 3, 4, 5, 6}), true);
  spit(dir / "train-labels-idx1-ubyte.gz", idx(0x08, {3}, {7, 8, 9}), true);
  Dataset data = Dataset::open_images(dir / "train-images-idx3-ubyte.gz", {0.5f, {}, {}});
  EXPECT_EQ(data.size(), 3);
  Batch b = data.gather({2, 0});
  EXPECT_EQ(b.inputs.at("images").shape(), (Shape{2, 1, 1, 2}));
  EXPECT_EQ(b.inputs.at("images").to_vector<float>(), (Floats{2.5, 3, 0.5, 1}));
  EXPECT_EQ(b.labels.to_vector<int64_t>(), (Ints{9, 7}));
  spit(dir / "train-labels-idx1-ubyte.gz", idx(0x08, {2}, {7, 8}), true);
  expect_error(ErrorCode::invalid_argument, {"train-labels", "(2)", "3 samples"},
               [&] { Dataset::open_images(dir / "train-images-idx3-ubyte.gz"); });
}

TEST(Dataset, SubdirectoriesOfPicturesAreClasses) {
  TempDir dir;
  for (const char* name : {"dog", "cat", ".hidden"}) std::filesystem::create_directory(dir / name);
  for (const char* name : {"dog/1.png", "dog/2.png", "cat/x.png", ".hidden/y.png"})
    testing::spill(dir / name, testing::png(2, 2, 3, testing::plain(2, 2, {1, 2, 3})));
  Dataset data = Dataset::open_images(dir.path(), {}, 2, 2);
  EXPECT_EQ(data.size(), 3);
  EXPECT_EQ(data.classes(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(data.get(0, 3).labels.to_vector<int64_t>(), (Ints{0, 1, 1}));
  expect_error(ErrorCode::invalid_argument, {"height and width"},
               [&] { Dataset::open_images(dir.path()); });
}

// n pictures of one channel, 1 x size: picture i is i*10, i*10+1, ...; its label is i.
Dataset numbered(const TempDir& dir, int64_t n, int64_t size, const Preprocess& p = {}) {
  Tensor images = Tensor::empty({n, 1, 1, size}), labels = Tensor::arange(n);
  for (int64_t i = 0; i < n * size; ++i)
    images.data<float>()[i] = static_cast<float>(i / size * 10 + i % size);
  write_npz(dir / "a.npz", {{"images", images}, {"labels", labels}});
  return Dataset::open_images(dir / "a.npz", p);
}

Ints labels_of(DataLoader& loader) {
  Ints all;
  for (const Batch& b : loader)
    for (int64_t v : b.labels.to_vector<int64_t>()) all.push_back(v);
  return all;
}

TEST(DataLoader, GivesEverySampleOnceAndWhatIsLeftLast) {
  TempDir dir;
  DataLoader loader(numbered(dir, 10, 2), {.batch_size = 4});
  Ints sizes;
  for (const Batch& b : loader) {
    sizes.push_back(b.size);
    EXPECT_EQ(b.inputs.at("images").size(0), b.size);
  }
  EXPECT_EQ(sizes, (Ints{4, 4, 2}));
  EXPECT_EQ(labels_of(loader), (Ints{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  DataLoader full(numbered(dir, 10, 2), {.batch_size = 4, .drop_last = true});
  EXPECT_EQ(full.size(), 2);
  EXPECT_EQ(labels_of(full).size(), 8u);
}

TEST(DataLoader, ShufflesAnewInEachEpochAndAgainFromTheSameSeed) {
  TempDir dir;
  auto make = [&](uint64_t seed) {
    return DataLoader(numbered(dir, 20, 1), {.batch_size = 3, .shuffle = true, .seed = seed});
  };
  DataLoader a = make(1), b = make(1), c = make(2);
  Ints first = labels_of(a), second = labels_of(a);
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 20u);
  EXPECT_EQ(labels_of(b), first);
  EXPECT_NE(labels_of(c), first);
  a.set_epoch(0);
  EXPECT_EQ(labels_of(a), first);
}

TEST(DataLoader, PicturesAndLabelsStayTogether) {
  TempDir dir;
  DataLoader loader(numbered(dir, 9, 1), {.batch_size = 2, .shuffle = true});
  for (const Batch& b : loader)
    for (int64_t i = 0; i < b.size; ++i)
      EXPECT_EQ(b.inputs.at("images").at({i, 0, 0, 0}), 10 * b.labels.at({i}));
}

TEST(DataLoader, FlipsHalfOfThePictures) {
  TempDir dir;
  DataLoader loader(numbered(dir, 100, 3),
                    {.batch_size = 100, .augmentation = {.horizontal_flip = true}});
  int flipped = 0;
  for (const Batch& b : loader)
    for (int64_t i = 0; i < 100; ++i) {
      double first = b.inputs.at("images").at({i, 0, 0, 0}) - 10 * static_cast<double>(i);
      EXPECT_EQ(b.inputs.at("images").at({i, 0, 0, 1}), 10 * static_cast<double>(i) + 1)
          << "the middle stays";
      EXPECT_TRUE(first == 0 || first == 2);
      flipped += first == 2;
    }
  EXPECT_GT(flipped, 30);
  EXPECT_LT(flipped, 70);
}

TEST(DataLoader, CropsWithABorderOfBlackAfterPreprocessing) {
  TempDir dir;
  DataLoader loader(numbered(dir, 200, 4, {1, {3}, {2}}),
                    {.batch_size = 7, .augmentation = {.crop_padding = 1}});
  std::set<int64_t> moves;
  for (const Batch& b : loader)
    for (int64_t i = 0; i < b.size; ++i) {
      Floats row = b.inputs.at("images").select(0, i).contiguous().to_vector<float>();
      // moved up or down: a picture has one line
      bool outside = row == Floats{-1.5, -1.5, -1.5, -1.5};
      for (int64_t move : {-1, 0, 1}) {
        bool match = true;
        for (int64_t x = 0; x < 4; ++x) {
          int64_t from = x + move;
          float value = from < 0 || from > 3
                            ? 0
                            : static_cast<float>(b.labels.at({i}) * 10) + static_cast<float>(from);
          match = match && row[static_cast<size_t>(x)] == (value - 3) / 2;
        }
        if (match) moves.insert(move);
        outside = outside || match;
      }
      EXPECT_TRUE(outside) << ::testing::PrintToString(row);
    }
  EXPECT_EQ(moves.size(), 3u);
}

TEST(DataLoader, CutsOutABlackSquareAfterPreprocessing) {
  TempDir dir;
  const auto batch = [&](int64_t side) {
    DataLoader loader(numbered(dir, 200, 4, {1, {3}, {2}}),
                      {.batch_size = 200, .augmentation = {.cutout = side}});
    return (*loader.begin()).inputs.at("images").contiguous();
  };
  const Tensor whole = batch(0), cut = batch(2);
  const int64_t samples = whole.size(0), width = whole.size(3);
  std::set<int64_t> widths, places;
  for (int64_t i = 0; i < samples; ++i) {
    int64_t black = 0;
    for (int64_t x = 0; x < width; ++x) {
      const double is = cut.at({i, 0, 0, x}), was = whole.at({i, 0, 0, x});
      if (is == was) continue;
      EXPECT_EQ(is, -1.5) << "black is 0 before the preprocessing";
      ++black;
      places.insert(x);
    }
    if (black > 0) widths.insert(black);  // a picture may be black already
  }
  // A picture has one line; the square may lie over the border.
  EXPECT_EQ(widths, (std::set<int64_t>{1, 2}));
  EXPECT_EQ(std::ssize(places), width);
}

TEST(DataLoader, WhatASampleBecomesDoesNotDependOnTheBatch) {
  TempDir dir;
  auto all = [&](int64_t batch) {
    DataLoader loader(numbered(dir, 11, 5),
                      {.batch_size = batch,
                       .seed = 5,
                       .augmentation = {.horizontal_flip = true, .crop_padding = 2}});
    Floats values;
    for (const Batch& b : loader)
      for (float v : b.inputs.at("images").to_vector<float>()) values.push_back(v);
    return values;
  };
  EXPECT_EQ(all(1), all(4));
  EXPECT_EQ(all(1), all(11));
}

TEST(DataLoader, RefusesOptionsThatMakeNoSense) {
  TempDir dir;
  expect_error(ErrorCode::invalid_argument, {"batch_size=0"},
               [&] { DataLoader(numbered(dir, 3, 1), {.batch_size = 0}); });
  expect_error(ErrorCode::invalid_argument, {"crop_padding=-1"},
               [&] { DataLoader(numbered(dir, 3, 1), {.augmentation = {.crop_padding = -1}}); });
  expect_error(ErrorCode::invalid_argument, {"cutout=-1"},
               [&] { DataLoader(numbered(dir, 3, 1), {.augmentation = {.cutout = -1}}); });
  Dataset fixed = Dataset::open(dir / "a.npz", {{"images", parse_type("Float(1, 1, 1, 1)")}});
  expect_error(ErrorCode::invalid_argument, {"batches of 1"},
               [&] { DataLoader(fixed, {.batch_size = 2}); });
}

}  // namespace
}  // namespace octet
