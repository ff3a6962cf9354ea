// Mish was added as an example of what an activation takes (CONTRIBUTING.md): its statement, its
// module and its function are all that was written, and it works in every way there is to quantize.
#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/debug/metrics.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::mish_test {

struct MishNet : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot fc1 = slot("fc1", nn::Linear(8, 16));
  nn::Slot act = slot("act", nn::Mish());
  nn::Slot fc2 = slot("fc2", nn::Linear(16, 4));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc2(act(fc1(quant(x))))); }
};
OCTET_MODULE(MishNet)

Tensor mish_batch(uint64_t seed) { return Tensor::randn({16, 8}, seed); }

std::shared_ptr<MishNet> net() {
  manual_seed(1);
  auto model = nn::make<MishNet>();
  model->eval();
  return model;
}

void expect_close(const std::shared_ptr<MishNet>& model, const Tensor& actual) {
  EXPECT_GT(debug::compute_sqnr((*model)(mish_batch(9)).detach(), actual.detach()), 20);
}

TEST(Mish, EagerStatic) {
  auto model = net();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(model);
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(mish_batch(i));
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->submodule("act")->type_name(), "QuantizedMish");
  expect_close(model, (*int8)(mish_batch(9)));
}

// As many as moving averages of ranges take to settle.
constexpr uint64_t kTrainingBatches = 300;

TEST(Mish, EagerQat) {
  auto model = net();
  model->train();
  model->qconfig = quant::get_default_qat_qconfig();
  auto prepared = quant::prepare_qat(model);
  for (uint64_t i = 0; i < kTrainingBatches; ++i) (*prepared)(mish_batch(i));
  prepared->eval();
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->submodule("act")->type_name(), "QuantizedMish");
  expect_close(model, (*int8)(mish_batch(9)));
}

TEST(Mish, EagerDynamicAndWeightOnlyLeaveItFloat) {
  for (const auto& int8 : {quant::quantize_dynamic(net()), quant::quantize_weight_only(net())}) {
    EXPECT_EQ(int8->submodule("act")->type_name(), "Mish");
    EXPECT_NE(int8->submodule("fc1")->type_name(), "Linear");
  }
}

TEST(Mish, GraphStaticIsOnCodes) {
  auto model = net();
  auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(),
                                    std::vector<Tensor>{mish_batch(0)});
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(mish_batch(i));
  auto int8 = quant::convert_fx(prepared);
  EXPECT_EQ(int8->submodule("act")->type_name(), "QuantizedMish");
  expect_close(model, (*int8)(mish_batch(9)));
}

TEST(Mish, GraphDynamicAndQat) {
  auto model = net();
  auto dynamic = quant::prepare_fx(model, quant::default_dynamic_qconfig(),
                                   std::vector<Tensor>{mish_batch(0)});
  expect_close(model, (*quant::convert_fx(dynamic))(mish_batch(9)));
  model->train();
  auto trained = quant::prepare_qat_fx(model, quant::get_default_qat_qconfig_mapping(),
                                       std::vector<Tensor>{mish_batch(0)});
  for (uint64_t i = 0; i < kTrainingBatches; ++i) (*trained)(mish_batch(i));
  trained->eval();
  model->eval();
  auto int8 = quant::convert_fx(trained);
  EXPECT_EQ(int8->submodule("act")->type_name(), "QuantizedMish");
  expect_close(model, (*int8)(mish_batch(9)));
}

TEST(Mish, OnnxOutAndInComputesTheSame) {
  testing::TempDir dir;
  graph::Graph g;
  const auto x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
  g.set_outputs({g.add_call("y", "mish", {x})});
  io::export_onnx(g, dir / "mish.onnx");
  const Tensor in = mish_batch(3);
  EXPECT_TRUE(allclose(runtime::compile(io::import_onnx(dir / "mish.onnx")).run({in})[0],
                       functional::mish(in), 1e-6, 1e-7));
}

TEST(Mish, OnnxMishIsTheOperator) {
  const graph::Graph g =
      testing::OnnxModel(18).input("x", {2, 3}).node("Mish", {"x"}, {"y"}).output("y").import();
  EXPECT_EQ(testing::ops_of(g), "mish");
}

}  // namespace octet::mish_test
