// "After post-training quantization the forward pass still seems to use float32 weights: how does
// it compute?" It does not: the convolution reads int8 weights and uint8 inputs and accumulates in
// int32. A manual computation on dequantized values gives nearly the same because both describe the
// same numbers. Here the integers are recomputed by hand, and the result is the module's, exactly.
#include <octet/octet.h>

#include <algorithm>
#include <cmath>
#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(1, 1, 1));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(relu(conv(quant(x)))); }
};

int main() {
  auto model_fp32 = nn::make<M>();
  model_fp32->eval();
  model_fp32->qconfig = quant::get_default_qconfig("fbgemm");
  auto prepared = quant::prepare(quant::fuse_modules(model_fp32, {{"conv", "relu"}}));
  Tensor input_fp32 = Tensor::randn({4, 1, 4, 4}, 0);
  prepared->forward(input_fp32);
  auto model_int8 = quant::convert(prepared);

  // A hook takes the inputs, weights and outputs of the fused conv + relu.
  Tensor conv_inputs, conv_weights, conv_outputs;
  model_int8->conv->add_forward_hook(
      "look", [&](nn::Module& m, const std::vector<Tensor>& i, std::vector<Tensor>& o) {
        conv_inputs = i[0];
        conv_weights = m.as<nn::quantized::ConvReLU2d>().weight();
        conv_outputs = o[0];
      });
  model_int8->forward(input_fp32);
  std::cout << "input " << to_string(conv_inputs.type()) << "\nweight "
            << to_string(conv_weights.type()) << "\noutput " << to_string(conv_outputs.type())
            << "\n";

  // By hand, in integers (docs/numerics.md): the kernel is 1x1 with one channel, so each output has
  // one product.
  const auto& conv = model_int8->conv.as<nn::quantized::ConvReLU2d>();
  auto x = conv_inputs.int_repr().contiguous().to_vector<uint8_t>();
  auto zero = static_cast<int32_t>(conv_inputs.q_zero_point());
  int32_t w = conv_weights.int_repr().to_vector<int8_t>()[0];
  auto s_x = static_cast<float>(conv_inputs.q_scale());
  auto s_w = static_cast<float>(conv_weights.q_per_channel_scales()[0]);
  float s_xw = s_x * s_w, m = s_xw / static_cast<float>(conv.scale);
  auto bias = static_cast<int32_t>(std::nearbyint(conv.bias().to_vector<float>()[0] / s_xw));
  auto z_y = static_cast<int32_t>(conv.zero_point);
  auto output = conv_outputs.int_repr().contiguous().to_vector<uint8_t>();

  int differ = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    int32_t acc = (x[i] - zero) * w + bias;
    int32_t y = static_cast<int32_t>(std::nearbyint(static_cast<float>(acc) * m)) + z_y;
    y = std::clamp(y, z_y, 255);  // the relu: nothing below zero
    differ += y != output[i];
  }
  std::cout << "manual_output and conv_outputs differ in " << differ << " of " << x.size()
            << " values\n";
  return differ;
}
