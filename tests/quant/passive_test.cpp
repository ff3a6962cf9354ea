#include "octet/quant/observe/passive.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/quant/observe/factory.h"

namespace octet::quant {
namespace {

Error error_of(auto&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode::internal, "no error");
}

}  // namespace

TEST(FixedQParamsObserver, AnswersWithoutDataAndIgnoresIt) {
  FixedQParamsObserver o({.scale = 1.0 / 256, .zero_point = 0}, "sigmoid");
  o.observe(Tensor::from({-1e9f, NAN}));
  QParams q = o.calculate_qparams();
  EXPECT_EQ(q.quantizer->scale(), 1.0 / 256);
  EXPECT_EQ(q.quantizer->zero_point(), 0);
  EXPECT_EQ(q.dtype, DType::quint8);
  EXPECT_EQ(q.quant_max, 255);
  EXPECT_TRUE(q.warnings.empty());
  EXPECT_EQ(to_string(o), "FixedQParamsObserver(scale=0.00390625, zero_point=0)");
}

TEST(FixedQParamsObserver, ChecksItsQParams) {
  const std::pair<ObserverOptions, const char*> table[] = {
      {{}, "FixedQParamsObserver of 'x': give scale and zero_point; got ()"},
      {{.scale = 0.1}, "FixedQParamsObserver of 'x': give scale and zero_point; got (scale=0.1)"},
      {{.scale = 0.1, .zero_point = 256},
       "FixedQParamsObserver of 'x': zero_point 256; expected one of the codes 0..255"},
      {{.qscheme = ObserverScheme::per_channel_affine, .scale = 0.1, .zero_point = 0},
       "FixedQParamsObserver of 'x': qscheme per_channel_affine; expected per_tensor_affine or "
       "per_tensor_symmetric"},
      {{.dtype = DType::float32, .scale = 0.1, .zero_point = 0},
       "FixedQParamsObserver of 'x': dtype float32; expected quint8, qint8, quint16, qint16 or "
       "qint32"}};
  for (const auto& [options, message] : table)
    EXPECT_STREQ(error_of([&] { FixedQParamsObserver o(options, "x"); }).what(), message);
  EXPECT_THROW(FixedQParamsObserver({.scale = -1.0, .zero_point = 0}), Error);
  EXPECT_NE(
      std::string(error_of([] { make_observer("minmax", {.scale = 0.1, .zero_point = 0}); }).what())
          .find("for FixedQParamsObserver"),
      std::string::npos);
}

TEST(PassiveObservers, CarryTheirOptionsAndChooseNothing) {
  for (const char* name : {"placeholder", "noop", "reuse-input", "identity", "recording"}) {
    auto o = make_observer(name, {.dtype = DType::float16}, "fc");
    EXPECT_FALSE(o->chooses_qparams());
    Tensor x = Tensor::from({1.0f, NAN});
    EXPECT_EQ(o->forward(x).raw_data(), x.raw_data());
    o->observe(quantize_per_tensor(Tensor::ones({2}), 0.1, 0, DType::quint8));
    Error e = error_of([&] { o->calculate_qparams(); });
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(e.what()).find("of 'fc' chooses no qparams"), std::string::npos);
    EXPECT_EQ(o->options().dtype, DType::float16);
    o->clone()->as<Observer>().merge(*o);
    EXPECT_FALSE(ObserverFactory(name).chooses_qparams());
  }
  EXPECT_EQ(to_string(*make_observer("placeholder", {.dtype = DType::float16, .is_dynamic = true})),
            "PlaceholderObserver(dtype=float16, is_dynamic=true)");
  EXPECT_EQ(ObserverFactory("placeholder").options().dtype, DType::float32);
  EXPECT_EQ(ObserverFactory("noop").options().dtype, DType::float16);
  EXPECT_TRUE(ObserverFactory("histogram").chooses_qparams());
  EXPECT_FALSE(ObserverFactory().chooses_qparams());
}

TEST(RecordingObserver, KeepsCopiesInOrder) {
  RecordingObserver o, more;
  EXPECT_TRUE(o.empty());
  Tensor x = Tensor::from({1.0f, 2.0f});
  o.observe(x);
  x.data<float>()[0] = 9;  // the copy is not touched
  o.observe(Tensor::zeros({0, 3}));
  Tensor q = quantize_per_tensor(x, 0.5, 3, DType::quint8);
  more.observe(q);
  o.merge(more);
  ASSERT_EQ(o.get_tensor_value().size(), 3u);
  EXPECT_EQ(o.get_tensor_value()[0].at({0}), 1);
  EXPECT_EQ(o.get_tensor_value()[1].shape(), (Shape{0, 3}));
  EXPECT_TRUE(equal(o.get_tensor_value()[2], q));
  EXPECT_EQ(to_string(o), "RecordingObserver(3 tensors)");
  o.reset();
  EXPECT_TRUE(o.empty());
}

}  // namespace octet::quant
