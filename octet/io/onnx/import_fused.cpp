// com.microsoft: what ONNX Runtime's optimizer joins several operators to, taken apart again.
#include <cmath>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// The activation's numbers, by their places: attributes of these names, or entries of the list
// activation_params.
ValPtr activated(Importer& im, const NodeView& n, const ValPtr& x) {
  const std::string name = n.get_string("activation", "");
  const std::vector<double> params = n.get_floats("activation_params");
  const auto number = [&](size_t i, double otherwise) {
    constexpr const char* kNames[] = {"activation_alpha", "activation_beta", "activation_gamma"};
    return i < params.size() ? params[i] : n.get_float(kNames[i], otherwise);
  };
  n.ignore({"activation_alpha", "activation_beta", "activation_gamma"});
  if (name.empty() || name == "Identity") return x;
  if (name == "Relu") return im.call(n, "relu", {x});
  if (name == "Sigmoid") return im.call(n, "sigmoid", {x});
  if (name == "Tanh") return im.call(n, "tanh", {x});
  if (name == "LeakyRelu")
    return im.call(n, "leaky_relu", {x}, {{"negative_slope", number(0, 0.01)}});
  if (name == "HardSigmoid")
    return im.call(n, "hardsigmoid", {x}, {{"alpha", number(0, 0.2)}, {"beta", number(1, 0.5)}});
  if (name == "Clip") {
    const double low = number(0, -INFINITY), high = number(1, INFINITY);
    if (low == 0 && high == 6) return im.call(n, "relu6", {x});
    return im.call(n, "clamp", {x}, {{"min", low}, {"max", high}});
  }
  n.unsupported("the activation {}", name);
}

// Convolution, plus a fourth operand, then an activation.
void import_fused_conv(Importer& im, const NodeView& n) {
  ValPtr y = emit_conv(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2));
  if (n.has_input(3)) y = im.call(n, "add", {y, im.in(n, 3)});
  im.out(n, 0, activated(im, n, y));
}

void import_fused_gemm(Importer& im, const NodeView& n) {
  im.out(n, 0, activated(im, n, emit_gemm(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2))));
}

ValPtr last_two_swapped(Importer& im, const NodeView& n, const ValPtr& x) {
  if (x->rank() < 2) return x;
  std::vector<int64_t> dims;
  for (int64_t d = 0; d < x->rank(); ++d) dims.push_back(d);
  std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
  return im.call(n, "permute", {x}, {{"dims", dims}});
}

// alpha * A * B, the last two dimensions of either swapped before.
void import_fused_matmul(Importer& im, const NodeView& n) {
  if (n.get_int("transBatchA", 0) != 0 || n.get_int("transBatchB", 0) != 0)
    n.unsupported("transBatchA or transBatchB");
  ValPtr a = im.in(n, 0), b = im.in(n, 1);
  if (n.get_int("transA", 0) != 0) a = last_two_swapped(im, n, a);
  if (n.get_int("transB", 0) != 0)
    b = b->is_weight() && b->rank() == 2 ? im.transposed(b) : last_two_swapped(im, n, b);
  ValPtr y = emit_matmul(im, n, a, b);
  if (const double alpha = n.get_float("alpha", 1); alpha != 1)
    y = im.call(n, "mul", {y, im.scalar(n, alpha)});
  im.out(n, 0, activated(im, n, y));
}

// gelu(x + bias), the bias being optional.
void import_biased_gelu(Importer& im, const NodeView& n, const char* approximate) {
  ValPtr x = im.in(n, 0);
  if (n.has_input(1)) x = im.call(n, "add", {x, im.in(n, 1)});
  im.out(n, 0, im.call(n, "gelu", {x}, {{"approximate", approximate}}));
}

// x * sigmoid(alpha * x)
void import_swish(Importer& im, const NodeView& n, double usual_alpha) {
  ValPtr x = im.in(n, 0);
  const double alpha = n.get_float("alpha", usual_alpha);
  if (alpha == 1) return im.out(n, 0, im.call(n, "silu", {x}));
  ValPtr scaled = im.call(n, "mul", {x, im.scalar(n, alpha)});
  im.out(n, 0, im.call(n, "mul", {x, im.call(n, "sigmoid", {scaled})}));
}

// x / sqrt(the mean of its squares over axis..end), times scale. Also gives 1 / sqrt.
std::pair<ValPtr, ValPtr> rms_norm(Importer& im, const NodeView& n, const ValPtr& x,
                                   const ValPtr& scale, int64_t axis, double eps) {
  std::vector<int64_t> dims;
  for (int64_t d = axis; d < x->rank(); ++d) dims.push_back(d);
  ValPtr mean = im.call(n, "mean", {im.call(n, "mul", {x, x})}, {{"dim", dims}, {"keepdim", true}});
  ValPtr inverse = im.call(n, "rsqrt", {im.call(n, "add", {mean, im.scalar(n, eps)})});
  return {im.call(n, "mul", {im.call(n, "mul", {x, inverse}), scale}), inverse};
}

void import_rms_norm(Importer& im, const NodeView& n) {
  n.ignore({"stash_type"});
  ValPtr x = im.in(n, 0);
  const int64_t axis = axis_of(n, n.get_int("axis", -1), x->rank());
  const auto [y, inverse] = rms_norm(im, n, x, im.in(n, 1), axis, n.get_float("epsilon", 1e-5f));
  im.out(n, 0, y);
  if (im.wants_output(n, 1)) im.out(n, 1, inverse);
}

ValPtr last_dim_norm(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& gamma,
                     const ValPtr& beta) {
  return im.call(n, "layer_norm", {x, gamma, beta},
                 {{"axis", int64_t{-1}}, {"eps", n.get_float("epsilon", 1e-12f)}});
}

// The norm of input + skip + bias; output 3 is that sum.
void import_skip_norm(Importer& im, const NodeView& n, bool rms) {
  for (size_t i : {1, 2})
    if (im.wants_output(n, i)) n.unsupported("the outputs mean and inv_std_var");
  const size_t at_bias = rms ? 3 : 4;
  ValPtr x = im.call(n, "add", {im.in(n, 0), im.in(n, 1)});
  if (n.has_input(at_bias)) x = im.call(n, "add", {x, im.in(n, at_bias)});
  ValPtr y =
      rms ? rms_norm(im, n, x, im.in(n, 2), x->rank() - 1, n.get_float("epsilon", 1e-12f)).first
          : last_dim_norm(im, n, x, im.in(n, 2), im.optional_in(n, 3));
  im.out(n, 0, y);
  if (im.wants_output(n, 3)) im.out(n, 3, x);
}

// The norm of the rows of three tables: words, positions and segments. Output 1 says how many words
// of each text the mask leaves, output 2 is the sum before the norm.
void import_embed_norm(Importer& im, const NodeView& n) {
  n.ignore({"mask_index_type"});
  const Attrs rows{{"dim", int64_t{0}}};
  ValPtr words = im.in(n, 0), positions = im.optional_in(n, 8);
  if (words->rank() != 2)
    n.fail(ErrorCode::corrupt, "input_ids is {}; expected (batch, words)", to_string(words->type));
  if (!positions) positions = count_up(im, n, words, 1);
  ValPtr sum = im.call(n, "add",
                       {im.call(n, "index_select", {im.in(n, 2), words}, rows),
                        im.call(n, "index_select", {im.in(n, 3), positions}, rows)});
  if (n.has_input(1) && n.has_input(4))
    sum = im.call(n, "add", {sum, im.call(n, "index_select", {im.in(n, 4), im.in(n, 1)}, rows)});
  im.out(n, 0, last_dim_norm(im, n, sum, im.in(n, 5), im.in(n, 6)));
  if (im.wants_output(n, 2)) im.out(n, 2, sum);
  if (!im.wants_output(n, 1)) return;
  ValPtr mask =
      n.has_input(7)
          ? im.cast(n, im.in(n, 7), DType::int64)
          : im.call(n, "mul", {im.cast(n, words, DType::int64), im.scalar(n, 0, DType::int64)});
  ValPtr count = im.call(n, "sum", {mask}, {{"dim", std::vector<int64_t>{1}}, {"keepdim", false}});
  im.out(n, 1, im.cast(n, count, DType::int32));
}

}  // namespace

void add_fused(Handlers& h) {
  const std::string ms = "com.microsoft.";
  h[ms + "FusedConv"] = import_fused_conv;
  h[ms + "FusedGemm"] = import_fused_gemm;
  h[ms + "FusedMatMul"] = import_fused_matmul;
  h[ms + "TransposeMatMul"] = import_fused_matmul;
  h[ms + "FusedMatMulActivation"] = import_fused_matmul;
  h[ms + "BiasGelu"] = [](Importer& im, const NodeView& n) { import_biased_gelu(im, n, "none"); };
  h[ms + "FastGelu"] = [](Importer& im, const NodeView& n) { import_biased_gelu(im, n, "tanh"); };
  h[ms + "QuickGelu"] = [](Importer& im, const NodeView& n) { import_swish(im, n, 1.702); };
  h["Swish"] = [](Importer& im, const NodeView& n) { import_swish(im, n, 1); };
  h["RMSNormalization"] = import_rms_norm;
  h["SimplifiedLayerNormalization"] = import_rms_norm;  // ONNX Runtime's, in ONNX's domain
  h[ms + "SimplifiedLayerNormalization"] = import_rms_norm;
  h[ms + "SkipLayerNormalization"] = [](Importer& im, const NodeView& n) {
    import_skip_norm(im, n, false);
  };
  h[ms + "SkipSimplifiedLayerNormalization"] = [](Importer& im, const NodeView& n) {
    import_skip_norm(im, n, true);
  };
  h[ms + "EmbedLayerNormalization"] = import_embed_norm;
}

}  // namespace octet::io::onnx_impl
