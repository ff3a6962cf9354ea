#pragma once
// How much the tests try whose results must be the same bits everywhere: little in the suite, as
// much as is asked for in `make bits`, which sets OCTET_BITS_CASES (calls of one suite in all; a
// hundredth of it networks) and OCTET_BITS_SEED (another sequence of cases).

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace octet::testing {

inline int64_t bits_number(const char* name) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : 0;
}
inline bool bits_long() { return bits_number("OCTET_BITS_CASES") > 0; }

// How many of its cases a test tries that tries `few` in the suite, whose tests try `all` together.
inline int bits_cases(int few, int all) {
  return static_cast<int>(std::max<int64_t>(few, bits_number("OCTET_BITS_CASES") * few / all));
}
inline int bits_networks(int few) {
  return static_cast<int>(std::max<int64_t>(few, bits_number("OCTET_BITS_CASES") / 100));
}

// The seed of the i-th case.
inline uint64_t bits_seed(int i) {
  return static_cast<uint64_t>(bits_number("OCTET_BITS_SEED")) * 1'000'000'007 +
         static_cast<uint64_t>(i);
}

// Threads for the i-th case; a new number means a new pool, so it changes seldom.
inline int bits_threads(int i, int every) {
  constexpr int kNumbers[] = {1, 2, 3, 7, 16};
  return kNumbers[i / every % (bits_long() ? 5 : 3)];
}

}  // namespace octet::testing
