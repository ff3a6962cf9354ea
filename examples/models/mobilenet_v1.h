#pragma once
// MobileNetV1 (Howard et al. 2017): pairs of a 3x3 convolution of each channel by itself and a 1x1
// one.

#include <algorithm>
#include <utility>
#include <vector>

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace models {

using namespace octet;  // NOLINT: a header of examples

// A pair of convolutions: the 3x3 one has the stride, the 1x1 one gives `channels` channels.
struct SeparableConv {
  int64_t channels, stride;
};

struct MobileNetV1Options {
  int64_t num_classes = 1000;
  double width_mult = 1;  // all channels are multiplied by it and rounded to multiples of 8
  int64_t first_channels = 32, first_stride = 2;  // of the first convolution
  std::vector<SeparableConv> blocks = {{64, 1},  {128, 2},  {128, 1}, {256, 2}, {256, 1},
                                       {512, 2}, {512, 1},  {512, 1}, {512, 1}, {512, 1},
                                       {512, 1}, {1024, 2}, {1024, 1}};
  double dropout = 0;  // before the classifier
};

// x (N, 3, H, W) of any size, made for 224x224 -> (N, num_classes).
struct MobileNetV1 : nn::Module {
  explicit MobileNetV1(MobileNetV1Options o = {}) : options(std::move(o)) {}

  MobileNetV1Options options;
  nn::Slot features = slot("features", layers(options));
  nn::Slot classifier = slot(
      "classifier", nn::Sequential(nn::Dropout(options.dropout),
                                   nn::Linear(channels_of(options, options.blocks.back().channels),
                                              options.num_classes)));

  Tensor forward(Tensor x) override {
    x = functional::adaptive_avg_pool2d(features(x), 1);
    return classifier(functional::flatten(x, 1));
  }

 private:
  static int64_t channels_of(const MobileNetV1Options& o, int64_t channels) {
    const double scaled = static_cast<double>(channels) * o.width_mult;
    return std::max<int64_t>(8, static_cast<int64_t>(scaled + 4) / 8 * 8);
  }
  // A convolution that keeps the size but for its stride, batch norm, ReLU.
  static void append_conv(nn::Sequential& s, int64_t in, int64_t out, int64_t kernel,
                          int64_t stride, int64_t groups) {
    s.append(
        nn::Conv2d(in, out, kernel,
                   {.stride = stride, .padding = kernel / 2, .groups = groups, .bias = false}));
    s.append(nn::BatchNorm2d(out));
    s.append(nn::ReLU());
  }
  static nn::Sequential layers(const MobileNetV1Options& o) {
    nn::Sequential s;
    int64_t channels = channels_of(o, o.first_channels);
    append_conv(s, 3, channels, 3, o.first_stride, 1);
    for (const SeparableConv& block : o.blocks) {
      const int64_t out = channels_of(o, block.channels);
      append_conv(s, channels, channels, 3, block.stride, channels);
      append_conv(s, channels, out, 1, 1, 1);
      channels = out;
    }
    return s;
  }
};

}  // namespace models
