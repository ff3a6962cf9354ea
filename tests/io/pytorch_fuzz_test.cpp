// Damaged files of PyTorch are read or are an octet::Error: never anything else.
#include <gtest/gtest.h>

#include "octet/base/error.h"
#include "octet/base/random.h"
#include "octet/io/pytorch_file.h"
#include "tests/io/damage.h"
#include "tests/io/torch_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using namespace testing;  // NOLINT: the opcodes

// A state dict of most forms that tensors have, in a checkpoint.
std::string checkpoint(TorchFile& file) {
  const std::string per_tensor = tuple({global("torch", "per_tensor_affine"), real(0.1), num(3)});
  const std::string floats = file.storage("FloatStorage", std::string(96, '\1'), 24);
  const std::string scales = file.tensor("DoubleStorage", TorchFile::raw<double>({0.5, 0.25}), {2}),
                    zeros = file.tensor("LongStorage", TorchFile::raw<int64_t>({1, -1}), {2});
  const std::string state = ordered(
      {{"conv.weight", TorchFile::view(floats, 0, {4, 6}, {6, 1})},
       {"conv.turned", TorchFile::view(floats, 4, {2, 3}, {1, 2})},
       {"steps", file.tensor("LongStorage", TorchFile::raw<int64_t>({7}), {})},
       {"flag", file.tensor("BoolStorage", "\1", {1})},
       {"p", reduce(global("torch._utils", "_rebuild_parameter"),
                    {file.floats({1, 2}, {2}), kTrue, ordered({})})},
       {"a", file.qtensor("QUInt8Storage", "\1\2\3", {3}, per_tensor)},
       {"b", file.qtensor("QInt8Storage", "\1\2\3\4", {2, 2},
                          tuple({global("torch", "per_channel_affine"), scales, zeros, num(0)}))},
       {"fc._packed_params._packed_params",
        tuple({file.qtensor("QInt8Storage", "\1\2", {1, 2}, per_tensor), kNone})}});
  return dict({{"epoch", num(3)}, {"state_dict", state + dict({{"_metadata", dict({})}}) + "b"}});
}

// Reads every element.
void read(const std::filesystem::path& path) {
  for (const auto& [name, tensor] : read_pytorch(path)) to_string(tensor.contiguous());
}

TEST(FuzzPyTorch, DamagedArchivesAreErrorsOrTensors) {
  TempDir dir;
  TorchFile file;
  spill(dir / "a.pt", file.zip(checkpoint(file)));
  EXPECT_GT(damage_file(dir / "a.pt", 4000, read), 1000);
}

// Without checksums, so that damage is seen by what reads the pickle and the tensors.
TEST(FuzzPyTorch, DamagedPicklesAreErrorsOrTensors) {
  TempDir dir;
  TorchFile file;
  file.with_crc = false;
  const std::string object = checkpoint(file);
  Random random(1);
  auto members = file.members(object);
  const std::string pickle = members[0].contents;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string& bytes = members[0].contents = pickle;
    for (int64_t n = random.integer(1, 3); n > 0; --n) {
      const auto at =
          static_cast<size_t>(random.integer(0, static_cast<int64_t>(bytes.size()) - 1));
      // Opcodes and small numbers more often than other bytes.
      static const std::string kLikely = std::string("\0\1\x7f\x80\xff", 5) +
                                         ")]}(0123NKMJGXBCcbaeqrhjtsuldQR.\x81\x85\x86\x87\x88\x8a"
                                         "\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96";
      switch (random.integer(0, 4)) {
        case 0:
          bytes[at] = static_cast<char>(random.next());
          break;
        case 1:
          bytes[at] = kLikely[static_cast<size_t>(random.next() % kLikely.size())];
          break;
        case 2:
          bytes.insert(at, 1, kLikely[static_cast<size_t>(random.next() % kLikely.size())]);
          break;
        case 3:
          bytes.erase(at, static_cast<size_t>(random.integer(1, 8)));
          break;
        default:
          bytes.insert(at, bytes.substr(static_cast<size_t>(random.integer(
                                            0, static_cast<int64_t>(bytes.size()) - 1)),
                                        static_cast<size_t>(random.integer(1, 64))));
      }
    }
    spill(dir / "a.pt", zip_of(members));
    try {
      read(dir / "a.pt");
    } catch (const Error& e) {
      ++refused;
      ASSERT_NE(e.code(), ErrorCode::internal) << e.what();
      ASSERT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
  }
  EXPECT_GT(refused, 10000);
  EXPECT_LT(refused, 20000) << "some mutations are harmless";
}

TEST(FuzzPyTorch, DamagedLegacyFilesAreErrorsOrTensors) {
  TempDir dir;
  TorchFile file;
  file.legacy = true;
  const std::string object = checkpoint(file);
  spill(dir / "a.pt", file.old(object));
  EXPECT_GT(damage_file(dir / "a.pt", 6000, read), 3000);
}

TEST(FuzzPyTorch, EveryTruncation) {
  TempDir dir;
  TorchFile file;
  const std::string whole = file.zip(checkpoint(file));
  for (size_t n = 0; n < whole.size(); ++n) {
    spill(dir / "a.pt", whole.substr(0, n));
    EXPECT_THROW(read(dir / "a.pt"), Error) << n;
  }
}

}  // namespace
}  // namespace octet
