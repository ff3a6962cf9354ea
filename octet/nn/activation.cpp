#include "octet/nn/activation.h"

#include <fmt/format.h>

#include <map>

#include "octet/nn/pooling.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(PReLU)

namespace {
template <typename Fn>
void for_each_activation(Fn fn) {
  for_each_type(Clamps(), fn);
  for_each_type(Activations(), fn);
}
[[maybe_unused]] const bool g_activations_registered =
    (for_each_activation([]<typename M>() { register_module<M>(); }), true);

template <size_t N>
void add_pools(std::map<std::string, std::string>& made) {
  const std::string d = std::to_string(N) + "d";
  made[class_name(typeid(MaxPoolNd<N>))] = "max_pool" + d;
  made[class_name(typeid(AvgPoolNd<N>))] = "avg_pool" + d;
  made[class_name(typeid(AdaptivePoolNd<N, true>))] = "adaptive_max_pool" + d;
  made[class_name(typeid(AdaptivePoolNd<N, false>))] = "adaptive_avg_pool" + d;
}
}  // namespace

std::string operator_of(const std::string& name) {
  static const std::map<std::string, std::string> ops = [] {
    std::map<std::string, std::string> made{{nn::class_name(typeid(PReLU)), "prelu"}};
    for_each_activation([&]<typename M>() { made[nn::class_name(typeid(M))] = M().op_name(); });
    add_pools<1>(made);
    add_pools<2>(made);
    add_pools<3>(made);
    return made;
  }();
  auto it = ops.find(name);
  return it == ops.end() ? "" : it->second;
}

bool is_scalar_function(const std::string& name) {
  const ops::Op* op = ops::find(operator_of(name));
  return op && op->scalar() && op->rule() != ops::QRule::same;
}

Tensor Activation::forward(Tensor x) { return ops::call(op_name(), {x}, op_attrs()); }

std::string Activation::extra_repr() const {
  std::string s;
  for (const auto& [name, value] : op_attrs())
    s += (s.empty() ? "" : ", ") + name + "=" + python(value);
  return s;
}

std::string Hardtanh::extra_repr() const {
  return fmt::format("min_val={}, max_val={}", python(min_val), python(max_val));
}

std::string Softplus::extra_repr() const {
  return fmt::format("beta={}, threshold={}", beta, threshold);
}

PReLU::PReLU(int64_t count, double init)
    : weight(parameter("weight", Tensor::full({count}, init))) {}
Tensor PReLU::forward(Tensor x) { return functional::prelu(x, weight); }
std::string PReLU::extra_repr() const { return fmt::format("num_parameters={}", weight.numel()); }

Attrs Activation::config() const { return op_attrs(); }
Attrs LeakyReLU::op_attrs() const { return {{"negative_slope", negative_slope}}; }
std::shared_ptr<LeakyReLU> LeakyReLU::from_config(const Attrs& c) {
  return make<LeakyReLU>(c.get_double("negative_slope"));
}
Attrs ELU::op_attrs() const { return {{"alpha", alpha}}; }
std::shared_ptr<ELU> ELU::from_config(const Attrs& c) { return make<ELU>(c.get_double("alpha")); }
Attrs CELU::op_attrs() const { return {{"alpha", alpha}}; }
std::shared_ptr<CELU> CELU::from_config(const Attrs& c) {
  return make<CELU>(c.get_double("alpha"));
}
Attrs GELU::op_attrs() const { return {{"approximate", approximate}}; }
std::shared_ptr<GELU> GELU::from_config(const Attrs& c) {
  return make<GELU>(c.get_string("approximate"));
}
Attrs Hardtanh::op_attrs() const { return {{"min", min_val}, {"max", max_val}}; }
std::shared_ptr<Hardtanh> Hardtanh::from_config(const Attrs& c) {
  return make<Hardtanh>(c.get_double("min"), c.get_double("max"));
}
Attrs Softmax::op_attrs() const { return {{"dim", dim}}; }
std::shared_ptr<Softmax> Softmax::from_config(const Attrs& c) {
  return make<Softmax>(c.get_int("dim"));
}
Attrs LogSoftmax::op_attrs() const { return {{"dim", dim}}; }
std::shared_ptr<LogSoftmax> LogSoftmax::from_config(const Attrs& c) {
  return make<LogSoftmax>(c.get_int("dim"));
}
Attrs Softplus::op_attrs() const { return {{"beta", beta}, {"threshold", threshold}}; }
std::shared_ptr<Softplus> Softplus::from_config(const Attrs& c) {
  return make<Softplus>(c.get_double("beta"), c.get_double("threshold"));
}
Attrs PReLU::config() const { return {{"num_parameters", weight.numel()}}; }
std::shared_ptr<PReLU> PReLU::from_config(const Attrs& c) {
  return make<PReLU>(c.get_int("num_parameters"));
}

}  // namespace octet::nn
