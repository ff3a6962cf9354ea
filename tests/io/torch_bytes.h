#pragma once
// Files as torch.save writes them, built without PyTorch and without the code under test. A pickle
// is put together from texts of opcodes of which each pushes one value:
//
//   TorchFile file;
//   std::string w = file.tensor("FloatStorage", bytes({1.f, 2.f}), 0, {2}, {1});
//   spill(path, file.zip(dict({{"w", w}})));

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/io/crc.h"

namespace octet::testing {

inline std::string le(uint64_t v, int width) {
  std::string s;
  for (int i = 0; i < width; ++i, v >>= 8) s += static_cast<char>(v & 255);
  return s;
}

// -- values as opcodes ----------------------------------------------------------------------------

using Items = std::vector<std::string>;
using Entries = std::vector<std::pair<std::string, std::string>>;

inline std::string joined(const Items& items) {
  std::string s;
  for (const std::string& item : items) s += item;
  return s;
}
inline const std::string kNone = "N", kTrue = "\x88", kFalse = "\x89";
inline std::string str(const std::string& text) { return "X" + le(text.size(), 4) + text; }
inline std::string num(int64_t v) {
  return v >= 0 && v < 256 ? "K" + le(static_cast<uint64_t>(v), 1)
                           : "\x8a\x08" + le(static_cast<uint64_t>(v), 8);
}
inline std::string real(double v) {
  std::string s = le(std::bit_cast<uint64_t>(v), 8);
  return "G" + std::string(s.rbegin(), s.rend());
}
inline std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string tuple(const Items& items) { return "(" + joined(items) + "t"; }
inline std::string list(const Items& items) { return "](" + joined(items) + "e"; }
inline std::string reduce(const std::string& f, const Items& args) { return f + tuple(args) + "R"; }
inline std::string entries(const Entries& list) {
  std::string s = "(";
  for (const auto& [key, value] : list) s += str(key) + value;
  return s + "u";
}
inline std::string dict(const Entries& list) { return "}" + entries(list); }
inline std::string ordered(const Entries& list) {
  return reduce(global("collections", "OrderedDict"), {}) + entries(list);
}
inline std::string numbers(const std::vector<int64_t>& values) {
  Items items;
  for (int64_t v : values) items.push_back(num(v));
  return tuple(items);
}
inline std::string pickled(const std::string& value) { return "\x80\x02" + value + "."; }

// -- zip archives ---------------------------------------------------------------------------------

struct ZipMember {
  std::string name, contents;
  bool with_crc = true;
  size_t inflated = 0;  // if not 0, the contents say that they are compressed and were so large
};

// Stored members whose contents begin at multiples of 64, as PyTorch writes them.
inline std::string zip_of(const std::vector<ZipMember>& members, size_t alignment = 64) {
  std::string out, central;
  for (const ZipMember& m : members) {
    const std::string sizes = le(m.with_crc ? crc32(m.contents) : 0, 4) + le(m.contents.size(), 4) +
                              le(m.inflated ? m.inflated : m.contents.size(), 4);
    const std::string method = le(m.inflated ? 8 : 0, 2);
    const size_t offset = out.size(), start = offset + 30 + m.name.size();
    const size_t padding = (alignment - (start + 4) % alignment) % alignment;
    out += "PK\3\4" + le(0, 2) + le(0x808, 2) + method + le(0, 4) + sizes + le(m.name.size(), 2) +
           le(padding + 4, 2) + m.name + "FB" + le(padding, 2) + std::string(padding, 'Z') +
           m.contents;
    central += "PK\1\2" + le(0, 2) + le(0, 2) + le(0x808, 2) + method + le(0, 4) + sizes +
               le(m.name.size(), 2) + le(0, 2) + le(0, 10) + le(offset, 4) + m.name;
  }
  const size_t start = out.size();
  return out + central + "PK\5\6" + le(0, 4) + le(members.size(), 2) + le(members.size(), 2) +
         le(central.size(), 4) + le(start, 4) + le(0, 2);
}

// -- files ----------------------------------------------------------------------------------------

class TorchFile {
 public:
  // A new storage: its bytes, and how many elements they are.
  std::string storage(const std::string& type, const std::string& contents, int64_t elements) {
    storages_.push_back(contents);
    elements_.push_back(elements);
    return storage_again(storages_.size() - 1, type, elements);
  }
  // The storage of that number once more.
  std::string storage_again(size_t i, const std::string& type, int64_t elements) const {
    const std::string cls = type == "UntypedStorage" ? global("torch.storage", "UntypedStorage")
                                                     : global("torch", type);
    Items id{str("storage"), cls, str(std::to_string(i)), str("cpu"), num(elements)};
    if (legacy) id.push_back(kNone);
    return tuple(id) + "Q";
  }
  // _rebuild_tensor_v2 of a storage.
  static std::string view(const std::string& storage, int64_t offset,
                          const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
    return reduce(global("torch._utils", "_rebuild_tensor_v2"),
                  {storage, num(offset), numbers(shape), numbers(strides), kFalse, ordered({})});
  }
  // A row-major tensor on a storage of its own.
  std::string tensor(const std::string& type, const std::string& contents,
                     const std::vector<int64_t>& shape) {
    return view(storage(type, contents, count(shape)), 0, shape, row_major(shape));
  }
  std::string floats(const std::vector<float>& values, const std::vector<int64_t>& shape) {
    return tensor("FloatStorage", raw(values), shape);
  }
  template <typename T>
  static std::string raw(const std::vector<T>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  // _rebuild_qtensor.
  std::string qtensor(const std::string& type, const std::string& contents,
                      const std::vector<int64_t>& shape, const std::string& qparams) {
    return reduce(global("torch._utils", "_rebuild_qtensor"),
                  {storage(type, contents, count(shape)), num(0), numbers(shape),
                   numbers(row_major(shape)), qparams, kFalse, ordered({})});
  }

  // The members of the archive that holds this object.
  std::vector<ZipMember> members(const std::string& object) const {
    std::vector<ZipMember> result{{"archive/data.pkl", pickled(object)},
                                  {"archive/byteorder", "little"}};
    for (size_t i = 0; i < storages_.size(); ++i)
      result.push_back({"archive/data/" + std::to_string(i), storages_[i]});
    result.push_back({"archive/version", "3\n"});
    for (ZipMember& m : result) m.with_crc = with_crc;
    return result;
  }
  std::string zip(const std::string& object) const { return zip_of(members(object)); }
  // As PyTorch wrote it before 1.6. Needs `legacy` while storages are made.
  std::string old(const std::string& object, bool little_endian = true) const {
    Items keys;
    std::string data;
    for (size_t i = 0; i < storages_.size(); ++i) {
      keys.push_back(str(std::to_string(i)));
      data += le(static_cast<uint64_t>(elements_[i]), 8) + storages_[i];
    }
    return pickled("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") + pickled(num(1001)) +
           pickled(dict({{"protocol_version", num(1001)},
                         {"little_endian", little_endian ? kTrue : kFalse},
                         {"type_sizes", dict({})}})) +
           pickled(object) + pickled(list(keys)) + data;
  }

  static int64_t count(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  static std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
    std::vector<int64_t> strides(shape.size(), 1);
    for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
    return strides;
  }
  bool legacy = false;
  bool with_crc = true;  // false for large files: crc32 is slow

 private:
  std::vector<std::string> storages_;
  std::vector<int64_t> elements_;
};

}  // namespace octet::testing
