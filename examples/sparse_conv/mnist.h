#pragma once
// The network of the example, its data and its training.

#include <octet/nn/containers.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "sparse_conv.h"

namespace sparse {

// Six stages from 28 x 28 pixels to 1 x 1, then logarithms of the probabilities of 10 digits.
// Inputs: features (rows, 1), indices (rows, 3), batch_size (1), as in SparseConvTensor.
struct SparseMnist : nn::Module {
  // `width` is that of the first stage; the others are twice as wide. 32 is the full network.
  explicit SparseMnist(int64_t width = 32);
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Attrs config() const override { return {{"width", width}}; }
  static std::shared_ptr<SparseMnist> from_config(const Attrs& c) {
    return nn::make<SparseMnist>(c.get_int("width"));
  }

  int64_t width;
  nn::Slot net;
  nn::Slot dense;
  nn::Parameter spatial_shape;  // buffer (2): 28, 28
};

// The same up to 4 x 4 sites, then a convolution and a linear layer of octet's own on the dense
// image.
struct MixedMnist : nn::Module {
  explicit MixedMnist(int64_t width = 32);
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Attrs config() const override { return {{"width", width}}; }
  static std::shared_ptr<MixedMnist> from_config(const Attrs& c) {
    return nn::make<MixedMnist>(c.get_int("width"));
  }

  int64_t width;
  nn::Slot net, dense, conv, relu, fc;
  nn::Parameter spatial_shape;
};

// The types of both networks' inputs; how many sites are active is not known.
std::vector<TensorType> input_types();

// Images (n, 1, 28, 28) in 0..1 and labels (n) int64.
struct Digits {
  Tensor images, labels;
  int64_t size() const { return images.size(0); }
  Digits first(int64_t n) const { return {images.slice(0, 0, n), labels.slice(0, 0, n)}; }
  // What the network takes for the images begin..end-1.
  std::vector<Tensor> inputs(int64_t begin, int64_t end) const;
};

// Where MNIST is: OCTET_DATA/mnist, or ../shared/data/mnist beside the repository.
std::filesystem::path mnist_dir();
Digits load_mnist(const std::filesystem::path& npz);
// Strokes drawn at random, for runs without MNIST. Labels 0..9: the row and column of a bar.
Digits made_up_digits(int64_t count, uint64_t seed);

struct TrainOptions {
  int64_t epochs = 2, batch_size = 32;
  double lr = 5e-3;
  // called after each epoch with its mean loss
  std::function<void(int64_t epoch, double loss)> report;
};
void train(nn::Module& net, const Digits& digits, const TrainOptions& options);

// The share of images whose likeliest digit is the label, and the likeliest digits.
double accuracy(nn::Module& net, const Digits& digits);
std::vector<int64_t> predict(nn::Module& net, const Digits& digits);

}  // namespace sparse
