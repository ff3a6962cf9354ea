#include "octet/quant/algorithms/choose_ranges.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/quant/algorithms/output_gradients_impl.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/histogram.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::ValueId;

// One rounding: codes lo..hi of scale and zero point.
struct Grid {
  float scale, inverse, lo, hi;  // lo and hi less the zero point
  bool operator==(const Grid&) const = default;
};

Grid grid_of(const QParams& q) {
  const auto scale = static_cast<float>(q.scales[0]);
  const double z = q.zero_points[0];
  return {scale, 1 / scale, static_cast<float>(static_cast<double>(q.quant_min) - z),
          static_cast<float>(static_cast<double>(q.quant_max) - z)};
}

// Elements whose errors are taken together: those of a clipped peak, say, which are alike.
constexpr int64_t kBlock = 64;

// Sum over blocks of (sum of gradient * (rounded x - x))^2, and the square of the sum of all.
// Adding and taking away 1.5 * 2^23 rounds to even what lies within codes.
double noise_of(const float* x, const float* gradient, int64_t n, const Grid& grid) {
  constexpr float kRound = 12582912;
  double noise = 0, all = 0;
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t end = std::min(n, at + kBlock);
    const auto product = [&](int64_t i) {
      const float code = std::min(std::max(x[i] * grid.inverse, grid.lo), grid.hi);
      return ((code + kRound - kRound) * grid.scale - x[i]) * gradient[i];
    };
    float part[8] = {};
    int64_t i = at;
    for (; i + 8 <= end; i += 8)
      for (int k = 0; k < 8; ++k) part[k] += product(i + k);
    for (; i < end; ++i) part[0] += product(i);
    double sum = 0;
    for (const float p : part) sum += static_cast<double>(p);
    noise += sum * sum;
    all += sum;
  }
  return noise + all * all;
}

// The observer that a module is or holds; null if it keeps no histogram.
HistogramObserver* histogram_observer(nn::Module& module) {
  return dynamic_cast<HistogramObserver*>(&module);
}

ObserverFactory with_options_of(const ObserverFactory& factory, const ObserverOptions& own) {
  ObserverOptions options = own;
  options.percentile = factory.options().percentile;
  return factory.with_args(options);
}

// With what the old one has seen.
std::shared_ptr<HistogramObserver> converted(const HistogramObserver& old,
                                             const ObserverFactory& factory) {
  auto made = std::dynamic_pointer_cast<HistogramObserver>(
      with_options_of(factory, old.options()).make(old.label()));
  OCTET_CHECK(made, invalid_argument,
              "choose_ranges: {} keeps no histogram; expected histogram, percentile, mse, entropy "
              "or aciq",
              to_string(factory));
  if (!old.empty()) made->set_extra_state(old.extra_state());
  return made;
}

// One observer, the values that it is shown, and its candidates.
struct Place {
  std::string path;
  const HistogramObserver* old = nullptr;
  std::vector<std::shared_ptr<HistogramObserver>> made;  // by candidate
  std::vector<Grid> grids;                               // different ones: the old first
  std::vector<size_t> grid_of_candidate;
  std::vector<double> noise;  // by grid
};

std::vector<Place> find_places(const ObservedGraphModule& prepared,
                               const ObservedGraphModule::Watched& watched,
                               const std::vector<ObserverFactory>& candidates,
                               std::map<ValueId, size_t>& place_of) {
  std::vector<Place> places;
  std::map<std::string, size_t> by_path;
  for (size_t v = 0; v < watched.observer.size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    const std::string& path = watched.observer[v];
    if (path.empty() || !watched.shown[v] || watched.graph.is_constant(id) ||
        watched.graph.type(id).dtype != DType::float32)
      continue;
    const auto* old = histogram_observer(*prepared.submodule(path));
    if (!old) continue;
    const auto [it, fresh] = by_path.emplace(path, places.size());
    place_of[id] = it->second;
    if (!fresh) continue;
    Place place{path, old, {}, {}, {}, {}};
    place.grids.push_back(grid_of(old->calculate_qparams()));
    for (const ObserverFactory& factory : candidates) {
      place.made.push_back(converted(*old, factory));
      const Grid grid = grid_of(place.made.back()->calculate_qparams());
      auto at = std::find(place.grids.begin(), place.grids.end(), grid);
      place.grid_of_candidate.push_back(static_cast<size_t>(at - place.grids.begin()));
      if (at == place.grids.end()) place.grids.push_back(grid);
    }
    place.noise.assign(place.grids.size(), 0);
    places.push_back(std::move(place));
  }
  return places;
}

// Adds the noise of one direction, for every grid of every place.
void add_noise(const OutputGradients& network, const std::map<ValueId, size_t>& place_of,
               std::vector<Place>& places) {
  struct Task {
    size_t place, grid;
    Tensor x, gradient;
    double noise = 0;
  };
  std::vector<Task> tasks;
  for (const auto& [v, p] : place_of)
    if (const Tensor gradient = network.gradient(v); gradient.defined())
      for (size_t g = 0; g < places[p].grids.size(); ++g)
        tasks.push_back({p, g, network.value(v), gradient, 0});
  parallel_for(std::ssize(tasks), [&](int64_t t) {
    Task& task = tasks[static_cast<size_t>(t)];
    task.noise = noise_of(task.x.data<float>(), task.gradient.data<float>(), task.x.numel(),
                          places[task.place].grids[task.grid]);
  });
  for (const Task& task : tasks) places[task.place].noise[task.grid] += task.noise;
}

}  // namespace

std::vector<ObserverFactory> default_range_candidates() {
  std::vector<ObserverFactory> all;
  for (const double percentile : {99.99, 99.9, 99.999, 100.0})
    all.push_back(ObserverFactory("percentile").with_percentile(percentile));
  all.emplace_back("mse");
  all.emplace_back("histogram");
  return all;
}

void replace_observer(ObservedGraphModule& prepared, const std::string& path,
                      const ObserverFactory& factory) {
  const auto* old = histogram_observer(*prepared.submodule(path));
  OCTET_CHECK(old, invalid_argument, "replace_observer: {} keeps no histogram", path);
  prepared.put_module(path, converted(*old, factory));
}

std::vector<ChosenRange> choose_ranges(ObservedGraphModule& prepared,
                                       const std::vector<std::vector<Tensor>>& samples,
                                       const ChooseRangesOptions& options) {
  OCTET_CHECK(!samples.empty(), invalid_argument,
              "choose_ranges: there are no samples; give at least one batch");
  OCTET_CHECK(!options.candidates.empty() && options.probes >= 1, invalid_argument,
              "choose_ranges: {} candidates, {} probes; expected one or more of each",
              options.candidates.size(), options.probes);
  const ObservedGraphModule::Watched watched = prepared.watched();
  std::map<ValueId, size_t> place_of;
  std::vector<Place> places = find_places(prepared, watched, options.candidates, place_of);
  std::set<ValueId> values;
  for (const auto& [v, place] : place_of) values.insert(v);
  nn::Module root;
  OutputGradients network(watched.graph, root, values);
  const size_t passes = samples.size() * static_cast<size_t>(options.probes);
  size_t done = 0;
  for (const std::vector<Tensor>& batch : samples)
    for (int p = 0; p < options.probes; ++p) {
      if (network.run(batch)) add_noise(network, place_of, places);
      if (options.progress) options.progress(++done, passes);
    }
  std::vector<ChosenRange> result;
  for (Place& place : places) {
    size_t best = 0;
    const auto noise_of = [&](size_t c) { return place.noise[place.grid_of_candidate[c]]; };
    for (size_t c = 1; c < place.made.size(); ++c)
      if (noise_of(c) < noise_of(best)) best = c;
    if (place.noise[0] <= noise_of(best)) continue;  // nothing is better than what is there
    result.push_back({place.old->label(),
                      with_options_of(options.candidates[best], place.old->options()),
                      place.noise[0], noise_of(best)});
    prepared.put_module(place.path, place.made[best]);
  }
  return result;
}

}  // namespace octet::quant
