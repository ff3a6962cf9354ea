// Tensors and NumPy arrays.
#include <unistd.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "octet/autograd/autograd.h"
#include "octet/base/buffer.h"
#include "octet/base/error.h"
#include "octet/base/random.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

struct NumpyName {
  const char* name;
  DType dtype;
};
constexpr NumpyName kNumpy[] = {{"float32", DType::float32}, {"float64", DType::float64},
                                {"float16", DType::float16}, {"int64", DType::int64},
                                {"int32", DType::int32},     {"int16", DType::int16},
                                {"int8", DType::int8},       {"uint8", DType::uint8},
                                {"uint16", DType::uint16},   {"bool", DType::bool_}};

py::dtype numpy_dtype(DType dtype) {
  for (const NumpyName& n : kNumpy)
    if (n.dtype == dtype) return py::dtype(n.name);
  fail(ErrorCode::unsupported,
       "NumPy has no type for " + to_string(dtype) + "; use dequantize() or int_repr()");
}
DType dtype_of_numpy(const py::dtype& d) {
  for (const NumpyName& n : kNumpy)
    if (d.is(py::dtype(n.name)) || py::bool_(d.attr("__eq__")(py::dtype(n.name)))) return n.dtype;
  fail(ErrorCode::unsupported,
       "a tensor cannot hold NumPy's " + py::str(py::handle(d)).cast<std::string>());
}

// Kernels may read kBufferSlack bytes behind the last element. That is safe in another library's
// array if they lie in the page of the last element.
bool readable_behind(const void* end) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto last = reinterpret_cast<uintptr_t>(end) - 1;
  return last / page == (last + kBufferSlack) / page;
}

// What asks for a tensor's numbers. Where it has none, because a model is being traced, the error
// says which line of Python asked.
template <typename Fn>
auto of_numbers(const Tensor& x, Fn&& fn) {
  try {
    return fn();
  } catch (const Error& e) {
    PyFrameObject* frame = x.is_symbolic() ? PyEval_GetFrame() : nullptr;
    if (!frame) throw;
    std::string message = e.what();  // "<file>:<line>: ..." of this source
    if (const size_t end = message.find(": "); end != std::string::npos) message.erase(0, end + 2);
    const auto code =
        py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(frame)));
    throw Error(e.code(), code.attr("co_filename").cast<std::string>() + ":" +
                              std::to_string(PyFrame_GetLineNumber(frame)) + ": " + message);
  }
}
double number_of(const Tensor& x) {
  return of_numbers(x, [&] { return x.item(); });
}

// Sizes as PyTorch's methods take them: x.reshape(2, 3) or x.reshape([2, 3]).
std::vector<int64_t> ints_of(const py::args& values) {
  try {
    if (values.size() == 1 && py::isinstance<py::sequence>(values[0]))
      return values[0].cast<std::vector<int64_t>>();
    return values.cast<std::vector<int64_t>>();
  } catch (const py::cast_error&) {
    throw py::type_error("sizes are whole numbers; got " + py::repr(values).cast<std::string>());
  }
}
// dim=None (all), a number or several.
std::vector<int64_t> dims_of(const py::object& dim) {
  if (dim.is_none()) return {};
  if (py::isinstance<py::int_>(dim)) return {dim.cast<int64_t>()};
  return dim.cast<std::vector<int64_t>>();
}

// Of two dtypes the one that holds the numbers of both; as PyTorch's, but that 8- and 16-bit
// integers count as int32, in which octet computes.
DType promoted(DType a, DType b) {
  const auto rank = [](DType d) {
    switch (d) {
      case DType::float64:
        return 4;
      case DType::float32:
      case DType::float16:
      case DType::bfloat16:
        return 3;
      case DType::int64:
        return 2;
      default:
        return 1;
    }
  };
  const int r = std::max(rank(a), rank(b));
  return r == 4 ? DType::float64 : r == 3 ? DType::float32 : r == 2 ? DType::int64 : DType::int32;
}
Tensor to_dtype(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : ops::call("to", {x}, {{"dtype", std::string(to_string(dtype))}});
}

// a op b, where b is a tensor, an array or a number. `whole`: integers stay integers (not for /).
py::object binary(const char* op, const Tensor& a, const py::object& other, bool swapped = false,
                  bool whole = true) {
  const bool number = py::isinstance<py::int_>(other) || py::isinstance<py::float_>(other);
  Tensor b;
  if (number) {
    const bool fraction = !whole || py::isinstance<py::float_>(other);
    const DType plain = a.is_quantized() ? DType::float32 : promoted(a.dtype(), DType::int32);
    const bool integer = plain == DType::int32 || plain == DType::int64;
    b = Tensor::scalar(other.cast<double>(), fraction && integer ? DType::float32 : plain);
  } else if (py::isinstance<Tensor>(other)) {
    b = other.cast<Tensor>();
  } else if (py::isinstance<py::array>(other) || PyNumber_Check(other.ptr())) {
    b = tensor_of(other);
  } else {
    return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  }
  return py::cast(without_gil([&] {
    Tensor x = a;
    const std::string name = op;
    if (number && !swapped && x.is_quantized() && (name == "add" || name == "mul"))
      return ops::call(name + "_scalar", {x}, {{"value", b.item()}});
    if (!x.is_quantized() && !b.is_quantized()) {
      DType dtype = promoted(x.dtype(), b.dtype());
      if (!whole && (dtype == DType::int32 || dtype == DType::int64)) dtype = DType::float32;
      x = to_dtype(x, dtype);
      b = to_dtype(b, dtype);
    }
    return swapped ? ops::call(op, {b, x}) : ops::call(op, {x, b});
  }));
}

// x op= y. Plain tensors are changed in place, as in PyTorch; results of recorded or traced calls
// are not: the name stands for a new tensor then.
py::object in_place(const char* op, const py::object& self, const py::object& other, bool whole) {
  const auto x = self.cast<Tensor>();
  const bool recorded = autograd::enabled() && autograd::requires_grad(x);
  if (recorded && autograd::is_leaf(x))
    fail(ErrorCode::invalid_argument,
         "a leaf that requires a gradient cannot be changed in place; do it within no_grad()");
  py::object result = binary(op, x, other, false, whole);
  if (!py::isinstance<Tensor>(result) || recorded || ops::trace_of(x)) return result;
  const auto y = result.cast<Tensor>();
  if (y.dtype() != x.dtype() || y.shape() != x.shape()) return result;
  Tensor target = x;
  without_gil([&] { target.copy_from(y); });
  return self;
}

// x[...] of integers, slices, None, Ellipsis and integer tensors.
Tensor indexed(const Tensor& x, const py::object& index) {
  const py::tuple all =
      py::isinstance<py::tuple>(index) ? index.cast<py::tuple>() : py::make_tuple(index);
  int64_t used = 0;
  for (const py::handle i : all) used += !i.is_none() && !i.is(py::ellipsis()) ? 1 : 0;
  if (used > x.dim())
    fail(ErrorCode::invalid_argument,
         "too many indices: " + std::to_string(used) + " for " + to_string(x.type()));
  Tensor y = x;
  int64_t d = 0;
  for (const py::handle i : all) {
    if (i.is_none()) {
      y = y.unsqueeze(d++);
    } else if (i.is(py::ellipsis())) {
      d += x.dim() - used;
    } else if (py::isinstance<py::slice>(i)) {
      const auto bound = [&](const char* name, int64_t otherwise) {
        const py::object v = i.attr(name);
        return v.is_none() ? otherwise : v.cast<int64_t>();
      };
      const int64_t start = bound("start", 0), step = bound("step", 1);
      const int64_t end = bound("stop", std::numeric_limits<int64_t>::max());
      if (start != 0 || step != 1 || end != std::numeric_limits<int64_t>::max())
        y = y.slice(d, start, end, step);
      ++d;
    } else if (PyIndex_Check(i.ptr()) && !py::isinstance<Tensor>(i) &&
               !py::isinstance<py::array>(i)) {
      const int64_t at = py::int_(py::reinterpret_borrow<py::object>(i));
      if (at < -y.size(d) || at >= y.size(d)) {
        PyErr_SetString(PyExc_IndexError, ("index " + std::to_string(at) + " of a dimension of " +
                                           std::to_string(y.size(d)))
                                              .c_str());
        throw py::error_already_set();
      }
      y = y.select(d, at);
    } else {
      Tensor at = tensor_of(py::reinterpret_borrow<py::object>(i));
      if (at.dtype() == DType::bool_) {
        if (at.dim() != 1) fail(ErrorCode::unsupported, "an index of bool must have one dimension");
        at = ops::call("nonzero", {at}).reshape({-1});
      }
      y = ops::call("index_select", {y, to_dtype(at, DType::int64)}, {{"dim", d}});
      d += at.dim();
    }
  }
  return y;
}

void assign(const Tensor& x, const py::object& index, const py::object& value) {
  if (autograd::requires_grad(x) && autograd::enabled())
    fail(ErrorCode::invalid_argument,
         "a tensor that requires a gradient cannot be changed in place; do it within no_grad()");
  if (x.is_quantized())
    fail(ErrorCode::unsupported, "elements of a quantized tensor cannot be set");
  const auto plain = [](const py::handle& i) -> py::object {
    if (py::isinstance<Tensor>(i)) return numpy_of(i.cast<Tensor>());
    return py::reinterpret_borrow<py::object>(i);
  };
  py::object at = plain(index);
  if (py::isinstance<py::tuple>(index)) {
    py::list parts;
    for (const py::handle i : index) parts.append(plain(i));
    at = py::tuple(parts);
  }
  numpy_of(x)[at] = plain(value);
}

void bind_methods(py::class_<Tensor>& t) {
  for (const char* op : {"relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg", "round",
                         "floor", "ceil", "sign", "sin", "cos", "rsqrt", "reciprocal"})
    t.def(
        op, [op](const Tensor& x) { return ops::call(op, {x}); }, Release());
  t.def(
       "__neg__", [](const Tensor& x) { return ops::call("neg", {x}); }, Release())
      .def(
          "__abs__", [](const Tensor& x) { return ops::call("abs", {x}); }, Release())
      .def(
          "__invert__", [](const Tensor& x) { return ops::call("logical_not", {x}); }, Release());
  struct Binary {
    const char *op, *name, *reversed, *in_place, *method;
    bool whole;
  };
  for (const Binary& b : {Binary{"add", "__add__", "__radd__", "__iadd__", "add", true},
                          {"sub", "__sub__", "__rsub__", "__isub__", "sub", true},
                          {"mul", "__mul__", "__rmul__", "__imul__", "mul", true},
                          {"div", "__truediv__", "__rtruediv__", "__itruediv__", "div", false},
                          {"pow", "__pow__", "__rpow__", "__ipow__", "pow", true},
                          {"remainder", "__mod__", "__rmod__", "__imod__", "remainder", true},
                          {"maximum", nullptr, nullptr, nullptr, "maximum", true},
                          {"minimum", nullptr, nullptr, nullptr, "minimum", true},
                          {"equal", "__eq__", nullptr, nullptr, "eq", true},
                          {"not_equal", "__ne__", nullptr, nullptr, "ne", true},
                          {"less", "__lt__", nullptr, nullptr, "lt", true},
                          {"less_equal", "__le__", nullptr, nullptr, "le", true},
                          {"greater", "__gt__", nullptr, nullptr, "gt", true},
                          {"greater_equal", "__ge__", nullptr, nullptr, "ge", true}}) {
    const auto method = [op = b.op, whole = b.whole](const Tensor& x, const py::object& y) {
      return binary(op, x, y, false, whole);
    };
    if (b.name) t.def(b.name, method, py::arg("other"));
    t.def(b.method, method, py::arg("other"));
    if (b.reversed)
      t.def(
          b.reversed,
          [op = b.op, whole = b.whole](const Tensor& x, const py::object& y) {
            return binary(op, x, y, true, whole);
          },
          py::arg("other"));
    if (b.in_place)
      t.def(
          b.in_place,
          [op = b.op, whole = b.whole](const py::object& x, const py::object& y) {
            return in_place(op, x, y, whole);
          },
          py::arg("other"));
  }
  for (const auto& [name, op] : {std::pair{"__and__", "logical_and"}, {"__or__", "logical_or"}})
    t.def(
        name,
        [op = op](const Tensor& x, const Tensor& y) {
          return ops::call(op, {x, y});
        },
        py::arg("other"), Release());
  for (const char* name : {"matmul", "__matmul__"})
    t.def(
        name, [](const Tensor& x, const Tensor& y) { return functional::matmul(x, y); },
        py::arg("other"), Release());
  for (const char* op : {"sum", "mean", "amax", "amin", "prod"})
    t.def(
        op,
        [op](const Tensor& x, const py::object& dim, bool keepdim) {
          const std::vector<int64_t> dims = dims_of(dim);
          return without_gil([&] {
            return ops::call(op, {x}, {{"dim", dims}, {"keepdim", keepdim}});
          });
        },
        py::arg("dim") = py::none(), py::arg("keepdim") = false);
  for (const auto& [name, op, arg] :
       {std::tuple{"max", "amax", "argmax"}, {"min", "amin", "argmin"}})
    t.def(
        name,
        [op = op, arg = arg](const Tensor& x, const std::optional<int64_t>& dim,
                             bool keepdim) -> py::object {
          std::vector<int64_t> dims;
          if (dim) dims.push_back(*dim);
          const Tensor value = without_gil([&] {
            return ops::call(op, {x}, {{"dim", dims}, {"keepdim", keepdim}});
          });
          if (!dim) return py::cast(value);
          const Tensor index = without_gil([&] {
            return ops::call(arg, {x}, {{"dim", *dim}, {"keepdim", keepdim}});
          });
          return py::make_tuple(value, index);
        },
        py::arg("dim") = py::none(), py::arg("keepdim") = false);
  for (const char* op : {"argmax", "argmin"})
    t.def(
        op,
        [op](const Tensor& x, const std::optional<int64_t>& dim, bool keepdim) {
          const Tensor from = dim ? x : x.reshape({-1});
          return ops::call(op, {from},
                           {{"dim", dim.value_or(0)}, {"keepdim", keepdim && dim.has_value()}});
        },
        py::arg("dim") = py::none(), py::arg("keepdim") = false, Release());
  for (const char* name : {"clamp", "clip"})
    t.def(
        name,
        [](const Tensor& x, const std::optional<double>& min, const std::optional<double>& max) {
          return functional::clamp(x, min.value_or(-INFINITY), max.value_or(INFINITY));
        },
        py::arg("min") = py::none(), py::arg("max") = py::none(), Release());
  t.def(
       "softmax", [](const Tensor& x, int64_t dim) { return x.softmax(dim); }, py::arg("dim"),
       Release())
      .def(
          "log_softmax", [](const Tensor& x, int64_t dim) { return x.log_softmax(dim); },
          py::arg("dim"), Release())
      .def(
          "chunk",
          [](const Tensor& x, int64_t chunks, int64_t dim) {
            return py::tuple(py::cast(without_gil([&] { return x.chunk(chunks, dim); })));
          },
          py::arg("chunks"), py::arg("dim") = 0)
      .def(
          "split",
          [](const Tensor& x, const py::object& size, int64_t dim) {
            std::vector<int64_t> sizes;
            if (!py::isinstance<py::int_>(size)) {
              sizes = size.cast<std::vector<int64_t>>();
            } else {
              const auto each = size.cast<int64_t>();
              if (each < 1)
                fail(ErrorCode::invalid_argument, "split: a size of 1 or more is needed");
              for (int64_t left = x.size(dim); left > 0; left -= each)
                sizes.push_back(std::min(left, each));
            }
            return py::tuple(py::cast(without_gil([&] { return x.split(sizes, dim); })));
          },
          py::arg("split_size"), py::arg("dim") = 0)
      .def(
          "flatten", [](const Tensor& x, int64_t a, int64_t b) { return x.flatten(a, b); },
          py::arg("start_dim") = 0, py::arg("end_dim") = -1, Release())
      .def(
          "squeeze",
          [](const Tensor& x, const std::optional<int64_t>& dim) {
            if (dim) return x.size(*dim) == 1 ? x.squeeze(*dim) : x;
            Tensor y = x;
            for (int64_t d = x.dim() - 1; d >= 0; --d)
              if (y.size(d) == 1) y = y.squeeze(d);
            return y;
          },
          py::arg("dim") = py::none(), Release())
      .def("unsqueeze", &Tensor::unsqueeze, py::arg("dim"), Release())
      .def("transpose", &Tensor::transpose, py::arg("dim0"), py::arg("dim1"), Release())
      .def("t", &Tensor::t, Release())
      .def_property_readonly("T",
                             [](const Tensor& x) {
                               std::vector<int64_t> dims;
                               for (int64_t d = x.dim() - 1; d >= 0; --d) dims.push_back(d);
                               return x.permute(dims);
                             })
      .def("repeat",
           [](const Tensor& x, const py::args& sizes) {
             const std::vector<int64_t> repeats = ints_of(sizes);
             return without_gil([&] {
               Tensor y = x;
               while (y.dim() < static_cast<int64_t>(repeats.size())) y = y.unsqueeze(0);
               return ops::call("tile", {y}, {{"repeats", repeats}});
             });
           })
      .def("__getitem__", indexed, py::arg("index"))
      .def("__setitem__", assign, py::arg("index"), py::arg("value"))
      .def("__bool__", [](const Tensor& x) { return number_of(x) != 0; })
      .def("__float__", number_of)
      .def("__int__", [](const Tensor& x) { return static_cast<int64_t>(number_of(x)); })
      .def("__hash__", [](const Tensor& x) { return reinterpret_cast<intptr_t>(x.id()) >> 4; })
      .def(
          "equal", [](const Tensor& x, const Tensor& y) { return equal(x, y); }, py::arg("other"),
          "Same dtype, shape, qparams and elements.", Release())
      .def(
          "allclose",
          [](const Tensor& x, const Tensor& y, double rtol, double atol) {
            return allclose(x, y, rtol, atol);
          },
          py::arg("other"), py::arg("rtol") = 1e-5, py::arg("atol") = 1e-8, Release());
  for (const auto& [name, dtype] : {std::pair{"float", DType::float32},
                                    {"double", DType::float64},
                                    {"half", DType::float16},
                                    {"int", DType::int32},
                                    {"long", DType::int64},
                                    {"bool", DType::bool_}})
    t.def(
        name, [dtype = dtype](const Tensor& x) { return to_dtype(x, dtype); }, Release());
}

void bind_gradients(py::class_<Tensor>& t) {
  t.def_property(
       "requires_grad", [](const Tensor& x) { return autograd::requires_grad(x); },
       [](const Tensor& x, bool on) { autograd::set_requires_grad(x, on); })
      .def_property_readonly("is_leaf", [](const Tensor& x) { return autograd::is_leaf(x); })
      .def_property(
          "grad", [](const Tensor& x) { return maybe(autograd::grad(x)); },
          [](const Tensor& x, const std::optional<Tensor>& g) {
            if (g)
              autograd::set_grad(x, *g);
            else
              autograd::zero_grad(x);
          },
          "What backward() found, summed; None before that.")
      .def(
          "requires_grad_",
          [](const py::object& x, bool on) {
            autograd::set_requires_grad(x.cast<Tensor>(), on);
            return x;
          },
          py::arg("requires_grad") = true)
      .def(
          "backward",
          [](const Tensor& y, const std::optional<Tensor>& dy, bool retain_graph) {
            autograd::backward(y, dy.value_or(Tensor()), retain_graph);
          },
          py::arg("gradient") = py::none(), py::arg("retain_graph") = false,
          "Adds the gradients of this tensor to those of all leaves it was computed from.",
          Release())
      .def("detach", &Tensor::detach)
      .def(
          "clone",
          [](const Tensor& x) {
            return autograd::requires_grad(x) || ops::trace_of(x) ? ops::call("clone", {x})
                                                                  : x.clone();
          },
          Release())
      .def(
          "copy_",
          [](const py::object& x, const py::object& source) {
            auto target = x.cast<Tensor>();
            if (autograd::requires_grad(target) && autograd::enabled())
              fail(ErrorCode::invalid_argument,
                   "a tensor that requires a gradient cannot be changed in place; do it within "
                   "no_grad()");
            const Tensor from = tensor_of(source);
            without_gil(
                [&] { target.copy_from(to_dtype(from, target.dtype()).expand(target.shape())); });
            return x;
          },
          py::arg("source"));
}

}  // namespace

py::object maybe(const Tensor& tensor) {
  return tensor.defined() ? py::cast(tensor) : py::object(py::none());
}

py::array numpy_of(const Tensor& tensor) {
  if (tensor.is_quantized())
    fail(ErrorCode::invalid_argument,
         "a quantized tensor is codes and qparams; use dequantize() or int_repr()");
  std::vector<py::ssize_t> shape(tensor.shape().begin(), tensor.shape().end()), strides;
  const auto size = static_cast<py::ssize_t>(element_size(tensor.dtype()));
  for (const int64_t s : tensor.strides()) strides.push_back(s * size);
  const py::dtype dtype = numpy_dtype(tensor.dtype());
  void* data = of_numbers(tensor, [&] { return tensor.raw_data(); });
  const py::capsule base(new Tensor(tensor), [](void* t) { delete static_cast<Tensor*>(t); });
  return py::array(dtype, shape, strides, data, base);
}

Tensor tensor_of(const py::object& object, bool copy) {
  if (py::isinstance<Tensor>(object)) return object.cast<Tensor>();
  py::array array = py::array::ensure(object);
  if (!array) throw py::error_already_set();
  const DType dtype = dtype_of_numpy(array.dtype());
  const Shape shape(array.shape(), array.shape() + array.ndim());
  array = py::array::ensure(array, py::array::c_style);
  const auto bytes = static_cast<size_t>(array.nbytes());
  auto* data = static_cast<char*>(const_cast<void*>(array.data()));
  if (copy || bytes == 0 || !array.writeable() || !readable_behind(data + bytes)) {
    Tensor t = Tensor::empty(shape, dtype);
    if (bytes > 0) std::memcpy(t.raw_data(), data, bytes);
    return t;
  }
  // The last owner may be a thread without the GIL.
  std::shared_ptr<void> owner(new py::array(array), [](void* a) {
    const Locked gil;
    delete static_cast<py::array*>(a);
  });
  return Tensor::wrap(Buffer::wrap(data, bytes, std::move(owner)), shape, dtype);
}

std::vector<Tensor> tensors_of(const py::args& values) {
  std::vector<Tensor> all;
  for (const py::handle v : values)
    all.push_back(tensor_of(py::reinterpret_borrow<py::object>(v), false));
  return all;
}
py::object results(std::vector<Tensor> values) {
  if (values.size() == 1) return py::cast(std::move(values[0]));
  py::tuple all(values.size());
  for (size_t i = 0; i < values.size(); ++i) all[i] = py::cast(std::move(values[i]));
  return all;
}

void bind_tensor(py::module_& m) {
  py::enum_<DType> dtype(m, "dtype", "The type of a tensor's elements, codes among them.");
  for (const char* name :
       {"float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
        "uint16", "quint8", "qint8", "quint16", "qint16", "qint32", "quint4x2", "qint4x2"})
    dtype.value(name, parse_dtype(name));
  dtype.value("bool", DType::bool_).export_values();

  py::class_<Tensor> tensor(
      m, "Tensor", "Numbers, or codes with qparams. numpy.asarray(tensor) shares its memory.");
  tensor.attr("__array_priority__") = 1000;  // array * tensor is a tensor
  bind_methods(tensor);
  bind_gradients(tensor);
  tensor
      .def(py::init([](const py::object& o) { return tensor_of(o, true); }), py::arg("data"),
           "A copy of an array or of numbers.")
      .def_property_readonly("shape",
                             [](const Tensor& t) { return py::tuple(py::cast(t.shape())); })
      .def_property_readonly("dtype", &Tensor::dtype)
      .def_property_readonly("ndim", &Tensor::dim)
      .def_property_readonly("is_quantized", &Tensor::is_quantized)
      .def(
          "data_ptr", [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.raw_data()); },
          "The address of the first element.")
      .def("numel", &Tensor::numel)
      .def("numpy", numpy_of, "An array that shares the memory.")
      .def(
          "__array__",
          [](const Tensor& t, const py::object& d) {
            py::array a = numpy_of(t);
            return d.is_none() ? py::object(a) : a.attr("astype")(d);
          },
          py::arg("dtype") = py::none())
      .def(
          "__dlpack__",
          [](const Tensor& t, const py::object&) { return numpy_of(t).attr("__dlpack__")(); },
          py::arg("stream") = py::none())
      .def("__dlpack_device__",
           [](const Tensor& t) { return numpy_of(t).attr("__dlpack_device__")(); })
      .def("q_scale", &Tensor::q_scale)
      .def("q_zero_point", &Tensor::q_zero_point)
      .def(
          "q_per_channel_scales",
          [](const Tensor& t) {
            const std::vector<double>& scales = t.q_per_channel_scales();
            return Tensor::from(scales, {static_cast<int64_t>(scales.size())});
          },
          "float64 (channels).")
      .def(
          "q_per_channel_zero_points",
          [](const Tensor& t) {
            const std::vector<int64_t>& zeros = t.q_per_channel_zero_points();
            return Tensor::from(zeros, {static_cast<int64_t>(zeros.size())});
          },
          "int64 (channels).")
      .def("qscheme",
           [](const Tensor& t) {
             return py::module_::import("octet._octet").attr(to_string(t.qscheme()));
           })
      .def("q_per_channel_axis", &Tensor::q_per_channel_axis)
      .def("int_repr", &Tensor::int_repr, "The codes as integers.")
      .def(
          "dequantize", [](const Tensor& t) { return t.dequantize(); },
          "The numbers that the codes stand for.", Release())
      .def("reshape", [](const Tensor& t, const py::args& s) { return t.reshape(ints_of(s)); })
      .def("view", [](const Tensor& t, const py::args& s) { return t.reshape(ints_of(s)); })
      .def("permute", [](const Tensor& t, const py::args& d) { return t.permute(ints_of(d)); })
      .def("expand",
           [](const Tensor& t, const py::args& s) {
             return ops::call("expand", {t}, {{"shape", ints_of(s)}});
           })
      .def("contiguous", [](const Tensor& t) { return t.contiguous(); })
      .def("is_contiguous", [](const Tensor& t) { return t.is_contiguous(); })
      .def(
          "to", [](const Tensor& t, DType d) { return to_dtype(t, d); }, py::arg("dtype"),
          Release())
      .def("dim", &Tensor::dim)
      .def(
          "size",
          [](const Tensor& t, const std::optional<int64_t>& d) -> py::object {
            if (d) return py::int_(t.size(*d));
            return py::tuple(py::cast(t.shape()));
          },
          py::arg("dim") = py::none())
      .def("stride", [](const Tensor& t) { return py::tuple(py::cast(t.strides())); })
      .def("element_size", [](const Tensor& t) { return element_size(t.dtype()); })
      .def_property_readonly(
          "type", [](const Tensor& t) { return to_string(t.type()); },
          "As graphs print it: Float(2, 3), QUInt8(2, 3, ...).")
      .def("item", [](const Tensor& t) { return numpy_of(t).attr("item")(); })
      .def("tolist", [](const Tensor& t) { return numpy_of(t).attr("tolist")(); })
      .def("__len__", [](const Tensor& t) { return t.dim() ? t.size(0) : 0; })
      .def("__repr__",
           [](const Tensor& t) {
             return t.is_symbolic() ? "<" + to_string(t.type()) + " without data>" : to_string(t);
           })
      .def(
          "__deepcopy__",
          [](const Tensor& t, const py::dict&) {
            Tensor copy = t.detach().clone();
            if (autograd::requires_grad(t) && autograd::is_leaf(t))
              autograd::set_requires_grad(copy);
            return copy;
          },
          py::arg("memo"))
      .def(py::pickle(
          [](const Tensor& t) -> py::tuple {
            const Tensor c = t.contiguous();
            if (!t.is_quantized()) return py::make_tuple(numpy_of(c), py::none());
            const Quantizer& q = *t.quantizer();
            if (q.has_float_zero_points() || is_packed(t.dtype()))
              fail(ErrorCode::unsupported,
                   "tensors of " + to_string(t.type()) + " cannot be pickled; save them in a file");
            return py::make_tuple(numpy_of(c.int_repr()),
                                  py::make_tuple(to_string(t.dtype()), q.scales(), q.zero_points(),
                                                 q.is_per_channel() ? q.axis() : -1));
          },
          [](const py::tuple& state) {
            const Tensor values = tensor_of(state[0], true);
            if (state[1].is_none()) return values;
            const auto q = state[1].cast<py::tuple>();
            const DType d = parse_dtype(q[0].cast<std::string>());
            const auto scales = q[1].cast<std::vector<double>>();
            const auto zeros = q[2].cast<std::vector<int64_t>>();
            const auto axis = q[3].cast<int64_t>();
            return make_quantized(values, axis < 0
                                              ? Quantizer::per_tensor(scales[0], zeros[0], d)
                                              : Quantizer::per_channel(scales, zeros, axis, d));
          }));

  m.def(
      "from_numpy", [](const py::array& a) { return tensor_of(a, false); }, py::arg("array"),
      "A tensor that shares the array's memory (a copy of arrays that are not contiguous or "
      "writeable, and of the few that end "
      "within 64 bytes of a memory page's end).");
  m.def(
      "from_dlpack",
      [](const py::object& o) {
        return tensor_of(py::module_::import("numpy").attr("from_dlpack")(o), true);
      },
      py::arg("array"), "A copy of an array of any library that speaks DLPack.");
  const auto maker = [&m](const char* name, auto make) {
    m.def(
        name,
        [make](py::args shape, std::optional<DType> dtype, bool requires_grad) {
          if (!dtype && shape.size() > 1 && py::isinstance<DType>(shape[shape.size() - 1])) {
            dtype = shape[shape.size() - 1].cast<DType>();
            shape = py::args(shape[py::slice(0, -1, 1)]);
          }
          Tensor t = make(ints_of(shape), dtype.value_or(DType::float32));
          if (requires_grad) autograd::set_requires_grad(t);
          return t;
        },
        py::kw_only(), py::arg("dtype") = py::none(), py::arg("requires_grad") = false);
  };
  maker("empty", [](const Shape& s, DType d) { return Tensor::empty(s, d); });
  maker("zeros", [](const Shape& s, DType d) { return Tensor::zeros(s, d); });
  maker("ones", [](const Shape& s, DType d) { return Tensor::ones(s, d); });
  maker("randn",
        [](const Shape& s, DType d) { return to_dtype(Tensor::randn(s, next_seed()), d); });
  maker("rand", [](const Shape& s, DType d) { return to_dtype(Tensor::rand(s, next_seed()), d); });
  m.def(
      "full",
      [](const Shape& shape, double value, DType d) { return Tensor::full(shape, value, d); },
      py::arg("size"), py::arg("fill_value"), py::arg("dtype") = DType::float32);
  m.def("manual_seed", &manual_seed, py::arg("seed"),
        "What is drawn from now on (initial weights, dropout, randn) is the same everywhere.");
  m.def("is_grad_enabled", &autograd::enabled);
  // The modes that this thread is in, innermost last: what no_grad() enters and leaves.
  static thread_local std::vector<std::unique_ptr<autograd::GradMode>> modes;
  m.def("_enter_grad_mode",
        [](bool on) { modes.push_back(std::make_unique<autograd::GradMode>(on)); });
  m.def("_leave_grad_mode", [] {
    if (!modes.empty()) modes.pop_back();
  });
  m.def(
      "quantize_per_tensor",
      [](const py::object& x, const py::object& at, const py::object& zero, DType d) {
        const Tensor t = tensor_of(x, false);
        const auto scale = py::float_(at).cast<double>();
        const auto zero_point = py::int_(zero).cast<int64_t>();
        return without_gil([&] { return quantize_per_tensor(t, scale, zero_point, d); });
      },
      py::arg("input"), py::arg("scale"), py::arg("zero_point"), py::arg("dtype"));
  m.def(
      "make_quantized",
      [](const py::object& codes, const std::vector<double>& scales,
         const std::vector<int64_t>& zeros, int64_t axis, DType d) {
        if (scales.empty() || scales.size() != zeros.size())
          fail(ErrorCode::invalid_argument,
               "make_quantized: one scale and zero point are needed, or one of each per channel");
        return make_quantized(tensor_of(codes, true),
                              axis < 0 ? Quantizer::per_tensor(scales[0], zeros[0], d)
                                       : Quantizer::per_channel(scales, zeros, axis, d),
                              d);
      },
      py::arg("codes"), py::arg("scales"), py::arg("zero_points"), py::arg("axis"),
      py::arg("dtype"), "Plain integers as the codes of a quantized tensor; axis -1: per tensor.");
  m.def(
      "quantize_per_channel",
      [](const py::object& x, const py::object& s, const py::object& z, int64_t axis, DType d) {
        const Tensor t = tensor_of(x, false);
        const auto scales = tensor_of(s).to(DType::float64).to_vector<double>();
        const auto zeros = tensor_of(z).to(DType::int64).to_vector<int64_t>();
        return without_gil([&] { return quantize_per_channel(t, scales, zeros, axis, d); });
      },
      py::arg("input"), py::arg("scales"), py::arg("zero_points"), py::arg("axis"),
      py::arg("dtype"));
}

}  // namespace octet::python
