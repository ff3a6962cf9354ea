#pragma once
// Values as Python prints them, for extra_repr.

#include <fmt/format.h>

#include <string>
#include <vector>

#include "octet/ops/sizes.h"
#include "octet/tensor/attrs.h"

namespace octet::nn {

inline std::string python(bool v) { return v ? "True" : "False"; }
inline std::string python(int64_t v) { return std::to_string(v); }
inline std::string python(double v) {
  std::string s = fmt::format("{}", v);
  return s.find_first_of(".ein") == std::string::npos ? s + ".0" : s;
}
inline std::string python(const std::string& v) { return "'" + v + "'"; }
template <typename T>
std::string python(const std::vector<T>& v) {
  std::string s;
  for (const T& each : v) s += (s.empty() ? "" : ", ") + python(each);
  return "(" + s + (v.size() == 1 ? ",)" : ")");
}
inline std::string python(const Attr& v) {
  return std::visit([](const auto& each) { return python(each); }, v);
}
// One number where all are equal, as they mostly were given.
template <size_t N>
std::string python(const Sizes<N>& v) {
  return v == Sizes<N>(v[0]) ? std::to_string(v[0]) : v.text();
}

}  // namespace octet::nn
