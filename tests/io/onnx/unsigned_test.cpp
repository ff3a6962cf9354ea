// Unsigned integers of more than 8 bits: octet has those of 16, and holds others in int64.
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

constexpr int64_t kUint32 = 12, kUint64 = 13;

TEST(OnnxUnsigned, InputsOf16BitsAreThemselvesOthersAreInt64) {
  for (const auto& [type, held] : {std::pair<int64_t, DType>{kUint16, DType::uint16},
                                   {kUint32, DType::int64},
                                   {kUint64, DType::int64}}) {
    OnnxModel m(15);
    m.input("x", {2}).input("p", {2}, type).node("Max", {"p", "p"}, {"q"});
    m.node("Pow", {"x", "q"}, {"y"}).output("y");
    graph::Graph g = m.import();
    EXPECT_EQ(g.type(g.inputs()[1]).dtype, held);
    EXPECT_EQ(run_one(g, {floats({2, 3}), longs({3, 2}).to(held)}).to_vector<float>(),
              (std::vector<float>{8, 9}));
  }
}

TEST(OnnxUnsigned, CastsWrap) {
  const struct {
    int64_t type;
    std::vector<int64_t> want;
  } cases[] = {{kUint16, {65535, 4464}}, {kUint32, {4294967295, 70000}}};
  for (const auto& c : cases) {
    OnnxModel m;
    m.input("x", {2}, kInt64).node("Cast", {"x"}, {"u"}, {{"to", c.type}});
    m.node("Cast", {"u"}, {"y"}, {{"to", int64_t{kInt64}}}).output("y", kInt64);
    EXPECT_EQ(run_one(m.import(), {longs({-1, 70000})}).to_vector<int64_t>(), c.want);
  }
}

TEST(OnnxUnsigned, ArithmeticThatWrapsIsRefused) {
  OnnxModel m;
  m.input("x", {2}, kUint32).node("Sub", {"x", "x"}, {"d"}, {}, "difference");
  m.node("Cast", {"d"}, {"y"}, {{"to", int64_t{kFloat}}}).output("y");
  expect_error(ErrorCode::unsupported, {"Sub with operands of type UINT32", "difference"},
               [&] { m.import(); });
}

TEST(OnnxUnsigned, ResultsAreRefused) {
  OnnxModel m;
  m.input("x", {2}, kUint64).node("Max", {"x", "x"}, {"y"}).output("y", kUint64);
  expect_error(ErrorCode::unsupported, {"output 'y'", "UINT64"}, [&] { m.import(); });
}

}  // namespace
}  // namespace octet::testing
