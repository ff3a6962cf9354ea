// Milliseconds of one training step of the CIFAR ResNet-8 (forward, cross entropy, backward, SGD),
// the median of `steps`.
//   bench_train_step [threads] [batch] [steps]
// scripts/oracle/train_step.py runs this and PyTorch in turns.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "examples/models/resnet8.h"
#include "octet/autograd/autograd.h"
#include "octet/base/parallel.h"
#include "octet/nn/loss.h"
#include "octet/nn/optim.h"

int main(int argc, char** argv) {
  using namespace octet;
  set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const int64_t batch = argc > 2 ? std::atoi(argv[2]) : 64;
  const int steps = argc > 3 ? std::atoi(argv[3]) : 20;
  auto model = nn::make<models::ResNet8>();
  nn::optim::SGD optimizer(model->parameters(),
                           {.lr = 0.01, .momentum = 0.9, .weight_decay = 1e-4});
  Tensor x = Tensor::randn({batch, 3, 32, 32}, 1), y = Tensor::empty({batch}, DType::int64);
  for (int64_t i = 0; i < batch; ++i) y.data<int64_t>()[i] = i % 10;
  std::vector<double> times;
  double loss_value = 0;
  for (int i = 0; i < steps + 5; ++i) {
    auto start = std::chrono::steady_clock::now();
    optimizer.zero_grad();
    Tensor loss = functional::cross_entropy(model->forward(x), y);
    autograd::backward(loss);
    optimizer.step();
    if (i >= 5)
      times.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
              .count());
    loss_value = loss.item();
  }
  std::sort(times.begin(), times.end());
  std::printf("%.3f ms, loss %.4f\n", times[times.size() / 2], loss_value);
}
