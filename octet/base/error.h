#pragma once
// Errors. Everything octet rejects is thrown as octet::Error: one line that says what failed,
// where, what was expected, what was got and what to do about it. The library never aborts on input
// and never prints.

#include <stdexcept>
#include <string>

namespace octet {

enum class ErrorCode {
  invalid_argument,  // a value, shape or dtype the caller passed is wrong
  not_found,         // a file, name, key or input that does not exist
  io,                // the operating system refused a read or a write
  corrupt,           // a file is damaged, truncated or not of the format it claims
  unsupported,       // valid, but octet cannot do it (an operator, a dtype, a feature)
  not_calibrated,    // qparams were asked of an observer that saw no data
  internal,          // a bug in octet
};

// "invalid_argument", "not_found", ...
const char* to_string(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// Throws Error(code, message).
[[noreturn]] void fail(ErrorCode code, const std::string& message);

}  // namespace octet
