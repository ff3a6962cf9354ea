// Saving and loading quantized models: by state dict into a model that was prepared and converted, or whole.
#include <octet/octet.h>

#include <filesystem>
#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = quant(x);
    x = linear(x);
    x = relu(x);
    return dequant(x);
  }
};
OCTET_MODULE(M)  // so that whole models can be loaded

std::shared_ptr<M> quantized(uint64_t seed) {
  auto m = nn::make<M>();
  m->eval();
  m->qconfig = quant::default_qconfig();
  auto prepared = quant::prepare(m);
  prepared->forward(Tensor::rand({5, 5}, seed));
  return quant::convert(prepared);
}

int main() {
  auto dir = std::filesystem::temp_directory_path();
  auto state = dir / "octet_example_state.safetensors", whole = dir / "octet_example_model.octet";
  Tensor x = Tensor::rand({5, 5}, 1);

  auto quantized_orig = quantized(1);
  Tensor expected = quantized_orig->forward(x);

  // 1. The state dict, into another model made the same way.
  save_state_dict(state, quantized_orig->state_dict());
  auto m2 = quantized(2);
  m2->load_state_dict(load_state_dict(state));

  // 2. The whole model: no code but its class is needed.
  save_model(whole, *quantized_orig);
  nn::ModulePtr m3 = load_model(whole);

  bool same = equal(m2->forward(x), expected) && equal(m3->forward(x), expected);
  std::cout << nn::to_string(*m3) << "\n" << (same ? "equal results" : "results differ") << "\n";
  std::filesystem::remove(state);
  std::filesystem::remove(whole);
  return same ? 0 : 1;
}
