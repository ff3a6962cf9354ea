// Training as users write it.
#include <gtest/gtest.h>

#include "examples/models/resnet8.h"
#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/loss.h"
#include "octet/nn/optim.h"

namespace octet {
namespace {

// Pictures with a bright quarter, which is the class.
std::pair<Tensor, Tensor> quarters(int64_t n, int64_t size, uint64_t seed) {
  Tensor x = Tensor::randn({n, 3, size, size}, seed), y = Tensor::empty({n}, DType::int64);
  Random random(seed);
  for (int64_t i = 0; i < n; ++i) {
    int64_t k = random.integer(0, 3), half = size / 2;
    y.data<int64_t>()[i] = k;
    for (int64_t c = 0; c < 3; ++c)
      for (int64_t h = 0; h < half; ++h)
        for (int64_t w = 0; w < half; ++w)
          x.data<float>()[((i * 3 + c) * size + h + k / 2 * half) * size + w + k % 2 * half] += 1;
  }
  return {x, y};
}

TEST(Train, ASmallResNetLearnsInAFewSteps) {
  manual_seed(1);
  auto model = nn::make<models::ResNet8>();
  nn::optim::SGD optimizer(model->parameters(),
                           {.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-4, .nesterov = true});
  double first = 0, last = 0;
  for (int i = 0; i < 15; ++i) {
    auto [x, y] = quarters(16, 16, static_cast<uint64_t>(i));
    optimizer.zero_grad();
    Tensor loss = functional::cross_entropy((*model)(x), y, {.label_smoothing = 0.05});
    autograd::backward(loss);
    optimizer.step();
    (i == 0 ? first : last) = loss.item();
  }
  EXPECT_LT(last, 0.6 * first);
  model->eval();
  auto [x, y] = quarters(64, 16, 99);
  Tensor guess = functional::argmax((*model)(x), 1);
  int64_t right = 0;
  for (int64_t i = 0; i < 64; ++i) right += guess.data<int64_t>()[i] == y.data<int64_t>()[i];
  EXPECT_GE(right, 56);
}

TEST(Train, ActivationsStayChannelsLast) {
  auto model = nn::make<models::ResNet8>();
  Tensor y = model->submodule("layer1")->forward(
      model->submodule("conv1")->forward(Tensor::randn({2, 3, 8, 8}, 1)));
  EXPECT_TRUE(y.is_contiguous(MemoryFormat::channels_last));
  EXPECT_FALSE(y.is_contiguous());
}

}  // namespace
}  // namespace octet
