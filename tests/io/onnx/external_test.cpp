// Tensors whose data lies in a file beside the model.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

// A float32 TensorProto of 2 elements in a file; its data where the entries say.
std::filesystem::path tensor_file(const TempDir& dir, const Entries& entries) {
  Message tensor;
  tensor.number(1, 2).number(2, 1).number(14, 1);
  for (const auto& [key, value] : entries)
    tensor.text(13, Message().text(1, key).text(2, value).bytes());
  spill(dir / "t.pb", tensor.bytes());
  return dir / "t.pb";
}

void expect_corrupt(const TempDir& dir, const Entries& entries,
                    const std::vector<std::string>& parts) {
  const auto path = tensor_file(dir, entries);
  expect_error(ErrorCode::corrupt, parts, [&] { io::read_onnx_tensor(path); });
}

const std::string kOneTwo("\0\0\x80\x3f\0\0\0\x40", 8);

TEST(OnnxExternalData, IsReadFromOffsetAndLength) {
  TempDir dir;
  spill(dir / "w.bin", "junk" + kOneTwo + "more");
  Tensor t = io::read_onnx_tensor(
      tensor_file(dir, {{"location", "w.bin"}, {"offset", "4"}, {"length", "8"}}));
  EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{1, 2}));
  spill(dir / "w.bin", kOneTwo);
  EXPECT_EQ(io::read_onnx_tensor(tensor_file(dir, {{"location", "w.bin"}})).to_vector<float>(),
            (std::vector<float>{1, 2}));
}

TEST(OnnxExternalData, OffsetsAndLengthsAreNumbersWithinTheFile) {
  TempDir dir;
  spill(dir / "w.bin", kOneTwo);
  for (const std::string junk :
       {"", "x", "0x0", "-8", " 0", "0 ", "1e3", "99999999999999999999", "0\n"})
    for (const char* key : {"offset", "length"})
      expect_corrupt(dir, {{"location", "w.bin"}, {key, junk}},
                     {"the " + std::string(key) + " of its data is", "a number of bytes"});
  expect_corrupt(dir, {{"location", "w.bin"}, {"offset", "9"}}, {"begins at byte 9", "has 8"});
  expect_corrupt(dir, {{"location", "w.bin"}, {"offset", "4"}, {"length", "8"}}, {"4+8", "has 8"});
  expect_corrupt(dir, {{"location", "w.bin"}, {"offset", "8"}, {"length", "18446744073709551608"}},
                 {"has 8"});
  expect_corrupt(dir, {{"location", "w.bin"}, {"length", "4"}}, {"1 elements"});
  expect_corrupt(dir, {{"location", "w.bin"}, {"offset", "0"}, {"offset", "4"}},
                 {"'offset' is there twice"});
}

TEST(OnnxExternalData, OnlyFilesInTheModelsDirectoryAreRead) {
  TempDir dir;
  spill(dir / "w.bin", kOneTwo);
  std::filesystem::create_directory(dir / "sub");
  std::filesystem::create_symlink("../w.bin", dir / "sub" / "link");
  std::filesystem::create_symlink("/dev", dir / "dev");
  std::filesystem::create_symlink("w.bin", dir / "link");
  for (const std::string& outside :
       {std::string(), std::string("/etc/passwd"), std::string("../w.bin"),
        std::string("sub/../w.bin"), std::string("w.bin\0x", 7)})
    expect_corrupt(dir, {{"location", outside}}, {"expected a file in the model's own directory"});
  for (const std::string link : {"link", "sub/link", "dev/zero"})
    expect_corrupt(dir, {{"location", link}}, {"is a link"});
}

TEST(OnnxExternalData, PipesAndDirectoriesAreErrorsAtOnce) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  std::filesystem::create_directory(dir / "sub");
  for (const auto& [name, what] :
       {std::pair<const char*, const char*>{"pipe", "is a pipe"}, {"sub", "is a directory"}}) {
    const auto path = tensor_file(dir, {{"location", name}});
    expect_error(ErrorCode::io, {"t.pb", what}, [&] { io::read_onnx_tensor(path); });
  }
  const auto path = tensor_file(dir, {{"location", "none"}});
  expect_error(ErrorCode::not_found, {"t.pb", "none"}, [&] { io::read_onnx_tensor(path); });
}

}  // namespace
}  // namespace octet::testing
