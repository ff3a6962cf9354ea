// Directories of samples: pictures, or files of arrays.
#include <algorithm>
#include <cctype>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/parallel.h"
#include "octet/io/dataset_impl.h"

namespace octet {

namespace fs = std::filesystem;
using namespace dataset_detail;

namespace {

constexpr const char* kPictures[] = {".jpg", ".jpeg", ".png", ".bmp"};
constexpr const char* kArrays[] = {".npy", ".npz"};
constexpr size_t kNamedFiles = 3;  // of those that do not fit

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

// What is in a directory that is not hidden, in name order.
struct Listing {
  std::vector<fs::path> pictures, arrays, directories;
};

Listing list(const fs::path& directory) {
  const auto is_one_of = [](const std::string& extension, const auto& known) {
    return std::find(std::begin(known), std::end(known), extension) != std::end(known);
  };
  Listing found;
  std::error_code error;
  for (auto it = fs::directory_iterator(directory, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const fs::path& path = it->path();
    std::error_code ignored;
    if (path.filename().string()[0] == '.') continue;
    if (it->is_directory(ignored))
      found.directories.push_back(path);
    else if (is_one_of(lower_extension(path), kPictures))
      found.pictures.push_back(path);
    else if (is_one_of(lower_extension(path), kArrays))
      found.arrays.push_back(path);
  }
  OCTET_CHECK(!error, io, "{}: cannot list the directory: {}", directory.string(), error.message());
  for (std::vector<fs::path>* files : {&found.pictures, &found.arrays, &found.directories})
    std::sort(files->begin(), files->end());
  return found;
}

bool is_npy(const fs::path& path) { return lower_extension(path) == ".npy"; }

// The arrays of a sample's file; an .npy has one without a name.
std::vector<NpzEntry> list_arrays(const fs::path& path) {
  if (!is_npy(path)) return list_npz(path);
  return {describe_npy(path)};
}

std::string array_in(const fs::path& file, const std::string& name) {
  return name.empty() ? file.string() : fmt::format("{}: array '{}'", file.string(), name);
}

}  // namespace

void Dataset::Impl::open_directory(const std::vector<InputSpec>& inputs) {
  std::vector<int64_t> numbers;  // of the classes
  const auto take = [&](Listing found) {
    pictures.insert(pictures.end(), found.pictures.begin(), found.pictures.end());
    for (fs::path& file : found.arrays) files.push_back({std::move(file)});
    return found.pictures.size() + found.arrays.size();
  };
  const Listing top = list(path);
  if (take(top) == 0)
    for (const fs::path& directory : top.directories) {
      const size_t count = take(list(directory));
      if (count == 0) continue;
      numbers.insert(numbers.end(), count, static_cast<int64_t>(classes.size()));
      classes.push_back(directory.filename().string());
    }
  OCTET_CHECK(pictures.empty() || files.empty(), invalid_argument,
              "{}: {} pictures and {} files of arrays; expected one kind in a directory of samples",
              path.string(), pictures.size(), files.size());
  OCTET_CHECK(!pictures.empty() || !files.empty(), invalid_argument,
              "{}: no samples and no pictures in this directory or its subdirectories; expected "
              ".jpg, .jpeg, .png or .bmp files, or .npy or .npz files, one sample each",
              path.string());
  size = static_cast<int64_t>(pictures.size() + files.size());
  if (pictures.empty())
    open_files(inputs);
  else
    open_pictures(inputs);
  if (!numbers.empty()) labels = Tensor::from(numbers, {static_cast<int64_t>(numbers.size())});
  for (const Column& c : columns) {
    const auto& dims = c.spec.type.dims;
    OCTET_CHECK(!one_by_one || dims.empty() || !dims[0].known() || c.whole || dims[0].size() == 1,
                invalid_argument,
                "{}: samples of different sizes are given one at a time; input '{}' takes {}, "
                "batches of {}",
                path.string(), c.spec.name, octet::to_string(c.spec.type), dims[0].size());
  }
}

// -- pictures -------------------------------------------------------------------------------------

void Dataset::Impl::open_pictures(const std::vector<InputSpec>& inputs) {
  const TensorType& type = inputs[0].type;
  const bool fit = inputs.size() == 1 && type.dim() == 4 && takes_floats(type) &&
                   (!type.dims[1].known() || type.dims[1].size() == 1 || type.dims[1].size() == 3);
  OCTET_CHECK(fit, invalid_argument,
              "{}: a directory of pictures fits a model with one float input (N, C, H, W) of 1 or "
              "3 channels; this model takes {}; give its arrays instead",
              path.string(), dataset_detail::to_string(inputs));
  const Dim &height = type.dims[2], &width = type.dims[3];
  const std::string takes =
      fmt::format("input '{}' takes {}", inputs[0].name, octet::to_string(type));
  switch (resize.to) {
    case Resize::To::input:
      OCTET_CHECK(height.known() && width.known(), invalid_argument,
                  "{}: pictures are resized to the height and width of the input; {}: give the "
                  "size (--resize HxW), or leave each picture at its own (--resize none)",
                  path.string(), takes);
      break;
    case Resize::To::none:
      OCTET_CHECK(!height.known() && !width.known(), invalid_argument,
                  "{}: pictures at their own size fit an input whose height and width are open; "
                  "{}: resize them to that (--resize fit)",
                  path.string(), takes);
      one_by_one = true;
      break;
    case Resize::To::size:
      OCTET_CHECK(resize.height >= 1 && resize.width >= 1, invalid_argument,
                  "{}: pictures cannot be resized to {} x {}; expected 1 or more", path.string(),
                  resize.height, resize.width);
      OCTET_CHECK((!height.known() || height.size() == resize.height) &&
                      (!width.known() || width.size() == resize.width),
                  invalid_argument, "{}: pictures resized to {} x {} do not fit; {}", path.string(),
                  resize.height, resize.width, takes);
      break;
  }
  Faults faults;
  for (const fs::path& picture : pictures) faults.collect([&] { MappedFile::open(picture); });
  faults.report(kNamedFiles);
  columns.push_back({inputs[0], Tensor(), false, picture_channels(type)});
}

// -- files of arrays ------------------------------------------------------------------------------

Shape Dataset::Impl::sample_shape(const std::string& where, const Shape& shape,
                                  const Column& column) const {
  const TensorType& type = column.spec.type;
  if (column.whole && fits(shape, type, 0)) return shape;
  if (!column.whole) {
    if (shape.size() == type.dims.size() && shape[0] == 1 && fits(shape, type, 1)) return shape;
    Shape batch = shape;
    batch.insert(batch.begin(), 1);
    if (fits(batch, type, 1)) return batch;
  }
  OCTET_FAIL(invalid_argument,
             "{} has shape {}; input '{}' takes {}: expected one sample, with a batch dimension "
             "of 1 or without it{}",
             where, octet::to_string(shape), column.spec.name, octet::to_string(type),
             shape_advice(shape, type));
}

void Dataset::Impl::open_files(const std::vector<InputSpec>& inputs) {
  // What is the same in all samples of a batch of any size cannot be sampled along dimension 0.
  const bool free_batch = std::any_of(inputs.begin(), inputs.end(), [](const InputSpec& input) {
    return input.type.dim() > 0 && !input.type.dims[0].known();
  });
  for (const InputSpec& input : inputs) {
    const bool whole = input.type.dims.empty() || (free_batch && input.type.dims[0].known());
    columns.push_back({input, Tensor(), whole});
    one_by_one |= whole;
  }
  std::vector<Shape> first(columns.size());
  const bool per_channel = preprocess.mean.size() > 1 || preprocess.std.size() > 1;
  std::vector<int64_t> classes_given;
  std::string unlabelled;  // a file without labels
  Faults faults;
  const auto check = [&](SampleFile& file, bool is_first) {
    const std::vector<NpzEntry> entries = list_arrays(file.path);
    const bool npy = is_npy(file.path);
    OCTET_CHECK(!npy || inputs.size() == 1, invalid_argument,
                "{}: is a single array; the model takes {}: save an .npz with an array for each",
                file.path.string(), dataset_detail::to_string(inputs));
    const std::vector<const NpzEntry*> chosen =
        npy ? std::vector{&entries[0]} : choose_arrays(file.path.string(), entries, inputs);
    std::map<std::string, int64_t> sizes;  // of the model's symbols, in this sample
    for (size_t i = 0; i < columns.size(); ++i) {
      Column& column = columns[i];
      const std::string where = array_in(file.path, chosen[i]->name);
      if (!npy) file.names.push_back(chosen[i]->name);
      check_dtype(where, *chosen[i], column.spec);
      const Shape shape = sample_shape(where, chosen[i]->shape, column);
      OCTET_CHECK(std::count(shape.begin(), shape.end(), 0) == 0, invalid_argument,
                  "{} has shape {}: it is empty", where, octet::to_string(chosen[i]->shape));
      for (size_t d = column.whole ? 0 : 1; d < shape.size(); ++d) {
        const Dim& dim = column.spec.type.dims[d];
        if (dim.known()) continue;
        const auto [at, fresh] = sizes.emplace(dim.name(), shape[d]);
        OCTET_CHECK(fresh || at->second == shape[d], invalid_argument,
                    "{} has shape {}; input '{}' takes {}, and {} is {} in this sample already",
                    where, octet::to_string(chosen[i]->shape), column.spec.name,
                    octet::to_string(column.spec.type), dim.name(), at->second);
      }
      const int64_t channels = shape.size() > 1 ? shape[1] : 1;
      if (is_first) column.channels = channels;
      OCTET_CHECK(!per_channel || column.channels == channels || column.whole, invalid_argument,
                  "{} has {} channels, the first sample has {}: a mean or std for each channel "
                  "needs the same number in all",
                  where, channels, column.channels);
      if (is_first) first[i] = shape;
      one_by_one |= shape != first[i];
    }
    const NpzEntry* label =
        npy ? nullptr : find_labels(file.path.string(), entries, chosen, {{1}, {}}, false);
    if (label)
      classes_given.push_back(
          read_npz(file.path, {"labels"}).at("labels").to(DType::int64).to_vector<int64_t>()[0]);
    else
      unlabelled = file.path.string();
  };
  for (size_t n = 0; n < files.size(); ++n) faults.collect([&] { check(files[n], n == 0); });
  faults.report(kNamedFiles);
  OCTET_CHECK(classes_given.empty() || unlabelled.empty(), invalid_argument,
              "{}: has no array 'labels', which other samples of {} have; give all or none",
              unlabelled, path.string());
  if (!classes_given.empty()) labels = Tensor::from(classes_given, {size});
}

std::vector<Tensor> Dataset::Impl::read_sample(int64_t sample) const {
  const SampleFile& file = files[static_cast<size_t>(sample)];
  std::map<std::string, Tensor> arrays;
  if (file.names.empty())
    arrays[""] = read_npy(file.path);
  else
    arrays = read_npz(file.path, file.names);
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < columns.size(); ++i) {
    const Column& column = columns[i];
    const std::string name = file.names.empty() ? "" : file.names[i],
                      where = array_in(file.path, name);
    Tensor x = arrays.at(name);
    // The file may be another by now.
    check_dtype(where, {name, x.dtype(), x.shape()}, column.spec);
    x = x.reshape(sample_shape(where, x.shape(), column));
    OCTET_CHECK((preprocess.mean.size() <= 1 && preprocess.std.size() <= 1) || column.whole ||
                    (x.dim() > 1 ? x.size(1) : 1) == column.channels,
                invalid_argument, "{} has other channels than when the data was opened", where);
    if (!takes_floats(column.spec.type)) {
      inputs.push_back(x.to(column.spec.type.dtype));
      continue;
    }
    if (x.dtype() == DType::float16) x = x.to(DType::float32);
    inputs.push_back(floats(column, x,
                            column.whole ? std::vector<int64_t>() : std::vector<int64_t>{0},
                            file.path.string()));
  }
  return inputs;
}

std::vector<Tensor> Dataset::Impl::read_samples(const std::vector<int64_t>& samples) const {
  const auto count = static_cast<int64_t>(samples.size());
  if (count == 1) return read_sample(samples[0]);
  std::vector<std::vector<Tensor>> read(samples.size());
  parallel_for(count, [&](int64_t i) {
    read[static_cast<size_t>(i)] = read_sample(samples[static_cast<size_t>(i)]);
  });
  std::vector<Tensor> inputs;
  for (size_t c = 0; c < columns.size(); ++c) {
    Shape shape = read[0][c].shape();
    const auto file = [&](size_t i) {
      return files[static_cast<size_t>(samples[i])].path.string();
    };
    OCTET_CHECK(!columns[c].whole, invalid_argument,
                "{}: input '{}' has no batch dimension to join samples along: take them one at a "
                "time",
                path.string(), columns[c].spec.name);
    for (size_t i = 1; i < read.size(); ++i)
      OCTET_CHECK(read[i][c].shape() == shape, invalid_argument,
                  "samples of {} and {} cannot be one batch ({} and {}): take them one at a time",
                  octet::to_string(shape), octet::to_string(read[i][c].shape()), file(0), file(i));
    shape[0] = count;
    Tensor joined = Tensor::empty(shape, read[0][c].dtype());
    for (int64_t i = 0; i < count; ++i)
      joined.slice(0, i, i + 1).copy_from(read[static_cast<size_t>(i)][c]);
    inputs.push_back(std::move(joined));
  }
  return inputs;
}

}  // namespace octet
