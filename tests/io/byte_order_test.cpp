// The numbers of files are little-endian, whatever those of the machine are (`make s390x`).
#include "octet/io/byte_order_impl.h"

#include <gtest/gtest.h>

#include "octet/io/npz.h"
#include "octet/io/safetensors.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

const std::string kBytes("\x04\x03\x02\x01\xfc\xff\xff\xff", 8);  // 0x01020304 and -4
const std::vector<int32_t> kNumbers{0x01020304, -4};

Tensor numbers() { return Tensor::from(kNumbers, {2}); }

bool ends_with_numbers(const std::filesystem::path& file) { return slurp(file).ends_with(kBytes); }

TEST(ByteOrder, ReversesTheBytesOfEachElement) {
  std::string bytes = "abcdefgh";
  io::reverse_elements(bytes.data(), bytes.size(), 4);
  EXPECT_EQ(bytes, "dcbahgfe");
  io::reverse_elements(bytes.data(), bytes.size(), 1);
  EXPECT_EQ(bytes, "dcbahgfe");
}

TEST(ByteOrder, FilesAreLittleEndianAndAreReadAgain) {
  TempDir dir;
  write_safetensors(dir / "a.safetensors", {{"x", numbers()}});
  EXPECT_TRUE(ends_with_numbers(dir / "a.safetensors"));
  EXPECT_EQ(read_safetensors(dir / "a.safetensors").tensors.at("x").to_vector<int32_t>(), kNumbers);
  write_npy(dir / "a.npy", numbers());
  EXPECT_TRUE(ends_with_numbers(dir / "a.npy"));
  EXPECT_EQ(read_npy(dir / "a.npy").to_vector<int32_t>(), kNumbers);
}

// The tensor itself stays what it was.
TEST(ByteOrder, ATensorIsNotChangedByWritingIt) {
  const Tensor t = numbers();
  EXPECT_EQ(std::string(static_cast<const char*>(io::in_file_order(t).raw_data()), 8), kBytes);
  EXPECT_EQ(t.to_vector<int32_t>(), kNumbers);
}

}  // namespace
}  // namespace octet::testing
