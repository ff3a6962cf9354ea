// QConfigs, and what they do to models.
#include <memory>
#include <optional>
#include <string>

#include "octet/quant/workflow/fx.h"
#include "python/bindings.h"

namespace octet::python {
void bind_quantization(py::module_& m) {
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

}  // namespace octet::python
