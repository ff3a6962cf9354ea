#include "octet/debug/model_report.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/quant/algorithms/input_weight_equalization.h"

namespace octet::quant {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {

constexpr const char* kReportPrefix = "model_report_observer_";

std::shared_ptr<ObservedGraphModule> copy_of(const std::shared_ptr<ObservedGraphModule>& prepared) {
  OCTET_CHECK(prepared, invalid_argument, "ModelReport: no model");
  return std::static_pointer_cast<ObservedGraphModule>(prepared->clone());
}

// Do both fit one observer? Then `into` asks for both.
bool merge(ObserverRequest& into, const ObserverRequest& r) {
  auto agree = [](const auto& a, const auto& b) { return !a || !b || *a == *b; };
  if (into.path != r.path || into.is_post_observer != r.is_post_observer ||
      !agree(into.ch_axis, r.ch_axis) || !agree(into.comp_percentile, r.comp_percentile))
    return false;
  if (r.ch_axis) into.ch_axis = r.ch_axis;
  if (r.comp_percentile) into.comp_percentile = r.comp_percentile;
  return true;
}

}  // namespace

ModelReport::ModelReport(std::shared_ptr<ObservedGraphModule> prepared,
                         std::vector<std::shared_ptr<Detector>> detectors)
    : detectors_(std::move(detectors)), model_(copy_of(prepared)) {
  OCTET_CHECK(!detectors_.empty(), invalid_argument, "ModelReport: expected one detector or more");
  for (auto& [path, module] : model_.model_->named_modules())
    OCTET_CHECK(!dynamic_cast<ModelReportObserver*>(module), invalid_argument,
                "ModelReport: the model has the observers of a report already ('{}'): give the "
                "model as prepare_fx returned it",
                path);
  for (const auto& detector : detectors_) {
    OCTET_CHECK(detector, invalid_argument, "ModelReport: a detector is null");
    const bool fresh =
        observers_of_.emplace(detector->get_detector_name(), std::set<std::string>()).second;
    OCTET_CHECK(fresh, invalid_argument, "ModelReport: there are two detectors called '{}'",
                detector->get_detector_name());
  }
}

std::set<std::string> ModelReport::get_desired_reports_names() const {
  std::set<std::string> names;
  for (const auto& [name, observers] : observers_of_) names.insert(name);
  return names;
}

std::map<std::string, std::set<std::string>> ModelReport::get_observers_of_interest() const {
  return observers_of_;
}

std::shared_ptr<ObservedGraphModule> ModelReport::prepare_detailed_calibration() {
  OCTET_CHECK(!prepared_, invalid_argument,
              "ModelReport: prepare_detailed_calibration() was called before: calibrate the model "
              "it returned");
  prepared_ = true;
  auto& placed = model_.observers_;
  std::vector<std::pair<std::string, ObserverRequest>> wanted;
  for (const auto& detector : detectors_)
    for (const ObserverRequest& r : detector->determine_observer_insert_points(model_))
      wanted.emplace_back(detector->get_detector_name(), r);
  // What asks for most first, so that the others find it.
  auto asks = [](const ObserverRequest& r) {
    return r.ch_axis.has_value() + r.comp_percentile.has_value();
  };
  std::stable_sort(wanted.begin(), wanted.end(),
                   [&](const auto& a, const auto& b) { return asks(a.second) > asks(b.second); });
  for (const auto& [detector, request] : wanted) {
    const auto& r = request;  // clang 14 cannot capture a structured binding
    auto it =
        std::find_if(placed.begin(), placed.end(), [&](auto& p) { return merge(p.request, r); });
    if (it == placed.end())
      it = placed.insert(placed.end(), {r, kReportPrefix + std::to_string(placed.size())});
    observers_of_[detector].insert(it->path);
  }

  ObservedGraphModule& model = *model_.model_;
  for (const auto& [request, path] : placed) {
    const auto& r = request;
    auto layer = std::find_if(model_.layers().begin(), model_.layers().end(),
                              [&](const ReportLayer& l) { return l.path == r.path; });
    OCTET_CHECK(layer != model_.layers().end(), invalid_argument,
                "ModelReport: a detector wants to observe '{}', which the model does not call",
                r.path);
    ObserverOptions options = ModelReportObserver::default_options();
    options.ch_axis = r.ch_axis.value_or(layer->channel_axis(r.is_post_observer));
    if (r.comp_percentile) options.percentile = 100 * *r.comp_percentile;
    model.put_module(path, nn::make<ModelReportObserver>(
                               options, fmt::format("{} ({})", r.path,
                                                    r.is_post_observer ? "result" : "input")));
  }
  // The observers stand beside the graph: nothing takes what they return, so whatever looks for a
  // value's users or its observer finds what it found before.
  graph::Rewriter rewriter(model.graph());
  Graph watched = rewriter.run([&](graph::Rewriter& to, const Node& node) {
    if (node.kind != NodeKind::module) return false;
    auto observe = [&](bool post, ValueId value) {
      for (const auto& [r, path] : placed)
        if (r.path == node.scope && r.is_post_observer == post)
          to.out().add_module(path, path, "ModelReportObserver", {to(value)},
                              {to.out().type(to(value))});
    };
    observe(false, node.inputs.empty() ? graph::kNone : node.inputs[0]);
    to.copy(node);
    observe(true, node.outputs[0]);
    return true;
  });
  model.set_graph(std::move(watched), false);
  return model_.model_;
}

std::map<std::string, DetectorReport> ModelReport::generate_model_report(
    bool remove_inserted_observers) {
  OCTET_CHECK(
      prepared_, invalid_argument,
      "ModelReport: call prepare_detailed_calibration() and calibrate the model it returns first");
  OCTET_CHECK(!removed_, invalid_argument,
              "ModelReport: the observers were removed after the last report");
  std::map<std::string, DetectorReport> reports;
  std::map<std::string, DetectorQConfigInfo> info;
  std::vector<ReportRow> rows;
  for (const ReportLayer& layer : model_.layers()) rows.push_back({layer.path});
  for (const auto& detector : detectors_) {
    DetectorReport report = detector->generate_detector_report(model_);
    for (const ReportRow& row : report.rows)
      for (ReportRow& all : rows)
        if (all.path == row.path)
          for (const auto& cell : row.values)
            if (std::none_of(all.values.begin(), all.values.end(),
                             [&](const auto& known) { return known.first == cell.first; }))
              all.values.push_back(cell);
    for (const auto& [path, own] : detector->get_qconfig_info(model_)) {
      // Where two detectors differ, one's yes counts.
      auto join = [](std::optional<bool>& a, std::optional<bool> b) {
        a = a && b ? *a || *b : a ? a : b;
      };
      join(info[path].is_activation_dynamic, own.is_activation_dynamic);
      join(info[path].is_weight_per_channel, own.is_weight_per_channel);
      join(info[path].is_equalization_recommended, own.is_equalization_recommended);
    }
    reports[detector->get_detector_name()] = std::move(report);
  }
  std::erase_if(rows, [](const ReportRow& row) { return row.values.empty(); });
  rows_ = std::move(rows);
  info_ = std::move(info);
  reported_ = true;

  if (remove_inserted_observers) {
    removed_ = true;
    ObservedGraphModule& model = *model_.model_;
    graph::Rewriter rewriter(model.graph());
    Graph without = rewriter.run([](graph::Rewriter&, const Node& node) {
      return node.kind == NodeKind::module && node.scope.starts_with(kReportPrefix);
    });
    model.set_graph(std::move(without), false);
    for (const auto& placed : model_.observers_) model.remove_child(placed.path);
  }
  return reports;
}

void ModelReport::require_report(const char* who) const {
  OCTET_CHECK(reported_, invalid_argument, "ModelReport: call generate_model_report() before {}()",
              who);
}

QConfigMapping ModelReport::generate_qconfig_mapping() const {
  require_report("generate_qconfig_mapping");
  QConfigMapping mapping;
  for (const ReportLayer& layer : model_.layers()) {
    auto it = info_.find(layer.path);
    if (it == info_.end() || !layer.qconfig) continue;
    QConfig q = *layer.qconfig;
    const bool qat = !q.weight.fake_quantize_name().empty();
    const QConfig own = qat ? get_default_qat_qconfig() : get_default_qconfig();
    const auto& [dynamic, per_channel, equalize] = it->second;
    if (dynamic && *dynamic == q.activation.chooses_qparams())
      q.activation = !*dynamic ? own.activation
                     : qat     ? default_dynamic_fake_quant()
                               : default_dynamic_quant_observer();
    if (per_channel && *per_channel && !is_per_channel(q.weight.options().qscheme))
      q.weight = own.weight;
    if (dynamic || per_channel) mapping.set_module_name(layer.path, std::move(q));
  }
  return mapping;
}

QConfigMapping ModelReport::generate_equalization_mapping() const {
  require_report("generate_equalization_mapping");
  QConfigMapping mapping;
  for (const auto& [path, info] : info_)
    if (info.is_equalization_recommended.value_or(false))
      mapping.set_module_name(path, default_equalization_qconfig());
  return mapping;
}

// -- tables ---------------------------------------------------------------------------------------

namespace {

struct CellText {
  std::string operator()(bool v) const { return v ? "yes" : "no"; }
  std::string operator()(int64_t v) const { return std::to_string(v); }
  std::string operator()(double v) const { return fmt::format("{:.6g}", v); }
  std::string operator()(const std::string& v) const { return v; }
};

bool of_channels(const ReportValue& value) { return value.index() >= 4; }

// How many lines a row fills in the table of channels.
size_t channels(const ReportValue& value) {
  return std::visit(
      []<typename T>(const T& v) -> size_t {
        if constexpr (std::is_same_v<T, std::string> || std::is_arithmetic_v<T>)
          return 1;
        else
          return v.size();
      },
      value);
}

std::string text(const ReportValue& value, size_t channel) {
  return std::visit(
      [&]<typename T>(const T& v) -> std::string {
        if constexpr (std::is_same_v<T, std::vector<bool>>)
          return CellText()(bool(v.at(channel)));
        else if constexpr (std::is_same_v<T, std::vector<int64_t>> ||
                           std::is_same_v<T, std::vector<double>>)
          return CellText()(v.at(channel));
        else
          return CellText()(v);
      },
      value);
}

std::string aligned(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> width;
  for (const auto& line : lines) {
    width.resize(std::max(width.size(), line.size()), 0);
    for (size_t i = 0; i < line.size(); ++i) width[i] = std::max(width[i], line[i].size());
  }
  std::string result;
  for (const auto& line : lines) {
    std::string out;
    for (size_t i = 0; i < line.size(); ++i) out += fmt::format("{:<{}}", line[i], width[i] + 2);
    out.erase(out.find_last_not_of(' ') + 1);
    result += out + "\n";
  }
  return result;
}

}  // namespace

std::string ModelReport::to_table(const std::string& feature_filter,
                                  const std::string& module_fqn_filter) const {
  require_report("to_table");
  std::string result;
  for (const bool by_channel : {false, true}) {
    std::vector<std::string> columns;
    std::vector<const ReportRow*> rows;
    for (const ReportRow& row : rows_) {
      if (row.path.find(module_fqn_filter) == std::string::npos) continue;
      bool any = false;
      for (const auto& [column, value] : row.values) {
        if (of_channels(value) != by_channel || column.find(feature_filter) == std::string::npos)
          continue;
        any = true;
        if (std::find(columns.begin(), columns.end(), column) == columns.end())
          columns.push_back(column);
      }
      if (any) rows.push_back(&row);
    }
    if (rows.empty()) continue;
    std::vector<std::vector<std::string>> lines{{"layer_fqn"}};
    if (by_channel) lines[0].push_back("channel");
    lines[0].insert(lines[0].end(), columns.begin(), columns.end());
    for (const ReportRow* row : rows) {
      std::vector<const ReportValue*> cells;
      size_t count = 0;
      for (const std::string& column : columns) {
        auto it = std::find_if(row->values.begin(), row->values.end(),
                               [&](const auto& v) { return v.first == column; });
        cells.push_back(it == row->values.end() ? nullptr : &it->second);
        if (cells.back()) count = std::max(count, channels(*cells.back()));
      }
      for (size_t c = 0; c < count; ++c) {
        lines.push_back({row->path});
        if (by_channel) lines.back().push_back(std::to_string(c));
        for (const ReportValue* cell : cells)
          lines.back().push_back(!cell || c >= channels(*cell) ? "-" : text(*cell, c));
      }
    }
    result += (result.empty() ? "" : "\n") + aligned(lines);
  }
  return result;
}

}  // namespace octet::quant
