#include "octet/quant/tune/precision.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "octet/base/check_impl.h"

namespace octet::quant {

QConfig with_weight_bits(QConfig qconfig, int64_t bits) {
  OCTET_CHECK(bits >= 2 && bits <= 8, invalid_argument,
              "with_weight_bits: weights of {} bits; expected 2 to 8", bits);
  if (bits < 8)
    qconfig.weight = qconfig.weight.with_quant_range(-(int64_t{1} << (bits - 1)),
                                                     (int64_t{1} << (bits - 1)) - 1);
  return qconfig;
}

void change_qconfig(QConfigMapping& mapping, const std::string& layer,
                    const std::function<void(QConfig&)>& change) {
  std::optional<QConfig> now = mapping.global_qconfig();
  for (const QConfigMapping::ByName& entry : mapping.module_name_qconfigs())
    if (entry.name == layer) now = entry.qconfig;
  OCTET_CHECK(now, not_found, "the recipe has no qconfig for {}", layer);
  change(*now);
  mapping.set_module_name(layer, now);
}

const char* to_string(Precision precision) {
  constexpr const char* kNames[] = {"4 bits", "8 bits", "16 bits", "float"};
  return kNames[static_cast<int>(precision)];
}

void set_precision(Recipe& recipe, const std::string& layer, Precision precision) {
  switch (precision) {
    case Precision::bits4:
      change_qconfig(recipe.mapping, layer, [](QConfig& q) { q = with_weight_bits(q, 4); });
      break;
    case Precision::bits8:
      break;
    case Precision::bits16:
      change_qconfig(recipe.mapping, layer, [](QConfig& q) {
        // As in "a16w8": with so many codes nothing need be cut off.
        ObserverOptions options = q.activation.options();
        options.dtype = options.dtype == DType::qint8 ? DType::qint16 : DType::quint16;
        options.quant_min = options.quant_max = std::nullopt;
        options.reduce_range = false;
        q.activation = ObserverFactory("HistogramObserver").with_args(options);
      });
      break;
    case Precision::float32:
      if (std::find(recipe.skip.begin(), recipe.skip.end(), layer) == recipe.skip.end())
        recipe.skip.push_back(layer);
      break;
  }
}

namespace {

double sum_of(const std::vector<PrecisionChange>& changes, const std::vector<size_t>& set,
              double PrecisionChange::*what) {
  return std::accumulate(set.begin(), set.end(), 0.0,
                         [&](double total, size_t i) { return total + changes[i].*what; });
}

// The one of the set that is of that layer, or set.end().
std::vector<size_t>::iterator find_layer(const std::vector<PrecisionChange>& changes,
                                         std::vector<size_t>& set, const std::string& layer) {
  return std::ranges::find_if(set, [&](size_t i) { return changes[i].layer == layer; });
}

// The greedy way from a set on, which becomes what it leads to.
std::vector<size_t> climb(const std::vector<PrecisionChange>& changes, double budget,
                          std::vector<size_t>& set) {
  std::vector<size_t> order;
  for (;;) {
    const double spent = sum_of(changes, set, &PrecisionChange::cost);
    std::optional<size_t> best;
    double most = 0;
    for (size_t i = 0; i < changes.size(); ++i) {
      const auto now = find_layer(changes, set, changes[i].layer);
      const double gain = changes[i].gain - (now == set.end() ? 0 : changes[*now].gain),
                   cost = changes[i].cost - (now == set.end() ? 0 : changes[*now].cost);
      if (!(gain > 0) || spent + cost > budget) continue;
      const double worth = cost > 0 ? gain / cost : INFINITY;
      if (best && worth <= most) continue;
      best = i;
      most = worth;
    }
    if (!best) return order;
    const auto now = find_layer(changes, set, changes[*best].layer);
    if (now != set.end()) set.erase(now);
    set.push_back(*best);
    order.push_back(*best);
  }
}

}  // namespace

std::vector<size_t> greedy_changes(const std::vector<PrecisionChange>& changes, double budget) {
  for (const PrecisionChange& change : changes)
    OCTET_CHECK(change.cost > 0, invalid_argument,
                "greedy_changes: the cost of {} for {} is {}; expected more than 0",
                to_string(change.to), change.layer, change.cost);
  std::vector<size_t> set;
  return climb(changes, budget, set);
}

std::vector<size_t> changes_after(const std::vector<PrecisionChange>& changes,
                                  const std::vector<size_t>& order, size_t count) {
  std::vector<size_t> set;
  for (size_t i = 0; i < std::min(count, order.size()); ++i) {
    const auto now = find_layer(changes, set, changes[order[i]].layer);
    if (now != set.end()) set.erase(now);
    set.push_back(order[i]);
  }
  return set;
}

std::vector<size_t> choose_changes(const std::vector<PrecisionChange>& changes, double budget) {
  const std::vector<size_t> order = greedy_changes(changes, budget);
  std::vector<size_t> chosen = changes_after(changes, order, order.size());
  const auto worth = [&](size_t i) { return changes[i].gain / changes[i].cost; };
  // With a change in place of its layer's, and of the least worth ones until it fits.
  const auto exchanged = [&](std::vector<size_t> set, size_t in) {
    const auto same = find_layer(changes, set, changes[in].layer);
    if (same != set.end()) set.erase(same);
    std::ranges::stable_sort(set, [&](size_t a, size_t b) { return worth(a) > worth(b); });
    while (!set.empty() && sum_of(changes, set, &PrecisionChange::cost) + changes[in].cost > budget)
      set.pop_back();
    set.push_back(in);
    climb(changes, budget, set);
    return set;
  };
  for (bool better = true; better;) {
    better = false;
    std::vector<size_t> best = chosen;
    for (size_t in = 0; in < changes.size(); ++in) {
      if (changes[in].cost > budget || std::ranges::find(chosen, in) != chosen.end()) continue;
      const std::vector<size_t> next = exchanged(chosen, in);
      if (sum_of(changes, next, &PrecisionChange::gain) >
          sum_of(changes, best, &PrecisionChange::gain)) {
        best = next;
        better = true;
      }
    }
    chosen = best;
  }
  return chosen;
}

}  // namespace octet::quant
