#include "octet/quant/backend/module_mappings.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "octet/nn/nn.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

namespace nni = nn::intrinsic;
namespace nnq = nn::quantized;
using testing::expect_error;

TEST(ModuleMapping, FollowsTheBackend) {
  BackendConfig backend = get_native_backend_config();
  ASSERT_TRUE(mapping_of(backend, QuantMode::statically).has(typeid(nn::Conv2d)));
  backend.remove({typeid(nn::Conv2d)});
  EXPECT_FALSE(mapping_of(backend, QuantMode::statically).has(typeid(nn::Conv2d)));
  backend.find({typeid(nn::Linear)})->set_quantized_module<nnq::LinearReLU>(QuantMode::statically);
  const auto names = mapping_of(backend, QuantMode::statically).names();
  EXPECT_TRUE(std::count(names.begin(), names.end(),
                         std::pair<std::string, std::string>("Linear", "LinearReLU")));
}

TEST(ModuleMapping, LeavesOutModesThatTheDTypesOfAPatternLack) {
  const BackendConfig native = get_native_backend_config();
  const std::type_index last = typeid(nn::NonDynamicallyQuantizableLinear);
  EXPECT_TRUE(mapping_of(native, QuantMode::statically).has(last));
  EXPECT_FALSE(mapping_of(native, QuantMode::dynamically).has(last));
  EXPECT_FALSE(mapping_of(native, QuantMode::weight_only).has(last));
  EXPECT_TRUE(qat_mapping_of(native).has(last));
  EXPECT_TRUE(reference_mapping_of(native).has(last));
}

TEST(LayerForms, AllHaveTheNamesOfTheirAliases) {
  EXPECT_EQ(nn::class_name(typeid(nni::LinearBn1d)), "LinearBn1d");
  EXPECT_EQ(nn::class_name(typeid(nn::qat::ConvBnReLU3d)), "ConvBnReLU3d");
  EXPECT_EQ(nn::class_name(typeid(nnq::BNReLU2d)), "BNReLU2d");
  EXPECT_EQ(nn::class_name(typeid(nnq::InstanceNorm1d)), "InstanceNorm1d");
  EXPECT_EQ(nn::registered_name(typeid(nnq::ConvReLU1d)), "octet::nn::quantized::ConvReLU1d");
  EXPECT_EQ(nn::registered_name(typeid(nnq::dynamic::ConvTranspose2d)),
            "octet::nn::quantized::dynamic::ConvTranspose2d");
  EXPECT_EQ(nn::registered_name(typeid(nnq::weight_only::Linear)),
            "octet::nn::quantized::weight_only::Linear");
  EXPECT_EQ(nn::registered_name(typeid(nnq::reference::LinearReLU)),
            "octet::nn::quantized::reference::LinearReLU");
}

std::shared_ptr<nni::ConvReLU2d> conv_relu() {
  auto fused = nn::make<nni::ConvReLU2d>(
      std::vector<nn::ModulePtr>{nn::make<nn::Conv2d>(1, 2, 3), nn::make<nn::ReLU>()});
  fused->qconfig = get_default_qat_qconfig();
  return fused;
}

TEST(LayerForms, ARelusLayerDoesNotBecomeOneWithout) {
  auto qat = nn::qat::ConvReLU2d::from_float(*conv_relu());
  expect_error(ErrorCode::invalid_argument, {"ConvReLU2d", "a relu", "Conv2d"},
               [&] { nnq::dynamic::Conv2d::from_float(*qat); });
  EXPECT_EQ(nnq::dynamic::ConvReLU2d::from_float(*qat)->op_attrs().get_string("activation"),
            "relu");
}

TEST(LayerForms, AReferenceLayersWeightIsTakenAsItIs) {
  auto reference = nnq::reference::ConvReLU2d::from_float(*conv_relu());
  reference->qconfig.reset();
  auto dynamic = nnq::dynamic::ConvReLU2d::from_float(*reference);
  EXPECT_TRUE(equal(dynamic->weight(), reference->weight()));
  EXPECT_TRUE(equal(dynamic->bias(), reference->bias()));
  expect_error(ErrorCode::invalid_argument, {"Conv2d", "QuantizedReferenceConvReLU2d"},
               [&] { nnq::dynamic::Conv2d::from_float(*reference); });
}

}  // namespace
}  // namespace octet::quant
