#include "octet/graph/trace.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/nn/containers.h"
#include "octet/nn/registry.h"
#include "octet/nn/trace.h"

namespace octet::graph {
namespace {

using nn::Module;

// One call that was seen. Values are numbered: inputs first, then results and constants as they
// come.
struct Recorded {
  std::string op, scope;
  Module* module = nullptr;  // of a module call
  std::vector<int> inputs;   // -1: omitted
  std::vector<int> outputs;
  Attrs attrs;
  std::optional<ops::QType> want;
};

// All that one run saw.
struct Recording {
  std::vector<Recorded> calls;
  std::vector<TensorType> types;    // by value, with the sizes of this run
  std::map<int, Tensor> constants;  // by value
  std::map<int, std::string> constant_scopes;
  std::vector<int> inputs, outputs;
};

using Sizes = std::map<std::string, int64_t>;

TensorType sized(TensorType type, const Sizes& sizes) {
  for (Dim& d : type.dims)
    if (!d.known()) d = Dim(sizes.at(d.name()));
  return type;
}

std::string ways_out() {
  return "keep the module as a leaf (TraceOptions::leaf_modules; "
         "PrepareCustomConfig::set_non_traceable_module_names), or move "
         "this out of its forward";
}

class Tracer : public std::enable_shared_from_this<Tracer> {
 public:
  Tracer(Module& root, const TraceOptions& options, Sizes& sizes, bool larger)
      : root_(root),
        options_(options),
        leaf_modules_(options.leaf_modules.begin(), options.leaf_modules.end()),
        sizes_(sizes),
        larger_(larger) {
    for (auto& [path, module] : root.named_modules()) paths_[module] = path;
  }

  Recording run(const std::vector<std::optional<TensorType>>& inputs);

  // What travels with the tensors.
  class Mark final : public nn::ModuleTrace {
   public:
    Mark(std::shared_ptr<Tracer> tracer, int value, std::string what)
        : tracer_(std::move(tracer)), value_(value), what_(std::move(what)) {}
    std::vector<Tensor> on_call(const ops::Call& call, const ops::Interceptor::Next&) override {
      return tracer_->call(call);
    }
    std::vector<Tensor> on_module(Module& module, const std::vector<Tensor>& inputs,
                                  const Next& next) override {
      return tracer_->module(module, inputs, next);
    }
    const Tracer* tracer() const { return tracer_.get(); }
    int value() const { return value_; }
    const std::string& what() const { return what_; }

   private:
    std::shared_ptr<Tracer> tracer_;
    int value_;
    std::string what_;  // "the result of relu in 'block.0'"
  };
  static std::shared_ptr<Mark> mark_of(const Tensor& x) {
    return std::dynamic_pointer_cast<Mark>(ops::trace_of(x));
  }

 private:
  bool is_leaf(const Module& module) const {
    const std::type_info& type = module.class_type();
    if (options_.leaf_classes.count(std::type_index(type))) return true;
    if (auto it = paths_.find(&module); it != paths_.end())
      for (const NamePattern& pattern : leaf_modules_)
        if (pattern.matches(it->second)) return true;
    return !options_.into_layers && is_layer(module);
  }

  // octet's own, but for those that only call others in turn.
  static bool is_layer(const Module& module) {
    if (module.class_type() == typeid(nn::Sequential) || dynamic_cast<const GraphModule*>(&module))
      return false;
    return nn::is_own_class(module);
  }

  Tensor symbol(const TensorType& type, int value, std::string what) {
    Tensor x = Tensor::symbolic(type);
    ops::set_trace(x, std::make_shared<Mark>(shared_from_this(), value, std::move(what)));
    return x;
  }

  int new_value(const TensorType& type) {
    recording_.types.push_back(type);
    return static_cast<int>(recording_.types.size()) - 1;
  }

  int value_of(const Tensor& x) {
    if (!x.defined()) return -1;
    if (auto mark = mark_of(x)) {
      OCTET_CHECK(mark->tracer() == this && mark->value() >= 0, internal,
                  "trace: {} of another trace", mark->what());
      return mark->value();
    }
    OCTET_CHECK(!x.is_symbolic(), unsupported,
                "trace: in '{}' a tensor is used whose origin is not known: {}", scope(),
                ways_out());
    if (auto it = constants_.find(x.id()); it != constants_.end()) return it->second;
    int value = new_value(x.type());
    recording_.constants[value] = x;
    recording_.constant_scopes[value] = scope();
    return constants_[x.id()] = value;
  }

  const std::string& scope() const { return scopes_.back(); }

  std::vector<Tensor> call(const ops::Call& call) {
    std::vector<Tensor> results;
    std::string what =
        fmt::format("the result of {} in {}", call.op().name(),
                    scope().empty() ? "the model's own forward" : "'" + scope() + "'");
    if (only_types_ > 0) {
      for (const TensorType& type : call.outputs()) results.push_back(symbol(type, -1, what));
      return results;
    }
    Recorded r;
    r.op = call.op().name();
    r.scope = scope();
    r.attrs = call.attrs();
    for (const Tensor& x : call.inputs()) r.inputs.push_back(value_of(x));
    for (const TensorType& type : call.outputs()) {
      if (type.is_quantized()) r.want = ops::QType{type.dtype, type.quantizer};
      r.outputs.push_back(new_value(type));
      results.push_back(symbol(type, r.outputs.back(), what));
    }
    recording_.calls.push_back(std::move(r));
    return results;
  }

  std::vector<Tensor> module(Module& module, const std::vector<Tensor>& inputs,
                             const nn::ModuleTrace::Next& next) {
    auto known = paths_.find(&module);
    // With numbers only, and no parameters of the model: its results are numbers too.
    if (known == paths_.end() && std::none_of(inputs.begin(), inputs.end(), [](const Tensor& x) {
          return x.defined() && mark_of(x);
        }))
      return next(inputs);
    if (only_types_ > 0 || !(is_leaf(module) || module.infer(types_of(inputs)))) {
      struct Scope {
        Scope(std::vector<std::string>& scopes, std::string path) : scopes(scopes) {
          scopes.push_back(std::move(path));
        }
        ~Scope() { scopes.pop_back(); }
        std::vector<std::string>& scopes;
      } inside(scopes_, known == paths_.end() || only_types_ > 0 ? scope() : known->second);
      if (only_types_ > 0) {
        if (auto result = inferred(module, types_of(inputs), scope()))
          return symbols(*result, scope());
      }
      try {
        return next(inputs);
      } catch (const Error& e) {
        if (only_types_ > 0 || blamed_) throw;
        blamed_ = true;
        throw Error(e.code(), fmt::format("trace: in {} ({}): {}",
                                          scope().empty() ? "the model" : "'" + scope() + "'",
                                          module.type_name(), e.what()));
      }
    }
    OCTET_CHECK(known != paths_.end(), unsupported,
                "trace: {} calls a {} that is no submodule of the model: give it a slot",
                scope().empty() ? "the model" : "'" + scope() + "'", module.type_name());
    Recorded r;
    r.op = module.type_name();
    r.scope = known->second;
    r.module = &module;
    for (const Tensor& x : inputs) r.inputs.push_back(value_of(x));
    std::vector<Tensor> results;
    for (const TensorType& type : result_types(module, known->second, inputs)) {
      r.outputs.push_back(new_value(type));
      results.push_back(symbol(type, r.outputs.back(),
                               fmt::format("a result of the module '{}'", known->second)));
    }
    recording_.calls.push_back(std::move(r));
    return results;
  }

  static std::vector<TensorType> types_of(const std::vector<Tensor>& tensors) {
    std::vector<TensorType> types;
    for (const Tensor& x : tensors) types.push_back(x.defined() ? x.type() : TensorType());
    return types;
  }

  std::vector<Tensor> symbols(const std::vector<TensorType>& types, const std::string& scope) {
    std::vector<Tensor> results;
    for (const TensorType& type : types)
      results.push_back(symbol(type, -1, fmt::format("a result of the module '{}'", scope)));
    return results;
  }

  // Module::infer, with sizes for the dimensions it names.
  std::optional<std::vector<TensorType>> inferred(Module& module,
                                                  const std::vector<TensorType>& inputs,
                                                  const std::string& path) {
    auto types = module.infer(inputs);
    if (!types) return std::nullopt;
    for (TensorType& type : *types)
      for (Dim& d : type.dims)
        if (!d.known()) {
          auto [it, fresh] = sizes_.emplace(path + "." + d.name(), 0);
          if (fresh || it->second == 0)
            it->second = static_cast<int64_t>(5 + 2 * sizes_.size()) + (larger_ ? 1 : 0);
          d = Dim(it->second);
        }
    return types;
  }

  // The types of a leaf's results: what it says itself, what its forward makes of tensors without
  // data, or of zeros.
  std::vector<TensorType> result_types(Module& module, const std::string& path,
                                       const std::vector<Tensor>& inputs) {
    if (auto said = inferred(module, types_of(inputs), path)) return *said;
    // Statistics must not move, and batch norms in training look at numbers.
    nn::ModulePtr copy;
    if (module.training()) {
      copy = module.clone();
      copy->eval();
    }
    Module& quiet = copy ? *copy : module;
    std::vector<Tensor> results;
    std::string why;
    nn::SeeAllModules not_now(nullptr);
    try {
      struct TypesOnly {
        explicit TypesOnly(int& depth) : depth(depth) { ++depth; }
        ~TypesOnly() { --depth; }
        int& depth;
      } types_only(only_types_);
      std::vector<Tensor> given;
      for (const Tensor& x : inputs)
        given.push_back(x.defined() ? symbol(x.type(), -1, fmt::format("an input of '{}'", path))
                                    : x);
      results = quiet(given);
    } catch (const Error& e) {
      why = e.what();
    }
    if (results.empty()) {
      std::vector<Tensor> zeros;
      for (const Tensor& x : inputs)
        zeros.push_back(!x.defined() ? x
                        : x.is_quantized()
                            ? octet::quantize(Tensor::zeros(x.shape()), x.quantizer(), x.dtype())
                            : Tensor::zeros(x.shape(), x.dtype()));
      try {
        if (!copy) copy = module.clone();
        results = (*copy)(zeros);
      } catch (const Error& e) {
        OCTET_FAIL(unsupported,
                   "trace: the types of the results of '{}' ({}) cannot be found out: run on zeros "
                   "it says: {}; run on "
                   "tensors without numbers: {}; override Module::infer to say them",
                   path, module.type_name(), e.what(), why);
      }
    }
    std::vector<TensorType> types;
    for (const Tensor& y : results) {
      OCTET_CHECK(y.defined(), unsupported, "trace: a result of '{}' ({}) is an undefined tensor",
                  path, module.type_name());
      types.push_back(y.type());
    }
    return types;
  }

  Module& root_;
  const TraceOptions& options_;
  std::vector<NamePattern> leaf_modules_;
  Sizes& sizes_;
  bool larger_;
  std::map<const Module*, std::string> paths_;
  std::map<const void*, int> constants_;
  std::vector<std::string> scopes_{""};
  int only_types_ = 0;
  bool blamed_ = false;
  Recording recording_;
};

Recording Tracer::run(const std::vector<std::optional<TensorType>>& inputs) {
  root_.check_state();
  std::vector<Tensor> given;
  for (const auto& type : inputs) {
    if (!type) {
      given.emplace_back();
      continue;
    }
    int value = new_value(*type);
    recording_.inputs.push_back(value);
    given.push_back(
        symbol(*type, value, fmt::format("input {} of the model", recording_.inputs.size() - 1)));
  }
  std::vector<Tensor> results;
  nn::SeeAllModules follow(std::make_shared<Mark>(shared_from_this(), -1, "a module"));
  try {
    nn::InCall in_call(root_);  // its forward without its hooks, which are not part of the graph
    results = root_.forward(given);
  } catch (const Error& e) {
    if (blamed_) throw;
    throw Error(e.code(), fmt::format("trace: {}: {}", root_.type_name(), e.what()));
  }
  for (const Tensor& y : results) recording_.outputs.push_back(value_of(y));
  return std::move(recording_);
}

std::string describe_symbolic(const Tensor& x) {
  auto mark = Tracer::mark_of(x);
  if (!mark) return "it comes from a model that was traced";
  return fmt::format(
      "it is {}, which is being traced: control flow and shapes cannot depend on numbers: {}",
      mark->what(), ways_out());
}
[[maybe_unused]] const bool g_hooked = (Tensor::set_symbolic_hook(describe_symbolic), true);

// -- from recordings to a graph -------------------------------------------------------------------

// One graph of two runs with different sizes (or of one, given twice).
class Builder {
 public:
  Builder(Module& root, const TraceOptions& options, const Recording& a, const Recording& b,
          const Sizes& sizes_a, const Sizes& sizes_b,
          const std::map<const void*, std::string>& names)
      : root_(root),
        options_(options),
        a_(a),
        b_(b),
        sizes_a_(sizes_a),
        sizes_b_(sizes_b),
        names_(names),
        ids_(a.types.size(), kNone) {}

  Graph build(const std::vector<std::optional<TensorType>>& inputs) {
    g_.name = root_.type_name();
    size_t n = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i]) continue;
      std::string name = i < options_.input_names.size() ? options_.input_names[i]
                         : a_.inputs.size() == 1         ? "x"
                                                         : "x" + std::to_string(i);
      ids_[a_.inputs[n++]] = g_.add_input(name, *inputs[i]);
    }
    OCTET_CHECK(a_.calls.size() == b_.calls.size() && a_.outputs.size() == b_.outputs.size(),
                unsupported,
                "trace: {}: with {} it makes {} calls, with {} {}: what is called depends on a "
                "size; give that dimension a number",
                g_.name, text(sizes_a_), a_.calls.size(), text(sizes_b_), b_.calls.size());
    for (size_t i = 0; i < a_.calls.size(); ++i) call(a_.calls[i], b_.calls[i]);
    std::vector<ValueId> outputs;
    for (size_t i = 0; i < a_.outputs.size(); ++i)
      outputs.push_back(id_of(a_.outputs[i], b_.outputs[i]));
    g_.set_outputs(std::move(outputs));
    return remove_dead(g_);
  }

 private:
  static std::string text(const Sizes& sizes) {
    std::vector<std::string> parts;
    for (const auto& [name, size] : sizes) parts.push_back(fmt::format("{}={}", name, size));
    return parts.empty() ? "the same sizes" : fmt::format("{}", fmt::join(parts, ", "));
  }

  ValueId id_of(int a, int b) {
    if (a < 0) return kNone;
    if (ids_[a] != kNone) return ids_[a];
    const Tensor &x = a_.constants.at(a),
                 &y = b_.constants.count(b) ? b_.constants.at(b) : a_.constants.at(a);
    const std::string& scope = a_.constant_scopes.at(a);
    OCTET_CHECK(x.id() == y.id() || equal(x.detach(), y.detach()), unsupported,
                "trace: {}: a tensor made in forward depends on a size ({} with {}, {} with {}): "
                "give that dimension a number, or {}",
                scope.empty() ? g_.name : "'" + scope + "'", to_string(x.type()), text(sizes_a_),
                to_string(y.type()), text(sizes_b_), ways_out());
    auto named = names_.find(x.id());
    std::string name = named != names_.end() ? named->second
                                             : (scope.empty() ? "" : scope + ".") +
                                                   fmt::format("_tensor_constant{}", constants_++);
    return ids_[a] = g_.add_constant(name, x.detach());
  }

  // The attributes that hold for every size.
  Attrs merged(const Recorded& a, const Recorded& b) const {
    if (a.attrs == b.attrs) return a.attrs;
    Attrs result = a.attrs;
    for (const auto& [name, value] : a.attrs) {
      const Attr& other = b.attrs.get(name);
      if (other == value) continue;
      const auto *p = std::get_if<std::vector<int64_t>>(&value),
                 *q = std::get_if<std::vector<int64_t>>(&other);
      bool ok = false;
      if (p && q && p->size() == q->size() && name == "shape") {
        std::vector<int64_t> shape = *p;
        const std::vector<Dim>&xa = a_.types[a.inputs[0]].dims, &xb = b_.types[b.inputs[0]].dims;
        bool hole = std::count(shape.begin(), shape.end(), -1) > 0;
        ok = true;
        for (size_t d = 0; d < shape.size(); ++d) {
          if ((*p)[d] == (*q)[d]) continue;
          size_t from = a.op == "expand" ? d + xa.size() - shape.size() : d;
          bool own = (a.op == "reshape" || a.op == "expand") && from < xa.size() &&
                     xa[from] == Dim((*p)[d]) && xb[from] == Dim((*q)[d]);
          if (own)
            shape[d] = a.op == "expand" ? -1 : 0;
          else if (a.op == "reshape" && !hole)
            hole = true, shape[d] = -1;
          else
            ok = false;
        }
        if (ok) result.set(name, shape);
      }
      const auto *m = std::get_if<int64_t>(&value), *k = std::get_if<int64_t>(&other);
      if (m && k && a.op == "slice" && name == "end") {
        auto d = static_cast<size_t>(
            ops::normalize_dim(a.attrs.get_int("dim"),
                               static_cast<int64_t>(a_.types[a.inputs[0]].dims.size()), "slice"));
        ok = a_.types[a.inputs[0]].dims[d] == Dim(*m) && b_.types[b.inputs[0]].dims[d] == Dim(*k);
        if (ok) result.set(name, std::numeric_limits<int64_t>::max());
      }
      OCTET_CHECK(ok, unsupported,
                  "trace: {} in {}: its {} depends on a size ({} with {}, {} with {}): use -1 "
                  "where a size is what "
                  "is left, give that dimension a number, or {}",
                  a.op, a.scope.empty() ? "the model's own forward" : "'" + a.scope + "'", name,
                  to_string(value), text(sizes_a_), to_string(other), text(sizes_b_), ways_out());
    }
    return result;
  }

  void call(const Recorded& a, const Recorded& b) {
    OCTET_CHECK(a.op == b.op && a.scope == b.scope && a.inputs.size() == b.inputs.size() &&
                    a.outputs.size() == b.outputs.size(),
                unsupported,
                "trace: {} in '{}' with {} is {} in '{}' with {}: what is called depends on a "
                "size; give that dimension a "
                "number",
                a.op, a.scope, text(sizes_a_), b.op, b.scope, text(sizes_b_));
    std::vector<ValueId> operands;
    for (size_t i = 0; i < a.inputs.size(); ++i)
      operands.push_back(id_of(a.inputs[i], b.inputs[i]));
    std::vector<ValueId> results;
    if (a.module) {
      results = g_.add_module(a.scope, a.scope, a.op, operands, types_of(a, b, operands),
                              a.module->result_names());
    } else {
      std::string name = a.scope.empty() ? a.op : a.scope + "." + a.op;
      results = g_.add_calls(name, a.op, operands, merged(a, b), a.want, a.scope);
    }
    for (size_t i = 0; i < results.size(); ++i) ids_[a.outputs[i]] = results[i];
  }

  // The types of a module's results, with named dimensions.
  std::vector<TensorType> types_of(const Recorded& a, const Recorded& b,
                                   const std::vector<ValueId>& operands) {
    std::vector<TensorType> types;
    bool sure = true;
    for (size_t i = 0; i < a.outputs.size(); ++i) {
      TensorType type = a_.types[a.outputs[i]];
      const TensorType& other = b_.types[b.outputs[i]];
      for (size_t d = 0; d < type.dims.size(); ++d) {
        if (type.dims[d] == other.dims[d]) continue;
        auto named = named_dim(type.dims[d].size(), other.dims[d].size());
        sure = sure && named;
        type.dims[d] = named ? *named : Dim(a.scope + ".size" + std::to_string(d));
      }
      types.push_back(std::move(type));
    }
    if (sure) return types;
    // What its operators say of such sizes.
    std::vector<std::optional<TensorType>> inputs;
    for (ValueId v : operands)
      inputs.push_back(v == kNone ? std::nullopt : std::optional(g_.type(v)));
    try {
      TraceOptions options;
      options.into_layers = true;
      options.sizes = options_.sizes;
      auto inner = trace(*a.module, inputs, options);
      for (size_t i = 0; i < types.size(); ++i)
        types[i] = inner->graph().type(inner->graph().outputs().at(i));
    } catch (const Error&) {
    }
    return types;
  }

  // The name of a size that is a in one run and b in the other; nullopt if it is none of them nor a
  // multiple.
  std::optional<Dim> named_dim(int64_t a, int64_t b) const {
    for (const auto& [name, size] : sizes_a_)
      if (size == a && sizes_b_.at(name) == b) return Dim(name);
    for (const auto& [name, size] : sizes_a_)
      if (a % size == 0 && b == a / size * sizes_b_.at(name))
        return multiply(Dim(name), Dim(a / size));
    return std::nullopt;
  }

  Module& root_;
  const TraceOptions& options_;
  const Recording &a_, &b_;
  const Sizes &sizes_a_, &sizes_b_;
  const std::map<const void*, std::string>& names_;
  std::vector<ValueId> ids_;
  int constants_ = 0;
  Graph g_;
};

}  // namespace

std::shared_ptr<GraphModule> trace(Module& model,
                                   const std::vector<std::optional<TensorType>>& inputs,
                                   const TraceOptions& options) {
  Sizes sizes_a, sizes_b;
  for (const auto& type : inputs) {
    if (!type) continue;
    for (size_t d = 0; d < type->dims.size(); ++d) {
      if (type->dims[d].known()) continue;
      const std::string& name = type->dims[d].name();
      auto given = options.sizes.find(name);
      int64_t size = given != options.sizes.end() ? given->second : d == 0 ? 2 : 32;
      OCTET_CHECK(size >= 1, invalid_argument, "trace: the size of {} is {}; expected 1 or more",
                  name, size);
      if (sizes_a.emplace(name, size).second)
        sizes_b.emplace(name, given == options.sizes.end() && d == 0 ? 3 : size + 16);
    }
  }
  for (const std::string& pattern : options.leaf_modules) {
    bool any = false;
    std::vector<std::string> names;
    const NamePattern compiled(pattern);
    for (auto& [path, module] : model.named_modules()) {
      any = any || compiled.matches(path);
      names.push_back(path);
    }
    OCTET_CHECK(any, not_found, "trace: leaf module '{}': {} has no such submodule{}", pattern,
                model.type_name(), did_you_mean(pattern, names));
  }
  const bool symbolic = !sizes_a.empty();
  auto run = [&](Sizes& sizes, bool larger) {
    std::vector<std::optional<TensorType>> types;
    for (const auto& type : inputs)
      types.push_back(type ? std::optional(sized(*type, sizes)) : std::nullopt);
    return std::make_shared<Tracer>(model, options, sizes, larger)->run(types);
  };
  Recording a = run(sizes_a, false);
  bool named_within = sizes_a.size() > sizes_b.size();  // by Module::infer
  std::optional<Recording> second;
  if (symbolic || named_within) second = run(sizes_b, true);
  // kept: no other tensor gets an address of these
  const std::map<std::string, Tensor> state = model.state_dict();
  std::map<const void*, std::string> names;
  for (const auto& [name, tensor] : state)
    if (tensor.defined()) names.emplace(tensor.id(), name);
  const Recording& b = second ? *second : a;
  Graph g = Builder(model, options, a, b, sizes_a, second ? sizes_b : sizes_a, names).build(inputs);
  return nn::make<GraphModule>(std::move(g), model);
}

std::shared_ptr<GraphModule> trace(Module& model, const std::vector<Tensor>& example_inputs,
                                   const TraceOptions& options) {
  std::vector<std::optional<TensorType>> fixed, open;
  int64_t batch = -1;
  bool common = true;
  for (const Tensor& x : example_inputs) {
    fixed.push_back(x.defined() ? std::optional(x.type()) : std::nullopt);
    open.push_back(fixed.back());
    if (!x.defined() || x.dim() == 0) continue;
    common = common && (batch < 0 || batch == x.size(0));
    batch = x.size(0);
    open.back()->dims[0] = Dim("N");
  }
  if (common && batch > 0) {
    try {
      return trace(model, open, options);
      // depends on the batch's size, or errs with any: the types as given decide
    } catch (const Error&) {
    }
  }
  return trace(model, fixed, options);
}

namespace {
// Calls a module that someone else owns.
struct Caller : nn::Module {
  explicit Caller(Module& module) {
    add_child("module", nn::ModulePtr(&module, [](Module*) {}));
  }
  using Module::forward;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return (*submodule("module"))(inputs);
  }
};
}  // namespace

std::vector<TensorType> infer_types(Module& module,
                                    const std::vector<std::optional<TensorType>>& inputs) {
  Caller caller(module);
  TraceOptions options;
  options.leaf_modules = {"module"};
  auto traced = trace(caller, inputs, options);
  std::vector<TensorType> types;
  for (ValueId v : traced->graph().outputs()) types.push_back(traced->graph().type(v));
  return types;
}

}  // namespace octet::graph
