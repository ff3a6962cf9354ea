#pragma once
// Networks with weights of few bits, for tests of the algorithms that choose their codes.

#include <cmath>
#include <memory>
#include <vector>

#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

namespace octet::testing {

using Batches = std::vector<std::vector<Tensor>>;

// Prepared for weights of `bits` bits, and calibrated.
inline std::shared_ptr<quant::ObservedGraphModule> prepared_with_bits(const graph::Graph& g,
                                                                      const Batches& samples,
                                                                      int bits,
                                                                      bool per_channel = true) {
  quant::QConfig q = quant::get_default_qconfig(per_channel ? "native" : "qnnpack");
  q.weight = q.weight.with_quant_range(-(1 << (bits - 1)), (1 << (bits - 1)) - 1);
  auto prepared = quant::prepare_fx(g, quant::QConfigMapping(q));
  for (const auto& batch : samples) prepared->forward(batch);
  return prepared;
}

// The sum of squared differences between the float results and those of the converted network.
inline double converted_error(const graph::Graph& g,
                              const std::shared_ptr<quant::ObservedGraphModule>& prepared,
                              const Batches& samples) {
  const runtime::Program a = runtime::compile(g),
                         b = runtime::compile(quant::convert_fx(prepared)->graph());
  double sum = 0;
  for (const auto& batch : samples) {
    const auto x = a.run(batch)[0].to_vector<float>(),
               y = b.run(batch)[0].dequantize().to_vector<float>();
    for (size_t i = 0; i < x.size(); ++i) sum += std::pow(double(x[i]) - double(y[i]), 2);
  }
  return sum;
}

// Samples whose features depend on each other.
inline Batches mixed(const Shape& shape, uint64_t seed) {
  Batches batches;
  for (uint64_t i = 0; i < 3; ++i) {
    Tensor x = Tensor::randn(shape, seed + i);
    float* p = x.data<float>();
    for (int64_t j = 1; j < x.numel(); ++j) p[j] = 0.5F + 0.6F * p[j - 1] + 0.4F * p[j];
    batches.push_back({x});
  }
  return batches;
}

}  // namespace octet::testing
