// Runs a few kernels of the AVX2 table once each, for instruction_count_test.cpp to count their
// instructions: perf_kernels [NAME ...] Each is called through measured_NAME, whose name valgrind
// is told (the sizes are small: valgrind is some fifty times slower).
#include <cstdio>
#include <cstring>
#include <vector>

#include "octet/kernels/kernels.h"
#include "octet/tensor/tensor.h"

namespace {

using namespace octet;

const kernels::KernelTable& table() { return kernels::table(Isa::avx2); }

std::vector<uint8_t> bytes(size_t n) {
  std::vector<uint8_t> r(n + kBufferSlack);
  for (size_t i = 0; i < r.size(); ++i) r[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  return r;
}
std::vector<float> floats(size_t n) {
  std::vector<float> r(n);
  for (size_t i = 0; i < n; ++i)
    r[i] = static_cast<float>(static_cast<int>(i * 2654435761u >> 20) - 2048) * 0.002f;
  return r;
}
// The 3x3 windows of a 14x14 image with padding 1.
constexpr int kSide = 14, kPixels = kSide * kSide;
std::vector<int32_t> windows(int channels) {
  std::vector<int32_t> r;
  for (int i = 0; i < kPixels; ++i)
    for (int t = 0; t < 9; ++t) {
      const int y = i / kSide + t / 3 - 1, x = i % kSide + t % 3 - 1;
      r.push_back(y < 0 || x < 0 || y >= kSide || x >= kSide ? -1 : (y * kSide + x) * channels);
    }
  return r;
}

// A function that is not inlined and whose name is not changed.
#define OCTET_MEASURED(name) extern "C" __attribute__((noinline, used)) void measured_##name

OCTET_MEASURED(gemm)(const kernels::GemmArgs& g, int64_t m) { table().gemm(g, 0, m, 0, g.shape.n); }
OCTET_MEASURED(gemv)(const kernels::GemmArgs& g) { table().gemm(g, 0, 1, 0, g.shape.n); }
OCTET_MEASURED(depthwise)(const kernels::DepthwiseArgs& d) { table().depthwise(d, 0, kPixels); }
OCTET_MEASURED(add)(const kernels::BinaryArgs& b, int64_t n) { table().add(b, 0, n); }
OCTET_MEASURED(quantize)(const float* x, void* y, int64_t n) {
  table().quantize(x, y, n, 20, 128, 0, 255);
}
OCTET_MEASURED(exp_sum)(const float* x, double* y, int64_t n) { table().exp_sum(x, 5, y, n); }
OCTET_MEASURED(lstm_gates)(float* g, const float* r, float* cell, float* h, int64_t n) {
  table().lstm_gates(g, r, n, cell, h, n);
}

void matrix_products(bool requantized) {
  constexpr int64_t kIn = 64, kOut = 64;
  const auto w = bytes(kOut * kIn * 9), a = bytes(kPixels * kIn), pad = bytes(kIn);
  const auto offsets = windows(kIn);
  const std::vector<int32_t> bias(kOut * 4, 1);
  const std::vector<float> multiplier(kOut * 4, 1e-4f);
  std::vector<float> y(kPixels * kOut);
  kernels::GemmArgs g;
  g.shape =
      requantized ? kernels::GemmShape{kOut, kIn, 9} : kernels::GemmShape{kOut * 3, kIn * 3, 1};
  std::vector<uint8_t> packed = bytes(table().gemm_packed_bytes(g.shape));
  table().gemm_pack(g.shape, reinterpret_cast<const int8_t*>(w.data()), packed.data());
  g.a = a.data();
  g.b = packed.data();
  g.c = y.data();
  g.ldc = g.shape.n;
  g.bias = bias.data();
  g.multiplier = multiplier.data();
  if (requantized) {  // a 3x3 convolution
    g.offsets = offsets.data();
    g.pad = pad.data();
    measured_gemm(g, kPixels);
  } else {  // a dynamic linear layer of one row
    g.lda = g.shape.k;
    g.epilogue = kernels::Epilogue::dynamic;
    measured_gemv(g);
  }
}

void depthwise() {
  constexpr int64_t kChannels = 96;
  const auto w = bytes(9 * kChannels), a = bytes(kPixels * kChannels), pad = bytes(kChannels);
  const auto offsets = windows(kChannels);
  const std::vector<int32_t> bias(kChannels, 1);
  const std::vector<float> multiplier(kChannels, 1e-3f);
  std::vector<uint8_t> packed = bytes(table().depthwise_packed_bytes(kChannels, 9)),
                       y = bytes(kPixels * kChannels);
  table().depthwise_pack(kChannels, 9, reinterpret_cast<const int8_t*>(w.data()), packed.data());
  measured_depthwise({kChannels, 9, a.data(), offsets.data(), pad.data(), packed.data(), y.data(),
                      kChannels, bias.data(), multiplier.data(), 3, 0, 255, 1, kSide});
}

}  // namespace

int main() {
  constexpr int64_t kElements = 20'000, kUnits = 512;
  matrix_products(true);
  matrix_products(false);
  depthwise();
  const auto a = bytes(kElements), b = bytes(kElements);
  auto y = bytes(kElements);
  measured_add({a.data(), b.data(), 1, y.data(), {0.1f, 3}, {0.2f, 4}, 5, 1, 7}, kElements);
  const auto x = floats(kElements);
  measured_quantize(x.data(), y.data(), kElements);
  std::vector<double> exponentials(kUnits);
  measured_exp_sum(x.data(), exponentials.data(), kUnits);
  auto gates = floats(4 * kUnits);
  std::vector<float> cell(kUnits), h(kUnits);
  measured_lstm_gates(gates.data(), x.data(), cell.data(), h.data(), kUnits);
}
