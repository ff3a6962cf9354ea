#include "octet/tensor/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/base/random.h"
#include "octet/tensor/affine.h"

namespace octet {

struct Tensor::Impl {
  DType dtype = DType::float32;
  Shape shape;
  std::vector<int64_t> strides;
  Buffer buffer;
  int64_t offset = 0;  // elements
  QuantizerPtr quantizer;
  std::shared_ptr<void> autograd, trace, packed;
  bool symbolic = false;  // no buffer
};

namespace {

int64_t wrap_dim(int64_t d, int64_t dims, const char* who) {
  OCTET_CHECK(d >= -dims && d < dims, invalid_argument, "{}: dimension {} of a {}-d tensor", who, d,
              dims);
  return d < 0 ? d + dims : d;
}

void check_shape(const Shape& shape) {
  double total = 1;
  for (int64_t d : shape) {
    OCTET_CHECK(d >= 0, invalid_argument, "shape {}: sizes must not be negative", to_string(shape));
    // a 0 must not hide an overflow of the others
    total *= static_cast<double>(std::max<int64_t>(d, 1));
  }
  OCTET_CHECK(total < 1e15, invalid_argument, "shape {} has too many elements", to_string(shape));
}

void check_quantizer(const Shape& shape, DType dtype, const QuantizerPtr& q) {
  OCTET_CHECK(is_quantized(dtype) == (q != nullptr), invalid_argument, "a {} tensor {} a quantizer",
              to_string(dtype), is_quantized(dtype) ? "needs" : "cannot have");
  if (!q || !q->is_per_channel()) return;
  OCTET_CHECK(q->axis() < static_cast<int64_t>(shape.size()) &&
                  shape[q->axis()] == static_cast<int64_t>(q->scales().size()),
              invalid_argument, "per-channel qparams: {} scales along axis {} of shape {}",
              q->scales().size(), q->axis(), to_string(shape));
}

// Calls fn(offset_of_a, offset_of_b) for every index in row-major order.
template <typename Fn>
void for_each2(const Shape& shape, const std::vector<int64_t>& sa, const std::vector<int64_t>& sb,
               Fn&& fn) {
  int64_t dims = static_cast<int64_t>(shape.size());
  if (numel(shape) == 0) return;
  if (dims == 0) {
    fn(int64_t{0}, int64_t{0});
    return;
  }
  std::vector<int64_t> index(dims, 0);
  int64_t a = 0, b = 0, inner = shape[dims - 1];
  int64_t step_a = sa[dims - 1], step_b = sb[dims - 1];
  while (true) {
    for (int64_t i = 0; i < inner; ++i) fn(a + i * step_a, b + i * step_b);
    int64_t d = dims - 2;
    for (; d >= 0; --d) {
      a += sa[d];
      b += sb[d];
      if (++index[d] < shape[d]) break;
      a -= sa[d] * shape[d];
      b -= sb[d] * shape[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

// out[o] = in[i] for every index. Where elements that lie together in `in` do not in `out`, squares
// of a cache line's width are copied at a time, so that a line is read or written once.
template <typename T>
void copy_elements(const Shape& shape, const std::vector<int64_t>& in_strides,
                   const std::vector<int64_t>& out_strides, const T* in, T* out) {
  constexpr int64_t kBlock = std::max<int64_t>(8, 64 / static_cast<int64_t>(sizeof(T)));
  if (numel(shape) == 0) return;
  struct Axis {
    int64_t size = 1, in = 0, out = 0;
  };
  // Those with the shortest steps come last.
  std::vector<Axis> axes;
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1) axes.push_back({shape[d], in_strides[d], out_strides[d]});
  const auto take = [&](auto stride) {
    const auto at = std::min_element(axes.begin(), axes.end(), [&](const Axis& a, const Axis& b) {
      return a.*stride < b.*stride;
    });
    if (at == axes.end()) return Axis{};
    const Axis axis = *at;
    axes.erase(at);
    return axis;
  };
  const Axis row = take(&Axis::out), column = row.in == 1 ? Axis{} : take(&Axis::in);
  const int64_t rows_at_once = column.size == 1 ? row.size : kBlock;
  Shape outer;
  std::vector<int64_t> outer_in, outer_out;
  for (const Axis& a : axes) {
    outer.push_back(a.size);
    outer_in.push_back(a.in);
    outer_out.push_back(a.out);
  }
  for_each2(outer, outer_in, outer_out, [&](int64_t a, int64_t b) {
    for (int64_t c0 = 0; c0 < column.size; c0 += kBlock)
      for (int64_t r0 = 0; r0 < row.size; r0 += rows_at_once) {
        const int64_t c1 = std::min(column.size, c0 + kBlock),
                      r1 = std::min(row.size, r0 + rows_at_once);
        for (int64_t c = c0; c < c1; ++c) {
          const T* from = in + a + c * column.in;
          T* to = out + b + c * column.out;
          if (row.in == 1 && row.out == 1)
            std::copy(from + r0, from + r1, to + r0);
          else
            for (int64_t r = r0; r < r1; ++r) to[r * row.out] = from[r * row.in];
        }
      }
  });
}

// Calls fn with a value of the dtype's storage type, for code that is generic over it.
template <typename Fn>
auto visit(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::float32:
      return fn(float{});
    case DType::float64:
      return fn(double{});
    case DType::int64:
      return fn(int64_t{});
    case DType::int32:
    case DType::qint32:
      return fn(int32_t{});
    case DType::int16:
    case DType::qint16:
      return fn(int16_t{});
    case DType::int8:
    case DType::qint8:
      return fn(int8_t{});
    case DType::uint8:
    case DType::quint8:
      return fn(uint8_t{});
    case DType::bool_:
      return fn(bool{});
    case DType::float16:
    case DType::bfloat16:
    case DType::uint16:
    case DType::quint16:
      return fn(uint16_t{});
    case DType::quint4x2:
    case DType::qint4x2:
      break;  // callers take these apart
  }
  OCTET_FAIL(internal, "unknown dtype");
}

// `codes` (uint8 or int8, row-major) packed as `dtype`.
Tensor pack(const Tensor& codes, const QuantizerPtr& quantizer, DType dtype) {
  Tensor source = codes.contiguous(), y = Tensor::empty(codes.shape(), dtype, quantizer);
  const auto* in = static_cast<const uint8_t*>(source.raw_data());
  auto* out = static_cast<uint8_t*>(y.raw_data());
  for (int64_t i = 0, n = codes.numel(); i < n; i += 2)
    out[i / 2] = static_cast<uint8_t>((in[i] & 15) | (i + 1 < n ? in[i + 1] << 4 : 0));
  return y;
}

double load(const std::byte* p, DType dtype, int64_t i) {
  if (is_packed(dtype)) return packed_code(p, dtype, i);
  if (dtype == DType::float16) return half_to_float(reinterpret_cast<const uint16_t*>(p)[i]);
  if (dtype == DType::bfloat16) return bfloat16_to_float(reinterpret_cast<const uint16_t*>(p)[i]);
  return visit(dtype, [&](auto zero) {
    return static_cast<double>(reinterpret_cast<const decltype(zero)*>(p)[i]);
  });
}

template <typename T>
T narrow(double v) {
  if constexpr (std::is_same_v<T, bool>)
    return v != 0;
  else if constexpr (std::is_integral_v<T>) {
    if (std::isnan(v)) return 0;
    if (v <= static_cast<double>(std::numeric_limits<T>::min()))
      return std::numeric_limits<T>::min();
    if (v >= static_cast<double>(std::numeric_limits<T>::max()))
      return std::numeric_limits<T>::max();
    return static_cast<T>(v);
  } else
    return static_cast<T>(v);
}

void store(std::byte* p, DType dtype, int64_t i, double v) {
  if (dtype == DType::float16)
    reinterpret_cast<uint16_t*>(p)[i] = float_to_half(static_cast<float>(v));
  else if (dtype == DType::bfloat16)
    reinterpret_cast<uint16_t*>(p)[i] = float_to_bfloat16(static_cast<float>(v));
  else
    visit(dtype,
          [&](auto zero) { reinterpret_cast<decltype(zero)*>(p)[i] = narrow<decltype(zero)>(v); });
}

bool dense(const Shape& shape, const std::vector<int64_t>& strides,
           const std::vector<int64_t>& wanted) {
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1 && strides[d] != wanted[d]) return false;
  return true;
}

}  // namespace

std::vector<int64_t> contiguous_strides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = step;
    step *= shape[d];
  }
  return strides;
}

std::vector<int64_t> channels_last_strides(const Shape& shape) {
  size_t dims = shape.size();
  OCTET_CHECK(dims >= 3 && dims <= 5, invalid_argument,
              "channels_last needs 3 to 5 dimensions, got shape {}", to_string(shape));
  std::vector<int64_t> strides(dims);
  strides[1] = 1;
  int64_t step = shape[1];
  for (size_t d = dims; d-- > 2;) {
    strides[d] = step;
    step *= shape[d];
  }
  strides[0] = step;
  return strides;
}

// -- making ---------------------------------------------------------------------------------------

Tensor Tensor::empty(const Shape& shape, DType dtype, QuantizerPtr quantizer, MemoryFormat format) {
  check_shape(shape);
  check_quantizer(shape, dtype, quantizer);
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->dtype = dtype;
  t.impl_->shape = shape;
  const bool channels_last = format == MemoryFormat::channels_last && !is_packed(dtype);
  t.impl_->strides = channels_last ? channels_last_strides(shape) : contiguous_strides(shape);
  t.impl_->buffer = Buffer::allocate(storage_bytes(dtype, octet::numel(shape)));
  t.impl_->quantizer = std::move(quantizer);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) { return full(shape, 0, dtype); }
Tensor Tensor::ones(const Shape& shape, DType dtype) { return full(shape, 1, dtype); }

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor t = empty(shape, dtype);
  const int64_t n = t.numel();
  if (n == 0) return t;
  std::byte* const out = t.buffer().data();
  store(out, dtype, 0, value);
  visit(dtype, [&](auto zero) {
    auto* elements = reinterpret_cast<decltype(zero)*>(out);
    std::fill(elements + 1, elements + n, elements[0]);
  });
  return t;
}

Tensor Tensor::arange(int64_t n, DType dtype) {
  Tensor t = empty({n}, dtype);
  for (int64_t i = 0; i < n; ++i) store(t.buffer().data(), dtype, i, static_cast<double>(i));
  return t;
}

Tensor Tensor::scalar(double value, DType dtype) { return full({}, value, dtype); }

template <typename T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  OCTET_CHECK(static_cast<int64_t>(values.size()) == octet::numel(shape), invalid_argument,
              "Tensor::from: {} values for shape {}", values.size(), to_string(shape));
  Tensor t = empty(shape, dtype_of<T>::value);
  T* out = t.data<T>();
  for (size_t i = 0; i < values.size(); ++i) out[i] = values[i];
  return t;
}

Tensor Tensor::randn(const Shape& shape, uint64_t seed) {
  Tensor t = empty(shape);
  Random random(seed);
  for (int64_t i = 0, n = t.numel(); i < n; ++i)
    t.data<float>()[i] = static_cast<float>(random.normal());
  return t;
}

Tensor Tensor::rand(const Shape& shape, uint64_t seed, double low, double high) {
  Tensor t = empty(shape);
  Random random(seed);
  for (int64_t i = 0, n = t.numel(); i < n; ++i)
    t.data<float>()[i] = static_cast<float>(random.uniform(low, high));
  return t;
}

Tensor Tensor::symbolic(const TensorType& type) {
  Shape shape = type.shape();
  check_shape(shape);
  check_quantizer(shape, type.dtype, type.quantizer);
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->dtype = type.dtype;
  t.impl_->strides = contiguous_strides(shape);
  t.impl_->shape = std::move(shape);
  t.impl_->quantizer = type.quantizer;
  t.impl_->symbolic = true;
  return t;
}

Tensor Tensor::wrap(Buffer buffer, const Shape& shape, DType dtype, QuantizerPtr quantizer,
                    std::vector<int64_t> strides) {
  check_shape(shape);
  check_quantizer(shape, dtype, quantizer);
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->strides = strides.empty() ? contiguous_strides(shape) : std::move(strides);
  int64_t last = octet::numel(shape) == 0 ? -1 : 0;
  for (size_t d = 0; d < shape.size() && last >= 0; ++d)
    last += (shape[d] - 1) * t.impl_->strides[d];
  OCTET_CHECK(!is_packed(dtype) || dense(shape, t.impl_->strides, contiguous_strides(shape)),
              invalid_argument, "Tensor::wrap: a {} tensor must be row-major", to_string(dtype));
  OCTET_CHECK(storage_bytes(dtype, last + 1) <= buffer.bytes(), invalid_argument,
              "Tensor::wrap: {} bytes hold less than a {} tensor of shape {}", buffer.bytes(),
              to_string(dtype), to_string(shape));
  t.impl_->dtype = dtype;
  t.impl_->shape = shape;
  t.impl_->buffer = std::move(buffer);
  t.impl_->quantizer = std::move(quantizer);
  return t;
}

// -- asking ---------------------------------------------------------------------------------------

namespace {
void need(bool defined) { OCTET_CHECK(defined, invalid_argument, "an undefined tensor was used"); }
}  // namespace

DType Tensor::dtype() const { return need(defined()), impl_->dtype; }
const Shape& Tensor::shape() const { return need(defined()), impl_->shape; }
const std::vector<int64_t>& Tensor::strides() const { return need(defined()), impl_->strides; }
int64_t Tensor::size(int64_t d) const { return shape()[wrap_dim(d, dim(), "size")]; }
int64_t Tensor::numel() const { return octet::numel(shape()); }
TensorType Tensor::type() const { return TensorType(dtype(), shape(), quantizer()); }

bool Tensor::is_contiguous(MemoryFormat format) const {
  // As dense() with contiguous_strides or channels_last_strides, without making them: programs ask
  // in every run.
  const Shape& s = shape();
  const auto& have = strides();
  int64_t step = 1;
  auto next = [&](size_t d) {
    bool ok = s[d] == 1 || have[d] == step;
    step *= s[d];
    return ok;
  };
  const bool last = format == MemoryFormat::channels_last;
  if (last && (dim() < 3 || dim() > 5 || !next(1))) return false;
  for (size_t d = s.size(); d-- > (last ? 2 : 0);)
    if (!next(d)) return false;
  return !last || next(0);
}

const QuantizerPtr& Tensor::quantizer() const { return need(defined()), impl_->quantizer; }

namespace {
const Quantizer& qparams(const Tensor& t, bool per_channel, const char* who) {
  OCTET_CHECK(t.is_quantized(), invalid_argument, "{}: the tensor is {}, not quantized", who,
              to_string(t.dtype()));
  OCTET_CHECK(t.quantizer()->is_per_channel() == per_channel, invalid_argument,
              "{}: the tensor is quantized {}", who, per_channel ? "per tensor" : "per channel");
  return *t.quantizer();
}
}  // namespace

QScheme Tensor::qscheme() const {
  OCTET_CHECK(is_quantized(), invalid_argument, "qscheme: the tensor is {}, not quantized",
              to_string(dtype()));
  return impl_->quantizer->scheme();
}
double Tensor::q_scale() const { return qparams(*this, false, "q_scale").scale(); }
int64_t Tensor::q_zero_point() const { return qparams(*this, false, "q_zero_point").zero_point(); }
const std::vector<double>& Tensor::q_per_channel_scales() const {
  return qparams(*this, true, "q_per_channel_scales").scales();
}
const std::vector<int64_t>& Tensor::q_per_channel_zero_points() const {
  return qparams(*this, true, "q_per_channel_zero_points").zero_points();
}
const std::vector<double>& Tensor::q_per_channel_float_zero_points() const {
  const Quantizer& q = qparams(*this, true, "q_per_channel_float_zero_points");
  OCTET_CHECK(q.has_float_zero_points(), invalid_argument,
              "q_per_channel_float_zero_points: the tensor has whole zero points: "
              "q_per_channel_zero_points");
  return q.float_zero_points();
}
int64_t Tensor::q_per_channel_axis() const {
  return qparams(*this, true, "q_per_channel_axis").axis();
}

Tensor Tensor::int_repr() const {
  OCTET_CHECK(is_quantized(), invalid_argument, "int_repr: the tensor is {}, not quantized",
              to_string(dtype()));
  if (is_packed(dtype())) {
    Tensor codes = empty(shape(), code_dtype(dtype()));
    auto* out = static_cast<uint8_t*>(codes.raw_data());
    const auto* in = static_cast<const std::byte*>(raw_data());
    for (int64_t i = 0, n = numel(); i < n; ++i)
      out[i] = static_cast<uint8_t>(packed_code(in, dtype(), i));
    return codes;
  }
  Tensor t;
  t.impl_ = std::make_shared<Impl>(*impl_);
  t.impl_->dtype = code_dtype(dtype());
  t.impl_->quantizer = nullptr;
  t.impl_->autograd = t.impl_->trace = nullptr;
  return t;
}

Tensor Tensor::dequantize() const {
  if (!is_quantized()) return to(DType::float32);
  if (Tensor y; has_slots() && hooked("dequantize", {}, y)) return y;
  if (is_packed(dtype())) return make_quantized(int_repr(), impl_->quantizer).dequantize();
  Tensor y = wrap(Buffer::allocate(numel() * 4), shape(), DType::float32);
  float* out = y.data<float>();
  const Quantizer& q = *impl_->quantizer;
  visit(dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T> && sizeof(T) <= sizeof(int32_t) &&
                  !std::is_same_v<T, bool>) {
      const T* in = reinterpret_cast<const T*>(raw_data());
      if (!q.is_per_channel()) {
        float scale = static_cast<float>(q.scale());
        auto z = static_cast<int32_t>(q.zero_point());
        for_each2(shape(), strides(), y.strides(),
                  [&](int64_t a, int64_t b) { out[b] = affine::dequantize(in[a], scale, z); });
      } else {
        int64_t channels = shape()[q.axis()], step = y.strides()[q.axis()];
        if (q.has_float_zero_points()) {
          for_each2(shape(), strides(), y.strides(), [&](int64_t a, int64_t b) {
            int64_t c = b / step % channels;
            out[b] = affine::dequantize_float(in[a], static_cast<float>(q.scale(c)),
                                              static_cast<float>(q.float_zero_points()[c]));
          });
          return;
        }
        for_each2(shape(), strides(), y.strides(), [&](int64_t a, int64_t b) {
          int64_t c = b / step % channels;
          // In double with the double scale, then rounded: PyTorch's per-channel rule.
          out[b] = static_cast<float>(static_cast<double>(in[a] - q.zero_point(c)) * q.scale(c));
        });
      }
    }
  });
  return y;
}

// -- data -----------------------------------------------------------------------------------------

namespace {
Tensor::SymbolicHook g_symbolic_hook = nullptr;
}

void Tensor::set_symbolic_hook(SymbolicHook hook) { g_symbolic_hook = hook; }

bool Tensor::is_symbolic() const { return need(defined()), impl_->symbolic; }

void Tensor::need_data(std::source_location where) const {
  if (!impl_->symbolic) return;
  OCTET_FAIL(invalid_argument, "{}:{}: the numbers of a tensor are asked for that has none{}",
             where.file_name(), where.line(), g_symbolic_hook ? ": " + g_symbolic_hook(*this) : "");
}

template <typename T>
const T* Tensor::data(std::source_location where) const {
  need(defined());
  need_data(where);
  OCTET_CHECK(!is_packed(dtype()), invalid_argument,
              "data: a {} tensor has two codes to a byte: use int_repr()", to_string(dtype()));
  DType d = octet::is_quantized(dtype()) ? code_dtype(dtype()) : dtype();
  OCTET_CHECK(d == dtype_of<T>::value, invalid_argument, "data<{}>: the tensor is {}",
              to_string(dtype_of<T>::value), to_string(dtype()));
  return static_cast<const T*>(raw_data());
}

template <typename T>
T* Tensor::data(std::source_location where) {
  return const_cast<T*>(static_cast<const Tensor*>(this)->data<T>(where));
}

void* Tensor::raw_data(std::source_location where) const {
  need(defined());
  need_data(where);
  return impl_->buffer.data() + impl_->offset * static_cast<int64_t>(element_size(impl_->dtype));
}

const Buffer& Tensor::buffer() const { return need(defined()), impl_->buffer; }

double Tensor::item(std::source_location where) const {
  OCTET_CHECK(numel() == 1, invalid_argument, "item: the tensor has shape {}; expected one element",
              to_string(shape()));
  return at(std::vector<int64_t>(dim(), 0), where);
}

double Tensor::at(const std::vector<int64_t>& index, std::source_location where) const {
  need(defined());
  need_data(where);
  OCTET_CHECK(static_cast<int64_t>(index.size()) == dim(), invalid_argument,
              "at: {} indices for shape {}", index.size(), to_string(shape()));
  int64_t offset = 0;
  for (int64_t d = 0; d < dim(); ++d) {
    OCTET_CHECK(index[d] >= 0 && index[d] < shape()[d], invalid_argument,
                "at: index {} of dimension {} in shape {}", index[d], d, to_string(shape()));
    offset += index[d] * strides()[d];
  }
  double v = load(static_cast<const std::byte*>(raw_data()), dtype(), offset);
  if (!is_quantized()) return v;
  const Quantizer& q = *impl_->quantizer;
  if (!q.is_per_channel())
    return affine::dequantize(static_cast<int32_t>(v), static_cast<float>(q.scale()),
                              static_cast<int32_t>(q.zero_point()));
  int64_t c = index[q.axis()];
  if (q.has_float_zero_points())
    return affine::dequantize_float(static_cast<int32_t>(v), static_cast<float>(q.scale(c)),
                                    static_cast<float>(q.float_zero_points()[c]));
  return static_cast<float>((v - static_cast<double>(q.zero_point(c))) * q.scale(c));
}

template <typename T>
std::vector<T> Tensor::to_vector(std::source_location where) const {
  need(defined());
  need_data(where);
  if (is_packed(dtype())) return int_repr().to_vector<T>();
  std::vector<T> out(numel());
  const T* in = data<T>();
  for_each2(shape(), strides(), contiguous_strides(shape()),
            [&](int64_t a, int64_t b) { out[b] = in[a]; });
  return out;
}

#define OCTET_INSTANTIATE(T)                                            \
  template Tensor Tensor::from<T>(const std::vector<T>&, const Shape&); \
  template const T* Tensor::data<T>(std::source_location) const;        \
  template T* Tensor::data<T>(std::source_location);                    \
  template std::vector<T> Tensor::to_vector<T>(std::source_location) const;
OCTET_INSTANTIATE(float)
OCTET_INSTANTIATE(double)
OCTET_INSTANTIATE(int64_t)
OCTET_INSTANTIATE(int32_t)
OCTET_INSTANTIATE(int16_t)
OCTET_INSTANTIATE(uint16_t)
OCTET_INSTANTIATE(int8_t)
OCTET_INSTANTIATE(uint8_t)
OCTET_INSTANTIATE(bool)
#undef OCTET_INSTANTIATE

// -- views and copies -----------------------------------------------------------------------------

Tensor Tensor::view(Shape shape, std::vector<int64_t> strides, int64_t offset,
                    QuantizerPtr quantizer) const {
  if (is_packed(dtype()) && (offset != 0 || !dense(shape, strides, contiguous_strides(shape))))
    return pack(int_repr().view(std::move(shape), std::move(strides), offset, nullptr), quantizer,
                dtype());
  Tensor t;
  t.impl_ = std::make_shared<Impl>();
  t.impl_->dtype = impl_->dtype;
  t.impl_->shape = std::move(shape);
  t.impl_->strides = std::move(strides);
  t.impl_->buffer = impl_->buffer;
  t.impl_->offset = impl_->offset + offset;
  t.impl_->quantizer = std::move(quantizer);
  t.impl_->symbolic = impl_->symbolic;
  return t;
}

void Tensor::copy_from(const Tensor& source) {
  OCTET_CHECK(source.shape() == shape() && source.dtype() == dtype(), invalid_argument,
              "copy_from: {} {} into {} {}", to_string(source.dtype()), to_string(source.shape()),
              to_string(dtype()), to_string(shape()));
  bool same_layout = (is_contiguous() && source.is_contiguous()) ||
                     (is_contiguous(MemoryFormat::channels_last) &&
                      source.is_contiguous(MemoryFormat::channels_last));
  if (same_layout) {
    if (numel()) std::memmove(raw_data(), source.raw_data(), nbytes());
    return;
  }
  visit(dtype(), [&](auto zero) {
    using T = decltype(zero);
    copy_elements(shape(), source.strides(), strides(), static_cast<const T*>(source.raw_data()),
                  static_cast<T*>(raw_data()));
  });
}

Tensor Tensor::clone(MemoryFormat format) const {
  bool last = format == MemoryFormat::channels_last;
  if (Tensor y; has_slots() && hooked("clone", {{"channels_last", last}}, y)) return y;
  Tensor t = empty(shape(), dtype(), quantizer(), format);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::contiguous(MemoryFormat format) const {
  return is_contiguous(format) ? *this : clone(format);
}

Tensor Tensor::reshape(Shape shape) const {
  if (Tensor y; has_slots() && hooked("reshape", {{"shape", shape}}, y)) return y;
  int64_t known = 1, unknown = -1;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == -1) {
      OCTET_CHECK(unknown < 0, invalid_argument, "reshape to {}: only one size may be -1",
                  to_string(shape));
      unknown = static_cast<int64_t>(d);
    } else
      known *= shape[d];
  }
  if (unknown >= 0) {
    OCTET_CHECK(known > 0 && numel() % known == 0, invalid_argument,
                "reshape: shape {} does not divide into {}", to_string(this->shape()),
                to_string(shape));
    shape[unknown] = numel() / known;
  }
  for (int64_t d : shape)
    OCTET_CHECK(d >= 0, invalid_argument, "reshape to {}: sizes must not be negative",
                to_string(shape));
  OCTET_CHECK(octet::numel(shape) == numel(), invalid_argument,
              "reshape: shape {} has {} elements, {} has {}", to_string(this->shape()), numel(),
              to_string(shape), octet::numel(shape));
  QuantizerPtr quantizer = impl_->quantizer;
  if (quantizer && quantizer->is_per_channel()) {
    // The axis survives if some new dimension has its size and the same number of elements before
    // it.
    int64_t before = 1;
    for (int64_t d = 0; d < quantizer->axis(); ++d) before *= this->shape()[d];
    int64_t axis = -1, product = 1;
    for (size_t d = 0; d < shape.size() && axis < 0; product *= shape[d++])
      if (product == before && shape[d] == this->shape()[quantizer->axis()])
        axis = static_cast<int64_t>(d);
    OCTET_CHECK(axis >= 0, invalid_argument,
                "reshape: the channel axis {} of shape {} does not survive in {}",
                quantizer->axis(), to_string(this->shape()), to_string(shape));
    quantizer = quantizer->with_axis(axis);
  }
  Tensor source = contiguous();
  auto strides = contiguous_strides(shape);
  return source.view(std::move(shape), std::move(strides), 0, std::move(quantizer));
}

Tensor Tensor::permute(const std::vector<int64_t>& dims) const {
  if (Tensor y; has_slots() && hooked("permute", {{"dims", dims}}, y)) return y;
  OCTET_CHECK(static_cast<int64_t>(dims.size()) == dim(), invalid_argument,
              "permute: {} dimensions for shape {}", dims.size(), to_string(shape()));
  Shape new_shape(dims.size());
  std::vector<int64_t> new_strides(dims.size());
  std::vector<bool> seen(dims.size());
  QuantizerPtr quantizer = impl_->quantizer;
  for (size_t d = 0; d < dims.size(); ++d) {
    int64_t from = wrap_dim(dims[d], dim(), "permute");
    OCTET_CHECK(!seen[from], invalid_argument, "permute: dimension {} is repeated", from);
    seen[from] = true;
    new_shape[d] = shape()[from];
    new_strides[d] = strides()[from];
    if (quantizer && quantizer->is_per_channel() && impl_->quantizer->axis() == from)
      quantizer = impl_->quantizer->with_axis(static_cast<int64_t>(d));
  }
  return view(std::move(new_shape), std::move(new_strides), 0, std::move(quantizer));
}

Tensor Tensor::transpose(int64_t a, int64_t b) const {
  std::vector<int64_t> dims(dim());
  for (size_t d = 0; d < dims.size(); ++d) dims[d] = static_cast<int64_t>(d);
  std::swap(dims[wrap_dim(a, dim(), "transpose")], dims[wrap_dim(b, dim(), "transpose")]);
  return permute(dims);
}

Tensor Tensor::slice(int64_t d, int64_t start, int64_t end, int64_t step) const {
  if (Tensor y; has_slots() &&
                hooked("slice", {{"dim", d}, {"start", start}, {"end", end}, {"step", step}}, y))
    return y;
  d = wrap_dim(d, dim(), "slice");
  OCTET_CHECK(step >= 1, invalid_argument, "slice: step {}; expected 1 or more", step);
  int64_t n = shape()[d];
  step = std::min(step, std::max<int64_t>(n, 1));  // the same elements, and no overflow below
  if (start < 0) start += n;
  if (end < 0) end += n;
  start = std::clamp<int64_t>(start, 0, n);
  end = std::clamp<int64_t>(end, start, n);
  Shape new_shape = shape();
  auto new_strides = strides();
  new_shape[d] = (end - start + step - 1) / step;
  int64_t offset = new_shape[d] ? start * new_strides[d] : 0;
  new_strides[d] *= step;
  QuantizerPtr quantizer = impl_->quantizer;
  if (quantizer && quantizer->is_per_channel() && quantizer->axis() == d) {
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    for (int64_t c = start; c < end; c += step) {
      scales.push_back(quantizer->scale(c));
      zeros.push_back(quantizer->zero_point(c));
    }
    quantizer = Quantizer::per_channel(scales, zeros, d, dtype());
  }
  return view(std::move(new_shape), std::move(new_strides), offset, std::move(quantizer));
}

Tensor Tensor::select(int64_t d, int64_t index) const {
  d = wrap_dim(d, dim(), "select");
  int64_t n = shape()[d];
  OCTET_CHECK(index >= -n && index < n, invalid_argument,
              "select: index {} of dimension {} in shape {}", index, d, to_string(shape()));
  // Counted from the end if asked so: a trace then holds for other sizes.
  return slice(d, index, index == -1 ? n : index + 1).squeeze(d);
}

Tensor Tensor::squeeze(int64_t d) const {
  d = wrap_dim(d, dim(), "squeeze");
  if (shape()[d] != 1) return *this;
  if (Tensor y; has_slots() && hooked("squeeze", {{"dim", d}}, y)) return y;
  Shape new_shape = shape();
  auto new_strides = strides();
  new_shape.erase(new_shape.begin() + d);
  new_strides.erase(new_strides.begin() + d);
  QuantizerPtr quantizer = impl_->quantizer;
  if (quantizer && quantizer->is_per_channel()) {
    if (quantizer->axis() == d)
      quantizer = Quantizer::per_tensor(quantizer->scale(0), quantizer->zero_point(0), dtype());
    else if (quantizer->axis() > d)
      quantizer = quantizer->with_axis(quantizer->axis() - 1);
  }
  return view(std::move(new_shape), std::move(new_strides), 0, std::move(quantizer));
}

Tensor Tensor::unsqueeze(int64_t d) const {
  if (Tensor y; has_slots() && hooked("unsqueeze", {{"dim", d}}, y)) return y;
  d = wrap_dim(d, dim() + 1, "unsqueeze");
  Shape new_shape = shape();
  auto new_strides = strides();
  new_shape.insert(new_shape.begin() + d, 1);
  new_strides.insert(new_strides.begin() + d, d < dim() ? shape()[d] * strides()[d] : 1);
  QuantizerPtr quantizer = impl_->quantizer;
  if (quantizer && quantizer->is_per_channel() && quantizer->axis() >= d)
    quantizer = quantizer->with_axis(quantizer->axis() + 1);
  return view(std::move(new_shape), std::move(new_strides), 0, std::move(quantizer));
}

Tensor Tensor::flatten(int64_t start, int64_t end) const {
  if (dim() == 0) return reshape({1});
  start = wrap_dim(start, dim(), "flatten");
  end = wrap_dim(end, dim(), "flatten");
  OCTET_CHECK(start <= end, invalid_argument, "flatten: start {} is after end {}", start, end);
  if (Tensor y; has_slots() && hooked("flatten", {{"start_dim", start}, {"end_dim", end}}, y))
    return y;
  Shape new_shape(shape().begin(), shape().begin() + start);
  int64_t product = 1;
  for (int64_t d = start; d <= end; ++d) product *= shape()[d];
  new_shape.push_back(product);
  new_shape.insert(new_shape.end(), shape().begin() + end + 1, shape().end());
  return reshape(std::move(new_shape));
}

Tensor Tensor::expand(const Shape& target) const {
  if (Tensor y; has_slots() && hooked("expand", {{"shape", target}}, y)) return y;
  int64_t extra = static_cast<int64_t>(target.size()) - dim();
  OCTET_CHECK(extra >= 0, invalid_argument, "expand: shape {} to {}", to_string(shape()),
              to_string(target));
  for (int64_t d : target)
    OCTET_CHECK(d >= 0, invalid_argument, "expand: shape {} to {}", to_string(shape()),
                to_string(target));
  check_shape(target);
  std::vector<int64_t> new_strides(target.size(), 0);
  for (int64_t d = 0; d < dim(); ++d) {
    OCTET_CHECK(shape()[d] == target[d + extra] || shape()[d] == 1, invalid_argument,
                "expand: shape {} to {}", to_string(shape()), to_string(target));
    if (shape()[d] == target[d + extra]) new_strides[d + extra] = strides()[d];
  }
  QuantizerPtr quantizer = impl_->quantizer;
  if (quantizer && quantizer->is_per_channel()) {
    int64_t axis = quantizer->axis() + extra;
    auto channels = static_cast<size_t>(target[axis]);
    if (channels == quantizer->scales().size())
      quantizer = quantizer->with_axis(axis);
    else  // one channel, repeated
      quantizer = Quantizer::per_channel(std::vector<double>(channels, quantizer->scale()),
                                         std::vector<int64_t>(channels, quantizer->zero_point()),
                                         axis, dtype());
  }
  return view(target, std::move(new_strides), 0, std::move(quantizer));
}

Tensor Tensor::to(DType target) const {
  if (target == dtype()) return *this;
  if (Tensor y; has_slots() && hooked("to", {{"dtype", std::string(to_string(target))}}, y))
    return y;
  OCTET_CHECK(!is_quantized() && !octet::is_quantized(target), invalid_argument,
              "to({}): the tensor is {}; use quantize_per_tensor or dequantize", to_string(target),
              to_string(dtype()));
  Tensor y = empty(shape(), target);
  const auto* in = static_cast<const std::byte*>(raw_data());
  auto* out = static_cast<std::byte*>(y.raw_data());
  bool half = target == DType::float16 || target == DType::bfloat16 || dtype() == DType::float16 ||
              dtype() == DType::bfloat16;
  if (half) {
    for_each2(shape(), strides(), y.strides(),
              [&](int64_t a, int64_t b) { store(out, target, b, load(in, dtype(), a)); });
    return y;
  }
  visit(dtype(), [&](auto from) {
    visit(target, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const auto* source = reinterpret_cast<const From*>(in);
      auto* target_data = reinterpret_cast<To*>(out);
      for_each2(shape(), strides(), y.strides(), [&](int64_t a, int64_t b) {
        // Through double only where needed: int64 -> int64 sizes keep all their bits.
        if constexpr (std::is_integral_v<From> && !std::is_same_v<To, bool>)
          target_data[b] = static_cast<To>(source[a]);
        else
          target_data[b] = narrow<To>(static_cast<double>(source[a]));
      });
    });
  });
  return y;
}

namespace {
Tensor::MethodHook g_method_hook = nullptr;
}

void Tensor::set_method_hook(MethodHook hook) { g_method_hook = hook; }

bool Tensor::has_slots() const { return impl_ && (impl_->autograd || impl_->trace); }

bool Tensor::hooked(const char* op, const Attrs& attrs, Tensor& result) const {
  if (!g_method_hook) return false;
  result = g_method_hook(op, *this, attrs);
  return true;
}

Tensor Tensor::detach() const {
  need(defined());
  Tensor t = view(impl_->shape, impl_->strides, 0, impl_->quantizer);
  if (impl_->symbolic) t.impl_->trace = impl_->trace;  // all that there is of it
  return t;
}

std::shared_ptr<void>& Tensor::autograd_slot() const { return need(defined()), impl_->autograd; }
std::shared_ptr<void>& Tensor::packed_slot() const { return need(defined()), impl_->packed; }
std::shared_ptr<void>& Tensor::trace_slot() const { return need(defined()), impl_->trace; }

// -- comparing ------------------------------------------------------------------------------------

bool equal(const Tensor& a, const Tensor& b) {
  if (a.type() != b.type()) return false;
  // the bits behind an odd last element do not count
  if (is_packed(a.dtype())) return equal(a.int_repr(), b.int_repr());
  Tensor x = a.contiguous(), y = b.contiguous();
  if (a.numel() == 0 || std::memcmp(x.raw_data(), y.raw_data(), a.nbytes()) == 0) return true;
  if (!is_floating(a.dtype())) return false;
  const auto *p = static_cast<const std::byte*>(x.raw_data()),
             *q = static_cast<const std::byte*>(y.raw_data());
  for (int64_t i = 0, n = a.numel(); i < n; ++i) {
    double u = load(p, a.dtype(), i), v = load(q, a.dtype(), i);
    if (!(u == v || (std::isnan(u) && std::isnan(v)))) return false;
  }
  return true;
}

bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol) {
  if (a.shape() != b.shape()) return false;
  Tensor x = a.dequantize().contiguous(), y = b.dequantize().contiguous();
  for (int64_t i = 0, n = x.numel(); i < n; ++i) {
    double u = x.data<float>()[i], v = y.data<float>()[i];
    if (u == v || (std::isnan(u) && std::isnan(v))) continue;
    // An infinity is close to itself only, though the bound is infinite too.
    if (std::isinf(u) || std::isinf(v) || !(std::abs(u - v) <= atol + rtol * std::abs(v)))
      return false;
  }
  return true;
}

// -- quantizing -----------------------------------------------------------------------------------

namespace {
// The codes of `dtype` into y, which holds them one by one.
void quantize_codes(const Tensor& x, const Quantizer& q, DType dtype, Tensor& y);
}  // namespace

Tensor quantize(const Tensor& x, const QuantizerPtr& quantizer, DType dtype) {
  OCTET_CHECK(is_floating(x.dtype()), invalid_argument,
              "quantize: the tensor is {}; expected a floating dtype", to_string(x.dtype()));
  if (is_packed(dtype)) {
    check_quantizer(x.shape(), dtype, quantizer);
    Tensor codes = Tensor::empty(x.shape(), code_dtype(dtype));
    quantize_codes(x, *quantizer, dtype, codes);
    return pack(codes, quantizer, dtype);
  }
  Tensor y = Tensor::empty(x.shape(), dtype, quantizer);
  quantize_codes(x, *quantizer, dtype, y);
  return y;
}

namespace {

void quantize_codes(const Tensor& x, const Quantizer& q, DType dtype, Tensor& y) {
  Tensor source = x.to(DType::float32);
  const float* in = source.data<float>();
  auto lo = static_cast<int32_t>(qmin(dtype)), hi = static_cast<int32_t>(qmax(dtype));
  int64_t channels = q.is_per_channel() ? x.shape()[q.axis()] : 1,
          step = q.is_per_channel() ? y.strides()[q.axis()] : 1;
  visit(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    auto* out = static_cast<T*>(y.raw_data());
    for_each2(x.shape(), source.strides(), y.strides(), [&](int64_t a, int64_t b) {
      int64_t c = q.is_per_channel() ? b / step % channels : 0;
      const auto scale = static_cast<float>(q.scale(c));
      out[b] = static_cast<T>(
          q.has_float_zero_points()
              ? affine::quantize_float(in[a], scale, static_cast<float>(q.float_zero_points()[c]),
                                       lo, hi)
              : affine::quantize(in[a], scale, static_cast<int32_t>(q.zero_point(c)), lo, hi));
    });
  });
}

}  // namespace

Tensor quantize_per_tensor(const Tensor& x, double scale, int64_t zero_point, DType dtype) {
  return quantize(x, Quantizer::per_tensor(scale, zero_point, dtype), dtype);
}

Tensor quantize_per_channel(const Tensor& x, const std::vector<double>& scales,
                            const std::vector<int64_t>& zero_points, int64_t axis, DType dtype) {
  return quantize(x,
                  Quantizer::per_channel(scales, zero_points,
                                         wrap_dim(axis, x.dim(), "quantize_per_channel"), dtype),
                  dtype);
}

Tensor quantize_per_channel_float(const Tensor& x, const std::vector<double>& scales,
                                  const std::vector<double>& zero_points, int64_t axis,
                                  DType dtype) {
  return quantize(
      x,
      Quantizer::per_channel_float(scales, zero_points,
                                   wrap_dim(axis, x.dim(), "quantize_per_channel_float"), dtype),
      dtype);
}

Tensor make_quantized(const Tensor& codes, QuantizerPtr quantizer, DType dtype) {
  OCTET_CHECK(codes.dtype() == code_dtype(dtype), invalid_argument,
              "make_quantized: {} codes for {}; expected {}", to_string(codes.dtype()),
              to_string(dtype), to_string(code_dtype(dtype)));
  if (!is_packed(dtype)) return make_quantized(codes, std::move(quantizer));
  check_quantizer(codes.shape(), dtype, quantizer);
  Tensor source = codes.contiguous();
  for (int64_t i = 0, n = codes.numel(); i < n; ++i) {
    double q = load(static_cast<const std::byte*>(source.raw_data()), source.dtype(), i);
    OCTET_CHECK(q >= static_cast<double>(qmin(dtype)) && q <= static_cast<double>(qmax(dtype)),
                invalid_argument, "make_quantized: code {} at element {}; {} holds {}..{}", q, i,
                to_string(dtype), qmin(dtype), qmax(dtype));
  }
  return pack(source, quantizer, dtype);
}

Tensor make_quantized(const Tensor& codes, QuantizerPtr quantizer) {
  const DType dtype = quantized_dtype(codes.dtype());
  Tensor source = codes.contiguous();
  auto* start = static_cast<std::byte*>(source.raw_data());
  auto owner = std::make_shared<Buffer>(source.buffer());
  return Tensor::wrap(Buffer::wrap(start, source.nbytes(), owner), codes.shape(), dtype,
                      std::move(quantizer));
}

}  // namespace octet
