#include "octet/io/state_dict.h"

#include <algorithm>
#include <set>

#include "octet/base/file.h"
#include "octet/io/fields_impl.h"
#include "octet/io/json_text_impl.h"
#include "octet/io/pytorch_file.h"
#include "octet/io/pytorch_file_impl.h"
#include "octet/io/state_dict_impl.h"

namespace octet::io {
namespace {

constexpr const char* kStateEntry = "octet.state";

bool is_real(DType dtype) { return dtype == DType::float64 || dtype == DType::float32; }

// Packed codes lie in the file as they do in memory, two to a byte.
Tensor stored_codes(const Tensor& t) {
  if (!is_packed(t.dtype())) return t.int_repr();
  Tensor rows = t.contiguous();
  return Tensor::wrap(rows.buffer(), {static_cast<int64_t>(storage_bytes(t.dtype(), t.numel()))},
                      DType::uint8);
}

Tensor unpack(const Tensor& codes, const Fields& f, DType dtype, QuantizerPtr quantizer) {
  Shape shape = f.sizes("shape");
  int64_t count = 1;
  bool fits = shape.size() <= 64;
  for (int64_t size : shape) fits = fits && !__builtin_mul_overflow(count, size, &count);
  OCTET_CHECK(fits && codes.dtype() == DType::uint8 && codes.dim() == 1 &&
                  static_cast<size_t>(codes.numel()) == storage_bytes(dtype, count),
              corrupt, "{} codes of shape {} are {}; expected uint8, two codes to a byte",
              to_string(dtype), to_string(shape), to_string(codes.type()));
  return Tensor::wrap(codes.buffer(), shape, dtype, std::move(quantizer));
}

QuantizerPtr read_quantizer(const Fields& f, DType dtype, const Tensor& scale,
                            const Tensor& zero_point) {
  auto scheme = f.get<std::string>("qscheme");
  bool whole = scheme != to_string(QScheme::per_channel_affine_float_qparams);
  DType zero = zero_point.dtype();
  OCTET_CHECK(is_real(scale.dtype()) &&
                  (whole ? zero == DType::int64 || zero == DType::int32 : is_real(zero)),
              corrupt, "scale and zero_point are {} and {}; expected float64 or float32, and {}",
              to_string(scale.dtype()), to_string(zero),
              whole ? "int64 or int32" : "float64 or float32");
  auto scales = scale.to(DType::float64).to_vector<double>();
  if (!whole)
    return Quantizer::per_channel_float(std::move(scales),
                                        zero_point.to(DType::float64).to_vector<double>(),
                                        f.integer("axis"), dtype);
  auto zero_points = zero_point.to(DType::int64).to_vector<int64_t>();
  if (scheme == to_string(QScheme::per_channel_affine))
    return Quantizer::per_channel(std::move(scales), std::move(zero_points), f.integer("axis"),
                                  dtype);
  OCTET_CHECK(scheme == to_string(QScheme::per_tensor_affine) && scales.size() == 1 &&
                  zero_points.size() == 1,
              corrupt, "qscheme '{}' with {} scales and {} zero points", scheme, scales.size(),
              zero_points.size());
  return Quantizer::per_tensor(scales[0], zero_points[0], dtype);
}

}  // namespace

bool is_one_line(std::string_view name) {
  return std::none_of(name.begin(), name.end(),
                      [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; });
}

std::string listed(const std::vector<std::string>& names) {
  const size_t shown = std::min<size_t>(names.size(), 20);
  return fmt::format(
      "{}{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
      shown < names.size() ? fmt::format(" and {} more", names.size() - shown) : "");
}

Tensor smaller(const Tensor& t, DType dtype) {
  Tensor half = t.to(dtype);
  return equal(half.to(t.dtype()), t) ? half : t;
}

void write_state(const std::filesystem::path& path, const std::map<std::string, Tensor>& state,
                 std::map<std::string, std::string> metadata) {
  std::map<std::string, Tensor> stored;
  for (const auto& [name, tensor] : state) {
    OCTET_CHECK(tensor.defined(), invalid_argument, "{}: '{}' is an undefined tensor: leave it out",
                path.string(), name);
    stored[name] = tensor.is_quantized() ? stored_codes(tensor) : tensor.detach();
  }
  // Another tensor may have that name already.
  auto add = [&](std::string name, Tensor tensor) {
    while (stored.count(name)) name += "_";
    stored[name] = std::move(tensor);
    return name;
  };
  JsonText json;
  json.begin('{').member("format", kFormat).key("quantized").begin('[');
  for (const auto& [name, tensor] : state) {
    if (!tensor.is_quantized()) continue;
    const Quantizer& q = *tensor.quantizer();
    Shape shape = q.is_per_channel() ? Shape{static_cast<int64_t>(q.scales().size())} : Shape{};
    try {
      json.begin('{').member("name", name);
    } catch (const Json::exception& e) {
      OCTET_FAIL(invalid_argument, "{}: a name is not UTF-8: {}", path.string(), e.what());
    }
    json.member("dtype", to_string(tensor.dtype())).member("qscheme", to_string(q.scheme()));
    if (is_packed(tensor.dtype())) json.member("shape", tensor.shape());
    if (q.is_per_channel()) json.member("axis", q.axis());
    json.member("scale",
                add(name + ".scale", smaller(Tensor::from(q.scales(), shape), DType::float32)));
    json.member("zero_point",
                add(name + ".zero_point",
                    q.has_float_zero_points()
                        ? smaller(Tensor::from(q.float_zero_points(), shape), DType::float32)
                        : smaller(Tensor::from(q.zero_points(), shape), DType::int32)))
        .end('}');
  }
  json.end(']').end('}');
  metadata["format"] = "octet";
  metadata[kStateEntry] = json.take();
  write_safetensors(path, stored, metadata);
}

std::map<std::string, Tensor> state_of(SafetensorsFile file, const std::string& path,
                                       std::vector<std::string>* notes) {
  auto entry = file.metadata.find(kStateEntry);
  // of another tool: plain tensors
  if (entry == file.metadata.end()) return std::move(file.tensors);
  const JsonDocument json_document =
      parse_json(entry->second, fmt::format("{}: {}", path, kStateEntry));
  const Json& json = *json_document;
  Fields root(json, fmt::format("{}: {}", path, kStateEntry));
  check_format(root, path, file.has_checksums, notes);
  const Json& list = root.raw("quantized");
  OCTET_CHECK(list.is_array(), corrupt, "{}: 'quantized' is not a list", root.where());
  std::map<std::string, Tensor> state = file.tensors;
  std::set<std::string> done, qparams;
  for (size_t i = 0; i < list.size(); ++i) {
    Fields f(list[i], fmt::format("{}: quantized tensor {}", root.where(), i));
    auto name = f.get<std::string>("name");
    auto tensor = [&](const std::string& key) -> const Tensor& {
      auto it = file.tensors.find(key);
      OCTET_CHECK(it != file.tensors.end(), corrupt, "tensor '{}' is not in the file", key);
      return it->second;
    };
    OCTET_CHECK(done.insert(name).second, corrupt, "{}: '{}' occurs twice", f.where(), name);
    auto scale = f.get<std::string>("scale"), zero_point = f.get<std::string>("zero_point");
    try {
      DType dtype = parse_dtype(f.get<std::string>("dtype"));
      OCTET_CHECK(is_quantized(dtype), corrupt, "{} has no qparams", to_string(dtype));
      const Tensor& codes = tensor(name);
      QuantizerPtr quantizer = read_quantizer(f, dtype, tensor(scale), tensor(zero_point));
      if (is_packed(dtype)) {
        state[name] = unpack(codes, f, dtype, std::move(quantizer));
      } else {
        OCTET_CHECK(codes.dtype() == code_dtype(dtype), corrupt,
                    "its codes are {}; those of {} are {}", to_string(codes.dtype()),
                    to_string(dtype), to_string(code_dtype(dtype)));
        state[name] = make_quantized(codes, std::move(quantizer));
      }
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{} ('{}'): {}", f.where(), name, e.what());
    }
    qparams.insert({scale, zero_point});
  }
  for (const std::string& name : qparams) {
    OCTET_CHECK(!done.count(name), corrupt,
                "{}: '{}' is both a quantized tensor and a scale or zero point", root.where(),
                name);
    state.erase(name);
  }
  return state;
}

std::map<std::string, Tensor> load_state_file(const std::filesystem::path& path,
                                              const std::string& key,
                                              std::vector<std::string>* notes) {
  const auto mapped = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(mapped->data()), mapped->size());
  if (is_pytorch(bytes)) return read_pytorch(path, key, notes);
  OCTET_CHECK(bytes.size() < 9 || bytes[8] == '{', corrupt,
              "{}: not a safetensors file, nor one that torch.save wrote (.pt, .pth, .bin)",
              path.string());
  OCTET_CHECK(key.empty(), invalid_argument,
              "{}: is safetensors, which has no key '{}'; leave the key out", path.string(), key);
  try {
    return state_of(read_safetensors(path), path.string(), notes);
  } catch (const Json::exception& e) {
    OCTET_FAIL(corrupt, "{}: {}", path.string(), e.what());
  }
}

}  // namespace octet::io

namespace octet {

void save_state_dict(const std::filesystem::path& path,
                     const std::map<std::string, Tensor>& state) {
  io::write_state(path, state, {});
}

std::map<std::string, Tensor> load_state_dict(const std::filesystem::path& path,
                                              std::vector<std::string>* notes,
                                              const std::string& key) {
  std::error_code none;
  if (std::filesystem::is_directory(path, none)) return io::load_directory(path, key, notes);
  const auto mapped = MappedFile::open(path);
  if (io::is_json({reinterpret_cast<const char*>(mapped->data()), mapped->size()}))
    return io::load_index(path, key, notes);
  return io::load_state_file(path, key, notes);
}

}  // namespace octet
