#include "octet/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"

namespace octet {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the official reader's limit
constexpr const char* kMetadata = "__metadata__";

struct Name {
  const char* name;
  DType dtype;
};
constexpr Name kNames[] = {{"F64", DType::float64},   {"F32", DType::float32}, {"F16", DType::float16},
                           {"BF16", DType::bfloat16}, {"I64", DType::int64},   {"I32", DType::int32},
                           {"I16", DType::int16},     {"I8", DType::int8},     {"U8", DType::uint8},
                           {"BOOL", DType::bool_}};

// Parses the header. Beyond what the parser checks, names must not repeat and nothing nests deeper than the format does
// (tensor > shape): a hostile header must not cost more than a small multiple of its size.
json parse_header(const std::string& file, const char* text, size_t size) {
  class Handler : public nlohmann::detail::json_sax_dom_parser<json> {
    using Base = nlohmann::detail::json_sax_dom_parser<json>;

   public:
    Handler(json& to, const std::string& file) : Base(to), file_(file) {}
    bool null() { return at_depth() && Base::null(); }
    bool boolean(bool value) { return at_depth() && Base::boolean(value); }
    bool number_integer(json::number_integer_t value) { return at_depth() && Base::number_integer(value); }
    bool number_unsigned(json::number_unsigned_t value) { return at_depth() && Base::number_unsigned(value); }
    bool number_float(json::number_float_t value, const json::string_t& digits) { return at_depth() && Base::number_float(value, digits); }
    bool string(json::string_t& value) { return at_depth() && Base::string(value); }
    bool start_object(size_t elements) {
      at_depth();
      ++depth_;
      keys_.emplace_back();
      return Base::start_object(elements);
    }
    bool end_object() {
      --depth_;
      keys_.pop_back();
      return Base::end_object();
    }
    bool start_array(size_t elements) {
      at_depth();
      ++depth_;
      return Base::start_array(elements);
    }
    bool end_array() {
      --depth_;
      return Base::end_array();
    }
    bool key(json::string_t& name) {
      at_depth();
      OCTET_CHECK(keys_.back().insert(name).second, corrupt, "{}: '{}' occurs twice in the header", file_, name);
      return Base::key(name);
    }

   private:
    bool at_depth() const {
      OCTET_CHECK(depth_ <= 3, corrupt, "{}: the header nests deeper than a safetensors header does", file_);
      return true;
    }
    const std::string& file_;
    int depth_ = 0;
    std::vector<std::set<std::string>> keys_;  // of the objects that are open
  };
  json header;
  Handler handler(header, file);
  try {
    json::sax_parse(text, text + size, &handler);
  } catch (const json::exception& e) {
    OCTET_FAIL(corrupt, "{}: the header is not valid JSON: {}", file, e.what());
  }
  return header;
}

// The header's entry for one tensor.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;
};

Entry parse_entry(const std::string& file, const std::string& name, const json& item) {
  std::string where = fmt::format("{}: tensor '{}'", file, name);
  OCTET_CHECK(item.is_object(), corrupt, "{}: expected an object with dtype, shape and data_offsets", where);
  for (const auto& [key, value] : item.items())
    OCTET_CHECK(key == "dtype" || key == "shape" || key == "data_offsets", corrupt, "{}: unknown field '{}'", where,
                key);
  for (const char* key : {"dtype", "shape", "data_offsets"})
    OCTET_CHECK(item.contains(key), corrupt, "{}: {} is missing", where, key);
  Entry entry;
  entry.name = name;

  const json& dtype = item["dtype"];
  OCTET_CHECK(dtype.is_string(), corrupt, "{}: dtype is not a string", where);
  const auto& dtype_name = dtype.get_ref<const std::string&>();
  const Name* known = std::find_if(std::begin(kNames), std::end(kNames), [&](auto& n) { return dtype_name == n.name; });
  OCTET_CHECK(known != std::end(kNames), corrupt,
              "{}: dtype '{}' is not known; expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL", where,
              dtype_name);
  entry.dtype = known->dtype;

  const json& shape = item["shape"];
  OCTET_CHECK(shape.is_array() && shape.size() <= 64, corrupt, "{}: shape is not a list of at most 64 sizes", where);
  uint64_t bytes = element_size(entry.dtype);
  bool empty = false;
  for (const json& size : shape) {
    OCTET_CHECK(size.is_number_unsigned() && size.get<uint64_t>() < (uint64_t{1} << 48), corrupt,
                "{}: shape holds something that is not a size", where);
    auto n = size.get<uint64_t>();
    entry.shape.push_back(static_cast<int64_t>(n));
    if (n == 0)
      empty = true;
    else
      OCTET_CHECK(!__builtin_mul_overflow(bytes, n, &bytes) && bytes < (uint64_t{1} << 50), corrupt,
                  "{}: shape is too large", where);
  }
  if (empty) bytes = 0;

  const json& offsets = item["data_offsets"];
  OCTET_CHECK(
      offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
      corrupt, "{}: data_offsets is not a pair of offsets", where);
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  OCTET_CHECK(entry.begin <= entry.end, corrupt, "{}: data_offsets [{}, {}] end before they begin", where, entry.begin,
              entry.end);
  OCTET_CHECK(entry.end - entry.begin == bytes, corrupt, "{}: data_offsets [{}, {}] span {} bytes; {} {} has {}", where,
              entry.begin, entry.end, entry.end - entry.begin, to_string(entry.dtype), to_string(entry.shape), bytes);
  return entry;
}

std::map<std::string, std::string> parse_metadata(const std::string& file, const json& item) {
  std::map<std::string, std::string> result;
  OCTET_CHECK(item.is_object(), corrupt, "{}: {} is not an object", file, kMetadata);
  for (const auto& [key, value] : item.items()) {
    OCTET_CHECK(value.is_string(), corrupt, "{}: {}: '{}' is not a string", file, kMetadata, key);
    result.emplace(key, value.get<std::string>());
  }
  return result;
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  auto mapped = MappedFile::open(path);
  std::string file = path.string();
  OCTET_CHECK(mapped->size() >= 8, corrupt, "{}: not a safetensors file: it has {} bytes, less than a header; was it cut short?", file,
              mapped->size());
  uint64_t header_size = 0;
  for (int i = 8; i-- > 0;) header_size = header_size << 8 | static_cast<uint64_t>(mapped->data()[i]);
  OCTET_CHECK(header_size <= kMaxHeader, corrupt,
              "{}: not a safetensors file: it starts with a header length of {} bytes; expected at most {}", file,
              header_size, kMaxHeader);
  OCTET_CHECK(header_size <= mapped->size() - 8, corrupt, "{}: truncated: the header has {} bytes, the file {}", file,
              header_size, mapped->size());
  const auto* text = reinterpret_cast<const char*>(mapped->data()) + 8;
  OCTET_CHECK(header_size > 0 && text[0] == '{', corrupt,
              "{}: not a safetensors file: the header does not start with {{", file);
  json header = parse_header(file, text, header_size);
  OCTET_CHECK(header.is_object(), corrupt, "{}: the header is not an object", file);

  SafetensorsFile result;
  std::vector<Entry> entries;
  for (const auto& [name, item] : header.items()) {
    if (name == kMetadata)
      result.metadata = parse_metadata(file, item);
    else
      entries.push_back(parse_entry(file, name, item));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t start = 8 + header_size, data_size = mapped->size() - start, at = 0;
  for (const Entry& e : entries) {
    OCTET_CHECK(e.begin == at, corrupt, "{}: tensor '{}': data_offsets [{}, {}] {}", file, e.name, e.begin, e.end,
                e.begin < at ? "overlap another tensor" : fmt::format("leave a hole after {}", at));
    OCTET_CHECK(e.end <= data_size, corrupt,
                "{}: truncated: tensor '{}' ends at {}, the file holds {} bytes of data; copy or download it again",
                file, e.name, e.end, data_size);
    at = e.end;
  }
  OCTET_CHECK(at == data_size, corrupt, "{}: {} bytes after the last tensor belong to none", file, data_size - at);

  for (const Entry& e : entries) {
    Buffer buffer = mapped->range(start + e.begin, e.end - e.begin);
    if (reinterpret_cast<uintptr_t>(buffer.data()) % element_size(e.dtype) != 0) {
      Buffer copy = Buffer::allocate(buffer.bytes());
      if (buffer.bytes()) std::memcpy(copy.data(), buffer.data(), buffer.bytes());
      buffer = copy;
    }
    if (e.dtype == DType::bool_)
      for (size_t i = 0; i < buffer.bytes(); ++i)
        OCTET_CHECK(buffer.data()[i] <= std::byte{1}, corrupt, "{}: tensor '{}': element {} is {}; a BOOL is 0 or 1",
                    file, e.name, i, static_cast<int>(buffer.data()[i]));
    result.tensors.emplace(e.name, Tensor::wrap(std::move(buffer), e.shape, e.dtype));
  }
  return result;
}

void write_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::string file = path.string();
  // By the largest power of two, up to 64, that divides the size in bytes, descending: then everything before a tensor
  // is a multiple of its own power, which is a multiple of its element size.
  struct Item {
    const std::string* name;
    Tensor tensor;
    uint64_t alignment;
  };
  std::vector<Item> items;
  for (const auto& [name, tensor] : tensors) {
    OCTET_CHECK(name != kMetadata, invalid_argument, "{}: a tensor cannot be called {}", file, kMetadata);
    OCTET_CHECK(!tensor.is_quantized(), invalid_argument,
                "{}: tensor '{}' is {}; write its int_repr() and its scale and zero point as tensors", file, name,
                to_string(tensor.dtype()));
    uint64_t bytes = static_cast<uint64_t>(tensor.nbytes()) | 64;
    items.push_back({&name, tensor, bytes & (~bytes + 1)});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.alignment > b.alignment; });

  json header = json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  uint64_t at = 0;
  for (const Item& item : items) {
    auto bytes = static_cast<uint64_t>(item.tensor.nbytes());
    const Name* type =
        std::find_if(std::begin(kNames), std::end(kNames), [&](auto& n) { return n.dtype == item.tensor.dtype(); });
    header[*item.name] = {{"dtype", type->name}, {"shape", item.tensor.shape()}, {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& e) {
    OCTET_FAIL(invalid_argument, "{}: a name or the metadata is not UTF-8: {}", file, e.what());
  }
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  OCTET_CHECK(text.size() <= kMaxHeader, invalid_argument, "{}: the header has {} bytes; the format allows {}", file,
              text.size(), kMaxHeader);
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> 8 * i & 255);

  write_file_atomically(path, [&](FileWriter& out) {
    out.write(length);
    out.write(text);
    for (const Item& item : items) {
      Tensor rows = item.tensor.contiguous();
      out.write(rows.raw_data(), static_cast<size_t>(rows.nbytes()));
    }
  });
}

}  // namespace octet
