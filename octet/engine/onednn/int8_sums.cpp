#include <algorithm>
#include <limits>

#include "octet/engine/geometry_impl.h"
#include "octet/engine/onednn/int8_impl.h"

namespace octet::onednn {

namespace {

// Whether no two products of unsigned codes with these, of one channel, saturate 16 bits together:
// the two largest codes and the two smallest say.
bool products_fit_in_pairs(const int8_t* codes, int64_t runs, int64_t step, int64_t run) {
  int32_t most[2] = {0, 0}, least[2] = {0, 0};
  for (int64_t r = 0; r < runs; ++r)
    for (int64_t i = 0; i < run; ++i) {
      const int32_t q = codes[r * step + i];
      most[1] = std::max(most[1], q);
      least[1] = std::min(least[1], q);
      if (most[1] > most[0]) std::swap(most[0], most[1]);
      if (least[1] < least[0]) std::swap(least[0], least[1]);
    }
  return 255 * (most[0] + most[1]) <= std::numeric_limits<int16_t>::max() &&
         255 * (least[0] + least[1]) >= std::numeric_limits<int16_t>::min();
}

}  // namespace

CodeSums::CodeSums(const engine_detail::WeightCodes& w, const OpSpec& spec) {
  const Shape shape = spec.inputs[1].shape();
  const bool transposed = spec.transposed;
  const int64_t window = numel({shape.begin() + 2, shape.end()});
  // The codes of a channel: `runs` runs of whole windows, `step` apart.
  const int64_t runs = transposed ? shape[0] / spec.attrs.get_int("groups") : 1;
  const int64_t step = transposed ? shape[1] * window : 0;
  const int64_t run = transposed ? window : shape[1] * window;
  taps.assign(static_cast<size_t>(window * w.out_channels), 0);
  std::vector<int32_t> sums(static_cast<size_t>(window));
  pairs_fit = !sums_in_32_bits();
  for (int64_t n = 0; n < w.out_channels; ++n) {
    const int8_t* codes =
        w.codes.data() + (transposed ? n / shape[1] * runs * step + n % shape[1] * run : n * run);
    std::fill(sums.begin(), sums.end(), 0);
    int64_t magnitude = 0;
    for (int64_t r = 0; r < runs; ++r)
      for (int64_t i = 0; i < run; i += window) {
        const int8_t* q = codes + r * step + i;
        int32_t of_window = 0;
        for (int64_t t = 0; t < window; ++t) {
          sums[static_cast<size_t>(t)] += q[t];
          of_window += std::abs(q[t]);
        }
        magnitude += of_window;
      }
    int64_t sum = 0;
    for (int64_t t = 0; t < window; ++t) {
      taps[static_cast<size_t>(t * w.out_channels + n)] = sums[static_cast<size_t>(t)];
      sum += sums[static_cast<size_t>(t)];
    }
    farthest = std::max(farthest, 255 * (magnitude + std::abs(sum)) / 2);
    pairs_fit = pairs_fit && products_fit_in_pairs(codes, runs, step, run);
  }
}

bool sums_in_32_bits() {
  static const bool vnni = [] {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    constexpr auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_vnni);
    return (isa & wanted) == wanted;
  }();
  return vnni;
}

KernelDescription describe_sums(std::string epilogue, bool weight) {
  KernelDescription d;
  d.arithmetic = KernelDescription::Arithmetic::integers;
  d.loop = "oneDNN u8s8";
  d.accumulator = "int32";
  d.epilogue = std::move(epilogue);
  d.rounding = "f(f(sum) * multiplier) to the nearest code, ties to even (octet's)";
  d.weight_bits = weight ? 8 : 0;
  return d;
}

}  // namespace octet::onednn
