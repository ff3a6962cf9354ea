#include "octet/quant/workflow/fuse.h"

#include <algorithm>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/qparams.h"

namespace octet::quant {

namespace nni = nn::intrinsic;
using nn::ModulePtr;

const FuserMethods::Fuse* FuserMethods::find(const std::vector<ModulePtr>& parts) const {
  for (size_t i = methods_.size(); i-- > 0;) {
    const Method& m = methods_[i];
    if (m.types.size() == parts.size() &&
        std::equal(parts.begin(), parts.end(), m.types.begin(), [](const ModulePtr& p, const std::type_index& t) {
          const nn::Module& module = *p;
          return std::type_index(typeid(module)) == t;
        }))
      return &m.fuse;
  }
  return nullptr;
}

namespace {

template <typename Fused>
ModulePtr fused(const std::vector<ModulePtr>& parts) {
  return nn::make<Fused>(parts);
}

ModulePtr folded(const std::vector<ModulePtr>& parts) {
  return fuse_conv_bn_eval(*parts[0], parts[1]->as<nn::BatchNorm>());
}

// A layer and a batch norm, alone and with a relu behind.
template <typename Layer, typename Norm, typename LayerBn, typename LayerBnReLU, typename LayerReLU>
void add_layer(FuserMethods& m) {
  m.add<Layer, Norm>([](bool qat, const auto& p) { return qat ? fused<LayerBn>(p) : folded(p); });
  m.add<Layer, Norm, nn::ReLU>([](bool qat, const auto& p) {
    return qat ? fused<LayerBnReLU>(p) : fused<LayerReLU>({folded(p), p[2]});
  });
  m.add<Layer, nn::ReLU>([](bool, const auto& p) { return fused<LayerReLU>(p); });
}

template <typename Layer, typename Norm>
void add_transposed(FuserMethods& m) {
  m.add<Layer, Norm>([](bool qat, const auto& p) {
    OCTET_CHECK(!qat, unsupported, "fuse: {} and {} are fused in eval mode only: train them apart, or call eval() first",
                p[0]->type_name(), p[1]->type_name());
    return folded(p);
  });
}

}  // namespace

const FuserMethods& default_fuser_methods() {
  static const FuserMethods methods = [] {
    FuserMethods m;
    add_layer<nn::Conv1d, nn::BatchNorm1d, nni::ConvBn1d, nni::ConvBnReLU1d, nni::ConvReLU1d>(m);
    add_layer<nn::Conv2d, nn::BatchNorm2d, nni::ConvBn2d, nni::ConvBnReLU2d, nni::ConvReLU2d>(m);
    add_layer<nn::Conv3d, nn::BatchNorm3d, nni::ConvBn3d, nni::ConvBnReLU3d, nni::ConvReLU3d>(m);
    m.add<nn::Linear, nn::ReLU>([](bool, const auto& p) { return fused<nni::LinearReLU>(p); });
    m.add<nn::Linear, nn::BatchNorm1d>([](bool qat, const auto& p) { return qat ? fused<nni::LinearBn1d>(p) : folded(p); });
    m.add<nn::BatchNorm2d, nn::ReLU>([](bool, const auto& p) { return fused<nni::BNReLU2d>(p); });
    m.add<nn::BatchNorm3d, nn::ReLU>([](bool, const auto& p) { return fused<nni::BNReLU3d>(p); });
    add_transposed<nn::ConvTranspose1d, nn::BatchNorm1d>(m);
    add_transposed<nn::ConvTranspose2d, nn::BatchNorm2d>(m);
    add_transposed<nn::ConvTranspose3d, nn::BatchNorm3d>(m);
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

void fuse_list(nn::Module& model, const std::vector<std::string>& paths, bool qat, const FuserMethods& additional,
               const std::map<const nn::Module*, int>& places, std::set<std::string>& used) {
  std::string list = fmt::format("fuse_modules {{{}}}", fmt::join(paths, ", "));
  OCTET_CHECK(paths.size() >= 2, invalid_argument, "{}: expected two modules or more", list);
  std::vector<ModulePtr> parts;
  for (const std::string& path : paths) {
    OCTET_CHECK(used.insert(path).second, invalid_argument, "{}: '{}' is fused already", list, path);
    parts.push_back(model.submodule(path));
    OCTET_CHECK(places.at(parts.back().get()) == 1, invalid_argument, "{}: '{}' stands in {} places of the model: what is "
                "used elsewhere too cannot be fused", list, path, places.at(parts.back().get()));
  }
  std::vector<std::string> described;
  for (size_t i = 0; i < parts.size(); ++i)
    described.push_back(fmt::format("{} ({}, {} mode)", paths[i], parts[i]->type_name(), mode(*parts[i])));
  for (size_t i = 1; i < parts.size(); ++i) {
    OCTET_CHECK(parts[i]->training() == parts[0]->training(), invalid_argument, "{}: modules in different modes: {}: call "
                "train() or eval() on the whole model first", list, fmt::join(described, ", "));
    OCTET_CHECK(same_qconfig(*parts[i], *parts[0]), invalid_argument, "{}: '{}' and '{}' have different qconfigs: a fused "
                "module has one", list, paths[0], paths[i]);
  }
  bool training = parts[0]->training();
  OCTET_CHECK(training || !qat, invalid_argument, "fuse_modules_qat: {}: call train() first, or fuse_modules for a model in "
              "eval mode", fmt::join(described, ", "));
  const FuserMethods::Fuse* method = additional.find(parts);
  if (!method) method = default_fuser_methods().find(parts);
  OCTET_CHECK(method, unsupported, "{}: no fusion is known for {}: known are conv+bn, conv+bn+relu, conv+relu, linear+relu, "
              "linear+bn, bn+relu, transposed conv+bn, and what FuseOptions::additional adds", list,
              fmt::join(described, ", "));
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

ModulePtr fuse_modules_untyped(const ModulePtr& model, const FuseList& lists, bool qat, const FuseOptions& options) {
  ModulePtr result = options.inplace ? model : model->clone();
  auto places = count_places(*result);
  std::set<std::string> used;
  for (const auto& paths : lists) fuse_list(*result, paths, qat, options.additional, places, used);
  return result;
}

}  // namespace octet::quant
