// Windows and Fourier transforms.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

std::vector<float> run_model(const OnnxModel& m, const std::vector<Tensor>& inputs) {
  return runtime::compile(m.import()).run(inputs)[0].to_vector<float>();
}

void expect_near(const std::vector<float>& got, const std::vector<double>& want, double within) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], within) << i;
}

// sum over i of x[i] e^(-2 pi i k / length), real and imaginary parts in turn.
std::vector<double> transform(const std::vector<std::complex<double>>& x, size_t count,
                              double sign = -1) {
  std::vector<double> parts;
  for (size_t k = 0; k < count; ++k) {
    std::complex<double> sum = 0;
    for (size_t i = 0; i < x.size(); ++i)
      sum += x[i] * std::polar(1.0, sign * 2 * std::numbers::pi * static_cast<double>(i * k) /
                                        static_cast<double>(x.size()));
    parts.push_back(sum.real());
    parts.push_back(sum.imag());
  }
  return parts;
}

TEST(OnnxSpectra, WindowsOfASizeKnownAtImport) {
  for (const auto& [op, first, middle] : {std::tuple{"HannWindow", 0.0, 1.0},
                                          {"HammingWindow", 4.0 / 46, 1.0},
                                          {"BlackmanWindow", 0.0, 1.0}}) {
    OnnxModel m(17);
    m.constant("n", Tensor::from(std::vector<int64_t>{8}, {}))
        .input("x", {8})
        .node(op, {"n"}, {"w"})
        .node("Mul", {"x", "w"}, {"y"})
        .output("y");
    const std::vector<float> y = run_model(m, {Tensor::ones({8})});
    EXPECT_NEAR(y[0], first, 1e-6) << op;
    EXPECT_NEAR(y[4], middle, 1e-6) << op;  // periodic: the middle of 8 + 1
  }
}

TEST(OnnxSpectra, AWindowOfASizeKnownAtRunTimeIsTheSame) {
  for (const char* op : {"HannWindow", "HammingWindow", "BlackmanWindow"})
    for (int64_t periodic : {0, 1}) {
      OnnxModel known(17), open(17);
      known.constant("n", Tensor::from(std::vector<int64_t>{9}, {})).input("x", {1});
      open.input("n", {}, kInt64).input("x", {1});
      for (OnnxModel* m : {&known, &open})
        m->node(op, {"n"}, {"w"}, {{"periodic", periodic}})
            .node("Mul", {"x", "w"}, {"y"})
            .output("y");
      const std::vector<float> a = run_model(known, {Tensor::ones({1})}),
                               b = run_model(open, {Tensor::from(std::vector<int64_t>{9}, {}),
                                                    Tensor::ones({1})});
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6) << op << i;
    }
}

TEST(OnnxSpectra, TheTransformOfASignalAlongAnyAxis) {
  const Tensor x = Tensor::randn({6, 5}, 1);
  std::vector<double> want;
  for (int64_t row = 0; row < 6; ++row) {
    std::vector<std::complex<double>> signal;
    for (int64_t i = 0; i < 5; ++i) signal.emplace_back(x.data<float>()[row * 5 + i]);
    const auto parts = transform(signal, 5);
    want.insert(want.end(), parts.begin(), parts.end());
  }
  OnnxModel m(17);
  m.input("x", {1, 6, 5, 1}).node("DFT", {"x"}, {"y"}, {{"axis", int64_t{2}}}).output("y");
  expect_near(run_model(m, {x.reshape({1, 6, 5, 1})}), want, 1e-5);
}

TEST(OnnxSpectra, OneSideIsTheFirstHalf) {
  OnnxModel all(17), half(17);
  all.input("x", {1, 6, 1}).node("DFT", {"x"}, {"y"}).output("y");
  half.input("x", {1, 6, 1}).node("DFT", {"x"}, {"y"}, {{"onesided", int64_t{1}}}).output("y");
  const Tensor x = Tensor::randn({1, 6, 1}, 1);
  std::vector<float> want = run_model(all, {x});
  want.resize(8);
  EXPECT_EQ(run_model(half, {x}), want);
}

TEST(OnnxSpectra, TheInverseGivesTheSignalBack) {
  OnnxModel m(17);
  m.input("x", {2, 7, 2})
      .node("DFT", {"x"}, {"f"})
      .node("DFT", {"f"}, {"y"}, {{"inverse", int64_t{1}}})
      .output("y");
  const Tensor x = Tensor::randn({2, 7, 2}, 1);
  const std::vector<float> values = x.to_vector<float>();
  expect_near(run_model(m, {x}), {values.begin(), values.end()}, 1e-5);
}

TEST(OnnxSpectra, FramesOfASignalOfAnyLength) {
  OnnxModel m(17);
  m.input("x", {1, "T", 1})
      .constant("step", Tensor::from(std::vector<int64_t>{3}, {}))
      .constant("window", floats({0.5f, 1, 2, 1}))
      .node("STFT", {"x", "step", "window"}, {"y"})
      .output("y");
  const Tensor x = Tensor::randn({1, 11, 1}, 1);
  std::vector<double> want;
  for (int64_t frame = 0; frame < 3; ++frame) {
    std::vector<std::complex<double>> part;
    const double window[] = {0.5, 1, 2, 1};
    for (int64_t i = 0; i < 4; ++i) part.emplace_back(x.data<float>()[frame * 3 + i] * window[i]);
    const auto parts = transform(part, 3);
    want.insert(want.end(), parts.begin(), parts.end());
  }
  expect_near(run_model(m, {x}), want, 1e-5);
}

TEST(OnnxSpectra, ATransformOfAnOpenLengthIsRefused) {
  OnnxModel m(17);
  m.input("x", {1, "T", 1}).node("DFT", {"x"}, {"y"}).output("y");
  expect_error(ErrorCode::unsupported, {"DFT", "'T'", "--shape x=1xTx1"}, [&] { m.import(); });
}

}  // namespace
}  // namespace octet::testing
