#pragma once
// Initial values of parameters.

#include "octet/tensor/tensor.h"

namespace octet::nn::init {

// While it lives, the functions below leave values unset in this thread and draw no random numbers:
// for modules whose parameters are about to be loaded.
class Skip {
 public:
  Skip();
  ~Skip();
  Skip(const Skip&) = delete;
  Skip& operator=(const Skip&) = delete;

 private:
  bool before_;
};

// Uniform in +-1/sqrt(fan_in): PyTorch's default for weights and biases of linear, conv and
// recurrent layers (Kaiming uniform with a = sqrt(5)). Draws from the sequence of manual_seed.
Tensor uniform_fan_in(const Shape& shape, int64_t fan_in);
// Standard normal: PyTorch's default for embeddings.
Tensor normal(const Shape& shape);
// Kaiming normal for ReLU networks: standard deviation sqrt(2/fan_in) (He et al. 2015).
Tensor kaiming_normal(const Shape& shape, int64_t fan_in);
// Uniform in +-sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010).
Tensor xavier_uniform(const Shape& shape, int64_t fan_in, int64_t fan_out);

}  // namespace octet::nn::init
