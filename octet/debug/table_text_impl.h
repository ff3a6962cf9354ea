#pragma once
// Tables and sentences for a terminal of 100 columns.

#include <string>

namespace octet::debug {

// At most `width` bytes, cut in the middle: names differ at their ends.
inline std::string cut(const std::string& text, size_t width) {
  if (text.size() <= width) return text;
  const size_t head = (width - 2) / 3, tail = width - 2 - head;
  return text.substr(0, head) + ".." + text.substr(text.size() - tail);
}

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
