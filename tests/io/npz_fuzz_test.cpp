// Damaged .npy and .npz files are read or are an octet::Error: never anything else.
#include <gtest/gtest.h>

#include "octet/base/error.h"
#include "octet/base/random.h"
#include "octet/io/npz.h"
#include "tests/io/zip_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::npy;
using testing::npy_header_dict;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using testing::Zip;

// Flips, overwrites, cuts and repeats bytes: whatever comes out is read or is an octet::Error.
std::string mutate(std::string s, Random& random) {
  for (int64_t n = random.integer(1, 4); n > 0 && !s.empty(); --n) {
    auto at = static_cast<size_t>(random.integer(0, static_cast<int64_t>(s.size()) - 1));
    static const unsigned char kEdges[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    switch (random.integer(0, 6)) {
      case 0:
        s[at] = static_cast<char>(s[at] ^ (1 << random.integer(0, 7)));
        break;
      case 1:
        s[at] = static_cast<char>(kEdges[random.integer(0, 5)]);
        break;
      case 2:
        s[at] = static_cast<char>(random.next());
        break;
      case 3:
        s.resize(at);
        break;
      case 4:
        s.erase(at, static_cast<size_t>(random.integer(1, 16)));
        break;
      case 5:
        s.insert(at,
                 s.substr(static_cast<size_t>(random.integer(0, static_cast<int64_t>(at))), 16));
        break;
      default:
        for (size_t i = at; i < std::min(at + 4, s.size()); ++i) s[i] = static_cast<char>(0xff);
    }
  }
  return s;
}

void fuzz(const std::string& seed_bytes, uint64_t seed, int rounds) {
  TempDir dir;
  Random random(seed);
  int read = 0;
  for (int i = 0; i < rounds; ++i) {
    spill(dir / "a", mutate(seed_bytes, random));
    try {
      for (const auto& [name, tensor] : read_npz(dir / "a")) read += tensor.numel() >= 0;
    } catch (const Error& e) {
      ASSERT_NE(e.code(), ErrorCode::internal) << e.what();
    }
    try {
      list_npz(dir / "a");
    } catch (const Error&) {
    }
  }
  EXPECT_GT(read, 0) << "some mutations are harmless";
}

TEST(FuzzNpz, StoredArchives) {
  TempDir dir;
  write_npz(dir / "a", {{"x", Tensor::arange(3)}, {"yy", Tensor::ones({2, 2})}});
  fuzz(slurp(dir / "a"), 1, 3000);
}

TEST(FuzzNpz, DeflatedArchives) {
  TempDir dir;
  write_npz(dir / "a", {{"x", Tensor::randn({20, 10}, 1)}, {"yy", Tensor::ones({50, 50})}}, true);
  fuzz(slurp(dir / "a"), 2, 3000);
}

TEST(FuzzNpz, Zip64Archives) {
  Zip zip;
  zip.zip64 = true;
  zip.central_extra =
      Zip::n(1, 2) + Zip::n(24, 2) + Zip::n(zip.size, 8) + Zip::n(zip.packed, 8) + Zip::n(0, 8);
  zip.size = zip.packed = zip.offset = 0xffffffff;
  fuzz(zip.str(), 3, 3000);
}

TEST(FuzzNpz, Arrays) {
  TempDir dir;
  Random random(4);
  std::string whole = npy(npy_header_dict("<f4", "(2, 3)", "True"), std::string(24, 'x'));
  for (int i = 0; i < 4000; ++i) {
    spill(dir / "a.npy", mutate(whole, random));
    try {
      read_npy(dir / "a.npy");
    } catch (const Error&) {
    }
  }
}

TEST(FuzzNpz, EveryTruncation) {
  TempDir dir;
  std::string whole = Zip().str();
  for (size_t n = 0; n < whole.size(); ++n) {
    spill(dir / "a", whole.substr(0, n));
    EXPECT_THROW(read_npz(dir / "a"), Error) << n;
  }
}

}  // namespace
}  // namespace octet
