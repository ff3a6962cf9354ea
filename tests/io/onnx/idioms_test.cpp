// Small networks in the ways that Keras (by tf2onnx) and Paddle write things: each is imported,
// cleaned up to octet's operators, and gives what it gave before that.
#include <gtest/gtest.h>

#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using Build = void (*)(OnnxModel&);

struct Idiom {
  const char* name;
  std::vector<OnnxDim> dims;  // of the input "x"; the output is "y"
  Shape shape;                // what it is run with
  Build build;
  const char* ops;  // what is left of it
};

Tensor random_weight(const Shape& shape, uint64_t seed) { return Tensor::randn(shape, seed); }
Tensor number(float v) { return Tensor::scalar(v); }

OnnxModel& to_channels_first(OnnxModel& m, const char* x, const char* y) {
  return m.node("Transpose", {x}, {y}, {{"perm", ints({0, 3, 1, 2})}});
}
OnnxModel& to_channels_last(OnnxModel& m, const char* x, const char* y) {
  return m.node("Transpose", {x}, {y}, {{"perm", ints({0, 2, 3, 1})}});
}

// Two convolutions of a network that keeps channels last, with what is between them.
void keras_convolutions(OnnxModel& m) {
  m.constant("w", random_weight({4, 4, 3, 3}, 1)).constant("b", random_weight({4}, 2));
  to_channels_first(m, "x", "x1");
  m.node("Conv", {"x1", "w"}, {"c"}, {{"auto_pad", std::string("SAME_UPPER")}});
  to_channels_last(m, "c", "c1");
  m.node("Add", {"c1", "b"}, {"d"}).node("Relu", {"d"}, {"e"});
  to_channels_first(m, "e", "f");
  m.node("Conv", {"f", "w"}, {"g"}, {{"auto_pad", std::string("SAME_UPPER")}});
  to_channels_last(m, "g", "y");
}

void keras_residual(OnnxModel& m) {
  m.constant("w", random_weight({4, 4, 1, 1}, 1));
  to_channels_first(m, "x", "x1");
  m.node("Conv", {"x1", "w"}, {"c"});
  to_channels_last(m, "c", "c1");
  m.node("Sigmoid", {"c1"}, {"s"}).node("Mul", {"c1", "s"}, {"d"}).node("Add", {"d", "x"}, {"e"});
  to_channels_first(m, "e", "f");
  m.node("Conv", {"f", "w"}, {"g"}).node("GlobalAveragePool", {"g"}, {"p"});
  m.node("Squeeze", {"p", "axes"}, {"y"}).constant("axes", longs({2, 3}));
}

void keras_global_average(OnnxModel& m) {
  m.constant("w", random_weight({4, 4, 1, 1}, 1)).constant("k", random_weight({4, 3}, 2));
  to_channels_first(m, "x", "x1");
  m.node("Conv", {"x1", "w"}, {"c"});
  to_channels_last(m, "c", "c1");
  m.node("ReduceMean", {"c1"}, {"p"}, {{"axes", ints({1, 2})}, {"keepdims", int64_t{0}}});
  m.node("MatMul", {"p", "k"}, {"y"});
}

void keras_batch_norm(OnnxModel& m) {
  m.constant("w", random_weight({4, 3, 3, 3}, 1))
      .constant("s", random_weight({4}, 2))
      .constant("b", random_weight({4}, 3));
  m.constant("mean", random_weight({4}, 4)).constant("var", Tensor::rand({4}, 5));
  m.node("Conv", {"x", "w"}, {"c"});
  m.node("BatchNormalization", {"c", "s", "b", "mean", "var"}, {"d"}, {{"epsilon", 1e-3}});
  m.node("Clip", {"d", "lo", "hi"}, {"y"}).constant("lo", number(0)).constant("hi", number(6));
}

void keras_zero_padding(OnnxModel& m) {
  m.constant("w", random_weight({4, 3, 3, 3}, 1)).constant("p", longs({0, 0, 0, 0, 0, 0, 1, 1}));
  m.node("Pad", {"x", "p"}, {"z"});
  m.node("Conv", {"z", "w"}, {"y"}, {{"strides", ints({2, 2})}});
}

void keras_same_open(OnnxModel& m) {
  m.constant("w", random_weight({4, 3, 3, 3}, 1));
  m.node("Conv", {"x", "w"}, {"y"},
         {{"strides", ints({2, 2})}, {"auto_pad", std::string("SAME_UPPER")}});
}

void keras_hard_swish(OnnxModel& m) {
  m.constant("3", number(3)).constant("0", number(0)).constant("6", number(6));
  m.constant("s", number(0.16666667f));
  m.node("Add", {"x", "3"}, {"a"}).node("Clip", {"a", "0", "6"}, {"c"});
  m.node("Mul", {"c", "s"}, {"h"}).node("Mul", {"x", "h"}, {"y"});
}

void keras_gelu(OnnxModel& m) {
  m.constant("r", number(0.70710678f)).constant("1", number(1)).constant("h", number(0.5f));
  m.node("Mul", {"x", "r"}, {"a"}).node("Erf", {"a"}, {"e"}).node("Add", {"e", "1"}, {"g"});
  m.node("Mul", {"x", "h"}, {"b"}).node("Mul", {"b", "g"}, {"y"});
}

void keras_gelu_tanh(OnnxModel& m) {
  m.constant("3", number(3)).constant("k", number(0.044715f)).constant("c", number(0.7978845608f));
  m.constant("1", number(1)).constant("h", number(0.5f));
  m.node("Pow", {"x", "3"}, {"p"}).node("Mul", {"p", "k"}, {"q"}).node("Add", {"x", "q"}, {"s"});
  m.node("Mul", {"s", "c"}, {"u"}).node("Tanh", {"u"}, {"t"}).node("Add", {"t", "1"}, {"g"});
  m.node("Mul", {"x", "h"}, {"b"}).node("Mul", {"b", "g"}, {"y"});
}

void keras_layer_norm(OnnxModel& m) {
  const std::pair<std::string, OnnxAttr> axes{"axes", ints({-1})};
  m.constant("e", number(1e-3f)).constant("2", number(2));
  m.constant("g", random_weight({8}, 1)).constant("b", random_weight({8}, 2));
  m.node("ReduceMean", {"x"}, {"mean"}, {axes}).node("Sub", {"x", "mean"}, {"d"});
  m.node("Pow", {"d", "2"}, {"sq"}).node("ReduceMean", {"sq"}, {"var"}, {axes});
  m.node("Add", {"var", "e"}, {"ve"}).node("Sqrt", {"ve"}, {"sd"}).node("Div", {"d", "sd"}, {"n"});
  m.node("Mul", {"n", "g"}, {"s"}).node("Add", {"s", "b"}, {"y"});
}

// Dense over the last dimension of three: flattened, multiplied and given its shape back.
void keras_dense_3d(OnnxModel& m) {
  m.constant("flat", longs({-1, 8}))
      .constant("w", random_weight({8, 5}, 1))
      .constant("b", random_weight({5}, 2));
  m.constant("0", longs({0})).constant("2", longs({2})).constant("5", longs({5}));
  m.node("Reshape", {"x", "flat"}, {"f"}).node("MatMul", {"f", "w"}, {"p"});
  m.node("Shape", {"x"}, {"s"}).node("Slice", {"s", "0", "2"}, {"t"});
  m.node("Concat", {"t", "5"}, {"u"}, {{"axis", int64_t{0}}}).node("Reshape", {"p", "u"}, {"r"});
  m.node("Add", {"r", "b"}, {"y"});
}

void keras_upsampling(OnnxModel& m) {
  m.constant("2", longs({2})).constant("4", longs({4})).constant("twos", longs({2, 2}));
  m.constant("0", longs({0}));
  m.node("Shape", {"x"}, {"s"}).node("Slice", {"s", "2", "4"}, {"hw"});
  m.node("Mul", {"hw", "twos"}, {"big"}).node("Slice", {"s", "0", "2"}, {"nc"});
  m.node("Concat", {"nc", "big"}, {"sizes"}, {{"axis", int64_t{0}}});
  m.node("Resize", {"x", "", "", "sizes"}, {"y"},
         {{"mode", std::string("nearest")},
          {"coordinate_transformation_mode", std::string("asymmetric")},
          {"nearest_mode", std::string("floor")}});
}

void keras_flatten(OnnxModel& m) {
  m.constant("0", longs({0})).constant("1", longs({1})).constant("-1", longs({-1}));
  m.node("Shape", {"x"}, {"s"}).node("Slice", {"s", "0", "1"}, {"n"});
  m.node("Concat", {"n", "-1"}, {"t"}, {{"axis", int64_t{0}}}).node("Reshape", {"x", "t"}, {"y"});
}

void paddle_fc(OnnxModel& m) {
  m.constant("w", random_weight({8, 5}, 1)).constant("b", random_weight({5}, 2));
  m.node("MatMul", {"x", "w"}, {"p"}).node("Add", {"p", "b"}, {"y"});
}

// A convolution's bias is reshaped and added behind it.
void paddle_conv_bias(OnnxModel& m) {
  m.constant("w", random_weight({4, 3, 1, 1}, 1)).constant("b", random_weight({4}, 2));
  m.constant("s", longs({1, -1, 1, 1}));
  m.node("Conv", {"x", "w"}, {"c"}).node("Reshape", {"b", "s"}, {"b4"});
  m.node("Add", {"c", "b4"}, {"y"});
}

void paddle_squeeze_excite(OnnxModel& m) {
  m.constant("a", random_weight({2, 4, 1, 1}, 1)).constant("b", random_weight({4, 2, 1, 1}, 2));
  m.node("GlobalAveragePool", {"x"}, {"p"}).node("Conv", {"p", "a"}, {"c"});
  m.node("Relu", {"c"}, {"r"}).node("Conv", {"r", "b"}, {"d"});
  m.node("HardSigmoid", {"d"}, {"h"}, {{"alpha", 0.2}, {"beta", 0.5}})
      .node("Mul", {"x", "h"}, {"y"});
}

// The scale operator with bias_after_scale.
void paddle_scale(OnnxModel& m) {
  m.constant("s", floats({2})).constant("b", floats({-0.5f}));
  m.node("Mul", {"x", "s"}, {"t"}).node("Add", {"t", "b"}, {"y"});
}

void paddle_interpolate_to(OnnxModel& m) {
  m.constant("w", random_weight({4, 3, 3, 3}, 1)).constant("u", random_weight({3, 4, 1, 1}, 2));
  m.constant("2", longs({2})).constant("4", longs({4})).constant("0", longs({0}));
  m.node("Conv", {"x", "w"}, {"c"}, {{"strides", ints({2, 2})}, {"pads", ints({1, 1, 1, 1})}});
  m.node("Conv", {"c", "u"}, {"d"}).node("Shape", {"x"}, {"s"}).node("Shape", {"d"}, {"t"});
  m.node("Slice", {"s", "2", "4"}, {"hw"}).node("Slice", {"t", "0", "2"}, {"nc"});
  m.node("Concat", {"nc", "hw"}, {"sizes"}, {{"axis", int64_t{0}}});
  m.node("Resize", {"d", "", "", "sizes"}, {"r"}, {{"mode", std::string("linear")}});
  m.node("Add", {"r", "x"}, {"y"});
}

// The head of a text recogniser: height away, time first, a linear layer, softmax.
void paddle_ctc_head(OnnxModel& m) {
  m.constant("2", longs({2}))
      .constant("w", random_weight({4, 5}, 1))
      .constant("b", random_weight({5}, 2));
  m.node("Squeeze", {"x", "2"}, {"s"}).node("Transpose", {"s"}, {"t"}, {{"perm", ints({0, 2, 1})}});
  m.node("MatMul", {"t", "w"}, {"p"}).node("Add", {"p", "b"}, {"q"});
  m.node("Softmax", {"q"}, {"y"}, {{"axis", int64_t{2}}});
}

// Heads by a reshape to sizes of which two are open.
void paddle_heads(OnnxModel& m) {
  m.constant("0", longs({0})).constant("1", longs({1})).constant("2", longs({2}));
  m.constant("h", longs({2, 4}));
  m.node("Shape", {"x"}, {"s"})
      .node("Slice", {"s", "0", "1"}, {"n"})
      .node("Slice", {"s", "1", "2"}, {"t"});
  m.node("Concat", {"n", "t", "h"}, {"to"}, {{"axis", int64_t{0}}})
      .node("Reshape", {"x", "to"}, {"r"});
  m.node("Transpose", {"r"}, {"p"}, {{"perm", ints({0, 2, 1, 3})}});
  m.node("Transpose", {"r"}, {"q"}, {{"perm", ints({0, 2, 3, 1})}})
      .node("MatMul", {"p", "q"}, {"y"});
}

const std::vector<Idiom> kIdioms{
    {"keras_convolutions",
     {"N", 6, 7, 4},
     {2, 6, 7, 4},
     keras_convolutions,
     "permute conv2d relu conv2d permute"},
    {"keras_residual", {"N", 6, 7, 4}, {2, 6, 7, 4}, keras_residual, ""},
    {"keras_global_average",
     {"N", 6, 7, 4},
     {2, 6, 7, 4},
     keras_global_average,
     "permute conv2d mean linear"},
    {"keras_batch_norm", {"N", 3, 6, 6}, {2, 3, 6, 6}, keras_batch_norm, "conv2d relu6"},
    {"keras_zero_padding", {"N", 3, 8, 8}, {2, 3, 8, 8}, keras_zero_padding, "conv2d"},
    {"keras_same_open", {"N", 3, "H", "W"}, {1, 3, 7, 8}, keras_same_open, ""},
    {"keras_hard_swish", {"N", 5}, {3, 5}, keras_hard_swish, "hardswish"},
    {"keras_gelu", {"N", 5}, {3, 5}, keras_gelu, "gelu"},
    {"keras_gelu_tanh", {"N", 5}, {3, 5}, keras_gelu_tanh, "gelu"},
    {"keras_layer_norm", {"N", "T", 8}, {2, 3, 8}, keras_layer_norm, "layer_norm"},
    {"keras_dense_3d", {"N", "T", 8}, {2, 3, 8}, keras_dense_3d, ""},
    {"keras_upsampling", {"N", 3, "H", "W"}, {1, 3, 4, 5}, keras_upsampling, "interpolate"},
    {"keras_flatten", {"N", 3, 4, 5}, {2, 3, 4, 5}, keras_flatten, "reshape"},
    {"paddle_fc", {"N", 8}, {3, 8}, paddle_fc, "linear"},
    {"paddle_conv_bias", {"N", 3, "H", "W"}, {1, 3, 4, 5}, paddle_conv_bias, "conv2d"},
    {"paddle_squeeze_excite",
     {"N", 4, "H", "W"},
     {2, 4, 5, 6},
     paddle_squeeze_excite,
     "adaptive_avg_pool2d conv2d relu conv2d hardsigmoid mul"},
    {"paddle_scale", {"N", 4}, {2, 4}, paddle_scale, "mul add"},
    {"paddle_interpolate_to", {"N", 3, "H", "W"}, {1, 3, 7, 9}, paddle_interpolate_to, ""},
    {"paddle_ctc_head",
     {"N", 4, 1, "W"},
     {2, 4, 1, 6},
     paddle_ctc_head,
     "squeeze permute linear softmax"},
    {"paddle_heads", {"N", "T", 8}, {2, 3, 8}, paddle_heads, ""},
};

class OnnxIdioms : public ::testing::TestWithParam<size_t> {};

TEST_P(OnnxIdioms, AreCleanedUpAndGiveTheSame) {
  const Idiom& idiom = kIdioms[GetParam()];
  OnnxModel m;
  m.input("x", idiom.dims).output("y");
  idiom.build(m);
  io::OnnxImportOptions as_written;
  as_written.fuse_patterns = as_written.fold_batch_norm = false;
  const graph::Graph cleaned = m.import();
  if (*idiom.ops) {
    EXPECT_EQ(ops_of(cleaned), idiom.ops) << graph::print(cleaned);
  }
  const Tensor x = Tensor::randn(idiom.shape, 9);
  const Tensor want = run_one(m.import(as_written), {x}), got = run_one(cleaned, {x});
  ASSERT_EQ(got.shape(), want.shape());
  // Folded and joined operators round once where several rounded.
  EXPECT_TRUE(allclose(got, want, 1e-4, 1e-5)) << graph::print(cleaned);
}

INSTANTIATE_TEST_SUITE_P(, OnnxIdioms, ::testing::Range<size_t>(0, kIdioms.size()),
                         [](const auto& info) { return std::string(kIdioms[info.param].name); });

}  // namespace
}  // namespace octet::testing
