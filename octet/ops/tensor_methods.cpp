// The operators that are methods of Tensor: each is the function of the same name.
#include "octet/base/check_impl.h"
#include "octet/ops/functional.h"

namespace octet {

Tensor Tensor::relu() const { return functional::relu(*this); }
Tensor Tensor::sigmoid() const { return functional::sigmoid(*this); }
Tensor Tensor::tanh() const { return functional::tanh(*this); }
Tensor Tensor::exp() const { return functional::exp(*this); }
Tensor Tensor::log() const { return functional::log(*this); }
Tensor Tensor::sqrt() const { return functional::sqrt(*this); }
Tensor Tensor::abs() const { return functional::abs(*this); }
Tensor Tensor::neg() const { return functional::neg(*this); }
Tensor Tensor::pow(double exponent) const { return functional::pow(*this, exponent); }
Tensor Tensor::clamp(double min, double max) const { return functional::clamp(*this, min, max); }
Tensor Tensor::softmax(int64_t dim) const { return functional::softmax(*this, dim); }
Tensor Tensor::log_softmax(int64_t dim) const { return functional::log_softmax(*this, dim); }

Tensor Tensor::sum(const std::vector<int64_t>& dims, bool keepdim) const {
  return functional::sum(*this, dims, keepdim);
}
Tensor Tensor::mean(const std::vector<int64_t>& dims, bool keepdim) const {
  return functional::mean(*this, dims, keepdim);
}
Tensor Tensor::amax(const std::vector<int64_t>& dims, bool keepdim) const {
  return functional::amax(*this, dims, keepdim);
}
Tensor Tensor::amin(const std::vector<int64_t>& dims, bool keepdim) const {
  return functional::amin(*this, dims, keepdim);
}
Tensor Tensor::argmax(int64_t dim, bool keepdim) const {
  return functional::argmax(*this, dim, keepdim);
}

Tensor Tensor::add(const Tensor& other) const { return *this + other; }
Tensor Tensor::sub(const Tensor& other) const { return *this - other; }
Tensor Tensor::mul(const Tensor& other) const { return *this * other; }
Tensor Tensor::div(const Tensor& other) const { return *this / other; }
Tensor Tensor::matmul(const Tensor& other) const { return functional::matmul(*this, other); }

std::vector<Tensor> Tensor::chunk(int64_t chunks, int64_t dim) const {
  return functional::chunk(*this, chunks, dim);
}
std::vector<Tensor> Tensor::split(const std::vector<int64_t>& sizes, int64_t dim) const {
  return functional::split(*this, sizes, dim);
}
Tensor Tensor::t() const {
  OCTET_CHECK(dim() <= 2, invalid_argument,
              "t: the tensor is {}; expected at most two dimensions: use transpose",
              to_string(type()));
  return dim() == 2 ? transpose(0, 1) : *this;
}

Tensor& Tensor::operator+=(const Tensor& other) { return *this = *this + other; }
Tensor& Tensor::operator-=(const Tensor& other) { return *this = *this - other; }
Tensor& Tensor::operator*=(const Tensor& other) { return *this = *this * other; }
Tensor& Tensor::operator/=(const Tensor& other) { return *this = *this / other; }
Tensor& Tensor::operator+=(double value) { return *this = *this + value; }
Tensor& Tensor::operator-=(double value) { return *this = *this - value; }
Tensor& Tensor::operator*=(double value) { return *this = *this * value; }
Tensor& Tensor::operator/=(double value) { return *this = *this / value; }

}  // namespace octet
