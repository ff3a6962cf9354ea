// ConvTranspose in every form: against the definition, quantized, and written and read again.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

struct Form {
  const char* what;
  Ints x, w;  // shapes
  std::vector<std::pair<std::string, OnnxAttr>> attrs;
  Ints y;      // the shape ONNX gives it
  Ints begin;  // cells cut off at the beginning
  int64_t groups = 1;
  Ints stride, dilation;
};

// Every element of x adds its products to the cells at element * stride + tap * dilation - begin.
Tensor by_definition(const Tensor& x, const Tensor& w, const Tensor& bias, const Form& f) {
  const size_t spatial = f.begin.size();
  Tensor y = Tensor::zeros(f.y);
  const int64_t columns = w.size(1), rows = w.size(0) / f.groups;
  auto each = [](const Ints& sizes, auto fn) {
    Ints at(sizes.size(), 0);
    for (int64_t i = 0, n = numel(sizes); i < n; ++i) {
      fn(at);
      for (size_t d = sizes.size(); d-- > 0 && ++at[d] == sizes[d];) at[d] = 0;
    }
  };
  auto flat = [](const Tensor& t, const Ints& at) {
    int64_t i = 0;
    for (size_t d = 0; d < at.size(); ++d) i = i * t.size(static_cast<int64_t>(d)) + at[d];
    return i;
  };
  each(y.shape(),
       [&](const Ints& at) { y.data<float>()[flat(y, at)] = bias.data<float>()[at[1]]; });
  each(x.shape(), [&](const Ints& from) {
    each(Ints(w.shape().begin() + 1, w.shape().end()), [&](const Ints& tap) {
      Ints to{from[0], from[1] / rows * columns + tap[0]};
      for (size_t d = 0; d < spatial; ++d) {
        to.push_back(from[d + 2] * f.stride[d] + tap[d + 1] * f.dilation[d] - f.begin[d]);
        if (to.back() < 0 || to.back() >= f.y[d + 2]) return;
      }
      Ints at{from[1]};
      at.insert(at.end(), tap.begin(), tap.end());
      y.data<float>()[flat(y, to)] += x.data<float>()[flat(x, from)] * w.data<float>()[flat(w, at)];
    });
  });
  return y;
}

std::vector<Form> forms() {
  const std::string upper = "SAME_UPPER", lower = "SAME_LOWER";
  return {
      {"1d",
       {2, 3, 5},
       {3, 2, 4},
       {{"strides", Ints{2}}, {"pads", Ints{1, 0}}},
       {2, 2, 11},
       {1},
       1,
       {2},
       {1}},
      {"3d",
       {1, 2, 2, 3, 2},
       {2, 3, 2, 1, 3},
       {{"strides", Ints{1, 2, 2}}},
       {1, 3, 3, 5, 5},
       {0, 0, 0},
       1,
       {1, 2, 2},
       {1, 1, 1}},
      {"groups",
       {1, 4, 3, 3},
       {4, 3, 2, 2},
       {{"group", int64_t{2}}},
       {1, 6, 4, 4},
       {0, 0},
       2,
       {1, 1},
       {1, 1}},
      {"depthwise",
       {1, 3, 3, 4},
       {3, 1, 3, 3},
       {{"group", int64_t{3}}, {"pads", Ints{1, 1, 1, 1}}},
       {1, 3, 3, 4},
       {1, 1},
       3,
       {1, 1},
       {1, 1}},
      {"dilation, uneven pads",
       {1, 1, 4, 4},
       {1, 2, 3, 2},
       {{"dilations", Ints{2, 1}}, {"pads", Ints{0, 1, 2, 0}}, {"strides", Ints{1, 3}}},
       {1, 2, 6, 10},
       {0, 1},
       1,
       {1, 3},
       {2, 1}},
      {"output_padding",
       {1, 1, 3, 3},
       {1, 1, 3, 3},
       {{"output_padding", Ints{1, 0}}, {"strides", Ints{2, 2}}, {"pads", Ints{1, 1, 1, 1}}},
       {1, 1, 6, 5},
       {1, 1},
       1,
       {2, 2},
       {1, 1}},
      {"same upper",
       {1, 1, 3, 5},
       {1, 1, 4, 3},
       {{"auto_pad", upper}, {"strides", Ints{2, 2}}},
       {1, 1, 6, 10},
       {1, 0},
       1,
       {2, 2},
       {1, 1}},
      {"same lower",
       {1, 1, 3, 5},
       {1, 1, 4, 3},
       {{"auto_pad", lower}, {"strides", Ints{2, 2}}},
       {1, 1, 6, 10},
       {1, 1},
       1,
       {2, 2},
       {1, 1}},
      {"same, dilated",
       {1, 1, 4},
       {1, 1, 3},
       {{"auto_pad", upper}, {"dilations", Ints{3}}, {"strides", Ints{2}}},
       {1, 1, 8},
       {2},
       1,
       {2},
       {3}},
      {"valid",
       {1, 1, 3},
       {1, 1, 3},
       {{"auto_pad", std::string("VALID")}, {"strides", Ints{2}}},
       {1, 1, 7},
       {0},
       1,
       {2},
       {1}},
      {"output_shape",
       {1, 1, 3, 3},
       {1, 1, 3, 3},
       {{"output_shape", Ints{6, 5}}, {"strides", Ints{2, 2}}},
       {1, 1, 6, 5},
       {1, 1},
       1,
       {2, 2},
       {1, 1}},
      {"output_shape, upper",
       {1, 1, 3},
       {1, 1, 3},
       {{"output_shape", Ints{6}}, {"strides", Ints{2}}, {"auto_pad", upper}},
       {1, 1, 6},
       {0},
       1,
       {2},
       {1}},
      {"output_shape beyond the windows",
       {1, 1, 3},
       {1, 1, 2},
       {{"output_shape", Ints{9}}, {"strides", Ints{3}}},
       {1, 1, 9},
       {0},
       1,
       {3},
       {1}},
      {"output_shape with N and C",
       {1, 1, 3},
       {1, 2, 3},
       {{"output_shape", Ints{1, 2, 6}}, {"strides", Ints{2}}},
       {1, 2, 6},
       {1},
       1,
       {2},
       {1}},
  };
}

OnnxModel model_of(const Form& f, const Tensor& w, const Tensor& bias) {
  OnnxModel m;
  std::vector<OnnxDim> dims;
  for (int64_t d : f.x) dims.emplace_back(static_cast<int>(d));
  m.input("x", dims).constant("w", w).constant("b", bias);
  return m.node("ConvTranspose", {"x", "w", "b"}, {"y"}, f.attrs).output("y");
}

TEST(OnnxConvTranspose, GivesWhatTheDefinitionGives) {
  for (const Form& f : forms()) {
    SCOPED_TRACE(f.what);
    Tensor x = Tensor::randn(f.x, 1), w = Tensor::randn(f.w, 2),
           b = Tensor::randn({f.w[1] * f.groups}, 3);
    graph::Graph g = model_of(f, w, b).import();
    Tensor want = by_definition(x, w, b, f);
    ASSERT_EQ(to_string(g.type(g.outputs()[0])), to_string(want.type()));
    EXPECT_TRUE(allclose(run_one(g, {x}), want, 1e-5, 1e-5))
        << to_string(run_one(g, {x})) << to_string(want);
    graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g));
    EXPECT_EQ(ops_of(back), ops_of(g));
    EXPECT_TRUE(allclose(run_one(back, {x}), want, 1e-5, 1e-5));
  }
}

// Channels of very different sizes need scales of their own, along the axis where the output
// channels lie.
TEST(OnnxConvTranspose, QuantizesPerOutputChannelAndComesBackFromQdq) {
  for (const Form& f : forms()) {
    SCOPED_TRACE(f.what);
    Tensor x = Tensor::randn(f.x, 1), w = Tensor::randn(f.w, 2).clone(),
           b = Tensor::randn({f.w[1] * f.groups}, 3);
    const bool depthwise = f.w[1] == 1 && f.groups == f.w[0];
    const int64_t inner = numel(Ints(f.w.begin() + 2, f.w.end()));
    for (int64_t i = 0; i < w.numel(); ++i)
      w.data<float>()[i] *=
          static_cast<float>(std::pow(0.2, depthwise ? i / inner : i / inner % f.w[1]));
    graph::Graph g = model_of(f, w, b).import();
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig("native"));
    Tensor want = prepared->forward(x);
    graph::Graph integer = quant::convert_fx(prepared)->graph();
    const graph::Node& node =
        node_of(integer, "conv_transpose" + std::to_string(f.x.size() - 2) + "d");
    const TensorType& type = integer.type(node.inputs[1]);
    EXPECT_EQ(type.quantizer->axis(), depthwise ? 0 : 1) << to_string(type);
    Tensor got = runtime::compile(integer).run({x})[0];
    EXPECT_GT(sqnr(want, got), 30);
    EXPECT_TRUE(equal(runtime::compile(integer, {.engine = "reference"}).run({x})[0], got));
    graph::Graph back = graph::merge_qdq(
        graph::fuse_activations(io::import_onnx_bytes(io::to_onnx_bytes(integer))));
    EXPECT_EQ(ops_of(back), ops_of(integer));
    EXPECT_TRUE(equal(runtime::compile(back).run({x})[0], got));
  }
}

TEST(OnnxConvTranspose, BatchNormFoldsIntoTheColumnsOfItsWeight) {
  Tensor x = Tensor::randn({1, 4, 3, 3}, 1), w = Tensor::randn({4, 3, 2, 2}, 2),
         p = Tensor::rand({6}, 3, 0.5, 2);
  OnnxModel m;
  m.input("x", {1, 4, 3, 3}).constant("w", w).constant("p", p);
  m.node("ConvTranspose", {"x", "w"}, {"h"}, {{"group", int64_t{2}}});
  m.node("BatchNormalization", {"h", "p", "p", "p", "p"}, {"y"}).output("y");
  io::OnnxImportOptions apart;
  apart.fold_batch_norm = false;
  EXPECT_EQ(ops_of(m.import()), "conv_transpose2d");
  EXPECT_TRUE(allclose(run_one(m.import(), {x}), run_one(m.import(apart), {x}), 1e-5, 1e-5));
}

TEST(OnnxConvTranspose, Mistakes) {
  auto model = [](const std::vector<std::pair<std::string, OnnxAttr>>& attrs) {
    Form f{"", {1, 1, 3, 3}, {1, 1, 2, 2}, attrs, {}, {}};
    return model_of(f, Tensor::ones(f.w), Tensor::ones({1}));
  };
  auto import = [&](const std::vector<std::pair<std::string, OnnxAttr>>& attrs) {
    return [=] { model(attrs).import(); };
  };
  expect_error(ErrorCode::corrupt, {"output_padding", "1 values; expected 2"},
               import({{"output_padding", Ints{1}}}));
  expect_error(ErrorCode::corrupt, {"output_shape", "3 values; expected 2"},
               import({{"output_shape", Ints{1, 2, 3}}}));
  expect_error(ErrorCode::unsupported, {"output_shape that no window reaches"},
               import({{"output_shape", Ints{9, 9}}}));
  expect_error(ErrorCode::corrupt, {"auto_pad 'SAME'"},
               import({{"auto_pad", std::string("SAME")}}));
}

}  // namespace
}  // namespace octet::testing
