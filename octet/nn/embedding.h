#pragma once
// Tables of vectors by index.

#include <optional>
#include <string>

#include "octet/nn/module.h"

namespace octet::nn {

// weight[index] for int64 indices of any shape: (...) -> (..., embedding_dim). weight
// (num_embeddings, embedding_dim) starts standard normal; the row padding_idx starts 0 and is not
// trained. Negative padding_idx count from the end.
class Embedding : public Module {
 public:
  Embedding(int64_t num_embeddings, int64_t embedding_dim, std::optional<int64_t> padding_idx = {});
  Tensor forward(Tensor index) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Embedding> from_config(const Attrs& c);
  int64_t num_embeddings, embedding_dim;
  std::optional<int64_t> padding_idx;
  Parameter weight;

 protected:
  // forward with another weight (a fake-quantized one).
  Tensor rows_of(const Tensor& weight, const Tensor& index) const;
};

// The sum, mean or maximum of the rows of each bag of indices. Inputs: indices (bags, per bag), or
// indices (n) and offsets (bags), where each bag begins; then optionally per_sample_weights of the
// indices' shape ("sum" only). Rows padding_idx count for nothing.
struct EmbeddingBagOptions {
  std::string mode = "mean";  // "sum", "mean", "max"
  bool include_last_offset = false;
  std::optional<int64_t> padding_idx = {};
};
class EmbeddingBag : public Module {
 public:
  EmbeddingBag(int64_t num_embeddings, int64_t embedding_dim, EmbeddingBagOptions options = {});
  Tensor forward(Tensor indices) override;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<EmbeddingBag> from_config(const Attrs& c);
  int64_t num_embeddings, embedding_dim;
  EmbeddingBagOptions options;
  Parameter weight;
  // forward with another weight (a fake-quantized or quantized one).
  static Tensor bags_of(const Tensor& weight, std::vector<Tensor> inputs,
                        const EmbeddingBagOptions& options);
};

}  // namespace octet::nn
