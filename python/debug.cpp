// What quantizing did.
#include <string>

#include "octet/base/error.h"
#include "octet/debug/compare.h"
#include "octet/debug/report.h"
#include "python/bindings.h"

namespace octet::python {
namespace {

struct Report {
  debug::Comparison comparison;
};

}  // namespace

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

}  // namespace octet::python
