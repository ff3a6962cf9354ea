#include <cmath>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;
using Doubles = std::vector<double>;

// The results of ONNX 1.12's own reference (onnx/backend/test/case/node/resize.py) for this image;
// without a size the scales are 0.6 and 1.7.
TEST(Interpolate, EqualsOnnxsReference) {
  Tensor x =
      floats({3, -1, 4, 1, -5, 9, 2, -6, 5, 3, 5, -8, 9, 7, 9, -3, 2, 3, 8, 4}, {1, 1, 4, 5});
  struct Row {
    std::string mode, coordinates, rounding;
    double cubic;
    bool exclude_outside;
    Ints size;
    std::vector<float> y;
  };
  const std::vector<Row> table = {
      {"linear",
       "half_pixel",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {4,           1.4285715f, 0.30952382f, 2.3333333f,   1.8571428f, -0.61904764f,
        -3.6666667f, 7,          1.2857143f,  -1.7142857f,  1.5f,       4.7142859f,
        6,           6,          -1.6666666f, -0.52380955f, 1.3809524f, 4,
        6.7380953f,  6.5476189f, 4.8333335f}},
      {"linear",
       "align_corners",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {3,  0.33333334f, 0.66666669f, 4,    2,          -1,         -5,
        7,  0.33333334f, -1.5f,       1.5f, 4.5f,       6,          6,
        -3, 0.33333334f, 2.3333333f,  3,    6.3333335f, 6.6666665f, 4}},
      {"linear",
       "asymmetric",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {3,          0.14285715f, 1.1428572f,   3.5714285f,  1.4285715f,    -2.4285715f,
        -5,         7.6666665f,  1.2380953f,   -1.1904762f, -0.047619049f, 4.7142859f,
        5.2857141f, 5,           -0.33333334f, -1.0476191f, 1.3809524f,    5.3809524f,
        7.2857141f, 6.5238094f,  5.6666665f}},
      {"linear",
       "pytorch_half_pixel",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 1},
       {4, 7, -1.6666666f}},
      {"linear",
       "half_pixel",
       "round_prefer_floor",
       -0.75,
       false,
       {},
       {5, 3.0882354f, 0.14705883f, 0.37254903f, 0.91176468f, 1.8921568f, 0.82352942f, -1.9215686f,
        5, 0.029411765f, -7.6176472f, 1.5f, 8.7058821f, 7.5294118f, 7.647059f, 8.8235292f}},
      {"linear",
       "asymmetric",
       "round_prefer_floor",
       -0.75,
       false,
       {},
       {3, 0.64705884f, -0.11764706f, 2.8235295f, 2.9411764f, 1.1764706f, -2.1764705f, -5,
        6.3333335f, -0.13725491f, -3.137255f, 1.9607843f, 4.8235292f, 6.1960783f, 6.6862745f, 7}},
      {"cubic",
       "half_pixel",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {4.2711167f,  1.137087f,    -0.12292645f, 2.3043981f, 2.4600997f, -0.84803879f, -4.3885989f,
        9.2546463f,  0.86670917f,  -3.9287536f,  1.125f,     5.0273781f, 7.2160168f,   7.2925472f,
        -2.1033299f, -0.97116268f, 1.4634135f,   4.1215277f, 7.3952951f, 6.9982252f,   4.5801411f}},
      {"cubic",
       "align_corners",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {3,       -0.2962963f,  0.2962963f,  4,      2.8888888f, -1.2222222f, -5,
        8.3125f, -0.41956019f, -3.7673612f, 1.125f, 4.8194447f, 7.1493053f,  7.21875f,
        -3,      0.31481481f,  2.5925925f,  3,      6.9259257f, 7.2962961f,  4}},
      {"cubic",
       "asymmetric",
       "round_prefer_floor",
       -0.75,
       false,
       {3, 7},
       {3,           -0.49125364f, 0.91545188f, 4.1093292f, 1.9008746f, -2.7172012f, -5.6559768f,
        8.8518515f,  1.4016575f,   -3.3664832f, -1.133085f, 5.0297213f, 6.6755748f,  6.0596046f,
        -0.7037037f, -2.2517276f,  1.1456646f,  6.5824966f, 7.7914643f, 6.8636756f,  5.7008963f}},
      {"cubic",
       "half_pixel",
       "round_prefer_floor",
       -0.5,
       true,
       {3, 7},
       {3.9755476f,  1.1180892f,   -0.038219851f, 2.6980307f, 2.2413189f, -1.1122944f, -4.4809117f,
        8.5339804f,  1.2333795f,   -3.2716837f,   1.25f,      5.0838194f, 6.7910318f,  6.8489079f,
        -2.3016083f, -0.72417974f, 1.5934125f,    3.846827f,  7.2541418f, 6.7362967f,  4.4438825f}},
      {"nearest",
       "half_pixel",
       "round_prefer_floor",
       -0.75,
       false,
       {2, 8},
       {3, 3, -1, 4, 4, 1, -5, -5, 5, 5, -8, 9, 9, 7, 9, 9}},
      {"nearest",
       "half_pixel",
       "round_prefer_ceil",
       -0.75,
       false,
       {2, 8},
       {9, 9, 2, -6, -6, 5, 3, 3, -3, -3, 2, 3, 3, 8, 4, 4}},
      {"nearest",
       "half_pixel",
       "floor",
       -0.75,
       false,
       {2, 8},
       {3, 3, -1, -1, 4, 4, 1, -5, 5, 5, -8, -8, 9, 9, 7, 9}},
      {"nearest",
       "half_pixel",
       "ceil",
       -0.75,
       false,
       {2, 8},
       {9, 2, -6, -6, 5, 5, 3, 3, -3, 2, 3, 3, 8, 8, 4, 4}},
      {"nearest",
       "align_corners",
       "round_prefer_floor",
       -0.75,
       false,
       {2, 8},
       {3, -1, -1, 4, 4, 1, 1, -5, -3, 2, 2, 3, 3, 8, 8, 4}},
      {"nearest",
       "align_corners",
       "round_prefer_ceil",
       -0.75,
       false,
       {2, 8},
       {3, -1, -1, 4, 4, 1, 1, -5, -3, 2, 2, 3, 3, 8, 8, 4}},
      {"nearest",
       "align_corners",
       "floor",
       -0.75,
       false,
       {2, 8},
       {3, 3, -1, -1, 4, 4, 1, -5, -3, -3, 2, 2, 3, 3, 8, 4}},
      {"nearest",
       "align_corners",
       "ceil",
       -0.75,
       false,
       {2, 8},
       {3, -1, 4, 4, 1, 1, -5, -5, -3, 2, 3, 3, 8, 8, 4, 4}},
      {"nearest",
       "asymmetric",
       "round_prefer_floor",
       -0.75,
       false,
       {2, 8},
       {3, -1, -1, 4, 4, 1, -5, -5, 5, -8, -8, 9, 9, 7, 9, 9}},
      {"nearest",
       "asymmetric",
       "round_prefer_ceil",
       -0.75,
       false,
       {2, 8},
       {3, -1, -1, 4, 1, 1, -5, -5, 5, -8, -8, 9, 7, 7, 9, 9}},
      {"nearest",
       "asymmetric",
       "floor",
       -0.75,
       false,
       {2, 8},
       {3, 3, -1, -1, 4, 1, 1, -5, 5, 5, -8, -8, 9, 7, 7, 9}},
      {"nearest",
       "asymmetric",
       "ceil",
       -0.75,
       false,
       {2, 8},
       {3, -1, 4, 4, 1, -5, -5, -5, 5, -8, 9, 9, 7, 9, 9, 9}},
      {"nearest",
       "asymmetric",
       "floor",
       -0.75,
       false,
       {},
       {3, 3, -1, -1, 4, 4, 1, -5, 9, 9, 2, 2, -6, -6, 5, 3}},
  };
  for (const Row& row : table) {
    Attrs attrs{{"mode", row.mode},
                {"coordinates", row.coordinates},
                {"nearest_rounding", row.rounding},
                {"cubic_coeff", row.cubic},
                {"exclude_outside", row.exclude_outside}};
    if (row.size.empty())
      attrs.set("scales", Doubles{0.6, 1.7});
    else
      attrs.set("size", row.size);
    Tensor y = ops::call("interpolate", {x}, attrs);
    ASSERT_EQ(y.numel(), static_cast<int64_t>(row.y.size()));
    EXPECT_TRUE(allclose(y, floats(row.y, y.shape()), 1e-5, 1e-5))
        << row.mode << " " << row.coordinates << " " << row.rounding << "\n"
        << to_string(y);
  }
}

TEST(Interpolate, FullRankAndSpatialSizesAgree) {
  Tensor x = Tensor::randn({2, 3, 4, 5}, 1);
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    Tensor spatial = ops::call("interpolate", {x}, {{"scales", Doubles{2, 3}}, {"mode", mode}});
    ASSERT_EQ(spatial.shape(), (Shape{2, 3, 8, 15}));
    expect_equal(ops::call("interpolate", {x}, {{"scales", Doubles{1, 1, 2, 3}}, {"mode", mode}}),
                 spatial);
    expect_equal(ops::call("interpolate", {x}, {{"size", Ints{8, 15}}, {"mode", mode}}), spatial);
    expect_equal(ops::call("interpolate", {x}, {{"size", Ints{-1, -1, 8, 15}}, {"mode", mode}}),
                 spatial);
    expect_equal(ops::call("interpolate", {x}, {{"size", Ints{4, 5}}, {"mode", mode}}), x);
  }
}

TEST(Interpolate, SizeAndScalesMayDiffer) {
  // Positions are (i + 0.5) / 2 - 0.5 whatever the size: -0.25 (clamped), 0.25, 0.75, 1.25.
  expect_equal(ops::call("interpolate", {floats({0, 6, 12}, {1, 1, 3})},
                         {{"size", Ints{4}}, {"scales", Doubles{2}}, {"mode", "linear"}}),
               floats({0, 1.5, 4.5, 7.5}, {1, 1, 4}));
}

TEST(Interpolate, OneAndThreeDimensionsToo) {
  expect_equal(ops::call("interpolate", {floats({0, 4}, {1, 1, 2})},
                         {{"size", Ints{4}}, {"mode", "linear"}}),
               floats({0, 1, 3, 4}, {1, 1, 4}));
  Tensor x = Tensor::randn({1, 2, 2, 3, 2}, 2);
  Tensor y = ops::call(
      "interpolate", {x},
      {{"scales", Doubles{2, 2, 2}}, {"coordinates", "asymmetric"}, {"nearest_rounding", "floor"}});
  for_each_index(y.shape(), [&](const Ints& i) {
    ASSERT_EQ(y.at(i), x.at({i[0], i[1], i[2] / 2, i[3] / 2, i[4] / 2}));
  });
}

TEST(Interpolate, NearestPositionsAreExact) {
  // With float32 positions x * (10/30) the element before a multiple of 3 can be missed.
  for (int64_t n : {3, 7, 10, 49, 333})
    for (int64_t times : {3, 7, 11}) {
      Tensor y = ops::call("interpolate", {Tensor::arange(n).reshape({1, 1, n})},
                           {{"size", Ints{n * times}},
                            {"coordinates", "asymmetric"},
                            {"nearest_rounding", "floor"}});
      for (int64_t i = 0; i < n * times; ++i) ASSERT_EQ(y.data<int64_t>()[i], i / times);
    }
}

TEST(Interpolate, LayoutsAndThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({2, 3, 40, 50}, 3);
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    Attrs attrs{{"size", Ints{91, 77}}, {"mode", mode}};
    set_num_threads(1);
    Tensor one = ops::call("interpolate", {x}, attrs);
    set_num_threads(3);
    expect_equal(ops::call("interpolate", {x.clone(MemoryFormat::channels_last)}, attrs), one,
                 mode);
  }
  set_num_threads(before);
}

TEST(InterpolateQuantized, NearestCopiesCodesOthersComputeInFloat) {
  Random random(4);
  const char* modes[] = {"nearest", "linear", "cubic"};
  for (int trial = 0; trial < 300; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random, 3, 4, 5), t);
    Ints size(x.dim() - 2);
    for (int64_t& s : size) s = random.integer(1, 9);
    Attrs attrs{{"size", size}, {"mode", modes[trial % 3]}};
    Tensor y = ops::call("interpolate", {random_layout(random, x)}, attrs);
    EXPECT_EQ(*y.quantizer(), *t.quantizer);
    expect_equal(y, by_float("interpolate", {x}, attrs, t), modes[trial % 3]);
    QType other = random_qtype(random, random_byte_dtype(random));
    expect_equal(ops::call("interpolate", {x}, attrs, other),
                 by_float("interpolate", {x}, attrs, other));
  }
  Tensor x = quantize_per_channel(Tensor::randn({1, 2, 3}, 5), {0.1, 0.2}, {3, 5}, 1, DType::qint8);
  Attrs attrs{{"size", Ints{7}}};
  expect_equal(ops::call("interpolate", {x}, attrs).dequantize(),
               ops::call("interpolate", {x.dequantize()}, attrs));
}

TEST(InterpolateTypes, SymbolicDimsPass) {
  EXPECT_EQ(infer_text("interpolate", {"Float(N, 3, H, 5)"}, {{"scales", Doubles{2, 1.5}}}),
            "Float(N, 3, H*2, 7)");
  EXPECT_EQ(infer_text("interpolate", {"Float(N, 3, H, W)"}, {{"size", Ints{8, 9}}}),
            "Float(N, 3, 8, 9)");
  EXPECT_EQ(infer_text("interpolate", {"Float(N, 3, H)"}, {{"scales", Doubles{1.5}}}),
            "Float(N, 3, [H*1.5])");
  EXPECT_EQ(infer_text("interpolate", {"Byte(N, 3, 4, 4)"}, {{"size", Ints{8, 8}}}),
            "Byte(N, 3, 8, 8)");
}

TEST(Interpolate, AntialiasHasALimit) {
  expect_error(ErrorCode::invalid_argument, {"antialias", "1e-6"}, [] {
    ops::call(
        "interpolate", {Tensor::ones({1, 1, 2})},
        {{"size", Ints{1}}, {"scales", Doubles{1e-300}}, {"mode", "linear"}, {"antialias", true}});
  });
}

TEST(InterpolateTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::string& x, const Attrs& attrs, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts,
                 [&] { infer_text("interpolate", {x}, attrs); });
  };
  fails("Float(1, 3, 4, 4)", {}, {"interpolate", "size or scales"});
  fails("Float(1, 3, 4, 4)", {{"size", Ints{8, 8}}, {"scales", Doubles{2}}},
        {"2 sizes and 1 scales"});
  fails("Float(1, 3, 4, 4)", {{"size", Ints{8, 8}}, {"roi", Doubles{0, 0, 1, 1}}},
        {"a roi of 4 numbers; expected 0"});
  fails("Float(1, 3, 4, 4)", {{"size", Ints{8, 8}}, {"coordinates", "tf_crop_and_resize"}},
        {"a roi of 0 numbers; expected 4"});
  fails("Float(1, 3, 4, 4)", {{"size", Ints{8}}},
        {"interpolate", "1 sizes or scales", "(1, 3, 4, 4)", "expected 2"});
  fails("Float(1, 3, 4)", {{"size", Ints{8}}, {"mode", "area"}},
        {"mode=\"area\"", "nearest, linear, cubic"});
  fails("Float(1, 3, 4)", {{"scales", Doubles{0}}}, {"scale 0"});
  fails("Byte(1, 3, 4)", {{"size", Ints{8}}, {"mode", "linear"}}, {"interpolate", "Byte(1, 3, 4)"});
}

}  // namespace
}  // namespace octet::testing
