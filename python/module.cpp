// octet._octet: what python/octet/__init__.py shows. Tensors and NumPy arrays share memory; graphs,
// programs and workflows keep their C++ names. The GIL is released wherever octet computes.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "octet/octet.h"

namespace py = pybind11;
using namespace octet;

namespace {

using Release = py::call_guard<py::gil_scoped_release>;

// -- tensors and NumPy ----------------------------------------------------------------------------

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

// An array that shows the tensor's memory and keeps it alive.
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

// Kernels may read kBufferSlack bytes behind the last element. That is safe in another library's
// array if they lie in the page of the last element.
bool readable_behind(const void* end) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto last = reinterpret_cast<uintptr_t>(end) - 1;
  return last / page == (last + kBufferSlack) / page;
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
// One result as it is, several as a tuple.
py::object results(std::vector<Tensor> values) {
  if (values.size() == 1) return py::cast(std::move(values[0]));
  py::tuple all(values.size());
  for (size_t i = 0; i < values.size(); ++i) all[i] = py::cast(std::move(values[i]));
  return std::move(all);
}
template <typename Fn>
auto without_gil(Fn&& fn) {
  const py::gil_scoped_release release;
  return fn();
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

// -- graphs and programs --------------------------------------------------------------------------

py::list values_of(const graph::Graph& g, const std::vector<graph::ValueId>& ids) {
  py::list all;
  for (const graph::ValueId id : ids)
    all.append(py::make_tuple(g.value(id).name, to_string(g.type(id))));
  return all;
}

void save(const graph::Graph& g, const std::string& path) {
  if (std::filesystem::path(path).extension() == ".onnx")
    io::export_onnx(g, path);
  else
    io::save_octet(g, path);
}

void bind_graph(py::module_& m) {
  py::class_<graph::Graph>(m, "Graph", "A network with all its types and weights.")
      .def_property_readonly(
          "inputs", [](const graph::Graph& g) { return values_of(g, g.inputs()); },
          "(name, type) of each.")
      .def_property_readonly(
          "outputs", [](const graph::Graph& g) { return values_of(g, g.outputs()); },
          "(name, type) of each.")
      .def_property_readonly("metadata", [](const graph::Graph& g) { return g.metadata; })
      .def_property_readonly(
          "operators",
          [](const graph::Graph& g) {
            std::vector<std::string> all;
            for (const graph::Node& n : g.nodes())
              if (n.kind == graph::NodeKind::call) all.push_back(n.op);
            return all;
          },
          "The operators, in the order they run.")
      .def("save", save, py::arg("path"), "Writes a file .octet, or .onnx (QDQ).", Release())
      .def("__str__", [](const graph::Graph& g) { return graph::print(g); })
      .def("__repr__",
           [](const graph::Graph& g) {
             return "<octet.Graph of " + std::to_string(g.nodes().size()) + " nodes>";
           })
      .def("_repr_html_", [](const graph::Graph& g) { return debug::html_graph(g, g.name); });

  m.def(
      "load",
      [](const std::string& path, const graph::InputShapes& shapes) {
        return without_gil([&] { return io::load_graph(path, shapes); });
      },
      py::arg("path"), py::arg("shapes") = graph::InputShapes(),
      "The network in a file .octet or .onnx.");

  py::class_<runtime::Program>(m, "Program", "A compiled network: program(x) gives its results.")
      .def("__call__",
           [](const runtime::Program& p, const py::args& x) {
             const std::vector<Tensor> in = tensors_of(x);
             return results(without_gil([&] { return p.run(in); }));
           })
      .def(
          "run",
          [](const runtime::Program& p, const py::dict& x) {
            std::map<std::string, Tensor> in;
            for (const auto& [name, value] : x)
              in[name.cast<std::string>()] =
                  tensor_of(py::reinterpret_borrow<py::object>(value), false);
            return without_gil([&] { return p.run(in); });
          },
          py::arg("inputs"), "Results by name, of inputs by name.")
      .def_property_readonly("graph", [](const runtime::Program& p) { return p.graph(); })
      .def_property_readonly("kernels", [](const runtime::Program& p) {
        std::vector<std::string> all;
        for (const runtime::StepInfo& s : p.steps()) all.push_back(s.engine + ": " + s.kernel);
        return all;
      });
  m.def(
      "compile",
      [](const graph::Graph& g, const std::string& engine) {
        return without_gil(
            [&] { return runtime::compile(g, {.engine = engine, .every_value = false}); });
      },
      py::arg("graph"), py::arg("engine") = "");
}

// -- quantizing -----------------------------------------------------------------------------------

void bind_quant(py::module_& m) {
  py::class_<quant::QConfig>(m, "QConfig", "How a layer is quantized.")
      .def("__repr__", [](const quant::QConfig& q) { return quant::to_string(q); });
  m.def(
      "get_default_qconfig",
      [](const std::string& backend) { return quant::get_default_qconfig(backend); },
      py::arg("backend") = "native");

  py::class_<quant::QConfigMapping>(m, "QConfigMapping", "Which layers are quantized, and how.")
      .def(py::init<>())
      .def(
          "set_global",
          [](quant::QConfigMapping& q, const std::optional<quant::QConfig>& c) {
            return q.set_global(c);
          },
          py::arg("qconfig"))
      .def(
          "set_object_type",
          [](quant::QConfigMapping& q, const std::string& type,
             const std::optional<quant::QConfig>& c) { return q.set_object_type(type, c); },
          py::arg("object_type"), py::arg("qconfig"))
      .def(
          "set_module_name",
          [](quant::QConfigMapping& q, const std::string& name,
             const std::optional<quant::QConfig>& c) { return q.set_module_name(name, c); },
          py::arg("module_name"), py::arg("qconfig"))
      .def("to_json", &quant::QConfigMapping::to_json)
      .def_static(
          "from_json",
          [](const std::string& text) { return quant::QConfigMapping::from_json(text); },
          py::arg("text"));
  m.def(
      "get_default_qconfig_mapping",
      [](const std::string& b) { return quant::get_default_qconfig_mapping(b); },
      py::arg("backend") = "native");

  using Prepared = quant::ObservedGraphModule;
  py::class_<Prepared, std::shared_ptr<Prepared>>(m, "ObservedGraphModule",
                                                  "A graph with observers: calling it calibrates.")
      .def("__call__", [](Prepared& p, const py::args& x) {
        const std::vector<Tensor> in = tensors_of(x);
        return results(without_gil([&] { return p.forward(in); }));
      });
  m.def(
      "prepare_fx",
      [](const graph::Graph& g, const quant::QConfigMapping& mapping,
         const std::vector<std::string>& skip) {
        return without_gil([&] {
          return quant::prepare_fx(
              g, mapping,
              {.skip = skip, .engine = "", .backend = quant::get_native_backend_config()});
        });
      },
      py::arg("graph"), py::arg("qconfig_mapping") = quant::get_default_qconfig_mapping(),
      py::arg("skip") = std::vector<std::string>());
  m.def(
      "convert_fx",
      [](const std::shared_ptr<Prepared>& p) {
        return without_gil([&] { return quant::convert_fx(p)->to_graph(); });
      },
      py::arg("prepared"));
  m.def(
      "quantize_dynamic_fx",
      [](const graph::Graph& g) {
        return quant::quantize_dynamic_fx(g, quant::per_channel_dynamic_qconfig());
      },
      py::arg("graph"), Release());
  m.def(
      "quantize_weight_only_fx",
      [](const graph::Graph& g) { return quant::quantize_weight_only_fx(g); }, py::arg("graph"),
      Release());
}

// -- looking at the result ------------------------------------------------------------------------

struct Report {
  debug::Comparison comparison;
};

void bind_debug(py::module_& m) {
  py::class_<Report>(
      m, "Comparison",
      "Float and quantized network beside each other, layer by layer; a page in notebooks.")
      .def("to_json", [](const Report& r) { return debug::to_json(r.comparison); })
      .def("to_html", [](const Report& r) { return debug::html_report(r.comparison); })
      .def("_repr_html_", [](const Report& r) { return debug::html_report(r.comparison); });
  m.def(
      "compare",
      [](const graph::Graph& a, const graph::Graph& b, const py::list& samples) {
        std::vector<std::vector<Tensor>> all;
        for (const py::handle sample : samples)
          all.push_back(tensors_of(py::isinstance<py::tuple>(sample)
                                       ? py::args(sample.cast<py::tuple>())
                                       : py::args(py::make_tuple(sample))));
        if (all.empty()) fail(ErrorCode::invalid_argument, "compare: no samples");
        const debug::Samples each{static_cast<int64_t>(all.size()), 1,
                                  [&all](int64_t begin, int64_t) {
                                    return debug::SampleBatch{all[static_cast<size_t>(begin)], {}};
                                  }};
        return without_gil([&] { return Report{debug::compare(a, b, each)}; });
      },
      py::arg("float_graph"), py::arg("quantized"), py::arg("samples"),
      "`samples`: a list with an input each, or a tuple of inputs.");
}

}  // namespace

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
  bind_tensor(m);
  bind_graph(m);
  bind_quant(m);
  bind_debug(m);
}
