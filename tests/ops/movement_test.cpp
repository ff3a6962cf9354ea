#include <limits>

#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

// -- reshape and flatten --------------------------------------------------------------------------

TEST(Reshape, KeepsRowMajorOrder) {
  Random random(1);
  struct {
    Shape from;
    Ints shape;
    Shape to;
  } table[] = {
      {{2, 3}, {3, 2}, {3, 2}},       {{2, 3}, {-1}, {6}},  {{2, 3, 4}, {0, -1}, {2, 12}},
      {{2, 3}, {1, 0, 2}, {1, 3, 2}}, {{}, {1, 1}, {1, 1}}, {{1}, {}, {}},
  };
  for (const auto& row : table) {
    Tensor x = Tensor::randn(row.from, random.next());
    for (int layout = 0; layout < 4; ++layout) {
      Tensor y = ops::call("reshape", {random_layout(random, x)}, {{"shape", row.shape}});
      ASSERT_EQ(y.shape(), row.to);
      EXPECT_EQ(y.to_vector<float>(), x.to_vector<float>());
    }
  }
}

TEST(Reshape, SymbolicSizesCancel) {
  struct {
    std::string from;
    Ints shape;
    std::string to;
  } table[] = {
      {"Float(N, 512, 1, 1)", {-1, 512}, "Float(N, 512)"},
      {"Float(N, 512, 7, 7)", {0, -1}, "Float(N, 25088)"},
      {"Float(N, T, 64)", {0, 0, 8, 8}, "Float(N, T, 8, 8)"},
      {"Float(N, T, 64)", {-1, 64}, "Float(N*T, 64)"},
      {"Float(N*T, 64)", {-1, 8, 8}, "Float(N*T, 8, 8)"},
      {"Float(N, 4)", {-1, 2}, "Float(N*2, 2)"},
      {"Float(N*2, 2)", {-1, 4}, "Float(N, 4)"},
      {"Float(N, 3)", {-1, 2}, "Float([N*3/2], 2)"},
      {"Float(N, 3, 4)", {1, 12}, "Float(1, 12)"},
      {"Long(N)", {-1}, "Long(N)"},
  };
  for (const auto& row : table)
    EXPECT_EQ(infer_text("reshape", {row.from}, {{"shape", row.shape}}), row.to) << row.from;
}

TEST(Reshape, ErrorsNameBothShapes) {
  auto fails = [](Ints shape, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] {
      infer_text("reshape", {"Float(2, 3)"}, {{"shape", shape}});
    });
  };
  fails({4, 2}, {"reshape", "(2, 3)", "6", "(4, 2)"});
  fails({-1, 4}, {"reshape", "(2, 3)", "(-1, 4)"});
  fails({-1, -1}, {"reshape", "more than one -1"});
  fails({-2, 3}, {"reshape", "-2"});
  fails({1, 2, 0}, {"reshape", "dimension 2"});
}

TEST(Reshape, PerChannelAxesSurviveOrFail) {
  Tensor x = quantize_per_channel(Tensor::randn({2, 3, 4}, 2), {0.1, 0.2}, {0, 1}, 0, DType::qint8);
  Tensor y = ops::call("reshape", {x}, {{"shape", Ints{2, 12}}});
  EXPECT_EQ(y.q_per_channel_axis(), 0);
  EXPECT_EQ(ops::call("reshape", {x}, {{"shape", Ints{1, 2, -1}}}).q_per_channel_axis(), 1);
  expect_equal(y.dequantize(), x.dequantize().reshape({2, 12}));
  expect_error(ErrorCode::invalid_argument, {"reshape", "per channel", "dimension 0"}, [&] {
    ops::call("reshape", {x}, {{"shape", Ints{-1}}});
  });
  // unless other qparams are asked for
  QType t{DType::quint8, Quantizer::per_tensor(0.05, 128, DType::quint8)};
  expect_equal(ops::call("reshape", {x}, {{"shape", Ints{-1}}}, t),
               by_float("reshape", {x}, {{"shape", Ints{-1}}}, t));
}

TEST(Flatten, MergesDimensions) {
  struct {
    std::string from;
    int64_t start, end;
    std::string to;
  } table[] = {
      {"Float(N, 512, 7, 7)", 1, -1, "Float(N, 25088)"},
      {"Float(2, 3, 4)", 0, 1, "Float(6, 4)"},
      {"Float(N, C, 7, 7)", 1, -1, "Float(N, C*49)"},
      {"Float(N, T, 8)", 0, 1, "Float(N*T, 8)"},
      {"Float(5)", 0, 0, "Float(5)"},
      {"Float(5)", 1, -1, "Float(5, 1)"},
      {"Float()", 0, -1, "Float(1)"},
  };
  for (const auto& row : table)
    EXPECT_EQ(infer_text("flatten", {row.from}, {{"start_dim", row.start}, {"end_dim", row.end}}),
              row.to)
        << row.from;
  Tensor x = Tensor::randn({2, 3, 4, 5}, 3);
  Tensor y = ops::call("flatten", {x.clone(MemoryFormat::channels_last)});
  ASSERT_EQ(y.shape(), (Shape{2, 60}));
  EXPECT_EQ(y.to_vector<float>(), x.to_vector<float>());
  expect_error(ErrorCode::invalid_argument, {"flatten", "(2, 3, 4)"}, [] {
    infer_text("flatten", {"Float(2, 3, 4)"}, {{"start_dim", int64_t{2}}, {"end_dim", int64_t{0}}});
  });
}

// -- other views ----------------------------------------------------------------------------------

TEST(Permute, ReordersDimensionsAndTheChannelAxis) {
  Tensor x = Tensor::randn({2, 3, 4}, 4), y = ops::call("permute", {x}, {{"dims", Ints{2, 0, -2}}});
  ASSERT_EQ(y.shape(), (Shape{4, 2, 3}));
  for_each_index(y.shape(), [&](const Ints& i) { EXPECT_EQ(y.at(i), x.at({i[1], i[2], i[0]})); });
  EXPECT_EQ(infer_text("permute", {"QInt8(2, N) axis=0 scale=[0.5, 1] zero_point=0"},
                       {{"dims", Ints{1, 0}}}),
            "QInt8(N, 2) axis=1 scale=[0.5, 1] zero_point=0");
  expect_error(ErrorCode::invalid_argument, {"permute", "repeated", "[0, 0]"}, [] {
    infer_text("permute", {"Float(2, 3)"}, {{"dims", Ints{0, 0}}});
  });
  expect_error(ErrorCode::invalid_argument, {"permute", "[1]", "(2, 3)"}, [] {
    infer_text("permute", {"Float(2, 3)"}, {{"dims", Ints{1}}});
  });
}

TEST(Squeeze, AndUnsqueeze) {
  struct {
    std::string op, from;
    int64_t dim;
    std::string to;
  } table[] = {
      {"unsqueeze", "Float(N, 3)", 0, "Float(1, N, 3)"},
      {"unsqueeze", "Float(N, 3)", -1, "Float(N, 3, 1)"},
      {"unsqueeze", "Float()", 0, "Float(1)"},
      {"squeeze", "Float(N, 1, 3)", 1, "Float(N, 3)"},
      {"squeeze", "Float(N, 1)", -1, "Float(N)"},
      {"squeeze", "Float(2, N)", 1, "Float(2)"},  // N must turn out to be 1
      {"unsqueeze", "QInt8(2, 3) axis=0 scale=[0.5, 1] zero_point=0", 0,
       "QInt8(1, 2, 3) axis=1 scale=[0.5, 1] zero_point=0"},
      {"squeeze", "QInt8(1, 2, 3) axis=1 scale=[0.5, 1] zero_point=0", 0,
       "QInt8(2, 3) axis=0 scale=[0.5, 1] zero_point=0"},
  };
  for (const auto& row : table)
    EXPECT_EQ(infer_text(row.op, {row.from}, {{"dim", row.dim}}), row.to) << row.from;
  Tensor x = Tensor::randn({2, 1, 3}, 5);
  expect_equal(ops::call("squeeze", {x}, {{"dim", int64_t{1}}}), x.reshape({2, 3}));
  expect_equal(ops::call("unsqueeze", {x}, {{"dim", int64_t{3}}}), x.reshape({2, 1, 3, 1}));
  expect_error(ErrorCode::invalid_argument, {"squeeze", "dimension 0", "(2, 1, 3)"}, [&] {
    ops::call("squeeze", {x}, {{"dim", int64_t{0}}});
  });
  expect_error(ErrorCode::invalid_argument, {"unsqueeze", "dimension 4"}, [&] {
    ops::call("unsqueeze", {x}, {{"dim", int64_t{4}}});
  });
}

TEST(Expand, BroadcastsBothWays) {
  struct {
    std::string from;
    Ints shape;
    std::string to;
  } table[] = {
      {"Float(N, 1)", {-1, 5}, "Float(N, 5)"},
      {"Float(3, 1)", {2, 1, 4}, "Float(2, 3, 4)"},
      {"Float(3, 4)", {1, 1}, "Float(3, 4)"},
      {"Float(N, 4)", {1, 1, 1}, "Float(1, N, 4)"},
      {"Float()", {2}, "Float(2)"},
  };
  for (const auto& row : table)
    EXPECT_EQ(infer_text("expand", {row.from}, {{"shape", row.shape}}), row.to) << row.from;
  expect_equal(
      ops::call("expand", {floats({1, 2}, {2, 1})}, {{"shape", Ints{2, 2, 3}}}).contiguous(),
      floats({1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2}, {2, 2, 3}));
  expect_error(ErrorCode::invalid_argument, {"expand", "(3, 4)", "(2, 4)"}, [] {
    infer_text("expand", {"Float(3, 4)"}, {{"shape", Ints{2, 4}}});
  });
  expect_error(ErrorCode::invalid_argument, {"expand", "-1"}, [] {
    infer_text("expand", {"Float(3, 4)"}, {{"shape", Ints{-1, 3, 4}}});
  });
}

// -- slice and split ------------------------------------------------------------------------------

TEST(Slice, IsPythons) {
  // Every start, end and step of a dimension of 5, and the numbers that stand for "all".
  const int64_t huge = std::numeric_limits<int64_t>::max(),
                tiny = std::numeric_limits<int64_t>::min();
  Tensor x = Tensor::arange(5);
  std::vector<int64_t> bounds = {tiny, -7, -6, -5, -3, -1, 0, 1, 4, 5, 6, huge},
                       steps = {1, 2, 3, 9, huge, -1, -2, -5, tiny};
  for (int64_t start : bounds)
    for (int64_t end : bounds)
      for (int64_t step : steps) {
        // slice(start, end, step).indices(5)
        int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? 5 : 4;
        int64_t a = std::clamp<int64_t>(start < 0 ? start + 5 : start, lo, hi);
        int64_t b = std::clamp<int64_t>(end < 0 ? end + 5 : end, lo, hi);
        std::vector<int64_t> expected;
        for (int64_t i = a; step > 0 ? i < b : i > b; i += step) {
          expected.push_back(i);
          if (step > 5 || step < -5) break;
        }
        Tensor y = ops::call("slice", {x},
                             {{"dim", int64_t{0}}, {"start", start}, {"end", end}, {"step", step}});
        ASSERT_EQ(y.to_vector<int64_t>(), expected) << start << ":" << end << ":" << step;
      }
}

TEST(Slice, WorksOnAnyDtypeAndLayout) {
  Random random(6);
  for (int trial = 0; trial < 200; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random), t);
    int64_t dim = random.integer(0, x.dim() - 1), step = random.integer(0, 1) ? 1 : -1;
    Attrs attrs{{"dim", dim},
                {"start", random.integer(-4, 4)},
                {"end", random.integer(-4, 4)},
                {"step", step}};
    Tensor y = ops::call("slice", {random_layout(random, x)}, attrs);
    EXPECT_EQ(*y.quantizer(), *t.quantizer);
    expect_equal(y.contiguous(), by_float("slice", {x}, attrs, t));
    Tensor half = x.dequantize().to(DType::float16);
    expect_equal(ops::call("slice", {half}, attrs),
                 ops::call("slice", {half.to(DType::float32)}, attrs).to(DType::float16));
  }
}

TEST(Slice, ChannelsKeepTheirQParams) {
  Tensor x = quantize_per_channel(Tensor::randn({4, 3}, 7), {0.1, 0.2, 0.3, 0.4}, {0, 1, 2, 3}, 0,
                                  DType::qint8);
  for (auto [start, end, step] : {std::tuple{1, 4, 2}, {3, -9, -2}, {0, 2, 1}}) {
    Attrs attrs{{"dim", int64_t{0}},
                {"start", int64_t{start}},
                {"end", int64_t{end}},
                {"step", int64_t{step}}};
    Tensor y = ops::call("slice", {x}, attrs);
    expect_equal(y.dequantize(), ops::call("slice", {x.dequantize()}, attrs));
  }
}

TEST(Slice, SymbolicSizes) {
  auto type = [](int64_t start, int64_t end, int64_t step) {
    return infer_text("slice", {"Float(N, 8)"},
                      {{"dim", int64_t{0}}, {"start", start}, {"end", end}, {"step", step}});
  };
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(type(0, huge, 1), "Float(N, 8)");
  EXPECT_EQ(type(-1, -huge, -1), "Float(N, 8)");
  EXPECT_EQ(type(1, huge, 1), "Float(N[1::1], 8)");
  EXPECT_EQ(type(0, -1, 1), "Float(N[0:-1:1], 8)");
  EXPECT_EQ(to_string(parse_type(type(0, -1, 1))), type(0, -1, 1));
  EXPECT_EQ(
      infer_text(
          "slice", {"Float(N, 8)"},
          {{"dim", int64_t{1}}, {"start", int64_t{2}}, {"end", int64_t{7}}, {"step", int64_t{2}}}),
      "Float(N, 3)");
  expect_error(ErrorCode::invalid_argument, {"slice", "step"}, [&] { type(0, 1, 0); });
  expect_error(ErrorCode::invalid_argument, {"slice", "dimension 3"}, [] {
    infer_text("slice", {"Float(N)"},
               {{"dim", int64_t{3}}, {"start", int64_t{0}}, {"end", int64_t{1}}});
  });
}

TEST(Split, GivesConsecutiveParts) {
  Tensor x = Tensor::randn({2, 6, 3}, 8);
  auto parts = ops::call_all("split", {x}, {{"sizes", Ints{1, 2, 3}}, {"dim", int64_t{1}}});
  ASSERT_EQ(parts.size(), 3u);
  expect_equal(parts[0], x.slice(1, 0, 1));
  expect_equal(parts[1], x.slice(1, 1, 3));
  expect_equal(parts[2], x.slice(1, 3, 6));
  Tensor q = quantize_per_channel(Tensor::randn({4, 2}, 9), {0.1, 0.2, 0.3, 0.4}, {0, 1, 2, 3}, 0,
                                  DType::qint8);
  auto halves = ops::call_all("split", {q}, {{"sizes", Ints{2, 2}}});
  expect_equal(halves[1], q.slice(0, 2, 4));
  EXPECT_EQ(
      to_string(infer_types("split", {"Float(N, 6)"}, {{"sizes", Ints{2, 4}}, {"dim", int64_t{-1}}})
                    .at(1)),
      "Float(N, 4)");
  expect_error(ErrorCode::invalid_argument, {"split", "[1, 2]", "(2, 6, 3)"}, [&] {
    ops::call_all("split", {x}, {{"sizes", Ints{1, 2}}, {"dim", int64_t{1}}});
  });
}

// -- copies of x ----------------------------------------------------------------------------------

TEST(Identity, GivesANewHandleOnTheSameData) {
  Tensor x = Tensor::randn({2, 3}, 10);
  for (const char* op : {"identity", "dropout"}) {
    Tensor y = ops::call(op, {x});
    expect_equal(y, x);
    EXPECT_EQ(y.raw_data(), x.raw_data());
    y.trace_slot() = std::make_shared<int>(1);
    EXPECT_EQ(x.trace_slot(), nullptr) << op;
    EXPECT_EQ(infer_text(op, {"QUInt8(N, 3) scale=0.5 zero_point=1"}),
              "QUInt8(N, 3) scale=0.5 zero_point=1");
  }
}

TEST(To, ConvertsAsOnnxCasts) {
  Tensor x = floats({-1.7f, 0, 2.9f});
  expect_equal(ops::call("to", {x}, {{"dtype", "int64"}}), longs({-1, 0, 2}));
  EXPECT_EQ(ops::call("to", {x}, {{"dtype", "bool"}}).to_vector<bool>(),
            (std::vector<bool>{true, false, true}));
  expect_equal(ops::call("to", {longs({3})}, {{"dtype", "float32"}}), floats({3}));
  EXPECT_EQ(infer_text("to", {"Long(N)"}, {{"dtype", "float16"}}), "Half(N)");
  expect_error(ErrorCode::invalid_argument, {"'float33'", "float32"}, [] {
    infer_text("to", {"Long(N)"}, {{"dtype", "float33"}});
  });
  expect_error(ErrorCode::invalid_argument, {"to", "quantize"}, [] {
    infer_text("to", {"Float(N)"}, {{"dtype", "quint8"}});
  });
  expect_error(ErrorCode::invalid_argument, {"to", "QUInt8"}, [] {
    infer_text("to", {"QUInt8(N) scale=1 zero_point=0"}, {{"dtype", "float32"}});
  });
}

TEST(Movement, OtherQParamsAreRequantized) {
  Random random(11);
  struct {
    std::string op;
    Attrs attrs;
  } table[] = {
      {"reshape", {{"shape", Ints{-1}}}},
      {"flatten", {}},
      {"permute", {{"dims", Ints{1, 0, 2}}}},
      {"unsqueeze", {{"dim", int64_t{0}}}},
      {"expand", {{"shape", Ints{2, 1, 1, 1}}}},
      {"identity", {}},
      {"dropout", {}},
      {"slice", {{"dim", int64_t{0}}, {"start", int64_t{1}}, {"end", int64_t{9}}}},
  };
  for (int trial = 0; trial < 200; ++trial)
    for (const auto& row : table) {
      Tensor x = random_codes(random, random_shape(random, 3, 3),
                              random_qtype(random, random_byte_dtype(random)));
      QType t = random_qtype(random, random_byte_dtype(random));
      expect_equal(ops::call(row.op, {random_layout(random, x)}, row.attrs, t).contiguous(),
                   by_float(row.op, {x}, row.attrs, t));
    }
}

}  // namespace
}  // namespace octet::testing
