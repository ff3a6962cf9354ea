#pragma once
// Classes of modules by name: what loading a whole model needs.
//
//   struct Net : nn::Module {
//     nn::Slot conv = slot("conv", nn::Conv2d(1, 8, 3));
//     Tensor forward(Tensor x) override { return conv(x); }
//   };
//   OCTET_MODULE(Net)  // in a .cpp file, at namespace scope
//
// A class with constructor arguments that shape it overrides config() and has `static
// std::shared_ptr<M> from_config(const Attrs&)`; others need a default constructor.

#include <optional>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

#include "octet/nn/module.h"

namespace octet::nn {

using ModuleMaker = ModulePtr (*)(const Attrs& config);

// Registers a class under `name`, or under its qualified name if that is empty. Error if another
// class has it. class_name() and type_name() of the class follow from it.
void register_module(const std::type_info& type, ModuleMaker maker, std::string name = "");
// The registered name of a module's class: "octet::nn::Conv2d". Error, saying how to register, if
// there is none.
std::string registered_name(const Module& module);
std::string registered_name(std::type_index type);
// "Conv2d": class_name of module.h, for a class whose type_info is not at hand.
std::string class_name(std::type_index type);
// The class registered under this name; nullopt if there is none.
std::optional<std::type_index> registered_type(std::string_view name);
// Is this its class? False for classes that are not registered.
bool is_registered_as(const Module& module, std::string_view name);
// Is it one of octet's own layers, and not a user's class?
bool is_own_class(const Module& module);
// A new module of a registered class. Error with the nearest names if the class is unknown.
ModulePtr make_registered(std::string_view name, const Attrs& config);
// The names of all registered classes, sorted.
std::vector<std::string> registered_names();

// What floors above keep with modules as data: Module::qconfig, Module::prepared, the hooks of a
// workflow.
struct Annotation {
  // What is to be saved with the module; nullopt: nothing. Error if it cannot be saved.
  std::optional<Attrs> (*save)(const Module& module);
  // Puts it back. `root` is the model that was loaded; its modules are there and have their state.
  void (*load)(Module& root, Module& module, const Attrs& data);
};
// Error if the name is taken.
void register_annotation(const std::string& name, Annotation annotation);
// All of them, by name.
std::vector<std::pair<std::string, Annotation>> annotations();

// The same with the maker that M has. Classes that are aliases of templates are registered by
// their alias's name: register_module<MaxPoolNd<2>>("octet::nn::MaxPool2d").
template <typename M>
void register_module(std::string name = "") {
  register_module(
      typeid(M),
      [](const Attrs& config) -> ModulePtr {
        // An inherited from_config makes the class it was inherited from.
        if constexpr (requires { std::shared_ptr<M>(M::from_config(config)); })
          return M::from_config(config);
        else
          return make<M>();
      },
      std::move(name));
}

template <typename M>
struct ModuleRegistration {
  ModuleRegistration() { register_module<M>(); }
};

#define OCTET_MODULE_JOIN2(a, b) a##b
#define OCTET_MODULE_JOIN(a, b) OCTET_MODULE_JOIN2(a, b)
#define OCTET_MODULE(...)                                                                    \
  static const ::octet::nn::ModuleRegistration<__VA_ARGS__> OCTET_MODULE_JOIN(octet_module_, \
                                                                              __COUNTER__);

}  // namespace octet::nn
