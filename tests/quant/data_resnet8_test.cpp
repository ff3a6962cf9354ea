// ResNet-8 on CIFAR-10, as a user runs it: float accuracy, int8 accuracy, both file formats.
//
// The float number is ONNX Runtime's: onnxruntime-node on the same 2000 images as raw 0..255
// floats, batches of 100, largest of the 10 outputs against the label: 1547 right, 0.7735.
#include <nlohmann/json.hpp>

#include "tests/cli/cli_test_util.h"
#include "tests/data.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

constexpr double kOnnxRuntimeTop1 = 0.7735;
constexpr double kAllowedLoss = 0.007;

struct ResNet8 {
  std::string model = data_dir() / "models/resnet8-cifar10.onnx";
  std::string test = data_dir() / "cifar10/test2000.npz",
              train = data_dir() / "cifar10/train10000.npz";

  double top1(const std::string& file) const {
    auto json = octet_json({"eval", file, "--data", test, "--json"});
    EXPECT_EQ(json["samples"], 2000);
    return json["top1"];
  }
  nlohmann::json quantize(const std::string& out, int samples = 512) const {
    return octet_json({"quantize", model, "--calibrate", train, "--samples",
                       std::to_string(samples), "-o", out, "--json"});
  }
};

TEST(DataResNet8, FloatTop1IsOnnxRuntimes) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/test2000.npz");
  ResNet8 net;
  EXPECT_DOUBLE_EQ(net.top1(net.model), kOnnxRuntimeTop1);
}

TEST(DataResNet8, Int8Top1IsWithinSevenTenthsOfAPoint) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/train10000.npz");
  ResNet8 net;
  TempDir dir;
  auto report = net.quantize(dir / "r8.octet");
  ASSERT_EQ(report["left_float"].size(), 1u) << report;
  EXPECT_EQ(report["left_float"][0]["op"], "softmax");
  EXPECT_EQ(report["samples"], 512);
  EXPECT_NEAR(report["float_top1"], report["int8_top1"], 0.02);
  EXPECT_GT(report["float_weight_bytes"], 3.5 * report["int8_weight_bytes"].get<double>());
  // One more image right or wrong is 0.05 points, and of 2000 some 70 change sides between two
  // calibrations: the mean of three is what is bound.
  double sum = net.top1(dir / "r8.octet");
  for (const int samples : {256, 1000}) {
    net.quantize(dir / "other.octet", samples);
    sum += net.top1(dir / "other.octet");
    std::filesystem::remove(dir / "other.octet");
  }
  EXPECT_GE(sum / 3, kOnnxRuntimeTop1 - kAllowedLoss);
}

TEST(DataResNet8, QdqOnnxComesBackAsTheSameIntegers) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/train10000.npz");
  ResNet8 net;
  TempDir dir;
  auto report = net.quantize(dir / "r8.onnx");
  net.quantize(dir / "r8.octet");
  auto qdq = octet_json({"inspect", dir / "r8.onnx", "--json"});
  EXPECT_EQ(qdq["quantized_operators"], report["quantized_nodes"]);
  EXPECT_EQ(qdq["operators"], report["nodes"]);
  double top1 = net.top1(dir / "r8.onnx");
  EXPECT_DOUBLE_EQ(top1, net.top1(dir / "r8.octet"));
}

}  // namespace
}  // namespace octet::testing
