#pragma once
// Tensors: a handle on a typed, strided block of numbers, quantized or not.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include "octet/base/buffer.h"
#include "octet/tensor/attrs.h"
#include "octet/tensor/dtype.h"
#include "octet/tensor/quantizer.h"
#include "octet/tensor/type.h"

namespace octet {

enum class MemoryFormat {
  contiguous,    // row-major
  channels_last  // NHWC (4-d) or NWC, NDHWC: the shape stays (N, C, ...), only the strides differ
};

// A Tensor is a handle: copies share the data, as in PyTorch; clone() copies it. A
// default-constructed Tensor is "undefined" and only defined() may be asked of it. Views (reshape,
// slice, transpose, ...) share the data too.
//
// A quantized tensor (quint8, qint8, quint16, qint16, qint32) holds integer codes and a Quantizer
// that says what they mean. Packed ones (quint4x2, qint4x2) are always row-major, so of those all
// views but reshapes are copies.
class Tensor {
 public:
  Tensor() = default;

  // -- making ----------------------------------------------------------------------------------
  // Uninitialised. A quantized dtype needs a quantizer; per channel, one scale per slice along its
  // axis.
  static Tensor empty(const Shape& shape, DType dtype = DType::float32,
                      QuantizerPtr quantizer = nullptr,
                      MemoryFormat format = MemoryFormat::contiguous);
  static Tensor zeros(const Shape& shape, DType dtype = DType::float32);
  static Tensor ones(const Shape& shape, DType dtype = DType::float32);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::float32);
  static Tensor arange(int64_t n, DType dtype = DType::int64);       // 0, 1, ... n-1
  static Tensor scalar(double value, DType dtype = DType::float32);  // shape ()
  // Copies values (row-major); their number must be numel(shape).
  template <typename T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);
  template <typename T>
  static Tensor from(std::initializer_list<T> values) {
    return from(std::vector<T>(values), {static_cast<int64_t>(values.size())});
  }
  // Normal and uniform random float32 values of a fixed, portable generator.
  static Tensor randn(const Shape& shape, uint64_t seed);
  static Tensor rand(const Shape& shape, uint64_t seed, double low = 0, double high = 1);
  // Wraps a buffer (row-major unless strides are given) without copying it.
  static Tensor wrap(Buffer buffer, const Shape& shape, DType dtype,
                     QuantizerPtr quantizer = nullptr, std::vector<int64_t> strides = {});
  // A tensor of that type (static dims) without data: what a model is traced with. Whatever needs
  // the data is an Error.
  static Tensor symbolic(const TensorType& type);

  // -- asking ----------------------------------------------------------------------------------
  bool defined() const { return impl_ != nullptr; }
  DType dtype() const;
  const Shape& shape() const;
  const std::vector<int64_t>& strides() const;  // in elements
  int64_t dim() const { return static_cast<int64_t>(shape().size()); }
  int64_t size(int64_t d) const;  // negative d counts from the end
  int64_t numel() const;
  int64_t nbytes() const { return static_cast<int64_t>(storage_bytes(dtype(), numel())); }
  TensorType type() const;
  bool is_quantized() const { return octet::is_quantized(dtype()); }
  bool is_contiguous(MemoryFormat format = MemoryFormat::contiguous) const;
  bool is_symbolic() const;  // without data

  // -- qparams (quantized tensors; Error otherwise) -----------------------------------------------
  const QuantizerPtr& quantizer() const;  // null for plain tensors
  QScheme qscheme() const;
  double q_scale() const;        // per tensor
  int64_t q_zero_point() const;  // per tensor
  const std::vector<double>& q_per_channel_scales() const;
  const std::vector<int64_t>& q_per_channel_zero_points() const;
  int64_t q_per_channel_axis() const;
  const std::vector<double>& q_per_channel_float_zero_points() const;  // with float qparams
  // The codes as a plain integer tensor (uint8, int8, uint16, int16, int32) that shares the memory;
  // of packed dtypes, an unpacked copy.
  Tensor int_repr() const;
  // float32 values; a plain tensor is converted to float32.
  Tensor dequantize() const;

  // -- data ------------------------------------------------------------------------------------
  // The first element. T must be the dtype's C++ type, or the code type of a quantized dtype; Error
  // otherwise, and for packed dtypes. Elements are at data[sum of index[d]*strides()[d]]. `where`,
  // here and below, is for the Error that a symbolic tensor gives: the line that asked.
  template <typename T>
  T* data(std::source_location where = std::source_location::current());
  template <typename T>
  const T* data(std::source_location where = std::source_location::current()) const;
  void* raw_data(std::source_location where = std::source_location::current()) const;
  const Buffer& buffer() const;
  // the only element, as a number (dequantized)
  double item(std::source_location where = std::source_location::current()) const;
  double at(const std::vector<int64_t>& index,
            std::source_location where = std::source_location::current()) const;
  template <typename T>
  // row-major copy
  std::vector<T> to_vector(std::source_location where = std::source_location::current()) const;

  // -- views and copies --------------------------------------------------------------------------
  Tensor clone(MemoryFormat format = MemoryFormat::contiguous) const;
  // itself if it is already
  Tensor contiguous(MemoryFormat format = MemoryFormat::contiguous) const;
  // A view if strides allow, a row-major copy otherwise; one size may be -1. Per-channel tensors
  // keep their axis only if that dimension survives; Error otherwise.
  Tensor reshape(Shape shape) const;
  // PyTorch's name; copies where strides do not allow a view
  Tensor view(Shape shape) const { return reshape(std::move(shape)); }
  Tensor permute(const std::vector<int64_t>& dims) const;
  Tensor transpose(int64_t a, int64_t b) const;
  // step >= 1; bounds clamp, negatives wrap
  Tensor slice(int64_t d, int64_t start, int64_t end, int64_t step = 1) const;
  Tensor select(int64_t d, int64_t index) const;  // drops dimension d
  Tensor squeeze(int64_t d) const;
  Tensor unsqueeze(int64_t d) const;
  Tensor flatten(int64_t start = 0, int64_t end = -1) const;
  Tensor expand(const Shape& shape) const;  // broadcasts by stride 0
  // Plain dtypes only; rounds toward zero to integers, float16 and bfloat16 half to even.
  Tensor to(DType dtype) const;
  // Copies the elements of source (same shape and dtype, any strides) into this tensor.
  void copy_from(const Tensor& source);

  // -- operators as methods, under PyTorch's names ------------------------------------------------
  // Each is the function of the same name in octet::functional (ops/functional.h), defined there:
  // recorded by autograd, seen by tracing. x += y is x = x + y: x becomes a handle of a new tensor,
  // and other handles of the old one keep it.
  Tensor relu() const;
  Tensor sigmoid() const;
  Tensor tanh() const;
  Tensor exp() const;
  Tensor log() const;
  Tensor sqrt() const;
  Tensor abs() const;
  Tensor neg() const;
  Tensor pow(double exponent) const;
  Tensor clamp(double min, double max) const;
  Tensor softmax(int64_t dim) const;
  Tensor log_softmax(int64_t dim) const;
  // dims empty: over all of them.
  Tensor sum(const std::vector<int64_t>& dims = {}, bool keepdim = false) const;
  Tensor mean(const std::vector<int64_t>& dims = {}, bool keepdim = false) const;
  Tensor amax(const std::vector<int64_t>& dims = {}, bool keepdim = false) const;
  Tensor amin(const std::vector<int64_t>& dims = {}, bool keepdim = false) const;
  Tensor argmax(int64_t dim, bool keepdim = false) const;
  Tensor add(const Tensor& other) const;
  Tensor sub(const Tensor& other) const;
  Tensor mul(const Tensor& other) const;
  Tensor div(const Tensor& other) const;
  Tensor matmul(const Tensor& other) const;
  std::vector<Tensor> chunk(int64_t chunks, int64_t dim = 0) const;
  std::vector<Tensor> split(const std::vector<int64_t>& sizes, int64_t dim = 0) const;
  Tensor t() const;  // of at most two dimensions: transposed
  Tensor& operator+=(const Tensor& other);
  Tensor& operator-=(const Tensor& other);
  Tensor& operator*=(const Tensor& other);
  Tensor& operator/=(const Tensor& other);
  Tensor& operator+=(double value);
  Tensor& operator-=(double value);
  Tensor& operator*=(double value);
  Tensor& operator/=(double value);

  // Equal for handles that are copies of each other, and only for them (views have their own).
  const void* id() const { return impl_.get(); }
  // Another handle on the same data, of which autograd and tracing know nothing.
  Tensor detach() const;

  // Opaque hooks for the floors above: autograd's and tracing's state. This floor only carries
  // them.
  std::shared_ptr<void>& autograd_slot() const;
  std::shared_ptr<void>& trace_slot() const;
  bool has_slots() const;  // either is set
  // What engines packed this tensor into (a quantized weight): made at its first use, kept as long
  // as the tensor. Its data must not be changed after that.
  std::shared_ptr<void>& packed_slot() const;
  // Where methods of tensors with a set slot go instead, as calls of the operator of the same name:
  // set once, by ops.
  using MethodHook = Tensor (*)(const char* op, const Tensor& x, const Attrs& attrs);
  static void set_method_hook(MethodHook hook);
  // Whom to ask why a tensor has no data, for the Error: set once, by the tracer.
  using SymbolicHook = std::string (*)(const Tensor& x);
  static void set_symbolic_hook(SymbolicHook hook);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
  void need_data(std::source_location where) const;  // Error if it is symbolic
  bool hooked(const char* op, const Attrs& attrs, Tensor& result) const;
  Tensor view(Shape shape, std::vector<int64_t> strides, int64_t offset,
              QuantizerPtr quantizer) const;
};

// Same dtype, shape, qparams and bits (NaN equals NaN); strides do not matter.
bool equal(const Tensor& a, const Tensor& b);
// |a - b| <= atol + rtol*|b| everywhere, on dequantized values of equal shape.
bool allclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8);

// Row-major strides of a shape, and channels-last ones (3 to 5 dimensions).
std::vector<int64_t> contiguous_strides(const Shape& shape);
std::vector<int64_t> channels_last_strides(const Shape& shape);

// -- quantizing -----------------------------------------------------------------------------------
// q = clamp(rne(x/scale) + zero_point) element by element (affine.h); dtype is any quantized one.
Tensor quantize_per_tensor(const Tensor& x, double scale, int64_t zero_point, DType dtype);
// The same with the scale and zero point of each slice along axis.
Tensor quantize_per_channel(const Tensor& x, const std::vector<double>& scales,
                            const std::vector<int64_t>& zero_points, int64_t axis, DType dtype);
Tensor quantize(const Tensor& x, const QuantizerPtr& quantizer, DType dtype);
// q = clamp(rne(x/scale + zero_point)) with the scale and zero point of each slice along axis;
// dtype quint8 or quint4x2.
Tensor quantize_per_channel_float(const Tensor& x, const std::vector<double>& scales,
                                  const std::vector<double>& zero_points, int64_t axis,
                                  DType dtype);
// Integer codes (uint8, int8, uint16, int16, int32) as a quantized tensor, without copying.
Tensor make_quantized(const Tensor& codes, QuantizerPtr quantizer);
// The same as a dtype with these codes; quint4x2 and qint4x2 are packed copies. Error for codes
// outside the dtype.
Tensor make_quantized(const Tensor& codes, QuantizerPtr quantizer, DType dtype);

// PyTorch's way of printing: values abridged beyond 1,000 elements, then what differs from a plain
// float tensor.
std::string to_string(const Tensor& tensor);

}  // namespace octet
