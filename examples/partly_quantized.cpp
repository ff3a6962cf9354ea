// The two errors that users of eager mode meet first, and what mends them: a float tensor that
// reaches a quantized layer, and a quantized one that reaches a float layer. octet reports both at
// convert(), naming the place.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv1 = slot("conv1", nn::Conv2d(1, 1, 1));
  // this module will not be quantized (see `qconfig = nullptr` below)
  nn::Slot conv2 = slot("conv2", nn::Conv2d(1, 1, 1));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  bool with_quant = true, with_dequant = true;

  Tensor forward(Tensor x) override {
    if (with_quant) x = quant(x);  // during convert, this becomes a quantize_per_tensor call
    x = conv1(x);
    if (with_dequant) x = dequant(x);  // and this a dequantize call
    x = conv2(x);
    return x;
  }
};

std::string try_to_convert(bool with_quant, bool with_dequant) {
  auto m = nn::make<M>();
  m->with_quant = with_quant;
  m->with_dequant = with_dequant;
  m->eval();
  m->qconfig = quant::get_default_qconfig();
  m->conv2->qconfig = nullptr;  // turn off quantization for conv2
  auto prepared = quant::prepare(m);
  Tensor x = Tensor::randn({1, 1, 4, 4}, 0);
  prepared->forward(x);
  try {
    quant::convert(prepared)->forward(x);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

int main() {
  std::string no_dequant = try_to_convert(true, false), right = try_to_convert(true, true);
  std::string no_quant = try_to_convert(false, true);
  std::cout << "without DeQuantStub: " << no_dequant << "\nwithout QuantStub: " << no_quant
            << "\nwith both: " << (right.empty() ? "converted" : right) << "\n";
  return no_dequant.find("DeQuantStub") != std::string::npos &&
                 no_quant.find("QuantStub") != std::string::npos && right.empty()
             ? 0
             : 1;
}
