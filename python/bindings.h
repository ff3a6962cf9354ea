#pragma once
// What the sources of octet._octet share. Tensors and NumPy arrays share memory; the GIL is
// released wherever octet computes.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>
#include <vector>

#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet::python {

namespace py = pybind11;

// The GIL, for others while octet computes (Unlocked) and taken again for a callback (Locked). When
// the interpreter is about to end, its main thread waits until no other is in octet: those sleep
// where they next would take or leave the GIL, until the process is gone (module.cpp).
class Unlocked {
 public:
  Unlocked();
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};
class Locked {
 public:
  Locked();
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  std::optional<py::gil_scoped_acquire> gil_;
};
using Release = py::call_guard<Unlocked>;
template <typename Fn>
auto without_gil(Fn&& fn) {
  const Unlocked unlocked;
  return fn();
}

// The array that shows the tensor's memory and keeps it alive. Error for quantized tensors.
py::array numpy_of(const Tensor& tensor);
// A Tensor as it is; what NumPy makes an array of, without a copy where that is safe.
Tensor tensor_of(const py::object& object, bool copy = false);
std::vector<Tensor> tensors_of(const py::args& values);
// One result as it is, several as a tuple.
py::object results(std::vector<Tensor> values);

// Attributes as a dictionary and back; None is left out.
Attr attr_of(const py::handle& value);
Attrs attrs_of(const py::dict& values);
py::dict dict_of(const Attrs& attrs);
// None for an undefined tensor.
py::object maybe(const Tensor& tensor);

// Throws an octet.Error that Python raised as the Error that C++ knows; other exceptions stay. When
// that Error comes to Python again, the first one is its cause.
void throw_if_ours(py::error_already_set& error);

// What each source adds to the module.
void bind_tensor(py::module_& m);
void bind_functional(py::module_& m);
void bind_graph(py::module_& m);
void bind_nn(py::module_& m);
void bind_training(py::module_& m);
void bind_quantization(py::module_& m);
void bind_debug(py::module_& m);
void bind_algorithms(py::module_& m);
void bind_numeric_suite(py::module_& m);
void bind_metrics(py::module_& m);
void bind_model_report(py::module_& m);

}  // namespace octet::python
