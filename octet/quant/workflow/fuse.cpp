#include "octet/quant/workflow/fuse.h"

#include <algorithm>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/nn/linear.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/modules/qparams.h"

namespace octet::quant {

using nn::ModulePtr;

const FuserMethods::Fuse* FuserMethods::find(const std::vector<ModulePtr>& parts) const {
  for (size_t i = methods_.size(); i-- > 0;) {
    const Method& m = methods_[i];
    if (m.types.size() == parts.size() &&
        std::equal(parts.begin(), parts.end(), m.types.begin(),
                   [](const ModulePtr& p, const std::type_index& t) {
                     const nn::Module& module = *p;
                     return std::type_index(module.class_type()) == t;
                   }))
      return &m.fuse;
  }
  return nullptr;
}

const FuserMethods& default_fuser_methods() {
  static const FuserMethods methods = [] {
    FuserMethods m;
    const BackendConfig native = get_native_backend_config();
    for (const BackendPatternConfig& config : native.configs()) {
      std::vector<std::type_index> types;
      for (const ObjectType& item : config.pattern)
        if (item.is_module()) types.push_back(*item.type());
      if (config.fuser_method && types.size() == config.pattern.size())
        m.add(std::move(types), *config.fuser_method);
    }
    return m;
  }();
  return methods;
}

namespace {

// How often each module stands in the model.
std::map<const nn::Module*, int> count_places(const nn::Module& model) {
  std::map<const nn::Module*, int> places;
  std::function<void(const nn::Module&)> walk = [&](const nn::Module& m) {
    for (const auto& [name, child] : m.children())
      if (child && ++places[child.get()] == 1) walk(*child);
  };
  walk(model);
  return places;
}

std::string mode(const nn::Module& m) { return m.training() ? "training" : "eval"; }

bool same_qconfig(const nn::Module& a, const nn::Module& b) {
  const QConfig *p = qconfig_of(a), *q = qconfig_of(b);
  if (p && q) return *p == *q;
  return a.qconfig.has_value() == b.qconfig.has_value() && !p == !q;
}

void fuse_list(nn::Module& model, const std::vector<std::string>& paths, bool qat,
               const FuserMethods& additional, const std::map<const nn::Module*, int>& places,
               std::set<std::string>& used) {
  std::string list = fmt::format("fuse_modules {{{}}}", fmt::join(paths, ", "));
  OCTET_CHECK(paths.size() >= 2, invalid_argument, "{}: expected two modules or more", list);
  std::vector<ModulePtr> parts;
  for (const std::string& path : paths) {
    OCTET_CHECK(used.insert(path).second, invalid_argument, "{}: '{}' is fused already", list,
                path);
    parts.push_back(model.submodule(path));
    OCTET_CHECK(places.at(parts.back().get()) == 1, invalid_argument,
                "{}: '{}' stands in {} places of the model: what is "
                "used elsewhere too cannot be fused",
                list, path, places.at(parts.back().get()));
  }
  std::vector<std::string> described;
  for (size_t i = 0; i < parts.size(); ++i)
    described.push_back(
        fmt::format("{} ({}, {} mode)", paths[i], parts[i]->type_name(), mode(*parts[i])));
  for (size_t i = 1; i < parts.size(); ++i) {
    OCTET_CHECK(parts[i]->training() == parts[0]->training(), invalid_argument,
                "{}: modules in different modes: {}: call "
                "train() or eval() on the whole model first",
                list, fmt::join(described, ", "));
    OCTET_CHECK(same_qconfig(*parts[i], *parts[0]), invalid_argument,
                "{}: '{}' and '{}' have different qconfigs: a fused "
                "module has one",
                list, paths[0], paths[i]);
  }
  bool training = parts[0]->training();
  OCTET_CHECK(training || !qat, invalid_argument,
              "fuse_modules_qat: {}: call train() first, or fuse_modules for a model in "
              "eval mode",
              fmt::join(described, ", "));
  const FuserMethods::Fuse* method = additional.find(parts);
  if (!method) method = default_fuser_methods().find(parts);
  OCTET_CHECK(
      method, unsupported,
      "{}: no fusion is known for {}: known are conv+bn, conv+bn+relu, conv+relu, linear+relu, "
      "linear+bn, bn+relu, transposed conv+bn, and what FuseOptions::additional adds",
      list, fmt::join(described, ", "));
  ModulePtr whole = (*method)(training, parts);
  whole->qconfig = parts[0]->qconfig;
  whole->take_hooks(*parts.front(), *parts.back());
  model.set_submodule(paths[0], whole);
  for (size_t i = 1; i < paths.size(); ++i) {
    auto identity = nn::make<nn::Identity>();
    identity->train(training);
    model.set_submodule(paths[i], identity);
  }
}

}  // namespace

ModulePtr fuse_modules_untyped(const ModulePtr& model, const FuseList& lists, bool qat,
                               const FuseOptions& options) {
  model->require_made(qat ? "fuse_modules_qat" : "fuse_modules");
  ModulePtr result = options.inplace ? model : model->clone();
  auto places = count_places(*result);
  std::set<std::string> used;
  for (const auto& paths : lists) fuse_list(*result, paths, qat, options.additional, places, used);
  return result;
}

}  // namespace octet::quant
