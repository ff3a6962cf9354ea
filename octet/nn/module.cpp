#include "octet/nn/module.h"

#include <algorithm>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/trace.h"

namespace octet::nn {

// -- Slot and Parameter ---------------------------------------------------------------------------

Slot::Slot(Module* owner, const std::string& name, ModulePtr module)
    : offset_(reinterpret_cast<char*>(this) - reinterpret_cast<char*>(owner)),
      index_(owner->add_child(name, std::move(module))),
      name_(name) {}

namespace {
template <typename T>
Module* owner_of(T* member, ptrdiff_t offset) {
  return reinterpret_cast<Module*>(
      reinterpret_cast<char*>(const_cast<std::remove_const_t<T>*>(member)) - offset);
}
}  // namespace

ModulePtr& Slot::place() const {
  Module* owner = owner_of(this, offset_);
  auto& children = owner->children_;
  // others were added or removed
  if (index_ >= children.size() || children[index_].first != name_) {
    index_ = 0;
    while (index_ < children.size() && children[index_].first != name_) ++index_;
    OCTET_CHECK(index_ < children.size(), invalid_argument, "{}: the submodule '{}' was removed",
                owner->type_name(), name_);
  }
  return children[index_].second;
}
Module& Slot::filled() const {
  const ModulePtr& module = place();
  OCTET_CHECK(module, invalid_argument, "{}: nothing fills the place '{}'",
              owner_of(this, offset_)->type_name(), name_);
  return *module;
}
const ModulePtr& Slot::get() const { return place(); }
void Slot::set(ModulePtr module) const {
  if (module) module->require_made(name_);
  place() = std::move(module);
}
Tensor Slot::operator()(const Tensor& x) const { return filled()(x); }
Tensor Slot::operator()(const Tensor& a, const Tensor& b) const { return filled()({a, b}).at(0); }
std::vector<Tensor> Slot::operator()(const std::vector<Tensor>& inputs) const {
  return filled()(inputs);
}

Tensor Slot::operate(const char* name, const char* op, const std::vector<Tensor>& operands,
                     const Attrs& attrs) const {
  Module& module = filled();
  try {
    return module.operation(op, operands, attrs);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}.{}: {}", name_, name, e.what()));
  }
}
Tensor Slot::add(const Tensor& x, const Tensor& y) const { return operate("add", "add", {x, y}); }
Tensor Slot::add_scalar(const Tensor& x, double y) const {
  return operate("add_scalar", "add_scalar", {x}, {{"value", y}});
}
Tensor Slot::add_relu(const Tensor& x, const Tensor& y) const {
  return operate("add_relu", "add", {x, y}, {{"activation", std::string("relu")}});
}
Tensor Slot::sub(const Tensor& x, const Tensor& y) const { return operate("sub", "sub", {x, y}); }
Tensor Slot::mul(const Tensor& x, const Tensor& y) const { return operate("mul", "mul", {x, y}); }
Tensor Slot::mul_scalar(const Tensor& x, double y) const {
  return operate("mul_scalar", "mul_scalar", {x}, {{"value", y}});
}
Tensor Slot::matmul(const Tensor& x, const Tensor& y) const {
  return operate("matmul", "matmul", {x, y});
}
Tensor Slot::cat(const std::vector<Tensor>& xs, int64_t dim) const {
  return operate("cat", "cat", xs, {{"dim", dim}});
}

Parameter::Parameter(Module* owner, const std::string& name, Tensor value, bool buffer)
    : Tensor(std::move(value)) {
  for (const auto& entry : owner->tensors_)
    OCTET_CHECK(entry.name != name, invalid_argument, "{}: two parameters are named '{}'",
                owner->type_name(), name);
  owner->tensors_.push_back(
      {name, reinterpret_cast<char*>(this) - reinterpret_cast<char*>(owner), buffer});
  if (!buffer && defined()) autograd::set_requires_grad(*this);
}

// -- Module ---------------------------------------------------------------------------------------

namespace {

// What the clone() under way has copied: lives as long as the outermost call.
struct Copies {
  std::map<const Module*, ModulePtr> modules;
  std::map<const void*, Tensor> tensors;
};
thread_local std::unique_ptr<Copies> t_copies;
class CopiesScope {
 public:
  CopiesScope() : outermost_(!t_copies) {
    if (outermost_) t_copies = std::make_unique<Copies>();
  }
  ~CopiesScope() {
    if (outermost_) t_copies.reset();
  }

 private:
  bool outermost_;
};

}  // namespace

Module::Module() = default;
Module::Module(Module&& other) noexcept = default;
Module::~Module() = default;

Module::Module(const Module& other)
    : qconfig(other.qconfig),
      prepared(other.prepared),
      training_(other.training_),
      tensors_(other.tensors_),
      registered_(other.registered_),
      hooks_(other.hooks_),
      pre_hooks_(other.pre_hooks_),
      awaited_(other.awaited_) {
  CopiesScope scope;
  for (const auto& [name, child] : other.children_)
    children_.emplace_back(name, child ? child->clone() : nullptr);
}

ModulePtr Module::clone() const {
  require_made("clone");
  CopiesScope scope;
  if (auto it = t_copies->modules.find(this); it != t_copies->modules.end()) return it->second;
  ModulePtr copy = copy_of_class();
  t_copies->modules[this] = copy;
  for (const Entry& entry : copy->tensors_) {
    Tensor* t = copy->tensor_at(entry);
    if (!t->defined()) continue;
    Tensor& parted = t_copies->tensors[t->id()];
    if (!parted.defined()) {
      parted = t->detach().clone();
      if (autograd::requires_grad(*t)) autograd::set_requires_grad(parted);
    }
    *t = parted;
  }
  return copy;
}

void Module::require_made(std::string_view who) const {
  OCTET_CHECK(
      is_made(), invalid_argument,
      "{}: this {} was not made by nn::make, so it cannot be copied, and hooks and observers "
      "would not see calls of its forward: write nn::make<{}>(...)",
      who, type_name(), class_name(class_type()));
}

Tensor Module::operation(const char* op, const std::vector<Tensor>&, const Attrs&) {
  OCTET_FAIL(
      invalid_argument,
      "a {} has no operation '{}' between tensors: put a quant::FloatFunctional in the place",
      type_name(), op);
}

Tensor Module::forward(Tensor) {
  OCTET_FAIL(unsupported,
             "{}: forward(Tensor) is not defined; override it, or the form for several tensors",
             type_name());
}

std::vector<Tensor> Module::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == 1, invalid_argument, "{}: {} inputs given; it takes one",
              type_name(), inputs.size());
  return {forward(std::move(inputs[0]))};
}

std::optional<std::vector<TensorType>> Module::infer(const std::vector<TensorType>&) const {
  return std::nullopt;
}

namespace {
thread_local std::shared_ptr<ModuleTrace> t_sees_all;

// What follows one of these tensors through modules, or else all modules; null if nothing does.
std::shared_ptr<ModuleTrace> module_trace_of(const std::vector<Tensor>& inputs) {
  for (const Tensor& x : inputs)
    if (x.has_slots())
      if (auto trace = std::dynamic_pointer_cast<ModuleTrace>(ops::trace_of(x))) return trace;
  return t_sees_all;
}
}  // namespace

SeeAllModules::SeeAllModules(std::shared_ptr<ModuleTrace> trace)
    : before_(std::exchange(t_sees_all, std::move(trace))) {}
SeeAllModules::~SeeAllModules() { t_sees_all = std::move(before_); }

Tensor Module::operator()(const Tensor& x) {
  if (x.has_slots() || t_sees_all)
    if (auto trace = module_trace_of({x}))
      return trace
          ->on_module(*this, {x},
                      [this](const auto& inputs) { return std::vector{call(inputs.at(0))}; })
          .at(0);
  return call(x);
}

std::vector<Tensor> Module::operator()(const std::vector<Tensor>& inputs) {
  if (auto trace = module_trace_of(inputs))
    return trace->on_module(*this, inputs, [this](const auto& given) { return call(given); });
  return call(inputs);
}

namespace {
// The calls of modules on this thread, innermost first: a list through the stack.
thread_local const InCall* t_innermost = nullptr;
}  // namespace

InCall::InCall(const Module& module) : module_(module), around_(std::exchange(t_innermost, this)) {}
InCall::~InCall() { t_innermost = around_; }
bool InCall::is_in(const Module& module) { return t_innermost && &t_innermost->module_ == &module; }

bool Module::in_call() const { return InCall::is_in(*this); }

Tensor Module::call(const Tensor& x) {
  check_own_state();
  InCall in_call(*this);
  if (hooks_.empty() && pre_hooks_.empty()) return forward(x);
  std::vector<Tensor> inputs{x};
  for (size_t i = 0; i < pre_hooks_.size(); ++i) pre_hooks_[i].second(*this, inputs);
  std::vector<Tensor> outputs{forward(inputs.at(0))};
  for (size_t i = 0; i < hooks_.size(); ++i) hooks_[i].second(*this, inputs, outputs);
  return outputs.at(0);
}

std::vector<Tensor> Module::call(const std::vector<Tensor>& given) {
  check_own_state();
  InCall in_call(*this);
  if (hooks_.empty() && pre_hooks_.empty()) return forward(given);
  std::vector<Tensor> inputs = given;
  for (size_t i = 0; i < pre_hooks_.size(); ++i) pre_hooks_[i].second(*this, inputs);
  std::vector<Tensor> outputs = forward(inputs);
  for (size_t i = 0; i < hooks_.size(); ++i) hooks_[i].second(*this, inputs, outputs);
  return outputs;
}

void Module::train(bool mode) {
  training_ = mode;
  for (auto& [name, child] : children_)
    if (child) child->train(mode);
}

Tensor& Module::register_tensor(const std::string& name, Tensor value, bool buffer) {
  for (const auto& entry : tensors_)
    OCTET_CHECK(entry.name != name, invalid_argument, "{}: two parameters are named '{}'",
                type_name(), name);
  registered_.push_back(std::move(value));
  tensors_.push_back({name, static_cast<ptrdiff_t>(registered_.size() - 1), buffer, true});
  if (!buffer && registered_.back().defined()) autograd::set_requires_grad(registered_.back());
  return registered_.back();
}
Tensor& Module::register_parameter(const std::string& name, Tensor value) {
  return register_tensor(name, std::move(value), false);
}
Tensor& Module::register_buffer(const std::string& name, Tensor value) {
  return register_tensor(name, std::move(value), true);
}

Tensor& Module::tensor(std::string_view name) {
  std::vector<std::string> names;
  for (const Entry& entry : tensors_) {
    if (entry.name == name) return *tensor_at(entry);
    names.push_back(entry.name);
  }
  OCTET_FAIL(not_found, "{} has no parameter or buffer '{}'{}", type_name(), name,
             did_you_mean(name, names));
}

size_t Module::add_child(const std::string& name, ModulePtr module) {
  OCTET_CHECK(!name.empty() && name.find('.') == std::string::npos, invalid_argument,
              "{}: a submodule cannot be named '{}': names are not empty and have no dots",
              type_name(), name);
  for (const auto& child : children_)
    OCTET_CHECK(child.first != name, invalid_argument, "{}: two submodules are named '{}'",
                type_name(), name);
  if (module) module->require_made(name);
  children_.emplace_back(name, std::move(module));
  return children_.size() - 1;
}

size_t Module::remove_child(const std::string& name) {
  return std::erase_if(children_, [&](const auto& child) { return child.first == name; });
}

namespace {
std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

void walk(Module& module, const std::string& prefix,
          std::vector<std::pair<std::string, Module*>>& out) {
  for (const auto& item : out)
    if (item.second == &module) return;  // shared: named once, as in PyTorch
  out.emplace_back(prefix, &module);
  for (const auto& [name, child] : module.children())
    if (child) walk(*child, join(prefix, name), out);
}
}  // namespace

std::vector<std::pair<std::string, Module*>> Module::named_modules() {
  std::vector<std::pair<std::string, Module*>> all;
  walk(*this, "", all);
  return all;
}

std::vector<std::pair<std::string, Tensor*>> Module::own_tensors() {
  std::vector<std::pair<std::string, Tensor*>> all;
  for (const Entry& entry : tensors_) all.emplace_back(entry.name, tensor_at(entry));
  return all;
}

void Module::collect(const std::string& prefix, bool buffers,
                     std::vector<std::pair<std::string, Tensor*>>& out) {
  for (const Entry& entry : tensors_)
    if (entry.buffer == buffers && tensor_at(entry)->defined())
      out.emplace_back(join(prefix, entry.name), tensor_at(entry));
}

std::vector<std::pair<std::string, Tensor*>> Module::named_parameters() {
  std::vector<std::pair<std::string, Tensor*>> all;
  for (auto& [path, module] : named_modules()) module->collect(path, false, all);
  return all;
}

std::vector<Tensor> Module::parameters() {
  std::vector<Tensor> all;
  for (auto& named : named_parameters()) {
    const Tensor& tensor = *named.second;
    if (std::none_of(all.begin(), all.end(),
                     [&](const Tensor& t) { return t.id() == tensor.id(); }))
      all.push_back(tensor);
  }
  return all;
}

std::vector<std::pair<std::string, Tensor*>> Module::named_buffers() {
  std::vector<std::pair<std::string, Tensor*>> all;
  for (auto& [path, module] : named_modules()) module->collect(path, true, all);
  return all;
}

namespace {
// "a.b.c" -> ("a.b", "c"); "c" -> ("", "c").
std::pair<std::string_view, std::string_view> split_path(std::string_view path) {
  size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return {"", path};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

[[noreturn]] void no_such_module(const Module& root, std::string_view path) {
  std::vector<std::string> names;
  for (const auto& item : const_cast<Module&>(root).named_modules())
    if (!item.first.empty()) names.push_back(item.first);
  OCTET_FAIL(not_found, "{} has no submodule '{}'{}", root.type_name(), path,
             did_you_mean(path, names));
}

using Children = std::vector<std::pair<std::string, ModulePtr>>;
const ModulePtr* find_child(const Children& children, std::string_view name) {
  for (const auto& child : children)
    if (child.first == name) return &child.second;
  return nullptr;
}

// Null if a part of the path is not there.
const ModulePtr* find_path(const Children& children, std::string_view path) {
  const Children* at = &children;
  const ModulePtr* found = nullptr;
  for (size_t i = 0; i <= path.size();) {
    size_t dot = std::min(path.find('.', i), path.size());
    found = find_child(*at, path.substr(i, dot - i));
    if (!found || !*found) return nullptr;
    at = &(*found)->children();
    i = dot + 1;
  }
  return found;
}
}  // namespace

bool Module::has_submodule(std::string_view path) const { return find_path(children_, path); }

ModulePtr Module::submodule(std::string_view path) const {
  const ModulePtr* found = find_path(children_, path);
  if (!found) no_such_module(*this, path);
  return *found;
}

void Module::set_submodule(std::string_view path, ModulePtr module) {
  if (module) module->require_made(path);
  auto [parent, name] = split_path(path);
  Module* at = parent.empty() ? this : submodule(parent).get();
  for (auto& child : at->children_) {
    if (child.first != name) continue;
    child.second = std::move(module);
    return;
  }
  no_such_module(*this, path);
}

void Module::apply(const std::function<void(Module&)>& fn) {
  for (auto& [name, child] : children_)
    if (child) child->apply(fn);
  fn(*this);
}

// -- state ----------------------------------------------------------------------------------------

std::map<std::string, Tensor> Module::state_dict() {
  check_state();
  return collect_state();
}

std::map<std::string, Tensor> Module::collect_state() {
  std::map<std::string, Tensor> state;
  for (auto& list : {named_parameters(), named_buffers()})
    for (auto& [name, tensor] : list) state[name] = *tensor;
  for (auto& [path, module] : named_modules())
    for (auto& [name, tensor] : module->extra_state()) state[join(path, name)] = tensor;
  return state;
}

void Module::set_extra_state(const std::map<std::string, Tensor>&) {}

void Module::load_state_dict(const std::map<std::string, Tensor>& state) {
  std::map<std::string, Tensor*> declared;
  for (auto& list : {named_parameters(), named_buffers()})
    for (auto& [name, tensor] : list) declared[name] = tensor;
  std::map<std::string, Tensor> mine = collect_state();
  std::vector<std::string> missing, unexpected, wrong, names;
  for (auto& [name, tensor] : mine) names.push_back(name);
  for (auto& [name, tensor] : mine) {
    auto it = state.find(name);
    if (it == state.end() || !it->second.defined()) {
      missing.push_back(name);
    } else if (tensor.defined() && it->second.is_quantized() != tensor.is_quantized()) {
      wrong.push_back(fmt::format("{} is {} in the state dict and {} in the model ({})", name,
                                  to_string(it->second.dtype()), to_string(tensor.dtype()),
                                  it->second.is_quantized()
                                      ? "prepare and convert the model first, then load"
                                      : "load it before prepare and convert"));
    } else if (declared.count(name) && it->second.shape() != tensor.shape()) {
      wrong.push_back(fmt::format("{} has shape {} in the state dict and {} in the model", name,
                                  octet::to_string(it->second.shape()),
                                  octet::to_string(tensor.shape())));
    }
  }
  for (const auto& [name, tensor] : state)
    if (!mine.count(name)) unexpected.push_back(name + did_you_mean(name, names));
  std::string message;
  auto add = [&](const char* what, const std::vector<std::string>& list) {
    if (!list.empty())
      message += fmt::format("{}{}: {}", message.empty() ? "" : "; ", what, fmt::join(list, ", "));
  };
  add("missing", missing);
  add("unexpected", unexpected);
  add("wrong", wrong);
  OCTET_CHECK(message.empty(), invalid_argument, "{}: the state dict does not fit: {}", type_name(),
              message);
  // Extra state first: its owners may still refuse theirs.
  for (auto& [path, module] : named_modules()) {
    std::map<std::string, Tensor> extra = module->extra_state();
    if (extra.empty()) continue;
    for (auto& [name, tensor] : extra) tensor = state.at(join(path, name)).detach().clone();
    module->set_extra_state(extra);
  }
  autograd::NoGrad no_grad;
  for (auto& [name, tensor] : declared) {
    const Tensor& value = state.at(name);
    if (value.is_quantized()) *tensor = value.clone();
    // in place: optimizers hold the same tensors
    else
      tensor->copy_from(value.detach().to(tensor->dtype()));
  }
  apply([](Module& module) { module.awaited_.clear(); });
}

void Module::check_own_state() const {
  if (!awaited_.empty()) OCTET_FAIL(not_calibrated, "{}: {}", type_name(), awaited_);
}

void Module::check_state() const {
  check_own_state();
  for (const auto& [name, child] : children_)
    if (child) child->check_state();
}

void Module::zero_grad() {
  for (auto& [name, tensor] : named_parameters()) autograd::zero_grad(*tensor);
}

void Module::requires_grad(bool on) {
  for (auto& [name, tensor] : named_parameters()) autograd::set_requires_grad(*tensor, on);
}

// -- hooks and printing ---------------------------------------------------------------------------

void Module::add_forward_hook(std::string name, Hook hook) {
  hooks_.emplace_back(std::move(name), std::move(hook));
}

void Module::remove_forward_hook(std::string_view name) {
  std::erase_if(hooks_, [&](const auto& hook) { return hook.first == name; });
  std::erase_if(pre_hooks_, [&](const auto& hook) { return hook.first == name; });
}

bool Module::has_forward_hook(std::string_view name) const {
  auto is = [&](const auto& hook) { return hook.first == name; };
  return std::any_of(hooks_.begin(), hooks_.end(), is) ||
         std::any_of(pre_hooks_.begin(), pre_hooks_.end(), is);
}

void Module::add_forward_pre_hook(std::string name, PreHook hook) {
  pre_hooks_.emplace_back(std::move(name), std::move(hook));
}

void Module::take_hooks(Module& first, Module& last) {
  for (auto& hook : first.pre_hooks_) pre_hooks_.push_back(std::move(hook));
  for (auto& hook : last.hooks_) hooks_.push_back(std::move(hook));
  first.pre_hooks_.clear();
  last.hooks_.clear();
}

std::string Module::type_name() const { return class_name(class_type()); }

void Module::wrong_class(const std::type_info& expected) const {
  OCTET_FAIL(invalid_argument, "this module is a {}, not a {}", type_name(), class_name(expected));
}

namespace {
std::string print(const Module& module, const std::string& indent) {
  std::string out = module.type_name() + "(" + module.extra_repr();
  if (module.children().empty()) return out + ")";
  out += "\n";
  for (const auto& [name, child] : module.children())
    out +=
        fmt::format("{}  ({}): {}\n", indent, name, child ? print(*child, indent + "  ") : "None");
  return out + indent + ")";
}
}  // namespace

std::string to_string(const Module& module) { return print(module, ""); }

}  // namespace octet::nn
