// Saving and loading quantized models: PyTorch's document does it with a state dict, and says that
// whole quantized models cannot be saved. Here both work.
#include <octet/octet.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(relu(linear(quant(x)))); }
};
OCTET_MODULE(M)  // so that load_model can make one

// Float, prepared, calibrated on these data, quantized.
std::shared_ptr<M> quantized_on(const Tensor& data) {
  auto m = nn::make<M>();
  m->eval();
  m->qconfig = quant::default_qconfig();
  auto prepared = quant::prepare(m);
  prepared->forward(data);
  return quant::convert(prepared);
}

int main() {
  std::string directory =
      (std::filesystem::temp_directory_path() / "octet-example-XXXXXX").string();
  if (!mkdtemp(directory.data())) return 1;
  std::filesystem::path at = directory;
  Tensor x = Tensor::rand({5, 5}, 1);
  auto quantized_orig = quantized_on(x);
  Tensor expected = quantized_orig->forward(x);

  // 1. The state dict, into a model that was prepared and converted without calibration: its values
  // are unset until then.
  save_state_dict(at / "state.safetensors", quantized_orig->state_dict());
  auto m2 = nn::make<M>();
  m2->eval();
  m2->qconfig = quant::default_qconfig();
  auto quantized = quant::convert(quant::prepare(m2), {.for_loading = true});
  quantized->load_state_dict(load_state_dict(at / "state.safetensors"));
  bool state_is_back = equal(quantized->forward(x), expected);

  // 2. The whole model.
  save_model(at / "model.octet", *quantized_orig);
  auto loaded = load_model<M>(at / "model.octet");
  bool model_is_back = equal(loaded->forward(x), expected);

  // 3. A prepared model, which goes on calibrating where it was.
  auto m = nn::make<M>();
  m->eval();
  m->qconfig = quant::default_qconfig();
  auto prepared = quant::prepare(m);
  prepared->forward(x);
  save_model(at / "prepared.octet", *prepared);
  auto later = load_model<M>(at / "prepared.octet");
  for (auto& model : {prepared, later}) model->forward(x * 2);
  bool calibration_is_back =
      equal(quant::convert(prepared)->forward(x), quant::convert(later)->forward(x));

  std::cout << nn::to_string(*loaded) << "\n";
  std::filesystem::remove_all(at);
  return state_is_back && model_is_back && calibration_is_back ? 0 : 1;
}
