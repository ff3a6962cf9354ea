// Numbers about tensors: shapes, ranges of numbers, places of elements.
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

int64_t range_count(double start, double end, double step) {
  OCTET_CHECK(step != 0 && std::isfinite(start) && std::isfinite(end) && std::isfinite(step),
              invalid_argument, "arange: from {} to {} in steps of {}", start, end, step);
  const double count = std::ceil((end - start) / step);
  constexpr double kMost = 1e12;
  OCTET_CHECK(count <= kMost, invalid_argument, "arange: {} numbers", count);
  return std::max<int64_t>(0, static_cast<int64_t>(count));
}

DType range_dtype(const Attrs& attrs) {
  const DType dtype = parse_dtype(attrs.get_string("dtype"));
  OCTET_CHECK(!is_quantized(dtype) && dtype != DType::bool_, invalid_argument,
              "arange: dtype {}; expected integers or floats", to_string(dtype));
  return dtype;
}

TensorType infer_range(const Types& t) {
  const Attrs& a = t.attrs();
  return TensorType(range_dtype(a), Shape{range_count(a.get_double("start"), a.get_double("end"),
                                                      a.get_double("step"))});
}

// From 0 to a size in steps of 1: as many numbers.
TensorType open_range(const Types& t) {
  const auto is = [&](const char* name, int64_t value) {
    if (!t.attrs().operand(name)) return t.attrs().get_double(name) == static_cast<double>(value);
    const auto known = t.sizes(name);
    return known && *known == std::vector<Dim>{value};
  };
  Dim count = unknown();
  if (is("start", 0) && is("step", 1) && t.attrs().operand("end"))
    if (const auto end = t.sizes("end"); end && end->size() == 1) count = (*end)[0];
  return TensorType(range_dtype(t.attrs()), std::vector<Dim>{count});
}

Tensor eval_range(const Call& c) {
  const Attrs& a = c.attrs();
  const double start = a.get_double("start"), step = a.get_double("step");
  const int64_t n = range_count(start, a.get_double("end"), step);
  Tensor y = Tensor::empty({n}, DType::float64);
  for (int64_t i = 0; i < n; ++i) y.data<double>()[i] = start + static_cast<double>(i) * step;
  return y.to(range_dtype(a));
}

// By rows: the coordinates along each dimension of the elements that are not 0.
Tensor eval_nonzero(const Call& c) {
  const Tensor x = (c[0].is_quantized() ? c[0].dequantize() : c[0]).contiguous();
  const Tensor flags = call("not_equal", {x.to(DType::float64), Tensor::scalar(0, DType::float64)});
  const std::vector<bool> set = flags.to_vector<bool>();
  const int64_t rank = x.dim(), n = std::count(set.begin(), set.end(), true);
  Tensor y = Tensor::empty({rank, n}, DType::int64);
  int64_t at = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (!set[i]) continue;
    int64_t rest = i;
    for (int64_t d = rank; d-- > 0; rest /= x.size(d))
      y.data<int64_t>()[d * n + at] = rest % x.size(d);
    ++at;
  }
  return y;
}

}  // namespace

// The sizes of dimensions start..end (excluded; negative ones count from the end) of x.
OCTET_OP(shape, "shape(x, *, start=0, end=64) -> sizes", QRule::same, infer([](const Types& t) {
           const DimRange dims =
               dim_range(t.attrs().get_int("start"), t.attrs().get_int("end"), t[0].dim());
           return TensorType(DType::int64, Shape{dims.end - dims.begin});
         }),
         eval([](const Call& c) {
           const DimRange dims =
               dim_range(c.attrs().get_int("start"), c.attrs().get_int("end"), c[0].dim());
           const Shape& all = c[0].shape();
           return Tensor::from(
               std::vector<int64_t>(all.begin() + dims.begin, all.begin() + dims.end),
               {dims.end - dims.begin});
         }),
         Traits{.of_types = true}, Doc{"the sizes of dimensions start to end of x"})

// start, start + step, ... before end (after it, if step is negative), of a plain dtype.
OCTET_OP(
    arange, "arange(*, start=0., end, step=1., dtype=\"int64\") -> y", QRule::float_only,
    infer(infer_range), eval(eval_range),
    open_attrs({{"start", AttrKind::number}, {"end", AttrKind::number}, {"step", AttrKind::number}},
               open_range),
    Doc{"start, start + step, ... before end"})

// The places of the elements that are not 0, in row-major order: (dimensions of x, how many), as
// ONNX's NonZero.
OCTET_OP(nonzero, "nonzero(x) -> index", QRule::same, infer([](const Types& t) {
           return TensorType(DType::int64, {Dim(t[0].dim()), unknown()});
         }),
         eval(eval_nonzero), Traits{.data_sized = true, .onnx = "NonZero"},
         Doc{"the places of the elements that are not 0"})

}  // namespace octet::ops
