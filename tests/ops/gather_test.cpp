#include <cmath>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

// -- cat ------------------------------------------------------------------------------------------

std::vector<Shape> random_parts(Random& random, int64_t* dim) {
  Shape shape = random_shape(random);
  *dim = random.integer(0, static_cast<int64_t>(shape.size()) - 1);
  std::vector<Shape> parts(random.integer(1, 4), shape);
  for (Shape& part : parts) part[*dim] = random.integer(0, 4);
  parts[0][*dim] = std::max<int64_t>(1, parts[0][*dim]);
  return parts;
}

TEST(Cat, PutsOperandsBehindOneAnother) {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    int64_t dim;
    std::vector<Tensor> xs;
    for (const Shape& shape : random_parts(random, &dim))
      xs.push_back(Tensor::randn(shape, random.next()));
    std::vector<Tensor> operands;
    for (const Tensor& x : xs) operands.push_back(random_layout(random, x));
    Tensor y = ops::call("cat", operands, {{"dim", dim - (trial % 2 ? xs[0].dim() : 0)}});
    int64_t start = 0;
    for (const Tensor& x : xs) {
      if (x.numel()) expect_equal(y.slice(dim, start, start + x.size(dim)), x);
      start += x.size(dim);
    }
    ASSERT_EQ(y.size(dim), start);
  }
}

TEST(CatQuantized, CopiesCodesOrRequantizes) {
  Random random(2);
  for (int trial = 0; trial < 2500; ++trial) {
    int64_t dim;
    QType ty = random_qtype(random, random_byte_dtype(random));
    std::vector<Tensor> xs, plain;
    for (const Shape& shape : random_parts(random, &dim)) {
      bool wide = random.integer(0, 9) == 0;
      QType tx = random.integer(0, 1)
                     ? ty
                     : random_qtype(random, wide ? DType::qint32 : random_byte_dtype(random));
      xs.push_back(random_layout(random, random_codes(random, shape, tx)));
    }
    expect_equal(ops::call("cat", xs, {{"dim", dim}}, ty), by_float("cat", xs, {{"dim", dim}}, ty));
  }
}

TEST(CatQuantized, NeedsQParamsUnlessAllOperandsShareThem) {
  Random random(3);
  QType a = random_qtype(random, DType::quint8), b = random_qtype(random, DType::quint8);
  Tensor x = random_codes(random, {2}, a), y = random_codes(random, {2}, a),
         z = random_codes(random, {2}, b);
  EXPECT_EQ(*ops::call("cat", {x, y}).quantizer(), *a.quantizer);
  expect_error(ErrorCode::invalid_argument, {"cat", "scale and zero point"}, [&] {
    ops::call("cat", {x, z});
  });
  expect_error(ErrorCode::invalid_argument, {"cat", "scale and zero point"}, [&] {
    ops::call("cat", {floats({1}), z});
  });
}

TEST(CatTypes, SymbolicDimsAddUp) {
  EXPECT_EQ(infer_text("cat", {"Float(N, 3, H)", "Float(N, 5, H)"}, {{"dim", int64_t{1}}}),
            "Float(N, 8, H)");
  EXPECT_EQ(infer_text("cat", {"Float(N, 3)", "Float(2, 3)"}), "Float([N+2], 3)");
  EXPECT_EQ(infer_text("cat", {"Float(N, 3)", "Float(M, 3)"}), "Float([N+M], 3)");
  EXPECT_EQ(infer_text("cat", {"Float(N, 3)", "Float(4, 5)"}, {{"dim", int64_t{1}}}),
            "Float(4, 8)");
  expect_error(ErrorCode::invalid_argument, {"cat", "(2, 3)", "(2, 4)", "dimension 0"}, [] {
    infer_text("cat", {"Float(2, 3)", "Float(2, 4)"});
  });
  expect_error(ErrorCode::invalid_argument, {"cat", "Float(2)", "Long(2)"}, [] {
    infer_text("cat", {"Float(2)", "Long(2)"});
  });
  expect_error(ErrorCode::invalid_argument, {"cat", "dimension 1"}, [] {
    infer_text("cat", {"Float(2)", "Float(2)"}, {{"dim", int64_t{1}}});
  });
}

// -- pad ------------------------------------------------------------------------------------------

TEST(Pad, AllModes) {
  Tensor x = longs({1, 2, 3, 4, 5, 6}, {2, 3});
  auto pad = [&](Ints pads, const char* mode) {
    return ops::call("pad", {x}, {{"pads", pads}, {"mode", mode}, {"value", 9.0}});
  };
  expect_equal(pad({0, 1, 1, 2}, "constant"),
               longs({9, 1, 2, 3, 9, 9, 9, 4, 5, 6, 9, 9, 9, 9, 9, 9, 9, 9}, {3, 6}));
  expect_equal(pad({0, 2, 0, 1}, "reflect"), longs({3, 2, 1, 2, 3, 2, 6, 5, 4, 5, 6, 5}, {2, 6}));
  expect_equal(pad({1, 0, 1, 0}, "reflect"), longs({4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3}, {4, 3}));
  expect_equal(pad({1, 1, 0, 0}, "edge"), longs({1, 1, 2, 3, 1, 1, 2, 3, 4, 4, 5, 6}, {3, 4}));
  expect_equal(pad({0, -1, 0, 1}, "constant"), longs({2, 3, 9, 5, 6, 9}, {2, 3}));
  expect_equal(pad({0, 2, 0, 1}, "wrap"), longs({2, 3, 1, 2, 3, 1, 5, 6, 4, 5, 6, 4}, {2, 6}));
  expect_equal(pad({1, 0, 0, 2}, "wrap"),
               longs({4, 5, 6, 4, 5, 1, 2, 3, 1, 2, 4, 5, 6, 4, 5}, {3, 5}));
  // of what is left
  expect_equal(pad({0, -1, 0, 2}, "wrap"), longs({2, 3, 2, 3, 5, 6, 5, 6}, {2, 4}));
  expect_equal(pad({0, 0, 0, 0}, "constant"), x);
}

TEST(PadQuantized, ConstantsAreQuantizedAndQParamsKept) {
  Random random(4);
  for (int trial = 0; trial < 300; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random, 1, 4, 5), t);
    Ints pads(2 * x.dim());
    const char* modes[] = {"constant", "edge", "reflect", "wrap"};
    std::string mode = modes[trial % 4];
    for (int64_t d = 0; d < x.dim(); ++d)
      for (int64_t* p : {&pads[d], &pads[d + x.dim()]})
        *p = random.integer(0, mode == "reflect" ? x.size(d) - 1
                               : mode == "wrap"  ? std::min<int64_t>(x.size(d), 3)
                                                 : 3);
    Attrs attrs{{"pads", pads}, {"mode", mode}, {"value", random.uniform(-2, 2)}};
    Tensor y = ops::call("pad", {random_layout(random, x)}, attrs);
    EXPECT_EQ(*y.quantizer(), *t.quantizer);
    expect_equal(y, by_float("pad", {x}, attrs, t));
    QType other = random_qtype(random, random_byte_dtype(random));
    expect_equal(ops::call("pad", {x}, attrs, other), by_float("pad", {x}, attrs, other));
  }
  Tensor x = quantize_per_channel(Tensor::randn({2, 3}, 5), {0.1, 0.2}, {3, 5}, 0, DType::qint8);
  Attrs columns{{"pads", Ints{0, 1, 0, 0}}}, rows{{"pads", Ints{1, 0, 0, 0}}};
  expect_equal(ops::call("pad", {x}, columns).dequantize(),
               ops::call("pad", {x.dequantize()}, columns));
  expect_error(ErrorCode::invalid_argument, {"pad", "per channel"},
               [&] { ops::call("pad", {x}, rows); });
}

TEST(PadTypes, SymbolicDimsAndErrors) {
  EXPECT_EQ(infer_text("pad", {"Float(N, 3, 8)"}, {{"pads", Ints{0, 0, 1, 0, 0, 2}}}),
            "Float(N, 3, 11)");
  EXPECT_EQ(infer_text("pad", {"Float(N, 3)"}, {{"pads", Ints{1, 0, 1, 0}}}), "Float([N+2], 3)");
  auto fails = [](Ints pads, const char* mode, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] {
      infer_text("pad", {"Float(2, 3)"}, {{"pads", pads}, {"mode", mode}});
    });
  };
  fails({1, 1}, "constant", {"pad", "(2, 3)", "expected 4"});
  fails({0, 0, 2, 0}, "reflect", {"pad", "dimension 0", "reflect"});
  fails({0, 0, 0, 4}, "wrap", {"pad", "dimension 1", "wrap"});
  fails({0, -1, 0, 3}, "wrap", {"pad", "dimension 1", "wrap"});
  fails({0, 0, 0, -4}, "constant", {"pad", "dimension 1"});
  fails({0, 0, 0, 0}, "circular", {"pad", "mode=\"circular\"", "\"edge\""});
}

// -- gathers --------------------------------------------------------------------------------------

TEST(IndexSelect, IsOnnxsGather) {
  Random random(6);
  for (int trial = 0; trial < 200; ++trial) {
    Tensor x = Tensor::randn(random_shape(random), random.next());
    int64_t dim = random.integer(0, x.dim() - 1);
    Tensor index = Tensor::empty(random_shape(random, 0, 3, 3), DType::int64);
    for (int64_t i = 0; i < index.numel(); ++i)
      index.data<int64_t>()[i] = random.integer(-x.size(dim), x.size(dim) - 1);
    Tensor y = ops::call("index_select",
                         {random_layout(random, x), trial % 2 ? index : index.to(DType::int32)},
                         {{"dim", dim}});
    ASSERT_EQ(y.dim(), x.dim() - 1 + index.dim());
    for_each_index(y.shape(), [&](const Ints& i) {
      Ints at(i.begin(), i.begin() + dim), which(i.begin() + dim, i.begin() + dim + index.dim());
      auto k = static_cast<int64_t>(index.at(which));
      at.push_back(k < 0 ? k + x.size(dim) : k);
      at.insert(at.end(), i.begin() + dim + index.dim(), i.end());
      ASSERT_EQ(y.at(i), x.at(at));
    });
  }
}

TEST(IndexSelect, ErrorsNameTheIndex) {
  Tensor x = Tensor::zeros({2, 3});
  expect_error(ErrorCode::invalid_argument, {"index_select", "index 3", "size 3"}, [&] {
    ops::call("index_select", {x, longs({0, 3})}, {{"dim", int64_t{1}}});
  });
  expect_error(ErrorCode::invalid_argument, {"index_select", "index -4"}, [&] {
    ops::call("index_select", {x, longs({-4})}, {{"dim", int64_t{1}}});
  });
  expect_error(ErrorCode::invalid_argument, {"index_select", "index is Float(1)", "integers"}, [&] {
    ops::call("index_select", {x, floats({0})});
  });
  EXPECT_EQ(infer_text("index_select", {"Float(N, 3)", "Long(T, 2)"}), "Float(T, 2, 3)");
  EXPECT_EQ(infer_text("index_select", {"Float(N, 3)", "Long()"}, {{"dim", int64_t{1}}}),
            "Float(N)");
}

TEST(IndexSelectQuantized, CopiesCodes) {
  Random random(7);
  for (int trial = 0; trial < 100; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random)),
          other = random_qtype(random, DType::quint8);
    Tensor x = random_codes(random, {3, 4}, t), index = longs({2, 0, -1});
    expect_equal(ops::call("index_select", {x, index}),
                 by_float("index_select", {x, index}, {}, t));
    expect_equal(ops::call("index_select", {x, index}, {}, other),
                 by_float("index_select", {x, index}, {}, other));
  }
  Tensor x = quantize_per_channel(Tensor::randn({2, 3}, 5), {0.1, 0.2}, {3, 5}, 0, DType::qint8);
  Attrs columns{{"dim", int64_t{1}}};
  expect_equal(ops::call("index_select", {x, longs({2, 1})}, columns).dequantize(),
               ops::call("index_select", {x.dequantize(), longs({2, 1})}, columns));
  expect_error(ErrorCode::invalid_argument, {"index_select", "per channel"}, [&] {
    ops::call("index_select", {x, longs({1})});
  });
}

TEST(Embedding, LooksRowsUp) {
  Tensor weight = Tensor::randn({5, 3}, 8), index = longs({4, 0, 1, 1}, {2, 2});
  Tensor y = ops::call("embedding", {weight, index});
  ASSERT_EQ(y.shape(), (Shape{2, 2, 3}));
  expect_equal(y, ops::call("index_select", {weight, index}));
  EXPECT_EQ(infer_text("embedding", {"Float(5, 3)", "Long(N, T)"}), "Float(N, T, 3)");
  expect_error(ErrorCode::invalid_argument, {"embedding", "index 5", "size 5"}, [&] {
    ops::call("embedding", {weight, longs({5})});
  });
  expect_error(ErrorCode::invalid_argument, {"embedding", "(5)"}, [] {
    infer_text("embedding", {"Float(5)", "Long(N)"});
  });
}

TEST(Embedding, TheRowOfPaddingGetsNoGradient) {
  Tensor weight = Tensor::randn({3, 2}, 1);
  autograd::set_requires_grad(weight);
  Tensor y =
      ops::call("embedding", {weight, longs({0, 1, -2, 2, 0})}, {{"padding_idx", int64_t{1}}});
  autograd::backward(y, Tensor::ones({5, 2}));
  expect_equal(autograd::grad(weight), floats({2, 2, 0, 0, 1, 1}, {3, 2}));
  expect_error(ErrorCode::invalid_argument, {"embedding", "padding_idx=3"}, [&] {
    ops::call("embedding", {weight, longs({0})}, {{"padding_idx", int64_t{3}}});
  });
}

TEST(EmbeddingQuantized, DequantizesTheRowsItLooksUp) {
  Tensor real = Tensor::randn({3, 4}, 9), index = longs({2, 2, 0});
  Tensor rows = quantize_per_channel(real, {0.1, 0.02, 0.03}, {0, 5, -7}, 0, DType::qint8);
  Tensor columns =
      quantize_per_channel(real, {0.1, 0.02, 0.03, 0.01}, {0, 5, -7, 1}, 1, DType::qint8);
  Tensor whole = quantize_per_tensor(real, 0.05, 120, DType::quint8);
  QType t{DType::quint8, Quantizer::per_tensor(0.03, 100, DType::quint8)};
  for (const Tensor& weight : {rows, columns, whole}) {
    expect_equal(ops::call("embedding", {weight, index}),
                 ops::call("embedding", {weight.dequantize(), index}));
    expect_equal(ops::call("embedding", {weight, index}, {}, t),
                 by_float("embedding", {weight, index}, {}, t));
  }
  QType same{whole.dtype(), whole.quantizer()};
  expect_equal(ops::call("embedding", {whole, index}, {}, same),
               ops::call("index_select", {whole, index}));
}

TEST(Tile, RepeatsEveryDimension) {
  Tensor x = longs({1, 2, 3, 4}, {2, 2});
  expect_equal(ops::call("tile", {x}, {{"repeats", Ints{1, 2}}}),
               longs({1, 2, 1, 2, 3, 4, 3, 4}, {2, 4}));
  expect_equal(ops::call("tile", {x}, {{"repeats", Ints{2, 1}}}),
               longs({1, 2, 3, 4, 1, 2, 3, 4}, {4, 2}));
  EXPECT_EQ(ops::call("tile", {x}, {{"repeats", Ints{0, 1}}}).shape(), (Shape{0, 2}));
  EXPECT_EQ(infer_text("tile", {"Float(N, 3)"}, {{"repeats", Ints{2, 3}}}), "Float(N*2, 9)");
  EXPECT_EQ(infer_text("tile", {"QUInt8(N, 3) scale=0.5 zero_point=1"}, {{"repeats", Ints{1, 3}}}),
            "QUInt8(N, 9) scale=0.5 zero_point=1");
  expect_error(ErrorCode::invalid_argument, {"tile", "[2]", "(2, 2)"}, [&] {
    ops::call("tile", {x}, {{"repeats", Ints{2}}});
  });
  Random random(10);
  QType t = random_qtype(random, DType::qint8);
  Tensor q = random_codes(random, {2, 3}, t);
  expect_equal(ops::call("tile", {q}, {{"repeats", Ints{2, 2}}}),
               by_float("tile", {q}, {{"repeats", Ints{2, 2}}}, t));
}

TEST(Gather, ThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({7, 301, 41}, 11);
  Attrs attrs{{"pads", Ints{1, 2, 3, 3, 2, 1}}, {"mode", "edge"}};
  set_num_threads(1);
  Tensor one = ops::call("pad", {x}, attrs),
         joined = ops::call("cat", {x, x}, {{"dim", int64_t{1}}});
  set_num_threads(3);
  expect_equal(ops::call("pad", {x}, attrs), one);
  expect_equal(ops::call("cat", {x, x}, {{"dim", int64_t{1}}}), joined);
  set_num_threads(before);
}

}  // namespace
}  // namespace octet::testing
