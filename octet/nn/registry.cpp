#include "octet/nn/registry.h"

#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <typeindex>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"

namespace octet::nn {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, ModuleMaker, std::less<>> makers;
  std::map<std::type_index, std::string> names;
  std::map<std::string, Annotation> annotations;
};
Registry& registry() {
  static Registry r;
  return r;
}

std::string demangled(std::type_index type) {
  int status = 0;
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : type.name();
  std::free(text);
  return name;
}

// The registered name, or the class's own if it is not registered.
std::string qualified_name(std::type_index type) {
  {
    Registry& r = registry();
    std::lock_guard lock(r.mutex);
    if (auto it = r.names.find(type); it != r.names.end()) return it->second;
  }
  return demangled(type);
}

}  // namespace

std::string class_name(const std::type_info& type) { return class_name(std::type_index(type)); }
std::string class_name(std::type_index type) {
  std::string name = qualified_name(type);
  size_t arguments = name.find('<'), colon = name.rfind("::", arguments);
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

void register_module(const std::type_info& type, ModuleMaker maker, std::string name) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  if (name.empty()) name = demangled(type);
  OCTET_CHECK(r.makers.emplace(name, maker).second, invalid_argument,
              "OCTET_MODULE: the class {} is registered twice", name);
  r.names[std::type_index(type)] = name;
}

std::string registered_name(const Module& module) {
  return registered_name(std::type_index(module.class_type()));
}

std::string registered_name(std::type_index type) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  auto it = r.names.find(type);
  OCTET_CHECK(it != r.names.end(), unsupported,
              "the class {0} is not registered: write OCTET_MODULE({0}) in its .cpp file, so "
              "that what is saved of it can be loaded again",
              demangled(type));
  return it->second;
}

bool is_own_class(const Module& module) {
  std::string name = qualified_name(module.class_type());
  name.resize(std::min(name.size(), name.find('<')));  // arguments of a template
  if (name.rfind("octet::nn::", 0) != 0 && name.rfind("octet::quant::", 0) != 0) return false;
  // Users may extend these namespaces; the layers themselves stand directly in them.
  size_t class_begin = name.rfind("::") + 2;
  std::string scope = name.substr(0, class_begin - 2);
  for (const char* own :
       {"octet::nn", "octet::quant", "octet::nn::intrinsic", "octet::nn::qat",
        "octet::nn::quantizable", "octet::nn::quantized", "octet::nn::quantized::dynamic",
        "octet::nn::quantized::weight_only", "octet::nn::quantized::reference"})
    if (scope == own) return true;
  return false;
}

std::optional<std::type_index> registered_type(std::string_view name) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  for (const auto& [type, known] : r.names)
    if (known == name) return type;
  return std::nullopt;
}

bool is_registered_as(const Module& module, std::string_view name) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  auto it = r.names.find(std::type_index(module.class_type()));
  return it != r.names.end() && it->second == name;
}

ModulePtr make_registered(std::string_view name, const Attrs& config) {
  ModuleMaker maker = nullptr;
  {
    Registry& r = registry();
    std::lock_guard lock(r.mutex);
    auto it = r.makers.find(name);
    if (it != r.makers.end()) maker = it->second;
  }
  OCTET_CHECK(maker, not_found,
              "this program has no class of modules '{}'{}: link the code that registers it with "
              "OCTET_MODULE",
              name, did_you_mean(name, registered_names()));
  return maker(config);
}

std::vector<std::string> registered_names() {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  std::vector<std::string> names;
  for (const auto& item : r.makers) names.push_back(item.first);
  return names;
}

void register_annotation(const std::string& name, Annotation annotation) {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  OCTET_CHECK(r.annotations.emplace(name, annotation).second, invalid_argument,
              "the annotation '{}' is registered twice", name);
}

std::vector<std::pair<std::string, Annotation>> annotations() {
  Registry& r = registry();
  std::lock_guard lock(r.mutex);
  return {r.annotations.begin(), r.annotations.end()};
}

}  // namespace octet::nn
