#include "octet/base/text.h"

#include <fnmatch.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "octet/base/random.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;

bool matches(const std::string& pattern, const std::string& name) {
  return NamePattern(pattern).matches(name);
}

TEST(Text, BytesAreToldInPowersOfAThousand) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.0 KB");
  EXPECT_EQ(human_bytes(1e6), "1.00 MB");
  EXPECT_EQ(human_bytes(2.5e9), "2.50 GB");
}

TEST(NamePattern, ExactNamesGlobsAndExpressions) {
  EXPECT_TRUE(matches("layer1.0.conv", "layer1.0.conv"));
  EXPECT_FALSE(matches("layer1.0.conv", "layer1.00conv"));
  EXPECT_TRUE(matches("layer1.*", "layer1.0.conv"));
  EXPECT_FALSE(matches("layer1.*", "a.layer1.0"));
  EXPECT_TRUE(matches("layer[0-2].?", "layer1.0"));
  EXPECT_TRUE(matches("a[1].b", "a[1].b")) << "a name is always itself";
  EXPECT_TRUE(matches("re:head", "my.head.fc"));
  EXPECT_FALSE(matches("re:^head", "my.head.fc"));
  EXPECT_FALSE(matches("re:head", "re:hea"));
  EXPECT_TRUE(matches("re:", "anything"));
  EXPECT_FALSE(matches("", "x"));
}

// What glibc says, for glibc may be the one that globs elsewhere.
TEST(NamePattern, GlobsAreThoseOfFnmatch) {
  const std::string pattern_letters = "ab*?[]!^-\\.", name_letters = "ab[]-.\\\n\xe9";
  Random random(5);
  auto text = [&](const std::string& letters, uint64_t most) {
    std::string s;
    for (uint64_t n = random.next() % most; n-- > 0;) s += letters[random.next() % letters.size()];
    return s;
  };
  int hits = 0;
  for (int i = 0; i < 30'000; ++i) {
    const std::string pattern = text(pattern_letters, 7), name = text(name_letters, 5);
    // Not compared: a backslash in a set, or at the end, where fnmatch fits nothing.
    if (pattern.ends_with('\\') ||
        pattern.find('\\', std::min(pattern.find('['), pattern.size())) != std::string::npos)
      continue;
    const bool expected = pattern == name || ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    EXPECT_EQ(matches(pattern, name), expected) << "'" << pattern << "' on '" << name << "'";
    hits += expected;
  }
  EXPECT_GT(hits, 500);
}

TEST(NamePattern, LongNamesAndNestedRepetitionsTakeLinearTime) {
  const std::string name(500'000, 'a');
  EXPECT_TRUE(matches("re:.*a", name));
  EXPECT_FALSE(matches("re:(.*)*(.*)*x", name));
  EXPECT_FALSE(matches("re:(a|aa)+$", name + "b"));
  EXPECT_FALSE(matches("*a*a*a*a*a*a*a*a*b", name.substr(0, 20'000)));
  EXPECT_FALSE(matches("re:.*head.*", name));
}

TEST(NamePattern, BadExpressionsAreErrors) {
  for (const std::string bad :
       {"(", "a**", "[b", "(?!x)", "(a)\\1", "\xff", "(((a{1000}){1000}){1000})"})
    expect_error(ErrorCode::invalid_argument, {"pattern 're:", "not a regular expression", "RE2"},
                 [&] { NamePattern("re:" + bad); });
}

TEST(Regex, FindsAndBegins) {
  const Regex re("b+");
  EXPECT_TRUE(re.found_in("abbc"));
  EXPECT_FALSE(re.begins("abbc"));
  EXPECT_TRUE(re.begins("bbc"));
}

TEST(NearestNames, OfLongNamesThereAreNone) {
  const std::string lone(300'000, 'x');
  EXPECT_TRUE(nearest_names(lone, {lone, "x"}).empty());
  EXPECT_TRUE(nearest_names("x", {lone}).empty());
  EXPECT_EQ(nearest_names("conv", {"conv1", lone}), (std::vector<std::string>{"conv1"}));
}

TEST(Shorten, KeepsBothEnds) {
  EXPECT_EQ(shorten("conv1", 5), "conv1");
  EXPECT_EQ(shorten("backbone.layer4.conv2", 13), "backb...conv2");
  EXPECT_EQ(shorten("ääääääää", 7), "ää...ää");
}

}  // namespace
}  // namespace octet
