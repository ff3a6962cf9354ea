#pragma once
// How much the tests of faults try: little in the suite, all of it in `make faults`, which sets
// OCTET_FAULT_ROUNDS.

#include <algorithm>
#include <cstdlib>

namespace octet::testing {

inline int fault_rounds(int few) {
  const char* rounds = std::getenv("OCTET_FAULT_ROUNDS");
  return rounds ? std::max(few, std::atoi(rounds)) : few;
}

}  // namespace octet::testing
