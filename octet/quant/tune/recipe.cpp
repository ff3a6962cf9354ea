#include "octet/quant/tune/recipe.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>

#include "octet/base/check_impl.h"
#include "octet/base/digest.h"
#include "octet/quant/algorithms/adaround.h"
#include "octet/quant/algorithms/bias_correction.h"
#include "octet/quant/algorithms/block_weights.h"
#include "octet/quant/algorithms/choose_ranges.h"
#include "octet/quant/algorithms/cross_layer_equalization.h"
#include "octet/quant/algorithms/distill.h"
#include "octet/quant/algorithms/gptq.h"
#include "octet/quant/algorithms/hadamard.h"
#include "octet/quant/algorithms/smooth_quant.h"
#include "octet/quant/algorithms/split_outliers.h"
#include "octet/quant/algorithms/weight_ranges.h"
#include "octet/quant/backend/json_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/passive.h"

namespace octet::quant {
namespace {

using graph::Graph;

constexpr const char* kFormat = "octet.recipe";
constexpr int64_t kVersion = 1;

int64_t option(const Attrs& options, const std::string& name, int64_t otherwise) {
  return options.has(name) ? options.get_int(name) : otherwise;
}

// Error unless there are no options but these.
void check_options(const std::string& step, const Attrs& options,
                   const std::vector<std::string>& known) {
  for (const auto& [name, value] : options)
    OCTET_CHECK(std::find(known.begin(), known.end(), name) != known.end(), invalid_argument,
                "recipe: the step '{}' has no option '{}' (known: {})", step, name,
                fmt::join(known, ", "));
}

bool has_op(const Graph& graph, const char* op) {
  for (const graph::Node& node : graph.nodes())
    if (node.kind == graph::NodeKind::call && node.op == op) return true;
  return false;
}

void learn_rounding(ObservedGraphModule& prepared, const Batches& samples, const Attrs& options,
                    const Graph& float_graph, StepTeam* team, bool blocks) {
  check_options(blocks ? "brecq" : "adaround", options, {"iterations"});
  AdaRoundOptions o{.float_graph = float_graph, .blocks = blocks, .team = team};
  o.iterations = static_cast<int>(option(options, "iterations", o.iterations));
  adaround(prepared, samples, o);
}

void distill_step(ObservedGraphModule& prepared, const Batches& samples, const Attrs& options,
                  const Graph& float_graph, StepTeam* team) {
  check_options("distill", options, {"iterations", "lr"});
  DistillOptions o{.float_graph = float_graph, .team = team};
  o.iterations = option(options, "iterations", o.iterations);
  if (options.has("lr")) o.lr = options.get_double("lr");
  distill(prepared, samples, o);
}

Graph block_weights(const Graph& graph, const Batches& samples, const Attrs& options) {
  check_options("block_weights", options, {"bits", "block_size", "gptq", "activation"});
  BlockWeightOptions o{.bits = static_cast<int>(option(options, "bits", 4)),
                       .block_size = option(options, "block_size", 32)};
  if (options.has("gptq")) o.gptq = options.get_bool("gptq");
  if (options.has("activation")) o.activation = ObserverFactory(options.get_string("activation"));
  return quantize_block_weights(graph, samples, o);
}

Graph split(const Graph& graph, const Attrs& options) {
  check_options("split_outliers", options, {"ratio", "outlier"});
  SplitOutliersOptions o;
  if (options.has("ratio")) o.ratio = options.get_double("ratio");
  if (options.has("outlier")) o.outlier = options.get_double("outlier");
  return split_outliers(graph, o);
}

// The algorithms of octet/quant/algorithms, from the cheapest to the dearest.
std::list<RecipeStep> own_steps() {
  return {
      {.name = "equalization",
       .summary = "channels between layers get weights of like range",
       .on_graph = [](const Graph& graph, const Batches& samples,
                      const Attrs&) { return cross_layer_equalization(graph, samples); }},
      {.name = "smooth_quant",
       .summary = "scales of features go from values into the weights that read them",
       .applies = [](const Recipe&, const Graph& graph) { return has_op(graph, "layer_norm"); },
       .on_graph = [](const Graph& graph, const Batches& samples,
                      const Attrs&) { return smooth_quant(graph, samples); }},
      {.name = "hadamard",
       .summary = "large features are spread over all between linear layers",
       .needs_samples = false,
       .is_tried = false,
       .on_graph = [](const Graph& graph, const Batches&,
                      const Attrs&) { return hadamard_rotation(graph); }},
      {.name = "split_outliers",
       .summary = "channels with the largest weights are read twice, each time by half of them",
       .needs_samples = false,
       .is_tried = false,
       .on_graph = [](const Graph& graph, const Batches&,
                      const Attrs& options) { return split(graph, options); }},
      {.name = "weight_ranges",
       .summary = "ranges of weights with the least squared error",
       .needs_samples = false,
       .applies =
           [](const Recipe& recipe, const Graph&) {
             const std::optional<QConfig> all = recipe.mapping.global_qconfig();
             return !all || all->weight.name() != "PerChannelMSEObserver";
           },
       .on_prepared = [](ObservedGraphModule& prepared, const Batches&, const Attrs&, const Graph&,
                         StepTeam*) { choose_weight_ranges(prepared); }},
      {.name = "bias_correction",
       .summary = "biases take back what rounding moves the means by",
       .on_prepared =
           [](ObservedGraphModule& prepared, const Batches& samples, const Attrs&,
              const Graph& float_graph,
              StepTeam*) { correct_bias(prepared, samples, {.float_graph = float_graph}); }},
      {.name = "gptq",
       .summary = "weights rounded by what layers compute",
       .on_prepared = [](ObservedGraphModule& prepared, const Batches& samples, const Attrs&,
                         const Graph& float_graph,
                         StepTeam*) { gptq(prepared, samples, {.float_graph = float_graph}); }},
      {.name = "adaround",
       .summary = "rounding of weights learned layer by layer",
       .is_tried = false,
       .on_prepared =
           [](ObservedGraphModule& prepared, const Batches& samples, const Attrs& options,
              const Graph& float_graph, StepTeam* team) {
             learn_rounding(prepared, samples, options, float_graph, team, false);
           }},
      {.name = "brecq",
       .summary = "rounding of weights learned block by block, from the codes that they have",
       .is_tried = false,
       .on_prepared =
           [](ObservedGraphModule& prepared, const Batches& samples, const Attrs& options,
              const Graph& float_graph, StepTeam* team) {
             learn_rounding(prepared, samples, options, float_graph, team, true);
           }},
      {.name = "distill",
       .summary = "weights and biases trained to give the float network's outputs, without labels",
       .is_tried = false,
       .on_prepared = distill_step},
      {.name = "block_weights",
       .summary = "weights of linear layers with few bits and a scale for each block of inputs",
       .needs_samples = false,  // the nearest code needs none; else it asks for them
       .is_tried = false,
       .is_last = true,
       .on_graph = block_weights},
  };
}

std::mutex g_steps_mutex;
std::list<RecipeStep>& known_steps() {
  static std::list<RecipeStep> all = own_steps();
  return all;
}

RecipeStep find_step(const std::string& name) {
  std::vector<std::string> names;
  for (RecipeStep& step : recipe_steps()) {
    if (step.name == name) return step;
    names.push_back(step.name);
  }
  OCTET_FAIL(not_found, "recipe: unknown step '{}'{} (known: {})", name, did_you_mean(name, names),
             fmt::join(names, ", "));
}

Attrs options_from_json(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_object(), invalid_argument, "{}: expected an object, got {}", who,
              brief(json));
  return attrs_from_json(json, who + ": ");
}

// An observer of a value that is no constant, which chooses qparams from data; null for others.
Observer* activation_observer(const ObservedGraphModule& prepared, const graph::Node& node) {
  const graph::Graph& g = prepared.graph();
  if (node.kind != graph::NodeKind::module || node.inputs.size() != 1 ||
      g.is_constant(node.inputs[0]))
    return nullptr;
  auto* observer = dynamic_cast<Observer*>(prepared.submodule(node.scope).get());
  return observer && observer->chooses_qparams() ? observer : nullptr;
}

// Each such observer once, by path.
std::map<std::string, Observer*> activation_observers(const ObservedGraphModule& prepared) {
  std::map<std::string, Observer*> all;
  for (const graph::Node& node : prepared.graph().nodes())
    if (Observer* observer = activation_observer(prepared, node)) all[node.scope] = observer;
  return all;
}

void set_ranges(ObservedGraphModule& prepared, const Recipe& recipe) {
  std::map<std::string, std::vector<std::string>> paths;  // by label
  std::vector<std::string> labels;
  for (const auto& [path, observer] : activation_observers(prepared)) {
    if (dynamic_cast<FixedQParamsObserver*>(observer)) continue;
    paths[observer->label()].push_back(path);
    labels.push_back(observer->label());
  }
  for (const auto& [value, range] : recipe.ranges) {
    const auto at = paths.find(value);
    OCTET_CHECK(at != paths.end(), not_found, "recipe: no observer watches the value '{}'{}", value,
                did_you_mean(value, labels));
    for (const std::string& path : at->second) {
      ObserverOptions options = prepared.submodule(path)->as<Observer>().options();
      options.scale = range.scale;
      options.zero_point = range.zero_point;
      prepared.put_module(path, make_observer("fixed", options, value));
    }
  }
}

int64_t count_of(const Batches& samples) {
  int64_t count = 0;
  for (const std::vector<Tensor>& batch : samples)
    count += batch.empty() || batch[0].dim() == 0 ? 1 : batch[0].size(0);
  return count;
}

Graph after_graph_steps(const Graph& graph, const Recipe& recipe, const Batches& samples) {
  Graph result = graph;
  for (const Recipe::Step& step : recipe.steps) {
    const RecipeStep known = find_step(step.name);
    OCTET_CHECK(!samples.empty() || !known.needs_samples, invalid_argument,
                "recipe: the step '{}' needs samples; give those that it was made with", step.name);
    if (known.on_graph) result = known.on_graph(result, samples, step.options);
  }
  return result;
}

// Whether its last step gives the quantized network. Error if another one does.
bool ends_on_graph(const Recipe& recipe) {
  for (size_t i = 0; i < recipe.steps.size(); ++i)
    if (find_step(recipe.steps[i].name).is_last) {
      OCTET_CHECK(i + 1 == recipe.steps.size() && recipe.ranges.empty(), invalid_argument,
                  "recipe: behind the step '{}' there are {}; expected it to be the last, without "
                  "ranges",
                  recipe.steps[i].name, recipe.ranges.empty() ? "others" : "ranges");
      return true;
    }
  return false;
}

// Of a network whose linear layers alone have codes: weights in blocks.
ConversionReport report_of_blocks(const Graph& graph) {
  ConversionReport report;
  for (const graph::Node& node : graph.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    const bool quantized = node.op == "linear_blocks";
    report.entries.push_back({node_name(graph, node), node.op, quantized,
                              quantized ? "" : "only linear layers have weights in blocks"});
  }
  return report;
}

std::shared_ptr<ObservedGraphModule> prepared_with_ranges(const Graph& graph, const Recipe& recipe,
                                                          const Batches& samples) {
  auto prepared = prepare_fx(after_graph_steps(graph, recipe, samples), recipe.mapping,
                             {.skip = recipe.skip, .backend = get_backend_config(recipe.backend)});
  set_ranges(*prepared, recipe);
  const auto observers = activation_observers(*prepared);
  const bool missing = std::any_of(observers.begin(), observers.end(),
                                   [](const auto& o) { return o.second->empty(); });
  if (missing) {
    const FixedWeights fixed(*prepared);
    for (const std::vector<Tensor>& batch : samples) prepared->forward(batch);
  }
  return prepared;
}

}  // namespace

std::vector<RecipeStep> recipe_steps() {
  std::lock_guard lock(g_steps_mutex);
  return {known_steps().begin(), known_steps().end()};
}

void register_recipe_step(RecipeStep step) {
  std::lock_guard lock(g_steps_mutex);
  for (const RecipeStep& known : known_steps())
    OCTET_CHECK(known.name != step.name, invalid_argument,
                "register_recipe_step: there is a step '{}' already", step.name);
  known_steps().push_back(std::move(step));
}

std::string Recipe::to_json() const {
  OrderedJson json{{"format", kFormat}, {"version", kVersion}, {"backend", backend}};
  json["mapping"] = OrderedJson::parse(mapping.to_json());
  json["skip"] = skip;
  json["steps"] = OrderedJson::array();
  for (const Step& step : steps)
    json["steps"].push_back({{"name", step.name}, {"options", attrs_to_json(step.options)}});
  json["samples"] = {{"count", samples.count},
                     {"batch", samples.batch},
                     {"without_every", samples.without_every},
                     {"digest", samples.digest}};
  json["ranges"] = OrderedJson::object();
  for (const auto& [value, range] : ranges)
    json["ranges"][value] = {
        {"scale", range.scale}, {"zero_point", range.zero_point}, {"from", range.from}};
  return json.dump(1) + "\n";
}

Recipe Recipe::from_json(std::string_view text) {
  const std::string who = "recipe";
  const JsonDocument json_document = parse_json(text, who);
  const Json& json = *json_document;
  check_keys(
      json, {"format", "version", "backend", "mapping", "skip", "steps", "samples", "ranges"}, who);
  OCTET_CHECK(json.contains("format") && json["format"] == kFormat, invalid_argument,
              "{}: 'format' is not \"{}\"", who, kFormat);
  const int64_t version =
      json.contains("version") ? integer_of(json["version"], who + ": 'version'") : 0;
  OCTET_CHECK(version == kVersion, unsupported, "{}: version {}; this octet reads version {}", who,
              version, kVersion);
  Recipe recipe;
  if (json.contains("backend")) recipe.backend = text_of(json["backend"], who + ": 'backend'");
  get_backend_config(recipe.backend);
  if (json.contains("mapping")) recipe.mapping = QConfigMapping::from_json(json["mapping"].dump());
  if (json.contains("samples")) {
    const std::string where = who + ": 'samples'";
    const Json& samples = json["samples"];
    check_keys(samples, {"count", "batch", "without_every", "digest"}, where);
    for (const auto& [key, number] : {std::pair{"count", &recipe.samples.count},
                                      {"batch", &recipe.samples.batch},
                                      {"without_every", &recipe.samples.without_every}}) {
      if (!samples.contains(key)) continue;
      *number = integer_of(samples[key], where);
      OCTET_CHECK(*number >= 0, invalid_argument, "{}: '{}' is {}", where, key, *number);
    }
    if (samples.contains("digest")) recipe.samples.digest = text_of(samples["digest"], where);
  }
  if (json.contains("skip"))
    for (const Json& name : list_of(json["skip"], who + ": 'skip'"))
      recipe.skip.push_back(text_of(name, who + ": 'skip'"));
  if (json.contains("steps"))
    for (const Json& step : list_of(json["steps"], who + ": 'steps'")) {
      check_keys(step, {"name", "options"}, who + ": 'steps'");
      OCTET_CHECK(step.contains("name"), invalid_argument, "{}: a step has no name", who);
      Step made{text_of(step["name"], who + ": 'steps'")};
      find_step(made.name);
      if (step.contains("options"))
        made.options = options_from_json(step["options"], who + ": options of " + made.name);
      recipe.steps.push_back(std::move(made));
    }
  if (json.contains("ranges")) {
    OCTET_CHECK(json["ranges"].is_object(), invalid_argument,
                "{}: 'ranges': expected an object, got {}", who, brief(json["ranges"]));
    for (const auto& [value, range] : json["ranges"].items()) {
      const std::string where = fmt::format("{}: the range of '{}'", who, value);
      check_keys(range, {"scale", "zero_point", "from"}, where);
      OCTET_CHECK(range.contains("scale") && range.contains("zero_point"), invalid_argument,
                  "{} has no scale or no zero_point", where);
      Range& made = recipe.ranges[value];
      made.scale = number_of(range["scale"], where);
      made.zero_point = integer_of(range["zero_point"], where);
      if (range.contains("from")) made.from = text_of(range["from"], where);
    }
  }
  return recipe;
}

void calibrate(const Graph& graph, Recipe& recipe, const Batches& samples, bool choose) {
  OCTET_CHECK(!samples.empty(), invalid_argument,
              "calibrate: there are no samples; give at least one batch");
  if (!ends_on_graph(recipe)) {
    auto prepared = prepared_with_ranges(graph, recipe, samples);
    if (choose) choose_ranges(*prepared, samples);
    for (const auto& [path, observer] : activation_observers(*prepared)) {
      if (dynamic_cast<FixedQParamsObserver*>(observer)) continue;
      const QParams q = observer->calculate_qparams();
      const ObserverFactory from(observer->type_name(), observer->options());
      recipe.ranges[observer->label()] = {q.scales[0], static_cast<int64_t>(q.zero_points[0]),
                                          to_string(from)};
    }
  }
  recipe.samples.count = count_of(samples);
  recipe.samples.batch = count_of({samples[0]});
  recipe.samples.digest = digest_of(samples);
}

void keep_ranges(const Graph& graph, Recipe& recipe, const Recipe& from) {
  const auto dtypes = [&](const Recipe& r) {
    std::map<std::string, DType> all;  // by label
    const auto prepared =
        prepare_fx(graph, r.mapping, {.skip = r.skip, .backend = get_backend_config(r.backend)});
    for (const auto& [path, observer] : activation_observers(*prepared))
      if (!dynamic_cast<FixedQParamsObserver*>(observer))
        all[observer->label()] = observer->options().dtype;
    return all;
  };
  const std::map<std::string, DType> now = dtypes(recipe), before = dtypes(from);
  recipe.ranges.clear();
  for (const auto& [value, range] : from.ranges)
    if (const auto a = now.find(value), b = before.find(value);
        a != now.end() && b != before.end() && a->second == b->second)
      recipe.ranges[value] = range;
}

std::shared_ptr<ObservedGraphModule> prepare(const Graph& graph, const Recipe& recipe,
                                             const Batches& samples, StepTeam* team) {
  auto prepared = prepared_with_ranges(graph, recipe, samples);
  const Graph float_graph = recipe.steps.empty() ? Graph() : prepared->watched().graph;
  for (const Recipe::Step& step : recipe.steps)
    if (const RecipeStep known = find_step(step.name); known.on_prepared)
      known.on_prepared(*prepared, samples, step.options, float_graph, team);
  return prepared;
}

Graph apply(const Graph& graph, const Recipe& recipe, const Batches& samples,
            ConversionReport* report, StepTeam* team) {
  const bool on_graph = ends_on_graph(recipe);
  Graph result = on_graph ? after_graph_steps(graph, recipe, samples)
                          : convert_fx(prepare(graph, recipe, samples, team), report)->graph();
  if (on_graph && report) *report = report_of_blocks(result);
  result.metadata["quantization"] = on_graph ? "weight-only" : "static";
  result.metadata["recipe"] = recipe.to_json();
  return result;
}

namespace {
// The steps on the float graph; none where there is no recipe that can be read.
Recipe float_steps_of(const Graph& quantized) {
  Recipe found;
  const auto text = quantized.metadata.find("recipe");
  if (text == quantized.metadata.end()) return found;
  try {
    for (const Recipe::Step& step : Recipe::from_json(text->second).steps)
      if (const RecipeStep known = find_step(step.name); known.on_graph && !known.is_last)
        found.steps.push_back(step);
  } catch (const Error&) {  // of another version, or with steps of another program's own
    found.steps.clear();
  }
  return found;
}
}  // namespace

bool has_float_counterpart(const Graph& quantized) {
  return !float_steps_of(quantized).steps.empty();
}

Graph float_counterpart(const Graph& float_graph, const Graph& quantized, const Batches& samples) {
  try {
    return after_graph_steps(float_graph, float_steps_of(quantized), samples);
  } catch (const Error&) {  // another network than the recipe's
    return float_graph;
  }
}

std::string digest_of(const Batches& samples) {
  Digest digest;
  const size_t inputs = samples.empty() ? 0 : samples[0].size();
  for (size_t i = 0; i < inputs; ++i)
    for (const std::vector<Tensor>& batch : samples) {
      const Tensor dense = batch.at(i).contiguous();
      digest.add(dense.raw_data(), static_cast<size_t>(dense.nbytes()));
    }
  return digest.text();
}

}  // namespace octet::quant
