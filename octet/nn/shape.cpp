#include "octet/nn/shape.h"

#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"

namespace octet::nn {

OCTET_MODULE(Flatten)
OCTET_MODULE(Unflatten)
OCTET_MODULE(PixelShuffle)
OCTET_MODULE(PixelUnshuffle)
OCTET_MODULE(ChannelShuffle)

Tensor Flatten::forward(Tensor x) { return functional::flatten(x, start_dim, end_dim); }
std::string Flatten::extra_repr() const {
  return fmt::format("start_dim={}, end_dim={}", start_dim, end_dim);
}

Tensor Unflatten::forward(Tensor x) { return functional::unflatten(x, dim, unflattened_size); }
std::string Unflatten::extra_repr() const {
  return fmt::format("dim={}, unflattened_size={}", dim, python(unflattened_size));
}

Tensor PixelShuffle::forward(Tensor x) { return functional::pixel_shuffle(x, upscale_factor); }
Tensor PixelUnshuffle::forward(Tensor x) {
  return functional::pixel_unshuffle(x, downscale_factor);
}
Tensor ChannelShuffle::forward(Tensor x) { return functional::channel_shuffle(x, groups); }

}  // namespace octet::nn
