#pragma once
// Modules: user models are classes, as in PyTorch.
//
//   struct Net : nn::Module {
//     nn::Slot conv = slot("conv", nn::Conv2d(1, 8, 3));
//     nn::Slot relu = slot("relu", nn::ReLU());
//     Tensor forward(Tensor x) override { return relu(conv(x)); }
//   };
//   auto model = nn::make<Net>();
//   model->eval();
//   Tensor y = model->forward(x);
//
// A Slot is a place, not a module: calling it calls whatever fills it now. So fuse_modules, prepare and convert can put other
// modules there, and `forward` stays as written.

#include <any>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

#include "octet/base/error.h"
#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet::nn {

class Module;
using ModulePtr = std::shared_ptr<Module>;

// A named place for a submodule, a member of the class that declares it. It finds its owner by its own offset in it, which
// a copy of the class keeps: copied models just work.
class Slot {
 public:
  // Only Module::slot makes them, in place (a Slot that is returned is the member itself).
  Slot(Module* owner, const std::string& name, ModulePtr module);
  // Not defaulted: a trivially copyable Slot could be returned in registers, and would not know its own address.
  Slot(const Slot& other) : offset_(other.offset_), index_(other.index_), name_(other.name_) {}
  Slot& operator=(const Slot&) = delete;

  Module& operator*() const { return filled(); }
  Module* operator->() const { return &filled(); }
  const ModulePtr& get() const;  // null if nothing fills it
  void set(ModulePtr module) const;  // what fills the place from now on

  // The module as a T; Error if another class fills the place.
  template <typename T>
  T& as() const;

  // Calls the module that fills it.
  Tensor operator()(const Tensor& x) const;
  Tensor operator()(const Tensor& a, const Tensor& b) const;  // its first result
  std::vector<Tensor> operator()(const std::vector<Tensor>& inputs) const;
  // The same for users' own types (Value, below); `Out` is what the module makes of one.
  template <typename Out, typename In>
  Out call(const In& x) const;

 private:
  ModulePtr& place() const;
  Module& filled() const;  // Error if nothing fills it
  ptrdiff_t offset_;
  mutable size_t index_;  // where it was last among the owner's children
  std::string name_;
};

// A tensor that is a parameter (trained) or a buffer (kept with the model, not trained) of the class that declares it.
class Parameter : public Tensor {
 public:
  Parameter(Module* owner, const std::string& name, Tensor value, bool buffer = false);
  Parameter(const Parameter&) = default;
  Parameter& operator=(const Parameter& other) = default;
  Parameter& operator=(const Tensor& value) {
    Tensor::operator=(value);
    return *this;
  }
};

class Module {
 public:
  Module() = default;
  // Submodules are copied deeply; the tensors stay shared until clone() parts them.
  Module(const Module& other);
  Module(Module&& other) = default;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  // What the module computes. A module of one input and one output overrides the first; others the second.
  virtual Tensor forward(Tensor x);
  virtual std::vector<Tensor> forward(std::vector<Tensor> inputs);

  // The types of forward's results for inputs of these types: for modules whose forward looks at values (so that it cannot be
  // found out by running it on tensors without data). A size that depends on values is a named dimension. nullopt, the default:
  // run forward to know.
  virtual std::optional<std::vector<TensorType>> infer(const std::vector<TensorType>& inputs) const;
  // What forward's results are called in a graph, if there are several; empty: they have numbers.
  virtual std::vector<std::string> result_names() const { return {}; }

  // forward and then the hooks: what Slots call.
  Tensor operator()(const Tensor& x);
  std::vector<Tensor> operator()(const std::vector<Tensor>& inputs);

  // -- modes -----------------------------------------------------------------------------------
  virtual void train(bool mode = true);  // and all submodules
  void eval() { train(false); }
  bool training() const { return training_; }

  // -- structure ---------------------------------------------------------------------------------
  // Submodules in the order of declaration, by name; names of nested ones are joined by '.': "layer1.0.conv".
  const std::vector<std::pair<std::string, ModulePtr>>& children() const { return children_; }
  std::vector<std::pair<std::string, Module*>> named_modules();  // this one first, as ""
  std::vector<std::pair<std::string, Tensor*>> named_parameters();
  std::vector<Tensor> parameters();  // handles of the same tensors, each once: what optimizers take
  std::vector<std::pair<std::string, Tensor*>> named_buffers();
  // The parameters and buffers that the class itself declares, undefined ones among them.
  std::vector<std::pair<std::string, Tensor*>> own_tensors();
  // The submodule at a path. Error with the nearest names if there is none.
  ModulePtr submodule(std::string_view path) const;
  bool has_submodule(std::string_view path) const;
  // Puts another module at a path. Error if there is no such place.
  void set_submodule(std::string_view path, ModulePtr module);
  void apply(const std::function<void(Module&)>& fn);  // submodules first
  // Parameters and buffers whose number is not known when the class is written (the layers of an LSTM): as PyTorch's
  // register_parameter. The reference stays valid until the next one is registered. Error if the name is taken.
  Tensor& register_parameter(const std::string& name, Tensor value);
  Tensor& register_buffer(const std::string& name, Tensor value);
  // One of this module's own parameters or buffers by name, declared or registered. Error with the nearest names.
  Tensor& tensor(std::string_view name);
  // Adds a place that the class did not declare; its number among the children.
  size_t add_child(const std::string& name, ModulePtr module);
  size_t remove_child(const std::string& name);  // how many were removed (0 or 1)

  // -- state -------------------------------------------------------------------------------------
  // All parameters, buffers and extra state by path. The tensors are the model's own, not copies.
  std::map<std::string, Tensor> state_dict();
  // Sets them. Error naming every missing and every unexpected key, and every wrong shape, dtype or quantization, with what
  // to do; nothing is changed then.
  void load_state_dict(const std::map<std::string, Tensor>& state);
  void zero_grad();                          // of all parameters
  void requires_grad(bool on);               // of all parameters

  // State that is not a declared parameter or buffer: a quantized module's packed weight, an observer's statistics.
  // set_extra_state gets exactly the keys that extra_state gave; it checks the values (Error) before it changes anything.
  virtual std::map<std::string, Tensor> extra_state() const { return {}; }
  virtual void set_extra_state(const std::map<std::string, Tensor>& state);

  // A deep copy: no tensor is shared with it, and what was shared inside (one module in two places, one tensor in two
  // modules) is shared inside the copy. Only for modules made by nn::make or held by a Slot (they know their class).
  virtual ModulePtr clone() const;

  // What to give the class's maker (registry.h) to get a module of the same structure: {"in_features": 4, ...}. Modules
  // that can be saved whole and have constructor arguments override it.
  virtual Attrs config() const { return {}; }

  // -- hooks: called with the module, its inputs and its outputs (which they may replace) after every call ----------------
  using Hook = std::function<void(Module&, const std::vector<Tensor>& inputs, std::vector<Tensor>& outputs)>;
  void add_forward_hook(std::string name, Hook hook);
  void remove_forward_hook(std::string_view name);
  bool has_forward_hook(std::string_view name) const;  // or a pre-hook

  // Called before forward, with the inputs, which they may replace.
  using PreHook = std::function<void(Module&, std::vector<Tensor>& inputs)>;
  void add_forward_pre_hook(std::string name, PreHook hook);

  // Moves `first`'s pre-hooks and `last`'s hooks here: for a module that takes the place of the sequence first..last.
  void take_hooks(Module& first, Module& last);

  // This module as a T; Error if it is of another class.
  template <typename T>
  T& as() {
    if (auto* t = dynamic_cast<T*>(this)) return *t;
    wrong_class(typeid(T));
  }

  // The name of the class, "Conv2d"; and what __repr__ shows between the parentheses.
  virtual std::string type_name() const;
  virtual std::string extra_repr() const { return ""; }

  // How the quantization workflows treat this module: a quant::QConfig, or nullptr for "leave it float". Empty: as the
  // module around it. (This floor does not know QConfig.)
  std::any qconfig;
  // What a workflow wants to remember with the module it has prepared.
  std::any prepared;

 protected:
  template <typename M>
  Slot slot(const std::string& name, M module);
  template <typename M>
  Slot slot(const std::string& name, std::shared_ptr<M> module) {
    return Slot(this, name, std::move(module));
  }
  Slot slot(const std::string& name, ModulePtr module) { return Slot(this, name, std::move(module)); }
  // An undefined value stands for an omitted one (no bias): it is not listed. A parameter requires a gradient.
  Parameter parameter(const std::string& name, Tensor value) { return Parameter(this, name, std::move(value)); }
  Parameter buffer(const std::string& name, Tensor value) { return Parameter(this, name, std::move(value), true); }

 private:
  friend class Slot;
  friend class Parameter;
  template <typename M, typename... Args>
  friend std::shared_ptr<M> make(Args&&...);

  struct Entry {
    std::string name;
    ptrdiff_t offset;  // of the member in the object; of registered ones their index in registered_
    bool buffer;
    bool registered = false;
  };
  Tensor* tensor_at(const Entry& entry) {
    if (entry.registered) return &registered_[static_cast<size_t>(entry.offset)];
    return reinterpret_cast<Parameter*>(reinterpret_cast<char*>(this) + entry.offset);
  }
  // forward with the hooks around it.
  Tensor call(const Tensor& x);
  std::vector<Tensor> call(const std::vector<Tensor>& inputs);
  Tensor& register_tensor(const std::string& name, Tensor value, bool buffer);
  [[noreturn]] void wrong_class(const std::type_info& expected) const;
  void collect(const std::string& prefix, bool buffers, std::vector<std::pair<std::string, Tensor*>>& out);

  bool training_ = true;
  std::vector<std::pair<std::string, ModulePtr>> children_;
  std::vector<Entry> tensors_;
  std::vector<Tensor> registered_;
  std::vector<std::pair<std::string, Hook>> hooks_;
  std::vector<std::pair<std::string, PreHook>> pre_hooks_;
  ModulePtr (*copy_)(const Module&) = nullptr;  // set by make: copies the class
};

// A module of class M that can be cloned.
template <typename M, typename... Args>
std::shared_ptr<M> make(Args&&... args) {
  auto module = std::make_shared<M>(std::forward<Args>(args)...);
  static_cast<Module&>(*module).copy_ = [](const Module& m) -> ModulePtr { return std::make_shared<M>(static_cast<const M&>(m)); };
  return module;
}

// A user's own type that wraps tensors can flow through modules: it is taken apart at each module call and put together again,
// so graphs, observers and files see its tensors. Specialise
//   template <> struct octet::nn::Value<SparseConvTensor> {
//     static std::vector<Tensor> tensors(const SparseConvTensor& x) { return {x.features, x.indices}; }
//     static SparseConvTensor from(const std::vector<Tensor>& t) { return {t.at(0), t.at(1)}; }
//     static std::vector<std::string> names() { return {"features", "indices"}; }
//   };
// Only float32 tensors of it are quantized.
template <typename T>
struct Value;
template <>
struct Value<Tensor> {
  static std::vector<Tensor> tensors(const Tensor& x) { return {x}; }
  static Tensor from(const std::vector<Tensor>& t) { return t.at(0); }
  static std::vector<std::string> names() { return {}; }
};

// A module from an In to an Out, which have a Value.
template <typename In, typename Out = In>
class ValueModule : public Module {
 public:
  using Module::forward;
  virtual Out forward_value(In x) = 0;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return Value<Out>::tensors(forward_value(Value<In>::from(inputs)));
  }
  std::vector<std::string> result_names() const override { return Value<Out>::names(); }
};

template <typename Out, typename In>
Out Slot::call(const In& x) const {
  return Value<Out>::from((*this)(Value<In>::tensors(x)));
}

template <typename T>
T& Slot::as() const {
  return filled().as<T>();
}

template <typename M>
Slot Module::slot(const std::string& name, M module) {
  return Slot(this, name, make<M>(std::move(module)));
}

// PyTorch's form:
//   Net(
//     (conv): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
//   )
std::string to_string(const Module& module);

// "octet::nn::Conv2d" -> "Conv2d".
std::string class_name(const std::type_info& type);

}  // namespace octet::nn
