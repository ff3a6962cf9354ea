// The face in C: statuses and messages, arrays in and out, quantizing, plug-ins.
#include "octet/c/octet.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/graph/trace.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/nn/nn.h"
#include "octet/runtime/program.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

struct ModelInC : ::testing::Test {
  ModelInC() {
    nn::Sequential net(std::make_shared<nn::Linear>(8, 16), std::make_shared<nn::ReLU>(),
                       std::make_shared<nn::Linear>(16, 3));
    net.eval();
    graph = graph::trace(net, {TensorType(DType::float32, {Dim("N"), 8})})->to_graph();
    io::save_octet(graph, path);
  }
  ~ModelInC() override { octet_free(model); }
  void load() {
    ASSERT_EQ(octet_load(path.c_str(), nullptr, &model), OCTET_OK) << octet_error_text();
  }
  static octet_array floats(std::vector<float>& v, const std::vector<int64_t>& dims) {
    return {OCTET_FLOAT32, dims.size(), dims.data(), v.data(), v.size() * sizeof(float)};
  }

  testing::TempDir dir;
  std::string path = dir / "model.octet";
  graph::Graph graph;
  octet_model* model = nullptr;
  std::vector<int64_t> x_dims{2, 8}, y_dims{2, 3};
};

TEST_F(ModelInC, GivesWhatTheProgramGives) {
  load();
  const Tensor x = Tensor::randn({2, 8}, 5);
  std::vector<float> in = x.to_vector<float>(), out(6);
  octet_array a = floats(in, x_dims), y = floats(out, y_dims);
  ASSERT_EQ(octet_run(model, &a, 1, &y, 1), OCTET_OK) << octet_error_text();
  EXPECT_EQ(out, runtime::compile(graph).run({x})[0].to_vector<float>());
}

TEST_F(ModelInC, SaysWhatItTakesAndGives) {
  load();
  ASSERT_EQ(octet_input_count(model), 1u);
  ASSERT_EQ(octet_output_count(model), 1u);
  octet_value_info info;
  ASSERT_EQ(octet_input_info(model, 0, &info), OCTET_OK);
  EXPECT_EQ(info.name, graph.value(graph.inputs()[0]).name);
  EXPECT_EQ(info.dtype, OCTET_FLOAT32);
  ASSERT_EQ(info.rank, 2u);
  EXPECT_EQ(info.dims[0], -1);
  EXPECT_EQ(info.dims[1], 8);
  std::vector<float> in(16);
  octet_array a = floats(in, x_dims);
  int64_t dims[1][8];
  size_t rank = 0;
  ASSERT_EQ(octet_output_dims(model, &a, 1, dims, &rank, 1), OCTET_OK) << octet_error_text();
  ASSERT_EQ(rank, 2u);
  EXPECT_EQ(dims[0][0], 2);
  EXPECT_EQ(dims[0][1], 3);
}

TEST_F(ModelInC, WrongArraysAreNamed) {
  load();
  std::vector<float> in(16), out(6);
  octet_array a = floats(in, x_dims), y = floats(out, y_dims);
  EXPECT_EQ(octet_run(model, &a, 0, &y, 1), OCTET_INVALID_ARGUMENT);
  EXPECT_STREQ(octet_error_text(), "the model has 1 inputs; got 0");
  y_dims = {3, 2};
  EXPECT_EQ(octet_run(model, &a, 1, &y, 1), OCTET_INVALID_ARGUMENT);
  EXPECT_NE(std::string(octet_error_text()).find("the array is for (3, 2) of float32"),
            std::string::npos)
      << octet_error_text();
  y_dims = {2, 3};
  a.bytes = 60;
  EXPECT_EQ(octet_run(model, &a, 1, &y, 1), OCTET_INVALID_ARGUMENT);
  EXPECT_NE(std::string(octet_error_text()).find("64 bytes; the array has 60"), std::string::npos)
      << octet_error_text();
  a.bytes = 64;
  a.data = nullptr;
  EXPECT_EQ(octet_run(model, &a, 1, &y, 1), OCTET_INVALID_ARGUMENT);
  EXPECT_EQ(octet_run(nullptr, &a, 1, &y, 1), OCTET_INVALID_ARGUMENT);
  octet_value_info info;
  EXPECT_EQ(octet_input_info(model, 1, &info), OCTET_INVALID_ARGUMENT);
}

TEST_F(ModelInC, NumbersThatAreNoDtypeAreErrors) {
  load();
  std::vector<float> in(16), out(6);
  octet_array a = floats(in, x_dims), y = floats(out, y_dims);
  for (const int number : {-1, 16, 1 << 30}) {
    for (octet_array* array : {&a, &y}) {
      const octet_array before = *array;
      std::memcpy(&array->dtype, &number, sizeof number);
      EXPECT_EQ(octet_run(model, &a, 1, &y, 1), OCTET_INVALID_ARGUMENT);
      EXPECT_NE(
          std::string(octet_error_text()).find(std::to_string(number) + " is none of octet_dtype"),
          std::string::npos)
          << octet_error_text();
      *array = before;
    }
  }
}

TEST_F(ModelInC, FilesThatAreNotThereOrNotModelsHaveAStatus) {
  EXPECT_EQ(octet_load((path + ".nowhere.octet").c_str(), nullptr, &model), OCTET_NOT_FOUND);
  EXPECT_EQ(octet_load("model.txt", nullptr, &model), OCTET_INVALID_ARGUMENT);
  EXPECT_EQ(octet_load(path.c_str(), "quick", &model), OCTET_INVALID_ARGUMENT);
  EXPECT_NE(std::string(octet_error_text()).find("native"), std::string::npos);
  EXPECT_EQ(octet_load(nullptr, nullptr, &model), OCTET_INVALID_ARGUMENT);
  EXPECT_EQ(model, nullptr);
}

TEST_F(ModelInC, EachThreadHasItsOwnErrorText) {
  EXPECT_EQ(octet_load(nullptr, nullptr, &model), OCTET_INVALID_ARGUMENT);
  std::thread([] { EXPECT_STREQ(octet_error_text(), ""); }).join();
  EXPECT_STREQ(octet_error_text(), "path is NULL");
}

TEST_F(ModelInC, QuantizesInEachMode) {
  const std::string data = dir / "data.npz";
  write_npz(data, {{graph.value(graph.inputs()[0]).name, Tensor::randn({20, 8}, 3)}});
  for (const octet_mode mode : {OCTET_STATIC, OCTET_DYNAMIC, OCTET_WEIGHT_ONLY}) {
    octet_quantize_options options{};
    options.mode = mode;
    options.calibration = mode == OCTET_STATIC ? data.c_str() : nullptr;
    for (const char* name : {"q.octet", "q.onnx"}) {
      const std::string out = dir / name;
      ASSERT_EQ(octet_quantize(path.c_str(), out.c_str(), &options), OCTET_OK)
          << octet_error_text();
      octet_model* q = nullptr;
      ASSERT_EQ(octet_load(out.c_str(), nullptr, &q), OCTET_OK) << octet_error_text();
      octet_free(q);
    }
  }
}

TEST_F(ModelInC, StaticQuantizationNeedsSamples) {
  EXPECT_EQ(octet_quantize(path.c_str(), (dir / "q.octet").c_str(), nullptr),
            OCTET_INVALID_ARGUMENT);
  EXPECT_NE(std::string(octet_error_text()).find("set calibration"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "q.octet"));
}

TEST_F(ModelInC, FewSamplesAreAWarningAndEnoughAreNone) {
  const std::string out = dir / "q.octet";
  octet_quantize_options options{};
  const Tensor x = Tensor::randn({32, 8}, 3);
  for (const int64_t samples : {4, 256}) {  // of many samples the second half brings nothing new
    std::vector<float> values;
    for (int64_t i = 0; i < samples * 8; ++i) values.push_back(x.data<float>()[i % x.numel()]);
    const std::string data = dir / ("data" + std::to_string(samples) + ".npz");
    write_npz(data, {{"images", Tensor::from(values, {samples, 8})}});
    options.calibration = data.c_str();
    ASSERT_EQ(octet_quantize(path.c_str(), out.c_str(), &options), OCTET_OK) << octet_error_text();
    const std::string said = octet_warning_text();
    if (samples == 4)
      EXPECT_NE(said.find("4 samples"), std::string::npos) << said;
    else
      EXPECT_EQ(said, "");
  }
  options.mode = OCTET_WEIGHT_ONLY;
  ASSERT_EQ(octet_quantize(path.c_str(), out.c_str(), &options), OCTET_OK);
  EXPECT_STREQ(octet_warning_text(), "");
}

TEST_F(ModelInC, CalibratesWithAsManySamplesAsItIsTold) {
  const Tensor few = Tensor::randn({20, 8}, 3);
  std::vector<float> values = few.to_vector<float>();
  for (int i = 0; i < 20 * 8; ++i) values.push_back(100 * few.data<float>()[i]);
  const std::string name = graph.value(graph.inputs()[0]).name;
  write_npz(dir / "few.npz", {{name, few}});
  write_npz(dir / "all.npz", {{name, Tensor::from(values, {40, 8})}});
  const auto quantized = [&](const char* data, int64_t samples) {
    const std::string from = dir / data, out = dir / "q.octet";
    octet_quantize_options options{};
    options.calibration = from.c_str();
    options.samples = samples;
    EXPECT_EQ(octet_quantize(path.c_str(), out.c_str(), &options), OCTET_OK) << octet_error_text();
    return graph::print(io::load_octet(out));
  };
  EXPECT_EQ(quantized("all.npz", 20), quantized("few.npz", 0));
  EXPECT_NE(quantized("all.npz", 0), quantized("few.npz", 0));
}

TEST_F(ModelInC, OneErrorNamesWhatIsWrongWithTheNetworkAndTheSamples) {
  auto layer = nn::make<nn::Linear>(8, 3);
  layer->weight.data<float>()[0] = NAN;
  nn::Sequential net(layer);
  net.eval();
  io::save_octet(graph::trace(net, {TensorType(DType::float32, {Dim("N"), 8})})->to_graph(), path);
  octet_quantize_options options{};
  options.calibration = "/nowhere.npz";
  EXPECT_NE(octet_quantize(path.c_str(), (dir / "q.octet").c_str(), &options), OCTET_OK);
  const std::string said = octet_error_text();
  EXPECT_NE(said.find("2 problems"), std::string::npos) << said;
  EXPECT_NE(said.find("/nowhere.npz"), std::string::npos) << said;
}

TEST(PluginsInC, FilesThatAreNone) {
  EXPECT_EQ(octet_load_plugin("/nowhere/plugin.so"), OCTET_NOT_FOUND);
  EXPECT_EQ(octet_load_plugin(nullptr), OCTET_INVALID_ARGUMENT);
}

TEST(VersionInC, IsTheLibrarys) { EXPECT_STREQ(octet_version(), "0.2.0"); }

}  // namespace
}  // namespace octet
