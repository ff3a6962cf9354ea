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
    for (size_t i = 0; i < kBufferSlack; ++i)
      EXPECT_EQ(parts.back().data()[bytes + i], std::byte{0});
  }
  for (size_t i = 0; i < parts.size(); ++i)
    std::memset(parts[i].data(), static_cast<int>(i + 1), parts[i].bytes());
  for (size_t i = 0; i < parts.size(); i += 2) parts[i] = {};
  for (size_t i = 1; i < parts.size(); i += 2)
    for (size_t at : {size_t{0}, parts[i].bytes() / 2, parts[i].bytes() - 1})
      EXPECT_EQ(parts[i].data()[at], static_cast<std::byte>(i + 1));
}

TEST(Lasting, RoomMadeBeforeIsTakenAndKeepsWhatIsPutThere) {
  std::vector<Buffer> parts;
  {
    const LastingRoom none(1000), room(20'000'000);
    EXPECT_EQ(none.pages(), 0);
    EXPECT_EQ(room.pages(), 8);
    for (int64_t page = 0; page < room.pages(); page += 2) room.touch(page);
    for (int i = 0; i < 4; ++i) {
      parts.push_back(allocate_lasting(5'000'000));
      std::memset(parts.back().data(), i + 1, parts.back().bytes());
    }
    for (int64_t page = 0; page < room.pages(); ++page) room.touch(page);
  }
  for (size_t i = 0; i < parts.size(); ++i)
    for (size_t at = 0; at < parts[i].bytes(); at += 4096)
      ASSERT_EQ(parts[i].data()[at], static_cast<std::byte>(i + 1));
}

TEST(Lasting, VectorsOfSuchMemoryAreVectors) {
  std::vector<int32_t, LastingAllocator<int32_t>> numbers(100'000);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i);
  auto copy = numbers;
  auto moved = std::move(numbers);
  for (int32_t i = 100'000; i < 300'000; ++i) moved.push_back(i);
  EXPECT_EQ(copy.size(), 100'000u);
  for (size_t i = 0; i < moved.size(); ++i) ASSERT_EQ(moved[i], static_cast<int32_t>(i));
  for (size_t i = 0; i < copy.size(); ++i) ASSERT_EQ(copy[i], moved[i]);
}

}  // namespace octet
