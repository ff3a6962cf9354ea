#include "octet/quant/modules/attention.h"

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/stubs.h"

namespace octet::nn {
namespace {

constexpr const char* kLinear[] = {"linear_Q", "linear_K", "linear_V"};
constexpr const char* kDequant[] = {"dequant_q", "dequant_k", "dequant_v"};

std::shared_ptr<Linear> linear_with(const Tensor& weight, const Tensor& bias) {
  init::Skip skip;
  auto linear = make<Linear>(weight.size(1), weight.size(0), bias.defined());
  linear->weight.detach().copy_from(weight.detach());
  if (bias.defined()) linear->bias.detach().copy_from(bias.detach());
  return linear;
}

// Makes the projections that are inside an attention module its children.
class Projections : public nn::MultiheadAttention {
 public:
  explicit Projections(const nn::MultiheadAttention& attention)
      : nn::MultiheadAttention(attention) {}
  std::vector<ModulePtr> linears() {
    std::vector<ModulePtr> all;
    for (int64_t part = 0; part < 3; ++part) {
      auto [weight, bias] = projection(part);
      all.push_back(linear_with(weight, bias));
    }
    auto& last = out_proj.as<Linear>();
    all.push_back(linear_with(last.weight, last.bias));
    return all;
  }
};

// Leaves bias_k and bias_v.
void drop_projections(nn::MultiheadAttention& attention) {
  for (const char* name :
       {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"})
    attention.tensor(name) = Tensor();
}

void place_projections(nn::MultiheadAttention& attention, std::vector<ModulePtr> linears) {
  for (size_t part = 0; part < 3; ++part)
    attention.add_child(kLinear[part], std::move(linears[part]));
  attention.out_proj.set(std::move(linears[3]));
}

}  // namespace

namespace quantizable {

OCTET_MODULE(MultiheadAttention)

MultiheadAttention::MultiheadAttention(const nn::MultiheadAttention& attention)
    : nn::MultiheadAttention(attention) {
  if (has_submodule(kLinear[0])) return;  // one of these already
  place_projections(*this, Projections(attention).linears());
  drop_projections(*this);
  add_child("q_scaling_product", make<quantized::FloatFunctional>());
  add_child("quant_attn_output", make<quant::QuantStub>());
  if (options.need_weights) add_child("quant_attn_output_weights", make<quant::QuantStub>());
  for (const char* name : kDequant) add_child(name, make<quant::DeQuantStub>());
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_float(
    nn::MultiheadAttention& attention) {
  auto observed = make<MultiheadAttention>(attention);
  observed->train(attention.training());
  return observed;
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_config(const Attrs& config) {
  return make<MultiheadAttention>(*nn::MultiheadAttention::from_config(config));
}

std::string MultiheadAttention::type_name() const { return "QuantizableMultiheadAttention"; }

Tensor MultiheadAttention::project(const Tensor& x, int64_t part) {
  Tensor y = (*submodule(kLinear[part]))(x);
  if (part == 0)
    y = submodule("q_scaling_product")->as<quantized::FloatFunctional>().mul_scalar(y, scaling());
  return (*submodule(kDequant[part]))(y);
}

Tensor MultiheadAttention::joined_heads(const Tensor& heads) {
  return (*submodule("quant_attn_output"))(heads);
}

Tensor MultiheadAttention::result_weights(const Tensor& weights) {
  return has_submodule("quant_attn_output_weights")
             ? (*submodule("quant_attn_output_weights"))(weights)
             : weights;
}

}  // namespace quantizable

namespace quantized {

OCTET_MODULE(MultiheadAttention)

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_observed(
    quantizable::MultiheadAttention& observed) {
  auto made = make<MultiheadAttention>(observed);
  made->qconfig.reset();
  made->prepared.reset();
  made->requires_grad(false);
  return made;
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_config(const Attrs& config) {
  return make<MultiheadAttention>(*nn::MultiheadAttention::from_config(config));
}

std::string MultiheadAttention::type_name() const { return "QuantizedMultiheadAttention"; }

namespace dynamic {

OCTET_MODULE(MultiheadAttention)

MultiheadAttention::MultiheadAttention(const nn::MultiheadAttention& attention,
                                       std::vector<ModulePtr> projections)
    : nn::MultiheadAttention(attention) {
  place_projections(*this, std::move(projections));
  drop_projections(*this);
  qconfig.reset();
  requires_grad(false);
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_float(Module& module) {
  auto* attention = dynamic_cast<nn::MultiheadAttention*>(&module);
  OCTET_CHECK(
      attention, invalid_argument,
      "dynamic::MultiheadAttention: from_float was given a {}; expected a MultiheadAttention",
      module.type_name());
  std::vector<ModulePtr> projections = Projections(*attention).linears();
  for (ModulePtr& p : projections) {
    p->qconfig = module.qconfig;
    p = Linear::from_float(*p);
  }
  return make<MultiheadAttention>(*attention, std::move(projections));
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_config(const Attrs& config) {
  auto attention = nn::MultiheadAttention::from_config(config);
  std::vector<ModulePtr> projections;  // to be replaced when the state is loaded
  for (const ModulePtr& p : Projections(*attention).linears())
    projections.push_back(Linear::from_config(p->config().set("reduce_range", false)));
  return make<MultiheadAttention>(*attention, std::move(projections));
}

std::string MultiheadAttention::type_name() const { return "DynamicQuantizedMultiheadAttention"; }

Tensor MultiheadAttention::project(const Tensor& x, int64_t part) {
  Tensor y = (*submodule(kLinear[part]))(x);
  return part == 0 ? y * scaling() : y;
}

}  // namespace dynamic
}  // namespace quantized
}  // namespace octet::nn
