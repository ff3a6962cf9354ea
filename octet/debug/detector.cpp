#include "octet/debug/detector.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/quant/algorithms/input_weight_equalization.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/visit_impl.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

const ReportValue& ReportRow::at(const std::string& column) const {
  std::vector<std::string> known;
  for (const auto& [name, value] : values) {
    if (name == column) return value;
    known.push_back(name);
  }
  OCTET_FAIL(not_found, "report of '{}': there is no column '{}'{}", path, column,
             did_you_mean(column, known));
}

void ReportRow::wrong_type(const std::string& column) const {
  static const char* const kinds[] = {"bool",
                                      "int64_t",
                                      "double",
                                      "std::string",
                                      "std::vector<bool>",
                                      "std::vector<int64_t>",
                                      "std::vector<double>"};
  OCTET_FAIL(invalid_argument, "report of '{}': column '{}' is of type {}: ask for that", path,
             column, kinds[at(column).index()]);
}

const ReportRow& DetectorReport::at(const std::string& path) const {
  std::vector<std::string> known;
  for (const ReportRow& row : rows) {
    if (row.path == path) return row;
    known.push_back(row.path);
  }
  OCTET_FAIL(not_found, "report: there is no layer '{}'{}", path, did_you_mean(path, known));
}

bool ReportLayer::has_weight() const {
  return visit_layer(*layer, [](auto&) {});
}

int64_t ReportLayer::channel_axis(bool of_result) const {
  const TensorType& type = of_result ? output : input;
  const bool last = type.dim() < 2 || !type.dims[1].known() || dynamic_cast<nn::Linear*>(layer);
  return last ? std::max<int64_t>(type.dim() - 1, 0) : 1;
}

ReportedModel::ReportedModel(std::shared_ptr<ObservedGraphModule> model)
    : model_(std::move(model)) {
  const graph::Graph& g = model_->graph();
  std::set<std::string> seen;
  for (const graph::Node& node : g.nodes()) {
    nn::Module* module = module_of(*model_, node);
    if (!module || is_observer_call(*model_, node) || node.inputs.empty() ||
        node.inputs[0] == graph::kNone)
      continue;
    if (!seen.insert(node.scope).second) continue;
    ReportLayer layer{.path = node.scope, .module = module, .layer = module};
    if (auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(module); fused && fused->size() > 0)
      layer.layer = &(*fused)[0];
    auto it = model_->decisions().find(g.value(node.outputs[0]).name);
    if (it != model_->decisions().end() && it->second.mode) layer.qconfig = it->second.qconfig;
    layer.input = g.type(node.inputs[0]);
    layer.output = g.type(node.outputs[0]);
    layers_.push_back(std::move(layer));
  }
}

const ModelReportObserver* ReportedModel::observer(const ObserverRequest& request) const {
  for (const Placed& placed : observers_) {
    const ObserverRequest& r = placed.request;
    if (r.path != request.path || r.is_post_observer != request.is_post_observer) continue;
    if ((request.ch_axis && request.ch_axis != r.ch_axis) ||
        (request.comp_percentile && request.comp_percentile != r.comp_percentile))
      continue;
    if (!model_->has_submodule(placed.path)) return nullptr;
    auto& observer = model_->submodule(placed.path)->as<ModelReportObserver>();
    OCTET_CHECK(!observer.empty(), not_calibrated,
                "ModelReport: the observer of {} saw no data: run the model that "
                "prepare_detailed_calibration() returned on calibration data first",
                observer.label());
    return &observer;
  }
  return nullptr;
}

// -- per channel ----------------------------------------------------------------------------------

DetectorReport PerChannelDetector::generate_detector_report(const ReportedModel& model) const {
  DetectorReport report;
  std::vector<std::string> could;
  for (const ReportLayer& layer : model.layers()) {
    if (!layer.has_weight() || !layer.qconfig || !layer.qconfig->weight) continue;
    const BackendPatternConfig* config =
        backend_.find_module(std::type_index(layer.module->class_type()));
    const ObserverOptions& weight = layer.qconfig->weight.options();
    const bool supported =
        config && config->find_dtype_config(*layer.qconfig) && weight.dtype == DType::qint8;
    const bool used = is_per_channel(weight.qscheme);
    report.rows.push_back({layer.path,
                           {{"backend", backend_.name()},
                            {"per_channel_quantization_supported", supported},
                            {"per_channel_quantization_used", used}}});
    if (supported && !used) could.push_back(layer.path);
  }
  report.text = fmt::format("Weights per channel on the backend '{}':\n", backend_.name());
  for (const std::string& path : could)
    report.text += fmt::format("  {}: could have a scale for each output channel\n", path);
  report.text += could.empty() ? "  Nothing left to do.\n"
                               : "  A qconfig whose weight observer is per channel does that.\n";
  return report;
}

std::map<std::string, DetectorQConfigInfo> PerChannelDetector::get_qconfig_info(
    const ReportedModel& model) const {
  std::map<std::string, DetectorQConfigInfo> info;
  for (const ReportRow& row : generate_detector_report(model).rows)
    info[row.path].is_weight_per_channel = row.get<bool>("per_channel_quantization_supported");
  return info;
}

// -- dynamic or static ----------------------------------------------------------------------------

DynamicStaticDetector::DynamicStaticDetector(double tolerance, BackendConfig backend)
    : tolerance_(tolerance), backend_(std::move(backend)) {
  OCTET_CHECK(tolerance > 0 && tolerance < 1, invalid_argument,
              "DynamicStaticDetector: tolerance {}; expected a ratio between 0 and 1", tolerance);
}

namespace {

// A layer with a weight that is no transposed convolution.
bool is_plain(const ReportLayer& layer) {
  bool plain = false;
  visit_layer(*layer.layer, [&]<typename Layer>(Layer&) {
    if constexpr (is_conv<Layer>)
      plain = !Layer::is_transposed;
    else
      plain = true;
  });
  return plain;
}

}  // namespace

std::vector<ObserverRequest> DynamicStaticDetector::determine_observer_insert_points(
    const ReportedModel& model) const {
  std::vector<ObserverRequest> requests;
  for (const ReportLayer& layer : model.layers()) {
    if (!is_plain(layer)) continue;
    requests.push_back({.path = layer.path});
    requests.push_back({.path = layer.path, .is_post_observer = true});
  }
  return requests;
}

DetectorReport DynamicStaticDetector::generate_detector_report(const ReportedModel& model) const {
  DetectorReport report{.text = "Dynamic or static quantization:\n"};
  for (const ReportLayer& layer : model.layers()) {
    if (!is_plain(layer)) continue;
    const ModelReportObserver *before = model.observer({.path = layer.path}),
                              *after =
                                  model.observer({.path = layer.path, .is_post_observer = true});
    if (!before || !after) continue;
    auto classify = [&](double s) {
      return std::string(s > tolerance_ ? "stationary" : "non-stationary");
    };
    const double in = before->get_batch_to_epoch_ratio(), out = after->get_batch_to_epoch_ratio();
    const bool dynamic = out <= tolerance_;
    bool supported = false;
    if (const BackendPatternConfig* config =
            backend_.find_module(std::type_index(layer.module->class_type())))
      for (const DTypeConfig& c : config->dtype_configs)
        supported = supported || mode_of(c) == QuantMode::dynamically;
    report.rows.push_back(
        {layer.path,
         {{"dynamic_static_tolerance", tolerance_},
          {"dynamic_recommended", dynamic},
          {"is_dynamic_supported", supported},
          {"input_activation_dynamic_static_comp_stat", in},
          {"input_activation_dynamic_static_data_classification", classify(in)},
          {"output_activation_dynamic_static_comp_stat", out},
          {"output_activation_dynamic_static_data_classification", classify(out)}}});
    report.text += fmt::format(
        "  {}: {}: its input is {} (S = {:.3g}), its result {} (S = {:.3g}){}\n", layer.path,
        dynamic ? "dynamic" : "static", classify(in), in, classify(out), out,
        dynamic && !supported          ? "; but it has no dynamic form on this backend"
        : !dynamic && in <= tolerance_ ? "; quantize its input at run time if you can"
                                       : "");
  }
  if (report.rows.empty()) report.text += "  There are no Linear and Conv layers.\n";
  return report;
}

std::map<std::string, DetectorQConfigInfo> DynamicStaticDetector::get_qconfig_info(
    const ReportedModel& model) const {
  std::map<std::string, DetectorQConfigInfo> info;
  for (const ReportRow& row : generate_detector_report(model).rows)
    info[row.path].is_activation_dynamic =
        row.get<bool>("dynamic_recommended") && row.get<bool>("is_dynamic_supported");
  return info;
}

// -- input-weight equalization --------------------------------------------------------------------

InputWeightEqualizationDetector::InputWeightEqualizationDetector(double ratio_threshold,
                                                                 std::optional<int64_t> ch_axis)
    : ratio_threshold_(ratio_threshold), ch_axis_(ch_axis) {
  OCTET_CHECK(ratio_threshold > 0 && ratio_threshold < 1, invalid_argument,
              "InputWeightEqualizationDetector: ratio_threshold {}; expected one "
              "between 0 and 1",
              ratio_threshold);
}

std::vector<ObserverRequest> InputWeightEqualizationDetector::determine_observer_insert_points(
    const ReportedModel& model) const {
  std::vector<ObserverRequest> requests;
  for (const ReportLayer& layer : model.layers())
    if (is_plain(layer))
      requests.push_back({.path = layer.path, .ch_axis = ch_axis_.value_or(layer.channel_axis())});
  return requests;
}

namespace {

struct Ranges {
  std::vector<double> min, max;
  double least() const { return *std::min_element(min.begin(), min.end()); }
  double greatest() const { return *std::max_element(max.begin(), max.end()); }
  // Range of channel c / range of all; 1 if that is 0.
  double share(size_t c) const {
    return greatest() == least() ? 1 : (max[c] - min[c]) / (greatest() - least());
  }
};

void add_columns(ReportRow& row, const std::string& prefix, const Ranges& ranges) {
  row.values.insert(row.values.end(), {{prefix + "per_channel_max", ranges.max},
                                       {prefix + "per_channel_min", ranges.min},
                                       {prefix + "global_max", ranges.greatest()},
                                       {prefix + "global_min", ranges.least()}});
}

// Do enough channels gain for the layer to be equalized?
bool worth_it(const std::vector<bool>& gains) {
  constexpr double kShareOfChannels = 0.4;
  return static_cast<double>(std::count(gains.begin(), gains.end(), true)) >=
         kShareOfChannels * static_cast<double>(gains.size());
}

std::vector<double> doubles(const Tensor& t) { return t.to(DType::float64).to_vector<double>(); }

}  // namespace

DetectorReport InputWeightEqualizationDetector::generate_detector_report(
    const ReportedModel& model) const {
  DetectorReport report{.text = "Input-weight equalization:\n"};
  for (const ReportLayer& layer : model.layers()) {
    const int64_t axis = ch_axis_.value_or(layer.channel_axis());
    const ModelReportObserver* seen =
        is_plain(layer) ? model.observer({.path = layer.path, .ch_axis = axis}) : nullptr;
    if (!seen) continue;
    const WeightColumns columns = weight_columns(*layer.layer);
    const Ranges input{doubles(seen->min_val()), doubles(seen->max_val())};
    const Ranges weight{{columns.min.begin(), columns.min.end()},
                        {columns.max.begin(), columns.max.end()}};
    OCTET_CHECK(input.min.size() == weight.min.size(), invalid_argument,
                "InputWeightEqualizationDetector: '{}' takes {} channels, its input has {} "
                "along axis {}: give the ch_axis that holds channels",
                layer.path, weight.min.size(), input.min.size(), axis);
    std::vector<double> s;
    std::vector<bool> gains;
    for (size_t c = 0; c < input.min.size(); ++c) {
      s.push_back(std::sqrt(weight.share(c)) / std::sqrt(input.share(c)));
      gains.push_back(s[c] > 0 && std::isfinite(s[c]) &&
                      (s[c] < ratio_threshold_ || s[c] > 1 / ratio_threshold_));
    }
    report.text += fmt::format(
        "  {} (axis {}): {}: {} of {} channels have inputs and weights of unlike range\n",
        layer.path, axis, worth_it(gains) ? "equalize" : "leave it",
        std::count(gains.begin(), gains.end(), true), gains.size());
    ReportRow row{layer.path,
                  {{"input_weight_equalization_recommended", gains},
                   {"input_weight_channel_comparison_metrics", s},
                   {"input_weight_threshold", ratio_threshold_},
                   {"input_weight_channel_axis", axis}}};
    add_columns(row, "input_activation_", input);
    add_columns(row, "weight_", weight);
    report.rows.push_back(std::move(row));
  }
  if (report.rows.empty()) report.text += "  There are no Linear and Conv layers.\n";
  return report;
}

std::map<std::string, DetectorQConfigInfo> InputWeightEqualizationDetector::get_qconfig_info(
    const ReportedModel& model) const {
  std::map<std::string, DetectorQConfigInfo> info;
  for (const ReportRow& row : generate_detector_report(model).rows) {
    const auto& gains = row.get<std::vector<bool>>("input_weight_equalization_recommended");
    info[row.path].is_equalization_recommended = worth_it(gains);
  }
  return info;
}

// -- outliers -------------------------------------------------------------------------------------

OutlierDetector::OutlierDetector(double ratio_threshold, double reference_percentile,
                                 double fraction_batches_used_threshold,
                                 std::optional<int64_t> ch_axis)
    : ratio_threshold_(ratio_threshold),
      reference_percentile_(reference_percentile),
      fraction_batches_used_threshold_(fraction_batches_used_threshold),
      ch_axis_(ch_axis) {
  auto check = [](double value, double low, double high, const char* what) {
    OCTET_CHECK(value >= low && value <= high, invalid_argument,
                "OutlierDetector: {} {}; expected {} to {}", what, value, low, high);
  };
  check(ratio_threshold, 1, std::numeric_limits<float>::max(), "ratio_threshold");
  check(reference_percentile, 0, 1, "reference_percentile");
  check(fraction_batches_used_threshold, 0, 1, "fraction_batches_used_threshold");
}

ObserverRequest OutlierDetector::request(const ReportLayer& layer) const {
  return {.path = layer.path,
          .ch_axis = ch_axis_.value_or(layer.channel_axis()),
          .comp_percentile = reference_percentile_};
}

std::vector<ObserverRequest> OutlierDetector::determine_observer_insert_points(
    const ReportedModel& model) const {
  std::vector<ObserverRequest> requests;
  for (const ReportLayer& layer : model.layers())
    if (layer.input.dtype == DType::float32 && layer.input.dim() > 0)
      requests.push_back(request(layer));
  return requests;
}

DetectorReport OutlierDetector::generate_detector_report(const ReportedModel& model) const {
  DetectorReport report{.text = "Outliers in the inputs of modules:\n"};
  bool found = false;
  for (const ReportLayer& layer : model.layers()) {
    const ModelReportObserver* seen = model.observer(request(layer));
    if (!seen) continue;
    std::vector<double> ratios = seen->average_percentile_ratio(), max = doubles(seen->max_val());
    const std::vector<int64_t>&batches = seen->percentile_batches_tracked(),
          &constant = seen->constant_channels();
    std::vector<bool> outliers, sufficient;
    for (size_t c = 0; c < ratios.size(); ++c) {
      double& r = ratios[c];
      r = std::abs(r);  // the percentile below 0, the max above
      if (r > 0 && r < 1) r = 1 / r;
      outliers.push_back(r > ratio_threshold_);
      sufficient.push_back(static_cast<double>(batches[c]) >=
                           fraction_batches_used_threshold_ *
                               static_cast<double>(seen->num_batches_tracked()));
      if (outliers[c])
        report.text += fmt::format(
            "  {} channel {}: the greatest values are {:.3g} times the {:.3g} % percentile on "
            "average, up to "
            "{:.4g}{}\n",
            layer.path, c, r, 100 * reference_percentile_, max[c],
            sufficient[c] ? "" : "; but too many batches hold zeros only to be sure");
      if (constant[c] > 0)
        report.text += fmt::format("  {} channel {}: constant in {} of {} batches\n", layer.path, c,
                                   constant[c], seen->num_batches_tracked());
      found = found || outliers[c] || constant[c] > 0;
    }
    report.rows.push_back({layer.path,
                           {{"outliers_detected", outliers},
                            {"outlier_detection_percentile_ratios", ratios},
                            {"outlier_detection_batches_used", batches},
                            {"outlier_detection_is_sufficient_batches", sufficient},
                            {"constant_batch_counts", constant},
                            {"input_activation_per_channel_max", max},
                            {"outlier_detection_ratio_threshold", ratio_threshold_},
                            {"outlier_detection_reference_percentile", reference_percentile_},
                            {"outlier_detection_channel_axis", seen->options().ch_axis}}});
  }
  report.text +=
      found ? "  This holds where data is stationary: see the dynamic_vs_static_detector.\n"
            : "  None.\n";
  return report;
}

}  // namespace octet::quant
