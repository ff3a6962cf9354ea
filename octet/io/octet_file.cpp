#include "octet/io/octet_file.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/io/fields_impl.h"
#include "octet/io/json_text_impl.h"
#include "octet/io/safetensors.h"
#include "octet/io/state_dict_impl.h"

namespace octet::io {
namespace {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::Value;
using graph::ValueId;

// Files with codes of 4 bits, two to a byte, have a number of their own, so that an octet that does
// not know these says so; all others have kFormat.
constexpr int64_t kPackedFormat = 3;

const char* const kKinds[] = {"input", "constant", "call"};

// -- codes of 4 bits ------------------------------------------------------------------------------

// Whether all codes, int8 or uint8, are 4-bit numbers, and there are enough of them to be worth it.
bool fit_in_4_bits(const Tensor& codes) {
  constexpr int64_t kEnough = 256;
  if (codes.numel() < kEnough) return false;
  const auto within = [](const auto& all, int least, int most) {
    return std::ranges::all_of(all, [=](auto q) { return q >= least && q <= most; });
  };
  if (codes.dtype() == DType::int8) return within(codes.to_vector<int8_t>(), -8, 7);
  return codes.dtype() == DType::uint8 && within(codes.to_vector<uint8_t>(), 0, 15);
}

// Two to a byte in row-major order, the first in the low half: uint8 of one dimension.
Tensor pack_codes(const Tensor& codes) {
  const Tensor dense = codes.contiguous();
  const auto* q = static_cast<const uint8_t*>(dense.raw_data());
  Tensor packed = Tensor::zeros({(dense.numel() + 1) / 2}, DType::uint8);
  auto* out = packed.data<uint8_t>();
  for (int64_t i = 0; i < dense.numel(); ++i)
    out[i / 2] = static_cast<uint8_t>(out[i / 2] | (q[i] & 15) << 4 * (i % 2));
  return packed;
}

// The codes of a constant of that type, int8 or uint8.
Tensor unpack_codes(const Tensor& packed, const TensorType& type) {
  const bool known = std::ranges::all_of(type.dims, [](const Dim& d) { return d.known(); });
  const DType dtype = is_quantized(type.dtype) ? code_dtype(type.dtype) : type.dtype;
  int64_t count = 1;
  bool fits = known && (dtype == DType::int8 || dtype == DType::uint8);
  for (const Dim& d : type.dims) fits = fits && !__builtin_mul_overflow(count, d.size(), &count);
  OCTET_CHECK(fits && packed.dtype() == DType::uint8 && packed.dim() == 1 &&
                  packed.numel() == count / 2 + count % 2,
              corrupt, "the packed codes of {} are {}; expected uint8, two codes to a byte",
              octet::to_string(type), octet::to_string(packed.type()));
  Shape shape;
  for (const Dim& d : type.dims) shape.push_back(d.size());
  Tensor codes = Tensor::empty(shape, dtype);
  auto* out = static_cast<uint8_t*>(codes.raw_data());
  const uint8_t* in = packed.data<uint8_t>();
  const int sign = dtype == DType::int8 ? 8 : 0;  // -8 is 8 in 4 bits
  for (int64_t i = 0; i < count; ++i)
    out[i] = static_cast<uint8_t>(((in[i / 2] >> 4 * (i % 2) & 15) ^ sign) - sign);
  return codes;
}

// -- writing --------------------------------------------------------------------------------------

// The members of a value's type.
void put_type(JsonText& json, const TensorType& type, bool qparams) {
  json.member("dtype", to_string(type.dtype)).key("dims").begin('[');
  for (const Dim& d : type.dims) d.known() ? json.value(d.size()) : json.value(d.name());
  json.end(']');
  if (!type.quantizer || !qparams) return;
  const Quantizer& q = *type.quantizer;
  json.member("qscheme", to_string(q.scheme()));
  if (q.is_per_channel()) {
    json.member("axis", q.axis()).member("scale", q.scales());
    if (q.has_float_zero_points())
      json.member("zero_point", q.float_zero_points());
    else
      json.member("zero_point", q.zero_points());
  } else {
    json.member("scale", q.scale()).member("zero_point", q.zero_point());
  }
}

class Writer {
 public:
  explicit Writer(const Graph& g) : g_(g) {}

  void write(const std::filesystem::path& path) {
    for (const Node& node : g_.nodes())
      if (node.kind == NodeKind::constant) store(node);
    std::string text;
    try {
      text = graph_text();
    } catch (const Json::exception&) {
      OCTET_FAIL(invalid_argument, "{}: {}", path.string(), not_utf8());
    }
    write_safetensors(path, tensors_, {{"format", "octet"}, {"octet.graph", text}});
  }

 private:
  void store(const Node& constant) {
    const std::string& name = g_.value(constant.outputs[0]).name;
    Tensor& stored = tensors_[name] = constant.value;
    if (!constant.value.is_quantized()) return;
    stored = constant.value.int_repr();
    if (!fit_in_4_bits(stored)) return;
    stored = pack_codes(stored);
    packed_.insert(name);
  }

  std::string graph_text() {
    JsonText json;
    json.begin('{').member("format", packed_.empty() ? kFormat : kPackedFormat);
    json.member("name", g_.name);
    json.member("metadata", g_.metadata).key("values").begin('[');
    for (const Value& v : g_.values()) {
      json.begin('{');
      put_type(json, v.type, !g_.is_constant(static_cast<ValueId>(&v - g_.values().data())));
      json.member("name", v.name).end('}');
    }
    json.end(']').key("nodes").begin('[');
    for (const Node& node : g_.nodes()) put_node(json, node);
    json.end(']').member("inputs", g_.inputs()).member("outputs", g_.outputs()).end('}');
    return json.take();
  }

  void put_node(JsonText& json, const Node& node) {
    json.begin('{').member("kind", kKinds[static_cast<int>(node.kind)]);
    json.member("outputs", node.outputs);
    if (!node.scope.empty()) json.member("scope", node.scope);
    if (!node.note.empty()) json.member("note", node.note);
    if (node.stays_float) json.key("stays_float").value(true);
    if (node.kind == NodeKind::constant) {
      const std::string& name = g_.value(node.outputs[0]).name;
      json.member("tensor", name);
      if (packed_.count(name)) json.key("packed").value(true);
      if (node.value.is_quantized()) qparams(json, name, *node.value.quantizer());
    } else if (node.kind == NodeKind::call) {
      json.member("op", node.op).member("inputs", node.inputs);
      put_attrs(json.key("attrs"), node.attrs);
    }
    json.end('}');
  }

  // Which text JSON cannot hold.
  std::string not_utf8() const {
    auto bad = [](const Node& node) {
      try {
        JsonText json;
        json.value(node.scope).value(node.note);
        for (const auto& [key, value] : node.attrs) json.value(to_string(value));
      } catch (const Json::exception&) {
        return true;
      }
      return false;
    };
    for (const Node& node : g_.nodes())
      if (bad(node))
        return fmt::format("the scope, note or an attribute of %{} is not UTF-8",
                           g_.value(node.outputs[0]).name);
    return "the graph's name, metadata or the name of a dimension is not UTF-8";
  }

  void qparams(JsonText& json, const std::string& name, const Quantizer& q) {
    Shape shape = q.is_per_channel() ? Shape{static_cast<int64_t>(q.scales().size())} : Shape{};
    json.member("qscheme", to_string(q.scheme()));
    if (q.is_per_channel()) json.member("axis", q.axis());
    json.member("scale",
                add(name + ".scale", smaller(Tensor::from(q.scales(), shape), DType::float32)));
    json.member("zero_point",
                add(name + ".zero_point",
                    q.has_float_zero_points()
                        ? smaller(Tensor::from(q.float_zero_points(), shape), DType::float32)
                        : smaller(Tensor::from(q.zero_points(), shape), DType::int32)));
  }

  // A constant may have that name already.
  std::string add(std::string name, Tensor tensor) {
    while (tensors_.count(name)) name += "_";
    tensors_[name] = std::move(tensor);
    return name;
  }

  const Graph& g_;
  std::map<std::string, Tensor> tensors_;
  std::set<std::string> packed_;  // constants whose codes lie two to a byte
};

// -- reading --------------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : path_(path.string()), file_(read_safetensors(path)) {}

  Graph read(std::vector<std::string>* notes) {
    auto text = file_.metadata.find("octet.graph");
    OCTET_CHECK(
        !file_.metadata.count("octet.model"), unsupported,
        "{}: this file holds a model of modules, not a graph: open it with octet::load_model",
        path_);
    OCTET_CHECK(text != file_.metadata.end(), corrupt,
                "{}: no \"octet.graph\" in the metadata: this is a plain safetensors file, not a "
                ".octet model",
                path_);
    const JsonDocument json_document = parse_json(text->second, path_ + ": octet.graph");
    const Json& json = *json_document;
    Fields root(json, path_ + ": octet.graph");
    check_format(root, path_, file_.has_checksums, notes, kPackedFormat);
    g_.name = root.get<std::string>("name");
    g_.metadata = root.get<std::map<std::string, std::string>>("metadata");
    const Json& values = root.raw("values");
    OCTET_CHECK(values.is_array(), corrupt, "{}: 'values' is not a list", root.where());
    for (size_t i = 0; i < values.size(); ++i)
      value(Fields(values[i], fmt::format("{}: value {}", path_, i)));
    const Json& nodes = root.raw("nodes");
    OCTET_CHECK(nodes.is_array(), corrupt, "{}: 'nodes' is not a list", root.where());
    for (size_t i = 0; i < nodes.size(); ++i)
      node(Fields(nodes[i], fmt::format("{}: node {}", path_, i)));
    for (size_t i = 0; i < values_.size(); ++i)
      OCTET_CHECK(map_[i] != graph::kNone, corrupt, "{}: value {} ('{}'): no node makes it", path_,
                  i, values_[i].name);
    std::vector<ValueId> inputs;
    for (ValueId id : root.ids("inputs", values_.size()))
      inputs.push_back(id == graph::kNone ? id : map_[id]);
    OCTET_CHECK(inputs == g_.inputs(), corrupt,
                "{}: 'inputs' does not list the input nodes in their order", root.where());
    std::vector<ValueId> outputs;
    for (ValueId id : root.ids("outputs", values_.size())) {
      OCTET_CHECK(id != graph::kNone, corrupt, "{}: 'outputs' names no value", root.where());
      outputs.push_back(map_[id]);
    }
    g_.set_outputs(std::move(outputs));
    try {
      g_.check();
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{}: {}", path_, e.what());
    }
    return std::move(g_);
  }

 private:
  void value(const Fields& f) {
    Value v;
    v.name = f.get<std::string>("name");
    try {
      v.type.dtype = parse_dtype(f.get<std::string>("dtype"));
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{}: {}", f.where(), e.what());
    }
    OCTET_CHECK(f.raw("dims").is_array(), corrupt, "{}: 'dims' is not a list", f.where());
    for (const Json& d : f.raw("dims")) {
      if (d.is_number_integer() && d.get<int64_t>() >= 0)
        v.type.dims.emplace_back(d.get<int64_t>());
      else if (d.is_string())
        v.type.dims.emplace_back(d.get<std::string>());
      else
        OCTET_FAIL(corrupt, "{}: dimension {} is neither a size nor a name", f.where(), brief(d));
    }
    if (f.has("qscheme")) {
      const Json &scale = f.raw("scale"), &zero = f.raw("zero_point");
      std::vector<double> scales;
      std::vector<double> zeros;
      // No copy of either: nlohmann's destructor takes memory. A number is a list of itself.
      for (const Json& s : scale) {
        OCTET_CHECK(s.is_number() && !scale.is_object(), corrupt,
                    "{}: 'scale' is not a number or a list of numbers", f.where());
        scales.push_back(s.get<double>());
      }
      for (const Json& z : zero) {
        OCTET_CHECK(
            !zero.is_object() && (z.is_number_integer() || (z.is_number() && is_float_scheme(f))),
            corrupt, "{}: 'zero_point' is not an integer or a list of integers", f.where());
        zeros.push_back(z.get<double>());
      }
      v.type.quantizer = quantizer(f, scales, zeros, v.type.dtype);
    }
    map_.push_back(graph::kNone);
    values_.push_back(std::move(v));
  }

  static bool is_float_scheme(const Fields& f) {
    return f.get<std::string>("qscheme") == to_string(QScheme::per_channel_affine_float_qparams);
  }

  // Whole zero points are exact in double: they are codes.
  QuantizerPtr quantizer(const Fields& f, const std::vector<double>& scales,
                         const std::vector<double>& zero_points, DType dtype) const {
    auto scheme = f.get<std::string>("qscheme");
    try {
      OCTET_CHECK(is_quantized(dtype), corrupt, "{} has no qparams", to_string(dtype));
      if (is_float_scheme(f))
        return Quantizer::per_channel_float(scales, zero_points, f.integer("axis"), dtype);
      std::vector<int64_t> zeros;
      for (double z : zero_points) {
        OCTET_CHECK(std::abs(z) <= 0x1p32, corrupt, "zero_point {}: {} holds {}..{}", z,
                    to_string(dtype), qmin(dtype), qmax(dtype));
        zeros.push_back(static_cast<int64_t>(z));
      }
      if (scheme == "per_channel_affine")
        return Quantizer::per_channel(scales, zeros, f.integer("axis"), dtype);
      OCTET_CHECK(scheme == "per_tensor_affine" && scales.size() == 1 && zeros.size() == 1, corrupt,
                  "qscheme '{}' with {} scales", scheme, scales.size());
      return Quantizer::per_tensor(scales[0], zeros[0], dtype);
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{}: {}", f.where(), e.what());
    }
  }

  const Tensor& tensor(const Fields& f, const char* field) const {
    auto name = f.get<std::string>(field);
    auto it = file_.tensors.find(name);
    OCTET_CHECK(it != file_.tensors.end(), corrupt, "{}: tensor '{}' ({}) is not in the file",
                f.where(), name, field);
    return it->second;
  }

  // The elements of a tensor of one of the dtypes that qparams have, as it lies in the file.
  static std::vector<double> doubles(const Tensor& t) {
    auto of = [&]<typename T>(const T* data) {
      return std::vector<double>(data, data + t.numel());
    };
    switch (t.dtype()) {
      case DType::float32:
        return of(t.data<float>());
      case DType::int64:
        return of(t.data<int64_t>());
      case DType::int32:
        return of(t.data<int32_t>());
      default:
        return of(t.data<double>());
    }
  }

  void node(const Fields& f) {
    Node node;
    auto kind = f.get<std::string>("kind");
    node.scope = f.get<std::string>("scope", "");
    node.note = f.get<std::string>("note", "");
    node.stays_float = f.get<bool>("stays_float", false);
    auto outputs = f.ids("outputs", values_.size());
    std::vector<Value> made;
    for (ValueId id : outputs) {
      OCTET_CHECK(id != graph::kNone && map_[id] == graph::kNone, corrupt,
                  "{}: its result is no value, or made twice", f.where());
      made.push_back(values_[id]);
    }
    OCTET_CHECK(!made.empty(), corrupt, "{}: it has no results", f.where());
    if (kind == "input") {
      node.kind = NodeKind::input;
    } else if (kind == "constant") {
      node.kind = NodeKind::constant;
      node.value = tensor(f, "tensor");
      if (f.has("qscheme")) {
        const Tensor &s = tensor(f, "scale"), &z = tensor(f, "zero_point");
        OCTET_CHECK(
            (s.dtype() == DType::float64 || s.dtype() == DType::float32) &&
                (is_float_scheme(f) ? z.dtype() == DType::float64 || z.dtype() == DType::float32
                                    : z.dtype() == DType::int64 || z.dtype() == DType::int32),
            corrupt,
            "{}: scale and zero_point are {} and {}; expected float64 or float32, and int64 or "
            "int32",
            f.where(), to_string(s.dtype()), to_string(z.dtype()));
        auto q = quantizer(f, doubles(s), doubles(z), made[0].type.dtype);
        try {
          const TensorType& type = made[0].type;
          if (f.get<bool>("packed", false)) node.value = unpack_codes(node.value, type);
          node.value = is_packed(type.dtype) ? make_quantized(node.value, q, type.dtype)
                                             : make_quantized(node.value, q);
        } catch (const Error& e) {
          OCTET_FAIL(corrupt, "{}: {}", f.where(), e.what());
        }
      }
      OCTET_CHECK(
          node.value.dtype() == made[0].type.dtype && node.value.dim() == made[0].type.dim(),
          corrupt, "{}: the tensor is {}, the value {}", f.where(), to_string(node.value.type()),
          to_string(made[0].type));
      made[0].type.quantizer = node.value.quantizer();
    } else if (kind == "call") {
      node.op = f.get<std::string>("op");
      OCTET_CHECK(ops::find(node.op), corrupt, "{}: unknown operator '{}'", f.where(), node.op);
      for (ValueId id : f.ids("inputs", values_.size())) {
        OCTET_CHECK(id == graph::kNone || map_[id] != graph::kNone, corrupt,
                    "{}: operand {} is used before it is made", f.where(), id);
        node.inputs.push_back(id == graph::kNone ? graph::kNone : map_[id]);
      }
      node.attrs = parse_attrs(f, "attrs");
      // "[]" says nothing about the kind of list; the operator does.
      try {
        node.attrs = ops::get(node.op).complete(node.attrs);
      } catch (const Error& e) {
        OCTET_FAIL(corrupt, "{}: {}", f.where(), e.what());
      }
    } else {
      OCTET_FAIL(corrupt, "{}: unknown kind '{}'", f.where(), kind);
    }
    try {
      graph::NodeId id = g_.add_raw(std::move(node), made);
      for (size_t i = 0; i < outputs.size(); ++i) map_[outputs[i]] = g_.node(id).outputs[i];
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{}: {}", f.where(), e.what());
    }
  }

  std::string path_;
  SafetensorsFile file_;
  Graph g_;
  std::vector<Value> values_;
  std::vector<ValueId> map_;  // value of the file -> value of the graph
};

}  // namespace

void save_octet(const Graph& graph, const std::filesystem::path& path) {
  graph.require_operators("save_octet");
  Writer(graph).write(path);
}

Graph load_octet(const std::filesystem::path& path, std::vector<std::string>* notes) {
  start_threads();  // whoever reads a model will run it
  try {
    return Reader(path).read(notes);
  } catch (const Json::exception& e) {
    OCTET_FAIL(corrupt, "{}: octet.graph: {}", path.string(), e.what());
  }
}

}  // namespace octet::io
