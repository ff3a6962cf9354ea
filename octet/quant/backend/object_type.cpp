#include "octet/quant/backend/object_type.h"

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"

namespace octet::quant {
namespace {

// "octet::nn::Conv2d" -> "Conv2d".
std::string short_name(const std::string& name) {
  size_t colon = name.rfind("::", name.find('<'));
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  for (const ops::Op* op : ops::all()) names.push_back(op->name());
  for (const std::string& name : nn::registered_names()) {
    names.push_back(name);
    names.push_back(short_name(name));
  }
  return names;
}

}  // namespace

ObjectType::ObjectType(std::string_view name) {
  if (ops::find(name)) {
    op_ = name;
    return;
  }
  for (const char* prefix : {"", "octet::nn::", "octet::"})
    if ((type_ = nn::registered_type(prefix + std::string(name)))) return;
  OCTET_FAIL(not_found, "'{}' is neither an operator nor a registered class of modules{}", name,
             did_you_mean(name, known_names()));
}

std::string ObjectType::name() const { return type_ ? nn::registered_name(*type_) : op_; }

std::string to_string(const ObjectType& type) {
  return type.is_module() ? nn::class_name(*type.type()) : type.op();
}

std::string to_string(const Pattern& pattern) {
  std::string text;
  for (const ObjectType& type : pattern) text += (text.empty() ? "" : "+") + to_string(type);
  return text;
}

}  // namespace octet::quant
