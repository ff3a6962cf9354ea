// Every layer between a QuantStub and a DeQuantStub: prepared, calibrated and converted it is near
// the float one, or an Error says why not.
#include <gtest/gtest.h>

#include <set>

#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/quant/golden_modules.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

namespace nnq = nn::quantized;

struct NormCase {
  nn::ModulePtr layer;
  Shape input;
  const char* becomes;  // "": it stays as it is
};

template <typename M, typename... Args>
nn::ModulePtr made(Args&&... args) {
  return nn::make<M>(std::forward<Args>(args)...);
}

// Running statistics and affine parameters that are not 1 and 0.
nn::ModulePtr random(nn::ModulePtr m, uint64_t seed) {
  auto fill = [&](std::vector<std::pair<std::string, Tensor*>> tensors) {
    for (auto& [name, t] : tensors)
      if (is_floating(t->dtype())) {
        Tensor value = name.find("var") != std::string::npos
                           ? Tensor::rand(t->shape(), seed++) + Tensor::scalar(0.5)
                           : Tensor::randn(t->shape(), seed++);
        t->detach().copy_from(value);
      }
  };
  fill(m->named_parameters());
  fill(m->named_buffers());
  return m;
}

std::vector<NormCase> cases() {
  const Shape flat{6, 8}, line{2, 8, 9}, image{2, 8, 6, 6}, volume{2, 8, 4, 4, 4};
  using Up = functional::InterpolateOptions;
  const nn::InstanceNormOptions affine{.affine = true},
      tracked{.affine = true, .track_running_stats = true};
  return {
      {made<nn::Linear>(8, 5), flat, "QuantizedLinear"},
      {made<nn::NonDynamicallyQuantizableLinear>(8, 5), flat, "QuantizedLinear"},
      {made<nn::Conv1d>(8, 4, 3), line, "QuantizedConv1d"},
      {made<nn::Conv2d>(8, 4, 3), image, "QuantizedConv2d"},
      {made<nn::Conv3d>(8, 4, 3), volume, "QuantizedConv3d"},
      {made<nn::ConvTranspose1d>(8, 4, 3), line, "QuantizedConvTranspose1d"},
      {made<nn::ConvTranspose2d>(8, 4, 3), image, "QuantizedConvTranspose2d"},
      {made<nn::ConvTranspose3d>(8, 4, 3), volume, "QuantizedConvTranspose3d"},
      {random(made<nn::BatchNorm1d>(8), 1), line, "QuantizedBatchNorm1d"},
      {random(made<nn::BatchNorm2d>(8), 2), image, "QuantizedBatchNorm2d"},
      {random(made<nn::BatchNorm3d>(8), 3), volume, "QuantizedBatchNorm3d"},
      {random(made<nn::LayerNorm>(Shape{6, 6}), 4), image, "QuantizedLayerNorm"},
      {made<nn::LayerNorm>(8, 1e-3, false), flat, "QuantizedLayerNorm"},
      {random(made<nn::GroupNorm>(2, 8), 5), image, "QuantizedGroupNorm"},
      {made<nn::GroupNorm>(4, 8, 1e-5, false), flat, "QuantizedGroupNorm"},
      {made<nn::InstanceNorm1d>(8), line, "QuantizedInstanceNorm1d"},
      {random(made<nn::InstanceNorm2d>(8, affine), 6), image, "QuantizedInstanceNorm2d"},
      {random(made<nn::InstanceNorm2d>(8, tracked), 7), image, "QuantizedInstanceNorm2d"},
      {made<nn::InstanceNorm2d>(8), {8, 6, 6}, "QuantizedInstanceNorm2d"},
      {random(made<nn::InstanceNorm3d>(8, affine), 8), volume, "QuantizedInstanceNorm3d"},
      {made<nn::Sigmoid>(), flat, "QuantizedSigmoid"},
      {made<nn::Tanh>(), flat, "QuantizedTanh"},
      {made<nn::Hardsigmoid>(), flat, "QuantizedHardsigmoid"},
      {made<nn::Hardswish>(), flat, "QuantizedHardswish"},
      {made<nn::LeakyReLU>(), flat, "QuantizedLeakyReLU"},
      {made<nn::ELU>(), flat, "QuantizedELU"},
      {made<nn::CELU>(), flat, "QuantizedCELU"},
      {made<nn::GELU>(), flat, "QuantizedGELU"},
      {made<nn::SELU>(), flat, "QuantizedSELU"},
      {made<nn::SiLU>(), flat, "QuantizedSiLU"},
      {made<nn::Softplus>(2, 4), flat, "QuantizedSoftplus"},
      {made<nn::Softsign>(), flat, "QuantizedSoftsign"},
      {made<nn::Mish>(), flat, "QuantizedMish"},
      {made<nn::Softmax>(1), flat, "QuantizedSoftmax"},
      {made<nn::LogSoftmax>(1), flat, "QuantizedLogSoftmax"},
      {made<nn::PReLU>(8), image, "QuantizedPReLU"},
      {made<nn::Identity>(), flat, ""},
      {made<nn::ReLU>(), flat, ""},
      {made<nn::ReLU6>(), flat, ""},
      {made<nn::Hardtanh>(-0.7, 1.1), flat, ""},
      {made<nn::Dropout>(), flat, ""},
      {made<nn::Dropout1d>(), line, ""},
      {made<nn::Dropout2d>(), image, ""},
      {made<nn::Dropout3d>(), volume, ""},
      {made<nn::MaxPool1d>(2), line, ""},
      {made<nn::MaxPool2d>(2), image, ""},
      {made<nn::MaxPool3d>(2), volume, ""},
      {made<nn::AvgPool1d>(2), line, ""},
      {made<nn::AvgPool2d>(3, nn::AvgPoolOptions<2>{.padding = 1, .count_include_pad = false}),
       image, ""},
      {made<nn::AvgPool3d>(2), volume, ""},
      {made<nn::AdaptiveAvgPool1d>(3), line, "QuantizedAdaptiveAvgPool1d"},
      {made<nn::AdaptiveAvgPool2d>(3), image, "QuantizedAdaptiveAvgPool2d"},
      {made<nn::AdaptiveAvgPool3d>(2), volume, "QuantizedAdaptiveAvgPool3d"},
      {made<nn::AdaptiveMaxPool1d>(3), line, ""},
      {made<nn::AdaptiveMaxPool2d>(3), image, ""},
      {made<nn::AdaptiveMaxPool3d>(2), volume, ""},
      {made<nn::Flatten>(), image, ""},
      {made<nn::Unflatten>(1, std::vector<int64_t>{2, 4}), flat, ""},
      {made<nn::PixelShuffle>(2), image, ""},
      {made<nn::PixelUnshuffle>(2), image, ""},
      {made<nn::ChannelShuffle>(2), image, ""},
      {made<nn::Upsample>(Up{.scale_factor = {2}}), image, ""},
      {made<nn::Upsample>(Up{.size = {9, 7}, .mode = "bilinear", .align_corners = true}), image,
       ""},
      {made<nn::Upsample>(Up{.scale_factor = {1.5}, .mode = "bicubic"}), image, ""},
  };
}

std::shared_ptr<nn::Sequential> between_stubs(const nn::ModulePtr& layer) {
  auto model = nn::make<nn::Sequential>();
  model->append(nn::make<quant::QuantStub>());
  model->append(layer);
  model->append(nn::make<quant::DeQuantStub>());
  return model;
}

TEST(StaticModules, EveryLayerBetweenStubsIsNearTheFloatOne) {
  manual_seed(1);
  for (NormCase& c : cases()) {
    SCOPED_TRACE(nn::to_string(*c.layer));
    auto model = between_stubs(c.layer);
    Tensor x = Tensor::randn(c.input, 11);
    for (bool qat : {false, true}) {
      auto copy = std::static_pointer_cast<nn::Sequential>(model->clone());
      copy->train(qat);
      copy->qconfig = qat ? quant::get_default_qat_qconfig() : quant::get_default_qconfig();
      auto prepared = qat ? quant::prepare_qat(copy) : quant::prepare(copy);
      // as the last epoch: averages near their end, the statistics of batches no longer moving
      if (qat) {
        for (auto& [name, m] : prepared->named_modules())
          if (dynamic_cast<nn::BatchNorm*>(m) || dynamic_cast<nn::InstanceNorm*>(m) ||
              dynamic_cast<nn::Dropout*>(m))
            m->eval();
      }
      prepared->forward(x);
      prepared->eval();
      quant::ConversionReport report;
      auto int8 = quant::convert(prepared, {.report = &report});
      EXPECT_TRUE(report.left_float().empty());
      EXPECT_EQ(int8->submodule("1")->type_name(), *c.becomes ? c.becomes : c.layer->type_name());
      copy->eval();
      EXPECT_GT(sqnr(copy->forward(x), int8->forward(x)), 28) << (qat ? "trained" : "calibrated");
      Tensor codes = (*int8->submodule("1"))((*int8->submodule("0"))(x));
      EXPECT_TRUE(codes.is_quantized()) << "the layer works on codes";
    }
  }
}

// tests/golden/modules_norm.json, made by scripts/oracle/norm_modules.py.
TEST(GoldenNormModules, NormalizationsGivePyTorchsCodes) {
  json golden = load_golden("modules_norm.json");
  ASSERT_EQ(golden.size(), 120u);
  for (const json& c : golden) {
    Attrs config = attrs_of(c["config"]);
    config.set("dtype", c["dtype"].get<std::string>());
    nn::ModulePtr module =
        nn::make_registered("octet::nn::quantized::" + c["module"].get<std::string>(), config);
    module->eval();
    auto state = module->state_dict();
    const uint64_t seed = c["seed"];
    const Shape shape = state.at("weight").shape();
    state["scale"] = Tensor::scalar(c["y"][0], DType::float64);
    state["zero_point"] = Tensor::scalar(c["y"][1], DType::int64);
    state["weight"] = Tensor::from(golden_values("normal", seed + 3, numel(shape), 1, 0), shape);
    state["bias"] = Tensor::from(golden_values("normal", seed + 4, numel(shape), 1, 0), shape);
    module->load_state_dict(state);
    Tensor x = golden_codes_of(seed, c["shape"].get<Shape>(), c["x"],
                               parse_dtype(c["dtype"].get<std::string>()));
    expect_codes(module->forward(x), c["result"], c["steps"], c.dump());
    if (HasFailure()) return;
  }
}

TEST(StaticModules, TheseAreAllLayersOfOneInput) {
  std::set<std::string> covered{
      // Of indices, of several inputs, or observed in pieces: tests of their own.
      "Embedding", "EmbeddingBag", "Bilinear",   "LSTM",      "GRU",
      "RNN",       "LSTMCell",     "GRUCell",    "RNNCell",   "MultiheadAttention",
      "Module",    "Sequential",   "ModuleList", "ModuleDict"};
  for (const NormCase& c : cases()) covered.insert(c.layer->type_name());
  for (const std::string& name : nn::registered_names()) {
    const std::string room = "octet::nn::";
    if (!name.starts_with(room) || name.find(':', room.size()) != std::string::npos ||
        name.ends_with("Loss"))
      continue;
    EXPECT_TRUE(covered.count(name.substr(room.size()))) << name << ": add it to the table above";
  }
}

TEST(StaticModules, AllEnginesGiveTheSameCodes) {
  manual_seed(2);
  for (NormCase& c : cases()) {
    auto model = between_stubs(c.layer);
    model->eval();
    model->qconfig = quant::get_default_qconfig();
    auto prepared = quant::prepare(model);
    Tensor x = Tensor::randn(c.input, 12);
    prepared->forward(x);
    auto int8 = quant::convert(prepared);
    Tensor y = int8->forward(x);
    set_engine("reference");
    EXPECT_TRUE(equal(int8->forward(x), y)) << nn::to_string(*c.layer);
    set_engine("native");
  }
}

TEST(StaticModulesTraps, LayersWithoutAStaticFormSayWhatToDo) {
  struct Net : nn::Module {
    nn::Slot quant = slot("quant", quant::QuantStub());
    nn::Slot gru = slot("gru", nn::GRU(4, 3));
    nn::Slot dequant = slot("dequant", quant::DeQuantStub());
    Tensor forward(Tensor x) override { return dequant(gru(quant(x))); }
  };
  auto model = nn::make<Net>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(model);
  prepared->forward(Tensor::randn({3, 2, 4}, 1));
  expect_error(ErrorCode::invalid_argument,
               {"'gru' (GRU) stays float but its input will be quantized, from 'quant': put a "
                "DeQuantStub between"},
               [&] { quant::convert(prepared); });
}

}  // namespace
}  // namespace octet::testing
