#include "tests/quant/golden_models.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/modules/weighted.h"

namespace octet::testing::models {

namespace F = functional;
using nn::quantized::FloatFunctional;

constexpr nn::BatchNormOptions kNorm{.eps = 0x1p-10};

struct Model : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
};

struct Static : Model {
  nn::Slot conv = slot("conv", nn::Conv2d(1, 1, 1));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return dequant(relu(conv(quant(x)))); }
};

struct ConvBnRelu : Model {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 5, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(5, kNorm));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return dequant(relu(bn(conv(quant(x))))); }
};

struct Mixed : Model {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(1, 1, 1));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(1, 1, 1));
  Tensor forward(Tensor x) override { return conv2(dequant(conv1(quant(x)))); }
};

struct LinearRelu : Model {
  nn::Slot linear = slot("linear", nn::Linear(5, 5));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return dequant(relu(linear(quant(x)))); }
};

struct Mlp : Model {
  nn::Slot fc1 = slot("fc1", nn::Linear(12, 16));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot fc2 = slot("fc2", nn::Linear(16, 8));
  nn::Slot relu2 = slot("relu2", nn::ReLU());
  nn::Slot fc3 = slot("fc3", nn::Linear(8, 4));
  Tensor forward(Tensor x) override { return dequant(fc3(relu2(fc2(relu1(fc1(quant(x))))))); }
};

template <typename Conv>
struct ResidualOf : Model {
  nn::Slot conv = slot("conv", Conv(4, 4, 3, {.padding = 1}));
  nn::Slot add = slot("add", FloatFunctional());
  nn::Slot join = slot("join", FloatFunctional());
  nn::Slot mul = slot("mul", FloatFunctional());
  nn::Slot relu_add = slot("relu_add", FloatFunctional());
  nn::Slot number = slot("number", FloatFunctional());
  Tensor forward(Tensor x) override {
    x = quant(x);
    Tensor y = add.as<FloatFunctional>().add(conv(x), x);
    y = mul.as<FloatFunctional>().mul(y, x);
    y = relu_add.as<FloatFunctional>().add_relu(y, x);
    y = number.as<FloatFunctional>().mul_scalar(y, 0.5);
    return dequant(join.as<FloatFunctional>().cat({y, x}, 1));
  }
};
using Residual = ResidualOf<nn::Conv1d>;
using Residual2d = ResidualOf<nn::Conv2d>;

struct Block : nn::Module {
  Block(int64_t in, int64_t out, int64_t stride)
      : conv1(slot("conv1", nn::Conv2d(in, out, 3, {.stride = stride, .padding = 1}))),
        bn1(slot("bn1", nn::BatchNorm2d(out, kNorm))),
        relu1(slot("relu1", nn::ReLU())),
        conv2(slot("conv2", nn::Conv2d(out, out, 3, {.padding = 1}))),
        bn2(slot("bn2", nn::BatchNorm2d(out, kNorm))),
        down(slot("down", stride > 1 ? nn::ModulePtr(nn::make<nn::Conv2d>(
                                           in, out, 1, nn::ConvOptions<2>{.stride = stride}))
                                     : nn::ModulePtr(nn::make<nn::Identity>()))),
        skip(slot("skip", FloatFunctional())) {}
  nn::Slot conv1, bn1, relu1, conv2, bn2, down, skip;
  Tensor forward(Tensor x) override {
    return skip.as<FloatFunctional>().add_relu(bn2(conv2(relu1(bn1(conv1(x))))), down(x));
  }
};

struct ResNet : Model {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4, kNorm));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot block1 = slot("block1", Block(4, 4, 1));
  nn::Slot block2 = slot("block2", Block(4, 8, 2));
  nn::Slot fc = slot("fc", nn::Linear(8, 5));
  Tensor forward(Tensor x) override {
    x = block2(block1(relu(bn(conv(quant(x))))));
    return dequant(fc(F::adaptive_avg_pool2d(x, 1).flatten(1)));
  }
};

struct Activations : Model {
  nn::Slot fc = slot("fc", nn::Linear(6, 7));
  nn::Slot hardswish = slot("hardswish", nn::Hardswish());
  nn::Slot leaky = slot("leaky", nn::LeakyReLU(0.2));
  nn::Slot elu = slot("elu", nn::ELU(0.75));
  nn::Slot sigmoid = slot("sigmoid", nn::Sigmoid());
  Tensor forward(Tensor x) override {
    return dequant(sigmoid(elu(leaky(hardswish(fc(quant(x)))))));
  }
};

struct Conv1dNet : Model {
  nn::Slot conv1 = slot("conv1", nn::Conv1d(3, 6, 3, {.padding = 1}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm1d(6, kNorm));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv1d(6, 4, 3, {.stride = 2, .groups = 2}));
  nn::Slot relu2 = slot("relu2", nn::ReLU());
  Tensor forward(Tensor x) override { return dequant(relu2(conv2(relu1(bn1(conv1(quant(x))))))); }
};

struct ConvBn1d : Model {
  nn::Slot conv1 = slot("conv1", nn::Conv1d(3, 6, 3, {.padding = 1}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm1d(6, kNorm));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv1d(6, 4, 3, {.stride = 2, .groups = 2}));
  nn::Slot bn2 = slot("bn2", nn::BatchNorm1d(4, kNorm));
  Tensor forward(Tensor x) override { return dequant(bn2(conv2(relu1(bn1(conv1(quant(x))))))); }
};

struct Conv3dNet : Model {
  nn::Slot conv1 = slot("conv1", nn::Conv3d(2, 3, 3, {.padding = 1}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm3d(3, kNorm));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv3d(3, 2, 2));
  Tensor forward(Tensor x) override { return dequant(conv2(relu1(bn1(conv1(quant(x)))))); }
};

struct Decoder : Model {
  nn::Slot up1 = slot("up1", nn::ConvTranspose2d(4, 4, 3, {.stride = 2, .padding = 1}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(4, kNorm));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot up2 = slot("up2", nn::ConvTranspose2d(4, 2, 2));
  Tensor forward(Tensor x) override { return dequant(up2(relu1(bn1(up1(quant(x)))))); }
};

struct Pools : Model {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(2, 4, 3, {.padding = 1}));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv2d(4, 6, 3));
  nn::Slot fc = slot("fc", nn::Linear(6, 3));
  Tensor forward(Tensor x) override {
    x = F::max_pool2d(relu1(conv1(quant(x))), 2);
    return dequant(fc(F::max_pool2d(conv2(x), 2).flatten(1)));
  }
};

struct Norms : Model {
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(3, kNorm));
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot bn2 = slot("bn2", nn::BatchNorm2d(4, kNorm));
  nn::Slot relu = slot("relu", nn::ReLU());
  Tensor forward(Tensor x) override { return dequant(relu(bn2(conv(bn1(quant(x)))))); }
};

struct LinearBn : Model {
  nn::Slot fc = slot("fc", nn::Linear(5, 4));
  nn::Slot bn = slot("bn", nn::BatchNorm1d(4, kNorm));
  Tensor forward(Tensor x) override { return dequant(bn(fc(quant(x)))); }
};

struct Fc : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(10, 5));
  Tensor forward(Tensor x) override { return fc(x); }
};

struct Fc4 : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return fc(x); }
};

nn::ModulePtr make_model(const std::string& name) {
  static const std::map<std::string, nn::ModulePtr (*)()> makers = {
#define MODEL(M)                                        \
  {                                                     \
#M, []() -> nn::ModulePtr { return nn::make<M>(); } \
  }
      MODEL(Static),      MODEL(ConvBnRelu), MODEL(Mixed),     MODEL(LinearRelu), MODEL(Mlp),
      MODEL(Residual),    MODEL(ResNet),     MODEL(Conv1dNet), MODEL(Conv3dNet),  MODEL(Decoder),
      MODEL(Activations), MODEL(Pools),      MODEL(Norms),     MODEL(Fc),         MODEL(Fc4),
      MODEL(LinearBn),    MODEL(Residual2d), MODEL(ConvBn1d)};
#undef MODEL
  return makers.at(name)();
}

Tensor make_tensor(const std::string& how, uint64_t seed, const Shape& shape, double size,
                   double offset) {
  const int64_t n = numel(shape);
  std::vector<float> v;
  if (how == "sparse" || how == "power") {
    v = golden_values(how == "sparse" ? "normal" : "uniform", seed, n, how == "sparse" ? 0.6 : 1,
                      0);
    for (float& x : v)
      x = (how == "sparse" ? std::nearbyint(x) : std::exp2(std::nearbyint(x))) *
          static_cast<float>(size);
  } else if (how == "constant") {
    v.assign(static_cast<size_t>(n), static_cast<float>(offset));
  } else {
    v = golden_values(how, seed, n, size, offset);
  }
  return Tensor::from(v, shape);
}

void fill(nn::Module& model, const json& parameters) {
  auto state = model.state_dict();
  for (const json& p : parameters)
    state[p[0]] = make_tensor(p[1], p[2], state.at(p[0]).shape(), p[3], p[4]);
  model.load_state_dict(state);
}

std::string hash_of_codes(const Tensor& y) {
  uint64_t h = 0xCBF29CE484222325;
  auto add = [&](auto codes) {
    for (auto q : codes) h = (h ^ static_cast<uint8_t>(q)) * 0x100000001B3;
  };
  if (y.dtype() == DType::qint8)
    add(y.to_vector<int8_t>());
  else
    add(y.to_vector<uint8_t>());
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

Tensor batch(const json& c, int index) {
  return make_tensor(c["exact"] ? "steps" : "normal",
                     c["seed"].get<uint64_t>() + 7000 + static_cast<uint64_t>(index),
                     c["shape"].get<Shape>(), 1, 0);
}

void expect_qparams(const json& c, nn::Module& int8) {
  auto state = int8.state_dict();
  for (const auto& [path, m] : c["modules"].items()) {
    const double scale = m["scale"];
    ASSERT_TRUE(state.count(path + ".scale"))
        << path << " is a " << int8.submodule(path)->type_name();
    EXPECT_NEAR(state.at(path + ".scale").item(), scale, c["exact"] ? 0 : 2e-6 * scale) << path;
    EXPECT_EQ(state.at(path + ".zero_point").item(), m["zero_point"].get<double>()) << path;
    state[path + ".scale"] = Tensor::scalar(scale, DType::float64);
    if (!m.contains("weight")) continue;
    const Tensor& w = int8.submodule(path)->as<nn::quantized::WeightedModule>().weight();
    expect_codes(w, m["weight"], 0, path + ".weight");
    EXPECT_EQ(w.quantizer()->scales(), m["weight_scales"].get<std::vector<double>>()) << path;
  }
  int8.load_state_dict(state);
}

void expect_outputs(const json& c, nn::Module& int8) {
  const int steps = c["steps"];
  for (const auto& item : c["modules"].items()) {
    const std::string path = item.key();
    const json& m = item.value();
    if (!m.contains("codes")) continue;
    auto compare = [&m, path, steps](nn::Module&, const std::vector<Tensor>&,
                                     std::vector<Tensor>& outputs) {
      Tensor& y = outputs.at(0);
      if (m["codes"].get<std::string>().size() == 16) {
        EXPECT_EQ(hash_of_codes(y), m["codes"]) << path;
        return;
      }
      expect_codes(y, m["codes"], steps, path);
      y = make_quantized(Tensor::from(from_base64(m["codes"]), y.shape()), y.quantizer());
    };
    int8.submodule(path)->add_forward_hook("golden", compare);
  }
  Tensor y = int8.forward(batch(c, -1)).detach(), expected = floats_from_base64(c["y"], y.shape());
  // The codes are PyTorch's, or an output would be a step off; float layers sum in another order
  // than PyTorch's.
  double largest = 0;
  for (float v : expected.to_vector<float>())
    largest = std::max(largest, std::abs(static_cast<double>(v)));
  EXPECT_TRUE(steps > 0 || allclose(y, expected, 0, 1e-6 * largest))
      << octet::to_string(y) << octet::to_string(expected);
}

}  // namespace octet::testing::models
