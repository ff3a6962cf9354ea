#include "octet/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>

#include "octet/base/error.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/op.h"
#include "tests/engine/defaults.h"

namespace octet {
namespace {

OpSpec linear_spec(const Tensor& x, const Tensor& w, const Tensor& b, const TensorType& y) {
  const ops::Op& op = ops::get("linear");
  return ops::make_spec(op, op.complete({}), {x.type(), w.type(), b.type()}, {Tensor(), w, b}, {y},
                        "fc");
}

}  // namespace

TEST(Engine, KnownNamesAreAccepted) {
  for (const char* name : {"reference", "fbgemm", "x86", "native"}) set_engine(name);
  EXPECT_EQ(engine(), "native");
}

TEST(Engine, UnknownNameIsAnErrorThatListsTheKnownOnes) {
  try {
    set_engine("nativ");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("did you mean 'native'"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("reference"), std::string::npos);
  }
}

TEST(Engine, WorkIsNativeUnlessAnotherEngineIsAskedFor) {
  Tensor x = quantize_per_tensor(Tensor::rand({2, 8}, 1), 0.01, 0, DType::quint8);
  Tensor w = quantize_per_tensor(Tensor::randn({4, 8}, 2), 0.02, 0, DType::qint8),
         b = Tensor::zeros({4});
  TensorType y(DType::quint8, Shape{2, 4}, Quantizer::per_tensor(0.1, 128, DType::quint8));
  EXPECT_EQ(make_kernel(linear_spec(x, w, b, y))->engine(), "native");
  OpSpec plain =
      linear_spec(x.dequantize(), w.dequantize(), b, TensorType(DType::float32, Shape{2, 4}));
  EXPECT_EQ(make_kernel(plain)->engine(), "native");
  EXPECT_EQ(make_kernel(plain, "onednn")->engine(), "onednn");
  const OpSpec relu = ops::make_spec(ops::get("relu"), {}, {x.type()}, {}, {x.type()}, "relu");
  EXPECT_EQ(make_kernel(relu, "onednn")->engine(), "native");  // which it lacks
  EXPECT_EQ(make_kernel(plain, "reference")->engine(), "reference");
}

// An int32 bias of scale s_x*s_w (as QDQ files have it) is used as it is, beyond what float32 could
// hold.
TEST(Engine, AnInt32BiasKeepsAllItsBits) {
  Tensor x = quantize_per_tensor(Tensor::zeros({1, 4}), 0.5, 0, DType::quint8);
  Tensor w = quantize_per_tensor(Tensor::zeros({1, 4}), 0.25, 0, DType::qint8);
  Tensor b = make_quantized(Tensor::from<int32_t>({(1 << 24) + 1}),
                            Quantizer::per_tensor(0.125, 0, DType::qint32));
  // y = f(acc) * m with m = 2^-20: codes cannot show the lowest bit, so compare with the float path
  // one step apart.
  Tensor y = ops::call(
      "linear", {x, w, b}, {},
      ops::QType{DType::quint8, Quantizer::per_tensor(0.125 * (1 << 20), 0, DType::quint8)});
  EXPECT_EQ(y.int_repr().item(), 16);
}

// traps.md: "packed weights reused with another output scale give wrong results (qnnpack)".
TEST(Engine, PackedWeightsDoNotDependOnTheOutputsQParams) {
  Tensor x = quantize_per_tensor(Tensor::rand({3, 16}, 1), 0.01, 3, DType::quint8);
  Tensor w = quantize_per_tensor(Tensor::randn({5, 16}, 2), 0.02, 0, DType::qint8),
         b = Tensor::randn({5}, 3);
  for (double scale : {0.01, 0.1, 1.0}) {
    ops::QType want{DType::quint8, Quantizer::per_tensor(scale, 100, DType::quint8)};
    Tensor native = ops::call("linear", {x, w, b}, {}, want);
    set_engine("reference");
    Tensor reference = ops::call("linear", {x, w, b}, {}, want);
    set_engine("native");
    EXPECT_TRUE(equal(native, reference)) << scale;
  }
}

// The kernels kept with a weight belong to the instruction set that they were made for: a test that
// goes from one to the next with the same operands runs all of them.
TEST(Engine, AWeightIsPackedAnewForAnotherInstructionSet) {
  testing::Defaults defaults;
  static const kernels::KernelTable& scalar = kernels::table(Isa::scalar);
  static std::atomic<int> calls;
  calls = 0;
  set_isa(Isa::scalar);
  const Tensor x = quantize_per_tensor(Tensor::rand({3, 16}, 1), 0.01, 3, DType::quint8);
  const Tensor w = quantize_per_tensor(Tensor::randn({5, 16}, 2), 0.02, 0, DType::qint8);
  const ops::QType want{DType::quint8, Quantizer::per_tensor(0.1, 100, DType::quint8)};
  const Tensor first = ops::call("linear", {x, w, Tensor()}, {}, want);
  kernels::KernelTable other = scalar;
  other.gemm = [](const kernels::GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    ++calls;
    scalar.gemm(g, m0, m1, n0, n1);
  };
  kernels::use_table(&other);
  const Tensor second = ops::call("linear", {x, w, Tensor()}, {}, want);
  kernels::use_table(nullptr);
  EXPECT_GT(calls, 0);
  EXPECT_TRUE(equal(first, second));
  calls = 0;
  ops::call("linear", {x, w, Tensor()}, {}, want);
  EXPECT_EQ(calls, 0);
}

// traps.md: "avg_pool ignores count_include_pad=False (qnnpack, 122 steps off)".
TEST(Engine, AveragePoolHonoursCountIncludePad) {
  Tensor x = quantize_per_tensor(Tensor::full({1, 1, 2, 2}, 10), 0.1, 0, DType::quint8);
  Attrs attrs{{"kernel", std::vector<int64_t>{2, 2}},
              {"stride", std::vector<int64_t>{2, 2}},
              {"padding", std::vector<int64_t>{1, 1, 1, 1}}};
  for (const char* name : {"native", "reference"}) {
    set_engine(name);
    attrs.set("count_include_pad", false);
    EXPECT_FLOAT_EQ(static_cast<float>(ops::call("avg_pool2d", {x}, attrs).at({0, 0, 0, 0})),
                    10.0f);
    attrs.set("count_include_pad", true);
    EXPECT_FLOAT_EQ(static_cast<float>(ops::call("avg_pool2d", {x}, attrs).at({0, 0, 0, 0})), 2.5f);
  }
  set_engine("native");
}

// A file could say so; floats must not be written where codes belong.
TEST(Engine, FloatOperandsCannotHaveAQuantizedResult) {
  ops::QType want{DType::quint8, Quantizer::per_tensor(0.1, 0, DType::quint8)};
  EXPECT_THROW(ops::call("linear", {Tensor::rand({2, 8}, 1), Tensor::rand({4, 8}, 2)}, {}, want),
               Error);
  EXPECT_THROW(
      ops::call("conv2d", {Tensor::rand({1, 2, 3, 3}, 1), Tensor::rand({4, 2, 1, 1}, 2)}, {}, want),
      Error);
  TensorType y(DType::quint8, Shape{2, 4}, want.quantizer);
  Tensor x = Tensor::rand({2, 8}, 1), w = Tensor::rand({4, 8}, 2), b = Tensor::zeros({4});
  for (const char* name : {"native", "reference"})
    EXPECT_EQ(make_kernel(linear_spec(x, w, b, y), name), nullptr);
}

// traps.md: "quantized tensor into a float op or the reverse".
TEST(Engine, MixingFloatAndQuantizedOperandsIsAnErrorThatNamesBothTypes) {
  Tensor x = Tensor::rand({2, 8}, 1),
         w = quantize_per_tensor(Tensor::randn({4, 8}, 2), 0.02, 0, DType::qint8);
  try {
    ops::call("linear", {x, w});
    FAIL();
  } catch (const Error& e) {
    std::string message = e.what();
    EXPECT_NE(message.find("Float(2, 8)"), std::string::npos) << message;
    EXPECT_NE(message.find("QInt8(4, 8)"), std::string::npos) << message;
    EXPECT_NE(message.find("QuantStub"), std::string::npos) << message;
  }
}

}  // namespace octet
