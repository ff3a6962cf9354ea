#pragma once
// One size per spatial dimension, as PyTorch writes them: Sizes<2>(3) is {3, 3}, Sizes<2>{3, 5} is
// {3, 5}. OptionalSizes may be left off; ConvPadding may be "same" or "valid" instead.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/error.h"

namespace octet {

template <size_t N>
class Sizes {
 public:
  Sizes(int64_t same) { values_.fill(same); }             // NOLINT: implicit, as in PyTorch
  Sizes(int same) : Sizes(static_cast<int64_t>(same)) {}  // NOLINT
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

// Sizes, or none: a pool's stride, which is the kernel's size if it is not given.
template <size_t N>
class OptionalSizes {
 public:
  OptionalSizes() = default;
  OptionalSizes(std::nullopt_t) {}               // NOLINT: implicit
  OptionalSizes(int64_t same) : value_(same) {}  // NOLINT
  OptionalSizes(int same) : value_(same) {}      // NOLINT
  OptionalSizes(std::initializer_list<int64_t> each) : value_(Sizes<N>(each)) {}
  OptionalSizes(const std::vector<int64_t>& each) : value_(each) {}  // NOLINT
  OptionalSizes(const Sizes<N>& each) : value_(each) {}              // NOLINT
  OptionalSizes(std::optional<Sizes<N>> value) : value_(value) {}    // NOLINT
  Sizes<N> value_or(const Sizes<N>& otherwise) const { return value_.value_or(otherwise); }

 private:
  std::optional<Sizes<N>> value_;
};

// The padding of a convolution: sizes, the same before and behind each dimension; or "valid", none;
// or "same": as much as keeps the size with stride 1, an odd element of it behind. Error for other
// names.
template <size_t N>
class ConvPadding {
 public:
  // NOLINT: implicit, as in PyTorch
  ConvPadding(int64_t same) : sizes_(same) {}
  ConvPadding(int same) : sizes_(same) {}  // NOLINT
  ConvPadding(std::initializer_list<int64_t> each) : sizes_(each) {}
  ConvPadding(const std::vector<int64_t>& each) : sizes_(each) {}      // NOLINT
  ConvPadding(const Sizes<N>& each) : sizes_(each) {}                  // NOLINT
  ConvPadding(const char* name) : ConvPadding(std::string(name)) {}    // NOLINT
  ConvPadding(std::string name) : sizes_(0), name_(std::move(name)) {  // NOLINT
    if (name_ != "same" && name_ != "valid")
      throw Error(ErrorCode::invalid_argument,
                  "padding=\"" + name_ + "\"; expected \"same\", \"valid\" or sizes");
  }
  const std::string& name() const { return name_; }  // "same", "valid" or ""
  const Sizes<N>& sizes() const { return sizes_; }   // 0 if it has a name
  bool operator==(const ConvPadding&) const = default;
  // The operators' form: all beginnings, then all ends.
  std::vector<int64_t> both_ends(const Sizes<N>& kernel, const Sizes<N>& dilation) const {
    std::vector<int64_t> ends = sizes_.both_ends();
    if (name_ != "same") return ends;
    for (size_t i = 0; i < N; ++i) {
      const int64_t total = dilation[i] * (kernel[i] - 1);
      ends[i] = total / 2;
      ends[i + N] = total - ends[i];
    }
    return ends;
  }
  std::string text() const { return name_.empty() ? sizes_.text() : name_; }

 private:
  Sizes<N> sizes_;
  std::string name_;
};

}  // namespace octet
