#pragma once
// Networks of the kinds that the ONNX tests export, small.

#include <cmath>

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"

namespace octet::testing {

// Depthwise layers with hard swish, and squeeze-and-excite with a hard sigmoid.
struct MobileNetV3 : nn::Module {
  nn::Slot stem = slot("stem", nn::Conv2d(3, 16, 3, {.stride = 2, .padding = 1}));
  nn::Slot wide = slot("wide", nn::Conv2d(16, 32, 1));
  nn::Slot depthwise = slot("depthwise", nn::Conv2d(32, 32, 3, {.padding = 1, .groups = 32}));
  nn::Slot squeeze = slot("squeeze", nn::Conv2d(32, 8, 1));
  nn::Slot excite = slot("excite", nn::Conv2d(8, 32, 1));
  nn::Slot narrow = slot("narrow", nn::Conv2d(32, 16, 1));
  nn::Slot fc = slot("fc", nn::Linear(16, 10));
  Tensor forward(Tensor image) override {
    const Tensor x = functional::hardswish(stem(image));
    Tensor y = functional::hardswish(depthwise(functional::hardswish(wide(x))));
    const Tensor s = functional::adaptive_avg_pool2d(y, {1, 1});
    y = y * functional::hardsigmoid(excite(functional::relu(squeeze(s))));
    y = functional::hardswish(x + narrow(y));
    return fc(functional::adaptive_avg_pool2d(y, {1, 1}).flatten(1));
  }
};

// A step down and one up, joined; below zero too, behind what is joined with something that is.
struct UNet : nn::Module {
  nn::Slot first = slot("first", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot down = slot("down", nn::Conv2d(8, 16, 3, {.stride = 2, .padding = 1}));
  nn::Slot deep = slot("deep", nn::Conv2d(16, 16, 3, {.padding = 1}));
  nn::Slot up = slot("up", nn::Conv2d(24, 8, 3, {.padding = 1}));
  nn::Slot last = slot("last", nn::Conv2d(8, 2, 1));
  Tensor forward(Tensor image) override {
    const Tensor x = functional::relu(first(image));
    const Tensor y = deep(functional::relu(down(x)));
    const Tensor z = functional::cat({x, functional::interpolate(y, {.scale_factor = {2, 2}})}, 1);
    return last(functional::relu(up(z)));
  }
};

struct Encoder : nn::Module {
  struct Layer : nn::Module {
    nn::Slot q = slot("q", nn::Linear(32, 32)), k = slot("k", nn::Linear(32, 32)),
             v = slot("v", nn::Linear(32, 32)), o = slot("o", nn::Linear(32, 32)),
             up = slot("up", nn::Linear(32, 64)), down = slot("down", nn::Linear(64, 32)),
             norm1 = slot("norm1", nn::LayerNorm(32)), norm2 = slot("norm2", nn::LayerNorm(32));
    Tensor forward(Tensor x) override {
      const auto heads = [](const Tensor& t) {
        return t.reshape({1, 9, 4, 8}).permute({0, 2, 1, 3});
      };
      const Tensor keys = heads(k(x)).permute({0, 1, 3, 2});
      const Tensor scores =
          functional::softmax(functional::matmul(heads(q(x)), keys) / std::sqrt(8.0), -1);
      const Tensor mixed =
          functional::matmul(scores, heads(v(x))).permute({0, 2, 1, 3}).reshape({1, 9, 32});
      x = norm1(x + o(mixed));
      return norm2(x + down(functional::gelu(up(x))));
    }
  };
  nn::Slot one = slot("one", Layer()), two = slot("two", Layer());
  Tensor forward(Tensor x) override { return two(one(x)); }
};

}  // namespace octet::testing
