// The importer: which nodes are live and in what order, the values between them, and the graph that results.
#include <algorithm>
#include <new>
#include <queue>

#include "octet/graph/fold_batch_norm.h"
#include "octet/graph/merge_qdq.h"
#include "octet/io/onnx_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxOpset = 21;            // what has been read of the standard
constexpr int64_t kMaxDim = int64_t{1} << 31;
constexpr int64_t kMaxFolded = 1 << 24;      // elements a folded constant may grow to beyond its operands

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

}  // namespace

ValPtr constant_val(const std::string& name, Tensor value) {
  auto v = std::make_shared<Val>();
  v->name = name;
  v->type = value.type();
  v->constant = std::move(value);
  return v;
}

ValPtr dequantized_val(const std::string& name, const std::string& codes_name, const std::string& scope, Tensor codes) {
  auto v = std::make_shared<Val>();
  v->name = name;
  v->codes_name = codes_name;
  v->scope = scope;
  v->type = TensorType(DType::float32, codes.shape());
  v->constant = std::move(codes);
  v->dequantized = true;
  return v;
}

Importer::Importer(onnx::ModelProto& model, const std::filesystem::path& dir, const OnnxImportOptions& options)
    : model_(model), dir_(dir), options_(options) {}

// -- what is there -------------------------------------------------------------------------------------

void Importer::check_header() {
  OCTET_CHECK(model_.has_graph() && model_.graph().node_size() + model_.graph().output_size() > 0, corrupt,
              "is not an ONNX model: it has no graph");
  for (const auto& set : model_.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") opset_ = std::max(opset_, set.version());
  if (model_.opset_import_size() == 0) opset_ = 1;  // IR version 1 and 2
  OCTET_CHECK(opset_ >= 1 || model_.opset_import_size() > 0, corrupt, "is not an ONNX model: it names no operator set");
  OCTET_CHECK(opset_ <= kMaxOpset, unsupported, "opset {} is newer than octet knows ({}); export the model with opset 17",
              opset_, kMaxOpset);
  graph_.name = sanitize(model_.graph().name().empty() ? "graph" : model_.graph().name());
  if (!model_.producer_name().empty())
    graph_.metadata["producer"] = one_line(model_.producer_name() + " " + model_.producer_version());
}

void Importer::read_inputs() {
  onnx::GraphProto& g = *model_.mutable_graph();
  for (onnx::TensorProto& t : *g.mutable_initializer()) {
    OCTET_CHECK(!t.name().empty(), corrupt, "an initializer has no name");
    initializers_[t.name()] = &t;
  }
  for (const onnx::ValueInfoProto& input : g.input()) {
    if (initializers_.count(input.name())) continue;  // IR versions below 4 list the weights as inputs
    std::string what = fmt::format("input '{}'", one_line(input.name()));
    OCTET_CHECK(!input.name().empty(), corrupt, "an input of the graph has no name");
    OCTET_CHECK(!values_.count(input.name()), corrupt, "{} is listed twice", what);
    OCTET_CHECK(input.type().has_tensor_type(), unsupported, "{}: expected a tensor", what);
    const auto& tensor = input.type().tensor_type();
    OCTET_CHECK(tensor.has_shape(), unsupported, "{}: has no shape; octet needs to know at least its rank", what);
    std::vector<Dim> dims;
    double elements = 1;
    for (const auto& d : tensor.shape().dim()) {
      if (d.has_dim_value() && d.dim_value() >= 0) {
        OCTET_CHECK(d.dim_value() <= kMaxDim, corrupt, "{}: dimension of size {}", what, d.dim_value());
        dims.emplace_back(d.dim_value());
        elements *= static_cast<double>(d.dim_value());
        continue;
      }
      std::string fallback = fmt::format("{}_{}", input.name(), dims.size());
      std::string given = d.dim_param().empty() ? fallback : d.dim_param();
      auto bound = options_.dims.find(given);
      if (bound == options_.dims.end()) bound = options_.dims.find(dim_name(given));
      if (bound == options_.dims.end()) dims.emplace_back(dim_name(given));
      else dims.emplace_back(bound->second);
    }
    OCTET_CHECK(elements < 1e12, corrupt, "{}: has too many elements", what);
    TensorType type(dtype_of(tensor.elem_type(), what), dims);
    auto v = std::make_shared<Val>();
    v->name = input.name();
    v->id = graph_.add_input(sanitize(input.name()), type);
    DType compute = compute_type(type.dtype);
    if (compute != type.dtype)
      v->id = graph_.add_call(sanitize(input.name()) + ".float", "to", {v->id}, {{"dtype", to_string(compute)}});
    v->type = graph_.type(v->id);
    values_[input.name()] = v;
  }
}

// The live nodes, each after the nodes it reads from; otherwise in the model's order.
std::vector<const onnx::NodeProto*> Importer::order() {
  const onnx::GraphProto& g = model_.graph();
  std::unordered_map<std::string, int> producer;
  for (int i = 0; i < g.node_size(); ++i)
    for (const std::string& out : g.node(i).output()) {
      if (out.empty()) continue;
      bool fresh = producer.emplace(out, i).second && !values_.count(out) && !initializers_.count(out);
      OCTET_CHECK(fresh, corrupt, "{}: value '{}' is made twice", NodeView(g.node(i), opset_, dir_).label(), one_line(out));
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
    for (const std::string& in : g.node(i).input()) need(in);
  }
  // Kahn's algorithm; among the ready nodes the model's order decides.
  std::vector<int> waiting(static_cast<size_t>(g.node_size()), 0);
  std::vector<std::vector<int>> readers(static_cast<size_t>(g.node_size()));
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  int live_count = 0;
  for (int i = 0; i < g.node_size(); ++i) {
    if (!live[static_cast<size_t>(i)]) continue;
    ++live_count;
    for (const std::string& in : g.node(i).input()) {
      ++reads_[in];
      auto it = producer.find(in);
      if (it == producer.end()) continue;
      ++waiting[static_cast<size_t>(i)];
      readers[static_cast<size_t>(it->second)].push_back(i);
    }
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

// -- values ----------------------------------------------------------------------------------------------

ValPtr Importer::lookup(const std::string& name) {
  if (auto it = values_.find(name); it != values_.end()) return it->second;
  auto it = initializers_.find(name);
  OCTET_CHECK(it != initializers_.end(), corrupt, "'{}' is not made by any node, input or initializer", one_line(name));
  Tensor data = read_tensor(*it->second, fmt::format("initializer '{}'", one_line(name)), dir_);
  // The model's copy is not needed any more: large models would be in memory twice.
  it->second->clear_raw_data();
  it->second->clear_float_data();
  return values_[name] = constant_val(name, to_compute_type(data));
}

ValPtr Importer::in(const NodeView& n, size_t i) {
  if (!n.has_input(i)) n.fail(ErrorCode::corrupt, "input {} is missing", i);
  return lookup(n.proto().input(static_cast<int>(i)));
}

ValPtr Importer::optional_in(const NodeView& n, size_t i) { return n.has_input(i) ? in(n, i) : nullptr; }

Tensor Importer::known(const NodeView& n, size_t i, const char* what) {
  ValPtr v = optional_in(n, i);
  if (!v) return {};
  if (v->dequantized) return v->constant.dequantize();
  if (!v->constant.defined()) n.unsupported("{} ('{}') must be a constant", what, one_line(v->name));
  return v->constant;
}

std::vector<int64_t> Importer::known_ints(const NodeView& n, size_t i, const char* what) {
  Tensor t = known(n, i, what);
  if (!t.defined()) return {};
  if (is_floating(t.dtype()) || t.is_quantized() || t.dim() > 1)
    n.fail(ErrorCode::corrupt, "{}: expected a list of integers, got {}", what, to_string(t.type()));
  return t.to(DType::int64).reshape({-1}).to_vector<int64_t>();
}

std::vector<Dim> Importer::known_sizes(const NodeView& n, size_t i, const char* what) {
  if (ValPtr v = optional_in(n, i); v && v->sizes) return *v->sizes;
  std::vector<int64_t> ints = known_ints(n, i, what);
  return {ints.begin(), ints.end()};  // negative entries stand for themselves; Dim keeps the number
}

std::optional<std::vector<int64_t>> Importer::attr_or_input_ints(const NodeView& n, const char* attr, size_t i) {
  if (n.has(attr)) return n.get_ints(attr);
  if (!n.has_input(i)) return std::nullopt;
  return known_ints(n, i, attr);
}

ValPtr Importer::scalar(const NodeView& n, double value, DType dtype) {
  return constant_val(n.output(0) + ".scalar", Tensor::scalar(value, dtype));
}

ValPtr Importer::cast(const NodeView& n, ValPtr x, DType dtype) {
  return x->type.dtype == dtype ? x : call(n, "to", {x}, {{"dtype", to_string(dtype)}});
}

ValPtr Importer::transposed(const ValPtr& weight) {
  ValPtr& made = transposed_[weight.get()];
  if (made) return made;
  kept_.push_back(weight);
  made = std::make_shared<Val>(*weight);
  made->id = graph::kNone;
  // Row-major, as every constant: packers and writers expect no less.
  made->constant = weight->constant.transpose(0, 1).contiguous();
  std::swap(made->type.dims[0], made->type.dims[1]);
  return made;
}

std::string Importer::free_name(const std::string& name) const {
  std::string free = name;
  for (int i = 1; graph_.find(free); ++i) free = fmt::format("{}_{}", name, i);
  return free;
}

void Importer::take_name(ValueId id, const std::string& name) {
  if (graph_.value(id).name != name) graph_.rename(id, free_name(name));
}

ValueId Importer::materialize(const NodeView& n, const ValPtr& v) {
  if (v->id != graph::kNone) return v->id;
  if (v->sizes) {
    for (const Dim& d : *v->sizes)
      if (!d.known() && !d.name().empty())
        n.unsupported("'{}' depends on dimension '{}', which is known only at run time; import with a fixed size",
                      one_line(v->name), d.name());
  }
  std::string name = sanitize(v->name.empty() ? n.output(0) + ".constant" : v->name);
  if (v->dequantized) {
    ValueId codes = graph_.add_constant(sanitize(v->codes_name), v->constant);
    v->id = graph_.add_call(name, "dequantize", {codes}, {}, std::nullopt, v->scope);
  } else {
    OCTET_CHECK(v->constant.defined(), internal, "'{}' has no value", one_line(v->name));
    v->id = graph_.add_constant(name, v->constant);
  }
  return v->id;
}

// -- calls -----------------------------------------------------------------------------------------------

std::vector<ValPtr> Importer::calls(const NodeView& n, const std::string& op_name, const std::vector<ValPtr>& inputs,
                                    const Attrs& attrs, const std::optional<ops::QType>& want) {
  const ops::Op& op = ops::get(op_name);
  bool fold = !inputs.empty();
  int64_t operand_elements = 0;
  std::vector<std::optional<TensorType>> types;
  for (const ValPtr& v : inputs) {
    types.push_back(v ? std::optional(v->type) : std::nullopt);
    fold &= !v || (v->is_constant() && !v->sizes);
    if (v && v->constant.defined()) operand_elements += v->constant.numel();
  }
  while (!types.empty() && !types.back()) types.pop_back();
  if (fold) {
    double results = 0;
    for (const TensorType& t : op.infer(types, op.complete(attrs), want, n.name())) {
      double elements = 1;
      for (const Dim& d : t.dims) elements *= static_cast<double>(d.size());
      results += elements;
    }
    fold = results <= static_cast<double>(std::max(kMaxFolded, 4 * operand_elements));
  }
  std::vector<ValPtr> made;
  if (fold) {
    std::vector<Tensor> operands;
    for (const ValPtr& v : inputs) operands.push_back(v ? v->constant : Tensor());
    for (Tensor& t : ops::call_all(op_name, std::move(operands), attrs, want))
      made.push_back(constant_val("", t.is_contiguous() ? t : t.contiguous()));
    return made;
  }
  std::vector<ValueId> ids;
  for (const ValPtr& v : inputs) ids.push_back(v ? materialize(n, v) : graph::kNone);
  std::string name = sanitize(n.output(0)) + "." + op_name;
  for (ValueId id : graph_.add_calls(name, op_name, std::move(ids), attrs, want, one_line(n.name()))) {
    auto v = std::make_shared<Val>();
    v->id = id;
    v->name = graph_.value(id).name;
    v->type = graph_.type(id);
    made.push_back(v);
  }
  return made;
}

ValPtr Importer::call(const NodeView& n, const std::string& op, const std::vector<ValPtr>& inputs, const Attrs& attrs,
                      const std::optional<ops::QType>& want) {
  std::vector<ValPtr> made = calls(n, op, inputs, attrs, want);
  OCTET_CHECK(made.size() == 1, internal, "{} has {} results", op, made.size());
  return made[0];
}

bool Importer::wants_output(const NodeView& n, size_t i) const {
  return i < n.output_count() && !n.output(i).empty() && reads_.count(n.output(i));
}

void Importer::out(const NodeView& n, size_t i, ValPtr v) {
  if (i >= n.output_count() || n.output(i).empty()) return;
  if (v->id == graph::kNone) {
    if (v->name.empty()) v->name = n.output(i);
  } else if (static_cast<size_t>(v->id) >= first_new_value_ && graph_.producer(v->id).kind == graph::NodeKind::call &&
             graph_.producer(v->id).scope == one_line(n.name())) {
    take_name(v->id, sanitize(n.output(i)));
    v->name = n.output(i);
  }
  values_[n.output(i)] = std::move(v);
}

void Importer::visit(const onnx::NodeProto& node) {
  NodeView n(node, opset_, dir_);
  first_new_value_ = graph_.values().size();
  auto reject = [&](const std::string& reason) {
    rejected_.push_back({op_key(node), reason, n.name()});
    for (const std::string& out : node.output())
      if (!out.empty()) values_[out] = nullptr;
  };
  try {
    std::vector<ValPtr> inputs;
    for (const std::string& name : node.input()) {
      inputs.push_back(name.empty() ? nullptr : lookup(name));
      if (name.empty() || inputs.back()) continue;
      for (const std::string& out : node.output())  // reads from a node that was rejected: nothing to say about this one
        if (!out.empty()) values_[out] = nullptr;
      return;
    }
    auto handler = handlers().find(op_key(node));
    if (handler == handlers().end()) return reject("");
    if (node.output_size() == 0) return;
    if (!fold_sizes(*this, n, inputs)) handler->second(*this, n);
    if (auto names = n.unread(); !names.empty()) n.unsupported("attribute {}", fmt::join(names, ", "));
    for (size_t i = 0; i < n.output_count(); ++i)
      if (wants_output(n, i) && !values_.count(n.output(i))) n.unsupported("output {}", i);
  } catch (const NodeView::Unsupported& u) {
    reject(u.reason);
  } catch (const Error& e) {
    std::string message = e.what();
    bool named = message.find(n.name()) != std::string::npos && !n.name().empty();
    throw Error(e.code(), named ? message : fmt::format("{}: {}", n.label(), message));
  } catch (const std::bad_alloc&) {
    n.fail(ErrorCode::corrupt, "needs more memory than there is");
  } catch (const std::length_error&) {
    n.fail(ErrorCode::corrupt, "needs more memory than there is");
  }
}

void Importer::report_unsupported() {
  // One line: operators in the order they were met, each with its nodes.
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;
  for (const Rejected& r : rejected_) {
    std::string key = one_line(r.reason.empty() ? r.op : fmt::format("{} with {}", r.op, r.reason));
    auto it = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == key; });
    if (it == groups.end()) it = groups.insert(groups.end(), {key, {}});
    it->second.push_back(fmt::format("\"{}\"", r.node));
  }
  std::vector<std::string> parts;
  for (auto& [op, nodes] : groups) {
    size_t all = nodes.size();
    if (all > 8) nodes.resize(8);
    parts.push_back(fmt::format("{} ({} {}{})", op, all == 1 ? "node" : "nodes", fmt::join(nodes, ", "),
                                all > 8 ? fmt::format(" and {} more", all - 8) : ""));
  }
  OCTET_FAIL(unsupported, "{} not supported: {}; octet supports opset 7-17 inference operators listed in docs/operators.md",
             parts.size() == 1 ? "1 operator is" : fmt::format("{} operators are", parts.size()), fmt::join(parts, ", "));
}

// -- results ---------------------------------------------------------------------------------------------

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
    ValueId id = graph::kNone;
    try {
      id = materialize(n, v);
    } catch (const NodeView::Unsupported& u) {
      OCTET_FAIL(unsupported, "{}: {}", what, u.reason);
    }
    if (dtype != DType::float32 && v->type.dtype == DType::float32)
      id = graph_.add_call(name + ".to", "to", {id}, {{"dtype", to_string(dtype)}});
    bool input = graph_.producer(id).kind == graph::NodeKind::input;
    bool taken = std::find(ids.begin(), ids.end(), id) != ids.end();
    if (graph_.value(id).name != name) {
      if (auto other = graph_.find(name); other && graph_.producer(*other).kind != graph::NodeKind::input &&
                                          std::find(ids.begin(), ids.end(), *other) == ids.end())
        graph_.rename(*other, free_name(name));
      if (input || taken) id = graph_.add_call(name, "identity", {id}, {}, std::nullopt, n.name());
      else take_name(id, name);
    }
    ids.push_back(id);
  }
  graph_.set_outputs(std::move(ids));
}

graph::Graph Importer::run() {
  check_header();
  read_inputs();
  for (const onnx::NodeProto* node : order()) visit(*node);
  if (!rejected_.empty()) report_unsupported();
  finish_outputs();
  graph::Graph g = graph::remove_dead(graph_);
  graph_ = {};
  if (options_.fuse_patterns) g = fuse_patterns(g);
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
    add_pools(h);
    add_normalizations(h);
    add_movement(h);
    add_indexing(h);
    add_resize(h);
    add_sizes(h);
    add_quantization(h);
    return h;
  }();
  return all;
}

}  // namespace octet::io::onnx_impl
