// The key kernels of each instruction set may not take 5% more instructions than the committed
// figures (tests/perf/instructions.json). The processor itself stops after every instruction (the
// trap flag), so each one is counted, those of AVX-512 too, whatever else the machine does. A stop
// takes some 20 microseconds on a virtual machine: sizes are small.
// To write the figures anew, of the instruction sets that this CPU has:
//   OCTET_UPDATE_INSTRUCTIONS=1 ctest --test-dir build -R PerfInstructions
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/base/cpu.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/tensor.h"

namespace octet::testing {
namespace {

const std::string kFigures = "tests/perf/instructions.json";
const std::string kUpdate =
    "OCTET_UPDATE_INSTRUCTIONS=1 ctest --test-dir build -R PerfInstructions";

std::string compiler() {
#ifdef __clang__
  return "clang " + std::to_string(__clang_major__);
#else
  return "GCC " + std::to_string(__GNUC__);
#endif
}

// -- counting ---------------------------------------------------------------------------------

volatile int64_t steps = 0;

// How many instructions fn takes, and some twenty more that are the same each time. fn runs once
// before, so that the dynamic linker has found the functions it calls.
int64_t instructions_of(const std::function<void()>& fn) {
  constexpr unsigned long long kTrapFlag = 0x100;
  struct sigaction count {
  }, before{};
  count.sa_handler = [](int) { steps = steps + 1; };
  sigaction(SIGTRAP, &count, &before);
  fn();
  steps = 0;
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | kTrapFlag);
  fn();
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~kTrapFlag);
  sigaction(SIGTRAP, &before, nullptr);
  return steps;
}

TEST(PerfInstructions, AreCountedOneByOne) {
  const int64_t none = instructions_of([] {});
  EXPECT_EQ(instructions_of([] { asm volatile(".rept 1000\nnop\n.endr"); }) - none, 1000);
}

// -- the kernels ------------------------------------------------------------------------------

std::vector<uint8_t> bytes(size_t n) {
  std::vector<uint8_t> r(n + kBufferSlack);
  for (size_t i = 0; i < r.size(); ++i) r[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  return r;
}
std::vector<float> floats(size_t n) {
  std::vector<float> r(n);
  for (size_t i = 0; i < n; ++i)
    r[i] =
        static_cast<float>(static_cast<int>(static_cast<uint32_t>(i) * 2654435761u >> 20) - 2048) *
        0.002f;
  return r;
}

// Weights that differ in how much of them vpmaddubsw cannot take (kernels/split_gemm_impl.h).
enum class Weights {
  narrow,   // -31..31: every sum of four of a sign is safe
  small,    // -63..63: every pair is safe
  normal,   // normally distributed, the largest near 127: few pairs are not
  extreme,  // -127 and 127
};
std::vector<int8_t> weights(Weights kind, size_t n) {
  std::vector<int8_t> r(n);
  uint32_t state = 1;
  const auto uniform = [&] {  // [0, 1)
    state = state * 1664525 + 1013904223;
    return static_cast<float>(state >> 8) * 0x1p-24f;
  };
  for (int8_t& w : r) {
    float value = 0;
    if (kind == Weights::narrow) value = std::floor(uniform() * 63) - 31;
    if (kind == Weights::small) value = std::floor(uniform() * 127) - 63;
    if (kind == Weights::extreme) value = uniform() < 0.5f ? -127.0f : 127.0f;
    if (kind == Weights::normal) {
      for (int i = 0; i < 12; ++i) value += uniform() - 0.5f;  // a deviation of 1
      value = std::clamp(std::round(value * 36), -127.0f, 127.0f);
    }
    w = static_cast<int8_t>(value);
  }
  return r;
}

// The 3x3 windows of rows 2 and 3 of a 14x14 image with padding 1.
constexpr int kSide = 14, kPixels = 2 * kSide;
std::vector<int32_t> windows(int channels) {
  std::vector<int32_t> r;
  for (int i = 0; i < kPixels; ++i)
    for (int t = 0; t < 9; ++t) {
      const int y = 2 + i / kSide + t / 3 - 1, x = i % kSide + t % 3 - 1;
      r.push_back(x < 0 || x >= kSide ? -1 : (y * kSide + x) * channels);
    }
  return r;
}
size_t image(int channels) { return static_cast<size_t>(kSide * kSide * channels); }

class Kernels {
 public:
  explicit Kernels(Isa isa) : table_(kernels::table(isa)) {}

  // A 3x3 convolution to codes.
  int64_t convolution(Weights kind) {
    constexpr int kChannels = 32;
    const auto a = bytes(image(kChannels)), pad = bytes(kChannels);
    const auto offsets = windows(kChannels);
    kernels::GemmArgs g;
    g.offsets = offsets.data();
    g.pad = pad.data();
    return product(g, {kChannels, kChannels, 9}, a, kind, kPixels);
  }
  // The same by Winograd's algorithm, of the upper left quarter.
  int64_t winograd() {
    constexpr int kChannels = 32;
    const auto w = weights(Weights::normal, size_t{9} * kChannels * kChannels);
    const auto a = bytes(image(kChannels)), pad = bytes(kChannels);
    const std::vector<int32_t> bias(kChannels, 1);
    const std::vector<float> multiplier(kChannels, 1e-4f);
    std::vector<uint8_t> packed = bytes(table_.winograd_packed_bytes(kChannels, kChannels)),
                         scratch = bytes(table_.winograd_scratch_bytes(kChannels)),
                         y = bytes(image(kChannels));
    table_.winograd_pack(kChannels, kChannels, w.data(), 0, kChannels, packed.data());
    const kernels::WinogradTile tiles[] = {{0, 0, 0}, {0, 0, 4}, {0, 4, 0}, {0, 4, 4}};
    kernels::WinogradArgs g;
    g.finish.shape.n = kChannels;
    g.finish.c = y.data();
    g.finish.ldc = kChannels;
    g.finish.bias = bias.data();
    g.finish.multiplier = multiplier.data();
    g.channels = kChannels;
    g.a = a.data();
    g.h = g.w = g.oh = g.ow = kSide;
    g.top = g.left = 1;
    g.pad = pad.data();
    g.weights = packed.data();
    g.tiles = tiles;
    return instructions_of([&] { table_.winograd(g, scratch.data(), 0, 4, 0, kChannels); });
  }
  // The same of floats, by Winograd's algorithm.
  int64_t float_winograd() {
    constexpr int kChannels = 32;
    const auto w = floats(size_t{9} * kChannels * kChannels), a = floats(image(kChannels));
    const std::vector<float> pad(kChannels), bias(kChannels, 1.0f);
    std::vector<uint8_t> packed = bytes(table_.float_winograd_packed_bytes(kChannels, kChannels)),
                         scratch = bytes(table_.float_winograd_scratch_bytes(kChannels));
    std::vector<float> y(image(kChannels));
    table_.float_winograd_pack(kChannels, kChannels, w.data(), 0, kChannels,
                               reinterpret_cast<float*>(packed.data()));
    std::vector<kernels::WinogradTile> tiles;
    for (const int32_t row : {0, 2, 4})
      for (const int32_t column : {0, 2, 4, 6}) tiles.push_back({0, row, column});
    kernels::FloatWinogradArgs g;
    g.channels = g.n = g.ldc = kChannels;
    g.h = g.w = g.oh = g.ow = kSide;
    g.top = g.left = 1;
    g.tiles = tiles.data();
    g.a = a.data();
    g.pad = pad.data();
    g.weights = reinterpret_cast<const float*>(packed.data());
    g.c = y.data();
    g.bias = bias.data();
    return instructions_of(
        [&] { table_.float_winograd(g, scratch.data(), 0, std::ssize(tiles), 0, kChannels); });
  }
  // A dynamic linear layer of one row.
  int64_t row(Weights kind) {
    kernels::GemmArgs g;
    g.shape = {192, 192, 1};
    g.lda = g.shape.k;
    g.epilogue = kernels::Epilogue::dynamic;
    return product(g, g.shape, bytes(192), kind, 1);
  }
  // Rows of a dense layer, whose weights let AVX2 add two steps in 16 bits.
  int64_t dense_rows() {
    constexpr int64_t kN = 32, kK = 256;
    kernels::GemmArgs g;
    g.lda = kK;
    return product(g, {kN, kK, 1}, bytes(size_t{kPixels} * kK), Weights::narrow, kPixels);
  }
  int64_t row_of_4_bits() {
    constexpr int64_t kN = 192, kK = 192;
    std::vector<int8_t> w(kN * kK);
    for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>((i * 2654435761u >> 13) % 16);
    const std::vector<int32_t> bias(kN, 1), zero_points(kN, 8), sums{1000};
    const std::vector<float> multiplier(kN, 1e-4f);
    const auto a = bytes(kK);
    std::vector<float> y(kN);
    kernels::GemmArgs g;
    g.shape = {kN, kK, 1};
    std::vector<uint8_t> packed = bytes(table_.gemm4_packed_bytes(g.shape));
    table_.gemm4_pack(g.shape, 0, g.shape.n, w.data(), packed.data());
    g.a = a.data();
    g.lda = kK;
    g.b = packed.data();
    g.c = y.data();
    g.ldc = kN;
    g.epilogue = kernels::Epilogue::dynamic;
    g.bias = bias.data();
    g.multiplier = multiplier.data();
    g.row_sums = sums.data();
    g.b_zero_points = zero_points.data();
    return instructions_of([&] { table_.gemm4(g, 0, 1, 0, kN); });
  }
  int64_t float_convolution() {
    constexpr int kChannels = 32;
    const auto w = floats(kChannels * kChannels * 9), a = floats(image(kChannels));
    const std::vector<float> pad(kChannels), bias(kChannels, 1.0f);
    const auto offsets = windows(kChannels);
    std::vector<float> y(static_cast<size_t>(kPixels * kChannels));
    kernels::FloatGemmArgs g;
    g.shape = {kChannels, kChannels, 9};
    std::vector<float> packed(table_.float_gemm_packed_bytes(g.shape) / sizeof(float));
    table_.float_gemm_pack(g.shape, {w.data(), 9 * kChannels, kChannels, 1}, packed.data());
    g.a = a.data();
    g.offsets = offsets.data();
    g.pad = pad.data();
    g.b = packed.data();
    g.c = y.data();
    g.ldc = kChannels;
    g.bias = bias.data();
    g.lo = 0;
    return instructions_of([&] { table_.float_gemm(g, 0, kPixels, 0, kChannels); });
  }
  int64_t depthwise() {
    constexpr int kChannels = 96;
    const auto w = bytes(9 * kChannels), a = bytes(image(kChannels)), pad = bytes(kChannels);
    const std::vector<int32_t> bias(kChannels, 1);
    const std::vector<float> multiplier(kChannels, 1e-3f);
    std::vector<uint8_t> packed = bytes(table_.depthwise_packed_bytes(kChannels, 9)),
                         y = bytes(static_cast<size_t>(kPixels * kChannels));
    table_.depthwise_pack(kChannels, 9, reinterpret_cast<const int8_t*>(w.data()), packed.data());
    kernels::DepthwiseArgs d{
        kChannels, 9,         a.data(),    nullptr,           pad.data(), packed.data(),
        y.data(),  kChannels, bias.data(), multiplier.data(), 3};
    d.slide = d.slide_rows = d.top = d.left = 1;
    d.width = d.h = d.w = kSide;
    return instructions_of([&] { table_.depthwise(d, 0, kPixels); });
  }
  int64_t add() {
    const auto a = bytes(kElements), b = bytes(kElements);
    auto y = bytes(kElements);
    const kernels::BinaryArgs g{a.data(), b.data(), 1, y.data(), {0.1f, 3}, {0.2f, 4}, 5, 1, 7};
    return instructions_of([&] { table_.add(g, 0, kElements); });
  }
  int64_t quantize() {
    const auto x = floats(kElements);
    auto y = bytes(kElements);
    return instructions_of(
        [&] { table_.quantize(x.data(), y.data(), kElements, 20, 128, 0, 255); });
  }
  int64_t exp_sum() {
    const auto x = floats(kUnits);
    std::vector<double> y(kUnits);
    return instructions_of([&] { table_.exp_sum(x.data(), 5, y.data(), kUnits); });
  }
  int64_t lstm_gates() {
    auto gates = floats(4 * kUnits);
    const auto x = floats(4 * kUnits);
    std::vector<float> cell(kUnits), h(kUnits);
    return instructions_of(
        [&] { table_.lstm_gates(gates.data(), x.data(), kUnits, cell.data(), h.data(), kUnits); });
  }
  int64_t softmax() {
    const auto x = floats(kUnits);
    std::vector<float> y(x.size());
    return instructions_of([&] { table_.softmax(x.data(), y.data(), kUnits); });
  }
  int64_t layer_norm() {
    const auto x = floats(kUnits), weight = floats(kUnits), bias = floats(kUnits);
    std::vector<float> y(x.size());
    return instructions_of(
        [&] { table_.layer_norm(x.data(), weight.data(), bias.data(), 1e-5, y.data(), kUnits); });
  }
  int64_t squared_errors() {
    const auto x = floats(kElements);
    return instructions_of([&] {
      table_.squared_errors({.scale = 0.02f, .inverse = 50, .lo = -64, .hi = 63}, x.data(),
                            kElements);
    });
  }
  int64_t min_max() {
    const auto x = floats(kElements);
    float low, high;
    int64_t not_finite;
    return instructions_of([&] { table_.min_max(x.data(), kElements, &low, &high, &not_finite); });
  }
  int64_t histogram() {
    const auto x = floats(kElements);
    kernels::HistogramArgs h{-5, 5, 128, -640, 1281, nullptr};
    std::vector<uint32_t> counts(static_cast<size_t>(h.bins + h.kSpare));
    h.counts = counts.data();
    EXPECT_TRUE(table_.histogram(h, x.data(), kElements));
    return instructions_of([&] { table_.histogram(h, x.data(), kElements); });
  }

 private:
  static constexpr int64_t kElements = 4000, kUnits = 128;

  int64_t product(kernels::GemmArgs g, const kernels::GemmShape& shape,
                  const std::vector<uint8_t>& a, Weights kind, int64_t m) {
    g.shape = shape;
    const auto n = static_cast<size_t>(shape.n);
    const auto w = weights(kind, n * static_cast<size_t>(shape.taps * shape.k));
    const std::vector<int32_t> bias(n, 1);
    const std::vector<float> multiplier(n, 1e-4f);
    std::vector<uint8_t> packed = bytes(table_.gemm_packed_bytes(shape));
    table_.gemm_pack(shape, 0, shape.n, w.data(), packed.data());
    std::vector<float> y(static_cast<size_t>(m) * n);
    g.a = a.data();
    g.b = packed.data();
    g.c = y.data();
    g.ldc = shape.n;
    g.bias = bias.data();
    g.multiplier = multiplier.data();
    return instructions_of([&] { table_.gemm(g, 0, m, 0, shape.n); });
  }

  const kernels::KernelTable& table_;
};

std::map<std::string, int64_t> counts(Isa isa) {
  Kernels k(isa);
  std::map<std::string, int64_t> result = {{"gemm", k.convolution(Weights::small)},
                                           {"winograd", k.winograd()},
                                           {"gemv", k.row(Weights::small)},
                                           {"gemv_4_bits", k.row_of_4_bits()},
                                           {"float_gemm", k.float_convolution()},
                                           {"float_winograd", k.float_winograd()},
                                           {"depthwise", k.depthwise()},
                                           {"add", k.add()},
                                           {"quantize", k.quantize()},
                                           {"exp_sum", k.exp_sum()},
                                           {"lstm_gates", k.lstm_gates()},
                                           {"softmax", k.softmax()},
                                           {"layer_norm", k.layer_norm()},
                                           {"squared_errors", k.squared_errors()},
                                           {"min_max", k.min_max()},
                                           {"histogram", k.histogram()}};
  if (isa == Isa::avx2) {  // the others' products do not depend on the weights
    result["gemm_dense"] = k.dense_rows();
    result["gemm_normal"] = k.convolution(Weights::normal);
    result["gemm_extreme"] = k.convolution(Weights::extreme);
    result["gemv_normal"] = k.row(Weights::normal);
    result["gemv_extreme"] = k.row(Weights::extreme);
  }
  return result;
}

class PerfInstructionsOf : public ::testing::TestWithParam<Isa> {};

TEST_P(PerfInstructionsOf, KeyKernelsAreAtMost5PercentMoreThanCommitted) {
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "only release builds are counted";
#endif
  const Isa isa = GetParam();
  const std::string name = to_string(isa);
  if (!cpu_supports(isa)) GTEST_SKIP() << "this CPU does not have " << name;
  auto figures = nlohmann::json::parse(std::ifstream(kFigures), nullptr, false);
  ASSERT_TRUE(figures.is_object())
      << kFigures << " cannot be read; run the tests from the repository's root";
  const bool update = std::getenv("OCTET_UPDATE_INSTRUCTIONS") != nullptr;
  if (!update && figures["compiler"] != compiler())
    GTEST_SKIP() << "the figures are of code made by " << figures["compiler"].get<std::string>()
                 << ", this is " << compiler();

  const auto counted = counts(isa);
  if (update) {
    figures["compiler"] = compiler();
    figures["made_by"] = kUpdate;
    figures["instructions"][name] = counted;
    std::ofstream(kFigures) << figures.dump(1) << "\n";
  }
  const auto committed = figures["instructions"][name].get<std::map<std::string, int64_t>>();
  ASSERT_EQ(committed.size(), counted.size());
  for (const auto& [kernel, instructions] : counted) {
    ASSERT_TRUE(committed.contains(kernel)) << kernel;
    const int64_t before = committed.at(kernel);
    EXPECT_LE(instructions, before + before / 20)
        << kernel << " takes " << instructions << " instructions, " << before
        << " were committed. If more is right, renew " << kFigures << ": " << kUpdate;
  }
}

INSTANTIATE_TEST_SUITE_P(PerfInstructions, PerfInstructionsOf,
                         ::testing::Values(Isa::avx2, Isa::avx512vnni),
                         [](const auto& test) { return to_string(test.param); });

}  // namespace
}  // namespace octet::testing
