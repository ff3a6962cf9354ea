#include "octet/base/error.h"

#include <gtest/gtest.h>

namespace octet {
namespace {

TEST(Error, IsOneLineWhateverItQuotes) {
  try {
    fail(ErrorCode::corrupt, "a key 'a\nb\x1b[31m'; \xc3\xa9 stays");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "a key 'a?b?[31m'; \xc3\xa9 stays");
    EXPECT_EQ(e.code(), ErrorCode::corrupt);
  }
}

}  // namespace
}  // namespace octet
