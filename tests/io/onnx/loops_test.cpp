// Loop and Scan, sequences, and the functions of a model.
#include <gtest/gtest.h>

#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;
constexpr const char* kNoValue = "";

// next = x * 2 + i, which is collected too.
OnnxModel doubling() {
  OnnxModel b;
  b.input("i", {}, kInt64).input("go", {}, kBool).input("before", {2});
  b.constant("two", Tensor::scalar(2)).node("Mul", {"before", "two"}, {"twice"});
  b.node("Cast", {"i"}, {"number"}, {{"to", int64_t{1}}});
  b.node("Add", {"twice", "number"}, {"next"}).node("Identity", {"next"}, {"seen"});
  return b;
}

TEST(OnnxLoop, AKnownCountIsUnrolled) {
  OnnxModel b = doubling().node("Identity", {"go"}, {"on"}).output("on", kBool);
  OnnxModel m;
  m.input("x", {2}).constant("count", longs({3}));
  m.constant("yes", Tensor::scalar(1, DType::bool_));
  m.node("Loop", {"count", "yes", "x"}, {"last", "all"},
         {{"body", b.output("next").output("seen").graph()}})
      .output("last")
      .output("all");
  graph::Graph g = m.import();
  EXPECT_EQ(count_ops(g, "mul"), 3);
  const std::vector<Tensor> y = run_graph(g, {floats({1, 3})});
  EXPECT_EQ(y[0].to_vector<float>(), (F{12, 28}));
  EXPECT_EQ(y[1].shape(), (Shape{3, 2}));
  EXPECT_EQ(y[1].to_vector<float>(), (F{2, 6, 5, 13, 12, 28}));
}

TEST(OnnxLoop, AKnownConditionEndsIt) {
  OnnxModel b = doubling();
  b.constant("one", Tensor::from(std::vector<int64_t>{1}, {})).node("Less", {"i", "one"}, {"on"});
  b.output("on", kBool).output("next").output("seen");
  OnnxModel m;
  m.input("x", {2}).constant("yes", Tensor::scalar(1, DType::bool_));
  m.node("Loop", {kNoValue, "yes", "x"}, {"last"}, {{"body", b.graph()}}).output("last");
  EXPECT_EQ(run_one(m.import(), {floats({1, 3})}).to_vector<float>(), (F{5, 13}));
}

TEST(OnnxLoop, WhatOnlyTheRunDecidesIsRefused) {
  OnnxModel b = doubling().node("Identity", {"go"}, {"on"}).output("on", kBool);
  b.output("next").output("seen");
  for (bool count : {true, false}) {
    OnnxModel m;
    m.input("x", {2}).input("count", {}, kInt64).input("go_on", {}, kBool);
    m.constant("three", longs({3}));
    m.node("Loop", {count ? "count" : "three", count ? "" : "go_on", "x"}, {"last"},
           {{"body", b.graph()}}, "loop")
        .output("last");
    expect_error(ErrorCode::unsupported,
                 {"loop", count ? "a number of iterations known only at run time"
                                : "a condition known only at run time"},
                 [&] { m.import(); });
  }
}

TEST(OnnxLoop, TooManyIterationsAreRefused) {
  OnnxModel b = doubling().node("Identity", {"go"}, {"on"}).output("on", kBool);
  OnnxModel m;
  m.input("x", {2}).constant("count", longs({1 << 20}));
  m.node("Loop", {"count", kNoValue, "x"}, {"last"},
         {{"body", b.output("next").output("seen").graph()}}, "loop")
      .output("last");
  expect_error(ErrorCode::unsupported, {"loop", "iterations of"}, [&] { m.import(); });
}

TEST(OnnxLoop, TheNumberOfIterationsIsOneNumber) {
  OnnxModel b = doubling().node("Identity", {"go"}, {"on"}).output("on", kBool);
  OnnxModel m;
  m.input("x", {2}).constant("count", longs({}));
  m.node("Loop", {"count", kNoValue, "x"}, {"last"},
         {{"body", b.output("next").output("seen").graph()}}, "loop")
      .output("last");
  expect_error(ErrorCode::corrupt, {"loop", "0 numbers of iterations"}, [&] { m.import(); });
}

TEST(OnnxLoop, AnUnsupportedNodeInsideIsNamedOnce) {
  OnnxModel b = doubling().node("Mystery", {"go"}, {"on"}, {}, "inside").output("on", kBool);
  OnnxModel m;
  m.input("x", {2}).constant("count", longs({5}));
  m.node("Loop", {"count", kNoValue, "x"}, {"last"},
         {{"body", b.output("next").output("seen").graph()}})
      .output("last");
  expect_error(ErrorCode::unsupported, {"Mystery (node \"inside\")"}, [&] { m.import(); });
}

TEST(OnnxLoop, LoopsInLoopsMayUseTheSameNames) {
  OnnxModel inner = doubling().node("Identity", {"go"}, {"on"}).output("on", kBool);
  inner.output("next").output("seen");
  OnnxModel outer;
  outer.input("k", {}, kInt64).input("go_on", {}, kBool).input("v", {2});
  outer.node("Loop", {"count", kNoValue, "v"}, {"w", kNoValue}, {{"body", inner.graph()}});
  outer.node("Identity", {"go_on"}, {"still"}).output("still", kBool).output("w");
  OnnxModel m;
  m.input("x", {2}).constant("count", longs({2}));
  m.node("Loop", {"count", kNoValue, "x"}, {"y"}, {{"body", outer.graph()}}).output("y");
  // x -> 4x + 1, twice
  EXPECT_EQ(run_one(m.import(), {floats({0, 1})}).to_vector<float>(), (F{5, 21}));
}

// sum' = sum + a - b; the sum is collected.
Message running_sum() {
  OnnxModel b;
  b.input("sum", {2}).input("a", {2}).input("b", {2});
  b.node("Add", {"sum", "a"}, {"more"}).node("Sub", {"more", "b"}, {"next"});
  b.node("Identity", {"next"}, {"seen"});
  return b.output("next").output("seen").graph();
}

TEST(OnnxScan, SlicesAndStacksAlongAnyAxisInAnyDirection) {
  OnnxModel m;
  m.input("start", {2}).input("a", {3, 2}).input("b", {2, 3});
  m.node("Scan", {"start", "a", "b"}, {"last", "all"},
         {{"body", running_sum()},
          {"num_scan_inputs", int64_t{2}},
          {"scan_input_axes", ints({0, -1})},
          {"scan_input_directions", ints({0, 1})},
          {"scan_output_axes", ints({1})},
          {"scan_output_directions", ints({1})}})
      .output("last")
      .output("all");
  const std::vector<Tensor> y =
      run_graph(m.import(), {floats({100, 200}), Tensor::from(F{1, 2, 3, 4, 5, 6}, {3, 2}),
                             Tensor::from(F{10, 20, 30, 40, 50, 60}, {2, 3})});
  // first: 100 + 1 - 30 and 200 + 2 - 60
  EXPECT_EQ(y[0].to_vector<float>(), (F{100 + 9 - 60, 200 + 12 - 150}));
  EXPECT_EQ(y[1].shape(), (Shape{2, 3}));
  EXPECT_EQ(y[1].to_vector<float>(), (F{49, 54, 71, 62, 96, 142}));
}

TEST(OnnxScan, AnUnknownNumberOfSlicesIsRefused) {
  OnnxModel m;
  m.input("start", {2}).input("a", {"T", 2}).input("b", {"T", 2});
  m.node("Scan", {"start", "a", "b"}, {"last"},
         {{"body", running_sum()}, {"num_scan_inputs", int64_t{2}}}, "scan")
      .output("last");
  expect_error(ErrorCode::unsupported, {"scan", "'T'"}, [&] { m.import(); });
}

TEST(OnnxSequences, AreFollowedAtImport) {
  OnnxModel m;
  m.input("x", {2}).input("y", {2}).constant("at", longs({0})).constant("back", longs({-1}));
  m.node("SequenceEmpty", {}, {"s0"}).node("SequenceInsert", {"s0", "x"}, {"s1"});
  m.node("SequenceInsert", {"s1", "y", "at"}, {"s2"});
  m.node("SequenceConstruct", {"x", "x"}, {"t"}).node("SequenceErase", {"t"}, {"t1"});
  m.node("SequenceAt", {"s2", "back"}, {"last"}).node("SequenceLength", {"s2"}, {"size"});
  m.node("ConcatFromSequence", {"s2"}, {"joined"},
         {{"axis", int64_t{0}}, {"new_axis", int64_t{1}}});
  m.node("ConcatFromSequence", {"t1"}, {"one"}, {{"axis", int64_t{0}}});
  for (const char* name : {"last", "joined", "one"}) m.output(name);
  const std::vector<Tensor> got =
      run_graph(m.output("size", kInt64).import(), {floats({1, 2}), floats({3, 4})});
  EXPECT_EQ(got[0].to_vector<float>(), (F{1, 2}));
  EXPECT_EQ(got[1].shape(), (Shape{2, 2}));
  EXPECT_EQ(got[1].to_vector<float>(), (F{3, 4, 1, 2}));
  EXPECT_EQ(got[2].to_vector<float>(), (F{1, 2}));
  EXPECT_EQ(got[3].to_vector<int64_t>(), (std::vector<int64_t>{2}));
}

TEST(OnnxSequences, SequenceMapIsTheBodyForEachElement) {
  OnnxModel b;
  b.input("e", {2}).input("y", {2}).node("Sub", {"e", "y"}, {"d"});
  OnnxModel m;
  m.input("x", {2}).input("y", {2}).node("SequenceConstruct", {"x", "y"}, {"s"});
  m.node("SequenceMap", {"s", "y"}, {"t"}, {{"body", b.output("d").graph()}});
  m.node("ConcatFromSequence", {"t"}, {"z"}, {{"axis", int64_t{0}}}).output("z");
  EXPECT_EQ(run_one(m.import(), {floats({5, 7}), floats({1, 2})}).to_vector<float>(),
            (F{4, 5, 0, 0}));
}

TEST(OnnxSequences, SplitToSequenceCutsParts) {
  for (bool ones : {true, false}) {
    OnnxModel m;
    m.input("x", {5}).constant("two", Tensor::from(std::vector<int64_t>{2}, {}));
    m.constant("at", longs({-1}));
    m.node("SplitToSequence", {"x", ones ? "" : "two"}, {"s"}, {{"keepdims", int64_t{0}}})
        .node("SequenceAt", {"s", "at"}, {"y"})
        .output("y");
    const Tensor y = run_one(m.import(), {floats({1, 2, 3, 4, 5})});
    EXPECT_EQ(y.shape(), ones ? Shape{} : Shape{1});
    EXPECT_EQ(y.reshape({-1}).to_vector<float>(), (F{5}));
  }
}

TEST(OnnxSequences, ALoopMayCollectThem) {
  OnnxModel b;
  b.input("i", {}, kInt64)
      .input("go", {}, kBool)
      .input("list", {})
      .node("Add", {"x", "x"}, {"twice"});
  b.node("SequenceInsert", {"list", "twice"}, {"longer"}).node("Identity", {"go"}, {"on"});
  OnnxModel m;
  m.input("x", {1}).constant("count", longs({2})).node("SequenceEmpty", {}, {"none"});
  m.node("Loop", {"count", kNoValue, "none"}, {"list_of_all"},
         {{"body", b.output("on", kBool).output("longer").graph()}});
  m.node("ConcatFromSequence", {"list_of_all"}, {"y"}, {{"axis", int64_t{0}}}).output("y");
  EXPECT_EQ(run_one(m.import(), {floats({3})}).to_vector<float>(), (F{6, 6}));
}

TEST(OnnxSequences, AsOperandsOfOthersTheyAreRefused) {
  OnnxModel m;
  m.input("x", {1}).node("SequenceConstruct", {"x"}, {"s"});
  m.node("Relu", {"s"}, {"y"}, {}, "relu").output("y");
  expect_error(ErrorCode::unsupported, {"Relu with a sequence", "relu"}, [&] { m.import(); });
  OnnxModel out;
  out.input("x", {1}).node("SequenceConstruct", {"x"}, {"s"}).output("s");
  expect_error(ErrorCode::unsupported, {"output 's'", "a sequence"}, [&] { out.import(); });
}

// y = leaky(x) + b, b optional; its value names are also those of the model around it.
OnnxModel function_body() {
  OnnxModel body;
  body.node("LeakyRelu", {"x"}, {"h"}, {{"alpha", RefAttr{"slope", 1}}});
  return body;
}

TEST(OnnxFunctions, StandInTheCallsPlace) {
  OnnxModel body = function_body();
  body.node("Add", {"h", "b"}, {"y"});
  OnnxModel m;
  m.function("leaky", {"x", "b"}, {"y"}, body, {"slope"});
  m.input("b", {2}).input("x", {2}).node("Neg", {"b"}, {"h"});
  m.node("leaky", {"h", "x"}, {"one"}, {{"slope", 0.5}}, "first", "local");
  m.node("leaky", {"one", "x"}, {"y"}, {{"slope", 0.25}}, "second", "local").output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(ops_of(g), "neg leaky_relu add leaky_relu add");
  // h = 4, -4; one = 4 + 1, -2 + 1; y = 5 + 1, -0.25 + 1
  EXPECT_EQ(run_one(g, {floats({-4, 4}), floats({1, 1})}).to_vector<float>(), (F{6, 0.75}));
}

TEST(OnnxFunctions, AttributesHaveDefaults) {
  OnnxModel body = function_body();
  body.node("Identity", {"h"}, {"y"});
  for (bool with_default : {true, false}) {
    OnnxModel m;
    if (with_default)
      m.function("leaky", {"x"}, {"y"}, body, {}, {{"slope", 0.5}});
    else
      m.function("leaky", {"x"}, {"y"}, body, {"slope"});
    m.input("a", {1}).node("leaky", {"a"}, {"c"}, {}, "", "local").output("c");
    // LeakyRelu's own default is 0.01.
    EXPECT_FLOAT_EQ(run_one(m.import(), {floats({-2})}).item(), with_default ? -1.0f : -0.02f);
  }
}

TEST(OnnxFunctions, MayLeaveInputsOutAndCallOthers) {
  OnnxModel clip;
  clip.node("Clip", {"x", "low", "high"}, {"y"});
  OnnxModel both;
  both.node("clip", {"u", "", "w"}, {"v"}, {}, "", "local");
  OnnxModel m;
  m.function("clip", {"x", "low", "high"}, {"y"}, clip).function("both", {"u", "w"}, {"v"}, both);
  m.input("x", {3}).constant("top", Tensor::scalar(1));
  m.node("both", {"x", "top"}, {"y"}, {}, "", "local").output("y");
  EXPECT_EQ(run_one(m.import(), {floats({-5, 0, 5})}).to_vector<float>(), (F{-5, 0, 1}));
}

TEST(OnnxFunctions, TheirOwnOpsetCounts) {
  for (int64_t opset : {11, 13, 99}) {
    OnnxModel body(opset);
    body.node("Softmax", {"x"}, {"y"}, {{"axis", int64_t{0}}});
    OnnxModel m;
    m.function("soft", {"x"}, {"y"}, body);
    m.input("x", {2, 2}).node("soft", {"x"}, {"y"}, {}, "", "local").output("y");
    if (opset == 99) {
      expect_error(ErrorCode::unsupported, {"local.soft with a function of opset 99"},
                   [&] { m.import(); });
      continue;
    }
    // Before opset 13 it runs over all that follows the axis.
    const F y = run_one(m.import(), {Tensor::ones({2, 2})}).to_vector<float>();
    EXPECT_FLOAT_EQ(y[0], opset == 11 ? 0.25f : 0.5f);
  }
}

TEST(OnnxFunctions, OfOneNameAreRefused) {
  OnnxModel body;
  body.node("Relu", {"x"}, {"y"});
  OnnxModel m;
  m.function("f", {"x"}, {"y"}, body).function("f", {"x"}, {"y"}, body);
  m.input("x", {2}).node("f", {"x"}, {"y"}, {}, "call", "local").output("y");
  expect_error(ErrorCode::unsupported, {"local.f with several functions of this name", "call"},
               [&] { m.import(); });
}

// 2^20 calls of the innermost one, of which not all are made.
TEST(OnnxFunctions, CallsThatMultiplyAreRefused) {
  OnnxModel m;
  for (int i = 0; i < 21; ++i) {
    OnnxModel body;
    const std::string next = i == 20 ? "Relu" : "f" + std::to_string(i + 1),
                      domain = i == 20 ? "" : "local";
    body.node(next, {"x"}, {"a"}, {}, "", domain).node(next, {"a"}, {"y"}, {}, "", domain);
    m.function("f" + std::to_string(i), {"x"}, {"y"}, body);
  }
  m.input("x", {3}).node("f0", {"x"}, {"y"}, {}, "", "local").output("y");
  expect_error(ErrorCode::unsupported, {"more than 262144 nodes"}, [&] { m.import(); });
}

TEST(OnnxFunctions, ThatCallThemselvesAreRefused) {
  OnnxModel body;
  body.node("again", {"x"}, {"y"}, {}, "", "local");
  OnnxModel m;
  m.function("again", {"x"}, {"y"}, body);
  m.input("x", {3}).node("again", {"x"}, {"y"}, {}, "", "local").output("y");
  expect_error(ErrorCode::corrupt, {"functions call one another"}, [&] { m.import(); });
}

}  // namespace
}  // namespace octet::testing
