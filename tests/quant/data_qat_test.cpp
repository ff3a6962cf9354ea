// Quantization-aware training on CIFAR-10, as a user runs it: ResNet-8 with weights of 4 bits,
// where calibration alone loses more than 5 points.
#include "tests/cli/cli_test_util.h"
#include "tests/data.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

// Top-1 lost by calibration alone, and by a short training, on the 2,000 test images.
struct Loss {
  double calibrated, trained;
};
Loss measure(const std::vector<std::string>& more) {
  std::string model = data_dir() / "models/resnet8-cifar10.onnx",
              train = data_dir() / "cifar10/train10000.npz",
              test = data_dir() / "cifar10/test2000.npz";
  TempDir dir;
  auto top1 = [&](const std::string& file) {
    return octet_json({"eval", file, "--data", test, "--json"})["top1"].get<double>();
  };
  octet_json({"quantize", model, "--calibrate", train, "--samples", "256", "--weight-bits", "4",
              "-o", dir / "ptq.octet", "--json"});
  std::vector<std::string> qat{
      "qat", model,           "--data", train, "--samples",       "4000",  "--epochs",
      "1",   "--weight-bits", "4",      "-o",  dir / "qat.octet", "--json"};
  qat.insert(qat.end(), more.begin(), more.end());
  const RunResult trained = run_octet(qat);  // says on standard error how far it is
  EXPECT_EQ(trained.code, 0) << trained.err;
  double before = top1(model);
  return {before - top1(dir / "ptq.octet"), before - top1(dir / "qat.octet")};
}

TEST(DataQat, AShortTrainingWinsBackHalfOfWhatFourBitWeightsLose) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/train10000.npz");
  Loss loss = measure({});
  EXPECT_GT(loss.calibrated, 0.05);
  EXPECT_LT(loss.trained, 0.5 * loss.calibrated);
}

TEST(DataQat, DistillationDoesWithoutLabels) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/train10000.npz");
  Loss loss = measure({"--distill"});
  EXPECT_GT(loss.calibrated, 0.05);
  EXPECT_LT(loss.trained, 0.5 * loss.calibrated);
}

}  // namespace
}  // namespace octet::testing
