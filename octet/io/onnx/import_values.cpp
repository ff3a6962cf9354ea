// The importer's values: constants, lookups, and the calls that handlers emit.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "octet/io/onnx/importer_impl.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::io::onnx_impl {
namespace {

// elements a folded constant may grow to beyond its operands
constexpr int64_t kMaxFolded = 1 << 24;
constexpr double kMostElements = 1e13;  // of any value; only damaged models have more

double elements_of(const TensorType& type) {
  double elements = 1;
  for (const Dim& d : type.dims)
    if (d.known()) elements *= static_cast<double>(d.size());
  return elements;
}

}  // namespace

ValPtr constant_val(const std::string& name, Tensor value) {
  auto v = std::make_shared<Val>();
  v->name = name;
  v->type = value.type();
  v->constant = std::move(value);
  return v;
}

ValPtr dequantized_val(const std::string& name, const std::string& codes_name,
                       const std::string& scope, Tensor codes) {
  auto v = std::make_shared<Val>();
  v->name = name;
  v->codes_name = codes_name;
  v->scope = scope;
  v->type = TensorType(DType::float32, codes.shape());
  v->constant = std::move(codes);
  v->dequantized = true;
  return v;
}

// -- values ---------------------------------------------------------------------------------------

ValPtr Importer::lookup(const std::string& name) {
  if (auto it = values_.find(name); it != values_.end()) return it->second;
  auto it = initializers_.find(name);
  OCTET_CHECK(it != initializers_.end(), corrupt,
              "'{}' is not made by any node, input or initializer", one_line(name));
  ValPtr v = read_constant(*it->second, fmt::format("initializer '{}'", one_line(name)));
  // The model's copy is not needed any more: large models would be in memory twice. (clear_raw_data
  // keeps the memory.)
  if (it->second->has_raw_data()) delete it->second->release_raw_data();
  return values_[name] = v;
}

ValPtr Importer::read_constant(const onnx::TensorProto& t, const std::string& what) {
  ValPtr v = constant_val(t.name(), to_compute_type(read_tensor(t, what, dir_)));
  if (is_narrow(t.data_type())) v->narrow = t.data_type();
  return v;
}

ValPtr Importer::any_in(const NodeView& n, size_t i) {
  if (!n.has_input(i)) n.fail(ErrorCode::corrupt, "input {} is missing", i);
  return lookup(n.input(i));
}

ValPtr Importer::in(const NodeView& n, size_t i) {
  ValPtr v = any_in(n, i);
  if (v->elements) n.unsupported("a sequence as input {}", i);
  return v;
}

const std::vector<ValPtr>& Importer::sequence(const NodeView& n, size_t i) {
  ValPtr v = any_in(n, i);
  if (!v->elements) n.fail(ErrorCode::corrupt, "input {} is not a sequence", i);
  return *v->elements;
}

ValPtr Importer::optional_in(const NodeView& n, size_t i) {
  return n.has_input(i) ? in(n, i) : nullptr;
}

Tensor Importer::known(const NodeView& n, size_t i, const char* what) {
  ValPtr v = optional_in(n, i);
  if (!v) return {};
  if (v->dequantized) return v->constant.dequantize();
  if (v->sizes) n.needs_size("{} ('{}') computed of open sizes", what, one_line(v->name));
  if (!v->constant.defined())
    n.unsupported("{} ('{}') must be a constant", what, one_line(v->name));
  return v->constant;
}

std::vector<int64_t> Importer::known_ints(const NodeView& n, size_t i, const char* what) {
  Tensor t = known(n, i, what);
  if (!t.defined()) return {};
  if (is_floating(t.dtype()) || t.is_quantized() || t.dim() > 1)
    n.fail(ErrorCode::corrupt, "{}: expected a list of integers, got {}", what,
           to_string(t.type()));
  return t.to(DType::int64).reshape({-1}).to_vector<int64_t>();
}

std::vector<Dim> Importer::known_sizes(const NodeView& n, size_t i, const char* what) {
  if (ValPtr v = optional_in(n, i); v && v->sizes) return *v->sizes;
  std::vector<int64_t> ints = known_ints(n, i, what);
  return {ints.begin(), ints.end()};  // negative entries stand for themselves; Dim keeps the number
}

std::optional<std::vector<int64_t>> Importer::attr_or_input_ints(const NodeView& n,
                                                                 const char* attr, size_t i) {
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

std::string Importer::free_name(const std::string& name) {
  if (!graph_.find(name)) return name;
  // Unrolled loops want one name again and again.
  int64_t& suffix = suffixes_[name];
  std::string free;
  do {
    free = fmt::format("{}_{}", name, ++suffix);
  } while (graph_.find(free));
  return free;
}

void Importer::take_name(ValueId id, const std::string& name) {
  if (graph_.value(id).name != name) graph_.rename(id, free_name(name));
}

ValueId Importer::materialize(const NodeView& n, const ValPtr& v) {
  if (v->id != graph::kNone) return v->id;
  if (v->elements) n.unsupported("a sequence");
  if (v->sizes && !v->constant.defined()) {
    ValPtr list = computed(n, *v->sizes);
    if (v->rank() == 0) list = call(n, "squeeze", {list}, {{"dim", int64_t{0}}});
    return v->id = materialize(n, list);
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

// -- numbers that are known when the model runs ---------------------------------------------------

bool Importer::at_run_time(const NodeView& n, size_t i) {
  ValPtr v = optional_in(n, i);
  return v && !v->constant.defined() && !v->sizes;
}

Attr Importer::as_attr(const NodeView& n, size_t i, const char* what,
                       std::vector<ValPtr>& operands) {
  if (ValPtr v = in(n, i); !v->constant.defined()) {
    operands.push_back(v);
    return FromOperand{static_cast<int64_t>(operands.size()) - 1};
  }
  const Tensor t = known(n, i, what);
  if (is_floating(t.dtype())) return t.to(DType::float64).reshape({-1}).to_vector<double>();
  return known_ints(n, i, what);
}

Attr Importer::as_attr(const NodeView& n, const std::vector<Dim>& sizes,
                       std::vector<ValPtr>& operands, bool one) {
  const bool numbers =
      std::all_of(sizes.begin(), sizes.end(), [](const Dim& d) { return d.name().empty(); });
  if (!numbers) {
    operands.push_back(computed(n, sizes));
    return FromOperand{static_cast<int64_t>(operands.size()) - 1};
  }
  if (one) return sizes.at(0).size();
  std::vector<int64_t> ints;
  for (const Dim& d : sizes) ints.push_back(d.size());
  return ints;
}

void Importer::remember(const std::string& name, ValueId value, int64_t d) {
  recipes_.try_emplace(name, Recipe{value, d, 0, 0, 0});
}

void Importer::remember(const std::string& name, char op, const Dim& a, const Dim& b) {
  recipes_.try_emplace(name, Recipe{graph::kNone, 0, op, a, b});
}

void Importer::remember_sizes(const Val& v) {
  for (size_t d = 0; d < v.dims().size(); ++d)
    if (!v.dims()[d].known()) remember(v.dims()[d].name(), v.id, static_cast<int64_t>(d));
}

Dim Importer::combined(const Dim& a, char op, const Dim& b) {
  const auto text = [](const Dim& d) {
    return d.name().empty() ? std::to_string(d.size()) : d.name();
  };
  Dim made(fmt::format("[{}{}{}]", text(a), op, text(b)));
  remember(made.name(), op, a, b);
  return made;
}

Dim Importer::quotient(const Dim& a, int64_t b) {
  if (a.known()) return a.size() / b;
  if (const auto exact = ops::exact_quotient(ops::Product({a}), ops::Product({Dim(b)}))) {
    remember(exact->dim().name(), '/', a, Dim(b));
    return exact->dim();
  }
  return combined(a, '/', Dim(b));
}

ValPtr Importer::computed(const NodeView& n, const Dim& size) {
  if (size.name().empty())
    return constant_val("", Tensor::from(std::vector<int64_t>{size.size()}, {1}));
  if (auto it = computed_.find(size.name()); it != computed_.end()) return it->second;
  ValPtr v;
  if (auto it = recipes_.find(size.name()); it == recipes_.end()) {
    const std::vector<std::string> parts = ops::factors(size.name());
    if (parts.size() < 2) n.needs_size("'{}', a size that is known only at run time", size.name());
    for (const std::string& part : parts) {
      const bool digits = part.find_first_not_of("0123456789") == std::string::npos;
      ValPtr factor = computed(n, digits ? Dim(std::stoll(part)) : Dim(part));
      v = v ? call(n, "mul", {v, factor}) : factor;
    }
  } else if (const Recipe recipe = it->second; recipe.op == 0) {
    auto from = std::make_shared<Val>();
    from->id = recipe.value;
    from->type = graph_.type(recipe.value);
    v = call(n, "shape", {from}, {{"start", recipe.dim}, {"end", recipe.dim + 1}});
  } else {
    const char* op = recipe.op == '+'   ? "add"
                     : recipe.op == '*' ? "mul"
                     : recipe.op == '-' ? "sub"
                     : recipe.op == '/' ? "div"
                     : recipe.op == '%' ? "remainder"
                                        : "maximum";
    v = call(n, op, {computed(n, recipe.a), computed(n, recipe.b)});
  }
  return computed_[size.name()] = v;
}

ValPtr Importer::computed(const NodeView& n, const std::vector<Dim>& sizes) {
  std::vector<ValPtr> parts;
  for (const Dim& d : sizes) parts.push_back(computed(n, d));
  if (parts.empty()) return constant_val("", Tensor::zeros({0}, DType::int64));
  return parts.size() == 1 ? parts[0] : call(n, "cat", parts, {{"dim", int64_t{0}}});
}

// -- calls ----------------------------------------------------------------------------------------

std::vector<ValPtr> Importer::calls(const NodeView& n, const std::string& op_name,
                                    const std::vector<ValPtr>& inputs, const Attrs& attrs,
                                    const std::optional<ops::QType>& want) {
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
    for (const TensorType& t : op.infer(types, op.complete(attrs), want, n.name()))
      results += elements_of(t);
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
  std::string name = free_name(sanitize(n.output(0)) + "." + op_name);
  for (ValueId id : graph_.add_calls(name, op_name, std::move(ids), attrs, want, n.scope())) {
    auto v = std::make_shared<Val>();
    v->id = id;
    v->name = graph_.value(id).name;
    v->type = graph_.type(id);
    if (elements_of(v->type) > kMostElements)
      n.fail(ErrorCode::corrupt, "its result is {}", to_string(v->type));
    made.push_back(v);
  }
  return made;
}

ValPtr Importer::call(const NodeView& n, const std::string& op, const std::vector<ValPtr>& inputs,
                      const Attrs& attrs, const std::optional<ops::QType>& want) {
  std::vector<ValPtr> made = calls(n, op, inputs, attrs, want);
  OCTET_CHECK(made.size() == 1, internal, "{} has {} results", op, made.size());
  return made[0];
}

bool Importer::wants_output(const NodeView& n, size_t i) const {
  return i < n.output_count() && !n.output(i).empty() && reads_.count(n.output(i));
}

void Importer::out(const NodeView& n, size_t i, ValPtr v) {
  if (i >= n.output_count() || n.output(i).empty()) return;
  if (!v) {
    values_[n.output(i)] = nullptr;
    return;
  }
  if (v->id == graph::kNone) {
    if (v->name.empty()) v->name = n.output(i);
  } else if (static_cast<size_t>(v->id) >= first_new_value_ &&
             graph_.producer(v->id).kind == graph::NodeKind::call &&
             graph_.producer(v->id).scope == n.scope()) {
    take_name(v->id, sanitize(n.output(i)));
    v->name = n.output(i);
  }
  values_[n.output(i)] = std::move(v);
}

}  // namespace octet::io::onnx_impl
