#include "octet/nn/module.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/nn/pooling.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"

namespace octet::nn {
namespace {

using testing::expect_error;

struct Net : Module {
  Slot conv = slot("conv", Conv2d(1, 2, 3, {.padding = 1}));
  Slot relu = slot("relu", ReLU());
  Slot fc = slot("fc", Linear(8, 3));
  Tensor forward(Tensor x) override { return fc(relu(conv(x)).flatten(1)); }
};

struct Block : Module {
  Slot inner = slot("inner", Net());
  Parameter gain = parameter("gain", Tensor::ones({1}));
  Parameter count = buffer("count", Tensor::zeros({}, DType::int64));
  Tensor forward(Tensor x) override { return inner(x) * gain; }
};

std::vector<std::string> names(const std::vector<std::pair<std::string, Tensor*>>& list) {
  std::vector<std::string> result;
  for (const auto& item : list) result.push_back(item.first);
  return result;
}

TEST(Module, NamesModulesParametersAndBuffersByPath) {
  auto net = make<Block>();
  std::vector<std::string> modules;
  for (auto& [name, module] : net->named_modules()) modules.push_back(name);
  EXPECT_EQ(modules,
            (std::vector<std::string>{"", "inner", "inner.conv", "inner.relu", "inner.fc"}));
  EXPECT_EQ(names(net->named_parameters()),
            (std::vector<std::string>{"gain", "inner.conv.weight", "inner.conv.bias",
                                      "inner.fc.weight", "inner.fc.bias"}));
  EXPECT_EQ(names(net->named_buffers()), std::vector<std::string>{"count"});
}

TEST(Module, ASlotCallsWhateverFillsItNow) {
  auto net = make<Net>();
  Tensor x = Tensor::randn({1, 1, 2, 2}, 1);
  net->relu.set(make<Identity>());
  Tensor linear = net->forward(x);
  EXPECT_TRUE(equal(linear, net->fc(net->conv(x).flatten(1))));
}

TEST(Module, ACloneSharesNothingAndComputesTheSame) {
  auto net = make<Block>();
  auto copy = std::dynamic_pointer_cast<Block>(net->clone());
  ASSERT_TRUE(copy);
  Tensor x = Tensor::randn({1, 1, 2, 2}, 1);
  Tensor y = net->forward(x);
  EXPECT_TRUE(equal(y, copy->forward(x)));
  copy->inner.as<Net>().fc.as<Linear>().weight.data<float>()[0] += 1;
  copy->gain.data<float>()[0] = 2;
  copy->inner.as<Net>().relu.set(make<Identity>());
  EXPECT_TRUE(equal(y, net->forward(x)));
  EXPECT_FALSE(equal(y, copy->forward(x)));
}

TEST(Module, WhatIsSharedInsideIsSharedInsideTheClone) {
  auto shared = make<Linear>(2, 2);
  auto model = make<Sequential>(shared, ReLU(), shared);
  auto other = make<Linear>(2, 2);
  other->weight = shared->weight;  // tied weights
  model->append(other);
  auto copy = model->clone();
  EXPECT_EQ(copy->submodule("0"), copy->submodule("2"));
  EXPECT_NE(copy->submodule("0"), model->submodule("0"));
  EXPECT_EQ(copy->submodule("0")->as<Linear>().weight.id(),
            copy->submodule("3")->as<Linear>().weight.id());
  EXPECT_NE(copy->submodule("0")->as<Linear>().weight.id(), shared->weight.id());
  EXPECT_EQ(copy->named_modules().size(), 4u) << "a shared module is named once";
}

TEST(Module, TrainAndEvalReachAllSubmodules) {
  auto net = make<Block>();
  EXPECT_TRUE(net->inner->training());
  net->eval();
  EXPECT_FALSE(net->submodule("inner.fc")->training());
  net->train();
  EXPECT_TRUE(net->submodule("inner.fc")->training());
}

TEST(Module, AStateDictIsRestoredExactly) {
  auto a = make<Block>(), b = make<Block>();
  Tensor x = Tensor::randn({1, 1, 2, 2}, 1);
  ASSERT_FALSE(equal(a->forward(x), b->forward(x)));
  b->load_state_dict(a->state_dict());
  EXPECT_TRUE(equal(a->forward(x), b->forward(x)));
}

TEST(Module, AStateDictThatDoesNotFitIsRefusedWholeWithEveryReason) {
  auto net = make<Net>();
  Tensor before = net->conv.as<Conv2d>().weight.detach().clone();
  auto state = make<Net>()->state_dict();
  state.erase("fc.bias");
  state["fc.wieght"] = Tensor::zeros({1});
  state["conv.bias"] = Tensor::zeros({5});
  state["fc.weight"] = quantize_per_tensor(Tensor::zeros({3, 8}), 1, 0, DType::qint8);
  expect_error(ErrorCode::invalid_argument,
               {"missing: fc.bias", "unexpected: fc.wieght", "fc.weight",
                "conv.bias has shape (5) in the state dict and (2)",
                "fc.weight is qint8 in the state dict and float32 in the model"},
               [&] { net->load_state_dict(state); });
  EXPECT_TRUE(equal(before, net->conv.as<Conv2d>().weight)) << "nothing was changed";
}

TEST(Module, AnUnknownPathIsAnErrorWithTheNearestName) {
  auto net = make<Net>();
  expect_error(ErrorCode::not_found, {"Net has no submodule 'cnv'", "conv"},
               [&] { net->submodule("cnv"); });
  expect_error(ErrorCode::invalid_argument, {"this module is a Conv2d, not a Linear"},
               [&] { net->conv.as<Linear>(); });
}

TEST(Module, SetSubmoduleSwapsWhatIsThere) {
  auto net = make<Block>();
  net->set_submodule("inner.relu", make<Identity>());
  EXPECT_EQ(net->submodule("inner.relu")->type_name(), "Identity");
}

TEST(Module, HooksSeeInputsAndOutputsAndMayReplaceThem) {
  auto net = make<Net>();
  std::vector<std::string> seen;
  net->relu->add_forward_pre_hook("before", [&](Module& m, std::vector<Tensor>& in) {
    seen.push_back("before " + m.type_name());
    in[0] = in[0] * 0.0;
  });
  net->relu->add_forward_hook(
      "after", [&](Module& m, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
        seen.push_back("after " + m.type_name() + " " + octet::to_string(in[0].shape()));
        out[0] = out[0] + 1.0;
      });
  Tensor y = net->relu(Tensor::full({2}, 7));
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 1}));
  EXPECT_EQ(seen, (std::vector<std::string>{"before ReLU", "after ReLU (2)"}));
  net->relu->remove_forward_hook("after");
  EXPECT_EQ(net->relu(Tensor::full({2}, 7)).to_vector<float>(), (std::vector<float>{0, 0}));
}

TEST(Module, PrintsAsPyTorchDoes) {
  EXPECT_EQ(to_string(*make<Net>()),
            "Net(\n  (conv): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n  "
            "(relu): ReLU()\n"
            "  (fc): Linear(in_features=8, out_features=3, bias=True)\n)");
  EXPECT_EQ(to_string(*make<BatchNorm2d>(4)),
            "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)");
  EXPECT_EQ(to_string(*make<LeakyReLU>(0.5)), "LeakyReLU(negative_slope=0.5)");
}

TEST(Module, ApplyVisitsSubmodulesFirst) {
  std::vector<std::string> order;
  make<Block>()->apply([&](Module& m) { order.push_back(m.type_name()); });
  EXPECT_EQ(order, (std::vector<std::string>{"Conv2d", "ReLU", "Linear", "Net", "Block"}));
}

TEST(Module, ARegisteredClassIsMadeAgainFromItsConfig) {
  auto conv =
      make<Conv2d>(4, 8, Sizes<2>{3, 5}, ConvOptions<2>{.stride = 2, .groups = 2, .bias = false});
  auto again = make_registered(registered_name(*conv), conv->config());
  EXPECT_EQ(to_string(*conv), to_string(*again));
  EXPECT_EQ(again->as<Conv2d>().weight.shape(), (Shape{8, 2, 3, 5}));
  expect_error(ErrorCode::unsupported, {"Net is not registered", "OCTET_MODULE"},
               [] { registered_name(*make<Net>()); });
  expect_error(ErrorCode::not_found, {"octet::nn::Conv2d"},
               [] { make_registered("octet::nn::Conv2", {}); });
}

TEST(Module, AConfigurationWithTooFewNumbersIsAnError) {
  Attrs config = make<MaxPool2d>(2)->config();
  for (const std::vector<int64_t>& padding : {std::vector<int64_t>{}, {1, 1}, {1, 1, 1}}) {
    config.set("padding", padding);
    expect_error(ErrorCode::invalid_argument, {"padding"},
                 [&] { make_registered("octet::nn::MaxPool2d", config); });
  }
}

TEST(Module, BadSizesAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"Linear"}, [] { Linear(0, 3); });
  expect_error(ErrorCode::invalid_argument, {"groups"}, [] { Conv2d(3, 4, 3, {.groups = 2}); });
}

TEST(Module, ParametersMayBeRegisteredByName) {
  struct Many : Module {
    explicit Many(int n) {
      for (int i = 0; i < n; ++i)
        register_parameter("weight_" + std::to_string(i), Tensor::full({1}, i));
      register_buffer("seen", Tensor::zeros({1}));
    }
    Tensor forward(Tensor x) override { return x * tensor("weight_1"); }
  };
  auto many = make<Many>(3);
  EXPECT_EQ(names(many->named_parameters()),
            (std::vector<std::string>{"weight_0", "weight_1", "weight_2"}));
  auto copy = many->clone();
  copy->tensor("weight_1").data<float>()[0] = 5;
  EXPECT_EQ(many->forward(Tensor::ones({1})).item(), 1);
  EXPECT_EQ(copy->forward(Tensor::ones({1})).item(), 5);
  expect_error(ErrorCode::invalid_argument, {"two parameters are named 'seen'"},
               [&] { many->register_buffer("seen", Tensor()); });
  expect_error(ErrorCode::not_found, {"weight_9", "weight_0"}, [&] { many->tensor("weight_9"); });
}

TEST(Module, ParametersRequireGradientsAndBuffersDoNot) {
  auto net = make<Block>();
  EXPECT_TRUE(autograd::requires_grad(net->gain));
  EXPECT_FALSE(autograd::requires_grad(net->count));
  net->requires_grad(false);
  EXPECT_FALSE(autograd::requires_grad(net->gain));
}

}  // namespace
}  // namespace octet::nn
