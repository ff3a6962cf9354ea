#include "octet/io/pytorch_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/text.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/pickle_impl.h"
#include "octet/io/pytorch_file_impl.h"
#include "octet/io/state_dict_impl.h"
#include "octet/io/zip_impl.h"

namespace octet {
namespace {

using io::listed;
using pickle::Document;
using pickle::Kind;
using pickle::Ref;
using pickle::Value;

constexpr size_t kMaxDims = 64;
constexpr size_t kMaxNameBytes = 1000;        // of a tensor or a storage
constexpr int64_t kMaxChannels = 1 << 25;     // of a quantized tensor
constexpr int kMaxWrappings = 8;              // of a tensor as a parameter
constexpr uint64_t kLargeStorage = 64 << 10;  // whose pages are given back after the check

// What torch.save wrote before 1.6 begins with a pickle of this number, 0x1950a86a20f9469cfc6c.
constexpr std::string_view kLegacyMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

// -- what pickles of weights name -----------------------------------------------------------------

// PyTorch's dtypes, and the class of storages of each.
struct StorageType {
  std::string_view dtype, storage;
  std::optional<DType> here;
  uint64_t bytes;  // of an element
};
constexpr StorageType kStorageTypes[] = {
    {"float32", "FloatStorage", DType::float32, 4},
    {"float64", "DoubleStorage", DType::float64, 8},
    {"float16", "HalfStorage", DType::float16, 2},
    {"bfloat16", "BFloat16Storage", DType::bfloat16, 2},
    {"int64", "LongStorage", DType::int64, 8},
    {"int32", "IntStorage", DType::int32, 4},
    {"int16", "ShortStorage", DType::int16, 2},
    {"int8", "CharStorage", DType::int8, 1},
    {"uint8", "ByteStorage", DType::uint8, 1},
    {"bool", "BoolStorage", DType::bool_, 1},
    {"quint8", "QUInt8Storage", DType::quint8, 1},
    {"qint8", "QInt8Storage", DType::qint8, 1},
    {"qint32", "QInt32Storage", DType::qint32, 4},
    {"quint4x2", "QUInt4x2Storage", DType::quint4x2, 1},  // counts bytes
    {"quint2x4", "QUInt2x4Storage", {}, 1},
    {"complex32", "ComplexHalfStorage", {}, 4},
    {"complex64", "ComplexFloatStorage", {}, 8},
    {"complex128", "ComplexDoubleStorage", {}, 16},
    {"uint16", "", {}, 2},
    {"uint32", "", {}, 4},
    {"uint64", "", {}, 8},
    {"float8_e4m3fn", "", {}, 1},
    {"float8_e5m2", "", {}, 1},
    {"float8_e4m3fnuz", "", {}, 1},
    {"float8_e5m2fnuz", "", {}, 1},
    {"float8_e8m0fnu", "", {}, 1},
    {"float4_e2m1fn_x2", "", {}, 1},
};
constexpr StorageType kUntyped{"bytes", "UntypedStorage", DType::uint8, 1};

// "torch.FloatStorage", "torch.cuda.FloatStorage", "torch.storage.UntypedStorage".
const StorageType* storage_type(std::string_view name) {
  for (const std::string_view untyped :
       {"torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.storage._UntypedStorage"})
    if (name == untyped) return &kUntyped;
  for (const std::string_view module : {"torch.cuda.", "torch."})
    if (name.starts_with(module)) {
      for (const StorageType& type : kStorageTypes)
        if (!type.storage.empty() && name.substr(module.size()) == type.storage) return &type;
    }
  return nullptr;
}
const StorageType* dtype_type(std::string_view name) {
  if (!name.starts_with("torch.")) return nullptr;
  for (const StorageType& type : kStorageTypes)
    if (name.substr(6) == type.dtype) return &type;
  return nullptr;
}

constexpr std::string_view kTensor = "torch._utils._rebuild_tensor",
                           kTensor2 = "torch._utils._rebuild_tensor_v2",
                           kTensor3 = "torch._utils._rebuild_tensor_v3",
                           kQTensor = "torch._utils._rebuild_qtensor",
                           kParameter = "torch._utils._rebuild_parameter",
                           kParameterState = "torch._utils._rebuild_parameter_with_state",
                           kFromType = "torch._tensor._rebuild_from_type_v2",
                           kPerTensor = "torch.per_tensor_affine",
                           kPerChannel = "torch.per_channel_affine",
                           kPerChannelFloat = "torch.per_channel_affine_float_qparams";
constexpr std::string_view kTensorMakers[] = {kTensor,    kTensor2,        kTensor3, kQTensor,
                                              kParameter, kParameterState, kFromType};
// Classes of tensors that are tensors to us.
constexpr std::string_view kTensorClasses[] = {"torch.Tensor", "torch._tensor.Tensor",
                                               "torch.nn.parameter.Parameter",
                                               "torch.nn.parameter.Buffer"};
// What may stand in a checkpoint beside its state dict. None of these is made.
constexpr std::string_view kOthers[] = {kPerTensor,
                                        kPerChannel,
                                        kPerChannelFloat,
                                        "torch.per_tensor_symmetric",
                                        "torch.per_channel_symmetric",
                                        "collections.OrderedDict",
                                        "collections.defaultdict",
                                        "collections.Counter",
                                        "collections.deque",
                                        "torch.Size",
                                        "torch.device",
                                        "torch.strided",
                                        "torch.serialization._get_layout",
                                        "_codecs.encode",
                                        "argparse.Namespace",
                                        "types.SimpleNamespace",
                                        "datetime.datetime",
                                        "datetime.timedelta",
                                        "datetime.date",
                                        "pathlib.PosixPath",
                                        "pathlib.PurePosixPath",
                                        "pathlib.WindowsPath",
                                        "pathlib.PureWindowsPath",
                                        "pathlib._local.PosixPath",
                                        "pathlib._local.WindowsPath",
                                        "numpy.dtype",
                                        "numpy.ndarray",
                                        "numpy.core.multiarray.scalar",
                                        "numpy.core.multiarray._reconstruct",
                                        "numpy._core.multiarray.scalar",
                                        "numpy._core.multiarray._reconstruct",
                                        "copyreg._reconstructor",
                                        "copy_reg._reconstructor"};
constexpr std::string_view kBuiltins[] = {"dict",    "list",  "tuple", "set",       "frozenset",
                                          "complex", "range", "slice", "bytearray", "object",
                                          "int",     "float", "str",   "bool"};

// What to do about some that are not read.
struct Advice {
  std::string_view name, what;
};
constexpr Advice kAdvice[] = {
    {"torch._utils._rebuild_sparse_tensor", "a sparse tensor; save x.to_dense() instead"},
    {"torch._utils._rebuild_meta_tensor_no_storage", "a tensor without data (on device meta)"},
    {"torch.storage._load_from_bytes",
     "a tensor that pickle wrote and not torch.save; save it with torch.save"},
    {"torch.ScriptObject",
     "packed weights of a quantized recurrent layer; save the float model's state_dict() and "
     "quantize it with octet"},
};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Error for a function or class that weights do not need.
void check_global(const std::string& file, const std::string& name, bool outermost) {
  if (is_one_of(name, kTensorMakers) || is_one_of(name, kTensorClasses) ||
      is_one_of(name, kOthers) || storage_type(name) || dtype_type(name))
    return;
  for (const std::string_view module : {"builtins.", "__builtin__."})
    if (name.starts_with(module) &&
        is_one_of(std::string_view(name).substr(module.size()), kBuiltins))
      return;
  const std::string shown = shorten(name, 200);
  for (const Advice& advice : kAdvice)
    OCTET_CHECK(name != advice.name, unsupported, "{}: holds {} ({})", file, advice.what, shown);
  OCTET_CHECK(!outermost, unsupported,
              "{}: holds a whole module or another object, of class {}, and octet runs nothing of "
              "what a file names; save model.state_dict() instead",
              file, shown);
  OCTET_FAIL(unsupported,
             "{}: names {}, and octet runs nothing of what a file names; save the weights alone, "
             "with torch.save(model.state_dict(), ...)",
             file, shown);
}

// -- where the numbers lie ------------------------------------------------------------------------

class Storages {
 public:
  virtual ~Storages() = default;
  // How many bytes a storage has; none if there is no such storage.
  virtual std::optional<uint64_t> bytes(const std::string& key) = 0;
  // Its contents, which begin at a multiple of `alignment`; the same memory each time. It is there.
  virtual Buffer load(const std::string& key, size_t alignment) = 0;
};

Buffer aligned(Buffer buffer, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(buffer.data()) % alignment == 0) return buffer;
  Buffer copy = Buffer::allocate(buffer.bytes());
  if (buffer.bytes()) std::memcpy(copy.data(), buffer.data(), buffer.bytes());
  if (buffer.bytes() >= kLargeStorage) forget_file_pages(buffer.data(), buffer.bytes());
  return copy;
}

// Members NAME/data/KEY of a zip archive.
class ZipStorages : public Storages {
 public:
  ZipStorages(const zip::Archive& archive, const std::string& prefix, std::string file)
      : archive_(archive), file_(std::move(file)) {
    for (const zip::Member& m : archive.members())
      if (m.name.starts_with(prefix)) members_[m.name.substr(prefix.size())] = &m;
  }
  std::optional<uint64_t> bytes(const std::string& key) override {
    const auto it = members_.find(key);
    return it == members_.end() ? std::nullopt : std::optional(it->second->size);
  }
  Buffer load(const std::string& key, size_t alignment) override {
    auto [it, added] = loaded_.try_emplace(key);
    if (!added) return it->second = aligned(it->second, alignment);
    const zip::Member& m = *members_.at(key);
    const std::string where = fmt::format("{}: {}", file_, zip::shown(m.name));
    if (m.method == 0) {
      // Else members that overlap would be checked, and perhaps copied, again and again.
      stored_ += m.size;
      OCTET_CHECK(stored_ <= archive_.file_bytes(), corrupt,
                  "{}: its storages have {} bytes and more, the file {}", file_, stored_,
                  archive_.file_bytes());
      const Buffer stored = archive_.stored(m, where);
      // PyTorch can be told to write none (set_crc32_options), and then writes 0.
      if (m.crc != 0) {
        uLong crc = ::crc32_z(0, reinterpret_cast<const Bytef*>(stored.data()), stored.bytes());
        check_crc(where, static_cast<uint32_t>(crc), m.crc);
      }
      it->second = aligned(stored, alignment);
      // Weights that nobody uses yet take no memory: they come again from the system's cache.
      if (stored.bytes() >= kLargeStorage) forget_file_pages(stored.data(), stored.bytes());
    } else {
      inflated_ += m.size;
      OCTET_CHECK(inflated_ <= zip::max_inflated(archive_.file_bytes()), unsupported,
                  "{}: compressed weights of {} bytes and more in a file of {}: it is damaged or "
                  "made to fill the memory; save it with torch.save",
                  file_, inflated_, archive_.file_bytes());
      auto source = archive_.open(m, where);
      it->second = Buffer::allocate(m.size);
      source->read(it->second.data(), m.size);
      check_crc(where, source->crc(), m.crc);
    }
    return it->second;
  }
  static void check_crc(const std::string& where, uint32_t crc, uint32_t expected) {
    OCTET_CHECK(crc == expected, corrupt,
                "{}: damaged: its CRC is {:08x}, the archive says {:08x}; copy or save the file "
                "again",
                where, crc, expected);
  }

 private:
  const zip::Archive& archive_;
  std::string file_;
  std::map<std::string, const zip::Member*> members_;
  std::map<std::string, Buffer> loaded_;
  uint64_t stored_ = 0, inflated_ = 0;  // bytes that were loaded
};

// Runs of bytes behind the pickles of a file of before PyTorch 1.6.
class LegacyStorages : public Storages {
 public:
  explicit LegacyStorages(std::shared_ptr<MappedFile> mapped) : mapped_(std::move(mapped)) {}
  void add(const std::string& key, uint64_t offset, uint64_t bytes) {
    places_[key] = {offset, bytes};
  }
  std::optional<uint64_t> bytes(const std::string& key) override {
    const auto it = places_.find(key);
    return it == places_.end() ? std::nullopt : std::optional(it->second.second);
  }
  Buffer load(const std::string& key, size_t alignment) override {
    auto [it, added] = loaded_.try_emplace(key);
    if (added) {
      const auto [offset, length] = places_.at(key);
      it->second = mapped_->range(offset, length);
    }
    return it->second = aligned(it->second, alignment);
  }

 private:
  std::shared_ptr<MappedFile> mapped_;
  // offset, length
  std::map<std::string, std::pair<uint64_t, uint64_t>> places_;
  std::map<std::string, Buffer> loaded_;
};

// -- values ---------------------------------------------------------------------------------------

// The function that a call names, or "".
std::string_view callee(const Document& d, const Value& v) {
  return v.kind == Kind::call ? d.item(v, 0).text : std::string_view();
}
bool is_tensor(const Document& d, const Value& v) { return is_one_of(callee(d, v), kTensorMakers); }

// Short, and of one line: for errors that name a tensor or a storage.
bool is_name(std::string_view text) {
  return text.size() <= kMaxNameBytes && io::is_one_line(text);
}

// How notes and errors call a value.
std::string describe(const Document& d, const Value& v) {
  if (v.kind == Kind::call) return fmt::format("a {}", callee(d, v));
  if (v.kind == Kind::global) return std::string(v.text);
  return pickle::kind_name(v.kind);
}

// A storage as a persistent id names it: ('storage', class, key, location, elements) and, of before
// 1.6, a view of another one or None.
struct StorageId {
  const StorageType* type = nullptr;
  std::string key;
  uint64_t elements = 0, first = 0;  // of the view, if it is one
};

StorageId storage_id(const Document& d, const Value& v, const std::string& where) {
  auto bad = [&](const std::string& what) {
    OCTET_FAIL(corrupt, "{}: its storage is damaged: {}; copy or save the file again", where, what);
  };
  if (v.kind != Kind::persistent) bad(fmt::format("it is {}", describe(d, v)));
  const Value& id = d.item(v, 0);
  if (id.kind != Kind::list || id.items.empty() || d.item(id, 0).kind != Kind::text)
    bad("it has no name");
  OCTET_CHECK(d.item(id, 0).text != "module", unsupported,
              "{}: the file holds a whole module; save model.state_dict() instead", where);
  if (d.item(id, 0).text != "storage" || id.items.size() < 5 || id.items.size() > 6)
    bad("it has no name");
  StorageId result;
  const Value &type = d.item(id, 1), &key = d.item(id, 2), &elements = d.item(id, 4);
  if (type.kind == Kind::global) result.type = storage_type(type.text);
  if (!result.type) bad("its class is none");
  if (key.kind == Kind::text && is_name(key.text))
    result.key = key.text;
  else if (key.kind == Kind::integer)
    result.key = std::to_string(key.integer);
  else
    bad("its key is none");
  if (elements.kind != Kind::integer || elements.integer < 0) bad("its size is none");
  result.elements = static_cast<uint64_t>(elements.integer);
  if (id.items.size() == 6 && d.item(id, 5).kind != Kind::none) {
    const Value& view = d.item(id, 5);
    if (view.kind != Kind::list || view.items.size() != 3 ||
        d.item(view, 1).kind != Kind::integer || d.item(view, 1).integer < 0 ||
        d.item(view, 2).kind != Kind::integer || d.item(view, 2).integer < 0)
      bad("its view is none");
    result.first = static_cast<uint64_t>(d.item(view, 1).integer);
    const auto size = static_cast<uint64_t>(d.item(view, 2).integer);
    if (result.first > result.elements || size > result.elements - result.first)
      bad("its view does not fit");
  }
  return result;
}

// Makes tensors out of calls of PyTorch's functions that would.
class Maker {
 public:
  Maker(const Document& d, Storages& storages, uint64_t file_bytes)
      : d_(d), storages_(storages), most_(zip::max_inflated(file_bytes)) {}

  // `where` is the file and the tensor.
  Tensor make(const Value& v, const std::string& where) {
    const Value* call = &v;
    for (int wrappings = 0; wrappings < kMaxWrappings; ++wrappings) {
      const std::string_view f = callee(d_, *call);
      if (!is_one_of(f, kTensorMakers)) fail(where, describe(d_, *call) + " is no tensor");
      const Value& args = d_.item(*call, 1);
      if (f == kParameter || f == kParameterState) {
        call = &argument(args, 0, where);
      } else if (f == kFromType) {
        // (function, class, arguments, state)
        const Value &function = argument(args, 0, where), &cls = argument(args, 1, where);
        const Value& inner = argument(args, 2, where);
        OCTET_CHECK(cls.kind == Kind::global && is_one_of(cls.text, kTensorClasses), unsupported,
                    "{}: is {}, a tensor of a class of its own; save it as a plain tensor", where,
                    describe(d_, cls));
        if (function.kind != Kind::global || inner.kind != Kind::list)
          fail(where, "it is not made as PyTorch makes one");
        return make(function.text, inner, where);
      } else {
        return make(f, args, where);
      }
    }
    fail(where, "it is a parameter of a parameter");
  }

 private:
  [[noreturn]] static void fail(const std::string& where, const std::string& what) {
    OCTET_FAIL(corrupt, "{}: damaged: {}; copy or save the file again", where, what);
  }
  const Value& argument(const Value& args, size_t i, const std::string& where) const {
    if (args.kind != Kind::list || i >= args.items.size())
      fail(where, fmt::format("argument {} is missing", i));
    return d_.item(args, i);
  }
  uint64_t count(const Value& v, const std::string& where, const char* what) const {
    if (v.kind != Kind::integer || v.integer < 0)
      fail(where,
           fmt::format("its {} is {}", what,
                       v.kind == Kind::integer ? std::to_string(v.integer) : describe(d_, v)));
    return static_cast<uint64_t>(v.integer);
  }
  Shape numbers(const Value& v, const std::string& where, const char* what) const {
    // torch.Size(...) is a call.
    const Value* list = &v;
    if (callee(d_, v) == "torch.Size") list = &argument(d_.item(v, 1), 0, where);
    if (list->kind != Kind::list)
      fail(where, fmt::format("its {} is {}", what, describe(d_, *list)));
    OCTET_CHECK(list->items.size() <= kMaxDims, unsupported,
                "{}: has {} dimensions; expected at most {}", where, list->items.size(), kMaxDims);
    Shape result;
    for (size_t i = 0; i < list->items.size(); ++i)
      result.push_back(static_cast<int64_t>(count(d_.item(*list, i), where, what)));
    return result;
  }

  void use(uint64_t bytes, const std::string& where) {
    used_ += bytes;
    OCTET_CHECK(used_ <= most_, unsupported,
                "{}: it and those before it have {} bytes, more than the {} that a file of its "
                "size may: save them with .contiguous()",
                where, used_, most_);
  }

  Tensor make(std::string_view f, const Value& args, const std::string& where) {
    const StorageId id = storage_id(d_, argument(args, 0, where), where);
    const StorageType* type = id.type;
    if (f == kTensor3) {  // (storage, offset, size, strides, requires_grad, hooks, dtype)
      const Value& dtype = argument(args, 6, where);
      type = dtype.kind == Kind::global ? dtype_type(dtype.text) : nullptr;
      if (!type) fail(where, "its dtype is none");
    } else if (f != kTensor && f != kTensor2 && f != kQTensor) {
      fail(where, "it is not made as PyTorch makes one");
    }
    OCTET_CHECK(type->here && type != &kUntyped, unsupported,
                "{}: is {}; expected float32, float64, float16, bfloat16, int64, int32, int16, "
                "int8, uint8, bool or a quantized tensor; convert it in Python with .to()",
                where, type->dtype);
    const DType dtype = *type->here;
    uint64_t offset = count(argument(args, 1, where), where, "storage offset");
    const Shape shape = numbers(argument(args, 2, where), where, "shape");
    const Shape strides = numbers(argument(args, 3, where), where, "strides");
    if (shape.size() != strides.size())
      fail(where,
           fmt::format("it has shape {} and strides {}", to_string(shape), to_string(strides)));

    // Bytes that the storage says it has, and has.
    const std::optional<uint64_t> stored = storages_.bytes(id.key);
    if (!stored)
      fail(where, fmt::format("its storage '{}' is not in the file", shorten(id.key, 100)));
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(id.elements, id.type->bytes, &bytes) || bytes > *stored)
      fail(where, fmt::format("its storage has {} elements of {} bytes, the file {} bytes of it",
                              id.elements, id.type->bytes, *stored));
    if (__builtin_add_overflow(offset, id.first, &offset))
      fail(where, "its storage offset is too large");

    // One beyond the last element, in elements from the storage's first; and how many there are.
    // Products are checked one by one, so that a shape with a 0 in it cannot hide an overflow.
    uint64_t end = 1, total = 1;
    bool empty = false, fits = true;
    for (size_t d = 0; d < shape.size(); ++d) {
      const auto size = static_cast<uint64_t>(shape[d]), stride = static_cast<uint64_t>(strides[d]);
      if (size == 0) {
        empty = true;
        continue;
      }
      uint64_t span = 0;
      fits = fits && size < (uint64_t{1} << 48) && !__builtin_mul_overflow(total, size, &total) &&
             total < (uint64_t{1} << 48) && !__builtin_mul_overflow(size - 1, stride, &span) &&
             !__builtin_add_overflow(end, span, &end) && end < (uint64_t{1} << 48);
    }
    if (empty) end = total = 0;
    const bool packed = is_packed(dtype);
    const uint64_t capacity = packed ? bytes * 2 : bytes / type->bytes;
    if (!fits || offset > capacity || end > capacity - offset)
      fail(where, fmt::format("shape {} with strides {} from element {} reaches beyond its storage "
                              "of {} elements",
                              to_string(shape), to_string(strides), offset, capacity));
    // Tensors that repeat their elements (expand) or share them may be larger than the file.
    use(total * type->bytes, where);

    QuantizerPtr quantizer;
    OCTET_CHECK(is_quantized(dtype) == (f == kQTensor), corrupt, "{}: damaged: {} {}", where,
                type->dtype, f == kQTensor ? "with qparams" : "without qparams");
    if (f == kQTensor) quantizer = qparams(argument(args, 4, where), dtype, shape, where);
    if (packed)
      OCTET_CHECK(offset == 0 && strides == contiguous_strides(shape) &&
                      (shape.empty() || shape.back() % 2 == 0),
                  unsupported,
                  "{}: is quint4x2 of shape {} with strides {}; expected an even last size, "
                  "row-major",
                  where, to_string(shape), to_string(strides));

    const Buffer storage = storages_.load(id.key, element_size(dtype));
    if (dtype == DType::bool_ && bools_.insert(id.key).second)
      for (uint64_t i = 0; i < bytes; ++i)
        if (static_cast<uint8_t>(storage.data()[i]) > 1)
          fail(where, fmt::format("a bool is {}", static_cast<int>(storage.data()[i])));
    const uint64_t begin = packed || empty ? 0 : offset * type->bytes;
    const uint64_t length = packed ? (end + 1) / 2 : end * type->bytes;
    Buffer part = Buffer::wrap(storage.data() + begin, length, std::make_shared<Buffer>(storage));
    try {
      return Tensor::wrap(std::move(part), shape, dtype, std::move(quantizer), strides);
    } catch (const Error& e) {
      fail(where, e.what());
    }
  }

  // (scheme, scale, zero point), or (scheme, scales, zero points, axis): tensors, or lists.
  QuantizerPtr qparams(const Value& v, DType dtype, const Shape& shape, const std::string& where) {
    const Value& scheme = argument(v, 0, where);
    const std::string_view name = scheme.kind == Kind::global ? scheme.text : std::string_view();
    try {
      if (name == kPerTensor) {
        const Value &scale = argument(v, 1, where), &zero = argument(v, 2, where);
        if (scale.kind != Kind::real || zero.kind != Kind::integer)
          fail(where, "its scale or zero point is none");
        return Quantizer::per_tensor(scale.real, zero.integer, dtype);
      }
      OCTET_CHECK(name == kPerChannel || name == kPerChannelFloat, unsupported,
                  "{}: its qscheme is {}; expected per_tensor_affine, per_channel_affine or "
                  "per_channel_affine_float_qparams",
                  where, describe(d_, scheme));
      const auto axis = static_cast<int64_t>(count(argument(v, 3, where), where, "axis"));
      if (axis >= static_cast<int64_t>(shape.size()))
        fail(where, fmt::format("axis {} of shape {}", axis, to_string(shape)));
      const int64_t channels = shape[static_cast<size_t>(axis)];
      OCTET_CHECK(channels <= kMaxChannels, unsupported, "{}: has {} channels; expected at most {}",
                  where, channels, kMaxChannels);
      use(static_cast<uint64_t>(channels) * 16, where);
      const auto scales =
          channel_numbers(argument(v, 1, where), channels, where).to(DType::float64);
      const Tensor zeros = channel_numbers(argument(v, 2, where), channels, where);
      // As PyTorch does it: what it writes as per_channel_affine may have float zero points.
      if (is_floating(zeros.dtype()))
        return Quantizer::per_channel_float(
            scales.to_vector<double>(), zeros.to(DType::float64).to_vector<double>(), axis, dtype);
      return Quantizer::per_channel(scales.to_vector<double>(),
                                    zeros.to(DType::int64).to_vector<int64_t>(), axis, dtype);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::invalid_argument) fail(where, e.what());
      throw;
    }
  }
  // One number for each channel: a tensor, or a list of floats or ints.
  Tensor channel_numbers(const Value& v, int64_t channels, const std::string& where) {
    if (v.kind == Kind::list) {
      std::vector<double> reals;
      std::vector<int64_t> integers;
      for (const Ref ref : v.items) {
        if (d_[ref].kind == Kind::real)
          reals.push_back(d_[ref].real);
        else if (d_[ref].kind == Kind::integer)
          integers.push_back(d_[ref].integer);
      }
      if (v.items.size() != static_cast<size_t>(channels) ||
          (reals.size() != v.items.size() && integers.size() != v.items.size()))
        fail(where, fmt::format("its scales or zero points are not {} numbers", channels));
      return reals.empty() ? Tensor::from(integers, {channels}) : Tensor::from(reals, {channels});
    }
    // Not a quantized one, whose qparams would nest without end.
    if (const std::string_view f = callee(d_, v); f != kTensor && f != kTensor2 && f != kTensor3)
      fail(where, "its scales or zero points are no tensor");
    const Tensor t = make(v, where + ": scales and zero points");
    if (t.shape() != Shape{channels})
      fail(where, fmt::format("its scales or zero points are {}; expected {} numbers",
                              to_string(t.type()), channels));
    return t;
  }

  const Document& d_;
  Storages& storages_;
  uint64_t used_ = 0, most_;
  std::set<std::string> bools_;  // storages whose bytes are all 0 or 1
};

// -- which part of the file is the state dict -----------------------------------------------------

// What packs a quantized linear layer's weight and bias, and an embedding's weight.
constexpr std::string_view kPackedParams = "_packed_params._packed_params",
                           kPackedWeight = "_packed_params._packed_weight",
                           kPackedType = "_packed_params.dtype";
bool ends_with_name(std::string_view name, std::string_view end) {
  return name.ends_with(end) &&
         (name.size() == end.size() || name[name.size() - end.size() - 1] == '.');
}
bool is_packed_pair(const Document& d, std::string_view name, const Value& v) {
  return ends_with_name(name, kPackedParams) && v.kind == Kind::list && v.items.size() == 2 &&
         is_tensor(d, d.item(v, 0));
}

// A dict of texts, of which one is a tensor's name.
bool is_state(const Document& d, const Value& v) {
  if (v.kind != Kind::dict) return false;
  bool tensor = false;
  for (size_t i = 0; i < v.items.size(); i += 2) {
    const Value &key = d.item(v, i), &item = d.item(v, i + 1);
    if (key.kind != Kind::text) return false;
    tensor = tensor || is_tensor(d, item) || is_packed_pair(d, key.text, item);
  }
  return tensor;
}

// The entries of a dict whose keys are texts; the last one of equal keys holds.
std::map<std::string_view, const Value*> entries(const Document& d, const Value& dict,
                                                 const std::string& file) {
  std::map<std::string_view, const Value*> result;
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value& key = d.item(dict, i);
    if (key.kind != Kind::text) continue;
    // Before they are compared: one long text may be the key of a million entries.
    OCTET_CHECK(is_name(key.text), corrupt,
                "{}: the name of an entry has {} bytes or control characters", file,
                key.text.size());
    result[key.text] = &d.item(dict, i + 1);
  }
  return result;
}

const Value& state_of(const Document& d, const std::string& file, const std::string& wanted,
                      std::vector<std::string>* notes) {
  const Value& root = d[d.root()];
  OCTET_CHECK(root.kind == Kind::dict, unsupported,
              "{}: holds {}, not a state dict; save model.state_dict() instead", file,
              is_tensor(d, root) ? "one tensor" : describe(d, root));
  const auto all = entries(d, root, file);
  std::vector<std::string> keys, states;
  std::map<const Value*, bool> known;  // a dict may be there a million times
  for (const auto& [key, value] : all) {
    keys.push_back(shorten(key, 100));
    const auto [it, added] = known.try_emplace(value, false);
    if (added) it->second = is_state(d, *value);
    // A module's extra state may be a dict of tensors.
    if (it->second && !ends_with_name(key, "_extra_state")) states.emplace_back(key);
  }
  if (!wanted.empty()) {
    const auto it = all.find(wanted);
    OCTET_CHECK(it != all.end(), not_found, "{}: no key '{}'{}; there are: {}", file, wanted,
                did_you_mean(wanted, keys), listed(keys));
    OCTET_CHECK(known.at(it->second), unsupported, "{}: '{}' is {}, not a state dict{}", file,
                wanted, is_tensor(d, *it->second) ? "a tensor" : describe(d, *it->second),
                states.empty() ? "" : "; there are: " + listed(states));
    return *it->second;
  }
  if (states.empty()) {
    OCTET_CHECK(root.items.empty() || is_state(d, root), unsupported,
                "{}: holds no state dict: none of its {} entries is a tensor or a dict of tensors "
                "({}); save model.state_dict() instead",
                file, root.items.size() / 2, listed(keys));
    return root;
  }
  std::string chosen = states[0];
  if (states.size() > 1) {
    const std::string_view usual[] = {"state_dict", "model_state_dict", "model"};
    const auto it = std::find_if(std::begin(usual), std::end(usual), [&](std::string_view name) {
      return std::find(states.begin(), states.end(), name) != states.end();
    });
    OCTET_CHECK(it != std::end(usual), unsupported,
                "{}: holds {} state dicts; name the one to read (--key, in C++ `key`): {}", file,
                states.size(), listed(states));
    chosen = *it;
    std::erase(states, chosen);
    if (notes)
      notes->push_back(fmt::format("{}: read is '{}'; it also holds the state dicts {}", file,
                                   chosen, listed(states)));
  }
  return *all.at(chosen);
}

std::map<std::string, Tensor> read_state(const Document& d, Storages& storages, uint64_t file_bytes,
                                         const std::string& file, const std::string& key,
                                         std::vector<std::string>* notes) {
  const Value& state = state_of(d, file, key, notes);
  std::map<std::string, const Value*> tensors;
  std::vector<std::string> passed;
  for (const auto& [key_text, value] : entries(d, state, file)) {
    const Value& v = *value;
    const std::string name(key_text);
    auto renamed = [&](std::string_view end, const char* to) {
      return name.substr(0, name.size() - end.size()) + to;
    };
    if (is_tensor(d, v)) {
      tensors[ends_with_name(name, kPackedWeight) ? renamed(kPackedWeight, "weight") : name] = &v;
    } else if (is_packed_pair(d, name, v)) {
      tensors[renamed(kPackedParams, "weight")] = &d.item(v, 0);
      if (is_tensor(d, d.item(v, 1))) tensors[renamed(kPackedParams, "bias")] = &d.item(v, 1);
    } else if (v.kind != Kind::none && !ends_with_name(name, kPackedType)) {
      passed.push_back(fmt::format("{} ({})", name, describe(d, v)));
    }
  }
  if (notes && !passed.empty())
    notes->push_back(
        fmt::format("{}: passed over are entries that are no tensors: {}", file, listed(passed)));
  Maker maker(d, storages, file_bytes);
  std::map<std::string, Tensor> result;
  for (const auto& [name, value] : tensors)
    result[name] = maker.make(*value, fmt::format("{}: '{}'", file, name));

  // Of models in DataParallel or compiled.
  for (const std::string prefix : {"_orig_mod.", "module.", "_orig_mod."}) {
    if (result.empty() || !std::all_of(result.begin(), result.end(), [&](const auto& entry) {
          return entry.first.starts_with(prefix) && entry.first.size() > prefix.size();
        }))
      continue;
    std::map<std::string, Tensor> shorter;
    for (auto& [name, tensor] : result) shorter[name.substr(prefix.size())] = std::move(tensor);
    result = std::move(shorter);
    if (notes)
      notes->push_back(
          fmt::format("{}: all names began with '{}', which was taken off", file, prefix));
  }
  return result;
}

// -- files ----------------------------------------------------------------------------------------

bool is_archive(std::string_view bytes) { return bytes.starts_with("PK\3\4"); }

std::map<std::string, Tensor> read_archive(const std::filesystem::path& path,
                                           const std::string& key,
                                           std::vector<std::string>* notes) {
  const std::string file = path.string();
  const zip::Archive archive(path, "a PyTorch file");
  const zip::Member* root = nullptr;
  for (const zip::Member& m : archive.members()) {
    // NAME/data.pkl
    if (m.name != "data.pkl" &&
        (!m.name.ends_with("/data.pkl") || m.name.find('/') != m.name.size() - 9))
      continue;
    OCTET_CHECK(!root, corrupt, "{}: holds both {} and {}", file, zip::shown(root->name),
                zip::shown(m.name));
    root = &m;
  }
  OCTET_CHECK(root, unsupported,
              "{}: is a zip archive without data.pkl, so it holds no weights of PyTorch; save them "
              "with torch.save(model.state_dict(), ...)",
              file);
  const std::string prefix = root->name.substr(0, root->name.size() - 8);
  for (const zip::Member& m : archive.members()) {
    OCTET_CHECK(m.name != prefix + "constants.pkl" && !m.name.starts_with(prefix + "code/"),
                unsupported,
                "{}: is a TorchScript archive; save its weights in Python: "
                "torch.save(torch.jit.load('{}').state_dict(), 'weights.pt')",
                file, path.filename().string());
    if (m.name != prefix + "byteorder" || m.size > 16) continue;
    std::string order(m.size, '\0');
    archive.open(m, fmt::format("{}: {}", file, zip::shown(m.name)))->read(order.data(), m.size);
    OCTET_CHECK(order == "little", unsupported,
                "{}: its numbers are {} endian; save it on a little-endian machine", file,
                zip::shown(order));
  }

  const std::string where = fmt::format("{}: {}", file, zip::shown(root->name));
  OCTET_CHECK(root->size <= pickle::kMaxBytes, unsupported,
              "{}: has {} bytes; expected at most {}: save the weights alone", where, root->size,
              pickle::kMaxBytes);
  auto source = archive.open(*root, where);
  std::string text(root->size, '\0');
  source->read(text.data(), root->size);
  if (root->crc != 0) ZipStorages::check_crc(where, source->crc(), root->crc);
  const Document d = pickle::read(text, where, [&](const std::string& name, bool outermost) {
    check_global(file, name, outermost);
  });
  ZipStorages storages(archive, prefix + "data/", file);
  return read_state(d, storages, archive.file_bytes(), file, key, notes);
}

// Five pickles (a magic number, a version, the machine, the object, the storages' keys), then the
// storages: the number of elements, and these.
std::map<std::string, Tensor> read_legacy(const std::filesystem::path& path, const std::string& key,
                                          std::vector<std::string>* notes) {
  const std::string file = path.string();
  auto mapped = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(mapped->data()), mapped->size());
  size_t at = 0;
  auto next = [&](const char* what) {
    size_t used = 0;
    Document d = pickle::read(
        bytes.substr(at), fmt::format("{}: {}", file, what),
        [&](const std::string& name, bool outermost) { check_global(file, name, outermost); },
        &used);
    at += used;
    return d;
  };
  const Document magic = next("the magic number");
  OCTET_CHECK(magic[magic.root()].kind == Kind::big && magic[magic.root()].text == kLegacyMagic,
              unsupported,
              "{}: is a pickle that torch.save did not write; save the weights with "
              "torch.save(model.state_dict(), ...)",
              file);
  const Document version = next("the version"), machine = next("the machine");
  OCTET_CHECK(
      version[version.root()].kind == Kind::integer && version[version.root()].integer == 1001,
      unsupported, "{}: is of another version than 1001; save it again with torch.save", file);
  const auto facts = entries(machine, machine[machine.root()], file);
  if (const auto little = facts.find("little_endian"); little != facts.end())
    OCTET_CHECK(little->second->kind != Kind::boolean || little->second->integer, unsupported,
                "{}: its numbers are big endian; save it on a little-endian machine", file);
  const Document d = next("the state dict"), keys = next("the keys");

  std::map<std::string, uint64_t> element_bytes;
  for (Ref i = 0; i < d.size(); ++i)
    if (d[i].kind == Kind::persistent) {
      const StorageId id = storage_id(d, d[i], file);
      element_bytes[id.key] = id.type->bytes;
    }
  LegacyStorages storages(mapped);
  const Value& list = keys[keys.root()];
  OCTET_CHECK(list.kind == Kind::list, corrupt, "{}: the keys of its storages are no list", file);
  for (size_t i = 0; i < list.items.size(); ++i) {
    const Value& item = keys.item(list, i);
    OCTET_CHECK(is_name(item.text), corrupt,
                "{}: the key of a storage has {} bytes or control characters", file,
                item.text.size());
    const std::string name =
        item.kind == Kind::integer ? std::to_string(item.integer) : std::string(item.text);
    const auto size = element_bytes.find(name);
    OCTET_CHECK(size != element_bytes.end(), corrupt, "{}: storage '{}' is no tensor's", file,
                shorten(name, 100));
    uint64_t count = 0, length = 0;
    OCTET_CHECK(bytes.size() - at >= 8, corrupt,
                "{}: truncated: storage '{}' is missing; copy or save the file again", file, name);
    for (size_t b = 8; b-- > 0;) count = count << 8 | static_cast<uint8_t>(bytes[at + b]);
    at += 8;
    OCTET_CHECK(
        !__builtin_mul_overflow(count, size->second, &length) && length <= bytes.size() - at,
        corrupt,
        "{}: truncated: storage '{}' has {} elements of {} bytes, {} bytes are left; copy "
        "or save the file again",
        file, name, count, size->second, bytes.size() - at);
    storages.add(name, at, length);
    at += length;
  }
  return read_state(d, storages, bytes.size(), file, key, notes);
}

}  // namespace

namespace io {

bool is_pytorch(std::string_view bytes) {
  // The length of a safetensors header may look like the start of either.
  if (bytes.size() > 8 && bytes[8] == '{' && bytes.substr(5, 3) == std::string_view("\0\0\0", 3))
    return false;
  return is_archive(bytes) ||
         (bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5);
}

}  // namespace io

std::map<std::string, Tensor> read_pytorch(const std::filesystem::path& path,
                                           const std::string& key,
                                           std::vector<std::string>* notes) {
  OCTET_CHECK(!io::kBigEndian, unsupported,
              "{}: is read on little-endian machines only; there `octet convert` makes "
              "a safetensors file of it, which is read everywhere",
              path.string());
  const auto mapped = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(mapped->data()),
                               std::min<size_t>(mapped->size(), 64));
  if (is_archive(bytes)) return read_archive(path, key, notes);
  OCTET_CHECK(io::is_pytorch(bytes), corrupt,
              "{}: not a PyTorch file: it is neither a zip archive nor a pickle", path.string());
  return read_legacy(path, key, notes);
}

}  // namespace octet
