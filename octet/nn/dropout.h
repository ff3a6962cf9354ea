#pragma once
// Dropout: zeros in training, nothing in eval mode.

#include <string>

#include "octet/nn/module.h"

namespace octet::nn {

// In training, zeroes each element with probability p and scales the others by 1/(1-p). Draws from
// the sequence of manual_seed.
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Dropout> from_config(const Attrs& c);
  double p;
};

// The same for whole channels (dimension 1) of each image; x has at least N + 1 dimensions, of
// which the last N are spatial.
template <size_t N>
class DropoutNd : public Dropout {
 public:
  using Dropout::Dropout;
  Tensor forward(Tensor x) override;
  static std::shared_ptr<DropoutNd> from_config(const Attrs& c) {
    return make<DropoutNd>(c.get_double("p"));
  }
};
using Dropout1d = DropoutNd<1>;
using Dropout2d = DropoutNd<2>;
using Dropout3d = DropoutNd<3>;

}  // namespace octet::nn
