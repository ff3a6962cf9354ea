#include "octet/nn/embedding.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"

namespace octet::nn {

OCTET_MODULE(Embedding)
OCTET_MODULE(EmbeddingBag)

namespace {

std::optional<int64_t> checked_padding(int64_t rows, std::optional<int64_t> padding) {
  if (!padding) return padding;
  OCTET_CHECK(*padding >= -rows && *padding < rows, invalid_argument,
              "padding_idx={} of {} embeddings", *padding, rows);
  return *padding < 0 ? *padding + rows : *padding;
}

Tensor initial_weight(int64_t rows, int64_t columns, std::optional<int64_t> padding) {
  OCTET_CHECK(rows >= 1 && columns >= 1, invalid_argument,
              "{} embeddings of {} numbers; expected 1 or more", rows, columns);
  Tensor w = init::normal({rows, columns});
  if (padding) std::fill_n(w.data<float>() + *padding * columns, columns, 0.0f);
  return w;
}

// -1 for none in configurations and in the operator.
int64_t padding_number(std::optional<int64_t> padding) { return padding.value_or(-1); }
std::optional<int64_t> padding_from(const Attrs& c) {
  int64_t n = c.get_int("padding_idx");
  return n < 0 ? std::nullopt : std::optional(n);
}

}  // namespace

Embedding::Embedding(int64_t rows, int64_t columns, std::optional<int64_t> padding)
    : num_embeddings(rows),
      embedding_dim(columns),
      padding_idx(checked_padding(rows, padding)),
      weight(parameter("weight", initial_weight(rows, columns, padding_idx))) {}

Tensor Embedding::forward(Tensor index) { return rows_of(weight, index); }

Tensor Embedding::rows_of(const Tensor& w, const Tensor& index) const {
  return functional::embedding(index, w, padding_idx);
}
std::string Embedding::extra_repr() const {
  std::string s = fmt::format("{}, {}", num_embeddings, embedding_dim);
  return padding_idx ? s + fmt::format(", padding_idx={}", *padding_idx) : s;
}
Attrs Embedding::config() const {
  return {{"num_embeddings", num_embeddings},
          {"embedding_dim", embedding_dim},
          {"padding_idx", padding_number(padding_idx)}};
}
std::shared_ptr<Embedding> Embedding::from_config(const Attrs& c) {
  return make<Embedding>(c.get_int("num_embeddings"), c.get_int("embedding_dim"), padding_from(c));
}

EmbeddingBag::EmbeddingBag(int64_t rows, int64_t columns, EmbeddingBagOptions o)
    : num_embeddings(rows),
      embedding_dim(columns),
      options{o.mode, o.include_last_offset, checked_padding(rows, o.padding_idx)},
      weight(parameter("weight", initial_weight(rows, columns, options.padding_idx))) {}

Tensor EmbeddingBag::forward(Tensor indices) { return forward(std::vector<Tensor>{indices}).at(0); }

std::vector<Tensor> EmbeddingBag::forward(std::vector<Tensor> inputs) {
  return {bags_of(weight, std::move(inputs), options)};
}

Tensor EmbeddingBag::bags_of(const Tensor& weight, std::vector<Tensor> inputs,
                             const EmbeddingBagOptions& options) {
  OCTET_CHECK(!inputs.empty() && inputs.size() <= 3, invalid_argument,
              "EmbeddingBag: {} inputs given; it takes indices, offsets and per_sample_weights",
              inputs.size());
  inputs.resize(3);
  return functional::embedding_bag(inputs[0], weight, inputs[1], options.mode, inputs[2],
                                   options.include_last_offset, options.padding_idx);
}
std::string EmbeddingBag::extra_repr() const {
  std::string s = fmt::format("{}, {}, mode={}", num_embeddings, embedding_dim, options.mode);
  return options.padding_idx ? s + fmt::format(", padding_idx={}", *options.padding_idx) : s;
}
Attrs EmbeddingBag::config() const {
  return {{"num_embeddings", num_embeddings},
          {"embedding_dim", embedding_dim},
          {"mode", options.mode},
          {"include_last_offset", options.include_last_offset},
          {"padding_idx", padding_number(options.padding_idx)}};
}
std::shared_ptr<EmbeddingBag> EmbeddingBag::from_config(const Attrs& c) {
  return make<EmbeddingBag>(
      c.get_int("num_embeddings"), c.get_int("embedding_dim"),
      EmbeddingBagOptions{c.get_string("mode"), c.get_bool("include_last_offset"),
                          padding_from(c)});
}

}  // namespace octet::nn
