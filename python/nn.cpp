// Modules.
#include <map>
#include <optional>
#include <set>
#include <string>
#include <typeindex>

#include "octet/base/error.h"
#include "octet/graph/graph_module.h"
#include "octet/graph/trace.h"
#include "octet/io/module_file.h"
#include "octet/io/state_dict.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/observe/qconfig.h"
#include "python/modules.h"

namespace octet::python {

Kept keep(py::object object) {
  return {new py::object(std::move(object)), [](py::object* o) {
            if (!Py_IsInitialized()) return;  // at exit: the interpreter took all with it
            const Locked gil;
            delete o;
          }};
}

// -- classes --------------------------------------------------------------------------------------

namespace {

// The standard says that type_info is made by compilers only; libstdc++ and libc++ let classes that
// derive from it make one of a name, and compare them by it.
class PythonType : public std::type_info {
 public:
  explicit PythonType(const char* name) : std::type_info(name) {}
};
struct PythonClass {
  std::string name;
  PythonType type;
  explicit PythonClass(std::string n) : name(std::move(n)), type(name.c_str()) {}
};

nn::ModulePtr make_none(const Attrs&) {
  fail(ErrorCode::unsupported,
       "a model with classes written in Python is no .octet file of modules: keep its state_dict, "
       "pickle it, or save its graph (convert_fx, trace)");
}

const PythonClass& class_of(const py::object& cls) {
  static auto* all = new std::vector<std::unique_ptr<PythonClass>>();  // GIL held
  // In the class's own namespace: a derived class has its own.
  if (const auto own = cls.attr("__dict__"); own.contains("_octet_class"))
    return *(*all)[own["_octet_class"].cast<size_t>()];
  std::string name = "python." + cls.attr("__module__").cast<std::string>() + "." +
                     cls.attr("__qualname__").cast<std::string>(),
              scoped;
  for (const char c : name)
    if (c == '.')
      scoped += "::";
    else if (c != '<' && c != '>')
      scoped += c;
  name = scoped;
  std::vector<std::string> taken = nn::registered_names();
  const std::set<std::string> names(taken.begin(), taken.end());
  for (int again = 2; names.count(name); ++again) name = scoped + "_" + std::to_string(again);
  all->push_back(std::make_unique<PythonClass>(name));
  nn::register_module(all->back()->type, &make_none, name);
  py::setattr(cls, "_octet_class", py::int_(all->size() - 1));
  return *all->back();
}

}  // namespace

const std::type_info& type_of(const py::object& cls) { return class_of(cls).type; }
std::string registered_name_of(const py::object& cls) { return class_of(cls).name; }

py::object python_function(const char* name) {
  return py::module_::import("octet.nn._module").attr(name);
}
py::object wrapped(const nn::ModulePtr& module) {
  if (!module) return py::none();
  return python_function("_wrap")(module);
}
nn::ModulePtr module_of(const py::handle& object) {
  if (py::isinstance<nn::Module>(object)) return object.cast<nn::ModulePtr>();
  return python_function("_handle")(object).cast<nn::ModulePtr>();
}

PythonSide::PythonSide(const PythonSide& other) : type_(other.type_), cls_(other.cls_) {
  const Locked gil;
  dict_ = keep(py::module_::import("copy").attr("deepcopy")(*other.dict_));
}
std::string PythonSide::name() const {
  const Locked gil;
  return cls_->attr("__name__").cast<std::string>();
}
std::optional<std::string> PythonSide::text_of(const nn::ModulePtr& self,
                                               const char* method) const {
  const Locked gil;
  if (!python_function("_overrides")(*cls_, method).cast<bool>()) return std::nullopt;
  return py::str(wrapped(self).attr(method)()).cast<std::string>();
}

// -- modules by reference -------------------------------------------------------------------------

namespace {
thread_local std::vector<nn::ModulePtr> t_known;

nn::ModulePtr find_in(const nn::ModulePtr& root, const nn::Module& module) {
  if (root.get() == &module) return root;
  for (const auto& [path, each] : root->named_modules())
    if (each == &module) return root->submodule(path);
  return nullptr;
}
}  // namespace

Known::Known(nn::ModulePtr root) { t_known.push_back(std::move(root)); }
Known::~Known() { t_known.pop_back(); }

// -- modules written in Python --------------------------------------------------------------------

namespace {

class PythonModule final : public nn::Module,
                           public PythonSide,
                           public std::enable_shared_from_this<PythonModule> {
 public:
  PythonModule(py::object cls, py::object dict) : PythonSide(std::move(cls), std::move(dict)) {}
  PythonModule(const PythonModule& other)
      : Module(other), PythonSide(other), std::enable_shared_from_this<PythonModule>() {}

  Tensor forward(Tensor x) override {
    std::vector<Tensor> results = forward(std::vector<Tensor>{std::move(x)});
    if (results.empty())
      fail(ErrorCode::invalid_argument, type_name() + ": forward gave no tensor; expected one");
    return results[0];
  }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    const Locked gil;
    bool traced = false;
    for (const Tensor& x : inputs) traced = traced || (x.defined() && x.is_symbolic());
    try {
      return python_function("_run_forward")(wrapped(self()), std::move(inputs))
          .cast<std::vector<Tensor>>();
    } catch (py::error_already_set& e) {
      // The tracer adds where in the model it was, and tries other ways.
      if (traced) throw_if_ours(e);
      throw;
    }
  }
  void train(bool mode) override {
    const Locked gil;
    if (!in_train_ && python_function("_overrides")(cls(), "train").cast<bool>()) {
      in_train_ = true;  // what it calls, super().train(), comes here again
      try {
        wrapped(self()).attr("train")(mode);
      } catch (...) {
        in_train_ = false;
        throw;
      }
      in_train_ = false;
      return;
    }
    Module::train(mode);
  }
  const std::type_info& class_type() const override { return type(); }
  std::string type_name() const override { return name(); }
  std::string extra_repr() const override { return text_of(self(), "extra_repr").value_or(""); }
  Attrs config() const override { return make_none({}), Attrs(); }

 private:
  nn::ModulePtr copy_of_class() const override { return std::make_shared<PythonModule>(*this); }
  std::shared_ptr<PythonModule> self() const {
    return const_cast<PythonModule*>(this)->shared_from_this();
  }
  bool in_train_ = false;
};

}  // namespace

nn::ModulePtr shared(nn::Module& module) {
  if (auto* python = dynamic_cast<PythonModule*>(&module)) return python->shared_from_this();
  for (auto root = t_known.rbegin(); root != t_known.rend(); ++root)
    if (nn::ModulePtr found = find_in(*root, module)) return found;
  fail(ErrorCode::unsupported, "a " + module.type_name() +
                                   " cannot be handed to Python here: put it into a module of a "
                                   "class of your own");
}

// -- bindings -------------------------------------------------------------------------------------

namespace {

py::dict dict_of(const std::map<std::string, Tensor>& tensors) {
  py::dict all;
  for (const auto& [name, tensor] : tensors) all[py::str(name)] = maybe(tensor);
  return all;
}
std::map<std::string, Tensor> tensors_of(const py::dict& values) {
  std::map<std::string, Tensor> all;
  for (const auto& [name, value] : values)
    if (!value.is_none())
      all[name.cast<std::string>()] = tensor_of(py::reinterpret_borrow<py::object>(value));
  return all;
}
py::list list_of(const std::vector<std::pair<std::string, Tensor*>>& tensors) {
  py::list all;
  for (const auto& [name, tensor] : tensors) all.append(py::make_tuple(name, maybe(*tensor)));
  return all;
}

std::vector<Tensor> call(const nn::ModulePtr& module, const std::vector<Tensor>& inputs) {
  const Known known(module);
  return without_gil([&] { return (*module)(inputs); });
}

void add_hook(nn::Module& module, std::string name, const py::object& fn) {
  module.add_forward_hook(
      std::move(name),
      [fn = keep(fn)](nn::Module& m, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
        const Locked gil;
        const py::object changed = python_function("_run_hook")(*fn, wrapped(shared(m)), in, out);
        if (!changed.is_none()) out = changed.cast<std::vector<Tensor>>();
      });
}
void add_pre_hook(nn::Module& module, std::string name, const py::object& fn) {
  module.add_forward_pre_hook(
      std::move(name), [fn = keep(fn)](nn::Module& m, std::vector<Tensor>& in) {
        const Locked gil;
        const py::object changed = python_function("_run_pre_hook")(*fn, wrapped(shared(m)), in);
        if (!changed.is_none()) in = changed.cast<std::vector<Tensor>>();
      });
}

// (whether it has one of its own, it)
py::tuple qconfig_of(const nn::Module& m) {
  if (!m.qconfig.has_value()) return py::make_tuple(false, py::none());
  if (const auto* q = std::any_cast<quant::QConfig>(&m.qconfig)) return py::make_tuple(true, *q);
  return py::make_tuple(true, py::none());
}

py::list own_tensors(nn::Module& m) {
  std::set<const void*> buffers;
  for (const auto& [name, tensor] : m.named_buffers()) buffers.insert(tensor);
  py::list all;
  for (const auto& [name, tensor] : m.own_tensors())
    all.append(py::make_tuple(name, maybe(*tensor), buffers.count(tensor) != 0));
  return all;
}

void set_tensor(nn::Module& m, const std::string& name, const std::optional<Tensor>& value) {
  m.tensor(name) = value.value_or(Tensor());
}

// Weight and bias of a quantized layer; None: it is none.
py::object quantized_part(const nn::Module& m, bool weight) {
  if (const auto* layer = dynamic_cast<const nn::quantized::WeightedModule*>(&m))
    return maybe(weight ? layer->weight() : layer->bias());
  if (const auto* table = dynamic_cast<const nn::quantized::Table*>(&m); table && weight)
    return maybe(table->weight());
  fail(ErrorCode::invalid_argument, "a " + m.type_name() + " has no quantized weight");
}

}  // namespace

void bind_nn(py::module_& m) {
  using nn::Module;
  py::class_<Module, nn::ModulePtr> cls(m, "_Module", "What octet.nn.Module holds.");
  cls.def_static(
         "make",
         [](const std::string& name, const py::dict& config) {
           const Attrs attrs = attrs_of(config);
           return without_gil([&] { return nn::make_registered(name, attrs); });
         },
         py::arg("name"), py::arg("config"))
      .def_static("python",
                  [](py::object type, py::object dict) -> nn::ModulePtr {
                    return std::make_shared<PythonModule>(std::move(type), std::move(dict));
                  })
      .def_property_readonly("key", [](const Module& m) { return reinterpret_cast<uintptr_t>(&m); })
      .def_property_readonly("python_side",
                             [](const Module& m) -> py::object {
                               const auto* p = dynamic_cast<const PythonSide*>(&m);
                               if (!p) return py::none();
                               return py::make_tuple(p->cls(), p->dict());
                             })
      .def_property_readonly("registered_name",
                             [](const Module& m) -> std::string {
                               try {
                                 return nn::registered_name(m);
                               } catch (const Error&) {  // loggers, shadows: nothing that is saved
                                 return "octet::debug::" + m.type_name();
                               }
                             })
      .def("type_name", &Module::type_name)
      .def("extra_repr", &Module::extra_repr)
      .def("to_string", [](const Module& m) { return nn::to_string(m); })
      .def("children", &Module::children)
      .def("child",
           [](const Module& m, const std::string& name) -> py::object {
             for (const auto& [each, child] : m.children())
               if (each == name) return py::make_tuple(child);
             return py::none();
           })
      .def("set_child",
           [](Module& m, const std::string& name, const nn::ModulePtr& child) {
             if (child)
               for (const auto& [path, each] : child->named_modules())
                 if (each == &m)
                   fail(ErrorCode::invalid_argument,
                        "'" + name + "': a module cannot be a part of itself");
             for (const auto& [each, now] : m.children())
               if (each == name) return m.set_submodule(name, child);
             m.add_child(name, child);
           })
      .def("remove_child", &Module::remove_child)
      .def("submodule", &Module::submodule)
      .def("set_submodule", &Module::set_submodule)
      .def("named_modules",
           [](const nn::ModulePtr& m) {
             py::list all;
             for (const auto& [path, each] : m->named_modules())
               all.append(py::make_tuple(path, path.empty() ? m : m->submodule(path)));
             return all;
           })
      .def("own_tensors", own_tensors)
      .def("tensor", [](Module& m, const std::string& name) { return maybe(m.tensor(name)); })
      .def("has_tensor",
           [](Module& m, const std::string& name) {
             for (const auto& [each, tensor] : m.own_tensors())
               if (each == name) return true;
             return false;
           })
      .def("set_tensor", set_tensor)
      .def("register_parameter",
           [](Module& m, const std::string& name, const std::optional<Tensor>& value) {
             const bool on = value && autograd::requires_grad(*value);
             m.register_parameter(name, value.value_or(Tensor()));
             if (value && !on) autograd::set_requires_grad(*value, false);
           })
      .def("register_buffer",
           [](Module& m, const std::string& name, const std::optional<Tensor>& value) {
             m.register_buffer(name, value.value_or(Tensor()));
           })
      .def("named_parameters", [](Module& m) { return list_of(m.named_parameters()); })
      .def("named_buffers", [](Module& m) { return list_of(m.named_buffers()); })
      .def("call", call)
      .def("operation",
           [](Module& m, const std::string& op, const std::vector<Tensor>& operands,
              const py::dict& attributes) {
             const Attrs attrs = attrs_of(attributes);
             return without_gil([&] { return m.operation(op.c_str(), operands, attrs); });
           })
      .def("config", [](const Module& m) { return dict_of(m.config()); })
      .def("extra_state", [](const Module& m) { return dict_of(m.extra_state()); })
      .def("set_extra_state",
           [](Module& m, const py::dict& state) { m.set_extra_state(tensors_of(state)); })
      .def("train", &Module::train)
      .def("training", &Module::training)
      .def("state_dict", [](Module& m) { return dict_of(m.state_dict()); })
      .def("load_state_dict",
           [](Module& m, const py::dict& state) {
             const auto tensors = tensors_of(state);
             without_gil([&] { m.load_state_dict(tensors); });
           })
      .def("zero_grad", &Module::zero_grad)
      .def("requires_grad", &Module::requires_grad)
      .def(
          "clone", [](const Module& m) { return m.clone(); }, Release())
      .def("qconfig", qconfig_of)
      .def("set_qconfig",
           [](Module& m, const std::optional<quant::QConfig>& q) {
             if (q)
               m.qconfig = *q;
             else
               m.qconfig = nullptr;
           })
      .def("delete_qconfig", [](Module& m) { m.qconfig.reset(); })
      .def("add_forward_hook", add_hook)
      .def("add_forward_pre_hook", add_pre_hook)
      .def("remove_forward_hook", &Module::remove_forward_hook)
      .def("weight", [](const Module& m) { return quantized_part(m, true); })
      .def("bias", [](const Module& m) { return quantized_part(m, false); })
      .def("annotations",
           [](const nn::ModulePtr& m) {
             py::list all;
             for (const auto& [path, each] : m->named_modules())
               for (const auto& [name, annotation] : nn::annotations())
                 if (const auto data = annotation.save(*each))
                   all.append(py::make_tuple(path, name, dict_of(*data)));
             return all;
           })
      .def("load_annotation",
           [](Module& m, const std::string& path, const std::string& name, const py::dict& data) {
             for (const auto& [each, annotation] : nn::annotations())
               if (each == name)
                 annotation.load(m, path.empty() ? m : *m.submodule(path), attrs_of(data));
           })
      .def(
          "graph",
          [](Module& m) { return without_gil([&] { return m.as<graph::GraphModule>().graph(); }); })
      .def("to_graph", [](Module& m) {
        return without_gil([&] { return m.as<graph::GraphModule>().to_graph(); });
      });
  m.def("_class_name", &registered_name_of, py::arg("cls"));
  m.def("registered_modules", &nn::registered_names);
  m.def(
      "save_model",
      [](const std::string& path, const py::object& model) {
        const nn::ModulePtr module = module_of(model);
        without_gil([&] { save_model(path, *module); });
      },
      py::arg("path"), py::arg("model"));
  m.def(
      "load_model",
      [](const std::string& path) {
        return wrapped(without_gil([&] { return load_model(path); }));
      },
      py::arg("path"));
  m.def(
      "is_model_file", [](const std::string& path) { return io::is_model_file(path); },
      py::arg("path"), "Does the file hold a model of modules, as opposed to a graph?");
  m.def(
      "save_state_dict",
      [](const std::string& path, const py::dict& state) {
        const auto tensors = tensors_of(state);
        without_gil([&] { save_state_dict(path, tensors); });
      },
      py::arg("path"), py::arg("state_dict"));
  m.def(
      "load_state_dict",
      [](const std::string& path, const std::string& key) {
        return dict_of(without_gil([&] { return load_state_dict(path, nullptr, key); }));
      },
      py::arg("path"), py::arg("key") = "");
  m.def(
      "_trace",
      [](const py::object& model, const std::vector<Tensor>& inputs,
         const std::vector<std::string>& leaves) {
        const nn::ModulePtr module = module_of(model);
        const Known known(module);
        return wrapped(
            without_gil([&] { return graph::trace(*module, inputs, {.leaf_modules = leaves}); }));
      },
      py::arg("model"), py::arg("inputs"), py::arg("leaf_modules") = std::vector<std::string>());
  m.def(
      "graph_module",
      [](const graph::Graph& g) {
        return wrapped(without_gil([&] { return nn::make<graph::GraphModule>(g); }));
      },
      py::arg("graph"));
}

}  // namespace octet::python
