#pragma once
// One size per spatial dimension, as PyTorch writes them: Sizes<2>(3) is {3, 3}, Sizes<2>{3, 5} is {3, 5}.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "octet/base/error.h"

namespace octet {

template <size_t N>
class Sizes {
 public:
  Sizes(int64_t same) { values_.fill(same); }                // NOLINT: implicit, as in PyTorch
  Sizes(int same) : Sizes(static_cast<int64_t>(same)) {}     // NOLINT
  Sizes(std::initializer_list<int64_t> each) {
    if (each.size() != N && each.size() != 1)
      throw Error(ErrorCode::invalid_argument,
                  std::to_string(each.size()) + " sizes given; expected 1 or " + std::to_string(N));
    for (size_t i = 0; i < N; ++i) values_[i] = each.size() == 1 ? *each.begin() : each.begin()[i];
  }
  Sizes(const std::vector<int64_t>& each) {  // NOLINT
    if (each.size() != N)
      throw Error(ErrorCode::invalid_argument,
                  std::to_string(each.size()) + " sizes given; expected " + std::to_string(N));
    for (size_t i = 0; i < N; ++i) values_[i] = each[i];
  }
  int64_t operator[](size_t i) const { return values_[i]; }
  std::vector<int64_t> list() const { return {values_.begin(), values_.end()}; }
  bool operator==(const Sizes&) const = default;
  // The operators' form of a padding: all beginnings, then all ends.
  std::vector<int64_t> both_ends() const {
    std::vector<int64_t> ends = list();
    ends.insert(ends.end(), values_.begin(), values_.end());
    return ends;
  }
  // "(3, 3)", or "(3,)" for one: Python's tuples.
  std::string text() const {
    std::string s = "(";
    for (size_t i = 0; i < N; ++i) s += (i ? ", " : "") + std::to_string(values_[i]);
    return s + (N == 1 ? ",)" : ")");
  }

 private:
  std::array<int64_t, N> values_;
};

}  // namespace octet
