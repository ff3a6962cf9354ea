#include "octet/tensor/type.h"

#include <cstdlib>

#include "octet/base/check_impl.h"
#include "octet/tensor/attrs.h"

namespace octet {

int64_t numel(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::string to_string(const Shape& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

std::string to_string(const Dim& dim) {
  return dim.known() ? std::to_string(dim.size()) : dim.name();
}

Dim multiply(const Dim& a, const Dim& b) {
  if (a.known() && b.known()) return a.size() * b.size();
  if (a.known() && a.size() == 1) return b;
  if (b.known() && b.size() == 1) return a;
  if (a.known()) return Dim(b.name() + "*" + std::to_string(a.size()));
  return Dim(a.name() + "*" + to_string(b));
}

TensorType::TensorType() = default;
TensorType::TensorType(DType dtype, std::vector<Dim> dims, QuantizerPtr quantizer)
    : dtype(dtype), dims(std::move(dims)), quantizer(std::move(quantizer)) {}
TensorType::TensorType(DType dtype, const Shape& shape, QuantizerPtr quantizer)
    : dtype(dtype), dims(shape.begin(), shape.end()), quantizer(std::move(quantizer)) {}
TensorType::TensorType(const TensorType& other) = default;
TensorType::TensorType(TensorType&& other) noexcept = default;
TensorType& TensorType::operator=(const TensorType& other) = default;
TensorType& TensorType::operator=(TensorType&& other) noexcept = default;
TensorType::~TensorType() = default;

bool TensorType::is_static() const {
  for (const Dim& d : dims)
    if (!d.known()) return false;
  return true;
}

Shape TensorType::shape() const {
  Shape shape;
  for (const Dim& d : dims) {
    OCTET_CHECK(d.known(), invalid_argument, "type {}: dimension '{}' has no known size",
                to_string(*this), d.name());
    shape.push_back(d.size());
  }
  return shape;
}

bool TensorType::operator==(const TensorType& other) const {
  if (dtype != other.dtype || dims != other.dims || !quantizer != !other.quantizer) return false;
  return !quantizer || *quantizer == *other.quantizer;
}

bool same_qparams(const TensorType& a, const TensorType& b) {
  return a.dtype == b.dtype && a.quantizer && b.quantizer && *a.quantizer == *b.quantizer;
}

std::string to_string(const TensorType& type, bool brief) {
  std::vector<std::string> dims;
  for (const Dim& d : type.dims) dims.push_back(to_string(d));
  std::string text = fmt::format("{}({})", type_name(type.dtype), fmt::join(dims, ", "));
  if (type.quantizer) text += " " + to_string(*type.quantizer, brief);
  return text;
}

namespace {

// "N, 3": the dimensions in text[begin, end).
std::vector<Dim> parse_dims(const std::string& text, size_t begin, size_t end) {
  std::vector<Dim> dims;
  for (size_t i = begin; i < end;) {
    const size_t comma = std::min(text.find(',', i), end);
    const size_t first = text.find_first_not_of(' ', i);
    OCTET_CHECK(first < comma, invalid_argument, "type '{}' has an empty dimension", text);
    const std::string word = text.substr(first, comma - first);
    const bool digits = word.find_first_not_of("0123456789") == std::string::npos;
    OCTET_CHECK(!digits || word.size() <= 15, invalid_argument,
                "type '{}': dimension {} is too large", text, word);
    if (digits)
      dims.emplace_back(static_cast<int64_t>(std::strtoll(word.c_str(), nullptr, 10)));
    else
      dims.emplace_back(word);
    i = comma + 1;
  }
  return dims;
}

// Calls read(p) at every number of "0.5" or "[0.5, 1]"; it returns the end of what it has read.
template <typename Read>
void each_number(const std::string& text, Read&& read) {
  for (const char* p = text.c_str(); *p;)
    if (*p == '[' || *p == ']' || *p == ',' || *p == ' ')
      ++p;
    else
      p = read(p);
}

std::vector<double> parse_numbers(const std::string& text) {
  std::vector<double> values;
  each_number(text, [&](const char* p) {
    char* end = nullptr;
    const double v = std::strtod(p, &end);
    OCTET_CHECK(end != p, invalid_argument, "cannot read the numbers of '{}'", text);
    // A number printed as float32 stands for that float32, not for the nearest double to its
    // decimal form.
    const float f = std::strtof(p, nullptr);
    values.push_back(fmt::format("{}", f) == std::string(p, static_cast<const char*>(end))
                         ? static_cast<double>(f)
                         : v);
    return static_cast<const char*>(end);
  });
  return values;
}

// Zero points are whole numbers: not to be taken for a float32 that prints alike.
std::vector<int64_t> parse_whole_numbers(const std::string& text) {
  std::vector<int64_t> values;
  each_number(text, [&](const char* p) {
    char* end = nullptr;
    values.push_back(std::strtoll(p, &end, 10));
    OCTET_CHECK(end != p, invalid_argument, "cannot read the whole numbers of '{}'", text);
    return static_cast<const char*>(end);
  });
  return values;
}

// The qparams behind the dimensions, which end at text[close].
QuantizerPtr parse_quantizer(const std::string& text, size_t close, DType dtype) {
  auto field = [&](const std::string& key) -> std::string {
    size_t at = text.find(" " + key + "=", close);
    if (at == std::string::npos) return "";
    size_t begin = at + key.size() + 2;
    size_t end = text[begin] == '[' ? text.find(']', begin) + 1 : text.find(' ', begin);
    return text.substr(begin, end == std::string::npos ? end : end - begin);
  };
  const std::string scale = field("scale"), zero = field("zero_point"),
                    float_zero = field("float_zero_point"), axis_text = field("axis");
  OCTET_CHECK(!scale.empty() && (!zero.empty() || (!float_zero.empty() && !axis_text.empty())),
              invalid_argument, "type '{}': a quantized type needs scale and zero_point", text);
  OCTET_CHECK((scale + float_zero).find(':') == std::string::npos, invalid_argument,
              "type '{}' is abridged; print the graph in full to read it back", text);
  const int64_t axis = std::strtoll(axis_text.c_str(), nullptr, 10);
  const std::vector<double> scales = parse_numbers(scale);
  if (!float_zero.empty())
    return Quantizer::per_channel_float(scales, parse_numbers(float_zero), axis, dtype);
  std::vector<int64_t> zero_points = parse_whole_numbers(zero);
  OCTET_CHECK(!scales.empty() && !zero_points.empty(), invalid_argument,
              "type '{}' has no scale or no zero point", text);
  if (axis_text.empty()) return Quantizer::per_tensor(scales[0], zero_points[0], dtype);
  if (zero_points.size() == 1) zero_points.assign(scales.size(), zero_points[0]);
  return Quantizer::per_channel(scales, zero_points, axis, dtype);
}

}  // namespace

TensorType parse_type(const std::string& text) {
  const size_t open = text.find('('), close = text.find(')');
  OCTET_CHECK(
      open != std::string::npos && close != std::string::npos && open < close, invalid_argument,
      "cannot read type '{}': expected e.g. Float(N, 3) or QUInt8(2, 3) scale=0.1 zero_point=0",
      text);
  TensorType type;
  type.dtype = parse_type_name(text.substr(0, open));
  type.dims = parse_dims(text, open + 1, close);
  if (is_quantized(type.dtype)) type.quantizer = parse_quantizer(text, close, type.dtype);
  return type;
}

}  // namespace octet
