#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/quant/algorithms/codes_impl.h"
#include "octet/quant/algorithms/weight_ranges_impl.h"

namespace octet::quant {

namespace {

constexpr int64_t kColumns = 64;  // that are rounded before the others hear of it

Tensor times(const Tensor& a, const Tensor& b) {
  return ops::call("matmul", {a.contiguous(), b.contiguous()});
}

}  // namespace

Grids::Grids(const QParams& q, int64_t channels, int64_t k)
    : block(k), per_channel(q.scales.size() > 1) {
  for (int64_t o = 0; o < channels; ++o) {
    const size_t i = per_channel ? static_cast<size_t>(o) : 0;
    scale.push_back(static_cast<float>(q.scales[i]));
    lo.push_back(static_cast<float>(static_cast<double>(q.quant_min) - q.zero_points[i]));
    hi.push_back(static_cast<float>(static_cast<double>(q.quant_max) - q.zero_points[i]));
  }
}

float Grids::code(size_t at, float value) const {
  return std::min(hi[at], std::max(lo[at], std::nearbyintf(value / scale[at])));
}

Tensor GroupCodes::error(const Grids& grids) const {
  Tensor e = problem.w.clone();
  float* p = e.data<float>();
  for (int64_t o = 0; o < problem.outputs; ++o)
    for (int64_t j = 0; j < problem.k; ++j)
      p[o * problem.k + j] -=
          grids.scale[grids.at(first + o, j)] * codes[static_cast<size_t>(o * problem.k + j)];
  return e;
}

double GroupCodes::squared_error(const Grids& grids) const {
  const Tensor e = error(grids);
  const Tensor eh = times(e, problem.h);
  double sum = 0;
  for (int64_t i = 0; i < e.numel(); ++i)
    sum += static_cast<double>(e.data<float>()[i]) * static_cast<double>(eh.data<float>()[i]);
  return sum;
}

void GroupCodes::round_to_nearest(const Grids& grids) {
  codes.resize(static_cast<size_t>(problem.w.numel()));
  const float* w = problem.w.data<float>();
  for (int64_t o = 0, i = 0; o < problem.outputs; ++o)
    for (int64_t j = 0; j < problem.k; ++j, ++i)
      codes[static_cast<size_t>(i)] = grids.code(grids.at(first + o, j), w[i]);
}

void GroupCodes::round_by_columns(const Grids& grids) {
  const int64_t n = problem.k, rows = problem.outputs;
  const float* h = problem.h.data<float>();
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return h[a * n + a] < h[b * n + b]; });
  Tensor permuted = Tensor::empty({n, n});
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      permuted.data<float>()[i * n + j] =
          h[order[static_cast<size_t>(i)] * n + order[static_cast<size_t>(j)]];
  const Tensor factor = cholesky(permuted);
  const float *l = factor.data<float>(), *w = problem.w.data<float>();
  codes.resize(static_cast<size_t>(rows * n));
  Tensor error = Tensor::zeros({rows, n});
  float* e = error.data<float>();
  for (int64_t k1 = n; k1 > 0; k1 = (k1 - 1) / kColumns * kColumns) {
    const int64_t k0 = (k1 - 1) / kColumns * kColumns, width = k1 - k0;
    const Tensor later = k1 < n
                             ? times(error.slice(1, k1, n), factor.slice(0, k1, n).slice(1, k0, k1))
                             : Tensor::zeros({rows, width});
    const float* from_later = later.data<float>();
    parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t i = k1 - 1; i >= k0; --i) {
          double carried = from_later[o * width + i - k0];
          for (int64_t t = i + 1; t < k1; ++t)
            carried += static_cast<double>(e[o * n + t]) * static_cast<double>(l[t * n + i]);
          const int64_t column = order[static_cast<size_t>(i)];
          const float value = w[o * n + column];
          const auto target = static_cast<float>(static_cast<double>(value) +
                                                 carried / static_cast<double>(l[i * n + i]));
          const size_t at = grids.at(first + o, column);
          const float code = grids.code(at, target);
          codes[static_cast<size_t>(o * n + column)] = code;
          e[o * n + i] = value - grids.scale[at] * code;
        }
    });
  }
}

int64_t GroupCodes::sweep(const Grids& grids) {
  const int64_t n = problem.k, rows = problem.outputs;
  const float* h = problem.h.data<float>();
  Tensor error = this->error(grids);
  float* e = error.data<float>();
  std::vector<int64_t> changed(static_cast<size_t>(rows), 0);
  for (int64_t k0 = 0; k0 < n; k0 += kColumns) {
    const int64_t k1 = std::min(n, k0 + kColumns), width = k1 - k0;
    Tensor gradient = times(error, problem.h.slice(1, k0, k1));
    float* g = gradient.data<float>();
    parallel_ranges(rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        float* slopes = g + o * width;
        for (int64_t j = k0; j < k1; ++j) {
          const size_t at = grids.at(first + o, j);
          const float scale = grids.scale[at];
          float& code = codes[static_cast<size_t>(o * n + j)];
          const float best = grids.code(at, scale * code + slopes[j - k0] / h[j * n + j]);
          if (best == code) continue;
          const float moved = (code - best) * scale;  // of the error
          code = best;
          e[o * n + j] += moved;
          ++changed[static_cast<size_t>(o)];
          for (int64_t t = j + 1; t < k1; ++t) slopes[t - k0] += moved * h[j * n + t];
        }
      }
    });
  }
  return std::accumulate(changed.begin(), changed.end(), int64_t{0});
}

void GroupCodes::descend(const Grids& grids, int turns) {
  for (int turn = 0; turn < turns && sweep(grids) > 0; ++turn) {
  }
}

std::vector<GroupCodes> make_groups(const LayerStep& step, int64_t rows, double damping) {
  const int64_t k = step.weight.numel() / step.layer.channels;
  std::vector<GroupCodes> groups;
  for (LayerProblem& problem :
       make_problems(step, choose_rows(step, std::max(rows, 8 * k)), damping)) {
    const int64_t first = std::ssize(groups) * problem.outputs;
    groups.push_back({std::move(problem), first, {}});
  }
  return groups;
}

// -- in a prepared graph --------------------------------------------------------------------------

void search_ranges(ObservedGraphModule& prepared, const PreparedLayer& layer,
                   const std::vector<GroupCodes>& groups) {
  constexpr int kSteps = 100;
  const ObserverOptions& options = weight_observer_options(prepared, layer);
  const CodeRange codes = code_range(options);
  const bool per_channel = is_per_channel(options.qscheme);
  const auto channels = static_cast<size_t>(layer.channels);
  std::vector<float> min(per_channel ? channels : 1), max(min.size());
  const auto values = [&](size_t channel) {
    const GroupCodes& group = groups[channel / static_cast<size_t>(groups[0].problem.outputs)];
    return std::pair(&group, group.problem.w.data<float>() +
                                 (static_cast<int64_t>(channel) - group.first) * group.problem.k);
  };
  for (size_t c = 0; c < channels; ++c) {
    const auto [group, w] = values(c);
    float& lo = min[per_channel ? c : 0];
    float& hi = max[per_channel ? c : 0];
    lo = std::min(lo, *std::min_element(w, w + group->problem.k));
    hi = std::max(hi, *std::max_element(w, w + group->problem.k));
  }
  std::vector<std::vector<double>> errors(channels, std::vector<double>(kSteps + 1));
  parallel_for(layer.channels, [&](int64_t channel) {
    const auto c = static_cast<size_t>(channel);
    const auto [group, w] = values(c);
    const float* h = group->problem.h.data<float>();
    const int64_t k = group->problem.k;
    for (int step = 1; step <= kSteps; ++step) {
      const float part = static_cast<float>(step) / kSteps;
      const size_t i = per_channel ? c : 0;
      const ScaleZeroPoint q = choose_qparams(min[i] * part, max[i] * part, options);
      const auto zero = static_cast<float>(q.zero_point);
      for (int64_t j = 0; j < k; ++j) {
        const float code =
            std::clamp(std::nearbyintf(w[j] / q.scale), static_cast<float>(codes.quant_min) - zero,
                       static_cast<float>(codes.quant_max) - zero);
        const double e = static_cast<double>(w[j] - code * q.scale);
        errors[c][static_cast<size_t>(step)] += e * e * static_cast<double>(h[j * k + j]);
      }
    }
  });
  if (!per_channel)
    for (size_t c = 1; c < channels; ++c)
      for (size_t s = 0; s < errors[c].size(); ++s) errors[0][s] += errors[c][s];
  for (size_t i = 0; i < min.size(); ++i) {
    const auto best = std::min_element(errors[i].begin() + 1, errors[i].end());
    const float part = static_cast<float>(best - errors[i].begin()) / kSteps;
    min[i] *= part;
    max[i] *= part;
  }
  prepared.set_weight(layer.name, {}, min, max);
}

void fit_scales(ObservedGraphModule& prepared, const PreparedLayer& layer, const Grids& grids,
                const std::vector<GroupCodes>& groups) {
  const QParams q = prepared.weight_qparams(layer.name);
  std::vector<double> of_w(q.scales.size()), of_codes(q.scales.size());
  for (const GroupCodes& group : groups) {
    const int64_t k = group.problem.k;
    const Tensor codes = Tensor::from(group.codes, {group.problem.outputs, k});
    const Tensor ch = times(codes, group.problem.h);
    const float *a = ch.data<float>(), *w = group.problem.w.data<float>();
    for (int64_t o = 0; o < group.problem.outputs; ++o)
      for (int64_t j = 0; j < k; ++j) {
        const size_t i = grids.per_channel ? static_cast<size_t>(group.first + o) : 0;
        const auto at = static_cast<size_t>(o * k + j);
        of_w[i] += static_cast<double>(a[at]) * static_cast<double>(w[at]);
        of_codes[i] += static_cast<double>(a[at]) * static_cast<double>(group.codes[at]);
      }
  }
  std::vector<double> scales;
  for (size_t i = 0; i < of_w.size(); ++i) {
    const double best = of_codes[i] > 0 ? of_w[i] / of_codes[i] : 0;
    scales.push_back(best > 0 ? best : q.scales[i]);
  }
  set_scales(prepared, layer, scales);
}

void set_scales(ObservedGraphModule& prepared, const PreparedLayer& layer,
                const std::vector<double>& scales) {
  const QParams q = prepared.weight_qparams(layer.name);
  const bool symmetric = is_symmetric(weight_observer_options(prepared, layer).qscheme);
  const auto codes = static_cast<double>(q.quant_max - q.quant_min);
  std::vector<float> min, max;
  for (size_t i = 0; i < scales.size(); ++i) {
    const double low = symmetric
                           ? -scales[i] * codes / 2
                           : scales[i] * (static_cast<double>(q.quant_min) - q.zero_points[i]);
    min.push_back(static_cast<float>(low));
    max.push_back(static_cast<float>(low + scales[i] * codes));
  }
  prepared.set_weight(layer.name, {}, min, max);
}

void keep_range(ObservedGraphModule& prepared, const PreparedLayer& layer) {
  if (has_weight_range(prepared, layer)) return;
  set_scales(prepared, layer, prepared.weight_qparams(layer.name).scales);
}

void set_weight_only(ObservedGraphModule& prepared, const PreparedLayer& layer,
                     const Tensor& weight) {
  const graph::Graph& g = prepared.graph();
  const graph::Node& node = g.producer(*g.find(layer.name));
  const auto& observer = prepared.submodule(g.producer(node.inputs[1]).scope)->as<Observer>();
  prepared.set_weight(layer.name, weight, observer.min_val().to_vector<float>(),
                      observer.max_val().to_vector<float>());
}

void set_codes(ObservedGraphModule& prepared, const LayerStep& step, const Grids& grids,
               const std::vector<GroupCodes>& groups) {
  std::vector<float> weight;
  for (const GroupCodes& group : groups)
    for (int64_t o = 0, i = 0; o < group.problem.outputs; ++o)
      for (int64_t j = 0; j < group.problem.k; ++j, ++i)
        weight.push_back(group.codes[static_cast<size_t>(i)] *
                         grids.scale[grids.at(group.first + o, j)]);
  set_weight_only(prepared, step.layer, Tensor::from(weight, step.weight.shape()));
}

}  // namespace octet::quant
