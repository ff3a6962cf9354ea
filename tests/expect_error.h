#pragma once
// Checks that something throws an octet::Error of a code whose message has all these parts.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "octet/base/error.h"

namespace octet::testing {

template <typename Fn>
void expect_error(ErrorCode code, const std::vector<std::string>& parts, Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.code()), std::string(to_string(code))) << e.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
          << "'" << part << "' is not in: " << e.what();
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos)
        << "more than one line: " << e.what();
    return;
  } catch (const std::exception& e) {
    ADD_FAILURE() << "expected an octet::Error, got: " << e.what();
    return;
  }
  ADD_FAILURE() << "expected an Error " << to_string(code) << ", nothing was thrown";
}

}  // namespace octet::testing
