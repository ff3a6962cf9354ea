#include "octet/runtime/export_c.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <functional>
#include <optional>
#include <set>

#include "octet/base/error.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/moves_impl.h"
#include "octet/engine/pool_taps_impl.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/graph/passes/input_shapes.h"
#include "octet/ops/op.h"
#include "octet/runtime/memory_plan.h"

namespace octet::runtime {
namespace {

using engine_detail::IntegerWeights;
using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

constexpr size_t kDims = 6;  // OCTET_DIMS
constexpr const char* kRuntimeSource =
#include "octet/runtime/c_runtime.raw"
    ;
constexpr const char* kRuntimeHeader =
#include "octet/runtime/c_runtime_header.raw"
    ;

bool is_identifier(const std::string& name) {
  return !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c < 128 && (std::isalnum(c) || c == '_'); });
}

std::string identifier(const std::string& text) {
  std::string name;
  for (const unsigned char c : text)
    name += c < 128 && std::isalnum(c) ? static_cast<char>(c) : '_';
  return name;
}

// One sample: a symbolic dimension in front of each input is 1.
Graph of_one_sample(const Graph& graph) {
  graph::InputShapes shapes;
  for (const ValueId id : graph.inputs()) {
    Shape shape;
    for (const Dim& d : graph.type(id).dims)
      shape.push_back(shape.empty() && !d.known() ? 1 : d.known() ? d.size() : graph::kOpenSize);
    shapes[graph.value(id).name] = shape;
  }
  Graph one = graph::with_input_shapes(graph, shapes);
  for (const ValueId id : one.inputs())
    for (const Dim& d : one.type(id).dims)
      if (!d.known())
        fail(ErrorCode::invalid_argument,
             fmt::format("C source: the input {} is {}, of open sizes; give them (--shape)",
                         one.value(id).name, to_string(one.type(id))));
  return one;
}

bool is_byte_codes(const TensorType& t) {
  return is_8_bit(t.dtype) && !t.quantizer->is_per_channel();
}

// Which nodes are written, and what goes in and comes out.
struct Part {
  std::vector<const Node*> nodes;
  std::vector<ValueId> inputs, outputs;
  std::vector<std::string> notes;
};

Part part_on_codes(const Graph& graph) {
  Part part;
  std::vector<bool> after_codes(graph.values().size());  // made of codes, whatever it is
  std::vector<const Node*> left_out;
  std::set<ValueId> outputs;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::call) {
      if (node.kind == NodeKind::input && graph.type(node.outputs[0]).is_quantized())
        part.inputs.push_back(node.outputs[0]);
      continue;
    }
    const bool reads = std::any_of(node.inputs.begin(), node.inputs.end(),
                                   [&](ValueId v) { return v != kNone && after_codes[v]; });
    const bool on_codes = graph.type(node.outputs[0]).is_quantized();
    for (const ValueId v : node.outputs) after_codes[v] = reads || on_codes;
    if (node.op == "quantize" && !reads) {
      part.inputs.push_back(node.outputs[0]);
      part.notes.push_back(fmt::format(
          "%{} is quantized by the caller, to scale {} and zero point {}",
          graph.value(node.inputs[0]).name, graph.type(node.outputs[0]).quantizer->scale(),
          graph.type(node.outputs[0]).quantizer->zero_point()));
    } else if (on_codes) {
      part.nodes.push_back(&node);
    } else {
      left_out.push_back(&node);
      for (const ValueId v : node.inputs)
        if (v != kNone && graph.type(v).is_quantized() && !graph.is_constant(v)) outputs.insert(v);
    }
  }
  for (const ValueId v : graph.outputs())
    if (graph.type(v).is_quantized()) outputs.insert(v);
  part.outputs.assign(outputs.begin(), outputs.end());
  for (const Node* node : left_out)
    if (node->op != "dequantize")
      part.notes.push_back(fmt::format("{} (%{}) computes in float and is left to the caller",
                                       node->op, graph.value(node->outputs[0]).name));
  return part;
}

// -- texts ----------------------------------------------------------------------------------------

template <typename Range, typename Fn>
std::string list(const Range& values, Fn&& text) {
  std::string all = "{";
  size_t column = 0;
  for (const auto& v : values) {
    const std::string one = text(v) + ",";
    if (column + one.size() > 110) all += "\n  ", column = 0;
    all += one;
    column += one.size();
  }
  return all + "}";
}

std::string bits(float v) { return fmt::format("0x{:08x}u", std::bit_cast<uint32_t>(v)); }

// A multiplier whose products with whole numbers are normal float32 numbers, or round to 0 alike.
float checked(float v, const OpSpec& spec) {
  if (v != 0 && (v < 0x1p-60f || v > 0x1p60f))
    fail(ErrorCode::unsupported,
         fmt::format("C source: {}: a scale of {} is out of range; expected 2^-60 to 2^60",
                     spec.label, v));
  return v;
}

class Writer {
 public:
  Writer(const Graph& graph, const std::string& name) : graph_(graph), name_(name) {}
  CSource write();

 private:
  void call(const Node& node);
  void conv(const OpSpec& spec, const Node& node);
  void linear(const OpSpec& spec, const Node& node);
  void layer(const OpSpec& spec, const Node& node, const engine_detail::Window& w, const Shape& x,
             const Shape& y, int64_t groups);
  void pool(const OpSpec& spec, const Node& node);
  void binary(const OpSpec& spec, const Node& node);
  void lookup(const OpSpec& spec, const Node& node);
  void cat(const OpSpec& spec, const Node& node);
  void move(const OpSpec& spec, const Node& node);
  bool is_view(const Node& node) const;

  Shape shape(ValueId id) const { return graph_.type(id).shape(); }
  int64_t bytes(ValueId id) const { return numel(shape(id)); }
  int32_t zero_point(const TensorType& t) const {
    return static_cast<int32_t>(t.quantizer->zero_point());
  }
  float scale(const TensorType& t) const { return static_cast<float>(t.quantizer->scale()); }
  // The C expression of a value's first byte; aliases are followed.
  std::string pointer(ValueId id) const;
  ValueId root(ValueId id) const {
    while (alias_.count(id)) id = alias_.at(id);
    return id;
  }
  // A table of constants; its name.
  template <typename Range, typename Fn>
  std::string table(const char* type, const Range& values, size_t element, Fn&& text) {
    const std::string id = fmt::format("t{}", tables_++);
    constants_ +=
        fmt::format("static const {} {}[] = {};\n", type, id, list(values, std::forward<Fn>(text)));
    constant_bytes_ += std::size(values) * element;
    return id;
  }
  std::string codes_table(const std::vector<uint8_t>& t) {
    return table("uint8_t", t, 1, [](uint8_t v) { return std::to_string(v); });
  }
  std::string numbers(const std::vector<float>& v, const OpSpec& spec) {
    return table("uint32_t", v, 4, [&](float f) { return bits(checked(f, spec)); });
  }
  void refuse(const Node& node, const std::string& why) {
    refused_.push_back(
        fmt::format("{} (%{}): {}", node.op, graph_.value(node.outputs[0]).name, why));
  }

  const Graph& graph_;
  std::string name_, constants_, body_;
  Part part_;
  std::map<ValueId, ValueId> alias_;
  std::map<ValueId, size_t> arena_;  // where a value begins
  std::vector<std::string> refused_;
  size_t tables_ = 0, constant_bytes_ = 0;
};

std::string Writer::pointer(ValueId id) const {
  id = root(id);
  if (graph_.is_constant(id)) return fmt::format("c{}", id);
  for (size_t i = 0; i < part_.inputs.size(); ++i)
    if (part_.inputs[i] == id) return fmt::format("input_{}", i);
  for (size_t i = 0; i < part_.outputs.size(); ++i)
    if (part_.outputs[i] == id) return fmt::format("output_{}", i);
  return fmt::format("arena + {}", arena_.at(id));
}

// -- operators ------------------------------------------------------------------------------------

void Writer::layer(const OpSpec& spec, const Node& node, const engine_detail::Window& w,
                   const Shape& x, const Shape& y, int64_t groups) {
  if (!engine_detail::is_8_bit_call(spec) || !is_byte_codes(spec.inputs[0]))
    return refuse(node, "its weight or bias is not constant, or not of 8 bits");
  const IntegerWeights weights = engine_detail::integer_weights(spec);
  std::vector<int32_t> bias;
  for (const int64_t b : weights.bias) {
    if (b < INT32_MIN || b > INT32_MAX) return refuse(node, "a bias code leaves int32");
    bias.push_back(static_cast<int32_t>(b));
  }
  if (w.kw > 32768) return refuse(node, "its kernel is wider than 32768");
  const auto whole = [](int32_t v) { return std::to_string(v); };
  const std::string codes =
      table("int8_t", weights.codes, 1, [](int8_t v) { return std::to_string(v); });
  const std::string zeros =
      weights.any_zero_point ? table("int32_t", weights.zero_points, 4, whole) : std::string("0");
  const std::string biases = table("int32_t", bias, 4, whole);
  const std::string multiplier = numbers(weights.multiplier, spec);
  const std::string id = fmt::format("l{}", tables_++);
  constants_ += fmt::format(
      "static const octet_conv {} = {{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, "
      "{}, "
      "{}, {}, {}, {}, {}, {}, {}, {}}};\n",
      id, groups, x[1] / groups, y[1], x[2], x[3], y[2], y[3], w.kh, w.kw, w.sh, w.sw, w.ph, w.pw,
      w.dh, w.dw, weights.x_zero_point, weights.y_zero_point, weights.lo, weights.hi,
      weights.x_signed ? 1 : 0, codes, zeros, biases, multiplier);
  const int64_t in = x[1] * x[2] * x[3], out = y[1] * y[2] * y[3];
  for (int64_t n = 0; n < x[0]; ++n)
    body_ += fmt::format("  octet_conv2d(&{}, {} + {}, {} + {});\n", id, pointer(node.inputs[0]),
                         n * in, pointer(node.outputs[0]), n * out);
}

void Writer::conv(const OpSpec& spec, const Node& node) {
  layer(spec, node, engine_detail::conv_window(spec), shape(node.inputs[0]), shape(node.outputs[0]),
        spec.attrs.get_int("groups"));
}

// As a convolution whose window is one row of inputs, so that sums are taken in parts.
void Writer::linear(const OpSpec& spec, const Node& node) {
  const Shape x = shape(node.inputs[0]), y = shape(node.outputs[0]);
  const int64_t rows = numel(x) / x.back();
  layer(spec, node, {}, {rows, x.back(), 1, 1}, {rows, y.back(), 1, 1}, 1);
}

void Writer::pool(const OpSpec& spec, const Node& node) {
  const Shape x = shape(node.inputs[0]), y = shape(node.outputs[0]);
  const TensorType &tx = spec.inputs[0], &ty = spec.outputs[0];
  const bool adaptive = spec.op == "adaptive_avg_pool2d" || spec.op == "adaptive_max_pool2d";
  engine_detail::Window w;
  if (spec.op == "mean") {  // over rows and columns
    const auto& dims = spec.attrs.get_ints("dim");
    std::set<int64_t> over;
    for (const int64_t d : dims) over.insert(d < 0 ? d + std::ssize(x) : d);
    if (x.size() != 4 || over != std::set<int64_t>{2, 3})
      return refuse(node, "only means over the rows and columns of an image can be written");
    w.kh = x[2], w.kw = x[3];
  } else if (adaptive) {
    if (y[2] != 1 || y[3] != 1)
      return refuse(node, "only adaptive pools to one place can be written");
    w.kh = x[2], w.kw = x[3];
  } else {
    w = engine_detail::pool_window(spec);
    if (w.dh != 1 || w.dw != 1) return refuse(node, "its window is dilated");
  }
  std::string multiplier = "0";
  int step = 0;
  if (!spec.selects) {
    std::vector<int64_t> counts{w.kh * w.kw};
    if (spec.op == "avg_pool2d")
      counts = engine_detail::pool_taps(spec, engine_detail::with_3_spatial(x),
                                        engine_detail::with_3_spatial(y))
                   .counts;
    if (std::all_of(counts.begin(), counts.end(), [&](int64_t c) { return c == counts[0]; }))
      counts.resize(1);
    else
      step = 1;
    std::vector<float> multipliers;
    for (const int64_t count : counts) {
      const float inverse = 1.0f / static_cast<float>(count);
      multipliers.push_back(*tx.quantizer == *ty.quantizer ? inverse
                                                           : scale(tx) * inverse / scale(ty));
    }
    multiplier = numbers(multipliers, spec);
  }
  const std::string id = fmt::format("l{}", tables_++);
  const int64_t oh = spec.op == "mean" ? 1 : y[2], ow = spec.op == "mean" ? 1 : y[3];
  constants_ += fmt::format(
      "static const octet_pool {} = {{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, "
      "{}, "
      "{}, {}}};\n",
      id, x[1], x[2], x[3], oh, ow, w.kh, w.kw, w.sh, w.sw, w.ph, w.pw, zero_point(tx),
      zero_point(ty), qmin(ty.dtype), qmax(ty.dtype), tx.dtype == DType::qint8 ? 1 : 0, multiplier,
      step);
  for (int64_t n = 0; n < x[0]; ++n)
    body_ += fmt::format("  octet_pool2d(&{}, {} + {}, {} + {});\n", id, pointer(node.inputs[0]),
                         n * x[1] * x[2] * x[3], pointer(node.outputs[0]), n * x[1] * oh * ow);
}

// Six dimensions, the first ones 1.
std::string dims_text(const Shape& dims) {
  Shape all(kDims, 1);
  std::copy(dims.begin(), dims.end(), all.end() - std::ssize(dims));
  return fmt::format("{{{}}}", fmt::join(all, ", "));
}
// Where the elements of a broadcast operand lie, in six dimensions; repeated ones have stride 0.
std::string broadcast_strides(const Shape& x) {
  std::vector<int64_t> strides(kDims, 0);
  int64_t step = 1;
  for (size_t d = x.size(); d-- > 0;) {
    strides[kDims - x.size() + d] = x[d] == 1 ? 0 : step;
    step *= x[d];
  }
  return fmt::format("{{{}}}", fmt::join(strides, ", "));
}

void Writer::binary(const OpSpec& spec, const Node& node) {
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  if (!is_byte_codes(a) || !is_byte_codes(b) || a.dtype != b.dtype || a.dtype != y.dtype ||
      y.dims.size() > kDims)
    return refuse(node, "its operands and result must be codes of one dtype");
  const std::string activation =
      spec.attrs.has("activation") ? spec.attrs.get_string("activation") : "none";
  const engine_detail::CodeRange range = engine_detail::activation_range(activation, y);
  const bool mul = spec.op == "mul";
  const float inverse = 1.0f / scale(y), multiplier = mul ? scale(a) * scale(b) * inverse : inverse;
  const std::string id = fmt::format("l{}", tables_++);
  constants_ += fmt::format(
      "static const octet_binary {} = {{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, "
      "{}}};\n",
      id, bytes(node.outputs[0]), dims_text(shape(node.outputs[0])), broadcast_strides(a.shape()),
      broadcast_strides(b.shape()), bits(checked(scale(a), spec)), bits(checked(scale(b), spec)),
      bits(checked(multiplier, spec)), zero_point(a), zero_point(b), zero_point(y), range.lo,
      range.hi, a.dtype == DType::qint8 ? 1 : 0, spec.op == "sub" ? 1 : 0);
  body_ += fmt::format("  octet_{}(&{}, {}, {}, {});\n", mul ? "mul" : "add", id,
                       pointer(node.inputs[0]), pointer(node.inputs[1]), pointer(node.outputs[0]));
}

void Writer::lookup(const OpSpec& spec, const Node& node) {
  body_ += fmt::format("  octet_lookup({}, {}, {}, {});\n", codes_table(spec.table),
                       pointer(node.inputs[0]), pointer(node.outputs[0]), bytes(node.outputs[0]));
}

// What requantize makes of each code of t for the result.
std::optional<std::vector<uint8_t>> requantized(const TensorType& t, const TensorType& y) {
  if (t.dtype == y.dtype && *t.quantizer == *y.quantizer) return std::nullopt;
  const ops::Op& op = ops::get("requantize");
  return ops::make_spec(op, op.complete({}), {t}, {}, {y}, "cat").table;
}

void Writer::cat(const OpSpec& spec, const Node& node) {
  const TensorType& y = spec.outputs[0];
  const Shape to = y.shape();
  int64_t dim = spec.attrs.get_int("dim");
  if (dim < 0) dim += std::ssize(to);
  const int64_t rows = numel({to.begin(), to.begin() + dim}), row = numel(to) / rows;
  int64_t at = 0;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!is_byte_codes(spec.inputs[i])) return refuse(node, "an operand is not codes of 8 bits");
    const int64_t inner = bytes(node.inputs[i]) / rows;
    const auto t = requantized(spec.inputs[i], y);
    body_ += fmt::format("  octet_cat({}, {}, {} + {}, {}, {}, {});\n", t ? codes_table(*t) : "0",
                         pointer(node.inputs[i]), pointer(node.outputs[0]), at, rows, inner, row);
    at += inner;
  }
}

// permute, slice, split ...: by an index along each dimension, which must be an even progression.
void Writer::move(const OpSpec& spec, const Node& node) {
  const Shape x = shape(node.inputs[0]);
  std::vector<int64_t> strides(x.size());
  int64_t step = 1;
  for (size_t d = x.size(); d-- > 0; step *= x[d]) strides[d] = step;
  for (size_t r = 0; r < node.outputs.size(); ++r) {
    std::vector<int64_t> of = strides;
    int64_t offset = 0;
    if (spec.op == "permute") {
      const auto& dims = spec.attrs.get_ints("dims");
      for (size_t d = 0; d < dims.size(); ++d)
        of[d] = strides[static_cast<size_t>(dims[d] < 0 ? dims[d] + std::ssize(x) : dims[d])];
    } else {
      const engine_detail::MoveIndices indices =
          engine_detail::move_indices(spec.op, spec.attrs, x, r);
      if (indices.empty()) return refuse(node, "it cannot be written in C");
      for (size_t d = 0; d < indices.size(); ++d) {
        if (!indices[d] || indices[d]->empty()) continue;
        const std::vector<int64_t>& i = *indices[d];
        const int64_t gap = i.size() > 1 ? i[1] - i[0] : 0;
        for (size_t k = 0; k < i.size(); ++k)
          if (i[k] < 0 || i[k] != i[0] + static_cast<int64_t>(k) * gap)
            return refuse(node, "it pads or repeats elements");
        offset += i[0] * strides[d];
        of[d] *= gap;
      }
    }
    if (of.size() > kDims) return refuse(node, "it has more than 6 dimensions");
    of.insert(of.begin(), kDims - of.size(), 0);
    const std::string id = fmt::format("l{}", tables_++);
    constants_ += fmt::format("static const octet_copy {} = {{{}, {}, {}, {{{}}}}};\n", id,
                              bytes(node.outputs[r]), offset, dims_text(shape(node.outputs[r])),
                              fmt::join(of, ", "));
    body_ += fmt::format("  octet_move(&{}, {}, {});\n", id, pointer(node.inputs[0]),
                         pointer(node.outputs[r]));
  }
}

bool Writer::is_view(const Node& node) const {
  static const std::set<std::string> kViews = {"reshape", "flatten",  "squeeze",    "unsqueeze",
                                               "view",    "identity", "contiguous", "dropout"};
  return kViews.count(node.op) > 0;
}

void Writer::call(const Node& node) {
  const OpSpec spec = graph::spec_of(graph_, node);
  for (const ValueId id : node.outputs)
    if (!is_byte_codes(graph_.type(id))) return refuse(node, "its result is not codes of 8 bits");
  body_ += fmt::format("  /* {} */\n", identifier(graph_.value(node.outputs[0]).name));
  if (spec.op == "conv2d") return conv(spec, node);
  if (spec.op == "linear") return linear(spec, node);
  if (spec.op.ends_with("pool2d") || spec.op == "mean") return pool(spec, node);
  if (spec.op == "add" || spec.op == "sub" || spec.op == "mul") return binary(spec, node);
  if (spec.op == "cat") return cat(spec, node);
  if (spec.table.size() == 256) return lookup(spec, node);
  if (spec.op == "permute" || spec.op == "slice" || spec.op == "split") return move(spec, node);
  refuse(node, "it cannot be written in C");
}

// -- files ----------------------------------------------------------------------------------------

CSource Writer::write() {
  part_ = part_on_codes(graph_);
  if (part_.nodes.empty())
    fail(ErrorCode::invalid_argument,
         "C source: nothing in the network computes with codes; quantize it statically first");
  for (const Node* node : part_.nodes) {
    if (node->op == "quantize")
      refuse(*node, "it makes codes of what float operators made of codes");
    if (is_view(*node)) alias_[node->outputs[0]] = node->inputs[0];
  }
  // An output that shows another value's memory is copied.
  std::map<ValueId, ValueId> copies;
  for (const ValueId id : part_.outputs)
    if (alias_.count(id)) copies[id] = alias_[id], alias_.erase(id);

  // Values between the layers: from the node that makes one to the last that reads it.
  std::map<ValueId, Lifetime> lives;
  const auto outside = [&](ValueId id) {
    return std::count(part_.inputs.begin(), part_.inputs.end(), id) +
           std::count(part_.outputs.begin(), part_.outputs.end(), id);
  };
  for (int step = 0; step < std::ssize(part_.nodes); ++step) {
    const Node& node = *part_.nodes[step];
    if (!is_view(node))
      for (const ValueId id : node.outputs)
        if (!outside(id)) lives[id] = {static_cast<size_t>(bytes(id)), step, step};
    for (const ValueId id : node.inputs)
      if (const ValueId r = id == kNone ? kNone : root(id); lives.count(r)) lives[r].last = step;
  }
  std::vector<Lifetime> blocks;
  for (const auto& [id, life] : lives) blocks.push_back(life);
  const MemoryPlan plan = plan_memory(blocks);
  size_t k = 0;
  for (const auto& [id, life] : lives) arena_[id] = plan.offsets[k++];

  for (const Node* each : part_.nodes) {
    const Node& node = *each;
    for (const ValueId id : node.inputs)
      if (id != kNone && graph_.is_constant(id) && is_byte_codes(graph_.type(id)) &&
          !engine_detail::is_integer_call(graph::spec_of(graph_, node)) && !arena_.count(id)) {
        arena_[id] = 0;
        const Tensor c = graph_.constant(id).contiguous();
        const auto* p = static_cast<const uint8_t*>(c.raw_data());
        constants_ += fmt::format("static const uint8_t c{}[] = {};\n", id,
                                  list(std::span(p, static_cast<size_t>(c.numel())),
                                       [](uint8_t v) { return std::to_string(v); }));
        constant_bytes_ += static_cast<size_t>(c.numel());
      }
    const auto copy = copies.find(node.outputs[0]);
    if (copy != copies.end())
      body_ += fmt::format("  octet_cat(0, {}, {}, 1, {}, {});\n", pointer(copy->second),
                           pointer(copy->first), bytes(copy->first), bytes(copy->first));
    else if (!is_view(node) && node.op != "quantize")
      call(node);
  }
  if (!refused_.empty())
    fail(ErrorCode::unsupported,
         fmt::format("C source: {} operator{} cannot be written: {}", refused_.size(),
                     refused_.size() == 1 ? "" : "s", fmt::join(refused_, "; ")));

  std::string upper = name_, parameters, header_values;
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const auto describe = [&](const char* kind, const std::vector<ValueId>& ids, const char* type) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const TensorType& t = graph_.type(ids[i]);
      header_values += fmt::format(
          "/* {}_{}: {} {}, {} bytes; value = (code - {}) * {} */\n#define {}_{}_{}_SIZE {}\n",
          kind, i, t.dtype == DType::qint8 ? "int8" : "uint8", to_string(t.shape()), bytes(ids[i]),
          t.quantizer->zero_point(), scale(t), upper,
          std::string(kind) == "input" ? "INPUT" : "OUTPUT", i, bytes(ids[i]));
      parameters += fmt::format("{}uint8_t* {}_{}, ", type, kind, i);
    }
  };
  describe("input", part_.inputs, "const ");
  describe("output", part_.outputs, "");
  const std::string signature = fmt::format("void {}_run({}uint8_t* arena)", name_, parameters);

  CSource source;
  source.arena_bytes = plan.total;
  source.constant_bytes = constant_bytes_;
  source.notes = part_.notes;
  source.files["octet_runtime.h"] = kRuntimeHeader;
  source.files["octet_runtime.c"] = kRuntimeSource;
  source.files[name_ + ".h"] = fmt::format(
      "/* Made by octet: a network of whole numbers. */\n#ifndef {0}_H\n#define {0}_H\n\n#include "
      "<stdint.h>\n\n{1}#define {0}_ARENA_SIZE {2}\n\n{3};\n\n#endif\n",
      upper, header_values, std::max<size_t>(1, plan.total), signature);
  source.files[name_ + ".c"] = fmt::format(
      "/* Made by octet. */\n#include \"{0}.h\"\n#include \"octet_runtime.h\"\n\n{1}\n{2} {{\n{3}  "
      "(void)arena;\n}}\n",
      name_, constants_, signature, body_);
  return source;
}

}  // namespace

CSource export_c(const Graph& graph, const std::string& name) {
  if (!is_identifier(name))
    fail(ErrorCode::invalid_argument,
         fmt::format("C source: the name '{}' is no C identifier; expected letters, digits and _",
                     name));
  const Graph one = of_one_sample(graph);
  return Writer(one, name).write();
}

}  // namespace octet::runtime
