#include "octet/quant/algorithms/gptq.h"

#include "octet/base/check_impl.h"
#include "octet/quant/algorithms/codes_impl.h"
#include "octet/quant/algorithms/weight_ranges_impl.h"

namespace octet::quant {

GPTQReport gptq(ObservedGraphModule& prepared, const Samples& samples, const GPTQOptions& options) {
  OCTET_CHECK(options.damping > 0 && options.rows > 0, invalid_argument,
              "gptq: expected damping and rows above 0, got {} and {}", options.damping,
              options.rows);
  GPTQReport report;
  for_each_layer(prepared, samples, {options.float_graph, options.progress}, "gptq",
                 [&](const LayerStep& step) {
                   const PreparedLayer& layer = step.layer;
                   if (has_rows(layer) && !layer.shared) {
                     auto groups = make_groups(step, options.rows, options.damping);
                     if (options.search_ranges && !has_weight_range(prepared, layer))
                       search_ranges(prepared, layer, groups);
                     else
                       keep_range(prepared, layer);
                     const int64_t k = groups[0].problem.k;
                     Grids grids(prepared.weight_qparams(layer.name), layer.channels, k);
                     GPTQReport::Entry entry{layer.label};
                     for (GroupCodes& group : groups) {
                       group.round_to_nearest(grids);
                       entry.nearest_error += group.squared_error(grids);
                       group.round_by_columns(grids);
                       group.descend(grids, options.sweeps);
                     }
                     for (int turn = 0; turn < options.learn_scales; ++turn) {
                       fit_scales(prepared, layer, grids, groups);
                       grids = Grids(prepared.weight_qparams(layer.name), layer.channels, k);
                       for (GroupCodes& group : groups) group.descend(grids, options.sweeps);
                     }
                     for (GroupCodes& group : groups) entry.error += group.squared_error(grids);
                     set_codes(prepared, step, grids, groups);
                     report.layers.push_back(std::move(entry));
                   } else {
                     report.skipped.push_back(layer.label);
                   }
                   if (options.correct_bias) correct_bias_of(prepared, step);
                 });
  return report;
}

}  // namespace octet::quant
