// Channels of unlike range, and what to do about them: the three examples of docs/equalization.md.
#include <octet/octet.h>

#include <cmath>
#include <iostream>

using namespace octet;

struct Net : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(16, 32));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc2 = slot("fc2", nn::Linear(32, 8));
  Tensor forward(Tensor x) override { return fc2(relu(fc1(x))); }
};

// 1, factor, 1, factor ...
Tensor alternating(int64_t n, float factor, const Shape& shape) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(i % 2 ? factor : 1.0f);
  return Tensor::from(values, shape);
}

// Signal to noise in decibels.
double quality(const Tensor& expected, const Tensor& got) {
  Tensor error = expected - got;
  const double signal = functional::mean(expected * expected).item(),
               noise = functional::mean(error * error).item();
  return 10 * std::log10(signal / noise);
}

int main() {
  autograd::NoGrad no_grad;
  // One scale for each tensor, weights included.
  const quant::QConfigMapping mapping(
      quant::QConfig{quant::ObserverFactory("MinMaxObserver"), quant::default_weight_observer()});
  auto quantize = [&](const nn::ModulePtr& model, const Tensor& x) {
    auto prepared = quant::prepare_fx(model, mapping, {x});
    prepared->forward(x);
    return quant::convert_fx(prepared);
  };
  bool good = true;
  auto show = [&](const char* what, double before, double after) {
    std::cout << what << ": " << before << " dB before, " << after << " dB after\n";
    good = good && after > before + 6;
  };

  {  // Cross-layer: what fc1 gives has channels of unlike range, and fc2 makes up for it.
    auto model = nn::make<Net>();
    model->eval();
    Tensor factors = alternating(32, 64, {32, 1});
    model->fc1->tensor("weight") = model->fc1->tensor("weight") * factors;
    model->fc1->tensor("bias") = model->fc1->tensor("bias") * factors.reshape({32});
    model->fc2->tensor("weight") = model->fc2->tensor("weight") / factors.reshape({1, 32});
    Tensor x = Tensor::randn({64, 16}, 1), expected = model->forward(x);

    auto equal = quant::equalize(model, {{"fc1", "fc2"}});
    show("cross-layer", quality(expected, quantize(model, x)->forward(x)),
         quality(expected, (*quantize(equal, x))(x)));
  }

  // Now the input has channels of unlike range: no layer before it can be changed.
  auto model = nn::make<Net>();
  model->eval();
  Tensor factors = alternating(16, 100, {1, 16});
  model->fc1->tensor("weight") = model->fc1->tensor("weight") / factors;
  Tensor x = Tensor::randn({64, 16}, 1) * factors, expected = model->forward(x);

  // ModelReport says so.
  auto prepared = quant::prepare_fx(model, mapping, {x});
  quant::ModelReport report(prepared, {std::make_shared<quant::PerChannelDetector>(),
                                       std::make_shared<quant::DynamicStaticDetector>(),
                                       std::make_shared<quant::InputWeightEqualizationDetector>(),
                                       std::make_shared<quant::OutlierDetector>()});
  auto watched = report.prepare_detailed_calibration();
  watched->forward(x);
  for (const auto& [detector, result] : report.generate_model_report(true))
    std::cout << result.text;
  std::cout << report.to_table("comp_stat");
  quant::QConfigMapping which = report.generate_equalization_mapping();
  good = good && which.module_name_qconfigs().size() == 1 &&
         which.module_name_qconfigs()[0].name == "fc1";

  // Input-weight equalization of the layers that it names.
  auto equalizing = quant::prepare_equalization_fx(prepared, which);
  equalizing->forward(x);
  auto int8 = quant::convert_fx(quant::convert_equalization_fx(equalizing));
  show("input-weight", quality(expected, quantize(model, x)->forward(x)),
       quality(expected, int8->forward(x)));
  return good ? 0 : 1;
}
