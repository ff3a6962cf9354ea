// fuse_modules: what becomes what, and that nothing else changes.
#include "octet/quant/workflow/fuse.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/random.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/observe/qconfig.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using testing::expect_error;

// A batch norm that does something.
template <typename Norm>
Norm lively(int64_t features, uint64_t seed) {
  Norm bn(features);
  bn.weight = Tensor::rand({features}, seed, -2, 2);
  bn.bias = Tensor::rand({features}, seed + 1, -1, 1);
  bn.running_mean = Tensor::rand({features}, seed + 2, -1, 1);
  bn.running_var = Tensor::rand({features}, seed + 3, 0.3, 3);
  return bn;
}

void expect_near(const Tensor& a, const Tensor& b) {
  EXPECT_TRUE(allclose(a.detach(), b.detach(), 1e-4, 1e-5));
}

template <typename Layer, typename Norm>
void check_folding(Layer layer, const Shape& input, const char* with_relu) {
  manual_seed(3);
  int64_t channels = layer.bias.defined() ? layer.bias.numel() : layer.out_channels;
  auto model = nn::make<nn::Sequential>(std::move(layer), lively<Norm>(channels, 7), nn::ReLU());
  model->eval();
  Tensor x = Tensor::randn(input, 5), y = model->forward(x);
  auto two = fuse_modules(model, {{"0", "1"}});
  EXPECT_EQ(two->submodule("1")->type_name(), "Identity");
  EXPECT_EQ(two->submodule("0")->type_name(), nn::class_name(typeid(Layer)));
  expect_near(two->forward(x), y);
  if (!with_relu) return;
  auto three = fuse_modules(model, {{"0", "1", "2"}});
  EXPECT_EQ(three->submodule("0")->type_name(), with_relu);
  expect_near(three->forward(x), y);
}

TEST(FuseModules, BatchNormsAreFoldedInEvalMode) {
  check_folding<nn::Conv1d, nn::BatchNorm1d>(nn::Conv1d(4, 6, 3, {.groups = 2}), {2, 4, 9},
                                             "ConvReLU1d");
  check_folding<nn::Conv2d, nn::BatchNorm2d>(nn::Conv2d(4, 6, 3, {.groups = 2}), {2, 4, 5, 5},
                                             "ConvReLU2d");
  check_folding<nn::Conv2d, nn::BatchNorm2d>(nn::Conv2d(4, 6, 3, {.bias = false}), {2, 4, 5, 5},
                                             "ConvReLU2d");
  check_folding<nn::Conv3d, nn::BatchNorm3d>(nn::Conv3d(2, 3, 2), {2, 2, 4, 4, 4}, "ConvReLU3d");
}

TEST(FuseModules, TransposedConvolutionsFoldAlongTheirOwnAxis) {
  // Trap: with groups the output channels are spread over both of the weight's first dimensions.
  for (int64_t groups : {1, 2}) {
    check_folding<nn::ConvTranspose1d, nn::BatchNorm1d>(
        nn::ConvTranspose1d(4, 6, 3, {.groups = groups}), {2, 4, 5}, nullptr);
    check_folding<nn::ConvTranspose2d, nn::BatchNorm2d>(
        nn::ConvTranspose2d(4, 6, 3, {.stride = 2, .groups = groups}), {2, 4, 5, 5}, nullptr);
    check_folding<nn::ConvTranspose3d, nn::BatchNorm3d>(
        nn::ConvTranspose3d(4, 4, 2, {.groups = groups}), {1, 4, 3, 3, 3}, nullptr);
  }
}

TEST(FuseModules, LinearAndBatchNorm) {
  auto model = nn::make<nn::Sequential>(nn::Linear(4, 6), lively<nn::BatchNorm1d>(6, 7));
  model->eval();
  Tensor x = Tensor::randn({3, 4}, 5);
  auto fused = fuse_modules(model, {{"0", "1"}});
  EXPECT_EQ(fused->submodule("0")->type_name(), "Linear");
  expect_near(fused->forward(x), model->forward(x));
}

TEST(FuseModules, InTrainingModeTheBatchNormStaysAPart) {
  auto model =
      nn::make<nn::Sequential>(nn::Conv2d(1, 2, 3), nn::BatchNorm2d(2), nn::ReLU(),
                               nn::Linear(3, 3), nn::ReLU(), nn::BatchNorm2d(2), nn::ReLU());
  auto fused = fuse_modules_qat(model, {{"0", "1", "2"}, {"3", "4"}, {"5", "6"}});
  EXPECT_EQ(fused->submodule("0")->type_name(), "ConvBnReLU2d");
  EXPECT_EQ(fused->submodule("3")->type_name(), "LinearReLU");
  EXPECT_EQ(fused->submodule("5")->type_name(), "BNReLU2d");
  EXPECT_EQ(fuse_modules(model, {{"0", "1"}})->submodule("0")->type_name(), "ConvBn2d");
}

TEST(FuseModules, UsersAddTheirOwn) {
  FuseOptions options;
  options.additional.add<nn::Linear, nn::Sigmoid>([](bool, const std::vector<nn::ModulePtr>& p) {
    return nn::make<nn::Sequential>(p[0], p[1]);
  });
  auto model = nn::make<nn::Sequential>(nn::Linear(2, 2), nn::Sigmoid());
  model->eval();
  auto fused = fuse_modules(model, {{"0", "1"}}, options);
  EXPECT_EQ(fused->submodule("0")->type_name(), "Sequential");
}

TEST(FuseModulesTraps, ErrorsNameTheModulesAndTheirMode) {
  auto model =
      nn::make<nn::Sequential>(nn::Conv2d(1, 2, 3), nn::BatchNorm2d(2), nn::ReLU(), nn::Sigmoid());
  model->eval();
  expect_error(ErrorCode::invalid_argument,
               {"fuse_modules_qat", "0 (Conv2d, eval mode)", "train()"}, [&] {
                 fuse_modules_qat(model, {{"0", "1"}});
               });
  expect_error(ErrorCode::unsupported,
               {"no fusion is known for", "2 (ReLU, eval mode)", "3 (Sigmoid, eval mode)"}, [&] {
                 fuse_modules(model, {{"2", "3"}});
               });
  expect_error(ErrorCode::not_found, {"no submodule 'bn1'"}, [&] {
    fuse_modules(model, {{"0", "bn1"}});
  });
  expect_error(ErrorCode::invalid_argument, {"'1' is fused already"}, [&] {
    fuse_modules(model, {{"0", "1"}, {"1", "2"}});
  });
  model->submodule("1")->train();
  expect_error(ErrorCode::invalid_argument,
               {"different modes", "0 (Conv2d, eval mode)", "1 (BatchNorm2d, training mode)"}, [&] {
                 fuse_modules(model, {{"0", "1"}});
               });
  model->eval();
  model->submodule("0")->qconfig = get_default_qconfig();
  model->submodule("1")->qconfig = get_default_qconfig("qnnpack");
  expect_error(ErrorCode::invalid_argument, {"'0' and '1' have different qconfigs"}, [&] {
    fuse_modules(model, {{"0", "1"}});
  });
  auto relu = nn::make<nn::ReLU>();
  auto shared = nn::make<nn::Sequential>(nn::Conv2d(1, 1, 1), relu, nn::Conv2d(1, 1, 1), relu);
  shared->eval();
  expect_error(ErrorCode::invalid_argument, {"'1' stands in 2 places"}, [&] {
    fuse_modules(shared, {{"0", "1"}});
  });
}

TEST(FuseModulesTraps, ABatchNormOfOtherChannelsOrWithoutStatistics) {
  auto model = nn::make<nn::Sequential>(nn::Conv2d(1, 2, 3), nn::BatchNorm2d(3));
  model->eval();
  expect_error(ErrorCode::invalid_argument, {"2 output channels", "3 features"}, [&] {
    fuse_modules(model, {{"0", "1"}});
  });
  auto bare = nn::make<nn::Sequential>(nn::Conv2d(1, 2, 3),
                                       nn::BatchNorm2d(2, {.track_running_stats = false}));
  bare->eval();
  expect_error(ErrorCode::invalid_argument, {"no running statistics"}, [&] {
    fuse_modules(bare, {{"0", "1"}});
  });
}

}  // namespace
}  // namespace octet::quant
