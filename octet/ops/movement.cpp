// Operators that only look at elements differently: their results are views where strides allow.
#include <algorithm>
#include <limits>

#include "octet/engine/moves_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::ops {
namespace {

using namespace engine_detail;

Shape result_shape(const Call& c) { return c.outputs()[0].shape(); }

// -- reshape --------------------------------------------------------------------------------------

std::vector<Dim> reshaped(const std::vector<Dim>& x, const std::vector<int64_t>& shape,
                          bool allow_zero, const std::string& who) {
  std::vector<Dim> dims;
  int64_t hole = -1;
  for (size_t d = 0; d < shape.size(); ++d) {
    OCTET_CHECK(shape[d] >= -1, invalid_argument, "{}: size {} in ({}); expected -1 or more", who,
                shape[d], fmt::join(shape, ", "));
    OCTET_CHECK(shape[d] != 0 || allow_zero || d < x.size(), invalid_argument,
                "{}: size 0 at dimension {} copies a dimension that {} does not have", who, d,
                dims_text(x));
    OCTET_CHECK(shape[d] != -1 || hole < 0, invalid_argument, "{}: more than one -1 in ({})", who,
                fmt::join(shape, ", "));
    if (shape[d] == -1) hole = static_cast<int64_t>(d);
    dims.push_back(shape[d] == -1 ? Dim(1) : shape[d] == 0 && !allow_zero ? x[d] : Dim(shape[d]));
  }
  Product have(x), want(dims);
  cancel(have, want);
  bool exact = have.symbols.empty() && want.symbols.empty();
  if (hole < 0) {
    OCTET_CHECK(!exact || have.number == want.number, invalid_argument,
                "{}: {} has {} elements, which does not fit ({})", who, dims_text(x), have.number,
                fmt::join(shape, ", "));
    return dims;
  }
  OCTET_CHECK(want.number != 0 && (!exact || have.number % want.number == 0), invalid_argument,
              "{}: {} has {} elements, which does not fit ({})", who, dims_text(x), have.number,
              fmt::join(shape, ", "));
  if (want.symbols.empty() && have.number % want.number == 0) {
    have.number /= want.number;
    dims[hole] = have.dim();
  } else {
    dims[hole] = Dim("[" + to_string(have.dim()) + "/" + to_string(want.dim()) + "]");
  }
  return dims;
}

// Where the channel axis goes: to a dimension of its size with as many elements before it; -1 if
// there is none.
int64_t reshaped_axis(const std::vector<Dim>& from, const std::vector<Dim>& to, int64_t axis) {
  Product before;
  for (int64_t d = 0; d < axis; ++d) before.times(from[d]);
  Product passed;
  for (size_t d = 0; d < to.size(); passed.times(to[d++])) {
    Product a = before, b = passed;
    cancel(a, b);
    if (a.number == b.number && a.symbols.empty() && b.symbols.empty() && to[d] == from[axis])
      return static_cast<int64_t>(d);
  }
  return -1;
}

TensorType reshaped_type(const Types& t, std::vector<Dim> dims) {
  std::vector<Dim> to = dims;
  return moved(t, std::move(dims),
               [&](int64_t axis) { return reshaped_axis(t[0].dims, to, axis); });
}

Tensor reshape_to(const Tensor& x, const TensorType& type) {
  Shape shape = type.shape();
  if (!x.is_quantized() || !x.quantizer()->is_per_channel())
    return as_result(x.reshape(shape), type);
  if (!type.is_quantized() || !type.quantizer->is_per_channel())
    return as_result(x.dequantize().reshape(shape), type);
  return as_result(x.reshape(shape), type);
}

// The result of a reshape to sizes that are known only in part.
TensorType open_reshape(const Types& t) {
  const auto wanted = t.sizes("shape");
  std::vector<Dim> dims(t.count("shape"), unknown());
  std::optional<size_t> rest;
  for (size_t d = 0; wanted && d < dims.size(); ++d) {
    const Dim& w = (*wanted)[d];
    const bool number = w.name().empty();
    if (number && w.size() == -1)
      rest = d;
    else
      dims[d] = number && w.size() == 0 && !t.attrs().get_bool("allow_zero") && d < t[0].dims.size()
                    ? t[0].dims[d]
                    : w;
  }
  if (rest) {  // what is left, if that is a number or a product
    Product have(t[0].dims), want;
    for (size_t d = 0; d < dims.size(); ++d)
      if (d != *rest) want.times(dims[d]);
    cancel(have, want);
    if (want.symbols.empty() && want.number > 0 && have.number % want.number == 0) {
      have.number /= want.number;
      dims[*rest] = have.dim();
    }
  }
  return reshaped_type(t, std::move(dims));
}

// -- slice ----------------------------------------------------------------------------------------

QuantizerPtr pick(const Quantizer& q, const std::vector<int64_t>& channels, DType dtype) {
  std::vector<double> scales;
  std::vector<int64_t> zeros;
  for (int64_t c : channels) {
    scales.push_back(q.scale(c));
    zeros.push_back(q.zero_point(c));
  }
  return Quantizer::per_channel(scales, zeros, q.axis(), dtype);
}

TensorType sliced_type(const Types& t, int64_t dim, std::vector<Dim> dims,
                       const std::optional<Span>& span) {
  TensorType type = moved(t, std::move(dims), [](int64_t axis) { return axis; });
  if (!t.want() && type.is_quantized() && type.quantizer->axis() == dim && span)
    type.quantizer = pick(*type.quantizer, span->indices(), type.dtype);
  return type;
}

TensorType infer_slice(const Types& t) {
  const Attrs& a = t.attrs();
  int64_t dim = normalize_dim(a.get_int("dim"), t[0].dim(), "slice");
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "slice: the operand has no dimensions");
  int64_t start = a.get_int("start"), end = a.get_int("end"), step = a.get_int("step");
  OCTET_CHECK(step != 0, invalid_argument, "slice: step is 0");
  std::vector<Dim> dims = t[0].dims;
  const Dim& n = dims[dim];
  if (n.known()) {
    Span span = slice_span(start, end, step, n.size());
    dims[dim] = Dim(span.count);
    return sliced_type(t, dim, dims, span);
  }
  // ONNX writes "to the end" as a huge number.
  constexpr int64_t kHuge = std::numeric_limits<int32_t>::max();
  bool whole = (step == 1 && start == 0 && end >= kHuge) ||
               (step == -1 && (start == -1 || start >= kHuge) && end <= -kHuge);
  if (!whole)
    dims[dim] = Dim(fmt::format("{}[{}:{}:{}]", n.name(), start,
                                end >= kHuge || end <= -kHuge ? "" : std::to_string(end), step));
  return sliced_type(t, dim, dims, std::nullopt);
}

Tensor eval_slice(const Call& c) {
  const Tensor& x = c[0];
  const Attrs& a = c.attrs();
  int64_t dim = normalize_dim(a.get_int("dim"), x.dim(), "slice");
  Span s = slice_span(a.get_int("start"), a.get_int("end"), a.get_int("step"), x.size(dim));
  if (s.step > 0)
    return as_result(x.slice(dim, s.start, s.start + (s.count ? (s.count - 1) * s.step + 1 : 0),
                             s.count > 1 ? s.step : 1),
                     c.outputs()[0]);
  QuantizerPtr quantizer = x.quantizer();
  if (quantizer && quantizer->axis() == dim) quantizer = pick(*quantizer, s.indices(), x.dtype());
  return as_result(with_quantizer(take(elements(x), dim, s.indices()), quantizer), c.outputs()[0]);
}

// Elements go back to where they were; others have none.
Tensor slice_gradient(const Grad& g) {
  const Tensor& x = g[0];
  const Attrs& a = g.attrs();
  int64_t dim = normalize_dim(a.get_int("dim"), x.dim(), "slice");
  Span s = slice_span(a.get_int("start"), a.get_int("end"), a.get_int("step"), x.size(dim));
  if (s.step < 0) return take_gradient(g.dy(), dim, s.indices(), x.size(dim));
  Tensor dx = Tensor::zeros(x.shape(), x.dtype());
  if (s.count)
    dx.slice(dim, s.start, s.start + (s.count - 1) * s.step + 1, s.count > 1 ? s.step : 1)
        .copy_from(g.dy());
  return dx;
}

TensorType open_slice(const Types& t) {
  const auto at = t.sizes("dim");
  std::vector<Dim> dims(t[0].dims.size(), unknown());
  if (at && at->size() == 1 && (*at)[0].name().empty()) {
    const int64_t dim = normalize_dim((*at)[0].size(), t[0].dim(), "slice");
    const auto start = t.sizes("start"), end = t.sizes("end"), step = t.sizes("step");
    dims = t[0].dims;
    // From the start to a size, which is that size unless the operand is smaller.
    const bool whole = end && end->size() == 1 && (*end)[0] == dims[dim] && start && step &&
                       *start == std::vector<Dim>{0} && *step == std::vector<Dim>{1};
    if (!whole) dims[dim] = unknown();
  }
  return moved(t, std::move(dims), [](int64_t) { return -1; });
}

std::vector<TensorType> open_split(const Types& t) {
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "split: the operand has no dimensions");
  const int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "split");
  const auto sizes = t.sizes("sizes");
  std::vector<TensorType> types;
  for (int64_t i = 0; i < t.count("sizes"); ++i) {
    std::vector<Dim> dims = t[0].dims;
    dims[dim] = sizes ? (*sizes)[i] : unknown();
    types.push_back(moved(t, std::move(dims), [](int64_t) { return -1; }));
  }
  return types;
}

// A dimension of size 1 more or less, at a place that is not known.
OpenAttrs open_rank(int64_t more) {
  return open_attrs({{"dim", AttrKind::integer}}, [more](const Types& t) {
    const int64_t rank = t[0].dim() + more;
    OCTET_CHECK(rank >= 0, invalid_argument, "{}: the operand has no dimensions", t.op().name());
    return moved(t, std::vector<Dim>(rank, unknown()), [](int64_t) { return -1; });
  });
}

// Back to x's shape: of every operator that keeps the elements in row-major order.
Gradient reshaping_gradient() {
  return gradient([](const Grad& g) { return g.dy().reshape(g[0].shape()); });
}

std::vector<TensorType> infer_split(const Types& t) {
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "split: the operand has no dimensions");
  int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "split");
  const std::vector<int64_t>& sizes = t.attrs().get_ints("sizes");
  int64_t total = 0;
  for (int64_t n : sizes) {
    OCTET_CHECK(n >= 0, invalid_argument, "split: size {} in [{}]; expected 0 or more", n,
                fmt::join(sizes, ", "));
    total += n;
  }
  const Dim& n = t[0].dims[dim];
  OCTET_CHECK(!sizes.empty() && (!n.known() || n.size() == total), invalid_argument,
              "split: sizes [{}] do not add up to dimension {} of {}", fmt::join(sizes, ", "), dim,
              dims_text(t[0].dims));
  std::vector<TensorType> types;
  int64_t start = 0;
  for (int64_t size : sizes) {
    std::vector<Dim> dims = t[0].dims;
    dims[dim] = Dim(size);
    types.push_back(sliced_type(t, dim, std::move(dims), Span{start, 1, size}));
    start += size;
  }
  return types;
}

// -- expand ---------------------------------------------------------------------------------------

std::vector<Dim> expanded(const std::vector<Dim>& x, const std::vector<int64_t>& shape) {
  std::vector<Dim> target;
  for (size_t d = 0; d < shape.size(); ++d) {
    OCTET_CHECK(shape[d] >= -1, invalid_argument, "expand: size {} in ({}); expected -1 or more",
                shape[d], fmt::join(shape, ", "));
    bool own = d + x.size() >= shape.size();  // x has this dimension
    OCTET_CHECK(shape[d] != -1 || own, invalid_argument,
                "expand: -1 at dimension {} of ({}), which {} does not have", d,
                fmt::join(shape, ", "), dims_text(x));
    target.push_back(shape[d] == -1 ? x[d + x.size() - shape.size()] : Dim(shape[d]));
  }
  return broadcast(x, target, "expand");
}

TensorType open_expand(const Types& t) {
  const auto wanted = t.sizes("shape");
  if (!wanted)
    return moved(t, std::vector<Dim>(std::max(t[0].dim(), t.count("shape")), unknown()),
                 [](int64_t) { return -1; });
  std::vector<Dim> sizes = *wanted;
  for (Dim& d : sizes)
    if (d == unknown()) d = Dim(1);
  std::vector<Dim> dims = broadcast(t[0].dims, sizes, "expand");
  for (size_t i = 0; i < wanted->size(); ++i) {
    Dim& d = dims[dims.size() - 1 - i];
    if ((*wanted)[wanted->size() - 1 - i] == unknown() && (!d.known() || d == Dim(1)))
      d = unknown();
  }
  return moved(t, std::move(dims), [](int64_t) { return -1; });
}

}  // namespace

// The same elements, in row-major order, in another shape. One size may be -1 (what is left); 0
// copies the operand's size at that place, unless allow_zero has it stand for itself. A per-channel
// axis must survive.
OCTET_OP(reshape, "reshape(x, *, shape, allow_zero=false) -> y", QRule::same,
         infer([](const Types& t) {
           return reshaped_type(t, reshaped(t[0].dims, t.attrs().get_ints("shape"),
                                            t.attrs().get_bool("allow_zero"), "reshape"));
         }),
         open_attrs({{"shape", AttrKind::integers}}, open_reshape),
         eval([](const Call& c) { return reshape_to(c[0], c.outputs()[0]); }), reshaping_gradient(),
         Traits{.moves = true, .reshapes = true},
         Doc{"another shape; one size may be -1, 0 copies the size of x"})

// Dimensions start_dim..end_dim as one. A 0-d operand becomes 1-d.
OCTET_OP(flatten, "flatten(x, *, start_dim=1, end_dim=-1) -> y", QRule::same,
         infer([](const Types& t) {
           const std::vector<Dim>& x = t[0].dims;
           if (x.empty()) return reshaped_type(t, {Dim(1)});
           // start_dim may be one past the end, as in ONNX's Flatten: that makes a dimension of
           // size 1.
           int64_t rank = t[0].dim(), start = t.attrs().get_int("start_dim");
           int64_t end = normalize_dim(t.attrs().get_int("end_dim"), rank, "flatten");
           if (start != rank) start = normalize_dim(start, rank, "flatten");
           OCTET_CHECK(start <= end + 1, invalid_argument,
                       "flatten: start_dim {} is after end_dim {} in {}", start, end, dims_text(x));
           std::vector<Dim> dims(x.begin(), x.begin() + start);
           dims.push_back(Product({x.begin() + start, x.begin() + end + 1}).dim());
           dims.insert(dims.end(), x.begin() + end + 1, x.end());
           return reshaped_type(t, dims);
         }),
         eval([](const Call& c) { return reshape_to(c[0], c.outputs()[0]); }), reshaping_gradient(),
         Traits{.moves = true, .reshapes = true}, Doc{"dimensions start_dim..end_dim as one"})

// Dimension i of the result is dimension dims[i] of x.
OCTET_OP(permute, "permute(x, *, dims) -> y", QRule::same, infer([](const Types& t) {
           const std::vector<int64_t>& order = t.attrs().get_ints("dims");
           OCTET_CHECK(static_cast<int64_t>(order.size()) == t[0].dim(), invalid_argument,
                       "permute: dims [{}] for an operand of shape {}", fmt::join(order, ", "),
                       dims_text(t[0].dims));
           std::vector<Dim> dims;
           std::vector<int64_t> place(order.size(), -1);
           for (size_t i = 0; i < order.size(); ++i) {
             int64_t from = normalize_dim(order[i], t[0].dim(), "permute");
             OCTET_CHECK(place[from] < 0, invalid_argument,
                         "permute: dimension {} is repeated in [{}]", order[i],
                         fmt::join(order, ", "));
             place[from] = static_cast<int64_t>(i);
             dims.push_back(t[0].dims[from]);
           }
           return moved(t, std::move(dims), [&](int64_t axis) { return place[axis]; });
         }),
         eval([](const Call& c) {
           return as_result(c[0].permute(c.attrs().get_ints("dims")), c.outputs()[0]);
         }),
         gradient([](const Grad& g) {
           const std::vector<int64_t>& order = g.attrs().get_ints("dims");
           std::vector<int64_t> back(order.size());
           for (size_t i = 0; i < order.size(); ++i)
             back[normalize_dim(order[i], g[0].dim(), "permute")] = static_cast<int64_t>(i);
           return g.dy().permute(back);
         }),
         Traits{.moves = true}, Doc{"dimensions in another order"})

// A dimension of size 1 more, before dimension `dim` (-1: at the end).
OCTET_OP(unsqueeze, "unsqueeze(x, *, dim) -> y", QRule::same, infer([](const Types& t) {
           int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim() + 1, "unsqueeze");
           std::vector<Dim> dims = t[0].dims;
           dims.insert(dims.begin() + dim, Dim(1));
           return moved(t, std::move(dims), [dim](int64_t axis) { return axis + (axis >= dim); });
         }),
         eval([](const Call& c) {
           int64_t dim = normalize_dim(c.attrs().get_int("dim"), c[0].dim() + 1, "unsqueeze");
           return as_result(c[0].unsqueeze(dim), c.outputs()[0]);
         }),
         open_rank(1), reshaping_gradient(), Traits{.moves = true, .reshapes = true},
         Doc{"one dimension of size 1 more, at dim"})

// Without dimension `dim`, which must have size 1. `only`: no other dimension may have it.
OCTET_OP(squeeze, "squeeze(x, *, dim, only=false) -> y", QRule::same, infer([](const Types& t) {
           int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "squeeze");
           std::vector<Dim> dims = t[0].dims;
           OCTET_CHECK(!dims.empty() && (!dims[dim].known() || dims[dim].size() == 1),
                       invalid_argument, "squeeze: dimension {} of {} does not have size 1", dim,
                       dims_text(dims));
           dims.erase(dims.begin() + dim);
           OCTET_CHECK(!t.attrs().get_bool("only") ||
                           std::find(dims.begin(), dims.end(), Dim(1)) == dims.end(),
                       invalid_argument,
                       "squeeze: several dimensions of {} have size 1, which are dropped where no "
                       "axes are named: the result has another rank than was planned for; fix the "
                       "sizes (--shape) when the model is read",
                       dims_text(t[0].dims));
           const TensorType& x = t[0];
           if (!t.want() && x.is_quantized() && x.quantizer->is_per_channel() &&
               x.quantizer->axis() == dim)
             return TensorType(
                 x.dtype, std::move(dims),
                 Quantizer::per_tensor(x.quantizer->scale(0), x.quantizer->zero_point(0), x.dtype));
           return moved(t, std::move(dims), [dim](int64_t axis) { return axis - (axis > dim); });
         }),
         eval([](const Call& c) {
           return as_result(c[0].squeeze(c.attrs().get_int("dim")), c.outputs()[0]);
         }),
         open_rank(-1), reshaping_gradient(), Traits{.moves = true, .reshapes = true},
         Doc{"without dimension dim, which has size 1; only: no other dimension may have it"})

// x broadcast to `shape` (-1 keeps a size); where x is larger than `shape` its own size stays, as
// in ONNX's Expand.
OCTET_OP(expand, "expand(x, *, shape) -> y", QRule::same, infer([](const Types& t) {
           std::vector<Dim> dims = expanded(t[0].dims, t.attrs().get_ints("shape"));
           auto extra = static_cast<int64_t>(dims.size()) - t[0].dim();
           return moved(t, dims, [&](int64_t axis) {
             return dims[axis + extra] == t[0].dims[axis] ? axis + extra : -1;
           });
         }),
         eval([](const Call& c) {
           return as_result(c[0].expand(result_shape(c)), c.outputs()[0]);
         }),
         gradient([](const Grad& g) { return sum_to(g.dy(), g[0].shape()); }),
         open_attrs({{"shape", AttrKind::integers}}, open_expand), Traits{.moves = true},
         Doc{"broadcast to shape; -1 keeps a size"})

// Elements start, start + step, ... before end along `dim`. Negative start and end count from the
// end and all is clamped to the dimension, as in NumPy; a negative step runs backwards.
OCTET_OP(slice, "slice(x, *, dim, start, end, step=1) -> y", QRule::same, infer(infer_slice),
         eval(eval_slice), gradient(slice_gradient), Traits{.moves = true},
         open_attrs({{"dim", AttrKind::integer},
                     {"start", AttrKind::integer},
                     {"end", AttrKind::integer},
                     {"step", AttrKind::integer}},
                    open_slice),
         Doc{"x[start:end:step] along dim"})

// Consecutive parts of the given sizes along `dim`.
OCTET_OP(split, "split(x, *, sizes, dim=0) -> ys...", QRule::same, infer_many(infer_split),
         eval_many([](const Call& c) {
           int64_t dim = normalize_dim(c.attrs().get_int("dim"), c[0].dim(), "split"), start = 0;
           std::vector<Tensor> parts;
           for (int64_t size : c.attrs().get_ints("sizes")) {
             parts.push_back(
                 as_result(c[0].slice(dim, start, start + size), c.outputs()[parts.size()]));
             start += size;
           }
           return parts;
         }),
         gradient([](const Grad& g) {
           std::vector<Tensor> parts;
           for (size_t i = 0; i < g.attrs().get_ints("sizes").size(); ++i) parts.push_back(g.dy(i));
           return call("cat", parts, {{"dim", g.attrs().get_int("dim")}});
         }),
         open_attrs_many({{"sizes", AttrKind::integers}}, open_split), Traits{.moves = true},
         Doc{"consecutive parts of the given sizes along dim"})

// x itself.
OCTET_OP(identity, "identity(x) -> y", QRule::same, same_type(),
         eval([](const Call& c) { return as_result(fresh(c[0]), c.outputs()[0]); }),
         gradient([](const Grad& g) { return g.dy(); }),
         Traits{.moves = true, .reshapes = true, .onnx = "Identity"}, Doc{"x"})

// A copy of x that shares nothing with it.
OCTET_OP(clone, "clone(x, *, channels_last=false) -> y", QRule::same, same_type(),
         eval([](const Call& c) {
           return as_result(
               c[0].clone(c.attrs().get_bool("channels_last") ? MemoryFormat::channels_last
                                                              : MemoryFormat::contiguous),
               c.outputs()[0]);
         }),
         gradient([](const Grad& g) { return g.dy(); }), Traits{.moves = true},
         Doc{"a copy of x, row-major or channels last"})

// x itself: dropout does nothing in inference.
OCTET_OP(dropout, "dropout(x, *, p=0.5) -> y", QRule::same, same_type(),
         eval([](const Call& c) { return as_result(fresh(c[0]), c.outputs()[0]); }),
         gradient([](const Grad& g) { return g.dy(); }), Traits{.moves = true, .reshapes = true},
         Doc{"x (inference)"})

// x in another plain dtype ("float32", "int64", ...). To integers: toward zero, saturating; to
// bool: whether it is not 0.
OCTET_OP(to, "to(x, *, dtype) -> y", QRule::float_only, infer([](const Types& t) {
           DType dtype = parse_dtype(t.attrs().get_string("dtype"));
           OCTET_CHECK(!is_quantized(dtype), invalid_argument,
                       "to: dtype {} is quantized; use quantize", to_string(dtype));
           return TensorType(dtype, t[0].dims);
         }),
         eval([](const Call& c) { return fresh(c[0].to(c.outputs()[0].dtype)); }),
         gradient([](const Grad& g) { return g.dy().to(g[0].dtype()); }),
         Doc{"x in another plain dtype"})

}  // namespace octet::ops
