#pragma once
// Recipe: everything that was done to quantize a network, as one JSON document that does it again,
// to the same bytes (docs/recipes.md).
//
//   quant::Recipe recipe{.mapping = quant::get_default_qconfig_mapping(), .skip = {"head*"}};
//   quant::calibrate(graph, recipe, samples);  // now it holds all ranges
//   graph::Graph int8 = quant::apply(graph, recipe);
//   std::string text = recipe.to_json();

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/algorithms/step_team.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// Batches of inputs in a graph's order.
using Batches = std::vector<std::vector<Tensor>>;

struct Recipe {
  // An algorithm by its name in recipe_steps(), with its options.
  struct Step {
    std::string name;
    Attrs options = {};
    bool operator==(const Step&) const = default;
  };
  // The qparams of what one observer watches.
  struct Range {
    double scale = 1;
    int64_t zero_point = 0;
    std::string from = {};  // who chose it, for readers: "PercentileObserver(percentile=99.9)"
    bool operator==(const Range&) const = default;
  };

  QConfigMapping mapping = {};         // observers and codes, bits of weights by layer among them
  std::string backend = "native";      // get_backend_config()'s name
  std::vector<std::string> skip = {};  // layers left float: names, globs, re:expressions
  std::vector<Step> steps = {};        // in the order in which they are run
  std::map<std::string, Range> ranges = {};  // by the observer's label, a value of the graph
  // What ranges and steps were made with.
  struct Samples {
    int64_t count = 0, batch = 0;  // in all, and in the first batch; 0: none
    // Where they are a data set without its sample number n - 1, 2n - 1, ...: n; else 0.
    int64_t without_every = 0;
    std::string digest = {};  // digest_of()
    bool operator==(const Samples&) const = default;
  };
  Samples samples = {};

  // One JSON object; from_json gives an equal recipe. Error, which names the key, on unknown keys,
  // steps and versions, and on whatever is not of the form of docs/recipes.md.
  std::string to_json() const;
  static Recipe from_json(std::string_view text);
  bool operator==(const Recipe&) const = default;
};

// What a step does: one of the two.
struct RecipeStep {
  std::string name, summary;
  bool needs_samples = true;
  // Whether the step may change what the recipe makes of this float network. None: always.
  std::function<bool(const Recipe&, const graph::Graph&)> applies = {};
  // Whether tune() tries it among the steps. Not so learned rounding, which it tries later, and
  // what few networks need or what makes them slower.
  bool is_tried = true;
  // Whether on_graph gives the quantized network: there are no ranges, and nothing comes after it.
  bool is_last = false;
  // On the float network, before it is prepared: another one that computes the same.
  std::function<graph::Graph(const graph::Graph&, const Batches&, const Attrs& options)> on_graph =
      {};
  // On the prepared graph whose ranges are all chosen, before it is converted: weights, biases and
  // qparams change in place. float_graph is its watched().graph from before the first such step.
  // `team`: who do the same step together, or null.
  std::function<void(ObservedGraphModule&, const Batches&, const Attrs& options,
                     const graph::Graph& float_graph, StepTeam* team)>
      on_prepared = {};
};
// Every step that is known, from the cheapest to the dearest: what tune() tries, in this order.
std::vector<RecipeStep> recipe_steps();
// Adds a step behind those that are known. Error if there is one of its name. Thread-safe.
void register_recipe_step(RecipeStep step);

// Chooses every range that the recipe does not have: calibrates with the observers of its mapping,
// and, with `choose`, tensor by tensor by the noise at the outputs (choose_ranges). Sets
// recipe.ranges and recipe.samples (but for without_every, which the caller knows). Errors as of
// prepare_fx, choose_ranges and the observers.
void calibrate(const graph::Graph& graph, Recipe& recipe, const Batches& samples,
               bool choose = false);

// Sets recipe.ranges to those of `from` that it may keep though its mapping, or what it leaves
// float, has changed: of the values that observers of both watch, for codes of the same dtype.
// Errors as of prepare_fx.
void keep_ranges(const graph::Graph& graph, Recipe& recipe, const Recipe& from);

// The float network prepared as the recipe says: steps are done, all ranges are its. What observers
// it has no range for are shown `samples`. Errors as of apply().
// `team`: processes that do this with the same arguments; learned rounding block by block and
// distillation share their steps.
std::shared_ptr<ObservedGraphModule> prepare(const graph::Graph& graph, const Recipe& recipe,
                                             const Batches& samples = {}, StepTeam* team = nullptr);

// The quantized network. Its metadata hold the recipe. `samples` are needed where a step is there,
// or a range is missing: then they are to be those that the recipe was made with. Errors: those of
// prepare_fx; not_found for a range whose value no observer watches; not_calibrated where a range
// is missing and there are no samples; invalid_argument where a step needs samples and there are
// none.
graph::Graph apply(const graph::Graph& graph, const Recipe& recipe, const Batches& samples = {},
                   ConversionReport* report = nullptr, StepTeam* team = nullptr);

// What a quantized network is to be compared with layer by layer: the float network after the steps
// of the recipe in its metadata that change the float network (equalization, say). It computes the
// same from values of the ranges that were quantized. `float_graph` itself where there is no recipe
// with such a step, or where a step cannot be done on it. `samples`: some inputs.
graph::Graph float_counterpart(const graph::Graph& float_graph, const graph::Graph& quantized,
                               const Batches& samples);
// Whether there is such a step: else float_counterpart() needs no samples.
bool has_float_counterpart(const graph::Graph& quantized);

// A text that differs where samples do (a hash of all elements), however they are batched.
std::string digest_of(const Batches& samples);

}  // namespace octet::quant
