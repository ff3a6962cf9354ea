#pragma once
// The type of a value: dtype, dims (known or symbolic) and, if quantized, its qparams. What
// `inspect` prints.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/tensor/dtype.h"
#include "octet/tensor/quantizer.h"

namespace octet {

// Sizes of a tensor's dimensions, outermost first. Never negative.
using Shape = std::vector<int64_t>;

int64_t numel(const Shape& shape);
std::string to_string(const Shape& shape);  // "(2, 3, 8, 8)"

// One dimension of a type: a known size, or a name ("N") that stands for a size given at run time.
class Dim {
 public:
  Dim(int64_t size) : size_(size) {}                            // NOLINT: a size is a Dim
  Dim(std::string name) : size_(-1), name_(std::move(name)) {}  // NOLINT
  bool known() const { return size_ >= 0; }
  int64_t size() const { return size_; }  // -1 if not known
  const std::string& name() const { return name_; }
  bool operator==(const Dim&) const = default;

 private:
  int64_t size_;
  std::string name_;
};

std::string to_string(const Dim& dim);
// a * b; a symbolic factor gives a symbolic product such as "N*49".
Dim multiply(const Dim& a, const Dim& b);

struct TensorType {
  DType dtype = DType::float32;
  std::vector<Dim> dims;
  QuantizerPtr quantizer;  // set exactly when dtype is quantized

  TensorType();
  TensorType(DType dtype, std::vector<Dim> dims, QuantizerPtr quantizer = nullptr);
  TensorType(DType dtype, const Shape& shape, QuantizerPtr quantizer = nullptr);
  TensorType(const TensorType& other);
  TensorType(TensorType&& other) noexcept;
  TensorType& operator=(const TensorType& other);
  TensorType& operator=(TensorType&& other) noexcept;
  ~TensorType();

  int64_t dim() const { return static_cast<int64_t>(dims.size()); }
  bool is_quantized() const { return octet::is_quantized(dtype); }
  // All dims known?
  bool is_static() const;
  // The dims as a Shape; Error naming the symbolic one if there is any.
  Shape shape() const;
  bool operator==(const TensorType& other) const;
};

// Whether both are quantized, to one dtype with equal qparams: the same codes mean the same
// numbers.
bool same_qparams(const TensorType& a, const TensorType& b);

// "QUInt8(N, 3, 8, 8) scale=0.031 zero_point=128". With `brief` long per-channel lists are
// abridged.
std::string to_string(const TensorType& type, bool brief = true);

// Reads what to_string(type, false) printed.
TensorType parse_type(const std::string& text);

}  // namespace octet
