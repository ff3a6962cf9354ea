#pragma once
// For the ONNX tests: ONNX's wire format written and read by hand, so that models can be made and
// looked at without the protobuf library that octet uses, and an interpreter that walks a graph
// node by node.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/onnx/import.h"
#include "octet/ops/op.h"

namespace octet::testing {

// -- running --------------------------------------------------------------------------------------

inline std::vector<Tensor> run_graph(const graph::Graph& g, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> values(g.values().size());
  size_t next = 0;
  for (const graph::Node& node : g.nodes()) {
    if (node.kind == graph::NodeKind::input) values[node.outputs[0]] = inputs.at(next++);
    if (node.kind == graph::NodeKind::constant) values[node.outputs[0]] = node.value;
    if (node.kind != graph::NodeKind::call) continue;
    std::vector<Tensor> operands;
    for (graph::ValueId id : node.inputs)
      operands.push_back(id == graph::kNone ? Tensor() : values[id]);
    std::vector<Tensor> results =
        ops::call_all(node.op, operands, node.attrs, graph::want_of(g, node));
    for (size_t i = 0; i < results.size(); ++i) values[node.outputs[i]] = results[i];
  }
  std::vector<Tensor> outputs;
  for (graph::ValueId id : g.outputs()) outputs.push_back(values[id]);
  return outputs;
}

// As commands load an ONNX file.
inline graph::Graph load_onnx(const std::string& bytes) {
  graph::Graph g = graph::multiply_codes(
      graph::merge_qdq(graph::fuse_activations(io::import_onnx_bytes(bytes))));
  g.check();
  return g;
}

inline Tensor run_one(const graph::Graph& g, const std::vector<Tensor>& inputs) {
  return run_graph(g, inputs).at(0);
}

// How often an operator occurs.
inline int count_ops(const graph::Graph& g, const std::string& op) {
  int n = 0;
  for (const graph::Node& node : g.nodes())
    n += node.kind == graph::NodeKind::call && node.op == op;
  return n;
}

// The operators in order, as "conv2d relu linear".
inline std::string ops_of(const graph::Graph& g) {
  std::string text;
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call) text += (text.empty() ? "" : " ") + node.op;
  return text;
}

inline const graph::Node& node_of(const graph::Graph& g, const std::string& op) {
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call && node.op == op) return node;
  throw std::runtime_error("no " + op + " in " + graph::print(g));
}

// -- writing --------------------------------------------------------------------------------------

// A protobuf message being written, field by field.
class Message {
 public:
  Message& number(int field, int64_t value) {
    varint(static_cast<uint64_t>(field) << 3);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real(int field, float value) {
    varint(static_cast<uint64_t>(field) << 3 | 5);
    io::little_endian(&value, 4, 4);
    bytes_.append(reinterpret_cast<const char*>(&value), 4);
    return *this;
  }
  Message& text(int field, std::string_view value) {
    varint(static_cast<uint64_t>(field) << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t v) {
    for (; v >= 128; v >>= 7) bytes_ += static_cast<char>((v & 127) | 128);
    bytes_ += static_cast<char>(v);
  }
  std::string bytes_;
};

// TensorProto::DataType
enum : int64_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kHalf = 10,
  kDouble = 11
};

inline int64_t onnx_type(DType dtype) {
  switch (dtype) {
    case DType::uint8:
      return kUint8;
    case DType::int8:
      return kInt8;
    case DType::uint16:
      return kUint16;
    case DType::int16:
      return kInt16;
    case DType::int32:
      return kInt32;
    case DType::int64:
      return kInt64;
    case DType::bool_:
      return kBool;
    case DType::float16:
      return kHalf;
    case DType::float64:
      return kDouble;
    default:
      return kFloat;
  }
}

inline Message tensor_message(const Tensor& t, const std::string& name = "") {
  Message m;
  for (int64_t d : t.shape()) m.number(1, d);
  m.number(2, onnx_type(t.dtype()));
  if (!name.empty()) m.text(8, name);
  const Tensor data = io::in_file_order(t);
  return m.text(9, std::string_view(static_cast<const char*>(data.raw_data()),
                                    static_cast<size_t>(data.nbytes())));
}

// An attribute inside a function that has the value of an attribute of the function's call.
// type: AttributeProto::AttributeType (1: a number, 2: an integer).
struct RefAttr {
  std::string name;
  int64_t type;
};

using OnnxDim = std::variant<int, std::string>;
// A Message is a graph (OnnxModel::graph).
using OnnxAttr =
    std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
                 std::vector<std::string>, Tensor, Message, RefAttr>;

inline std::vector<int64_t> ints(std::vector<int64_t> values) { return values; }
inline Tensor longs(const std::vector<int64_t>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}
inline Tensor floats(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}

// The domain of ONNX Runtime's own operators.
inline constexpr const char* kMicrosoft = "com.microsoft";

// A model being made: OnnxModel(13).input("x", {1, 3}).node("Relu", {"x"}, {"y"}).output("y").
class OnnxModel {
 public:
  explicit OnnxModel(int64_t opset = 13, int64_t ir_version = 7)
      : opset_(opset), ir_version_(ir_version) {}

  OnnxModel& input(const std::string& name, const std::vector<OnnxDim>& dims,
                   int64_t type = kFloat) {
    graph_.message(11, value_info(name, dims, type));
    return *this;
  }
  OnnxModel& output(const std::string& name, int64_t type = kFloat) {
    Message tensor = Message().number(1, type);  // no shape: none is needed
    graph_.message(12, Message().text(1, name).message(2, Message().message(1, tensor)));
    return *this;
  }
  OnnxModel& constant(const std::string& name, const Tensor& value) {
    graph_.message(5, tensor_message(value, name));
    return *this;
  }
  OnnxModel& raw_initializer(const Message& m) {
    graph_.message(5, m);
    return *this;
  }
  OnnxModel& node(const std::string& op, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs,
                  const std::vector<std::pair<std::string, OnnxAttr>>& attrs = {},
                  const std::string& name = "", const std::string& domain = "") {
    Message n;
    for (const auto& i : inputs) n.text(1, i);
    for (const auto& o : outputs) n.text(2, o);
    if (!name.empty()) n.text(3, name);
    n.text(4, op);
    for (const auto& [key, value] : attrs) n.message(5, attribute(key, value));
    if (!domain.empty()) n.text(7, domain);
    graph_.message(1, n);
    return *this;
  }
  std::string bytes() const {
    Message opset = Message().text(1, "").number(2, opset_);
    Message graph = graph_;
    graph.text(2, "test");
    Message model = Message().number(1, ir_version_).message(7, graph).message(8, opset);
    for (const Message& f : functions_) model.message(25, f);
    return model.bytes();
  }
  // A function local::name whose nodes are those of `body`. `defaults`: attributes with values.
  OnnxModel& function(const std::string& name, const std::vector<std::string>& inputs,
                      const std::vector<std::string>& outputs, const OnnxModel& body,
                      const std::vector<std::string>& attributes = {},
                      const std::vector<std::pair<std::string, OnnxAttr>>& defaults = {});
  // The graph alone: a branch of If.
  Message graph() const { return Message(graph_).text(2, "branch"); }
  graph::Graph import(const io::OnnxImportOptions& options = {}) const {
    graph::Graph g = io::import_onnx_bytes(bytes(), "test.onnx", options);
    g.check();
    return g;
  }

 private:
  static Message value_info(const std::string& name, const std::vector<OnnxDim>& dims,
                            int64_t type) {
    Message shape;
    for (const OnnxDim& d : dims) {
      Message dim;
      if (auto* size = std::get_if<int>(&d))
        dim.number(1, *size);
      else if (!std::get<std::string>(d).empty())
        dim.text(2, std::get<std::string>(d));
      shape.message(1, dim);
    }
    Message tensor = Message().number(1, type).message(2, shape);
    return Message().text(1, name).message(2, Message().message(1, tensor));
  }
  static Message attribute(const std::string& name, const OnnxAttr& value) {
    Message a = Message().text(1, name);
    if (auto* ref = std::get_if<RefAttr>(&value))
      return a.number(20, ref->type).text(21, ref->name);
    if (auto* i = std::get_if<int64_t>(&value)) return a.number(3, *i).number(20, 2);
    if (auto* f = std::get_if<double>(&value))
      return a.real(2, static_cast<float>(*f)).number(20, 1);
    if (auto* s = std::get_if<std::string>(&value)) return a.text(4, *s).number(20, 3);
    if (auto* t = std::get_if<Tensor>(&value))
      return a.message(5, tensor_message(*t)).number(20, 4);
    if (auto* graph = std::get_if<Message>(&value)) return a.message(6, *graph).number(20, 5);
    if (auto* texts = std::get_if<std::vector<std::string>>(&value)) {
      for (const std::string& s : *texts) a.text(9, s);
      return a.number(20, 8);
    }
    if (auto* list = std::get_if<std::vector<int64_t>>(&value)) {
      for (int64_t v : *list) a.number(8, v);
      return a.number(20, 7);
    }
    for (double v : std::get<std::vector<double>>(value)) a.real(7, static_cast<float>(v));
    return a.number(20, 6);
  }
  int64_t opset_, ir_version_;
  Message graph_;
  std::vector<Message> functions_;
};

// -- reading --------------------------------------------------------------------------------------

// One field of a message: its number, and a varint or the bytes.
struct Field {
  int number;
  uint64_t value;
  std::string bytes;
};

inline std::vector<Field> fields(const std::string& bytes) {
  std::vector<Field> all;
  size_t at = 0;
  auto varint = [&] {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
      auto b = static_cast<unsigned char>(bytes.at(at++));
      v |= static_cast<uint64_t>(b & 127) << shift;
      if (b < 128) return v;
    }
  };
  while (at < bytes.size()) {
    uint64_t tag = varint();
    Field f{static_cast<int>(tag >> 3), 0, ""};
    if ((tag & 7) == 0) {
      f.value = varint();
    } else {
      size_t size = (tag & 7) == 5 ? 4 : (tag & 7) == 1 ? 8 : varint();
      f.bytes = bytes.substr(at, size);
      if (f.bytes.size() != size) throw std::runtime_error("truncated message");
      at += size;
    }
    all.push_back(std::move(f));
  }
  return all;
}

inline std::vector<std::string> submessages(const std::string& bytes, int number) {
  std::vector<std::string> found;
  for (const Field& f : fields(bytes))
    if (f.number == number) found.push_back(f.bytes);
  return found;
}

inline OnnxModel& OnnxModel::function(
    const std::string& name, const std::vector<std::string>& inputs,
    const std::vector<std::string>& outputs, const OnnxModel& body,
    const std::vector<std::string>& attributes,
    const std::vector<std::pair<std::string, OnnxAttr>>& defaults) {
  Message f = Message().text(1, name);
  for (const auto& i : inputs) f.text(4, i);
  for (const auto& o : outputs) f.text(5, o);
  for (const auto& a : attributes) f.text(6, a);
  for (const std::string& n : submessages(body.graph_.bytes(), 1)) f.text(7, n);
  f.message(9, Message().text(1, "").number(2, body.opset_)).text(10, "local");
  for (const auto& [key, value] : defaults) f.message(11, attribute(key, value));
  functions_.push_back(f);
  return *this;
}

// What the tests want to know of a node of an exported model.
struct ReadNode {
  std::string op, name;
  std::vector<std::string> inputs, outputs;
};

inline std::vector<ReadNode> read_nodes(const std::string& model) {
  std::vector<ReadNode> nodes;
  for (const std::string& n : submessages(submessages(model, 7).at(0), 1)) {
    ReadNode node;
    node.inputs = submessages(n, 1);
    node.outputs = submessages(n, 2);
    node.op = submessages(n, 4).at(0);
    if (auto names = submessages(n, 3); !names.empty()) node.name = names[0];
    nodes.push_back(std::move(node));
  }
  return nodes;
}

inline std::string onnx_ops_of(const std::string& model) {
  std::string text;
  for (const ReadNode& n : read_nodes(model)) text += (text.empty() ? "" : " ") + n.op;
  return text;
}

}  // namespace octet::testing
