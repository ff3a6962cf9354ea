// Which layer loses accuracy, and why: the examples of docs/numeric_suite.md.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

struct Net : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot narrow = slot("narrow", nn::Conv2d(8, 4, 1));
  nn::Slot fc = slot("fc", nn::Linear(4, 5));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    x = narrow(relu(conv(quant(x))));
    return dequant(fc(functional::adaptive_avg_pool2d(x, 1).flatten(1)));
  }
};

// Eager mode. Returns whether the layer whose weights were spoilt was found.
bool eager(const std::shared_ptr<Net>& float_model, const std::shared_ptr<Net>& int8,
           const Tensor& x) {
  std::string worst;
  double least = INFINITY;
  for (auto& [key, w] : debug::compare_weights(*float_model, *int8)) {
    const double sqnr = debug::compute_sqnr(w["float"], w["quantized"]);
    std::cout << key << ": " << sqnr << " dB\n";
    if (sqnr < least) least = sqnr, worst = key;
  }
  auto outputs = debug::compare_model_outputs(*float_model->clone(), *int8->clone(), {x});
  for (auto& [key, y] : outputs)
    std::cout << key << ": " << debug::compute_sqnr(y["float"][0], y["quantized"][0]) << " dB\n";
  auto stubs = debug::compare_model_stub(*float_model, *int8->clone(),
                                         {typeid(nn::Conv2d), typeid(nn::Linear)}, {x});
  for (auto& [key, y] : stubs)
    std::cout << key << " alone: " << debug::compute_sqnr(y["float"][0], y["quantized"][0])
              << " dB\n";
  return worst == "narrow.weight";
}

bool graph_mode(const std::shared_ptr<Net>& float_model, const std::vector<Tensor>& data) {
  namespace ns = debug::fx;
  const quant::QConfig per_tensor{quant::ObserverFactory("MinMaxObserver"),
                                  quant::default_weight_observer()};
  auto prepared = quant::prepare_fx(float_model, per_tensor, {data[0]});
  for (const Tensor& x : data) (*prepared)(x);
  auto lowered = quant::convert_fx(prepared);

  // Each layer's values beside each other.
  auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered);
  (*a)(data[0]), (*b)(data[0]);
  ns::NSResultsType results = ns::extract_logger_info(*a, *b, "int8");
  ns::extend_logger_results_with_comparison(results, "fp32", "int8", debug::compute_sqnr, "sqnr");
  for (auto& [layer, by_type] : results)
    std::cout << layer << ": " << by_type["node_output"]["int8"][0].comparisons["sqnr"][0]
              << " dB\n";

  // What of the error is the layer's own.
  std::vector<std::vector<Tensor>> samples;
  for (const Tensor& x : data) samples.push_back({x});
  for (const auto& [layer, error] : ns::split_layer_errors(prepared, lowered, samples))
    std::cout << layer << ": own " << error.own << ", inherited " << error.inherited() << "\n";

  // Which qconfig would serve it better.
  ns::QConfigMultiMapping qconfigs;
  qconfigs.set_global({per_tensor, quant::QConfig{quant::ObserverFactory("MinMaxObserver"),
                                                  quant::default_per_channel_weight_observer()}});
  auto shadowed = ns::prepare_n_shadows_model(float_model, {data[0]}, qconfigs);
  for (const Tensor& x : data) (*shadowed)(x);
  ns::convert_n_shadows_model(*shadowed);
  ns::loggers_set_enabled(*shadowed, true);
  for (const Tensor& x : data) (*shadowed)(x);
  ns::NSResultsType compared = ns::extract_results_n_shadows_model(*shadowed);
  ns::print_comparisons_n_shadows_model(compared);
  // Per channel is better where one channel has small weights.
  double sqnr[2] = {0, 0};
  for (auto& [name, list] : compared["model"]["node_output"])
    if (list[0].ref_node_name == "narrow" && list[0].candidate > 0)
      sqnr[list[0].candidate - 1] = list[0].comparisons["sqnr"][0];
  return sqnr[1] > sqnr[0] + 1;
}

int main() {
  autograd::NoGrad no_grad;
  auto model = nn::make<Net>();
  model->eval();
  // One weight of `narrow` is far larger than all others: one scale for all of them is too coarse.
  Tensor weight = model->narrow->tensor("weight").detach().clone();
  weight.data<float>()[0] = 40;
  auto state = model->state_dict();
  state["narrow.weight"] = weight;
  model->load_state_dict(state);

  std::vector<Tensor> data;
  for (uint64_t i = 0; i < 4; ++i) data.push_back(Tensor::randn({8, 3, 6, 6}, i));
  model->qconfig =
      quant::QConfig{quant::ObserverFactory("MinMaxObserver"), quant::default_weight_observer()};
  auto fused = quant::fuse_modules(model, {{"conv", "relu"}});
  auto prepared = quant::prepare(fused);
  for (const Tensor& x : data) prepared->forward(x);
  auto int8 = quant::convert(prepared);

  const bool found = eager(fused, int8, data[0]);
  return found && graph_mode(model, data) ? 0 : 1;
}
