// Operators that make constants of nothing but attributes and known operands.
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxConstant = 1 << 26;  // elements of a constant made from a shape

Shape known_shape(Importer& im, const NodeView& n) {
  Shape shape;
  double elements = 1;
  im.in(n, 0);
  for (const Dim& d : im.known_sizes(n, 0, "the shape")) {
    if (!d.name().empty())
      n.unsupported("a size '{}' that is known only at run time; import with a fixed size",
                    d.name());
    if (d.size() < 0) n.fail(ErrorCode::corrupt, "a size of {}", d.size());
    shape.push_back(d.size());
    elements *= static_cast<double>(d.size());
  }
  if (elements > kMaxConstant)
    n.fail(ErrorCode::unsupported, "a constant of shape {}", to_string(shape));
  return shape;
}

void import_constant_of_shape(Importer& im, const NodeView& n) {
  Tensor value = n.has("value") ? im.read_constant(n.get_tensor("value"), n.label())->constant
                                : Tensor::scalar(0);
  if (value.numel() != 1) n.fail(ErrorCode::corrupt, "its value has {} elements", value.numel());
  im.out(n, 0,
         constant_val(n.output(0), value.reshape({}).expand(known_shape(im, n)).contiguous()));
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

void import_range(Importer& im, const NodeView& n) {
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
  h["Range"] = import_range;
}

}  // namespace octet::io::onnx_impl
