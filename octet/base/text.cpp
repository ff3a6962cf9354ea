#include "octet/base/text.h"

#include <fnmatch.h>

#include <algorithm>
#include <regex>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t cost = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, cost});
    }
  }
  return row[b.size()];
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known, size_t most) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& candidate : known) {
    size_t d = edit_distance(name, candidate);
    bool contains = !name.empty() && candidate.find(name) != std::string::npos;
    if (d <= std::max<size_t>(1, name.size() / 3) || contains) ranked.emplace_back(d, candidate);
  }
  std::stable_sort(ranked.begin(), ranked.end());
  std::vector<std::string> result;
  for (size_t i = 0; i < ranked.size() && i < most; ++i) result.push_back(ranked[i].second);
  return result;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& known) {
  auto near = nearest_names(name, known);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", fmt::join(near, "', '"));
}

bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.substr(0, 3) == "re:") {
    try {
      return std::regex_search(name.begin(), name.end(), std::regex(pattern.begin() + 3, pattern.end()));
    } catch (const std::regex_error& e) {
      OCTET_FAIL(invalid_argument, "pattern '{}': not a regular expression ({})", pattern, e.what());
    }
  }
  return pattern == name || fnmatch(std::string(pattern).c_str(), std::string(name).c_str(), 0) == 0;
}

std::string human_bytes(double bytes) {
  if (bytes < 1000) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} KB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.2f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

}  // namespace octet
