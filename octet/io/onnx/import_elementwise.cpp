// Element by element: unary, binary and variadic operators, casts and comparisons.
#include <cfloat>
#include <cmath>
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// x limited to lo..hi, bounds beyond float32 meaning none.
ValPtr clip(Importer& im, const NodeView& n, const ValPtr& x, double lo, double hi) {
  bool low = lo > -FLT_MAX, high = hi < FLT_MAX;
  if (!low && !high) return x;
  bool real = is_floating(x->type.dtype) || x->type.is_quantized();
  if (real && low && lo == 0) {
    if (!high) return im.call(n, "relu", {x});
    if (hi == 6) return im.call(n, "relu6", {x});
  }
  return im.call(n, "clamp", {x}, {{"min", low ? lo : -kInf}, {"max", high ? hi : kInf}});
}

void import_clip(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (n.opset() < 11) {
    im.out(n, 0, clip(im, n, x, n.get_float("min", -kInf), n.get_float("max", kInf)));
    return;
  }
  ValPtr lo = im.optional_in(n, 1), hi = im.optional_in(n, 2);
  bool known = (!lo || lo->is_constant()) && (!hi || hi->is_constant());
  if (known) {
    for (const ValPtr& bound : {lo, hi})
      if (bound && bound->constant.numel() != 1)
        n.fail(ErrorCode::corrupt, "a bound has {} elements", bound->constant.numel());
    im.out(n, 0, clip(im, n, x, lo ? lo->constant.item() : -kInf, hi ? hi->constant.item() : kInf));
    return;
  }
  if (lo) x = im.call(n, "maximum", {x, lo});
  if (hi) x = im.call(n, "minimum", {x, hi});
  im.out(n, 0, x);
}

// The exponent may have another type than the base, whose type the result has.
void import_pow(Importer& im, const NodeView& n) {
  n.ignore({"broadcast"});
  ValPtr x = im.in(n, 0), y = im.in(n, 1);
  DType type = x->type.dtype;
  DType compute = is_floating(type) || is_floating(y->type.dtype) ? DType::float32 : type;
  ValPtr power = im.call(n, "pow", {im.cast(n, x, compute), im.cast(n, y, compute)});
  im.out(n, 0, im.cast(n, power, type));
}

// op(op(x0, x1), x2) ...; one operand is handed through.
ValPtr chain(Importer& im, const NodeView& n, const char* op) {
  ValPtr y = im.in(n, 0);
  for (size_t i = 1; i < n.input_count(); ++i) y = im.call(n, op, {y, im.in(n, i)});
  return y;
}

// ONNX's slope broadcasts like any operand; octet's does too, but a vector lies along the channels
// (dimension 1).
void import_prelu(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), slope = im.in(n, 1);
  int64_t elements = slope->type.is_static() ? numel(slope->type.shape()) : -1;
  bool channel = x->rank() >= 2 && slope->rank() == x->rank() - 1 && elements > 0 &&
                 slope->dims()[0] == Dim(elements) && x->dims()[1] == Dim(elements);
  std::vector<int64_t> shape;
  if (elements == 1 || channel)
    shape = {elements};
  else if (slope->rank() == 1)
    shape = {1, elements};
  if (!shape.empty() && elements > 0) slope = im.call(n, "reshape", {slope}, {{"shape", shape}});
  im.out(n, 0, im.call(n, "prelu", {x, slope}));
}

void import_cast(Importer& im, const NodeView& n) {
  n.ignore({"saturate"});  // float8 only
  DType dtype = DType::float32;
  // Unsigned integers wrap; what is more than int64 holds stays negative.
  const std::string unsigned_name = onnx_type_name(static_cast<int32_t>(n.get_int("to", 0)));
  if (unsigned_name == "UINT16" || unsigned_name == "UINT32" || unsigned_name == "UINT64") {
    ValPtr x = im.cast(n, im.in(n, 0), DType::int64);
    const double range = unsigned_name == "UINT16" ? 0x1p16 : 0x1p32;
    if (unsigned_name != "UINT64")
      x = im.call(n, "remainder", {x, im.scalar(n, range, DType::int64)});
    if (unsigned_name == "UINT16") return im.out(n, 0, im.cast(n, x, DType::uint16));
    x = std::make_shared<Val>(*x);
    x->narrow = static_cast<int32_t>(n.get_int("to", 0));
    return im.out(n, 0, x);
  }
  try {
    dtype = dtype_of(static_cast<int32_t>(n.get_int("to", 0)), n.label());
  } catch (const Error&) {
    n.unsupported("a cast to {}", onnx_type_name(static_cast<int32_t>(n.get_int("to", 0))));
  }
  im.out(n, 0, im.cast(n, im.in(n, 0), compute_type(dtype)));
}

void import_selu(Importer& im, const NodeView& n) {
  double alpha = n.get_float("alpha", 1.67326319217681884765625),
         gamma = n.get_float("gamma", 1.05070102214813232421875);
  ValPtr x = im.in(n, 0);
  bool standard = std::abs(alpha - 1.6732632) < 1e-5 && std::abs(gamma - 1.050701) < 1e-5;
  if (standard) return im.out(n, 0, im.call(n, "selu", {x}));
  im.out(n, 0,
         im.call(n, "mul", {im.call(n, "elu", {x}, {{"alpha", alpha}}), im.scalar(n, gamma)}));
}

// x towards 0 by `bias`, and 0 within -lambd..lambd.
void import_shrink(Importer& im, const NodeView& n) {
  const double bias = n.get_float("bias", 0), lambd = n.get_float("lambd", 0.5);
  ValPtr x = im.in(n, 0);
  const DType dtype = x->type.dtype;
  x = im.cast(n, x, DType::float32);
  ValPtr above = im.call(n, "sub", {x, im.scalar(n, bias)}),
         below = im.call(n, "add", {x, im.scalar(n, bias)});
  ValPtr y = im.call(n, "where",
                     {im.call(n, "greater", {x, im.scalar(n, lambd)}), above, im.scalar(n, 0)});
  y = im.call(n, "where", {im.call(n, "less", {x, im.scalar(n, -lambd)}), below, y});
  im.out(n, 0, im.cast(n, y, dtype));
}

void import_is_inf(Importer& im, const NodeView& n) {
  bool positive = n.get_int("detect_positive", 1) != 0,
       negative = n.get_int("detect_negative", 1) != 0;
  ValPtr x = im.in(n, 0);
  if (!positive && !negative) n.unsupported("neither sign detected");
  if (positive && negative) x = im.call(n, "abs", {x});
  im.out(n, 0, im.call(n, "equal", {x, im.scalar(n, positive ? kInf : -kInf)}));
}

// Inference hands the data through; a mask that is read is all true.
void import_dropout(Importer& im, const NodeView& n) {
  n.ignore({"ratio", "seed", "is_test", "consumed_inputs"});
  if (n.has_input(2)) {
    Tensor training = im.known(n, 2, "training_mode");
    Tensor ratio = im.known(n, 1, "ratio");
    // exporters leave ones that drop nothing
    bool drops = !ratio.defined() || ratio.numel() != 1 || ratio.item() != 0;
    if (drops && training.numel() == 1 && training.item() != 0) n.unsupported("training_mode");
  }
  ValPtr x = im.in(n, 0);
  if (im.wants_output(n, 1)) {
    if (!x->type.is_static()) n.unsupported("a mask of unknown shape");
    im.out(n, 1, constant_val(n.output(1), Tensor::ones(x->type.shape(), DType::bool_)));
  }
  im.out(n, 0, x);
}

}  // namespace

void add_elementwise(Handlers& h) {
  for (const ops::Op* op : ops::all()) {
    if (!op->traits().onnx) continue;
    h[op->traits().onnx] = [op](Importer& im, const NodeView& n) {
      // opset 6: only with an axis is it another rule
      if (!n.has("axis")) n.ignore({"broadcast", "consumed_inputs"});
      std::vector<ValPtr> operands;
      for (size_t i = 0; i < op->params().size(); ++i) operands.push_back(im.in(n, i));
      im.out(n, 0, im.call(n, op->name(), operands));
    };
  }
  h["Identity"] = [](Importer& im, const NodeView& n) { im.out(n, 0, im.any_in(n, 0)); };
  h["Dropout"] = import_dropout;
  h["Clip"] = import_clip;
  h["Pow"] = import_pow;
  h["PRelu"] = import_prelu;
  h["Cast"] = import_cast;
  h["CastLike"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.cast(n, im.in(n, 0), im.in(n, 1)->type.dtype));
  };
  h["Selu"] = import_selu;
  h["Shrink"] = import_shrink;
  h["IsInf"] = import_is_inf;
  h["IsNaN"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.call(n, "not_equal", {im.in(n, 0), im.in(n, 0)}));
  };
  h["Max"] = [](Importer& im, const NodeView& n) { im.out(n, 0, chain(im, n, "maximum")); };
  h["Min"] = [](Importer& im, const NodeView& n) { im.out(n, 0, chain(im, n, "minimum")); };
  h["Sum"] = [](Importer& im, const NodeView& n) { im.out(n, 0, chain(im, n, "add")); };
  h["Mean"] = [](Importer& im, const NodeView& n) {
    ValPtr sum = chain(im, n, "add");
    if (n.input_count() > 1)
      sum = im.call(n, "div", {sum, im.scalar(n, static_cast<double>(n.input_count()))});
    im.out(n, 0, sum);
  };
  h["LeakyRelu"] = [](Importer& im, const NodeView& n) {
    // A relu on codes, as export writes it.
    if (n.get_float("alpha", 0.01f) == 0) return im.out(n, 0, im.call(n, "relu", {im.in(n, 0)}));
    im.out(
        n, 0,
        im.call(n, "leaky_relu", {im.in(n, 0)}, {{"negative_slope", n.get_float("alpha", 0.01f)}}));
  };
  h["Elu"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.call(n, "elu", {im.in(n, 0)}, {{"alpha", n.get_float("alpha", 1)}}));
  };
  h["Celu"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.call(n, "celu", {im.in(n, 0)}, {{"alpha", n.get_float("alpha", 1)}}));
  };
  h["ThresholdedRelu"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0,
           im.call(n, "threshold", {im.in(n, 0)},
                   {{"threshold", n.get_float("alpha", 1)}, {"value", 0.0}}));
  };
  h["HardSigmoid"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0,
           im.call(n, "hardsigmoid", {im.in(n, 0)},
                   {{"alpha", n.get_float("alpha", 0.2f)}, {"beta", n.get_float("beta", 0.5)}}));
  };
  h["Softplus"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.call(n, "softplus", {im.in(n, 0)}));
  };
  h["Gelu"] = [](Importer& im, const NodeView& n) {
    im.out(
        n, 0,
        im.call(n, "gelu", {im.in(n, 0)}, {{"approximate", n.get_string("approximate", "none")}}));
  };
  h["com.microsoft.Gelu"] = h["Gelu"];
}

}  // namespace octet::io::onnx_impl
