// Quantized convolutions whose padding is not zeros: in every form they are the convolution without
// padding of what functional::pad makes, on the same codes.
#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/io/module_file.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/norm.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::quant {
namespace {

namespace F = functional;
using testing::sqnr;

const std::vector<std::string> kModes = {"reflect", "replicate", "circular"};

template <size_t N>
Tensor image(uint64_t seed) {
  Shape shape{2, 3};
  for (size_t i = 0; i < N; ++i) shape.push_back(6 - static_cast<int64_t>(i));
  return Tensor::randn(shape, seed);
}

// Padding 2 along the last dimension, 1 along the others, as options and in the order of pads.
template <size_t N>
std::vector<int64_t> padding() {
  std::vector<int64_t> p(N, 1);
  p.back() = 2;
  return p;
}
template <size_t N>
std::vector<int64_t> pads() {
  std::vector<int64_t> p(2 * N, 1);
  p[0] = p[1] = 2;
  return p;
}

template <typename Conv>
struct PaddedNet : nn::Module {
  explicit PaddedNet(const std::string& mode)
      : conv(slot("conv", Conv(3, 4, 3,
                               {.padding = padding<Conv::spatial_dims>(), .padding_mode = mode}))) {
  }
  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot conv;
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(relu(conv(quant(x)))); }
};

// The module without its padding, with the same state.
nn::ModulePtr unpadded(nn::Module& module, size_t spatial) {
  Attrs config = module.config();
  config.set("padding", std::vector<int64_t>(spatial, 0));
  config.erase("padding_mode");
  nn::ModulePtr twin = nn::make_registered(nn::registered_name(module), config);
  twin->load_state_dict(module.state_dict());
  return twin;
}

void expect_pad_before(nn::Module& conv, size_t spatial, const std::string& mode,
                       const std::vector<int64_t>& around, const Tensor& x) {
  const nn::ModulePtr twin = unpadded(conv, spatial);
  EXPECT_TRUE(equal(conv(x), (*twin)(F::pad(x, around, mode)))) << nn::to_string(conv);
  EXPECT_NE(nn::to_string(conv).find("padding_mode=" + mode), std::string::npos)
      << nn::to_string(conv);
  const Tensor alone = x.select(0, 0);
  EXPECT_TRUE(equal(conv(alone), (*twin)(F::pad(alone, around, mode))))
      << "without the batch dimension: " << nn::to_string(conv);
}

template <typename Conv>
void expect_every_form() {
  constexpr size_t N = Conv::spatial_dims;
  for (const std::string& mode : kModes) {
    manual_seed(1);
    auto net = nn::make<PaddedNet<Conv>>(mode);
    net->eval();
    const Tensor x = image<N>(9), want = (*net)(x).detach();
    // Static, with its activation fused.
    net->qconfig = get_default_qconfig();
    auto prepared = prepare(fuse_modules(net, {{"conv", "relu"}}));
    for (uint64_t seed = 1; seed < 4; ++seed) (*prepared)(image<N>(seed));
    auto int8 = convert(prepared);
    ASSERT_EQ(int8->conv->type_name().substr(0, 17), "QuantizedConvReLU");
    const Tensor codes = int8->quant(x);
    expect_pad_before(*int8->conv, N, mode, pads<N>(), codes);
    EXPECT_EQ(int8->conv(codes).shape(), want.shape());
    EXPECT_GT(sqnr(want, (*int8)(x)), 25) << mode;
    // Others.
    for (const nn::ModulePtr& form : {quantize_dynamic<nn::Module>(net, types<Conv>()),
                                      quantize_weight_only<nn::Module>(net)}) {
      ASSERT_NE(form->submodule("conv")->type_name(), net->conv->type_name());
      expect_pad_before(*form->submodule("conv"), N, mode, pads<N>(), x);
      EXPECT_GT(sqnr(want, (*form)(x)), 25) << mode;
    }
    // Saved and loaded.
    testing::TempDir dir;
    save_model(dir / "conv.octet", *int8->conv);
    EXPECT_TRUE(equal((*load_model(dir / "conv.octet"))(codes), int8->conv(codes)));
  }
}

TEST(QuantizedPaddingMode, EveryFormPadsWhatItIsGiven1d) { expect_every_form<nn::Conv1d>(); }
TEST(QuantizedPaddingMode, EveryFormPadsWhatItIsGiven2d) { expect_every_form<nn::Conv2d>(); }
TEST(QuantizedPaddingMode, EveryFormPadsWhatItIsGiven3d) { expect_every_form<nn::Conv3d>(); }

struct TrainNet : nn::Module {
  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot conv =
      slot("conv", nn::Conv2d(3, 4, 3, {.padding = "same", .padding_mode = "circular"}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot dequant = slot("dequant", DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(bn(conv(quant(x)))); }
};

// A circular convolution commutes with rolling the image; one padded with zeros does not.
TEST(QuantizedPaddingMode, TrainingAndWhatComesOfItStayCircular) {
  manual_seed(2);
  auto net = nn::make<TrainNet>();
  net->qconfig = get_default_qat_qconfig();
  auto prepared = prepare_qat(fuse_modules_qat(net, {{"conv", "bn"}}));
  for (uint64_t seed = 1; seed < 4; ++seed) (*prepared)(image<2>(seed));
  prepared->eval();
  prepared->apply(disable_observer);
  const Tensor x = image<2>(9), rolled = F::cat({x.slice(3, 2, 5), x.slice(3, 0, 2)}, 3);
  auto roll_back = [](const Tensor& y) { return F::cat({y.slice(3, 3, 5), y.slice(3, 0, 3)}, 3); };
  EXPECT_TRUE(
      allclose((*prepared)(x).detach(), roll_back((*prepared)(rolled).detach()), 1e-4, 1e-4));
  auto int8 = convert(prepared);
  EXPECT_NE(nn::to_string(*int8).find("padding=same"), std::string::npos) << nn::to_string(*int8);
  EXPECT_TRUE(equal((*int8)(x), roll_back((*int8)(rolled))));
  EXPECT_GT(sqnr((*prepared)(x).detach(), (*int8)(x)), 30);
}

struct GraphNet : nn::Module {
  nn::Slot conv =
      slot("conv", nn::Conv2d(3, 4, 3, {.padding = {1, 2}, .padding_mode = "circular"}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv2d(4, 4, 3, {.padding = 1, .padding_mode = "reflect"}));
  Tensor forward(Tensor x) override { return conv2(relu(bn(conv(x)))); }
};

TEST(QuantizedPaddingMode, GraphModeKeepsItAndCompilesToTheSameBits) {
  manual_seed(3);
  auto model = nn::make<GraphNet>();
  model->eval();
  auto prepared =
      prepare_fx(model, get_default_qconfig_mapping(), std::vector<Tensor>{image<2>(1)});
  for (uint64_t seed = 1; seed < 4; ++seed) (*prepared)(image<2>(seed));
  auto int8 = convert_fx(prepared);
  EXPECT_EQ(int8->submodule("conv")->type_name(), "QuantizedConvReLU2d");
  EXPECT_EQ(int8->submodule("conv2")->type_name(), "QuantizedConv2d");
  const Tensor x = image<2>(9);
  EXPECT_GT(sqnr((*model)(x).detach(), (*int8)(x)), 25);
  const graph::Graph g = int8->to_graph();
  std::vector<std::string> ops;
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call) ops.push_back(node.op);
  EXPECT_EQ(ops,
            (std::vector<std::string>{"quantize", "pad", "conv2d", "pad", "conv2d", "dequantize"}));
  EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], (*int8)(x)));
}

}  // namespace
}  // namespace octet::quant
