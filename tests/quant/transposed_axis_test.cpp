// Per-channel weights of a depthwise transposed convolution (C, 1, kernel...): its second axis has
// the size 1, so the scales lie along the first one in every mode, and save and load keep that.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/graph_module.h"
#include "octet/io/module_file.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::transposed_axis_test {

using testing::sqnr;

constexpr int64_t kChannels = 6;

struct Up : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot up =
      slot("up", nn::ConvTranspose2d(kChannels, kChannels, 2, {.stride = 2, .groups = kChannels}));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(up(quant(x))); }
};
OCTET_MODULE(Up)

// One scale for all channels would leave a few codes to the last ones.
nn::ModulePtr model() {
  auto made = nn::make<Up>();
  Tensor& weight = made->up.as<nn::ConvTranspose2d>().weight;
  for (int64_t c = 0; c < kChannels; ++c)
    for (int64_t i = 0; i < 4; ++i)
      weight.data<float>()[c * 4 + i] =
          static_cast<float>(std::pow(0.3, c) * (1 + 0.1 * static_cast<double>(i)));
  made->eval();
  return made;
}

Tensor weight_of(nn::Module& quantized) {
  return quantized.submodule("up")->state_dict().at("weight");
}

void expect_scale_per_channel(const Tensor& weight) {
  ASSERT_TRUE(weight.is_quantized());
  EXPECT_EQ(weight.q_per_channel_axis(), 0);
  const std::vector<double> scales = weight.q_per_channel_scales();
  ASSERT_EQ(scales.size(), static_cast<size_t>(kChannels));
  for (int64_t c = 1; c < kChannels; ++c)
    EXPECT_NEAR(scales[static_cast<size_t>(c)] / scales[static_cast<size_t>(c) - 1], 0.3, 1e-6);
}

Tensor images(uint64_t seed) { return Tensor::randn({2, kChannels, 5, 5}, seed); }

TEST(TransposedAxis, EagerModeScalesInputChannelsOfADepthwiseLayer) {
  auto net = model();
  net->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(net);
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(images(i));
  auto int8 = quant::convert(prepared);
  expect_scale_per_channel(weight_of(*int8));
  EXPECT_GT(sqnr((*net)(images(1)).detach(), (*int8)(images(1))), 35);

  testing::TempDir dir;
  save_model(dir / "up.octet", *int8);
  auto loaded = load_model(dir / "up.octet");
  expect_scale_per_channel(weight_of(*loaded));
  EXPECT_TRUE(equal((*loaded)(images(2)), (*int8)(images(2))));
}

TEST(TransposedAxis, GraphModeScalesInputChannelsOfADepthwiseLayer) {
  auto net = model();
  for (const auto& mapping :
       {quant::get_default_qconfig_mapping(),
        quant::QConfigMapping(
            {quant::ObserverFactory(), quant::default_per_channel_weight_observer()})}) {
    auto prepared = quant::prepare_fx(net, mapping, {images(0).type()});
    for (uint64_t i = 0; i < 4; ++i) (*prepared)(images(i));
    auto converted = quant::convert_fx(prepared);
    expect_scale_per_channel(weight_of(*converted));
    const Tensor expected = (*net)(images(1)).detach(), y = (*converted)(images(1));
    EXPECT_GT(sqnr(expected, y), 35);
    EXPECT_TRUE(equal(runtime::compile(converted->to_graph()).run({images(1)})[0], y));
  }
}

}  // namespace octet::transposed_axis_test
