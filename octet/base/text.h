#pragma once
// Text helpers for messages and names.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

// The known names closest to a mistyped one (edit distance up to a third of its length), nearest
// first, at most `most`. Names of more than 200 bytes are near nothing.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       size_t most = 3);

// "; did you mean 'conv1', 'conv2'?", or "" where nothing is near.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& known);

// A regular expression in the syntax of RE2 (https://github.com/google/re2/wiki/Syntax: Perl's
// without lookaround and backreferences), compiled once. Matching takes time linear in the text,
// whatever the expression, and may be done by several threads at once.
class Regex {
 public:
  // Error invalid_argument, saying what is wrong, for a malformed expression.
  explicit Regex(std::string_view expression);
  // Whether some part of the text matches.
  bool found_in(std::string_view text) const;
  // Whether the text begins with a match (Python's re.match).
  bool begins(std::string_view text) const;

 private:
  friend class NamePattern;
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

// How nodes and modules are named everywhere: an exact name, a glob (* ? [...], over the whole
// name), or "re:EXPRESSION" (a Regex, found anywhere in the name).
class NamePattern {
 public:
  // Error invalid_argument for a malformed expression.
  explicit NamePattern(std::string_view pattern);
  bool matches(std::string_view name) const;

 private:
  std::string exact_;
  std::shared_ptr<const Regex::Compiled> compiled_;  // null if only the exact name matches
  bool whole_ = false;                               // a glob
};

// "1.2 MB", "340 KB", "12 B".
std::string human_bytes(double bytes);

// The text in at most `width` characters, 5 or more: "backbone.l...conv2" has lost its middle, for
// names differ at their ends. UTF-8 is cut between characters.
std::string shorten(std::string_view text, size_t width);

}  // namespace octet
