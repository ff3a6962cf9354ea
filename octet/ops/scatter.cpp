// Operators that read and write elements at places that another operand lists: ONNX's
// GatherElements, GatherND, ScatterElements and ScatterND.
#include <algorithm>

#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// Blocks of `block` elements of a row-major tensor: where each begins.
struct Blocks {
  std::vector<int64_t> at;
  int64_t block = 1;
};

void need_places(const Types& t) {
  OCTET_CHECK(!t[1].is_quantized() && !is_floating(t[1].dtype) && t[1].dtype != DType::bool_,
              invalid_argument, "{}: index is {}; expected integers", t.op().name(),
              to_string(t[1]));
}

int64_t in_range(int64_t i, int64_t n, const Call& c) {
  OCTET_CHECK(i >= -n && i < n, invalid_argument,
              "{}: index {} is out of range for a dimension of size {}", c.op().name(), i, n);
  return i < 0 ? i + n : i;
}

// The distance of neighbours along each dimension of a row-major tensor.
std::vector<int64_t> row_major_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  return strides;
}

// Element (i, j, k) of `index` names element (i, j, index[i, j, k]) of x, for dim = 2.
Blocks element_places(const Call& c) {
  const Tensor &x = c[0], index = c[1].to(DType::int64).contiguous();
  const int64_t rank = x.dim(), dim = normalize_dim(c.attrs().get_int("dim"), rank, c.op().name());
  const std::vector<int64_t> strides = row_major_strides(x.shape());
  const auto* given = index.data<int64_t>();
  Blocks places;
  places.at.resize(static_cast<size_t>(index.numel()));
  std::vector<int64_t> position(static_cast<size_t>(rank), 0);
  for (int64_t d = 0; d < rank; ++d)
    OCTET_CHECK(d == dim || index.size(d) <= x.size(d), invalid_argument,
                "{}: index has shape {}, which is larger than {} along {}", c.op().name(),
                to_string(index.shape()), to_string(x.shape()), d);
  for (int64_t i = 0; i < index.numel(); ++i) {
    int64_t at = in_range(given[i], x.size(dim), c) * strides[dim];
    for (int64_t d = 0; d < rank; ++d)
      if (d != dim) at += position[d] * strides[d];
    places.at[i] = at;
    for (int64_t d = rank; d-- > 0;) {
      if (++position[d] < index.size(d)) break;
      position[d] = 0;
    }
  }
  return places;
}

// The rows of `index` name slices of x behind the first `batch` dimensions, which both share.
Blocks slice_places(const Call& c, int64_t batch) {
  const Tensor &x = c[0], index = c[1].to(DType::int64).contiguous();
  const std::vector<int64_t> strides = row_major_strides(x.shape());
  const int64_t depth = index.size(-1), rows = depth == 0 ? 0 : index.numel() / depth;
  Blocks places;
  int64_t batches = 1;
  for (int64_t d = 0; d < batch; ++d) {
    OCTET_CHECK(index.size(d) == x.size(d), invalid_argument,
                "{}: index has shape {} for {}; the first {} sizes must be equal", c.op().name(),
                to_string(index.shape()), to_string(x.shape()), batch);
    batches *= x.size(d);
  }
  for (int64_t d = batch + depth; d < x.dim(); ++d) places.block *= x.size(d);
  OCTET_CHECK(depth > 0, unsupported, "{}: index has rows of 0 numbers", c.op().name());
  const int64_t per_batch = batches == 0 ? 0 : x.numel() / batches,
                rows_per_batch = batches == 0 ? 1 : std::max<int64_t>(1, rows / batches);
  const auto* given = index.data<int64_t>();
  places.at.resize(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    int64_t at = r / rows_per_batch * per_batch;
    for (int64_t k = 0; k < depth; ++k)
      at += in_range(given[r * depth + k], x.size(batch + k), c) * strides[batch + k];
    places.at[r] = at;
  }
  return places;
}

// The blocks of x, of a plain dtype, one behind another.
Tensor gather_blocks(const Tensor& x_any, const Blocks& places, const Shape& shape) {
  const Tensor x = x_any.contiguous();
  Tensor y = Tensor::empty(shape, x.dtype());
  visit_bits(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto* in = static_cast<const T*>(x.raw_data());
    auto* out = static_cast<T*>(y.raw_data());
    parallel_ranges(std::ssize(places.at),
                    std::max<int64_t>(1, kGrain / std::max<int64_t>(1, places.block)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i)
                        std::copy_n(in + places.at[i], places.block, out + i * places.block);
                    });
  });
  return y;
}

template <typename T, typename Fn>
void each_update(Tensor& y, const Tensor& updates, const Blocks& places, Fn fn) {
  const auto* in = static_cast<const T*>(updates.raw_data());
  auto* out = static_cast<T*>(y.raw_data());
  for (size_t i = 0; i < places.at.size(); ++i)
    for (int64_t j = 0; j < places.block; ++j) fn(out[places.at[i] + j], in[i * places.block + j]);
}

// x with the blocks at the places replaced by `updates`, or joined with them; in the order of the
// places, so that of several updates of one place the last one stays.
Tensor scatter_blocks(const Tensor& x, const Tensor& updates_any, const Blocks& places,
                      const std::string& reduction, const std::string& who) {
  const DType half = x.dtype();
  const bool widen = reduction != "none" && (half == DType::float16 || half == DType::bfloat16);
  Tensor y = (widen ? x.to(DType::float32) : x).contiguous().clone(),
         updates = (widen ? updates_any.to(DType::float32) : updates_any).contiguous();
  if (reduction == "none") {
    visit_bits(y.dtype(), [&](auto zero) {
      using T = decltype(zero);
      each_update<T>(y, updates, places, [](T& to, T v) { to = v; });
    });
    return y;
  }
  visit_any(y.dtype(), who, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_same_v<T, bool>) {
      // A NaN stays, as it does with maximum and minimum.
      if (reduction == "add")
        each_update<T>(y, updates, places, [](T& to, T v) { to = static_cast<T>(to + v); });
      else if (reduction == "mul")
        each_update<T>(y, updates, places, [](T& to, T v) { to = static_cast<T>(to * v); });
      else if (reduction == "max")
        each_update<T>(y, updates, places, [](T& to, T v) { to = v > to || v != v ? v : to; });
      else
        each_update<T>(y, updates, places, [](T& to, T v) { to = v < to || v != v ? v : to; });
    } else {
      OCTET_FAIL(unsupported, "{}: reduction=\"{}\" of bools", who, reduction);
    }
  });
  return widen ? y.to(half) : y;
}

void check_reduction(const Types& t) {
  const std::string& r = t.attrs().get_string("reduction");
  OCTET_CHECK(r == "none" || r == "add" || r == "mul" || r == "max" || r == "min", invalid_argument,
              "{}: reduction=\"{}\"; expected \"none\", \"add\", \"mul\", \"max\" or \"min\"",
              t.op().name(), r);
}

void check_updates(const Types& t, const std::vector<Dim>& dims) {
  check_reduction(t);
  need_want(t);
  OCTET_CHECK(plain_dtype(t[0]) == plain_dtype(t[2]), invalid_argument,
              "{}: x is {} and updates {}; expected one dtype", t.op().name(), to_string(t[0]),
              to_string(t[2]));
  bool fits = t[2].dims.size() == dims.size();
  for (size_t d = 0; d < dims.size() && fits; ++d)
    fits = t[2].dims[d] == dims[d] || !t[2].dims[d].known() || !dims[d].known();
  OCTET_CHECK(fits, invalid_argument, "{}: updates have shape {}; expected {}", t.op().name(),
              dims_text(t[2].dims), dims_text(dims));
}

// At run time every symbolic size has become a number.
void check_counts(const Call& c, const Blocks& places) {
  OCTET_CHECK(c[2].numel() == std::ssize(places.at) * places.block, invalid_argument,
              "{}: {} updates for {} elements", c.op().name(), c[2].numel(),
              std::ssize(places.at) * places.block);
}

void check_element_index(const Types& t) {
  need_places(t);
  OCTET_CHECK(t[0].dim() > 0 && t[0].dim() == t[1].dim(), invalid_argument,
              "{}: x has shape {} and index {}; expected as many dimensions", t.op().name(),
              dims_text(t[0].dims), dims_text(t[1].dims));
  const int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), t.op().name());
  for (int64_t d = 0; d < t[0].dim(); ++d) {
    const Dim &all = t[0].dims[d], &some = t[1].dims[d];
    OCTET_CHECK(d == dim || !all.known() || !some.known() || some.size() <= all.size(),
                invalid_argument, "{}: index has shape {}, which is larger than {} along {}",
                t.op().name(), dims_text(t[1].dims), dims_text(t[0].dims), d);
  }
}

// The result's dimensions of slices of x at the rows of index.
std::vector<Dim> slices_at(const Types& t, int64_t batch) {
  need_places(t);
  OCTET_CHECK(t[1].dim() > 0 && t[1].dims.back().known(), invalid_argument,
              "{}: index has shape {}; expected rows of a known number of indices", t.op().name(),
              dims_text(t[1].dims));
  const int64_t depth = t[1].dims.back().size();
  OCTET_CHECK(batch >= 0 && batch < t[1].dim() && batch + depth <= t[0].dim() && depth > 0,
              invalid_argument, "{}: index has shape {} for {}, batch_dims={}", t.op().name(),
              dims_text(t[1].dims), dims_text(t[0].dims), batch);
  for (int64_t d = 0; d < batch; ++d)
    OCTET_CHECK(t[0].dims[d] == t[1].dims[d] || !t[0].dims[d].known() || !t[1].dims[d].known(),
                invalid_argument, "{}: index has shape {} for {}; the first {} sizes must be equal",
                t.op().name(), dims_text(t[1].dims), dims_text(t[0].dims), batch);
  std::vector<Dim> dims(t[1].dims.begin(), t[1].dims.end() - 1);
  dims.insert(dims.end(), t[0].dims.begin() + batch + depth, t[0].dims.end());
  return dims;
}

Tensor gathered(const Call& c, const Blocks& places) {
  const Tensor y = gather_blocks(elements(c[0]), places, c.outputs()[0].shape());
  return as_result(with_quantizer(y, c[0].quantizer()), c.outputs()[0]);
}

// dy added up where its elements came from.
Tensor gathered_gradient(const Grad& g, const Blocks& places) {
  const Tensor zeros = Tensor::zeros(g[0].shape(), g.dy().dtype());
  return scatter_blocks(zeros, g.dy(), places, "add", g.call().op().name());
}

// What was replaced has no gradient; of several updates of one place each gets it.
std::vector<Tensor> scattered_gradients(const Grad& g, const Blocks& places) {
  const std::string &reduction = g.attrs().get_string("reduction"), &who = g.call().op().name();
  OCTET_CHECK(reduction == "none" || reduction == "add", unsupported,
              "{}: no gradient with reduction=\"{}\"", who, reduction);
  Tensor dx = g.dy();
  if (reduction == "none")
    dx = scatter_blocks(dx, Tensor::zeros(g[2].shape(), dx.dtype()), places, "none", who);
  return {dx, Tensor(), gather_blocks(g.dy(), places, g[2].shape())};
}

}  // namespace

// y[i, j, k] = x[i, j, index[i, j, k]] for dim = 2. Negative indices count from the end. index may
// be smaller than x along the other dimensions.
OCTET_OP(gather_elements, "gather_elements(x, index, *, dim=0) -> y", QRule::same,
         infer([](const Types& t) {
           check_element_index(t);
           return moved(t, t[1].dims, [](int64_t) { return -1; });
         }),
         eval([](const Call& c) { return gathered(c, element_places(c)); }),
         gradient([](const Grad& g) { return gathered_gradient(g, element_places(g.call())); }),
         Doc{"the elements of x at index along dim, element by element"})

// The slices of x that the rows of index (..., how many leading dimensions) name, as ONNX's
// GatherND; batch_dims leading dimensions of both go together.
OCTET_OP(gather_nd, "gather_nd(x, index, *, batch_dims=0) -> y", QRule::same,
         infer([](const Types& t) {
           return moved(t, slices_at(t, t.attrs().get_int("batch_dims")),
                        [](int64_t) { return -1; });
         }),
         eval([](const Call& c) {
           return gathered(c, slice_places(c, c.attrs().get_int("batch_dims")));
         }),
         gradient([](const Grad& g) {
           return gathered_gradient(g, slice_places(g.call(), g.attrs().get_int("batch_dims")));
         }),
         Doc{"the slices of x that the rows of index name"})

// x with y[i, j, index[i, j, k]] = updates[i, j, k] for dim = 2, or joined with what is there:
// reduction "add", "mul", "max" or "min".
OCTET_OP(scatter_elements, "scatter_elements(x, index, updates, *, dim=0, reduction=\"none\") -> y",
         QRule::own, infer([](const Types& t) {
           check_element_index(t);
           check_updates(t, t[1].dims);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         eval([](const Call& c) {
           const Blocks places = element_places(c);
           check_counts(c, places);
           return scatter_blocks(c[0], c[2], places, c.attrs().get_string("reduction"),
                                 "scatter_elements");
         }),
         gradients([](const Grad& g) { return scattered_gradients(g, element_places(g.call())); }),
         Doc{"x with updates at index along dim, element by element; reduction: \"none\", \"add\", "
             "\"mul\", \"max\" or \"min\""})

// x with the slices that the rows of index name replaced by updates, or joined with them, as ONNX's
// ScatterND.
OCTET_OP(scatter_nd, "scatter_nd(x, index, updates, *, reduction=\"none\") -> y", QRule::own,
         infer([](const Types& t) {
           check_updates(t, slices_at(t, 0));
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         eval([](const Call& c) {
           const Blocks places = slice_places(c, 0);
           check_counts(c, places);
           return scatter_blocks(c[0], c[2], places, c.attrs().get_string("reduction"),
                                 "scatter_nd");
         }),
         gradients([](const Grad& g) { return scattered_gradients(g, slice_places(g.call(), 0)); }),
         Doc{"x with the slices that the rows of index name replaced by updates, or joined with "
             "them; reduction as in scatter_elements"})

}  // namespace octet::ops
