#include "octet/io/dataset.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/io/idx.h"
#include "octet/io/image.h"
#include "octet/io/npz.h"

namespace octet {

namespace {

namespace fs = std::filesystem;

// One input's array, or, for a directory of pictures, only what the input wants.
struct Column {
  InputSpec spec;
  Tensor array;
  bool whole = false;  // given to every batch as it is, not sampled along dimension 0
};

bool takes_floats(const TensorType& type) { return is_floating(type.dtype) || type.is_quantized(); }

std::string to_string(const std::vector<InputSpec>& inputs) {
  std::vector<std::string> texts;
  for (const InputSpec& input : inputs)
    texts.push_back(fmt::format("'{}' {}", input.name, octet::to_string(input.type)));
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string to_string(const std::vector<NpzEntry>& entries) {
  std::vector<std::string> texts;
  for (const NpzEntry& e : entries)
    texts.push_back(
        fmt::format("'{}' {} {}", e.name, octet::to_string(e.dtype), octet::to_string(e.shape)));
  return fmt::format("{}", fmt::join(texts, ", "));
}

const NpzEntry* find(const std::vector<NpzEntry>& entries, const std::string& name) {
  auto it = std::find_if(entries.begin(), entries.end(),
                         [&](const NpzEntry& e) { return e.name == name; });
  return it == entries.end() ? nullptr : &*it;
}

// Whether sizes from dimension `from` on are what the type says.
bool fits(const Shape& shape, const TensorType& type, size_t from) {
  if (shape.size() != type.dims.size()) return false;
  for (size_t d = from; d < shape.size(); ++d)
    if (type.dims[d].known() && type.dims[d].size() != shape[d]) return false;
  return true;
}

// What the usual mistakes look like, or "".
std::string shape_advice(const Shape& s, const TensorType& type) {
  if (type.dim() == 4 && s.size() == 4 && fits({s[0], s[3], s[1], s[2]}, type, 1))
    return "; it is N x H x W x C: save it as a.transpose(0, 3, 1, 2)";
  if (s.size() + 1 == type.dims.size() && type.dim() > 1) {
    Shape one = s;
    one.insert(one.begin(), 1);
    if (fits(one, type, 1)) return "; a batch dimension is missing: save it as a[None]";
    one = s;
    one.insert(one.begin() + 1, 1);
    if (s.size() == 3 && fits(one, type, 1))
      return "; the channel dimension is missing: save it as a[:, None]";
  }
  if (type.dim() == 4 && s.size() == 4) return "; resize the pictures to what the model takes";
  return "";
}

void check_dtype(const std::string& where, const NpzEntry& e, const InputSpec& input) {
  if (takes_floats(input.type)) {
    OCTET_CHECK(e.dtype == DType::uint8 || e.dtype == DType::float32 || e.dtype == DType::float16,
                invalid_argument,
                "{} is {}; input '{}' takes float32 or float16 (or uint8, as it is): save it as "
                "a.astype('float32')",
                where, octet::to_string(e.dtype), input.name);
    return;
  }
  // Integers may be narrower than the input's: they are widened.
  bool integers =
      !is_floating(e.dtype) && e.dtype != DType::bool_ && input.type.dtype != DType::bool_;
  bool widens = integers && element_size(e.dtype) < element_size(input.type.dtype);
  OCTET_CHECK(e.dtype == input.type.dtype || widens, invalid_argument,
              "{} is {}; input '{}' takes {}: save it as a.astype('{}')", where,
              octet::to_string(e.dtype), input.name, octet::to_string(input.type.dtype),
              octet::to_string(input.type.dtype));
}

// Of what pictures are decoded to for an input (N, C, H, W): RGB where C is open.
int64_t picture_channels(const TensorType& type) {
  return type.dims[1].known() ? type.dims[1].size() : 3;
}

void check_preprocess(const Preprocess& p, const std::vector<Column>& columns) {
  OCTET_CHECK(std::isfinite(p.scale) && p.scale != 0, invalid_argument,
              "scale {}: expected a finite number other than 0", p.scale);
  for (float v : p.mean)
    OCTET_CHECK(std::isfinite(v), invalid_argument, "mean {}: expected finite numbers", v);
  for (float v : p.std)
    OCTET_CHECK(std::isfinite(v) && v != 0, invalid_argument,
                "std {}: expected finite numbers other than 0", v);
  for (const Column& c : columns) {
    if (c.whole || !takes_floats(c.spec.type)) continue;
    for (auto [list, name] : {std::pair{&p.mean, "mean"}, std::pair{&p.std, "std"}}) {
      if (list->size() <= 1) continue;
      int64_t channels = c.array.defined() ? (c.array.dim() > 1 ? c.array.size(1) : 1)
                                           : picture_channels(c.spec.type);
      OCTET_CHECK(
          static_cast<int64_t>(list->size()) == channels, invalid_argument,
          "{} has {} values; input '{}' has {} channels: give one value, or one for each channel",
          name, list->size(), c.spec.name, channels);
    }
  }
}

// out = (in * scale - mean[c]) / std[c] over samples x channels x inner values.
template <typename T>
void convert(const T* in, float* out, int64_t samples, int64_t channels, int64_t inner,
             const Preprocess& p) {
  auto value = [](const std::vector<float>& list, int64_t c, float none) {
    return list.empty() ? none : list[list.size() == 1 ? 0 : static_cast<size_t>(c)];
  };
  bool plain = p.scale == 1 && p.mean.empty() && p.std.empty();
  for (int64_t n = 0; n < samples; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      float mean = value(p.mean, c, 0), std = value(p.std, c, 1);
      if (plain)
        for (int64_t i = 0; i < inner; ++i) out[i] = static_cast<float>(in[i]);
      else
        for (int64_t i = 0; i < inner; ++i)
          out[i] = (static_cast<float>(in[i]) * p.scale - mean) / std;
      in += inner;
      out += inner;
    }
}

std::vector<fs::path> list_pictures(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  auto it = fs::directory_iterator(directory, error);
  OCTET_CHECK(!error, io, "{}: cannot list the directory: {}", directory.string(), error.message());
  for (; it != fs::directory_iterator(); it.increment(error)) {
    std::string name = it->path().filename().string(), extension = it->path().extension().string();
    for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    bool picture =
        extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".bmp";
    std::error_code ignored;
    if (picture && name[0] != '.' && !it->is_directory(ignored)) files.push_back(it->path());
  }
  OCTET_CHECK(!error, io, "{}: cannot list the directory: {}", directory.string(), error.message());
  std::sort(files.begin(), files.end());
  return files;
}

// The directories in a directory, in name order, hidden ones passed over.
std::vector<fs::path> list_directories(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code error;
  for (auto it = fs::directory_iterator(directory, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored) && it->path().filename().string()[0] != '.')
      found.push_back(it->path());
  }
  OCTET_CHECK(!error, io, "{}: cannot list the directory: {}", directory.string(), error.message());
  std::sort(found.begin(), found.end());
  return found;
}

// Where the labels of an IDX file of images lie, as MNIST names its files; empty if that is not to
// be told.
fs::path idx_labels(const fs::path& images) {
  std::string name = images.filename().string();
  for (auto [from, to] : {std::pair{"images", "labels"}, {"idx3", "idx1"}}) {
    size_t at = name.find(from);
    if (at == std::string::npos) {
      if (std::string_view(from) == "images") return {};
      continue;
    }
    name.replace(at, std::string_view(from).size(), to);
  }
  return images.parent_path() / name;
}

}  // namespace

struct Dataset::Impl {
  fs::path path;
  Preprocess preprocess;
  std::vector<Column> columns;
  std::vector<fs::path> pictures;  // of a directory
  std::vector<std::string> classes;
  Tensor labels;
  int64_t size = 0;

  void open_directory(const std::vector<InputSpec>& inputs);
  void open_npz(const std::vector<InputSpec>& inputs);
  void open_idx(const std::vector<InputSpec>& inputs);
  Tensor floats(const Column& column, const std::vector<int64_t>& samples) const;
  void check_finite(const Column& column, const Tensor& x,
                    const std::vector<int64_t>& samples) const;
  Tensor decode(const Column& column, const std::vector<int64_t>& samples) const;
};

// -- opening --------------------------------------------------------------------------------------

void Dataset::Impl::open_directory(const std::vector<InputSpec>& inputs) {
  const TensorType& type = inputs[0].type;
  bool fit = inputs.size() == 1 && type.dim() == 4 && takes_floats(type) && type.dims[2].known() &&
             type.dims[3].known() &&
             (!type.dims[1].known() || type.dims[1].size() == 1 || type.dims[1].size() == 3);
  OCTET_CHECK(fit, invalid_argument,
              "{}: a directory of pictures fits a model with one float input of 1 or 3 channels "
              "and known height and width; "
              "this model takes {}; give an .npz with its arrays instead",
              path.string(), to_string(inputs));
  pictures = list_pictures(path);
  if (pictures.empty()) {
    std::vector<int64_t> numbers;
    for (const fs::path& directory : list_directories(path)) {
      std::vector<fs::path> some = list_pictures(directory);
      if (some.empty()) continue;
      numbers.insert(numbers.end(), some.size(), static_cast<int64_t>(classes.size()));
      pictures.insert(pictures.end(), some.begin(), some.end());
      classes.push_back(directory.filename().string());
    }
    if (!numbers.empty()) labels = Tensor::from(numbers, {static_cast<int64_t>(numbers.size())});
  }
  OCTET_CHECK(!pictures.empty(), invalid_argument,
              "{}: no pictures in this directory or its subdirectories; expected .jpg, .jpeg, .png "
              "or .bmp files",
              path.string());
  size = static_cast<int64_t>(pictures.size());
  columns.push_back({inputs[0], Tensor(), false});
}

void Dataset::Impl::open_npz(const std::vector<InputSpec>& inputs) {
  std::string extension = path.extension().string();
  OCTET_CHECK(
      extension != ".npy", invalid_argument,
      "{}: is a single array; expected an .npz: make one with np.savez(FILE, images=np.load('{}'))",
      path.string(), path.filename().string());
  std::vector<NpzEntry> entries = list_npz(path);

  // Each input's array is the one of its name; `images` stands in for the only input that has none.
  std::vector<const NpzEntry*> chosen;
  std::vector<std::string> missing;
  for (const InputSpec& input : inputs) {
    chosen.push_back(find(entries, input.name));
    if (!chosen.back()) missing.push_back("'" + input.name + "'");
  }
  if (const NpzEntry* images = find(entries, "images"); images && missing.size() == 1) {
    bool taken = std::find(chosen.begin(), chosen.end(), images) != chosen.end();
    if (!taken) {
      *std::find(chosen.begin(), chosen.end(), nullptr) = images;
      missing.clear();
    }
  }
  OCTET_CHECK(missing.empty(), not_found,
              "{}: no array {}{}; it holds {}; the model takes {}: save each under its name",
              path.string(), inputs.size() == 1 ? "'images' and none named " : "for input ",
              fmt::join(missing, ", "), to_string(entries), to_string(inputs));

  // The number of samples: dimension 0 of an input whose batch is free; if there is none, the
  // largest.
  bool free_batch = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorType& type = inputs[i].type;
    std::string where = fmt::format("{}: array '{}'", path.string(), chosen[i]->name);
    check_dtype(where, *chosen[i], inputs[i]);
    const Shape& shape = chosen[i]->shape;
    OCTET_CHECK(fits(shape, type, 1), invalid_argument, "{} has shape {}; input '{}' takes {}{}",
                where, octet::to_string(shape), inputs[i].name, octet::to_string(type),
                shape_advice(shape, type));
    if (shape.empty()) continue;
    bool free = !type.dims[0].known();
    if (free && !free_batch)
      size = shape[0];
    else if (free == free_batch)
      size = std::max(size, shape[0]);
    free_batch |= free;
    OCTET_CHECK(shape[0] > 0, invalid_argument, "{} has shape {}: it holds no samples", where,
                octet::to_string(shape));
  }
  if (size == 0) size = 1;  // only scalars
  std::vector<std::string> names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& shape = chosen[i]->shape;
    bool fixed = !shape.empty() && inputs[i].type.dims[0].known() && fits(shape, inputs[i].type, 0);
    bool whole = shape.empty() || (fixed && (free_batch || shape[0] != size));
    OCTET_CHECK(whole || shape[0] == size, invalid_argument,
                "{}: array '{}' has {} samples, others have {}; every array needs the same number",
                path.string(), chosen[i]->name, shape[0], size);
    columns.push_back({inputs[i], Tensor(), whole});
    names.push_back(chosen[i]->name);
  }
  const NpzEntry* label = find(entries, "labels");
  // it is an input
  if (label && std::find(chosen.begin(), chosen.end(), label) != chosen.end()) label = nullptr;
  if (label) {
    OCTET_CHECK(!is_floating(label->dtype) && label->dtype != DType::bool_, invalid_argument,
                "{}: array 'labels' is {}; expected int64: save it as a.astype('int64')",
                path.string(), octet::to_string(label->dtype));
    OCTET_CHECK(label->shape == Shape{size}, invalid_argument,
                "{}: array 'labels' has shape {}; expected ({}), one class index for each sample",
                path.string(), octet::to_string(label->shape), size);
    names.push_back("labels");
  }
  auto arrays = read_npz(path, names);
  for (size_t i = 0; i < columns.size(); ++i) {
    Tensor& array = columns[i].array = arrays.at(names[i]);
    if (array.dtype() == DType::float16 && takes_floats(columns[i].spec.type))
      array = array.to(DType::float32);
  }
  if (label) labels = arrays.at("labels").to(DType::int64);
}

void Dataset::Impl::open_idx(const std::vector<InputSpec>& inputs) {
  OCTET_CHECK(inputs.size() == 1 && takes_floats(inputs[0].type), invalid_argument,
              "{}: an IDX file of pictures fits a model with one float input; this model takes {}",
              path.string(), to_string(inputs));
  Tensor images = read_idx(path);
  if (images.dim() == 3 && inputs[0].type.dim() == 4) images = images.unsqueeze(1);
  if (images.dtype() != DType::uint8) images = images.to(DType::float32);
  OCTET_CHECK(images.dim() >= 1 && fits(images.shape(), inputs[0].type, 1), invalid_argument,
              "{}: has shape {}; input '{}' takes {}", path.string(),
              octet::to_string(images.shape()), inputs[0].name, octet::to_string(inputs[0].type));
  size = images.size(0);
  OCTET_CHECK(size > 0, invalid_argument, "{}: it holds no samples", path.string());
  columns.push_back({inputs[0], images, false});
  fs::path beside = idx_labels(path);
  std::error_code ignored;
  if (beside.empty() || !fs::exists(beside, ignored)) return;
  labels = read_idx(beside).to(DType::int64);
  OCTET_CHECK(labels.shape() == Shape{size}, invalid_argument,
              "{}: has shape {}; {} has {} samples", beside.string(),
              octet::to_string(labels.shape()), path.filename().string(), size);
}

Dataset Dataset::open_images(const fs::path& path, const Preprocess& preprocess, int64_t height,
                             int64_t width) {
  std::error_code ignored;
  std::vector<Dim> dims{Dim("N"), 3, height, width};
  if (!fs::is_directory(path, ignored)) {
    Shape shape;
    if (is_idx(path)) {
      shape = read_idx(path).shape();
      if (shape.size() == 3) shape.insert(shape.begin() + 1, 1);
    } else {
      std::vector<NpzEntry> entries = list_npz(path);
      const NpzEntry* images = find(entries, "images");
      OCTET_CHECK(images && images->shape.size() == 4, not_found,
                  "{}: no array 'images' of shape (N, C, H, W); it holds {}", path.string(),
                  to_string(entries));
      shape = images->shape;
    }
    dims.assign(shape.begin(), shape.end());
    dims[0] = Dim("N");
  } else {
    OCTET_CHECK(height > 0 && width > 0, invalid_argument,
                "{}: give the height and width that the pictures are to have", path.string());
  }
  return open(path, {{"images", TensorType(DType::float32, dims)}}, preprocess);
}

Dataset Dataset::open(const fs::path& path, const std::vector<InputSpec>& inputs,
                      const Preprocess& preprocess) {
  OCTET_CHECK(!inputs.empty(), invalid_argument, "{}: the model has no inputs to give this data to",
              path.string());
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  impl->preprocess = preprocess;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    impl->open_directory(inputs);
  else if (is_idx(path))
    impl->open_idx(inputs);
  else
    impl->open_npz(inputs);
  check_preprocess(preprocess, impl->columns);
  Dataset dataset;
  dataset.impl_ = std::move(impl);
  return dataset;
}

// -- reading --------------------------------------------------------------------------------------

int64_t Dataset::size() const { return impl_->size; }
bool Dataset::has_labels() const { return impl_->labels.defined(); }

void Dataset::check_labels(int64_t classes, int64_t count) const {
  if (!has_labels()) return;
  const std::vector<int64_t> labels = impl_->labels.to_vector<int64_t>();
  for (int64_t i = 0; i < std::min(count, size()); ++i)
    OCTET_CHECK(labels[static_cast<size_t>(i)] >= 0 && labels[static_cast<size_t>(i)] < classes,
                invalid_argument,
                "{}: the label of sample {} is {}; the model tells {} classes apart, so that "
                "labels are 0 to {}",
                impl_->path.string(), i, labels[static_cast<size_t>(i)], classes, classes - 1);
}

int64_t Dataset::fixed_batch() const {
  for (const Column& c : impl_->columns)
    if (!c.whole && c.spec.type.dim() > 0 && c.spec.type.dims[0].known())
      return c.spec.type.dims[0].size();
  return 0;
}

std::string Dataset::description() const {
  return fmt::format("{}: {} {}{}", impl_->path.string(), size(),
                     impl_->pictures.empty() ? "samples" : "pictures",
                     has_labels() ? " with labels" : "");
}

const std::vector<std::string>& Dataset::classes() const { return impl_->classes; }
const Preprocess& Dataset::preprocess() const { return impl_->preprocess; }

Tensor Dataset::Impl::floats(const Column& column, const std::vector<int64_t>& samples) const {
  const Tensor& a = column.array;
  if (column.whole) {
    Tensor out = a.to(DType::float32).clone();
    check_finite(column, out, {});
    return out;
  }
  Shape shape = a.shape();
  shape[0] = static_cast<int64_t>(samples.size());
  Tensor out = Tensor::empty(shape);
  int64_t channels = shape.size() > 1 ? shape[1] : 1, sample = a.numel() / a.size(0);
  int64_t inner = channels > 0 ? sample / channels : 0;
  float* data = out.data<float>();
  parallel_ranges(
      shape[0], std::max<int64_t>(1, 65536 / std::max<int64_t>(1, sample)),
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t from = samples[i] * sample;
          if (a.dtype() == DType::uint8)
            convert(a.data<uint8_t>() + from, data + i * sample, 1, channels, inner, preprocess);
          else
            convert(a.data<float>() + from, data + i * sample, 1, channels, inner, preprocess);
        }
      });
  check_finite(column, out, samples);
  return out;
}

// Error at the first number that is NaN or infinite. Where there are several inputs, one may be a
// mask that is added, in which infinities have a meaning: only a NaN is an error then.
void Dataset::Impl::check_finite(const Column& column, const Tensor& x,
                                 const std::vector<int64_t>& samples) const {
  const float* p = x.data<float>();
  float zeros = 0;  // x * 0 is NaN where x is not finite
  for (int64_t i = 0; i < x.numel(); ++i) zeros += p[i] * 0.0f;
  if (zeros == 0) return;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (columns.size() > 1 ? !std::isnan(p[i]) : std::isfinite(p[i])) continue;
    const int64_t sample = samples.empty() ? 0 : x.numel() / x.size(0);
    OCTET_FAIL(
        invalid_argument, "{}: input '{}'{}: element {} is {}; expected finite numbers",
        path.string(), column.spec.name,
        samples.empty() ? "" : fmt::format(", sample {}", samples[static_cast<size_t>(i / sample)]),
        samples.empty() ? i : i % sample, std::isnan(p[i]) ? "NaN" : fmt::format("{}", p[i]));
  }
}

Tensor Dataset::Impl::decode(const Column& column, const std::vector<int64_t>& samples) const {
  const auto& dims = column.spec.type.dims;
  const auto count = static_cast<int64_t>(samples.size());
  int64_t channels = picture_channels(column.spec.type), h = dims[2].size(), w = dims[3].size();
  Tensor out = Tensor::empty({count, channels, h, w});
  float* data = out.data<float>();
  parallel_for(count, [&](int64_t i) {
    Tensor image = resize_bilinear(read_image(pictures[samples[i]], channels), h, w);
    convert(static_cast<const Tensor&>(image).data<uint8_t>(), data + i * channels * h * w, 1,
            channels, h * w, preprocess);
  });
  return out;
}

Batch Dataset::get(int64_t begin, int64_t count) const {
  OCTET_CHECK(begin >= 0 && begin < size() && count >= 1, invalid_argument,
              "{}: {} samples from {} were asked for; it has {}", impl_->path.string(), count,
              begin, size());
  std::vector<int64_t> samples(std::min(count, size() - begin));
  std::iota(samples.begin(), samples.end(), begin);
  return gather(samples);
}

namespace {
// Rows of an array of any plain dtype.
Tensor rows(const Tensor& array, const std::vector<int64_t>& samples) {
  Shape shape = array.shape();
  shape[0] = static_cast<int64_t>(samples.size());
  Tensor out = Tensor::empty(shape, array.dtype());
  for (int64_t i = 0; i < shape[0]; ++i)
    out.slice(0, i, i + 1).copy_from(array.slice(0, samples[i], samples[i] + 1));
  return out;
}
}  // namespace

Batch Dataset::gather(const std::vector<int64_t>& samples) const {
  OCTET_CHECK(!samples.empty(), invalid_argument, "{}: no samples were asked for",
              impl_->path.string());
  for (int64_t i : samples)
    OCTET_CHECK(i >= 0 && i < size(), invalid_argument, "{}: sample {} was asked for; it has {}",
                impl_->path.string(), i, size());
  Batch batch;
  batch.begin = samples[0];
  batch.size = static_cast<int64_t>(samples.size());
  for (const Column& column : impl_->columns) {
    DType dtype = column.spec.type.dtype;
    Tensor t;
    if (!impl_->pictures.empty())
      t = impl_->decode(column, samples);
    else if (takes_floats(column.spec.type))
      t = impl_->floats(column, samples);
    else
      t = (column.whole ? column.array.clone() : rows(column.array, samples)).to(dtype);
    if (is_floating(dtype)) t = t.to(dtype);
    batch.inputs.emplace(column.spec.name, std::move(t));
  }
  if (has_labels()) batch.labels = rows(impl_->labels, samples);
  return batch;
}

}  // namespace octet
