#pragma once
// Multi-head attention (Vaswani et al. 2017). Names, arguments and parameter names are torch.nn's.

#include <string>

#include "octet/nn/linear.h"
#include "octet/nn/module.h"

namespace octet::nn {

// A Linear that dynamic quantization leaves float, as PyTorch does with the last layer of
// attention.
class NonDynamicallyQuantizableLinear : public Linear {
 public:
  using Linear::Linear;
  static std::shared_ptr<NonDynamicallyQuantizableLinear> from_config(const Attrs& c);
};

struct AttentionOptions {
  double dropout = 0;  // of the attention weights, in training
  bool bias = true;
  bool add_bias_kv = false;          // one more key and value, which are trained
  bool add_zero_attn = false;        // one more key and value of zeros
  int64_t kdim = 0, vdim = 0;        // sizes of keys and values; 0: embed_dim
  bool batch_first = false;          // (N, L, E) instead of (L, N, E)
  bool need_weights = true;          // whether the attention weights are a second result
  bool average_attn_weights = true;  // over the heads
};

// softmax(q k^T / sqrt(embed_dim/num_heads) + mask) v for each head, of projected queries, keys and
// values; the heads behind one another are projected once more. Inputs: query (L, N, E), key (S, N,
// kdim), value (S, N, vdim), or all without N; optionally (undefined: none) key_padding_mask (N, S)
// and attn_mask (L, S) or (N*num_heads, L, S): bool, true where attention is not allowed, or float,
// added. Results: (L, N, E) and, if need_weights, the weights: (N, L, S), or (N, num_heads, L, S)
// unless averaged.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(int64_t embed_dim, int64_t num_heads, AttentionOptions options = {});
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Attrs config() const override;
  static std::shared_ptr<MultiheadAttention> from_config(const Attrs& c);

  int64_t embed_dim, num_heads;
  AttentionOptions options;
  // (3*embed_dim, embed_dim), if kdim and vdim are embed_dim
  Parameter in_proj_weight;
  // (embed_dim, embed_dim | kdim | vdim) otherwise
  Parameter q_proj_weight, k_proj_weight, v_proj_weight;
  Parameter in_proj_bias;    // (3*embed_dim)
  Parameter bias_k, bias_v;  // (1, 1, embed_dim)
  Slot out_proj;             // Linear(embed_dim, embed_dim)

 protected:
  // The steps that quantized forms do otherwise. Queries (part 0, scaled), keys (1) and values (2),
  // (L, N, embed_dim).
  virtual Tensor project(const Tensor& x, int64_t part);
  // What goes into out_proj, and the attention weights.
  virtual Tensor joined_heads(const Tensor& heads) { return heads; }
  virtual Tensor result_weights(const Tensor& weights) { return weights; }
  double scaling() const;  // of queries
  // Weight and bias of a projection.
  std::pair<Tensor, Tensor> projection(int64_t part);

 private:
  bool same_sizes() const { return in_proj_weight.defined(); }
};

}  // namespace octet::nn
