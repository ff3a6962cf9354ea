// A module that its author quantizes: the custom module example of PyTorch's documents, in eager
// mode.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

// The original float module.
struct CustomModule : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(3, 3));
  Tensor forward(Tensor x) override { return linear(x); }
};

// The observed one, provided by the user. prepare() adds an observer of its result.
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

// The quantized one, provided by the user.
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
  // The result of a quantized model is quantized; stubs on both sides keep floats outside.
  auto m = nn::make<nn::Sequential>(quant::QuantStub(), CustomModule(), quant::DeQuantStub());
  m->eval();

  quant::EagerOptions options;
  options.custom.float_to_observed_custom_module_class<CustomModule, ObservedCustomModule>();
  options.custom
      .observed_to_quantized_custom_module_class<ObservedCustomModule, StaticQuantCustomModule>();

  m->qconfig = quant::default_qconfig();
  auto mp = quant::prepare(m, options);
  Tensor x = Tensor::randn({8, 3}, 0);
  mp->forward(x);  // calibration
  auto mq = quant::convert(mp, options);

  std::cout << nn::to_string(*mq) << "\n";
  return allclose(mq->forward(x), m->forward(x), 0.05, 0.05) ? 0 : 1;
}
