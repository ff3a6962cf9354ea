// Operators on plain integers and codes that octet has no type for: exact by ONNX's definition,
// whatever the sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

constexpr int64_t kUint16Type = 4, kInt16Type = 5, kUint4Type = 21, kInt4Type = 22;

// Codes over their whole range, most of them at its ends: sums are as large as they can be.
Tensor end_codes(const Shape& shape, int seed, DType dtype) {
  const double low = dtype == DType::int8 ? -128 : 0;
  Tensor t = Tensor::rand(shape, static_cast<uint64_t>(seed), 0, 1).clone();
  for (int64_t i = 0; i < t.numel(); ++i) {
    const float v = t.data<float>()[i];
    t.data<float>()[i] = static_cast<float>(v < 0.1 ? low : low + 255 - std::floor(v * 4));
  }
  return t.to(dtype);
}

int64_t value(const Tensor& t, const Ints& at) { return static_cast<int64_t>(t.at(at)); }

// Both ways a graph is run.
void expect_gives(const graph::Graph& g, const std::vector<Tensor>& inputs, const Tensor& want) {
  EXPECT_TRUE(equal(run_one(g, inputs), want)) << to_string(run_one(g, inputs)) << to_string(want);
  EXPECT_TRUE(equal(runtime::compile(g).run(inputs)[0], want));
}

TEST(OnnxInteger, MatMulIntegerIsExactForAnyDepth) {
  for (int64_t k : {1, 7, 258, 259, 600, 2000})
    for (bool constant : {true, false}) {
      SCOPED_TRACE(k);
      Tensor a = end_codes({3, k}, 1, DType::uint8), b = end_codes({k, 4}, 2, DType::uint8);
      OnnxModel m;
      m.input("a", {3, static_cast<int>(k)}, kUint8)
          .constant("az", Tensor::from(std::vector<uint8_t>{255, 0, 7}, {3}));
      m.constant("bz", Tensor::from(std::vector<uint8_t>{0, 1, 200, 255}, {4}));
      if (constant)
        m.constant("b", b);
      else
        m.input("b", {static_cast<int>(k), 4}, kUint8);
      m.node("MatMulInteger", {"a", "b", "az", "bz"}, {"y"}).output("y", kInt32);
      const Ints az{255, 0, 7}, bz{0, 1, 200, 255};
      Tensor want = Tensor::zeros({3, 4}, DType::int32);
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < 4; ++j)
          for (int64_t p = 0; p < k; ++p)
            want.data<int32_t>()[i * 4 + j] +=
                static_cast<int32_t>((value(a, {i, p}) - az[i]) * (value(b, {p, j}) - bz[j]));
      expect_gives(m.import(), constant ? std::vector{a} : std::vector{a, b}, want);
    }
}

TEST(OnnxInteger, MatMulIntegerOfBatches) {
  Tensor a = end_codes({2, 3, 5}, 1, DType::uint8), b = end_codes({2, 5, 2}, 2, DType::int8);
  OnnxModel m;
  m.input("a", {2, 3, 5}, kUint8).input("b", {2, 5, 2}, kInt8).input("az", {}, kUint8);
  m.node("MatMulInteger", {"a", "b", "az"}, {"y"}).output("y", kInt32);
  Tensor want = Tensor::zeros({2, 3, 2}, DType::int32);
  for (int64_t i = 0; i < want.numel(); ++i)
    for (int64_t p = 0; p < 5; ++p)
      want.data<int32_t>()[i] +=
          static_cast<int32_t>((value(a, {i / 6, i / 2 % 3, p}) - 9) * value(b, {i / 6, p, i % 2}));
  expect_gives(m.import(), {a, b, Tensor::scalar(9, DType::uint8)}, want);
}

TEST(OnnxInteger, ConvIntegerIsExactForAnyDepthInAnyGroups) {
  struct Row {
    int64_t groups, inputs, outputs, kernel;
  };
  for (const Row& r :
       {Row{1, 3, 2, 3}, Row{1, 70, 2, 3}, Row{2, 70, 4, 3}, Row{70, 70, 70, 3}, Row{1, 2, 1, 15}})
    for (DType dtype : {DType::uint8, DType::int8}) {
      SCOPED_TRACE(r.inputs);
      const int64_t per_group = r.inputs / r.groups, size = r.kernel + 1;
      Tensor x = end_codes({1, r.inputs, size, size}, 1, DType::uint8),
             w = end_codes({r.outputs, per_group, r.kernel, r.kernel}, 2, dtype);
      OnnxModel m;
      m.input("x", {1, static_cast<int>(r.inputs), static_cast<int>(size), static_cast<int>(size)},
              kUint8)
          .constant("w", w);
      m.constant("xz", Tensor::scalar(250, DType::uint8))
          .constant("wz", Tensor::full({r.outputs}, 3, dtype));
      m.node("ConvInteger", {"x", "w", "xz", "wz"}, {"y"},
             {{"group", r.groups}, {"pads", Ints{1, 1, 0, 0}}})
          .output("y", kInt32);
      Tensor want = Tensor::zeros({1, r.outputs, 3, 3}, DType::int32);
      for (int64_t o = 0; o < r.outputs; ++o)
        for (int64_t at = 0; at < 9; ++at)
          for (int64_t c = 0; c < per_group; ++c)
            for (int64_t i = 0; i < r.kernel * r.kernel; ++i) {
              const int64_t row = at / 3 + i / r.kernel - 1, column = at % 3 + i % r.kernel - 1;
              // padding is the zero point
              if (row < 0 || row >= size || column < 0 || column >= size) continue;
              want.data<int32_t>()[o * 9 + at] += static_cast<int32_t>(
                  (value(x, {0, o / (r.outputs / r.groups) * per_group + c, row, column}) - 250) *
                  (value(w, {o, c, i / r.kernel, i % r.kernel}) - 3));
            }
      expect_gives(m.import(), {x}, want);
    }
}

TEST(OnnxInteger, CodesOfAQuantizeLinearAreIntegersToo) {
  OnnxModel m;
  m.input("x", {1, 4})
      .constant("s", Tensor::scalar(0.1))
      .constant("z", Tensor::scalar(100, DType::uint8));
  m.node("QuantizeLinear", {"x", "s", "z"}, {"q"})
      .constant("w", Tensor::from(std::vector<int8_t>{1, -2, 3, 4}, {4, 1}));
  m.node("MatMulInteger", {"q", "w"}, {"y"}).output("y", kInt32);
  // Codes 110, 80, 255 (clamped) and 100.
  expect_gives(m.import(), {Tensor::from(Floats{1, -2, 100, 0}, {1, 4})},
               Tensor::from(std::vector<int32_t>{110 - 160 + 765 + 400}, {1, 1}));
}

TEST(OnnxInteger, DynamicQuantizeLinear) {
  OnnxModel m;
  m.input("x", {"N", 4})
      .node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .output("q", kUint8)
      .output("s")
      .output("z", kUint8);
  graph::Graph g = m.import();
  auto check = [&](const Floats& x, const std::vector<uint8_t>& q, float scale, uint8_t zero) {
    std::vector<Tensor> got = runtime::compile(g).run({Tensor::from(x, {1, 4})});
    EXPECT_EQ(got[0].to_vector<uint8_t>(), q);
    EXPECT_EQ(got[1].to_vector<float>(), Floats{scale});
    EXPECT_EQ(got[2].to_vector<uint8_t>(), std::vector<uint8_t>{zero});
  };
  check({0, 2, -3, 2.1f}, {150, 250, 0, 255}, 5.1f / 255, 150);
  check({1, 2, 3, 5.1f}, {50, 100, 150, 255}, 5.1f / 255, 0);  // the range holds 0
  check({-1, -2, -3, -5.1f}, {205, 155, 105, 0}, 5.1f / 255, 255);
  check({0, 0, 0, 0}, {0, 0, 0, 0}, 1, 0);
}

TEST(OnnxInteger, MatMulIntegerToFloat) {
  OnnxModel m;
  m.input("a", {1, 2}, kUint8)
      .constant("b", Tensor::from(std::vector<int8_t>{1, 2, 3, 4}, {2, 2}))
      .constant("as", Tensor::scalar(0.5));
  m.constant("bs", floats({2, 4}))
      .constant("az", Tensor::scalar(1, DType::uint8))
      .constant("bias", floats({10, 20}));
  m.node("MatMulIntegerToFloat", {"a", "b", "as", "bs", "az", "", "bias"}, {"y"}, {}, "",
         kMicrosoft)
      .output("y");
  EXPECT_EQ(
      run_one(m.import(), {Tensor::from(std::vector<uint8_t>{3, 2}, {1, 2})}).to_vector<float>(),
      (Floats{15, 36}));
}

float most_of(const Tensor& t) {
  float most = 0;
  for (int64_t i = 0; i < t.numel(); ++i) most = std::max(most, std::abs(t.data<float>()[i]));
  return most;
}

// Two to a byte, the first in the low bits: the rows of B, and of the zero points.
TEST(OnnxInteger, MatMulNBits) {
  for (int64_t bits : {2, 4, 8})
    for (int zeros : {0, 1, 2})  // none, packed, float
      for (int64_t k : {32, 37, 16, 5}) {
        SCOPED_TRACE(bits * 1000 + zeros * 100 + k);
        const int64_t n = 3, block = 16, blocks = (k + block - 1) / block, most = (1 << bits) - 1,
                      zero_bytes = (blocks * bits + 7) / 8;
        Tensor b = Tensor::zeros({n, blocks, block * bits / 8}, DType::uint8),
               z = Tensor::zeros({n * zero_bytes}, DType::uint8);
        Tensor scales = Tensor::rand({n * blocks}, 1, 0.5, 2),
               float_zeros = Tensor::rand({n * blocks}, 2, 0, 3);
        auto put = [&](uint8_t* row, int64_t i, int64_t code) {
          row[i * bits / 8] |= static_cast<uint8_t>(code << (i * bits % 8));
        };
        Tensor w = Tensor::zeros({n, k});
        for (int64_t r = 0; r < n; ++r)
          for (int64_t i = 0; i < k; ++i) {
            const int64_t code = (r * 31 + i * 7) & most, at = r * blocks + i / block;
            put(b.data<uint8_t>() + r * blocks * block * bits / 8, i, code);
            const int64_t zero = (r + i / block) & most;
            if (i % block == 0) put(z.data<uint8_t>() + r * zero_bytes, i / block, zero);
            const float middle = static_cast<float>(most / 2 + 1);
            const float shift = zeros == 0   ? middle
                                : zeros == 1 ? static_cast<float>(zero)
                                             : float_zeros.data<float>()[at];
            w.data<float>()[r * k + i] =
                (static_cast<float>(code) - shift) * scales.data<float>()[at];
          }
        OnnxModel m;
        m.input("x", {2, static_cast<int>(k)})
            .constant("b", b)
            .constant("s", scales)
            .constant("z", zeros == 2 ? float_zeros : z);
        m.constant("bias", floats({1, 2, 3}));
        m.node("MatMulNBits", {"x", "b", "s", zeros ? "z" : "", "", "bias"}, {"y"},
               {{"K", k},
                {"N", n},
                {"bits", bits},
                {"block_size", block},
                {"accuracy_level", int64_t{4}}},
               "", kMicrosoft);
        Tensor x = Tensor::randn({2, k}, 3);
        Tensor want = ops::call("linear", {x, w, floats({1, 2, 3})});
        const graph::Graph g = m.output("y").import();
        // What float32 sums of such terms may be off by.
        const double off =
            1e-6 * static_cast<double>(most_of(x) * most_of(w)) * static_cast<double>(k);
        EXPECT_TRUE(allclose(run_one(g, {x}), want, 1e-6, off));
        EXPECT_EQ(ops_of(g), "linear_blocks");
        EXPECT_EQ(g.type(node_of(g, "linear_blocks").inputs[1]).dims[2], Dim(block * bits / 8));
        const graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g), "back.onnx");
        EXPECT_TRUE(equal(run_one(back, {x}), run_one(g, {x})));
        EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], run_one(g, {x})));
      }
}

TEST(OnnxInteger, MatMulNBitsThatDoesNotFitItsShape) {
  auto import = [](int64_t k, int64_t bits, bool group_index) {
    return [=] {
      OnnxModel m;
      m.input("x", {2, static_cast<int>(k)})
          .constant("b", Tensor::zeros({3, 2, 8}, DType::uint8))
          .constant("s", Tensor::ones({6}));
      m.constant("g", Tensor::zeros({k}, DType::int32));
      m.node("MatMulNBits", {"x", "b", "s", "", group_index ? "g" : ""}, {"y"},
             {{"K", k}, {"N", int64_t{3}}, {"bits", bits}, {"block_size", int64_t{16}}}, "",
             kMicrosoft);
      m.output("y").import();
    };
  };
  expect_error(ErrorCode::corrupt, {"expected 72 bytes"}, import(40, 4, false));
  expect_error(ErrorCode::unsupported, {"blocks of 16 codes of 3 bits"}, import(32, 3, false));
  expect_error(ErrorCode::unsupported, {"a group index (g_idx)"}, import(32, 4, true));
}

// An initializer of an element type that octet has not: its number, and its raw bytes.
Message raw_tensor(const std::string& name, const Ints& shape, int64_t type,
                   const std::string& bytes) {
  Message t;
  for (int64_t d : shape) t.number(1, d);
  return t.number(2, type).text(8, name).text(9, bytes);
}

TEST(OnnxInteger, SixteenBitCodes) {
  for (bool is_signed : {false, true}) {
    // -1000; 30000
    const std::string zero = is_signed ? std::string("\x18\xfc", 2) : std::string("\x30\x75", 2);
    OnnxModel m(21);
    m.input("x", {4}).constant("s", Tensor::scalar(0.5));
    m.raw_initializer(raw_tensor("z", {}, is_signed ? kInt16Type : kUint16Type, zero));
    m.node("QuantizeLinear", {"x", "s", "z"}, {"q"})
        .node("Identity", {"q"}, {"i"})
        .node("DequantizeLinear", {"i", "s", "z"}, {"y"})
        .output("y");
    const Floats want =
        is_signed ? Floats{0.5f, 16883.5f, -15884, 2} : Floats{0.5f, 17767.5f, -15000, 2};
    expect_gives(m.import(), {floats({0.6f, 1e6f, -1e6f, 2.25f})}, floats(want));
  }
}

TEST(OnnxInteger, FourBitWeightsInBlocks) {
  // Rows 1, -8, 7, -1, 2 and 0, 3, -4, 5, -6 in blocks of 2.
  OnnxModel m(21);
  m.input("x", {1, 5}).raw_initializer(raw_tensor("w", {2, 5}, kInt4Type, "\x81\xf7\x02\xc3\xa5"));
  m.constant("s", Tensor::from(Floats{1, 2, 4, 0.5f, 1, 3}, {2, 3}));
  m.node("DequantizeLinear", {"w", "s"}, {"d"}, {{"axis", int64_t{1}}, {"block_size", int64_t{2}}});
  m.node("Gemm", {"x", "d"}, {"y"}, {{"transB", int64_t{1}}}).output("y");
  EXPECT_EQ(run_one(m.import(), {Tensor::from(Floats{1, 1, 1, 1, 1}, {1, 5})}).to_vector<float>(),
            (Floats{1 - 8 + 14 - 2 + 8, 1.5f - 4 + 5 - 18}));
  EXPECT_EQ(ops_of(m.import()), "linear_blocks");
  OnnxModel zeros(21);
  zeros.input("x", {1, 3})
      .raw_initializer(raw_tensor("w", {3}, kUint4Type, "\x1f\x08"))
      .raw_initializer(raw_tensor("z", {}, kUint4Type, "\x08"));
  zeros.constant("s", Tensor::scalar(0.5))
      .node("DequantizeLinear", {"w", "s", "z"}, {"d"})
      .node("Add", {"x", "d"}, {"y"})
      .output("y");
  EXPECT_EQ(run_one(zeros.import(), {Tensor::zeros({1, 3})}).to_vector<float>(),
            (Floats{3.5f, -3.5f, 0}));
}

// Weights of matrix products keep their codes.
TEST(OnnxInteger, WeightsInBlocksStayCodes) {
  for (DType dtype : {DType::int8, DType::uint8})
    for (bool zeros : {false, true})
      for (bool gemm : {false, true}) {
        const Tensor w = end_codes({6, 3}, 1, dtype), scales = Tensor::rand({2, 3}, 2, 0.5, 2),
                     z = end_codes({2, 3}, 3, dtype), bias = Tensor::randn({3}, 4);
        OnnxModel m(21);
        m.input("x", {2, 6}).constant("w", w).constant("s", scales).constant("z", z);
        m.constant("bias", bias)
            .node("DequantizeLinear", {"w", "s", zeros ? "z" : ""}, {"d"},
                  {{"axis", int64_t{0}}, {"block_size", int64_t{4}}})
            .node(gemm ? "Gemm" : "MatMul",
                  gemm ? std::vector<std::string>{"x", "d", "bias"}
                       : std::vector<std::string>{"x", "d"},
                  {"y"});
        const graph::Graph g = m.output("y").import();
        EXPECT_EQ(ops_of(g), "linear_blocks");
        const Tensor x = Tensor::randn({2, 6}, 5), y = run_one(g, {x});
        for (int64_t i = 0; i < 6; ++i) {
          double sum = gemm ? static_cast<double>(bias.data<float>()[i % 3]) : 0;
          for (int64_t p = 0; p < 6; ++p) {
            const int64_t shift = zeros ? value(z, {p / 4, i % 3}) : 0;
            sum += static_cast<double>(x.data<float>()[i / 3 * 6 + p]) *
                   static_cast<double>(value(w, {p, i % 3}) - shift) *
                   static_cast<double>(scales.data<float>()[p / 4 * 3 + i % 3]);
          }
          EXPECT_NEAR(y.data<float>()[i], sum, 2e-3);  // x keeps 24 bits
        }
      }
}

TEST(OnnxInteger, QuantizesInBlocks) {
  for (int64_t axis : {0, 1}) {
    const Shape of_scales = axis == 0 ? Shape{2, 3} : Shape{3, 2};
    OnnxModel m(21);
    m.input("x", {3, 3}).constant("s", Tensor::from(Floats{1, 2, 4, 0.5f, 1, 3}, of_scales));
    m.constant("z", Tensor::from(std::vector<int8_t>{0, 1, 2, 3, 4, 5}, of_scales));
    m.node("QuantizeLinear", {"x", "s", "z"}, {"q"}, {{"axis", axis}, {"block_size", int64_t{2}}})
        .output("q", kInt8);
    Tensor x = Tensor::randn({3, 3}, 1), want = Tensor::zeros({3, 3}, DType::int8);
    const Floats s{1, 2, 4, 0.5f, 1, 3};
    for (int64_t i = 0; i < 9; ++i) {
      const int64_t at = axis == 0 ? i / 3 / 2 * 3 + i % 3 : i / 3 * 2 + i % 3 / 2;
      want.data<int8_t>()[i] = static_cast<int8_t>(
          std::nearbyint(x.data<float>()[i] / s[static_cast<size_t>(at)]) + static_cast<float>(at));
    }
    expect_gives(m.import(), {x}, want);
  }
}

TEST(OnnxInteger, ScalesThatDataDecides) {
  OnnxModel m;
  m.input("x", {3}).input("s", {}).constant("z", Tensor::scalar(10, DType::uint8));
  m.node("QuantizeLinear", {"x", "s", "z"}, {"q"})
      .node("DequantizeLinear", {"q", "s", "z"}, {"y"})
      .output("y");
  expect_gives(m.import(), {floats({1, -100, 2.6f}), Tensor::scalar(0.5)}, floats({1, -5, 2.5f}));
}

TEST(OnnxInteger, CodesGivenAsInputsRunInIntegers) {
  // 8-bit codes that are an input of the graph are quantized values: the layer behind them runs in
  // integers.
  Tensor x = end_codes({1, 2, 3, 3}, 1, DType::uint8), w = end_codes({2, 2, 2, 2}, 2, DType::int8);
  OnnxModel m;
  m.input("x", {1, 2, 3, 3}, kUint8)
      .constant("xs", Tensor::scalar(0.02))
      .constant("xz", Tensor::scalar(120, DType::uint8))
      .constant("w", w);
  m.constant("ws", floats({0.01f, 0.003f}))
      .constant("wz", Tensor::zeros({2}, DType::int8))
      .constant("ys", Tensor::scalar(0.9))
      .constant("yz", Tensor::scalar(99, DType::uint8));
  m.constant("b", Tensor::from(std::vector<int32_t>{1000, -2000}, {2}));
  m.node("QLinearConv", {"x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"}, {"y"})
      .output("y", kUint8);
  graph::Graph g = graph::merge_qdq(graph::fuse_activations(m.import()));
  EXPECT_TRUE(g.type(node_of(g, "conv2d").outputs[0]).is_quantized());
  Tensor got = run_one(g, {x});
  got = (got.is_quantized() ? got.int_repr() : got).contiguous();
  for (int64_t i = 0; i < 8; ++i) {
    int64_t sum = i < 4 ? 1000 : -2000;
    for (int64_t k = 0; k < 8; ++k)
      sum += (value(x, {0, k / 4, i / 2 % 2 + k / 2 % 2, i % 2 + k % 2}) - 120) *
             value(w, {i / 4, k / 4, k / 2 % 2, k % 2});
    const float multiplier = 0.02f * (i < 4 ? 0.01f : 0.003f) / 0.9f;
    EXPECT_EQ(
        got.data<uint8_t>()[i],
        std::clamp(std::nearbyint(static_cast<float>(sum) * multiplier) + 99.0f, 0.0f, 255.0f))
        << i;
  }
}

TEST(OnnxInteger, MicrosoftsOperatorsOnCodes) {
  Tensor a = Tensor::from(std::vector<uint8_t>{0, 100, 130, 255}, {1, 1, 2, 2}),
         b = Tensor::from(std::vector<uint8_t>{10, 20, 30, 42}, {1, 1, 2, 2});
  // a: -2, 0, 0.6, 3.1; b: 0, 0.5, 1, 1.6; the result's codes are value / 0.1 + 50.
  auto run = [&](const std::string& op, int operands,
                 const std::vector<std::pair<std::string, OnnxAttr>>& attrs = {}) {
    OnnxModel m;
    m.input("a", {1, 1, 2, 2}, kUint8).input("b", {1, 1, 2, 2}, kUint8);
    m.constant("as", Tensor::scalar(0.02))
        .constant("az", Tensor::scalar(100, DType::uint8))
        .constant("bs", Tensor::scalar(0.05));
    m.constant("bz", Tensor::scalar(10, DType::uint8))
        .constant("ys", Tensor::scalar(0.1))
        .constant("yz", Tensor::scalar(50, DType::uint8));
    std::vector<std::string> in{"a", "as", "az"};
    if (operands == 2) in.insert(in.end(), {"b", "bs", "bz"});
    in.insert(op == "QLinearConcat" ? in.begin() : in.end(), {"ys", "yz"});
    m.node(op, in, {"y"}, attrs, "", kMicrosoft).output("y", kUint8);
    const graph::Graph g = graph::merge_qdq(m.import());
    // On codes throughout.
    EXPECT_EQ(count_ops(g, "dequantize") + count_ops(g, "quantize"), 0) << graph::print(g);
    Tensor y = run_one(g, {a, b});
    y = y.is_quantized() ? y.int_repr() : y;
    std::vector<int> codes;
    for (uint8_t v : y.contiguous().to_vector<uint8_t>()) codes.push_back(v);
    return codes;
  };
  EXPECT_EQ(run("QLinearAdd", 2), (std::vector<int>{30, 55, 66, 97}));
  EXPECT_EQ(run("QLinearMul", 2), (std::vector<int>{50, 50, 56, 100}));
  EXPECT_EQ(run("QLinearLeakyRelu", 1, {{"alpha", 0.5}}), (std::vector<int>{40, 50, 56, 81}));
  EXPECT_EQ(run("QLinearConcat", 2, {{"axis", int64_t{1}}}),
            (std::vector<int>{30, 50, 56, 81, 50, 55, 60, 66}));
  EXPECT_EQ(run("QLinearGlobalAveragePool", 1), (std::vector<int>{54}));
  EXPECT_EQ(run("QLinearAveragePool", 1, {{"kernel_shape", Ints{1, 2}}}),
            (std::vector<int>{40, 68}));
  EXPECT_EQ(run("QLinearReduceMean", 1, {{"axes", Ints{3}}}), (std::vector<int>{40, 68}));
  EXPECT_EQ(run("QLinearSigmoid", 1), (std::vector<int>{51, 55, 56, 60}));
  // exp(-2), 1 and exp(0.6), exp(3.1), each row's shares
  EXPECT_EQ(run("QLinearSoftmax", 1), (std::vector<int>{51, 59, 51, 59}));
  // The image's rows as pixels of two channels; the second's mean is 155 * f(f(0.02 * 0.5) / 0.1) =
  // 15.499999 steps.
  EXPECT_EQ(run("QLinearGlobalAveragePool", 1, {{"channels_last", int64_t{1}}}),
            (std::vector<int>{43, 65}));
}

TEST(OnnxInteger, QGemm) {
  OnnxModel m;
  m.input("a", {1, 2}, kUint8)
      .constant("as", Tensor::scalar(0.5))
      .constant("az", Tensor::scalar(10, DType::uint8));
  m.constant("b", Tensor::from(std::vector<int8_t>{1, 2, 3, 4}, {2, 2}))
      .constant("bs", floats({0.1f, 0.2f}))
      .constant("bz", Tensor::zeros({2}, DType::int8));
  m.constant("c", Tensor::from(std::vector<int32_t>{100, -50}, {2}))
      .constant("ys", Tensor::scalar(0.25))
      .constant("yz", Tensor::scalar(3, DType::uint8));
  m.node("QGemm", {"a", "as", "az", "b", "bs", "bz", "c", "ys", "yz"}, {"y"},
         {{"transB", int64_t{1}}}, "", kMicrosoft)
      .output("y", kUint8);
  Tensor y =
      run_one(graph::merge_qdq(m.import()), {Tensor::from(std::vector<uint8_t>{20, 50}, {1, 2})});
  // 10 * 1 + 40 * 2 + 100 = 190 of 0.05; 10 * 3 + 40 * 4 - 50 = 140 of 0.1.
  EXPECT_EQ((y.is_quantized() ? y.int_repr() : y).to_vector<uint8_t>(),
            (std::vector<uint8_t>{41, 59}));
}

TEST(OnnxInteger, QLinearWhere) {
  OnnxModel m;
  m.input("c", {4}, kBool).input("a", {4}, kUint8).input("b", {4}, kUint8);
  m.constant("as", Tensor::scalar(0.02))
      .constant("az", Tensor::scalar(100, DType::uint8))
      .constant("bs", Tensor::scalar(0.05))
      .constant("bz", Tensor::scalar(10, DType::uint8))
      .constant("ys", Tensor::scalar(0.1))
      .constant("yz", Tensor::scalar(50, DType::uint8));
  m.node("QLinearWhere", {"c", "a", "as", "az", "b", "bs", "bz", "ys", "yz"}, {"y"}, {}, "",
         kMicrosoft)
      .output("y", kUint8);
  const graph::Graph g = graph::merge_qdq(m.import());
  EXPECT_EQ(count_ops(g, "dequantize") + count_ops(g, "quantize"), 0) << graph::print(g);
  const Tensor y = run_one(g, {Tensor::from(std::vector<uint8_t>{1, 0, 1, 0}, {4}).to(DType::bool_),
                               Tensor::from(std::vector<uint8_t>{0, 100, 130, 255}, {4}),
                               Tensor::from(std::vector<uint8_t>{10, 20, 30, 42}, {4})});
  EXPECT_EQ(y.int_repr().to_vector<uint8_t>(), (std::vector<uint8_t>{30, 55, 56, 66}));
}

// Scales that are inputs: the sums and the rounding of the kernels, spelled out.
TEST(OnnxInteger, QLinearLayersOfScalesKnownAtRunTime) {
  const Tensor x = end_codes({1, 2, 3, 3}, 1, DType::uint8),
               w = end_codes({2, 2, 2, 2}, 2, DType::int8),
               b = Tensor::from(std::vector<int32_t>{1000, -2000}, {2});
  const Tensor ws = floats({0.01f, 0.003f}), wz = Tensor::zeros({2}, DType::int8),
               xs = Tensor::scalar(0.02), xz = Tensor::scalar(120, DType::uint8),
               ys = Tensor::scalar(0.9), yz = Tensor::scalar(99, DType::uint8);
  const std::vector<std::string> names{"x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"};
  OnnxModel known, unknown;
  known.input("x", {1, 2, 3, 3}, kUint8)
      .constant("xs", xs)
      .constant("xz", xz)
      .constant("ws", ws)
      .constant("wz", wz)
      .constant("ys", ys)
      .constant("yz", yz)
      .constant("w", w)
      .constant("b", b);
  unknown.input("x", {1, 2, 3, 3}, kUint8)
      .input("xs", {})
      .input("xz", {}, kUint8)
      .input("ws", {2})
      .input("wz", {2}, kInt8)
      .input("ys", {})
      .input("yz", {}, kUint8)
      .constant("w", w)
      .constant("b", b);
  const graph::Graph g =
      graph::merge_qdq(known.node("QLinearConv", names, {"y"}).output("y", kUint8).import());
  const graph::Graph h = unknown.node("QLinearConv", names, {"y"}).output("y", kUint8).import();
  EXPECT_EQ(count_ops(h, "conv_integer"), 1);
  expect_gives(h, {x, xs, xz, ws, wz, ys, yz}, run_one(g, {x}).int_repr());

  OnnxModel product;
  product.input("a", {2, 3}, kUint8)
      .input("as", {2})
      .input("az", {2}, kUint8)
      .constant("b", end_codes({3, 2}, 3, DType::int8))
      .constant("bs", floats({0.5f, 0.25f}))
      .constant("bz", Tensor::from(std::vector<int8_t>{1, 2}, {2}))
      .constant("ys", ys)
      .constant("yz", yz);
  product.node("QLinearMatMul", {"a", "as", "az", "b", "bs", "bz", "ys", "yz"}, {"y"})
      .output("y", kUint8);
  const Tensor a = end_codes({2, 3}, 4, DType::uint8), factor = end_codes({3, 2}, 3, DType::int8);
  const float as[] = {0.01f, 0.03f}, bs[] = {0.5f, 0.25f};
  const int64_t az[] = {3, 200}, bz[] = {1, 2};
  Tensor want = Tensor::zeros({2, 2}, DType::uint8);
  for (int64_t i = 0; i < 4; ++i) {
    int64_t sum = 0;
    for (int64_t p = 0; p < 3; ++p)
      sum += (value(a, {i / 2, p}) - az[i / 2]) * (value(factor, {p, i % 2}) - bz[i % 2]);
    const float m = as[i / 2] * bs[i % 2] / 0.9f;
    want.data<uint8_t>()[i] = static_cast<uint8_t>(
        std::clamp(std::nearbyint(static_cast<float>(sum) * m) + 99.0f, 0.0f, 255.0f));
  }
  expect_gives(product.import(),
               {a, floats({0.01f, 0.03f}), Tensor::from(std::vector<uint8_t>{3, 200}, {2})}, want);
}

TEST(OnnxInteger, QGemmToFloat) {
  OnnxModel m;
  m.input("a", {1, 2}, kUint8)
      .constant("as", Tensor::scalar(0.5))
      .constant("az", Tensor::scalar(10, DType::uint8))
      .constant("b", Tensor::from(std::vector<int8_t>{1, 2, 3, 4}, {2, 2}))
      .constant("bs", floats({0.1f, 0.2f}))
      .constant("bz", Tensor::zeros({2}, DType::int8))
      .constant("c", Tensor::from(std::vector<int32_t>{100, -50}, {2}));
  m.node("QGemm", {"a", "as", "az", "b", "bs", "bz", "c"}, {"y"},
         {{"transB", int64_t{1}}, {"alpha", 2.0}}, "", kMicrosoft)
      .output("y");
  const graph::Graph g = m.import();
  EXPECT_EQ(count_ops(g, "matmul_integer"), 1);
  EXPECT_EQ(run_one(g, {Tensor::from(std::vector<uint8_t>{20, 50}, {1, 2})}).to_vector<float>(),
            (Floats{190 * (0.5f * 2 * 0.1f), 140 * (0.5f * 2 * 0.2f)}));
}

// Rows of codes of 4 bits with a scale for each two of them.
TEST(OnnxInteger, GatherBlockQuantized) {
  for (bool zeros : {false, true}) {
    OnnxModel m(21);
    m.input("i", {2, 1}, kInt64)
        .constant("d", Tensor::from(std::vector<uint8_t>{0x10, 0x32, 0x98, 0xba, 0x54, 0x76},
                                    {3, 2}))  // rows 0 1 2 3, 8 9 10 11, 4 5 6 7
        .constant("s", Tensor::from(Floats{1, 2, 0.5f, 4, 3, 1}, {3, 2}))
        .constant("z", Tensor::from(std::vector<uint8_t>{0x21, 0x43, 0x65}, {3, 1}));
    m.node("GatherBlockQuantized", {"d", "i", "s", zeros ? "z" : ""}, {"y"},
           {{"gather_axis", int64_t{0}},
            {"quantize_axis", int64_t{1}},
            {"block_size", int64_t{2}},
            {"bits", int64_t{4}}},
           "", kMicrosoft)
        .output("y");
    const Tensor y = run_one(m.import(), {Tensor::from(std::vector<int64_t>{2, 1}, {2, 1})});
    EXPECT_EQ(y.shape(), (Shape{2, 1, 4}));
    EXPECT_EQ(y.to_vector<float>(), zeros ? (Floats{-3, 0, 0, 1, 2.5f, 3, 24, 28})
                                          : (Floats{-12, -9, -2, -1, 0, 0.5f, 8, 12}));
  }
}

}  // namespace
}  // namespace octet::testing
