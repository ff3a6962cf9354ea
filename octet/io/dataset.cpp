#include "octet/io/dataset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/io/dataset_impl.h"
#include "octet/io/idx.h"
#include "octet/io/image.h"

namespace octet {

namespace fs = std::filesystem;

namespace dataset_detail {

void Faults::collect(const std::function<void()>& check) {
  try {
    check();
  } catch (const Error& e) {
    if (messages_.empty()) code_ = e.code();
    messages_.push_back(e.what());
  }
}

void Faults::report(size_t most) const {
  if (messages_.empty()) return;
  const size_t shown = std::min(most, messages_.size());
  std::string text = fmt::format(
      "{}",
      fmt::join(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(shown), "; "));
  if (shown < messages_.size())
    text += fmt::format("; and {} more like these", messages_.size() - shown);
  fail(code_, text);
}

namespace {
const NpzEntry* find(const std::vector<NpzEntry>& entries, const std::string& name) {
  auto it = std::find_if(entries.begin(), entries.end(),
                         [&](const NpzEntry& e) { return e.name == name; });
  return it == entries.end() ? nullptr : &*it;
}
}  // namespace

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

bool fits(const Shape& shape, const TensorType& type, size_t from) {
  if (shape.size() != type.dims.size()) return false;
  for (size_t d = from; d < shape.size(); ++d)
    if (type.dims[d].known() && type.dims[d].size() != shape[d]) return false;
  return true;
}

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

int64_t picture_channels(const TensorType& type) {
  return type.dims[1].known() ? type.dims[1].size() : 3;
}

std::vector<const NpzEntry*> choose_arrays(const std::string& file,
                                           const std::vector<NpzEntry>& entries,
                                           const std::vector<InputSpec>& inputs) {
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
              "{}: no array {}{}; it holds {}; the model takes {}: save each under its name", file,
              inputs.size() == 1 ? "'images' and none named " : "for input ",
              fmt::join(missing, ", "), to_string(entries), to_string(inputs));
  return chosen;
}

const NpzEntry* find_labels(const std::string& file, const std::vector<NpzEntry>& entries,
                            const std::vector<const NpzEntry*>& chosen,
                            const std::vector<Shape>& shapes, bool places) {
  const NpzEntry* label = find(entries, "labels");
  if (!label || std::find(chosen.begin(), chosen.end(), label) != chosen.end()) return nullptr;
  OCTET_CHECK(!is_floating(label->dtype) && label->dtype != DType::bool_, invalid_argument,
              "{}: array 'labels' is {}; expected int64: save it as a.astype('int64')", file,
              octet::to_string(label->dtype));
  const bool fits = std::ranges::any_of(shapes, [&](const Shape& shape) {
    return label->shape == shape || (places && label->shape.size() > shape.size() &&
                                     std::equal(shape.begin(), shape.end(), label->shape.begin()));
  });
  OCTET_CHECK(fits, invalid_argument,
              "{}: array 'labels' has shape {}; expected {}, one class index for each sample", file,
              octet::to_string(label->shape), octet::to_string(shapes[0]));
  return label;
}

}  // namespace dataset_detail

using namespace dataset_detail;

void Dataset::Impl::check_preprocess() const {
  const Preprocess& p = preprocess;
  OCTET_CHECK(std::isfinite(p.scale) && p.scale != 0, invalid_argument,
              "scale {}: expected a finite number other than 0", p.scale);
  for (float v : p.mean)
    OCTET_CHECK(std::isfinite(v), invalid_argument, "mean {}: expected finite numbers", v);
  for (float v : p.std)
    OCTET_CHECK(std::isfinite(v) && v != 0, invalid_argument,
                "std {}: expected finite numbers other than 0", v);
  for (const Column& c : columns) {
    if (c.whole || !takes_floats(c.spec.type)) continue;
    for (auto [list, name] : {std::pair{&p.mean, "mean"}, std::pair{&p.std, "std"}})
      OCTET_CHECK(
          list->size() <= 1 || static_cast<int64_t>(list->size()) == c.channels, invalid_argument,
          "{} has {} values; input '{}' has {} channels: give one value, or one for each channel",
          name, list->size(), c.spec.name, c.channels);
  }
}

namespace {

// out = (in * scale - mean[c]) / std[c] over samples x channels x inner values.
template <typename T>
void convert(const T* in, float* out, int64_t samples, int64_t channels, int64_t inner,
             const Preprocess& p) {
  auto value = [](const std::vector<float>& list, int64_t c, float none) {
    return list.empty() ? none : list[list.size() == 1 ? 0 : static_cast<size_t>(c)];
  };
  bool plain = p.scale == 1 && p.mean.empty() && p.std.empty();
  if (inner == 0) return;  // however many channels there are of nothing
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

// -- opening --------------------------------------------------------------------------------------

void Dataset::Impl::open_npz(const std::vector<InputSpec>& inputs) {
  std::string extension = path.extension().string();
  OCTET_CHECK(
      extension != ".npy", invalid_argument,
      "{}: is a single array; expected an .npz: make one with np.savez(FILE, images=np.load('{}'))",
      path.string(), path.filename().string());
  std::vector<NpzEntry> entries = list_npz(path);

  const std::vector<const NpzEntry*> chosen = choose_arrays(path.string(), entries, inputs);
  // The number of samples: dimension 0 of an input whose batch is free; if there is none, the
  // largest.
  bool free_batch = false;
  Faults faults;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorType& type = inputs[i].type;
    std::string where = fmt::format("{}: array '{}'", path.string(), chosen[i]->name);
    faults.collect([&] { check_dtype(where, *chosen[i], inputs[i]); });
    const Shape& shape = chosen[i]->shape;
    faults.collect([&] {
      OCTET_CHECK(fits(shape, type, 1), invalid_argument, "{} has shape {}; input '{}' takes {}{}",
                  where, octet::to_string(shape), inputs[i].name, octet::to_string(type),
                  shape_advice(shape, type));
    });
    if (shape.empty() || type.dims.empty()) continue;
    bool free = !type.dims[0].known();
    if (free && !free_batch)
      size = shape[0];
    else if (free == free_batch)
      size = std::max(size, shape[0]);
    free_batch |= free;
    faults.collect([&] {
      OCTET_CHECK(shape[0] > 0, invalid_argument, "{} has shape {}: it holds no samples", where,
                  octet::to_string(shape));
    });
  }
  faults.report();
  if (size == 0) size = 1;  // only scalars
  std::vector<std::string> names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& shape = chosen[i]->shape;
    bool fixed = !shape.empty() && inputs[i].type.dims[0].known() && fits(shape, inputs[i].type, 0);
    bool whole = shape.empty() || (fixed && (free_batch || shape[0] != size));
    OCTET_CHECK(whole || shape[0] == size, invalid_argument,
                "{}: array '{}' has {} samples, others have {}; every array needs the same number",
                path.string(), chosen[i]->name, shape[0], size);
    columns.push_back({inputs[i], Tensor(), whole, shape.size() > 1 ? shape[1] : 1});
    names.push_back(chosen[i]->name);
  }
  const NpzEntry* label = find_labels(path.string(), entries, chosen, {{size}}, true);
  if (label) names.push_back("labels");
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
  columns.push_back({inputs[0], images, false, images.dim() > 1 ? images.size(1) : 1});
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
                      const Preprocess& preprocess, const Resize& resize) {
  OCTET_CHECK(!inputs.empty(), invalid_argument, "{}: the model has no inputs to give this data to",
              path.string());
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  impl->preprocess = preprocess;
  impl->resize = resize;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    impl->open_directory(inputs);
  else if (is_idx(path))
    impl->open_idx(inputs);
  else
    impl->open_npz(inputs);
  OCTET_CHECK(resize.to == Resize::To::input || !impl->pictures.empty(), invalid_argument,
              "{}: pictures of a directory are resized; this data has none", path.string());
  impl->check_preprocess();
  Dataset dataset;
  dataset.impl_ = std::move(impl);
  return dataset;
}

// -- reading --------------------------------------------------------------------------------------

int64_t Dataset::size() const { return impl_->size; }
bool Dataset::has_labels() const { return impl_->labels.defined(); }

void Dataset::check_labels(int64_t classes, int64_t count) const {
  if (!has_labels()) return;
  OCTET_CHECK(impl_->labels.dim() == 1, invalid_argument,
              "{}: array 'labels' has shape {}; the model tells classes of whole samples apart: "
              "expected {}, one class index for each sample",
              impl_->path.string(), octet::to_string(impl_->labels.shape()),
              octet::to_string(Shape{size()}));
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
  return impl_->one_by_one ? 1 : 0;
}

std::string Dataset::description() const {
  return fmt::format("{}: {} {}{}", impl_->path.string(), size(),
                     impl_->pictures.empty() ? "samples" : "pictures",
                     has_labels() ? " with labels" : "");
}

const std::vector<std::string>& Dataset::classes() const { return impl_->classes; }
const Preprocess& Dataset::preprocess() const { return impl_->preprocess; }

namespace {

// Error at the first number that is NaN or, unless `infinities` have a meaning, infinite. `rows`
// are the samples that x holds, none where it is no sample.
void check_finite(const std::string& where, const Tensor& x, const std::vector<int64_t>& rows,
                  bool infinities) {
  const float* p = x.data<float>();
  float zeros = 0;  // x * 0 is NaN where x is not finite
  for (int64_t i = 0; i < x.numel(); ++i) zeros += p[i] * 0.0f;
  if (zeros == 0) return;
  for (int64_t i = 0; i < x.numel(); ++i) {
    if (infinities ? !std::isnan(p[i]) : std::isfinite(p[i])) continue;
    const int64_t sample = rows.empty() ? 0 : x.numel() / x.size(0);
    OCTET_FAIL(
        invalid_argument, "{}{}: element {} is {}; expected finite numbers", where,
        rows.empty() ? "" : fmt::format(", sample {}", rows[static_cast<size_t>(i / sample)]),
        rows.empty() ? i : i % sample, std::isnan(p[i]) ? "NaN" : fmt::format("{}", p[i]));
  }
}

}  // namespace

// Where there are several inputs, one may be a mask that is added, in which infinities have a
// meaning: only a NaN is an error then.
Tensor Dataset::Impl::floats(const Column& column, const Tensor& a,
                             const std::vector<int64_t>& rows, const std::string& where) const {
  const std::string what = fmt::format("{}: input '{}'", where, column.spec.name);
  if (rows.empty()) {
    Tensor out = a.to(DType::float32).clone();
    check_finite(what, out, {}, columns.size() > 1);
    return out;
  }
  Shape shape = a.shape();
  shape[0] = static_cast<int64_t>(rows.size());
  Tensor out = Tensor::empty(shape);
  int64_t channels = shape.size() > 1 ? shape[1] : 1, sample = a.numel() / a.size(0);
  int64_t inner = channels > 0 ? sample / channels : 0;
  float* data = out.data<float>();
  parallel_ranges(
      shape[0], std::max<int64_t>(1, 65536 / std::max<int64_t>(1, sample)),
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t from = rows[static_cast<size_t>(i)] * sample;
          if (a.dtype() == DType::uint8)
            convert(a.data<uint8_t>() + from, data + i * sample, 1, channels, inner, preprocess);
          else
            convert(a.data<float>() + from, data + i * sample, 1, channels, inner, preprocess);
        }
      });
  // A file of one sample is named; of more, the sample.
  check_finite(what, out, files.empty() ? rows : std::vector<int64_t>(), columns.size() > 1);
  return out;
}

Tensor Dataset::Impl::decode(const Column& column, const std::vector<int64_t>& samples) const {
  const auto& dims = column.spec.type.dims;
  const auto count = static_cast<int64_t>(samples.size());
  const int64_t channels = column.channels;
  const auto picture = [&](int64_t i) {
    return read_image(pictures[static_cast<size_t>(samples[static_cast<size_t>(i)])], channels);
  };
  const auto preprocess_to = [&](const Tensor& image, float* out) {
    convert(image.data<uint8_t>(), out, 1, channels, image.size(1) * image.size(2), preprocess);
  };
  if (resize.to == Resize::To::none) {
    const Tensor image = picture(0);
    Tensor out = Tensor::empty({count, channels, image.size(1), image.size(2)});
    float* data = out.data<float>();
    preprocess_to(image, data);
    for (int64_t i = 1; i < count; ++i) {
      const Tensor next = picture(i);
      OCTET_CHECK(next.shape() == image.shape(), invalid_argument,
                  "{}: pictures of {} and {} cannot be one batch: take them one at a time",
                  path.string(), octet::to_string(image.shape()), octet::to_string(next.shape()));
      preprocess_to(next, data + i * image.numel());
    }
    return out;
  }
  const bool chosen = resize.to == Resize::To::size;
  const int64_t h = chosen ? resize.height : dims[2].size();
  const int64_t w = chosen ? resize.width : dims[3].size();
  Tensor out = Tensor::empty({count, channels, h, w});
  float* data = out.data<float>();
  parallel_for(count, [&](int64_t i) {
    const Tensor image = resize_bilinear(picture(i), h, w);
    preprocess_to(image, data + i * channels * h * w);
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
  std::vector<Tensor> of_files;
  if (!impl_->files.empty()) of_files = impl_->read_samples(samples);
  for (size_t c = 0; c < impl_->columns.size(); ++c) {
    const Column& column = impl_->columns[c];
    DType dtype = column.spec.type.dtype;
    Tensor t;
    if (!impl_->files.empty())
      t = of_files[c];
    else if (!impl_->pictures.empty())
      t = impl_->decode(column, samples);
    else if (takes_floats(column.spec.type))
      t = impl_->floats(column, column.array, column.whole ? std::vector<int64_t>() : samples,
                        impl_->path.string());
    else
      t = (column.whole ? column.array.clone() : rows(column.array, samples)).to(dtype);
    if (is_floating(dtype)) t = t.to(dtype);
    batch.inputs.emplace(column.spec.name, std::move(t));
  }
  if (has_labels()) batch.labels = rows(impl_->labels, samples);
  return batch;
}

}  // namespace octet
