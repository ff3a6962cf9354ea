#include "octet/base/text.h"

#include <re2/re2.h>

#include <algorithm>
#include <cctype>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

constexpr size_t kLongestNear = 200;  // comparing names takes time in the product of their lengths

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

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       size_t most) {
  std::vector<std::pair<size_t, std::string>> ranked;
  if (name.size() > kLongestNear) return {};
  for (const std::string& candidate : known) {
    if (candidate.size() > kLongestNear) continue;
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

// -- patterns ------------------------------------------------------------------------------------

struct Regex::Compiled {
  re2::RE2 re;
  Compiled(std::string_view expression, const re2::RE2::Options& options)
      : re({expression.data(), expression.size()}, options) {}
};

namespace {

re2::RE2::Options quiet() {
  re2::RE2::Options options;
  options.set_log_errors(false);  // they are ours to report
  return options;
}

bool search(const re2::RE2& re, std::string_view text, re2::RE2::Anchor anchor) {
  return re.Match({text.data(), text.size()}, 0, text.size(), anchor, nullptr, 0);
}

// The end of the set that begins at glob[open] = '[', or npos if it does not end: then '[' is an
// ordinary character.
size_t set_end(std::string_view glob, size_t open) {
  size_t at = open + 1;
  if (at < glob.size() && (glob[at] == '!' || glob[at] == '^')) ++at;
  return glob.find(']', at + 1);  // a ']' that comes first is of the set
}

// The regular expression that matches what a glob does, as fnmatch(3) defines it.
std::string from_glob(std::string_view glob) {
  std::string re = "(?s)";
  auto literal = [&](char c) { re += re2::RE2::QuoteMeta({&c, 1}); };
  for (size_t i = 0; i < glob.size(); ++i) {
    if (glob[i] == '*') {
      re += ".*";
    } else if (glob[i] == '?') {
      re += '.';
    } else if (glob[i] == '\\' && i + 1 < glob.size()) {
      literal(glob[++i]);
    } else if (size_t end = glob[i] == '[' ? set_end(glob, i) : std::string_view::npos;
               end != std::string_view::npos) {
      re += '[';
      size_t at = i + 1;
      if (glob[at] == '!' || glob[at] == '^') re += '^', ++at;
      for (; at < end; ++at) {
        const auto byte = static_cast<unsigned char>(glob[at]);
        re += byte == '-' || std::isalnum(byte) ? std::string(1, glob[at])
                                                : fmt::format("\\x{:02x}", byte);
      }
      re += ']';
      i = end;
    } else {
      literal(glob[i]);
    }
  }
  return re;
}

}  // namespace

Regex::Regex(std::string_view expression)
    : compiled_(std::make_shared<Compiled>(expression, quiet())) {
  OCTET_CHECK(compiled_->re.ok(), invalid_argument,
              "'{}' is not a regular expression: {} (the syntax is RE2's: no lookaround, no "
              "backreferences)",
              expression, compiled_->re.error());
}

bool Regex::found_in(std::string_view text) const {
  return search(compiled_->re, text, re2::RE2::UNANCHORED);
}
bool Regex::begins(std::string_view text) const {
  return search(compiled_->re, text, re2::RE2::ANCHOR_START);
}

NamePattern::NamePattern(std::string_view pattern) : exact_(pattern) {
  if (pattern.starts_with("re:")) {
    try {
      compiled_ = Regex(pattern.substr(3)).compiled_;
    } catch (const Error& e) {
      throw Error(e.code(), fmt::format("pattern '{}': {}", pattern, e.what()));
    }
  } else if (pattern.find_first_of("*?[\\") != std::string_view::npos) {
    re2::RE2::Options bytes = quiet();
    bytes.set_encoding(re2::RE2::Options::EncodingLatin1);
    auto glob = std::make_shared<const Regex::Compiled>(from_glob(pattern), bytes);
    // A set of the glob may be none, e.g. [z-a]: then, as in a shell, only the name itself matches.
    if (glob->re.ok()) compiled_ = std::move(glob);
    whole_ = true;
  }
}

bool NamePattern::matches(std::string_view name) const {
  if (!exact_.starts_with("re:") && name == exact_) return true;
  return compiled_ &&
         search(compiled_->re, name, whole_ ? re2::RE2::ANCHOR_BOTH : re2::RE2::UNANCHORED);
}

std::string human_bytes(double bytes) {
  if (bytes < 1000) return fmt::format("{:.0f} B", bytes);
  if (bytes < 1e6) return fmt::format("{:.1f} KB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.2f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

std::string shorten(std::string_view text, size_t width) {
  std::vector<size_t> starts;  // of characters
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) starts.push_back(i);
  if (starts.size() <= width) return std::string(text);
  const size_t kept = width - 3, head = kept / 2, tail = kept - head;
  return std::string(text.substr(0, starts[head])) + "..." +
         std::string(text.substr(starts[starts.size() - tail]));
}

}  // namespace octet
