#pragma once
// The graph: a typed list of operator calls, as torch.fx has one, that a person can read and a
// compiler can trust. Every value has a type that survives saving; whether an operator runs
// quantized is read off its operands' types.
//
//  graph net {
//    %x: Float(N, 3, 32, 32) = input
//    %conv.weight: QInt8(16, 3, 3, 3) axis=0 scale=[16: 0.0011..0.0042] zero_point=0 = constant
//    %x_q: QUInt8(N, 3, 32, 32) scale=1 zero_point=0 = quantize(%x)
//    %y: QUInt8(N, 16, 32, 32) scale=0.02 zero_point=0 = conv2d(%x_q, %conv.weight, padding=[1, 1,
//    1, 1])
//    return (%y)
//  }
//
// A graph traced from modules also has module calls, "%y: Float(N, 16, 32, 32) = module Conv2d(%x)
// @ features.0". Its modules are those of the GraphModule it belongs to (graph_module.h).

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/ops/op.h"
#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet::graph {

using ValueId = int32_t;              // index into Graph::values
using NodeId = int32_t;               // index into Graph::nodes
inline constexpr ValueId kNone = -1;  // an omitted optional operand

enum class NodeKind { input, constant, call, module };

struct Value {
  std::string name;  // unique in the graph
  TensorType type;
  NodeId producer = -1;
};

struct Node {
  NodeKind kind = NodeKind::call;
  std::string op;  // calls: the operator's name; module calls: the module's class
  // where it came from: the module path or the ONNX node's name; module calls: the path
  std::string scope;
  std::string note;  // for readers: why it stayed float, say; printed behind '#'
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attrs attrs;   // complete
  Tensor value;  // constants: the data
  // Quantizing was decided against: no pass puts it on codes, whatever it reads.
  bool stays_float = false;
};

// Nodes are in an order in which every operand is defined before its use. Copying a graph shares
// the constants' data.
class Graph {
 public:
  Graph();
  Graph(const Graph& other);
  Graph(Graph&& other) noexcept;
  Graph& operator=(const Graph& other);
  Graph& operator=(Graph&& other) noexcept;
  ~Graph();

  std::string name = "graph";
  // free text kept by .octet files (producer, qconfig, ...)
  std::map<std::string, std::string> metadata;

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<ValueId>& inputs() const { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  const Node& node(NodeId id) const { return nodes_[id]; }
  Node& node(NodeId id) { return nodes_[id]; }
  const Value& value(ValueId id) const { return values_[id]; }
  const TensorType& type(ValueId id) const { return values_[id].type; }
  const Node& producer(ValueId id) const { return nodes_[values_[id].producer]; }
  std::optional<ValueId> find(std::string_view name) const;
  bool has_modules() const;  // is one of its nodes a module call?
  // Error naming the first module call, if there is one: `who` only knows operators.
  void require_operators(std::string_view who) const;
  bool is_constant(ValueId id) const { return producer(id).kind == NodeKind::constant; }
  const Tensor& constant(ValueId id) const;  // the data; Error if it is not a constant

  // -- building: each appends a node and returns its value. A name that is taken gets a suffix
  // "_1", "_2", ... -------
  ValueId add_input(const std::string& name, TensorType type);
  ValueId add_constant(const std::string& name, Tensor value);
  // Infers the result types through the operator; `want` asks for a quantized result. `name` names
  // the (first) result.
  std::vector<ValueId> add_calls(const std::string& name, const std::string& op,
                                 std::vector<ValueId> inputs, const Attrs& attrs = {},
                                 const std::optional<ops::QType>& want = std::nullopt,
                                 const std::string& scope = "");
  ValueId add_call(const std::string& name, const std::string& op, std::vector<ValueId> inputs,
                   const Attrs& attrs = {}, const std::optional<ops::QType>& want = std::nullopt,
                   const std::string& scope = "");
  // A call of the module at `path`, of a class with that name, whose results have these types. The
  // first result gets `name`, the others `name` and their number, or all of them
  // `name`.`result_names[i]`.
  std::vector<ValueId> add_module(const std::string& name, const std::string& path,
                                  const std::string& class_name, std::vector<ValueId> inputs,
                                  const std::vector<TensorType>& types,
                                  const std::vector<std::string>& result_names = {});
  // A node with the given types, unchecked: what readers of saved graphs use, followed by check().
  NodeId add_raw(Node node, const std::vector<Value>& outputs);
  void set_outputs(std::vector<ValueId> outputs) { outputs_ = std::move(outputs); }
  // Error if the name is taken, or has other characters than letters, digits and _./:-
  void rename(ValueId id, const std::string& name);

  // Gives a quantized value other qparams (per tensor, of its dtype); check() tells whether all
  // agree then.
  void set_quantizer(ValueId id, QuantizerPtr quantizer);

  // Verifies everything a pass or a file could have broken: operands defined before use, each value
  // made once, known operators, and that type inference agrees with the recorded types. Error
  // `corrupt` naming the node.
  void check() const;
  void check_node(NodeId id) const;  // one node's part of it

  // How often each value is used, outputs of the graph included.
  std::vector<int> use_counts() const;
  // The calls that use a value.
  std::vector<NodeId> users(ValueId id) const;

 private:
  std::string unique_name(const std::string& name);
  ValueId new_value(const std::string& name, TensorType type, NodeId producer);

  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<ValueId> inputs_, outputs_;
  std::map<std::string, ValueId, std::less<>> by_name_;
};

// "%y = conv2d": a node in messages.
std::string describe(const Graph& graph, const Node& node);

// What Op::infer would be asked for this node's result: its quantized type, if it is quantized.
std::optional<ops::QType> want_of(const Graph& graph, const Node& node);

// The call that engines are asked about for this node: operands that are constants of the graph are
// known.
OpSpec spec_of(const Graph& graph, const Node& node);

// -- text -----------------------------------------------------------------------------------------

struct PrintOptions {
  bool full = false;      // long per-channel qparams in full; needed to parse the text again
  bool constants = true;  // the lines of constants
};
std::string print(const Graph& graph, const PrintOptions& options = {});

// Reads a full print. Plain constants of up to 8 elements carry their values in the text; others
// are looked up in `constants` by name, and are zero where absent (enough to test passes on text;
// up to 1 GB). Error `corrupt` with the line number.
Graph parse(std::string_view text, const std::map<std::string, Tensor>& constants = {});

// -- rewriting ------------------------------------------------------------------------------------

// Rebuilds a graph node by node. The callback gets each node of the old graph in order; it returns
// false to have it copied, or true when it has dealt with it: by mapping the node's outputs (map),
// or by leaving them out. Inputs and outputs are carried over; operands are looked up with
// operator().
class Rewriter {
 public:
  explicit Rewriter(const Graph& source)
      : source_(source), map_(source.values().size(), kUnmapped) {}
  const Graph& source() const { return source_; }
  Graph& out() { return out_; }
  // The new value that stands for an old one. Error if it was dropped.
  ValueId operator()(ValueId old) const;
  bool mapped(ValueId old) const { return old >= 0 && map_[old] != kUnmapped; }
  void map(ValueId old, ValueId replacement) { map_[old] = replacement; }
  // Copies a node with its operands mapped (types are inferred anew) and maps its outputs.
  void copy(const Node& node);
  std::vector<ValueId> operands(const Node& node) const;
  Graph run(const std::function<bool(Rewriter&, const Node&)>& visit);

 private:
  static constexpr ValueId kUnmapped = -2;
  const Graph& source_;
  Graph out_;
  std::vector<ValueId> map_;
};

}  // namespace octet::graph
