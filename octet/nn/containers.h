#pragma once
// Modules that hold modules.

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "octet/nn/module.h"

namespace octet::nn {

// Feeds each module's result to the next.
//   auto model = nn::make<nn::Sequential>(nn::Conv2d(1, 8, 3), nn::ReLU());     // named "0", "1"
//   auto named = nn::make<nn::Sequential>(); named->append("conv", nn::Conv2d(1, 8, 3));
class Sequential : public Module {
 public:
  Sequential() = default;
  template <typename First, typename... Rest>
  requires(!std::is_same_v<std::decay_t<First>, Sequential> ||
           sizeof...(Rest) > 0) explicit Sequential(First&& first, Rest&&... rest) {
    append(std::forward<First>(first));
    (append(std::forward<Rest>(rest)), ...);
  }
  Sequential(const Sequential&) = default;
  Sequential(Sequential&&) = default;

  template <typename M>
  Sequential& append(const std::string& name, M&& module) {
    add_child(name, held(std::forward<M>(module)));
    return *this;
  }
  template <typename M>
  Sequential& append(M&& module) {
    return append(std::to_string(children().size()), std::forward<M>(module));
  }

  Tensor forward(Tensor x) override;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  size_t size() const { return children().size(); }
  Module& operator[](size_t i) const { return *children().at(i).second; }
};

// A list of modules that its owner calls as it likes.
class ModuleList : public Module {
 public:
  ModuleList() = default;
  template <typename M>
  ModuleList& append(M&& module) {
    add_child(std::to_string(size()), held(std::forward<M>(module)));
    return *this;
  }
  size_t size() const { return children().size(); }
  Module& operator[](size_t i) const { return *children().at(i).second; }
};

// Modules by name, in the order they were put in.
class ModuleDict : public Module {
 public:
  ModuleDict() = default;
  template <typename M>
  ModuleDict& insert(const std::string& key, M&& module) {
    add_child(key, held(std::forward<M>(module)));
    return *this;
  }
  size_t size() const { return children().size(); }
  // Error with the nearest names
  Module& operator[](std::string_view key) const { return *submodule(key); }
};

}  // namespace octet::nn
