// ModelReport and its detectors: against PyTorch (tests/golden/model_report.json, made by
// scripts/oracle/model_report.py), and what octet does where PyTorch cannot.
#include "octet/debug/model_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "octet/io/module_file.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/input_weight_equalization.h"
#include "tests/debug/model_report_models.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using quant::ModelReport;
using quant::ModelReportObserver;
using Detectors = std::vector<std::shared_ptr<quant::Detector>>;

Detectors all_detectors() {
  return {std::make_shared<quant::PerChannelDetector>(),
          std::make_shared<quant::DynamicStaticDetector>(),
          std::make_shared<quant::InputWeightEqualizationDetector>(),
          std::make_shared<quant::OutlierDetector>()};
}

double number(const json& v) {
  return v.is_string() ? std::stod(v.get<std::string>()) : v.get<double>();
}

void expect_number(double got, double expected, const std::string& what) {
  if (std::abs(expected) > 1e38)
    EXPECT_GT(std::abs(got), 1e37) << what;  // "infinite", as PyTorch's mean of such has it
  else
    // Ratios of percentiles of float results, some of them near 0: the order of summation shows.
    EXPECT_NEAR(got, expected, 1e-4 * std::max(1.0, std::abs(expected))) << what;
}

struct SameAs {
  const json& expected;
  const std::string& what;
  void operator()(bool v) const { EXPECT_EQ(v, expected.get<bool>()) << what; }
  void operator()(int64_t v) const { EXPECT_EQ(v, expected.get<int64_t>()) << what; }
  void operator()(double v) const { expect_number(v, number(expected), what); }
  void operator()(const std::string& v) const { EXPECT_EQ(v, expected.get<std::string>()) << what; }
  template <typename T>
  void operator()(const std::vector<T>& v) const {
    ASSERT_EQ(v.size(), expected.size()) << what;
    for (size_t i = 0; i < v.size(); ++i)
      SameAs{expected[i], what + " " + std::to_string(i)}(T(v[i]));
  }
};

// What octet says otherwise than PyTorch on purpose (detector.h has the reasons). Returns true for
// columns that are not to be compared as they are.
bool differs_on_purpose(const quant::ReportRow& row, const json& expected,
                        const std::string& column) {
  if (column == "backend") return true;    // octet's has its own name
  if (column == "is_dynamic_supported") {  // octet has dynamic convolutions
    EXPECT_TRUE(row.get<bool>(column));
    return true;
  }
  // PyTorch recommends where there is nothing to gain
  if (column == "input_weight_equalization_recommended") {
    const auto& got = row.get<std::vector<bool>>(column);
    const auto& s = row.get<std::vector<double>>("input_weight_channel_comparison_metrics");
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_EQ(got[i], std::isfinite(s[i]) && s[i] > 0 && !expected[column][i].get<bool>()) << i;
    return true;
  }
  return false;
}

TEST(GoldenModelReport, DetectorsSayWhatPyTorchsDo) {
  json cases = load_golden("model_report.json");
  ASSERT_GE(cases.size(), 14u);
  for (const json& c : cases) {
    SCOPED_TRACE(c["name"].get<std::string>());
    auto model = build_model(c["layers"]);
    set_parameters(*model, c["seed"]);
    model->eval();
    const auto batches = golden_batches(c);
    auto prepared = quant::prepare_fx(
        model, quant::get_default_qconfig_mapping(c.value("mapping", "qnnpack")), {batches[0]});
    ModelReport report(prepared, all_detectors());
    auto watched = report.prepare_detailed_calibration();
    for (const Tensor& x : batches) (*watched)(x);
    auto reports = report.generate_model_report(false);
    ASSERT_EQ(reports.size(), c["reports"].size());
    for (const auto& [detector, expected] : c["reports"].items()) {
      SCOPED_TRACE(detector);
      const quant::DetectorReport& got = reports.at(detector);
      ASSERT_EQ(got.rows.size(), expected.size()) << got.text;
      for (const auto& [path, row] : expected.items()) {
        SCOPED_TRACE(path);
        const quant::ReportRow& own = got.at(path);
        EXPECT_EQ(own.values.size(), row.size());
        for (const auto& [column, value] : row.items()) {
          if (differs_on_purpose(own, row, column)) continue;
          // PyTorch divides by a ratio of 0.
          if (column == "outliers_detected" || column == "outlier_detection_percentile_ratios") {
            const json& ratios = row["outlier_detection_percentile_ratios"];
            const auto& mine = own.get<std::vector<double>>("outlier_detection_percentile_ratios");
            ASSERT_EQ(mine.size(), ratios.size());
            for (size_t i = 0; i < mine.size(); ++i) {
              const bool zero = ratios[i] == "inf";
              EXPECT_EQ(mine[i] == 0, zero);
              if (zero) continue;
              expect_number(mine[i], number(ratios[i]), column);
              EXPECT_EQ(bool(own.get<std::vector<bool>>("outliers_detected")[i]),
                        row["outliers_detected"][i].get<bool>())
                  << i;
            }
            continue;
          }
          std::visit(SameAs{value, column}, own.at(column));
        }
      }
    }
    const auto mapping = report.generate_qconfig_mapping();
    ASSERT_EQ(mapping.module_name_qconfigs().size(), c["mapping_says"].size());
    for (const auto& entry : mapping.module_name_qconfigs()) {
      const json& expected = c["mapping_says"].at(entry.name);
      EXPECT_EQ(quant::mode_of(*entry.qconfig) == quant::QuantMode::dynamically,
                expected["dynamic"].get<bool>())
          << entry.name;
      EXPECT_EQ(quant::is_per_channel(entry.qconfig->weight.options().qscheme),
                expected["per_channel"].get<bool>())
          << entry.name;
    }
  }
}

// -- the observer ---------------------------------------------------------------------------------

TEST(ModelReportObserver, KeepsTheStatisticsOfBatchesAndChannels) {
  ModelReportObserver observer({.ch_axis = 1, .percentile = 50});
  Tensor a = Tensor::from<float>({1, 5, 2, 5, 8, 5}, {3, 2}),
         b = Tensor::from<float>({0, -1, 0, 2, 0, 3}, {3, 2});
  EXPECT_TRUE(equal(observer(a), a));
  observer(b);
  EXPECT_EQ(observer.num_batches_tracked(), 2);
  EXPECT_DOUBLE_EQ(observer.average_batch_activation_range(), (7 + 4) / 2.0);
  EXPECT_EQ(observer.epoch_activation_min(), -1);
  EXPECT_EQ(observer.epoch_activation_max(), 8);
  EXPECT_DOUBLE_EQ(observer.get_batch_to_epoch_ratio(), 5.5 / 9);
  EXPECT_EQ(observer.min_val().to_vector<float>(), (std::vector<float>{0, -1}));
  EXPECT_EQ(observer.max_val().to_vector<float>(), (std::vector<float>{8, 5}));
  EXPECT_EQ(observer.average_percentile_ratio(),
            (std::vector<double>{4, (1 + 1.5) / 2}));  // a batch of zeros does not count
  EXPECT_EQ(observer.percentile_batches_tracked(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(observer.constant_channels(), (std::vector<int64_t>{1, 1}));
}

TEST(ModelReportObserver, StateDoesNotGrowWithTheData) {
  ModelReportObserver observer;
  auto size = [&] {
    int64_t n = 0;
    for (const auto& [name, t] : observer.extra_state()) n += t.numel();
    return n;
  };
  observer(Tensor::randn({4, 3}, 1));
  const int64_t first = size();
  for (uint64_t s = 2; s < 50; ++s) observer(Tensor::randn({4 + static_cast<int64_t>(s), 3}, s));
  EXPECT_EQ(size(), first);
}

TEST(ModelReportObserver, MergingIsObservingBothAndTheStateIsKept) {
  ModelReportObserver a, b, both;
  for (uint64_t s = 0; s < 5; ++s) {
    Tensor x = Tensor::randn({20, 3}, s);
    (s < 2 ? a : b)(x);
    both(x);
  }
  a.merge(b);
  for (const auto& [name, t] : both.extra_state())
    EXPECT_TRUE(
        allclose(a.extra_state().at(name).to(DType::float64), t.to(DType::float64), 1e-12, 0))
        << name;
  ModelReportObserver loaded;
  loaded.set_extra_state(both.extra_state());
  for (const auto& [name, t] : both.extra_state())
    EXPECT_TRUE(equal(loaded.extra_state().at(name), t)) << name;
}

TEST(ModelReportObserver, WhatItCannotTakeIsAnError) {
  ModelReportObserver observer({.ch_axis = 1, .percentile = 90}, "fc (input)");
  expect_error(ErrorCode::not_calibrated, {"fc (input)"},
               [&] { (void)observer.get_batch_to_epoch_ratio(); });
  observer(Tensor::randn({4, 3}, 1));
  expect_error(ErrorCode::invalid_argument,
               {"fc (input)", "4 channels along axis 1, before there were 3", "ch_axis"}, [&] {
                 observer(Tensor::randn({4, 4}, 1));
               });
  expect_error(ErrorCode::invalid_argument, {"ch_axis is 1", "shape"},
               [&] { observer(Tensor::randn({4}, 1)); });
  expect_error(ErrorCode::invalid_argument, {"percentile 101"},
               [] { ModelReportObserver({.percentile = 101}); });
  EXPECT_EQ(observer.num_batches_tracked(), 1);
}

// -- the report -----------------------------------------------------------------------------------

struct TwoLayers : nn::Module {
  nn::Slot fc1 = slot("fc1", nn::Linear(4, 6));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc2 = slot("fc2", nn::Linear(6, 3));
  Tensor forward(Tensor x) override { return fc2(relu(fc1(x))); }
};
OCTET_MODULE(TwoLayers)

std::shared_ptr<quant::ObservedGraphModule> prepared_net(
    const quant::QConfigMapping& mapping = quant::get_default_qconfig_mapping("qnnpack")) {
  auto model = nn::make<TwoLayers>();
  set_parameters(*model, 7);
  model->eval();
  return quant::prepare_fx(model, mapping, {Tensor::randn({8, 4}, 1)});
}

TEST(ModelReport, TheWatchedModelCalibratesAndConvertsAsBefore) {
  auto prepared = prepared_net();
  ModelReport report(prepared, all_detectors());
  auto watched = report.prepare_detailed_calibration();
  for (uint64_t s = 1; s < 4; ++s) {
    Tensor x = Tensor::randn({8, 4}, s);
    EXPECT_TRUE(equal((*prepared)(x), (*watched)(x)));
  }
  Tensor x = Tensor::randn({8, 4}, 9), expected = (*quant::convert_fx(prepared))(x);
  const std::string graph = print(quant::convert_fx(prepared)->graph());
  EXPECT_EQ(print(quant::convert_fx(watched)->graph()), graph);
  report.generate_model_report(true);
  EXPECT_EQ(print(watched->graph()), print(prepared->graph()));
  EXPECT_TRUE(equal((*quant::convert_fx(watched))(x), expected));
  for (auto& [path, module] : watched->named_modules())
    EXPECT_EQ(path.find("model_report"), std::string::npos) << path;
}

TEST(ModelReport, ModelsInTrainingAreReportedToo) {
  auto model = nn::make<TwoLayers>();
  set_parameters(*model, 7);
  auto prepared = quant::prepare_qat_fx(model, quant::get_default_qat_qconfig_mapping("qnnpack"),
                                        {Tensor::randn({8, 4}, 1)});
  ModelReport report(prepared, all_detectors());
  auto watched = report.prepare_detailed_calibration();
  for (int k = 0; k < 8; ++k) (*watched)(Tensor::randn({8, 4}, 1) * static_cast<float>(1 << k));
  auto reports = report.generate_model_report(true);
  for (const char* detector :
       {"per_channel_detector", "dynamic_vs_static_detector", "input_weight_equalization_detector"})
    EXPECT_EQ(reports.at(detector).rows.size(), 2u) << detector;
  auto again =
      quant::prepare_qat_fx(model, report.generate_qconfig_mapping(), {Tensor::randn({8, 4}, 1)});
  EXPECT_EQ(again->decisions().at("fc1").mode, quant::QuantMode::dynamically);
  EXPECT_TRUE(
      quant::is_per_channel(again->decisions().at("fc1").qconfig->weight.options().qscheme));
  (*again)(Tensor::randn({8, 4}, 1));
  again->eval();
  quant::convert_fx(again);
}

TEST(ModelReport, DetectorsShareTheObserversThatFitThem) {
  ModelReport report(prepared_net(), all_detectors());
  report.prepare_detailed_calibration();
  EXPECT_EQ(
      report.get_desired_reports_names(),
      (std::set<std::string>{"dynamic_vs_static_detector", "input_weight_equalization_detector",
                             "outlier_detector", "per_channel_detector"}));
  auto observers = report.get_observers_of_interest();
  EXPECT_EQ(observers.at("per_channel_detector").size(), 0u);
  EXPECT_EQ(observers.at("dynamic_vs_static_detector").size(), 4u);
  EXPECT_EQ(observers.at("outlier_detector"), observers.at("input_weight_equalization_detector"));
  for (const std::string& path : observers.at("outlier_detector"))
    EXPECT_TRUE(observers.at("dynamic_vs_static_detector").count(path)) << path;
}

TEST(ModelReport, AMappingFollowsFromTheReports) {
  ModelReport report(prepared_net(), {std::make_shared<quant::PerChannelDetector>(),
                                      std::make_shared<quant::DynamicStaticDetector>()});
  auto watched = report.prepare_detailed_calibration();
  // louder and louder
  for (int k = 0; k < 8; ++k) (*watched)(Tensor::randn({8, 4}, 1) * static_cast<float>(1 << k));
  auto reports = report.generate_model_report(true);
  EXPECT_NE(reports.at("dynamic_vs_static_detector").text.find("fc1: dynamic"), std::string::npos)
      << reports.at("dynamic_vs_static_detector").text;
  auto mapping = report.generate_qconfig_mapping();
  ASSERT_EQ(mapping.module_name_qconfigs().size(), 2u);
  for (const auto& entry : mapping.module_name_qconfigs()) {
    EXPECT_EQ(quant::mode_of(*entry.qconfig), quant::QuantMode::dynamically) << entry.name;
    EXPECT_TRUE(quant::is_per_channel(entry.qconfig->weight.options().qscheme)) << entry.name;
  }
  auto again = prepared_net(mapping);
  EXPECT_EQ(again->decisions().at("fc1").mode, quant::QuantMode::dynamically);
}

TEST(ModelReport, AMappingKeepsWhatIsGoodAlready) {
  const auto q = quant::get_default_qconfig();
  ModelReport report(prepared_net(quant::QConfigMapping(q)),
                     {std::make_shared<quant::PerChannelDetector>(),
                      std::make_shared<quant::DynamicStaticDetector>()});
  auto watched = report.prepare_detailed_calibration();
  for (int k = 0; k < 3; ++k) (*watched)(Tensor::randn({8, 4}, 1));
  report.generate_model_report(false);
  const auto mapping = report.generate_qconfig_mapping();
  ASSERT_EQ(mapping.module_name_qconfigs().size(), 2u);
  for (const auto& entry : mapping.module_name_qconfigs())
    EXPECT_EQ(*entry.qconfig, q) << entry.name;
}

// Where channels of the input are large that meet large weights, PyTorch would equalize, and
// nothing is gained; where large ones meet small weights there is much to gain.
TEST(ModelReport, EqualizationIsSuggestedWhereItHelps) {
  Tensor factors = Tensor::from<float>({100, 1, 100, 1}, {4}),
         x = Tensor::randn({64, 4}, 1) * factors;
  for (const bool unlike : {false, true}) {
    auto model = nn::make<nn::Sequential>();
    model->append(nn::Linear(4, 8));
    set_parameters(*model, 7);
    Tensor& weight = model->submodule("0")->tensor("weight");
    weight = unlike ? weight.detach() / factors : weight.detach() * factors;
    model->eval();
    const quant::QConfigMapping qconfig(
        quant::QConfig{quant::ObserverFactory("MinMaxObserver"), quant::default_weight_observer()});
    auto prepared = quant::prepare_fx(model, qconfig, {x});
    ModelReport report(prepared, {std::make_shared<quant::InputWeightEqualizationDetector>()});
    auto watched = report.prepare_detailed_calibration();
    (*watched)(x);
    auto rows = report.generate_model_report(true);
    EXPECT_EQ(report.generate_equalization_mapping().module_name_qconfigs().size(),
              unlike ? 1u : 0u);

    auto equalizing = quant::prepare_equalization_fx(
        prepared, quant::QConfigMapping(quant::default_equalization_qconfig()));
    (*equalizing)(x);
    Tensor expected = (*model)(x);
    const double before = sqnr(expected, (*quant::convert_fx(equalizing))(x));
    const double after =
        sqnr(expected, (*quant::convert_fx(quant::convert_equalization_fx(equalizing)))(x));
    EXPECT_EQ(after > before + 6, unlike) << before << " dB before, " << after << " after";
  }
}

TEST(ModelReport, TablesHaveALineForEachLayerAndChannel) {
  ModelReport report(prepared_net(), all_detectors());
  auto watched = report.prepare_detailed_calibration();
  (*watched)(Tensor::randn({64, 4}, 1));
  report.generate_model_report(false);
  const std::string table = report.to_table("dynamic_static_comp_stat");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3) << table;
  const std::string channels = report.to_table("percentile_ratios", "fc1");
  EXPECT_EQ(std::count(channels.begin(), channels.end(), '\n'), 1 + 4) << channels;
  EXPECT_NE(channels.find("fc1        3        "), std::string::npos) << channels;
  EXPECT_EQ(report.to_table("nothing of the kind"), "");
}

struct Tokens : nn::Module {
  nn::Slot embed = slot("embed", nn::Embedding(10, 8));
  nn::Slot fc = slot("fc", nn::Linear(8, 8));
  nn::Slot act = slot("act", nn::GELU());
  nn::Slot conv = slot("conv", nn::Conv1d(8, 8, 1, {.groups = 2}));
  Tensor forward(Tensor x) override {
    Tensor y = act(fc(fc(embed(x))));
    return conv(y.transpose(1, 2));
  }
};

// Channels of Linear are the last dimension; what PyTorch looks at, the tokens, would differ in
// number.
TEST(ModelReport, TokensGroupsAndLayersCalledTwiceAreWatched) {
  auto model = nn::make<Tokens>();
  model->eval();
  auto ids = [](int64_t n) { return Tensor::full({2, n}, 3.0, DType::int64); };
  auto prepared =
      quant::prepare_fx(model, quant::get_default_qconfig_mapping(),
                        std::vector<TensorType>{TensorType(DType::int64, {Dim("N"), Dim("T")})});
  ModelReport report(prepared, {std::make_shared<quant::InputWeightEqualizationDetector>(),
                                std::make_shared<quant::DynamicStaticDetector>()});
  auto watched = report.prepare_detailed_calibration();
  for (int64_t n : {3, 5}) (*watched)(ids(n));
  auto reports = report.generate_model_report(false);
  const auto& rows = reports.at("input_weight_equalization_detector");
  EXPECT_EQ(rows.at("fc").get<int64_t>("input_weight_channel_axis"), 2);
  EXPECT_EQ(rows.at("conv").get<std::vector<double>>("weight_per_channel_max").size(), 8u);
  auto* seen = dynamic_cast<ModelReportObserver*>(
      watched
          ->submodule(*report.get_observers_of_interest().at("dynamic_vs_static_detector").begin())
          .get());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->num_batches_tracked(), 4);
}

TEST(ModelReport, AChannelOfZerosHasNoOutliers) {
  ModelReport report(prepared_net(), {std::make_shared<quant::OutlierDetector>()});
  auto watched = report.prepare_detailed_calibration();
  (*watched)(Tensor::randn({64, 4}, 1) * Tensor::from<float>({1, 0, 1, 1}, {4}));
  auto reports = report.generate_model_report(false);
  const auto& row = reports.at("outlier_detector").at("fc1");
  EXPECT_FALSE(row.get<std::vector<bool>>("outliers_detected")[1]);
  EXPECT_FALSE(row.get<std::vector<bool>>("outlier_detection_is_sufficient_batches")[1]);
  EXPECT_EQ(row.get<std::vector<int64_t>>("constant_batch_counts")[1], 1);
  EXPECT_NE(reports.at("outlier_detector").text.find("fc1 channel 1: constant in 1 of 1 batches"),
            std::string::npos);
}

// Users' own: which layers see values beyond a limit.
struct LimitDetector : quant::Detector {
  std::string get_detector_name() const override { return "limit_detector"; }
  std::vector<quant::ObserverRequest> determine_observer_insert_points(
      const quant::ReportedModel& model) const override {
    std::vector<quant::ObserverRequest> requests;
    for (const auto& layer : model.layers())
      requests.push_back({.path = layer.path, .is_post_observer = true});
    return requests;
  }
  quant::DetectorReport generate_detector_report(const quant::ReportedModel& model) const override {
    quant::DetectorReport report;
    for (const auto& layer : model.layers()) {
      const float most =
          model.observer({.path = layer.path, .is_post_observer = true})->epoch_activation_max();
      report.rows.push_back({layer.path, {{"beyond_limit", most > 2}}});
    }
    return report;
  }
  std::map<std::string, quant::DetectorQConfigInfo> get_qconfig_info(
      const quant::ReportedModel&) const override {
    return {{"fc2", {.is_activation_dynamic = true}}};
  }
};

TEST(ModelReport, UsersDetectorsTakePart) {
  ModelReport report(prepared_net(), {std::make_shared<LimitDetector>(),
                                      std::make_shared<quant::DynamicStaticDetector>()});
  auto watched = report.prepare_detailed_calibration();
  (*watched)(Tensor::randn({8, 4}, 1));
  auto reports = report.generate_model_report(true);
  EXPECT_TRUE(reports.at("limit_detector").at("fc1").get<bool>("beyond_limit"));
  EXPECT_FALSE(reports.at("dynamic_vs_static_detector").at("fc2").get<bool>("dynamic_recommended"));
  for (const auto mapping = report.generate_qconfig_mapping();
       const auto& entry : mapping.module_name_qconfigs())
    EXPECT_EQ(quant::mode_of(*entry.qconfig) == quant::QuantMode::dynamically, entry.name == "fc2")
        << entry.name;
}

TEST(ModelReport, LayersThatStayFloatAreReportedButNotMapped) {
  auto mapping = quant::get_default_qconfig_mapping("qnnpack").set_module_name("fc1", std::nullopt);
  ModelReport report(prepared_net(mapping), all_detectors());
  auto watched = report.prepare_detailed_calibration();
  (*watched)(Tensor::randn({8, 4}, 1));
  auto reports = report.generate_model_report(true);
  EXPECT_EQ(reports.at("per_channel_detector").rows.size(), 1u);
  EXPECT_EQ(reports.at("dynamic_vs_static_detector").rows.size(), 2u);
  const auto suggested = report.generate_qconfig_mapping();
  ASSERT_EQ(suggested.module_name_qconfigs().size(), 1u);
  EXPECT_EQ(suggested.module_name_qconfigs()[0].name, "fc2");
}

TEST(ModelReport, AWatchedModelCanBeSavedAndGoesOn) {
  TempDir dir;
  ModelReport report(prepared_net(), all_detectors());
  auto watched = report.prepare_detailed_calibration();
  (*watched)(Tensor::randn({8, 4}, 1));
  save_model(dir / "m.octet", *watched);
  auto loaded = load_model(dir / "m.octet");
  EXPECT_EQ(loaded->state_dict().size(), watched->state_dict().size());
  for (auto& [name, t] : watched->state_dict())
    EXPECT_TRUE(equal(loaded->state_dict().at(name).detach(), t.detach())) << name;
}

TEST(ModelReport, MisuseIsAnErrorThatSaysWhatToDo) {
  const auto bad = ErrorCode::invalid_argument;
  expect_error(bad, {"expected one detector"}, [] { ModelReport(prepared_net(), {}); });
  expect_error(bad, {"two detectors called 'outlier_detector'"}, [] {
    ModelReport(prepared_net(), {std::make_shared<quant::OutlierDetector>(),
                                 std::make_shared<quant::OutlierDetector>()});
  });
  expect_error(bad, {"ratio_threshold 1"}, [] { quant::InputWeightEqualizationDetector(1.0); });
  expect_error(bad, {"reference_percentile 97.5", "0 to 1"},
               [] { quant::OutlierDetector(3.5, 97.5); });
  ModelReport report(prepared_net(), all_detectors());
  expect_error(bad, {"prepare_detailed_calibration"}, [&] { report.generate_model_report(false); });
  auto watched = report.prepare_detailed_calibration();
  expect_error(bad, {"observers of a report already", "prepare_fx"},
               [&] { ModelReport(watched, all_detectors()); });
  expect_error(bad, {"called before"}, [&] { report.prepare_detailed_calibration(); });
  expect_error(bad, {"generate_model_report", "to_table"}, [&] { (void)report.to_table(); });
  expect_error(ErrorCode::not_calibrated, {"fc1 (input)", "calibration data"},
               [&] { report.generate_model_report(false); });
  (*watched)(Tensor::randn({8, 4}, 1));
  auto reports = report.generate_model_report(true);
  expect_error(bad, {"removed"}, [&] { report.generate_model_report(false); });
  expect_error(ErrorCode::not_found, {"'fc3'", "fc1"},
               [&] { (void)reports.at("outlier_detector").at("fc3"); });
  expect_error(ErrorCode::not_found, {"'outlier_detected'", "outliers_detected"},
               [&] { (void)reports.at("outlier_detector").at("fc1").at("outlier_detected"); });
  expect_error(bad, {"std::vector<bool>"}, [&] {
    (void)reports.at("outlier_detector").at("fc1").get<bool>("outliers_detected");
  });
}

}  // namespace
}  // namespace octet::testing
