#include <limits>

#include "tests/golden.h"
#include "tests/ops/gradient_check.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

// A table of every kind with 6 rows of 5 numbers.
std::vector<Tensor> tables() {
  Tensor x = Tensor::randn({6, 5}, 1);
  std::vector<double> scales, zeros;
  for (int i = 0; i < 6; ++i) {
    scales.push_back(static_cast<float>(0.02 * (i + 1)));
    zeros.push_back(static_cast<float>(7.7 * i));
  }
  std::vector<Tensor> all{x, x.to(DType::float16)};
  for (DType dtype : {DType::quint8, DType::quint4x2})
    all.push_back(quantize_per_channel_float(x, scales, zeros, 0, dtype));
  for (DType dtype : {DType::quint8, DType::qint8, DType::quint4x2, DType::qint4x2}) {
    all.push_back(quantize_per_channel(x, scales, Ints(6, 3), 0, dtype));
    all.push_back(quantize_per_tensor(x, 0.1, 3, dtype));
  }
  return all;
}

TEST(Embedding, ByteRowsAreTheDequantizedRows) {
  for (const Tensor& table : tables())
    for (const Tensor& index :
         {longs({5, 0, 0, 3}, {2, 2}), longs({1}), Tensor::zeros({0}, DType::int64)}) {
      Tensor y = ops::call("embedding_byte", {table, index}), numbers = table.dequantize();
      ASSERT_EQ(y.dim(), index.dim() + 1);
      Tensor rows = index.reshape({-1}), flat = y.reshape({rows.numel(), 5});
      for (int64_t i = 0; i < rows.numel(); ++i)
        for (int64_t j = 0; j < 5; ++j)
          ASSERT_EQ(flat.at({i, j}), numbers.at({static_cast<int64_t>(rows.at({i})), j}));
    }
}

// sum, mean and max by their definitions, in double.
Tensor plain_bag(const Tensor& numbers, const std::vector<Ints>& bags, const std::string& mode,
                 const std::vector<float>& weights = {}) {
  Tensor y = Tensor::zeros({static_cast<int64_t>(bags.size()), numbers.size(1)});
  size_t entry = 0;
  for (size_t b = 0; b < bags.size(); ++b) {
    for (int64_t j = 0; j < numbers.size(1); ++j) {
      double sum = 0, best = -std::numeric_limits<double>::infinity();
      for (size_t e = 0; e < bags[b].size(); ++e) {
        double v = numbers.at({bags[b][e], j});
        sum += v * (weights.empty() ? 1 : weights[entry + e]);
        best = std::max(best, v);
      }
      const auto n = static_cast<double>(bags[b].size());
      if (n > 0)
        y.data<float>()[b * numbers.size(1) + j] = static_cast<float>(mode == "sum"    ? sum
                                                                      : mode == "mean" ? sum / n
                                                                                       : best);
    }
    entry += bags[b].size();
  }
  return y;
}

TEST(EmbeddingBag, SumsMeansAndMaximaOfEveryKindOfTable) {
  const std::vector<Ints> bags{{5, 0, 0}, {}, {3}, {2, 4}};
  Tensor indices = longs({5, 0, 0, 3, 2, 4});
  for (const Tensor& table : tables())
    for (const char* mode : {"sum", "mean", "max"}) {
      Tensor expected = plain_bag(table.dequantize(), bags, mode);
      expect_equal(
          ops::call("embedding_bag", {table, indices, longs({0, 3, 3, 4})}, {{"mode", mode}}),
          expected, mode);
      expect_equal(ops::call("embedding_bag", {table, indices, longs({0, 3, 3, 4, 6})},
                             {{"mode", mode}, {"include_last_offset", true}}),
                   expected, mode);
      expect_equal(
          ops::call("embedding_bag", {table, longs({1, 2, 2, 4, 5, 3}, {3, 2})}, {{"mode", mode}}),
          plain_bag(table.dequantize(), {{1, 2}, {2, 4}, {5, 3}}, mode), mode);
    }
}

TEST(EmbeddingBag, PaddingCountsForNothing) {
  Tensor table = tables()[3];
  for (const char* mode : {"sum", "mean", "max"})
    expect_equal(ops::call("embedding_bag", {table, longs({0, 1, 0, 0, 2, 3}, {3, 2})},
                           {{"mode", mode}, {"padding_idx", int64_t{0}}}),
                 plain_bag(table.dequantize(), {{1}, {}, {2, 3}}, mode), mode);
}

TEST(EmbeddingBag, EntriesMayHaveWeights) {
  for (const Tensor& table : tables())
    expect_equal(
        ops::call("embedding_bag", {table, longs({0, 1, 1}), longs({0, 2}), floats({0.5f, -2, 3})},
                  {{"mode", "sum"}}),
        plain_bag(table.dequantize(), {{0, 1}, {1}}, "sum", {0.5f, -2, 3}));
}

TEST(EmbeddingBag, GradientsEqualDifferenceQuotients) {
  Tensor table = Tensor::randn({6, 5}, 3), indices = longs({5, 0, 0, 3, 2, 4});
  for (const char* mode : {"sum", "mean", "max"}) {
    check_op_gradient("embedding_bag", {table, indices, longs({0, 3, 3, 4})}, {{"mode", mode}});
    check_op_gradient("embedding_bag", {table, longs({1, 0, 2, 3}, {2, 2})},
                      {{"mode", mode}, {"padding_idx", int64_t{0}}});
  }
  check_op_gradient("embedding_bag", {table, indices, longs({0, 3, 3, 4}), Tensor::randn({6}, 4)},
                    {{"mode", "sum"}});
  check_op_gradient("embedding_bag",
                    {table, longs({1, 0, 2, 3}, {2, 2}), {}, Tensor::randn({2, 2}, 4)},
                    {{"mode", "sum"}});
}

TEST(EmbeddingTypes, SymbolicDimsPass) {
  EXPECT_EQ(
      infer_text(
          "embedding_byte",
          {"QUInt8(9, 4) axis=0 scale=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0] zero_point=0",
           "Long(N, T)"}),
      "Float(N, T, 4)");
  EXPECT_EQ(infer_text("embedding_bag", {"Float(9, 4)", "Long(N, T)"}), "Float(N, 4)");
  EXPECT_EQ(
      infer_text("embedding_bag", {"QUInt4x2(9, 4) scale=1.0 zero_point=0", "Int(T)", "Int(B)"},
                 {{"include_last_offset", true}}),
      "Float([B-1], 4)");
}

TEST(EmbeddingTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::vector<std::string>& inputs, const Attrs& attrs,
                  const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts,
                 [&] { infer_text("embedding_bag", inputs, attrs); });
  };
  fails({"Float(9, 4)", "Long(3)"}, {}, {"embedding_bag", "indices are Long(3)", "with offsets"});
  fails({"Float(9, 4)", "Float(3, 2)"}, {}, {"indices is Float(3, 2)", "expected integers"});
  fails({"Float(9)", "Long(3, 2)"}, {}, {"weight is Float(9)", "(rows, numbers per row)"});
  fails({"QInt32(9, 4) scale=1.0 zero_point=0", "Long(3, 2)"}, {},
        {"weight is QInt32", "8 or 4 bits"});
  fails({"Float(9, 4)", "Long(3, 2)"}, {{"mode", "median"}}, {"mode=\"median\"", "\"mean\""});
  fails({"Float(9, 4)", "Long(3)", "Long(2)", "Float(3)"}, {{"mode", "mean"}},
        {"per_sample_weights", "\"sum\""});
  fails({"Float(9, 4)", "Long(3, 2)"}, {{"padding_idx", int64_t{9}}}, {"padding_idx=9"});
  fails({"QUInt8(2, 2) axis=1 scale=[1.0, 1.0] zero_point=0", "Long(3, 2)"}, {},
        {"axis 1", "axis 0"});
  Tensor table = tables()[0];
  expect_error(ErrorCode::invalid_argument, {"embedding_bag", "index 6", "6 rows"}, [&] {
    ops::call("embedding_bag", {table, longs({6}, {1, 1})});
  });
  for (const Ints& offsets : {Ints{1, 2}, Ints{0, 2, 1}, Ints{0, 9}})
    expect_error(ErrorCode::invalid_argument, {"offsets", "of 3 indices"}, [&] {
      ops::call("embedding_bag", {table, longs({0, 1, 2}), longs(offsets)});
    });
  expect_error(ErrorCode::unsupported, {"relu", "QUInt4x2", "dequantize"},
               [] { infer_text("relu", {"QUInt4x2(9, 4) scale=1.0 zero_point=0"}); });
}

// tests/golden/embedding.json, made by scripts/oracle/embedding.py.
TEST(GoldenEmbedding, TablesAndBagsArePyTorchs) {
  auto cases = load_golden("embedding.json");
  ASSERT_EQ(cases.size(), 120u);
  for (const auto& c : cases) {
    const int64_t rows = c["rows"], columns = c["columns"];
    auto doubles = [](const std::vector<float>& v) {
      return std::vector<double>(v.begin(), v.end());
    };
    Tensor x =
        Tensor::from(golden_values(c["kind"], c["seed"], rows * columns, c["scale"], c["offset"]),
                     {rows, columns});
    Tensor table =
        quantize_per_channel_float(x, doubles(from_bits(c["s"])), doubles(from_bits(c["z"])), 0,
                                   parse_dtype(c["dtype"].get<std::string>()));
    EXPECT_EQ(table.to_vector<uint8_t>(), c["codes"].get<std::vector<uint8_t>>()) << c;
    expect_equal(table.dequantize(), Tensor::from(from_bits(c["y"]), {rows, columns}));
    for (const char* mode : {"sum", "mean", "max"}) {
      Tensor y =
          ops::call("embedding_bag", {table, longs(c["index"].get<Ints>()), longs({0, 2, 2, 5})},
                    {{"mode", mode}});
      // PyTorch adds in float32.
      EXPECT_TRUE(allclose(y, Tensor::from(from_bits(c[mode]), y.shape()), 1e-6,
                           1e-6 * c["scale"].get<double>()))
          << mode << c;
    }
  }
}

}  // namespace
}  // namespace octet::testing
