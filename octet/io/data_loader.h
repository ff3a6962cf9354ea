#pragma once
// Batches of a dataset for training: shuffled, with random flips, crops and cutouts.
//
//   DataLoader loader(Dataset::open_images("train.npz", {1 / 255.f, {0.5f}, {0.25f}}),
//                     {.batch_size = 64, .shuffle = true});
//   for (int epoch = 0; epoch < 10; ++epoch)
//     for (const Batch& batch : loader) step(batch.inputs.at("images"), batch.labels);

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "octet/io/dataset.h"

namespace octet {

// Changes of pictures (N, C, H, W), drawn anew for each in each epoch.
struct Augmentation {
  bool horizontal_flip = false;  // with probability 1/2
  // a border of that many black pixels around, then a random cut of the old size
  int64_t crop_padding = 0;
  // a black square of that side, in pixels, around a random pixel of each picture (DeVries and
  // Taylor 2017); what lies beyond the border is cut off
  int64_t cutout = 0;
};

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;  // leaves off a last batch that is not full
  int64_t samples = 0;     // only the first so many of the dataset; 0: all
  // of shuffling and augmentation: the same seed gives the same batches on every machine
  uint64_t seed = 0;
  Augmentation augmentation = {};
};

// begin() starts an epoch: the next one has another order and other augmentations. What a sample
// becomes depends on the seed, the epoch and the sample only, not on the batch it is in.
class DataLoader {
 public:
  // Error for a batch size below 1, one the dataset's model does not take, or a negative
  // crop_padding or cutout.
  DataLoader(Dataset dataset, LoaderOptions options);

  const Dataset& dataset() const { return dataset_; }
  int64_t size() const;                              // batches in an epoch
  int64_t samples() const;                           // that they are made of
  int64_t epoch() const { return epoch_; }           // how many have begun
  void set_epoch(int64_t epoch) { epoch_ = epoch; }  // the next one is this: resuming a training

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = ptrdiff_t;
    using pointer = const Batch*;
    using reference = const Batch&;
    // Loaded when it is first looked at: batches that are passed over cost nothing.
    reference operator*() const;
    pointer operator->() const { return &**this; }
    Iterator& operator++();
    bool operator==(const Iterator& other) const { return at_ == other.at_; }

   private:
    friend class DataLoader;
    Iterator(const DataLoader* loader, std::vector<int64_t> order, int64_t epoch, int64_t at);
    const DataLoader* loader_;
    std::vector<int64_t> order_;  // of all samples
    int64_t epoch_, at_;          // batch number
    mutable std::optional<Batch> batch_;
  };
  Iterator begin();
  Iterator end() { return Iterator(this, {}, 0, size()); }

 private:
  void augment(Batch& batch, const std::vector<int64_t>& samples, int64_t epoch) const;
  Dataset dataset_;
  LoaderOptions options_;
  int64_t epoch_ = 0;
};

}  // namespace octet
