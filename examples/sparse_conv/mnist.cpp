#include "mnist.h"

#include <octet/autograd/autograd.h>
#include <octet/base/random.h>
#include <octet/io/npz.h>
#include <octet/nn/conv.h>
#include <octet/nn/linear.h>
#include <octet/nn/loss.h>
#include <octet/nn/optim.h>
#include <octet/nn/registry.h>
#include <octet/ops/functional.h>
#include <octet/ops/op.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace sparse {

namespace functional = octet::functional;

namespace {
nn::Sequential stage(SparseConv2d conv) {
  const int64_t channels = conv.out_channels;
  return nn::Sequential(std::move(conv), SparseBatchNorm(channels), SparseReLU());
}
// From 28 x 28 sites to 4 x 4.
nn::Sequential stages(int64_t width) {
  const int64_t wide = 2 * width;
  // 28 x 28
  return nn::Sequential(stage(SubMConv2d(1, width, 3)), stage(SubMConv2d(width, wide, 3)),
                        // 14 x 14
                        stage({wide, wide, 2, {.stride = 2}}),
                        stage({wide, wide, 2, {.stride = 2}}),                 // 7 x 7
                        stage({wide, wide, 3, {.stride = 2, .padding = 1}}));  // 4 x 4
}
nn::Sequential with_last(nn::Sequential net, SparseConv2d last) {
  net.append(std::move(last));
  return net;
}
}  // namespace

SparseMnist::SparseMnist(int64_t width)
    : width(width),
      net(slot("net", with_last(stages(width), {2 * width, 10, 4, {.stride = 4}}))),
      dense(slot("dense", ToDense(1))),
      spatial_shape(buffer("spatial_shape", Tensor::from<int64_t>({28, 28}))) {}

std::vector<Tensor> SparseMnist::forward(std::vector<Tensor> inputs) {
  SparseConvTensor x{inputs.at(0), inputs.at(1), spatial_shape, inputs.at(2)};
  x = net.call<SparseConvTensor>(x);
  const Tensor y = functional::flatten(dense.call<Tensor>(x), 1);
  return {functional::log_softmax(y, 1)};
}

MixedMnist::MixedMnist(int64_t width)
    : width(width),
      net(slot("net", stages(width))),
      dense(slot("dense", ToDense(4))),
      conv(slot("conv", nn::Conv2d(2 * width, 16, 3, {.padding = 1}))),
      relu(slot("relu", nn::ReLU())),
      fc(slot("fc", nn::Linear(256, 10))),
      spatial_shape(buffer("spatial_shape", Tensor::from<int64_t>({28, 28}))) {}

std::vector<Tensor> MixedMnist::forward(std::vector<Tensor> inputs) {
  const SparseConvTensor x{inputs.at(0), inputs.at(1), spatial_shape, inputs.at(2)};
  const Tensor y = relu(conv(dense.call<Tensor>(net.call<SparseConvTensor>(x))));
  return {functional::log_softmax(fc(functional::flatten(y, 1)), 1)};
}

std::vector<TensorType> input_types() {
  using octet::DType;
  const octet::Dim rows("rows");
  return {TensorType(DType::float32, {rows, 1}), TensorType(DType::int32, {rows, 3}),
          TensorType(DType::int64, {octet::Dim(1)})};
}

std::vector<Tensor> Digits::inputs(int64_t begin, int64_t end) const {
  const SparseConvTensor x = from_dense(images.slice(0, begin, end));
  return {x.features, x.indices, x.batch_size};
}

std::filesystem::path mnist_dir() {
  const char* dir = std::getenv("OCTET_DATA");
  return (dir && *dir ? std::filesystem::path(dir)
                      : std::filesystem::path("..") / "shared" / "data") /
         "mnist";
}

Digits load_mnist(const std::filesystem::path& npz) {
  auto arrays = octet::read_npz(npz, {"images", "labels"});
  return {arrays.at("images").to(octet::DType::float32) / 255.0, arrays.at("labels")};
}

Digits made_up_digits(int64_t count, uint64_t seed) {
  octet::Random random(seed);
  Tensor images = Tensor::zeros({count, 1, 28, 28}),
         labels = Tensor::zeros({count}, octet::DType::int64);
  for (int64_t n = 0; n < count; ++n) {
    const int64_t label = labels.data<int64_t>()[n] = random.integer(0, 9);
    float* image = images.data<float>() + n * 28 * 28;
    // Digits 0..4: a bar across in one of five places; 5..9: a bar down.
    const int64_t at = 3 + label % 5 * 5 + random.integer(-1, 1), from = random.integer(2, 6),
                  to = random.integer(20, 26);
    for (int64_t i = from; i < to; ++i)
      for (int64_t thick : {0, 1})
        image[label < 5 ? (at + thick) * 28 + i : i * 28 + at + thick] =
            static_cast<float>(random.uniform(0.3, 1));
  }
  return {images, labels};
}

void train(nn::Module& net, const Digits& digits, const TrainOptions& options) {
  net.train();
  octet::nn::optim::Adam optimizer(net.parameters(), {.lr = options.lr});
  const int64_t batches = digits.size() / options.batch_size;
  octet::nn::optim::CosineAnnealingLR schedule(optimizer, options.epochs * batches);
  std::vector<int64_t> order(static_cast<size_t>(digits.size()));
  std::iota(order.begin(), order.end(), 0);
  octet::Random random(1);
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1],
                order[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
    double sum = 0;
    for (int64_t b = 0; b < batches; ++b) {
      const auto* first = order.data() + b * options.batch_size;
      const Tensor pick = Tensor::from(std::vector<int64_t>(first, first + options.batch_size),
                                       {options.batch_size});
      auto picked = [&](const Tensor& t) {
        return octet::ops::call("index_select", {t, pick}, {{"dim", int64_t{0}}});
      };
      const Digits batch{picked(digits.images), picked(digits.labels)};
      const Tensor loss =
          functional::nll_loss(net(batch.inputs(0, batch.size())).at(0), batch.labels);
      optimizer.zero_grad();
      octet::autograd::backward(loss);
      optimizer.step();
      schedule.step();
      sum += loss.item();
    }
    if (options.report) options.report(epoch, sum / static_cast<double>(batches));
  }
  net.eval();
}

std::vector<int64_t> predict(nn::Module& net, const Digits& digits) {
  octet::autograd::NoGrad no_grad;
  std::vector<int64_t> all;
  for (int64_t begin = 0; begin < digits.size(); begin += 100) {
    const int64_t end = std::min(begin + 100, digits.size());
    const std::vector<int64_t> some =
        functional::argmax(net(digits.inputs(begin, end)).at(0), 1).to_vector<int64_t>();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

double accuracy(nn::Module& net, const Digits& digits) {
  const std::vector<int64_t> got = predict(net, digits),
                             labels = digits.labels.to_vector<int64_t>();
  int64_t right = 0;
  for (size_t i = 0; i < got.size(); ++i) right += got[i] == labels[i];
  return static_cast<double>(right) / static_cast<double>(digits.size());
}

OCTET_MODULE(SparseMnist)
OCTET_MODULE(MixedMnist)

}  // namespace sparse
