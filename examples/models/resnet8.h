#pragma once
// ResNet-8 for 32x32 pictures, as MLPerf Tiny has it: a convolution to 16 channels, three residual
// blocks of 16, 32 and 64 channels, the last two with stride 2, global average pooling, and a
// linear layer to 10 classes.

#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

// relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x or, if the size changes, a 1x1 convolution
// of it.
struct BasicBlock : nn::Module {
  BasicBlock(int64_t in, int64_t out, int64_t stride)
      : conv1(slot("conv1", nn::Conv2d(in, out, 3, {.stride = stride, .padding = 1}))),
        bn1(slot("bn1", nn::BatchNorm2d(out))),
        relu1(slot("relu1", nn::ReLU())),
        conv2(slot("conv2", nn::Conv2d(out, out, 3, {.padding = 1}))),
        bn2(slot("bn2", nn::BatchNorm2d(out))),
        shortcut(slot(
            "shortcut",
            stride == 1 ? nn::ModulePtr(nn::make<nn::Identity>())
                        : nn::make<nn::Conv2d>(in, out, 1, nn::ConvOptions<2>{.stride = stride}))),
        relu2(slot("relu2", nn::ReLU())) {}
  Tensor forward(Tensor x) override {
    return relu2(shortcut(x) + bn2(conv2(relu1(bn1(conv1(x))))));
  }
  nn::Slot conv1, bn1, relu1, conv2, bn2, shortcut, relu2;
};

struct ResNet8 : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 16, 3, {.padding = 1}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(16));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot layer1 = slot("layer1", BasicBlock(16, 16, 1));
  nn::Slot layer2 = slot("layer2", BasicBlock(16, 32, 2));
  nn::Slot layer3 = slot("layer3", BasicBlock(32, 64, 2));
  nn::Slot fc = slot("fc", nn::Linear(64, 10));
  Tensor forward(Tensor x) override {
    x = layer3(layer2(layer1(relu(bn1(conv1(x))))));
    return fc(functional::flatten(functional::adaptive_avg_pool2d(x, 1), 1));
  }
};

}  // namespace models
