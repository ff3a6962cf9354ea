#pragma once
// Shared by the ONNX export sources. Not public.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/io/onnx/export.h"

namespace onnx {
class GraphProto;
class ModelProto;
class NodeProto;
}  // namespace onnx

namespace octet::io::onnx_impl {

// Never a FromOperand, which is there because it can be destroyed where memory ran out
// (tensor/attrs.h).
using OnnxAttr = std::variant<int64_t, double, std::string, std::vector<int64_t>,
                              std::vector<std::string>, FromOperand>;
using OnnxAttrs = std::vector<std::pair<std::string, OnnxAttr>>;
using Names = std::vector<std::string>;

class Exporter;

// One call as its writer sees it: float operands and results by their ONNX names. Quantized
// operands have been dequantized; quantized results are quantized afterwards.
struct CallView {
  const graph::Graph& graph;
  const graph::Node& node;
  Names in;  // "" for omitted operands
  Names out;

  const Attrs& attrs() const { return node.attrs; }
  bool has(size_t i) const { return i < in.size() && !in[i].empty(); }
  const TensorType& type(size_t i) const { return graph.type(node.inputs[i]); }
  const TensorType& result(size_t i = 0) const { return graph.type(node.outputs[i]); }
  int64_t rank(size_t i = 0) const { return type(i).dim(); }
  // Whether operand 0 and the result are 8-bit codes of one dtype with one scale each.
  bool on_codes() const;
};

class Exporter {
 public:
  // Writes for this opset; need() says which one would be needed.
  Exporter(const graph::Graph& graph, const OnnxExportOptions& options, int64_t opset);
  ~Exporter();
  onnx::ModelProto run();
  const OnnxOpset& needed() const { return needed_; }

  // -- for writers
  int64_t opset() const { return opset_; }
  // What is written needs this opset or a later one; `why`: "triu of a matrix of unknown size".
  void need(int64_t opset, const std::string& why);
  // Whether operators on codes are written in the forms that ONNX Runtime has integer kernels for.
  bool for_onnx_runtime() const { return options_.target == OnnxTarget::onnxruntime; }
  // Appends a node called as the call's scope, or that with a suffix, made unique. Returns `out`.
  std::string add(const CallView& c, const std::string& op, Names in, const std::string& out,
                  const OnnxAttrs& attrs = {}, const std::string& suffix = "");
  // A node with several results of these names.
  void add_many(const CallView& c, const std::string& op, const Names& in, const Names& out,
                const OnnxAttrs& attrs);
  // A node with several results, of com.microsoft's operators.
  void add_microsoft(const CallView& c, const std::string& op, const Names& in, const Names& out,
                     const OnnxAttrs& attrs);
  // A free name for a value on the way to the call's result.
  std::string fresh(const CallView& c, const std::string& what);
  // A node on the way to the call's result, with fresh names.
  std::string step(const CallView& c, const std::string& op, Names in, const OnnxAttrs& attrs = {});
  std::string initializer(const std::string& hint, const Tensor& value);
  // Constant operand i in another form, under its own name if nothing else reads it.
  std::string constant_as(const CallView& c, size_t i, const Tensor& value);
  // an int64 vector
  std::string ints(const CallView& c, const std::string& what, const std::vector<int64_t>& values);
  // An attribute's integers (a list, or one) as an int64 vector, or the operand that gives them.
  std::string given(const CallView& c, const std::string& what, const char* attr);
  std::string scalar(const CallView& c, float value);  // shared by all nodes
  // A constant operand with its last two dimensions swapped (codes of quantized ones), as the name
  // of its float value.
  std::string transposed_weight(const CallView& c, size_t i);
  // x as codes and back: the name of the float value of the codes of `type`. They are read as
  // `read` where that is given: the same codes with another scale.
  std::string through_codes(const CallView& c, const std::string& x, const TensorType& type,
                            const TensorType* read = nullptr);
  // A float number that codes of `dtype` (quint8, qint8) hold exactly, as the name of their float
  // value: one step away from the zero point, of as large a scale. Not finite numbers are plain.
  // `mark`: the node's doc_string.
  std::string exact_codes(const std::string& name, const Tensor& number, DType dtype,
                          const std::string& mark = "");
  // The call's operands, with numbers that are constants as exact_codes where its operand 0 and its
  // result are codes: ONNX Runtime's integer add and mul take codes only. `instead`: what is added
  // or multiplied by in place of a number that is subtracted or divided by; import finds that one
  // in a mark (kNumberMark). Nullopt if there is none, or no such number.
  Names with_exact_codes(const CallView& c);
  std::optional<Names> with_exact_codes(const CallView& c,
                                        const std::function<float(float)>& instead);
  // The name of a quantized value's codes.
  const std::string& codes(graph::ValueId id) const { return plain_names_.at(id); }
  // The calls that cannot be written are collected, to be named in one Error.
  struct Unsupported {
    std::string reason;
  };

 private:
  void write_call(const graph::Node& node);
  void require_target() const;
  // Whether the name is that of a constant that is an output, which a node makes.
  bool is_constant_output(const std::string& name) const { return made_.count("output " + name); }
  void write_quantize(const graph::Node& node, const std::string& x, graph::ValueId result);
  std::string float_name(graph::ValueId id);
  std::string operand(const graph::Node& node, size_t i);
  std::string bias_name(const graph::Node& node);
  std::string dequantized_constant(const std::string& name, const Tensor& codes,
                                   const std::string& scope);
  void qparams(onnx::NodeProto& n, const std::string& name, const TensorType& type);
  onnx::NodeProto& append(const std::string& op, const std::string& name, const Names& in,
                          const Names& out);
  void finish_outputs();
  std::string unique(const std::string& name);

  const graph::Graph& graph_;
  const OnnxExportOptions options_;
  const int64_t opset_;
  OnnxOpset needed_;
  std::unique_ptr<onnx::ModelProto> model_;
  onnx::GraphProto* out_;
  std::set<std::string> names_, node_names_;
  // of float and plain values, and of codes
  std::unordered_map<graph::ValueId, std::string> plain_names_;
  // of the dequantized values of codes
  std::unordered_map<graph::ValueId, std::string> float_names_;
  // transposed weights, biases, scalars
  std::map<std::string, std::string> made_;
};

using Writer = std::function<void(Exporter&, const CallView&)>;
const std::unordered_map<std::string, Writer>& writers();
// The operator that makes the call's result, followed by its `activation`.
void write_activated(Exporter& ex, const CallView& c, const std::string& op, const Names& in,
                     const OnnxAttrs& attrs);
// One per subject.
void add_elementwise_writers(std::unordered_map<std::string, Writer>& w);
void add_recurrent_writers(std::unordered_map<std::string, Writer>& w);
void add_integer_writers(std::unordered_map<std::string, Writer>& w);
// Operators on codes in the forms that ONNX Runtime has integer kernels for. After the others: it
// wraps their writers.
void add_code_writers(std::unordered_map<std::string, Writer>& w);
void add_layer_writers(std::unordered_map<std::string, Writer>& w);
void add_movement_writers(std::unordered_map<std::string, Writer>& w);

}  // namespace octet::io::onnx_impl
