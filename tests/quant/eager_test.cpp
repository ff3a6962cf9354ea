// Eager mode: what prepare, convert and quantize_dynamic put where, and every error they promise.
#include "octet/quant/workflow/eager.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using testing::expect_error;
namespace nnq = nn::quantized;

struct EagerNet : nn::Module {
  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc = slot("fc", nn::Linear(4 * 16, 5));
  nn::Slot dequant = slot("dequant", DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(relu(bn(conv(quant(x)))).flatten(1))); }
};

Tensor eager_batch(uint64_t seed) { return Tensor::randn({4, 3, 4, 4}, seed); }

std::shared_ptr<EagerNet> ready(const char* qconfig = "native") {
  manual_seed(1);
  auto net = nn::make<EagerNet>();
  for (uint64_t i = 0; i < 3; ++i) net->forward(eager_batch(100 + i));  // some running statistics
  net->eval();
  net->qconfig = get_default_qconfig(qconfig);
  return fuse_modules(net, {{"conv", "bn", "relu"}});
}

std::shared_ptr<EagerNet> calibrated(const char* qconfig = "native") {
  auto prepared = prepare(ready(qconfig));
  for (uint64_t i = 0; i < 4; ++i) prepared->forward(eager_batch(i));
  return prepared;
}

double error(const Tensor& a, const Tensor& b) {
  double most = 0;
  auto x = a.detach().to_vector<float>(), y = b.detach().to_vector<float>();
  for (size_t i = 0; i < x.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(x[i]) - y[i]));
  return most;
}

// -- prepare and convert --------------------------------------------------------------------------

TEST(Eager, PrepareObservesWhatWillBeQuantizedAndLeavesTheModelAlone) {
  auto net = ready();
  auto prepared = prepare(net);
  EXPECT_FALSE(net->has_submodule("conv.activation_post_process"));
  for (const char* path : {"quant", "conv", "fc"})
    EXPECT_EQ(prepared->submodule(std::string(path) + ".activation_post_process")->type_name(),
              "PercentileObserver")
        << path;
  for (const char* path : {"dequant", "relu", "bn"})
    EXPECT_FALSE(prepared->has_submodule(std::string(path) + ".activation_post_process")) << path;
  Tensor x = eager_batch(1);
  EXPECT_TRUE(equal(net->forward(x).detach(), prepared->forward(x).detach()))
      << "observers change nothing";
}

TEST(Eager, ActivationsMayHave16Bits) {
  const Tensor x = eager_batch(1);
  auto wide = convert(calibrated("a16w8")), eight = convert(calibrated());
  EXPECT_EQ(wide->quant(x).dtype(), DType::quint16);
  EXPECT_EQ(wide->conv(wide->quant(x)).dtype(), DType::quint16);
  const Tensor want = ready()->forward(x);
  EXPECT_LT(error(wide->forward(x), want), error(eight->forward(x), want));
}

TEST(Eager, ConvertPutsQuantizedModulesInTheSamePlaces) {
  auto int8 = convert(calibrated());
  EXPECT_EQ(int8->quant->type_name(), "Quantize");
  EXPECT_EQ(int8->conv->type_name(), "QuantizedConvReLU2d");
  EXPECT_EQ(int8->relu->type_name(), "Identity");
  EXPECT_EQ(int8->fc->type_name(), "QuantizedLinear");
  EXPECT_EQ(int8->dequant->type_name(), "DeQuantize");
  EXPECT_EQ(int8->fc.as<nnq::Linear>().weight().dtype(), DType::qint8);
  EXPECT_TRUE(int8->fc.as<nnq::Linear>().weight().quantizer()->is_per_channel());
}

TEST(Eager, TheConvertedModelIsNearTheFloatOne) {
  for (const char* qconfig : {"native", "fbgemm", "qnnpack", "onednn", "default_qconfig"}) {
    auto net = ready(qconfig);
    auto int8 = convert(calibrated(qconfig));
    Tensor x = eager_batch(2), expected = net->forward(x);
    EXPECT_LT(error(int8->forward(x), expected), 0.05) << qconfig;
  }
}

TEST(Eager, InPlaceWorksOnTheModelItself) {
  auto net = ready();
  auto prepared = prepare(net, {.inplace = true});
  EXPECT_EQ(prepared, net);
  net->forward(eager_batch(1));
  convert(net, {.inplace = true});
  EXPECT_EQ(net->fc->type_name(), "QuantizedLinear");
}

TEST(Eager, AQconfigOfNullptrLeavesAPartFloat) {
  struct Split : nn::Module {
    nn::Slot quant = slot("quant", QuantStub());
    nn::Slot conv1 = slot("conv1", nn::Conv2d(1, 1, 1));
    nn::Slot dequant = slot("dequant", DeQuantStub());
    nn::Slot conv2 = slot("conv2", nn::Conv2d(1, 1, 1));
    Tensor forward(Tensor x) override { return conv2(dequant(conv1(quant(x)))); }
  };
  auto m = nn::make<Split>();
  m->eval();
  m->qconfig = get_default_qconfig();
  m->conv2->qconfig = nullptr;
  auto prepared = prepare(m);
  prepared->forward(Tensor::randn({1, 1, 2, 2}, 1));
  ConversionReport report;
  auto int8 = convert(prepared, {.report = &report});
  EXPECT_EQ(int8->conv1->type_name(), "QuantizedConv2d");
  EXPECT_EQ(int8->conv2->type_name(), "Conv2d");
  ASSERT_EQ(report.left_float().size(), 1u);
  EXPECT_EQ(report.left_float()[0].node, "conv2");
  EXPECT_EQ(report.left_float()[0].reason, "its qconfig is nullptr");
  expect_error(ErrorCode::unsupported, {"strict", "conv2 (Conv2d): its qconfig is nullptr"},
               [&] { convert(prepared, {.strict = true}); });
}

TEST(Eager, QconfigsOfPartsOverrideThoseAround) {
  auto net = ready();
  net->fc->qconfig = get_default_qconfig("qnnpack");
  auto int8 = convert([&] {
    auto prepared = prepare(net);
    prepared->forward(eager_batch(1));
    return prepared;
  }());
  EXPECT_FALSE(int8->fc.as<nnq::Linear>().weight().quantizer()->is_per_channel());
  EXPECT_TRUE(int8->conv.as<nnq::ConvReLU2d>().weight().quantizer()->is_per_channel());
}

TEST(Eager, PropagateQconfigTakesPathsBeforeClasses) {
  auto net = nn::make<EagerNet>();
  QConfigSpec spec;
  spec.set("", default_qconfig())
      .set("fc", std::nullopt)
      .set_type<nn::Linear>(default_qconfig())
      .set_type<nn::Conv2d>(default_per_channel_qconfig());
  propagate_qconfig(*net, spec);
  EXPECT_EQ(std::any_cast<QConfig>(net->relu->qconfig), default_qconfig());
  EXPECT_EQ(std::any_cast<QConfig>(net->conv->qconfig), default_per_channel_qconfig());
  EXPECT_EQ(net->fc->qconfig.type(), typeid(nullptr));
}

TEST(Eager, OneModuleInTwoPlacesStaysOne) {
  // Trap: weight tying quantizes one use only.
  struct Tied : nn::Module {
    nn::Slot quant = slot("quant", QuantStub());
    nn::Slot a = slot("a", nn::Linear(4, 4));
    nn::Slot b = slot("b", a.get());
    nn::Slot dequant = slot("dequant", DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(b(a(quant(x)))); }
  };
  auto m = nn::make<Tied>();
  m->eval();
  m->qconfig = get_default_qconfig();
  auto prepared = prepare(m);
  ASSERT_EQ(prepared->a.get(), prepared->b.get());
  prepared->forward(Tensor::randn({3, 4}, 1));
  auto int8 = convert(prepared);
  EXPECT_EQ(int8->a->type_name(), "QuantizedLinear");
  EXPECT_EQ(int8->a.get(), int8->b.get());
  auto once = quantize_dynamic(m, types<nn::Linear>());
  EXPECT_EQ(once->a.get(), once->b.get());
}

TEST(Eager, HooksOfUsersSurviveTheSwap) {
  auto net = ready();
  int calls = 0;
  net->fc->add_forward_hook(
      "mine", [&](nn::Module&, const std::vector<Tensor>&, std::vector<Tensor>&) { ++calls; });
  auto prepared = prepare(net);
  prepared->forward(eager_batch(1));
  auto int8 = convert(prepared);
  calls = 0;
  int8->forward(eager_batch(1));
  EXPECT_EQ(calls, 1);
}

TEST(Eager, AQuantizedStateDictRestoresTheModel) {
  auto a = convert(calibrated());
  auto net = ready();
  net->apply([](nn::Module& m) { m.zero_grad(); });
  auto prepared = prepare(net);
  prepared->forward(eager_batch(77) * 3.0);
  auto b = convert(prepared);
  Tensor x = eager_batch(5);
  ASSERT_FALSE(equal(a->forward(x), b->forward(x)));
  b->load_state_dict(a->state_dict());
  EXPECT_TRUE(equal(a->forward(x), b->forward(x)));
}

TEST(Eager, LoadingAFloatStateDictIntoAQuantizedModelSaysWhatToDo) {
  auto net = ready();
  auto int8 = convert(calibrated());
  expect_error(ErrorCode::invalid_argument,
               {"fc.weight is float32 in the state dict and qint8 in the model",
                "before prepare and convert"},
               [&] { int8->load_state_dict(net->state_dict()); });
  expect_error(ErrorCode::invalid_argument,
               {"fc.weight is qint8 in the state dict and float32 in the model",
                "prepare and convert the model first"},
               [&] { net->load_state_dict(int8->state_dict()); });
}

TEST(Eager, APreparedStateDictRestoresCalibration) {
  auto a = calibrated();
  auto b = prepare(ready());
  b->load_state_dict(a->state_dict());
  Tensor x = eager_batch(5);
  EXPECT_TRUE(equal(convert(a)->forward(x), convert(b)->forward(x)));
}

TEST(Eager, FunctionsWithAKnownRangeHaveFixedQParams) {
  struct Bounded : nn::Module {
    nn::Slot quant = slot("quant", QuantStub());
    nn::Slot sigmoid = slot("sigmoid", nn::Sigmoid());
    nn::Slot tanh = slot("tanh", nn::Tanh());
    nn::Slot dequant = slot("dequant", DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(tanh(sigmoid(quant(x)))); }
  };
  auto m = nn::make<Bounded>();
  m->eval();
  m->qconfig = get_default_qconfig();
  auto prepared = prepare(m);
  prepared->forward(Tensor::randn({3, 4}, 1));
  auto int8 = convert(prepared);
  EXPECT_EQ(int8->sigmoid.as<nnq::Sigmoid>().scale, 1.0 / 256);
  EXPECT_EQ(int8->sigmoid.as<nnq::Sigmoid>().zero_point, 0);
  EXPECT_EQ(int8->tanh.as<nnq::Tanh>().scale, 1.0 / 128);
  EXPECT_EQ(int8->tanh.as<nnq::Tanh>().zero_point, 128);
}

TEST(Eager, TheModelItselfMayBeSwapped) {
  nn::ModulePtr linear = nn::make<nn::Linear>(3, 2);
  auto dynamic = quantize_dynamic(linear);
  EXPECT_EQ(dynamic->type_name(), "DynamicQuantizedLinear");
  expect_error(ErrorCode::invalid_argument, {"the model itself became a DynamicQuantizedLinear"},
               [] { quantize_dynamic(nn::make<nn::Linear>(3, 2)); });
}

TEST(Eager, AQuantWrapperSuppliesTheStubs) {
  auto conv = nn::make<nn::Conv2d>(1, 2, 1);
  conv->eval();
  conv->qconfig = get_default_qconfig();
  auto wrapped = nn::make<QuantWrapper>(conv);
  auto prepared = prepare(wrapped);
  Tensor x = Tensor::randn({2, 1, 3, 3}, 1);
  prepared->forward(x);
  auto int8 = convert(prepared);
  EXPECT_EQ(int8->submodule("module")->type_name(), "QuantizedConv2d");
  EXPECT_LT(error(int8->forward(x), conv->forward(x)), 0.05);
}

// -- FloatFunctional ------------------------------------------------------------------------------

struct EagerResidual : nn::Module {
  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot a = slot("a", nn::Linear(4, 4));
  nn::Slot skip = slot("skip", nnq::FloatFunctional());
  nn::Slot join = slot("join", nnq::FloatFunctional());
  nn::Slot dequant = slot("dequant", DeQuantStub());
  Tensor forward(Tensor x) override {
    x = quant(x);
    Tensor y = skip.as<nnq::FloatFunctional>().add_relu(a(x), x);
    return dequant(join.as<nnq::FloatFunctional>().cat({x, y}, 1));
  }
};

TEST(Eager, FloatFunctionalsBecomeQFunctionals) {
  auto m = nn::make<EagerResidual>();
  m->eval();
  m->qconfig = get_default_qconfig();
  auto prepared = prepare(m);
  Tensor x = Tensor::randn({6, 4}, 1);
  prepared->forward(x);
  auto int8 = convert(prepared);
  EXPECT_EQ(int8->skip->type_name(), "QFunctional");
  EXPECT_LT(error(int8->forward(x), m->forward(x)), 0.1);
}

TEST(Eager, NumbersChangeQParamsAsInPyTorch) {
  nnq::QFunctional f(0.05, 3);
  Tensor x = quantize_per_tensor(Tensor::from<float>({-1, 0, 0.5, 2}), 0.02, 60, DType::quint8);
  Tensor y = f.add_scalar(x, 0.5);
  EXPECT_EQ(y.q_zero_point(), 35);
  EXPECT_EQ(y.int_repr().to_vector<uint8_t>(), x.int_repr().to_vector<uint8_t>());
  y = f.add_scalar(x, 3.0);
  EXPECT_NEAR(y.q_scale(), 0.027058823529411767, 1e-12);
  EXPECT_EQ(y.int_repr().to_vector<uint8_t>(), (std::vector<uint8_t>{74, 111, 129, 185}));
  y = f.mul_scalar(x, -0.5);
  EXPECT_EQ(y.q_zero_point(), 195);
  EXPECT_EQ(y.int_repr().to_vector<uint8_t>(), (std::vector<uint8_t>{245, 195, 170, 95}));
}

// -- dynamic and weight-only ----------------------------------------------------------------------

TEST(Eager, DynamicQuantizationSelectsByClassOrPath) {
  auto seq = nn::make<nn::Sequential>(nn::Linear(4, 4), nn::ReLU(), nn::Linear(4, 2));
  auto all = quantize_dynamic(seq);
  EXPECT_EQ(all->submodule("0")->type_name(), "DynamicQuantizedLinear");
  EXPECT_EQ(all->submodule("2")->type_name(), "DynamicQuantizedLinear");
  auto one = quantize_dynamic(seq, QConfigSpec().set("2", per_channel_dynamic_qconfig()));
  EXPECT_EQ(one->submodule("0")->type_name(), "Linear");
  EXPECT_TRUE(
      one->submodule("2")->as<nnq::dynamic::Linear>().weight().quantizer()->is_per_channel());
  Tensor x = Tensor::randn({5, 4}, 3);
  EXPECT_LT(error(all->forward(x), seq->forward(x)), 0.05);
}

TEST(Eager, DynamicConvolutionsExistToo) {
  auto seq = nn::make<nn::Sequential>(nn::Conv2d(2, 3, 3), nn::Conv2d(3, 2, 1));
  auto dynamic = quantize_dynamic(seq, types<nn::Conv2d>());
  EXPECT_EQ(dynamic->submodule("0")->type_name(), "DynamicQuantizedConv2d");
  Tensor x = Tensor::randn({2, 2, 5, 5}, 3);
  EXPECT_LT(error(dynamic->forward(x), seq->forward(x)), 0.05);
}

TEST(Eager, Float16WeightsHalveTheFileAndComputeInFloat) {
  auto seq = nn::make<nn::Sequential>(nn::Linear(4, 4));
  auto half = quantize_dynamic(seq, {}, DType::float16);
  EXPECT_EQ(half->submodule("0")->as<nnq::dynamic::Linear>().weight().dtype(), DType::float16);
  Tensor x = Tensor::randn({5, 4}, 3);
  EXPECT_LT(error(half->forward(x), seq->forward(x)), 0.002);
}

TEST(Eager, WeightOnlyComputesInFloatOnDequantizedWeights) {
  auto seq = nn::make<nn::Sequential>(nn::Linear(4, 4));
  auto quantized = quantize_weight_only(seq);
  auto& linear = quantized->submodule("0")->as<nnq::weight_only::Linear>();
  Tensor x = Tensor::randn({5, 4}, 3);
  Tensor expected = functional::linear(x, linear.weight().dequantize(), linear.bias());
  EXPECT_LT(error(quantized->forward(x), expected), 1e-6);  // the order of float sums
}

TEST(Eager, AClassWithoutADynamicFormIsAnError) {
  auto seq = nn::make<nn::Sequential>(nn::Linear(4, 4), nn::ReLU());
  expect_error(ErrorCode::unsupported, {"ReLU modules cannot be quantized so", "Linear"}, [&] {
    quantize_dynamic(seq, QConfigSpec().set_type<nn::ReLU>(default_dynamic_qconfig()));
  });
  expect_error(ErrorCode::not_found, {"class Conv2d", "has no such module"},
               [&] { quantize_dynamic(seq, types<nn::Conv2d>()); });
  expect_error(ErrorCode::invalid_argument, {"no module that can be quantized"},
               [] { quantize_dynamic(nn::make<nn::Sequential>(nn::ReLU())); });
}

// -- custom modules -------------------------------------------------------------------------------

struct CustomModule : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(3, 3));
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    Tensor y = linear(in[0]);
    return {y, y * 2.0};
  }
  Tensor forward(Tensor x) override { return forward(std::vector<Tensor>{x})[0]; }
};
struct ObservedCustomModule : nn::Module {
  explicit ObservedCustomModule(nn::ModulePtr m) { add_child("linear", std::move(m)); }
  static std::shared_ptr<ObservedCustomModule> from_float(CustomModule& m) {
    auto observed = nn::make<ObservedCustomModule>(m.linear.get());
    observed->qconfig = m.qconfig;
    return observed;
  }
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    Tensor y = (*submodule("linear"))(in[0]);
    return {y, y * 2.0};
  }
  Tensor forward(Tensor x) override { return (*submodule("linear"))(x); }
};
struct QuantCustomModule : nn::Module {
  explicit QuantCustomModule(nn::ModulePtr m) { add_child("linear", std::move(m)); }
  static std::shared_ptr<QuantCustomModule> from_observed(ObservedCustomModule& m) {
    nn::Module& linear = *m.submodule("linear");
    linear.add_child("activation_post_process", m.submodule("activation_post_process"));
    return nn::make<QuantCustomModule>(nnq::Linear::from_float(linear));
  }
  Tensor forward(Tensor x) override { return (*submodule("linear"))(x); }
};

EagerOptions custom_options() {
  EagerOptions options;
  options.custom.float_to_observed_custom_module_class<CustomModule, ObservedCustomModule>();
  options.custom
      .observed_to_quantized_custom_module_class<ObservedCustomModule, QuantCustomModule>();
  return options;
}

TEST(Eager, CustomModulesAreSwappedAsTheirUsersSay) {
  auto m = nn::make<nn::Sequential>(QuantStub(), CustomModule(), DeQuantStub());
  m->eval();
  m->qconfig = default_qconfig();
  auto prepared = prepare(m, custom_options());
  EXPECT_EQ(prepared->submodule("1")->type_name(), "ObservedCustomModule");
  Tensor x = Tensor::randn({4, 3}, 1);
  prepared->forward(x);
  auto int8 = convert(prepared, custom_options());
  EXPECT_EQ(int8->submodule("1")->type_name(), "QuantCustomModule");
  EXPECT_EQ(int8->submodule("1.linear")->type_name(), "QuantizedLinear");
  EXPECT_LT(error(int8->forward(x), m->forward(x)), 0.1);
}

TEST(Eager, EveryResultOfACustomModuleIsObserved) {
  // PyTorch requires a single tensor.
  auto m = nn::make<nn::Sequential>(CustomModule());
  m->eval();
  m->qconfig = default_qconfig();
  auto prepared = prepare(m, custom_options());
  (*prepared)(std::vector<Tensor>{Tensor::randn({4, 3}, 1)});
  auto& first = prepared->submodule("0.activation_post_process")->as<Observer>();
  auto& second = prepared->submodule("0.activation_post_process_1")->as<Observer>();
  EXPECT_EQ(2 * first.max_val().item(), second.max_val().item());
}

// -- errors, each a trap of docs/traps.md ---------------------------------------------------------

TEST(EagerTraps, ConvertWithoutCalibration) {
  auto prepared = prepare(ready());
  expect_error(ErrorCode::not_calibrated,
               {"3 observers saw no data", "quant (PercentileObserver)",
                "conv (PercentileObserver)", "fc (PercentileObserver)"},
               [&] { convert(prepared); });
}

TEST(EagerTraps, ModelWithoutAnyQconfig) {
  auto net = nn::make<EagerNet>();
  net->eval();
  expect_error(ErrorCode::invalid_argument,
               {"no module of EagerNet has a qconfig", "get_default_qconfig"},
               [&] { prepare(net); });
  expect_error(ErrorCode::invalid_argument, {"nothing in EagerNet was prepared"},
               [&] { convert(net); });
}

TEST(EagerTraps, ANameInTheMappingThatMatchesNothing) {
  auto net = nn::make<EagerNet>();
  expect_error(ErrorCode::not_found, {"qconfig for 'cnv'", "did you mean 'conv'"},
               [&] { propagate_qconfig(*net, QConfigSpec().set("cnv", default_qconfig())); });
}

TEST(EagerTraps, PrepareTwice) {
  auto prepared = prepare(ready());
  expect_error(ErrorCode::invalid_argument, {"prepared already", "activation_post_process"},
               [&] { prepare(prepared); });
}

TEST(EagerTraps, TheWrongMode) {
  auto net = ready();
  net->train();
  expect_error(ErrorCode::invalid_argument, {"training mode", "eval()"}, [&] { prepare(net); });
  net->eval();
  net->qconfig = get_default_qat_qconfig();
  expect_error(ErrorCode::invalid_argument, {"eval mode", "train()"}, [&] { prepare_qat(net); });
}

struct NoStub : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(1, 1, 1));
  Tensor forward(Tensor x) override { return conv(x); }
};

TEST(EagerTraps, AFloatTensorIntoAQuantizedModule) {
  auto m = nn::make<NoStub>();
  m->eval();
  m->qconfig = get_default_qconfig();
  auto prepared = prepare(m);
  prepared->forward(Tensor::randn({1, 1, 2, 2}, 1));
  expect_error(ErrorCode::invalid_argument,
               {"'conv' (Conv2d) will be quantized but its input stays float32", "QuantStub"},
               [&] { convert(prepared); });
}

TEST(EagerTraps, AQuantizedTensorIntoAFloatModule) {
  struct NoDequant : nn::Module {
    nn::Slot quant = slot("quant", QuantStub());
    nn::Slot conv1 = slot("conv1", nn::Conv2d(1, 1, 1));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot conv2 = slot("conv2", nn::Conv2d(1, 1, 1));
    Tensor forward(Tensor x) override { return conv2(relu(conv1(quant(x)))); }
  };
  auto m = nn::make<NoDequant>();
  m->eval();
  m->qconfig = get_default_qconfig();
  m->conv2->qconfig = nullptr;
  auto prepared = prepare(m);
  prepared->forward(Tensor::randn({1, 1, 2, 2}, 1));
  expect_error(
      ErrorCode::invalid_argument,
      {"'conv2' (Conv2d) stays float but its input will be quantized, from 'conv1'", "DeQuantStub"},
      [&] { convert(prepared); });
}

TEST(EagerTraps, AdditionWithoutAFloatFunctional) {
  struct Inner : nn::Module {
    nn::Slot a = slot("a", nn::Linear(2, 2));
    Tensor forward(Tensor x) override { return a(x) + x; }
  };
  struct Adds : nn::Module {
    nn::Slot quant = slot("quant", QuantStub());
    nn::Slot block = slot("block", Inner());
    nn::Slot dequant = slot("dequant", DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(block(quant(x))); }
  };
  auto m = nn::make<Adds>();
  m->eval();
  m->qconfig = get_default_qconfig();
  auto prepared = prepare(m);
  prepared->forward(Tensor::randn({2, 2}, 1));
  expect_error(ErrorCode::invalid_argument,
               {"add in 'block' gets operands that will be (quantized from 'block.a', quantized "
                "from 'quant')",
                "FloatFunctional::add"},
               [&] { convert(prepared); });
}

TEST(EagerTraps, AQuantizedModuleGivenFloatsSaysSo) {
  auto int8 = convert(calibrated());
  expect_error(ErrorCode::invalid_argument, {"QuantizedLinear", "Float(1, 64)", "QuantStub"}, [&] {
    int8->fc(Tensor::randn({1, 64}, 1));
  });
}

// -- QAT ------------------------------------------------------------------------------------------

std::shared_ptr<EagerNet> qat_ready() {
  manual_seed(1);
  auto net = nn::make<EagerNet>();
  net->train();
  net->qconfig = get_default_qat_qconfig();
  return fuse_modules_qat(net, {{"conv", "bn", "relu"}});
}

TEST(EagerQat, PrepareFakeQuantizesWeightsAndResults) {
  auto prepared = prepare_qat(qat_ready());
  EXPECT_EQ(prepared->conv->type_name(), "ConvBnReLU2d");
  EXPECT_TRUE(dynamic_cast<nn::qat::ConvBnReLU2d*>(prepared->conv.get().get()));
  EXPECT_EQ(prepared->fc->type_name(), "Linear");
  EXPECT_EQ(prepared->submodule("fc.weight_fake_quant")->type_name(),
            "FusedMovingAvgObsFakeQuantize");
  EXPECT_EQ(prepared->submodule("quant.activation_post_process")->type_name(),
            "FusedMovingAvgObsFakeQuantize");
}

TEST(EagerQat, GradientsReachTheParameters) {
  auto prepared = prepare_qat(qat_ready());
  autograd::backward(functional::sum(prepared->forward(eager_batch(1)) * Tensor::randn({4, 5}, 2)));
  for (const char* name :
       {"conv.weight", "conv.bias", "conv.bn.weight", "conv.bn.bias", "fc.weight", "fc.bias"}) {
    Tensor* found = nullptr;
    for (auto& [path, tensor] : prepared->named_parameters())
      if (path == name) found = tensor;
    ASSERT_TRUE(found) << name;
    EXPECT_TRUE(autograd::grad(*found).defined()) << name;
  }
}

TEST(EagerQat, TheConvertedModelIsTheTrainedOneToAStep) {
  auto prepared = prepare_qat(qat_ready());
  for (uint64_t i = 0; i < 5; ++i) prepared->forward(eager_batch(i));
  prepared->eval();
  prepared->apply(disable_observer);
  auto int8 = convert(prepared);
  EXPECT_EQ(int8->conv->type_name(), "QuantizedConvReLU2d");
  for (uint64_t i = 0; i < 5; ++i) {
    Tensor x = eager_batch(10 + i);
    EXPECT_LE(error(int8->forward(x), prepared->forward(x)),
              1.01 * int8->fc.as<nnq::Linear>().scale);
  }
}

TEST(EagerQat, AGammaOfZeroGivesNoNaN) {
  auto prepared = prepare_qat(qat_ready());
  prepared->conv.as<nn::qat::ConvBnReLU2d>().bn.as<nn::BatchNorm2d>().weight.data<float>()[1] = 0;
  Tensor y = prepared->forward(eager_batch(1));
  autograd::backward(functional::sum(y));
  for (float v : y.detach().to_vector<float>()) EXPECT_TRUE(std::isfinite(v));
  auto& bn = prepared->conv.as<nn::qat::ConvBnReLU2d>().bn.as<nn::BatchNorm2d>();
  for (float v : autograd::grad(bn.weight).to_vector<float>()) EXPECT_TRUE(std::isfinite(v));
  prepared->eval();
  Tensor x = eager_batch(3);
  auto int8 = convert(prepared);
  EXPECT_LE(error(int8->forward(x), prepared->forward(x)), 2.01 * int8->fc.as<nnq::Linear>().scale);
}

TEST(EagerQat, FrozenStatisticsStand) {
  auto prepared = prepare_qat(qat_ready());
  prepared->forward(eager_batch(1));
  auto& bn = prepared->conv.as<nn::qat::ConvBnReLU2d>().bn.as<nn::BatchNorm2d>();
  auto mean = bn.running_mean.to_vector<float>();
  freeze_bn_stats(*prepared);
  prepared->train();
  prepared->forward(eager_batch(2));
  EXPECT_EQ(mean, bn.running_mean.to_vector<float>());
  update_bn_stats(*prepared);
  prepared->forward(eager_batch(3));
  EXPECT_NE(mean, bn.running_mean.to_vector<float>());
}

TEST(EagerQat, AQconfigWithoutFakeQuantizeIsRefused) {
  auto net = qat_ready();
  net->qconfig = get_default_qconfig();
  for (auto& [path, module] : net->named_modules())
    if (!path.empty()) module->qconfig.reset();
  expect_error(ErrorCode::invalid_argument, {"weight is fake-quantized", "get_default_qat_qconfig"},
               [&] { prepare_qat(net); });
}

TEST(EagerQat, QuantizeQatRunsTheWholeRoad) {
  auto int8 = quantize_qat<EagerNet>(qat_ready(), [](EagerNet& m) { m.forward(eager_batch(1)); });
  EXPECT_EQ(int8->fc->type_name(), "QuantizedLinear");
  auto ptq = quantize<EagerNet>(ready(), [](EagerNet& m) { m.forward(eager_batch(1)); });
  EXPECT_EQ(ptq->fc->type_name(), "QuantizedLinear");
}

TEST(EagerQat, DynamicLayersTrainWithTheirInputsFakeQuantized) {
  auto m = nn::make<nn::Sequential>(nn::Linear(4, 4));
  m->qconfig = default_dynamic_qat_qconfig();
  m->train();
  auto prepared = prepare_qat(m);
  Tensor x = Tensor::randn({8, 4}, 1);
  Tensor trained = prepared->forward(x);
  EXPECT_FALSE(equal(trained.detach(), m->forward(x).detach()));
  prepared->eval();
  auto dynamic = convert(prepared);
  EXPECT_EQ(dynamic->submodule("0")->type_name(), "DynamicQuantizedLinear");
  EXPECT_LT(error(dynamic->forward(x), trained), 0.02);
}

TEST(EagerQat, WeightOnlyLayersTrainToo) {
  auto m = nn::make<nn::Sequential>(nn::Linear(4, 4));
  m->qconfig = default_weight_only_qconfig();
  m->train();
  auto prepared = prepare_qat(m);
  Tensor x = Tensor::randn({8, 4}, 1);
  Tensor trained = prepared->forward(x);
  prepared->eval();
  auto converted = convert(prepared);
  EXPECT_EQ(converted->submodule("0")->type_name(), "WeightOnlyQuantizedLinear");
  EXPECT_LT(error(converted->forward(x), trained), 1e-5);
}

}  // namespace
}  // namespace octet::quant
