// Dynamic quantization in eager mode: weights are quantized now, activations at each call.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return fc(x); }
};

int main() {
  auto model_fp32 = nn::make<M>();

  auto model_int8 = quant::quantize_dynamic(model_fp32,                  // the original model
                                            quant::types<nn::Linear>(),  // the layers to quantize
                                            // the dtype of their weights
                                            DType::qint8);

  Tensor input_fp32 = Tensor::randn({4, 4, 4, 4}, 0);
  Tensor res = model_int8->forward(input_fp32);

  std::cout << nn::to_string(*model_int8) << "\n";
  return allclose(res, model_fp32->forward(input_fp32), 0.05, 0.05) ? 0 : 1;
}
