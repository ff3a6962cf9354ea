#include "octet/quant/modules/embedding.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/quant/modules/qparams.h"

namespace octet::nn {
namespace {

template <typename Float>
Float& expect_table(Module& module, const char* who) {
  auto* table = dynamic_cast<Float*>(&module);
  OCTET_CHECK(table, invalid_argument, "{}: from_float was given a {}; expected a {}", who,
              module.type_name(), class_name(typeid(Float)));
  return *table;
}

// How the qconfig says to quantize the rows.
const quant::ObserverFactory& rows_factory(const Module& module, const char* who) {
  const quant::QConfig* qconfig = quant::qconfig_of(module);
  OCTET_CHECK(qconfig && quant::quantizes_rows(*qconfig), invalid_argument,
              "{}: rows of embeddings have float zero points; the qconfig is {}: use "
              "float_qparams_weight_only_qconfig() or "
              "float_qparams_weight_only_qconfig_4bit()",
              who, qconfig ? to_string(*qconfig) : "none");
  return qconfig->weight;
}

ModulePtr fake_quant_of(const Module& module, const char* who) {
  const quant::ObserverFactory& factory = rows_factory(module, who);
  OCTET_CHECK(!factory.fake_quantize_name().empty(), invalid_argument,
              "{}: the qconfig's weight is {}, which does not "
              "fake-quantize: use default_embedding_qat_qconfig()",
              who, to_string(factory));
  return factory.with_ch_axis(0).make_module(std::string(who) + ".weight");
}

ModulePtr placeholder_fake_quant() {
  return quant::default_embedding_fake_quant().make_module("weight");
}

template <typename Qat>
std::shared_ptr<Qat> adopt(std::shared_ptr<Qat> table, const Module& source) {
  table->qconfig = source.qconfig;
  table->train(source.training());
  return table;
}

// The rows of a float table or one in training.
template <typename Float, typename Qat>
Tensor quantized_rows(Module& module, const char* who) {
  rows_factory(module, who);
  auto& table = expect_table<Float>(module, who);
  auto* qat = dynamic_cast<Qat*>(&module);
  return quant::quantize_to(
      table.weight.detach(),
      quant::weight_qparams(table.weight, module, qat ? qat->weight_fake_quant.get() : nullptr, 0));
}

Tensor placeholder_rows(const Attrs& c) {
  const int64_t rows = c.get_int("num_embeddings");
  const std::vector<double> ones(static_cast<size_t>(rows), 1.0),
      zeros(static_cast<size_t>(rows), 0.0);
  return quantize_per_channel_float(Tensor::zeros({rows, c.get_int("embedding_dim")}), ones, zeros,
                                    0, parse_dtype(c.get_string("dtype")));
}

EmbeddingBagOptions bag_options(const Attrs& c) {
  const int64_t padding = c.get_int("padding_idx");
  return {c.get_string("mode"), c.get_bool("include_last_offset"),
          padding < 0 ? std::nullopt : std::optional(padding)};
}

// Of a float table, one in training, or one that is quantized already.
template <typename Table>
std::shared_ptr<Table> table_from_float(Module& module) {
  if (auto* table = dynamic_cast<quantized::Embedding*>(&module))
    return make<Table>(table->weight());
  return make<Table>(quantized_rows<Embedding, qat::Embedding>(module, "Embedding"));
}

template <typename Table>
std::shared_ptr<Table> bag_from_float(Module& module) {
  if (auto* table = dynamic_cast<quantized::EmbeddingBag*>(&module))
    return make<Table>(table->weight(), table->options);
  Tensor rows = quantized_rows<EmbeddingBag, qat::EmbeddingBag>(module, "EmbeddingBag");
  return make<Table>(rows, module.as<EmbeddingBag>().options);
}

}  // namespace

namespace qat {

OCTET_MODULE(Embedding)
OCTET_MODULE(EmbeddingBag)

Embedding::Embedding(const nn::Embedding& table, ModulePtr fake_quant)
    : nn::Embedding(table), weight_fake_quant(slot("weight_fake_quant", std::move(fake_quant))) {}

Tensor Embedding::forward(Tensor index) { return rows_of(weight_fake_quant(weight), index); }

std::shared_ptr<Embedding> Embedding::from_float(Module& module) {
  auto& table = expect_table<nn::Embedding>(module, "qat::Embedding");
  return adopt(make<Embedding>(table, fake_quant_of(module, "qat::Embedding")), module);
}
std::shared_ptr<Embedding> Embedding::from_config(const Attrs& c) {
  return make<Embedding>(*nn::Embedding::from_config(c), placeholder_fake_quant());
}

EmbeddingBag::EmbeddingBag(const nn::EmbeddingBag& table, ModulePtr fake_quant)
    : nn::EmbeddingBag(table),
      weight_fake_quant(slot("weight_fake_quant", std::move(fake_quant))) {}

std::vector<Tensor> EmbeddingBag::forward(std::vector<Tensor> inputs) {
  return {bags_of(weight_fake_quant(weight), std::move(inputs), options)};
}

std::shared_ptr<EmbeddingBag> EmbeddingBag::from_float(Module& module) {
  auto& table = expect_table<nn::EmbeddingBag>(module, "qat::EmbeddingBag");
  return adopt(make<EmbeddingBag>(table, fake_quant_of(module, "qat::EmbeddingBag")), module);
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_config(const Attrs& c) {
  return make<EmbeddingBag>(*nn::EmbeddingBag::from_config(c), placeholder_fake_quant());
}

}  // namespace qat

namespace quantized {

OCTET_MODULE(Embedding)
OCTET_MODULE(EmbeddingBag)

void Table::set_weight(Tensor weight) {
  OCTET_CHECK(weight.defined() && weight.is_quantized() && weight.shape() == weight_.shape() &&
                  weight.quantizer()->has_float_zero_points() && weight.quantizer()->axis() == 0,
              invalid_argument,
              "{}: weight {}; expected codes of shape {} with float qparams per row", type_name(),
              weight.defined() ? octet::to_string(weight.type()) : "none",
              octet::to_string(weight_.shape()));
  weight_ = std::move(weight);
}

std::string Table::type_name() const { return "Quantized" + class_name(class_type()); }

std::string Table::extra_repr() const {
  return fmt::format(
      "num_embeddings={}, embedding_dim={}, dtype=torch.{}, "
      "qscheme=torch.per_channel_affine_float_qparams",
      num_embeddings(), embedding_dim(), octet::to_string(weight_.dtype()));
}

Attrs Table::config() const {
  return {{"num_embeddings", num_embeddings()},
          {"embedding_dim", embedding_dim()},
          {"dtype", std::string(octet::to_string(weight_.dtype()))}};
}

Tensor Embedding::forward(Tensor index) { return ops::call("embedding_byte", {weight(), index}); }

Tensor EmbeddingBag::forward(Tensor indices) { return forward(std::vector<Tensor>{indices}).at(0); }

std::vector<Tensor> EmbeddingBag::forward(std::vector<Tensor> inputs) {
  return {nn::EmbeddingBag::bags_of(weight(), std::move(inputs), options)};
}

Attrs EmbeddingBag::config() const {
  return Table::config()
      .set("mode", options.mode)
      .set("include_last_offset", options.include_last_offset)
      .set("padding_idx", options.padding_idx.value_or(-1));
}

std::shared_ptr<Embedding> Embedding::from_float(Module& module) {
  return table_from_float<Embedding>(module);
}
std::shared_ptr<Embedding> Embedding::from_config(const Attrs& c) {
  return make<Embedding>(placeholder_rows(c));
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_float(Module& module) {
  return bag_from_float<EmbeddingBag>(module);
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_config(const Attrs& c) {
  return make<EmbeddingBag>(placeholder_rows(c), bag_options(c));
}

namespace reference {

OCTET_MODULE(Embedding)
OCTET_MODULE(EmbeddingBag)

Tensor Embedding::forward(Tensor index) {
  return functional::embedding(index, weight().dequantize());
}

std::vector<Tensor> EmbeddingBag::forward(std::vector<Tensor> inputs) {
  return {nn::EmbeddingBag::bags_of(weight().dequantize(), std::move(inputs), options)};
}

std::shared_ptr<Embedding> Embedding::from_float(Module& module) {
  return table_from_float<Embedding>(module);
}
std::shared_ptr<Embedding> Embedding::from_config(const Attrs& c) {
  return make<Embedding>(placeholder_rows(c));
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_float(Module& module) {
  return bag_from_float<EmbeddingBag>(module);
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_config(const Attrs& c) {
  return make<EmbeddingBag>(placeholder_rows(c), bag_options(c));
}

}  // namespace reference

}  // namespace quantized

}  // namespace octet::nn
