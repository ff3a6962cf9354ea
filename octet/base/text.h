#pragma once
// Text helpers for messages and names.

#include <string>
#include <string_view>
#include <vector>

namespace octet {

// The known names closest to a mistyped one (edit distance up to a third of its length), nearest first, at most `most`.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known, size_t most = 3);

// "; did you mean 'conv1', 'conv2'?", or "" where nothing is near.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& known);

// Whether `name` matches a node pattern: an exact name, a glob (* ? [...]), or "re:EXPRESSION" (searched, ECMAScript).
// Error if the expression is malformed.
bool matches(std::string_view pattern, std::string_view name);

// "1.2 MB", "340 KB", "12 B".
std::string human_bytes(double bytes);

}  // namespace octet
