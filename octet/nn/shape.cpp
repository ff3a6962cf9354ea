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

Attrs Flatten::config() const { return {{"start_dim", start_dim}, {"end_dim", end_dim}}; }
std::shared_ptr<Flatten> Flatten::from_config(const Attrs& c) {
  return make<Flatten>(c.get_int("start_dim"), c.get_int("end_dim"));
}
Attrs Unflatten::config() const { return {{"dim", dim}, {"unflattened_size", unflattened_size}}; }
std::shared_ptr<Unflatten> Unflatten::from_config(const Attrs& c) {
  return make<Unflatten>(c.get_int("dim"), c.get_ints("unflattened_size"));
}
std::string PixelShuffle::extra_repr() const {
  return "upscale_factor=" + std::to_string(upscale_factor);
}
Attrs PixelShuffle::config() const { return {{"upscale_factor", upscale_factor}}; }
std::shared_ptr<PixelShuffle> PixelShuffle::from_config(const Attrs& c) {
  return make<PixelShuffle>(c.get_int("upscale_factor"));
}
std::string PixelUnshuffle::extra_repr() const {
  return "downscale_factor=" + std::to_string(downscale_factor);
}
Attrs PixelUnshuffle::config() const { return {{"downscale_factor", downscale_factor}}; }
std::shared_ptr<PixelUnshuffle> PixelUnshuffle::from_config(const Attrs& c) {
  return make<PixelUnshuffle>(c.get_int("downscale_factor"));
}
std::string ChannelShuffle::extra_repr() const { return "groups=" + std::to_string(groups); }
Attrs ChannelShuffle::config() const { return {{"groups", groups}}; }
std::shared_ptr<ChannelShuffle> ChannelShuffle::from_config(const Attrs& c) {
  return make<ChannelShuffle>(c.get_int("groups"));
}

}  // namespace octet::nn
