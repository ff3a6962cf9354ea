#pragma once
// Advice on how to quantize a model, from how data looks in it
// (torch.ao.quantization.fx._model_report.ModelReport).
//
//   auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {example});
//   quant::ModelReport report(prepared, {std::make_shared<quant::DynamicStaticDetector>(),
//                                        std::make_shared<quant::OutlierDetector>()});
//   auto watched = report.prepare_detailed_calibration();
//   for (const Tensor& batch : data) (*watched)(batch);
//   for (const auto& [detector, result] : report.generate_model_report(true))
//     std::cout << result.text;
//   auto better = quant::prepare_fx(model, report.generate_qconfig_mapping(), {example});

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "octet/debug/detector.h"

namespace octet::quant {

class ModelReport {
 public:
  // `prepared` is not changed. Error without detectors, or with two of one name.
  ModelReport(std::shared_ptr<ObservedGraphModule> prepared,
              std::vector<std::shared_ptr<Detector>> detectors);

  std::set<std::string> get_desired_reports_names() const;
  // By detector: the paths of the observers put in for it, in the model that
  // prepare_detailed_calibration returned.
  std::map<std::string, std::set<std::string>> get_observers_of_interest() const;

  // A copy of the prepared model with observers where the detectors want them. It calibrates as the
  // prepared model does, and can be converted. Error if it was called before.
  std::shared_ptr<ObservedGraphModule> prepare_detailed_calibration();

  // By detector. Also takes the observers out of the model again, if asked to; then it has made its
  // last report. Errors: not_calibrated; before prepare_detailed_calibration, or after the last
  // report.
  std::map<std::string, DetectorReport> generate_model_report(bool remove_inserted_observers);

  // The rest is about the last report; Error if there was none.

  // What the detectors suggest for the layers that prepare_fx was to quantize: static or dynamic
  // activations, weights per tensor or per channel. What none of them has looked at stays as the
  // layer's qconfig has it, and so does every observer that fits already; others come from
  // get_default_qconfig() (PyTorch: all from the 7-bit default_qconfig). Has these layers only: add
  // set_global(...) for operators between them.
  QConfigMapping generate_qconfig_mapping() const;
  // The layers that gain from input-weight equalization, for prepare_equalization_fx (PyTorch: all
  // that any detector has seen).
  QConfigMapping generate_equalization_mapping() const;

  // The reports of all detectors as two tables: layers, and layers by channel. Filters keep the
  // columns and the paths that contain them (PyTorch:
  // generate_visualizer().generate_table_visualization(feature_filter, module_fqn_filter)).
  std::string to_table(const std::string& feature_filter = "",
                       const std::string& module_fqn_filter = "") const;

 private:
  void require_report(const char* who) const;

  std::vector<std::shared_ptr<Detector>> detectors_;
  ReportedModel model_;
  std::map<std::string, std::set<std::string>> observers_of_;
  bool prepared_ = false, removed_ = false, reported_ = false;
  std::vector<ReportRow> rows_;  // of all detectors, merged
  std::map<std::string, DetectorQConfigInfo> info_;
};

}  // namespace octet::quant
