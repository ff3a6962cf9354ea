#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

int32_t wrapped(int64_t x) {
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(x)));
}

size_t element_size(Epilogue epilogue) { return epilogue == Epilogue::requantize ? 1 : 4; }

// One product with all its operands, and what should come out.
struct Product {
  int64_t m = 1;
  bool indirect = false;
  bool four_bit = false;  // weights are codes 0..15, through gemm4
  GemmArgs args;
  std::vector<uint8_t> a, pad;
  std::vector<int8_t> w;
  std::vector<int32_t> offsets, bias, row_sums, b_zero_points, c_rows;
  std::vector<std::vector<int32_t>> cut_bias;
  std::vector<GemmCut> cuts;
  std::vector<float> multiplier, float_bias;
  Guarded expected{0};

  // Fills what the caller left open of `args` and the sizes.
  void randomize(Random& random, bool with_zero_points) {
    GemmArgs& g = args;
    const int64_t n = g.shape.n, k = g.shape.k, taps = g.shape.taps;
    g.lda = k + (indirect ? 0 : random.integer(0, 9));
    const int64_t image = indirect ? random.integer(1, 3) * m * k + 7 : (m - 1) * g.lda + k;
    if (a.empty()) a = random.bytes(static_cast<size_t>(image));
    if (w.empty()) w = random.weights(static_cast<size_t>(n * taps * k));
    if (four_bit)
      for (int8_t& q : w) q &= 15;
    a = with_slack(std::move(a), random);
    pad = with_slack(
        std::vector<uint8_t>(static_cast<size_t>(k), static_cast<uint8_t>(random.integer(0, 255))),
        random);
    if (indirect)
      for (int64_t i = 0; i < m * taps; ++i)
        offsets.push_back(random.chance(0.2) ? -1
                                             : static_cast<int32_t>(random.integer(0, image - k)));
    const float typical = 200.0f / (std::sqrt(static_cast<float>(k * taps)) * 128 * 73);
    for (int64_t i = 0; i < n; ++i) {
      bias.push_back(static_cast<int32_t>(random.integer(-100000, 100000)));
      multiplier.push_back(random.magnitude(typical / 10, typical * 3));
      float_bias.push_back(random.real(-3, 3));
      b_zero_points.push_back(static_cast<int32_t>(random.integer(-128, 127)));
    }
    if (with_zero_points)
      for (int64_t i = 0; i < m; ++i)
        row_sums.push_back(static_cast<int32_t>(random.integer(0, 255 * k * taps)));
    const Range y = random_range(random, random.chance(0.4));
    g.zero_point = y.zero_point, g.lo = y.lo, g.hi = y.hi;
    g.relu = random.chance(0.3);
    g.ldc = n + random.integer(0, 5);
    bind();
    if (random.chance(0.3)) g.float_bias = nullptr;
  }

  // Rows in an order of their own, in cuts that skip taps. Of products by offsets.
  void cut(Random& random) {
    if (random.chance(0.7)) {
      for (int64_t i = 0; i < m; ++i) c_rows.push_back(static_cast<int32_t>(i));
      for (int64_t i = m - 1; i > 0; --i) std::swap(c_rows[i], c_rows[random.integer(0, i)]);
      args.c_rows = c_rows.data();
    }
    const int64_t taps = args.shape.taps;
    for (int64_t end = 0; end < m;) {
      end = std::min(m, end + random.integer(1, 20));
      uint64_t skipped = 0;
      for (int64_t t = 0; t < taps; ++t)
        if (random.chance(0.4)) skipped |= uint64_t{1} << t;
      skipped &= ~(uint64_t{1} << random.integer(0, taps - 1));
      cut_bias.emplace_back();
      for (int64_t j = 0; j < args.shape.n; ++j)
        cut_bias.back().push_back(static_cast<int32_t>(random.integer(-100000, 100000)));
      cuts.push_back({end, skipped, cut_bias.back().data()});
    }
    args.cuts = cuts.data();
  }
  const GemmCut& cut_of(int64_t i) const {
    return *std::find_if(cuts.begin(), cuts.end(), [&](const GemmCut& c) { return i < c.end; });
  }

  void bind() {
    args.a = a.data();
    args.offsets = indirect ? offsets.data() : nullptr;
    args.pad = pad.data();
    args.bias = bias.data();
    args.multiplier = multiplier.data();
    args.float_bias = float_bias.data();
    args.row_sums = row_sums.empty() ? nullptr : row_sums.data();
    args.b_zero_points = row_sums.empty() ? nullptr : b_zero_points.data();
  }

  const uint8_t* row(int64_t i, int64_t tap) const {
    if (!indirect) return a.data() + i * args.lda;
    const int32_t offset = offsets[static_cast<size_t>(i * args.shape.taps + tap)];
    return offset < 0 ? pad.data() : a.data() + offset;
  }

  size_t output_bytes() const {
    return static_cast<size_t>(m * args.ldc) * element_size(args.epilogue);
  }

  void compute_expected() {
    const int64_t n = args.shape.n, k = args.shape.k, taps = args.shape.taps;
    expected = Guarded(output_bytes());
    for (int64_t i = 0; i < m; ++i) {
      const uint64_t skipped = cuts.empty() ? 0 : cut_of(i).skipped;
      const int32_t* biases = cuts.empty() ? bias.data() : cut_of(i).bias;
      for (int64_t j = 0; j < n; ++j) {
        int64_t exact = biases[j];
        for (int64_t t = 0; t < taps; ++t)
          for (int64_t q = 0; q < k && (skipped >> t & 1) == 0; ++q)
            exact += row(i, t)[q] * int64_t{w[(j * taps + t) * k + q]};
        if (args.row_sums) exact -= int64_t{row_sums[i]} * b_zero_points[j];
        const int32_t acc = wrapped(exact);
        const size_t at = static_cast<size_t>((args.c_rows ? c_rows[i] : i) * args.ldc + j);
        if (args.epilogue == Epilogue::int32) {
          expected.put(at, acc);
          continue;
        }
        float y = static_cast<float>(acc) * multiplier[j];
        if (args.epilogue == Epilogue::requantize) {
          expected.put(at, reference_code(y, args.zero_point, args.lo, args.hi));
          continue;
        }
        if (args.float_bias) y += float_bias[j];
        if (args.relu && !(y > 0)) y = 0;
        expected.put(at, y);
      }
    }
  }

  // The kernel's result, in ranges of `rows` rows and `columns` channels (0: all at once).
  Guarded run(const KernelTable& kernels, int64_t rows = 0, int64_t columns = 0) {
    Guarded packed((four_bit ? kernels.gemm4_packed_bytes : kernels.gemm_packed_bytes)(args.shape));
    (four_bit ? kernels.gemm4_pack : kernels.gemm_pack)(args.shape, 0, args.shape.n, w.data(),
                                                        packed.data());
    Guarded y(output_bytes());
    GemmArgs g = args;
    g.b = packed.data();
    g.c = y.data();
    const int64_t n = args.shape.n;
    if (rows == 0) rows = m;
    if (columns == 0) columns = n;
    for (int64_t n0 = 0; n0 < n; n0 += columns)
      for (int64_t m0 = 0; m0 < m; m0 += rows)
        (four_bit ? kernels.gemm4 : kernels.gemm)(g, m0, std::min(m, m0 + rows), n0,
                                                  std::min(n, n0 + columns));
    return y;
  }

  std::string describe() const {
    return std::string(four_bit ? "4 bits " : "") + "m " + std::to_string(m) + " n " +
           std::to_string(args.shape.n) + " k " + std::to_string(args.shape.k) + " taps " +
           std::to_string(args.shape.taps) + (indirect ? " indirect" : " dense") + " epilogue " +
           std::to_string(static_cast<int>(args.epilogue)) + " lo " + std::to_string(args.lo) +
           " hi " + std::to_string(args.hi) + " zero point " + std::to_string(args.zero_point);
  }
};

Product random_product(Random& random, Epilogue epilogue, bool with_zero_points,
                       bool four_bit = false) {
  Product p;
  p.four_bit = four_bit;
  p.m = random.chance(0.2) ? random.integer(1, 3) : random.integer(1, 40);
  p.args.shape.n = random.chance(0.2) ? random.one_of({1, 8, 10, 16, 17, 32, 33, 48, 64})
                                      : random.integer(1, 80);
  p.indirect = !four_bit && random.chance(0.5);
  p.args.shape.taps = p.indirect ? random.integer(1, 9) : 1;
  p.args.shape.k = random.integer(1, p.indirect ? 20 : 90);
  p.args.epilogue = epilogue;
  p.randomize(random, with_zero_points);
  p.compute_expected();
  return p;
}

class GemmTest : public EveryIsa {
 protected:
  void expect_equal_on_random_products(uint32_t seed, int count, Epilogue epilogue,
                                       bool with_zero_points, bool four_bit = false) {
    Random random(seed);
    for (int i = 0; i < count; ++i) {
      Product p = random_product(random, epilogue, with_zero_points, four_bit);
      const Guarded y = p.run(kernels());
      ASSERT_SAME_BYTES(y, p.expected) << " in product " << i << ": " << p.describe();
    }
  }
};

TEST_P(GemmTest, RequantizedProductsOfRandomShapesAreExactAndWriteNothingElse) {
  expect_equal_on_random_products(1, 500, Epilogue::requantize, false);
}

TEST_P(GemmTest, Int32ProductsOfRandomShapesAreExactAndWriteNothingElse) {
  expect_equal_on_random_products(2, 150, Epilogue::int32, false);
}

TEST_P(GemmTest, DynamicProductsOfRandomShapesAreExactAndWriteNothingElse) {
  expect_equal_on_random_products(3, 150, Epilogue::dynamic, false);
}

TEST_P(GemmTest, WeightZeroPointsAreTakenOffInEveryEpilogue) {
  expect_equal_on_random_products(4, 60, Epilogue::requantize, true);
  expect_equal_on_random_products(5, 60, Epilogue::int32, true);
  expect_equal_on_random_products(6, 60, Epilogue::dynamic, true);
}

// The products' sums by gemm, then the way out by gemm_finish in two ranges of rows: gemm's
// results.
TEST_P(GemmTest, TheEpilogueOfSumsInMemoryIsGemmsAndWritesNothingElse) {
  Random random(23);
  for (const auto epilogue : {Epilogue::requantize, Epilogue::int32, Epilogue::dynamic})
    for (int i = 0; i < 120; ++i) {
      Product p = random_product(random, epilogue, random.chance(0.3));
      const auto n = static_cast<size_t>(p.args.shape.n);
      std::vector<int32_t> sums(static_cast<size_t>(p.m) * n);
      const std::vector<int32_t> no_bias(n);
      {
        Guarded packed(kernels().gemm_packed_bytes(p.args.shape));
        kernels().gemm_pack(p.args.shape, 0, p.args.shape.n, p.w.data(), packed.data());
        GemmArgs g = p.args;
        g.b = packed.data();
        g.c = sums.data();
        g.ldc = p.args.shape.n;
        g.epilogue = Epilogue::int32;
        g.bias = no_bias.data();
        g.row_sums = nullptr;
        kernels().gemm(g, 0, p.m, 0, p.args.shape.n);
      }
      Guarded y(p.output_bytes());
      GemmArgs g = p.args;
      g.c = y.data();
      const int64_t half = random.integer(0, p.m);
      kernels().gemm_finish(g, sums.data(), half, p.m);
      kernels().gemm_finish(g, sums.data(), 0, half);
      ASSERT_SAME_BYTES(y, p.expected) << " in product " << i << ": " << p.describe();
    }
}

// Some of them in ranges of rows, which need not begin where a cut does.
TEST_P(GemmTest, CutsSkipTapsAndRowsAreStoredWhereTheyBelong) {
  Random random(24);
  for (const auto epilogue : {Epilogue::requantize, Epilogue::int32, Epilogue::dynamic})
    for (int i = 0; i < 150; ++i) {
      Product p;
      p.indirect = true;
      p.m = random.integer(1, 70);
      p.args.shape = {random.integer(1, 80), random.integer(1, 40),
                      random.chance(0.2) ? random.integer(10, 64) : random.integer(2, 9)};
      p.args.epilogue = epilogue;
      if (random.chance(0.3))
        p.w.assign(static_cast<size_t>(p.args.shape.n * p.args.shape.k * p.args.shape.taps), 127);
      p.randomize(random, random.chance(0.3));
      p.cut(random);
      p.compute_expected();
      const Guarded y = p.run(kernels(), random.chance(0.3) ? random.integer(1, 30) : 0);
      ASSERT_SAME_BYTES(y, p.expected) << "in product " << i << ": " << p.describe();
    }
}

// A block holds more rows than fit in L2 at once.
TEST_P(GemmTest, CutsOfManyRowsAreExact) {
  Random random(25);
  Product p;
  p.indirect = true;
  p.m = 900;
  p.args.shape = {40, 600, 2};
  p.randomize(random, false);
  p.cut(random);
  p.compute_expected();
  const Guarded y = p.run(kernels());
  ASSERT_SAME_BYTES(y, p.expected) << p.describe();
}

TEST_P(GemmTest, FourBitWeightsOfRandomShapesAreExactAndWriteNothingElse) {
  for (const auto epilogue : {Epilogue::requantize, Epilogue::int32, Epilogue::dynamic})
    for (const bool with_zero_points : {false, true})
      expect_equal_on_random_products(16 + static_cast<uint32_t>(epilogue), 60, epilogue,
                                      with_zero_points, true);
}

TEST_P(GemmTest, FourBitWeightsPackToHalfTheBytes) {
  if (kernels().isa == Isa::scalar) GTEST_SKIP() << "a byte each: it is the definition";
  EXPECT_EQ(kernels().gemm4_packed_bytes({64, 64, 1}), 64u * 64 / 2);
}

TEST_P(GemmTest, EveryRowCountAndWidthAroundTheTileIsExact) {
  Random random(7);
  for (int64_t m = 1; m <= 29; ++m) {
    for (int64_t n : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 48, 49, 65}) {
      Product p;
      p.four_bit = (m + n) % 2 == 1;
      p.m = m;
      p.args.shape = {n, 13, 1};
      p.randomize(random, false);
      p.compute_expected();
      const Guarded y = p.run(kernels());
      ASSERT_SAME_BYTES(y, p.expected) << p.describe();
    }
  }
}

TEST_P(GemmTest, EveryDepthIsExactForOneRowAndForMany) {
  Random random(8);
  for (int64_t k = 1; k <= 70; ++k) {
    for (int64_t m : {1, 2, 3, 12, -1, -2, -3, -12}) {
      Product p;
      p.four_bit = m < 0;
      p.m = std::abs(m);
      p.args.shape = {33, k, 1};
      p.args.epilogue = Epilogue::int32;
      p.randomize(random, false);
      p.compute_expected();
      const Guarded y = p.run(kernels());
      ASSERT_SAME_BYTES(y, p.expected) << p.describe();
    }
  }
}

TEST_P(GemmTest, ProductsOfFewBytesAreExactForAnyRowsAndWidth) {
  Random random(17);
  for (int i = 0; i < 250; ++i) {
    Product p;
    p.indirect = random.chance(0.4);
    p.m = random.chance(0.3) ? random.integer(100, 900) : random.integer(1, 40);
    p.args.shape = {random.integer(1, 140),
                    p.indirect ? random.integer(7, 14) : random.integer(1, 36), p.indirect ? 3 : 1};
    p.randomize(random, random.chance(0.1));
    p.compute_expected();
    const Guarded y = p.run(kernels());
    ASSERT_SAME_BYTES(y, p.expected) << p.describe();
  }
}

TEST_P(GemmTest, ExtremeCodesOverLongRowsDoNotSaturate) {
  Random random(9);
  for (int8_t weight : {int8_t{-128}, int8_t{127}}) {
    for (int64_t m : {1, 13}) {
      Product p;
      p.m = m;
      p.args.shape = {35, 5003, 1};
      p.args.epilogue = Epilogue::int32;
      p.a.assign(static_cast<size_t>(m * 5020), 255);
      p.w.assign(35 * 5003, weight);
      p.randomize(random, false);
      p.compute_expected();
      const Guarded y = p.run(kernels());
      ASSERT_SAME_BYTES(y, p.expected) << p.describe();
    }
  }
}

// Weights of which some stand beside another so large that two products do not fit in 16 bits: few
// of them, some for each 16 of k, many, and in some panels only.
TEST_P(GemmTest, LargeWeightsSideBySideAreExact) {
  Random random(18);
  for (float density : {0.002f, 0.02f, 0.1f, 0.3f, 0.7f}) {
    for (int i = 0; i < 40; ++i) {
      Product q;
      q.indirect = random.chance(0.5);
      q.m = random.integer(1, 20);
      q.args.shape = {random.integer(1, 50),
                      random.chance(0.2) ? random.integer(500, 700) : random.integer(1, 150),
                      q.indirect ? random.integer(1, 10) : 1};
      q.args.epilogue = random.chance(0.5) ? Epilogue::int32 : Epilogue::requantize;
      const int64_t n = q.args.shape.n, k = q.args.shape.k, taps = q.args.shape.taps;
      const int64_t least = random.chance(0.5) ? -127 : -128;
      for (int64_t j = 0; j < n; ++j) {
        const float chance = random.chance(0.3) ? 0 : density;
        for (int64_t s = 0; s < taps * k; ++s) {
          const int64_t large = random.chance(0.5) ? random.integer(64, 127) : least;
          q.w.push_back(
              static_cast<int8_t>(random.chance(chance) ? large : random.integer(-40, 40)));
        }
      }
      q.randomize(random, random.chance(0.2));
      if (random.chance(0.5)) std::fill(q.a.begin(), q.a.end(), uint8_t{255});
      q.compute_expected();
      const Guarded y = q.run(kernels());
      ASSERT_SAME_BYTES(y, q.expected) << q.describe();
    }
  }
}

// What a 1x1 convolution with a stride of two is, whose weights are spread evenly.
TEST_P(GemmTest, RowsFromAnywhereTimesLargeWeightsAreExact) {
  Random random(19);
  for (int64_t m = 1; m <= 13; ++m) {
    for (int64_t n : {5, 16, 24, 40}) {
      Product q;
      q.indirect = m % 5 != 0;
      q.m = m;
      q.args.shape = {n, random.integer(512, 530), 1};
      for (int64_t i = 0; i < n * q.args.shape.k; ++i)
        q.w.push_back(static_cast<int8_t>(random.integer(-127, 127)));
      q.randomize(random, false);
      q.compute_expected();
      const Guarded y = q.run(kernels());
      ASSERT_SAME_BYTES(y, q.expected) << q.describe();
    }
  }
}

TEST_P(GemmTest, AccumulatorsWrapAround) {
  Random random(10);
  Product p;
  p.m = 5;
  p.args.shape = {20, 70000, 1};  // 70000 * 255 * -128 is below -2^31
  p.args.epilogue = Epilogue::int32;
  p.a.assign(5 * 70010, 255);
  p.w.assign(20 * 70000, -128);
  p.randomize(random, false);
  p.compute_expected();
  const Guarded y = p.run(kernels());
  EXPECT_SAME_BYTES(y, p.expected) << p.describe();
}

TEST_P(GemmTest, MultipliersOfEveryMagnitudeClampToTheRange) {
  Random random(11);
  for (float multiplier :
       {0.0f, 1e-30f, 0.5f, 0.99999994f, 1.0f, 3.0f, 1e6f, 1e20f, 3e38f, INFINITY, -1.0f, -3e38f}) {
    for (bool is_signed : {false, true}) {
      Product p;
      p.m = 14;
      p.args.shape = {37, 8, 1};
      p.randomize(random, false);
      std::fill(p.multiplier.begin(), p.multiplier.end(), multiplier);
      const Range y = random_range(random, is_signed);
      p.args.zero_point = y.zero_point, p.args.lo = y.lo, p.args.hi = y.hi;
      p.bias[3] = INT32_MAX, p.bias[4] = INT32_MIN, p.bias[5] = 0;
      p.compute_expected();
      const Guarded got = p.run(kernels());
      ASSERT_SAME_BYTES(got, p.expected) << p.describe() << " multiplier " << multiplier;
    }
  }
}

TEST_P(GemmTest, TiesRoundToEven) {
  Product p;
  p.m = 256;
  p.args.shape = {33, 1, 1};
  for (int i = 0; i < 256; ++i) p.a.push_back(static_cast<uint8_t>(i));
  p.a.insert(p.a.end(), 64, 0);
  p.w.assign(33, 1);
  p.pad.assign(65, 0);
  p.bias.assign(33, -128);
  p.multiplier.assign(33, 0.5f);
  p.args.lda = 1;
  p.args.ldc = 33;
  p.args.zero_point = 100;
  p.bind();
  Guarded y = p.run(kernels());
  for (int i = 0; i < 256; ++i) {
    const int twice = i - 128;
    const int even = twice % 2 == 0 ? twice / 2 : (twice - 1) / 2 + (((twice - 1) / 2) & 1);
    ASSERT_EQ(y.data()[i * 33 + 32], 100 + even) << "half of " << twice;
  }
}

TEST_P(GemmTest, SplittingTheRangesChangesNothing) {
  Random random(12);
  for (int i = 0; i < 60; ++i) {
    Product p = random_product(
        random, random.one_of({Epilogue::requantize, Epilogue::int32, Epilogue::dynamic}), false);
    const int64_t rows = random.integer(1, p.m), columns = random.integer(1, 3) * kernels().gemm_nr;
    const Guarded y = p.run(kernels(), rows, columns);
    ASSERT_SAME_BYTES(y, p.expected) << p.describe() << " rows " << rows << " columns " << columns;
    Product q = random_product(random, Epilogue::int32, true, true);
    const Guarded z = q.run(kernels(), rows, columns);
    ASSERT_SAME_BYTES(z, q.expected) << q.describe() << " rows " << rows << " columns " << columns;
  }
}

TEST_P(GemmTest, RangesMayEndInsideAPanelAndLeaveTheRestAlone) {
  Random random(13);
  for (int i = 0; i < 40; ++i) {
    Product p = random_product(
        random, random.one_of({Epilogue::requantize, Epilogue::int32, Epilogue::dynamic}), false);
    const int64_t m0 = random.integer(0, p.m), m1 = random.integer(m0, p.m);
    const int64_t n0 = random.integer(0, p.args.shape.n / kernels().gemm_nr) * kernels().gemm_nr;
    const int64_t n1 = random.integer(n0, std::max(n0, p.args.shape.n));
    Guarded packed(kernels().gemm_packed_bytes(p.args.shape)), y(p.output_bytes()),
        expected(p.output_bytes());
    kernels().gemm_pack(p.args.shape, 0, p.args.shape.n, p.w.data(), packed.data());
    GemmArgs g = p.args;
    g.b = packed.data();
    g.c = y.data();
    if (n0 < p.args.shape.n) kernels().gemm(g, m0, m1, n0, n1);
    const size_t size = element_size(g.epilogue);
    for (int64_t r = m0; r < m1; ++r)
      for (size_t b = static_cast<size_t>(r * g.ldc + n0) * size;
           b < static_cast<size_t>(r * g.ldc + n1) * size; ++b)
        expected.data()[b] = p.expected.data()[b];
    ASSERT_SAME_BYTES(y, expected)
        << p.describe() << " rows " << m0 << ".." << m1 << " columns " << n0 << ".." << n1;
  }
}

// More than 4 MB, which do not stay near a core.
TEST_P(GemmTest, ManyLargeWeightsAreExact) {
  Random random(23);
  for (int64_t m : {1, 2, 5}) {
    Product q;
    q.m = m;
    q.args.shape = {517, 8203, 1};
    q.args.epilogue = Epilogue::int32;
    for (int64_t i = 0; i < q.args.shape.n * q.args.shape.k; ++i)
      q.w.push_back(static_cast<int8_t>(random.chance(0.03) ? random.integer(-128, 127)
                                                            : random.integer(-40, 40)));
    q.randomize(random, false);
    std::fill(q.a.begin(), q.a.begin() + 4000, uint8_t{255});
    q.compute_expected();
    const Guarded y = q.run(kernels());
    ASSERT_SAME_BYTES(y, q.expected) << q.describe();
  }
}

TEST_P(GemmTest, PackingInPartsGivesTheSameBytes) {
  Random random(24);
  for (const bool four_bit : {false, true}) {
    const auto pack = four_bit ? kernels().gemm4_pack : kernels().gemm_pack;
    for (int i = 0; i < 30; ++i) {
      const GemmShape shape{random.integer(1, 150), random.integer(1, 200),
                            four_bit ? 1 : random.integer(1, 4)};
      std::vector<int8_t> w = random.weights(static_cast<size_t>(shape.n * shape.k * shape.taps));
      if (four_bit)
        for (int8_t& q : w) q &= 15;
      const size_t bytes =
          (four_bit ? kernels().gemm4_packed_bytes : kernels().gemm_packed_bytes)(shape);
      Guarded whole(bytes), parts(bytes);
      pack(shape, 0, shape.n, w.data(), whole.data());
      const int64_t step = random.integer(1, 3) * kernels().gemm_nr;
      for (int64_t n = (shape.n - 1) / step * step; n >= 0; n -= step)
        pack(shape, n, std::min(n + step, shape.n), w.data() + n * shape.taps * shape.k,
             parts.data());
      ASSERT_SAME_BYTES(parts, whole) << shape.n << "x" << shape.taps << "x" << shape.k;
    }
  }
}

TEST_P(GemmTest, PackingFillsExactlyTheBytesItAsksFor) {
  Random random(14);
  for (int i = 0; i < 100; ++i) {
    const GemmShape shape{random.integer(1, 70), random.integer(1, 20), random.integer(1, 9)};
    const auto w = random.weights(static_cast<size_t>(shape.n * shape.k * shape.taps));
    const size_t bytes = kernels().gemm_packed_bytes(shape);
    // Whatever the memory held before, the packed bytes are the same: they may be compared and
    // cached.
    std::vector<uint8_t> packed(bytes, 0x11);
    kernels().gemm_pack(shape, 0, shape.n, w.data(), packed.data());
    Guarded again(bytes), expected(bytes);
    kernels().gemm_pack(shape, 0, shape.n, w.data(), again.data());
    std::copy(packed.begin(), packed.end(), expected.data());
    ASSERT_SAME_BYTES(again, expected);
  }
}

TEST_P(GemmTest, RowSumsAddUpEveryTapAndThePadding) {
  Random random(15);
  for (int i = 0; i < 200; ++i) {
    Product p = random_product(random, Epilogue::int32, false);
    const int64_t m0 = random.integer(0, p.m), m1 = random.integer(m0, p.m);
    Guarded sums(static_cast<size_t>(p.m) * 4), expected(static_cast<size_t>(p.m) * 4);
    kernels().row_sums(p.args, sums.as<int32_t>(), m0, m1);
    for (int64_t m = m0; m < m1; ++m) {
      int32_t sum = 0;
      for (int64_t t = 0; t < p.args.shape.taps; ++t)
        for (int64_t q = 0; q < p.args.shape.k; ++q) sum += p.row(m, t)[q];
      expected.put(static_cast<size_t>(m), sum);
    }
    ASSERT_SAME_BYTES(sums, expected) << p.describe();
  }
}

// The packed bytes may differ (columns are packed at run time, in the form that is made fastest);
// what is computed from them does not.
TEST_P(GemmTest, PackedColumnsAreTheTransposedMatrix) {
  Random random(16);
  for (auto [n, k] :
       {std::pair<int64_t, int64_t>{1, 1}, {64, 128}, {33, 7}, {16, 4}, {50, 65}, {40, 10}})
    for (uint8_t flip : {0, 0x80}) {
      const GemmShape shape{n, k, 1};
      std::vector<uint8_t> b(static_cast<size_t>(n * k + 64));
      for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<uint8_t>(i * 91 + i / 7);
      std::vector<int8_t> w(static_cast<size_t>(n * k));
      std::vector<int32_t> expected(static_cast<size_t>(n)), sums(static_cast<size_t>(n), 5);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < k; ++j) {
          w[static_cast<size_t>(i * k + j)] =
              static_cast<int8_t>(b[static_cast<size_t>(j * n + i)] ^ flip);
          expected[static_cast<size_t>(i)] += w[static_cast<size_t>(i * k + j)];
        }
      std::vector<char> one(kernels().gemm_packed_bytes(shape)), other(one.size(), 1);
      kernels().gemm_pack(shape, 0, shape.n, w.data(), one.data());
      kernels().gemm_pack_columns(shape, b.data(), flip, other.data(), sums.data());
      EXPECT_EQ(sums, expected);
      constexpr int64_t kRows = 5;
      const auto a = with_slack(Random(3).bytes(static_cast<size_t>(kRows * k)), random);
      const std::vector<int32_t> bias(static_cast<size_t>(n));
      GemmArgs args{.shape = shape, .a = a.data(), .lda = k, .ldc = n, .epilogue = Epilogue::int32};
      args.bias = bias.data();
      std::vector<int32_t> y[2];
      for (int i = 0; i < 2; ++i) {
        y[i].resize(static_cast<size_t>(kRows * n));
        args.b = i == 0 ? one.data() : other.data();
        args.c = y[i].data();
        kernels().gemm(args, 0, kRows, 0, n);
      }
      EXPECT_EQ(y[0], y[1]) << n << "x" << k;
    }
}

OCTET_FOR_EVERY_ISA(GemmTest);

}  // namespace
}  // namespace octet::kernels
