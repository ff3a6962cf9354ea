// A small network learns to read digits, with everything that training takes: loader, augmentation,
// optimizer, schedule.
#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/io/data_loader.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "tests/data.h"

namespace octet {
namespace {

TEST(DataTrain, ASmallNetworkReadsDigitsAfterAHundredBatches) {
  OCTET_NEED_DATA("mnist/train20000.npz");
  manual_seed(1);
  const Preprocess preprocess{1 / 255.0f, {0.1307f}, {0.3081f}};
  auto file = [](const char* name) { return testing::data_dir() / "mnist" / name; };
  DataLoader train(Dataset::open_images(file("train20000.npz"), preprocess),
                   {.batch_size = 64, .shuffle = true, .augmentation = {.crop_padding = 1}});
  auto model = nn::make<nn::Sequential>(
      nn::Conv2d(1, 8, 3, {.stride = 2}), nn::BatchNorm2d(8), nn::ReLU(), nn::Conv2d(8, 16, 3),
      nn::BatchNorm2d(16), nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(), nn::Linear(400, 10));
  const int64_t steps = 100;
  nn::optim::AdamW optimizer(model->parameters());
  nn::optim::OneCycleLR schedule(optimizer, {.max_lr = 0.02, .total_steps = steps});
  int64_t step = 0;
  for (const Batch& batch : train) {
    optimizer.zero_grad();
    autograd::backward(
        functional::cross_entropy((*model)(batch.inputs.at("images")), batch.labels));
    nn::optim::clip_grad_norm(model->parameters(), 5);
    optimizer.step();
    if (++step == steps) break;
    schedule.step();
  }
  model->eval();
  autograd::NoGrad no_grad;
  Batch test = Dataset::open_images(file("test5000.npz"), preprocess).get(0, 1000);
  Tensor guess = functional::argmax((*model)(test.inputs.at("images")), 1);
  int64_t right = 0;
  for (int64_t i = 0; i < test.size; ++i)
    right += guess.data<int64_t>()[i] == test.labels.data<int64_t>()[i];
  EXPECT_GE(right, 950) << "of 1000";
}

}  // namespace
}  // namespace octet
