// Algorithms that change a float graph or a prepared model, so that its codes lose less
// (octet/quant/algorithms).
#include <optional>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "octet/quant/algorithms/adaround.h"
#include "octet/quant/algorithms/batch_norm_reestimation.h"
#include "octet/quant/algorithms/bias_correction.h"
#include "octet/quant/algorithms/block_weights.h"
#include "octet/quant/algorithms/choose_ranges.h"
#include "octet/quant/algorithms/cross_layer_equalization.h"
#include "octet/quant/algorithms/distill.h"
#include "octet/quant/algorithms/gptq.h"
#include "octet/quant/algorithms/hadamard.h"
#include "octet/quant/algorithms/input_weight_equalization.h"
#include "octet/quant/algorithms/qat_start.h"
#include "octet/quant/algorithms/smooth_quant.h"
#include "octet/quant/algorithms/weight_ranges.h"
#include "python/samples.h"

namespace octet::python {
namespace {

using graph::Graph;
using py::arg;
using py::none;
using MaybeGraph = std::optional<Graph>;

// Adds an entry to the list that the caller gave as `report`, if it gave one.
void append_to(const py::object& report, const py::object& entry) {
  if (!report.is_none()) report.attr("append")(entry);
}

// -- on graphs ------------------------------------------------------------------------------------

void report_scaled(const quant::SmoothQuantReport& found, const py::object& report) {
  for (const auto& e : found.entries) {
    py::dict d;
    d["source"] = e.source;
    d["layers"] = e.layers;
    d["factors"] = e.factors;
    append_to(report, d);
  }
}

void bind_scaling(py::module_& m) {
  m.def(
      "smooth_quant",
      [](const Graph& graph, const py::iterable& samples, double alpha, const py::object& report) {
        const Batches all = batches_of(samples, "smooth_quant");
        quant::SmoothQuantReport found;
        Graph made =
            without_gil([&] { return quant::smooth_quant(graph, all, {.alpha = alpha}, &found); });
        report_scaled(found, report);
        return made;
      },
      arg("graph"), arg("samples"), arg("alpha") = 0.5, arg("report") = none(),
      "The same function with scales moved from the features of activations into the weights of "
      "the linear layers that read them (SmoothQuant). alpha: 0 leaves all of the range to the "
      "activation, 1 to the weights. `report`: a list that gets a dictionary for each value.");
  m.def(
      "awq",
      [](const Graph& graph, const py::iterable& samples, int bits, int64_t group_size, int steps,
         const py::object& report) {
        const Batches all = batches_of(samples, "awq");
        quant::SmoothQuantReport found;
        Graph made = without_gil([&] {
          return quant::awq(graph, all, {.bits = bits, .group_size = group_size, .steps = steps},
                            &found);
        });
        report_scaled(found, report);
        return made;
      },
      arg("graph"), arg("samples"), arg("bits") = 4, arg("group_size") = 0, arg("steps") = 20,
      arg("report") = none(),
      "The same function with linear layers whose weights lose least when they become codes of so "
      "many bits (AWQ). `report`: a list that gets a dictionary for each value.");
  m.def(
      "hadamard_rotation",
      [](const Graph& graph, const py::object& report) {
        std::vector<std::string> rotated;
        Graph made = without_gil([&] { return quant::hadamard_rotation(graph, &rotated); });
        for (const std::string& name : rotated) append_to(report, py::cast(name));
        return made;
      },
      arg("graph"), arg("report") = none(),
      "The same function with values between linear layers rotated by a Hadamard matrix, which "
      "spreads outliers over all features. `report`: a list that gets the names of these values.");
}

void bind_on_graphs(py::module_& m) {
  m.def(
      "cross_layer_equalization",
      [](const Graph& graph, const py::object& samples, int turns, bool replace_relu6,
         const py::object& report) {
        const Batches all = maybe_batches_of(samples, "cross_layer_equalization");
        quant::CrossLayerEqualizationReport found;
        Graph made = without_gil([&] {
          return quant::cross_layer_equalization(
              graph, all, {.turns = turns, .replace_relu6 = replace_relu6}, &found);
        });
        for (const auto& g : found.groups) {
          py::dict d;
          d["producers"] = g.producers;
          d["consumers"] = g.consumers;
          d["factors"] = g.factors;
          append_to(report, d);
        }
        return made;
      },
      arg("graph"), arg("samples") = none(), arg("turns") = 100, arg("replace_relu6") = true,
      arg("report") = none(),
      "The same function with the channels between layers scaled so that one scale for each weight "
      "fits all of them. Samples are only for limits as relu6 has. `report`: a list that gets a "
      "dictionary for each group of layers.");
  m.def(
      "absorb_high_biases",
      [](const Graph& graph, const py::iterable& samples) {
        const Batches all = batches_of(samples, "absorb_high_biases");
        return without_gil([&] { return quant::absorb_high_biases(graph, all); });
      },
      arg("graph"), arg("samples"),
      "The same function on data like the samples, with what a channel never falls below moved "
      "into the biases of the layers that read it.");
  m.def(
      "reestimate_batch_norms",
      [](const Graph& graph, const py::iterable& samples, const py::object& report) {
        const Batches all = batches_of(samples, "reestimate_batch_norms");
        std::vector<std::string> names;
        Graph made = without_gil([&] { return quant::reestimate_batch_norms(graph, all, &names); });
        for (const std::string& name : names) append_to(report, py::cast(name));
        return made;
      },
      arg("graph"), arg("samples"), arg("report") = none(),
      "The graph with the statistics of batch norms computed from the samples. `report`: a list "
      "that gets the names of the norms that changed.");
  m.def(
      "quantize_block_weights",
      [](const Graph& graph, const py::object& samples, int bits, int64_t block_size, bool gptq,
         double damping, int64_t rows, int sweeps, int learn_scales,
         const std::optional<quant::ObserverFactory>& activation,
         const std::vector<std::string>& skip, const py::object& report) {
        const Batches all = maybe_batches_of(samples, "quantize_block_weights");
        const quant::BlockWeightOptions options{bits,   block_size,   gptq,       damping, rows,
                                                sweeps, learn_scales, activation, skip};
        quant::BlockWeightReport found;
        Graph made =
            without_gil([&] { return quant::quantize_block_weights(graph, all, options, &found); });
        for (const auto& e : found.layers) {
          py::dict d;
          d["layer"] = e.layer;
          d["nearest_error"] = e.nearest_error;
          d["error"] = e.error;
          append_to(report, d);
        }
        return made;
      },
      arg("graph"), arg("samples") = none(), arg("bits") = 4, arg("block_size") = 32,
      arg("gptq") = true, arg("damping") = 0.01, arg("rows") = 16384, arg("sweeps") = 20,
      arg("learn_scales") = 3, arg("activation") = none(), arg("skip") = std::vector<std::string>(),
      arg("report") = none(),
      "Linear layers with weights of 2, 3, 4 or 8 bits that have a scale and a zero point for each "
      "block of inputs. Without gptq and `activation` it needs no samples. `report`: a list that "
      "gets a dictionary for each layer.");
}

// -- on prepared models ---------------------------------------------------------------------------

void bind_ranges(py::module_& m) {
  m.def(
      "choose_weight_ranges",
      [](const py::object& prepared, const std::string& criterion, int steps) {
        using quant::WeightRangeCriterion;
        if (criterion != "mse" && criterion != "octav")
          fail(ErrorCode::invalid_argument,
               "choose_weight_ranges: the criterion is '" + criterion + "'; expected mse or octav");
        const quant::WeightRangeOptions options{
            criterion == "mse" ? WeightRangeCriterion::mse : WeightRangeCriterion::octav, steps};
        quant::ObservedGraphModule& model = prepared_of(prepared);
        without_gil([&] { quant::choose_weight_ranges(model, options); });
      },
      arg("prepared"), arg("criterion") = "mse", arg("steps") = 100,
      "Ranges of weights narrower than their largest value: with the least squared error (mse), or "
      "by OCTAV's fixed point (octav).");
  m.def(
      "choose_ranges",
      [](const py::object& prepared, const py::iterable& samples, const py::object& candidates,
         int probes, const py::object& progress) {
        const Batches all = batches_of(samples, "choose_ranges");
        quant::ChooseRangesOptions options;
        options.probes = probes;
        options.progress = callback<size_t, size_t>(progress);
        if (!candidates.is_none())
          options.candidates = candidates.cast<std::vector<quant::ObserverFactory>>();
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const auto chosen = without_gil([&] { return quant::choose_ranges(model, all, options); });
        py::list result;
        for (const quant::ChosenRange& c : chosen) {
          py::dict d;
          d["value"] = c.value;
          d["observer"] = c.observer;
          d["before"] = c.before;
          d["after"] = c.after;
          result.append(d);
        }
        return result;
      },
      arg("prepared"), arg("samples"), arg("candidates") = none(), arg("probes") = 1,
      arg("progress") = none(),
      "Ranges of activations of a calibrated graph, each the candidate's (ObserverFactory) that "
      "costs the outputs least. A dictionary for each range that changed.");
}

void bind_bias_correction(py::module_& m) {
  m.def(
      "correct_bias",
      [](const py::object& prepared, const py::iterable& samples, const MaybeGraph& float_graph,
         const py::object& progress) {
        const Batches all = batches_of(samples, "correct_bias");
        const quant::BiasCorrectionOptions options{float_graph, callback<size_t, size_t>(progress)};
        quant::ObservedGraphModule& model = prepared_of(prepared);
        without_gil([&] { quant::correct_bias(model, all, options); });
      },
      arg("prepared"), arg("samples"), arg("float_graph") = none(), arg("progress") = none(),
      "Biases of a calibrated graph take back by what rounding moves the mean of each layer's "
      "result. `float_graph`: prepared.float_graph() from before its weights were changed, if they "
      "were.");
  m.def(
      "correct_bias_analytically",
      [](const py::object& prepared, const Graph& float_graph) {
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const auto found =
            without_gil([&] { return quant::correct_bias_analytically(model, float_graph); });
        py::dict d;
        d["corrected"] = found.corrected;
        d["unknown"] = found.unknown;
        return d;
      },
      arg("prepared"), arg("float_graph"),
      "The same without data, from the batch norms of the graph that was prepared. The names of "
      "the layers that are corrected, and of those about which batch norms say nothing.");
}

void bind_rounding(py::module_& m) {
  m.def(
      "gptq",
      [](const py::object& prepared, const py::iterable& samples, const MaybeGraph& float_graph,
         double damping, int64_t rows, bool search_ranges, int sweeps, int learn_scales,
         bool correct_bias, const py::object& progress) {
        const Batches all = batches_of(samples, "gptq");
        const quant::GPTQOptions options{
            float_graph, damping,      rows,         search_ranges,
            sweeps,      learn_scales, correct_bias, callback<size_t, size_t>(progress)};
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const auto found = without_gil([&] { return quant::gptq(model, all, options); });
        py::list layers;
        for (const auto& e : found.layers) {
          py::dict d;
          d["layer"] = e.layer;
          d["nearest_error"] = e.nearest_error;
          d["error"] = e.error;
          layers.append(d);
        }
        py::dict result;
        result["layers"] = layers;
        result["skipped"] = found.skipped;
        return result;
      },
      arg("prepared"), arg("samples"), arg("float_graph") = none(), arg("damping") = 0.01,
      arg("rows") = 16384, arg("search_ranges") = true, arg("sweeps") = 20, arg("learn_scales") = 3,
      arg("correct_bias") = true, arg("progress") = none(),
      "Weights of a calibrated graph rounded by what layers compute (GPTQ with coordinate "
      "descent). {\"layers\": the error of each before and now, \"skipped\": names}.");
  m.def(
      "adaround",
      [](const py::object& prepared, const py::iterable& samples, const MaybeGraph& float_graph,
         bool blocks, int64_t most_layers, int iterations, double lr, int64_t batch,
         const std::optional<double>& regularization, double warm_up, double first_power,
         bool learn_scales, bool correct_bias, uint64_t seed, const py::object& progress) {
        const Batches all = batches_of(samples, "adaround");
        const quant::AdaRoundOptions options{float_graph,
                                             blocks,
                                             most_layers,
                                             iterations,
                                             lr,
                                             batch,
                                             regularization,
                                             warm_up,
                                             first_power,
                                             learn_scales,
                                             correct_bias,
                                             seed,
                                             callback<size_t, size_t>(progress)};
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const auto found = without_gil([&] { return quant::adaround(model, all, options); });
        py::list entries;
        for (const auto& e : found.entries) {
          py::dict d;
          d["layers"] = e.layers;
          d["before"] = e.before;
          d["error"] = e.error;
          entries.append(d);
        }
        py::dict result;
        result["entries"] = entries;
        result["skipped"] = found.skipped;
        return result;
      },
      arg("prepared"), arg("samples"), arg("float_graph") = none(), arg("blocks") = false,
      arg("most_layers") = 16, arg("iterations") = 1000, arg("lr") = 0.01, arg("batch") = 32,
      arg("regularization") = none(), arg("warm_up") = 0.2, arg("first_power") = 20.0,
      arg("learn_scales") = false, arg("correct_bias") = true, arg("seed") = 1,
      arg("progress") = none(),
      "Weights of a calibrated graph whose rounding is learned, layer by layer (AdaRound) or block "
      "by block (BRECQ). {\"entries\": the error of each before and now, \"skipped\": names}.");
  m.def(
      "distill",
      [](const py::object& prepared, const py::iterable& samples, const MaybeGraph& float_graph,
         int64_t iterations, double lr, int64_t batch, uint64_t seed, const py::object& progress) {
        const Batches all = batches_of(samples, "distill");
        const quant::DistillOptions options{
            float_graph, iterations, lr, batch, seed, callback<int64_t, int64_t>(progress)};
        quant::ObservedGraphModule& model = prepared_of(prepared);
        const auto found = without_gil([&] { return quant::distill(model, all, options); });
        py::dict result;
        result["before"] = found.before;
        result["error"] = found.error;
        return result;
      },
      arg("prepared"), arg("samples"), arg("float_graph") = none(), arg("iterations") = 200,
      arg("lr") = 0.001, arg("batch") = 32, arg("seed") = 1, arg("progress") = none(),
      "Weights and biases of a calibrated graph trained, without labels, to give the float "
      "network's outputs. {\"before\": the loss, \"error\": the loss now}.");
}

void bind_input_weight_equalization(py::module_& m) {
  using quant::ObservedGraphModule;
  const auto observed = [](const py::object& model) {
    prepared_of(model);  // the error of other models
    return std::dynamic_pointer_cast<ObservedGraphModule>(module_of(model));
  };
  m.def("default_equalization_qconfig", &quant::default_equalization_qconfig,
        "The entry of a QConfigMapping for prepare_equalization_fx that says: equalize.");
  m.def(
      "prepare_equalization_fx",
      [observed](const py::object& prepared, const quant::QConfigMapping& which) {
        const auto model = observed(prepared);
        return wrapped(without_gil(
            [&]() -> nn::ModulePtr { return quant::prepare_equalization_fx(model, which); }));
      },
      arg("prepared"), arg("qconfig_mapping"),
      "A prepared model with observers of the input channels of the layers that the mapping has an "
      "entry for, before calibration.");
  m.def(
      "convert_equalization_fx",
      [observed](const py::object& prepared, const py::object& report) {
        const auto model = observed(prepared);
        quant::EqualizationReport found;
        py::object made = wrapped(without_gil(
            [&]() -> nn::ModulePtr { return quant::convert_equalization_fx(model, &found); }));
        for (const auto& e : found.entries) {
          py::dict d;
          d["path"] = e.path;
          d["scale"] = e.scale;
          d["absorbed_by"] = e.absorbed_by;
          append_to(report, d);
        }
        return made;
      },
      arg("prepared"), arg("report") = none(),
      "The calibrated model with input channels scaled to the ranges of the weights that meet "
      "them, for convert_fx. `report`: a list that gets a dictionary for each layer.");
}

}  // namespace

void bind_algorithms(py::module_& m) {
  bind_scaling(m);
  bind_on_graphs(m);
  bind_ranges(m);
  bind_bias_correction(m);
  bind_rounding(m);
  bind_input_weight_equalization(m);
  m.def(
      "start_qat_from",
      [](const py::object& qat, const py::object& calibrated) {
        quant::ObservedGraphModule& model = prepared_of(qat);
        const quant::ObservedGraphModule& from = prepared_of(calibrated);
        without_gil([&] { quant::start_qat_from(model, from); });
      },
      arg("qat"), arg("calibrated"),
      "Weights, biases, scales and zero points of what prepare_qat_fx gave become those of another "
      "preparation of the same graph that was calibrated (and went through gptq, say).");
}

}  // namespace octet::python
