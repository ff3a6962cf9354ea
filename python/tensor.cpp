// Tensors and NumPy arrays.
#include <unistd.h>

#include <memory>
#include <string>

#include "octet/base/buffer.h"
#include "octet/base/error.h"
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

}  // namespace

py::array numpy_of(const Tensor& tensor) {
  if (tensor.is_quantized())
    fail(ErrorCode::invalid_argument,
         "a quantized tensor is codes and qparams; use dequantize() or int_repr()");
  std::vector<py::ssize_t> shape(tensor.shape().begin(), tensor.shape().end()), strides;
  const auto size = static_cast<py::ssize_t>(element_size(tensor.dtype()));
  for (const int64_t s : tensor.strides()) strides.push_back(s * size);
  auto keep = std::make_unique<Tensor>(tensor);
  const py::capsule base(keep.get(), [](void* t) { delete static_cast<Tensor*>(t); });
  return py::array(numpy_dtype(tensor.dtype()), shape, strides, keep.release()->raw_data(), base);
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
    const py::gil_scoped_acquire gil;
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

  py::class_<Tensor>(m, "Tensor",
                     "Numbers, or codes with qparams. numpy.asarray(tensor) shares its memory.")
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
      .def("q_per_channel_scales", &Tensor::q_per_channel_scales)
      .def("q_per_channel_zero_points", &Tensor::q_per_channel_zero_points)
      .def("q_per_channel_axis", &Tensor::q_per_channel_axis)
      .def("int_repr", &Tensor::int_repr, "The codes as integers.")
      .def(
          "dequantize", [](const Tensor& t) { return t.dequantize(); },
          "The numbers that the codes stand for.", Release())
      .def(
          "reshape", [](const Tensor& t, const Shape& s) { return t.reshape(s); }, py::arg("shape"))
      .def("permute", &Tensor::permute, py::arg("dims"))
      .def("contiguous", [](const Tensor& t) { return t.contiguous(); })
      .def("to", &Tensor::to, py::arg("dtype"))
      .def("item", [](const Tensor& t) { return numpy_of(t).attr("item")(); })
      .def("tolist", [](const Tensor& t) { return numpy_of(t).attr("tolist")(); })
      .def("__len__", [](const Tensor& t) { return t.dim() ? t.size(0) : 0; })
      .def("__repr__", [](const Tensor& t) { return to_string(t.type()); })
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
  m.def(
      "empty", [](const Shape& shape, DType d) { return Tensor::empty(shape, d); },
      py::arg("shape"), py::arg("dtype") = DType::float32);
  m.def("zeros", &Tensor::zeros, py::arg("shape"), py::arg("dtype") = DType::float32);
  m.def(
      "quantize_per_tensor",
      [](const py::object& x, double scale, int64_t zero_point, DType d) {
        const Tensor t = tensor_of(x, false);
        return without_gil([&] { return quantize_per_tensor(t, scale, zero_point, d); });
      },
      py::arg("input"), py::arg("scale"), py::arg("zero_point"), py::arg("dtype"));
  m.def(
      "quantize_per_channel",
      [](const py::object& x, const std::vector<double>& scales, const std::vector<int64_t>& zeros,
         int64_t axis, DType d) {
        const Tensor t = tensor_of(x, false);
        return without_gil([&] { return quantize_per_channel(t, scales, zeros, axis, d); });
      },
      py::arg("input"), py::arg("scales"), py::arg("zero_points"), py::arg("axis"),
      py::arg("dtype"));
}

}  // namespace octet::python
