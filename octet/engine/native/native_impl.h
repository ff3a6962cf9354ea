#pragma once
// What native kernels share, and their makers, one per family.

#include <memory>

#include "octet/engine/engine.h"

namespace octet::native {

// 8-bit codes with one scale and zero point.
inline bool eight_bit_per_tensor(const TensorType& t) {
  return (t.dtype == DType::quint8 || t.dtype == DType::qint8) && !t.quantizer->is_per_channel();
}

// What the inner loops need to know of such a type.
struct CodesOf {
  explicit CodesOf(const TensorType& t)
      : scale(static_cast<float>(t.quantizer->scale())),
        inv_scale(1.0f / scale),
        zero_point(static_cast<int32_t>(t.quantizer->zero_point())),
        lo(static_cast<int32_t>(qmin(t.dtype))),
        hi(static_cast<int32_t>(qmax(t.dtype))),
        is_signed(t.dtype == DType::qint8) {}
  float scale, inv_scale;
  int32_t zero_point, lo, hi;
  bool is_signed;
};

// How a plan divides its scratch memory: parts begin on cache lines.
class ScratchParts {
 public:
  size_t take(size_t bytes) {  // where the part begins
    const size_t at = total_;
    total_ += (bytes + 63) / 64 * 64;
    return at;
  }
  size_t bytes() const { return total_; }

 private:
  size_t total_ = 0;
};

// Each maker returns null when the call is not one it takes.
// conv.cpp: conv2d, conv_transpose2d
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);  // linear.cpp
// dynamic.cpp: linear, conv2d and conv_transpose2d _dynamic
std::unique_ptr<Kernel> make_dynamic(const OpSpec& spec);
// weight_only.cpp: linear_weight_only
std::unique_ptr<Kernel> make_weight_only(const OpSpec& spec);
std::unique_ptr<Kernel> make_lstm(const OpSpec& spec);  // lstm.cpp: dynamic
// pool.cpp: max_pool2d, avg_pool2d, adaptive_avg_pool2d
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);
// elementwise.cpp: add, mul, unary, (de|re)quantize
std::unique_ptr<Kernel> make_elementwise(const OpSpec& spec);
// rows.cpp: float arithmetic, mean, softmax
std::unique_ptr<Kernel> make_rows(const OpSpec& spec);
std::unique_ptr<Kernel> make_cat(const OpSpec& spec);      // cat.cpp
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);   // matmul.cpp
std::unique_ptr<Kernel> make_permute(const OpSpec& spec);  // permute.cpp
// float_conv.cpp: conv2d, conv3d, transposed
std::unique_ptr<Kernel> make_float_conv(const OpSpec& spec);
// float_product.cpp: linear, matmul
std::unique_ptr<Kernel> make_float_product(const OpSpec& spec);
std::unique_ptr<Kernel> make_float_pool(const OpSpec& spec);  // float_pool.cpp
// through_float.cpp: what is defined as dequantize, float operator, quantize and has a float
// kernel. Asked last.
std::unique_ptr<Kernel> make_through_float(const OpSpec& spec);

// As many tasks as a product of `rows` rows with that many weights is worth.
int64_t worthwhile_tasks(int64_t rows, int64_t weights);

// Splits an m x n result over the threads: calls run(m0, m1, n0, n1) on tiles whose edges are
// multiples of the register tile. `images` independent results of the same size come first.
void split_matrix(int64_t images, int64_t m, int64_t n, int64_t mr, int64_t nr,
                  int64_t work_per_element,
                  void (*run)(void* context, int64_t image, int64_t m0, int64_t m1, int64_t n0,
                              int64_t n1),
                  void* context);

}  // namespace octet::native
