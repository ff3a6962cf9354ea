#pragma once
// Initial values of parameters.

#include "octet/tensor/tensor.h"

namespace octet::nn::init {

// Uniform in +-1/sqrt(fan_in): PyTorch's default for weights and biases of linear, conv and recurrent layers (Kaiming
// uniform with a = sqrt(5)). Draws from the sequence of manual_seed.
Tensor uniform_fan_in(const Shape& shape, int64_t fan_in);
// Standard normal: PyTorch's default for embeddings.
Tensor normal(const Shape& shape);
// Kaiming normal for ReLU networks: standard deviation sqrt(2/fan_in) (He et al. 2015).
Tensor kaiming_normal(const Shape& shape, int64_t fan_in);
// Uniform in +-sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010).
Tensor xavier_uniform(const Shape& shape, int64_t fan_in, int64_t fan_out);

}  // namespace octet::nn::init
