#pragma once
// QConfigMapping: which QConfig each module and operator of a model gets
// (torch.ao.quantization.qconfig_mapping).
//
//   auto mapping = quant::get_default_qconfig_mapping()
//                      .set_object_type<nn::Linear>(std::nullopt)  // all Linear layers stay float
//                      .set_module_name("backbone.stem", quant::get_default_qconfig("fbgemm"));
//
// Of the entries that fit a call the most particular one counts:
//  module name, object type and index > module name > module name by expression > object type >
//  global
// A QConfig of nullopt leaves float what the entry fits. A mapping is a value: copy it, compare it,
// keep it as JSON.

#include <optional>
#include <string>
#include <string_view>
#include <typeindex>
#include <vector>

#include "octet/base/text.h"
#include "octet/quant/backend/object_type.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {

class QConfigMapping {
 public:
  using MaybeQConfig = std::optional<QConfig>;

  // Everything stays float.
  QConfigMapping() = default;
  // This one for everything: PyTorch's {"": qconfig}.
  QConfigMapping(QConfig qconfig) { set_global(std::move(qconfig)); }

  // Each setter replaces what was set for the same key, in its place.
  QConfigMapping& set_global(MaybeQConfig qconfig);
  // All modules of a class (exactly this class), or all calls of an operator: "add". An operator
  // that a module of this class calls in its forward belongs to the class too, before its own entry
  // (as in PyTorch).
  QConfigMapping& set_object_type(const ObjectType& type, MaybeQConfig qconfig);
  template <typename M>
  QConfigMapping& set_object_type(MaybeQConfig qconfig) {
    return set_object_type(ObjectType(typeid(M)), std::move(qconfig));
  }
  // Modules whose path begins with a match of the expression (Python's re.match; octet::Regex has
  // the syntax): the first one set that fits counts. Error if it is malformed.
  QConfigMapping& set_module_name_regex(const std::string& regex, MaybeQConfig qconfig);
  // The module at a path ("layer1.0.conv") and everything inside it that has no nearer entry. Error
  // for "": use set_global.
  QConfigMapping& set_module_name(const std::string& path, MaybeQConfig qconfig);
  // The call number `index` (from 0) of this type that the module at `path` ("": the model) makes
  // in its forward.
  QConfigMapping& set_module_name_object_type_order(const std::string& path, const ObjectType& type,
                                                    int index, MaybeQConfig qconfig);

  // One call of a model.
  struct Target {
    // of the module called, or of the one whose forward calls the operator ("": the model)
    std::string module_path;
    std::optional<std::type_index> module_type;  // the class of that module
    std::string op;                              // the operator; "" for calls of modules
    int index = 0;  // how many of this class or operator the same parent called before
    // of calls of modules: the module whose forward calls it; of operators it is module_path
    std::string parent_path;
  };
  // Its QConfig; nullopt: it stays float.
  MaybeQConfig find(const Target& target) const;

  // The entries by module name, by expression and by order that fit none of a model's calls,
  // whatever other entry counts there. Object types are not counted: a mapping may name more than a
  // model has.
  std::vector<std::string> unmatched(const std::vector<Target>& targets) const;
  // Error not_found naming them, with the nearest names.
  void require_matched(const std::vector<Target>& targets) const;

  // PyTorch's older spelling, a dictionary, as JSON; all keys optional:
  //  {"": QCONFIG,
  //    "object_type": [["add", QCONFIG], ["octet::nn::Linear", QCONFIG]],
  //    "module_name_regex": [["layer.*", QCONFIG]],
  //    "module_name": [["layer1.0", QCONFIG]],
  //    "module_name_object_type_order": [["layer1", "add", 0, QCONFIG]]}
  // QCONFIG is a name (get_default_qconfig), null for float, or the attributes of
  // to_attrs(QConfig):
  //  {"activation.observer": "HistogramObserver",
  //  "weight.observer": "MinMaxObserver", "weight.dtype": "qint8"}
  // Error on unknown keys and names, with the nearest, and on anything else that is not of this
  // form.
  static QConfigMapping from_json(std::string_view text);
  // The same with the attributes of each QConfig: from_json gives an equal mapping. Error for
  // classes without OCTET_MODULE.
  std::string to_json() const;

  // Equal if they give every model the same QConfigs by the same entries; the order of entries
  // counts for expressions only.
  bool operator==(const QConfigMapping& other) const;

  const MaybeQConfig& global_qconfig() const { return global_; }
  struct ByType {
    ObjectType type;
    MaybeQConfig qconfig;
    bool operator==(const ByType&) const = default;
  };
  struct ByName {  // a path or an expression
    std::string name;
    MaybeQConfig qconfig;
    bool operator==(const ByName&) const = default;
  };
  struct ByOrder {
    std::string path;
    ObjectType type;
    int index;
    MaybeQConfig qconfig;
    bool operator==(const ByOrder&) const = default;
  };
  const std::vector<ByType>& object_type_qconfigs() const { return types_; }
  const std::vector<ByName>& module_name_regex_qconfigs() const { return regexes_; }
  const std::vector<ByName>& module_name_qconfigs() const { return names_; }
  const std::vector<ByOrder>& module_name_object_type_order_qconfigs() const { return orders_; }

 private:
  const MaybeQConfig* find_type(const ObjectType& type) const;

  MaybeQConfig global_;
  std::vector<ByType> types_;
  std::vector<ByName> regexes_, names_;
  std::vector<Regex> compiled_;  // of regexes_
  std::vector<ByOrder> orders_;
};

// For post-training quantization and for quantization-aware training: get_default_qconfig(name) and
// get_default_qat_qconfig(name) for everything, fixed qparams for sigmoid, hardsigmoid, softmax and
// tanh, and default_reuse_input_qconfig() for reshape. name: native, fbgemm, x86, onednn or
// qnnpack; Error for others. Of PyTorch's mappings this leaves out what works around its kernels:
// per-tensor weights of transposed convolutions (fbgemm), a float weight for layer_norm (backend
// configs say that), and entries that repeat the global one.
QConfigMapping get_default_qconfig_mapping(std::string_view name = "native");
QConfigMapping get_default_qat_qconfig_mapping(std::string_view name = "native", int version = 1);

}  // namespace octet::quant
