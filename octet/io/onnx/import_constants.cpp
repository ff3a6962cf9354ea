// Operators that make constants of nothing but attributes and known operands.
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxConstant = 1 << 26;  // elements of a constant made from a shape

void import_constant_of_shape(Importer& im, const NodeView& n) {
  Tensor value = n.has("value") ? im.read_constant(n.get_tensor("value"), n.label())->constant
                                : Tensor::scalar(0);
  if (value.numel() != 1) n.fail(ErrorCode::corrupt, "its value has {} elements", value.numel());
  const ValPtr one = constant_val(n.output(0) + ".value", value.reshape({}));
  std::vector<ValPtr> operands{one};
  if (im.at_run_time(n, 0)) {
    const Attr shape = im.as_attr(n, 0, "the shape", operands);
    return im.out(n, 0, im.call(n, "expand", operands, {{"shape", shape}}));
  }
  double elements = 1;
  im.in(n, 0);
  const std::vector<Dim> sizes = im.known_sizes(n, 0, "the shape");
  for (const Dim& d : sizes) {
    if (d.name().empty() && d.size() < 0) n.fail(ErrorCode::corrupt, "a size of {}", d.size());
    elements *= d.known() ? static_cast<double>(d.size()) : 1;
  }
  if (elements > kMaxConstant)
    n.fail(ErrorCode::unsupported, "a constant of {} elements", elements);
  const Attr shape = im.as_attr(n, sizes, operands);
  if (operands.size() > 1) return im.out(n, 0, im.call(n, "expand", operands, {{"shape", shape}}));
  im.out(n, 0,
         constant_val(n.output(0),
                      one->constant.expand(std::get<std::vector<int64_t>>(shape)).contiguous()));
}

void import_constant(Importer& im, const NodeView& n) {
  Tensor value;
  if (n.has("value")) {
    ValPtr v = im.read_constant(n.get_tensor("value"), n.label());
    v->name = n.output(0);
    return im.out(n, 0, v);
  }
  if (n.has("value_float"))
    value = Tensor::scalar(n.get_float("value_float", 0));
  else if (n.has("value_int"))
    value = Tensor::from(std::vector<int64_t>{n.get_int("value_int", 0)}, {});
  else if (n.has("value_ints")) {
    std::vector<int64_t> ints = n.get_ints("value_ints");
    value = Tensor::from(ints, {static_cast<int64_t>(ints.size())});
  } else if (n.has("value_floats")) {
    std::vector<double> doubles = n.get_floats("value_floats");
    value = Tensor::from(std::vector<float>(doubles.begin(), doubles.end()),
                         {static_cast<int64_t>(doubles.size())});
  } else {
    n.unsupported("a value that is not a dense tensor of numbers");
  }
  im.out(n, 0, constant_val(n.output(0), value));
}

// Ones on a diagonal, in the shape of the data.
void import_eye_like(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (x->rank() != 2) n.fail(ErrorCode::corrupt, "expected a matrix, got {}", to_string(x->type));
  const DType dtype =
      n.has("dtype")
          ? compute_type(dtype_of(static_cast<int32_t>(n.get_int("dtype", 1)), n.label()))
          : x->type.dtype;
  ValPtr y = expand_like(im, n, im.scalar(n, 1, dtype), x);
  const Attrs diagonal{{"diagonal", n.get_int("k", 0)}};
  im.out(n, 0, im.call(n, "tril", {im.call(n, "triu", {y}, diagonal)}, diagonal));
}

void import_range(Importer& im, const NodeView& n) {
  const ValPtr first = im.in(n, 0);
  if (!first->constant.defined() || !im.in(n, 1)->constant.defined() ||
      !im.in(n, 2)->constant.defined()) {
    std::vector<ValPtr> operands;
    const auto number = [&](size_t i) -> Attr {
      if (const ValPtr v = im.in(n, i); v->constant.defined()) return v->constant.item();
      operands.push_back(im.in(n, i));
      return FromOperand{static_cast<int64_t>(operands.size()) - 1};
    };
    const Attrs attrs{{"start", number(0)},
                      {"end", number(1)},
                      {"step", number(2)},
                      {"dtype", to_string(first->type.dtype)}};
    return im.out(n, 0, im.call(n, "arange", operands, attrs));
  }
  Tensor start = im.known(n, 0, "start"), limit = im.known(n, 1, "limit"),
         delta = im.known(n, 2, "delta");
  for (const Tensor& t : {start, limit, delta})
    if (!t.defined() || t.numel() != 1)
      n.fail(ErrorCode::corrupt, "expected one start, limit and delta");
  double a = start.item(), step = delta.item(), count = std::ceil((limit.item() - a) / step);
  if (step == 0 || !(count < kMaxConstant))
    n.fail(ErrorCode::corrupt, "from {} to {} in steps of {}", a, limit.item(), step);
  Tensor r = Tensor::arange(std::max<int64_t>(0, static_cast<int64_t>(count)), DType::float64);
  for (int64_t i = 0; i < r.numel(); ++i) r.data<double>()[i] = a + step * static_cast<double>(i);
  im.out(n, 0, constant_val(n.output(0), r.to(start.dtype())));
}

}  // namespace

void add_constants(Handlers& h) {
  h["Constant"] = import_constant;
  h["ConstantOfShape"] = import_constant_of_shape;
  h["EyeLike"] = import_eye_like;
  h["Range"] = import_range;
}

}  // namespace octet::io::onnx_impl
