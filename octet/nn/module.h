#pragma once
// Modules: user models are classes, as in PyTorch.
//
//   struct Net : nn::Module {
//     nn::Slot conv = slot("conv", nn::Conv2d(1, 8, 3));
//     nn::Slot relu = slot("relu", nn::ReLU());
//     Tensor forward(Tensor x) override { return relu(conv(x)); }
//   };
//
//   auto model = nn::make<Net>();
//   model->eval();
//   Tensor y = model->forward(x);
//
// A Slot is a place, not a module: calling it calls whatever fills it now. So fuse_modules, prepare
// and convert can put other modules there, and `forward` stays as written.
//
// Every module of a model is made by nn::make, which Slots and containers use for the modules they
// are given. conv(x) and conv->forward(x) are then the same call: hooks, observers and traces see
// it (Made, below).

#include <any>
#include <concepts>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "octet/base/error.h"
#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet::nn {

class Module;
using ModulePtr = std::shared_ptr<Module>;

// A named place for a submodule, a member of the class that declares it. It finds its owner by its
// own offset in it, which a copy of the class keeps: copied models just work.
class Slot {
 public:
  // Only Module::slot makes them, in place (a Slot that is returned is the member itself).
  Slot(Module* owner, const std::string& name, ModulePtr module);
  // Not defaulted: a trivially copyable Slot could be returned in registers, and would not know its
  // own address.
  Slot(const Slot& other) : offset_(other.offset_), index_(other.index_), name_(other.name_) {}
  Slot& operator=(const Slot&) = delete;

  Module& operator*() const { return filled(); }
  Module* operator->() const { return &filled(); }
  const ModulePtr& get() const;      // null if nothing fills it
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

  // Operations between tensors, where a FloatFunctional (or what convert makes of one) fills the
  // place. Error naming the place and the class if another module does.
  Tensor add(const Tensor& x, const Tensor& y) const;
  Tensor add_scalar(const Tensor& x, double y) const;
  Tensor add_relu(const Tensor& x, const Tensor& y) const;
  Tensor sub(const Tensor& x, const Tensor& y) const;
  Tensor mul(const Tensor& x, const Tensor& y) const;
  Tensor mul_scalar(const Tensor& x, double y) const;
  Tensor matmul(const Tensor& x, const Tensor& y) const;
  Tensor cat(const std::vector<Tensor>& xs, int64_t dim = 0) const;

 private:
  ModulePtr& place() const;
  Tensor operate(const char* name, const char* op, const std::vector<Tensor>& operands,
                 const Attrs& attrs = {}) const;
  Module& filled() const;  // Error if nothing fills it
  ptrdiff_t offset_;
  mutable size_t index_;  // where it was last among the owner's children
  std::string name_;
};

// A tensor that is a parameter (trained) or a buffer (kept with the model, not trained) of the
// class that declares it.
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
  Module();
  // Submodules are copied deeply; the tensors stay shared until clone() parts them.
  Module(const Module& other);
  Module(Module&& other) noexcept;
  Module& operator=(const Module&) = delete;
  virtual ~Module();

  // What the module computes. A module of one input and one output overrides the first; others the
  // second. Calling it on a module that nn::make made is the same as operator(), but from within
  // the module's own call (its forward, its hooks), where it is the plain function. On other
  // objects it passes by hooks.
  virtual Tensor forward(Tensor x);
  virtual std::vector<Tensor> forward(std::vector<Tensor> inputs);

  // The types of forward's results for inputs of these types: for modules whose forward looks at
  // values (so that it cannot be found out by running it on tensors without data). A size that
  // depends on values is a named dimension. nullopt, the default: run forward to know.
  virtual std::optional<std::vector<TensorType>> infer(const std::vector<TensorType>& inputs) const;
  // What forward's results are called in a graph, if there are several; empty: they have numbers.
  virtual std::vector<std::string> result_names() const { return {}; }

  // Pre-hooks, forward and hooks: what Slots call.
  Tensor operator()(const Tensor& x);
  std::vector<Tensor> operator()(const std::vector<Tensor>& inputs);

  // -- modes -----------------------------------------------------------------------------------
  virtual void train(bool mode = true);  // and all submodules
  void eval() { train(false); }
  bool training() const { return training_; }

  // -- structure ---------------------------------------------------------------------------------
  // Submodules in the order of declaration, by name; names of nested ones are joined by '.':
  // "layer1.0.conv".
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
  // Puts another module at a path. Error if there is no such place, or if nn::make did not make the
  // module.
  void set_submodule(std::string_view path, ModulePtr module);
  void apply(const std::function<void(Module&)>& fn);  // submodules first
  // Parameters and buffers whose number is not known when the class is written (the layers of an
  // LSTM): as PyTorch's register_parameter. The reference stays valid until the next one is
  // registered. Error if the name is taken.
  Tensor& register_parameter(const std::string& name, Tensor value);
  Tensor& register_buffer(const std::string& name, Tensor value);
  // One of this module's own parameters or buffers by name, declared or registered. Error with the
  // nearest names.
  Tensor& tensor(std::string_view name);
  // Adds a place that the class did not declare; its number among the children. Error if nn::make
  // did not make the module.
  size_t add_child(const std::string& name, ModulePtr module);
  size_t remove_child(const std::string& name);  // how many were removed (0 or 1)

  // -- state -------------------------------------------------------------------------------------
  // All parameters, buffers and extra state by path. The tensors are the model's own, not copies.
  // Error if some of it is unset (await_state).
  std::map<std::string, Tensor> state_dict();
  // Sets them. Error naming every missing and every unexpected key, and every wrong shape, dtype or
  // quantization, with what to do; nothing is changed then.
  void load_state_dict(const std::map<std::string, Tensor>& state);
  // Marks values of this module as unset: calling it is an Error with this message, until
  // load_state_dict of this module or of one around it has set them.
  void await_state(std::string message) { awaited_ = std::move(message); }
  // that message; "" if nothing is unset
  const std::string& awaited_state() const { return awaited_; }
  // Error if values of this module or of a submodule are unset.
  void check_state() const;
  void zero_grad();             // of all parameters
  void requires_grad(bool on);  // of all parameters

  // State that is not a declared parameter or buffer: a quantized module's packed weight, an
  // observer's statistics. set_extra_state gets exactly the keys that extra_state gave; it checks
  // the values (Error) before it changes anything.
  virtual std::map<std::string, Tensor> extra_state() const { return {}; }
  virtual void set_extra_state(const std::map<std::string, Tensor>& state);

  // A deep copy: no tensor is shared with it, and what was shared inside (one module in two places,
  // one tensor in two modules) is shared inside the copy. Error if nn::make did not make the
  // module: others cannot copy their class.
  virtual ModulePtr clone() const;
  // Did nn::make make it? Modules in Slots and containers all are.
  bool is_made() const { return class_type() != typeid(*this); }
  // Error if nn::make did not make it; `who` begins the message.
  void require_made(std::string_view who) const;
  // The class of the module as it was written: typeid of a module that nn::make made is a class
  // derived from it.
  virtual const std::type_info& class_type() const { return typeid(*this); }

  // What to give the class's maker (registry.h) to get a module of the same structure:
  // {"in_features": 4, ...}. Modules that can be saved whole and have constructor arguments
  // override it.
  virtual Attrs config() const { return {}; }

  // -- hooks: called with the module, its inputs and its outputs (which they may replace) after eve
  using Hook =
      std::function<void(Module&, const std::vector<Tensor>& inputs, std::vector<Tensor>& outputs)>;
  void add_forward_hook(std::string name, Hook hook);
  void remove_forward_hook(std::string_view name);
  bool has_forward_hook(std::string_view name) const;  // or a pre-hook

  // Called before forward, with the inputs, which they may replace.
  using PreHook = std::function<void(Module&, std::vector<Tensor>& inputs)>;
  void add_forward_pre_hook(std::string name, PreHook hook);

  // Moves `first`'s pre-hooks and `last`'s hooks here: for a module that takes the place of the
  // sequence first..last.
  void take_hooks(Module& first, Module& last);

  // This module as a T; Error if it is of another class.
  template <typename T>
  T& as() {
    if (auto* t = dynamic_cast<T*>(this)) return *t;
    wrong_class(typeid(T));
  }

  // An operation between tensors by the operator's name, for modules that Slot::add and its like
  // can call; others: Error.
  virtual Tensor operation(const char* op, const std::vector<Tensor>& operands, const Attrs& attrs);

  // The name of the class, "Conv2d"; and what __repr__ shows between the parentheses.
  virtual std::string type_name() const;
  virtual std::string extra_repr() const { return ""; }

  // How the quantization workflows treat this module: a quant::QConfig, or nullptr for "leave it
  // float". Empty: as the module around it. (This floor does not know QConfig.)
  std::any qconfig;
  // What a workflow wants to remember with the module it has prepared.
  std::any prepared;

 protected:
  template <typename M>
  Slot slot(const std::string& name, M module);
  template <typename M>
  Slot slot(const std::string& name, std::shared_ptr<M> module);
  Slot slot(const std::string& name, ModulePtr module) {
    return Slot(this, name, std::move(module));
  }
  // An undefined value stands for an omitted one (no bias): it is not listed. A parameter requires
  // a gradient.
  Parameter parameter(const std::string& name, Tensor value) {
    return Parameter(this, name, std::move(value));
  }
  Parameter buffer(const std::string& name, Tensor value) {
    return Parameter(this, name, std::move(value), true);
  }

  // Is this thread in a call of this module, and in none of another module within that?
  bool in_call() const;

 private:
  friend class Slot;
  friend class Parameter;
  virtual ModulePtr copy_of_class() const { return nullptr; }
  std::map<std::string, Tensor> collect_state();
  void check_own_state() const;

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
  void collect(const std::string& prefix, bool buffers,
               std::vector<std::pair<std::string, Tensor*>>& out);

  bool training_ = true;
  std::vector<std::pair<std::string, ModulePtr>> children_;
  std::vector<Entry> tensors_;
  std::vector<Tensor> registered_;
  std::vector<std::pair<std::string, Hook>> hooks_;
  std::vector<std::pair<std::string, PreHook>> pre_hooks_;
  std::string awaited_;  // what await_state said
};

// The classes of the objects that make makes. `model->forward(x)` is what every user of PyTorch
// writes first, but a virtual function that the user's class overrides cannot run hooks or be
// traced. So make derives Made<M> from M, which overrides each form of forward that M has:
// - outside of a call of the module, it goes where operator() goes;
// - inside, which operator() notes in a thread-local list of calls on the stack, it is M's own.
// So M::forward(x) in a class derived from M, recursion, exceptions and calls from several threads
// do what they look like. A form that M hides and inherits is left as it is: Module's
// forward(vector) calls forward(Tensor), which is routed. See
// docs/adr/0007-forward-goes-where-calls-go.md.
namespace routing {

template <typename M>
class Class : public M {
 public:
  template <typename... Args>
  explicit Class(std::in_place_t, Args&&... args) : M(std::forward<Args>(args)...) {}
  const std::type_info& class_type() const override { return typeid(M); }
  using M::forward;  // an error here: forward must not be private

  static constexpr bool takes_one() {
    return requires(Class & m, Tensor x) {
      { m.M::forward(std::move(x)) } -> std::same_as<Tensor>;
    };
  }
  static constexpr bool takes_several() {
    return requires(Class & m, std::vector<Tensor> xs) {
      { m.M::forward(std::move(xs)) } -> std::same_as<std::vector<Tensor>>;
    };
  }
};

template <typename M, typename Base>
class One : public Base {
 public:
  using Base::Base;
  using Base::forward;
  // An error here: forward must not be final.
  Tensor forward(Tensor x) override {
    return this->in_call() ? this->M::forward(std::move(x)) : this->Module::operator()(x);
  }
};

template <typename M, typename Base>
class Several : public Base {
 public:
  using Base::Base;
  using Base::forward;
  // An error here: forward must not be final.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return this->in_call() ? this->M::forward(std::move(inputs)) : this->Module::operator()(inputs);
  }
};

template <typename M, typename Base>
using WithOne = std::conditional_t<Class<M>::takes_one(), One<M, Base>, Base>;
template <typename M, typename Base>
using WithSeveral = std::conditional_t<Class<M>::takes_several(), Several<M, Base>, Base>;

}  // namespace routing

template <typename In, typename Out = In>
class ValueModule;

namespace routing {

// ValueModules have a third form of forward, of users' own types.
template <typename M, typename Base>
struct WithValue {
  using Type = Base;
};
template <typename M, typename Base>
requires requires { typename M::ValueModuleClass; }
struct WithValue<M, Base> {
  class Type : public Base {
   public:
    using Base::Base;
    using In = typename M::ValueModuleClass::InputValue;
    using Out = typename M::ValueModuleClass::OutputValue;
    Out forward_value(In x) override {
      return this->in_call() ? this->M::forward_value(std::move(x))
                             : M::ValueModuleClass::call_value(*this, x);
    }
  };
};

}  // namespace routing

template <typename M>
class Made final : public routing::WithValue<
                       M, routing::WithSeveral<M, routing::WithOne<M, routing::Class<M>>>>::Type {
  using Base = typename routing::WithValue<
      M, routing::WithSeveral<M, routing::WithOne<M, routing::Class<M>>>>::Type;

 public:
  using Base::Base;

 private:
  ModulePtr copy_of_class() const override {
    return std::make_shared<Made>(std::in_place, static_cast<const M&>(*this));
  }
};

// A module of class M. It can be cloned, and calls of its forward go where operator() goes.
template <typename M, typename... Args>
std::shared_ptr<M> make(Args&&... args) {
  static_assert(!std::is_final_v<M>,
                "a class of modules must not be final: nn::make derives a class from it, so that "
                "hooks, observers and traces see calls of its forward");
  return std::make_shared<Made<M>>(std::in_place, std::forward<Args>(args)...);
}

// Can an object of class M that nn::make did not make become one that it made?
template <typename M>
concept Makeable = !std::is_abstract_v<M> && !std::is_final_v<M> && std::is_copy_constructible_v<M>;

// For an object that nn::make did not make (std::make_shared<Net>()): a made copy, which shares its
// tensors. The object itself if it is made, or if its class is not exactly M or cannot be copied.
template <typename M>
std::shared_ptr<M> made_copy(const std::shared_ptr<M>& module) {
  if constexpr (Makeable<M>)
    if (module && typeid(*module) == typeid(M)) return make<M>(static_cast<const M&>(*module));
  return module;
}

// What a Slot or a container holds for a module that is given by value or by pointer. An object
// that nn::make did not make is moved into one that it made, if nobody else points to it.
template <typename M>
ModulePtr held(M&& module) {
  if constexpr (requires { std::shared_ptr(std::forward<M>(module)); }) {
    auto pointer = std::shared_ptr(std::forward<M>(module));
    using Class = typename decltype(pointer)::element_type;
    if constexpr (Makeable<Class>)
      if (pointer.use_count() == 1 && typeid(*pointer) == typeid(Class))
        return make<Class>(std::move(*pointer));
    return pointer;
  } else {
    return make<std::decay_t<M>>(std::forward<M>(module));
  }
}

// A user's own type that wraps tensors can flow through modules: it is taken apart at each module
// call and put together again, so graphs, observers and files see its tensors. Specialise
//   template <> struct octet::nn::Value<SparseConvTensor> {
//     static std::vector<Tensor> tensors(const SparseConvTensor& x) {
//       return {x.features, x.indices};
//     }
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
template <typename In, typename Out>
class ValueModule : public Module {
 public:
  using ValueModuleClass = ValueModule;
  using InputValue = In;
  using OutputValue = Out;
  using Module::forward;
  virtual Out forward_value(In x) = 0;  // calling it is the same as Slot::call, as for forward
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return Value<Out>::tensors(forward_value(Value<In>::from(inputs)));
  }
  std::vector<std::string> result_names() const override { return Value<Out>::names(); }

  static Out call_value(Module& module, const In& x) {
    return Value<Out>::from(module(Value<In>::tensors(x)));
  }
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
template <typename M>
Slot Module::slot(const std::string& name, std::shared_ptr<M> module) {
  return Slot(this, name, held(std::move(module)));
}

// PyTorch's form:
//  Net(
//    (conv): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
//  )
std::string to_string(const Module& module);

// "octet::nn::Conv2d" -> "Conv2d".
std::string class_name(const std::type_info& type);

}  // namespace octet::nn
