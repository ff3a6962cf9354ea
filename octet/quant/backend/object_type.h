#pragma once
// What a node of a model calls, as a value: a class of modules or an operator. QConfigMappings and
// patterns are made of them.

#include <optional>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

#include "octet/nn/module.h"

namespace octet::quant {

class ObjectType {
 public:
  // An operator ("add"), or a registered class of modules by its name ("octet::nn::Conv2d",
  // "nn::Conv2d" or "Conv2d"). Error not_found with the nearest names if it is neither.
  ObjectType(std::string_view name);
  ObjectType(const char* name) : ObjectType(std::string_view(name)) {}
  ObjectType(const std::string& name) : ObjectType(std::string_view(name)) {}
  // A class of modules: typeid(nn::Conv2d).
  ObjectType(std::type_index type) : type_(type) {}
  ObjectType(const std::type_info& type) : type_(std::type_index(type)) {}

  bool is_module() const { return type_.has_value(); }
  const std::optional<std::type_index>& type() const { return type_; }  // of modules
  // of operators; "" for modules
  const std::string& op() const { return op_; }
  // What the constructor reads: "add", "octet::nn::Conv2d". Error if the class is not registered
  // (OCTET_MODULE).
  std::string name() const;
  bool operator==(const ObjectType&) const = default;

 private:
  std::optional<std::type_index> type_;
  std::string op_;
};

// For messages: "add", "Conv2d".
std::string to_string(const ObjectType& type);

// Modules and operators one after another, in the order of the forward pass:
//   quant::Pattern pattern = {typeid(nn::Conv2d), typeid(nn::BatchNorm2d), "relu"};
using Pattern = std::vector<ObjectType>;
std::string to_string(const Pattern& pattern);  // "Conv2d+BatchNorm2d+relu"

}  // namespace octet::quant
