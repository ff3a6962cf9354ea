#pragma once
// Modules and Python: how C++ holds a module whose class is written in Python, and how Python sees
// any module.
//
// C++ owns the class and the __dict__ of such a module; the Python object that a program holds is
// made when it is wanted (`wrapped`) and dies when nobody holds it, so that no cycle keeps a model
// alive. octet/nn/_module.py has the other half.

#include <memory>
#include <string>
#include <typeinfo>
#include <vector>

#include "octet/nn/module.h"
#include "python/bindings.h"

namespace octet::python {

// A Python object that C++ holds: its last owner may be a thread without the GIL.
using Kept = std::shared_ptr<py::object>;
Kept keep(py::object object);

// What stands in C++ for a class of modules that is written in Python: a type_info of its own, so
// that all that goes by class (qconfigs, fusions, custom modules, leaves of a trace) takes it as
// any other. Made at its first use, registered as "python::<module>::<class>"; it lives forever.
const std::type_info& type_of(const py::object& cls);
// The name under which a class written in Python is registered.
std::string registered_name_of(const py::object& cls);

// The class and the attributes of a module that is written in Python.
class PythonSide {
 public:
  virtual ~PythonSide() = default;
  py::object cls() const { return *cls_; }
  py::object dict() const { return *dict_; }

 protected:
  PythonSide(py::object cls, py::object dict)
      : type_(type_of(cls)), cls_(keep(std::move(cls))), dict_(keep(std::move(dict))) {}
  // Attributes are copied deeply.
  PythonSide(const PythonSide& other);
  std::string name() const;  // of the class
  // What the class says in a method that it overrides; nullopt: it is octet's own.
  std::optional<std::string> text_of(const nn::ModulePtr& self, const char* method) const;
  const std::type_info& type() const { return type_; }

 private:
  const std::type_info& type_;
  Kept cls_, dict_;
};

// The Python object of a module, the same one as long as somebody holds it. With the GIL.
py::object wrapped(const nn::ModulePtr& module);
// The module of such an object; Error for other objects. With the GIL.
nn::ModulePtr module_of(const py::handle& object);
// A function of octet/nn/_module.py that C++ calls. With the GIL.
py::object python_function(const char* name);

// While it lives, a module that C++ hands back by reference can be found in this one.
class Known {
 public:
  explicit Known(nn::ModulePtr root);
  ~Known();
  Known(const Known&) = delete;
  Known& operator=(const Known&) = delete;
};
// The owner's pointer of a module within a Known one; Error if it is in none.
nn::ModulePtr shared(nn::Module& module);

}  // namespace octet::python
