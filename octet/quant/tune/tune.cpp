#include "octet/quant/tune/tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
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
#include "octet/quant/tune/precision.h"
#include "octet/runtime/program.h"

namespace octet::quant {
namespace {

using graph::Graph;
using Clock = std::chrono::steady_clock;

constexpr size_t kMostPriced = 16;  // layers whose price is measured
constexpr int kMostExchanges = 4;
constexpr std::ptrdiff_t kNoiseBatches = 16;  // that the noise of layers is estimated on
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

template <typename Of>
double agreement_of(const Batches& expected, const Batches& got, Of&& of) {
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
      words_metric(-1),
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

// -- size -----------------------------------------------------------------------------------------

// Bytes of all constants; codes of fewer than 5 bits two to a byte, as .octet files have them.
double bytes_of_constants(const Graph& graph) {
  double bytes = 0;
  for (const graph::Node& node : graph.nodes()) {
    if (node.kind != graph::NodeKind::constant) continue;
    const Tensor& t = node.value;
    const bool is_signed = t.dtype() == DType::qint8;
    bool half = is_signed || t.dtype() == DType::quint8;
    if (half) {
      const Tensor codes = t.int_repr().to(DType::int32);
      half = std::ranges::all_of(codes.to_vector<int32_t>(), [&](int32_t q) {
        return is_signed ? q >= -8 && q <= 7 : q <= 15;
      });
    }
    bytes += static_cast<double>(t.nbytes()) / (half ? 2 : 1);
  }
  return bytes;
}

// -- what is on disk ------------------------------------------------------------------------------

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

  // What layers could have instead, priced; and the layers that have weights of 4 bits.
  const std::optional<std::vector<PrecisionChange>>& changes() const { return changes_; }
  void set_changes(std::vector<PrecisionChange> changes) {
    changes_ = std::move(changes);
    write();
  }
  const std::optional<std::vector<std::string>>& narrowed() const { return narrowed_; }
  void set_narrowed(std::vector<std::string> layers) {
    narrowed_ = std::move(layers);
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
                                {"size", e.trial.size},
                                {"left_float", e.trial.left_float},
                                {"in_16_bits", e.trial.in_16_bits}});
    if (changes_) {
      json["changes"] = OrderedJson::array();
      for (const PrecisionChange& c : *changes_)
        json["changes"].push_back({{"layer", c.layer},
                                   {"to", static_cast<int>(c.to)},
                                   {"gain", c.gain},
                                   {"cost", c.cost}});
    }
    if (narrowed_) json["narrowed"] = *narrowed_;
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
                        .size = t.at("size").get<double>(),
                        .left_float = t.at("left_float").get<std::vector<std::string>>(),
                        .in_16_bits = t.at("in_16_bits").get<std::vector<std::string>>()};
        const Recipe recipe = Recipe::from_json(read_file(recipe_file(entries_.size())));
        entries_.push_back({std::move(trial), recipe});
      }
      if (json.contains("changes")) {
        changes_.emplace();
        for (const Json& c : json.at("changes"))
          changes_->push_back({c.at("layer").get<std::string>(),
                               static_cast<Precision>(c.at("to").get<int>()),
                               c.at("gain").get<double>(), c.at("cost").get<double>()});
      }
      if (json.contains("narrowed"))
        narrowed_ = json.at("narrowed").get<std::vector<std::string>>();
    } catch (const Json::exception& e) {
      OCTET_FAIL(corrupt, "{}: {}", file().string(), e.what());
    }
  }

  const std::filesystem::path directory_;
  const std::string of_;
  const Clock::time_point start_;
  double before_ = 0;  // seconds
  std::vector<Entry> entries_;
  std::optional<std::vector<PrecisionChange>> changes_;
  std::optional<std::vector<std::string>> narrowed_;
};

// -- the ladder -----------------------------------------------------------------------------------

// Whether weights have fewer than 8 bits: with 8, their rounding is the least of the noise.
bool has_few_bits(const QConfigMapping& mapping) {
  const std::optional<QConfig> all = mapping.global_qconfig();
  if (!all || !all->weight) return false;
  const CodeRange codes = code_range(all->weight.options());
  return codes.quant_max - codes.quant_min < 128;
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
    fit_size();
    try_ranges();
    if (!done()) try_steps();
    if (!done()) try_rounding();
    if (!done()) try_distillation();
    if (!done()) try_precisions();
    if (!done()) try_cures();
    if (!done()) try_distillation();
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
        fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {}", graph::print(graph_),
                    digest_of({constants}), digest_of(data_.fit), digest_of(data_.judge),
                    options_.metric.name, options_.target, options_.max_drop, options_.slowest,
                    options_.max_cost, options_.max_size, options_.most_distillation,
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

  double size_of(const Graph& graph) const {
    return options_.size ? options_.size(graph) : bytes_of_constants(graph);
  }
  // What a network may cost that is made of one with that cost.
  double most_cost(double base_cost) const {
    return std::isnan(options_.max_cost) ? options_.slowest * base_cost : options_.max_cost;
  }
  bool fits(const TuneTrial& t) const {
    return t.size <= options_.max_size &&
           (std::isnan(options_.max_cost) || t.cost <= options_.max_cost);
  }

  // Of the trials so far.
  size_t best_index() const {
    return *best_of([](const Recipe&) { return true; });
  }
  // Of those without distillation, which what comes after it would have to do again.
  std::optional<size_t> best_untaught() const {
    return best_of([](const Recipe& recipe) {
      return std::none_of(recipe.steps.begin(), recipe.steps.end(),
                          [](const Recipe::Step& s) { return s.name == "distill"; });
    });
  }
  std::optional<size_t> best_of(const std::function<bool(const Recipe&)>& counts) const {
    std::optional<size_t> best;
    for (size_t i = 0; i < result_.trials.size(); ++i)
      if (counts(recipes_[i]) && (!best || is_better(result_.trials[i], result_.trials[*best])))
        best = i;
    return best;
  }
  bool is_better(const TuneTrial& a, const TuneTrial& b) const {
    if (a.above != b.above) return a.above;
    if (fits(a) != fits(b)) return fits(a);
    if (!a.above) return a.score > b.score;
    if (a.cost < b.cost * (1 - kSameCost)) return true;
    if (b.cost < a.cost * (1 - kSameCost)) return false;
    return a.score > b.score;
  }

  // Makes a network and judges it, unless that is on disk. Its number; nullopt, with a note, if it
  // cannot be made.
  std::optional<size_t> attempt(const std::string& name, Recipe recipe, bool choose,
                                const std::vector<std::string>& left_float = {},
                                const std::vector<std::string>& in_16_bits = {}) {
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
                    .size = size_of(made),
                    .left_float = left_float,
                    .in_16_bits = in_16_bits};
    OCTET_CHECK(!std::isnan(trial.score), invalid_argument, "tune: the {} of '{}' is no number",
                options_.metric.name, name);
    return keep(state_.add(std::move(trial), std::move(recipe)), &made);
  }

  size_t keep(const TuneState::Entry& entry, Graph* made) {
    const size_t number = result_.trials.size();
    result_.trials.push_back(entry.trial);
    result_.trials.back().above = entry.trial.score >= result_.bar && fits(entry.trial);
    recipes_.push_back(entry.recipe);
    if (made && best_index() == number) {
      kept_ = number;
      kept_graph_ = std::move(*made);
      if (options_.on_best) options_.on_best(kept_graph_, entry.recipe);
    }
    if (options_.on_trial) options_.on_trial(result_.trials.back());
    return number;
  }

  // Where all in 8 bits is larger than it may be: layers whose weights get 4 bits. Layers keep 8
  // bits as far as the budget allows, those that make the most noise in 4 for their bytes.
  void fit_size() {
    if (std::isinf(options_.max_size) || state_.narrowed()) return;
    const auto made = [&](const std::vector<std::string>& layers) {
      Recipe recipe = start(false);
      for (const std::string& layer : layers) set_precision(recipe, layer, Precision::bits4);
      calibrate(graph_, recipe, {data_.fit[0]});
      return std::pair{recipe, size_of(apply(graph_, recipe, data_.fit))};
    };
    const auto [eight, size] = made({});
    if (size <= options_.max_size || has_few_bits(eight.mapping)) return state_.set_narrowed({});
    std::vector<std::string> layers;
    std::map<std::string, double> bytes, noise = noise_of(eight, &bytes);
    for (const auto& [layer, count] : bytes) layers.push_back(layer);
    const auto [four, least] = made(layers);
    OCTET_CHECK(
        least <= options_.max_size, invalid_argument,
        "tune: with weights of 8 bits the network has {:.0f} bytes, with 4 bits {:.0f}, and "
        "max_size is {:.0f}; allow more",
        size, least, options_.max_size);
    std::map<std::string, double> noise4 = noise_of(four);
    double all = 0;
    for (const auto& [layer, count] : bytes) all += count;
    std::vector<PrecisionChange> changes;
    for (const std::string& layer : layers)
      changes.push_back({layer, Precision::bits8, std::max(noise4[layer] - noise[layer], 1e-30),
                         (size - least) * bytes[layer] / all});
    std::vector<size_t> wide = choose_changes(changes, options_.max_size - least);
    for (;; wide.pop_back()) {  // what was estimated may be some bytes off
      std::vector<std::string> narrow;
      for (size_t i = 0; i < changes.size(); ++i)
        if (std::find(wide.begin(), wide.end(), i) == wide.end())
          narrow.push_back(changes[i].layer);
      if (!wide.empty() && made(narrow).second > options_.max_size) continue;
      return state_.set_narrowed(narrow);
    }
  }

  // What the ladder starts with; with the histogram observer in place of the usual one.
  Recipe start(bool histograms) const {
    Recipe recipe{.mapping = options_.mapping, .backend = options_.backend, .skip = options_.skip};
    if (!recipe.mapping.global_qconfig()) recipe.mapping.set_global(get_default_qconfig());
    if (histograms) {
      QConfig all = *recipe.mapping.global_qconfig();
      all.activation = ObserverFactory("HistogramObserver").with_args(all.activation.options());
      recipe.mapping.set_global(all);
    }
    if (state_.narrowed())
      for (const std::string& layer : *state_.narrowed())
        set_precision(recipe, layer, Precision::bits4);
    return recipe;
  }

  void try_ranges() {
    const Recipe recipe = start(false);
    attempt("calibrated", recipe, false);
    if (!is_late()) attempt("ranges", recipe, true);
    const bool is_usual =
        recipe.mapping.global_qconfig()->activation == get_default_qconfig().activation;
    if (is_usual && !done()) attempt("histograms", start(true), false);
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

  // With this step behind those of the base, with more and more iterations, while the time that is
  // left is some times what the last ones took.
  void try_longer(size_t base, const std::string& step, int64_t first, int64_t most) {
    constexpr int64_t kMore = 4;
    constexpr double kShare = 2;
    double last = 0;
    for (int64_t iterations = first; iterations <= most; iterations *= kMore) {
      const double before = state_.seconds(), left = 60 * options_.minutes - before;
      if (done() || kShare * kMore * last > left) return;
      Recipe recipe = recipes_[base];
      recipe.steps.push_back({step, {{"iterations", iterations}}});
      attempt(fmt::format("{}, {} of {}", result_.trials[base].name, step, iterations), recipe,
              false);
      last = state_.seconds() - before;
    }
  }

  // The best, trained to give the float network's outputs; once.
  void try_distillation() {
    const std::optional<size_t> base = best_untaught();
    if (!base || base == taught_) return;
    taught_ = base;
    try_longer(*base, "distill", 50, options_.most_distillation);
  }

  // The best with its rounding learned layer by layer, and block by block.
  void try_rounding() {
    const bool narrowed = state_.narrowed() && !state_.narrowed()->empty();
    if (result_.trials.empty() || (!narrowed && !has_few_bits(options_.mapping))) return;
    Recipe by_layer = recipes_[best_index()];
    by_layer.steps.push_back({"adaround"});
    attempt(result_.trials[best_index()].name + ", adaround", by_layer, false);
    try_longer(best_index(), "brecq", 100, 400);
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
      const double cost = cost_of(r.graph), most = most_cost(result_.trials[base].cost);
      if (cost > most) {
        result_.notes.push_back(fmt::format("{}, cures: cost {:.3f}, more than {:.3f}",
                                            result_.trials[base].name, cost, most));
        return std::nullopt;
      }
      return std::move(r.recipe);
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("{}, cures: {}", result_.trials[base].name, e.what()));
      return std::nullopt;
    }
  }

  // The recipe with these layers changed: with its ranges, as far as there are observers of the
  // same codes for them. Others are chosen as its mapping says.
  Recipe changed(const Recipe& base, const std::vector<PrecisionChange>& changes) const {
    Recipe recipe = base;
    for (const PrecisionChange& c : changes) set_precision(recipe, c.layer, c.to);
    keep_ranges(graph_, recipe, base);
    return recipe;
  }

  // By layer: the noise that it alone makes at the outputs, over their signal. `weight_bytes` gets
  // those of layers with weights, in float.
  std::map<std::string, double> noise_of(const Recipe& recipe,
                                         std::map<std::string, double>* weight_bytes = nullptr) {
    const Batches samples(data_.fit.begin(),
                          data_.fit.begin() + std::min(kNoiseBatches, std::ssize(data_.fit)));
    const auto prepared = prepare(graph_, recipe, samples);
    debug::Sensitivity found;
    try {
      found =
          debug::sensitivity(*prepared, samples, {.method = debug::SensitivityMethod::estimate});
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("noise of layers, estimated: {}", e.what()));
      found = debug::sensitivity(*prepared, {data_.fit[0]},
                                 {.method = debug::SensitivityMethod::alone});
    }
    std::map<std::string, double> noise;
    for (const debug::LayerSensitivity& s : found.layers) {
      if (s.left_float || s.op == "input") continue;
      noise[s.name] = std::pow(10.0, -s.sqnr / 10);
      if (weight_bytes && s.weight_bytes > 0)
        (*weight_bytes)[s.name] = static_cast<double>(s.weight_bytes);
    }
    return noise;
  }

  // What the layers of the base that make the most noise could have instead: how much noise that
  // takes away, and what it costs. None if the time is up before all are priced.
  std::optional<std::vector<PrecisionChange>> price_changes(const Recipe& base, double base_cost) {
    // Noise is that of the float network's own weights: steps write rounded ones in their place.
    Recipe plain = base;
    std::erase_if(plain.steps, [](const Recipe::Step& step) {
      const std::vector<RecipeStep> known = recipe_steps();
      return std::any_of(known.begin(), known.end(),
                         [&](const RecipeStep& k) { return k.name == step.name && k.on_prepared; });
    });
    const std::map<std::string, double> noise = noise_of(plain);
    std::vector<std::pair<std::string, double>> layers(noise.begin(), noise.end());
    std::stable_sort(layers.begin(), layers.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    if (layers.size() > kMostPriced) layers.resize(kMostPriced);
    std::vector<PrecisionChange> changes;
    try {
      std::vector<PrecisionChange> all;
      for (const auto& [layer, most] : noise) all.push_back({layer, Precision::bits16});
      std::map<std::string, double> rest = noise_of(changed(plain, all));
      for (const auto& [layer, most] : layers)
        changes.push_back({layer, Precision::bits16, most - rest[layer]});
    } catch (const Error& e) {  // a backend without such codes
      result_.notes.push_back(fmt::format("results of 16 bits: {}", e.what()));
    }
    for (const auto& [layer, most] : layers) changes.push_back({layer, Precision::float32, most});
    for (PrecisionChange& change : changes) {
      if (is_late()) return std::nullopt;
      Recipe recipe = changed(plain, {change});  // what weights are costs no time
      calibrate(graph_, recipe, {data_.fit[0]});
      const double cost = cost_of(apply(graph_, recipe, data_.fit));
      change.cost = std::max(cost - base_cost, 1e-3 * base_cost);
    }
    return changes;
  }

  // With some of the changes, by index, made to the base.
  std::optional<size_t> attempt_changed(size_t base, const std::vector<size_t>& chosen,
                                        const std::string& more = "") {
    std::vector<PrecisionChange> changes;
    std::vector<std::string> left_float, in_16_bits;
    for (const size_t i : chosen) {
      changes.push_back(state_.changes()->at(i));
      (changes.back().to == Precision::float32 ? left_float : in_16_bits)
          .push_back(changes.back().layer);
    }
    std::vector<std::string> parts{result_.trials[base].name};
    for (const auto& [layers, what] :
         {std::pair{&left_float, "float"}, {&in_16_bits, "in 16 bits"}})
      if (!layers->empty())
        parts.push_back(
            fmt::format("{} layer{} {}", layers->size(), layers->size() == 1 ? "" : "s", what));
    return attempt(fmt::format("{}{}", fmt::join(parts, ", "), more),
                   changed(recipes_[base], changes), false, left_float, in_16_bits);
  }

  void try_precisions() {
    if (result_.trials.empty()) return;
    const size_t base = *best_untaught();
    const double base_cost = result_.trials[base].cost, budget = most_cost(base_cost) - base_cost;
    if (!state_.changes()) {
      const auto priced = price_changes(recipes_[base], base_cost);
      if (!priced) return;
      state_.set_changes(*priced);
    }
    const std::vector<PrecisionChange>& all = *state_.changes();
    const std::vector<size_t> order = greedy_changes(all, budget);
    const auto with = [&](size_t count) -> std::optional<bool> {  // whether it is above the bar
      const auto number = attempt_changed(base, changes_after(all, order, count));
      return number ? std::optional(result_.trials[*number].above) : std::nullopt;
    };
    size_t enough = 0, few = 0;
    for (size_t count = 1; !order.empty() && !is_late(); count *= 2) {
      count = std::min(count, order.size());
      if (with(count).value_or(false)) {
        enough = count;
        break;
      }
      few = count;
      if (count == order.size()) break;
    }
    while (enough > few + 1 && !is_late()) {
      const size_t middle = (enough + few) / 2;
      (with(middle).value_or(false) ? enough : few) = middle;
    }
    if (done()) return;
    std::vector<size_t> chosen = choose_changes(all, budget),
                        greedy = changes_after(all, order, order.size());
    std::ranges::sort(chosen);
    std::ranges::sort(greedy);
    if (chosen != greedy) attempt_changed(base, chosen, ", exchanged");
    if (!done()) try_exchanges(base, chosen, budget);
  }

  // One of the chosen changes for one that was not, which the estimate thinks less of: the score
  // decides. Begins with the chosen one that gains the least and the other one that gains the most.
  void try_exchanges(size_t base, std::vector<size_t> chosen, double budget) {
    const std::vector<PrecisionChange>& all = *state_.changes();
    std::vector<size_t> others(all.size());
    std::iota(others.begin(), others.end(), size_t{0});
    std::stable_sort(others.begin(), others.end(),
                     [&](size_t a, size_t b) { return all[a].gain > all[b].gain; });
    double best = result_.trials[best_index()].score;
    int number = 0;
    for (const size_t in : others) {
      if (chosen.empty() || number == kMostExchanges || done()) return;
      if (std::find(chosen.begin(), chosen.end(), in) != chosen.end()) continue;
      std::vector<size_t> next = chosen;
      const auto same = std::find_if(next.begin(), next.end(), [&](size_t i) {
        return all[i].layer == all[in].layer;  // a layer has one precision
      });
      const auto out = same != next.end()
                           ? same
                           : std::min_element(next.begin(), next.end(), [&](size_t a, size_t b) {
                               return all[a].gain < all[b].gain;
                             });
      *out = in;
      double cost = 0;
      for (const size_t i : next) cost += all[i].cost;
      if (cost > budget) continue;
      const auto made = attempt_changed(base, next, fmt::format(", exchange {}", ++number));
      if (!made || result_.trials[*made].score <= best) continue;
      best = result_.trials[*made].score;
      chosen = next;
    }
  }

  const Graph& graph_;
  const TuneData& data_;
  const TuneOptions& options_;
  const runtime::Program reference_;
  TuneState state_;
  Batches expected_;
  TuneResult result_;
  std::vector<Recipe> recipes_;   // by trial
  std::optional<size_t> taught_;  // the trial that try_distillation() took
  size_t kept_ = SIZE_MAX;        // the trial of kept_graph_
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

TuneMetric words_metric(int64_t space) {
  return {"words", [space](const Batches& x, const Batches& y) {
            return agreement_of(x, y, [space](const Tensor& a, const Tensor& b) {
              return debug::word_agreement(a, b, space < 0 ? a.size(a.dim() - 1) - 1 : space);
            });
          }};
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
  return {"perplexity", [labels = std::move(labels)](const Batches&, const Batches& got) {
            OCTET_CHECK(labels.size() == got.size(), invalid_argument,
                        "perplexity_metric: labels of {} batches, results of {}", labels.size(),
                        got.size());
            double sum = 0, count = 0;
            for (size_t b = 0; b < got.size(); ++b) {
              const Tensor& scores = got[b].at(0);
              OCTET_CHECK(scores.dim() >= 2, invalid_argument,
                          "perplexity: the first output is {}; expected scores (..., classes)",
                          to_string(scores.type()));
              const int64_t places =
                  scores.numel() / std::max<int64_t>(scores.size(scores.dim() - 1), 1);
              OCTET_CHECK(labels[b].numel() == places, invalid_argument,
                          "perplexity: {} labels for scores {}; expected one for each of {} places",
                          labels[b].numel(), octet::to_string(scores.shape()), places);
              const Tensor rows = scores.reshape({-1, scores.size(scores.dim() - 1)}),
                           wanted = labels[b].reshape({-1});
              const functional::CrossEntropyOptions sums{.reduction = "sum"};
              sum += functional::cross_entropy(rows, wanted, sums).item();
              for (const int64_t label : wanted.to_vector<int64_t>())
                count += label != sums.ignore_index ? 1 : 0;
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
