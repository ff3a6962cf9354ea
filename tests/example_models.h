#pragma once
// The models of examples/models, small.

#include <functional>
#include <string>
#include <vector>

#include "examples/models/bert.h"
#include "examples/models/bilstm.h"
#include "examples/models/mobilenet_v2.h"
#include "examples/models/resnet18.h"
#include "octet/base/random.h"

namespace octet::testing {

// Random token ids (n, steps) below `vocabulary`.
inline Tensor token_ids(int64_t n, int64_t steps, int64_t vocabulary, uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> ids(static_cast<size_t>(n * steps));
  for (int64_t& id : ids) id = random.integer(0, vocabulary - 1);
  return Tensor::from(ids, {n, steps});
}

struct SmallModel {
  std::string name;
  nn::ModulePtr model;                                // in training mode, as made
  std::function<Tensor(int64_t n, uint64_t seed)> x;  // an input for n samples
};

// ResNet18, MobileNetV2, Bert (2 layers), BiLSTM, with weights drawn from manual_seed(seed).
inline std::vector<SmallModel> small_models(uint64_t seed = 1) {
  manual_seed(seed);
  constexpr int64_t kWords = 40, kSteps = 9;
  auto images = [](int64_t n, uint64_t s) { return Tensor::randn({n, 3, 32, 32}, s); };
  auto words = [](int64_t n, uint64_t s) { return token_ids(n, kSteps, kWords, s); };
  return {
      {"ResNet18",
       nn::make<models::ResNet18>(models::ResNet18Options{.num_classes = 10, .width = 8}), images},
      {"MobileNetV2",
       nn::make<models::MobileNetV2>(
           models::MobileNetV2Options{.num_classes = 10,
                                      .stages = {{1, 8, 1, 1}, {3, 16, 2, 2}, {3, 16, 1, 1}},
                                      .dropout = 0.1}),
       images},
      {"Bert",
       nn::make<models::Bert>(models::BertOptions{.vocabulary = kWords,
                                                  .hidden = 32,
                                                  .layers = 2,
                                                  .heads = 4,
                                                  .intermediate = 64,
                                                  .max_positions = 64}),
       words},
      {"BiLSTM",
       nn::make<models::BiLSTM>(models::BiLSTMOptions{
           .vocabulary = kWords, .embedding_dim = 16, .hidden = 16, .layers = 2, .num_classes = 5}),
       words},
  };
}

}  // namespace octet::testing
