#include "octet/io/data_loader.h"

#include <algorithm>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"

namespace octet {
namespace {

// A sequence of its own for each (seed, epoch, sample).
Random random_of(uint64_t seed, int64_t epoch, int64_t sample) {
  uint64_t a = Random(seed).next(), b = Random(a ^ static_cast<uint64_t>(epoch)).next();
  return Random(b ^ static_cast<uint64_t>(sample));
}

// What black is after preprocessing.
float black(const Preprocess& p, int64_t channel) {
  auto value = [channel](const std::vector<float>& list, float none) {
    return list.empty() ? none : list[list.size() == 1 ? 0 : static_cast<size_t>(channel)];
  };
  return (0 * p.scale - value(p.mean, 0)) / value(p.std, 1);
}

}  // namespace

DataLoader::DataLoader(Dataset dataset, LoaderOptions options)
    : dataset_(std::move(dataset)), options_(options) {
  const Augmentation& a = options.augmentation;
  OCTET_CHECK(options.batch_size >= 1 && a.crop_padding >= 0 && a.cutout >= 0, invalid_argument,
              "DataLoader: batch_size={}, crop_padding={}, cutout={}; expected 1 or more, and 0 or "
              "more of the others",
              options.batch_size, a.crop_padding, a.cutout);
  int64_t fixed = dataset_.fixed_batch();
  OCTET_CHECK(fixed == 0 || fixed == options.batch_size, invalid_argument,
              "DataLoader: batch_size={}, but the model takes batches of {}, or samples differ in "
              "size and take batches of 1",
              options.batch_size, fixed);
}

int64_t DataLoader::size() const {
  int64_t n = samples(), b = options_.batch_size;
  return options_.drop_last ? n / b : (n + b - 1) / b;
}

int64_t DataLoader::samples() const {
  return options_.samples > 0 ? std::min(options_.samples, dataset_.size()) : dataset_.size();
}

DataLoader::Iterator DataLoader::begin() {
  std::vector<int64_t> order(static_cast<size_t>(samples()));
  std::iota(order.begin(), order.end(), int64_t{0});
  if (options_.shuffle) {
    Random random = random_of(options_.seed, epoch_, -1);
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1],
                order[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
  }
  return Iterator(this, std::move(order), epoch_++, 0);
}

DataLoader::Iterator::Iterator(const DataLoader* loader, std::vector<int64_t> order, int64_t epoch,
                               int64_t at)
    : loader_(loader), order_(std::move(order)), epoch_(epoch), at_(at) {}

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  ++at_;
  batch_.reset();
  return *this;
}

const Batch& DataLoader::Iterator::operator*() const {
  if (batch_) return *batch_;
  const int64_t size = loader_->options_.batch_size, first = at_ * size;
  const int64_t last = std::min(first + size, static_cast<int64_t>(order_.size()));
  const std::vector<int64_t> samples(order_.begin() + first, order_.begin() + last);
  batch_ = loader_->dataset_.gather(samples);
  loader_->augment(*batch_, samples, epoch_);
  return *batch_;
}

void DataLoader::augment(Batch& batch, const std::vector<int64_t>& samples, int64_t epoch) const {
  const Augmentation& a = options_.augmentation;
  if (!a.horizontal_flip && a.crop_padding == 0 && a.cutout == 0) return;
  for (auto& [name, tensor] : batch.inputs) {
    if (tensor.dim() != 4 || tensor.dtype() != DType::float32 || tensor.size(0) != batch.size)
      continue;
    const int64_t channels = tensor.size(1), height = tensor.size(2), width = tensor.size(3);
    Tensor changed = Tensor::empty(tensor.shape());
    const float* in = static_cast<const Tensor&>(tensor).data<float>();
    float* out = changed.data<float>();
    parallel_for(batch.size, [&](int64_t i) {
      Random random = random_of(options_.seed, epoch, samples[static_cast<size_t>(i)]);
      const bool flip = a.horizontal_flip && random.integer(0, 1) == 1;
      const int64_t down = random.integer(0, 2 * a.crop_padding) - a.crop_padding;
      const int64_t right = random.integer(0, 2 * a.crop_padding) - a.crop_padding;
      // The square's first row and column; drawn only where there is one, so that the other draws
      // stay what they are without.
      const int64_t top = a.cutout ? random.integer(0, height - 1) - a.cutout / 2 : 0;
      const int64_t left = a.cutout ? random.integer(0, width - 1) - a.cutout / 2 : 0;
      for (int64_t c = 0; c < channels; ++c) {
        const float border = black(dataset_.preprocess(), c);
        const int64_t plane = (i * channels + c) * height * width;
        for (int64_t y = 0; y < height; ++y)
          for (int64_t x = 0; x < width; ++x) {
            const int64_t from_y = y + down, from_x = (flip ? width - 1 - x : x) + right;
            const bool inside = from_y >= 0 && from_y < height && from_x >= 0 && from_x < width;
            const bool cut = y >= top && y < top + a.cutout && x >= left && x < left + a.cutout;
            out[plane + y * width + x] =
                inside && !cut ? in[plane + from_y * width + from_x] : border;
          }
      }
    });
    tensor = changed;
  }
}

}  // namespace octet
