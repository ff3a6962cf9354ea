#pragma once
// Infinity and NaN.

#include <limits>

namespace octet {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace octet
