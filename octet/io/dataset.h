#pragma once
// Samples for calibration and evaluation: the DATA of the command line.
//
// DATA is one of
//  - an IDX file of images (MNIST's format, also compressed by gzip): (N, H, W) or (N, C, H, W),
//    for a model with one input; the labels are taken from the file beside it whose name has
//    "labels-idx1" instead of "images-idx3";
//  - an .npz with `images` (N x C x H x W, uint8, float16 or float32), for a model with one input;
//  - an .npz with an array for each graph input, by name;
//  - a directory of .jpg .jpeg .png .bmp images, in name order, for a model with one input (N, 3 or
//    1, H, W): decoded to RGB (gray if the model takes 1 channel) and resized as Resize says;
//  - a directory of .npy and .npz files, one sample each, in name order: an .npy for a model with
//    one input, an .npz with an array for each input (`images` for the only one), with a batch
//    dimension of 1 or without it. Where a model leaves sizes open, samples may differ in them;
//  - a directory with neither but with subdirectories of such files: one class each, numbered in
//    the order of their names.
// Of a directory, other files and hidden ones are passed over. An .npz may also hold `labels` (N
// integers; of one sample, one; of all samples also (N, places), as those of a text's characters).

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet {

// What a graph wants of one of its inputs. Dimension 0 is the batch; dims may be symbolic.
struct InputSpec {
  std::string name;
  TensorType type;
};

// Applied to every floating input that is sampled: x = (x * scale - mean[c]) / std[c], in float32,
// where c is the index along dimension 1. Empty lists do nothing; lists of one value apply to all
// channels.
struct Preprocess {
  float scale = 1;
  std::vector<float> mean, std;
};

// How a directory of pictures is resized, bilinearly, for an input (N, C, H, W).
struct Resize {
  enum class To {
    input,  // to the input's H and W, which must be known
    none,   // each picture at its own size; H and W must be open
    size,   // to height x width, which must be the input's where it knows them
  };
  To to = To::input;
  int64_t height = 0, width = 0;  // of To::size, 1 or more
};

// Samples [begin, begin + size) of a dataset, or chosen ones (begin is the first then).
struct Batch {
  // By input name; floating inputs are float32 (or the input's own floating dtype), integer inputs
  // keep theirs.
  std::map<std::string, Tensor> inputs;
  Tensor labels;  // int64, (size) or (size, places); undefined if the dataset has none
  int64_t begin = 0, size = 0;
};

// An array for an input has the input's rank and sizes, except along dimension 0, which counts the
// samples. Given whole to every batch are arrays of rank 0, and those whose dimension 0 is the
// number that the input says while other inputs leave theirs open or have another number of samples
// (the state of a recurrent network).
class Dataset {
 public:
  // Opens DATA for a model with these inputs and checks all of it that can be checked without
  // decoding pictures. Errors (one line that names the file, what there is and what the model
  // wants; of several that do not fit all, or the first files of a directory and how many more):
  //  not_found         no such file or directory; neither `images` nor an array for each input
  //  io                a file of a directory that cannot be read
  //  corrupt           not an .npz, damaged
  //  invalid_argument  a shape or dtype that does not fit, a wrong number of labels, no samples, no
  //                    pictures, a Preprocess or Resize that does not fit
  static Dataset open(const std::filesystem::path& path, const std::vector<InputSpec>& inputs,
                      const Preprocess& preprocess = {}, const Resize& resize = {});

  // The same without a model: one float32 input "images" of the pictures' own size, or (needed for
  // directories, not for others) resized to height x width with 3 channels. From an .npz, its array
  // `images`.
  static Dataset open_images(const std::filesystem::path& path, const Preprocess& preprocess = {},
                             int64_t height = 0, int64_t width = 0);

  // Number of samples, at least 1.
  int64_t size() const;
  bool has_labels() const;
  // Error naming the first of the first `count` samples whose label is not 0 to classes - 1, or if
  // there is more than one label for each sample. Nothing without labels.
  void check_labels(int64_t classes, int64_t count) const;
  // The size that batches must have: what the model insists on (its inputs' dimension 0 is a
  // number); 1 where samples differ in size, pictures at their own size among them; 0 if any will
  // do.
  int64_t fixed_batch() const;
  // "images.npz: 2000 samples with labels", for logs.
  std::string description() const;

  // `count` samples from `begin` on, or as many as there are (at least one; begin must be within
  // the dataset, else Error). Pictures are decoded here, in parallel: nothing is kept between
  // calls. Safe to call from several threads. Error corrupt naming the picture that cannot be
  // decoded; invalid_argument naming the sample that holds a NaN or, for a model with one input, an
  // infinity, and where samples of different sizes would be one batch.
  Batch get(int64_t begin, int64_t count) const;
  // The samples of these numbers, in this order; one or more.
  Batch gather(const std::vector<int64_t>& samples) const;

  // The names of the classes of a directory of subdirectories, by label; empty for other data.
  const std::vector<std::string>& classes() const;
  const Preprocess& preprocess() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace octet
