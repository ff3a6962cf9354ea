#include <limits>

#include "tests/kernels/kernel_test_util.h"
#include "tests/limits.h"

namespace octet::kernels {
namespace {

std::vector<float> random_values(Random& random, size_t n) {
  std::vector<float> x(n);
  for (float& v : x)
    v = random.chance(0.1) ? random.one_of({0.0f, -0.0f, kInf, -kInf, kNan, 3e38f, 1e-42f})
                           : random.real(-100, 100);
  return x;
}

// The contract's sum: taps in order, every operation rounded; +0 before those of neither 1, 2 nor 4
// taps.
float weighted_sum(const std::vector<float>& w, const std::vector<float>& taps) {
  float sum = taps.size() == 3 || taps.size() > 4 ? 0.0f : -0.0f;  // -0 + v is v
  for (size_t t = 0; t < taps.size(); ++t) {
    const float product = w[t] * taps[t];
    sum = sum + product;
  }
  return sum;
}

// Bits, but NaNs are alike.
template <typename T>
void put_result(Guarded& to, Guarded& got, size_t i, T value) {
  T have;
  std::memcpy(&have, got.data() + i * sizeof(T), sizeof(T));
  to.put(i, have != have && value != value ? have : value);
}

class ResizeTest : public EveryIsa {};

TEST_P(ResizeTest, RowsAreBlendedInOrderAndNothingElseIsWritten) {
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    const auto n = static_cast<size_t>(random.integer(1, 150)),
               taps = static_cast<size_t>(random.integer(1, 6));
    std::vector<std::vector<float>> rows;
    std::vector<const float*> pointers;
    for (size_t t = 0; t < taps; ++t) rows.push_back(random_values(random, n));
    for (const auto& row : rows) pointers.push_back(row.data());
    std::vector<float> w(taps);
    for (float& v : w) v = random.one_of({0.0f, 1.0f, 0.25f, -0.1f, 0.7f});
    const float inverse = random.magnitude(0.1f, 10);
    const Range range = random_range(random, random.chance(0.5));
    Guarded y(n * 4), expected(n * 4), codes(n), expected_codes(n);
    const auto count = static_cast<int64_t>(n), many = static_cast<int64_t>(taps);
    kernels().blend_rows(pointers.data(), w.data(), many, y.as<float>(), count);
    kernels().blend_rows_quantize(pointers.data(), w.data(), many, codes.data(), count, inverse,
                                  range.zero_point, range.lo, range.hi);
    for (size_t j = 0; j < n; ++j) {
      std::vector<float> column;
      for (const auto& row : rows) column.push_back(row[j]);
      const float sum = weighted_sum(w, column);
      put_result(expected, y, j, sum);
      expected_codes.put(j, reference_quantize(sum, inverse, range.zero_point, range.lo, range.hi));
    }
    ASSERT_SAME_BYTES(y, expected) << "case " << i;
    ASSERT_SAME_BYTES(codes, expected_codes) << "case " << i;
  }
}

TEST_P(ResizeTest, ColumnsAreBlendedInOrderAndNothingElseIsWritten) {
  Random random(2);
  for (int i = 0; i < 500; ++i) {
    const auto pixels = static_cast<size_t>(random.integer(1, 20)),
               channels = static_cast<size_t>(random.chance(0.3) ? 1 : random.integer(1, 70)),
               columns = static_cast<size_t>(random.integer(1, 20)),
               taps = static_cast<size_t>(random.integer(1, 6));
    const std::vector<float> x = random_values(random, pixels * channels);
    std::vector<int32_t> index(columns * taps);
    std::vector<float> w(columns * taps);
    for (int32_t& v : index)
      v = static_cast<int32_t>(random.integer(0, static_cast<int64_t>(pixels) - 1));
    for (float& v : w) v = random.one_of({0.0f, 1.0f, 0.25f, -0.1f, 0.7f});
    Guarded y(columns * channels * 4), expected(columns * channels * 4);
    kernels().blend_columns(x.data(), static_cast<int64_t>(channels), index.data(), w.data(),
                            static_cast<int64_t>(taps), y.as<float>(),
                            static_cast<int64_t>(columns));
    for (size_t j = 0; j < columns; ++j)
      for (size_t c = 0; c < channels; ++c) {
        std::vector<float> own;
        for (size_t t = 0; t < taps; ++t)
          own.push_back(x[static_cast<size_t>(index[j * taps + t]) * channels + c]);
        const float sum = weighted_sum({w.begin() + static_cast<int64_t>(j * taps), w.end()}, own);
        put_result(expected, y, j * channels + c, sum);
      }
    ASSERT_SAME_BYTES(y, expected) << "case " << i;
  }
}

OCTET_FOR_EVERY_ISA(ResizeTest);

}  // namespace
}  // namespace octet::kernels
