#include <gtest/gtest.h>

#include <limits>

#include "octet/engine/engine.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

enum class Kind { max, average, adaptive_max, adaptive_average };

struct RandomPool {
  std::string op;
  Kind kind;
  Shape x;
  Attrs attrs;
  Ints kernel, stride, begin, end, dilation, output_size;
  bool include_pad = false;
  int64_t divisor = 0;
  bool is_max() const { return kind == Kind::max || kind == Kind::adaptive_max; }
  bool adaptive() const { return kind == Kind::adaptive_max || kind == Kind::adaptive_average; }
};

RandomPool random_pool(Random& random, int64_t spatial, Kind kind) {
  const char* names[] = {"max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool"};
  RandomPool p;
  p.kind = kind;
  p.op = names[static_cast<int>(kind)] + std::to_string(spatial) + "d";
  p.x = {random.integer(1, 2), random.integer(1, 3)};
  for (int64_t i = 0; i < spatial; ++i) {
    p.kernel.push_back(random.integer(1, 3));
    p.stride.push_back(random.integer(1, 3));
    p.dilation.push_back(kind == Kind::max ? random.integer(1, 2) : 1);
    int64_t reach = p.dilation[i] * (p.kernel[i] - 1) + 1;
    p.begin.push_back(random.integer(0, reach / 2));
    p.end.push_back(random.integer(0, reach / 2));
    p.x.push_back(random.integer(reach, reach + 5));
    p.output_size.push_back(random.integer(1, 4));
  }
  if (p.adaptive()) {
    p.attrs = {{"output_size", p.output_size}};
    return p;
  }
  Ints padding = p.begin;
  padding.insert(padding.end(), p.end.begin(), p.end.end());
  p.attrs = {{"kernel", p.kernel},
             {"stride", p.stride},
             {"padding", padding},
             {"ceil_mode", random.integer(0, 1) == 1}};
  if (kind == Kind::max)
    p.attrs.set("dilation", p.dilation);
  else {
    p.include_pad = random.integer(0, 1);
    p.attrs.set("count_include_pad", p.include_pad);
    if (spatial > 1 && random.integer(0, 1))
      p.attrs.set("divisor_override", p.divisor = random.integer(1, 9));
  }
  return p;
}

// The elements of output `at`'s window (channel and image included), and the number an average
// divides by.
struct Cell {
  std::vector<Ints> elements;
  int64_t count = 0;
};

Cell cell(const RandomPool& p, const Shape& y, const Ints& at) {
  Cell c;
  Ints first, last, padded{};
  int64_t with_padding = 1;
  std::vector<Ints> places;
  for (size_t d = 0; d < p.kernel.size(); ++d) {
    Ints inside;
    const int64_t size = p.x[d + 2];
    if (p.adaptive()) {
      for (int64_t i = 0; i < size; ++i)  // where [i, i+1) overlaps [o*size/n, (o+1)*size/n)
        if ((i + 1) * y[d + 2] > at[d + 2] * size && i * y[d + 2] < (at[d + 2] + 1) * size)
          inside.push_back(i);
    } else {
      int64_t counted = 0;
      for (int64_t k = 0; k < p.kernel[d]; ++k) {
        int64_t i = at[d + 2] * p.stride[d] - p.begin[d] + k * p.dilation[d];
        if (i >= 0 && i < size) inside.push_back(i);
        counted += i < size + p.end[d];
      }
      with_padding *= counted;
    }
    places.push_back(inside);
  }
  Shape sizes;
  for (const Ints& i : places) sizes.push_back(static_cast<int64_t>(i.size()));
  for_each_index(sizes, [&](const Ints& i) {
    Ints e{at[0], at[1]};
    for (size_t d = 0; d < i.size(); ++d) e.push_back(places[d][i[d]]);
    c.elements.push_back(e);
  });
  c.count = p.divisor       ? p.divisor
            : p.include_pad ? with_padding
                            : static_cast<int64_t>(c.elements.size());
  return c;
}

struct Pools : ::testing::TestWithParam<std::tuple<int, Kind>> {};

TEST_P(Pools, FloatEqualsTheDefinition) {
  auto [spatial, kind] = GetParam();
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    Random random(11);
    for (int trial = 0; trial < 80; ++trial) {
      RandomPool p = random_pool(random, spatial, kind);
      Tensor x = Tensor::randn(p.x, random.next()),
             y = ops::call(p.op, {random_layout(random, x)}, p.attrs);
      for_each_index(y.shape(), [&](const Ints& at) {
        Cell c = cell(p, y.shape(), at);
        double best = -std::numeric_limits<double>::infinity(), sum = 0;
        for (const Ints& e : c.elements) {
          best = std::max(best, x.at(e));
          sum += x.at(e);
        }
        ASSERT_NEAR(y.at(at), p.is_max() ? best : sum / static_cast<double>(c.count), 1e-6)
            << engine << " " << p.op << " trial " << trial << " of " << to_string(p.x);
      });
    }
    set_engine("native");
  }
}

TEST_P(Pools, QuantizedEqualsTheContract) {
  auto [spatial, kind] = GetParam();
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    Random random(12);
    for (int trial = 0; trial < 80; ++trial) {
      RandomPool p = random_pool(random, spatial, kind);
      QType t = random_qtype(random, random_byte_dtype(random));
      Tensor x = random_codes(random, p.x, t),
             y = ops::call(p.op, {random_layout(random, x)}, p.attrs);
      ASSERT_EQ(*y.quantizer(), *t.quantizer);
      const Tensor xc = x.int_repr(), yc = y.int_repr();
      const auto z = static_cast<int32_t>(x.q_zero_point());
      for_each_index(y.shape(), [&](const Ints& at) {
        Cell c = cell(p, y.shape(), at);
        int32_t best = INT32_MIN, sum = 0;
        for (const Ints& e : c.elements) {
          best = std::max(best, static_cast<int32_t>(xc.at(e)));
          sum += static_cast<int32_t>(xc.at(e)) - z;
        }
        const int32_t mean = affine::round_and_clamp(
            static_cast<float>(sum) * (1.0f / static_cast<float>(c.count)), z,
            static_cast<int32_t>(qmin(t.dtype)), static_cast<int32_t>(qmax(t.dtype)));
        ASSERT_EQ(static_cast<int32_t>(yc.at(at)), p.is_max() ? best : mean)
            << engine << " " << p.op << " trial " << trial;
      });
    }
    set_engine("native");
  }
}

std::string pool_name(const ::testing::TestParamInfo<Pools::ParamType>& i) {
  const char* names[] = {"Max", "Average", "AdaptiveMax", "AdaptiveAverage"};
  return names[static_cast<int>(std::get<1>(i.param))] + std::to_string(std::get<0>(i.param)) + "d";
}

INSTANTIATE_TEST_SUITE_P(Pool, Pools,
                         ::testing::Combine(::testing::Values(1, 2, 3),
                                            ::testing::Values(Kind::max, Kind::average,
                                                              Kind::adaptive_max,
                                                              Kind::adaptive_average)),
                         pool_name);

TEST(PoolTypes, SymbolicBatchesPass) {
  EXPECT_EQ(infer_text("max_pool3d", {"Float(N, 2, 5, 6, 7)"},
                       {{"kernel", Ints{2, 2, 2}}, {"stride", Ints{2, 2, 2}}}),
            "Float(N, 2, 2, 3, 3)");
  EXPECT_EQ(infer_text("avg_pool1d", {"Float(N, 2, 5)"},
                       {{"kernel", Ints{2}}, {"stride", Ints{2}}, {"ceil_mode", true}}),
            "Float(N, 2, 3)");
  EXPECT_EQ(infer_text("adaptive_max_pool2d", {"Float(N, C, H, W)"}, {{"output_size", Ints{3, 2}}}),
            "Float(N, C, 3, 2)");
}

TEST(PoolTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::string& op, const std::string& x, const Attrs& attrs,
                  const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { infer_text(op, {x}, attrs); });
  };
  Attrs window{{"kernel", Ints{2, 2}}, {"stride", Ints{2, 2}}};
  fails("avg_pool2d", "Float(1, 2, 4)", window,
        {"avg_pool2d", "4-d input (N, C, H, W)", "Float(1, 2, 4)"});
  fails("max_pool3d", "Float(1, 2, 4, 4, 4)", window,
        {"max_pool3d", "kernel=[2, 2]", "expected 3 numbers"});
  fails("avg_pool2d", "Float(1, 2, 4, 4)", Attrs(window).set("padding", Ints{2, 0, 0, 0}),
        {"padding 2", "window 2"});
  fails("avg_pool2d", "Float(1, 2, 4, 4)", Attrs(window).set("divisor_override", int64_t{-1}),
        {"divisor_override=-1"});
  fails("adaptive_avg_pool1d", "Float(1, 2, 4)", {{"output_size", Ints{0}}},
        {"adaptive_avg_pool1d", "output_size 0"});
  fails("adaptive_max_pool3d", "Float(1, 2, 4)", {{"output_size", Ints{1, 1, 1}}},
        {"5-d input (N, C, D, H, W)"});
}

}  // namespace
}  // namespace octet::testing
