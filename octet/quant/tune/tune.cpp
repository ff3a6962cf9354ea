#include "octet/quant/tune/tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/digest.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/debug/detections.h"
#include "octet/debug/metrics.h"
#include "octet/debug/sensitivity.h"
#include "octet/nn/loss.h"
#include "octet/ops/functional.h"
#include "octet/quant/tune/doctor.h"
#include "octet/runtime/program.h"

namespace octet::quant {
namespace {

using graph::Graph;
using Clock = std::chrono::steady_clock;

constexpr size_t kMostPriced = 16;   // layers whose price is measured
constexpr int64_t kHoldOutEach = 4;  // samples, of those that fit, by which cures are judged
constexpr double kSameCost = 0.02;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// -- metrics --------------------------------------------------------------------------------------

debug::ErrorStatistics error_of(const Batches& expected, const Batches& got) {
  debug::ErrorStatistics error;
  for (size_t b = 0; b < expected.size(); ++b)
    for (size_t i = 0; i < expected[b].size(); ++i)
      if (is_floating(expected[b][i].dtype())) error.add(expected[b][i], got[b][i]);
  return error;
}

double agreement_of(const Batches& expected, const Batches& got,
                    debug::Share (*of)(const Tensor&, const Tensor&)) {
  debug::Share share;
  for (size_t b = 0; b < expected.size(); ++b) share += of(expected[b].at(0), got[b].at(0));
  return share.value();
}

// Of each sample's mask; where both are empty they agree.
double mean_overlap(const Batches& x, const Batches& y) {
  double sum = 0;
  int64_t count = 0;
  for (size_t b = 0; b < x.size(); ++b)
    for (int64_t n = 0; n < x[b].at(0).size(0); ++n, ++count) {
      const debug::Share share =
          debug::mask_overlap(x[b][0].slice(0, n, n + 1), y[b].at(0).slice(0, n, n + 1));
      sum += share.count ? share.value() : 1;
    }
  return sum / static_cast<double>(count);
}

// Where a detector's results have its scores and its boxes.
struct DetectorOutputs {
  size_t scores = 0, corners = 0;
  bool background = false;
};

// Boxes: the result with rows of 4 numbers, of whose number there is another result, the scores.
// Where all scores of a box sum to 1, their first is that of no thing (SSD).
DetectorOutputs detector_outputs(const std::vector<Tensor>& results) {
  const auto is_rows = [](const Tensor& t) { return t.dtype() == DType::float32 && t.dim() == 3; };
  for (size_t c = 0; c < results.size(); ++c)
    for (size_t s = 0; s < results.size(); ++s) {
      const Tensor &corners = results[c], &scores = results[s];
      if (s == c || !is_rows(corners) || !is_rows(scores) || corners.size(2) != 4 ||
          scores.size(1) != corners.size(1))
        continue;
      const std::vector<float> sums = functional::sum(scores.detach(), {2}).to_vector<float>();
      const bool background = scores.size(2) > 1 && std::ranges::all_of(sums, [](float sum) {
                                return std::abs(sum - 1) < 1e-3F;
                              });
      return {s, c, background};
    }
  OCTET_FAIL(invalid_argument,
             "metric: the network has no scores (N, boxes, categories) beside corners (N, boxes, "
             "4); give a function of your own, or --metric-command");
}

// Detections of both networks in all pictures, down to `min_score` in `got`.
using Found = std::vector<debug::Detections>;
std::pair<Found, Found> detections_of(const Batches& expected, const Batches& got,
                                      float min_score) {
  const DetectorOutputs at = detector_outputs(expected.at(0));
  const auto all = [&](const Batches& results, float score) {
    Found found;
    for (const std::vector<Tensor>& batch : results)
      for (debug::Detections& picture :
           debug::detections(batch.at(at.scores), batch.at(at.corners),
                             {.min_score = score, .background = at.background}))
        found.push_back(std::move(picture));
    return found;
  };
  return {all(expected, debug::DetectionOptions().min_score), all(got, min_score)};
}

// What both find over what one of them finds.
double shared_detections(const Batches& expected, const Batches& got) {
  const auto [x, y] = detections_of(expected, got, debug::DetectionOptions().min_score);
  debug::Share share = debug::found_again(x, y);
  for (const debug::Detections& picture : y) share.count += std::ssize(picture);
  share.count -= share.hits;
  return share.value();
}

double average_precision(const Batches& expected, const Batches& got) {
  constexpr float kLeastScore = 0.05F;  // detections below it change no precision that counts
  const auto [x, y] = detections_of(expected, got, kLeastScore);
  return debug::mean_average_precision(x, y);
}

const std::vector<TuneMetric>& named_metrics() {
  static const std::vector<TuneMetric> all = {
      {"cosine",
       [](const Batches& x, const Batches& y) { return error_of(x, y).cosine_similarity(); }},
      {"sqnr", [](const Batches& x, const Batches& y) { return error_of(x, y).sqnr(); }},
      {"agreement",
       [](const Batches& x, const Batches& y) {
         return agreement_of(
             x, y, [](const Tensor& a, const Tensor& b) { return debug::argmax_agreement(a, b); });
       }},
      {"sequence",
       [](const Batches& x, const Batches& y) {
         return agreement_of(x, y, [](const Tensor& a, const Tensor& b) {
           return debug::sequence_agreement(a, b);
         });
       }},
      {"characters",
       [](const Batches& x, const Batches& y) {
         return agreement_of(x, y, [](const Tensor& a, const Tensor& b) {
           return debug::character_agreement(a, b);
         });
       }},
      {"iou", mean_overlap},
      {"detections", shared_detections},
      {"map", average_precision}};
  return all;
}

// -- cost -----------------------------------------------------------------------------------------

// The first sample of a batch, where the network takes any number of them.
std::vector<Tensor> one_sample(const Graph& graph, const std::vector<Tensor>& batch) {
  std::vector<Tensor> one;
  for (size_t i = 0; i < batch.size(); ++i) {
    const TensorType& type = graph.type(graph.inputs()[i]);
    if (type.dims.empty() || type.dims[0].known()) return batch;
    one.push_back(batch[i].slice(0, 0, 1).contiguous());
  }
  return one;
}

// Time of a graph over that of the float one, in turns: least of each, so that what else runs on
// the machine counts little.
double relative_time(const runtime::Program& reference, const Graph& graph,
                     const std::vector<Tensor>& inputs) {
  const runtime::Program program = runtime::compile(graph);
  const auto seconds = [&](const runtime::Program& p) {
    const auto start = Clock::now();
    p.run(inputs);
    return seconds_since(start);
  };
  seconds(reference);
  seconds(program);
  double least[2] = {INFINITY, INFINITY};
  const auto start = Clock::now();
  for (int i = 0; i < 5 || (i < 200 && seconds_since(start) < 0.2); ++i) {
    least[0] = std::min(least[0], seconds(reference));
    least[1] = std::min(least[1], seconds(program));
  }
  return std::max(least[1], 1e-9) / std::max(least[0], 1e-9);
}

// -- what is on disk ------------------------------------------------------------------------------

struct PricedLayer {
  std::string name;
  double share = 0, price = 0;  // of the noise; of the cost
};

// Trials and what else was measured. All decisions are made from what is here.
class TuneState {
 public:
  TuneState(const std::filesystem::path& directory, std::string of, bool resume)
      : directory_(directory), of_(std::move(of)), start_(Clock::now()) {
    if (directory_.empty()) return;
    std::filesystem::create_directories(directory_);
    if (resume && std::filesystem::exists(file()))
      read();
    else
      write();
  }

  double seconds() const { return before_ + seconds_since(start_); }

  struct Entry {
    TuneTrial trial;
    Recipe recipe;
  };
  const Entry* find(const std::string& name) const {
    for (const Entry& e : entries_)
      if (e.trial.name == name) return &e;
    return nullptr;
  }
  const Entry& add(TuneTrial trial, Recipe recipe) {
    if (!directory_.empty()) write_file_atomically(recipe_file(entries_.size()), recipe.to_json());
    entries_.push_back({std::move(trial), std::move(recipe)});
    write();
    return entries_.back();
  }

  const std::optional<std::vector<PricedLayer>>& layers() const { return layers_; }
  void set_layers(std::vector<PricedLayer> layers) {
    layers_ = std::move(layers);
    write();
  }

 private:
  std::filesystem::path file() const { return directory_ / "state.json"; }
  std::filesystem::path recipe_file(size_t number) const {
    return directory_ / fmt::format("{:03}.json", number);
  }

  void write() const {
    if (directory_.empty()) return;
    OrderedJson json{{"of", of_}, {"seconds", seconds()}, {"trials", OrderedJson::array()}};
    for (const Entry& e : entries_)
      json["trials"].push_back({{"name", e.trial.name},
                                {"score", e.trial.score},
                                {"cost", e.trial.cost},
                                {"left_float", e.trial.left_float}});
    if (layers_) {
      json["layers"] = OrderedJson::array();
      for (const PricedLayer& l : *layers_)
        json["layers"].push_back({{"name", l.name}, {"share", l.share}, {"price", l.price}});
    }
    write_file_atomically(file(), json.dump(1) + "\n");
  }

  void read() {
    const JsonDocument json_document = read_json(file());
    const Json& json = *json_document;
    OCTET_CHECK(json.is_object() && json.contains("of") && json["of"] == of_, invalid_argument,
                "{}: it is the work on another network, other samples or options; name another "
                "directory, or start anew",
                file().string());
    try {
      before_ = json.at("seconds").get<double>();
      for (const Json& t : json.at("trials")) {
        TuneTrial trial{.name = t.at("name").get<std::string>(),
                        .score = t.at("score").get<double>(),
                        .cost = t.at("cost").get<double>(),
                        .left_float = t.at("left_float").get<std::vector<std::string>>()};
        const Recipe recipe = Recipe::from_json(read_file(recipe_file(entries_.size())));
        entries_.push_back({std::move(trial), recipe});
      }
      if (json.contains("layers")) {
        layers_.emplace();
        for (const Json& l : json.at("layers"))
          layers_->push_back({l.at("name").get<std::string>(), l.at("share").get<double>(),
                              l.at("price").get<double>()});
      }
    } catch (const Json::exception& e) {
      OCTET_FAIL(corrupt, "{}: {}", file().string(), e.what());
    }
  }

  const std::filesystem::path directory_;
  const std::string of_;
  const Clock::time_point start_;
  double before_ = 0;  // seconds
  std::vector<Entry> entries_;
  std::optional<std::vector<PricedLayer>> layers_;
};

// -- the ladder -----------------------------------------------------------------------------------

QConfigMapping histograms() {
  QConfig q = get_default_qconfig("native");
  q.activation = ObserverFactory("HistogramObserver").with_args(q.activation.options());
  return q;
}

class Tuner {
 public:
  Tuner(const Graph& graph, const TuneData& data, const TuneOptions& options)
      : graph_(graph),
        data_(data),
        options_(options),
        reference_(runtime::compile(graph)),
        state_(options.state, description(), options.resume) {
    for (const std::vector<Tensor>& batch : data.judge) expected_.push_back(reference_.run(batch));
    result_.float_score = options.metric.score(expected_, expected_);
    result_.bar = std::isnan(options.target)
                      ? result_.float_score - options.max_drop * std::abs(result_.float_score)
                      : options.target;
    OCTET_CHECK(std::isfinite(result_.bar), invalid_argument,
                "tune: the float network's {} is {}, from which no drop can be told; give a target",
                options.metric.name, result_.float_score);
  }

  TuneResult run() {
    try_ranges();
    if (!done()) try_steps();
    if (!done()) try_rounding();
    if (!done()) try_floats();
    if (!done()) try_cures();
    OCTET_CHECK(!result_.trials.empty(), internal, "tune: no trial could be made: {}",
                fmt::join(result_.notes, "; "));
    const size_t best = best_index();
    result_.best_index = best;
    result_.recipe = recipes_[best];
    // Whether this run made it or one before that was cut off.
    result_.graph =
        kept_ == best ? std::move(kept_graph_) : apply(graph_, recipes_[best], data_.fit);
    if (options_.on_best) options_.on_best(result_.graph, result_.recipe);
    return std::move(result_);
  }

 private:
  std::string description() const {
    std::vector<Tensor> constants;
    for (const graph::Node& node : graph_.nodes())
      if (node.kind == graph::NodeKind::constant) constants.push_back(node.value);
    const std::string text =
        fmt::format("{} {} {} {} {} {} {} {} {} {} {}", graph::print(graph_),
                    digest_of({constants}), digest_of(data_.fit), digest_of(data_.judge),
                    options_.metric.name, options_.target, options_.max_drop, options_.slowest,
                    options_.mapping.to_json(), fmt::join(options_.skip, ","), options_.backend);
    return Digest().add(text).text();
  }

  bool is_late() const { return state_.seconds() > 60 * options_.minutes; }
  bool done() const {
    return is_late() || (!result_.trials.empty() && result_.trials[best_index()].above);
  }

  double cost_of(const Graph& graph) const {
    return options_.cost ? options_.cost(graph)
                         : relative_time(reference_, graph, one_sample(graph_, data_.judge[0]));
  }

  // Of the trials so far.
  size_t best_index() const {
    size_t best = 0;
    for (size_t i = 1; i < result_.trials.size(); ++i)
      if (is_better(result_.trials[i], result_.trials[best])) best = i;
    return best;
  }
  static bool is_better(const TuneTrial& a, const TuneTrial& b) {
    if (a.above != b.above) return a.above;
    if (!a.above) return a.score > b.score;
    if (a.cost < b.cost * (1 - kSameCost)) return true;
    if (b.cost < a.cost * (1 - kSameCost)) return false;
    return a.score > b.score;
  }

  // Makes a network and judges it, unless that is on disk. Its number; nullopt, with a note, if it
  // cannot be made.
  std::optional<size_t> attempt(const std::string& name, Recipe recipe, bool choose,
                                const std::vector<std::string>& left_float = {}) {
    if (const TuneState::Entry* known = state_.find(name)) return keep(*known, nullptr);
    Graph made;
    try {
      recipe.samples.without_every = data_.without_every;
      calibrate(graph_, recipe, data_.fit, choose);
      made = apply(graph_, recipe, data_.fit);
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("{}: {}", name, e.what()));
      return std::nullopt;
    }
    const runtime::Program program = runtime::compile(made);
    Batches got;
    for (const std::vector<Tensor>& batch : data_.judge) got.push_back(program.run(batch));
    TuneTrial trial{.name = name,
                    .score = std::clamp(options_.metric.score(expected_, got), -1e300, 1e300),
                    .cost = cost_of(made),
                    .left_float = left_float};
    OCTET_CHECK(!std::isnan(trial.score), invalid_argument, "tune: the {} of '{}' is no number",
                options_.metric.name, name);
    return keep(state_.add(std::move(trial), std::move(recipe)), &made);
  }

  size_t keep(const TuneState::Entry& entry, Graph* made) {
    const size_t number = result_.trials.size();
    result_.trials.push_back(entry.trial);
    result_.trials.back().above = entry.trial.score >= result_.bar;
    recipes_.push_back(entry.recipe);
    if (made && best_index() == number) {
      kept_ = number;
      kept_graph_ = std::move(*made);
      if (options_.on_best) options_.on_best(kept_graph_, entry.recipe);
    }
    if (options_.on_trial) options_.on_trial(result_.trials.back());
    return number;
  }

  void try_ranges() {
    const bool chosen = options_.mapping.global_qconfig().has_value();
    Recipe recipe{.mapping = chosen ? options_.mapping : QConfigMapping(get_default_qconfig()),
                  .backend = options_.backend,
                  .skip = options_.skip};
    attempt("calibrated", recipe, false);
    if (!is_late()) attempt("ranges", recipe, true);
    if (chosen || done()) return;
    recipe.mapping = histograms();
    attempt("histograms", recipe, false);
  }

  // On each kind of ranges, as what one needs may harm another.
  void try_steps() {
    std::vector<size_t> bases(result_.trials.size());
    std::iota(bases.begin(), bases.end(), size_t{0});
    for (const RecipeStep& step : recipe_steps())
      for (size_t& base : bases) {
        if (done()) return;
        if (!step.is_tried || (step.applies && !step.applies(recipes_[base], graph_))) continue;
        Recipe recipe = recipes_[base];
        recipe.steps.push_back({step.name});
        // Those of a network with other weights are others.
        if (step.on_graph) recipe.ranges.clear();
        const std::string& name = result_.trials[base].name;
        const bool choose = step.on_graph && name.starts_with("ranges");
        const auto tried = attempt(name + ", " + step.name, recipe, choose);
        if (tried && is_better(result_.trials[*tried], result_.trials[base])) base = *tried;
      }
  }

  // Whether weights are to have fewer than 8 bits: with 8, their rounding is the least of the
  // noise.
  bool has_few_bits() const {
    const std::optional<QConfig> all = options_.mapping.global_qconfig();
    if (!all || !all->weight) return false;
    const CodeRange codes = code_range(all->weight.options());
    return codes.quant_max - codes.quant_min < 128;
  }

  // The best with its rounding learned layer by layer, and block by block: with more and more
  // iterations, while the time that is left is some times what the last ones took.
  void try_rounding() {
    if (result_.trials.empty() || !has_few_bits()) return;
    constexpr int64_t kFirst = 100, kMore = 4, kMost = 400;
    constexpr double kShare = 2;
    Recipe by_layer = recipes_[best_index()];
    by_layer.steps.push_back({"adaround"});
    attempt(result_.trials[best_index()].name + ", adaround", by_layer, false);
    const size_t base = best_index();
    double last = 0;
    for (int64_t iterations = kFirst; iterations <= kMost; iterations *= kMore) {
      const double before = state_.seconds(), left = 60 * options_.minutes - before;
      if (done() || kShare * kMore * last > left) return;
      Recipe recipe = recipes_[base];
      recipe.steps.push_back({"brecq", {{"iterations", iterations}}});
      const std::string& name = result_.trials[base].name;
      attempt(fmt::format("{}, brecq of {}", name, iterations), recipe, false);
      last = state_.seconds() - before;
    }
  }

  // What the doctor prescribes for the best of those without steps (each of its trials would do
  // these again), and the same with biases corrected.
  void try_cures() {
    std::optional<size_t> base;
    for (size_t i = 0; i < result_.trials.size(); ++i)
      if (recipes_[i].steps.empty() &&
          (!base || is_better(result_.trials[i], result_.trials[*base])))
        base = i;
    if (!base) return;
    const std::string name = result_.trials[*base].name + ", cures";
    const TuneState::Entry* known = state_.find(name);
    std::optional<Recipe> recipe = known ? std::optional(known->recipe) : cured(*base);
    if (!recipe) return;
    const size_t skipped = options_.skip.size();  // these come first
    const std::vector<std::string> left_float(
        recipe->skip.begin() + static_cast<std::ptrdiff_t>(std::min(skipped, recipe->skip.size())),
        recipe->skip.end());
    attempt(name, *recipe, false, left_float);
    if (done()) return;
    recipe->steps.push_back({"bias_correction"});
    attempt(name + ", bias_correction", *recipe, false, left_float);
  }

  // None if nothing helps, or if it would be too slow.
  std::optional<Recipe> cured(size_t base) {
    try {
      DoctorReport r =
          doctor(graph_, apply(graph_, recipes_[base], data_.fit), data_.fit, {},
                 {.seconds = 60 * options_.minutes - state_.seconds(), .hold_out = kHoldOutEach});
      if (!r.cured || r.data) return std::nullopt;
      if (cost_of(r.graph) > options_.slowest * result_.trials[base].cost) {
        result_.notes.push_back(fmt::format("{}, cures: slower than {} times all in 8 bits",
                                            result_.trials[base].name, options_.slowest));
        return std::nullopt;
      }
      return std::move(r.recipe);
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("{}, cures: {}", result_.trials[base].name, e.what()));
      return std::nullopt;
    }
  }

  // The recipe with these layers left float: with its ranges, as far as there are observers for
  // them. Others are chosen as its mapping says.
  Recipe leaving(const Recipe& base, const std::vector<std::string>& layers) const {
    Recipe recipe = base;
    recipe.skip.insert(recipe.skip.end(), layers.begin(), layers.end());
    keep_ranges(graph_, recipe, base);
    return recipe;
  }

  // Layers of the base by the noise that leaving them float takes away, for what it costs. None if
  // the time is up before all are priced.
  std::optional<std::vector<PricedLayer>> price_layers(const Recipe& base, double base_cost) {
    // Noise is that of the float network's own weights: steps write rounded ones in their place.
    Recipe plain = base;
    std::erase_if(plain.steps, [](const Recipe::Step& step) {
      const std::vector<RecipeStep> known = recipe_steps();
      return std::any_of(known.begin(), known.end(),
                         [&](const RecipeStep& k) { return k.name == step.name && k.on_prepared; });
    });
    const auto prepared = prepare(graph_, plain, data_.fit);
    debug::Sensitivity found;
    try {
      found =
          debug::sensitivity(*prepared, data_.fit, {.method = debug::SensitivityMethod::estimate});
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("noise of layers, estimated: {}", e.what()));
      found = debug::sensitivity(*prepared, {data_.fit[0]},
                                 {.method = debug::SensitivityMethod::alone});
    }
    std::vector<PricedLayer> layers;
    for (const debug::LayerSensitivity& s : found.layers)
      if (!s.left_float && s.op != "input") layers.push_back({s.name, s.share, 0});
    std::stable_sort(layers.begin(), layers.end(),
                     [](const auto& a, const auto& b) { return a.share > b.share; });
    if (layers.size() > kMostPriced) layers.resize(kMostPriced);
    for (PricedLayer& layer : layers) {
      if (is_late()) return std::nullopt;
      Recipe recipe = leaving(plain, {layer.name});  // what weights are costs no time
      calibrate(graph_, recipe, {data_.fit[0]});
      const double cost = cost_of(apply(graph_, recipe, data_.fit));
      layer.price = std::max(cost - base_cost, 1e-3 * base_cost);
    }
    std::stable_sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) {
      return a.share / a.price > b.share / b.price;
    });
    return layers;
  }

  void try_floats() {
    if (result_.trials.empty()) return;
    const size_t base = best_index();
    const double base_cost = result_.trials[base].cost;
    if (!state_.layers()) {
      const auto priced = price_layers(recipes_[base], base_cost);
      if (!priced) return;
      state_.set_layers(*priced);
    }
    std::vector<std::string> layers;
    double expected = base_cost;
    for (const PricedLayer& layer : *state_.layers()) {
      if (expected + layer.price > options_.slowest * base_cost) continue;
      expected += layer.price;
      layers.push_back(layer.name);
    }
    const auto with = [&](size_t count) -> std::optional<bool> {  // whether it is above the bar
      const std::vector<std::string> chosen(layers.begin(),
                                            layers.begin() + static_cast<std::ptrdiff_t>(count));
      const auto number = attempt(fmt::format("{}, {} layer{} float", result_.trials[base].name,
                                              count, count == 1 ? "" : "s"),
                                  leaving(recipes_[base], chosen), false, chosen);
      return number ? std::optional(result_.trials[*number].above) : std::nullopt;
    };
    size_t enough = 0, few = 0;
    for (size_t count = 1; !layers.empty() && !is_late(); count *= 2) {
      count = std::min(count, layers.size());
      if (with(count).value_or(false)) {
        enough = count;
        break;
      }
      few = count;
      if (count == layers.size()) break;
    }
    while (enough > few + 1 && !is_late()) {
      const size_t middle = (enough + few) / 2;
      (with(middle).value_or(false) ? enough : few) = middle;
    }
  }

  const Graph& graph_;
  const TuneData& data_;
  const TuneOptions& options_;
  const runtime::Program reference_;
  TuneState state_;
  Batches expected_;
  TuneResult result_;
  std::vector<Recipe> recipes_;  // by trial
  size_t kept_ = SIZE_MAX;       // the trial of kept_graph_
  Graph kept_graph_;
};

}  // namespace

std::vector<size_t> TuneResult::pareto() const {
  std::vector<size_t> kept;
  for (size_t i = 0; i < trials.size(); ++i) {
    const bool beaten = std::any_of(trials.begin(), trials.end(), [&](const TuneTrial& other) {
      return other.score >= trials[i].score && other.cost <= trials[i].cost &&
             (other.score > trials[i].score || other.cost < trials[i].cost);
    });
    if (!beaten) kept.push_back(i);
  }
  std::stable_sort(kept.begin(), kept.end(),
                   [&](size_t a, size_t b) { return trials[a].cost < trials[b].cost; });
  return kept;
}

TuneMetric tune_metric(std::string_view name) {
  for (const TuneMetric& metric : named_metrics())
    if (metric.name == name) return metric;
  const std::vector<std::string> names = tune_metric_names();
  OCTET_FAIL(invalid_argument, "unknown metric '{}'{} (known: {})", name, did_you_mean(name, names),
             fmt::join(names, ", "));
}

std::vector<std::string> tune_metric_names() {
  std::vector<std::string> names;
  for (const TuneMetric& metric : named_metrics()) names.push_back(metric.name);
  return names;
}

TuneMetric top_k_metric(int64_t k, std::vector<Tensor> labels) {
  return {fmt::format("top-{}", k),
          [k, labels = std::move(labels)](const Batches&, const Batches& got) {
            OCTET_CHECK(labels.size() == got.size(), invalid_argument,
                        "top_k_metric: labels of {} batches, results of {}", labels.size(),
                        got.size());
            debug::Share share;
            for (size_t b = 0; b < got.size(); ++b)
              share += debug::top_k(got[b].at(0), labels[b], k);
            return share.value();
          }};
}

TuneMetric perplexity_metric(std::vector<Tensor> labels) {
  return {
      "perplexity", [labels = std::move(labels)](const Batches&, const Batches& got) {
        OCTET_CHECK(labels.size() == got.size(), invalid_argument,
                    "perplexity_metric: labels of {} batches, results of {}", labels.size(),
                    got.size());
        double sum = 0, count = 0;
        for (size_t b = 0; b < got.size(); ++b) {
          const Tensor& scores = got[b].at(0);
          const Tensor rows = scores.reshape({-1, scores.size(scores.dim() - 1)});
          sum +=
              functional::cross_entropy(rows, labels[b].reshape({-1}), {.reduction = "sum"}).item();
          count += static_cast<double>(labels[b].numel());
        }
        return -std::exp(sum / std::max(1.0, count));
      }};
}

TuneResult tune(const Graph& graph, const TuneData& data, const TuneOptions& options) {
  OCTET_CHECK(!data.fit.empty() && !data.judge.empty(), invalid_argument,
              "tune: {} batches to fit with and {} to judge by; expected one or more of each",
              data.fit.size(), data.judge.size());
  OCTET_CHECK(options.metric.score, invalid_argument, "tune: the metric has no function");
  return Tuner(graph, data, options).run();
}

}  // namespace octet::quant
