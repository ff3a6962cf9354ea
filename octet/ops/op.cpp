#include "octet/ops/op.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/conv_impl.h"
#include "octet/ops/symbolic_impl.h"
#include "octet/ops/unary.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

std::map<std::string, Op, std::less<>>& registry() {
  static std::map<std::string, Op, std::less<>> ops;
  return ops;
}

std::string trim(std::string_view s) {
  size_t a = s.find_first_not_of(' '), b = s.find_last_not_of(' ');
  return a == std::string_view::npos ? "" : std::string(s.substr(a, b - a + 1));
}

// Splits at commas that are not inside brackets or quotes.
std::vector<std::string> split_arguments(std::string_view s) {
  std::vector<std::string> parts;
  std::string current;
  int depth = 0;
  bool quoted = false;
  for (char c : s) {
    if (c == '"') quoted = !quoted;
    if (!quoted && c == '[') ++depth;
    if (!quoted && c == ']') --depth;
    if (c == ',' && depth == 0 && !quoted) {
      parts.push_back(trim(current));
      current.clear();
    } else
      current += c;
  }
  if (!trim(current).empty()) parts.push_back(trim(current));
  return parts;
}

thread_local std::vector<Interceptor*> t_interceptors;

}  // namespace

// -- schema ---------------------------------------------------------------------------------------

void Op::parse_schema() {
  size_t open = schema_.find('('), close = schema_.rfind(')'), arrow = schema_.rfind("->");
  OCTET_CHECK(open != std::string::npos && close != std::string::npos && arrow != std::string::npos,
              internal, "operator {}: malformed schema '{}'", name_, schema_);
  bool attributes = false;
  for (const std::string& part :
       split_arguments(std::string_view(schema_).substr(open + 1, close - open - 1))) {
    if (part == "*") {
      attributes = true;
    } else if (attributes) {
      size_t equals = part.find('=');
      if (equals == std::string::npos)
        attrs_.emplace_back(part, std::nullopt);
      else
        attrs_.emplace_back(trim(part.substr(0, equals)),
                            parse_attr(trim(part.substr(equals + 1))));
    } else {
      Param p{part};
      if (p.name.size() > 3 && p.name.ends_with("...")) {
        p.variadic = true;
        p.name.resize(p.name.size() - 3);
      } else if (p.name.ends_with("?")) {
        p.optional = true;
        p.name.pop_back();
      }
      params_.push_back(p);
    }
  }
  for (std::string out : split_arguments(std::string_view(schema_).substr(arrow + 2))) {
    if (out.ends_with("...")) {
      variadic_outputs_ = true;
      out.resize(out.size() - 3);
    }
    outputs_.push_back(out);
  }
}

std::optional<size_t> Op::param_index(std::string_view name) const {
  for (size_t i = 0; i < params_.size(); ++i)
    if (params_[i].name == name) return i;
  return std::nullopt;
}

Attrs Op::complete(const Attrs& given) const {
  Attrs full;
  for (const auto& [name, fallback] : attrs_) {
    if (!given.has(name)) {
      OCTET_CHECK(fallback, invalid_argument, "{}: attribute '{}' is required ({})", name_, name,
                  schema_);
      full.set(name, *fallback);
      continue;
    }
    const Attr& value = given.get(name);
    if (std::holds_alternative<FromOperand>(value)) {
      bool open = false;
      for (const auto& attr : open_.attrs) open |= attr.first == name;
      OCTET_CHECK(open, invalid_argument, "{}: attribute '{}' must be known before it runs", name_,
                  name);
      full.set(name, value);
      continue;
    }
    if (!fallback || value.index() == fallback->index()) {
      full.set(name, value);
    } else if (std::holds_alternative<double>(*fallback) &&
               std::holds_alternative<int64_t>(value)) {
      full.set(name, static_cast<double>(std::get<int64_t>(value)));
    } else if (std::holds_alternative<std::vector<int64_t>>(*fallback) &&
               std::get<std::vector<int64_t>>(*fallback).empty() &&
               std::holds_alternative<std::vector<double>>(value)) {
      full.set(name, value);  // "[]" stands for an empty list of either kind
    } else {
      OCTET_FAIL(invalid_argument, "{}: attribute {}={}: expected a value like {} ({})", name_,
                 name, to_string(value), to_string(*fallback), schema_);
    }
  }
  for (const auto& [name, value] : given) {
    if (full.has(name)) continue;
    std::vector<std::string> known;
    for (const auto& item : attrs_) known.push_back(item.first);
    OCTET_FAIL(invalid_argument, "{}: unknown attribute '{}'{} ({})", name_, name,
               did_you_mean(name, known), schema_);
  }
  return full;
}

std::vector<TensorType> Op::infer(const std::vector<std::optional<TensorType>>& inputs,
                                  const Attrs& attrs, const std::optional<QType>& want,
                                  std::string_view label, const OperandSizes* sizes) const {
  bool variadic = !params_.empty() && params_.back().variadic;
  std::string who = label.empty() || label == name_ ? name_ : fmt::format("{} ({})", label, name_);
  const bool open = attrs.any_operand();
  if (open) check_open_attrs(inputs, attrs, who);
  OCTET_CHECK(inputs.size() <= params_.size() || variadic || open, invalid_argument,
              "{}: {} inputs given; expected {}", who, inputs.size(), schema_);
  for (size_t i = 0; i < params_.size(); ++i)
    OCTET_CHECK(params_[i].optional || params_[i].variadic || (i < inputs.size() && inputs[i]),
                invalid_argument, "{}: input '{}' is missing; expected {}", who, params_[i].name,
                schema_);
  OCTET_CHECK(!variadic || inputs.size() >= params_.size(), invalid_argument,
              "{}: expected at least one input ({})", who, schema_);
  if (rule_ == QRule::float_only) {
    for (size_t i = 0; i < inputs.size(); ++i)
      OCTET_CHECK(!inputs[i] || !inputs[i]->is_quantized(), invalid_argument,
                  "{}: operand '{}' is {}, and {} has no quantized form: dequantize it first (a "
                  "DeQuantStub in eager mode)",
                  who, params_[std::min(i, params_.size() - 1)].name, to_string(*inputs[i]), name_);
  }
  if (rule_ != QRule::weights && name_ != "quantize" && name_ != "dequantize") {
    for (const auto& type : inputs)
      OCTET_CHECK(!type || !is_packed(type->dtype), unsupported,
                  "{}: an operand is {}, whose codes are packed: dequantize it first", who,
                  to_string(*type));
    OCTET_CHECK(!want || !is_packed(want->dtype), unsupported,
                "{}: a {} result was asked for; expected codes of 8 or 16 bits", who,
                to_string(want->dtype));
  }
  if (rule_ == QRule::float_only || rule_ == QRule::weights)
    OCTET_CHECK(!want, invalid_argument, "{}: {} has no quantized form", who, name_);
  try {
    return (open ? open_.fn : infer_)(Types(*this, inputs, attrs, want, sizes));
  } catch (const Error& e) {
    // Inference speaks of the operator; the caller's name is put in front once.
    std::string message = e.what();
    if (label.empty() || label == name_ || message.rfind(who, 0) == 0) throw;
    if (message.rfind(name_ + ":", 0) == 0) message = message.substr(name_.size() + 2);
    throw Error(e.code(), fmt::format("{}: {}", who, message));
  }
}

// -- attributes that operands give ----------------------------------------------------------------

void Op::check_open_attrs(const std::vector<std::optional<TensorType>>& inputs, const Attrs& attrs,
                          const std::string& who) const {
  for (const auto& [name, kind] : open_.attrs) {
    const auto i = attrs.operand(name);
    if (!i) continue;
    const size_t own = params_.empty() ? 0 : 1;  // the operands that are not attributes come first
    OCTET_CHECK(*i >= own && *i < inputs.size() && inputs[*i], invalid_argument,
                "{}: attribute '{}' is operand {}, which is missing", who, name, *i);
    const TensorType& t = *inputs[*i];
    const bool whole = kind == AttrKind::integer || kind == AttrKind::integers;
    OCTET_CHECK(!t.is_quantized() && t.dtype != DType::bool_ && !(whole && is_floating(t.dtype)) &&
                    t.dim() <= 1,
                invalid_argument, "{}: attribute '{}' is {}; expected {}", who, name, to_string(t),
                whole ? "integers" : "numbers");
  }
}

std::optional<std::vector<Dim>> Types::sizes(const std::string& attr) const {
  if (const auto i = attrs_.operand(attr))
    return sizes_ && *i < sizes_->size() ? (*sizes_)[*i] : std::nullopt;
  if (const auto* one = std::get_if<int64_t>(&attrs_.get(attr))) return {{Dim(*one)}};
  const std::vector<int64_t>& ints = attrs_.get_ints(attr);
  return std::vector<Dim>(ints.begin(), ints.end());
}

int64_t Types::count(const std::string& attr) const {
  if (const auto i = attrs_.operand(attr)) {
    const TensorType& t = (*this)[*i];
    OCTET_CHECK(t.is_static(), unsupported, "{}: how many numbers '{}' has is not known: it is {}",
                op_.name(), attr, to_string(t));
    return numel(t.shape());
  }
  const Attr& value = attrs_.get(attr);
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&value))
    return static_cast<int64_t>(ints->size());
  if (const auto* doubles = std::get_if<std::vector<double>>(&value))
    return static_cast<int64_t>(doubles->size());
  return 1;
}

Attrs take_open_attrs(const Op& op, const Attrs& attrs, std::vector<Tensor>& inputs) {
  Attrs known = attrs;
  size_t first = inputs.size();
  for (const auto& [name, kind] : op.open_attrs()) {
    const auto i = attrs.operand(name);
    if (!i) continue;
    OCTET_CHECK(*i < inputs.size() && inputs[*i].defined() && inputs[*i].dim() <= 1,
                invalid_argument, "{}: the operand that gives '{}' is missing or not a list",
                op.name(), name);
    first = std::min(first, *i);
    const Tensor list = inputs[*i].reshape({-1}).contiguous();
    const bool one = kind == AttrKind::integer || kind == AttrKind::number;
    OCTET_CHECK(!one || list.numel() == 1, invalid_argument, "{}: '{}' is {} numbers; expected one",
                op.name(), name, list.numel());
    if (kind == AttrKind::integer || kind == AttrKind::integers) {
      std::vector<int64_t> values = list.to(DType::int64).to_vector<int64_t>();
      known.set(name, one ? Attr(values[0]) : Attr(std::move(values)));
    } else {
      std::vector<double> values = list.to(DType::float64).to_vector<double>();
      known.set(name, one ? Attr(values[0]) : Attr(std::move(values)));
    }
  }
  inputs.resize(first);
  return known;
}

// -- operands -------------------------------------------------------------------------------------

const TensorType& Types::operator[](size_t i) const {
  OCTET_CHECK(has(i), invalid_argument, "{}: input {} is missing ({})", op_.name(), i,
              op_.schema());
  return *inputs_[i];
}
bool Types::has(std::string_view name) const {
  auto i = op_.param_index(name);
  return i && has(*i);
}
const TensorType& Types::operator[](std::string_view name) const {
  auto i = op_.param_index(name);
  OCTET_CHECK(i, internal, "{} has no input '{}'", op_.name(), name);
  return (*this)[*i];
}

TensorType Types::result(std::vector<Dim> dims, DType float_dtype) const {
  bool quantized_input = has(0) && (*this)[0].is_quantized();
  if (want_) return TensorType(want_->dtype, std::move(dims), want_->quantizer);
  if (!quantized_input) return TensorType(float_dtype, std::move(dims));
  const TensorType& x = (*this)[0];
  switch (op_.rule()) {
    case QRule::same:
      return TensorType(x.dtype, std::move(dims), x.quantizer);
    case QRule::fixed: {
      auto fixed = fixed_qtype(op_.name(), x.dtype);
      OCTET_CHECK(fixed, internal, "{} has no fixed qparams", op_.name());
      return TensorType(fixed->dtype, std::move(dims), fixed->quantizer);
    }
    default:
      OCTET_FAIL(invalid_argument,
                 "{}: the operand is {} but no scale and zero point were given for the result: "
                 "dequantize the operand or "
                 "ask for a quantized result",
                 op_.name(), to_string(x));
  }
}

const Tensor& Call::operator[](size_t i) const {
  OCTET_CHECK(has(i), invalid_argument, "{}: input {} is missing ({})", op_.name(), i,
              op_.schema());
  return inputs_[i];
}
bool Call::has(std::string_view name) const {
  auto i = op_.param_index(name);
  return i && has(*i);
}
const Tensor& Call::operator[](std::string_view name) const {
  auto i = op_.param_index(name);
  OCTET_CHECK(i, internal, "{} has no input '{}'", op_.name(), name);
  return (*this)[*i];
}

Infer infer(std::function<TensorType(const Types&)> fn) {
  return {[fn = std::move(fn)](const Types& t) { return std::vector<TensorType>{fn(t)}; }};
}
OpenAttrs open_attrs(std::vector<std::pair<std::string, AttrKind>> attrs,
                     std::function<TensorType(const Types&)> fn) {
  return {std::move(attrs),
          [fn = std::move(fn)](const Types& t) { return std::vector<TensorType>{fn(t)}; }};
}
OpenAttrs open_attrs_many(std::vector<std::pair<std::string, AttrKind>> attrs, InferFn fn) {
  return {std::move(attrs), std::move(fn)};
}
Eval eval(std::function<Tensor(const Call&)> fn) {
  return {[fn = std::move(fn)](const Call& c) { return std::vector<Tensor>{fn(c)}; }};
}
Quantized quantized(std::function<Tensor(const Call&)> fn) {
  return {[fn = std::move(fn)](const Call& c) { return std::vector<Tensor>{fn(c)}; }};
}
Gradient gradient(std::function<Tensor(const Grad&)> fn) {
  return {[fn = std::move(fn)](const Grad& g) { return std::vector<Tensor>{fn(g)}; }};
}

Tensor Grad::dy(size_t i) const {
  const Tensor& dy = dys_.at(i);
  return dy.defined() ? dy : Tensor::zeros(outputs_.at(i).shape(), outputs_.at(i).dtype());
}

Tensor sum_to(const Tensor& dy, const Shape& shape) {
  if (dy.shape() == shape) return dy;
  auto extra = dy.dim() - static_cast<int64_t>(shape.size());
  std::vector<int64_t> dims;
  for (int64_t d = 0; d < dy.dim(); ++d)
    if (d < extra || (shape[d - extra] == 1 && dy.shape()[d] != 1)) dims.push_back(d);
  Tensor sum = dims.empty() ? dy : call("sum", {dy}, {{"dim", dims}, {"keepdim", true}});
  return sum.reshape(shape);
}

// -- registry -------------------------------------------------------------------------------------

Registration::Registration(Op op) {
  std::string name = op.name();
  bool fresh = registry().emplace(name, std::move(op)).second;
  OCTET_CHECK(fresh, internal, "operator {} is registered twice", name);
}

const Op* find(std::string_view name) {
  auto it = registry().find(name);
  return it == registry().end() ? nullptr : &it->second;
}

const Op& get(std::string_view name) {
  if (const Op* op = find(name)) return *op;
  std::vector<std::string> known;
  for (const auto& [key, op] : registry()) known.push_back(key);
  OCTET_FAIL(unsupported, "unknown operator '{}'{}", name, did_you_mean(name, known));
}

std::vector<const Op*> all() {
  std::vector<const Op*> result;
  for (const auto& [name, op] : registry()) result.push_back(&op);
  return result;
}

// -- calling --------------------------------------------------------------------------------------

namespace {

std::vector<Tensor> through_float(const Call& call) {
  std::vector<Tensor> inputs;
  for (const Tensor& t : call.inputs())
    inputs.push_back(t.defined() && t.is_quantized() ? t.dequantize() : t);
  std::vector<TensorType> types = call.outputs();
  for (TensorType& t : types)
    if (t.is_quantized()) t = TensorType(DType::float32, t.dims);
  std::vector<Tensor> results = evaluate(Call(call.op(), std::move(inputs), call.attrs(), types));
  for (size_t i = 0; i < results.size(); ++i)
    if (call.outputs()[i].is_quantized())
      results[i] =
          octet::quantize(results[i], call.outputs()[i].quantizer, call.outputs()[i].dtype);
  return results;
}

// The product of the sizes that are known.
int64_t known_elements(const TensorType& t) {
  int64_t n = 1;
  for (const Dim& d : t.dims) n *= d.known() ? d.size() : 1;
  return n;
}

// OpSpec::table of a call.
std::vector<uint8_t> code_table(const Op& op, const Attrs& attrs, const TensorType& x,
                                const TensorType& y) {
  auto byte_affine = [](const TensorType& t) {
    return is_8_bit(t.dtype) && !t.quantizer->is_per_channel();
  };
  if (op.name() == "lookup") {
    const std::vector<int64_t>& codes = attrs.get_ints("table");
    return {codes.begin(), codes.end()};
  }
  bool requantize = op.name() == "requantize";
  // Of 16 bits, where there are enough elements to be worth one; cutting to a range needs none.
  const bool wide = is_16_bit(x.dtype) && is_activation_dtype(y.dtype) && op.scalar() &&
                    !x.quantizer->is_per_channel() && !y.quantizer->is_per_channel() &&
                    !op.traits().narrows && known_elements(x) >= 16384;
  if (!wide && (!byte_affine(x) || !byte_affine(y) || !(requantize || op.scalar()))) return {};
  float sx = static_cast<float>(x.quantizer->scale()),
        sy = static_cast<float>(y.quantizer->scale());
  auto zx = static_cast<int32_t>(x.quantizer->zero_point()),
       zy = static_cast<int32_t>(y.quantizer->zero_point());
  auto lo = static_cast<int32_t>(qmin(y.dtype)), hi = static_cast<int32_t>(qmax(y.dtype));
  // By code as it is stored: signed ones after the others.
  const auto least = static_cast<int32_t>(qmin(x.dtype)),
             most = static_cast<int32_t>(qmax(x.dtype));
  const auto count = static_cast<size_t>(most - least + 1);
  std::vector<float> numbers(count);
  for (int32_t q = least; q <= most; ++q)
    numbers[static_cast<uint32_t>(q) % count] = affine::dequantize(q, sx, zx);
  if (!requantize) op.scalar()(attrs)(numbers.data(), numbers.data(), static_cast<int64_t>(count));
  const auto code = [&](size_t i) { return affine::quantize(numbers[i], sy, zy, lo, hi); };
  std::vector<uint8_t> table(wide ? 2 * count : count);
  for (size_t i = 0; i < count; ++i) {
    if (wide) {
      const auto two = static_cast<uint16_t>(code(i));
      std::memcpy(&table[2 * i], &two, sizeof two);
    } else {
      table[i] = static_cast<uint8_t>(code(i));
    }
  }
  return table;
}

}  // namespace

const Op* find_form(std::string_view layer, WeightForm form) {
  for (const Op* op : all())
    if (op->traits().form == form && op->traits().layer && op->traits().layer == layer) return op;
  return nullptr;
}

OpSpec make_spec(const Op& op, const Attrs& attrs,
                 const std::vector<std::optional<TensorType>>& inputs,
                 std::vector<Tensor> constants, std::vector<TensorType> outputs,
                 const std::string& label) {
  OpSpec spec;
  spec.op = op.name();
  spec.attrs = attrs;
  for (const auto& type : inputs) {
    spec.present.push_back(type.has_value());
    spec.inputs.push_back(type.value_or(TensorType()));
  }
  spec.constants = std::move(constants);
  spec.constants.resize(inputs.size());
  spec.outputs = std::move(outputs);
  spec.label = label;
  spec.form = op.traits().form;
  spec.transposed = op.traits().transposed;
  spec.selects = op.traits().selects;
  if (op.traits().layer) spec.layer = op.traits().layer;
  if (spec.inputs.size() == 1 && spec.outputs.size() == 1)
    spec.table = code_table(op, attrs, spec.inputs[0], spec.outputs[0]);
  if (op.scalar() && spec.inputs[0].dtype == DType::float32) spec.function = op.scalar()(attrs);
  return spec;
}

namespace {

// The kernels that a quantized weight was packed into, one for each kind of call it takes part in.
struct PackedKernels {
  struct Entry {
    Entry(const Call& call, std::string engine, const OpSpec& spec, std::vector<Tensor> others)
        : op(&call.op()),
          attrs(call.attrs()),
          engine(std::move(engine)),
          x(spec.inputs[0]),
          y(spec.outputs[0]),
          others(std::move(others)),
          kernel(spec) {}
    const Op* op;
    Attrs attrs;
    std::string engine;
    // what kernels made now call: an instruction set chosen later gets kernels of its own
    const kernels::KernelTable* table = &kernels::table();
    TensorType x, y;  // with symbolic dims, but those that size the weight
    // operands after the weight, by identity; kept alive, so that no other gets their place
    std::vector<Tensor> others;
    CachedKernel kernel;
  };
  std::mutex mutex;
  std::vector<std::shared_ptr<const Entry>> entries;
  Tensor with_height;  // weight_with_height's
};

// Those of a weight, made when first asked for.
std::shared_ptr<PackedKernels> packed_kernels(const Tensor& weight) {
  if (auto cache = std::atomic_load(&weight.packed_slot()))
    return std::static_pointer_cast<PackedKernels>(cache);
  std::shared_ptr<void> none, fresh = std::make_shared<PackedKernels>();
  std::atomic_compare_exchange_strong(&weight.packed_slot(), &none, fresh);
  return std::static_pointer_cast<PackedKernels>(std::atomic_load(&weight.packed_slot()));
}

// A bias that is another tensor each time must not make them pile up.
constexpr size_t kKernelsPerWeight = 32;

// The type with all dims but number `keep` left open.
TensorType opened(TensorType type, int64_t keep) {
  for (int64_t d = 0; d < type.dim(); ++d)
    if (d != keep) type.dims[d] = Dim("d" + std::to_string(d));
  return type;
}

}  // namespace

std::shared_ptr<const CachedKernel> packed_kernel(const Call& call, size_t first) {
  const Tensor& weight = call[first];
  // linear, lstm: features are the last dimension, else channels the second
  bool per_row = weight.dim() == 2;
  auto open = [&](const TensorType& t) { return opened(t, per_row ? t.dim() - 1 : 1); };
  const TensorType x = open(call[0].type());
  std::vector<TensorType> outputs;
  for (const TensorType& t : call.outputs()) outputs.push_back(open(t));
  const TensorType y = outputs[0];
  std::vector<Tensor> others(call.inputs().begin() + static_cast<std::ptrdiff_t>(first) + 1,
                             call.inputs().end());
  auto same_operands = [](const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Tensor& p, const Tensor& q) { return p.id() == q.id(); });
  };
  std::shared_ptr<PackedKernels> cache = packed_kernels(weight);
  std::shared_ptr<const PackedKernels::Entry> found;
  {
    std::lock_guard lock(cache->mutex);
    for (const auto& e : cache->entries)
      if (e->op == &call.op() && e->x == x && e->y == y && e->attrs == call.attrs() &&
          e->engine == octet::engine() && e->table == &kernels::table() &&
          same_operands(e->others, others))
        found = e;
    if (!found) {
      std::vector<std::optional<TensorType>> types;
      for (size_t i = 0; i < call.inputs().size(); ++i)
        types.push_back(!call.has(i)
                            ? std::nullopt
                            : std::optional(i < first ? open(call[i].type()) : call[i].type()));
      std::vector<Tensor> constants = call.inputs();
      std::fill_n(constants.begin(), first, Tensor());
      // a kernel that keeps the weight must not keep itself alive through it
      constants[first] = weight.detach();
      OpSpec spec = make_spec(call.op(), call.attrs(), types, std::move(constants),
                              std::move(outputs), call.op().name());
      found = std::make_shared<const PackedKernels::Entry>(call, octet::engine(), spec, others);
      if (cache->entries.size() >= kKernelsPerWeight) cache->entries.erase(cache->entries.begin());
      cache->entries.push_back(found);
    }
  }
  return {found, &found->kernel};
}

Tensor weight_with_height(const Tensor& weight) {
  if (!weight.is_quantized()) return weight.unsqueeze(2);
  std::shared_ptr<PackedKernels> cache = packed_kernels(weight);
  std::lock_guard lock(cache->mutex);
  if (!cache->with_height.defined()) cache->with_height = weight.unsqueeze(2);
  return cache->with_height;
}

std::optional<std::vector<Tensor>> try_engine(const Call& call) {
  bool weighted = call.op().param_index("weight") == size_t{1} && call.outputs().size() == 1;
  if (weighted && call.has(1) && call[1].is_quantized()) {
    auto kernel = packed_kernel(call);
    return kernel->found() ? std::optional(kernel->run(call.inputs(), call.outputs()))
                           : std::nullopt;
  }
  std::vector<std::optional<TensorType>> types;
  for (const Tensor& t : call.inputs())
    types.push_back(t.defined() ? std::optional(t.type()) : std::nullopt);
  // Weights and biases (every operand but the first) count as constant: kernels that pack them do.
  std::vector<Tensor> constants = call.inputs();
  if (!weighted)
    constants.assign(constants.size(), Tensor());
  else
    constants[0] = Tensor();
  OpSpec spec = make_spec(call.op(), call.attrs(), types, std::move(constants), call.outputs(),
                          call.op().name());
  auto kernel = make_kernel(spec);
  if (!kernel) return std::nullopt;
  return run_kernel(*kernel, spec, call.inputs());
}

std::vector<Tensor> evaluate(const Call& call) {
  const Op& op = call.op();
  bool quantized_operand = false, quantized_call = false;
  for (const Tensor& t : call.inputs()) quantized_operand |= t.defined() && t.is_quantized();
  for (const TensorType& t : call.outputs()) quantized_call |= t.is_quantized();
  quantized_call |= quantized_operand;
  if (quantized_call && op.quantized()) return op.quantized()(call);
  // Operators of QRule::same with only an eval move codes about: it works on any dtype.
  if (op.eval() && (!quantized_call || op.rule() == QRule::same)) return op.eval()(call);
  if (auto results = try_engine(call)) return *std::move(results);
  if (quantized_call && (quantized_operand || op.eval())) return through_float(call);
  std::vector<std::string> types;
  for (const Tensor& t : call.inputs()) types.push_back(t.defined() ? to_string(t.type()) : "none");
  OCTET_FAIL(unsupported, "{}: no engine has a kernel for these operands: {}", op.name(),
             fmt::join(types, ", "));
}

Interceptor::Interceptor() { t_interceptors.push_back(this); }
Interceptor::~Interceptor() { std::erase(t_interceptors, this); }

namespace {

// Evaluates on handles without slots (the methods of such tensors do not come back here) and puts
// the call on autograd's tape if an operand requires a gradient.
std::vector<Tensor> evaluate_on_tape(const Call& call) {
  bool slots = false;
  for (const Tensor& x : call.inputs()) slots = slots || x.has_slots();
  if (!slots) return evaluate(call);
  std::vector<Tensor> inputs = call.inputs();
  std::vector<bool> needs(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined() || !inputs[i].has_slots()) continue;
    needs[i] = autograd::requires_grad(inputs[i]);
    inputs[i] = inputs[i].detach();
  }
  Call plain(call.op(), std::move(inputs), call.attrs(), call.outputs());
  std::vector<Tensor> outputs = evaluate(plain);
  if (!autograd::enabled() || std::find(needs.begin(), needs.end(), true) == needs.end())
    return outputs;
  std::vector<Tensor> kept;
  for (const Tensor& y : outputs) kept.push_back(y.detach());
  autograd::record(call.op().name(), call.inputs(), outputs,
                   [plain, kept, needs](const std::vector<Tensor>& dys) {
                     OCTET_CHECK(
                         plain.op().gradient(), unsupported,
                         "{}: this operator has no gradient: detach() its operand, or compute it "
                         "another way",
                         plain.op().name());
                     return plain.op().gradient()(Grad(plain, kept, dys, needs));
                   });
  return outputs;
}

// Through the interceptors to the evaluation.
std::vector<Tensor> intercepted(const Call& call);

Tensor call_method(const char* op, const Tensor& x, const Attrs& attrs) {
  return call(op, {x}, attrs);
}
[[maybe_unused]] const bool g_methods_hooked = (Tensor::set_method_hook(call_method), true);

}  // namespace

std::vector<Tensor> call_all(std::string_view name, std::vector<Tensor> inputs, const Attrs& attrs,
                             const std::optional<QType>& want) {
  const Op& op = get(name);
  while (!inputs.empty() && !inputs.back().defined()) inputs.pop_back();
  Attrs complete = op.complete(attrs);
  if (complete.any_operand()) complete = take_open_attrs(op, complete, inputs);
  std::vector<std::optional<TensorType>> types;
  for (const Tensor& t : inputs)
    types.push_back(t.defined() ? std::optional(t.type()) : std::nullopt);
  std::vector<TensorType> outputs = op.infer(types, complete, want, "");
  Call call(op, std::move(inputs), std::move(complete), std::move(outputs));
  for (const Tensor& x : call.inputs())
    if (auto trace = trace_of(x)) return trace->on_call(call, intercepted);
  return intercepted(call);
}

namespace {
std::vector<Tensor> intercepted(const Call& call) {
  if (t_interceptors.empty()) return evaluate_on_tape(call);
  // The innermost interceptor first; each `next` goes one further out, the last evaluates.
  std::vector<Interceptor*> stack = t_interceptors;
  std::function<std::vector<Tensor>(size_t, const Call&)> step = [&](size_t depth, const Call& c) {
    if (depth == stack.size()) return evaluate_on_tape(c);
    return stack[stack.size() - 1 - depth]->on_call(
        c, [&, depth](const Call& d) { return step(depth + 1, d); });
  };
  return step(0, call);
}
}  // namespace

std::shared_ptr<TensorTrace> trace_of(const Tensor& x) {
  return x.defined() ? std::static_pointer_cast<TensorTrace>(x.trace_slot()) : nullptr;
}
void set_trace(const Tensor& x, std::shared_ptr<TensorTrace> trace) {
  x.trace_slot() = std::move(trace);
}

Tensor call(std::string_view name, std::vector<Tensor> inputs, const Attrs& attrs,
            const std::optional<QType>& want) {
  auto results = call_all(name, std::move(inputs), attrs, want);
  OCTET_CHECK(results.size() == 1, invalid_argument, "{} has {} results; use call_all", name,
              results.size());
  return results[0];
}

// -- helpers for definitions ----------------------------------------------------------------------

Infer same_type() {
  return infer([](const Types& t) { return t.result(t[0].dims, t[0].dtype); });
}

Infer broadcast_type() {
  return infer([](const Types& t) {
    DType dtype = t[0].is_quantized() ? DType::float32 : t[0].dtype;
    return t.result(broadcast(t[0].dims, t[1].dims, t.op().name()), dtype);
  });
}

std::vector<Dim> broadcast(const std::vector<Dim>& a, const std::vector<Dim>& b,
                           std::string_view who) {
  std::vector<Dim> result(std::max(a.size(), b.size()), Dim(1));
  for (size_t i = 0; i < result.size(); ++i) {
    const Dim one(1);
    const Dim& x = i < a.size() ? a[a.size() - 1 - i] : one;
    const Dim& y = i < b.size() ? b[b.size() - 1 - i] : one;
    Dim& out = result[result.size() - 1 - i];
    if (x == y || y == one)
      out = x;
    else if (x == one)
      out = y;
    // the symbol must turn out to be y (or 1) when shapes are known
    else if (!x.known() && y.known())
      out = y;
    else if (!y.known())
      out = x.known() ? x : either(x, y);
    else
      OCTET_FAIL(invalid_argument, "{}: shapes {} and {} do not broadcast", who,
                 to_string(TensorType(DType::float32, a)).substr(5),
                 to_string(TensorType(DType::float32, b)).substr(5));
  }
  return result;
}

int64_t normalize_dim(int64_t d, int64_t dims, std::string_view who) {
  int64_t limit = std::max<int64_t>(dims, 1);
  OCTET_CHECK(d >= -limit && d < limit, invalid_argument, "{}: dimension {} of a {}-d tensor", who,
              d, dims);
  return d < 0 ? d + limit : d;
}

}  // namespace octet::ops
