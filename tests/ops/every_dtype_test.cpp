// Order and division are the same in every dtype: against plain arithmetic in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

const double kNoNumber = std::numeric_limits<double>::quiet_NaN();

constexpr DType kAll[] = {DType::float32,  DType::float64, DType::float16,
                          DType::bfloat16, DType::int64,   DType::int32,
                          DType::int16,    DType::int8,    DType::uint8};

bool has_sign(DType dtype) { return dtype != DType::uint8; }

Tensor tensor_of(const std::vector<double>& values, DType dtype) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).to(dtype);
}

// Whole numbers, of both signs where the dtype has them, and a NaN where it has that.
std::vector<double> some_values(DType dtype) {
  std::vector<double> values{0, 1, 2, 3, 7};
  if (has_sign(dtype)) values.insert(values.begin(), {-7, -3, -2, -1});
  if (is_floating(dtype)) values.push_back(kNoNumber);
  return values;
}

// Whether two numbers are the same, NaN and NaN too.
bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

using Function = double (*)(double, double);

// op(a, b) of all pairs of values for which `is_defined`, as a tensor of each dtype.
void expect_pairs(const char* op, const std::vector<DType>& dtypes, Function expected,
                  bool (*is_defined)(double, double)) {
  for (const DType dtype : dtypes) {
    std::vector<double> a, b;
    for (const double x : some_values(dtype))
      for (const double y : some_values(dtype))
        if (is_defined(x, y)) a.push_back(x), b.push_back(y);
    const Tensor z = ops::call(op, {tensor_of(a, dtype), tensor_of(b, dtype)}).to(DType::float64);
    for (size_t i = 0; i < a.size(); ++i) {
      const double want = tensor_of({expected(a[i], b[i])}, dtype).to(DType::float64).item();
      EXPECT_TRUE(same(z.at({static_cast<int64_t>(i)}), want))
          << op << "(" << a[i] << ", " << b[i] << ") of " << to_string(dtype) << " is "
          << z.at({static_cast<int64_t>(i)}) << ", expected " << want;
    }
  }
}

bool always(double, double) { return true; }

TEST(EveryDType, MaximumAndMinimumKeepNaN) {
  const std::vector<DType> all(std::begin(kAll), std::end(kAll));
  expect_pairs(
      "maximum", all,
      [](double a, double b) {
        return std::isnan(a) || std::isnan(b) ? kNoNumber : std::max(a, b);
      },
      always);
  expect_pairs(
      "minimum", all,
      [](double a, double b) {
        return std::isnan(a) || std::isnan(b) ? kNoNumber : std::min(a, b);
      },
      always);
}

TEST(EveryDType, IntegersAreDividedTowardsZero) {
  const std::vector<DType> integers{DType::int64, DType::int32, DType::int16, DType::int8,
                                    DType::uint8};
  const auto not_by_0 = [](double, double b) { return b != 0; };
  expect_pairs(
      "div", integers, [](double a, double b) { return std::trunc(a / b); }, not_by_0);
  expect_pairs(
      "fmod", integers, [](double a, double b) { return std::fmod(a, b); }, not_by_0);
  expect_pairs(
      "remainder", integers, [](double a, double b) { return a - b * std::floor(a / b); },
      not_by_0);
}

TEST(EveryDType, TheSignOfARemainderIsTheDivisorsInFloatToo) {
  expect_pairs(
      "remainder", {DType::float32, DType::float64},
      [](double a, double b) { return a - b * std::floor(a / b); },
      [](double a, double b) { return b != 0 && !std::isnan(a) && !std::isnan(b); });
}

TEST(EveryDType, WholePowersOfIntegers) {
  expect_pairs(
      "pow", {DType::int64, DType::int32},
      [](double a, double b) {
        if (b < 0 && std::abs(a) != 1) return 0.0;  // as integers have it
        return std::pow(a, b);
      },
      [](double a, double b) { return a != 0 || b >= 0; });
}

TEST(EveryDType, ExtremesAreFoundWhereverTheyAre) {
  for (const DType dtype : kAll) {
    const std::vector<double> rising = some_values(dtype);
    std::vector<double> falling(rising.rbegin(), rising.rend()), equal(5, 1), numbers;
    std::copy_if(rising.begin(), rising.end(), std::back_inserter(numbers),
                 [](double v) { return !std::isnan(v); });
    std::vector<double> back(numbers.rbegin(), numbers.rend()), twice = numbers;
    twice.insert(twice.end(), numbers.begin(), numbers.end());
    for (const std::vector<double>& values : {rising, falling, equal, numbers, back, twice}) {
      const Tensor x = tensor_of(values, dtype);
      const auto nan =
          std::find_if(values.begin(), values.end(), [](double v) { return std::isnan(v); });
      for (const bool largest : {true, false}) {
        const auto extreme = nan != values.end() ? nan
                             : largest           ? std::max_element(values.begin(), values.end())
                                                 : std::min_element(values.begin(), values.end());
        const std::string of = to_string(dtype) + " " + to_string(x);
        EXPECT_TRUE(
            same(ops::call(largest ? "amax" : "amin", {x}).to(DType::float64).item(), *extreme))
            << of;
        const char* arg = largest ? "argmax" : "argmin";
        EXPECT_EQ(ops::call(arg, {x}, {{"dim", int64_t{0}}}).item(),
                  static_cast<double>(extreme - values.begin()))
            << of;
        if (nan != values.end()) continue;
        const auto last = std::find(values.rbegin(), values.rend(), *extreme);
        EXPECT_EQ(ops::call(arg, {x}, {{"dim", int64_t{0}}, {"select_last", true}}).item(),
                  static_cast<double>(values.rend() - last - 1))
            << of;
      }
    }
  }
}

}  // namespace
}  // namespace octet::testing
