// docs/conformance.md is made from the golden files and the texts below:
//   OCTET_UPDATE_DOCS=1 build/bin/test_quant --gtest_filter=Conformance.*
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace octet {
namespace {

using nlohmann::json;

// Golden files whose names begin with `files` (the longest beginning counts), and how they are compared.
struct Row {
  const char *area, *files, *comparison, *script, *test;
};

constexpr const char* kBits = "bits";

const std::vector<Row> kRows = {
    {"qparams of MinMax and MovingAverageMinMax observers", "observers_min_max", kBits, "observers", "GoldenObserver"},
    {"the same per channel", "observers_per_channel", kBits, "observers", "GoldenObserver"},
    {"qparams: fixed, float-qparams (embeddings), qnnpack's symmetric family", "observers_more", kBits, "observers",
     "GoldenObserver"},
    {"qparams of HistogramObserver", "observers_histogram", "squared error at most PyTorch's search's: the range is chosen otherwise",
     "observers", "GoldenHistogramObserver"},
    {"named qconfigs, observers and fake-quantize modules", "observers_qconfigs", "every field equal", "observers", "GoldenQConfig"},
    {"QConfigMapping: the entry each call gets, default mappings", "qconfig_mapping", "equal", "qconfig_mapping", "GoldenQConfigMapping"},
    {"patterns of the native, qnnpack and tensorrt backend configs", "backend_config",
     "each is there, with its dtypes, observation type and modules; octet's have more", "backend_config", "GoldenBackendConfig"},
    {"fake quantization, forward and gradient", "fake_quantize_operators",
     "bits; gradients of learned steps to 2e-5 of their largest terms (sums in another order)", "fake_quantize",
     "GoldenFakeQuantize"},
    {"fake-quantize modules over several batches", "fake_quantize_modules", kBits, "fake_quantize", "GoldenFakeQuantize"},
    {"batch norms folded into linear, conv and transposed conv layers", "fold", kBits, "fold", "GoldenFold"},
    {"Linear, LinearReLU", "modules_linear", "bits on qnnpack; 1 step on onednn, which adds the bias in float", "modules",
     "GoldenModules"},
    {"Conv1d, 2d, 3d and with ReLU", "modules_conv", "bits on qnnpack; 1 step on onednn", "modules", "GoldenModules"},
    {"ConvTranspose1d, 2d, 3d", "modules_conv_transpose", "bits on qnnpack; 1 step on onednn", "modules", "GoldenModules"},
    {"ELU, LeakyReLU, Hardswish, Sigmoid, Softmax, PReLU; BatchNorm1d, 2d, 3d, BNReLU2d, 3d", "modules_activations",
     "bits; batch norms 1 step: PyTorch scales codes by one rounded factor", "modules", "GoldenModules"},
    {"operators on codes: relu, hardtanh, tanh, gelu ..., pools, mean, interpolate, pixel_shuffle", "modules_operators",
     "bits; averages and bilinear interpolation 1 step: PyTorch rounds them otherwise on each engine", "modules", "GoldenModules"},
    {"QFunctional: add, add_relu, mul, cat, matmul, add_scalar, mul_scalar; Quantize, DeQuantize", "modules_functional",
     "bits; add of 32 elements and more 1 step: PyTorch's vector path and qnnpack's fixed point", "modules", "GoldenModules"},
    {"dynamic Linear and LinearReLU", "modules_dynamic", "bits on qnnpack", "modules", "GoldenModules"},
    {"reference layers", "modules_reference", "weights: bits; results to 1e-5 (float sums in another order)", "modules",
     "GoldenModules"},
    {"LSTM, GRU and cells through quantize_dynamic, and how they print", "modules_recurrent", "5e-7: sigmoid and tanh are rounded from double here",
     "recurrent_modules", "GoldenRecurrentModules"},
    {"Embedding and EmbeddingBag of 8 and 4 bits, static, dynamic and in training", "modules_embedding",
     "1e-5 of the table's spread: PyTorch computes s*q + f(-z*s), of 4-bit tables with s and z*s in float16: 5e-3; bags are sums",
     "embedding_modules", "GoldenEmbeddingModules"},
    {"LayerNorm, GroupNorm, InstanceNorm1d, 2d, 3d", "modules_norm", "1 step: PyTorch sums codes in vectors of float32", "norm_modules",
     "GoldenNormModules"},
    {"run-time qparams and codes", "dynamic_qparams", kBits, "dynamic", "GoldenDynamic"},
    {"linear_dynamic", "dynamic_linear", "bits on qnnpack", "dynamic", "GoldenDynamic"},
    {"LSTM, GRU, RNN and cells, float and dynamic", "dynamic_recurrent",
     "5e-7: sigmoid and tanh are rounded from double here", "dynamic", "GoldenRecurrent"},
    {"embeddings and bags of 8 and 4 bits", "embedding", "codes and rows: bits; bags to 1e-6, against float bags", "embedding",
     "GoldenEmbedding"},
    {"whole models, static, qnnpack", "eager_qnnpack",
     "every weight, scale, zero point, code and output: bits (scales 2e-6 where calibration sums floats in another order; batch norms "
     "on codes 1 step; outputs of float layers 1e-6)", "eager", "GoldenEager"},
    {"whole models, static, onednn", "eager_onednn", "weights: bits; codes of each module 1 step", "eager", "GoldenEager"},
    {"whole models, named qconfigs", "eager_named", "squared error against the float model: no larger in the mean", "eager",
     "GoldenEager"},
    {"whole models, dynamic, qnnpack", "eager_dynamic", kBits, "eager", "GoldenEager"},
    {"graphs of small models: traced, fused, prepared, reference, lowered", "fx_graphs",
     "node for node, but for the differences listed below", "fx_graphs", "GoldenFxGraphs"},
    {"the same models calibrated: every observer, every value on codes, results of reference and lowered graph", "fx_outputs",
     "zero points and codes equal on qnnpack, scales and lowered results to 1e-6 (float layers come before); reference results 1e-5 of the largest element, 1 step on ties; but for the "
     "differences listed below", "fx_outputs", "GoldenFxOutputs"},
    {"QAT: five steps of SGD, then eval, then convert", "qat",
     "losses 1e-3 (ResNet 2e-2: a float sum on a tie moves a value by a step); fake-quantized output 1e-5; converted weights, codes and "
     "output from PyTorch's state: bits", "qat", "GoldenQat"},
    {"float layers: forward, gradients, buffers, printing", "layers", "1e-5 of the largest element (float sums in another order)",
     "layers", "GoldenLayers"},
    {"ResNet-18, MobileNetV2 (against torchvision), BERT, bidirectional LSTM of examples/models", "example_models",
     "state dicts: every name and shape; results 2e-5 of the largest element", "example_models", "GoldenExampleModels"},
    {"cross-layer equalization of chains of Conv2d and Linear", "equalize", "1e-6: PyTorch rounds weights in every turn, octet once",
     "equalize", "GoldenEqualize"},
    {"input-weight equalization of Linear, Conv1d, 2d, 3d and functional linear in graph mode", "input_weight_equalization",
     "scales, weights, biases 1e-6; scaled ranges 1e-5", "input_weight_equalization", "GoldenInputWeightEqualization"},
    {"ModelReport: per-channel, dynamic/static, input-weight and outlier detectors", "model_report",
     "numbers 1e-5, classifications and recommendations exactly, but for those named below", "model_report", "GoldenModelReport"},
    {"losses, forward and gradient", "layers_loss", "1e-5", "layers", "GoldenLayers"},
    {"optimizers, schedules, clipping, distillation", "optimizers", "parameters 1e-5, rates 1e-12", "layers", "GoldenOptimizers"},
};

const char* const kDifferences = R"(
## What differs on purpose, and why
| PyTorch 1.13 | octet | why |
|---|---|---|
| HistogramObserver cuts ranges to whole numbers when it fills bins, and its result depends on batches | exact counts on one grid, any order and batching | up to half of small-valued data is lost otherwise: on the named qconfigs octet's error is between 2% and 141% of PyTorch's, 25% in the (geometric) mean |
| an observer of a fused module sees each batch twice (as part of the Sequential, then by its hook) | once | a moving average moves twice as fast as asked; goldens are made with the hook off |
| FusedMovingAvgObsFakeQuantize converts with its observer's qparams, not those its forward used | with those of its forward; `observer().calculate_qparams()` gives the others | the converted model is the one that was trained; both are compared |
| QAT leaves Conv1d and ConvReLU1d float | they are fake-quantized | they are quantized by convert, so training must see it |
| learned zero points: backward rounds negative ones otherwise than forward | half to even both ways | the gradient belongs to the forward pass |
| PReLU's slopes are quantized | float slopes | small slopes became 0 |
| with reduce_range the range is searched for 256 steps, the scale made of 127 | searched for the quantizer that runs: a step of the 127th part of the range, codes 0..255 | up to 2.7 times the error otherwise |
| quantized Sigmoid on qnnpack only with scale 1/256 | any scale | |
| Softmax, Tanh, Hardsigmoid, GELU, CELU: functional only, or float in eager mode | quantized modules | |
| add: vector path, scalar path and qnnpack round differently | one formula: dequantize, add, quantize | the result must not depend on length or engine; PyTorch's scalar path is equal |
| averages and means: rounding depends on engine and layout | one formula, on the sum of codes | as above |
| avg_pool ignores count_include_pad=False on qnnpack | honoured | up to 122 steps off |
| max_pool with dilation and padding on qnnpack takes the border's code for the padding's | padding never wins | up to 180 steps off |
| batch norm on codes: one float32 factor per channel | float batch norm on dequantized values | the contract of all norms |
| onednn: a bias is added in float | bias in int32, as qnnpack and ONNX Runtime do | exact in any order |
| onednn: weights need zero point 0, transposed convolutions no output_padding | no such limits | |
| onednn: depthwise convolutions with several outputs per channel and 8 taps are up to 58 steps off | right | |
| onednn: a 1x1 convolution of one channel gives garbage after some others ran in the process | right | state kept between calls |
| transposed convolutions: per-channel weights refused (onednn) or failing with groups (qnnpack), 3d of wrong shape on qnnpack | work | |
| a batch norm folded into a transposed convolution with groups takes the wrong axis | right; goldens fold group by group | |
| conv+bn in QAT with gamma 0 gives NaN | the channel's weight is left unscaled | |
| quantized embedding bags are wrong in mean and max and forget include_last_offset, 4-bit embeddings fail | right; goldens are bags of dequantized rows | |
| dynamic LSTM and GRU fail without biases, unbatched and with proj_size; RNN has no dynamic form | work | |
| static LSTM: tanh has the scale 1/128, both directions get the first one's; proj_size fails | the least range that holds the results | small and reversed states stay accurate |
| static attention with batch_first is wrong or fails | right | |
| dynamic quantization leaves attention float | its projections become dynamic layers | |
| recurrent layers: vector approximations of sigmoid and tanh | rounded from double | rounded once |
| reduce_range of dynamic layers is ignored on qnnpack | off unless set; then honoured | |
| NaN, infinity: the code depends on the memory layout | NaN the zero point, infinities the ends; in calibration an error that counts them | |
| cross-layer equalization of a channel whose weights all have one sign: its range leaves 0 out, is 0 for a single weight and gives NaN | 0 is counted in, channels without a range are left alone | the range is that which a quantizer covers |
| cross-layer equalization: pairs of Conv2d and Linear with bias; takes any pair | all convolutions, depthwise ones between, no bias needed; what would change the model is refused where it can be seen | |
| input-weight equalization: what a layer makes is scaled only if it is itself equalized; if not, the mul is left out as well and the model computes something else (likewise behind any call named relu, and for functional biases whose name lacks "bias") | the layer before takes the scale wherever it alone makes the input, else there is a mul | the model has to compute what it did |
| input-weight equalization: between two equalized layers the observer keeps the range that the value had before it was scaled | the scaled range | the range is that of the value |
| input-weight equalization: histograms of unscaled values with the scaled range; values with several users and groups are refused | a MinMax observer of the scaled range; both work | |
| InputWeightEqualizationDetector recommends channels with threshold <= s <= 1/threshold | those outside | equalizing multiplies by s: where all s are alike it does nothing (a test shows both) |
| generate_equalization_mapping names every layer that any detector has seen | those of which 40% of the channels gain, as in the report's text | |
| OutlierDetector: a ratio of 0 (all zeros, never above 0) becomes 1/0, an outlier | no outlier | |
| ModelReport: with several detectors the percentile of an observer depends on the order of a set; ch_axis other than 1 takes quantiles along the wrong dimension; layers without qconfig and data that never changes are errors; a layer called twice is watched once | one observer for each percentile; any axis; both are reported; every call is watched | |
| ModelReport calls fused layers "fc.0", which no mapping of the float model may name, and suggests the 7-bit default_qconfig everywhere | "fc"; what fits of the layer's qconfig is kept | the mapping is to be given to prepare_fx |
| a bias beyond int32 wraps | is added exactly, with a warning naming the layer and the channels; conversions raise the weight's scale so that it fits | |
| convert without calibration gives scale 1 | an error naming every observer | |
| an unknown qconfig name gives a default | an error with the nearest names | |
| a QConfigMapping's module names that match nothing are ignored | an error with the nearest names | |
| fbgemm's default mapping quantizes weights of transposed convolutions per tensor, and all of them leave layer_norm's weights float by an entry | per channel as all weights; the backend says that norms have float weights | both work around kernels; a mapping of one qconfig quantizes the same |
| backend configs give dropout's result an observer of its own | it shares its operand's | after training it is its operand |

Left out, because PyTorch gives no answer: fbgemm (not built on this machine; its rule is onednn's), float16 dynamic layers on
qnnpack, dynamic and weight-only convolutions, and weights of qnnpack's Conv3d, which it cannot unpack (their codes are compared).
)";

// The rows of the tables of what differs between graphs of graph mode; the last column is the tests'.
struct FxDifference {
  const char *model, *stage, *reason, *what;
};
const std::vector<FxDifference> kFxGraphs = {
#include "tests/quant/fx_differences.inc"
};
const std::vector<FxDifference> kFxOutputs = {
#include "tests/quant/fx_output_differences.inc"
};

// One row per reason, with the models and stages that it is seen in ("prepared" for "prepared PATH" of a graph inside).
std::string table_of(const std::vector<FxDifference>& differences) {
  struct Seen {
    std::string reason;
    std::vector<std::string> models, stages;
  };
  std::vector<Seen> rows;
  auto add = [](std::vector<std::string>& names, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const FxDifference& d : differences) {
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Seen& seen) { return seen.reason == d.reason; });
    if (row == rows.end()) row = rows.insert(row, {d.reason, {}, {}});
    add(row->models, d.model);
    add(row->stages, std::string(d.stage).substr(0, std::string(d.stage).find(' ')));
  }
  auto joined = [](const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  };
  std::string table = "| octet | models | stages |\n|---|---|---|\n";
  for (const Seen& row : rows) table += "| " + row.reason + " | " + joined(row.models) + " | " + joined(row.stages) + " |\n";
  return table;
}

std::string fx_differences() {
  return "\n## Graph mode: deliberate differences\n"
         "Of graphs (`tests/quant/fx_differences.inc` has octet's, node for node; models: `tests/quant/fx_models.h`):\n\n" +
         table_of(kFxGraphs) +
         "\nOf values (`tests/quant/fx_output_differences.inc` has which and by how much):\n\n" + table_of(kFxOutputs);
}

std::string stem(const std::filesystem::path& file) { return file.stem().string(); }

const Row* row_of(const std::string& name) {
  const Row* found = nullptr;
  for (const Row& row : kRows)
    if (name.starts_with(row.files) && (!found || std::strlen(row.files) > std::strlen(found->files))) found = &row;
  return found;
}

// A golden file is a list of cases, or has them as "cases" or, the optimizers', under several names.
size_t cases_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  json golden = json::parse(file);
  if (golden.is_array()) return golden.size();
  if (golden.contains("cases")) return golden["cases"].size();
  size_t n = 0;
  for (const char* list : {"optimizers", "schedules", "clips"})
    if (golden.contains(list)) n += golden[list].size();
  return n + golden.contains("distillation");
}

std::map<const Row*, std::vector<std::filesystem::path>> golden_files() {
  std::map<const Row*, std::vector<std::filesystem::path>> files;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden")) {
    const Row* row = row_of(stem(entry.path()));
    EXPECT_TRUE(row) << entry.path() << ": say in kRows of tests/quant/conformance_test.cpp how it is compared";
    if (row) files[row].push_back(entry.path());
  }
  for (auto& [row, paths] : files) std::sort(paths.begin(), paths.end());
  return files;
}

std::string conformance(size_t& total) {
  auto files = golden_files();
  std::ostringstream table;
  total = 0;
  for (const Row& row : kRows) {
    size_t n = 0;
    std::string names;
    for (const auto& path : files[&row]) {
      n += cases_in(path);
      names += (names.empty() ? "`" : ", `") + stem(path) + "`";
    }
    if (n == 0) continue;
    total += n;
    table << "| " << row.area << " | " << n << " | " << row.comparison << " | " << names << " | `" << row.script
          << ".py` | `" << row.test << ".*` |\n";
  }
  std::ostringstream out;
  out << "# Conformance with PyTorch 1.13\n"
         "Made from tests/golden by `OCTET_UPDATE_DOCS=1 build/bin/test_quant --gtest_filter=Conformance.*`; do not edit.\n\n"
      << total << " cases. Each is an answer of PyTorch 1.13 (Debian's python3-torch; engines qnnpack and onednn), written to\n"
         "`tests/golden/<file>.json` by `scripts/oracle/<script>`, and compared by the tests named (`ctest -L golden`). `modules_*`\n"
         "files with codes and `dynamic_linear` are compared on octet's native and reference engines.\n"
         "\"Bits\": equal to the last bit; \"1 step\": codes differ by 1 at most.\n\n"
         "| what | cases | equal to | files | script | tests |\n|---|---|---|---|---|---|\n"
      << table.str() << kDifferences << fx_differences();
  return out.str();
}

}  // namespace

TEST(Conformance, TheTableOfGoldenCasesIsCurrent) {
  const char* path = "docs/conformance.md";
  size_t total = 0;
  std::string text = conformance(total);
  EXPECT_GE(total, 1500u);
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream(path) << text;
  std::ifstream in(path);
  std::stringstream committed;
  committed << in.rdbuf();
  EXPECT_EQ(committed.str(), text) << "docs/conformance.md is stale: see its second line";
}

TEST(Conformance, EveryGoldenFileHasItsScriptAndIsReadByATest) {
  std::string tests;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("tests"))
    if ((entry.path().extension() == ".cpp" || entry.path().extension() == ".h") && entry.path().filename() != "conformance_test.cpp") {
      std::ifstream in(entry.path());
      tests.append(std::istreambuf_iterator<char>(in), {});
    }
  auto reads = [&](const std::string& text) { return tests.find(text) != std::string::npos; };
  for (const auto& [row, paths] : golden_files()) {
    EXPECT_TRUE(std::filesystem::exists(std::string("scripts/oracle/") + row->script + ".py")) << row->script;
    EXPECT_TRUE(reads("TEST(" + std::string(row->test) + ",") || reads("TEST_P(" + std::string(row->test) + ",")) << row->test;
    for (const auto& path : paths) {
      EXPECT_LT(std::filesystem::file_size(path), 300'000u) << path;
      const std::string name = stem(path), first = name.substr(0, name.find('_') + 1), rest = name.substr(first.size());
      EXPECT_TRUE(reads('"' + name + '"') || reads('"' + name + ".json\"") || (reads('"' + first + '"') && reads('"' + rest + '"')))
          << path << " is read by no test";
    }
  }
}

}  // namespace octet
