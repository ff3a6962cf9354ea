#pragma once
// Tables of embeddings with quantized rows (torch.nn.quantized.Embedding, EmbeddingBag): 8- or
// 4-bit codes with a float scale and a float zero point per row (docs/numerics.md, "float
// qparams"). Indices in, float32 out: only the rows that are asked for are dequantized. Beside them
// the forms for training, whose rows are fake-quantized.
//
// from_float(module) takes the float table with float_qparams_weight_only_qconfig (or its _4bit)
// or, in training, default_embedding_qat_qconfig; Error if the qconfig's weight has another scheme.

#include <memory>
#include <string>

#include "octet/nn/embedding.h"

namespace octet::nn::qat {

class Embedding : public nn::Embedding {
 public:
  Embedding(const nn::Embedding& table, ModulePtr weight_fake_quant);
  Tensor forward(Tensor index) override;
  // The parameters are shared with the float table.
  static std::shared_ptr<Embedding> from_float(Module& module);
  static std::shared_ptr<Embedding> from_config(const Attrs& config);

  Slot weight_fake_quant;
};

class EmbeddingBag : public nn::EmbeddingBag {
 public:
  EmbeddingBag(const nn::EmbeddingBag& table, ModulePtr weight_fake_quant);
  using nn::EmbeddingBag::forward;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  static std::shared_ptr<EmbeddingBag> from_float(Module& module);
  static std::shared_ptr<EmbeddingBag> from_config(const Attrs& config);

  Slot weight_fake_quant;
};

}  // namespace octet::nn::qat

namespace octet::nn::quantized {

// What they share: weight() (num_embeddings, embedding_dim), quint8 or quint4x2, per row.
class Table : public Module {
 public:
  const Tensor& weight() const { return weight_; }
  // Error unless it has the shape it had and float qparams per row.
  void set_weight(Tensor weight);
  std::map<std::string, Tensor> extra_state() const override { return {{"weight", weight_}}; }
  void set_extra_state(const std::map<std::string, Tensor>& state) override {
    set_weight(state.at("weight"));
  }
  std::string type_name() const override;  // "QuantizedEmbedding"
  std::string extra_repr() const override;
  Attrs config() const override;
  int64_t num_embeddings() const { return weight_.size(0); }
  int64_t embedding_dim() const { return weight_.size(1); }

 protected:
  explicit Table(Tensor weight) : weight_(std::move(weight)) {}

 private:
  Tensor weight_;
};

class Embedding : public Table {
 public:
  explicit Embedding(Tensor weight) : Table(std::move(weight)) {}
  Tensor forward(Tensor index) override;
  static std::shared_ptr<Embedding> from_float(Module& module);
  static std::shared_ptr<Embedding> from_config(const Attrs& config);
};

class EmbeddingBag : public Table {
 public:
  EmbeddingBag(Tensor weight, EmbeddingBagOptions options)
      : Table(std::move(weight)), options(std::move(options)) {}
  Tensor forward(Tensor indices) override;
  // As nn::EmbeddingBag's: indices, offsets, per_sample_weights.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Attrs config() const override;
  static std::shared_ptr<EmbeddingBag> from_float(Module& module);
  static std::shared_ptr<EmbeddingBag> from_config(const Attrs& config);

  EmbeddingBagOptions options;
};

// On the dequantized table.
namespace reference {

class Embedding : public quantized::Embedding {
 public:
  using quantized::Embedding::Embedding;
  Tensor forward(Tensor index) override;
  std::string type_name() const override { return "QuantizedReferenceEmbedding"; }
  static std::shared_ptr<Embedding> from_float(Module& module);
  static std::shared_ptr<Embedding> from_config(const Attrs& config);
};

class EmbeddingBag : public quantized::EmbeddingBag {
 public:
  using quantized::EmbeddingBag::EmbeddingBag;
  using quantized::EmbeddingBag::forward;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  std::string type_name() const override { return "QuantizedReferenceEmbeddingBag"; }
  static std::shared_ptr<EmbeddingBag> from_float(Module& module);
  static std::shared_ptr<EmbeddingBag> from_config(const Attrs& config);
};

}  // namespace reference
}  // namespace octet::nn::quantized
