#pragma once
// MobileNetV2 (Sandler et al. 2018) as torchvision has it: the parameters have torchvision's names,
// so its state dicts load.

#include <algorithm>
#include <utility>
#include <vector>

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

// "0": a convolution that keeps the size but for its stride; "1": batch norm; "2": ReLU6.
inline nn::Sequential conv_bn_relu6(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1,
                                    int64_t groups = 1) {
  return nn::Sequential(
      nn::Conv2d(in, out, kernel,
                 {.stride = stride, .padding = kernel / 2, .groups = groups, .bias = false}),
      nn::BatchNorm2d(out), nn::ReLU6());
}

// A 1x1 convolution to `expansion` times the channels, a 3x3 one of each channel by itself, and a
// 1x1 one to `out` channels with no activation behind it; x is added where the size stays.
struct InvertedResidual : nn::Module {
  InvertedResidual(int64_t in, int64_t out, int64_t stride, int64_t expansion)
      : adds_input(stride == 1 && in == out),
        conv(slot("conv", layers(in, out, stride, expansion))) {}
  Tensor forward(Tensor x) override { return adds_input ? x + conv(x) : conv(x); }
  bool adds_input;
  nn::Slot conv;

 private:
  static nn::Sequential layers(int64_t in, int64_t out, int64_t stride, int64_t expansion) {
    const int64_t hidden = in * expansion;
    nn::Sequential s;
    if (expansion != 1) s.append(conv_bn_relu6(in, hidden, 1));
    s.append(conv_bn_relu6(hidden, hidden, 3, stride, hidden));
    s.append(nn::Conv2d(hidden, out, 1, {.bias = false}));
    s.append(nn::BatchNorm2d(out));
    return s;
  }
};

// Blocks of one size: `repeats` InvertedResiduals to `channels` channels, the first of which has
// the stride.
struct InvertedResidualStage {
  int64_t expansion, channels, repeats, stride;
};

struct MobileNetV2Options {
  int64_t num_classes = 1000;
  double width_mult = 1;  // all channels are multiplied by it and rounded to multiples of 8
  int64_t first_channels = 32, first_stride = 2, last_channels = 1280;
  std::vector<InvertedResidualStage> stages = {{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2},
                                               {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2},
                                               {6, 320, 1, 1}};
  double dropout = 0.2;  // before the classifier
};

// x (N, 3, H, W) of any size, made for 224x224 -> (N, num_classes).
struct MobileNetV2 : nn::Module {
  explicit MobileNetV2(MobileNetV2Options o = {}) : options(std::move(o)) {}

  MobileNetV2Options options;
  nn::Slot features = slot("features", blocks(options));
  nn::Slot classifier =
      slot("classifier",
           nn::Sequential(nn::Dropout(options.dropout),
                          nn::Linear(channels_before_classifier(options), options.num_classes)));

  Tensor forward(Tensor x) override {
    x = functional::adaptive_avg_pool2d(features(x), 1);
    return classifier(functional::flatten(x, 1));
  }

 private:
  // The nearest multiple of 8, but no less than 90% of the channels.
  static int64_t rounded(double channels) {
    int64_t r = std::max<int64_t>(8, static_cast<int64_t>(channels + 4) / 8 * 8);
    return static_cast<double>(r) < 0.9 * channels ? r + 8 : r;
  }
  static int64_t channels_before_classifier(const MobileNetV2Options& o) {
    return rounded(static_cast<double>(o.last_channels) * std::max(1.0, o.width_mult));
  }
  static nn::Sequential blocks(const MobileNetV2Options& o) {
    int64_t channels = rounded(static_cast<double>(o.first_channels) * o.width_mult);
    nn::Sequential s;
    s.append(conv_bn_relu6(3, channels, 3, o.first_stride));
    for (const InvertedResidualStage& stage : o.stages)
      for (int64_t i = 0; i < stage.repeats; ++i) {
        const int64_t out = rounded(static_cast<double>(stage.channels) * o.width_mult);
        s.append(InvertedResidual(channels, out, i == 0 ? stage.stride : 1, stage.expansion));
        channels = out;
      }
    s.append(conv_bn_relu6(channels, channels_before_classifier(o), 1));
    return s;
  }
};

}  // namespace models
