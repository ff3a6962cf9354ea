#pragma once
// ResNet-18 (He et al. 2015) as torchvision has it: the parameters have torchvision's names, so its
// state dicts load.

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

// relu(x' + bn2(conv2(relu(bn1(conv1(x)))))), where x' is x or, if the size changes, a 1x1
// convolution and batch norm of it.
struct ResNetBasicBlock : nn::Module {
  ResNetBasicBlock(int64_t in, int64_t out, int64_t stride)
      : conv1(
            slot("conv1", nn::Conv2d(in, out, 3, {.stride = stride, .padding = 1, .bias = false}))),
        bn1(slot("bn1", nn::BatchNorm2d(out))),
        relu(slot("relu", nn::ReLU())),
        conv2(slot("conv2", nn::Conv2d(out, out, 3, {.padding = 1, .bias = false}))),
        bn2(slot("bn2", nn::BatchNorm2d(out))),
        downsample(
            slot("downsample", stride == 1 && in == out ? nullptr : shortcut(in, out, stride))) {}
  Tensor forward(Tensor x) override {
    Tensor y = bn2(conv2(relu(bn1(conv1(x)))));
    if (downsample.get()) x = downsample(x);
    return relu(y + x);
  }
  nn::Slot conv1, bn1, relu, conv2, bn2;  // relu is called twice, as torchvision's is
  nn::Slot downsample;                    // empty where x keeps its size

 private:
  static nn::ModulePtr shortcut(int64_t in, int64_t out, int64_t stride) {
    return nn::make<nn::Sequential>(nn::Conv2d(in, out, 1, {.stride = stride, .bias = false}),
                                    nn::BatchNorm2d(out));
  }
};

struct ResNet18Options {
  int64_t num_classes = 1000;
  // channels of the first stage; each of the other three has twice as many as the one before
  int64_t width = 64;
};

// x (N, 3, H, W) of any size, made for 224x224 -> (N, num_classes).
struct ResNet18 : nn::Module {
  explicit ResNet18(ResNet18Options options = {}) : options(options) {}

  ResNet18Options options;
  nn::Slot conv1 =
      slot("conv1", nn::Conv2d(3, options.width, 7, {.stride = 2, .padding = 3, .bias = false}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(options.width));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot maxpool = slot("maxpool", nn::MaxPool2d(3, {.stride = 2, .padding = 1}));
  nn::Slot layer1 = slot("layer1", stage(options.width, options.width, 1));
  nn::Slot layer2 = slot("layer2", stage(options.width, 2 * options.width, 2));
  nn::Slot layer3 = slot("layer3", stage(2 * options.width, 4 * options.width, 2));
  nn::Slot layer4 = slot("layer4", stage(4 * options.width, 8 * options.width, 2));
  nn::Slot avgpool = slot("avgpool", nn::AdaptiveAvgPool2d(1));
  nn::Slot fc = slot("fc", nn::Linear(8 * options.width, options.num_classes));

  Tensor forward(Tensor x) override {
    x = maxpool(relu(bn1(conv1(x))));
    x = layer4(layer3(layer2(layer1(x))));
    return fc(functional::flatten(avgpool(x), 1));
  }

 private:
  static nn::Sequential stage(int64_t in, int64_t out, int64_t stride) {
    return nn::Sequential(ResNetBasicBlock(in, out, stride), ResNetBasicBlock(out, out, 1));
  }
};

}  // namespace models
