#include "octet/tensor/attrs.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "octet/base/random.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;
using Ints = std::vector<int64_t>;
using Reals = std::vector<double>;

TEST(Attr, Prints) {
  const struct {
    Attr attr;
    const char* text;
  } rows[] = {{int64_t{3}, "3"},
              {int64_t{-3}, "-3"},
              {0.5, "0.5"},
              {1.0, "1."},
              {1e30, "1e+30"},
              {true, "true"},
              {false, "false"},
              {std::string("relu"), "\"relu\""},
              {std::string("a\"b\\"), "\"a\\\"b\\\\\""},
              {Ints{1, 1}, "[1, 1]"},
              {Ints{}, "[]"},
              {Reals{0.5, 1}, "[0.5, 1.]"},
              {std::numeric_limits<double>::infinity(), "inf"}};
  for (const auto& [attr, text] : rows) EXPECT_EQ(to_string(attr), text);
}

TEST(Attr, ReadsBackTheSameValueAndType) {
  Random random(5);
  std::vector<Attr> attrs = {
      int64_t{0},
      INT64_MAX,
      INT64_MIN,
      0.0,
      -1.0,
      1e300,
      5e-324,
      1.0 / 3,
      123456789012345678.0,
      true,
      false,
      std::string(""),
      std::string("x y"),
      std::string("\\"),
      std::string("\""),
      std::string("\\\""),
      std::string("[1]"),
      std::string("true"),
      Ints{},
      Ints{-1},
      Ints{INT64_MIN, 0, INT64_MAX},
      Reals{1},
      Reals{0.1, 1e-9, 3},
      Reals{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}};
  for (int i = 0; i < 2000; ++i) {
    double v = std::bit_cast<double>(random.next());
    if (std::isfinite(v)) attrs.emplace_back(v);
  }
  for (const Attr& attr : attrs) {
    Attr back = parse_attr(to_string(attr));
    EXPECT_EQ(back.index(), attr.index()) << to_string(attr);
    EXPECT_EQ(back, attr) << to_string(attr);
  }
  EXPECT_TRUE(std::isnan(std::get<double>(parse_attr(to_string(Attr(std::nan("")))))));
}

TEST(Attr, BadTextIsAnError) {
  for (const char* text : {"", "x", "1x", "1.5x", "[", "[1", "[1,]x", "[1,,2]", "[,1]", "[1, 2.]",
                           "\"", "\"a", "[x]", "truex", "--1", "99999999999999999999"})
    EXPECT_THROW(parse_attr(text), Error) << text;
}

TEST(Attrs, GetsByTypeOrSaysWhy) {
  Attrs attrs{{"axis", int64_t{1}},          {"alpha", 0.5},       {"bias", true},
              {"mode", std::string("same")}, {"pads", Ints{1, 2}}, {"scales", Reals{0.5}}};
  EXPECT_EQ(attrs.get_int("axis"), 1);
  EXPECT_EQ(attrs.get_double("alpha"), 0.5);
  EXPECT_EQ(attrs.get_double("axis"), 1.0);
  EXPECT_TRUE(attrs.get_bool("bias"));
  EXPECT_EQ(attrs.get_string("mode"), "same");
  EXPECT_EQ(attrs.get_ints("pads"), (Ints{1, 2}));
  EXPECT_EQ(attrs.get_doubles("scales"), (Reals{0.5}));
  EXPECT_EQ(attrs.get_doubles("pads"), (Reals{1, 2}));
  expect_error(ErrorCode::invalid_argument, {"'stride'", "missing", "axis"},
               [&] { attrs.get_int("stride"); });
  expect_error(ErrorCode::invalid_argument, {"alpha=0.5", "an integer"},
               [&] { attrs.get_int("alpha"); });
  expect_error(ErrorCode::invalid_argument, {"mode"}, [&] { attrs.get_double("mode"); });
  expect_error(ErrorCode::invalid_argument, {"axis=1"}, [&] { attrs.get_bool("axis"); });
  expect_error(ErrorCode::invalid_argument, {"axis=1"}, [&] { attrs.get_ints("axis"); });
}

TEST(Attrs, SetEraseAndOrder) {
  Attrs attrs;
  attrs.set("b", int64_t{1}).set("a", true).set("b", int64_t{2});
  EXPECT_EQ(attrs.size(), 2u);
  EXPECT_EQ(attrs.begin()->first, "a");
  EXPECT_EQ(attrs.get_int("b"), 2);
  attrs.erase("a");
  EXPECT_FALSE(attrs.has("a"));
  EXPECT_EQ(attrs, Attrs({{"b", int64_t{2}}}));
}

}  // namespace
}  // namespace octet
