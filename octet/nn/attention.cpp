#include "octet/nn/attention.h"

#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(NonDynamicallyQuantizableLinear)
OCTET_MODULE(MultiheadAttention)

namespace {

AttentionOptions checked(int64_t embed, int64_t heads, AttentionOptions o) {
  OCTET_CHECK(embed >= 1 && heads >= 1 && embed % heads == 0, invalid_argument,
              "MultiheadAttention: embed_dim={} in num_heads={}; expected the heads to divide it",
              embed, heads);
  OCTET_CHECK(o.dropout >= 0 && o.dropout <= 1 && o.kdim >= 0 && o.vdim >= 0, invalid_argument,
              "MultiheadAttention: dropout={}, kdim={}, vdim={}; expected a probability, and sizes "
              "of 0 or more",
              o.dropout, o.kdim, o.vdim);
  if (o.kdim == 0) o.kdim = embed;
  if (o.vdim == 0) o.vdim = embed;
  return o;
}

// What is added to the scores: 0 and -inf for a mask of bools.
Tensor additive(const Tensor& mask) {
  if (mask.dtype() != DType::bool_) return mask;
  return ops::call(
      "where", {mask, Tensor::scalar(-std::numeric_limits<double>::infinity()), Tensor::scalar(0)});
}

NonDynamicallyQuantizableLinear last_layer(int64_t embed, bool bias) {
  NonDynamicallyQuantizableLinear layer(embed, embed, bias);
  if (bias) layer.bias.copy_from(Tensor::zeros({embed}));
  return layer;
}

// One more step in masks: nothing forbids it.
Tensor padded(const Tensor& mask) { return mask.defined() ? functional::pad(mask, {0, 1}) : mask; }

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t embed, int64_t heads, AttentionOptions o)
    : embed_dim(embed),
      num_heads(heads),
      options(checked(embed, heads, o)),
      in_proj_weight(parameter("in_proj_weight",
                               options.kdim == embed && options.vdim == embed
                                   ? init::xavier_uniform({3 * embed, embed}, embed, 3 * embed)
                                   : Tensor())),
      q_proj_weight(
          parameter("q_proj_weight",
                    same_sizes() ? Tensor() : init::xavier_uniform({embed, embed}, embed, embed))),
      k_proj_weight(parameter(
          "k_proj_weight", same_sizes()
                               ? Tensor()
                               : init::xavier_uniform({embed, options.kdim}, options.kdim, embed))),
      v_proj_weight(parameter(
          "v_proj_weight", same_sizes()
                               ? Tensor()
                               : init::xavier_uniform({embed, options.vdim}, options.vdim, embed))),
      in_proj_bias(parameter("in_proj_bias", o.bias ? Tensor::zeros({3 * embed}) : Tensor())),
      bias_k(parameter(
          "bias_k", o.add_bias_kv ? init::xavier_uniform({1, 1, embed}, embed, embed) : Tensor())),
      bias_v(parameter(
          "bias_v", o.add_bias_kv ? init::xavier_uniform({1, 1, embed}, embed, embed) : Tensor())),
      out_proj(slot("out_proj", last_layer(embed, o.bias))) {}

double MultiheadAttention::scaling() const {
  const int64_t head_dim = embed_dim / num_heads;
  return 1 / std::sqrt(static_cast<double>(head_dim));
}

std::pair<Tensor, Tensor> MultiheadAttention::projection(int64_t part) {
  const Tensor all = in_proj_weight, biases = in_proj_bias;
  const Tensor each[] = {q_proj_weight, k_proj_weight, v_proj_weight};
  auto slice = [&](const Tensor& t) {
    return t.slice(0, part * embed_dim, (part + 1) * embed_dim);
  };
  return {same_sizes() ? slice(all) : each[part], biases.defined() ? slice(biases) : Tensor()};
}

Tensor MultiheadAttention::project(const Tensor& x, int64_t part) {
  auto [weight, bias] = projection(part);
  Tensor y = functional::linear(x, weight, bias);
  return part == 0 ? y * scaling() : y;
}

std::vector<Tensor> MultiheadAttention::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() >= 3 && inputs.size() <= 5, invalid_argument,
              "MultiheadAttention: {} inputs given; it takes query, key, value, and optionally "
              "key_padding_mask and attn_mask",
              inputs.size());
  inputs.resize(5);
  Tensor query = inputs[0], key = inputs[1], value = inputs[2];
  Tensor padding = inputs[3].defined() ? additive(inputs[3]) : Tensor(),
         mask = inputs[4].defined() ? additive(inputs[4]) : Tensor();
  const bool unbatched = query.dim() == 2, swapped = options.batch_first && !unbatched;
  for (Tensor* t : {&query, &key, &value}) {
    OCTET_CHECK(t->dim() == (unbatched ? 2 : 3), invalid_argument,
                "MultiheadAttention: query, key and value are {}, {} and {}; "
                "expected all with a batch dimension or none",
                octet::to_string(inputs[0].type()), octet::to_string(inputs[1].type()),
                octet::to_string(inputs[2].type()));
    if (unbatched) *t = t->unsqueeze(1);
    if (swapped) *t = t->transpose(0, 1);
  }
  if (unbatched && padding.defined()) padding = padding.unsqueeze(0);
  const int64_t length = query.size(0), batch = query.size(1), head = embed_dim / num_heads;
  OCTET_CHECK(key.size(0) == value.size(0) && key.size(1) == batch && value.size(1) == batch &&
                  query.size(2) == embed_dim && key.size(2) == options.kdim &&
                  value.size(2) == options.vdim,
              invalid_argument,
              "MultiheadAttention: query {}, key {} and value {}; expected sizes {}, {} and {}",
              octet::to_string(inputs[0].type()), octet::to_string(inputs[1].type()),
              octet::to_string(inputs[2].type()), embed_dim, options.kdim, options.vdim);
  Tensor q = project(query, 0), k = project(key, 1), v = project(value, 2);
  auto append = [&](const Tensor& extra_k, const Tensor& extra_v) {
    k = functional::cat({k, extra_k.expand({1, batch, embed_dim})}, 0);
    v = functional::cat({v, extra_v.expand({1, batch, embed_dim})}, 0);
    padding = padded(padding);
    mask = padded(mask);
  };
  if (bias_k.defined()) append(bias_k, bias_v);
  if (options.add_zero_attn)
    append(Tensor::zeros({1, 1, embed_dim}), Tensor::zeros({1, 1, embed_dim}));
  const int64_t steps = k.size(0);
  // (L, N, E) to (N, heads, L, head).
  auto by_head = [&](const Tensor& x) {
    return x.reshape({x.size(0), batch, num_heads, head}).permute({1, 2, 0, 3});
  };
  Tensor scores = functional::matmul(by_head(q), by_head(k).transpose(2, 3));
  if (mask.defined()) {
    if (mask.dim() == 3) {
      OCTET_CHECK(mask.size(0) == batch * num_heads, invalid_argument,
                  "MultiheadAttention: attn_mask {}; expected (L, S) or (N*heads, L, S)",
                  octet::to_string(mask.type()));
      mask = mask.reshape({batch, num_heads, length, steps});
    }
    scores = scores + mask;
  }
  if (padding.defined()) scores = scores + padding.reshape({batch, 1, 1, steps});
  Tensor weights = functional::softmax(scores, -1);
  Tensor heads =
      functional::matmul(functional::dropout(weights, options.dropout, training()), by_head(v));
  Tensor y =
      out_proj(joined_heads(heads.permute({2, 0, 1, 3}).reshape({length, batch, embed_dim})));
  if (swapped) y = y.transpose(0, 1);
  if (unbatched) y = y.squeeze(1);
  if (!options.need_weights) return {y};
  if (options.average_attn_weights) weights = functional::mean(weights, {1});
  weights = result_weights(weights);
  return {y, unbatched ? weights.squeeze(0) : weights};
}

Attrs MultiheadAttention::config() const {
  return {{"embed_dim", embed_dim},
          {"num_heads", num_heads},
          {"dropout", options.dropout},
          {"bias", options.bias},
          {"add_bias_kv", options.add_bias_kv},
          {"add_zero_attn", options.add_zero_attn},
          {"kdim", options.kdim},
          {"vdim", options.vdim},
          {"batch_first", options.batch_first},
          {"need_weights", options.need_weights},
          {"average_attn_weights", options.average_attn_weights}};
}

std::shared_ptr<MultiheadAttention> MultiheadAttention::from_config(const Attrs& c) {
  return make<MultiheadAttention>(
      c.get_int("embed_dim"), c.get_int("num_heads"),
      AttentionOptions{.dropout = c.get_double("dropout"),
                       .bias = c.get_bool("bias"),
                       .add_bias_kv = c.get_bool("add_bias_kv"),
                       .add_zero_attn = c.get_bool("add_zero_attn"),
                       .kdim = c.get_int("kdim"),
                       .vdim = c.get_int("vdim"),
                       .batch_first = c.get_bool("batch_first"),
                       .need_weights = c.get_bool("need_weights"),
                       .average_attn_weights = c.get_bool("average_attn_weights")});
}

std::shared_ptr<NonDynamicallyQuantizableLinear> NonDynamicallyQuantizableLinear::from_config(
    const Attrs& c) {
  return make<NonDynamicallyQuantizableLinear>(c.get_int("in_features"), c.get_int("out_features"),
                                               c.get_bool("bias"));
}

}  // namespace octet::nn
