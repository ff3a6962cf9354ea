// octet train and octet qat: what they write and what they say.
#include <algorithm>
#include <cmath>

#include "octet/base/file.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

// A training of the glyph network on few samples: 2 epochs over 128 of the calibration images.
std::vector<std::string> train_args(const std::string& command, const std::string& out,
                                    std::vector<std::string> more = {}) {
  std::vector<std::string> args{command,    kNet, "--data",  kCalibration, "--samples", "128",
                                "--epochs", "2",  "--batch", "32",         "-o",        out};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

TEST(CliTrain, TheBestNetworkIsWrittenAndItsAccuracySaid) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(train_args("train", dir / "t.octet", {"--lr", "0.001"}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "top-1")) << r.out;
  EXPECT_TRUE(contains(r.err, "epoch 2/2: loss")) << r.err;
  EXPECT_EQ(count_files(dir.path()), 1u) << "no checkpoint is left behind";
  EXPECT_GT(json_of(run_octet(
                {"eval", dir / "t.octet", "--data", kTest, "--samples", "200", "--json"}))["top1"],
            0.9);
}

TEST(CliTrain, ATrainingThatDivergesIsAnErrorAndWritesNothing) {
  OCTET_NEED_PROGRAM();
  for (const std::string command : {"train", "qat"})
    for (const std::string rate : {"1e30", "1e12", "1e6"}) {
      TempDir dir;
      RunResult r = run_octet(train_args(command, dir / "t.octet", {"--lr", rate}));
      EXPECT_EQ(r.code, 1) << command << " --lr " << rate << ": " << r.out;
      EXPECT_TRUE(contains(r.err, "diverged") && contains(r.err, "smaller --lr")) << r.err;
      EXPECT_FALSE(std::filesystem::exists((dir / "t.octet").string()))
          << command << " --lr " << rate;
    }
}

TEST(CliTrain, ADeadNetworkIsAnErrorAndWritesNothing) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  // Weight decay of this size leaves nothing of the weights but zeros.
  RunResult r = run_octet(train_args("qat", dir / "t.octet",
                                     {"--optimizer", "sgd", "--lr", "1e-9", "--momentum", "0",
                                      "--weight-decay", "1e9", "--schedule", "constant"}));
  EXPECT_EQ(r.code, 1) << r.out;
  EXPECT_TRUE(contains(r.err, "dead network") && contains(r.err, "nothing was written")) << r.err;
  EXPECT_FALSE(std::filesystem::exists((dir / "t.octet").string()));
}

TEST(CliTrain, PatienceEndsARunThatNoLongerGetsBetter) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  // So small a rate changes nothing: the first epoch stays the best.
  RunResult r =
      run_octet({"train", kNet, "--data", kCalibration, "--samples", "128", "--epochs", "9", "--lr",
                 "1e-12", "--patience", "2", "-o", dir / "t.octet", "--json"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.err, "stopped: no better than epoch 1 for 2 epochs")) << r.err;
  EXPECT_EQ(nlohmann::json::parse(r.out)["epochs"], 3);
}

TEST(CliQat, LabelsAndTheFloatNetworkTeachTogether) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(train_args(
      "qat", dir / "q.octet",
      {"--distill", "--labels", "0.5", "--weight-bits", "4", "--lr", "0.0005", "--json"}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_GT(json_of(run_octet(
                {"eval", dir / "q.octet", "--data", kTest, "--samples", "500", "--json"}))["top1"],
            0.8);
  EXPECT_EQ(run_octet(train_args("qat", dir / "q.octet", {"--labels", "0.5"})).code, 2);
}

TEST(CliTrain, FromScratchForgetsTheWeights) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(train_args("train", dir / "t.octet", {"--from-scratch", "--json"}));
  EXPECT_EQ(r.code, 0) << r.err;
  auto json = nlohmann::json::parse(r.out);
  EXPECT_LT(json["before"], 0.5);
  EXPECT_EQ(json["epochs"], 2);
  EXPECT_EQ(json["samples"], 116);
}

TEST(CliTrain, TheSameSeedGivesTheSameNetwork) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const char* name : {"a.octet", "b.octet"})
    run_octet(train_args("train", dir / name, {"--crop", "2", "--threads", "1"}));
  auto file = [&](const char* name) {
    return json_of(
        run_octet({"eval", dir / name, "--data", kTest, "--samples", "300", "--json"}))["top1"];
  };
  EXPECT_EQ(file("a.octet"), file("b.octet"));
}

TEST(CliTrain, WhatCannotBeTrainedIsSaidBeforeTheWork) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  expect_failure(
      run_octet({"train", dir / "q.octet", "--data", kCalibration, "-o", dir / "t.octet"}), 1,
      {"is quantized", "octet qat"});
  expect_failure(run_octet(train_args("train", dir / "t.octet", {"--resume"})), 1,
                 {"t.octet.train", "no interrupted training"});
  expect_failure(
      run_octet({"train", kNet, "--data", kCalibration, "-o", dir / "t.octet", "--epochs", "0"}), 2,
      {"--epochs"});
}

// The mean loss of the first epoch, as it is said, of a training whose steps change nothing.
double first_loss(const std::string& command, std::vector<std::string> more) {
  TempDir dir;
  more.insert(more.end(), {"--lr", "1e-12", "--threads", "1"});
  const RunResult r = run_octet(train_args(command, dir / "t.octet", more));
  EXPECT_EQ(r.code, 0) << r.err;
  const std::string words = "epoch 1/2: loss ";
  const size_t at = r.err.find(words);
  return at == std::string::npos ? NAN : std::stod(r.err.substr(at + words.size()));
}

TEST(CliTrain, SmoothedLabelsAreNeverQuiteReached) {
  OCTET_NEED_PROGRAM();
  EXPECT_GT(first_loss("train", {"--label-smoothing", "0.3"}), first_loss("train", {}) + 0.5);
  TempDir dir;
  expect_failure(run_octet(train_args("train", dir / "t.octet", {"--label-smoothing", "1.5"})), 2,
                 {"--label-smoothing"});
}

TEST(CliTrain, SquaresThatAreCutOutHideWhatIsThere) {
  OCTET_NEED_PROGRAM();
  EXPECT_GT(first_loss("train", {"--cutout", "12"}), first_loss("train", {}) + 0.1);
}

TEST(CliQat, FewBitsStartFromGptqUnlessToldOtherwise) {
  OCTET_NEED_PROGRAM();
  const auto starts_from_gptq = [](std::vector<std::string> more) {
    TempDir dir;
    more.insert(more.end(), {"--lr", "1e-12"});
    const RunResult r = run_octet(train_args("qat", dir / "q.octet", more));
    EXPECT_EQ(r.code, 0) << r.err;
    return contains(r.err, "before training, by GPTQ: top1");
  };
  EXPECT_TRUE(starts_from_gptq({"--weight-bits", "4"}));
  EXPECT_FALSE(starts_from_gptq({"--weight-bits", "4", "--start", "float"}));
  EXPECT_FALSE(starts_from_gptq({}));
  EXPECT_TRUE(starts_from_gptq({"--start", "gptq"}));
}

TEST(CliQat, GptqIsTheBetterStartForThreeBits) {
  OCTET_NEED_PROGRAM();
  const auto loss = [](const std::string& start) {
    return first_loss("qat", {"--weight-bits", "3", "--start", start});
  };
  EXPECT_LT(loss("gptq"), loss("float"));
}

TEST(CliQat, ComputingOnIntegerKernelsTrainsAsWell) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto top1 = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"--lr", "0.0005", "--threads", "1"});
    const RunResult r = run_octet(train_args("qat", dir / name, more));
    EXPECT_EQ(r.code, 0) << r.err;
    return json_of(run_octet(
        {"eval", dir / name, "--data", kTest, "--samples", "500", "--json"}))["top1"]
        .get<double>();
  };
  EXPECT_GT(top1("integer.octet", {"--integer-forward"}), top1("q.octet", {}) - 0.03);
  EXPECT_NE(read_file(dir / "integer.octet"), read_file(dir / "q.octet"));
}

// From the scales of calibration and GPTQ on; steps that are large beside a scale end the training.
TEST(CliQat, ScalesAreTrainedWithTheWeights) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto train = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"--weight-bits", "3"});
    const RunResult r = run_octet(train_args("qat", dir / name, more));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(contains(r.err, "learned 0"), more[0] != "--learn-scales") << r.err;
    double loss = 0;
    const size_t at = r.err.rfind("loss ");
    if (at != r.err.npos) loss = std::stod(r.err.substr(at + 5));
    return loss;
  };
  const double fixed = train("fixed.octet", {}),
               learned = train("learned.octet", {"--learn-scales"});
  EXPECT_GT(learned, 0);
  EXPECT_LT(learned, 1.1 * fixed);
  EXPECT_NE(read_file(dir / "learned.octet"), read_file(dir / "fixed.octet"));
  for (const char* optimizer : {"sgd", "adamw"})
    EXPECT_GT(train("o.octet", {"--learn-scales", "--optimizer", optimizer, "--force"}), 0);
}

TEST(CliQat, TheStateOfEachLayerIsShown) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const RunResult r = run_octet({"qat", kNet, "--data", kCalibration, "--samples", "64", "--epochs",
                                 "3", "-o", dir / "q.octet", "--show-state"});
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* part : {"from epoch 1: observers on 19 of 19", "from epoch 3: observers on 0 of",
                           "head.weight", "fake quantize"})
    EXPECT_TRUE(contains(r.err, part)) << part << ": " << r.err;
  EXPECT_FALSE(contains(run_octet(train_args("qat", dir / "p.octet")).err, "head.weight"));
}

TEST(CliQat, GivesAQuantizedNetworkAsGoodAsTheFloatOne) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(train_args("qat", dir / "q.octet", {"--lr", "0.0005", "--json"}));
  EXPECT_EQ(r.code, 0) << r.err;
  auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["measure"], "top1");
  EXPECT_EQ(json["nodes"], json["quantized_nodes"]);
  double before =
      json_of(run_octet({"eval", kNet, "--data", kTest, "--samples", "500", "--json"}))["top1"];
  double after = json_of(
      run_octet({"eval", dir / "q.octet", "--data", kTest, "--samples", "500", "--json"}))["top1"];
  EXPECT_GT(after, before - 0.03);
}

TEST(CliQat, LearnsFromTheFloatNetworkWithoutLabels) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(train_args(
      "qat", dir / "q.onnx", {"--distill", "--weight-bits", "4", "--lr", "0.0005", "--json"}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_GT(json_of(run_octet(
                {"eval", dir / "q.onnx", "--data", kTest, "--samples", "500", "--json"}))["top1"],
            0.8);
}

}  // namespace
}  // namespace octet::testing
