#pragma once
// How near a quantized result is to the float one.

#include <cmath>

#include "octet/tensor/tensor.h"

namespace octet::testing {

// Signal to quantization noise in decibels: 10 log10(sum x^2 / sum (x - y)^2), infinite if they are
// equal.
inline double sqnr(const Tensor& expected, const Tensor& got) {
  auto x = expected.detach().to(DType::float64).to_vector<double>(),
       y = got.detach().to(DType::float64).to_vector<double>();
  double signal = 0, noise = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    signal += x[i] * x[i];
    noise += (x[i] - y.at(i)) * (x[i] - y.at(i));
  }
  return noise == 0 ? INFINITY : 10 * std::log10(signal / noise);
}

}  // namespace octet::testing
