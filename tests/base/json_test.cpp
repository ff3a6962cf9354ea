#include "octet/base/json_impl.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "octet/base/random.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;

Json parse(const std::string& text) { return *parse_json(text, "a.json"); }

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Json, ReadsEveryKindOfValue) {
  Json json = parse(
      R"( {"a": [1, -2, 2.5, true, null, "x\u00e9"], "b": {"c": {}}, "": 9223372036854775807} )");
  EXPECT_EQ(json.dump(),
            "{\"\":9223372036854775807,\"a\":[1,-2,2.5,true,null,\"x\xc3\xa9\"],\"b\":{\"c\":{}}}");
  EXPECT_TRUE(json["a"][0].is_number_integer());
  EXPECT_TRUE(json["a"][2].is_number_float());
  EXPECT_EQ(parse("7"), 7);
}

TEST(Json, ErrorsNameTheField) {
  const std::pair<std::string, std::vector<std::string>> rows[] = {
      {"", {"a.json: not valid JSON at byte"}},
      {"{\"a\":1", {"not valid JSON"}},
      {"{\"a\":1}x", {"not valid JSON at byte 8"}},
      {"{\"a\":[1,2,NaN]}", {"a.json: 'a[2]': not valid JSON"}},
      {"{\"a\":{\"b\":1e999}}", {"a.json: 'a.b': not valid JSON", "number overflow"}},
      {"{\"a\":{\"b\":18446744073709551615}}",
       {"a.json: 'a.b'", "18446744073709551615 is out of range"}},
      {"{\"a\":[{\"b\":1,\"c\":2,\"b\":3}]}", {"'a[0].c'", "'b' occurs twice"}},
      {"{\"a\":\"\xff\"}", {"a.json: 'a': not valid JSON", "UTF-8"}},
      {"{\"a\":\"\\ud800\"}", {"a.json: 'a': not valid JSON"}},
      {"{\"\xc3\":1}", {"not valid JSON"}},
  };
  for (const auto& [text, parts] : rows)
    expect_error(ErrorCode::corrupt, parts, [&, t = &text] { parse(*t); });
  expect_error(ErrorCode::invalid_argument, {"who: not valid"},
               [] { parse_json("", "who", ErrorCode::invalid_argument); });
}

TEST(Json, DepthIsLimited) {
  for (const auto& [open, close] :
       {std::pair<std::string, std::string>{"[", "]"}, {"{\"a\":", "}"}}) {
    EXPECT_NO_THROW(parse(repeated(open, kMaxJsonDepth) + (open == "[" ? "" : "1") +
                          repeated(close, kMaxJsonDepth)));
    for (int depth : {kMaxJsonDepth + 1, 1'000'000})
      expect_error(ErrorCode::corrupt, {"nests deeper than 64"},
                   [&, o = &open] { parse(repeated(*o, depth)); });
  }
}

TEST(Json, SizesAreLimited) {
  expect_error(ErrorCode::corrupt, {"100000001 bytes"},
               [] { parse(std::string(kMaxJsonBytes + 1, ' ')); });
  expect_error(ErrorCode::corrupt, {"more than 4194304 values"},
               [] { parse("[" + repeated("0,", kMaxJsonValues) + "0]"); });
}

// Objects kept in the order of their members copy themselves when they grow, and look a member up
// by going through all.
TEST(Json, TimeIsLinearInTheText) {
  auto begin = std::chrono::steady_clock::now();
  std::string wide = "{";
  for (int i = 0; i < 200'000; ++i) wide += "\"" + std::to_string(i) + "\":0,";
  EXPECT_EQ(parse(wide + "\"x\":0}").size(), 200'001u);
  // At each depth members after the nested one: the object that holds all that is deeper grows.
  std::string nested = "[" + repeated("0,", 100'000) + "0]";
  for (int depth = 1; depth < kMaxJsonDepth; ++depth)
    nested = "{\"a\":" + nested + ",\"b\":0,\"c\":0,\"d\":0}";
  EXPECT_EQ(parse(nested).size(), 4u);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(Json, DamageIsAnErrorOrAnotherValue) {
  const std::string text = R"({"name":"net","values":[{"dims":[1,"N",3],"scale":0.5e-1,)"
                           R"("text":"a\"\\b\u00e9"}],"flag":true})";
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = text;
    for (uint64_t flips = 1 + random.next() % 3; flips-- > 0;)
      bad[random.next() % bad.size()] ^= static_cast<char>(1 << random.next() % 8);
    if (i % 3 == 0) bad.resize(random.next() % bad.size());
    try {
      parse(bad);
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      EXPECT_LT(std::string(e.what()).size(), 400u);
    }
  }
}

TEST(Json, FilesAreNamedInErrors) {
  testing::TempDir dir;
  testing::spill(dir / "a.json", "[1,]");
  expect_error(ErrorCode::corrupt, {"a.json", "not valid JSON"},
               [&] { read_json(dir / "a.json"); });
  expect_error(ErrorCode::not_found, {"b.json"}, [&] { read_json(dir / "b.json"); });
}

TEST(Json, BriefShowsTheBeginning) {
  EXPECT_EQ(brief(Json{1, 2}), "[1,2]");
  EXPECT_EQ(brief(Json(std::string(100, 'x'))).size(), 63u);
}

}  // namespace
}  // namespace octet
