#pragma once
// What a ModelReport (model_report.h) is made of: detectors, each of which looks at the layers of a
// prepared model and at what it has observed there, and says how they are better quantized
// (torch.ao.quantization.fx._model_report.detector). The names of columns are PyTorch's. Users' own
// detectors derive from Detector.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "octet/debug/model_report_observer.h"
#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// -- results --------------------------------------------------------------------------------------

// One cell: of the layer, or (vectors) of each channel.
using ReportValue = std::variant<bool, int64_t, double, std::string, std::vector<bool>,
                                 std::vector<int64_t>, std::vector<double>>;

// What a detector says of one layer, in columns.
struct ReportRow {
  std::string path;  // of the module in the model; of layers fused with others the first one's
  std::vector<std::pair<std::string, ReportValue>> values = {};

  // The cell of a column. Error naming the nearest columns; a T that it is not is an Error too.
  const ReportValue& at(const std::string& column) const;
  template <typename T>
  const T& get(const std::string& column) const {
    if (auto* value = std::get_if<T>(&at(column))) return *value;
    wrong_type(column);
  }

 private:
  [[noreturn]] void wrong_type(const std::string& column) const;
};

struct DetectorReport {
  std::string text;             // for people
  std::vector<ReportRow> rows;  // in the order in which the model calls the layers
  // The row of a layer. Error naming the nearest paths.
  const ReportRow& at(const std::string& path) const;
};

// What a detector has found out about a layer (PyTorch's DetectorQConfigInfo); nullopt: it does not
// know.
struct DetectorQConfigInfo {
  std::optional<bool> is_activation_dynamic = {}, is_weight_per_channel = {},
                      is_equalization_recommended = {};
};

// -- the model ------------------------------------------------------------------------------------

// A module that the model calls.
struct ReportLayer {
  std::string path;  // as ReportRow's
  // what is called: the layer itself, its fused or its QAT form
  nn::Module* module = nullptr;
  nn::Module* layer = nullptr;  // the float layer: of fused modules the first part
  // how prepare_fx will have it quantized; nullopt: it stays float
  std::optional<QConfig> qconfig = {};
  TensorType input = {}, output = {};  // of its first operand and result

  // A Linear, Conv1d, 2d or 3d, transposed or not: a layer with a weight.
  bool has_weight() const;
  // The dimension of the input (or result) that holds channels: the last of Linear's and where
  // dimension 1 varies, 1 of others.
  int64_t channel_axis(bool of_result = false) const;
};

// Where a detector wants an observer. Requests that agree share one.
struct ObserverRequest {
  std::string path;
  bool is_post_observer = false;               // of the result; else of the first operand
  std::optional<int64_t> ch_axis = {};         // nullopt: any
  std::optional<double> comp_percentile = {};  // in [0, 1]; nullopt: any
};

// A prepared model, and the observers that ModelReport has put into it.
class ReportedModel {
 public:
  explicit ReportedModel(std::shared_ptr<ObservedGraphModule> model);
  ObservedGraphModule& model() const { return *model_; }
  // Each once, in the order of their (first) calls; observers are not among them.
  const std::vector<ReportLayer>& layers() const { return layers_; }
  // The observer that was put in for a request; null if there is none. Error not_calibrated if it
  // saw no data.
  const ModelReportObserver* observer(const ObserverRequest& request) const;

 private:
  friend class ModelReport;
  struct Placed {
    ObserverRequest request;  // of all that share it
    std::string path;         // of the observer in the model
  };
  std::shared_ptr<ObservedGraphModule> model_;
  std::vector<ReportLayer> layers_;
  std::vector<Placed> observers_;
};

// -- detectors ------------------------------------------------------------------------------------

class Detector {
 public:
  virtual ~Detector() = default;
  virtual std::string get_detector_name() const = 0;
  // What it needs to have observed in the layers of a model that has none of it yet.
  virtual std::vector<ObserverRequest> determine_observer_insert_points(
      const ReportedModel& model) const = 0;
  // After calibration.
  virtual DetectorReport generate_detector_report(const ReportedModel& model) const = 0;
  // By path.
  virtual std::map<std::string, DetectorQConfigInfo> get_qconfig_info(
      const ReportedModel& model) const = 0;
};

// Which layers have one scale per weight although the backend can give each output channel its own.
// Needs no data. Columns:
//  backend (text), per_channel_quantization_supported, per_channel_quantization_used (yes or no)
// Rows: layers with weights that will be quantized.
class PerChannelDetector : public Detector {
 public:
  explicit PerChannelDetector(BackendConfig backend = get_native_backend_config())
      : backend_(std::move(backend)) {}
  std::string get_detector_name() const override { return "per_channel_detector"; }
  std::vector<ObserverRequest> determine_observer_insert_points(
      const ReportedModel&) const override {
    return {};
  }
  DetectorReport generate_detector_report(const ReportedModel& model) const override;
  std::map<std::string, DetectorQConfigInfo> get_qconfig_info(
      const ReportedModel& model) const override;

 private:
  BackendConfig backend_;
};

// Whether the data around a layer is stationary, S > tolerance with S = average range of a batch /
// range of all data (ModelReportObserver::get_batch_to_epoch_ratio). A result that is not is better
// quantized at run time. Columns:
//  dynamic_static_tolerance, dynamic_recommended (the result's S <= tolerance),
//  is_dynamic_supported (by the backend),
//  {input,output}_activation_dynamic_static_comp_stat (S),
//  {input,output}_activation_dynamic_static_data_classification
//  ("stationary" or "non-stationary")
// Rows: layers with weights; transposed convolutions are not among them, which have no dynamic
// form.
class DynamicStaticDetector : public Detector {
 public:
  explicit DynamicStaticDetector(double tolerance = 0.5,
                                 BackendConfig backend = get_native_backend_config());
  std::string get_detector_name() const override { return "dynamic_vs_static_detector"; }
  std::vector<ObserverRequest> determine_observer_insert_points(
      const ReportedModel& model) const override;
  DetectorReport generate_detector_report(const ReportedModel& model) const override;
  std::map<std::string, DetectorQConfigInfo> get_qconfig_info(
      const ReportedModel& model) const override;

 private:
  double tolerance_;
  BackendConfig backend_;
};

// Whether input-weight equalization (input_weight_equalization.h) would help. Per input channel c,
//  s_c = sqrt(w_c / W) / sqrt(i_c / I)
// with the ranges (max - min) w_c of the weights that meet the channel, W of all weights, i_c of
// the channel's inputs and I of all inputs. Equalizing multiplies channel c by a number in
// proportion to s_c: if all are alike it does nothing. A channel is said to gain where s_c <
// ratio_threshold or s_c > 1 / ratio_threshold (channels that are constant or have no weights do
// not), and a layer where 40 % of its channels do.
//
// PyTorch says so of the channels between the two, where there is nothing to gain: its
// documentation has the condition as "s_c >= threshold or <= 1 / threshold", its code as "and". So
// the recommendation is the opposite of PyTorch's, on purpose. Columns:
//  input_weight_equalization_recommended (per channel), input_weight_channel_comparison_metrics
//  (s_c),
//  input_weight_threshold, input_weight_channel_axis,
//  {input_activation,weight}_{per_channel_max,per_channel_min,global_max,global_min}
// Rows: Linear, Conv1d, 2d and 3d. With groups, the weights that meet a channel are those of its
// group (PyTorch: of all).
class InputWeightEqualizationDetector : public Detector {
 public:
  explicit InputWeightEqualizationDetector(double ratio_threshold = 0.5,
                                           std::optional<int64_t> ch_axis = {});
  std::string get_detector_name() const override { return "input_weight_equalization_detector"; }
  std::vector<ObserverRequest> determine_observer_insert_points(
      const ReportedModel& model) const override;
  DetectorReport generate_detector_report(const ReportedModel& model) const override;
  std::map<std::string, DetectorQConfigInfo> get_qconfig_info(
      const ReportedModel& model) const override;

 private:
  double ratio_threshold_;
  std::optional<int64_t> ch_axis_;
};

// Whether a few values of a layer's input lie far beyond the others, so that a scale for all leaves
// these few codes. Per channel, the mean over the batches of max / percentile
// (ModelReportObserver::average_percentile_ratio), as its magnitude and 1 or more (r < 1 counts as
// 1 / r), is compared with ratio_threshold. Batches in which both are 0 do not count; if fewer than
// fraction_batches_used_threshold of them count, the channel's number means little. Columns, per
// channel:
//  outliers_detected, outlier_detection_percentile_ratios, outlier_detection_batches_used,
//  outlier_detection_is_sufficient_batches, constant_batch_counts, input_activation_per_channel_max
// and outlier_detection_ratio_threshold, outlier_detection_reference_percentile,
// outlier_detection_channel_axis. Rows: all modules that the model calls on float tensors. Channels
// whose ratio is 0 (all batches zero, or never above 0) have no outliers; PyTorch divides 1 by that
// ratio and finds outliers there.
class OutlierDetector : public Detector {
 public:
  explicit OutlierDetector(double ratio_threshold = 3.5, double reference_percentile = 0.975,
                           double fraction_batches_used_threshold = 0.95,
                           std::optional<int64_t> ch_axis = {});
  std::string get_detector_name() const override { return "outlier_detector"; }
  std::vector<ObserverRequest> determine_observer_insert_points(
      const ReportedModel& model) const override;
  DetectorReport generate_detector_report(const ReportedModel& model) const override;
  std::map<std::string, DetectorQConfigInfo> get_qconfig_info(const ReportedModel&) const override {
    return {};
  }

 private:
  ObserverRequest request(const ReportLayer& layer) const;
  double ratio_threshold_, reference_percentile_, fraction_batches_used_threshold_;
  std::optional<int64_t> ch_axis_;
};

}  // namespace octet::quant
