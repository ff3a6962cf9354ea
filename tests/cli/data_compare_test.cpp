// octet compare on ResNet-8 and CIFAR-10.
#include <sys/resource.h>

#include <algorithm>

#include "tests/cli/cli_test_util.h"
#include "tests/data.h"

namespace octet::testing {
namespace {

// Seconds of CPU that the program took, in one thread: the least of three runs, for other work on
// the machine only adds.
double cpu_seconds(const std::vector<std::string>& args) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const auto used = [] {
      rusage usage{};
      getrusage(RUSAGE_CHILDREN, &usage);
      const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
      };
      return seconds(usage.ru_utime) + seconds(usage.ru_stime);
    };
    const double before = used();
    expect_success(run_octet(args, {.env = {{"OCTET_NUM_THREADS", "1"}}}));
    least = std::min(least, used() - before);
  }
  return least;
}

TEST(DataCompare, TakesLessThanThreePlainEvaluationsOfBoth) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  OCTET_NEED_DATA("cifar10/train10000.npz");
  OCTET_NEED_DATA("cifar10/test2000.npz");
  const std::string model = data_dir() / "models/resnet8-cifar10.onnx",
                    data = data_dir() / "cifar10/test2000.npz";
  TempDir dir;
  const std::string quantized = dir / "q.octet";
  expect_success(run_octet({"quantize", model, "--calibrate", data_dir() / "cifar10/train10000.npz",
                            "--samples", "512", "-o", quantized}));
  const std::vector<std::string> on{"--data", data, "--samples", "512"};
  const auto with = [&](std::vector<std::string> args) {
    args.insert(args.end(), on.begin(), on.end());
    return args;
  };
  const double plain = cpu_seconds(with({"eval", model})) + cpu_seconds(with({"eval", quantized})),
               compared = cpu_seconds(with({"compare", model, quantized}));
  EXPECT_LT(compared, 3 * plain);
  RecordProperty("percent", static_cast<int>(100 * compared / plain));

  const auto json = json_of(run_octet(with({"compare", model, quantized, "--json"})));
  for (const auto& layer : json["layers"]) EXPECT_TRUE(layer["fault"].is_null()) << layer;
  EXPECT_EQ(json["unmatched"], 0);
}

}  // namespace
}  // namespace octet::testing
