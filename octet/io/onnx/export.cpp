// The exporter: values, quantize/dequantize pairs and the model around them.
#include "octet/io/onnx/export.h"

#include "octet/graph/passes/explicit_weights.h"
#include "octet/graph/passes/merge_qdq.h"

#include <onnx/checker.h>

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/text.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"
#include "octet/tensor/affine.h"

namespace octet::io::onnx_impl {

using graph::kNone;
using graph::Node;
using graph::NodeKind;

namespace {

// Numbers of 4 bits, the first of two in the low half of a byte.
std::string packed_nibbles(const Tensor& codes) {
  std::string bytes(static_cast<size_t>(codes.numel() + 1) / 2, '\0');
  const auto* code = static_cast<const uint8_t*>(codes.raw_data());
  for (int64_t i = 0; i < codes.numel(); ++i)
    bytes[static_cast<size_t>(i / 2)] |= static_cast<char>((code[i] & 15) << (i % 2 * 4));
  return bytes;
}

// `four`: 8-bit integers as ones of 4 bits, as codes of these are always.
void write_tensor(onnx::TensorProto& to, const std::string& name, const Tensor& t,
                  bool four = false) {
  four |= is_packed(t.dtype());
  Tensor data = is_packed(t.dtype()) ? t.int_repr().contiguous() : in_file_order(t);
  to.set_name(name);
  to.set_data_type(!four ? onnx_type_of(t.dtype()) : data.dtype() == DType::uint8 ? kUint4 : kInt4);
  for (int64_t d : data.shape()) to.add_dims(d);
  if (four)
    to.set_raw_data(packed_nibbles(data));
  else
    to.set_raw_data(data.raw_data(), static_cast<size_t>(data.nbytes()));
}

void write_type(onnx::ValueInfoProto& info, const std::string& name, const TensorType& type) {
  info.set_name(name);
  auto* tensor = info.mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(onnx_type_of(type.dtype));
  auto* shape = tensor->mutable_shape();
  for (const Dim& d : type.dims) {
    if (d.known())
      shape->add_dim()->set_dim_value(d.size());
    else
      shape->add_dim()->set_dim_param(d.name());
  }
}

Tensor scale_tensor(const Quantizer& q) {
  std::vector<float> scales(q.scales().begin(), q.scales().end());
  return Tensor::from(scales,
                      q.is_per_channel() ? Shape{static_cast<int64_t>(scales.size())} : Shape{});
}

Tensor zero_point_tensor(const Quantizer& q, DType code) {
  const auto& zeros = q.zero_points();
  Tensor t =
      Tensor::from(zeros, q.is_per_channel() ? Shape{static_cast<int64_t>(zeros.size())} : Shape{});
  return t.to(code);
}

void set_attr(onnx::NodeProto& n, const std::string& name, const OnnxAttr& value) {
  onnx::AttributeProto& a = *n.add_attribute();
  a.set_name(name);
  if (auto* i = std::get_if<int64_t>(&value)) {
    a.set_type(onnx::AttributeProto::INT);
    a.set_i(*i);
  } else if (auto* f = std::get_if<double>(&value)) {
    a.set_type(onnx::AttributeProto::FLOAT);
    a.set_f(static_cast<float>(*f));
  } else if (auto* s = std::get_if<std::string>(&value)) {
    a.set_type(onnx::AttributeProto::STRING);
    a.set_s(*s);
  } else if (auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    a.set_type(onnx::AttributeProto::STRINGS);
    for (const std::string& s : *texts) a.add_strings(s);
  } else {
    a.set_type(onnx::AttributeProto::INTS);
    for (int64_t v : std::get<std::vector<int64_t>>(value)) a.add_ints(v);
  }
}

}  // namespace

bool CallView::on_codes() const {
  const TensorType &x = type(0), &y = result();
  const bool one_each = x.is_quantized() && y.is_quantized() && !x.quantizer->is_per_channel() &&
                        !y.quantizer->is_per_channel();
  return one_each && x.dtype == y.dtype && is_8_bit(x.dtype);
}

Exporter::Exporter(const graph::Graph& graph, const OnnxExportOptions& options, int64_t opset)
    : graph_(graph),
      options_(options),
      opset_(opset),
      model_(std::make_unique<onnx::ModelProto>()),
      out_(model_->mutable_graph()) {
  for (const graph::Value& v : graph.values()) names_.insert(v.name);
  for (size_t id = 0; id < graph.values().size(); ++id)
    plain_names_[static_cast<graph::ValueId>(id)] = graph.values()[id].name;
}

Exporter::~Exporter() = default;

// -- pieces ---------------------------------------------------------------------------------------

std::string Exporter::unique(const std::string& name) {
  std::string free = name;
  for (int i = 1; !names_.insert(free).second; ++i) free = fmt::format("{}_{}", name, i);
  return free;
}

onnx::NodeProto& Exporter::append(const std::string& op, const std::string& name, const Names& in,
                                  const Names& out) {
  onnx::NodeProto& n = *out_->add_node();
  n.set_op_type(op);
  std::string free = name;
  for (int i = 1; !node_names_.insert(free).second; ++i) free = fmt::format("{}_{}", name, i);
  n.set_name(free);
  if (free != name) n.set_doc_string(kScopeMark + name);
  size_t count = in.size();
  while (count > 0 && in[count - 1].empty()) --count;  // omitted at the end
  for (size_t i = 0; i < count; ++i) n.add_input(in[i]);
  for (const std::string& o : out) n.add_output(o);
  return n;
}

std::string Exporter::add(const CallView& c, const std::string& op, Names in,
                          const std::string& out, const OnnxAttrs& attrs,
                          const std::string& suffix) {
  const std::string& scope =
      c.node.scope.empty() ? graph_.value(c.node.outputs[0]).name : c.node.scope;
  onnx::NodeProto& n = append(op, suffix.empty() ? scope : scope + "." + suffix, in, {out});
  if (c.node.scope.empty()) n.set_doc_string(kScopeMark);
  if (out == c.out.at(0))
    for (size_t i = 1; i < c.out.size(); ++i) n.add_output(c.out[i]);
  for (const auto& [name, value] : attrs) set_attr(n, name, value);
  return out;
}

void Exporter::add_many(const CallView& c, const std::string& op, const Names& in, const Names& out,
                        const OnnxAttrs& attrs) {
  onnx::NodeProto& n = append(
      op, c.node.scope.empty() ? graph_.value(c.node.outputs[0]).name : c.node.scope, in, out);
  if (c.node.scope.empty()) n.set_doc_string(kScopeMark);
  for (const auto& [name, value] : attrs) set_attr(n, name, value);
}

void Exporter::add_microsoft(const CallView& c, const std::string& op, const Names& in,
                             const Names& out, const OnnxAttrs& attrs) {
  add_many(c, op, in, out, attrs);
  onnx::NodeProto& n = *out_->mutable_node(out_->node_size() - 1);
  n.set_domain("com.microsoft");
  for (const auto& opset : model_->opset_import())
    if (opset.domain() == n.domain()) return;
  auto* opset = model_->add_opset_import();
  opset->set_domain(n.domain());
  opset->set_version(1);
}

std::string Exporter::step(const CallView& c, const std::string& op, Names in,
                           const OnnxAttrs& attrs) {
  return add(c, op, std::move(in), fresh(c, op), attrs, op);
}

std::string Exporter::fresh(const CallView& c, const std::string& what) {
  return unique(graph_.value(c.node.outputs[0]).name + "." + what);
}

std::string Exporter::initializer(const std::string& hint, const Tensor& value) {
  std::string name = unique(hint);
  write_tensor(*out_->add_initializer(), name, value);
  return name;
}

std::string Exporter::constant_as(const CallView& c, size_t i, const Tensor& value) {
  const graph::ValueId id = c.node.inputs[i];
  const std::string& name = plain_names_.at(id);
  if (graph_.users(id).size() != 1 || is_constant_output(name)) return initializer(name, value);
  write_tensor(*out_->add_initializer(), name, value);
  return name;
}

std::string Exporter::ints(const CallView& c, const std::string& what,
                           const std::vector<int64_t>& values) {
  return initializer(graph_.value(c.node.outputs[0]).name + "." + what,
                     Tensor::from(values, {static_cast<int64_t>(values.size())}));
}

std::string Exporter::given(const CallView& c, const std::string& what, const char* attr) {
  if (const auto i = c.attrs().operand(attr)) {
    const std::string& name = c.in.at(*i);
    const TensorType& t = c.type(*i);
    return t.dim() == 1 ? name : step(c, "Unsqueeze", {name, ints(c, "axes", {0})});
  }
  if (const auto* one = std::get_if<int64_t>(&c.attrs().get(attr))) return ints(c, what, {*one});
  return ints(c, what, c.attrs().get_ints(attr));
}

std::string Exporter::scalar(const CallView&, float value) {
  std::string& name = made_[fmt::format("scalar {}", value)];
  if (name.empty())
    name = initializer(sanitize(fmt::format("scalar_{}", value)), Tensor::scalar(value));
  return name;
}

void Exporter::qparams(onnx::NodeProto& n, const std::string& name, const TensorType& type) {
  n.add_input(initializer(name + ".scale", scale_tensor(*type.quantizer)));
  std::string zero = unique(name + ".zero_point");
  write_tensor(*out_->add_initializer(), zero,
               zero_point_tensor(*type.quantizer, code_dtype(type.dtype)), is_packed(type.dtype));
  n.add_input(zero);
  if (is_packed(type.dtype)) need(21, "a weight of 4 bits");
  if (is_16_bit(type.dtype)) need(21, "codes of 16 bits");
  if (type.quantizer->is_per_channel()) set_attr(n, "axis", type.quantizer->axis());
}

// Codes as an initializer called `name`, and the DequantizeLinear that reads it.
std::string Exporter::dequantized_constant(const std::string& name, const Tensor& codes,
                                           const std::string& scope) {
  write_tensor(*out_->add_initializer(), name, codes);
  std::string out = unique(name + ".dequantized");
  qparams(append("DequantizeLinear", scope.empty() ? name + ".dequantize" : scope, {name}, {out}),
          name, codes.type());
  return out;
}

// The float value of any value: itself, or its DequantizeLinear (one for all consumers, as ONNX
// Runtime's tools do).
std::string Exporter::float_name(graph::ValueId id) {
  const TensorType& type = graph_.type(id);
  const std::string& name = plain_names_.at(id);
  if (!type.is_quantized()) return name;
  std::string& made = float_names_[id];
  if (!made.empty()) return made;
  if (graph_.is_constant(id)) return made = dequantized_constant(name, graph_.constant(id), "");
  std::string out = unique(name + ".dequantized");
  qparams(append("DequantizeLinear", name + ".dequantize", {name}, {out}), name, type);
  return made = out;
}

namespace {

bool is_layer(const Node& node) {
  for (const char* op : {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
                         "conv_transpose2d", "conv_transpose3d"})
    if (node.op == op) return true;
  return false;
}

bool is_recurrent(const std::string& op) { return op == "lstm" || op == "gru" || op == "rnn"; }

// Which slice of the weight's scales output channel i has: those of a transposed convolution repeat
// in every group.
int64_t weight_channel(const Node& node, const TensorType& w, int64_t i) {
  return ops::get(node.op).traits().transposed && w.quantizer->axis() == 1 ? i % w.dims[1].size()
                                                                           : i;
}

}  // namespace

// A float bias of a quantized layer: int32 codes of scale s_x * s_w, what the integer kernels add.
std::string Exporter::bias_name(const Node& node) {
  const TensorType &x = graph_.type(node.inputs[0]), &w = graph_.type(node.inputs[1]);
  graph::ValueId id = node.inputs[2];
  std::vector<float> bias = graph_.constant(id).to_vector<float>();
  std::vector<double> scales;
  Tensor codes = Tensor::empty({static_cast<int64_t>(bias.size())}, DType::int32);
  auto sx = static_cast<float>(x.quantizer->scale());
  for (size_t i = 0; i < bias.size(); ++i) {
    auto sw =
        static_cast<float>(w.quantizer->scale(weight_channel(node, w, static_cast<int64_t>(i))));
    const int64_t code = affine::quantize_bias(bias[i], sx, sw);
    if (code != static_cast<int32_t>(code)) return plain_names_.at(id);  // it stays float
    codes.data<int32_t>()[i] = static_cast<int32_t>(code);
    scales.push_back(sx * sw);
  }
  for (double s : scales)
    if (!(static_cast<float>(s) > 0))
      return plain_names_.at(id);  // the product vanishes in float32: the bias stays float
  bool per_channel = w.quantizer->is_per_channel();
  QuantizerPtr q =
      per_channel
          ? Quantizer::per_channel(scales, std::vector<int64_t>(scales.size(), 0), 0, DType::qint32)
          : Quantizer::per_tensor(scales.at(0), 0, DType::qint32);
  Tensor quantized = make_quantized(codes, q);
  std::string& made = made_[fmt::format("bias {} {}", id, to_string(*q, false))];
  if (!made.empty()) return made;
  // The codes take the bias's name unless its float value, or other codes, have it.
  bool first = !is_constant_output(plain_names_.at(id));
  for (const onnx::TensorProto& t : out_->initializer()) first &= t.name() != plain_names_.at(id);
  int float_uses = 0;
  for (graph::NodeId user : graph_.users(id)) {
    const Node& u = graph_.node(user);
    bool codes_do =
        u.inputs.size() > 2 && u.inputs[2] == id && graph_.type(u.inputs[0]).is_quantized();
    float_uses += !codes_do;
  }
  std::string name =
      first && float_uses == 0 ? plain_names_.at(id) : unique(plain_names_.at(id) + ".codes");
  return made = dequantized_constant(name, quantized, "");
}

std::string Exporter::operand(const Node& node, size_t i) {
  graph::ValueId id = node.inputs[i];
  if (id == kNone) return "";
  if (options_.target == OnnxTarget::tensorrt && graph_.is_constant(id) &&
      graph_.type(id).dtype == DType::qint32) {  // a bias of codes: as numbers
    std::string& made = float_names_[id];
    if (made.empty())
      made = initializer(plain_names_.at(id) + ".float", graph_.constant(id).dequantize());
    return made;
  }
  bool layer = is_layer(node);
  bool quantized = graph_.type(node.inputs[0]).is_quantized() && node.inputs.size() > 1 &&
                   node.inputs[1] != kNone && graph_.type(node.inputs[1]).is_quantized();
  // (ONNX Runtime has no integer kernels of 16 bits, whose bias would have to be codes.)
  if (layer && i == 2 && quantized && for_onnx_runtime() && graph_.is_constant(id) &&
      graph_.type(id).dtype == DType::float32 && is_8_bit(graph_.type(node.inputs[0]).dtype) &&
      !graph_.type(node.inputs[0]).quantizer->is_per_channel())
    return bias_name(node);
  return float_name(id);
}

std::string Exporter::transposed_weight(const CallView& c, size_t i) {
  graph::ValueId id = c.node.inputs[i];
  std::string& made = made_[fmt::format("transposed {}", id)];
  if (!made.empty()) return made;
  // TensorRT wants the scales of weights along axis 0.
  const bool stays = !for_onnx_runtime() && graph_.type(id).is_quantized() &&
                     graph_.type(id).quantizer->is_per_channel();
  if (!graph_.is_constant(id) || stays) {
    std::vector<int64_t> perm{1, 0};
    return made = step(c, "Transpose", {float_name(id)}, {{"perm", perm}});
  }
  Tensor t = graph_.constant(id).transpose(0, 1).contiguous();
  // Under its own name: the other orientation is rarely needed too, and then import finds the name
  // again.
  const auto& users = graph_.users(id);
  const bool only_use = std::all_of(users.begin(), users.end(), [&](graph::NodeId user) {
    const Node& u = graph_.node(user);
    return u.op == "linear" && u.inputs[1] == id && u.inputs[0] != id &&
           graph_.type(u.inputs[0]).dim() != 2;
  });
  std::string name = only_use && !is_constant_output(plain_names_.at(id))
                         ? plain_names_.at(id)
                         : unique(plain_names_.at(id) + ".transposed");
  if (t.is_quantized()) return made = dequantized_constant(name, t, "");
  write_tensor(*out_->add_initializer(), name, t);
  return made = name;
}

void Exporter::need(int64_t opset, const std::string& why) {
  if (opset > needed_.version) needed_ = {opset, {}};
  auto& reasons = needed_.reasons;
  if (opset == needed_.version && std::find(reasons.begin(), reasons.end(), why) == reasons.end())
    reasons.push_back(why);
}

std::string Exporter::through_codes(const CallView& c, const std::string& x, const TensorType& type,
                                    const TensorType* read) {
  const std::string codes = fresh(c, "codes"), y = unique(codes + ".dequantized");
  qparams(append("QuantizeLinear", codes + ".quantize", {x}, {codes}), codes, type);
  qparams(append("DequantizeLinear", codes + ".dequantize", {codes}, {y}), codes,
          read ? *read : type);
  return y;
}

std::string Exporter::exact_codes(const std::string& name, const Tensor& number, DType dtype,
                                  const std::string& mark) {
  const double value = number.item();
  const int64_t zero = dtype == DType::quint8 && value < 0 ? 1 : 0;
  const int64_t code = value == 0 ? zero : value < 0 ? zero - 1 : zero + 1;
  const std::string codes = unique(name + ".codes");
  write_tensor(*out_->add_initializer(), codes,
               Tensor::full(number.shape(), static_cast<double>(code), code_dtype(dtype)));
  onnx::NodeProto& n = append("DequantizeLinear", name + ".dequantize", {codes}, {name});
  n.set_doc_string(mark);
  qparams(n, codes,
          TensorType(dtype, number.type().dims,
                     Quantizer::per_tensor(value == 0 ? 1 : std::abs(value), zero, dtype)));
  return name;
}

Names Exporter::with_exact_codes(const CallView& c) {
  return with_exact_codes(c, [](float value) { return value; }).value_or(c.in);
}

std::optional<Names> Exporter::with_exact_codes(const CallView& c,
                                                const std::function<float(float)>& instead) {
  if (!for_onnx_runtime() || !c.on_codes() || c.in.size() < 2) return std::nullopt;
  const graph::ValueId id = c.node.inputs[1];
  if (id == kNone || !graph_.is_constant(id)) return std::nullopt;
  const Tensor& given = graph_.constant(id);
  if (given.dtype() != DType::float32 || given.numel() != 1 || given.dim() > 1) return std::nullopt;
  const auto number = static_cast<float>(given.item()), value = instead(number);
  if (!std::isfinite(value)) return std::nullopt;
  const DType dtype = c.type(0).dtype;
  const std::string mark =
      value == number ? "" : fmt::format("{}{} {}", kNumberMark, c.node.op, number);
  std::string& made = made_[fmt::format("number {} {} {}", id, to_string(dtype), mark)];
  if (made.empty()) {
    // Under its own name, if all that reads it can read this one.
    const bool own = graph_.users(id).size() == 1 && !is_constant_output(plain_names_.at(id));
    made = exact_codes(own ? plain_names_.at(id) : unique(plain_names_.at(id) + ".number"),
                       Tensor::full(given.shape(), value), dtype, mark);
  }
  return Names{c.in[0], made};
}

// -- calls ----------------------------------------------------------------------------------------

void Exporter::write_quantize(const Node& node, const std::string& x, graph::ValueId result) {
  const std::string& name = plain_names_.at(result);
  bool own = node.op == "quantize" || node.op == "requantize";
  std::string scope = own && !node.scope.empty() ? node.scope : name + ".quantize";
  onnx::NodeProto& n = append("QuantizeLinear", scope, {x}, {name});
  if (own && node.scope.empty()) n.set_doc_string(kScopeMark);
  qparams(n, name, graph_.type(result));
}

void Exporter::write_call(const Node& node) {
  if (node.op == "quantize" || node.op == "requantize")
    return write_quantize(node, float_name(node.inputs[0]), node.outputs[0]);
  if (node.op == "dequantize") {
    const std::string& out = plain_names_.at(node.outputs[0]);
    graph::ValueId x = node.inputs[0];
    std::string name = plain_names_.at(x);
    if (graph_.is_constant(x) && !float_names_.count(x))
      write_tensor(*out_->add_initializer(), name, graph_.constant(x));
    if (graph_.is_constant(x)) float_names_.emplace(x, out);
    onnx::NodeProto& n =
        append("DequantizeLinear", node.scope.empty() ? out : node.scope, {name}, {out});
    if (node.scope.empty()) n.set_doc_string(kScopeMark);
    qparams(n, name, graph_.type(x));
    return;
  }
  if (node.op == "int_repr" || node.op == "make_quantized") {  // ONNX's codes are plain integers
    const std::string& out = plain_names_.at(node.outputs[0]);
    append("Identity", node.scope.empty() ? out : node.scope, {plain_names_.at(node.inputs[0])},
           {out});
    return;
  }
  const ops::Traits& traits = ops::get(node.op).traits();
  if (options_.target == OnnxTarget::tensorrt)
    for (const char* op : {"conv_integer", "matmul_integer", "quantize_dynamic", "linear_blocks"})
      if (node.op == op || traits.form == WeightForm::dynamic)
        throw Unsupported{"TensorRT has no such operator"};
  auto writer = writers().find(node.op);
  if (writer == writers().end()) throw Unsupported{"ONNX has no such operator"};
  CallView c{graph_, node, {}, {}};
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    // The writer of linear transposes some weights, those of dynamic layers and of recurrent ones
    // read codes: they ask for that themselves.
    const bool dynamic = traits.form == WeightForm::dynamic;
    const bool codes = node.inputs[i] != kNone && graph_.type(node.inputs[i]).is_quantized();
    bool later = (node.op == "linear" && i == 1 && graph_.type(node.inputs[0]).dim() != 2) ||
                 (codes && ((dynamic && i < 2) || is_recurrent(node.op)));
    // Sizes of codes are those of their numbers.
    if (traits.of_types)
      c.in.push_back(plain_names_.at(node.inputs[i]));
    else
      c.in.push_back(later ? "?" : operand(node, i));
  }
  for (graph::ValueId id : node.outputs) {
    const std::string& name = plain_names_.at(id);
    c.out.push_back(graph_.type(id).is_quantized() ? unique(name + ".float") : name);
  }
  writer->second(*this, c);
  for (size_t i = 0; i < node.outputs.size(); ++i)
    if (graph_.type(node.outputs[i]).is_quantized())
      write_quantize(node, c.out[i], node.outputs[i]);
}

// TensorRT computes with int8 codes whose zero point is 0.
void Exporter::require_target() const {
  if (options_.target != OnnxTarget::tensorrt) return;
  std::vector<std::string> wrong;
  for (const graph::Value& v : graph_.values()) {
    if (!v.type.is_quantized() || v.type.dtype == DType::qint32) continue;  // a bias: as numbers
    const Quantizer& q = *v.type.quantizer;
    const bool zeros =
        !q.has_float_zero_points() && std::all_of(q.zero_points().begin(), q.zero_points().end(),
                                                  [](int64_t z) { return z == 0; });
    const bool constant = graph_.node(v.producer).kind == NodeKind::constant;
    if (v.type.dtype == DType::qint8 && zeros && (constant || !q.is_per_channel())) continue;
    wrong.push_back(fmt::format("%{} ({}{})", v.name, to_string(v.type.dtype),
                                zeros ? ""
                                : q.is_per_channel()
                                    ? ", zero points other than 0"
                                    : fmt::format(", zero_point={}", q.zero_point())));
  }
  const size_t all = wrong.size();
  if (all > 8) wrong.resize(8);
  OCTET_CHECK(all == 0, unsupported,
              "TensorRT takes qint8 codes with zero_point=0, one scale per tensor (weights: or per "
              "channel); {}{} {} not that: quantize with the backend 'tensorrt'",
              fmt::join(wrong, ", "), all > 8 ? fmt::format(" and {} more", all - 8) : "",
              all == 1 ? "is" : "are");
}

// -- the model ------------------------------------------------------------------------------------

// ONNX wants every output to be made by a node, or be an input, and once.
void Exporter::finish_outputs() {
  std::set<graph::ValueId> seen;
  for (graph::ValueId id : graph_.outputs()) {
    std::string name = plain_names_.at(id);
    const bool first = seen.insert(id).second, input = graph_.producer(id).kind == NodeKind::input;
    const bool copied = is_constant_output(name);
    if (!first || (graph_.producer(id).kind != NodeKind::call && !input && !copied)) {
      std::string copy = unique(name + ".output");
      append("Identity", copy, {name}, {copy});
      name = copy;
    }
    write_type(*out_->add_output(), name, graph_.type(id));
  }
}

onnx::ModelProto Exporter::run() {
  model_->set_ir_version(opset_ >= 21 ? 10 : opset_ >= 19 ? 9 : opset_ >= 15 ? 8 : 7);
  graph_.require_operators("export_onnx");
  require_target();
  model_->set_producer_name("octet");
  auto* opset = model_->add_opset_import();
  opset->set_domain("");
  opset->set_version(opset_);
  out_->set_name(graph_.name.empty() ? "graph" : graph_.name);
  std::vector<std::string> failures;
  // A constant that is an output keeps its name there.
  for (graph::ValueId id : graph_.outputs()) {
    const std::string& name = plain_names_.at(id);
    if (!graph_.is_constant(id) || graph_.type(id).is_quantized() || is_constant_output(name))
      continue;
    made_["output " + name] =
        append("Identity", name, {initializer(name + ".value", graph_.constant(id))}, {name})
            .output(0);
  }
  // Constants are written plain only where something reads them plain: float biases of integer
  // layers are not.
  for (const Node& node : graph_.nodes()) {
    if (node.kind == NodeKind::input) {
      write_type(*out_->add_input(), plain_names_.at(node.outputs[0]),
                 graph_.type(node.outputs[0]));
    } else if (node.kind == NodeKind::call) {
      try {
        write_call(node);
      } catch (const Unsupported& u) {
        failures.push_back(fmt::format(
            "{} (node \"{}\": {})", node.op,
            node.scope.empty() ? graph_.value(node.outputs[0]).name : node.scope, u.reason));
      }
    }
  }
  OCTET_CHECK(failures.empty(), unsupported, "{} cannot be written as ONNX: {}",
              failures.size() == 1 ? "1 operator" : fmt::format("{} operators", failures.size()),
              fmt::join(failures, ", "));
  finish_outputs();
  std::set<std::string> read, written;
  for (const onnx::NodeProto& n : out_->node()) {
    read.insert(n.input().begin(), n.input().end());
    written.insert(n.output().begin(), n.output().end());
  }
  for (const onnx::TensorProto& t : out_->initializer()) written.insert(t.name());
  for (const Node& node : graph_.nodes()) {
    if (node.kind != NodeKind::constant) continue;
    const std::string& name = plain_names_.at(node.outputs[0]);
    if (read.count(name) && !written.count(name))
      write_tensor(*out_->add_initializer(), name, node.value);
  }
  return std::move(*model_);
}

const std::unordered_map<std::string, Writer>& writers() {
  static const std::unordered_map<std::string, Writer> all = [] {
    std::unordered_map<std::string, Writer> w;
    add_elementwise_writers(w);
    add_integer_writers(w);
    add_layer_writers(w);
    add_recurrent_writers(w);
    add_movement_writers(w);
    add_code_writers(w);
    return w;
  }();
  return all;
}

}  // namespace octet::io::onnx_impl

namespace octet::io {

namespace {
constexpr int64_t kCheckedOpset = 17;  // the newest that ONNX 1.12's checker knows
constexpr std::pair<OnnxTarget, const char*> kTargets[] = {{OnnxTarget::onnxruntime, "onnxruntime"},
                                                           {OnnxTarget::tensorrt, "tensorrt"}};
}  // namespace

const char* to_string(OnnxTarget target) {
  for (const auto& [known, name] : kTargets)
    if (known == target) return name;
  return "?";
}

std::vector<std::string> onnx_target_names() {
  std::vector<std::string> names;
  for (const auto& [target, name] : kTargets) names.push_back(name);
  return names;
}

OnnxTarget parse_onnx_target(std::string_view name) {
  for (const auto& [target, known] : kTargets)
    if (name == known) return target;
  OCTET_FAIL(not_found, "unknown target '{}'{} (known: {})", name,
             did_you_mean(name, onnx_target_names()), fmt::join(onnx_target_names(), ", "));
}

std::string to_onnx_bytes(const graph::Graph& graph, const OnnxExportOptions& options,
                          OnnxOpset* opset) {
  // Pairs around float operators are what operators on codes are written as: one form of both.
  const graph::Graph spelled_out = graph::merge_qdq(graph::explicit_weights(graph));
  onnx::ModelProto model;
  OnnxOpset needed;
  for (int64_t tried = 0; tried < needed.version;) {  // operators of a later opset may need more
    tried = needed.version;
    onnx_impl::Exporter exporter(spelled_out, options, tried);
    model = exporter.run();
    if (exporter.needed().version >= tried) needed = exporter.needed();
  }
  if (opset) *opset = needed;
  OCTET_CHECK(model.ByteSizeLong() < (size_t{1} << 31), unsupported,
              "the model has more than 2 GB, which ONNX files cannot hold; save it as .octet");
  try {
    if (needed.version <= kCheckedOpset) onnx::checker::check_model(model);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    OCTET_FAIL(internal, "the exported model is not valid ONNX: {}", onnx_impl::one_line(e.what()));
  }
  std::string bytes;
  OCTET_CHECK(model.SerializeToString(&bytes), internal, "protobuf cannot write the model");
  return bytes;
}

OnnxOpset export_onnx(const graph::Graph& graph, const std::filesystem::path& path,
                      const OnnxExportOptions& options) {
  OnnxOpset opset;
  write_file_atomically(path, to_onnx_bytes(graph, options, &opset));
  return opset;
}

}  // namespace octet::io
