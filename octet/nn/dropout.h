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
  Attrs config() const override { return {{"p", p}}; }
  static std::shared_ptr<Dropout> from_config(const Attrs& c) {
    return make<Dropout>(c.get_double("p"));
  }
  double p;
};

// The same for whole channels (dimension 1) of each image; x has at least N + 1 dimensions, of
// which the last N are spatial.
class FeatureDropout : public Dropout {
 public:
  using Dropout::Dropout;
  Tensor forward(Tensor x) override;

 protected:
  virtual int64_t spatial() const = 0;
};
#define OCTET_FEATURE_DROPOUT(N)                                        \
  class Dropout##N##d : public FeatureDropout {                         \
   public:                                                              \
    using FeatureDropout::FeatureDropout;                               \
    static std::shared_ptr<Dropout##N##d> from_config(const Attrs& c) { \
      return make<Dropout##N##d>(c.get_double("p"));                    \
    }                                                                   \
                                                                        \
   protected:                                                           \
    int64_t spatial() const override { return N; }                      \
  };
OCTET_FEATURE_DROPOUT(1)
OCTET_FEATURE_DROPOUT(2)
OCTET_FEATURE_DROPOUT(3)
#undef OCTET_FEATURE_DROPOUT

}  // namespace octet::nn
