// octet._octet: what python/octet/__init__.py shows.
#include <string>

#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/base/plugin.h"
#include "octet/base/version.h"
#include "python/bindings.h"

namespace py = pybind11;
using namespace octet;

PYBIND11_MODULE(_octet, m) {
  m.doc() = "octet: quantizes neural networks and runs them in 8 bits.";
  static py::exception<Error> error(m, "Error", PyExc_RuntimeError);
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      py::object instance = py::reinterpret_borrow<py::object>(error.ptr())(e.what());
      instance.attr("code") = to_string(e.code());
      PyErr_SetObject(error.ptr(), instance.ptr());
    }
  });
  m.def("version", [] { return std::string(version()); });
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("get_num_threads", &num_threads);
  m.def(
      "load_plugin", [](const std::string& path) { load_plugin(path); }, py::arg("path"));
  python::bind_tensor(m);
  python::bind_graph(m);
  python::bind_quantization(m);
  python::bind_debug(m);
}
