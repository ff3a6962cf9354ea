#pragma once
// Fusion in eager mode (torch.ao.quantization.fuse_modules).

#include <functional>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/nn/module.h"
#include "octet/quant/workflow/eager.h"

namespace octet::quant {

// Sequences of classes and what they are fused to.
class FuserMethods {
 public:
  // Makes one module of a sequence; `qat` is true in training mode.
  using Fuse = std::function<nn::ModulePtr(bool qat, const std::vector<nn::ModulePtr>& parts)>;
  template <typename... Ms>
  FuserMethods& add(Fuse fuse) {
    methods_.push_back({{std::type_index(typeid(Ms))...}, std::move(fuse)});
    return *this;
  }
  FuserMethods& add(std::vector<std::type_index> types, Fuse fuse) {
    methods_.push_back({std::move(types), std::move(fuse)});
    return *this;
  }
  // The last one added for these classes; null if there is none.
  const Fuse* find(const std::vector<nn::ModulePtr>& parts) const;

 private:
  struct Method {
    std::vector<std::type_index> types;
    Fuse fuse;
  };
  std::vector<Method> methods_;
};

// PyTorch's: conv+bn, conv+bn+relu, conv+relu (1d, 2d, 3d), linear+relu, linear+bn1d, bn+relu (2d,
// 3d), transposed conv+bn (1d, 2d, 3d): those of the native backend (backend/backend_config.h).
const FuserMethods& default_fuser_methods();

struct FuseOptions {
  bool inplace = false;
  FuserMethods additional;  // asked before the default ones
};

// paths: {{"conv1", "bn1", "relu1"}, {"fc", "relu2"}}
using FuseList = std::vector<std::vector<std::string>>;
nn::ModulePtr fuse_modules_untyped(const nn::ModulePtr& model, const FuseList& modules_to_fuse,
                                   bool qat, const FuseOptions& options);

// Puts one fused module in the first place of each list and Identity in the others. In eval mode
// batch norms are folded into the layers before them; in training mode they stay parts of the fused
// module. Error naming the modules (and their mode) if a path is not there or is given twice, if
// they are not all in the same mode, if a module is used elsewhere too, if their qconfigs differ,
// or if no fusion is known for their classes (it lists those there are).
template <typename M>
std::shared_ptr<M> fuse_modules(const std::shared_ptr<M>& model, const FuseList& modules_to_fuse,
                                const FuseOptions& options = {}) {
  return typed<M>(
      fuse_modules_untyped(options.inplace ? nn::ModulePtr(model) : nn::made_copy(model),
                           modules_to_fuse, false, options));
}
// The same, but an Error unless the modules are in training mode.
template <typename M>
std::shared_ptr<M> fuse_modules_qat(const std::shared_ptr<M>& model,
                                    const FuseList& modules_to_fuse,
                                    const FuseOptions& options = {}) {
  return typed<M>(
      fuse_modules_untyped(options.inplace ? nn::ModulePtr(model) : nn::made_copy(model),
                           modules_to_fuse, true, options));
}

}  // namespace octet::quant
