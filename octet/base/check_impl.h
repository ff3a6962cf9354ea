#pragma once
// The checks that octet's own sources use. Not public: it brings in fmt.
//
//   OCTET_CHECK(x.dim() == 4, invalid_argument, "{}: expected a 4-d input, got {}", node,
//               to_string(x.shape()));

#include <fmt/format.h>

#include "octet/base/error.h"

#define OCTET_FAIL(code, ...) ::octet::fail(::octet::ErrorCode::code, ::fmt::format(__VA_ARGS__))
#define OCTET_CHECK(condition, code, ...)            \
  do {                                               \
    if (!(condition)) OCTET_FAIL(code, __VA_ARGS__); \
  } while (false)
