#pragma once
// What the sources of Dataset share.

#include <functional>

#include "octet/base/error.h"
#include "octet/io/dataset.h"
#include "octet/io/npz.h"

namespace octet {
namespace dataset_detail {

// One input, and where its samples are.
struct Column {
  InputSpec spec;
  Tensor array = {};   // of an .npz or IDX file: all samples
  bool whole = false;  // given to every batch as it is, not sampled along dimension 0
  // What Preprocess counts: dimension 1 of the samples; of those that have none, 1.
  int64_t channels = 1;
};

// A file of a directory that is one sample: the arrays of the inputs, by their names in an .npz.
struct SampleFile {
  std::filesystem::path path;
  std::vector<std::string> names = {};  // by input; of an .npy empty
};

// Errors of several things that are checked one after another.
class Faults {
 public:
  // Runs `check`, and keeps the Error that it throws.
  void collect(const std::function<void()>& check);
  bool empty() const { return messages_.empty(); }
  // Throws all of them as one Error: the first `most` and how many there are more.
  void report(size_t most = 8) const;

 private:
  ErrorCode code_ = ErrorCode::invalid_argument;
  std::vector<std::string> messages_;
};

inline bool takes_floats(const TensorType& type) {
  return is_floating(type.dtype) || type.is_quantized();
}
// "'x' Float(N, 4), 'ids' Long(N)"
std::string to_string(const std::vector<InputSpec>& inputs);
std::string to_string(const std::vector<NpzEntry>& entries);
// Whether sizes from dimension `from` on are what the type says.
bool fits(const Shape& shape, const TensorType& type, size_t from);
// What the usual mistakes look like, or "".
std::string shape_advice(const Shape& shape, const TensorType& type);
// Error where an array of that dtype cannot be the input's samples.
void check_dtype(const std::string& where, const NpzEntry& entry, const InputSpec& input);
// The array of each input: that of its name; `images` stands in for the only one that has none.
std::vector<const NpzEntry*> choose_arrays(const std::string& file,
                                           const std::vector<NpzEntry>& entries,
                                           const std::vector<InputSpec>& inputs);
// The array `labels`, unless it is an input; null if there is none. Error if it has no integers, or
// another shape: that of one of `shapes` or, with `places`, more dimensions behind it.
const NpzEntry* find_labels(const std::string& file, const std::vector<NpzEntry>& entries,
                            const std::vector<const NpzEntry*>& chosen,
                            const std::vector<Shape>& shapes, bool places);
// Of what pictures are decoded to for an input (N, C, H, W): RGB where C is open.
int64_t picture_channels(const TensorType& type);

}  // namespace dataset_detail

struct Dataset::Impl {
  using Column = dataset_detail::Column;

  std::filesystem::path path;
  Preprocess preprocess;
  Resize resize;
  std::vector<Column> columns;
  // Of a directory: pictures, or one sample each.
  std::vector<std::filesystem::path> pictures;
  std::vector<dataset_detail::SampleFile> files;
  std::vector<std::string> classes;
  Tensor labels;
  int64_t size = 0;
  bool one_by_one = false;  // samples may differ in size

  // dataset.cpp
  void open_npz(const std::vector<InputSpec>& inputs);
  void open_idx(const std::vector<InputSpec>& inputs);
  void check_preprocess() const;
  // Rows of a column's array as floats, preprocessed; `where` is the file, for messages. Without
  // rows: the array whole, as it is.
  Tensor floats(const Column& column, const Tensor& array, const std::vector<int64_t>& rows,
                const std::string& where) const;
  Tensor decode(const Column& column, const std::vector<int64_t>& samples) const;

  // dataset_files.cpp
  void open_directory(const std::vector<InputSpec>& inputs);
  void open_pictures(const std::vector<InputSpec>& inputs);
  void open_files(const std::vector<InputSpec>& inputs);
  // An array's shape with the batch dimension of 1 that it may lack. Error if it is no sample.
  Shape sample_shape(const std::string& where, const Shape& shape, const Column& column) const;
  // The inputs of a sample, in the order of the columns.
  std::vector<Tensor> read_sample(int64_t sample) const;
  // Those of several samples, joined along dimension 0. Error if their sizes differ.
  std::vector<Tensor> read_samples(const std::vector<int64_t>& samples) const;
};

}  // namespace octet
