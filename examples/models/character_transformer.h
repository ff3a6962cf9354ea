#pragma once
// A small language model of characters: a decoder-only transformer with layer norms before each
// half of a block (A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019),
// its text, and its training.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

struct CharacterTransformerOptions {
  int64_t vocabulary = 96;
  int64_t hidden = 128;
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t steps = 64;  // characters of a sample
};

// softmax(q k^T / sqrt(d) + mask) v for each head; a step sees itself and those before it.
struct CausalSelfAttention : nn::Module {
  explicit CausalSelfAttention(const CharacterTransformerOptions& o)
      : steps(o.steps),
        heads(o.heads),
        head_size(o.hidden / o.heads),
        query(slot("query", nn::Linear(o.hidden, o.hidden))),
        key(slot("key", nn::Linear(o.hidden, o.hidden))),
        value(slot("value", nn::Linear(o.hidden, o.hidden))),
        out(slot("out", nn::Linear(o.hidden, o.hidden))) {}
  Tensor forward(Tensor x) override {
    auto by_head = [&](const Tensor& t) {
      return t.reshape({-1, steps, heads, head_size}).permute({0, 2, 1, 3});
    };
    std::vector<float> later(static_cast<size_t>(steps * steps), 0.F);
    for (int64_t i = 0; i < steps; ++i)
      for (int64_t j = i + 1; j < steps; ++j)
        later[static_cast<size_t>(i * steps + j)] = -std::numeric_limits<float>::infinity();
    Tensor q = by_head(query(x)), k = by_head(key(x)), v = by_head(value(x));
    Tensor scores =
        functional::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(head_size));
    scores = scores + Tensor::from(later, {steps, steps});
    Tensor y = functional::matmul(functional::softmax(scores, -1), v);
    return out(y.permute({0, 2, 1, 3}).reshape({-1, steps, heads * head_size}));
  }
  int64_t steps, heads, head_size;
  nn::Slot query, key, value, out;
};

struct CharacterBlock : nn::Module {
  explicit CharacterBlock(const CharacterTransformerOptions& o)
      : norm1(slot("norm1", nn::LayerNorm(o.hidden))),
        attention(slot("attention", CausalSelfAttention(o))),
        norm2(slot("norm2", nn::LayerNorm(o.hidden))),
        fc1(slot("fc1", nn::Linear(o.hidden, 4 * o.hidden))),
        fc2(slot("fc2", nn::Linear(4 * o.hidden, o.hidden))) {}
  Tensor forward(Tensor x) override {
    x = x + attention(norm1(x));
    return x + fc2(functional::gelu(fc1(norm2(x))));
  }
  nn::Slot norm1, attention, norm2, fc1, fc2;
};

// Characters (N, steps), int64 -> scores of the next one (N, steps, vocabulary).
struct CharacterTransformer : nn::Module {
  explicit CharacterTransformer(const CharacterTransformerOptions& o = {})
      : steps(o.steps),
        characters(slot("characters", nn::Embedding(o.vocabulary, o.hidden))),
        positions(slot("positions", nn::Embedding(o.steps, o.hidden))),
        blocks(slot("blocks", sequence(o))),
        norm(slot("norm", nn::LayerNorm(o.hidden))),
        head(slot("head", nn::Linear(o.hidden, o.vocabulary))) {}
  static nn::Sequential sequence(const CharacterTransformerOptions& o) {
    nn::Sequential all;
    for (int64_t i = 0; i < o.layers; ++i) all.append(CharacterBlock(o));
    return all;
  }
  Tensor forward(Tensor x) override {
    return head(norm(blocks(characters(x) + positions(Tensor::arange(steps)))));
  }
  int64_t steps;
  nn::Slot characters, positions, blocks, norm, head;
};

// A character as a number below 96: those of ASCII that print, and the end of a line; others are
// spaces.
inline std::vector<int64_t> character_codes(const std::string& text) {
  std::vector<int64_t> codes;
  for (const char c : text) codes.push_back(c == '\n' ? 95 : c >= ' ' && c < 127 ? c - ' ' : 0);
  return codes;
}

// Samples that begin at these places of a text: characters (N, steps), and what follows each.
struct CharacterSamples {
  Tensor characters, next;
  CharacterSamples(const std::vector<int64_t>& codes, const std::vector<size_t>& places,
                   int64_t steps) {
    std::vector<int64_t> x, y;
    for (const size_t at : places)
      for (size_t i = 0; i < static_cast<size_t>(steps); ++i) {
        x.push_back(codes.at(at + i));
        y.push_back(codes.at(at + i + 1));
      }
    const auto count = static_cast<int64_t>(places.size());
    characters = Tensor::from(x, {count, steps});
    next = Tensor::from(y, {count, steps});
  }
  // `count` of them, spread evenly.
  static CharacterSamples spread(const std::vector<int64_t>& codes, size_t count, int64_t steps) {
    std::vector<size_t> places;
    const size_t room = codes.size() - static_cast<size_t>(steps) - 1;
    for (size_t i = 0; i < count; ++i) places.push_back(i * room / count);
    return {codes, places, steps};
  }
};

// The mean of -log p of what follows; its exponential is the perplexity.
inline Tensor next_character_loss(const Tensor& scores, const Tensor& next) {
  return functional::cross_entropy(scores.reshape({-1, scores.size(2)}), next.reshape({-1}));
}

// AdamW on random places, with a learning rate that rises for a tenth of the updates and falls
// then. `progress`: of each update, its number and the loss before it.
inline void train_on_text(CharacterTransformer& model, const std::vector<int64_t>& codes,
                          int64_t updates, int64_t batch, double lr,
                          const std::function<void(int64_t, double)>& progress = {}) {
  nn::optim::AdamW optimizer(model.parameters());
  nn::optim::OneCycleLR schedule(
      optimizer,
      {.max_lr = lr, .total_steps = updates + 1, .pct_start = 0.1, .cycle_momentum = false});
  Random random(1);
  const auto room = static_cast<double>(codes.size() - static_cast<size_t>(model.steps) - 1);
  for (int64_t update = 0; update < updates; ++update) {
    std::vector<size_t> places;
    for (int64_t i = 0; i < batch; ++i)
      places.push_back(static_cast<size_t>(random.uniform() * room));
    const CharacterSamples samples(codes, places, model.steps);
    const Tensor loss = next_character_loss(model.forward(samples.characters), samples.next);
    optimizer.zero_grad();
    autograd::backward(loss);
    nn::optim::clip_grad_norm(model.parameters(), 1.0);
    optimizer.step();
    schedule.step();
    if (progress) progress(update, loss.item());
  }
}

}  // namespace models
