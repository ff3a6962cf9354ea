// Graph mode: the example of PyTorch's documents, with its three types of quantization, training,
// and fusion. The model is as its author wrote it: no stubs, functionals and operators anywhere.
#include <octet/octet.h>

#include <iostream>

using namespace octet;

struct UserModel : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(8));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot linear = slot("linear", nn::Linear(8, 5));
  Tensor forward(Tensor x) override {
    x = functional::relu(bn(conv(x)));
    x = x + functional::hardswish(conv2(x));
    return linear(functional::adaptive_avg_pool2d(x, 1).flatten(1));
  }
};

// The mean error of a quantized model's results, in parts of their mean size.
double error(const Tensor& got, const Tensor& want) {
  return functional::mean(functional::abs(got - want)).item() /
         functional::mean(functional::abs(want)).item();
}

int main() {
  auto model_fp = nn::make<UserModel>();
  Tensor example = Tensor::randn({4, 3, 8, 8}, 0);
  std::vector<Tensor> example_inputs{example};
  bool good = true;
  auto show = [&](const char* what, const graph::GraphModule& quantized, const Tensor& expected) {
    double e = error(const_cast<graph::GraphModule&>(quantized)(example), expected);
    std::cout << "-- " << what << ": mean error " << e << "\n"
              << print(quantized.graph(), {.constants = false});
    good = good && e < 0.1;
  };

  // Post-training dynamic and weight-only quantization: nothing to calibrate.
  model_fp->eval();
  Tensor expected = model_fp->forward(example);
  quant::QConfigMapping dynamic_mapping(quant::default_dynamic_qconfig());
  show("dynamic", *quant::convert_fx(quant::prepare_fx(model_fp, dynamic_mapping, example_inputs)),
       expected);

  quant::QConfigMapping weight_only_mapping(
      quant::QConfig{{}, quant::default_per_channel_weight_observer()});
  show("weight-only",
       *quant::convert_fx(quant::prepare_fx(model_fp, weight_only_mapping, example_inputs)),
       expected);

  // Post-training static quantization.
  auto mapping = quant::get_default_qconfig_mapping("qnnpack");
  auto model_prepared = quant::prepare_fx(model_fp, mapping, example_inputs);
  // calibration
  for (uint64_t i = 0; i < 4; ++i) model_prepared->forward(Tensor::randn({4, 3, 8, 8}, i));
  auto model_quantized = quant::convert_fx(model_prepared);
  show("static", *model_quantized, expected);

  // The quantized model compiled: the same codes, in one block of memory.
  runtime::Program program = runtime::compile(model_quantized->to_graph());
  good = good && equal(program.run({example})[0], model_quantized->forward(example));

  // Quantization-aware training. model_fp stays as it is: these functions work on copies.
  auto model_to_train = nn::make<UserModel>();
  model_to_train->train();
  auto model_qat = quant::prepare_qat_fx(
      model_to_train, quant::get_default_qat_qconfig_mapping("qnnpack"), example_inputs);
  nn::optim::SGD optimizer(model_qat->parameters(), {.lr = 0.01});
  for (uint64_t i = 0; i < 4; ++i) {  // training loop
    optimizer.zero_grad();
    Tensor y = model_qat->forward(Tensor::randn({4, 3, 8, 8}, i));
    autograd::backward(functional::mean(y * y));
    optimizer.step();
  }
  model_qat->eval();
  show("trained, static", *quant::convert_fx(model_qat), model_qat->forward(example));

  // Fusion alone.
  auto model_fused = quant::fuse_fx(model_fp, example_inputs);
  show("fused", *model_fused, expected);
  return good ? 0 : 1;
}
