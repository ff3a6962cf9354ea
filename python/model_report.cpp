// ModelReport and its detectors; octet/quantization/_model_report.py has the class that users see.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "octet/debug/model_report.h"
#include "python/samples.h"

namespace octet::python {
namespace {

using quant::Detector;
using quant::ModelReport;

// By path of the layer: its columns.
py::dict dict_of_rows(const quant::DetectorReport& report) {
  py::dict rows;
  for (const quant::ReportRow& row : report.rows) {
    py::dict values;
    for (const auto& [column, value] : row.values)
      values[column.c_str()] =
          std::visit([](const auto& v) -> py::object { return py::cast(v); }, value);
    rows[row.path.c_str()] = values;
  }
  return rows;
}

void bind_detectors(py::module_& m) {
  using quant::BackendConfig;
  using MaybeBackend = std::optional<BackendConfig>;
  const auto backend_of = [](const MaybeBackend& given) {
    return given.value_or(quant::get_native_backend_config());
  };
  py::class_<Detector, std::shared_ptr<Detector>>(
      m, "Detector", "Looks at the layers of a prepared model for a ModelReport.")
      .def("get_detector_name", &Detector::get_detector_name);
  py::class_<quant::PerChannelDetector, Detector, std::shared_ptr<quant::PerChannelDetector>>(
      m, "PerChannelDetector",
      "Which layers have one scale per weight although the backend can give each output channel "
      "its own.")
      .def(py::init([backend_of](const MaybeBackend& backend) {
             return std::make_shared<quant::PerChannelDetector>(backend_of(backend));
           }),
           py::arg("backend_config") = py::none());
  py::class_<quant::DynamicStaticDetector, Detector, std::shared_ptr<quant::DynamicStaticDetector>>(
      m, "DynamicStaticDetector",
      "Whether the data around a layer is stationary; a result that is not is better quantized at "
      "run time.")
      .def(py::init([backend_of](double tolerance, const MaybeBackend& backend) {
             return std::make_shared<quant::DynamicStaticDetector>(tolerance, backend_of(backend));
           }),
           py::arg("tolerance") = 0.5, py::arg("backend_config") = py::none());
  py::class_<quant::InputWeightEqualizationDetector, Detector,
             std::shared_ptr<quant::InputWeightEqualizationDetector>>(
      m, "InputWeightEqualizationDetector", "Whether input-weight equalization would help a layer.")
      .def(py::init<double, std::optional<int64_t>>(), py::arg("ratio_threshold") = 0.5,
           py::arg("ch_axis") = py::none());
  py::class_<quant::OutlierDetector, Detector, std::shared_ptr<quant::OutlierDetector>>(
      m, "OutlierDetector",
      "Whether a few values of a layer's input lie far beyond the others of their channel.")
      .def(py::init<double, double, double, std::optional<int64_t>>(),
           py::arg("ratio_threshold") = 3.5, py::arg("reference_percentile") = 0.975,
           py::arg("fraction_batches_used_threshold") = 0.95, py::arg("ch_axis") = py::none());
}

}  // namespace

void bind_model_report(py::module_& m) {
  bind_detectors(m);
  py::class_<ModelReport>(m, "_ModelReport")
      .def(py::init([](const py::object& prepared, std::vector<std::shared_ptr<Detector>> all) {
        prepared_of(prepared);  // the error of other models
        return std::make_unique<ModelReport>(
            std::dynamic_pointer_cast<quant::ObservedGraphModule>(module_of(prepared)),
            std::move(all));
      }))
      .def("get_desired_reports_names", &ModelReport::get_desired_reports_names)
      .def("get_observers_of_interest", &ModelReport::get_observers_of_interest)
      .def("prepare_detailed_calibration",
           [](ModelReport& r) {
             return wrapped(
                 without_gil([&]() -> nn::ModulePtr { return r.prepare_detailed_calibration(); }));
           })
      .def("generate_model_report",
           [](ModelReport& r, bool remove) {
             const auto found = without_gil([&] { return r.generate_model_report(remove); });
             py::dict reports;
             for (const auto& [detector, report] : found)
               reports[detector.c_str()] = py::make_tuple(report.text, dict_of_rows(report));
             return reports;
           })
      .def("generate_qconfig_mapping", &ModelReport::generate_qconfig_mapping)
      .def("generate_equalization_mapping", &ModelReport::generate_equalization_mapping)
      .def("to_table", &ModelReport::to_table);
}

}  // namespace octet::python
