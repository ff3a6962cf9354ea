#include "octet/quant/tune/tune.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "octet/base/check_impl.h"
#include "octet/base/digest.h"
#include "octet/debug/sensitivity.h"
#include "octet/quant/tune/doctor.h"
#include "octet/quant/tune/precision.h"
#include "octet/quant/tune/state_impl.h"
#include "octet/runtime/program.h"

namespace octet::quant {
namespace {

using graph::Graph;
using tune_detail::Clock;
using tune_detail::seconds_since;
using tune_detail::TuneState;

constexpr size_t kMostPriced = 16;  // layers whose price is measured
constexpr int kMostExchanges = 4;
constexpr std::ptrdiff_t kNoiseBatches = 16;  // that the noise of layers is estimated on
constexpr int64_t kHoldOutEach = 4;  // samples, of those that fit, by which cures are judged
constexpr double kSameCost = 0.02;
constexpr const char* kCures = ", cures";  // in the names of trials

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

// Time of a program over that of another one, in turns: least of each, so that what else runs on
// the machine counts little.
double relative_time(const runtime::Program& reference, const runtime::Program& program,
                     const std::vector<Tensor>& inputs) {
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

double number_of(const std::string& text) {
  double number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

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
        state_(is_first() ? options.state : std::filesystem::path(), description(),
               options.resume) {
    if (options.team) {
      const std::string all = from_first([&] { return state_.to_text(); });
      if (!is_first()) state_.take(all);
    }
    for (const std::vector<Tensor>& batch : data.judge) expected_.push_back(reference_.run(batch));
    result_.float_score =
        number_of_first([&] { return options.metric.score(expected_, expected_); });
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
    OCTET_CHECK(!result_.trials.empty(), internal, "tune: no trial could be made: {}",
                fmt::join(result_.notes, "; "));
    if (!done()) try_steps();
    if (!done()) try_rounding();
    if (!done()) try_precisions();
    if (!done()) try_cures();
    if (!done()) try_longer(best_index(), "distill", 50, options_.most_distillation);
    refit();
    const size_t best = best_index();
    result_.best_index = best;
    result_.recipe = recipes_[best];
    if (!is_first()) return std::move(result_);
    // Whether this run made it or one before that was cut off.
    result_.graph = kept_ == best ? std::move(kept_graph_)
                                  : apply(graph_, recipes_[best], refit_ ? data_.all() : data_.fit);
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

  // -- values that decide come from the first process --

  bool is_first() const { return !options_.team || options_.team->is_first(); }
  std::string from_first(const std::function<std::string()>& job) const {
    if (!options_.team) return job();
    return options_.team->broadcast(is_first() ? job() : "");
  }
  double number_of_first(const std::function<double()>& job) const {
    if (!options_.team) return job();
    return number_of(from_first([&] { return fmt::format("{}", job()); }));
  }

  // -- time, cost and what is best --

  // Until no trial begins: what is left of the time, less what it takes to make the best so far
  // once more of all samples.
  double seconds_left() const {
    double left = 60 * options_.minutes - number_of_first([&] { return state_.seconds(); });
    if (data_.all && !result_.trials.empty()) left -= result_.trials[best_index()].seconds;
    return left;
  }
  bool is_late() const { return seconds_left() < 0; }
  bool is_good_enough() const {
    return !result_.trials.empty() && result_.trials[best_index()].above;
  }
  bool done() const { return is_late() || is_good_enough(); }

  double cost_of(const Graph& graph) const {
    return options_.cost ? options_.cost(graph)
                         : relative_time(reference_, runtime::compile(graph),
                                         one_sample(graph_, data_.judge[0]));
  }

  double size_of(const Graph& graph) const {
    return options_.size ? options_.size(graph) : bytes_of_constants(graph);
  }
  // What a network may cost: the first trial is all in 8 bits.
  double most_cost() const {
    return std::isnan(options_.max_cost) ? options_.slowest * result_.trials[0].cost
                                         : options_.max_cost;
  }
  // Within the budgets. `slowest` is for networks with layers in float or of 16 bits, whose changes
  // may cost more together than one by one: all in 8 bits, the noise of the clock would decide.
  bool fits(const TuneTrial& t) const {
    const bool is_mixed = !t.left_float.empty() || !t.in_16_bits.empty();
    return t.size <= options_.max_size &&
           ((std::isnan(options_.max_cost) && !is_mixed) || t.cost <= most_cost());
  }

  // Of the trials so far.
  size_t best_index() const {
    if (refit_) return *refit_;
    size_t best = 0;
    for (size_t i = 1; i < result_.trials.size(); ++i)
      if (is_better(result_.trials[i], result_.trials[best])) best = i;
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

  double score_of(const std::string& name, const Graph& graph) const {
    const runtime::Program program = runtime::compile(graph);
    Batches got;
    for (const std::vector<Tensor>& batch : data_.judge) got.push_back(program.run(batch));
    const double score = options_.metric.score(expected_, got);
    OCTET_CHECK(!std::isnan(score), invalid_argument, "tune: the {} of '{}' is no number",
                options_.metric.name, name);
    return std::clamp(score, -1e300, 1e300);
  }

  struct Plan {
    std::string name;
    Recipe recipe;
    bool choose = false;  // ranges, by the noise at the outputs
    std::vector<std::string> left_float = {}, in_16_bits = {};
  };
  // What came of a plan: nothing, with a note, if the network cannot be made.
  struct Made {
    std::optional<TuneState::Entry> entry;
    std::string note;
    Graph graph;
  };

  Made carry_out(Plan plan) const {
    const auto start = Clock::now();
    plan.recipe.samples.without_every = data_.without_every;
    Made made;
    try {
      calibrate(graph_, plan.recipe, data_.fit, plan.choose);
      made.graph = apply(graph_, plan.recipe, data_.fit);
    } catch (const Error& e) {
      made.note = fmt::format("{}: {}", plan.name, e.what());
      return made;
    }
    TuneTrial trial{.name = plan.name,
                    .score = score_of(plan.name, made.graph),
                    .cost = cost_of(made.graph),
                    .size = size_of(made.graph),
                    .left_float = std::move(plan.left_float),
                    .in_16_bits = std::move(plan.in_16_bits)};
    trial.seconds = seconds_since(start);
    made.entry = {std::move(trial), std::move(plan.recipe)};
    return made;
  }

  // As text for the others: JSON, then the network.
  std::string text_of(const Made& made) const {
    if (!made.entry) return made.note;
    return TuneState::to_text(*made.entry) + '\0' + options_.team->bytes_of(made.graph);
  }
  Made made_of(const std::string& text) const {
    const size_t end = text.find('\0');
    if (end == std::string::npos) return {{}, text, {}};
    return {TuneState::entry_of(text.substr(0, end)), "",
            is_first() ? options_.team->graph_of(text.substr(end + 1)) : Graph()};
  }

  // Makes networks and judges them, but for what is on disk, until the work is done; the first
  // `at_least` of them whatever their scores are. Their numbers; nullopt for those that were not
  // begun or, with a note, cannot be made. Those who tune together share the work, and then leave
  // out what one alone would not have begun.
  std::vector<std::optional<size_t>> attempt(const std::vector<Plan>& plans, size_t at_least = 1) {
    std::vector<std::string> texts(plans.size());
    if (options_.team) {
      std::vector<size_t> open;
      for (size_t i = 0; i < plans.size(); ++i)
        if (!state_.find(plans[i].name)) open.push_back(i);
      const std::vector<std::string> made = options_.team->share(
          open.size(), [&](size_t i) { return text_of(carry_out(plans[open[i]])); });
      for (size_t i = 0; i < open.size(); ++i) texts[open[i]] = made[i];
    }
    std::vector<std::optional<size_t>> numbers(plans.size());
    for (size_t i = 0; i < plans.size(); ++i) {
      if (i > 0 && !options_.team && is_late()) break;
      if (i >= at_least && is_good_enough()) break;
      if (const TuneState::Entry* known = state_.find(plans[i].name)) {
        numbers[i] = keep(*known, nullptr);
        continue;
      }
      Made made = options_.team ? made_of(texts[i]) : carry_out(plans[i]);
      if (made.entry)
        numbers[i] = keep(state_.add(std::move(*made.entry)), &made.graph);
      else
        result_.notes.push_back(made.note);
    }
    return numbers;
  }
  std::optional<size_t> attempt(Plan plan) { return attempt(std::vector{std::move(plan)})[0]; }

  size_t keep(const TuneState::Entry& entry, Graph* made) {
    const size_t number = result_.trials.size();
    result_.trials.push_back(entry.trial);
    result_.trials.back().above = entry.trial.score >= result_.bar && fits(entry.trial);
    recipes_.push_back(entry.recipe);
    if (!is_first()) return number;
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
    state_.set_narrowed(tune_detail::names_of(
        from_first([&] { return tune_detail::to_text(layers_of_4_bits()); })));
  }
  std::vector<std::string> layers_of_4_bits() {
    const auto made = [&](const std::vector<std::string>& layers) {
      Recipe recipe = start(false);
      for (const std::string& layer : layers) set_precision(recipe, layer, Precision::bits4);
      calibrate(graph_, recipe, {data_.fit[0]});
      return std::pair{recipe, size_of(apply(graph_, recipe, data_.fit))};
    };
    const auto [eight, size] = made({});
    if (size <= options_.max_size || has_few_bits(eight.mapping)) return {};
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
      return narrow;
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
    std::vector<Plan> plans{{"calibrated", recipe}, {"ranges", recipe, true}};
    if (recipe.mapping.global_qconfig()->activation == get_default_qconfig().activation)
      plans.push_back({"histograms", start(true)});
    attempt(plans, 2);
  }

  // On each kind of ranges, as what one needs may harm another.
  void try_steps() {
    std::vector<size_t> bases(result_.trials.size());
    std::iota(bases.begin(), bases.end(), size_t{0});
    for (const RecipeStep& step : recipe_steps()) {
      if (done()) return;
      std::vector<Plan> plans;
      std::vector<size_t*> of;
      for (size_t& base : bases) {
        if (!step.is_tried || (step.applies && !step.applies(recipes_[base], graph_))) continue;
        Recipe recipe = recipes_[base];
        recipe.steps.push_back({step.name});
        // Those of a network with other weights are others.
        if (step.on_graph) recipe.ranges.clear();
        plans.push_back({result_.trials[base].name + ", " + step.name, std::move(recipe),
                         step.on_graph && has_chosen_ranges(base)});
        of.push_back(&base);
      }
      const auto tried = attempt(plans);
      for (size_t i = 0; i < tried.size(); ++i)
        if (tried[i] && is_better(result_.trials[*tried[i]], result_.trials[*of[i]]))
          *of[i] = *tried[i];
    }
  }

  bool has_chosen_ranges(size_t trial) const {
    return result_.trials[trial].name.starts_with("ranges");
  }

  // With this step behind those of the base, with more and more iterations: those of which `share`
  // times the expected duration, scaled from that of the first run, fits in the time left.
  void try_longer(size_t base, const std::string& step, int64_t first, int64_t most) {
    constexpr int64_t kMore = 4;
    const auto plan = [&](int64_t iterations) {
      Recipe recipe = recipes_[base];
      recipe.steps.push_back({step, {{"iterations", iterations}}});
      const TuneTrial& trial = result_.trials[base];
      return Plan{fmt::format("{}, {} of {}", trial.name, step, iterations), std::move(recipe),
                  false, trial.left_float, trial.in_16_bits};
    };
    if (done() || first > most) return;
    const auto shortest = attempt(plan(first));
    if (!shortest) return;
    const double share = data_.all ? 3 : 2;
    double seconds = result_.trials[*shortest].seconds, left = seconds_left();
    std::vector<Plan> longer;
    for (int64_t iterations = kMore * first; iterations <= most; iterations *= kMore) {
      seconds *= kMore;
      if (share * seconds > left) break;
      left -= seconds;
      longer.push_back(plan(iterations));
    }
    if (!done()) attempt(longer);
  }

  // The best with its rounding learned layer by layer, and block by block.
  void try_rounding() {
    const bool narrowed = state_.narrowed() && !state_.narrowed()->empty();
    if (!narrowed && !has_few_bits(options_.mapping)) return;
    Recipe by_layer = recipes_[best_index()];
    by_layer.steps.push_back({"adaround"});
    attempt({result_.trials[best_index()].name + ", adaround", by_layer});
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
    const std::string name = result_.trials[*base].name + kCures;
    const TuneState::Entry* known = state_.find(name);
    const double seconds = seconds_left();
    const std::string text =
        known ? known->recipe.to_json() : from_first([&] { return cured(*base, seconds); });
    if (text.empty()) return;
    Recipe recipe = Recipe::from_json(text);
    const size_t skipped = options_.skip.size();  // these come first
    const std::vector<std::string> left_float(
        recipe.skip.begin() + static_cast<std::ptrdiff_t>(std::min(skipped, recipe.skip.size())),
        recipe.skip.end());
    Plan alone{name, recipe, false, left_float}, corrected = alone;
    corrected.name += ", bias_correction";
    corrected.recipe.steps.push_back({"bias_correction"});
    attempt({alone, corrected});
  }

  // A recipe; "" if nothing helps, or if it would be too slow.
  std::string cured(size_t base, double seconds) {
    try {
      DoctorReport r = doctor(graph_, apply(graph_, recipes_[base], data_.fit), data_.fit, {},
                              {.seconds = seconds, .hold_out = kHoldOutEach});
      if (!r.cured || r.data) return "";
      const double cost = cost_of(r.graph), most = most_cost();
      if (cost > most) {
        result_.notes.push_back(fmt::format("{}, cures: cost {:.3f}, more than {:.3f}",
                                            result_.trials[base].name, cost, most));
        return "";
      }
      return r.recipe.to_json();
    } catch (const Error& e) {
      result_.notes.push_back(fmt::format("{}, cures: {}", result_.trials[base].name, e.what()));
      return "";
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
    std::vector<PrecisionChange> changes = tune_detail::changes_of(
        from_first([&] { return tune_detail::to_text(useful_changes(plain)); }));
    const auto made = [&](const std::vector<PrecisionChange>& some) {
      Recipe recipe = changed(plain, some);  // what weights are costs no time
      calibrate(graph_, recipe, {data_.fit[0]});
      return apply(graph_, recipe, data_.fit);
    };
    // One layer changes the time by little: less than what the base took at another time is off by.
    // So time is compared with the base's in turns, not with the float network's.
    std::optional<runtime::Program> unchanged;
    const auto cost = [&](size_t i) {
      const Graph graph = made({changes[i]});
      if (options_.cost) return options_.cost(graph) - base_cost;
      if (!unchanged) unchanged = runtime::compile(made({}));
      return base_cost * (relative_time(*unchanged, runtime::compile(graph),
                                        one_sample(graph_, data_.judge[0])) -
                          1);
    };
    std::vector<double> costs;
    if (options_.team) {
      if (is_late()) return std::nullopt;
      for (const std::string& text : options_.team->share(
               changes.size(), [&](size_t i) { return fmt::format("{}", cost(i)); }))
        costs.push_back(number_of(text));
    } else {
      for (size_t i = 0; i < changes.size(); ++i) {
        if (is_late()) return std::nullopt;
        costs.push_back(cost(i));
      }
    }
    for (size_t i = 0; i < changes.size(); ++i)
      changes[i].cost = std::max(costs[i], 1e-3 * base_cost);
    return changes;
  }

  std::vector<PrecisionChange> useful_changes(const Recipe& plain) {
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
    return changes;
  }

  // With some of the changes, by index, made to the base.
  Plan changed_plan(size_t base, const std::vector<size_t>& chosen,
                    const std::string& more = "") const {
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
    return {fmt::format("{}{}", fmt::join(parts, ", "), more), changed(recipes_[base], changes),
            false, left_float, in_16_bits};
  }

  void try_precisions() {
    const size_t base = best_index();
    const double base_cost = result_.trials[base].cost, budget = most_cost() - base_cost;
    if (!state_.changes()) {
      const auto priced = price_changes(recipes_[base], base_cost);
      if (!priced) return;
      state_.set_changes(*priced);
    }
    const std::vector<PrecisionChange>& all = *state_.changes();
    const std::vector<size_t> order = greedy_changes(all, budget);
    const auto with = [&](size_t count) {
      return changed_plan(base, changes_after(all, order, count));
    };
    const auto is_above = [&](std::optional<size_t> number) {
      return number && result_.trials[*number].above;
    };
    std::vector<size_t> counts;
    for (size_t count = 1; count < order.size(); count *= 2) counts.push_back(count);
    if (!order.empty()) counts.push_back(order.size());
    std::vector<Plan> plans;
    for (const size_t count : counts) plans.push_back(with(count));
    const auto tried = attempt(plans);
    size_t enough = 0, few = 0;
    for (size_t i = 0; i < tried.size() && enough == 0; ++i)
      (is_above(tried[i]) ? enough : few) = counts[i];
    while (enough > few + 1 && !is_late()) {
      const size_t middle = (enough + few) / 2;
      (is_above(attempt(with(middle))) ? enough : few) = middle;
    }
    if (done()) return;
    std::vector<size_t> chosen = choose_changes(all, budget),
                        greedy = changes_after(all, order, order.size());
    std::ranges::sort(chosen);
    std::ranges::sort(greedy);
    if (chosen != greedy) attempt(changed_plan(base, chosen, ", exchanged"));
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
      const auto made = attempt(changed_plan(base, next, fmt::format(", exchange {}", ++number)));
      if (!made || !fits(result_.trials[*made]) || result_.trials[*made].score <= best) continue;
      best = result_.trials[*made].score;
      chosen = next;
    }
  }

  // The best once more, made of all samples: no trial is to be judged any more, and more of them
  // make a better network. Its score and cost stay those of the trial that it repeats, as it has
  // seen the samples that judge. Not with cures, whose ranges are what the doctor found.
  void refit() {
    const size_t best = best_index();
    TuneTrial trial = result_.trials[best];
    if (!data_.all || trial.name.find(kCures) != std::string::npos) return;
    trial.name += ", all samples";
    if (const TuneState::Entry* known = state_.find(trial.name)) {
      refit_ = result_.trials.size();
      keep(*known, nullptr);
      return;
    }
    Graph made;
    const std::string text = from_first([&]() -> std::string {
      Recipe recipe = recipes_[best];
      recipe.ranges.clear();
      recipe.samples = {};
      const Batches samples = data_.all();
      try {
        calibrate(graph_, recipe, samples, has_chosen_ranges(best));
        made = apply(graph_, recipe, samples);
      } catch (const Error& e) {
        result_.notes.push_back(fmt::format("{}: {}", trial.name, e.what()));
        return "";
      }
      const double score = score_of(trial.name, made);
      if (score >= std::min(trial.score, result_.bar)) return TuneState::to_text({trial, recipe});
      result_.notes.push_back(
          fmt::format("{}: {} {:.5f} on the samples that judge, less than without them", trial.name,
                      options_.metric.name, score));
      return "";
    });
    if (text.empty()) return;
    refit_ = result_.trials.size();
    keep(state_.add(TuneState::entry_of(text)), &made);
  }

  const Graph& graph_;
  const TuneData& data_;
  const TuneOptions& options_;
  const runtime::Program reference_;
  TuneState state_;
  Batches expected_;
  TuneResult result_;
  std::vector<Recipe> recipes_;  // by trial
  std::optional<size_t> refit_;  // the trial that refit() made
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

TuneResult tune(const Graph& graph, const TuneData& data, const TuneOptions& options) {
  OCTET_CHECK(!data.fit.empty() && !data.judge.empty(), invalid_argument,
              "tune: {} batches to fit with and {} to judge by; expected one or more of each",
              data.fit.size(), data.judge.size());
  OCTET_CHECK(options.metric.score, invalid_argument, "tune: the metric has no function");
  return Tuner(graph, data, options).run();
}

}  // namespace octet::quant
