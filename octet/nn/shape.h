#pragma once
// Modules that only change shapes.

#include <string>
#include <vector>

#include "octet/nn/module.h"

namespace octet::nn {

// Dimensions start_dim..end_dim as one.
class Flatten : public Module {
 public:
  explicit Flatten(int64_t start_dim = 1, int64_t end_dim = -1)
      : start_dim(start_dim), end_dim(end_dim) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Flatten> from_config(const Attrs& c);
  int64_t start_dim, end_dim;
};

// Dimension dim as several; one of the sizes may be -1.
class Unflatten : public Module {
 public:
  Unflatten(int64_t dim, std::vector<int64_t> unflattened_size)
      : dim(dim), unflattened_size(std::move(unflattened_size)) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Unflatten> from_config(const Attrs& c);
  int64_t dim;
  std::vector<int64_t> unflattened_size;
};

// (N, C*r*r, H, W) to (N, C, H*r, W*r), r = upscale_factor.
class PixelShuffle : public Module {
 public:
  explicit PixelShuffle(int64_t upscale_factor) : upscale_factor(upscale_factor) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<PixelShuffle> from_config(const Attrs& c);
  int64_t upscale_factor;
};

// The way back: (N, C, H*r, W*r) to (N, C*r*r, H, W), r = downscale_factor.
class PixelUnshuffle : public Module {
 public:
  explicit PixelUnshuffle(int64_t downscale_factor) : downscale_factor(downscale_factor) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<PixelUnshuffle> from_config(const Attrs& c);
  int64_t downscale_factor;
};

// Channels of `groups` groups taken in turns (Zhang et al. 2017).
class ChannelShuffle : public Module {
 public:
  explicit ChannelShuffle(int64_t groups) : groups(groups) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<ChannelShuffle> from_config(const Attrs& c);
  int64_t groups;
};

}  // namespace octet::nn
