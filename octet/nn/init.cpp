#include "octet/nn/init.h"

#include <cmath>

#include "octet/base/random.h"

namespace octet::nn::init {
namespace {
thread_local bool t_skip = false;

Tensor uniform(const Shape& shape, double bound) {
  return t_skip ? Tensor::empty(shape) : Tensor::rand(shape, next_seed(), -bound, bound);
}

Tensor scaled_normal(const Shape& shape, double deviation) {
  if (t_skip) return Tensor::empty(shape);
  Tensor t = Tensor::randn(shape, next_seed());
  float* p = t.data<float>();
  for (int64_t i = 0; i < t.numel(); ++i) p[i] = static_cast<float>(p[i] * deviation);
  return t;
}
}  // namespace

Skip::Skip() : before_(t_skip) { t_skip = true; }
Skip::~Skip() { t_skip = before_; }

Tensor uniform_fan_in(const Shape& shape, int64_t fan_in) {
  double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  return uniform(shape, bound);
}
Tensor normal(const Shape& shape) {
  return t_skip ? Tensor::empty(shape) : Tensor::randn(shape, next_seed());
}
Tensor kaiming_normal(const Shape& shape, int64_t fan_in) {
  return scaled_normal(shape, std::sqrt(2.0 / static_cast<double>(fan_in)));
}
Tensor xavier_uniform(const Shape& shape, int64_t fan_in, int64_t fan_out) {
  double bound = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
  return uniform(shape, bound);
}

}  // namespace octet::nn::init
