// The importer: which nodes are live and in what order, the values between them, and the graph that
// results.
#include <onnx/onnx_pb.h>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <map>
#include <new>
#include <queue>

#include "octet/graph/passes/cancel_permutes.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxOpset = 23;  // what has been read of the standard
constexpr int64_t kMostVisited = 1 << 18;
constexpr int64_t kMaxDim = int64_t{1} << 31;

std::string op_key(const onnx::NodeProto& node) {
  bool standard = node.domain().empty() || node.domain() == "ai.onnx";
  return standard ? node.op_type() : node.domain() + "." + node.op_type();
}

// A dimension's name as types print it.
std::string dim_name(const std::string& name) {
  std::string out = name;
  for (char& c : out)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') c = '_';
  return std::isdigit(static_cast<unsigned char>(out[0])) ? "d" + out : out;
}

// Every name a node reads, those inside its branches included.
void for_each_read(const onnx::NodeProto& node, const std::function<void(const std::string&)>& fn) {
  for (const std::string& in : node.input()) fn(in);
  for (const onnx::AttributeProto& a : node.attribute()) {
    if (!a.has_g()) continue;
    for (const onnx::NodeProto& inner : a.g().node()) for_each_read(inner, fn);
    for (const onnx::ValueInfoProto& out : a.g().output()) fn(out.name());
  }
}

// Unsigned integers of more than 16 bits are held in signed ones, which do not wrap as they do:
// only operators that make no new numbers of them may have them. Returns the type that the results
// have too, or 0.
int32_t check_unsigned(const NodeView& n, const std::vector<ValPtr>& inputs) {
  static const std::set<std::string> kKeep = {
      "Identity", "Max",    "Min",       "Reshape", "Flatten", "Transpose", "Squeeze",
      "Slice",    "Concat", "Unsqueeze", "Split",   "Expand",  "Tile",      "Gather"};
  static const std::set<std::string> kRead = {
      "Cast",  "CastLike", "Equal",          "Less",           "LessOrEqual",      "Greater",
      "Shape", "Size",     "GreaterOrEqual", "QuantizeLinear", "DequantizeLinear", "Where"};
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ValPtr& v = inputs[i];
    if (!v || !is_wide_unsigned(v->narrow) || v->constant.defined()) continue;
    if (kKeep.count(n.op()) && n.is_standard()) {
      if (i == 0) return v->narrow;
      continue;
    }
    const bool index = i == 1 && (n.op() == "Pow" || n.op() == "GatherElements");
    if (!index && !kRead.count(n.op()))
      n.unsupported("operands of type {}", onnx_type_name(v->narrow));
  }
  return 0;
}

// A function's attributes that have defaults: its field 11, which older definitions of the message
// lack.
std::map<std::string, onnx::AttributeProto> default_attributes(const onnx::FunctionProto& f) {
  using google::protobuf::internal::WireFormatLite;
  constexpr uint32_t kDefaults = 11 << 3 | WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
  std::map<std::string, onnx::AttributeProto> defaults;
  const std::string bytes = f.SerializePartialAsString();
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  while (const uint32_t tag = in.ReadTag()) {
    uint32_t size = 0;
    std::string text;
    onnx::AttributeProto a;
    if (tag != kDefaults) {
      if (!WireFormatLite::SkipField(&in, tag)) break;
    } else if (in.ReadVarint32(&size) && in.ReadString(&text, static_cast<int>(size)) &&
               parse(a, text)) {
      defaults[a.name()] = a;
    } else {
      break;
    }
  }
  return defaults;
}

// In a function's node: the call's attributes for those that refer to them, and nothing for the
// inputs that the call leaves out.
void substitute(onnx::NodeProto& node, const std::map<std::string, onnx::AttributeProto>& given,
                const std::set<std::string>& omitted) {
  for (std::string& in : *node.mutable_input())
    if (omitted.count(in)) in.clear();
  auto& attributes = *node.mutable_attribute();
  for (int i = attributes.size(); i-- > 0;) {
    onnx::AttributeProto& a = attributes[i];
    if (a.has_g())
      for (onnx::NodeProto& inner : *a.mutable_g()->mutable_node())
        substitute(inner, given, omitted);
    if (a.ref_attr_name().empty()) continue;
    const std::string name = a.name();
    if (auto value = given.find(a.ref_attr_name()); value != given.end()) {
      a = value->second;
      a.set_name(name);
    } else {
      attributes.DeleteSubrange(i, 1);
    }
  }
}

}  // namespace

Importer::Importer(onnx::ModelProto& model, const std::filesystem::path& dir,
                   const OnnxImportOptions& options)
    : model_(model), dir_(dir), options_(options) {}

// -- what is there --------------------------------------------------------------------------------

void Importer::check_header() {
  OCTET_CHECK(model_.has_graph() && model_.graph().node_size() + model_.graph().output_size() > 0,
              corrupt, "is not an ONNX model: it has no graph");
  for (const auto& set : model_.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") opset_ = std::max(opset_, set.version());
  if (model_.opset_import_size() == 0) opset_ = 1;  // IR versions 1 and 2
  OCTET_CHECK(opset_ >= 1, corrupt,
              "is not an ONNX model: it names no version of the standard operators");
  OCTET_CHECK(opset_ <= kMaxOpset, unsupported,
              "opset {0} is newer than octet knows ({1}); export the model with opset {1}", opset_,
              kMaxOpset);
  for (const onnx::FunctionProto& f : model_.functions()) {
    auto [it, fresh] =
        functions_.emplace(f.domain().empty() ? f.name() : f.domain() + "." + f.name(), &f);
    if (!fresh) it->second = nullptr;  // which of them a node means, newer definitions say
  }
  graph_.name = sanitize(model_.graph().name().empty() ? "graph" : model_.graph().name());
  if (!model_.producer_name().empty())
    graph_.metadata["producer"] =
        one_line(model_.producer_name() + " " + model_.producer_version());
}

// A dimension of an input that the model gives no size: a name, or the size that options_.dims has.
Dim Importer::open_dim(const onnx::ValueInfoProto& input, size_t d) const {
  const std::string& own = input.type().tensor_type().shape().dim(static_cast<int>(d)).dim_param();
  const std::string given = own.empty() ? fmt::format("{}_{}", input.name(), d) : own;
  auto bound = options_.dims.find(given);
  if (bound == options_.dims.end()) bound = options_.dims.find(dim_name(given));
  return bound == options_.dims.end() ? Dim(dim_name(given)) : Dim(bound->second);
}

// options_.shapes as sizes of names in options_.dims.
void Importer::bind_shapes() {
  if (options_.shapes.empty()) return;
  std::vector<std::pair<std::string, std::vector<Dim>>> inputs;
  for (const onnx::ValueInfoProto& input : model_.graph().input()) {
    if (initializers_.count(input.name()) || options_.constants.count(input.name())) continue;
    std::vector<Dim> dims;
    for (const auto& d : input.type().tensor_type().shape().dim())
      dims.push_back(d.has_dim_value() && d.dim_value() >= 0 ? Dim(d.dim_value())
                                                             : open_dim(input, dims.size()));
    inputs.emplace_back(sanitize(input.name()), std::move(dims));
  }
  graph::InputShapes shapes;
  for (const auto& [name, shape] : options_.shapes)
    shapes.emplace(name.empty() ? name : sanitize(name), shape);
  for (const auto& [name, size] : graph::sizes_of_dims(inputs, shapes)) options_.dims[name] = size;
}

void Importer::read_inputs() {
  onnx::GraphProto& g = *model_.mutable_graph();
  for (onnx::TensorProto& t : *g.mutable_initializer()) {
    OCTET_CHECK(!t.name().empty(), corrupt, "an initializer has no name");
    initializers_[t.name()] = &t;
  }
  bind_shapes();
  for (const onnx::ValueInfoProto& input : g.input()) {
    // IR versions below 4 list the weights as inputs
    if (initializers_.count(input.name())) continue;
    std::string what = fmt::format("input '{}'", one_line(input.name()));
    OCTET_CHECK(!input.name().empty(), corrupt, "an input of the graph has no name");
    OCTET_CHECK(!values_.count(input.name()), corrupt, "{} is listed twice", what);
    if (auto given = options_.constants.find(input.name()); given != options_.constants.end()) {
      values_[input.name()] = constant_val(input.name(), to_compute_type(given->second));
      continue;
    }
    OCTET_CHECK(input.type().has_tensor_type(), unsupported, "{}: expected a tensor", what);
    const auto& tensor = input.type().tensor_type();
    OCTET_CHECK(tensor.has_shape(), unsupported,
                "{}: has no shape; octet needs to know at least its rank", what);
    std::vector<Dim> dims;
    double elements = 1;
    for (const auto& d : tensor.shape().dim()) {
      if (d.has_dim_value() && d.dim_value() >= 0) {
        OCTET_CHECK(d.dim_value() <= kMaxDim, corrupt, "{}: dimension of size {}", what,
                    d.dim_value());
        dims.emplace_back(d.dim_value());
        elements *= static_cast<double>(d.dim_value());
        continue;
      }
      dims.push_back(open_dim(input, dims.size()));
    }
    OCTET_CHECK(elements < 1e12, corrupt, "{}: has too many elements", what);
    const bool wide = is_wide_unsigned(tensor.elem_type());
    TensorType type(wide ? DType::int64 : dtype_of(tensor.elem_type(), what), dims);
    auto v = std::make_shared<Val>();
    v->name = input.name();
    if (wide) v->narrow = tensor.elem_type();
    v->id = graph_.add_input(sanitize(input.name()), type);
    DType compute = compute_type(type.dtype);
    if (compute != type.dtype)
      v->id = graph_.add_call(sanitize(input.name()) + ".float", "to", {v->id},
                              {{"dtype", to_string(compute)}});
    v->type = graph_.type(v->id);
    values_[input.name()] = v;
  }
}

// The live nodes, each after the nodes it reads from; otherwise in the model's order.
std::vector<const onnx::NodeProto*> Importer::order(const onnx::GraphProto& g) {
  std::unordered_map<std::string, int> producer;
  for (int i = 0; i < g.node_size(); ++i)
    for (const std::string& out : g.node(i).output()) {
      if (out.empty()) continue;
      bool fresh =
          producer.emplace(out, i).second && !values_.count(out) && !initializers_.count(out);
      OCTET_CHECK(fresh, corrupt, "{}: value '{}' is made twice",
                  NodeView(g.node(i), opset_, dir_).label(), one_line(out));
    }
  std::vector<char> live(static_cast<size_t>(g.node_size()), 0);
  std::vector<int> stack;
  auto need = [&](const std::string& name) {
    auto it = producer.find(name);
    if (it == producer.end() || live[static_cast<size_t>(it->second)]) return;
    live[static_cast<size_t>(it->second)] = 1;
    stack.push_back(it->second);
  };
  for (const auto& out : g.output()) {
    ++reads_[out.name()];
    need(out.name());
  }
  while (!stack.empty()) {
    int i = stack.back();
    stack.pop_back();
    for_each_read(g.node(i), need);
  }
  // Kahn's algorithm; among the ready nodes the model's order decides.
  std::vector<int> waiting(static_cast<size_t>(g.node_size()), 0);
  std::vector<std::vector<int>> readers(static_cast<size_t>(g.node_size()));
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  int live_count = 0;
  for (int i = 0; i < g.node_size(); ++i) {
    if (!live[static_cast<size_t>(i)]) continue;
    ++live_count;
    for_each_read(g.node(i), [&](const std::string& in) {
      ++reads_[in];
      auto it = producer.find(in);
      if (it == producer.end()) return;
      ++waiting[static_cast<size_t>(i)];
      readers[static_cast<size_t>(it->second)].push_back(i);
    });
    if (waiting[static_cast<size_t>(i)] == 0) ready.push(i);
  }
  std::vector<const onnx::NodeProto*> sorted;
  while (!ready.empty()) {
    int i = ready.top();
    ready.pop();
    sorted.push_back(&g.node(i));
    waiting[static_cast<size_t>(i)] = -1;
    for (int r : readers[static_cast<size_t>(i)])
      if (--waiting[static_cast<size_t>(r)] == 0) ready.push(r);
  }
  if (static_cast<int>(sorted.size()) < live_count)
    for (int i = 0; i < g.node_size(); ++i)
      OCTET_CHECK(waiting[static_cast<size_t>(i)] <= 0 || !live[static_cast<size_t>(i)], corrupt,
                  "{}: is part of a cycle", NodeView(g.node(i), opset_, dir_).label());
  return sorted;
}

// -- nodes ----------------------------------------------------------------------------------------

OnnxOperator& Importer::operator_named(const std::string& op) {
  const auto [at, fresh] = operator_index_.emplace(op, operators_.size());
  if (fresh) operators_.push_back({op, 0, {}, 0});
  return operators_[at->second];
}

void Importer::visit(const onnx::NodeProto& node) {
  NodeView n(node, opset_, dir_);
  first_new_value_ = graph_.values().size();
  if (++visited_ > kMostVisited)
    n.fail(
        ErrorCode::unsupported,
        "the model has more than {} nodes once loops are unrolled and functions stand where they "
        "are called",
        kMostVisited);
  ++operator_named(op_key(node)).nodes;
  auto reject = [&](const std::string& reason, bool open_size = false) {
    rejected_.push_back({op_key(node), reason, n.name(), open_size});
    for (const std::string& out : node.output())
      if (!out.empty()) values_[out] = nullptr;
  };
  // Asked first: an unknown operator is reported even where it reads from another one.
  auto handler = handlers().find(op_key(node));
  auto function = functions_.find(op_key(node));
  if (handler == handlers().end() && function == functions_.end()) return reject("");
  if (handler == handlers().end() && !function->second)
    return reject("several functions of this name");
  try {
    std::vector<ValPtr> inputs;
    for (const std::string& name : node.input()) {
      inputs.push_back(name.empty() ? nullptr : lookup(name));
      if (name.empty() || inputs.back()) continue;
      for (const std::string& out :
           node.output())  // reads from a node that was rejected: nothing to say about this one
        if (!out.empty()) values_[out] = nullptr;
      ++operator_named(op_key(node)).behind;
      return;
    }
    if (node.output_size() == 0) return;
    const int32_t kept = check_unsigned(n, inputs);
    if (handler == handlers().end())
      inline_function(n, node, *function->second, inputs);
    else if (!fold_sizes(*this, n, inputs))
      handler->second(*this, n);
    if (auto names = n.unread(); !names.empty())
      n.unsupported("attribute {}", fmt::join(names, ", "));
    for (const std::string& name : node.output())
      if (auto made = values_.find(name); kept != 0 && made != values_.end() && made->second)
        made->second->narrow = kept;
    for (size_t i = 0; i < n.output_count(); ++i)
      if (wants_output(n, i) && !values_.count(n.output(i))) n.unsupported("output {}", i);
  } catch (const NodeView::Unsupported& u) {
    reject(u.reason, u.open_size);
  } catch (const Error& e) {
    std::string message = e.what();
    bool named =
        message.rfind(n.name() + " (", 0) == 0 || message.find(n.label()) != std::string::npos;
    if (!named) message = fmt::format("{}: {}", n.label(), message);
    throw Error(e.code(), message + (names_open_size(message) ? shape_cure() : ""));
  } catch (const std::bad_alloc&) {
    n.fail(ErrorCode::corrupt, "needs more memory than there is");
  } catch (const std::length_error&) {
    n.fail(ErrorCode::corrupt, "needs more memory than there is");
  }
}

std::vector<ValPtr> Importer::inline_graph(const onnx::GraphProto& g,
                                           const std::vector<ValPtr>& inputs) {
  // Names of the graph hold until it ends: other graphs, and itself when it is visited again, use
  // them too.
  std::vector<std::string> names;
  const size_t first_new_value = first_new_value_;
  OCTET_CHECK(static_cast<size_t>(g.input_size()) == inputs.size(), corrupt,
              "the graph '{}' inside it has {} inputs; expected {}", one_line(g.name()),
              g.input_size(), inputs.size());
  std::unordered_map<std::string, ValPtr> hidden;
  for (int i = 0; i < g.input_size(); ++i) {
    const std::string& name = g.input(i).name();
    if (auto around = values_.find(name); around != values_.end()) hidden.insert(*around);
    names.push_back(name);
    values_[name] = inputs[static_cast<size_t>(i)];
  }
  for (const onnx::TensorProto& t : g.initializer()) {
    names.push_back(t.name());
    values_[t.name()] = read_constant(t, fmt::format("initializer '{}'", one_line(t.name())));
  }
  for (const onnx::NodeProto* node : order(g)) {
    visit(*node);
    names.insert(names.end(), node->output().begin(), node->output().end());
  }
  std::vector<ValPtr> results;
  for (const onnx::ValueInfoProto& out : g.output()) results.push_back(lookup(out.name()));
  for (const std::string& name : names) values_.erase(name);
  for (const auto& [name, value] : hidden) values_[name] = value;
  first_new_value_ = first_new_value;
  return results;
}

// The function's nodes in the node's place. Inside, only its inputs are known, by its own names.
void Importer::inline_function(const NodeView& n, const onnx::NodeProto& node,
                               const onnx::FunctionProto& function,
                               const std::vector<ValPtr>& inputs) {
  constexpr int kMaxDepth = 64;
  if (function_depth_ >= kMaxDepth)
    n.fail(ErrorCode::corrupt, "functions call one another more than {} deep", kMaxDepth);
  if (node.input_size() > function.input_size() || node.output_size() > function.output_size())
    n.fail(ErrorCode::corrupt, "{} inputs and {} outputs for a function of {} and {}",
           node.input_size(), node.output_size(), function.input_size(), function.output_size());
  onnx::GraphProto body;
  body.set_name(function.name());
  std::set<std::string> omitted;
  std::vector<ValPtr> given;
  for (int i = 0; i < function.input_size(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (at >= inputs.size() || !inputs[at]) {
      omitted.insert(function.input(i));
      continue;
    }
    body.add_input()->set_name(function.input(i));
    given.push_back(inputs[at]);
  }
  for (const std::string& name : function.output()) body.add_output()->set_name(name);
  std::map<std::string, onnx::AttributeProto> attributes = default_attributes(function);
  for (const onnx::AttributeProto& a : node.attribute()) {
    n.ignore({a.name().c_str()});
    attributes[a.name()] = a;
  }
  *body.mutable_node() = function.node();
  for (onnx::NodeProto& inner : *body.mutable_node()) substitute(inner, attributes, omitted);

  int64_t own_opset = opset_;
  for (const auto& set : function.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") own_opset = set.version();
  if (own_opset > kMaxOpset)
    n.unsupported("a function of opset {}, which is newer than {}", own_opset, kMaxOpset);
  auto around = std::move(values_);
  auto constants = std::move(initializers_);
  const int64_t opset = std::exchange(opset_, own_opset);
  values_.clear();
  initializers_.clear();
  ++function_depth_;
  const auto restore = [&] {
    values_ = std::move(around);
    initializers_ = std::move(constants);
    opset_ = opset;
    --function_depth_;
  };
  std::vector<ValPtr> results;
  try {
    results = inline_graph(body, given);
  } catch (...) {
    restore();
    throw;
  }
  restore();
  for (size_t i = 0; i < n.output_count(); ++i) out(n, i, results[i]);
}

// Whether an open size of an input stands in the message.
bool Importer::names_open_size(const std::string& message) const {
  const auto part_of_name = [&](size_t i) {
    return i < message.size() &&
           (std::isalnum(static_cast<unsigned char>(message[i])) || message[i] == '_');
  };
  for (ValueId id : graph_.inputs())
    for (const Dim& d : graph_.type(id).dims) {
      if (d.known()) continue;
      for (size_t at = message.find(d.name()); at != std::string::npos;
           at = message.find(d.name(), at + 1))
        if ((at == 0 || !part_of_name(at - 1)) && !part_of_name(at + d.name().size())) return true;
    }
  return false;
}

// What fixes the open sizes of the inputs, as the end of an error.
std::string Importer::shape_cure() const {
  std::vector<std::string> shapes, names;
  for (ValueId id : graph_.inputs()) {
    const TensorType& type = graph_.type(id);
    if (type.is_static()) continue;
    std::vector<std::string> sizes;
    for (const Dim& d : type.dims) {
      sizes.push_back(to_string(d));
      if (!d.known() && std::find(names.begin(), names.end(), d.name()) == names.end())
        names.push_back(d.name());
    }
    shapes.push_back(fmt::format("--shape {}={}", graph_.value(id).name, fmt::join(sizes, "x")));
  }
  if (shapes.empty()) return "";
  return fmt::format("; open sizes are fixed by {}, with {} for {}", fmt::join(shapes, " "),
                     names.size() == 1 ? "a number" : "numbers", fmt::join(names, ", "));
}

void Importer::report_unsupported() {
  // One line: operators in the order they were met, each with its nodes.
  std::vector<std::string> parts;
  bool open_size = false;
  for (const Rejected& r : rejected_) {
    open_size |= r.open_size;
    std::vector<OnnxOperator::Refused>& refused = operator_named(r.op).refused;
    const std::string reason = one_line(r.reason);
    auto it = std::find_if(refused.begin(), refused.end(),
                           [&](const auto& known) { return known.reason == reason; });
    if (it == refused.end()) it = refused.insert(refused.end(), {reason, {}});
    it->nodes.push_back(one_line(r.node));
  }
  for (const OnnxOperator& o : operators_)
    for (const auto& [reason, nodes] : o.refused) {
      constexpr size_t kShown = 8;
      std::vector<std::string> names;
      for (size_t i = 0; i < std::min(nodes.size(), kShown); ++i)
        names.push_back(fmt::format("\"{}\"", nodes[i]));
      parts.push_back(fmt::format(
          "{} ({} {}{})", reason.empty() ? one_line(o.op) : one_line(o.op) + " with " + reason,
          nodes.size() == 1 ? "node" : "nodes", fmt::join(names, ", "),
          nodes.size() > kShown ? fmt::format(" and {} more", nodes.size() - kShown) : ""));
    }
  const std::string cure =
      "octet supports opset 7-23 inference operators listed in docs/operators.md" +
      (open_size ? shape_cure() : "");
  throw OnnxUnsupported(
      fmt::format(
          "{} not supported: {}; {}",
          parts.size() == 1 ? "1 operator is" : fmt::format("{} operators are", parts.size()),
          fmt::join(parts, ", "), cure),
      operators_, cure);
}

// -- results --------------------------------------------------------------------------------------

// The graph's outputs, under the names the model gives them.
void Importer::finish_outputs() {
  onnx::NodeProto place;  // speaks for the output in messages
  std::vector<ValueId> ids;
  OCTET_CHECK(model_.graph().output_size() > 0, corrupt, "the graph has no output");
  for (const onnx::ValueInfoProto& output : model_.graph().output()) {
    std::string what = fmt::format("output '{}'", one_line(output.name()));
    place.set_name(output.name());
    place.clear_output();
    place.add_output(output.name());
    NodeView n(place, opset_, dir_);
    ValPtr v = lookup(output.name());
    OCTET_CHECK(v, internal, "{} was not made", what);
    std::string name = sanitize(output.name());
    int32_t declared = output.type().tensor_type().elem_type();
    DType dtype = declared == onnx::TensorProto::DOUBLE     ? DType::float64
                  : declared == onnx::TensorProto::FLOAT16  ? DType::float16
                  : declared == onnx::TensorProto::BFLOAT16 ? DType::bfloat16
                                                            : DType::float32;
    OCTET_CHECK(!is_wide_unsigned(declared) || !is_wide_unsigned(v->narrow), unsupported,
                "{}: element type {} is not supported: octet has no results of this type", what,
                onnx_type_name(declared));
    ValueId id = graph::kNone;
    try {
      id = materialize(n, v);
    } catch (const NodeView::Unsupported& u) {
      OCTET_FAIL(unsupported, "{}: {}{}", what, u.reason, u.open_size ? shape_cure() : "");
    }
    if (dtype != DType::float32 && v->type.dtype == DType::float32)
      id = graph_.add_call(name + ".to", "to", {id}, {{"dtype", to_string(dtype)}});
    bool input = graph_.producer(id).kind == graph::NodeKind::input;
    bool taken = std::find(ids.begin(), ids.end(), id) != ids.end();
    if (graph_.value(id).name != name) {
      if (auto other = graph_.find(name); other &&
                                          graph_.producer(*other).kind != graph::NodeKind::input &&
                                          std::find(ids.begin(), ids.end(), *other) == ids.end())
        graph_.rename(*other, free_name(name));
      if (input || taken)
        id = graph_.add_call(name, "identity", {id}, {}, std::nullopt, n.scope());
      else
        take_name(id, name);
    }
    ids.push_back(id);
  }
  graph_.set_outputs(std::move(ids));
}

graph::Graph Importer::run() {
  check_header();
  read_inputs();
  for (const onnx::NodeProto* node : order(model_.graph())) visit(*node);
  if (!rejected_.empty()) report_unsupported();
  finish_outputs();
  std::vector<bool> named(graph_.values().size(), false);
  for (const auto& [name, v] : values_)
    if (v && v->id != graph::kNone && graph_.value(v->id).name == sanitize(name))
      named[static_cast<size_t>(v->id)] = true;
  graph::Graph g = graph::remove_dead(cancel_squeezes(graph_, named));
  graph_ = {};
  g = fuse_dynamic(g);
  if (options_.fuse_patterns) g = fuse_patterns(graph::cancel_permutes(join_code_forms(g)));
  if (options_.fold_batch_norm) g = graph::fold_batch_norm(g);
  g.check();
  return g;
}

const Handlers& handlers() {
  static const Handlers all = [] {
    Handlers h;
    add_elementwise(h);
    add_reductions(h);
    add_layers(h);
    add_recurrent(h);
    add_integer(h);
    add_control_flow(h);
    add_sequences(h);
    add_pools(h);
    add_normalizations(h);
    add_movement(h);
    add_indexing(h);
    add_places(h);
    add_regions(h);
    add_einsum(h);
    add_fused(h);
    add_attention(h);
    add_resize(h);
    add_sizes(h);
    add_constants(h);
    add_spectra(h);
    add_quantization(h);
    return h;
  }();
  return all;
}

}  // namespace octet::io::onnx_impl
