// Post-training static quantization in eager mode: the example of PyTorch's documents, line by
// line.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

// A floating point model where some layers could be statically quantized.
struct M : nn::Module {
  // QuantStub converts tensors from floating point to quantized, DeQuantStub back.
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(1, 1, 1));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = quant(x);
    x = conv(x);
    x = relu(x);
    x = dequant(x);
    return x;
  }
};

int main() {
  auto model_fp32 = nn::make<M>();
  model_fp32->eval();  // static quantization works on a model in eval mode

  // Which observers to attach. "fbgemm" for servers, "qnnpack" for mobile; "native" is octet's own
  // default.
  model_fp32->qconfig = quant::get_default_qconfig("fbgemm");

  // Fuse the activation into the layer before it.
  auto model_fp32_fused = quant::fuse_modules(model_fp32, {{"conv", "relu"}});

  // Insert observers, which watch the tensors during calibration.
  auto model_fp32_prepared = quant::prepare(model_fp32_fused);

  // Calibrate. With real data, a representative part of it.
  Tensor input_fp32 = Tensor::randn({4, 1, 4, 4}, 0);
  model_fp32_prepared->forward(input_fp32);

  // Quantize the weights, keep each result's scale and zero point, put quantized modules in place.
  auto model_int8 = quant::convert(model_fp32_prepared);

  // Run: the convolution is computed in int8.
  Tensor res = model_int8->forward(input_fp32);
  Tensor expected = model_fp32->forward(input_fp32);

  std::cout << nn::to_string(*model_int8) << "\n";
  // Each value is off by half a step of the input's, the weight's and the result's scale at most; a
  // whole step of each is plenty.
  double step = model_int8->conv.as<nn::quantized::ConvReLU2d>().scale +
                model_int8->quant.as<nn::quantized::Quantize>().scale;
  return allclose(res, expected, 0.02, step) ? 0 : 1;
}
