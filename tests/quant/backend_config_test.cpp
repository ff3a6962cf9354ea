// BackendConfig: patterns, dtypes and their constraints, lowering to modules, JSON.
#include "octet/quant/backend/backend_config.h"

#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"
#include "octet/quant/backend/module_mappings.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/recurrent.h"
#include "tests/expect_error.h"
#include "tests/golden.h"

namespace octet::quant {
namespace {

using testing::expect_error;
namespace nni = nn::intrinsic;
namespace nnq = nn::quantized;
namespace nnqat = nn::qat;
namespace nnqd = nn::quantized::dynamic;
namespace nnqr = nn::quantized::reference;
namespace nnqw = nn::quantized::weight_only;

struct Swish : nn::Module {
  Tensor forward(Tensor x) override { return x; }
};
struct QuantizedSwish : Swish {
  static std::shared_ptr<QuantizedSwish> from_float(nn::Module&) {
    return nn::make<QuantizedSwish>();
  }
};
struct UnnamedSwish : QuantizedSwish {
  static std::shared_ptr<UnnamedSwish> from_float(nn::Module&) { return nn::make<UnnamedSwish>(); }
};
struct Unregistered : nn::Module {};

}  // namespace
}  // namespace octet::quant

namespace octet::quant {
OCTET_MODULE(Swish)
OCTET_MODULE(QuantizedSwish)
OCTET_MODULE(UnnamedSwish)
OCTET_REPLACEMENT(QuantizedSwish)

namespace {

const DTypeConfig kStaticInt8 = {.input_dtype = {DType::quint8},
                                 .output_dtype = {DType::quint8},
                                 .weight_dtype = {DType::qint8},
                                 .bias_dtype = DType::float32};

std::string reason(const QConfig& qconfig, const DTypeConfig& config) {
  std::string why;
  bool fits = check(qconfig, config, &why);
  EXPECT_EQ(fits, why.empty()) << why;
  return why;
}

// -- dtypes ---------------------------------------------------------------------------------------

TEST(BackendDTypes, AQConfigIsCheckedAgainstDTypesAndConstraints) {
  auto with_input = [](DTypeWithConstraints c) {
    return DTypeConfig{.input_dtype = c, .output_dtype = c, .weight_dtype = {DType::qint8}};
  };
  const DTypeConfig dynamic = {.input_dtype = {DType::quint8},
                               .output_dtype = {DType::float32},
                               .weight_dtype = {DType::qint8},
                               .is_dynamic = true};
  const DTypeConfig rows = {.input_dtype = {DType::float32},
                            .output_dtype = {DType::float32},
                            .weight_dtype = {DType::quint8}};
  const DTypeConfig half = {.input_dtype = {DType::float16},
                            .output_dtype = {DType::float16},
                            .weight_dtype = {DType::float16},
                            .bias_dtype = DType::float16};
  QConfig fixed = {default_fixed_qparams_range_0to1_observer(), default_weight_observer()};
  struct Case {
    QConfig qconfig;
    DTypeConfig dtypes;
    std::string why;
  };
  const std::vector<Case> cases = {
      {default_qconfig(), kStaticInt8, ""},
      {get_default_qconfig("native"), kStaticInt8, ""},
      {get_default_qat_qconfig("fbgemm"), kStaticInt8, ""},
      {default_reuse_input_qconfig(),
       {.input_dtype = {DType::qint8}, .output_dtype = {DType::qint8}},
       ""},
      {default_symmetric_qnnpack_qconfig(), kStaticInt8,
       "activation dtype qint8; the backend takes quint8"},
      {float_qparams_weight_only_qconfig(), kStaticInt8,
       "activation dtype float32; the backend takes quint8"},
      {default_dynamic_qconfig(), kStaticInt8,
       "activations quantized at run time; the backend takes qparams from calibration"},
      {default_dynamic_qat_qconfig(), kStaticInt8,
       "activations quantized at run time; the backend takes qparams from calibration"},
      {default_qconfig(), dynamic,
       "activations with qparams from calibration; the backend quantizes them at run time"},
      {default_dynamic_qconfig(), dynamic, ""},
      {default_dynamic_qat_qconfig(), dynamic, ""},
      {per_channel_dynamic_qconfig(), dynamic, ""},
      {float16_dynamic_qconfig(), dynamic, "activation dtype float16; the backend takes quint8"},
      {default_qconfig(), rows, "activation dtype quint8; the backend takes float32"},
      {default_weight_only_qconfig(), rows, "weight dtype qint8; the backend takes quint8"},
      {float_qparams_weight_only_qconfig(), rows, ""},
      {default_embedding_qat_qconfig(), rows, ""},
      {float_qparams_weight_only_qconfig_4bit(), rows,
       "weight dtype quint4x2; the backend takes quint8"},
      {default_activation_only_qconfig(), kStaticInt8,
       "weight dtype float32; the backend takes qint8"},
      {default_activation_only_qconfig(),
       {.input_dtype = {DType::quint8}, .output_dtype = {DType::quint8}},
       ""},
      {default_qconfig(),
       {.input_dtype = {DType::quint8}},
       "result dtype quint8; the backend takes float32"},
      {float16_static_qconfig(), half, ""},
      {float16_static_qconfig(),
       {.input_dtype = {DType::float16},
        .output_dtype = {DType::float16},
        .bias_dtype = DType::float32},
       "bias dtype float16; the backend takes float32"},
      // Codes.
      {default_qconfig(),
       with_input(
           {.dtype = DType::quint8, .quant_min_lower_bound = 0, .quant_max_upper_bound = 127}),
       ""},
      {default_qconfig(),
       with_input(
           {.dtype = DType::quint8, .quant_min_lower_bound = 0, .quant_max_upper_bound = 100}),
       "activation codes 0..127; the backend takes 0..100"},
      {get_default_qconfig("fbgemm"),
       with_input(
           {.dtype = DType::quint8, .quant_min_lower_bound = 0, .quant_max_upper_bound = 127}),
       ""},
      {get_default_qconfig("onednn"),
       with_input({.dtype = DType::quint8, .quant_max_upper_bound = 127}),
       "activation codes 0..255; the backend takes ..127"},
      // Scales.
      {default_qconfig(), with_input({.dtype = DType::quint8, .scale_min_lower_bound = 0x1p-12}),
       "activation eps 1.1920928955078125e-07; the backend takes scales of 0.000244140625 and "
       "more"},
      {fixed, with_input({.dtype = DType::quint8, .scale_min_lower_bound = 0x1p-12}), ""},
      {fixed, with_input({.dtype = DType::quint8, .scale_max_upper_bound = 0x1p-9}),
       "activation scale 0.00390625; the backend takes scales of 0.001953125 and less"},
      {fixed,
       with_input(
           {.dtype = DType::quint8, .scale_exact_match = 1.0 / 256, .zero_point_exact_match = 0}),
       ""},
      {fixed, with_input({.dtype = DType::quint8, .scale_exact_match = 1.0 / 128}),
       "activation scale 0.00390625; the backend takes 0.0078125"},
      {fixed, with_input({.dtype = DType::quint8, .zero_point_exact_match = 128}),
       "activation zero point 0; the backend takes 128"},
      {default_qconfig(), with_input({.dtype = DType::quint8, .scale_exact_match = 1.0 / 256}),
       "activation scale is chosen from data; the backend takes 0.00390625"},
      {default_qconfig(), with_input({.dtype = DType::quint8, .zero_point_exact_match = 0}),
       "activation per_tensor_affine chooses its zero point from data; the backend takes 0: use a "
       "symmetric qscheme"},
      {default_debug_qconfig(), with_input({.dtype = DType::quint8, .scale_min_lower_bound = 1e-3}),
       "activation RecordingObserver chooses no qparams; the backend restricts them"},
  };
  for (const Case& c : cases) EXPECT_EQ(reason(c.qconfig, c.dtypes), c.why) << to_string(c.qconfig);
}

TEST(BackendDTypes, QnnpackTakesItsSymmetricFamilyAndRefusesTheRest) {
  BackendConfig qnnpack = get_qnnpack_backend_config();
  const BackendPatternConfig* linear = qnnpack.find_module(typeid(nn::Linear));
  ASSERT_NE(linear, nullptr);
  for (const char* name :
       {"default_symmetric_qnnpack_qconfig", "default_per_channel_symmetric_qnnpack_qconfig",
        "default_symmetric_qnnpack_qat_qconfig", "qnnpack", "default_dynamic_qconfig"})
    EXPECT_NE(linear->find_dtype_config(get_default_qconfig(name)), nullptr) << name;
  QConfig wide = {default_symmetric_qnnpack_qconfig().activation, default_weight_observer()};
  std::string why;
  EXPECT_EQ(linear->find_dtype_config(wide, &why), nullptr);
  EXPECT_NE(why.find("weight codes -128..127; the backend takes -127..127, or activation dtype "
                     "qint8; the backend takes quint8"),
            std::string::npos)
      << why;
}

TEST(BackendDTypes, TensorRtTakesSymmetricInt8Only) {
  BackendConfig tensorrt = get_tensorrt_backend_config();
  const BackendPatternConfig* conv = tensorrt.find_module(typeid(nn::Conv2d));
  QConfig symmetric = {ObserverFactory("HistogramObserver")
                           .with_dtype(DType::qint8)
                           .with_qscheme(ObserverScheme::per_tensor_symmetric),
                       default_per_channel_weight_observer()};
  EXPECT_NE(conv->find_dtype_config(symmetric), nullptr);
  EXPECT_EQ(conv->find_dtype_config(default_symmetric_qnnpack_qconfig()), nullptr)
      << "its activations are affine";
}

TEST(BackendDTypes, FittingQconfigsAreWhatTheLayersTake) {
  const QConfig usual = get_default_qconfig();
  for (const char* takes_it : {"native", "fbgemm", "onednn", "qnnpack"})
    EXPECT_EQ(fitting_qconfig(usual, get_backend_config(takes_it)), usual) << takes_it;
  const QConfig fit = fitting_qconfig(usual, get_tensorrt_backend_config());
  EXPECT_EQ(
      fit.activation,
      usual.activation.with_dtype(DType::qint8).with_qscheme(ObserverScheme::per_tensor_symmetric));
  EXPECT_EQ(fit.weight, usual.weight);
  // Any backend: what the constraints say.
  BackendConfig mine("mine");
  mine.set_backend_pattern_config(
      BackendPatternConfig(ObjectType(typeid(nn::Linear)))
          .add_dtype_config(
              {.input_dtype = {.dtype = DType::qint8,
                               .quant_min_lower_bound = -100,
                               .quant_max_upper_bound = 100,
                               .scale_min_lower_bound = 0x1p-12},
               .output_dtype = {.dtype = DType::qint8},
               .weight_dtype = {.dtype = DType::qint8, .zero_point_exact_match = 0}}));
  const QConfig narrow = fitting_qconfig(usual, mine);
  EXPECT_EQ(
      narrow.activation,
      usual.activation.with_dtype(DType::qint8).with_quant_range(-100, 100).with_eps(0x1p-12));
  EXPECT_TRUE(check(narrow, mine.configs()[0].dtype_configs[0]));
  // A zero point that no symmetric observer chooses: nothing fits.
  BackendConfig never("never");
  BackendPatternConfig impossible = mine.configs()[0];
  impossible.dtype_configs[0].input_dtype.zero_point_exact_match = 7;
  never.set_backend_pattern_config(impossible);
  EXPECT_EQ(fitting_qconfig(usual, never), usual);
  EXPECT_EQ(fitting_qconfig(default_dynamic_qconfig(), get_tensorrt_backend_config()),
            default_dynamic_qconfig());
}

TEST(BackendDTypes, ChosenQparamsAreComparedWithTheConstraints) {
  QParams q = make_qparams({0.5}, {3}, {.dtype = DType::quint8});
  std::string why;
  EXPECT_TRUE(satisfies(
      q, {.dtype = DType::quint8, .scale_min_lower_bound = 0.25, .scale_max_upper_bound = 0.5}));
  EXPECT_FALSE(satisfies(q, {.scale_max_upper_bound = 0.25}, &why));
  EXPECT_EQ(why, "scale 0.5; the backend takes scales of 0.25 and less");
  EXPECT_FALSE(satisfies(q, {.zero_point_exact_match = 0}, &why));
  EXPECT_EQ(why, "zero point 3; the backend takes 0");
}

TEST(BackendDTypes, TheWayOfQuantizingFollowsFromTheQConfig) {
  EXPECT_EQ(mode_of(default_qconfig()), QuantMode::statically);
  EXPECT_EQ(mode_of(get_default_qat_qconfig()), QuantMode::statically);
  EXPECT_EQ(mode_of(float16_static_qconfig()), QuantMode::statically);
  EXPECT_EQ(mode_of(default_dynamic_qconfig()), QuantMode::dynamically);
  EXPECT_EQ(mode_of(float16_dynamic_qconfig()), QuantMode::dynamically);
  EXPECT_EQ(mode_of(default_dynamic_qat_qconfig()), QuantMode::dynamically);
  EXPECT_EQ(mode_of(default_weight_only_qconfig()), QuantMode::weight_only);
  EXPECT_EQ(mode_of(float_qparams_weight_only_qconfig()), QuantMode::weight_only);
  EXPECT_EQ(mode_of(QConfig{}), std::nullopt);
}

// -- what the built-in backends cover -------------------------------------------------------------

std::vector<std::string> uncovered(const BackendConfig& backend, const ModuleMapping& mapping,
                                   QuantMode mode) {
  std::vector<std::string> missing;
  for (const std::string& name : nn::registered_names()) {
    std::type_index type = *nn::registered_type(name);
    if (!mapping.has(type)) continue;
    const BackendPatternConfig* c = backend.find_module(type);
    if (!c || !c->quantized_module(mode)) missing.push_back(name);
  }
  return missing;
}

TEST(BackendConfig, NativeLowersAllThatEagerModeConverts) {
  BackendConfig native = get_native_backend_config();
  // Stubs and functionals are places of eager mode; graphs have operators there.
  EXPECT_EQ(uncovered(native, get_default_static_quant_module_mappings(), QuantMode::statically),
            (std::vector<std::string>{"octet::nn::Embedding", "octet::nn::EmbeddingBag",
                                      "octet::nn::qat::Embedding", "octet::nn::qat::EmbeddingBag",
                                      "octet::nn::quantized::FloatFunctional",
                                      "octet::quant::DeQuantStub", "octet::quant::QuantStub"}));
  EXPECT_EQ(
      uncovered(native, get_default_dynamic_quant_module_mappings(), QuantMode::dynamically),
      (std::vector<std::string>{"octet::nn::Embedding", "octet::nn::EmbeddingBag",
                                "octet::nn::qat::Embedding", "octet::nn::qat::EmbeddingBag"}));
  EXPECT_EQ(
      uncovered(native, get_default_weight_only_quant_module_mappings(), QuantMode::weight_only),
      std::vector<std::string>{});
  for (const std::string& name : nn::registered_names()) {
    std::type_index type = *nn::registered_type(name);
    const BackendPatternConfig* c = native.find_module(type);
    EXPECT_TRUE(!get_default_qat_module_mappings().has(type) || (c && c->qat_module)) << name;
    EXPECT_TRUE(!get_default_static_quant_reference_module_mappings().has(type) ||
                (c && c->reference_quantized_module))
        << name;
  }
}

DTypeWithConstraints golden_dtype(const nlohmann::json& json) {
  DTypeWithConstraints d;
  if (json.is_null()) return d;
  d.dtype = parse_dtype(json["dtype"].get<std::string>());
  if (json.contains("quant_min_lower_bound"))
    d.quant_min_lower_bound = json["quant_min_lower_bound"].get<int64_t>();
  if (json.contains("quant_max_upper_bound"))
    d.quant_max_upper_bound = json["quant_max_upper_bound"].get<int64_t>();
  if (json.contains("scale_min_lower_bound"))
    d.scale_min_lower_bound = json["scale_min_lower_bound"].get<double>();
  return d;
}

// TensorRT has zero point 0; PyTorch cannot say so.
DTypeWithConstraints without_zero_point(DTypeWithConstraints d) {
  d.zero_point_exact_match = {};
  return d;
}

std::type_index class_named(const nlohmann::json& name) {
  return *ObjectType(name.get<std::string>()).type();
}

TEST(GoldenBackendConfig, HasEveryPatternOfPyTorchsBackends) {
  size_t checked = 0;
  for (const auto& g : testing::load_golden("backend_config.json")) {
    BackendConfig backend = get_backend_config(g["backend"].get<std::string>());
    Pattern pattern;
    for (const auto& item : g["pattern"]) pattern.emplace_back(item.get<std::string>());
    std::string who = backend.name() + ": " + to_string(pattern);
    const BackendPatternConfig* c = backend.find(pattern);
    ASSERT_NE(c, nullptr) << who;
    ++checked;
    // Dropout: an observer for a result that is its operand is none (docs/conformance.md).
    if (who.find("ropout") == std::string::npos) {
      EXPECT_EQ(to_string(c->observation_type), g["observation_type"].get<std::string>()) << who;
    }
    bool weights = c->root_module || c->fuser_method || !c->quantized_ops.empty();
    for (const auto& d : g["dtype_configs"]) {
      bool found = false;
      for (const DTypeConfig& mine : c->dtype_configs)
        found |= without_zero_point(mine.input_dtype) == golden_dtype(d["input"]) &&
                 mine.is_dynamic == d["is_dynamic"] &&
                 without_zero_point(mine.output_dtype) == golden_dtype(d["output"]) &&
                 (!weights || !mine.weight_dtype.dtype ||
                  without_zero_point(mine.weight_dtype) == golden_dtype(d["weight"]));
      EXPECT_TRUE(found) << who << d;
    }
    if (g.contains("root_module") && !c->fused_module) {
      EXPECT_EQ(c->root_module, class_named(g["root_module"])) << who;
    }
    if (g.contains("fused_module")) {
      EXPECT_EQ(c->fused_module, class_named(g["fused_module"])) << who;
    }
    if (g.contains("qat_module")) {
      EXPECT_TRUE(c->qat_module && c->qat_module->type() == class_named(g["qat_module"])) << who;
    }
    // A linear with its batch norm beside it has a reference form in PyTorch; here it is folded or
    // trained first.
    if (g.contains("reference_quantized_module") && pattern != Pattern{typeid(nni::LinearBn1d)}) {
      ASSERT_TRUE(c->reference_quantized_module) << who;
      std::string mine = c->reference_quantized_module->name();
      // A relu that was fused in is a part of octet's class; in PyTorch it stays beside the layer.
      if (size_t relu = mine.find("ReLU"); relu != std::string::npos) mine.erase(relu, 4);
      EXPECT_EQ(mine, g["reference_quantized_module"].get<std::string>()) << who;
    }
    EXPECT_EQ(c->fuser_method.has_value(), g["fuser_method"].get<bool>()) << who;
  }
  EXPECT_GT(checked, 300u);
}

TEST(BackendConfig, OperatorsAreObservedAsTheirQRuleSays) {
  for (const std::string& name : backend_config_names()) {
    BackendConfig backend = get_backend_config(name);
    for (const BackendPatternConfig& c : backend.configs()) {
      EXPECT_FALSE(c.dtype_configs.empty()) << name << ": " << to_string(c.pattern);
      if (c.pattern.size() != 1 || c.pattern[0].is_module()) continue;
      const ops::Op& op = ops::get(c.pattern[0].op());
      bool share = c.observation_type == ObservationType::output_share_observer_with_input;
      EXPECT_EQ(share, op.rule() == ops::QRule::same || op.name() == "cat")
          << name << ": " << op.name();
      EXPECT_EQ(bool(c.overwrite_output_observer), op.rule() == ops::QRule::fixed) << op.name();
      // a slope is a weight that stays float
      for (const auto& [input, index] : c.input_type_to_index)
        EXPECT_EQ(op.param_index(input == "slope" ? "weight" : input), static_cast<size_t>(index))
            << op.name();
      for (const auto& [mode, lowered] : c.quantized_ops)
        ops::get(lowered.op).complete([&] {
          Attrs attrs = lowered.attrs;  // with those that have no default
          for (const auto& [attr, fallback] : ops::get(lowered.op).attrs())
            if (!fallback && !attrs.has(attr)) attrs.set(attr, std::vector<int64_t>{1});
          return attrs;
        }());
    }
  }
}

TEST(BackendConfig, LongPatternsComeFirstAndTheLastAddedBeforeTheOthers) {
  BackendConfig b("b");
  b.set_backend_pattern_configs({BackendPatternConfig("add"), BackendPatternConfig({"add", "relu"}),
                                 BackendPatternConfig("mul"),
                                 BackendPatternConfig({"mul", "relu"})});
  std::vector<std::string> order;
  for (const BackendPatternConfig* c : b.by_length()) order.push_back(to_string(c->pattern));
  EXPECT_EQ(order, (std::vector<std::string>{"mul+relu", "add+relu", "mul", "add"}));
}

TEST(BackendConfig, APatternSetAgainIsReplacedAndOneRemovedIsGone) {
  BackendConfig b = get_native_backend_config();
  size_t n = b.configs().size();
  b.set_backend_pattern_config(
      BackendPatternConfig({typeid(nn::Linear), "relu"}).add_dtype_config(kStaticInt8));
  EXPECT_EQ(b.configs().size(), n);
  EXPECT_EQ(b.find({typeid(nn::Linear), "relu"})->dtype_configs,
            std::vector<DTypeConfig>{kStaticInt8});
  b.remove({typeid(nn::Linear), "relu"});
  EXPECT_EQ(b.find({typeid(nn::Linear), "relu"}), nullptr);
  EXPECT_NE(b, get_native_backend_config());
  expect_error(ErrorCode::not_found,
               {"native has no pattern Linear+relu", "it has Linear, Linear+ReLU"}, [&] {
                 b.remove({typeid(nn::Linear), "relu"});
               });
  expect_error(ErrorCode::invalid_argument, {"needs a pattern"},
               [&] { b.set_backend_pattern_config({}); });
}

TEST(BackendConfig, UnknownNamesAreErrorsWithTheNearest) {
  expect_error(ErrorCode::not_found, {"'qnpack'", "did you mean 'qnnpack'"},
               [] { get_backend_config("qnpack"); });
  expect_error(ErrorCode::not_found, {"'Conv2D'", "did you mean 'Conv2d'"},
               [] { BackendPatternConfig("Conv2D"); });
  expect_error(ErrorCode::not_found, {"'ConvBNReLU2d'", "ConvBnReLU2d"},
               [] { BackendPatternConfig("add").set_fuser_method("ConvBNReLU2d"); });
  expect_error(ErrorCode::unsupported, {"linear_dynamik", "linear_dynamic"}, [] {
    BackendPatternConfig("linear").set_quantized_op(QuantMode::dynamically, "linear_dynamik");
  });
}

TEST(BackendConfig, FixedQparamsFollowTheActivationsDtypeAndTraining) {
  BackendConfig native = get_native_backend_config();
  const BackendPatternConfig& tanh = *native.find_op("tanh");
  EXPECT_EQ(result_observer(tanh, get_default_qconfig()),
            default_fixed_qparams_range_neg1to1_observer());
  ObserverFactory signed_codes = result_observer(tanh, default_symmetric_qnnpack_qconfig());
  EXPECT_EQ(signed_codes.options().dtype, DType::qint8);
  EXPECT_EQ(signed_codes.options().zero_point, 0);
  EXPECT_EQ(result_observer(tanh, get_default_qat_qconfig()),
            default_fixed_qparams_range_neg1to1_fake_quant());
  EXPECT_EQ(result_observer(*native.find_op("add"), get_default_qconfig()),
            get_default_qconfig().activation);
}

TEST(BackendConfig, AddKeepsQparamsWithOneTensor) {
  BackendConfig native = get_native_backend_config();
  EXPECT_EQ(native.find_op("add")->observation_type_of(2),
            ObservationType::output_use_different_observer_as_input);
  EXPECT_EQ(native.find_op("add")->observation_type_of(1),
            ObservationType::output_share_observer_with_input);
}

// -- modules --------------------------------------------------------------------------------------

QParams result_qparams() { return make_qparams({0.0625}, {120}, {.dtype = DType::quint8}); }

Tensor run(nn::Module& module, const Tensor& x) { return module(x); }

template <typename M>
void expect_lowering_agrees(std::shared_ptr<M> module, const Tensor& x) {
  BackendConfig native = get_native_backend_config();
  module->eval();
  const BackendPatternConfig& c = *native.find_module(typeid(M));
  for (QuantMode mode : {QuantMode::statically, QuantMode::dynamically, QuantMode::weight_only}) {
    const Replacement* lower = c.quantized_module(mode);
    ASSERT_NE(lower, nullptr) << to_string(mode);
    module->qconfig =
        mode == QuantMode::dynamically ? default_dynamic_qconfig() : get_default_qconfig("onednn");
    QParams result = result_qparams();
    const QParams* given = mode == QuantMode::statically ? &result : nullptr;
    nn::ModulePtr reference = (*c.reference_quantized_module)(*module);
    EXPECT_FALSE(module->has_submodule(kActivationPostProcess));
    nn::ModulePtr direct = (*lower)(*module, given), lowered = (*lower)(*reference, given);
    Tensor in =
        mode == QuantMode::statically ? quantize_per_tensor(x, 0.02, 128, DType::quint8) : x;
    Tensor a = run(*direct, in), b = run(*lowered, in);
    Tensor float_a = a.is_quantized() ? a.dequantize() : a,
           float_b = b.is_quantized() ? b.dequantize() : b;
    EXPECT_EQ(float_a.to_vector<float>(), float_b.to_vector<float>())
        << c.pattern.size() << to_string(mode);
    Tensor wanted = run(*reference, in.is_quantized() ? in.dequantize() : in);
    double tolerance = mode == QuantMode::weight_only  ? 1e-5
                       : mode == QuantMode::statically ? 0.0626
                                                       : 0.05;
    for (int64_t i = 0; i < wanted.numel(); ++i)
      EXPECT_NEAR(float_a.to_vector<float>()[static_cast<size_t>(i)],
                  wanted.to_vector<float>()[static_cast<size_t>(i)], tolerance)
          << to_string(mode);
  }
}

TEST(BackendLowering, FloatAndReferenceLayersBecomeTheSameQuantizedOnes) {
  expect_lowering_agrees(nn::make<nn::Linear>(4, 3), Tensor::randn({2, 4}, 1));
  expect_lowering_agrees(nn::make<nn::Conv1d>(2, 3, 3), Tensor::randn({1, 2, 6}, 2));
  expect_lowering_agrees(nn::make<nn::Conv2d>(2, 3, 3), Tensor::randn({1, 2, 5, 5}, 3));
  expect_lowering_agrees(nn::make<nn::Conv3d>(1, 2, 2), Tensor::randn({1, 1, 3, 3, 3}, 4));
  expect_lowering_agrees(nn::make<nn::ConvTranspose2d>(2, 3, 2), Tensor::randn({1, 2, 3, 3}, 5));
}

TEST(BackendLowering, LayersWithAReluKeepIt) {
  using Parts = std::vector<nn::ModulePtr>;
  expect_lowering_agrees(
      nn::make<nni::LinearReLU>(Parts{nn::make<nn::Linear>(4, 3), nn::make<nn::ReLU>()}),
      Tensor::randn({2, 4}, 1));
  expect_lowering_agrees(
      nn::make<nni::ConvReLU2d>(Parts{nn::make<nn::Conv2d>(2, 3, 3), nn::make<nn::ReLU>()}),
      Tensor::randn({1, 2, 5, 5}, 3));
}

TEST(BackendLowering,
     TrainedLayersBecomeReferenceAndQuantizedOnesWithTheWeightsTheyWereTrainedWith) {
  BackendConfig native = get_native_backend_config();
  auto fuse =
      *native.find({typeid(nn::Conv2d), typeid(nn::BatchNorm2d), typeid(nn::ReLU)})->fuser_method;
  nn::ModulePtr fused = fuse(
      true, {nn::make<nn::Conv2d>(2, 3, 3), nn::make<nn::BatchNorm2d>(3), nn::make<nn::ReLU>()});
  EXPECT_EQ(fused->type_name(), "ConvBnReLU2d");
  fused->qconfig = get_default_qat_qconfig("onednn");
  nn::ModulePtr qat = (*native.find_module(typeid(nni::ConvBnReLU2d))->qat_module)(*fused);
  Tensor x = Tensor::randn({2, 2, 5, 5}, 1);
  qat->train();
  (*qat)(x);
  qat->eval();
  const BackendPatternConfig& c = *native.find_module(typeid(nnqat::ConvBnReLU2d));
  nn::ModulePtr reference = (*c.reference_quantized_module)(*qat);
  EXPECT_EQ(reference->type_name(), "QuantizedReferenceConvReLU2d");
  QParams result = result_qparams();
  nn::ModulePtr direct = (*c.quantized_module(QuantMode::statically))(*qat, &result);
  nn::ModulePtr lowered =
      (*native.find_module(typeid(nni::ConvReLU2d))->quantized_module(QuantMode::statically))(
          *reference, &result);
  EXPECT_EQ(direct->type_name(), "QuantizedConvReLU2d");
  Tensor q = quantize_per_tensor(x, 0.02, 128, DType::quint8);
  EXPECT_EQ(run(*direct, q).int_repr().to_vector<uint8_t>(),
            run(*lowered, q).int_repr().to_vector<uint8_t>());
}

TEST(BackendLowering, InEvalModeBatchNormsAreFolded) {
  BackendConfig native = get_native_backend_config();
  nn::ModulePtr conv = nn::make<nn::Conv2d>(2, 3, 3), norm = nn::make<nn::BatchNorm2d>(3),
                relu = nn::make<nn::ReLU>();
  Pattern with_relu = {typeid(nn::Conv2d), typeid(nn::BatchNorm2d), "relu"};
  EXPECT_EQ((*native.find(with_relu)->fuser_method)(false, {conv, norm, relu})->type_name(),
            "ConvReLU2d");
  EXPECT_EQ((*native.find({typeid(nn::Conv2d), typeid(nn::BatchNorm2d)})->fuser_method)(
                false, {conv, norm})
                ->type_name(),
            "Conv2d");
  nn::ModulePtr transposed = nn::make<nn::ConvTranspose2d>(2, 3, 2);
  FuserMethod fuse =
      *native.find({typeid(nn::ConvTranspose2d), typeid(nn::BatchNorm2d)})->fuser_method;
  EXPECT_EQ(fuse(false, {transposed, norm})->type_name(), "ConvTranspose2d");
  expect_error(ErrorCode::unsupported, {"eval mode only"}, [&] { fuse(true, {transposed, norm}); });
}

TEST(BackendLowering, ActivationsTakeTheQparamsOfTheirResult) {
  BackendConfig native = get_native_backend_config();
  auto elu = nn::make<nn::ELU>();
  QParams result = result_qparams();
  nn::ModulePtr quantized =
      (*native.find_module(typeid(nn::ELU))->quantized_module(QuantMode::statically))(*elu,
                                                                                      &result);
  EXPECT_EQ(quantized->type_name(), "QuantizedELU");
  EXPECT_EQ(quantized->as<nnq::ELU>().scale, 0.0625);
  EXPECT_EQ(quantized->as<nnq::ELU>().zero_point, 120);
  EXPECT_FALSE(elu->has_submodule(kActivationPostProcess));
  EXPECT_FALSE(quantized->has_submodule(kActivationPostProcess));
}

TEST(BackendLowering, RecurrentNetworksAndTablesGoByTheirReferenceForms) {
  BackendConfig native = get_native_backend_config();
  auto lstm = nn::make<nn::LSTM>(3, 4);
  lstm->eval();
  lstm->qconfig = default_dynamic_qconfig();
  const BackendPatternConfig& c = *native.find_module(typeid(nn::LSTM));
  nn::ModulePtr reference = (*c.reference_quantized_module)(*lstm);
  const Replacement& lower = *c.quantized_module(QuantMode::dynamically);
  Tensor x = Tensor::randn({5, 2, 3}, 1);
  EXPECT_EQ((*lower(*lstm))(std::vector<Tensor>{x})[0].to_vector<float>(),
            (*lower(*reference))(std::vector<Tensor>{x})[0].to_vector<float>());

  auto table = nn::make<nn::Embedding>(6, 4);
  table->qconfig = float_qparams_weight_only_qconfig();
  const BackendPatternConfig& e = *native.find_module(typeid(nn::Embedding));
  nn::ModulePtr lowered =
      (*e.quantized_module(QuantMode::weight_only))(*(*e.reference_quantized_module)(*table));
  EXPECT_EQ(lowered->type_name(), "QuantizedEmbedding");
}

TEST(BackendLowering, AModuleThatDoesNotFitIsAnError) {
  BackendConfig native = get_native_backend_config();
  auto relu = nn::make<nn::ReLU>();
  QParams result = result_qparams();
  const Replacement& conv =
      *native.find_module(typeid(nn::Conv2d))->quantized_module(QuantMode::statically);
  expect_error(ErrorCode::invalid_argument, {"Conv2d", "ReLU"}, [&] { conv(*relu, &result); });
  auto fused = nn::make<nni::ConvReLU2d>(
      std::vector<nn::ModulePtr>{nn::make<nn::Conv2d>(1, 1, 1), nn::make<nn::ReLU>()});
  expect_error(ErrorCode::invalid_argument, {"ConvReLU2d", "a relu"},
               [&] { conv(*fused, &result); });
  auto plain = nn::make<nn::Conv2d>(1, 1, 1);
  expect_error(ErrorCode::invalid_argument, {"no activation_post_process"}, [&] { conv(*plain); });
}

// -- docs/backends.md -----------------------------------------------------------------------------

TEST(BackendDocs, AMappingIsBuiltAsTheDocumentSays) {
  auto mapping = quant::get_default_qconfig_mapping()
                     .set_object_type<nn::Linear>(std::nullopt)
                     .set_module_name("backbone.stem", quant::get_default_qconfig("fbgemm"));
  EXPECT_EQ(mapping.find({.module_path = "head", .module_type = typeid(nn::Linear)}), std::nullopt);
  auto read = QConfigMapping::from_json(
      R"({"": "fbgemm", "object_type": [["Linear", null]],
          "module_name": [["backbone.stem", "native"]]})");
  EXPECT_EQ(read.find({.module_path = "backbone.stem.conv"}), get_default_qconfig("native"));
  auto mixed = quant::QConfigMapping(quant::get_default_qconfig())
                   .set_module_name("head.box", quant::get_default_qconfig("a16w8"));
  EXPECT_EQ(mixed.find({.module_path = "head.box"}), get_default_qconfig("a16w8"));
  EXPECT_EQ(mixed.find({.module_path = "head"}), get_default_qconfig());
}

TEST(BackendDocs, ABackendIsChangedAsTheDocumentSays) {
  const quant::DTypeConfig int8 = {.input_dtype = {DType::quint8},
                                   .output_dtype = {DType::quint8},
                                   .weight_dtype = {DType::qint8},
                                   .bias_dtype = DType::float32};
  quant::BackendConfig backend = quant::get_native_backend_config().set_name("mine");
  backend.set_backend_pattern_config(
      quant::BackendPatternConfig(typeid(Swish))
          .add_dtype_config(int8)
          .set_quantized_module<QuantizedSwish>(quant::QuantMode::statically));
  backend.remove({typeid(nn::Conv2d), "relu"});
  EXPECT_TRUE(backend.find_module(typeid(Swish))->quantized_module(QuantMode::statically));
  EXPECT_EQ(BackendConfig::from_json(backend.to_json()), backend);
}

// -- JSON -----------------------------------------------------------------------------------------

TEST(BackendJson, EveryBuiltInBackendComesBackEqual) {
  EXPECT_EQ(get_backend_config("xnnpack"), get_qnnpack_backend_config());
  for (const std::string& name : backend_config_names()) {
    BackendConfig backend = get_backend_config(name);
    EXPECT_EQ(backend.name(), name);
    std::string text = backend.to_json();
    BackendConfig back = BackendConfig::from_json(text);
    EXPECT_EQ(back, backend) << name;
    EXPECT_EQ(back.to_json(), text) << name;
    EXPECT_EQ(backend, get_backend_config(name)) << "made twice";
  }
  EXPECT_NE(get_native_backend_config().set_name("x"), get_onednn_backend_config().set_name("x"));
}

TEST(BackendJson, AllConstraintsAndPartsComeBack) {
  BackendConfig b("mine");
  DTypeWithConstraints d{.dtype = DType::qint8,
                         .quant_min_lower_bound = -127,
                         .quant_max_upper_bound = 127,
                         .scale_min_lower_bound = 0.1,
                         .scale_max_upper_bound = 3,
                         .scale_exact_match = 1.0 / 3,
                         .zero_point_exact_match = 0};
  b.set_backend_pattern_config(
      BackendPatternConfig({typeid(Swish), "relu"})
          .add_dtype_config(
              {.input_dtype = d, .weight_dtype = {.scale_min_lower_bound = 1}, .is_dynamic = true})
          .set_quantized_module<QuantizedSwish>(QuantMode::dynamically)
          .set_quantized_op(QuantMode::statically, "clamp", {{"min", 0.0}, {"max", 6.0}}));
  BackendConfig back = BackendConfig::from_json(b.to_json());
  EXPECT_EQ(back, b);
  auto swish = nn::make<Swish>();
  const Replacement& lower = *back.configs()[0].quantized_module(QuantMode::dynamically);
  EXPECT_EQ(lower(*swish)->type_name(), "QuantizedSwish");
}

TEST(BackendJson, WhatHasNoNameCannotBeKept) {
  auto with = [](BackendPatternConfig c) {
    return BackendConfig("mine").set_backend_pattern_config(std::move(c));
  };
  auto lambda = [](nn::Module&, const QParams*) -> nn::ModulePtr {
    return nn::make<QuantizedSwish>();
  };
  BackendConfig by_function = with(
      BackendPatternConfig(typeid(Swish)).set_qat_module(Replacement::of<QuantizedSwish>(lambda)));
  BackendConfig copy = by_function;
  EXPECT_EQ(copy, by_function);
  EXPECT_NE(by_function,
            with(BackendPatternConfig(typeid(Swish)).set_qat_module<QuantizedSwish>()));
  expect_error(ErrorCode::unsupported,
               {"mine: pattern Swish", "QuantizedSwish", "OCTET_REPLACEMENT"},
               [&] { by_function.to_json(); });
  expect_error(ErrorCode::unsupported, {"UnnamedSwish", "OCTET_REPLACEMENT"}, [&] {
    with(BackendPatternConfig(typeid(Swish)).set_qat_module<UnnamedSwish>()).to_json();
  });
  expect_error(ErrorCode::unsupported, {"Unregistered", "OCTET_MODULE"},
               [&] { with(BackendPatternConfig(typeid(Unregistered))).to_json(); });
  FuserMethod fuse = [](bool, const std::vector<nn::ModulePtr>& parts) { return parts[0]; };
  expect_error(ErrorCode::unsupported, {"mine: pattern add+relu", "register_fuser_method"}, [&] {
    with(BackendPatternConfig({"add", "relu"}).set_fuser_method(fuse)).to_json();
  });
}

TEST(BackendJson, ARegisteredFuserMethodIsKeptByName) {
  static const bool once =
      (register_fuser_method("first",
                             [](bool, const std::vector<nn::ModulePtr>& p) { return p[0]; }),
       true);
  ASSERT_TRUE(once);
  BackendConfig b("mine");
  b.set_backend_pattern_config(BackendPatternConfig({"add", "relu"}).set_fuser_method("first"));
  EXPECT_EQ(BackendConfig::from_json(b.to_json()), b);
  expect_error(ErrorCode::invalid_argument, {"'first'", "taken"},
               [] { register_fuser_method("first", nullptr); });
}

TEST(BackendJson, DamagedTextIsAnErrorThatSaysWhere) {
  struct Case {
    const char* text;
    std::vector<std::string> parts;
    ErrorCode code = ErrorCode::invalid_argument;
  };
  const std::vector<Case> cases = {
      {"{", {"not valid JSON"}},
      {"[]", {"expected an object"}},
      {R"({"config": []})", {"'config'", "did you mean 'configs'"}, ErrorCode::not_found},
      {R"({"configs": [{}]})", {"configs[0]", "'pattern' is missing"}},
      {R"({"configs": [{"pattern": []}]})", {"needs a pattern"}},
      {R"({"configs": [{"pattern": ["ad"]}]})",
       {"configs[0]", "'ad'", "'add'"},
       ErrorCode::not_found},
      {R"({"configs": [{"pattern": ["add"], "dtypes": []}]})",
       {"configs[0]", "'dtypes'"},
       ErrorCode::not_found},
      {R"({"configs": [{"pattern": ["add"], "dtype_configs": [{"input_dtype": "quint9"}]}]})",
       {"configs[0]", "quint9"}},
      {R"({"configs": [{"pattern": ["add"], "dtype_configs": [{"is_dynamic": 1}]}]})",
       {"is_dynamic", "true or false"}},
      {R"({"configs": [{"pattern": ["add"], "observation_type": "share"}]})",
       {"configs[0]", "'share'"},
       ErrorCode::not_found},
      {R"({"configs": [{"pattern": ["add"], "root_module": "mul"}]})", {"'mul' is an operator"}},
      {R"({"configs": [{"pattern": ["add"], "qat_module": "octet::nn::ReLU"}]})",
       {"octet::nn::ReLU", "OCTET_REPLACEMENT"},
       ErrorCode::not_found},
      {R"({"configs": [{"pattern": ["add"], "quantized_ops": {"statik": {"op": "add"}}}]})",
       {"'statik'"},
       ErrorCode::not_found},
      {R"({"configs": [{"pattern": ["add"],
           "num_tensor_args_to_observation_type": {"two": "input_output_not_observed"}}]})",
       {"'two'"}},
  };
  for (const Case& c : cases)
    expect_error(c.code, c.parts, [&] { BackendConfig::from_json(c.text); });
}

}  // namespace
}  // namespace octet::quant
