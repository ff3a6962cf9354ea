// A module that its author quantizes: the custom module example of PyTorch's documents, in graph
// mode.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

// The original float module.
struct CustomModule : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(3, 3));
  Tensor forward(Tensor x) override { return linear(x); }
};

// The observed one, provided by the user. prepare_fx adds an observer of its result.
struct ObservedCustomModule : nn::Module {
  explicit ObservedCustomModule(nn::ModulePtr float_linear)
      : linear(slot("linear", std::move(float_linear))) {}
  Tensor forward(Tensor x) override { return linear(x); }

  static std::shared_ptr<ObservedCustomModule> from_float(CustomModule& float_module) {
    auto observed = nn::make<ObservedCustomModule>(float_module.linear.get());
    observed->qconfig = float_module.qconfig;
    return observed;
  }
  nn::Slot linear;
};

// The quantized one, provided by the user: takes and gives codes.
struct StaticQuantCustomModule : nn::Module {
  explicit StaticQuantCustomModule(nn::ModulePtr quantized_linear)
      : linear(slot("linear", std::move(quantized_linear))) {}
  Tensor forward(Tensor x) override { return linear(x); }

  static std::shared_ptr<StaticQuantCustomModule> from_observed(
      ObservedCustomModule& observed_module) {
    observed_module.linear->add_child("activation_post_process",
                                      observed_module.submodule("activation_post_process"));
    return nn::make<StaticQuantCustomModule>(
        nn::quantized::Linear::from_float(*observed_module.linear));
  }
  nn::Slot linear;
};

int main() {
  auto m = nn::make<nn::Sequential>(CustomModule());
  m->eval();

  quant::QConfigMapping mapping(quant::default_qconfig());
  quant::PrepareCustomConfig prepare_custom_config;
  prepare_custom_config.set_float_to_observed_mapping<CustomModule, ObservedCustomModule>();
  quant::ConvertCustomConfig convert_custom_config;
  convert_custom_config
      .set_observed_to_quantized_mapping<ObservedCustomModule, StaticQuantCustomModule>();

  Tensor x = Tensor::randn({8, 3}, 0);
  auto mp = quant::prepare_fx(m, mapping, std::vector<Tensor>{x}, prepare_custom_config);
  mp->forward(x);  // calibration
  auto mq = quant::convert_fx(mp, convert_custom_config);

  std::cout << print(mq->graph()) << nn::to_string(*mq) << "\n";
  return allclose(mq->forward(x), m->forward(x), 0.05, 0.05) ? 0 : 1;
}
