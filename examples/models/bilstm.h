#pragma once
// A bidirectional LSTM (Graves and Schmidhuber 2005) that classifies sequences of tokens.

#include <string>
#include <utility>

#include "octet/base/error.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

struct BiLSTMOptions {
  int64_t vocabulary = 10000;
  int64_t embedding_dim = 128;
  int64_t hidden = 128;  // in each direction
  int64_t layers = 1;
  int64_t num_classes = 2;
  std::string pooling = "mean";  // of the LSTM's results over time, or the "last" of them
};

// Token ids (N, T), int64 -> (N, num_classes).
struct BiLSTM : nn::Module {
  explicit BiLSTM(BiLSTMOptions o = {}) : options(std::move(o)) {
    if (options.pooling != "mean" && options.pooling != "last")
      fail(ErrorCode::invalid_argument,
           "BiLSTM: expected pooling \"mean\" or \"last\", got \"" + options.pooling + "\"");
  }

  BiLSTMOptions options;
  nn::Slot embedding = slot("embedding", nn::Embedding(options.vocabulary, options.embedding_dim));
  nn::Slot lstm = slot(
      "lstm", nn::LSTM(options.embedding_dim, options.hidden,
                       {.num_layers = options.layers, .batch_first = true, .bidirectional = true}));
  nn::Slot classifier = slot("classifier", nn::Linear(2 * options.hidden, options.num_classes));

  Tensor forward(Tensor ids) override {
    Tensor y = lstm(embedding(ids));  // (N, T, 2 * hidden)
    return classifier(options.pooling == "mean" ? functional::mean(y, {1}) : y.select(1, -1));
  }
};

}  // namespace models
