// Saving and loading models quantized in graph mode, as PyTorch's document does it: by state dict,
// and whole (where it needs a scripted model).
#include <octet/octet.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

using namespace octet;

struct M : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return relu(linear(x)); }
};

int main() {
  std::string directory =
      (std::filesystem::temp_directory_path() / "octet-example-XXXXXX").string();
  if (!mkdtemp(directory.data())) return 1;
  std::filesystem::path at = directory;
  Tensor x = Tensor::rand({5, 5}, 1);

  auto m = nn::make<M>();
  m->eval();
  auto prepare_orig = quant::prepare_fx(m, quant::default_qconfig(), std::vector<Tensor>{x});
  prepare_orig->forward(x);
  auto quantized_orig = quant::convert_fx(prepare_orig);
  Tensor expected = quantized_orig->forward(x);

  // 1. The state dict, into a model that was prepared and converted without calibration: its values
  // are unset until then.
  save_state_dict(at / "state.safetensors", quantized_orig->state_dict());
  auto m2 = nn::make<M>();
  m2->eval();
  auto prepared = quant::prepare_fx(m2, quant::default_qconfig(), std::vector<Tensor>{x});
  auto quantized = quant::convert_fx(prepared, {.for_loading = true});
  quantized->load_state_dict(load_state_dict(at / "state.safetensors"));
  bool state_is_back = equal(quantized->forward(x), expected);

  // 2. The whole model, with the types of all its values.
  save_model(at / "model.octet", *quantized_orig);
  auto loaded = load_model<graph::GraphModule>(at / "model.octet");
  bool model_is_back = equal(loaded->forward(x), expected) &&
                       print(loaded->graph()) == print(quantized_orig->graph());

  // 3. Its graph of operators, which needs no modules.
  io::save_octet(quantized_orig->to_graph(), at / "graph.octet");
  bool graph_is_back =
      equal(runtime::compile(io::load_octet(at / "graph.octet")).run({x})[0], expected);

  std::cout << print(loaded->graph());
  std::filesystem::remove_all(at);
  return state_is_back && model_is_back && graph_is_back ? 0 : 1;
}
