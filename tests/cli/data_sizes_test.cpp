// Samples of different sizes: directories of arrays, one file each, and pictures at their own size.
#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/pictures.h"

namespace octet::testing {
namespace {

// A linear layer over a sequence of any length, and its mean.
std::string sequence_net(const TempDir& dir) {
  io::save_octet(graph::parse("graph net {\n"
                              "  %x: Float(N, T, 4) = input\n"
                              "  %w: Float(3, 4) = constant\n"
                              "  %h: Float(N, T, 3) = linear(%x, %w, none)\n"
                              "  %r: Float(N, T, 3) = relu(%h)\n"
                              "  %y: Float(N, 3) = mean(%r, dim=[1], keepdim=false)\n"
                              "  return (%y)\n"
                              "}\n",
                              {{"w", Tensor::randn({3, 4}, 1)}}),
                 dir / "net.octet");
  return dir / "net.octet";
}

// The rows of all samples as files, in the order of `lengths`; without and with a batch dimension.
std::string sequences(const TempDir& dir, const std::string& name,
                      const std::vector<int64_t>& lengths) {
  std::filesystem::create_directory(dir / name);
  for (size_t i = 0; i < lengths.size(); ++i) {
    const Tensor x = Tensor::rand({lengths[i], 4}, static_cast<uint64_t>(lengths[i]), -1, 1);
    write_npy(dir / name / (std::to_string(i) + ".npy"), i % 2 ? x : x.unsqueeze(0));
  }
  return dir / name;
}

TEST(CliDataSizes, SequencesOfAnyLengthQuantizeAndCompare) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = sequence_net(dir), data = sequences(dir, "data", {3, 9, 5, 9, 1});
  const auto json =
      json_of(run_octet({"quantize", net, "--calibrate", data, "-o", dir / "q.octet", "--json"}));
  EXPECT_EQ(json["samples"], 5);
  EXPECT_GT(json["quantized_nodes"], 0);
  const auto compared =
      json_of(run_octet({"compare", net, dir / "q.octet", "--data", data, "--json"}));
  EXPECT_EQ(compared["samples"], 5);
  json_of(run_octet({"sensitivity", net, "--calibrate", data, "--curve", "--json"}));
  json_of(run_octet({"explain", dir / "q.octet", "--data", data, "--samples", "5", "--json"}));
}

// The order of the samples decides which of equal length follow one another.
TEST(CliDataSizes, TheResultDoesNotDependOnTheOrderOfSizes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = sequence_net(dir);
  const auto quantized = [&](const std::string& data) {
    json_of(run_octet({"quantize", net, "--calibrate", data, "-o", dir / "q.octet", "--observer",
                       "minmax", "--json"}));
    return run_octet({"inspect", dir / "q.octet", "--full"}).out;
  };
  EXPECT_EQ(quantized(sequences(dir, "a", {3, 3, 9, 9, 5})),
            quantized(sequences(dir, "b", {9, 5, 3, 9, 3})));
}

// The same samples in one file, and a file each.
TEST(CliDataSizes, ADirectoryOfArraysIsWhatOneFileOfAllIs) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const Tensor images = read_npz(kCalibration, {"images"}).at("images").slice(0, 0, 40);
  write_npz(dir / "all.npz", {{"images", images}});
  std::filesystem::create_directory(dir / "each");
  for (int64_t i = 0; i < 40; ++i)
    write_npy(dir / "each" / (std::to_string(100 + i) + ".npy"), images.select(0, i));
  const auto quantized = [&](const std::string& data) {
    json_of(run_octet({"quantize", kNet, "--calibrate", data, "-o", dir / "q.octet", "--json"}));
    return run_octet({"inspect", dir / "q.octet", "--full"}).out;
  };
  EXPECT_EQ(quantized(dir / "all.npz"), quantized(dir / "each"));
}

TEST(CliDataSizes, NetworksTrainOnSamplesOfAnySizeOneAtATime) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = sequence_net(dir);
  std::filesystem::create_directory(dir / "classes");
  for (const std::string name : {"a", "b", "c"}) sequences(dir, "classes/" + name, {3, 9, 5, 9});
  for (const std::string command : {"train", "qat"}) {
    const RunResult r = run_octet({command, net, "--data", dir / "classes", "--epochs", "1", "-o",
                                   dir / (command + ".octet"), "--json"});
    ASSERT_EQ(r.code, 0) << r.err;
    const auto json = nlohmann::json::parse(r.out);
    EXPECT_EQ(json["samples"], 11);
    EXPECT_EQ(json["validation_samples"], 1);
  }
}

// A network of any picture size: scaled twice, with two operators that codes pass through.
std::string picture_net(const TempDir& dir) {
  io::save_octet(graph::parse("graph net {\n"
                              "  %images: Float(N, 3, H, W) = input\n"
                              "  %a: Float(N, 3, H, W) = add(%images, %images)\n"
                              "  %b: Float(N, 3, H, W) = relu(%a)\n"
                              "  %y: Float(N, 3) = mean(%b, dim=[2, 3], keepdim=false)\n"
                              "  return (%y)\n"
                              "}\n"),
                 dir / "pictures.octet");
  return dir / "pictures.octet";
}

TEST(CliDataSizes, PicturesAtTheirOwnSizeOrResized) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = picture_net(dir);
  const std::string data = dir / "pictures";
  for (const std::string name : {"cat", "dog"}) {
    std::filesystem::create_directories(dir / "pictures" / name);
    spill(dir / "pictures" / name / "1.png", png(3, 2, 3, plain(3, 2, {1, 2, 200})));
    spill(dir / "pictures" / name / "2.png", png(5, 7, 3, plain(5, 7, {4, 90, 6})));
  }
  for (const std::string resize : {"none", "8x6"}) {
    const auto json =
        json_of(run_octet({"eval", net, "--data", data, "--resize", resize, "--json"}));
    EXPECT_EQ(json["samples"], 4);
    EXPECT_EQ(json["top1"], 0.25) << resize;  // blue is 2, green is 1
    json_of(run_octet({"quantize", net, "--calibrate", data, "--resize", resize, "-o",
                       dir / "q.octet", "--json", "--force"}));
  }
  expect_failure(run_octet({"eval", net, "--data", data}), 1,
                 {"Float(N, 3, H, W)", "--resize none"});
  const RunResult r = run_octet({"eval", kNet, "--data", data, "--resize", "none"});
  expect_failure(r, 1, {"Float(N, 1, 28, 28)", "own size"});
  for (const std::string bad : {"big", "8x", "0x6", "8x6x3", "99999x1"})
    expect_failure(run_octet({"eval", net, "--data", data, "--resize", bad}), 2,
                   {"--resize", bad, "fit, none"});
}

TEST(CliDataSizes, WrongFilesAreNamedBeforeWorkStarts) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = sequence_net(dir), data = sequences(dir, "data", {3, 4});
  write_npy(dir / "data" / "9.npy", Tensor::zeros({3, 5}));
  expect_failure(run_octet({"quantize", net, "--calibrate", data, "-o", dir / "q.octet"}), 1,
                 {"9.npy", "(3, 5)", "Float(N, T, 4)"});
  EXPECT_FALSE(std::filesystem::exists(dir / "q.octet"));
}

}  // namespace
}  // namespace octet::testing
