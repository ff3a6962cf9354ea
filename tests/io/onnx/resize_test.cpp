// Resize and Upsample of every opset. The numbers are ONNX's definition, worked out by hand for
// small images.
#include <gtest/gtest.h>

#include <algorithm>

#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;
using OnnxAttrs = std::vector<std::pair<std::string, OnnxAttr>>;

struct Resized {
  OnnxAttrs attrs;
  Floats scales = {};
  Ints sizes = {};
  Floats roi = {};
  int64_t opset = 19;
};

OnnxModel model_of(const Resized& r, const std::vector<OnnxDim>& x) {
  OnnxModel m(r.opset);
  m.input("x", x);
  std::vector<std::string> in{"x", r.roi.empty() ? "" : "roi", r.scales.empty() ? "" : "scales",
                              r.sizes.empty() ? "" : "sizes"};
  if (!r.roi.empty()) m.constant("roi", floats(r.roi));
  if (!r.scales.empty()) m.constant("scales", floats(r.scales));
  if (!r.sizes.empty()) m.constant("sizes", longs(r.sizes));
  return m.node("Resize", in, {"y"}, r.attrs).output("y");
}

// A row of pixels resized.
Tensor row(const Resized& r, const Floats& x) {
  const auto n = static_cast<int64_t>(x.size());
  graph::Graph g = model_of(r, {1, 1, static_cast<int>(n)}).import();
  Tensor y = run_one(g, {Tensor::from(x, {1, 1, n})});
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), to_string(y.type()));
  return y.reshape({-1});
}

void expect_row(const Resized& r, const Floats& x, const Floats& want) {
  Tensor got = row(r, x);
  EXPECT_TRUE(got.shape() == floats(want).shape() && allclose(got, floats(want), 1e-5, 1e-5))
      << to_string(got);
}

OnnxAttr text(const char* s) { return std::string(s); }

TEST(OnnxResize, ExtrapolatesBeyondACrop) {
  // Positions -0.2*3, ..., 1.2*3 in equal steps of 0.84: -0.6, 0.24, 1.08, 1.92, 2.76, 3.6.
  const OnnxAttrs linear{{"coordinate_transformation_mode", text("tf_crop_and_resize")},
                         {"mode", text("linear")},
                         {"extrapolation_value", 9.0}};
  expect_row({linear, {}, {1, 1, 6}, {0, 0, -0.2f, 1, 1, 1.2f}}, {0, 1, 2, 3},
             {9, 0.24f, 1.08f, 1.92f, 2.76f, 9});
  const OnnxAttrs nearest{{"coordinate_transformation_mode", text("tf_crop_and_resize")},
                          {"extrapolation_value", 9.0}};
  expect_row({nearest, {}, {1, 1, 6}, {0, 0, -0.2f, 1, 1, 1.2f}}, {0, 1, 2, 3}, {9, 0, 1, 2, 3, 9});
  // One pixel shows the middle of the crop.
  expect_row({linear, {}, {1, 1, 1}, {0, 0, 0, 1, 1, 1}}, {0, 1, 2, 4}, {1.5f});
}

TEST(OnnxResize, ACropOfSomeAxes) {
  OnnxAttrs attrs{{"coordinate_transformation_mode", text("tf_crop_and_resize")},
                  {"mode", text("linear")},
                  {"axes", Ints{2}}};
  expect_row({attrs, {}, {3}, {0.5f, 1}}, {0, 1, 2, 3, 4}, {2, 3, 4});
}

TEST(OnnxResize, HalfPixelSymmetricSharesWhatRoundingLeftOff) {
  // 7 * 0.5 = 3.5, 3 pixels: the ones of half_pixel move by 7/2 * (1 - 3/3.5) = 0.5.
  const Floats x{0, 1, 2, 3, 4, 5, 6};
  expect_row(
      {{{"coordinate_transformation_mode", text("half_pixel_symmetric")}, {"mode", text("linear")}},
       {1, 1, 0.5f}},
      x, {1, 3, 5});
  expect_row({{{"mode", text("linear")}}, {1, 1, 0.5f}}, x, {0.5f, 2.5f, 4.5f});
}

TEST(OnnxResize, AntialiasStretchesTheWeights) {
  // Half the size: each pixel is 1, 3, 3, 1 eighths of four, at the edges without what lies
  // outside.
  const OnnxAttrs attrs{{"mode", text("linear")}, {"antialias", int64_t{1}}};
  expect_row({attrs, {1, 1, 0.5f}}, {8, 16, 0, 8, 80, 0},
             {9.0f + 1, (16 + 0 + 24 + 80) / 8.0f, (8 + 240 + 0 + 0) / 8.0f});
  OnnxAttrs excluding = attrs;
  excluding.push_back({"exclude_outside", int64_t{1}});
  expect_row({excluding, {1, 1, 0.5f}}, {8, 16, 0, 8, 80, 0}, {72 / 7.0f, 15, 248 / 7.0f});
  // Larger images are interpolated as ever.
  expect_row({attrs, {1, 1, 2}}, {0, 4}, {0, 1, 3, 4});
}

TEST(OnnxResize, KeepsTheAspectRatio) {
  auto shape = [](const char* policy) {
    Resized r{{{"keep_aspect_ratio_policy", text(policy)}, {"axes", Ints{2, 3}}}, {}, {6, 6}};
    graph::Graph g = model_of(r, {1, 1, 4, 3}).import();
    EXPECT_EQ(run_one(g, {Tensor::randn({1, 1, 4, 3}, 1)}).shape(), g.type(g.outputs()[0]).shape());
    return g.type(g.outputs()[0]).shape();
  };
  EXPECT_EQ(shape("stretch"), (Shape{1, 1, 6, 6}));
  EXPECT_EQ(shape("not_larger"), (Shape{1, 1, 6, 5}));   // 1.5 * (4, 3), halves up
  EXPECT_EQ(shape("not_smaller"), (Shape{1, 1, 8, 6}));  // 2 * (4, 3)
}

TEST(OnnxResize, AnyDimensionMayBeResized) {
  Resized r{
      {{"coordinate_transformation_mode", text("asymmetric")}, {"nearest_mode", text("floor")}},
      {2, 1, 1.5f}};
  graph::Graph g = model_of(r, {1, 2, 2}).import();
  Tensor y = run_one(g, {Tensor::from(Floats{1, 2, 3, 4}, {1, 2, 2})});
  EXPECT_EQ(y.shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(y.to_vector<float>(), (Floats{1, 1, 2, 3, 3, 4, 1, 1, 2, 3, 3, 4}));
}

TEST(OnnxResize, AxesInAnyOrder) {
  Resized r{{{"axes", Ints{-1, 0}},
             {"nearest_mode", text("floor")},
             {"coordinate_transformation_mode", text("asymmetric")}},
            {},
            {2, 3}};
  EXPECT_EQ(model_of(r, {1, 1}).import().type(1).shape(), (Shape{3, 2}));
}

TEST(OnnxResize, SizesThatAreMultiplesOfUnknownDimensions) {
  OnnxModel m;
  m.input("x", {"N", 2, "H", "W"})
      .node("Shape", {"x"}, {"s"})
      .constant("k", longs({1, 1, 2, 3}))
      .node("Mul", {"s", "k"}, {"sizes"});
  graph::Graph g = m.node("Resize", {"x", "", "", "sizes"}, {"y"}).output("y").import();
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(N, 2, H*2, W*3)");
  EXPECT_EQ(run_one(g, {Tensor::randn({1, 2, 3, 4}, 1)}).shape(), (Shape{1, 2, 6, 12}));
}

TEST(OnnxResize, Opset10RoundsDownsamplingUp) {
  OnnxModel m(10);
  m.input("x", {1, 1, 2, 4})
      .constant("s", floats({1, 1, 2, 0.6f}))
      .node("Resize", {"x", "s"}, {"y"})
      .output("y");
  Tensor y = run_one(m.import(), {Tensor::from(Floats{1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 2, 4})});
  EXPECT_EQ(y.shape(), (Shape{1, 1, 4, 2}));
  EXPECT_EQ(y.to_vector<float>(), (Floats{1, 3, 1, 3, 5, 7, 5, 7}));
}

TEST(OnnxResize, UpsampleWithScalesAsAttribute) {
  OnnxModel m(7);
  m.input("x", {1, 1, 2})
      .node("Upsample", {"x"}, {"y"},
            {{"scales", std::vector<double>{1, 1, 2}}, {"mode", text("linear")}})
      .output("y");
  EXPECT_EQ(run_one(m.import(), {Tensor::from(Floats{0, 4}, {1, 1, 2})}).to_vector<float>(),
            (Floats{0, 2, 4, 4}));
}

TEST(OnnxResize, FormsThatOpset13HasComeBack) {
  const std::vector<Resized> forms = {
      {{{"mode", text("cubic")}, {"cubic_coeff_a", -0.5}, {"exclude_outside", int64_t{1}}},
       {1, 1, 1.7f, 0.6f}},
      {{{"mode", text("linear")}, {"coordinate_transformation_mode", text("align_corners")}},
       {},
       {1, 1, 7, 3}},
      {{{"coordinate_transformation_mode", text("tf_crop_and_resize")},
        {"extrapolation_value", 2.0}},
       {},
       {1, 1, 5, 6},
       {0, 0, 0.2f, -0.1f, 1, 1, 1.4f, 1}},
  };
  for (const Resized& r : forms)
    for (bool symbolic : {false, true}) {
      if (symbolic && !r.roi.empty()) continue;
      Resized of_batch = r;
      std::vector<OnnxDim> dims{symbolic ? OnnxDim("N") : OnnxDim(1), 1, 4, 5};
      if (symbolic && !r.sizes.empty()) {
        of_batch.attrs.push_back({"axes", Ints{1, 2, 3}});
        of_batch.sizes.erase(of_batch.sizes.begin());
      }
      graph::Graph g = model_of(of_batch, dims).import(),
                   back = io::import_onnx_bytes(io::to_onnx_bytes(g));
      Tensor x = Tensor::randn({1, 1, 4, 5}, 1);
      EXPECT_EQ(ops_of(back), "interpolate");
      EXPECT_TRUE(equal(run_one(back, {x}), run_one(g, {x})));
    }
}

TEST(OnnxResize, Mistakes) {
  auto import = [](const Resized& r) { return [=] { model_of(r, {1, 1, 4, 4}).import(); }; };
  expect_error(ErrorCode::corrupt, {"3 scales for 4 axes"}, import({{}, {1, 1, 2}}));
  expect_error(ErrorCode::corrupt, {"3 sizes for 2 axes"},
               import({{{"axes", Ints{2, 3}}}, {}, {1, 2, 3}}));
  expect_error(ErrorCode::corrupt, {"a scale of -1"}, import({{}, {1, 1, -1, 2}}));
  expect_error(ErrorCode::corrupt, {"neither scales nor sizes"}, import({{}}));
  expect_error(ErrorCode::corrupt, {"a roi of 2 numbers for 4 axes"},
               import({{{"coordinate_transformation_mode", text("tf_crop_and_resize")}},
                       {},
                       {1, 1, 2, 2},
                       {0, 1}}));
  expect_error(ErrorCode::invalid_argument, {"coordinates=\"middle\""},
               import({{{"coordinate_transformation_mode", text("middle")}}, {1, 1, 2, 2}}));
}

// The arithmetic of ONNX Runtime's images: of each position four elements at once, positions and
// weights in float32.
TEST(OnnxResize, ImagesAreBlendedAtOnce) {
  for (const char* mode : {"half_pixel", "align_corners", "asymmetric"}) {
    const int64_t h = 5, w = 7, rows = 8, columns = 13;
    const Tensor x = Tensor::randn({1, 2, h, w}, 1);
    OnnxModel m;
    m.input("x", {1, 2, 5, 7}).constant("sizes", longs({1, 2, rows, columns}));
    m.node("Resize", {"x", "", "", "sizes"}, {"y"},
           {{"mode", std::string("linear")}, {"coordinate_transformation_mode", std::string(mode)}})
        .output("y");
    auto place = [&](int64_t i, int64_t from, int64_t to) {
      const auto v = static_cast<float>(i), last = static_cast<float>(from - 1);
      const float scale = static_cast<float>(to) / static_cast<float>(from);
      const float at = mode == std::string("align_corners") ? v * last / static_cast<float>(to - 1)
                       : mode == std::string("asymmetric")  ? v / scale
                                                            : (v + 0.5f) / scale - 0.5f;
      return std::clamp(at, 0.0f, last);
    };
    Tensor want = Tensor::empty({1, 2, rows, columns});
    for (int64_t i = 0; i < want.numel(); ++i) {
      const int64_t c = i / (rows * columns);
      const float v = place(i / columns % rows, h, rows), u = place(i % columns, w, columns);
      const auto v1 = static_cast<int64_t>(v), u1 = static_cast<int64_t>(u);
      const int64_t v2 = std::min(v1 + 1, h - 1), u2 = std::min(u1 + 1, w - 1);
      auto weights = [](float at, int64_t first, int64_t second) {
        return first == second
                   ? std::pair{0.5f, 0.5f}
                   : std::pair{static_cast<float>(second) - at, at - static_cast<float>(first)};
      };
      const auto [up, down] = weights(v, v1, v2);
      const auto [left, right] = weights(u, u1, u2);
      auto at = [&](int64_t r, int64_t k) { return x.data<float>()[(c * h + r) * w + k]; };
      want.data<float>()[i] = left * up * at(v1, u1) + right * up * at(v1, u2) +
                              left * down * at(v2, u1) + right * down * at(v2, u2);
    }
    const graph::Graph g = m.import();
    EXPECT_TRUE(equal(run_one(g, {x}), want)) << mode;
    EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], want)) << mode;
    // Images of several channels that lie together, as between convolutions.
    const Tensor pixels = x.contiguous(MemoryFormat::channels_last);
    EXPECT_TRUE(equal(run_one(g, {pixels}).contiguous(), want)) << mode;
  }
}

}  // namespace
}  // namespace octet::testing
