// Tables of embeddings with quantized rows, against PyTorch 1.13
// (tests/golden/modules_embedding.json, made by scripts/oracle/embedding_modules.py) and, where
// PyTorch is wrong, against the dequantized table.
#include "octet/quant/modules/embedding.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/quant/golden_modules.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

namespace nnq = nn::quantized;
using quant::QConfig;
using Tensors = std::vector<Tensor>;

Tensor longs(std::vector<int64_t> v) {
  const auto n = static_cast<int64_t>(v.size());
  return Tensor::from(std::move(v), {n});
}

QConfig rows_qconfig(DType dtype, bool qat) {
  if (qat)
    return dtype == DType::quint8 ? quant::default_embedding_qat_qconfig()
                                  : quant::default_embedding_qat_qconfig_4bit();
  return quant::dynamic_qconfig_for(dtype);
}

TEST(GoldenEmbeddingModules, EveryWayToATableGivesPyTorchsNumbers) {
  json cases = load_golden("modules_embedding.json");
  ASSERT_EQ(cases.size(), 120u);
  for (const json& c : cases) {
    const bool bag = c["kind"] == "EmbeddingBag", qat = c["form"] == "qat";
    const DType dtype = parse_dtype(c["dtype"].get<std::string>());
    const uint64_t seed = c["seed"];
    const Shape shape{c["rows"], c["columns"]};
    nn::ModulePtr table;
    if (bag)
      table = nn::make<nn::EmbeddingBag>(shape[0], shape[1], nn::EmbeddingBagOptions{"sum"});
    else
      table = nn::make<nn::Embedding>(shape[0], shape[1]);
    table->tensor("weight").detach().copy_from(
        Tensor::from(golden_values("normal", seed, numel(shape), c["scale"], 0), shape));
    Random indices(seed + 1), weights(seed + 2);
    std::vector<int64_t> index(bag ? 7 : 4);
    for (int64_t& i : index)
      i = static_cast<int64_t>(std::floor(indices.uniform() * static_cast<double>(shape[0])));
    Tensors inputs{longs(index)};
    if (bag) {
      inputs.push_back(longs({0, 2, 2, 5}));
      std::vector<float> w(7);
      for (float& v : w) v = static_cast<float>(weights.uniform());
      if (c["weighted"]) inputs.push_back(Tensor::from(w, {7}));
    }
    nn::ModulePtr quantized;
    if (c["form"] == "dynamic") {
      quantized = quant::quantize_dynamic(table, {}, dtype);
    } else {
      table->qconfig = rows_qconfig(dtype, qat);
      table->train(qat);
      nn::ModulePtr prepared = qat ? quant::prepare_qat(table) : quant::prepare(table);
      Tensor y = (*prepared)(inputs)[0];
      if (qat) {
        EXPECT_TRUE(allclose(y.detach(), floats_from_base64(c["trained"], y.shape()), 1e-6, 1e-6))
            << c;
      }
      prepared->eval();
      quantized = quant::convert(prepared);
    }
    EXPECT_EQ(nn::to_string(*quantized), c["repr"].get<std::string>());
    Tensor y = (*quantized)(inputs)[0], expected = floats_from_base64(c["out"], y.shape());
    // Rows alone: PyTorch's y = s*q + b with b = f(-z*s) in place of (q-z)*s: roundings of numbers
    // as large as z*s. Its sums are in float32; the s and b of its 4-bit tables in float16, a
    // hundredth of a step of the codes.
    const double scale = c["scale"], tolerance = dtype == DType::quint8 ? 1e-5 : 5e-3;
    EXPECT_TRUE(allclose(y, expected, 0, tolerance * scale)) << c;
    if (HasFailure()) return;
  }
}

// Traps: "embedding bags are wrong in mean and max, 4-bit embeddings fail".
TEST(EmbeddingModulesTraps, EveryModeAndWidthIsThatOfTheDequantizedTable) {
  manual_seed(1);
  Tensor index = longs({3, 0, 5, 5, 2, 1, 4});
  for (DType dtype : {DType::quint8, DType::quint4x2}) {
    auto table = quant::quantize_dynamic<nn::Module>(nn::make<nn::Embedding>(6, 5), {}, dtype);
    Tensor numbers = table->as<nnq::Embedding>().weight().dequantize();
    EXPECT_TRUE(equal((*table)(index), functional::embedding(index, numbers)));
    for (const char* mode : {"sum", "mean", "max"})
      for (std::optional<int64_t> padding : {std::optional<int64_t>(), std::optional<int64_t>(5)}) {
        auto bag = quant::quantize_dynamic<nn::Module>(
            nn::make<nn::EmbeddingBag>(6, 5, nn::EmbeddingBagOptions{mode, false, padding}), {},
            dtype);
        nn::EmbeddingBag plain(6, 5, {mode, false, padding});
        plain.weight = bag->as<nnq::EmbeddingBag>().weight().dequantize();
        Tensors inputs{index, longs({0, 2, 2, 5})};
        EXPECT_TRUE(equal((*bag)(inputs)[0], plain.forward(inputs)[0])) << mode;
        EXPECT_TRUE(equal((*bag)(index.reshape({1, 7})), plain.forward(index.reshape({1, 7}))))
            << mode;
        bag->as<nnq::EmbeddingBag>().options.include_last_offset =
            plain.options.include_last_offset = true;
        inputs[1] = longs({0, 2, 2, 5, 7});
        EXPECT_TRUE(equal((*bag)(inputs)[0], plain.forward(inputs)[0])) << mode;
      }
  }
}

TEST(EmbeddingModules, RowsAreNearTheFloatOnes) {
  manual_seed(2);
  auto model = nn::make<nn::Sequential>(nn::Embedding(50, 16));
  Tensor index = longs({3, 0, 49, 7}), y = model->forward(index).detach();
  EXPECT_GT(sqnr(y, quant::quantize_dynamic(model, {}, DType::quint8)->forward(index)), 45);
  EXPECT_GT(sqnr(y, quant::quantize_dynamic(model, {}, DType::quint4x2)->forward(index)), 20);
  EXPECT_GT(sqnr(y, quant::quantize_weight_only(model)->forward(index)), 45);
}

struct Text : nn::Module {
  nn::Slot embed = slot("embed", nn::Embedding(20, 8));
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot fc = slot("fc", nn::Linear(8, 3));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(quant(embed(x)))); }
};

TEST(EmbeddingModules, AStaticModelQuantizesItsTableAndTheRest) {
  manual_seed(3);
  auto model = nn::make<Text>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  model->embed->qconfig = quant::float_qparams_weight_only_qconfig();
  auto prepared = quant::prepare(model);
  Tensor index = longs({1, 2, 3, 19, 0});
  prepared->forward(index);
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->embed->type_name(), "QuantizedEmbedding");
  EXPECT_EQ(int8->fc->type_name(), "QuantizedLinear");
  EXPECT_GT(sqnr(model->forward(index).detach(), int8->forward(index)), 30);
}

TEST(EmbeddingModules, UnderAQconfigForOtherLayersATableStaysFloatAndSaysWhy) {
  manual_seed(4);
  auto model = nn::make<Text>();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(model);
  Tensor index = longs({1, 2, 3, 19, 0});
  prepared->forward(index);
  quant::ConversionReport report;
  auto int8 = quant::convert(prepared, {.report = &report});
  EXPECT_EQ(int8->embed->type_name(), "Embedding");
  ASSERT_EQ(report.left_float().size(), 1u);
  EXPECT_EQ(report.left_float()[0].node, "embed");
  EXPECT_NE(report.left_float()[0].reason.find("float_qparams_weight_only_qconfig"),
            std::string::npos);
  EXPECT_GT(sqnr(model->forward(index).detach(), int8->forward(index)), 30);
}

TEST(EmbeddingModules, DynamicQuantizationTakesTablesByTheirDtypes) {
  auto model = nn::make<nn::Sequential>(nn::Embedding(5, 4), nn::Linear(4, 2));
  auto rows = quant::quantize_dynamic(model, {}, DType::quint8),
       layers = quant::quantize_dynamic(model);
  EXPECT_EQ(rows->submodule("0")->type_name(), "QuantizedEmbedding");
  EXPECT_EQ(rows->submodule("1")->type_name(), "Linear");
  EXPECT_EQ(layers->submodule("0")->type_name(), "Embedding");
  EXPECT_EQ(layers->submodule("1")->type_name(), "DynamicQuantizedLinear");
  expect_error(ErrorCode::invalid_argument,
               {"'0' (Embedding)", "float zero points", "quint8 or quint4x2"},
               [&] { quant::quantize_dynamic(model, quant::types<nn::Embedding>()); });
  expect_error(ErrorCode::invalid_argument, {"1: Linear: float zero points are for embeddings"},
               [&] { quant::quantize_dynamic(model, quant::types<nn::Linear>(DType::quint8)); });
  auto float_rows = model->clone();
  float_rows->eval();
  float_rows->submodule("1")->qconfig = quant::float_qparams_weight_only_qconfig();
  expect_error(ErrorCode::invalid_argument, {"1: float zero points are for embeddings"},
               [&] { quant::prepare(float_rows); });
}

TEST(EmbeddingModules, TrainingReachesTheRowsButNotThoseOfPadding) {
  manual_seed(5);
  auto table = nn::make<nn::Embedding>(4, 3, 2);
  table->qconfig = quant::default_embedding_qat_qconfig();
  auto qat = quant::prepare_qat<nn::Module>(table);
  EXPECT_TRUE(qat->has_submodule("weight_fake_quant"));
  Tensor y = (*qat)(longs({1, 2, 1}));
  autograd::backward(y, Tensor::ones(y.shape()));
  Tensor gradient = autograd::grad(qat->tensor("weight"));
  EXPECT_TRUE(equal(gradient, Tensor::from<float>({0, 0, 0, 2, 2, 2, 0, 0, 0, 0, 0, 0}, {4, 3})));
  qat->eval();
  auto int8 = quant::convert(qat);
  EXPECT_EQ(int8->type_name(), "QuantizedEmbedding");
  EXPECT_TRUE(allclose((*int8)(longs({1, 2, 1})), y.detach(), 1e-6, 1e-6))
      << "what was trained is what is kept";
}

TEST(EmbeddingModules, OnlyTablesThatFitAreLoaded) {
  auto a = quant::quantize_dynamic<nn::Module>(nn::make<nn::Embedding>(4, 3), {}, DType::quint8);
  auto& table = a->as<nnq::Embedding>();
  expect_error(ErrorCode::invalid_argument, {"QuantizedEmbedding", "float qparams per row"}, [&] {
    table.set_weight(quantize_per_tensor(Tensor::zeros({4, 3}), 1, 0, DType::quint8));
  });
  auto wrong = nn::make<nn::Embedding>(4, 3);
  wrong->qconfig = quant::default_dynamic_qconfig();
  expect_error(ErrorCode::invalid_argument,
               {"Embedding: rows of embeddings have float zero points",
                "float_qparams_weight_only_qconfig()"},
               [&] { nnq::Embedding::from_float(*wrong); });
}

}  // namespace
}  // namespace octet::testing
