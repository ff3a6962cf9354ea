#pragma once
// Tables and sentences for a terminal of 100 columns.

#include <string>

namespace octet::debug {

// Broken between words into lines of at most 100 columns.
inline std::string wrapped(const std::string& line) {
  constexpr size_t kWidth = 100;
  std::string text, rest = line;
  while (rest.size() > kWidth) {
    size_t at = rest.rfind(' ', kWidth);
    if (at == std::string::npos || at <= 2) at = rest.find(' ', kWidth);
    if (at == std::string::npos) break;
    text += rest.substr(0, at) + "\n";
    rest = "  " + rest.substr(at + 1);
  }
  return text + rest + "\n";
}

}  // namespace octet::debug
