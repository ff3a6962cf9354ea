// "Do the activations get quantized before computing with quantized weights in a dynamic linear
// layer, or are the weights dequantized?" The activations are quantized: here the same is done by
// hand, in integers, and equals the layer exactly.
#include <octet/octet.h>

#include <algorithm>
#include <iostream>

using namespace octet;

struct MyModel : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(10, 5));
  Tensor forward(Tensor x) override {
    std::cout << "Input dtype: " << to_string(x.dtype()) << "\n";
    x = fc(x);
    std::cout << "Output dtype: " << to_string(x.dtype()) << "\n";
    return x;
  }
};

int main() {
  auto model = nn::make<MyModel>();
  auto quantized_model = quant::quantize_dynamic(model, quant::types<nn::Linear>(), DType::qint8);
  std::cout << nn::to_string(*quantized_model) << "\n";

  Tensor x = Tensor::randn({3, 10}, 1);
  Tensor y = quantized_model->forward(x);

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
  std::cout << "manual and module outputs differ in " << differ << " of 15 values\n";
  return differ;
}
