// Quantization-aware training in eager mode: the example of PyTorch's documents, with the training
// loop it leaves out.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(1, 1, 1));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(1));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = quant(x);
    x = conv(x);
    x = bn(x);
    x = relu(x);
    x = dequant(x);
    return x;
  }
};

// Learns y = relu(1 - 2x).
float training_loop(nn::Module& model) {
  nn::optim::SGD optimizer(model.parameters(), {.lr = 0.05});
  float last = 0;
  for (uint64_t step = 0; step < 200; ++step) {
    Tensor x = Tensor::randn({4, 1, 4, 4}, step);
    Tensor loss = functional::mse_loss(model.forward(x), functional::relu(x * -2.0 + 1.0));
    optimizer.zero_grad();
    autograd::backward(loss);
    optimizer.step();
    last = static_cast<float>(loss.item());
  }
  return last;
}

int main() {
  manual_seed(1);  // the initial weights
  auto model_fp32 = nn::make<M>();
  model_fp32->train();  // QAT works on a model in training mode

  model_fp32->qconfig = quant::get_default_qat_qconfig("fbgemm");
  auto model_fp32_fused = quant::fuse_modules(model_fp32, {{"conv", "bn", "relu"}});

  // Insert observers and fake-quantize modules.
  auto model_fp32_prepared = quant::prepare_qat(model_fp32_fused);
  float loss = training_loop(*model_fp32_prepared);

  // Quantize: batch norm is folded into the convolution.
  model_fp32_prepared->eval();
  model_fp32_prepared->apply(quant::disable_observer);  // the ranges are chosen
  auto model_int8 = quant::convert(model_fp32_prepared);

  // Within the range seen in training: beyond it the fake quantization stops at code 127
  // (reduce_range), int8 layers at 255.
  Tensor input_fp32 = Tensor::rand({4, 1, 4, 4}, 1000, -1.5, 1.5);
  Tensor res = model_int8->forward(input_fp32);
  std::cout << nn::to_string(*model_int8) << "\nloss at the end of training: " << loss << "\n";
  // The converted model and the one that was trained agree to a step of the result.
  Tensor trained = model_fp32_prepared->forward(input_fp32);
  double step = model_int8->conv.as<nn::quantized::ConvReLU2d>().scale;
  return allclose(res, trained, 0, 1.01 * step) ? 0 : 1;
}
