// Graphs and programs.
#include <filesystem>
#include <map>
#include <string>

#include "octet/debug/graph_page.h"
#include "octet/graph/graph.h"
#include "octet/io/load.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

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

}  // namespace

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
      .def("__deepcopy__", [](const graph::Graph& g, const py::dict&) { return graph::Graph(g); })
      .def("_repr_html_", [](const graph::Graph& g) { return debug::html_graph(g, g.name); });

  m.def(
      "_load",
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
      "_compile",
      [](const graph::Graph& g, const std::string& engine) {
        return without_gil(
            [&] { return runtime::compile(g, {.engine = engine, .every_value = false}); });
      },
      py::arg("graph"), py::arg("engine") = "");
}

}  // namespace octet::python
