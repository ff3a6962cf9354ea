#include "octet/quant/workflow/fx.h"
#include "tests/sqnr.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "octet/autograd/autograd.h"
#include "octet/io/module_file.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::fx_test {

using graph::GraphModule;
using graph::Node;
using graph::NodeKind;
using testing::expect_error;
using testing::sqnr;
namespace F = functional;
namespace nnq = nn::quantized;

std::string calls(const graph::Graph& g) {
  std::string text;
  for (const Node& node : g.nodes()) {
    if (node.kind == NodeKind::input || node.kind == NodeKind::constant) continue;
    text += (text.empty() ? "" : " ") + node.op;
    if (node.kind == NodeKind::module) text += "@" + node.scope;
  }
  return text;
}

struct FxNet : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv2d(4, 4, 3, {.padding = 1}));
  nn::Slot pool = slot("pool", nn::AdaptiveAvgPool2d(1));
  nn::Slot fc = slot("fc", nn::Linear(4, 5));
  Tensor forward(Tensor x) override {
    x = relu(bn(conv(x)));
    x = F::relu(x + conv2(x));
    return fc(pool(x).flatten(1));
  }
};
OCTET_MODULE(FxNet)

std::shared_ptr<FxNet> net() {
  auto model = nn::make<FxNet>();
  model->eval();
  return model;
}
Tensor fx_batch(uint64_t seed = 1, int64_t n = 4) { return Tensor::randn({n, 3, 6, 6}, seed); }

std::shared_ptr<quant::ObservedGraphModule> calibrated(const nn::ModulePtr& model,
                                                       const quant::QConfigMapping& mapping) {
  auto prepared = quant::prepare_fx(model, mapping, std::vector<Tensor>{fx_batch()});
  for (uint64_t s = 1; s < 4; ++s) (*prepared)(fx_batch(s));
  return prepared;
}

TEST(PrepareFx, FusesAndObservesEachValueOnce) {
  auto prepared = quant::prepare_fx(net(), quant::get_default_qconfig_mapping(),
                                    std::vector<Tensor>{fx_batch()});
  EXPECT_EQ(calls(prepared->graph()),
            "PercentileObserver@activation_post_process_0 ConvReLU2d@conv "
            "PercentileObserver@activation_post_process_1 Conv2d@conv2 "
            "PercentileObserver@activation_post_process_2 add "
            "PercentileObserver@activation_post_process_3 AdaptiveAvgPool2d@pool "
            "PercentileObserver@activation_post_process_4 flatten "
            "PercentileObserver@activation_post_process_4 Linear@fc "
            "PercentileObserver@activation_post_process_5");
}

TEST(ConvertFx, TheReferenceGraphHasQuantizeAndDequantizeAroundFloatLayers) {
  auto reference =
      quant::convert_to_reference_fx(calibrated(net(), quant::get_default_qconfig_mapping()));
  std::string text = calls(reference->graph());
  EXPECT_NE(text.find("quantize dequantize QuantizedReferenceConvReLU2d@conv quantize dequantize"),
            std::string::npos)
      << text;
}

TEST(ConvertFx, TheLoweredGraphComputesInCodes) {
  auto model = net();
  auto prepared = calibrated(model, quant::get_default_qconfig_mapping());
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(calls(int8->graph()),
            "quantize QuantizedConvReLU2d@conv QuantizedConv2d@conv2 add "
            "QuantizedAdaptiveAvgPool2d@pool flatten QuantizedLinear@fc dequantize");
  Tensor x = fx_batch(9);
  EXPECT_GT(sqnr((*model)(x), (*int8)(x)), 25);
}

TEST(ConvertFx, ReferenceAndLoweredAgreeWithinAStep) {
  auto prepared = calibrated(net(), quant::get_default_qconfig_mapping());
  auto reference = quant::convert_to_reference_fx(prepared);
  auto int8 = quant::lower(reference);
  double step = 0;
  for (const Node& node : int8->graph().nodes())
    if (node.op == "QuantizedLinear") step = int8->graph().type(node.outputs[0]).quantizer->scale();
  ASSERT_GT(step, 0);
  Tensor x = fx_batch(9), a = (*reference)(x), b = (*int8)(x);
  for (int64_t i = 0; i < a.size(0); ++i)
    for (int64_t j = 0; j < a.size(1); ++j)
      EXPECT_LE(std::abs(a.at({i, j}) - b.at({i, j})), 2 * step * 1.0001);
}

TEST(ConvertFx, TheLoweredModelCompilesToTheSameBits) {
  auto int8 = quant::convert_fx(calibrated(net(), quant::get_default_qconfig_mapping()));
  graph::Graph g = int8->to_graph();
  EXPECT_NO_THROW(g.check());
  for (int64_t n : {1, 3})
    EXPECT_TRUE(equal(runtime::compile(g).run({fx_batch(7, n)})[0], (*int8)(fx_batch(7, n))));
}

TEST(ConvertFx, DynamicAndWeightOnlyAndTheirReports) {
  auto model = net();
  auto dynamic =
      quant::prepare_fx(model, quant::default_dynamic_qconfig(), std::vector<Tensor>{fx_batch()});
  quant::ConversionReport report;
  auto converted = quant::convert_fx(dynamic, {}, quant::get_native_backend_config(), &report);
  EXPECT_EQ(calls(converted->graph()),
            "DynamicQuantizedConvReLU2d@conv DynamicQuantizedConv2d@conv2 add "
            "AdaptiveAvgPool2d@pool flatten "
            "DynamicQuantizedLinear@fc");
  EXPECT_EQ(report.quantized(), 3);
  auto weights = quant::convert_fx(quant::prepare_fx(
      model, quant::QConfig{quant::ObserverFactory(), quant::default_per_channel_weight_observer()},
      std::vector<Tensor>{fx_batch()}));
  EXPECT_EQ(calls(weights->graph()),
            "WeightOnlyQuantizedConvReLU2d@conv WeightOnlyQuantizedConv2d@conv2 add "
            "AdaptiveAvgPool2d@pool flatten "
            "WeightOnlyQuantizedLinear@fc");
  Tensor x = fx_batch(8);
  EXPECT_GT(sqnr((*model)(x), (*converted)(x)), 25);
  EXPECT_GT(sqnr((*model)(x), (*weights)(x)), 35);
}

TEST(ConvertFx, QatTrainsAndConverts) {
  auto model = nn::make<FxNet>();
  auto prepared = quant::prepare_qat_fx(model, quant::get_default_qat_qconfig_mapping(),
                                        std::vector<Tensor>{fx_batch()});
  EXPECT_NE(calls(prepared->graph()).find("ConvBnReLU2d@conv"), std::string::npos)
      << calls(prepared->graph());
  nn::optim::SGD optimizer(prepared->parameters(), {.lr = 0.01});
  for (uint64_t s = 0; s < 4; ++s) {
    optimizer.zero_grad();
    Tensor y = (*prepared)(fx_batch(s));
    autograd::backward(F::mean(y * y));
    optimizer.step();
  }
  prepared->eval();
  auto int8 = quant::convert_fx(prepared);
  EXPECT_NE(calls(int8->graph()).find("QuantizedConvReLU2d@conv"), std::string::npos)
      << calls(int8->graph());
  EXPECT_GT(sqnr((*prepared)(fx_batch(5)), (*int8)(fx_batch(5))), 25);
}

TEST(ConvertFx, AModelThatWasNotCalibratedIsAnErrorNamingEveryObserver) {
  auto prepared = quant::prepare_fx(net(), quant::get_default_qconfig_mapping(),
                                    std::vector<Tensor>{fx_batch()});
  expect_error(ErrorCode::not_calibrated,
               {"6 of 6", "activation_post_process_0 of %x", "calibration"},
               [&] { quant::convert_fx(prepared); });
}

TEST(PrepareFx, PartsStayFloatAndTheReportSaysWhy) {
  auto mapping = quant::get_default_qconfig_mapping().set_module_name("conv2", std::nullopt);
  quant::ConversionReport report;
  auto int8 = quant::convert_fx(calibrated(net(), mapping), {}, quant::get_native_backend_config(),
                                &report);
  EXPECT_EQ(calls(int8->graph()),
            "quantize QuantizedConvReLU2d@conv dequantize Conv2d@conv2 quantize add "
            "QuantizedAdaptiveAvgPool2d@pool flatten QuantizedLinear@fc dequantize");
  bool said = false;
  for (const auto& e : report.left_float())
    said = said || (e.node == "conv2" && e.reason.find("qconfig") != std::string::npos);
  EXPECT_TRUE(said);
  expect_error(ErrorCode::unsupported, {"conv2"}, [&] {
    quant::convert_fx(calibrated(net(), mapping), {}, quant::get_native_backend_config(), nullptr,
                      true);
  });
}

TEST(PrepareFx, DecisionsAndScopesOfNodesArePublic) {
  struct Inner : nn::Module {
    nn::Slot fc = slot("fc", nn::Linear(4, 4));
    Tensor forward(Tensor x) override { return F::relu(fc(x) + x); }
  };
  struct Outer : nn::Module {
    nn::Slot inner = slot("inner", Inner());
    Tensor forward(Tensor x) override { return inner(x); }
  };
  auto model = nn::make<Outer>();
  model->eval();
  auto mapping = quant::get_default_qconfig_mapping().set_object_type("add", std::nullopt);
  auto prepared = quant::prepare_fx(model, mapping, std::vector<Tensor>{Tensor::ones({2, 4})});
  auto scopes = prepared->node_name_to_scope();
  EXPECT_EQ(scopes.at("inner.fc"), (std::pair<std::string, std::string>("inner.fc", "Linear")));
  EXPECT_EQ(scopes.at("inner.add"), (std::pair<std::string, std::string>("inner", "Inner")));
  EXPECT_EQ(prepared->qconfig_map().at("inner.fc"), quant::get_default_qconfig());
  EXPECT_FALSE(prepared->qconfig_map().at("inner.add").has_value());
  EXPECT_EQ(prepared->decisions().at("inner.fc").mode, quant::QuantMode::statically);
  EXPECT_EQ(prepared->decisions().at("inner.add").reason, "it has no qconfig");
  // The class of the module whose forward calls an operator goes before the operator's own entry,
  // as in PyTorch.
  auto by_class = quant::get_default_qconfig_mapping()
                      .set_object_type("add", std::nullopt)
                      .set_object_type<Inner>(quant::get_default_qconfig());
  auto whole = quant::prepare_fx(model, by_class, std::vector<Tensor>{Tensor::ones({2, 4})});
  EXPECT_TRUE(whole->qconfig_map().at("inner.add").has_value());
}

TEST(PrepareFx, NamesThatMatchNothingAreErrors) {
  auto mapping = quant::get_default_qconfig_mapping().set_module_name("con2", std::nullopt);
  expect_error(ErrorCode::not_found, {"con2", "conv2"},
               [&] { quant::prepare_fx(net(), mapping, std::vector<Tensor>{fx_batch()}); });
}

// A result that shares its operand's observer and may lie outside the operand's range is shown to
// it.
TEST(PrepareFx, SharedObserversSeeResultsOutsideTheOperandsRange) {
  struct Widening {
    const char* name;
    nn::ModulePtr layer;                             // one of both
    std::function<Tensor(const Tensor&)> operation;  // of the conv's result
  };
  struct One : nn::Module {
    explicit One(const Widening& w)
        : widening(w), layer(slot("layer", w.layer ? w.layer : nn::make<nn::Identity>())) {}
    Widening widening;
    nn::Slot conv = slot("conv", nn::Conv2d(3, 3, 1));
    nn::Slot layer;
    Tensor forward(Tensor x) override {
      if (widening.layer) return layer(conv(x));
      return widening.operation ? widening.operation(conv(x)) : F::cat({conv(x), x}, 1);
    }
  };
  const std::vector<Widening> widenings = {
      // operand and result of the conv have one observer, but that is not a rule of the conv
      {"conv in cat", {}, {}},
      {"interpolate",
       {},
       [](const Tensor& x) {
         return F::interpolate(x, {.scale_factor = {2.0}, .mode = "bicubic"});
       }},
      {"clamp", {}, [](const Tensor& x) { return F::clamp(x, 20, 30); }},
      {"pad",
       {},
       [](const Tensor& x) {
         return F::pad(x, {1, 1}, "constant", 20);
       }},
      {"Upsample",
       nn::make<nn::Upsample>(F::InterpolateOptions{.scale_factor = {2.0}, .mode = "bicubic"}),
       {}},
      {"AvgPool2d", nn::make<nn::AvgPool2d>(2, nn::AvgPoolOptions<2>{.divisor_override = 1}), {}},
      {"Hardtanh", nn::make<nn::Hardtanh>(20, 30), {}},
  };
  for (const Widening& w : widenings) {
    auto model = nn::make<One>(w);
    model->eval();
    auto state = model->state_dict();
    state["conv.weight"] = state.at("conv.weight") * (w.layer || w.operation ? 1.0 : 10.0);
    model->load_state_dict(state);
    auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(),
                                      std::vector<Tensor>{fx_batch()});
    const std::vector<float> y = (*prepared)(fx_batch()).to_vector<float>();
    const Node& last = prepared->graph().producer(prepared->graph().outputs()[0]);
    const auto& observer = prepared->submodule(last.scope)->as<quant::Observer>();
    EXPECT_LE(observer.min_val().item(), *std::min_element(y.begin(), y.end())) << w.name;
    EXPECT_GE(observer.max_val().item(), *std::max_element(y.begin(), y.end())) << w.name;
  }
}

TEST(PrepareFx, WrongModeAndTwiceAreErrors) {
  auto training = nn::make<FxNet>();
  auto mapping = quant::get_default_qconfig_mapping();
  expect_error(ErrorCode::invalid_argument, {"prepare_fx", "eval()"},
               [&] { quant::prepare_fx(training, mapping, std::vector<Tensor>{fx_batch()}); });
  auto prepared = quant::prepare_fx(net(), mapping, std::vector<Tensor>{fx_batch()});
  expect_error(ErrorCode::invalid_argument, {"prepared already"},
               [&] { quant::prepare_fx(prepared, mapping, std::vector<Tensor>{fx_batch()}); });
}

TEST(SaveFx, PreparedReferenceAndLoweredGraphsComeBackWithTheirTypes) {
  auto prepared = calibrated(net(), quant::get_default_qconfig_mapping());
  auto reference = quant::convert_to_reference_fx(prepared);
  auto int8 = quant::lower(reference);
  testing::TempDir dir;
  for (const std::shared_ptr<GraphModule>& model :
       {std::static_pointer_cast<GraphModule>(prepared), reference, int8}) {
    save_model(dir / "model.octet", *model);
    auto loaded = load_model<GraphModule>(dir / "model.octet");
    EXPECT_EQ(print(loaded->graph()), print(model->graph()));
    EXPECT_TRUE(equal((*loaded)(fx_batch(3)), (*model)(fx_batch(3))));
  }
  int8 = quant::convert_fx(prepared);  // calling it has calibrated it further
  save_model(dir / "prepared.octet", *prepared);
  auto again = quant::convert_fx(load_model<quant::ObservedGraphModule>(dir / "prepared.octet"));
  EXPECT_EQ(print(again->graph()), print(int8->graph()));
  EXPECT_TRUE(equal((*again)(fx_batch(3)), (*int8)(fx_batch(3))));
}

TEST(ConvertFx, FunctionalLayersAndAWeightUsedTwice) {
  struct Functional : nn::Module {
    nn::Parameter weight = parameter("weight", Tensor::randn({6, 6}, 1));
    nn::Parameter bias = parameter("bias", Tensor::randn({6}, 2));
    Tensor forward(Tensor x) override {
      return F::linear(F::relu(F::linear(x, weight, bias)), weight);
    }
  };
  auto model = nn::make<Functional>();
  model->eval();
  Tensor x = Tensor::randn({5, 6}, 3);
  auto prepared =
      quant::prepare_fx(model, quant::get_default_qconfig_mapping(), std::vector<Tensor>{x});
  (*prepared)(x);
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(calls(int8->graph()), "quantize linear linear dequantize");
  EXPECT_GT(sqnr((*model)(x), (*int8)(x)), 25);
}

// Of the same network, whose conv and relu are fused, quantized in both modes with a qconfig.
template <typename Eager, typename Graph>
void expect_same_bits(const char* qconfig) {
  auto eager = nn::make<Eager>();
  auto graph = nn::make<Graph>();
  graph->load_state_dict(eager->state_dict());
  eager->eval();
  graph->eval();
  eager->qconfig = quant::get_default_qconfig(qconfig);
  auto prepared = quant::prepare(quant::fuse_modules(eager, {{"conv", "relu"}}));
  auto prepared_fx = quant::prepare_fx(graph, quant::get_default_qconfig(qconfig),
                                       std::vector<Tensor>{fx_batch()});
  for (uint64_t s = 1; s < 4; ++s) {
    (*prepared)(fx_batch(s));
    (*prepared_fx)(fx_batch(s));
  }
  Tensor x = fx_batch(7);
  EXPECT_TRUE(equal((*quant::convert(prepared))(x), (*quant::convert_fx(prepared_fx))(x)));
}

TEST(ConvertFx, EagerAndGraphModeGiveTheSameBits) {
  struct Eager : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot pool = slot("pool", nn::AdaptiveAvgPool2d(1));
    nn::Slot fc = slot("fc", nn::Linear(4, 5));
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(fc(pool(relu(conv(quant(x)))).flatten(1))); }
  };
  struct Graph : nn::Module {
    nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot pool = slot("pool", nn::AdaptiveAvgPool2d(1));
    nn::Slot fc = slot("fc", nn::Linear(4, 5));
    Tensor forward(Tensor x) override { return fc(pool(relu(conv(x))).flatten(1)); }
  };
  expect_same_bits<Eager, Graph>("native");
}

// Functions of eager mode have no observer, so that an average by one shares its operand's qparams;
// with PyTorch's qconfigs it does in graph mode too.
TEST(ConvertFx, EagerAndGraphModeGiveTheSameBitsForAFunctionalMean) {
  struct Eager : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot fc = slot("fc", nn::Linear(4, 5));
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(fc(F::mean(relu(conv(quant(x))), {2, 3}))); }
  };
  struct Graph : nn::Module {
    nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot fc = slot("fc", nn::Linear(4, 5));
    Tensor forward(Tensor x) override { return fc(F::mean(relu(conv(x)), {2, 3})); }
  };
  expect_same_bits<Eager, Graph>("onednn");
}

TEST(ConvertFx, EagerAndGraphModeGiveTheSameBitsForAResidualBlock) {
  struct Eager : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 3, 3, {.padding = 1}));
    nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot conv2 = slot("conv2", nn::Conv2d(3, 3, 3, {.padding = 1}));
    nn::Slot skip = slot("skip", nnq::FloatFunctional());
    nn::Slot pool = slot("pool", nn::MaxPool2d(2));
    nn::Slot act = slot("act", nn::Hardswish());
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override {
      x = relu(bn1(conv1(quant(x))));
      return dequant(act(pool(skip.as<nnq::FloatFunctional>().add_relu(x, conv2(x)))));
    }
  };
  struct Graph : nn::Module {
    nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 3, 3, {.padding = 1}));
    nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(3));
    nn::Slot relu = slot("relu", nn::ReLU());
    nn::Slot conv2 = slot("conv2", nn::Conv2d(3, 3, 3, {.padding = 1}));
    nn::Slot pool = slot("pool", nn::MaxPool2d(2));
    nn::Slot act = slot("act", nn::Hardswish());
    Tensor forward(Tensor x) override {
      x = relu(bn1(conv1(x)));
      return act(pool(F::relu(x + conv2(x))));
    }
  };
  auto eager = nn::make<Eager>();
  auto graph = nn::make<Graph>();
  graph->load_state_dict(eager->state_dict());
  eager->eval();
  graph->eval();
  for (const char* name : {"native", "qnnpack", "fbgemm"}) {
    eager->qconfig = quant::get_default_qconfig(name);
    auto prepared = quant::prepare(quant::fuse_modules(eager, {{"conv1", "bn1", "relu"}}));
    auto prepared_fx =
        quant::prepare_fx(graph, quant::get_default_qconfig(name), std::vector<Tensor>{fx_batch()});
    for (uint64_t s = 1; s < 4; ++s) {
      (*prepared)(fx_batch(s));
      (*prepared_fx)(fx_batch(s));
    }
    EXPECT_TRUE(equal((*quant::convert(prepared))(fx_batch(7)),
                      (*quant::convert_fx(prepared_fx))(fx_batch(7))))
        << name;
  }
}

// -- custom, standalone, preserved ----------------------------------------------------------------

struct Custom : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return linear(x); }
};
// Two results: prepare_fx observes both.
struct CustomTwo : nn::Module {
  nn::Slot a = slot("a", nn::Linear(4, 4));
  nn::Slot b = slot("b", nn::Linear(4, 2));
  using nn::Module::forward;
  std::vector<Tensor> forward(std::vector<Tensor> in) override { return {a(in[0]), b(in[0])}; }
};
struct ObservedTwo : CustomTwo {
  static std::shared_ptr<ObservedTwo> from_float(CustomTwo& m) {
    auto o = nn::make<ObservedTwo>();
    o->a.set(m.a.get());
    o->b.set(m.b.get());
    return o;
  }
};
struct QuantizedTwo : CustomTwo {
  static std::shared_ptr<QuantizedTwo> from_observed(ObservedTwo& m) {
    auto q = nn::make<QuantizedTwo>();
    m.a->add_child("activation_post_process", m.submodule("activation_post_process"));
    m.b->add_child("activation_post_process", m.submodule("activation_post_process_1"));
    q->a.set(nnq::Linear::from_float(*m.a));
    q->b.set(nnq::Linear::from_float(*m.b));
    return q;
  }
};
struct DynamicCustom : Custom {
  static std::shared_ptr<DynamicCustom> from_float(Custom& m) {
    auto d = nn::make<DynamicCustom>();
    d->linear.set(m.linear.get());
    return d;
  }
  static std::shared_ptr<DynamicCustom> from_observed(DynamicCustom& m) {
    auto d = nn::make<DynamicCustom>();
    d->linear.set(nnq::dynamic::Linear::from_float(*m.linear));
    return d;
  }
};

TEST(CustomFx, AModuleOfSeveralResultsIsObservedAndConvertedByItsAuthor) {
  struct Model : nn::Module {
    nn::Slot two = slot("two", CustomTwo());
    nn::Slot fc = slot("fc", nn::Linear(4, 3));
    std::vector<Tensor> forward(std::vector<Tensor> in) override {
      auto r = two(in);
      return {fc(r[0]), r[1]};
    }
  };
  auto model = nn::make<Model>();
  model->eval();
  std::vector<Tensor> x{Tensor::randn({8, 4}, 1)};
  quant::PrepareCustomConfig prepare;
  prepare.set_float_to_observed_mapping<CustomTwo, ObservedTwo>();
  quant::ConvertCustomConfig convert;
  convert.set_observed_to_quantized_mapping<ObservedTwo, QuantizedTwo>();
  auto prepared = quant::prepare_fx(model, quant::get_default_qconfig(), x, prepare);
  (*prepared)(x);
  expect_error(ErrorCode::invalid_argument,
               {"'two'", "ObservedTwo", "set_observed_to_quantized_mapping"},
               [&] { quant::convert_fx(prepared); });
  auto int8 = quant::convert_fx(prepared, convert);
  EXPECT_EQ(calls(int8->graph()),
            "quantize QuantizedTwo@two dequantize QuantizedLinear@fc dequantize");
  auto want = model->forward(x), got = (*int8)(x);
  EXPECT_GT(sqnr(want[0], got[0]), 25);
  EXPECT_GT(sqnr(want[1], got[1]), 25);
}

TEST(CustomFx, DynamicallyQuantizedModulesOfUsersTakeAndGiveFloats) {
  auto model = nn::make<nn::Sequential>(Custom(), nn::ReLU());
  model->eval();
  std::vector<Tensor> x{Tensor::randn({8, 4}, 1)};
  quant::PrepareCustomConfig prepare;
  prepare.set_float_to_observed_mapping<Custom, DynamicCustom>(quant::QuantMode::dynamically);
  quant::ConvertCustomConfig convert;
  convert.set_observed_to_quantized_mapping<DynamicCustom, DynamicCustom>(
      quant::QuantMode::dynamically);
  auto int8 = quant::convert_fx(
      quant::prepare_fx(model, quant::default_dynamic_qconfig(), x, prepare), convert);
  EXPECT_EQ(calls(int8->graph()), "DynamicCustom@0 ReLU@1");
  EXPECT_EQ(int8->submodule("0.linear")->type_name(), "DynamicQuantizedLinear");
  EXPECT_GT(sqnr((*model)(x[0]), (*int8)(x)[0]), 25);
}

TEST(CustomFx, PreservedModulesStayThroughAllPassesAndFiles) {
  struct Model : nn::Module {
    nn::Slot fc = slot("fc", nn::Linear(4, 4));
    nn::Slot labels = slot("labels", nn::Linear(1, 1));  // not called
    Tensor forward(Tensor x) override { return fc(x); }
  };
  auto model = nn::make<Model>();
  model->eval();
  std::vector<Tensor> x{Tensor::randn({8, 4}, 1)};
  quant::PrepareCustomConfig custom;
  custom.set_preserved_attributes({"labels"});
  auto prepared = quant::prepare_fx(model, quant::get_default_qconfig(), x, custom);
  (*prepared)(x);
  auto int8 = quant::convert_fx(prepared);
  EXPECT_TRUE(prepared->has_submodule("labels") && int8->has_submodule("labels"));
  testing::TempDir dir;
  save_model(dir / "m.octet", *int8);
  EXPECT_TRUE(load_model(dir / "m.octet")->has_submodule("labels"));
  EXPECT_FALSE(quant::prepare_fx(model, quant::get_default_qconfig(), x)->has_submodule("labels"));
  expect_error(ErrorCode::not_found, {"label", "labels"}, [&] {
    quant::PrepareCustomConfig wrong;
    wrong.set_preserved_attributes({"label"});
    quant::prepare_fx(model, quant::get_default_qconfig(), x, wrong);
  });
}

TEST(CustomFx, AStandaloneModuleIsAUnitWithItsOwnInterface) {
  auto model = nn::make<nn::Sequential>(nn::Linear(4, 4), Custom(), nn::Linear(4, 2));
  model->eval();
  std::vector<Tensor> x{Tensor::randn({8, 4}, 1)};
  auto inside = std::make_shared<quant::PrepareCustomConfig>();
  inside->set_input_quantized_indexes({0}).set_output_quantized_indexes({0});
  quant::PrepareCustomConfig custom;
  custom.set_standalone_module_name("1", {.prepare_custom_config = inside});
  auto prepared = quant::prepare_fx(model, quant::get_default_qconfig(), x, custom);
  (*prepared)(x);
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(calls(int8->graph()),
            "quantize QuantizedLinear@0 GraphModule@1 QuantizedLinear@2 dequantize");
  auto& unit = int8->submodule("1")->as<GraphModule>();
  EXPECT_EQ(calls(unit.graph()), "QuantizedLinear@linear");
  EXPECT_TRUE(unit.graph().type(unit.graph().inputs()[0]).is_quantized());
  EXPECT_GT(sqnr((*model)(x[0]), (*int8)(x)[0]), 25);
}

TEST(CustomFx, InputsAndResultsMayBeCodes) {
  auto model = nn::make<nn::Sequential>(nn::Linear(4, 4), nn::ReLU());
  model->eval();
  std::vector<Tensor> x{Tensor::randn({8, 4}, 1)};
  quant::PrepareCustomConfig custom;
  custom.set_input_quantized_indexes({0}).set_output_quantized_indexes({0});
  auto prepared = quant::prepare_fx(model, quant::get_default_qconfig(), x, custom);
  (*prepared)(x);
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(calls(int8->graph()), "QuantizedLinearReLU@0");
  const TensorType& type = int8->graph().type(int8->graph().inputs()[0]);
  Tensor y = (*int8)(quantize(x[0], type.quantizer, type.dtype));
  EXPECT_TRUE(y.is_quantized());
  EXPECT_GT(sqnr((*model)(x[0]), y.dequantize()), 25);
  expect_error(ErrorCode::invalid_argument, {"input_quantized_indexes has 3", "1 input"}, [&] {
    quant::PrepareCustomConfig wrong;
    wrong.set_input_quantized_indexes({3});
    quant::prepare_fx(model, quant::get_default_qconfig(), x, wrong);
  });
}

// -- backends -------------------------------------------------------------------------------------

TEST(BackendsFx, TensorRtTakesTheReferenceGraphAndOctetRunsTheSameCodes) {
  quant::BackendConfig tensorrt = quant::get_tensorrt_backend_config();
  quant::QConfig qconfig{quant::ObserverFactory("HistogramObserver")
                             .with_dtype(DType::qint8)
                             .with_qscheme(quant::ObserverScheme::per_tensor_symmetric),
                         quant::default_per_channel_weight_observer()};
  auto prepared = quant::prepare_fx(net(), qconfig, std::vector<Tensor>{fx_batch()}, {}, tensorrt);
  (*prepared)(fx_batch());
  auto reference = quant::convert_to_reference_fx(prepared, {}, tensorrt);
  EXPECT_NE(calls(reference->graph()).find("dequantize QuantizedReferenceConv2d@conv2 quantize"),
            std::string::npos)
      << calls(reference->graph());
  auto lowered = quant::lower(reference, tensorrt);
  EXPECT_NE(calls(lowered->graph()).find(" QuantizedConv2d"), std::string::npos)
      << calls(lowered->graph());
  EXPECT_EQ(calls(lowered->graph()).find("Reference"), std::string::npos);
  for (const Node& node : reference->graph().nodes())
    if (node.op == "quantize") {
      EXPECT_EQ(reference->graph().type(node.outputs[0]).quantizer->zero_point(), 0);
    }
}

TEST(BackendsFx, OneRuleIsTakenAwayOrOneNodeIsLeft) {
  auto prepared = calibrated(net(), quant::get_default_qconfig_mapping());
  auto reference = quant::convert_to_reference_fx(prepared);
  auto no_linear = quant::lower(
      reference, quant::get_native_backend_config().do_not_lower<nnq::reference::Linear>());
  EXPECT_NE(calls(no_linear->graph()).find("dequantize QuantizedReferenceLinear@fc quantize"),
            std::string::npos)
      << calls(no_linear->graph());
  auto without_conv2 =
      quant::lower(reference, quant::get_native_backend_config(),
                   [](const graph::Graph&, const Node& node) { return node.scope != "conv2"; });
  EXPECT_NE(
      calls(without_conv2->graph()).find("dequantize QuantizedReferenceConv2d@conv2 quantize"),
      std::string::npos);
}

}  // namespace octet::fx_test
