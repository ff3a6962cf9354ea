#include "octet/io/safetensors.h"

#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/io/old_file.h"
#include "tests/io/zip_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::bytes;
using testing::count_files;
using testing::expect_error;
using testing::slurp;
using testing::spill;
using testing::TempDir;

// A file of this header and data, built without the code under test.
std::string file_of(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> 8 * i & 255);
  return out + header + data;
}

constexpr DType kDtypes[] = {DType::float64, DType::float32, DType::float16, DType::bfloat16,
                             DType::int64,   DType::int32,   DType::int16,   DType::int8,
                             DType::uint8,   DType::bool_};

std::map<std::string, Tensor> of_every_dtype() {
  std::map<std::string, Tensor> tensors;
  for (DType d : kDtypes) {
    tensors["odd." + to_string(d)] = Tensor::rand({3, 5}, 1, 0, 100).to(d);
    tensors["even." + to_string(d)] = Tensor::rand({8, 16}, 2, 0, 100).to(d);
  }
  tensors["scalar"] = Tensor::scalar(3);
  tensors["empty"] = Tensor::zeros({0, 4});
  tensors["transposed"] = Tensor::randn({4, 6}, 3).transpose(0, 1);
  tensors["ünï \"code\""] = Tensor::arange(5);
  return tensors;
}

TEST(Safetensors, RoundTrips) {
  TempDir dir;
  auto tensors = of_every_dtype();
  std::map<std::string, std::string> metadata = {
      {"format", "octet"}, {"graph", "{\"a\": [1, 2]}\n\"\\"}, {"", "empty key"}};
  write_safetensors(dir / "a", tensors, metadata);
  SafetensorsFile back = read_safetensors(dir / "a");
  EXPECT_EQ(back.metadata, metadata);
  ASSERT_EQ(back.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors)
    EXPECT_TRUE(equal(back.tensors.at(name), tensor)) << name;
  EXPECT_EQ(count_files(dir.path()), 1u);

  write_safetensors(dir / "b", back.tensors, back.metadata);
  EXPECT_EQ(slurp(dir / "a"), slurp(dir / "b")) << "the same tensors, the same bytes";
}

TEST(Safetensors, NothingAtAllRoundTrips) {
  TempDir dir;
  write_safetensors(dir / "a", {});
  EXPECT_TRUE(read_safetensors(dir / "a").tensors.empty());
}

TEST(Safetensors, TensorsAreAlignedAndNotCopied) {
  if (io::kBigEndian) GTEST_SKIP() << "their numbers are turned round";
  TempDir dir;
  write_safetensors(dir / "a", of_every_dtype());
  auto back = read_safetensors(dir / "a").tensors;
  uintptr_t low = UINTPTR_MAX, high = 0;
  for (const auto& [name, t] : back) {
    auto address = reinterpret_cast<uintptr_t>(t.raw_data());
    EXPECT_EQ(address % element_size(t.dtype()), 0u) << name;
    EXPECT_TRUE(t.nbytes() % 64 != 0 || address % 64 == 0) << name;
    low = std::min(low, address);
    high = std::max(high, address + static_cast<uintptr_t>(t.nbytes()));
  }
  EXPECT_LE(high - low, std::filesystem::file_size(dir / "a"))
      << "all lie in one mapping of the file";
}

TEST(Safetensors, TensorsOutliveTheFileAndMayBeWrittenTo) {
  TempDir dir;
  write_safetensors(dir / "a", {{"x", Tensor::ones({4})}});
  std::string before = slurp(dir / "a");
  Tensor x = read_safetensors(dir / "a").tensors.at("x");
  x.data<float>()[0] = 5;
  EXPECT_EQ(slurp(dir / "a"), before);
  // also onto the file it is mapped from
  write_safetensors(dir / "a", {{"x", Tensor::zeros({4})}});
  EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{5, 1, 1, 1}));
  EXPECT_EQ(read_safetensors(dir / "a").tensors.at("x").at({0}), 0);
}

TEST(Safetensors, UnalignedTensorsAreCopied) {
  TempDir dir;
  const std::string data = "xyz" + bytes<float>({1.5f});
  std::string header = R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                       R"("f":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})";
  spill(dir / "a", file_of(header, data));
  auto back = read_safetensors(dir / "a").tensors;
  EXPECT_EQ(back.at("f").item(), 1.5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(back.at("f").raw_data()) % 4, 0u);
  EXPECT_EQ(back.at("b").to_vector<uint8_t>(), (std::vector<uint8_t>{'x', 'y', 'z'}));
}

TEST(Safetensors, WritesTheFormat) {
  TempDir dir;
  write_safetensors(dir / "a", {{"x", Tensor::from({int8_t{1}, int8_t{2}})}}, {{"k", "v"}});
  // The checksums are those of `xxhsum -H3`, of the two bytes and of the header with zeros for its
  // own.
  std::string header = R"({"__metadata__":{"k":"v","octet.checksum.header":"5d7b5f6843150c5b",)"
                       R"("octet.checksum.tensors":"{\"x\":\"08130b77ddef5807\"}"},)"
                       R"("x":{"data_offsets":[0,2],"dtype":"I8","shape":[2]}})";
  header.resize(184, ' ');
  EXPECT_EQ(slurp(dir / "a"), file_of(header, "\1\2"));
}

TEST(Safetensors, DamageIsNamed) {
  TempDir dir;
  const struct {
    std::string header, data;
    std::vector<std::string> parts;
  } rows[] = {
      {R"({"x":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}})",
       "1234",
       {"'x'", "dtype", "'F9'"}},
      {R"({"x":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})", "1234", {"'x'", "dtype"}},
      {R"({"x":{"shape":[1],"data_offsets":[0,4]}})", "1234", {"'x'", "dtype is missing"}},
      {R"({"x":{"dtype":"F32","data_offsets":[0,4]}})", "1234", {"'x'", "shape is missing"}},
      {R"({"x":{"dtype":"F32","shape":[1]}})", "1234", {"'x'", "data_offsets is missing"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}})",
       "1234",
       {"'x'", "'more'"}},
      {R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", {"'x'", "shape"}},
      {R"({"x":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", "1234", {"'x'", "shape"}},
      {R"({"x":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", "1234", {"'x'", "shape"}},
      {R"({"x":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})",
       "1234",
       {"x.shape", "out of range"}},
      {R"({"x":{"dtype":"F32","shape":[140737488355328,140737488355328],"data_offsets":[0,4]}})",
       "1234",
       {"'x'", "too large"}},
      {R"({"x":{"dtype":"F32","shape":[140737488355328,140737488355328,0],"data_offsets":[0,0]}})",
       "",
       {"'x'", "too large"}},
      {R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
       "1234",
       {"'x'", "span 4 bytes", "(2)", "8"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})",
       "1234",
       {"'x'", "end before they begin"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234", {"'x'", "data_offsets"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}})",
       "1234",
       {"'x'", "data_offsets"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678", {"'x'", "hole"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12", {"truncated", "'x'"}},
      {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "123456",
       {"2 bytes after the last tensor"}},
      {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       "123456",
       {"'y'", "overlap"}},
      {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("y":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       "1234",
       {"'y'", "overlap"}},
      {R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       "1",
       {"'x'", "twice"}},
      {R"({"x":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})",
       "\1\7",
       {"'x'", "element 1 is 7"}},
      {R"({"x":7})", "", {"'x'", "object"}},
      {R"({"x":[1]})", "", {"'x'", "object"}},
      {R"({"__metadata__":[]})", "", {"__metadata__"}},
      {R"({"__metadata__":{"a":1}})", "", {"__metadata__", "'a'"}},
      {R"({"x":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", "1", {"'x'", "not a size"}},
      {"{\"a\":" + std::string(100000, '['), "", {"nests deeper"}},
      {R"({"x":)", "", {"not valid JSON"}},
      {"{\"\xff\":1}", "", {"not valid JSON"}},
      {"[]", "", {"does not start with {"}},
      {"", "", {"does not start with {"}}};
  for (const auto& row : rows) {
    spill(dir / "a.st", file_of(row.header, row.data));
    auto parts = row.parts;
    parts.push_back("a.st");
    expect_error(ErrorCode::corrupt, parts, [&] { read_safetensors(dir / "a.st"); });
  }
}

TEST(Safetensors, HeaderLengthsAreChecked) {
  TempDir dir;
  auto check = [&](const std::string& bytes, const char* part) {
    spill(dir / "a", bytes);
    expect_error(ErrorCode::corrupt, {part}, [&] { read_safetensors(dir / "a"); });
  };
  check("", "0 bytes");
  check("1234567", "7 bytes");
  check(std::string("\x05\0\0\0\0\0\0\0{}", 10), "truncated");
  check(std::string("\0\0\0\0\1\0\0\0{}", 10), "header length");
  check(std::string(8, '\xff') + "{}", "header length");
  check("this is a text file and not a model", "header length");
  expect_error(ErrorCode::not_found, {"none"}, [&] { read_safetensors(dir / "none"); });
}

TEST(Safetensors, HeadersMayBePaddedAndDataMayBeEmpty) {
  TempDir dir;
  spill(dir / "a",
        file_of(R"({"x":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}      )", ""));
  EXPECT_EQ(read_safetensors(dir / "a").tensors.at("x").shape(), (Shape{0, 5}));
}

TEST(Safetensors, WhatCannotBeWrittenIsAnError) {
  TempDir dir;
  Tensor one = Tensor::ones({1});
  expect_error(ErrorCode::invalid_argument, {"'w'", "qint8", "int_repr"}, [&] {
    write_safetensors(dir / "a", {{"w", quantize_per_tensor(one, 1, 0, DType::qint8)}});
  });
  expect_error(ErrorCode::invalid_argument, {"__metadata__"}, [&] {
    write_safetensors(dir / "a", {{"__metadata__", one}});
  });
  expect_error(ErrorCode::invalid_argument, {"UTF-8"}, [&] {
    write_safetensors(dir / "a", {{"\xff", one}});
  });
  expect_error(ErrorCode::invalid_argument, {"UTF-8"}, [&] {
    write_safetensors(dir / "a", {}, {{"k", "\xff"}});
  });
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(DataSafetensors, ReadsSilero) {
  OCTET_NEED_DATA("models/silero_vad_16k.safetensors");
  auto path = testing::data_dir() / "models/silero_vad_16k.safetensors";
  auto tensors = read_safetensors(path).tensors;
  EXPECT_EQ(tensors.at("stft_conv.weight").type(), TensorType(DType::float32, Shape{258, 1, 256}));
  EXPECT_EQ(tensors.at("conv1.bias").shape(), Shape{128});
  int64_t bytes = 0;
  for (const auto& [name, t] : tensors) {
    bytes += t.nbytes();
    for (float v : t.to_vector<float>()) ASSERT_LT(std::abs(v), 1e4f) << name;
  }
  EXPECT_LT(bytes, static_cast<int64_t>(std::filesystem::file_size(path)));
  EXPECT_GT(bytes, 1200000);
}

TEST(FuzzSafetensors, AnyBytesAreReadOrAnError) {
  TempDir dir;
  write_safetensors(dir / "seed",
                    {{"x", Tensor::arange(3)},
                     {"y", Tensor::ones({2, 2})},
                     {"z", Tensor::ones({5}, DType::bool_)}},
                    {{"k", "v"}});
  std::string whole = testing::without_checksums(slurp(dir / "seed"));
  size_t header_end = whole.find_last_of('}') + 1;
  Random random(1);
  int read = 0;
  for (int i = 0; i < 6000; ++i) {
    std::string s = whole;
    for (int64_t n = random.integer(1, 3); n > 0 && !s.empty(); --n) {
      // Mostly in the header, where it matters.
      size_t limit = random.integer(0, 3) ? std::min(header_end, s.size()) : s.size();
      auto at = static_cast<size_t>(random.integer(0, static_cast<int64_t>(limit) - 1));
      switch (random.integer(0, 5)) {
        case 0:
          s[at] = static_cast<char>(s[at] ^ (1 << random.integer(0, 7)));
          break;
        case 1:
          s[at] = "{}[]\",:0123456789-.e\\"[random.integer(0, 20)];
          break;
        case 2:
          s.resize(at);
          break;
        case 3:
          s.erase(at, static_cast<size_t>(random.integer(1, 16)));
          break;
        case 4:
          s.insert(at,
                   s.substr(static_cast<size_t>(random.integer(0, static_cast<int64_t>(at))), 16));
          break;
        default:
          s[at] = static_cast<char>(random.next());
      }
      // Keeps the length right half of the time, so that the JSON is reached.
      if (s.size() > 8 && random.integer(0, 1)) {
        uint64_t length =
            s.size() > whole.size() - header_end ? s.size() - (whole.size() - header_end) - 8 : 0;
        for (int b = 0; b < 8; ++b)
          s[static_cast<size_t>(b)] = static_cast<char>(length >> 8 * b & 255);
      }
    }
    spill(dir / "a", s);
    try {
      for (const auto& [name, t] : read_safetensors(dir / "a").tensors)
        read += t.clone().numel() >= 0;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ErrorCode::corrupt) << e.what();
    }
  }
  EXPECT_GT(read, 0);
  for (size_t n = 0; n < whole.size(); ++n) {
    spill(dir / "a", whole.substr(0, n));
    EXPECT_THROW(read_safetensors(dir / "a"), Error) << n;
  }
}

}  // namespace
}  // namespace octet
