// What quantize and run say of a network whose result is garbage, or would be another than the
// model declares.
#include <algorithm>
#include <cmath>

#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "octet/ops/functional.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

std::string save(const TempDir& dir, const std::string& body) {
  io::save_octet(graph::parse("graph g {\n" + body + "\n}\n"), dir / "net.octet");
  return dir / "net.octet";
}

std::string save_data(const TempDir& dir, const std::map<std::string, Tensor>& arrays) {
  write_npz(dir / "data.npz", arrays);
  return dir / "data.npz";
}

RunResult quantize(const TempDir& dir, const std::string& net, const std::string& data,
                   std::vector<std::string> more = {}) {
  std::vector<std::string> args{"quantize", net, "--calibrate", data, "-o", dir / "q.octet"};
  args.insert(args.end(), more.begin(), more.end());
  return run_octet(args);
}

const std::string kConv =
    "%x: Float(N, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [1, -1, 0.5, 0.25]\n"
    "%y: Float(N, 2, 4, 4) = conv2d(%x, %w)  @ conv\nreturn (%y)";

TEST(CliWarnings, AnErasedOperandIsSaidOnStderrAndInJson) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string net = save(dir,
                         "%a: Float(N, 2, 4, 4) = input\n%b: Float(N, 2, 4, 4) = input\n"
                         "%c: Float(N, 4, 4, 4) = cat(%a, %b, dim=1)  @ join\nreturn (%c)");
  std::string data = save_data(dir, {{"a", Tensor::randn({32, 2, 4, 4}, 1) * 100},
                                     {"b", Tensor::randn({32, 2, 4, 4}, 2) * 0.01}});
  RunResult r = quantize(dir, net, data);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err.rfind("octet: warning: join (cat): ", 0), 0u) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_FALSE(contains(r.out, "nan")) << "no weights to compare: " << r.out;
  auto json = json_of(quantize(dir, net, data, {"--json"}));
  ASSERT_EQ(json["warnings"].size(), 1u);
  EXPECT_TRUE(contains(json["warnings"][0], "join (cat)"));
}

TEST(CliWarnings, AResultOf0DecibelsIsNeverSilent) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string net = save(dir, kConv);
  Tensor x = Tensor::randn({40, 2, 4, 4}, 3);
  x.data<float>()[35 * 32 + 3] = 1e38f;
  std::string data = save_data(dir, {{"x", x}});
  RunResult r = quantize(dir, net, data);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.err, "sample 35 holds 1e+38")) << r.err;
  EXPECT_TRUE(contains(r.err, "sample 35 alone sets 2 of 2 ranges")) << r.err;
  EXPECT_TRUE(contains(r.err, "output %y has an SQNR of 0.0 dB")) << r.err;
  EXPECT_TRUE(contains(r.err, "grows most at")) << r.err;
  EXPECT_EQ(json_of(quantize(dir, net, data, {"--json"}))["warnings"].size(), 3u);
  r = quantize(dir, net, data, {"--samples", "35"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(contains(r.err, "alone sets") || contains(r.err, "SQNR")) << r.err;
}

TEST(CliWarnings, EveryOutputIsLookedAt) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string net = save(
      dir,
      "%x: Float(N, 2, 4, 4) = input\n%v: Float(2, 2, 1, 1) = constant [1, 0, 0, 3000]\n"
      "%w: Float(1, 2, 1, 1) = constant [1, 0]\n%a: Float(N, 2, 4, 4) = conv2d(%x, %v)  @ conv1\n"
      "%y: Float(N, 1, 4, 4) = conv2d(%a, %w)  @ conv2\nreturn (%a, %y)");
  RunResult r = quantize(dir, net, save_data(dir, {{"x", Tensor::randn({8, 2, 4, 4}, 4)}}));
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.err, "output %y has an SQNR")) << r.err;
  EXPECT_FALSE(contains(r.err, "output %a")) << r.err;
}

TEST(CliWarnings, NoReasonIsGivenWhereNoneIsKnown) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r =
      quantize(dir, save(dir, kConv), save_data(dir, {{"x", Tensor::randn({32, 2, 4, 4}, 5)}}));
  expect_success(r);
  EXPECT_FALSE(contains(r.out, "take 0%")) << r.out;
}

TEST(CliRun, CodesComeBackAsTheIntegersThatTheyAre) {
  OCTET_NEED_PROGRAM();
  for (const std::string type : {"QUInt8", "QInt8"}) {
    TempDir dir;
    std::string net = save(dir, "%x: Float(3) = input\n%y: " + type +
                                    "(3) scale=0.5 zero_point=7 = quantize(%x)\nreturn (%y)");
    write_npy(dir / "x.npy", Tensor::from<float>({-1, 0, 2}));
    RunResult r = run_octet(
        {"run", net, "--input", "x=" + (dir / "x.npy").string(), "--output", dir / "y.npz"});
    expect_success(r);
    EXPECT_TRUE(contains(r.out, "y: " + type + "(3) scale=0.5 zero_point=7")) << r.out;
    Tensor y = read_npz(dir / "y.npz").at("y");
    EXPECT_EQ(y.dtype(), type == "QUInt8" ? DType::uint8 : DType::int8);
    EXPECT_EQ(y.to(DType::int32).to_vector<int32_t>(), (std::vector<int32_t>{5, 7, 11}));
  }
}

TEST(CliRun, ADivisionByZeroNamesItsNode) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string net = save(dir,
                         "%x: Long(2) = input\n%d: Long(2) = input\n%y: Long(2) = div(%x, %d)  @ "
                         "head/ratio\nreturn (%y)");
  write_npy(dir / "x.npy", Tensor::from<int64_t>({1, 2}));
  write_npy(dir / "d.npy", Tensor::from<int64_t>({1, 0}));
  expect_failure(run_octet({"run", net, "--input", "x=" + (dir / "x.npy").string(), "--input",
                            "d=" + (dir / "d.npy").string(), "--output", dir / "y.npz"}),
                 1, {"head/ratio", "div", "division by zero"});
}

TEST(CliRun, AClampWhoseMinimumIsAboveItsMaximumGivesTheMaximum) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::string net =
      save(dir, "%x: Float(3) = input\n%y: Float(3) = clamp(%x, max=-1., min=0.)\nreturn (%y)");
  write_npy(dir / "x.npy", Tensor::from<float>({-7, 0, 2}));
  expect_success(run_octet(
      {"run", net, "--input", "x=" + (dir / "x.npy").string(), "--output", dir / "y.npz"}));
  EXPECT_EQ(read_npz(dir / "y.npz").at("y").to_vector<float>(), (std::vector<float>{-1, -1, -1}));
}

}  // namespace
}  // namespace octet::testing
