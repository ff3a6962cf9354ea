// "After post-training quantization the forward pass still seems to use float32 weights: when I
// dequantize and compute by hand I get the same. Do they use float32 or int8? What does it mean to
// be quantized?" The model is asked what ran (debug::explain), and both ways are computed by hand:
// in floats as the question does, and in integers as the kernel does.
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
  std::cout << "in integers by hand: " << differ << " of " << x.size() << " values differ\n";

  // By hand as in the question: dequantized inputs times dequantized weights, in float32.
  auto x_float = conv_inputs.dequantize().contiguous().to_vector<float>();
  const float w_float = conv_weights.dequantize().to_vector<float>()[0];
  int float_differ = 0;
  for (size_t i = 0; i < x_float.size(); ++i) {
    const float value = x_float[i] * w_float + conv.bias().to_vector<float>()[0];
    const auto y = static_cast<int32_t>(std::nearbyint(value / static_cast<float>(conv.scale)));
    float_differ += std::clamp(y + z_y, z_y, 255) != output[i];
  }
  std::cout << "in floats by hand: " << float_differ << " of " << x_float.size()
            << " values differ\n\n";

  // What ran, in the kernel's own words, and whether it is right.
  const debug::Explanation e =
      debug::explain(*model_int8, {{input_fp32}}, {.seconds = 0, .verify = true});
  const auto conv_step = std::find_if(e.steps.begin(), e.steps.end(),
                                      [](const auto& step) { return step.name == "conv"; });
  const debug::ExplainedStep& c = *conv_step;
  std::cout
      << "Did forward() use float32 or int8 weights?\n"
      << "  int8. The kernel that ran is " << c.description.loop << ": it multiplies "
      << debug::scheme(c.inputs[0].type) << "\n  by " << debug::scheme(c.inputs[1].type)
      << ",\n  sums in " << c.description.accumulator << " (here |sum| <= " << *c.largest_sum
      << "), then: " << c.description.epilogue << ".\n"
      << "Why does a computation on dequantized floats give the same?\n"
      << "  A code and its scale are the same number as the dequantized float: s_x*(q_x-z_x) *\n"
      << "  s_w*q_w = (s_x*s_w) * ((q_x-z_x)*q_w). One way multiplies by the scales before the\n"
      << "  sum, the other after it. Only rounding differs, and most of it is below a step.\n"
      << "What are the float32 scales for, then?\n"
      << "  One multiplication per result: " << c.description.rounding << ".\n\n"
      << to_string(e);
  const bool on_codes = c.numbers == debug::Numbers::integers && e.not_on_codes("").empty();
  return differ == 0 && on_codes && c.verified == "identical" ? 0 : 1;
}
