// "Do the activations get quantized before computing with quantized weights in a dynamic linear
// layer, or are the weights dequantized? Or does it depend on the hardware?" The activations are
// quantized: the same done by hand, in integers, equals the layer exactly; and the layer is asked
// what it ran, on each instruction set that this CPU has (debug::explain).
#include <octet/octet.h>

#include <algorithm>
#include <iostream>

using namespace octet;

struct MyModel : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(10, 5));
  bool speaks = true;
  Tensor forward(Tensor x) override {
    if (speaks) std::cout << "Input dtype: " << to_string(x.dtype()) << "\n";
    x = fc(x);
    if (speaks) std::cout << "Output dtype: " << to_string(x.dtype()) << "\n";
    return x;
  }
};

int main() {
  auto model = nn::make<MyModel>();
  auto quantized_model = quant::quantize_dynamic(model, quant::types<nn::Linear>(), DType::qint8);
  std::cout << nn::to_string(*quantized_model) << "\n";

  Tensor x = Tensor::randn({3, 10}, 1);
  Tensor y = quantized_model->forward(x);
  model->speaks = quantized_model->speaks = false;

  // By hand: the input's own range chooses its scale and zero point, and only integers are
  // multiplied.
  const auto& fc = quantized_model->fc.as<nn::quantized::dynamic::Linear>();
  auto values = x.to_vector<float>();
  auto [low, high] = std::minmax_element(values.begin(), values.end());
  auto [scale, zero_point] = affine::choose_qparams_dynamic(*low, *high);
  Tensor codes = quantize_per_tensor(x, scale, zero_point, DType::quint8);
  auto q = codes.int_repr().to_vector<uint8_t>();
  auto w = fc.weight().int_repr().to_vector<int8_t>();
  auto bias = fc.bias().to_vector<float>();
  float s = static_cast<float>(scale) * static_cast<float>(fc.weight().q_scale());
  int differ = 0;
  for (int row = 0; row < 3; ++row)
    for (int out = 0; out < 5; ++out) {
      int32_t acc = 0;
      for (int k = 0; k < 10; ++k)
        acc += (q[row * 10 + k] - static_cast<int32_t>(zero_point)) * w[out * 10 + k];
      float product = static_cast<float>(acc) * s;
      differ += product + bias[out] != y.to_vector<float>()[row * 5 + out];
    }
  std::cout << "in integers by hand: " << differ << " of 15 values differ\n\n";

  const auto ask = [&x](nn::Module& m) {
    return debug::explain(m, {{x}}, {.seconds = 0, .verify = true}).steps.at(0);
  };
  const debug::ExplainedStep step = ask(*quantized_model);
  std::cout << "Are the inputs quantized before they meet the weights?\n"
            << "  Yes, on the fly. " << step.description.at_run_time << ".\n"
            << "Are the weights dequantized?\n"
            << "  No. They stay " << debug::scheme(step.inputs[1].type) << ", packed in "
            << step.description.weight_bits
            << " bits.\n  Codes are multiplied by codes and summed in "
            << step.description.accumulator << ", then: " << step.description.epilogue << ".\n"
            << "Does it depend on the hardware?\n"
            << "  The instructions do, the result does not:\n";
  bool same = step.numbers == debug::Numbers::integers && step.verified == "identical";
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    // Kernels keep the instruction set that they were made for: a new model.
    auto again = quant::quantize_dynamic(model, quant::types<nn::Linear>(), DType::qint8);
    const debug::ExplainedStep there = ask(*again);
    same = same && equal(again->forward(x), y) && there.verified == "identical";
    std::cout << "  " << there.description.loop << ": " << there.verified
              << " to the reference engine\n";
  }
  return differ == 0 && same ? 0 : 1;
}
