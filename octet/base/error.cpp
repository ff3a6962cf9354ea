#include "octet/base/error.h"

#include <algorithm>

namespace octet {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::io:
      return "io";
    case ErrorCode::corrupt:
      return "corrupt";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::not_calibrated:
      return "not_calibrated";
    case ErrorCode::internal:
      return "internal";
  }
  return "unknown";
}

// What a message quotes may hold anything: a damaged file's names, a user's text.
void fail(ErrorCode code, const std::string& message) {
  std::string line = message;
  std::replace_if(
      line.begin(), line.end(),
      [](char c) { return static_cast<unsigned char>(c) < 32 || c == '\x7f'; }, '?');
  throw Error(code, line);
}

}  // namespace octet
