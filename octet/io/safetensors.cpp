#include "octet/io/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>  // has XXH3_64bits use the widest vectors that this machine has
#endif

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"
#include "octet/base/parallel.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/json_text_impl.h"

namespace octet {
namespace {

constexpr const char* kMetadata = "__metadata__";

struct Name {
  const char* name;
  DType dtype;
};
constexpr Name kNames[] = {
    {"F64", DType::float64},   {"F32", DType::float32}, {"F16", DType::float16},
    {"BF16", DType::bfloat16}, {"I64", DType::int64},   {"I32", DType::int32},
    {"I16", DType::int16},     {"I8", DType::int8},     {"U8", DType::uint8},
    {"U16", DType::uint16},    {"BOOL", DType::bool_}};

// -- checksums: docs/file-format.md ---------------------------------------------------------------

constexpr const char* kHeaderSum = "octet.checksum.header";
constexpr const char* kTensorSums = "octet.checksum.tensors";
// Stands for the header's checksum while that is computed.
constexpr std::string_view kNoSum = "0000000000000000";

std::string checksum(const void* data, size_t bytes) {
  return fmt::format("{:016x}", XXH3_64bits(data, bytes));
}

// Where the digits of the header's checksum begin in the text of a header, or npos. Inside a JSON
// string a quote never follows a brace or a comma: there is a backslash before it.
size_t find_header_sum(std::string_view header) {
  for (char before : {'{', ','}) {
    std::string field = fmt::format("{}\"{}\":\"", before, kHeaderSum);
    if (size_t at = header.find(field);
        at != header.npos && header.size() - at - field.size() >= kNoSum.size())
      return at + field.size();
  }
  return header.npos;
}

std::string header_checksum(std::string header, size_t digits) {
  header.replace(digits, kNoSum.size(), kNoSum);
  return checksum(header.data(), header.size());
}

// The header's entry for one tensor.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t begin, end;
};

Entry parse_entry(const std::string& file, const std::string& name, const Json& item) {
  std::string where = fmt::format("{}: tensor '{}'", file, name);
  OCTET_CHECK(item.is_object(), corrupt,
              "{}: expected an object with dtype, shape and data_offsets", where);
  for (const auto& [key, value] : item.items())
    OCTET_CHECK(key == "dtype" || key == "shape" || key == "data_offsets", corrupt,
                "{}: unknown field '{}'", where, key);
  for (const char* key : {"dtype", "shape", "data_offsets"})
    OCTET_CHECK(item.contains(key), corrupt, "{}: {} is missing", where, key);
  Entry entry;
  entry.name = name;

  const Json& dtype = item["dtype"];
  OCTET_CHECK(dtype.is_string(), corrupt, "{}: dtype is not a string", where);
  const auto& dtype_name = dtype.get_ref<const std::string&>();
  const Name* known = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](auto& n) { return dtype_name == n.name; });
  OCTET_CHECK(known != std::end(kNames), corrupt,
              "{}: dtype '{}' is not known; expected F64, F32, F16, BF16, I64, I32, I16, I8, U8, "
              "U16 or BOOL",
              where, dtype_name);
  entry.dtype = known->dtype;

  const Json& shape = item["shape"];
  OCTET_CHECK(shape.is_array() && shape.size() <= 64, corrupt,
              "{}: shape is not a list of at most 64 sizes", where);
  uint64_t bytes = element_size(entry.dtype);
  bool empty = false;
  for (const Json& size : shape) {
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

  const Json& offsets = item["data_offsets"];
  OCTET_CHECK(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                  offsets[1].is_number_unsigned(),
              corrupt, "{}: data_offsets is not a pair of offsets", where);
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  OCTET_CHECK(entry.begin <= entry.end, corrupt, "{}: data_offsets [{}, {}] end before they begin",
              where, entry.begin, entry.end);
  OCTET_CHECK(entry.end - entry.begin == bytes, corrupt,
              "{}: data_offsets [{}, {}] span {} bytes; {} {} has {}", where, entry.begin,
              entry.end, entry.end - entry.begin, octet::to_string(entry.dtype),
              octet::to_string(entry.shape), bytes);
  return entry;
}

std::map<std::string, std::string> parse_metadata(const std::string& file, const Json& item) {
  std::map<std::string, std::string> result;
  OCTET_CHECK(item.is_object(), corrupt, "{}: {} is not an object", file, kMetadata);
  for (const auto& [key, value] : item.items()) {
    OCTET_CHECK(value.is_string(), corrupt, "{}: {}: '{}' is not a string", file, kMetadata, key);
    result.emplace(key, value.get<std::string>());
  }
  return result;
}

}  // namespace

namespace {

// A file whose header has been read and found right.
struct Opened {
  std::shared_ptr<MappedFile> mapped;
  std::vector<Entry> entries;  // as the tensors lie in the file
  std::map<std::string, std::string> metadata;
  uint64_t start = 0;  // of the data
};

Opened open(const std::filesystem::path& path) {
  Opened result;
  result.mapped = MappedFile::open(path);
  MappedFile& mapped = *result.mapped;
  std::string file = path.string();
  OCTET_CHECK(mapped.size() >= 8, corrupt,
              "{}: not a safetensors file: it has {} bytes, less than a header; was it cut short?",
              file, mapped.size());
  uint64_t header_size = 0;
  for (int i = 8; i-- > 0;)
    header_size = header_size << 8 | static_cast<uint64_t>(mapped.data()[i]);
  OCTET_CHECK(
      header_size <= kMaxJsonBytes, corrupt,
      "{}: not a safetensors file: it starts with a header length of {} bytes; expected at most {}",
      file, header_size, kMaxJsonBytes);
  OCTET_CHECK(header_size <= mapped.size() - 8, corrupt,
              "{}: truncated: the header has {} bytes, the file {}", file, header_size,
              mapped.size());
  std::string_view text(reinterpret_cast<const char*>(mapped.data()) + 8, header_size);
  OCTET_CHECK(text.starts_with('{'), corrupt,
              "{}: not a safetensors file: the header does not start with {{", file);
  size_t digits = find_header_sum(text);
  OCTET_CHECK(digits == text.npos ||
                  header_checksum(std::string(text), digits) == text.substr(digits, kNoSum.size()),
              corrupt,
              "{}: the header is damaged: its checksum does not fit; copy or save the file again",
              file);
  const JsonDocument header_document = parse_json(text, file + ": the header");
  const Json& header = *header_document;
  OCTET_CHECK(header.is_object(), corrupt, "{}: the header is not an object", file);

  for (const auto& [name, item] : header.items()) {
    if (name == kMetadata)
      result.metadata = parse_metadata(file, item);
    else
      result.entries.push_back(parse_entry(file, name, item));
  }
  OCTET_CHECK(result.metadata.count(kHeaderSum) == result.metadata.count(kTensorSums) &&
                  (result.metadata.count(kHeaderSum) != 0) == (digits != text.npos),
              corrupt, "{}: the header is damaged: its checksums are not as octet writes them",
              file);
  std::sort(result.entries.begin(), result.entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  result.start = 8 + header_size;
  uint64_t data_size = mapped.size() - result.start, at = 0;
  for (const Entry& e : result.entries) {
    OCTET_CHECK(e.begin == at, corrupt, "{}: tensor '{}': data_offsets [{}, {}] {}", file, e.name,
                e.begin, e.end,
                e.begin < at ? "overlap another tensor" : fmt::format("leave a hole after {}", at));
    OCTET_CHECK(e.end <= data_size, corrupt,
                "{}: truncated: tensor '{}' ends at {}, the file holds {} bytes of data; copy or "
                "download it again",
                file, e.name, e.end, data_size);
    at = e.end;
  }
  OCTET_CHECK(at == data_size, corrupt, "{}: {} bytes after the last tensor belong to none", file,
              data_size - at);
  return result;
}

constexpr uint64_t kLarge = 64 << 10;

// Gives back the pages that lie in these bytes of a mapped file that nobody has written to yet.
void drop_pages(const std::byte* data, size_t bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

// Compares every tensor with its checksum.
void verify(const Opened& opened, const std::string& sums, const std::string& file) {
  const JsonDocument expected_document = parse_json(sums, fmt::format("{}: {}", file, kTensorSums));
  const Json& expected = *expected_document;
  const size_t count = opened.entries.size();
  OCTET_CHECK(expected.is_object() && expected.size() == count, corrupt,
              "{}: {} is not one checksum for each of {} tensors", file, kTensorSums, count);
  std::vector<char> right(count);
  parallel_for(static_cast<int64_t>(count), [&](int64_t i) {
    const Entry& e = opened.entries[i];
    auto sum = expected.find(e.name);
    const std::byte* data = opened.mapped->data() + opened.start + e.begin;
    right[i] = sum != expected.end() && sum->is_string() &&
               sum->get_ref<const std::string&>() == checksum(data, e.end - e.begin);
    // Weights that nobody uses yet take no memory: they come again from the system's cache.
    if (e.end - e.begin >= kLarge) drop_pages(data, e.end - e.begin);
  });
  for (size_t i = 0; i < count; ++i)
    OCTET_CHECK(
        right[i], corrupt,
        "{}: tensor '{}' is damaged: its checksum does not fit; copy or save the file again", file,
        opened.entries[i].name);
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  Opened opened = open(path);
  std::string file = path.string();
  SafetensorsFile result;
  result.metadata = std::move(opened.metadata);
  if (auto sums = result.metadata.find(kTensorSums); sums != result.metadata.end()) {
    verify(opened, sums->second, file);
    result.has_checksums = true;
    result.metadata.erase(kTensorSums);
    result.metadata.erase(kHeaderSum);
  }
  for (const Entry& e : opened.entries) {
    Buffer buffer = opened.mapped->range(opened.start + e.begin, e.end - e.begin);
    const size_t size = element_size(e.dtype);
    if (reinterpret_cast<uintptr_t>(buffer.data()) % size != 0 || (io::kBigEndian && size > 1)) {
      Buffer copy = Buffer::allocate(buffer.bytes());
      if (buffer.bytes()) std::memcpy(copy.data(), buffer.data(), buffer.bytes());
      io::little_endian(copy.data(), copy.bytes(), size);
      buffer = copy;
    }
    if (e.dtype == DType::bool_)
      for (size_t i = 0; i < buffer.bytes(); ++i)
        OCTET_CHECK(buffer.data()[i] <= std::byte{1}, corrupt,
                    "{}: tensor '{}': element {} is {}; a BOOL is 0 or 1", file, e.name, i,
                    static_cast<int>(buffer.data()[i]));
    result.tensors.emplace(e.name, Tensor::wrap(std::move(buffer), e.shape, e.dtype));
  }
  return result;
}

std::map<std::string, std::string> read_safetensors_metadata(const std::filesystem::path& path) {
  auto metadata = open(path).metadata;
  metadata.erase(kTensorSums);
  metadata.erase(kHeaderSum);
  return metadata;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::string file = path.string();
  for (const char* key : {kHeaderSum, kTensorSums})
    OCTET_CHECK(!metadata.count(key), invalid_argument,
                "{}: the metadata entry {} is octet's own: leave it out", file, key);
  // By the largest power of two, up to 64, that divides the size in bytes, descending: then
  // everything before a tensor is a multiple of its own power, which is a multiple of its element
  // size.
  struct Item {
    const std::string* name;
    Tensor tensor;
    uint64_t alignment;
  };
  std::vector<Item> items;
  for (const auto& [name, tensor] : tensors) {
    OCTET_CHECK(name != kMetadata, invalid_argument, "{}: a tensor cannot be called {}", file,
                kMetadata);
    OCTET_CHECK(
        !tensor.is_quantized(), invalid_argument,
        "{}: tensor '{}' is {}; write its int_repr() and its scale and zero point as tensors", file,
        name, to_string(tensor.dtype()));
    uint64_t bytes = static_cast<uint64_t>(tensor.nbytes()) | 64;
    items.push_back({&name, tensor, bytes & (~bytes + 1)});
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.alignment > b.alignment; });

  std::map<std::string, io::JsonText> header;  // in the order of names
  std::map<std::string, std::string> sums;
  uint64_t at = 0;
  for (Item& item : items) {
    item.tensor = io::in_file_order(item.tensor);
    auto bytes = static_cast<uint64_t>(item.tensor.nbytes());
    const Name* type = std::find_if(std::begin(kNames), std::end(kNames),
                                    [&](auto& n) { return n.dtype == item.tensor.dtype(); });
    header[*item.name]
        .begin('{')
        .member("data_offsets", std::vector<uint64_t>{at, at + bytes})
        .member("dtype", type->name)
        .member("shape", item.tensor.shape())
        .end('}');
    sums[*item.name] = checksum(item.tensor.raw_data(), bytes);
    at += bytes;
  }
  io::JsonText json;
  try {
    auto all = metadata;
    all[kTensorSums] = io::JsonText().value(sums).take();
    all[kHeaderSum] = kNoSum;
    header[kMetadata].value(all);
    json.value(header);
  } catch (const Json::exception& e) {
    OCTET_FAIL(invalid_argument, "{}: a name or the metadata is not UTF-8: {}", file, e.what());
  }
  std::string text = json.take();
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  OCTET_CHECK(text.size() <= kMaxJsonBytes, invalid_argument,
              "{}: the header has {} bytes; the format allows {}", file, text.size(),
              kMaxJsonBytes);
  const size_t digits = find_header_sum(text);
  text.replace(digits, kNoSum.size(), header_checksum(text, digits));
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> 8 * i & 255);

  write_file_atomically(path, [&](FileWriter& out) {
    out.write(length);
    out.write(text);
    for (const Item& item : items)
      out.write(item.tensor.raw_data(), static_cast<size_t>(item.tensor.nbytes()));
  });
}

}  // namespace octet
