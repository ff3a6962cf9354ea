#include "octet/nn/linear.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"

namespace octet::nn {

OCTET_MODULE(Linear)
OCTET_MODULE(Bilinear)
OCTET_MODULE(Identity)

namespace {
int64_t checked_inputs(int64_t in, int64_t out) {
  OCTET_CHECK(in >= 1 && out >= 1, invalid_argument,
              "Linear: {} inputs and {} outputs; expected 1 or more", in, out);
  return in;
}
}  // namespace

Linear::Linear(int64_t in, int64_t out, bool with_bias)
    : in_features(checked_inputs(in, out)),
      out_features(out),
      weight(parameter("weight", init::uniform_fan_in({out, in}, in))),
      bias(parameter("bias", with_bias ? init::uniform_fan_in({out}, in) : Tensor())) {}

Tensor Linear::forward(Tensor x) { return functional::linear(x, weight, bias); }

std::string Linear::extra_repr() const {
  return fmt::format("in_features={}, out_features={}, bias={}", in_features, out_features,
                     bias.defined() ? "True" : "False");
}

Attrs Linear::config() const {
  return {{"in_features", in_features}, {"out_features", out_features}, {"bias", bias.defined()}};
}

std::shared_ptr<Linear> Linear::from_config(const Attrs& c) {
  // Before the call, whose arguments compilers evaluate in different orders: of a config that lacks
  // all, the error names the same attribute everywhere.
  const bool bias = c.get_bool("bias");
  return make<Linear>(c.get_int("in_features"), c.get_int("out_features"), bias);
}

Bilinear::Bilinear(int64_t in1, int64_t in2, int64_t out, bool with_bias)
    : in1_features(checked_inputs(in1, out)),
      in2_features(checked_inputs(in2, out)),
      out_features(out),
      weight(parameter("weight", init::uniform_fan_in({out, in1, in2}, in1))),
      bias(parameter("bias", with_bias ? init::uniform_fan_in({out}, in1) : Tensor())) {}

std::vector<Tensor> Bilinear::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == 2, invalid_argument, "Bilinear: {} inputs given; it takes two",
              inputs.size());
  return {functional::bilinear(inputs[0], inputs[1], weight, bias)};
}

std::string Bilinear::extra_repr() const {
  return fmt::format("in1_features={}, in2_features={}, out_features={}, bias={}", in1_features,
                     in2_features, out_features, bias.defined() ? "True" : "False");
}
Attrs Bilinear::config() const {
  return {{"in1_features", in1_features},
          {"in2_features", in2_features},
          {"out_features", out_features},
          {"bias", bias.defined()}};
}
std::shared_ptr<Bilinear> Bilinear::from_config(const Attrs& c) {
  return make<Bilinear>(c.get_int("in1_features"), c.get_int("in2_features"),
                        c.get_int("out_features"), c.get_bool("bias"));
}

}  // namespace octet::nn
