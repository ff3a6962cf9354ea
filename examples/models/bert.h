#pragma once
// The BERT encoder (Devlin et al. 2018), attention written out. The parameters have the names of
// Hugging Face's BertModel (without its pooling layer), so its state dicts load.

#include <cmath>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

struct BertOptions {  // BERT-base
  int64_t vocabulary = 30522;
  int64_t hidden = 768;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t intermediate = 3072;
  int64_t max_positions = 512;
  int64_t token_types = 2;
  double dropout = 0.1;
  double eps = 1e-12;  // of the layer norms
};

// Token ids (N, T), int64 -> (N, T, hidden): the sum of what stands for the token, for the token's
// type (0, all tokens are of one text) and for its position.
struct BertEmbeddings : nn::Module {
  explicit BertEmbeddings(const BertOptions& o)
      : word_embeddings(slot("word_embeddings", nn::Embedding(o.vocabulary, o.hidden, 0))),
        position_embeddings(slot("position_embeddings", nn::Embedding(o.max_positions, o.hidden))),
        token_type_embeddings(
            slot("token_type_embeddings", nn::Embedding(o.token_types, o.hidden))),
        layer_norm(slot("LayerNorm", nn::LayerNorm(o.hidden, o.eps))),
        dropout(slot("dropout", nn::Dropout(o.dropout))) {}
  Tensor forward(Tensor ids) override {
    const int64_t steps = ids.size(1);
    Tensor types = token_type_embeddings(Tensor::zeros({steps}, DType::int64));
    Tensor x = word_embeddings(ids) + types + position_embeddings(Tensor::arange(steps));
    return dropout(layer_norm(x));
  }
  nn::Slot word_embeddings, position_embeddings, token_type_embeddings, layer_norm, dropout;
};

// softmax(q k^T / sqrt(d) + mask) v for each head of size d, the heads behind one another. Inputs:
// x (N, T, hidden) and optionally the mask. Result: (N, T, hidden).
struct BertSelfAttention : nn::Module {
  explicit BertSelfAttention(const BertOptions& o)
      : heads(o.heads),
        head_size(o.hidden / o.heads),
        query(slot("query", nn::Linear(o.hidden, o.hidden))),
        key(slot("key", nn::Linear(o.hidden, o.hidden))),
        value(slot("value", nn::Linear(o.hidden, o.hidden))),
        dropout(slot("dropout", nn::Dropout(o.dropout))) {}
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    const Tensor& x = inputs[0];
    const int64_t steps = x.size(1);
    auto by_head = [&](const Tensor& t) {
      return t.reshape({-1, steps, heads, head_size}).permute({0, 2, 1, 3});
    };
    // (N, heads, T, head_size)
    Tensor q = by_head(query(x)), k = by_head(key(x)), v = by_head(value(x));
    Tensor scores =
        functional::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(head_size));
    if (inputs.size() > 1 && inputs[1].defined()) scores = scores + inputs[1];
    Tensor y = functional::matmul(dropout(functional::softmax(scores, -1)), v);
    return {y.permute({0, 2, 1, 3}).reshape({-1, steps, heads * head_size})};
  }
  int64_t heads, head_size;
  nn::Slot query, key, value, dropout;
};

// layer_norm(dense(x) + residual): how both halves of a layer end. Inputs: x (N, T, in) and
// residual (N, T, hidden).
struct BertOutput : nn::Module {
  BertOutput(int64_t in, const BertOptions& o)
      : dense(slot("dense", nn::Linear(in, o.hidden))),
        layer_norm(slot("LayerNorm", nn::LayerNorm(o.hidden, o.eps))),
        dropout(slot("dropout", nn::Dropout(o.dropout))) {}
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return {layer_norm(dropout(dense(inputs[0])) + inputs[1])};
  }
  nn::Slot dense, layer_norm, dropout;
};

// Inputs and result: as BertSelfAttention's.
struct BertAttention : nn::Module {
  explicit BertAttention(const BertOptions& o)
      : self(slot("self", BertSelfAttention(o))), output(slot("output", BertOutput(o.hidden, o))) {}
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return {output(self(inputs)[0], inputs[0])};
  }
  nn::Slot self, output;
};

struct BertIntermediate : nn::Module {
  explicit BertIntermediate(const BertOptions& o)
      : dense(slot("dense", nn::Linear(o.hidden, o.intermediate))) {}
  Tensor forward(Tensor x) override { return functional::gelu(dense(x)); }
  nn::Slot dense;
};

struct BertLayer : nn::Module {
  explicit BertLayer(const BertOptions& o)
      : attention(slot("attention", BertAttention(o))),
        intermediate(slot("intermediate", BertIntermediate(o))),
        output(slot("output", BertOutput(o.intermediate, o))) {}
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    Tensor x = attention(inputs)[0];
    return {output(intermediate(x), x)};
  }
  nn::Slot attention, intermediate, output;
};

struct BertEncoder : nn::Module {
  explicit BertEncoder(const BertOptions& o) : layer(slot("layer", layers(o))) {}
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    auto& list = layer.as<nn::ModuleList>();
    for (size_t i = 0; i < list.size(); ++i) inputs[0] = list[i](inputs)[0];
    return {inputs[0]};
  }
  nn::Slot layer;

 private:
  static nn::ModuleList layers(const BertOptions& o) {
    nn::ModuleList list;
    for (int64_t i = 0; i < o.layers; ++i) list.append(BertLayer(o));
    return list;
  }
};

// Inputs: token ids (N, T), int64, T at most max_positions; optionally an attention mask, float32,
// that is added to the scores and so broadcast to (N, heads, T, T): (N, 1, 1, T) with 0 for tokens
// that count and -10000 for padding. Result: (N, T, hidden), what the last layer gives. Error if
// heads does not divide hidden.
struct Bert : nn::Module {
  explicit Bert(const BertOptions& o = {})
      : embeddings(slot("embeddings", BertEmbeddings(checked(o)))),
        encoder(slot("encoder", BertEncoder(o))) {}
  Tensor forward(Tensor ids) override { return forward(std::vector<Tensor>{ids})[0]; }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    inputs[0] = embeddings(inputs[0]);
    return encoder(inputs);
  }
  nn::Slot embeddings, encoder;

 private:
  static const BertOptions& checked(const BertOptions& o) {
    if (o.heads < 1 || o.hidden % o.heads != 0)
      fail(ErrorCode::invalid_argument,
           "Bert: heads = " + std::to_string(o.heads) +
               "; expected a divisor of hidden = " + std::to_string(o.hidden));
    return o;
  }
};

}  // namespace models
