#include "octet/base/lasting.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace octet {

TEST(Lasting, PartsAreAlignedApartAndOutliveEachOther) {
  std::vector<Buffer> parts;
  for (size_t bytes : {1, 40'000, 3'000'000, 5'000'001, 20'000'000, 70'000}) {
    parts.push_back(allocate_lasting(bytes));
    EXPECT_EQ(parts.back().bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(parts.back().data()) % 64, 0u);
    for (size_t i = 0; i < kBufferSlack; ++i) EXPECT_EQ(parts.back().data()[bytes + i], std::byte{0});
  }
  for (size_t i = 0; i < parts.size(); ++i) std::memset(parts[i].data(), static_cast<int>(i + 1), parts[i].bytes());
  for (size_t i = 0; i < parts.size(); i += 2) parts[i] = {};
  for (size_t i = 1; i < parts.size(); i += 2)
    for (size_t at : {size_t{0}, parts[i].bytes() / 2, parts[i].bytes() - 1}) EXPECT_EQ(parts[i].data()[at], static_cast<std::byte>(i + 1));
}

}  // namespace octet
