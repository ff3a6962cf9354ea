// Converting a model that was never calibrated, to load a state dict into it; calls of forward on
// prepared models; weights that need no data; Slot::add and its like; and models that nn::make did
// not make.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/io/module_file.h"
#include "octet/io/state_dict.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::for_loading_test {
namespace {

using testing::expect_error;
using testing::TempDir;

struct M : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(linear(x)); }
};

// With stubs and an operation between tensors, for eager mode. Submodules are called by forward.
struct Skip : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot skip = slot("skip", quant::FloatFunctional());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = quant->forward(x);
    return dequant->forward(skip.add(x, linear->forward(x)));
  }
};

Tensor data(uint64_t seed) { return Tensor::randn({5, 5}, seed); }

template <typename Net>
std::shared_ptr<Net> ready() {
  auto model = nn::make<Net>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  return model;
}
const quant::QConfigMapping mapping =
    quant::QConfigMapping().set_global(quant::get_default_qconfig());

std::vector<uint8_t> bytes(const Tensor& x) {
  const auto* p = reinterpret_cast<const uint8_t*>(x.data<float>());
  return {p, p + x.numel() * 4};
}

// -- forward on prepared models -------------------------------------------------------------------

TEST(ForwardCalls, CalibrateEveryEagerObserver) {
  auto called = ready<Skip>();
  auto prepared = quant::prepare(called);
  prepared->forward(data(1));
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->linear->type_name(), "QuantizedLinear");
  EXPECT_EQ(int8->skip->type_name(), "QFunctional");
  EXPECT_GT(int8->forward(data(1)).numel(), 0);
}

// Its observer sees the data: what is wrong with such a model is said, and it is not that it has
// seen none.
TEST(ForwardCalls, CalibrateAModelThatIsALayerItself) {
  auto fc = nn::make<nn::Linear>(5, 5);
  fc->eval();
  fc->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(nn::ModulePtr(fc));
  prepared->forward(data(1));
  expect_error(ErrorCode::invalid_argument, {"put a QuantStub before it"},
               [&] { quant::convert(prepared); });
}

TEST(ForwardCalls, CalibrateAModelThatIsAStubItself) {
  nn::ModulePtr model = nn::make<quant::QuantStub>(quant::get_default_qconfig());
  model->eval();
  auto prepared = quant::prepare(model);
  prepared->forward(data(1));
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->type_name(), "Quantize");
  EXPECT_EQ(int8->forward(data(1)).dtype(), DType::quint8);
}

// A stub and an observer give the tensor that they were given, but what follows it inside is not on
// the caller's.
TEST(ForwardCalls, LeaveTheCallersTensorAsItWas) {
  auto prepared = quant::prepare(ready<Skip>());
  Tensor x = data(1);
  prepared->forward(x);
  (void)(x * x);  // not a part of the model: convert finds nothing wrong with it
  EXPECT_NO_THROW(quant::convert(prepared));
  prepared->forward(x);  // nor does a second pass over the same tensor
  EXPECT_NO_THROW(quant::convert(prepared));
}

TEST(ForwardCalls, AreModuleCallsInGraphMode) {
  struct Net : nn::Module {
    nn::Slot a = slot("a", nn::Linear(5, 5));
    nn::Slot b = slot("b", nn::Linear(5, 5));
    Tensor forward(Tensor x) override { return functional::sigmoid(b->forward(a->forward(x))); }
  };
  auto model = ready<Net>();
  auto only_sigmoid = quant::QConfigMapping(mapping).set_object_type<nn::Linear>(std::nullopt);
  auto prepared = quant::prepare_fx(model, only_sigmoid, {data(1)});
  prepared->forward(data(1));
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(int8->submodule("a")->type_name(), "Linear") << "the mapping leaves it float";
  auto all = quant::prepare_fx(model, mapping, {data(1)});
  all->forward(data(1));
  EXPECT_EQ(quant::convert_fx(all)->submodule("a")->type_name(), "QuantizedLinear");
}

TEST(ForwardCalls, TrainQatModules) {
  auto model = nn::make<Skip>();
  model->qconfig = quant::get_default_qat_qconfig();
  auto prepared = quant::prepare_qat(model);
  prepared->forward(data(1));
  prepared->eval();
  EXPECT_EQ(quant::convert(prepared)->linear->type_name(), "QuantizedLinear");
}

// -- convert to load ------------------------------------------------------------------------------

TEST(ForLoading, EagerModelsComputeWhatTheSavedOneDoes) {
  auto original = quant::prepare(ready<Skip>());
  original->forward(data(1));
  auto saved = quant::convert(original);
  auto int8 = quant::convert(quant::prepare(ready<Skip>()), {.for_loading = true});
  int8->load_state_dict(saved->state_dict());
  EXPECT_EQ(bytes(int8->forward(data(2))), bytes(saved->forward(data(2))));
}

TEST(ForLoading, GraphModeModelsComputeWhatTheSavedOneDoesThroughAFileToo) {
  auto original = quant::prepare_fx(ready<M>(), mapping, {data(1)});
  original->forward(data(1));
  auto saved = quant::convert_fx(original);
  TempDir dir;
  save_state_dict(dir / "model.safetensors", saved->state_dict());
  auto int8 =
      quant::convert_fx(quant::prepare_fx(ready<M>(), mapping, {data(1)}), {.for_loading = true});
  int8->load_state_dict(load_state_dict(dir / "model.safetensors"));
  EXPECT_EQ(bytes(int8->forward(data(2))), bytes(saved->forward(data(2))));
  EXPECT_EQ(print(int8->to_graph()), print(saved->to_graph()));
}

TEST(ForLoading, RunningSavingCompilingAndReadingBeforeAreErrorsThatNameWhatIsUnset) {
  auto eager = quant::convert(quant::prepare(ready<Skip>()), {.for_loading = true});
  auto fx =
      quant::convert_fx(quant::prepare_fx(ready<M>(), mapping, {data(1)}), {.for_loading = true});
  const std::vector<std::string> in_eager{"quant, linear, skip are unset",
                                          "call load_state_dict first"};
  const std::vector<std::string> in_fx{"%x, %linear are unset", "call load_state_dict first"};
  TempDir dir;
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { eager->forward(data(1)); });
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { eager->linear->forward(data(1)); });
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { eager->skip.add(data(1), data(1)); });
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { eager->state_dict(); });
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { save_model(dir / "a.octet", *eager); });
  expect_error(ErrorCode::not_calibrated, in_eager, [&] { eager->clone()->forward(data(1)); });
  expect_error(ErrorCode::not_calibrated, in_fx, [&] { fx->forward(data(1)); });
  expect_error(ErrorCode::not_calibrated, in_fx, [&] { fx->to_graph(); });
  expect_error(ErrorCode::not_calibrated, in_fx, [&] { runtime::compile(fx->graph()); });
  expect_error(ErrorCode::not_calibrated, in_fx, [&] { fx->state_dict(); });
}

TEST(ForLoading, AStateDictThatDoesNotFitLeavesTheValuesUnset) {
  auto int8 = quant::convert(quant::prepare(ready<Skip>()), {.for_loading = true});
  expect_error(ErrorCode::invalid_argument, {"missing"}, [&] { int8->load_state_dict({}); });
  expect_error(ErrorCode::not_calibrated, {"unset"}, [&] { int8->forward(data(1)); });
}

TEST(ForLoading, WithoutTheOptionItIsAnErrorAndCalibratedModelsNeedNoLoading) {
  auto prepared = quant::prepare(ready<Skip>());
  expect_error(ErrorCode::not_calibrated,
               {"3 observers saw no data", "quant", "linear", "skip", "for_loading"},
               [&] { quant::convert(prepared); });
  prepared->forward(data(1));
  auto plain = quant::convert(prepared), loadable = quant::convert(prepared, {.for_loading = true});
  EXPECT_EQ(bytes(plain->forward(data(1))), bytes(loadable->forward(data(1))));
  auto fx = quant::prepare_fx(ready<M>(), mapping, {data(1)});
  expect_error(ErrorCode::not_calibrated, {"saw no data", "for_loading"},
               [&] { quant::convert_fx(fx); });
}

TEST(ForLoading, TheReferenceModelAndQatModelsToo) {
  auto make = [](bool run, bool loading) {
    auto prepared = quant::prepare_fx(ready<M>(), mapping, {data(1)});
    if (run) prepared->forward(data(1));
    return quant::convert_to_reference_fx(prepared, {.for_loading = loading});
  };
  auto saved = make(true, false), loaded = make(false, true);
  expect_error(ErrorCode::not_calibrated, {"unset"}, [&] { loaded->forward(data(1)); });
  loaded->load_state_dict(saved->state_dict());
  EXPECT_EQ(bytes(loaded->forward(data(2))), bytes(saved->forward(data(2))));
  EXPECT_EQ(bytes(quant::lower(loaded)->forward(data(2))),
            bytes(quant::lower(saved)->forward(data(2))));

  auto qat = [](bool run) {
    auto model = nn::make<Skip>();
    model->qconfig = quant::get_default_qat_qconfig();
    auto prepared = quant::prepare_qat(model);
    if (run) prepared->forward(data(1));
    prepared->eval();
    return quant::convert(prepared, {.for_loading = !run});
  };
  auto trained = qat(true), empty = qat(false);
  expect_error(ErrorCode::not_calibrated, {"quant, linear, skip are unset"},
               [&] { empty->forward(data(1)); });
  empty->load_state_dict(trained->state_dict());
  EXPECT_EQ(bytes(empty->forward(data(2))), bytes(trained->forward(data(2))));
}

TEST(ForLoading, RecurrentNetworks) {
  struct Net : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot lstm = slot("lstm", nn::LSTM(5, 4));
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(lstm(std::vector{quant(x)}).at(0)); }
  };
  Tensor x = Tensor::randn({3, 2, 5}, 1);
  auto calibrated = quant::prepare(ready<Net>());
  calibrated->forward(x);
  auto saved = quant::convert(calibrated);
  auto loaded = quant::convert(quant::prepare(ready<Net>()), {.for_loading = true});
  expect_error(ErrorCode::not_calibrated, {"unset"}, [&] { loaded->forward(x); });
  expect_error(ErrorCode::not_calibrated, {"unset"},
               [&] { loaded->lstm->forward(std::vector{x}); });
  loaded->load_state_dict(saved->state_dict());
  EXPECT_EQ(bytes(loaded->forward(x)), bytes(saved->forward(x)));
}

// -- weights need no data -------------------------------------------------------------------------

struct Functional : nn::Module {
  nn::Parameter weight = parameter("weight", Tensor::randn({4, 5}, 3));
  Tensor forward(Tensor x) override { return functional::linear(x, weight); }
};

TEST(WeightObservers, OfFunctionalLinearsSeeTheWeightAtConvert) {
  const quant::ObserverFactory none;
  const Tensor expected = nn::make<Functional>()->forward(data(1));
  struct Case {
    const char* op;
    quant::QConfig qconfig;
    bool qat;
    double tolerance;
  } cases[] = {
      {"linear_weight_only", {none, quant::default_per_channel_weight_observer()}, false, 0.05},
      {"linear_weight_only", {none, quant::get_default_qat_qconfig().weight}, false, 0.05},
      {"linear_weight_only", {none, quant::get_default_qat_qconfig().weight}, true, 0.05},
      {"linear_dynamic", quant::default_dynamic_qconfig(), false, 0.2},
      {"linear_dynamic", quant::float16_dynamic_qconfig(), false, 0.01},
  };
  for (const Case& c : cases) {
    auto model = nn::make<Functional>();
    model->train(c.qat);
    auto one = quant::QConfigMapping().set_global(c.qconfig);
    auto prepared = c.qat ? quant::prepare_qat_fx(model, one, {data(1)})
                          : quant::prepare_fx(model, one, {data(1)});
    auto converted = quant::convert_fx(prepared);
    EXPECT_EQ(converted->graph().producer(converted->graph().outputs()[0]).op, c.op);
    Tensor y = converted->forward(data(1));
    for (int64_t i = 0; i < y.numel(); ++i)
      EXPECT_NEAR(y.data<float>()[i], expected.data<float>()[i], c.tolerance) << c.op;
    auto again = quant::convert_fx(prepared);  // the prepared model is as it was
    EXPECT_EQ(bytes(again->forward(data(1))), bytes(y));
  }
}

// -- Slot::add and its like -----------------------------------------------------------------------

TEST(SlotOperations, EachIsTheFloatFunctionalsBeforeAndAfterConvert) {
  struct Net : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot add = slot("add", quant::FloatFunctional()),
             sub = slot("sub", quant::FloatFunctional()),
             mul = slot("mul", quant::FloatFunctional()),
             cat = slot("cat", quant::FloatFunctional()),
             relu = slot("relu", quant::FloatFunctional()),
             matmul = slot("matmul", quant::FloatFunctional()),
             number = slot("number", quant::FloatFunctional());
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override {
      x = quant(x);
      Tensor y = relu.add_relu(x, mul.mul(x, sub.sub(add.add(x, x), x)));
      y = number.add_scalar(number.mul_scalar(matmul.matmul(y, x), 0.5), 1.0);
      return dequant(cat.cat({y, x}, 1));
    }
  };
  Tensor x = data(1);
  auto prepared = quant::prepare(ready<Net>());
  Tensor before = prepared->forward(x);
  Tensor y = functional::matmul(functional::relu(x + x * x), x) * 0.5 + 1.0;
  EXPECT_LT(std::abs((before - functional::cat({y, x}, 1)).to_vector<float>()[7]), 1e-5);
  auto int8 = quant::convert(prepared);
  Tensor after = int8->forward(x);
  double worst = 0;
  for (int64_t i = 0; i < after.numel(); ++i)
    worst =
        std::max(worst, std::abs(double(after.data<float>()[i]) - double(before.data<float>()[i])));
  EXPECT_LT(worst, 0.5);
  EXPECT_EQ(int8->mul->type_name(), "QFunctional");
}

TEST(SlotOperations, OfAnotherModuleAreAnErrorThatNamesPlaceAndClass) {
  auto model = ready<M>();
  expect_error(ErrorCode::invalid_argument,
               {"linear.add: a Linear has no operation 'add'", "quant::FloatFunctional"},
               [&] { model->linear.add(data(1), data(2)); });
  auto int8 = quant::convert(quant::prepare(ready<Skip>()), {.for_loading = true});
  auto calibrated = quant::prepare(ready<Skip>());
  calibrated->forward(data(1));
  int8->load_state_dict(quant::convert(calibrated)->state_dict());
  expect_error(ErrorCode::invalid_argument, {"skip.mul", "expected quantized tensors"},
               [&] { int8->skip.mul(data(1), data(1)); });
}

// -- models that nn::make did not make ------------------------------------------------------------

TEST(NotMadeModels, EagerModeWorksOnACopy) {
  auto model = std::make_shared<Skip>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(quant::fuse_modules(model, {}));
  prepared->forward(data(1));
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->linear->type_name(), "QuantizedLinear");
  EXPECT_EQ(quant::quantize_dynamic(model, quant::types<nn::Linear>())->linear->type_name(),
            "DynamicQuantizedLinear");
  auto layer = std::make_shared<nn::Linear>(5, 5);  // one whose own forward is observed
  layer->eval();
  layer->qconfig = quant::get_default_qconfig();
  auto leaf = quant::prepare(layer);
  leaf->forward(data(1));
  expect_error(ErrorCode::invalid_argument, {"put a QuantStub before it"},
               [&] { quant::convert_module(leaf, {}); });
}

TEST(NotMadeModels, InPlaceAndInGraphModeAreErrorsThatSayHow) {
  auto model = std::make_shared<M>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  const std::vector<std::string> words{"this M was not made by nn::make", "nn::make<M>(...)"};
  expect_error(ErrorCode::invalid_argument, words,
               [&] { quant::prepare(model, {.inplace = true}); });
  expect_error(ErrorCode::invalid_argument, words,
               [&] { quant::prepare_fx(model, mapping, {data(1)}); });
}

}  // namespace
}  // namespace octet::for_loading_test
