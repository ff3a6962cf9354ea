#pragma once
// Files cut short and with flipped bits.

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "octet/base/error.h"
#include "octet/base/random.h"
#include "tests/temp_dir.h"

namespace octet::testing {

// Calls `read` with a damaged copy of the file `rounds` times: cut short, or with one to four
// flipped bits, most of them in the header. It may succeed or throw an octet::Error. How often it
// threw.
inline int damage_file(const std::filesystem::path& file, int rounds,
                       const std::function<void(const std::filesystem::path&)>& read) {
  const std::string whole = slurp(file);
  const std::filesystem::path bad = file.parent_path() / "damaged";
  Random random(1);
  int refused = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = whole;
    auto below = [&](size_t n) { return static_cast<size_t>(random.next() % n); };
    if (i % 4 == 0) {
      bytes.resize(below(whole.size()));
    } else {
      for (size_t flips = 1 + below(4); flips-- > 0;) {
        size_t at = i % 8 < 6 ? below(whole.size()) : below(std::min<size_t>(whole.size(), 64));
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << below(8));
      }
    }
    spill(bad, bytes);
    try {
      read(bad);
    } catch (const Error& e) {
      ++refused;
      EXPECT_EQ(std::string(e.what()).find("internal"), std::string::npos) << e.what();
    } catch (const std::exception& e) {
      ADD_FAILURE() << "round " << i << ": not an octet::Error: " << e.what();
    }
  }
  return refused;
}

}  // namespace octet::testing
